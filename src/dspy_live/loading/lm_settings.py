"""Where the LM's settings come from: flags, a TOML file, the environment, ``.env``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from dspy_live.core.errors import ConfigurationError

_ENVIRONMENT = {"model": "DSPY_LIVE_LM", "api_base": "DSPY_LIVE_API_BASE", "api_key": "DSPY_LIVE_API_KEY"}


@dataclass(frozen=True, slots=True)
class LMSettings:
    """The LM's settings, from all sources together.

    Args:
        model: the model's name, or ``None`` when no source gives one.
        options: every other keyword of the LM: ``api_base``, ``api_key``, ``temperature``, …
        explicit: true when a flag or the file named the model: it then goes before the target's own.
        source: the flag, file or variable that named the model, for people.
        simulate: ``--sim`` was given: answer from the simulated LM, whatever else is configured.
    """

    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    explicit: bool = False
    source: str = ""
    simulate: bool = False


def read_settings(
    *,
    lm: str | None = None,
    api_base: str | None = None,
    api_key: str | None = None,
    config: Path | None = None,
    simulate: bool = False,
    environ: MutableMapping[str, str] | None = None,
    dotenv: Path | None = None,
) -> LMSettings:
    """Put the sources together; for each setting the first of flags, file, environment, ``.env`` wins.

    Variables of ``.env`` (in the working folder, or at ``dotenv``) that the environment does not have are put
    into the environment too, for the provider's own keys.

    Raises :class:`ConfigurationError` for a file that can't be read and for settings without a model.
    """
    environ = os.environ if environ is None else environ
    dotenv = Path(".env") if dotenv is None else dotenv
    loaded = load_dotenv(dotenv, environ)
    flags = {"model": lm, "api_base": api_base, "api_key": api_key}
    file = _read_file(config, environ) if config is not None else {}
    variables = {name: environ.get(variable) for name, variable in _ENVIRONMENT.items()}

    merged: dict[str, Any] = {}
    for source in (flags, file, variables):
        for name, value in source.items():
            if value not in (None, ""):
                merged.setdefault(name, value)
    model = merged.pop("model", None)
    if model is None and (api_base or file) and not simulate:
        raise ConfigurationError("an API base or LM options without a model: add --lm, such as --lm openai/NAME")
    if model is not None and "/" not in model and merged.get("api_base"):
        model = f"openai/{model}"  # an endpoint at an address of one's own speaks OpenAI's protocol
    return LMSettings(
        model=model,
        options=merged,
        explicit=bool(lm or file.get("model")),
        source=_source(lm, file, config, _ENVIRONMENT["model"] in loaded),
        simulate=simulate,
    )


def _source(lm: str | None, file: Mapping[str, Any], config: Path | None, from_dotenv: bool) -> str:
    if lm:
        return "--lm"
    if file.get("model"):
        return str(config)
    return ".env" if from_dotenv else _ENVIRONMENT["model"]


def _read_file(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise ConfigurationError(f"can't read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} is not valid TOML: {exc}") from exc
    unknown = sorted(set(data) - {"lm"})
    if unknown:
        raise ConfigurationError(f"{path}: unknown {unknown[0]!r}; it may have one table, [lm]")
    table = data.get("lm", {})
    if not isinstance(table, dict):
        raise ConfigurationError(f'{path}: lm must be a table: [lm] and model = "openai/NAME" below it')
    found = dict(table)
    _check_types(found, path)
    if (variable := found.pop("api_key_env", None)) is not None:
        if not environ.get(str(variable)):
            raise ConfigurationError(f"{path}: api_key_env names {variable}, which is not set")
        found["api_key"] = environ[str(variable)]
    return found


def _check_types(table: Mapping[str, Any], path: Path) -> None:
    from dspy_live.server.routes.inputs import CONFIG_OPTIONS

    for name, value in table.items():
        if name in ("model", "api_base", "api_key", "api_key_env") and not isinstance(value, str):
            raise ConfigurationError(f"{path}: {name} must be a string; got {value!r}")
        expected, fits = CONFIG_OPTIONS.get(name, ("", None))
        if fits is not None and not fits(value):
            raise ConfigurationError(f"{path}: {name} must be {expected}; got {value!r}")


def load_dotenv(path: Path, environ: MutableMapping[str, str]) -> set[str]:
    """Set the variables of ``path`` that ``environ`` does not have; return the names that now have its value.

    The format is python-dotenv's: one ``NAME=value`` per line, ``export`` before it allowed; ``#`` begins a comment;
    quotes keep blanks and ``#``, and in double quotes ``\\n`` is a line break. Nothing is expanded. A line of any other
    form is left out, with a warning. A missing file defines nothing.
    """
    try:
        defined = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"can't read {path}: {exc}") from exc
    done: set[str] = set()
    for name, value in defined.items():
        if value is not None and name.isidentifier() and environ.setdefault(name, value) == value:
            done.add(name)
    return done
