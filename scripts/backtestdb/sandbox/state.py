"""What one running server holds: the exchange it plays, its settings, its faults and its memory."""

from dataclasses import dataclass, field, replace
from datetime import date
from threading import Event

from backtestdb.sandbox.exchange import Exchange
from backtestdb.sandbox.faults import Faults
from backtestdb.sandbox.flat_files import FlatFiles
from backtestdb.sandbox.journal import Journal, Window
from backtestdb.sandbox.listings import (
    RENAMES,
    Listing,
    Rename,
    make_listings,
    make_universe,
    rename_listings,
)
from backtestdb.sandbox.splits import Split, with_source_splits
from backtestdb.sandbox.subscription import Subscription


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How strict and how slow the server is; 0 requests a minute means no limit. `clock_seconds`:
    how far its clock is ahead."""

    keys: tuple[str, ...] = ("sandbox",)
    requests_per_minute: int = 0
    window_seconds: float = 60.0
    retry_after: bool = True
    latency_seconds: float = 0.0
    clock_seconds: float = 0.0
    plan: Subscription = field(default_factory=Subscription)


@dataclass(kw_only=True)
class Sandbox:
    """A server's state; exchange and settings change as a whole: a request sees one version."""

    exchange: Exchange
    settings: Settings
    faults: Faults = field(default_factory=Faults)
    journal: Journal = field(default_factory=Journal)
    windows: dict[str, Window] = field(default_factory=dict)
    released: Event = field(default_factory=Event)
    flat_files: FlatFiles = field(default_factory=FlatFiles)
    listings: list[Listing] = field(default_factory=list)

    def release(self) -> None:
        """End the waiting of every request that is being held."""
        held, self.released = self.released, Event()
        held.set()


def make_sandbox(
    settings: Settings,
    *,
    today: date,
    tickers: int,
    splits: tuple[Split, ...] = (),
    junk: bool = False,
) -> Sandbox:
    """Return a server's state at its start."""
    listings = make_listings(tickers)
    exchange = Exchange(
        universe=make_universe(listings), splits=with_source_splits(splits), today=today, junk=junk
    )
    return Sandbox(exchange=exchange, settings=settings, listings=listings)


def move_today(sandbox: Sandbox, today: date) -> None:
    """Let the sandbox live on another day."""
    sandbox.exchange = replace(sandbox.exchange, today=today)


def put_splits(sandbox: Sandbox, splits: tuple[Split, ...]) -> None:
    """Put the given splits in the place of all made-up ones."""
    sandbox.exchange = replace(sandbox.exchange, splits=with_source_splits(splits))


def put_renames(sandbox: Sandbox, renames: tuple[Rename, ...]) -> None:
    """Put the given renames in the place of all others but those of the real companies."""
    if renames == sandbox.exchange.renames[len(RENAMES) :]:
        return
    universe = make_universe(rename_listings(sandbox.listings, renames))
    sandbox.exchange = replace(sandbox.exchange, universe=universe, renames=(*RENAMES, *renames))
