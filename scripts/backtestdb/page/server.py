"""The server: Datasette with our plugin, on 127.0.0.1 and nowhere else."""

import socket
from pathlib import Path

import uvicorn
from datasette.app import Datasette
from datasette.plugins import pm

from backtestdb.config import Settings
from backtestdb.errors import ProjectError
from backtestdb.health.schedule_facts import User
from backtestdb.page.plugin import Page
from backtestdb.page.views import follow_database

ADDRESS = "127.0.0.1"
DATASETTE_SETTINGS = {
    "allow_download": False,  # the whole file at once is what a backup is for
    "default_cache_ttl": 0,  # the database is alive: what a browser kept would be old
    "suggest_facets": False,  # costs seconds in a table of millions of bars
    "sql_time_limit_ms": 2000,
    # Its threads keep a connection by name, and with it a file that a restore moved away.
    "num_sql_threads": 0,
}


def open_port(port: int) -> socket.socket:
    """Return a socket that listens on `port`, 0 for a free one. Raise ProjectError when another
    program has it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ProjectError(
            f"port {port} of {ADDRESS} cannot be used: {error.strerror}",
            next_step="change PORT in .env, or stop the program that has it",
        ) from error

    return listener


def make_datasette(settings: Settings, user: User) -> Datasette:
    """Return Datasette with the page as its plugin, on the database of the settings."""
    # With rich installed, Datasette prints every refused query with all local variables.
    pm.get_plugin("datasette.handle_exception").rich = None

    page = Page(settings, user)
    pm.register(page, name="page")

    datasette = Datasette(
        [],
        cors=False,
        settings=DATASETTE_SETTINGS,
        template_dir=str(Path(__file__).with_name("templates")),
        metadata={"title": settings.database_path.name},
    )
    follow_database(datasette, settings.database_path, page.load_facts())
    return datasette


def serve(settings: Settings, user: User, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        make_datasette(settings, user).app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listener])
