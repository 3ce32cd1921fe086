"""``dspy-live explain``: a guide in the terminal, or the answer to a question."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags


def explain(
    *topic: str, example: Annotated[bool, Parameter(negative="")] = False, flags: ProgramFlags | None = None
) -> int:
    """Explain a topic, or answer a question in plain words, from the built-in guides.

    Without a topic, list them. Where an LM is configured (--lm, --config, DSPY_LIVE_LM), it writes the answer to a
    question from the sections that fit, and they are named.

    Args:
        topic: async, streaming, usage, caching, … or a question.
        example: show the topic's example only, after running it against the simulated LM.
    """
    from dspy_live.cli.screens import assistant_output
    from dspy_live.cli.shell.answer import answered_by_lm
    from dspy_live.core.errors import NotFound

    words = " ".join(topic).strip()
    if not words:
        assistant_output.show_topics(sys.stdout)
        return 0
    try:
        guide = assistant_output.topic_of(words)
        if example:
            guide = guide or assistant_output.page_for(words, example=True)
            return 0 if assistant_output.show_example(guide, sys.stdout) else 1
        if guide is not None:
            assistant_output.show_guide(guide, sys.stdout)
        elif not answered_by_lm(words, flags or ProgramFlags(), sys.stdout):
            assistant_output.show_answer(words, sys.stdout)
    except NotFound as error:
        print(f"dspy-live: {error}", file=sys.stderr)
        return 2
    return 0
