"""TCP reassembly: whatever the order, the copies and the holes, each byte is delivered once, in order, or reported."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.capture.files import Packet
from cofferdam.capture.frames import Decoder
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.streams import Reassembler, Sink, TcpFlow
from tests.capture.maker import ACK, FIN, MS, RST, SECOND, SYN, Connection, Frame
from tests.examples import examples


class Recorder(Sink):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[int, str, bool, bytes | int]] = []
        self.ends: list[tuple[int, str]] = []
        self.flows: list[TcpFlow] = []

    def data(self, flow: TcpFlow, from_client: bool, data: bytes, packet: int, time_ns: int) -> None:
        self.log.append((flow.number, "data", from_client, data))

    def gap(self, flow: TcpFlow, from_client: bool, size: int, packet: int, time_ns: int) -> None:
        self.log.append((flow.number, "gap", from_client, size))

    def inconsistent(self, flow: TcpFlow, from_client: bool, packet: int, time_ns: int) -> None:
        self.log.append((flow.number, "inconsistent", from_client, packet))

    def end(self, flow: TcpFlow) -> None:
        self.ends.append((flow.number, flow.ended))
        self.flows.append(flow)

    def stream(self, from_client: bool, number: int = 1) -> bytes:
        return b"".join(
            what for flow, kind, side, what in self.log
            if kind == "data" and side == from_client and flow == number and isinstance(what, bytes)
        )  # fmt: skip

    def of(self, kind: str) -> list[bytes | int]:
        return [what for _, found, _, what in self.log if found == kind]


def run(frames: list[Frame], limits: CaptureLimits | None = None) -> tuple[Recorder, Reassembler]:
    recorder, decoder = Recorder(), Decoder()
    reassembler = Reassembler(recorder, {502}, limits)
    for number, frame in enumerate(frames, 1):
        segment = decoder.segment(Packet(number, frame.time_ns, 1, frame.length, frame.data, 0))
        assert segment is not None
        reassembler.segment(segment)
    reassembler.finish()
    return recorder, reassembler


def dialogue(*, client_seq: int = 1000, server_seq: int = 5000, rounds: int = 12) -> Connection:
    """Requests and answers, some in several segments, some several at once."""
    connection = Connection(client_seq=client_seq, server_seq=server_seq).open()
    for number in range(rounds):
        connection.ask(b"q%02d" % number)
        if number % 3 == 0:
            connection.ask(b"-more%02d" % number)
        connection.answer(b"answer%02d;" % number)
        if number % 4 == 0:
            connection.packet(True, ACK)
    return connection


def test_in_order() -> None:
    connection = dialogue().close()
    recorder, _ = run(connection.frames)
    assert recorder.stream(True).startswith(b"q00-more00q01q02q03-more03")
    assert recorder.stream(False) == b"".join(b"answer%02d;" % n for n in range(12))
    assert recorder.ends == [(1, "finished")]
    assert recorder.of("gap") == []


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 60), max_size=20),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=10),
    st.randoms(use_true_random=False),
)
@examples(150)
def test_reordered_and_repeated_segments_give_the_same_streams_in_the_same_order(
    client_seq: int, server_seq: int, swaps: list[int], copies: list[tuple[int, int]], random: object
) -> None:
    """Also across directions: a request never comes after the answer to it."""
    plain = dialogue(client_seq=client_seq, server_seq=server_seq)
    expected, _ = run(plain.frames)
    head, body = plain.frames[:3], list(plain.frames[3:])
    for at, distance in copies:
        original = body[at % len(body)]
        body.insert(min(at % len(body) + 1 + distance, len(body)), original)
    for at in swaps:
        low = at % (len(body) - 1)
        body[low], body[low + 1] = body[low + 1], body[low]
    times = sorted(frame.time_ns for frame in body)
    body = [dataclasses.replace(frame, time_ns=time) for frame, time in zip(body, times, strict=True)]
    found, _ = run(head + body)
    assert found.of("gap") == []
    assert found.of("inconsistent") == []
    for side in (True, False):
        assert found.stream(side) == expected.stream(side)
    # after every answer, at least as much of the requests is known as in the original order
    asked: dict[int, int] = {}
    for log in (expected.log, found.log):
        sent = answered = 0
        for _, _, from_client, what in log:
            assert isinstance(what, bytes)
            sent += len(what) if from_client else 0
            answered += 0 if from_client else len(what)
            if not from_client:
                assert sent >= asked.setdefault(answered, sent) or log is expected.log


@given(st.lists(st.integers(10, 60), min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.data())
def test_overlapping_segments_of_any_cut(sizes: list[int], seq: int, data: st.DataObject) -> None:
    whole = bytes(range(256))
    connection = Connection(client_seq=seq).open()
    start = connection.client_seq
    pieces: list[tuple[int, int]] = []
    at = 0
    while at < len(whole):
        size = sizes[len(pieces) % len(sizes)]
        low = max(0, at - data.draw(st.integers(0, 30)))
        pieces.append((low, min(at + size, len(whole))))
        at += size
    order = data.draw(st.permutations(pieces))
    for low, high in order:
        connection.packet(True, ACK, whole[low:high], seq=start + low)
    recorder, _ = run(connection.frames)
    assert recorder.stream(True) == whole
    assert recorder.of("gap") == recorder.of("inconsistent") == []


def test_a_copy_with_other_content_is_reported_and_the_first_is_kept() -> None:
    connection = Connection().open()
    start = connection.client_seq
    connection.ask(b"abcd")
    connection.packet(True, ACK, b"abXd", seq=start)  # delivered bytes
    connection.packet(True, ACK, b"mnop", seq=start + 8)  # early
    connection.packet(True, ACK, b"Mnop", seq=start + 8)
    connection.packet(True, ACK, b"efghZZ", seq=start + 4)  # fills the hole, contradicts what waits
    recorder, _ = run(connection.frames)
    assert recorder.stream(True) == b"abcdefghmnop"
    assert recorder.of("inconsistent") == [5, 7, 8]
    assert recorder.flows[0].from_client.inconsistent == 3


def test_a_keep_alive_is_no_contradiction() -> None:
    connection = Connection().open()
    connection.ask(b"abcd")
    connection.packet(True, ACK, b"\0", seq=connection.client_seq - 1)
    recorder, _ = run(connection.frames)
    assert recorder.stream(True) == b"abcd"
    assert recorder.of("inconsistent") == []


def test_a_hole_is_reported_with_its_size_and_the_rest_delivered() -> None:
    connection = Connection().open()
    for word in (b"one.", b"LOST", b"two.", b"three."):
        connection.ask(word)
    del connection.frames[4]
    recorder, _ = run(connection.frames)
    assert [entry[1:] for entry in recorder.log] == [
        ("data", True, b"one."), ("gap", True, 4), ("data", True, b"two."), ("data", True, b"three."),
    ]  # fmt: skip


def test_an_acknowledged_hole_is_given_up_after_a_second_others_after_ten() -> None:
    for answered, seconds, closed in ((True, 2, True), (False, 2, False), (False, 11, True)):
        connection = Connection().open()
        connection.ask(b"one.")
        connection.ask(b"LOST")
        connection.ask(b"two.")
        if answered:
            connection.answer(b"yes")
        connection.time_ns += seconds * SECOND
        connection.packet(True, ACK)
        mark = Connection(client=("10.1.0.99", 1), time_ns=connection.time_ns + MS).open()
        mark.ask(b"!")
        frames = [*connection.frames[:4], *connection.frames[5:], *mark.frames]
        recorder, _ = run(frames)
        kinds = [kind for _, kind, _, what in recorder.log if kind == "gap" or what == b"!"]
        assert kinds == (["gap", "data"] if closed else ["data", "gap"])


def test_an_answer_waits_for_a_request_that_was_captured_late() -> None:
    connection = Connection().open()
    connection.ask(b"question")
    connection.answer(b"reply")
    frames = connection.frames
    recorder, _ = run([*frames[:3], frames[4], frames[3]])
    assert [entry[1:] for entry in recorder.log] == [("data", True, b"question"), ("data", False, b"reply")]


def test_one_direction_alone_is_delivered() -> None:
    connection = dialogue()
    for side in (True, False):
        port = 40000 if side else 502
        frames = [f for f in connection.frames if int.from_bytes(f.data[34:36], "big") == port]
        recorder, _ = run(frames)
        both, _ = run(connection.frames)
        assert recorder.stream(side) == both.stream(side)
        assert recorder.stream(not side) == b""


def test_a_packet_cut_off_by_the_capture_is_data_and_a_hole() -> None:
    connection = Connection().open()
    frame = connection.ask(b"x" * 100)
    connection.ask(b"next")
    frame.wire = len(frame.data)
    frame.data = frame.data[:-90]
    recorder, _ = run(connection.frames)
    assert [entry[1:] for entry in recorder.log] == [
        ("data", True, b"x" * 10), ("gap", True, 90), ("data", True, b"next"),
    ]  # fmt: skip


def test_ports_used_again_are_a_new_connection() -> None:
    first = Connection().open()
    first.ask(b"one")
    second = Connection(client_seq=900_000, server_seq=77, time_ns=first.time_ns).open()
    second.ask(b"two")
    recorder, reassembler = run(first.frames + second.frames)
    assert reassembler.flows == 2
    assert (recorder.stream(True, 1), recorder.stream(True, 2)) == (b"one", b"two")
    assert recorder.ends == [(1, "replaced"), (2, "end of the capture")]


def test_a_repeated_syn_is_the_same_connection() -> None:
    connection = Connection()
    connection.packet(True, SYN)
    connection.frames.append(connection.frames[0])
    connection.packet(False, SYN | ACK)
    connection.ask(b"one")
    recorder, reassembler = run(connection.frames)
    assert reassembler.flows == 1
    assert recorder.stream(True) == b"one"


def test_a_connection_that_was_reset_ends_and_late_copies_do_not_start_another() -> None:
    connection = Connection().open()
    frame = connection.ask(b"one")
    connection.packet(False, RST | ACK)
    connection.frames.append(frame)
    recorder, reassembler = run(connection.frames)
    assert reassembler.flows == 1
    assert recorder.ends == [(1, "reset")]
    assert recorder.stream(True) == b"one"


def test_a_syn_ack_from_the_client_does_not_turn_the_connection_round() -> None:
    connection = Connection().open()
    connection.ask(b"one")
    connection.packet(True, SYN | ACK, seq=77)
    connection.ask(b"two")
    recorder, reassembler = run(connection.frames)
    assert reassembler.flows == 1
    assert recorder.stream(True) == b"onetwo"
    assert all(flow.server_port == 502 for flow in recorder.flows)


def test_segments_far_outside_the_window_are_ignored_until_they_insist() -> None:
    connection = Connection().open()
    connection.ask(b"one")
    connection.packet(True, ACK, b"stray", seq=connection.client_seq + (1 << 30))
    connection.ask(b"two")
    recorder, reassembler = run(connection.frames)
    assert reassembler.flows == 1
    assert recorder.stream(True) == b"onetwo"
    far = Connection(client_seq=connection.client_seq + (1 << 30), time_ns=connection.time_ns)
    for word in (b"a", b"bb", b"ccc", b"dddd"):
        far.ask(word)
    recorder, reassembler = run(connection.frames + far.frames)
    assert reassembler.flows == 2
    assert recorder.stream(True, 2) == b"cccdddd"


def test_an_unacknowledged_fin_that_was_not_captured_is_no_hole() -> None:
    connection = Connection().open()
    connection.ask(b"one")
    connection.packet(True, FIN | ACK)
    connection.frames.pop()
    connection.answer(b"two")
    recorder, _ = run(connection.frames)
    assert recorder.of("gap") == []
    assert recorder.stream(False) == b"two"


def test_what_waits_is_bounded() -> None:
    limits = CaptureLimits(held_bytes_per_direction=100, held_segments_per_direction=5)
    connection = Connection().open()
    connection.ask(b"LOST")
    connection.frames.pop()
    for _ in range(50):
        connection.ask(b"0123456789")
    recorder, _ = run(connection.frames, limits)
    assert recorder.log[0][1:] == ("gap", True, 4)
    assert recorder.stream(True) == b"0123456789" * 50


def test_connections_are_bounded_and_the_idle_one_goes_first() -> None:
    frames: list[Frame] = []
    for port in range(1, 8):
        frames += Connection(client=("10.1.0.20", port)).open().frames
    recorder, reassembler = run(frames, CaptureLimits(flows=3))
    assert reassembler.evicted == 4
    assert [number for number, _ in recorder.ends] == [1, 2, 3, 4, 5, 6, 7]


def test_other_ports_are_counted_and_not_followed() -> None:
    connection = Connection(server=("10.20.0.17", 80)).open()
    connection.ask(b"GET /")
    recorder, reassembler = run(connection.frames)
    assert recorder.log == []
    assert reassembler.other_ports == {80: 4}


@given(st.lists(st.tuples(
    st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 63), st.binary(max_size=20),
    st.integers(0, 3 * SECOND),
), max_size=40))  # fmt: skip
def test_any_segments_are_survived_and_nothing_is_left_waiting(
    parts: list[tuple[bool, int, int, int, bytes, int]],
) -> None:
    connection = Connection()
    for from_client, seq, ack, flags, payload, pause in parts:
        connection.client_seq, connection.server_seq = (seq, ack) if from_client else (ack, seq)
        connection.time_ns += pause
        connection.packet(from_client, flags, payload)
    recorder, reassembler = run(connection.frames)
    assert len(recorder.ends) == reassembler.flows
    assert all(not side.held for flow in recorder.flows for side in (flow.from_client, flow.from_server))
