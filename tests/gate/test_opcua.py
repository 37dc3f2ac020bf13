"""OPC UA behind a real gate: a client and a server by others (asyncua), judged, limited, recorded."""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client

from tests.gate.plant import Gate, cli, events, log_of, running, settle
from tests.ports import held_ports
from tests.protocols.opcua.site import RULES, plant, policy
from tests.waiting import PATIENT, eventually

ua: Any = types
LINE = "urn:plant:line"
MORE = (
    "{who: mes, asset: filler, call: [rinse], subscribe: [counts], fastest: 1 s, slowest: 5 s, history: [counts], "
    "longest: 1 h}"
)
logging.getLogger("asyncua").setLevel(logging.CRITICAL)
VALUES = "{who: mes, asset: filler, read: [limits, title], subscribe: [limits], write: [title]}"
FORMS = "[due, order, target, verdict, topic, grid]"
OTHERS = f"{{who: mes, asset: filler, read: {FORMS}, write: {FORMS}}}"


class Site:
    """The plant's port, the gate's, and the gate."""

    def __init__(self, gate: Gate, plant_port: int, port: int, policy_file: Path) -> None:
        self.gate = gate
        self.plant = plant_port
        self.port = port
        self.policy = policy_file

    def ask(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """What `work` finds out with a client that is connected."""

        async def main() -> Any:
            async with Client(f"opc.tcp://127.0.0.1:{self.port}", timeout=PATIENT) as client:
                return await work(client)

        return asyncio.run(main())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("opcua")
    plant_port, port = held_ports(2)
    file = folder / "policy.yaml"
    file.write_text(policy(plant_port, port, RULES, MORE, VALUES, OTHERS))
    with plant(plant_port), running(folder / "state", file) as gate:
        yield Site(gate, plant_port, port, file)
        kinds = {entry["event"]["kind"] for entry in log_of(gate.state)}
        assert "record-violation" not in kinds
        assert "internal_error" not in str(events(gate.state, "limit-hit"))


async def _node(client: Any, name: str) -> Any:
    index = (await client.get_namespace_array()).index(LINE)
    return client.get_node(ua.NodeId(name, index))


async def _refused(work: Any) -> str:
    try:
        found = await work
    except ua.UaError as error:
        return type(error).__name__
    return f"not refused: {found}"


def test_reads_are_judged_one_by_one(site: Site) -> None:
    async def work(client: Any) -> None:
        speed, level, secret, recipe = [
            await _node(client, f"Line1.{name}") for name in ("Speed", "Level", "Secret", "Recipe")
        ]
        answer = await client.uaclient.read(
            ua.ReadParameters(
                NodesToRead=[
                    ua.ReadValueId(node.nodeid, ua.AttributeIds.Value) for node in (speed, secret, level, recipe)
                ]
            )
        )
        assert [one.StatusCode.name for one in answer] == ["Good", "BadNodeIdUnknown", "Good", "BadNodeIdUnknown"]
        assert isinstance(answer[0].Value.Value, float)
        assert answer[0].Value.VariantType is ua.VariantType.Double
        counts = await _node(client, "Line1.Counts")
        assert await counts.read_value() == [1, 2, 3, 4]
        part = ua.ReadValueId(counts.nodeid, ua.AttributeIds.Value, "1:2")
        [cut] = await client.uaclient.read(ua.ReadParameters(NodesToRead=[part]))
        assert cut.StatusCode.name == "BadIndexRangeInvalid", "this server passes over the range, and sends the whole"

    site.ask(work)


def test_writes_and_calls_keep_their_limits(site: Site) -> None:
    async def work(client: Any) -> None:
        speed = await _node(client, "Line1.Speed")
        await speed.write_value(150.0)
        assert await speed.read_value() == 150.0
        assert await _refused(speed.write_value(1600.0)) == "BadOutOfRange", "beyond its range"
        assert await _refused(speed.write_value(900.0)) == "BadOutOfRange", "too far at once"
        assert await _refused(speed.write_value(5)) == "BadOutOfRange", "of another type"
        level = await _node(client, "Line1.Level")
        assert await _refused(level.write_value(1.0)) == "BadUserAccessDenied", "visible, and not to be written"
        values = [ua.DataValue(ua.Variant(160.0)), ua.DataValue(ua.Variant(1.0))]
        results = await client.uaclient.write_attributes([speed.nodeid, level.nodeid], values)
        assert not any(one.is_good() for one in results) and await speed.read_value() == 150.0, "all or nothing"
        line = await _node(client, "Line1")
        reset, purge = await _node(client, "Line1.Reset"), await _node(client, "Line1.Purge")
        assert await line.call_method(reset.nodeid, ua.Variant(3, ua.VariantType.Int32)) >= 1
        assert await _refused(line.call_method(reset.nodeid, ua.Variant(30, ua.VariantType.Int32))) == "BadOutOfRange"
        assert await _refused(line.call_method(purge.nodeid, ua.Variant(3, ua.VariantType.Int32))) == "BadNodeIdUnknown"

    state = site.gate.state
    settle(state)
    before, refused = len(events(state, "write-allowed")), len(events(state, "refused"))
    site.ask(work)
    eventually(lambda: len(events(state, "write-outcome")) == before + 2)
    told = [entry["items"][0][:2] for entry in events(state, "write-allowed")[before:]]
    assert told == [
        ["node nsu=urn:plant:line;s=Line1.Speed", "write"],
        ["method nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Reset", "call"],
    ]
    settle(state)
    assert {"value", "step", "address"} <= {entry["fault"] for entry in events(state, "refused")[refused:]}


def test_several_methods_are_called_or_none(site: Site) -> None:
    async def work(client: Any) -> None:
        index = (await client.get_namespace_array()).index(LINE)

        async def call(*asked: tuple[str, int]) -> list[Any]:
            requests = []
            for name, number in asked:
                one = ua.CallMethodRequest(ua.NodeId("Line1", index), ua.NodeId(f"Line1.{name}", index))
                one.InputArguments = [ua.Variant(number, ua.VariantType.Int32)]
                requests.append(one)
            return list(await client.uaclient.call(requests))

        def names(found: list[Any]) -> list[str]:
            return [one.StatusCode.name for one in found]

        [alone] = await call(("Reset", 1))
        count = alone.OutputArguments[0].Value
        both = await call(("Reset", 3), ("Rinse", 4))
        assert names(both) == ["Good", "Good"]
        assert [one.OutputArguments[0].Value for one in both] == [count + 1, None], "the second is no String"
        for refused, last in (
            ((("Reset", 3), ("Purge", 4)), "BadNodeIdUnknown"), ((("Reset", 3), ("Rinse", 40)), "BadOutOfRange"),
            ((("Reset", 3), ("Reset", 4)), "BadOutOfRange"), ((("Reset", 3),) * 11, "BadTooManyOperations"),
        ):  # fmt: skip
            try:
                assert names(await call(*refused))[-1] == last
            except ua.UaStatusCodeError as error:
                assert type(error).__name__ == last
        [alone] = await call(("Reset", 1))
        assert alone.OutputArguments[0].Value == count + 3, "of what was refused nothing was called"
        given = {(await one.read_browse_name()).Name: await one.read_value()
                 for one in await client.get_node(ua.NodeId("Line1.Reset", index)).get_properties()}  # fmt: skip
        assert [(one.Name, one.DataType) for one in given["OutputArguments"]] == [("calls", ua.NodeId(6, 0))]
        assert [one.Name for one in given["InputArguments"]] == ["count"]

    site.ask(work)


def test_a_structure_is_read_as_it_is_and_a_text_is_written_with_its_locale(site: Site) -> None:
    class Handler:
        def __init__(self) -> None:
            self.values: list[Any] = []

        def datachange_notification(self, _node: Any, value: Any, _data: Any) -> None:
            self.values.append(value)

    async def work(client: Any) -> None:
        limits, title = await _node(client, "Line1.Limits"), await _node(client, "Line1.Title")
        assert await limits.read_value() == ua.Range(0.0, 1500.0)
        assert await _refused(limits.write_value(ua.Range(0.0, 9000.0))) == "BadTypeMismatch"
        assert await _refused(limits.write_value(b"x" * 16)) == "BadUserAccessDenied"
        handler = Handler()
        subscription = await client.create_subscription(100, handler)
        await subscription.subscribe_data_change(limits)
        for _ in range(int(PATIENT * 20)):
            if handler.values:
                break
            await asyncio.sleep(0.05)
        assert handler.values == [ua.Range(0.0, 1500.0)]
        await subscription.delete()
        assert (await title.read_value()).Text == "filler"
        await title.write_value(ua.Variant(ua.LocalizedText("line 1", "en"), ua.VariantType.LocalizedText))
        assert (await title.read_value()).Text == "line 1"
        long = ua.Variant(ua.LocalizedText("a longer one", "en"), ua.VariantType.LocalizedText)
        assert await _refused(title.write_value(long)) == "BadOutOfRange"

    site.ask(work)


def test_values_of_the_standards_other_types_are_written_as_their_points_say(site: Site) -> None:
    """The gate's namespaces are in another order than the plant's: what a NodeId means has to stay the same."""

    async def work(client: Any) -> None:
        index = (await client.get_namespace_array()).index(LINE)
        good: dict[str, tuple[Any, Any]] = {
            "Due": (datetime(2027, 3, 1, 6, 30, 0, 250_000, tzinfo=UTC), ua.VariantType.DateTime),
            "Order": (uuid.UUID(int=8), ua.VariantType.Guid),
            "Target": (ua.NodeId("Line1.Speed", index), ua.VariantType.NodeId),
            "Verdict": (ua.StatusCode(0x80340000), ua.VariantType.StatusCode),
            "Topic": (ua.QualifiedName("rinsing", index), ua.VariantType.QualifiedName),
        }
        for name, (value, kind) in good.items():
            node = await _node(client, f"Line1.{name}")
            assert (await node.read_data_value()).Value.VariantType is kind
            await node.write_value(value, kind)
            assert await node.read_value() == value, name
        bad: tuple[tuple[str, Any, Any, str], ...] = (
            ("Due", datetime(2026, 12, 31, tzinfo=UTC), ua.VariantType.DateTime, "BadOutOfRange"),
            ("Due", datetime(2028, 1, 1, tzinfo=UTC), ua.VariantType.DateTime, "BadOutOfRange"),
            ("Due", 134_000_000_000_000_000, ua.VariantType.Int64, "BadTypeMismatch"),
            ("Due", [good["Due"][0]], ua.VariantType.DateTime, "BadOutOfRange"),
            ("Order", str(uuid.UUID(int=8)), ua.VariantType.String, "BadTypeMismatch"),
            ("Target", ua.NodeId("x" * 40, index), ua.VariantType.NodeId, "BadOutOfRange"),
            ("Target", ua.NodeId("Line1", 77), ua.VariantType.NodeId, "BadTypeMismatch"),
            ("Speed", ua.NodeId("Line1", index), ua.VariantType.NodeId, "BadTypeMismatch"),
        )
        for name, value, kind, status in bad:
            assert await _refused((await _node(client, f"Line1.{name}")).write_value(value, kind)) == status, name
        for name, (value, _) in good.items():
            assert await (await _node(client, f"Line1.{name}")).read_value() == value, "nothing has changed it"

    site.ask(work)
    told = [one for entry in events(site.gate.state, "write-allowed") for one in entry["points"]]
    assert {name: value for name, value, _ in told if name in ("due", "target", "order")} == {
        "due": "2027-03-01T06:30:00.25Z", "target": f'"nsu={LINE};s=Line1.Speed"', "order": f'"{uuid.UUID(int=8)}"',
    }  # fmt: skip


def test_a_matrix_is_read_with_its_dimensions_and_written_with_those_of_its_point(site: Site) -> None:
    async def work(client: Any) -> None:
        grid = await _node(client, "Line1.Grid")

        async def read() -> tuple[list[int], Any]:
            value = (await grid.read_data_value()).Value
            return value.Dimensions, value.Value

        async def write(value: Any, part: str = "") -> str:
            one = ua.WriteValue(grid.nodeid, ua.AttributeIds.Value, part or None, ua.DataValue(value))
            [status] = await client.uaclient.write(ua.WriteParameters([one]))
            return str(status.name)

        assert await read() == ([2, 3], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        good = [[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]]
        assert await write(ua.Variant(good, ua.VariantType.Double)) == "Good"
        assert await read() == ([2, 3], good)
        for value, status in (
            ([[6.0, 5.0, 4.0], [3.0, 2.0, 9.5]], "BadOutOfRange"), ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "BadTypeMismatch"),
            ([[6.0, 5.0], [4.0, 3.0], [2.0, 1.0]], "BadTypeMismatch"), (6.0, "BadTypeMismatch"),
        ):  # fmt: skip
            assert await write(ua.Variant(value, ua.VariantType.Double)) == status
        for part in ("0:1", "0:1,0:1"):
            assert await write(ua.Variant([1.0, 1.0], ua.VariantType.Double), part) == "BadIndexRangeInvalid"
        several = ua.ReadValueId(grid.nodeid, ua.AttributeIds.Value, "0:1,0:1")
        [found] = await client.uaclient.read(ua.ReadParameters(NodesToRead=[several]))
        assert found.StatusCode.name == "BadIndexRangeInvalid"
        assert await read() == ([2, 3], good)

    site.ask(work)


def test_a_rule_says_how_often_may_be_looked_and_how_far_back(site: Site) -> None:
    async def work(client: Any) -> None:
        counts = await _node(client, "Line1.Counts")
        subscription = await client.create_subscription(100, None)
        found = []
        for interval in (100.0, 2000.0, 60_000.0):
            item = ua.MonitoredItemCreateRequest()
            item.ItemToMonitor = ua.ReadValueId(counts.nodeid, ua.AttributeIds.Value)
            item.MonitoringMode = ua.MonitoringMode.Reporting
            item.RequestedParameters = ua.MonitoringParameters(1, interval, None, 1, True)
            asked = ua.CreateMonitoredItemsParameters(subscription.subscription_id, ua.TimestampsToReturn.Both, [item])
            [made] = await client.uaclient.create_monitored_items(asked)
            found.append((made.StatusCode.name, made.RevisedSamplingInterval))
        assert found == [("Good", 1000.0), ("Good", 2000.0), ("Good", 5000.0)]
        await subscription.delete()

        async def past(hours: float) -> str:
            end = datetime.now(UTC).replace(tzinfo=None)
            details = (
                ua.ReadRawModifiedDetails(False, end - timedelta(hours=hours), end, 5)
                if hours
                else (ua.ReadRawModifiedDetails(False, end, ua.DateTime(1601, 1, 1), 5))
            )
            return str((await counts.history_read(details)).StatusCode.name)

        assert await past(2) == await past(0) == "BadUserAccessDenied", "longer than allowed, and without an end"
        assert await past(0.9) not in ("BadUserAccessDenied", "BadNodeIdUnknown"), "what the server says of it"

    site.ask(work)
    where = ("explain", site.policy, "--from", "127.0.0.1", "--asset", "filler", "--operation")
    for operation, said in (
        ("subscribe counts 2s", ""), ("subscribe counts 100ms", "counts"), ("history counts 30min", ""),
        ("history counts 2h", "[0-7199]"),
    ):  # fmt: skip
        code, text, _ = cli(*where, operation)
        assert (code == 0) == (not said) and said in text, text


def test_a_client_sees_its_nodes_and_no_other(site: Site) -> None:
    async def work(client: Any) -> None:
        children = await client.nodes.objects.get_children()
        names = [(await one.read_browse_name()).Name for one in children]
        assert names == ["Server", "Line1"], "the other line is not on the way to anything"
        below = {(await one.read_browse_name()).Name: one for one in await children[1].get_children()}
        assert below.keys() == {
            "Speed", "Level", "Counts", "Reset", "Rinse", "Limits", "Title", "Due", "Order", "Target", "Verdict",
            "Topic", "Grid",
        }  # fmt: skip
        level = await client.nodes.objects.get_child([f"{children[1].nodeid.NamespaceIndex}:Line1",
                                                      f"{children[1].nodeid.NamespaceIndex}:Level"])  # fmt: skip
        assert level == below["Level"]
        named = ["Speed", "Level", "Counts", "Limits", "Title"]
        rights = [(await below[name].read_attribute(ua.AttributeIds.UserAccessLevel)).Value.Value for name in named]
        assert dict(zip(named, rights, strict=True)) == {"Speed": 3, "Level": 5, "Counts": 5, "Limits": 1, "Title": 3}
        kind = await below["Speed"].read_data_type()
        assert kind == ua.NodeId(11, 0) and await below["Speed"].read_type_definition() == ua.NodeId(63, 0)
        executable = await below["Reset"].read_attribute(ua.AttributeIds.UserExecutable)
        assert executable.Value.Value is True
        assert await _refused((await _node(client, "Line1.Secret")).read_browse_name()) == "BadNodeIdUnknown"
        assert await _refused(client.nodes.objects.get_child(["2:Line1", "2:Secret"])) == "BadNoMatch"

    site.ask(work)


def test_subscriptions_bring_changes_and_history_brings_the_past(site: Site) -> None:
    class Handler:
        def __init__(self) -> None:
            self.values: list[float] = []

        def datachange_notification(self, _node: Any, value: float, _data: Any) -> None:
            self.values.append(value)

    async def work(client: Any) -> None:
        handler = Handler()
        subscription = await client.create_subscription(100, handler)
        level, speed = await _node(client, "Line1.Level"), await _node(client, "Line1.Speed")
        handle = await subscription.subscribe_data_change(level, queuesize=50, sampling_interval=50)
        for _ in range(int(PATIENT * 20)):
            if len(handler.values) > 10:
                break
            await asyncio.sleep(0.05)
        assert len(handler.values) > 10 and handler.values == sorted(handler.values)
        assert await _refused(subscription.subscribe_data_change(speed)) == "BadUserAccessDenied"
        await subscription.unsubscribe(handle)
        await subscription.delete()
        past = await level.read_raw_history(numvalues=5)
        assert len(past) == 5 and all(isinstance(one.Value.Value, float) for one in past)
        assert await _refused(speed.read_raw_history(numvalues=5)) == "BadUserAccessDenied"
        span = ua.ReadRawModifiedDetails(
            False, past[0].SourceTimestamp - timedelta(hours=1), past[0].SourceTimestamp + timedelta(hours=1)
        )
        span.NumValuesPerNode, point, pieces = 3, None, []
        for _ in range(3):
            piece = await level.history_read(span, point)
            piece.StatusCode.check()
            point = piece.ContinuationPoint
            pieces.append([one.Value.Value for one in piece.HistoryData.DataValues])
        _, *counted = [value for piece in pieces for value in piece]  # the first may be what the plant began with
        assert len(counted) == 8 and counted == [counted[0] + number for number in range(8)], pieces

    site.ask(work)
    eventually(lambda: sum(one.get("notices", 0) for one in events(site.gate.state, "reads-counted")) > 0)


def test_events_come_with_the_fields_that_policy_names(site: Site) -> None:
    class Handler:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def event_notification(self, event: Any) -> None:
            self.seen.append(event)

        async def two(self) -> list[Any]:
            self.seen.clear()
            for _ in range(int(PATIENT * 20)):
                if len(self.seen) > 4:
                    break
                await asyncio.sleep(0.05)
            return self.seen[:]

    async def work(client: Any) -> None:
        handler = Handler()
        line = await _node(client, "Line1")
        for node, notifies in ((line, 1), (client.nodes.server, 0)):
            assert (await node.read_attribute(ua.AttributeIds.EventNotifier)).Value.Value == notifies
        subscription = await client.create_subscription(100, handler)
        handle = await subscription.subscribe_events(line)
        seen = await handler.two()
        assert {event.Message.Text.split()[0] for event in seen} == {"tick", "jam"}
        assert {(event.Severity, event.SourceName) for event in seen} == {(100, "Line1"), (700, "Line1")}
        assert all(event.SourceNode == line.nodeid and event.EventId for event in seen)
        await subscription.unsubscribe(handle)
        filter = ua.EventFilter()
        for name, index in (
            ("Message", 0),
            ("Batch", line.nodeid.NamespaceIndex),
            ("Cost", line.nodeid.NamespaceIndex),
        ):
            operand = ua.SimpleAttributeOperand(ua.NodeId(2041, 0), [ua.QualifiedName(name, index)])
            operand.AttributeId = ua.AttributeIds.Value
            filter.SelectClauses.append(operand)
        severity = ua.SimpleAttributeOperand(ua.NodeId(2041, 0), [ua.QualifiedName("Severity", 0)])
        severity.AttributeId = ua.AttributeIds.Value
        element = ua.ContentFilterElement(
            ua.FilterOperator.GreaterThanOrEqual, [severity, ua.LiteralOperand(ua.Variant(500, ua.VariantType.UInt16))]
        )
        filter.WhereClause.Elements.append(element)
        handle = await subscription.subscribe_events(line, evfilter=filter)
        seen = await handler.two()
        assert {event.Message.Text.split()[0] for event in seen} == {"jam"}, "the other has a severity of 100"
        assert {(event.Batch, event.Cost) for event in seen} == {("B7", None)}, "of the cost no rule speaks"
        await subscription.unsubscribe(handle)
        element.FilterOperands[0] = filter.SelectClauses[2]  # a question about what may not be known
        assert await _refused(subscription.subscribe_events(line, evfilter=filter)) == "BadFilterOperatorUnsupported"
        assert await _refused(subscription.subscribe_events()) == "BadUserAccessDenied", "the server itself"

    site.ask(work)
    eventually(lambda: "event i=2253" in str(events(site.gate.state, "refused")))


def _rss(pid: int) -> int:
    """Resident memory of a process (bytes)."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


HELLO = b"HELF" + struct.pack("<I", 36) + struct.pack("<IIIII", 0, 65536, 65536, 0, 0) + struct.pack("<I", 4) + b"opc:"
OPEN = b"\0\0\0\0" + struct.pack("<I", 47) + b"http://opcfoundation.org/UA/SecurityPolicy#None" + b"\xff" * 8
ATTACKS = {
    "web": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\0\x01",
    "no hello": b"OPNF" + struct.pack("<I", 8 + len(OPEN)) + OPEN,
    "large chunk": HELLO + b"MSGC" + struct.pack("<I", 1 << 31),
    "no channel": HELLO + b"MSGF" + struct.pack("<IIIII", 24, 1, 1, 1, 1),
    "hello twice": HELLO + HELLO,
    "long url": b"HELF"
    + struct.pack("<I", 32 + 5000)
    + struct.pack("<IIIIII", 0, 65536, 65536, 0, 0, 5000)
    + b"x" * 5000,
    "no policy": HELLO + b"OPNF" + struct.pack("<III", 23, 0, 3) + b"abc" + b"\xff" * 4,
}


def test_hostile_bytes_close_their_connection_and_a_fair_client_reads_all_the_while(site: Site) -> None:
    outer, inner = site.gate.pids()["outer"], site.gate.pids()["inner"]
    before = _rss(outer)

    async def attack(name: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(ATTACKS[name])
        try:
            said = await asyncio.wait_for(reader.read(), PATIENT)
        finally:
            writer.close()
        return said

    async def flood() -> None:
        """Chunks without a final one, as fast as they are taken."""
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(HELLO)
        await reader.readexactly(28)
        for _ in range(40):
            writer.write(b"MSGC" + struct.pack("<I", 60_000) + b"\0" * 59_992)
            try:
                await writer.drain()
            except ConnectionError:
                break
        writer.close()

    async def work(client: Any) -> None:
        speed = await _node(client, "Line1.Speed")
        for _ in range(3):
            tasks = [asyncio.create_task(attack(name)) for name in ATTACKS]  # noqa: TID251 - awaited below
            tasks += [asyncio.create_task(flood()) for _ in range(4)]  # type: ignore[arg-type]  # noqa: TID251
            for _ in range(20):
                assert isinstance(await speed.read_value(), float)
            for said in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(said, bytes) and said:
                    assert said[:3] in (b"ERR", b"ACK")

    site.ask(work)
    assert site.gate.pids()["outer"] == outer and site.gate.pids()["inner"] == inner, "both halves live"
    assert _rss(outer) - before < 20 << 20
    sections = {entry["section"] for entry in events(site.gate.state, "malformed")}
    assert "OPC 10000-6, 7.1" in sections, "told with the section that is broken"
