"""Asking those who keep the log's heads whether the log still goes on from theirs: for a verification.

A folder is looked at and left as it is. A witness that signs can be asked only by giving it the log's present head; it
takes it where it goes on from what it has signed, and says so where it does not.

Not here: the gate's own visits (witness_part), what a whole verification is (audit.verify).
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence

import msgspec

from cofferdam.audit.cosignature import WitnessKey, signed_at
from cofferdam.audit.files import LogReader
from cofferdam.audit.proof import prove_consistency
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence.witness_records import Head
from cofferdam.evidence.witness_ways import Ask, keeper
from cofferdam.policy.rows import Witness


class Said(msgspec.Struct, frozen=True):
    """What one keeper said. `wrong`: why the log does not go on from what it has, or ""; `trouble`: why nobody knows,
    or ""; `size`: the entries of the head that it has; `signed`: when it signed that (seconds since 1970), -1: it does
    not sign."""

    name: str
    where: str
    wrong: str = ""
    trouble: str = ""
    size: int = 0
    signed: int = -1

    def __str__(self) -> str:
        if self.wrong:
            return f"witness {self.name} ({self.where}): {self.wrong}"
        if self.trouble:
            return f"witness {self.name} ({self.where}) was not asked: {self.trouble}"
        how = "has signed" if self.signed >= 0 else "keeps"
        return f"the log goes on from what witness {self.name} {how}: {self.size:,} entries"


def ask_all(witnesses: Sequence[Witness], reader: LogReader, secret: bytes) -> tuple[Said, ...]:
    """Asks each of them, one after the other."""
    return tuple(asyncio.run(_one(one, reader, secret)) for one in witnesses)


async def _one(to: Witness, reader: LogReader, secret: bytes) -> Said:
    try:
        size, note = await keeper(to, reader.key, _asking(to.name, reader), secret, give=False).visit()
    except AuditError as wrong:
        return Said(to.name, to.where, wrong=str(wrong))
    except CofferdamError as trouble:
        return Said(to.name, to.where, trouble=str(trouble))
    signed = signed_at(note, WitnessKey.parse(to.key)) if to.way != "sftp" else -1
    return Said(to.name, to.where, size=size, signed=signed)


def _asking(name: str, reader: LogReader) -> Ask:
    async def ask(old: int) -> Head:
        try:
            if 0 < old < reader.checkpoint().size:
                proof = prove_consistency(reader, old)
                return Head(name, old, proof.checkpoint.encode(), tuple(map(b64decode, proof.hashes)))
            return Head(name, old, reader.checkpoint_note())
        except AuditError as error:
            return Head(name, old, b"", why=str(error)[:1000])

    return ask
