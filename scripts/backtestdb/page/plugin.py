"""What Datasette is taught: the front page, the universe API, reading only."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasette import Response, hookimpl
from datasette.app import Datasette
from datasette.database import Database

from backtestdb.backups.identity import load_own_catalogue
from backtestdb.config import Settings
from backtestdb.health.database_facts import make_absent_facts
from backtestdb.health.facts import Facts, load_facts
from backtestdb.health.problems import judge
from backtestdb.health.prometheus import facts_as_prometheus
from backtestdb.health.report import facts_as_json
from backtestdb.health.schedule_facts import User
from backtestdb.page import scanner
from backtestdb.page.front import Picture, make_front
from backtestdb.page.guard import App, guard
from backtestdb.page.picture import load_days, load_months
from backtestdb.page.read_only import restrict
from backtestdb.timeframes import TIMEFRAMES
from backtestdb.untouched import read_shared

WAIT_SECONDS = 1.5
NO_PICTURE = Picture([], {})
# Datasette's own pages know no dark: turned round, they are.
DARK_STYLE = (
    "@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(.9) "
    "hue-rotate(180deg) } }"
)


class Page:
    """The plugin object: Datasette calls its hooks. It remembers the last picture, which takes
    seconds to count in a large database, until a bar is added or removed."""

    __name__ = "backtestdb_page"  # Datasette lists its plugins by name

    def __init__(self, settings: Settings, user: User) -> None:
        self.settings, self.user = settings, user
        self.drawn: tuple[object, Picture] = (None, NO_PICTURE)
        self.drawing: asyncio.Task[None] | None = None

    @hookimpl
    def register_routes(self) -> list[tuple[str, Callable[..., Any]]]:
        universes = r"^/api/scanner/universes"
        return [
            (r"^/$", self.show_front),
            (r"^/-/dark.css$", self.show_dark_style),
            (r"^/metrics$", self.show_metrics),
            (r"^/status.json$", self.show_status),
            (universes + r"/?$", self.answer_universes),
            (universes + r"/(?P<name>[^/]+)/?$", self.answer_universe),
            (universes + r"/(?P<name>[^/]+)/tickers/?$", self.answer_tickers),
        ]

    @hookimpl
    def asgi_wrapper(self) -> Callable[[App], App]:
        return guard

    @hookimpl
    def extra_css_urls(self) -> list[str]:
        return ["/-/dark.css"]

    @hookimpl
    def prepare_connection(self, conn: sqlite3.Connection, database: str) -> None:
        if database != "_internal":
            restrict(conn)

    async def show_front(self, datasette: Datasette) -> Response:
        facts = await asyncio.to_thread(self.load_facts)
        name = follow_database(datasette, self.settings.database_path, facts)
        is_drawn = await self.wait_for_picture(facts)
        own = load_own_catalogue(
            self.settings.backup_dir, self.settings.database_path, facts.database.database_id
        )
        catalogue = [backup for backup in own if not backup.other_database]
        picture = self.drawn[1] if facts.universes else NO_PICTURE
        values = {"is_drawn": is_drawn} | make_front(
            facts, catalogue, picture, datasette.urls.database(name) if name else ""
        )
        return Response.html(
            await datasette.render_template("front.html", values),
            headers={"cache-control": "no-store"},
        )

    async def show_dark_style(self) -> Response:
        return Response(DARK_STYLE, content_type="text/css")

    async def show_metrics(self) -> Response:
        """For Prometheus on this machine."""
        facts = await asyncio.to_thread(self.load_facts)
        return Response(
            facts_as_prometheus(facts, judge(facts)),
            content_type="text/plain; version=0.0.4; charset=utf-8",
        )

    async def show_status(self) -> Response:
        """Return what `make status ARGS=--json` prints."""
        facts = await asyncio.to_thread(self.load_facts)
        return Response(
            facts_as_json(facts, judge(facts)),
            content_type="application/json; charset=utf-8",
            headers={"cache-control": "no-store"},
        )

    def load_facts(self) -> Facts:
        return load_facts(self.settings, self.user, datetime.now(UTC), read=read_shared)

    async def wait_for_picture(self, facts: Facts) -> bool:
        """Return whether the picture shows the bars that are there now. Nobody waits longer than
        WAIT_SECONDS: counting goes on, and the page asks again."""
        if not facts.universes:
            return True
        if self.drawing is None or self.drawing.done():
            self.drawing = asyncio.create_task(asyncio.to_thread(self.draw, facts))
        await asyncio.wait({self.drawing}, timeout=WAIT_SECONDS)
        if not self.drawing.done():
            return False
        self.drawing.result()
        return True

    def draw(self, facts: Facts) -> None:
        path = self.settings.database_path
        mark = read_shared(path, mark_market_data)
        if self.drawn[0] != mark:
            self.drawn = (
                mark,
                read_shared(path, lambda connection: draw_picture(connection, facts)),
            )

    async def answer_universes(self) -> Response:
        return await self.answer(scanner.load_universes)

    async def answer_universe(self, request: Any) -> Response:
        name = unquote(request.url_vars["name"])
        return await self.answer(lambda connection: scanner.load_universe(connection, name))

    async def answer_tickers(self, request: Any) -> Response:
        name = unquote(request.url_vars["name"])
        return await self.answer(lambda connection: scanner.load_universe_tickers(connection, name))

    async def answer(self, load: Callable[[sqlite3.Connection], scanner.Body | None]) -> Response:
        """JSON of what `load` finds; 404 for None, 503 where the database cannot be read."""
        path = self.settings.database_path
        absent = make_absent_facts(path, self.settings.origins["DATABASE_PATH"])
        try:
            body = None if absent else await asyncio.to_thread(read_shared, path, load)
        except sqlite3.Error as error:
            return make_json(
                {"success": False, "error": f"the database cannot be read: {error}"}, 503
            )
        if absent:
            return make_json(
                {"success": False, "error": f"the database is {absent.state} (make status)"}, 503
            )
        return make_json(scanner.NOT_FOUND, 404) if body is None else make_json(body)


def make_json(body: scanner.Body, status: int = 200) -> Response:
    return Response.json(body, status=status, headers={"cache-control": "no-store"})


def mark_market_data(connection: sqlite3.Connection) -> object:
    """Another value once a bar or a member was added: look-ups at the ends of the tables."""
    return connection.execute(
        "SELECT (SELECT max(id) FROM ohlcv_data), (SELECT min(id) FROM ohlcv_data),"
        " (SELECT total(is_active) FROM universe_stocks)"
    ).fetchone()


def draw_picture(connection: sqlite3.Connection, facts: Facts) -> Picture:
    months = [(coverage, load_months(connection, coverage)) for coverage in facts.universes]
    days = {}
    for timeframe in TIMEFRAMES:
        last = max((c.last for c in facts.universes if c.timeframe == timeframe), default="")
        days[timeframe] = load_days(connection, timeframe, last)
    return Picture(months, days)


def follow_database(datasette: Datasette, path: Path, facts: Facts) -> str:
    """Give Datasette the file that is at `path` now, which a restore may have put there; return its
    name, empty where there is nothing to show."""
    name = path.stem
    shown = datasette.databases.get(name)
    inode = path.stat().st_ino if facts.database.tables else None
    if shown and shown.inode != inode:
        datasette.remove_database(name)
        shown.close()
        shown = None
    if inode is None:
        return ""
    if shown is None:
        database = Database(datasette, path=str(path), is_mutable=True)
        database.inode = inode
        datasette.add_database(database, name=name)
    return name
