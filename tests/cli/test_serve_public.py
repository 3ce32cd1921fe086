"""``serve`` behind a proxy and with TLS, as flags set them, and errors that name the flag."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.runtime.http.certificates import Authority

from .test_serve import banner

if TYPE_CHECKING:
    from .conftest import Commands

BASE = ("serve", "qa.py:plain", "--sim", "--port", "0", "--no-ledger", "--lame-duck", "0")


def asked(port: int, tls: ssl.SSLContext | None, method: str, path: str, **headers: str) -> tuple[int, Any]:
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=tls)
    body = json.dumps({"question": "x"}) if method == "POST" else None
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, json.loads(text)


def port_of(text: str) -> int:
    return int(text.split("://", 1)[1].split("/", 1)[0].rpartition(":")[2])


def test_tls_a_prefix_and_a_named_proxy(live: Commands, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("127.0.0.1")
    words = ("--tls-cert", str(chain), "--tls-key", str(key), "--root-path", "/qa", "--ready-lm", "60")
    process = live.start(*BASE, *words, "--forwarded-allow-ips", "10.0.0.1, 127.0.0.0/8", "--keep-runs", "60")
    text = banner(process)
    assert text.startswith("dspy-live serves https://127.0.0.1:"), text
    port, context = port_of(text), ssl.create_default_context(cafile=str(authority.file))
    told = {"X_Forwarded_Host": "public.example", "Origin": "https://public.example"}
    status, created = asked(port, context, "POST", "/qa/runs", **told)
    assert (status, created["events"]) == (201, f"/qa/runs/{created['run']['id']}/events")
    status, ready = asked(port, context, "GET", "/health/ready")
    assert (status, ready["lm"]["status"]) == (200, "answers")
    process.terminate()
    process.communicate(timeout=40)


def test_a_refusal_names_the_flags(live: Commands) -> None:
    process = live.start(*BASE, "--no-playground")
    text = banner(process)
    assert "playground" not in text
    port = port_of(text)
    assert asked(port, None, "GET", "/docs")[0] == 404
    status, page = asked(port, None, "POST", "/predict", Origin="http://public.example")
    assert status == 403
    assert "--origin http://public.example" in page["error"]["message"]
    status, name = asked(port, None, "POST", "/predict", Host="public.example")
    assert status == 403
    assert "--forwarded-allow-ips ADDRESS" in name["error"]["message"]
    process.terminate()
    process.communicate(timeout=40)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--forwarded-allow-ips", "*"), "each proxy is named"),
        (("--forwarded-allow-ips", "nginx"), "a proxy is named by its address"),
        (("--root-path", "qa"), "a root path is like /qa"),
        (("--tls-key", "key.pem"), "--tls-cert"),
        (("--tls-cert", "missing.pem"), "missing.pem' can't be read"),
        (("--tls-cert", "qa.py", "--tls-password-file", "none.txt"), "none.txt can't be read"),
        (("--ready-lm", "0"), "--ready-lm 0.0 can't be: it must be more than 0"),
        (("--keep-runs", "-1"), "--keep-runs -1.0 can't be: it must be 0 or more"),
    ],
)
def test_what_can_not_work_is_told_in_one_line(live: Commands, words: tuple[str, ...], told: str) -> None:
    done = live.main(*BASE, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
