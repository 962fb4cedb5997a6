"""What needs the user about the lake, its place, engine or holes, without the lake's packages."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backtestdb.config import Settings
from backtestdb.health.problem import Problem, ok, wrong
from backtestdb.lake.summary import describe_loss

PORTS = {"http": 80, "https": 443, "tcp": 8786, "tls": 8786}
ANSWER_SECONDS = 3.0


def check_lake(settings: Settings) -> list[Problem]:
    """Given the settings, return what was looked at: the lake's place, and its engine where that is
    a cluster. Empty without a LAKE, and nothing is asked then."""
    if not settings.lake:
        return []

    findings = [check_place(settings)]
    if settings.engine != "processes":
        findings.append(check_engine(settings.engine))
    return findings


def judge_lake(facts: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Given what `lake_facts` says, return each universe with sessions that could not be
    fetched."""
    for row in (facts or {}).get("coverage", ()):
        # Sessions that are merely not asked for yet count too: nothing else brings them.
        if row["failed"]:
            yield Problem(
                "lake_holes",
                f"lake, {row['universe']}, 5 minutes: {row['failed']:,} of {row['expected']:,} "
                "sessions of tickers are not there",
                f'make backfill-lake ARGS="--universe {row["universe"]} '
                f'--start {row["start_date"]} --end {row["end_date"]}"',
                where="lake",
            )


def check_place(settings: Settings) -> Problem:
    """Judge whether the lake's folder or server is there."""
    if settings.lake.startswith("s3://"):
        return check_server(settings)

    if loss := describe_loss(settings):
        return wrong("lake", loss, "connect its disk, or change LAKE")

    folder = Path(settings.lake)
    if folder.is_dir() or folder.parent.is_dir():
        return ok(
            "lake",
            f"{folder} is there" if folder.is_dir() else f"{folder}: make publish will make it",
        )

    return wrong(
        "lake",
        f"{folder.parent}, where LAKE is to be, is not there",
        "connect its disk, or change LAKE",
    )


def check_server(settings: Settings) -> Problem:
    """Judge whether the S3 server of the lake answers, and has keys to be asked with."""
    if not settings.lake_access_key or not settings.lake_secret_key:
        return wrong(
            "lake",
            f"{settings.lake} has no keys",
            "write LAKE_ACCESS_KEY and LAKE_SECRET_KEY into .env",
        )

    url = settings.lake_endpoint or f"https://s3.{settings.lake_region}.amazonaws.com"
    reason = find_silence(url)
    if reason:
        return wrong(
            "lake",
            f"{url} does not answer ({reason})",
            "start the S3 server, or change LAKE_ENDPOINT",
        )

    return ok("lake", f"{url} answers")


def check_engine(engine: str) -> Problem:
    """Return a problem when no scheduler answers at the address ENGINE."""
    reason = find_silence(engine)
    if reason:
        return wrong(
            "engine",
            f"no Dask scheduler answers at ENGINE={engine} ({reason})",
            "start it (dask scheduler), or leave ENGINE empty for processes of this machine",
        )
    return ok("engine", f"{engine} answers")


def find_silence(url: str) -> str:
    """Return why nothing answers at an address; "" when something does."""
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS[parts.scheme]
        with socket.create_connection((parts.hostname or "", port), timeout=ANSWER_SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
