"""``dspy-live explain``: a guide in the terminal, or the answer to a question."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter


def explain(*topic: str, example: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Explain a topic, or answer a question in plain words, from the built-in guides.

    Without a topic, list them.

    Args:
        topic: async, streaming, usage, caching, … or a question.
        example: show the topic's example only, after running it against the simulated LM.
    """
    from dspy_live.assistant.guides import find_guide
    from dspy_live.cli.screens import assistant_output
    from dspy_live.core.errors import NotFound

    words = " ".join(topic).strip()
    if not words:
        assistant_output.show_topics(sys.stdout)
        return 0
    try:
        guide = find_guide(words) if len(words.split()) <= 2 else assistant_output.page_for(words, example=example)
    except NotFound as error:
        print(f"dspy-live: {error}", file=sys.stderr)
        return 2
    if example:
        return 0 if assistant_output.show_example(guide, sys.stdout) else 1
    if len(words.split()) <= 2:
        assistant_output.show_guide(guide, sys.stdout)
    else:
        assistant_output.show_answer(words, sys.stdout)
    return 0
