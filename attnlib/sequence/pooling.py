"""Attention pooling: one learned query turns a sequence of any length into one vector.

Yang, Yang, Dyer, He, Smola, Hovy: "Hierarchical Attention Networks for Document Classification", NAACL 2016
(N16-1174), section 2.2.

    u_t = tanh(W h_t + b)               h (b, n, width) -> u (b, n, hidden)
    alpha_t = softmax over t (u_t . u_w)   u_w (hidden), learned -> alpha (b, n)
    s = sum_t alpha_t h_t               s (b, width)

It is additive attention (AdditiveScore) with the query left out: u_w stands where Bahdanau has v.

Where sources differ:
    score       Some copies leave out the hidden layer, so that the score is u_w . h_t; some put a bias
                behind u_w, which a softmax does not see.
    mask        The paper has none; padded places need one, or they take a share of the average.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlib._checks import check_positive
from attnlib.sequence.scores import masked_softmax


class AttentionPooling(nn.Module):
    """The average of a sequence under weights that each place earns by its own content.

    Args:
        width: features of each place.
        hidden: units of the layer that scores them; width if None.

    Shapes: h (b, n, width) -> ``weights(h)`` (b, n) and ``forward(h)`` (b, width). ``mask`` is boolean,
    True = may be attended to, and broadcasts to (b, 1, n), as ``padding_mask`` returns it; a sequence without
    any place gives zeros. Wrong shapes raise ValueError.

    Source: N16-1174, section 2.2.
    """

    def __init__(self, width: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = width if hidden is None else hidden
        check_positive("width", width)
        check_positive("hidden", hidden)
        self.W = nn.Linear(width, hidden)
        self.u_w = nn.Linear(hidden, 1, bias=False)

    def weights(
        self, h: Float[Tensor, "b n width"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "b n"]:
        """The share of each place; they sum to 1, or to 0 where there is no place to attend to."""
        if h.ndim != 3 or h.shape[2] != self.W.in_features:
            raise ValueError(f"expected h of shape (batch, n, {self.W.in_features}), got {tuple(h.shape)}")
        scores = self.u_w(torch.tanh(self.W(h))).mT  # one query: b 1 n
        return masked_softmax(scores, mask)[:, 0]

    def forward(
        self, h: Float[Tensor, "b n width"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "b width"]:
        return (self.weights(h, mask=mask)[:, None] @ h)[:, 0]
