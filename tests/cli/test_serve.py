"""``serve`` and ``sim`` as processes, over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import uvicorn
from tests.support.until import until

from dspy_live.cli.commands.serve import _keys
from dspy_live.cli.observers import usage_of
from dspy_live.cli.reload import ReloadFromTheStart
from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.server_process import base_url
from dspy_live.core.errors import ConfigurationError, InputError
from dspy_live.server.transport.address import listen

if TYPE_CHECKING:
    from .conftest import Commands


def banner(process: subprocess.Popen[str], lines: int = 5) -> str:
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())
    return first + "".join(process.stdout.readline() for _ in range(lines - 1))


def address(text: str) -> tuple[str, int]:
    url = urllib.parse.urlsplit(re.findall(r"http://\S+", text)[0])
    assert url.hostname
    assert url.port
    return url.hostname, url.port


def ask(where: tuple[str, int], path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(*where, timeout=30)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers)
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, json.loads(text or b"null")
    finally:
        connection.close()


def text_of(where: tuple[str, int], path: str, **headers: str) -> str:
    connection = http.client.HTTPConnection(*where, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def stopped(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    _, err = process.communicate(timeout=40)
    return process.returncode, err


def test_serve_answers_and_says_that_it_simulates(live: Commands) -> None:
    process = live.start("serve", "qa.py:program", "--port", "0")
    said = banner(process)
    assert "  qa     question, times -> answer, score: float\n" in said, "the texts stand below each other"
    assert "SIMULATED" in said
    where = address(said)
    status, headers, reply = ask(where, "/predict", {"question": "Why is the sky blue?"})
    assert status == 200
    assert headers["x-simulated"] == "1"
    assert {"answer", "score", "duration_ms", "run"} <= reply.keys()
    code, err = stopped(process, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err


def test_several_programs_keep_their_names_and_their_lms(live: Commands) -> None:
    live.write("one.py", "import dspy\nprogram = dspy.Predict('question -> answer')\n")
    live.write(
        "two.py",
        "import dspy\ndspy.configure(lm=dspy.LM('openai/two', api_base='http://127.0.0.1:1/v1', api_key='x', "
        "num_retries=0))\nprogram = dspy.Predict('question -> answer')\n",
    )
    process = live.start("serve", "one.py:program", "second=two.py:program", "text -> summary", "--port", "0")
    where = address(banner(process))
    _, _, listed = ask(where, "/programs")
    assert [(p["name"], p["simulated"]) for p in listed["programs"]] == [
        ("one", True),
        ("second", False),
        ("predict", False),
    ]
    assert ask(where, "/programs/one/predict", {"question": "a"})[0] == 200
    status, _, reply = ask(where, "/programs/second/predict", {"question": "a"})
    assert status == 502
    assert reply["error"]["type"] == "lm_failed"


def test_two_programs_of_one_name_are_refused(live: Commands) -> None:
    done = live.main("serve", "question -> answer", "text -> summary", "--port", "0")
    assert done.returncode == 2
    assert "two programs are called 'predict'" in done.stderr


def test_another_address_wants_keys_and_a_real_lm(live: Commands) -> None:
    done = live.main("serve", "qa.py:program", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "--no-auth" in done.stderr
    done = live.main("serve", "qa.py:program", "--host", "0.0.0.0", "--port", "0", "--no-auth")
    assert done.returncode == 2
    assert "give --sim" in done.stderr
    process = live.start(
        "serve", "qa.py:program", "--host", "0.0.0.0", "--port", "0", "--sim", DSPY_LIVE_KEYS="me=key1"
    )
    where = address(banner(process))
    assert ask(where, "/predict", {"question": "a"})[0] == 401
    assert ask(where, "/predict", {"question": "a"}, Authorization="Bearer key1")[0] == 200


@pytest.mark.parametrize("command", [("serve", "qa.py:program"), ("sim",)])
def test_a_port_that_is_none_is_told(live: Commands, command: tuple[str, ...]) -> None:
    """The system takes what is left over: 70000 was 4464."""
    done = live.main(*command, "--port", "70000")
    assert done.returncode == 2
    assert "a port is a number from 0 to 65535; got 70000" in done.stderr


@pytest.mark.parametrize(
    ("host", "bound", "url"),
    [
        ("localhost", "127.0.0.1", "http://localhost:"),
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:"),
    ],
)
def test_the_banner_has_an_address_that_a_browser_here_can_open(host: str, bound: str, url: str) -> None:
    with listen(host, 0) as listener:
        assert listener.getsockname()[0] == bound
        assert base_url(host, listener).startswith(url)


def test_a_port_that_is_taken_is_told(live: Commands) -> None:
    process = live.start("serve", "qa.py:program", "--port", "0")
    _, port = address(banner(process))
    done = live.main("serve", "qa.py:program", "--port", str(port))
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "take another" in done.stderr


GATED = '''
import asyncio
import pathlib
import dspy

class Gated(dspy.Module):
    """Answers when there is a file "open" in the working folder."""

    async def aforward(self, question: str):
        while not pathlib.Path("open").exists():
            await asyncio.sleep(0.01)
        return dspy.Prediction(answer="it is open")

program = Gated()
'''


def test_sigterm_lets_a_running_call_end_and_takes_no_new_one(live: Commands) -> None:
    live.write("gated.py", GATED)
    process = live.start("serve", "gated.py:program", "--port", "0", "--lame-duck", "0", "--drain", "3600")
    where = address(banner(process))
    running: list[Any] = []
    thread = threading.Thread(target=lambda: running.append(ask(where, "/predict", {"question": "a"})), daemon=True)
    thread.start()
    until(lambda: ask(where, "/stats")[2]["active"] == 1)
    process.send_signal(signal.SIGTERM)
    until(lambda: ask(where, "/health/ready")[0] != 200)
    assert ask(where, "/predict", {"question": "b"})[0] == 503
    live.write("open", "")
    thread.join(30)
    assert running[0][0] == 200
    process.wait(timeout=30)


def test_a_server_serves_on_in_its_lame_duck_time_and_a_second_sigterm_ends_that(live: Commands) -> None:
    """A balancer sends requests until it has seen that readiness is off."""
    process = live.start("serve", "question -> answer", "--port", "0", "--lame-duck", "3600")
    where = address(banner(process))
    process.send_signal(signal.SIGTERM)
    until(lambda: ask(where, "/health/ready")[0] != 200)
    status, headers, _ = ask(where, "/predict", {"question": "b"})
    assert status == 200
    assert headers["connection"] == "close"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)


@pytest.mark.parametrize(("words", "seconds"), [((), 5.0), (("--lame-duck", "0"), 0.0), (("--lame-duck", "7"), 7.0)])
def test_a_server_without_a_terminal_has_a_lame_duck_time(
    live: Commands, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], seconds: float
) -> None:
    served: list[ServeOptions] = []
    monkeypatch.setattr("dspy_live.cli.server_process.serve_process", lambda options, _: served.append(options))
    assert live.main("serve", "question -> answer", "--port", "0", *words).returncode == 0
    assert [options.lame_duck for options in served] == [seconds]


@pytest.mark.parametrize("option", ["--drain", "--lame-duck"])
def test_a_time_below_nothing_is_told(live: Commands, option: str) -> None:
    done = live.main("serve", "qa.py:program", "--port", "0", option, "-1")
    assert done.returncode == 2
    assert f"{option} must be 0 or more seconds" in done.stderr


def test_calls_that_outlast_the_drain_get_a_clean_error(live: Commands) -> None:
    process = live.start(
        "serve", "question -> answer", "--port", "0", "--drain", "0.2", "--lame-duck", "0", DSPY_LIVE_SIM="ttft=60"
    )
    where = address(banner(process))
    running: list[Any] = []
    thread = threading.Thread(target=lambda: running.append(ask(where, "/predict", {"question": "a"})), daemon=True)
    thread.start()
    until(lambda: ask(where, "/stats")[2]["active"] == 1)
    process.send_signal(signal.SIGTERM)
    thread.join(30)
    status, _, reply = running[0]
    assert status == 503
    assert reply["error"]["type"] == "draining"
    process.wait(timeout=30)


def test_a_timeout_holds_for_every_run(live: Commands) -> None:
    process = live.start("serve", "question -> answer", "--port", "0", "--timeout", "0.2", DSPY_LIVE_SIM="ttft=60")
    status, _, reply = ask(address(banner(process)), "/predict", {"question": "a"})
    assert status == 504
    assert reply["error"]["type"] == "deadline_exceeded"


def test_runs_are_counted_written_to_the_ledger_and_logged(live: Commands) -> None:
    ledger, log = live.folder / "ledger.db", live.folder / "log.jsonl"
    words = ("--ledger", str(ledger), "--log-file", str(log), "--log-level", "info", "--lame-duck", "0")
    process = live.start("serve", "qa.py:program", "--port", "0", "--key", "me=k1", *words)
    where = address(banner(process))
    key = {"Authorization": "Bearer k1"}
    assert ask(where, "/predict", {"question": "a"}, **key)[0] == 200
    metrics = text_of(where, "/metrics", **key)
    assert 'dspy_live_requests_total{outcome="ok",program="qa"} 1.0' in metrics
    assert 'dspy_live_layer{figure="active",layer="server"} 0.0' in metrics
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    again = live.start("serve", "qa.py:program", "--port", "0", "--key", "me=k1", *words)
    where = address(banner(again))
    _, _, usage = ask(where, "/usage?by=key", **key)
    assert [(row["key"], row["runs"]) for row in usage["rows"]] == [("me", 1)]
    assert ask(where, "/usage?program=qa", **key)[2]["runs"] == 1
    assert ask(where, "/usage?program=other", **key)[2]["runs"] in (0, None)
    for wrong in ("by=nonsense", "since=yesterday", "nonsense=1"):
        assert ask(where, f"/usage?{wrong}", **key)[0] == 422
    assert all(json.loads(line)["level"] for line in log.read_text().splitlines())


def test_requests_are_logged_unless_that_is_turned_off(live: Commands) -> None:
    for words, paths in (((), ["/predict"]), (("--no-access-log",), [])):
        log = live.folder / f"log{len(words)}.jsonl"
        process = live.start("serve", "qa.py:program", "--port", "0", "--no-ledger", "--log-file", str(log), *words)
        assert ask(address(banner(process)), "/predict", {"question": "a"})[0] == 200
        stopped(process, signal.SIGINT)
        assert [line["path"] for line in map(json.loads, log.read_text().splitlines()) if "path" in line] == paths
    done = live.main("serve", "qa.py:program", "--port", "0", "--access-log-rate", "0")
    assert done.returncode == 2
    assert "--access-log-rate" in done.stderr


def test_a_server_may_keep_no_ledger(live: Commands) -> None:
    process = live.start("serve", "qa.py:program", "--port", "0", "--no-ledger")
    assert ask(address(banner(process)), "/usage")[0] == 404


def test_more_connections_than_a_shell_allows_by_default(live: Commands) -> None:
    """With 256 descriptors, as macOS has it, 300 idle clients would lock everybody else out."""
    process = live.start("serve", "qa.py:plain", "--port", "0", "--no-ledger", descriptors=256)
    where = address(banner(process))
    sockets = [socket.create_connection(where) for _ in range(300)]
    try:
        assert ask(where, "/predict", {"question": "a"})[0] == 200
    finally:
        for one in sockets:
            one.close()


def test_what_changes_while_the_process_starts_is_served_anew_too(tmp_path: Path) -> None:
    """The files were looked at a while after the process that reads them had begun."""
    file, started = tmp_path / "dev.py", []
    file.write_text("program = 1\n")
    os.utime(file, (1_000, 1_000))

    def save() -> None:
        started.append(file.stat().st_mtime)
        os.utime(file, (1_000 + len(started),) * 2)

    config = uvicorn.Config("unused:unused", reload=True, reload_dirs=[str(tmp_path)], reload_delay=0)
    reload = ReloadFromTheStart(config, target=lambda sockets: None, sockets=[])
    process = mock.Mock(start=save)
    begins = mock.patch("uvicorn.supervisors.basereload.get_subprocess", return_value=process)
    with begins, mock.patch("signal.signal"):
        reload.startup()
        assert reload.should_restart() == [file]
        reload.restart()
        assert reload.should_restart() == [file]
    assert started == [1_000, 1_001]


def described(where: tuple[str, int]) -> str:
    try:
        return str(ask(where, "/programs")[2]["programs"][0]["outputs"][0]["name"])
    except OSError:
        return ""


def test_a_change_is_served_anew_and_a_broken_one_is_waited_out(live: Commands) -> None:
    live.write("dev.py", "import dspy\nprogram = dspy.Predict('question -> first')\n")
    process = live.start("serve", "dev.py:program", "--port", "0", "--no-ledger", "--reload")
    where = address(banner(process))
    assert described(where) == "first"
    live.write("dev.py", "import dspy\nprogram = dspy.Predict('question ->\n")
    assert process.stderr is not None
    while "dev.py can't be imported" not in (line := process.stderr.readline()):
        assert line
    live.write("dev.py", "import dspy\nprogram = dspy.Predict('question -> second')\n")
    until(lambda: described(where) == "second")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_the_simulated_lm_as_a_server_answers_a_command(live: Commands) -> None:
    sim = live.start("sim", "--port", "0", "--fast", "--api-key", "right")
    host, port = address(banner(sim, 2))
    endpoint = ("--lm", "simulated", "--api-base", f"http://{host}:{port}/v1")
    done = live.main("run", "qa.py:program", "Why is the sky blue?", "--json", *endpoint, "--api-key", "right")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]
    assert "answers come from the simulated LM" not in done.stderr
    refused = live.main("run", "qa.py:program", "Why?", *endpoint, "--api-key", "wrong")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert stopped(sim, signal.SIGINT)[0] == 130


def test_the_simulated_lm_refuses_unknown_options(live: Commands) -> None:
    for words, said in [
        (["--fault", "nonsense=1"], "no fault 'nonsense'"),
        (["--fault", "429"], "NAME=RATE"),
        (["--fault", "429=2"], "at most 1"),
        (["--tps", "0"], "tps"),
    ]:
        done = live.main("sim", "--port", "0", *words)
        assert done.returncode == 2
        assert said in done.stderr


def test_keys_as_they_are_given() -> None:
    assert _keys(("plain", "ada=secret"), "bob=other, more") == {
        "key1": "plain",
        "ada": "secret",
        "bob": "other",
        "key4": "more",
    }
    # What base64 ends in is a part of the key: "=" would be easy to guess.
    assert _keys(("c2VjcmV0==", "c2VjcmU="), "") == {"key1": "c2VjcmV0==", "key2": "c2VjcmU="}
    assert _keys(("ada=c2VjcmU=",), "") == {"ada": "c2VjcmU="}
    assert _keys((), "") == {}
    for given in (("ada=one", "ada=two"), ("key2=one", "two"), ("",), (" ",)):
        with pytest.raises(ConfigurationError, match="key"):
            _keys(given, "")


def test_keys_of_dotenv_are_asked_for(live: Commands) -> None:
    live.write(".env", "DSPY_LIVE_KEYS=ada=secret\n")
    process = live.start("serve", "qa.py:program", "--port", "0")
    where = address(banner(process))
    assert ask(where, "/programs")[0] == 401
    assert ask(where, "/programs", **{"X-API-Key": "secret"})[0] == 200
    stopped(process, signal.SIGTERM)


def test_a_name_that_no_address_can_carry_is_to_be_given_another(live: Commands) -> None:
    live.write("haus.py", "import dspy\nüber = dspy.Predict('question -> answer')\n")
    done = live.main("serve", "haus.py:über", "--port", "0")
    assert done.returncode == 2
    assert "give the program another name: NAME=haus.py:über" in done.stderr


def test_a_banner_has_an_address_that_can_be_opened() -> None:
    with listen("[::1]", 0) as listener:
        port = listener.getsockname()[1]
        assert base_url("[::1]", listener) == base_url("::1", listener) == f"http://[::1]:{port}"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "soon"])
def test_usage_since_a_time_that_is_none(value: str) -> None:
    with pytest.raises(InputError, match="Unix seconds"):
        asyncio.run(usage_of(None)({"since": value}))  # type: ignore[arg-type, func-returns-value]
