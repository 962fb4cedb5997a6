"""The page of `make serve`: Datasette on the database, a front page, and the platform's universe
API."""
