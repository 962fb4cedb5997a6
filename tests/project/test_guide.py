"""The guide is true: its tables are the schema's, its commands exist, and those that can run here
are run."""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.schema import load_table_classes
from commands import COMMANDS, Project, copy_project
from sandbox_process import running_sandbox

GUIDE = (PROJECT_DIR / "docs" / "DATABASE.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
# What this machine must not or cannot do for a test, and which test does it instead.
ELSEWHERE = {
    "schedule-install": "changes the user's schedules; test_host_units.py",
    "schedule-status": "as above",
    "schedule-uninstall": "as above",
    "sidecar-up": "needs a container engine; test_sidecar.py",
    "sidecar-logs": "as above",
    "sidecar-down": "as above",
    "sidecar-update": "as above, and a registry",
    "serve": "runs until it is stopped; test_page.py",
    "offsite-watch": "runs until it is stopped; offsite/test_dying_machine.py",
}
# status and doctor look at the machine, which has no schedule; salvage finds nothing damaged.
# Make turns every failure into 2.
EXIT_CODES = {"status": {0, 2}, "doctor": {0, 2}, "salvage": {0, 2}}


def printed_commands() -> list[str]:
    """The lines of the guide's blocks that begin with make, comments cut off, each once, in
    order."""
    lines = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("make ")))


def test_guide_lists_every_table_in_its_class() -> None:
    rows = re.findall(
        r"^\| (irreplaceable|partially recoverable|recoverable) \| ([a-z_, ]+) \|",
        GUIDE,
        re.MULTILINE,
    )
    listed = {
        table: name.replace(" ", "_") for name, tables in rows for table in tables.split(", ")
    }
    assert listed == {
        table: name for table, name in load_table_classes().items() if name != "bookkeeping"
    }


def test_guide_names_only_commands_that_are_there() -> None:
    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", GUIDE, re.MULTILINE)) <= set(COMMANDS)


def test_guide_links_lead_to_its_chapters() -> None:
    headings = re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    anchors = {heading.lower().replace(".", "").replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", GUIDE)) == anchors


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's files, with this checkout's virtual environment."""
    folder = copy_project(tmp_path / "clone")
    (folder / ".venv").symlink_to(PROJECT_DIR / ".venv")
    return folder


def test_commands_of_the_guide_run_as_printed(tmp_path: Path, clone: Path) -> None:
    elsewhere = {
        "OFFSITE": str(tmp_path / "elsewhere"),
        "OFFSITE_PASSPHRASE": "correct horse battery",
    }
    # The day of the commands, which use the machine's clock: a vendor that is behind it has holes.
    with running_sandbox(today=datetime.now(UTC).date().isoformat()) as sandbox:
        settings = {
            "WATCHLIST_TICKERS": "AAPL,IBM",
            "LAKE": str(tmp_path / "lake"),
            "FLATFILES_ENDPOINT": sandbox.url,
            "FLATFILES_ACCESS_KEY": sandbox.key,
            "FLATFILES_SECRET": sandbox.key,
        } | elsewhere
        project = Project(tmp_path, sandbox.url, settings=settings)
        for command in ["make restore", *printed_commands()]:
            target = command.split()[1]
            if target in ELSEWHERE:
                continue
            done = subprocess.run(
                command,
                shell=True,
                cwd=clone,
                env=project.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode in EXIT_CODES.get(target, {0}), (
                f"{command}\n{done.stdout}\n{done.stderr}"
            )
            assert "Traceback" not in done.stderr
    assert {command.split()[1] for command in printed_commands()} >= {
        "restore",
        "backup",
        "drill",
        "status",
    }
