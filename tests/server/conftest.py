"""One browser for all tests of the pages in a worker, and one server with programs of every kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.browser import Page, chromium
from tests.server.pages import reset_size
from tests.server.pages_programs import programs
from tests.server.support import Live, serving

from dspy_live.server import create_app


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab that the tests share, without a page yet."""
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="session")
def guide() -> Iterator[Live]:
    """A server of the programs of ``pages_programs``."""
    with serving(create_app(programs(), title="River guide")) as server:
        yield server


@pytest.fixture
def quiet_tab(tab: Page) -> Iterator[Page]:
    """The tab; a test fails where its pages logged errors that it has not cleared."""
    tab.errors.clear()
    yield tab
    reset_size(tab)
    tab.evaluate("0")  # takes in what was logged last
    errors, tab.errors = tab.errors, []
    assert errors == []
