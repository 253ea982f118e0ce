"""The command line: ``attnlib lab`` opens the course; ``attnlib`` alone lists the commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. A wrong argument exits with status 2, as argparse does."""
    parser = argparse.ArgumentParser(prog="attnlib", description="The commands of the attention course.")
    parser.set_defaults(run=lambda options: parser.print_help() or 0)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_lab(commands)
    options = parser.parse_args(arguments)
    return options.run(options)


def add_lab(commands: argparse._SubParsersAction) -> None:
    lab = commands.add_parser(
        "lab",
        help="open the course in JupyterLab, at your own copy of the notebooks",
        description="Copy the notebooks that work/ does not hold yet, never over a copy of yours, and open "
        "JupyterLab there.",
    )
    lab.add_argument("--no-open", action="store_true", help="copy the notebooks, do not open JupyterLab")
    lab.add_argument("jupyter_arguments", nargs="*", metavar="-- ...", help="passed on to JupyterLab")
    lab.set_defaults(run=run_lab)


def run_lab(options: argparse.Namespace) -> int:
    from attnlib.lab.workspace import open_course

    root = Path(__file__).resolve().parents[1]
    try:
        return open_course(root, options.jupyter_arguments, open_lab=not options.no_open)
    except FileNotFoundError as error:
        print(f"attnlib lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
