"""``asyncify``: a DSPy program as an async callable, any number of calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import dspy

from dspy_live.core.call import Call
from dspy_live.core.service import Service
from dspy_live.programs.run.inner_run import around, whose
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime import door
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime


def asyncify(
    program: Any,
    *,
    execution: Execution = "auto",
    timeout: float | None = None,
    runtime: Runtime | None = None,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return an async function that takes what ``program`` takes and returns what it returns.

    Each call has its own state; there is no cap on concurrent calls but the runtime's own layers and,
    for programs that run in threads, its worker threads (256).

    Args:
        program: a ``dspy.Module`` or a callable.
        execution: ``"native"``, ``"thread"``, ``"inline"``, or ``"auto"``: native where every module of the
            program has ``aforward``, else thread.
        timeout: seconds for each call; over it the call ends with :class:`~dspy_live.core.errors.DeadlineExceeded`.
        runtime: layers and account; the process's own by default.

    Called inside a program that runs here already, it is part of that run: its words stream to whoever reads that one,
    its usage counts against that one's budgets.

    A keyword ``config`` of a call sets LM options for it: ``await f(question=..., config={"rollout_id": 7})``.

    Raises ``TypeError`` for what is no program, ``ValueError`` for a timeout or an execution that can't work. A
    call raises what the program raises. Cancelling a call closes its LM connections at once and stops the
    program at its next LM or tool call.
    """
    check_timeout(timeout)
    service = ProgramService(program, execution=execution, runtime=runtime)
    layered = service.with_layers()

    async def async_program(*args: Any, **kwargs: Any) -> Any:
        inherited = around()
        outer = inherited.get("outer")
        stream, restartable = (outer.call.stream, outer.call.restartable) if outer is not None else (False, True)
        call = call_for(
            service, args, kwargs, timeout=timeout, stream=stream, restartable=restartable, attributes=inherited
        )
        return await door.run(layered, call)

    async_program.__name__ = async_program.__qualname__ = f"asyncified_{service.name}"
    async_program.__doc__ = f"{service.name}, asynchronously."
    async_program.program = program  # type: ignore[attr-defined]
    return async_program


def check_timeout(timeout: float | None) -> None:
    """Raise ``ValueError`` for a timeout that is no positive number of seconds."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, or None; got {timeout!r}")


def call_for(
    service: ProgramService,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    timeout: float | None = None,
    stream: bool = True,
    **more: Any,
) -> Call:
    """Return the Call that a front door makes of a program's arguments."""
    config: dict[str, Any] = {}
    if "config" in kwargs and not any(f.name == "config" for f in service.schema.inputs):
        kwargs = dict(kwargs)
        config = kwargs.pop("config") or {}
        if not isinstance(config, dict):
            raise TypeError(f"config must be a dict of LM options; got {type(config).__name__}")
    attributes = {**whose(), **more.pop("attributes", {})}
    if args:
        if isinstance(service.program, dspy.Predict):
            raise ValueError(service.program._get_positional_args_error_message())
        attributes = {**attributes, "args": args}
    return Call(
        kwargs,
        deadline=None if timeout is None else asyncio.get_running_loop().time() + timeout,
        stream=stream,
        config=config,
        attributes=attributes,
        **more,
    )


__all__ = ["Service", "asyncify", "call_for", "check_timeout"]
