"""What each part of a crew may do, as data: launcher, filter, file view, limits, users and proof all read it here.

A crew is a set of parts (processes) that are born together, end together and are joined by one-way pipes. Halves of a
proxy, a relay's keeper, the name server and the auditor are parts alike. An order to the launcher names a crew's kind
and its parts; everything else stands in these declarations, which are part of the code.

Not here: which kinds there are (brokers.registry), what a part does (the brokers).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Final, Literal

import msgspec

VOUCH: Final = "vouch"
"""The kind of secret by which a part vouches for what it sees: random bytes, of which others believe the public key."""
GATE_VOUCHES: Final = "gate"
"""Who vouches for what operators ask: no part, and called so among them."""
MEMORY_BYTES: Final = 2 << 30
"""Address space of a part. A half needs about 60 MiB; one that leaks or is made to is ended, not the machine."""
QUOTA_BYTES: Final = 4 << 30
"""Room of a store, where the policy says nothing else."""


NICE: Final = {"some": 5, "low": 19}
"""Of parts that yield (`Profile.yields`)."""
REALTIME_PRIORITY = 10
"""Of an urgent part: above all that has no real-time priority, below the kernel's own threads that have one."""


class Can(enum.Flag):
    """What a part may do besides reading and writing the pipes that it was born with: each is one row of the table of
    system calls (sandbox)."""

    NOTHING = 0
    ACCEPT = enum.auto()  # accept connections at the listeners it was born with
    DIAL_TCP = enum.auto()  # make TCP sockets and connect them
    STREAM = enum.auto()  # recv and send without an address, as asyncio and TLS do
    KEEPALIVE = enum.auto()  # set TCP keep-alive
    DATAGRAMS = enum.auto()  # send and receive datagrams by the sockets it was born with
    EMIT = enum.auto()  # write to the strands' sockets that it was born with, and read from none of them
    COLLECT = enum.auto()  # read from the strands' sockets that it was born with, and write to none of them
    DIAL_UDP = enum.auto()  # make UDP sockets and connect them
    BIND_UDP = enum.auto()  # bind them to a port of its choice, where anybody could send to
    PING = enum.auto()  # make ICMP sockets that can do nothing but ask for an echo, and connect them
    DIAL_LOCAL = enum.auto()  # connect to the Unix sockets of the host that are bound for it (`sockets`)
    STORE = enum.auto()  # files below its own store and folders: open, write, lock, sync, rename, remove
    CODE = enum.auto()  # make memory executable: for a library that compiles what it runs, in a process for one file
    READ = enum.auto()  # files that are bound read-only for it: open for reading, threads of a thread pool
    FEED = enum.auto()  # named pipes below its own store, for those that see it and read what takes a file's name


class Profile(msgspec.Struct, frozen=True):
    """One part. `name` is unique, such as "relay/keeper".

    `stands`: in the network namespace of the conduit's outer or inner side, in an empty one of its own ("apart"), or in
    the host's ("host"). `reads`: parts of the same crew whose stores it sees read-only. `secrets`: kinds of secrets
    that the gate hands to this part, and to no other, over its control pipe; `makes`: those of them that are random
    bytes, which the gate makes where there are none. `believes`: parts of the same crew, or the gate, whose signed word
    it is told the public keys of (brokers.kit.vouch). `preload`: modules that are imported before the filter closes.
    `says`: kinds of events that the auditor takes from it; none: it gets no way there.

    `folders`: it may have folders of the site's, which it reads and writes (sites).

    `confined`: it puts the filter of `can` on itself, and holds no socket but those of its work. `writes`: folders of
    the gate's state that are its own, besides a store. `producers`: it takes the pipes of those who tell the audit log.
    `wires`: it gets a packet socket on each interface of its side.

    For a job (`Crew.jobs`): `ordered_by` is the part that may have it started, `seconds` how long it may take.
    `urgent`: it may give itself a real-time priority before its filter closes, where the policy asks for one.

    `log`: it sees the audit log's folder, without its key, read-only (as `audit` among what it reads).

    `told`: the gate hands it its own status each minute, as a command (HOUSE_STATUS).

    `yields`: to those that carry traffic: where there is not enough of the processor it gets a third of what others
    get ("some"), next to nothing ("low"), or runs when nothing else wants it at all ("idle", SCHED_IDLE). Where the
    kernel shares it out among sessions first, each of the three is a third.

    `root`: it keeps the launcher's own user, its rights and its sight of the machine: what looks at all others from
    outside. No input from a network reaches it, and it is no part: none of the crews has such a one beside others.

    `by_need`: of `can`, what it may only where the policy needs it (a listener for it, something that it opens
    connections to), and is without elsewhere.

    `seam`: which end it may have of seams: pipes to a part of another crew on the same side, by which a broker has its
    clients served by another ("front"), or serves them ("back").

    `sockets`: Unix sockets of services of the host that it may connect to, by the names under which the operator gives
    them to `cofferdam up --socket`.
    """

    name: str
    stands: Literal["outer", "inner", "apart", "host"]
    can: Can = Can.NOTHING
    runtime: Literal["reactor", "asyncio"] = "reactor"
    program: str = "cofferdam.brokers.half"
    compiled: bool = False
    store: bool = False
    folders: bool = False
    reads: tuple[str, ...] = ()
    memory: int = MEMORY_BYTES
    quota: int = QUOTA_BYTES
    secrets: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    believes: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    confined: bool = True
    writes: tuple[str, ...] = ()
    producers: bool = False
    wires: bool = False
    ordered_by: str = ""
    seconds: float = 0.0
    sockets: tuple[str, ...] = ()
    urgent: bool = False
    log: bool = False
    told: bool = False
    yields: Literal["", "some", "low", "idle"] = ""
    root: bool = False
    by_need: Can = Can.NOTHING
    seam: Literal["", "front", "back"] = ""

    def __post_init__(self) -> None:
        if (self.store or self.folders) != (Can.STORE in self.can):
            raise ValueError(f"{self.name} has a store or folders, or may write in some, but not both")
        if Can.FEED in self.can and not self.store:
            raise ValueError(f"{self.name} makes named pipes and has no store")
        if self.by_need & ~(self.can & (Can.ACCEPT | Can.DIAL_TCP)):
            raise ValueError(f"{self.name} may by need what it never may, or what no policy needs")
        if not set(self.makes) <= set(self.secrets):
            raise ValueError(f"{self.name} has secrets made for it that it does not get")
        if self.root and (self.confined or self.can or self.stands != "host" or self.secrets):
            raise ValueError(f"{self.name} keeps root's rights, and is said to be a part")
        if (self.reads or self.log) and not self.can & (Can.READ | Can.STORE):
            raise ValueError(f"{self.name} sees others' stores and may open no file")
        if bool(self.ordered_by) != (self.seconds > 0) or (self.ordered_by and (self.stands != "apart" or self.says)):
            raise ValueError(f"{self.name} is a job, and those stand apart, have a time limit, and tell no log")

    @property
    def fenced(self) -> bool:
        """It is held to what it is for in the network that it shares with the host."""
        return self.stands == "host" and self.confined

    def needing(self, *, listens: bool, dials: bool) -> Profile:
        """As it is where the policy has it listen, or open connections, or not."""
        spared = Can.NOTHING if listens else Can.ACCEPT
        spared |= Can.NOTHING if dials else Can.DIAL_TCP
        return msgspec.structs.replace(self, can=self.can & ~(self.by_need & spared), by_need=Can.NOTHING)


class Crew(msgspec.Struct, frozen=True):
    """A kind of crew: its parts by their names in it, and its pipes as (from, to). `optional` parts are there if the
    policy needs them, with their pipes.

    `rides` are crossings (from, to) that are made by a strand, where the conduit rides on one: both ends are parts with
    folders. One of them may be a pipe elsewhere.

    `alone`: parts without a pipe: one that ends is born again by itself, and the others go on.

    `returns`: parts that are born again by themselves as well, and have the pipes that their predecessor had, while the
    others, which go on without them, are told of it.

    `instead`: part -> pipes that are not made where this part is there, since it takes the place of one of their ends.

    `jobs` are processes that live for one piece of work and are thrown away: one part has the gate start them, gives
    them their work and gets their answer, both as bytes that the gate hands on. They have no pipe, no network and no
    store; what is large, they read from their orderer's."""

    kind: str
    parts: dict[str, Profile]
    pipes: tuple[tuple[str, str], ...] = ()
    optional: frozenset[str] = frozenset()
    jobs: dict[str, Profile] = {}
    alone: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    rides: tuple[tuple[str, str], ...] = ()
    instead: dict[str, tuple[tuple[str, str], ...]] = {}

    def joints(self, parts: Collection[str]) -> list[tuple[str, str]]:
        """The pipes between these parts of it."""
        without = {pipe for name, pipes in self.instead.items() if name in parts for pipe in pipes}
        return [pipe for pipe in self.pipes if set(pipe) <= set(parts) and pipe not in without]

    def unfit(self, named: Sequence[str], *, again: bool) -> str:
        """What is wrong with an order for these parts; "" for nothing. `again`: for one that comes again."""
        lacks = [] if again else [name for name in self.parts if name not in named and name not in self.optional]
        wrong = [f"lacks {name}" for name in lacks]
        wrong += [f"names {name}, which that kind has not" for name in named if name not in self.parts]
        wrong += [f"names {name} twice" for name in named if named.count(name) > 1]
        return wrong[0] if wrong else ""

    def _makes(self, part: str) -> tuple[str, ...]:
        return self.parts[part].makes if part in self.parts else ()

    def is_read(self, part: str) -> bool:
        """Whether other parts see the store of this one."""
        return any(part in profile.reads for profile in (*self.parts.values(), *self.jobs.values()))

    def __post_init__(self) -> None:
        for name, profile in self.jobs.items():
            if name in self.parts or profile.ordered_by not in self.parts:
                raise ValueError(f"{name} of the crew {self.kind} is a part as well, or ordered by none")
        for name, profile in (*self.parts.items(), *self.jobs.items()):
            if unknown := [other for other in profile.reads if not (other in self.parts and self.parts[other].store)]:
                raise ValueError(f"{name} of the crew {self.kind} reads {unknown[0]}, which has no store")
            if dumb := [one for one in profile.believes if one != GATE_VOUCHES and VOUCH not in self._makes(one)]:
                raise ValueError(f"{name} of the crew {self.kind} believes {dumb[0]}, which vouches for nothing")
        joined = {name for pipe in (*self.pipes, *self.rides) for name in pipe}
        for name in self.alone:
            if name in joined or name not in self.optional or self.parts[name].store:
                raise ValueError(
                    f"{name} of the crew {self.kind} lives alone, and has a pipe or a store, or is always there"
                )
        for name in self.returns:
            if name not in self.parts or name in self.optional or self.parts[name].stands != "apart":
                raise ValueError(f"{name} of the crew {self.kind} comes again, and may lack, or stands on a side")
        for pipe in self.pipes:
            if not set(pipe) <= self.parts.keys() or pipe[0] == pipe[1]:
                raise ValueError(f"the crew {self.kind} has a pipe {pipe[0]} -> {pipe[1]} without both ends")
