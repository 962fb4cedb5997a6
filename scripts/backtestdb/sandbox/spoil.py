"""What a rule makes of an answer: pure functions, the connection is the server's business."""

from dataclasses import replace
from datetime import date
from math import ceil

from backtestdb.sandbox.bad_bars import spoil_bars
from backtestdb.sandbox.endpoints import TOO_MANY, Payload, make_json_answer
from backtestdb.sandbox.faults import Rule
from backtestdb.sandbox.request import Answer

BAD_GATEWAY = (
    b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
)
GATEWAY = b"<html><head><title>Not here</title></head><body><h1>Please log in</h1></body></html>"


def make_fault_answer(rule: Rule) -> Answer | None:
    """Return the answer that stands in the place of the right one, if the rule has one."""
    if rule.kind == "server_error":
        return make_json_answer(500, {"status": "ERROR", "error": "internal error"})
    if rule.kind == "refusal":
        status = rule.word or ("NOT_FOUND" if rule.status == 404 else "NOT_AUTHORIZED")
        return make_json_answer(
            rule.status, {"status": status, "message": "This endpoint is not for you."}
        )

    if rule.kind == "bad_gateway":
        return Answer(502, BAD_GATEWAY, {"Content-Type": "text/html"})
    if rule.kind == "gateway":
        return Answer(rule.status, GATEWAY, {"Content-Type": "text/html", "Location": "/login"})

    if rule.kind == "too_many":
        headers = {} if rule.retry_after is None else {"Retry-After": str(ceil(rule.retry_after))}
        return (
            Answer(429, b"", headers)
            if rule.empty_body
            else make_json_answer(429, TOO_MANY, headers)
        )

    return None


def spoil_payload(rule: Rule, payload: Payload, today: date) -> Payload:
    """Return a payload with a foreign next_url, no rows, another frame, or bad bars."""
    if rule.kind == "foreign_next_url":
        return payload | {
            "next_url": f"{rule.root}/v2/aggs/ticker/X/range/1/day/0/1?cursor=bGltaXQ9MQ=="
        }

    if rule.kind == "missing_results":
        return {
            name: value for name, value in payload.items() if name not in ("results", "next_url")
        }

    if rule.kind == "bad_bars" and payload.get("results"):
        return payload | {"results": spoil_bars(payload["results"], rule.bars, today)}
    if rule.kind == "odd_frame":
        return payload | rule.changes
    if "resultsCount" in payload:
        return spoil_rows(rule, payload)

    return payload


def spoil_rows(rule: Rule, payload: Payload) -> Payload:
    """Return a payload of bars with fewer rows than there are, or none, or in another order."""
    rows = payload.get("results") or []
    none = {
        name: value
        for name, value in payload.items()
        if name not in ("results", "next_url", "count")
    }
    none |= {"resultsCount": 0, "queryCount": 0}
    if rule.kind == "null_results":
        return none | {"results": None}

    if rule.kind == "empty":
        return none
    if rule.kind == "fewer_rows":
        return payload | {"results": rows[: rule.rows]}

    if rule.kind == "few_rows":
        few = rows[: rule.rows]
        count = {"resultsCount": len(few), "queryCount": len(few), "count": len(few)}
        return none | count | {"results": few} if few else none

    if rule.kind == "shuffled":
        return payload | {"results": sorted(rows, key=lambda row: repr(row)[::-1])}

    return payload


def spoil_body(rule: Rule, answer: Answer) -> Answer:
    """Return a body that is complete as HTTP has it, and half of the JSON."""
    if rule.kind != "invalid_json":
        return answer
    return replace(answer, body=answer.body[: len(answer.body) // 2])
