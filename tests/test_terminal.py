"""What a user at a terminal sees and is asked, through a real pseudo-terminal."""

import os
import pty
import sys
from pathlib import Path

import pytest

from commands import SCRIPTS, Project
from contents import query_all
from sandbox_process import running_sandbox

END = "2013-03-01"


def run_on_terminal(project: Project, answer: bytes) -> tuple[int, str]:
    """Run a rebuild with a terminal on all three streams; `answer` goes to its question."""
    process, terminal = pty.fork()
    if process == 0:
        command = [sys.executable, str(SCRIPTS / "restore_database.py"), "--end", END]
        os.execve(command[0], command, project.environment(TERM="xterm", COLUMNS="100"))
    output, answered = b"", False
    while chunk := read_chunk(terminal):
        output += chunk
        if b"[y/N]" in output and not answered:
            os.write(terminal, answer)
            answered = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), output.decode()


def read_chunk(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other side is closed
        return b""


@pytest.mark.parametrize("answer", [b"n\n", b"y\n"])
def test_rebuild_on_a_terminal_asks_before_it_replaces(tmp_path: Path, answer: bytes) -> None:
    with running_sandbox(today="2013-03-02") as sandbox:
        project = Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": "IBM,AAPL"})
        project.check("restore_database.py", "--skip-backfill", "--yes")
        sandbox.clear_log()
        code, output = run_on_terminal(project, answer)
        asked = [entry["path"].split("?")[0] for entry in sandbox.fetch_log()]
    assert code == (1 if answer == b"n\n" else 0)
    assert "Traceback" not in output
    assert "Replace" in output
    if answer == b"n\n":
        assert asked == []
        assert "nothing was changed" in output
        assert not list(tmp_path.glob("*.rebuilding"))
        assert not list(tmp_path.glob("*.backup-*"))
    else:
        # The list of splits twice: before the bars, so that no ticker with a split that is listed
        # by now is asked for again, and behind them, for a split that was listed meanwhile (at the
        # quota of the free plan a rebuild takes 26 minutes).
        splits = "/stocks/v1/splits"
        assert asked[0] == asked[-1] == splits
        assert sorted(asked[1:-1]) == [
            "/v2/aggs/ticker/AAPL/range/1/day/2011-05-17/2013-03-01",
            "/v2/aggs/ticker/AAPL/range/5/minute/2013-01-31/2013-03-01",
            "/v2/aggs/ticker/IBM/range/1/day/2011-05-17/2013-03-01",
            "/v2/aggs/ticker/IBM/range/5/minute/2013-01-31/2013-03-01",
        ]
        assert "2/2" in output
        assert query_all(project.database, "SELECT total_stocks FROM universe") == [(2,)]
