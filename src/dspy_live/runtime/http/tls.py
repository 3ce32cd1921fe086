"""TLS contexts: which certificates are trusted."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How an https endpoint is checked.

    Args:
        verify: false accepts any certificate and any host name: for tests on one machine only.
        ca: a file or a directory of trusted certificates, instead of the usual ones.
        certificate: a file with our own client certificate, and its key unless ``key`` is given.
        key: a file with the client certificate's key.
        context: a finished context; all else is then ignored.
    """

    verify: bool = True
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    context: ssl.SSLContext | None = None


def make_context(options: TlsOptions) -> ssl.SSLContext:
    """Build a client context.

    Trusted are ``options.ca``, else ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` where they are set, else the
    system's store together with certifi's where it is installed. Raises ``ValueError`` that names a
    file which cannot be loaded.
    """
    if options.context is not None:
        return options.context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.ca:
        _load(context, options.ca)
    else:
        _load_usual(context)
    if options.certificate:
        try:
            context.load_cert_chain(options.certificate, options.key)
        except (OSError, ssl.SSLError) as exc:
            raise ValueError(f"the client certificate {options.certificate!r} cannot be loaded: {exc}") from None
    return context


def _load_usual(context: ssl.SSLContext) -> None:
    named = [path for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (path := os.environ.get(name))]
    for path in named:
        _load(context, path)
    if named:
        return
    context.load_default_certs()
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def _load(context: ssl.SSLContext, path: str) -> None:
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise ValueError(f"the certificates in {path!r} cannot be loaded: {exc}") from None
