"""Converted Streamlit and Gradio apps, run by the real packages in an environment of their own: they answer and stream.

``make webapps`` runs them: either package takes long to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.server.browser import Page, chromium
from tests.support.until import until

from dspy_live.assistant.convert import convert

pytestmark = [pytest.mark.webapps, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
SLOW = "ttft=0.1, tokens_per_second=40, length=200"

STREAMLIT = f"""import dspy
import dspy_live
import streamlit as st

st.title("River helper")


@st.cache_resource
def load_program():
    return dspy.ChainOfThought("question -> answer")


program = load_program()
lm = dspy_live.sim_lm({SLOW})

if "messages" not in st.session_state:
    st.session_state.messages = []

for message in st.session_state.messages:
    with st.chat_message(message["role"]):
        st.markdown(message["content"])

if prompt := st.chat_input("Ask me about rivers"):
    st.session_state.messages.append({{"role": "user", "content": prompt}})
    with st.chat_message("user"):
        st.markdown(prompt)
    with dspy.context(lm=lm):
        with st.chat_message("assistant"):
            with st.spinner("Thinking..."):
                response = program(question=prompt)
            st.write(response.answer)
    st.session_state.messages.append({{"role": "assistant", "content": response.answer}})
"""

GRADIO = f"""import dspy
import dspy_live
import gradio as gr

dspy.configure(lm=dspy_live.sim_lm({SLOW}))
qa = dspy.ChainOfThought("question -> answer")


def respond(message, history):
    result = qa(question=message)
    return result.answer


demo = gr.ChatInterface(respond, title="QA")

if __name__ == "__main__":
    demo.launch(server_name="127.0.0.1", quiet=False)
"""

ASK_GRADIO = """
import json
import sys

from gradio_client import Client

job = Client(sys.argv[1], verbose=False).submit("Why do rivers bend?", api_name="/respond")
final = job.result(timeout=60)
print(json.dumps({"parts": job.outputs(), "final": final}))
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of an environment with Streamlit, Gradio and this working copy."""
    made = subprocess.run(
        [ROOT / "scripts/environment.sh", "webapps"], capture_output=True, text=True, timeout=600, check=True
    )
    return made.stdout.strip()


def environ(folder: Path) -> dict[str, str]:
    """The user's environment, with a home and caches of its own and without proxies and news from elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **kept,
        "HOME": str(folder),
        "DSPY_CACHEDIR": str(folder / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(free_port()),
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def served(folder: Path, *command: str) -> Iterator[str]:
    """Start an app, and give the address that it prints."""
    log = folder / "app.log"
    with log.open("w") as out:
        app = subprocess.Popen(command, cwd=folder, env=environ(folder), stdout=out, stderr=out)
        try:
            until(lambda: app.poll() is not None or re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), 60)
            assert app.poll() is None, log.read_text()
            yield re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())[0]
        finally:
            app.terminate()
            app.wait(30)


def converted(kind: str, text: str, folder: Path) -> None:
    conversion = convert(kind, text, file="app.py", folder=folder)
    assert conversion.new != text
    (folder / "app.py").write_text(conversion.new)


@pytest.mark.parametrize("kind", ["async", "streaming"])
def test_a_gradio_chat_answers_and_streams(python: str, tmp_path: Path, kind: str) -> None:
    converted(kind, GRADIO, tmp_path)
    with served(tmp_path, python, "app.py") as url:
        asked = subprocess.run(
            [python, "-c", ASK_GRADIO, url],
            env=environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout.splitlines()[-1])
    assert len(told["final"].split()) > 20
    if kind == "streaming":
        assert len(told["parts"]) > 20, "a part for each token"
        assert told["parts"][-1] == told["final"]
        assert all(after.startswith(before) for before, after in pairwise(told["parts"]))


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "profile") as page:
        yield page


SHOWN = (
    "[...document.querySelectorAll('[data-testid=stChatMessage] [data-testid=stMarkdownContainer]')]"
    ".map(e => e.innerText.trim())"
)
ASKED = "document.querySelector('[data-testid=stChatInput] textarea')"


def test_a_streamlit_chat_streams_into_the_page(python: str, tmp_path: Path, tab: Page) -> None:
    converted("streaming", STREAMLIT, tmp_path)
    options = ("--server.headless=true", "--server.address=127.0.0.1", f"--server.port={free_port()}")
    start = (python, "-m", "streamlit", "run", "app.py", *options, "--browser.gatherUsageStats=false")
    with served(tmp_path, *start) as url:
        tab.goto(url)
        tab.wait(ASKED, seconds=60)
        ask(tab, "Why do rivers bend?")
        tab.wait(f"({SHOWN}[1] ?? '').split(' ').length > 5", seconds=60)
        early = tab.evaluate(SHOWN)[1]
        tab.wait(f"!document.querySelector('[data-testid=stStatusWidget]') && {SHOWN}[1] !== {early!r}", seconds=60)
        ask(tab, "And then?")  # the page runs from its top again, and has the first answer as it was
        tab.wait(f"{SHOWN}.length === 4 && {SHOWN}[3].split(' ').length > 5", seconds=60)
        first, answer, second, _ = tab.evaluate(SHOWN)
        assert (first, second) == ("Why do rivers bend?", "And then?")
        assert len(answer.split()) > len(early.split()), "what was seen early was a part of the answer"
        assert answer.startswith(early.rstrip())
        assert "Error" not in tab.evaluate("document.body.innerText")
        tab.goto("about:blank")
    tab.errors.clear()


def ask(tab: Page, question: str) -> None:
    tab.evaluate(f"{ASKED}.focus()")
    tab.call("Input.insertText", text=question)
    tab.wait(f"{ASKED}.value === {question!r}")
    tab.press("Enter")
