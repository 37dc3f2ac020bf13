"""The records between a producer of audit entries (a half, the gate) and the auditor process.

A producer numbers its batches from 1 up. The auditor answers each batch once: `Ack` with `ok` after all its entries
are on disk, or with `ok` False and a reason after nothing of it was kept. An auditor that was restarted says
`Hello`; whatever was not acknowledged before is of unknown fate, and its producer treats it as not recorded. What it
says again then has the number that it had: some of it may still lie in the pipe.

What is counted before it is told is said as `Counting`, each time it has grown: the auditor writes the last of it down
when the producer ends and has not told it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cofferdam.audit.entry import MAX_BATCH_DRAFTS, Draft
from cofferdam.audit.events.access import RefusedMany
from cofferdam.audit.events.base import Hash

COUNT_BYTES_A_SECOND, COUNT_LEAST = 4 << 20, 1 << 10
"""Bytes of counts that a producer says in a second; a small one counts as so many."""

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Batch(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Drafts to be recorded together, all or none. `policy` is the hash of the policy that the producer works by
    ("": the one last loaded). Without `wants_ack` the producer does not wait for them."""

    number: Number
    policy: Hash
    drafts: Annotated[tuple[Draft, ...], Meta(min_length=1, max_length=MAX_BATCH_DRAFTS)]
    wants_ack: bool = True


class Counting(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The count `number` of a producer so far, in place of what it last said of it. With `over` it is to be recorded,
    and closed, and acknowledged as the batch `batch` (0: not at all); else the auditor keeps it in memory, and records
    it only when the producer ends."""

    number: Number
    policy: Hash
    draft: RefusedMany
    over: bool = False
    batch: Number = 0


class Hello(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The auditor runs (again). `writable` says whether it can take entries now."""

    writable: bool
    reason: Annotated[str, Meta(max_length=4096)] = ""


class Ack(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The batch of this number is durable (`ok`), or nothing of it was kept."""

    number: Number
    ok: bool
    reason: Annotated[str, Meta(max_length=4096)] = ""


class Writable(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The log became unwritable, or writable again. Sent to every producer at once."""

    writable: bool
    reason: Annotated[str, Meta(max_length=4096)] = ""


ToAuditor = Batch | Counting
FromAuditor = Hello | Ack | Writable
