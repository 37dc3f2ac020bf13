"""History as an Iceberg table on an object store (moto's S3), read back by others: pyiceberg and Arrow's own S3."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.brokers.mirror.objects import Bucket, signed
from cofferdam.brokers.mirror.query import Reading
from cofferdam.brokers.mirror.records import LANES
from cofferdam.policy.terms.mirror_rows import Publish
from tests.brokers.mirror.crew import PASSWORD, PUBLISHER, Plant, RunningCrew, crew, historian
from tests.brokers.mirror.pairing import HOUR, Pair, batch
from tests.ports import held_port
from tests.services import Postgres, needs_postgres
from tests.waiting import eventually

KEY = "AKIDMIRROR"


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    moto = pytest.importorskip("moto.server")  # here: loading both takes each worker half a second
    found = held_port()
    server = moto.ThreadedMotoServer("127.0.0.1", found, verbose=False)
    server.start()
    yield found
    server.stop()


def at(port: int, path: str = "plant/history") -> Publish:
    return Publish(name="publish", address="127.0.0.1", port=port, bucket="history", path=path, key=KEY, password="s3",
                   region="us-east-1", plain=True)  # fmt: skip


@pytest.fixture(scope="module")
def bucket(port: int) -> Bucket:
    found = Bucket(at(port), PASSWORD)
    found._ask("PUT", "", b"", {})
    return found


def table(bucket: Bucket, path: str) -> Any:
    """The table, as others find it: by the hint, with an S3 of theirs."""
    hint = bucket.get(f"{path}/metadata/version-hint.text")
    assert hint is not None
    return pytest.importorskip("pyiceberg.table").StaticTable.from_metadata(
        f"s3://history/{path}/metadata/v{int(hint)}.metadata.json",
        {"s3.endpoint": f"http://127.0.0.1:{bucket.where.port}", "s3.access-key-id": KEY,
         "s3.secret-access-key": PASSWORD, "s3.region": "us-east-1", "s3.force-virtual-addressing": "false"},
    )  # fmt: skip


def rows(bucket: Bucket, path: str = "plant/history", snapshot: int | None = None) -> list[tuple[Any, ...]]:
    """(tag, seconds, value) of the table as it is, or was."""
    found = table(bucket, path).scan(snapshot_id=snapshot).to_arrow().to_pylist()
    return sorted((one["tag"], one["time"].timestamp() + one["ns"] / 1e9, one["value"]) for one in found)


def were_always_once(bucket: Bucket, path: str) -> int:
    """In each snapshot that a reader may have. How many there are."""
    snapshots = table(bucket, path).metadata.snapshots
    for one in snapshots:
        found = rows(bucket, path, one.snapshot_id)
        assert len(found) == len(set(found)), one
    return len(snapshots)


@needs_postgres
@pytest.mark.parametrize("ago", [30, 80], ids=["both lanes bring it", "the backfill alone"])
def test_what_is_sealed_is_in_the_table_once(tmp_path: Path, made: Postgres, bucket: Bucket, ago: int) -> None:
    """Hour by hour, late ones, and a day that was made into one file; whoever is killed in between. What is two days
    old, the first reading brings as well."""
    plant = Plant(made)
    begin = int(time.time()) // 3_600 * 3_600 - ago * 3_600
    path = f"plant/{ago}"
    wanted: list[tuple[Any, ...]] = []

    def _sealing(mirror: RunningCrew) -> int:
        mirror.ask("keeper", "seal")  # not while something is merged
        found: int = mirror.ask("keeper", "status")["hot"]
        return found

    def add(mirror: RunningCrew, since: int, count: int) -> None:
        some: list[tuple[str, float, float | None, int]] = [
            (f"tag{n}", float(since + s), n + s / 7, 192) for s in range(count) for n in range(3)
        ]
        plant.add(some)
        wanted.extend((tag, when, value) for tag, when, value, _ in some)
        mirror.ask("keeper", "backfill", first=since // 3600, last=since // 3600)
        mirror.catches_up()
        eventually(lambda: not _sealing(mirror))
        eventually(lambda: _is_there(mirror))

    def _is_there(mirror: RunningCrew) -> bool:
        (found,) = mirror.ask(PUBLISHER, "status")
        generation = mirror.ask("keeper", "status")["generation"]
        return bool(found["published"] == generation and not found["left"] and not found["trouble"])

    where = f"at: '127.0.0.1:{bucket.where.port}', bucket: history, path: {path}"
    publish = f"publish: {{{where}, key: {KEY}, plain: true}}"
    with crew(tmp_path, plant, mirror=f", {publish}") as mirror:
        add(mirror, begin + 3600, 50)
        assert rows(bucket, path) == sorted(wanted)
        add(mirror, begin + 7200, 40)
        add(mirror, begin + 3700, 30)  # late: the hour is there once
        assert rows(bucket, path) == sorted(wanted)
        days = Counter(one["partition"]["day"] for one in table(bucket, path).inspect.files().to_pylist())
        assert max(days.values()) <= 3
        mirror.kill(PUBLISHER)
        mirror.start()
        add(mirror, begin + 86_400, 20)
        assert rows(bucket, path) == sorted(wanted)
        assert {one["partition"]["day"] for one in table(bucket, path).inspect.files().to_pylist()} == {
            datetime.datetime.fromtimestamp(at, datetime.UTC).date() for _, at, _ in wanted
        }  # fmt: skip
        hint = int(bucket.get(f"{path}/metadata/version-hint.text") or b"0")
        bucket.put(f"{path}/metadata/v{hint + 1}.metadata.json", b"{}")  # somebody else has written there
        plant.add([("tag0", float(begin + 9000), 1.0, 192)])
        mirror.ask("keeper", "backfill", first=(begin + 9000) // 3600, last=(begin + 9000) // 3600)
        mirror.catches_up()
        eventually(lambda: not _sealing(mirror))
        eventually(lambda: "somebody else" in str(mirror.children[PUBLISHER].status().alarms))
        bucket.delete(f"{path}/metadata/v{hint + 1}.metadata.json")
        wanted.append(("tag0", float(begin + 9000), 1.0))
        eventually(lambda: _is_there(mirror))
        assert rows(bucket, path) == sorted(wanted)
        assert were_always_once(bucket, path) >= 5
        mirror.ends_well()


def test_what_comes_by_both_lanes_is_in_no_snapshot_twice(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is sealed, and before its day is made into one file as afterwards."""
    iceberg = pytest.importorskip("cofferdam.brokers.mirror.iceberg")
    pair = Pair(tmp_path)
    pair.back()
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    published = iceberg.Published(bucket, "plant/both", "history")
    reading = Reading(pair.keeper.store.folder)
    day = (HOUR // 24 - 3) * 24 * 3600

    def publish() -> None:
        while published.step(reading.view())[1]:
            pass

    samples: list[tuple[str, float, float]] = []
    revisions: list[tuple[str, float, float]] = []
    for number, lane in enumerate(LANES * 2):
        samples += [(f"tank_{at % 3}", float(day + number * 100 + at), at / 7) for at in range(100)]
        revisions.append(("tank_1", float(day), float(number)))  # another value each time
        some = [*samples, revisions[-1]]  # with all of before
        pair.offer(batch(lane, [(tag, int(at) * 10**9, value) for tag, at, value in some]))
        pair.all()
        pair.seal()
        publish()
        assert rows(bucket, "plant/both") == sorted(samples + revisions)
    assert len(pair.keeper.store.catalogue.files) == 4
    before = rows(bucket, "plant/both")
    monkeypatch.undo()
    pair.keeper.tick()
    pair.settle()
    publish()
    assert len(pair.keeper.store.catalogue.files) == 1 and rows(bucket, "plant/both") == before
    assert were_always_once(bucket, "plant/both") == 5
    pair.close()


class Hostile:
    """A bucket that answers whatever it likes."""

    def __init__(self, port: int, answers: dict[str, bytes]) -> None:
        self.where = at(port)
        self._answers = answers

    def get(self, key: str) -> bytes | None:
        return next((data for end, data in self._answers.items() if key.endswith(end)), None)

    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        raise AssertionError(f"it wrote {key}")


META = '{"format-version":2,"table-uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1","location":"s3://elsewhere/x",'
HOSTILE: dict[str, dict[str, bytes]] = {
    "a hint that is none": {"version-hint.text": b"../../7"},
    "a number without end": {"version-hint.text": b"9" * 5000},
    "no table": {"version-hint.text": b"3"},
    "a table that is none": {"version-hint.text": b"3", "v3.metadata.json": b"\0" * 100},
    "a table of another form": {"version-hint.text": b"3", "v3.metadata.json": META.encode() + b'"last-column-id":1}'},
    "depth": {"version-hint.text": b"3", "v3.metadata.json": b"[" * 100_000},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_object_store_that_was_taken_over(tmp_path: Path, what: str) -> None:
    iceberg = pytest.importorskip("cofferdam.brokers.mirror.iceberg")
    table = iceberg.Published(Hostile(1, HOSTILE[what]), "plant/history", "history")
    with pytest.raises((iceberg.Odd, OSError)):
        table.step(Reading(tmp_path).view())


def test_signatures_are_those_of_the_reference() -> None:
    """As Amazon's own library signs the same request."""
    auth = pytest.importorskip("botocore.auth")
    request_of = pytest.importorskip("botocore.awsrequest").AWSRequest
    credentials = pytest.importorskip("botocore.credentials").Credentials(KEY, PASSWORD)
    for method, path, data, more in (
        ("GET", "/history/a/b.parquet", b"", {}),
        ("PUT", "/history/metadata/v1.metadata.json", b"{}", {"if-none-match": "*"}),
        ("PUT", "/history/odd%20name%2B.parquet", bytes(range(256)), {}),
    ):  # fmt: skip
        ours = signed(method, "s3.example:9000", path, data, more, "eu-west-3", KEY, PASSWORD)
        request = request_of(method, f"https://s3.example:9000{path}", data=data, headers={
            name: ours[name] for name in ours if name not in ("authorization", "x-amz-date")
        })  # fmt: skip
        signer = auth.S3SigV4Auth(credentials, "s3", "eu-west-3")
        request.context["timestamp"] = ours["x-amz-date"]
        request.context["payload_signing_enabled"] = True
        request.headers["X-Amz-Date"] = ours["x-amz-date"]
        canonical = signer.canonical_request(request)
        wanted = signer.signature(signer.string_to_sign(request, canonical), request)
        assert ours["authorization"].endswith(f"Signature={wanted}")
