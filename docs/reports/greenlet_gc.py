"""A crash of CPython with greenlet 3.5.6: a thread ends while a collection has found its greenlet unreachable.

Run it in a process of its own; "alive" means that it did not happen.
"""

import gc
import threading

import greenlet

ready, go = threading.Event(), threading.Event()


class Garbage:
    """Unreachable from its making on. Its finaliser runs within the collection, and lets the thread end meanwhile."""

    def __init__(self, error):
        self.error, self.itself, self.thread = error, self, threading.current_thread()

    def __del__(self):
        go.set()
        self.thread.join()
        for _ in range(100_000):  # greenlet cleans up after the thread in a pending call of this one
            pass


def fail():
    current = greenlet.getcurrent()  # in a local of a frame that the traceback keeps
    raise KeyError(current is None)


def work():
    try:
        fail()
    except KeyError as error:
        Garbage(error)
    ready.set()
    go.wait()


gc.disable()
threading.Thread(target=work).start()
ready.wait()
gc.collect()
gc.collect()
print("alive")
