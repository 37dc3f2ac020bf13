"""SSH signatures under attestations, as text: the armour that `ssh-keygen -Y sign` writes, and keys as "KIND BASE64".

Keys of people stay where they are: in an agent, in a hardware key, in a file with a passphrase.

Not here: the signature itself (brokers.kit.sshsig), who may sign (attest), running ssh-keygen (the verb).
"""

from __future__ import annotations

import base64
from typing import Final

from cofferdam.brokers.kit import sshsig
from cofferdam.brokers.kit.sshsig import KINDS
from cofferdam.brokers.kit.sshsig import SignatureRefused as SignatureError

__all__ = ["NAMESPACE", "SignatureError", "by", "fingerprint", "key_line", "verify"]

NAMESPACE: Final = "attestation@cofferdam"
"""What our signatures are for: one that was made for anything else (git, a file) counts for nothing here."""


def key_line(text: str) -> str:
    """A public key in the form "KIND BASE64", from a line of a .pub file. Raises: SignatureError."""
    words = text.split()
    at = next((n for n, word in enumerate(words) if word in KINDS), -1)
    if at < 0:
        raise SignatureError("it is no public SSH key of a kind that may sign", hint=f"kinds: {', '.join(KINDS)}")
    return sshsig.write_key(sshsig.read_key(" ".join(words[at : at + 2]))[0])


def fingerprint(key: str) -> str:
    """As ssh-keygen -l shows it; of what is no key, which the gate may have let in, that it is none."""
    try:
        return sshsig.fingerprint(_blob(key))
    except SignatureError:
        return "no key"


def by(text: str) -> str:
    """The key that a signature names (base64). Raises: SignatureError."""
    return base64.b64encode(sshsig.signer(sshsig.dearmor(text.encode("utf-8", "replace")))).decode()


def verify(text: str, message: bytes, key: str, namespace: str = NAMESPACE) -> None:
    """Whether `text` is `key`'s signature over `message`. Raises: SignatureError, with what is wrong."""
    blob = sshsig.dearmor(text.encode("utf-8", "replace"))
    sshsig.verify(blob, _blob(key), namespace, message)


def _blob(key: str) -> bytes:
    """Of a key as the log has it, which need not be one: the gate has said so. Raises: SignatureError."""
    try:
        return base64.b64decode(key.split()[1])
    except (IndexError, ValueError):
        raise SignatureError("the key on record is none") from None
