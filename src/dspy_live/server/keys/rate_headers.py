"""The headers ``X-RateLimit-…``, by which clients keep to a limit before it refuses them."""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]


def rate_limit_headers(limit: float, remaining: float, reset: float) -> Headers:
    """Return the three headers; the reset is in seconds from now, rounded up, as in the IETF's draft of RateLimit."""
    seconds = -int(-reset // 1)
    return [
        (b"x-ratelimit-limit", b"%g" % limit if limit < 1 else b"%d" % limit),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % seconds),
    ]
