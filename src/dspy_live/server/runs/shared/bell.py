"""A thread that hears what other servers say of shared runs, so that nobody has to ask often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger("dspy_live.runs")

_WAKES = 1.0
"""Seconds after which the thread looks whether it is to end."""
_REST = 1.0
"""Seconds for which a server that did not answer is left alone."""


class Bell:
    """Calls ``heard`` with each message of these channels, in a thread of its own.

    A message may be lost, with its connection: who waits for one looks by itself now and then.

    Args:
        client: a connection of its own to the server.
        channels: to be listened to.
        heard: gets the channel and the message.
    """

    def __init__(self, client: Redis, channels: Iterable[str], heard: Callable[[str, str], None]) -> None:
        self._client = client
        self._channels = tuple(channels)
        self._heard = heard
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="dspy-live-bell", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, soon."""
        self._over.set()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._hear()
            except Exception as exc:  # the server is away; what it is asked for tells that to people
                log.debug("nothing is heard of shared runs: %r", exc)
                self._over.wait(_REST)
        self._client.close()

    def _hear(self) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
            heard.subscribe(*self._channels)
            while not self._over.is_set():
                message = heard.get_message(timeout=_WAKES)
                if message is not None:
                    self._heard(message["channel"].decode(), message["data"].decode(errors="replace"))
