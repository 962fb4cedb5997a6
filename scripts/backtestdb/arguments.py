"""Types of command line arguments: text to value, or a sentence that argparse prints (exit code
2)."""

import argparse
from datetime import date
from pathlib import Path
from typing import NoReturn

from backtestdb.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what to type instead: `example` is the rest of a whole command that works."""

    def __init__(self, *, example: str, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.example = example

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"{self.example}; all options: ARGS=--help")


def parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-11-20") from None


def parse_positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse_count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def parse_ticker_list(text: str) -> list[str]:
    return [ticker.strip() for ticker in text.split(",") if ticker.strip()]


def existing_file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no file {path}")
    return path
