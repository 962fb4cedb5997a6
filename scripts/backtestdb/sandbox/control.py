"""The control plane under /_sandbox/: how tests look at the server and change what it plays.

GET log (?since=N), DELETE log; GET, POST, DELETE faults; POST release, today, splits, settings,
missing, renames, reset. No key is needed: the server listens on 127.0.0.1 only.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date
from typing import Any

import orjson

from backtestdb.sandbox.faults import parse_rule
from backtestdb.sandbox.listings import Rename
from backtestdb.sandbox.splits import parse_split
from backtestdb.sandbox.state import Sandbox, Settings, move_today, put_renames, put_splits
from backtestdb.sandbox.subscription import Subscription

Payload = dict[str, Any]


def answer_control(
    sandbox: Sandbox, method: str, name: str, params: dict[str, str], body: bytes
) -> tuple[int, Payload]:
    """Return status and payload of a control call; 400 says what was wrong with it."""
    call = CALLS.get((method, name))
    if call is None:
        return 404, {"error": f"there is no {method} /_sandbox/{name}"}
    try:
        return 200, call(sandbox, {**params, **orjson.loads(body or b"{}")})
    except (ValueError, KeyError, TypeError) as error:
        return 400, {"error": f"{type(error).__name__}: {error}"}


def read_log(sandbox: Sandbox, given: Payload) -> Payload:
    """Return requests from number `since` on, and the most of one key in any one window."""
    entries = sandbox.journal.read(int(given.get("since", 0)))
    most = max((window.most for window in sandbox.windows.values()), default=0)
    return {"requests": entries, "most_in_window": most}


def clear_log(sandbox: Sandbox, given: Payload) -> Payload:  # noqa: ARG001
    """Forget the requests; the windows go on."""
    sandbox.journal.clear()
    for window in sandbox.windows.values():
        window.most = 0
    return {}


def read_faults(sandbox: Sandbox, given: Payload) -> Payload:  # noqa: ARG001
    """Return the rules and how often each fired."""
    return {"rules": sandbox.faults.describe()}


def add_faults(sandbox: Sandbox, given: Payload) -> Payload:
    """Put `rules` behind those that are there."""
    rules = [parse_rule(row) for row in given["rules"]]
    with sandbox.faults.lock:
        sandbox.faults.rules += rules
    return read_faults(sandbox, given)


def clear_faults(sandbox: Sandbox, given: Payload) -> Payload:  # noqa: ARG001
    """Remove all rules, and let go of what they hold."""
    with sandbox.faults.lock:
        sandbox.faults.rules.clear()
    sandbox.release()
    return {}


def release(sandbox: Sandbox, given: Payload) -> Payload:  # noqa: ARG001
    """Let go who is being held by a time-out or a slow answer."""
    sandbox.release()
    return {}


def set_today(sandbox: Sandbox, given: Payload) -> Payload:
    """Move the sandbox to the day `today`."""
    move_today(sandbox, date.fromisoformat(given["today"]))
    return {"today": sandbox.exchange.today.isoformat()}


def set_splits(sandbox: Sandbox, given: Payload) -> Payload:
    """Put the given `splits` in the place of all made-up ones; none without any."""
    put_splits(sandbox, tuple(parse_split(row) for row in given.get("splits", [])))
    return {"splits": len(sandbox.exchange.splits)}


def set_settings(sandbox: Sandbox, given: Payload) -> Payload:
    """Change some of the settings, `history_years`, `free` and `junk` among them."""
    plan_names = {each.name for each in fields(Subscription)}
    names = {each.name for each in fields(Settings)}
    of_exchange = {"junk", "unfinished"}

    known = (names - {"plan"}) | plan_names | of_exchange
    if unknown := set(given) - known:
        raise ValueError(
            f"there is no setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(known))}"
        )

    settings = sandbox.settings
    of_plan = {name: given[name] for name in plan_names & given.keys()}
    if "refused_tickers" in of_plan:
        of_plan["refused_tickers"] = tuple(of_plan["refused_tickers"])

    plan = replace(settings.plan, **of_plan)
    changed = {name: given[name] for name in names & given.keys()}
    if "keys" in changed:
        changed["keys"] = tuple(changed["keys"])

    sandbox.settings = replace(settings, plan=plan, **changed)
    switches: Payload = {name: bool(given[name]) for name in of_exchange & given.keys()}
    sandbox.exchange = replace(sandbox.exchange, **switches)
    return {}


def set_missing(sandbox: Sandbox, given: Payload) -> Payload:
    """Leave out the bars of sessions, in the place of any others: `sessions`, each with a `session`
    and, where it concerns one ticker only, a `ticker`."""
    missing = tuple(
        (row.get("ticker"), date.fromisoformat(row["session"])) for row in given["sessions"]
    )
    sandbox.exchange = replace(sandbox.exchange, missing=missing)
    return {"missing": len(missing)}


def set_renames(sandbox: Sandbox, given: Payload) -> Payload:
    """Let companies change their ticker, in the place of any others: `renames`, each with `ticker`,
    `successor` and `day`."""
    renames = [
        Rename(str(row["ticker"]), str(row["successor"]), date.fromisoformat(row["day"]))
        for row in given["renames"]
    ]
    put_renames(sandbox, tuple(renames))
    return {"renames": len(renames)}


def reset(sandbox: Sandbox, given: Payload) -> Payload:
    """Make the vendor honest on the day `today`: no faults, no missing session, no made-up split or
    rename, a subscription without limits, the right clock."""
    clear_faults(sandbox, given)
    move_today(sandbox, date.fromisoformat(given["today"]))
    put_splits(sandbox, ())
    put_renames(sandbox, ())
    sandbox.exchange = replace(sandbox.exchange, missing=(), unfinished=False)
    sandbox.settings = replace(sandbox.settings, plan=Subscription(), clock_seconds=0)
    return {}


CALLS: dict[tuple[str, str], Callable[[Sandbox, Payload], Payload]] = {
    ("GET", "log"): read_log,
    ("DELETE", "log"): clear_log,
    ("GET", "faults"): read_faults,
    ("POST", "faults"): add_faults,
    ("DELETE", "faults"): clear_faults,
    ("POST", "release"): release,
    ("POST", "today"): set_today,
    ("POST", "splits"): set_splits,
    ("POST", "settings"): set_settings,
    ("POST", "missing"): set_missing,
    ("POST", "reset"): reset,
    ("POST", "renames"): set_renames,
}
