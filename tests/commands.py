"""The project's commands as real processes, with settings of their own."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"


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
            **{name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ},
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
        """Run a command, fail the test when its exit code is another one, return what it printed."""
        done = self.run(script, *arguments, **changes)
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr
