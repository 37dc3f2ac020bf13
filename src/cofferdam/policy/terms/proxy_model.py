"""The words of a proxy in the policy file. Not here: what they mean (proxy), what is wrong with them (proxy_checks)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cofferdam.policy import notations, schema
from cofferdam.policy.fields import as_list, choice, one_or_list, one_or_more
from cofferdam.policy.notations import Codes, Names, RawReads, RawWrites

_ASSET = {"type": "string", "pattern": notations.NAME.replace("$", r"\\*?$")}
AssetNames = Annotated[tuple[notations.Name, ...], BeforeValidator(one_or_more), one_or_list(_ASSET)]


class ProxyRule(schema.Rule):
    """One line of a proxy's `allow`: who may do what with which asset."""

    who: Names = Field(description="The principal, or a list of them.")
    asset: AssetNames = Field(
        description="The asset, or a list of them; `drive-*` for all whose names begin so, `all` for all: of those in "
        "the conduit's zone that speak its protocol."
    )
    read: Names = Field((), description="Points that may be read, or `all` for every point of the asset.")
    write: Names = Field(
        (), description="Points that may be written, or `all` for every point that can be. Reading is not implied."
    )
    subscribe: Names = Field(
        (),
        description="Points of which the client may have the values come by themselves, or `all`. For protocols with "
        "subscriptions; reading is not implied.",
    )
    fastest: notations.Microseconds | None = Field(
        None, description="The shortest interval at which the client may have values of `subscribe` looked at."
    )
    slowest: notations.Microseconds | None = Field(
        None,
        description="The longest one. Where a protocol revises intervals, any other becomes the nearest of these.",
    )
    history: Names = Field(
        (), description="Points whose recorded values may be read, for protocols with history; or `all`."
    )
    longest: notations.Microseconds | None = Field(
        None, description="The longest span of time that one question about `history` may be of: `8 h`, `7 d`."
    )
    events: Names = Field(
        (),
        description="Notifiers whose events the client may have come by themselves, with the fields each names; or "
        "`all`. For protocols with events.",
    )
    browse: Names = Field(
        (),
        description="Subtrees of which the client may see what there is, beyond what its other rights show; or `all`. "
        "Reading is not implied. For protocols with a tree of nodes.",
    )
    call: Names = Field((), description="Methods that may be called, for protocols with methods.")
    acknowledge: Names = Field(
        (),
        description="Notifiers of which the client may acknowledge, confirm and comment on the conditions that their "
        "events have told of; or `all`. The rule needs `events` of the same. For protocols with alarms.",
    )
    stream: Names = Field((), description="Streams that may be opened, for protocols with streams.")
    registers: RawReads = Field(
        (),
        description="Raw cells that may be read, where points are not enough: `[holding 0-99, input 0-9]`; or `all` "
        "for every cell of the spaces that are read by number (not files and queues).",
    )
    gaps: Annotated[Literal["allow", "refuse"], *choice("allow", "refuse")] = Field(
        "refuse",
        description="`allow`: a read may go over the cells between those that the rule names, where at most 123 lie "
        "between, as collectors do that read blocks. What lies there can then be read.",
    )
    write_registers: RawWrites = Field(
        (), description="Raw cells that may be written. The limits of points among them hold all the same."
    )
    functions: Codes = Field(
        (),
        description="Function codes without cells that leave the device's state alone, besides what the points allow: "
        '`8` (diagnostics, every harmless sub-function), `"8/0"`, `"43/14"`.',
    )
    write_functions: Codes = Field(
        (),
        description='Function codes without cells that may change the device\'s state: `"8/1"` restarts it, `"8/4"` '
        "silences it.",
    )

    @property
    def principals(self) -> tuple[str, ...]:
        return self.who

    @property
    def assets(self) -> tuple[str, ...]:
        return self.asset

    @property
    def changes(self) -> bool:
        return bool(
            self.write or self.call or self.acknowledge or self.stream or self.write_registers or self.write_functions
        )


class ProxyConduit(schema.Conduit):
    """A proxy understands a protocol request by request, and makes each anew on the other side. It adds no section of
    its own; its broker's word is the protocol that the assets speak."""

    priority: Annotated[Literal["normal", "realtime"], *choice("normal", "realtime")] = Field(
        "normal",
        description="`realtime`: the halves that serve it run before whatever has no such priority, as soon as they "
        "have something to do. For conduits with I/O. A change takes effect when the halves start anew.",
    )
    allow: Annotated[tuple[ProxyRule, ...], BeforeValidator(as_list)] = Field(
        description="The rules. They add up: a request is allowed if the rules of one conduit together allow all of it."
    )
