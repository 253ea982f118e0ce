"""Expectation-Maximization Attention (EMA unit): attention to K bases instead of all places.

Li, Zhong, Wu, Yang, Lin, Liu: "Expectation-Maximization Attention Networks for Semantic Segmentation",
ICCV 2019, arXiv 1907.13426, section 3.

    X    = conv x                               n = hw places: (b, n, c)
    E:   Z = softmax over k of X mu^T           responsibilities (b, n, K)
    M:   mu_k = sum_n z_nk x_n / sum_n z_nk     bases (b, K, c), then divided by their length
    Y    = Z mu                                 of rank K at most: (b, n, c), after T rounds of E and M
    output = relu(x + BN(conv relu(Y)))         b c h w

`forward` never changes the bases. In training call ``update_bases(x)`` after each step: it moves them towards
the batch's mean of mu, as the released training loop does.

Where sources differ:
    detach      The released code runs E and M without gradients, so that its first convolution learns
                nothing; here both are differentiated through. `detach=True` gives the released behaviour.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_feature_map, check_positive


class ExpectationMaximizationAttention(nn.Module):
    """Rebuild a feature map from K bases found by expectation-maximisation, and add that to it.

    Args:
        channels: c, the number of channels of the input.
        bases: K, how many.
        iterations: T, rounds of E and M.
        momentum: how much of the old bases ``update_bases`` keeps.
        detach: whether E and M run without gradients.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)``, the responsibilities (b, hw, K), and ``forward(x)``
    (b, c, h, w), which is not negative. A wrong argument or shape raises ValueError, and so does a training
    batch with a single place.

    Source: arXiv 1907.13426, section 3, and its released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        bases: int = 64,
        iterations: int = 3,
        momentum: float = 0.9,
        detach: bool = False,
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("bases", bases)
        check_positive("iterations", iterations)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum!r} should lie between 0 and 1")
        self.channels, self.iterations = channels, iterations
        self.momentum, self.detach = momentum, detach
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.conv_out = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.register_buffer("mu", F.normalize(torch.randn(bases, channels), dim=1))

    def expectation_maximization(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b k c"]]:
        """Z and mu after T rounds, from the module's bases."""
        check_feature_map(x, self.channels)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            features = self.conv_in(x).flatten(2).mT  # X: b n c
            mu = self.mu.expand(len(x), -1, -1)
            for _ in range(self.iterations):
                z = (features @ mu.mT).softmax(-1)  # E: b n k
                mu = F.normalize((z / z.sum(1, keepdim=True)).mT @ features, dim=2)  # M: b k c
        return z, mu

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """The responsibilities Z: how much each place belongs to each basis; they sum to 1 over the bases."""
        return self.expectation_maximization(x)[0]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        z, mu = self.expectation_maximization(x)
        y = (z @ mu).mT.unflatten(2, x.shape[2:])  # b c h w
        return F.relu(x + self.norm(self.conv_out(F.relu(y))))

    @torch.no_grad()
    def update_bases(self, x: Float[Tensor, "b c h w"]) -> None:
        """Move the bases towards those of this batch: mu <- momentum mu + (1 - momentum) mean_b mu_T."""
        _, mu = self.expectation_maximization(x)
        self.mu.lerp_(mu.mean(0), 1 - self.momentum)
