"""Hosts on one machine: each is a network namespace with an address of its own, and a bridge joins them.

    with Network() as network:
        client, server = network.host("client", wired=True), network.host("server")
        server.start(["python", "-m", "http.server"])
        with client.inside():
            urllib.request.urlopen(f"http://{server.address}:8000")
        server.unplug()

It takes root and Linux. A namespace outlives its maker, so that names carry the maker's process id, and those that a
killed process has left behind are removed by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.network.wire import Wire

NAMESPACES = Path("/run/netns")
PREFIX = "dspy-live"
_NETWORKS = itertools.count(1)
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_ENDS_WITH_ITS_PARENT = ("setpriv", "--pdeathsig", "KILL")


class NoNamespaces(AssertionError):
    """This machine, or this user, has no network namespaces."""


class Host:
    """One namespace. ``address`` is its IPv4 address, ``wire`` its cable where it was made with ``wired=True``."""

    def __init__(self, network: Network, name: str, number: int, wired: bool) -> None:
        self.name = name
        self.address = f"10.0.0.{number}"
        self.mac = f"02:00:00:00:00:{number:02x}"
        self.namespace = network.namespace(name)
        self.wire: Wire | None = None
        self._network = network
        self._processes: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", self.namespace)
        if wired:
            with _inside(self.namespace):
                end = Wire.tap("eth0")
            with _inside(network.switch):
                self.wire = Wire(end, Wire.tap(name))
            ip("-n", self.namespace, "link", "set", "eth0", "address", self.mac)
        else:
            peer = ["peer", "name", "eth0", "netns", self.namespace, "address", self.mac]
            ip("-n", network.switch, "link", "add", name, "type", "veth", *peer)
        ip("-n", network.switch, "link", "set", name, "master", "bridge", "up")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and the threads and processes that it starts meanwhile, open their sockets on this host."""
        with _inside(self.namespace):
            yield

    def start(
        self,
        command: Sequence[str],
        *,
        log: IO[bytes] | None = None,
        user: str | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process on this host, from the main thread; it is killed with the network, or with this process."""
        with self.inside():
            process = subprocess.Popen(
                [*_ENDS_WITH_ITS_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                user=user,
                env=environ,
                cwd=cwd,
            )
        self._processes.append(process)
        return process

    def set(self, **values: int | str) -> None:
        """Set properties of TCP on this host: ``tcp_retries2=8`` is ``sysctl net.ipv4.tcp_retries2=8``."""
        with self.inside():
            for name, value in values.items():
                Path(f"/proc/sys/net/ipv4/{name}").write_text(f"{value}\n")

    def unplug(self) -> None:
        """Pull its cable out at the switch: nothing goes in or out, and nobody is told."""
        ip("-n", self._network.switch, "link", "set", self.name, "down")

    def plug_in(self) -> None:
        """Put its cable back."""
        ip("-n", self._network.switch, "link", "set", self.name, "up")

    def cut_off(self, *others: Host) -> None:
        """Let nothing pass between this host, which is wired, and ``others``; without any, it reaches everybody."""
        assert self.wire is not None, f"{self.name} was not made with wired=True"
        self.wire.deaf_to({bytes.fromhex(other.mac.replace(":", "")) for other in others})

    def close(self) -> None:
        """Kill its processes, and remove it."""
        for process in self._processes:
            process.kill()
            process.wait()
        if self.wire is not None:
            self.wire.close()
        ip("netns", "del", self.namespace)


class Network:
    """Hosts around a switch, for as long as the block; nothing of it is left afterwards."""

    def __init__(self) -> None:
        self._hosts: list[Host] = []
        self._number = 0
        self._name = f"{PREFIX}-{os.getpid()}-{next(_NETWORKS)}"
        self.switch = self.namespace("switch")

    def namespace(self, name: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._name}-{name}"

    def host(self, name: str, *, wired: bool = False) -> Host:
        """Add a host; ``name`` has 15 characters at most. A wired one's cable can be made bad."""
        self._number += 1
        host = Host(self, name, self._number, wired)
        self._hosts.append(host)
        return host

    def __enter__(self) -> Network:
        _remove_left_behind()
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "up", "type", "bridge")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:  # every one of them, though one should fail
            stack.callback(ip, "netns", "del", self.switch)
            for host in self._hosts:
                stack.callback(host.close)


def ip(*words: str) -> None:
    """Run ``ip``. Raises :class:`NoNamespaces` with its own words where it fails."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoNamespaces("no program 'ip': bash scripts/install_system.sh installs it") from None
    if done.returncode:
        hint = "" if os.geteuid() == 0 else "; network namespaces take root: run these tests with sudo"
        raise NoNamespaces(f"ip {' '.join(words)}: {done.stderr.strip()}{hint}")


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


def _enter(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise NoNamespaces(f"setns: {os.strerror(error)}")


def _remove_left_behind() -> None:
    for path in NAMESPACES.glob(f"{PREFIX}-*"):
        found = re.fullmatch(rf"{PREFIX}-(\d+)-.+", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with contextlib.suppress(NoNamespaces):  # another one has removed it meanwhile
                ip("netns", "del", path.name)
