"""``serve --workers``: several processes that are one server, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from tests.cli.test_serve import address, ask, stopped, text_of
from tests.support.until import until

from dspy_live.server.workers.siblings import ANSWER_SECONDS

if TYPE_CHECKING:
    from .conftest import Commands

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel deals no connections out"),
    pytest.mark.timeout(180),
]

PROGRAM = '''
import asyncio
import os
import dspy

class Which(dspy.Module):
    """Answers with its process's id; "wait FILE" does so when the file is there."""

    async def aforward(self, question: str):
        word, _, path = question.partition(" ")
        while word == "wait" and not os.path.exists(path):
            await asyncio.sleep(0.01)
        return dspy.Prediction(pid=os.getpid())

program = Which()
'''

T = TypeVar("T")
NAME = "X-Client-Run-Id"
Where = tuple[str, int]


class Server:
    """A server of several workers, in a folder of its own."""

    def __init__(self, live: Commands, *words: str, temporary: str = "") -> None:
        self.folder = live.folder
        live.write("which.py", PROGRAM)
        # A log line for each request would fill the pipe, which is read at the end.
        words = ("serve", "which.py:program", "--port", "0", "--sim", "--workers", "2", "--no-access-log", *words)
        environ = {"DSPY_LIVE_HOME": str(live.folder)} | ({"TMPDIR": temporary} if temporary else {})
        self.process = live.start(*words, **environ)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        if not self.said:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read())
        while "workers" not in self.said:
            self.said += self.process.stdout.readline()
        self.where = address(self.said)
        until(lambda: self.ready()["workers_ready"] == 2, 120)

    def ready(self) -> dict[str, Any]:
        return ask(self.where, "/health/ready")[2]

    def stats(self) -> dict[str, Any]:
        return ask(self.where, "/stats")[2]

    def pid(self) -> int:
        """Ask one question on a connection of its own, and return which process has answered."""
        status, _, reply = ask(self.where, "/predict", {"question": "who"})
        assert status == 200, reply
        return int(reply["pid"])

    def pids(self, number: int = 2) -> set[int]:
        """Ask until so many processes have answered."""
        found: set[int] = set()
        until(lambda: found.add(self.pid()) or len(found) >= number, 60)
        return found

    def is_without(self, dead: int) -> bool:
        """True where another worker has taken the place of a killed one.

        Until the supervisor has seen it, the kernel deals connections to the dead one's queue too.
        """
        try:
            return self.ready()["workers_ready"] == 2 and dead not in self.pids()
        except ConnectionError:
            return False

    def whole(self, look: Callable[[], T]) -> T:
        """Look again until no worker can have been given up, so that all of them are in what is returned."""
        while True:
            began = time.monotonic()
            found = look()
            if time.monotonic() - began < ANSWER_SECONDS:
                return found

    @contextmanager
    def two_connections(self) -> Iterator[tuple[Connection, Connection]]:
        """Two kept connections to different workers."""
        kept = [Connection(self.where)]
        try:
            while kept[-1].pid == kept[0].pid or len(kept) < 2:
                kept.append(Connection(self.where))
                assert len(kept) < 100, "the kernel deals all connections to one worker"
            yield kept[0], kept[-1]
        finally:
            for one in kept:
                one.connection.close()

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        return stopped(self.process, how)


class Connection:
    """A connection that is kept, and so stays with one worker: the process ``pid``."""

    def __init__(self, where: Where) -> None:
        self.connection = http.client.HTTPConnection(*where, timeout=60)
        self.pid = int(self.json("POST", "/predict", {"question": "who"})["pid"])

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
        self.connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        reply = self.connection.getresponse()
        return reply.status, reply.read().decode()

    def json(self, *words: Any) -> Any:
        status, text = self.ask(*words)
        assert status < 300, text
        return json.loads(text)


class Asked(threading.Thread):
    """A question that waits for a file, on a connection of its own."""

    def __init__(self, server: Server, gate: Path) -> None:
        super().__init__(daemon=True)
        self.reply: tuple[int, Any] | None = None
        self.failure = ""
        self._server, self._gate = server, gate
        self.start()

    def run(self) -> None:
        try:
            status, _, reply = ask(self._server.where, "/predict", {"question": f"wait {self._gate}"})
            self.reply = status, reply
        except (OSError, http.client.HTTPException) as exc:
            self.failure = type(exc).__name__


class Load(threading.Thread):
    """A client that asks again and again: with an odd number on a connection that it keeps."""

    def __init__(self, where: Where, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pids: Counter[int] = Counter()
        self.failures: list[str] = []
        self._where, self._keeps, self._over = where, number % 2 == 1, over
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=60)
        while not self._over.wait(0.02):
            try:
                connection.request("POST", "/predict", json.dumps({"question": "who"}))
                reply = connection.getresponse()
                body = reply.read()
                assert reply.status == 200, f"{reply.status} {body!r}"
                self.pids[json.loads(body)["pid"]] += 1
            except (OSError, http.client.HTTPException, AssertionError) as exc:
                self.failures.append(f"{type(exc).__name__}: {exc}")
                connection.close()
            if not self._keeps:
                connection.close()
        connection.close()


@contextmanager
def load(server: Server, clients: int = 6) -> Iterator[list[Load]]:
    over = threading.Event()
    started = [Load(server.where, number, over) for number in range(clients)]
    try:
        yield started
    finally:
        over.set()
        for client in started:
            client.join(60)


def test_two_workers_are_one_server(live: Commands) -> None:
    server = Server(live)
    assert "workers   2" in server.said
    assert len(server.pids()) == 2
    before = server.whole(server.stats)
    assert before["workers"] == 2
    for _ in range(10):
        server.pid()
    every_answer = {json.dumps(server.whole(server.stats)["started"]) for _ in range(8)}
    assert every_answer == {str(before["started"] + 10)}
    texts = [server.whole(lambda: text_of(server.where, "/metrics")) for _ in range(8)]
    counts = {tuple(re.findall(r"^dspy_live_requests_total\{.*\} (\S+)$", text, re.M)) for text in texts}
    assert counts == {(str(float(before["started"] + 10)),)}
    assert set(re.findall(r'worker="(\d+)"', texts[0])) == {"1", "2"}
    code, err = server.end()
    assert code == 130
    assert "Traceback" not in err


def test_a_run_is_found_through_another_worker_than_its_own(live: Commands) -> None:
    """Behind whatever deals connections out, a reader came to the wrong process and got 404."""
    server = Server(live, "--grace", "600")
    gate = live.folder / "gate"
    with server.two_connections() as (own, other):
        waiting, stopped_one = (own.json("POST", "/runs", {"question": f"wait {gate}"})["run"]["id"] for _ in "12")
        assert other.json("GET", f"/runs/{waiting}")["status"] == "running"
        assert other.ask("POST", f"/runs/{stopped_one}/stop", {})[0] == 202
        until(lambda: other.json("GET", f"/runs/{stopped_one}")["status"] == "cancelled")
        asked = threading.Thread(
            target=own.ask, args=("POST", "/predict", {"question": f"wait {gate}"}, {NAME: "tab-1"})
        )
        asked.start()
        until(lambda: other.ask("DELETE", "/runs/tab-1")[0] == 202)
        asked.join(60)
        gate.touch()
        status, text = other.ask("GET", f"/runs/{waiting}/events")
        assert status == 200
        assert f"id: {waiting}:1\n" in text
        assert text.endswith("data: [DONE]\n\n")
        again = other.ask("GET", f"/runs/{waiting}/events", None, {"Last-Event-ID": f"{waiting}:1"})[1]
        assert again == text[text.index(f"event: prediction\nid: {waiting}:2") :]
        assert other.json("GET", f"/runs/{waiting}")["outputs"]["pid"] == own.pid
        assert other.ask("GET", "/runs/0190aaaa")[0] == 404
    _, err = server.end()
    assert "Traceback" not in err


def test_a_stream_that_comes_through_another_worker_ends_in_an_error_when_its_own_dies(live: Commands) -> None:
    server = Server(live)
    with server.two_connections() as (own, other):
        run = own.json("POST", "/runs", {"question": f"wait {live.folder / 'never'}"})["run"]["id"]
        other.connection.request("GET", f"/runs/{run}/events")
        reply = other.connection.getresponse()
        assert reply.readline() == b"event: started\n"
        os.kill(own.pid, signal.SIGKILL)
        rest = reply.read().decode()
        assert "event: error\n" in rest
        assert "the worker that ran this run has ended" in rest
        assert rest.endswith("event: done\ndata: [DONE]\n\n")
        status, text = other.ask("GET", f"/runs/{run}/events")
        assert (status, json.loads(text)["error"]["type"]) == (404, "not_found")
    server.end()


def test_kill_9_of_a_worker_ends_its_own_runs_alone_and_it_is_replaced(live: Commands) -> None:
    server = Server(live)
    gate = live.folder / "gate"
    asked = [Asked(server, gate) for _ in range(8)]
    until(lambda: server.stats()["active"] == 8)
    shown = server.stats()["started"]
    first, second = server.pids()
    os.kill(first, signal.SIGKILL)
    until(lambda: server.is_without(first))
    assert second in server.pids()
    after = server.whole(server.stats)
    assert after["started"] >= shown
    assert after["failed"] + after["active"] == 8
    gate.touch()
    for one in asked:
        one.join(60)
    lost = [one for one in asked if one.failure]
    assert len(lost) == after["failed"]
    assert {one.reply[1]["pid"] for one in asked if one.reply} <= {second}
    _, err = server.end()
    assert f"(process {first}) was killed by SIGKILL; another one takes its place" in err
    assert "Traceback" not in err


def test_sighup_replaces_the_workers_under_load_and_no_request_is_lost(live: Commands) -> None:
    server = Server(live)
    old = server.pids()
    with load(server) as clients:
        until(lambda: all(client.pids for client in clients))
        began = server.stats()["started"]
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.ready()["workers"] == 2 and not old & set(os_children(server)), 120)
        assert server.stats()["started"] >= began
    assert [failure for client in clients for failure in client.failures] == []
    assert not old & server.pids()
    total = sum(sum(client.pids.values()) for client in clients)
    assert server.whole(server.stats)["succeeded"] >= total
    _, err = server.end()
    assert "all workers are replaced" in err


def test_the_old_workers_go_on_where_what_replaces_them_can_not_begin(live: Commands) -> None:
    server = Server(live)
    old = server.pids()
    live.write("which.py", "import nothing_of_this_name\n")
    server.process.send_signal(signal.SIGHUP)
    assert server.process.stderr is not None
    said = server.process.stderr.readline()
    while "the workers before it go on" not in said:
        said = server.process.stderr.readline()
        assert said
    assert "nothing_of_this_name" in said
    assert server.pids() == old
    live.write("which.py", PROGRAM)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: not old & server.pids(), 120)
    server.end()


def os_children(server: Server) -> set[int]:
    """The processes of a server's session, which are its workers among others."""
    found = set()
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if folder.name.isdigit() and os.getsid(int(folder.name)) == server.process.pid:
                found.add(int(folder.name))
    return found


def test_sigterm_lets_all_workers_drain_and_a_second_one_hurries(live: Commands) -> None:
    server = Server(live, "--lame-duck", "0", "--drain", "3600")
    gate = live.folder / "gate"
    asked = [Asked(server, gate) for _ in range(6)]
    until(lambda: server.stats()["active"] == 6)
    os.killpg(server.process.pid, signal.SIGTERM)  # as systemd does: to all processes
    until(lambda: drains(server))
    until(lambda: refuses(server.where))
    server.process.send_signal(signal.SIGTERM)
    _, err = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert "Traceback" not in err
    for one in asked:
        one.join(60)
        assert one.reply is not None
        assert one.reply[0] == 503


def test_the_workers_of_a_supervisor_that_was_killed_free_the_port_at_once_and_end(live: Commands) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # a short path: that of a socket must be, and a test's is long
        server = Server(live, "--lame-duck", "0", temporary=temporary)
        workers = server.pids()
        assert len(list(Path(temporary).glob("dspy-live-*"))) == 1
        server.process.kill()
        server.process.wait()
        until(lambda: not listens(server.where))
        until(lambda: not any(alive(pid) for pid in workers), 60)
        assert list(Path(temporary).glob("dspy-live-*")) == []


def drains(server: Server) -> bool:
    try:
        return bool(server.ready()["status"] == "draining")
    except ConnectionError:  # a worker that had no run has closed its socket just now
        return False


def refuses(where: Where) -> bool:
    try:
        return ask(where, "/predict", {"question": "who"})[0] == 503
    except ConnectionError:  # as above
        return False


def listens(where: Where) -> bool:
    with socket.socket() as one:
        return one.connect_ex(where) == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_that_can_not_be_opened_is_told_in_one_line(live: Commands) -> None:
    live.write("broken.py", "import nothing_of_this_name\n")
    done = live.run("serve", "broken.py:program", "--port", "0", "--workers", "2")
    alone = live.run("serve", "broken.py:program", "--port", "0")
    assert (done.returncode, done.stderr) == (2, alone.stderr)
    assert "nothing_of_this_name" in done.stderr


@pytest.mark.parametrize("ours", [("--workers", "2"), ("--workers", "1")])
def test_two_servers_never_share_a_port(live: Commands, ours: tuple[str, ...]) -> None:
    """Both listened with SO_REUSEPORT, and each request came to one of two servers by chance."""
    server = Server(live)
    done = live.run("serve", "which.py:program", "--sim", "--port", str(server.where[1]), *ours)
    assert done.returncode == 2
    assert "take another" in done.stderr
    server.end()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "0"), "--workers must be 1 to 1024; got 0"),
        (("--workers", "40000"), "--workers must be 1 to 1024; got 40000"),
        (("--workers", "2", "--reload"), "--reload starts one process again and again"),
    ],
)
def test_what_can_not_be_is_refused(live: Commands, words: tuple[str, ...], said: str) -> None:
    done = live.main("serve", "qa.py:program", "--port", "0", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_one_worker_imports_nothing_of_this(live: Commands) -> None:
    code = "import sys, dspy_live.cli.server_process as one; print([n for n in sys.modules if 'workers' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
