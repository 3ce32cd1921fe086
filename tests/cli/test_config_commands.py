"""``init``, ``check``, ``keys`` and ``serve`` with a configuration file, as a user has them: processes and sockets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
import pytest
from tests.support.until import until

from dspy_live.cli.commands.init import _DEPLOY, project
from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.server_process import open_served
from dspy_live.loading.config.keys import ServerKeys
from dspy_live.loading.config.read import ConfigFile, read_config
from dspy_live.simulator import Simulator

from .conftest import forget_modules
from .test_serve import address, ask, banner, stopped

if TYPE_CHECKING:
    from .conftest import Commands


@pytest.fixture
def live(live: Commands) -> Iterator[Commands]:
    live.environ |= {"DSPY_LIVE_HOME": str(live.folder / "home")}
    return live


def start(live: Commands, text: str, *words: str, **environ: str) -> tuple[Any, tuple[str, int], str]:
    """Start a server with this file. It stops at once when it is told to."""
    live.write("dspy-live.toml", text)
    process = live.start("serve", *words, "--lame-duck", "0", **environ)
    said = banner(process, 1)
    assert process.stdout is not None
    while "configuration" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return process, address(said), said


QA = '[server]\nport = 0\n[programs.ask]\ntarget = "qa.py:plain"\n'


@pytest.mark.timeout(180)
def test_a_new_project_runs_at_once(live: Commands) -> None:
    """What ``init`` writes is checked, tested, served and asked, without a key and without a change."""
    live.environ["DSPY_LIVE_HOME"] = ""
    live.environ["HOME"] = str(live.folder / "home")
    done = live.main("init", "My first-project")
    assert done.returncode == 0, done.stderr
    assert "now: cd 'My first-project' && dspy-live serve" in done.stdout
    live.folder = live.folder / "My first-project"
    done = live.main("check")
    assert (done.returncode, done.stdout) == (0, "dspy-live.toml: no mistake (1 program, 0 LMs, 0 keys)\n")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."],
        cwd=live.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 passed" in tests.stdout, tests.stdout + tests.stderr
    process = live.start("serve", "--port", "0")
    said = banner(process, 6)
    assert "my_first_project   question -> " in said
    assert re.search(r"^  configuration +dspy-live\.toml$", said, re.MULTILINE)
    status, _, reply = ask(address(said), "/predict", {"question": "Why do rivers bend?"})
    assert status == 200
    assert reply["answer"]
    assert stopped(process, signal.SIGINT)[0] == 130
    again = live.main("init", ".")
    assert again.returncode == 2
    assert "program.py, dspy-live.toml" in again.stderr
    assert "nothing is overwritten" in again.stderr


def test_files_for_deployment_come_along_where_they_are_wanted(live: Commands) -> None:
    done = live.main("init", "new", "--deploy", "--name", "My QA")
    assert done.returncode == 0, done.stderr
    new = live.folder / "new"
    assert {path.name for path in (new / "deploy").iterdir()} == set(_DEPLOY)
    file = read_config(new / "dspy-live.toml")
    assert [(name, table.target) for name, table in file.config.programs.items()] == [("my_qa", "program.py:program")]
    for name in ("kubernetes.yaml", "dspy-live@.service"):
        assert "program.py:program" in (new / "deploy" / name).read_text(), (
            "the target that brings the file's table along"
        )


def test_each_key_that_the_new_file_explains_is_a_key(tmp_path: Path) -> None:
    text = project("x", "x")["dspy-live.toml"]
    path = tmp_path / "dspy-live.toml"
    path.write_text(re.sub(r"^#(?! )", "", text, flags=re.MULTILINE))
    environ = {"OPENAI_API_KEY": "set", "TEAM_KEY": "set", "REDIS_URL": "redis://h"}
    config = read_config(path, environ).config
    assert config.lm is not None
    assert config.lm.fallback == ["large"]
    assert config.programs["x"].layers.deadline == 60
    named = set(re.findall(r"^#?\[?\[?(\w+)", text, re.MULTILINE))
    for table in ("server", "lm", "keys", "key_store", "proxies", "tls", "logging", "tracing", "ledger"):
        shape = type(getattr(config, table)) if table != "keys" else type(config.keys["team"])
        missing = set(shape.__struct_fields__) - named - set(re.findall(r"\w+", text))
        assert missing <= ALLOWED, f"[{table}] explains nothing of {missing}"


ALLOWED = {
    *(
        "password_file",
        "service_name",
        "api_base",
        "api_key",
        "top_p",
        "max_completion_tokens",
        "seed",
        "stop",
        "cache",
    ),
    *(
        "presence_penalty",
        "frequency_penalty",
        "reasoning_effort",
        "model_type",
        "num_retries",
        "stream",
        "capabilities",
    ),
    "month",
}
"""Keys of the guide's table that a first file can do without."""


def test_check_tells_every_mistake_and_loads_the_programs(live: Commands) -> None:
    live.write("broken.py", "import dspy\nprogram = 1 / 0\n")
    live.write("bad.toml", '[server]\nprot = 1\ndrain = "x"\n[programs.a]\ntarget = "qa.py:plain"\nlm = "b"\n')
    done = live.main("check", "bad.toml")
    assert done.returncode == 1
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        "bad.toml:2",
        "bad.toml:3",
        "bad.toml:6",
        "dspy-live",
    ]
    assert "dspy-live: 3 mistakes" in done.stderr
    live.write(
        "load.toml",
        '[programs.a]\ntarget = "broken.py"\n[programs.b]\ntarget = "qa.py:plan"\n[tls]\ncertfile = "none.pem"\n'
        "[programs.c]\ntarget = 'qa.py:plain'\nexecution = 'native'\n",
    )
    done = live.main("check", "load.toml")
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0].startswith("load.toml:2: programs.a.target: broken.py can't be imported: ZeroDivisionError")
    assert "broken.py:2" in said[0]
    assert said[1].startswith("load.toml:4: programs.b.target: ")
    assert "did you mean" in said[1]
    assert said[2].startswith("load.toml:5: tls: ")
    assert live.main("check", "load.toml", "--no-load").returncode == 0
    assert live.main("check").returncode == 2, "there is no file"


def test_check_takes_the_flag_of_serve_and_looks_for_the_folder_of_the_log(live: Commands) -> None:
    live.write("log.toml", QA + '[logging]\nfile = "none/server.log"\n')
    done = live.main("check", "--config", "log.toml")
    assert done.returncode == 1
    assert done.stderr.startswith("log.toml:6: logging.file: there is no folder 'none' for the log")
    (live.folder / "none").mkdir()
    assert live.main("check", "--config", "log.toml").returncode == 0
    assert list((live.folder / "none").iterdir()) == [], "check writes nothing"


def test_flags_go_before_the_file_and_targets_before_its_programs(live: Commands) -> None:
    text = QA + '[programs.two]\ntarget = "qa.py:program"\n[logging]\naccess = false\n'
    text = text.replace("port = 0", 'port = 1\ntitle = "from the file"')
    process, where, _ = start(live, text, "--port", "0", "--title", "from a flag")
    listed = ask(where, "/programs")[2]
    assert [program["name"] for program in listed["programs"]] == ["ask", "two"]
    assert listed["title"] == "from a flag"
    assert "dspy_live.access" not in stopped(process, signal.SIGTERM)[1]
    process, where, _ = start(live, text, "text -> summary", "--port", "0")
    listed = ask(where, "/programs")[2]
    assert [program["name"] for program in listed["programs"]] == ["predict"]
    assert listed["title"] == "from the file"
    stopped(process, signal.SIGTERM)


def test_a_target_that_the_file_has_too_brings_its_table_along(live: Commands) -> None:
    (live.folder / "sub").mkdir()
    text = '[programs.a]\ntarget = "../qa.py:plain"\nlayers.deadline = 7\n[programs.b]\ntarget = "../qa.py:program"\n'
    file = read_config(live.write("sub/dspy-live.toml", text))

    def opened(*targets: str, **flags: Any) -> dict[str, float | None]:
        options = ServeOptions(targets, ProgramFlags(**flags), sim=True)
        return {name: one.deadline for name, one in open_served(options, file).items()}

    before = dspy.settings.lm
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(live.folder)
            patch.setattr(sys, "path", list(sys.path))
            assert opened() == {"a": 7.0, "b": None}
            assert opened("a") == opened("../qa.py:plain") == {"a": 7.0}
            assert opened("other=a", "qa.py:failing") == {"other": 7.0, "failing": None}
    finally:
        dspy.configure(lm=before)
        forget_modules(live.folder)


def test_serve_without_a_program_says_how_to_name_one(live: Commands) -> None:
    done = live.main("serve")
    assert done.returncode == 2
    assert "dspy-live init" in done.stderr
    live.write("dspy-live.toml", "[server]\nport = 0\n")
    assert "dspy-live.toml has no table [programs.NAME]" in live.main("serve").stderr
    live.write("dspy-live.toml", "[server]\nprot = 0\n")
    done = live.main("serve", "qa.py:plain")
    assert done.returncode == 2
    assert "dspy-live.toml:2: server.prot: there is no key of this name; did you mean 'port'?" in done.stderr


def test_a_file_elsewhere_names_what_lies_beside_it(live: Commands) -> None:
    (live.folder / "sub").mkdir()
    live.write("sub/inner.py", "import dspy\nprogram = dspy.Predict('question -> answer')\n")
    live.write("sub/other.toml", '[server]\nport = 0\n[programs.a]\ntarget = "inner.py"\n[ledger]\nplace = "l.db"\n')
    process = live.start("serve", "--config", "sub/other.toml", "--lame-duck", "0")
    where = address(banner(process, 6))
    assert ask(where, "/predict", {"question": "x"})[0] == 200
    stopped(process, signal.SIGTERM)
    assert (live.folder / "sub" / "l.db").is_file()


def test_each_program_has_its_lm_and_another_one_answers_when_that_fails(live: Commands) -> None:
    with Simulator().running() as url:
        text = f"""
[server]
port = 0
[lm]
model = "openai/dead"
api_base = "http://127.0.0.1:9/v1"
api_key = "none"
num_retries = 0
fallback = ["backup"]
[lms.backup]
model = "openai/backup"
api_base = "{url}"
api_key_env = "THE_KEY"
[lms.alone]
model = "openai/alone"
api_base = "http://127.0.0.1:9/v1"
api_key = "none"
num_retries = 0
[programs.first]
target = "qa.py:plain"
[programs.second]
target = "qa.py:plain"
lm = "alone"
[programs.third]
target = "qa.py:plain"
lm = "backup"
[prices."openai/backup"]
input = 1000
output = 1000
"""
        process, where, said = start(live, text, THE_KEY="none")
        assert "openai/dead" in said
        status, _, reply = ask(where, "/predict", {"question": "x"})
        assert status == 200, reply
        assert (
            [*reply["run"]["usage"]["by_model"]] == ["openai/backup"] if "by_model" in reply["run"]["usage"] else True
        )
        assert reply["run"]["usage"]["cost"] > 0, "the price of the file is the one that counts"
        assert ask(where, "/programs/second/predict", {"question": "x"})[0] == 502
        assert ask(where, "/programs/third/predict", {"question": "x"})[0] == 200
        stopped(process, signal.SIGTERM)


def test_layers_of_the_file_stand_around_their_program(live: Commands) -> None:
    text = """
[server]
port = 0
[programs.rated]
target = "qa.py:plain"
layers.rate = { requests_per_minute = 1, max_wait = 0 }
[programs.timed]
target = "qa.py:plain"
layers.deadline = 0.05
[programs.free]
target = "qa.py:plain"
[programs.paid]
target = "qa.py:plain"
layers.budget = { max_calls = 1, period = "day" }
"""
    process, where, _ = start(live, text, DSPY_LIVE_SIM="ttft=0.2 tps=none jitter=0")

    def statuses(program: str, count: int) -> list[int]:
        return [ask(where, f"/programs/{program}/predict", {"question": f"{n}"})[0] for n in range(count)]

    assert statuses("rated", 2) == [200, 429]
    assert statuses("timed", 1) == [504]
    assert statuses("free", 2) == [200, 200]
    assert statuses("paid", 2) == [200, 402]
    stopped(process, signal.SIGTERM)
    process, where, _ = start(live, text)
    assert statuses("paid", 1) == [402], "the day's budget outlives a restart"
    stopped(process, signal.SIGTERM)


def made_key(live: Commands, name: str, *words: str) -> dict[str, str]:
    done = live.main("keys", "create", name, *words)
    assert done.returncode == 0, done.stderr
    secret = done.stdout.strip()
    assert secret.startswith("sk-dl-")
    return {"Authorization": f"Bearer {secret}"}


def test_keys_are_made_changed_and_revoked_without_a_restart(live: Commands) -> None:
    ada = made_key(live, "ada", "--program", "ask", "--requests-per-minute", "100", "--calls-per-day", "2")
    process, where, said = start(live, QA)
    assert re.search(r"^  keys +1 ", said, re.MULTILINE), said
    question = {"question": "x"}
    assert ask(where, "/predict", question)[0] == 401
    status, headers, _ = ask(where, "/predict", question, **ada)
    assert (status, headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (200, "100", "99")
    bob = made_key(live, "bob")
    assert ask(where, "/predict", question, **bob)[0] == 401
    process.send_signal(signal.SIGHUP)
    until(lambda: ask(where, "/predict", question, **bob)[0] == 200)
    assert live.main("keys", "revoke", "bob").returncode == 0
    live.write("dspy-live.toml", QA + "[keys.eve]\nhsah = 'x'\n")
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    until(lambda: "the keys stay as they were" in process.stderr.readline())  # type: ignore[union-attr]
    assert ask(where, "/predict", question, **bob)[0] == 200, "a mistake in the file changes nothing"
    hashed = live.main("keys", "hash", stdin="a-key-of-24-characters-or-more\n").stdout.strip()
    live.write("dspy-live.toml", QA.replace("ask", "other") + f'[keys.eve]\nhash = "{hashed}"\n')
    process.send_signal(signal.SIGHUP)
    until(lambda: ask(where, "/predict", question, **bob)[0] == 401)
    assert ask(where, "/predict", question, Authorization="Bearer a-key-of-24-characters-or-more")[0] == 200
    assert ask(where, "/predict", question, **ada)[0] == 200
    code, err = stopped(process, signal.SIGTERM)
    assert code == 0
    assert "takes a new start" in err
    assert "Traceback" not in err
    process, where, _ = start(live, QA)
    assert ask(where, "/predict", question, **ada)[0] == 429, "what was used before the restart counts"
    stopped(process, signal.SIGTERM)
    listed = json.loads(live.main("keys", "list", "--json").stdout)
    assert [(row["name"], bool(row["revoked"])) for row in listed] == [("ada", False), ("bob", True)]
    assert listed[0]["today"]["calls"] == 2
    assert "ada" in live.main("keys", "list").stdout


def test_a_server_whose_keys_are_all_revoked_asks_for_one(live: Commands) -> None:
    made_key(live, "ada")
    live.main("keys", "revoke", "ada")
    with closing(ServerKeys(ConfigFile(), {}, live.folder / "home" / "keys.db")) as server_keys:
        assert server_keys.keys, "a server without keys is open to everybody"
        assert server_keys.told().startswith("1 (")
    with closing(ServerKeys(ConfigFile(), {}, live.folder / "none.db")) as server_keys:
        assert not server_keys.keys
    assert not (live.folder / "none.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "list"), "there is no file of keys at"),
        (("keys", "revoke", "x"), "there is no file of keys at"),
        (("keys", "create"), "keys create needs the key's name"),
        (("keys", "create", "a b"), "a key's name is"),
        (("keys", "create", "a", "--scope", "root"), "has the scope 'root'; there are run, metrics, usage"),
        (("keys", "create", "a", "--concurrency", "0"), "concurrency must be a whole number"),
        (("keys", "list", "--concurrency", "1"), "keys list takes no limits"),
        (("keys", "hash"), "a key must have 24 characters or more"),
    ],
)
def test_a_wrong_use_of_keys_is_told(live: Commands, words: tuple[str, ...], said: str) -> None:
    done = live.main(*words, stdin="short\n")
    assert done.returncode == 2
    assert said in done.stderr
