"""A small race: mechanisms of your own and of the registry, in equal networks on equal batches."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from attnlib.backbone.attach import Attention
from attnlib.lab.runs import Run, build_network, load_split, train_run
from attnlib.lab.study import grid

COLUMNS = ["candidate", "seed", "accuracy", "loss", "curve", "parameters", "note"]


def race(
    candidates: Mapping[str, Attention],
    *,
    seeds: Iterable[int] = range(3),
    source: str | Path = "digits",
    backbone: str = "small",
    image: int = 32,
    train_images: int | None = None,
    test_images: int | None = None,
    epochs: int = 8,
    batch_size: int = 50,
    learning_rate: float = 0.05,
    flips: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a network with each candidate and each seed, and test it.

    The recipe is that of ``attnlib.lab.runs.train_run``: with the same seed every candidate gets the same
    batches, and a backbone whose weights start equal. Nothing is written to a file.

    Args:
        candidates: by name: a function from the number of channels to a module, such as its class; the name
            of a mechanism in the registry, with the options of a study; ``"none"`` or None for the plain
            network; ``"half"`` for one whose features are divided by 2 where the others have their gate.
        The other arguments are those of ``attnlib.lab.study.grid``.
        progress: whether to show a bar over the runs.

    Returns:
        A row for each seed and candidate, seed by seed: accuracy on the test images, mean loss of the last
        epoch, accuracy after each epoch as text "0.8100;0.9000", parameters of the whole network, and a note
        where training failed (its accuracy is then not a number).

    Raises:
        ValueError: if there is no candidate or no seed; for a candidate that is none of the above, that
            makes no module or hands out the same one twice, or whose module does not keep the shape of its
            features; and for what ``grid`` refuses.
    """
    candidates, seeds = dict(candidates), list(seeds)
    if not candidates:
        raise ValueError("expected at least one candidate, got an empty mapping; try {'none': None}")
    if not seeds:
        raise ValueError("expected at least one seed, got none; range(3) gives three")
    setting = {
        "backbone": backbone,
        "image": image,
        "train_images": train_images,
        "test_images": test_images,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "flips": flips,
    }
    runs = []
    for name, attention in candidates.items():
        _check_kind(name, attention)
        mechanism = attention if isinstance(attention, str) else "none"
        its_runs = grid([mechanism], seeds=seeds, source=source, **setting)
        own = None if isinstance(attention, str) else attention
        if own is not None:
            its_runs = [replace(run, mechanism=name) for run in its_runs]
            _check_modules(name, own, its_runs[0], str(source))
        runs += [(place, name, run, own) for place, run in enumerate(its_runs)]
    runs.sort(key=lambda entry: entry[0])  # stable: seed by seed, the candidates in their order
    rows = []
    for _, name, run, own in tqdm(runs, desc="runs", disable=not progress):
        _, found = train_run(run, str(source), own)
        rows.append({"candidate": name, "seed": run.seed, **found})
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_kind(name: str, attention: Attention) -> None:
    if isinstance(attention, nn.Module):
        raise ValueError(
            f"candidate {name!r} is a module that exists already, and every network needs one of its own; "
            f"pass a function that makes it, such as {type(attention).__name__} or lambda channels: ..."
        )
    if not (attention is None or isinstance(attention, str) or callable(attention)):
        raise ValueError(
            f"candidate {name!r} is {attention!r}; expected a function from channels to a module, a name in "
            f"the registry, 'none' or 'half'"
        )


def _check_modules(name: str, attention: Attention, run: Run, source: str) -> None:
    """Make the candidate's modules twice and send two images through them."""
    made: list[object] = []

    def make(channels: int) -> nn.Module:
        module = attention(channels)
        if not isinstance(module, nn.Module):
            raise ValueError(f"candidate {name!r} made {module!r}; expected a torch.nn.Module")
        if any(module is other for other in made):
            raise ValueError(
                f"candidate {name!r} hands out the same module again, and every network needs its own; make "
                f"it inside the function"
            )
        made.append(module)

        def compare(_: nn.Module, inputs: tuple[Tensor], output: object) -> None:
            wanted, got = tuple(inputs[0].shape), getattr(output, "shape", None)
            if got is None or tuple(got) != wanted:
                came = type(output).__name__ if got is None else f"a tensor of shape {tuple(got)}"
                raise ValueError(
                    f"candidate {name!r} was given features of shape {wanted} and returned {came}; it should "
                    f"keep the shape"
                )

        module.register_forward_hook(compare)
        return module

    data = load_split(source, "train", run.image)
    network = build_network(run, data, make)
    build_network(run, data, make)
    images = data.images[:2]
    with torch.no_grad():
        network.eval()(
            images.expand(-1, 3, -1, -1) if run.backbone != "small" and images.shape[1] == 1 else images
        )
