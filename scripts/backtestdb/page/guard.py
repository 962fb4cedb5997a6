"""Who may ask, and what: this machine's own browser, for reading. An ASGI wrapper around everything
else.

A page on the internet can make a browser ask 127.0.0.1 (cross-site requests), and can even read the
answer when its own name is made to point there (DNS rebinding). The first is told by
Sec-Fetch-Site, the second by the Host header.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN_NAMES = {"127.0.0.1", "localhost", "::1"}
HEADERS = [
    # Datasette's pages have scripts and styles inside; nothing is loaded from, or sent to, another
    # machine.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def find_refusal(
    method: str, path: bytes, query: bytes, headers: Mapping[bytes, bytes]
) -> tuple[int, str] | None:
    """Return status and reason why a request is not answered, None when it is. `path`: as it was
    sent; `headers`: names in lower case."""
    if method not in {"GET", "HEAD"}:
        return 405, "this page only reads: GET and HEAD"
    if b"\\" in path or path.startswith(b"//"):
        # Datasette would redirect it, and a browser take it for a host.
        return (400, "not a path of this page")

    host = headers.get(b"host", b"").decode("latin-1")
    if not is_own_name(host):
        return 403, "this page answers to 127.0.0.1 and localhost only"

    site = headers.get(b"sec-fetch-site", b"none")
    if site in {b"cross-site", b"same-site"}:
        follows_a_link = headers.get(b"sec-fetch-mode") == b"navigate" and not query
        if not follows_a_link or headers.get(b"sec-fetch-dest", b"document") != b"document":
            return 403, "this page does not answer other pages"

    return None


def path_of(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    return raw or str(scope["path"]).encode()


def is_own_name(host: str) -> bool:
    """Return whether a Host header names this machine, with any port: a tunnel may lead here under
    another one, and a port cannot be rebound."""
    try:
        return urlsplit(f"//{host}").hostname in OWN_NAMES
    except ValueError:
        return False


def guard(app: App) -> App:
    """Let through what `find_refusal` has nothing against, and add HEADERS to every answer."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        refusal = find_refusal(
            scope["method"], path_of(scope), scope["query_string"], dict(scope["headers"])
        )
        if refusal is None:
            return await app(scope, receive, send_guarded)
        status, reason = refusal
        plain = [(b"content-type", b"text/plain; charset=utf-8")]
        await send_guarded({"type": "http.response.start", "status": status, "headers": plain})
        return await send({"type": "http.response.body", "body": reason.encode() + b"\n"})

    return guarded
