"""Sizes of networks as they were printed, each with its unit, its source and the reason if it is not ours.

Papers and repositories divide by different numbers: 10^6 or 2^20 for parameters, 10^9 or 2^30 for
multiply-accumulates. Only figures that were read at their source, or whose digits our count explains, stand
here.
"""

from dataclasses import dataclass

from attnlib.lab.networks import NetworkCost

UNITS = {"10^6": 10**6, "2^20": 2**20, "10^9": 10**9, "2^30": 2**30}

CBAM_PAPER = "CBAM, arXiv 1807.06521, table 4"
ECA_REPOSITORY = "ECA-Net's repository"
ECA_PAPER = "ECA-Net, arXiv 1910.03151"
EMA_REPOSITORY = "the repository of Efficient Multi-Scale Attention"
HRNET_REPOSITORY = "HRNet's repository for classification"
STRIDE = "their bottlenecks halve the map in the 1x1 convolution, these in the 3x3"
NO_BIAS = "their SE has no biases; --option bias=false gives it"
NORMS = "they left out the scales and shifts of all norms"


@dataclass(frozen=True)
class Published:
    """A printed size: of which network, in which unit, from where, and why it may differ from the count."""

    network: str
    attention: str | None
    printed: str
    unit: str
    source: str
    reason: str = ""
    kind: str = "parameters"
    cifar: bool = False

    def counted(self, cost: NetworkCost) -> str:
        """Our count in the unit and with the digits of the printed number."""
        digits = len(self.printed.partition(".")[2])
        value = cost.parameters if self.kind == "parameters" else cost.macs
        return f"{value / UNITS[self.unit]:.{digits}f}"


def _imagenet() -> list[Published]:
    rows = []
    for depth, plain, se, cbam in [
        (18, "11.69", "11.78", "11.78"),
        (34, "21.80", "21.96", "21.96"),
        (50, "25.56", "28.09", "28.09"),
        (101, "44.55", "49.33", "49.33"),
    ]:
        for attention, printed in ((None, plain), ("se", se), ("cbam", cbam)):
            rows.append(Published(f"resnet{depth}", attention, printed, "10^6", CBAM_PAPER))
    for depth, plain, se, eca in [
        (18, "11.148", "11.231", "11.15"),
        (34, "20.788", "20.938", "20.79"),
        (50, "24.37", "26.77", "24.37"),
        (101, "42.49", "47.01", "42.49"),
    ]:
        rows.append(Published(f"resnet{depth}", None, plain, "2^20", ECA_PAPER))
        rows.append(Published(f"resnet{depth}", "se", se, "2^20", ECA_PAPER, NO_BIAS))
        rows.append(Published(f"resnet{depth}", "eca", eca, "2^20", ECA_REPOSITORY))
    for depth, attention, printed in [
        (18, None, "1.814"),
        (50, None, "3.858"),
        (50, "se", "3.860"),
        (50, "cbam", "3.864"),
        (101, None, "7.570"),
    ]:
        reason = STRIDE if depth >= 50 else ""
        rows.append(Published(f"resnet{depth}", attention, printed, "10^9", CBAM_PAPER, reason, kind="macs"))
    return rows


PUBLISHED: list[Published] = [
    *_imagenet(),
    Published("resnet50", "triplet", "25.56", "10^6", "triplet attention's repository"),
    Published("mobilenetv2", None, "3.34", "2^20", ECA_PAPER),
    Published("resnet50", None, "23.71", "10^6", EMA_REPOSITORY, cifar=True),
    Published("resnet50", "se", "26.2", "10^6", EMA_REPOSITORY, cifar=True),
    Published("resnet50", "bam", "24.1", "10^6", EMA_REPOSITORY, cifar=True),
    Published("resnet50", "cbam", "26.24", "10^6", EMA_REPOSITORY, cifar=True),
    Published(
        "resnet50",
        "nam",
        "23.71",
        "10^6",
        EMA_REPOSITORY,
        "the printed number is that of the network without NAM",
        cifar=True,
    ),
    Published("resnet50", "gam", "149.5", "10^6", EMA_REPOSITORY, cifar=True),
    Published("resnet50", "ema", "23.85", "10^6", EMA_REPOSITORY, NORMS, cifar=True),
    Published("resnet50", "coordinate", "25.57", "10^6", EMA_REPOSITORY, NORMS, cifar=True),
    *(
        Published(f"hrnet-{name}", None, printed, unit, HRNET_REPOSITORY, kind=kind)
        for name, parameters, macs in [
            ("w18", "21.3", "3.99"),
            ("w30", "37.7", "7.55"),
            ("w32", "41.2", "8.31"),
            ("w40", "57.6", "11.8"),
            ("w44", "67.1", "13.9"),
            ("w48", "77.5", "16.1"),
            ("w64", "128.1", "26.9"),
            ("small-v1", "13.2", "1.49"),
            ("small-v2", "15.6", "2.42"),
        ]
        for kind, printed, unit in (("parameters", parameters, "10^6"), ("macs", macs, "2^30"))
    ),
]


def published(network: str, attention: str | None, *, cifar: bool) -> list[Published]:
    """The printed sizes of a network with a mechanism (or None), for CIFAR-100 or for ImageNet."""
    return [
        row for row in PUBLISHED if (row.network, row.attention, row.cifar) == (network, attention, cifar)
    ]
