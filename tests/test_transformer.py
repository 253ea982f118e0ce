"""The Transformer against nn.Transformer and its layers, and against its equations written out."""

import copy
import re
import warnings

import pytest
import torch
from by_hand import EPS, drawn, randomised
from torch import nn

from attnlib.sequence import causal_mask, dot_product_attention, padding_mask
from attnlib.sequence.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    FeedForward,
    Transformer,
    from_torch,
)

B, N, M, WIDTH, HEADS, HIDDEN, LAYERS = 2, 5, 7, 12, 3, 10, 2
SOURCE_WORDS, TARGET_WORDS = 9, 8
each_order = pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])


def layer(kind, **options):
    return randomised(kind(WIDTH, heads=HEADS, hidden=HIDDEN, **options))


def torchs(kind, norm_first):
    """One of torch's modules, with numbers drawn for every parameter (its norms' would be 1 and 0)."""
    options = {"dim_feedforward": HIDDEN, "norm_first": norm_first, "batch_first": True, "dropout": 0.0}
    if kind is nn.Transformer:
        options |= {"num_encoder_layers": LAYERS, "num_decoder_layers": LAYERS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="enable_nested_tensor is True")  # for either order
        module = kind(WIDTH, HEADS, **options)
    return randomised(module, train=True)  # in eval torch's encoder takes a fused path of its own


def build(**options) -> Transformer:
    options = {"target_vocabulary": TARGET_WORDS, "layers": LAYERS} | options
    return randomised(Transformer(SOURCE_WORDS, width=WIDTH, heads=HEADS, hidden=HIDDEN, **options))


def words(b=B, n=M, t=N, seed=3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(SOURCE_WORDS, n), (TARGET_WORDS, t)]
    return tuple(torch.randint(most, (b, size), generator=generator) for most, size in sizes)


def some(*shape: int, seed: int = 9) -> torch.Tensor:
    """A random mask that leaves every row something."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[..., 0] = True
    return mask


def for_heads(mask: torch.Tensor) -> torch.Tensor:
    """A mask (b, n, m) in torch's form: once for each head, True = may not."""
    return ~mask.repeat_interleave(HEADS, 0)


def gradients(output, tensors):
    options = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
    return torch.autograd.grad(output, tensors, drawn(*output.shape, seed=4), **options)


def assert_all_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def assert_equal_modules(ours, theirs, run_ours, run_theirs, *inputs):
    """Output, and gradients of the inputs and of every parameter, which are joined as torch joins them."""
    inputs = [x.requires_grad_() for x in inputs]
    found, expected = run_ours(*inputs), run_theirs(*inputs)
    assert_all_close([found], [expected])
    names = dict(theirs.named_parameters())
    by_torch = gradients(expected, [*inputs, *names.values()])
    of_torch = from_torch(dict(zip(names, by_torch[len(inputs) :], strict=True)))
    assert set(of_torch) == {name for name, _ in ours.named_parameters()}
    by_us = gradients(found, [*inputs, *ours.parameters()])
    assert_all_close(by_us[: len(inputs)], by_torch[: len(inputs)])
    for (name, _), gradient in zip(ours.named_parameters(), by_us[len(inputs) :], strict=True):
        assert_all_close([gradient], [of_torch[name]])


ENCODER_MASKS = {
    "none": (None, {}),
    "padding": (
        padding_mask(torch.tensor([3, M]), M),
        {"src_key_padding_mask": ~padding_mask(torch.tensor([3, M]), M)[:, 0]},
    ),
    "causal": (causal_mask(M), {"src_mask": ~causal_mask(M)}),
    "by sequence": (some(B, M, M), {"src_mask": for_heads(some(B, M, M))}),
    "both": (
        padding_mask(torch.tensor([3, M]), M) & causal_mask(M),
        {"src_mask": ~causal_mask(M), "src_key_padding_mask": ~padding_mask(torch.tensor([3, M]), M)[:, 0]},
    ),
}
PADDING = padding_mask(torch.tensor([4, M]), M)
DECODER_MASKS = {
    "none": ({}, {}),
    "causal": ({"mask": causal_mask(N)}, {"tgt_mask": ~causal_mask(N)}),
    "causal and memory": (
        {"mask": causal_mask(N), "memory_mask": PADDING},
        {"tgt_mask": ~causal_mask(N), "memory_key_padding_mask": ~PADDING[:, 0]},
    ),
    "by sequence": (
        {"mask": some(B, N, N), "memory_mask": some(B, N, M, seed=8)},
        {"tgt_mask": for_heads(some(B, N, N)), "memory_mask": for_heads(some(B, N, M, seed=8))},
    ),
}


@each_order
@pytest.mark.parametrize("name", ENCODER_MASKS)
def test_the_encoder_layer_equals_torch(name, norm_first):
    ours, theirs = layer(EncoderLayer, norm_first=norm_first), torchs(nn.TransformerEncoderLayer, norm_first)
    ours.load_state_dict(from_torch(theirs.state_dict()))
    mask, options = ENCODER_MASKS[name]
    assert_equal_modules(
        ours, theirs, lambda x: ours(x, mask=mask), lambda x: theirs(x, **options), drawn(B, M, WIDTH)
    )


@each_order
@pytest.mark.parametrize("name", DECODER_MASKS)
def test_the_decoder_layer_equals_torch(name, norm_first):
    ours, theirs = layer(DecoderLayer, norm_first=norm_first), torchs(nn.TransformerDecoderLayer, norm_first)
    ours.load_state_dict(from_torch(theirs.state_dict()))
    masks, options = DECODER_MASKS[name]
    assert_equal_modules(
        ours,
        theirs,
        lambda x, y: ours(x, y, **masks),
        lambda x, y: theirs(x, y, **options),
        drawn(B, N, WIDTH),
        drawn(B, M, WIDTH, seed=1),
    )


@each_order
def test_both_stacks_equal_torch(norm_first):
    """With the last norms of nn.Transformer; and without them, with torch's norms taken out."""
    theirs = torchs(nn.Transformer, norm_first)
    masks, options = DECODER_MASKS["causal and memory"]
    for final_norm in (True, False):
        ours = build(norm_first=norm_first, final_norm=final_norm)
        if not final_norm:
            theirs.encoder.norm = theirs.decoder.norm = None
        missing, unexpected = ours.load_state_dict(from_torch(theirs.state_dict()), strict=False)
        assert not unexpected
        assert missing == ["source.weight", "target.weight"]
        body = nn.ModuleDict({"encoder": ours.encoder, "decoder": ours.decoder})
        assert_equal_modules(
            body,
            theirs,
            lambda x, y, ours=ours: ours.decoder(y, ours.encoder(x, mask=PADDING), **masks),
            lambda x, y: theirs(x, y, src_key_padding_mask=~PADDING[:, 0], **options),
            drawn(B, M, WIDTH),
            drawn(B, N, WIDTH, seed=1),
        )


def normal(x, norm):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return norm.weight * (x - mean) / (variance + EPS).sqrt() + norm.bias


def attention(module, x, y, mask=None):
    q, k, v = x @ module.W_Q.weight.T, y @ module.W_K.weight.T, y @ module.W_V.weight.T
    if module.W_Q.bias is not None:
        q, k, v = q + module.W_Q.bias, k + module.W_K.bias, v + module.W_V.bias
    d, heads = WIDTH // HEADS, []
    for i in range(HEADS):
        own = slice(i * d, (i + 1) * d)
        heads.append(dot_product_attention(q[..., own], k[..., own], v[..., own], mask=mask)[0])
    out = torch.cat(heads, -1) @ module.W_O.weight.T
    return out if module.W_O.bias is None else out + module.W_O.bias


def feed_forward(module, x):
    hidden = (x @ module.W_1.weight.T + module.W_1.bias).clamp(min=0)
    return hidden @ module.W_2.weight.T + module.W_2.bias


@each_order
@pytest.mark.parametrize("attention_bias", [False, True])
def test_the_whole_from_its_equations(norm_first, attention_bias):
    model = build(norm_first=norm_first, attention_bias=attention_bias)
    source, target = words()

    def add(x, f, norm):
        return x + f(normal(x, norm)) if norm_first else normal(x + f(x), norm)

    def embedded(table, tokens):
        places = torch.zeros(tokens.shape[1], WIDTH, dtype=torch.float64)
        for p in range(tokens.shape[1]):
            for i in range(WIDTH // 2):
                angle = torch.tensor(p / 10_000 ** (2 * i / WIDTH), dtype=torch.float64)
                places[p, 2 * i], places[p, 2 * i + 1] = angle.sin(), angle.cos()
        return WIDTH**0.5 * table.weight[tokens] + places

    def whole():
        x, y, past = embedded(model.source, source), embedded(model.target, target), causal_mask(N)
        for part in model.encoder.layers:
            x = add(x, lambda x, p=part: attention(p.attention, x, x, PADDING), part.norm_1)
            x = add(x, lambda x, p=part: feed_forward(p.feed_forward, x), part.norm_2)
        x = normal(x, model.encoder.norm) if norm_first else x
        for part in model.decoder.layers:
            y = add(y, lambda y, p=part: attention(p.attention, y, y, past), part.norm_1)
            y = add(y, lambda y, p=part: attention(p.cross_attention, y, x, PADDING), part.norm_2)
            y = add(y, lambda y, p=part: feed_forward(p.feed_forward, y), part.norm_3)
        y = normal(y, model.decoder.norm) if norm_first else y
        return y @ model.target.weight.T

    found, expected = model(source, target, mask=PADDING), whole()
    assert_all_close([found], [expected])
    leaves = list(model.parameters())
    assert_all_close(gradients(found, leaves), gradients(expected, leaves))
    # keys' biases have no effect, since a softmax does not see what a row's scores share
    for (name, _), gradient in zip(model.named_parameters(), gradients(found, leaves), strict=True):
        assert name.endswith("W_K.bias") or gradient.abs().max() > 1e-6, name


def test_by_hand():
    """Attention with W_O = 0 adds nothing; the norm of (1, 3) is (-1, 1); the FFN doubles what is above 0."""
    module = EncoderLayer(2, heads=1, hidden=2, dropout=0.0).double()
    with torch.no_grad():
        module.attention.W_O.weight.zero_()
        module.feed_forward.W_1.weight.copy_(torch.eye(2))
        module.feed_forward.W_2.weight.copy_(2 * torch.eye(2))
        module.norm_2.weight.copy_(torch.tensor([5.0, 7.0]))
    x = torch.tensor([[[1.0, 3.0]]]).double()
    # (-1, 1) + (0, 2) = (-1, 3), whose norm is (-1, 1) again
    torch.testing.assert_close(module(x), torch.tensor([[[-5.0, 7.0]]]).double(), rtol=1e-4, atol=0)
    module.norm_first = True
    # x = (1, 3); its norm (-1, 1) times (5, 7) is (-5, 7), of which 2 max(0, .) = (0, 14) is added
    torch.testing.assert_close(module(x), torch.tensor([[[1.0, 17.0]]]).double(), rtol=1e-4, atol=0)


@each_order
def test_padding_does_not_leak(norm_first):
    """What stands in padded places changes nothing, and the padding may as well be left off."""
    model, lengths = build(norm_first=norm_first), torch.tensor([4, 6])
    source, target = words()
    mask, other = padding_mask(lengths, M), source.clone()
    for i, length in enumerate(lengths):
        other[i, length:] = (other[i, length:] + 1 + i) % SOURCE_WORDS
    assert not torch.equal(source, other)
    found = model(source, target, mask=mask)
    assert torch.equal(found, model(other, target, mask=mask))
    own = gradients(found, list(model.encoder.parameters()))
    assert_all_close(gradients(model(other, target, mask=mask), list(model.encoder.parameters())), own)
    for i, length in enumerate(lengths):
        assert_all_close([model(source[i : i + 1, :length], target[i : i + 1])], [found[i : i + 1]])
    assert (model(source, target) - found).abs().max() > 1e-3
    a, b = model.weights(source, target, mask=mask), model.weights(other, target, mask=mask)
    assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))


@each_order
def test_the_decoder_does_not_see_what_follows(norm_first):
    model = build(norm_first=norm_first)
    source, target = words()
    whole = model(source, target)
    for t in range(1, N):
        changed = target.clone()
        changed[:, t:] = (changed[:, t:] + 1) % TARGET_WORDS
        assert torch.equal(model(source, changed)[:, :t], whole[:, :t])
        assert ((model(source, changed) - whole)[:, t:].abs().amax(-1) > 1e-6).all()
        assert_all_close([model(source, target[:, :t])], [whole[:, :t]])


@each_order
def test_who_influences_whom(norm_first):
    """Every source place reaches every memory and output; a target place only the outputs from its own on."""
    model = build(norm_first=norm_first)
    x, y = drawn(1, M, WIDTH).requires_grad_(), drawn(1, N, WIDTH, seed=1).requires_grad_()
    memory = model.encoder(x)
    output = model.decoder(y, memory, mask=causal_mask(N))
    upstream = drawn(WIDTH, seed=5)
    for i in range(M):
        (of_x,) = torch.autograd.grad(memory[0, i] @ upstream, x, retain_graph=True)
        assert (of_x[0].abs().amax(-1) > 1e-6).all()
    for i in range(N):
        of_x, of_y = torch.autograd.grad(output[0, i] @ upstream, (x, y), retain_graph=True)
        assert (of_x[0].abs().amax(-1) > 1e-6).all()
        assert (of_y[0, : i + 1].abs().amax(-1) > 1e-6).all()
        assert (of_y[0, i + 1 :] == 0).all()


@each_order
def test_tokens_in_pieces_equal_tokens_at_once(norm_first):
    """``advance`` with the keys and values of the past, one, two or three tokens at a time."""
    module = layer(DecoderLayer, norm_first=norm_first)
    x, memory = drawn(B, 6, WIDTH), drawn(B, M, WIDTH, seed=1)
    expected = module(x, memory, mask=causal_mask(6), memory_mask=PADDING)
    of_memory, past, found = module.cross_attention.keys_values(memory), None, []
    for start, stop in ((0, 1), (1, 3), (3, 6)):
        mask = causal_mask(6)[start:stop, :stop]
        y, past = module.advance(x[:, start:stop], past, of_memory, mask=mask, memory_mask=PADDING)
        found.append(y)
        assert past[0].shape == past[1].shape == (B, HEADS, stop, WIDTH // HEADS)
    assert_all_close([torch.cat(found, 1)], [expected])


@each_order
def test_weights(norm_first):
    model = build(norm_first=norm_first)
    source, target = words()
    found = model.weights(source, target, mask=PADDING)
    assert len(found) == LAYERS
    memory, y = model.encode(source, mask=PADDING), model.embed("target", target)
    for weights, part in zip(found, model.decoder.layers, strict=True):
        assert weights.shape == (B, HEADS, N, M)
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, N).double())
        assert (weights[0, :, :, 4:] == 0).all()
        cross = part.cross_attention
        by_layer = part.weights(y, memory, mask=causal_mask(N), memory_mask=PADDING)
        assert torch.equal(by_layer, weights)
        # what the weights average, put through W_O, is what the second sub-layer adds
        after = part.after(y, part.attention(part.before(y, part.norm_1), mask=causal_mask(N)), part.norm_1)
        _, v = cross.keys_values(memory)
        added = cross.W_O(cross.join(weights @ v))
        assert_all_close([cross(part.before(after, part.norm_2), memory, mask=PADDING)], [added])
        y = part(y, memory, mask=causal_mask(N), memory_mask=PADDING)
    first = model.encoder.layers[0]
    x = model.embed("source", source)
    seen = normal(x, first.norm_1) if norm_first else x
    assert_all_close([first.weights(x, mask=PADDING)], [first.attention.weights(seen, mask=PADDING)])


@each_order
def test_a_source_of_padding_alone_gives_finite_numbers(norm_first):
    model, mask = build(norm_first=norm_first), padding_mask(torch.tensor([0, M]), M)
    source, target = words()
    found = model(source, target, mask=mask)
    assert found.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(found, list(model.parameters())))
    assert_all_close([found[1:]], [model(source, target)[1:]])


def test_shuffled_layers_of_the_encoder_shuffle_with_their_input():
    """Without positions the stack does not know any order."""
    model, order = build(), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    x = drawn(B, M, WIDTH)
    assert_all_close([model.encoder(x[:, order])], [model.encoder(x)[:, order]])
    source, target = words()
    assert (model(source[:, order], target) - model(source, target)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"attention_bias": False}, 44_101_632),
        ({"attention_bias": False, "final_norm": True}, 44_101_632 + 2_048),
        ({"final_norm": True}, 44_140_544),
        ({"norm_first": True}, 44_140_544),
        ({}, 44_101_632 + 36_864),
    ],
)
def test_parameters_of_the_base_model(options, count):
    with torch.device("meta"):
        model = Transformer(37_000, **options)
        torchs_own = nn.Transformer(batch_first=True)
    body = [*model.encoder.parameters(), *model.decoder.parameters()]
    assert sum(p.numel() for p in body) == count
    assert sum(p.numel() for p in model.parameters()) == count + 37_000 * 512  # one table
    assert sum(p.numel() for p in torchs_own.parameters()) == 44_140_544


def test_one_table_or_two():
    one, two = build(target_vocabulary=None), build()
    assert one.target is one.source
    assert two.target.weight.shape == (TARGET_WORDS, WIDTH)
    source, _ = words(n=N)
    assert one(source, source).shape == (B, N, SOURCE_WORDS)
    assert set(dict(one.named_parameters())) == set(dict(two.named_parameters())) - {"target.weight"}


@each_order
def test_dropout_falls_on_what_is_added_and_on_the_embedding(norm_first):
    """With dropout 1 every sub-layer adds nothing, and the tokens are 0."""
    module = layer(EncoderLayer, norm_first=norm_first, dropout=1.0).train()
    x = drawn(B, N, WIDTH)
    expected = x if norm_first else normal(normal(x, module.norm_1), module.norm_2)
    assert_all_close([module(x)], [expected])
    assert (module.eval()(x) - expected).abs().max() > 0.1
    model, (source, target) = build(norm_first=norm_first, dropout=1.0).train(), words()
    assert (model.embed("source", source) == 0).all()
    assert (model(source, target) - model.eval()(source, target)).abs().max() > 0.1
    model = build(dropout=0.0).train()
    assert torch.equal(model(source, target), model.eval()(source, target))


def test_the_start():
    """Tokens start with variance 1 after the factor sqrt(width), matrices with Glorot's bounds."""
    torch.manual_seed(0)
    model = Transformer(3_000, width=64, heads=2, hidden=200, layers=1)
    assert (model.source.weight.std() * 8).item() == pytest.approx(1, rel=0.02)
    ffn = model.encoder.layers[0].feed_forward
    for matrix in (ffn.W_1.weight, ffn.W_2.weight):
        assert matrix.std().item() == pytest.approx((2 / 264) ** 0.5, rel=0.03)
    assert (ffn.W_1.bias == 0).all() and (ffn.W_2.bias == 0).all()
    torch.testing.assert_close(
        model.eval().embed("source", torch.tensor([[5, 6]]), start=3),
        model.positions(8 * model.source.weight[None, 5:7], start=3),
    )


@each_order
def test_gradcheck(norm_first):
    module = randomised(DecoderLayer(4, heads=2, hidden=3, norm_first=norm_first, dropout=0.0))
    x, memory = drawn(1, 3, 4).requires_grad_(), drawn(1, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: module(x, y, mask=causal_mask(3)), [x, memory])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_order
def test_other_precisions_stay_near(dtype, norm_first):
    model, (source, target) = build(norm_first=norm_first), words()
    few = copy.deepcopy(model).to(dtype)
    found, expected = few(source, target, mask=PADDING), model(source, target, mask=PADDING)
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.3)


def test_inputs_stay_as_they_are_and_states_load():
    model, (source, target) = build(), words()
    kept = source.clone(), target.clone(), PADDING.clone()
    found = model(source, target, mask=PADDING)
    assert all(torch.equal(a, b) for a, b in zip(kept, (source, target, PADDING), strict=True))
    fresh = build(target_vocabulary=TARGET_WORDS)
    for p in fresh.parameters():
        p.data += 1
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(source, target, mask=PADDING), found)


@pytest.mark.no_shape_hook
@each_order
def test_compiles_without_a_graph_break(norm_first):
    torch.compiler.reset()
    model, (source, target) = build(norm_first=norm_first), words()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found, expected = compiled(source, target, mask=PADDING), model(source, target, mask=PADDING)
    assert_all_close([found], [expected])
    assert_all_close(
        gradients(found, list(model.parameters())), gradients(expected, list(model.parameters()))
    )


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m, x, y: Transformer(0), "vocabulary=0 should be a whole number of at least 1"),
        (lambda m, x, y: Transformer(9, layers=0), "layers=0 should be a whole number of at least 1"),
        (
            lambda m, x, y: Transformer(9, target_vocabulary=-1),
            "target_vocabulary=-1 should be a whole number of at least 1",
        ),
        (
            lambda m, x, y: Transformer(9, width=12, heads=5, layers=1),
            "width=12 is not divisible by heads=5; use 4 or 6",
        ),
        (lambda m, x, y: FeedForward(12, 0), "hidden=0 should be a whole number of at least 1"),
        (lambda m, x, y: Encoder([]), "expected at least one layer, got none"),
        (lambda m, x, y: Decoder([]), "expected at least one layer, got none"),
        (
            lambda m, x, y: m(x[:, :0], y),
            "expected source of shape (batch, tokens) with at least one token, got (2, 0)",
        ),
        (
            lambda m, x, y: m(x, y[0]),
            "expected target of shape (batch, tokens) with at least one token, got (5,)",
        ),
        (
            lambda m, x, y: m(x.float(), y),
            "expected whole numbers as source, got torch.float32",
        ),
        (
            lambda m, x, y: m(torch.full_like(x, 9), y),
            "source[0, 0] is 9; with 9 tokens in the vocabulary expected 0 to 8",
        ),
        (
            lambda m, x, y: m(x, torch.tensor([[1, 2], [3, -1]])),
            "target[1, 1] is -1; with 8 tokens in the vocabulary expected 0 to 7",
        ),
        (
            lambda m, x, y: m(x, y[:1]),
            "expected keys of shape (1, 3, m, 4) for x of shape (1, 5, 12), got (2, 3, 7, 4); x and memory "
            "should have the same batch",
        ),
        (
            lambda m, x, y: m(x, y, mask=torch.ones(2, 1, 5, dtype=torch.bool)),
            "a mask of shape (2, 1, 5) does not broadcast to scores of shape (2, 7, 7) (..., queries, keys); "
            "give it axes of the same size or of size 1",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(build(), *words())
