"""What clients get through the nginx and the HAProxy of ``deploy/``."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.asgi_app import script
from tests.server.sites import behind_haproxy, behind_nginx
from tests.server.support import Live, qa, serving, until
from tests.server.test_proxies import first_word


class Site:
    """A site, as one of its clients sees it who is no proxy: from another address of this machine."""

    def __init__(self, live: Live, plain: int, tls: int, folder: Path) -> None:
        self.live, self.plain, self.tls = live, plain, tls
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))

    def ask(
        self, method: str, path: str, body: object = None, *, tls: bool = True, **headers: str
    ) -> http.client.HTTPResponse:
        kept: http.client.HTTPConnection
        source = ("127.0.0.2", 0)
        if tls:
            kept = http.client.HTTPSConnection(
                "127.0.0.1", self.tls, timeout=30, source_address=source, context=self.context
            )
        else:
            kept = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=30, source_address=source)
        named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
        kept.request(method, path, None if body is None else json.dumps(body), named)
        return kept.getresponse()


@pytest.fixture(scope="module", params=[behind_nginx, behind_haproxy], ids=["nginx", "haproxy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with serving(qa(script), forwarded_allow_ips=["127.0.0.1"], access_log=1.0) as live:
        with request.param(folder, [live, live]) as (plain, tls):
            site = Site(live, plain, tls, folder)
            until(lambda: site.ask("GET", "/health/ready").status == 200)  # HAProxy has looked once
            yield site


def test_words_come_before_the_end_and_who_leaves_ends_the_run(site: Site) -> None:
    before = site.live.app.runs.cancelled
    reply = site.ask("POST", "/predict/stream", {"question": "endless"})
    text = b""
    while b"words" not in text:
        text += reply.read1(100)
    reply.close()
    until(lambda: site.live.app.runs.cancelled == before + 1)


def test_a_websocket_passes(site: Site) -> None:
    url = f"wss://127.0.0.1:{site.tls}/ws"
    assert asyncio.run(first_word(url, site.context, f"https://127.0.0.1:{site.tls}")) == "You "


def test_plain_http_is_sent_to_tls(site: Site) -> None:
    with site.ask("GET", "/docs?x=1", tls=False, Host="qa.example.com") as reply:
        assert (reply.status, reply.headers["location"]) == (301, "https://qa.example.com/docs?x=1")


def test_the_metrics_are_not_the_sites(site: Site) -> None:
    with site.ask("GET", "/metrics") as reply:
        assert reply.status == 404


def test_a_page_of_the_site_may_ask_and_another_may_not(site: Site) -> None:
    for origin, status in ((f"https://127.0.0.1:{site.tls}", 200), ("https://evil.example", 403)):
        with site.ask("POST", "/predict", {"question": "x"}, Origin=origin) as reply:
            assert reply.status == status


def logged_clients(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The clients of the two requests below; an earlier test's request may be logged late."""
    lines = [record.__dict__["_dspy_live"][1] for record in caplog.records]
    return [line["client"] for line in lines if line["path"] in ("/openapi.json", "/programs/qa/predict")]


def test_what_a_client_says_of_itself_does_not_pass(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    lies = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Host": "evil.example", "X_Forwarded_Prefix": "/evil"}
    with caplog.at_level(logging.INFO, "dspy_live.access"):
        with site.ask("GET", "/openapi.json", **lies) as reply:
            assert json.loads(reply.read())["servers"] == [{"url": "/"}]
        path = "/programs/qa/predict"
        with site.ask("POST", path, {"question": "x"}, Origin="https://evil.example", **lies) as reply:
            assert reply.status == 403, (reply.status, reply.read())
        until(lambda: len(logged_clients(caplog)) == 2)
    assert logged_clients(caplog) == ["127.0.0.2"] * 2
