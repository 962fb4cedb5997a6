"""The pages that people look at: what answers each of their routes."""

import asyncio
import functools
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasette import Response
from datasette.app import Datasette
from datasette.database import Database

from backtestdb.backups.identity import load_own_catalogue
from backtestdb.config import Settings
from backtestdb.health.database_facts import make_absent_facts
from backtestdb.health.facts import Facts
from backtestdb.page.drawn import Drawn
from backtestdb.page.front import make_front
from backtestdb.page.heat_map import make_month_page
from backtestdb.page.picture import Picture
from backtestdb.page.ticker import load_ticker
from backtestdb.page.ticker_pages import Search, load_ticker_list, make_ticker_page
from backtestdb.untouched import read_shared

STATIC_DIR = Path(__file__).with_name("static")
STATIC_TYPES = {"css": "text/css", "js": "text/javascript"}
FIRST_YEAR, LAST_YEAR = 1970, 2100
NOT_KEPT = {"cache-control": "no-store"}
Handler = Callable[["Views", Any, Datasette], Awaitable[Response]]


def of_a_database(handler: Handler) -> Handler:
    """Given what answers from the database, return what says so in words where there is none, or
    where it cannot be read now."""

    @functools.wraps(handler)
    async def answer(self: "Views", request: Any, datasette: Datasette) -> Response:
        absent = self.find_absence()
        if absent is None:
            try:
                return await handler(self, request, datasette)
            except sqlite3.Error as error:
                what = f"The database cannot be read now: {error}"
                absent = {"title": "Not readable", "what": what, "command": "make status"}
        return await self.render(datasette, "notice.html", absent, 503)

    return answer


class Views:
    """The handlers of these routes."""

    def __init__(self, settings: Settings, drawn: Drawn, look: Callable[[], Facts]) -> None:
        self.settings, self.drawn, self.load_facts = settings, drawn, look

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
        picture = self.drawn.picture if facts.universes else Picture()
        values = make_front(facts, catalogue, picture, path)

        return await self.render(datasette, "front.html", {"is_drawn": is_drawn, **values})

    @of_a_database
    async def show_tickers(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the tickers that fit the search."""
        is_drawn = await self.draw()
        search = Search.of(request.args)
        values = await self.read(
            lambda connection: load_ticker_list(connection, search, self.drawn.picture)
        )
        return await self.render(datasette, "tickers.html", {"is_drawn": is_drawn, **values})

    @of_a_database
    async def show_ticker(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the bars of one ticker, or 404."""
        ticker, day = unquote(request.url_vars["ticker"]), parse_date(request.args.get("day"))
        is_drawn = await self.draw()
        data = await self.read(lambda connection: load_ticker(connection, ticker, day))
        values = make_ticker_page(ticker, data, self.drawn.picture)
        if values is None:
            what = f"{ticker}: no universe has this ticker, and no bar of it is stored"
            return await self.show_not_found(datasette, what)
        return await self.render(datasette, "ticker.html", {"is_drawn": is_drawn, **values})

    @of_a_database
    async def show_month(self, request: Any, datasette: Datasette) -> Response:
        """Answer with the tickers that lack a session of a month, or 404."""
        wanted = tuple(unquote(request.url_vars[name]) for name in ("universe", "timeframe"))
        month = unquote(request.url_vars["month"])
        facts = await asyncio.to_thread(self.load_facts)
        is_drawn = await self.drawn.wait(facts)
        coverages = {(each.universe, each.timeframe): each for each in facts.universes}
        drawn = {(each.universe, each.timeframe): each for each in self.drawn.picture.states}

        if wanted in coverages and wanted in drawn:
            values = make_month_page(coverages[wanted], drawn[wanted], month)
            if values is not None:
                return await self.render(datasette, "month.html", {"is_drawn": is_drawn, **values})
        elif wanted in coverages and not is_drawn:
            what = "The bars are being counted for the first time; this page asks again."
            values = {"title": month, "what": what, "is_drawn": False}
            return await self.render(datasette, "notice.html", values)
        what = f"{', '.join(wanted)}, {month}: nothing was asked for of this month"
        return await self.show_not_found(datasette, what)

    async def show_not_found(self, datasette: Datasette, what: str) -> Response:
        values = {"title": "Not found", "what": what}
        return await self.render(datasette, "notice.html", values, 404)

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
        name, form = request.url_vars["name"], request.url_vars["form"]
        text = (STATIC_DIR / f"{name}.{form}").read_text()
        return Response(
            text,
            content_type=f"{STATIC_TYPES[form]}; charset=utf-8",
            headers={"cache-control": "no-cache"},
        )

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
