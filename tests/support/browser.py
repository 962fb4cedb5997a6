"""Chromium without a window, driven over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import websocket

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    "",
)
SWITCHES = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
START_SECONDS = 60
CODES: dict[str, dict[str, int]] = {
    "Enter": {"windowsVirtualKeyCode": 13},
    "ArrowLeft": {"windowsVirtualKeyCode": 37},
}


@dataclass(kw_only=True)
class Tab:
    """One page. `requests`: every address that it asked for; `errors`: what its console complained
    about."""

    socket: websocket.WebSocket
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loads: int = 0
    sent: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            message = self.receive()
            if message.get("id") == self.sent:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv())
        name, values = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif name == "Page.loadEventFired":
            self.loads += 1
        elif name == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and values["type"] in {
            "error",
            "warning",
            "assert",
        }:
            self.errors.append(str(values["args"]))
        elif name == "Log.entryAdded" and values["entry"]["level"] in {"error", "warning"}:
            self.errors.append(str(values["entry"]))
        return message

    def open(self, url: str, *, width: int = 1100, dark: bool = False) -> None:
        """Go there and wait until everything is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        loads = self.loads
        self.call("Page.navigate", url=url)
        while self.loads == loads:
            self.receive()

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def await_value(self, script: str) -> Any:
        """What a promise brings."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def follow(self, script: str) -> None:
        """Do what leads to another page, and wait until that one is loaded."""
        loads = self.loads
        self.evaluate(script)
        while self.loads == loads:
            self.receive()

    def press(self, key: str, text: str = "") -> None:
        """A key of the keyboard, down and up."""
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **CODES.get(key, {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **CODES.get(key, {}))

    def save_picture(self, path: Path) -> None:
        """The whole page as PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def running_browser(profile: Path) -> Iterator[Tab]:
    """A browser with a profile of its own, killed in the end."""
    process = subprocess.Popen(
        [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = wait_for_port(profile / "DevToolsActivePort", process)
        with requests.Session() as session:
            session.trust_env = False
            targets = session.get(f"http://127.0.0.1:{port}/json", timeout=START_SECONDS).json()
        page = next(target for target in targets if target["type"] == "page")
        socket = websocket.create_connection(
            page["webSocketDebuggerUrl"],
            timeout=START_SECONDS,
            suppress_origin=True,
            http_no_proxy=["127.0.0.1"],
        )
        tab = Tab(socket=socket)
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        yield tab
        socket.close()
    finally:
        process.kill()
        process.wait()


def wait_for_port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """Chromium writes the port that it took into its profile."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) > 1:
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
