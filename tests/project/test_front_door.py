"""What the front door promises: commands, help, settings template, imports. Drift is a failure
here."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backtestdb.config import PARSERS, PROJECT_DIR, load_settings
from commands import COMMANDS

SCRIPTS = sorted((PROJECT_DIR / "scripts").glob("*.py"))
PACKAGE = PROJECT_DIR / "scripts" / "backtestdb"
# The rooms, and what each may import beside itself and the ground floor. market and backups do not
# know each other.
ROOMS: dict[str, set[str]] = {
    "sandbox": {"market"},
    "market": set(),
    "backups": set(),
    "offsite": {"backups"},
    "salvage": {"backups"},
    "lake": {"market"},
    "scheduling": {"market", "backups", "offsite"},
    "rebuild": {"market", "backups", "salvage"},
    "health": {"market", "backups", "offsite", "lake", "scheduling"},
    "page": {"market", "backups", "offsite", "lake", "scheduling", "health"},
}
WITH_PANDAS = {"market", "sandbox", "rebuild", "page", "lake"}


@pytest.mark.parametrize("call", [["make", "-s", "-C", "."], ["./db"]], ids=["make", "db"])
def test_front_door_alone_lists_every_command_with_its_help_on_80_columns(call: list[str]) -> None:
    listed = subprocess.run(
        call, cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(rf"^  {call[0]} ([a-z0-9-]+) +\S", listed, re.MULTILINE) == list(COMMANDS)
    assert max(map(len, listed.splitlines())) <= 80


def test_make_has_a_target_for_every_command_that_calls_the_other_entry() -> None:
    asked = ["make", "-C", PROJECT_DIR, "--dry-run", *COMMANDS]
    printed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^\./db ([a-z0-9-]+)", printed, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_a_script_that_is_there(command: str) -> None:
    found = re.search(r"run .*?(\S+\.(?:py|sh)) ", COMMANDS[command][0])
    assert not found or (PROJECT_DIR / "scripts" / found[1]).is_file()
    assert found or command in {
        "setup",
        "test",
        "test-long",
        "test-faults",
        "bench",
        "test-elsewhere",
        "lint",
        "help",
    }


@pytest.mark.parametrize("target", COMMANDS)
def test_command_stands_in_the_readme(target: str) -> None:
    assert re.search(rf"`make {target}[ `]", (PROJECT_DIR / "README.md").read_text())


def test_readme_names_no_command_that_is_not_there() -> None:
    named = re.findall(r"make ([a-z0-9-]+)", (PROJECT_DIR / "README.md").read_text())
    named += re.findall(r"\./db ([a-z0-9-]+)", (PROJECT_DIR / "README.md").read_text())
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_imported_does_nothing_and_asked_for_help_explains_itself(
    script: Path, tmp_path: Path
) -> None:
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(script.parent)!r}); "
        f"runpy.run_path({str(script)!r})"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (imported.stdout, imported.stderr, list(tmp_path.iterdir())) == ("", "", [])
    helped = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "usage:" in helped.stdout


def test_settings_template_has_every_setting_with_a_sentence_above() -> None:
    lines = (PROJECT_DIR / ".env.example").read_text().splitlines()
    names = [line.split("=")[0] for line in lines if line and not line.startswith("#")]
    assert names == list(PARSERS)
    for before, line in itertools.pairwise(lines):
        assert not re.match("[A-Z]", line) or re.match("[#A-Z]", before), (
            f"{line} has no sentence above it"
        )


def test_settings_template_means_the_defaults() -> None:
    example = load_settings({}, PROJECT_DIR / ".env.example")
    defaults = load_settings({}, Path("/nonexistent"))
    assert example.database_path == defaults.database_path
    assert {**vars(example), "origins": {}} == {**vars(defaults), "origins": {}}


@pytest.mark.parametrize(
    "path", ["/plain/backtesting.db", "/with space & # 'quote' $HOME/backtesting.db"]
)
def test_env_file_keeps_the_path_of_the_database_as_it_is(tmp_path: Path, path: str) -> None:
    code = "import sys; from create_env_file import make_env_text; from pathlib import Path; "
    code += "print(make_env_text(sys.argv[1], Path(sys.argv[2])), end='')"
    text = subprocess.run(
        [sys.executable, "-c", code, (PROJECT_DIR / ".env.example").read_text(), path],
        cwd=PROJECT_DIR / "scripts",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / ".env").write_text(text)
    assert str(load_settings({}, tmp_path / ".env").database_path) == path


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    reached = {
        name.split(".")[1] for name in imported_modules(path) if name.startswith("backtestdb.")
    }
    assert reached & set(ROOMS) <= ROOMS.get(room, set()) | {room}
    if room in ROOMS and room not in WITH_PANDAS:
        assert not imported_modules(path) & {
            "pandas",
            "numpy",
            "exchange_calendars",
            "orjson",
            "ta",
        }


def test_every_room_stands_in_the_layering() -> None:
    folders = {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert folders <= set(ROOMS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    waiting = {
        name: imported_modules(path) & set(modules) - {name} for name, path in modules.items()
    }
    while free := [name for name, needed in waiting.items() if not needed & set(waiting)]:
        for name in free:
            del waiting[name]
    assert not waiting, "these are part of a circle, or stand above one"


def test_every_requirement_is_pinned_and_says_why() -> None:
    for path in PROJECT_DIR.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.]+ +# .+", line), line


def test_demo_lives_a_whole_life_in_a_folder_of_its_own(tmp_path: Path) -> None:
    command = [
        sys.executable,
        PROJECT_DIR / "scripts" / "run_demo.py",
        "--folder",
        tmp_path / "demo",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DEMONSTRATION" in done.stdout
    assert "the agent, what it learned and its script are back" in done.stdout
    assert "Traceback" not in done.stderr
