"""The container engine of this machine, asked through `docker`."""

import shutil
import subprocess
from typing import Any


def engine_answers(*, with_compose: bool = True) -> bool:
    """Tell whether an engine runs here, and whether its docker has compose."""
    asked = [["docker", "version"], *([["docker", "compose", "version"]] if with_compose else [])]
    return bool(shutil.which("docker")) and not any(
        subprocess.run(each, capture_output=True, check=False).returncode for each in asked
    )


def docker(*arguments: object, check: bool = True, **options: Any) -> str:
    """Return what a command of docker printed, errors included. Fail where it failed, unless that
    is no matter (`check`)."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **options,
    )
    assert not check or done.returncode == 0, f"docker {arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
