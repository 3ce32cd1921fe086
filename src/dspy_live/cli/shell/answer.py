"""Questions answered by an LM over the guides' sections, where one is configured."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from dspy_live.assistant.retrieval import index
from dspy_live.cli.flags import ProgramFlags


def answered_by_lm(question: str, flags: ProgramFlags, out: TextIO, *, command: str = "explain") -> bool:
    """Stream an LM's answer over the sections that fit best, name them after it, and tell whether there was one.

    Without an LM, when no section answers the question, or when the LM fails before it has said anything, it is
    ``False``: the guides speak for themselves. What the process logs meanwhile is printed after the answer.
    """
    from dspy_live.cli.open_program import settings_of

    settings = settings_of(flags)
    hits = index().search(question)
    if settings.model is None or settings.simulate or not hits or not hits[0].answers:
        return False
    from dspy_live.assistant.answer import answer_from
    from dspy_live.programs.lm.lm import LM

    lm = LM(settings.model, **settings.options)
    said: list[str] = []

    async def follow() -> None:
        async for text in answer_from(question, [hit.passage for hit in hits], lm):
            out.write(text)
            out.flush()
            said.append(text)

    try:
        with notices_afterwards():
            asyncio.run(follow())
    except Exception as error:
        broken = f"\n\n[the answer ends here: {settings.model} failed: {error}]"
        print(broken if said else f"[{settings.model} did not answer: {error}]\n", file=out)
        return bool(said)
    if own_code("".join(said), [hit.passage.text for hit in hits]):
        print(f"\n\n[not run: code in this answer is {settings.model}'s own, not the guides']", end="", file=out)
    places = ", ".join(f"‘{hit.passage.place}’" for hit in hits)
    print(f"\n\nWritten by {settings.model} from {places}. `{command} PAGE` shows a page.", file=out)
    return True


def own_code(answer: str, sections: Sequence[str]) -> list[str]:
    """Return the code blocks of an answer that stand in no section: code that nobody has run."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", answer, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if not any(block.strip() in section for section in sections)]


@contextmanager
def notices_afterwards() -> Iterator[None]:
    """Keep back what is logged on a stream until the end, so that it does not stand in the middle of an answer."""
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    filters = [(handler, _Held()) for handler in handlers if type(handler) is logging.StreamHandler]
    for handler, held in filters:
        handler.addFilter(held)
    try:
        yield
    finally:
        for handler, held in filters:
            handler.removeFilter(held)
        for handler, held in filters:
            for record in held.records:
                handler.handle(record)


class _Held(logging.Filter):
    """Lets no record through and keeps all."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return False
