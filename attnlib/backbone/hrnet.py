"""HRNet: branches of different resolutions side by side, which exchange what they know again and again.

Sun, Xiao, Liu, Wang: "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019,
arXiv 1902.09212; Wang et al., TPAMI 2020, arXiv 1908.07919, for classification.

    stem       two 3x3 convolutions with stride 2: a quarter of the image's size
    stage 1    bottlenecks at that size
    stage s    s branches of w, 2w, 4w, 8w channels at 1/4, 1/8, 1/16, 1/32; exchange units, each of which is
               a few basic blocks in each branch and then the fusion
    fusion     output_i = relu(sum_j f_ij(branch_j)):  f_ii the identity, for j > i a 1x1 convolution and
               nearest up-sampling, for j < i a chain of 3x3 convolutions with stride 2

Every convolution has a batch norm behind it, and a ReLU where no sum follows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_choice, check_positive
from attnlib.backbone.attach import Attention, attention_for, check_options
from attnlib.backbone.resnet import BasicBlock, Bottleneck


@dataclass(frozen=True)
class Design:
    """The numbers of a variant: of stage 1, of the exchange units in stages 2 to 4, and of each branch."""

    width: int
    bottlenecks: int = 4
    bottleneck_width: int = 64
    units: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4

    @property
    def widths(self) -> list[int]:
        return [self.width * 2**branch for branch in range(4)]


DESIGNS = {f"w{width}": Design(width) for width in (18, 30, 32, 40, 44, 48, 64)} | {
    "small-v1": Design(16, bottlenecks=1, bottleneck_width=32, units=(1, 1, 1), blocks=2),
    "small-v2": Design(18, bottlenecks=2, units=(1, 3, 2), blocks=2),
}


def conv(channels: int, out: int, kernel: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class ExchangeUnit(nn.Module):
    """Basic blocks in each branch, then the fusion of all branches into each of the first ``outputs``.

    Shapes: a list of (b, width_i, h / 2^i, w / 2^i), one for each branch -> a list of the first ``outputs``.
    """

    def __init__(self, widths: list[int], blocks: int, outputs: int | None = None) -> None:
        super().__init__()
        self.outputs = len(widths) if outputs is None else outputs
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        self.fusion = nn.ModuleList(
            nn.ModuleList(_path(widths, j, i) for j in range(len(widths))) for i in range(self.outputs)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(features) for branch, features in zip(self.branches, x, strict=True)]
        fused = []
        for i, paths in enumerate(self.fusion):
            size = x[i].shape[2:]
            parts = [path(features) for path, features in zip(paths, x, strict=True)]
            fused.append(F.relu(sum(_enlarged(part, size) for part in parts)))
        return fused


def _path(widths: list[int], j: int, i: int) -> nn.Module:
    """f_ij from branch j to branch i, before any up-sampling."""
    if j == i:
        return nn.Identity()
    if j > i:
        return conv(widths[j], widths[i], 1, relu=False)
    steps = [conv(widths[j], widths[j], 3, stride=2) for _ in range(i - j - 1)]
    return nn.Sequential(*steps, conv(widths[j], widths[i], 3, stride=2, relu=False))


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="nearest")


class HRNet(nn.Module):
    """A high-resolution network for classification or for key-points.

    Args:
        variant: ``"w18"``, ``"w30"``, ``"w32"``, ``"w40"``, ``"w44"``, ``"w48"``, ``"w64"``, ``"small-v1"``,
            ``"small-v2"``, or a ``Design`` of your own.
        classes: how many logits, or key-points, to return.
        head: ``"classes"``, or ``"keypoints"`` for one heatmap each at a quarter of the image's size.
        attention: a mechanism's name in the registry, a function from channels to a module, or None.
        options: keyword arguments of that mechanism; a list holds one value for each branch.
        at: ``"outputs"`` of the last stage's branches, or every basic block of the branches (``"blocks"``).

    Shapes: images (b, 3, h, w), h and w divisible by 32 -> logits (b, classes), or heatmaps
    (b, classes, h / 4, w / 4). A wrong argument raises ValueError.

    Source: arXiv 1908.07919, section 3, and its released code.
    """

    def __init__(
        self,
        variant: str | Design = "w18",
        *,
        classes: int = 1000,
        head: str = "classes",
        attention: Attention = None,
        options: Mapping[str, object] | None = None,
        at: str = "outputs",
    ) -> None:
        super().__init__()
        if isinstance(variant, str):
            check_choice("variant", variant, DESIGNS)
            variant = DESIGNS[variant]
        check_positive("classes", classes)
        check_options(attention, options or {})
        check_choice("head", head, ["classes", "keypoints"])
        check_choice("at", at, ["outputs", "blocks"])
        widths, first = variant.widths, 4 * variant.bottleneck_width
        self.stem = nn.Sequential(conv(3, 64, 3, stride=2), conv(64, 64, 3, stride=2))
        self.stage_1 = nn.Sequential(
            *(
                Bottleneck(64 if i == 0 else first, variant.bottleneck_width)
                for i in range(variant.bottlenecks)
            )
        )
        # what opens a branch: both of stage 2 come from stage 1, each later one from the branch before it
        self.first_branch = conv(first, widths[0], 3)
        self.new_branch = nn.ModuleList(
            conv(first if s == 0 else widths[s], widths[s + 1], 3, stride=2) for s in range(3)
        )
        self.stages = nn.ModuleList()
        for s, units in enumerate(variant.units):
            outputs = [s + 2] * units
            if head == "keypoints" and s == 2:
                outputs[-1] = 1  # its head reads the finest branch only
            self.stages.append(
                nn.Sequential(*(ExchangeUnit(widths[: s + 2], variant.blocks, n) for n in outputs))
            )
        self.attention = nn.ModuleList()
        for branch in range(4 if attention is not None else 0):
            if at == "outputs":
                if branch < self.stages[-1][-1].outputs:
                    self.attention.append(_mechanism(attention, options, widths, branch))
                continue
            for unit in (unit for stage in self.stages for unit in stage if branch < len(unit.branches)):
                for block in unit.branches[branch]:
                    block.attention = _mechanism(attention, options, widths, branch)
        if head == "keypoints":
            self.head = nn.Conv2d(widths[0], classes, 1)
        else:
            self.head = ClassificationHead(widths, classes)

    def branches(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The outputs of the last stage, finest first: (b, width_i, h / 2^(i+2), w / 2^(i+2))."""
        x = self.stage_1(self.stem(x))
        maps = [self.first_branch(x)]
        for s, stage in enumerate(self.stages):
            maps.append(self.new_branch[s](x if s == 0 else maps[-1]))
            maps = stage(maps)
        return [attend(m) for attend, m in zip(self.attention, maps, strict=True)] if self.attention else maps

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes *map"]:
        if x.shape[2] % 32 or x.shape[3] % 32:
            raise ValueError(f"height and width should be divisible by 32, got {tuple(x.shape)}")
        maps = self.branches(x)
        return self.head(maps if isinstance(self.head, ClassificationHead) else maps[0])


class ClassificationHead(nn.Module):
    """A bottleneck for each branch; down and added branch by branch; then the mean and a linear layer."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        wide = [128, 256, 512, 1024]
        self.widen = nn.ModuleList(Bottleneck(w, out // 4) for w, out in zip(widths, wide, strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide[i], wide[i + 1], 3, stride=2, padding=1),
                nn.BatchNorm2d(wide[i + 1]),
                nn.ReLU(),
            )
            for i in range(3)
        )
        self.last = nn.Sequential(nn.Conv2d(1024, 2048, 1), nn.BatchNorm2d(2048), nn.ReLU())
        self.fc = nn.Linear(2048, classes)

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "b classes"]:
        maps = [widen(m) for widen, m in zip(self.widen, maps, strict=True)]
        y = maps[0]
        for down, finer in zip(self.down, maps[1:], strict=True):
            y = finer + down(y)
        return self.fc(self.last(y).mean((2, 3)))


def _mechanism(
    attention: Attention, options: Mapping[str, object] | None, widths: list[int], branch: int
) -> nn.Module:
    """The mechanism of one branch; where a group number does not fit, the error names the widths too."""
    try:
        return attention_for(attention, options or {}, widths[branch], stage=branch, size=None)
    except ValueError as error:
        raise ValueError(f"{error} (the branches have {', '.join(map(str, widths))} channels)") from None
