"""The page in a real Chromium: what is seen, clicked, typed, and that nothing leaves the
machine."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, Tab
from commands import Project
from page_server import Server, running_server

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium (apt-get install chromium)")

MONTH = "/coverage/tech_sector/1day/2012-08"
OWN_PAGES = ["/", "/tickers", "/tickers?order=holes", MONTH, "/ticker/AAPL", "/backtesting"]
DATASETTES_PAGES = [
    *("/backtesting/ohlcv_data", "/backtesting/ohlcv_data?_sort=id&_facet=ticker"),
    *("/backtesting/ohlcv_data?ticker__exact=AAPL&_sort_desc=timestamp", "/backtesting/universe/1"),
    "/backtesting/bars_of_a_ticker?ticker=AAPL&timeframe=1day",
    *("/backtesting?sql=SELECT+1", "/backtesting?sql=SELEC", "/backtesting/no_such_table"),
]
# Text below 11 px, and text whose contrast with what is behind it is below 4.5:1.
POOR_TEXT = """
(() => {
  const parse = (color) => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const luminance = (rgb) => rgb.map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.a === 1) return color.rgb;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!hasText || !element.getClientRects().length || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const two = [luminance(parse(style.color).rgb), luminance(paper(element))];
    two.sort((a, b) => b - a);
    const contrast = (two[0] + 0.05) / (two[1] + 0.05);
    if (parseFloat(style.fontSize) < 11 || contrast < 4.5)
      poor.push([element.outerHTML.slice(0, 90), style.fontSize, contrast]);
  }
  return poor;
})()
"""


def open_drawn(tab: Tab, url: str, width: int = 1100, dark: bool = False) -> None:
    """Open a page, again as long as the bars are still being counted."""
    tab.open(url, width=width, dark=dark)
    while tab.evaluate("document.querySelector('main').dataset.drawn") == "no":
        tab.open(url, width=width, dark=dark)


def assert_quiet(tab: Tab, server: Server) -> None:
    """No complaint, no request off this machine."""
    assert tab.errors == []
    strangers = [url for url in tab.requests if not url.startswith((server.url + "/", "data:"))]
    assert strangers == []


def test_front_page_shows_everything(server: Server, tab: Tab) -> None:
    open_drawn(tab, server.url + "/")
    cells = tab.evaluate(
        "[...document.querySelectorAll('.heat a')].map(a => [a.title, a.className, a.textContent])"
    )
    assert len(cells) == (3 + 10) + 3
    assert [cell for cell in cells if cell[1] != "h5"] == [
        [
            "2012-06: 63 of 84 sessions of tickers stored, 21 known empty, 1 ticker with a gap",
            "h5 gap",
            "100 % of 2012-06: 63 of 84 sessions of tickers stored, 21 known empty, "
            "1 ticker with a gap",
        ],
        [
            "2012-08: 69 of 92 sessions of tickers stored, 23 holes",
            "h3",
            "75 % of 2012-08: 69 of 92 sessions of tickers stored, 23 holes",
        ],
        [
            "2012-09: 57 of 76 sessions of tickers stored, 19 holes",
            "h3",
            "75 % of 2012-09: 57 of 76 sessions of tickers stored, 19 holes",
        ],
    ]
    text = tab.evaluate("document.body.innerText")
    for words in (
        "tech_sector, daily bars",
        "tech_sector, 5-minute bars",
        "newest full backup",
        "no manifest",
        "last session\n2013-03-01",
        "MSFT 42",
    ):
        assert words in text
    assert tab.evaluate("document.querySelectorAll('#bars rect').length") == 120
    lanes = "[...document.querySelectorAll('#backups .lane')].map(lane => lane.innerHTML)"
    full, small = tab.evaluate(lanes)
    assert full.count('class="full"') == 1
    assert small.count('class="small"') == 1
    assert_quiet(tab, server)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_of_every_page_is_large_enough_and_stands_out_on_a_phone(
    server: Server, tab: Tab, dark: bool
) -> None:
    for path in OWN_PAGES:
        open_drawn(tab, server.url + path, width=390, dark=dark)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert tab.evaluate(POOR_TEXT) == [], path
    assert_quiet(tab, server)


def test_every_link_of_the_front_page_leads_somewhere(server: Server, tab: Tab) -> None:
    open_drawn(tab, server.url + "/")
    links = set(tab.evaluate("[...document.querySelectorAll('a')].map(a => a.href)"))
    paths = {link.removeprefix(server.url).partition("#")[0] for link in links}
    assert {"/tickers", MONTH, "/ticker/MSFT", "/backtesting", "/status.json"} <= paths
    assert {path: server.get(path)[0] for path in paths} == dict.fromkeys(paths, 200)


def test_click_leads_from_a_cell_of_the_map_to_the_candles_of_a_ticker(
    server: Server, tab: Tab
) -> None:
    open_drawn(tab, server.url + "/")
    tab.follow(f"document.querySelector('.heat a[href=\"{MONTH}\"]').click()")
    text = tab.evaluate("document.querySelector('main').innerText")
    assert "23 sessions asked for and not answered" in text
    assert 'make backfill-daily ARGS="--universe tech_sector' in text
    tab.follow("document.querySelector('tbody a').click()")
    assert tab.evaluate("document.title") == "MSFT · backtesting.db"
    days = tab.evaluate("JSON.parse(document.querySelector('#days script').textContent).points")
    assert len(days) == 250 - 42
    assert days[-1][0] == "2013-03-01"
    bodies = tab.evaluate(
        "[...document.querySelectorAll('#days .rising, #days .falling')]"
        ".map(path => path.getAttribute('d').split('M').length - 1)"
    )
    assert sum(bodies) == 250 - 42
    states = tab.evaluate("document.querySelector('[data-part=states]').innerText")
    assert "42 not answered yet: 2012-08-01 to 2012-09-28" in states
    assert_quiet(tab, server)


def test_page_of_a_ticker_shows_its_split_its_short_session_and_the_bar_under_the_cursor(
    server: Server, tab: Tab
) -> None:
    open_drawn(tab, server.url + "/ticker/AAPL?day=2013-02-21")
    assert tab.evaluate("[...document.querySelectorAll('.flag')].map(e => e.innerText)") == [
        "4:1 split on 2012-08-01"
    ]
    counted = tab.evaluate("document.querySelector('[data-part=counted]').innerText")
    assert "1 of 21 sessions have fewer: 2013-02-21 75 of 78" in counted
    times = tab.evaluate(
        "JSON.parse(document.querySelector('#minutes script').textContent).points.map(p => p[0])"
    )
    assert "09:55" in times
    assert not {"10:00", "10:05", "10:10"} & set(times)

    tab.evaluate("document.querySelector('#days .cursor').focus()")
    before = tab.evaluate("document.querySelector('#days output').innerText")
    tab.press("ArrowLeft")
    after = tab.evaluate("document.querySelector('#days output').innerText")
    assert before.startswith("2013-03-01 open ")
    assert after.startswith("2013-02-28 open ")
    assert_quiet(tab, server)


def test_keyboard_alone_finds_a_ticker(server: Server, tab: Tab) -> None:
    open_drawn(tab, server.url + "/")
    tab.press("/", "/")
    assert tab.evaluate("document.activeElement.name") == "q"
    tab.call("Input.insertText", text="ib")
    loads = tab.loads
    tab.press("Enter", "\r")
    while tab.loads == loads:
        tab.receive()
    rows = "[...document.querySelectorAll('tbody tr')].map(row => row.innerText)"
    (row,) = tab.evaluate(rows)
    assert row.split() == [
        *("IBM", "tech_sector", "2011-05-17", "2013-03-01", "429", "2,550", "0", "–")
    ]
    assert tab.evaluate("document.querySelector('.skip').matches('a[href=\"#content\"]')")
    assert_quiet(tab, server)


def test_copy_button_gives_the_command(server: Server, tab: Tab) -> None:
    open_drawn(tab, server.url + MONTH)
    copied = tab.await_value(
        "new Promise((done) => { navigator.clipboard.writeText = async (text) => done(text);"
        " document.querySelector('button.copy').click(); })"
    )
    assert copied == (
        'make backfill-daily ARGS="--universe tech_sector --start 2012-03-02 --end 2013-03-01"'
    )


def test_page_renews_what_changed_and_leaves_the_rest_alone(
    rebuilt: Project, tab: Tab, tmp_path: Path
) -> None:
    places = {"OFFSITE": str(tmp_path / "elsewhere"), "LAKE": str(tmp_path / "lake")}
    project = replace(rebuilt, settings=rebuilt.settings | places)
    with running_server(project) as server:
        open_drawn(tab, server.url + "/")
        tab.evaluate(
            "document.querySelector('#coverage').isOld = true;document.querySelector('#bars "
            "details').open = true;document.querySelector('#tables "
            "a').focus();document.querySelector('[data-part=seen]').textContent = 'long ago'"
        )
        tab.await_value("refreshPage()")
        assert tab.evaluate("document.querySelector('#coverage').isOld") is True
        assert tab.evaluate("document.querySelector('#bars details').open") is True
        assert "seen 20" in tab.evaluate("document.querySelector('[data-part=seen]').textContent")
        assert tab.evaluate("document.activeElement.textContent") == "Look into the tables"
        assert tab.evaluate("document.querySelector('#unreached').hidden") is True
        text = tab.evaluate("document.body.innerText")
        assert "nothing sent yet" in text
        assert "nothing was published from this machine: make publish" in text
        assert_quiet(tab, server)
    tab.await_value("refreshPage()")
    assert tab.evaluate("document.querySelector('#unreached').hidden") is False


@pytest.mark.parametrize(
    "path",
    ["/backtesting/ohlcv_data?_sort=id&_facet=ticker", "/backtesting?sql=SELECT+1", "/-/settings"],
)
def test_datasettes_own_pages_send_no_request_elsewhere(
    server: Server, tab: Tab, path: str
) -> None:
    tab.open(server.url + path, dark=True)
    assert "invert" in tab.evaluate("getComputedStyle(document.documentElement).filter")
    assert tab.evaluate("document.querySelector('html[lang=en] [role=main] h1') !== null")
    assert_quiet(tab, server)


def test_universes_from_a_rebuilt_database_arrive_in_the_browser(server: Server, tab: Tab) -> None:
    tab.open(server.url + "/api/scanner/universes")
    assert (
        json.loads(tab.evaluate("document.body.innerText"))["universes"][0]["name"] == "tech_sector"
    )
    assert_quiet(tab, server)


@pytest.fixture(scope="module")
def axe(pytestconfig: pytest.Config) -> str:
    """The script of axe-core (MPL-2.0), fetched once into the tests' cache and in no other way part
    of the project."""
    assert pytestconfig.cache
    folder = pytestconfig.cache.mkdir("axe-core")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if not npm:
            pytest.skip("axe-core: needs npm")
        command = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=0"]
        done = subprocess.run(
            [*command, "--prefix", str(folder), "axe-core@4.14.1"],
            capture_output=True,
            check=False,
            timeout=240,
        )
        if done.returncode or not script.exists():
            pytest.skip("axe-core: npm cannot be reached")
    return script.read_text()


def run_axe(tab: Tab, axe: str) -> Any:
    """Return the rules that are broken, and where."""
    tab.evaluate(f"{axe}; 0")
    return tab.await_value(
        "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))"
    )


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_axe_finds_nothing_on_any_page(
    server: Server, tab: Tab, axe: str, width: int, dark: bool, tmp_path: Path
) -> None:
    """Also leaves a picture of each page where pytest keeps its files (--basetemp)."""
    for number, path in enumerate([*OWN_PAGES, "/ticker/NOPE"]):
        open_drawn(tab, server.url + path, width=width, dark=dark)
        tab.save_picture(tmp_path / f"{number}.png")
        assert run_axe(tab, axe) == [], path


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_axe_finds_nothing_on_datasettes_pages(
    server: Server, tab: Tab, axe: str, width: int, dark: bool
) -> None:
    for path in DATASETTES_PAGES:
        tab.open(server.url + path, width=width, dark=dark)
        assert run_axe(tab, axe) == [], path
