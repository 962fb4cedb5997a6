"""The plugin that makes a page of Datasette: the routes, and the hooks that Datasette calls."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from datasette import hookimpl
from datasette.app import Datasette

from backtestdb.config import Settings
from backtestdb.health.facts import Facts, load_facts
from backtestdb.health.schedule_facts import User
from backtestdb.page import browse
from backtestdb.page.api import Api
from backtestdb.page.drawn import Drawn
from backtestdb.page.guard import App, guard
from backtestdb.page.read_only import restrict
from backtestdb.page.views import Views
from backtestdb.untouched import read_shared


class Page:
    """The plugin object: Datasette calls its hooks."""

    __name__ = "backtestdb_page"  # Datasette lists its plugins by name

    def __init__(self, settings: Settings, user: User) -> None:
        self.settings, self.user = settings, user
        drawn = Drawn(settings.database_path)
        self.views = Views(settings, drawn, self.load_facts)
        self.api = Api(settings, drawn, self.load_facts)

    def load_facts(self) -> Facts:
        return load_facts(self.settings, self.user, datetime.now(UTC), read=read_shared)

    @hookimpl
    def register_routes(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return the paths of the page with what answers them."""
        universes = r"^/api/scanner/universes"
        return [
            (r"^/$", self.views.show_front),
            (r"^/tickers/?$", self.views.show_tickers),
            (r"^/ticker/(?P<ticker>[^/]+)/?$", self.views.show_ticker),
            (
                r"^/coverage/(?P<universe>[^/]+)/(?P<timeframe>1day|5min)/(?P<month>\d{4}-\d\d)/?$",
                self.views.show_month,
            ),
            (r"^/-/(?P<name>page|datasette)\.(?P<form>css|js)$", self.views.send_static),
            (r"^/metrics$", self.api.show_metrics),
            (r"^/status.json$", self.api.show_status),
            (universes + r"/?$", self.api.answer_universes),
            (universes + r"/(?P<name>[^/]+)/?$", self.api.answer_universe),
            (universes + r"/(?P<name>[^/]+)/tickers/?$", self.api.answer_tickers),
        ]

    @hookimpl
    def asgi_wrapper(self) -> Callable[[App], App]:
        return guard

    @hookimpl
    def extra_css_urls(self) -> list[str]:
        return ["/-/datasette.css"]

    @hookimpl
    def extra_js_urls(self) -> list[dict[str, Any]]:
        # A module runs once the page is read.
        return [{"url": "/-/datasette.js", "module": True}]

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
        return {"group_tables": browse.group_tables, **self.views.shared_values(datasette)}
