"""Ending work for a reason, as ``asyncio.timeout`` ends it for the time; and waiting for a real end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from dspy_live.core.errors import Cancelled


class Scope:
    """Guards the task that enters it. :meth:`fail` cancels the task, and the ``with`` raises the reason.

    A cancellation that somebody else sent goes through untouched, and so does an exception that the code inside
    raises. A scope that was failed never ends well, even when the code inside swallowed the cancellation. On the loop's
    thread only. It is used once. It is what ``asyncio.timeout`` does, without the clock.

    Args:
        task: the running task, where the caller has it already.
    """

    __slots__ = ("_before", "_cancelling", "_sent", "_task", "error")

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._task = task
        self._before = 0
        self._cancelling: asyncio.Handle | None = None
        self._sent = False
        self.error: BaseException | None = None
        """Why it was failed, or ``None``."""

    def fail(self, error: BaseException) -> bool:
        """Cancel the task at the loop's next turn, for ``error``. The first reason wins: False when there was one."""
        if self.error is not None:
            return False
        self.error = error
        # Never Task.cancel() here: inside a step of the guarded task itself it would come out past the scope.
        self._cancelling = asyncio.get_running_loop().call_soon(self._cancel)
        return True

    def _cancel(self) -> None:
        self._cancelling = None
        if self._task is not None:
            self._sent = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task = self._task
        if task is None:
            task = self._task = asyncio.current_task()
            if task is None:
                raise RuntimeError("a scope guards a task; it was entered outside of any")
        self._before = task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self.error
        task, self._task = self._task, None  # which may hold this scope
        if failed is None:
            self.error = OVER  # a straggler's fail() must not touch a task that has left
            return
        if self._cancelling is not None:
            self._cancelling.cancel()
        ours = self._sent and task is not None and task.uncancel() <= self._before
        try:
            if ours and kind is asyncio.CancelledError:
                raise failed from failed.__cause__ or exc
            if kind is None:
                raise failed
        finally:
            del failed, self  # an error whose own traceback holds it would wait for the garbage collector


OVER = Cancelled("the scope was left")
"""What a scope has as its error once it was left."""


async def ended(*work: asyncio.Future[Any], on_cancel: Callable[[], object] | None = None) -> None:
    """Wait until all of ``work`` has ended, through cancellations of the waiting task.

    Each cancellation is told to ``on_cancel`` as it comes; the last one is raised at the end. The caller
    looks at the results.
    """
    late: asyncio.CancelledError | None = None
    for one in work:
        while not one.done():
            try:
                await until_done(one)
            except asyncio.CancelledError as exc:
                late = exc
                if on_cancel is not None:
                    on_cancel()
    if late is not None:
        raise late


async def until_done(work: asyncio.Future[Any]) -> None:
    """Wait until ``work`` is done. Cancelling the wait leaves it as it is. ``asyncio.wait`` of one costs four times."""
    if work.done():
        return
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: asyncio.Future[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    work.add_done_callback(wake)
    try:
        await waiter
    finally:
        work.remove_done_callback(wake)


class Room:
    """Whether there is room, as a level: any number may wait for it. The half of a sink that sources wait on."""

    __slots__ = ("_waiting", "open")

    def __init__(self) -> None:
        self.open = True
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order of coming

    def set(self, open: bool) -> None:  # noqa: A002
        """Open or close it; opening wakes all who wait."""
        self.open = open
        if open:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it is open."""
        while not self.open:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = None
            try:
                await waiter
            finally:
                del self._waiting[waiter]
