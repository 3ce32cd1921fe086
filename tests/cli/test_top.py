"""``top``: a server's statistics on the screen, and the command against a server that comes and goes."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dspy_live.cli.screens.top import History, screen, sparkline

from .test_serve import address, ask, banner

if TYPE_CHECKING:
    from .conftest import Commands


def stats(**changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("active", "started", "succeeded", "failed", "cancelled", "tokens"), 0)
    times = {"duration_ms": None, "first_token_ms": None}
    return {"max_active": None, "draining": False, "uptime_s": 1.0, "cost": 0.0, **counts, **times, **changes}


def text_of(history: History, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(screen(history, width))
    return out.getvalue()


def test_rates_are_differences_per_second() -> None:
    history = History("http://x")
    history.add(10.0, stats(started=5, tokens=100))
    history.add(12.0, stats(started=9, tokens=500, uptime_s=3.0))
    assert history.rates("started") == [2.0]
    assert history.rates("tokens") == [200.0]


def test_a_server_that_was_started_anew_begins_a_new_history() -> None:
    history = History("http://x")
    history.add(10.0, stats(started=500, uptime_s=100.0))
    history.add(11.0, stats(started=1, uptime_s=0.5))
    assert history.rates("started") == []


def test_a_sparkline_shows_something_for_anything() -> None:
    assert sparkline([0, 1, 50, 100], 10) == " ▁▄█"
    assert sparkline([0, 0], 10) == "  "
    assert sparkline([], 10) == ""
    assert sparkline(range(100), 5) == "████" + "█"


def test_the_screen() -> None:
    history = History("http://x", ("qa", "other"), simulated=True)
    history.add(1.0, stats())
    now = stats(active=3, max_active=10, started=20, tokens=1234, cost=0.5, duration_ms={"p50": 250.0, "p95": 900.0})
    history.add(2.0, {**now, "uptime_s": 3723.0})
    said = text_of(history)
    for expected in (
        "qa, other",
        "simulated LM",
        "3 of 10",
        "20   20.0/s",
        "1,234",
        "$0.5000",
        "p95 900 ms",
        "1:02:03",
    ):
        assert expected in said
    assert max(map(len, said.splitlines())) <= 80
    history.trouble = "Connection refused"
    history.add(3.0, stats(draining=True, uptime_s=4000.0))
    assert "shutting down" in text_of(history)
    assert "refused" not in text_of(history)


def test_the_newest_reason_of_a_failure_is_shown_with_the_time_of_the_first() -> None:
    """The first one stayed, for as long as the server was away."""
    history = History("http://x")
    history.fail("the server closed the connection", "12:00:01")
    history.fail("Connection refused", "12:00:02")
    assert text_of(history).splitlines()[1] == "Connection refused (since 12:00:01)"
    history.add(3.0, stats())
    history.fail("no reply within 10 s", "12:30:00")
    assert history.trouble == "no reply within 10 s (since 12:30:00)"


def test_the_command_in_a_pipe(live: Commands) -> None:
    server = live.start("serve", "qa.py:plain", "--port", "0", "--no-ledger")
    where = address(banner(server))
    assert ask(where, "/predict", {"question": "a"})[0] == 200
    url = "http://{}:{}".format(*where)
    done = live.main("top", url, "--count", "2", "--every", "0.05")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("went well") == 2
    assert "simulated LM" in done.stdout
    watching = live.start("top", url, "--every", "0.05")
    assert watching.stdout is not None
    assert url in watching.stdout.readline()
    server.kill()
    while "refused" not in (line := watching.stdout.readline()):
        assert line or watching.poll() is None
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=40)
    assert watching.returncode == 130
    gone = live.main("top", url)
    assert gone.returncode == 1
    assert "refused" in gone.stderr


def test_q_on_a_terminal_ends_it_and_leaves_the_terminal_as_it_was(live: Commands) -> None:
    server = live.start("serve", "qa.py:plain", "--port", "0", "--no-ledger")
    url = "http://{}:{}".format(*address(banner(server)))
    screen_end, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    watching = subprocess.Popen(
        [sys.executable, "-m", "dspy_live", "top", url, "--every", "0.05"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes the session's own terminal
    )
    shown = b""
    while b"went well" not in shown:
        shown += os.read(screen_end, 4096)
    os.write(screen_end, b"xq")
    until = time.monotonic() + 40
    while watching.poll() is None and time.monotonic() < until:
        if select.select([screen_end], [], [], 0.1)[0]:
            os.read(screen_end, 4096)
    watching.kill()
    assert watching.wait() == 0
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    os.close(screen_end)
