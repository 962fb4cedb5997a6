"""A machine whose docker has no compose plugin: with docker-compose 1.29, as Debian 12 packages it
beside Docker 20.10, the sidecar works too."""

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backtestdb.scheduling.compose_command import MAIN_FILE
from backup_tools import make_platform_database
from commands import Project, copy_project
from container_engine import docker, engine_answers

BASE = "python:3.12-slim"


def run_up(
    folder: Path, version: str, states: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Call `sidecar-up` where docker knows no `compose` and docker-compose is of this version. At
    each look the container is in the next of `states`. What docker-compose is told is in `told`."""
    (folder / "states").write_text("\n".join(states))
    (folder / "docker").write_text(f"""#!/bin/sh
cd '{folder}'
case $1 in
  inspect) head -n 1 states; sed -i 1d states ;;
  compose) echo "unknown flag: --project-directory" >&2; exit 125 ;;
esac
""")
    (folder / "docker-compose").write_text(f"""#!/bin/sh
case "$*" in
  "version --short") echo {version} ;;
  *"ps --quiet"*) echo 0123456789ab ;;
  *) echo "$COMPOSE_FILE ${{*#--project-directory }}" >>'{folder}/told' ;;
esac
""")
    for name in ("docker", "docker-compose"):
        (folder / name).chmod(0o755)
    project = Project(folder)
    project.database.write_bytes(b"")
    arguments = ("up", "--detach", "--build", "--wait")
    return project.run("run_compose.py", *arguments, PATH=f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("version", "told"), [("", ""), ("1.25.0", ", and docker-compose 1.25.0 is too old")]
)
def test_docker_without_a_compose_is_named_with_two_ways_out(
    version: str, told: str, tmp_path: Path
) -> None:
    """Docker itself then complains about an unknown flag, --project-directory."""
    done = run_up(tmp_path, version)
    assert done.returncode == 1
    assert f"error: docker is there without its compose plugin{told}" in done.stderr
    assert (
        "next: install docker-compose-plugin (Debian, Ubuntu: docker-compose), "
        "or use make schedule-install" in done.stderr
    )
    assert "unknown flag" not in done.stderr


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["running starting", "running healthy"], 0),
        (["running unhealthy"], 1),
        (["restarting starting"], 1),
    ],
)
def test_docker_compose_1_is_waited_for(states: list[str], code: int, tmp_path: Path) -> None:
    """It knows no `up --wait`, and refuses a second file with words of later years."""
    done = run_up(tmp_path, "1.29.2", states)
    assert done.returncode == code, done.stderr
    told = (tmp_path / "told").read_text()
    assert told.startswith(f"{MAIN_FILE} ")
    assert told.endswith(" up --detach --build\n")


@pytest.fixture
def debian() -> Iterator[str]:
    """A Debian 12 with an engine of its own, Docker 20.10: the name of its container."""
    name = f"older-{uuid.uuid4().hex[:8]}"
    # A volume, because an engine cannot keep its layers in a layer of another.
    docker("run", "--detach", "--privileged", "--name", name, "--volume", "/var/lib/docker",
           "python:3.11-slim", "sleep", "3600")  # fmt: skip
    try:
        run_inside(name, "apt-get update -qq")
        packages = "docker.io docker-compose iptables"
        run_inside(name, f"apt-get install -y --no-install-recommends {packages}")
        docker("exec", "--detach", name, "dockerd", "--mtu", "1400")
        run_inside(name, "until docker version; do sleep 1; done")
        give_base_image(name)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def give_base_image(name: str) -> None:
    """Hand on the base of this machine's engine: inside, there may be no registry."""
    saved = subprocess.run(["docker", "save", BASE], capture_output=True, check=True).stdout
    docker_with_input(saved, "exec", "--interactive", name, "docker", "load")


def docker_with_input(given: bytes, *arguments: str) -> None:
    subprocess.run(["docker", *arguments], input=given, capture_output=True, check=True)


def run_inside(name: str, command: str, *, check: bool = True) -> str:
    return docker("exec", name, "sh", "-euc", command, check=check)


@pytest.mark.long  # installs an engine and builds the image: two minutes
@pytest.mark.engine
@pytest.mark.skipif(not engine_answers(with_compose=False), reason="no container engine answers")
def test_sidecar_under_docker_20_10_and_docker_compose_1_29(debian: str, tmp_path: Path) -> None:
    place = "/srv/my project"
    project = copy_project(tmp_path / "project")
    make_platform_database(project / "backtesting.db", journal="WAL")
    packed = subprocess.run(["tar", "c", "-C", project, "."], capture_output=True, check=True)
    run_inside(debian, f"mkdir '{place}'")
    docker_with_input(packed.stdout, "exec", "--interactive", debian, "tar", "x", "-C", place)
    run_inside(debian, f"chown -R 1234:1234 '{place}'")

    def run(command: str, *, check: bool = True) -> str:
        return run_inside(debian, f"cd '{place}'; {command}", check=check)

    assert run("docker version --format '{{.Server.Version}}'").startswith("20.10.")
    assert run("docker-compose version --short").strip() == "1.29.2"
    run("./db setup backup")
    run("./db sidecar-up")
    running = "docker ps --format '{{.ID}} {{.Status}}'"
    container, _, status = run(running).partition(" ")
    assert "(healthy)" in status
    assert "yes" in run("./db backups")
    assert "container: installed, loaded" in run("./db status", check=False)

    # By hand, as the guide says: by what sidecar-up wrote into .env, so the same container.
    assert "up-to-date" in run("docker-compose up --detach")
    assert run(running).startswith(container)
    by_hand = "docker-compose run --rm backup scripts/backup_database.py --irreplaceable-only"
    assert "irreplaceable-" in run(by_hand)
    assert "full backup ok" in run("./db sidecar-logs")
    run("./db sidecar-down")
    assert run(running) == ""

    run("mv ~/Backups ~/elsewhere")
    assert "bind source path does not exist" in run("docker-compose up --detach", check=False)
    run("! test -e ~/Backups")
