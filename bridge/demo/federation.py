"""Two homeservers that federate on one machine: a certificate authority of our own and names on loopback.

A server name with a port is looked up neither by ``.well-known`` nor by SRV (server-server API, "Resolving server
names"), and ``localhost`` stands in the hosts file: nothing is asked of any DNS server.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.demo.synapse import FederationSettings

_HOST = "localhost"
_ADDRESS = ipaddress.ip_address("127.0.0.1")
_VALID = timedelta(days=365)
_SLACK = timedelta(days=1)  # for clocks that differ, and so that a certificate is renewed before it ends


def server_name(federation_port: int) -> str:
    """The name of a homeserver of this machine whose federation listener has that port."""
    return f"{_HOST}:{federation_port}"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a directory: ``ca.crt`` is public, ``ca.key`` signs."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def key(self) -> Path:
        return self.directory / "ca.key"

    def settings(self, port: int, allow: tuple[str, ...]) -> FederationSettings:
        """Federation for one homeserver, with a new certificate for it. ``allow``: the other server names."""
        certificate, key = self.directory / f"{port}.crt", self.directory / f"{port}.key"
        own_key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signed = (
            _builder(f"{_HOST}:{port}", authority.subject, own_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(_HOST), x509.IPAddress(_ADDRESS)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(authority)),
                critical=False,
            )
            .sign(_load_key(self.key), hashes.SHA256())
        )
        _write_key(key, own_key)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return FederationSettings(port, certificate, key, self.certificate, allow)


def make_authority(directory: Path) -> Authority:
    """The authority in ``directory``; made where there is none, or where it ends within a day."""
    authority = Authority(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if authority.key.exists() and authority.certificate.exists():
        ends = x509.load_pem_x509_certificate(authority.certificate.read_bytes()).not_valid_after_utc
        if ends - datetime.now(UTC) > _SLACK:
            return authority
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Eyvan demo authority")
    signed = (
        _builder("Eyvan demo authority", subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(authority.key, key)
    authority.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return authority


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + _VALID)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text)
