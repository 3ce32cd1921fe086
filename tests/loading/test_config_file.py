"""``dspy-live.toml`` is read as a whole: every mistake at once, each with its line, and no secret in any of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.mistakes import ConfigMistakes
from dspy_live.loading.config.read import ConfigFile, find_config, read_config
from dspy_live.loading.config.shape import LimitTable
from dspy_live.loading.config.store import SharedStore, store_of

HASH = "sha256:" + "a" * 64


def read(folder: Path, text: str, **environ: str) -> ConfigFile:
    path = folder / "dspy-live.toml"
    path.write_text(text)
    return read_config(path, environ)


def mistakes(folder: Path, text: str, **environ: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigMistakes) as raised:
        read(folder, text, **environ)
    return [(one.line, one.key, one.text) for one in raised.value.mistakes]


WHOLE = f"""
[server]
host = "127.0.0.1"
port = 0
title = "t"
max_active = 10
max_body = "2 MB"
timeout = 60
origins = ["https://app.example"]
[lm]
model = "openai/a"
api_key_env = "KEY_A"
temperature = 0.5
options = {{ extra_headers = {{ x = "y" }} }}
fallback = ["backup"]
[lm.layers]
rate = {{ requests_per_minute = 60 }}
breaker = true
[lms.backup]
model = "openai/b"
api_base = "http://127.0.0.1:1/v1"
[programs.qa]
target = "qa.py"
lm = "backup"
[programs.qa.layers]
deadline = 30
retry = {{ tries = 2, base = 0.1 }}
limit = {{ concurrency = 4, queue = 8 }}
cache = {{ max_bytes = "1 MB" }}
single_flight = true
budget = {{ max_cost = 5, period = "day" }}
[keys.ada]
hash = "{HASH}"
programs = ["qa"]
scopes = ["run", "usage"]
requests_per_minute = 10
concurrency = 2
day = {{ max_cost = 1.5 }}
month = {{ max_tokens = 1_000_000 }}
[keys.bob]
env = "KEY_B"
[key_store]
file = "k.db"
[proxies]
root_path = "/qa"
trusted = ["10.0.0.0/8"]
[tls]
certfile = "c.pem"
[logging]
level = "INFO"
rotate = "10 MB"
access_rate = 0.1
[metrics]
enabled = false
[tracing]
endpoint = "http://127.0.0.1:4318"
per_second = "all"
[ledger]
place = "l.db"
keep = "90d"
[store]
url_env = "REDIS"
name = "qa"
on_outage = "refuse"
timeout = 0.5
runs = false
run_bytes = "2 MB"
[prices."openai/b"]
input = 1
output = 2.5
"""


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE, KEY_A="secret-a", KEY_B="secret-b", REDIS="redis://h")
    config = file.config
    assert config.programs["qa"].layers.limit == LimitTable(concurrency=4, queue=8)
    assert config.keys["ada"].day is not None
    assert config.keys["ada"].day.max_cost == 1.5
    assert file.secret(config.store.url, config.store.url_env) == "redis://h"
    assert store_of(file) == SharedStore("redis://h", "qa", "refuse", 0.5, runs=False, run_bytes=2_000_000)
    assert file.near("x/y") == tmp_path / "x/y"
    assert file.near("/x") == Path("/x")


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    told = mistakes(
        tmp_path,
        """[server]
port = 70000
prot = 3
drain = -1
[programs.qa]
target = "qa.py"
lm = "mian"
[programs.qa.layers]
limit = "x"
deadline = inf
[programs.two]
tarjet = "x"
[lms.main]
model = "openai/x"
api_key_env = "NOPE"
fallback = ["backup", "main"]
[keys.b]
scopes = ["run", "admin"]
[servr]
""",
    )
    assert [(line, key) for line, key, _ in told] == [
        (2, "server.port"),
        (3, "server.prot"),
        (4, "server.drain"),
        (7, "programs.qa.lm"),
        (9, "programs.qa.layers.limit"),
        (10, "programs.qa.layers.deadline"),
        (11, "programs.two"),
        (12, "programs.two.tarjet"),
        (15, "lms.main.api_key_env"),
        (16, "lms.main.fallback[1]"),
        (16, "lms.main.fallback[2]"),
        (17, "keys.b"),
        (18, "keys.b.scopes[2]"),
        (19, "servr"),
    ]
    said = [text for _, _, text in told]
    assert said[0] == "must be a whole number at least 0 and at most 65535; got 70000"
    assert said[1] == "there is no key of this name; did you mean 'port'?"
    assert said[3] == "there is no LM 'mian' in [lms]; did you mean 'main'?"
    assert said[4] == 'must be a whole number at least 1 or a table; got "x"'
    assert said[-1] == "there is no table of this name; did you mean 'server'?"


def test_a_mistake_does_not_make_others(tmp_path: Path) -> None:
    """The LM whose model is wrong is an LM all the same: what names it is right."""
    told = mistakes(
        tmp_path,
        '[programs.qa]\ntarget = 3\nlm = "main"\n[lms.main]\nmodel = 3\n[keys.k]\nhash = 5\nprograms = ["qa"]\n',
    )
    assert [(line, key) for line, key, _ in told] == [
        (2, "programs.qa.target"),
        (5, "lms.main.model"),
        (7, "keys.k.hash"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = [\n1,\n", 3, "this is not valid TOML: Invalid value"),
        ("[server]\nport = 1\nport = 2\n", 3, "this is not valid TOML: Cannot overwrite a value"),
        ("[keys.a]\n", 1, "it must have one of hash"),
        ("[keys.a]\nhash = 'x'\n", 2, "must be 'sha256:' and 64 hexadecimal digits"),
        ("[keys.a]\nenv = 'NOT_THERE'\n", 2, "the variable NOT_THERE is not set"),
        (f"[keys.a]\nhash = '{HASH}'\nday = {{}}\n", 3, "it must have max_cost, max_tokens or max_calls"),
        ("[programs.'a/b']\ntarget = 'x'\n", 1, "a program's name is made of letters"),
        ("[programs.a]\ntarget = 'x'\n[programs.a.layers]\nrate = {}\n", 4, "requests_per_minute, tokens_per_minute"),
        ("[programs.a]\ntarget = 'x'\nlayers.limit = 1\nlayers.adaptive = true\n", 4, "give limit or adaptive"),
        ("[lm]\nmodel = 'm'\nlayers.retry = 2\n[programs.a]\ntarget = 'x'\nlayers.retry = 2\n", 6, "3 tries are 9"),
        ("[lms.a]\ntemperature = 1\n", 1, "it must have 'model'"),
        ("[lm]\nmodel = 'm'\napi_key = 'k'\napi_key_env = 'HOME'\n", 4, "give api_key or api_key_env, not both"),
        ("[server]\nmax_body = 'big'\n", 2, "'big' is no size"),
        ("[ledger]\nkeep = '90'\n", 2, "'90' is no length of time"),
        ("[server]\nno_auth = 'yes'\n", 2, 'must be true or false; got "yes"'),
        ("[server]\norigins = ['a', 3]\n", 2, "must be a text that is not empty; got 3"),
        ("server = 3\n", 1, "must be a table; got 3"),
        ("[store]\nname = 'qa'\n", 1, "it must have url or url_env"),
        ("[store]\nurl = 'http://h'\n", 2, "it must begin with redis://"),
        ("[store]\nurl = 'redis://h'\nname = 'a:b'\n", 3, "must be 1 to 64 letters"),
        ("[store]\nurl = 'redis://h'\non_outage = 'stop'\n", 3, 'must be "alone" or "refuse"; got "stop"'),
        ("[store]\nurl = 'redis://h'\nrun_bytes = 'much'\n", 3, "'much' is no size"),
        ("[store]\nurl = 'redis://h'\nrun_bytes = '0'\n", 3, "must be a byte at least; got '0'"),
        ("[store]\nurl = 'redis://[::1'\n", 2, "its host or its port"),
        ("[store]\nurl = 'redis://h'\ntimeout = 0\n", 3, "must be a number over 0"),
        ("[store]\nurl = 'redis://h'\ntimeout = 1e300\n", 3, "at most 3600"),
        ("[prices.x]\ninput = 1\n", 1, "it must have 'output', a number at least 0"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, line: int, said: str) -> None:
    (told,) = mistakes(tmp_path, text)
    assert told[0] == line
    assert said in told[2]


def test_no_secret_is_told(tmp_path: Path) -> None:
    secret = "hunter2hunter2"
    told = mistakes(
        tmp_path,
        f"""
[lm]
model = ["{secret}"]
api_key = ["{secret}"]
api_kye = "{secret}"
[keys.a]
key = "{secret}"
hash = "{secret}"
[store]
url = ["{secret}"]
[ledger]
place = ["postgresql://u:{secret}@h/d"]
[server]
port = "sk-{secret * 3}"
""",
    )
    assert len(told) == 8
    assert secret not in repr(told)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't read .*none.toml: No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigurationError, match="byte 6 is not UTF-8"):
        read_config(tmp_path / "latin.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * (sys.getrecursionlimit() + 10))
    with pytest.raises(ConfigurationError, match=r"nested too deeply|not valid TOML"):
        read_config(tmp_path / "deep.toml")


def test_the_file_of_the_folder_is_found(tmp_path: Path) -> None:
    assert find_config(None, tmp_path) is None
    (tmp_path / "dspy-live.toml").write_text("")
    assert find_config(None, tmp_path) == tmp_path / "dspy-live.toml"
    assert find_config(tmp_path / "x.toml", tmp_path) == tmp_path / "x.toml"
