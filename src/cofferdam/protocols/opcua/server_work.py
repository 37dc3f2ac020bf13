"""Services on nodes, at the side towards a client: what crosses of each request, and how its answer is put together.

A read is judged item by item: what policy allows crosses in one part, what it does not in another, so that the refusal
is judged and recorded where all are. A write is judged whole: with one part not allowed nothing changes. Not here:
sessions and bytes (server), turns of subscriptions (subscriptions).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from cryptography import x509

from cofferdam.model import Assign, Item, Operation, Watch
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers, together, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Data, LocalizedText, Malformed, NodeId, Variant
from cofferdam.protocols.opcua.dialect import ARROW, BROWSE, HISTORY, READ, WATCH
from cofferdam.protocols.opcua.jobs import Job, Waiting
from cofferdam.protocols.opcua.names import FOREIGN, Unnamed, dimensions_of, formless, forms_of, item_of
from cofferdam.protocols.opcua.remembered import Known
from cofferdam.protocols.opcua.rendered import plainly
from cofferdam.protocols.opcua.server_calls import BAD_DENIED, BAD_NOTHING, BAD_OPERATIONS, BAD_TYPE, CallServices
from cofferdam.protocols.opcua.server_items import BAD_CLOSED
from cofferdam.protocols.opcua.space import OPERATION_LIMITS, PATH, Space, is_arguments
from cofferdam.protocols.opcua.trust import application_uri, split_chain
from cofferdam.values import Text

VALUE = 13
READS, WRITES, BROWSES, PATHS, CALLS, ITEMS_AT_ONCE, HISTORIES = 1000, 100, 100, 100, m.CALLS, 1000, 10
POINTS, POINT_REFERENCES = 10, 10_000
"""Continuation points of a session, and as many of history, the oldest of which go; references of one node."""
COMMUNICATION_FAULT, NO_DATA = 6, 1
"""ServerState and ServiceLevel of a server whose plant is away (OPC 10000-5, 12.6; -4, 6.6.2.4.2)."""
DESCRIBED = 16
"""Descriptions that are kept for other sessions."""
FRESH_NS, FRESH_TREE_NS = 10_000_000_000, 60_000_000_000
"""So old may a description be that is browsed; one with subtrees, for which the asset is asked a lot."""
RETRY_NS, MOST_RETRY_NS = 500_000_000, 10_000_000_000
BAD_NODE, BAD_NOT_WRITABLE, BAD_RANGE, BAD_ATTRIBUTE = 0x80340000, 0x803B0000, 0x80360000, 0x80350000
BAD_ENCODING = 0x80380000
BAD_POINT, BAD_NO_POINTS, BAD_NOT_CONNECTED = 0x804A0000, 0x804B0000, 0x80310000
BAD_UNSUPPORTED, BAD_FILTER, BAD_METHOD = 0x800B0000, 0x80450000, 0x80750000
BAD_HISTORY, BAD_TOO_MANY_ITEMS, BAD_INVALID_ARGUMENT = 0x80710000, 0x80DB0000, 0x80AB0000


def uri_of(certificate: bytes) -> str:
    """The ApplicationUri of the first certificate of a chain."""
    try:
        return application_uri(x509.load_der_x509_certificate(split_chain(certificate)[0]))
    except ValueError:
        return ""


class _Whole(Waiting):
    """A read that crosses as it is, as nearly all do."""

    __slots__ = ("_handle", "_known", "_number", "_services")

    def __init__(self, services: Services, number: int, handle: int, known: Known) -> None:
        super().__init__(services._server, 1)
        self._services, self._number, self._handle, self._known = services, number, handle, known

    def answer(self, slot: int, token: int, response: Any) -> None:
        self._left = 0
        self._server.jobs -= 1
        self._services.whole(self._number, self._handle, self._known, response)


class Services(CallServices):
    """What a session asks."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self._allowed: tuple[Item, ...] = ()
        self._space: Space | None = None
        self._space_at = 0
        self._space_of: tuple[Item, ...] = ()
        self._points: OrderedDict[bytes, list[s.ReferenceDescription]] = OrderedDict()
        self._point_size: dict[bytes, int] = {}
        self._pasts: OrderedDict[bytes, m.History] = OrderedDict()  # what is left to read back, by continuation point
        self._by_kind: dict[type, Callable[[int, Any], None]] = {
            s.ReadRequest: self._read, s.WriteRequest: self._write, s.CallRequest: self._call,
            s.BrowseRequest: self._browse, s.BrowseNextRequest: self._browse_next, s.TranslateRequest: self._translate,
            s.HistoryReadRequest: self._history, s.RegisterNodesRequest: self._register,
            s.UnregisterNodesRequest: self._register, s.CancelRequest: self._cancel,
            s.CreateSubscriptionRequest: self._create_subscription, s.ModifySubscriptionRequest: self._modify,
            s.SetPublishingModeRequest: self._publishing, s.DeleteSubscriptionsRequest: self._delete,
            s.TransferRequest: self._transfer, s.PublishRequest: self._publish, s.RepublishRequest: self._republish,
            s.CreateItemsRequest: self._create_items, s.ModifyItemsRequest: self._modify_items,
            s.DeleteItemsRequest: self._delete_items, s.SetMonitoringModeRequest: self._monitoring,
        }  # fmt: skip

    def let_go(self) -> None:
        """The connection is over, and its machine forgotten."""
        self._by_kind.clear()
        self.subscriptions.let_go()
        self._server = None

    def request(self, number: int, request: Any) -> None:
        """Any service of a session. Raises: Malformed."""
        work = self._by_kind.get(type(request))
        if work is None:
            raise Malformed("no such service here", BAD_UNSUPPORTED)
        work(number, request)

    # --- what may be done -------------------------------------------------------------------------------------------

    def _may(self, operation: Operation) -> bool:
        facing = self._server.facing
        return facing is not None and facing.may(operation)

    def _visible(self, name: str) -> bool:
        return self._may(Operation(BROWSE, -1, -1, False, (Item("about", name),)))

    def _no(self, name: str) -> int:
        """Why something is not allowed, in a status."""
        seen = name == "i=2253" or self._visible(name) or self._in_space(name)  # all see the server itself
        return BAD_DENIED if seen else BAD_NODE

    def _in_space(self, name: str) -> bool:
        """Whether the client has been shown a node in a subtree."""
        own = name.rpartition(ARROW)[2]
        try:
            return self._space is not None and self._names.node(own) in self._space.nodes
        except Unnamed:
            return False

    def _rights(self, name: str, klass: int) -> tuple[int, bool]:
        if klass == 4:
            asset = self._server.facing.asset
            found = [one.at for one in asset.methods if one.at.name.endswith(f"{ARROW}{name}")]
            return 0, any(self._callable(item) for item in found)
        if klass == 1:
            watch = Watch(Item("event", name), 10**9)
            return 1 if self._may(Operation(WATCH, -1, -1, False, (watch,))) else 0, False
        item = Item("node", name)
        level = 1 if self._may(Operation(READ, -1, -1, False, (item,))) else 0
        interval = self._server.facing.pace(item)[1] or 10**9
        level |= 1 if self._may(Operation(WATCH, -1, -1, False, (Watch(item, interval),))) else 0
        level |= 2 if self._may_write(item) else 0
        level |= 4 if self._may(Operation(HISTORY, -1, -1, False, (Item("history", name, 0, 1),))) else 0
        return level, False

    def _callable(self, item: Any) -> bool:
        return isinstance(item, Item) and bool(self._server.facing.reach("call", item))

    def _may_write(self, item: Item) -> bool:
        return bool(self._server.facing.reach("write", item))

    # --- read -------------------------------------------------------------------------------------------------------

    def _read(self, number: int, request: s.ReadRequest) -> None:
        nodes, handle = request.nodes, request.header.handle
        if not nodes:
            raise Malformed("a Read of nothing", BAD_NOTHING)
        if len(nodes) > READS:
            raise Malformed(f"a Read of {len(nodes)} nodes", BAD_OPERATIONS)
        if request.stamps > 3:
            raise Malformed("no such time stamps", 0x802B0000)
        asked: list[tuple[int, Item]] = []
        items: tuple[Item, ...] = ()
        whole: m.Read | None = None
        known = self._server.heard.made(nodes)
        if known is not None:
            asked, items, whole = known
        results: list[bytes] = [b""] * len(nodes)  # as they are written
        about: list[int] = []
        if whole is None:
            for place, one in enumerate(nodes):
                if one.node.ns == 0:
                    results[place] = plainly(self._standard(one))
                elif one.attribute != VALUE or is_arguments(one.node):
                    about.append(place)
                else:
                    found = self._item(one.node, one.range)
                    if isinstance(found, int):
                        results[place] = plainly(Data(None, found))
                    else:
                        asked.append((place, found))
            items = tuple([item for _, item in asked])
            if len(asked) == len(nodes):  # all are the asset's: it follows from the names alone what is asked
                whole = m.Read(items)
                self._server.heard.keep(nodes, (asked, items, whole), self._server.token)
        groups = [asked] if asked else []
        hoped = len(asked) > 1 and self._hopes(items)
        if len(asked) > 1 and not hoped and not self._may(Operation(READ, -1, -1, False, items)):
            allowed: list[tuple[int, Item]] = []
            denied: list[tuple[int, Item]] = []
            for each in asked:
                (allowed if self._may(Operation(READ, -1, -1, False, (each[1],))) else denied).append(each)
            groups = [group for group in (allowed, denied) if group]
        elif len(asked) > 1:
            self._allowed = items
        survey = self._survey() if about else None

        def finish(answers: list[Any]) -> None:
            if hoped and isinstance(answers[0], m.Refused) and answers[0].status == BAD_DENIED:
                self._allowed = ()
                self._read(number, request)
                return
            for group, answer in zip(groups, answers, strict=False):
                for (place, _), value in zip(group, self._written(group, answer, request.stamps), strict=True):
                    results[place] = value
            if about:
                if survey is not None:
                    self._described(survey, answers[-1])
                space = self._space
                for place in about:
                    one = nodes[place]
                    gone = Data(None, BAD_NOT_CONNECTED)
                    results[place] = plainly(gone if space is None else space.attribute(one.node, one.attribute))
            self._have_read(number, handle, len(results), results)

        parts: list[m.OpcUaRequest] = [
            whole if whole is not None and group is asked else m.Read(tuple([item for _, item in group]))
            for group in groups
        ]
        if survey is not None:
            parts.append(m.Survey(survey))
        self._start(parts, finish)

    def _hopes(self, items: tuple[Item, ...]) -> bool:
        """What was allowed as a whole most likely is again: it is judged when it crosses, and taken apart if need be.
        A single one is judged as it is."""
        return len(items) == 1 or items is self._allowed or items == self._allowed

    def hopes(self, known: Known) -> bool:
        """The same of a read that was asked before."""
        return self._hopes(known.made[1])

    def read_again(self, number: int, handle: int, known: Known) -> None:
        """A read that was asked before, and crosses as it is."""
        self._server.ask(_Whole(self, number, handle, known), 0, known.made[2])

    def whole(self, number: int, handle: int, known: Known, answer: Any) -> None:
        """It was answered."""
        asked = known.made[0]
        if len(asked) > 1 and type(answer) is m.Refused and answer.status == BAD_DENIED:
            self._allowed = ()
            self._read(number, known.request(0, handle))
            return
        form = together.form_of(answer.heads) if type(answer) is m.Numbers else None
        stamps = known.stamps
        written = self._written(asked, answer, stamps) if form is None else form.pieces(answer.data, stamps)
        self._have_read(number, handle, len(asked), written)

    def _written(self, asked: list[tuple[int, Item]], answer: Any, stamps: int) -> list[bytes]:
        """The DataValues of what has crossed."""
        if type(answer) is m.Numbers:
            answer = together.one_by_one(answer)
        if type(answer) is m.Values:
            names = self._names
            return [numbers.written(sample, stamps) or plainly(names.data(sample, stamps)) for sample in answer.samples]
        status = answer.status
        return [plainly(Data(None, self._no(item.name) if status == BAD_DENIED else status)) for _, item in asked]

    def _have_read(self, number: int, handle: int, count: int, written: list[bytes]) -> None:
        server = self._server
        if server.services is self:
            server.say(number, handle, numbers.answer(wire.ticks(server.wall()), handle, count, written))
        else:
            server.fault(number, handle, BAD_CLOSED)  # as in _reply

    def _start(self, parts: list[m.OpcUaRequest], finish: Callable[[list[Any]], None]) -> None:
        if not parts:
            finish([])
            return
        job = Job(self._server, len(parts), finish)
        for slot, part in enumerate(parts):
            self._server.ask(job, slot, part)

    def _item(self, node: NodeId, index_range: str | None, kind: str = "node") -> Item | int:
        """What a NodeId of ours names; or a status."""
        return item_of(self._names, node, index_range, kind)

    # --- our own nodes ----------------------------------------------------------------------------------------------

    def _standard(self, one: s.ReadValueId) -> Data:
        if one.attribute != VALUE:
            space = self._space or Space(self._names, (), self._rights)
            return space.attribute(one.node, one.attribute)
        value = self._standard_value(one.node.id)
        if value is None:
            known = one.node in Space(self._names, (), self._rights).nodes
            return Data(None, BAD_ATTRIBUTE if known else BAD_NODE)
        if one.range:
            return Data(None, BAD_RANGE)
        now = wire.ticks(self._server.wall())
        return Data(value, 0, now, now)

    def _standard_value(self, number: Any) -> Variant | None:
        server = self._server
        if number == 2254:
            return Variant(12, [server.uri], True)
        if number == 2255:
            return Variant(12, list(self._names.uris), True)
        if number in (2257, 2258):
            return Variant(13, wire.ticks(server.wall()))
        if number == 2259:
            return Variant(6, COMMUNICATION_FAULT if server.away else 0)
        if number == 2267:
            return Variant(3, NO_DATA if server.away else 255)
        if number == 2256:
            now = wire.ticks(server.wall())
            build = s.BuildInfo("urn:cofferdam", "Cofferdam", "Cofferdam", "1", "1", 0)
            state = COMMUNICATION_FAULT if server.away else 0
            return Variant(22, wire.pack(s.ServerStatus(now, now, state, build, 0, LocalizedText(None, None))))
        if number in OPERATION_LIMITS:
            return Variant(7, OPERATION_LIMITS[number])
        return None

    # --- write and call ---------------------------------------------------------------------------------------------

    def _write(self, number: int, request: s.WriteRequest) -> None:
        nodes, handle = request.nodes, request.header.handle
        if not nodes:
            raise Malformed("a Write of nothing", BAD_NOTHING)
        if len(nodes) > WRITES:
            raise Malformed(f"a Write of {len(nodes)} nodes", BAD_OPERATIONS)
        faults = [0] * len(nodes)
        writes: list[Assign] = []
        localized: list[int] = []
        asset = self._server.facing.asset
        forms, sizes = forms_of(asset), dimensions_of(asset)
        for place, one in enumerate(nodes):
            if one.node.ns == 0 or one.attribute != VALUE:
                faults[place] = BAD_NOT_WRITABLE
                continue
            found = self._item(one.node, one.range)
            if isinstance(found, int):
                faults[place] = found
                continue
            wanted, told = sizes.get(found.name, ()), one.value.value
            try:
                fits = not wanted or found.first >= 0 or (told is not None and told.dimensions == wanted)
                value = self._names.crossing(told, matrix=bool(wanted)) if fits else None
            except Unnamed:
                value = None
            if found.name in forms:
                value = formless(value, forms[found.name])
            elif isinstance(value, m.Texts):  # to policy a text with a locale is a text
                localized.append(len(writes))
                value = Text(tuple([text.text for text in value.values]), value.array)
            if value is None or isinstance(value, FOREIGN) or one.value.status:
                faults[place] = BAD_TYPE
                continue
            # A part of a text, of bytes or of a matrix: no point says what that may be.
            if found.first >= 0 and (wanted or not value.array):
                faults[place] = BAD_RANGE
                continue
            writes.append(Assign(found, value))
        if any(faults):
            # With one part that cannot be, nothing is written.
            self._reply(number, handle, s.WriteResponse, [fault or BAD_DENIED for fault in faults], [])
            return

        def finish(answers: list[Any]) -> None:
            [answer] = answers
            if isinstance(answer, m.Written):
                results = list(answer.results)
            elif answer.status == BAD_DENIED:
                results = [self._no(write.item.name) for write in writes]
            else:
                results = [answer.status] * len(writes)
            self._reply(number, handle, s.WriteResponse, results, [])

        self._start([m.Write(tuple(writes), tuple(localized))], finish)

    # --- history ----------------------------------------------------------------------------------------------------

    def _history(self, number: int, request: s.HistoryReadRequest) -> None:
        handle = request.header.handle
        if not request.nodes or len(request.nodes) > HISTORIES:
            raise Malformed("a HistoryRead of none or too many", BAD_OPERATIONS)
        details = wire.unpack(request.details)
        if not isinstance(details, s.RawDetails) or details.modified:
            raise Malformed("raw values alone are read back", 0x80720000)
        results: list[s.HistoryResult | None] = [None] * len(request.nodes)
        parts: list[m.OpcUaRequest] = []
        places: list[int] = []
        for place, one in enumerate(request.nodes):
            if one.point:
                rest = self._pasts.pop(one.point, None)
                if rest is None or request.release or rest.item != self._item(one.node, None, "history"):
                    status = 0 if request.release and rest is not None else BAD_POINT
                    results[place] = s.HistoryResult(status, None, wire.NO_EXTENSION)
                else:
                    parts.append(rest)
                    places.append(place)
                continue
            found = self._item(one.node, None, "history") if one.node.ns else BAD_HISTORY
            if isinstance(found, int):
                results[place] = s.HistoryResult(found, None, wire.NO_EXTENSION)
                continue
            most = min(details.most or m.HISTORY_VALUES, m.HISTORY_VALUES - 1)
            # Where what does not go into one answer can be asked for later, one more than is wanted: not every server
            # says by itself that there is more.
            spans = bool(details.start and details.end)
            parts.append(m.History(found, details.start, details.end, most + spans, details.bounds))
            places.append(place)

        def finish(answers: list[Any]) -> None:
            for place, part, answer in zip(places, parts, answers, strict=True):
                if isinstance(answer, m.Samples) and isinstance(part, m.History):
                    answer, point = self._rest(part, answer)
                    data = wire.pack(s.HistoryData([self._names.data(one, request.stamps) for one in answer.samples]))
                    results[place] = s.HistoryResult(0x00A60000 if answer.more else 0, point, data)
                else:
                    status = answer.status
                    if status == BAD_DENIED and isinstance(part, m.History):
                        status = self._no(part.item.name)
                    results[place] = s.HistoryResult(status, None, wire.NO_EXTENSION)
            self._reply(number, handle, s.HistoryReadResponse, results, [])

        self._start(parts, finish)

    def _rest(self, asked: m.History, answer: m.Samples) -> tuple[m.Samples, bytes | None]:
        """What a client is told of an answer, and the continuation point for the rest (OPC 10000-11, 6.5.3). Where a
        span is bounded on both sides, the rest is asked for by time: values of one time are not torn apart."""
        samples = answer.samples
        if not asked.start or not asked.end or not samples:
            return answer, None
        kept = samples[: asked.most - 1]
        if len(kept) == len(samples) and not answer.more:
            return answer, None
        step = 1 if asked.start <= asked.end else -1
        if len(kept) < len(samples):
            start = samples[len(kept)].source
        else:  # the server told of fewer than it could: the last time may have more values
            start = kept[-1].source
        whole = kept
        while kept and kept[-1].source == start:
            kept = kept[:-1]
        if not kept:  # more values of one time than go into one answer: there is no way between them
            kept, start = whole, start + step
        if not kept[-1].source or (asked.end - start) * step < 0 or (start - asked.start) * step <= 0:
            return m.Samples(kept, True), None
        point: bytes = self._server.facing.random(16)
        self._pasts[point] = m.History(asked.item, start, asked.end, asked.most, False)
        while len(self._pasts) > POINTS:
            self._pasts.popitem(last=False)
        return m.Samples(kept, True), point

    # --- browsing ---------------------------------------------------------------------------------------------------

    def _survey(self) -> tuple[Item, ...] | None:
        """What has to be asked for before anything can be browsed; None: what is known is fresh."""
        server = self._server
        facing = server.facing
        if facing is None:
            return None
        asset = facing.asset
        names = dict.fromkeys(
            [point.at.name for point in asset.points if isinstance(point.at, Item)]
            + [method.at.name for method in asset.methods]
            + [notifier.at.name for notifier in asset.notifiers if notifier.at.name.startswith("nsu=")]
        )
        trees = [one.at for one in asset.subtrees if self._may(Operation(BROWSE, -1, -1, False, (one.at,)))]
        some = [*trees, *[Item("about", name) for name in names if self._visible(name)]]
        wanted = tuple(some[: m.SURVEY_ITEMS])
        fresh = FRESH_TREE_NS if trees else FRESH_NS
        if not wanted:
            self._space, self._space_of, self._space_at = self._made(()), (), server.now
            return None
        if self._space is not None and wanted == self._space_of and server.now - self._space_at < fresh:
            return None
        # What another session was told of the same nodes is as good: whoever connects anew to browse would have the
        # asset asked for hundreds of things each time.
        found = facing.common.described.get((facing.asset.name, wanted))
        if found is not None and server.now - found[0] < fresh:
            self._space_at, self._space_of = found[0], wanted
            self._space = self._made(found[1])
            return None
        return wanted

    def _made(self, described: tuple[m.Node, ...]) -> Space:
        return Space(self._names, described, self._rights, self._server.facing.asset.methods)

    def _described(self, asked: tuple[Item, ...], answer: Any) -> None:
        if isinstance(answer, m.Described):
            self._space = self._made(answer.nodes)
            self._space_of, self._space_at = asked, self._server.now
            facing = self._server.facing
            known = facing.common.described
            while len(known) >= DESCRIBED:
                del known[next(iter(known))]
            known[facing.asset.name, asked] = (self._server.now, answer.nodes)

    def _with_space(self, then: Callable[[Space | None], None]) -> None:
        survey = self._survey()
        if survey is None:
            then(self._space)
            return

        def finish(answers: list[Any]) -> None:
            self._described(survey, answers[0])
            then(self._space)

        self._start([m.Survey(survey)], finish)

    def _browse(self, number: int, request: s.BrowseRequest) -> None:
        if not request.nodes or len(request.nodes) > BROWSES:
            raise Malformed("a Browse of none or too many", BAD_OPERATIONS)
        if request.view.view != NodeId(0, 0):
            raise Malformed("no such view", 0x806B0000)

        def then(space: Space | None) -> None:
            if space is None:
                space = Space(self._names, (), self._rights)  # the asset is away: the standard's nodes remain
            results = []
            for one in request.nodes:
                status, found = space.browse(one)
                results.append(self._some(found[:POINT_REFERENCES], request.most, status))
            self._reply(number, request.header.handle, s.BrowseResponse, results, [])

        self._with_space(then)

    def _some(self, found: list[s.ReferenceDescription], most: int, status: int = 0) -> s.BrowseResult:
        if not most or len(found) <= most:
            return s.BrowseResult(status, None, found)
        if len(self._points) >= POINTS:
            return s.BrowseResult(BAD_NO_POINTS, None, [])
        point = self._server.facing.random(16)
        self._points[point], self._point_size[point] = found[most:], most
        return s.BrowseResult(status, point, found[:most])

    def _browse_next(self, number: int, request: s.BrowseNextRequest) -> None:
        if not request.points or len(request.points) > BROWSES:
            raise Malformed("a BrowseNext of none or too many", BAD_OPERATIONS)
        results = []
        for point in request.points:
            found = self._points.pop(point or b"", None)
            most = self._point_size.pop(point or b"", 0)
            if found is None:
                results.append(s.BrowseResult(BAD_POINT, None, []))
            elif request.release:
                results.append(s.BrowseResult(0, None, []))
            else:
                results.append(self._some(found, most))
        self._reply(number, request.header.handle, s.BrowseNextResponse, results, [])

    def _translate(self, number: int, request: s.TranslateRequest) -> None:
        if not request.paths or len(request.paths) > PATHS:
            raise Malformed("a Translate of none or too many", BAD_OPERATIONS)
        if any(len(path.elements) > PATH for path in request.paths):
            raise Malformed(f"a path of more than {PATH} elements", BAD_OPERATIONS)

        def then(space: Space | None) -> None:
            if space is None:
                space = Space(self._names, (), self._rights)
            results = [space.translate(path) for path in request.paths]
            self._reply(number, request.header.handle, s.TranslateResponse, results, [])

        self._with_space(then)

    def _register(self, number: int, request: Any) -> None:
        if len(request.nodes) > READS:
            raise Malformed("too many nodes", BAD_OPERATIONS)
        if isinstance(request, s.RegisterNodesRequest):
            self._reply(number, request.header.handle, s.RegisterNodesResponse, request.nodes)
        else:
            self._reply(number, request.header.handle, s.UnregisterNodesResponse)

    def _cancel(self, number: int, request: s.CancelRequest) -> None:
        self._reply(number, request.header.handle, s.CancelResponse, 0)
