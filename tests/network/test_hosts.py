"""The hosts of the tests: nothing of them is left, and their cables do what they are told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from tests.network.namespaces import NAMESPACES, PREFIX, Host, Network, NoNamespaces, ip
from tests.support.until import until


def connects(one: Host, other: Host, seconds: float = 0.5) -> bool:
    """True where a connection from one host to a listening socket of the other one stands in time."""
    with other.inside():
        listener = socket.create_server((other.address, 0))
    with listener, one.inside():
        try:
            socket.create_connection(listener.getsockname(), timeout=seconds).close()
        except OSError:
            return False
    return True


def reach(one: Host, other: Host) -> None:
    """Wait until one host reaches the other one: a packet may be lost, and sent again a second later."""
    until(lambda: connects(one, other, seconds=5))


def test_a_cable_is_pulled_out_and_put_back_and_a_wired_host_is_cut_off_from_one_other() -> None:
    with Network() as network:
        wired, near, far = network.host("wired", wired=True), network.host("near"), network.host("far")
        for pair in ((wired, near), (near, wired), (near, far)):
            reach(*pair)
        near.unplug()
        assert not any(connects(*pair) for pair in ((wired, near), (far, near)))
        near.plug_in()
        wired.cut_off(far)
        reach(wired, near)
        assert not any(connects(*pair) for pair in ((wired, far), (far, wired)))
        wired.cut_off()
        reach(wired, far)


def test_nothing_is_left_of_a_network_that_failed() -> None:
    started = []

    def fail(network: Network) -> None:
        started.append(network.host("doomed", wired=True).start(["sleep", "1000"]))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), Network() as network:
        fail(network)
    assert started[0].poll() is not None
    assert not list(NAMESPACES.glob(f"{PREFIX}-{os.getpid()}-*-doomed"))


def test_what_a_killed_process_has_left_behind_is_removed_by_the_next_one() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ip("netns", "add", f"{PREFIX}-{dead.pid}-1-one")
    with Network():
        pass
    assert not list(NAMESPACES.glob(f"{PREFIX}-{dead.pid}-*"))


def test_a_machine_without_namespaces_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoNamespaces, match="install_system"), Network():
        pass
