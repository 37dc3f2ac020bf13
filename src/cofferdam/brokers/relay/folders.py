"""The part of a side that has folders of the site's: pushes the files that come, writes those that go.

It stands apart, sees these folders and no other file, and has no network.

Not here: the work on folders (folder_work), what lies in files (folder_files), what ways have in common (ways).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cofferdam.brokers.relay.folder_work import FolderWork, Inward, Outward
from cofferdam.brokers.relay.ways import Way
from cofferdam.policy.terms.relay_rows import Folder, RelayRows

Wanted = tuple[Folder, str, str]
"""(folder, "push" or "pull", principal)."""


class Folders(Way[Wanted, FolderWork]):
    """The part."""

    figures_of = ("folder_files_taken", "folder_messages_taken", "folder_files_written")
    troubled = "folders_troubled"

    def wanted(self, rows: Collection[RelayRows]) -> Iterator[Wanted]:
        for row in rows:
            for folder in row.folders:
                for line in row.lines:
                    for who in line.who:
                        if row.stands[who] == folder.zone:
                            if folder.channel in line.push:
                                yield folder, "push", who
                            if folder.channel in line.pull:
                                yield folder, "pull", who

    def make(self, key: Wanted) -> FolderWork:
        folder, verb, who = key
        return (Inward if verb == "push" else Outward)(self, folder, who, self.setting.folders[folder.name])

    def place(self, key: Wanted) -> tuple[str, str]:
        return key[0].zone, key[0].name
