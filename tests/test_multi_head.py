"""Multi-head attention against one attention for each head, and against nn.MultiheadAttention."""

import copy
import math
import re

import pytest
import torch
from by_hand import drawn, randomised
from torch import nn

from attnlib.lab.cost import saved_bytes
from attnlib.sequence import causal_mask, dot_product_attention, padding_mask
from attnlib.sequence.multi_head import MultiHeadAttention, from_torch, to_torch

B, N, M, HEADS, D, WIDTH, MEMORY = 2, 5, 7, 3, 4, 12, 10
FORMS = [{}, {"bias": False}, {"memory_width": MEMORY}, {"memory_width": MEMORY, "bias": False}]
each_form = pytest.mark.parametrize("options", FORMS, ids=["plain", "no bias", "memory", "memory, no bias"])


def random_mask(*shape: int) -> torch.Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.5
    mask[..., 2] = True
    return mask


MASKS = {
    "none": None,
    "causal": causal_mask(N, M),
    "padding": padding_mask(torch.tensor([4, 7]), M),
    "by batch": random_mask(B, N, M),
    "for all": random_mask(N, M),
    "one batch": random_mask(1, N, M),
    "one row": random_mask(M),
    "one column": torch.ones(B, N, 1, dtype=torch.bool),
    "no axes": torch.tensor(True),
}
each_mask = pytest.mark.parametrize("name", MASKS)


def build(**options) -> MultiHeadAttention:
    return randomised(MultiHeadAttention(WIDTH, heads=HEADS, **options))


def in_torch(module: MultiHeadAttention) -> nn.MultiheadAttention:
    """The same attention as torch has it."""
    memory = None if module.memory_width == WIDTH else module.memory_width
    bias = module.W_Q.bias is not None
    other = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, kdim=memory, vdim=memory, batch_first=True)
    other.double().load_state_dict(to_torch(module.state_dict()))
    return other


def inputs(module) -> tuple[torch.Tensor, torch.Tensor]:
    return drawn(B, N, WIDTH).requires_grad_(), drawn(B, M, module.memory_width, seed=1).requires_grad_()


def gradients(output, tensors):
    options = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
    return torch.autograd.grad(output, tensors, drawn(*output.shape, seed=4), **options)


def assert_all_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def one_by_one(module, x, memory, mask=None, score_bias=None):
    """Each head with its own rows of the three matrices."""

    def project(layer, rows, own):
        result = rows @ layer.weight[own].T
        return result if layer.bias is None else result + layer.bias[own]

    heads = []
    for i in range(module.heads):
        own = slice(i * module.head_width, (i + 1) * module.head_width)
        q, k = project(module.W_Q, x, own), project(module.W_K, memory, own)
        scale = module.head_width**-0.5
        if score_bias is not None:  # q . k + bias / scale: the bias of query i is feature i of the keys
            n, m = q.shape[1], k.shape[1]
            q = torch.cat([q, torch.eye(n).double().expand(B, n, n)], -1)
            k = torch.cat([k, (score_bias[..., i, :, :].mT / scale).expand(B, m, n)], -1)
        heads.append(dot_product_attention(q, k, project(module.W_V, memory, own), mask=mask, scale=scale))
    return module.W_O(torch.cat([output for output, _ in heads], -1)), torch.stack([w for _, w in heads], 1)


@each_mask
@pytest.mark.parametrize("options", [*FORMS, {"head_width": 2}, {"memory_width": MEMORY, "head_width": 5}])
def test_equals_one_attention_for_each_head(name, options):
    module, mask = build(**options), MASKS[name]
    x, memory = inputs(module)
    expected, weights = one_by_one(module, x, memory, mask)
    found = module(x, memory, mask=mask)
    leaves = [x, memory, *module.parameters()]
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, leaves), gradients(expected, leaves))
    of_module = module.weights(x, memory, mask=mask)
    assert_all_close([of_module], [weights])
    assert_all_close(gradients(of_module, leaves), gradients(weights, leaves))


@each_mask
@pytest.mark.parametrize("leading", [(), (B,)])
def test_a_bias_of_the_scores(name, leading):
    module, mask = build(), MASKS[name]
    x, memory = inputs(module)
    score_bias = (2 * drawn(*leading, HEADS, N, M, seed=6)).requires_grad_()
    expected, weights = one_by_one(module, x, memory, mask, score_bias)
    found = module(x, memory, mask=mask, score_bias=score_bias)
    of_module = module.weights(x, memory, mask=mask, score_bias=score_bias)
    leaves = [x, memory, score_bias, *module.parameters()]
    assert_all_close([found, of_module], [expected, weights])
    assert_all_close(gradients(found, leaves), gradients(expected, leaves))
    assert_all_close(gradients(of_module, leaves), gradients(weights, leaves))
    k, v = module.keys_values(memory)
    assert torch.equal(module.attend(x, k, v, mask=mask, score_bias=score_bias), found)


def test_a_bias_of_the_scores_where_nothing_may_be_seen():
    module, mask = build(), MASKS["by batch"].clone()
    mask[0, 1] = False
    x, memory = inputs(module)
    score_bias = drawn(HEADS, N, M, seed=6).requires_grad_()
    output = module(x, memory, mask=mask, score_bias=score_bias)
    assert torch.equal(output[0, 1], module.W_O.bias)
    (found,) = gradients(output[:1], [score_bias])
    assert (found[:, 1] == 0).all()
    assert (found[:, ~mask[0]] == 0).all()
    assert found.isfinite().all()
    assert (found != 0).any()


def test_by_hand():
    """Two heads of width 1; scores (ln 3, 0) and (0, ln 3), so head 0 weighs 3:1 and head 1 weighs 1:3."""
    module = MultiHeadAttention(2, heads=2, bias=False)
    with torch.no_grad():
        for layer in (module.W_Q, module.W_K, module.W_V):
            layer.weight.copy_(torch.eye(2))
        module.W_O.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    x, memory = torch.full((1, 1, 2), math.log(3)), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    weights = module.weights(x, memory)
    torch.testing.assert_close(weights, torch.tensor([[[[0.75, 0.25]], [[0.25, 0.75]]]]))
    torch.testing.assert_close(module(x, memory), torch.tensor([[[1.5, 0.0]]]))


@each_form
@pytest.mark.parametrize("kind", ["none", "two axes", "three axes", "keys", "keys and causal"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_equals_torch(options, kind, need_weights):
    """Output, weights, and gradients of the inputs and of every parameter; torch's True means: may not."""
    module = build(**options)
    other = in_torch(module)
    x, memory = inputs(module)
    lengths = torch.tensor([4, 7])
    mask, theirs = {
        "none": (None, {}),
        "two axes": (MASKS["for all"], {"attn_mask": ~MASKS["for all"]}),
        "three axes": (
            MASKS["by batch"],
            {"attn_mask": ~MASKS["by batch"].repeat_interleave(HEADS, 0)},
        ),
        "keys": (padding_mask(lengths, M), {"key_padding_mask": ~padding_mask(lengths, M)[:, 0]}),
        "keys and causal": (
            padding_mask(lengths, M) & causal_mask(N, M),
            {"key_padding_mask": ~padding_mask(lengths, M)[:, 0], "attn_mask": ~causal_mask(N, M)},
        ),
    }[kind]
    expected, weights = other(
        x, memory, memory, need_weights=need_weights, average_attn_weights=False, **theirs
    )
    found = module(x, memory, mask=mask)
    assert_all_close([found], [expected])
    if need_weights:
        assert_all_close([module.weights(x, memory, mask=mask)], [weights])
    assert_same_gradients(module, other, found, expected, [x, memory])


def assert_same_gradients(module, other, found, expected, tensors):
    ours, theirs = dict(module.named_parameters()), dict(other.named_parameters())
    a = gradients(found, [*tensors, *ours.values()])
    b = gradients(expected, [*tensors, *theirs.values()])
    assert_all_close(a[: len(tensors)], b[: len(tensors)])
    renamed = from_torch(dict(zip(theirs, b[len(tensors) :], strict=True)))
    assert renamed.keys() == ours.keys()
    assert_all_close(a[len(tensors) :], [renamed[name] for name in ours])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_self_attention_equals_torch(bias, causal):
    module = build(bias=bias)
    other, (x, _) = in_torch(module), inputs(module)
    mask = causal_mask(N) if causal else None
    expected, _ = other(x, x, x, attn_mask=~mask if causal else None)
    found = module(x, mask=mask)
    assert_all_close([found], [expected])
    assert_same_gradients(module, other, found, expected, [x])


@each_form
def test_state_dicts_go_both_ways(options):
    module = build(**options)
    other = in_torch(module)
    there = to_torch(module.state_dict())
    assert there.keys() == other.state_dict().keys()
    back = from_torch(there)
    assert back.keys() == module.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in module.state_dict().items())
    fresh = MultiHeadAttention(WIDTH, heads=HEADS, **options).double()
    fresh.load_state_dict(from_torch(other.state_dict()))
    x, memory = inputs(module)
    assert torch.equal(fresh(x, memory), module(x, memory))


def test_attend_takes_what_was_kept():
    """Keys and values computed token by token, as a decoder does, give what the whole forward gives."""
    module = build()
    x, _ = inputs(module)
    whole = module(x, mask=causal_mask(N))
    kept = [module.keys_values(x[:, i : i + 1]) for i in range(N)]
    for i in range(N):
        k, v = (torch.cat([pair[part] for pair in kept[: i + 1]], 2) for part in (0, 1))
        assert k.shape == (B, HEADS, i + 1, D)
        assert_all_close([module.attend(x[:, i : i + 1], k, v)], [whole[:, i : i + 1]])


def test_split_and_join():
    """Head i gets features i d to (i + 1) d of every place, and nothing of another place."""
    module = build()
    x = torch.arange(B * N * WIDTH).double().view(B, N, WIDTH)
    heads = module.split(x)
    assert heads.shape == (B, HEADS, N, D)
    assert all(torch.equal(heads[:, i], x[..., i * D : (i + 1) * D]) for i in range(HEADS))
    assert torch.equal(module.join(heads), x)


def test_the_output_is_a_sum_over_heads():
    module = build(bias=False)
    x, memory = inputs(module)
    weights = module.weights(x, memory)
    parts = [
        weights[:, i] @ memory @ module.W_V.weight[own].T @ module.W_O.weight[:, own].T
        for i, own in enumerate(slice(i * D, (i + 1) * D) for i in range(HEADS))
    ]
    assert_all_close([module(x, memory)], [sum(parts)])


@pytest.mark.parametrize("name", ["padding", "by batch"])
def test_nothing_leaks_from_masked_places(name):
    module, mask = build(), MASKS[name].expand(B, N, M)
    mask = mask[:, :1] & torch.ones(N, 1, dtype=torch.bool)  # the same keys for all queries
    x, memory = inputs(module)
    hidden = ~mask[:, 0]
    assert hidden.any()
    other = memory.detach().clone()
    other[hidden] = 50.0
    other.requires_grad_()
    first, second = module(x, memory, mask=mask), module(x, other, mask=mask)
    assert torch.equal(first, second)
    assert torch.equal(module.weights(x, memory, mask=mask), module.weights(x, other, mask=mask))
    leaves = [*module.parameters(), x]
    a, b = gradients(first, [*leaves, memory]), gradients(second, [*leaves, other])
    assert_all_close(a, b)
    assert (a[-1][hidden] == 0).all()
    assert (a[-1][~hidden] != 0).all()


def test_a_causal_prefix_does_not_see_what_follows():
    module = build()
    x, _ = inputs(module)
    whole = module(x, mask=causal_mask(N))
    for n in range(1, N):
        assert_all_close([module(x[:, :n], mask=causal_mask(n))], [whole[:, :n]])
        (gradient,) = torch.autograd.grad(whole[:, :n].square().sum(), x, retain_graph=True)
        assert (gradient[:, n:] == 0).all()
        assert (gradient[:, :n] != 0).all()


def test_shuffling_the_places_shuffles_the_output():
    module, order = build(), torch.tensor([3, 0, 4, 1, 2])
    x, memory = inputs(module)
    assert_all_close([module(x[:, order])], [module(x)[:, order]])
    assert_all_close([module(x, memory[:, [6, 0, 2, 5, 1, 3, 4]])], [module(x, memory)])


@each_form
def test_a_query_that_may_see_nothing(options):
    """Its output is the bias of W_O; it gives no gradient to keys and values and takes none."""
    module = build(**options)
    x, memory = inputs(module)
    mask = MASKS["by batch"].clone()
    mask[0, 1], mask[1] = False, False
    bias = torch.zeros(WIDTH, dtype=torch.float64) if module.W_O.bias is None else module.W_O.bias
    output, weights = module(x, memory, mask=mask), module.weights(x, memory, mask=mask)
    empty = ~mask.any(-1)
    assert torch.equal(output[empty], bias.detach().expand(int(empty.sum()), -1))
    assert (weights.transpose(1, 2)[empty] == 0).all()
    found = gradients(output, [x, memory, *module.parameters()])
    assert all(gradient.isfinite().all() for gradient in found)
    assert (found[0][empty] == 0).all()
    assert (found[0][mask.sum(-1) > 1] != 0).all()  # a query with one key has no choice and no gradient
    assert (found[1][1] == 0).all()  # nobody in the second sequence may attend to anything
    assert_all_close([output], [one_by_one(module, x, memory, mask)[0]])
    assert all(g.isfinite().all() for g in gradients(weights, [x, memory, *module.parameters()]))


def test_nothing_to_ask_and_nothing_that_asks():
    module = build()
    x, memory = inputs(module)
    assert torch.equal(module(x, memory[:, :0]), module.W_O.bias.expand(B, N, -1))
    assert module.weights(x, memory[:, :0]).shape == (B, HEADS, N, 0)
    assert module(x[:, :0], memory).shape == (B, 0, WIDTH)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1_050_624), ({"bias": False}, 1_048_576), ({"memory_width": 300, "bias": False}, 831_488)],
)
def test_parameters(options, count):
    memory = options.get("memory_width")
    with torch.device("meta"):
        module = MultiHeadAttention(512, heads=8, **options)
        other = nn.MultiheadAttention(512, 8, bias=options.get("bias", True), kdim=memory, vdim=memory)
    for attention in (module, other):
        assert sum(p.numel() for p in attention.parameters()) == count


def test_the_number_of_heads_does_not_change_the_number_of_parameters():
    counts = {
        heads: sum(p.numel() for p in MultiHeadAttention(WIDTH, heads=heads).parameters())
        for heads in (1, 2, 3, 4, 6, 12)
    }
    assert set(counts.values()) == {4 * WIDTH**2 + 4 * WIDTH}
    few = MultiHeadAttention(WIDTH, heads=3, head_width=2, memory_width=MEMORY, bias=False)
    assert sum(p.numel() for p in few.parameters()) == 6 * (2 * WIDTH + 2 * MEMORY)


def test_the_start():
    """Glorot's bounds, and the factor sqrt(2) to torch that the docstring names."""
    torch.manual_seed(0)
    module, other = MultiHeadAttention(192, heads=3), nn.MultiheadAttention(192, 3)
    for layer in (module.W_Q, module.W_K, module.W_V, module.W_O):
        assert layer.weight.std().item() == pytest.approx(192**-0.5, rel=0.02)
        assert (layer.bias == 0).all()
    assert other.in_proj_weight.std().item() == pytest.approx((2 * 192) ** -0.5, rel=0.02)
    assert other.out_proj.weight.std().item() == pytest.approx((3 * 192) ** -0.5, rel=0.02)


def test_gradcheck():
    module = MultiHeadAttention(4, heads=2, memory_width=3).double()
    x, memory = drawn(1, 2, 4).requires_grad_(), drawn(1, 3, 3, seed=1).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda x, y: module(x, y, mask=mask), [x, memory])


@pytest.mark.no_shape_hook
def test_the_forward_does_not_keep_the_weights():
    module = MultiHeadAttention(WIDTH, heads=HEADS)
    one, two = (saved_bytes(module, torch.randn(1, n, WIDTH)) for n in (128, 256))
    assert two < 2.1 * one
    assert saved_bytes(module.weights, torch.randn(1, 256, WIDTH)) > HEADS * 256 * 256 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["none", "by batch"])
def test_other_precisions_stay_near(dtype, name):
    module = build()
    x, memory = (t.detach() for t in inputs(module))
    expected, mask = module(x, memory, mask=MASKS[name]), MASKS[name]
    few = copy.deepcopy(module).to(dtype)
    found = few(x.to(dtype), memory.to(dtype), mask=mask)
    assert found.dtype == few.weights(x.to(dtype), memory.to(dtype), mask=mask).dtype == dtype
    assert (found.double() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.1)


def test_inputs_may_be_non_contiguous_and_stay_as_they_are():
    module, mask = build(), MASKS["by batch"].clone()
    mask[0, 1] = False
    x, memory = (t.detach().mT.contiguous().mT for t in inputs(module))
    assert not x.is_contiguous()
    before = [x.clone(), memory.clone(), mask.clone()]
    found = module(x, memory, mask=mask)
    assert_all_close([found], [module(before[0], before[1], mask=mask)])
    assert all(torch.equal(a, b) for a, b in zip(before, (x, memory, mask), strict=True))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("name", ["none", "padding"])
def test_compiles_without_a_graph_break(name):
    torch.compiler.reset()
    module = build()
    x, memory = inputs(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, expected = compiled(x, memory, mask=MASKS[name]), module(x, memory, mask=MASKS[name])
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, [x, memory]), gradients(expected, [x, memory]))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda m, x, y: MultiHeadAttention(12, heads=5),
            "width=12 is not divisible by heads=5; use 4 or 6",
        ),
        (lambda m, x, y: MultiHeadAttention(0, heads=5), "width=0 should be a whole number of at least 1"),
        (
            lambda m, x, y: MultiHeadAttention(12, heads=0, head_width=3),
            "heads=0 should be a whole number of at least 1",
        ),
        (
            lambda m, x, y: MultiHeadAttention(12, heads=3, head_width=0),
            "head_width=0 should be a whole number of at least 1",
        ),
        (
            lambda m, x, y: MultiHeadAttention(12, heads=3, memory_width=1.5),
            "memory_width=1.5 should be a whole number of at least 1",
        ),
        (
            lambda m, x, y: m(x[0], y),
            "expected x of shape (batch, n, 12), got (5, 12); for one sequence add the batch axis with "
            "x[None]",
        ),
        (
            lambda m, x, y: m(x),
            "expected memory of shape (batch, m, 10), got (2, 5, 12); for one sequence add the batch axis "
            "with memory[None]",
        ),
        (
            lambda m, x, y: m(x.long(), y),
            "expected floating-point x, got torch.int64; convert with x.float()",
        ),
        (
            lambda m, x, y: m(x[:1], y),
            "expected keys of shape (1, 3, m, 4) for x of shape (1, 5, 12), got (2, 3, 7, 4); x and memory "
            "should have the same batch",
        ),
        (
            lambda m, x, y: m.attend(x, m.keys_values(y)[0], m.keys_values(y)[1][:, :, 1:]),
            "expected keys and values of one shape, got (2, 3, 7, 4), (2, 3, 6, 4)",
        ),
        (
            lambda m, x, y: m(x, y, mask=torch.ones(2, 7, dtype=torch.bool)),
            "a mask of shape (2, 7) does not broadcast to scores of shape (2, 5, 7) (..., queries, keys); "
            "give it axes of the same size or of size 1",
        ),
        (
            lambda m, x, y: m(x, y, mask=torch.ones(2, 3, 5, 7, dtype=torch.bool)),
            "a mask of shape (2, 3, 5, 7) does not broadcast to scores of shape (2, 5, 7) (..., queries, "
            "keys); give it axes of the same size or of size 1",
        ),
        (
            lambda m, x, y: m.weights(x, y, mask=torch.ones(5, 7)),
            "expected a boolean mask (True = may attend), got torch.float32; compare or cast first",
        ),
        (
            lambda m, x, y: m(x, y, score_bias=torch.zeros(5, 7)),
            "expected a score_bias of shape (3, 5, 7) (heads, n, m) or (2, 3, 5, 7) (b, heads, n, m), got "
            "(5, 7)",
        ),
        (
            lambda m, x, y: m.weights(x, y, score_bias=torch.zeros(3, 5, 5)),
            "expected a score_bias of shape (3, 5, 7) (heads, n, m) or (2, 3, 5, 7) (b, heads, n, m), got "
            "(3, 5, 5)",
        ),
        (
            lambda m, x, y: from_torch(nn.MultiheadAttention(4, 2, add_bias_kv=True).state_dict()),
            "this attention was built with add_bias_kv=True, for which there is no place here",
        ),
        (
            lambda m, x, y: to_torch(MultiHeadAttention(12, heads=3, head_width=2).state_dict()),
            "nn.MultiheadAttention has heads times head_width = width; here they are 6 and 12",
        ),
    ],
)
def test_wrong_arguments(call, text):
    module = build(memory_width=MEMORY)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(module, *inputs(module))
