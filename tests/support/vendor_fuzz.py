"""A vendor that answers oddly, and commands in any order: one seeded run, and what has to be true
at its end.

The vendor tells each lie that a second answer could confirm (no bar, a cut answer, spoilt bars) in
one step only: two runs that are told the same believe it, that is the rule.
"""

import json
import os
import random
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import market_runs
from backtestdb.backups.backup import Hooks, make_backup
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings, load_settings
from backtestdb.database import connect
from backtestdb.errors import ProjectError
from backtestdb.market import staging
from backtestdb.market.cli import choose_end
from backtestdb.market.coverage_rows import has_ranges, load_ranges
from backtestdb.market.metric_store import load_day_bars
from backtestdb.market.metrics import METRIC_COLUMNS, make_metrics
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.market.split_look import look_before_first_bars
from backtestdb.new_york import NEW_YORK, midnight_ms
from backtestdb.sandbox.listings import letters
from backtestdb.timeframes import TIMEFRAMES
from backup_tools import kill_at_call, run_in_child
from contents import query_all
from market_runs import DIRECTLY, make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxProcess

FEW = ["AAPL", "IBM", "MSFT", "GOOG", "ANSS", "NOBODY"]
MANY = [f"Z{letters(number)}" for number in range(45)]
FIRST, LAST = date(2026, 10, 1), date(2026, 11, 19)
BARS = "ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, day_of_week"
RATIOS = [(1, 2), (1, 3), (25, 1), (1000, 1046), (100, 105)]
# How often an honest vendor is asked at most until nothing is left to name.
HONEST_UPDATES = 3

FAULTS = [
    {"kind": "server_error"},
    {"kind": "bad_gateway"},
    {"kind": "gateway", "status": 403},
    {"kind": "gateway", "status": 302},
    {"kind": "refusal", "status": 404},
    {"kind": "refusal", "status": 403},
    {"kind": "too_many", "retry_after": None},
    {"kind": "reset"},
    {"kind": "cut_json"},
    {"kind": "invalid_json"},
    {"kind": "missing_results"},
    {"kind": "null_results"},
    {"kind": "fewer_rows", "rows": 2},
    {"kind": "odd_frame", "changes": {"adjusted": False}},
    {"kind": "odd_frame", "changes": {"ticker": "GOOG"}},
    {"kind": "odd_frame", "changes": {"resultsCount": 9}},
    {"kind": "shuffled"},
    {"kind": "slow", "seconds": 0.01},
]
LIES = [
    {"kind": "empty"},
    {"kind": "few_rows", "rows": 1},
    {"kind": "few_rows", "rows": 7},
    {"kind": "bad_bars", "bars": ["junk"]},
    {"kind": "bad_bars", "bars": ["null", "negative", "duplicate", "weekend", "future"]},
]


class Hasty(threading.Event):
    """A stopping event whose waits take no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0 if timeout else timeout)


class HonestDownloads:
    """What an honest vendor answers on a day, as the product stores it in an empty database: one
    download for all runs that end on the same day with the same splits and renames."""

    def __init__(self, folder: Path, sandbox: SandboxProcess) -> None:
        self.folder, self.sandbox = folder, sandbox
        self.bars: dict[str, dict[str, list[tuple]]] = {}

    def load(self, today: str, timeframe: str, facts: str, tickers: Sequence[str]) -> list[tuple]:
        """The rows of `tickers` from FIRST to `today`, in order."""
        # A successor is a member of some universes only.
        key = f"{today} {timeframe} {facts} {json.dumps(tickers)}"
        if key not in self.bars:
            self.bars[key] = self.download(today, timeframe, tickers, len(self.bars))
        return [row for ticker in tickers for row in self.bars[key].get(ticker, [])]

    def download(
        self, today: str, timeframe: str, tickers: Sequence[str], number: int
    ) -> dict[str, list[tuple]]:
        database = make_database(self.folder / f"honest-{number}", some=tickers)
        source = make_source(database.parent, self.sandbox.url, today, stopping=Hasty())
        run_backfill(source, database, str(FIRST), today, "some", timeframe=timeframe)
        rows = defaultdict(list)
        query = f"SELECT {BARS} FROM ohlcv_data WHERE timeframe = ?"
        for row in query_all(database, query, timeframe):
            rows[row[0]].append(row)
        shutil.rmtree(database.parent)
        return rows


@dataclass
class FuzzRun:
    """One seed: a database, the commands it saw, and how many honest updates it took until the last
    one said that it is whole."""

    seed: int
    folder: Path
    sandbox: SandboxProcess
    honest: HonestDownloads
    said: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.dice = random.Random(f"vendor {self.seed}")
        self.timeframes = self.dice.choice([["1day"], ["1day"], ["1day"], ["5min"], TIMEFRAMES])
        self.days = sessions_between(load_calendar(), FIRST, LAST)
        self.place = self.dice.randint(8, 25)
        self.lie_in_step = self.dice.randint(0, 3)
        self.tickers = self.dice.sample(FEW, self.dice.randint(2, len(FEW)))
        if self.timeframes == ["1day"] and self.dice.random() < 0.4:
            self.tickers += MANY
        self.splits, self.renames = self.make_splits(), self.make_renames()
        self.database = make_database(self.folder / "own", some=self.tickers)
        self.backups = self.folder / "backups"
        self.dropped_on, self.days_missing = "", set[str]()

    @property
    def today(self) -> str:
        return self.days[self.place].isoformat()

    def chance(self, probability: float, what: str) -> bool:
        happens = self.dice.random() < probability
        self.happened[what] += happens
        return happens

    def make_splits(self) -> list[dict[str, Any]]:
        """Of the first ticker that trades: listed in time or late, some withdrawn again, some
        corrected."""
        traded = [ticker for ticker in self.tickers if ticker not in {"ANSS", "NOBODY"}]
        if not traded or not self.chance(0.35, "split"):
            return []
        executed = self.dice.choice(self.days[3:26])
        listed = executed + timedelta(days=self.dice.choice([0, 0, 1, 3, 8, 20]))
        first, second = self.dice.sample(RATIOS, 2)
        row = {
            "ticker": traded[0],
            "execution_date": executed.isoformat(),
            "split_from": first[0],
            "split_to": first[1],
            "listed_from": listed.isoformat(),
        }
        if not self.chance(0.3, "split withdrawn or corrected"):
            return [row]
        until = (listed + timedelta(days=self.dice.randint(1, 6))).isoformat()
        wrong = {**row, "listed_until": until, "moves_prices": False, "adjusts_prices": True}
        right = {**row, "listed_from": until, "split_from": second[0], "split_to": second[1]}
        return self.dice.choice([[wrong], [wrong, right]])

    def make_renames(self) -> list[dict[str, str]]:
        """Of the last ticker; its successor is a member of the universe in half of the runs."""
        old = self.tickers[-1]
        if old in {"ANSS", "NOBODY"} or not self.chance(0.2, "rename"):
            return []
        successor = f"{old}N"
        if self.dice.random() < 0.5:
            self.tickers = [*self.tickers, successor]
        day = self.dice.choice(self.days[5:26]).isoformat()
        return [{"ticker": old, "successor": successor, "day": day}]

    def make_honest(self) -> None:
        self.sandbox.reset(self.today)
        self.sandbox.set_splits(*self.splits)
        self.sandbox.set_renames(*self.renames)

    def play(self) -> None:
        steps = self.dice.randint(1, 4)
        # A bar that is left out is a lie as well: in the step of the other one, or in its place.
        self.drop_in_step = min(self.lie_in_step, steps - 1)
        for step in range(steps):
            self.make_honest()
            self.make_vendor_odd(step)
            self.run_command(step)
            if step and self.chance(0.12, "restore"):
                self.restore()
            if self.chance(0.15, "backup"):
                self.back_up()
            self.place = min(self.place + self.dice.choice([0, 0, 1, 1, 2, 5]), len(self.days) - 1)

    def make_vendor_odd(self, step: int) -> None:
        rules = self.dice.sample(FAULTS, self.dice.randint(0, 3))
        if step == self.lie_in_step:
            rules.append(self.dice.choice(LIES))
        match = [
            "/aggs/",
            "grouped",
            "splits",
            *(f"/ticker/{ticker}/" for ticker in self.tickers[:3]),
        ]
        self.sandbox.set_faults(
            *(
                {
                    **rule,
                    "match": self.dice.choice(match),
                    "probability": self.dice.choice([0.1, 0.5, 1.0]),
                    "times": self.dice.choice([1, 2, 8, None]),
                    "seed": self.seed,
                }
                for rule in rules
            )
        )
        self.sandbox.set_missing(*self.choose_missing(step))
        if self.chance(0.1, "no grouped endpoint"):
            self.sandbox.set_settings(grouped=False)
        if self.chance(0.1, "free plan"):
            self.sandbox.set_settings(free=True)

    def choose_missing(self, step: int) -> list[Any]:
        """Nothing, the newest session, or a ticker's bar of it. Of a day that lacks both in turn
        the ticker would be told twice to have no bar."""
        if not self.chance(0.2, "missing session"):
            return []
        if self.dice.random() >= 0.5:
            if self.today == self.dropped_on:
                return []
            self.days_missing.add(self.today)
            return [self.today]
        if step != self.drop_in_step or self.today in self.days_missing:
            return []
        self.dropped_on = self.today
        return [(self.tickers[0], self.today)]

    def choose_clock(self) -> tuple[str, timedelta]:
        """The moment that this machine's clock shows, and how far it is ahead of the vendor's as
        far as the vendor's answers tell."""
        moment = make_moment(self.today)
        if self.chance(0.1, "afternoon"):
            self.sandbox.set_settings(unfinished=True)
            moment = make_moment(f"{self.today}T20:30:00")
        ahead = timedelta(0)
        if self.chance(0.15, "wrong clock"):
            ahead = timedelta(hours=self.dice.choice([-30, -10, -5, -1, 1, 3, 5, 10, 30, 170]))
        moment += ahead
        told = self.dice.random() < 0.8
        return moment.replace(tzinfo=None).isoformat(), ahead if told else timedelta(0)

    def has_begun(self) -> bool:
        with closing(connect(self.database)) as connection:
            return has_ranges(connection, "some")

    def run_command(self, step: int) -> None:
        """A backfill first, later mostly updates; some see a wrong clock, an afternoon, or a
        kill -9."""
        now, ahead = self.choose_clock()
        end = str(choose_end(None, make_moment(now)))
        begins = self.dice.random() < 0.2 or not self.has_begun()
        start = self.days[self.dice.randint(0, 5)].isoformat()
        staged = self.dice.choice([DIRECTLY, DIRECTLY, 1])
        statements = int(10 ** self.dice.uniform(0.5, 3.2)) if self.chance(0.25, "kill") else 0
        command = f"backfill {start}" if begins else "update"
        self.said.append(
            f"{step}: {self.today} clock {now} {command} to {end}"
            f" staged {staged} killed {statements} {self.sandbox.fetch_faults()}"
        )

        def run() -> None:
            source = make_source(self.database.parent, self.sandbox.url, now, stopping=Hasty())
            source.client.clock = lambda: datetime.now(UTC) + ahead
            if not begins:
                run_update(source, self.database, end)
                return
            with closing(connect(self.database)) as connection:
                look_before_first_bars(connection, source)
            for timeframe in self.timeframes:
                run_backfill(
                    source,
                    self.database,
                    start,
                    end,
                    "some",
                    timeframe=timeframe,
                    staged_from_bars=staged,
                    looks=timeframe == self.timeframes[-1],
                )

        if statements:
            self.happened["killed"] += run_and_kill(run, statements)
        else:
            with suppress(ProjectError):
                run()

    def settings(self) -> Settings:
        environment = {
            "BACKTEST_ENV_FILE": os.devnull,
            "DATABASE_PATH": str(self.database),
            "BACKUP_DIR": str(self.backups),
            "GENERATED_SCRIPTS_DIR": "",
        }
        return load_settings(environment)

    def back_up(self) -> None:
        self.said.append("make backup")
        now = datetime.now().astimezone()
        make_backup(self.settings(), "full", now, full_check=False, hooks=Hooks())

    def restore(self) -> None:
        if not self.backups.exists():
            return
        self.said.append("make restore-from-backup")
        self.happened["restored"] += 1
        restore_from_backup(self.settings(), None, datetime.now().astimezone())

    def finish(self) -> int:
        """An honest vendor and updates: how many it took until everything was said to be there; 0
        where nothing is asked for, or where something stays named."""
        if not self.has_begun():
            return 0
        for number in range(1, HONEST_UPDATES + 1):
            self.make_honest()
            source = make_source(self.database.parent, self.sandbox.url, self.today)
            done = run_update(source, self.database, self.today)
            if not any(report.has_holes for _, _, report in done.reports):
                return number
            self.said.append(f"honest update {number}: {[report for _, _, report in done.reports]}")
            self.place = min(self.place + 2, len(self.days) - 1)
        return 0

    def find_difference(self) -> str:
        """Of the asked ranges against a new database that asked an honest vendor."""
        changed = {split["ticker"] for split in self.splits}
        changed |= {rename[name] for rename in self.renames for name in ("ticker", "successor")}
        with closing(connect(self.database)) as connection:
            of_timeframe = {name: load_ranges(connection, "some", name) for name in TIMEFRAMES}
        for timeframe, ranges in of_timeframe.items():
            if not ranges:
                continue
            fresh = self.load_honest(timeframe, changed)
            for start, end in ranges:
                first, last = midnight_ms(start), midnight_ms(end) + 86_399_999
                own = self.read_bars(timeframe, first, last)
                other = {row for row in fresh if first <= row[2] <= last}
                if own != other:
                    return f"{timeframe} {start} to {end}: {describe_difference(own, other)}"
        return self.find_wrong_metrics(of_timeframe["1day"])

    def load_honest(self, timeframe: str, changed: set[str]) -> list[tuple]:
        """`changed`: the tickers whose bars depend on the splits and renames of this run."""
        self.make_honest()
        facts = json.dumps([self.splits, self.renames])
        concerned = [ticker for ticker in self.tickers if ticker in changed]
        others = [ticker for ticker in self.tickers if ticker not in changed]
        every = [*FEW, *(MANY if timeframe == "1day" else [])]
        rows = self.honest.load(self.today, timeframe, facts, concerned) if concerned else []
        self.sandbox.reset(self.today)
        shared = self.honest.load(self.today, timeframe, "", every)
        members = set(others)
        return rows + [row for row in shared if row[0] in members]

    def read_bars(self, timeframe: str, first_ms: int, last_ms: int) -> set[tuple]:
        query = f"SELECT {BARS} FROM ohlcv_data WHERE timeframe = ? AND timestamp BETWEEN ? AND ?"
        return set(query_all(self.database, query, timeframe, first_ms, last_ms))

    def find_wrong_metrics(self, ranges: Sequence[tuple[date, date]]) -> str:
        """Each row against a computation from all stored bars of its ticker."""
        with closing(connect(self.database)) as connection:
            computed = make_metrics(load_day_bars(connection, self.tickers))
        for start, end in ranges:
            within = computed[(computed["date"] >= str(start)) & (computed["date"] <= str(end))]
            within = within.sort_values(["ticker", "date"])
            names = ", ".join(METRIC_COLUMNS)
            query = (
                f"SELECT {names} FROM daily_metrics WHERE date BETWEEN ? AND ? "
                "ORDER BY ticker, date"
            )
            rows = query_all(self.database, query, str(start), str(end))
            expected = within[METRIC_COLUMNS].to_numpy(dtype=object).tolist()
            if len(rows) != len(expected):
                return f"{len(rows)} rows of metrics, {len(expected)} bars"
            for row, want in zip(rows, expected, strict=True):
                numbers = [np.nan if value is None else value for value in row[2:]]
                if row[:2] != tuple(want[:2]) or not np.allclose(
                    np.array(numbers, dtype=float),
                    np.array(want[2:], dtype=float),
                    rtol=1e-9,
                    equal_nan=True,
                ):
                    return f"metrics of {row[:2]}: {row} instead of {want}"
        return ""


def describe_difference(own: set[tuple], fresh: set[tuple]) -> str:
    return f"lacking {sorted(fresh - own)[:3]}, too much {sorted(own - fresh)[:3]}"


def make_moment(text: str) -> datetime:
    """UTC of a moment in ISO text without a zone, which is UTC, or of a date: 20:30 New York."""
    if "T" in text:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return datetime.fromisoformat(f"{text}T20:30:00").replace(tzinfo=NEW_YORK).astimezone(UTC)


def run_and_kill(run: Callable[[], None], statements: int) -> bool:
    """Run a command in a process of its own, which kills itself with SIGKILL before a statement of
    SQL; return whether it came so far."""
    kill = kill_at_call(statements)

    def connect_to_kill(*arguments: Any, **values: Any) -> Any:
        connection = connect(*arguments, **values)
        connection.set_trace_callback(kill)
        return connection

    def run_connected() -> None:
        for module in (market_runs, staging):
            module.connect = connect_to_kill  # type: ignore[attr-defined]
        run()

    _, status = os.waitpid(run_in_child(run_connected), 0)
    return os.WIFSIGNALED(status)
