"""A DSPy program as a Service: opened for a call, it runs, streams its events, and ends when it is left."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import dspy

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, LiveError, ProgramFailed, Stop
from dspy_live.core.events import Event, Predicted, Started
from dspy_live.core.schema import Schema
from dspy_live.core.service import Receiver, Service, compose
from dspy_live.programs.api.track_usage import SharedUsageTracker
from dspy_live.programs.fields.live_adapter import live
from dspy_live.programs.fields.names import Names
from dspy_live.programs.internals import DEFAULT_CONFIG, overrides, settings
from dspy_live.programs.lm.errors import public_lm_error
from dspy_live.programs.lm.lm import adopt, configured
from dspy_live.programs.run.inner_run import InnerRun
from dspy_live.programs.run.run import KEY, Run
from dspy_live.programs.run.schema import outputs_of, schema_of
from dspy_live.programs.run.status import Watch
from dspy_live.runtime.books.account import tell
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.door import PATIENCE
from dspy_live.runtime.execution import execution as how
from dspy_live.runtime.execution.execution import EXECUTIONS, Execution
from dspy_live.runtime.runtime import Runtime, default_runtime
from dspy_live.runtime.scope import Scope

logger = logging.getLogger("dspy_live.programs")


class ProgramService:
    """The innermost service of a program: no layers, one run for each call.

    Args:
        program: a ``dspy.Module``, or any callable that runs one.
        name: what it is called in events, logs and routes; its class by default.
        execution: ``"native"``, ``"thread"``, ``"inline"`` or ``"auto"`` (native where every module has
            ``aforward``, else thread).
        runtime: the shared things; the process's own by default.
        served: for a server: DSPy's LM history and trace do not grow, and an LM's failure is an ``LMFailed`` without
            the provider's own words.
        overrides: settings of DSPy for each run, such as ``lm``, on top of the caller's own.

    Raises ``TypeError`` for what is no program, ``ValueError`` for an execution that does not exist or
    that the program can't do.
    """

    def __init__(
        self,
        program: Any,
        *,
        name: str = "",
        execution: Execution | None = None,
        runtime: Runtime | None = None,
        served: bool = False,
        overrides: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(program, type) or not callable(program):
            raise TypeError(
                f"a program is a dspy.Module object or a callable; got {program!r}"
                + (" (a class: make an instance of it)" if isinstance(program, type) else "")
            )
        self.program = program
        self.runtime = runtime if runtime is not None else default_runtime()
        self.name = name or type(program).__name__
        self.execution = choose_execution(program, execution or self.runtime.execution)
        self.schema: Schema = schema_of(program, self.name)
        self.names = Names(program)
        self.watch = Watch(program)
        self._settings = dict(overrides or {})
        self.served = served
        if served:
            self._settings["disable_history"] = True

    def open(self, call: Call) -> _Opening:
        """Start a run of the program for ``call``; leaving the context stops it and waits for its end."""
        return _Opening(self, call)

    def with_layers(self) -> Service:
        """Return this service inside the runtime's layers."""
        return compose(self, self.runtime.layers)

    def context(self, run: Run) -> dict[str, Any]:
        """Return the settings of DSPy for one run."""
        changes = dict(self._settings)
        if self.served:
            changes["trace"] = []  # DSPy's own would keep the last 10,000 predictions with their inputs
        lm = changes.get("lm", settings.lm)
        if lm is not None:
            ours = adopt(lm)
            changes["lm"] = configured(ours, run.call.config)
        adapter = changes.get("adapter", settings.adapter)
        changes["adapter"] = live(adapter if adapter is not None else dspy.ChatAdapter())
        changes[KEY] = run
        if overrides().get("send_stream") is not None:
            changes["send_stream"] = None
        if settings.track_usage and overrides().get("usage_tracker") is None:
            # DSPy would make one of its own here, which its threads copy.
            changes["usage_tracker"] = run.tracker = SharedUsageTracker()
        return changes


def _worker_limit() -> int | None:
    """DSPy's own setting bounds our threads where the user has changed it; its default of 8 is no wish of theirs."""
    limit = settings.async_max_workers
    return None if limit == DEFAULT_CONFIG.async_max_workers else max(1, int(limit))


def choose_execution(program: Any, execution: Execution) -> Execution:
    """Return how a program runs. Raises ``ValueError`` for a way that it can't."""
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {', '.join(EXECUTIONS)}; got {execution!r}")
    native = _is_native(program)
    if execution == "native" and not native and not _has_own(program, "aforward"):
        raise ValueError(
            f"{type(program).__name__} has no aforward(), so it can't run natively; use execution='thread'"
        )
    if execution == "auto":
        only = isinstance(program, dspy.Module) and not _has_own(program, "forward") and _has_own(program, "aforward")
        return "native" if native or only else "thread"
    if execution in ("thread", "inline") and native and not isinstance(program, dspy.Module):
        name = getattr(program, "__name__", type(program).__name__)
        raise ValueError(f"{name} is a coroutine function, so it can only run natively")
    if execution in ("thread", "inline") and isinstance(program, dspy.Module) and not _has_own(program, "forward"):
        raise ValueError(f"{type(program).__name__} has no forward(), so it can only run natively")
    return execution


def _is_native(program: Any) -> bool:
    """True where every module of the program has an ``aforward``."""
    if not isinstance(program, dspy.Module):
        return inspect.iscoroutinefunction(program)
    return all(_awaits(module) for _, module in program.named_sub_modules(dspy.Module))


def _awaits(module: Any) -> bool:
    """True where a module's ``aforward`` does what its ``forward`` does.

    One inherited from above the class that defines ``forward`` is its parent's program: ``dspy.CodeAct`` has ReAct's,
    which never runs the code.
    """
    if "aforward" in vars(module):
        return True
    names = (name for cls in type(module).__mro__ for name in ("aforward", "forward") if name in vars(cls))
    return next(names, "") == "aforward"


def _has_own(module: Any, name: str) -> bool:
    return callable(getattr(type(module), name, None)) or name in vars(module)


class _Opening:
    """One run, from entering to leaving."""

    def __init__(self, service: ProgramService, call: Call) -> None:
        self._service = service
        self._call = call

    async def __aenter__(self) -> Receiver[Event]:
        service, call = self._service, self._call
        loop = asyncio.get_running_loop()
        self._scope = scope = Scope(call.deadline, loop=loop)
        channel = Channel(call.buffer, loop)
        rest = (service.runtime, call, service.name, service.names, scope, channel)
        outer = call.attributes.get("outer")
        run = self._run = Run(*rest) if outer is None else InnerRun(outer, *rest)
        self._task = loop.create_task(self._drive(run), name=f"dspy-live run {call.id}")
        # Whatever becomes of the task, a reader never waits for ever.
        self._task.add_done_callback(lambda task: _close_after(task, run))
        # Nor for code that blocks and can't be told that its time is up; its slot stays taken until it has ended.
        scope.on_cancel(lambda error: loop.call_later(PATIENCE, _close_early, run, error))
        return channel.receiver

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run.channel.receiver.close()
        if not self._task.done():
            self._scope.cancel(Cancelled("the run was left before its end"))
            # Whoever leaves may be cancelled again meanwhile; the work has ended only when it has.
            cancelled: asyncio.CancelledError | None = None
            while not self._task.done():
                try:
                    await asyncio.wait([self._task])
                except asyncio.CancelledError as exc:
                    cancelled = exc
            self._scope.close()
            if cancelled is not None:
                raise cancelled
        self._scope.close()

    async def _drive(self, run: Run) -> None:
        channel, call, service = run.channel, run.call, self._service
        failure: BaseException | None = None
        run.push(Started(call.id, service.name))
        tell(run.observers, "run_started", call, service.name)
        try:
            run.scope.check()
            if service.execution != "thread":
                # A thread hears of it at its next LM or tool call; a task is told at once. Not before it
                # runs: a task that is cancelled before its first step never takes it, and would end nothing.
                run.scope.on_cancel(_canceller(asyncio.current_task()))
            with settings.context(**service.context(run)), service.watch.over(run):
                value = await self._execute(run)
            run.scope.check()
            if run.tracker is not None and isinstance(value, dspy.Prediction):
                value.set_lm_usage(run.tracker.get_total_tokens())
            # Observers are told of the end, not of the events: a ledger that keeps contents finds them here.
            outputs = call.attributes["outputs"] = outputs_of(value)
            run.push(Predicted(outputs, value))
        except BaseException as exc:
            failure = _at_the_door(exc, run)
            if service.served:
                failure = public_lm_error(failure) or failure
        duration = time.monotonic() - run.started
        tell(run.observers, "run_ended", call, failure, duration, run.first)
        channel.close(failure)
        # What they hold holds the run.
        run.invocations.clear()
        run.formatted.clear()

    async def _execute(self, run: Run) -> Any:
        service, inputs = self._service, run.call.inputs
        args = run.call.attributes.get("args", ())
        program = service.program
        if service.execution == "native":
            call = program.acall if isinstance(program, dspy.Module) else program
            return await how.native(lambda: call(*args, **inputs))
        if service.execution == "inline":
            return await how.inline(lambda: program(*args, **inputs), run)
        return await how.in_thread(lambda: program(*args, **inputs), service.runtime.threads(_worker_limit()), run)


def _canceller(task: asyncio.Task[Any] | None) -> Callable[[LiveError], object]:
    assert task is not None
    return lambda error: task.cancel(error.message)


def _close_early(run: Run, error: LiveError) -> None:
    if not run.channel.closed:
        run.channel.close(error)


def _close_after(task: asyncio.Task[None], run: Run) -> None:
    if run.channel.closed:
        return
    failure = None if task.cancelled() else task.exception()
    run.channel.close(run.scope.error or failure or Cancelled("the run was cancelled"))


def _at_the_door(exc: BaseException, run: Run) -> BaseException:
    """What the caller gets for what the program ended with: its own error, or why it was stopped."""
    error = run.scope.error
    if isinstance(exc, Stop):
        return exc.error
    if error is not None and isinstance(exc, asyncio.CancelledError):
        return error
    if isinstance(exc, asyncio.CancelledError):
        return Cancelled("the run was cancelled")
    if isinstance(exc, LiveError):
        return exc
    if not isinstance(exc, Exception):
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            logger.warning("the program raised %s; the run ends, the process goes on", type(exc).__name__)
        failed = ProgramFailed(f"the program raised {type(exc).__name__}")
        failed.__cause__ = exc
        return failed
    return exc
