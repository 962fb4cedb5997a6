"""The host's schedule under a real systemd: a container that boots one, with a user's session."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from commands import copy_project
from container_engine import docker, engine_answers
from waiting import wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.engine,
    pytest.mark.skipif(
        not engine_answers(with_compose=False), reason="no container engine answers"
    ),
]
DOCKERFILE = """
FROM python:3.12-slim
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends \
    systemd systemd-sysv dbus dbus-user-session libpam-systemd make >/dev/null
RUN useradd --create-home --shell /bin/bash --uid 1000 quant
COPY --chown=quant project /home/quant/one
RUN su quant -c "/home/quant/one/db setup backup"
RUN su quant -c "cp -a /home/quant/one /home/quant/two"
"""
MAKE_DATABASE = """
import sqlite3
connection = sqlite3.connect("backtesting.db")
connection.execute("CREATE TABLE strategies (id INTEGER PRIMARY KEY, code TEXT)")
connection.execute("INSERT INTO strategies VALUES (1, 'x')")
connection.commit()
"""
PROJECT, BACKUPS = "/home/quant/one", "/home/quant/Backups/ai-backtest"
TIMER = "ai-backtest-backup.timer"


@dataclass
class Host:
    """A machine with systemd as its first process."""

    name: str

    def root(self, *command: str) -> str:
        return docker("exec", self.name, *command)

    def run(
        self, command: str, folder: str = PROJECT, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """In the user's session."""
        session = ("-u", "quant", "-w", folder, "-e", "XDG_RUNTIME_DIR=/run/user/1000")
        done = subprocess.run(
            [
                "docker",
                "exec",
                *session,
                "-e",
                "HOME=/home/quant",
                self.name,
                "bash",
                "-c",
                command,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert code is None or done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done

    def problems(self, folder: str = PROJECT) -> dict[str, str]:
        done = self.run(".venv/bin/python scripts/show_status.py --json", folder, code=None)
        return {one["name"]: one["next_step"] for one in json.loads(done.stdout)["problems"]}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    context = tmp_path_factory.mktemp("systemd")
    copy_project(context / "project")
    (context / "Dockerfile").write_text(DOCKERFILE)
    mark = uuid.uuid4().hex[:8]
    tag, name = f"systemd-{mark}", f"systemd-{mark}"
    build = ["docker", "build", "--quiet", "--network", "host", "--tag", tag, str(context)]
    built = subprocess.run(build, capture_output=True, text=True, check=False, timeout=900)
    if built.returncode:
        pytest.skip(f"Debian's packages cannot be had here: {built.stderr[-200:]}")
    try:
        docker("run", "--detach", "--name", name, "--privileged", "--cgroupns=host",
               "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw",
               "--tmpfs", "/run", "--tmpfs", "/run/lock", tag, "/lib/systemd/systemd")  # fmt: skip
        made = Host(name)
        state = ("exec", name, "systemctl", "is-system-running")
        wait_until(lambda: docker(*state, check=False).startswith("running"))
        yield made
    finally:
        docker("rm", "--force", name, check=False)
        docker("rmi", "--force", tag, check=False)


def count_backups(host: Host, folder: str = PROJECT) -> int:
    listed = host.run(".venv/bin/python scripts/backup_database.py --list --json", folder).stdout
    return sum(one["verified"] for one in json.loads(listed))


def test_schedule_lives_in_a_real_systemd_from_its_installation_to_its_end(host: Host) -> None:
    no_session = host.run("./db schedule-install", code=1)
    assert "systemd runs here, and no session of user quant answers" in no_session.stderr

    # A login: the user's manager runs, and ends with the last session.
    docker("exec", "--detach", host.name, "su", "--login", "quant", "-c", "sleep 3000")
    wait_until(lambda: host.run("systemctl --user show-environment", code=None).returncode == 0)
    host.run(f"cat >make.py <<'EOF'\n{MAKE_DATABASE}\nEOF\npython3 make.py")
    installed = host.run("./db schedule-install").stdout
    assert f"/{TIMER}: at once when it is due" in installed
    assert "it runs only while you are logged in" in installed
    wait_until(lambda: count_backups(host) == 2)
    assert "loaded: " + TIMER in host.run("./db schedule-status").stdout
    assert host.problems()["only_while_logged_in"] == "loginctl enable-linger"

    host.root("loginctl", "enable-linger", "quant")
    assert "only_while_logged_in" not in host.problems()

    fires_by_its_timer(host)
    failure_is_told_and_mended(host)
    interpreter_that_went_away_is_made_anew(host)
    starter_that_went_away_leads_to_the_installation(host)
    second_checkout_has_units_of_its_own(host)

    host.run("./db schedule-uninstall")
    assert "ai-backtest" not in host.run("systemctl --user list-unit-files").stdout
    assert "not installed" in host.run("./db schedule-status", code=1).stderr


def fires_by_its_timer(host: Host) -> None:
    """At other times than its own, which are up to an hour away."""
    folder = f"/home/quant/.config/systemd/user/{TIMER}.d"
    host.run(f"mkdir -p {folder} && printf '[Timer]\\nOnCalendar=*:*:0/5\\n' >{folder}/soon.conf")
    host.run("rm ~/Backups/ai-backtest/irreplaceable-*")
    host.run(f"systemctl --user daemon-reload && systemctl --user restart {TIMER}")
    wait_until(lambda: count_backups(host) == 2)
    host.run(
        f"rm -r {folder} && systemctl --user daemon-reload && systemctl --user restart {TIMER}"
    )


def failure_is_told_and_mended(host: Host) -> None:
    host.run("mv backtesting.db away.db && rm ~/Backups/ai-backtest/irreplaceable-*")
    host.run("scripts/install_scheduled_backup.sh run", code=None)
    status = host.run("./db schedule-status", code=1).stdout
    assert "last exit code: 1" in status
    assert host.problems()["schedule_failed"] == "make backup"
    host.run("mv away.db backtesting.db && scripts/install_scheduled_backup.sh run")
    assert "last exit code: 0" in host.run("./db schedule-status").stdout


def interpreter_that_went_away_is_made_anew(host: Host) -> None:
    host.run("rm ~/Backups/ai-backtest/irreplaceable-*")
    host.run("ln -sf /usr/bin/python3.10 .venv/bin/python")
    host.run("systemctl --user start ai-backtest-backup.service")
    assert count_backups(host) == 2
    assert "last exit code: 0" in host.run("./db schedule-status").stdout


def starter_that_went_away_leads_to_the_installation(host: Host) -> None:
    """Exit code 203 of systemd.exec(5)."""
    starter = "scripts/run_scheduled.sh"
    host.run(f"mv {starter} away")
    host.run("systemctl --user start ai-backtest-backup.service", code=None)
    assert host.problems()["schedule_failed"] == "make schedule-install"
    host.run(f"mv away {starter} && ./db schedule-install")
    wait_until(lambda: "schedule_failed" not in host.problems())


def second_checkout_has_units_of_its_own(host: Host) -> None:
    two = "/home/quant/two"
    host.run("rm -f .env && python3 /home/quant/one/make.py", two)
    host.run("./db status", two, code=None)  # writes .env
    host.run("sed -i 's#^BACKUP_DIR=.*#BACKUP_DIR=/home/quant/other#' .env", two)
    assert "no_schedule" in host.problems(two)
    host.run("./db schedule-install", two)
    wait_until(lambda: count_backups(host, two) == 2)
    timers = host.run("systemctl --user list-timers --all").stdout
    assert timers.count("ai-backtest-backup") >= 2
    assert "no_schedule" not in host.problems(two)
    host.run("./db schedule-uninstall", two)
    assert f"loaded: {TIMER}" in host.run("./db schedule-status").stdout
