"""The layers that a file asks for: their kinds, their order, and the state that servers share."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.databases import redis_server, redis_url  # noqa: F401

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, RateLimited
from dspy_live.core.events import Completion, Predicted
from dspy_live.core.service import compose
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers import check_order
from dspy_live.layers.budget import Budget
from dspy_live.loading.config import shape
from dspy_live.loading.config.keys import ServerKeys
from dspy_live.loading.config.layers import LayerMaker
from dspy_live.loading.config.lms import LMs
from dspy_live.loading.config.read import ConfigFile, read_config
from dspy_live.loading.config.shape import LayersTable, LMLayersTable
from dspy_live.loading.config.store import SharedStore
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.stores import line
from dspy_live.server.keys.key import Key, Quota
from dspy_live.server.keys.store import KeyStore
from dspy_live.testing import ScriptedService, collect

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "configuration.md"
ALL = {
    "deadline": 5,
    "cache": True,
    "single_flight": True,
    "budget": {"max_calls": 3},
    "retry": {"tries": 2},
    "breaker": True,
    "rate": {"requests_per_minute": 100},
    "limit": 3,
}


def table(**values: Any) -> LayersTable:
    return msgspec.convert(values, LayersTable)


def test_the_order_is_one_that_surprises_nobody() -> None:
    layers = LayerMaker().program("qa", table(**ALL))
    kinds = [getattr(layer, "kind", "") for layer in layers]
    assert kinds == ["single_flight", "cache", "budget", "retry", "breaker", "rate", "limit"]
    check_order(layers)
    more = LayerMaker().program("qa", table(adaptive={"low": 2, "high": 4}, budget={"max_cost": 1, "period": "run"}))
    assert [repr(layer) for layer in more[1:]] == ["Adaptive(2, 4)"]
    assert LayerMaker().program("qa", LayersTable()) == []


def lms(folder: Path, text: str) -> LMs:
    path = folder / "dspy-live.toml"
    path.write_text(text)
    return LMs(read_config(path, {}), LayerMaker())


def test_a_fallback_stands_outside_of_the_retries_of_each_lm(tmp_path: Path) -> None:
    found = lms(
        tmp_path,
        "[lm]\nmodel = 'openai/a'\nfallback = ['b']\nlayers.single_flight = true\n[lms.b]\nmodel = 'openai/b'\n",
    )
    assert [getattr(layer, "kind", "") for layer in found.layers("")] == ["single_flight", "fallback", "retry"]
    assert repr(found.layers("")[2]) == "Retry(4)", "the LM's own retries"
    check_order(found.layers(""))
    assert found.layers("b") == found.layers("b")
    assert found.settings("b").options == {}


def test_programs_with_one_lm_share_its_limits(tmp_path: Path) -> None:
    found = lms(tmp_path, "[lms.b]\nmodel = 'openai/b'\nlayers.limit = 2\n")
    assert found.layers("b")[0] is found.layers("b")[0]


def other_process(url: str) -> LayerMaker:
    """Makes layers as another process would: what belongs to a process, it holds by its line to the server."""
    line._lines.clear()
    return LayerMaker(SharedStore(url, timeout=30))


async def test_servers_share_what_the_store_keeps(redis_url: str) -> None:  # noqa: F811
    rated = table(rate={"requests_per_minute": 1, "max_wait": 0})
    one, two = (other_process(redis_url).program("qa", rated) for _ in range(2))
    await collect(compose(ScriptedService([Predicted({})]), one), Call({}))
    with pytest.raises(RateLimited):
        await collect(compose(ScriptedService([Predicted({})]), two), Call({}))
    kept: list[Budget] = []
    all_shared = LayerMaker(SharedStore(redis_url, timeout=30), kept.append).program("qa", table(**ALL))
    assert [type(layer).__name__ for layer in all_shared] == [
        *("SharedSingleFlight", "Cache", "SharedBudget", "Retry", "Breaker", "SharedRate", "SharedLimit")
    ]
    assert len(kept) == 1
    shared = LayerMaker(SharedStore(redis_url, timeout=30)).lm("x", LMLayersTable(limit=1))
    await collect(compose(ScriptedService([Completion({})]), shared), Call({}))


async def test_servers_share_the_quotas_of_keys(redis_url: str, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "dspy-live.toml"
    path.write_text(f"[keys.ada]\nhash = 'sha256:{'a' * 64}'\nday = {{ max_calls = 1 }}\n")
    first = ServerKeys(read_config(path), {}, tmp_path / "1.db", SharedStore(redis_url, timeout=30))
    line._lines.clear()
    second = ServerKeys(read_config(path), {}, tmp_path / "2.db", SharedStore(redis_url, timeout=30))

    async def run(keys: ServerKeys) -> None:
        async def paid(call: Call, sink: Any) -> Predicted:
            account = Account()
            admitted = await account.admit_async(call.meters, lambda: Expected("m", LMUsage(1, 1, 2), 0.1))
            account.record(LMRecord(model="m", usage=LMUsage(1, 1, 2), cost=0.1), admitted)
            return Predicted({})

        await collect(keys.keys(paid), Call({}, key="ada", program="qa"))

    try:
        await run(first)
        with pytest.raises(BudgetExceeded, match="the key 'ada'") as refused:
            await run(second)
        assert refused.value.status == 429
    finally:
        first.close()
        second.close()


async def test_a_file_of_keys_that_is_made_while_the_server_runs_remembers_too(tmp_path: Path) -> None:
    async def run(keys: ServerKeys) -> None:
        async def paid(call: Call, sink: Any) -> Predicted:
            account = Account()
            admitted = account.admit(call.meters, lambda: Expected("m", LMUsage(1, 1, 2), 0.1))
            account.record(LMRecord(model="m", usage=LMUsage(1, 1, 2), cost=0.1), admitted)
            return Predicted({})

        await collect(keys.keys(paid), Call({}, key="ada", program="qa"))

    place = tmp_path / "keys.db"
    with closing(ServerKeys(ConfigFile(), {}, place)) as server_keys:
        assert not server_keys.keys
        with closing(KeyStore(place)) as store:
            store.add(Key(name="ada", digest="sha256:" + "a" * 64, day=Quota(max_calls=1)))
        server_keys.reload()
        assert len(server_keys.keys) == 1
        await run(server_keys)
    with closing(ServerKeys(ConfigFile(), {}, place)) as server_keys:
        with pytest.raises(BudgetExceeded):
            await run(server_keys)


def test_the_guide_names_every_key_and_its_examples_are_right(tmp_path: Path) -> None:
    text = GUIDE.read_text("utf-8")
    words = set(re.findall(r"\w+", text))
    tables = [kind for kind in vars(shape).values() if isinstance(kind, type) and issubclass(kind, shape.Table)]
    missing = {f"{kind.__name__}.{name}" for kind in tables for name in kind.__struct_fields__ if name not in words}
    assert missing == {"LMTable.api_key"}, "which the guide has as api_key_env"
    for number, block in enumerate(re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        read_config(path, {"OPENAI_API_KEY": "x", "TEAM_KEY": "y"})


def test_without_a_file_nothing_is_set() -> None:
    assert ConfigFile().config == shape.Config()
