"""The server's certificate: read at the start, checked there, and read again when it was renewed."""

from __future__ import annotations

import ssl
from pathlib import Path

from dspy_live.core.errors import ConfigurationError


class Certificate:
    """A certificate chain with its key, and the TLS context that uses them: TLS 1.2 or newer.

    Args:
        chain: a file in PEM: the server's certificate, then those between it and its authority.
        key: the file of its private key, in PEM; by default it is in ``chain`` too.
        password: of an encrypted key.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` that says which of them is wrong.
    """

    def __init__(self, chain: str | Path, key: str | Path | None = None, password: str | None = None) -> None:
        self.chain = Path(chain)
        self.key = Path(key) if key is not None else self.chain
        self._password = password
        self._try()
        self.context = _context()
        self._load(self.context)

    def reload(self) -> None:
        """Read the files again, for the handshakes from now on; connections stay as they are.

        Raises :class:`~dspy_live.core.errors.ConfigurationError` for files that can't be used, and then goes on with
        what it had.
        """
        self._try()
        self._load(self.context)

    def _try(self) -> None:
        # In a context of its own: one that fails half-way has a new chain and an old key.
        for file, what in ((self.chain, "certificate"), (self.key, "private key")):
            try:
                text = file.read_bytes()
            except OSError as exc:
                raise ConfigurationError(f"the {what} {str(file)!r} can't be read: {exc.strerror}") from None
            if f"{what.upper()}-----".encode() not in text:
                raise ConfigurationError(f"{str(file)!r} has no {what} in PEM (-----BEGIN …{what.upper()}-----)")
        self._load(_context())

    def _load(self, context: ssl.SSLContext) -> None:
        asked = []

        def password() -> str:
            asked.append(True)  # without this, OpenSSL would ask at the terminal, and wait
            return self._password or ""

        try:
            context.load_cert_chain(self.chain, self.key, password)
        except (OSError, ValueError) as exc:
            if not asked:
                why = f"does not belong to the certificate {str(self.chain)!r}, or one of them is damaged"
                why += f": {getattr(exc, 'reason', None) or exc}"
            elif self._password:
                why = "is encrypted, and not with this password"
            else:
                why = "is encrypted: give its password"
            raise ConfigurationError(f"the private key {str(self.key)!r} {why}") from None


def certificate_of(chain: str | Path | None, key: str | Path | None, password: str | None) -> Certificate | None:
    """Return the certificate of these three options, ``None`` where there is none.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a key or a password without one.
    """
    if chain is not None:
        return Certificate(chain, key, password)
    if key is not None or password is not None:
        raise ConfigurationError("a private key is of no use without its certificate: name the certificate's file too")
    return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
