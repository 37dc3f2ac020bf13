"""Certificates of people: `ssh anna@gate certificate` signs the key by which anna has just signed in, for some hours,
for her name and her address. With it her next sign-ins take no code: it stands for the one that she showed.

It is OpenSSH's own form (PROTOCOL.certkeys), of an authority that signs nothing else. What it says is held against what
holds now: the policy (whether there are certificates, and for how long), the key's owner, the address. A key that is
taken away takes its certificates with it.

Not here: signatures by the key in it (signin).
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import asyncssh
from asyncssh.public_key import CERT_TYPE_USER, decode_ssh_certificate, decode_ssh_public_key

from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.signin import CERTIFIED, Connection
from cofferdam.errors import GateError

AUTHORITY: Final = "people-authority"
NS: Final = 10**9


class Certified:
    """The authority. `seconds`: how long a certificate counts at most, as the policy has it now; 0: none does."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._key: asyncssh.SSHKey | None = None
        self.seconds = 0

    def _authority(self) -> asyncssh.SSHKey:
        if self._key is None:
            found = self._accounts.meta(AUTHORITY)
            if not found:
                found = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")
                self._accounts.set_meta(AUTHORITY, found)
            self._key = asyncssh.import_private_key(found)
        return self._key

    def sign(self, connection: Connection, wall_ns: int) -> tuple[str, int]:
        """(a certificate over the key of who is in, until when it counts). Raises: GateError."""
        if not self.seconds:
            raise GateError("the policy has no certificates", hint="certificates: 8 h")
        if not connection.key:
            raise GateError("you came without a key, and a certificate is for one")
        if CERTIFIED in connection.factors:
            raise GateError("you came by a certificate, which makes no other", hint="come with your code")
        now = wall_ns // NS
        made = self._authority().generate_user_certificate(
            decode_ssh_public_key(connection.key), connection.person, principals=[connection.person],
            valid_after=now, valid_before=now + self.seconds, source_address=[connection.source],
            permit_pty=True, permit_x11_forwarding=False, permit_agent_forwarding=False,
            permit_port_forwarding=False, permit_user_rc=False,
        )  # fmt: skip
        return made.export_certificate("openssh").decode().strip(), (now + self.seconds) * NS

    def key(self, blob: bytes, source: str, wall_ns: int) -> tuple[bytes, int, str]:
        """(the key in it, when it was signed in s UTC, why it does not count)."""
        try:
            found: Any = decode_ssh_certificate(blob)
        except (asyncssh.Error, asyncssh.KeyImportError, ValueError, TypeError):
            return b"", 0, "a certificate that is none, or says what nobody knows"
        if found.signing_key.public_data != self._authority().public_data:
            return b"", 0, "a certificate of another authority"
        key: bytes = found.key.public_data
        owner = self._accounts.owner(key)
        if found._cert_type != CERT_TYPE_USER or not owner or found.principals != [owner]:
            return b"", 0, "a certificate for another name"
        addresses = list(found.options.get("source-address", ()))
        if "force-command" in found.options or addresses != [ipaddress.ip_network(source)]:
            return b"", 0, "a certificate for another address"
        # `valid_after` is when it was signed: the policy may have become stricter since.
        until = min(found._valid_before, found._valid_after + self.seconds)
        if not self.seconds or not found._valid_after - SKEW_SECONDS <= wall_ns // NS < until:
            return b"", 0, "a certificate that has expired, or is not good yet"
        return key, found._valid_after, ""


SKEW_SECONDS: Final = 60
"""A clock that was set back a little after one was signed."""
