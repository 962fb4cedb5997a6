"""How data comes in: HTTP in `api`, the database in `bars`, arithmetic in `metrics` and `plan`."""
