#!/usr/bin/env python3
"""Play the market data vendor on 127.0.0.1: no key, no quota of yours, repeatable prices."""

import argparse
import json
import os
import signal
import sys
import threading
from datetime import date, datetime
from pathlib import Path

from backtestdb.arguments import Parser, add_flag
from backtestdb.files import write_atomically
from backtestdb.new_york import NEW_YORK
from backtestdb.sandbox.server import SandboxServer
from backtestdb.sandbox.source import load_real_prices
from backtestdb.sandbox.splits import Split, parse_split
from backtestdb.sandbox.state import Settings, make_sandbox
from backtestdb.sandbox.subscription import Subscription


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument

    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--port-file", type=Path, help="write the port into this file when ready")
    add(
        "--today",
        type=date.fromisoformat,
        help="the day the sandbox lives on (default: today in New York)",
    )

    add("--key", action="append", help="a right key (default: sandbox); may be given again")
    add("--requests-per-minute", type=int, default=0, help="quota per key; 0 (default) = none")
    add(
        "--window-seconds",
        type=float,
        default=60.0,
        help="length of the quota's window (default: 60)",
    )
    add_flag(parser, "--no-retry-after", "answer 429 without Retry-After")
    add(
        "--history-years",
        type=int,
        default=0,
        help="how far back the plan reaches; 0 (default) = to 2000",
    )
    add_flag(parser, "--free-plan", "refuse ranges that end today, as the free plan does")
    add("--latency-ms", type=float, default=0.0, help="wait before each answer")

    add("--tickers", type=parse_tickers, default=100, help="stocks, 72 to 17000 (default: 100)")
    add("--splits", type=load_splits, default=(), help="a JSON list of made-up splits")
    add_flag(parser, "--junk", "put a row of junk into the grouped answers")

    add_flag(parser, "--exit-with-stdin", "stop when standard input closes (used by tests)")
    return parser.parse_args(arguments)


def parse_tickers(text: str) -> int:
    """Return a number of stocks that three letters can name."""
    if not 0 <= int(text) <= 17_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 17000")
    return int(text)


def load_splits(text: str) -> tuple[Split, ...]:
    """Return made-up splits of a JSON file: ticker, execution_date, split_from, split_to."""
    try:
        return tuple(parse_split(row) for row in json.loads(Path(text).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text} holds no list of splits: {error!r}") from error


def make_server(options: argparse.Namespace) -> SandboxServer:
    """Return a server that listens already, and answers once it is run."""
    settings = Settings(
        keys=tuple(options.key or ["sandbox"]),
        requests_per_minute=options.requests_per_minute,
        window_seconds=options.window_seconds,
        retry_after=not options.no_retry_after,
        latency_seconds=options.latency_ms / 1000,
        plan=Subscription(options.history_years, options.free_plan),
    )
    load_real_prices()
    today = options.today or datetime.now(NEW_YORK).date()
    sandbox = make_sandbox(
        settings, today=today, tickers=options.tickers, splits=options.splits, junk=options.junk
    )

    return SandboxServer(options.port, sandbox)


def wait_for_stdin(server: SandboxServer) -> None:
    """Stop the server when the process that started it is gone.

    Not through sys.stdin: its lock, held by a reading thread, aborts the interpreter at its end.
    """
    while os.read(0, 4096):
        pass
    server.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes."""
    options = parse_arguments(arguments)
    try:
        server = make_server(options)
    except OSError as error:
        print(f"The sandbox cannot start on port {options.port}: {error}", file=sys.stderr)
        return 1

    port = server.server_address[1]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    if options.exit_with_stdin:
        threading.Thread(target=wait_for_stdin, args=(server,), daemon=True).start()
    if options.port_file:
        write_atomically(options.port_file, f"{port}\n", mode=0o666, durably=False)

    print(f"sandbox listening on http://127.0.0.1:{port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
