"""The audit's result as people and programs read it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from backtestdb.console import format_duration, print_table
from backtestdb.market.audit.mending import Mender
from backtestdb.market.audit.rule import Finding, Rule
from backtestdb.market.audit.run import AuditResult

SHOWN_OF_A_RULE = 10


def print_result(
    result: AuditResult, rules: Sequence[Rule], mender: Mender, *, show_all: bool
) -> None:
    """Print the findings as a table, SHOWN_OF_A_RULE of each rule unless `show_all`, then the
    commands that mend them."""
    by_rule = [
        (rule_id, list(found))
        for rule_id, found in groupby(result.findings, lambda each: each.rule)
    ]
    if by_rule:
        print_table(
            "Findings",
            ("rule", "level", "ticker", "first", "last", "sessions", "what (of the first)"),
            [row for _, found in by_rule for row in make_rows(found, show_all=show_all)],
        )

    mend_of = {rule.id: rule.mend for rule in rules}
    for rule_id, found in by_rule:
        for group in mender.group(found):
            print(f"next ({rule_id}): {mender.command(mend_of[rule_id], group)}")

    print(describe_result(result))


def make_rows(found: Sequence[Finding], *, show_all: bool) -> list[list[object]]:
    """Return table rows for findings of one rule, and one for those that are not shown."""
    shown = found if show_all else found[:SHOWN_OF_A_RULE]
    rows: list[list[object]] = []
    for each in shown:
        ends = each.first_session or "–", each.last_session or "–"
        rows.append([each.rule, each.level, each.ticker, *ends, each.sessions, each.what])

    more = found[len(shown) :]
    if more:
        rule, level, sessions = found[0].rule, found[0].level, sum(each.sessions for each in more)
        count, way = f"{len(more):,} more", "ARGS=--all shows them"
        rows.append([rule, level, count, "–", "–", sessions, way])

    return rows


def describe_result(result: AuditResult) -> str:
    """Return one line: what was read, how many rules, how long it took, what was found."""
    read = (
        f"{result.tickers:,} tickers, {result.day_bars:,} day bars, {result.minute_bars:,} "
        f"5-minute bars and {result.metrics:,} rows of metrics against {result.rules} rules in "
        f"{format_duration(result.seconds)}"
    )

    accepted = f", {result.accepted:,} sessions accepted" if result.accepted else ""
    errors, warnings = result.count("error"), result.count("warning")
    found = f"{errors:,} errors, {warnings:,} warnings" if result.findings else "nothing found"
    return f"{read}: {found}{accepted}"


def make_json(result: AuditResult) -> str:
    return json.dumps({"ok": not result.count("error"), **asdict(result)}, indent=1)


def print_rules(rules: Sequence[Rule]) -> None:
    print_table(
        "Rules: it is wrong when …",
        ("rule", "level", "it is wrong when", "source"),
        [[rule.id, rule.level, rule.checks, rule.source] for rule in rules],
    )
