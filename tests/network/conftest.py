"""One site for all tests of a worker; each test runs on its client's host, and every cable is good before it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tests.network.site import Site, running_site

_SITES: list[Site] = []


@pytest.fixture(scope="session")
def whole_site() -> Iterator[Site]:
    """The site of this worker."""
    with running_site() as site:
        _SITES.append(site)
        yield site
        _SITES.clear()


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, in good order; the test's own sockets are on the client's host."""
    whole_site.lm.reset()
    try:
        with whole_site.client.inside():
            yield whole_site
    finally:
        whole_site.mend()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show the ends of all logs with a test that fails."""
    report = yield
    if report.failed:
        for site in _SITES:
            report.sections += [(path.name, path.read_text(errors="replace")[-4000:]) for path in site.logs()]
    return report
