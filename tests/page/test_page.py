"""`make serve`: the API, what is refused, and what is followed."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from backtestdb.page.guard import find_refusal
from backtestdb.page.read_only import restrict
from commands import Project
from contents import digest_market
from mending import list_files
from page_server import Server, running_server

# What is read in parts, ended after two seconds, or wrong.
READS = [
    "/",
    "/ticker/AAPL",
    "/tickers",
    "/backtesting/ohlcv_data.csv?_stream=1&_size=max&ticker=AAPL",
    "/backtesting.json?sql=SELECT+*+FROM+ohlcv_data",
    "/backtesting.json?sql=SELECT+sum(a.id*b.id)+FROM+ohlcv_data+a,+ohlcv_data+b",
    "/backtesting.json?sql=SELECT+abs(-9223372036854775808)+FROM+ohlcv_data",
]


def test_page_gives_numbers_to_a_monitor_and_the_status_to_programs(server: Server) -> None:
    status, text = server.get("/metrics")
    assert status == 200
    assert "\nai_backtest_database_present 1\n" in text
    status, values = server.get_json("/status.json")
    assert (status, values["database"]["state"]) == (200, "present")
    assert [holes["failed_of"] for holes in values["holes"]] == [{"MSFT": 42}, {}]


def test_status_of_a_program_names_the_holes(rebuilt: Project) -> None:
    """The same as the page, counted by the command itself."""
    values = json.loads(rebuilt.check("show_status.py", "--json", expect=1))
    assert [holes["failed_of"] for holes in values["holes"]] == [{"MSFT": 42}, {}]


@pytest.mark.parametrize(
    "name", ["nope", "TECH_SECTOR", "%27%20OR%201=1--", "..%2f..%2fetc%2fpasswd", "%00", "a%20b"]
)
@pytest.mark.parametrize("rest", ["", "/tickers"])
def test_unknown_universe_is_404_with_the_platforms_body(
    server: Server, name: str, rest: str
) -> None:
    status, body = server.get_json(f"/api/scanner/universes/{name}{rest}")
    assert (status, body) == (404, {"success": False, "error": "Universe not found"})


@pytest.mark.parametrize(
    "path",
    [
        "/ticker/NOPE",
        "/ticker/%3Cscript%3E",
        "/coverage/tech_sector/1day/1999-01",
        "/coverage/nope/1day/2012-08",
        "/coverage/tech_sector/1day/2012-99",
    ],
)
def test_page_of_what_is_not_there_is_404_in_words(server: Server, path: str) -> None:
    status, body = server.get(path)
    assert status == 404
    assert "Not found" in body
    assert "<script>" not in body.replace('<script src="/-/page.js"', "")


@pytest.mark.parametrize(
    ("query", "tickers"),
    [
        ("", ["AAPL", "IBM", "MSFT", "PARA"]),
        ("?q=a", ["AAPL", "PARA"]),
        ("?q=%25", []),
        ("?order=holes", ["MSFT"]),
        ("?universe=nope", []),
        ("?page=99999", ["AAPL", "IBM", "MSFT", "PARA"]),
        ("?page=-1&order=%27", ["AAPL", "IBM", "MSFT", "PARA"]),
    ],
)
def test_list_of_tickers_answers_whatever_is_typed(
    server: Server, query: str, tickers: list[str]
) -> None:
    status, body = server.get("/tickers" + query)
    assert status == 200
    assert re.findall(r'<th scope="row"><a href="/ticker/(\w+)">', body) == tickers


def test_list_of_tickers_names_the_last_split_that_was_not_withdrawn(server: Server) -> None:
    assert "4:1, 2012-08-01" in server.get("/tickers?q=AAPL")[1]


@pytest.mark.parametrize("day", ["2013-02-21", "2013-02-23", "1999-01-01", "nope", "9999-12-31"])
def test_page_of_a_ticker_answers_any_day(server: Server, day: str) -> None:
    assert server.get(f"/ticker/AAPL?day={day}")[0] == 200


def test_tables_come_in_the_users_order_with_named_questions(server: Server) -> None:
    status, body = server.get("/backtesting")
    assert status == 200
    places = [body.index(f">{name}</a>") for name in ("trading_agents", "universe", "ohlcv_data")]
    assert places == sorted(places)
    assert "_ranges_asked" not in body
    questions = re.findall(r'<li><a href="(/backtesting/[^"]+)"', body)
    assert [path.partition("?")[0].split("/")[2] for path in questions] == [
        "agents_and_their_iterations",
        "bars_of_a_ticker",
        "coverage",
        "holes_of_a_ticker",
    ]
    rows = {path: server.get_json(to_json(path))[1]["rows"] for path in map(unescape, questions)}
    assert all(rows.values()), rows
    agents = next(found for path, found in rows.items() if "agents" in path)
    assert agents[0][0] == "Opening range"
    holes = next(found for path, found in rows.items() if "holes" in path)
    assert len(holes) == 42


def to_json(path: str) -> str:
    name, _, query = path.partition("?")
    return f"{name}.json?{query}"


def test_times_of_the_tables_can_be_read_and_tickers_lead_to_their_pages(server: Server) -> None:
    _, body = server.get("/backtesting/ohlcv_data?ticker=AAPL&timeframe=5min&_sort_desc=timestamp")
    assert re.search(r">2013-03-01 \d\d:\d\d:00 New York</time> <small>13621\d+</small>", body)
    assert '<a href="/ticker/AAPL">AAPL</a>' in body
    _, body = server.get("/backtesting/ohlcv_data?ticker=AAPL&timeframe=1day&_sort_desc=timestamp")
    assert ">2013-03-01</time> <small>1362114000000</small>" in body


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM universe",
        "WITH x AS (SELECT 1) DELETE FROM universe",
        "SELECT 1; DELETE FROM universe",
        "ATTACH '{folder}/stolen.db' AS stolen",
        "VACUUM INTO '{folder}/stolen.db'",
        "PRAGMA query_only = OFF",
        "SELECT * FROM pragma_query_only(0)",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('/tmp/x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT length(randomblob(2000000000))",
    ],
)
def test_sql_that_writes_or_leaves_the_database_is_refused(server: Server, sql: str) -> None:
    folder = server.project.folder
    before = digest_market(server.project.database)
    status, body = server.get_json(f"/backtesting.json?sql={quote(sql.format(folder=folder))}")
    assert status == 400
    assert body["ok"] is False
    assert digest_market(server.project.database) == before
    assert not (folder / "stolen.db").exists()


def test_sql_that_reads_is_answered(server: Server) -> None:
    status, body = server.get_json("/backtesting.json?sql=SELECT+name+FROM+universe")
    assert (status, body["rows"]) == (200, [["tech_sector"]])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/backtesting.db", {403}),
        ("/backups/", {302, 404}),
        ("/.env", {404}),
        ("/-/static/../../../../../../etc/passwd", {404}),
        ("/-/static/%2e%2e/%2e%2e/app.py", {404}),
        ("/-/static//etc/passwd", {404}),
        ("/..%2f..%2fetc/passwd", {302, 404}),
        ("//evil.example/", {400}),
        ("/\\evil.example/", {400}),
    ],
)
def test_other_files_and_path_tricks_get_nothing(
    server: Server, path: str, expected: set[int]
) -> None:
    status, body = server.get(path)
    assert status in expected
    assert "root:" not in body
    assert "API_KEY" not in body


@pytest.mark.parametrize("path", ["/", "/api/scanner/universes", "/backtesting/universe.json"])
def test_names_of_other_hosts_and_pages_of_other_sites_are_refused(
    server: Server, path: str
) -> None:
    assert server.get(path)[0] == 200
    assert server.get(path, Host="localhost:9999")[0] == 200
    assert server.get(path, Host="evil.example")[0] == 403
    assert server.get(path, Host=f"127.0.0.1.evil.example:{server.port}")[0] == 403
    assert server.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    assert server.get(path, "POST")[0] == 405
    assert server.get(path, "DELETE")[0] == 405


def test_link_from_another_site_may_lead_here_and_a_query_from_there_may_not() -> None:
    headers = {
        b"host": b"localhost:3000",
        b"sec-fetch-site": b"cross-site",
        b"sec-fetch-mode": b"navigate",
    }
    assert find_refusal("GET", b"/", b"", headers) is None
    assert find_refusal("GET", b"/backtesting", b"sql=SELECT+1", headers) is not None
    assert find_refusal("GET", b"/", b"", headers | {b"sec-fetch-dest": b"iframe"}) is not None
    assert find_refusal("GET", b"/", b"", {}) is not None


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "CREATE TEMP TABLE u (a)",
        "ATTACH ':memory:' AS other",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "SELECT load_extension('x')",
    ],
)
def test_connection_of_the_page_refuses_by_itself(tmp_path: Path, sql: str) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a)")
        restrict(connection)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
            connection.execute(sql)


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_page_shows_what_was_committed_a_moment_ago(
    rebuilt: Project, tmp_path: Path, journal: str
) -> None:
    project = Project(tmp_path)
    shutil.copy(rebuilt.database, project.database)
    # With a rollback journal a commit waits for every reader: the page reads in short statements.
    with closing(sqlite3.connect(project.database, timeout=60)) as writer:
        writer.execute(f"PRAGMA journal_mode = {journal}")
        check_commits_are_shown(project, writer)


def check_commits_are_shown(project: Project, writer: sqlite3.Connection) -> None:
    with running_server(project) as server:
        for name in ("first", "second"):
            writer.execute("INSERT INTO universe (name) VALUES (?)", (name,))
            writer.commit()
            assert name in server.get("/api/scanner/universes")[1]
            assert name in server.get("/backtesting/universe.json")[1]
        if writer.execute("PRAGMA journal_mode").fetchone() != ("delete",):
            return
        for path in READS:
            server.get(path)
        # No read is left open, not by a query that was cut off, interrupted or refused either.
        writer.execute("BEGIN EXCLUSIVE")
        # A writer that has the file for itself: the page says so, and is whole afterwards.
        status, body = server.get("/ticker/AAPL")
        assert (status, "cannot be read now: database is locked" in body) == (503, True)
        assert server.get("/")[0] == 200
        writer.rollback()
        assert server.get("/ticker/AAPL")[0] == 200


def test_page_without_a_database_says_so_and_follows_the_restored_one(
    rebuilt: Project, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    with running_server(project) as server:
        status, body = server.get("/")
        assert status == 200
        assert "there is no database at" in body
        assert "<code>make restore</code>" in body
        assert server.get_json("/api/scanner/universes")[0] == 503
        shutil.copy(rebuilt.database, project.database)
        assert "there is no database at" not in server.get("/")[1]
        assert server.get_json("/backtesting/universe.json?_shape=array")[0] == 200
        arriving = tmp_path / "arriving"
        shutil.copy(rebuilt.database, arriving)
        with closing(sqlite3.connect(arriving)) as connection, connection:
            connection.execute("UPDATE universe SET name = 'restored'")
        arriving.replace(project.database)
        server.get("/")
        assert "restored" in server.get("/backtesting/universe.json?_shape=array")[1]
        project.database.write_bytes(b"\xff" * 8192)
        status, body = server.get("/")
        assert status == 200
        assert "is damaged" in body


def test_serving_changes_no_file_of_the_user(rebuilt: Project, server: Server) -> None:
    before = [
        entry for entry in list_files(rebuilt.folder) if not entry[0].endswith(("-shm", "-wal"))
    ]
    for path in ("/", "/backtesting", "/backtesting/ohlcv_data", "/api/scanner/universes"):
        assert server.get(path)[0] == 200
    assert [
        entry for entry in list_files(rebuilt.folder) if not entry[0].endswith(("-shm", "-wal"))
    ] == before


def test_taken_port_is_named_and_sigterm_ends_with_0(rebuilt: Project) -> None:
    with running_server(rebuilt) as first:
        done = rebuilt.run("serve_page.py", PORT=str(first.port))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"port {first.port} of 127.0.0.1 cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
        first.process.terminate()
        _, err = first.process.communicate(timeout=120)
        assert (first.process.returncode, err) == (0, "")
