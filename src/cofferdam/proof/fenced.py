"""Part (a): parts that stand in the host's network are held to what they are for: exports and the witness. Their table
is read and compared with the policy's, and a process of each one's user tries what it must not reach.

Not here: keeping the table in force (enforce.fence), parts of a side (structure).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cofferdam.enforce import firewall, journal, kernel, users
from cofferdam.enforce.fence import tag
from cofferdam.enforce.inside import inside
from cofferdam.enforce.plans.fence import HOOK, PARTS, counter, expected, table_name
from cofferdam.enforce.plans.records import Hosted
from cofferdam.enforce.plans.rules import EARLY
from cofferdam.errors import GateError
from cofferdam.proof import reading, strangers
from cofferdam.proof.statements import Statements

Json = dict[str, Any]
PART = "structure"
WAIT_SECONDS = 3.0


def state(folder: Path, hosted: tuple[Hosted, ...], launcher: int, out: Statements) -> None:
    """Each of them. `folder`: the gate's state directory."""
    name = table_name(tag(folder))
    known = users.read(journal.folder(folder))
    if not hosted:
        return
    try:
        table = firewall.table(firewall.find_nft(), name)
    except GateError as error:
        out.say(PART, "way out", "failed", f"what holds parts in the host's network cannot be read: {error}")
        return
    for one in hosted:
        user = known.get(one.who)
        if user is None:
            out.say(PART, f"{one.who}: way out", "failed", f"the launcher has no user for {one.who}: it is not held")
            continue
        wrong = [*_rules(name, table, one, user, known), *_process(launcher, user)]
        where = [f"{goal.address} port {goal.port} ({'UDP' if goal.datagrams else 'TCP'})" for goal in one.goals]
        tried, evidence = _tried(user) if not wrong else ([], [])
        says = f"reaches {' and '.join(where) or 'nothing'} in the host's network, and nothing else"
        out.check(PART, f"{one.who}: way out", says, [*wrong, *tried], [f"uid {user}, table inet {name}", *evidence],
                  status="tested" if evidence else "observed")  # fmt: skip


def _rules(name: str, table: list[Json], one: Hosted, user: int, known: Mapping[str, int]) -> list[str]:
    """What is wrong with the rules, as far as this part is concerned."""
    if not table:
        return [f"there is no table inet {name}: it reaches all that this host reaches"]
    head: Json = next((row["table"] for row in table if "table" in row), {})
    hook: Json = next((row["chain"] for row in table if row.get("chain", {}).get("name") == HOOK), {})
    # nft 1.0.6 names a flag by whatever it finds; dormant is the one that matters, and ours has none.
    wrong = [f"the table has flags ({head['flags']}), as one has that is asleep"] if head.get("flags") else []
    if (hook.get("hook"), hook.get("type"), hook.get("prio")) != ("output", "filter", EARLY):
        wrong.append(f"the chain {HOOK} is not at the hook where packets leave")
    rules = {chain: [row["rule"]["expr"] for row in table if row.get("rule", {}).get("chain") == chain]
             for chain in (HOOK, PARTS)}  # fmt: skip
    wanted = expected((one,), {one.who: user})
    jump = wanted[HOOK][0]
    if jump not in rules[HOOK]:
        wrong.append(f"packets of user {user} are not asked about")
    everybody = set(known.values())
    wrong += [f"a rule that we have not made, before them: {rule}" for rule in rules[HOOK]
              if not (_is_of(rule, everybody) and rule[1:] == jump[1:])]  # fmt: skip
    mine = [rule for rule in wanted[PARTS] if {"accept": None} in rule]
    count = [jump[0], {"counter": counter(one.who)}]
    others = {user for who, user in known.items() if who != one.who}
    for rule in rules[PARTS][:-2]:
        if rule not in (*mine, count) and not _is_of(rule, others):
            wrong.append(f"a rule that the policy does not have: {rule}")
    wrong += [f"a rule that the policy has is missing: {rule}" for rule in mine if rule not in rules[PARTS]]
    if rules[PARTS][-2:] != wanted[PARTS][-2:]:
        wrong.append("what no rule lets through is not refused")
    if count not in rules[PARTS]:
        wrong.append("what is refused to it is not counted")
    return wrong


def _is_of(rule: list[Json], others: set[int]) -> bool:
    first = rule[0].get("match", {})
    return first.get("left") == {"meta": {"key": "skuid"}} and first.get("op") == "==" and first.get("right") in others


def _process(launcher: int, user: int) -> list[str]:
    """What is wrong with processes of that user."""
    wrong: list[str] = []
    home = Path("/proc/self/ns/net").stat().st_ino
    for pid in sorted(strangers.children(launcher)):
        facts = reading.process(pid)
        if facts is None or facts["status"]["Uid"].split() != [str(user)] * 4:
            continue
        said = facts["status"]
        wrong += [] if facts["net"] == home else [f"pid {pid} stands in another network namespace"]
        wrong += [f"pid {pid}: {field} is {said[field]}" for field in ("CapEff", "CapPrm", "CapBnd", "CapAmb")
                  if int(said.get(field, "1"), 16)]  # fmt: skip
        wrong += [] if said.get("NoNewPrivs") == "1" else [f"pid {pid} may gain privileges"]
    return wrong


def _tried(user: int) -> tuple[list[str], list[str]]:
    """What that user reached of a service on loopback, which it must not, and what was tried. Nothing where the host's
    own rules let nobody reach it: then that it failed says nothing."""
    wrong, tried = [], []
    for kind, word in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        for address in ("127.0.0.1", "::1"):
            with contextlib.suppress(OSError, GateError), _service(address, kind) as service:
                port = service.getsockname()[1]
                if inside(None, _reach, 0, address, port, int(kind)) or not _came(service):
                    continue
                said = inside(None, _reach, user, address, port, int(kind))
                if _came(service):
                    wrong.append(f"it reached a service of this host on {address} port {port} by {word}")
                tried.append(f"{word} to {address}: refused ({said or 'in silence'}); root's got there")
    return wrong, tried


@contextlib.contextmanager
def _service(address: str, kind: socket.SocketKind) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as made:
        made.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.settimeout(0.2)
        yield made


def _came(service: socket.socket) -> bool:
    try:
        if service.type == socket.SOCK_DGRAM:
            return bool(service.recv(16))
        service.accept()[0].close()
    except TimeoutError:
        return False
    return True


def _reach(user: int, address: str, port: int, kind: int) -> str:
    """In a child: as that user, what the kernel says of an attempt; "" for nothing."""
    if user:
        kernel.become(user)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        sock.settimeout(WAIT_SECONDS)
        try:
            sock.connect((address, port))
            sock.send(b"cofferdam")
        except TimeoutError:
            return "nothing answered"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, os.strerror(error.errno or 0))
    return ""
