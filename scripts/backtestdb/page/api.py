"""What programs ask for: the platform's universe API, the status as JSON, numbers for a monitor."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from datasette import Response

from backtestdb.config import Settings
from backtestdb.health.database_facts import make_absent_facts
from backtestdb.health.facts import Facts
from backtestdb.health.problems import judge
from backtestdb.health.prometheus import facts_as_prometheus
from backtestdb.health.report import facts_as_json
from backtestdb.page import scanner
from backtestdb.page.drawn import Drawn
from backtestdb.page.picture import name_holes
from backtestdb.untouched import read_shared

NOT_KEPT = {"cache-control": "no-store"}


class Api:
    """The handlers of these routes."""

    def __init__(self, settings: Settings, drawn: Drawn, look: Callable[[], Facts]) -> None:
        self.settings, self.drawn, self.load_facts = settings, drawn, look

    async def show_metrics(self) -> Response:
        """Answer for Prometheus on this machine."""
        facts = await asyncio.to_thread(self.load_facts)
        return Response(
            facts_as_prometheus(facts, judge(facts)),
            content_type="text/plain; version=0.0.4; charset=utf-8",
        )

    async def show_status(self) -> Response:
        """Answer with what `make status ARGS="--json --holes"` prints; without holes while they are
        counted for the first time."""
        facts = await asyncio.to_thread(self.load_facts)
        await self.drawn.wait(facts)
        is_known = self.drawn.counted_at and facts.universes
        holes = name_holes(self.drawn.picture) if is_known else None
        return Response(
            facts_as_json(facts, judge(facts), holes),
            content_type="application/json; charset=utf-8",
            headers=NOT_KEPT,
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
    return Response.json(body, status=status, headers=NOT_KEPT)
