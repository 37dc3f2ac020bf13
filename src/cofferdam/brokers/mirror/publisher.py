"""The mirror's publisher: keeps an Apache Iceberg table on an object store in step with what is sealed.

It stands in the readers' zone, sees the keeper's store read-only, has no pipe to anybody, and dials one address. A
store that is away delays nothing else; what was sealed meanwhile is there once it is back.

Not here: the table (iceberg), the object store (objects).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figure
from cofferdam.brokers.kit.threads import Threads
from cofferdam.brokers.mirror.blocks import Differs
from cofferdam.brokers.mirror.collector import Collector, Work
from cofferdam.brokers.mirror.figures import PUBLISHER
from cofferdam.brokers.mirror.iceberg import Odd, Published
from cofferdam.brokers.mirror.objects import Bucket
from cofferdam.brokers.mirror.query import Reading
from cofferdam.brokers.mirror.told import Source as Told
from cofferdam.errors import StoreError
from cofferdam.policy.terms.mirror_rows import Publish

PAUSE_SECONDS: Final = 2.0


class Publisher(Collector):
    """The part."""

    kinds = (Publish,)
    declared: tuple[Figure, ...] = PUBLISHER

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        folder = setting.reads.get("keeper")
        if folder is None:
            raise StoreError("the publisher sees no store")
        self.reading = Reading(folder)
        self.threads = Threads(asyncio.get_event_loop(), 1)
        self._upto = {}
        self._settle()

    def sources(self) -> Iterable[Publish]:
        return [self.row.publish] if self.row.publish is not None else []

    def zone(self) -> str:
        return self.row.outer

    def make(self, source: Any) -> Work:
        return Publishing(self, source)

    def published(self, files: int, left: int) -> None:
        """So many sealed files more are there, or not there any more."""
        self._figures.add("published", files)
        self._figures.set("publish_waiting", left)

    def end(self) -> None:
        super().end()
        self.threads.close()


class Publishing(Work):
    """The table at one place."""

    source: Publish
    owner: Publisher

    def __init__(self, owner: Publisher, source: Publish) -> None:
        super().__init__(owner, source)
        self.generation = -1
        self.left = -1

    async def session(self) -> None:
        password = self.owner.password(self.source.password)
        if not password:
            raise Differs(f"there is no secret key: `cofferdam mirror password {self.source.password}` brings it in")
        table = Published(Bucket(self.source, password), self.source.path, self.owner.conduit)
        run = self.owner.threads.run
        try:
            while True:
                view = await run(self.owner.reading.view)
                if view.catalogue.generation != self.generation or self.left:
                    done, self.left = await run(lambda view=view: table.step(view))  # type: ignore[misc]
                    self.owner.published(done, self.left)
                    self.generation = view.catalogue.generation
                self.well()
                if not self.left:
                    await self.pause(PAUSE_SECONDS)
        except FileExistsError as error:
            raise Differs(f"somebody else writes to this table ({error})") from None
        except (Odd, StoreError) as error:
            raise Differs(" ".join(str(error).split())[:400]) from None
        finally:
            self.left = -1

    def told(self) -> Told:
        return {**super().told(), "published": self.generation, "left": self.left}
