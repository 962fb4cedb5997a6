"""A machine that dies at any moment: what was committed a while before is elsewhere, to the last
row."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backtestdb.backups.content_hash import hash_table
from backtestdb.config import PROJECT_DIR
from backup_tools import environment_of, make_platform_database
from container_engine import engine_answers
from diary_writer import SCHEMA, insert
from offsite_tools import EVERY_SECONDS, PASSPHRASE, Site, make_site, start_watch
from s3_server import S3Server
from waiting import wait_until

PROMISED_SECONDS = 4.0 + 2 * EVERY_SECONDS
WRITER = Path(__file__).parents[1] / "support" / "diary_writer.py"


def start_writer(site: Site) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(site.settings.database_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def live_and_die(site: Site, seconds: float) -> tuple[list[tuple[int, float]], float]:
    """Let the machine run that long after its first copy, then kill everything at once; return the
    commits as (n, when) and when the machine died."""
    writer, watch = start_writer(site), start_watch(site)
    try:
        wait_until(lambda: len(site.copies()) > 0, 120, "the first copy")
        time.sleep(seconds)  # the moment of death is what this test is about
    finally:
        for process in (watch, writer):
            os.killpg(process.pid, signal.SIGKILL)
        died_at = time.time()
        lines = writer.communicate()[0].splitlines()
        watch.wait()
    commits = [
        (int(n), float(at)) for n, at in (line.split() for line in lines if line.count(" ") == 1)
    ]
    return commits, died_at


def newest_copy(site: Site) -> float:
    """When it was taken; by then it holds every commit that had ended."""
    return max(name.taken_at_utc for name in site.copies()).timestamp()


def verify_diary(
    database: Path, commits: list[tuple[int, float]], promised_until: float, died_at: float
) -> float:
    """Every commit that ended before `promised_until` is back, in order, without a gap, with the
    very content; return how many seconds were lost."""
    with closing(sqlite3.connect(database)) as connection:
        last = connection.execute("SELECT max(n) FROM diary").fetchone()[0]
        found = hash_table(connection, "diary")[0]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(SCHEMA)
        for n in range(1, last + 1):
            insert(connection, n)
        assert hash_table(connection, "diary")[0] == found
    old = [n for n, at in commits if at < promised_until]
    assert last >= max(old, default=0), f"{max(old) - last} commits are lost"
    return died_at - next((at for n, at in commits if n == last), died_at)


def die_and_return(
    folder: Path,
    s3: S3Server,
    seed: int,
    capsys: pytest.CaptureFixture[str],
    promised_seconds: float | None = None,
) -> float:
    """Without `promised_seconds` what the newest copy holds has to be back: a busy machine may take
    longer to make one."""
    chance = random.Random(seed)
    site = make_site(folder, s3.target(f"dying-{seed}-{random.getrandbits(32):x}"))
    make_platform_database(site.settings.database_path, journal=chance.choice(["WAL", "DELETE"]))
    site.settings.backup_dir.mkdir(parents=True)
    site.init()
    if seed % 2:
        site.back_up()
    commits, died_at = live_and_die(site, chance.uniform(1, 4 * PROMISED_SECONDS / 2))
    until = newest_copy(site) if promised_seconds is None else died_at - promised_seconds
    site.wipe()
    assert site.restore(capsys)[0] == 0
    return verify_diary(site.settings.database_path, commits, until, died_at)


@pytest.mark.parametrize("seed", [1])
def test_a_machine_that_dies_has_its_commits_elsewhere(
    seed: int, tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    die_and_return(tmp_path, s3, seed, capsys)


@pytest.mark.long
@pytest.mark.parametrize("decade", range(10))
def test_a_hundred_machines_die_and_none_loses_more_than_promised(
    decade: int, tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [
        die_and_return(tmp_path / str(n), s3, 10 * decade + n, capsys, PROMISED_SECONDS)
        for n in range(10)
    ]
    with capsys.disabled():
        print(f"\nseconds lost: {', '.join(f'{seconds:.1f}' for seconds in sorted(lost))}")


@contextmanager
def running_sidecar(site: Site, project: str) -> Iterator[str]:
    """The name of its container."""
    environment = environment_of(site.settings) | {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **{"COMPOSE_ENV_FILES": os.devnull, "COMPOSE_PROJECT_NAME": project},
        **{"COMPOSE_FILE": str(PROJECT_DIR / "docker-compose.yml")},
        **{"OFFSITE": site.settings.offsite, "OFFSITE_PASSPHRASE": PASSPHRASE},
        "OFFSITE_EVERY_SECONDS": str(EVERY_SECONDS),
    }

    def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROJECT_DIR / "scripts" / "run_compose.py"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    try:
        up = compose("up", "--detach", "--wait")
        assert up.returncode == 0, up.stdout + up.stderr + compose("logs").stdout
        yield f"{project}-offsite-1"
    finally:
        down = compose("down", "--timeout", "1")
        assert down.returncode == 0, down.stderr


@pytest.mark.long  # the first build of its image installs packages
@pytest.mark.engine
@pytest.mark.skipif(
    not engine_answers(), reason="no container engine answers, or docker has no compose"
)
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_sidecar_that_dies_has_the_commits_elsewhere_and_shows_no_secret(
    journal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path)
    make_platform_database(site.settings.database_path, journal=journal)
    site.settings.backup_dir.mkdir(parents=True)
    site.init()
    writer = None
    try:
        with running_sidecar(site, f"offsite-{uuid.uuid4().hex[:8]}") as container:
            shown = subprocess.run(
                ["docker", "inspect", container], capture_output=True, text=True, check=True
            ).stdout
            assert json.loads(shown)
            assert PASSPHRASE not in shown

            writer = start_writer(site)
            before = len(site.copies())
            wait_until(lambda: len(site.copies()) > before + 1, 120, "copies of the diary")
            subprocess.run(["docker", "kill", container], capture_output=True, check=True)
            os.killpg(writer.pid, signal.SIGKILL)
            died_at = time.time()
            lines = writer.communicate()[0].splitlines()
    finally:
        if writer and writer.poll() is None:
            os.killpg(writer.pid, signal.SIGKILL)
            writer.wait()
    commits = [
        (int(n), float(at)) for n, at in (line.split() for line in lines if line.count(" ") == 1)
    ]
    until = newest_copy(site)
    site.wipe()
    assert site.restore(capsys)[0] == 0
    lost = verify_diary(site.settings.database_path, commits, until, died_at)
    with capsys.disabled():
        print(f"\nseconds lost: {lost:.1f}")
