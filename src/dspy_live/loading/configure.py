"""Choose the LM that a loaded program asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_live.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ChosenLM:
    """The LM that a program asks; ``label`` is its name and the place that names it, for people."""

    label: str
    simulated: bool = False


def configure(
    program: Any,
    *,
    simulated: Callable[[], Any],
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    explicit: bool = False,
    source: str = "",
    simulate: bool = False,
) -> ChosenLM:
    """Give the program an LM: the process's default, set with ``dspy.configure``.

    The first of these that applies: ``simulate``, which replaces every LM, a predictor's own too; an
    ``explicit`` model; the LM that the program's own code has configured; ``model``; the simulated LM.

    Args:
        program: a ``dspy.Module``.
        simulated: makes the simulated LM.
        model: the model's name, with ``options`` as the LM's other keywords.
        explicit: whether the model goes before the program's own.
        source: where the model's name was found, for the label.
        simulate: answer from the simulated LM in any case.

    Raises :class:`ConfigurationError` when the LM can't be made.
    """
    if simulate:
        lm = simulated()
        dspy.configure(lm=lm)
        program.set_lm(lm)
        return ChosenLM("the simulated LM (--sim)", simulated=True)
    if explicit and model:
        return _configured(model, options or {}, source)
    own = _own(program)
    if own:
        return own
    if model:
        return _configured(model, options or {}, source)
    dspy.configure(lm=simulated())
    return ChosenLM("the simulated LM", simulated=True)


def current_settings() -> dict[str, Any]:
    """Return the current LM and adapter, to be pinned to a program that shares its process with others."""
    return {"lm": dspy.settings.lm, "adapter": dspy.settings.adapter}


def asks_simulated_lm(program: Any) -> bool:
    """True for a program whose LM, as it is configured now, is the simulated one."""
    own = [predictor.lm for predictor in program.predictors()] if isinstance(program, dspy.Module) else []
    return any(_is_simulated(lm if lm is not None else dspy.settings.lm) for lm in own or [None])


def _own(program: Any) -> ChosenLM | None:
    lm = dspy.settings.lm
    if lm is not None and not _is_stand_in(lm):
        return ChosenLM(f"{_name(lm)} (configured by the program)", simulated=_is_simulated(lm))
    lms = [predictor.lm for predictor in program.predictors()]
    if not lms or None in lms:
        return None
    names = ", ".join(dict.fromkeys(_name(lm) for lm in lms))
    return ChosenLM(f"{names} (the predictors' own)", simulated=any(_is_simulated(lm) for lm in lms))


def _configured(model: str, options: Mapping[str, Any], source: str) -> ChosenLM:
    from dspy_live.programs.lm.lm import LM

    try:
        lm = LM(model, **options)
    except Exception as exc:
        raise ConfigurationError(f"no LM {model!r} ({source}): {exc}") from exc
    dspy.configure(lm=lm)
    return ChosenLM(f"{model} ({source})")


def _name(lm: Any) -> str:
    return str(getattr(lm, "model", None) or type(lm).__name__)


def _is_simulated(lm: Any) -> bool:
    return bool(getattr(_endpoint(lm), "simulated", False))


def _is_stand_in(lm: Any) -> bool:
    """Whether a command made this LM for another program of the process, because that one had none."""
    return bool(getattr(_endpoint(lm), "stand_in", False))


def _endpoint(lm: Any) -> Any:
    return getattr(getattr(lm, "live", None), "endpoint", None)
