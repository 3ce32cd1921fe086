"""Behind a real nginx: whose pages may ask, where links lead, who the client is, what an error says to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.runtime.http.certificates import Authority
from tests.server.browser import Page, chromium
from tests.server.support import Live, http, qa, serving
from tests.support.balancers import nginx
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dspy_live.core.errors import ConfigurationError
from dspy_live.server import create_app
from dspy_live.server.option_names import as_flag
from dspy_live.server.transport.address import listen

NAMED = """
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Prefix "";
"""
PREFIXED = NAMED.replace('Prefix ""', "Prefix /team/qa")
TRUSTED = {"forwarded_allow_ips": ["127.0.0.1"]}


class Public:
    """A server as the world sees it through nginx."""

    def __init__(self, live: Live, port: int, scheme: str = "http") -> None:
        self.live = live
        self.port = port
        self.host = f"public.example:{port}"
        self.origin = f"{scheme}://{self.host}"
        self.url = f"{scheme}://127.0.0.1:{port}"

    def send(self, method: str, path: str, *, page: bool = True, **more: Any) -> httpx.Response:
        headers = {"Host": self.host} | ({"Origin": self.origin} if page else {}) | more.pop("headers", {})
        return http.request(method, self.url + path, headers=headers, **more)


@contextlib.contextmanager
def public(
    folder: Path, block: str, *, local_only: bool = False, tls: Authority | None = None, **options: Any
) -> Iterator[Public]:
    """Serve behind nginx with ``block`` in its ``server``; ``$live`` stands for the server's URL."""
    with serving(qa(), **options) as live, listen("127.0.0.1", 0) as listener:
        live.app.origins.local_only = local_only
        port = listener.getsockname()[1]
        more = ""
        if tls is not None:
            certificate, key = tls.issue("public.example", "127.0.0.1")
            more = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
        listening = f"listen 127.0.0.1:{port}{' ssl' if tls else ''}; {more}"
        with nginx(folder, f"server {{ {listening} {block.replace('$live', live.url)} }}", listener):
            yield Public(live, port, "https" if tls else "http")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    rule = "--host-resolver-rules=MAP public.example 127.0.0.1"
    with chromium(tmp_path_factory.mktemp("chromium"), rule) as page:
        page.call("Security.setIgnoreCertificateErrors", ignore=True)
        yield page


def runs(page: Page, url: str) -> None:
    """Open the playground at ``url`` and run the program in it."""
    page.errors.clear()
    page.goto(url)
    page.wait("document.querySelector('#inputs textarea')")
    page.type("#inputs textarea", "through nginx")
    page.press("Enter", ctrl=True)
    page.wait("document.querySelector('#outputs').textContent.includes('You asked: through nginx')")
    assert page.errors == [], page.errors
    page.goto("about:blank")  # the page asks for statistics as long as it is there


def test_a_page_that_is_refused_starts_and_says_what_to_do(tmp_path: Path, browser: Page) -> None:
    """nginx with its default Host gave 403 for the page's own scripts, and an empty page without a word."""
    with public(tmp_path, "location / { proxy_pass $live; }", local_only=True, option_name=as_flag) as site:
        assert site.send("GET", "/static/main.js").status_code == 200
        refused = site.send("POST", "/predict", json={"question": "x"})
        browser.goto(site.origin)
        browser.wait("document.querySelector('#inputs textarea')")
        browser.type("#inputs textarea", "why")
        browser.press("Enter", ctrl=True)
        browser.wait("document.querySelector('#failure').textContent.includes('--forwarded-allow-ips')")
        browser.goto("about:blank")
    assert refused.status_code == 403
    message = refused.json()["error"]["message"]
    for word in (f"--origin {site.origin}", "--forwarded-allow-ips ADDRESS", "X-Forwarded-Host", "127.0.0.1"):
        assert word in message


def test_a_browser_that_says_that_the_page_asks_its_own_origin_is_believed(tmp_path: Path) -> None:
    with public(tmp_path, "location / { proxy_pass $live; }") as site:
        headers = {"Sec-Fetch-Site": "same-origin"}
        assert site.send("POST", "/predict", json={"question": "x"}, headers=headers).status_code == 200
        headers = {"Sec-Fetch-Site": "same-site"}
        assert site.send("POST", "/predict", json={"question": "x"}, headers=headers).status_code == 403


def test_the_playground_runs_behind_a_named_proxy(tmp_path: Path, browser: Page) -> None:
    block = NAMED + "location / { proxy_pass $live; }"
    with public(tmp_path, block, local_only=True, **TRUSTED) as site:
        site.live.app.origins.local_only = False  # as serve() has it where a proxy is named
        runs(browser, site.origin)


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (PREFIXED + "location /team/qa/ { proxy_pass $live/; }", TRUSTED),
        (PREFIXED + "location /team/qa/ { proxy_pass $live; }", TRUSTED),
        (NAMED + "location /team/qa/ { proxy_pass $live/; }", TRUSTED | {"root_path": "/team/qa"}),
        (NAMED + "location /team/qa/ { proxy_pass $live; }", TRUSTED | {"root_path": "/team/qa/"}),
    ],
    ids=["told and cut", "told and kept", "set and cut", "set and kept"],
)
def test_links_lead_through_the_proxys_prefix(
    tmp_path: Path, browser: Page, block: str, options: dict[str, Any]
) -> None:
    with public(tmp_path, block, **options) as site:
        created = site.send("POST", "/team/qa/runs", json={"question": "x"})
        where = created.headers["location"]
        assert where == created.json()["events"] == f"/team/qa/runs/{created.json()['run']['id']}/events"
        assert "event: done" in site.send("GET", where).text
        assert site.send("GET", "/team/qa/openapi.json").json()["servers"] == [{"url": "/team/qa"}]
        assert site.send("POST", "/team/qa/programs/qa/predict", json={"question": "x"}).status_code == 200
        runs(browser, site.origin + "/team/qa/")


async def first_word(url: str, context: ssl.SSLContext, origin: str) -> object:
    # The synchronous client reads and writes one TLS connection in two threads, and then hangs once in a hundred times.
    async with connect_async(url, ssl=context, origin=origin, open_timeout=60) as socket:  # type: ignore[arg-type]
        await socket.send("why?")
        return await socket.recv()


def test_tls_ends_at_nginx(tmp_path: Path, browser: Page) -> None:
    upgrade = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
    block = NAMED + f"location / {{ proxy_pass $live; }} location /ws {{ {NAMED} {upgrade} proxy_pass $live; }}"
    authority = Authority(tmp_path)
    with public(tmp_path, block, tls=authority, **TRUSTED) as site:
        runs(browser, site.origin)
        context = ssl.create_default_context(cafile=str(authority.file))
        assert asyncio.run(first_word(f"wss://127.0.0.1:{site.port}/ws", context, site.url)) == "You "
        other = site.send("POST", "/predict", json={"question": "x"}, headers={"Origin": "https://evil.example"})
    assert other.status_code == 403


def test_the_log_has_the_clients_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    block = NAMED + "location / { proxy_pass $live; }"
    told = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
    with caplog.at_level(logging.INFO, "dspy_live.access"):
        with public(tmp_path, block, access_log=1.0, **TRUSTED) as site:
            site.send("GET", "/programs", headers=told)
            http.get(site.live.url + "/stats", headers=told)
        with public(tmp_path, block, access_log=1.0, forwarded_allow_ips=["10.0.0.0/8"]) as site:
            site.send("GET", "/programs", headers=told)
    # The nearest address that is not a proxy's own: what stands left of it is the client's word.
    assert [record.__dict__["_dspy_live"][1]["client"] for record in caplog.records] == [
        "198.51.100.7",
        "198.51.100.7",
        "127.0.0.1",
    ]


def test_headers_of_a_client_that_is_no_proxy_do_not_count() -> None:
    told = {"X-Forwarded-Prefix": "/x", "X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}
    with serving(qa(), forwarded_allow_ips=["10.0.0.7"]) as live:
        assert http.post(live.url + "/predict", json={"question": "x"}, headers=told).status_code == 403
        assert http.get(live.url + "/openapi.json", headers={"X-Forwarded-Prefix": "/x"}).json()["servers"] == [
            {"url": "/"}
        ]


@pytest.mark.parametrize("prefix", ["//evil.example", "/../x", "/a b", "x", "/ä", "/%2e"])
def test_a_prefix_that_is_no_path_does_not_count(prefix: str) -> None:
    with serving(qa(), **TRUSTED) as live:
        headers = {b"X-Forwarded-Prefix": prefix.encode()}
        assert http.get(live.url + "/openapi.json", headers=headers).json()["servers"] == [{"url": "/"}]  # type: ignore[arg-type]


def test_a_path_that_begins_like_the_prefix_is_another_one() -> None:
    with serving(qa(), root_path="/qa") as live:
        assert http.get(live.url + "/qa/programs").status_code == 200
        assert http.get(live.url + "/programs").status_code == 200
        assert http.get(live.url + "/qaprograms").status_code == 404
        redirect = http.get(live.url + "/qa")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "/qa/")


@pytest.mark.parametrize("path", ["/programs", "/metrics", "/runs/x/events", "/openapi.json"])
def test_a_page_whose_name_was_made_to_point_here_reads_nothing(path: str) -> None:
    """A page of evil.example, which resolves to 127.0.0.1, asks its own origin: a GET carries no Origin."""
    with serving(qa()) as live:
        live.app.origins.local_only = True
        refused = http.get(live.url + path, headers={"Host": "evil.example:8000"})
        assert refused.status_code == 403
        assert "evil.example" in refused.json()["error"]["message"]
        for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "qa.localhost"):
            assert http.get(live.url + path, headers={"Host": host}).status_code in (200, 404)
        with pytest.raises(InvalidStatus, match="403"):
            connect("ws://evil.example/ws", sock=live.connect())


def test_the_name_of_an_allowed_origin_may_be_asked_for() -> None:
    with serving(qa(), origins=["https://app.example"]) as live:
        live.app.origins.local_only = True
        assert http.get(live.url + "/programs", headers={"Host": "app.example"}).status_code == 200


@pytest.mark.parametrize("given", ["*", "nginx", "10.0.0.7/8", ""])
def test_an_invalid_proxy_address_is_refused_at_the_start(given: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy"):
        create_app(qa(), forwarded_allow_ips=[given])


@pytest.mark.parametrize("path", ["qa", "/q a", "//qa", "/qa?x", "/.."])
def test_a_root_path_that_is_no_path_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ConfigurationError, match="root path"):
        create_app(qa(), root_path=path)
