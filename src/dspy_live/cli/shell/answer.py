"""Questions answered by an LM over the guides, where one is configured."""

from __future__ import annotations

import asyncio
from typing import TextIO

from dspy_live.assistant.retrieval import index
from dspy_live.cli.flags import ProgramFlags

PASSAGES = 5


def answered_by_lm(question: str, flags: ProgramFlags, out: TextIO) -> bool:
    """Stream an LM's answer over the best passages, with their pages named; tell whether there was one.

    Without an LM, or when it fails before it has said anything, it is ``False``: the guides speak for themselves.
    """
    from dspy_live.cli.open_program import settings_of

    settings = settings_of(flags)
    hits = index().passages(question, PASSAGES)
    if settings.model is None or settings.simulate or not hits:
        return False
    from dspy_live.assistant.answer import answer_from
    from dspy_live.programs.lm.lm import LM

    lm = LM(settings.model, **settings.options)
    said = 0

    async def follow() -> None:
        nonlocal said
        async for text in answer_from(question, [hit.passage for hit in hits], lm):
            out.write(text)
            out.flush()
            said += len(text)

    try:
        asyncio.run(follow())
    except Exception as error:
        print(f"{'' if not said else chr(10)}[{settings.model} did not answer: {error}]\n", file=out)
        return said > 0
    pages = ", ".join(dict.fromkeys(hit.passage.page for hit in hits))
    print(f"\n\nFrom {settings.model}, over the guides {pages}. /explain shows them.", file=out)
    return True
