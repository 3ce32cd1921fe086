"""Keys and origins: who may ask, and whose run it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.server.support import Live, Tape, http, qa, serving
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.events import Started
from dspy_live.server import create_app
from dspy_live.server.transport.auth import Keys

ADA = {"Authorization": "Bearer ada-key"}
BOB = {"X-API-Key": "bob-key"}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa(), api_keys={"ada": "ada-key", "bob": "bob-key"}) as server:
        yield server


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer ada-kex"}, {"Authorization": "Basic ada-key"}, {"X-API-Key": ""}]
)
@pytest.mark.parametrize("path", ["/predict", "/predict/stream", "/runs", "/v1/chat/completions"])
def test_no_key_or_a_wrong_one(live: Live, path: str, headers: dict[str, str]) -> None:
    reply = http.post(live.url + path, json={"question": "x"}, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    error = reply.json()["error"]
    assert error["code" if path.startswith("/v1") else "type"] == "unauthorized"
    assert "ada-ke" not in reply.text


@pytest.mark.parametrize("path", ["/programs", "/openapi.json", "/metrics", "/stats", "/usage", "/runs/x/events"])
def test_reading_needs_a_key_too(live: Live, path: str) -> None:
    assert http.get(live.url + path).status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/", "/docs"])
def test_health_and_the_pages_are_open(live: Live, path: str) -> None:
    assert http.get(live.url + path).status_code == 200


@pytest.mark.parametrize(("headers", "name"), [(ADA, "ada"), (BOB, "bob")])
def test_a_key_names_its_owner_in_the_call(live: Live, headers: dict[str, str], name: str) -> None:
    assert http.post(live.url + "/predict", json={"question": "x"}, headers=headers).status_code == 200
    assert live.service.calls[-1].key == name


def test_a_key_in_the_query_string_is_taken_where_no_header_can_be_sent(live: Live) -> None:
    reply = http.post(live.url + "/predict?access_token=ada-key", json={"question": "x"})
    assert reply.status_code == 401
    with connect(live.ws + "/ws?access_token=ada-key") as socket:
        socket.send("why?")
        assert socket.recv() == "You "


def test_a_websocket_without_a_key_is_refused_before_it_opens(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn logged each refusal as an error of the application's."""
    with pytest.raises(InvalidStatus) as refused:
        connect(live.ws + "/ws")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert refused.value.response.status_code == 401
    assert b"unauthorized" in refused.value.response.body


def test_a_run_belongs_to_the_key_that_started_it() -> None:
    async def slow(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.sleep(30)

    with serving(qa(slow), api_keys=["ada-key", "bob-key"]) as live:
        run = http.post(live.url + "/runs", json={"question": "x"}, headers=ADA).json()["run"]["id"]
        url = f"{live.url}/runs/{run}"
        assert http.get(url + "/events", headers=BOB).status_code == 404
        assert http.delete(url, headers=BOB).status_code == 404
        assert http.delete(url, headers=ADA).status_code == 202
        assert "event: done" in http.get(url + "/events?access_token=ada-key").text


def test_a_page_of_another_site_may_not_ask(live: Live) -> None:
    reply = http.post(live.url + "/predict", json={"question": "x"}, headers=ADA | {"Origin": "https://evil.example"})
    assert reply.status_code == 403
    assert reply.json()["error"]["type"] == "forbidden"
    with pytest.raises(InvalidStatus) as refused:
        connect(live.ws + "/ws?access_token=ada-key", origin="https://evil.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


def test_the_servers_own_pages_may_ask(live: Live) -> None:
    reply = http.post(live.url + "/predict", json={"question": "x"}, headers=ADA | {"Origin": live.url})
    assert reply.status_code == 200


def test_a_name_that_was_made_to_point_here_is_not_the_servers_own() -> None:
    rebound = {"Origin": "http://evil.example:8000", "Host": "evil.example:8000"}
    with serving(qa()) as live:
        live.app.origins.local_only = True
        refused = http.post(live.url + "/predict", json={"question": "x"}, headers=rebound)
        own = http.post(live.url + "/predict", json={"question": "x"}, headers={"Origin": live.url})
        local = {"Origin": "http://localhost:8000", "Host": "localhost:8000"}
        by_name = http.post(live.url + "/predict", json={"question": "x"}, headers=local)
    assert refused.status_code == 403
    assert own.status_code == by_name.status_code == 200


def test_an_allowed_origin_gets_cors_headers() -> None:
    origin = {"Origin": "https://app.example"}
    with serving(qa(), origins=["https://app.example"]) as live:
        preflight = http.options(live.url + "/predict", headers=origin | {"Access-Control-Request-Method": "POST"})
        reply = http.post(live.url + "/predict", json={"question": "x"}, headers=origin)
        failed = http.post(live.url + "/predict", json={}, headers=origin)
        other = http.options(live.url + "/predict", headers={"Origin": "https://evil.example"})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for each in (preflight, reply, failed):
        assert each.headers["access-control-allow-origin"] == "https://app.example"
    assert other.status_code == 403


@pytest.mark.parametrize("keys", [[""], [" padded "], {"": "key"}, {"ada": ""}])
def test_keys_that_can_not_work(keys: list[str] | dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        create_app(qa(), api_keys=keys)


def test_keys_are_not_kept_in_the_clear() -> None:
    assert b"ada-key" not in repr(vars(Keys({"ada": "ada-key"}))).encode()


@pytest.mark.parametrize("bad", [{"max_active": 0}, {"drain": -1}, {"grace": -1}, {"max_body": 0}, {"heartbeat": 0}])
def test_settings_that_can_not_work(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        create_app(qa(), **bad)  # type: ignore[arg-type]


def test_a_key_may_have_any_letters() -> None:
    with serving(qa(), api_keys={"ada": "schlüssel"}) as live:
        for name in ("X-API-Key", "Authorization"):
            value = ("Bearer " if name == "Authorization" else "") + "schlüssel"
            assert http.get(live.url + "/programs", headers={name.encode(): value.encode()}).status_code == 200


@pytest.mark.parametrize("origin", ["app.example", "localhost:3000", "https://app.example/page", "https://"])
def test_an_invalid_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="origin"):
        create_app(qa(), origins=[origin])


@pytest.mark.parametrize("name", ["drain", "grace", "heartbeat", "body_timeout"])
def test_a_setting_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        create_app(qa(), **{name: float("nan")})  # type: ignore[arg-type]
