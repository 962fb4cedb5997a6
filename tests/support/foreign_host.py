"""A second server on this machine that plays any other host: it writes down whatever reaches it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ForeignHost:
    """`answer`: status, headers, body for every request. `seen`: request line and headers of
    each."""

    url: str = ""
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b'{"status":"OK"}')
    seen: list[str] = field(default_factory=list)


@contextmanager
def running_foreign_host() -> Iterator[ForeignHost]:
    """A server on a free port of 127.0.0.1."""
    host = ForeignHost()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.seen.append(f"{self.requestline}\n{self.headers}")
            status, headers, body = host.answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host.url = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
