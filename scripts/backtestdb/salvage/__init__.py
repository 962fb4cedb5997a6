"""What can still be read of a damaged database, page by page, united with the newest good backup.

The walk is in `run`. Below it: `private_copy` (the damaged file is only read), `pages`, `records` and `trees`
(SQLite's file format, https://www.sqlite.org/fileformat2.html), `objects` (the schema), `shapes` (what a row of
a table can look like), `orphans` (pages whose parent is gone), `rows` and `union`.
"""
