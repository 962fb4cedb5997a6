"""Real servers on loopback that take what the project sends: heartbeats and messages."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


@contextmanager
def watcher(status: int = 200, delay_seconds: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a real server and the paths that were asked of it."""
    paths: list[str] = []
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            paths.append(f"{self.path} {body}".strip())
            released.wait(delay_seconds)
            self.send_response(status)
            self.end_headers()

        do_POST = do_GET  # noqa: N815  the server looks for this name

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ping/secret-id", paths
    finally:
        released.set()
        server.shutdown()
        server.server_close()


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, str]], dict[str, int]]]:
    """Yield the address of a real receiver of JSON, what it got, and the status it answers with."""
    got: list[dict[str, str]] = []
    answer = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if answer["status"] == 200:
                got.append(json.loads(body))
            self.send_response(answer["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/secret-path", got, answer
    finally:
        server.shutdown()
        server.server_close()
