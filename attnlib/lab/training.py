"""The training loop of the course: plain, seeded, and quick to say when something went wrong."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from attnlib._checks import check_positive
from attnlib.lab.data import Images, batches

Loss = Callable[[nn.Module, Images], Tensor]


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; the message names the step and the cause."""


def classification_loss(model: nn.Module, batch: Images) -> Float[Tensor, ""]:
    """Cross-entropy of the model's logits (n, classes), averaged over the batch, in nats."""
    return F.cross_entropy(model(batch.images), batch.labels)


def train(
    model: nn.Module,
    data: Images,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    loss: Loss = classification_loss,
    progress: bool = True,
) -> list[float]:
    """Train ``model`` in place with Adam and leave it in eval mode.

    Args:
        seed: decides the order of the batches and any dropout; the model's own start is the caller's.
        loss: takes the model and a batch, returns a scalar.
        progress: whether to show a bar (off where a notebook's output is compared).

    Returns:
        The loss of every step.

    Raises:
        ValueError: for epochs, batch_size or learning_rate that are not positive.
        NonFiniteLossError: at the first loss that is not finite, before it reaches the weights.
    """
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate!r} should be above 0")
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history: list[float] = []
    model.train()
    for epoch in tqdm(range(epochs), desc="epochs", disable=not progress):
        for batch in batches(data, batch_size, seed=seed + 1000 * epoch):
            value = loss(model, batch)
            if not math.isfinite(value.item()):
                raise NonFiniteLossError(
                    f"the loss is {value.item()} at step {len(history)}: {cause(model, batch)}"
                )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            history.append(value.item())
    model.eval()
    return history


def cause(model: nn.Module, batch: Images) -> str:
    """Where the first value that is not finite comes from: the data, a parameter, a module or the loss."""
    if not batch.images.isfinite().all():
        return "the batch itself holds values that are not finite; look at the data"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} is no longer finite; the steps are too large, lower learning_rate"
    culprits: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                culprits.append(f"{name or 'the model'} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        model(batch.images)
    for hook in hooks:
        hook.remove()
    if culprits:
        return f"the output of {culprits[0]} is the first that is not finite, for finite weights and data"
    return (
        "the model's output is finite, so the loss function makes it so; look for log(0) or a division by 0"
    )


@torch.no_grad()
def accuracy(model: nn.Module, data: Images) -> float:
    """The share of images whose largest logit is the right class, between 0 and 1; the model is in eval."""
    was_training = model.training
    model.eval()
    right = (model(data.images).argmax(1) == data.labels).float().mean().item()
    model.train(was_training)
    return right
