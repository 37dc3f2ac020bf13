"""The way by which an asset is sent its files: one of several, with one face.

Not here: what assets fetch themselves (serving), when anything is sent (plan, installer).
"""

from __future__ import annotations

from pathlib import Path

from cofferdam.brokers.patch import ftp, scp, sftp, smb, tftp
from cofferdam.brokers.patch.outcome import Outcome, Progress
from cofferdam.policy.terms.patch_rows import Way


def kind(way: Way) -> str:
    """How the log names it; "" for an asset that fetches."""
    if way.sftp is not None:
        return "scp" if way.sftp.scp else "sftp"
    if way.smb is not None:
        return "smb"
    if way.ftp is not None:
        return "ftps" if way.ftp.certificate else "ftp"
    if way.hands:
        return "hands"
    return "tftp" if way.tftp is not None else ""


async def push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does: what a way's own reader
    does not know of its answers would end all that is under way, and be tried again by itself."""
    try:
        return await _push(way, secret, file, name, size, sha256, progress)
    except Exception as error:
        return Outcome("unknown", f"{type(error).__name__}: {error}"[:300])


async def _push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    if way.smb is not None:
        return await smb.push(way, secret, file, name, size, sha256, progress)
    if way.ftp is not None:
        return await ftp.push(way, secret, file, name, size, sha256, progress)
    if way.tftp is not None:
        return await tftp.push(way, file, name, size, sha256, progress)
    if way.sftp is not None and way.sftp.scp:
        return await scp.push(way, secret, file, name, size, sha256, progress)
    return await sftp.push(way, secret, file, name, size, sha256, progress)


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    if way.smb is not None:
        return await smb.read_text(way, secret, path, most)
    if way.ftp is not None:
        return await ftp.read_text(way, secret, path, most)
    if way.sftp is not None and way.sftp.scp:
        return await scp.read_text(way, secret, path, most)
    return await sftp.read_text(way, secret, path, most)
