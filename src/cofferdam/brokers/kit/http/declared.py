"""What a broker declares of its parts that answer HTTP: light enough for the launcher, which starts them.

Not here: such a part (doors).
"""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.kit.figures import Figure, counter, gauge

LATE: Final = ("encodings.idna", "encodings.latin_1", "cryptography.hazmat.backends.openssl.backend")
"""What libraries import when they first need it, which is too late once the filter is on: for a profile's preload."""
FIGURES: Final[tuple[Figure, ...]] = (
    gauge("http_connections", "open connections of HTTP clients"),
    gauge("http_doors_shut", "addresses at which nobody is let in, since their certificate is not there"),
    counter("http_requests", "HTTP requests"),
    counter("http_refused", "HTTP requests that were refused as a whole"),
)
