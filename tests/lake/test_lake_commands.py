"""The commands of the lake as a user starts them: what they say, their exit codes, what they leave
alone."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.lake.audit import audit
from backtestdb.lake.store import Store
from backtestdb.lake.table import Draft, open_lake
from commands import COMMANDS, Project
from lake_tools import BARS, NOW, make_lake_database, publish_here, read_database, read_lake
from sandbox_process import SandboxOptions, SandboxProcess

GUIDE = (PROJECT_DIR / "docs" / "DATABASE.md").read_text()
OF_THE_LAKE = {
    "pyarrow",
    "deltalake",
    "duckdb",
    "dask",
    "distributed",
    "adbc_driver_sqlite",
    "adbc_driver_manager",
}


SANDBOX = SandboxOptions("--tickers", "80", today="2026-11-24")


@pytest.fixture
def project(sandbox: SandboxProcess, tmp_path: Path) -> Project:
    """A folder with a blank in its name, a database of two months, and no lake yet."""
    folder = tmp_path / "my project"
    folder.mkdir()
    settings = {
        "LAKE": str(folder / "the lake"),
        "FLATFILES_ENDPOINT": sandbox.url,
        "FLATFILES_ACCESS_KEY": sandbox.key,
        "FLATFILES_SECRET": sandbox.key,
    }
    made = Project(folder, sandbox.url, settings=settings)
    make_lake_database(made.database, ["AAPL", "NA", "KIMpL"])
    return made


def store_of(project: Project) -> Store:
    return Store(project.settings["LAKE"])


@pytest.mark.parametrize(
    "script", ["publish_lake.py", "compute_lake_metrics.py", "clean_lake.py", "audit_lake.py"]
)
def test_command_without_a_lake_in_the_settings_says_so(project: Project, script: str) -> None:
    told = project.check(script, expect=2, LAKE="")
    assert "LAKE is empty" in told and "next: write LAKE=" in told


def test_query_before_the_first_publication_names_the_command(project: Project) -> None:
    told = project.check("query_lake.py", "SELECT 1", expect=1)
    assert "there is no lake" in told and "next: make publish" in told


def test_queries_of_the_guide_run_as_printed(project: Project) -> None:
    project.check("publish_lake.py")
    lines = re.findall(r"^\./db lake-query (.+)$", GUIDE, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        done = subprocess.run(
            shlex.join([sys.executable, str(PROJECT_DIR / "scripts" / "query_lake.py")])
            + f" {line}",
            shell=True,
            env=project.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, line + done.stderr


def test_notebook_lines_of_the_guide_run_as_printed(project: Project) -> None:
    project.check("publish_lake.py")
    (block,) = re.findall(r"^```\n(from backtestdb\.lake.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block + "print(len(frame), len(files))"],
        env={**project.environment(), "PYTHONPATH": str(PROJECT_DIR / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    rows, files = done.stdout.split()
    assert (int(rows) > 0 and int(files) > 0) or done.stderr == ""


def test_wrong_sql_is_told_in_duckdbs_words_and_writes_nothing(project: Project) -> None:
    project.check("publish_lake.py")
    told = project.check("query_lake.py", "SELECT nonsense FROM bars_1day", expect=2)
    assert "nonsense" in told and "Traceback" not in told


def test_backfill_prints_its_plan_and_then_does_it(
    project: Project, sandbox: SandboxProcess
) -> None:
    asked = ("--start", "2026-11-19", "--end", "2026-11-20", "--universe", "tech_sector")
    sandbox.clear_log()
    assert "2 flat files" in project.check("backfill_lake.py", *asked, "--plan")
    assert (
        json.loads(project.run("backfill_lake.py", *asked, "--plan", "--by-api", "--json").stdout)[
            "requests"
        ]
        == 4
    )
    assert sandbox.fetch_log() == []
    done = project.run("backfill_lake.py", *asked, "--json")
    assert done.returncode == 0, done.stderr
    (coverage,) = json.loads(done.stdout.splitlines()[-1])["coverage"]
    assert (coverage["expected"], coverage["stored"], coverage["failed"]) == (6, 6, 0)
    status = project.run("show_status.py")
    assert "tech_sector 5min, 2026-11-19 to 2026-11-20: expected 6, stored 6" in status.stdout


def find_lake_problems(project: Project) -> list[tuple[str, str]]:
    """Name and next step, as status has them."""
    problems = json.loads(project.run("show_status.py", "--json").stdout)["problems"]
    return [(one["name"], one["next_step"]) for one in problems if "lake" in one["name"]]


def test_missing_session_is_a_hole_until_the_advised_command_brings_it(
    project: Project, sandbox: SandboxProcess
) -> None:
    """The newest session is no hole yet: the vendor adds its file in the morning."""
    sandbox.set_faults(
        {"match": "flatfiles.*2026-11-(19|20)", "kind": "refusal", "status": 404, "times": None}
    )
    wanted = "--universe tech_sector --start 2026-11-19 --end"
    try:
        told = project.check("backfill_lake.py", *wanted.split(), "2026-11-20", expect=3)
    finally:
        sandbox.set_faults()
    assert "MISSING 2026-11-19: there is no flat file of 2026-11-19" in told
    assert "2026-11-20 yet: the vendor adds it the morning after" in told
    advised = f'make backfill-lake ARGS="{wanted} 2026-11-19"'
    assert find_lake_problems(project) == [("lake_holes", advised)]
    assert "3 of 3 sessions of tickers" in project.run("check_environment.py").stdout

    project.check("backfill_lake.py", *wanted.split(), "2026-11-19")
    assert find_lake_problems(project) == []


def test_lake_that_is_gone_is_a_problem_until_it_is_back(project: Project) -> None:
    project.check("publish_lake.py")
    lake, unplugged = Path(project.settings["LAKE"]), project.folder / "unplugged"
    lake.rename(unplugged)
    assert find_lake_problems(project) == [("lake", "connect its disk, or change LAKE")]
    told = project.check("publish_lake.py", expect=1)
    assert "was at version 1, and nothing is there" in told and not lake.exists()
    unplugged.rename(lake)
    assert find_lake_problems(project) == []

    lake.rename(unplugged)
    advised = told.partition("to begin a new one there: ")[2].splitlines()[0]
    subprocess.run(shlex.split(advised), check=True)
    project.check("publish_lake.py")


def test_exported_bars_are_those_of_the_lake_and_are_not_fetched_again(
    project: Project, sandbox: SandboxProcess
) -> None:
    project.check("backfill_lake.py", "--start", "2026-11-19", "--end", "2026-11-20")
    told = project.check("export_lake.py", "--tickers", "AAPL,NA,NOBODY", "--start", "2026-11-19")
    assert "NOBODY: the lake has no bar of it" in told
    since = 1_795_000_000_000
    mine = [row for row in read_database(project.database, "5min") if row[1] >= since]
    lake = read_lake(Path(project.settings["LAKE"]), "bars_5min", BARS)
    assert mine == [row for row in lake if row[0] in {"AAPL", "NA"} and row[1] >= since] and mine
    with closing(sqlite3.connect(project.database)) as connection:
        times = connection.execute(
            "SELECT DISTINCT time_of_day FROM ohlcv_data "
            "WHERE timeframe = '5min' AND timestamp >= ?",
            (since,),
        ).fetchall()
    assert {len(text) for (text,) in times} == {8}
    sandbox.clear_log()
    project.check("01_create_universe.py", "--universe", "two", "--tickers", "AAPL,NA")
    project.check(
        "03_backfill_intraday.py",
        "--universe",
        "two",
        "--start",
        "2026-11-19",
        "--end",
        "2026-11-20",
    )
    assert not [entry for entry in sandbox.fetch_log() if "/range/5/minute/" in entry["path"]]


def test_audit_finds_a_changed_byte_a_lost_file_and_a_wrong_bar(project: Project) -> None:
    root = Path(project.settings["LAKE"])
    publish_here(project.database, root)
    assert "is whole" in project.check("audit_lake.py")
    version = open_lake(store_of(project))
    key = version.parts_of("bars_1day")[0].key

    draft = Draft(version, "test")
    rows = version.read(key)
    draft.put(key, rows.set_column(4, "high", rows["low"]))
    draft.commit(NOW)
    assert {finding.what for finding in audit(open_lake(store_of(project)))} == {
        "high below open, close or low"
    }

    path = root / open_lake(store_of(project)).parts[key].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = project.check("audit_lake.py", expect=1)
    assert "the file has another content than was written" in re.sub(r"[\s│┃]+", " ", told)
    path.unlink()
    assert "cannot be read" in project.check("audit_lake.py", expect=1)


def test_doctor_names_an_engine_and_a_place_that_are_not_there(
    project: Project, tmp_path: Path
) -> None:
    done = project.run(
        "check_environment.py", ENGINE="tcp://127.0.0.1:9", LAKE=str(tmp_path / "no" / "disk")
    )
    told = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode == 1
    assert "no Dask scheduler answers at ENGINE=tcp://127.0.0.1:9" in told
    assert "is not there" in told and "connect its disk" in told


def test_commands_that_do_not_need_the_lake_import_nothing_of_it(tmp_path: Path) -> None:
    """With a LAKE in the settings, too. Asked in the process itself, after the command has done its
    work."""
    project = Project(tmp_path, settings={"LAKE": str(tmp_path / "lake")})
    make_lake_database(project.database, ["AAPL"], minute_sessions=1)
    for script, *arguments in (
        ["backup_database.py"],
        ["backup_database.py", "--list"],
        ["restore_database.py", "--from-backup", "--yes"],
        ["restore_database.py", "--skip-backfill", "--yes"],
        ["show_status.py"],
        ["check_environment.py"],
        ["02_backfill_daily.py", "--plan", "--universe", "tech_sector"],
    ):
        code = (
            "import runpy, sys, atexit\n"
            "atexit.register(lambda: print('IMPORTED', *sys.modules))\n"
            f"sys.argv = {[script, *arguments]!r}\n"
            f"sys.path.insert(0, {str(PROJECT_DIR / 'scripts')!r})\n"
            f"runpy.run_path({str(PROJECT_DIR / 'scripts' / script)!r}, run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=project.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        imported = set(done.stdout.rpartition("IMPORTED ")[2].split())
        assert "backtestdb.config" in imported, done.stderr
        # pandas itself takes pyarrow where it finds it; what fetches market data has pandas.
        by_pandas = {"pyarrow"} if "pandas" in imported else set()
        assert not imported & OF_THE_LAKE - by_pandas, script


def test_only_the_commands_of_the_lake_install_its_packages() -> None:
    of_lake = {name for name, (runs, _) in COMMANDS.items() if runs.startswith("run lake ")}
    assert of_lake == {
        *(
            "publish",
            "backfill-lake",
            "lake-metrics",
            "lake-query",
            "lake-export",
            "lake-audit",
            "lake-clean",
        )
    }
    for path in PROJECT_DIR.glob("requirements-*.txt"):
        if path.stem not in {"requirements-lake", "requirements-dev"}:
            assert not re.search(
                r"^(pyarrow|deltalake|duckdb|dask|distributed)==", path.read_text(), re.MULTILINE
            )
