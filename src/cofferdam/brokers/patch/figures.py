"""What the patch relay counts."""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.kit.figures import counter, gauge

INTAKE: Final = (
    gauge("patch_connections", "open connections of clients that upload"),
    counter("patch_uploads", "uploads that began"),
    counter("patch_upload_bytes", "bytes that were uploaded", unit="bytes"),
)
FETCHER: Final = (
    counter("patch_looks", "looks at sources"),
    counter("patch_looks_failed", "looks at sources that failed"),
    counter("patch_fetched_bytes", "bytes that came from sources", unit="bytes"),
)
KEEPER: Final = (
    gauge("patch_files", "files in the keeper's catalogue", by="state"),
    counter("patch_taken", "files that were taken into quarantine"),
    counter("patch_refused", "files that were not taken"),
    gauge("patch_advisories", "advisories by where they stand: open, to-plan, planned, done, overdue", by="state"),
    counter("patch_examined", "files that an examiner has looked at"),
)
INSTALLER: Final = (
    gauge("patch_releases", "files that are released, by the installer's own root"),
    gauge("patch_unsettled", "assets whose state a person has to settle"),
    counter("patch_installs", "transfers to assets that began", by="asset"),
    counter("patch_installs_failed", "transfers to assets that failed, or whose end is not known", by="asset"),
    counter("patch_sent_bytes", "bytes that went to assets", unit="bytes"),
)
