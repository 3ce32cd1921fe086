"""Where the LM's settings come from: flags, the configuration file, the environment, ``.env``."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile

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
    file: ConfigFile | None = None,
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
    table = _table(file)
    variables = {name: environ.get(variable) for name, variable in _ENVIRONMENT.items()}

    merged: dict[str, Any] = {}
    for source in (flags, table, variables):
        for name, value in source.items():
            if value not in (None, ""):
                merged.setdefault(name, value)
    model = merged.pop("model", None)
    if model is None and (api_base or table) and not simulate:
        raise ConfigurationError("an API base or LM options without a model: add --lm, such as --lm openai/NAME")
    if model is not None and "/" not in model and merged.get("api_base"):
        model = f"openai/{model}"  # an endpoint at an address of one's own speaks OpenAI's protocol
    return LMSettings(
        model=model,
        options=merged,
        explicit=bool(lm or table.get("model")),
        source=_source(
            lm, str(file.path) if file is not None and table.get("model") else "", _ENVIRONMENT["model"] in loaded
        ),
        simulate=simulate,
    )


def _source(lm: str | None, file: str, from_dotenv: bool) -> str:
    if lm:
        return "--lm"
    return file or (".env" if from_dotenv else _ENVIRONMENT["model"])


def _table(file: ConfigFile | None) -> dict[str, Any]:
    """Return the table ``[lm]`` of a configuration, as keywords of an LM."""
    if file is None or file.config.lm is None:
        return {}
    from dspy_live.loading.config.lms import lm_options

    table = file.config.lm
    options = lm_options(table, file)
    return options if table.model is None else {"model": table.model, **options}


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
