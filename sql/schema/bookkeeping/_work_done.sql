-- A row is: how far a long piece of work has come that is stored part by part, in tickers:
-- 'staging' while the sessions that were set aside are loaded, 'metrics' while metrics follow the
-- bars.
-- Written by: the backfills, in the transaction that stores the part.
-- Made again: not needed; without it the work begins at its beginning.

CREATE TABLE IF NOT EXISTS _work_done (
    task TEXT PRIMARY KEY,
    tickers INTEGER NOT NULL
) WITHOUT ROWID;
