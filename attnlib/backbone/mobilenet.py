"""MobileNetV2: blocks that widen, filter each channel on its own, and narrow again.

Sandler, Howard, Zhu, Zhmoginov, Chen: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv 1801.04381, tables 1 and 2.

    block   F = 1x1 to t times the channels, 3x3 depthwise, 1x1 to the output's; no ReLU behind the last one
            output = x + F(x) where the sizes agree, otherwise F(x)

Names of layers are torchvision's, so that its checkpoints load. A mechanism stands on the widened tensor,
behind the depthwise convolution ("expanded"; not in the first block, which does not widen), or on F's output
in every block ("output"), as its paper has it.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_choice, check_positive
from attnlib.backbone.attach import Attention, attention_for, check_options

# t, channels, blocks, stride of the first block: table 2
STAGES = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip


def conv(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """One block; see above."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.expanded_channels = expansion * channels
        self.adds = stride == 1 and channels == out
        widen = [conv(channels, self.expanded_channels, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            conv(
                self.expanded_channels,
                self.expanded_channels,
                3,
                stride=stride,
                groups=self.expanded_channels,
            ),
            nn.Conv2d(self.expanded_channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.attention: nn.Module | None = None
        self.position = "expanded"

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        y = self.conv[:-2](x)
        if self.attention is not None and self.position == "expanded":
            y = self.attention(y)
        y = self.conv[-2:](y)
        if self.attention is not None and self.position == "output":
            y = self.attention(y)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1.0.

    Args:
        classes: how many logits to return.
        attention: a mechanism's name in the registry, a function from channels to a module, or None.
        options: keyword arguments of that mechanism; a list holds one value for each of the seven stages.
        position: ``"expanded"`` or ``"output"``.

    Shapes: images (b, 3, h, w) -> logits (b, classes). A wrong argument raises ValueError.

    Source: arXiv 1801.04381, table 2.
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        attention: Attention = None,
        options: Mapping[str, object] | None = None,
        position: str = "expanded",
    ) -> None:
        super().__init__()
        check_positive("classes", classes)
        check_options(attention, options or {})
        check_choice("position", position, ["expanded", "output"])
        layers: list[nn.Module] = [conv(3, 32, 3, stride=2)]
        channels = 32
        for stage, (expansion, out, count, stride) in enumerate(STAGES):
            for index in range(count):
                block = InvertedResidual(channels, out, stride if index == 0 else 1, expansion)
                features = out if position == "output" else block.expanded_channels
                if position == "output" or expansion > 1:
                    block.position = position
                    block.attention = attention_for(
                        attention, options or {}, features, stage=stage, size=None
                    )
                layers.append(block)
                channels = out
        self.features = nn.Sequential(*layers, conv(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.classifier(self.features(x).mean((2, 3)))
