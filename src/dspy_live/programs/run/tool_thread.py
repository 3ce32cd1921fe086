"""A synchronous tool that is awaited runs in a worker thread, so that the loop goes on meanwhile.

``dspy.Tool.acall`` calls the tool's function where it is awaited. DSPy has no seam between the two: its callbacks
can't take a call over, and the function is a field of the user's own object. So the first run puts the method of
:func:`install` in the place of ``dspy.Tool.acall``. It acts inside of runs only, and on synchronous functions only;
every other call goes to DSPy's own method as it came. Where another tool has put a method around DSPy's own, the call
goes through that one, with a copy of the tool whose function runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from types import FunctionType
from typing import Any

import anyio
import dspy

from dspy_live.programs.internals import callback, with_callbacks
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.execution.execution import to_thread

# Apart from the threads that programs run in: a program that waits for its tool must not hold the tool's place.
MAX_TOOL_THREADS = 256

_limiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = weakref.WeakKeyDictionary()
_inside: ContextVar[bool] = ContextVar("dspy_live_tool_thread", default=False)
_MISSING = object()


def install() -> None:
    """Let synchronous tools that a run awaits through ``dspy.Tool.acall`` run in threads. Again, it does nothing."""
    original: Callable[..., Coroutine[Any, Any, Any]] = dspy.Tool.acall
    if getattr(original, "_dspy_live", False):
        return

    # A tool that records calls, such as OpenInference's instrumentation, has put its method in the place of DSPy's.
    wrapped = type(original) is not FunctionType or original.__globals__ is not vars(callback)

    # No coroutine function: its frame would be one of the five that ReAct shows an LM of a tool's failure.
    @functools.wraps(original)
    def acall(self: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        if current_run() is None or is_asynchronous(self.func) or getattr(self.func, "_dspy_live", False):
            return original(self, **kwargs)
        if wrapped:
            return original(_in_thread_view(self), **kwargs)
        threaded: Coroutine[Any, Any, Any] = acall_in_thread(self, **kwargs)
        return threaded

    acall._dspy_live = True  # type: ignore[attr-defined]
    dspy.Tool.acall = acall


def _in_thread_view(tool: Any) -> Any:
    """Return a copy of ``tool`` whose function runs in a worker thread, for the methods that are around ``acall``."""

    def function(**arguments: Any) -> Coroutine[Any, Any, Any]:
        return _called_in_thread(tool.func, arguments)

    function._dspy_live = True  # type: ignore[attr-defined]
    return tool.model_copy(update={"func": function})


async def _called_in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    check()
    outcome = await call_in_thread(functools.partial(function, **arguments))
    error, outcome.error = outcome.error, None
    if error is not None:
        try:
            raise error
        finally:
            error = None
    value = outcome.value
    return await value if inspect.isawaitable(value) else value


@with_callbacks  # type: ignore[untyped-decorator,unused-ignore]
async def acall_in_thread(self: Any, **kwargs: Any) -> Any:
    """Do what ``dspy.Tool.acall`` does, with the tool's synchronous function in a worker thread."""
    check()
    arguments = self._validate_and_parse_args(**kwargs)
    outcome = await call_in_thread(functools.partial(self.func, **arguments))
    error, outcome.error = outcome.error, None
    if error is not None:
        try:
            raise error  # here and no deeper: ReAct shows an LM the first five frames
        finally:
            error = None
    value = outcome.value
    return await value if inspect.isawaitable(value) else value


def is_asynchronous(function: Any) -> bool:
    """Return True where calling ``function`` gives a coroutine: a coroutine function, or an object with such a call."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check() -> None:
    """Raise :class:`~dspy_live.core.errors.Stop` where the run that this code is part of was stopped."""
    run = current_run()
    if run is not None:
        run.check()


class Outcome:
    """How a function has ended: its value, or the error that it raised."""

    __slots__ = ("error", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None


async def call_in_thread(function: Callable[[], Any]) -> Outcome:
    """Call ``function`` in a worker thread with this context, and return how it has ended.

    Context variables that it has set are set here afterwards. Cancelled, it waits for the function's end: a thread
    can't be stopped. A run has not ended before the function has, also where the program has left the call behind.
    """
    context, outcome = contextvars.copy_context(), Outcome()
    nested = context.run(_inside.get)
    context.run(_inside.set, True)

    def call() -> None:
        try:
            outcome.value = context.run(function)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            trace = exc.__traceback__
            outcome.error = exc.with_traceback(trace.tb_next if trace is not None else None)

    run = current_run()
    work = to_thread(call, _threads(nested))
    try:
        await (run.part(work) if run is not None else work)
    finally:
        _take_over(context)
    return outcome


def _take_over(context: Context) -> None:
    """Set the variables here that the function has set in its own copy of the context, as a plain call would have."""
    here = contextvars.copy_context()
    for variable, value in context.items():
        if variable is not _inside and here.get(variable, _MISSING) is not value:
            variable.set(value)


def _threads(nested: bool) -> anyio.CapacityLimiter:
    """One limiter for each loop; a tool that waits for another tool must not wait for a place too."""
    if nested:
        return anyio.CapacityLimiter(1)
    loop = asyncio.get_running_loop()
    limiter = _limiters.get(loop)
    if limiter is None:
        limiter = _limiters[loop] = anyio.CapacityLimiter(MAX_TOOL_THREADS)
    return limiter
