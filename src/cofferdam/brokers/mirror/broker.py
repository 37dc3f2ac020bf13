"""What the mirror declares: a collector in the plant, a part with the site's folders where files are a source, a
spooler and a keeper apart, a reader in the office that sees the keeper's store read-only and has no pipe to anybody;
and so do a loader, where history is copied into a database of the office's, and a publisher, where it is published on
an object store."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate
from cofferdam.audit.events import mirror as events
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.http import declared as http
from cofferdam.brokers.mirror.figures import COLLECTOR, KEEPER, LOADER, PUBLISHER, READER, SPOOLER
from cofferdam.enforce.profile import Can, Crew, Profile
from cofferdam.protocols.opcua.dialect import OPCUA

_ARROW: Final = ("pyarrow", "pyarrow.acero", "pyarrow.compute", "pyarrow.parquet", "encodings.idna", "zoneinfo")
_PIPES: Final = (("collector", "spooler"), ("files", "spooler"), ("spooler", "keeper"))
_BACK: Final = tuple((target, source) for source, target in _PIPES)

MIRROR: Final = Broker(
    name="mirror",
    crew=Crew(
        kind="mirror",
        parts={
            "collector": Profile(
                "mirror/collector",
                stands="inner",
                can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE,
                runtime="asyncio",
                secrets=("mirror", *OPCUA.secrets),
                preload=(
                    *_ARROW,
                    "cofferdam.protocols.modbus.operations",
                    "cofferdam.protocols.opcua.operations",
                    *OPCUA.preload,
                ),
                says=kinds((*events.SOURCE, *gate.PART)),
            ),
            "files": Profile(
                "mirror/files",
                stands="apart",
                can=Can.STORE,
                folders=True,
                runtime="asyncio",
                preload=(*_ARROW, "_strptime", "encodings.cp1252", "encodings.latin_1", "encodings.utf_8_sig"),
                says=kinds((*events.SOURCE, *gate.PART)),
            ),
            "spooler": Profile(
                "mirror/spooler",
                stands="apart",
                can=Can.STORE,
                store=True,
                folders=True,
                preload=_ARROW,
                says=kinds((*events.SPOOLER, *gate.PART)),
            ),
            "keeper": Profile(
                "mirror/keeper",
                stands="apart",
                can=Can.STORE | Can.READ,  # of READ the threads: sealing must not delay what comes
                store=True,
                folders=True,
                memory=16 << 30,
                preload=_ARROW,
                says=kinds((*events.KEEPER, *gate.PART)),
            ),
            "reader": Profile(
                "mirror/reader",
                stands="outer",
                can=Can.ACCEPT | Can.STREAM | Can.READ,
                runtime="asyncio",
                reads=("keeper",),
                memory=32 << 30,
                secrets=("mirror",),
                preload=(*_ARROW, *http.LATE, "duckdb"),
                yields="some",  # what is asked is to hold up nothing that comes
                says=kinds((*events.READER, *gate.PART)),
            ),
            "loader": Profile(
                "mirror/loader",
                stands="outer",
                can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE | Can.READ,
                runtime="asyncio",
                reads=("keeper",),
                memory=32 << 30,
                secrets=("mirror",),
                preload=(*_ARROW, "pyarrow.csv"),
                says=kinds((*events.SOURCE, *gate.PART)),
            ),
            "publisher": Profile(
                "mirror/publisher",
                stands="outer",
                can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE | Can.READ,
                runtime="asyncio",
                reads=("keeper",),
                memory=32 << 30,
                secrets=("mirror",),
                preload=(
                    *_ARROW,
                    "cofferdam.brokers.mirror.iceberg",
                    "zstandard",
                    "pyiceberg.avro.decoder_fast",
                    "pyiceberg.table.maintenance",
                    "rich.console",
                    "rich.table",
                ),
                says=kinds((*events.SOURCE, *gate.PART)),
            ),
        },
        pipes=(*_PIPES, *_BACK),
        optional=frozenset({"collector", "files", "spooler", "keeper", "reader", "loader", "publisher"}),
        alone=frozenset({"reader", "loader", "publisher"}),
        rides=(("spooler", "keeper"),),
    ),
    make={
        "collector": "cofferdam.brokers.mirror.collector:Collector",
        "files": "cofferdam.brokers.mirror.drops:Files",
        "spooler": "cofferdam.brokers.mirror.spooler:Spooler",
        "keeper": "cofferdam.brokers.mirror.keeper:Keeper",
        "reader": "cofferdam.brokers.mirror.reader:Reader",
        "loader": "cofferdam.brokers.mirror.loader:Loader",
        "publisher": "cofferdam.brokers.mirror.publisher:Publisher",
    },
    records={
        ("collector", "spooler"): "cofferdam.brokers.mirror.records:from_source",
        ("spooler", "collector"): "cofferdam.brokers.mirror.records:to_source",
        ("files", "spooler"): "cofferdam.brokers.mirror.records:from_source",
        ("spooler", "files"): "cofferdam.brokers.mirror.records:to_source",
        ("spooler", "keeper"): "cofferdam.brokers.mirror.records:to_keeper",
        ("keeper", "spooler"): "cofferdam.brokers.mirror.records:from_keeper",
    },
    needs=("pyarrow", "duckdb", "psycopg"),
    alarms=frozenset({"collector", "files", "spooler", "keeper", "reader", "loader", "publisher"}),
    figures={
        "collector": COLLECTOR,
        "files": COLLECTOR,
        "spooler": SPOOLER,
        "keeper": KEEPER,
        "reader": READER,
        "loader": LOADER,
        "publisher": PUBLISHER,
    },
)
