"""What the parts of a mirror count and measure."""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.kit.figures import counter, gauge, histogram
from cofferdam.brokers.kit.http import declared as http

COLLECTOR: Final = (
    counter("read", "Samples that were read at a source", by="source"),
    counter("refused_samples", "Samples of a source that were not taken: a time, a value or a tag that cannot be",
            by="source"),
    gauge("sources_away", "Sources that cannot be read just now"),
    gauge("behind", "How far the newest sample of a source is behind the clock", by="source", unit="seconds"),
    histogram("reading", "How long a source took to answer", by="source"),
)  # fmt: skip
LOADER: Final = (
    *COLLECTOR,
    counter("copied", "Samples that were copied into the site's PostgreSQL"),
    gauge("copy_waiting", "Batches that the site's PostgreSQL does not have yet"),
)
PUBLISHER: Final = (
    *COLLECTOR,
    counter("published", "Sealed files that were added to the published table, or removed from it"),
    gauge("publish_waiting", "Sealed files that the published table does not have yet, or has still"),
)
SPOOLER: Final = (
    counter("spooled", "Samples that are on the spool's disk", by="lane"),
    gauge("spool", "Bytes of the spool", unit="bytes"),
    gauge("spool_waiting", "Batches that the store does not have yet", by="lane"),
    gauge("spool_left", "How long the spool still has room at the present rate, if nothing is taken", unit="seconds"),
    counter("spool_lost", "Samples that a full spool has lost"),
)
KEEPER: Final = (
    counter("taken", "Samples that were taken into the store, repetitions counted", by="lane"),
    counter("repeated_batches", "Batches that came again"),
    counter("repeated", "Samples that came again and vanished, seen when files are sealed or made into one"),
    counter("revised", "Samples that are another value for a time that had one, seen when a file is sealed"),
    counter("late", "Samples that were more than an hour older than the newest one when they came"),
    counter("passed_over", "Samples that were not taken, for their source, their tag or their time", by="source"),
    gauge("generation", "The catalogue's generation"),
    gauge("hot", "Samples that are not sealed yet"),
    gauge("files", "Sealed files"),
    gauge("sealed_rows", "Samples in sealed files"),
    gauge("sealed_size", "Bytes of sealed files", unit="bytes"),
    gauge("tags", "Tags that the store has"),
    gauge("gaps", "Losses that are known"),
    gauge("newest", "The time of the newest sample", unit="time"),
    gauge("store_free", "Bytes free where the store lies", unit="bytes"),
    histogram("commit", "From the arrival of a batch until it was on the disk, and readable"),
    histogram("lag", "From the time of a live batch's newest sample until it was readable"),
    histogram("sealing", "How long a file took to seal or to merge"),
)
READER: Final = (
    *http.FIGURES,
    counter("queries", "Queries that were answered", by="principal"),
    counter("query_rows", "Rows that were answered", by="principal"),
    counter("query_bytes", "Bytes that were answered", by="principal", unit="bytes"),
    counter("query_refused", "Queries that met a limit", by="principal"),
    gauge("streams", "Clients that are told what is committed"),
    histogram("query", "How long a query took"),
)
