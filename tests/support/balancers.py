"""nginx and HAProxy as the system's packages have them, in front of the servers of a test.

Each is given a listening socket that the test has bound, so that no port is chosen twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import lasting_port as lasting_port
from tests.support.until import BOUND, until

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program(name: str) -> str:
    """Return the path of an installed program; ``scripts/install_system.sh`` installs those that tests need."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is needed: bash scripts/install_system.sh installs it"
    return found


def nginx_file(folder: Path, http: str) -> Path:
    """Write a whole configuration of nginx around what stands in its ``http`` block, and return its path."""
    paths = "\n".join(f"  {name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nuser root;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr warn;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n{paths}\n{http}\n}}\n"
    )
    return path


@contextlib.contextmanager
def nginx(folder: Path, http: str, *listeners: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """Run nginx with ``http`` as its ``http`` block, on sockets that are bound already."""
    fds = [listener.fileno() for listener in listeners]
    environment = {**os.environ, "NGINX": "".join(f"{fd};" for fd in fds)}
    command = [program("nginx"), "-p", str(folder), "-c", str(nginx_file(folder, http)), "-e", "stderr"]
    with _running(command, fds, listeners, folder / "nginx.log", environment) as process:
        yield process


@contextlib.contextmanager
def haproxy(folder: Path, config: str, *listeners: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """Run HAProxy with a configuration whose ``bind`` lines name sockets of the test, as ``fd@NUMBER``."""
    path = folder / "haproxy.cfg"
    path.write_text(config)
    fds = [listener.fileno() for listener in listeners]
    command = [program("haproxy"), "-db", "-f", str(path)]
    with _running(command, fds, listeners, folder / "haproxy.log", dict(os.environ)) as process:
        yield process


@contextlib.contextmanager
def _running(
    command: list[str],
    fds: list[int],
    listeners: tuple[socket.socket, ...],
    log: Path,
    environment: dict[str, str],
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, pass_fds=fds, env=environment)
    try:
        until(lambda: process.poll() is not None or _answers(listeners))
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(BOUND)


def _answers(listeners: tuple[socket.socket, ...]) -> bool:
    """True when somebody accepts connections: the kernel alone takes them too, but nobody answers those."""
    for listener in listeners:
        with socket.create_connection(listener.getsockname()[:2], timeout=5) as asking:
            asking.settimeout(0.5)
            try:
                asking.sendall(b"\0\r\n\r\n")  # which no protocol takes: a reply or the end comes at once
                asking.recv(1)
            except TimeoutError:
                return False
            except OSError:
                continue
    return True
