"""Numbers for monitors, holes by name, kept copies, and reports that keep whole at every width."""

import json
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.health.holes import Holes, show
from backtestdb.health.prometheus import escape
from commands import Project
from contents import query_all
from large_database import make_large_database
from mending import run_printed_command, with_schedule
from sandbox_process import running_sandbox

MONITORING = PROJECT_DIR / "docs" / "monitoring"
# A sample as the exposition format has it: name, labels, value.
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+-]+)')


def make_project(folder: Path) -> Project:
    project = with_schedule(Project(folder))
    make_large_database(project.database, tickers=3, sessions=4)
    return project


def read_samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = [SAMPLE.fullmatch(line) for line in lines]
    assert all(found), text
    return {f"{one[1]}{{{one[2] or ''}}}": float(one[3]) for one in found if one}


def test_numbers_follow_the_format_and_the_json(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.check("backup_database.py")
    text = project.run("show_status.py", "--prometheus").stdout
    values = json.loads(project.run("show_status.py", "--json").stdout)
    samples = read_samples(text)
    assert text.endswith("\n")
    assert samples["ai_backtest_problems{}"] == 0
    assert samples["ai_backtest_database_bytes{}"] == values["database"]["bytes"]
    assert samples['ai_backtest_backups{kind="full"}'] == 1
    assert 0 <= samples['ai_backtest_backup_age_seconds{kind="full"}'] < 600
    assert project.key not in text
    helped = re.findall(r"^# HELP (\w+) ", text, re.MULTILINE)
    assert sorted(helped) == sorted(set(re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)))


def test_numbers_are_exit_code_0_and_named_problems_when_all_is_lost(tmp_path: Path) -> None:
    text = with_schedule(Project(tmp_path)).check("show_status.py", "--prometheus")
    samples = read_samples(text)
    assert samples["ai_backtest_database_present{}"] == 0
    assert samples['ai_backtest_problem{name="no_database"}'] == 1


def test_label_with_quotes_and_line_feeds_is_escaped() -> None:
    assert escape('a"b\\c\nd') == 'a\\"b\\\\c\\nd'


def test_rules_and_dashboard_use_only_numbers_that_there_are() -> None:
    source = (PROJECT_DIR / "scripts/backtestdb/health/prometheus.py").read_text()
    made = {f"ai_backtest_{name}" for name in re.findall(r'"([a-z_]+)"', source)}
    made |= {
        f"ai_backtest_coverage_{name}" for name in ("expected", "stored", "beyond_plan", "failed")
    }
    for name in ("alerts.yml", "dashboard.json"):
        used = set(re.findall(r"ai_backtest_[a-z_]+", (MONITORING / name).read_text()))
        assert used
        assert used <= made
    json.loads((MONITORING / "dashboard.json").read_text())


@pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool (apt-get install prometheus)"
)
def test_promtool_accepts_rules_their_tests_and_the_numbers(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        subprocess.run(["promtool", *arguments], cwd=MONITORING, check=True, capture_output=True)
    numbers = project.run("show_status.py", "--prometheus").stdout
    subprocess.run(["promtool", "check", "metrics"], input=numbers, text=True, check=True)


def test_holes_are_named_by_ticker_and_gone_after_the_refill(tmp_path: Path) -> None:
    with running_sandbox(today="2013-03-02") as sandbox:
        project = with_schedule(
            Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": "IBM,PARA"})
        )
        project.check("restore_database.py", "--end", "2013-03-01")
        assert "no holes" in project.check("show_status.py", "--holes")
        project.check(
            "01_create_universe.py", "--universe", "tech_sector", "--tickers", "IBM,MSFT,PARA"
        )
        printed = project.check("show_status.py", "--holes", expect=3)
        assert re.search(r"MSFT\W+\d+", printed)
        assert not re.search(r"IBM\W+\d+", printed)
        project.check("update_database.py", "--end", "2013-03-01")
        assert "no holes" in project.check("show_status.py", "--holes")


def test_ticker_that_the_vendor_has_nothing_of_is_nothing_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Holes("tech_sector", "1day", {}, ["ANSS", "PARA"]))
    printed = capsys.readouterr().out
    assert "the vendor has nothing of ANSS, PARA" in printed
    assert "nothing to do" in printed


def test_kept_copies_are_listed_counted_and_removed_when_a_backup_is_there(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert "no copy is kept" in project.check("manage_kept.py")
    kept = tmp_path / "backtesting.db.backup-2026-11-20-101500"
    for name in (
        kept.name,
        f"{kept.name}-wal",
        "backtesting.db.rebuilding",
        "backtesting.db.backup-mine",
    ):
        (tmp_path / name).write_bytes(bytes(1000))
    (tmp_path / "backtesting.db.backup-2026-11-20-101501").symlink_to(project.database)
    printed = project.check("manage_kept.py", "--remove", "--yes", expect=1)
    assert "1 file, 2.0 kB" in printed
    assert "continue it: the same make restore" in printed
    assert kept.exists()
    (command,) = re.findall(r"next: (.+)$", printed, re.MULTILINE)
    assert run_printed_command(project, command).returncode == 0
    values = json.loads(project.run("show_status.py", "--json").stdout)
    assert [one["bytes"] for one in values["kept"]] == [2000]
    status = project.run("show_status.py").stdout
    assert "1 replaced database beside this one" in status
    assert "rebuild   interrupted" in status
    project.check("manage_kept.py", "--remove", "--keep", "1", "--yes")
    assert kept.exists()
    assert "are free again" in project.check("manage_kept.py", "--remove", "--yes")
    left = {path.name for path in tmp_path.glob("backtesting.db?*")}
    assert not kept.exists()
    assert {"backtesting.db.rebuilding", "backtesting.db.backup-mine"} <= left
    assert query_all(project.database, "SELECT count(*) FROM ohlcv_data") == [(12,)]


def make_report(folder: Path, width: int, **changes: str) -> str:
    """What status prints, with what changes from run to run taken out."""
    project = make_project(folder)
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.executescript((PROJECT_DIR / "sql/schema/bookkeeping/_coverage.sql").read_text())
        connection.execute(
            "INSERT INTO _coverage (universe, timeframe, start_date, end_date, tickers, expected, "
            "stored, known_empty, set_aside, beyond_plan, failed, counted_at_utc) "
            "VALUES ('us-stocks', '1day', '2025-11-18', '2026-11-20', 3, 1234567, 1200000, 30000, "
            "0, 3567, 1000, '2026-11-21T00:00:01Z')"
        )
    text = project.run("show_status.py", COLUMNS=str(width), **changes).stdout
    text = text.replace(str(folder), "/data")
    return re.sub(r"(?m)^(disk|database) .*$", r"\1 …", text)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_report_at_each_width_breaks_no_number_and_no_line_of_words(
    tmp_path: Path, width: int, locale: str
) -> None:
    text = make_report(
        tmp_path,
        width,
        LC_ALL=locale,
        NO_COLOR="1",
        PYTHONIOENCODING="" if "8" in locale else "ascii",
    )
    for number in ("1,234,567", "1,200,000", "30,000", "3,567", "1,000", "99.9 %"):
        assert number in re.sub(r"\s+", " ", text), text
    long = [line for line in text.splitlines() if len(line) > width and "next:" not in line]
    assert not [line for line in long if "/data" not in line and "pytest-of" not in line], text
    assert "\x1b" not in text
    assert locale != "C" or text.replace("…", "").isascii()
