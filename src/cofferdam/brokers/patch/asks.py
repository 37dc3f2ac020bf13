"""What the verbs of the patch keeper are asked with, as the command line says it.

Not here: what they answer (told), what they do (keeper_verbs).
"""

from __future__ import annotations

from msgspec import Struct

from cofferdam.brokers.patch import records


class By(Struct, forbid_unknown_fields=True):
    by: str


class Number(Struct, forbid_unknown_fields=True):
    by: str
    number: int


class Put(Struct, forbid_unknown_fields=True):
    by: str
    staged: str
    product: records.Name
    version: records.FileName
    file: records.FileName


class Request(Struct, forbid_unknown_fields=True):
    by: str
    number: int
    reason: records.Text = ""
    emergency: bool = False


class Approve(Struct, forbid_unknown_fields=True):
    by: str
    number: int
    signature: str


class Reject(Struct, forbid_unknown_fields=True):
    by: str
    number: int
    reason: records.Text = ""


class Fetch(Struct, forbid_unknown_fields=True):
    by: str
    source: records.Name
    known: bool = False


class Root(Struct, forbid_unknown_fields=True):
    by: str
    metadata: str
