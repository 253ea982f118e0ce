"""Load weights that were trained elsewhere, from state dicts with the names of other code.

mechanism   names recognised                                                 from
SE          fc.0, fc.2 (linear) or fc1, fc2 (1x1 convolutions)               common re-implementations
ECA         conv                                                             its released code
CBAM        ChannelGate.mlp.1, .3, SpatialGate.spatial.conv, .bn             its released code
NAM         bn2                                                              its released code
EMA         gn, conv1x1, conv3x3                                             its released code
non-local   t, p, g, z, norm                                                 a model library
"""

from torch import Tensor, nn

from attnlib.feature_map.cbam import CBAM
from attnlib.feature_map.efficient_channel import EfficientChannelAttention
from attnlib.feature_map.multi_scale import EfficientMultiScaleAttention
from attnlib.feature_map.non_local import NonLocal
from attnlib.feature_map.normalization import NormalizationAttention
from attnlib.feature_map.squeeze_excitation import SqueezeExcitation

# For each class the layouts known: from the name of a layer elsewhere to its name here.
LAYOUTS: dict[type[nn.Module], list[dict[str, str]]] = {
    SqueezeExcitation: [{"fc.0": "W_1", "fc.2": "W_2"}, {"fc1": "W_1", "fc2": "W_2"}],
    EfficientChannelAttention: [{"conv": "conv"}],
    CBAM: [
        {
            "ChannelGate.mlp.1": "channel.W_1",
            "ChannelGate.mlp.3": "channel.W_2",
            "SpatialGate.spatial.conv": "spatial.conv",
            "SpatialGate.spatial.bn": "spatial.norm",
        }
    ],
    NormalizationAttention: [{"bn2": "channel_norm"}],
    EfficientMultiScaleAttention: [{"gn": "norm", "conv1x1": "conv_1x1", "conv3x3": "conv_3x3"}],
    NonLocal: [{"t": "theta", "p": "phi", "g": "g", "z": "W_z", "norm": "norm"}],
}


def load_reference_weights(module: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Copy weights with another code's names into a mechanism of this library.

    Args:
        module: an SE, ECA, CBAM, NAM, EMA (multi-scale) or non-local module, built with the options of the
            network that the weights come from (such as ``bias``, ``norm`` or ``kernel_size``).
        state_dict: the weights of this one module, by the names above: take off what stands in front of them
            in a whole network. A 1x1 convolution and a linear layer take each other's.

    Raises:
        ValueError: for a mechanism of which no other names are known, for weights that are missing or left
            over, and for shapes that do not fit; each is named, and nothing is copied.
    """
    if type(module) not in LAYOUTS:
        known = ", ".join(sorted(mechanism.__name__ for mechanism in LAYOUTS))
        raise ValueError(f"no other code's names are known for {type(module).__name__}, only for {known}")
    own = module.state_dict()
    names = max(
        (_other_names(layout, own) for layout in LAYOUTS[type(module)]),
        key=lambda names: len(names.keys() & state_dict.keys()),
    )
    counters = {name for name in names if name.endswith("num_batches_tracked")}  # absent from old files
    missing = sorted(names.keys() - state_dict.keys() - counters)
    left_over = sorted(state_dict.keys() - names.keys())
    if missing or left_over:
        raise ValueError(
            f"the weights do not fit this {type(module).__name__}: missing {', '.join(missing) or 'none'}; "
            f"left over {', '.join(left_over) or 'none'}; build it with the options of the other network"
        )
    for other, name in names.items():
        if other in state_dict and state_dict[other].squeeze().shape != own[name].squeeze().shape:
            raise ValueError(
                f"{other} has shape {tuple(state_dict[other].shape)}, this {type(module).__name__} needs "
                f"{tuple(own[name].shape)}; build it with the sizes of the other network"
            )
    module.load_state_dict(
        own | {names[other]: w.view(own[names[other]].shape) for other, w in state_dict.items()}
    )


def _other_names(layout: dict[str, str], own: dict[str, Tensor]) -> dict[str, str]:
    """From each weight's name elsewhere to its name here, for the layers that this module has."""
    layers = {here: elsewhere for elsewhere, here in layout.items()}
    return {f"{layers[layer]}.{kind}": name for name in own for layer, _, kind in [name.rpartition(".")]}
