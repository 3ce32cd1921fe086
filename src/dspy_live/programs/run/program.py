"""A DSPy program as a Service: called, it runs, pushes its events into the sink, and returns its prediction."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Sequence
from functools import cached_property
from typing import Any

import dspy

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, LiveError, ProgramFailed, Stop
from dspy_live.core.events import Predicted, Result, Started
from dspy_live.core.observer import RunRecord
from dspy_live.core.schema import Schema
from dspy_live.core.service import Layer, Service, compose
from dspy_live.core.sink import Sink
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.detached import Detached
from dspy_live.programs.fields.live_adapter import live
from dspy_live.programs.fields.names import Names
from dspy_live.programs.internals import DEFAULT_CONFIG, current_settings, settings, thread_local_overrides
from dspy_live.programs.lm.errors import public_lm_error
from dspy_live.programs.lm.foreign_lm import holds_a_thread
from dspy_live.programs.lm.lm import LM, adopt, configured
from dspy_live.programs.run.execution_choice import choose_execution
from dspy_live.programs.run.inner_run import InnerNames
from dspy_live.programs.run.replaced_methods import replace_methods_of_dspy
from dspy_live.programs.run.run import KEY, Run, current_run
from dspy_live.programs.run.schema import outputs_of, schema_of
from dspy_live.programs.run.status import StatusReports
from dspy_live.programs.run.tqdm_bars import keep_bars_apart
from dspy_live.programs.run.usage_tracker import RunUsageTracker
from dspy_live.programs.stock.first import called_first
from dspy_live.runtime.books.account import tell
from dspy_live.runtime.checkpoint import fingerprint
from dspy_live.runtime.execution import execution as how
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime, default_runtime
from dspy_live.runtime.scope import Scope, ended

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
        status: a ``StatusMessageProvider`` whose messages become ``Status`` events.

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
        status: Any = None,
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
        self.reports = StatusReports(program, status)
        modules = [m for _, m in program.named_sub_modules(dspy.Module)] if isinstance(program, dspy.Module) else []
        self._predictors = [module for module in modules if isinstance(module, dspy.Predict)]
        self._is_of_dspy = bool(modules) and all(type(module).__module__.startswith("dspy.") for module in modules)
        stock = (dspy.Predict, dspy.ChainOfThought)
        self._is_stock = (
            self.execution == "native" and bool(modules) and all(type(module) in stock for module in modules)
        )
        self._settings = dict(overrides or {})
        self.served = served
        if served:
            self._settings["disable_history"] = True

    @cached_property
    def version(self) -> str:
        """What tells this program from another of its name: a fingerprint of class, signatures, demos, instructions.

        Made when it is first asked for. A program that is changed afterwards is to be wrapped again.
        """
        return program_fingerprint(self.program)

    @cached_property
    def _default_adapter(self) -> Any:
        return live(dspy.ChatAdapter())

    @property
    def may_block(self) -> bool:
        """True where the program may block a thread that can't be ended: it runs in one, or its tools or its LMs do."""
        if self.execution == "thread" or self.reports.has_tools:
            return True
        lm = self._settings.get("lm") or settings.lm
        if lm is not None and holds_a_thread(lm):
            return True
        for predictor in self._predictors:
            lm = predictor.lm
            if lm is not None and holds_a_thread(lm):
                return True
        second = getattr(self._settings.get("adapter") or settings.adapter, "extraction_model", None)
        return second is not None and holds_a_thread(second)

    @property
    def may_hold_up(self) -> bool:
        """True where a caller that leaves might wait for the program's end: it may block, as far as can be seen.

        Only of DSPy's own modules, with no layers around their LMs, is all of it seen.
        """
        return not self._is_of_dspy or bool(self.runtime.lm_layers) or self.may_block

    def layered(self, layers: Sequence[Layer] | None = None) -> Service:
        """Return this service inside ``layers``, by default the runtime's own; the first is the outermost.

        Calls that come without them get the program's name and version and the LM's name, for the layers to tell
        programs apart.
        """
        layers = self.runtime.layers if layers is None else tuple(layers)
        if not layers:
            return self
        service = compose(self, layers)
        if all(isinstance(layer, (Deadline, Detached)) for layer in layers):
            return service  # they treat all calls alike

        async def named(call: Call, sink: Sink) -> Result:
            if not call.version:
                lm = self._settings.get("lm", settings.lm)
                model = str(getattr(lm, "model", ""))
                call = call.but(program=call.program or self.name, version=self.version, model=call.model or model)
            return await service(call, sink)

        return named

    async def __call__(self, call: Call, sink: Sink) -> Predicted:
        """Run the program for ``call``.

        Raises what the program raises, or why it was stopped. Cancelling it closes the LM connections at once, stops
        the program at its next LM or tool call, and returns when its code has ended.
        """
        keep_bars_apart()
        if not call.program:
            call = call.but(program=self.name)
        outer = current_run()
        around = outer if outer is not None and call.parent == outer.id else None
        names = self.names if around is None else InnerNames(self.names, around.names, self.name)
        run = Run(self.runtime, call, call.program, names, sink)
        if around is not None:
            run.status = around.status
        run.push(Started(call.id, call.program))
        if run.observers:
            tell(run.observers, "run_started", call)
        failure: BaseException | None = None
        outputs: dict[str, Any] | None = None
        try:
            task = self._staying(run) if self._is_stock and outer is None else None
            predicted = await (self._run(run) if task is None else self._run_here(run, task))
            outputs = predicted.outputs
            return predicted
        except BaseException as exc:
            failure = self._failure(exc, run)
            if failure is exc:
                raise
            raise failure from failure.__cause__
        finally:
            if isinstance(failure, asyncio.CancelledError):
                failure = run.stopped
            if run.observers:
                duration = time.monotonic() - run.started
                tell(run.observers, "run_ended", RunRecord(call, outputs, failure, duration, run.first))
            failure = None  # its traceback holds this frame

    def _staying(self, run: Run) -> asyncio.Task[Any] | None:
        """Return the caller's task where it may run the program, for no code of a user's is asked to."""
        if settings.callbacks or self.runtime.lm_layers or not self.reports.has_none_for(run):
            return None
        return asyncio.current_task(run.loop)

    async def _run_here(self, run: Run, task: asyncio.Task[Any]) -> Predicted:
        replace_methods_of_dspy()
        run.task = task
        before = task.cancelling()
        try:
            with Scope(task) as scope:
                run.guard(scope.fail)
                run.check()
                token = thread_local_overrides.set(self._settings_of(run))
                try:
                    predicted = _predicted(run, await self._executed(run))
                finally:
                    thread_local_overrides.reset(token)
            if task.cancelling() > before:  # an endpoint has swallowed it
                raise asyncio.CancelledError
            return predicted
        except asyncio.CancelledError:
            run.leave()
            raise
        except Exception:
            if run.stopped is not None:
                raise run.stopped from None
            raise
        finally:
            await run.close()

    async def _run(self, run: Run) -> Predicted:
        # In a task of its own: a cancellation that comes from outside can be told from one that the program sends to
        # itself, and one that the program swallows does not swallow the caller's.
        work = run.task = run.loop.create_task(self._work(run), name=f"dspy-live run {run.id}")
        run.ending = run.loop.create_future()
        work.add_done_callback(run.worked)  # a task that was cancelled before its first step
        run.on_stop(run.cancel)
        try:
            try:
                await run.ending  # it comes a turn of the loop before the task's callbacks
            except asyncio.CancelledError:
                run.leave()
                await ended(work, on_cancel=run.leave)
                raise
            if run.stopped is not None:
                raise run.stopped
            if work.cancelled():
                raise Cancelled("the run was cancelled")
            return _result_of(work.result())
        finally:
            run.forget(run.cancel)
            await run.close()

    async def _work(self, run: Run) -> Predicted | _Raised:
        replace_methods_of_dspy()
        try:
            run.check()
            # The task has a context of its own, which goes with it.
            thread_local_overrides.set(self._settings_of(run))
            reporting = self.reports.of(run)
            if reporting is None:
                value = await self._executed(run)
            else:
                with reporting:
                    value = await self._executed(run)
            return _predicted(run, value)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # KeyboardInterrupt too: from a task asyncio would throw it out of the whole loop
            return _Raised(exc)
        finally:
            run.worked()  # the task's last step: when its waiter gets its turn, the task is done

    def _executed(self, run: Run) -> Awaitable[Any]:
        call, program = run.call, self.program
        if self.execution == "native":
            # In this task: its cancellation is the program's.
            if isinstance(program, dspy.Module):
                return called_first(program, call.args, call.inputs)
            awaited: Awaitable[Any] = program(*call.args, **call.inputs)
            return awaited
        work = functools.partial(program, *call.args, **call.inputs)
        if self.execution == "inline":
            return how.inline(work, run)
        return how.in_thread(work, self.runtime.threads(_worker_limit()), run)

    def _settings_of(self, run: Run) -> dict[str, Any]:
        """Return the settings of DSPy for one run."""
        found = current_settings()
        found.update(self._settings)
        if self._settings.get("disable_history"):
            found["trace"] = []  # DSPy's own would keep the last 10,000 predictions with their inputs
        lm = found["lm"]
        if lm is not None and (type(lm) is not LM or run.call.config):
            found["lm"] = configured(adopt(lm), run.call.config)
        adapter = found["adapter"]
        found["adapter"] = live(adapter) if adapter is not None else self._default_adapter
        found[KEY] = run
        found["send_stream"] = None
        if found["track_usage"] or found["usage_tracker"] is not None:
            # DSPy's own is copied for each of its threads, and tells the outermost prediction only.
            found["usage_tracker"] = run.tracker = RunUsageTracker(found["usage_tracker"])
            if run.tracker.predictions is not None:
                found["callbacks"] = [*found["callbacks"], run.tracker.predictions]
        return found

    def _failure(self, exc: BaseException, run: Run) -> BaseException:
        """Return what the caller gets for what the run ended with: its own error, or why it was stopped."""
        if isinstance(exc, asyncio.CancelledError):
            return exc
        if isinstance(exc, Stop):
            return exc.error
        if not isinstance(exc, Exception):
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                logger.warning("the program raised %s; the run ends, the process goes on", type(exc).__name__)
            failed = ProgramFailed(f"the program raised {type(exc).__name__}")
            failed.__cause__ = exc
            return failed
        return (public_lm_error(exc) or exc) if self.served and not isinstance(exc, LiveError) else exc


def _predicted(run: Run, value: Any) -> Predicted:
    if run.tracker is not None and isinstance(value, dspy.Prediction):
        value.set_lm_usage(run.tracker.get_total_tokens())
    return Predicted(outputs_of(value), value, not isinstance(value, (dspy.Prediction, dict)))


class _Raised:
    """What a program raised. It is let go of when it is raised again: its traceback would hold it."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error


def _result_of(outcome: Predicted | _Raised) -> Predicted:
    if isinstance(outcome, Predicted):
        return outcome
    error, outcome.error = outcome.error, None
    assert error is not None
    try:
        raise error
    finally:
        error = None


def program_fingerprint(program: Any) -> str:
    """Return what tells one program from another: its class, signatures, demos and instructions."""
    kind = type(program)
    dump = getattr(program, "dump_state", None)
    state = dump(json_mode=False) if callable(dump) else getattr(program, "__qualname__", repr(kind))
    return fingerprint([f"{kind.__module__}.{kind.__qualname__}", state])


def _worker_limit() -> int | None:
    """DSPy's own setting bounds our threads where the user has changed it; its default of 8 is no wish of theirs."""
    limit = settings.async_max_workers
    return None if limit == DEFAULT_CONFIG.async_max_workers else max(1, int(limit))
