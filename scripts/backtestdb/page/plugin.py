"""The plugin that makes a page of Datasette: the routes, and the hooks that Datasette calls."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, date, datetime
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
from backtestdb.page import browse, scanner
from backtestdb.page.drawn import Drawn
from backtestdb.page.front import make_front
from backtestdb.page.guard import App, guard
from backtestdb.page.heat_map import make_month_page
from backtestdb.page.picture import name_holes
from backtestdb.page.read_only import restrict
from backtestdb.page.ticker import load_ticker
from backtestdb.page.ticker_pages import Search, load_ticker_list, make_ticker_page
from backtestdb.untouched import read_shared

STATIC_DIR = Path(__file__).with_name("static")
STATIC_TYPES = {"css": "text/css", "js": "text/javascript"}
FIRST_YEAR, LAST_YEAR = 1970, 2100
NOT_KEPT = {"cache-control": "no-store"}
# Datasette's own pages know no dark: turned round, they are.
DARK_STYLE = (
    "@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(.9) "
    "hue-rotate(180deg) } }"
)


class Page:
    """The plugin object: Datasette calls its hooks and the handlers of its routes."""

    __name__ = "backtestdb_page"  # Datasette lists its plugins by name

    def __init__(self, settings: Settings, user: User) -> None:
        self.settings, self.user = settings, user
        self.drawn = Drawn(settings.database_path)

    @hookimpl
    def register_routes(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return the paths of the page with what answers them."""
        universes = r"^/api/scanner/universes"
        return [
            (r"^/$", self.show_front),
            (r"^/tickers/?$", self.show_tickers),
            (r"^/ticker/(?P<ticker>[^/]+)/?$", self.show_ticker),
            (
                r"^/coverage/(?P<universe>[^/]+)/(?P<timeframe>1day|5min)/(?P<month>\d{4}-\d\d)/?$",
                self.show_month,
            ),
            (r"^/-/page\.(?P<form>css|js)$", self.send_static),
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

    @hookimpl
    def get_metadata(self, datasette: Datasette) -> dict[str, Any]:
        return browse.make_metadata(list(datasette.databases))

    @hookimpl
    def canned_queries(self, datasette: Datasette, database: str) -> Any:
        async def load() -> dict[str, dict[str, str]]:
            tables = await browse.list_tables(datasette.get_database(database))
            return {
                query.name: {"sql": query.sql, "title": query.title, "description": query.example}
                for query in browse.load_named_queries(tables)
            }

        return load

    @hookimpl
    def render_cell(self, column: str, value: object) -> Any:
        return browse.show_value(column, value)

    @hookimpl
    def extra_template_vars(self, view_name: str, datasette: Datasette) -> dict[str, Any]:
        if view_name != "database":
            return {}
        return {"group_tables": browse.group_tables, **self.shared_values(datasette)}

    async def show_front(self, datasette: Datasette) -> Response:
        """Answer with how everything stands."""
        facts = await asyncio.to_thread(self.load_facts)
        name = follow_database(datasette, self.settings.database_path, facts)
        is_drawn = await self.drawn.wait(facts)
        own = load_own_catalogue(
            self.settings.backup_dir, self.settings.database_path, facts.database.database_id
        )
        catalogue = [backup for backup in own if not backup.other_database]
        path = datasette.urls.database(name) if name else ""
        values = make_front(facts, catalogue, self.drawn.picture, path)
        return await self.render(datasette, "front.html", {"is_drawn": is_drawn, **values})

    async def show_tickers(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the tickers that fit the search."""
        if (absent := self.find_absence()) is not None:
            return await self.render(datasette, "notice.html", absent, 503)
        is_drawn = await self.draw()
        search = Search.of(request.args)
        values = await self.read(
            lambda connection: load_ticker_list(connection, search, self.drawn.picture)
        )
        return await self.render(datasette, "tickers.html", {"is_drawn": is_drawn, **values})

    async def show_ticker(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the bars of one ticker, or 404."""
        if (absent := self.find_absence()) is not None:
            return await self.render(datasette, "notice.html", absent, 503)
        ticker, day = unquote(request.url_vars["ticker"]), parse_date(request.args.get("day"))
        is_drawn = await self.draw()
        data = await self.read(lambda connection: load_ticker(connection, ticker, day))
        values = make_ticker_page(ticker, data, self.drawn.picture)
        if values is None:
            what = f"{ticker}: no universe has this ticker, and no bar of it is stored"
            return await self.render(
                datasette, "notice.html", {"title": "Not found", "what": what}, 404
            )
        return await self.render(datasette, "ticker.html", {"is_drawn": is_drawn, **values})

    async def show_month(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the tickers that lack a session of a month, or 404."""
        if (absent := self.find_absence()) is not None:
            return await self.render(datasette, "notice.html", absent, 503)
        universe, timeframe, month = (
            unquote(request.url_vars[name]) for name in ("universe", "timeframe", "month")
        )
        facts = await asyncio.to_thread(self.load_facts)
        is_drawn = await self.drawn.wait(facts)
        of = [c for c in facts.universes if (c.universe, c.timeframe) == (universe, timeframe)]
        states = [
            s
            for s in self.drawn.picture.states
            if (s.universe, s.timeframe) == (universe, timeframe)
        ]
        values = make_month_page(of[0], states[0], month) if of and states else None
        if values is not None:
            return await self.render(datasette, "month.html", {"is_drawn": is_drawn, **values})
        if of and not is_drawn:
            what = "The bars are being counted for the first time; this page asks again."
            return await self.render(
                datasette, "notice.html", {"title": month, "what": what, "is_drawn": False}
            )
        what = f"{universe}, {timeframe}, {month}: nothing was asked for of this month"
        return await self.render(
            datasette, "notice.html", {"title": "Not found", "what": what}, 404
        )

    async def render(
        self, datasette: Datasette, template: str, values: dict[str, Any], status: int = 200
    ) -> Response:
        shared = self.shared_values(datasette)
        html = await datasette.render_template(template, {**shared, **values})
        return Response.html(html, status=status, headers=NOT_KEPT)

    def shared_values(self, datasette: Datasette) -> dict[str, Any]:
        """Return what the frame of each page shows."""
        name, stem = self.settings.database_path.name, self.settings.database_path.stem
        counted = datetime.fromtimestamp(self.drawn.counted_at, UTC).astimezone()
        return {
            "database_name": name,
            "is_drawn": True,
            "tables_path": datasette.urls.database(stem) if stem in datasette.databases else "",
            "counted_at": f"{counted:%H:%M:%S}" if self.drawn.counted_at else "",
        }

    async def send_static(self, request: Any) -> Response:
        form = request.url_vars["form"]
        text = (STATIC_DIR / f"page.{form}").read_text()
        return Response(
            text,
            content_type=f"{STATIC_TYPES[form]}; charset=utf-8",
            headers={"cache-control": "no-cache"},
        )

    async def show_dark_style(self) -> Response:
        return Response(DARK_STYLE, content_type="text/css")

    async def show_metrics(self) -> Response:
        """Answer for Prometheus on this machine."""
        facts = await asyncio.to_thread(self.load_facts)
        return Response(
            facts_as_prometheus(facts, judge(facts)),
            content_type="text/plain; version=0.0.4; charset=utf-8",
        )

    async def show_status(self) -> Response:
        """Answer with what `make status ARGS="--json --holes"` prints; without holes while they are
        counted."""
        facts = await asyncio.to_thread(self.load_facts)
        holes = name_holes(self.drawn.picture) if await self.drawn.wait(facts) else None
        return Response(
            facts_as_json(facts, judge(facts), holes),
            content_type="application/json; charset=utf-8",
            headers=NOT_KEPT,
        )

    def load_facts(self) -> Facts:
        return load_facts(self.settings, self.user, datetime.now(UTC), read=read_shared)

    def find_absence(self) -> dict[str, Any] | None:
        """Return what is said in the place of a page when there is no database, None when there is
        one."""
        path = self.settings.database_path
        absent = make_absent_facts(path, self.settings.origins["DATABASE_PATH"])
        if absent is None:
            return None
        return {"title": "No database", "what": f"{path}: {absent.state}", "command": "make status"}

    async def draw(self) -> bool:
        """Return whether the picture is that of the bars. A page that needs it only in part does
        not wait for the rest of the facts once there is one."""
        if self.drawn.is_recent():
            return True
        return await self.drawn.wait(await asyncio.to_thread(self.load_facts))

    async def read(self, look: Callable[[sqlite3.Connection], Any]) -> Any:
        return await asyncio.to_thread(read_shared, self.settings.database_path, look)

    async def answer_universes(self) -> Response:
        return await self.answer(scanner.load_universes)

    async def answer_universe(self, request: Any) -> Response:
        name = unquote(request.url_vars["name"])
        return await self.answer(lambda connection: scanner.load_universe(connection, name))

    async def answer_tickers(self, request: Any) -> Response:
        name = unquote(request.url_vars["name"])
        return await self.answer(lambda connection: scanner.load_universe_tickers(connection, name))

    async def answer(self, load: Callable[[sqlite3.Connection], scanner.Body | None]) -> Response:
        """Answer with JSON of what `load` finds; 404 for None, 503 where the database cannot be
        read."""
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


def parse_date(text: str | None) -> date | None:
    """Return the date that a text names; None for anything else, and for a year that no bar can
    have."""
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return None
    return day if FIRST_YEAR <= day.year <= LAST_YEAR else None


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
