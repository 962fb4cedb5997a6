"""The same command on a cluster: a scheduler and two workers in three containers, one of which is
killed."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.lake.compute import compute_metrics
from backtestdb.lake.executor import Engine
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from commands import Project
from container_engine import docker
from lake_tools import NOW, make_lake_database, publish_here

# The image of this very Python, so that the packages of .venv run in it as they are: nothing is
# downloaded.
IMAGE = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
PACKAGES = (
    Path(sys.prefix)
    / "lib"
    / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    / "site-packages"
)


def engine_has_image() -> bool:
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, check=False
        ).returncode
    )


pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not engine_has_image(), reason=f"no container engine with {IMAGE}"),
]


class Cluster:
    """Containers of one name each; `address`: of the scheduler, as the machine and the workers
    reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"lake-{uuid.uuid4().hex[:8]}"
        self.start("scheduler", "-m", "distributed.cli.dask_scheduler", "--port", "8786")
        inspect = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = (
            f"tcp://{docker('inspect', '-f', inspect, f'{self.name}-scheduler').strip()}:8786"
        )
        for worker in ("one", "two"):
            self.start(
                worker,
                "-m",
                "distributed.cli.dask_worker",
                self.address,
                "--nthreads",
                "1",
                "--nworkers",
                "1",
            )

    def start(self, role: str, *command: str) -> None:
        docker(
            *(
                "run",
                "--detach",
                "--name",
                f"{self.name}-{role}",
                "--user",
                f"{os.getuid()}:{os.getgid()}",
            ),
            *(
                "--volume",
                f"{PACKAGES}:/packages:ro",
                "--volume",
                f"{PROJECT_DIR / 'scripts'}:/scripts:ro",
            ),
            *(
                "--volume",
                f"{PROJECT_DIR / 'sql'}:/sql:ro",
                "--volume",
                f"{self.folder}:{self.folder}",
            ),
            *(
                "--env",
                "PYTHONPATH=/packages:/scripts",
                "--env",
                "HOME=/var/tmp",
                "--workdir",
                "/scripts",
                IMAGE,
            ),
            *("python", "-B", *command),
        )

    def wait_for_workers(self, count: int, timeout_seconds: float = 120) -> None:
        from distributed import Client

        deadline = time.monotonic() + timeout_seconds
        with Client(self.address, timeout=timeout_seconds, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=max(1.0, deadline - time.monotonic()))

    def kill(self, role: str) -> None:
        docker("kill", f"{self.name}-{role}")

    def remove(self) -> None:
        for role in ("one", "two", "scheduler"):
            subprocess.run(
                ["docker", "rm", "--force", f"{self.name}-{role}"], capture_output=True, check=False
            )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = None
    try:
        running = Cluster(tmp_path)
        running.wait_for_workers(2)
        yield running
    finally:
        if running:
            running.remove()


@pytest.mark.root
@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="the workers read this folder as root")
def test_cluster_computes_what_one_machine_does_also_when_a_worker_is_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    database = make_lake_database(tmp_path / "backtesting.db", minute_sessions=4)
    for name in ("alone", "cluster", "killed"):
        publish_here(database, tmp_path / name)
    with Engine(processes=0) as engine:
        compute_metrics(Store(str(tmp_path / "alone")), engine, NOW)

    project = Project(tmp_path, settings={"ENGINE": cluster.address})
    told = project.check("compute_lake_metrics.py", LAKE=str(tmp_path / "cluster"))
    assert f"by {cluster.address}" in told

    command = project.start("compute_lake_metrics.py", LAKE=str(tmp_path / "killed"))
    wait_for_first_file(tmp_path / "killed" / "daily_metrics", command)
    cluster.kill("one")
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, err
    assert "files of metrics" in out

    contents = [
        {
            key: (part.content, part.made_from)
            for key, part in open_lake(Store(str(tmp_path / name))).parts.items()
        }
        for name in ("alone", "cluster", "killed")
    ]
    assert contents[0] == contents[1] == contents[2]


def wait_for_first_file(
    folder: Path, command: "subprocess.Popen[str]", timeout_seconds: float = 120
) -> None:
    """Until the first part that the cluster computes has been written: the work is under way
    then."""
    before = set(folder.rglob("*.parquet"))
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and command.poll() is None:
        if set(folder.rglob("*.parquet")) - before:
            return
        time.sleep(0.01)
    raise AssertionError(f"the cluster wrote nothing: {command.communicate()}")
