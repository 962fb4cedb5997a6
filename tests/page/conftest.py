"""What all tests of the page share: one database, one server, one browser."""

from collections.abc import Iterator

import pytest

from browser import Tab, running_browser
from commands import Project
from page_server import Server, make_shown_project, running_server


@pytest.fixture(scope="session")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """See make_shown_project; not to be changed."""
    return make_shown_project(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def server(rebuilt: Project) -> Iterator[Server]:
    with running_server(rebuilt) as server:
        while 'data-drawn="no"' in server.get("/")[1]:  # on a slow machine: still being counted
            pass
        yield server


@pytest.fixture(scope="module")
def browser_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with running_browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser_tab: Tab) -> Tab:
    """The browser's only tab, with nothing remembered of the test before."""
    browser_tab.open("about:blank")
    browser_tab.requests.clear()
    browser_tab.errors.clear()
    return browser_tab
