"""A listener whose queue is full: connecting to it neither stands nor fails."""

from __future__ import annotations

import socket

from dspy_live.runtime.http.dial import Address


def at(port: int, host: str = "127.0.0.1") -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))


def url_of(address: Address) -> str:
    return f"http://127.0.0.1:{address[4][1]}/"


class Deaf:
    def __enter__(self) -> Address:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.clients = [socket.socket() for _ in range(4)]
        for client in self.clients:
            client.setblocking(False)
            client.connect_ex(self.listener.getsockname())
        return at(self.listener.getsockname()[1])

    def __exit__(self, *error: object) -> None:
        for one in (self.listener, *self.clients):
            one.close()
