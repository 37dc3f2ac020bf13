"""`cofferdam completion bash|zsh|fish|tcsh`: prints the completion script."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from cofferdam.cli.gate_options import add_json, print_text


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish", "tcsh"], help="the shell that the script is for")
    add_json(parser, "Text")
    parser.epilog = (
        "bash: cofferdam completion bash > /etc/bash_completion.d/cofferdam. "
        "fish: cofferdam completion fish > ~/.config/fish/completions/cofferdam.fish"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.main import build_parser

    parser = build_parser()
    _complete_paths(parser)
    print_text(args, args.shell, shtab.complete(parser, shell=args.shell) + "\n")
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Arguments of type Path complete files, those called DIR folders: once a command has a script, the shell itself
    completes no names of files any more."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _complete_paths(verb)
        elif action.type is Path:
            kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = kind  # type: ignore[attr-defined]
