"""Everything of a ``ChatAdapter`` call that depends on the signature alone, made once for each signature.

DSPy looks a signature's fields up 19 times for each call, and renders the same instructions each time. The texts of a
plan are made by DSPy's own methods, so that they say what DSPy says.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy

from dspy_live.programs.fields.chat_template import Template, template_of
from dspy_live.programs.fields.own_texts import Fields, fields_now, kept_fields
from dspy_live.programs.internals import IS_TYPE_UNDEFINED

_PRIVILEGED = {"signature", "demos", "config", "lm", "prediction", "new_signature"}
"""Names of arguments that ``dspy.Predict`` takes for itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One signature under ``ChatAdapter``.

    ``inputs`` and ``outputs`` are the names of the fields in their order, ``text_inputs`` those that take a string
    as it is. ``annotations`` has the type of each output, ``system`` the system message, and ``template`` the user
    message around inputs that are text (``None`` where DSPy is to make it).
    """

    inputs: frozenset[str]
    text_inputs: frozenset[str]
    annotations: dict[str, Any]
    system: str
    template: Template | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A plan, or ``None`` for a signature that DSPy's own path must take, with what it was made from."""

    instructions: Any
    fields: Fields
    plan: Plan | None


_plans: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def plan_of(signature: Any) -> Plan | None:
    """Return the plan of a signature, or ``None`` where one of its fields needs DSPy's own path.

    Those are history, tools, reasoning and citations of the model's own, and decisions. A signature whose instructions
    or fields were changed since, in place too, gets a new plan.
    """
    kept = _plans.get(signature)
    fields = fields_now(signature)
    if kept is None or kept.instructions is not signature.__doc__ or kept.fields != fields:
        kept = _plans[signature] = _Kept(signature.__doc__, kept_fields(fields), _make(signature))
    return kept.plan


def _make(signature: Any) -> Plan | None:
    inputs, outputs = signature.input_fields, signature.output_fields
    if not inputs or not outputs or _PRIVILEGED & inputs.keys():
        return None
    if any(_is_special(field) for field in [*inputs.values(), *outputs.values()]):
        return None
    adapter = dspy.ChatAdapter()
    system = adapter.format_system_message(signature)
    if not _is_encodable(system):
        return None
    return Plan(
        frozenset(inputs),
        frozenset(name for name, field in inputs.items() if _takes_text(field)),
        {name: field.annotation for name, field in outputs.items()},
        system,
        template_of(partial(adapter.format_user_message_content, signature), tuple(inputs)),
    )


def _is_special(field: Any) -> bool:
    """True for a type of DSPy's own, however deep it is nested: history, tools, images, decisions and others."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, dspy.History):
        return True
    return bool(dspy.Type.extract_custom_type_from_annotation(field.rebuild_annotation()))


def _takes_text(field: Any) -> bool:
    return field.annotation is str or bool(field.json_schema_extra.get(IS_TYPE_UNDEFINED, False))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
