"""What can still be read of a damaged database, page by page, united with the newest good backup.

The walk is in `salvage`. Below it: `working_copy` (the damaged file itself is only read), `build`
(from the copy to the new database), `pages`, `records` and `trees`
(https://www.sqlite.org/fileformat2.html), `scan` (pages without a parent, free pages), `objects`
(the schema), `shapes` (what a row of a table can look like), `sources`, `orphans` and `proofs`
(which pages and rows are a table's), `rows` and `union`."""
