"""What a server with several workers says of what each counts for itself."""

from __future__ import annotations

from pathlib import Path

from dspy_live.cli.workers.per_worker import told
from dspy_live.loading.config.layers import store_url
from dspy_live.loading.config.read import ConfigFile, read_config

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
    text = told(4, file, max_active=max_active, sessions=None, has_store=store_url(file) is not None)
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
            "each worker has its own   max_active (50 runs in each); breaker of [lm]; rate of [lm]; limit of [lm]; "
            "cache of the program qa; limits per minute and at once of the keys ada; sessions (in its memory)"
        ),
        "a Redis or Valkey in [store] url= would share   cache, limit, rate",
    ]


def test_with_a_store_the_rest_is_shared(tmp_path: Path) -> None:
    assert lines(configured(tmp_path, '[store]\nurl = "redis://127.0.0.1:1/0"\n'))[1:] == [
        (
            "each worker has its own   breaker of [lm]; limits per minute and at once of the keys ada; "
            "sessions (in its memory)"
        ),
        "shared through [store]   cache, limit, rate",
    ]


def test_nothing_configured_is_nothing_told() -> None:
    assert lines(ConfigFile(environ={})) == ["workers   4; SIGHUP replaces them one after the other"]
