"""A file on its way between a store and a folder, slice by slice, while its hash is worked out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass
class Copying(Generic[R]):
    """`row`: what is known of it; `source`, `into`: descriptors; `at`, `synced`: bytes copied, and synced."""

    row: R
    source: int
    into: int
    digest: Any
    at: int
    synced: int = 0

    def close(self) -> None:
        os.close(self.source)
        os.close(self.into)
