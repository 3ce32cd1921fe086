"""Takes secrets out of text: always, before it is written anywhere."""

from __future__ import annotations

import re

HIDDEN = "[redacted]"

# Every repetition is bounded: a log line may be anything, of any length, and must cost linear time.
_NAMES = (
    r"(?:(?:api|access|secret|private)[_-]?key|(?:auth|access|refresh|id)[_-]?token|client[_-]?secret|password|passwd"
    r"|authorization|cookie|secret)"
)
_QUOTE = r"(?:\\{0,8}[\"'])"
_VALUE = (
    r"(?:(?P<quote>\\{0,8}[\"'])(?:(?!(?P=quote))(?:\\.|.)){0,4000}?(?P=quote)|(?:bearer|basic)\s{1,3}[^\s,;&)\]}\"']{1,4000}"
    r"|[^\s,;&)\]}\"']{1,4000})"
)
_SECRETS = re.compile(
    # api_key=abc, "api_key": "abc", Authorization: Bearer abc, X-Api-Key: abc, and all of it quoted inside JSON
    rf"(?P<named>{_NAMES}{_QUOTE}?\s{{0,3}}[=:]\s{{0,3}}){_VALUE}"
    # Bearer abc…, Basic abc…
    r"|(?P<scheme>\b(?:bearer|basic)\s{1,3})[\w\-.~+/=]{6,}"
    # https://user:password@host
    r"|(?P<login>://[^\s:/@]{0,100}:)[^\s@/]{1,200}(?=@)"
    # keys that are known by their shape
    r"|\b(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|AKIA|ASIA|AIza|ghp|gho|ghs|github_pat|glpat|xox[abpr])[-_]?"
    r"(?=[\w-]{0,60}\d)[A-Za-z0-9][\w-]{14,}",
    re.IGNORECASE | re.DOTALL,
)


def redact(text: str) -> str:
    """Return ``text`` with what looks like a key, a token, a password or a login put out of sight.

    Known are the shapes of common providers' keys (``sk-…``, ``AIza…``, ``hf_…``), ``Bearer …`` and ``Basic …``,
    values beside names such as ``api_key``, ``password`` or ``Authorization``, and passwords in addresses.
    """
    return _SECRETS.sub(_hide, text)


def _hide(match: re.Match[str]) -> str:
    kept = match["named"] or match["scheme"] or match["login"] or ""
    quote = match["quote"] or ""  # a line of JSON stays a line of JSON
    return f"{kept}{quote}{HIDDEN}{quote}"
