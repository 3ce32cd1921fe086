"""A run's own view of the adapter: the same class to everybody, with three things added.

It runs a plain ``dspy.LM`` as ours, keeps the system message of a signature (half of what ``format``
costs), and says which signature the messages were made for and what was read from the reply. The
user's adapter object is left alone; every run has a copy.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

import dspy
from dspy.adapters.types.reasoning import Reasoning

from dspy_live.programs.fields.chat_template import user_message
from dspy_live.programs.fields.origin import current_stream
from dspy_live.programs.fields.own_texts import (
    TEXT_METHODS,
    fields_now,
    has_methods_of_its_own,
    kept_fields,
    methods_of,
)
from dspy_live.programs.internals import Adapter
from dspy_live.programs.lm.foreign_lm import awaitable, foreign_call, replied
from dspy_live.programs.lm.lm import LM, adopt, configured
from dspy_live.programs.run.run import current_run


def live(adapter: Any) -> Any:
    """Return this run's view of ``adapter``; what is no DSPy adapter comes back as it is."""
    if not isinstance(adapter, Adapter) or hasattr(type(adapter), "_dspy_live"):
        return adapter
    base: Any = type(adapter)
    cls = _live_class(base)
    made: Any = object.__new__(cls)
    made.__dict__.update(adapter.__dict__)
    if "extraction_model" in made.__dict__:
        # TwoStepAdapter calls its second LM through an adapter that it makes itself.
        made.__dict__["extraction_model"] = awaitable(adopt(made.__dict__["extraction_model"]))
    return made


@functools.cache
def _live_class(base: Any) -> Any:
    class Live(base):  # type: ignore[misc,unused-ignore]
        _dspy_live = base

        def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
            lm = ours(lm)
            if isinstance(lm, LM):
                return compared(super().__call__(lm, lm_kwargs, signature, demos, inputs))
            with foreign_call(lm):
                return compared(super().__call__(lm, lm_kwargs, signature, demos, inputs))

        async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
            lm = ours(lm)
            if isinstance(lm, LM):
                return compared(await super().acall(lm, lm_kwargs, signature, demos, inputs))
            with foreign_call(lm, awaited=True):
                return compared(await super().acall(awaitable(lm), lm_kwargs, signature, demos, inputs))

        def _call_preprocess(self, lm: Any, lm_kwargs: Any, signature: Any, inputs: Any) -> Any:
            processed = super()._call_preprocess(lm, lm_kwargs, signature, inputs)
            run = current_run()
            if run is not None and run.call.stream and processed is not signature:
                for name, field in signature.output_fields.items():
                    if field.annotation is Reasoning and name not in processed.output_fields:
                        run.thinking[id(processed)] = (processed, name)
            return processed

        def _call_postprocess(self, processed: Any, original: Any, outputs: Any, lm: Any, lm_kwargs: Any) -> Any:
            run = current_run()
            if run is not None and run.call.stream and not isinstance(lm, LM):
                replied(run, self, processed, outputs)
            return super()._call_postprocess(processed, original, outputs, lm, lm_kwargs)

        def _make_json_adapter_fallback(self) -> Any:
            return live(super()._make_json_adapter_fallback())

        def format_system_message(self, signature: Any) -> str:
            return _system_message(base, self, signature)

        def format_user_message_content(
            self, signature: Any, inputs: Any, prefix: str = "", suffix: str = "", main_request: bool = False
        ) -> Any:
            make = functools.partial(base.format_user_message_content, self, signature)
            whole = main_request and not prefix and not suffix
            if whole and base is dspy.ChatAdapter and not has_methods_of_its_own(self, TEXT_METHODS):
                return user_message(make, signature, inputs, methods_of(base))
            return make(inputs, prefix, suffix, main_request)

        def __reduce__(self) -> Any:
            return _plain, (base, self.__dict__)

    # DSPy wraps format and parse of every subclass in its callbacks; a second wrapping would call them twice.
    del Live.parse
    if not hasattr(base, "_make_json_adapter_fallback"):
        del Live._make_json_adapter_fallback
    Live.format = _format_of(base)
    Live.__name__, Live.__qualname__, Live.__module__ = base.__name__, base.__qualname__, base.__module__
    return Live


def compared(values: Any) -> Any:
    """Return the values that the adapter has read; where the run was told other text, it is told theirs."""
    run = current_run()
    if run is not None and run.call.stream and values and isinstance(values[0], Mapping):
        stream = current_stream(run)
        if stream is not None:
            stream.compare(values[0])
    return values


def ours(lm: Any) -> Any:
    """Return our LM for ``lm``, with the options of the call that runs here."""
    run = current_run()
    ours = adopt(lm)
    return ours if run is None or not run.call.config else configured(ours, run.call.config)


def _format_of(base: Any) -> Any:
    @functools.wraps(base.format)
    def noted(self: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        messages = base.format(self, signature, demos, inputs)
        run = current_run()
        if run is not None and run.call.stream:
            run.formatted[id(messages)] = (messages, self, signature)
        return messages

    return noted


def _plain(base: type, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(base)
    made.__dict__.update(state)
    return made


_messages: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Any, Any, str]]] = weakref.WeakKeyDictionary()


def _system_message(base: Any, adapter: Any, signature: Any) -> str:
    """The system message of a signature, made once for each class of adapter.

    Only for DSPy's own adapters: a subclass may make it of something else than the signature.
    """
    if not base.__module__.startswith("dspy.") or has_methods_of_its_own(adapter, TEXT_METHODS):
        return str(super(type(adapter), adapter).format_system_message(signature))
    kept = _messages.setdefault(signature, {})
    made_by, fields = (signature.instructions, methods_of(base)), fields_now(signature)
    found = kept.get(base)
    if found is None or found[0] != made_by or found[1] != fields:
        text = base.format_system_message(adapter, signature)
        found = kept[base] = (made_by, kept_fields(fields), text)
    return found[2]
