#!/usr/bin/env python3
"""How the database, its coverage, its backups and their schedule stand. Reads only, and disturbs no writer.

Exit code 1 when something needs you: each problem is named with the command that helps.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.config import load_settings
from backtestdb.console import DONE, FAILED, run
from backtestdb.health.facts import load_facts, make_user
from backtestdb.health.problems import judge
from backtestdb.health.report import facts_as_json, show_facts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    as_json = parser.parse_args(arguments).json
    facts = load_facts(load_settings(), make_user(os.environ), datetime.now(UTC))
    problems = judge(facts)
    if as_json:
        print(facts_as_json(facts, problems))
    else:
        show_facts(facts, problems)
    return FAILED if problems else DONE


if __name__ == "__main__":
    run(main)
