"""A recurrent encoder and decoder, with attention at every step of the decoder or without.

Bahdanau, Cho, Bengio: "Neural Machine Translation by Jointly Learning to Align and Translate", ICLR 2015,
arXiv 1409.0473. Luong, Pham, Manning: "Effective Approaches to Attention-based Neural Machine Translation",
EMNLP 2015, arXiv 1508.04025.

    annotations   h_j = [forward h_j ; backward h_j]            n features each way, j = 1 ... m places
    first state   s_0 = tanh(W_s backward h_1)                  n' features

    Bahdanau      e_ij = v_a^T tanh(W_a s_(i-1) + U_a h_j)      the previous state looks,
                  a_i = softmax(e_i),  c_i = sum_j a_ij h_j
                  s_i = GRU([E y_(i-1) ; c_i], s_(i-1))         and the context enters the step

    Luong         s_i = GRU(E y_(i-1), s_(i-1))                 the step comes first,
                  e_ij = s_i^T h_j                 "dot"        and the present state looks
                  e_ij = s_i^T W_a h_j             "general"
                  e_ij = v_a^T tanh(W_a [s_i ; h_j])  "concat", the additive score with W_a cut in two
                  a_i, c_i as above

    None          c_i = [forward h_m ; backward h_1] for every i, one vector for the whole source; then as
                  in Bahdanau

    all           r_i = tanh(W_c [c_i ; s_i]),  logits_i = W_y r_i

Where sources differ:
    order       Above. In Luong's order no state depends on a context, so all steps attend at once; his
                "input feeding", which gives r_(i-1) to the next step, is left out.
    readout     Bahdanau's has a maxout layer that sees y_(i-1) too. Here all have Luong's, so that they
                differ in order and score alone.
    step        nn.GRU, which has two biases and puts its reset gate behind the product; the paper's has it
                before, and weighs old against new the other way round.
    widths      Luong's encoder runs forward only. Here it runs both ways, so "dot" needs n' = 2n.
    biases      None in scores, W_c and W_y, as in the papers; W_s has one here.

torch.compile works and returns the same, but not as one graph: it does not trace nn.GRU.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attnlib._checks import check_choice, check_positive, check_tokens
from attnlib.sequence.dot_product import padding_mask
from attnlib.sequence.scores import AdditiveScore, BilinearScore, check_mask, dot, masked_softmax

ATTENTIONS = ("additive", "dot", "general", "concat")


class RecurrentTranslator(nn.Module):
    """From the tokens of a source and of a target so far to the logits of the target's next token.

    Args:
        vocabulary: how many tokens the source has.
        target_vocabulary: how many tokens the target has.
        embedding: width of a token's embedding, in source and target.
        width: n, the encoder's features in each direction; an annotation has 2n.
        decoder_width: n', the decoder's features, also the hidden units of a score; None for 2n.
        attention: "additive" (Bahdanau), "dot", "general" or "concat" (Luong), or None for one fixed vector.

    Shapes: source (b, m) and target (b, t), whole numbers, with lengths (b,) of the sources -> logits
    (b, t, target_vocabulary): those at place i are for token i + 1 and depend on target tokens 0 ... i.
    Tokens behind a source's length do not matter. Wrong shapes, lengths and tokens raise ValueError.

    Source: arXiv 1409.0473, section 3 and appendix A; arXiv 1508.04025, section 3.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        target_vocabulary: int,
        embedding: int,
        width: int,
        decoder_width: int | None = None,
        attention: str | None = "additive",
    ) -> None:
        super().__init__()
        decoder_width = 2 * width if decoder_width is None else decoder_width
        sizes = {"vocabulary": vocabulary, "target_vocabulary": target_vocabulary, "embedding": embedding}
        for name, size in (sizes | {"width": width, "decoder_width": decoder_width}).items():
            check_positive(name, size)
        if attention is not None:
            check_choice("attention", attention, ATTENTIONS)
        if attention == "dot" and decoder_width != 2 * width:
            raise ValueError(
                f"attention='dot' compares states and annotations one feature by one, so decoder_width="
                f"{decoder_width} should be 2 * width = {2 * width}; or use 'general'"
            )
        self.attention = attention
        self.source = nn.Embedding(vocabulary, embedding)
        self.target = nn.Embedding(target_vocabulary, embedding)
        self.encoder = nn.GRU(embedding, width, batch_first=True, bidirectional=True)
        self.W_s = nn.Linear(width, decoder_width)
        context = 0 if self._state_first else 2 * width  # what enters the step besides the token
        self.decoder = nn.GRU(embedding + context, decoder_width, batch_first=True)
        self.score = None
        if attention in ("additive", "concat"):
            self.score = AdditiveScore(decoder_width, 2 * width, decoder_width)
        elif attention == "general":
            self.score = BilinearScore(decoder_width, 2 * width)
        self.W_c = nn.Linear(2 * width + decoder_width, decoder_width, bias=False)
        self.W_y = nn.Linear(decoder_width, target_vocabulary, bias=False)

    @property
    def _state_first(self) -> bool:
        return self.attention in ("dot", "general", "concat")

    def forward(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"], target: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t target_vocabulary"]:
        memory, ends = self.encode(source, lengths)
        return self._steps(target, self._first_state(ends), memory, ends, lengths)[0]

    def weights(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"], target: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t m"]:
        """What each step attends to: row i belongs to the step that predicts token i + 1."""
        if self.attention is None:
            raise ValueError("attention=None has no weights; build the translator with a score to see some")
        memory, ends = self.encode(source, lengths)
        return self._steps(target, self._first_state(ends), memory, ends, lengths)[1]

    def encode(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b m annotation"], Float[Tensor, "b annotation"]]:
        """The annotations, zeros behind a source's length, and the two ends [forward h_m ; backward h_1]."""
        check_tokens("source", source, self.source.num_embeddings)
        if lengths.shape != source.shape[:1]:
            raise ValueError(
                f"expected one length for each of {len(source)} sources, got shape {tuple(lengths.shape)}"
            )
        if ((lengths < 1) | (lengths > source.shape[1])).any():
            raise ValueError(
                f"lengths should lie between 1 and {source.shape[1]}, got {lengths.min().item()} to "
                f"{lengths.max().item()}"
            )
        # packed, so that the backward direction begins at each source's last token and not in its padding
        x = pack_padded_sequence(self.source(source), lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, last = self.encoder(x)
        memory, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.shape[1])
        return memory, torch.cat([last[0], last[1]], -1)

    def _first_state(self, ends: Float[Tensor, "b annotation"]) -> Float[Tensor, "b decoder_width"]:
        return torch.tanh(self.W_s(ends[:, self.encoder.hidden_size :]))  # backward h_1

    def _steps(
        self, target: Tensor, state: Tensor, memory: Tensor, ends: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """From the state before the first of ``target`` on: logits, weights, and the state after the last."""
        check_tokens("target", target, self.target.num_embeddings)
        mask = padding_mask(lengths, memory.shape[1])  # b 1 m
        y = self.target(target)  # b t embedding
        if self._state_first:
            states, _ = self.decoder(y, state[None])  # b t n'
            scores = dot(states, memory) if self.score is None else self.score(states, memory)
            weights = masked_softmax(scores, mask)  # b t m
            contexts = weights @ memory  # b t 2n
        elif self.attention is None:
            weights, contexts = None, ends[:, None].expand(-1, y.shape[1], -1)
            states, _ = self.decoder(torch.cat([y, contexts], -1), state[None])
        else:
            states, weights, contexts = self._additive_steps(y, state, memory, mask)
        r = torch.tanh(self.W_c(torch.cat([contexts, states], -1)))  # b t n'
        return self.W_y(r), weights, states[:, -1]

    def _additive_steps(
        self, y: Tensor, state: Tensor, memory: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        keys = self.score.U(memory)  # U_a h_j: the same at every step
        states, weights, contexts = [], [], []
        for i in range(y.shape[1]):
            e = self.score.v(torch.tanh(self.score.W(state)[:, None] + keys)).mT  # b 1 m
            weights.append(masked_softmax(e, mask))
            contexts.append(weights[-1] @ memory)  # b 1 2n
            x = torch.cat([y[:, i : i + 1], contexts[-1]], -1)
            state = self.decoder(x, state[None])[1][0]  # b n'
            states.append(state)
        return torch.stack(states, 1), torch.cat(weights, 1), torch.cat(contexts, 1)

    @torch.no_grad()
    def translate(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"], *, begin: int, end: int, limit: int
    ) -> Int[Tensor, "b t"]:
        """The most probable token at each step, given those before it.

        Args:
            begin: the token that the target starts with; the result leaves it out.
            end: the token that ends a target; behind the first there are only ends.
            limit: how many steps there are at most.
        """
        check_positive("limit", limit)
        for name, token in (("begin", begin), ("end", end)):
            if not 0 <= token < self.target.num_embeddings:
                raise ValueError(
                    f"{name}={token} is not in the target's vocabulary of {self.target.num_embeddings} tokens"
                )
        memory, ends = self.encode(source, lengths)
        state = self._first_state(ends)
        tokens, written = source.new_full((len(source), 1), begin), []
        finished = torch.zeros_like(tokens, dtype=torch.bool)
        for _ in range(limit):
            logits, _, state = self._steps(tokens, state, memory, ends, lengths)
            tokens = logits.argmax(-1).masked_fill(finished, end)
            finished = tokens == end
            written.append(tokens)
            if finished.all():
                break
        return torch.cat(written, 1)


def local_window(
    scores: Float[Tensor, "*#b n m"],
    p: Float[Tensor, "*#b n"],
    D: int,
    *,
    mask: Tensor | None = None,
) -> Float[Tensor, "*#b n m"]:
    """Luong's local weights: a softmax over the keys near p, times a Gaussian around p.

        a(s) = softmax over |s - p| <= D of the scores, times exp(-(s - p)^2 / (2 sigma^2)),  sigma = D / 2

    The product is not normalised again, so a row sums to less than 1, unless all its weight lies on a key at
    p itself. The window's borders have no gradient: p learns through the Gaussian alone.

    Args:
        scores: (..., n, m); the keys' places are s = 0 ... m - 1.
        p: (..., n), one place for each query, any real number.
        D: half the window; a whole p has 2D + 1 keys, if there are as many.
        mask: broadcasts to the scores, True = may attend.

    Returns:
        weights (..., n, m); zeros for a query whose window is empty or masked out.

    Source: arXiv 1508.04025, section 3.2.
    """
    check_positive("D", D)
    if p.shape[-1:] != scores.shape[-2:-1] or not p.is_floating_point():
        raise ValueError(
            f"expected one real place p for each query, so floating-point p of shape (..., "
            f"{scores.shape[-2]}), got {p.dtype} of shape {tuple(p.shape)}"
        )
    distance = torch.arange(scores.shape[-1], device=scores.device) - p[..., None]  # ... n m
    near = distance.abs() <= D
    if mask is not None:
        check_mask(mask, scores.shape)
        near = near & mask
    return masked_softmax(scores, near) * torch.exp(-distance.square() / (2 * (D / 2) ** 2))
