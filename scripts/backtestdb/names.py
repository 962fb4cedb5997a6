"""Names that are given in one place and looked for in another."""

import hashlib
import os
import re
import shlex
from pathlib import Path

# A file on its way in stands beside its place under this name, until it is whole.
ARRIVING = ".arriving"
# What a restore or rebuild replaced is kept as `<name>.backup-STAMP`.
KEPT = ".backup-"
KEPT_SUFFIX = re.compile(re.escape(KEPT) + r"\d{4}-\d{2}-\d{2}-\d{6}(-\d+)?$")

# macOS asks the user before a program may look into these; a background job cannot be asked about.
PROTECTED_FOLDERS = ("Documents", "Desktop", "Downloads")
# As well, and a program of the vendor's copies what lies in them while it changes.
SYNCED_FOLDERS = ("Library/Mobile Documents", "Library/CloudStorage")


def kept_path(path: Path, stamp: str) -> Path:
    """Given a path and a time as make_stamp writes it, return where what is replaced there goes."""
    return path.with_name(f"{path.name}{KEPT}{stamp}")


def work_path(database: Path) -> Path:
    """Given a database, return the file in which a rebuild grows until it takes its place."""
    return database.with_name(database.name + ".rebuilding")


def make_undo_command(kept_as: Path) -> str:
    """Given what a replacement kept, return the command that brings it back, for a shell."""
    return f"make restore-from-backup BACKUP={shlex.quote(str(kept_as))}"


def make_mark(project: Path) -> str:
    """Return what tells a checkout from others on this machine: of its path, fit for names."""
    return hashlib.sha256(os.fsencode(project)).hexdigest()[:8]


# install_scheduled_backup.sh gives the same names; a test installs by it and looks for these.
def launchd_label(job: str, mark: str = "") -> str:
    """Given `backup`, `update` or `offsite`, return its label in launchd. `mark`: of a checkout
    beside which another one has the plain name."""
    return f"com.aibacktest.{job}" + (f".{mark}" if mark else "")


def systemd_unit(job: str, mark: str = "") -> str:
    """Given `backup`, `update` or `offsite`, return the name of its units in systemd, without
    ending. `mark`: as in `launchd_label`."""
    return f"ai-backtest-{job}" + (f"-{mark}" if mark else "")
