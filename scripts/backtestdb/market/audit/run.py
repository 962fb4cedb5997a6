"""The audit: every rule on tickers, batch by batch, then on the market as a whole."""

import gc
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from backtestdb.database import transaction
from backtestdb.market.audit.accepted import Accepted
from backtestdb.market.audit.columns import day_text
from backtestdb.market.audit.market_rules import add_batch
from backtestdb.market.audit.mending import Mender
from backtestdb.market.audit.read import Stored, count_stored, load_batch, make_market, make_parts
from backtestdb.market.audit.rule import NO_DAY, Finding, Hits, Known, Rule
from backtestdb.market.audit.rules import RULES

LEVELS = ("error", "warning")


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """`findings`: errors first, in the order of the rules. `accepted`: sessions of tickers that
    break a rule and that the user has accepted."""

    findings: Sequence[Finding]
    accepted: int
    tickers: int
    day_bars: int
    minute_bars: int
    metrics: int
    rules: int
    seconds: float

    def count(self, level: str) -> int:
        return sum(finding.level == level for finding in self.findings)


@dataclass
class Collector:
    """Hits become findings by rule, ticker and timeframe; `accepted_hits` counts those left out."""

    accepted: Accepted
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    accepted_hits: int = 0

    def add(self, rule: Rule, hits: Hits) -> None:
        places_of: dict[str, list[int]] = {}
        for place, ticker in enumerate(hits.tickers):
            if self.is_accepted(rule, ticker, hits.days[place]):
                self.accepted_hits += 1
            else:
                places_of.setdefault(ticker, []).append(place)
        for ticker, places in places_of.items():
            self.add_ticker(rule, hits, ticker, places)

    def is_accepted(self, rule: Rule, ticker: str, day: int) -> bool:
        return self.accepted.covers(rule.id, ticker, "" if day == NO_DAY else day_text(day))

    def add_ticker(self, rule: Rule, hits: Hits, ticker: str, places: Sequence[int]) -> None:
        """Add hits of a rule in a ticker to its finding, which spans all their sessions."""
        days = np.unique(hits.days[places])
        first, last = ("" if day == NO_DAY else day_text(day) for day in (days[0], days[-1]))
        found = Finding(
            rule=rule.id,
            level=rule.level,
            ticker=ticker,
            timeframe=hits.timeframe,
            first_session=first,
            last_session=last,
            sessions=len(days),
            what=hits.describe(places[0]),
        )
        key = (rule.id, ticker, hits.timeframe)

        before = self.findings.get(key)
        if before:
            found = replace(
                before,
                first_session=min(before.first_session, first),
                last_session=max(before.last_session, last),
                sessions=before.sessions + len(days),
            )

        self.findings[key] = found


def audit(
    connection: sqlite3.Connection,
    known: Known,
    *,
    accepted: Accepted,
    only: Collection[str] = (),
    rules: Sequence[Rule] = RULES,
    advance: Callable[[int], None] = lambda _: None,
    stored: Sequence[Stored] | None = None,
) -> AuditResult:
    """Given a database, apply `rules` to everything stored (`only`: to these tickers, without the
    rules about the whole market). Reads only. `advance` takes the number of tickers just done."""
    started = time.monotonic()
    stored = count_stored(connection) if stored is None else stored
    wanted = [each for each in stored if not only or each.ticker in only]
    collector = Collector(accepted)
    with transaction(connection, "DEFERRED"):
        market = make_market(connection, known)

    # Each batch from one committed state of its own: no writer waits for longer than a batch.
    for part in make_parts(wanted):
        with without_collector(), transaction(connection, "DEFERRED"):
            batch = load_batch(connection, known, part)
        add_batch(market, batch)
        for rule in rules:
            for hits in rule.in_batch(batch) if rule.in_batch else ():
                collector.add(rule, hits)
        advance(len(part))

    for rule in () if only else rules:
        for hits in rule.in_market(market) if rule.in_market else ():
            collector.add(rule, hits)

    return AuditResult(
        findings=add_next_steps(connection, rules, list(collector.findings.values())),
        accepted=collector.accepted_hits,
        tickers=len(wanted),
        day_bars=sum(each.day_bars for each in wanted),
        minute_bars=sum(each.minute_bars for each in wanted),
        metrics=sum(each.metrics for each in wanted),
        rules=len(rules),
        seconds=time.monotonic() - started,
    )


@contextmanager
def without_collector() -> Iterator[None]:
    """Hold the garbage collector off."""
    # A hundred thousand tuples of numbers hold no circle, and Python would look at each of them
    # several times.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def add_next_steps(
    connection: sqlite3.Connection, rules: Sequence[Rule], findings: Sequence[Finding]
) -> list[Finding]:
    """Return each finding with its command, errors first."""
    if not findings:
        return []
    order = {rule.id: (LEVELS.index(rule.level), place) for place, rule in enumerate(rules)}
    mend_of = {rule.id: rule.mend for rule in rules}
    mender = Mender(connection)

    return [
        replace(finding, next_step=mender.command(mend_of[finding.rule], [finding]))
        for finding in sorted(
            findings, key=lambda each: (order[each.rule], each.ticker, each.timeframe)
        )
    ]
