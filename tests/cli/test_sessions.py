"""Conversations of ``serve``: they outlast the process, and are kept where a flag, a file or a variable says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.schema import Field, Schema
from dspy_live.loading.config.read import read_config
from dspy_live.loading.config.sessions import sessions_of
from dspy_live.server.served import ServedProgram

from .test_serve import address, ask, banner, stopped

if TYPE_CHECKING:
    from .conftest import Commands

PROGRAM = """
import dspy

class Chat(dspy.Signature):
    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()

program = dspy.Predict(Chat)
"""


def test_a_conversation_outlasts_the_server(live: Commands) -> None:
    live.write("chat.py", PROGRAM)
    turns = []
    for question in ("one", "two"):
        process = live.start(
            "serve", "chat.py:program", "--sim", "--port", "0", DSPY_LIVE_HOME=str(live.folder / "home")
        )
        where = address(banner(process))
        status, _, reply = ask(where, "/predict", {"question": question, "session": "s"})
        assert status == 200, reply
        turns = ask(where, "/sessions/s")[2]["turns"]
        assert stopped(process, signal.SIGTERM)[0] == 0
    assert [message["question"] for turn in turns for message in turn["messages"]] == ["one", "two"]
    assert (live.folder / "home" / "sessions.db").exists()


def program(history: str = "dspy.History") -> ServedProgram:
    async def nothing(call: object, sink: object) -> object:
        raise NotImplementedError

    schema = Schema("Chat", (Field("question"), Field("history", type=history)), (Field("answer"),))
    return ServedProgram("chat", nothing, schema)  # type: ignore[arg-type]


def place(tmp_path: Path, text: str = "", given: str | None = None, **environ: str) -> str:
    path = tmp_path / "dspy-live.toml"
    path.write_text('[programs.a]\ntarget = "q -> a"\n' + text)
    return sessions_of(given, read_config(path, environ), [program()]).store.name


def test_the_places_and_which_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPY_LIVE_HOME", str(tmp_path / "home"))
    assert place(tmp_path) == str(tmp_path / "home" / "sessions.db")
    assert place(tmp_path, DSPY_LIVE_SESSIONS="memory") == "memory"
    assert place(tmp_path, '[store]\nurl = "redis://127.0.0.1:1/0"\n') == "redis://127.0.0.1:1/0"
    own = '[store]\nurl = "redis://127.0.0.1:1/0"\n[sessions]\nplace = "own.db"\n'
    assert place(tmp_path, own, DSPY_LIVE_SESSIONS="memory") == str(tmp_path / "own.db")
    assert place(tmp_path, own, given="memory") == "memory"


def test_the_retention_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dspy-live.toml"
    path.write_text('[programs.a]\ntarget = "q -> a"\n[sessions]\nplace = "memory"\nkeep = "2d"\nturns = 7\n')
    found = sessions_of(None, read_config(path, {}), [program()])
    assert (found.retention, found.most_turns) == (2 * 86400, 7)
    path.write_text('[programs.a]\ntarget = "q -> a"\n[sessions]\nkeep = "2"\n')
    with pytest.raises(ConfigurationError, match="no length of time"):
        read_config(path, {})


def test_no_file_is_made_for_programs_without_a_history(tmp_path: Path) -> None:
    path = tmp_path / "dspy-live.toml"
    path.write_text('[programs.a]\ntarget = "q -> a"\n[sessions]\nplace = "own.db"\n')
    assert sessions_of(None, read_config(path, {}), [program("str")]).store.name == "memory"
    assert not (tmp_path / "own.db").exists()


def test_a_place_that_can_not_be_used_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigurationError, match="--sessions or DSPY_LIVE_SESSIONS"):
        place(tmp_path, given=str(tmp_path / "file" / "below.db"))
