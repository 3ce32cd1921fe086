"""The part of a loop that a timer needs, with a time of its own."""

from __future__ import annotations

from typing import Any


class Clock:
    """Stands still until :meth:`pass_time`, which calls what falls due meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Any]] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Any:
        clock, timer = self, (when, callback)
        self.timers.append(timer)
        self.armed += 1

        class Handle:
            def cancel(self) -> None:
                if timer in clock.timers:
                    clock.timers.remove(timer)

        return Handle()

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while due := sorted((t for t in self.timers if t[0] <= until), key=lambda t: t[0]):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = until
