#!/usr/bin/env python3
"""What is wrong around the database: settings, other databases nearby, disks, permissions, time,
damage.

Each finding comes with the command or the change that mends it. Exit code 1 when something is
wrong. No key is ever shown.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.console import DONE, FAILED, count_of, print_paragraph, run
from backtestdb.health.environment import examine, folders_to_search
from backtestdb.health.permissions import close_to_others
from backtestdb.health.problem import Problem


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.close:
        close_to_others(load_settings().backup_dir)
    env_file = Path(os.environ.get("BACKTEST_ENV_FILE", PROJECT_DIR / ".env"))
    findings = examine(
        os.environ,
        env_file,
        datetime.now(UTC),
        home=Path.home(),
        folders=folders_to_search(Path.cwd(), Path.home()),
        online=options.online,
    )

    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        show(findings)

    return FAILED if any(finding.level == "wrong" for finding in findings) else DONE


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Exit with code 2 for options that the command does not know."""
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--online",
        "also send the vendor one cheap request, and a test to the watcher and NOTIFY_URLS",
    )
    add_flag(parser, "--close", "first take the rights of others on our backups")
    add_flag(parser, "--json", "for programs")

    return parser.parse_args(arguments)


def show(findings: Sequence[Problem]) -> None:
    for finding in findings:
        print_paragraph(f"{finding.level:6} {finding.where or finding.name}: {finding.what}", 9)
        if finding.next_step:
            print(f"         next: {finding.next_step}")
    count = sum(finding.level == "wrong" for finding in findings)
    print(f"{count_of(count, 'thing')} of {len(findings)} wrong" if count else "nothing is wrong")


if __name__ == "__main__":
    run(main)
