"""How data is kept: snapshots that are checked before they count, and the way back.

A backup is a database file with a valid manifest beside it. The walk of a backup is in `backup`,
the walk of a restore in `restore_choice` and `restore`; the other modules are their parts."""
