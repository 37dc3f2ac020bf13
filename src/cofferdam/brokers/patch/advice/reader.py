"""The reader: one process for one document, thrown away afterwards, like the examiner (which has proved who signed it).

It reads what a stranger made, with a schema, a comparer of versions and a lot of nesting; it has no network and no
store, and says one thing. Not here: what becomes of it (desk).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cofferdam.brokers.broker import Job
from cofferdam.brokers.patch.advice import boms, csaf, lists
from cofferdam.brokers.patch.advice.matching import NotRead
from cofferdam.brokers.patch.advice.records import DOCUMENT_BYTES, Reading, ReadOrder
from cofferdam.errors import CofferdamError


def read(job: Job) -> bytes:
    """The work of one process. Raises: CofferdamError, where the order itself is wrong."""
    order = msgspec.json.decode(job.arguments, type=ReadOrder)
    store = job.reads["keeper"]
    try:
        reading = _read(store, order)
    except NotRead as error:
        reading = Reading(refused=str(error)[:300])
    return msgspec.json.encode(reading)


def _read(store: Path, order: ReadOrder) -> Reading:
    inventory = list(order.inventory)
    for name in order.boms:
        inventory += boms.parts_of(boms.read(_json(_content(store, name))), order.inventory)
    whole = tuple(inventory)
    data = _content(store, order.file)
    if order.name.lower().endswith(".csv"):
        return Reading(kind="list", provider=order.provider[:300], advice=lists.read(data, whole))
    document = _json(data)
    if isinstance(document, dict) and "bomFormat" in document:
        boms.read(document)
        return Reading(kind="sbom", provider=order.provider[:300])
    advice, publisher = csaf.read(document, order.provider, whole)
    return Reading(kind="csaf", provider=publisher[:300], advice=(advice,))


def _content(store: Path, name: str) -> bytes:
    path = store / name
    if ".." in Path(name).parts or path.is_symlink() or not path.is_file():
        raise CofferdamError("the order names no file of the store")
    with path.open("rb") as opened:
        data = opened.read(DOCUMENT_BYTES + 1)
    if len(data) > DOCUMENT_BYTES:
        raise NotRead(f"a document of more than {DOCUMENT_BYTES} bytes")
    return data


def _json(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotRead(f"neither JSON nor a list (.csv): {error}") from None
    except RecursionError:
        raise NotRead("JSON that is nested too deep") from None
