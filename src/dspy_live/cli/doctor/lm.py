"""The LM: is it named, has it a key, does its endpoint answer?"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from dspy_live.cli.doctor.finding import Finding
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import LMSettings

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile

_OPENAI = "https://api.openai.com/v1"
_SECONDS = 5.0
_MOST = 1_000_000
_KEYLESS = frozenset({"ollama", "ollama_chat", "vllm", "hosted_vllm", "llamafile", "lm_studio"})


class Answer(NamedTuple):
    """What an endpoint says to the question for its models."""

    status: int
    models: list[str]
    date: float | None
    failure: str = ""


def named(settings: LMSettings) -> Iterator[Finding]:
    """Say which LM commands ask, and whether its key is there."""
    if settings.simulate:
        yield Finding("note", "lm", "the simulated LM (--sim)", "leave --sim out for a real one")
        return
    if settings.model is None:
        do = "name one: model in [lm] of dspy-live.toml, --lm, or DSPY_LIVE_LM in .env"
        yield Finding("note", "lm", f"none: commands use the simulated LM{_keys_there()}", do)
        return
    yield Finding("ok", "lm", f"{settings.model} ({settings.source})")
    yield _key(settings)


def further(file: ConfigFile, network: bool) -> Iterator[Finding]:
    """Say the same of each LM of ``[lms]``, which programs name and others fall back to."""
    from dspy_live.loading.config.layers import LayerMaker
    from dspy_live.loading.config.lms import LMs

    lms = LMs(file, LayerMaker())
    for name in file.config.lms:
        settings = lms.settings(name)
        found = list(named(settings))
        if network and (answered := asked(settings)[0]) is not None:
            found.append(answered)
        for one in found:
            yield one._replace(name=f"{one.name} {name}", do=one.do.replace("[lm]", f"[lms.{name}]"))


def asked(settings: LMSettings) -> tuple[Finding | None, float | None]:
    """Ask the LM's endpoint for its list of models, which costs nothing. Returns its clock too, in Unix seconds.

    ``None``: it is not known how to ask it.
    """
    base = settings.options.get("api_base") or _base(settings.model)
    if settings.model is None or settings.simulate or base is None:
        return None, None
    url = str(base).rstrip("/") + "/models"
    answer = _models(url, settings.options.get("api_key") or os.environ.get(_variable(settings.model)))
    return _told(settings.model, url, answer), answer.date


def _told(model: str, url: str, answer: Answer) -> Finding:
    if answer.failure:
        do = "is it running? Are api_base, proxies and the firewall right?"
        return Finding("bad", "endpoint", f"{url} does not answer: {answer.failure}", do)
    if answer.status in (401, 403):
        return Finding("bad", "endpoint", f"{url} refuses the key ({answer.status})", "give another key: api_key_env")
    if answer.status != 200:
        return Finding("note", "endpoint", f"{url} answers {answer.status}", "it may have no such list; try a run")
    name = model.partition("/")[2] or model
    if answer.models and name not in answer.models:
        from difflib import get_close_matches

        near = get_close_matches(name, answer.models, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(answer.models[:5])}"
        return Finding(
            "note", "endpoint", f"{url} answers, and lists no {name!r}{hint}", "set model to one that it has"
        )
    return Finding("ok", "endpoint", f"{url} answers")


def _models(url: str, key: Any) -> Answer:
    headers = {"User-Agent": "dspy-live doctor"}
    if isinstance(key, str) and key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
            return Answer(reply.status, _names(reply.read(_MOST)), _date(reply.headers))
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, [], _date(exc.headers))
    except (OSError, ValueError) as exc:
        return Answer(0, [], None, str(getattr(exc, "reason", None) or exc))


def _names(body: bytes) -> list[str]:
    try:
        return [str(one["id"]) for one in orjson.loads(body)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []


def _date(headers: Message) -> float | None:
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _key(settings: LMSettings) -> Finding:
    assert settings.model is not None
    variable = _variable(settings.model)
    if settings.options.get("api_key"):
        return Finding("ok", "key", "named by the settings")
    if os.environ.get(variable):
        return Finding("ok", "key", f"{variable} is set")
    if settings.options.get("api_base") or settings.model.partition("/")[0] in _KEYLESS:
        return Finding("note", "key", f"none ({variable} is not set)", "an endpoint of your own may need none")
    return Finding("bad", "key", f"{variable} is not set", f"set {variable} in .env, or api_key_env in [lm]")


def _base(model: str | None) -> str | None:
    """Return the address of OpenAI's own models; those of others are not guessed."""
    if model is None or not model.startswith("openai/"):
        return None
    return os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL") or _OPENAI


def _variable(model: str) -> str:
    provider = model.partition("/")[0] if "/" in model else "openai"
    return f"{provider.upper().replace('-', '_')}_API_KEY"


def _keys_there() -> str:
    there = [name for name in sorted(os.environ) if name.endswith("_API_KEY") and os.environ[name]]
    return f" ({there[0]} is set, but no model is named)" if there else ""


def settings_or_finding(read: Any) -> LMSettings | Finding:
    """Return the settings that ``read()`` returns, or what is wrong with them."""
    try:
        found: LMSettings = read()
        return found
    except ConfigurationError as exc:
        return Finding("bad", "lm", exc.message.replace("\n", " "), "mend the flag, the file or the variable it names")
