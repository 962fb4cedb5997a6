"""A database from scratch: stands above market and backups, which do not know each other."""
