"""Where a server listens, and who can reach it there."""

from __future__ import annotations

import socket

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.transport.address import is_loopback, listen, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"])
def test_addresses_that_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test", "localhost.example", ""])
def test_addresses_that_others_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "bound"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")]
)
def test_it_listens_at_once_and_children_inherit_it(host: str, bound: str) -> None:
    with listen(host, 0) as listener:
        name, port = listener.getsockname()
        assert name == bound
        assert url_of(listener) == f"http://{bound}:{port}"
        assert url_of(listener, tls=True) == f"https://{bound}:{port}"
        assert listener.get_inheritable()
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_with_and_without_brackets(host: str) -> None:
    with listen(host, 0) as listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_a_port_in_use_says_so() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1 port {port}: .*in use; take another"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        ("127.0.0.1", 99_999, "from 0 to 65535; got 99999"),
        ("127.0.0.1", -1, "from 0 to 65535; got -1"),
        ("no such host", 0, "'no such host' is no address to listen on"),
        ("a..b", 0, "no address to listen on"),
        ("192.0.2.1", 0, "can't listen on 192"),
    ],
)
def test_an_address_that_is_none_is_told(host: str, port: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        listen(host, port)
