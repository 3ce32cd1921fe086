"""The options of a server: what the flags say, then the configuration file, then the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.observers import ObserveFlags
from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile

LAME_DUCK = 5.0
"""Seconds of ``--lame-duck`` where nobody sits at a terminal: balancers ask for readiness every 2 to 5 seconds."""
MAX_BODY = 16 << 20


@dataclass(frozen=True)
class ServeOptions:
    """The options of a server's process; the process of ``--reload`` gets them too, and reads the file again.

    Args:
        targets: programs of the command line, in place of the file's.
        config: the configuration file, or ``None``.
        keys: keys of the command line, by name.
        key_store: the file of keys that the command line names.
        app: further options of ``create_app``.
        sim: simulated answers are wanted.
        timeout: seconds for a run, for all programs.
    """

    targets: tuple[str, ...]
    flags: ProgramFlags
    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Mapping[str, str] = field(default_factory=dict)
    key_store: Path | None = None
    app: Mapping[str, Any] = field(default_factory=dict)
    observe: ObserveFlags = field(default_factory=ObserveFlags)
    drain: float = 30.0
    lame_duck: float = 0.0
    tls: Mapping[str, Any] = field(default_factory=dict)
    sim: bool = False
    max_active: int | None = None
    timeout: float | None = None
    no_auth: bool = False

    def file(self) -> ConfigFile:
        """Read the configuration file; without one everything has its default."""
        return read_file(self.config)


def read_file(path: Path | None) -> ConfigFile:
    """Read a configuration file, or return an empty configuration. Raises :class:`ConfigurationError` for mistakes."""
    from dspy_live.loading.config.read import ConfigFile, read_config

    return ConfigFile(environ=os.environ) if path is None else read_config(path)


def app_options(file: ConfigFile, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of ``create_app``; of ``given``, what is ``None`` or empty comes from the file, or its default."""
    from dspy_live.sansio.quantities import bytes_of

    server, proxies, logging = file.config.server, file.config.proxies, file.config.logging
    in_file = {
        "origins": server.origins,
        "max_body": bytes_of(server.max_body) if server.max_body is not None else None,
        "grace": server.grace,
        "ready_lm": server.ready_lm,
        "keep_runs": server.keep_runs,
        "heartbeat": server.heartbeat,
        "sessions": None,
        "title": server.title,
        "playground": server.playground,
        "root_path": proxies.root_path,
        "forwarded_allow_ips": proxies.trusted,
    }
    defaults = {"max_body": MAX_BODY, "title": "dspy-live"}
    options = {name: _first(given.get(name), value, defaults.get(name)) for name, value in in_file.items()}
    wanted = _first(given.get("access_log"), logging.access, True)
    rate = _first(given.get("access_log_rate"), logging.access_rate, 1.0)
    if not 0 < rate <= 1:
        raise ConfigurationError(f"--access-log-rate must be over 0 and at most 1; got {rate:g}")
    options["access_log"] = rate if wanted else 0.0
    return {name: value for name, value in options.items() if value is not None}


def seconds(flag: str, given: float | None, in_file: float | None, default: float) -> float:
    """Return a time of 0 or more seconds: the flag's, the file's or the default."""
    if given is not None and not given >= 0:
        raise ConfigurationError(f"{flag} must be 0 or more seconds; got {given:g}")
    value: float = _first(given, in_file, default)
    return value


def tls_options(file: ConfigFile, chain: Path | None, key: Path | None, password_file: Path | None) -> dict[str, str]:
    """Return the options of ``serve()`` for the certificate, and check them before programs are opened."""
    from dspy_live.server.transport.tls import certificate_of

    password = None
    if chain is None and file.config.tls is not None:
        table = file.config.tls
        chain = file.near(table.certfile)
        key = key or (file.near(table.keyfile) if table.keyfile is not None else None)
        password_file = password_file or (file.near(table.password_file) if table.password_file is not None else None)
    if password_file is not None:
        try:
            password = password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"--tls-password-file {password_file} can't be read: {exc}") from None
    if (chain is None) and (key is not None or password is not None):
        raise ConfigurationError("--tls-key and --tls-password-file need --tls-cert, the certificate's file")
    certificate_of(chain, key, password)
    given = {"ssl_certfile": chain, "ssl_keyfile": key, "ssl_keyfile_password": password}
    return {name: str(value) for name, value in given.items() if value is not None}


def _first(*values: Any) -> Any:
    """Return the first value that is there; an empty tuple or text of a flag is not."""
    return next((value for value in values if value is not None and value not in ((), "")), None)
