"""``load``: latencies of closed and open loops, and the command against a real server."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dspy_live.cli.commands.load import from_text, made_up
from dspy_live.cli.load import drive as load_drive
from dspy_live.cli.load.drive import Load, Sample, drive
from dspy_live.cli.load.report import check_png, draw, draw_png, measurements, show
from dspy_live.core.errors import ConfigurationError
from dspy_live.testing.virtual_time import virtual_time

from .test_serve import address, banner

if TYPE_CHECKING:
    from .conftest import Commands


def taking(seconds: float, most: list[int] | None = None) -> load_drive.Ask:
    """A server that answers after so many seconds; ``most`` gets the most runs at once."""
    active = 0

    async def ask(number: int, sample: Sample) -> None:
        nonlocal active
        active += 1
        if most is not None:
            most[:] = [max([active, *most])]
        await asyncio.sleep(seconds)
        active -= 1

    return ask


@virtual_time
async def test_a_closed_loop_keeps_so_many_under_way() -> None:
    most: list[int] = []
    load = await drive(taking(0.5, most), seconds=10, concurrency=4)
    assert most == [4]
    assert len(load.samples) == 80
    assert {round(s.latency, 6) for s in load.samples} == {0.5}


@virtual_time
async def test_so_many_requests_and_no_more() -> None:
    assert len((await drive(taking(0.1), seconds=100, concurrency=3, requests=7)).samples) == 7
    assert len((await drive(taking(0.1), seconds=100, rate=5, requests=7)).samples) == 7


@virtual_time
async def test_an_open_loop_begins_on_time_whatever_the_server_does() -> None:
    load = await drive(taking(60), seconds=2, rate=10)
    assert [round(s.due - load.started, 6) for s in load.samples] == [round(n / 10, 6) for n in range(20)]
    assert {round(s.latency, 6) for s in load.samples} == {60}


@virtual_time
async def test_a_stall_is_felt_by_every_run_that_was_due_in_it() -> None:
    """One at a time behind a gate that opens after 1 s: a closed loop would see one slow run, an open loop ten."""
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, gate.set)

    async def ask(number: int, sample: Sample) -> None:
        await gate.wait()

    load = await drive(ask, seconds=2, rate=10)
    assert [round(s.latency, 6) for s in load.samples[:10]] == [round(1 - n / 10, 6) for n in range(10)]
    assert {round(s.latency, 6) for s in load.samples[10:]} == {0}


@virtual_time
async def test_runs_that_could_not_be_sent_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_drive, "MOST_WAITING", 3)
    found = measurements(await drive(taking(100), seconds=1, rate=10))
    assert (found["runs"], found["failed"], found["errors"]) == (10, 7, {"not_sent": 7})


@virtual_time
@pytest.mark.parametrize("rate", [None, 10.0])
async def test_an_interrupted_load_returns_its_samples(rate: float | None) -> None:
    task = asyncio.ensure_future(drive(taking(0.5), seconds=1000, concurrency=2, rate=rate))
    await asyncio.sleep(3.2)
    task.cancel()
    load = await task
    assert load.interrupted
    assert len(load.samples) == (12 if rate is None else 28)


def test_measurements_are_those_of_the_runs_that_went_well() -> None:
    load = Load(0.0, 10.0, [Sample(0.0, (n + 1) / 1000, first=n / 2000, tokens=3) for n in range(100)])
    load.samples += [Sample(0.0, 9.0, error="overloaded"), Sample(0.0, 9.0, error="overloaded")]
    found = measurements(load)
    assert found["latency_ms"] == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert (found["runs"], found["failed"], found["rate"], found["tokens"]) == (102, 2, 10.0, 300)
    assert measurements(Load(0.0, 1.0))["latency_ms"] is None
    out = io.StringIO()
    show(found, "title", out)
    draw(load, out)
    assert "failed       2: overloaded 2" in out.getvalue()
    assert "p99 99 ms" in out.getvalue()
    assert out.getvalue().count("█") > 12


def test_latencies_that_are_all_the_same_are_one_bar() -> None:
    out = io.StringIO()
    draw(Load(0.0, 1.0, [Sample(0.0, 0.5), Sample(0.0, 0.5)]), out)
    assert out.getvalue().split() == ["500", "ms", "█" * 48, "2"]


def test_the_picture(tmp_path: Path) -> None:
    load = Load(0.0, 1.0, [Sample(0.0, 0.1, first=0.05, tokens=1), Sample(0.5, 0.7, error="lm_failed")])
    draw_png(load, tmp_path / "load.png", "title")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="PNG"):
        check_png(tmp_path / "load.txt")
    with pytest.raises(ConfigurationError, match="no folder"):
        check_png(tmp_path / "nowhere" / "load.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ConfigurationError, match="can't write"):
        draw_png(load, tmp_path / "taken.png", "title")


def test_inputs_are_made_up_from_the_fields() -> None:
    fields = [
        ("question", "str", True),
        ("k", "int", True),
        ("hints", "list[str]", True),
        ("image", "dspy.Image", False),
    ]
    described = {"inputs": [{"name": n, "type": t, "required": r} for n, t, r in fields]}
    make = made_up(described)
    assert make(1).keys() == {"question", "k", "hints"}
    assert make(1)["question"] != make(2)["question"]
    described["inputs"][3]["required"] = True
    with pytest.raises(ConfigurationError, match="'image'"):
        made_up(described)
    with pytest.raises(ConfigurationError, match="not known"):
        made_up({"inputs": []})
    assert from_text('{"q": "number {n}", "k": 3}')(7) == {"q": "number 7", "k": 3}
    for wrong in ("{", "[]"):
        with pytest.raises(ConfigurationError, match="--inputs"):
            from_text(wrong)


def test_the_command_against_a_server(live: Commands) -> None:
    process = live.start("serve", "qa.py:plain", "--port", "0", "--key", "k1", "--no-ledger")
    url = "http://{}:{}".format(*address(banner(process)))
    key = ("--api-key", "k1")
    done = live.main("load", url, "-n", "20", "-c", "4", "--json", *key)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["runs"], found["failed"]) == (20, 0)
    assert found["latency_ms"]["p50"] > 0
    done = live.main("load", url, "--rate", "100", "-n", "20", "--stream", "--png", "load.png", *key)
    assert done.returncode == 0, done.stderr
    assert "first token" in done.stdout
    assert (live.folder / "load.png").exists()
    failing = live.main("load", url, "-n", "3", "--inputs", '{"wrong": 1}', "--json", *key)
    assert failing.returncode == 1
    assert json.loads(failing.stdout)["errors"] == {"invalid_input": 3}
    for words, said in [
        ((url, "--program", "none", *key), "no program 'none'"),
        ((url, "--rate", "0", *key), "--rate must be more than 0"),
        ((url,), "key"),
        (("http://127.0.0.1:1",), "127.0.0.1:1"),
    ]:
        refused = live.main("load", *words, "-n", "1")
        assert refused.returncode != 0
        assert said in refused.stderr
