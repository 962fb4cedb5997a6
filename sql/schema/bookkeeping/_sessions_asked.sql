-- A row is: a session of the whole market that the vendor answered, and for which tickers the
-- answer was kept (ticker_set 0: for every ticker in it). One of those tickers without a bar had no
-- trade that day, unless it waits in _unconfirmed. received = stored + dropped (other tickers) +
-- set_aside. metrics_due is 1 until the metrics follow. An answer with far fewer rows than those
-- about the sessions around it counts only once it is confirmed: another run was answered the same.
-- Written by: the backfills, in the transaction that stores the answer's bars.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _sessions_asked (
    session_date TEXT NOT NULL,
    ticker_set INTEGER NOT NULL,
    received INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    set_aside INTEGER NOT NULL,
    metrics_due INTEGER NOT NULL DEFAULT 1,
    asked_at_utc TEXT NOT NULL,
    run TEXT NOT NULL DEFAULT '',
    is_confirmed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session_date, ticker_set)
) WITHOUT ROWID;
