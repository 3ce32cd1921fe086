"""``dspy-live convert``: a user's file, changed, proved, and written when asked."""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from cyclopts import Parameter

from dspy_live.assistant.consent import may_run
from dspy_live.core.errors import ConfigurationError

HOW_TO_RUN = "--run runs your file's code against the simulated LM; --no-run shows the result as it is"

if TYPE_CHECKING:
    from dspy_live.assistant.convert import Conversion


Kind = Literal["async", "streaming", "usage", "caching", "logging", "serving", "fastapi", "tests"]
"""What shells complete; the conversions' own."""


def convert(
    kind: Annotated[Kind, Parameter(show_choices=False)],
    file: Path,
    /,
    *,
    program: str | None = None,
    write: Annotated[bool, Parameter(negative="")] = False,
    run: bool | None = None,
    timeout: float = 60.0,
) -> int:
    """Convert a file with a DSPy program, and show the difference.

    The result is run against the simulated LM before it is shown. That runs your file's code: you are asked once for
    each folder, and the answer is kept. Nothing is written without --write.

    Args:
        kind: async, streaming, usage, caching, logging, serving, fastapi or tests.
        file: the Python file.
        program: which program is meant, where the file has several.
        write: write the result: into the file, or into a new file beside it.
        run: run the result first, whatever was answered; what fails is not written. --no-run shows it without.
        timeout: seconds that such a run may take.
    """
    from dspy_live.cli.screens import assistant_output

    conversion = convert_file(kind, file, program)
    for line in assistant_output.note_lines(conversion.notes):
        print(line, file=sys.stderr)
    if not conversion.changed:
        return 0
    agreed = run if run is not None else may_run(file.expanduser().resolve().parent, _ask)
    if run is None and not agreed:
        written = ", nor written" if write else ""
        print(f"not run, so not shown{written}: {HOW_TO_RUN}", file=sys.stderr)
        return 1
    works = proved(conversion, file, timeout) if agreed else True
    assistant_output.show_diff(conversion.diff, sys.stdout)
    if not agreed:
        print("not run: --run tries it against the simulated LM", file=sys.stderr)
    if not works:
        if write:
            print("not written", file=sys.stderr)
        return 1
    if write:
        print(f"written: {write_conversion(conversion, file)}", file=sys.stderr)
    return 0


def _ask(question: str) -> bool | None:
    """Ask on stderr; ``None`` where no person sits at the terminal."""
    from dspy_live.cli.screens import assistant_output

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return assistant_output.ask(question, sys.stderr)


def convert_file(kind: str, file: Path, program: str | None = None) -> Conversion:
    """Read and convert a file.

    Raises :class:`ConfigurationError` when it can't be read, and what
    :func:`dspy_live.assistant.convert.convert` raises; the message offers the choice where there is one.
    """
    codemods = load_codemods()
    text = read_source(file)
    try:
        conversion: Conversion = codemods.convert(
            kind, text, program=program, file=file.name, folder=file.expanduser().resolve().parent
        )
        return conversion
    except codemods.SeveralPrograms as error:
        raise ConfigurationError(f"{error} For example: --program {error.candidates[0]}") from error


def read_source(file: Path) -> str:
    """Return a file's text as it is, with its own line ends.

    Raises :class:`ConfigurationError` with the nearest name when there is no such file.
    """
    import difflib

    file = file.expanduser()
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near: list[str] = []
        if file.parent.is_dir():
            there = [path.stem for path in file.parent.glob("*.py") if path.is_file()]
            near = difflib.get_close_matches(file.stem, there, n=1)
        hint = f"; did you mean {file.parent / near[0]}.py?" if near else ""
        raise ConfigurationError(f"there is no file {file}{hint}") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{file} is a folder; name a Python file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"can't read {file}: {error.strerror}") from error


def proved(conversion: Conversion, file: Path, timeout: float = 60.0, out: TextIO | None = None) -> bool:
    """Run a conversion, say how it went (on stderr, or on ``out``), and return whether it ran through."""
    from dspy_live.assistant.proof import prove
    from dspy_live.cli.screens import assistant_output

    if (out or sys.stderr).isatty():
        print("Running the result with the simulated LM …", file=out or sys.stderr, flush=True)
    proof = prove(conversion, file.expanduser().resolve().parent, timeout=timeout)
    assistant_output.show_proof(proof, out or sys.stderr)
    return proof.ok


def write_conversion(conversion: Conversion, file: Path) -> Path:
    """Write a conversion's result in one step, with the file's own permissions; return the path.

    Raises :class:`ConfigurationError` when a new file would take the place of one that is there, and when the
    user's file has changed since it was read.
    """
    file = file.expanduser().resolve()
    target = file.parent / conversion.new_file if conversion.new_file else file
    if conversion.new_file and target.exists():
        raise ConfigurationError(f"{target} is there already; move it away first")
    if not conversion.new_file and read_source(file) != conversion.old:
        raise ConfigurationError(f"{file} has changed since it was read; convert it again")
    marked = not conversion.new_file and file.read_bytes().startswith(codecs.BOM_UTF8)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8-sig" if marked else "utf-8", newline="") as temporary:
            temporary.write(conversion.new)
        mode = file.stat().st_mode & 0o777
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def load_codemods() -> ModuleType:
    """Return the conversions; they need libcst, of the ``shell`` extra.

    Raises :class:`ConfigurationError` that names the extra.
    """
    try:
        from dspy_live.assistant import convert as codemods
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("libcst"):
            raise ConfigurationError("conversions need libcst: pip install 'dspy-live[shell]'") from error
        raise
    return codemods
