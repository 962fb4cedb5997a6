"""Every rule of the audit finds its planted defect and nothing else; what is right stays without a word."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit_market import NOW, make_market, ticker_name
from backtestdb.database import connect, transaction
from backtestdb.market.audit.accepted import Accepted
from backtestdb.market.audit.read import load_known
from backtestdb.market.audit.rules import RULES
from backtestdb.market.audit.run import AuditResult, audit
from market_setup import CALENDAR, sessions_of
from planted_defects import PLANTS, Place

TICKERS, MINUTE_TICKERS, MINUTE_SESSIONS = 24, 2, 7
START, END = "2025-07-01", "2026-11-19"
SESSIONS = sessions_of(START, END)
MINUTE_TICKER, DAY_TICKER = ticker_name(1), ticker_name(5)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "clean.db"
    make_market(
        path,
        TICKERS,
        start=START,
        end=END,
        minute_tickers=MINUTE_TICKERS,
        minute_sessions=MINUTE_SESSIONS,
    )
    return path


@pytest.fixture
def database(clean: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "market.db"
    shutil.copy(clean, path)
    return path


def run_rules(database: Path, *, without: str = "") -> AuditResult:
    with closing(connect(database, read_only=True)) as connection:
        known = load_known(connection, CALENDAR, NOW)
        rules = [rule for rule in RULES if rule.id != without]
        return audit(connection, known, accepted=Accepted(), rules=rules)


def plant(database: Path, rule: str) -> str:
    """Plant the rule's defect; return the name that its finding shows."""
    defect = PLANTS[rule]
    ticker = MINUTE_TICKER if defect.with_minutes else DAY_TICKER
    with closing(connect(database)) as connection, transaction(connection):
        defect.put(Place(connection, ticker, SESSIONS, MINUTE_SESSIONS))
    return defect.shown_for or ticker


def test_market_without_a_defect_has_no_finding(clean: Path) -> None:
    result = run_rules(clean)
    assert result.findings == []
    assert (result.tickers, result.day_bars) == (TICKERS, TICKERS * len(SESSIONS))
    assert result.minute_bars > MINUTE_TICKERS * MINUTE_SESSIONS * 42
    assert result.metrics == result.day_bars


def test_every_rule_has_a_planted_defect() -> None:
    assert sorted(PLANTS) == sorted(rule.id for rule in RULES)
    assert len(RULES) >= 20


@pytest.mark.parametrize("rule", PLANTS)
def test_planted_defect_is_found_by_its_rule_alone(database: Path, rule: str) -> None:
    shown_for = plant(database, rule)
    found = {(finding.rule, finding.ticker) for finding in run_rules(database).findings}
    assert (rule, shown_for) in found
    assert {name for name, _ in found} <= {rule} | PLANTS[rule].companions
    others = {(finding.rule, finding.ticker) for finding in run_rules(database, without=rule).findings}
    assert others == found - {(rule, shown_for)}
