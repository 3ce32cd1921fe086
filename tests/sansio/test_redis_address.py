"""What can be the address of a Redis or Valkey server, and that no message shows a part of it."""

from __future__ import annotations

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.redis_address import checked_address


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://user:p%2Fw@h:6379/0",
        "redis://[::1]:6379/",
        "rediss://h?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_addresses_that_can_be(url: str) -> None:
    assert checked_address(url) == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "begin with redis://"),
        ("REDIS://h", "begin with redis://"),
        (" redis://h", "begin with redis://"),
        ("redis://h ", "a space"),
        ("redis://h\0x", "a control character"),
        ("redis://[::1", "can't be read"),
        ("redis://h:99999", "can't be read"),
        ("redis://:hush/hush@h:1", "write / as %2F"),
        ("redis://hush#hush", "write %23"),
        ("redis://h/hush", "the number of a database"),
        ("redis://h/2/3", "the number of a database"),
        ("redis://h/-1", "the number of a database"),
        ("unix://", "must name a socket"),
        ("redis://h?decode_responses=true", "decode_responses can't be chosen"),
    ],
)
def test_addresses_that_cannot_be_are_told_without_their_text(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        checked_address(url)
    assert says in raised.value.message
    assert "hush" not in raised.value.message
