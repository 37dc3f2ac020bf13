"""A repository's Release, signed anew by an OpenPGP key of the site's: for hosts that shall believe the site's approval
and need no vendor's key, and for snapshots that are installed after the vendor's own date has passed.

What is signed is the vendor's text but for two fields: until when it is valid, which ends long before the site's
snapshot does, and by which keys later ones are to be signed. The packages' hashes stand in it as they were proved.

Not here: where the key lies (the installer's secrets), when it is used (apt_tree).
"""

from __future__ import annotations

import base64
from typing import Final

import pysequoia

from cofferdam.brokers.patch import apt_index
from cofferdam.errors import GateError

KEY_MARK: Final = "openpgp-key "
"""What such a key begins with among an installer's secrets."""
_PLACE: Final = "sign:"
_LEFT_OUT: Final = ("valid-until", "signed-by")


def place(name: str) -> str:
    """By which the key of this name stands among the installer's secrets: no asset's secret or archive's password can
    have such a name, so that none is shown it, and none overwrites it."""
    return _PLACE + name


def make(name: str) -> tuple[str, bytes]:
    """A new key that signs: what the installer keeps, and the certificate that hosts believe, which does not expire."""
    key = pysequoia.Tsk.generate(name)
    secret = KEY_MARK + base64.b64encode(bytes(key)).decode()
    return secret, str(key.extract_certificate()).encode()


def lacking(name: str, secret: str) -> tuple[str, str]:
    """Why nothing can be signed by the key of this name, and what to do; ("", "") if it can be."""
    make = f"cofferdam patch credential {name} --make FILE"
    if not secret:
        return f"the site's key {name} for repositories is not there: no host gets what it should sign", make
    try:
        _signer(secret)
    except GateError as error:
        return f"{error} ({name})", f"another name at `sign:`, which hosts are told to believe; then: {make} with that"
    return "", ""


def _signer(secret: str) -> pysequoia.PySigner:
    """Raises: GateError: the key is none."""
    try:
        return pysequoia.Tsk.from_bytes(base64.b64decode(secret.removeprefix(KEY_MARK), validate=True)).signer()
    except Exception as error:  # the library's errors have no class of their own
        raise GateError(f"the site's key for repositories cannot be read: {error}") from None


def resigned(inrelease: bytes, secret: str) -> bytes:
    """An InRelease with the site's signature in the place of the vendor's.

    Raises:
        BadIndex: it is none.
        GateError: the key is none.
    """
    text = apt_index.signed_text(inrelease)
    apt_index.read_release(text)
    kept, left_out = [], False
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        if not line.startswith((" ", "\t")):
            left_out = line.partition(":")[0].strip().lower() in _LEFT_OUT
        if not left_out:
            kept.append(line)
    signer = _signer(secret)
    plain = "\n".join(kept).encode("utf-8", "surrogateescape")
    return bytes(pysequoia.sign(signer, plain, mode=pysequoia.SignatureMode.CLEAR))
