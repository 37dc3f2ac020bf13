"""The relay and a real NATS JetStream: every message of a channel is in the stream once and in order, whatever happens
to the hub and to the relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.errors import PolicyError
from tests import services
from tests.brokers.relay.crew import NATS, RunningCrew, crew
from tests.ports import held_port
from tests.services import needs_nats
from tests.waiting import PATIENT, eventually

pytestmark = needs_nats
RULE = "\n      - {who: lake, pull: counts, via: nats}"


class Hub:
    """A server that can be killed, and its disk put back."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.port, self.options = folder, held_port(), options
        folder.mkdir()
        self.process = services.start_nats(folder, self.port, *options)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENT)

    def start(self) -> None:
        self.process = services.start_nats(self.folder, self.port, *self.options)

    def ask(self, work: Any) -> Any:
        """What `work(context)` returns, for a client of the site's."""

        async def go() -> Any:
            import nats

            client = await nats.connect(f"nats://127.0.0.1:{self.port}", connect_timeout=int(PATIENT))
            try:
                return await work(client.jetstream(timeout=PATIENT))
            finally:
                await client.close()

        return asyncio.run(go())

    def make_stream(self, **config: Any) -> None:
        self.ask(lambda context: context.add_stream(name="PLANT", subjects=["plant.>"], **config))

    def ids(self) -> list[str]:
        """The ids of the stream's messages, in its order."""

        async def read(context: Any) -> list[str]:
            state = (await context.stream_info("PLANT")).state
            found = (
                [await context.get_msg("PLANT", seq=seq) for seq in range(state.first_seq, state.last_seq + 1)]
                if state.messages
                else []
            )
            return [message.headers["Nats-Msg-Id"] for message in found]

        found: list[str] = self.ask(read)
        return found


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(PATIENT)


def relay(tmp_path: Path, hub: Hub | Strange, said: str = "plain: true", **words: str) -> Any:
    at = "" if "at: " in said else f'at: "127.0.0.1:{hub.port}", '
    nats = f'nats: {{office: {{{at}stream: PLANT, subject: "plant.{{channel}}", {said}}}}}'
    options = {"nats": nats, "nats_rule": RULE, "lake": ""} | words
    return crew(tmp_path / "store", words=options)


def put(made: RunningCrew, count: int, first: int = 0) -> None:
    with made.client("mes") as client:
        for number in range(first, first + count):
            body = {"line": "L1", "n": number}
            assert client.put(f"/v1/channels/counts/messages/c{number}", json=body).status_code == 201


@contextlib.contextmanager
def still(made: RunningCrew) -> Iterator[None]:
    """Meanwhile the relay looks at no hub: it sees what is done to one as a whole."""
    process = made.children[NATS].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def left(made: RunningCrew) -> int:
    """How many messages were not published yet, as far as the keeper knows."""
    channels = json.loads(made.ask("keeper", "status", {}).result)["channels"]
    (counts,) = (channel for channel in channels if channel["channel"] == "counts")
    return sum(each["lag"] for each in counts["consumers"] if each["consumer"] == "lake")


def wanted(count: int) -> list[str]:
    return [f"counts/{number}" for number in range(1, count + 1)]


def test_each_message_is_in_the_stream_once(tmp_path: Path, hub: Hub) -> None:
    with relay(tmp_path, hub) as made:
        put(made, 3)
        eventually(lambda: "no stream PLANT" in str(made.children[NATS].status().alarms))
        hub.make_stream()
        eventually(lambda: hub.ids() == wanted(3))
        eventually(lambda: b'"lag":0' in made.ask("keeper", "status", {}).result)
        made.kill(NATS)
        made.start()
        put(made, 3, 3)
        eventually(lambda: hub.ids() == wanted(6))
        message = hub.ask(lambda context: context.get_last_msg("PLANT", "plant.counts"))
        assert message.data == b'{"line":"L1","n":5}'
        eventually(lambda: not made.children[NATS].status().alarms)
        eventually(lambda: made.children[NATS].status().figures["nats_published"] == {"": 3})
        made.ends_well()


@pytest.mark.parametrize("times", [2, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_killed_at_any_moment_each_message_is_in_the_stream_once(tmp_path: Path, hub: Hub, times: int) -> None:
    hub.make_stream()
    with relay(tmp_path, hub) as made:
        turns = [NATS, "keeper"] * times
        for turn, part in enumerate(turns):
            put(made, 10, 10 * turn)
            time.sleep(0.01 * (turn % 8))  # at another moment each time
            made.kill(part)
            made.start()
        eventually(lambda: left(made) == 0, PATIENT + len(turns))
        assert hub.ids() == wanted(10 * len(turns))
        made.ends_well()


def test_what_the_hub_loses_it_gets_again(tmp_path: Path, hub: Hub) -> None:
    hub.make_stream()
    with relay(tmp_path, hub, counts=", order: parallel 50") as made:
        put(made, 5)
        eventually(lambda: hub.ids() == wanted(5))
        hub.kill()
        shutil.copytree(hub.folder / "streams", tmp_path / "older")
        hub.start()
        put(made, 5, 5)
        eventually(lambda: sorted(hub.ids()) == sorted(wanted(10)))
        # The hub acknowledged what it did not keep: its disk is that of before.
        hub.kill()
        shutil.rmtree(hub.folder / "streams")
        shutil.copytree(tmp_path / "older", hub.folder / "streams")
        with still(made):
            hub.start()
            assert hub.ids() == wanted(5)
        put(made, 1, 10)
        eventually(lambda: sorted(hub.ids()) == sorted(wanted(11)))
        assert len(set(hub.ids())) == len(hub.ids())
        made.ends_well()


def test_what_does_not_fit_is_said_and_nothing_is_published(tmp_path: Path, hub: Hub) -> None:
    hub.make_stream(retention="workqueue")
    with relay(tmp_path, hub) as made:
        put(made, 1)
        eventually(lambda: "forgets what was fetched" in str(made.children[NATS].status().alarms))
        with still(made):
            hub.ask(lambda context: context.delete_stream("PLANT"))
            hub.make_stream()
            hub.ask(lambda context: context.publish("plant.counts", b"{}", headers={"Nats-Msg-Id": "mine"}))
        eventually(lambda: "somebody else publishes" in str(made.children[NATS].status().alarms))
        with still(made):
            hub.ask(lambda context: context.purge_stream("PLANT"))
            hub.ask(lambda context: context.publish("plant.counts", b"{}", headers={"Nats-Msg-Id": "counts/900"}))
        eventually(lambda: "put back or replaced" in str(made.children[NATS].status().alarms))
        hub.ask(lambda context: context.purge_stream("PLANT"))
        eventually(lambda: hub.ids() == wanted(1))


def test_one_that_is_too_large_for_the_hub_dies_alone(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 10000\n")
    hub = Hub(tmp_path / "hub", "-c", str(config))
    try:
        hub.make_stream()
        with relay(tmp_path, hub, counts=", tries: 1") as made, made.client("mes") as client:
            large = {"line": "L" * 20_000, "n": 1}
            assert client.put("/v1/channels/counts/messages/large", json=large).status_code == 201
            put(made, 2)
            eventually(lambda: hub.ids() == ["counts/2", "counts/3"])
            eventually(lambda: b'"dead":1' in made.ask("keeper", "status", {}).result)
    finally:
        hub.kill()


def test_by_tls_and_with_a_password(tmp_path: Path) -> None:
    from tests.brokers.relay.certificates import make

    certificate = make("hub.site")
    (tmp_path / "server.pem").write_bytes(certificate.pem)
    (tmp_path / "server.key").write_bytes(certificate.key)
    config = tmp_path / "nats.conf"
    config.write_text(
        f'authorization {{user: relay, password: "three words"}}\n'
        f'tls {{cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key"}}\n'
    )
    folder = tmp_path / "hub"
    folder.mkdir()
    port = held_port()
    process = services.start_nats(folder, port, "-c", str(config))
    try:
        how = "user: relay, authority: hub.pem, name: hub.site"
        said = f'nats: {{office: {{at: "127.0.0.1:{port}", stream: PLANT, {how}}}}}'
        words = {"nats": said, "nats_rule": RULE, "lake": ""}
        files = {"hub.pem": certificate.pem}
        with crew(tmp_path / "store", words=words, files=files, passwords={"office": "three words"}) as made:
            eventually(lambda: "no stream PLANT" in str(made.children[NATS].status().alarms))
            # Another authority's word is not taken.
            other = make("hub.site").pem
            made.files["hub.pem"] = other
            made.reload(made.policy())
            eventually(lambda: "ertificate" in str(made.children[NATS].status().alarms))
    finally:
        process.kill()
        process.wait(PATIENT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"nats": ""}, "no NATS in office"),
        ({"nats_rule": RULE.replace("lake, pull", "mes, push")}, "push via nats"),
        ({"nats": 'nats: {plant: {at: "127.0.0.1:1", stream: P, plain: true}}'}, "the more trusted zone"),
        ({"nats": 'nats: {office: {at: "127.0.0.1:1", stream: P}}'}, "no authority"),
        ({"nats": 'nats: {office: {at: "127.0.0.1:1", stream: P, plain: true, subject: x}}'}, "plant.{channel}"),
        ({"nats": 'nats: {office: {at: "127.0.0.1:1", stream: "P.*", plain: true}}'}, "the name of a stream"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, words: dict[str, str], said: str) -> None:
    good = 'nats: {office: {at: "127.0.0.1:1", stream: PLANT, plain: true}}'
    options = {"nats": good, "nats_rule": RULE, "lake": ""} | words
    with crew(tmp_path / "store", start=False, words=options) as made, pytest.raises(PolicyError) as error:
        made.policy()
    assert said in " ".join(map(str, error.value.problems))


# --- a hub that is not to be believed


class Strange:
    """Whoever connects hears what a turn says, line by line as they speak; what they said is kept. Each connection has
    the next turn, and in the end the last one again."""

    def __init__(self, *turns: tuple[bytes, ...]) -> None:
        self.heard: list[bytes] = []
        self.served = 0
        self._turns = turns
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                says, *more = self._turns[min(self.served, len(self._turns) - 1)]
                self.served += 1
                with client, contextlib.suppress(OSError):
                    client.settimeout(PATIENT)
                    client.sendall(says)
                    for answer in more:
                        self.heard.append(client.recv(65536))
                        client.sendall(answer)
                    while data := client.recv(65536):
                        self.heard.append(data)

    def close(self) -> None:
        self._listener.close()


INFO = b'INFO {"server_id":"x","version":"2.9.0","max_payload":1000000,"auth_required":true}\r\n'
LONG = b"INFO " + b"x" * 400_000 + b"\r\n"


STRANGE = [
    (b"INFO []\r\n",),
    (LONG,),
    (INFO.replace(b"1000000", b'"many"'), b"PONG\r\n", b"-ERR 'no'\r\n"),
    (INFO, b"PONG\r\n", LONG[:-2]),
]
ENDLESS = [(INFO, b"PONG\r\n", b"MSG a 1 999999999\r\n" + b"x" * 100_000)]


@pytest.mark.parametrize("turns", [STRANGE, ENDLESS], ids=["strange", "endless"])
def test_a_hub_that_says_what_is_no_nats_costs_nobody_else(tmp_path: Path, turns: list[tuple[bytes, ...]]) -> None:
    strange = Strange(*turns)
    try:
        with relay(tmp_path, strange) as made:
            put(made, 1)
            eventually(lambda: strange.served > len(turns) and made.children[NATS].status().alarms, 3 * PATIENT)
            put(made, 1, 1)
            assert made.children[NATS].status().figures["nats_away"] == {"": 1}
            assert all(child.process is not None and child.process.poll() is None for child in made.children.values())
    finally:
        strange.close()


def test_a_hub_that_asks_for_no_tls_is_told_no_password(tmp_path: Path) -> None:
    from tests.brokers.relay.certificates import make

    strange = Strange((INFO, b"PONG\r\n"))
    how = "user: relay, authority: hub.pem, name: hub.site"
    try:
        words = {
            "nats": f'nats: {{office: {{at: "127.0.0.1:{strange.port}", stream: PLANT, {how}}}}}',
            "nats_rule": RULE, "lake": "",
        }  # fmt: skip
        files = {"hub.pem": make("hub.site").pem}
        with crew(tmp_path / "store", words=words, files=files, passwords={"office": "three words"}) as made:
            eventually(lambda: "does not ask for TLS" in str(made.children[NATS].status().alarms))
        assert not b"".join(strange.heard)
    finally:
        strange.close()


def test_what_was_too_large_when_it_was_caught_up_with_dies_too(tmp_path: Path) -> None:
    """What a hub never took is not settled because later ones are in the stream."""
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 10000\n")
    hub = Hub(tmp_path / "hub", "-c", str(config))
    try:
        with relay(tmp_path, hub, counts=", tries: 1") as made, made.client("mes") as client:
            large = {"line": "L" * 20_000, "n": 1}
            assert client.put("/v1/channels/counts/messages/large", json=large).status_code == 201
            put(made, 2)
            eventually(lambda: "no stream PLANT" in str(made.children[NATS].status().alarms))
            hub.make_stream()
            eventually(lambda: hub.ids() == ["counts/2", "counts/3"])
            eventually(lambda: b'"dead":1' in made.ask("keeper", "status", {}).result)
    finally:
        hub.kill()


def test_what_was_passed_over_is_published_once_the_hub_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 10000\n")
    hub = Hub(tmp_path / "hub", "-c", str(config))
    try:
        with relay(tmp_path, hub) as made, made.client("mes") as client:
            rest = {"channel": "counts", "by": "root", "push": False, "pull": True}
            assert not made.ask("keeper", "pause", rest).error  # nothing is handed out, but it is caught up with
            large = {"line": "L" * 20_000, "n": 1}
            assert client.put("/v1/channels/counts/messages/large", json=large).status_code == 201
            put(made, 2)
            hub.make_stream()
            eventually(lambda: hub.ids() == ["counts/2", "counts/3"])
            hub.kill()
            config.write_text("max_payload: 1000000\n")
            hub.start()
            assert not made.ask("keeper", "resume", rest).error
            made.kill(NATS)
            made.start()
            eventually(lambda: sorted(hub.ids()) == wanted(3))
            eventually(lambda: b'"lag":0' in made.ask("keeper", "status", {}).result)
    finally:
        hub.kill()


@pytest.mark.soak  # a minute, most of it until the nodes have chosen who leads
def test_three_nodes_of_which_one_is_killed(tmp_path: Path) -> None:
    """The one that the relay is connected to; two are a majority, and take what comes. Its disk comes back empty."""
    routes = [held_port() for _ in range(3)]
    urls = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
    nodes: list[Hub] = []
    try:
        for number, port in enumerate(routes):
            cluster = ("--cluster_name", "site", "--cluster", f"nats://127.0.0.1:{port}", "--routes", urls)
            nodes.append(Hub(tmp_path / f"hub{number}", "--name", f"n{number}", *cluster))
        first, *others = nodes

        def made_stream() -> bool:
            with contextlib.suppress(Exception):  # until they have chosen who leads
                others[0].make_stream(num_replicas=3)
                return True
            return False

        eventually(made_stream)
        at = ", ".join(f'"127.0.0.1:{node.port}"' for node in nodes)
        with relay(tmp_path, first, f"plain: true, at: [{at}]") as made:
            put(made, 20)
            eventually(lambda: others[0].ids() == wanted(20))
            first.kill()
            put(made, 20, 20)
            eventually(lambda: _ids(others[0]) == wanted(40))
            shutil.rmtree(first.folder / "streams")
            first.start()
            put(made, 20, 40)
            eventually(lambda: _ids(others[1]) == wanted(60))
            eventually(lambda: b'"lag":0' in made.ask("keeper", "status", {}).result)
    finally:
        for node in nodes:
            node.kill()


def _ids(hub: Hub) -> list[str]:
    """Nothing, while the nodes choose who leads."""
    with contextlib.suppress(Exception):
        return hub.ids()
    return []
