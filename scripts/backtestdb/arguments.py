"""Types of command line arguments: text to value, or a sentence for argparse (exit code 2)."""

import argparse
from datetime import date
from pathlib import Path
from typing import NoReturn

from backtestdb.errors import UsageError


class Paragraphs(argparse.HelpFormatter):
    """Fits each paragraph of a description to the terminal, and leaves lists as they stand."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(
            paragraph if "\n  " in paragraph else fill(paragraph, width, indent)
            for paragraph in text.strip().split("\n\n")
        )


class Parser(argparse.ArgumentParser):
    """Given a command's docstring, describes it. Where `example` is given, the rest of a whole
    command that works, an error says what to type instead."""

    def __init__(self, description: str | None, *, example: str = "") -> None:
        super().__init__(description=description, formatter_class=Paragraphs)
        self.example = example

    def error(self, message: str) -> NoReturn:
        if not self.example:
            super().error(message)
        raise UsageError(message, next_step=f"{self.example}; all options: ARGS=--help")


def add_flag(parser: argparse._ActionsContainer, name: str, meaning: str) -> None:
    """Add the option `name`, which takes no value, to a parser or to a group of one."""
    parser.add_argument(name, action="store_true", help=meaning)


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
