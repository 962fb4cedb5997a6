-- A row is: a ticker whose stored bars came before the vendor's list of its splits changed: they
-- are adjusted in another way than an answer of today, and due to be asked for again.
-- Written by: the look at the splits; deleted once all bars of the ticker were replaced.
-- Made again: by the next look.

CREATE TABLE IF NOT EXISTS _splits_due (
    ticker TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    found_at_utc TEXT NOT NULL
) WITHOUT ROWID;
