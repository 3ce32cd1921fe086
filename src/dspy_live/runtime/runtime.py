"""The Runtime: the one object of the process behind the bare functions, which can be replaced."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

import anyio

from dspy_live.core.call import Buffer
from dspy_live.core.service import Layer
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.execution.execution import EXECUTIONS, Execution
from dspy_live.runtime.mistakes import checked_layers, names_near_options
from dspy_live.sansio.limits.order import check_order

MAX_THREADS = 256


class Runtime:
    """What calls share: layers, worker threads, the account. Connections belong to loops, state to calls.

    Args:
        layers: around every program that this runtime opens; the first is the outermost.
        lm_layers: around every LM endpoint, likewise. With a retry layer among them, the LM's own
            ``num_retries`` is not used: retries never multiply.
        account: where usage is booked; the process's own by default.
        buffer: the bounds of a call's channel where the caller names none.
        execution: how synchronous programs run where the caller does not say; ``"auto"`` by default.
        max_threads: worker threads per event loop for programs that run in threads, 256 by default.

    Raises ``TypeError`` for an option that there is not and for what is no layer, ``ValueError`` for a value that can't
    work, ``ConfigurationError`` for layers in an order that would surprise.
    """

    @names_near_options
    def __init__(
        self,
        *,
        layers: Sequence[Layer] = (),
        lm_layers: Sequence[Layer] = (),
        account: Account | None = None,
        buffer: Buffer | None = None,
        execution: Execution = "auto",
        max_threads: int = MAX_THREADS,
    ) -> None:
        if execution not in EXECUTIONS:
            raise ValueError(f"execution must be one of {', '.join(EXECUTIONS)}; got {execution!r}")
        if isinstance(max_threads, bool) or not isinstance(max_threads, int) or max_threads < 1:
            raise ValueError(f"max_threads must be a whole number, at least 1; got {max_threads!r}")
        self.layers = tuple(checked_layers("layers", layers))
        self.lm_layers = tuple(checked_layers("lm_layers", lm_layers))
        check_order(self.layers, self.lm_layers)
        self.account = account if account is not None else process_account()
        self.buffer = buffer if buffer is not None else Buffer()
        self.execution: Execution = execution
        self.max_threads = max_threads
        self._limiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = (
            weakref.WeakKeyDictionary()
        )

    def threads(self, limit: int | None = None) -> anyio.CapacityLimiter:
        """Return the running loop's limiter of worker threads, set to ``limit``, ``max_threads`` by default."""
        loop = asyncio.get_running_loop()
        limiter = self._limiters.get(loop)
        limit = self.max_threads if limit is None else limit
        if limiter is None:
            limiter = self._limiters[loop] = anyio.CapacityLimiter(limit)
        elif limiter.total_tokens != limit:
            limiter.total_tokens = limit
        return limiter


_default: Runtime | None = None


def default_runtime() -> Runtime:
    """Return the process's runtime; it is made when it is first asked for."""
    global _default
    if _default is None:
        _default = Runtime()
    return _default


def set_default_runtime(runtime: Runtime) -> Runtime | None:
    """Replace the process's runtime and return the one before. Calls that are open keep theirs."""
    global _default
    before, _default = _default, runtime
    return before
