"""Every command that status and doctor print, run in a container by a user who believes them:
outside of the project, the backups and the database's own files nothing changes.

A container is a whole machine whose every file can be listed before and after. It takes minutes.
"""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from commands import PROJECT_DIR

HOME = "/home/quant"
PROJECT = f"{HOME}/my projects/back test"
LIVE, BACKUPS = f"{HOME}/live", f"{HOME}/Backups"
IMAGE = """
FROM python:3.12-slim
RUN apt-get update -qq \\
    && export DEBIAN_FRONTEND=noninteractive \\
    && apt-get install -y -qq --no-install-recommends make git sudo \\
    && useradd --create-home --uid 4321 quant \\
    && echo 'quant ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/quant
USER quant
WORKDIR /home/quant
"""
MAKE_DATABASE = """
import sys; sys.path.insert(0, "scripts")
from contextlib import closing
from pathlib import Path
from backtestdb.database import connect
from backtestdb.schema import ensure_schema
for path in map(Path, sys.argv[1:]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        for number in range(30):
            connection.execute("INSERT INTO strategies (name, ticker, timeframe, config)"
                               f" VALUES ('s{number}', 'A', '1day', '{{}}')")
"""
# What befalls the user, as shell, after a backup was made.
SITUATIONS = {
    "nothing": ":",
    "opened backups": f"chmod 755 {BACKUPS}; chmod 644 {BACKUPS}/*.db",
    "backups of root": f"sudo chown -R root:root {BACKUPS}",
    "backups in the home": f"sed -i 's|^BACKUP_DIR=.*|BACKUP_DIR={HOME}|' .env; chmod 755 {HOME}",
    "backups in a folder of the system": "sed -i 's|^BACKUP_DIR=.*|BACKUP_DIR=/usr/local|' .env",
    "backups on an absent disk": "sed -i 's|^BACKUP_DIR=.*|BACKUP_DIR=/mnt/disk/b|' .env",
    "lost database": f"rm {LIVE}/backtesting.db",
    "damaged database": f"head -c 90000 /dev/urandom >{LIVE}/backtesting.db",
    "emptied database": f": >{LIVE}/backtesting.db",
    "lost rows": f"{PROJECT!r}/.venv/bin/python -c 'import sqlite3; "
    f'c = sqlite3.connect("{LIVE}/backtesting.db"); c.execute("DELETE FROM strategies"); c.commit()'
    "'",
    "link that leads nowhere": f"mv {LIVE}/backtesting.db {LIVE}/b; "
    f"ln -s /mnt/disk/b.db {LIVE}/backtesting.db",
    "damaged backup": f"for f in {BACKUPS}/*.db; do printf x >>$f; done",
    "failed drill": f"for f in {BACKUPS}/*.db; do echo reason >${{f%.db}}.failed-drill; done",
    "foreign file among the backups": f"cp {LIVE}/backtesting.db {BACKUPS}/mine.db",
    "wrong number": "echo MAX_BACKUPS=0 >>.env",
    "relative path": "sed -i 's|^DATABASE_PATH=.*|DATABASE_PATH=backtesting.db|' .env",
    "misspelt setting": "echo DATABSE_PATH=/x >>.env",
    "scripts that are not there": "echo GENERATED_SCRIPTS_DIR=/home/quant/none >>.env",
    "open .env": "chmod 644 .env",
}
# What a shell would run; everything else is a sentence for a person.
COMMAND = re.compile(r"^(make|\./db|sudo|chmod|chown|rm|mv|find|ln|cp|[A-Z_]+=\S+ make) ")
# Where changes belong: the project, the backups, the database and what is kept beside it.
OURS = re.compile(
    rf"({re.escape(PROJECT)}|{BACKUPS}|/proc|/sys|/dev|/tmp|{HOME}/\.(cache|local))(/.*)?"
    rf"|{LIVE}/backtesting\.db.*|{LIVE}|{HOME}/(backtesting-|irreplaceable-|drills|\.lock|backup).*"
    rf"|{HOME}/\.ai-backtest-backups"
)

pytestmark = [pytest.mark.long, pytest.mark.engine, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def template() -> Iterator[str]:
    """An image of a user who has set up the project, with neighbours, and has made a backup."""
    name = f"advice-{uuid.uuid4().hex[:8]}"
    build = ["docker", "build", "--quiet", "--tag", name, "-"]
    if subprocess.run(build, input=IMAGE, text=True, capture_output=True, check=False).returncode:
        pytest.skip("needs a container engine that reaches Debian's packages")
    subprocess.run(["docker", "run", "--detach", "--name", name, name, "sleep", "3000"], check=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=PROJECT_DIR, capture_output=True, check=True).stdout
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from", "-"],
        cwd=PROJECT_DIR,
        input=files,
        capture_output=True,
        check=True,
    ).stdout
    run(name, f"mkdir -p {PROJECT!r} && tar --extract --directory {PROJECT!r} --file -", packed)
    run_in_project(
        name,
        f"printf 'DATABASE_PATH={LIVE}/backtesting.db\\nBACKUP_DIR={BACKUPS}\\n' >.env && "
        f"chmod 600 .env && ./db setup market && .venv/bin/python - {LIVE}/backtesting.db "
        f"'{HOME}/other checkout/backtesting.db' && mkdir {HOME}/letters && "
        f"echo mine >{HOME}/letters/a.txt && chmod -R go+rX {HOME}/letters && make backup",
        MAKE_DATABASE.encode(),
    )
    subprocess.run(["docker", "commit", name, f"{name}-ready"], check=True, capture_output=True)
    yield f"{name}-ready"
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
    images = ["docker", "rmi", f"{name}-ready", name]
    subprocess.run(images, check=False, capture_output=True)


@pytest.fixture
def container(template: str) -> Iterator[str]:
    name = f"advice-{uuid.uuid4().hex[:8]}"
    start = ["docker", "run", "--detach", "--network", "none", "--name", name, template]
    subprocess.run([*start, "sleep", "3000"], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def run(
    container: str, script: str, given: bytes = b"", *, expect: int | None = 0, user: str = "quant"
) -> str:
    command = ["docker", "exec", "--interactive", "--user", user, container, "sh", "-c", script]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    assert expect is None or done.returncode == expect, f"{script}\n{out}\n{err}"
    return out


def run_in_project(
    container: str, script: str, given: bytes = b"", *, expect: int | None = 0
) -> str:
    return run(container, f"cd {PROJECT!r} && {{ {script}\n}}", given, expect=expect)


def list_everything(container: str) -> dict[str, str]:
    """Path -> mode, owner, size and time of change, of every file of the machine."""
    script = (
        r"find / -xdev \( -path /proc -o -path /sys \) -prune -o -printf '%p\t%M %U %s %T@ %l\n'"
    )
    lines = run(container, script, user="root", expect=None).splitlines()
    found = dict(line.partition("\t")[::2] for line in lines)
    # The time of a folder changes with what is made and removed in it, which is listed itself.
    return {
        path: re.sub(r" \d+ [\d.]+ $", "", facts) if facts.startswith("d") else facts
        for path, facts in found.items()
    }


def ask(container: str, command: str) -> list[str]:
    """The commands that status or doctor prints as the next step."""
    out = run_in_project(container, f"./db {command} --json 2>/dev/null", expect=None)
    try:
        values = json.loads(out)
    except ValueError:
        out = run_in_project(container, f"./db {command} 2>&1", expect=None)
        return re.findall(r"next: (.*)", out)
    problems = values if isinstance(values, list) else values["problems"]
    return [one["next_step"] for one in problems if one["level"] != "ok"]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_printed_command_changes_only_what_is_the_projects(
    container: str, situation: str
) -> None:
    run_in_project(container, SITUATIONS[situation])
    steps = [*ask(container, "status"), *ask(container, "doctor")]
    commands = [step.split("; or")[0] for step in dict.fromkeys(steps) if COMMAND.match(step)]

    before = list_everything(container)
    for command in commands:
        run_in_project(container, f"{command} </dev/null", expect=None)
    after = list_everything(container)

    print(f"{situation}: {commands}")
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not sorted(path for path in changed if not OURS.fullmatch(path)), commands
    assert run(container, f"cat {HOME}/letters/a.txt") == "mine\n"
