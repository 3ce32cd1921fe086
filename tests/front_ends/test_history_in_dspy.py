"""A kept conversation as DSPy's adapter shows it to the LM: its images are images again, its turns are messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
from tests.server.support import http, serving

from dspy_live import LM, create_app
from dspy_live.simulator import Simulator

URL = "data:image/png;base64,iVBORw0KGgo="


class SeeChat(dspy.Signature):
    """Talk about the photo."""

    photo: dspy.Image | None = dspy.InputField()
    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


def test_an_image_of_an_earlier_turn_is_an_image_for_the_lm(tmp_path: Path) -> None:
    simulator = Simulator(seed=1, length=8)
    simulator.keep_requests = True
    with simulator.running() as url:
        program = dspy.ChainOfThought(SeeChat)
        program.set_lm(LM("openai/sim", api_base=url, api_key="none", cache=False))
        with serving(create_app({"see": program}, sessions=str(tmp_path / "sessions.db"))) as live:
            answers: list[Any] = []
            for question, photo in (("What is it?", {"url": URL}), ("And now?", None)):
                body = {"question": question, "photo": photo, "session": "s"}
                reply = http.post(live.url + "/predict", json=body)
                assert reply.status_code == 200, reply.text
                answers.append(reply.json())
        _, earlier, said, now = simulator.requests[-1]["messages"]
        assert {"type": "image_url", "image_url": {"url": URL}} in earlier["content"]
        assert "What is it?" in str(earlier["content"])
        for field in ("reasoning", "answer"):
            assert answers[0][field] in said["content"]
        assert "And now?" in str(now["content"])
        assert URL not in str(now["content"])
