"""What we rely on inside DSPy. When DSPy moves, these fail and say what has moved."""

from __future__ import annotations

import inspect
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, Message, Request, Response, Usage

from dspy_live.programs import internals
from dspy_live.programs.lm.seam.lm_call import writer


def test_the_version() -> None:
    assert dspy.__version__.startswith("3.4.")


def test_every_internal_is_there() -> None:
    for name in internals.__all__:
        assert getattr(internals, name) is not None


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (internals.prepare, ["lm", "prompt", "messages", "kwargs", "asynchronous", "direct"]),
        (internals.finalize, ["lm", "call", "result"]),
        (dspy.BaseLM.__call__, ["self", "prompt", "messages", "kwargs"]),
        (dspy.BaseLM.acall, ["self", "prompt", "messages", "kwargs"]),
        (internals._engine, ["lm", "call", "asynchronous"]),
        (internals._result, ["lm", "response", "call", "provider", "request", "estimate"]),
        (internals.CallResult.typed, ["self", "request", "model_type"]),
        (internals.PreparedCall.key, ["self", "lm", "asynchronous"]),
        (dspy.Adapter.__call__, ["self", "lm", "lm_kwargs", "signature", "demos", "inputs"]),
        (
            dspy.Adapter._call_postprocess,
            ["self", "processed_signature", "original_signature", "outputs", "lm", "lm_kwargs"],
        ),
        (dspy.Adapter.format, ["self", "signature", "demos", "inputs"]),
        (dspy.Adapter.parse, ["self", "signature", "completion"]),
    ],
)
def test_signatures(function: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


def test_dspys_methods_look_up_what_we_replace_when_they_are_called() -> None:
    """A call that a tool has wrapped is given back there; where DSPy bound the names earlier, it never would be."""
    for method, name in ((dspy.BaseLM.__call__, "execute"), (dspy.BaseLM.acall, "aexecute")):
        code = inspect.unwrap(method).__code__
        assert name in code.co_names
        assert name in vars(internals.execution)
        assert list(inspect.signature(getattr(internals.execution, name)).parameters) == ["lm", "call"]


def test_a_custom_engine_is_asked_with_a_request() -> None:
    class Engine:
        def complete(self, request: Any) -> Any:
            asked.append(request)
            message = Message.assistant("yes")
            return Response(id=None, model=request.model, message=message, usage=Usage(), finish_reason="stop")

    asked: list[Any] = []
    lm = dspy.LM("openai/x", engine=Engine(), cache=False)
    assert lm("hello") == ["yes"]
    assert lm(Request(model="openai/x", messages=(Message.user("hello"),))).text == "yes"
    assert [type(request) for request in asked] == [Request, Request]


def test_a_request_is_written_in_openais_form() -> None:
    request = Request(model="x", messages=(Message.user("hello"),), config=Config(temperature=0.5))
    written = writer(None)._payload(request, stream=False)
    assert written == {"model": "x", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5}


def test_a_prepared_call_has_what_we_read() -> None:
    call = internals.prepare(dspy.LM("openai/x", api_key="k"), "hello", None, {"temperature": 0.5})
    assert call.legacy["messages"] == [{"role": "user", "content": "hello"}]
    assert call.legacy["temperature"] == 0.5
    assert (call.cache, call.n, call.request, call.managed) == (True, 1, None, True)


def test_the_adapter_calls_the_lm_under_the_names_that_origin_of_reads() -> None:
    for method in (dspy.Adapter.__call__, dspy.Adapter.acall):
        names = inspect.unwrap(method).__code__.co_varnames
        assert {"self", "processed_signature", "messages"} <= set(names)


def test_settings_travel_in_one_context_variable() -> None:
    with dspy.context(some_key_of_ours=7):
        assert internals.overrides()["some_key_of_ours"] == 7
    assert "some_key_of_ours" not in internals.overrides()


def test_a_module_tells_its_callers_by_a_list_of_its_own() -> None:
    seen: list[Any] = []

    class Inner(dspy.Module):  # type: ignore[misc]
        def forward(self) -> None:
            seen.append(dspy.settings.caller_modules)

    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self) -> None:
            self.inner()
            self.inner()

    outer = Outer()
    outer()
    assert [list(modules) for modules in seen] == [[outer, outer.inner]] * 2
    assert seen[0] is not seen[1]


def test_a_cached_record_is_read_back() -> None:
    result = internals.CallResult(outputs=["x"], usage={"total_tokens": 1}, response_model="m")
    record = result.dump()
    assert record["_dspy_format"] == internals.CACHE_FORMAT
    assert internals.CallResult.load(record).outputs == ["x"]


def test_http_errors_are_classified() -> None:
    wrapped = internals.wrap_error(internals.map_http_error(429, "slow down", retry_after=2.0), model="m")
    assert type(wrapped).__name__ == "LMRateLimitError"
    assert wrapped.retry_after == 2.0


def test_a_callbacks_start_sees_the_call_around_it() -> None:
    """Status messages tell by this which invocations of which modules an LM call or a tool belongs to."""
    seen: list[tuple[str, str | None]] = []

    class Listening(internals.BaseCallback):  # type: ignore[misc]
        def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            seen.append((call_id, internals.ACTIVE_CALL_ID.get()))

    class Inner(dspy.Module):  # type: ignore[misc]
        def forward(self) -> None:
            return None

    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self) -> None:
            dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.inner, {}), (self.inner, {})])

    with dspy.context(callbacks=[Listening()]):
        Outer()()
    (outer, around), *inner = seen
    assert around is None
    assert [parent for _, parent in inner] == [outer, outer]


def test_the_methods_of_a_module_are_those_that_we_have_a_shorter_way_for() -> None:
    """``Module.__call__`` and ``acall`` do two things around ``forward``: the calling modules, and a usage tracker."""
    for method in (dspy.Module.__call__, dspy.Module.acall):
        while "caller_modules" not in method.__code__.co_varnames:
            method = method.__wrapped__
        assert method.__globals__ is vars(internals.module)
        assert method.__code__.co_varnames == ("self", "args", "kwargs", "thread_local_overrides", "caller_modules",
                                               "usage_tracker", "output", "tokens")  # fmt: skip


def test_settings_of_a_run_are_those_of_a_context() -> None:
    with dspy.context(temperature_of_mine=1):
        ours = internals.current_settings()
        with dspy.context():
            assert internals.overrides() == ours
            assert type(internals.overrides()) is type(ours)


def test_options_that_dspys_own_engine_carries() -> None:
    assert {"max_tokens", "max_completion_tokens", "temperature", "response_format"} <= internals.NATIVE_REQUEST_KEYS
    assert not {"extra_body", "n"} & internals.NATIVE_REQUEST_KEYS
    assert {"api_key", "api_base", "base_url", "timeout"} == internals.NATIVE_CLIENT_KEYS
