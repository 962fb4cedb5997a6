"""Dockerfile, compose file and settings say the same. What they do in an engine is in
test_sidecar.py."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from backtestdb.config import OLDER_NAMES, PARSERS, PROJECT_DIR, WORKED_OUT
from backtestdb.scheduling.host_units import OFFSITE_SETTINGS, UPDATE_SETTINGS, USED_SETTINGS
from commands import Project

COMPOSE = (PROJECT_DIR / "docker-compose.yml").read_text()
# Read from files: docker inspect shows the environment of a container.
SECRETS = {"OFFSITE_KEY_ID", "OFFSITE_SECRET", "OFFSITE_PASSPHRASE"}


def test_compose_file_passes_every_setting_of_the_backups() -> None:
    backup, update, offsite = (
        set(re.findall(r"^ {6}([A-Z_]+):", part.partition("    volumes:")[0], re.MULTILINE))
        for part in COMPOSE.split("    environment:")[1:]
    )
    assert backup == {*USED_SETTINGS, "TZ"}
    assert update == {*UPDATE_SETTINGS, "XDG_STATE_HOME"}
    files = {f"{name}_FILE" for name in SECRETS}
    assert offsite == {*OFFSITE_SETTINGS, "DATABASE_PATH", "BACKUP_DIR", "TZ"} - SECRETS | files


def test_compose_file_asks_for_nothing_that_is_no_setting() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    # The shell knows the last.
    assert asked - set(PARSERS) - set(OLDER_NAMES.values()) == {*WORKED_OUT, "PWD"}
    assert {name for name in PARSERS if name.startswith("SIDECAR_")} <= asked


def test_compose_file_repeats_no_default_that_the_settings_have() -> None:
    """An empty value means the default, and that stands in config.py."""
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}$]*)\}", COMPOSE))
    assert {name: value for name, value in defaults.items() if value} == {
        "SIDECAR_OWNER": "1000:1000",
        "SIDECAR_ZONE": "UTC",
        "SIDECAR_PROPAGATION": "rprivate",
        "SIDECAR_STATE_DIR": "~/.local/state/ai-backtest",
        "BACKUP_DIR": PARSERS["BACKUP_DIR"][0],
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


def compose_answers() -> bool:
    asked = ["docker", "compose", "version"]
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(asked, capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not compose_answers(), reason="docker compose is not installed")
def test_compose_file_is_valid(tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_PATH": str(tmp_path / "a b" / "backtesting.db")}
    command = ["docker", "compose", "--project-directory", PROJECT_DIR, "config", "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_docker_without_the_compose_plugin_is_named_with_two_ways_out(tmp_path: Path) -> None:
    """Docker itself then complains about an unknown flag, --project-directory."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" = version ] || { echo "unknown flag: $2" >&2; exit 125; }\n'
    )
    docker.chmod(0o755)
    done = Project(tmp_path).run("run_compose.py", "up", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "error: docker is there without its compose plugin" in done.stderr
    assert (
        "next: install docker-compose-plugin (Debian 13: docker-compose), "
        "or use make schedule-install" in done.stderr
    )
    assert "unknown flag" not in done.stderr
