"""Databases of older scripts: every wrong time_of_day is told by its kind, put right, and only
once."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.config import PROJECT_DIR
from backtestdb.database import transaction
from backtestdb.market.time_of_day import KINDS, count_kinds, fix_time_of_day
from market_setup import open_new_database

NEW_YORK = ZoneInfo("America/New_York")
SUMMER, WINTER = "2012-11-02T09:30", "2012-11-05T19:55"
# What older scripts wrote: of the New York time and the UTC time of a bar.
WRITERS = {
    "right": lambda local, _: f"{local:%H:%M:%S}",
    "null": lambda *_: None,
    "empty text": lambda *_: "",
    "HH:MM": lambda local, _: f"{local:%H:%M}",
    "UTC": lambda _, utc: f"{utc:%H:%M:%S}",
    "UTC HH:MM": lambda _, utc: f"{utc:%H:%M}",
    "-4": lambda _, utc: f"{utc - timedelta(hours=4):%H:%M:%S}",
    "-4 HH:MM": lambda _, utc: f"{utc - timedelta(hours=4):%H:%M}",
    "-5": lambda _, utc: f"{utc - timedelta(hours=5):%H:%M:%S}",
    "-5 HH:MM": lambda _, utc: f"{utc - timedelta(hours=5):%H:%M}",
    "nonsense": lambda *_: "morning",
    "India": lambda _, utc: f"{utc + timedelta(hours=5, minutes=30):%H:%M}",
}
# In summer UTC-4 is New York, in winter UTC-5 is.
EXPECTED = {
    "right": ("right", "right"),
    "null": ("no time", "no time"),
    "empty text": ("no time", "no time"),
    "HH:MM": ("New York, without seconds", "New York, without seconds"),
    "UTC": ("UTC", "UTC"),
    "UTC HH:MM": ("UTC", "UTC"),
    "-4": ("right", "UTC-4 all year"),
    "-4 HH:MM": ("New York, without seconds", "UTC-4 all year"),
    "-5": ("UTC-5 all year", "right"),
    "-5 HH:MM": ("UTC-5 all year", "New York, without seconds"),
    "India": ("another time zone", "another time zone"),
    "nonsense": ("no time of day", "no time of day"),
}
ROWS = "SELECT id, ticker, timestamp, close, time_of_day, day_of_week FROM ohlcv_data ORDER BY id"
SCRIPT = PROJECT_DIR / "scripts" / "05_fix_time_of_day.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_new_database(path)) as connection:
        yield connection


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def add_bar(
    connection: sqlite3.Connection,
    when: datetime,
    time_of_day: object,
    day_of_week: object,
    ticker: str = "A",
) -> None:
    connection.execute(
        "INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe, "
        "time_of_day, day_of_week) VALUES (?, ?, 1, 1, 1, 1, 1, '5min', ?, ?)",
        (ticker, int(when.timestamp() * 1000), time_of_day, day_of_week),
    )


def add_written_bar(
    connection: sqlite3.Connection, writer: str, when: datetime, ticker: str = "A"
) -> None:
    text = WRITERS[writer](when.astimezone(NEW_YORK), when.astimezone(UTC))
    add_bar(connection, when, text, int(when.astimezone(NEW_YORK).strftime("%w")), ticker)


def read_times(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute(
        "SELECT time_of_day, day_of_week FROM ohlcv_data ORDER BY id"
    ).fetchall()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("when", "season"), [(SUMMER, 0), (WINTER, 1)], ids=["summer", "winter"])
def test_each_kind_is_told_apart_and_put_right(
    connection: sqlite3.Connection, writer: str, when: str, season: int
) -> None:
    add_written_bar(connection, writer, moment(when))
    kind = EXPECTED[writer][season]
    assert count_kinds(connection) == {kind: 1}
    assert fix_time_of_day(connection) == (kind != "right")
    assert read_times(connection) == [
        (f"{moment(when):%H:%M:%S}", int(moment(when).strftime("%w")))
    ]
    assert count_kinds(connection) == {"right": 1}


@pytest.mark.parametrize(
    ("day_of_week", "kind"),
    [
        (None, "no weekday"),
        (0, "weekday from Monday = 0"),
        (5, "wrong weekday"),
        (7, "wrong weekday"),
    ],
)
def test_wrong_weekday_is_a_kind_of_its_own_and_put_right(
    connection: sqlite3.Connection, day_of_week: int | None, kind: str
) -> None:
    """19:55 on a Monday in winter is 00:55 of Tuesday in UTC; Python counts Monday as 0, the
    platform as 1."""
    add_bar(connection, moment(WINTER), "19:55:00", day_of_week)
    assert count_kinds(connection) == {kind: 1}
    assert fix_time_of_day(connection) == 1
    assert read_times(connection) == [("19:55:00", 1)]


@given(
    bars=st.lists(
        st.tuples(
            st.sampled_from(sorted(WRITERS)),
            st.integers(1_325_000_000 // 300, 1_360_000_000 // 300),
        ),
        unique_by=lambda bar: bar[1],
        max_size=20,
    )
)
def test_every_bar_is_put_right_whoever_wrote_it(bars: list[tuple[str, int]]) -> None:
    with closing(open_new_database(Path(":memory:"))) as connection:
        for writer, slot in bars:
            add_written_bar(connection, writer, datetime.fromtimestamp(slot * 300, UTC))
        kinds = count_kinds(connection)
        assert sum(kinds.values()) == len(bars)
        assert list(kinds) == [kind for kind in KINDS if kind in kinds]
        assert fix_time_of_day(connection) == len(bars) - kinds.get("right", 0)
        local = [datetime.fromtimestamp(slot * 300, NEW_YORK) for _, slot in bars]
        assert read_times(connection) == [(f"{each:%H:%M:%S}", int(f"{each:%w}")) for each in local]
        assert fix_time_of_day(connection) == 0


def test_day_bars_are_left_alone(connection: sqlite3.Connection) -> None:
    add_bar(connection, moment("2012-11-05T00:00"), "05:00", 6)
    connection.execute("UPDATE ohlcv_data SET timeframe = '1day'")
    assert count_kinds(connection) == {}
    assert fix_time_of_day(connection) == 0
    assert read_times(connection) == [("05:00", 6)]


@pytest.mark.parametrize("has_index", [True, False])
def test_index_is_there_afterwards_if_it_was_before(
    connection: sqlite3.Connection, has_index: bool
) -> None:
    add_written_bar(connection, "UTC", moment(SUMMER))
    if not has_index:
        connection.execute("DROP INDEX idx_ohlcv_time_of_day")
    query = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    before = connection.execute(query).fetchall()
    fix_time_of_day(connection)
    assert connection.execute(query).fetchall() == before
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def run_script(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=make_env(path),
        check=False,
    )


def make_env(path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_PATH": str(path),
        "BACKTEST_ENV_FILE": str(path.with_name("no.env")),
    }


def test_dry_run_counts_and_changes_nothing_and_the_second_run_corrects_nothing(
    path: Path, connection: sqlite3.Connection
) -> None:
    with transaction(connection):
        for number, writer in enumerate(WRITERS):
            add_written_bar(connection, writer, moment(WINTER), f"T{number}")
    connection.close()
    content = path.read_bytes()
    dry = run_script(path, "--dry-run")
    assert (dry.returncode, path.read_bytes()) == (0, content)
    assert "10 rows to correct; nothing was changed" in dry.stdout
    assert "UTC-4 all year" in dry.stdout
    assert "10 rows corrected" in run_script(path).stdout
    content = path.read_bytes()
    refetch = run_script(path)
    assert (refetch.returncode, path.read_bytes()) == (0, content)
    assert "0 rows to correct; nothing was changed" in refetch.stdout


def test_correction_that_breaks_off_leaves_all_old(connection: sqlite3.Connection) -> None:
    for number in range(10):
        add_written_bar(connection, "UTC", moment(SUMMER), f"T{number}")
    connection.execute(
        "CREATE TRIGGER broken AFTER UPDATE ON ohlcv_data WHEN new.ticker = 'T7' BEGIN "
        "SELECT raise(ABORT, 'in the middle'); END"
    )
    before = connection.execute(ROWS).fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="in the middle"):
        fix_time_of_day(connection)
    assert connection.execute(ROWS).fetchall() == before
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert "idx_ohlcv_time_of_day" in names


KILLED = """
import sys
from contextlib import closing
from pathlib import Path
from backtestdb.database import connect
from backtestdb.market.time_of_day import fix_time_of_day
connection = connect(Path(sys.argv[1]))
connection.execute("PRAGMA cache_size = 5")  # changed pages are in the file before the commit
stop_at, corrected = int(sys.argv[2]), 0

def count_row():
    global corrected
    corrected += 1
    if corrected == stop_at:
        print("in the middle", flush=True)
        sys.stdin.read()
    return 0

connection.create_function("count_row", 0, count_row)
connection.execute(
    "CREATE TEMP TRIGGER t AFTER UPDATE ON main.ohlcv_data BEGIN SELECT count_row(); END"
)
fix_time_of_day(connection)
"""


@pytest.mark.parametrize("stop_at", [1, 1500, 3000])
def test_correction_killed_in_the_middle_leaves_all_old_and_the_next_run_puts_all_right(
    path: Path, connection: sqlite3.Connection, stop_at: int
) -> None:
    with transaction(connection):
        for number in range(3000):
            add_written_bar(
                connection,
                "UTC",
                moment(SUMMER) + timedelta(minutes=5 * (number % 60)),
                f"T{number}",
            )
    before = connection.execute(ROWS).fetchall()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(stop_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**make_env(path), "PYTHONPATH": str(PROJECT_DIR / "scripts")},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in the middle\n"
        process.kill()
    assert connection.execute(ROWS).fetchall() == before
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert fix_time_of_day(connection) == 3000
    assert count_kinds(connection) == {"right": 3000}
