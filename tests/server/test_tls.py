"""TLS at the server itself: what a client gets, what a wrong certificate is told, how a renewed one is taken."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.runtime.http.certificates import Authority
from tests.server.support import qa
from tests.support.until import until

from dspy_live.core.errors import ConfigurationError
from dspy_live.server import create_app
from dspy_live.server.transport.serve import serve
from dspy_live.server.transport.tls import Certificate, certificate_of

ROOT = Path(__file__).parents[2]
PASSWORD = "a pass phrase"

SERVER = """
import sys
from tests.server.support import qa
from dspy_live.server import create_app
from dspy_live.server.transport.serve import serve
chain, key = sys.argv[1:]
serve(create_app(qa()), port=0, ssl_certfile=chain, ssl_keyfile=key, on_ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def encrypted(key: Path) -> Path:
    """The same key, in a file that is encrypted."""
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    scheme = serialization.BestAvailableEncryption(PASSWORD.encode())
    path = key.with_name("encrypted.key")
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, scheme))
    return path


def serial(port: int, context: ssl.SSLContext) -> str:
    """The number of the certificate that a new connection is shown."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            shown = tls.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])


def answered(connection: HTTPSConnection) -> bool:
    """Ask on a connection that is kept."""
    connection.request("POST", "/predict", json.dumps({"question": "x"}))
    with connection.getresponse() as reply:
        return b"You asked: x" in reply.read()


def test_a_server_speaks_tls_and_takes_a_renewed_certificate(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("127.0.0.1")
    context = ssl.create_default_context(cafile=str(authority.file))
    command = [sys.executable, "-c", SERVER, str(chain), str(key)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url.startswith("https://127.0.0.1:"), url + server.stdout.read()
            port = int(url.rpartition(":")[2])
            with closing(HTTPSConnection("127.0.0.1", port, timeout=60, context=context)) as kept:
                assert answered(kept)
                first = serial(port, context)
                chain.write_text("half a certificate")
                server.send_signal(signal.SIGHUP)
                told = server.stdout.readline()
                assert "the old certificate is kept" in told, told
                assert "no certificate in PEM" in told
                assert serial(port, context) == first
                authority.issue("127.0.0.1")
                server.send_signal(signal.SIGHUP)
                until(lambda: serial(port, context) != first)
                assert answered(kept)
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            server.kill()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_than_1_2_are_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    server = Certificate(*authority.issue("127.0.0.1")).context
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    client = ssl.create_default_context(cafile=str(authority.file))
    client.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of versions that old
        client.minimum_version = version
        client.maximum_version = version
    with pytest.raises(ssl.SSLError):
        shake(server, client)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Make a handshake in memory, and return the version that came of it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours.version()


def test_an_encrypted_key_and_one_in_the_certificates_own_file_are_read(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("127.0.0.1")
    client = ssl.create_default_context(cafile=str(authority.file))
    assert shake(Certificate(chain, encrypted(key), PASSWORD).context, client) == "TLSv1.3"
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    assert shake(Certificate(both).context, client) == "TLSv1.3"


MISTAKES: dict[str, tuple[Callable[[Path, Path, Authority], Certificate], str]] = {
    "no such file": (lambda chain, key, _: Certificate(chain.with_name("x.pem"), key), "x.pem.*can't be read: No such"),
    "the two exchanged": (lambda chain, key, _: Certificate(key, chain), "has no certificate in PEM"),
    "a key alone": (lambda chain, key, _: Certificate(chain), "has no private key in PEM"),
    "another's key": (lambda chain, _, ca: Certificate(chain, ca.issue("other")[1]), "does not belong to"),
    "no password": (lambda chain, key, _: Certificate(chain, encrypted(key)), "is encrypted: give its password"),
    "a wrong password": (lambda chain, key, _: Certificate(chain, encrypted(key), "x"), "not with this password"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_certificate_that_can_not_be_used_is_told(authority: Authority, mistake: str) -> None:
    make, told = MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=told) as refused:
        make(*authority.issue("127.0.0.1"), authority)
    assert PASSWORD not in refused.value.message


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    assert certificate_of(None, None, None) is None
    with pytest.raises(ConfigurationError, match="certificate"):
        serve(create_app(qa()), port=0, ssl_keyfile=str(tmp_path / "key.pem"))


def test_a_renewed_certificate_that_is_damaged_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("127.0.0.1")
    certificate = Certificate(chain, key)
    shutil.copy(authority.issue("other")[1], key)
    with pytest.raises(ConfigurationError, match="does not belong"):
        certificate.reload()
    client = ssl.create_default_context(cafile=str(authority.file))
    assert shake(certificate.context, client) == "TLSv1.3"
