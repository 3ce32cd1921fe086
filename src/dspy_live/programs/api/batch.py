"""Many inputs through one program: ``batch``, ``abatch``, ``stream_batch``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import dspy
from dspy.utils.exceptions import LMConfigurationError

from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.core.service import Layer, Service
from dspy_live.core.sink import DISCARD
from dspy_live.programs.api.batch_inputs import Row, arguments_of, check_inputs
from dspy_live.programs.api.calls import layers_of, new_call, value_of
from dspy_live.programs.api.progress import Progress, progress_for
from dspy_live.programs.run.program import ProgramService, program_fingerprint
from dspy_live.programs.run.schema import outputs_of, restored
from dspy_live.runtime.bounded_map import Items, bounded_map
from dspy_live.runtime.checkpoint import Checkpoint, CheckpointInUse, fingerprint
from dspy_live.runtime.execution import background
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime

OnError = Literal["return", "raise"]
R = TypeVar("R")


class Options(TypedDict, total=False):
    """The options that :func:`batch` and :func:`abatch` have from :func:`stream_batch`."""

    concurrency: int
    timeout: float | None
    progress: bool | None
    checkpoint: str | Path | None
    retry_failed: bool
    execution: Execution
    runtime: Runtime | None
    layers: Sequence[Layer] | None


class BatchError(Exception):
    """One item of a batch has failed. ``index`` is its place in the input, ``inputs`` what it was.

    ``error`` is the failure itself, ``None`` when it was read from a checkpoint; ``kind`` is its class's name.
    """

    def __init__(self, index: int, inputs: Any, kind: str, message: str, error: BaseException | None = None) -> None:
        super().__init__(f"item {index} failed: {kind}: {message}")
        self.index = index
        self.inputs = inputs
        self.kind = kind
        self.message = message
        self.error = error


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One finished item.

    ``result`` is what the program returned (a ``dspy.Prediction`` made of the checkpoint's outputs, each of its
    field's type, where it was done before), ``error`` a :class:`BatchError` instead. ``seconds`` is how long it
    took, 0 for one done before.
    """

    index: int
    inputs: Any
    result: Any = None
    error: BatchError | None = None
    seconds: float = 0.0
    resumed: bool = False


@overload
def batch(
    program: Callable[..., Awaitable[R]], inputs: Items[Any], *, on_error: Literal["raise"], **options: Unpack[Options]
) -> list[R]: ...
@overload
def batch(
    program: Callable[..., Awaitable[R]],
    inputs: Items[Any],
    *,
    on_error: OnError = "return",
    **options: Unpack[Options],
) -> list[R | BatchError]: ...
@overload
def batch(
    program: Callable[..., R], inputs: Items[Any], *, on_error: Literal["raise"], **options: Unpack[Options]
) -> list[R]: ...
@overload
def batch(
    program: Callable[..., R], inputs: Items[Any], *, on_error: OnError = "return", **options: Unpack[Options]
) -> list[R | BatchError]: ...
def batch(program: Any, inputs: Items[Any], **options: Any) -> list[Any]:
    """Run many inputs through ``program`` and return the results in input order.

    The synchronous form of :func:`abatch`, with the same arguments; it may be called in a notebook too. Ctrl-C
    stops what is at work; what a checkpoint has is kept.
    """
    future = background.runs.submit(abatch(program, inputs, **options))
    try:
        results: list[Any] = future.result()
    except BaseException:
        future.cancel()
        raise
    return results


@overload
async def abatch(
    program: Callable[..., Awaitable[R]], inputs: Items[Any], *, on_error: Literal["raise"], **options: Unpack[Options]
) -> list[R]: ...
@overload
async def abatch(
    program: Callable[..., Awaitable[R]],
    inputs: Items[Any],
    *,
    on_error: OnError = "return",
    **options: Unpack[Options],
) -> list[R | BatchError]: ...
@overload
async def abatch(
    program: Callable[..., R], inputs: Items[Any], *, on_error: Literal["raise"], **options: Unpack[Options]
) -> list[R]: ...
@overload
async def abatch(
    program: Callable[..., R], inputs: Items[Any], *, on_error: OnError = "return", **options: Unpack[Options]
) -> list[R | BatchError]: ...
async def abatch(program: Any, inputs: Items[Any], *, on_error: OnError = "return", **options: Any) -> list[Any]:
    """Run many inputs through ``program`` and return the results in input order.

    Args:
        program: a ``dspy.Module`` or a callable.
        inputs: dicts, ``dspy.Example`` objects or tuples of positional arguments, in any iterable.
        on_error: ``"return"`` puts a :class:`BatchError` in a failed item's place, ``"raise"`` raises
            the first one and stops the rest.
        options: as for :func:`stream_batch`, but ``ordered`` and ``window``.

    Cancelling it stops what is at work.
    """
    if on_error not in ("return", "raise"):
        raise ValueError(f"on_error must be 'return' or 'raise'; got {on_error!r}")
    results: list[Any] = []
    items: Any = stream_batch(program, inputs, ordered=True, **options)
    async with contextlib.aclosing(items):
        async for item in items:
            if item.error is not None and on_error == "raise":
                raise item.error from item.error.error
            results.append(item.result if item.error is None else item.error)
    return results


async def stream_batch(
    program: Any,
    inputs: Items[Any],
    *,
    concurrency: int = 32,
    ordered: bool = False,
    window: int | None = None,
    timeout: float | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    retry_failed: bool = False,
    execution: Execution = "auto",
    runtime: Runtime | None = None,
    layers: Sequence[Layer] | None = None,
) -> AsyncGenerator[BatchItem, None]:
    """Yield a :class:`BatchItem` for each input, as they end; the inputs may be endless.

    Args:
        program: a ``dspy.Module`` or a callable.
        inputs: dicts, ``dspy.Example`` objects or tuples, in an iterable or an async one.
        concurrency: how many run at once, at least 1.
        ordered: yield in input order.
        window: how many finished items may wait for a slower one before them (4 times ``concurrency``).
        timeout: seconds for each item.
        progress: a progress bar on stderr with rate, cost and, where ``inputs`` has a length, the time left; by default
            where stderr is a terminal.
        checkpoint: a file that remembers finished items: a rerun over the same inputs does only what is missing, also
            after ``kill -9``; at most ``concurrency`` items are asked again. One batch at a time may use it.
        retry_failed: ask again for items that the checkpoint has as failed.
        execution: as for ``asyncify``.
        runtime: layers and account; the process's own by default.
        layers: as for ``asyncify``.

    Raises ``TypeError`` for what is no list of inputs, ``ValueError`` for a number that can't work, and
    ``ConfigurationError`` for a checkpoint that another batch is using, or that is another program's or of other
    inputs. What would fail every item alike (no LM, no key for it, a ``ConfigurationError``) is raised when the first
    item meets it, and not recorded. Leaving the ``for`` stops what is at work; what the checkpoint has is kept.
    """
    for name, value, least in (("concurrency", concurrency, 1), ("window", 0 if window is None else window, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}; got {value!r}")
    if retry_failed and checkpoint is None:
        raise ValueError("retry_failed=True asks again for the failed items of a checkpoint; give checkpoint= too")
    service = ProgramService(program, execution=execution, runtime=runtime)
    check_inputs(inputs, service.schema)
    layered = service.layered(layers_of(service, timeout, layers))
    bar = progress_for(progress, inputs, service.runtime.account)
    kept = await _opened(checkpoint, program_fingerprint(program)) if checkpoint is not None else None
    runner = _Runner(service, layered, kept, bar, retry_failed)
    results = bounded_map(runner.run, inputs, concurrency=concurrency, ordered=ordered, ahead=window)
    with contextlib.nullcontext() if kept is None else contextlib.closing(kept):
        async with contextlib.aclosing(results):
            with bar:
                async for item in results:
                    yield item


async def _opened(path: str | Path, program: str) -> Checkpoint:
    # A batch whose loop was just left, or whose process was just killed, lets go of its file a moment later.
    for _ in range(10):
        try:
            return Checkpoint(path, program)
        except CheckpointInUse:
            await asyncio.sleep(0.05)
    return Checkpoint(path, program)


class _Runner:
    def __init__(
        self, service: ProgramService, layered: Service, kept: Checkpoint | None, bar: Progress, retry_failed: bool
    ) -> None:
        self._service = service
        self._layered = layered
        self._kept = kept
        self._bar = bar
        self._retry_failed = retry_failed

    async def run(self, index: int, inputs: Any) -> BatchItem:
        shown = inputs.raw if isinstance(inputs, Row) else inputs
        try:
            args, kwargs = arguments_of(inputs, self._service.schema)
        except (TypeError, ValueError) as exc:
            self._bar.done(failed=True)
            return BatchItem(index, shown, None, BatchError(index, shown, "InvalidInput", str(exc), exc))
        print_of = fingerprint([args, kwargs]) if self._kept is not None else ""
        if self._kept is not None:
            record = self._kept.get(index, print_of)
            if record is not None and not (self._retry_failed and "error" in record):
                self._bar.done(resumed=True, failed="error" in record)
                return _resumed(self._service.program, index, shown, record)
        started = time.monotonic()
        item = await self._run(index, shown, args, kwargs, started)
        if self._kept is not None:
            self._kept.put(index, print_of, record_of(item))
        self._bar.done(failed=item.error is not None)
        return item

    async def _run(self, index: int, inputs: Any, args: Any, kwargs: Any, started: float) -> BatchItem:
        try:
            call = new_call(self._service, args, kwargs, stream=False)
            result = value_of(self._service, await self._layered(call, DISCARD))
        except Exception as exc:
            if ends_batch(exc):
                raise
            message = exc.message if isinstance(exc, LiveError) else str(exc)
            error = BatchError(index, inputs, type(exc).__name__, message, exc)
            return BatchItem(index, inputs, None, error, time.monotonic() - started)
        return BatchItem(index, inputs, result, None, time.monotonic() - started)


def ends_batch(exc: Exception) -> bool:
    """True for what would fail every item in the same way, and is no failure of this one."""
    if isinstance(exc, (ConfigurationError, LMConfigurationError)):
        return True
    return isinstance(exc, ValueError) and str(exc).startswith("No LM is loaded")  # dspy.Predict's own


def record_of(item: BatchItem) -> dict[str, Any]:
    """Return what a checkpoint keeps of a finished item."""
    if item.error is not None:
        return {"error": item.error.kind, "message": item.error.message}
    if not isinstance(item.result, dspy.Prediction):
        return {"outputs": outputs_of(item.result), "prediction": False}
    outputs = outputs_of(item.result)
    # Those that JSON has changed: a model, an enum, a list of models.
    typed = [name for name, value in outputs.items() if _changed(value, item.result[name])]
    return {"outputs": outputs, "prediction": True, "typed": typed}


def _changed(value: Any, true: Any) -> bool:
    try:
        return type(value) is not type(true) or bool(value != true)
    except Exception:  # an array, whose comparison is no truth
        return True


def _resumed(program: Any, index: int, inputs: Any, record: dict[str, Any]) -> BatchItem:
    if "error" in record:
        error = BatchError(index, inputs, record["error"], record["message"])
        return BatchItem(index, inputs, None, error, resumed=True)
    outputs = record["outputs"]
    if record["prediction"]:
        made = dspy.Prediction(**restored(program, outputs, record.get("typed", ())))
        return BatchItem(index, inputs, made, resumed=True)
    return BatchItem(index, inputs, outputs.get("output", outputs), resumed=True)
