"""Faults on demand: rules that say which answers go wrong, how often and in which way."""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from threading import Lock
from typing import Any

from backtestdb.sandbox.noise import make_key

KINDS = {
    "server_error": "500 with JSON",
    "refusal": "`status`, 403 or 404, with JSON, as when an endpoint is not in the plan or "
    "withdrawn; `word` is its status word where it is not the documented one",
    "bad_gateway": "502 with HTML",
    "gateway": "`status` with HTML: a proxy, a captive portal, a wrong address",
    "too_many": "429; `retry_after` seconds or null for no header; `empty_body`",
    "reset": "the connection is reset before the answer",
    "reset_midway": "the connection is reset after half of the body",
    "cut_json": "the connection is closed after half of the body that Content-Length promised",
    "invalid_json": "a complete answer that holds half of the JSON",
    "timeout": "no answer; the connection is closed after `seconds` or when released",
    "slow": "the right answer after `seconds`",
    "foreign_next_url": "a next_url that begins with `root`",
    "missing_results": "the right frame without its rows",
    "null_results": "the right frame with `results` null, and counts of 0",
    "empty": "the documented empty answer, although there are rows",
    "odd_frame": "the right answer with the `changes` to its frame",
    "fewer_rows": "the first `rows` of the right answer, the counts of all of them",
    "few_rows": "the first `rows` of the right answer as if there were no more",
    "shuffled": "the right rows in another order",
    "trickle": "the right answer, a byte every `seconds`",
    "bad_bars": "rows spoilt in the ways named in `bars`",
}


@dataclass(kw_only=True)
class Rule:
    """A fault for the paths that `match` (searched in path and query, the key taken out).

    Of the matching requests `after` are spared, then `times` are spoilt (None: all), each with
    `probability`. What the dice say depends on `seed`, the path and how often that path came, not
    on the order of requests, so a run with several workers meets the same faults again.
    """

    match: str
    kind: str
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    seconds: float = 30.0
    retry_after: float | None = 1
    empty_body: bool = False
    root: str = "http://foreign.invalid"
    bars: tuple[str, ...] = ("junk",)
    status: int = 403
    word: str = ""
    rows: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    fired: int = 0
    matched: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def fires(self, path: str) -> bool:
        """Return whether the rule spoils this request; counts it."""
        if not re.search(self.match, path) or (self.times is not None and self.fired >= self.times):
            return False
        self.matched += 1
        self.seen[path] = self.seen.get(path, 0) + 1
        if self.matched <= self.after:
            return False

        dice = make_key(f"{self.seed} {path} {self.seen[path]}") / 2**64
        if dice >= self.probability:
            return False
        self.fired += 1
        return True


def parse_rule(row: dict[str, Any]) -> Rule:
    """Return a rule from its JSON form; ValueError names what is wrong."""
    known = {each.name for each in fields(Rule)} - {"fired", "matched", "seen"}
    if unknown := set(row) - known:
        raise ValueError(
            f"a rule has no {', '.join(sorted(unknown))}; it may have {', '.join(sorted(known))}"
        )
    if row.get("kind") not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {row.get('kind')!r}")
    re.compile(row["match"])
    return Rule(**{**row, "bars": tuple(row.get("bars", ("junk",)))})


@dataclass
class Faults:
    """The rules in order; the first that fires decides."""

    rules: list[Rule] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def choose(self, path: str) -> Rule | None:
        """Return the rule that spoils a request, or None."""
        with self.lock:
            return next((rule for rule in self.rules if rule.fires(path)), None)

    def describe(self) -> list[dict[str, Any]]:
        """Return the rules and how often each matched and fired."""
        with self.lock:
            return [asdict(replace(rule, seen={})) for rule in self.rules]
