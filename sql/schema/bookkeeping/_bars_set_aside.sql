-- A row is: a bar that the vendor sent and that cannot be true, as it came, with the rule it broke.
-- Written by: the backfills, in the transaction that stores the good bars of the same answer.
-- Made again: by asking again; the vendor may have mended it since.

CREATE TABLE IF NOT EXISTS _bars_set_aside (
    ticker TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    session_date TEXT NOT NULL,
    reason TEXT NOT NULL,
    bar TEXT NOT NULL,
    set_aside_at_utc TEXT NOT NULL,
    PRIMARY KEY (ticker, timeframe, timestamp, reason)
) WITHOUT ROWID;
