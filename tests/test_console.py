"""What a command says when it fails, and how it ends: one sentence, one exit code, never a
traceback."""

import errno
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb import console
from backtestdb.config import PROJECT_DIR
from backtestdb.console import (
    confirm,
    format_bytes,
    format_cell,
    format_duration,
    guard,
    print_table,
    progress,
    say,
)
from backtestdb.errors import (
    BusyError,
    DatabaseFileError,
    ProjectError,
    SettingsError,
    SpaceError,
    UsageError,
    VerificationError,
)
from backtestdb.market.client import KeyRefusedError, VendorFaultError

EXIT_CODES = {
    BusyError: 1,
    DatabaseFileError: 1,
    KeyRefusedError: 1,
    ProjectError: 1,
    SettingsError: 2,
    SpaceError: 1,
    UsageError: 2,
    VendorFaultError: 1,
    VerificationError: 1,
}


def raising(error: BaseException) -> Callable[[Sequence[str] | None], int]:
    def main(_arguments: Sequence[str] | None) -> int:
        raise error

    return main


@pytest.mark.parametrize("error_class", EXIT_CODES, ids=lambda each: each.__name__)
def test_project_error_becomes_its_sentence_and_exit_code(
    error_class: type[ProjectError], capsys: pytest.CaptureFixture[str]
) -> None:
    code = guard(raising(error_class("7 is above 5", next_step="take 5")), None)
    assert code == EXIT_CODES[error_class]
    printed = capsys.readouterr()
    assert printed.err == "error: 7 is above 5\n       next: take 5\n"
    assert printed.out == ""


@pytest.mark.parametrize("code", [0, 1, 3])
def test_exit_code_of_a_command_is_passed_on_with_its_arguments(code: int) -> None:
    assert guard(lambda arguments: code + len(arguments or []), ["a"]) == code + 1


def test_mistake_of_the_program_is_not_dressed_up_as_a_failure() -> None:
    with pytest.raises(TypeError):
        guard(raising(TypeError("a bug")), None)


def test_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(raising(KeyboardInterrupt()), None) == 130
    assert "interrupted" in capsys.readouterr().err


def make_sqlite_error(tmp_path: Path, cause: str) -> sqlite3.Error:
    """A real one, from SQLite itself."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    if cause == "damaged":
        path.write_bytes(b"no database" * 1000)
    url = f"file:{path}?mode={'ro' if cause == 'read-only' else 'rw'}"
    with (
        closing(sqlite3.connect(path)) as holder,
        closing(sqlite3.connect(url, uri=True, timeout=0)) as connection,
    ):
        if cause == "busy":
            holder.execute("BEGIN IMMEDIATE")
        if cause == "full":
            connection.execute("PRAGMA max_page_count = 2")
        try:
            connection.execute(
                "INSERT INTO t VALUES (zeroblob(100000))" if cause != "syntax" else "SELEKT"
            )
        except sqlite3.Error as error:
            return error
    raise AssertionError(f"SQLite did not mind: {cause}")


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ("full", "error: the disk is full (database or disk is full)"),
        ("busy", "error: another program holds the database (database is locked)"),
        ("damaged", "error: the database is damaged (file is not a database)"),
        ("read-only", "error: the database or its folder cannot be written (attempt to write"),
        ("syntax", 'error: SQLite: near "SELEKT": syntax error'),
    ],
)
def test_sqlite_error_is_named_by_its_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cause: str, sentence: str
) -> None:
    assert guard(raising(make_sqlite_error(tmp_path, cause)), None) == 1
    assert capsys.readouterr().err.startswith(sentence)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "error: the disk is full (/data/x.db)"),
        (errno.EDQUOT, "error: the disk is full (/data/x.db)"),
        (errno.EACCES, "error: Permission denied (/data/x.db)"),
        (errno.EROFS, "error: Read-only file system (/data/x.db)"),
        (errno.EIO, "error: Input/output error (/data/x.db)"),
    ],
)
def test_system_error_is_named_with_its_file(
    capsys: pytest.CaptureFixture[str], number: int, sentence: str
) -> None:
    error = OSError(number, os.strerror(number), "/data/x.db")
    assert guard(raising(error), None) == 1
    assert capsys.readouterr().err.startswith(sentence)


COMMAND = """
import sys
from backtestdb.console import run
def main(arguments):
    print("line\\n" * int(sys.argv[1]), flush=sys.argv[2] == "flush")
    return 0
run(main)
"""


@pytest.mark.parametrize(("lines", "flush"), [("1", "no"), ("1", "flush"), ("100000", "no")])
def test_reader_that_went_away_ends_a_command_without_a_word(lines: str, flush: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, lines, flush],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_DIR / "scripts")},
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_messages_in_a_log_carry_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    say("begun")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err) == len("2026-11-22 14:00:00 begun\n")
    assert printed.err.endswith(" begun\n")


def test_progress_in_a_log_is_sober_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with progress("bars", 50) as advance:
        for _ in range(30):
            now += 1
            advance(1)
    lines = [line[20:] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "bars: 10 of 50, 1.0/s, 40 s left",
        "bars: 20 of 50, 1.0/s, 30 s left",
        "bars: 30 of 50, 1.0/s, 20 s left",
        "bars: 30 of 50 in 30.0 s",
    ]


def test_progress_without_any_unit_done_has_no_rate_and_no_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with progress("bars", 50) as advance:
        now += 11
        advance(0)
    assert "bars: 0 of 50" in capsys.readouterr().err


def test_progress_that_breaks_off_does_not_say_that_it_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="stop"), progress("bars", 5) as advance:
        advance(1)
        raise ValueError("stop")
    assert capsys.readouterr().err == ""


def test_progress_of_nothing_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("bars", 0):
        pass
    assert capsys.readouterr().err == ""


def test_table_goes_to_standard_output_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        "Result of [x]", ["what [/y]", "rows"], [["[red]AAPL[/red]", 1234567], [None, True]]
    )
    printed = capsys.readouterr()
    assert printed.err == ""
    for text in ("Result of [x]", "what [/y]", "[red]AAPL[/red]", "1,234,567", "–", "yes"):
        assert text in printed.out


@pytest.mark.parametrize(
    ("typed", "expected"), [("", True), ("n\n", False), ("\n", False), ("y\n", True)]
)
def test_question_without_a_terminal_hears_a_pipe_and_else_means_yes(
    monkeypatch: pytest.MonkeyPatch, typed: str, expected: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert confirm("Replace?", assume_yes=False) is expected
    assert confirm("Replace?", assume_yes=True)


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False)]
)
def test_question_on_a_terminal_needs_a_yes(
    monkeypatch: pytest.MonkeyPatch, answer: str, expected: bool
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert confirm("Replace?", assume_yes=False) is expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (780, "13 min"), (3599, "1 h 00 min"), (15060, "4 h 11 min")],
)
def test_duration_is_told_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3e12, "3.0 TB")],
)
def test_bytes_are_told_in_the_unit_that_fits(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(("cell", "text"), [(0, "0"), (False, "no"), (1.25, "1.2"), ("NA", "NA")])
def test_cells_of_a_table(cell: object, text: str) -> None:
    assert format_cell(cell) == text
