"""The universe API and the schema of the platform itself, whose sources are not part of this
project: PLATFORM names checkouts of it, separated by colons. npm brings what its sources import;
a checkout whose backend/node_modules has tsx is used with that.

    PLATFORM=/its/checkout:/an/older/one ./db test-long tests/page/test_platform_itself.py
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from backtestdb.database import connect
from backtestdb.schema import ensure_schema
from commands import Project
from page_server import Server, running_server

ROUTES = Path(__file__).parents[1] / "support" / "platform_routes.js"
CHECKOUTS = [Path(each) for each in os.environ.get("PLATFORM", "").split(":") if each]
IMPORTED = ("express", "better-sqlite3", "axios", "uuid", "dotenv")
NAMES = [
    *("us-stocks", "tech_sector", "TECH_SECTOR", "Tech_Sector", "nope", "Älteste", "日本 株"),
    *("50%", "a/b", "a+b", "what?", "#1", "it's", 'the "few"', " blank "),
    *("../universes", "tickers"),
    *("%41", "x;y", "null", "1", "line\nbreak", "a" * 500),
]

pytestmark = [
    pytest.mark.long,  # npm compiles better-sqlite3: minutes
    pytest.mark.skipif(not CHECKOUTS, reason="PLATFORM names no checkout of the platform"),
]


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the platform's sources import, in the versions that its newest checkout asks for."""
    backend = CHECKOUTS[0] / "backend"
    if (backend / "node_modules" / ".bin" / "tsx").exists():
        return backend / "node_modules"
    if not shutil.which("npm"):
        pytest.skip("needs Node and npm")
    asked = json.loads((backend / "package.json").read_text())["dependencies"]
    packages = ["tsx@4", *(f"{name}@{asked[name]}" for name in IMPORTED)]
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-fund", "--no-audit", "--prefix", str(folder), *packages]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install {packages}: {installed.stderr[-300:]}")
    return folder / "node_modules"


@pytest.fixture(params=CHECKOUTS, ids=lambda path: path.name)
def backend(request: pytest.FixtureRequest, node_modules: Path, tmp_path: Path) -> Path:
    """The platform's backend in a folder of its own, because it writes logs beside its sources."""
    folder = tmp_path / "backend"
    shutil.copytree(request.param / "backend" / "src", folder / "src")
    (folder / "node_modules").symlink_to(node_modules)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Universes and members that were stored in no order, some under odd names."""
    project = Project(tmp_path)
    with closing(connect(project.database, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("BEGIN")
        for number, name in enumerate(
            name for name in NAMES if name not in {"nope", "Tech_Sector"}
        ):
            when = "2024-05-01 10:00:00" if number % 3 else None
            description = (None, "", f"“{name}” – the {number} <largest> & \u2028 others")[
                number % 3
            ]
            connection.execute(
                "INSERT INTO universe VALUES (?, ?, ?, ?, ?, ?)",
                (99 - 2 * number, name, description, number * 10**14, when, when),
            )
        for universe in range(99, 50, -2):
            for ticker, active in (("ZS", 1), ("brk.b", 1), ("GONE", 0), ("A", 1), ("BRK.A", 1)):
                connection.execute(
                    "INSERT INTO universe_stocks (universe_id, ticker, is_active) SELECT ?, ?, ?"
                    " WHERE EXISTS (SELECT 1 FROM universe WHERE id = ?)",
                    (universe, ticker, active, universe),
                )
        # A platform of tomorrow adds columns.
        connection.execute("ALTER TABLE universe ADD COLUMN note TEXT DEFAULT 'added later'")
        connection.execute("COMMIT")
    return project


@contextmanager
def running_routes(backend: Path, project: Project) -> Iterator[Server]:
    process = subprocess.Popen(
        ["node", "--require", "tsx/cjs", ROUTES, backend, project.database],
        cwd=backend,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        found = None
        while not found and (line := process.stdout.readline()):
            found = re.match(r"port (\d+)$", line)
        assert found, process.communicate()[1]
        yield Server(project, int(found[1]), process)
    finally:
        process.kill()
        process.communicate()


def in_bytes(answer: tuple[int, str]) -> tuple[int, bytes]:
    """Status and body with its keys sorted; a number stays as it is spelled."""
    status, body = answer
    parsed = json.loads(body, parse_int=str, parse_float=str)
    return status, json.dumps(parsed, sort_keys=True, ensure_ascii=False).encode()


def load_schema(database: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"
        ).fetchall()


def test_universe_routes_answer_as_the_platforms_own(backend: Path, project: Project) -> None:
    paths = ["", "/"]
    for name in NAMES:
        paths += [f"/{quote(name, safe='')}{end}" for end in ("", "/", "/tickers", "/tickers/")]

    with running_routes(backend, project) as theirs, running_server(project) as ours:
        different = []
        for path in paths:
            expected, got = (
                in_bytes(server.get(f"/api/scanner/universes{path}")) for server in (theirs, ours)
            )
            if got != expected:
                different.append((path, expected, got))
    assert not different, "\n".join(map(str, different))


def test_the_platform_changes_no_table_of_ours_when_it_starts(
    backend: Path, project: Project
) -> None:
    """A later one creates its further tables; all that we create it finds as it wants them."""
    before = load_schema(project.database)
    with running_routes(backend, project):
        after = load_schema(project.database)
    assert set(before) <= set(after)
    print("created:", sorted(name for _, name, _ in set(after) - set(before)))


def test_the_platform_finds_nothing_to_create_after_a_rebuild_with_its_own_schema(
    backend: Path, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    schema = backend / "src" / "database" / "schema.sql"
    said = project.check("restore_database.py", "--skip-backfill", PLATFORM_SCHEMA=str(schema))
    assert "the rest from PLATFORM_SCHEMA" in said
    before = load_schema(project.database)
    with running_routes(backend, project):
        assert load_schema(project.database) == before
