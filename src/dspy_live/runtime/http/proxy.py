"""Which proxy stands between us and an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from dspy_live.runtime.http.request import Target, basic_auth


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``auth`` is a finished ``Proxy-Authorization`` or empty, and is never shown."""

    scheme: str
    host: str
    port: int
    auth: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Proxies:
    """The proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``), or given ones."""

    def __init__(self, urls: Mapping[str, str] | None = None) -> None:
        self._urls = dict(getproxies_environment() if urls is None else urls)
        self._known: dict[tuple[str, str, int], Proxy | None] = {}

    def proxy_for(self, target: Target) -> Proxy | None:
        """Return the proxy for a target, ``None`` to go there directly. Raises ``ValueError`` for one of no use."""
        if not self._urls:
            return None
        key = (target.scheme, target.host, target.port)
        if key not in self._known:
            self._known[key] = self._find(target)
        return self._known[key]

    def _find(self, target: Target) -> Proxy | None:
        url = self._urls.get(target.scheme) or self._urls.get("all")
        if not url or proxy_bypass_environment(target.address, self._urls):
            return None
        return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Take a proxy's URL apart; without a scheme it is ``http``. Raises ``ValueError`` that shows no password."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"the environment names a {parts.scheme} proxy; only http:// and https:// proxies work, "
            "or set NO_PROXY for this host"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Proxy(parts.scheme, parts.hostname, port, basic_auth(parts.username, parts.password))
