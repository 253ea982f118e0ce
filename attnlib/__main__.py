"""The command line: ``attnlib lab`` opens the course, ``cost`` counts a network, ``study`` trains many.

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
    add_study(commands)
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


def add_study(commands: argparse._SubParsersAction) -> None:
    study = commands.add_parser(
        "study",
        help="train every mechanism with every seed and compare",
        description="Train every mechanism with every seed; each finished run becomes a row of a CSV file. "
        "Interrupted or killed, the same command carries on where it stopped.",
    )
    study.add_argument("out", type=Path, help="the CSV file, such as results.csv")
    study.add_argument(
        "--mechanisms", required=True, help="names with commas between them, such as none,se,eca"
    )
    study.add_argument("--backbone", default="small", help="small, or a network such as resnet20")
    study.add_argument("--data", default="digits", help="digits, cluttered or cued (default: digits)")
    study.add_argument("--images", type=Path, metavar="DIR", help="a folder of pictures instead of --data")
    study.add_argument("--image", type=int, default=32, help="pixels of a folder's pictures (default: 32)")
    study.add_argument("--train-images", type=int, help="how many to train on (default: all)")
    study.add_argument("--test-images", type=int, help="how many to test on (default: all)")
    study.add_argument("--seeds", type=int, default=5, help="0 up to this number (default: 5)")
    study.add_argument("--epochs", type=int, default=8, help="how often each image is shown (default: 8)")
    study.add_argument("--batch-size", type=int, default=50, help="images in a step (default: 50)")
    study.add_argument("--learning-rate", type=float, default=0.05, help="of the first steps (default: 0.05)")
    study.add_argument("--flips", action="store_true", help="mirror half of the images, drawn anew")
    study.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="MECHANISM.NAME=VALUE",
        help="such as se.reduction=8; a mechanism with an option has no others than its class's defaults",
    )
    study.add_argument("--jobs", type=int, default=1, help="processes, one thread each (default: 1)")
    study.add_argument("--scheduler", metavar="ADDRESS", help="send the runs to this Dask scheduler")
    study.set_defaults(run=run_study)


def run_study(options: argparse.Namespace) -> int:
    from attnlib.lab.study import grid, study

    try:
        chosen: dict[str, dict[str, object]] = {}
        for text in options.option:
            mechanism, dot, rest = text.partition(".")
            if not dot:
                raise ValueError(f"expected an option as MECHANISM.NAME=VALUE, got {text!r}")
            name, value = read_option(rest)
            chosen.setdefault(mechanism, {})[name] = value
        source = options.data if options.images is None else options.images
        runs = grid(
            options.mechanisms.split(","),
            seeds=range(options.seeds),
            source=source,
            options=chosen,
            **{name: getattr(options, name) for name in STUDY_SETTINGS},
        )
        table = study(runs, options.out, source=source, jobs=options.jobs, scheduler=options.scheduler)
    except (ValueError, OSError) as error:
        print(f"attnlib study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"attnlib study: stopped; what was trained is in {options.out}, the same command goes on")
        return 130
    percent = table.assign(accuracy=100 * table["accuracy"]).groupby("mechanism", sort=False)["accuracy"]
    print(percent.agg(["mean", "std", "count"]).round(2).to_string())
    return 0


STUDY_SETTINGS = [
    "backbone",
    "image",
    "train_images",
    "test_images",
    "epochs",
    "batch_size",
    "learning_rate",
    "flips",
]


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
