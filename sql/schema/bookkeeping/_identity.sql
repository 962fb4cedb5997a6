-- A row is: the random name of this database, one row at most. Backups carry it, so that they count
-- for the database they were made from, wherever it is moved. A database without a row is known by
-- its path.
-- Written by: a rebuild, into a new database; a restore carries it on.
-- Made again: by the next rebuild, as another database's.

CREATE TABLE IF NOT EXISTS _identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    database_id TEXT NOT NULL
);
