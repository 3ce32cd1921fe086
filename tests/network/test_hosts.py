"""The hosts of the tests: nothing of them is left, and their cables do what they are told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from tests.network.namespaces import NAMESPACES, PREFIX, Host, Network, NoNamespaces, ip


def reaches(one: Host, other: Host) -> bool:
    """True where a connection from one host to a listening socket of the other one stands."""
    with other.inside():
        listener = socket.create_server((other.address, 0))
    with listener, one.inside():
        try:
            socket.create_connection(listener.getsockname(), timeout=0.5).close()
        except OSError:
            return False
    return True


def test_a_cable_is_pulled_out_and_put_back_and_a_wired_host_is_cut_off_from_one_other() -> None:
    with Network() as network:
        wired, near, far = network.host("wired", wired=True), network.host("near"), network.host("far")
        assert all(reaches(*pair) for pair in ((wired, near), (near, wired), (near, far)))
        near.unplug()
        assert not any(reaches(*pair) for pair in ((wired, near), (far, near)))
        near.plug_in()
        wired.cut_off(far)
        assert reaches(wired, near)
        assert not any(reaches(*pair) for pair in ((wired, far), (far, wired)))
        wired.cut_off()
        assert reaches(wired, far)


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
