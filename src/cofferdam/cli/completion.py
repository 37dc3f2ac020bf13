"""`cofferdam completion bash|zsh|tcsh`: prints the completion script."""

from __future__ import annotations

import argparse

import shtab


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    parser.epilog = "bash: cofferdam completion bash > /etc/bash_completion.d/cofferdam"


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.main import build_parser

    print(shtab.complete(build_parser(), shell=args.shell))
    return 0
