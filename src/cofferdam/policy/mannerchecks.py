"""Checks of how a device wants to be asked: delays, pauses, waiting; and what only its vendor knows of it.

They hold for the address: assets behind one address share its connections, and so must say the same. Not here: what
the settings do (brokers.proxy.device).
"""

from __future__ import annotations

from cofferdam.policy import schema_assets
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.protocols.dialect import Dialect

BOUNDS = {"connect_delay": (1, 30_000), "reconnect_delay": (1, 30_000), "pause": (1, 10_000),
          "idle": (1000, 86_400_000), "wait": (1, 60_000), "keep_alive": (1000, 86_400_000)}  # fmt: skip
"""From and to, in milliseconds."""
SHARED = ("connect_delay", "reconnect_delay", "pause", "idle", "wait", "repeat_reads", "keep_alive", "connections",
          "outstanding", "vendor_functions", "vendor_write_functions", "tls")  # fmt: skip
"""What assets behind one address must say alike."""


def check_manners(checking: Checking, here: Path, asset: schema_assets.Asset) -> None:
    """One asset by itself."""
    for field, (low, high) in BOUNDS.items():
        value = getattr(asset, field)
        if value is not None and not low <= value <= high:
            checking.at((*here, field), f"{value} ms", f"{_shown(low)} to {_shown(high)}", check="manners")
    if asset.keep_alive is not None and asset.idle is not None and asset.keep_alive >= asset.idle:
        what = f"{_shown(asset.keep_alive)}, when the connection has been closed ({_shown(asset.idle)} idle)"
        checking.at((*here, "keep_alive"), what, "less than idle", check="manners")
    if asset.pause is not None and asset.outstanding != 1:
        what = f"{asset.outstanding} with a pause after each answer"
        checking.at((*here, "outstanding"), what, "1", check="manners")


def check_tls(checking: Checking, here: Path, asset: schema_assets.Asset, dialect: Dialect) -> None:
    """A protocol within TLS."""
    if asset.tls is None:
        return
    if not dialect.secure_port:
        checking.at((*here, "tls"), "tls", f"none: {dialect.name} is not spoken so", check="tls")
    elif not asset.tls.clients and not asset.tls.asset:
        checking.at((*here, "tls"), "tls for nobody", "clients: yes, asset: yes, or both", check="tls")
    elif asset.tls.asset and (lines := sorted({"rtu_over_tcp", "rtu_echo"}.intersection(asset.quirks))):
        checking.at((*here, "tls", "asset"), f"tls with the quirk {lines[0]}", "one of them", check="tls")


def check_vendor(checking: Checking, here: Path, asset: schema_assets.Asset, dialect: Dialect) -> None:
    """Functions that are carried without being understood."""
    for field, codes in (("vendor_functions", asset.vendor_functions),
                         ("vendor_write_functions", asset.vendor_write_functions)):  # fmt: skip
        for index, (code, sub) in enumerate(codes):
            place: Path = (*here, field, index)
            if not dialect.opaque:
                expected = f"none: {dialect.name} carries only what it understands"
                checking.at(place, f"function {code}", expected, check="vendor")
            elif code in dialect.place_codes or code in dialect.codes:
                rules = "read, write or registers" if code in dialect.place_codes else "functions or write_functions"
                checking.at(place, f"function {code}, which is public", f"{rules} of a rule", check="vendor")
            elif sub >= 0:
                checking.at(
                    place, f"function {code}/{sub}", f"{code}: what follows it is not looked at", check="vendor"
                )
            elif field == "vendor_write_functions" and any(code == other for other, _ in asset.vendor_functions):
                found = f"function {code}, which vendor_functions says to change nothing"
                checking.at(place, found, "it in one of them", check="vendor")


def check_shared(checking: Checking, assets: dict[tuple[str, str, int], list[tuple[str, schema_assets.Asset]]]) -> None:
    """Those that share an address, by zone, address and port."""
    for found in assets.values():
        first, said = found[0]
        for name, asset in found[1:]:
            for field in SHARED:
                if getattr(asset, field) != getattr(said, field):
                    what = f"another {field} than that of {first}, which has the same address"
                    place: Path = ("assets", name, field if field in asset.model_fields_set else "address")
                    checking.at(
                        place, what, "one for all behind one address, since they share connections", check="manners"
                    )


def _shown(milliseconds: int) -> str:
    return f"{milliseconds // 1000} s" if milliseconds >= 1000 else f"{milliseconds} ms"
