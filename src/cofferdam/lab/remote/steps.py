"""The steps of the tour around the jump server: approval, work, files, tunnels, killing, the recording.

Not here: how steps are run and shown (lab.tour), who does what with which program (people).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cofferdam.brokers.kit.clamd import EICAR
from cofferdam.errors import CofferdamError, GateError
from cofferdam.evidence import selftest_jump
from cofferdam.gate.client import ask
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.remote import scanner, tunnel
from cofferdam.lab.remote.people import Person, Said, finish
from cofferdam.lab.scene import PATIENCE_SECONDS, Scene, in_the_end


class Cast:
    """A vendor, a shift lead, a technician of the plant, and the station."""

    def __init__(self, scene: Scene, people: dict[str, Person], files: Path) -> None:
        self.scene = scene
        self.vendor, self.lead, self.tech = (people[name] for name in ("vendor", "lead", "tech"))
        self.files = files
        self.door = scene.layout.addresses.spots["remote-door"]
        self.tunnel = tunnel.Tunnel(scene) if scene.layout.addresses.endpoint else None
        """By which the vendor comes, where there can be one."""

    async def keeper(self, verb: str, part: str = "keeper", **arguments: object) -> Any:
        """What a part says to an operator's verb."""
        answers = await asyncio.to_thread(
            ask, self.scene.state, "ask-part", broker="jump", part=part, verb=verb, arguments=arguments
        )
        if "error" in answers[0]:
            raise CofferdamError(answers[0]["error"])
        return answers[0]["result"]

    async def works(self, person: Person, *words: str, more: tuple[str, ...] = ()) -> tuple[Process, int]:
        """Somebody who works at the station from now on, and the number of their session; 0: they have none. One of
        before, which is just about to end, is another."""
        before = await self._sessions(person)
        working = await person.begin(person.ssh("station", *words, more=more))
        found = await in_the_end(
            lambda: self._sessions(person), lambda now: now - before or working.returncode is not None
        )
        return working, max(found - before, default=0)

    async def _sessions(self, person: Person) -> set[int]:
        return {int(one["number"]) for one in await self.keeper("sessions") if one["person"] == person.name}

    async def pid(self, part: str, *, other_than: int = 0) -> int:
        """The process of a part, once there is one. Raises: CofferdamError: there is none for long."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(GateError):
                for pair in (await self.scene.status()).pairs:
                    for half in pair.halves:
                        mine = pair.broker == "jump" and half.name.endswith(f"/{part}") and half.ready
                        if mine and half.pid not in (0, other_than):
                            return half.pid
            await asyncio.sleep(0.1)
        raise CofferdamError(f"the jump server's {part} did not come back in {PATIENCE_SECONDS:g} s")

    async def entries(self, kind: str, wanted: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Entries of the audit log of this kind, once what is wanted is among them, or time is up."""

        async def look() -> list[dict[str, Any]]:
            answer = await self.scene.verb("audit", "show", "--json", "--kind", kind)
            return [json.loads(line)["event"] for line in answer.out.splitlines() if line.startswith("{")]

        return await in_the_end(look, wanted, seconds=20)


LOW_PORTS = 513
WAIT_SECONDS = 3.0
"""How long is waited for an answer that must not come."""


def _no_tunnel_here() -> list[Finding]:
    why = tunnel.lacking() or "on the loopback network there is no outside to come from"
    why += ": the vendor comes from an address of the office"
    return [Finding("the vendor comes by a WireGuard tunnel of the gate's", "not tried", why, True)]


async def nothing_but_a_tunnel(cast: Cast) -> list[Finding]:
    """A vendor has a WireGuard peer's tunnel and nothing else; it opens one door, and by itself nothing behind it"""
    if cast.tunnel is None:
        return _no_tunnel_here()
    where = cast.scene.layout.addresses
    others = [
        where.spots["remote-station"], (where.gate_ot, 22), (where.device, where.device_port), (where.erp, 22),
        (where.listen, where.listen_port), (where.gate_it, where.office_door),
        *((where.gate_it, port) for port in range(1, LOW_PORTS) if port != cast.door[1]),
    ]  # fmt: skip
    before = await cast.tunnel.lets_in(cast.door, *others, seconds=WAIT_SECONDS)
    added = await cast.scene.verb("overlay", "add-peer", tunnel.NAME, "--json")
    await cast.tunnel.raised(added.json()["config"])
    after = await cast.tunnel.lets_in(cast.door, *others, seconds=PATIENCE_SECONDS)
    wrong = await cast.vendor.run(cast.vendor.ssh("vendor", "list"), code="000000")
    known = await cast.vendor.run(cast.vendor.ssh("vendor", "list"))
    return [
        Finding("what the vendor reaches before the gate knows their WireGuard's key", "nothing", str(before),
                not before),
        Finding(f"and afterwards, who sends all into it: the door, and {len(others)} other ports of the gate, the "
                "station, the PLC and the office", f"{cast.door[0]}:{cast.door[1]} alone", str(after),
                after == [cast.door]),
        Finding("the vendor signs in by the tunnel, with a wrong code and with the right one", "not let in; in",
                f"exit {wrong.code}: {wrong.text}; {known.text}", wrong.code == 255 and known.code == 0),
    ]  # fmt: skip


async def tunnel_taken_away(cast: Cast) -> list[Finding]:
    """When the peer's key is revoked, the vendor's session ends, and there is no way back"""
    if cast.tunnel is None:
        return _no_tunnel_here()
    working, number = await cast.works(cast.vendor, more=("-tt",))
    revoked = await cast.scene.verb("overlay", "revoke", tunnel.NAME)
    left = await in_the_end(lambda: cast.keeper("sessions"), lambda seen: number not in {one["number"] for one in seen})
    after = await cast.tunnel.lets_in(cast.door, seconds=WAIT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        working.kill()  # nothing reaches it any more, not even the end
    await finish(working)
    return [
        Finding("an operator revokes the vendor's tunnel while they work", "the session ends, and nothing is reached",
                f"{revoked.text}; {len(left)} sessions; {after}",
                number != 0 and number not in {one["number"] for one in left} and not after),
    ]  # fmt: skip


async def four_eyes(cast: Cast) -> list[Finding]:
    """A vendor gets to the station once somebody else has approved it, and not before"""
    before = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    asked = await cast.vendor.run(cast.vendor.ssh("vendor", "request station 2h the pump trips #4711"))
    number = asked.out.split()[1] if asked.out.startswith("request ") else "0"
    own = await cast.vendor.run(cast.vendor.ssh("vendor", f"approve {number}"))
    lead = await cast.lead.run(cast.lead.ssh("lead", f"approve {number}"))
    after = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    return [
        Finding("the vendor goes to the station without an approval", "refused, and told how to ask", before.text,
                before.code != 0 and "takes an approval" in before.text),
        Finding("the vendor asks, and approves the request", "nobody approves their own", own.text,
                "nobody approves their own" in own.text),
        Finding("a shift lead approves it; the vendor goes there again", "granted; in", f"{lead.text}; {after.text}",
                "is granted until" in lead.text and after.out == "in\n"),
    ]  # fmt: skip


async def approved_by_signature(cast: Cast) -> list[Finding]:
    """An approval can be the lead's own signature, by OpenSSH's ssh-keygen, over that one request"""
    numbers = []
    for why in ("the pump trips again", "another thing"):
        asked = await cast.vendor.run(cast.vendor.ssh("vendor", f"request station 1h {why}"))
        numbers.append(asked.out.split()[1] if asked.out.startswith("request ") else "0")
    statement = await cast.lead.run(cast.lead.ssh("lead", f"statement {numbers[0]}"))
    signature = await asyncio.to_thread(_sign, cast.scene.directory, statement.out)
    other = await cast.lead.run(cast.lead.ssh("lead", f"approve {numbers[1]} {signature}"))
    good = await cast.lead.run(cast.lead.ssh("lead", f"approve {numbers[0]} {signature}"))
    denied = await cast.lead.run(cast.lead.ssh("lead", f"deny {numbers[1]}"))
    decided = await cast.entries("access-decided", lambda seen: any(_by_signature(each) for each in seen))
    how = [each["how"] for each in decided]
    return [
        Finding("the signature over one request is given for another", "no signature over that one", other.text,
                "no signature over request" in other.text),
        Finding("and for its own; the other is denied", "granted, recorded as a signature; denied",
                f"{good.text}; {denied.text}; {how[-2:]}",
                "is granted until" in good.text and "denied" in denied.text
                and any(_by_signature(each) for each in decided)),
    ]  # fmt: skip


def _by_signature(decided: dict[str, Any]) -> bool:
    return str(decided["how"]).startswith("a signature by")


def _sign(folder: Path, statement: str) -> str:
    """What `ssh-keygen -Y sign` makes of it by the lead's key, in one line."""
    file, signed = folder / "statement", folder / "statement.sig"
    file.write_text(statement)
    signed.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "cofferdam-approval", "-f", str(folder / "lead"), str(file)]
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    return "".join(signed.read_text().splitlines()[1:-1]) if signed.exists() else "none"


DUMMY = Path("/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
"""A security key without hardware, of Debian's openssh-tests."""


async def security_key(cast: Cast) -> list[Finding]:
    """A security key that has asked for its PIN is both factors: the vendor signs in by one alone"""
    if not await asyncio.to_thread(DUMMY.exists):
        missing = "there is no sk-dummy.so (Debian: openssh-tests), which stands for the key"
        return [Finding("the vendor comes with a security key", "not tried", missing, True)]
    key = cast.scene.directory / "vendor-sk"
    command = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-N", "", "-O", "verify-required", "-f", str(key)]
    environment = {**os.environ, "SSH_SK_PROVIDER": str(DUMMY)}
    await asyncio.to_thread(subprocess.run, command, check=True, stdin=subprocess.DEVNULL, env=environment)
    by = ("-i", str(key), "-o", f"SecurityKeyProvider={DUMMY}")
    stranger = await cast.vendor.run(cast.vendor.ssh("station", "echo in", more=by, key=key.name))
    await cast.keeper("key-add", person="vendor", key=key.with_suffix(".pub").read_text())
    known = await cast.vendor.run(cast.vendor.ssh("station", "echo in", more=by, key=key.name))
    entries = await cast.entries("signed-in", lambda seen: any("security key" in each["factors"] for each in seen))
    signed = [each["factors"] for each in entries if each["person"] == "vendor"]
    return [
        Finding("the vendor comes with a security key, before and after the gate knows it", "not let in; in",
                f"exit {stranger.code}; {known.text}", stranger.code != 0 and known.out == "in\n"),
        Finding("what the log says of the factors", "a security key, and no code", f"{signed[-1:]}",
                bool(signed) and "security key" in signed[-1] and "code" not in signed[-1]),
    ]  # fmt: skip


async def by_proxy_jump(cast: Cast) -> list[Finding]:
    """`ssh -J gate station` works as with any jump host, and both connections end at the gate"""
    lines = (await cast.scene.verb("jump", "known-hosts")).out.splitlines()
    config = await asyncio.to_thread(cast.vendor.jump_config, [one for one in lines if one.startswith("@")])
    done = await cast.vendor.run(["ssh", "-F", str(config), "station", "echo in"])
    opened = [each["person"] for each in await cast.entries("access-opened", lambda seen: seen)]
    return [
        Finding("the vendor goes to the station by ProxyJump, with one line of known hosts", "in, by a session of ours",
                f"{done.text}; the last session is {opened[-1:]}'s", done.out == "in\n" and opened[-1:] == ["vendor"]),
    ]  # fmt: skip


async def taken_over(cast: Cast) -> list[Finding]:
    """A part that faces people and was taken over signs nobody in, whatever it has seen"""
    found = await asyncio.to_thread(selftest_jump.run)
    return [
        Finding(f"it says to a keeper of this gate's code: {fact.partition(':')[0]}", "no sign-in, no session",
                fact.partition(": ")[2], found.outcome == "tested")
        for fact in found.facts
    ] or [Finding("such a part speaks to a keeper of this gate's code", "tested", found.says, False)]  # fmt: skip


async def nothing_recorded(cast: Cast) -> list[Finding]:
    """Where recordings cannot be written, sessions end, and none begins"""
    (folder,) = await asyncio.to_thread(lambda: list(cast.scene.state.rglob("recordings")))
    aside = folder.with_name("aside")
    working, _ = await cast.works(cast.vendor, more=("-tt",))
    folder.rename(aside)
    try:
        ended = await finish(working)
        again = await cast.vendor.run(cast.vendor.ssh("station", "echo never"))
    finally:
        aside.rename(folder)
    later = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    return [
        Finding("the recordings' folder is gone while the vendor works", "the session ends, and says why",
                f"exit {ended.code}: {ended.text[-120:]}", ended.code != 0 and "recorded" in ended.text),
        Finding("the vendor comes anew, before and after it is back", "refused; in", f"{again.text}; {later.text}",
                again.code != 0 and "never" not in again.out and later.out == "in\n"),
    ]  # fmt: skip


async def watched(cast: Cast) -> list[Finding]:
    """Who may approve may look on; who sits there is told"""
    working, number = await cast.works(cast.vendor, more=("-tt",))
    looking = await cast.lead.begin(cast.lead.ssh("lead", f"watch {number}"))
    own = await cast.vendor.run(cast.vendor.ssh("vendor", f"watch {number}"))
    seen = await cast.entries("access-watched", lambda seen: seen)
    said = await cast.lead.run(cast.lead.ssh("lead", f"say {number} leave valve 4 alone"))
    await cast.keeper("kill", number=number, reason="seen enough")
    told, shown = await finish(working), await finish(looking)
    await cast.keeper("unblock", name="vendor station")
    return [
        Finding("a shift lead watches the vendor's terminal, and says something", "both see it; the vendor is told",
                f"{said.text}; the lead: {shown.text[-80:]}; the vendor: {told.text[-120:]}",
                "leave valve 4 alone" in told.text and "leave valve 4 alone" in shown.text and len(seen) > 0),
        Finding("the vendor watches it as well", "refused", own.text, own.code != 0),
    ]  # fmt: skip


async def files_by_right(cast: Cast) -> list[Finding]:
    """Files go where the rule lets them, hashed; elsewhere they do not"""
    inside = cast.files / "report.txt"
    note = cast.scene.directory / "note.txt"
    note.write_text("42 bottles\n")
    up = await cast.tech.run(cast.tech.scp(str(note), f"gate:{inside}"))
    back = await cast.tech.run(cast.tech.scp(f"gate:{inside}", str(cast.scene.directory / "back.txt")))
    same = (cast.scene.directory / "back.txt").exists() and (
        cast.scene.directory / "back.txt"
    ).read_text() == "42 bottles\n"
    out = await cast.tech.run(cast.tech.scp(str(note), f"gate:{cast.scene.directory}/elsewhere.txt"))
    passed = [each["way"] for each in await cast.entries("asset-file-passed", lambda seen: len(seen) >= 3)]
    return [
        Finding("a technician puts a file into the folder of the rule, and fetches it", "both work, both are recorded",
                f"exit {up.code} and {back.code}, recorded: {passed}",
                (up.code, back.code, same) == (0, 0, True) and passed[:3] == ["up", "open", "down"]),
        Finding("the same file elsewhere", "refused", out.text,
                out.code != 0 and not (cast.scene.directory / "elsewhere.txt").exists()),
    ]  # fmt: skip


async def infected(cast: Cast) -> list[Finding]:
    """What the vendor brings is scanned before the station has any of it"""
    good, bad = cast.scene.directory / "manual.txt", cast.scene.directory / "tool.exe"
    good.write_text("turn it off and on again\n")
    bad.write_bytes(EICAR)
    clean = await cast.vendor.run(cast.vendor.scp(str(good), f"gate:{cast.files}/{good.name}"))
    found = await cast.vendor.run(cast.vendor.scp(str(bad), f"gate:{cast.files}/{bad.name}"))
    there = sorted(path.name for path in cast.files.glob("*") if path.name in (good.name, bad.name))
    if not await asyncio.to_thread(scanner.there):
        return [Finding("the vendor brings two files", "neither passes", f"{scanner.HOW}; {clean.text}", not there)]
    entries = await cast.entries("asset-file-refused", lambda seen: any("Lab.Test" in each["reason"] for each in seen))
    refused = [each for each in entries if each["person"] == "vendor"]
    kept = [each["kept"] for each in refused if "Lab.Test.File" in each["reason"]]
    return [
        Finding("the vendor brings a manual, and a tool that scanners find", "the manual alone is there",
                f"exit {clean.code} and {found.code}: {found.text}; at the station: {there}",
                (clean.code, there) == (0, [good.name]) and found.code != 0 and "Lab.Test.File" in found.text),
        Finding("what the log says of the tool", "refused, kept for people to look at", f"{refused[-1:]}", kept != []),
    ]  # fmt: skip


async def no_tunnel(cast: Cast) -> list[Finding]:
    """Forwarded ports and agents are refused and recorded, and so is another asset: -L, -W, -R, -A"""
    vendor, place = cast.vendor, cast.scene.directory / "port"
    plc = f"{cast.scene.layout.addresses.device}:502"
    local = await vendor.begin(vendor.ssh("vendor", more=("-N", "-L", f"{place}:{plc}")))
    heard = await asyncio.to_thread(_asked_at, place)
    with contextlib.suppress(ProcessLookupError):
        local.kill()
    await finish(local)
    away = await vendor.run(vendor.ssh("station", more=("-W", plc)))
    reverse = await vendor.run(
        vendor.ssh("station", "echo on", more=("-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"))
    )
    agent = await vendor.run(["ssh-agent", *vendor.ssh("station", "echo on", more=("-A",))])
    second = await vendor.run(vendor.ssh("vendor%panel", "echo in"))
    told = _tunnels(await cast.entries("tunnel-refused", lambda seen: _all_told(_tunnels(seen))))
    return [
        Finding("the vendor forwards a port to the PLC, by -L and by -W, and one back", "all refused, all recorded",
                f"-L: {heard}; exit {away.code} and {reverse.code}; recorded: {dict(told)}",
                heard == "closed, with nothing said" and away.code != 0 and reverse.code != 0 and _all_told(told)),
        Finding("brings an agent along, and asks for an asset that no rule names", "no agent; not let in",
                f"{agent.text}; exit {second.code}: {second.text}", told["agent"] > 0 and second.code != 0),
    ]  # fmt: skip


def _tunnels(entries: list[dict[str, Any]]) -> Counter[str]:
    """How often what was refused."""
    found: Counter[str] = Counter()
    for each in entries:
        found[str(each["what"])] += int(each["count"])
    return found


def _all_told(told: Counter[str]) -> bool:
    return told["direct-tcpip"] >= 2 and told["tcpip-forward"] > 0 and told["agent"] > 0


def _asked_at(place: Path) -> str:
    """What comes of asking at a port that somebody has forwarded to a socket of theirs."""
    until = time.monotonic() + PATIENCE_SECONDS
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE_SECONDS)
        while True:
            try:
                asking.connect(str(place))
                break
            except OSError as error:  # ssh has not signed in yet
                if time.monotonic() > until:
                    return f"not tried: {error}"
                time.sleep(0.1)
        try:
            asking.sendall(bytes.fromhex("000100000006010300000001"))  # Modbus: read a register
            said = asking.recv(256)
        except ConnectionError:  # it may be closed before we have said anything
            said = b""
        except OSError as error:
            return f"no end: {error}"
    return "closed, with nothing said" if not said else f"{said!r}"


async def killed_and_barred(cast: Cast) -> list[Finding]:
    """An operator ends a session: both legs are gone at once, and the way back is barred"""
    working, number = await cast.works(cast.vendor, more=("-tt",))
    at = time.monotonic()
    killed = await cast.keeper("kill", number=number, reason="wrong machine")
    ended = await finish(working)
    took = time.monotonic() - at
    again = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    await cast.keeper("unblock", name="vendor station")
    later = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    return [
        Finding("an operator kills the vendor's session", "it ends, with the reason",
                f"{killed}; after {took:.1f} s: {ended.text}", ended.code != 0 and "wrong machine" in ended.text),
        Finding("the vendor comes again, before and after the bar is lifted", "refused; in",
                f"{again.text}; {later.text}", "has barred" in again.text and later.out == "in\n"),
    ]  # fmt: skip


async def parts_die(cast: Cast) -> list[Finding]:
    """kill -9 of each part: both legs end, but for the keeper's, and what was known and recorded is there"""
    findings = []
    for part in ("outer", "inner", "keeper", "archivist"):
        working, _ = await cast.works(cast.tech, "sleep 100")
        await in_the_end(  # whom the asset has not let in yet does not go on without a keeper
            lambda: cast.keeper("recordings", part="archivist"), lambda seen: any(one["live"] for one in seen)
        )
        before = await cast.pid(part)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(before, signal.SIGKILL)
        ended = Said(-1, "", "") if part == "keeper" else await finish(working)
        await cast.pid(part, other_than=before)
        until, again = time.monotonic() + PATIENCE_SECONDS, ended
        while again.out != "in\n" and time.monotonic() < until:
            try:
                again = await cast.tech.run(cast.tech.ssh("station", "echo in"))
            except CofferdamError:
                await asyncio.sleep(0.2)  # the keeper is being born again, and gives no codes
        goes_on, how = working.returncode is None, f"exit {ended.code}"
        if goes_on:
            working.kill()
            how = "it goes on"
            await finish(working)
        wanted = "the session goes on" if part == "keeper" else "the session ends"
        good = goes_on if part == "keeper" else ended.code != 0
        findings.append(
            Finding(f"kill -9 of the {part} part while the technician works", f"{wanted}; in, a moment later",
                    f"{how}; {again.text}", good and again.out == "in\n")
        )  # fmt: skip
    return findings


async def recorded_and_verified(cast: Cast) -> list[Finding]:
    """What was shown can be played, and agrees with the audit log"""
    listed = await cast.keeper("recordings", part="archivist")
    vendors = [one["name"] for one in listed if one["title"].startswith("vendor ")]
    played = await cast.scene.verb("jump", "recording", "play", vendors[-1], "--speed", "0")
    verified = await cast.scene.verb("jump", "recording", "verify")
    await asyncio.to_thread(shutil.rmtree, cast.files, ignore_errors=True)
    return [
        Finding("play what the vendor was shown", "in", played.text, played.out.strip() == "in"),
        Finding("cofferdam jump recording verify", "no findings", verified.text, verified.code == 0),
    ]  # fmt: skip


STEPS: tuple[Step, ...] = (
    nothing_but_a_tunnel, four_eyes, approved_by_signature, security_key, by_proxy_jump, watched, files_by_right,
    infected, no_tunnel, killed_and_barred, taken_over, nothing_recorded, parts_die, tunnel_taken_away,
    recorded_and_verified,
)  # fmt: skip
