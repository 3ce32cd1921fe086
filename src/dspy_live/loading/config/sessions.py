"""Where a server keeps its conversations: what the flag says, then the configuration file, then the environment."""

from __future__ import annotations

from collections.abc import Iterable

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.store import store_of
from dspy_live.runtime.home import home_file
from dspy_live.sansio.quantities import seconds_of
from dspy_live.server.routes.messages import history_input
from dspy_live.server.served import ServedProgram
from dspy_live.server.sessions import Sessions, SessionStore, open_sessions
from dspy_live.server.sessions.redis import RedisSessions
from dspy_live.server.sessions.sessions import DAY, MOST_TURNS

VARIABLE = "DSPY_LIVE_SESSIONS"


def sessions_of(given: str | None, file: ConfigFile, programs: Iterable[ServedProgram]) -> Sessions:
    """Return the sessions of a server; nothing is opened where no program has an input for a conversation.

    Args:
        given: the place that the command line names: a file, ``postgresql://…``, ``redis://…`` or ``memory``.
        file: the configuration file.
        programs: the server's.

    Raises :class:`ConfigurationError` where the place can't be used.
    """
    if all(history_input(program.schema) is None for program in programs):
        return Sessions()
    table = file.config.sessions
    place = given or _in_file(file)
    try:
        store: SessionStore
        if not place and (shared := store_of(file)) is not None:
            store = RedisSessions(shared.url, prefix=f"{shared.prefix}sessions:", timeout=shared.timeout)
        else:
            store = open_sessions(place or file.environ.get(VARIABLE) or str(home_file("sessions.db")))
    except ConfigurationError as exc:
        raise ConfigurationError(
            f"{exc.message}; name another place with --sessions or {VARIABLE}, such as memory"
        ) from None
    keep = 30 * DAY if table.keep is None else seconds_of(table.keep)
    return Sessions(store, retention=keep, most_turns=table.turns or MOST_TURNS)


def _in_file(file: ConfigFile) -> str | None:
    table = file.config.sessions
    place = file.secret(table.place, table.place_env)
    if place is None:
        return None
    return place if "://" in place or place == "memory" else str(file.near(place))
