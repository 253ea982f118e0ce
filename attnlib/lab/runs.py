"""One run of a study: all that decides a training, the training itself, and what it found."""

import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.backbone.attach import Attention, attention_for
from attnlib.lab.cost import count_parameters
from attnlib.lab.data import SETS, Images, batches, load_images
from attnlib.lab.networks import NETWORKS
from attnlib.lab.small_network import SmallNetwork


class Half(nn.Module):
    """The control without any attention: half of the features, as from a gate that stays where it starts."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


# what may stand in a mechanism's place besides the registry's names
CONTROLS = {"none": None, "half": lambda channels: Half()}


@dataclass(frozen=True)
class Run:
    """All that decides the outcome of one training.

    Attributes:
        mechanism: a name in the registry; ``"none"`` for the plain network, ``"half"`` for one whose features
            are divided by 2 where the others have their gate.
        options: of the mechanism, as a JSON object with sorted keys.
        backbone: ``"small"`` (``SmallNetwork``) or a name in ``NETWORKS``.
        data: ``"digits"``, ``"cluttered"``, ``"cued"``, or the name of an image folder.
        image: height of the images in pixels, after scaling.
        train_images: how many to train on; the same ones in every run.
        test_images: how many to test on.
        seed: of the network's start and of the order of the batches.
        epochs: how often each image is shown.
        batch_size: images in a step.
        learning_rate: of the first steps; it falls to zero along half a cosine.
        flips: whether half of the images, drawn anew in each step, are mirrored.
    """

    mechanism: str
    options: str
    backbone: str
    data: str
    image: int
    train_images: int
    test_images: int
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    flips: bool


SETTINGS = [field.name for field in fields(Run)]
RESULTS = ["accuracy", "loss", "curve", "parameters"]
MEASURED = ["seconds"]
PROVENANCE = ["attnlib", "revision", "torch", "python", "device", "note"]
COLUMNS = [*SETTINGS, *RESULTS, *MEASURED, *PROVENANCE]


def train_run(
    run: Run, source: str | None = None, attention: Callable[[int], nn.Module] | None = None
) -> tuple[Run, dict[str, object]]:
    """Train and test one network on one thread (or on CUDA where there is one); the run and its results.

    ``attention``, a function from channels to a module, stands in the place of the run's mechanism, whose
    name is then only a name.

    The recipe is that of the CIFAR networks: SGD with momentum 0.9 and weight decay 0.0005, the learning rate
    falling along half a cosine. With the same seed every mechanism gets the same batches, and a backbone
    whose weights start equal.
    """
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        where = run.data if source is None else source
        train = _drawn(load_split(where, "train", run.image), run.train_images)
        test = _drawn(load_split(where, "test", run.image), run.test_images)
        network = build_network(run, train, attention).to(device)
        curve, loss, note = _fit(network, train, test, run, device)
    finally:
        torch.set_num_threads(threads)
    row = {
        "accuracy": curve[-1] if curve else float("nan"),
        "loss": loss,
        "curve": ";".join(f"{accuracy:.4f}" for accuracy in curve),
        "parameters": count_parameters(network),
        "seconds": round(time.perf_counter() - start, 1),
        "attnlib": version("attnlib"),
        "revision": revision(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "note": note,
    }
    return run, row


def build_network(run: Run, data: Images, attention: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """The run's network; what the plain one has too starts with the plain one's weights.

    ``attention`` is that of ``train_run``.
    """
    channels, height, width = data.images.shape[1:]
    if run.backbone != "small" and channels not in (1, 3):
        raise ValueError(
            f"{run.backbone} reads three colours and the images have {channels} channels; use the backbone "
            f"'small'"
        )
    mechanism = attention or CONTROLS.get(run.mechanism, run.mechanism)
    options = json.loads(run.options)

    def build(attention: Attention) -> nn.Module:
        torch.manual_seed(run.seed)
        chosen = options if isinstance(attention, str) else {}
        if run.backbone == "small":
            module = attention_for(attention, chosen, 16, stage=0, size=(height, width))
            return SmallNetwork((channels, height, width), len(data.classes), attention=module)
        classes = len(data.classes)
        return NETWORKS[run.backbone](height, attention=attention, options=chosen, classes=classes)

    network = build(mechanism)
    if mechanism is not None:
        network.load_state_dict(build(None).state_dict(), strict=False)
    return network


def _fit(
    network: nn.Module, train: Images, test: Images, run: Run, device: torch.device
) -> tuple[list[float], float, str]:
    """The test accuracy after each epoch, the mean loss of the last one, and what went wrong, if anything."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=run.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = run.epochs * -(-len(train) // run.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve, loss = [], float("nan")
    for epoch in range(run.epochs):
        network.train()
        losses = []
        mirrored = np.random.default_rng([run.seed, epoch]).random(len(train)) < 0.5
        for i, batch in enumerate(batches(train, run.batch_size, seed=run.seed + 1000 * epoch)):
            images = batch.images
            if run.flips:
                flip = torch.from_numpy(mirrored[i * run.batch_size :][: len(batch)])
                images = torch.where(flip[:, None, None, None], images.flip(3), images)
            value = F.cross_entropy(network(_colours(images, run).to(device)), batch.labels.to(device))
            if not value.isfinite():
                return [], float("nan"), f"the loss is {value.item()} in epoch {epoch + 1}"
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
        loss = round(float(np.mean(losses)), 6)
        curve.append(_accuracy(network, test, run, device))
    return curve, loss, ""


@torch.no_grad()
def _accuracy(network: nn.Module, test: Images, run: Run, device: torch.device) -> float:
    network.eval()
    right = 0
    for batch in batches(test, 500, seed=0):
        logits = network(_colours(batch.images, run).to(device))
        right += int((logits.argmax(1).cpu() == batch.labels).sum())
    return right / len(test)


def _colours(images: Tensor, run: Run) -> Tensor:
    """Centred around zero; one channel becomes three where the backbone reads three."""
    images = (images - 0.5) / 0.25
    return images.expand(-1, 3, -1, -1) if run.backbone != "small" and images.shape[1] == 1 else images


@lru_cache(maxsize=4)
def load_split(source: str, split: str, image: int) -> Images:
    """The images of a set or folder, kept in memory for the next run of this process."""
    return load_images(source, split=split, **({} if source in SETS else {"size": image}))


def _drawn(data: Images, count: int) -> Images:
    """``count`` of the images, drawn once and for all."""
    return data.subset(np.sort(np.random.default_rng(0).permutation(len(data))[:count]))


@lru_cache(maxsize=1)
def revision() -> str:
    """The git revision of the package's repository, with "+" if it was changed since; empty without git."""
    folder = Path(__file__).parent
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.strip() + ("+" if changes.strip() else "")
