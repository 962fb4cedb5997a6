"""The sidecar in a real engine. Skipped by name where none answers; .ci/run starts one where it
can."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.config import PROJECT_DIR
from backtestdb.files import exclusive_lock
from backtestdb.scheduling.compose_command import MAIN_FILE, NO_NEW_FOLDERS_FILE
from backup_tools import leftovers, make_platform_database, read_all, verify_every_listed
from container_engine import docker, engine_answers
from waiting import wait_until
from writers import add_counters, read_counters

IDLE_SECONDS, BUSY_SECONDS = 2.0, 8.0
KINDS = {"full", "irreplaceable"}
IMAGE = "ai-backtest-backup"
# Nobody's number; only root may give files away, so others test with their own.
OWNER = 12345 if os.getuid() == 0 else os.getuid()
GROUP = 12345 if os.getuid() == 0 else os.getgid()


pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not engine_answers(), reason="no container engine answers, or docker has no compose"
    ),
]


class Sidecar:
    """A compose project of its own, with a database folder and a backup folder on the host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "data & base" / "backtesting.db"
        self.backup_dir = folder / "back ups"
        self.override = folder / "override.yml"
        self.project = f"sidecar-{uuid.uuid4().hex[:8]}"
        for path in (self.database.parent, self.backup_dir):
            path.mkdir()
            os.chown(path, OWNER, GROUP)
        (folder / "test.env").touch()

    def environment(self) -> dict[str, str]:
        files = [
            PROJECT_DIR / MAIN_FILE,
            PROJECT_DIR / NO_NEW_FOLDERS_FILE,
            *([self.override] if self.override.exists() else []),
        ]
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "BACKTEST_ENV_FILE": str(self.folder / "test.env"),
            "COMPOSE_ENV_FILES": str(self.folder / "test.env"),
            "COMPOSE_FILE": ":".join(map(str, files)),
            "COMPOSE_PROJECT_NAME": self.project,
            "DATABASE_PATH": str(self.database),
            "BACKUP_DIR": str(self.backup_dir),
            "GENERATED_SCRIPTS_DIR": str(self.database.parent / "claude-generated-scripts"),
            "SIDECAR_USER": f"{OWNER}:{GROUP}",
            "SIDECAR_TZ": "Asia/Kolkata",
        }

    def compose(self, *arguments: str, code: int = 0) -> str:
        return self.script("run_compose.py", *arguments, code=code)

    def script(self, name: str, *arguments: str, code: int = 0, **changes: str) -> str:
        """One of the project's commands on the host."""
        done = subprocess.run(
            [sys.executable, PROJECT_DIR / "scripts" / name, *arguments],
            env=self.environment() | changes,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout + (done.stderr if code else "")

    def back_up(self, *options: str, code: int = 0) -> str:
        """By hand, as the guide says."""
        return self.compose(
            "run", "--rm", "--no-TTY", "backup", "scripts/backup_database.py", *options, code=code
        )

    @property
    def container(self) -> str:
        return f"{self.project}-backup-1"

    def inspect(self, template: str) -> str:
        return docker("inspect", "-f", template, self.container).strip()

    def up(self) -> None:
        self.compose("up", "--detach", "--wait")

    def make_database(self, journal: str = "WAL", filler_megabytes: int = 0) -> None:
        make_platform_database(self.database, journal=journal)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE filler (bytes BLOB)")
            for _ in range(filler_megabytes):
                connection.execute("INSERT INTO filler VALUES (randomblob(1 << 20))")
            connection.commit()
        os.chown(self.database, OWNER, GROUP)

    def override_with(self, values: dict[str, Any]) -> None:
        """JSON is YAML."""
        self.override.write_text(json.dumps(values))

    def down(self) -> None:
        self.compose("down", "--timeout", "1", "--volumes")


@pytest.fixture(scope="session")
def image() -> str:
    """Built once; test processes that run side by side wait for each other, those of another user
    do not."""
    lock = Path(tempfile.gettempdir()) / f"ai-backtest-image-{os.getuid()}.lock"
    with exclusive_lock(lock, "building the image", wait_seconds=170):
        docker("build", "--quiet", "--tag", IMAGE, PROJECT_DIR)
    return IMAGE


@pytest.fixture
def sidecar(tmp_path: Path, image: str) -> Iterator[Sidecar]:
    assert image
    made = Sidecar(tmp_path)
    try:
        yield made
    finally:
        made.down()


def kinds(sidecar: Sidecar) -> set[str]:
    return {backup.kind for backup in load_catalogue(sidecar.backup_dir) if backup.is_verified}


def seconds_to_end(sidecar: Sidecar, name: str) -> float:
    started = time.monotonic()
    docker("kill", "--signal", name, sidecar.container)
    assert docker("wait", sidecar.container).strip() == "0"
    return time.monotonic() - started


def test_image_built_from_scratch_holds_no_secret_no_database_and_no_pandas(tmp_path: Path) -> None:
    context, tag = tmp_path / "project", f"sidecar-test-{uuid.uuid4().hex[:8]}"
    context.mkdir()
    for name in ("Dockerfile", ".dockerignore", "locks", "scripts", "sql"):
        (shutil.copytree if (PROJECT_DIR / name).is_dir() else shutil.copy)(
            PROJECT_DIR / name, context / name
        )
    secret = f"secret-{uuid.uuid4().hex}"
    for name in (
        ".env",
        "scripts/.env",
        "scripts/.env.local",
        "backtesting.db",
        "sql/x.db",
        "sql/x.db-wal",
        "key",
    ):
        (context / name).write_text(secret)
    (context / "scripts" / "run_scheduler.py").chmod(0o600)
    try:
        docker("build", "--quiet", "--no-cache", "--tag", tag, context)
        code = (
            "import importlib.util as u, os, subprocess as s\n"
            "print([n for n in ('pandas', 'numpy', 'exchange_calendars', 'pytest') if "
            "u.find_spec(n)], os.getuid())\n"
            "print(sorted(os.listdir('/app')))\n"
            f"print(s.run(['grep', '-rl', '{secret}', '/app', '/tmp', '/home'], "
            "capture_output=True).stdout)\n"
            "print([f for _, _, fs in os.walk('/app') for f in fs if '.db' in f or '.env' in f])\n"
        )
        out = docker("run", "--rm", tag, "-c", code).splitlines()
        assert out == ["[] 1000", "['locks', 'scripts', 'sql']", "b''", "[]"]
        assert "usage" in docker(
            "run", "--rm", "--user", "4321", tag, "scripts/run_scheduler.py", "--help"
        )
        assert secret not in docker("history", "--no-trunc", tag)
        assert docker("inspect", "-f", "{{json .Config.Entrypoint}}", tag).strip() == '["python"]'
    finally:
        docker("rmi", "--force", tag, check=False)


def test_sidecar_up_makes_backups_that_the_host_lists_and_restores(
    sidecar: Sidecar, tmp_path: Path
) -> None:
    sidecar.make_database()
    (sidecar.database.parent / "claude-generated-scripts").mkdir()
    (sidecar.database.parent / "claude-generated-scripts" / "one.py").write_text("print(1)\n")
    sidecar.compose("up", "--detach", "--build", "--wait")
    assert sidecar.inspect("{{.State.Health.Status}}") == "healthy"
    wait_until(lambda: kinds(sidecar) == KINDS)  # the full one comes first
    listed = json.loads(sidecar.script("backup_database.py", "--list", "--json"))
    assert sorted((entry["kind"], entry["verified"]) for entry in listed) == [
        ("full", True),
        ("irreplaceable", True),
    ]
    assert [entry["generated_scripts"] for entry in listed if entry["kind"] == "full"] == [1]
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in sidecar.backup_dir.rglob("*")}
    assert owners == {(OWNER, GROUP)}
    other = tmp_path / "other" / "backtesting.db"
    # In another place it would be another database, so the backup is named.
    (full,) = [entry["path"] for entry in listed if entry["kind"] == "full"]
    sidecar.script("restore_database.py", "--from-backup", full, "--yes", DATABASE_PATH=str(other))
    assert read_all(other) == read_all(sidecar.database)
    printed = sidecar.back_up("--list", "--json")  # compose says first which volumes it made
    assert json.loads(printed[printed.index("[\n") :])[0]["verified"]
    assert "+05:30" in docker("exec", sidecar.container, "python", "-c", LOCAL_TIME)
    check_confinement(sidecar)
    assert seconds_to_end(sidecar, "TERM") < IDLE_SECONDS
    assert leftovers(sidecar.backup_dir) == []


LOCAL_TIME = "import datetime as d; print(d.datetime.now().astimezone().isoformat())"


def check_confinement(sidecar: Sidecar) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in docker(
            "exec", sidecar.container, "python", "-c", "print(open('/proc/1/status').read())"
        )
        .strip()
        .splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == [str(OWNER)] * 4
    refused = docker("exec", sidecar.container, "python", "-c", "open('/app/x', 'w')", check=False)
    assert "Read-only file system" in refused
    assert sidecar.inspect("{{.HostConfig.RestartPolicy.Name}}") == "unless-stopped"


@pytest.mark.root
@pytest.mark.skipif(
    os.getuid() != 0, reason="only root may stop a process inside the container from here"
)
def test_sidecar_told_to_end_mid_backup_ends_in_time_and_leaves_nothing(sidecar: Sidecar) -> None:
    sidecar.make_database(filler_megabytes=150)
    sidecar.compose("up", "--detach")
    scheduler = int(sidecar.inspect("{{.State.Pid}}"))
    wait_until(lambda: any(sidecar.backup_dir.glob("*.partial")))
    child = int(Path(f"/proc/{scheduler}/task/{scheduler}/children").read_text())
    os.kill(child, signal.SIGSTOP)
    assert any(sidecar.backup_dir.glob("*.partial"))
    assert seconds_to_end(sidecar, "TERM") < BUSY_SECONDS
    assert "full backup interrupted" in docker("logs", sidecar.container)
    assert leftovers(sidecar.backup_dir) == []
    assert not list(sidecar.backup_dir.glob("backtesting-*"))


@pytest.mark.root
@pytest.mark.skipif(
    os.getuid() != 0, reason="only root may kill a process inside the container from here"
)
def test_killed_sidecar_restarts_and_catches_up(sidecar: Sidecar) -> None:
    sidecar.make_database(filler_megabytes=60)
    sidecar.compose("up", "--detach")
    scheduler = int(sidecar.inspect("{{.State.Pid}}"))
    wait_until(lambda: any(sidecar.backup_dir.glob("*.partial")))
    os.kill(scheduler, signal.SIGKILL)
    wait_until(lambda: int(sidecar.inspect("{{.RestartCount}}")) == 1)
    wait_until(lambda: kinds(sidecar) == KINDS)
    verify_every_listed(sidecar.backup_dir)
    assert leftovers(sidecar.backup_dir) == []
    assert sidecar.inspect("{{.State.Running}}") == "true"


def read_only_database(sidecar: Sidecar) -> dict[str, Any]:
    folder = str(sidecar.database.parent)
    volume = {"type": "bind", "source": folder, "target": folder, "read_only": True}
    return {"services": {"backup": {"volumes": [volume]}}}


@pytest.mark.parametrize("journal", ["DELETE", "WAL", "WAL left by a killed writer"])
def test_database_mounted_read_only_is_backed_up(sidecar: Sidecar, journal: str) -> None:
    sidecar.make_database(journal.removesuffix(" left by a killed writer"))
    if "killed" in journal:
        code = (
            "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE "
            "TABLE hot AS SELECT 1')"
        )
        subprocess.run(
            [sys.executable, "-c", f"{code}; c.commit(); os._exit(0)", sidecar.database], check=True
        )
        assert Path(f"{sidecar.database}-wal").stat().st_size
        Path(f"{sidecar.database}-shm").unlink()
        os.chown(f"{sidecar.database}-wal", OWNER, GROUP)
    sidecar.override_with(read_only_database(sidecar))
    sidecar.back_up()
    (backup,) = verify_every_listed(sidecar.backup_dir)
    tables = read_all(backup.path)
    assert ("hot" in tables) is ("killed" in journal)
    assert tables == read_all(sidecar.database)
    assert leftovers(sidecar.backup_dir) == []


def test_wal_database_with_a_writer_in_another_container_on_a_named_volume(
    sidecar: Sidecar,
) -> None:
    """Also without the writer: the last backup is made after it has been killed."""
    volume, writer = f"{sidecar.project}-data", f"{sidecar.project}-writer"
    folder = str(sidecar.database.parent)
    sidecar.make_database()
    add_counters(sidecar.database)
    mounts = (
        "--volume",
        f"{volume}:{folder}",
        "--volume",
        f"{PROJECT_DIR / 'tests' / 'support'}:/tests:ro",
    )
    try:
        docker("volume", "create", volume)
        copying = f'cp /from/backtesting.db "{folder}/" && chown -R {OWNER}:{GROUP} "{folder}"'
        docker("run", "--rm", "--user", "0", *mounts, "--volume", f"{folder}:/from:ro",
               "--entrypoint", "sh", IMAGE, "-c", copying)  # fmt: skip
        docker("run", "--detach", "--name", writer, "--user", OWNER, *mounts, IMAGE,
               "-u", "/tests/writers.py", sidecar.database, "0.005")  # fmt: skip
        wait_until(lambda: "writing" in docker("logs", writer))
        data = {"type": "volume", "source": "data", "target": folder}
        sidecar.override_with(
            {
                "services": {"backup": {"volumes": [data]}},
                "volumes": {"data": {"external": True, "name": volume}},
            }
        )
        for _ in range(3):
            sidecar.back_up()
        assert docker("inspect", "-f", "{{.State.Running}}", writer).strip() == "true", docker(
            "logs", writer
        )
        docker("rm", "--force", writer)
        sidecar.back_up()
        backups = verify_every_listed(sidecar.backup_dir)
        counters = [read_counters(backup.path) for backup in backups]
        assert len(counters) == 4
        assert all(one == two for one, two in counters)
        assert sorted(counters, reverse=True) == counters
        assert len(set(counters[1:])) == 3
    finally:
        docker("rm", "--force", writer, check=False)
        with suppress(AssertionError):
            sidecar.down()
        docker("volume", "rm", "--force", volume, check=False)


def test_engine_shows_unhealthy_when_backups_go_stale(sidecar: Sidecar) -> None:
    sidecar.make_database()
    sidecar.up()
    check = [
        "CMD",
        "python",
        "scripts/run_scheduler.py",
        "--health",
        "--now",
        "2099-01-01T00:00:00+00:00",
    ]
    health = {"test": check, "interval": "1s", "start_period": "0s", "retries": 2}
    sidecar.override_with({"services": {"backup": {"healthcheck": health}}})
    sidecar.compose("up", "--detach")
    wait_until(lambda: sidecar.inspect("{{.State.Health.Status}}") == "unhealthy")
    said = sidecar.inspect("{{range .State.Health.Log}}{{.Output}}{{end}}")
    assert "h old, more than 26" in said
    assert sidecar.inspect("{{.State.Running}}") == "true"


def test_restore_by_hand_in_a_container(sidecar: Sidecar) -> None:
    sidecar.make_database()
    sidecar.back_up()
    before = read_all(sidecar.database)
    with closing(sqlite3.connect(sidecar.database)) as connection:
        connection.execute("DELETE FROM strategies")
        connection.commit()
    assert "yes" in sidecar.back_up("--verify")
    restore = ("scripts/restore_database.py", "--from-backup", "--yes")
    sidecar.compose("run", "--rm", "--no-TTY", "backup", *restore)
    assert read_all(sidecar.database) == before
    assert sidecar.database.stat().st_uid == OWNER


def test_missing_database_folder_is_refused_before_the_engine_makes_one(sidecar: Sidecar) -> None:
    sidecar.database.parent.rmdir()
    assert "is missing" in sidecar.compose("up", "--detach", code=1)
    assert not sidecar.database.parent.exists()
    sidecar.database.parent.mkdir()


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The place of a disk, not yet mounted, on a host whose mounts reach containers as systemd's
    do; beside it, under `kept`, the disk itself."""
    host, kept = tmp_path / "host", tmp_path / "kept"
    (host / "disk").mkdir(parents=True)
    kept.mkdir()
    mount("--bind", host, host)
    mount("--make-rshared", host)
    mount("-t", "tmpfs", "-o", "size=64m", "none", kept)
    (kept / "back ups").mkdir()
    os.chown(kept / "back ups", OWNER, GROUP)
    try:
        yield host / "disk"
    finally:
        for place in (host / "disk", host, kept):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


@pytest.mark.long  # the loop looks once a minute
@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_boot_with_the_backup_disk_absent_then_present(sidecar: Sidecar, disk: Path) -> None:
    kept = disk.parent.parent / "kept"
    mount("--bind", kept, disk)
    sidecar.backup_dir = disk / "back ups"
    sidecar.make_database()
    sidecar.up()
    wait_until(lambda: kinds(sidecar) == KINDS)

    docker("stop", sidecar.container)
    subprocess.run(["umount", disk], check=True)
    started = time.time()
    docker("start", sidecar.container)

    def logs() -> str:
        return docker("logs", "--since", str(int(started)), sidecar.container)

    wait_until(lambda: "is not there: its mark" in logs())
    health = ("exec", sidecar.container, "python", "scripts/run_scheduler.py", "--health")
    assert "the disk of BACKUP_DIR" in docker(*health, check=False)
    assert list(disk.iterdir()) == []
    found = json.loads(sidecar.script("show_status.py", "--json", code=1).partition("\n2")[0])
    assert "no_backup_disk" in {problem["name"] for problem in found["problems"]}
    assert (found["schedule"]["kind"], found["schedule"]["loaded"]) == ("container", False)
    assert found["schedule"]["last_result"].startswith("Up ")

    mount("--bind", kept, disk)
    wait_until(lambda: "scheduler started" in logs(), timeout_seconds=240)
    wait_until(lambda: "all" not in docker(*health, check=False) and "h ago" in docker(*health))
    assert sidecar.inspect("{{.State.Running}} {{.RestartCount}}") == "true 0"
    wait_until(lambda: kinds(sidecar) == KINDS)


def test_sidecar_without_a_database_is_refused_at_once(sidecar: Sidecar) -> None:
    said = sidecar.compose("up", "--detach", "--wait", code=1)
    assert "error: there is no database at" in said
    assert "next: make restore, or make restore-from-backup, then make sidecar-up" in said
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={sidecar.container}").strip()


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root calls it under sudo")
def test_sidecar_under_sudo_belongs_to_the_owner_of_the_database(sidecar: Sidecar) -> None:
    """Root without capabilities may not write what is another user's."""
    sidecar.make_database()
    sidecar.backup_dir.rmdir()
    sidecar.backup_dir = sidecar.folder / "not there yet" / "backups"
    environment = {"SIDECAR_USER": "", "SUDO_UID": str(OWNER), "SUDO_GID": str(GROUP)}
    sidecar.script("run_compose.py", "up", "--detach", "--wait", **environment)
    assert sidecar.inspect("{{.Config.User}}") == f"{OWNER}:{GROUP}"
    wait_until(lambda: kinds(sidecar) == KINDS)
    made = (sidecar.backup_dir.parent, *sidecar.backup_dir.iterdir())
    assert {path.stat().st_uid for path in made} == {OWNER}


def test_sidecar_that_does_not_become_healthy_says_why(sidecar: Sidecar) -> None:
    sidecar.make_database()
    sidecar.database.write_bytes(b"no database at all")
    check = {"interval": "1s", "start_period": "2s", "retries": 1}
    sidecar.override_with({"services": {"backup": {"healthcheck": check}}})
    said = sidecar.compose("up", "--detach", "--wait", code=1)
    assert f"{sidecar.container}: health: there is no verified full backup" in said
    assert "full backup failed (exit code 1)" in said


def test_compose_by_hand_means_the_container_of_make(sidecar: Sidecar) -> None:
    """By what sidecar-up wrote into `.env`; a changed setting would make the container anew."""
    sidecar.make_database()
    both = ("PATH", "HOME", "COMPOSE_ENV_FILES", "COMPOSE_PROJECT_NAME")
    environment = sidecar.environment()
    written = {name: environment[name] for name in environment.keys() - {*both, "COMPOSE_FILE"}}
    env_file = Path(written.pop("BACKTEST_ENV_FILE"))
    env_file.write_text("".join(f"{name}='{value}'\n" for name, value in written.items()))
    up = ("up", "--detach", "--wait")
    done = subprocess.run(
        [sys.executable, PROJECT_DIR / "scripts" / "run_compose.py", *up],
        env={name: environment[name] for name in both if name in environment}
        | {"BACKTEST_ENV_FILE": str(env_file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"COMPOSE_FILE='{MAIN_FILE}:{NO_NEW_FOLDERS_FILE}" in env_file.read_text()
    before = sidecar.inspect("{{.Id}}")
    wait_until(lambda: kinds(sidecar) == KINDS)

    subprocess.run(
        ["docker", "compose", "--project-directory", PROJECT_DIR, *up],
        env={name: environment[name] for name in both if name in environment},
        cwd=PROJECT_DIR,
        check=True,
        capture_output=True,
    )
    assert sidecar.inspect("{{.Id}}") == before
