#!/usr/bin/env python3
"""Put time_of_day and day_of_week of the 5-minute bars right: New York, HH:MM:SS, 0 = Sunday."""

from collections.abc import Sequence
from contextlib import closing

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import load_settings
from backtestdb.console import DONE, print_table, run, say
from backtestdb.database import connect
from backtestdb.market.time_of_day import count_kinds, fix_time_of_day


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(parser, "--dry-run", "count what is wrong and change nothing")
    chosen = parser.parse_args(arguments)

    with closing(connect(load_settings().database_path)) as connection:
        say("counting the 5-minute bars by kind")
        kinds = count_kinds(connection)
        print_table("5-minute bars by time_of_day", ["kind", "rows"], list(kinds.items()))
        wrong = sum(count for kind, count in kinds.items() if kind != "right")
        if chosen.dry_run or not wrong:
            print(f"{wrong:,} rows to correct; nothing was changed")
            return DONE
        print(f"{fix_time_of_day(connection):,} rows corrected")

    return DONE


if __name__ == "__main__":
    run(main)
