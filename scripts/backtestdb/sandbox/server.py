"""The HTTP server: one thread a connection, and faults that act on the socket itself."""

import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from backtestdb.sandbox.control import answer_control
from backtestdb.sandbox.endpoints import (
    answer_request,
    make_json_answer,
    verify_key,
    verify_quota,
)
from backtestdb.sandbox.faults import Rule
from backtestdb.sandbox.flat_files import BUCKET, answer_s3
from backtestdb.sandbox.request import Answer, Refusal, Request, parse_params, take_key
from backtestdb.sandbox.spoil import make_fault_answer, spoil_body, spoil_payload
from backtestdb.sandbox.state import Sandbox

CONTROL = "/_sandbox/"
# struct linger {on, 0 seconds}: close() sends RST instead of FIN.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SandboxServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        super().__init__(("127.0.0.1", port), Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; a connection that is to be reset must not say goodbye (FIN) first."""
        lingers, seconds = struct.unpack(
            "ii", request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        )
        if lingers and not seconds:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave during an answer: tests do it all day."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive over many requests."""

    server: SandboxServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing: requests are in the journal."""

    def do_GET(self) -> None:
        """Answer for the API, or for the control plane."""
        if self.path.startswith(CONTROL):
            self.control()
        elif self.path.startswith(BUCKET):
            self.serve_flat_file()
        else:
            self.serve()

    def do_HEAD(self) -> None:
        """Answer with a file's size: S3 clients ask for it first."""
        self.serve_flat_file()

    def serve_flat_file(self) -> None:
        """Note a request of the S3 interface, then answer it. The API's quota does not count it."""
        sandbox = self.server.sandbox
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = sandbox.journal.open_entry(self.path, key_was_right=True, key_place="signature")
        rule = sandbox.faults.choose(self.path)
        entry["fault"] = rule.kind if rule else None
        request = (self.command, self.path, headers)

        answer = make_fault_answer(rule) if rule else None
        if answer is None:
            plan, keys = sandbox.settings.plan, sandbox.settings.keys
            answer = answer_s3(sandbox.flat_files, sandbox.exchange, plan, keys, request)

        if rule is None or self.spoil_connection(rule, answer):
            entry["status"] = answer.status
            self.send(answer)

    def control(self) -> None:
        """Answer for the control plane: no key, no quota, no faults."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        name, params = url.path.removeprefix(CONTROL), dict(parse_qsl(url.query))
        status, payload = answer_control(self.server.sandbox, self.command, name, params, body)
        self.send(make_json_answer(status, payload))

    def do_POST(self) -> None:
        """Answer a control call that changes something."""
        self.control()

    def do_DELETE(self) -> None:
        """Answer a control call that takes something back."""
        self.control()

    def serve(self) -> None:
        """Note a request of the API, then answer or spoil it."""
        sandbox, url = self.server.sandbox, urlsplit(self.path)
        key, place, query = take_key(self.headers.get("Authorization"), url.query)
        path = url.path + (f"?{query}" if query else "")
        entry = sandbox.journal.open_entry(
            path, key_was_right=key in sandbox.settings.keys, key_place=place
        )
        rule = None

        try:
            verify_quota(sandbox, verify_key(sandbox, key), entry["arrived"])
            rule = sandbox.faults.choose(path)
            entry["fault"] = rule.kind if rule else None
            time.sleep(sandbox.settings.latency_seconds)
            answer = self.make_answer(Request(url.path, parse_params(query), self.root()), rule)
        except Refusal as refusal:
            answer = make_json_answer(refusal.status, refusal.payload, refusal.headers)

        if rule is None or self.spoil_connection(rule, answer):
            entry["status"] = answer.status
            self.send(answer)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the Date of every answer, by the server's clock, which may be wrong."""
        now = time.time() if timestamp is None else timestamp
        return super().date_time_string(int(now + self.server.sandbox.settings.clock_seconds))

    def root(self) -> str:
        """Return how the client calls this server, for a next_url on the same host."""
        host, port = self.server.server_address[:2]
        return f"http://{self.headers.get('Host') or f'{host!s}:{port}'}"

    def make_answer(self, request: Request, rule: Rule | None) -> Answer:
        """Return the endpoint's answer, unless a rule replaces or spoils it."""
        if rule and (replacement := make_fault_answer(rule)):
            return replacement
        payload = answer_request(self.server.sandbox, request)
        if rule:
            payload = spoil_payload(rule, payload, self.server.sandbox.exchange.today)
        answer = make_json_answer(200, payload)
        return spoil_body(rule, answer) if rule else answer

    def spoil_connection(self, rule: Rule, answer: Answer) -> bool:
        """Treat the connection as the rule says; return whether an answer follows."""
        if rule.kind in ("slow", "timeout"):
            self.server.sandbox.released.wait(rule.seconds)
        if rule.kind in ("reset_midway", "cut_json"):
            self.send(answer, share=0.5)

        if rule.kind == "trickle":
            self.trickle(answer, rule.seconds)
            return False
        if rule.kind in ("reset", "reset_midway"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

        if rule.kind in ("reset", "reset_midway", "cut_json", "timeout"):
            self.close_connection = True
            return False

        return True

    def trickle(self, answer: Answer, seconds: float) -> None:
        """Send the answer, a byte every few seconds, until the rule lets go."""
        self.send(answer, share=0.0)
        released = self.server.sandbox.released
        for byte in answer.body:
            if released.wait(seconds):
                self.close_connection = True
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def send(self, answer: Answer, share: float = 1.0) -> None:
        """Send the answer, or the first share of its body under the length of the whole."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(len(answer.body) * share)])
        self.wfile.flush()
