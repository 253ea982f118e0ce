"""Dot-product attention against loops and torch's own operator; the chunked form against the plain one."""

import math
import re

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attnlib.lab.cost import saved_bytes
from attnlib.sequence import causal_mask, chunked_attention, dot_product_attention, padding_mask

B, HEADS, N, M, D, V = 2, 3, 5, 7, 4, 6


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(*leading: int, n: int = N, m: int = M) -> list[torch.Tensor]:
    sizes = [(n, D), (m, D), (m, V)]
    return [drawn(*leading, *size, seed=i).requires_grad_() for i, size in enumerate(sizes)]


def random_mask(*shape: int) -> torch.Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.5
    mask[..., 2] = True
    return mask


MASKS = {
    "none": None,
    "causal": causal_mask(N, M),
    "padding": padding_mask(torch.tensor([4, 7]), M)[:, None],
    "by batch and head": random_mask(B, HEADS, N, M),
    "for all": random_mask(N, M),
    "one row": random_mask(1, M),
}
each_mask = pytest.mark.parametrize("name", MASKS)


def gradients(output, tensors, seed=4):
    return torch.autograd.grad(output, tensors, drawn(*output.shape, seed=seed))


def assert_all_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_by_loops():
    q, k, v = (t.detach() for t in inputs())
    output, weights = dot_product_attention(q, k, v)
    for i in range(N):
        e = [math.exp(sum(q[i, f] * k[j, f] for f in range(D)) / math.sqrt(D)) for j in range(M)]
        for j in range(M):
            assert weights[i, j].item() == pytest.approx(e[j] / sum(e), abs=1e-14)
        for f in range(V):
            expected = sum(e[j] * v[j, f].item() for j in range(M)) / sum(e)
            assert output[i, f].item() == pytest.approx(expected, abs=1e-14)


def test_by_hand():
    """Scores ln 2 (2, 0), so the weights are 4/5 and 1/5."""
    q, k = math.log(2) * torch.tensor([[2.0, 2, 0, 0]]), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    output, weights = dot_product_attention(q, k, torch.tensor([[5.0], [10.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(output, torch.tensor([[6.0]]))


@each_mask
@pytest.mark.parametrize("scale", [None, 0.3])
def test_equals_torch_s_operator(name, scale):
    tensors, mask = inputs(B, HEADS), MASKS[name]
    output, _ = dot_product_attention(*tensors, mask=mask, scale=scale)
    expected = F.scaled_dot_product_attention(*tensors, attn_mask=mask, scale=scale)
    assert_all_close([output], [expected])
    assert_all_close(gradients(output, tensors), gradients(expected, tensors))


@each_mask
def test_weights_sum_to_one_over_what_may_be_seen(name):
    mask = MASKS[name]
    _, weights = dot_product_attention(*inputs(B, HEADS), mask=mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, N, dtype=torch.float64))
    if mask is not None:
        assert (weights[~mask.expand_as(weights)] == 0).all()


@pytest.mark.parametrize("attend", [lambda *a, **o: dot_product_attention(*a, **o)[0], chunked_attention])
def test_nothing_leaks_from_masked_places(attend):
    q, k, v = inputs()
    mask = random_mask(1, M)
    output = attend(q, k, v, mask=mask)
    hidden = ~mask[0]
    assert 0 < hidden.sum() < M
    other_k, other_v = k.detach().clone(), v.detach().clone()
    other_k[hidden], other_v[hidden] = 50.0, -70.0
    others = [q, other_k.requires_grad_(), other_v.requires_grad_()]
    again = attend(*others, mask=mask)
    assert torch.equal(again, output)
    found = gradients(output, [q, k, v])
    assert_all_close(gradients(again, others), found)
    assert (found[1][hidden] == 0).all()
    assert (found[2][hidden] == 0).all()


def test_a_causal_prefix_does_not_see_what_follows():
    q, k, v = inputs(n=M)
    whole = dot_product_attention(q, k, v, mask=causal_mask(M))[0]
    for n in range(1, M):
        prefix = dot_product_attention(q[:n], k[:n], v[:n], mask=causal_mask(n))[0]
        torch.testing.assert_close(prefix, whole[:n])
        torch.testing.assert_close(chunked_attention(q, k, v, causal=True, chunk=3)[:n], prefix)


def test_permutations():
    q, k, v = inputs()
    output = dot_product_attention(q, k, v)[0]
    of_queries, of_keys = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 5, 0, 6, 1, 3, 4])
    torch.testing.assert_close(dot_product_attention(q[of_queries], k, v)[0], output[of_queries])
    torch.testing.assert_close(dot_product_attention(q, k[of_keys], v[of_keys])[0], output)
    assert not torch.allclose(dot_product_attention(q, k[of_keys], v)[0], output)


@pytest.mark.parametrize("attend", [lambda *a, **o: dot_product_attention(*a, **o)[0], chunked_attention])
def test_a_query_that_may_see_nothing(attend):
    tensors, mask = inputs(), random_mask(N, M)
    mask[1] = False
    output = attend(*tensors, mask=mask)
    assert (output[1] == 0).all()
    grad_q, grad_k, grad_v = gradients(output, tensors)
    assert (grad_q[1] == 0).all()
    assert all(g.isfinite().all() for g in (grad_q, grad_k, grad_v))
    assert (grad_q[0] != 0).all()


@pytest.mark.parametrize("attend", [lambda *a, **o: dot_product_attention(*a, **o)[0], chunked_attention])
@pytest.mark.parametrize("mask", [None, torch.ones(N, 0, dtype=torch.bool)])
def test_without_keys_there_is_nothing_to_see(attend, mask):
    tensors = inputs(m=0)
    output = attend(*tensors, mask=mask)
    assert torch.equal(output, torch.zeros(N, V, dtype=torch.float64))
    assert (gradients(output, tensors)[0] == 0).all()
    assert attend(*inputs(n=0)).shape == (0, V)


def test_masks():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 4).tolist() == [[True, False, False, False], [True, True, False, False]]
    found = padding_mask(torch.tensor([0, 2, 3]), 3)
    assert found.tolist() == [[[False] * 3], [[True, True, False]], [[True] * 3]]


@each_mask
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_chunks_equal_the_plain_form(name, chunk):
    tensors, mask = inputs(B, HEADS), MASKS[name]
    expected = dot_product_attention(*tensors, mask=mask)[0]
    found = chunked_attention(*tensors, mask=mask, chunk=chunk)
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("mask", [None, MASKS["padding"]])
def test_chunks_with_causal_and_scale(mask):
    tensors = inputs(B, HEADS)
    both = causal_mask(N, M) if mask is None else causal_mask(N, M) & mask
    expected = dot_product_attention(*tensors, mask=both, scale=0.7)[0]
    found = chunked_attention(*tensors, mask=mask, causal=True, scale=0.7, chunk=3)
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, tensors), gradients(expected, tensors))


@pytest.mark.parametrize(("n", "m"), [(2, 9), (9, 2), (1, 1)])
def test_causal_chunks_for_other_numbers_of_queries_and_keys(n, m):
    tensors = inputs(B, n=n, m=m)
    expected = dot_product_attention(*tensors, mask=causal_mask(n, m))[0]
    found = chunked_attention(*tensors, causal=True, chunk=2)
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, tensors), gradients(expected, tensors))


def test_a_mask_without_axes():
    tensors = inputs()
    for attend in (lambda *a, **o: dot_product_attention(*a, **o)[0], chunked_attention):
        assert torch.equal(attend(*tensors, mask=torch.tensor(True)), attend(*tensors))
        assert (attend(*tensors, mask=torch.tensor(False)) == 0).all()


def test_chunks_with_a_mask_for_whole_queries():
    tensors, mask = inputs(), torch.tensor([[True], [False], [True], [True], [False]])
    expected = dot_product_attention(*tensors, mask=mask)[0]
    found = chunked_attention(*tensors, mask=mask, chunk=3)
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("leading", [((2, 3), (3,), (1, 3)), ((3,), (2, 1), (2, 3)), ((), (2,), ())])
def test_leading_axes_broadcast_in_both_forms(leading):
    sizes = [(N, D), (M, D), (M, V)]
    tensors = [
        drawn(*axes, *size, seed=i).requires_grad_()
        for i, (axes, size) in enumerate(zip(leading, sizes, strict=True))
    ]
    plain, chunked = dot_product_attention(*tensors)[0], chunked_attention(*tensors, chunk=2)
    assert_all_close([chunked], [plain])
    assert_all_close(gradients(chunked, tensors), gradients(plain, tensors))


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("largest_first", [False, True])
def test_huge_scores_do_not_overflow(size, largest_first):
    q, k, v = (t.detach() for t in inputs())
    steps = size * (1 + torch.arange(M))
    k[:, 0] = steps.flip(0) if largest_first else steps
    tensors = [t.requires_grad_() for t in (q, k, v)]
    plain, chunked = dot_product_attention(*tensors)[0], chunked_attention(*tensors, chunk=2)
    assert plain.isfinite().all()
    assert_all_close([chunked], [plain])
    for found, expected in zip(gradients(chunked, tensors), gradients(plain, tensors), strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15 * k.abs().max().item())


def test_gradcheck_of_the_chunked_form():
    assert torch.autograd.gradcheck(lambda *t: chunked_attention(*t, chunk=3, causal=True), inputs())


def test_the_chunked_form_differentiates_once():
    tensors = inputs()
    loss = chunked_attention(*tensors).square().sum()
    (grad_q, *_) = torch.autograd.grad(loss, tensors, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad_q.sum().backward()


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("causal", [False, True])
def test_no_matrix_of_n_by_m_exists_forward_or_backward(causal):
    n, m, width, chunk = 400, 300, 8, 16
    q, k, v = (torch.randn(size, width, requires_grad=True) for size in (n, m, m))
    padding = padding_mask(torch.tensor([m - 20]), m)[0]

    def chunked():
        return chunked_attention(q, k, v, mask=padding, causal=causal, chunk=chunk)

    def plain():
        return dot_product_attention(q, k, v, mask=padding)[0]

    for attend, expected in ((chunked, n * chunk), (plain, n * m)):
        with Largest() as forward:
            loss = attend().sum()
        with Largest() as backward:
            loss.backward()
        assert (forward.elements, backward.elements) == (expected, expected)


@pytest.mark.no_shape_hook
def test_what_is_kept_for_the_backward_pass():
    def kept(attend, n):
        return saved_bytes(attend, *(torch.randn(n, 8) for _ in range(3)))

    assert kept(chunked_attention, 512) == 2 * kept(chunked_attention, 256)
    assert kept(lambda *t: dot_product_attention(*t)[0], 512) == 4 * 512**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_stay_near(dtype):
    q, k, v = (t.detach() for t in inputs(B))
    expected = dot_product_attention(q, k, v)[0]
    few = [t.to(dtype) for t in (q, k, v)]
    for found in (dot_product_attention(*few)[0], chunked_attention(*few, chunk=3)):
        assert found.dtype == dtype
        assert (found.double() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.05)


def test_inputs_may_be_non_contiguous_and_stay_as_they_are():
    q, k, v = (t.detach().mT.contiguous().mT for t in inputs(B))
    assert not q.is_contiguous()
    before = [t.clone() for t in (q, k, v)]
    plain = dot_product_attention(*before)[0]
    assert_all_close([chunked_attention(q, k, v, chunk=3), dot_product_attention(q, k, v)[0]], [plain] * 2)
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v), strict=True))


@pytest.mark.no_shape_hook
def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    tensors = [t.detach() for t in inputs(B)]
    compiled = torch.compile(dot_product_attention, fullgraph=True, backend="aot_eager")
    mask = causal_mask(N, M)
    assert_all_close([compiled(*tensors, mask=mask)[0]], [dot_product_attention(*tensors, mask=mask)[0]])


@pytest.mark.no_shape_hook
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("causal", [False, True])
def test_the_chunked_form_compiles_without_a_graph_break(causal):
    torch.compiler.reset()
    tensors, options = inputs(B), {"mask": random_mask(N, M), "causal": causal, "chunk": 3}
    compiled = torch.compile(chunked_attention, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*tensors, **options), chunked_attention(*tensors, **options)
    assert_all_close([found], [expected])
    assert_all_close(gradients(found, tensors), gradients(expected, tensors))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("attend", [dot_product_attention, chunked_attention])
@pytest.mark.parametrize(
    ("shapes", "options", "text"),
    [
        (
            ((N, D), (M, D), (N, V)),
            {},
            f"expected one value for each key, so v of shape (..., {M}, features); got (5, 6)",
        ),
        (
            ((N, D), (M, V), (M, V)),
            {},
            "queries have 4 features and keys 6; this score compares them one by one",
        ),
        (
            ((N, D), (2, M, D), (3, M, V)),
            {},
            "the leading axes of k (2, 7, 4) and v (3, 7, 6) do not fit each other",
        ),
        (((N, D), (D,), (M, V)), {}, "expected k of shape (..., keys, features), got (4,)"),
        (
            ((2, N, D), (M, D), (3, M, V)),
            {},
            "the leading axes of q (2, 5, 4) and v (3, 7, 6) do not fit each other; they should be equal",
        ),
        (
            ((N, D), (M, D), (M, V)),
            {"mask": torch.ones(M, N, dtype=torch.bool)},
            "a mask of shape (7, 5) does not broadcast to scores of shape (5, 7)",
        ),
        (((N, D), (M, D), (M, V)), {"mask": torch.ones(N, M)}, "expected a boolean mask (True = may attend)"),
    ],
)
def test_wrong_arguments(attend, shapes, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        attend(*(drawn(*shape) for shape in shapes), **options)


@pytest.mark.no_shape_hook
def test_wrong_chunk_and_lengths():
    q, k, v = inputs()
    with pytest.raises(ValueError, match=r"^chunk=0 should be a whole number of at least 1$"):
        chunked_attention(q, k, v, chunk=0)
    with pytest.raises(ValueError, match=r"^lengths should lie between 0 and m=3, got 1 to 4$"):
        padding_mask(torch.tensor([1, 4]), 3)
    with pytest.raises(ValueError, match=r"^lengths should lie between 0 and m=3, got -1 to 2$"):
        padding_mask(torch.tensor([-1, 2]), 3)
    with pytest.raises(
        ValueError, match=r"^expected one length for each sequence, so lengths of shape \(b,\)"
    ):
        padding_mask(torch.tensor([[1, 2], [1, 3]]), 3)


def test_padding_of_no_sequences():
    assert padding_mask(torch.tensor([], dtype=torch.int64), 3).shape == (0, 1, 3)
