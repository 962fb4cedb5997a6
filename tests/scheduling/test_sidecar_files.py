"""Dockerfile, compose file and settings say the same. What they do in an engine is in
test_sidecar.py."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from backtestdb.config import OLDER_NAMES, PARSERS, PROJECT_DIR, WORKED_OUT
from backtestdb.scheduling.compose_command import MAIN_FILE, NO_NEW_FOLDERS_FILE
from backtestdb.scheduling.host_units import OFFSITE_SETTINGS, UPDATE_SETTINGS, USED_SETTINGS

COMPOSE = (PROJECT_DIR / MAIN_FILE).read_text()
NO_NEW_FOLDERS = (PROJECT_DIR / NO_NEW_FOLDERS_FILE).read_text()
# Read from files: docker inspect shows the environment of a container.
SECRETS = {"OFFSITE_KEY_ID", "OFFSITE_SECRET", "OFFSITE_PASSPHRASE"}


def test_compose_file_passes_every_setting_of_the_backups() -> None:
    backup, update, offsite = (
        set(re.findall(r"^ {6}([A-Z_]+):", part.partition("    volumes:")[0], re.MULTILINE))
        for part in COMPOSE.split("    environment:")[1:]
    )
    # A container is given a setting's older name too: compose cannot choose between the two.
    assert backup == {*USED_SETTINGS, *OLDER_NAMES.values(), "TZ"}
    assert update == {*UPDATE_SETTINGS, "XDG_STATE_HOME"}
    files = {f"{name}_FILE" for name in SECRETS}
    assert offsite == {*OFFSITE_SETTINGS, "DATABASE_PATH", "BACKUP_DIR", "TZ"} - SECRETS | files


def test_compose_file_asks_for_nothing_that_is_no_setting() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    assert asked - set(PARSERS) - set(OLDER_NAMES.values()) == WORKED_OUT


def test_compose_files_have_no_default_inside_a_default() -> None:
    """docker-compose 1.29 takes the inner one for text."""
    assert not re.findall(r"\$\{[^}]*\$\{", COMPOSE + NO_NEW_FOLDERS)


def test_compose_file_repeats_no_default_that_the_settings_have() -> None:
    """An empty value means the default, and that stands in config.py."""
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}$]*)\}", COMPOSE))
    assert {name: value for name, value in defaults.items() if value} == {
        "SIDECAR_OWNER": "1000:1000",
        "SIDECAR_ZONE": "UTC",
        "SIDECAR_PROPAGATION": "rprivate",
        "SIDECAR_STATE_DIR": "~/.local/state/ai-backtest",
        "OFFSITE_SECRETS_DIR": "~/.local/state/ai-backtest/offsite-secrets",
        "OFFSITE_FOLDER": "/run/offsite-folder",
    }


def test_image_lets_in_only_what_is_named() -> None:
    rules = [
        line
        for line in (PROJECT_DIR / ".dockerignore").read_text().splitlines()
        if line[:1] not in "#"
    ]
    assert rules[0] == "*"
    copied = re.findall(
        r"^COPY (?:--\S+ )*(\S+) ", (PROJECT_DIR / "Dockerfile").read_text(), re.MULTILINE
    )
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied)


def answers(*command: str) -> bool:
    return (
        bool(shutil.which(command[0]))
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def read_by_compose(command: Sequence[str], files: str, folder: Path, *options: str) -> str:
    """Return what compose prints of the files, for a database in this folder."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **{"COMPOSE_FILE": files, "COMPOSE_PROFILES": "update,offsite"},
        **{"DATABASE_PATH": str(folder / "backtesting.db"), "DATABASE_DIR": str(folder)},
        "SIDECAR_BACKUPS": str(folder / "backups"),
    }
    done = subprocess.run(
        [*command, "--project-directory", PROJECT_DIR, "config", *options],
        env=environment,
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


PLUGIN = ("docker", "compose")
with_plugin = pytest.mark.skipif(not answers(*PLUGIN, "version"), reason="there is no compose")


@with_plugin
def test_compose_file_is_valid_alone_and_with_no_new_folders(tmp_path: Path) -> None:
    both = f"{MAIN_FILE}:{NO_NEW_FOLDERS_FILE}"
    alone, checked = (
        json.loads(read_by_compose(PLUGIN, files, tmp_path / "a b", "--format", "json"))["services"]
        for files in (MAIN_FILE, both)
    )
    mounts = [mount for each in checked.values() for mount in each["volumes"]]
    for mount in mounts:
        # Left out of what the compose of 2024 prints.
        assert mount["bind"].pop("create_host_path", False) is False
    for mount in [mount for each in alone.values() for mount in each["volumes"]]:
        mount.setdefault("bind", {}).pop("create_host_path", None)
    assert alone == checked
    assert len(mounts) == 2 + 3 + 4


@pytest.mark.skipif(not answers("docker-compose", "version"), reason="there is no docker-compose")
def test_compose_file_is_valid_for_docker_compose(tmp_path: Path) -> None:
    """Debian 12 has 1.29; in a container of it: test_older_docker.py."""
    assert "$" not in read_by_compose(["docker-compose"], MAIN_FILE, tmp_path / "a b")
