"""Audit a feature-map module, your own or one from the web: say in sentences what holds and what does not."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnlib.lab.checks import CHECKS, Finding, copied, described, draw, evaluating


@dataclass(frozen=True, repr=False)
class Audit:
    """All findings, printed one a line: ✓ holds, ✗ does not, · does not apply or only informs."""

    findings: list[Finding]

    @property
    def holds(self) -> bool:
        return all(finding.holds is not False for finding in self.findings)

    def __repr__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


def audit(module: nn.Module, x: Tensor | None = None, *, channels: int | None = None, seed: int = 0) -> Audit:
    """Run every check on a copy of ``module``, which should map (b, c, h, w) to (b, c, h, w).

    Args:
        module: any module; what it raises becomes a finding.
        x: an example input, of which the first two images are used; if None, one of shape
            (2, channels, 9, 8) is drawn.
        channels: needed if there is neither ``x`` nor an attribute ``module.channels``.
        seed: of the drawn input and of random layers; the global random state stays as it is.

    Raises:
        ValueError: if the number of channels is unknown, or x is not a floating-point batch (b, c, h, w) of
            two or more.
    """
    if x is None:
        channels = channels or getattr(module, "channels", None)
        if channels is None:
            raise ValueError("the number of channels is unknown; pass an example input x, or channels=...")
        x = draw((2, channels, 9, 8), seed)
    if x.ndim != 4 or x.shape[0] < 2 or not x.is_floating_point():
        raise ValueError(
            f"expected floating-point features (b, c, h, w) of two or more images, got {x.dtype} of shape "
            f"{tuple(x.shape)}; pass another x, or none and channels=..."
        )
    x = x[:2].detach().clone()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            module = copied(module)
            evaluating(module)(x.clone())
        except Exception as error:
            return Audit([Finding("forward", False, described(error))])
        try:
            evaluating(module).double()(x.double())
            module, x = module.double(), x.double()
        except Exception:
            pass  # the checks then run in the precision that works, and check_dtype names this error
        return Audit([check(module, x) for check in CHECKS])
