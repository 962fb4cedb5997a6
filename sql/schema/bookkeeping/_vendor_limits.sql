-- A row is: what the key's plan was found to cover of one endpoint: 1day and 5min (a ticker's
-- range), grouped (the whole market's session). history_starts: sessions before it were refused, it
-- was answered; proven_from: an answer about this day was given; refused_session: the newest
-- session, refused for now; is_refused: 1 when the plan does not have the endpoint at all. NULL
-- where nothing is known.
-- Written by: the backfills, when the vendor refuses a session and a second request agrees.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _vendor_limits (
    endpoint TEXT PRIMARY KEY,
    history_starts TEXT,
    proven_from TEXT,
    refused_session TEXT,
    is_refused INTEGER NOT NULL DEFAULT 0,
    learnt_at_utc TEXT NOT NULL
) WITHOUT ROWID;
