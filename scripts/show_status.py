#!/usr/bin/env python3
"""How the database, its coverage, its backups and their schedule stand. Reads only, and disturbs no
writer.

Exit code 1 when something needs you: each problem is named with the command that helps.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.config import load_settings
from backtestdb.console import DONE, DONE_WITH_HOLES, FAILED, run
from backtestdb.health.facts import load_facts, make_user
from backtestdb.health.problems import judge
from backtestdb.health.prometheus import facts_as_prometheus
from backtestdb.health.report import facts_as_json, show_facts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument(
        "--prometheus", action="store_true", help="numbers for a monitor; exit code 0"
    )
    form.add_argument(
        "--holes", action="store_true", help="the tickers that miss sessions, by name"
    )
    options = parser.parse_args(arguments)
    settings = load_settings()
    if options.holes:
        from backtestdb.health.holes import show_holes  # noqa: PLC0415  the calendar, for this alone

        return DONE_WITH_HOLES if show_holes(settings.database_path) else DONE
    facts = load_facts(settings, make_user(os.environ), datetime.now(UTC))
    problems = judge(facts)
    if options.prometheus:
        print(facts_as_prometheus(facts, problems), end="")
        return DONE
    if options.json:
        print(facts_as_json(facts, problems))
    else:
        show_facts(facts, problems)
    return FAILED if problems else DONE


if __name__ == "__main__":
    run(main)
