"""What all verbs of `cofferdam pki` need: the sides of a policy, their files in the state directory, how one that runs
is asked. Not here: the verbs (pki, pki_people), what a file means (protocols.opcua.trust)."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.policy.table import CompiledPolicy
    from cofferdam.protocols.opcua.trust import Secret

BROKER, KIND = "opcua", "opcua"
MIRROR, COLLECTOR = "mirror", "collector"
"""The mirror's collector speaks with assets as well, on its own connection and by its own key."""
START_SECONDS = 5.0
"""How long a side that does not answer is asked again."""


# --- what `cofferdam pki ... --json` prints ---------------------------------------------------------------------------


class Facts(TypedDict):
    """A certificate. `days`: how many it is good yet."""

    thumbprint: str
    subject: str
    application: str
    until: str
    days: int


class Taken(Facts):
    """`in_use`: the side that runs has it."""

    in_use: bool


class Mark(TypedDict):
    thumbprint: str
    in_use: bool


class ListFacts(TypedDict):
    """A revocation list. `revoked`: how many certificates."""

    issuer: str
    revoked: int
    until: str | None
    days: int | None


class ListTaken(ListFacts):
    in_use: bool


class Shown(TypedDict):
    """A side: what it has and trusts, has refused of late, and who may log in."""

    side: str
    words: str
    own: Facts | None
    trusted: list[Facts]
    issuers: list[Facts]
    identities: dict[str, Facts]
    revoked: list[str]
    lists: list[ListFacts]
    refused: list[Facts]
    users: list[str]
    passwords: list[str]


class User(TypedDict):
    user: str
    in_use: bool


class LogsIn(TypedDict):
    asset: str
    in_use: bool


class Identity(Taken):
    asset: str


# --- sides ------------------------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One side: its part of a crew, and where its listeners are."""

    crew: str
    part: str
    addresses: tuple[str, ...]
    broker: str = BROKER

    @property
    def name(self) -> str:
        return f"{self.crew}/{self.part}"

    @property
    def words(self) -> str:
        if self.broker == MIRROR:
            return "towards assets, whose history is mirrored"
        return "towards clients" if self.part == "outer" else "towards assets"


def policy_of(args: argparse.Namespace) -> CompiledPolicy:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    path = args.policy or Path(ask(state_of(args), "status", fresh=False)["policy"]["path"])
    return compile_policy(load(path), now_ns=time.time_ns())


def sides_of(args: argparse.Namespace, policy: CompiledPolicy) -> list[Side]:
    from cofferdam.gate.crew.plan import plan_crews

    found: dict[tuple[str, str], Side] = {}
    for plan in plan_crews(policy).values():
        if plan.broker == MIRROR and args.side in (None, MIRROR) and watched(policy, plan.conduits):
            found[plan.base, COLLECTOR] = Side(plan.base, COLLECTOR, (), MIRROR)
        if plan.broker != BROKER:
            continue
        places = {place[0] for asset in policy.assets.values() if asset.protocol == BROKER for place in asset.places}
        for part in ("outer", "inner"):
            if args.side in (None, part):
                found[plan.base, part] = Side(plan.base, part, tuple(sorted(places)) if part == "outer" else ())
    if not found:
        of = f" that has such a side ({args.side})" if args.side else ""
        raise GateError(f"the policy has no conduit with `broker: opcua`, nor a mirror of an OPC UA asset{of}")
    return list(found.values())


def watched(policy: CompiledPolicy, conduits: Iterable[str]) -> frozenset[str]:
    """The OPC UA assets whose history some conduits mirror."""
    from cofferdam.policy.terms.mirror_rows import Device, MirrorRows

    rows = [row for name in conduits if isinstance(row := policy.conduits[name].terms, MirrorRows)]
    assets = {source.asset for row in rows for source in row.sources if isinstance(source, Device)}
    return frozenset(name for name in assets if policy.assets[name].protocol == BROKER)


def logs_in(side: Side, policy: CompiledPolicy, asset: str) -> bool:
    """Whether a side logs in at an asset."""
    return side.part == "inner" or (side.broker == MIRROR and asset in watched(policy, policy.conduits))


def read(args: argparse.Namespace, side: Side) -> Secret:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.secrets import read_secret, secret_file
    from cofferdam.protocols.opcua.trust import read

    path = secret_file(state_of(args), side.crew, side.part, KIND)
    try:
        return read(read_secret(path))
    except FileNotFoundError:
        return read(b"")
    except OSError as error:
        raise GateError(f"{path} cannot be read: {error.strerror or error}") from None


def save(args: argparse.Namespace, side: Side, secret: Secret) -> bool:
    """Writes a side's file. Returns whether a side that runs has it already."""
    import msgspec

    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.secrets import save_secret, secret_file

    state = state_of(args)
    data = msgspec.json.encode(secret)
    owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
    save_secret(secret_file(state, side.crew, side.part, KIND), data, owner)
    answer = ask(args, side, "secrets", {"secret": msgspec.json.decode(data)})
    return answer is not None


def ask(args: argparse.Namespace, side: Side, verb: str, arguments: Any) -> list[Any] | None:
    """What a running side says, each of its pairs; None where no gate runs."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.gate.state import control_socket

    state = state_of(args)
    if not control_socket(state).exists():
        return None
    from cofferdam.protocols.opcua.dialect import PKI

    deadline = time.monotonic() + START_SECONDS
    verb = f"{PKI}{verb}" if side.broker == MIRROR else verb
    while True:
        try:
            said = ask(state, "ask-part", broker=side.broker, part=side.part, verb=verb, arguments=arguments)
            answers = [each for each in said if each["crew"] == side.crew or each["crew"].startswith(f"{side.crew}:")]
            wrong = next((each["error"] for each in answers if "error" in each), "" if answers else "it is not up")
            if not wrong:
                return [each["result"] for each in answers]
        except GateError as error:
            wrong = str(error)
        if time.monotonic() >= deadline:
            raise GateError(f"{side.name} does not have it: {wrong}", hint="it has it once it starts anew")
        time.sleep(0.2)  # it may just be starting


def locked(args: argparse.Namespace) -> Any:
    from cofferdam.brokers.kit.http.vault import locked
    from cofferdam.cli.gate_options import state_of

    state = state_of(args)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return locked(state)


def tell(args: argparse.Namespace, text: str, found: Mapping[str, Any]) -> int:
    print(json.dumps(found) if args.json else text)
    return 0


@contextlib.contextmanager
def sensible(path: Path, side: Side | None = None) -> Iterator[None]:
    """What a file brings makes sense (protocols.opcua.pki), or the verb says why not."""
    try:
        yield
    except ValueError as error:
        of = f" for {side.name}" if side is not None else ""
        raise GateError(f"{path}{of} is {error}") from None


def of_file(path: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = path.read_bytes()
    try:
        pem = data.lstrip().startswith(b"-----")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise GateError(f"{path} is no certificate", hint="one in PEM or DER is wanted") from error
    return certificate.public_bytes(Encoding.DER)


def chain_of_file(path: Path) -> list[bytes]:
    """The certificates of a file: the first, and the authorities above it, where they follow (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from cofferdam.protocols.opcua.issuers import CHAIN, has_issued

    data = path.read_bytes()
    if not data.lstrip().startswith(b"-----"):
        return [of_file(path)]
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise GateError(f"{path} is no certificate", hint="one in PEM or DER is wanted") from error
    if len(found) > CHAIN:
        raise GateError(f"{path} has {len(found)} certificates", hint=f"a chain has {CHAIN} at most")
    for below, above in itertools.pairwise(found):
        if not has_issued(above, below):
            raise GateError(
                f"the certificates of {path} are no chain", hint="each is issued by the one that follows it"
            )
    return [one.public_bytes(Encoding.DER) for one in found]


def facts_of(der: bytes) -> Facts:
    from cryptography import x509

    from cofferdam.protocols.opcua.trust import application_uri, mark

    certificate = x509.load_der_x509_certificate(der)
    until = certificate.not_valid_after_utc
    return {
        "thumbprint": mark(der),
        "subject": certificate.subject.rfc4514_string(),
        "application": application_uri(certificate),
        "until": until.isoformat(),
        "days": (until - datetime.now(UTC)).days,
    }
