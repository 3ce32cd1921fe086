"""Make the client of a Redis or Valkey server; an address that can't be is refused before anybody connects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.redis_address import checked_address

T = TypeVar("T")


def connected(make: Callable[..., T], url: str, **options: Any) -> T:
    """Return the client that ``make`` returns for an address and these options; nothing is connected yet.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for an address, or an option in it, that can't be.
    """
    from redis.exceptions import RedisError

    checked_address(url)
    try:
        client: Any = make(url, **options)
        client.connection_pool.make_connection()  # not opened: only made, which looks at the options of the address
    except TypeError as exc:
        option = str(exc).rpartition(" ")[2]  # "… got an unexpected keyword argument 'x'"
        raise ConfigurationError(
            f"that is no address of a Redis or Valkey server: there is no option {option} that could stand after '?'"
        ) from None
    except (RedisError, ValueError) as exc:
        raise ConfigurationError(f"that is no address of a Redis or Valkey server: {exc}") from None
    return client  # type: ignore[no-any-return]
