"""Parts of oracles that several tests need: norms written out, random parameters, gradients side by side."""

import torch
from torch import Tensor, nn

EPS = 1e-5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module, train: bool = False) -> nn.Module:
    """The module in double precision with every parameter and running statistic drawn at random."""
    module.double().train(train)
    for i, p in enumerate(module.parameters()):
        p.data = drawn(*p.shape, seed=100 + i) / max(1, p[0].numel()) ** 0.5
    for i, (name, buffer) in enumerate(module.named_buffers()):
        if name.endswith("running_mean"):
            buffer.copy_(drawn(*buffer.shape, seed=200 + i))
        elif name.endswith("running_var"):
            buffer.copy_(drawn(*buffer.shape, seed=200 + i).abs() + 0.5)
    return module


def batch_norm(x: Tensor, norm: nn.Module, train: bool) -> Tensor:
    """A batch norm from its definition, over all axes but 1."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    if train:
        mean = x.mean(axes, keepdim=True)
        variance = (x - mean).square().mean(axes, keepdim=True)
    else:
        mean, variance = norm.running_mean.view(shape), norm.running_var.view(shape)
    return norm.weight.view(shape) * (x - mean) / (variance + EPS).sqrt() + norm.bias.view(shape)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, groups: int = 1
) -> Tensor:
    """A convolution that keeps height and width, as a sum over the places of its kernel."""
    b, c, h, w = x.shape
    out, per_group, k, _ = weight.shape
    reach = dilation * (k // 2)
    padded = x.new_zeros(b, c, h + 2 * reach, w + 2 * reach)
    padded[:, :, reach : reach + h, reach : reach + w] = x
    total = x.new_zeros(b, out, h, w)
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i * dilation : i * dilation + h, j * dilation : j * dilation + w]
            for group in range(groups):
                rows = slice(group * out // groups, (group + 1) * out // groups)
                columns = slice(group * per_group, (group + 1) * per_group)
                total[:, rows] += torch.einsum("oc,bchw->bohw", weight[rows, :, i, j], window[:, columns])
    return total if bias is None else total + bias.view(1, -1, 1, 1)


def assert_same(module: nn.Module, oracle, x: Tensor, *, without: tuple[str, ...] = ()) -> None:
    """Output, and gradients of x and of every parameter but those named, equal the oracle's.

    ``oracle`` takes x and uses the module's own parameters.
    """
    names = [name for name, _ in module.named_parameters() if name not in without]
    leaves = [p for name, p in module.named_parameters() if name in names]
    x = x.clone().requires_grad_()
    found, expected = module(x), oracle(x)
    torch.testing.assert_close(found, expected)
    upstream = drawn(*found.shape, seed=77)
    options = {"allow_unused": True, "materialize_grads": True}
    a = torch.autograd.grad(found, [x, *leaves], upstream, **options)
    b = torch.autograd.grad(expected, [x, *leaves], upstream, **options)
    for name, one, other in zip(["x", *names], a, b, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"gradient of {name}: {text}")
