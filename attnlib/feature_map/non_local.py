"""Non-local block: every place takes a weighted average of all places, added to what it had.

Wang, Girshick, Gupta, He: "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, section 3. Equation
numbers are the paper's.

    y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)      (1)   i, j run over the n = hw places; y (b, n, inner)
    z_i = W_z y_i + x_i                        (6)   z (b, c, h, w)

    similarity         f(x_i, x_j)                           C(x)
    "gaussian"         exp(x_i . x_j)                  (2)   sum_j f, so that 1/C f is a softmax over j
    "embedded"         exp(theta(x_i) . phi(x_j))      (3)   likewise
    "euclidean"        exp(-|theta(x_i) - phi(x_j)|^2 / 2)   likewise; not in the paper
    "dot"              theta(x_i) . phi(x_j)           (4)   n
    "concatenation"    relu(w_f . [theta(x_i), phi(x_j)])    n                                         (5)

    theta, phi, g are 1x1 convolutions from c to inner = c/2 channels, W_z is one back to c.

Where sources differ:
    scale       The formulas have none; the released code multiplies scores by 1/sqrt(inner), another library
                by 1/sqrt(c): `scale=`.
    pool        The released code max-pools what phi and g are given, 2x2, which leaves a quarter of the
                pairs: `pool=True`.
    bias, norm  The formulas have neither; the released code has biases, and a batch norm behind W_z whose
                scale starts at 0, so that the block starts as the identity.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_choice, check_feature_map, check_positive

SIMILARITIES = ["gaussian", "embedded", "euclidean", "dot", "concatenation"]


class NonLocal(nn.Module):
    """Add to each place of a feature map a projected, similarity-weighted average over all places.

    Args:
        channels: c, the number of channels of the input.
        similarity: f, one of the five above.
        inner: channels inside; c/2 (at least 1) if None.
        scale: factor of the dot products or distances inside f; the formulas have 1.
        pool: whether keys and values come from the 2x2 max-pooled map; height and width then are at least 2.
        bias: whether theta, phi, g and W_z have biases.
        norm: whether a batch norm stands behind W_z.
        zero_start: whether its scale starts at 0, so that the block starts as the identity.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)``, the attention map (b, hw, m) from each place to the m = hw
    places (a quarter of them with ``pool``), and ``forward(x)`` (b, c, h, w). A wrong argument or shape
    raises ValueError, and so does a training batch with a single place, if there is a norm.

    Source: arXiv 1711.07971, equations (1) to (6), and its released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        similarity: str = "embedded",
        inner: int | None = None,
        scale: float = 1.0,
        pool: bool = False,
        bias: bool = True,
        norm: bool = True,
        zero_start: bool = True,
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_choice("similarity", similarity, SIMILARITIES)
        inner = max(1, channels // 2) if inner is None else inner
        check_positive("inner", inner)
        self.channels, self.similarity, self.scale, self.pool = channels, similarity, scale, pool
        embeds = similarity != "gaussian"
        self.theta = nn.Conv2d(channels, inner, 1, bias=bias) if embeds else nn.Identity()
        self.phi = nn.Conv2d(channels, inner, 1, bias=bias) if embeds else nn.Identity()
        self.g = nn.Conv2d(channels, inner, 1, bias=bias)
        self.w_f = nn.Linear(2 * inner, 1, bias=False) if similarity == "concatenation" else None
        self.W_z = nn.Conv2d(inner, channels, 1, bias=bias)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        if norm and zero_start:
            nn.init.zeros_(self.norm.weight)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta(x_i) (b, n, d), phi(x_j) (b, m, d) and g(x_j) (b, m, inner).

        d is inner (c for "gaussian"); for "euclidean" there is one feature more, 1 and -|phi(x_j)|^2/2, which
        turns the dot product into -|theta - phi|^2/2, but for |theta|^2/2, which a softmax does not see.
        """
        check_feature_map(x, self.channels)
        if self.pool and min(x.shape[2:]) < 2:
            raise ValueError(f"pool=True halves the map, which needs 2 x 2 places; got {tuple(x.shape[2:])}")
        seen = F.max_pool2d(x, 2) if self.pool else x
        q, k, v = (u.flatten(2).mT for u in (self.theta(x), self.phi(seen), self.g(seen)))
        if self.similarity == "euclidean":
            q = torch.cat([q, torch.ones_like(q[..., :1])], -1)
            k = torch.cat([k, -k.square().sum(-1, keepdim=True) / 2], -1)
        return q, k, v

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n m"]:
        """f(x_i, x_j) / C(x), from each place i to each place j."""
        q, k, _ = self.queries_keys_values(x)
        return self._weights(q, k)

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        if self.similarity == "dot":
            return self.scale * q @ k.mT / k.shape[1]  # (4)
        if self.similarity == "concatenation":
            of_q, of_k = self.w_f.weight[0].chunk(2)  # w_f . [q, k] is a sum of two products
            return self.scale * F.relu((q @ of_q)[:, :, None] + (k @ of_k)[:, None]) / k.shape[1]  # (5)
        return (self.scale * q @ k.mT).softmax(-1)  # (2), (3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        q, k, v = self.queries_keys_values(x)
        if self.similarity in ("dot", "concatenation"):
            y = self._weights(q, k) @ v  # (1)
        else:
            y = _averages(q, k, v, self.scale)
        y = y.mT.unflatten(2, x.shape[2:])  # b inner h w
        return x + self.norm(self.W_z(y))  # (6)


def _averages(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v in one operator, which need not hold the n x m weights.

    For that it wants an axis of heads, and contiguous tensors of one width: zeros change neither the dot
    products nor the other features of the values.
    """
    width = max(k.shape[-1], v.shape[-1])
    q, k, wide = (F.pad(t, (0, width - t.shape[-1]))[:, None].contiguous() for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, wide, scale=scale)[:, 0, :, : v.shape[-1]]
