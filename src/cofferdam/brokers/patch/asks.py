"""What the verbs of the patch relay's parts are asked with, as the command line says it. `vouch` is the gate's word for
who asks, and of which file.

Not here: what they answer (told), what they do (keeper_verbs, installer_verbs); what the desk is asked (advice.asking).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch import records


class By(Struct, forbid_unknown_fields=True):
    """Who asks, as the gate sees them."""

    by: str


class Number(By):
    number: int


class ToSign(Number):
    """`offset`: from which character of the metadata on."""

    offset: Annotated[int, Meta(ge=0)] = 0


class Put(By):
    staged: str
    product: records.Name
    version: records.FileName
    file: records.FileName
    vouch: Vouch


class Request(By):
    number: int
    vouch: Vouch
    reason: records.Text = ""
    emergency: bool = False


class Approve(By):
    number: int
    signature: str


class Reject(By):
    number: int
    reason: records.Text = ""


class Fetch(By):
    source: records.Name
    known: bool = False


class Root(By):
    metadata: str


class Product(By):
    product: str


class Result(By):
    asset: str
    product: str
    says: str
    detail: records.Text = ""
    technician: Annotated[str, Meta(max_length=128)] = ""
    reads: Annotated[str, Meta(max_length=128)] = ""
