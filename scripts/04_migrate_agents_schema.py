#!/usr/bin/env python3
"""Give an older database the learning-lab columns of its agents; a second run changes nothing."""

from collections.abc import Sequence
from contextlib import closing

from backtestdb.arguments import Parser
from backtestdb.config import load_settings
from backtestdb.console import DONE, run
from backtestdb.database import connect, table_names
from backtestdb.schema import agents_table_was_renamed, migrate


def main(arguments: Sequence[str] | None = None) -> int:
    Parser(__doc__).parse_args(arguments)
    path = load_settings().database_path
    with closing(connect(path)) as connection:
        if agents_table_was_renamed(connection):
            print(f"{path}: a newer platform renamed trading_agents; nothing was changed")
            return DONE
        if "trading_agents" not in table_names(connection):
            print(f"{path}: there is no table trading_agents; make restore-schema creates it")
            return DONE
        changes = migrate(connection)

    print("\n".join(changes) or f"{path}: up to date, nothing to do")
    return DONE


if __name__ == "__main__":
    run(main)
