"""Setting up on a machine of its own: the way back needs little, .venv follows its interpreter, and
nothing hides."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backup_tools import make_platform_database
from commands import COMMANDS, PROJECT_DIR, Project, copy_project
from receivers import watcher

SETS = ("backup", "notify", "offsite", "market", "demo", "page", "lake", "dev")
WISHED = {"requests", "pandas", "ta", "python-dotenv", "schedule"}
LOCK_LINE = re.compile(
    r"^([\w.-]+)==(\S+)(?: ; [^\\]+)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def read_pins(name: str) -> dict[str, str]:
    """Given a requirements file, return the packages that it and the files it names pin."""
    text = (PROJECT_DIR / name).read_text()
    pins = {
        package.replace("_", "-"): version
        for package, version in re.findall(r"^([\w-]+)==(\S+)", text, re.M)
    }
    for other in re.findall(r"^-r (\S+)", text, re.M):
        pins |= read_pins(other)
    return pins


def read_lock(name: str) -> dict[str, str]:
    text = (PROJECT_DIR / "locks" / f"{name}.txt").read_text()
    assert LOCK_LINE.sub("", text) == ""
    return {package: version for package, version, _ in LOCK_LINE.findall(text)}


@pytest.mark.parametrize("name", SETS)
def test_lock_has_every_pin_with_hashes_and_the_versions_of_the_whole(name: str) -> None:
    locked = read_lock(name)
    assert read_pins(f"requirements-{name}.txt").items() <= locked.items()
    assert locked.items() <= read_lock("dev").items()
    assert "://" not in (PROJECT_DIR / "locks" / f"{name}.txt").read_text()


def test_requirements_name_what_the_owner_wished_and_the_way_back_is_light() -> None:
    assert set(read_pins("requirements.txt")) >= WISHED
    assert len(read_lock("backup")) <= 14
    assert not set(read_lock("backup")) & {"pandas", "numpy", "ta", "orjson", "exchange-calendars"}
    assert not {"ta"} & (set(read_lock("market")) | set(read_lock("page")))
    assert not {"bokeh-sampledata"} & (set(read_lock("market")) | set(read_lock("page")))


def test_way_back_is_listed_as_light() -> None:
    """Everything that looks after a database without fetching market data."""
    light = {
        name
        for name, (runs, _) in COMMANDS.items()
        if runs.startswith(("run backup ", 'run "$(set_of_restore)" ', 'run "$(set_of_status '))
    }
    assert light >= {
        *("backup", "backup-irreplaceable", "backups", "verify-backups", "restore-from-backup"),
        *("status", "drill", "salvage", "schedule-install", "schedule-status", "sidecar-up"),
    }


class Checkout:
    """A copy of the project in a folder of its own, with no .venv yet, on a machine with no package
    index."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder = copy_project(folder / "check out")
        self.project = Project(folder)
        self.offline = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def run(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.project.environment(),
            **self.offline,
            "PYTHON3": sys.executable,
            **changes,
        }
        environment = {name: value for name, value in environment.items() if value}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the README says: downloaded on a machine that has internet."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"]
    subprocess.run([*command, "-r", PROJECT_DIR / "locks" / "backup.txt", "-d", folder], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, wheels: Path) -> Checkout:
    return Checkout(tmp_path, wheels)


def test_light_commands_run_offline_from_a_folder_of_wheels_and_follow_python_and_folder(
    checkout: Checkout,
) -> None:
    """One life of one .venv, because making one takes seconds: made, used, moved, broken in two
    ways, mended."""
    make_platform_database(checkout.project.database, bars=10)
    first = checkout.run("make", "backup")
    assert first.returncode == 0, first.stderr
    assert "making .venv with Python" in first.stderr
    listed = checkout.run(".venv/bin/python", "-m", "pip", "list", "--format", "json").stdout
    assert not {"pandas", "numpy", "ta", "orjson"} & {entry["name"] for entry in json.loads(listed)}

    for name, codes in (
        ("backup-irreplaceable", {0}),
        ("backups", {0}),
        ("verify-backups", {0}),
        ("drill", {0}),
        ("status", {1}),  # no schedule
        ("doctor", {0, 1}),  # as the machine is
        ("salvage", {0, 1}),
        ("migrate-agents-schema", {0}),
        ("restore-from-backup", {0}),
    ):
        done = checkout.run("./db", name, *(["--yes"] if name == "restore-from-backup" else []))
        assert done.returncode in codes, (name, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert ".venv" not in done.stderr, (name, done.stderr)

    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved & renamed"))
    moved = checkout.run("make", "backups")
    assert (moved.returncode, moved.stderr) == (0, "")

    interpreter = checkout.folder / ".venv" / "bin" / "python"
    interpreter.unlink()
    interpreter.symlink_to("/opt/homebrew/opt/python@3.10/bin/python3.10")
    # A job of the schedule, first without what it needs, then with it.
    job = ("scripts/run_scheduled.sh", "scripts/run_scheduler.py", "--once")
    for small in (checkout.project.folder / "backups").glob("irreplaceable-*"):
        small.unlink()  # so that one is due
    with watcher() as (url, pings):
        heartbeat = {"HEARTBEAT_URL": url}
        gone = checkout.run(*job, PIP_FIND_LINKS="", **heartbeat)
        assert gone.returncode == 1, gone.stderr
        what = "making .venv anew, because the interpreter that it was made with is gone"
        assert what in gone.stderr
        assert "error: the packages of requirements-backup.txt are not installed" in gone.stderr
        assert pings == []
        mended = checkout.run(*job, **heartbeat)
        assert mended.returncode == 0, mended.stdout + mended.stderr
        assert pings[-1] == "/ping/secret-id"

    packages = next((checkout.folder / ".venv" / "lib").glob("python3.*"))
    packages.rename(packages.with_name("python3.10"))
    upgraded = checkout.run("./db", "backups")
    assert upgraded.returncode == 0, upgraded.stderr
    assert "making .venv anew" in upgraded.stderr
    assert checkout.run("./db", "backups").stderr == ""


def test_two_first_commands_at_once_make_one_environment(checkout: Checkout) -> None:
    command = ["./db", "backups"]
    environment = {**checkout.project.environment(), **checkout.offline, "PYTHON3": sys.executable}
    both = [
        subprocess.Popen(
            command, cwd=checkout.folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=180)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "".join(said).count("making .venv") == 1


def test_restore_from_backup_without_a_package_index_says_in_one_sentence_what_is_missing(
    checkout: Checkout,
) -> None:
    nothing = {"PIP_FIND_LINKS": ""}
    silent = {
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }
    for changes, where in (
        (nothing, "the package index does not have them"),
        (silent, "no package index answers"),
    ):
        done = checkout.run("make", "restore-from-backup", **changes)
        said = [
            line
            for line in done.stderr.splitlines()
            if not re.match("making|installing|make:", line)
        ]
        assert done.returncode == 2
        what = "error: the packages of requirements-backup.txt are not installed, and "
        assert said[0] == what + where
        assert said[1].startswith(
            "       next: connect to the internet and try again, or, on a machine that"
        )
        assert len(said) == 2
    assert checkout.run("./db", "restore-from-backup", **nothing).returncode == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_folder_of_another_user_is_named_without_a_traceback(checkout: Checkout) -> None:
    checkout.folder.chmod(0o555)
    done = checkout.run("./db", "backups")
    checkout.folder.chmod(0o755)
    assert done.returncode == 1
    assert done.stderr.startswith("error: .venv cannot be made: [Errno 13] Permission denied: ")
    assert "next: free space, or give yourself the project's folder" in done.stderr


def make_path(folder: Path, **programs: str) -> str:
    """A PATH with the programs that every system has and no Python, and with small scripts by
    name."""
    folder.mkdir()
    for name in ("sh", "bash", "make", "sed", "awk", "cmp", "dirname", "readlink", "tr", "env"):
        (folder / name).symlink_to(shutil.which(name) or "")
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.fixture
def without_python() -> None:
    """set_up.sh also looks where Homebrew installs, and this machine may have a Python there."""
    if any(Path(folder, "python3").exists() for folder in ("/usr/local/bin", "/opt/homebrew/bin")):
        pytest.skip("a Python in a folder that is always searched")


@pytest.mark.usefixtures("without_python")
@pytest.mark.parametrize(
    ("programs", "message", "advice"),
    [
        ({"brew": ""}, "there is no Python 3.11 to 3.14 on PATH", "brew install python@3.13"),
        ({"dnf": ""}, "there is no Python 3.11 to 3.14 on PATH", "sudo dnf install python3.13"),
        (
            {"apt_get": "", "apt_cache": ""},
            "there is no Python",
            "sudo apt install python3.13 python3.13-venv",
        ),
        (
            {"apt_get": "", "apt_cache": "exit 100"},
            "there is no",
            "sudo apt install python3 python3-venv",
        ),
        (
            {},
            "there is no Python",
            "install Python 3.13 from python.org, or name one with PYTHON3=",
        ),
    ],
)
def test_no_python_that_fits_names_the_package(
    tmp_path: Path, checkout: Checkout, programs: dict[str, str], message: str, advice: str
) -> None:
    named = {name.replace("_", "-"): text for name, text in programs.items()}
    done = checkout.run(
        "make", "restore-from-backup", PATH=make_path(tmp_path / "bin", **named), PYTHON3=""
    )
    assert f"error: {message}" in done.stderr
    assert f"next: {advice}" in done.stderr


@pytest.mark.usefixtures("without_python")
def test_python_without_its_whole_library_names_what_it_lacks(
    tmp_path: Path, checkout: Checkout
) -> None:
    """Debian's python3 without python3-venv."""
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "ensurepip.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'ensurepip'\")\n"
    )
    python = f'PYTHONPATH={shlex.quote(str(lacking))} exec {shlex.quote(sys.executable)} "$@"'
    path = make_path(tmp_path / "bin", python3=python, **{"apt-get": "", "apt-cache": ""})
    done = checkout.run("./db", "backups", PATH=path, PYTHON3="")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (
        f"is Python {version} without its whole standard library: No module named 'ensurepip'"
        in done.stderr
    )
    assert f"next: sudo apt install python{version} python{version}-venv" in done.stderr
    assert done.returncode == 1


# ── ./db


def test_db_keeps_the_exit_codes_that_make_turns_into_two(tmp_path: Path) -> None:
    project = Project(tmp_path)

    def codes(*command: str) -> tuple[int, int]:
        environment = project.environment()
        calls = [["./db", *command], ["make", command[0], f"ARGS={' '.join(command[1:])}"]]
        done = [
            subprocess.run(call, cwd=PROJECT_DIR, env=environment, capture_output=True, check=False)
            for call in calls
        ]
        return done[0].returncode, done[1].returncode

    assert codes("backups") == (0, 0)
    assert codes("status") == (1, 2)
    assert codes("backup", "--nonsense") == (2, 2)
    assert codes("restore-russell2000") == (2, 2)
    assert codes("nonsense") == (2, 2)


def test_db_exits_with_three_when_something_is_missing_in_the_result(tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_platform_database(project.database, bars=2000)
    size = project.database.stat().st_size
    os.truncate(project.database, size // 2 // 4096 * 4096)
    done = subprocess.run(
        [PROJECT_DIR / "db", "salvage"],
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr


def test_db_called_by_a_link_from_another_folder_takes_names_of_files_from_there(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    (tmp_path / "db").symlink_to(PROJECT_DIR / "db")
    (tmp_path / "my copy.db").write_bytes(b"no database")
    done = subprocess.run(
        ["./db", "restore-from-backup", "my copy.db"],
        cwd=tmp_path,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "my copy.db cannot be read: file is not a database" in done.stderr


def test_make_refuses_a_variable_in_small_letters_that_nothing_would_read(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-C", PROJECT_DIR, "restore-from-backup", "backup=/x.db"],
        env=Project(tmp_path).environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "backup= is not read: write BACKUP=" in done.stderr) == (2, True)


def test_make_passes_a_name_with_blanks_and_quotes_as_it_is(tmp_path: Path) -> None:
    named = tmp_path / 'it\'s a $(copy) "of" mine.db'
    done = subprocess.run(
        ["make", "-C", PROJECT_DIR, "restore-from-backup"],
        env=Project(tmp_path).environment(BACKUP=str(named)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(named) in done.stderr
