"""What a fork asks for."""

from __future__ import annotations

import os
import threading

import dspy_live.programs.fields.origin
import dspy_live.programs.internals
import dspy_live.programs.lm.prices
import dspy_live.programs.run.run
import dspy_live.programs.run.usage_tracker
import dspy_live.runtime.execution.stop_signal
import dspy_live.runtime.stores.line

LOCKS = [
    dspy_live.programs.fields.origin._lock,
    dspy_live.programs.internals._metadata_lock,
    dspy_live.programs.lm.prices._lock,
    dspy_live.programs.run.run._making,
    dspy_live.programs.run.usage_tracker._theirs,
    dspy_live.runtime.execution.stop_signal._lock,
    dspy_live.runtime.stores.line._lines_lock,
]


def test_locks_that_another_thread_held_are_free_in_a_forked_process() -> None:
    """A thread that holds one does not come along, so that nobody would ever let go of it."""
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in LOCKS:
            lock.acquire()
        held.set()
        forked.wait()
        for lock in LOCKS:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(sum(not lock.acquire(blocking=False) for lock in LOCKS))
    _, status = os.waitpid(child, 0)
    assert all(lock.locked() for lock in LOCKS), "the parent's are as they were"
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
