"""``dspy-live doctor``: what a support engineer would ask first, and what to do about each answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspy_live.cli.doctor.finding import Finding, print_findings
from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import LMSettings, load_dotenv

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile


def doctor(
    target: str | None = None,
    /,
    *,
    port: int | None = None,
    network: bool = True,
    json: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
) -> int:
    """Look at what usually goes wrong, and say what to do about it.

    That is Python and the packages, the configuration, the LM and its key, the port, the files, the machine. No LM
    call is made: the endpoint is asked for its list of models, which is free. The exit status is 1 when something that
    is needed is missing.

    Args:
        target: a program to load as well.
        port: a port that must be free for a server; the configuration's, else 8000, by default.
        network: ask the LM's endpoint and the shared store whether they answer.
        json: print the findings as JSON.
    """
    if port is not None and not 0 <= port <= 65_535:
        raise ConfigurationError(f"a port is a number from 0 to 65535; got {port}")
    findings = list(_findings(target, port, network, flags or ProgramFlags()))
    if json:
        import orjson

        print(orjson.dumps([f._asdict() for f in findings]).decode())
    else:
        print_findings(findings, sys.stdout)
    return 1 if any(f.state == "bad" for f in findings) else 0


def _findings(target: str | None, port: int | None, network: bool, flags: ProgramFlags) -> Iterator[Finding]:
    # First: the program's own settings may stand there too, such as where the cache is.
    yield from _dotenv()
    from dspy_live.cli.doctor import configured, installation, lm, machine
    from dspy_live.cli.open_program import settings_of

    file, told = configured.configuration(flags.config)
    yield from installation.installation(configured.needed_extras(file))
    yield told
    settings = lm.settings_or_finding(partial(settings_of, flags, file, simulate=file.config.server.sim))
    date = None
    if isinstance(settings, Finding):
        yield settings
    elif target is not None:
        yield from _program(target, flags, settings)
    elif settings.model is not None or settings.simulate or not _each_has_its_lm(file):
        yield from lm.named(settings)
    if network and isinstance(settings, LMSettings):
        answered, date = lm.asked(settings)
        if answered is not None:
            yield answered
    if not isinstance(settings, Finding) and not settings.simulate:
        yield from lm.further(file, network)
    server = file.config.server
    number = port if port is not None else server.port if server.port is not None else 8000
    yield machine.port(server.host or "127.0.0.1", number)
    cache = Path(os.environ.get("DSPY_CACHEDIR") or Path.home() / ".dspy_cache")
    yield machine.folder("cache", cache, "set DSPY_CACHEDIR")
    yield from configured.places(file, network)
    yield from machine.descriptors()
    yield machine.clock(date)
    yield machine.proxies()
    yield from machine.certificates()


def _each_has_its_lm(file: ConfigFile) -> bool:
    programs = file.config.programs.values()
    return bool(programs) and all(program.lm is not None for program in programs)


def _dotenv() -> Iterator[Finding]:
    try:
        load_dotenv(Path(".env"), os.environ)
    except ConfigurationError as exc:
        yield Finding("bad", ".env", exc.message, "make it readable, in UTF-8")


def _program(target: str, flags: ProgramFlags, settings: LMSettings) -> Iterator[Finding]:
    from dspy_live.loading.open_program import open_program

    try:
        program = open_program(
            target, settings, state=flags.state, allow_pickle=flags.allow_pickle, execution=flags.execution
        )
    except ConfigurationError as exc:
        yield Finding("bad", "program", exc.message.replace("\n", " "), "mend the target, or the line it names")
        return
    schema = program.schema
    inputs, outputs = (", ".join(f"{f.name}: {f.type}" for f in fields) for fields in (schema.inputs, schema.outputs))
    yield Finding("ok", "program", f"{program.loaded.name}: {inputs or 'any'} -> {outputs or 'any'}")
    do = "name one: model in [lm] of dspy-live.toml, --lm, or DSPY_LIVE_LM in .env" if program.lm.simulated else ""
    yield Finding("note" if program.lm.simulated else "ok", "lm", program.lm.label, do)
