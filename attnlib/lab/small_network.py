"""The small convolutional network in which the notebooks try a mechanism on small images."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_divides, check_positive
from attnlib.lab.images import Images
from attnlib.lab.training import train


class SmallNetwork(nn.Module):
    """Two 3x3 convolutions, the mechanism under test, and one linear layer that reads 4x4 blocks.

    One unit behind the convolutions sees 5x5 pixels. What follows the mechanism is linear: so whatever the
    network concludes from two places further apart, it owes to the mechanism.

    Args:
        image_shape: (channels, height, width) of one image; 4 must divide height and width.
        classes: how many logits to return.
        attention: a module that keeps a feature map's shape, or None for the plain network.
        width: channels behind each convolution.
        groups: of both convolutions; with 2, each half of the channels sees one of two input channels.

    Shapes: (b, c, h, w) -> logits (b, classes). A wrong argument raises ValueError.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        attention: nn.Module | None = None,
        width: int = 16,
        groups: int = 1,
    ) -> None:
        super().__init__()
        channels, height, image_width = image_shape
        check_positive("classes", classes)
        check_divides("height", height, "block", 4)
        check_divides("width", image_width, "block", 4)
        check_divides("width", width, "groups", groups)
        self.conv_1 = nn.Conv2d(channels, width, 3, padding=1, groups=groups)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(width)
        self.attention = nn.Identity() if attention is None else attention
        self.read = nn.Linear(width * (height // 4) * (image_width // 4), classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h w"]:
        """What the mechanism is given."""
        return F.relu(self.norm(self.conv_2(F.relu(self.conv_1(x)))))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.read(F.avg_pool2d(self.attention(self.features(x)), 4).flatten(1))


def learn(
    data: Images,
    attention: Callable[[], nn.Module] | None = None,
    *,
    seed: int,
    groups: int = 1,
    epochs: int = 8,
    batch_size: int = 50,
    learning_rate: float = 0.015,
) -> SmallNetwork:
    """Build a small network for ``data`` and train it: what the notebooks compare mechanisms with.

    Args:
        attention: makes the mechanism, for 16 channels; called after seeding, so that ``seed`` decides its
            start too. None for the plain network.
        seed: of the start and of the order of the batches; two mechanisms with the same seed see the same
            batches, but not the same start, since each draws as many numbers as it needs.
    """
    torch.manual_seed(seed)
    module = attention() if attention else None
    network = SmallNetwork(data.images.shape[1:], len(data.classes), attention=module, groups=groups)
    recipe = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    train(network, data, **recipe, seed=seed, progress=False)
    return network
