# %% [markdown]
# # 06 · Moving averages
#
# **The question.** A series of numbers comes in, one at a time. What should one remember of its past, in how little room,
# and which of its old values should count for how much?
#
# **The answer in one sentence.** The exponential moving average keeps one number and lets every value fade by the same
# factor in each step, which is softmax attention with fixed scores that see the age of a value and nothing else; let the
# scores look at the content instead, and it becomes windowed attention, which adapts, costs more, and can be worse.
#
# **Papers.** Diederik Kingma and Jimmy Ba: *Adam*, [arXiv 1412.6980](https://arxiv.org/abs/1412.6980), section 3, for the bias
# correction; Alex Graves and others: *Neural Turing Machines*, [arXiv 1410.5401](https://arxiv.org/abs/1410.5401), section
# 3.3.1, for the cosine score; Xuezhe Ma and others: *Mega: Moving Average Equipped Gated Attention*, ICLR 2023, [arXiv
# 2209.10655](https://arxiv.org/abs/2209.10655), for the damped average.
#
# **Time.** Core 80 minutes (parts 1-4, 6, 9 and exercises 06.1 and 06.2) · Depth 90 minutes (the rest).
#
# **Prerequisites.** [02_self_attention](02_self_attention.ipynb) up to its part 4, and the toolbox pages on
# [softmax](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian), [vector-Jacobian
# products](00_toolbox.ipynb#2.-Vector-Jacobian-products) and [variances](00_toolbox.ipynb#3.-Variance-rules). The course's
# map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | meaning |
# |---|---|
# | $x_1, \dots, x_n$ | a series; $x_t$ is its value (a number or a vector) at time $t$ |
# | $d$ | the decay, $0 \le d < 1$: the factor by which a value fades in one step |
# | $m_t$ | the exponential moving average at time $t$ |
# | $\hat m_t$ | the same, corrected for its start at zero |
# | $k$ | the age of a value: $x_{t-k}$ is $k$ steps old at time $t$ |
# | $w_k$ | the weight of age $k$ |
# | $L$ | the length of a window: how many places back one may look |
# | $q_t, k_i, v_i$ | query, key and value; a key is a vector and bears the index of a time, an age is a plain $k$ |
# | $\beta$ | inverse temperature: the factor of a cosine before the softmax |
# | $g_t, r_t$ | part 5: the gradient that arrives at $m_t$ from above, and all that it gets (there $L$ is the loss) |
# | $\sigma^2, \rho^2$ | part 9: the variance of a step of the level, and of an error of measurement |
# | $\alpha, \delta, \eta, h_t$ | of Mega's damped average, part 7; its own $\beta$ stands there with an index |
#
# Three warnings. Many texts write $\alpha$ for $1 - d$, the weight of the newest value, and some programs call that
# *momentum*: part 7 sorts them. In notebook 02, $d$ was the width of a query. And "EMA" has four meanings in this
# field: here it is the moving average; what else it may stand for is sorted out in
# [15_efficient_multi_scale](15_efficient_multi_scale.ipynb).

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **06.a** For $0 \le d < 1$, what is $1 + d + d^2 + \dots + d^{t-1}$?
# (a) $\frac{1}{1-d}$ · (b) $\frac{1-d^t}{1-d}$ · (c) $1 - d^t$ · (d) $t\,d$ · (e) $\frac{1-d^{t-1}}{1-d}$
#
# **06.b** Two scores are $0$ and $\ln \frac12$. What are their softmax weights?
# (a) 1 and 1/2 · (b) 1/2 and 1/2 · (c) 2/3 and 1/3 · (d) 1/3 and 2/3 · (e) 0 and $\ln\frac12$
#
# **06.c** $X$ and $Y$ are independent, each with variance 1. What is the variance of $3X - 4Y$?
# (a) 25 · (b) 7 · (c) $-7$ · (d) 5 · (e) 1

# %% tags=["exercise"]
check("06.a", ...)
check("06.b", ...)
check("06.c", ...)

# %% tags=["solution"]
check("06.a", "b")
check("06.b", "c")
check("06.c", "a")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# The simplest summary of a series is the mean of everything so far. It gets ever slower: after 300 values a new one moves
# it by a 300th of the way. The next idea is the mean of the last $L$ values, the **running mean**. It has two faults of its
# own. It must keep $L$ values in memory, to know which one to drop. And the value that drops out of the window changes the
# mean as much as the one that comes in.
#
# Here is a series of zeros with a single spike at time 20, and the yearly number of sunspots since 1700, which rises and
# falls about every eleven years.
#
# **Predict before you go on:** draw the running mean over the last 11 values of the spike. When does it move? And what will
# be left of the sunspots' cycle in their running mean over 11 years?

# %%
from attnlib.lab.data import load_co2, load_sunspots

sunspots, co2 = load_sunspots(), load_co2()  # yearly numbers; monthly means
spike = torch.zeros(60).double()
spike[20] = 11

def running_mean(x, L=11):
    return F.pad(x, (L - 1, 0)).unfold(0, L, 1).mean(1)  # before the start: zeros

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), width_ratios=[1, 1.6])
for ax, time, y in [(axes[0], torch.arange(60), spike), (axes[1], *sunspots[:2])]:
    ax.plot(time, y, color="lightgrey", label="series")
    ax.plot(time, running_mean(y), color="C0", label="running mean, 11")
    ax.plot(time, y.cumsum(0) / torch.arange(1, len(y) + 1), "--", color="C1", label="mean so far")
axes[0].set(ylim=(0, 2), xlabel="time"), axes[1].set(xlabel="year"), axes[1].legend(fontsize=8)
show(fig, alt="Left, a spike: its running mean is a box of eleven steps. Right, sunspots: the "
     "running mean is almost without the cycle, and the mean so far is nearly flat.")

# %%
moves = running_mean(spike).diff().nonzero()[:, 0] + 1
print("the running mean moves at the times", moves.tolist())
assert moves.tolist() == [20, 31]
before, after = (y.diff().abs().mean() for y in (sunspots.value, running_mean(sunspots.value)))
print("the sunspots' running mean changes less than a quarter as much:", bool(after < before / 4))
assert after < before / 4

# %% [markdown]
# **What to see.** The running mean of the spike moves twice: at time 20, when something happened, and at time 31, when
# *nothing* happened except that the spike was forgotten all at once. (The spike is 11 high; the left axis ends at 2.) For
# the sunspots a window of eleven years holds about one whole cycle wherever it stands, so the cycle is averaged away, and
# what is left is how high the cycles are; and the mean of everything moves ever less. We want a summary that forgets
# gradually, without an echo, and that needs to keep one number.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Forget a fixed share of the old summary in each step, and fill up with the new value. That is the **exponential moving
# average**, started at zero:
#
# $$m_0 = 0, \qquad m_t = d\, m_{t-1} + (1 - d)\, x_t \tag{6.1}$$
#
# Take a pencil: $d = \frac12$ and the series $8, 4, 0$. Then $m_1 = \frac12 \cdot 0 + \frac12 \cdot 8 = 4$, then
# $m_2 = \frac12 \cdot 4 + \frac12 \cdot 4 = 4$, and $m_3 = \frac12 \cdot 4 + 0 = 2$.

# %%
x, half, m = [8.0, 4.0, 0.0], 0.5, [0.0]  # half: the decay d
for x_t in x:
    m.append(half * m[-1] + (1 - half) * x_t)
assert m == [0, 4, 4, 2]  # (6.1)

# %% [markdown]
# ### Unrolled
#
# Put the rule into itself: $m_t = (1-d)\,x_t + d\,\big((1-d)\,x_{t-1} + d\, m_{t-2}\big) = (1-d)\,(x_t + d\,x_{t-1})
# + d^2 m_{t-2}$. Each further step back brings one more factor $d$, until $m_0 = 0$ is reached:
#
# $$m_t = (1-d) \sum_{k=0}^{t-1} d^k\, x_{t-k} \tag{6.2}$$
#
# So the average is a weighted sum of *all* the values so far, and the weight of a value is $w_k = (1-d)\,d^k$, where $k$ is
# its age. In our example $m_3 = \frac12 \cdot 0 + \frac14 \cdot 4 + \frac18 \cdot 8 = 2$.

# %%
weight = [(1 - half) * half**k for k in range(3)]  # of the ages 0, 1, 2
assert weight == [1 / 2, 1 / 4, 1 / 8]
assert sum(weight[k] * x[2 - k] for k in range(3)) == m[3]  # (6.2)

# %% [markdown]
# ### What is missing at the start
#
# An average should have weights that sum to one. By 06.a these sum to
#
# $$\sum_{k=0}^{t-1} (1-d)\, d^k = 1 - d^t \tag{6.3}$$
#
# The missing $d^t$ is the weight of the zero that we began with. Our first average of the value 8 was 4. With $d =
# 0.9$ it would be 0.8, a tenth of what there is. The remedy is to divide by the sum, the **bias correction** that
# Adam made popular:
#
# $$\hat m_t = \frac{m_t}{1 - d^t} \tag{6.4}$$
#
# In the example: $4 / \frac12 = 8$, $\;4 / \frac34 = \frac{16}{3}$, $\;2 / \frac78 = \frac{16}{7}$. The first average
# of a single value is now that value. (The *recursion* goes on with $m_t$, not with $\hat m_t$: exercise 06.1.)

# %%
assert sum(weight) == 1 - half**3  # (6.3)
assert abs((1 - 0.9) * 8 - 0.8) < 1e-12  # with d = 0.9
corrected = [m[t] / (1 - half**t) for t in (1, 2, 3)]
expected = [8, 16 / 3, 16 / 7]
assert all(abs(a - b) < 1e-12 for a, b in zip(corrected, expected, strict=True))  # (6.4)
print("corrected:", [round(value, 2) for value in corrected])

# %% [markdown]
# ## 4 · As attention, and as a function · *Core*
#
# The weights of $\hat m_t$ are positive, sum to one, and each value has its own. That is what a softmax makes. Which scores
# would give them? A power is an exponential, $d^k = e^{k \log d}$ (with the natural logarithm), and dividing by the sum is
# the rest of the softmax. The factor $1-d$ stands above and below, and cancels:
#
# $$\frac{(1-d)\,d^k}{1 - d^t} = \frac{d^k}{\sum_{j=0}^{t-1} d^j} = \frac{e^{k \log d}}{\sum_{j=0}^{t-1} e^{j \log d}}
# = \mathrm{softmax}_k\,(k \log d) \tag{6.5}$$
#
# So **the bias-corrected moving average is softmax attention over the past, with the score $k \log d$ for a value of age
# $k$**. Mind the sign: $d < 1$, so $\log d$ is negative, and an older value has a *lower* score. It falls along a straight
# line, by the same amount with every step of age. And mind what is missing in that score: there is no query in it, and no
# key. Without the correction the weights do not sum to one, and the equality fails. (There has to be some memory, $d > 0$:
# zero has no logarithm. For $d = 0$ the average is the present value itself.)

# %%
from math import log

n, d = 6, 0.7
age = torch.arange(n)[:, None] - torch.arange(n)  # of value i at time t: t - i
scores = (age * log(d)).double().masked_fill(age < 0, -torch.inf)  # no future
attention = scores.softmax(1)
shares = torch.where(age >= 0, (1 - d) * d ** age.clamp(min=0).double(), 0)
assert torch.allclose(attention, shares / shares.sum(1, keepdim=True))  # (6.5)
assert log(d) < 0 and torch.allclose(shares.sum(1), 1 - d ** torch.arange(1, n + 1).double())

# %% [markdown]
# ### Exercise 06.1 · the average · *Core* · 10 minutes
#
# Write the corrected average (6.4). `x` is (n, columns): time runs down the rows, and each column is a series of its own.
# `decay` is a number. Return the averages of all times, (n, columns). Any way will do: the recursion, or (6.5) as a matrix.
#
# <details><summary>Hint 1</summary>
#
# With the recursion: keep `m` as it is in (6.1), and append `m / (1 - decay**t)` to a list, with $t = 1$ for the first row.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Start from `m = torch.zeros_like(x[0])`. `enumerate(x, start=1)` gives `t` and the row.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `m = decay * m + (1 - decay) * x_t` in the loop; at the end `torch.stack(averages)`.
#
# </details>

# %% tags=["exercise"]
def average(x, decay):
    """x (n, columns), decay above 0, below 1 -> the corrected averages, (n, columns)."""
    raise NotImplementedError

average = check("06.1", average)

# %% tags=["solution"]
def average(x, decay):
    m, averages = torch.zeros_like(x[0]), []
    for t, x_t in enumerate(x, start=1):
        m = decay * m + (1 - decay) * x_t
        averages.append(m / (1 - decay**t))
    return torch.stack(averages)

# %% [markdown]
# The library has the recursion and the matrix. Both equal yours:

# %%
from attnlib.sequence.moving_average import exponential_moving_average, moving_average_weights

several = torch.randn(n, 3).double()
W = moving_average_weights(n, d, dtype=torch.float64)
assert torch.allclose(W, attention) and torch.allclose(average(several, d), W @ several)
assert torch.allclose(average(several, d), exponential_moving_average(several, d))

# %% [markdown]
# ### How old is the average?
#
# Take $t$ large, so that the weights $w_k = (1-d)\,d^k$ sum to one. Their **mean age** is $A = \sum_k k\, w_k$. There
# is a short way to it. The term for $k = 0$ is zero, so count from 1 and rename $k \to k+1$; then use $w_{k+1} = d\,
# w_k$:
#
# $$A = \sum_{k=0}^{\infty} (k+1)\, w_{k+1} = d \sum_{k=0}^{\infty} (k+1)\, w_k = d\,(A + 1)
# \qquad\Longrightarrow\qquad A = \frac{d}{1-d} \tag{6.6}$$
#
# What the mean age does is best seen on a ramp, $x_t = a + b\,t$. There $x_{t-k} = x_t - b\,k$, so the average of the
# values is
# $x_t$ minus $b$ times the average of the ages:
#
# $$m_t = \sum_k w_k\, (x_t - b\,k) = x_t - b\,\frac{d}{1-d} \tag{6.7}$$
#
# **The average of a ramp is the ramp, $d/(1-d)$ steps late.** For $d = 0.9$ that is 9 steps, for 0.99 it is 99. And since
# any smooth curve is nearly straight for a while, every slow rise is followed with this delay.

# %%
ramp = torch.arange(4000.0)[:, None].double()
for decay in (0.5, 0.9, 0.99):
    ages = torch.arange(4000).double()
    mean_age = (ages * (1 - decay) * decay**ages).sum().item()
    assert abs(mean_age - decay / (1 - decay)) < 1e-6  # (6.6)
    lag = (ramp - exponential_moving_average(ramp, decay))[-1].item()
    assert abs(lag - decay / (1 - decay)) < 1e-6  # (6.7)

# %% [markdown]
# A second way to say how long a memory is: the **half-life** $k_{1/2}$, after which a weight has fallen to one half. From
# $d^{\,k_{1/2}} = \frac12$:
#
# $$k_{1/2} = \frac{\ln \frac12}{\ln d} \approx \frac{0.69}{1-d} \quad \text{for } d \text{ near } 1 \tag{6.8}$$
#
# (For $d$ near 1, $\ln d \approx d - 1$.) For $d = 0.99$ it is 69 steps, and the mean age is 99. By (6.3) the ages below
# $k$ hold the share $1 - d^k$ of all the weight, so half of it lies on values older than the half-life; some of them are
# very much older, and they pull the mean up.

# %%
half_life = log(0.5) / log(0.99)
assert abs(0.99**half_life - 0.5) < 1e-12 and round(half_life) == 69  # (6.8)
assert abs(half_life * (1 - 0.99) - 0.69) < 0.01
assert abs(sum(0.01 * 0.99**k for k in range(69)) - 0.5) < 0.01  # the younger half

# %% [markdown]
# ### Exercise 06.2 · choose a decay · *Core* · 5 minutes
#
# You are asked for an average of monthly values whose weights halve every `half_life` months. Write the decay.
#
# <details><summary>Hint 1</summary>
#
# What is the weight of a value `half_life` months old, compared with a new one? Write that as an equation for $d$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# $d^{\,h} = \frac12$. Take the $h$-th root of both sides.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The $h$-th root is the power $1/h$: `0.5 ** (1 / half_life)`.
#
# </details>

# %% tags=["exercise"]
def decay_for(half_life):
    """half_life > 0, in steps -> the decay, one number."""
    raise NotImplementedError

decay_for = check("06.2", decay_for)

# %% tags=["solution"]
def decay_for(half_life):
    return 0.5 ** (1 / half_life)

# %% [markdown]
# ### Turn the knob
#
# Carbon dioxide over Mauna Loa rises from year to year and breathes with the seasons. `explore` draws the weights of an
# average and what it makes of the monthly values. **Predict:** for $d = 0.6$ and for $d = 0.95$, what is left of the
# seasons, and how far is the average behind?

# %%
def explore(decay=0.9):
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=[1, 2])
    left.bar(range(40), (1 - decay) * decay ** torch.arange(40.0)), left.set(xlabel="age in months")
    left.set(ylim=(0, 0.5), title=f"d = {decay:.2f}, mean age {decay / (1 - decay):.1f}")
    right.plot(*co2[:2], color="lightgrey"), right.set(xlim=(1958, 1978), ylim=(308, 340))
    right.plot(co2.time, average(co2.value[:, None], decay), color="C0")
    right.set(xticks=range(1960, 1980, 5), xlabel="year", ylabel="ppm")
    show(fig, alt=f"Weights by age for d = {decay:.2f}, and carbon dioxide with its average.")

# %%
explore(0.6)
explore(0.95)

# %%
def left_of_the_months(decay):  # the average's monthly changes over those of the series
    smooth = average(co2.value[:, None], decay)[120:, 0]  # without its first ten years
    return (smooth.diff().std() / co2.value[120:].diff().std()).item()

print({decay: round(left_of_the_months(decay), 2) for decay in (0.6, 0.95)})
assert 0.6 < left_of_the_months(0.6) < 0.7 and 0.05 < left_of_the_months(0.95) < 0.15

# %% [markdown]
# **What to see.** With $d = 0.6$ the seasons are still there, flatter (nearly two thirds of the changes from month to month
# are left) and a month or two late. With $d = 0.95$ they are nearly gone (about a tenth is left), and the average lies
# below the series: it is 19 months old on average, and what it shows is where the series was then. **Smoothness is paid for
# with delay**, and (6.7) is the price. Try it (the slider needs a running kernel):

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, decay=(0.05, 0.98, 0.01));

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Let $g_t$ be what arrives at $m_t$ from above, $\partial L/\partial m_t$ taken alone. But $m_t$ also feeds $m_{t+1}$, with
# the slope $d$. Write $r_t$ for the gradient that $m_t$ has in all, from above and from the future. The last one has no
# future:
#
# $$r_{n+1} = 0, \qquad r_t = g_t + d\, r_{t+1}, \qquad \frac{\partial L}{\partial x_t} = (1-d)\, r_t \tag{6.9}$$
#
# Compare with (6.1): $(1-d)\,r_t$ obeys the same rule, with time reversed. **The gradient of a moving average is a
# moving average of the gradients, run backwards.** The decay stands in every step, where it multiplies $m_{t-1}$ and,
# with a minus sign, $x_t$; so its gradient collects, over all steps,
#
# $$\frac{\partial L}{\partial d} = \sum_{t=1}^n r_t\, (m_{t-1} - x_t) \tag{6.10}$$
#
# ### Exercise 06.3 · backward · *Depth* · 15 minutes
#
# Write (6.9): from `g` (n, columns), the gradients that arrive at the *uncorrected* averages, to those for `x`, (n,
# columns).
#
# <details><summary>Hint 1</summary>
#
# Start at the last row, with `r = 0`, and go up: `for g_t in g.flip(0)` takes the rows in reversed order.
#
# </details>
# <details><summary>Hint 2</summary>
#
# In each step `r = g_t + decay * r`, and $(1-d)\,r$ is the gradient of that row.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The list now begins with the last row. Stack it, and flip it back: `torch.stack(rows).flip(0)`.
#
# </details>

# %% tags=["exercise"]
def average_backward(g, decay):
    """g (n, columns), gradients at the uncorrected averages -> those for x, (n, columns)."""
    raise NotImplementedError

average_backward = check("06.3", average_backward)

# %% tags=["solution"]
def average_backward(g, decay):
    r, rows = torch.zeros_like(g[0]), []
    for g_t in g.flip(0):
        r = g_t + decay * r
        rows.append((1 - decay) * r)
    return torch.stack(rows).flip(0)

# %%
def plain(x, d):
    m = [torch.zeros_like(x[0])]
    for x_t in x:
        m.append(d * m[-1] + (1 - d) * x_t)
    return torch.stack(m[1:])

def plain_backward(g, x, d):
    dx, before = average_backward(g, d.item()), F.pad(plain(x, d)[:-1], (0, 0, 1, 0))
    return {"x": dx, "d": (dx / (1 - d) * (before - x)).sum()}

# %%
from attnlib.lab.gradients import compare_gradients

inputs = {"x": torch.randn(7, 2).double(), "d": torch.tensor(0.8).double()}
table = compare_gradients(plain, plain_backward, inputs)
assert table.loc["x"].iloc[1:].all()  # (6.9)
assert table.loc["d"].iloc[1:].all()  # (6.10)
table

# %% [markdown]
# ### The cosine
#
# The score of part 6 is the cosine of the angle between query and key. Write $\hat q = q/|q|$ and $\hat k = k/|k|$
# for the vectors of length 1 in their directions, so that $c = \hat q \cdot \hat k = \hat q \cdot k / |k|$. The key
# stands above the line and, with its length, below it. A length has the gradient $\partial |k|/\partial k = \hat k$,
# so the quotient rule gives:
#
# $$\frac{\partial c}{\partial k} = \frac{\hat q}{|k|} - \frac{(\hat q \cdot k)\, \hat k}{|k|^2}
# = \frac{1}{|k|} \big(\hat q - c\, \hat k\big) = \frac{1}{|k|} \big(I - \hat k \hat k^\top\big)\, \hat q \tag{6.11}$$
#
# The matrix takes from $\hat q$ the part that lies along the key, and leaves the part that is orthogonal to it. For
# the query it is the same with the roles exchanged. So
#
# $$k \cdot \frac{\partial c}{\partial k} = 0, \qquad q \cdot \frac{\partial c}{\partial q} = 0 \tag{6.12}$$
#
# The gradient stands at a right angle to the key: it says how to *turn* it, never how to lengthen it. (A step $\Delta$
# along it makes the key a little longer all the same, by Pythagoras: $|k + \Delta|^2 = |k|^2 + |\Delta|^2$.) And a long key
# turns slowly, because of the factor $1/|k|$.

# %%
def cosine(q, k):
    return (q @ k) / (q.norm() * k.norm())

def cosine_backward(g, q, k):
    unit_q, unit_k, c = q / q.norm(), k / k.norm(), cosine(q, k)
    dq, dk = (unit_k - c * unit_q) / q.norm(), (unit_q - c * unit_k) / k.norm()
    return {"q": g * dq, "k": g * dk}

# %%
pair = {"q": torch.randn(5).double(), "k": torch.randn(5).double()}
table = compare_gradients(cosine, cosine_backward, pair)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (6.11)
slopes = cosine_backward(torch.tensor(1.0), **pair)
assert max(abs(slopes[name] @ pair[name]) for name in ("q", "k")) < 1e-12  # (6.12)
squares = [v.square().sum() for v in (pair["k"] + slopes["k"], pair["k"], slopes["k"])]
assert abs(squares[0] - squares[1] - squares[2]) < 1e-12  # Pythagoras
table

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# A moving average attends to ages. On the web one finds something else under the name "EMA attention": *compare the present
# vector with a window of the past by the cosine, take a softmax, and multiply the present vector by the weights.* As told,
# it cannot work. Let $a_i$ be the weights of the window; they sum to one. Then
#
# $$\sum_i a_i\, x_t = x_t \sum_i a_i = x_t \tag{6.13}$$
#
# The weights have nothing left to choose from: whatever they are, the present comes out as it went in. To learn something
# from the past, the past must be among the *values*.

# %%
history, present = torch.randn(8, 4), torch.randn(4)
a = F.cosine_similarity(history, present[None], dim=1).softmax(0)
as_told = (a[:, None] * present).sum(0)
assert torch.allclose(as_told, present, atol=1e-6)  # (6.13)
assert not torch.allclose(a @ history, present, atol=0.1)  # the past as values: something else

# %% [markdown]
# ### The repaired form
#
# A query $q_t$, keys $k_i$ and values $v_i$ for every time; a query looks at the $L$ places before its own, and the score
# is the cosine times a number $\beta > 0$:
#
# $$a_{ti} = \mathrm{softmax}_{\,i = t-L, \dots, t-1}\big(\beta\, \hat q_t \cdot \hat k_i\big), \qquad c_t = \sum_i a_{ti}\, v_i \tag{6.14}$$
#
# Near the start there are fewer than $L$ places; the first time has no past, and gets zeros. This is attention with a
# window for a mask and the cosine for a score. It is not a moving average: its weights know nothing of age. The library
# calls it what it is, `WindowedCosineAttention`. By hand, with $\beta = \ln 2$, so that $e^{\beta \cos} = 2^{\cos}$: three
# keys, along the query (cosine 1), across it (0) and against it ($-1$). The powers are $2, 1, \frac12$, and the weights
# $\frac47, \frac27, \frac17$.

# %%
from attnlib.sequence.moving_average import WindowedCosineAttention

keys = torch.tensor([[3.0, 0], [0, 5], [-2, 0], [1, 1]]).double()  # lengths do not matter
queries = torch.tensor([[1.0, 1], [1, 1], [1, 1], [0.5, 0]]).double()
seen = WindowedCosineAttention(3, beta=log(2)).double().weights(queries, keys)
assert torch.allclose(seen[3], torch.tensor([4, 2, 1, 0]).double() / 7, atol=1e-6)  # (6.14)

# %% [markdown]
# ### A ceiling
#
# A cosine lies between $-1$ and $1$. How large can one weight become? The best case for it: its own cosine is 1 and
# all others are $-1$. Multiply above and below by $e^\beta$:
#
# $$a_{\max} = \frac{e^{\beta}}{e^{\beta} + (L-1)\, e^{-\beta}} = \frac{e^{2\beta}}{e^{2\beta} + L - 1} \tag{6.15}$$
#
# At $\beta = 1$, the plain cosine, $e^2 = 7.39$, so in a window of 36 no weight exceeds $7.39/42.39 = 0.17$, however
# perfect the match: **in a long window the plain cosine cannot focus**. Solved for $\beta$, a weight of one half needs
# $\beta \ge \frac12 \ln(L-1)$, which is 1.78 for $L = 36$, and that in the best case. So $\beta$ should be larger, or be
# learnt.

# %%
from math import exp

def largest_weight(L, beta):
    query = torch.ones(L + 1, 2)
    keys = torch.cat([query[:1], -query[1:]])  # one along the query, all others against it
    return WindowedCosineAttention(L, beta=beta).weights(query, keys)[-1].max().item()

# %%
for L, beta in [(4, 1.0), (36, 1.0), (36, 3.0)]:
    assert abs(largest_weight(L, beta) - exp(2 * beta) / (exp(2 * beta) + L - 1)) < 1e-4  # (6.15)
print(f"at most {largest_weight(36, 1.0):.2f} for beta = 1, 0.50 for beta = {log(35) / 2:.2f}")
assert round(largest_weight(36, 1.0), 2) == 0.17
assert round(log(35) / 2, 2) == 1.78 and abs(largest_weight(36, log(35) / 2) - 0.5) < 1e-4

# %% [markdown]
# ### Trained: what followed when it last looked like this?
#
# Now give it something to do: **forecast the next value**. A single number has no direction, so let the key of a time be
# the last 12 changes of the series, times a learnt matrix of size 12 x 8; queries and keys are the same vectors. The value
# of time
# $i$ is the change that *followed*, $x_{i+1} - x_i$, which is known at every later time. The forecast for $t + 1$ is the
# present value plus a learnt factor times what attention says: present and past are **fused**.

# %%
class ByContent(nn.Module):
    def __init__(self, pattern=12, window=36, width=8):
        super().__init__()
        self.W = nn.Parameter(torch.randn(pattern, width).double() / pattern**0.5)
        self.attend = WindowedCosineAttention(window, beta=5.0, learnable=True).double()
        self.fuse = nn.Parameter(torch.ones(1).double())

# %%
def keys_and_values(model, x):
    change = x.diff()
    pattern = F.pad(change, (12, 0)).unfold(0, 12, 1)  # the last 12 changes, for each time
    return pattern @ model.W, F.pad(change, (0, 1))[:, None]  # the last one is not known yet

def forecast(model, x):
    key, value = keys_and_values(model, x)
    return x + model.fuse * model.attend(key, key, value)[:, 0]  # entry t is for time t + 1

# %% [markdown]
# We train on the first 70% of the time and keep the rest for later: shuffling a series and splitting it would let a model
# interpolate between neighbours. The loss is the mean squared error from time 48 on, when pattern and window are full (12 +
# 36), divided by the variance of the changes; full batch, 200 steps of Adam. $\beta$ is learnt too and begins at 5. By
# (6.15) a weight can then pass one half; will training make the choice sharper still?

# %%
def train(x, seed, cut):
    torch.manual_seed(seed)
    model, known = ByContent(), x[:cut]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(200):
        loss = (known[48:] - forecast(model, known)[47:-1]).square().mean() / known.diff().var()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return model

# %%
def cut_of(series):
    return int(0.7 * len(series.value))

models = [train(series.value, seed=0, cut=cut_of(series)) for series in (co2, sunspots)]
betas = [model.attend.log_beta.exp().item() for model in models]
print("beta began at 5; has it grown beyond 6?", [beta > 6 for beta in betas])
assert min(betas) > 6

# %% [markdown]
# It grows. For 60 times of the held-out part, we draw the weights by age. A row is one time asking. **Predict:** at which
# ages will the bright cells lie, in months for carbon dioxide and in years for the sunspots? And how would this picture
# look for a moving average?

# %%
from attnlib.lab.plots import heatmap

def weights_by_age(series, model):
    with torch.no_grad():
        key = keys_and_values(model, series.value)[0]
        weights = model.attend.weights(key, key)
    times = range(cut_of(series), len(key))
    return torch.stack([weights[t, t - 36 : t].flip(0) for t in times])  # column k - 1: age k

seen_by_age = [weights_by_age(co2, models[0]), weights_by_age(sunspots, models[1])]

# %%
of_average = (0.1 * 0.9 ** torch.arange(1, 37)).expand(60, 36)
shown = {"CO2": seen_by_age[0], "sunspots": seen_by_age[1], "EMA, d = 0.9": of_average}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, width_ratios=[1, 1, 1.2])
for ax, (title, rows) in zip(axes, shown.items(), strict=True):
    heatmap(rows[:60], ax=ax, limits=(0, 0.5), label="weight", colorbar=ax is axes[2])
    ax.set(xticks=[0, 11, 23, 35], xticklabels=[1, 12, 24, 36], xlabel="age", title=title)
show(fig, alt="Weights by age for 60 times. Carbon dioxide: stripes at ages 12, 24 and 36. "
     "Sunspots: bright cells near 10, 20 and 31, wandering. EMA: every row the same.")

# %%
on_years = seen_by_age[0][:, [11, 23, 35]].sum(1).mean()  # ages 12, 24, 36
cycles = [k - 1 for k in range(36) if k in {*range(9, 14), *range(19, 25), *range(30, 36)}]
on_cycles = seen_by_age[1][:, cycles].sum(1).mean()  # 17 of the 36 ages
print("CO2: more than half of the weight on the ages 12, 24 and 36:", bool(on_years > 1 / 2))
print("sunspots: more than 0.7 on 9 to 13, 19 to 24 and 30 to 35:", bool(on_cycles > 0.7))
assert on_years > 1 / 2 and on_cycles > 0.7
assert seen_by_age[1].max(1).values.median() > 0.5 > seen_by_age[0].max(1).values.median()

# %% [markdown]
# **What to see.** Left: stripes. In May it looks at earlier Mays: the season has been found in the content, for nobody told
# the model what month it is. Middle: a cycle of the sun lasts ten years or twelve or nine, and the bright cells wander with it,
# one, two or three cycles back. Most of these rows spend more than half of their weight on a single year (the colours end at
# 0.5). Right: the moving average gives every row the same weights, in good years and bad. That is the difference in one picture:
# **weights by age, or weights by content.**

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | here | elsewhere |
# |---|---|---|
# | the weight of the newest value | $1 - d$ | $\alpha$ (statistics, pandas, Mega); *momentum* in torch's batch norm |
# | the factor of the past | $d$, *decay* | $1 - \alpha$; $\beta_1, \beta_2$ in Adam; *momentum* in TensorFlow's batch norm |
# | the start | $m_0 = 0$, divided by $1 - d^t$ | $m_0 = 0$ left alone; or $m_1 = x_1$ |
# | the memory's length | $d$ | mean age (*center of mass*), half-life, or *span* $s$ with $\alpha = 2/(s+1)$ |
# | $\beta$ of a cosine | fixed or learnt | 1 in Matching Networks; from each query in Neural Turing Machines; learnt per head in Swin V2 |
#
# **The start.** pandas has two of the three: `adjust=True` is our correction, and `adjust=False` begins with $m_1 = x_1$,
# which gives the very first value the weight $d^{t-1}$ instead of $(1-d)\,d^{t-1}/(1 - d^t)$. That is $(1 - d^t)/(1-d)$ times
# its share; with $d = 0.9$ the factor is 1 at $t = 1$, 1.9 at $t = 2$, and 10 in the end.

# %%
keep, draws = 0.9, torch.randn(30).double()
ours, begun = exponential_moving_average(draws[:, None], keep)[:, 0].tolist(), [draws[0].item()]
for value in draws[1:].tolist():
    begun.append(keep * begun[-1] + (1 - keep) * value)
frame = pd.Series(draws.numpy())
assert abs(frame.ewm(alpha=1 - keep, adjust=True).mean() - ours).max() < 1e-12
assert abs(frame.ewm(alpha=1 - keep, adjust=False).mean() - begun).max() < 1e-12
assert [round((1 - keep**t) / (1 - keep), 1) for t in (1, 2, 99)] == [1, 1.9, 10]

# %% [markdown]
# **The names of one number.** The decay 0.9 is a center of mass of 9, a half-life of 6.6 and a span of 19. In torch,
# a batch norm of `momentum=0.1` keeps $d = 0.9$ of its old mean:

# %%
memory = {"com": keep / (1 - keep), "halflife": log(0.5) / log(keep), "span": 2 / (1 - keep) - 1}
assert [round(value, 1) for value in memory.values()] == [9, 6.6, 19]
for name, value in memory.items():
    assert abs(frame.ewm(**{name: value}).mean() - ours).max() < 1e-12
norm = nn.BatchNorm1d(1, momentum=0.1).double()
norm(draws[:, None])
assert torch.allclose(norm.running_mean, 0.9 * 0 + 0.1 * draws.mean())  # it began at 0

# %% [markdown]
# **Averages of weights.** The same recursion over a network's *parameters*, step by step of its training, smooths the
# network and not its input; torch has it as `torch.optim.swa_utils.AveragedModel`. It attends to nothing, and belongs
# to [16_hrnet](16_hrnet.ipynb).
#
# ### Mega's damped average
#
# One decay for everything is little. Mega gives each feature $N$ hidden numbers, each with a decay of its own, and lets the
# decay differ from one minus the weight of the new value. For one feature, with $j = 1, \dots, N$ and a start at zero:
#
# $$h_{t,j} = \alpha_j \beta_j\, x_t + (1 - \alpha_j \delta_j)\, h_{t-1,j}, \qquad y_t = \sum_j \eta_j\, h_{t,j} \tag{6.16}$$
#
# $\alpha_j$ and $\delta_j$ lie between 0 and 1 (they are sigmoids of what is learnt), $\beta_j$ spreads the feature over the
# hidden numbers, $\eta_j$ gathers them again. With $N = \beta = \delta = \eta = 1$ this is (6.1), with $\alpha = 1 - d$. A
# small $\delta$ "damps" the forgetting. Unrolled as before, every $h$ is a sum over ages, and so is their sum:
#
# $$y_t = \sum_{k=0}^{t-1} \kappa_k\, x_{t-k}, \qquad \kappa_k = \sum_{j} \eta_j\, \alpha_j \beta_j\, (1 - \alpha_j \delta_j)^k \tag{6.17}$$
#
# The right-hand side is a **convolution** of the series with the kernel $\kappa$, and no step has to wait for the one
# before. By fast Fourier transforms it takes of the order of $n \log n$ operations. `DampedEMA` has both: `recurrent`
# is (6.16), `forward` is (6.17).

# %%
from attnlib.sequence.moving_average import DampedEMA

damped, signal = DampedEMA(3, expansion=4, as_released=False).double(), torch.randn(2, 200, 3)
signal, kernel = signal.double(), damped.kernel(200)  # (series, ages, features), (features, ages)
direct = torch.zeros_like(signal)
for k in range(200):
    direct[:, k:] += kernel[:, k] * signal[:, : 200 - k]  # the sum of (6.17), age by age
assert (damped.recurrent(signal) - direct).abs().max() < 1e-10  # (6.16)
assert (damped(signal) - direct).abs().max() < 1e-10  # (6.17)

# %%
with torch.no_grad():
    alpha, delta = damped.alpha_logit.sigmoid(), damped.delta_logit.sigmoid()
    by_formula = damped.eta * alpha * damped.beta * (1 - alpha * delta) ** 5
assert torch.allclose(kernel[:, 5], by_formula.sum(1))  # age 5, summed over the N hidden numbers

# %%
simplest = DampedEMA(3, expansion=1, as_released=False).double()
for parameter, value in zip(simplest.parameters(), (log(0.2 / 0.8), 50, 1, 1), strict=True):
    parameter.data.fill_(value)  # alpha = 0.2, delta = 1, beta = eta = 1
uncorrected = exponential_moving_average(signal, 0.8, bias_correction=False)
assert torch.allclose(simplest(signal), uncorrected)

# %% [markdown]
# **Predict:** a moving average has one shape of kernel, a falling curve. Which shapes can a sum of four such curves
# have, when the $\eta_j$ and $\beta_j$ may be negative? (At the start all decays lie close together; we multiply the
# logits of $\alpha$ by 10 to spread them.)

# %%
torch.manual_seed(1)
spread = DampedEMA(4, expansion=4, as_released=False)
with torch.no_grad():
    spread.alpha_logit.mul_(10)
    kernels = spread.kernel(25)
crosses, grows = (kernels[:, 0] * kernels[:, 12] < 0), kernels[:, 2].abs() > kernels[:, 0].abs()
print("cross the axis:", crosses.sum().item(), "of 4; grow before they fade:", grows.sum().item())
assert crosses.any() and grows.any() and (kernels[:, 0] < 0).any()

# %%
ax = plt.subplots(figsize=(5, 2.5))[1]
for kernel_of_feature, style in zip(kernels, ["-", "--", "-.", ":"], strict=True):
    ax.plot(kernel_of_feature, style)
ax.axhline(0, color="grey", lw=0.8)
ax.set(xlabel="age", ylabel="weight")
show(ax.figure, alt="Kernels of four features: three begin below zero, three cross the axis, one "
     "grows before it fades.")

# %% [markdown]
# **What to see.** A kernel may begin below zero, cross the axis, or grow before it fades. It need not be positive or sum to
# one, so this is no longer an average in the strict sense and its weights are no softmax. What remains of the moving
# average: **the weights depend on age alone.** In Mega an attention layer stands behind it. (In the Fourier transforms,
# rounding lets a trace of the future through, below $10^{-14}$ in the short series here; the recursion lets none.)
#
# **Paper and released code.** (6.16) is as printed. The released code divides $\eta$ by $\sqrt N$, adds $\omega \odot x$
# with a learnt $\omega$, and applies $\mathrm{silu}(t) = t\,\sigma(t)$ at the end; `as_released=True`, the default, does as
# it does. A second direction over the future leaves the present to the first.

# %%
short, released = torch.randn(9, 3).double(), DampedEMA(3, expansion=4).double()
alone = DampedEMA(3, expansion=4, as_released=False).double()
alone.load_state_dict(released.state_dict(), strict=False)
assert torch.allclose(released(short), F.silu(alone(short) / 4**0.5 + released.omega * short))
of_future = lambda f: torch.autograd.functional.jacobian(f, short)[0, :, 1:].abs().max()
assert of_future(alone.recurrent) == 0 and of_future(alone) < 1e-14

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# The moving average has no parameters, or one if $d$ is learnt; the cosine window has none, or $\beta$. The damped
# average of $D$ features has four tables of $K \times N$ numbers, with $K = D$, or $2D$ if it looks both ways, and as
# released $\omega$ with $D$:
#
# $$P = 4KN + D \tag{6.18}$$

# %%
from attnlib.lab.cost import count_parameters

for D, N, both_ways in [(512, 16, False), (512, 16, True), (6, 5, False)]:
    K = 2 * D if both_ways else D
    module = DampedEMA(D, expansion=N, bidirectional=both_ways)
    assert count_parameters(module) == 4 * K * N + D  # (6.18)
    print(f"D = {D}, N = {N}, both ways {both_ways}: {count_parameters(module):,}")
of_window = [WindowedCosineAttention(36, learnable=learnt) for learnt in (False, True)]
assert [count_parameters(module) for module in of_window] == [0, 1]

# %% [markdown]
# And operations, for $n$ steps of one feature:
#
# | form | multiplications, of the order of | steps that must wait for each other | kept between steps |
# |---|---|---|---|
# | recursion (6.1) | $2n$ | $n$ | one number |
# | matrix of weights (6.5) | $n^2/2$ | 1 | the whole past |
# | convolution by Fourier transforms (6.17) | $n \log n$ | about $\log n$ | the whole past |
# | cosine window (6.14), keys of width $p$ | $nL(p + 1)$ | 1 | the last $L$ keys and values |
#
# For a value at a time, from a stream, the recursion is hard to beat: one number is kept, and two multiplications are made,
# or one, if it is written as $m + (1-d)(x - m)$. For training on a long series that is all there, the convolution can use
# many cores at once. (The library's cosine window holds an $n \times n$ matrix for the sake of a short text; $nL$ would
# do.)

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# What is the best forecast of the next value? First with a pencil, for a series whose law we know: a **random walk**
# that is seen through **noise**. A hidden level moves by an independent step of variance $\sigma^2$ each time; what
# we see is the level plus an independent error of variance $\rho^2$; all means are zero. Forecast with the moving
# average, after a long time. Its error for the next value has four independent parts:
#
# - the next step of the level, $\sigma^2$, and the next error of measurement, $\rho^2$: nobody can know them;
# - the **lag**: a step of the level $j$ steps ago has reached the average only in the weights of the ages $0, \dots, j$, which
#   sum to $1 - d^{\,j+1}$; it is short by $d^{\,j+1}$. In all $\sigma^2 (d^2 + d^4 + \dots) = \sigma^2 \frac{d^2}{1-d^2}$;
# - the **noise** that is left in the average: $\rho^2 \sum_k (1-d)^2 d^{2k} = \rho^2 \frac{(1-d)^2}{1-d^2} = \rho^2
#   \frac{1-d}{1+d}$.
#
# Since $\sigma^2 + \sigma^2 \frac{d^2}{1-d^2} = \frac{\sigma^2}{1-d^2}$ and $\rho^2 + \rho^2 \frac{1-d}{1+d} =
# \frac{2\rho^2}{1+d}$, the sum is
#
# $$E(d) = \frac{\sigma^2 + 2\rho^2 (1-d)}{1 - d^2}, \qquad \text{smallest where} \quad \frac{(1-d)^2}{d} = \frac{\sigma^2}{\rho^2} \tag{6.19}$$
#
# (Set the derivative to zero: $-2\rho^2(1-d^2) + 2d\,(\sigma^2 + 2\rho^2(1-d)) = 0$, which is $\sigma^2 d = \rho^2
# (1-d)^2$.) With $\sigma^2 = 0.05$ and $\rho^2 = 1$ the best decay is 0.8, since $0.2^2/0.8 = 0.05$. **Without noise
# it is $d = 0$: the last value.**

# %%
steps, errors = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0)).double()
def expected_error(d, step, error):
    return (step + 2 * error * (1 - d)) / (1 - d**2)

for step, error, decay in [(0.05, 1, 0), (0.05, 1, 0.8), (0.05, 1, 0.95), (1, 0, 0), (1, 0, 0.8)]:
    seen_through_noise = ((step**0.5 * steps).cumsum(0) + error**0.5 * errors).numpy()
    guess = pd.Series(seen_through_noise).ewm(alpha=1 - decay).mean().values
    measured = ((seen_through_noise[1:] - guess[:-1]) ** 2).mean()
    assert abs(measured / expected_error(decay, step, error) - 1) < 0.05  # (6.19)

# %%
grid = [i / 100 for i in range(100)]
best = min(grid, key=lambda d: expected_error(d, 0.05, 1))
assert best == 0.8 and abs((1 - best) ** 2 / best - 0.05) < 1e-12  # the minimum of (6.19)
assert min(grid, key=lambda d: expected_error(d, 1, 0)) == 0
print("best decay, with noise and without:", best, 0.0)

# %% [markdown]
# For the walk without noise one can say more. Whatever a forecaster $f$ makes of the past, be it an average, attention or a
# network, the next step $\varepsilon$ is independent of it and has mean zero. So in
# $x_{t+1} - f = \varepsilon + (x_t - f)$ the two parts have no covariance:
#
# $$\mathbb{E}\,(x_{t+1} - f)^2 = \sigma^2 + \mathbb{E}\,(x_t - f)^2 \;\ge\; \sigma^2 \tag{6.20}$$
#
# with equality for $f = x_t$ alone. **On a random walk nothing beats the last value**: whoever strays from it pays
# the square of how far. (What is needed is only that the next step has mean zero given the past; such a series is
# called a *martingale*.)

# %%
walk = steps.cumsum(0)
mean_of_5, same_step_again = walk.unfold(0, 5, 1).mean(1)[:-1], 2 * walk[4:-1] - walk[3:-2]
for f in (mean_of_5, same_step_again):
    strayed = (walk[4:-1] - f).square().mean()
    measured = (walk[5:] - f).square().mean()
    assert abs(measured / (1 + strayed) - 1) < 0.03 and measured > 1.1  # (6.20)

# %% [markdown]
# ### The race
#
# Four series: the noisy walk, with the variances 0.05 and 1 of the example, and the pure walk (ten of each, 500 values
# long), 526 months of CO2 and 309 years of sunspots (there is one history of each). Learnt on the first 70% of the time,
# tested on the rest, one step ahead. Six forecasters, from no freedom to much:
#
# - the **last value**, which is the yardstick;
# - the **EMA**, with the decay that was best on the training part, out of $0, 0.02, \dots, 0.98$;
# - **by age**: a softmax over the last 24 values whose scores are learnt, one for each age;
# - **linear**: the next change from the last 23 changes and a constant, by least squares; weights of any sign;
# - **by content**: the model of part 6; and for CO2 **season**: the present value plus the change that followed a year ago.
#
# `notebooks/runs/06_moving_averages.py` made the table. The last forecaster starts at random and has ten seeds; the others
# have nothing random in them.
#
# Two rules, before we look. *Walks:* a forecaster differs from the last value if the mean of its ten ratios, its
# error over that of the last value on the same walk, lies more than 2.26 standard errors from one (Student's $t$ for
# ten, 95%). *CO2 and sunspots:* seeds say nothing about another history, so the test part is cut into five blocks of
# time, and **one forecaster beats another only if its error (its mean over the seeds) is lower in all five**. If each
# block were the toss of a coin, that would happen in one case of 32.
#
# **Predict:** on which series will the EMA win, on which will content win, and what will content do on the walks?

# %%
from attnlib.lab.data import load_results
from attnlib.lab.plots import by_seed

runs = load_results("06_forecasts")
by_run = runs.pivot(index=["series", "seed"], columns="forecaster", values="error")
yardstick = by_run["last value"].groupby("series").ffill()  # one history: the same for every seed
ratio = by_run.div(yardstick, axis=0)
names = ["last value", "EMA, best d", "by age", "linear", "by content", "season"]
learnt = names[1:5]

# %%
fig, axes = plt.subplots(2, 2, figsize=(9, 5))
for ax, series in zip(axes.flat, ["noisy walk", "random walk", "CO2", "sunspots"], strict=True):
    dots = {name: list(ratio.loc[series][name].dropna()) for name in names}
    by_seed({k: v for k, v in dots.items() if v}, ax=ax, highlight="by content", limit=1, label="")
    ax.set(title=series, ylim=(0, 1.6)), ax.tick_params(axis="x", rotation=20, labelsize="small")
fig.supylabel("error / error of the last value", fontsize="small")
show(fig, alt="Error over that of the last value on four series. Noisy walk: EMA lowest, content "
     "above one. Random walk: none below one. CO2 and sunspots: linear lowest, EMA at one.")

# %% [markdown]
# **What to see.** The root of the mean squared error, divided by that of the last value (dashed). Upper left: with
# noise the moving average wins, as (6.19) says it must, and content is *worse than the last value*. Upper right: no
# mean lies below the line. Below: the EMA lies *on* the line, for the decay it chose was 0; it threw away its memory.
# By age, linear and content lie below; whether by the rule, we count at once.

# %%
over_walks = (ratio[learnt] - 1).loc[["noisy walk", "random walk"]].groupby("series")
t_values = over_walks.mean() / over_walks.sem()
assert (t_values.loc["noisy walk"] < -2.26).tolist() == [True, True, True, False]
assert t_values.loc["noisy walk", "by content"] > 2.26
assert (t_values.loc["random walk"] > 2.26).tolist() == [False, True, True, True]
lengths = runs.groupby("series")["values"].first()
assert lengths[["CO2", "noisy walk", "random walk", "sunspots"]].tolist() == [526, 500, 500, 309]

# %% [markdown]
# **The walks, by the rule.** With noise: EMA, by age and linear beat the last value; content is worse than it. The EMA
# chose decays from 0.74 to 0.86, around the 0.8 of the pencil, and its error came down to 0.81 of the last value's; (6.19)
# promises $\sqrt{E(0.8)/E(0)} = 0.78$. On the pure walk nothing is better. By age, linear and content are worse, the more
# the freer they are: about 1%, 4% and 18% on average. For the EMA no difference was found: on most walks it chose $d = 0$
# and *is* the last value, and never more than 0.12.

# %%
def mean_error(series, name):
    return ratio.loc[series][name].mean()

excess = {name: mean_error("random walk", name) - 1 for name in ("by age", "linear", "by content")}
print({name: f"{value:+.0%}" for name, value in excess.items()})
assert [round(100 * value) for value in excess.values()] == [1, 4, 18]

# %%
chosen = runs.dropna(subset="decay").groupby("series")["decay"].agg(list)
assert chosen["random walk"].count(0) == 7 and max(chosen["random walk"]) == 0.12
assert (min(chosen["noisy walk"]), max(chosen["noisy walk"])) == (0.74, 0.86)
assert chosen["CO2"] == chosen["sunspots"] == [0]
assert round(mean_error("noisy walk", "EMA, best d"), 2) == 0.81
assert round((expected_error(0.8, 0.05, 1) / expected_error(0, 0.05, 1)) ** 0.5, 2) == 0.78

# %% [markdown]
# **Why is content worse?** It may look for patterns where there are none. We train it on the first of the stored pure walks
# and compare its error with the last value's: on the part on which it learns, and on the rest.

# %%
generator = torch.Generator().manual_seed(0)
pure = torch.randn(2, 500, generator=generator, dtype=torch.float64)[0].cumsum(0)
learner = train(pure, seed=0, cut=350)
with torch.no_grad():
    missed = (pure[1:] - forecast(learner, pure)[:-1]).square()  # of the times 1 to 499

# %%
parts = {"on its training part": slice(47, 349), "on the rest": slice(349, None)}
yard = pure.diff().square()  # of the last value
learnt_by = {k: (missed[p].mean() / yard[p].mean()) ** 0.5 for k, p in parts.items()}
print({name: "better" if value < 1 else "worse" for name, value in learnt_by.items()})
assert learnt_by["on its training part"] < 0.9 and learnt_by["on the rest"] > 1.05
root = missed[349:].mean() ** 0.5
assert abs(root / by_run.loc[("random walk", 0), "by content"] - 1) < 0.1  # near its stored row

# %% [markdown]
# On the part on which it learns it is *better* than the last value, which by (6.20) cannot be skill: it has fitted what was
# noise. On the rest, each pattern that it believes in makes it stray, and (6.20) charges that.

# %%
blocks = [f"block {i}" for i in range(5)]
mean_of = runs.groupby(["series", "forecaster"])[blocks].mean()
def beats(series, one, other):
    return bool((mean_of.loc[series, one] < mean_of.loc[series, other]).all())

for series in ("CO2", "sunspots"):
    print(series, "- beat the last value:", [n for n in learnt if beats(series, n, "last value")])

# %%
assert all(beats("CO2", "linear", name) for name in ("by age", "by content", "season"))
assert not beats("CO2", "by content", "season") and not beats("CO2", "season", "by content")
assert [beats("CO2", name, "last value") for name in learnt] == [False, True, True, True]
assert [beats("sunspots", name, "last value") for name in learnt] == [False, True, True, False]
won = mean_of.loc[("sunspots", "by content")] < mean_of.loc[("sunspots", "last value")]
assert won.sum() == 4

# %%
assert beats("CO2", "by content", "by age") and beats("sunspots", "linear", "by content")
assert not beats("sunspots", "linear", "by age") and not beats("sunspots", "by age", "linear")
real = [mean_error("CO2", n) for n in names[2:]] + [mean_error("sunspots", n) for n in names[2:5]]
assert [round(100 * value) for value in real] == [68, 26, 31, 31, 72, 62, 79]

# %% [markdown]
# **CO2.** In per cent of the last value's error: by age 68, linear 26, content 31, season 31. Linear beats all the others
# in every block, and content beats by age. Between content and the rule of thumb of the season **no difference was found**:
# all that training brought is as good as one sentence. **Sunspots.** By age 72, linear 62, content 79. Linear and by age
# beat the last value in all five blocks; content only in four, so by our rule it does not, although its mean is a fifth
# lower. Linear beats content in all five; between linear and by age no difference was found.
#
# So: an average by age is the right tool where a slow level hides in noise. Where the series has a shape, *learnt* weights
# by age find it; if they may have any sign, they beat the weights by content on both of these short series. What is freest
# is worst where there is nothing to find. One live run shows that the table comes from this recipe:

# %%
with torch.no_grad():
    said = forecast(models[1], sunspots.value)
cut = cut_of(sunspots)
live = (sunspots.value[cut:] - said[cut - 1 : -1]).square().mean().sqrt().item()
stored = by_run.loc[("sunspots", 0), "by content"]
print("the live run is near its stored row:", abs(live / stored - 1) < 0.15)
assert abs(live / stored - 1) < 0.15

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# Articles on the web show a layer of the following kind under the name "EMA attention". Here it is in our own
# smallest form; it keeps its average between calls:

# %%
class Remembering(nn.Module):
    def __init__(self, decay=0.9):
        super().__init__()
        self.decay, self.alpha = decay, None
    def forward(self, x):
        before = torch.zeros_like(x) if self.alpha is None else self.alpha
        self.alpha = self.decay * before + (1 - self.decay) * x
        return self.alpha

# %% [markdown]
# It averages over *calls*: entry by entry, the first image of this batch with the first image of the last one.
# **Predict** what goes wrong before you read on; there are five things. First, it begins at zero and does not
# correct, so the very first batch comes out as a tenth of itself, (6.3):

# %%
layer, batch = Remembering(), torch.randn(4, 3)
assert torch.allclose(layer(batch), 0.1 * batch)
print("first call: 0.1 x")

# %% [markdown]
# Second, it remembers the batch's size. The last batch of an epoch is usually smaller, and the layer stops. (If the smaller
# batch has *one* image, it does not stop: the sizes broadcast, and four answers come back for one question.)

# %%
try:
    layer(torch.randn(3, 3))
    raise AssertionError("three after four went through")
except RuntimeError as error:
    print("three after four:", str(error).split(" at ")[0])
assert layer(torch.randn(1, 3)).shape == (4, 3)

# %% [markdown]
# Third, what one image gets depends on which images came before it, at its place in the batch. The same batch gives another
# answer the second time, also in `eval`: the test score depends on the order of the test set.

# %%
layer, batch, other = Remembering().eval(), torch.randn(4, 3), torch.randn(4, 3)
first, second = layer(batch), layer(batch)
layer(other)
assert not torch.allclose(first, second) and not torch.allclose(layer(batch), second)

# %% [markdown]
# Fourth, the state carries its graph along. In the second step of training, the backward pass runs into the first one,
# whose tensors are gone:

# %%
network = nn.Sequential(nn.Linear(3, 3), Remembering())
network(batch).sum().backward()
try:
    network(batch).sum().backward()
    raise AssertionError("the second step went through")
except RuntimeError as error:
    print("second step:", str(error).split("(")[0])
    assert "second time" in str(error)

# %% [markdown]
# Fifth, the state is a plain attribute. It is not in the state dict, so it is not saved, and a network that is loaded
# begins again with a tenth:

# %%
network = nn.Sequential(nn.Linear(3, 3), Remembering())
with torch.no_grad():
    once, again = network(batch), network(batch)
    loaded = nn.Sequential(nn.Linear(3, 3), Remembering())
    loaded.load_state_dict(network.state_dict())
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert torch.allclose(loaded(batch), once) and not torch.allclose(loaded(batch), network(batch))

# %% [markdown]
# The first is the missing correction. The other four have one cause: the layer averages over the wrong axis. The past of a
# sequence is *inside* the batch, on its time axis, and a function without state is enough: `exponential_moving_average`
# takes (..., n, columns), any batch, and forgets everything afterwards. (Where an average over calls *is* wanted, as in
# batch norm's running mean, it is kept in a registered buffer, without a graph, and holds a statistic of the batch, not its
# images.)

# %%
four = torch.randn(4, 10, 3, requires_grad=True)
smoothed = exponential_moving_average(four, 0.9)
assert torch.allclose(smoothed[:, 0], four[:, 0])  # corrected: the first value is itself
assert torch.equal(exponential_moving_average(four[:3], 0.9), smoothed[:3])  # any batch, no leak
for _ in range(2):
    exponential_moving_average(four, 0.9).sum().backward()  # as often as one likes

# %% [markdown]
# ### Exercise 06.4 · bug gallery · *Depth* · 10 minutes
#
# Here is the other form that is told, the one of part 6, for a series `x` of shape (n, columns). Two mistakes stand in it.
# It should do (6.14) with $q = k = v = x$: look at the `window` places *before* $t$, and return zeros for the first
# time, which has no past. Change as little as you can.
#
# ```python
# def forward(x, window, beta):
#     out = torch.zeros_like(x)
#     for t in range(1, len(x)):
#         past = x[max(0, t - window) : t + 1]
#         weights = (beta * F.cosine_similarity(past, x[t : t + 1], dim=1)).softmax(0)
#         out[t] = (weights[:, None] * x[t]).sum(0)
#     return out
# ```
#
# <details><summary>Hint 1</summary>
#
# Compare the output with `x`. Why are they equal? See (6.13).
#
# </details>
# <details><summary>Hint 2</summary>
#
# That was the first. The second: which cosine has the present with itself? It should not be in its own past.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `past = x[max(0, t - window) : t]`, and `weights @ past` at the end.
#
# </details>

# %% tags=["exercise"]
def mended(x, window, beta):
    """x (n, columns) -> what attention finds in the past, same shape; the first row zeros."""
    raise NotImplementedError

mended = check("06.4", mended)

# %% tags=["solution"]
def mended(x, window, beta):
    out = torch.zeros_like(x)
    for t in range(1, len(x)):
        past = x[max(0, t - window) : t]
        weights = (beta * F.cosine_similarity(past, x[t : t + 1], dim=1)).softmax(0)
        out[t] = weights @ past
    return out

# %%
vectors = torch.randn(12, 4).double()
by_library = WindowedCosineAttention(5).double()(vectors, vectors, vectors)
assert torch.allclose(mended(vectors, 5, 1.0), by_library)

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# **EMA-1** "EMA attention: the cosine with a window of the past, a softmax, a weighted average, fused with the
# present." **Misnamed, and broken as told.** Misnamed, because its weights do not fall exponentially with age:
# shuffle the window, and every vector keeps its weight. Broken, because the weights multiply the present vector,
# (6.13). Repaired, with the past as values, it was built and trained in parts 6 and 9.

# %%
# claim EMA-1: MISNAMED, and BROKEN as told
a, order = F.cosine_similarity(history, present[None], dim=1).softmax(0), torch.randperm(8)
shuffled = F.cosine_similarity(history[order], present[None], dim=1).softmax(0)
assert torch.allclose(shuffled, a[order])  # age plays no part
assert torch.allclose((a[:, None] * present).sum(0), present, atol=1e-6)

# %% [markdown]
# **EMA-2** "An exponentially weighted average of the past, in which recent values weigh more." **True** of the moving
# average; and corrected, it is attention with the scores $k \log d$, (6.5).

# %%
# claim EMA-2: TRUE
weights = moving_average_weights(10, 0.8, dtype=torch.float64)
assert torch.allclose(weights[-1], (torch.arange(9, -1, -1) * log(0.8)).double().softmax(0))
assert (weights[-1].diff() > 0).all()  # from the oldest to the newest

# %% [markdown]
# **EMA-3** "A layer keeps `alpha = decay * alpha + (1 - decay) * x` between calls." **Broken**, in the five ways of part
# 10.

# %%
# claim EMA-3: BROKEN
layer, batch = Remembering(), torch.randn(4, 3)
assert torch.allclose(layer(batch), 0.1 * batch) and not torch.allclose(layer(batch), 0.1 * batch)
assert list(layer.state_dict()) == []

# %% [markdown]
# **EMA-5** "A long history lags behind fast changes." **True**, by $d/(1-d)$ steps on a ramp, (6.7). After a jump, the
# share
# $d^k$ of it is still missing when $k$ values of the new level have come in:

# %%
# claim EMA-5: TRUE
jump = torch.cat([torch.zeros(2000, 1), torch.ones(30, 1)]).double()
missing = 1 - exponential_moving_average(jump, 0.9)[1999:, 0]
assert torch.allclose(missing, 0.9 ** torch.arange(31).double())

# %% [markdown]
# **EMA-6** "EMA updates its weights dynamically." **False.** Its *average* moves with the input; its weights do not.
# The weights are the Jacobian $\partial \hat m_t/\partial x_i$, and that is the same table for every input. The
# weights of a cosine window do move:

# %%
# claim EMA-6: FALSE
from attnlib.lab.gradients import jacobian

two_inputs, window = torch.randn(2, 6, 3).double(), WindowedCosineAttention(5).double()
slopes = [jacobian(lambda x: exponential_moving_average(x, 0.7), x) for x in two_inputs]
of_age = moving_average_weights(6, 0.7, dtype=torch.float64)
assert all(torch.allclose(slope[:, 0, :, 0], of_age) for slope in slopes)
of_content = [window.weights(x, x) for x in two_inputs]
assert not torch.allclose(*of_content, atol=0.01)

# %% [markdown]
# **EMA-8** "EMA attention suits the forecasting of markets." **It depends on the series**, and on a random walk, the
# usual first model of a price, nothing beats the last value (6.20). On a level under noise the EMA beats it; on CO2 and
# sunspots the EMA gave nothing, weights by content beat it on CO2 alone. We have not measured a market.

# %%
# claim EMA-8: DEPENDS
no_better = [mean_error("random walk", name) >= 1 for name in learnt]
assert all(no_better) and mean_error("noisy walk", "EMA, best d") < 0.85
assert mean_error("CO2", "EMA, best d") == mean_error("sunspots", "EMA, best d") == 1
by_content = [beats(series, "by content", "last value") for series in ("CO2", "sunspots")]
assert by_content == [True, False]

# %% [markdown]
# EMA-4 and EMA-7, which are about averages of a network's weights, belong to [16_hrnet](16_hrnet.ipynb).
#
# ## 12 · Exercises
#
# 06.1 and 06.2 stand in part 4, 06.3 in part 5 and 06.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 06.5 · a series with gaps · *Depth* · 15 minutes
#
# The weekly CO2 series has 59 weeks without a value. Counting the *steps* since a value would make a value from
# before a gap look young. Write the corrected average with real ages: `times` (n,) and `x` (n,) are what was
# measured, `now` is a number, and a weight halves in every `half_life`, in the unit of the times. What comes after
# `now` does not count; at least one value comes before it. Return one number (a tensor without axes).
#
# <details><summary>Hint 1</summary>
#
# The age of a value is `now - times`, and its weight before the correction is one half to the power of age over half-life.
#
# </details>
# <details><summary>Hint 2</summary>
#
# By (6.5) the correction is: divide by the sum of the weights. Which values have to be left out first?
#
# </details>
# <details><summary>Hint 3</summary>
#
# `w = torch.where(times <= now, 0.5 ** ((now - times) / half_life), 0)`, and `(w * x).sum() / w.sum()`.
#
# </details>

# %% tags=["exercise"]
def average_at(now, times, x, half_life):
    """now a number, times and x (n,), half_life in the unit of times -> the average at now."""
    raise NotImplementedError

average_at = check("06.5", average_at)

# %% tags=["solution"]
def average_at(now, times, x, half_life):
    past = times <= now
    weights = 0.5 ** ((now - times[past]) / half_life)
    return (weights * x[past]).sum() / weights.sum()

# %% [markdown]
# On even times it is the average of part 4. In the longest gap of the series, 19 weeks pass from one value to the next,
# which is of May 1964. Just behind it, with a half-life of 8 weeks, counting the steps gives an average that is more than
# half a ppm too low for a rising series: it takes the values of January for last week's.

# %%
even = average_at(525.0, torch.arange(526.0).double(), co2.value, 6.0)
assert torch.allclose(even, average(co2.value[:, None], decay_for(6.0))[-1, 0])
weekly, in_a_year = load_co2("week"), 52.18  # weeks
between = (in_a_year * weekly.time.diff()).round()  # weeks from one value to the next
assert (between - 1).sum() == 59 and between.max() == 19

# %%
longest = weekly.time.diff().argmax() + 1  # the first week behind the longest gap
when = weekly.time[longest]
by_days = average_at(when, weekly.time, weekly.value, 8 / in_a_year)
by_steps = average(weekly.value[: longest + 1, None], decay_for(8))[-1, 0]
assert 1964 + 4 / 12 < when < 1964 + 5 / 12  # May
assert by_days - by_steps > 0.5

# %% [markdown]
# ## 13 · Summary
#
# | what | equation | here | elsewhere |
# |---|---|---|---|
# | recursion | $m_t = d\,m_{t-1} + (1-d)\,x_t$ | (6.1) | $\alpha = 1 - d$ in Mega and in statistics |
# | unrolled | $w_k = (1-d)\,d^k$ | (6.2) | – |
# | correction | $\hat m_t = m_t/(1 - d^t)$ | (6.4) | Adam, section 3, with $\beta_1$ for our $d$ |
# | as attention | $\mathrm{softmax}_k(k \log d)$ | (6.5) | – |
# | lag and mean age | $d/(1-d)$ | (6.6), (6.7) | *center of mass* |
# | backward | the same average, from the end | (6.9) | – |
# | cosine window | $\mathrm{softmax}_i(\beta \cos(q_t, k_i))$, past as values | (6.14) | NTM, section 3.3.1 |
# | its ceiling | $e^{2\beta}/(e^{2\beta} + L - 1)$ | (6.15) | – |
# | damped average | $\kappa_k = \sum_j \eta_j \alpha_j \beta_j (1 - \alpha_j\delta_j)^k$ | (6.17) | Mega; released with $1/\sqrt N$, skip and SiLU |
# | lag against noise | $(1-d)^2/d = \sigma^2/\rho^2$ | (6.19) | – |
#
# - A bias-corrected moving average is softmax attention whose scores see age alone. It adapts its average, never its weights.
# - It smooths and it lags, and the two cannot be had apart: $d/(1-d)$ steps. It is the right tool for a level under noise.
# - Weights that multiply the present vector do nothing, because they sum to one. With the past as values they become windowed
#   attention; in a long window the plain cosine cannot focus, so it needs a $\beta$ well above 1.
# - A layer that keeps its average between calls fails in five ways. Average along the time axis instead.
# - On a random walk nothing beats the last value, and the freest forecaster is the worst. On CO2 and sunspots learnt weights
#   by age win, and plain linear ones beat attention.
#
# **Sources.** Kingma, Ba, arXiv 1412.6980 (bias correction); Graves, Wayne, Danihelka, arXiv 1410.5401 (cosine score
# with a learnt sharpness); Vinyals and others, *Matching Networks*, 2016 (cosine and softmax); Liu and others, *Swin
# Transformer V2*, arXiv 2111.09883 (cosine with a learnt temperature); Ma and others, arXiv 2209.10655, and
# facebookresearch/mega (damped average). Data: Keeling and Whorf (CO2), NOAA (sunspots); see `data/README.md`.
#
# **Back:** [05_transformer](05_transformer.ipynb) · **Next:**
# [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb), which leaves sequences for images. The map of
# the course is in [00_start_here](00_start_here.ipynb).
