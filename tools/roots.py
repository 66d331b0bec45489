"""
The root certificates in src/lambdadb/roots: written from AWS's published bundles, checked and listed.

    curl -O https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
    python tools/roots.py global-bundle.pem

Without a bundle it lists the roots that are there. Needs `cryptography`, which the group `test` brings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ROOTS = Path(__file__).parents[1] / "src" / "lambdadb" / "roots"
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
RDS = re.compile(
    r"Amazon RDS (?P<region>[a-z]+-[a-z0-9-]+) Root CA (?P<key>RSA2048|RSA4096|ECC384) G\d+"
)
# The default authority of RDS first, as in AWS's own bundles of one region.
KEYS = ["RSA2048", "RSA4096", "ECC384"]
# amazontrust.com/repository: the certificates of RDS Proxy are signed by one of these.
PUBLIC = re.compile(r"Amazon Root CA [1-4]|Starfield Services Root Certificate Authority - G2")


def certificates(file: Path) -> Iterator[x509.Certificate]:
    for pem in PEM.findall(file.read_bytes()):
        yield x509.load_pem_x509_certificate(pem)


def name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def is_root(certificate: x509.Certificate) -> bool:
    """Signed by itself, and so no intermediate, which AWS replaces without notice."""
    if certificate.issuer != certificate.subject:
        return False
    certificate.verify_directly_issued_by(certificate)
    usage = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    return usage.ca and certificate.not_valid_after_utc > datetime.now(timezone.utc)


def file_of(certificate: x509.Certificate) -> str | None:
    """The file that a root belongs in; None for all that lambdadb does not need."""
    if found := RDS.fullmatch(name(certificate)):
        return f"{found['region']}.pem"
    return "proxy.pem" if PUBLIC.fullmatch(name(certificate)) else None


def place(certificate: x509.Certificate) -> tuple[int, str]:
    """Where a root stands in its file."""
    found = RDS.fullmatch(name(certificate))
    return (KEYS.index(found["key"]) if found else 0, name(certificate))


def write(bundles: list[Path]) -> None:
    """The files of every region, and of RDS Proxy, that the bundles have roots of."""
    files: dict[str, dict[bytes, x509.Certificate]] = {}
    for certificate in (c for bundle in bundles for c in certificates(bundle)):
        if (file := file_of(certificate)) and is_root(certificate):
            files.setdefault(file, {})[certificate.fingerprint(SHA256())] = certificate
    for file, roots in files.items():
        ordered = sorted(roots.values(), key=place)
        (ROOTS / file).write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in ordered))


def shipped() -> dict[str, str]:
    """A line for each root, by file and fingerprint."""
    lines = {}
    for file in sorted(ROOTS.glob("*.pem")):
        for certificate in certificates(file):
            digest = certificate.fingerprint(SHA256()).hex()
            until = certificate.not_valid_after_utc.date()
            lines[f"{file.stem} {digest}"] = f"{file.stem:15} {until} {digest} {name(certificate)}"
    return lines


def main() -> None:
    before = shipped()
    write([Path(argument) for argument in sys.argv[1:]])
    after = shipped()
    for key in sorted(before.keys() | after.keys()):
        change = " " if key in before and key in after else "+" if key in after else "-"
        print(change, after.get(key) or before[key])
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    print(f"{len(after)} roots, {len(added)} added, {len(removed)} removed")


if __name__ == "__main__":
    main()
