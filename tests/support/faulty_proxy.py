"""A proxy between the code under test and a real S3 server that does what networks and servers
do."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SKEWED = (403, "RequestTimeTooSkewed")
FULL = (507, "InsufficientStorage")
SLOW_DOWN = (503, "SlowDown")
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>made by the test</Message></Error>'
Change = Callable[[str, str, bytes], bytes]


@dataclass(kw_only=True)
class Faults:
    """What the proxy does to the requests that `when` picks (method, path); all of them by default.

    - `answer`: (status, code) instead of asking the server.
    - `silent`: takes the request and never answers. `close`: hangs up instead.
    - `cut_after`: bytes of the answer's body that still arrive.
    - `delay_seconds`: before the server is asked.
    - `change_request`, `change_answer`: other bytes in the place of the body.
    - `drop_conditions`: the server never sees If-None-Match, as if it did not know it.
    """

    when: Callable[[str, str], bool] = lambda _method, _path: True
    answer: tuple[int, str] | None = None
    silent: bool = False
    close: bool = False
    cut_after: int | None = None
    delay_seconds: float = 0.0
    change_request: Change | None = None
    change_answer: Change | None = None
    drop_conditions: bool = False


@dataclass
class Proxy:
    """`log`: (method, path, bytes sent) of each request in order of arrival."""

    endpoint: str
    faults: Faults = field(default_factory=Faults)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def running_proxy(upstream: str) -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(upstream))
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    server.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        server.server_close()


def make_handler(upstream: str) -> type[BaseHTTPRequestHandler]:  # noqa: C901  one class of short methods
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            with suppress(ConnectionError):
                self.pass_on()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one  # noqa: N815  the names of http.server

        def pass_on(self) -> None:
            proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.log.append((self.command, self.path, len(body)))
            faults = proxy.faults if proxy.faults.when(self.command, self.path) else Faults()
            time.sleep(faults.delay_seconds)
            if faults.silent:
                proxy.over.wait(120)
            if faults.silent or faults.close:
                self.close_connection = True
                return
            if faults.answer:
                status, code = faults.answer
                self.reply(
                    status, [("Content-Type", "application/xml")], ERROR.format(code).encode(), None
                )
                return
            self.reply(*self.ask(faults, body), faults.cut_after)

        def ask(self, faults: Faults, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            if faults.change_request:
                body = faults.change_request(self.command, self.path, body)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() != "connection"
            }
            if faults.drop_conditions:
                headers = {
                    name: value
                    for name, value in headers.items()
                    if name.lower() != "if-none-match"
                }
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if faults.change_answer:
                content = faults.change_answer(self.command, self.path, content)
            return answer.status, answer.getheaders(), content

        def reply(
            self, status: int, headers: list[tuple[str, str]], content: bytes, cut_after: int | None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            length = next(
                (v for n, v in headers if n.lower() == "content-length"), str(len(content))
            )
            self.send_header(
                "Content-Length", length if self.command == "HEAD" else str(len(content))
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content if cut_after is None else content[:cut_after])
            if cut_after is not None and cut_after < len(content):
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler
