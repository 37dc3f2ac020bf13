"""The command `cofferdam`: finds the verb's module, hands it the arguments, turns errors into exit codes.

A verb is a module of this folder, listed in VERBS, with `add(parser)`, which declares its arguments, and
`run(args) -> int`, which does the work and returns the exit code: 0 done, 1 the answer is no, 2 bad input.
Modules are imported only when their verb is used, so that `cofferdam check` does not wait for the lab.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, ClassVar, NoReturn

import cofferdam
from cofferdam.errors import CofferdamError, PolicyError

# What `cofferdam --help` shows, in its order: verb -> (module, one line of help).
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Write a policy, and try it": {
        "check": ("check", "check a policy: errors, warnings"),
        "explain": ("explain", "why an operation is allowed or refused"),
        "fmt": ("fmt", "put a policy's text into its normal form"),
        "diff": ("diff", "who gains and who loses what by another policy"),
        "show": ("show", "the policy as it is in force, with every default"),
        "diagram": ("diagram", "draw a policy's zones and conduits: SVG, Mermaid"),
        "schema": ("schema", "print the JSON Schema of the policy file"),
        "learn": ("learn", "the smallest policy that allows what a capture shows"),
        "simulate": ("simulate", "what a policy would do to captured traffic"),
        "lab": ("lab", "a simulated plant to try everything on"),
    },
    "Run a gate": {
        "up": ("up", "run the gate by a policy"),
        "install": ("install", "write the systemd units of the gate"),
        "reload": ("reload", "have the running gate take a new policy"),
        "down": ("down", "stop the running gate"),
        "advise": ("advise", "suggestions for the switches around the gate"),
        "metrics": ("metrics", "each metric that Prometheus can read from the gate, with its meaning"),
    },
    "Look": {
        "status": ("status", "what runs, who is on it, what was refused, what latency we add"),
        "ping": ("ping", "does an asset answer, and which half or the device takes how long"),
        "whois": ("whois", "who an address is to the gate, what it may, and what it has open"),
        "describe": ("describe", "an asset: where it is, how it does, who may do what with it"),
    },
    "Change what may pass, at once": {
        "sever": ("sever", "end sessions and refuse new ones: of a side, zone, conduit, principal or asset"),
        "restore": ("restore", "let what was severed work again"),
        "grant": ("grant", "open a conduit for a time: one person asks, another agrees"),
    },
    "Show that it holds": {
        "prove": ("prove", "show on the running gate that nothing crosses, or what does"),
        "audit": ("audit", "show, follow, verify, prove and export the audit log"),
        "evidence": ("evidence", "what the gate can show an auditor: checks, controls, reports, attestations"),
        "export": ("export", "send the audit log's entries to a collector: syslog, HTTPS, a file"),
    },
    "Services, and their keys": {
        "overlay": ("overlay", "addresses, names, routes and WireGuard peers of the overlay"),
        "pki": ("pki", "keys, certificates and users of OPC UA"),
        "tls": ("tls", "certificates of Modbus/TCP Security, towards clients and towards assets"),
        "relay": ("relay", "messages, quarantine, consumers, keys and certificates of the relay"),
        "mirror": ("mirror", "the historian mirror: what it has, whether anything is missing, keys"),
        "jump": ("jump", "people, approvals, sessions and recordings of the jump server"),
        "patch": ("patch", "files for assets: proof, scan, approval, plan and result of the patch relay"),
        "diode": ("diode", "ends of a strand: pair, status, tickets, re-sends, tests"),
    },
    "Of the command itself": {
        "completion": ("completion", "print a shell's completion script"),
        "docs": ("docs", "write the reference pages that are generated from the code"),
    },
}
VERBS = {verb: row for group in GROUPS.values() for verb, row in group.items()}
EXAMPLES = """\
examples:
  cofferdam check policy.yaml
  cofferdam explain policy.yaml --who erp --asset plc-7 --operation "read level"
  cofferdam status
  cofferdam VERB --help     what a verb takes, and what its exit codes mean
"""


class Parser(argparse.ArgumentParser):
    """One whose errors are objects as well, with --json; a group without a word says which words it has."""

    json_wanted: ClassVar[bool] = False

    def error(self, message: str) -> NoReturn:
        if type(self).json_wanted:
            print(json.dumps({"error": message, "hint": self.format_usage().strip(), "problems": []}))
        if any(message.endswith(f"required: {word}") for word in ("WHAT", "WHICH")):
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: say which\n")
        super().error(message)


class Overview(Parser):
    """That of all verbs: they are shown by what somebody wants to do."""

    def format_help(self) -> str:
        width = shutil.get_terminal_size().columns - 2
        lines = [f"{self.format_usage()}", textwrap.fill(self.description or "", width)]
        for title, verbs in GROUPS.items():
            lines.append(f"\n{title}:")
            for verb, (_, summary) in verbs.items():
                lines.append(
                    textwrap.fill(summary, max(width, 40), initial_indent=f"  {verb:<11} ", subsequent_indent=" " * 14)
                )
        return "\n".join([*lines, "", EXAMPLES])


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all verbs, each with its arguments; with `only`, just that verb has them ("": none)."""
    parser = Overview(
        prog="cofferdam",
        description="An industrial DMZ: brokers every exchange between IT and OT, so that no session crosses.",
    )
    parser.add_argument("--version", action="version", version=f"cofferdam {cofferdam.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb, (module_name, summary) in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=_sentence(summary))
        if only is None or only == verb:
            _fill(sub, module_name)
    return parser


def _verb_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of what stands behind this verb, without those of thirty others: it is built at each call."""
    module_name, summary = VERBS[verb]
    parser = Parser(prog=f"cofferdam {verb}", description=_sentence(summary))
    _fill(parser, module_name)
    parser.set_defaults(verb=verb)
    return parser


def _fill(parser: argparse.ArgumentParser, module_name: str) -> None:
    module = importlib.import_module(f"cofferdam.cli.{module_name}")
    module.add(parser)
    parser.set_defaults(run=module.run)


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def os_error(error: OSError) -> str:
    """What the system said, and of which file."""
    said = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {said}" if error.filename is not None else said


def _printable(text: str) -> str:
    """An error's words, which may quote a stranger's, without what drives a terminal."""
    from cofferdam.audit.lines import escaped

    return "\n".join(map(escaped, text.split("\n")))


AS_WHOM = "run it as a user who may, such as root or the one who started the gate"


def _forbidden(error: Exception) -> bool:
    return isinstance(error, PermissionError)


def _as_json(args: argparse.Namespace, error: CofferdamError | OSError) -> None:
    """With --json an error is an object as well, on standard output: `error`, `hint`, `problems` of a policy. A verb
    whose answer says what went wrong has printed that one already (`answered`)."""
    if getattr(args, "json", False) is True and not getattr(args, "answered", False):
        problems = [str(problem) for problem in error.problems] if isinstance(error, PolicyError) else []
        hint = error.hint if isinstance(error, CofferdamError) else AS_WHOM if _forbidden(error) else ""
        said = os_error(error) if isinstance(error, OSError) else str(error)
        with contextlib.suppress(OSError):  # the disk under our output may be what is full
            print(json.dumps({"error": said, "hint": hint, "problems": problems}))


def _written() -> None:
    """What was printed is out. Raises: OSError, once: nobody tries to write the rest at the end of the program."""
    out: IO[str] | None = sys.stdout  # None where it was closed from the beginning
    try:
        if out is not None:
            out.flush()
    except OSError:
        if out is sys.__stdout__:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise


_ALSO = {
    "lint": "check", "validate": "check", "start": "up", "run": "up", "stop": "down", "log": "audit show",
    "logs": "audit show", "access": "jump", "recording": "jump recording",
}  # fmt: skip
"""What other programs call a verb of ours."""


def _nearest(verb: str) -> str:
    """The verb that was meant; "" where none is like it."""
    return _ALSO.get(verb) or next(iter(difflib.get_close_matches(verb, VERBS, 1)), "")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code; prints errors as one sentence and the way out."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    Parser.json_wanted = "--json" in arguments
    if arguments and arguments[0] in VERBS:
        args = _verb_parser(arguments[0]).parse_args(arguments[1:])
    else:
        verb = next((word for word in arguments if not word.startswith("-")), None)
        parser = build_parser(verb if verb in VERBS else "")
        if verb is not None and verb not in VERBS and (near := _nearest(verb)):
            parser.error(f"there is no verb {verb}; did you mean {near}? (cofferdam --help lists them)")
        args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
        _written()
    except PolicyError as error:
        _as_json(args, error)
        print(_printable(str(error)), file=sys.stderr)
        from cofferdam.cli.findings import print_problems

        print_problems(error.problems)
        if error.hint and not error.problems:
            print(f"  {_printable(error.hint)}", file=sys.stderr)
        code = 2
    except CofferdamError as error:
        _as_json(args, error)
        print(f"cofferdam {args.verb}: {_printable(str(error))}", file=sys.stderr)
        if error.hint:
            print(f"  {_printable(error.hint)}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (| head): no traceback for that
        code = 0
    except KeyboardInterrupt:
        code = 130
    except OSError as error:  # what a verb did not expect of a file: still a sentence, and no traceback
        _as_json(args, error)
        print(f"cofferdam {args.verb}: {os_error(error)}", file=sys.stderr)
        if _forbidden(error):
            print(f"  {AS_WHOM}", file=sys.stderr)
        code = 2
        with contextlib.suppress(OSError):
            _written()
    return code


def program() -> int:
    """`main` in a process of its own. What a verb loads stays: the collector looks rarely, a sixth of a verb's time."""
    gc.set_threshold(50_000, 20, 20)
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # what somebody else has installed does not read policies along
    try:
        return main()
    except KeyboardInterrupt:  # while the verb's modules are loaded, which is most of a short verb's time
        return 130


if __name__ == "__main__":
    sys.exit(program())
