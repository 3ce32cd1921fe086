"""One replica: the server's application inside a process of Ray Serve, as its ingress.

Nothing of the user's travels to it as an object. It gets the options that ``dspy-live serve`` has made of flags and
file, reads the file, and opens the programs by their targets.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from dspy_live.cli.on_ray.replicas import Replicas
    from dspy_live.cli.serve_options import ServeOptions

log = logging.getLogger("dspy_live.server")

NAME = "dspy-live"
END_SECONDS = 10.0
"""Seconds that a replica has after its drain, to write what its ledger holds, before Ray kills it."""
MOST_REQUESTS = 100_000
"""Requests that Ray gives to one replica at once. Ray's own default of 5 would keep the others waiting unseen;
``--max-active`` is the limit, and refuses with 503 what goes beyond it."""

SURGE = 25
"""Percent of the replicas, and at least one, that are started in the place of old ones before those go: a full cluster
needs room for so many."""


class Replica:
    """The ASGI application of one replica.

    Args:
        options: what ``dspy-live serve`` was told.
        folder: where it was started; targets and the file are found from there.
        together: a folder where the replicas of a machine answer each other, so that metrics, statistics and the runs
            of ``POST /runs`` are those of all, whichever one is asked.
        began: when the server began, by ``time.monotonic()``.
    """

    def __init__(self, options: ServeOptions, folder: str, together: str, began: float) -> None:
        from dspy_live.cli.observers import observe
        from dspy_live.cli.server_process import make_app, open_served
        from dspy_live.loading.config.keys import ServerKeys, key_store_path
        from dspy_live.loading.config.store import store_of
        from dspy_live.loading.lm_settings import load_dotenv
        from dspy_live.server.transport.address import is_loopback

        if Path(folder).is_dir():
            os.chdir(folder)
        load_dotenv(Path(".env"), os.environ)
        self._drain = options.drain
        self._together, self._began = Path(together), began
        with ExitStack() as opened:
            file = options.file()
            store = key_store_path(file, options.key_store)
            keys = opened.enter_context(closing(ServerKeys(file, options.keys, store, store_of(file))))
            programs = open_served(options, file, keys.keep)
            observers = opened.enter_context(closing(observe(options.observe, file)))
            self.live = make_app(programs, options, file, observers, keys)
            self._opened = opened.pop_all()
        loopback = is_loopback(options.host)
        self.live.origins.local_only = loopback and not self.live.keys and self.live.proxies is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the end of Ray's lifespan drains and closes."""
        if scope["type"] != "lifespan":
            await self.live(scope, receive, send)
            return
        await receive()
        await self._begin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self._end()
        finally:
            await send({"type": "lifespan.shutdown.complete"})

    async def _begin(self) -> None:
        from dspy_live.server.workers.siblings import Siblings

        self._together.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._siblings = Siblings(self.live, self._together, os.getpid(), self._began)
        await self._siblings.__aenter__()

    async def _end(self) -> None:
        # Ray has waited for requests; runs of POST /runs may still go on.
        with self._opened:
            await self.live.drain(self._drain)
            await self._siblings.__aexit__()
            if self.live.shared_runs is not None:
                await self.live.shared_runs.aclose()
            await self.live.sessions.store.aclose()
            await self.live.runs.lm.close()


def deployment(
    options: ServeOptions, replicas: Replicas, folder: str, together: str, began: float, actor: dict[str, Any]
) -> Any:
    """Return the Ray Serve application whose ingress is our server's application.

    Args:
        options: what ``dspy-live serve`` was told.
        replicas: how many there are.
        folder: where it was started.
        together: where the replicas of a machine answer each other.
        began: when the server began, by ``time.monotonic()``.
        actor: the options of their actors.
    """
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    from dspy_live.cli.on_ray.autoscaling import ACTIVE

    def build() -> Replica:
        return Replica(options, folder, together, began)

    @serve.ingress(build)
    class Programs:
        app: Replica

        def __init__(self, generation: int) -> None:
            """Take the number of the deployment: Ray renews replicas only where something differs."""

        async def check_health(self) -> None:
            """Prove that the loop of the programs turns: Ray ends a replica whose loop is blocked for 30 s."""

        def record_autoscaling_stats(self) -> dict[str, float]:
            """Tell the runs that are under way."""
            return {ACTIVE: float(len(self.app.live.runs))}

    how_many: dict[str, Any] = {"num_replicas": replicas.least}
    if not replicas.fixed:
        policy = AutoscalingPolicy(
            policy_function="dspy_live.cli.on_ray.autoscaling:RunsPerReplica",
            policy_kwargs={"active": replicas.active},
        )
        how_many = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=replicas.least,
                max_replicas=replicas.most,
                target_ongoing_requests=float(replicas.active),
                upscale_delay_s=replicas.up_delay,
                downscale_delay_s=replicas.down_delay,
                look_back_period_s=5.0,
                policy=policy,
            )
        }
    made = serve.deployment(
        Programs,
        name=NAME,
        max_ongoing_requests=MOST_REQUESTS,
        graceful_shutdown_timeout_s=options.drain + END_SECONDS,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5.0,
        max_constructor_retry_count=2,
        max_surge_percent=SURGE,
        ray_actor_options=actor,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        **how_many,
    )
    return made.bind(time.time_ns())
