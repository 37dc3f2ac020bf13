"""What a file is to whoever reads it: a path, or something that opens as one does.

Not here: what else opens so (patch.sealing).
"""

from __future__ import annotations

from typing import Any, Literal, Protocol


class Facts(Protocol):
    """What `stat` says, as far as it is asked for."""

    @property
    def st_size(self) -> int:
        """Bytes."""


class Source(Protocol):
    """A file's content, to be opened as often as one likes. A `Path` is one."""

    def open(self, mode: Literal["rb"], buffering: int = -1) -> Any:
        """As `Path.open` does. Raises: OSError."""

    def read_bytes(self) -> bytes:
        """All of it. Raises: OSError."""

    def stat(self) -> Facts:
        """How large it is. Raises: OSError."""
