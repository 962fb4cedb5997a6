"""A sandbox server as a real process, for the tests of everything that asks the market."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_sandbox.py"
KEY = "sandbox-test-key"


@dataclass
class SandboxProcess:
    """A running server: where it listens, which key it takes, and its control plane."""

    url: str
    key: str
    process: subprocess.Popen[str]

    def control(self, method: str, name: str, **values: Any) -> dict[str, Any]:
        """A call of the control plane; fails the test when the server refuses it."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method, f"{self.url}/_sandbox/{name}", json=values, timeout=120
            )
        assert answer.status_code == 200, answer.text
        payload: dict[str, Any] = answer.json()
        return payload

    def get(self, path: str, *, key: str | None = None, **params: Any) -> requests.Response:
        """One request of the API with the right key (or another one)."""
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
            return session.get(self.url + path, params=params, headers=headers, timeout=90)

    def fetch_log(self, since: int = 0) -> list[dict[str, Any]]:
        """The requests in order of arrival: arrived (monotonic clock), path, status, fault,
        key_was_right."""
        requests_seen: list[dict[str, Any]] = self.control("GET", "log", since=since)["requests"]
        return requests_seen

    def fetch_most_in_window(self) -> int:
        """The most requests that arrived in any one window (60 s) under one key."""
        return int(self.control("GET", "log")["most_in_window"])

    def clear_log(self) -> None:
        """Forget the requests so far."""
        self.control("DELETE", "log")

    def set_faults(self, *rules: dict[str, Any]) -> None:
        """These rules instead of any others; none without arguments."""
        self.control("DELETE", "faults")
        self.control("POST", "faults", rules=list(rules))

    def fetch_faults(self) -> list[dict[str, Any]]:
        """The rules, each with how often it `fired`."""
        rules: list[dict[str, Any]] = self.control("GET", "faults")["rules"]
        return rules

    def release(self) -> None:
        """Let go of what a time-out or slow rule holds."""
        self.control("POST", "release")

    def set_today(self, today: str) -> None:
        """Move the server to another day."""
        self.control("POST", "today", today=today)

    def set_splits(self, *splits: dict[str, Any]) -> None:
        """These made-up splits instead of any others."""
        self.control("POST", "splits", splits=list(splits))

    def set_missing(self, *sessions: str | tuple[str, str]) -> None:
        """Sessions without a bar instead of any others: of anyone, or (ticker, session) of one
        ticker."""
        rows = [
            {"session": each} if isinstance(each, str) else {"ticker": each[0], "session": each[1]}
            for each in sessions
        ]
        self.control("POST", "missing", sessions=rows)

    def set_renames(self, *renames: dict[str, str]) -> None:
        """Companies that change their ticker instead of any others: `ticker`, `successor`,
        `day`."""
        self.control("POST", "renames", renames=list(renames))

    def reset(self, today: str) -> None:
        """An honest vendor without limits on that day."""
        self.control("POST", "reset", today=today)

    def set_settings(self, **settings: Any) -> None:
        """Change requests_per_minute, window_seconds, retry_after, history_years, free,
        latency_seconds …"""
        self.control("POST", "settings", **settings)

    def stop(self) -> None:
        """Kill the server; its address answers no more."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def fetch_pages(sandbox: SandboxProcess, path: str, **params: Any) -> list[dict[str, Any]]:
    """All pages of an answer, by next_url."""
    answer = sandbox.get(path, **params).json()
    pages = [answer]
    while "next_url" in answer:
        assert "apiKey" not in answer["next_url"]
        assert answer["next_url"].startswith(sandbox.url)
        answer = sandbox.get(answer["next_url"].removeprefix(sandbox.url)).json()
        pages.append(answer)
    return pages


def fetch_rows(sandbox: SandboxProcess, path: str, **params: Any) -> list[dict[str, Any]]:
    """The rows of all pages."""
    return [row for page in fetch_pages(sandbox, path, **params) for row in page.get("results", [])]


class SandboxOptions:
    """What the stand-in of a module is started with: a module's SANDBOX, for the fixture `sandbox`
    of conftest.py. Options of run_sandbox.py, and the day."""

    def __init__(self, *arguments: str, today: str = "2013-03-01") -> None:
        self.arguments, self.today = arguments, today


@contextmanager
def running_sandbox(
    *arguments: str, today: str = "2013-03-01", key: str = KEY, env: dict[str, str] | None = None
) -> Iterator[SandboxProcess]:
    """A server on a free port with further options of run_sandbox.py, killed in the end."""
    command = [
        sys.executable,
        str(SCRIPT),
        "--port",
        "0",
        "--today",
        today,
        "--key",
        key,
        "--exit-with-stdin",
    ]
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    sandbox = SandboxProcess("", key, process)
    try:
        sandbox.url = wait_for_url(process)
        yield sandbox
    finally:
        sandbox.stop()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def wait_for_url(process: subprocess.Popen[str], timeout_seconds: float = 60) -> str:
    """The address from the line that the server prints when it is ready."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(
        target=lambda out=process.stdout: lines.put(out.readline()), daemon=True
    ).start()
    line = lines.get(timeout=timeout_seconds)
    assert line.startswith("sandbox listening on "), f"the sandbox did not start: {line!r}"
    return line.split()[-1]
