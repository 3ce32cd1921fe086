"""Takes secrets out of text: always, before it is written anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence

HIDDEN = "[redacted]"
MAX_SECRET = 5_000
"""Characters within which a secret is recognised: to keep the first n of a text, search n and these, then cut."""

# Every repetition is bounded: a log line may be anything, of any length, and must cost linear time.
_NAMES = (
    r"(?:api[ _-]?keys?(?:[_-]?\d|\ provided)?|(?:access|secret|private|account|subscription)[_-]?keys?"
    r"|(?:auth|access|refresh|id|session|security)[_-]?token|shared[_-]?access[_-]?signature|client[_-]?secrets?"
    r"|passwords?|passwd|passphrase|secrets?|(?P<authorization>authorization)|(?P<cookie>cookie)"
    r"|(?P<login>credentials?|auth(?=\\{0,8}[\"']\s{0,3}:|\s{0,3}=))"
    r"|(?P<variable>(?-i:[A-Z\d]_(?:KEY|TOKEN|SECRET)S?)(?=\\{0,8}[\"']?\s{0,3}[=:])))"
)
_QUOTE = r"(?:\\{0,8}[\"'])"
# A backslash before a quote belongs to the quote: a line of JSON stays one.
_BARE = r"(?:[^\s,;&()\[\]{}\"'\x1b\\]|\\(?!\\{0,8}[\"']))"
_WORD = r"(?:[^\s\"'\x1b\\]|\\(?!\\{0,8}[\"']))"  # the value of an environment variable may have any sign
_PREFIX = rf"(?:[bru]{{1,2}}(?!{_QUOTE}\s{{0,3}}(?:[,}}\]]|$)))?"  # b"abc"; in "key=b", the quote is the sentence's
_COLOURS = r"(?:\x1b\[[\d;]{0,8}m){0,4}"  # a terminal's, around names and values
# Of a word, be it coloured, after a line break as JSON writes it, or after a sign as an address writes it.
_START = r"(?:\b|(?<=\dm)|(?<=\\[nrtbf])|(?<=%[\dA-Fa-f]{2}))"
_OPAQUE = r"(?=[\w%+/=.~-]{0,100}\d)[\w%+/=.~-]{16,4000}"
_TYPE = r"(?:\s{0,3}:\s{0,3}[A-Za-z][\w.\[\] |]{0,40}(?=\s{0,3}=\s{0,3}[\w.(]{0,40}[\"']))"
_FLAGS = re.IGNORECASE | re.DOTALL


def _quoted(name: str) -> str:
    return rf"(?P<{name}>{_QUOTE})(?:(?!(?P={name}))(?:\\.|[^\\])){{0,4000}}?(?P={name})"


# api_key=abc, "api_key": "abc", Authorization: Bearer abc, X-Api-Key: abc, api_key: str = "abc", {b"api_key": b"abc"},
# "api_key": ["abc"], api_key=SecretStr("abc"), Cookie: a=1; b=2, and all of it quoted inside JSON
_NAMED = re.compile(
    rf"(?P<kept>{_NAMES}(?P<closing>{_QUOTE})?{_TYPE}?"
    rf"{_COLOURS}\s{{0,3}}[=:]\s{{0,3}}{_COLOURS})"
    rf"(?:(?(login)[\w.]{{0,40}}\([^()]{{1,2000}}\)|(?!))"
    rf"|(?P<before>(?:[\w.]{{1,40}}\(\s{{0,3}})?{_PREFIX}){_quoted('quote')}"
    r"|\[[^\[\]]{1,2000}\]|\{[^{}]{1,2000}\}"
    r"|(?!(?:none|null|true|false)\b)"
    rf"(?:(?(variable)(?(closing)(?!)|{_WORD}{{1,4000}})|(?!))"
    rf"|(?(authorization)[a-z][\w-]{{0,30}}\s{{1,3}}|(?:bearer|basic)\s{{1,3}}){_BARE}{{1,4000}}"
    rf"|(?(cookie)[^\s=;,\"']{{1,200}}=[^\s;,\"']{{0,4000}}(?:;\s?[^\s=;,\"']{{1,200}}=[^\s;,\"']{{0,4000}}){{0,50}}|(?!))"
    rf"|{_BARE}{{1,4000}}))",
    _FLAGS,
)
# ("x-api-key", "abc"), as lists of headers have it
_PAIRS = re.compile(
    rf"(?P<kept>[(\[]\s{{0,3}}b?(?P<around>{_QUOTE})[\w-]{{0,30}}?{_NAMES}(?P=around),\s{{0,3}}b?){_quoted('quote')}"
    r"(?=\s{0,3}[)\]])",
    _FLAGS,
)
# Names with other meanings too, beside a value that can only be a key: token=…, ?key=…, ?sig=…, ;PWD=…, --password …
_WEAK = re.compile(
    rf"(?P<kept>(?:{_START}|(?<=[a-z\d]_))token{_QUOTE}?{_COLOURS}\s{{0,3}}[=:]\s{{0,3}}{_COLOURS}{_QUOTE}?"
    rf"|[?&](?:key|sig|x-amz-signature)=){_OPAQUE}"
    r"|(?P<connection>;\s?pwd=)[^;\s\"']{1,200}"
    rf"|(?P<option>--[\w-]{{0,30}}?(?:key|password|secret|token)(?:\s{{1,3}}|{_QUOTE},\s{{0,3}}{_QUOTE}))"
    r"(?=[^\s\"']{0,100}\d)[^\s\"',]{8,4000}",
    _FLAGS,
)
_BEARER = re.compile(rf"(?P<kept>{_START}bearer\s{{1,3}})[\w\-.~+/=]{{6,}}", re.IGNORECASE)
_BASIC = re.compile(rf"(?P<kept>{_START}basic\s{{1,3}})(?P<login>[\w\-+/]{{4,}}={{0,2}})", re.IGNORECASE)
# https://user:password@host, https://token@host
_LOGIN = re.compile(
    rf"(?P<kept>://(?:[^\s:/@]{{0,100}}:(?=[^\s/\"'<>]{{1,200}}@)|(?={_OPAQUE}@)))[^\s/\"'<>]{{1,4000}}(?=@)"
)
_PEM = re.compile(r"(?P<kept>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?:\\{1,8}[nr]|[A-Za-z0-9+/=\s]){1,20000}")
# Keys that are known by their shape. Where other words begin alike, a key has a digit or a long run without a hyphen.
_LONG_RUN = r"[\w-]{0,16}[A-Za-z0-9]{20}"
_SHAPES = re.compile(
    rf"{_START}(?:"
    r"(?:(?:sk|pk|rk|r8|hf|gsk|gh[pousr]|github_pat)[-_]|(?:xai|nvapi|xox[abeprs]|GOCSPX)-|ya29\.)"
    rf"(?:(?=[\w-]{{0,60}}\d)|(?={_LONG_RUN}))[A-Za-z0-9][\w-]{{14,}}"
    r"|(?:(?:pplx|csk|tvly(?:-dev|-prod)?|pypi)-|(?:hf|fw|jina|npm|e2b)_)(?=[A-Za-z0-9]{16})[\w-]{16,}"
    r"|(?:lsv2_|pcsk_|tvly-)[\w-]{16,}|(?:glpat-|SG\.)[\w-]{16,}(?:\.[\w-]{1,100}){0,3}"
    r"|AIza[\w-]{16,}|ABSK[A-Za-z0-9+/]{20,}={0,2}|(?:AKIA|ASIA)[A-Z0-9]{12,}|dapi[0-9a-f]{32}"
    r"|eyJ[\w-]{8,400}\.[\w-]{8,4000}(?:\.[\w-]{1,4000})?)"
)


def redact(text: str) -> str:
    """Return ``text`` without its keys, tokens, passwords and logins.

    Known are the shapes of common providers' keys (``sk-…``, ``AIza…``, ``hf_…``, ``AKIA…``), JSON web tokens and
    private keys in PEM, ``Bearer …`` and ``Basic …``, values beside names such as ``api_key``, ``password``,
    ``Authorization``, ``auth=``, ``credentials`` or ``Cookie``, in headers, options and addresses too, those of
    variables in capitals that end in ``_KEY``, ``_TOKEN`` or ``_SECRET``, and passwords in addresses. A line of JSON
    stays one. A key without a name or a known shape is not recognised.
    """
    lowered = text.lower()
    if _ANY_WORD.search(lowered) is None:
        return text
    for words, pattern, replace in _STEPS:
        if any(word in lowered for word in words):
            text = pattern.sub(replace, text)
    return text


def _hide_named(match: re.Match[str]) -> str:
    # A number or a list gets the quotes of its name: a line of JSON stays a line of JSON.
    quote = match["quote"] or match["closing"] or ""
    return f"{match['kept']}{match['before'] or ''}{quote}{HIDDEN}{quote}"


def _hide_pair(match: re.Match[str]) -> str:
    return f"{match['kept']}{match['quote']}{HIDDEN}{match['quote']}"


def _hide_weak(match: re.Match[str]) -> str:
    return f"{match['kept'] or match['connection'] or match['option']}{HIDDEN}"


def _hide_basic(match: re.Match[str]) -> str:
    """Hide a name and its password only, so that "basic questions" stay as they are."""
    login = match["login"].rstrip("=").replace("-", "+").replace("_", "/")
    decoded = base64.b64decode(login[: len(login) - (len(login) % 4 == 1)] + "===")
    return f"{match['kept']}{HIDDEN}" if b":" in decoded else match[0]


def _hide_rest(match: re.Match[str]) -> str:
    return f"{match['kept']}{HIDDEN}"


_NAMING = (
    "key",
    "token",
    "secret",
    "passw",
    "passphrase",
    "authorization",
    "cookie",
    "signature",
    "credential",
    "auth",
)
_MEANT = ("token", "key", "sig", "pwd", "password", "secret")
_SHAPED = (
    "sk- sk_ pk- pk_ rk- rk_ r8- r8_ hf- hf_ gsk gh xai- nvapi- glpat- xox gocspx- ya29. aiza akia asia dapi eyj"
    " pplx- tvly- pypi- fw_ jina_ npm_ e2b_ lsv2_ pcsk_ sg. absk"
).split()
# A pattern is tried only on a line that has one of its words: most lines have none.
_STEPS: list[tuple[Sequence[str], re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (("private key-----",), _PEM, _hide_rest),
    (_NAMING, _NAMED, _hide_named),
    (_NAMING, _PAIRS, _hide_pair),
    (_MEANT, _WEAK, _hide_weak),
    (("bearer",), _BEARER, _hide_rest),
    (("basic",), _BASIC, _hide_basic),
    (("://",), _LOGIN, _hide_rest),
    (_SHAPED, _SHAPES, lambda _: HIDDEN),
]
_ANY_WORD = re.compile("|".join(sorted({re.escape(word) for words, _, _ in _STEPS for word in words})))
