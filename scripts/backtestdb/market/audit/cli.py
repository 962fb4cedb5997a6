"""`audit_database.py` behind its arguments: look, accept, or list the rules."""

import argparse
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime

from backtestdb.config import Settings
from backtestdb.console import DONE, FAILED, progress, say
from backtestdb.database import connect, table_names, transaction
from backtestdb.errors import DatabaseFileError, UsageError
from backtestdb.market.audit.accepted import (
    EVERY_SESSION,
    load_accepted,
    remove_accepted,
    save_accepted,
    save_audit,
)
from backtestdb.market.audit.mending import Mender
from backtestdb.market.audit.read import count_stored, load_known
from backtestdb.market.audit.report import make_json, print_result, print_rules
from backtestdb.market.audit.rules import RULES
from backtestdb.market.audit.run import AuditResult, audit
from backtestdb.market.sessions import load_calendar
from backtestdb.market.ticker_files import parse_ticker_file
from backtestdb.market.universes import TECH_SECTOR_FILE
from backtestdb.schema import ensure_schema

MARKET_TABLES = {"ohlcv_data", "daily_metrics"}
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def run_audit(settings: Settings, arguments: argparse.Namespace, now_utc: datetime) -> int:
    """Return the exit code: 1 when there are errors."""
    if arguments.rules:
        print_rules(RULES)
        return DONE
    with closing(connect(settings.database_path)) as connection:
        if arguments.accept or arguments.take_back:
            return change_accepted(connection, arguments, now_utc)
        require_market_tables(connection, settings)
        result = look(connection, settings, arguments.tickers, now_utc)
        if not arguments.tickers:
            record(connection, result, now_utc)
        if arguments.json:
            print(make_json(result))
        else:
            print_result(result, RULES, Mender(connection), show_all=arguments.all)

    return FAILED if result.count("error") else DONE


def require_market_tables(connection: sqlite3.Connection, settings: Settings) -> None:
    lacking = MARKET_TABLES - set(table_names(connection))
    if lacking:
        raise DatabaseFileError(
            f"{settings.database_path} has no table {' and no '.join(sorted(lacking))}",
            next_step="make restore",
        )


def look(
    connection: sqlite3.Connection, settings: Settings, only: Sequence[str], now_utc: datetime
) -> AuditResult:
    """Return the audit of all stored tickers, or of `only` these. Raise UsageError for a ticker of
    which nothing is stored."""
    watchlist = settings.watchlist_tickers or tuple(parse_ticker_file(TECH_SECTOR_FILE))
    known = load_known(connection, load_calendar(), now_utc, watchlist)
    stored = count_stored(connection)
    lacking = sorted(set(only) - {each.ticker for each in stored})
    if lacking:
        raise UsageError(f"nothing is stored of {', '.join(lacking)}")

    with progress("auditing tickers", len(only) or len(stored)) as advance:
        return audit(
            connection,
            known,
            accepted=load_accepted(connection),
            only=frozenset(only),
            advance=advance,
            stored=stored,
        )


def record(connection: sqlite3.Connection, result: AuditResult, now_utc: datetime) -> None:
    """Record when the audit was, for the schedule; a database that is read only stays as it is."""
    try:
        ensure_schema(connection, ["bookkeeping"])
        with transaction(connection):
            save_audit(connection, result.count("error"), result.count("warning"), now_utc)
    except sqlite3.OperationalError as error:
        say(f"this audit is not recorded: {error}")


def change_accepted(
    connection: sqlite3.Connection, arguments: argparse.Namespace, now_utc: datetime
) -> int:
    """Accept a finding, or accept it no longer; return the exit code. Raise UsageError when it is
    not accepted."""
    rule, ticker, session_date = parse_accepted(arguments.accept or arguments.take_back)
    ensure_schema(connection, ["bookkeeping"])
    where = f"{rule} of {ticker}, {session_date or 'every session'}"

    with transaction(connection):
        if arguments.accept:
            save_accepted(connection, rule, ticker, session_date, now_utc)
        elif not remove_accepted(connection, rule, ticker, session_date):
            raise UsageError(f"{where} is not accepted")

    print(f"{where}: {'accepted' if arguments.accept else 'no longer accepted'}")
    return DONE


def parse_accepted(words: Sequence[str]) -> tuple[str, str, str]:
    """Return rule, ticker and session of `--accept RULE TICKER [SESSION]`. Raise UsageError for
    words that cannot be these."""
    if len(words) not in {2, 3}:
        raise UsageError(f"{' '.join(words)!r} is not RULE TICKER [SESSION]")
    rule, ticker, session_date = (*words, EVERY_SESSION)[:3]
    if rule not in {each.id for each in RULES}:
        raise UsageError(f"there is no rule {rule!r}", next_step="make audit ARGS=--rules")
    if session_date and not is_date(session_date):
        raise UsageError(f"{session_date!r} is not a session like 2026-11-20")
    return rule, ticker, session_date


def is_date(text: str) -> bool:
    try:
        return bool(ISO_DATE.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False
