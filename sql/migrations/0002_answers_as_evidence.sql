-- Answers as evidence: which run asked, whether a second answer agreed, which ranges of a universe
-- were asked for.

ALTER TABLE _ranges_asked ADD COLUMN run TEXT NOT NULL DEFAULT '';
ALTER TABLE _sessions_asked ADD COLUMN run TEXT NOT NULL DEFAULT '';
ALTER TABLE _sessions_asked ADD COLUMN is_confirmed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _coverage ADD COLUMN ranges TEXT NOT NULL DEFAULT '';
ALTER TABLE _coverage ADD COLUMN provisional INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _coverage ADD COLUMN state TEXT NOT NULL DEFAULT 'counted';
