"""The shell's commands: one method for each, and the state that they share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dspy_live.assistant.consent import may_run
from dspy_live.assistant.guides import ALIASES, find_guide, guides, suggest
from dspy_live.assistant.router import is_words, route
from dspy_live.cli.commands.convert import HOW_TO_RUN, load_codemods, proved, read_source, write_conversion
from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.screens import assistant_output
from dspy_live.core.errors import ConfigurationError, InputError, LiveError

if TYPE_CHECKING:
    from dspy_live.assistant.convert import Conversion

COMMANDS: dict[str, str] = {
    "/help": "this list",
    "/explain": "/explain TOPIC: a guide; without a topic, all of them",
    "/async": "how async works; /async example runs and shows an example",
    "/streaming": "how streaming works; /streaming example runs and shows an example",
    "/load": "/load FILE [PROGRAM]: read a program",
    "/show": "the loaded program's source",
    "/run": "/run [QUESTION | name=value …]: run the loaded program",
    "/stream": "/stream [QUESTION | name=value …]: run it and show its tokens as they come",
    "/convert": "/convert KIND [--run | --no-run]: async, streaming, usage, caching, logging, serving, fastapi, tests",
    "/write": "write the last conversion to the file",
    "/usage": "what the LM calls of this shell have used",
    "/cache": "/cache [clear]: hits, misses, entries",
    "/serve": "/serve [PORT]: serve the loaded program until Ctrl-C",
    "/exit": "leave",
}

_SAME = {"/quit": "/exit", "/q": "/exit", "/?": "/help", "/open": "/load", "/stats": "/usage", "/stream_run": "/stream"}


class Session:
    """One shell: the loaded file, its last conversion, and the stream that it prints to.

    Args:
        out: where everything is printed.
        flags: how programs are loaded and which LM they ask.
        ask: asks the user a question and returns whether they said yes; ``None`` where nobody is there.
    """

    def __init__(self, out: TextIO, flags: ProgramFlags, ask: Callable[[str], bool | None]) -> None:
        self.out = out
        self.flags = flags
        self.ask = ask
        self.over = False
        self.file: Path | None = None
        self.program: str | None = None
        self.conversion: Conversion | None = None

    def take(self, line: str) -> None:
        """Carry out one line. An error is printed, and the shell goes on."""
        line = line.strip()
        if not line or line.startswith("#"):
            return
        try:
            if line.startswith("/"):
                self._command(line)
            elif line.lower() in ("exit", "quit", "q", "help"):
                self._command(f"/{line}")
            else:
                self._words(line)
        except KeyboardInterrupt:
            self.say("stopped")
        except (LiveError, ValueError) as error:
            self.say(str(error))
        except SystemExit as error:
            self.say(f"the program ended itself with status {error.code}")
        except Exception as error:
            self.say(f"{type(error).__name__}: {error}")

    def say(self, text: str) -> None:
        """Print one remark."""
        print(text, file=self.out, flush=True)

    def words(self) -> dict[str, str]:
        """Return what may be typed, for completion."""
        found = dict(COMMANDS)
        found |= {f"/explain {guide.name}": guide.title for guide in guides()}
        found |= {"/async example": "run and show an example", "/streaming example": "run and show an example"}
        try:
            found |= {f"/convert {kind}": about for kind, about in load_codemods().KINDS.items()}
        except ConfigurationError:
            pass
        return found

    # ---- dispatch

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        name = _SAME.get(name.lower(), name.lower())
        method = getattr(self, f"do_{name[1:]}", None)
        if name in COMMANDS and method is not None:
            method(rest.strip())
            return
        topic = name[1:]
        if topic in {guide.name for guide in guides()} | set(ALIASES):
            self._topic(topic, rest.strip())
            return
        self.say(f"there is no command {name}; {suggest(name, [*COMMANDS, *_SAME], COMMANDS)}")

    def _words(self, line: str) -> None:
        first, _, rest = line.partition(" ")
        if first.lower() == "explain" and rest:
            self.do_explain(rest)
            return
        intent = route(line)
        if intent.what == "convert":
            self._requested(intent.kind, line)
        elif not is_words(line):
            self.say("Ask about dspy-live, or say what to do with your program; /help lists the commands.")
        elif intent.what == "example":
            assistant_output.show_example(assistant_output.page_for(line, example=True), self.out)
        else:
            self._answer(line)

    def _requested(self, kind: str, line: str) -> None:
        if self.file is not None:
            self.do_convert(kind)
            return
        self.say(f"No program is loaded: /load FILE, and then the same again, converts yours ({kind}).")
        self.say("Until then, the example of the guide:\n")
        assistant_output.show_example(assistant_output.page_for(line, example=True), self.out)

    def _answer(self, question: str) -> None:
        from dspy_live.cli.shell.answer import answered_by_lm

        if not answered_by_lm(question, self.flags, self.out, command="/explain"):
            assistant_output.show_answer(question, self.out, command="/explain")

    def _topic(self, topic: str, rest: str) -> None:
        guide = find_guide(topic)
        if rest.lower() in ("example", "examples"):
            assistant_output.show_example(guide, self.out)
        elif rest:
            self._answer(f"{topic} {rest}")
        else:
            assistant_output.show_guide(guide, self.out)

    # ---- guides

    def do_help(self, rest: str) -> None:
        """List the commands."""
        for name, about in COMMANDS.items():
            self.say(f"{name:<12}{about}")
        self.say("Or in plain words: “How do I stream only one field?”, “Add usage tracking to my program”.")

    def do_explain(self, rest: str) -> None:
        """Show a guide, or what answers a question."""
        if not rest:
            assistant_output.show_topics(self.out)
            return
        topic, _, last = rest.rpartition(" ")
        wants_example = bool(topic) and last.lower() in ("example", "examples")
        guide = assistant_output.topic_of(topic if wants_example else rest)
        if guide is not None:
            self._topic(guide.name, "example" if wants_example else "")
        else:
            self._answer(rest)

    def do_async(self, rest: str) -> None:
        """Show the guide to async, or its example."""
        self._topic("async", rest)

    def do_streaming(self, rest: str) -> None:
        """Show the guide to streaming, or its example."""
        self._topic("streaming", rest)

    # ---- the user's program

    def do_load(self, rest: str) -> None:
        """Read a program: nothing of it is run."""
        words = shlex.split(rest)
        if not words:
            raise ConfigurationError(
                "which file? /load program.py, or /load program.py NAME for one program of several"
            )
        path, codemods = Path(words[0]).expanduser(), load_codemods()
        source = codemods.Source(read_source(path))
        found = codemods.candidates(source)
        self.file, self.program, self.conversion = path, words[1] if len(words) > 1 else None, None
        names = [candidate.name for candidate in found]
        if self.program is not None and self.program not in names:
            names.append(self.program)
        self.say(f"{path}: {', '.join(names) or 'no program'}")
        if not names:
            self.say(codemods.no_program_text(source))
        elif len(names) > 1 and self.program is None:
            self.say(f"Where one is meant, name it: /load {path} {names[0]}")

    def do_show(self, rest: str) -> None:
        """Show the loaded file, or the last conversion of it."""
        text = self.conversion.new if self.conversion is not None and rest == "new" else read_source(self._loaded())
        assistant_output.show_code(text, self.out)

    def do_convert(self, rest: str) -> None:
        """Convert the loaded program, run the result if the user agrees, and show it."""
        words = shlex.split(rest)
        run = True if "--run" in words else False if "--no-run" in words else None
        write = "--write" in words
        words = [word for word in words if not word.startswith("--")]
        codemods = load_codemods()
        if not words:
            raise ConfigurationError(f"which conversion? /convert {' | '.join(codemods.KINDS)}")
        file = self._loaded()
        name = words[1] if len(words) > 1 else self.program
        try:
            conversion = codemods.convert(
                words[0], read_source(file), program=name, file=file.name, folder=file.resolve().parent
            )
        except codemods.SeveralPrograms as error:
            raise ConfigurationError(f"{error} For example: /convert {words[0]} {error.candidates[0]}") from error
        for line in assistant_output.note_lines(conversion.notes):
            self.say(line)
        if not conversion.changed:
            return
        self.conversion = None
        agreed = run if run is not None else may_run(file.expanduser().resolve().parent, self.ask)
        if run is None and not agreed:
            self.say(f"Not run, so not shown: {HOW_TO_RUN}.")
            return
        works = proved(conversion, file, out=self.out) if agreed else None
        assistant_output.show_diff(conversion.diff, self.out)
        self.conversion = conversion
        if works is None:
            self.say("Not run: /convert KIND --run tries it against the simulated LM.")
        if write and works is not False:
            self.do_write("")
        elif write:
            self.say("Not written.")
        else:
            self.say("/write writes it." if works is not False else "It is not written unless you say /write.")

    def do_write(self, rest: str) -> None:
        """Write the last conversion."""
        if self.conversion is None:
            raise ConfigurationError("nothing was converted yet: /convert async, for example")
        self.say(f"written: {write_conversion(self.conversion, self._loaded())}")
        self.conversion = None

    def do_run(self, rest: str) -> None:
        """Run the loaded program with its own LM, or the simulated one."""
        from dspy_live.cli.shell.run import run_program

        run_program(self._target(), rest, self.flags, self.out, stream=False)

    def do_stream(self, rest: str) -> None:
        """The same, with its tokens as they come."""
        from dspy_live.cli.shell.run import run_program

        run_program(self._target(), rest, self.flags, self.out, stream=True)

    def do_serve(self, rest: str) -> None:
        """Serve the loaded program until Ctrl-C."""
        from dspy_live.cli.shell.run import serve_program

        target, port = self._target(), rest or "8000"
        if not port.isdigit():
            raise InputError(f"a port is a number; got {port!r}", field="port", expected="a number")
        serve_program(target, int(port), self.flags, self.out)

    # ---- usage and cache

    def do_usage(self, rest: str) -> None:
        """Print what the LM calls of this shell have used."""
        from dspy_live.observe.tracker import UsageTracker

        stats = UsageTracker().get_stats()
        for name in ("api_calls", "prompt_tokens", "completion_tokens", "total_tokens", "cache_hits", "errors"):
            self.say(f"{name:<20}{stats.get(name, 0)}")
        self.say(f"{'total_cost':<20}${stats['total_cost']:.4f} ({stats['unpriced_calls']} calls of unknown price)")

    def do_cache(self, rest: str) -> None:
        """Print the cache's statistics, or clear it."""
        from dspy_live.cli.shell.run import cache_lines, clear_cache

        if rest == "clear":
            if self.ask("Delete every cached answer?") or not sys.stdin.isatty():
                self.say(clear_cache())
            return
        if rest:
            raise ConfigurationError(f"/cache shows statistics, /cache clear deletes; there is no /cache {rest}")
        for line in cache_lines():
            self.say(line)

    def do_exit(self, rest: str) -> None:
        """Leave the shell."""
        self.over = True

    # ---- helpers

    def _loaded(self) -> Path:
        if self.file is None:
            raise ConfigurationError("no program is loaded: /load FILE")
        return self.file

    def _target(self) -> str:
        file = self._loaded()
        return f"{file}:{self.program}" if self.program else str(file)
