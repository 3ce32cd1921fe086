"""The balancers' files of ``deploy/`` for a site without TLS: all else in them is as it is installed, but
for the times between checks, which are shorter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.server.sites import put
from tests.support import balancers

NGINX, HAPROXY = 8080, 8081
ROOT = Path(__file__).parents[2]


def nginx_file(folder: Path, servers: Sequence[str]) -> Path:
    """Write ``deploy/nginx.conf`` with the addresses of two servers, and return its path."""
    replaced = {
        "127.0.0.1:8001 max_fails=1 fail_timeout=5s": f"{servers[0]} max_fails=1 fail_timeout=1s",
        "127.0.0.1:8002 max_fails=1 fail_timeout=5s": f"{servers[1]} max_fails=1 fail_timeout=1s",
        "listen 443 ssl http2 so_keepalive=30s:10s:3;": f"listen {NGINX} so_keepalive=1s:1s:2;",
        "  ssl_certificate     /etc/ssl/qa.example.com.pem;\n": "",
        "  ssl_certificate_key /etc/ssl/qa.example.com.key;\n": "",
        "  ssl_protocols TLSv1.2 TLSv1.3;\n": "",
    }
    return balancers.nginx_file(folder, put((ROOT / "deploy" / "nginx.conf").read_text(), replaced))


def haproxy_file(folder: Path, servers: Sequence[str]) -> Path:
    """Write ``deploy/haproxy.cfg`` with the addresses of two servers, and return its path."""
    replaced = {
        "127.0.0.1:8001\n": f"{servers[0]}\n",
        "127.0.0.1:8002\n": f"{servers[1]}\n",
        "  bind :80\n": f"  bind :{HAPROXY}\n",
        "  bind :443 ssl crt /etc/haproxy/qa.example.com.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2\n": "",
        "  http-request redirect scheme https code 301 unless { ssl_fc }\n": "",
        "X-Forwarded-Proto  https": "X-Forwarded-Proto  http",
        "inter 1s": "inter 200ms",
        "tcp-ut 20s": "tcp-ut 4s",
        "srvtcpka-idle  10s": "srvtcpka-idle 1s",
        "srvtcpka-intvl 5s": "srvtcpka-intvl 1s",
        "clitcpka-idle  30s": "clitcpka-idle 1s",
        "clitcpka-intvl 10s": "clitcpka-intvl 1s",
    }
    path = folder / "haproxy.cfg"
    path.write_text(put((ROOT / "deploy" / "haproxy.cfg").read_text(), replaced))
    return path
