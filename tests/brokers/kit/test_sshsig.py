"""Signatures by OpenSSH keys: what ssh-keygen makes holds, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cofferdam.brokers.kit import sshsig
from cofferdam.brokers.kit.sshsig import SignatureRefused
from tests.brokers.patch.makers import run

KINDS = ["ed25519", "ecdsa", "rsa"]


def made(folder: Path, kind: str, message: bytes, namespace: str = "test") -> tuple[bytes, bytes]:
    """(public key, signature) by ssh-keygen."""
    key, text = folder / "key", folder / "text"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key)
    text.write_bytes(message)
    run("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, text)
    public, _ = sshsig.read_key(key.with_suffix(".pub").read_text())
    return public, sshsig.dearmor((folder / "text.sig").read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_what_ssh_keygen_signs_holds(tmp_path: Path, kind: str) -> None:
    public, blob = made(tmp_path, kind, b"hello")
    sshsig.verify(blob, public, "test", b"hello")
    assert sshsig.signer(blob) == public
    assert sshsig.read_key(sshsig.write_key(public))[0] == public
    for key, namespace, message in (
        (public, "test", b"hellp"),
        (public, "other", b"hello"),
        (public[:-1], "test", b"hello"),
    ):
        with pytest.raises(SignatureRefused):
            sshsig.verify(blob, key, namespace, message)
    for at in range(0, len(blob), 7):
        with pytest.raises(SignatureRefused):
            sshsig.verify(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :], public, "test", b"hello")


def test_what_is_made_here_holds_for_ssh_keygen(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    blob = base64.encodebytes(sshsig.sign(key, "test", b"hello")).decode()
    (tmp_path / "sig").write_text(f"-----BEGIN SSH SIGNATURE-----\n{blob}-----END SSH SIGNATURE-----\n")
    (tmp_path / "allowed").write_text("a " + key.export_public_key().decode())
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "a", "-n", "test", "-s", "sig"]
    assert subprocess.run(command, input=b"hello", cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert subprocess.run(command, input=b"other", cwd=tmp_path, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "line",
    ["", "ssh-ed25519", "ssh-ed25519 !!!!", "ssh-dss AAAAB3NzaC1kc3MAAAAA", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA=="],
)
def test_what_is_no_key(line: str) -> None:
    with pytest.raises(SignatureRefused):
        sshsig.read_key(line)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_whatever_comes_is_refused(data: bytes) -> None:
    for work in (lambda: sshsig.dearmor(data), lambda: sshsig.verify(b"SSHSIG" + data, data, "test", b"")):
        with pytest.raises(SignatureRefused):
            work()


def test_a_security_key_must_have_been_touched() -> None:
    """Made here as the key in the hardware makes it: over the application's hash, flags and counter."""
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    private = Ed25519PrivateKey.generate()

    def pack(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    public = pack(kind, private.public_key().public_bytes_raw(), application)
    inner = b"SSHSIG" + pack(b"test", b"", b"sha512", hashlib.sha512(b"hello").digest())

    def signed(flags: int, application: bytes = application) -> bytes:
        rest = bytes([flags]) + (7).to_bytes(4, "big")
        over = hashlib.sha256(application).digest() + rest + hashlib.sha256(inner).digest()
        signature = pack(kind, private.sign(over)) + rest
        return b"SSHSIG" + (1).to_bytes(4, "big") + pack(public, b"test", b"", b"sha512", signature)

    sshsig.verify(signed(1), public, "test", b"hello")
    assert sshsig.read_key(sshsig.write_key(public))[0] == public
    with pytest.raises(SignatureRefused, match="nobody touched"):
        sshsig.verify(signed(0), public, "test", b"hello")
    with pytest.raises(SignatureRefused, match="does not hold"):
        sshsig.verify(signed(1, b"ssh:other"), public, "test", b"hello")


def test_a_short_rsa_key_is_nobodys(tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", tmp_path / "key")
    with pytest.raises(SignatureRefused, match="1024 bits is too short"):
        sshsig.read_key((tmp_path / "key.pub").read_text())
