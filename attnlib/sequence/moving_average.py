"""Averages of the past whose weights depend on age alone, on content, or on age in a way that is learnt.

    exponential moving average, with decay d (0 <= d < 1) and x_1 ... x_n
        m_0 = 0,  m_t = d m_{t-1} + (1 - d) x_t = (1 - d) sum_{k=0}^{t-1} d^k x_{t-k}    k is the age   (1)
        m_t / (1 - d^t)     corrected: now the weights sum to 1                                         (2)
        (2) is attention over x_1 ... x_t with the scores k log d: no query, no key, age alone
    windowed cosine attention over the last L places, the present left out
        a_ti = softmax over i = t-L ... t-1 of  beta cos(q_t, k_i),   c_t = sum_i a_ti v_i              (3)
    damped EMA: each of D features is spread over N hidden numbers, each with a decay of its own
        u_t = beta x_t,  h_t = alpha u_t + (1 - alpha delta) h_{t-1},  y_t = eta^T h_t                  (4)
        y_t = sum_{l>=0} k_l x_{t-l}  with  k_l = sum_N eta alpha beta (1 - alpha delta)^l              (5)

Sources: (2) Kingma and Ba, arXiv 1412.6980, section 3, for the averages of Adam. (3) Graves, Wayne,
Danihelka, arXiv 1410.5401, section 3.3.1, content addressing, here in a window. (4), (5) Ma et al.: "Mega:
Moving Average Equipped Gated Attention", ICLR 2023, arXiv 2209.10655.

Where sources differ:
    decay       Statistics and Mega write alpha for the weight of the newest value, which is 1 - d here.
    beta        Matching networks have none (beta = 1); NTM predicts it for each query; Swin-V2 (arXiv
                2111.09883) learns one for each head: `beta=` and `learnable=True`.
    Mega        The released code (facebookresearch/mega, 06f2d0e) divides (5) by sqrt(N), adds a skip
                omega x and ends in SiLU: `as_released=True`; False gives (4) as printed. Its second direction
                leaves the present to the first, and so does ours.

Time is the axis before the last: x is (..., n, d).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_positive, check_queries_keys, check_values
from attnlib.sequence.scores import cosine, masked_softmax


def exponential_moving_average(
    x: Float[Tensor, "*b n d"], decay: float, *, bias_correction: bool = True
) -> Float[Tensor, "*b n d"]:
    """Equation (1), and (2) with ``bias_correction``: an average of x_1 ... x_t for each time t.

    Args:
        x: a series (..., n, d), time on the axis before the last; each feature is averaged on its own.
        decay: the d of the equations, from 0 (only the present) to below 1.
        bias_correction: divide by 1 - d^t, the weights' sum; without it the first values are too small.

    Returns:
        (..., n, d). Nothing is kept between calls. float16 and bfloat16 are summed in float32. Wrong shapes
        and decays raise ValueError.
    """
    _check_series(x)
    _check_decay(decay)
    m, averages = torch.zeros_like(_wide(x[..., 0, :])), []
    for t, x_t in enumerate(_wide(x).unbind(-2), start=1):
        m = decay * m + (1 - decay) * x_t  # (1)
        averages.append(m / (1 - decay**t) if bias_correction else m)  # (2)
    return torch.stack(averages, -2).to(x.dtype)


def moving_average_weights(
    n: int, decay: float, *, bias_correction: bool = True, dtype: torch.dtype | None = None
) -> Float[Tensor, "n n"]:
    """The attention weights behind ``exponential_moving_average``: row t is what time t gives to each place.

    Lower triangular, with the weight of age k = t - i at (t, i). Multiplied with x they give the average.
    ``dtype`` is torch's default if None.
    """
    check_positive("n", n)
    _check_decay(decay)
    age = torch.arange(n, dtype=torch.float64)[:, None] - torch.arange(n)
    weights = torch.where(age >= 0, (1 - decay) * decay ** age.clamp(min=0), 0)  # (1)
    if bias_correction:
        weights = weights / weights.sum(-1, keepdim=True)  # (2)
    return weights.to(torch.get_default_dtype() if dtype is None else dtype)


class WindowedCosineAttention(nn.Module):
    """Equation (3): the past values, weighted by how much their keys point where the present query points.

    Args:
        window: L, how many places back one may look; the present is not among them.
        beta: the inverse temperature, above 0. At beta = 1 no weight exceeds e^2/(e^2 + L - 1).
        learnable: whether beta is a parameter; ``log_beta`` holds its logarithm, so it stays positive.

    Shapes: q and k (..., n, d) of the same times, v (..., n, d_v) -> ``weights(q, k)`` (..., n, n), zero
    outside the window, and ``forward(q, k, v)`` (..., n, d_v). The first place has no past and gets zeros.
    A query, or key, of zeros has the cosine 0. n times n numbers are held, whatever the window. Wrong shapes
    raise ValueError.

    Source: arXiv 1410.5401, section 3.3.1, for the score and beta.
    """

    def __init__(self, window: int, *, beta: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        check_positive("window", window)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta={beta!r} should be a number above 0")
        self.window = window
        log_beta = torch.tensor(math.log(beta))
        if learnable:
            self.log_beta = nn.Parameter(log_beta)
        else:
            self.register_buffer("log_beta", log_beta)

    def weights(self, q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b n d"]) -> Float[Tensor, "*#b n n"]:
        """The weight that each time gives to each place of its past; a row sums to 1, the first to 0."""
        check_queries_keys(q, k)
        if q.shape[-2] != k.shape[-2]:
            raise ValueError(
                f"queries and keys should be of the same times, got {q.shape[-2]} queries and {k.shape[-2]} "
                f"keys; use dot_product_attention for two different sequences"
            )
        places = torch.arange(q.shape[-2], device=q.device)
        age = places[:, None] - places  # n n
        return masked_softmax(self.log_beta.exp() * cosine(q, k), (age >= 1) & (age <= self.window))

    def forward(
        self, q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b n d"], v: Float[Tensor, "*#b n d_v"]
    ) -> Float[Tensor, "*#b n d_v"]:
        weights = self.weights(q, k)
        check_values(q, k, v)
        return weights @ v  # (3)


class DampedEMA(nn.Module):
    """Mega's damped moving average in N numbers for each feature: (4) step by step, (5) as a convolution.

    Args:
        width: D, the features of x.
        expansion: N, the hidden numbers for each feature.
        bidirectional: average the future too, with parameters of its own.
        as_released: with 1/sqrt(N), skip and SiLU, as in the released code; False for (4) and (5) alone.

    Parameters: four of shape (K, N) with K = D, or 2 D in both directions, and ``omega`` (D) if as_released:
    4 K N + D. alpha and delta are sigmoids of ``alpha_logit`` and ``delta_logit``. They start as in the
    released code.

    Shapes: x (..., n, width) -> (..., n, width), for ``forward`` (by FFT) and for ``recurrent``. Wrong shapes
    raise ValueError.

    Source: arXiv 2209.10655, section 3.
    """

    def __init__(
        self, width: int, *, expansion: int = 16, bidirectional: bool = False, as_released: bool = True
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_positive("expansion", expansion)
        self.width, self.bidirectional, self.as_released = width, bidirectional, as_released
        size = (2 * width if bidirectional else width, expansion)
        self.alpha_logit = nn.Parameter(0.2 * torch.randn(size))
        self.delta_logit = nn.Parameter(0.2 * torch.randn(size))
        self.beta = nn.Parameter(1.0 - 2 * (torch.arange(expansion) % 2) + 0.02 * torch.randn(size))
        self.eta = nn.Parameter(torch.randn(size))
        self.omega = nn.Parameter(torch.randn(width)) if as_released else None

    def forward(self, x: Float[Tensor, "*b n width"]) -> Float[Tensor, "*b n width"]:
        """Equation (5), by fast Fourier transforms: n log n steps instead of n^2."""
        _check_series(x, self.width)
        past, *future = self.kernel(x.shape[-2]).split(self.width)
        y = _convolve(_wide(x), past)  # (5)
        for k in future:
            y = y + _convolve(_wide(x).flip(-2), k).flip(-2)
        return self._finish(y, x)

    def recurrent(self, x: Float[Tensor, "*b n width"]) -> Float[Tensor, "*b n width"]:
        """Equation (4), one step after the other: n steps that need N numbers for each feature."""
        _check_series(x, self.width)
        past, future = slice(self.width), slice(self.width, None)
        y = self._steps(_wide(x), past)
        if self.bidirectional:
            y = y + self._steps(_wide(x).flip(-2), future).flip(-2)
        return self._finish(y, x)

    def kernel(self, n: int) -> Float[Tensor, "k n"]:
        """k_0 ... k_{n-1} of (5), the weight of each age; if bidirectional, D rows for the future follow."""
        first, keep, eta = self._coefficients()
        k = torch.einsum("kn,knl->kl", first * eta, keep[..., None] ** torch.arange(n, device=keep.device))
        if self.bidirectional:  # the past has counted the present
            k = torch.cat([k[: self.width], F.pad(k[self.width :, 1:], (1, 0))])
        return k

    def _coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """alpha beta, 1 - alpha delta, and eta (divided by sqrt(N) if as released), each (K, N)."""
        alpha, delta = _wide(self.alpha_logit).sigmoid(), _wide(self.delta_logit).sigmoid()
        eta = _wide(self.eta)
        return alpha * self.beta, 1 - alpha * delta, eta * eta.shape[1] ** -0.5 if self.as_released else eta

    def _steps(self, x: Tensor, rows: slice) -> Tensor:
        first, keep, eta = (c[rows] for c in self._coefficients())
        h, outputs = torch.zeros_like(x[..., 0, :, None] * eta), []
        for x_t in x.unbind(-2):
            before = keep * h
            h = first * x_t[..., None] + before  # (4): ... width N
            outputs.append((eta * (h if rows.start is None else before)).sum(-1))
        return torch.stack(outputs, -2)

    def _finish(self, y: Tensor, x: Tensor) -> Tensor:
        return (F.silu(y + self.omega * x) if self.as_released else y).to(x.dtype)


def _convolve(x: Float[Tensor, "*b n d"], kernel: Float[Tensor, "d n"]) -> Float[Tensor, "*b n d"]:
    """sum_l kernel_l x_{t-l}; zeros behind both keep the end of the series from coming round to its start."""
    n = x.shape[-2]
    spectrum = torch.fft.rfft(x, 2 * n, dim=-2) * torch.fft.rfft(kernel.mT, 2 * n, dim=-2)
    return torch.fft.irfft(spectrum, 2 * n, dim=-2)[..., :n, :]


def _wide(x: Tensor) -> Tensor:
    """x in float32 at least: a long sum in bfloat16 stops to grow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_decay(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(
            f"decay={decay!r} should be at least 0 and below 1; it is the factor of the past, and the newest "
            f"value gets 1 - decay"
        )


def _check_series(x: Tensor, width: int | None = None) -> None:
    """Raise ValueError unless x is a floating-point series (..., n, width) with at least one time."""
    if x.ndim < 2 or x.shape[-2] == 0 or (width is not None and x.shape[-1] != width):
        raise ValueError(
            f"expected a series of shape (..., n, {'features' if width is None else width}), n at least 1, "
            f"got {tuple(x.shape)}; for a single series of numbers x[:, None] makes the last axis"
        )
    if not x.is_floating_point():
        raise ValueError(f"expected a floating-point series, got {x.dtype}; convert it with x.float()")
