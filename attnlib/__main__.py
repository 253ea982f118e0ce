"""The command line: ``attnlib lab`` opens the course, ``attnlib cost`` counts a network.

``attnlib`` alone lists the commands.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. A wrong argument exits with status 2, as argparse does."""
    parser = argparse.ArgumentParser(prog="attnlib", description="The commands of the attention course.")
    parser.set_defaults(run=lambda options: parser.print_help() or 0)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_lab(commands)
    add_cost(commands)
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


def add_cost(commands: argparse._SubParsersAction) -> None:
    cost = commands.add_parser(
        "cost",
        help="count the parameters and multiply-accumulates of a network",
        description="Count a network with an attention mechanism in it, without storing a weight. "
        "Multiply-accumulates are those of convolutions and matrix products for one image.",
    )
    cost.add_argument("network", help="such as resnet50, mobilenetv2 or hrnet-w18")
    cost.add_argument("--attention", default="none", help="a mechanism, such as cbam, or none")
    cost.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the mechanism, such as bias=false; kernel_size=3,5,5,7 holds a value for each stage",
    )
    cost.add_argument("--image", type=int, default=224, help="height and width in pixels (default: 224)")
    cost.add_argument("--classes", type=int, default=1000, help="of the last layer (default: 1000)")
    cost.add_argument("--against", choices=["paper"], help="show what was published, and why it differs")
    cost.add_argument("--json", action="store_true", help="print an object with parameters and macs")
    cost.set_defaults(run=run_cost)


def run_cost(options: argparse.Namespace) -> int:
    from attnlib.lab.networks import network_cost

    attention = None if options.attention == "none" else options.attention
    try:
        cost = network_cost(
            options.network,
            attention=attention,
            options=dict(read_option(text) for text in options.option),
            image=options.image,
            classes=options.classes,
        )
    except ValueError as error:
        print(f"attnlib cost: {error}", file=sys.stderr)
        return 2
    rows = against_paper(options.network, attention, options.image, cost) if options.against else []
    if options.json:
        formula = None if cost.formula is None else vars(cost.formula)
        found = {"parameters": cost.parameters, "macs": cost.macs, "attention_by_formula": formula}
        print(json.dumps(found | {"published": rows}))
        return 0
    print(f"{options.network}, attention {options.attention}, one image of {options.image} x {options.image}")
    print(cost.table().to_string(formatters=dict.fromkeys(("parameters", "macs"), "{:,}".format)))
    if cost.formula is not None:
        print(by_formula(cost))
    for row in rows:
        print(row["sentence"])
    if options.against and not rows:
        print("no published size of this network is on record here")
    return 0


def by_formula(cost: object) -> str:
    """A sentence that holds the count of the attention modules against their closed form."""
    sizes = cost.formula.parameters, cost.formula.macs
    count = tuple(cost.parts.loc["attention"]) if "attention" in cost.parts.index else (0, 0)
    verdict = "the same as counted" if sizes == count else f"counted were {count[0]:,} and {count[1]:,}"
    return (
        f"attention by its formula: {sizes[0]:,} parameters and {sizes[1]:,} multiply-accumulates, {verdict}"
    )


def against_paper(network: str, attention: str | None, image: int, cost: object) -> list[dict[str, str]]:
    """What was published of a network, our count in the same unit, and a sentence on the difference."""
    from attnlib.lab.published import published

    rows = []
    for row in published(network, attention, cifar=image <= 64):
        counted = row.counted(cost)
        verdict = "the same" if counted == row.printed else row.reason or "theirs had other options"
        sentence = f"{row.source}: {row.printed} ({row.kind} / {row.unit}); here {counted}: {verdict}"
        rows.append({"printed": row.printed, "counted": counted, "unit": row.unit, "sentence": sentence})
    return rows


def read_option(text: str) -> tuple[str, object]:
    """``"bias=false"`` -> ("bias", False); a comma makes a list. ValueError without an equals sign."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"expected an option as NAME=VALUE, such as bias=false; got {text!r}")
    values = [read_value(part) for part in value.split(",")]
    return name, values if len(values) > 1 else values[0]


def read_value(text: str) -> object:
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main())
