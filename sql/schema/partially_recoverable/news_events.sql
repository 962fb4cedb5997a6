-- A row is: a headline about a ticker, with its sentiment.
-- Written by: the platform.
-- Made again: past news from its source, while that still lists it.

CREATE TABLE IF NOT EXISTS news_events (
    id TEXT PRIMARY KEY,
    ticker TEXT NOT NULL,
    published_at TEXT NOT NULL,
    headline TEXT NOT NULL,
    summary TEXT,
    source TEXT,
    url TEXT,
    sentiment TEXT,
    impact_score INTEGER,
    created_at TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_news_sentiment ON news_events (sentiment, impact_score);
CREATE INDEX IF NOT EXISTS idx_news_ticker_date ON news_events (ticker, published_at);
