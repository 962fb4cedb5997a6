-- A row is: a split that the vendor listed at some look: when it was first seen, from when on
-- answers are taken to be adjusted by it, and since when it is not listed any more. A correction is
-- one that is withdrawn and one that is new.
-- Written by: the look at the end of every backfill, update and rebuild, in one transaction with
-- _splits_asked.
-- Made again: by the next look; bars from the days around it are then asked for once more.

CREATE TABLE IF NOT EXISTS _splits (
    ticker TEXT NOT NULL,
    execution_date TEXT NOT NULL,
    split_from REAL NOT NULL,
    split_to REAL NOT NULL,
    first_seen_at_utc TEXT NOT NULL,
    believed_at_utc TEXT NOT NULL,
    withdrawn_at_utc TEXT,
    PRIMARY KEY (ticker, execution_date, split_from, split_to)
) WITHOUT ROWID;
