"""`cofferdam export test|status|secret`: the audit log's entries on their way to the collectors of the policy.

Not here: forms and ways (evidence.export), the processes that send (gate.watch.exports).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cofferdam.errors import CofferdamError, GateError

if TYPE_CHECKING:
    from cofferdam.policy.rows import Collector

MOST_SECRET: Final = 256 << 10


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-verbs."""
    from cofferdam.cli.gate_options import add_json, add_state

    verbs = parser.add_subparsers(dest="export_verb", metavar="WHAT", required=True)
    for name, prints, words in (
        ("test", "dict[str, Delivered]", "send the newest entry to each collector once; no cursor moves"),
        ("status", "list[Exporting]", "how far each collector is"),
        ("secret", "Kept", "keep what of a collector stands in no policy: our certificate and its key, a token"),
    ):
        verb = verbs.add_parser(name, help=words)
        if name == "secret":
            verb.add_argument("collector", metavar="NAME", help="the collector's name in the policy")
            verb.add_argument("--certificate", type=Path, metavar="FILE", help="ours, with what has signed it (PEM)")
            verb.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM, without a password)")
            verb.add_argument("--token", type=Path, metavar="FILE", help="what the header of HTTPS carries")
            verb.epilog = "The running gate takes it at the next `cofferdam reload`."
        verb.add_argument("--policy", type=Path, metavar="FILE", help="where no gate runs: its policy")
        add_state(verb)
        add_json(verb, prints)
    parser.epilog = "Who gets the entries stands in the policy (audit: collectors:); docs/siem.md."


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says."""
    return {"test": _test, "status": _status, "secret": _secret}[args.export_verb](args)


def _collectors(args: argparse.Namespace, state: Path) -> tuple[Collector, ...]:
    """Those of the policy in force. Raises: CofferdamError."""
    import time

    from cofferdam.errors import GateError
    from cofferdam.gate.client import ask
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load
    from cofferdam.proof.run import policy_path

    path = args.policy
    if path is None:
        try:
            path = policy_path(state, ask(state, "status"))
        except GateError as error:
            raise CofferdamError(
                f"nobody says which collectors there are: {error}", hint="--policy FILE names them without a gate"
            ) from None
    found = compile_policy(load(path), now_ns=time.time_ns()).audit.collectors
    if not found:
        raise CofferdamError(f"{path} names no collector", hint="`collectors:` in the policy's `audit:`")
    return found


def _test(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.lines import escaped
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import sites
    from cofferdam.evidence.export.forms import item
    from cofferdam.evidence.export.ways import Secrets, WayError, way
    from cofferdam.evidence.gather import log_key
    from cofferdam.gate.secrets import load_secrets
    from cofferdam.gate.watch.exports import SECRETS

    state = state_of(args)
    collectors = _collectors(args, state)
    reader = LogReader(state / "audit", log_key(state))
    newest = list(reader.entries(max(0, reader.size() - 1)))
    if not newest:
        raise CofferdamError("the log is empty", hint="start the gate once")
    one = item(*newest[-1])
    found = {}
    for to in collectors:
        if to.folder:  # a file of ours there could not be written by the export's user
            place = state / sites.FOLDER / to.folder
            found[to.name] = "" if place.is_dir() else f"{place} is not there; with `up --folders`, look there"
            continue
        try:
            secrets = {one.name: one.value for one in load_secrets(state, "export", to.name, SECRETS)}
            taken = way(to, Secrets(**secrets))
            try:
                taken.send([one])
            finally:
                taken.close()
            found[to.name] = ""
        except (WayError, GateError) as error:
            found[to.name] = str(error)
    if args.json:
        print(json.dumps({name: {"ok": not why, "detail": why} for name, why in found.items()}))
    else:
        for to in collectors:
            good = "its folder is there" if to.folder else f"took entry {one.index}"
            print(escaped(f"{to.name}: {found[to.name] or good}"))
    return 1 if any(found.values()) else 0


def _status(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import LogReader
    from cofferdam.cli.console import table, terminal
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import stores
    from cofferdam.enforce.crews import EXPORTER, export_crew
    from cofferdam.enforce.plans.fence import SPACE
    from cofferdam.errors import GateError
    from cofferdam.evidence.export.sending import Cursor
    from cofferdam.evidence.gather import log_key
    from cofferdam.gate.client import ask

    state = state_of(args)
    key = log_key(state)
    collectors = _collectors(args, state)
    size = LogReader(state / "audit", key).size()
    refused: dict[str, int] = {}
    try:
        status = ask(state, "status")
        alarms, runs = {one["name"]: one["detail"] for one in status["alarms"]}, True
        refused = next((one["packets"] for one in status["dropped"] if one["side"] == SPACE), refused)
    except GateError:
        alarms, runs = {}, False
    rows = []
    for to in collectors:
        at = Cursor(stores.of(state, export_crew(to.name), EXPORTER), to.name, key.text).next
        how = alarms.get(f"export-{to.name}", "works" if runs else "no gate runs")
        rows.append(
            {"collector": to.name, "to": to.where, "form": to.form, "next": at, "behind": size - at, "state": how,
             "refused": refused.get(f"{export_crew(to.name)}/{EXPORTER}", 0)}
        )  # fmt: skip
    if args.json:
        print(json.dumps(rows))
    else:
        shown = table("collector", "to", "form", "next entry", "behind", "state")
        for row in rows:
            shown.add_row(*(str(value) for name, value in row.items() if name != "refused"))
        terminal().print(shown)
        for row in rows:
            if row["refused"] and row["state"] != "works":
                terminal().print(
                    f"{row['collector']}: {row['refused']} packets of this export were to something that is not its "
                    "collector, and were refused. Does this host reach the collector by a tunnel of its own (VXLAN, "
                    "WireGuard, IPsec, ...)? Such a one cannot be used: let the tunnel end at another machine "
                    "(docs/siem.md)."
                )
    return 1 if alarms.keys() & {f"export-{to.name}" for to in collectors} else 0


def _wanted(args: argparse.Namespace, to: Collector) -> None:
    """Whether this collector has a use for what is given. Raises: CofferdamError."""
    if args.certificate is not None and to.way not in ("tls", "https"):
        what = f"{to.name} is {to.where}, which looks at no certificate"
        raise CofferdamError(what, hint="one goes to a collector of tls:// or https://")
    if args.token is not None and not to.header:
        what = f"{to.name} has no header that would carry a token"
        how = "`header: Authorization` in the policy" if to.way == "https" else "one goes to a collector of https://"
        raise CofferdamError(what, hint=how)


def _secret(args: argparse.Namespace) -> int:
    import ssl

    from cofferdam.brokers.kit.tls import show
    from cofferdam.cli.gate_options import state_of
    from cofferdam.errors import GateError
    from cofferdam.gate.secrets import save_secret, secret_file
    from cofferdam.policy.problems import nearest, one_of

    state = state_of(args)
    if (args.certificate is None) != (args.key is None):
        raise CofferdamError("a certificate or a key alone", hint="give both: --certificate FILE --key FILE")
    if args.certificate is None and args.token is None:
        raise CofferdamError("nothing to keep", hint="--token FILE, or --certificate FILE --key FILE")
    known = {one.name: one for one in _collectors(args, state)}
    if args.collector not in known:
        near = nearest(args.collector, known)
        raise CofferdamError(
            f"the policy has no collector {args.collector!r}",
            hint=f"did you mean {near}?" if near else f"there is {one_of(known)}",
        )
    _wanted(args, known[args.collector])
    found: dict[str, bytes] = {}
    for kind in ("certificate", "key", "token"):
        path = getattr(args, kind)
        if path is not None:
            try:
                with path.open("rb") as file:
                    found[kind] = file.read(MOST_SECRET + 1)
            except OSError as error:
                raise CofferdamError(f"{path} cannot be read: {error.strerror}") from None
            if len(found[kind]) > MOST_SECRET:
                raise CofferdamError(f"{path} has more than {MOST_SECRET >> 10} KiB")
    if "key" in found:
        try:
            show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), found["certificate"], found["key"])
        except GateError as wrong:
            raise CofferdamError(str(wrong)) from None
    if "token" in found and not found["token"].strip():
        raise CofferdamError(f"{args.token} is empty")
    owner = state.stat().st_gid if state.is_dir() else 0  # the gate's group is its user's own
    for kind, data in found.items():
        save_secret(secret_file(state, "export", args.collector, kind), data, owner)
    if args.json:
        print(json.dumps({"kept": sorted(found)}))
    else:
        print(f"kept for {args.collector}: {', '.join(found)}; `cofferdam reload` has the gate take it")
    return 0
