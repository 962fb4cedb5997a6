"""How everything stands, and what is wrong around it: facts of the database, its coverage, the
backups, the schedule and the drills; problems and the environment, judged in one place each; shown
by status, doctor and page."""
