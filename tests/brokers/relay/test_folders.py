"""The relay and folders of the site's: files that come and go by a real part under its filter, and all that a folder
can have in it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.relay.folder_files import messages
from cofferdam.brokers.relay.folder_work import Inward
from cofferdam.brokers.relay.records import Answered, Result
from cofferdam.brokers.relay.ways import Stopped
from cofferdam.enforce import kernel
from cofferdam.errors import PolicyError
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.terms.relay_rows import Channel, Folder, Relay, RelayRows
from tests.brokers.relay.crew import FOLDERS, RunningCrew, crew
from tests.waiting import PATIENT, eventually

CSV = 'form: csv, delimiter: ";", columns: {n: integer}, id: /line'
IN = "folders: {{plant: {{counts: {{folder: counts-in, settle: 0 s, {said}}}}}}}"
OUT = "folders: {plant: {orders: {folder: orders-out}}}"


@contextlib.contextmanager
def running(tmp_path: Path, said: str = "form: json", **words: str) -> Iterator[RunningCrew]:
    options = {"folders": IN.format(said=said), "folders_out": OUT, "via": ", via: folder"} | words
    with crew(tmp_path / "store", words=options) as made:
        yield made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def leave(folder: Path, name: str, content: str | bytes) -> None:
    """As a producer does that knows how: written beside, renamed in."""
    (folder / f".{name}").write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / f".{name}").rename(folder / name)


def pulled(made: RunningCrew, who: str = "erp", count: int = 10) -> list[Any]:
    with made.client(who) as client:
        lease = client.post("/v1/channels/counts/lease", json={"max": count, "wait": 60}).json()
        numbers = [message["number"] for message in lease["messages"]]
        if numbers:
            client.post("/v1/channels/counts/settle", json={"lease": lease["lease"], "done": numbers})
        return [(message["id"], message["data"]) for message in lease["messages"]]


def test_a_file_is_a_message(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        folder = made.folder("counts-in")
        leave(folder, "c1.json", '{"line": "L1", "n": 5}')
        assert pulled(made) == [("c1.json", {"line": "L1", "n": 5})]
        eventually(lambda: names(folder / "done") == ["c1.json"])
        # The same again is the same message; the same name with another content is another, and is refused.
        leave(folder, "c1.json", '{"line": "L1", "n": 5}')
        eventually(lambda: names(folder / "done") == ["c1.json", "c1.json.2"])
        leave(folder, "c1.json", '{"line": "L1", "n": 6}')
        eventually(lambda: names(folder / "bad") == ["c1.json", "c1.json.reason"])
        assert "taken by another content" in (folder / "bad" / "c1.json.reason").read_text()
        assert names(folder) == ["bad", "done"]
        made.ends_well()


def test_rows_are_messages_and_bad_ones_are_told_by_line(tmp_path: Path) -> None:
    with running(tmp_path, CSV, counts=", order: parallel 10") as made:
        folder = made.folder("counts-in")
        leave(folder, "day.csv", "line;n\r\nL1;7\r\nL2;many\r\nL3;-1\r\nL4;8;9\r\nL5;9\r\n")
        eventually(lambda: names(folder / "bad") == ["day.csv", "day.csv.reason"])
        assert pulled(made) == [("L1", {"line": "L1", "n": 7}), ("L5", {"line": "L5", "n": 9})]
        reason = (folder / "bad" / "day.csv.reason").read_text().splitlines()
        assert [line.partition(":")[0] for line in reason] == ["line 3", "line 5", "line 4"]
        assert "no integer" in reason[0] and "3 cells" in reason[1] and "kept in quarantine as" in reason[2]
        made.ends_well()


def test_what_is_no_plain_whole_file_is_left_alone_or_refused(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        folder = made.folder("counts-in")
        (tmp_path / "secret").write_text('{"line": "stolen", "n": 1}')
        (folder / "link.json").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "pipe.json")
        devices = ["zero.json"] if os.geteuid() == 0 else []
        for name in devices:
            os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (folder / "folder.json").mkdir()
        leave(folder, "half.json.part", '{"line": "L1", "n": 1}')
        leave(folder, "new\nline.json", '{"line": "L1", "n": 1}')
        leave(folder, "large.json", b"0" * 20_000_001)
        leave(folder, "torn.json", '{"line": "L1", "n":')
        leave(folder, "twice.json", '{"line": "L1", "n": 1, "n": 2}')
        eventually(lambda: len(names(folder / "bad")) == 8)
        left = ["bad", "done", "folder.json", "half.json.part", "link.json", "pipe.json", *devices]
        assert names(folder) == left
        assert names(folder / "bad") == [
            "large.json", "large.json.reason", "new\\x0aline.json", "new\\x0aline.json.reason", "torn.json",
            "torn.json.reason", "twice.json", "twice.json.reason",
        ]  # fmt: skip
        assert "line 1" in (folder / "bad" / "torn.json.reason").read_text()
        leave(folder, "good.json", '{"line": "L1", "n": 1}')
        assert pulled(made) == [("good.json", {"line": "L1", "n": 1})]
        eventually(lambda: made.children[FOLDERS].status().figures["folders_troubled"] == {"": 1})
        made.ends_well()


def test_a_message_becomes_a_file_once(tmp_path: Path) -> None:
    with running(tmp_path) as made, made.client("erp") as client:
        folder = made.folder("orders-out")
        (tmp_path / "elsewhere").write_text("")
        (folder / ".orders-000000000001.json").symlink_to(tmp_path / "elsewhere")  # in the way, and nobody's
        assert client.put("/v1/channels/orders/messages/a", json={"quantity": 5}).status_code == 201
        eventually(lambda: names(folder) == ["orders-000000000001.json"])
        assert json.loads((folder / "orders-000000000001.json").read_bytes()) == {"quantity": 5, "site": "works"}
        assert (tmp_path / "elsewhere").read_text() == ""
        # One of another content stands in the way of the next: nothing is overwritten until somebody has looked.
        (folder / "orders-000000000002.json").write_text("mine")
        assert client.put("/v1/channels/orders/messages/b", json={"quantity": 6}).status_code == 201
        eventually(lambda: made.children[FOLDERS].status().alarms)
        assert (folder / "orders-000000000002.json").read_text() == "mine"
        (folder / "orders-000000000002.json").unlink()
        eventually(lambda: names(folder)[-1] == "orders-000000000002.json")


def test_a_folder_without_room_waits_and_goes_on(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "orders-out"
    folder.mkdir()
    kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=32k")
    try:
        with running(tmp_path, orders="lease: 1 s") as made, made.client("erp") as client:
            body = {"quantity": 5, "note": "x" * 100_000}
            assert client.put("/v1/channels/orders/messages/a", json=body).status_code == 201
            eventually(lambda: "No space left on device" in str(made.children[FOLDERS].status().alarms))
            assert names(folder) in ([], [".orders-000000000001.json"])
            kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_REMOUNT | kernel.MS_NOSUID, "size=1m")
            eventually(lambda: names(folder) == ["orders-000000000001.json"])
            assert json.loads((folder / "orders-000000000001.json").read_bytes())["note"] == body["note"]
    finally:
        kernel.umount(str(folder))


@pytest.mark.parametrize("times", [2, pytest.param(333, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_killed_at_any_time_each_file_is_booked_once(tmp_path: Path, times: int) -> None:
    with running(tmp_path, CSV, counts=", order: parallel 1000", orders="tries: 1000") as made:
        folder = made.folder("counts-in")
        for number in range(times):
            rows = "".join(f"L{number}-{row};{row}\n" for row in range(300))
            leave(folder, f"f{number}.csv", f"line;n\n{rows}")
            made.kill((FOLDERS, "keeper", "inner")[number % 3])
            made.start()
        eventually(lambda: len(names(folder / "done")) == times)
        found: list[Any] = []
        while len(found) < 300 * times and (batch := pulled(made, count=1000)):
            found += batch
        assert sorted(key for key, _ in found) == sorted(f"L{n}-{row}" for n in range(times) for row in range(300))
        assert names(folder) == ["bad", "done"] and not names(folder / "bad")
        made.ends_well()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"folders": "folders: {office: {counts: {}}}"}, "no folder in plant for counts"),
        ({"folders": "folders: {plant: {coutns: {}}}"}, "did you mean counts"),
        ({"folders": IN.format(said="form: xml")}, "xml for messages that are json"),
        ({"folders": IN.format(said="columns: {n: integer}")}, "columns of json"),
        ({"folders": IN.format(said='form: csv, decimal: ",", delimiter: ","')}, "one mark for two purposes"),
        ({"folders": IN.format(said="id: line")}, "/id"),
        ({"folders_out": "folders: {plant: {orders: {form: csv}}}"}, "one message a file"),
        ({"folders_out": "folders: {plant: {orders: {folder: counts-in}}}"}, "counts-in"),
        ({"folders_out": "folders: {plant: {orders: {folder: ../etc}}}"}, "a name of small letters"),
        ({"via": ""}, "a folder for counts that nobody uses"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, words: dict[str, str], said: str) -> None:
    options = {"folders": IN.format(said="form: json"), "folders_out": OUT, "via": ", via: folder"} | words
    with crew(tmp_path / "store", start=False, words=options) as made, pytest.raises(PolicyError) as error:
        made.policy()
    assert said in " ".join(map(str, error.value.problems))


FOLDER = Folder(zone="plant", channel="c", name="c", form="csv", delimiter=";", columns=(("n", "integer"),))
CHECKS = Checks(Relay([("r", RelayRows(channels=(Channel(name="c"),)))]))
CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=12)


@given(st.lists(st.tuples(CELLS, st.integers(-(2**53), 2**53)), min_size=1, max_size=6))
def test_rows_come_out_as_they_went_in(rows: list[tuple[str, int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(("text", "n"))
    writer.writerows(rows)
    found = list(messages(CHECKS, FOLDER, "x.csv", text.getvalue().encode()))
    assert [json.loads(outcome.item.body) for _, outcome in found if outcome.item] == [
        {"n": number, "text": cell.replace("\r\n", "\n")} for cell, number in rows
    ]


@given(st.binary(max_size=200), st.sampled_from(("json", "lines", "csv")), st.sampled_from(("name", "content", "/a/0")))
def test_any_bytes_are_messages_or_refused(content: bytes, form: Any, key: str) -> None:
    folder = Folder(zone="plant", channel="c", name="c", form=form, id=key)
    for line, outcome in messages(CHECKS, folder, "x", content):
        assert line >= 1 and (outcome.item is not None or outcome.problem is not None)


# --- a producer that may do anything in its folder


def test_what_lies_in_bad_never_comes_to_lie_elsewhere(tmp_path: Path) -> None:
    """`bad` is a link to the folder of the orders: what no schema has passed would be an order."""
    with running(tmp_path) as made:
        folder, orders = made.folder("counts-in"), made.folder("orders-out")
        eventually(lambda: names(folder) == ["bad", "done"])
        (folder / "bad").rmdir()
        (folder / "bad").symlink_to(orders)
        leave(folder, "orders-000000000007.json", '{"quantity": 10000000}')
        eventually(lambda: "bad in counts-in is" in str(made.children[FOLDERS].status().alarms))
        assert names(orders) == [] and names(folder)[-1] == "orders-000000000007.json"
        (folder / "bad").unlink()
        eventually(lambda: "orders-000000000007.json" in names(folder / "bad"))
        made.ends_well()


BOMBS = {
    "columns.csv": ",".join(f"c{n}" for n in range(200_000)).encode(),
    "cells.csv": b"line,n\n" + b"L1,1," * 300_000,
    "row.csv": b'line,n\n"' + b"x\n" * 2_000_000,
    "empty.csv": b"line,n\n" + b"\n" * 3_000_000,
    "refused.csv": b"line,n\n" + b"L1,x\n" * 200_000,
}


def test_a_bomb_of_csv_is_one_bad_file(tmp_path: Path) -> None:
    with running(tmp_path, 'form: csv, delimiter: ",", columns: {n: integer}, id: /line') as made:
        folder = made.folder("counts-in")
        for name, content in BOMBS.items():
            leave(folder, name, content)
        leave(folder, "good.csv", "line,n\nL1,7\n")
        eventually(lambda: names(folder) == ["bad", "done"], 3 * PATIENT)
        assert names(folder / "bad") == sorted([*BOMBS, *(f"{name}.reason" for name in BOMBS)])
        assert pulled(made) == [("L1", {"line": "L1", "n": 7})]
        made.ends_well()


def test_a_bomb_of_lines_is_one_bad_file(tmp_path: Path) -> None:
    with running(tmp_path, "form: lines, id: /line") as made:
        folder = made.folder("counts-in")
        leave(folder, "empty.txt", b"\n" * 3_000_000)
        leave(folder, "ones.txt", b"1\n" * 3_000_000)
        leave(folder, "good.txt", '{"line": "L1", "n": 7}')
        eventually(lambda: names(folder) == ["bad", "done"], 3 * PATIENT)
        assert names(folder / "bad") == ["empty.txt", "empty.txt.reason", "ones.txt", "ones.txt.reason"]
        assert pulled(made) == [("L1", {"line": "L1", "n": 7})]
        made.ends_well()


def test_one_file_in_the_way_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        folder = made.folder("counts-in")
        (folder / ("日" * 85)).write_text('{"line": "L1", "n": 1}')  # too long for a name with .reason behind it
        leave(folder, "\udcff.json", '{"line": "L1", "n": 1}')
        with (folder / ".sparse.json").open("wb") as file:
            file.truncate(1 << 40)
        (folder / ".sparse.json").rename(folder / "sparse.json")
        for number in range(300):
            (folder / "bad" / f"c.json{f'.{number}' if number else ''}").touch()
        leave(folder, "c.json", "{")
        leave(folder, "good.json", '{"line": "L1", "n": 1}')
        eventually(lambda: names(folder) == ["bad", "done"])
        assert pulled(made) == [("good.json", {"line": "L1", "n": 1})]
        assert len([name for name in names(folder / "bad") if name.endswith(".reason")]) == 4
        made.ends_well()


class Pushing:
    """A keeper that takes everything, and lets something happen before it answers."""

    def __init__(self, meanwhile: Any) -> None:
        self.meanwhile = meanwhile
        self.pushed: list[bytes] = []

    async def ask(self, _kind: Any, make: Any, _gone: Any) -> Any:
        push = make(1)
        self.pushed += [item.body for item in push.items]
        self.meanwhile()
        return Answered(1, tuple(Result("stored", len(self.pushed)) for _ in push.items))


def inward(path: Path, keeper: Pushing) -> Inward:
    folder = Folder(zone="plant", channel="c", name="c", form="lines", id="content", settle=0)
    counts = dict.fromkeys(("folder_files_taken", "folder_messages_taken"), 0)
    owner: Any = SimpleNamespace(keeper=keeper, checks=CHECKS, counts=counts, refused=lambda *_: None)
    return Inward(owner, folder, "mes", path)


@pytest.mark.parametrize("how", ["renamed in", "written on"])
def test_a_file_that_is_another_by_the_time_it_is_moved_is_read_as_well(tmp_path: Path, how: str) -> None:
    """A producer that replaces its file, or goes on writing it, while it is pushed loses nothing."""

    def meanwhile() -> None:
        if b'{"n":2}' in keeper.pushed:
            work.stop()
        elif how == "renamed in":
            leave(tmp_path, "f", '{"n": 2}\n')
        else:
            with (tmp_path / "f").open("a") as file:
                file.write('{"n": 2}\n')

    keeper = Pushing(meanwhile)
    work = inward(tmp_path, keeper)
    leave(tmp_path, "f", '{"n": 1}\n')

    async def go() -> None:
        with pytest.raises(Stopped):
            await asyncio.wait_for(work.session(), PATIENT)

    asyncio.run(go())
    assert b'{"n":2}' in keeper.pushed
    assert names(tmp_path) == ["bad", "done"] and names(tmp_path / "done") == ["f"]
