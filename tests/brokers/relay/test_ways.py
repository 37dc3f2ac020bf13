"""One suite for all ways into a relay and out of it: HTTP, tables, folders, NATS. Whatever way a message goes, it is
numbered once, in order; what is none is told and holds up nobody; kills lose nothing and double nothing.

What only one way has stands in the module of its name.
"""

from __future__ import annotations

import abc
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import services
from tests.brokers.relay import test_folders as folders
from tests.brokers.relay import test_nats as nats
from tests.brokers.relay import test_tables as tables
from tests.brokers.relay.crew import RunningCrew, crew
from tests.waiting import eventually

TAKEN, REFUSED, QUARANTINED = "taken", "refused", "quarantined"
OFTEN = "lease: 1 s\n        tries: 1000\n        order: strict"


class Inward(abc.ABC):
    """A way in: the MES's counts. `crew`: the relay that has it."""

    crew: RunningCrew

    @abc.abstractmethod
    def give(self, name: str, text: str) -> None:
        """Hands over a message, once."""

    @abc.abstractmethod
    def outcome(self, name: str) -> str:
        """What became of the message of this name that was given last; "" while that is not known."""

    def became(self, name: str) -> str:
        eventually(lambda: self.outcome(name))
        return self.outcome(name)


class ByHttp(Inward):
    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._found: dict[str, str] = {}

    def give(self, name: str, text: str) -> None:
        self._texts[name] = text
        self._found.pop(name, None)

    def outcome(self, name: str) -> str:
        """A producer asks until it has an answer, in the order of its messages."""
        for each, text in self._texts.items():
            if each not in self._found and not self._push(each, text):
                break
        return self._found.get(name, "")

    def _push(self, name: str, text: str) -> bool:
        head = {"content-type": "application/json"}
        try:
            with self.crew.client("mes") as client:
                answer = client.put(f"/v1/channels/counts/messages/{name}", content=text, headers=head)
        except httpx.TransportError:
            return False
        if answer.status_code in (429, 503):
            return False
        kept = answer.status_code == 422 and not answer.json()["type"].endswith(":syntax")
        self._found[name] = {200: TAKEN, 201: TAKEN}.get(answer.status_code, QUARANTINED if kept else REFUSED)
        return True


class ByTable(Inward):
    def __init__(self, mes: tables.Mes) -> None:
        self._mes = mes

    def give(self, name: str, text: str) -> None:
        self._mes.run("delete from cofferdam.outbox where key = %s", name)  # the table has a name once
        self._mes.run("insert into cofferdam.outbox (channel, key, body) values ('counts', %s, %s)", name, text)

    def outcome(self, name: str) -> str:
        rows = self._mes.run("select outcome from cofferdam.outbox where key = %s order by id desc limit 1", name)
        found: str = {"stored": TAKEN, None: ""}.get(rows[0][0], rows[0][0])
        return found


class ByFolder(Inward):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: dict[str, int] = {}

    def _seen(self, name: str) -> list[str]:
        """Where files of this name lie now, and why."""
        found = []
        for place in ("done", "bad"):
            there = folders.names(self._folder / place)
            found += [f"{place}/{each}" for each in there if each == name or each.startswith(f"{name}.")]
        return found

    def give(self, name: str, text: str) -> None:
        self._before[name] = len([each for each in self._seen(name) if not each.endswith(".reason")])
        folders.leave(self._folder, name, text)

    def outcome(self, name: str) -> str:
        seen = self._seen(name)
        files = [each for each in seen if not each.endswith(".reason")]
        if len(files) == self._before[name]:
            return ""
        last = max(files, key=lambda each: (self._folder / each).stat().st_ctime_ns)
        if last.startswith("done"):
            return TAKEN
        with contextlib.suppress(FileNotFoundError):
            reason = (self._folder / f"{last}.reason").read_text()
            return QUARANTINED if "kept in quarantine" in reason else REFUSED
        return ""


class Outward(abc.ABC):
    """A way out: the ERP's orders, or the MES's counts. `crew`: the relay that has it."""

    crew: RunningCrew
    channel, producer = "orders", "erp"

    @abc.abstractmethod
    def got(self) -> list[tuple[int, Any]]:
        """Number and content of all that has come out so far, in the order in which it came; each once, as one has it
        who knows a message by its number."""

    def put(self, names: list[str]) -> None:
        """Messages from the other side, each acknowledged."""
        for name in names:
            body = {"quantity": 5, "name": name} if self.channel == "orders" else {"line": name, "n": 1}

            def taken(name: str = name, body: dict[str, Any] = body) -> bool:
                try:
                    with self.crew.client(self.producer) as client:
                        answer = client.put(f"/v1/channels/{self.channel}/messages/{name}", json=body)
                except httpx.TransportError:
                    return False
                return answer.status_code in (200, 201)

            eventually(taken)

    def names(self) -> list[str]:
        return [content["name" if self.channel == "orders" else "line"] for _, content in self.got()]


class ToHttp(Outward):
    def __init__(self) -> None:
        self._got: dict[int, Any] = {}

    def got(self) -> list[tuple[int, Any]]:
        with contextlib.suppress(httpx.TransportError), self.crew.client("mes") as client:
            answer = client.post("/v1/channels/orders/lease", json={"max": 10, "wait": 0})
            if answer.status_code == 200 and (said := answer.json())["messages"]:
                for message in said["messages"]:
                    self._got.setdefault(message["number"], message["data"])
                done = {"lease": said["lease"], "done": [message["number"] for message in said["messages"]]}
                client.post("/v1/channels/orders/settle", json=done)
        return list(self._got.items())


class ToTable(Outward):
    def __init__(self, mes: tables.Mes) -> None:
        self._mes = mes

    def got(self) -> list[tuple[int, Any]]:
        rows = self._mes.run("select number, body from cofferdam.inbox order by ctid")
        return [(number, body) for number, body in rows]


class ToFolder(Outward):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def got(self) -> list[tuple[int, Any]]:
        files = [self._folder / name for name in folders.names(self._folder) if not name.startswith(".")]
        return [(int(file.stem.rpartition("-")[2]), json.loads(file.read_bytes())) for file in files]


class ToNats(Outward):
    channel, producer = "counts", "mes"

    def __init__(self, hub: nats.Hub) -> None:
        self._hub = hub

    def got(self) -> list[tuple[int, Any]]:
        async def read(context: Any) -> list[tuple[int, Any]]:
            last = (await context.stream_info("PLANT")).state.last_seq
            found = [await context.get_msg("PLANT", seq=seq) for seq in range(1, last + 1)]
            return [(int(one.headers["Nats-Msg-Id"].rpartition("/")[2]), json.loads(one.data)) for one in found]

        some: list[tuple[int, Any]] = self._hub.ask(read)
        return some


@contextlib.contextmanager
def _mes(folder: Path) -> Iterator[tables.Mes]:
    with services.postgres() as made:
        server = tables.Server(made)
        eventually(lambda: tables._tls(made))
        try:
            yield tables.Mes(server, folder, orders=OFTEN)
        finally:
            server.stop()


@contextlib.contextmanager
def _runs(way: Any, folder: Path, **more: Any) -> Iterator[Any]:
    with crew(folder / "store", **more) as made:
        way.crew = made
        yield way


WAYS_IN = ["http", pytest.param("table", marks=services.needs_postgres), "folder"]
WAYS_OUT = [*WAYS_IN, pytest.param("nats", marks=services.needs_nats)]


@pytest.fixture(scope="module", params=WAYS_IN)
def into(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inward]:
    folder = tmp_path_factory.mktemp(f"into-{request.param}")
    with contextlib.ExitStack() as stack:
        if request.param == "http":
            yield stack.enter_context(_runs(ByHttp(), folder))
        elif request.param == "table":
            mes = stack.enter_context(_mes(folder))
            passwords = {"plant": tables.PASSWORD}
            yield stack.enter_context(_runs(ByTable(mes), folder, words=mes.words, passwords=passwords))
        else:
            words = {
                "folders": folders.IN.format(said="form: json"),
                "folders_out": folders.OUT,
                "via": ", via: folder",
            }
            yield stack.enter_context(_runs(ByFolder(folder / "counts-in"), folder, words=words))


@pytest.fixture(scope="module", params=WAYS_OUT)
def out_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outward]:
    folder = tmp_path_factory.mktemp(f"out-{request.param}")
    with contextlib.ExitStack() as stack:
        if request.param == "http":
            yield stack.enter_context(_runs(ToHttp(), folder, words={"orders": OFTEN}))
        elif request.param == "table":
            mes = stack.enter_context(_mes(folder))
            passwords = {"plant": tables.PASSWORD}
            yield stack.enter_context(_runs(ToTable(mes), folder, words=mes.words, passwords=passwords))
        elif request.param == "folder":
            words = {"folders_out": folders.OUT, "via": ", via: folder", "orders": OFTEN}
            words["folders"] = folders.IN.format(said="form: json")
            yield stack.enter_context(_runs(ToFolder(folder / "orders-out"), folder, words=words))
        else:
            hub = nats.Hub(folder / "hub")
            stack.callback(hub.kill)
            hub.make_stream()
            at = f'at: "127.0.0.1:{hub.port}", stream: PLANT, subject: "plant.{{channel}}", plain: true'
            words = {"nats": f"nats: {{office: {{{at}}}}}", "nats_rule": nats.RULE, "lake": ""}
            words["counts"] = ", order: strict, lease: 1 s, tries: 1000"
            yield stack.enter_context(_runs(ToNats(hub), folder, words=words))


def came(into: Inward) -> list[tuple[int, str, Any]]:
    """Number, key and content of all that is in the channel, by number."""
    found: list[tuple[int, str, Any]] = []

    def read() -> bool:
        try:
            with into.crew.client("lake") as lake:
                answer = lake.get("/v1/channels/counts/messages", params={"max": 1000})
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            return False
        found[:] = [(one["number"], one["id"], one["data"]) for one in answer.json()["messages"]]
        return True

    eventually(read)
    return found


def good(number: int, line: str = "L1") -> str:
    return json.dumps({"line": line, "n": number})


def test_each_message_is_numbered_once_and_in_order(into: Inward) -> None:
    before = len(came(into))
    for number in range(3):
        into.give(f"a{number}", good(number))
        assert into.became(f"a{number}") == TAKEN
    into.give("a1", good(1))
    assert into.became("a1") == TAKEN, "the same again is the same"
    into.give("a1", good(7))
    assert into.became("a1") == REFUSED, "another content under a name that is taken"
    found = came(into)
    assert [number for number, _, _ in found] == list(range(1, before + 4))
    assert found[before:] == [(before + 1 + n, f"a{n}", {"line": "L1", "n": n}) for n in range(3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"line": "L1", "n": -1}', QUARANTINED),
        ('{"line": "L1", "n": 1, "more": 1}', QUARANTINED),
        ('{"line": "L1", "line": "L2", "n": 1}', REFUSED),
        ('{"line": "L1", "n": 1e400}', REFUSED),
        ('{"line": "\\ud800", "n": 1}', REFUSED),
    ],
)
def test_what_is_no_message_is_told_and_holds_nobody_up(into: Inward, text: str, expected: str) -> None:
    before, name = came(into), f"b{abs(hash(text))}"
    into.give(name, text)
    into.give(f"{name}-next", good(1))
    assert (into.became(name), into.became(f"{name}-next")) == (expected, TAKEN)
    assert [one[1] for one in came(into)[len(before) :]] == [f"{name}-next"]


def test_its_part_and_the_keeper_are_killed_and_each_message_came_once(into: Inward) -> None:
    before, parts = len(came(into)), (into.crew.parts[-1], "keeper")
    for turn, part in enumerate(parts):
        names = [f"d{turn}-{number}" for number in range(4)]
        for name in names:
            into.give(name, good(turn, name))
        into.crew.kill(part)
        into.crew.start()
        for name in names:
            assert into.became(name) == TAKEN
    found = came(into)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    fresh = [content["line"] for _, _, content in found[before:]]
    assert sorted(fresh) == sorted(f"d{turn}-{number}" for turn in range(len(parts)) for number in range(4))


def test_what_was_pushed_comes_out_once_and_in_order(out_of: Outward) -> None:
    before = len(out_of.got())
    names = [f"e{number}" for number in range(5)]
    out_of.put(names)
    out_of.put(names)
    eventually(lambda: len(out_of.names()) >= before + 5)
    assert out_of.names()[before:] == names
    assert [number for number, _ in out_of.got()] == list(range(1, before + 6))


def test_a_pause_holds_back_and_loses_nothing(out_of: Outward) -> None:
    before = len(out_of.got())
    done = out_of.crew.ask("keeper", "pause", {"channel": out_of.channel, "push": False, "by": "root"})
    assert not done.error, done
    out_of.put(["f"])
    assert len(out_of.got()) == before
    out_of.crew.ask("keeper", "resume", {"channel": out_of.channel, "push": False, "by": "root"})
    eventually(lambda: out_of.names()[before:] == ["f"])


def test_its_part_and_the_keeper_are_killed_and_each_message_comes_out_once(out_of: Outward) -> None:
    before, wanted = len(out_of.got()), []
    for turn, part in enumerate((out_of.crew.parts[-1], "keeper")):
        names = [f"g{turn}-{number}" for number in range(4)]
        out_of.put(names)
        wanted += names
        out_of.crew.kill(part)
        out_of.crew.start()
    eventually(lambda: len(out_of.names()) >= before + len(wanted))
    assert out_of.names()[before:] == wanted
