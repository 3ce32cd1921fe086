"""``dspy-live check``: every mistake of the configuration file, before a server meets it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import load_dotenv

if TYPE_CHECKING:
    from dspy_live.loading.config.mistakes import Mistake
    from dspy_live.loading.config.read import ConfigFile


def check(file: Annotated[Path, Parameter(name="--config")] = Path("dspy-live.toml"), *, load: bool = True) -> int:
    """Check a configuration file: say every mistake with its line, and load the programs.

    No LM is called and no port is taken. The exit status is 1 when anything is wrong.

    Args:
        file: the file; --config may stand before it, as with `serve`.
        load: load the programs that it names, which runs their code.
    """
    load_dotenv(Path(".env"), os.environ)
    from dspy_live.loading.config.mistakes import ConfigMistakes
    from dspy_live.loading.config.read import read_config

    try:
        read = read_config(file)
        if load and (found := _load(read)):
            raise ConfigMistakes(str(file), found)
    except ConfigMistakes as exc:
        count = len(exc.mistakes)
        print(f"{exc.message}\ndspy-live: {count} {'mistake' if count == 1 else 'mistakes'}", file=sys.stderr)
        return 1
    print(_summary(read, load))
    return 0


def _load(file: ConfigFile) -> list[Mistake]:
    """Load what the file names, as a server would. Returns what is wrong with it."""
    steps: list[tuple[tuple[str, ...], Callable[[], object]]] = [
        *((("lms", name), partial(_make_lm, file, name)) for name in file.config.lms),
        *((("programs", name, "target"), partial(_open_program, file, name)) for name in file.config.programs),
        (("tls",), partial(_read_certificate, file)),
        (("keys",), partial(_open_keys, file)),
        (("store",), partial(_open_store, file)),
        (("logging", "file"), partial(_find_log_folder, file)),
    ]
    found: list[Mistake] = []
    for key, step in steps:
        try:
            step()
        except ConfigurationError as exc:
            found.append(file.mistake(key, " ".join(exc.message.split())))
    return found


def _make_lm(file: ConfigFile, name: str) -> None:
    from dspy_live.loading.config.layers import LayerMaker
    from dspy_live.loading.config.lms import LMs

    LMs(file, LayerMaker()).make(name)


def _open_program(file: ConfigFile, name: str) -> None:
    from dspy_live.cli.flags import ProgramFlags
    from dspy_live.cli.open_program import settings_of
    from dspy_live.loading.config.layers import LayerMaker
    from dspy_live.loading.config.open import located, open_programs

    sim = file.config.server.sim
    settings = settings_of(ProgramFlags(), file, simulate=sim)
    open_programs(file, {name: located(file, file.config.programs[name])}, settings, LayerMaker(), one_lm=sim)


def _read_certificate(file: ConfigFile) -> None:
    from dspy_live.cli.serve_options import tls_options

    tls_options(file, None, None, None)


def _open_keys(file: ConfigFile) -> None:
    from dspy_live.loading.config.keys import ServerKeys, key_store_path

    with closing(ServerKeys(file, {}, key_store_path(file))):
        pass


def _open_store(file: ConfigFile) -> None:
    """Make what goes through the store; nothing is connected."""
    from dspy_live.loading.config.store import store_of

    store = store_of(file)
    if store is not None:
        from dspy_live.runtime.stores.line import Line

        Line(store.url, store.timeout)


def _find_log_folder(file: ConfigFile) -> None:
    place = file.config.logging.file
    if place is None:
        return
    path = file.near(place)
    if path.is_dir():
        raise ConfigurationError(f"{str(path)!r} is a folder; name a file")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {str(path.parent)!r} for the log; make it, or name another place")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigurationError(f"the log can't be written to {str(path)!r}: no permission")


def _summary(file: ConfigFile, loaded: bool) -> str:
    config = file.config
    counts = ", ".join(
        f"{count} {one if count == 1 else f'{one}s'}"
        for one, count in (
            ("program", len(config.programs)),
            ("LM", len(config.lms) + (config.lm is not None)),
            ("key", len(config.keys)),
        )
    )
    return f"{file.path}: no mistake ({counts}{'' if loaded else '; programs were not loaded'}){_shared(file)}"


def _shared(file: ConfigFile) -> str:
    from dspy_live.loading.config.sharing import shared_through
    from dspy_live.loading.config.store import store_of

    store = store_of(file)
    return "" if store is None else f"\n  shared through [store]   {', '.join(shared_through(store, file))}"
