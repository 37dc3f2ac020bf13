"""What lies about on the stage of the patch play: the keys of a vendor, of approvers and of those who hold the root.

Made anew for each stage. Not here: who uses them (maintenance, steps).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cofferdam.brokers.patch import trustkeys
from cofferdam.lab.patch import site
from cofferdam.lab.patch.vendor import ME, Vendor

APPROVERS: Final = tuple(dict.fromkeys(("alice", "bob", ME)))
HOLDERS: Final = ("safe-1", "safe-2")


class Props:
    """All of them."""

    def __init__(self) -> None:
        self.vendor, self.site = Vendor(), site.Certificate()
        self.people: dict[str, Any] = {
            name: asyncssh.generate_private_key("ssh-ed25519", comment=name) for name in (*APPROVERS, *HOLDERS)
        }
        self.host = asyncssh.generate_private_key("ssh-ed25519")
        self.machine = asyncssh.generate_private_key("ssh-ed25519")
        online = Ed25519PrivateKey.generate()
        self.online = online.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        root = trustkeys.make_root(
            [self._key(name) for name in APPROVERS], [self._key(name) for name in HOLDERS],
            trustkeys.SSlibKey.from_crypto(online.public_key()), signatures=2, root_signatures=2,
        )  # fmt: skip
        for name in HOLDERS:
            made = trustkeys.signature_by(self.people[name], root.signed)
            root.signatures[made.keyid] = made
        self.root = trustkeys.encode(root).decode()

    def _key(self, name: str) -> trustkeys.OpenSshKey:
        return trustkeys.person_key(self.people[name].export_public_key().decode(), name)

    @property
    def host_key(self) -> str:
        return " ".join(self.host.export_public_key().decode().split()[:2])

    def lay(self, folder: Path) -> None:
        """Writes down what processes of the play need."""
        plcs = [folder / name for name in ("plc", "plc-2")]
        for path in (folder, *plcs, *(plc / "update" for plc in plcs)):
            path.mkdir(mode=0o700, exist_ok=True)
        files = {f"{name}.key": key.export_private_key() for name, key in self.people.items()}
        files |= {"vendor.key": self.vendor.key, "machine.key": self.machine.export_private_key()}
        for plc in plcs:
            files |= {
                f"{plc.name}/host.key": self.host.export_private_key(),
                f"{plc.name}/machine.pub": self.machine.export_public_key(),
            }
        for name, data in files.items():
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(data)
