"""Everything of a predictor's call that depends on its signature and its adapter's class alone, made once for these.

DSPy looks a signature's fields up 19 times for each call, and renders the same instructions each time. The texts of a
plan are made by DSPy's own methods, so that they say what DSPy says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy

from dspy_live.programs.fields.chat_template import Template, template_of
from dspy_live.programs.fields.formats import Reading, reading_of
from dspy_live.programs.fields.own_texts import Fields, fields_now, kept_fields
from dspy_live.programs.stock.demos import KeptDemos
from dspy_live.programs.stock.replies import read_chat, read_json, read_xml
from dspy_live.programs.stock.values import Reader, Writer, reader_of, writer_of

_PRIVILEGED = {"signature", "demos", "config", "lm", "prediction", "new_signature"}
"""Names of arguments that ``dspy.Predict`` takes for itself."""

READERS: dict[Any, Callable[[Mapping[str, Reader], str], dict[str, Any] | None]] = {
    dspy.ChatAdapter: read_chat,
    dspy.JSONAdapter: read_json,
    dspy.XMLAdapter: read_xml,
}
"""The adapters that there are plans for, with what reads their replies."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One signature under one adapter.

    ``writers`` has one function for each input field, in the fields' order; ``values`` returns the output fields of a
    reply's text, or ``None`` where DSPy must read it. ``system`` is the system message, ``template`` the user message
    around the inputs' texts, ``demos`` keeps the demos' messages, ``formats`` the response formats by what the LM can
    do, and ``reading`` says how a reply is read as it streams.
    """

    adapter: Any
    writers: dict[str, Writer]
    values: Callable[[str], dict[str, Any] | None]
    system: str
    template: Template
    demos: KeptDemos
    formats: dict[Any, dict[str, Any]]
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A plan, or ``None`` for a signature that DSPy's own path must take, with what it was made from."""

    instructions: Any
    fields: Fields
    plan: Plan | None


_plans: dict[Any, weakref.WeakKeyDictionary[Any, _Kept]] = {adapter: weakref.WeakKeyDictionary() for adapter in READERS}


def plan_of(signature: Any, adapter: Any) -> Plan | None:
    """Return the plan of a signature under a class of adapter, or ``None`` where it needs DSPy's own path.

    Fields that need it are history, tools, reasoning and citations of the model's own, and decisions. A signature whose
    instructions or fields were changed since, in place too, gets a new plan.
    """
    plans = _plans[adapter]
    kept = plans.get(signature)
    fields = fields_now(signature)
    if kept is None or kept.instructions is not signature.__doc__ or kept.fields != fields:
        made = _make(signature, adapter)
        kept = plans[signature] = _Kept(signature.__doc__, kept_fields(fields), made)
    return kept.plan


def _make(signature: Any, adapter_class: Any) -> Plan | None:
    inputs, outputs = signature.input_fields, signature.output_fields
    if not inputs or not outputs or _PRIVILEGED & inputs.keys():
        return None
    if any(_is_special(field) for field in [*inputs.values(), *outputs.values()]):
        return None
    adapter = adapter_class()
    system = adapter.format_system_message(signature)
    template = template_of(partial(adapter.format_user_message_content, signature), tuple(inputs))
    if template is None or not _is_encodable(system):
        return None
    return Plan(
        adapter_class,
        {name: writer_of(field) for name, field in inputs.items()},
        partial(READERS[adapter_class], {name: reader_of(field.annotation) for name, field in outputs.items()}),
        system,
        template,
        KeptDemos([*inputs, *outputs]),
        {},
        reading_of(adapter, signature),
    )


def _is_special(field: Any) -> bool:
    """True for a type of DSPy's own, however deep it is nested: history, tools, images, decisions and others."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, dspy.History):
        return True
    return bool(dspy.Type.extract_custom_type_from_annotation(field.rebuild_annotation()))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
