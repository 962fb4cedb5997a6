"""`make serve`: the API, what is refused, and the page in a real browser."""

import http.client
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from backtestdb.page.guard import find_refusal
from backtestdb.page.read_only import restrict
from browser import CHROMIUM, Tab, running_browser
from commands import Project
from contents import digest_market
from mending import list_files, with_schedule
from sandbox_process import running_sandbox

END = "2013-03-01"
in_a_browser = pytest.mark.skipif(not CHROMIUM, reason="needs chromium (apt-get install chromium)")


@dataclass
class Server:
    """A running page."""

    project: Project
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and body; the path goes out as it is."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(
                method,
                path,
                headers={name.replace("_", "-"): text for name, text in headers.items()},
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def get_json(self, path: str) -> tuple[int, Any]:
        status, body = self.get(path)
        return status, json.loads(body)


@contextmanager
def running_server(project: Project) -> Iterator[Server]:
    process = project.start("serve_page.py", "--port", "0")
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("serving http://127.0.0.1:"), f"the page did not start: {line!r}"
        yield Server(project, int(line.split(":")[2].split("/")[0]), process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A database that was rebuilt from the sandbox, a month of one ticker taken out, with two
    backups and a file that is none."""
    with running_sandbox(today="2013-03-02") as sandbox:
        settings = {"WATCHLIST_TICKERS": "IBM,AAPL,MSFT,PARA"}
        project = with_schedule(
            Project(tmp_path_factory.mktemp("page"), sandbox.url, settings=settings)
        )
        project.check("restore_database.py", "--end", END)
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute(
            "DELETE FROM ohlcv_data WHERE ticker = 'IBM' AND timeframe = '1day'"
            " AND strftime('%Y-%m', timestamp / 1000, 'unixepoch') = '2012-06'"
        )
    project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    (project.folder / "backups" / "backtesting-2013-01-01-000000.db").write_bytes(b"foreign")
    return project


@pytest.fixture(scope="module")
def server(rebuilt: Project) -> Iterator[Server]:
    with running_server(rebuilt) as server:
        yield server


def test_page_gives_numbers_to_a_monitor_and_the_status_to_programs(server: Server) -> None:
    status, text = server.get("/metrics")
    assert status == 200
    assert "\nai_backtest_database_present 1\n" in text
    status, values = server.get_json("/status.json")
    assert (status, values["database"]["state"]) == (200, "present")


def test_universes_have_the_form_of_the_platforms_api(server: Server) -> None:
    status, body = server.get_json("/api/scanner/universes")
    assert (status, body["success"]) == (200, True)
    (universe,) = body["universes"]
    assert list(universe) == [
        "id",
        "name",
        "description",
        "total_stocks",
        "created_at",
        "updated_at",
    ]
    assert (universe["name"], universe["total_stocks"]) == ("tech_sector", 4)
    status, body = server.get_json("/api/scanner/universes/tech_sector")
    assert (status, body) == (200, {"success": True, "universe": universe})
    status, body = server.get_json("/api/scanner/universes/tech_sector/tickers")
    assert (status, body["tickers"]) == (200, ["AAPL", "IBM", "MSFT", "PARA"])
    assert body["universe"] == {name: universe[name] for name in ("id", "name", "description")}


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
    # With a rollback journal a commit waits for whoever reads: the page reads in short statements.
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
            server.get("/")


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
        _, err = first.process.communicate(timeout=30)
        assert (first.process.returncode, err) == (0, "")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with running_browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def assert_quiet(tab: Tab, server: Server) -> None:
    """No complaint, no request off this machine."""
    assert tab.errors == []
    strangers = [url for url in tab.requests if not url.startswith((server.url + "/", "data:"))]
    assert strangers == []
    tab.requests.clear()


@in_a_browser
@pytest.mark.parametrize("width", [1100, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_front_page_in_a_browser_shows_everything(
    server: Server, tab: Tab, width: int, dark: bool, tmp_path: Path
) -> None:
    tab.open(server.url + "/", width=width, dark=dark)
    while tab.evaluate(
        "document.querySelector('meta[http-equiv=refresh]') !== null"
    ):  # still counting
        tab.open(server.url + "/", width=width, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cells = tab.evaluate(
        "[...document.querySelectorAll('.heat td[title]')].map(cell => {"
        " const box = cell.getBoundingClientRect(); return [cell.title, box.width, box.height,"
        " getComputedStyle(cell).backgroundColor] })"
    )
    assert len(cells) == (3 + 10) + 3
    assert all(wide > 12 and high > 12 for _, wide, high, _ in cells)
    assert cells[0][0] == "2013-01: 84 of 84 sessions of tickers (100.0 %)"
    assert [title for title, *_ in cells if "(100.0 %)" not in title] == [
        "2012-06: 63 of 84 sessions of tickers (75.0 %)"
    ]
    assert len({color for *_, color in cells}) == 2
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 26)" if dark else "rgb(251, 251, 249)")
    text = tab.evaluate("document.body.innerText")
    for words in (
        "tech_sector, daily bars",
        "tech_sector, 5-minute bars",
        "newest full backup",
        "no manifest",
    ):
        assert words in text
    assert tab.evaluate("document.querySelectorAll('#bars rect').length") == 120
    assert tab.evaluate(
        "[...document.querySelectorAll('#backups rect')].map(bar => bar.className.baseVal)"
    ) == [
        "unverified",
        "full",
        "irreplaceable",
    ]
    assert_quiet(tab, server)
    tab.save_picture(tmp_path / "page.png")


@in_a_browser
@pytest.mark.parametrize(
    "path",
    [
        "/backtesting",
        "/backtesting/ohlcv_data?_sort=id&_facet=ticker",
        "/backtesting?sql=SELECT+1",
        "/-/settings",
    ],
)
def test_datasettes_own_pages_ask_nobody_else(server: Server, tab: Tab, path: str) -> None:
    tab.open(server.url + path, dark=True)
    assert "invert" in tab.evaluate("getComputedStyle(document.documentElement).filter")
    assert_quiet(tab, server)


@in_a_browser
def test_universes_from_a_rebuilt_database_arrive_in_the_browser(server: Server, tab: Tab) -> None:
    tab.open(server.url + "/api/scanner/universes")
    assert (
        json.loads(tab.evaluate("document.body.innerText"))["universes"][0]["name"] == "tech_sector"
    )
    assert_quiet(tab, server)
