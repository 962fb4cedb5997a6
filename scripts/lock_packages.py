#!/usr/bin/env python3
"""Write locks/ anew from requirements-*.txt: each package below the pinned ones with its version
and hashes.

A lock file holds for Linux and macOS and Python 3.11 to 3.14, and names no index. What a lock file
already has stays as it is while the pins allow it; --upgrade takes the newest of everything that is
not pinned.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[1]
# The whole comes first: the others take their versions from it, because they share one .venv.
SETS = ("dev", "backup", "notify", "offsite", "market", "demo", "page", "lake")
PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--outdated", action="store_true", help="only show which packages have a newer release"
    )
    what.add_argument(
        "--upgrade", action="store_true", help="newest releases below the pinned packages"
    )
    chosen = parser.parse_args(arguments)
    if chosen.outdated:
        return show_outdated()

    return max(write_lock(name, upgrade=chosen.upgrade) for name in SETS)


def write_lock(name: str, *, upgrade: bool) -> int:
    """Given the name of a set, write locks/NAME.txt, and return uv's exit code."""
    lock = Path("locks") / f"{name}.txt"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", f"requirements-{name}.txt"]
    command += [
        "--output-file",
        str(lock),
        "--generate-hashes",
        "--universal",
        "--python-version",
        "3.11",
    ]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--constraint", "locks/dev.txt"] if name != "dev" else []
    command += ["--upgrade"] if upgrade else []

    return subprocess.run(
        command, cwd=PROJECT_DIR, check=False, stdout=subprocess.DEVNULL
    ).returncode


def show_outdated() -> int:
    """Print what the index and the image registry have that is newer than the pins."""
    command = [sys.executable, "-m", "pip", "list", "--outdated", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 1

    pinned = dict(find_pins())
    newer = {normalize(entry["name"]): entry for entry in json.loads(done.stdout)}
    for name, place in pinned.items():
        if name in newer:
            print(f"{name} {newer[name]['version']} -> {newer[name]['latest_version']}  ({place})")
    below = sorted(set(newer) - set(pinned))
    if below:
        print(f"below the pins, for ./db lock --upgrade: {', '.join(below)}")
    if not newer:
        print("every package is the newest")
    print(describe_base())
    return 0


def find_pins() -> Iterator[tuple[str, str]]:
    """Yield the pinned packages with the file in which each stands."""
    for path in sorted(PROJECT_DIR.glob("requirements*.txt")):
        for name, _ in PIN.findall(path.read_text()):
            yield normalize(name), path.name


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def describe_base() -> str:
    """Return the digest that the registry has now for the container's base: the build argument BASE
    takes it."""
    found = re.search(r"^ARG BASE=(\S+)", (PROJECT_DIR / "Dockerfile").read_text(), re.MULTILINE)
    base = found[1] if found else ""
    if not shutil.which("docker"):
        return f"{base}: not looked up, there is no docker command"

    command = [
        "docker",
        "buildx",
        "imagetools",
        "inspect",
        base,
        "--format",
        "{{.Manifest.Digest}}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return f"{base}: not looked up, the registry does not answer"

    return f"base image now: {base.split('@')[0]}@{done.stdout.strip()}"


if __name__ == "__main__":
    sys.exit(main())
