"""An instance of sigstore of one's own, as far as a bundle shows it: an authority for certificates of minutes, a log of
certificates, a log of signatures (Rekor 1, and 2 with a time stamp), and the trust root that has their keys."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cofferdam.audit.tree import Tree, inclusion_proof, leaf_hash
from tests.brokers.patch.makers import run

IDENTITY = "https://forge.example/vendor/fw/release.yml@refs/tags/v2.1"
ISSUER = "https://tokens.forge.example"
SEEN, OF_OLD = (x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}") for number in (8, 1))
Json = dict[str, Any]
NOW = datetime.now(UTC).replace(microsecond=0)
SINCE = NOW - timedelta(days=100)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def der(public: Any) -> bytes:
    found: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Instance:
    """It signs for whom one says; `change` lies on the way."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.root_key, self.key, self.ct, self.rekor = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
        self.rekor2 = Ed25519PrivateKey.generate()
        self.root = self._authority(named("root"), self.root_key, named("root"), self.root_key)
        self.ca = self._authority(named("authority"), self.key, named("root"), self.root_key)
        self.stamp_key = ec.generate_private_key(ec.SECP256R1())
        self.stamper = (
            self._begun(named("stamps"), self.stamp_key, named("root"), NOW + timedelta(days=300))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .sign(self.root_key, SHA256())
        )

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(SINCE).not_valid_after(until)
        )  # fmt: skip

    def _authority(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, by: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        signs = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                               "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)  # fmt: skip
        return (
            self._begun(subject, key, issuer, NOW + timedelta(days=300))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, **signs), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .sign(by, SHA256())
        )

    def trust_root(self) -> Json:
        span = {"start": f"{SINCE:%Y-%m-%dT%H:%M:%SZ}"}

        def log(public: Any, kind: str = "PKIX_ECDSA_P256_SHA_256") -> Json:
            return {"baseUrl": "https://log.example", "hashAlgorithm": "SHA2_256",
                    "publicKey": {"rawBytes": b64(der(public)), "keyDetails": kind, "validFor": span},
                    "logId": {"keyId": b64(sha256(der(public)).digest())}}  # fmt: skip

        def authority(*chain: x509.Certificate) -> Json:
            found = [{"rawBytes": b64(each.public_bytes(Encoding.DER))} for each in chain]
            return {"subject": {"organization": "forge", "commonName": "authority"},
                    "certChain": {"certificates": found}, "validFor": span}  # fmt: skip

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor.public_key()), log(self.rekor2.public_key(), "PKIX_ED25519")],
            "certificateAuthorities": [authority(self.ca, self.root)],
            "ctlogs": [log(self.ct.public_key())],
            "timestampAuthorities": [authority(self.stamper, self.root)],
        }

    def certificate(
        self, key: ec.EllipticCurvePrivateKey, *, at: datetime, identity: str = IDENTITY, issuer: str = ISSUER,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING, shown: bool = True, old: str = "",
    ) -> x509.Certificate:  # fmt: skip
        name = x509.RFC822Name(identity) if "://" not in identity else x509.UniformResourceIdentifier(identity)
        said = issuer.encode()
        made = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(named("authority"))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(at - timedelta(minutes=1)).not_valid_after(at + timedelta(minutes=9))
            .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(OF_OLD, old.encode() if old else said), critical=False)
            .add_extension(x509.UnrecognizedExtension(SEEN, bytes([0x0C, len(said)]) + said), critical=False)
        )  # fmt: skip
        if not shown:
            return made.sign(self.key, SHA256())
        bare = made.sign(self.key, SHA256()).tbs_certificate_bytes
        time = (int(at.timestamp()) * 1000).to_bytes(8, "big")
        by = sha256(der(self.key.public_key())).digest()
        over = b"\0\0" + time + b"\0\1" + by + len(bare).to_bytes(3, "big") + bare + b"\0\0"
        value = self.ct.sign(over, ec.ECDSA(SHA256()))
        one = b"\0" + sha256(der(self.ct.public_key())).digest() + time + b"\0\0\4\3" + len(value).to_bytes(2, "big")
        one += value
        stamps = (len(one) + 2).to_bytes(2, "big") + len(one).to_bytes(2, "big") + one
        held = b"\4" + (bytes([len(stamps)]) if len(stamps) < 128 else b"\x81" + bytes([len(stamps)])) + stamps
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), held)
        return made.add_extension(extension, critical=False).sign(self.key, SHA256())

    def bundle(
        self, data: bytes, *, second: bool = False, at: datetime | None = None, entry_of: bytes | None = None,
        **how: Any,
    ) -> Json:  # fmt: skip
        """`second`: by Rekor 2, with a time stamp, which is of now, as `at` is; `entry_of`: what the log's entry is of,
        if of something else."""
        at = at or datetime.now(UTC).replace(microsecond=0)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certificate(key, at=at, **how)
        raw = certificate.public_bytes(Encoding.DER)
        digest, value = sha256(data).digest(), key.sign(data, ec.ECDSA(SHA256()))
        logged = sha256(entry_of).digest() if entry_of is not None else digest
        log: Any = self.rekor2 if second else self.rekor
        log_id = sha256(der(log.public_key())).digest()
        if second:
            verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": b64(raw)}}
            inner: Json = {"data": {"algorithm": "SHA2_256", "digest": b64(logged)},
                     "signature": {"content": b64(value), "verifier": verifier}}  # fmt: skip
            said: Json = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": inner}}
        else:
            pem = certificate.public_bytes(Encoding.PEM)
            said = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": logged.hex()}},
                "signature": {"content": b64(value), "publicKey": {"content": b64(pem)}}}}  # fmt: skip
        body = json.dumps(said, separators=(",", ":"), sort_keys=True).encode()
        entry: Json = {
            "logIndex": "2" if second else "1002", "logId": {"keyId": b64(log_id)}, "canonicalizedBody": b64(body),
            "kindVersion": {"kind": "hashedrekord", "version": said["apiVersion"]},
            "inclusionProof": self._place(body, log, log_id),
        }  # fmt: skip
        material: Json = {"certificate": {"rawBytes": b64(raw)}, "tlogEntries": [entry]}
        if second:
            stamps = [{"signedTimestamp": b64(self._stamp(value))}]
            material["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
        else:
            seconds = int(at.timestamp())
            promised = {"body": b64(body), "integratedTime": seconds, "logID": log_id.hex(), "logIndex": 1002}
            over = json.dumps(promised, separators=(",", ":"), sort_keys=True).encode()
            entry["integratedTime"] = str(seconds)
            promise = b64(self.rekor.sign(over, ec.ECDSA(SHA256())))
            entry["inclusionPromise"] = {"signedEntryTimestamp": promise}
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
            "messageSignature": {"messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                                 "signature": b64(value)},
        }  # fmt: skip

    def _place(self, body: bytes, log: Any, log_id: bytes) -> Json:
        """Its place in a tree of five entries, and the log's signature over that."""
        leaves = [leaf_hash(b"one"), leaf_hash(b"two"), leaf_hash(body), leaf_hash(b"four"), leaf_hash(b"five")]
        tree = Tree()
        for leaf in leaves:
            tree.add(leaf)
        root = tree.root()
        note = f"rekor.example\n5\n{b64(root)}\n"
        signed = log.sign(note.encode()) if log is self.rekor2 else log.sign(note.encode(), ec.ECDSA(SHA256()))
        proof = inclusion_proof(2, 5, lambda _level, first, count: leaves[first : first + count])
        line = f"\u2014 rekor.example {b64(log_id[:4] + signed)}\n"
        return {"logIndex": "2", "treeSize": "5", "rootHash": b64(root), "hashes": list(map(b64, proof)),
                "checkpoint": {"envelope": f"{note}\n{line}"}}  # fmt: skip

    def _stamp(self, value: bytes) -> bytes:
        folder = self.folder
        (folder / "signature").write_bytes(value)
        (folder / "stamper.pem").write_bytes(self.stamper.public_bytes(Encoding.PEM))
        (folder / "stamper.key").write_bytes(
            self.stamp_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (folder / "ts.conf").write_text(
            f"[tsa]\ndefault_tsa=one\n[one]\nserial={folder}/serial\ndefault_policy=1.2.3.4\ndigests=sha256\n"
            "signer_digest=sha256\n"
        )
        run("openssl", "ts", "-query", "-data", folder / "signature", "-sha256", "-no_nonce", "-out", folder / "query")
        run("openssl", "ts", "-reply", "-config", folder / "ts.conf", "-queryfile", folder / "query",
            "-signer", folder / "stamper.pem", "-inkey", folder / "stamper.key", "-out", folder / "answer")  # fmt: skip
        return (folder / "answer").read_bytes()


def changed(what: Json, change: Callable[[Json], object]) -> bytes:
    """As it is written, after a change."""
    found = copy.deepcopy(what)
    change(found)
    return json.dumps(found).encode()
