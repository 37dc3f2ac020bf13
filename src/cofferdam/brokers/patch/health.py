"""What must hold of an asset after it got a file: a port that answers, a page or a file that says the version, a
point that is within its limits, an echo.

Not here: what a failure leads to (installer).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from cofferdam.brokers.kit.aio import literal_address
from cofferdam.brokers.patch import echo, pointed, pushing
from cofferdam.model import Asset
from cofferdam.policy.terms.patch_rows import Health, Way

ANSWER_BYTES: Final = 64 << 10
TRY_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.5


async def check(health: Health, way: Way, secret: str, version: str, assets: Mapping[str, Asset]) -> str:
    """Waits until all holds, for at most as long as the policy says; "" then, or what did not."""
    says = health.says.replace("{version}", version)
    loop = asyncio.get_running_loop()
    stop = loop.time() + health.within
    while True:
        why = await _once(health, way, secret, says, assets)
        if not why or loop.time() >= stop:
            return why
        await asyncio.sleep(PAUSE_SECONDS)


async def _once(health: Health, way: Way, secret: str, says: str, assets: Mapping[str, Asset]) -> str:
    try:
        async with asyncio.timeout(TRY_SECONDS if not health.file else 3 * TRY_SECONDS):
            if health.tcp:
                _, writer = await asyncio.open_connection(literal_address(way.address), health.tcp)
                writer.close()
            if health.ping:
                await echo.ask(literal_address(way.address))
            if health.http_port:
                text = await _page(way.address, health.http_port, health.http_path)
                if not _says(text, says):
                    return f"{health.http_port}{health.http_path} does not say {says!r}, but {text[:60]!r}"
            if health.file:
                text = await pushing.read_text(way, secret, health.file, ANSWER_BYTES)
                if not _says(text, says):
                    return f"{health.file} does not say {says!r}, but {text[:60]!r}"
        # It has as long as the policy gives the asset for an answer.
        if health.point and (why := await pointed.within(assets, way.asset, health.point)):
            return why
    except TimeoutError:
        return "the asset does not answer"
    except (OSError, ValueError) as error:
        return f"the asset: {error}"[:300]
    return ""


def _says(text: str, says: str) -> bool:
    """Whether it stands there, and not as a part of another number: 2.1 is not in 2.10, nor in 12.1."""
    before = r"(?<![0-9])(?<![0-9]\.)" if says[:1].isdigit() else ""
    behind = r"(?![0-9])(?!\.[0-9])" if says[-1:].isdigit() else ""
    return re.search(f"{before}{re.escape(says)}{behind}", text) is not None


async def _page(address: str, port: int, path: str) -> str:
    """The body of a page by HTTP/1.0. Raises: OSError, ValueError."""
    reader, writer = await asyncio.open_connection(literal_address(address), port, limit=ANSWER_BYTES)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        await writer.drain()
        data = b""
        while len(data) < ANSWER_BYTES and (piece := await reader.read(ANSWER_BYTES)):
            data += piece
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or words[1] != b"200":
        raise ValueError(f"{port}{path} answers {head[:40]!r}")
    return body.decode("utf-8", "replace")
