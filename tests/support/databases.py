"""A real Redis (or Valkey) and a real PostgreSQL, started where a test asks for one, on ports of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.ports import lasting_port
from tests.support.until import BOUND


class Server:
    """A server process that a test may stop and start again."""

    def __init__(self, command: list[str], port: int, folder: Path, user: str | None = None) -> None:
        self.command, self.port, self.folder, self.user = command, port, folder, user
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, user=self.user, cwd=self.folder)
        self._wait(lambda: _answers(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(BOUND)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _wait(self, ready: Callable[[], bool]) -> None:
        assert self.process is not None
        until = time.monotonic() + BOUND
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError((self.folder / "log").read_text(errors="replace"))
            time.sleep(0.02)


@pytest.fixture
def redis_server() -> Iterator[Server]:
    """A Redis or Valkey of the test's own; ``redis://127.0.0.1:{server.port}``."""
    with running_redis() as server:
        yield server


@contextmanager
def running_redis() -> Iterator[Server]:
    """A Redis or Valkey for as long as the block."""
    named = os.environ.get("REDIS_SERVER", "redis-server")  # another one, such as Valkey's: the same tests hold there
    program = shutil.which(named) or shutil.which("valkey-server")
    assert program, "no redis-server and no valkey-server: run scripts/install_system.sh"
    folder, port = Path(tempfile.mkdtemp(prefix="dspy-live-redis-")), lasting_port()
    server = Server(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], port, folder
    )
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """The address of a Redis or Valkey of the test's own."""
    return f"redis://127.0.0.1:{redis_server.port}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server for the whole session."""
    with running_postgres() as server:
        yield server


@contextmanager
def running_postgres() -> Iterator[Server]:
    """A PostgreSQL server for as long as the block; it refuses to run as root, so that it may run as someone else."""
    folder, port = Path(tempfile.mkdtemp(prefix="dspy-live-postgres-")), lasting_port()
    user = None
    if os.geteuid() == 0:
        user = "postgres" if _exists("postgres") else "nobody"
        shutil.chown(folder, user)
    data = folder / "data"
    initdb, postgres = _program("initdb"), _program("postgres")
    initialise = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"]
    made = subprocess.run(initialise, user=user, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    server = Server([postgres, "-D", str(data), "-p", str(port), *flags], port, folder, user)
    try:
        server._wait(lambda: _serves(port))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The address of an empty database of the test's own."""
    import psycopg

    name = f"test_{os.urandom(6).hex()}"
    base = f"postgresql://postgres@127.0.0.1:{postgres_server.port}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield f"{base}/{name}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=BOUND):
            return True
    except OSError:
        return False


def _serves(port: int) -> bool:
    """True when PostgreSQL has started, which is later than it answers: until then it refuses everybody."""
    import psycopg

    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=round(BOUND)).close()
    except psycopg.OperationalError:
        return False
    return True


def _program(name: str) -> str:
    found = shutil.which(name)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found or installed, f"no {name}: run scripts/install_system.sh"
    return found or str(installed[-1])


def _exists(user: str) -> bool:
    import pwd

    return any(entry.pw_name == user for entry in pwd.getpwall())
