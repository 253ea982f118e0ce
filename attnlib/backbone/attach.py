"""How a mechanism gets into a backbone: by its name in the registry, or as a function of the channels."""

from collections.abc import Callable, Mapping

from torch import nn

from attnlib._checks import check_choice
from attnlib.feature_map import REGISTRY, build_attention

Attention = str | Callable[[int], nn.Module] | None


def attention_for(
    attention: Attention,
    options: Mapping[str, object],
    channels: int,
    *,
    stage: int,
    size: tuple[int, int] | None,
) -> nn.Module | None:
    """The mechanism for a feature map of ``channels`` in ``stage``, or None where there is to be none.

    Args:
        attention: a registry name, a function from the number of channels to a module, or None.
        options: keyword arguments for a registry name. A list holds one value for each stage.
        channels: of the feature map.
        stage: counted from 0.
        size: (height, width) of the feature map, for the mechanism whose weights depend on it (the pixel
            branch of "nam"); None if it is not known.

    Raises:
        ValueError: for a name or option that does not exist, options without a name, a list without a
            value for the stage, and for what the mechanism itself refuses.
    """
    check_options(attention, options)
    if not isinstance(attention, str):
        return None if attention is None else attention(channels)
    chosen = {}
    for name, value in options.items():
        if isinstance(value, list):
            if stage >= len(value):
                raise ValueError(
                    f"{name}={value} has no value for stage {stage + 1}; give one for each stage"
                )
            value = value[stage]
        chosen[name] = value
    if chosen.get("branch", "channel") != "channel" and "size" not in chosen:
        chosen["size"] = size
    mechanism = build_attention(attention, channels, **chosen)
    mechanism.built_from = attention, chosen  # so that the cost by formula can be held against the count
    return mechanism


def check_options(attention: Attention, options: Mapping[str, object]) -> None:
    """Raise ValueError for a name that is not in the registry, and for options without a name."""
    if isinstance(attention, str):
        check_choice("attention", attention, REGISTRY)
    elif options:
        raise ValueError(
            f"options {', '.join(options)} go with a mechanism's name, and attention is "
            f"{'None' if attention is None else 'a function'}; leave them out"
        )
