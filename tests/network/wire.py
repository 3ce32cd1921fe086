"""A cable whose delay, loss and speed a test chooses: frames pass from one tap device to another through a thread.

Kernels without ``netem`` have no other way to lose a packet. TCP at both ends sees it as it would see a bad line.
"""

from __future__ import annotations

import fcntl
import math
import os
import random
import select
import struct
import threading
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x1002
_FRAME = 1 << 16
_LONGEST_QUEUE = 64 << 10
"""Bytes that may wait before a slow line; what comes then is lost, as at any router."""


class Wire(threading.Thread):
    """Passes frames between two taps until it is closed. Its properties may be changed at any time.

    Attributes:
        delay: seconds that a frame takes, in each direction.
        loss: share of the frames that are lost, 0 to 1; which ones is the same in each run.
        speed: bytes per second, in each direction.
    """

    @staticmethod
    def tap(name: str) -> int:
        """Make a tap device in this thread's namespace; it is there until its descriptor is closed."""
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER))
        return descriptor

    def __init__(self, one: int, other: int) -> None:
        super().__init__(name="wire", daemon=True)
        self.delay = 0.0
        self.loss = 0.0
        self.speed = math.inf
        self._ways = (_Way(one, other), _Way(other, one))
        self._deaf_to: frozenset[bytes] = frozenset()
        self._chance = random.Random(1)
        self._over, self._end = os.pipe()
        self.start()

    def deaf_to(self, addresses: set[bytes]) -> None:
        """Lose every frame that comes from one of these MAC addresses or goes to it."""
        self._deaf_to = frozenset(addresses)

    def mend(self) -> None:
        """Make it a good line again."""
        self.delay, self.loss, self.speed = 0.0, 0.0, math.inf
        self.deaf_to(set())

    def run(self) -> None:
        ways = {way.source: way for way in self._ways}
        while True:
            due = min((way.due for way in self._ways), default=math.inf)
            wait = None if due == math.inf else max(0.0, due - time.monotonic())
            ready, _, _ = select.select([*ways, self._over], [], [], wait)
            if self._over in ready:
                return
            now = time.monotonic()
            for source in ready:
                self._take(ways[source], now)
            for way in self._ways:
                way.deliver(now)

    def _take(self, way: _Way, now: float) -> None:
        try:
            frame = os.read(way.source, _FRAME)
        except OSError:  # the device is down
            return
        heard = frame[:6] not in self._deaf_to and frame[6:12] not in self._deaf_to
        if heard and (not self.loss or self._chance.random() >= self.loss):
            way.put(frame, now, self.delay, self.speed)

    def close(self) -> None:
        """Stop; both devices are gone then."""
        os.close(self._end)
        self.join()
        for descriptor in (self._over, *(way.source for way in self._ways)):
            os.close(descriptor)


class _Way:
    """One direction: frames that are under way, in their order."""

    def __init__(self, source: int, to: int) -> None:
        self.source, self._to = source, to
        self._frames: deque[tuple[float, bytes]] = deque()
        self._free = 0.0
        """When the line has sent what was given to it so far."""

    @property
    def due(self) -> float:
        return self._frames[0][0] if self._frames else math.inf

    def put(self, frame: bytes, now: float, delay: float, speed: float) -> None:
        begins = max(now, self._free)
        if (begins - now) * speed > _LONGEST_QUEUE and speed < math.inf:
            return
        self._free = begins + len(frame) / speed
        arrives = self._free + delay
        self._frames.append((max(arrives, self._frames[-1][0]) if self._frames else arrives, frame))

    def deliver(self, now: float) -> None:
        while self._frames and self._frames[0][0] <= now:
            try:
                os.write(self._to, self._frames.popleft()[1])
            except OSError:  # the other end is down
                continue
