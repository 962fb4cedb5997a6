#!/usr/bin/env python3
"""Make .venv with the interpreter that runs this, and install one set of packages from its lock
file.

Needs the standard library alone, because it runs before anything is installed; `./db` calls it by
set_up.sh.
"""

import argparse
import fcntl
import filecmp
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[1]
# Each set with those that it contains: what one has installed, the others need not install again.
SETS = {
    "backup": ("backup",),
    "notify": ("backup", "notify"),
    "offsite": ("backup", "offsite"),
    "market": ("backup", "market"),
    "demo": ("backup", "market", "demo"),
    "page": ("backup", "market", "page"),
    "lake": ("backup", "market", "lake"),
    "dev": ("backup", "notify", "offsite", "market", "demo", "page", "lake", "dev"),
}


class SetUpError(Exception):
    """What is missing, and what to do next."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.next_step = next_step


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "set", choices=SETS, help="requirements-SET.txt, as locked in locks/SET.txt"
    )
    name = parser.parse_args(arguments).set

    try:
        with alone(PROJECT_DIR / ".venv.lock"):
            prepare(PROJECT_DIR, name)
    except SetUpError as error:
        return fail(str(error), error.next_step)
    except OSError as error:
        return fail(
            f".venv cannot be made: {error}", "free space, or give yourself the project's folder"
        )
    except KeyboardInterrupt:
        return fail("interrupted; .venv is not ready yet", "the same command again")

    return 0


def fail(what: str, next_step: str) -> int:
    print(f"error: {what}\n       next: {next_step}", file=sys.stderr)
    return 1


def prepare(project: Path, name: str) -> None:
    """Given the name of a set, see that .venv runs and has it. Raise SetUpError."""
    venv, names = project / ".venv", [name]
    if not runs(venv):
        # What sends messages is asked for once, when the schedule is installed.
        names += ["notify"] if (venv / "ready-notify").is_file() else []
        create(venv)
    for each in names:
        ensure(project, venv, each)


def ensure(project: Path, venv: Path, name: str) -> None:
    """Install the set of this name where .venv does not have it. Raise SetUpError."""
    lock, stamp = project / "locks" / f"{name}.txt", venv / f"ready-{name}"
    if stamp.is_file() and filecmp.cmp(lock, stamp, shallow=False):
        return  # another command was faster
    # Read before: when an update of the project brings other locks meanwhile, what is said to be
    # there is not theirs.
    locks = {
        contained: (project / "locks" / f"{contained}.txt").read_bytes() for contained in SETS[name]
    }
    install(venv, lock)

    # Last, so that whatever is killed on the way is done again.
    for contained, installed in locks.items():
        (venv / f"ready-{contained}").write_bytes(installed)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the folder for one command: of two first commands at once the second waits, and finds
    the work done. A killed one leaves nothing locked."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def runs(venv: Path) -> bool:
    """Return whether the interpreter finds its packages: not so after an upgrade of Python."""
    try:
        command = [venv / "bin" / "python", "-Ic", "import pip"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def create(venv: Path) -> None:
    """Make the virtual environment, anew without its interpreter. Raise SetUpError."""
    if venv.is_symlink():
        venv.unlink()  # --clear would empty the folder that it points to
    version = "{}.{}.{}".format(*sys.version_info)
    again = " anew, because the interpreter that it was made with is gone" if venv.exists() else ""
    say(f"making .venv{again} with Python {version}")
    # By its own name and not through a virtual environment that may be active, whose life is
    # another one.
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    command = [python if python.exists() else sys.executable, "-m", "venv", "--clear", venv]

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not runs(venv):
        reason = last_line(done.stderr) or last_line(done.stdout) or "it does not run"
        raise SetUpError(
            f"Python {version} could not make {venv}: {reason}",
            "free space, or another PYTHON3=/path/to/python3 make …",
        )


def install(venv: Path, lock: Path) -> None:
    """Install what a lock file names, each with the hash in it. Raise SetUpError."""
    say(f"installing requirements-{lock.stem}.txt into .venv")
    command = [
        venv / "bin" / "python",
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
    ]
    command += ["--require-hashes", "--requirement", lock]
    # An index that does not answer is asked three times, 2 seconds in all, instead of six times.
    environment = {"PIP_RETRIES": "2", **os.environ}

    wheels = os.environ.get("PIP_FIND_LINKS", "")
    if wheels and Path(wheels).is_dir():
        # Pip takes a blank for the end of a name.
        environment["PIP_FIND_LINKS"] = Path(wheels).absolute().as_uri()

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SetUpError(*explain(lock, done.stderr))


def explain(lock: Path, errors: str) -> tuple[str, str]:
    """Given what pip wrote, return in one sentence what is missing, and what to do next."""
    packages = f"the packages of requirements-{lock.stem}.txt"
    if "No matching distribution" in errors or "Could not find a version" in errors:
        unreachable = (
            "NewConnectionError" in errors or "Connection" in errors or "Retrying" in errors
        )
        where = (
            "no package index answers" if unreachable else "the package index does not have them"
        )
        if wheels := os.environ.get("PIP_FIND_LINKS"):
            where += f", nor does PIP_FIND_LINKS={wheels}"
        download = f"python3 -m pip download --require-hashes -r locks/{lock.stem}.txt -d wheels"
        return (
            f"{packages} are not installed, and {where}",
            "connect to the internet and try again, or, on a machine that is connected: "
            f"{download}; then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make …",
        )

    if "THESE PACKAGES DO NOT MATCH THE HASHES" in errors:
        return (
            f"{packages} are not what locks/{lock.name} expects: {last_line(errors)}",
            "ask who serves them",
        )

    if "No space left" in errors:
        return f"{packages} do not fit on the disk", "free space, then the same command again"
    return f"{packages} could not be installed: {last_line(errors)}", "the same command again"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else ""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
