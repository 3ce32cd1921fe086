"""What a server with several workers says of what each counts for itself."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from dspy_live.cli.workers.per_worker import told
from dspy_live.loading.config.read import ConfigFile, read_config
from dspy_live.loading.config.store import SharedStore, store_of
from dspy_live.server.keys.key import Key
from dspy_live.server.keys.store import KeyStore
from dspy_live.server.keys.token import digest_of

FILE = """
[server]
workers = 4

[lm]
model = "openai/gpt-4o-mini"
[lm.layers]
limit = 8
rate = { requests_per_minute = 60 }
breaker = true
budget = { max_cost = 5, period = "day" }

[programs.qa]
target = "question -> answer"
[programs.qa.layers]
cache = true
budget = { max_calls = 9, period = "run" }

[keys.ada]
env = "ADA"
concurrency = 2

[sessions]
place = "memory"
"""


def lines(file: ConfigFile, max_active: int | None = None) -> list[str]:
    text = told(4, file, max_active=max_active, sessions=None, store=store_of(file))
    return [line.strip() for line in text.splitlines()]


def configured(folder: Path, more: str = "") -> ConfigFile:
    path = folder / "dspy-live.toml"
    path.write_text(FILE + more)
    return read_config(path, {"ADA": "a-key"})


def test_without_a_store_it_names_what_each_worker_has_and_what_a_store_would_share(tmp_path: Path) -> None:
    file = configured(tmp_path)
    assert file.config.server.workers == 4
    assert lines(file, max_active=50) == [
        "workers   4; SIGHUP replaces them one after the other",
        (
            "each worker has its own   max_active (50 runs in each); breaker of [lm]; sessions (in its memory); "
            "rate of [lm]; limit of [lm]; cache of the program qa; limits per minute and at once of the keys ada; "
            "runs of POST /runs, which end with it"
        ),
        (
            "a Redis or Valkey in [store] url= would share   runs of POST /runs, cache, limit, "
            "limits per minute and at once, rate"
        ),
    ]


def test_with_a_store_the_rest_is_shared(tmp_path: Path) -> None:
    store = '[store]\nurl = "redis://127.0.0.1:1/0"\n'
    assert lines(configured(tmp_path, store))[1:] == [
        "each worker has its own   breaker of [lm]; sessions (in its memory)",
        "shared through [store]   runs of POST /runs, budget, cache, limit, rate, limits and quotas of keys",
    ]
    assert lines(configured(tmp_path, store + "runs = false\n"))[1:] == [
        "each worker has its own   breaker of [lm]; sessions (in its memory); runs of POST /runs, which end with it",
        "shared through [store]   budget, cache, limit, rate, limits and quotas of keys",
    ]


def test_nothing_configured_is_almost_nothing_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPY_LIVE_HOME", str(tmp_path))
    assert lines(ConfigFile(environ={})) == [
        "workers   4; SIGHUP replaces them one after the other",
        "each worker has its own   runs of POST /runs, which end with it",
        "a Redis or Valkey in [store] url= would share   runs of POST /runs",
    ]


def test_keys_that_were_made_by_the_command_and_the_variable_of_sessions_count_too(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    with closing(KeyStore(path)) as kept:
        for name, rate in (("bob", 5.0), ("eve", None), ("old", 5.0)):
            kept.add(Key(name=name, digest=digest_of(name), requests_per_minute=rate))
        kept.revoke("old")
    file = ConfigFile(environ={"DSPY_LIVE_SESSIONS": "memory"})
    text = told(2, file, max_active=None, sessions=None, store=None, key_store=path)
    assert "sessions (in its memory); limits per minute and at once of the keys bob; runs" in text
    store = SharedStore("redis://h")
    assert "shared through [store]   runs of POST /runs, conversations, limits and quotas" in told(
        2, file, max_active=None, sessions=None, store=store, key_store=path
    )
