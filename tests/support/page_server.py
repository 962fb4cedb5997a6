"""A running page, and a database that shows all that it can show."""

import http.client
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import Project
from mending import with_schedule
from sandbox_process import running_sandbox

END = "2013-03-01"
# A month of IBM that an answer is recorded for: a gap. Two months of MSFT without one: holes.
DEFECTS = """
DELETE FROM ohlcv_data WHERE ticker = 'IBM' AND timeframe = '1day'
    AND strftime('%Y-%m', timestamp / 1000, 'unixepoch') = '2012-06';
DELETE FROM ohlcv_data WHERE ticker = 'MSFT' AND timeframe = '1day'
    AND strftime('%Y-%m', timestamp / 1000, 'unixepoch') IN ('2012-08', '2012-09');
DELETE FROM _ranges_asked WHERE ticker = 'MSFT' AND timeframe = '1day';
UPDATE _coverage SET stored = stored - 42, failed = 42 WHERE timeframe = '1day';
-- Three bars of the regular trading hours of one session.
DELETE FROM ohlcv_data WHERE ticker = 'AAPL' AND timeframe = '5min'
    AND timestamp BETWEEN 1361458800000 AND 1361459400000;
INSERT INTO _splits VALUES
    ('AAPL', '2012-08-01', 1, 4, '2012-08-01T00:00:00+00:00', '2012-08-01T00:00:00+00:00', NULL),
    ('AAPL', '2012-09-03', 1, 9, '2012-09-01T00:00:00+00:00', '2012-09-01T00:00:00+00:00',
        '2012-09-02');
INSERT INTO trading_agents (id, name, timeframe) VALUES ('a1', 'Opening range', '5min');
INSERT INTO agent_iterations
    (id, agent_id, iteration_number, scan_script, execution_script, created_at, win_rate)
    VALUES ('i1', 'a1', 7, 'print(1)', 'print(2)', '2013-02-01T10:00:00Z', 0.625);
"""


@dataclass
class Server:
    """A running page."""

    project: Project
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and body; the path goes out as it is."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(
                method,
                path,
                headers={name.replace("_", "-"): text for name, text in headers.items()},
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def get_json(self, path: str) -> tuple[int, Any]:
        status, body = self.get(path)
        return status, json.loads(body)


@contextmanager
def running_server(project: Project) -> Iterator[Server]:
    process = project.start("serve_page.py", "--port", "0")
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("serving http://127.0.0.1:"), f"the page did not start: {line!r}"
        yield Server(project, int(line.split(":")[2].split("/")[0]), process)
    finally:
        process.kill()
        process.communicate()


def make_shown_project(folder: Path) -> Project:
    """A database that was rebuilt from the sandbox, with DEFECTS, two backups and a file that is
    none."""
    with running_sandbox(today="2013-03-02") as sandbox:
        settings = {"WATCHLIST_TICKERS": "IBM,AAPL,MSFT,PARA"}
        project = with_schedule(Project(folder, sandbox.url, settings=settings))
        project.check("restore_database.py", "--end", END)
    with closing(sqlite3.connect(project.database)) as connection:
        connection.executescript(f"BEGIN; {DEFECTS} COMMIT;")
    project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    (folder / "backups" / "backtesting-2013-01-01-000000.db").write_bytes(b"foreign")
    return project
