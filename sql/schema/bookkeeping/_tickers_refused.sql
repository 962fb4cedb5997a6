-- A row is: a ticker that the key's plan does not include, such as an index: every session of it
-- was refused while another ticker was answered.
-- Written by: the backfills, in the place of an answer.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _tickers_refused (
    ticker TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    refused_at_utc TEXT NOT NULL,
    PRIMARY KEY (ticker, timeframe)
) WITHOUT ROWID;
