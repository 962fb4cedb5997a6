"""The page of `make serve`: Datasette on the database, pages of our own, and the platform's
universe API.

All of it only reads. With a rollback journal no program can commit while a statement reads: each
statement is short, uses a key, and has ended before the answer is made and sent. What takes longer
is counted beside the answers and kept until the bars change (drawn). Functions named `load_` take a
connection and read; `make_` and `describe_` are pure and return what a template shows; templates
place it. Times are shown in New York where they belong to bars, in local time where they belong to
backups.
"""
