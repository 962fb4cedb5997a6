"""A request as the endpoints see it, their answer, and the refusals that they may raise."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import parse_qsl, urlencode


class Refusal(Exception):  # noqa: N818  (an answer of the API, not a failure of the server)
    """An answer with another status than 200."""

    def __init__(
        self, status: int, payload: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status, self.payload, self.headers = status, payload, headers or {}


@dataclass(frozen=True)
class Request:
    """Path, parameters without the key, and the root of addresses in the answer."""

    path: str
    params: dict[str, str]
    root: str

    def number(self, name: str, default: int, highest: int) -> int:
        """Return a whole number between 1 and `highest`, or 400."""
        text = self.params.get(name, str(default))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
            raise bad_request(f"{name} must be a whole number from 1 to {highest}, not {text!r}")
        return int(text)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a parameter that is true or false, or 400."""
        text = self.params.get(name, str(default)).lower()
        if text not in ("true", "false"):
            raise bad_request(f"{name} must be true or false, not {text!r}")
        return text == "true"

    def next_url(self, path: str, cursor: dict[str, str]) -> str:
        """Return the address of the next page: its parameters are in the cursor, the key is not."""
        text = base64.urlsafe_b64encode(urlencode(cursor).encode()).decode()
        return f"{self.root}{path}?cursor={text}"


@dataclass(frozen=True)
class Answer:
    """Status, body and headers, on their way to the client."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def bad_request(reason: str) -> Refusal:
    """Return a 400 with its reason."""
    return Refusal(400, {"status": "ERROR", "error": reason})


def take_key(authorization: str | None, query: str) -> tuple[str | None, str | None, str]:
    """Return the key, where it was ("header", "parameter" or None), and the query without it."""
    pairs = parse_qsl(query, keep_blank_values=True)
    keys = [value for name, value in pairs if name == "apiKey"]
    rest = urlencode([pair for pair in pairs if pair[0] != "apiKey"])
    scheme, _, key = (authorization or "").partition(" ")
    if scheme == "Bearer" and key:
        return key, "header", rest
    return (keys[0], "parameter", rest) if keys and keys[0] else (None, None, rest)


def parse_params(query: str) -> dict[str, str]:
    """Return an address's parameters; those inside a cursor count as if written out."""
    params = dict(parse_qsl(query, keep_blank_values=True))
    cursor = params.pop("cursor", None)

    if cursor is not None:
        try:
            params |= dict(
                parse_qsl(base64.b64decode(cursor, altchars=b"-_", validate=True).decode())
            )
        except ValueError:
            raise bad_request("the cursor is not one of ours") from None
    return params


def parse_day(text: str) -> date:
    """Return a date written YYYY-MM-DD, or 400."""
    try:
        if not re.fullmatch(r"(19[7-9]\d|20\d\d)-\d\d-\d\d", text):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise bad_request(f"a date is written YYYY-MM-DD, not {text!r}") from None
