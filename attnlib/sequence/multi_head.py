"""Multi-head attention: several attentions side by side, each in its own small projection of the features.

Vaswani et al.: "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762, section 3.2.2.

    head_i = Attention(x W_i^Q, y W_i^K, y W_i^V)       i = 1 ... heads
    MultiHead(x, y) = Concat(head_1, ..., head_heads) W^O

    x           (b, n, width)          what asks; width is the paper's d_model
    y           (b, m, memory_width)   what is asked, the memory; x itself in self-attention
    W_i^Q       (width, d)             d is the paper's d_k = d_v, width / heads unless it is given
    W_i^K, W_i^V  (memory_width, d)
    W^O         (heads d, width)

The linear layers W_Q, W_K and W_V hold the matrices of all heads side by side: features i d to (i + 1) d of
what they return belong to head i. nn.Linear keeps the transpose, so W_i^Q is W_Q.weight[i d : (i + 1) d].T.

Masks are boolean, broadcast to (b, n, m), the same for all heads, and True means: may attend. A query that
may attend to nothing gets zeros from every head, so that its output is the bias of W_O.

`score_bias` is added to the scores before the softmax, (heads, n, m) or (b, heads, n, m): what a relative
position is worth (attnlib.sequence.positions.RelativeBias).

Where sources differ:
    bias        The paper's formulas and its released code have none; nn.MultiheadAttention has them: `bias=`.
    d           width / heads in the text; rows (B) of the paper's table 3 keep 8 heads and make d_k smaller:
                `head_width=`, here for d_k and d_v at once.
    start       Glorot's uniform for each matrix, biases 0. nn.MultiheadAttention draws W_Q, W_K, W_V as one
                matrix, smaller by a factor sqrt(2) if the widths are equal, and W_O as nn.Linear does.
    dropout     None on the weights here and in the paper; nn.MultiheadAttention and tensor2tensor offer it.
    masks       True is "may attend" here, and "may not" in nn.MultiheadAttention, whose empty rows give NaN.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_divides, check_positive
from attnlib.sequence.scores import check_mask, masked_softmax


class MultiHeadAttention(nn.Module):
    """Attention of x to a memory (to x itself if none is given) in several heads.

    Args:
        width: features of x and of the output.
        heads: how many heads; divides width, unless ``head_width`` is given.
        bias: whether the four linear layers have biases.
        memory_width: features of the memory; width if None.
        head_width: features of a query, key and value in each head; width / heads if None.

    Shapes: x (b, n, width), memory (b, m, memory_width) -> (b, n, width). A wrong argument or shape raises
    ValueError.

    Source: arXiv 1706.03762, section 3.2.2.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        bias: bool = True,
        memory_width: int | None = None,
        head_width: int | None = None,
    ) -> None:
        super().__init__()
        if head_width is None:
            check_divides("width", width, "heads", heads)
        head_width = width // heads if head_width is None else head_width
        memory_width = width if memory_width is None else memory_width
        self.width, self.heads, self.memory_width, self.head_width = width, heads, memory_width, head_width
        for name in ("width", "heads", "memory_width", "head_width"):
            check_positive(name, getattr(self, name))
        self.W_Q = nn.Linear(width, heads * head_width, bias=bias)
        self.W_K = nn.Linear(memory_width, heads * head_width, bias=bias)
        self.W_V = nn.Linear(memory_width, heads * head_width, bias=bias)
        self.W_O = nn.Linear(heads * head_width, width, bias=bias)
        for layer in (self.W_Q, self.W_K, self.W_V, self.W_O):
            nn.init.xavier_uniform_(layer.weight)
            if bias:
                nn.init.zeros_(layer.bias)

    def split(self, x: Float[Tensor, "b n joined"]) -> Float[Tensor, "b heads n d"]:
        """Features i d to (i + 1) d become head i."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def join(self, x: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b n joined"]:
        """The heads side by side again: what ``split`` undoes."""
        return x.transpose(1, 2).flatten(-2)

    def keys_values(
        self, memory: Float[Tensor, "b m memory_width"]
    ) -> tuple[Float[Tensor, "b heads m d"], Float[Tensor, "b heads m d"]]:
        """Keys and values of every head. A decoder computes them once for each token and keeps them."""
        _check_tokens("memory", memory, "m", self.memory_width)
        return self.split(self.W_K(memory)), self.split(self.W_V(memory))

    def attend(
        self,
        x: Float[Tensor, "b n width"],
        k: Float[Tensor, "b heads m d"],
        v: Float[Tensor, "b heads m d"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
        score_bias: Float[Tensor, "... heads n m"] | None = None,
    ) -> Float[Tensor, "b n width"]:
        """The output for queries from x, and keys and values from ``keys_values``.

        torch's fused kernel does it without keeping the weights; ``weights`` returns them.
        """
        q = self._queries(x, k)
        if v.shape != k.shape:
            raise ValueError(f"expected keys and values of one shape, got {tuple(k.shape)}, {tuple(v.shape)}")
        _check_bias(score_bias, q, k)
        if mask is None:
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=score_bias)  # b heads n d
            return self.W_O(self.join(heads))
        mask = _for_all_heads(mask, q, k)
        # Kernels differ on empty rows. Such a row attends to all here, and its result is thrown away.
        nothing = ~mask.any(-1, keepdim=True)
        added = mask | nothing if score_bias is None else score_bias.where(mask | nothing, -torch.inf)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=added).masked_fill(nothing, 0)
        return self.W_O(self.join(heads))

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        memory: Float[Tensor, "b m memory_width"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        score_bias: Float[Tensor, "... heads n m"] | None = None,
    ) -> Float[Tensor, "b n width"]:
        return self.attend(
            x, *self.keys_values(x if memory is None else memory), mask=mask, score_bias=score_bias
        )

    def weights(
        self,
        x: Float[Tensor, "b n width"],
        memory: Float[Tensor, "b m memory_width"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        score_bias: Float[Tensor, "... heads n m"] | None = None,
    ) -> Float[Tensor, "b heads n m"]:
        """What each query of each head attends to: rows sum to 1, or to 0 where it may attend to nothing."""
        k, _ = self.keys_values(x if memory is None else memory)
        q = self._queries(x, k)
        _check_bias(score_bias, q, k)
        scores = q @ k.mT * self.head_width**-0.5 + (0 if score_bias is None else score_bias)
        return masked_softmax(scores, None if mask is None else _for_all_heads(mask, q, k))

    def _queries(self, x: Tensor, k: Tensor) -> Tensor:
        _check_tokens("x", x, "n", self.width)
        if k.ndim != 4 or k.shape[:2] != (len(x), self.heads) or k.shape[3] != self.head_width:
            raise ValueError(
                f"expected keys of shape ({len(x)}, {self.heads}, m, {self.head_width}) for x of shape "
                f"{tuple(x.shape)}, got {tuple(k.shape)}; x and memory should have the same batch"
            )
        return self.split(self.W_Q(x))


def _check_tokens(name: str, x: Tensor, count: str, width: int) -> None:
    if x.ndim != 3 or x.shape[2] != width:
        raise ValueError(
            f"expected {name} of shape (batch, {count}, {width}), got {tuple(x.shape)}; for one sequence add "
            f"the batch axis with {name}[None]"
        )
    if not x.is_floating_point():
        raise ValueError(f"expected floating-point {name}, got {x.dtype}; convert with {name}.float()")


def _for_all_heads(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The mask as (b or 1, 1, n, m): the axis of the heads is inserted."""
    b, n, m = len(q), q.shape[2], k.shape[2]
    check_mask(mask, (b, n, m))
    return mask.expand(mask.shape[0] if mask.ndim == 3 else 1, n, m)[:, None]


def _check_bias(score_bias: Tensor | None, q: Tensor, k: Tensor) -> None:
    wanted = (*q.shape[:3], k.shape[2])
    if score_bias is not None and score_bias.shape not in (wanted, wanted[1:]):
        raise ValueError(
            f"expected a score_bias of shape {wanted[1:]} (heads, n, m) or {wanted} (b, heads, n, m), got "
            f"{tuple(score_bias.shape)}"
        )


def from_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an nn.MultiheadAttention, renamed and cut up for ``load_state_dict`` here.

    ``memory_width`` here is kdim there, which should equal vdim. Raises ValueError if it was built with
    add_bias_kv, for which there is no place here.
    """
    if "bias_k" in state:
        raise ValueError("this attention was built with add_bias_kv=True, for which there is no place here")
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    together = "in_proj_weight" in state
    matrices = state["in_proj_weight"].chunk(3) if together else [state[name] for name in names]
    result = {f"W_{letter}.weight": weight for letter, weight in zip("QKV", matrices, strict=True)}
    result["W_O.weight"] = state["out_proj.weight"]
    if "in_proj_bias" in state:
        biases = [*state["in_proj_bias"].chunk(3), state["out_proj.bias"]]
        result |= {f"W_{letter}.bias": bias for letter, bias in zip("QKVO", biases, strict=True)}
    return result


def to_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The other way: the state dict of a MultiHeadAttention, for nn.MultiheadAttention's ``load_state_dict``.

    Raises ValueError if heads times head_width is not width, which torch's class does not have.
    """
    q, k, v, out = (state[f"W_{letter}.weight"] for letter in "QKVO")
    if q.shape[0] != q.shape[1]:
        raise ValueError(
            f"nn.MultiheadAttention has heads times head_width = width; here they are {q.shape[0]} and "
            f"{q.shape[1]}"
        )
    if q.shape == k.shape:
        result = {"in_proj_weight": torch.cat([q, k, v])}
    else:
        result = {"q_proj_weight": q, "k_proj_weight": k, "v_proj_weight": v}
    result["out_proj.weight"] = out
    if "W_Q.bias" in state:
        result["in_proj_bias"] = torch.cat([state[f"W_{letter}.bias"] for letter in "QKV"])
        result["out_proj.bias"] = state["W_O.bias"]
    return result
