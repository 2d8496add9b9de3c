"""An authority made up for a test, and what it signs; all of it is worthless a day later."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY_PASSWORD = "of-a-key"


@dataclass(frozen=True)
class Signed:
    """PEM files. `both`: key and certificate in one, as Kafka's brokers take them; `locked` is the key encrypted."""

    certificate: Path
    key: Path
    both: Path
    locked: Path


class Authority:
    def __init__(self, folder: Path, name: str = "cartoray tests' made-up authority") -> None:
        self._folder, self._name = folder, _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        root = (
            _unsigned(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, *hosts: str) -> Signed:
        """A certificate of `name` as common name, good for loopback and `hosts`, for servers and for clients."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.DNSName, ("localhost", *hosts)), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _unsigned(_named(name), self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        ).public_bytes(serialization.Encoding.PEM)
        signed = Signed(*(self._folder / f"{name}{end}" for end in (".crt", ".key", ".pem", ".locked.key")))
        encrypted = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
        for path, content in (
            (signed.certificate, certificate),
            (signed.key, _private(key, serialization.NoEncryption())),
            (signed.both, _private(key, serialization.NoEncryption()) + certificate),
            (signed.locked, _private(key, encrypted)),
        ):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return signed


def _private(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)  # noqa: TID251, a certificate is about the clock
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
