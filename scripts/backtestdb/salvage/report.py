"""What a salvage brought and what it could not, as people read it."""

from backtestdb.backups.catalogue import Backup
from backtestdb.console import print_table
from backtestdb.salvage.salvage import SalvageResult


def print_salvaged(salvaged: SalvageResult) -> None:
    """Print a line for each table that has rows or lost some, then what that means."""
    rows = [
        (
            table.table,
            "yes" if table.is_whole else "NO",
            table.from_damaged,
            table.from_backup,
            table.lost_pages,
            table.lost_rows,
        )
        for table in salvaged.tables
        if table.from_damaged or table.from_backup or not table.is_whole
    ]
    columns = (
        "table",
        "whole",
        "rows read",
        "rows from the backup",
        "pages lost",
        "rows unreadable",
    )
    print_table("salvaged", columns, rows)

    for line in describe_losses(salvaged):
        print(line)


def describe_losses(salvaged: SalvageResult) -> list[str]:
    """Return sentences for the user; one alone when nothing is lost."""
    if salvaged.is_complete:
        return ["every table could be read to its last row: nothing is lost"]
    lost = [table.table for table in salvaged.tables if not table.is_whole]
    lines = [f"NOT everything could be read of: {', '.join(lost)}"] if lost else []
    if lost:
        lines.append(describe_backup(salvaged.backup))

    for table in salvaged.tables:
        if table.beside:
            lines.append(
                f"{table.table} has other columns in the backup, or refers to a table that is "
                f"gone: its {table.rows_beside:,} rows there are not united with it, they are "
                f"whole in {table.beside}"
            )

    left_out = sum(table.left_out for table in salvaged.tables)
    if left_out:
        lines.append(
            f"{left_out:,} rows of the backup were left out, because they clash with newer ones"
        )

    if salvaged.built.strays:
        lines.append(
            f"{salvaged.built.strays:,} pages hold rows of which no table can be told: they were "
            "not taken"
        )

    for name, refusal in salvaged.built.plain.items():
        lines.append(
            f"{name} has plain columns, without its rules: this SQLite cannot create it as it was "
            f"({refusal})"
        )

    if salvaged.built.not_created:
        lines.append(f"could not be created again: {', '.join(salvaged.built.not_created)}")
    return lines


def describe_backup(backup: Backup | None) -> str:
    if backup is None:
        return "no backup could fill the gaps: what is not counted as read is lost"
    taken = f"{backup.taken_at_utc.astimezone():%Y-%m-%d %H:%M:%S}"
    return (
        f"there, rows of the backup {backup.path.name} ({taken}) stand in for what was lost:"
        " later rows and changes may be missing, rows deleted since may be back"
    )
