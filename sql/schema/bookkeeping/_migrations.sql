-- A row is: one migration of this project that the database has, by its number.
-- Written by: whatever makes the schema, and 04_migrate_agents_schema.py. PRAGMA user_version is
-- the platform's.
-- Made again: by the next 04_migrate_agents_schema.py, which adds what is missing.

CREATE TABLE IF NOT EXISTS _migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at_utc TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
