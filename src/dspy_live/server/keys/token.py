"""Make keys, and the hashes that they are kept as.

A key is 256 random bits, so nobody finds it by trying, whatever the hash costs. A slow hash such as scrypt protects
passwords, which people choose and which can be guessed; here it would only make every request cost as much as an
attack. A salt hides that two people have chosen the same password; no two keys are the same. So the hash is SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "sk-dl-"
"""Begins each key, so that people, log filters and scanners of repositories know it for one."""

LEAST = 24
"""Characters of a key that someone has made elsewhere: fewer can be guessed, for the hash is a quick one."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def make_key() -> str:
    """Return a new key: the prefix, and 256 random bits in 43 characters."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Return the hash that a key is kept and found by: ``sha256:`` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def is_digest(text: str) -> bool:
    """True for what :func:`digest_of` returns."""
    return _DIGEST.fullmatch(text) is not None
