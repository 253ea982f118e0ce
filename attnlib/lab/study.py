"""A comparison that anyone can repeat: a row of a CSV file for each mechanism and seed.

A study is a list of runs. Those whose row is in the file already are left out, so the same command carries on
after an interruption; a row is written with one system call, when its network is trained. A line that is torn
or was edited into nonsense is set aside in a file of its own, named, and its run is done again.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import joblib
import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from attnlib._checks import check_choice, check_positive
from attnlib.feature_map import REGISTRY
from attnlib.lab.data import SETS
from attnlib.lab.networks import NETWORKS
from attnlib.lab.run_table import append_row, read_rows
from attnlib.lab.runs import COLUMNS, CONTROLS, Run, load_split, train_run

# what fits networks of 16, 32 and 64 channels, where the paper's default does not
SMALL_OPTIONS: dict[str, dict[str, object]] = {
    **{name: {"reduction": 4} for name in ("se", "cbam", "bam", "gam", "gc")},
    "ema": {"groups": 8},
    "sk": {"groups": 8},
    "emau": {"bases": 16},
}


def grid(
    mechanisms: Sequence[str],
    *,
    seeds: Iterable[int] = range(5),
    source: str | Path = "digits",
    backbone: str = "small",
    image: int = 32,
    train_images: int | None = None,
    test_images: int | None = None,
    epochs: int = 8,
    batch_size: int = 50,
    learning_rate: float = 0.05,
    flips: bool = False,
    options: Mapping[str, Mapping[str, object]] | None = None,
) -> list[Run]:
    """The runs of a study: every mechanism with every seed, seed by seed, so that early rows compare.

    Args:
        mechanisms: names in the registry, ``"none"`` and ``"half"``.
        source: ``"digits"``, ``"cluttered"``, ``"cued"`` or the path of an image folder.
        image: of a folder: pixels after scaling.
        train_images, test_images: how many to take, drawn once for all runs; None for all.
        options: of some mechanisms, by name; the others have ``SMALL_OPTIONS``.

    Raises ValueError for names that do not exist, a folder that cannot be read and counts below 1.
    """
    for mechanism in mechanisms:
        check_choice("mechanism", mechanism, [*CONTROLS, *REGISTRY])
    check_choice("backbone", backbone, ["small", *NETWORKS])
    for name, value in [("epochs", epochs), ("batch_size", batch_size)]:
        check_positive(name, value)
    train, test = (load_split(str(source), split, image) for split in ("train", "test"))
    counts = []
    for name, wanted, data in [("train_images", train_images, train), ("test_images", test_images, test)]:
        if wanted is not None:
            check_positive(name, wanted)
            if wanted > len(data):
                raise ValueError(f"{name}={wanted}, but {source} has only {len(data)}; ask for fewer")
        counts.append(len(data) if wanted is None else wanted)
    runs = []
    for seed, mechanism in itertools.product(seeds, mechanisms):
        chosen = (options or {}).get(mechanism, SMALL_OPTIONS.get(mechanism, {}))
        runs.append(
            Run(
                mechanism,
                json.dumps(chosen, sort_keys=True),
                backbone,
                str(source) if str(source) in SETS else Path(source).resolve().name,
                train.images.shape[2],
                *counts,
                seed,
                epochs,
                batch_size,
                learning_rate,
                flips,
            )
        )
    return runs


def study(
    runs: Sequence[Run],
    file: str | Path,
    *,
    source: str | Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train the networks of those runs that ``file`` does not hold yet, and add their rows to it.

    Args:
        runs: as ``grid`` makes them.
        file: a CSV file; made if it does not exist.
        source: where the images of a folder lie; None where ``Run.data`` is one of the course's sets.
        jobs: processes on this machine, each on one thread.
        scheduler: the address of a Dask scheduler, which then gets the runs instead; its workers must have
            attnlib, and the image folder at the same path.
        progress: whether to show a bar over the runs, with the time that is left.

    Returns:
        The rows of ``runs``, in their order.

    Raises ValueError if ``file`` is no table of a study, if another study is writing to it, and for what
    ``train_run`` refuses. Whatever was trained before an error stays in the file.
    """
    check_positive("jobs", jobs)
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file), _workers(jobs, scheduler):
        rows = dict(read_rows(file))
        todo = [run for run in runs if run not in rows]
        work = joblib.Parallel(n_jobs=-1 if scheduler else jobs, return_as="generator_unordered")(
            joblib.delayed(train_run)(run, None if source is None else str(source)) for run in todo
        )
        for run, row in tqdm(work, total=len(todo), desc="runs", disable=not progress):
            append_row(file, run, row)
            rows[run] = row
    return pd.DataFrame([asdict(run) | rows[run] for run in runs], columns=COLUMNS)


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the file for this process; a killed one lets go by itself."""
    lock = FileLock(file.with_name(file.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another study is writing to {file}; wait for it, or give this one another file"
        ) from None
    with lock:
        yield
    lock.release()


@contextlib.contextmanager
def _workers(jobs: int, scheduler: str | None) -> Iterator[None]:
    if scheduler is None:
        with joblib.parallel_config("loky" if jobs > 1 else "sequential"):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError('a Dask cluster needs its package: pip install ".[cluster]"') from error
    with Client(scheduler, set_as_default=False) as client, joblib.parallel_config("dask", client=client):
        yield
