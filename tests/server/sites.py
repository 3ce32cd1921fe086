"""The sites of ``deploy/`` in front of a test's servers: the files as they are, but for addresses and certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tests.runtime.http.certificates import Authority
from tests.support.balancers import haproxy, nginx

from dspy_live.server.transport.address import listen

ROOT = Path(__file__).parents[2]


class HasPort(Protocol):
    """A server of this machine."""

    port: int


@contextlib.contextmanager
def behind_nginx(folder: Path, servers: Sequence[HasPort]) -> Iterator[tuple[int, int]]:
    with listen("127.0.0.1", 0) as plain, listen("127.0.0.1", 0) as listener:
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        certificate, key = Authority(folder).issue("127.0.0.1")
        replaced = {
            "127.0.0.1:8001 ": f"127.0.0.1:{servers[0].port} ",
            "127.0.0.1:8002 ": f"127.0.0.1:{servers[1].port} ",
            "listen 80;": f"listen 127.0.0.1:{plain.getsockname()[1]};",
            "listen 443 ssl": f"listen 127.0.0.1:{listener.getsockname()[1]} ssl",
            "/etc/ssl/qa.example.com.pem": str(certificate),
            "/etc/ssl/qa.example.com.key": str(key),
        }
        with nginx(folder, put(text, replaced), plain, listener):
            yield plain.getsockname()[1], listener.getsockname()[1]


@contextlib.contextmanager
def behind_haproxy(folder: Path, servers: Sequence[HasPort]) -> Iterator[tuple[int, int]]:
    with listen("127.0.0.1", 0) as plain, listen("127.0.0.1", 0) as listener:
        text = (ROOT / "deploy" / "haproxy.cfg").read_text()
        certificate, key = Authority(folder).issue("127.0.0.1")
        both = folder / "both.pem"
        both.write_text(certificate.read_text() + key.read_text())
        replaced = {
            "127.0.0.1:8001\n": f"127.0.0.1:{servers[0].port}\n",
            "127.0.0.1:8002\n": f"127.0.0.1:{servers[1].port}\n",
            "bind :80\n": f"bind fd@{plain.fileno()}\n",
            "bind :443 ": f"bind fd@{listener.fileno()} ",
            "/etc/haproxy/qa.example.com.pem": str(both),
            "inter 1s": "inter 100ms",
        }
        with haproxy(folder, put(text, replaced), plain, listener):
            yield plain.getsockname()[1], listener.getsockname()[1]


def put(text: str, replaced: dict[str, str]) -> str:
    """Return a file of ``deploy/`` with a test's own values; each of them must stand in it once."""
    for old, new in replaced.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text
