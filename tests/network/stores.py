"""Redis and PostgreSQL on hosts of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.network.namespaces import Host
from tests.support.databases import _exists, _program
from tests.support.until import until


def start_redis(host: Host, folder: Path) -> subprocess.Popen[bytes]:
    """Start a Redis or Valkey on a host."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    assert found, "no redis-server and no valkey-server: run scripts/install_system.sh"
    options = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        return host.start([found, "--port", "6379", *options], log=log, cwd=folder)


def start_postgres(host: Host, folder: Path) -> subprocess.Popen[bytes]:
    """Start a PostgreSQL on a host, with one database; it runs as another user than root."""
    user = "postgres" if _exists("postgres") else "nobody"
    home = folder / "postgres"
    home.mkdir()
    shutil.chown(home, user)
    data = home / "data"
    words = [_program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale"]
    made = subprocess.run(words, user=user, cwd=home, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {host.address}/24 trust\n")
    options = {"listen_addresses": "*", "unix_socket_directories": "", "fsync": "off"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    log = folder / "postgres.log"
    with log.open("wb") as out:
        process = host.start([_program("postgres"), "-D", str(data), *flags], log=out, user=user, cwd=home)
    until(lambda: process.poll() is not None or b"ready to accept" in log.read_bytes())
    assert process.poll() is None, log.read_text()
    return process
