"""The spine from end to end: real processes, real sockets, the LM class as a user has it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import httpx
import pytest
import pytest_asyncio
from tests.runtime.http.certificates import Authority
from tests.runtime.http.peer import Peer, reply
from tests.runtime.http.test_transport_proxy import relay
from tests.server.support import serving
from tests.support.lm_server import ENDLESS, LMServer, chat_grammar
from tests.support.until import BOUND, until

from dspy_live import LM, asyncify, create_app
from dspy_live.simulator import Simulator

QA = "question -> answer"
SAYS = reply(
    json.dumps(
        {
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"content": "[[ ## answer ## ]]\nby TLS\n\n[[ ## completed ## ]]"},
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()
)


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Callable[..., Any]]:
    peers: list[Peer] = []

    async def start(*args: Any, **kwargs: Any) -> Peer:
        peers.append(Peer(*args, **kwargs))
        await peers[-1].start()
        return peers[-1]

    yield start
    for one in peers:
        await one.stop()


def endpoint(url: str, **options: Any) -> LM:
    return LM("openai/gpt-4o-mini", api_base=url, api_key="sk-test", cache=False, num_retries=0, **options)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("way", ["native", "thread"])
async def test_an_endpoint_behind_a_private_authority(
    peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any, trusted: bool
) -> None:
    authority = Authority(tmp_path)
    one = await peer(SAYS, tls=authority.server("127.0.0.1"))
    ask = asyncify(dspy.Predict(QA), execution=way)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with dspy.context(lm=endpoint(f"{one.url}/v1")):
        if not trusted:
            with pytest.raises(dspy.LMTransportError, match="certificate was not accepted"):
                await ask(question="q")
            return
        assert (await ask(question="q")).answer == "by TLS"
    assert one.requests[-1].headers["authorization"] == "Bearer sk-test"


async def test_an_endpoint_behind_the_environments_proxy(
    peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    one = await peer(SAYS, tls=authority.server("127.0.0.1"))
    proxy = await peer(relay)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "")
    with dspy.context(lm=endpoint(f"{one.url}/v1")):
        assert (await asyncify(dspy.Predict(QA))(question="q")).answer == "by TLS"
    assert proxy.requests[0].line == f"CONNECT {one.address} HTTP/1.1"
    assert "authorization" not in proxy.requests[0].headers, "the key is for the endpoint alone"


class Two(dspy.Module):  # type: ignore[misc]
    """Two predictors, each with an LM of its own."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        self.first, self.second = dspy.Predict("question -> draft"), dspy.Predict("draft -> answer")
        self.first.lm, self.second.lm = first, second

    def forward(self, question: str) -> Any:
        return self.second(draft=self.first(question=question).draft)

    async def aforward(self, question: str) -> Any:
        return await self.second.acall(draft=(await self.first.acall(question=question)).draft)


@contextlib.contextmanager
def simulators(count: int) -> Iterator[list[tuple[Simulator, str]]]:
    with contextlib.ExitStack() as stack:
        made = [Simulator(seed=n) for n in range(count)]
        yield [(one, stack.enter_context(one.running())) for one in made]


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "dspy.LM"])
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_each_predictor_asks_its_own_lm(way: Any, plain: bool) -> None:
    with simulators(3) as ((one, a), (two, b), (settings, c)):
        make: Any = dspy.LM if plain else LM
        lms = [make("openai/gpt-4o-mini", api_base=url, api_key="k", cache=False) for url in (a, b, c)]
        with dspy.context(lm=lms[2]):
            assert (await asyncify(Two(*lms[:2]), execution=way)(question="q")).answer
        assert (one.stats.requests, two.stats.requests, settings.stats.requests) == (1, 1, 0)


async def test_two_servers_in_one_process_keep_apart() -> None:
    with simulators(2) as ((one, a), (two, b)):
        first, second = dspy.Predict(QA), dspy.Predict("text -> summary")
        first.lm, second.lm = endpoint(a), endpoint(b)
        with serving(create_app(first)) as here, serving(create_app(second)) as there:
            async with httpx.AsyncClient(timeout=BOUND) as client:
                replies = await asyncio.gather(
                    *(client.post(f"{here.url}/predict", json={"question": f"q{n}"}) for n in range(20)),
                    *(client.post(f"{there.url}/predict", json={"text": f"t{n}"}) for n in range(20)),
                )
        assert [r.status_code for r in replies] == [200] * 40
        assert all("answer" in r.json() for r in replies[:20])
        assert all("summary" in r.json() for r in replies[20:])
        assert (one.stats.requests, two.stats.requests) == (20, 20)


TARGET = """
import dspy, dspy_live

lm = dspy_live.LM("openai/tiny", api_base={url!r}, api_key="x", max_tokens={tokens}, cache=False, num_retries=0,
                  temperature=1.0, extra_body={{"grammar": {grammar!r}}})
dspy.configure(lm=lm)
program = dspy.Predict("question -> answer")
"""


@contextlib.contextmanager
def command(folder: Path, *words: str) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dspy_live", "serve", *words, "--port", "0"],
        cwd=folder,
        env={**os.environ, "DSPY_LIVE_SIM": "ttft=0 tps=none jitter=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line + (process.stderr.read() if process.stderr else "")
        yield "127.0.0.1", int(line.split("127.0.0.1:")[1].split("/")[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("path", ["/predict", "/predict/stream"])
async def test_a_client_that_leaves_stops_a_real_lm(lm_server: LMServer, tmp_path: Path, path: str) -> None:
    """From the client's socket through our server's process to the LM's process, and back."""
    # A plain request is generated to its end by this LM's server, whoever has gone: only a streamed one stops.
    target = TARGET.format(url=lm_server.url, tokens=ENDLESS, grammar=chat_grammar({"answer": "[a-z ]+"}, 40))
    (tmp_path / "real.py").write_text(target.replace("cache=False", "cache=False, stream='always'"))
    await asyncio.to_thread(lm_server.idle_after)
    with command(tmp_path, "real.py:program") as where:
        body = b'{"question": "What?"}'
        sock = socket.create_connection(where)
        head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
        sock.sendall(head + body)
        await asyncio.to_thread(until, lm_server.busy)
        if path.endswith("stream"):
            text = b""
            while b"event: token" not in text:
                text += await asyncio.to_thread(sock.recv, 65536)
        sock.close()
        await asyncio.to_thread(lm_server.idle_after)


def test_a_page_under_a_name_that_was_made_to_point_here_may_not_ask(tmp_path: Path) -> None:
    with command(tmp_path, QA, "--sim") as where:
        for host, origin, status in (
            (f"127.0.0.1:{where[1]}", None, 200),
            (f"127.0.0.1:{where[1]}", f"http://127.0.0.1:{where[1]}", 200),
            (f"evil.example:{where[1]}", f"http://evil.example:{where[1]}", 403),
        ):
            connection = http.client.HTTPConnection(*where, timeout=BOUND)
            headers = {"Host": host, **({"Origin": origin} if origin else {})}
            connection.request("POST", "/predict", b'{"question": "x"}', headers)
            assert connection.getresponse().status == status, (host, origin)
            connection.close()


def test_sys_exit_in_a_program_leaves_the_server_standing(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import sys, dspy\n"
        "class Leaves(dspy.Module):\n"
        "    def forward(self, question: str):\n"
        "        if question == 'go':\n            sys.exit(3)\n"
        "        return dspy.Prediction(answer=question)\n"
        "program = Leaves()\n"
    )
    with command(tmp_path, "leaves.py:program", "--sim", "--execution", "thread") as (host, port):
        for question, status in (("stay", 200), ("go", 500), ("stay", 200)):
            got = httpx.post(f"http://{host}:{port}/predict", json={"question": question}, timeout=BOUND)
            assert got.status_code == status
            assert "Traceback" not in got.text
