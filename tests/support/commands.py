"""The project's commands as real processes, with settings of their own."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROJECT_DIR = Path(__file__).parents[2]
SCRIPTS = PROJECT_DIR / "scripts"
# A line of the list in `db`: name, what it runs, help.
LISTED = re.compile(r"^  ([a-z0-9-]+)(?: \|[^)]*)?\) (.+) ;; ## (.+)$", re.MULTILINE)
COMMANDS = {
    name: (runs, text) for name, runs, text in LISTED.findall((PROJECT_DIR / "db").read_text())
}


def copy_project(folder: Path) -> Path:
    """Given a folder that is not there yet, return it with the project's files as a commit would
    have them."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        listed, cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    ).stdout
    for name in names.split("\0"):
        if (PROJECT_DIR / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_DIR / name, folder / name)
    return folder


@dataclass
class Project:
    """A folder with a database and backups, and the settings that point there."""

    folder: Path
    url: str = "http://127.0.0.1:9"
    key: str = "sandbox-test-key"
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.folder / "backtesting.db"

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            **{
                name: os.environ[name]
                for name in ("PATH", "LANG", "HOME", "TZ", "TMPDIR")
                if name in os.environ
            },
            "PYTHONDONTWRITEBYTECODE": "1",
            "BACKTEST_ENV_FILE": os.devnull,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "DATABASE_PATH": str(self.database),
            "BACKUP_DIR": str(self.folder / "backups"),
            "GENERATED_SCRIPTS_DIR": str(self.folder / "claude-generated-scripts"),
            "POLYGON_BASE_URL": self.url,
            "POLYGON_API_KEY": self.key,
            "POLYGON_REQUESTS_PER_MINUTE": "0",
            "POLYGON_CONCURRENCY": "4",
            **self.settings,
            **changes,
        }

    def start(self, script: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **changes)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def check(self, script: str, *arguments: str, expect: int = 0, **changes: str) -> str:
        """Run a command, fail the test when its exit code is another one, return what it
        printed."""
        done = self.run(script, *arguments, **changes)
        assert done.returncode == expect, (
            f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr
