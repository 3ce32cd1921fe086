"""The machine: port, files, descriptors, clock, proxies, certificates."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dspy_live.cli.doctor.finding import Finding

_FEW_DESCRIPTORS = 4096
_LITTLE_SPACE = 500_000_000
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_BUILT = 1_760_000_000
"""Unix seconds of a time before this version was made; a clock that is earlier is wrong."""


def port(host: str, number: int) -> Finding:
    """Look whether a server could listen there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        return Finding(
            "note", "port", f"{number} on {host} can't be used: {exc.strerror}", "take another with serve --port, or 0"
        )
    return Finding("ok", "port", f"{number} on {host} is free")


def folder(name: str, path: Path, do: str) -> Finding:
    """Look whether files can be made in a folder, or in the nearest one above that is there."""
    try:
        nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
        # Rights alone don't tell: root has all of them, on a file system that takes no files too.
        with tempfile.TemporaryFile(dir=nearest):
            free = shutil.disk_usage(nearest).free
    except OSError as exc:
        return Finding("bad", name, f"{path} can't be written: {exc.strerror}", do)
    if free < _LITTLE_SPACE:
        return Finding("note", name, f"{path}: {free / 1e6:,.0f} MB are free on its disk", "make room")
    return Finding("ok", name, str(path))


def database(name: str, path: Path, do: str) -> Finding:
    """Look whether an SQLite file can be written, without a change to it; one that isn't there is not made."""
    if not path.exists():
        found = folder(name, path.parent, do)
        return found._replace(detail=f"{path} (made with the first use)") if found.state == "ok" else found
    try:
        connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        return Finding("bad", name, f"{path} can't be written: {exc}", do)
    found = folder(name, path.parent, do)
    return found if found.state != "ok" else Finding("ok", name, str(path))


def descriptors() -> Iterator[Finding]:
    """Look at the number of files and sockets that a process may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _FEW_DESCRIPTORS:
        raised = f"; the server raises it to {hard if hard != resource.RLIM_INFINITY else 'what it needs'}"
        yield Finding("ok", "descriptors", f"{soft}{raised if soft != hard else ''}")
    else:
        do = "raise the hard limit: LimitNOFILE=65536 of systemd, ulimits of a container, /etc/security/limits.conf"
        yield Finding("note", "descriptors", f"{hard} at most; a stream takes two", do)


def clock(theirs: float | None) -> Finding:
    """Compare the clock with that of the LM's server, Unix seconds, where that is known."""
    now = time.time()
    do = "set the clock (timedatectl set-ntp true): certificates, limits by day and logs go by it"
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _BUILT:
        return Finding("bad", "clock", f"{shown} is past", do)
    if theirs is not None and abs(theirs - now) > 60:
        return Finding("note", "clock", f"{shown}; the LM's server is {theirs - now:+,.0f} s off", do)
    return Finding("ok", "clock", shown)


def proxies() -> Finding:
    """Say which proxies the environment names, without their passwords."""
    found = {name: os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES}
    named = {name: value for name, value in found.items() if value}
    if not named.keys() - {"NO_PROXY"}:
        return Finding("ok", "proxies", "none in the environment")
    told = ", ".join(f"{name} {_without_login(value)}" for name, value in named.items())
    return Finding("note", "proxies", told, "LMs are asked through these; name hosts in NO_PROXY to go there directly")


def certificates() -> Iterator[Finding]:
    """Look at the variables that replace the authorities of certificates."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        place = os.environ.get(name)
        if place and not Path(place).exists():
            yield Finding(
                "bad", "certificates", f"{name} names {place}, which is not there", f"unset {name}, or mend it"
            )


def _without_login(url: str) -> str:
    if "@" not in url:
        return url
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return f"{parts.scheme}://…@{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
