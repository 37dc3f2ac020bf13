"""Two relays in one gate, each with a row 1 in its quarantine: what is done to the one is done to no other."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import httpx

from tests.gate.plant import QuickGate
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

CONDUIT = """
  to-{to}:
    from: plant
    to: {to}
    broker: relay
    owner: production
    reason: counts
    listen:
      plant: {{at: "127.0.0.1:{plant}", plain: true}}
      {to}: {{at: "127.0.0.1:{other}", plain: true}}
    channels: {{counts-{to}: {{schema: count.json}}}}
    allow: [{{who: mes, push: counts-{to}}}, {{who: {to}-reader, pull: counts-{to}}}]
"""
POLICY = """
site: works
zones: {{office: {{side: it}}, lab: {{side: it}}, plant: {{side: ot}}}}
principals:
  mes: {{zone: plant, addresses: [127.0.0.1]}}
  office-reader: {{zone: office, addresses: [127.0.0.1]}}
  lab-reader: {{zone: lab, addresses: [127.0.0.1]}}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
conduits:
"""
CREWS = ("relay/lab-plant", "relay/office-plant")


def test_a_row_is_of_one_relay(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    management, *ports = held_ports(5)
    doors = dict(zip(("lab", "office"), (ports[:2], ports[2:]), strict=True))
    (tmp_path / "count.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(management=management) + "".join(
        CONDUIT.format(to=to, plant=plant, other=other) for to, (plant, other) in doors.items()
    ))  # fmt: skip

    def relay(*words: str, code: int = 0) -> str:
        found, said, complained = cli("relay", *words, "--state", tmp_path / "state")
        assert found == code, complained
        return said if code == 0 else complained

    def held() -> list[tuple[str, int]]:
        return [(row["crew"], row["row"]) for row in json.loads(relay("quarantine", "list", "--json"))]

    gate = QuickGate(tmp_path / "state", policy)
    try:
        gate.wait_ready()
        for to, (plant, _) in doors.items():
            key = json.loads(relay("key", "new", "mes", "--crew", f"relay/{to}-plant", "--json"))["key"]
            with httpx.Client(headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=PATIENT) as mes:
                url = f"http://127.0.0.1:{plant}/v1/channels/counts-{to}/messages/a"

                def refused(mes: httpx.Client = mes, url: str = url) -> bool:
                    with contextlib.suppress(httpx.TransportError):
                        return mes.put(url, json={"n": "no number"}).status_code == 422
                    return False

                eventually(refused)
        both = [(crew, 1) for crew in CREWS]
        eventually(lambda: sorted(held()) == both)
        for words in (["reject", "1", "--reason", "tests"], ["release", "1"], ["show", "1"]):
            said = relay("quarantine", *words, code=2)
            assert "each relay numbers its own rows" in said and all(crew in said for crew in CREWS), said
        assert sorted(held()) == both
        assert "(--crew relay/lab-plant)" in relay("quarantine", "list")
        relay("quarantine", "reject", "1", "--reason", "tests", "--crew", CREWS[0])
        assert held() == both[1:]
    finally:
        gate.close()
