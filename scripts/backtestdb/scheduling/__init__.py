"""When backups are due, what wakes them, and who hears how they went; stands on backups."""
