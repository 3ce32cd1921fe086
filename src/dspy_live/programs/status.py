"""What a run's modules, LMs and tools are doing, told as events; watched through DSPy's callbacks where wanted.

A callback of DSPy's costs every module call 170 µs, so that they are used only where the program has
tools, or somebody has asked for status messages.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from pydantic_core import to_jsonable_python

from dspy_live.core.events import Status, Tool
from dspy_live.programs.internals import BaseCallback, settings
from dspy_live.programs.run import Run, current_run


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


class Watch:
    """Watches over the runs of one program."""

    def __init__(self, program: Any) -> None:
        self.has_tools = _has_tools(program)

    @contextmanager
    def over(self, run: Run) -> Iterator[None]:
        """Let the run's tools and status messages be told as events, where there are any."""
        provider = run.call.attributes.get("status")
        if provider is None and not self.has_tools:
            yield
            return
        teller = run.status = Teller(provider)
        with settings.context(callbacks=[*settings.callbacks, teller]):
            yield


class Teller(BaseCallback):
    """DSPy's callbacks of one run, told as events. Its hooks never wait, so that nothing can deadlock.

    A stop that is due is raised in a tool's start: it is a ``BaseException``, which DSPy lets through.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tools: dict[str, tuple[str, str, float]] = {}
        self._modules: dict[str, str] = {}
        self._processing: set[int] = set()

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = current_run()
        if run is None:
            return
        run.scope.check()
        arguments = inputs.get("kwargs", inputs)
        identity = uuid.uuid4().hex[:12]
        self._tools[call_id] = (identity, instance.name, time.monotonic())
        run.push(Tool(instance.name, "call", identity, _jsonable(arguments)))
        if instance.name != "finish":
            self._say(run, self._ask("tool_start_status_message", instance, inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = current_run()
        identity, name, started = self._tools.pop(call_id, ("", "", 0.0))
        if run is None or not identity:
            return
        took = round((time.monotonic() - started) * 1000, 3)
        if exception is not None:
            run.push(Tool(name, "error", identity, {}, f"{type(exception).__name__}: {exception}", took))
            return
        run.push(Tool(name, "result", identity, {}, _jsonable(outputs), took))
        if name != "finish":
            self._say(run, self._ask("tool_end_status_message", outputs))

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = current_run()
        if run is None or self._provider is None:
            return
        name = self._modules[call_id] = type(instance).__name__
        message = self._ask("module_start_status_message", instance, inputs)
        self._say(run, message or self._simple(name, "starting"), name, "starting")

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = current_run()
        name = self._modules.pop(call_id, "")
        if run is None or self._provider is None:
            return
        if exception is not None:
            self._say(run, self._simple(name, "failed"), name, "failed")
            return
        message = self._ask("module_end_status_message", outputs)
        self._say(run, message or self._simple(name, "complete"), name, "complete")

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = current_run()
        if run is None or self._provider is None:
            return
        for module in settings.caller_modules or ():
            if id(module) not in self._processing:
                self._processing.add(id(module))
                name = type(module).__name__
                self._say(run, self._simple(name, "processing"), name, "processing")
        self._say(run, self._ask("lm_start_status_message", instance, inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        run = current_run()
        if run is not None and self._provider is not None and exception is None:
            self._say(run, self._ask("lm_end_status_message", outputs))

    def lm_call_starts(self, lm: Any, speaker: Any) -> None:
        """Asked by the engine; what there is to say is said in ``on_lm_start``."""

    def _ask(self, hook: str, *arguments: Any) -> str | None:
        method = getattr(self._provider, hook, None)
        if method is None:
            return None
        message = method(*arguments)
        return None if message is None else str(message)

    def _simple(self, name: str, status: str) -> str | None:
        method = getattr(self._provider, "get_status_message", None)
        return None if method is None else method(name, status)

    @staticmethod
    def _say(run: Run, message: str | None, module: str = "", stage: Any = None) -> None:
        if message:
            run.push(Status(message, module, stage))


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
