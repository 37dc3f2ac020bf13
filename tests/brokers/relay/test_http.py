"""The relay from its clients' side: real processes, real sockets, real HTTP clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cofferdam.audit.events.relay import MessageRefused, MessagesPushed
from cofferdam.brokers.kit.http.keys import WRONG_SOURCES, WRONG_WAITING, Secrets, Slowed, Tls, new_key
from cofferdam.brokers.kit.supervision import SetSevered
from tests.brokers.relay.certificates import make
from tests.brokers.relay.crew import ELSEWHERE, OFFICE, PLANT, RunningCrew, crew
from tests.policy.messages import test_xml as xml
from tests.waiting import PATIENT, eventually, readable

COUNTS = "/v1/channels/counts"
ORDERS = "/v1/channels/orders"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    # Not strict: what a thousand lines have left is taken in one go.
    with crew(tmp_path_factory.mktemp("relay") / "store", words={"counts": ", order: parallel 1000"}) as running:
        yield running


@pytest.fixture
def mes(relay: RunningCrew) -> Iterator[httpx.Client]:
    with relay.client("mes") as client:
        yield client


@pytest.fixture
def erp(relay: RunningCrew) -> Iterator[httpx.Client]:
    with relay.client("erp") as client:
        yield client


def count(number: int, **more: Any) -> dict[str, Any]:
    return {"line": "filler", "n": number, **more}


def take(client: httpx.Client, channel: str, **said: Any) -> list[dict[str, Any]]:
    """Leases and settles what there is."""
    found = client.post(f"{channel}/lease", json=said).raise_for_status().json()
    numbers = [message["number"] for message in found["messages"]]
    if numbers:
        said = {"lease": found["lease"], "done": numbers}
        assert client.post(f"{channel}/settle", json=said).status_code == 200
    messages: list[dict[str, Any]] = found["messages"]
    return messages


def drained(client: httpx.Client, channel: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while more := take(client, channel, max=1000):
        found += more
    return found


def problem(answer: httpx.Response, status: int, word: str) -> dict[str, Any]:
    """What a problem says, as RFC 9457 has it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"urn:cofferdam:relay:{word}", found
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found


def test_a_message_crosses_and_is_done(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("mes") as mes, relay.client("erp") as erp:
        answer = mes.put(f"{COUNTS}/messages/shift-1", json=count(7))
        assert answer.status_code == 201, answer.text
        assert answer.json()["number"] == 1
        assert answer.headers["etag"] == f'"{answer.json()["sha256"]}"'
        assert "date" in answer.headers
        taken = erp.post(f"{COUNTS}/lease", json={"max": 10}).json()
        assert [(each["number"], each["id"], each["from"], each["data"]) for each in taken["messages"]] == [
            (1, "shift-1", "mes", {"line": "filler", "n": 7})
        ]
        assert taken["messages"][0]["count"] == 1
        settled = erp.post(f"{COUNTS}/settle", json={"lease": taken["lease"], "done": [1]})
        assert settled.json() == {"results": [{"number": 1, "status": 200}]}
        assert relay.auditor.of(MessagesPushed)[0].key == "shift-1"
        relay.ends_well()


# --- push -------------------------------------------------------------------------------------------------------


def test_a_repeat_gets_the_first_answer_and_another_content_a_conflict(mes: httpx.Client) -> None:
    first = mes.put(f"{COUNTS}/messages/repeat", json=count(1))
    again = mes.put(f"{COUNTS}/messages/repeat", content=b'{ "n": 1.0, "line": "filler" }',
                    headers={"content-type": "application/json; charset=utf-8"})  # fmt: skip
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    found = problem(mes.put(f"{COUNTS}/messages/repeat", json=count(2)), 409, "conflict")
    assert found["stored_sha256"] == first.json()["sha256"] != found["sha256"]


def test_many_in_lines_each_with_its_result(mes: httpx.Client, erp: httpx.Client) -> None:
    drained(erp, COUNTS)
    rows = [
        json.dumps({"id": "l-1", "data": count(1)}),
        json.dumps({"id": "l-2", "data": count(-1)}),
        '{"id": "l-3", "data": {"line": "x", "n": 1, "n": 2}}',
        json.dumps({"id": "l-1", "data": count(1)}),
        json.dumps({"id": "l-1", "data": count(9)}),
        json.dumps({"id": "l-4"}),
        "nonsense",
        json.dumps({"id": "l-5", "data": count(5)}),
    ]
    answer = mes.post(f"{COUNTS}/messages", content="\n".join(rows), headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [each["status"] for each in found] == [201, 422, 422, 200, 409, 422, 422, 201]
    assert found[7]["number"] == found[0]["number"] + 1 == found[3]["number"] + 1
    assert (found[1]["pointer"], found[1]["line"], "quarantine" in found[1]) == ("/n", 2, True)
    assert rows[1][found[1]["column"] - 1 :].startswith("-1")
    assert (found[2]["pointer"], found[2]["line"], "quarantine" in found[2]) == ("/data/n", 3, False)
    assert found[6]["line"] == 7
    assert [each["id"] for each in drained(erp, COUNTS)] == ["l-1", "l-5"]


def test_a_thousand_lines_and_no_more(mes: httpx.Client, erp: httpx.Client) -> None:
    def lines(many: int) -> httpx.Response:
        rows = "".join(json.dumps({"id": f"m-{each}", "data": count(each)}) + "\n" for each in range(many))
        return mes.post(f"{COUNTS}/messages", content=rows, headers={"content-type": "application/x-ndjson"})

    drained(erp, COUNTS)
    found = [json.loads(line) for line in lines(1000).text.splitlines()]
    assert {each["status"] for each in found} == {201}
    assert [each["number"] for each in found] == list(range(found[0]["number"], found[0]["number"] + 1000))
    problem(lines(1001), 413, "size")
    problem(lines(0), 413, "size")
    assert [each["data"]["n"] for each in drained(erp, COUNTS)] == list(range(1000))


def test_cloud_events(mes: httpx.Client, erp: httpx.Client) -> None:
    drained(erp, COUNTS)
    event = {"specversion": "1.0", "type": "count", "source": "urn:mes/line 1", "id": "7", "data": count(7)}
    structured = {"content-type": "application/cloudevents+json"}
    found = problem(mes.post(f"{COUNTS}/messages", json=event, headers=structured), 422, "syntax")
    assert "source" in found["detail"]
    event["source"] = "urn:mes/line-1"
    assert mes.post(f"{COUNTS}/messages", json=event, headers=structured).status_code == 201
    binary = {"ce-specversion": "1.0", "ce-type": "count", "ce-source": "urn:mes/line-1", "ce-id": "7"}
    assert mes.post(f"{COUNTS}/messages", json=count(7), headers=binary).status_code == 200
    batch = [{**event, "id": "8"}, {**event, "id": "9", "data": count(-9)}, {**event, "specversion": "0.3"}]
    answer = mes.post(f"{COUNTS}/messages", json=batch, headers={"content-type": "application/cloudevents-batch+json"})
    assert [each["status"] for each in answer.json()] == [201, 422, 422]
    assert answer.json()[1]["pointer"] == "/n"
    wrong = problem(
        mes.post(f"{COUNTS}/messages", json={**event, "id": "10", "data": count(-1)}, headers=structured), 422, "schema"
    )
    assert wrong["pointer"] == "/n"
    assert [each["id"] for each in drained(erp, COUNTS)] == ["urn:mes/line-1 7", "urn:mes/line-1 8"]


BAD: list[tuple[bytes, str, str]] = [
    (b'{"line":"a","n":1,"n":2}', "syntax", "/n"),
    (b'{"line":"a","n":NaN}', "syntax", "/n"),
    (b'{"line":"a","n":1e400}', "syntax", "/n"),
    (b'{"line":"a","n":1180591620717411303424}', "syntax", "/n"),
    (b"[" * 100_000, "syntax", ""),
    (b'{"line":"\\ud800","n":1}', "syntax", "/line"),
    (b'{"line":"a\\u0000","n":1}', "syntax", "/line"),
    (b"\xef\xbb\xbf" + b'{"line":"a","n":1}', "syntax", ""),
    (b'{"line":"a","n":1,"__proto__":{"admin":true}}', "schema", ""),
    (b'{"line":"a"}', "schema", ""),
    (b"", "syntax", ""),
]


@pytest.mark.parametrize(("body", "word", "pointer"), BAD)
def test_bad_messages_are_refused_with_their_place(
    mes: httpx.Client, erp: httpx.Client, body: bytes, word: str, pointer: str
) -> None:
    answer = mes.put(f"{COUNTS}/messages/bad", content=body, headers={"content-type": "application/json"})
    found = problem(answer, 422, word)
    assert found["pointer"] == pointer
    assert found["line"] == 1
    assert ("quarantine" in found) == (word == "schema")


def test_too_large_a_message(mes: httpx.Client) -> None:
    body = json.dumps(count(1, note="x" * 100_000)).encode()
    problem(
        mes.put(f"{COUNTS}/messages/large", content=body, headers={"content-type": "application/json"}), 413, "size"
    )
    chunks = (body[at : at + 5000] for at in range(0, len(body), 5000))
    problem(
        mes.put(f"{COUNTS}/messages/large", content=chunks, headers={"content-type": "application/json"}), 413, "size"
    )


def test_who_sends_all_before_it_reads_is_told_that_it_is_too_large(relay: RunningCrew) -> None:
    """As many an HTTP library does: to it a connection that breaks is a fault of the network, to be tried again."""
    body = b'"' + b"x" * 16_000_000 + b'"'
    connection = http.client.HTTPConnection(PLANT, relay.port("inner"), timeout=PATIENT, source_address=(PLANT, 0))
    head = {"authorization": f"Bearer {relay.keys['mes']}", "content-type": "application/json"}
    connection.request("PUT", f"{COUNTS}/messages/large", body, head)
    assert connection.getresponse().status == 413
    connection.close()


def test_an_order_for_ten_million_and_a_step_too_far(erp: httpx.Client, mes: httpx.Client) -> None:
    drained(mes, ORDERS)
    found = problem(erp.put(f"{ORDERS}/messages/o-1", json={"quantity": 10_000_000}), 422, "limit")
    assert (found["pointer"], found["detail"]) == ("/quantity", "10000000 is asked; 1 to 10000 is allowed")
    assert erp.put(f"{ORDERS}/messages/o-2", json={"quantity": 100}).status_code == 201
    text = '{\n  "quantity": 9000}'
    answer = erp.put(f"{ORDERS}/messages/o-3", content=text, headers={"content-type": "application/json"})
    found = problem(answer, 422, "step")  # what only the keeper can know, with its place in what was sent
    assert (found["pointer"], found["line"], found["column"]) == ("/quantity", 2, 15)
    (taken,) = drained(mes, ORDERS)
    assert taken["data"] == {"quantity": 100, "site": "works"}


def test_ids_that_are_none(mes: httpx.Client) -> None:
    for key in ("x" * 201, "a%2Fb", "a%00b", "%2e%2e", "a%zz", "%ff", "a%20b", "-a", ""):
        answer = mes.put(f"{COUNTS}/messages/{key}", json=count(1))
        assert answer.status_code in (400, 404), (key, answer.text)
    assert mes.put(f"{COUNTS}/messages/a%3Ab", json=count(1)).json()["id"] == "a:b"
    assert mes.put(f"{COUNTS}/messages/../../orders/messages/x", json=count(1)).status_code == 404


def test_other_forms_and_methods_and_paths(mes: httpx.Client, erp: httpx.Client) -> None:
    problem(mes.put(f"{COUNTS}/messages/x", content="<a/>", headers={"content-type": "text/xml"}), 415, "media")
    utf16 = {"content-type": "application/json; charset=utf-16"}
    problem(mes.put(f"{COUNTS}/messages/x", content="{}", headers=utf16), 415, "media")
    problem(mes.post(f"{COUNTS}/messages", json=count(1)), 415, "media")
    answer = mes.get(f"{COUNTS}/messages/x")
    assert answer.headers["allow"] == "PUT"
    problem(answer, 405, "method")
    problem(mes.get("/"), 404, "not-found")
    problem(mes.get("/v1/channels/counts/nothing"), 404, "not-found")
    problem(mes.put("/v1/channels/orders/messages/x", json={}), 404, "not-found")  # mes may pull these only
    problem(mes.put("/v1/channels/nothing/messages/x", json={}), 404, "not-found")
    problem(erp.get(f"{COUNTS}/messages"), 404, "not-found")  # lake may browse, erp may not


# --- pull -------------------------------------------------------------------------------------------------------


def test_each_who_pulls_has_a_place_of_its_own(relay: RunningCrew, mes: httpx.Client, erp: httpx.Client) -> None:
    with relay.client("lake") as lake:
        drained(erp, COUNTS), drained(lake, COUNTS)
        mes.put(f"{COUNTS}/messages/both", json=count(3))
        for client in (erp, lake):
            assert [each["id"] for each in drained(client, COUNTS)] == ["both"]


def test_a_pull_waits_for_what_comes(relay: RunningCrew, mes: httpx.Client, erp: httpx.Client) -> None:
    drained(erp, COUNTS)
    assert erp.post(f"{COUNTS}/lease", json={"wait": 0.2}).json()["messages"] == []
    with ThreadPoolExecutor() as beside:
        found = beside.submit(take, erp, COUNTS, wait=60)  # one whose time is over gets nothing
        eventually(lambda: relay.children["outer"].status().backlog == 1)
        assert mes.put(f"{COUNTS}/messages/awaited", json=count(4)).status_code == 201
        assert [each["id"] for each in found.result()] == ["awaited"]


def test_a_client_that_leaves_gets_nothing_and_nothing_is_lost(
    relay: RunningCrew, mes: httpx.Client, erp: httpx.Client
) -> None:
    drained(erp, COUNTS)
    with relay.raw("outer") as sock:
        body = b'{"wait": 60}'
        sock.sendall(
            f"POST {COUNTS}/lease HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['erp']}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        eventually(lambda: relay.children["outer"].status().backlog == 1)
    eventually(lambda: relay.children["outer"].status().backlog == 0)
    mes.put(f"{COUNTS}/messages/after-leaving", json=count(5))
    found = erp.post(f"{COUNTS}/lease", json={}).json()
    assert [(each["id"], each["count"]) for each in found["messages"]] == [("after-leaving", 1)]
    number = found["messages"][0]["number"]
    erp.post(f"{COUNTS}/settle", json={"lease": found["lease"], "done": [number]})


def test_what_failed_comes_again_and_then_is_dead(mes: httpx.Client, erp: httpx.Client) -> None:
    drained(erp, COUNTS)
    mes.put(f"{COUNTS}/messages/failing", json=count(6))
    for times in range(1, 6):
        found = erp.post(f"{COUNTS}/lease", json={"seconds": 60}).json()
        (message,) = found["messages"]
        assert (message["id"], message["count"]) == ("failing", times)
        extended = {"lease": found["lease"], "extend": [{"number": message["number"], "seconds": 30}]}
        assert erp.post(f"{COUNTS}/settle", json=extended).json()["results"][0]["status"] == 200
        failed = {"lease": found["lease"], "failed": [{"number": message["number"], "reason": "no such article"}]}
        assert erp.post(f"{COUNTS}/settle", json=failed).json()["results"][0]["status"] == 200
    assert erp.post(f"{COUNTS}/lease", json={}).json()["messages"] == []


def test_what_was_never_leased_cannot_be_settled(relay: RunningCrew, mes: httpx.Client, erp: httpx.Client) -> None:
    drained(erp, COUNTS)
    mes.put(f"{COUNTS}/messages/leased", json=count(8))
    found = erp.post(f"{COUNTS}/lease", json={}).json()
    number = found["messages"][0]["number"]
    with relay.client("lake") as lake:
        for client, said in (
            (lake, {"lease": found["lease"], "done": [number]}),
            (erp, {"lease": "999999", "done": [number]}),
            (erp, {"lease": found["lease"], "done": [number + 1000]}),
        ):
            (result,) = client.post(f"{COUNTS}/settle", json=said).json()["results"]
            assert result["status"] in (409, 422), result
    done = {"lease": found["lease"], "done": [number]}
    assert erp.post(f"{COUNTS}/settle", json=done).json()["results"][0]["status"] == 200
    again = erp.post(f"{COUNTS}/settle", json=done).json()["results"][0]
    assert (again["status"], again["type"]) == (409, "urn:cofferdam:relay:lease"), "once is enough"


def test_a_consumer_that_leaves_in_the_middle_of_its_answer_gets_it_again(tmp_path: Path) -> None:
    words = {"counts": ", order: parallel 1000, lease: 5 s, tries: 1000"}
    with crew(tmp_path / "store", words=words) as relay, relay.client("mes") as mes, relay.client("erp") as erp:
        lines = "".join(f'{{"id": "m{n}", "data": {{"line": "{"x" * 8000}", "n": {n}}}}}\n' for n in range(400))
        sent = mes.post(f"{COUNTS}/messages", content=lines, headers={"content-type": "application/x-ndjson"})
        assert {line["status"] for line in map(json.loads, sent.text.splitlines())} == {201}
        for _ in range(3):
            with relay.raw() as sock:
                asked = b'{"max": 1000, "wait": 60}'
                head = f"POST {COUNTS}/lease HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['erp']}\r\n"
                sock.sendall(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(asked), asked))
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")  # the rest of some megabytes is left where it is
        counts: dict[int, int] = {}
        while len(counts) < 400:
            handed = erp.post(f"{COUNTS}/lease", json={"max": 1000, "wait": 60}).json()
            numbers = {message["number"]: message["count"] for message in handed["messages"]}
            if numbers:
                done = {"lease": handed["lease"], "done": list(numbers)}
                for one in erp.post(f"{COUNTS}/settle", json=done).json()["results"]:
                    if one["status"] == 200:
                        assert one["number"] not in counts, "what is done comes again"
                        counts[one["number"]] = numbers[one["number"]]
        assert sorted(counts) == list(range(1, 401))
        assert counts[1] >= 2, "it was handed out before"
        relay.ends_well()


def test_what_a_consumer_says_is_read_strictly(erp: httpx.Client) -> None:
    for path, body, pointer in (
        ("lease", b'{"max": 0}', "/max"),
        ("lease", b'{"max": 1001}', "/max"),
        ("lease", b'{"wait": 61}', "/wait"),
        ("lease", b'{"max": "1"}', "/max"),
        ("lease", b'{"max": 1, "max": 2}', "/max"),
        ("lease", b'{"many": 1}', ""),
        ("lease", b"[]", ""),
        ("settle", b'{"lease": 1}', "/lease"),
        ("settle", b'{"lease": "1"}', None),
        ("settle", b'{"lease": "1", "done": [0]}', "/done/0"),
        ("settle", b'{"lease": "1", "done": [1], "failed": [{"number": 1}]}', None),
    ):
        found = problem(erp.post(f"{COUNTS}/{path}", content=body), 400, "request")
        if pointer is not None:
            assert found["pointer"] == pointer, (body, found)


def test_browsing(relay: RunningCrew, mes: httpx.Client) -> None:
    with relay.client("lake") as lake:
        last = mes.put(f"{COUNTS}/messages/browsed", json=count(9)).json()["number"]
        found = lake.get(f"{COUNTS}/messages", params={"after": last - 1, "max": 5}).json()
        assert [each["id"] for each in found["messages"]] == ["browsed"]
        assert "lease" not in found
        assert "count" not in found["messages"][0]
        for query in ("after=-1", "after=x", "max=0", "max=1001", "else=1"):
            problem(lake.get(f"{COUNTS}/messages?{query}"), 400, "request")


# --- who --------------------------------------------------------------------------------------------------------


def test_what_there_is_for_whom(relay: RunningCrew, mes: httpx.Client, erp: httpx.Client) -> None:
    assert erp.get("/v1").json() == {
        "principal": "erp", "key": relay.rows["erp"].id, "channels": {"counts": ["pull"], "orders": ["push"]}
    }  # fmt: skip
    assert mes.get("/v1/channels").json()["channels"] == {"counts": ["push"], "orders": ["pull"]}
    about = mes.get(COUNTS).json()
    assert (about["may"], about["most_bytes"], about["schema"]) == (["push"], 100_000, "count.json")
    assert "schema" not in erp.get(COUNTS).json()
    assert mes.get(f"{COUNTS}/schema").json()["required"] == ["line", "n"]
    problem(erp.get(f"{COUNTS}/schema"), 404, "not-found")
    document = erp.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) >= {"/v1", "/health", "/v1/channels/{channel}/lease"}


def test_health_needs_no_key_and_says_nothing(relay: RunningCrew) -> None:
    with relay.client("erp", key="") as nobody:
        answer = nobody.get("/health")
        assert (answer.status_code, answer.content) == (204, b"")


def test_every_wrong_key_gets_the_same_answer_in_like_time(relay: RunningCrew) -> None:
    expired, hashed = new_key()
    relay.rows["old"] = msgspec.structs.replace(relay.rows["erp"], id="old00000", sha256=hashed, expires=1)
    secrets = relay.secrets("outer")
    secrets = msgspec.structs.replace(secrets, keys=(*secrets.keys, relay.rows["old"]))
    relay.give("outer", secrets)
    wrong = ["", "cdk_", new_key()[0], relay.keys["mes"], expired, relay.keys["erp"][:-1] + "A", "x" * 9000]
    answers = []
    for key in wrong:
        with relay.client("erp", key=key) as client:
            began = time.monotonic()
            answer = client.get(f"{COUNTS}/messages")
            answers.append((answer.status_code, answer.text, answer.headers["www-authenticate"]))
            assert time.monotonic() - began > 0.9  # at least: no machine is too busy for that
            problem(answer, 401, "key")
    assert len(set(answers)) == 1
    relay.give("outer", relay.secrets("outer"))
    eventually(lambda: {"unknown", "expired", "none"} <= _told(relay))


def _told(relay: RunningCrew) -> set[str]:
    refused = [each for each in relay.auditor.of(MessageRefused) if each.verb == "key"]
    return {each.detail.rpartition(": ")[2] for each in refused}


def test_a_right_key_from_another_address_is_nobodys(relay: RunningCrew, tmp_path: Path) -> None:
    with (
        relay.client("erp", source=ELSEWHERE) as client,
        pytest.raises(httpx.TransportError),  # the address is nobody's: it gets no HTTP at all
    ):
        client.get("/health")
    mes_key = relay.keys["mes"]
    with relay.client("erp", key=mes_key) as client:
        assert client.get("/v1").status_code == 401


def test_a_key_may_be_for_less_than_its_principal(relay: RunningCrew) -> None:
    text, hashed = new_key()
    narrow = msgspec.structs.replace(relay.rows["erp"], id="narrow00", sha256=hashed, verbs=("pull",))
    secrets = relay.secrets("outer")
    relay.give("outer", msgspec.structs.replace(secrets, keys=(*secrets.keys, narrow)))
    with relay.client("erp", key=text) as client:
        assert client.get("/v1").json()["channels"] == {"counts": ["pull"]}
        problem(client.put(f"{ORDERS}/messages/x", json={"quantity": 1}), 404, "not-found")
    relay.give("outer", secrets)
    with relay.client("erp", key=text) as client:
        assert client.get("/v1").status_code == 401  # revoked, from one request to the next


def test_each_request_of_a_connection_is_judged_by_the_key_that_it_shows(relay: RunningCrew) -> None:
    """Also one that comes behind another, under a key that is no more, or not yet."""
    text, hashed = new_key()
    secrets = relay.secrets("outer")
    more = msgspec.structs.replace(relay.rows["lake"], id="second00", sha256=hashed)
    with relay.raw() as sock:

        def asked(key: str) -> int:
            sock.sendall(f"GET /v1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            answer.read()
            return answer.status

        assert [asked(relay.keys["erp"]), asked(text), asked(relay.keys["erp"])] == [200, 401, 200]
        assert asked(text) == 401
        relay.give("outer", msgspec.structs.replace(secrets, keys=(*secrets.keys, more)))
        assert [asked(text), asked(relay.keys["erp"]), asked(text)] == [200, 200, 200]
        relay.give("outer", secrets)
        assert [asked(text), asked(relay.keys["erp"])] == [401, 200]


def test_many_wrong_keys_slow_nobody_else(relay: RunningCrew, erp: httpx.Client) -> None:
    """From the ERP's own address: a right key must not have to wait for wrong ones."""
    stop = threading.Event()
    answers: list[int] = []

    def guess() -> None:
        with relay.client("erp", key=new_key()[0]) as client:
            while not stop.is_set():
                try:
                    answers.append(client.get("/v1").status_code)
                except httpx.TransportError:
                    answers.append(0)

    threads = [threading.Thread(target=guess) for _ in range(24)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert erp.get("/v1").status_code == 200
    stop.set()
    for thread in threads:
        thread.join(PATIENT)
    assert set(answers) <= {0, 401}

    def overtakes() -> bool:
        """A right key is answered while each of the wrong ones that came before still waits: whoever is busy may miss
        that once, and one that waits for the others always does."""
        with contextlib.ExitStack() as held:
            wrong = [held.enter_context(relay.raw()) for _ in range(8)]
            for sock in wrong:
                sock.sendall(f"GET /v1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {new_key()[0]}\r\n\r\n".encode())
            assert erp.get("/v1").status_code == 200
            return not readable(wrong, 0)

    eventually(overtakes)


@pytest.mark.parametrize("guesses", [50_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_guesses_take_no_more_room_however_many(guesses: int) -> None:
    """(Of the book that is kept of them: of one source, and of as many sources as there are guesses.)"""
    slowed = Slowed()
    answered = sum(slowed.begin("192.0.2.1", "unknown") for _ in range(guesses))
    assert answered == WRONG_WAITING, "the rest gets no answer before one of these has had its"
    for number in range(guesses):
        source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        assert slowed.begin(source, "unknown")
        slowed.end(source)
    told = slowed.told()
    assert len(told) <= WRONG_SOURCES + 1
    assert sum(count for counts in told.values() for count in counts.values()) == 2 * guesses
    assert not slowed.told()


# --- TLS --------------------------------------------------------------------------------------------------------


AUTHORITY = make("tests", ca=True)
SERVER = make("relay.test", by=AUTHORITY)
PARTNERS, ROGUES = make("partners", ca=True), make("rogues", ca=True)
PINNED = make("lake")
SIGNED = make("erp.partner.test", by=PARTNERS)
FORGED = make("erp.partner.test", by=ROGUES)


def _context(tmp_path: Path, own: Any = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    if own is not None:
        file = tmp_path / "own.pem"
        file.write_bytes(own.pem + own.key)
        context.load_cert_chain(file)
    return context


def test_tls_with_keys_and_certificates(tmp_path: Path) -> None:
    doors = ", clients: {erp: {authority: partners.pem, name: erp.partner.test}, lake: {certificate: lake.pem}}"
    files = {"partners.pem": PARTNERS.pem, "lake.pem": PINNED.pem}
    tls = Tls(certificate=SERVER.pem, key=SERVER.key)
    with crew(tmp_path / "store", tls=tls, files=files, doors=doors) as relay:
        for own, who in ((None, "erp"), (SIGNED, "erp"), (PINNED, "lake")):
            key = relay.keys["erp"] if own is None else ""
            with relay.client("erp", key=key, verify=_context(tmp_path, own)) as client:
                assert client.get("/v1").json()["principal"] == who
        with relay.client("erp", key="", verify=_context(tmp_path, None)) as client:
            assert client.get("/v1").status_code == 401
        with (
            relay.client("erp", key="", verify=_context(tmp_path, FORGED)) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get("/v1")
        old = _context(tmp_path)
        with pytest.warns(DeprecationWarning):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with relay.client("erp", verify=old) as client, pytest.raises(httpx.TransportError):
            client.get("/v1")
        if shutil.which("curl"):
            (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
            asked = [
                "curl", "-sS", "--noproxy", "*", "--cacert", str(tmp_path / "ca.pem"), "--interface", OFFICE,
                "-H", f"Authorization: Bearer {relay.keys['erp']}", "--http1.1",
                f"https://{OFFICE}:{relay.port('outer')}/v1",
            ]  # fmt: skip
            said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            assert json.loads(said)["principal"] == "erp"
        relay.ends_well()


def test_a_certificate_of_one_authority_is_not_anothers_principal(tmp_path: Path) -> None:
    """Two authorities are trusted, each for its own principal: neither may speak for the other's."""
    doors = (
        ", clients: {erp: {authority: partners.pem,"
        " name: erp.partner.test}, lake: {authority: rogues.pem, name: lake.test}}"
    )
    files = {"partners.pem": PARTNERS.pem, "rogues.pem": ROGUES.pem}
    tls = Tls(certificate=SERVER.pem, key=SERVER.key)
    with crew(tmp_path / "store", tls=tls, files=files, doors=doors) as relay:
        with relay.client("erp", key="", verify=_context(tmp_path, FORGED)) as client:
            assert client.get("/v1").status_code == 401
        with relay.client("erp", key="", verify=_context(tmp_path, SIGNED)) as client:
            assert client.get("/v1").json()["principal"] == "erp"


# --- XML --------------------------------------------------------------------------------------------------------


def test_a_later_policy_brings_a_channel_of_xml(tmp_path: Path) -> None:
    """What reads XML was loaded before the filter closed; schemas come by the control pipe, includes and all."""
    with crew(tmp_path / "store") as relay, relay.client("mes") as mes, relay.client("erp") as erp:
        relay.files |= {"order.xsd": xml.ORDER, "parts/line.xsd": xml.LINE}
        relay.reload(relay.policy(counts="}\n      orders-xml: {schema: order.xsd", more="counts, orders-xml"))
        channel, kind = "/v1/channels/orders-xml", {"content-type": "application/xml"}
        eventually(lambda: mes.get(channel).status_code == 200)
        assert mes.get(channel).json()["form"] == "xml"
        text = xml.GOOD.replace('number="7"', "  number='7'  ").encode()
        assert mes.put(f"{channel}/messages/7", content=text, headers=kind).status_code == 201
        assert mes.put(f"{channel}/messages/7", content=xml.GOOD.encode(), headers=kind).status_code == 200
        line = json.dumps({"id": "8", "data": xml.GOOD}) + "\n" + json.dumps({"id": "9", "data": {"a": 1}})
        answer = mes.post(f"{channel}/messages", content=line, headers={"content-type": "application/x-ndjson"})
        assert [json.loads(each)["status"] for each in answer.text.splitlines()] == [201, 422]
        found = problem(mes.put(f"{channel}/messages/x", content=xml.BOMB, headers=kind), 422, "syntax")
        assert found["detail"] == "a DOCTYPE"
        wrong = xml.GOOD.replace("AB-2", "no").encode()
        found = problem(mes.put(f"{channel}/messages/y", content=wrong, headers=kind), 422, "schema")
        assert (found["pointer"], "quarantine" in found) == ("/o:Order/o:Line[2]/o:Article", True)
        problem(mes.put(f"{channel}/messages/z", json={}), 415, "media")
        assert [each["data"] for each in drained(erp, channel)] == [xml.GOOD, xml.GOOD]
        assert mes.get(f"{channel}/schema").text.startswith("<?xml")
        relay.ends_well()


# --- the gate's orders ------------------------------------------------------------------------------------------


def test_a_side_that_is_severed_ends_its_sessions_and_no_others(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("mes") as mes, relay.client("erp") as erp:
        assert erp.get("/v1").status_code == 200
        for part in ("outer", "inner", "keeper"):
            relay.children[part].send(SetSevered(("it",)))
        eventually(lambda: relay.children["outer"].status().severed == ("it",))
        with pytest.raises(httpx.TransportError):
            erp.get("/v1")
        assert mes.put(f"{COUNTS}/messages/meanwhile", json=count(1)).status_code == 201
        for part in ("outer", "inner", "keeper"):
            relay.children[part].send(SetSevered(()))
        eventually(lambda: relay.children["outer"].status().severed == ())
        assert [each["id"] for each in take(erp, COUNTS)] == ["meanwhile"]
        relay.ends_well()


def test_a_new_policy_holds_from_the_next_request_on(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("erp") as erp:
        assert erp.put(f"{ORDERS}/messages/a", json={"quantity": 100}).status_code == 201
        relay.files["order.json"] = b'{"type": "object", "properties": {"quantity": {"maximum": 50}}}'
        relay.reload(relay.policy())
        eventually(lambda: erp.put(f"{ORDERS}/messages/b", json={"quantity": 100}).status_code == 422)
        assert erp.put(f"{ORDERS}/messages/c", json={"quantity": 50}).status_code == 201
        relay.reload(relay.policy(conduit="expires: 2020-01-01"))
        eventually(lambda: erp.put(f"{ORDERS}/messages/d", json={"quantity": 50}).status_code == 403)
        problem(erp.put(f"{ORDERS}/messages/d", json={"quantity": 50}), 403, "window")
        relay.ends_well()


def test_a_reload_that_has_reached_one_part_only_costs_no_message_and_no_crew(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("erp") as erp:
        relay.files["order.json"] = b'{"type": "object", "properties": {"quantity": {"maximum": 5000}}}'
        for parts in (("keeper",), ("outer", "inner")):
            relay.reload(relay.policy(), parts)
            statuses = {
                erp.put(f"{ORDERS}/messages/{parts[0]}{n}", json={"quantity": 100}).status_code for n in range(5)
            }
            assert statuses <= {201, 403, 503}, statuses
        eventually(lambda: erp.put(f"{ORDERS}/messages/end", json={"quantity": 100}).status_code == 201)
        relay.ends_well()


def test_a_reload_in_the_middle_of_a_request_costs_that_request_alone(tmp_path: Path) -> None:
    """What a client may was found before its body came: by then it may be otherwise."""
    body = json.dumps(count(1)).encode()
    with crew(tmp_path / "store") as relay, relay.raw("inner") as slow:
        slow.sendall(
            f"PUT {COUNTS}/messages/slow HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['mes']}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body[:5]
        )
        eventually(lambda: relay.children["inner"].status().figures["http_requests"][""] == 1)
        policy = relay.policy(more="more", counts="}\n      more: {schema: count.json")
        relay.reload(policy)
        eventually(lambda: {relay.children[part].status().policy for part in relay.children} == {policy.hash})
        slow.sendall(body[5:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 404 ")
        with relay.client("mes") as mes:
            assert mes.put("/v1/channels/more/messages/a", json=count(1)).status_code == 201
        relay.ends_well()


def test_a_key_that_expires_ends_the_pull_that_waits(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as made, made.client("erp") as client:
        row = msgspec.structs.replace(made.rows["erp"], expires=time.time_ns() + 3_600 * 10**9)
        lasting = msgspec.structs.replace(row, id="lasting0", sha256=new_key()[1], expires=0)
        made.give("outer", Secrets(keys=(row, lasting)))
        assert "relay-keys" not in made.children["outer"].status().alarms, "it has another one"
        made.give("outer", Secrets(keys=(row,)))
        alarm = made.children["outer"].status().alarms["relay-keys"]
        assert alarm.startswith("erp has no key beyond 2") and "cofferdam relay key new" in alarm
        with ThreadPoolExecutor() as beside:
            waits = beside.submit(client.post, f"{COUNTS}/lease", json={"wait": 60})
            eventually(lambda: made.children["outer"].status().backlog == 1)
            row = msgspec.structs.replace(row, expires=time.time_ns() + 10**9)
            made.give("outer", Secrets(keys=(row,)))
            with pytest.raises(httpx.TransportError):  # at its own end it would be answered
                waits.result(PATIENT)


def test_a_query_that_nobody_reads_is_refused(mes: httpx.Client) -> None:
    answer = mes.put("/v1/channels/counts/messages/q?dry=1", json={"line": "L1", "n": 1})
    assert answer.status_code == 400 and "no query" in answer.json()["detail"]
    assert mes.put("/v1/channels/counts/messages/q", json={"line": "L1", "n": 1}).status_code == 201


def test_the_noise_of_one_hides_no_refusal_of_another(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as made, made.client("erp") as erp, made.client("lake") as lake:
        for number in range(60):  # of which 16 are told one by one
            assert erp.get(f"/v1/channels/none{number}").status_code == 404
        assert lake.put("/v1/channels/orders/messages/x", json={"quantity": 1}).status_code == 404
        for number in range(60):
            assert erp.get(f"/v1/channels/none{number}").status_code == 404

        def told() -> list[MessageRefused]:
            return [draft for draft in made.auditor.drafts if isinstance(draft, MessageRefused)]

        eventually(lambda: sum(each.count for each in told()) == 121)
        assert any((each.principal, each.channel) == ("lake", "orders") for each in told())
        assert {each.principal for each in told() if each.verb == "any" and each.fault == "many"} == {"erp"}
