"""The Transformer: an encoder and a decoder made of attention, with no recurrence.

Vaswani et al.: "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762, section 3.

    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2                                    (2)
    encoder layer   x <- Norm(x + SelfAttention(x))         x (b, n, width)   3.1
                    x <- Norm(x + FFN(x))
    decoder layer   y <- Norm(y + MaskedSelfAttention(y))   y (b, t, width)
                    y <- Norm(y + Attention(y, memory))     memory (b, n, width), what the encoder returns
                    y <- Norm(y + FFN(y))
    tokens          sqrt(width) E[token] + PE(place)                          3.4, 3.5
    logits          y E^T                                                     3.4: the same E

    width  the paper's d_model, 512        heads   8, of width 64 each
    hidden the paper's d_ff, 2048          layers  its N, 6, for encoder and decoder each

Masks are boolean and True means: may attend. A sequence that is only padding gives finite numbers.

Where sources differ:
    norm        x <- Norm(x + F(x)) is the paper's ("post"). tensor2tensor soon went over to
                x <- x + F(Norm(x)) ("pre"): `norm_first=True`; why is in Xiong et al., arXiv 2002.04745.
    last norm   A stack of "pre" layers needs a norm behind it, since its sum was never normalised; the
                paper's has none. nn.Transformer puts one behind both stacks for either order:
                `final_norm=True`. None for what the order needs.
    biases      The attention of the released code has none, nn.Transformer's has: `attention_bias=`.
    dropout     On what each sub-layer adds, and on the embedded tokens, as in section 5.4. nn.Transformer
                and later tensor2tensor also drop attention weights and hidden units.
    tokens      One E for both languages and the logits if `target_vocabulary` is None, as in the paper;
                else the target's own E gives the logits. E starts at N(0, 1 / width).
    eps         1e-5 in the norms, as in torch; tensor2tensor has 1e-6.
"""

import re
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlib._checks import check_positive, check_tokens
from attnlib.sequence import multi_head
from attnlib.sequence.dot_product import causal_mask
from attnlib.sequence.multi_head import MultiHeadAttention
from attnlib.sequence.positions import SinusoidalPositions

Mask = Bool[Tensor, "..."]
KeysValues = tuple[Float[Tensor, "b heads _ d"], Float[Tensor, "b heads _ d"]]


class FeedForward(nn.Module):
    """Equation (2): two linear layers, applied to every token on its own. (b, n, width) -> (b, n, width)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        check_positive("hidden", hidden)
        self.W_1, self.W_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for layer in (self.W_1, self.W_2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        return self.W_2(self.W_1(x).relu())


class _Layer(nn.Module):
    """What encoder and decoder layers share: x goes straight on, and each sub-layer adds a change to it.

    Args:
        width: features of a token.
        heads: of each attention; divides width.
        hidden: units of the feed-forward network.
        norm_first, dropout, attention_bias: see the top of this file.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        norm_first: bool = False,
        dropout: float = 0.1,
        attention_bias: bool = True,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads=heads, bias=attention_bias)
        self.feed_forward = FeedForward(width, hidden)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_first, self.dropout = norm_first, nn.Dropout(dropout)

    def before(self, x: Float[Tensor, "b n width"], norm: nn.Module) -> Float[Tensor, "b n width"]:
        """What the sub-layer sees."""
        return norm(x) if self.norm_first else x

    def after(
        self, x: Float[Tensor, "b n width"], change: Float[Tensor, "b n width"], norm: nn.Module
    ) -> Float[Tensor, "b n width"]:
        """x with what the sub-layer adds to it."""
        x = x + self.dropout(change)
        return x if self.norm_first else norm(x)


class EncoderLayer(_Layer):
    """Self-attention, then a feed-forward network.

    Shapes: x (b, n, width) -> (b, n, width); ``mask`` broadcasts to (b, n, n). Wrong arguments or shapes
    raise ValueError.
    """

    def forward(
        self, x: Float[Tensor, "b n width"], *, mask: Mask | None = None
    ) -> Float[Tensor, "b n width"]:
        x = self.after(x, self.attention(self.before(x, self.norm_1), mask=mask), self.norm_1)
        return self.after(x, self.feed_forward(self.before(x, self.norm_2)), self.norm_2)

    def weights(
        self, x: Float[Tensor, "b n width"], *, mask: Mask | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """What each token attends to."""
        return self.attention.weights(self.before(x, self.norm_1), mask=mask)


class DecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output (the memory), then a feed-forward network.

    Shapes: x (b, n, width), memory (b, m, width) -> (b, n, width). ``mask`` broadcasts to (b, n, n): without
    it every token sees those behind it as well. ``memory_mask`` broadcasts to (b, n, m).
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        norm_first: bool = False,
        dropout: float = 0.1,
        attention_bias: bool = True,
    ) -> None:
        super().__init__(
            width,
            heads=heads,
            hidden=hidden,
            norm_first=norm_first,
            dropout=dropout,
            attention_bias=attention_bias,
        )
        self.cross_attention = MultiHeadAttention(width, heads=heads, bias=attention_bias)
        self.norm_3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        memory: Float[Tensor, "b m width"],
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
    ) -> Float[Tensor, "b n width"]:
        of_memory = self.cross_attention.keys_values(memory)
        return self.advance(x, None, of_memory, mask=mask, memory_mask=memory_mask)[0]

    def advance(
        self,
        x: Float[Tensor, "b n width"],
        past: KeysValues | None,
        of_memory: KeysValues,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
    ) -> tuple[Float[Tensor, "b n width"], KeysValues]:
        """``forward`` for tokens x that follow others, whose keys and values are ``past`` (None for none).

        The memory comes as its keys and values. Returns the output for x, and the keys and values of all
        tokens so far, which are the next call's ``past``. ``mask`` broadcasts to (b, n, all tokens so far).
        """
        x, present = self._look_back(x, past, mask)
        seen = self.before(x, self.norm_2)
        x = self.after(x, self.cross_attention.attend(seen, *of_memory, mask=memory_mask), self.norm_2)
        return self.after(x, self.feed_forward(self.before(x, self.norm_3)), self.norm_3), present

    def weights(
        self,
        x: Float[Tensor, "b n width"],
        memory: Float[Tensor, "b m width"],
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
    ) -> Float[Tensor, "b heads n m"]:
        """What each token attends to in the memory."""
        x, _ = self._look_back(x, None, mask)
        return self.cross_attention.weights(self.before(x, self.norm_2), memory, mask=memory_mask)

    def _look_back(self, x: Tensor, past: KeysValues | None, mask: Mask | None) -> tuple[Tensor, KeysValues]:
        """The first sub-layer: attention to the tokens so far; and their keys and values."""
        seen = self.before(x, self.norm_1)
        k, v = self.attention.keys_values(seen)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)  # b heads (past + n) d
        return self.after(x, self.attention.attend(seen, k, v, mask=mask), self.norm_1), (k, v)


class Encoder(nn.Module):
    """Encoder layers, one behind the other, and a last norm: None for one if the layers are "pre".

    Shapes: x (b, n, width) -> (b, n, width); ``mask`` broadcasts to (b, n, n).
    """

    def __init__(self, layers: Iterable[EncoderLayer], *, final_norm: bool | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = _last_norm(self.layers, final_norm)

    def forward(
        self, x: Float[Tensor, "b n width"], *, mask: Mask | None = None
    ) -> Float[Tensor, "b n width"]:
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.norm(x)


class Decoder(nn.Module):
    """Decoder layers, one behind the other, and a last norm: None for one if the layers are "pre".

    Shapes: x (b, n, width), memory (b, m, width) -> (b, n, width); masks as in DecoderLayer.
    """

    def __init__(self, layers: Iterable[DecoderLayer], *, final_norm: bool | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = _last_norm(self.layers, final_norm)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        memory: Float[Tensor, "b m width"],
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
    ) -> Float[Tensor, "b n width"]:
        for layer in self.layers:
            x = layer(x, memory, mask=mask, memory_mask=memory_mask)
        return self.norm(x)


def _last_norm(layers: nn.ModuleList, final_norm: bool | None) -> nn.Module:
    if len(layers) == 0:
        raise ValueError("expected at least one layer, got none")
    wanted = layers[0].norm_first if final_norm is None else final_norm
    return nn.LayerNorm(layers[0].attention.width) if wanted else nn.Identity()


class Transformer(nn.Module):
    """From the tokens of one sequence, and those of another so far, to the logits of the other's next token.

    Args:
        vocabulary: how many tokens there are; of the source if ``target_vocabulary`` is given.
        target_vocabulary: how many tokens the target has; None for one vocabulary for both.
        width, heads, hidden, layers: see the top of this file; the defaults are the paper's base model.
        norm_first, dropout, attention_bias, final_norm: as there.

    Shapes: source (b, n) and target (b, t), whole numbers -> logits (b, t, target_vocabulary): those at place
    i are for token i + 1 and depend on target tokens 0 ... i. ``mask`` broadcasts to (b, t, n) and (b, n, n),
    as padding_mask(lengths, n) does. Raises ValueError for a sequence without tokens or with unknown ones.

    Source: arXiv 1706.03762, section 3.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        target_vocabulary: int | None = None,
        width: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        layers: int = 6,
        norm_first: bool = False,
        dropout: float = 0.1,
        attention_bias: bool = True,
        final_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_positive("vocabulary", vocabulary)
        check_positive("layers", layers)
        self.source = nn.Embedding(vocabulary, width)
        self.target = self.source
        if target_vocabulary is not None:
            check_positive("target_vocabulary", target_vocabulary)
            self.target = nn.Embedding(target_vocabulary, width)
        for table in (self.source, self.target):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.positions, self.dropout = SinusoidalPositions(width), nn.Dropout(dropout)

        def stack(kind):
            for _ in range(layers):
                yield kind(
                    width,
                    heads=heads,
                    hidden=hidden,
                    norm_first=norm_first,
                    dropout=dropout,
                    attention_bias=attention_bias,
                )

        self.encoder = Encoder(stack(EncoderLayer), final_norm=final_norm)
        self.decoder = Decoder(stack(DecoderLayer), final_norm=final_norm)

    def forward(
        self, source: Int[Tensor, "b n"], target: Int[Tensor, "b t"], *, mask: Mask | None = None
    ) -> Float[Tensor, "b t vocabulary"]:
        return self.decode(target, self.encode(source, mask=mask), mask=mask)

    def encode(self, source: Int[Tensor, "b n"], *, mask: Mask | None = None) -> Float[Tensor, "b n width"]:
        """The memory: each source token, having seen all others."""
        return self.encoder(self.embed("source", source), mask=mask)

    def decode(
        self, target: Int[Tensor, "b t"], memory: Float[Tensor, "b n width"], *, mask: Mask | None = None
    ) -> Float[Tensor, "b t vocabulary"]:
        """The logits of every next token at once. ``mask`` is the memory's."""
        x = self.embed("target", target)
        past = causal_mask(x.shape[1]).to(x.device)
        return self.logits(self.decoder(x, memory, mask=past, memory_mask=mask))

    def embed(self, which: str, tokens: Int[Tensor, "b n"], *, start: int = 0) -> Float[Tensor, "b n width"]:
        """What the stack of the "source" or the "target" is given, for tokens at places from ``start``."""
        table = getattr(self, which)
        check_tokens(which, tokens, table.num_embeddings)
        x = table(tokens) * table.embedding_dim**0.5
        return self.dropout(self.positions(x, start=start))

    def logits(self, y: Float[Tensor, "b t width"]) -> Float[Tensor, "b t vocabulary"]:
        """The score of each token: how well its embedding fits what the decoder returns."""
        return y @ self.target.weight.T

    def weights(
        self, source: Int[Tensor, "b n"], target: Int[Tensor, "b t"], *, mask: Mask | None = None
    ) -> list[Float[Tensor, "b heads t n"]]:
        """What each target token attends to in the source, by decoder layer."""
        memory, x = self.encode(source, mask=mask), self.embed("target", target)
        past, found = causal_mask(x.shape[1]).to(x.device), []
        for layer in self.decoder.layers:
            found.append(layer.weights(x, memory, mask=past, memory_mask=mask))
            x = layer(x, memory, mask=past, memory_mask=mask)
        return found


def from_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an nn.Transformer, or of one of torch's encoders, decoders or layers, renamed.

    Load it into the module of the same kind here, built with ``final_norm=True`` if the stack has one, as
    nn.Transformer's have. A Transformer has embeddings besides: there ``load_state_dict(..., strict=False)``.
    """
    result, attentions = {}, {}
    for name, tensor in state.items():
        name = name.replace("self_attn", "attention").replace("multihead_attn", "cross_attention")
        name = re.sub(r"linear(\d)", r"feed_forward.W_\1", re.sub(r"norm(\d)", r"norm_\1", name))
        front, found, rest = name.partition("attention.")
        if found:
            attentions.setdefault(front + found, {})[rest] = tensor
        else:
            result[name] = tensor
    for front, attention in attentions.items():
        result |= {front + name: tensor for name, tensor in multi_head.from_torch(attention).items()}
    return result
