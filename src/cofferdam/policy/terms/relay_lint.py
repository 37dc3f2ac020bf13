"""What is legal in a conduit of the relay but unwise, or without effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cofferdam.policy.findings import Linting
from cofferdam.policy.messages.schemas import Schemas
from cofferdam.policy.terms.relay_model import RelayConduit
from cofferdam.policy.terms.relay_rows import RelayRows


def _conduits(run: Linting) -> Iterator[tuple[str, RelayConduit]]:
    return ((name, each) for name, each in run.policy.conduits.items() if isinstance(each, RelayConduit))


def _idle_channels(run: Linting) -> None:
    """A channel of the relay to which nobody may push, or from which nobody may pull: then it fills up."""
    for name, conduit in _conduits(run):
        pushed = {channel for rule in conduit.allow for channel in rule.push}
        pulled = {channel for rule in conduit.allow for channel in rule.pull}
        for channel in conduit.channels:
            place = ("conduits", name, "channels", channel)
            if channel not in pushed:
                run.key(place, "idle-channel", f"{channel}, to which nobody may push", "a rule that lets somebody push")
            if channel not in pulled:
                what = f"{channel}, from which nobody may pull: it fills up"
                run.key(place, "idle-channel", what, "a rule that lets somebody pull")


def _plain_doors(run: Linting) -> None:
    """A relay that answers HTTP without TLS at an address other than loopback."""
    for name, conduit in _conduits(run):
        for zone, door in conduit.listen.items():
            if door.plain and not door.at[0].startswith("127.") and door.at[0] != "::1":
                run.value(
                    ("conduits", name, "listen", zone, "plain"), "plain-http",
                    "HTTP without TLS: keys can be read on the way", "TLS",
                )  # fmt: skip


def _plain_tables(run: Linting) -> None:
    """A relay that speaks with a database without TLS at an address other than loopback."""
    for name, conduit in _conduits(run):
        for zone, said in conduit.tables.items():
            if said.plain and not said.at[0].startswith("127.") and said.at[0] != "::1":
                run.value(
                    ("conduits", name, "tables", zone, "plain"), "plain-table",
                    "a database without TLS: messages can be read on the way, and anybody can pose as it", "TLS",
                )  # fmt: skip


def _unchecked_channels(run: Linting) -> None:
    """A channel of the relay towards the plant without a schema: whatever is JSON passes."""
    for name, conduit in _conduits(run):
        zone = run.policy.zones.get(conduit.to_zone)
        for channel, said in conduit.channels.items():
            if said.schema_file is None and zone is not None and zone.side == "ot":
                run.key(
                    ("conduits", name, "channels", channel), "unchecked-channel",
                    f"{channel}, by which anything comes into the plant", "a schema",
                )  # fmt: skip


def _doubling_schemas(run: Linting) -> None:
    """A channel whose schema leads back to itself by several ways: what is deep is refused, lest it take hours."""
    for name, _ in _conduits(run):
        row = run.compiled.conduits[name].terms
        if not isinstance(row, RelayRows):
            continue
        schemas = Schemas({file: data for file, data in row.schemas.items() if not file.endswith(".xsd")})
        for channel in row.channels:
            if channel.schema and channel.form == "json" and (times := schemas.doubles(channel.schema)) > 1:
                run.value(
                    ("conduits", name, "channels", channel.name, "schema"), "doubling-schema",
                    f"{channel.schema}, by which the work may grow {times} times with each level of a message: only so "
                    "deep ones are taken as it can bear",
                    "one way by which it leads back to itself",
                )  # fmt: skip


CHECKS: dict[str, Callable[[Linting], None]] = {
    "doubling-schema": _doubling_schemas,
    "idle-channel": _idle_channels,
    "plain-http": _plain_doors,
    "plain-table": _plain_tables,
    "unchecked-channel": _unchecked_channels,
}
