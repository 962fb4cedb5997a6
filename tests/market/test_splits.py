"""Splits: what changed in the vendor's list, and that stored bars equal a fresh download whatever
it did when."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from backtestdb.database import connect
from backtestdb.market.cli import choose_end
from backtestdb.market.jobs import all_sessions, plan_jobs
from backtestdb.market.request_plan import make_cost
from backtestdb.market.split_look import look_at_splits, look_before_first_bars, plan_looks
from backtestdb.market.split_store import load_due_tickers
from backtestdb.market.splits import (
    IncompleteListError,
    KnownSplit,
    Split,
    SplitLook,
    compare_splits,
    parse_splits,
)
from backtestdb.market.update import make_update_jobs
from backtestdb.new_york import NEW_YORK
from backtestdb.schema import ensure_market_schema
from backup_tools import kill_at_call, run_in_child
from commands import Project
from contents import METRICS, query_all, verify_metrics_equal
from market_runs import make_database, make_source, run_backfill, run_update
from market_setup import sessions_of
from sandbox_process import SandboxOptions, SandboxProcess, running_sandbox

Row = dict[str, Any]
DAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 4, 23, tzinfo=UTC)
BARS = (
    "SELECT ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, day_of_week"
    " FROM ohlcv_data ORDER BY 1, 2, 3"
)


def test_splits_listed_twice_or_without_sense_are_dropped() -> None:
    row = {"ticker": "A", "execution_date": "2026-03-02", "split_from": 1, "split_to": 2}
    senseless = [{**row, "split_to": 1}, {**row, "split_to": 0}, {"ticker": "B"}]
    assert parse_splits([row, row, *senseless, {**row, "ticker": "NA"}]) == [
        Split(DAY, "A", 1, 2),
        Split(DAY, "NA", 1, 2),
    ]


def compare(
    known: Sequence[KnownSplit],
    listed: Sequence[Split],
    now_utc: datetime = NOW,
    *,
    bars_came_first: bool = False,
) -> list[KnownSplit]:
    since = date(2025, 1, 1)
    return compare_splits(
        known, listed, since=since, now_utc=now_utc, bars_came_first=bars_came_first
    )


def make_known(split: Split, withdrawn: datetime | None = None) -> KnownSplit:
    seen = datetime(2026, 3, 2, 23, tzinfo=UTC)
    return KnownSplit(split, seen, seen, withdrawn)


SPLIT, OTHER = Split(DAY, "A", 1, 2), Split(DAY, "A", 1, 4)


def test_look_finds_what_is_new_withdrawn_corrected_and_listed_again() -> None:
    assert compare([], [SPLIT]) == [KnownSplit(SPLIT, NOW, NOW)]
    assert compare([make_known(SPLIT)], [SPLIT]) == []
    assert compare([make_known(SPLIT)], []) == [make_known(SPLIT, withdrawn=NOW)]
    assert compare([make_known(SPLIT, withdrawn=NOW)], []) == []
    assert compare([make_known(SPLIT, withdrawn=NOW)], [SPLIT]) == [KnownSplit(SPLIT, NOW, NOW)]
    corrected = compare([make_known(OTHER)], [SPLIT])
    assert [each.split for each in corrected] == [SPLIT, OTHER]
    assert [each.withdrawn_at_utc for each in corrected] == [None, NOW]


def test_look_leaves_an_announced_split_for_its_day_and_believes_it_from_the_opening_on() -> None:
    day_before = datetime(2026, 3, 1, 23, tzinfo=UTC)
    opening = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
    assert compare([], [SPLIT], day_before) == []
    early = opening - timedelta(hours=2)
    assert compare([], [SPLIT], early) == [KnownSplit(SPLIT, early, opening)]


def test_look_that_comes_after_the_bars_takes_old_splits_to_have_been_listed_in_time() -> None:
    later = NOW + timedelta(days=365)
    (found,) = compare([], [SPLIT], later, bars_came_first=True)
    # 65 days later, in summer time.
    assert found.believed_at_utc == datetime(2026, 5, 6, 13, 30, tzinfo=UTC)
    (recent,) = compare([], [SPLIT], bars_came_first=True)
    assert recent.believed_at_utc == NOW


def test_list_that_lacks_many_splits_is_not_believed() -> None:
    known = [make_known(Split(DAY, f"T{number}", 1, 2)) for number in range(40)]
    assert len(compare(known, [each.split for each in known[3:]])) == 3
    with pytest.raises(IncompleteListError, match="lacks 4 of 40"):
        compare(known, [each.split for each in known[4:]])


@dataclass
class Story:
    """A ticker and its split as the vendor lists it, once it does (`late` days after it
    happened)."""

    ticker: str
    executed: date
    rows: list[Row] = field(default_factory=list)

    def splits(self, late: int) -> list[Row]:
        """`listed` and `unlisted` count days from the first listing on."""
        first = self.executed + timedelta(days=late)
        listed = []
        for given in self.rows:
            row = dict(given)
            row["listed_from"] = str(first + timedelta(days=row.pop("listed", 0)))
            if "unlisted" in row:
                row["listed_until"] = str(first + timedelta(days=row.pop("unlisted")))
            listed.append({"ticker": self.ticker, "execution_date": str(self.executed), **row})
        return listed


def make_row(split_from: float, split_to: float, **values: Any) -> Row:
    return {"split_from": split_from, "split_to": split_to, **values}


REAL = make_row(1, 2, in_source=True)
WRONG = {"moves_prices": False, "adjusts_prices": True}
STORIES = {
    "AAPL 2000": Story("AAPL", date(2000, 6, 21), [REAL]),
    "MSFT 2003": Story("MSFT", date(2003, 2, 18), [REAL]),
    "AAPL 2005": Story("AAPL", date(2005, 2, 28), [REAL]),
    "1046:1000": Story("MSFT", date(2012, 6, 11), [make_row(1000, 1046)]),
    "100:105": Story("MSFT", date(2012, 6, 11), [make_row(100, 105)]),
    "1:25": Story("MSFT", date(2012, 6, 11), [make_row(1, 25)]),
    "25:1": Story("MSFT", date(2012, 6, 11), [make_row(25, 1)]),
    "two on a day": Story("MSFT", date(2012, 6, 11), [make_row(1, 2), make_row(2, 3)]),
    "withdrawn": Story("MSFT", date(2012, 6, 11), [make_row(1, 4, unlisted=2, **WRONG)]),
    "corrected": Story(
        "MSFT", date(2012, 6, 11), [make_row(1, 4, unlisted=2, **WRONG), make_row(1, 2, listed=2)]
    ),
}
LATE = [0, 1, 3, 60]
RHYTHMS = ["08:00", "18:00", "weekly", "after three months"]
SAMPLE = [
    ("AAPL 2005", 0, "18:00"),
    ("MSFT 2003", 3, "08:00"),
    ("1046:1000", 60, "weekly"),
    ("100:105", 1, "18:00"),
    ("two on a day", 0, "after three months"),
    ("withdrawn", 1, "18:00"),
    ("corrected", 0, "08:00"),
]


def make_moments(story: Story, late: int, rhythm: str) -> list[datetime]:
    """When updates run, from two days before the split to a week after the list's last change;
    UTC."""
    first = story.executed - timedelta(days=2)
    days = sessions_of(str(first), str(story.executed + timedelta(days=late + 8)))
    if rhythm == "after three months":
        days = sessions_of(str(story.executed), str(story.executed + timedelta(days=95)))[-1:]
    elif rhythm == "weekly":
        days = [*days[1::5], days[-1]]
    else:
        # Between a split and its listing weeks later nothing happens: every third day will do.
        changes = [story.executed, story.executed + timedelta(days=late)]
        days = [
            day
            for number, day in enumerate(days)
            if number % 3 == 0 or any(abs((day - change).days) <= 8 for change in changes)
        ]
    hour = 8 if rhythm == "08:00" else 18
    return [datetime.combine(day, time(hour), NEW_YORK).astimezone(UTC) for day in days]


SANDBOX = SandboxOptions("--tickers", "20", today="2000-06-20")


class Bench:
    """A database that is kept up to date, and fresh ones beside it, of the same universe and
    ranges. `fresh_folder`: where benches of one story share them."""

    def __init__(
        self,
        folder: Path,
        sandbox: SandboxProcess,
        ticker: str,
        begun: date,
        fresh_folder: Path | None = None,
    ) -> None:
        self.folder, self.sandbox, self.tickers = folder, sandbox, [ticker, "IBM"]
        self.fresh_folder = fresh_folder or folder
        self.daily, self.intraday = begun - timedelta(days=60), begun - timedelta(days=12)

    def source(self, name: str, moment: datetime) -> Any:
        self.sandbox.set_today(str(moment.astimezone(NEW_YORK).date()))
        return make_source(
            self.folder / name, self.sandbox.url, moment.replace(tzinfo=None).isoformat()
        )

    def download(self, name: str, moment: datetime) -> Path:
        database = make_database(self.folder / name, mine=self.tickers)
        source, end = self.source(name, moment), str(choose_end(None, moment))
        with closing(connect(database)) as connection:
            look_before_first_bars(connection, source)
        run_backfill(source, database, str(self.daily), end, "mine")
        run_backfill(source, database, str(self.intraday), end, "mine", timeframe="5min")
        return database

    def update(self, name: str, database: Path, moment: datetime) -> SplitLook:
        return run_update(self.source(name, moment), database, str(choose_end(None, moment))).splits

    def verify_fresh(self, database: Path, moment: datetime) -> None:
        fresh = self.fresh_folder / f"fresh-{moment:%Y%m%d%H}" / "backtesting.db"
        if not fresh.exists():
            self.download(str(fresh.parent), moment)
        assert query_all(database, BARS) == query_all(fresh, BARS), moment
        verify_metrics_equal(database, fresh)


@pytest.fixture(scope="module")
def fresh_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fresh")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "late", "rhythm"),
    [
        pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.long)
        for case in [
            (name, late, rhythm) for name in STORIES for late in LATE for rhythm in RHYTHMS
        ]
    ],
)
def test_updated_database_equals_a_fresh_download_whenever_a_split_is_listed(
    tmp_path: Path, fresh_folders: Path, sandbox: SandboxProcess, name: str, late: int, rhythm: str
) -> None:
    story = STORIES[name]
    sandbox.set_splits(*story.splits(late))
    fresh_folder = fresh_folders / f"{name.replace(':', ' to ')} {late}"
    fresh_folder.mkdir(exist_ok=True)
    bench = Bench(tmp_path, sandbox, story.ticker, story.executed, fresh_folder)
    begun = datetime.combine(sessions_of("1999-01-01", str(story.executed))[-4], time(22), NEW_YORK)
    database = bench.download("kept", begun.astimezone(UTC))
    asked_again = set()
    for number, moment in enumerate(make_moments(story, late, rhythm)):
        look = bench.update("kept", database, moment)
        assert not look.has_holes
        asked_again |= look.refetched.keys()
        # Between a split and its listing weeks later nothing happens: there every fifth day is
        # compared.
        days = [(moment.date() - story.executed).days, (moment.date() - story.executed).days - late]
        if look.refetched or min(map(abs, days)) <= 3 or number % 5 == 0:
            bench.verify_fresh(database, moment)
    bench.verify_fresh(database, moment)
    was_listed = not (name == "withdrawn" and rhythm in {"weekly", "after three months"})
    assert asked_again == ({story.ticker} if was_listed else asked_again & {story.ticker})


@pytest.fixture
def bench(tmp_path: Path, sandbox: SandboxProcess) -> Bench:
    sandbox.set_splits()
    return Bench(tmp_path, sandbox, "MSFT", date(2012, 6, 11))


def at(day: str, hour: int = 22) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(hour), NEW_YORK).astimezone(UTC)


LISTED_LATE = {
    **make_row(1, 3),
    "ticker": "MSFT",
    "execution_date": "2012-06-11",
    "listed_from": "2012-06-15",
}


def test_first_download_between_a_split_and_its_listing_is_mended_by_the_next_update(
    bench: Bench, sandbox: SandboxProcess
) -> None:
    sandbox.set_splits(LISTED_LATE)
    database = bench.download("kept", at("2012-06-12"))
    assert bench.update("kept", database, at("2012-06-13")).refetched == {}
    look = bench.update("kept", database, at("2012-06-15"))
    assert look.refetched == {"MSFT": "MSFT 3:1 on 2012-06-11 is listed"}
    bench.verify_fresh(database, at("2012-06-15"))


def test_split_that_is_listed_in_the_second_in_which_the_bars_came_has_them_asked_again(
    bench: Bench, sandbox: SandboxProcess
) -> None:
    """Two short commands one after the other: records and bars are dated in whole seconds."""
    sandbox.set_splits(LISTED_LATE)
    moment = at("2012-06-14")
    database = bench.download("kept", moment)
    source = bench.source("kept", moment)
    sandbox.set_today("2012-06-15")
    look = run_update(source, database, "2012-06-14").splits
    assert look.refetched == {"MSFT": "MSFT 3:1 on 2012-06-11 is listed"}


def test_split_beside_rows_that_another_program_fetched_itself_ends_as_a_fresh_download(
    bench: Bench, sandbox: SandboxProcess
) -> None:
    """The platform refetches a month of bars after the split, before an update learns of it: a part
    is adjusted."""
    sandbox.set_splits({**LISTED_LATE, "listed_from": "2012-06-11"})
    database = bench.download("kept", at("2012-06-08"))
    other = bench.download("other", at("2012-06-12"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ATTACH ? AS other", (str(other),))
        connection.execute(
            "INSERT OR REPLACE INTO main.ohlcv_data (ticker, timestamp, open, high, low, close, "
            "volume, timeframe, time_of_day, day_of_week, created_at) "
            "SELECT ticker, timestamp, open, high, low, close, volume, timeframe, time_of_day, "
            "day_of_week, '2012-06-12 20:00:00' FROM other.ohlcv_data "
            "WHERE timeframe = '1day' AND timestamp BETWEEN 1337000000000 AND 1339200000000"
        )
        connection.commit()
    assert bench.update("kept", database, at("2012-06-13")).refetched.keys() == {"MSFT"}
    bench.verify_fresh(database, at("2012-06-13"))


def test_database_of_other_programs_without_any_look_is_asked_for_where_a_split_is_near(
    bench: Bench, sandbox: SandboxProcess
) -> None:
    sandbox.set_splits({**LISTED_LATE, "listed_from": "2012-06-11"})
    database = bench.download("kept", at("2012-06-08"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE _splits")
        connection.execute("DROP TABLE _splits_due")
        # As until 2026-11.
        connection.execute("CREATE TABLE _splits (ticker TEXT, execution_date TEXT, state TEXT)")
        connection.execute("INSERT INTO _splits VALUES ('MSFT', '2012-06-11', 'unconfirmed')")
        connection.commit()
    assert bench.update("kept", database, at("2012-06-14")).refetched.keys() == {"MSFT"}
    bench.verify_fresh(database, at("2012-06-14"))
    assert bench.update("kept", database, at("2012-06-15")).refetched == {}


def test_ticker_that_could_not_be_asked_again_stays_due_until_it_was(
    bench: Bench, sandbox: SandboxProcess
) -> None:
    sandbox.set_splits({**LISTED_LATE, "listed_from": "2012-06-11"})
    database = bench.download("kept", at("2012-06-08"))
    sandbox.set_faults(
        {"match": "MSFT/range/1/day/2011", "kind": "refusal", "status": 404, "times": None}
    )
    look = bench.update("kept", database, at("2012-06-11"))
    sandbox.set_faults()
    assert look.due.keys() == {"MSFT"}
    assert look.has_holes
    with closing(connect(database)) as connection:
        assert load_due_tickers(connection) == {"MSFT": "MSFT 3:1 on 2012-06-11 is listed"}
    assert bench.update("kept", database, at("2012-06-12")).refetched.keys() == {"MSFT"}
    bench.verify_fresh(database, at("2012-06-12"))


def count_asked(bench: Bench, database: Path, moment: datetime) -> tuple[int, int]:
    """How many requests an update was planned to send, and how many it sent."""
    source, end = bench.source("kept", moment), choose_end(None, moment)
    with closing(connect(database)) as connection:
        jobs = make_update_jobs(connection, source.calendar, end)
        planned = plan_looks(connection).requests + sum(
            make_cost(
                plan_jobs(connection, source.calendar, some), all_sessions(source.calendar, some)
            ).requests
            for some in jobs.values()
        )
    bench.sandbox.clear_log()
    run_update(source, database, str(end))
    return planned, len(bench.sandbox.fetch_log())


def test_forecast_of_an_update_counts_what_splits_have_asked_for_again(
    bench: Bench, sandbox: SandboxProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.set_splits({**LISTED_LATE, "listed_from": "2012-06-11"})
    database = bench.download("kept", at("2012-06-08"))
    # Seen before the opening of its day: asked for again now, and once more after it.
    planned, asked = count_asked(bench, database, at("2012-06-11", 8))
    assert "asked for again after splits: MSFT; 2 requests" in capsys.readouterr().err
    assert asked == planned + 2
    sandbox.set_faults(
        {"match": "MSFT/range/1/day/2011", "kind": "refusal", "status": 404, "times": None}
    )
    planned, asked = count_asked(bench, database, at("2012-06-11"))
    assert planned == 2 + 2 + 1 + 2
    assert asked == planned - 1  # the failure of the first one spares the second
    sandbox.set_faults()
    planned, asked = count_asked(bench, database, at("2012-06-12"))
    assert asked == planned == 2 + 2 + 1 + 2


def test_nightly_backfill_in_the_place_of_update_looks_at_the_splits_too(tmp_path: Path) -> None:
    split = {"ticker": "ORCL", "execution_date": "2026-11-05", "split_from": 1, "split_to": 3}
    with running_sandbox(today="2026-11-18") as sandbox:
        project = Project(tmp_path, sandbox.url)
        make_database(tmp_path, mine=["ORCL", "IBM"])
        command = (
            "02_backfill_daily.py",
            "--universe",
            "mine",
            "--start",
            "2026-10-01",
            "--end",
            "2026-11-18",
        )
        sandbox.set_splits({**split, "listed_from": "2026-11-19"})
        assert "asked for again" not in project.check(*command)
        sandbox.set_today("2026-11-19")
        output = project.check(*command)
        assert (
            "ORCL 3:1 on 2026-11-05 is listed: all stored bars of ORCL were asked for again"
            in output
        )
        other = Project(tmp_path / "fresh", sandbox.url)
        make_database(tmp_path / "fresh", mine=["ORCL", "IBM"])
        assert "asked for again" not in other.check(*command)
    assert query_all(project.database, BARS) == query_all(other.database, BARS)


QUICK_KILLS = 6


@pytest.mark.parametrize(
    "part", ["sample", pytest.param("every statement", marks=pytest.mark.long)]
)
def test_look_killed_between_statements_ends_as_a_fresh_download(
    bench: Bench, sandbox: SandboxProcess, part: str
) -> None:
    """kill -9 before a statement of the look, then the look again."""
    sandbox.set_splits({**LISTED_LATE, "listed_from": "2012-06-11"})
    moment = at("2012-06-12")
    database = bench.download("kept", at("2012-06-08"))
    with closing(connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        ensure_market_schema(connection)
    content, source = database.read_bytes(), bench.source("kept", moment)
    statements = count_statements(database, source)
    expected = query_all(database, BARS), query_all(database, METRICS)
    step = max(1, statements // QUICK_KILLS) if part == "sample" else 1
    for number in range(1, statements + 1, step):
        database.write_bytes(content)
        kill_at_statement(database, bench, moment, number)
        with closing(connect(database)) as connection:
            look_at_splits(connection, bench.source("kept", moment))
            assert load_due_tickers(connection) == {}
        found = query_all(database, BARS), query_all(database, METRICS)
        assert [row[1:-1] for row in found[1]] == [row[1:-1] for row in expected[1]], number
        assert found[0] == expected[0], f"killed before statement {number}"


def count_statements(database: Path, source: Any) -> int:
    count = 0

    def see(_: str) -> None:
        nonlocal count
        count += 1

    with closing(connect(database)) as connection:
        connection.set_trace_callback(see)
        assert look_at_splits(connection, source).refetched.keys() == {"MSFT"}
        connection.set_trace_callback(None)
    return count


def kill_at_statement(database: Path, bench: Bench, moment: datetime, number: int) -> None:
    """In a process of its own, which kills itself."""

    def look() -> None:
        connection = connect(database)
        connection.set_trace_callback(kill_at_call(number))
        look_at_splits(connection, bench.source("kept", moment))

    _, status = os.waitpid(run_in_child(look), 0)
    assert os.WIFSIGNALED(status)
