"""A relay that can cut connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """A TCP relay in front of a server; :meth:`cut` breaks every connection through it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.cut_after: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._port))
            with self._lock:
                self._pairs.append((client, server))
            threads = [
                threading.Thread(target=self._copy, args=(client, server, False), daemon=True),
                threading.Thread(target=self._copy, args=(server, client, True), daemon=True),
            ]
            for thread in threads:
                thread.start()

    def _copy(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(
                256
            ):  # so that a connection is cut soon after ``cut_after``, however much has come
                target.sendall(data)
                passed += len(data)
                if counted and self.cut_after is not None and passed > self.cut_after:
                    break
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def relay(port: int) -> Iterator[Relay]:
    between = Relay(port)
    try:
        yield between
    finally:
        between.close()
