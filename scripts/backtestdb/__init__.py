"""What every script of this project shares: see docs/DATABASE.md for the map of the rooms."""
