"""``doctor`` finds what usually goes wrong, and says what to do for each."""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from dspy_live.cli.doctor import lm, machine
from dspy_live.cli.doctor.compiled_part import compiled_part
from dspy_live.loading.lm_settings import LMSettings
from dspy_live.runtime.native import INTERFACE, SWITCH
from dspy_live.simulator import Simulator

if TYPE_CHECKING:
    from .conftest import Commands


def look(live: Commands, *words: str, **environ: str) -> dict[str, dict[str, Any]]:
    done = live.main("doctor", "--json", "--port", "0", *words, **environ)
    assert done.returncode in (0, 1), done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (done.returncode == 1) == any(one["state"] == "bad" for one in found.values())
    return found


def test_what_is_wrong_has_something_to_do(live: Commands) -> None:
    live.write("dspy-live.toml", "[server]\nprot = 1\n[lm]\ntemprature = 1\n")
    found = look(live, "--no-network", SSL_CERT_FILE="/none.pem")
    assert found["config"]["detail"].startswith("dspy-live.toml:2: server.prot: there is no key of this name")
    assert found["config"]["detail"].endswith("(and 1 more)")
    assert found["config"]["do"] == "dspy-live check dspy-live.toml tells all"
    assert found["certificates"]["state"] == "bad"
    assert all(one["do"] for one in found.values() if one["state"] != "ok")
    text = live.main("doctor", "--no-network").stdout
    assert "bad   config        dspy-live.toml:2: server.prot" in text
    assert "→ dspy-live check dspy-live.toml tells all" in text


def test_an_lm_that_answers(live: Commands) -> None:
    with Simulator().running() as url:
        found = look(live, "--lm", "openai/simulated", "--api-base", url, "--api-key", "none")
        assert (found["endpoint"]["state"], found["endpoint"]["detail"]) == ("ok", f"{url}/models answers")
        assert found["key"]["state"] == "ok"
        found = look(live, "--lm", "openai/simulate", "--api-base", url)
        assert found["endpoint"]["state"] == "note"
        assert "lists no 'simulate'; did you mean" in found["endpoint"]["detail"]
        assert found["key"]["detail"] == "none (OPENAI_API_KEY is not set)"


def test_the_lms_of_programs_are_looked_at(live: Commands) -> None:
    """A file whose programs name LMs of ``[lms]`` has no ``[lm]``, and needs none."""
    with Simulator().running() as url:
        live.write(
            "dspy-live.toml",
            f'[programs.ask]\ntarget = "qa.py:plain"\nlm = "near"\n[lms.near]\nmodel = "openai/simulated"\n'
            f'api_base = "{url}"\n[lms.far]\nmodel = "openai/x"\n',
        )
        found = look(live, OPENAI_API_KEY="", OPENAI_API_BASE=url)
    assert found["config"]["state"] == "ok"
    assert "lm" not in found
    assert found["lm near"]["detail"] == "openai/simulated (dspy-live.toml, lms.near)"
    assert (found["endpoint near"]["state"], found["endpoint near"]["detail"]) == ("ok", f"{url}/models answers")
    assert (found["key far"]["state"], found["key far"]["detail"]) == ("bad", "OPENAI_API_KEY is not set")
    assert found["key far"]["do"] == "set OPENAI_API_KEY in .env, or api_key_env in [lms.far]"


def test_an_lm_that_does_not_answer(live: Commands) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        found = look(live, "--lm", "openai/x", "--api-base", url)
    assert found["endpoint"]["state"] == "bad"
    assert "Connection refused" in found["endpoint"]["detail"]


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (lm.Answer(401, [], None), "bad", "refuses the key (401)"),
        (lm.Answer(404, [], None), "note", "answers 404"),
        (lm.Answer(200, [], None), "ok", "answers"),
        (lm.Answer(200, ["a", "b"], None), "note", "lists no 'x'; it has a, b"),
    ],
)
def test_what_an_endpoint_says(answer: lm.Answer, state: str, said: str) -> None:
    found = lm._told("openai/x", "http://h/models", answer)
    assert found.state == state
    assert said in found.detail


def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    assert lm._key(LMSettings("openai/x")).detail == "OPENAI_API_KEY is not set"
    assert lm._key(LMSettings("anthropic/x")).state == "ok"
    assert lm._key(LMSettings("ollama_chat/x")).state == "note"
    told = list(lm.named(LMSettings()))
    assert "ANTHROPIC_API_KEY is set, but no model is named" in told[0].detail
    assert "sk-secret" not in repr(told)


def test_a_port_that_is_taken(live: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = live.main("doctor", "--json", "--no-network", "--port", str(port))
    found = {one["name"]: one for one in json.loads(done.stdout)}["port"]
    assert found["detail"] == f"{port} on 127.0.0.1 can't be used: Address already in use"
    assert "--port" in found["do"]


def test_a_ledger_that_cannot_be_written(live: Commands, tmp_path: Path) -> None:
    (tmp_path / "l.db").write_bytes(b"no database at all, but a text" * 50)
    found = look(live, "--no-network", DSPY_LIVE_LEDGER=str(tmp_path / "l.db"))
    assert found["ledger"]["state"] == "bad"
    assert "file is not a database" in found["ledger"]["detail"]
    assert "DSPY_LIVE_LEDGER" in found["ledger"]["do"]
    assert look(live, "--no-network", DSPY_LIVE_LEDGER="/proc/none/l.db")["ledger"]["state"] == "bad"
    locked = sqlite3.connect(tmp_path / "ok.db", isolation_level=None)
    locked.execute("CREATE TABLE t (a)")
    locked.close()
    assert look(live, "--no-network", DSPY_LIVE_LEDGER=str(tmp_path / "ok.db"))["ledger"]["state"] == "ok"


def test_what_the_configuration_needs_is_looked_for(live: Commands) -> None:
    text = '[store]\nurl = "redis://127.0.0.1:1"\n[ledger]\nplace = "postgresql://u:hunter2@127.0.0.1:1/d"\n'
    live.write("dspy-live.toml", text)
    found = look(live)
    assert found["config"]["state"] == "ok"
    assert found["store"]["state"] == found["ledger"]["state"] == "bad"
    assert "hunter2" not in json.dumps(found)


def test_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert machine.proxies().state == "ok"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    found = machine.proxies()
    assert found.detail == "HTTPS_PROXY http://…@proxy:3128, NO_PROXY localhost"
    assert machine.clock(None).state == "ok"
    assert machine.clock(1.0).state == "note"
    monkeypatch.setattr(machine.time, "time", lambda: 1_000.0)
    assert machine.clock(None).state == "bad"
    assert [one.name for one in machine.descriptors()] == ["descriptors"]


@pytest.mark.skipif(sys.platform != "linux", reason="the compiled part is for Linux only, which is what is said there")
def test_the_compiled_part(live: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    module = ModuleType("dspy_live_native")
    monkeypatch.setitem(sys.modules, "dspy_live_native", module)
    vars(module).update(INTERFACE=INTERFACE, __version__="0.1.9")
    found = look(live, "--no-network")["native"]
    assert found["state"] == "ok"
    assert found["detail"].startswith("dspy-live-native 0.1.9: about half of the CPU per chunk")
    vars(module).update(INTERFACE=INTERFACE + 1)
    found = compiled_part()
    assert found.state == "note"
    assert f"0.1.9 has interface {INTERFACE + 1}" in found.detail
    assert found.do == "update both: pip install -U 'dspy-live[native]'"
    monkeypatch.setenv(SWITCH, "0")
    found = compiled_part()
    assert (found.state, found.do) == ("note", "unset DSPY_LIVE_NATIVE")
    assert found.detail.startswith("switched off by DSPY_LIVE_NATIVE=0")
    monkeypatch.delenv(SWITCH)
    monkeypatch.setitem(sys.modules, "dspy_live_native", None)
    found = compiled_part()
    assert (found.state, found.do) == ("ok", "pip install 'dspy-live[native]'")
    assert found.detail.startswith("not installed, and not needed")
