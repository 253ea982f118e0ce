"""What a whole network costs: parameters and multiply-accumulates, in all and by part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from attnlib._checks import check_choice, check_positive
from attnlib.backbone import HRNet, MobileNetV2, ResNet
from attnlib.backbone.attach import Attention
from attnlib.backbone.hrnet import DESIGNS
from attnlib.backbone.resnet import DEPTHS
from attnlib.lab.cost import Cost, closed_form, cost_table


def _resnet(depth: int) -> Callable[..., nn.Module]:
    def build(image: int, **arguments: object) -> nn.Module:
        stem = "cifar" if image <= 64 else None
        return ResNet(depth, image=image, stem=stem, **arguments)

    return build


NETWORKS: dict[str, Callable[..., nn.Module]] = (
    {f"resnet{depth}": _resnet(depth) for depth in DEPTHS}
    | {"mobilenetv2": lambda image, **arguments: MobileNetV2(**arguments)}
    | {f"hrnet-{name}": lambda image, name=name, **arguments: HRNet(name, **arguments) for name in DESIGNS}
)


@dataclass(frozen=True)
class NetworkCost:
    """Parameters and multiply-accumulates (one image), in all and by part.

    ``parts`` has a row for each part of the network, with the columns "parameters" and "macs"; what the
    attention modules own and do stands in a row of its own, "attention". ``formula`` is the same by the
    closed form of the mechanism, summed over its places; None without one, or where a function made it.
    """

    parameters: int
    macs: int
    parts: pd.DataFrame
    formula: Cost | None = None

    def table(self) -> pd.DataFrame:
        """The parts, and their sum as the last row."""
        total = pd.DataFrame({"parameters": self.parameters, "macs": self.macs}, index=["total"])
        return pd.concat([self.parts, total])


def network_cost(
    name: str,
    *,
    attention: Attention = None,
    options: Mapping[str, object] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> NetworkCost:
    """Count a network without storing a weight: parameters, and MACs of one square image in eval mode.

    Args:
        name: one of ``NETWORKS``. A ResNet for images of up to 64 pixels gets the CIFAR stem.
        attention: a mechanism's name in the registry, a function from channels to a module, or None.
        options: of the mechanism; a list holds one value for each stage.
        image: height and width of the image, in pixels.
        classes: how many logits.

    Multiply-accumulates are those of convolutions and matrix products, as in ``count_macs``. Raises
    ValueError for what the network or the mechanism refuses.
    """
    check_choice("name", name, NETWORKS)
    check_positive("image", image)
    with torch.device("meta"):
        network = NETWORKS[name](image, attention=attention, options=options, classes=classes)
        by_formula = _note_formulas(network)
        table = cost_table(network, torch.zeros(1, 3, image, image))
    total = table.loc["total"]
    rows = table.drop(index="total")
    parts = rows.groupby([_part(row) for row in rows.index], sort=False).sum()
    formula = None
    if by_formula:
        formula = Cost(sum(cost.parameters for cost in by_formula), sum(cost.macs for cost in by_formula))
    return NetworkCost(int(total["parameters"]), int(total["macs"]), parts, formula)


def _note_formulas(network: nn.Module) -> list[Cost]:
    """A list that the next forward pass fills: the closed form of each mechanism, on the map it is given."""
    costs = []

    def note(mechanism: nn.Module, inputs: tuple[Tensor]) -> None:
        name, options = mechanism.built_from
        costs.append(closed_form(name, *inputs[0].shape[1:], **options))

    for module in network.modules():
        if hasattr(module, "built_from"):
            module.register_forward_pre_hook(note)
    return costs


def _part(row: str) -> str:
    names = row.split(".")
    return "attention" if "attention" in names else names[0]
