"""A whole site on hosts of its own: two servers, nginx and HAProxy, Redis, PostgreSQL, an LM and a client."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from tests.network.balancers import HAPROXY, NGINX, haproxy_file, nginx_file
from tests.network.namespaces import Host, Network
from tests.network.stores import start_postgres, start_redis
from tests.support.balancers import program
from tests.support.until import until

from dspy_live.simulator.server import Simulator

ROOT = Path(__file__).parents[2]
PORT = 8000
NOTICE_SOON = {
    "tcp_retries2": 3,
    "tcp_keepalive_time": 1,
    "tcp_keepalive_intvl": 1,
    "tcp_keepalive_probes": 2,
}
"""A host with this notices within 3 seconds that another one has vanished; ``docs/scale.md`` says what to choose.

Not sooner: cables pass through this process, which stands still for two seconds at times on a busy machine.
"""
LITTLE_ROOM = {"tcp_wmem": "4096 4096 8192", "tcp_rmem": "4096 4096 8192"}
"""A host with this keeps little in its kernel, so that whoever sends to it feels soon that nobody reads."""
_CONFIG = """
[server]
host = "0.0.0.0"
port = {port}
no_auth = true
heartbeat = 0.5
grace = 30
lame_duck = 0.2
[lm]
model = "openai/simulated"
api_base = "{lm}"
cache = false
num_retries = 0
idle_timeout = 4
[proxies]
trusted = ["{balancer}"]
[store]
url = "{redis}"
[ledger]
place = "{postgres}"
[sessions]
place = "{postgres}"
[programs.qa]
target = "question -> answer"
[programs.limited]
target = "question -> answer"
[programs.limited.layers]
limit = {{ concurrency = 1, queue = 10 }}
[programs.counted]
target = "question -> answer"
[programs.chat]
target = "question, history: dspy.History -> answer"
"""


class Server:
    """One of the two servers; its log is kept for a test that fails."""

    def __init__(self, site: Site, host: Host) -> None:
        self.host = host
        self.url = f"http://{host.address}:{PORT}"
        self._site = site
        self.log = site.folder / f"{host.name}.log"
        folder = site.folder / host.name
        folder.mkdir()
        self._config = folder / "dspy-live.toml"
        addresses = {"redis": site.redis_url, "postgres": site.postgres_url, "balancer": site.balancer.address}
        self._config.write_text(_CONFIG.format(port=PORT, lm=site.lm.url, **addresses))
        self.start()

    def start(self) -> None:
        """Start its process; :meth:`wait` waits until it serves."""
        words = [sys.executable, "-m", "dspy_live", "serve", "--config", str(self._config)]
        environ = {**os.environ, "DSPY_LIVE_HOME": str(self._config.parent)}
        with self.log.open("ab") as log:
            self.process = self.host.start(words, log=log, environ=environ, cwd=self._config.parent)

    def wait(self) -> None:
        """Wait until it serves."""
        until(lambda: self.process.poll() is not None or self._site.status(self.url) == 200, 150)
        assert self.process.poll() is None, self.log.read_text(errors="replace")

    def stats(self) -> dict[str, Any]:
        """Return what its ``/stats`` tells."""
        found: dict[str, Any] = orjson.loads(self._site.ask(self.url, "/stats")[1])
        return found

    @property
    def active(self) -> int:
        """Runs that are under way in it."""
        return int(self.stats()["active"])


class Site:
    """Everything, running. ``client`` and server ``one`` are wired: their cables can be made bad."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.client = network.host("client", wired=True)
        self.probe = network.host("probe")
        self.balancer = network.host("balancer")
        self.balancer.set(**NOTICE_SOON)
        self.redis, self.postgres, self.model = (network.host(name) for name in ("redis", "postgres", "model"))
        hosts = network.host("one", wired=True), network.host("two")
        self.processes = {"redis": start_redis(self.redis, folder), "postgres": start_postgres(self.postgres, folder)}
        for host in (self.model, hosts[0]):
            host.set(**LITTLE_ROOM)
        self.redis_url = f"redis://{self.redis.address}:6379"
        self.postgres_url = f"postgresql://postgres@{self.postgres.address}/postgres"
        self.lm = Simulator(tokens_per_second=200, length=12)
        self._stack = contextlib.ExitStack()
        with self.model.inside():
            self._stack.enter_context(self.lm.running(self.model.address))
        self.one, self.two = (Server(self, host) for host in hosts)
        self.servers = (self.one, self.two)
        self.nginx = f"http://{self.balancer.address}:{NGINX}"
        self.haproxy = f"http://{self.balancer.address}:{HAPROXY}"
        for server in self.servers:
            server.wait()
        self.processes |= {server.host.name: server.process for server in self.servers}
        self._start_balancers()

    def _start_balancers(self) -> None:
        addresses = [f"{server.host.address}:{PORT}" for server in self.servers]
        with (self.folder / "balancers.log").open("ab") as log:
            nginx = [program("nginx"), "-p", str(self.folder), "-c", str(nginx_file(self.folder, addresses))]
            self.processes["nginx"] = self.balancer.start([*nginx, "-e", "stderr"], log=log)
            haproxy = [program("haproxy"), "-db", "-f", str(haproxy_file(self.folder, addresses))]
            self.processes["haproxy"] = self.balancer.start(haproxy, log=log)
        for url in (self.nginx, self.haproxy):
            until(lambda url=url: self.status(url) == 200)  # type: ignore[misc]

    def ask(self, url: str, path: str, timeout: float = 10.0) -> tuple[int, bytes]:
        """Send a GET from a host whose cable is good; return the status, 0 where nobody answers, and the body."""
        with self.probe.inside():
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("GET", path)
                reply = connection.getresponse()
                return reply.status, reply.read()
        return 0, b""

    def status(self, url: str) -> int:
        """Return the status of readiness, 0 where nobody answers."""
        return self.ask(url, "/health/ready")[0]

    def holder(self) -> Server:
        """Wait until one of the servers has a run under way, and return that server."""
        until(lambda: any(server.active for server in self.servers))
        return next(server for server in self.servers if server.active)

    def mend(self) -> None:
        """Make every cable good again, and wait until nothing is under way."""
        for host in (self.client, self.one.host):
            assert host.wire is not None
            host.wire.mend()
        self.balancer.set(**NOTICE_SOON)
        for host in (self.redis, self.postgres, self.model, self.two.host):
            host.plug_in()
        until(lambda: not any(server.active for server in self.servers))
        for url in (self.nginx, self.haproxy):
            until(lambda url=url: self.status(url) == 200)  # type: ignore[misc]

    def logs(self) -> list[Path]:
        """Return the log of each process."""
        return sorted(self.folder.glob("*.log"))

    def close(self) -> None:
        """End the LM's server; the network kills the processes."""
        self._stack.close()


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """Build a site, and tear it down whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="dspy-live-network-"))
    folder.chmod(0o755)
    try:
        with Network() as network:
            site = Site(network, folder)
            try:
                yield site
            finally:
                site.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
