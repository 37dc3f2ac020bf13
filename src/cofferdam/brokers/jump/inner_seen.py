"""What an asset says of its files, in our words: paths and attributes within bounds.

Not here: what may be done with them (inner_files).
"""

from __future__ import annotations

from typing import Final

import asyncssh

from cofferdam.brokers.jump.inner_held import No
from cofferdam.protocols.sftp import messages as m

_TYPE: Final = 0o170000
_LINK: Final = 0o120000
_FOLDER: Final = 0o040000


def is_link(attributes: m.Attributes) -> bool:
    return (attributes.mode or 0) & _TYPE == _LINK


def wholes(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that are a folder with all beneath it."""
    return tuple(pattern for pattern in patterns if pattern.endswith("/**"))


def is_folder(attributes: m.Attributes | None) -> bool:
    return attributes is not None and (attributes.mode or 0) & _TYPE == _FOLDER


def text_of(raw: bytes | str) -> str:
    """A path of the asset. Raises: No."""
    data = raw.encode() if isinstance(raw, str) else raw
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise No("the asset names something that is no UTF-8") from None
    if "\0" in text or len(data) > m.PATH_BYTES:
        raise No("the asset names something that is no path")
    return text


def attributes_of(found: asyncssh.SFTPAttrs) -> m.Attributes:
    word = (1 << 32) - 1
    owner = None if found.uid is None or found.gid is None else (found.uid & word, found.gid & word)
    times = None if found.atime is None or found.mtime is None else (int(found.atime) & word, int(found.mtime) & word)
    size = None if found.size is None else min(max(0, found.size), (1 << 63) - 1)
    return m.Attributes(size, owner, None if found.permissions is None else found.permissions & word, times)
