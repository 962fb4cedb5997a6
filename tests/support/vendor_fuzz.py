"""A vendor that answers oddly, and commands in any order: one seeded run, and what has to be true
at its end.

The vendor tells each lie that a second answer could confirm (no bar, a cut answer, spoilt bars) in
one step only: two runs that are told the same believe it, that is the rule.
"""

import random
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from backtestdb.database import connect
from backtestdb.market import backfill as backfill_module
from backtestdb.market.client import MarketDataError
from backtestdb.market.coverage_rows import load_ranges
from backtestdb.market.metric_store import load_day_bars
from backtestdb.market.metrics import METRIC_COLUMNS, make_metrics
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import midnight_ms
from contents import query_all
from market_runs import DIRECTLY, make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxProcess

FEW = ["AAPL", "IBM", "MSFT", "GOOG", "ANSS", "NOBODY"]
MANY = 60
FIRST, LAST = date(2026, 10, 1), date(2026, 11, 19)
BARS = "ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, day_of_week"

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


class Killed(BaseException):
    """The process is gone: nothing after this line ran."""


class Hasty(threading.Event):
    """A stopping event whose waits take no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0 if timeout else timeout)


@dataclass
class FuzzRun:
    """One seed: a database, the commands it saw, and whether the honest update at the end said that
    it is whole."""

    seed: int
    folder: Path
    sandbox: SandboxProcess
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(f"vendor {self.seed}")
        self.timeframe = self.dice.choice(["1day", "1day", "1day", "5min"])
        self.days = sessions_between(load_calendar(), FIRST, LAST)
        self.place = self.dice.randint(8, 25)
        self.lie_in_step = self.dice.randint(0, 3)
        names = self.dice.sample(FEW, self.dice.randint(2, len(FEW)))
        if self.timeframe == "1day" and self.dice.random() < 0.4:
            names += [f"Z{number}" for number in range(MANY)]
        self.tickers = names
        self.database = make_database(self.folder / "own", some=names)

    @property
    def today(self) -> str:
        return self.days[self.place].isoformat()

    def play(self) -> None:
        for step in range(self.dice.randint(1, 4)):
            self.sandbox.reset(self.today)
            self.make_vendor_odd(step)
            self.run_command(step)
            self.place = min(self.place + self.dice.choice([0, 0, 1, 1, 2, 5]), len(self.days) - 1)

    def make_vendor_odd(self, step: int) -> None:
        rules = self.dice.sample(FAULTS, self.dice.randint(0, 3))
        if step == self.lie_in_step:
            rules.append(self.dice.choice(LIES))
        match = ["/aggs/", "grouped", *(f"/ticker/{ticker}/" for ticker in self.tickers[:3])]
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
        missing = [self.today] if self.dice.random() < 0.2 else []
        if missing and self.dice.random() < 0.5:
            missing = [(self.tickers[0], self.today)]
        self.sandbox.set_missing(*missing)
        if self.dice.random() < 0.1:
            self.sandbox.set_settings(grouped=False)
        if self.dice.random() < 0.1:
            self.sandbox.set_settings(free=True)

    def run_command(self, step: int) -> None:
        """A backfill first, later mostly updates; some see a clock that is ahead, or an afternoon,
        or a kill."""
        now = self.today
        if self.dice.random() < 0.1:
            self.sandbox.set_settings(unfinished=True)
            now = f"{self.today}T20:30:00"
        if self.dice.random() < 0.1:
            now = self.days[min(self.place + 5, len(self.days) - 1)].isoformat()
        end = now[:10]
        source = make_source(self.database.parent, self.sandbox.url, now, stopping=Hasty())
        self.said.append(f"{step}: {now} {self.sandbox.fetch_faults()}")
        with suppress(MarketDataError, Killed), self.kills():
            if step == 0 or self.dice.random() < 0.2:
                start = self.days[self.dice.randint(0, 5)].isoformat()
                staged = self.dice.choice([DIRECTLY, DIRECTLY, 1])
                run_backfill(
                    source,
                    self.database,
                    start,
                    end,
                    "some",
                    timeframe=self.timeframe,
                    staged_from_bars=staged,
                )
            else:
                run_update(source, self.database, end)

    def kills(self) -> "KillingStore":
        return KillingStore(self.dice.randint(0, 9) if self.dice.random() < 0.2 else None)

    def finish(self) -> bool:
        """An honest vendor, one update; whether it says that everything is there."""
        self.sandbox.reset(self.today)
        source = make_source(self.database.parent, self.sandbox.url, self.today, stopping=Hasty())
        with closing(connect(self.database)) as connection:
            was_asked = load_ranges(connection, "some", self.timeframe)
        if not was_asked:
            return False
        done = run_update(source, self.database, self.today)
        return not any(report.has_holes for _, _, report in done.reports)

    def find_difference(self) -> str:
        """Of the asked ranges against a new database that asked an honest vendor for the same
        ones."""
        fresh = make_database(self.folder / "fresh", some=self.tickers)
        source = make_source(fresh.parent, self.sandbox.url, self.today, stopping=Hasty())
        with closing(connect(self.database)) as connection:
            ranges = load_ranges(connection, "some", self.timeframe)
        for start, end in ranges:
            run_backfill(source, fresh, str(start), str(end), "some", timeframe=self.timeframe)
            own, other = (
                self.read_bars(database, start, end) for database in (self.database, fresh)
            )
            if own != other:
                return f"{start} to {end}: {describe_difference(own, other)}"
        return self.find_wrong_metrics(ranges) if self.timeframe == "1day" else ""

    def read_bars(self, database: Path, start: date, end: date) -> set[tuple]:
        bounds = midnight_ms(start), midnight_ms(end) + 86_399_999
        query = f"SELECT {BARS} FROM ohlcv_data WHERE timeframe = ? AND timestamp BETWEEN ? AND ?"
        return set(query_all(database, query, self.timeframe, *bounds))

    def find_wrong_metrics(self, ranges: Sequence[tuple[date, date]]) -> str:
        """Each row against a computation from all stored bars of its ticker."""
        with closing(connect(self.database)) as connection:
            computed = make_metrics(load_day_bars(connection, self.tickers))
        for start, end in ranges:
            within = computed[(computed["date"] >= str(start)) & (computed["date"] <= str(end))]
            within = within.sort_values(["ticker", "date"])
            names = ", ".join(METRIC_COLUMNS)
            query = (
                f"SELECT {names} FROM daily_metrics WHERE date BETWEEN ? AND ? ORDER BY "
                "ticker, date"
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


@dataclass
class KillingStore:
    """While it is entered, the process "dies" at the n-th answer that is to be stored (None:
    never)."""

    after: int | None

    def __enter__(self) -> None:
        self.save = backfill_module.save_result

        def save_or_die(*arguments: object) -> object:
            if self.after is not None:
                self.after -= 1
                if self.after < 0:
                    raise Killed
            return self.save(*arguments)  # type: ignore[arg-type]

        backfill_module.save_result = save_or_die  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        backfill_module.save_result = self.save
