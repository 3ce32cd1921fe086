"""Certificates for tests, made here and nowhere kept."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_COMMON_NAME = "a test's authority"


class Authority:
    """A certificate authority in a folder: ``ca.pem``, and server contexts that it vouches for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
        self._certificate = self._sign(self._name, self._key, [], ca=True)
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def hashed_name(self) -> str:
        """What OpenSSL looks for in a directory of certificates: SHA-1 of the subject, in its canonical form."""
        text = b"\x0c" + bytes([len(_COMMON_NAME)]) + _COMMON_NAME.encode()
        pair = b"\x06\x03\x55\x04\x03" + text
        sequence = b"\x30" + bytes([len(pair)]) + pair
        digest = hashlib.sha1(b"\x31" + bytes([len(sequence)]) + sequence).digest()
        return f"{int.from_bytes(digest[:4], 'little'):08x}"

    def issue(self, *names: str, days: int = 1) -> tuple[Path, Path]:
        """Return the files of a certificate for host names and addresses, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._sign(subject, key, list(names), days=days)
        stem = self.folder / names[0].replace(":", "_")
        files = stem.with_suffix(".pem"), stem.with_suffix(".key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def server(self, *names: str, days: int = 1, client_ca: bool = False) -> ssl.SSLContext:
        """Return a server's context; with ``client_ca`` it wants a client certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names, days=days))
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, names: list[str], *, ca: bool = False, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if ca:
            builder = builder.add_extension(_SIGNS, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


_USES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement".split()
_SIGNS = x509.KeyUsage(
    **dict.fromkeys(_USES, False), key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
)
"""What an authority's key is for; Python from 3.13 on asks for it."""


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
