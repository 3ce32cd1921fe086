"""What a run's modules, LMs and tools are doing, told as events; watched through DSPy's callbacks where wanted.

A callback of DSPy's costs every module call 170 µs, so that they are used only where the program has
tools, or somebody has asked for status messages.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dspy
from pydantic_core import to_jsonable_python

from dspy_live.core.events import Status, Tool
from dspy_live.core.observer import RunFollower, RunObserver
from dspy_live.programs.internals import ACTIVE_CALL_ID, BaseCallback, settings
from dspy_live.programs.run.parts import PartReporter, entered, followers_of, tell_of_tool
from dspy_live.programs.run.run import Run, current_run
from dspy_live.runtime.execution.blocked import TOO_LONG, BlockingCodeWarning
from dspy_live.runtime.execution.bridge import in_inline_run

logger = logging.getLogger("dspy_live.status")

_warned_tools: set[str] = set()


class StatusMessageProvider:
    """Says what a reader is told while a program runs. Subclass it and override what you need.

    The simple way is :meth:`get_status_message`. DSPy's six hooks work too; a hook that returns a
    message wins over it. A method that returns ``None`` or an empty string says nothing. An error
    in any of them is logged and says nothing; it never fails the run.
    """

    def get_status_message(self, module_name: str, status: str) -> str | None:
        """Return the message for a module, by its class name, and one of ``starting``, ``processing`` (its first LM
        call is sent), ``complete`` and ``failed``."""
        return None

    def tool_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str | None:
        """Before a tool is called."""
        return f"Calling tool {instance.name}..."

    def tool_end_status_message(self, outputs: Any) -> str | None:
        """After a tool has returned."""
        return "Tool calling finished! Querying the LLM with tool calling results..."

    def module_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str | None:
        """Before a module or predictor is called."""
        return None

    def module_end_status_message(self, outputs: Any) -> str | None:
        """After a module or predictor has returned."""
        return None

    def lm_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str | None:
        """Before an LM is called."""
        return None

    def lm_end_status_message(self, outputs: Any) -> str | None:
        """After an LM has answered."""
        return None


class StatusReports:
    """Tells the tools and status messages of one program's runs as events, where there are any."""

    def __init__(self, program: Any, provider: Any = None) -> None:
        self.has_tools = _has_tools(program)
        self._provider = provider
        self._looked_at: Sequence[RunObserver] = ()
        self._followed = False

    def default_to(self, provider: Any) -> None:
        """Take ``provider`` where none was given and the program has tools to tell of."""
        if self._provider is None and self.has_tools:
            self._provider = provider

    def has_none_for(self, run: Run) -> bool:
        """True where :meth:`of` returns ``None``."""
        if self._provider is not None or self.has_tools:
            return False
        if run.observers is not self._looked_at:  # a tuple of an account, which makes another one for a change
            self._looked_at = run.observers
            self._followed = any(hasattr(observer, "follow") for observer in run.observers)
        return not self._followed

    def of(self, run: Run) -> AbstractContextManager[None] | None:
        """Return a context that reports the run inside of it to its reader and to who follows it.

        ``None`` where nobody asks for reports.
        """
        if self._provider is None and not self.has_tools and not run.observers:
            return None
        callbacks: list[Any] = []
        # A run inside another one: the outer run's reporter reports both.
        if self._provider is not None or (run.status is None and self.has_tools):
            run.status = Reporter(run, self._provider)
            callbacks.append(run.status)
        followers = followers_of(run)
        # Behind the reporter: a stop that it raises where a tool begins comes before a span is made.
        callbacks += [PartReporter(run, follower) for follower in followers if follower.wants_parts]
        return _reporting(callbacks, followers) if callbacks or followers else None


@contextmanager
def _reporting(callbacks: list[Any], followers: list[RunFollower]) -> Iterator[None]:
    with entered(followers):
        if not callbacks:
            yield
            return
        with settings.context(callbacks=[*settings.callbacks, *callbacks]):
            yield


class Reporter(BaseCallback):
    """DSPy's callbacks of one run, told as events. Its hooks never wait, so that nothing can deadlock.

    A stop that is due is raised in a tool's start: it is a ``BaseException``, which DSPy lets through.
    """

    def __init__(self, run: Run, provider: Any) -> None:
        self._run = run
        self._provider = provider
        # By DSPy's id of the call: a module may run many times at once, in any thread.
        self._tools: dict[str, tuple[str, str, str, float, list[bool]]] = {}
        self._modules: dict[str, str] = {}
        self._idle: set[str] = set()
        self._parents: dict[str, str | None] = {}

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = self._here()
        if run is None:
            return
        run.check()
        self._parents[call_id] = ACTIVE_CALL_ID.get()
        arguments = inputs.get("kwargs", inputs)
        identity = uuid.uuid4().hex[:12]
        callers = settings.caller_modules
        module = run.names.path(callers[-1]) if callers else ""
        # Stays empty where the loop gets no turn until the tool has returned.
        turns: list[bool] = []
        loop = asyncio._get_running_loop()
        awaited = inspect.iscoroutinefunction(instance.func)  # not called on the loop but awaited there
        if awaited or loop is None or in_inline_run():
            turns.append(True)
        else:
            loop.call_soon(turns.append, True)
        self._tools[call_id] = (identity, instance.name, module, time.monotonic(), turns)
        run.push(Tool(instance.name, "call", identity, _jsonable(arguments), module=module))
        if instance.name != "finish":
            self._say(run, self._ask("tool_start_status_message", instance, inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = self._here()
        self._parents.pop(call_id, None)
        identity, name, module, started, turns = self._tools.pop(call_id, ("", "", "", 0.0, []))
        if run is None or not identity:
            return
        seconds = time.monotonic() - started
        tell_of_tool(run, name, seconds, exception)
        took = round(seconds * 1000, 3)
        if exception is not None:
            run.push(Tool(name, "error", identity, {}, f"{type(exception).__name__}: {exception}", took, module))
        else:
            run.push(Tool(name, "result", identity, {}, _jsonable(outputs), took, module))
            if name != "finish":
                self._say(run, self._ask("tool_end_status_message", outputs))
        if seconds > TOO_LONG and not turns:  # last, since some make warnings errors
            _warn_of_blocking(name, seconds)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = self._here()
        if run is None or self._provider is None:
            return
        name = self._modules[call_id] = type(instance).__name__
        self._parents[call_id] = ACTIVE_CALL_ID.get()
        self._idle.add(call_id)
        message = self._ask("module_start_status_message", instance, inputs)
        self._say(run, message or self._ask("get_status_message", name, "starting"), name, "starting")

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = self._here()
        name = self._modules.pop(call_id, "")
        self._parents.pop(call_id, None)
        self._idle.discard(call_id)
        if run is None or not name:
            return
        if exception is not None:
            self._say(run, self._ask("get_status_message", name, "failed"), name, "failed")
            return
        message = self._ask("module_end_status_message", outputs)
        self._say(run, message or self._ask("get_status_message", name, "complete"), name, "complete")

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = self._here()
        if run is None or self._provider is None:
            return
        for name in self._begin_processing():
            self._say(run, self._ask("get_status_message", name, "processing"), name, "processing")
        self._say(run, self._ask("lm_start_status_message", instance, inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = self._here()
        if run is not None and self._provider is not None and exception is None:
            self._say(run, self._ask("lm_end_status_message", outputs))

    def _here(self) -> Run | None:
        """The run, where this is its code: a run inside another one has a reporter of its own."""
        run = current_run()
        return run if run is not None and run.status is self else None

    def _begin_processing(self) -> list[str]:
        """The modules around an LM call whose first it is, the outermost first."""
        names = []
        call_id = ACTIVE_CALL_ID.get()
        while call_id is not None:
            if call_id in self._idle:
                self._idle.discard(call_id)
                names.append(self._modules.get(call_id, ""))
            call_id = self._parents.get(call_id)
        return names[::-1]

    def _ask(self, hook: str, *arguments: Any) -> str | None:
        """The user's own code: what goes wrong in it is logged and says nothing."""
        method = getattr(self._provider, hook, None)
        if method is None:
            return None
        try:
            message = method(*arguments)
            if inspect.iscoroutine(message):
                message.close()
                raise TypeError("it is asynchronous; a status hook is a plain method that returns at once")
            return None if message is None else str(message)
        except Exception as exc:
            logger.warning("status hook %s.%s failed: %s", type(self._provider).__name__, hook, exc, exc_info=exc)
            return None

    @staticmethod
    def _say(run: Run, message: str | None, module: str = "", stage: Any = None) -> None:
        if message:
            run.push(Status(message, module, stage))


def _warn_of_blocking(name: str, seconds: float) -> None:
    """A synchronous tool that is called and not awaited runs where it is called: in an ``aforward``, on the loop."""
    if name in _warned_tools:
        return
    _warned_tools.add(name)
    warnings.warn(
        f"the tool {name!r} held the event loop up for {seconds * 1000:.0f} ms, and with it every other "
        "run; in an aforward call it with 'await tool.acall(...)', which runs it in a thread",
        BlockingCodeWarning,
        stacklevel=1,
    )


def _has_tools(program: Any) -> bool:
    if not isinstance(program, dspy.Module):
        return True
    seen: set[int] = set()
    todo: list[Any] = [program]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dspy.Tool):
            return True
        if isinstance(item, dspy.Module):
            todo.extend(vars(item).values())
        elif isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(item)
    return False


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=str, serialize_unknown=True)
