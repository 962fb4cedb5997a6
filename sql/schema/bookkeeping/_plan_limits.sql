-- A row is: what the key's plan was found to cover. covered_from: sessions before it were refused;
--   proven_from: an answer about this day was given; refused_session: the newest session, refused for now.
--   NULL where nothing is known.
-- Written by: the backfills, when the vendor refuses a session, or answers where a refusal was to be expected.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _plan_limits (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    covered_from TEXT,
    proven_from TEXT,
    refused_session TEXT,
    learnt_at_utc TEXT NOT NULL
);
