"""Residual networks for images, with any mechanism of the registry in their blocks.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.

    block       output = relu(shortcut(x) + F(x))
    basic       F = 3x3, 3x3                               ResNet-18, 34; CIFAR's 20, 32, 56
    bottleneck  F = 1x1, 3x3, 1x1 to 4 times the width     ResNet-50, 101, 152

Every convolution has a batch norm behind it. Names are torchvision's, so that its checkpoints load; the
mechanism of a block is its ``attention``.

Where sources differ:
    stride      The paper halves the map in the first 1x1 convolution of a bottleneck, torchvision in the 3x3:
                `stride_in="1x1"`. The parameters are the same, the multiply-accumulates are not.
    stem        A 7x7 convolution with stride 2 and a max-pool for images of 224 pixels; for those of 32 a 3x3
                convolution: `stem="cifar"`.
    position    Most mechanisms stand at the end of F ("branch"). SE's paper also tries the start of F
                ("pre"), the block's output ("post") and the shortcut ("identity"). By default BAM stands
                behind stages 1 to 3, and non-local behind every other block of stages 2 and 3.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_choice, check_positive
from attnlib.backbone.attach import Attention, attention_for, check_options

POSITIONS = ["branch", "pre", "post", "identity"]


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), with a mechanism at one of four positions, or none."""

    expansion: int

    def __init__(self, channels: int, width: int, stride: int = 1, pad_shortcut: bool = False) -> None:
        super().__init__()
        self.attention: nn.Module | None = None
        self.position = "branch"
        self.downsample: nn.Module | None = None
        out = width * self.expansion
        if stride != 1 or channels != out:
            projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.downsample = (
                PadShortcut(out, stride) if pad_shortcut else nn.Sequential(projection, nn.BatchNorm2d(out))
            )

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        """F(x), before the addition."""
        raise NotImplementedError

    def attend(self, position: str, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The mechanism, if it stands at this position."""
        return self.attention(x) if self.attention is not None and self.position == position else x

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        branch = self.attend("branch", self.branch(self.attend("pre", x)))
        return self.attend("post", F.relu(branch + self.attend("identity", shortcut)))


class BasicBlock(Block):
    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        pad_shortcut: bool = False,
        stride_in: str = "3x3",
    ) -> None:
        super().__init__(channels, width, stride, pad_shortcut)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        pad_shortcut: bool = False,
        stride_in: str = "3x3",
    ) -> None:
        super().__init__(channels, width, stride, pad_shortcut)
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x)))))


class PadShortcut(nn.Module):
    """A shortcut without parameters, as in the CIFAR networks: every other pixel, zeros for new channels."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


# depth: block, blocks in each stage
DEPTHS: dict[int, tuple[type[Block], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
    20: (BasicBlock, [3, 3, 3]),
    32: (BasicBlock, [5, 5, 5]),
    56: (BasicBlock, [9, 9, 9]),
}


class ResNet(nn.Module):
    """A residual network for classification.

    Args:
        depth: 18, 34, 50, 101, 152; or 20, 32, 56, the small ones for CIFAR with three stages of 16, 32 and
            64 channels and shortcuts without parameters.
        classes: how many logits to return.
        stem: ``"imagenet"`` or ``"cifar"``; None for the one that the depth was made for.
        attention: a mechanism's name in the registry, a function from channels to a module, or None.
        options: keyword arguments of that mechanism; a list holds one value for each stage.
        position: ``"branch"``, ``"pre"``, ``"post"`` or ``"identity"``, then in every block; None for where
            the mechanism's paper puts it.
        stride_in: of a bottleneck: ``"3x3"`` as in torchvision, or ``"1x1"`` as in the paper.
        image: height = width of the images, which only the pixel branch of "nam" needs.

    Shapes: images (b, 3, h, w) -> logits (b, classes). A wrong argument raises ValueError.

    Source: arXiv 1512.03385, table 1 and section 4.2.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        classes: int = 1000,
        stem: str | None = None,
        attention: Attention = None,
        options: Mapping[str, object] | None = None,
        position: str | None = None,
        stride_in: str = "3x3",
        image: int | None = None,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth={depth!r} is not one of {', '.join(map(str, sorted(DEPTHS)))}")
        check_positive("classes", classes)
        check_choice("stride_in", stride_in, ["3x3", "1x1"])
        check_options(attention, options or {})
        block, stages = DEPTHS[depth]
        small = len(stages) == 3
        stem = stem or ("cifar" if small else "imagenet")
        check_choice("stem", stem, ["imagenet", "cifar"])
        if position is not None:
            check_choice("position", position, POSITIONS)
        width = 16 if small else 64
        channels = width
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        size = None if image is None else (image // 4 if stem == "imagenet" else image)
        self.stages = len(stages)
        for stage, count in enumerate(stages):
            layers = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(channels, width, stride, small, stride_in))
                if size is not None:
                    size = -(-size // stride)
                place = _place(attention, position, stage, index, stages)
                if place is not None:
                    features = channels if place == "pre" else width * block.expansion
                    layers[-1].position = place
                    layers[-1].attention = attention_for(
                        attention, options or {}, features, stage=stage, size=size and (size, size)
                    )
                channels = width * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            width *= 2
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def _place(
    attention: Attention, position: str | None, stage: int, index: int, stages: list[int]
) -> str | None:
    """Where the mechanism stands in block ``index`` of a stage, or None.

    Non-local blocks: the five of the paper's ResNet-50; in the small networks one, at the end of the last
    stage, where the map is smallest (its cost grows with the square of the number of places).
    """
    if attention is None or position is not None:
        return position if attention is not None else None
    last = index == stages[stage] - 1
    if attention == "bam":
        return "post" if stage < 3 and last else None
    if attention == "nonlocal":
        small = len(stages) == 3
        here = stage == 2 and last if small else stage in (1, 2) and index % 2 == 1
        return "post" if here else None
    return "branch"
