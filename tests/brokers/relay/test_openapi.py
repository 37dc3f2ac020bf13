"""The document of the HTTP API: whole, valid, and what the API answers fits it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.brokers.relay.crew import RunningCrew, crew

DOCUMENT: dict[str, Any] = json.loads(files("cofferdam.brokers.relay").joinpath("openapi.json").read_text("utf-8"))
COUNTS = "/v1/channels/counts"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    with crew(tmp_path_factory.mktemp("relay") / "store") as running:
        yield running


def validator(schema: Any) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**DOCUMENT, "allOf": [schema]} if isinstance(schema, dict) else {})


def operation(answer: httpx.Response) -> dict[str, Any]:
    for path, item in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), answer.request.url.path):
            found: dict[str, Any] = item[answer.request.method.lower()]
            return found
    raise AssertionError(f"{answer.request.url} is not in the document")


def fits(answer: httpx.Response) -> None:
    responses = operation(answer)["responses"]
    said = responses.get(str(answer.status_code)) or responses["default"]
    if "$ref" in said:
        said = DOCUMENT["components"]["responses"][said["$ref"].rpartition("/")[2]]
    if "content" not in said:
        assert answer.content == b""
        return
    kind = answer.headers["content-type"]
    schema = validator(said["content"][kind]["schema"])
    values = [json.loads(line) for line in answer.text.splitlines()] if kind.endswith("ndjson") else [answer.json()]
    for value in values:
        schema.validate(value)


def test_every_reference_leads_somewhere() -> None:
    for name in set(re.findall(r'"#/components/(\w+/\w+)"', json.dumps(DOCUMENT))):
        kind, _, part = name.partition("/")
        assert part in DOCUMENT["components"][kind]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    names = [
        each["operationId"]
        for item in DOCUMENT["paths"].values()
        for verb, each in item.items()
        if verb != "parameters"
    ]
    assert len(names) == len(set(names)) == 11


def test_what_the_api_answers_fits_the_document(relay: RunningCrew) -> None:
    ndjson = {"content-type": "application/x-ndjson"}
    count = {"line": "filler", "n": 1}
    with relay.client("mes") as mes, relay.client("erp") as erp, relay.client("lake") as lake:
        lines = '{"id": "a", "data": {"line": "x", "n": 1}}\n{"id": "b", "data": {}}\nno'
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": count}
        answers = [
            *(
                mes.get(path)
                for path in ("/health", "/v1", "/v1/channels", "/v1/openapi.json", COUNTS, f"{COUNTS}/schema")
            ),
            mes.put(f"{COUNTS}/messages/one", json=count),
            mes.put(f"{COUNTS}/messages/one", json=count),
            mes.put(f"{COUNTS}/messages/one", json={"line": "other", "n": 1}),
            mes.put(f"{COUNTS}/messages/two", json={}),
            mes.put(f"{COUNTS}/messages/two", content=b"{"),
            mes.post(f"{COUNTS}/messages", content=lines, headers=ndjson),
            mes.post(f"{COUNTS}/messages", json=event, headers={"content-type": "application/cloudevents+json"}),
            mes.post(
                f"{COUNTS}/messages", json=[event], headers={"content-type": "application/cloudevents-batch+json"}
            ),
            lake.get(f"{COUNTS}/messages?max=2"),
            lake.get(f"{COUNTS}/messages?max=none"),
            erp.get("/v1/channels/nothing"),
            erp.post(f"{COUNTS}/lease", json={"max": 2}),
            erp.post(f"{COUNTS}/settle", json={"lease": "1", "done": [1, 99]}),
            erp.post(f"{COUNTS}/settle", json={}),
        ]
    for answer in answers:
        fits(answer)
    assert {answer.status_code for answer in answers} >= {200, 201, 204, 400, 404, 409, 422}
