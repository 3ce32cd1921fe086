"""An LM whose bytes a test decides, and one program over it, with and without the compiled part."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import dspy
import pytest
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk
from tests.server.support import Live, serving
from tests.support.until import BOUND

import dspy_live
from dspy_live.runtime.http.splice import LoopSplicer
from dspy_live.runtime.http.transport import pool_for_running_loop
from dspy_live.runtime.native import SWITCH, native

SIGNATURE = dspy.Signature("question -> reason: str, count: int, answer: str, sources: list[str]")

Step = bytes | Callable[[], object] | None
"""Bytes to send; a call to make between two sends; ``None`` closes the connection."""


def event(text: str, **more: Any) -> bytes:
    """One event of a chat-completions stream, as most servers write it."""
    chunk_ = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}],
    }
    return b"data: " + json.dumps(chunk_, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


FINISHED = (
    b'data: {"id":"c1","model":"tiny","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}\n\n',
    b"data: [DONE]\n\n",
)


def steps_of(texts: Sequence[str]) -> list[Step]:
    """A whole reply: each text in an event and a chunk of its own."""
    return [CHUNKED, *(chunk(event(text)) for text in texts), *map(chunk, FINISHED), END]


async def a_moment() -> None:
    await asyncio.sleep(0.001)


class ScriptedLM:
    """Answers each request with its script; between two of the steps the loop of the server gets its turn.

    Attributes:
        script: what it answers with.
        turn: waits until a server has read what was sent to it, however late that is; only for a moment by default.
        first: scripts of the first requests, each for one, in place of ``script``.
        steps: how many steps it has begun.
        left: how many of its connections the server has closed before the script's end.
    """

    def __init__(self, script: Iterable[Step] = ()) -> None:
        self.script = script
        self.turn: Callable[[], Awaitable[None]] = a_moment
        self.first: list[Sequence[Step]] = []
        self.left = self.steps = 0
        self._readers: list[asyncio.StreamReader] = []
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self.url = ""

    @property
    def open(self) -> int:
        """How many of its connections the server has not closed."""
        return sum(not reader.at_eof() for reader in self._readers)

    async def _answer(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers.append(reader)
        while await peer.read(reader) is not None:
            try:
                for step in self.first.pop(0) if self.first else self.script:
                    self.steps += 1
                    if reader.at_eof():
                        self.left += 1
                        return
                    if step is None:
                        writer.transport.abort()
                        return
                    await self._do(step, writer)
            except ConnectionError:
                self.left += 1
                return

    async def _do(self, step: bytes | Callable[[], object], writer: asyncio.StreamWriter) -> None:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            await self.turn()
        else:
            await asyncio.get_running_loop().run_in_executor(None, step)

    async def _main(self) -> None:
        peer = Peer(self._answer)
        await peer.start()
        self._loop = asyncio.get_running_loop()
        self.url = f"http://127.0.0.1:{peer.port}/v1"
        self._ready.set()
        await self._over.wait()
        await peer.stop()

    def __enter__(self) -> ScriptedLM:
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), daemon=True)
        self._thread.start()
        assert self._ready.wait(BOUND)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(BOUND)

    def paced_by(self, live: Live) -> None:
        """Send the next words when a server's loop has looked for these: after two turns of it."""

        async def turn() -> None:
            for _ in range(2):
                done: Future[None] = Future()
                live.loop.call_soon_threadsafe(done.set_result, None)
                await asyncio.wrap_future(done)

        self.turn = turn


@contextlib.contextmanager
def compiled(on: bool) -> Iterator[None]:
    """Use the compiled part, or leave it alone. It must be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "1" if on else "0")
        native.cache_clear()
        assert (native() is not None) is on, "the compiled part is not installed: make setup"
        try:
            yield
        finally:
            patch.undo()
            native.cache_clear()


class PlainLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with a clock that a test may set ``ahead``, farther than a process ever stands still."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


@contextlib.contextmanager
def plain_loops() -> Iterator[None]:
    """Serve on loops of that kind."""
    runner = asyncio.Runner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "Runner", lambda loop_factory: runner(loop_factory=PlainLoop))
        yield


def leap(live: Live, seconds: float) -> None:
    """Set the clock of a server's loop ahead."""
    live.loop.call_soon_threadsafe(setattr, live.loop, "ahead", seconds)


class Answerer(dspy.Module):
    """One predictor with an adapter of its own."""

    def __init__(self, adapter: dspy.Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.answer = dspy.Predict(SIGNATURE)

    async def aforward(self, question: str) -> Any:
        with dspy.context(adapter=self.adapter):
            return await self.answer.acall(question=question)


def served(lm: ScriptedLM, adapter: dspy.Adapter, **options: Any) -> contextlib.AbstractContextManager[Live]:
    """A server of one predictor over ``lm``."""
    return served_by(Answerer(adapter), lm, **options)


@contextlib.contextmanager
def served_by(
    program: dspy.Module, lm: ScriptedLM, of_app: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[Live]:
    """A server of a program whose predictors all ask ``lm``; ``options`` are the LM's."""
    options = {"num_retries": 0, **options}
    program.set_lm(dspy_live.LM("openai/tiny", api_base=lm.url, api_key="x", cache=False, **options))
    with serving(dspy_live.create_app(program, **(of_app or {}))) as live:
        lm.paced_by(live)
        try:
            yield live
        finally:
            lm.turn = a_moment


def splicer(live: Live) -> LoopSplicer | None:
    """The splicer of a server's loop."""

    async def find() -> LoopSplicer | None:
        return pool_for_running_loop().splicer()

    return asyncio.run_coroutine_threadsafe(find(), live.loop).result(BOUND)
