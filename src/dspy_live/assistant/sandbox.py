"""The inside of a trial: ``python -m dspy_live.assistant.sandbox JOB.json [PIPE]`` runs one script and ends.

Started by :mod:`dspy_live.assistant.trial` and by nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import linecache
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_WRITING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree")
_NO_SERVER = "[a trial starts no server]"
_STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")


class Guard:
    """An audit hook: raises ``PermissionError`` where the script does something that it may not do.

    Args:
        home: the only folder that may be written to.
        port: the simulated LM's port, the only address that may be reached.
    """

    def __init__(self, home: str, port: int) -> None:
        self.home = os.path.realpath(home)
        self.port = port

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Check one event of Python's own audit; most are of no interest."""
        if event == "socket.connect":
            self._connect(args[1])
        elif event == "socket.getaddrinfo":
            self._look_up(args[0])
        elif event == "open":
            path, mode, flags = args
            writes = any(letter in (mode or "") for letter in "wax+") or (mode is None and _writes(flags))
            if writes and isinstance(path, str | bytes):
                self._write(os.fsdecode(path))
        elif event in _WRITING:
            self._write(os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else self.home)
        elif event in _STARTING:
            raise PermissionError("a trial run starts no other programs")

    def _connect(self, address: Any) -> None:
        if not (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1") and address[1] == self.port):
            raise PermissionError(f"a trial run has no network, only the simulated LM; it asked for {address}")

    def _look_up(self, host: Any) -> None:
        if host not in ("127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost", None):
            raise PermissionError(f"a trial run has no network, only the simulated LM; it asked for {host}")

    def _write(self, path: str) -> None:
        real = os.path.realpath(path)
        if real != os.devnull and not (real + os.sep).startswith(self.home + os.sep):
            raise PermissionError(f"a trial run writes nothing outside its own folder; it tried {path}")


def _writes(flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))


def main(job_file: str, lifeline: str | None = None) -> int:
    """Run the job and return its exit status; ``lifeline`` is a pipe that closes when the parent process is gone."""
    job = json.loads(Path(job_file).read_text("utf-8"))
    _limits()
    if lifeline is not None:
        threading.Thread(target=_end_with_parent, args=(int(lifeline), job["home"]), daemon=True).start()
    stand_in(job["url"])
    _launch_nothing(job["source"])
    sys.path[:0] = [*dict.fromkeys(job["imports"]), job["home"]]
    os.chdir(job["work"])
    source, file = job["source"], job["file"]
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(Path(job["work"]) / file)}
    module = type(sys)("__main__")
    if job["package"]:
        namespace["__package__"] = job["package"]
    module.__dict__.update(namespace)
    sys.modules["__main__"] = module
    sys.argv = [file]
    sys.addaudithook(Guard(job["home"], urlsplit(job["url"]).port or 0))
    try:
        exec(compile(source, file, "exec"), module.__dict__)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException as error:
        traceback.print_exception(error.with_traceback(_user_traceback(error)))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _end_with_parent(lifeline: int, home: str) -> None:
    """Wait until the parent process is gone, then delete the trial's folder and end this process."""
    os.read(lifeline, 1)
    os.chdir(home)  # the guard looks names up from where it stands
    shutil.rmtree(home, ignore_errors=True)
    os._exit(1)


def _user_traceback(error: BaseException) -> Any:
    """The traceback without this file's own frame."""
    return error.__traceback__.tb_next if error.__traceback__ is not None else None


def _limits() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))


def stand_in(url: str) -> None:
    """Let every LM ask the simulated one at ``url``; embedders and retrievers answer made-up things."""
    import dspy

    import dspy_live

    for cls in (dspy.LM, dspy_live.LM):
        if "__init__" in cls.__dict__:
            setattr(cls, "__init__", _redirected(cls.__dict__["__init__"], url))  # noqa: B010
    dspy.Embedder.__init__ = lambda self, *_, **__: None
    dspy.Embedder.__call__ = lambda self, inputs, **_: _embed(inputs)
    dspy.Embedder.acall = _embed_async
    dspy.ColBERTv2.__init__ = lambda self, *_, **__: None
    dspy.ColBERTv2.__call__ = lambda self, query, k=10, **_: _found(query, k)
    from dspy_live.runtime.runtime import default_runtime

    default_runtime().account.prices.set({"openai/simulated": {"input": 0.0, "output": 0.0}})
    dspy.configure(lm=dspy_live.LM("openai/simulated"))
    # Without the pace that a program gives its own simulated LM, and counted like every other LM's calls.
    setattr(dspy_live, "sim_lm", lambda **_: dspy_live.LM("openai/simulated", cache=False))  # noqa: B010
    _serve_nothing()


def _serve_nothing() -> None:
    """Let every start of a server return at once: it would run until the time is up."""
    import uvicorn

    def run(*_: Any, **__: Any) -> None:
        print(_NO_SERVER)

    async def serve(*_: Any, **__: Any) -> None:
        run()

    for place, name, stand in ((uvicorn, "run", run), (uvicorn.Server, "run", run), (uvicorn.Server, "serve", serve)):
        setattr(place, name, stand)


def _launch_nothing(source: str) -> None:
    """Let Gradio's and Flask's own servers return at once too, where the script has them and they are installed."""
    for library, place, name in (("gradio", "Blocks", "launch"), ("flask", "Flask", "run")):
        if library in source and importlib.util.find_spec(library) is not None:
            setattr(getattr(importlib.import_module(library), place), name, lambda *_, **__: print(_NO_SERVER))


def _redirected(original: Any, url: str) -> Any:
    def init(self: Any, model: str = "simulated", *args: Any, **kwargs: Any) -> None:
        kwargs |= {"api_base": url, "api_key": "simulated"}
        for name in ("base_url", "model_type", "provider", "finetuning_model", "launch_kwargs"):
            kwargs.pop(name, None)
        original(self, f"openai/{str(model).rpartition('/')[2]}", **kwargs)

    return init


def _embed(inputs: Any) -> Any:
    import numpy

    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    seeds = [int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:4], "big") for text in texts]
    vectors = numpy.stack([numpy.random.default_rng(seed).standard_normal(64).astype("float32") for seed in seeds])
    return vectors[0] if isinstance(inputs, str) else vectors


async def _embed_async(_: Any, inputs: Any, **__: Any) -> Any:
    return _embed(inputs)


def _found(query: str, k: int) -> list[Any]:
    from dspy.dsp.utils.utils import dotdict

    return [
        dotdict({"text": f"Passage {n + 1} | about {query}", "long_text": f"Passage {n + 1} | about {query}"})
        for n in range(k)
    ]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
