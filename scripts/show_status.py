#!/usr/bin/env python3
"""How the database, its coverage, its backups and their schedule stand. Reads only, and disturbs no
writer.

Exit code 1 when something needs you: each problem is named with the command that helps.
"""

import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import load_settings
from backtestdb.console import DONE, DONE_WITH_HOLES, FAILED, run
from backtestdb.health.facts import load_facts, make_user
from backtestdb.health.problems import judge
from backtestdb.health.prometheus import facts_as_prometheus
from backtestdb.health.report import facts_as_json, show_facts
from backtestdb.untouched import read_untouched


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    form = parser.add_mutually_exclusive_group()
    add_flag(form, "--json", "for programs")
    add_flag(form, "--prometheus", "numbers for a monitor; exit code 0")
    add_flag(
        parser,
        "--holes",
        "the tickers that miss sessions, by name; --json has them when there are any",
    )
    options = parser.parse_args(arguments)

    settings = load_settings()
    if options.holes and not (options.json or options.prometheus):
        from backtestdb.health.holes import show_holes  # noqa: PLC0415  the calendar, for this alone

        return DONE_WITH_HOLES if show_holes(settings.database_path) else DONE

    facts = load_facts(settings, make_user(os.environ), datetime.now(UTC))
    problems = judge(facts)
    if options.prometheus:
        print(facts_as_prometheus(facts, problems), end="")
        return DONE

    if options.json:
        is_wanted = options.holes or any(row.failed for row in facts.universes)
        print(
            facts_as_json(facts, problems, find_holes(settings.database_path) if is_wanted else [])
        )
    else:
        show_facts(facts, problems)

    return FAILED if problems else DONE


def find_holes(database: Path) -> Sequence[object] | None:
    """Return the holes by ticker; None where they cannot be told."""
    try:
        from backtestdb.health.holes import load_holes  # noqa: PLC0415  see above
    # The calendar of sessions is not among the packages of backup and restore alone.
    except ModuleNotFoundError:
        return None
    try:
        return read_untouched(database, load_holes) if database.is_file() else None
    except sqlite3.Error:
        return None


if __name__ == "__main__":
    run(main)
