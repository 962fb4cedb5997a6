#!/usr/bin/env python3
"""The page: how everything stands, the tables of the database, and the universe API. Read-only, on
127.0.0.1.

  /                             what needs you, coverage, backups, drills
  /tickers                      sessions, bars, holes, last split; a search
  /ticker/AAPL                  candles of days and of a day, splits, holes
  /api/scanner/universes        the universes, as the platform's API has them
  /api/scanner/universes/NAME[/tickers]
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing, suppress

from backtestdb.arguments import Parser
from backtestdb.config import load_settings
from backtestdb.console import DONE, run
from backtestdb.health.facts import make_user


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--port", type=int, help="instead of the setting PORT; 0 takes a free one")
    chosen = parser.parse_args(arguments).port
    settings = load_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    from backtestdb.page.server import ADDRESS, open_port, serve  # noqa: PLC0415  --help need not wait for Datasette

    with (
        closing(open_port(settings.port if chosen is None else chosen)) as listener,
        suppress(KeyboardInterrupt),
    ):
        print(f"serving http://{ADDRESS}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        serve(settings, make_user(os.environ), listener)

    return DONE


if __name__ == "__main__":
    run(main)
