"""What a command says: results on standard output, progress and messages on standard error.

Here stands the one boundary where errors become sentences and exit codes.
"""

import codecs
import errno
import io
import os
import shutil
import signal
import sqlite3
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from backtestdb.database import BUSY_CODES, DAMAGE_CODES, UNREADABLE_SCHEMA, primary_code
from backtestdb.errors import ProjectError

Say = Callable[[str], None]  # takes one message for the user
DONE, FAILED, WRONG_USAGE, DONE_WITH_HOLES = 0, 1, 2, 3
LOG_LINE_EVERY_SECONDS = 10.0
LIKENESS = {
    **dict(zip("–—“”‘’·×", """--""''.x""", strict=True)),
    **{"…": "...", "≥": ">=", "≤": "<="},
}


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a command's `main` and end the process with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see backtestdb/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    sys.exit(guard(main, None))


def guard(main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code; print an error that the user can act on."""
    try:
        code = main(arguments)
        sys.stdout.flush()  # or a reader that went away shows only after the exit code is chosen
        return code
    except ProjectError as error:
        print_error(str(error), error.next_step)
        return error.exit_code
    except sqlite3.Error as error:
        print_error(*explain_sqlite_error(error))
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        print_error(*explain_os_error(error))
    except KeyboardInterrupt:
        print_error("interrupted", "start the same command again: it continues")
        return 130

    return FAILED


def write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Return what is shown without UTF-8: `–` as `-`, what has no likeness as `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(LIKENESS.get(character, "?") for character in text), error.end


codecs.register_error("plain", write_plainly)


def drop_output() -> None:
    """Drop what is buffered for a reader that has gone; at the end it would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def print_error(what: str, next_step: str = "") -> None:
    print(f"error: {what}", file=sys.stderr)
    if next_step:
        print(f"       next: {next_step}", file=sys.stderr)


def explain_sqlite_error(error: sqlite3.Error) -> tuple[str, str]:
    if str(error).startswith(UNREADABLE_SCHEMA):
        what = (
            f"SQLite {sqlite3.sqlite_version} cannot read the schema: it is damaged, or too "
            f"new ({error})"
        )
        return what, "make doctor tells which"
    return explain_code(primary_code(error), error)


def explain_code(code: int, error: sqlite3.Error) -> tuple[str, str]:
    """Given SQLite's primary result code, return what happened and what to do next."""
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full ({error})", "free space on it, then start the same command again"
    if code in BUSY_CODES:
        return (
            f"another program holds the database ({error})",
            "stop that program, or try again later",
        )

    if code in DAMAGE_CODES:
        return f"the database is damaged ({error})", "make restore-from-backup"
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return (
            f"the database or its folder cannot be written ({error})",
            "check owner and permissions",
        )

    if code == sqlite3.SQLITE_IOERR:
        what = (
            f"the disk did not do what it was asked to ({error}); that does not say that the "
            "file is damaged"
        )
        return what, "see that the disk is well and connected, then start the same command again"

    return f"SQLite: {error}", ""


def describe_error(error: ProjectError | OSError | sqlite3.Error) -> str:
    """Return what happened and what to do next on one line, for a log."""
    if isinstance(error, ProjectError):
        return join_advice(str(error), error.next_step)
    explain = explain_os_error(error) if isinstance(error, OSError) else explain_sqlite_error(error)
    return join_advice(*explain)


def join_advice(what: str, next_step: str) -> str:
    return f"{what}; next: {next_step}" if next_step else what


def explain_os_error(error: OSError) -> tuple[str, str]:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full{where}", "free space on it, then start the same command again"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{error.strerror}{where}", "check owner, permissions and mount options"
    return f"{error.strerror or error}{where}", ""


def say(message: str) -> None:
    """Write to standard error for the user: plain on a terminal, with the local time in a log."""
    if not sys.stderr.isatty():
        message = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {message}"
    print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of units just done. On a terminal a bar with rate and
    remaining time, in a log a line every ten seconds and one at the end."""
    if sys.stderr.isatty():
        with progress_bar(label, total) as advance:
            yield advance
        return

    done, started = 0, time.monotonic()
    next_line = started + LOG_LINE_EVERY_SECONDS

    def advance_log(units: int = 1) -> None:
        nonlocal done, next_line
        done += units
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + LOG_LINE_EVERY_SECONDS
            rate = done / (time.monotonic() - started)
            remaining = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if done else ""
            say(f"{label}: {done} of {total}{remaining}")

    yield advance_log
    if total:
        say(f"{label}: {done} of {total} in {time.monotonic() - started:.1f} s")


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a bar on the terminal on by a number of steps."""
    from rich.console import Console  # noqa: PLC0415  only a terminal pays for rich
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total)

        def advance_bar(units: int = 1) -> None:
            bars.update(task, advance=units)

        yield advance_bar


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on standard output; numbers to the right."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    cells = [[format_cell(cell) for cell in row] for row in rows]
    needed = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    # Nothing breaks inside of a number or a name: where the columns do not fit beside each other,
    # each row is a block of lines with a name and a value.
    if sum(needed) + 3 * len(needed) + 1 > output_width():
        print_blocks(title, columns, cells)
        return

    table = Table()
    for index, column in enumerate(columns):
        numbers = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(column), justify="right" if numbers else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))

    console = Console(width=output_width())
    console.print(Text(title), style="bold", soft_wrap=True)
    console.print(table)


def print_blocks(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print each row as a line with what it is about, and below it a line for each other column."""
    print(title)
    width = max(map(len, columns))
    for first, *others in cells:
        print(f"  {first}")
        for column, cell in zip(columns[1:], others, strict=True):
            if cell not in {"", "–"}:
                print(f"    {column:<{width}}  {cell}")


def output_width() -> int:
    """Return the columns of the terminal, or COLUMNS; in a pipe or a log nothing needs to fit."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(shutil.get_terminal_size((80, 24)).columns, 20)
    return 160


def print_paragraph(text: str, indent: int) -> None:
    """Print words that wrap at the width, the lines after the first as far in as `indent`."""
    print(
        textwrap.fill(
            text,
            output_width(),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def count_of(count: int, noun: str) -> str:
    """Given a count and a noun in the singular, return both as text: `1 request`, `2 requests`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_cell(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.1f}" if isinstance(cell, float) else str(cell)


def format_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_duration(seconds: float) -> str:
    """Return the first two units that matter: 42 s, 13 min, 4 h 11 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def confirm(question: str, *, assume_yes: bool) -> bool:
    """Ask, on a terminal or the pipe of `echo n |`. Where nothing comes, as from cron, the command
    was meant. A command that is told no ends as one that failed, by `DeclinedError`."""
    if assume_yes:
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer, is_terminal = read_answer()
    if not is_terminal:
        print(answer.strip() or "(nobody to ask: yes)", file=sys.stderr)
    return answer.strip().lower() in {"y", "yes"} or (not answer and not is_terminal)


def read_answer() -> tuple[str, bool]:
    """Return the line, empty at the end of the input, and whether it came from a terminal."""
    try:
        return sys.stdin.readline(), sys.stdin.isatty()
    except (AttributeError, OSError):  # closed, as some supervisors start programs
        return "", False
