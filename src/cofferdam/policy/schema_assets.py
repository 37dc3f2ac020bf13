"""The policy file's fields of an asset, and of what stands at it: points, methods, notifiers, subtrees, streams,
security.

Not here: the other parts of the file (schema), how values are written (notations).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from cofferdam.policy.fields import as_list
from cofferdam.policy.fields import choice as _choice
from cofferdam.policy.fields import read_by as _read
from cofferdam.policy.fields import whole as _whole
from cofferdam.policy.notations import (
    UNIT,
    UNITS,
    Address,
    At,
    Codes,
    Dimensions,
    Elements,
    Endpoint,
    Endpoints,
    Entry,
    Fields,
    Length,
    Limit,
    Microseconds,
    Milliseconds,
    Name,
    Names,
    NodeText,
    NotZero,
    Number,
    Numbering,
    Numbers,
    PointType,
    Positive,
    Rate,
    SecurityWord,
    SecurityWords,
    Text,
    Type,
    WordOrder,
    YesNo,
    form_of,
    read_unit,
    read_within,
)


class Typed(Entry):
    """Whatever has a type."""

    _form: str = PrivateAttr("")

    @property
    def form(self) -> str:
        """The protocol's word for what values are at the device, where they are of another type to policy; else ""."""
        return self._form

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_form(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        found: Self = handler(raw)
        found._form = form_of(raw, info)
        return found


class Point(Typed):
    """A named value of an asset, and the limits that hold for whoever writes it."""

    at: At = Field(
        description="Where the value is, as the asset's protocol writes it. Modbus: the space and the first cell, "
        "counted from 0 as on the wire: `holding 100`, `input 12`, `coil 3`, `discrete 7`, `file:4 0`. A range "
        "(`holding 100-101`) must have as many cells as the type. `holding 40.3` is bit 3 of a register, counted from "
        "the least significant one, `holding 40.0-3` a field of four; `holding 40 bit 3` is the same."
    )
    type: PointType = Field(
        None,
        description="What the value is, or how the cells make it, in the protocol's words. Modbus: `bool`, `uint16`, "
        "`int16`, `uint32`, `int32`, `uint64`, `int64`, `float32`, `float64`, or by "
        "IEC 61131-3: `INT`, `REAL`; `text` (or `string`): two characters of ASCII in each cell of the range; `bcd`: "
        "four decimal digits in each of one, two or four cells. Coils, discrete inputs and single bits are `bool`, "
        "several bits `uint16`; all others must say.",
    )
    word_order: WordOrder = Field(
        "big",
        description="Order of the words of a wider type: `big` has the most significant first, `little` last. With "
        "`-swapped` the bytes within each word stand the other way round. Or as drivers have it: `ABCD`, `CDAB`, "
        "`BADC`, `DCBA`.",
    )
    byte_order: WordOrder | None = Field(None, description="Another name for `word_order`, which drivers use.")
    unit: Text | None = Field(None, description="The physical unit, for people: rpm, m, kWh.")
    scale: NotZero | None = Field(
        None,
        description="What people mean is the device's number times this: 0.01 where 7000 is 70 %. All limits of the "
        "point are in what people mean then, and so is what `explain` asks and refusals say. For cells.",
    )
    offset: Number | None = Field(None, description="What is added to the scaled number. For cells.")
    scale_from: At = Field(
        None,
        description="The cell that holds, as an int16, the power of ten by which the device's number is multiplied "
        "(SunSpec's scale factors): `holding 40084`. `min` and `max` are in what that makes. The broker reads it just "
        "before a write.",
    )
    values: Numbers = Field(
        (), description="The only values that may be written, and nothing between: `[0x55, 0xAA]`. For cells."
    )
    min: Limit | None = Field(
        None, description="The smallest value that may be written; of a time, the first: `2027-06-30T12:00:00Z`."
    )
    max: Limit | None = Field(None, description="The largest value that may be written; of a time, the last.")
    max_step: Positive | None = Field(
        None,
        description="How far a written value may be from the present one, which the broker reads just before; with "
        "`limits: known_value_seconds`, a value that old will do.",
    )
    max_rate: Rate | None = Field(
        None,
        description="How fast the value may move, in the unit of the point: `50 rpm/min`, `2 bar/s`, `30 K/h`. A "
        "written value may be no further than that from any value that the point had within the last minute (second), "
        "as far as the broker knows: before and after each write. Said for an hour, it holds for each minute of it.",
    )
    writes_per_minute: Annotated[int, *_whole(1, 6000)] | None = Field(
        None, description="How many writes of the point are sent within any 60 seconds, by all clients together."
    )
    elements: Elements | None = Field(
        None,
        description="How many elements the value has, where it is a whole array. For protocols with names; default: a "
        "single value, or the range that `at` names.",
    )
    dimensions: Dimensions = Field(
        (),
        description="The sizes of a matrix, `[3, 4]` for three rows of four: it may be written as one of these and in "
        "no other form, and each element is held to the limits. Reading needs none. For protocols with matrices.",
    )
    max_length: Length | None = Field(
        None,
        description="The longest text (characters) or byte string (bytes) that may be written. For such types.",
    )
    structure: NodeText | None = Field(
        None,
        description="The value is a structure that the gate does not decode, of this encoding (the node of its Default "
        "Binary): `nsu=urn:plant:line;i=5001`. With `type: ByteString` and `max_length`. It may be read, and never "
        "written.",
    )
    fastest: Microseconds | None = Field(
        None,
        description="How often the value may be looked at for who has subscribed to it: no interval is shorter. For "
        "protocols with subscriptions.",
    )


class Argument(Typed):
    """What a method takes in one place of a call, and its limits."""

    name: Name = Field(description="What it is called in messages and in the log.")
    type: Type = Field(description="What it is, in the protocol's words.")
    unit: Text | None = Field(None, description="The physical unit, for people.")
    min: Limit | None = Field(None, description="The smallest value that may be passed; of a time, the first.")
    max: Limit | None = Field(None, description="The largest value that may be passed; of a time, the last.")
    elements: Elements | None = Field(None, description="How many elements it has, where it is an array.")
    max_length: Length | None = Field(None, description="The longest text or byte string that may be passed.")


class Returned(Typed):
    """What a method gives back in one place of its answer."""

    name: Name = Field(description="What clients are told that it is called.")
    type: Type = Field(description="What it is, in the protocol's words.")
    unit: Text | None = Field(None, description="The physical unit, for people.")
    elements: Elements | None = Field(None, description="How many elements it has, where it is an array.")


class Method(Entry):
    """Something that can be called at an asset. A call counts as a write."""

    at: At = Field(description="Which method, as the asset's protocol writes it.")
    arguments: Annotated[tuple[Argument, ...], BeforeValidator(as_list)] = Field(
        (), description="What it takes, in order. A call with other types, or another number of them, is refused."
    )
    returns: Annotated[tuple[Returned, ...], BeforeValidator(as_list)] = Field(
        (),
        description="What it gives back, in order, for clients to see. If it is said, what the device gives back in "
        "another form is left out.",
    )
    writes_per_minute: Annotated[int, *_whole(1, 6000)] | None = Field(
        None, description="How many calls are sent within any 60 seconds, of all clients together."
    )


class Stream(Entry):
    """A stream that can be opened to an asset: values that then go by themselves, frame by frame. Opening it counts as
    a write; the values of its frames are held to the limits of the points that they are of."""

    at: At = Field(description="Which stream, as the asset's protocol writes it.")
    config: Text | None = Field(None, description="Configuration that openings may bring, as hexadecimal: `01 00 dc`.")
    fastest: Microseconds | None = Field(None, description="The shortest interval of its frames that may be asked.")
    form: Text | None = Field(
        None,
        description="What it is made of, where the protocol has to be told. EtherNet/IP: its assemblies and their "
        "sizes, `outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151`; with `, no run` at the end if the outputs "
        "do not begin with run or idle.",
    )
    multicast: Text | None = Field(
        None,
        description="Clients that ask for it are sent its frames by one multicast group: `derived` (EtherNet/IP: from "
        "the asset's own `overlay` or `listen` address, as CIP says) or an address of 239.0.0.0/8. Off unless set: "
        "each client is sent its own.",
    )


class Notifier(Entry):
    """What events come from, and which of their fields may be had. Of one object there may be several, with fields for
    different principals."""

    at: At = Field(
        description="The object that events come from, as the asset's protocol writes it. OPC UA: `i=2253` is the "
        "server itself, whose events are those of all."
    )
    fields: Fields = Field(
        (),
        description="The fields, as the asset's protocol writes them. OPC UA: browse paths such as `Severity`, "
        "`ActiveState/Id` or `nsu=urn:plant:line;Batch` (`line:Batch` by a short name), and `ConditionId`. Default: "
        "those that all events have (EventId, EventType, SourceNode, SourceName, Time, ReceiveTime, Message, "
        "Severity); `default` among others stands for them.",
    )


class Subtree(Entry):
    """A part of what the asset's server has, whose structure clients may see: what the nodes in it are called, of what
    class and type they are, and how they hang together. Their values are another matter: these need points."""

    at: At = Field(description="The object on top of it, as the asset's protocol writes it.")
    depth: Annotated[int, *_whole(1, 20)] = Field(5, description="How many steps down from there are shown.")
    nodes: Annotated[int, *_whole(1, 2000)] = Field(
        500, description="How many nodes are shown at most; of more, those that come first, level by level."
    )


class Security(Entry):
    """How an asset is spoken with, on either side. For protocols that can be secured."""

    clients: SecurityWords = Field(
        (), description="What clients may use. Default: the best that the protocol has; `none` has to be said."
    )
    asset: SecurityWord | None = Field(None, description="What is used towards the asset. Default: the same.")
    server: Text | None = Field(
        None, description="Who the asset has to show to be: for OPC UA the ApplicationUri of its certificate."
    )
    revocation: Annotated[str, *_choice("known", "required")] = Field(
        "known",
        description="`required`: a certificate by an authority is good only with a current revocation list of it "
        "(`cofferdam pki crl`). `known`: what a list says counts, where there is one.",
    )
    user: Text | None = Field(
        None, description="As whom the broker logs in at the asset. The password is `cofferdam pki password ASSET`."
    )
    login: Annotated[str, *_choice("certificate")] | None = Field(
        None,
        description="`certificate`: instead, the broker logs in at the asset by a certificate that is for that alone "
        "(`cofferdam pki identity ASSET`).",
    )


class Tls(Entry):
    """Modbus/TCP Security: the protocol within TLS, both ends with certificates (`cofferdam tls`)."""

    clients: YesNo = Field(False, description="Clients have to use it. The broker answers at port 802 then.")
    asset: YesNo = Field(False, description="The device is spoken with by it, at port 802 unless `port` says another.")
    name: Text | None = Field(
        None, description="The name that the device's certificate has to have. Default: its address."
    )


class Reverse(Entry):
    """Connections that who serves opens. For protocols that have such (OPC UA: reverse connect)."""

    listen: Endpoint | None = Field(
        None,
        description="ADDRESS:PORT of this machine in the asset's zone, to which the device opens connections, from its "
        "`address`. The gate opens none to it then.",
    )
    clients: Endpoints = Field(
        (),
        description="ADDRESS:PORT, or a list of them: to these clients the gate opens connections for the asset. Who "
        "waits there has to be a principal that a rule names, by its address.",
    )


class Asset(Entry):
    """A device in the plant."""

    zone: Name = Field(description="The zone in which the device is.")
    address: Address = Field(description="The device's own address, on the plant side.")
    protocol: Name = Field(description="What the device speaks: `modbus`.")
    port: Annotated[int, *_whole(1, 65535)] | None = Field(
        None, description="The device's port. Default: that of the protocol (Modbus: 502)."
    )
    unit: Annotated[int, *_read(read_unit, UNIT)] = Field(
        1,
        description="The unit id that requests must carry, 0 to 255, or `any`. A device behind a serial gateway has "
        "its own. For protocols with units.",
    )
    units: Annotated[None, *_read(lambda raw: None, UNITS)] = Field(
        None,
        description="Instead of `unit`: one asset for each of these units, `1-20` or `[1, 2, 8-12]`, named NAME-1 and "
        "so on, and alike in all else. Rules that name NAME mean all of them.",
    )
    device_unit: Annotated[int, *_whole(0, 255)] | None = Field(
        None,
        description="The unit id that the device itself has, where it is another than clients say (`unit`).",
    )
    gateway: Literal["serial"] | None = Field(
        None,
        description="`serial`: behind the address is a gateway to a serial line, which tells its units apart. Else "
        "they are taken for one device, and no other asset of the address may be written where one has limits.",
    )
    overlay: Address | None = Field(
        None, description="The address that the other side sees for this device; only a broker answers there."
    )
    listen: Endpoint | None = Field(
        None,
        description="ADDRESS:PORT where the broker answers for this device. Default: the overlay address with the "
        "protocol's port. Devices with different units may share one.",
    )
    connections: Annotated[int, *_whole(1, 64)] = Field(
        1, description="Never more connections than this towards the device."
    )
    outstanding: Annotated[int, *_whole(1, 16)] = Field(
        1, description="Requests in flight on one connection to the device."
    )
    timeout: Milliseconds = Field(1000, description="How long the device may take to answer.")
    connect_delay: Milliseconds | None = Field(
        None, description="How long after connecting the device is left alone before it is asked. At most 30 s."
    )
    reconnect_delay: Milliseconds | None = Field(
        None,
        description="How long after a connection has ended, whoever ended it, the device is left alone before the next "
        "is opened; reads wait meanwhile, writes for `timeout` or `wait`, and one refusal more is waited out. For "
        "devices that refuse the next connection for a while. At most 30 s.",
    )
    pause: Milliseconds | None = Field(
        None,
        description="How long the device is left alone after each of its answers, whoever asks next. For converters to "
        "serial lines, which lose what comes too soon. At most 10 s; `outstanding` must be 1.",
    )
    idle: Milliseconds | None = Field(
        None,
        description="A connection that nobody has used for so long is closed, half a second later at most: a second "
        "less than what the device itself forgets one after. Default: `asset_idle_seconds` of `limits`. At least 1 s.",
    )
    wait: Milliseconds | None = Field(
        None,
        description="How long a request may wait in line for the device, apart from `timeout`, which is the device's. "
        "What waited longer is answered as busy, and not sent. Default: `timeout` and `connect_delay`, for reads "
        "`reconnect_delay` besides; reads of a device behind whose address are several units, five times that. At most "
        "60 s.",
    )
    keep_alive: Milliseconds | None = Field(
        None,
        description="A connection that nobody has used for so long is used by the gate: it asks what `cofferdam ping` "
        "asks, the first read that a rule allows somebody just then. For devices that forget a connection and clients "
        "that ask seldom. From 1 s on, and less than `idle`.",
    )
    write_bits: Annotated[Literal["alone", "read-first"], *_choice("alone", "read-first")] = Field(
        "alone",
        description="How bits of a word are written: `alone`, where the device knows a function for that (Modbus: 22), "
        "or `read-first`, where it does not: the gate then reads the word, puts the bits in and writes it, and no "
        "other write of the gate comes in between.",
    )
    repeat_reads: YesNo = Field(
        False,
        description="`yes`: a read whose connection the device broke is asked once more, on a fresh one. A write never "
        "is.",
    )
    share_reads: Milliseconds | None = Field(
        None, description="Reads of the same cells within this time reach the device once. Off unless set."
    )
    route: Text | None = Field(
        None,
        description="How a request goes on from the address to the device, for protocols with routes. EtherNet/IP: "
        "`backplane 0` for the controller in slot 0 of the rack.",
    )
    explicit: Annotated[Literal["connected"], *_choice("connected")] | None = Field(
        None,
        description="`connected`: requests go within a connection of class 3 (EtherNet/IP), which holds about 4,000 "
        "bytes of a request where the device has large ones, and about 500 else. Without it each goes by itself.",
    )
    quirks: Names = Field(
        (), description="Known deviations of the device from its protocol, by the names that the protocol's page lists."
    )
    vendor_functions: Codes = Field(
        (),
        description="Functions of the device's vendor, by number, that are carried without being understood (Modbus: "
        "codes that no public document has), and that change nothing in it, as you say. A rule allows them by "
        "`functions`.",
    )
    vendor_write_functions: Codes = Field(
        (), description="The same, of functions that may change it. A rule allows them by `write_functions`."
    )
    security: Security | None = Field(
        None, description="How the device is spoken with, for protocols that can be secured."
    )
    tls: Tls | None = Field(None, description="Who speaks with it within TLS, for protocols that have that (Modbus).")
    reverse: Reverse | None = Field(
        None, description="Connections that the device opens, or that are opened to clients for it."
    )
    bits_of: dict[Name, At] = Field(
        {},
        description="Spaces of bits that the device keeps in words of another space: `{coil: holding 100}` where coils "
        "0 to 15 are the bits of holding 100, coils 16 to 31 those of holding 101, and so on. Limits of a point then "
        "hold for writes by either name.",
    )
    namespaces: dict[Name, Text] = Field(
        {},
        description="Short names for what a protocol's names of places begin with, for `at`, `structure` and `fields`, "
        "and for `explain`. With subtrees, nodes of these are shown in them. OPC UA: "
        '`{line: "urn:plant:line"}`, and `at: "line:s=Line1.Speed"` is `nsu=urn:plant:line;s=Line1.Speed`.',
    )
    numbering: Numbering | None = Field(
        None,
        description="How `at` of its points and `bits_of` count cells, where it is another way than from 0 in a space. "
        "`modicon`: `40101`, `400101` or `4x00101` is holding 100, `30001` input 0, `10001` discrete 0, `00001` coil "
        "0. `one`: from 1 in a space, `holding 1` or `HR1` is holding 0. `zero`: from 0, and `HR100`, `%MW100` and "
        "`holding 0x64` as well. For Modbus; rules' `registers` count from 0.",
    )
    points: dict[Name, Point] = Field({}, description="The device's named values.")
    methods: dict[Name, Method] = Field({}, description="What can be called, by name. For protocols with methods.")
    streams: dict[Name, Stream] = Field({}, description="What can be opened as a stream. For protocols with streams.")
    notifiers: dict[Name, Notifier] = Field({}, description="What events come from. For protocols with events.")
    browse: dict[Name, Subtree] = Field(
        {}, description="Subtrees whose structure clients may see. For protocols with a tree of nodes."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_protocol(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        found: Self = read_within(info, raw, "protocol", handler)
        return found
