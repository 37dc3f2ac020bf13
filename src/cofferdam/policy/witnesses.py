"""How the policy file names who keeps the log's heads: a place, and the key that must answer there.

Not here: the fields (policy.schema), asking them (evidence.witness_ways).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from cofferdam.audit.cosignature import WitnessKey
from cofferdam.errors import AuditError
from cofferdam.policy.collectors import is_one_machines
from cofferdam.policy.syntax import Expected

PORTS: Final[dict[str, int]] = {"http": 80, "https": 443, "sftp": 22}
EXAMPLES: Final = ["https://10.1.0.60/heads", "sftp://heads@10.1.0.61:22/srv/heads"]
HOST_KEYS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_WANTED: Final = f"a place such as {EXAMPLES[0]} or {EXAMPLES[1]}: an address, since no names are resolved"


class Destination(NamedTuple):
    """Where a witness is. `path`: its prefix, or the folder."""

    way: Literal["http", "https", "sftp"]
    user: str
    address: str
    port: int
    path: str


def place(raw: Any) -> Destination:
    """A place from its URL."""
    try:
        split = urlsplit(raw if isinstance(raw, str) else "")
        host, port = ipaddress.ip_address(split.hostname or ""), split.port
    except ValueError:
        raise Expected(_WANTED) from None
    is_one_machines(host)
    way: Any = split.scheme
    odd = split.query or split.fragment or split.password or not raw.isprintable() or any(map(str.isspace, raw))
    if odd or port == 0 or len(raw) > 500:
        raise Expected(_WANTED)
    if way == "sftp":
        if not split.username or not split.path.startswith("/") or ".." in split.path.split("/"):
            raise Expected("a user and a folder: sftp://USER@ADDRESS/FOLDER")
        return Destination("sftp", split.username, str(host), port or PORTS[way], split.path.rstrip("/") or "/")
    if way not in ("http", "https") or split.username:
        raise Expected(_WANTED)
    return Destination(way, "", str(host), port or PORTS[way], split.path.rstrip("/"))


def key(raw: Any) -> str:
    """A witness's vkey, or a host key as KIND BASE64 (what follows is left away)."""
    text = raw.strip() if isinstance(raw, str) else ""
    words = text.split()
    if len(words) >= 2 and words[0] in HOST_KEYS:
        try:
            blob = base64.b64decode(words[1], validate=True)
        except (ValueError, binascii.Error):
            blob = b""
        if blob[4 : 4 + len(words[0])] == words[0].encode():
            return f"{words[0]} {words[1]}"
        raise Expected("a host key such as ssh-ed25519 AAAA..., as `ssh-keyscan` shows it")
    try:
        return WitnessKey.parse(text).text
    except AuditError as error:
        raise Expected(f"a key: NAME+8 HEX DIGITS+BASE64, or a host key ({error})") from None


def fits(way: str, text: str) -> bool:
    """Whether a key is of the kind that answers on this way."""
    return (" " in text) == (way == "sftp")
