"""The non-local block against loops over pairs of places, and against attention over places."""

import math
import re

import pytest
import torch
from by_hand import assert_same, batch_norm, drawn, randomised
from torch.nn import functional as F

from attnlib.feature_map import NonLocal
from attnlib.lab.cost import saved_bytes
from attnlib.sequence import dot_product_attention

B, C, H, W, INNER = 2, 6, 2, 4, 3
SIMILARITIES = ["gaussian", "embedded", "euclidean", "dot", "concatenation"]
each = pytest.mark.parametrize("similarity", SIMILARITIES)


def projected(conv, x):
    """Rows of places: (b, n, channels)."""
    rows = x.flatten(2).transpose(1, 2)
    if isinstance(conv, torch.nn.Identity):
        return rows
    rows = rows @ conv.weight.flatten(1).T
    return rows if conv.bias is None else rows + conv.bias


def map_by_loops(module, q, k):
    """The attention map from queries (n, d) and keys (m, d), pair by pair."""
    n, m = len(q), len(k)
    rows = []
    for i in range(n):
        pairs = []
        for j in range(m):
            if module.similarity == "euclidean":
                f = torch.exp(-module.scale * (q[i] - k[j]).square().sum() / 2)
            elif module.similarity == "dot":
                f = module.scale * (q[i] * k[j]).sum() / m
            elif module.similarity == "concatenation":
                f = module.scale * (module.w_f.weight[0] * torch.cat([q[i], k[j]])).sum().clamp(min=0) / m
            else:
                f = torch.exp(module.scale * (q[i] * k[j]).sum())
            pairs.append(f)
        row = torch.stack(pairs)
        rows.append(row if module.similarity in ("dot", "concatenation") else row / row.sum())
    return torch.stack(rows)


@each
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("options", [{}, {"pool": True, "scale": 0.4}, {"bias": False, "norm": False}])
def test_loops(similarity, train, options):
    module = randomised(NonLocal(C, similarity=similarity, inner=INNER, **options), train)

    def oracle(x):
        seen = F.max_pool2d(x, 2) if module.pool else x
        q, k, v = projected(module.theta, x), projected(module.phi, seen), projected(module.g, seen)
        y = torch.stack([map_by_loops(module, q[n], k[n]) @ v[n] for n in range(B)])
        z = projected(module.W_z, y.transpose(1, 2)[..., None]).transpose(1, 2).view(x.shape)
        return x + (batch_norm(z, module.norm, train) if options.get("norm", True) else z)

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x)
    seen = F.max_pool2d(x, 2) if module.pool else x
    expected = map_by_loops(module, projected(module.theta, x)[1], projected(module.phi, seen)[1])
    torch.testing.assert_close(module.weights(x)[1], expected)


def test_the_embedded_form_is_self_attention_over_places():
    module, x = randomised(NonLocal(C, norm=False)), drawn(B, C, H, W)
    q, k, v = (projected(conv, x) for conv in (module.theta, module.phi, module.g))
    output, weights = dot_product_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(module.weights(x), weights)
    back = output @ module.W_z.weight.flatten(1).T + module.W_z.bias
    torch.testing.assert_close(module(x), x + back.transpose(1, 2).view(x.shape))


def test_the_euclidean_form_is_the_embedded_one_for_keys_of_one_length():
    embedded = randomised(NonLocal(2, inner=2, bias=False))
    euclidean = NonLocal(2, inner=2, bias=False, similarity="euclidean").double().eval()
    embedded.phi.weight.data = torch.eye(2, dtype=torch.float64)[:, :, None, None]
    euclidean.load_state_dict(embedded.state_dict())
    angles = drawn(1, 1, H, W)
    on_a_circle = torch.cat([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(euclidean.weights(on_a_circle), embedded.weights(on_a_circle))
    anywhere = drawn(1, 2, H, W)
    assert (euclidean.weights(anywhere) - embedded.weights(anywhere)).abs().max() > 1e-3


def test_by_hand():
    """Two places (1, 0) and (0, 1): the Gaussian weighs them e and 1."""
    x = torch.eye(2).view(1, 2, 1, 2)
    weights = NonLocal(2, similarity="gaussian").weights(x)[0]
    share = math.e / (math.e + 1)
    torch.testing.assert_close(weights, torch.tensor([[share, 1 - share], [1 - share, share]]))


@each
def test_it_starts_as_the_identity(similarity):
    x = torch.randn(B, C, H, W)
    assert torch.equal(NonLocal(C, similarity=similarity)(x), x)
    assert not torch.equal(NonLocal(C, similarity=similarity, zero_start=False)(x), x)


def test_shuffling_the_places_shuffles_the_output():
    module, x, order = randomised(NonLocal(C)), drawn(B, C, H, W), torch.randperm(H * W)

    def shuffle(x):
        return x.flatten(2)[:, :, order].view_as(x)

    torch.testing.assert_close(module(shuffle(x)), shuffle(module(x)))


@pytest.mark.parametrize(("channels", "count"), [(512, 526_592), (1024, 2_101_760)])
def test_parameters(channels, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in NonLocal(channels).parameters()) == count


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: NonLocal(0), "channels=0 should be a whole number of at least 1"),
        (lambda: NonLocal(4, inner=0), "inner=0 should be a whole number of at least 1"),
        (
            lambda: NonLocal(4, similarity="gausian"),
            "similarity='gausian' is not one of 'gaussian', 'embedded', 'euclidean', 'dot', 'concatenation'; "
            "did you mean 'gaussian'?",
        ),
        (
            lambda: NonLocal(4, pool=True)(torch.zeros(1, 4, 1, 6)),
            "pool=True halves the map, which needs 2 x 2 places; got (1, 6)",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("similarity", ["gaussian", "embedded", "euclidean"])
def test_the_softmax_forms_do_not_keep_the_map(similarity):
    """Twice the places keep twice as much, not four times."""
    module = NonLocal(4, similarity=similarity)
    one, two = (saved_bytes(module, torch.randn(1, 4, 32, width)) for width in (32, 64))
    assert two < 2.1 * one
    dot = NonLocal(4, similarity="dot")
    assert saved_bytes(dot, torch.randn(1, 4, 32, 32)) > 4 * (32 * 32) ** 2
