"""The steps of the tour around the patch relay: an advisory and its clock, what passes, who cannot approve, what goes
where, the way back, and an owned keeper.

Not here: how steps are run and shown (lab.tour).
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

from cofferdam.brokers.patch.records import Custom
from cofferdam.enforce import stores
from cofferdam.errors import CofferdamError
from cofferdam.lab.patch import events
from cofferdam.lab.patch.maintenance import LOOK_SECONDS, LOOKS, Desk
from cofferdam.lab.patch.plc import NAME
from cofferdam.lab.patch.vendor import ME, firmware
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import COFFERDAM, Scene, in_the_end

CREW = "patch/enterprise-control"
VIRUS = b"the laboratory's own virus"
RULES = f'rule laboratory {{ strings: $it = "{VIRUS.decode()}" condition: $it }}\n'
"""The site's YARA rules. (What scanners of the house know would end this file as well.)"""
HEALTH = 'health: {file: /version, says: "{version}", within: 8 s}'
OPEN = "window: {days: mon-sun, from: '00:00', to: '24:00', zone: UTC}"


def shut() -> str:
    """A window of half an hour in the night of the day after tomorrow."""
    day = (datetime.now(UTC) + timedelta(days=2)).strftime("%a").lower()
    return f"window: {{days: {day}, from: '02:00', to: '02:30', zone: UTC}}"


class Cast:
    """Maintenance at its desk, and what it has brought in."""

    def __init__(self, scene: Scene, desk: Desk, root: bytes, online: bytes) -> None:
        self.scene = scene
        self.desk = desk
        self.root = root
        self.online = online
        self.number = 0

    def has(self, plc: str = "plc") -> bytes:
        """What lies in a controller."""
        path = self.desk.folder / plc / "update" / NAME
        return path.read_bytes() if path.is_file() else b""

    async def fetched(self, product: str, ends: tuple[str, ...]) -> dict[str, Any]:
        """What came of a product from its source, once that was examined."""

        async def look() -> dict[str, Any]:
            rows = [row for row in await self.desk.told("list") if (row["product"], row["how"]) == (product, "fetch")]
            return dict(rows[0]) if rows else {"state": "nothing came", "reason": "", "file": ""}

        return await in_the_end(look, lambda row: row["state"] in ends)

    async def release(self, version: str, data: bytes) -> int:
        found = await self.desk.bring(version, data, self.desk.vendor.sign(data))
        if found["state"] != "passed":
            raise CofferdamError(f"{version} is {found['state']}: {found['reason']}")
        number = int(found["number"])
        await self.desk.request(found)
        return number

    async def sign(self, number: int) -> None:
        for who in ("alice", "bob"):
            code, said = await self.desk.approve(number, who)
            if code:
                raise CofferdamError(said)


async def an_advisory(cast: Cast) -> list[Finding]:
    """The vendor's advisory comes from its site: the controller is affected, and 35 days run until somebody has
    answered"""
    desk = cast.desk
    await cast.scene.verb("patch", "fetch", "filler-notices")
    document = await cast.fetched("filler-advisories", ("read", "refused", "failed"))
    found = (
        (await desk.told("advisories", "FW-2026-1")) if document["state"] == "read" else {"assets": [], "clocks": []}
    )
    verdicts = {each["asset"]: each["verdict"] for each in found["assets"]}
    clocks = [each["clock"] for each in found["clocks"]]
    findings = [Finding("its CSAF provider has a document about the controller", "affected; its clock runs",
                        f"{document['state']}: {verdicts}, clocks {clocks}",
                        verdicts == {"filler-plc": "affected"} and clocks == ["evaluate"])]  # fmt: skip
    if findings[0].ok:
        said = await desk.told("evaluate", "FW-2026-1", "--rest", "--note", "as the vendor says")
        clocks = [each["clock"] for each in said["clocks"]]
        findings.append(Finding("maintenance takes the vendor's word", "the clock until it is installed or planned for",
                                f"clocks {clocks}", clocks == ["plan"]))  # fmt: skip
    return findings


async def from_its_site(cast: Cast) -> list[Finding]:
    """The gate takes a new firmware from the vendor's site, with its signature, and nothing that no rule names"""
    await cast.scene.verb("patch", "fetch", "filler-maker")
    found = await cast.fetched("filler-firmware", ("passed", "refused", "failed", "not-scanned"))
    came = [row["file"] for row in await cast.desk.told("list") if row["how"] == "fetch"]
    others = [name for name in came if name not in (found["file"], "fw-2026-1.json")]
    return [Finding("the vendor's site has a new firmware, and a manual beside it", "passed; the manual is not fetched",
                    f"{found['state']} {found['reason']}; besides came {', '.join(others) or 'nothing'}",
                    found["state"] == "passed" and not others)]  # fmt: skip


async def only_the_vendors(cast: Cast) -> list[Finding]:
    """A genuine firmware passes; one with a changed byte, an infected one, and a trap in an archive do not"""
    data, vendor = firmware("1.0"), cast.desk.vendor
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("../../etc/cron.d/x", "* * * * * root sh")
    trap = held.getvalue()
    findings = []
    for version, what, file, signature, state, word in (
        ("0.8", "a firmware with one byte changed", data[:-1] + b"!", vendor.sign(data), "refused", "not hold"),
        ("0.9", "an archive that leads out, signed by the vendor", trap, vendor.sign(trap), "refused", "leads out"),
        (
            "0.95",
            "an infected firmware, signed by the vendor",
            data + VIRUS,
            vendor.sign(data + VIRUS),
            "refused",
            "YARA",
        ),
        ("1.0", "the vendor's own", data, vendor.sign(data), "passed", ""),
    ):
        found = await cast.desk.bring(version, file, signature)
        seen = f"{found['state']} {found['reason']}".strip()
        findings.append(Finding(f"maintenance brings in {what}", f"{state} {word}".strip(), seen,
                                found["state"] == state and word in found["reason"]))  # fmt: skip
        cast.number = found["number"]
    return findings


async def not_alone(cast: Cast) -> list[Finding]:
    """Nobody releases alone: not the uploader, not one person twice, not a stranger"""
    desk, number = cast.desk, cast.number
    await desk.request(await desk.ask("keeper", "show", number=number))
    code, said = await desk.approve(number, ME)
    findings = [Finding(f"{ME}, who brought it in, approves", "refused", said[:160], code == 2 and "cannot be" in said)]
    await desk.approve(number, "alice")
    for who, what, word in (("alice", "approves again", "already"), ("safe-1", "approves, whom the root does not know "
                            "as an approver", "no approver")):  # fmt: skip
        code, said = await desk.approve(number, who)
        findings.append(Finding(f"{who} {what}", "refused", said[:160], code == 2 and word in said))
    nothing = cast.has()
    findings.append(Finding("look at the controller", "nothing has come", f"{len(nothing)} bytes", not nothing))
    return findings


async def two_release(cast: Cast) -> list[Finding]:
    """Two people sign; the controller gets what they signed, and its health check holds"""
    key = cast.desk.folder / "bob.key"
    code, said = await cast.desk.patch("approve", str(cast.number), "--key", str(key), "--yes")
    if code:
        raise CofferdamError(said)
    found = await cast.desk.settled(cast.number)
    same = cast.has() == firmware("1.0")
    return [Finding("bob signs after alice", "done; the file in the controller is the vendor's, byte by byte",
                    f"{found['state']} {found['detail']}; {'the same' if same else 'another'} file",
                    found["state"] == "done" and same)]  # fmt: skip


async def its_window_opens(cast: Cast) -> list[Finding]:
    """The line's own controller waits for its window; once that opens, it gets what the test ring has"""
    desk, file = cast.desk, cast.scene.policy
    row = await desk.told_why("filler-plc-2", "its window is shut")
    waits = "its window is shut" in row["why"] and not cast.has("plc-2") and len(row["windows"]) >= 3
    findings = [Finding("look at ring line-1 once the test ring is done", "its window is shut; its next ones are shown",
                        f"{row['why']}; {len(row['windows'])} windows in four weeks", waits)]  # fmt: skip
    text = file.read_text()
    found = re.sub(r"window: \{days: \w+, from: '02:00', to: '02:30', zone: UTC\}", OPEN, text)
    file.write_text(found)
    taken = await cast.scene.verb("reload")
    if taken.code or found == text:
        raise CofferdamError(f"the window was not opened: {taken.text}")
    row = await desk.settled(cast.number, "filler-plc-2")
    same = cast.has("plc-2") == firmware("1.0")
    findings.append(Finding("its window opens (the policy says so now)", "done; byte by byte the vendor's",
                            f"{row['state']} {row['detail']}; {'the same' if same else 'another'} file",
                            row["state"] == "done" and same))  # fmt: skip
    return findings


async def the_way_back(cast: Cast) -> list[Finding]:
    """A firmware that is signed by all and does not work: the old one comes back by itself, and nothing goes on"""
    number = await cast.release("1.1", firmware("1.1", good=False))
    await cast.sign(number)
    found = await cast.desk.settled(number)
    findings = [Finding("release a firmware that does not start", "back: the controller has 1.0 again",
                        f"{found['state']}: {found['detail'][:160]}",
                        found["state"] == "back" and cast.has() == firmware("1.0"))]  # fmt: skip
    why = (await cast.desk.told_why("filler-plc", "a person has to say"))["why"]
    findings.append(Finding("look at the plan", "it waits for a person", why, "a person has to say" in why))
    line = await cast.desk.told_why("filler-plc-2", "stopped")
    held = line["has"] == "1.0" and cast.has("plc-2") == firmware("1.0") and "stopped" in line["why"]
    findings.append(Finding("look at line-1", "stopped: it has 1.0, and nothing came", line["why"], held))
    words = {"asset": "filler-plc", "product": "filler-firmware", "says": "done", "detail": "1.0 runs"}
    await cast.desk.ask("installer", "result", **words)
    await cast.desk.ask("installer", "stop", product="filler-firmware")
    return findings


async def a_gateway_polls(cast: Cast) -> list[Finding]:
    """A gateway's own SWUpdate polls the gate, takes what two people have signed, and installs it"""
    from cofferdam.lab.patch import gateway

    desk, scene, maker = cast.desk, cast.scene, gateway.Maker()
    folder = desk.folder / "gateway"
    folder.mkdir(mode=0o700)
    target, payload = folder / "installed", b"what the gateway runs" * 5000
    image = maker.image("1.0", payload, target)
    found = await desk.bring("1.0", image, desk.vendor.sign(image), product="gateway-images", name=gateway.FILE)
    if found["state"] != "passed":
        raise CofferdamError(f"the image is {found['state']}: {found['reason']}")
    await desk.request(found)
    await cast.sign(found["number"])
    await desk.told_why(gateway.NAME, "now")
    key = await scene.verb("patch", "key", "new", gateway.NAME)
    if key.code:
        raise CofferdamError(key.text)
    (folder / "key").write_text(key.text.split()[0])
    (folder / "maker.pem").write_bytes(maker.certificate)
    where = scene.layout.addresses
    argv = [*COFFERDAM, "lab", "gateway", "--folder", str(folder), "--address", where.host("patch-gateway"), "--gate",
            where.at("patch-door")]  # fmt: skip
    device = await scene.start("gateway", "plant", argv, decode=events.parse)
    row = await in_the_end(
        lambda: desk.asset(gateway.NAME),
        lambda row: row["state"] != "" and (target.is_file() or row["state"] == "failed"),
    )
    await device.stop()
    same = target.is_file() and target.read_bytes() == payload
    findings = [Finding("SWUpdate polls the gate for its image", "sent; it has installed what its maker made",
                        f"{row['state']} {row['detail'][:120]}; {'the same' if same else 'another'} file",
                        row["state"] == "sent" and same)]  # fmt: skip
    words = {"asset": gateway.NAME, "product": "gateway-images", "says": "done", "detail": "it runs 1.0"}
    await desk.ask("installer", "result", **words)
    return findings


async def an_owned_keeper(cast: Cast) -> list[Finding]:
    """Whoever owns the keeper, its store and its key releases nothing: the installer wants people's signatures"""
    from cofferdam.brokers.patch.repository import Repository  # an extra's libraries: not for all plays

    store = stores.of(cast.scene.state, CREW, "keeper")
    owned = Repository(store / "tuf", cast.root, cast.online)
    custom = Custom(
        number=900, product="filler-firmware", version="6.6", file=NAME, uploaded_by="x", requested_by="y",
        origin="trust me", scan="clean", at="",
    )  # fmt: skip
    before = owned.current()
    owned.publish(owned.draft(custom, 4, "0" * 64))
    for path in (store / "tuf" / "metadata").iterdir():
        path.chmod(0o644)
    said = ""
    for _ in range(LOOKS):
        found = await cast.desk.ask("installer", "plan")
        if said := found["refused"]:
            break
        if before is None:
            raise CofferdamError("there was no release before")
        await asyncio.sleep(LOOK_SECONDS)
    return [Finding("the owned keeper publishes a release of its own, with its own key", "the installer refuses it",
                    said, "signed by 0/2" in said and cast.has() == firmware("1.0"))]  # fmt: skip


async def the_log_agrees(cast: Cast) -> list[Finding]:
    """Files, catalogue and audit log agree, and the evidence has who signed before each step"""
    answer = await cast.scene.verb("patch", "verify")
    findings = [Finding("cofferdam patch verify", "hashes agree; NO, since the installer refuses the forged release",
                        answer.text[:200], answer.code == 1 and "has another hash" not in answer.text)]  # fmt: skip
    bundle = cast.desk.folder / "evidence.json"
    told = await cast.scene.verb("patch", "export", str(bundle))
    log = json.loads(bundle.read_text())["log"] if not told.code else []
    signed: dict[int, set[str]] = {}
    good, begun = True, 0
    for each in log:
        if each["kind"] == "release-signed":
            signed.setdefault(each["number"], set()).add(each["person"])
        elif each["kind"] == "install-started":
            begun += 1
            good = good and len(signed.get(each["number"], ())) >= 2
    findings.append(Finding("cofferdam patch export", "each step has two people's signatures before it",
                            f"{told.text[:120]}; {begun} steps, {'all' if good else 'NOT all'} signed by two before",
                            good and begun >= 4))  # fmt: skip
    return findings


STEPS: tuple[Step, ...] = (
    an_advisory,
    from_its_site,
    only_the_vendors,
    not_alone,
    two_release,
    its_window_opens,
    the_way_back,
    a_gateway_polls,
    an_owned_keeper,
    the_log_agrees,
)
