"""What the parts of bench_offsite.py share: databases like those of an agent platform, and a place
to send to."""

import json
import random
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from backtestdb.database import connect
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.seal import make_data_key
from backtestdb.offsite.send import Sender
from backtestdb.offsite.state import load_state
from backtestdb.offsite.store import FolderStore
from backtestdb.schema import ensure_schema

TEXT = (
    "breakout volume momentum reversal support resistance gap earnings trend moving average signal "
    "stop loss target entry exit morning session sector rotation risk position size hold intraday "
    "swing confidence pattern failed confirmed retest higher lower close open range volatility "
    "compression expansion squeeze drift fade chase scale"
)
WORDS = TEXT.split()


def make_irreplaceable(database: Path, megabytes: float) -> random.Random:
    """Make a database with so many megabytes of agents' work; return the dice."""
    chance = random.Random(1)
    with closing(connect(database, create=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        ensure_schema(connection)
        connection.execute("BEGIN")
        while connection.execute("PRAGMA page_count").fetchone()[0] * 4096 < megabytes * 1e6:
            add_work(connection, chance, 500, 1_700_000_000_000)
        connection.execute("COMMIT")
    return chance


def add_work(
    connection: sqlite3.Connection, chance: random.Random, count: int, moment_ms: int
) -> None:
    """Add `count` insights, each with a strategy and six trades."""
    for _ in range(count):
        agent = f"agent-{chance.randrange(25)}"
        connection.execute(
            "INSERT INTO agent_knowledge (id, agent_id, knowledge_type, insight, created_at)"
            " VALUES (?, ?, 'pattern', ?, ?)",
            (f"{chance.getrandbits(128):032x}", agent, sentence(chance, 40), str(moment_ms)),
        )
        config = json.dumps({word: round(chance.random() * 100, 3) for word in WORDS[:12]})
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            "VALUES (?, 'AAPL', '5min', ?)",
            (sentence(chance, 3), config),
        )
        connection.executemany(
            "INSERT INTO trades (backtest_id, ticker, side, entry_timestamp, entry_price, quantity)"
            " VALUES (?, ?, 'LONG', ?, ?, ?)",
            [
                (
                    1,
                    chance.choice(("AAPL", "MSFT")),
                    moment_ms + n,
                    chance.random() * 400,
                    chance.randrange(500),
                )
                for n in range(6)
            ],
        )


def sentence(chance: random.Random, count: int) -> str:
    """Return `count` words, one in five of them a number."""
    return " ".join(
        chance.choice(WORDS) if chance.random() < 0.8 else f"{chance.random() * 500:.2f}"
        for _ in range(count)
    )


def make_sender(folder: Path, clock: list[datetime]) -> Sender:
    """Return a sender to a new folder store; `clock[0]` is its time."""
    state_folder = folder / "state"
    state_folder.mkdir(parents=True)
    return Sender(
        remote=Remote(FolderStore(folder / "elsewhere"), make_data_key()),
        state=load_state(state_folder),
        folder=state_folder,
        clock=lambda: clock[0],
    )
