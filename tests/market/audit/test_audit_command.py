"""`make audit` as its users meet it: exit codes, the table, JSON, what is accepted, and the
commands it advises."""

import io
import json
import os
import re
import shlex
import shutil
import sqlite3
from contextlib import closing, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from audit_database import parse_arguments
from audit_market import NOW, UNIVERSE, make_market, ticker_name
from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.console import guard
from backtestdb.database import connect, table_names, transaction
from backtestdb.market.audit.accepted import LastAudit, audit_is_due, load_last_audit
from backtestdb.market.audit.cli import run_audit
from backtestdb.market.audit.rules import RULES
from commands import Project
from market_setup import sessions_of
from planted_defects import PLANTS, Place

START, END = "2026-06-01", "2026-11-19"
SESSIONS = sessions_of(START, END)
MINUTE_TICKER, DAY_TICKER = ticker_name(1), ticker_name(3)
DAY = SESSIONS[len(SESSIONS) // 2].isoformat()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "clean.db"
    make_market(path, 5, start=START, end=END, minute_tickers=2, minute_sessions=6)
    return path


@pytest.fixture
def project(clean: Path, tmp_path: Path) -> Project:
    made = Project(tmp_path)
    shutil.copy(clean, made.database)
    return made


def plant(project: Project, *rules: str) -> None:
    with closing(connect(project.database)) as connection, transaction(connection):
        for rule in rules:
            ticker = MINUTE_TICKER if PLANTS[rule].with_minutes else DAY_TICKER
            PLANTS[rule].put(Place(connection, ticker, SESSIONS, 6))


def change(project: Project, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute(statement, values)


def run_here(project: Project, *arguments: str, expect: int = 0) -> str:
    """The command without a process of its own: what it prints, errors too."""
    out = io.StringIO()
    settings = load_settings(project.environment(), Path(os.devnull))
    with redirect_stdout(out), redirect_stderr(out):
        code = guard(lambda words: run_audit(settings, parse_arguments(words), NOW), arguments)
    assert code == expect, out.getvalue()
    return out.getvalue()


def look(project: Project, *arguments: str, expect: int = 0) -> dict[str, Any]:
    printed = run_here(project, "--json", *arguments, expect=expect)
    found: dict[str, Any] = json.loads(printed[printed.index("{\n") : printed.rindex("}") + 1])
    return found


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in table_names(connection)
            if table != "_audits"
        }


def test_audit_of_right_data_exits_0_and_changes_nothing(project: Project) -> None:
    before = content(project.database)
    printed = project.check("audit_database.py")
    assert "5 tickers" in printed
    assert "nothing found" in printed
    assert content(project.database) == before


def test_error_exits_1_with_its_place_and_the_command_that_mends_it(project: Project) -> None:
    plant(project, "metrics-values")
    printed = project.check("audit_database.py", expect=1)
    assert "1 errors, 0 warnings" in printed
    (row,) = [line for line in printed.splitlines() if "metrics-values" in line and "│" in line]
    assert DAY_TICKER in row
    assert DAY in row
    assert (
        f'next (metrics-values): make backfill-daily ARGS="--universe {UNIVERSE} --again '
        f"--tickers {DAY_TICKER}"
        f' --start {DAY} --end {DAY}"'
    ) in printed
    (finding,) = look(project, expect=1)["findings"]
    assert (finding["rule"], finding["sessions"]) == ("metrics-values", 1)
    assert "rsi_14" in finding["what"]


def test_warning_alone_exits_0(project: Project) -> None:
    plant(project, "spike")
    found = look(project)
    assert found["ok"]
    assert [each["level"] for each in found["findings"]] == ["warning"]


def test_findings_of_one_rule_are_mended_by_one_command(project: Project) -> None:
    with closing(connect(project.database)) as connection, transaction(connection):
        for ticker in (ticker_name(0), ticker_name(3)):
            PLANTS["metrics-values"].put(Place(connection, ticker, SESSIONS, 6))
    printed = run_here(project, expect=1)
    assert printed.count("next (") == 1
    assert f"--tickers {ticker_name(0)},{ticker_name(3)} " in printed


def test_session_of_the_whole_market_is_mended_for_every_universe_with_bars(
    project: Project,
) -> None:
    change(
        project,
        "INSERT INTO universe (id, name, total_stocks) VALUES (2, 'none yet', 1), (3, 'second', 1)",
    )
    change(project, "INSERT INTO universe_stocks (universe_id, ticker) VALUES (2, 'NEWCO')")
    change(project, "UPDATE universe SET total_stocks = total_stocks - 1 WHERE id = 1")
    change(project, "UPDATE universe_stocks SET universe_id = 3 WHERE ticker = ?", DAY_TICKER)
    change(
        project,
        "INSERT INTO _sessions_asked (session_date, ticker_set, received, stored, dropped, "
        "set_aside, asked_at_utc) VALUES (?, 1, 900, 800, 0, 0, '2026-11-20T02:00:00+00:00')",
        DAY,
    )
    printed = run_here(project, expect=1)
    assert f'"--universe {UNIVERSE} --universe second --again --start {DAY} --end {DAY}"' in printed


def test_accepted_finding_is_left_out_until_it_is_taken_back(project: Project) -> None:
    plant(project, "move-without-volume", "metrics-values")
    here = ("metrics-values", DAY_TICKER, DAY)
    assert "accepted" in run_here(project, "--accept", *here)
    found = look(project, expect=1)
    assert [each["rule"] for each in found["findings"]] == ["move-without-volume"]
    assert found["accepted"] == 1
    run_here(project, "--accept", "move-without-volume", DAY_TICKER)
    assert look(project)["findings"] == []
    assert "no longer accepted" in run_here(project, "--take-back", *here)
    assert [each["rule"] for each in look(project, expect=1)["findings"]] == ["metrics-values"]


def test_accepting_one_session_leaves_the_others_of_the_ticker(project: Project) -> None:
    plant(project, "stale-run")
    run_here(project, "--accept", "stale-run", DAY_TICKER, DAY)
    (finding,) = look(project, expect=1)["findings"]
    assert (finding["sessions"], finding["first_session"] > DAY) == (2, True)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["no-such-rule", "AAPL"], "no rule"),
        (["spike"], "RULE TICKER"),
        (["spike", "AAPL", "20261120"], "not a session"),
        (["spike", "AAPL", "2026-11-31"], "not a session"),
    ],
)
def test_accepting_what_cannot_be_a_finding_is_wrong_usage(
    project: Project, words: list[str], why: str
) -> None:
    assert why in run_here(project, "--accept", *words, expect=2)
    if len(words) > 1:
        assert "not" in run_here(project, "--take-back", "spike", "NOBODY", expect=2)


def test_rules_are_listed_with_their_sources(tmp_path: Path) -> None:
    printed = run_here(Project(tmp_path), "--rules")
    assert all(rule.id in printed for rule in RULES)
    assert "Regulation NMS" in printed


def test_readme_and_guide_say_how_many_rules_there_are() -> None:
    for name in ("README.md", "docs/DATABASE.md"):
        assert set(re.findall(r"by (\d+) rules", (PROJECT_DIR / name).read_text())) == {
            str(len(RULES))
        }


def test_only_the_named_tickers_are_examined_and_an_unknown_one_is_wrong_usage(
    project: Project,
) -> None:
    plant(project, "metrics-values")
    assert look(project, "--tickers", ticker_name(0))["tickers"] == 1
    assert look(project, "--tickers", f"{ticker_name(0)},{DAY_TICKER}", expect=1)["findings"]
    assert "NOBODY" in run_here(project, "--tickers", "NOBODY", expect=2)


def test_values_that_are_no_numbers_are_findings_and_no_failure(project: Project) -> None:
    day_bars = f"WHERE ticker = '{DAY_TICKER}' AND timeframe = '1day'"
    change(project, f"UPDATE ohlcv_data SET close = 'n/a', volume = -1 {day_bars} AND id % 7 = 0")
    change(project, f"UPDATE ohlcv_data SET high = 9e999 {day_bars} AND id % 7 = 1")
    change(
        project,
        f"UPDATE ohlcv_data SET day_of_week = NULL, time_of_day = x'00' {day_bars} AND id % 7 = 2",
    )
    change(
        project,
        "UPDATE ohlcv_data SET timestamp = timestamp * 1000 WHERE ticker = ?",
        ticker_name(0),
    )
    change(project, f"UPDATE ohlcv_data SET timestamp = 'now ' || id {day_bars} AND id % 40 = 3")
    change(project, "UPDATE daily_metrics SET date = 'yesterday' WHERE id = 3")
    rules = {each["rule"] for each in look(project, expect=1)["findings"]}
    assert rules >= {
        "impossible-bar",
        "wrong-weekday",
        "wrong-time-of-day",
        "no-session",
        "metrics-rows",
    }


def test_database_without_the_tables_of_this_project_is_examined(project: Project) -> None:
    """As the platform's own scripts leave it."""
    with closing(sqlite3.connect(project.database)) as connection:
        for table in table_names(connection):
            if table.startswith("_"):
                connection.execute(f"DROP TABLE {table}")
    assert look(project)["findings"] == []


def test_database_without_market_tables_says_what_makes_them(tmp_path: Path) -> None:
    project = Project(tmp_path)
    sqlite3.connect(project.database).execute("CREATE TABLE notes (id)").connection.close()
    assert "make restore" in run_here(project, expect=1)


def test_complete_audit_is_remembered_for_the_schedule_and_one_of_some_tickers_is_not(
    project: Project,
) -> None:
    plant(project, "spike", "metrics-values")
    look(project, "--tickers", DAY_TICKER, expect=1)
    with closing(connect(project.database)) as connection:
        assert load_last_audit(connection) is None
        look(project, expect=1)
        last = load_last_audit(connection)
    assert last is not None
    assert (last.errors, last.warnings) == (1, 1)
    assert not audit_is_due(last, NOW)


def test_audit_is_due_once_a_week_and_when_the_clock_was_set_back() -> None:
    last = LastAudit(NOW, 0, 0)
    assert audit_is_due(None, NOW)
    assert not audit_is_due(last, NOW + timedelta(days=6, hours=23))
    assert audit_is_due(last, NOW + timedelta(days=7))
    assert audit_is_due(last, NOW - timedelta(hours=1))


def advised(project: Project, rule: str, *, expect: int) -> list[str]:
    """The words of the command that a finding names."""
    commands = {
        each["next_step"]
        for each in look(project, expect=expect)["findings"]
        if each["rule"] == rule
    }
    (command,) = commands
    return shlex.split(command)


def run_advised(project: Project, words: list[str], script: str) -> None:
    """`make TARGET ARGS="…"` with the script behind the target."""
    project.check(script, *shlex.split(" ".join(words[2:]).removeprefix("ARGS=")))


@pytest.mark.parametrize("rule", ["wrong-time-of-day", "wrong-weekday"])
def test_advised_command_mends_the_clock_of_five_minute_bars(project: Project, rule: str) -> None:
    plant(project, "wrong-time-of-day")
    change(
        project,
        "UPDATE ohlcv_data SET day_of_week = 0 WHERE timeframe = '5min' AND ticker = ?",
        MINUTE_TICKER,
    )
    words = advised(project, rule, expect=1)
    assert words == ["make", "fix-time-of-day"]
    project.check("05_fix_time_of_day.py")
    assert look(project)["findings"] == []


def test_advised_command_takes_orphans_into_a_universe(project: Project) -> None:
    plant(project, "orphan-rows")
    words = advised(project, "orphan-rows", expect=0)
    assert words[:2] == ["make", "create-universe"]
    run_advised(project, words, "01_create_universe.py")
    assert look(project)["findings"] == []


def test_advised_statement_removes_members_of_a_universe_that_is_gone(project: Project) -> None:
    change(project, "INSERT INTO universe_stocks (universe_id, ticker) VALUES (77, 'GHOST')")
    program, database, statement = advised(project, "orphan-rows", expect=0)
    assert (program, Path(database)) == ("sqlite3", project.database)
    change(project, statement)
    assert look(project)["findings"] == []


def test_advised_command_brings_the_list_of_a_universe_up_to_date(project: Project) -> None:
    project.settings["WATCHLIST_TICKERS"] = "AAPL,IBM"
    project.check("01_create_universe.py", "--universe", "tech_sector", "--tickers", "AAPL,NVDA")
    words = advised(project, "universe-list", expect=0)
    run_advised(project, words, "01_create_universe.py")
    assert look(project)["findings"] == []
