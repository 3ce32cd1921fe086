"""``run``, ``stream``, ``doctor`` and what every command has in common, as a user sees them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Commands

SIMULATED = "answers come from the simulated LM"


def test_run_prints_the_outputs_and_says_that_they_are_simulated(live: Commands) -> None:
    done = live.run("run", "qa.py:program", "Why is the sky blue?", "--times", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["answer", "score"]
    assert SIMULATED in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_run_takes_an_inline_signature_and_a_text_from_stdin(live: Commands) -> None:
    done = live.main("run", "question -> answer", "-", stdin="Why is the sky blue?\n")
    assert done.returncode == 0, done.stderr
    assert "sky" in done.stdout
    assert "answer:" not in done.stdout


def test_stream_ends_with_the_output_of_run(live: Commands) -> None:
    words = ("question -> answer", "Why is the sky blue?")
    assert live.main("stream", *words).stdout == live.main("run", *words).stdout


def test_stream_as_json_lines(live: Commands) -> None:
    done = live.main("stream", "qa.py:program", "--inputs", '{"question": "Why?"}', "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "prediction"
    text = "".join(e["text"] for e in events if e["event"] == "token" and e["field"] == "answer")
    assert text == events[-1]["outputs"]["answer"]


def test_a_wrong_use_is_one_line_and_status_2(live: Commands) -> None:
    for words, said in [
        (["nonsense"], "no command 'nonsense'"),
        (["strem"], "did you mean 'stream'?"),
        (["run"], "run needs TARGET, as in: dspy-live run qa.py"),
        (["run", "qa.py:program", "Why", "do", "rivers"], "takes 'do', 'rivers'; a text of several words stands"),
        (["run", "none.py:program", "x"], "no such file: none.py"),
        (["run", "qa.py:program"], "missing field 'question' (str): put a text in quotes behind the target, or give"),
        (["serve", "qa.py", "--port", "abc"], "--port takes a whole number; got 'abc'; see dspy-live serve --help"),
        (["batch", "rows.csv"], "batch needs --program, as in: dspy-live batch rows.csv --program"),
        (["run", "qa.py:program", "x", "--times", "many"], "field 'times' must be int"),
        (["run", "qa.py:program", "x", "--tmies", "1"], "unknown field 'tmies'"),
        (["stream", "qa.py:program", "--inputs", "{"], "--inputs is not JSON"),
        (["run", "question -> answer", "x", "--timeout", "soon"], "--timeout"),
        (["run", "question -> answer", "x", "--timeout", "0"], "positive number of seconds"),
        (["run", "question -> answer", "x", "--timeout", "nan"], "positive number of seconds"),
        (["run", "question -> answer", "x", "--api-base", "http://127.0.0.1:1/v1"], "add --lm"),
        (["doctor", "--port", "99999"], "a port is a number from 0 to 65535"),
        (["load", "http://127.0.0.1:1", "--rate", "nan"], "--rate must be more than 0"),
        (["load", "http://127.0.0.1:1", "--png", "nowhere/x.png"], "there is no folder nowhere"),
        (["top", "http://"], "names a host"),
        (["sim", "--ttft", "nan"], "'ttft'"),
        (["sim", "--jitter", "3"], "'jitter'"),
    ]:
        done = live.main(*words)
        assert done.returncode == 2, (words, done)
        assert said in done.stderr, (words, done.stderr)
        assert done.stderr.startswith("dspy-live: ")
        assert "Traceback" not in done.stderr
        assert not done.stdout


def test_a_program_that_fails_names_its_own_line_and_has_status_1(live: Commands) -> None:
    done = live.main("run", "qa.py:failing", "x")
    assert done.returncode == 1
    assert "ValueError: the index is gone\n  at qa.py:13: raise ValueError" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in live.main("run", "qa.py:failing", "x", DSPY_LIVE_DEBUG="1").stderr


def test_an_endpoint_that_is_not_there_is_a_failure(live: Commands) -> None:
    live.write("live.toml", "[lm]\nmodel = 'openai/x'\nnum_retries = 0\napi_key_env = 'MY_KEY'\n")
    endpoint = ("--config", "live.toml", "--api-base", "http://127.0.0.1:1/v1")
    done = live.main("run", "question -> answer", "x", *endpoint, MY_KEY="secret-key")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert "secret-key" not in done.stderr
    assert SIMULATED not in done.stderr


def test_a_run_that_takes_too_long_is_stopped(live: Commands) -> None:
    done = live.main("run", "question -> answer", "x", "--timeout", "0.2", DSPY_LIVE_SIM="ttft=3600")
    assert done.returncode == 1
    assert "0.2" in done.stderr or "deadline" in done.stderr.lower()


def test_ctrl_c_ends_a_stream_with_status_130(live: Commands) -> None:
    process = live.start("stream", "question -> answer", "x", "--json", DSPY_LIVE_SIM="ttft=60 tps=10")
    assert process.stdout is not None
    assert "started" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "dspy-live: interrupted"
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_failure(live: Commands) -> None:
    process = live.start("stream", "question -> answer", "x", "--json", DSPY_LIVE_SIM="ttft=0 tps=20 length=5000")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=40)
    assert process.returncode == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_doctor_reports_and_loads_a_program(live: Commands) -> None:
    done = live.main("doctor", "qa.py:program", "--port", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert found["program"]["detail"] == "qa: question: str, times: int -> answer: str, score: float"
    assert (found["lm"]["state"], found["lm"]["detail"]) == ("note", "the simulated LM")
    assert found["dspy"]["state"] == "ok"
    broken = live.main("doctor", "none.py")
    assert broken.returncode == 1
    assert "bad   program       no such file: none.py" in broken.stdout


def test_settings_from_dotenv_are_used(live: Commands) -> None:
    live.write(".env", "DSPY_LIVE_LM=openai/from-dotenv\nDSPY_LIVE_API_KEY=k\n")
    found = {f["name"]: f for f in json.loads(live.main("doctor", "--json", "--no-network").stdout)}
    assert found["lm"]["detail"] == "openai/from-dotenv (.env)"


@pytest.mark.parametrize("folder", ["qa.py", "qa.py/below", "/proc/none"])
def test_doctor_notices_a_cache_that_can_not_be(live: Commands, folder: str) -> None:
    done = live.main("doctor", "--json", DSPY_CACHEDIR=folder)
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["cache"]["state"] == "bad"
    assert f"{folder} can't be written" in found["cache"]["detail"]


def test_doctor_looks_at_the_cache_that_dotenv_names(live: Commands) -> None:
    live.write(".env", "DSPY_CACHEDIR=here\n")
    live.environ.pop("DSPY_CACHEDIR", None)
    found = {f["name"]: f for f in json.loads(live.run("doctor", "--json").stdout)}
    assert found["cache"] == {"state": "ok", "name": "cache", "detail": "here", "do": ""}


@pytest.mark.parametrize("pace", ["ttft=nan", "ttft=-1", "tps=0", "length=inf", "jitter=2"])
def test_a_pace_of_the_simulated_lm_that_can_not_be(live: Commands, pace: str) -> None:
    done = live.main("run", "question -> answer", "x", DSPY_LIVE_SIM=pace)
    assert done.returncode == 2
    assert done.stderr.startswith("dspy-live: DSPY_LIVE_SIM: ")


def test_a_key_without_a_model_is_pointed_out(live: Commands) -> None:
    done = live.main("run", "question -> answer", "x", OPENAI_API_KEY="sk-secret")
    assert "OPENAI_API_KEY is set, but no model is named" in done.stderr
    assert "sk-secret" not in done.stderr


def test_help_and_version_are_quick_because_nothing_heavy_is_imported() -> None:
    program = "import sys; from dspy_live.cli import main; main([{!r}]); print(sorted(sys.modules))"
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", program.format(flag)], capture_output=True, text=True, check=True)
        loaded = done.stdout.splitlines()[-1]
        for heavy in ("'dspy'", "'uvicorn'", "'litellm'", "'starlette'", "'dspy_live.server'"):
            assert heavy not in loaded
    assert "dspy-live 0" in done.stdout
