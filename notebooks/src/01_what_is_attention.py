# %% [markdown]
# # 01 · What is attention?
#
# **The question.** A Python dictionary gives back the value of the one key that is *equal* to what you ask for. What
# should it give back when several keys fit a little, and none fits exactly?
#
# **The answer in one sentence.** Give every key a score that says how well it fits the query, turn the scores into
# weights (with a softmax they are positive and sum to one), and return the average of the values under these weights:
# that is attention, and everything else in Part I is a choice of score, normaliser, queries, keys and values.
#
# **Papers.** E. A. Nadaraya: *On estimating regression*, and G. S. Watson: *Smooth regression analysis*, both 1964 (kernel
# regression); Bahdanau, Cho, Bengio, [arXiv 1409.0473](https://arxiv.org/abs/1409.0473) (the additive score); Luong, Pham,
# Manning, [arXiv 1508.04025](https://arxiv.org/abs/1508.04025) (dot and "general"); Vaswani and others,
# [arXiv 1706.03762](https://arxiv.org/abs/1706.03762) (the scaled dot); Graves, Wayne, Danihelka,
# [arXiv 1410.5401](https://arxiv.org/abs/1410.5401) (the cosine); Yang and others,
# [*Hierarchical Attention Networks*](https://aclanthology.org/N16-1174/), NAACL 2016 (pooling with a learned query).
#
# **Time.** Core 60 minutes (parts 1-4, 6, 9 and exercises 01.1 and 01.2) · Depth 90 minutes (the rest).
#
# **Prerequisites.** The toolbox page on [softmax and its Jacobian](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian); for part
# 5 also that on [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products). The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $n, m$ | | number of queries, and number of keys |
# | $q_i$ | $d$ (or $d_q$) | **query** $i$: what is looked for |
# | $k_j$ | $d$ (or $d_k$) | **key** $j$: what is compared with the query |
# | $v_j$ | $d_v$ | **value** $j$: what is returned in proportion to the weight of its key |
# | $s_{ij}$ | $n \times m$ | **score**: how well key $j$ fits query $i$ |
# | $p_{ij}$ | $n \times m$ | **weight**: the share of value $j$ in the answer to query $i$ |
# | $c_i$ | $n \times d_v$ | **context**: the answer to query $i$ |
# | $a(q, k)$ | | the function that gives the score |
# | $b$ | | **bandwidth**: how far away a key may be and still count |
# | $W, U, u$ | | learned matrices and a learned vector of a score; $h$ is the width of its hidden layer |
# | $\mathbf{x}_t$ | | element $t$ of a sequence that is pooled, parts 6 and 9 |
# | $g$ | $d_v$ | $\partial L/\partial c$, what arrives from above in the backward pass |
#
# Where there is only one query, its index $i$ is left out. Two letters mean something else in other notebooks: in Part II,
# $s$ is a gate and $W$ also the width of a feature map. Bahdanau writes $e$ for our scores, $\alpha$ for our weights and
# $v$ for our vector $u$ (we keep $v$ for the values).

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **01.a** Four scores are all equal to 7. What are their softmax weights?
# (a) 1 each · (b) 1/4 each · (c) nearly 1 each, as 7 is large · (d) 1/2 each · (e) 0 each
#
# **01.b** One of five scores is 0. What does a sigmoid make of it?
# (a) 0 · (b) 1 · (c) 1/4 · (d) 1/2 · (e) 1/5
#
# **01.c** What are the dot product and the cosine of the vectors $(3, 4)$ and $(6, 8)$?
# (a) 50 and 1 · (b) 36 and 1 · (c) 50 and 50 · (d) 50 and 5 · (e) 50 and 0

# %% tags=["exercise"]
check("01.a", ...)
check("01.b", ...)
check("01.c", ...)

# %% tags=["solution"]
check("01.a", "b")
check("01.b", "d")
check("01.c", "a")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# On Mauna Loa, a mountain on Hawaii, the carbon dioxide of the air has been measured since 1958. The course holds 2,225 weeks
# of it, each with its time in years and its value in ppm (molecules among a million molecules of dry air). Put them into a
# dictionary, with the times as keys, and ask for the middle of March 1964.

# %%
from attnlib.lab.data import load_co2

co2 = load_co2("week")
measured = dict(zip(co2.time.tolist(), co2.value.tolist(), strict=True))
assert len(measured) == 2225
for asked_time in (co2.time[0].item(), 1964.2):
    print(measured.get(asked_time, "no such key"))

# %% [markdown]
# For the spring of 1964 there are no values, so there is no such key. Yet the weeks around it say a lot about the answer.
# Write $[k_j = q]$ for 1 where key $j$ is equal to the query and 0 elsewhere. Then what a dictionary does is a weighted sum, in
# which one weight is 1 and all others are 0:
#
# $$\text{dict}[q] = \sum_j [k_j = q]\; v_j \tag{1.1}$$
#
# Where no key is equal to the query, all weights are 0 and the sum has nothing to say.

# %%
weights = (co2.time == co2.time[100]).double()
assert weights.sum() == 1 and weights @ co2.value == measured[co2.time[100].item()]  # (1.1)
assert (co2.time == 1964.2).sum() == 0

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
for ax in (left, right):
    ax.plot(co2.time, co2.value, ".", ms=2 if ax is left else 5, color="grey")
    ax.set(xlabel="year", ylabel="carbon dioxide (ppm)")
left.axhline(co2.value.mean(), color="C1")
right.axvline(1964.2, color="C0", ls="--")
right.set(xlim=(1963, 1965.5), ylim=(312, 324))
show(fig, alt="Left: carbon dioxide rises and swings; its mean is flat. Right: a gap in 1964.")

# %% [markdown]
# **What to see.** Two simple answers are poor. *The mean of all values* (the line on the left) ignores the question: it is 17
# ppm off, as part 4 will measure. *The value of the nearest key* listens to the question, but to one noisy
# measurement only, and on the right it would jump in the middle of the gap. What we want lies in between: **every key has a
# say, and those that fit better have more of it**. In (1.1) the numbers 0 and 1 have to become weights in between.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# ### Kernel regression
#
# Take a pencil. Three measurements: at the times $t = 0, 1, 2$ the values are $8, 0, 4$. How much should a measurement
# count, if it is a distance of $t$ away? In 1964 Nadaraya and Watson answered, independently of each other: by a **kernel**
# $\kappa$, a function that is largest at 0 and falls off on both sides. Divide by the sum, so that the weights sum to one:
#
# $$c(q) = \frac{\sum_j \kappa(q - k_j)\, v_j}{\sum_{j} \kappa(q - k_j)}, \qquad
# \kappa(t) = e^{-t^2 / (2 b^2)} \tag{1.2}$$
#
# This kernel is the Gaussian one, and $b$ is its **bandwidth**. We choose $b$ with $2b^2 = 1/\ln 2$, since then $\kappa(t) =
# 2^{-t^2}$: a kernel of 1 at distance 0, of 1/2 at distance 1, of 1/16 at distance 2.
#
# Ask at time 1. The kernels are $\frac12, 1, \frac12$, their sum is 2, the weights are $\frac14, \frac12, \frac14$, and the
# answer is $\frac14 \cdot 8 + \frac12 \cdot 0 + \frac14 \cdot 4 = 3$. Ask at time 0: the kernels are $1, \frac12, \frac1{16}$,
# or, times 16, the numbers $16, 8, 1$, whose sum is 25. The answer is $(16 \cdot 8 + 1 \cdot 4)/25 = 5.28$. Do the one
# for time 2 before you run the cell.

# %%
from math import exp, log

few_keys, few_values, b = [0, 1, 2], [8, 0, 4], (1 / (2 * log(2))) ** 0.5

def kernel_regression(query, keys, values, b):
    kernels = [exp(-((query - key) ** 2) / (2 * b**2)) for key in keys]
    return sum(x * y for x, y in zip(kernels, values, strict=True)) / sum(kernels)

answers = [kernel_regression(query, few_keys, few_values, b) for query in (0, 1, 2)]
assert [round(answer, 12) for answer in answers] == [132 / 25, 3, 72 / 25]  # (1.2)

# %% [markdown]
# ### It is attention
#
# Now one line of algebra, and the whole course hangs on it. A kernel that is positive everywhere is the exponential of its logarithm. Call
# that logarithm the **score**. Then (1.2) divides exponentials of scores by their sum, which is what a softmax does:
#
# $$s_j = \ln \kappa(q - k_j) = -\frac{(q - k_j)^2}{2b^2}, \qquad p = \mathrm{softmax}(s), \qquad
# c = \sum_j p_j\, v_j \tag{1.3}$$
#
# The three names come from here. The asked time is the **query**. The times of the measurements are the **keys**: what a query is
# compared with. The ppm are the **values**: what is averaged. Keys decide *how much*, values decide *what*. And the three steps
# (scores, weights, average) are all there is to attention.

# %%
queries = torch.tensor([0, 1, 2]).double()
keys, values = torch.tensor(few_keys).double(), torch.tensor(few_values).double()
scores = -(queries[:, None] - keys).square() / (2 * b**2)  # a row for each query
p = scores.softmax(1)
assert torch.allclose(p[1], torch.tensor([1, 2, 1]).double() / 4)
assert torch.allclose(p @ values, torch.tensor(answers).double())  # (1.3)

# %% [markdown]
# ### The width is a temperature
#
# In (1.3) the bandwidth only divides: scores for the bandwidth $b$ are scores for the bandwidth 1, divided by $b^2$. A number
# that divides scores before a softmax is called a **temperature**. Divide by a small one, and differences between scores become
# huge: the best key takes all. Divide by a large one, and all differences vanish:
#
# $$s_j(b) = \frac{s_j(1)}{b^2}, \qquad b \to 0:\; c \to v_{\text{nearest}}, \qquad
# b \to \infty:\; c \to \frac1m \sum_j v_j \tag{1.4}$$
#
# (The first limit asks for one key that is nearer than all others; keys that are equally near share the weight.)

# %%
from attnlib.sequence.scores import gaussian

column = lambda t: t[:, None]  # numbers as vectors of width 1
at_1, at_b = (gaussian(column(queries), column(keys), bandwidth=width) for width in (1, b))
assert torch.allclose(at_b, at_1 / b**2) and torch.allclose(at_b, scores)  # (1.4)
narrow, wide = ((at_1 / width**2).softmax(1) @ values for width in (0.05, 1000))
assert torch.allclose(narrow, values) and torch.allclose(wide, values.mean(), atol=1e-4)

# %% [markdown]
# ## 4 · As matrices, and with other scores · *Core*
#
# ### Exercise 01.1 · kernel regression as attention · *Core* · 10 minutes
#
# Write (1.3) for many queries at once, without loops. `asked` is (n,), `times` and `values` are (m,), `bandwidth` is a number;
# return the answers, (n,). Replace the line `raise NotImplementedError` and run the cell.
#
# <details><summary>Hint 1</summary>
#
# Three lines: scores (n, m), a softmax over the keys, the average of the values.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `asked[:, None] - times` holds the difference of every asked time and every measured time, (n, m).
#
# </details>
# <details><summary>Hint 3</summary>
#
# `scores = -(asked[:, None] - times).square() / (2 * bandwidth**2)`; then `scores.softmax(1) @ values`.
#
# </details>

# %% tags=["exercise"]
def regress(asked, times, values, bandwidth):
    """asked (n,), times (m,), values (m,), bandwidth a number -> answers (n,)."""
    raise NotImplementedError

regress = check("01.1", regress)

# %% tags=["solution"]
def regress(asked, times, values, bandwidth):
    scores = -(asked[:, None] - times).square() / (2 * bandwidth**2)
    return scores.softmax(1) @ values

# %% [markdown]
# ### Which bandwidth?
#
# The bandwidth is a choice, and the data may make it. Of every ten weeks eight are keys, one is for *tuning* and one for the
# *test*. For each bandwidth we ask for the tuning weeks and take the root of the mean squared error. The best one is used once,
# on the test weeks.
#
# **Predict before you go on:** will the best bandwidth be nearer to a day, to two weeks or to half a year? What happens to the
# error around a bandwidth of one year, where a query averages over summer and winter?

# %%
tenth = torch.arange(2225) % 10
known, tuning, test = tenth < 8, tenth == 8, tenth == 9
rms = lambda error: error.square().mean().sqrt().item()
t_known, y_known = co2.time[known], co2.value[known]
widths = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48]
tried = [regress(co2.time[tuning], t_known, y_known, b) - co2.value[tuning] for b in widths]
best = widths[min(range(13), key=lambda i: rms(tried[i]))]

# %%
ax = plt.subplots(figsize=(6.5, 3))[1]
ax.loglog(widths, [rms(error) for error in tried], "o-")
ax.axvline(best, color="black", ls="--", lw=1)
ax.set(xlabel="bandwidth in years", ylabel="error on tuning weeks (ppm)")
show(ax.figure, alt="Error over bandwidth, both axes logarithmic: 0.5 ppm on the left, lowest "
     "at 0.04 years, then a rise, a flat step near 2 ppm around one year, and a steep rise.")

# %%
t_test, y_test = co2.time[test], co2.value[test]
nearest = y_known[(t_test[:, None] - t_known).abs().argmin(1)]
errors = {"all keys alike": rms(y_known.mean() - y_test), "the nearest key": rms(nearest - y_test)}
errors["best bandwidth"] = rms(regress(t_test, t_known, y_known, best) - y_test)
print(f"bandwidth {best} years;", {name: f"{error:.1f} ppm" for name, error in errors.items()})
assert best == 0.04 and [round(error, 1) for error in errors.values()] == [17.0, 0.5, 0.4]

# %% [markdown]
# **What to see.** On the left the bandwidth is so narrow that only the nearest week counts. The best is 0.04 years, about two
# weeks: a few neighbours average their noise away, and the season has not moved on yet. From a quarter of a year to two years
# there is a step: the season is averaged out, but the trend is still there. Further right the trend goes too, towards the
# mean of all weeks. On the test weeks the error is 0.4 ppm, against 0.5 for the nearest week and 17 for the mean.
#
# (Is that a feat? A straight line between the two neighbours is as good, to within 0.01 ppm. Kernel regression is here because it
# is *attention that one can see through*, not because it wins.)

# %%
import numpy as np

straight = torch.from_numpy(np.interp(t_test, t_known, y_known))
assert abs(rms(straight - y_test) - errors["best bandwidth"]) < 0.01

# %% [markdown]
# ### Turn the knob
#
# `explore` draws, for one bandwidth, the weights that the query 1964.2 gives to the weeks around it, and what comes out for all
# times from 1962 to 1967. **Predict** both pictures for 0.04 years and for 0.6 years.

# %%
dates = torch.linspace(1962, 1967, 400).double()
weekly = {"marker": ".", "ls": "", "color": "silver"}
labels = {"xlim": (1962, 1967), "ylim": (312, 326), "xlabel": "query (year)", "ylabel": "ppm"}

# %%
def explore(bandwidth=0.04):
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=[1, 2])
    shares = gaussian(torch.tensor([[1964.2]]), column(co2.time), bandwidth=bandwidth).softmax(1)[0]
    left.plot(co2.time, shares, "."), left.set(xlim=(1962.7, 1965.7), xlabel="key", ylabel="weight")
    left.set_title(f"query 1964.2, b = {bandwidth:.2f}"), left.set_ylim(bottom=0)
    right.plot(*co2[:2], **weekly), right.set(**labels)
    right.plot(dates, regress(dates, *co2[:2], bandwidth))
    show(fig, alt=f"Weights of the query 1964.2, and all answers, for bandwidth {bandwidth:.2f}.")

# %%
explore(0.04)
explore(0.6)

# %% [markdown]
# **What to see.** With 0.04 years the curve follows the seasons. In the gap it has only the edges to lean on: 1964.2 gives
# most of its weight to the last week before it, and further right the answer steps to the other edge. With 0.6 years many weeks of both
# sides share the weight, and only the trend is left. Try it (the slider needs a running kernel):

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, bandwidth=(0.01, 1.5, 0.01));

# %% [markdown]
# ### Six scores
#
# In (1.3), nothing forces the score to be the logarithm of a Gaussian. Any function $a(q, k)$ that says how well a key fits a
# query will do, and queries and keys may be vectors. Attention in general is
#
# $$s_{ij} = a(q_i, k_j), \qquad p_{i\cdot} = \mathrm{normalise}(s_{i\cdot}), \qquad c_i = \sum_j p_{ij}\, v_j \tag{1.5}$$
#
# Six scores are in common use:
#
# $$\begin{aligned}
# \text{dot} \quad & q^\top k & \text{scaled dot} \quad & q^\top k / \sqrt d & \text{bilinear} \quad & q^\top W k \\
# \text{additive} \quad & u^\top \tanh(W q + U k) & \text{cosine} \quad & \frac{q^\top k}{\|q\|\, \|k\|} &
# \text{Gaussian} \quad & -\frac{\|q - k\|^2}{2 b^2}
# \end{aligned} \tag{1.6}$$
#
# *Bilinear* is what Luong calls "general", and *additive* is Bahdanau's. Take one query and five keys:
#
# $$q = (1, 0), \qquad k_0 = (1, 0),\; k_1 = (0.6, 0.8),\; k_2 = (3, 4),\; k_3 = (-1, 0),\; k_4 = (0, 0)$$
#
# Key 0 is the query itself; key 2 points the way of key 1, five times as far; key 3 is the opposite of the query; key 4 is
# nothing. For the learned scores we set $W = \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}$ in the bilinear one (it swaps the two
# entries of a key), and $W = U$ = identity and $u = (1, 1)$ in the additive one. By hand, the bilinear scores are the second
# entries of the keys, $0, 0.8, 4, 0, 0$; the cosines are $1, 0.6, 0.6, -1$ and, by agreement, $0$ for a key of length 0.

# %%
one_q = torch.tensor([[1, 0]]).double()
five_k = torch.tensor([[1, 0], [0.6, 0.8], [3, 4], [-1, 0], [0, 0]]).double()
eye, ones, swap = torch.eye(2).double(), torch.ones(2).double(), torch.eye(2).double().flip(0)
lengths = five_k.norm(dim=1).clamp(min=1e-9)  # 1, 1, 5, 1 and (nearly) 0
by_hand = {"dot": one_q @ five_k.T, "scaled dot": one_q @ five_k.T / 2**0.5}
by_hand["bilinear"] = one_q @ swap @ five_k.T
by_hand["additive"] = torch.tanh((one_q @ eye)[:, None] + five_k @ eye) @ ones
by_hand["cosine"] = one_q @ five_k.T / lengths

# %%
by_hand["Gaussian"] = -(one_q[:, None] - five_k).square().sum(2) / 2  # b = 1
expected = {"dot": [1, 0.6, 3, -1, 0], "bilinear": [0, 0.8, 4, 0, 0]}
expected |= {"cosine": [1, 0.6, 0.6, -1, 0], "Gaussian": [0, -0.4, -10, -2, -0.5]}
for name, numbers in expected.items():
    assert torch.allclose(by_hand[name], torch.tensor([numbers]).double())

# %% [markdown]
# The library has the six in `attnlib.sequence.scores`: four functions, and two modules that own the learned matrices. They take
# queries (n, d) and keys (m, d), with a batch in front if there is one, and return (n, m). We give the modules our matrices:

# %%
from attnlib.sequence.scores import AdditiveScore, BilinearScore, cosine, dot, scaled_dot

bilinear, additive_module = BilinearScore(2, 2).double(), AdditiveScore(2, 2, hidden=2).double()
bilinear.load_state_dict({"W.weight": swap})
additive_module.load_state_dict({"W.weight": eye, "U.weight": eye, "v.weight": ones[None]})
library = {"dot": dot, "scaled dot": scaled_dot, "bilinear": bilinear, "additive": additive_module}
library |= {"cosine": cosine, "Gaussian": gaussian}
assert all(torch.allclose(f(one_q, five_k), by_hand[name]) for name, f in library.items())  # (1.6)

# %% [markdown]
# ### Two normalisers
#
# The second choice in (1.5) is how scores become weights. The **softmax** lets the keys compete for a total of one. The
# **sigmoid** $\sigma(s) = 1/(1 + e^{-s})$ asks of each key on its own whether it fits:
#
# $$p_j = \frac{e^{s_j}}{\sum_{j'} e^{s_{j'}}} \quad (\text{softmax}), \qquad
# p_j = \frac{1}{1 + e^{-s_j}} \quad (\text{sigmoid}) \tag{1.7}$$

# %%
from attnlib.lab.plots import heatmap
from attnlib.sequence.scores import masked_sigmoid, masked_softmax

table = torch.cat(list(by_hand.values())) + 0.0  # six rows of five scores
softmaxed, sigmoided = masked_softmax(table), masked_sigmoid(table)
assert torch.allclose(softmaxed, table.exp() / table.exp().sum(1, keepdim=True))  # (1.7)
assert torch.allclose(sigmoided, 1 / (1 + (-table).exp()))
assert torch.allclose(softmaxed.sum(1), torch.ones(6).double()) and sigmoided.sum(1).min() > 1

# %% [markdown]
# **Predict** the figure before you run the cell. Which scores will prefer key 2 to key 0, which is *equal* to the query? What
# weight will a sigmoid give to key 4, which is nothing at all?

# %%
def side_by_side(**panels):
    fig, axes = plt.subplots(1, len(panels), figsize=(10, 3.2))
    for ax, (title, matrix) in zip(axes, panels.items(), strict=True):
        signed = {"limits": (-10, 10), "signed": True} if title == "scores" else {}
        heatmap(matrix, ax=ax, numbers=True, colorbar=False, **signed)
        ax.set(title=title.replace("_", " "), xlabel="key", xticks=range(5), yticks=[])
    axes[0].set_yticks(range(6), list(by_hand))
    return fig

# %%
fig = side_by_side(scores=table, softmax_weights=softmaxed, sigmoid_weights=sigmoided)
show(fig, alt="Six scores of five keys, their softmax weights and their sigmoid weights. Dot, "
     "scaled dot, bilinear and additive prefer key 2; cosine and Gaussian prefer key 0.")

# %% [markdown]
# **What to see.** Look at key 2, the long one. The dot product gives it by far the largest weight: *for a dot product, a longer
# key fits better*. The cosine cannot tell it from key 1, since only directions count. The Gaussian finds it much too far
# away. So "fits" is not a fact but a choice. Then compare the right two panels. In each row of the middle one the weights sum to
# one. On the right they do not: with the Gaussian, no weight is above 1/2, because its scores are never above 0; and a score
# of 0 is a weight of 1/2 for a sigmoid, so the key that is nothing still counts by half. Part 10 comes back to that.

# %%
long_key_first = [name for name, row in zip(by_hand, table, strict=True) if row[2] > row[0] + 0.1]
print("prefer the long key to the equal one:", ", ".join(long_key_first))
assert long_key_first == ["dot", "scaled dot", "bilinear", "additive"]
assert sigmoided[5].max() == 0.5 and sigmoided[0, 4] == 0.5

# %% [markdown]
# The third step of (1.5) is the average, the same for all. Give the five keys the values 10, 20, 30, 40, 50. The library's
# `dot_product_attention` takes all three steps at once (here with the plain dot product, so with the factor 1):

# %%
from attnlib import dot_product_attention

five_v = torch.tensor([[10], [20], [30], [40], [50]]).double()
context, shares = dot_product_attention(one_q, five_k, five_v, scale=1)
assert torch.allclose(shares[0], softmaxed[0])
assert torch.allclose(context[0], softmaxed[0] @ five_v)  # (1.5)
contexts = softmaxed @ five_v
print("contexts:", {name: f"{c.item():.0f}" for name, c in zip(by_hand, contexts, strict=True)})

# %% [markdown]
# ### Which of them are the same?
#
# Multiply out the square in the Gaussian score: $\|q - k\|^2 = \|q\|^2 - 2\, q^\top k + \|k\|^2$. So
#
# $$-\frac{\|q - k\|^2}{2b^2} = \frac{q^\top k}{b^2} - \frac{\|k\|^2}{2b^2} - \frac{\|q\|^2}{2b^2} \tag{1.8}$$
#
# The last term is the same for all keys, and a softmax does not see what all scores share. If all keys have one length, the
# middle term is shared too. **For keys of one length, Gaussian attention is dot-product attention at the temperature $b^2$.**
# Put $b^2 = \sqrt d$, and it is the scaled dot product of [02_self_attention](02_self_attention.ipynb). Otherwise the Gaussian is a
# dot product that makes long keys pay for their length. Two more:
#
# $$\mathrm{cosine}(q, k) = \mathrm{dot}\Big(\frac{q}{\|q\|}, \frac{k}{\|k\|}\Big), \qquad
# \mathrm{bilinear}_{W}(q, k) = \mathrm{dot}(W^\top q,\, k) \tag{1.9}$$
#
# so the bilinear score with the identity for $W$ is the dot product, and with any $W$ it is a dot product after a learned change
# of the query. The additive score is the odd one out: no choice of its weights makes it a dot product, since it is bounded.

# %%
q, k = torch.randn(3, 4).double(), torch.randn(5, 4).double()
unit = lambda x: x / x.norm(dim=1, keepdim=True)
shared = -q.square().sum(1)[:, None] / (2 * 0.7**2) - k.square().sum(1) / (2 * 0.7**2)
assert torch.allclose(gaussian(q, k, bandwidth=0.7), dot(q, k) / 0.7**2 + shared)  # (1.8)
same_length, as_scaled = 3 * unit(k), gaussian(q, 3 * unit(k), bandwidth=4**0.25)  # b^2 = sqrt(4)
assert torch.allclose(as_scaled.softmax(1), scaled_dot(q, same_length).softmax(1))
assert torch.allclose(cosine(q, same_length), dot(q, same_length) / (3 * q.norm(dim=1)[:, None]))
assert not torch.allclose(gaussian(q, k, bandwidth=4**0.25).softmax(1), scaled_dot(q, k).softmax(1))

# %%
mixed = BilinearScore(4, 4).double()
W_mixed = mixed.W.weight.detach()
assert torch.allclose(cosine(q, k), dot(unit(q), unit(k)))  # (1.9)
assert torch.allclose(mixed(q, k), dot(q @ W_mixed, k))
mixed.load_state_dict({"W.weight": torch.eye(4).double()})
assert torch.allclose(mixed(q, k), dot(q, k))

# %% [markdown]
# ### What a score listens to
#
# Make a key $\lambda$ times as long, with $\lambda > 0$, and leave its direction. What happens to its score?
#
# $$\mathrm{dot}(q, \lambda k) = \lambda\, \mathrm{dot}(q, k), \qquad \mathrm{cosine}(q, \lambda k) = \mathrm{cosine}(q, k), \qquad
# |\mathrm{additive}(q, k)| \le \sum_l |u_l| \tag{1.10}$$
#
# The scaled dot and the bilinear score grow like the dot. The cosine listens to the direction alone; it lies between $-1$ and 1,
# so its softmax can never give one key more than $e^2$ times the weight of another, and one that is to be sharp needs a
# temperature. The additive score saturates. The Gaussian
# falls in the end, like $-\lambda^2$.

# %%
in_general = AdditiveScore(4, 4, hidden=6).double()
bound = in_general.v.weight.abs().sum()
for factor in (2, 100):
    assert torch.allclose(dot(q, factor * k), factor * dot(q, k))  # (1.10)
    assert torch.allclose(cosine(q, factor * k), cosine(q, k))
    assert in_general(q, factor * k).abs().max() <= bound
    assert gaussian(q, factor * k).max() < gaussian(q, k).max()

# %% [markdown]
# ### Exercise 01.2 · the additive score · *Core* · 10 minutes
#
# Write the additive score of (1.6) for all pairs. `q` is (n, d_q), `k` is (m, d_k), `W` is (h, d_q), `U` is (h, d_k), `u` is (h,).
# Return the scores, (n, m). Note that queries and keys may have different widths: the two matrices bring them to one.
#
# <details><summary>Hint 1</summary>
#
# `q @ W.T` is (n, h) and `k @ U.T` is (m, h). Every row of the first must be added to every row of the second.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Give the first an axis in the middle, (n, 1, h), and the second one in front, (1, m, h): the sum is (n, m, h).
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.tanh((q @ W.T)[:, None] + k @ U.T) @ u`
#
# </details>

# %% tags=["exercise"]
def additive(q, k, W, U, u):
    """q (n, d_q), k (m, d_k), W (h, d_q), U (h, d_k), u (h,) -> scores (n, m)."""
    raise NotImplementedError

additive = check("01.2", additive)

# %% tags=["solution"]
def additive(q, k, W, U, u):
    hidden = torch.tanh((q @ W.T)[:, None] + k @ U.T)  # (n, m, h)
    return hidden @ u

# %%
W, U, u = (x.detach() for x in in_general.parameters())
assert torch.allclose(additive(q, k, W, U, u[0]), in_general(q, k))
assert additive(q, k[:, :3], W, U[:, :3], u[0]).shape == (3, 5)  # widths 4 and 3

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# How does the context move when a score does? Take one query. Its weights are $p = \mathrm{softmax}(s)$, and the toolbox has their
# slopes: $\partial p_l / \partial s_j = p_l\, ([l = j] - p_j)$. Put that into $c = \sum_l p_l v_l$:
#
# $$\frac{\partial c}{\partial s_j} = \sum_l p_l ([l = j] - p_j)\, v_l = p_j v_j - p_j \sum_l p_l v_l = p_j\, (v_j - c)
# \tag{1.11}$$
#
# This is worth a moment. Raise score $j$ a little, and **the context moves from where it is towards value $j$**, at the speed of
# its distance from there times the weight of value $j$. A key whose weight is 0 cannot call for help. Nor does a key with all
# the weight move anything, for then the context *is* its value.
# With $g = \partial L/\partial c$ arriving from above,
#
# $$\frac{\partial L}{\partial s_j} = p_j\; g^\top (v_j - c), \qquad \frac{\partial L}{\partial v_j} = p_j\, g \tag{1.12}$$
#
# Values get their gradient directly, scores by comparison with the context. The gradients of all scores sum to zero, since
# adding the same to all of them changes nothing.

# %%
from attnlib.lab.gradients import jacobian

s, v = torch.randn(6).double(), torch.randn(6, 3).double()
shares, g = s.softmax(0), torch.randn(3).double()
c = shares @ v
by_scores = jacobian(lambda s: s.softmax(0) @ v, s)  # (3, 6)
assert torch.allclose(by_scores, (shares[:, None] * (v - c)).T)  # (1.11)
assert torch.allclose(by_scores.T @ g, shares * ((v - c) @ g))  # (1.12)
assert torch.allclose((by_scores.T @ g).sum(), torch.tensor(0).double())

# %% [markdown]
# ### A covariance
#
# Let all scores depend on one number $\theta$: a bandwidth, a temperature, a weight. By the chain rule the context moves by the
# sum of (1.11) over the keys, each times $\partial s_j/\partial \theta$. Since $\sum_j p_j (v_j - c) = 0$, we may subtract from
# $\partial s_j/\partial\theta$ whatever is the same for all $j$, for instance its own average. What stands there then is a
# **covariance under the weights**:
#
# $$\frac{\partial c}{\partial \theta} = \sum_j p_j\, (v_j - c)\, \frac{\partial s_j}{\partial \theta}
# = \mathrm{Cov}_p\Big(v, \frac{\partial s}{\partial \theta}\Big) \tag{1.13}$$
#
# The context follows $\theta$ only as far as values and slopes of scores go together. For the Gaussian score,
# $s_j = -D_j/(2 b^2)$ with $D_j = \|q - k_j\|^2$, the slopes are
#
# $$\frac{\partial s_j}{\partial b} = \frac{D_j}{b^3}, \qquad \frac{\partial c}{\partial b} = \frac{\mathrm{Cov}_p(v, D)}{b^3}, \qquad
# \frac{\partial s_j}{\partial q} = \frac{k_j - q}{b^2} = -\frac{\partial s_j}{\partial k_j} \tag{1.14}$$
#
# A wider kernel moves the answer towards the values of far keys, if these differ from the near ones. And a query that wants key
# $j$ walks straight towards it.

# %%
distances, width = torch.rand(6).double(), torch.tensor(0.7).double()
answer = lambda width: (-distances / (2 * width**2)).softmax(0) @ v
shares = (-distances / (2 * width**2)).softmax(0)
centred_v, centred_D = v - shares @ v, distances - shares @ distances
covariance = (shares * centred_D) @ centred_v
assert torch.allclose((shares * distances) @ centred_v, covariance)  # (1.13)
assert torch.allclose(jacobian(answer, width), covariance / width**3)  # (1.14)

# %% [markdown]
# ### Exercise 01.3 · the gradient of the bandwidth · *Depth* · 15 minutes
#
# A bandwidth can be learnt like any other weight. For the kernel regression of exercise 01.1, write $\partial L/\partial b$.
# `grad_c` is (n,), one number for each answer; `asked` is (n,), `times` and `values` are (m,), `bandwidth` is a number. All
# queries share the bandwidth. Return one number (a tensor without axes).
#
# <details><summary>Hint 1</summary>
#
# Forward first: squared distances $D$ (n, m), weights $p$ (n, m), answers $c$ (n,).
#
# </details>
# <details><summary>Hint 2</summary>
#
# By (1.12) the gradient of the scores is `grad_c[:, None] * p * (values - c[:, None])`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Multiply it by $D/b^3$ from (1.14), and add up over all pairs.
#
# </details>

# %% tags=["exercise"]
def bandwidth_gradient(grad_c, asked, times, values, bandwidth):
    """grad_c (n,), asked (n,), times (m,), values (m,), bandwidth a number -> one number."""
    raise NotImplementedError

bandwidth_gradient = check("01.3", bandwidth_gradient)

# %% tags=["solution"]
def bandwidth_gradient(grad_c, asked, times, values, bandwidth):
    D = (asked[:, None] - times).square()
    p = (-D / (2 * bandwidth**2)).softmax(1)
    grad_s = grad_c[:, None] * p * (values - (p @ values)[:, None])
    return (grad_s * D).sum() / bandwidth**3

# %% [markdown]
# Now Gaussian attention as a whole, many queries and vectors everywhere, held against autograd *and* against central
# differences, which know nothing of any derivative:

# %%
def forward(q, k, v, b):
    D = (q[:, None] - k).square().sum(2)
    return (-D / (2 * b**2)).softmax(1) @ v

# %%
def backward(g, q, k, v, b):
    away = k - q[:, None]  # (n, m, d), from query to key
    D = away.square().sum(2)
    p = (-D / (2 * b**2)).softmax(1)
    ds = p * (g @ v.T - (g * (p @ v)).sum(1, keepdim=True))
    dq = (ds[:, :, None] * away).sum(1) / b**2
    dk = -(ds[:, :, None] * away).sum(0) / b**2
    return {"q": dq, "k": dk, "v": p.T @ g, "b": (ds * D).sum() / b**3}

# %%
from attnlib.lab.gradients import compare_gradients

inputs = {"q": q, "k": k, "v": torch.randn(5, 3).double(), "b": torch.tensor(0.9).double()}
agreement = compare_gradients(forward, backward, inputs)
assert agreement["hand = autograd"].all() and agreement["hand = differences"].all()
agreement

# %% [markdown]
# ### And the sigmoid?
#
# There each weight depends on its own score alone, with the slope $p_j(1 - p_j)$. Nobody else moves:
#
# $$\frac{\partial c}{\partial s_j} = p_j (1 - p_j)\, v_j \tag{1.15}$$
#
# Compare with (1.11): in the place of $v_j - c$ stands $v_j$ itself. A softmax exchanges one value for the others; a sigmoid turns
# one value up or down.

# %%
gates = s.sigmoid()
measured_slopes = jacobian(lambda s: s.sigmoid() @ v, s)
assert torch.allclose(measured_slopes, (gates * (1 - gates) * v.T))  # (1.15)

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# ### Pooling with a learned query
#
# So far the query came from outside. But often a sequence has to be turned into *one* vector, and nobody asks a question: is this
# review friendly? Then the query itself can be learnt, a vector that is the same for all sequences and stands for "what
# matters here". Yang and others (2016) do it so, with a small layer that makes keys of the elements $\mathbf{x}_t$; the values are the
# elements themselves:
#
# $$\mathbf{k}_t = \tanh(W \mathbf{x}_t + \beta), \qquad p_t = \mathrm{softmax}_t(u^\top \mathbf{k}_t), \qquad
# c = \sum_t p_t\, \mathbf{x}_t \tag{1.16}$$
#
# ($\beta$ is a bias.) The vector $u$ is the query. Compare with the additive score in (1.6): it is that score with nothing
# coming from outside. In the library it is `AttentionPooling`.

# %%
from attnlib.sequence.pooling import AttentionPooling

pool, elements = AttentionPooling(5, hidden=8), torch.randn(2, 7, 5)
own_keys = torch.tanh(pool.W(elements))
own_weights = (own_keys @ pool.u_w.weight[0]).softmax(1)
assert torch.allclose(pool.weights(elements), own_weights)  # (1.16)
assert torch.allclose(pool(elements), (own_weights[:, :, None] * elements).sum(1), atol=1e-6)

# %% [markdown]
# **A game with a known answer.** A sequence has ten elements. Each shows one of four symbols (four features, one of them 1), and one
# element of the ten bears a mark (a fifth feature). **Which symbol is marked?** A network that pools and then reads the four
# classes off linearly is trained on it for 300 steps of 64 new sequences.

# %%
def marked(count, length, seed):
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(4, (count, length), generator=generator)
    place = torch.randint(length, (count,), generator=generator)
    mark = F.one_hot(place, length)[:, :, None]
    x = torch.cat([F.one_hot(symbols, 4), mark], dim=2).float()
    return x, symbols[torch.arange(count), place], place

# %%
def trained(make, seed, steps=300, target=lambda x, label: label):
    torch.manual_seed(seed)
    net, (x, label, _) = make(), marked(64 * steps, 10, seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for rows in torch.arange(64 * steps).split(64):
        loss = F.cross_entropy(net(x[rows]), target(x[rows], label[rows]))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return net.eval()

# %% [markdown]
# **Predict before you go on:** draw the weights of eight sequences as eight rows. Where will the bright cells be? Will there be one in
# every row?

# %%
attentive = lambda: nn.Sequential(AttentionPooling(5, hidden=8), nn.Linear(5, 4))
new_x, new_label, new_place = marked(2000, 10, seed=1000)
nets = [trained(attentive, seed) for seed in range(5)]
with torch.no_grad():
    maps = [net[0].weights(new_x) for net in nets]
    right_share = [(net(new_x).argmax(1) == new_label).double().mean().item() for net in nets]
assert min(right_share) > 0.98

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, seed in zip(axes, (0, 3), strict=True):
    heatmap(maps[seed][:8], ax=ax, label="weight", colorbar=seed == 3)
    ax.plot(new_place[:8], range(8), "s", ms=17, mfc="none", mec="red", mew=2)
    ax.set(title=f"seed {seed}", xlabel="element", xticks=range(10))
axes[0].set_yticks(range(8), [f"symbol {label} marked" for label in new_label[:8].tolist()])
show(fig, alt="Weights of eight sequences in two networks; a red square marks the marked element. "
     "With seed 3 it is bright in every row; with seed 0 not where symbol 2 is marked.")

# %%
of_mark = torch.stack([w[torch.arange(2000), new_place] for w in maps])
by_symbol = torch.stack([of_mark[:, new_label == symbol].mean(1) for symbol in range(4)], dim=1)
looked_at = (by_symbol > 0.5).sum(1)
print("symbols whose mark gets more than half of the weight, by seed:", looked_at.tolist())
assert (looked_at >= 3).all() and (looked_at == 3).sum() >= 3
assert ((by_symbol > 0.9) | (by_symbol < 0.1)).all()

# %% [markdown]
# **What to see.** All five networks are right on more than 98% of new sequences, and the bright cells lie in the red squares: the
# learned query has found out what matters. But look at the rows that are *not* bright. In most of the five networks there is
# one symbol whose mark is ignored: the weights are spread over other elements instead. It seems that the network has learnt three
# symbols and takes the fourth for what remains: if no mark comes through the pooling, it must be that one. That can be tested: take
# *all* marks away, and these networks should answer with the symbol they ignore. They do.

# %%
unmarked = new_x * torch.tensor([1, 1, 1, 1, 0])
for net, shares_of_mark in zip(nets, by_symbol, strict=True):
    if shares_of_mark.min() < 0.1:
        with torch.no_grad():
            says_ignored = net(unmarked).argmax(1) == shares_of_mark.argmin()
        assert says_ignored.double().mean() > 0.98

# %% [markdown]
# They are right, and their maps do not show where the answer came from. **Weights say what was averaged, not what was
# understood.**

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | where | what it means |
# |---|---|---|
# | additive score without $W$ and $U$ | `AdditiveAttention` of Keras: its documentation has the sum of $\tanh(q + k)$ | (1.17): the two matrices are left to the user's own layers |
# | one matrix for the joined vector | Luong's "concat": $u^\top \tanh(W_a [q; k])$ | (1.18): the same as Bahdanau's score |
# | biases in the layers | many tutorials | behind $u$ it changes nothing under a softmax, and much under a sigmoid |
# | which state is the query | Bahdanau compares with the decoder's *previous* state, Luong with the *present* one | [04_recurrent_attention](04_recurrent_attention.ipynb) |
#
# **Keras.** With a vector $u$ that scales the features (an option), its score is
#
# $$\sum_f u_f \tanh(q_f + k_f) \;=\; \text{the additive score with } W = U = \text{identity} \tag{1.17}$$
#
# So feature $f$ of the query only ever meets feature $f$ of the key, and both must have the same width. It becomes Bahdanau's
# score only behind two dense layers. Whoever leaves them out has another, weaker model with $d$ parameters.

# %%
q_wide, k_wide, u_wide = (torch.randn(size).double() for size in ((3, 4), (5, 4), (4,)))
keras_score = (u_wide * torch.tanh(q_wide[:, None] + k_wide)).sum(2)
identity = torch.eye(4).double()
assert torch.allclose(keras_score, additive(q_wide, k_wide, identity, identity, u_wide))  # (1.17)
with_layers = (u[0] * torch.tanh((q_wide @ W.T)[:, None] + k_wide @ U.T)).sum(2)
assert torch.allclose(with_layers, in_general(q_wide, k_wide))

# %% [markdown]
# **Concat.** Cut Luong's matrix into the columns that meet the query and those that meet the key, $W_a = [W \mid U]$:
#
# $$W_a \begin{pmatrix} q \\ k \end{pmatrix} = W q + U k \tag{1.18}$$
#
# **The bias behind $u$** adds one number to all scores. By the rule that a softmax sees differences only, it may be left out. A
# sigmoid sees it.

# %%
W_a, pair = torch.cat([W, U], dim=1), torch.cat([q_wide[0], k_wide[0]])
assert torch.allclose(W_a @ pair, W @ q_wide[0] + U @ k_wide[0])  # (1.18)
raw = in_general(q_wide, k_wide).detach()
assert torch.allclose((raw + 2).softmax(1), raw.softmax(1))
assert ((raw + 2).sigmoid() - raw.sigmoid()).min() > 0.1

# %% [markdown]
# **Two ways to compute the same.** (1.2) and (1.3) are equal on paper. On a computer, ask both for a day in 2010, eight years behind
# the last measurement: all kernels are so small that they round to 0, and (1.2) divides 0 by 0. A softmax subtracts the largest
# score first, so that the largest exponential is 1.

# %%
late = torch.tensor([2010.0]).double()
kernels = gaussian(column(late), column(co2.time), bandwidth=0.04).exp()
assert (kernels @ co2.value / kernels.sum(1)).isnan().all()
assert torch.allclose(regress(late, *co2[:2], 0.04), co2.value[-1:])

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# One multiply-accumulate (MAC) is one product that is added to a sum. For $n$ queries and $m$ keys, parameters (learned numbers)
# and MACs of the scores are:
#
# $$\begin{array}{lll}
# & \text{parameters} & \text{MACs} \\
# \text{dot, scaled dot, cosine} & 0 & n m d \\
# \text{bilinear} & d_q d_k & m\, d_q d_k + n m\, d_q \\
# \text{additive} & h\, (d_q + d_k + 1) & h\, (n d_q + m d_k) + n m h
# \end{array} \tag{1.19}$$
#
# The Gaussian needs $nmd$ squares, or a dot product and the lengths, by (1.8). The cosine's lengths are not counted; they grow with
# $n + m$ only. The average behind the scores costs $n m d_v$ more, whatever the score. The cell counts with PyTorch's own counter.

# %%
from attnlib.lab.cost import count_macs, count_parameters, saved_bytes

class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function

n, m, d_q, d_k, h = 20, 50, 12, 8, 16
q_many, k_many, k_same = torch.randn(n, d_q), torch.randn(m, d_k), torch.randn(m, d_q)

# %%
two, library_dots = BilinearScore(d_q, d_k), (dot, scaled_dot, cosine)
three = AdditiveScore(d_q, d_k, hidden=h)
assert all(count_macs(Function(f), q_many, k_same) == n * m * d_q for f in library_dots)
assert count_macs(two, q_many, k_many) == m * d_q * d_k + n * m * d_q  # (1.19)
assert count_macs(three, q_many, k_many) == h * (n * d_q + m * d_k) + n * m * h
assert (count_parameters(two), count_parameters(three)) == (d_q * d_k, h * (d_q + d_k + 1))

# %% [markdown]
# In Bahdanau's translator the query has 1,000 entries, a key 2,000 (two directions of 1,000) and the hidden layer 1,000:
# 3,001,000 parameters for the score alone. Luong's general score between vectors of 1,000 has 1,000,000, his concat 2,001,000. What the additive
# score pays for most is not MACs but **memory**: it holds $n m h$ numbers behind the tanh until the backward pass, where the dot product
# keeps no table of pairs at all.

# %%
with torch.device("meta"):  # shapes without numbers
    counts = [count_parameters(f) for f in (AdditiveScore(1000, 2000, hidden=1000),
                                            BilinearScore(1000, 1000),
                                            AdditiveScore(1000, 1000, hidden=1000))]
assert counts == [3_001_000, 1_000_000, 2_001_000]
assert saved_bytes(three, q_many, k_many) >= 4 * n * m * h and saved_bytes(dot, q_many, k_same) == 0

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# The game of part 6, against two rivals, five seeds each. *mean* pools with equal weights and reads the classes off linearly. *hidden +
# mean* first gives each element a hidden layer of 16 units with tanh, and pools behind it. *attention* is the network of part 6.
# Besides new sequences of length 10 we ask for sequences of length 160, which none of them has ever seen.
#
# **Our rule, stated before the figure:** one way is better than another if its *worst* seed beats the other's *best*. Otherwise we
# say that no difference was found.
#
# **Predict.** The mean of a sequence holds one mark and ten symbols, and no trace of which belongs to which. So *mean* can only guess the
# commonest symbol. And *hidden + mean*: can it do better? At both lengths?

# %%
class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)

ways = {"mean": lambda: nn.Sequential(Mean(), nn.Linear(5, 4))}
hidden_layer = lambda: nn.Sequential(nn.Linear(5, 16), nn.Tanh())
ways["hidden + mean"] = lambda: nn.Sequential(hidden_layer(), Mean(), nn.Linear(16, 4))
networks = {name: [trained(make, seed) for seed in range(5)] for name, make in ways.items()}
networks["attention"] = nets

# %%
from attnlib.lab.plots import by_seed

def on_length(length):
    x, label, _ = marked(2000, length, seed=1000)
    right = lambda net: (net(x).argmax(1) == label).double().mean().item()
    with torch.no_grad():
        return {name: [right(net) for net in group] for name, group in networks.items()}

# %%
results = {length: on_length(length) for length in (10, 160)}
fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, (length, group) in zip(axes, results.items(), strict=True):
    by_seed(group, ax=ax, highlight="attention", label="right on new sequences")
    ax.set(title=f"length {length}", ylim=(0, 1.05))
show(fig, alt="Accuracy by seed. Length 10: mean near 0.42, hidden plus mean and attention near 1. "
     "Length 160: mean and hidden plus mean between 0.2 and 0.5, attention at 1.")

# %%
commonest = (new_x[:, :, :4].sum(1).argmax(1) == new_label).double().mean().item()
short, long = results[10], results[160]
print(f"the commonest symbol: {commonest:.2f}; mean: {sum(short['mean']) / 5:.2f}")
assert abs(sum(short["mean"]) / 5 - commonest) < 0.03
assert max(short["mean"]) < min(short["attention"])
assert min(long["attention"]) > 0.98 and max(long["hidden + mean"]) < 0.5
assert min(short["hidden + mean"]) > 0.98 and min(short["attention"]) > 0.98

# %% [markdown]
# **What to see.** *Mean* does as well as the commonest symbol, 0.42, and no better. At length 10 *hidden + mean* is as good as
# attention: by our rule **no difference found**, all seeds of both are above 98%. A hidden layer can make a unit of "symbol 2 *and*
# marked", and the mean keeps a trace of it. So attention is not necessary for this game, and whoever compares it with a plain mean
# only has picked a weak rival. At length 160 they part: *hidden + mean* falls below one half, while attention's worst seed is still
# above 98%. A likely reason: in a mean the marked element counts 1/160, where in training it counted 1/10, and what the others leave
# behind is louder. In attention the score of a mark that is heeded lies so far above the others that even 159 of them do not
# outweigh it: it keeps more than 95% of the weight. (Not for ever: a softmax deals out shares, so enough others would take it.)

# %%
long_x, long_label, long_place = marked(2000, 160, seed=1000)
with torch.no_grad():
    long_mark = torch.stack([net[0].weights(long_x)[range(2000), long_place] for net in nets])
kept = [long_mark[i, long_label == j].mean() for i, j in (by_symbol > 0.5).nonzero().tolist()]
assert min(kept) > 0.95

# %% [markdown]
# **A control.** Now the question is which symbol is *commonest* in the sequence (the first of those in a tie). That a mean can
# answer, and there is nothing to select.

# %%
which = lambda x, label: x[:, :, :4].sum(1).argmax(1)
compared = {"mean": ways["mean"], "attention": attentive}
with torch.no_grad():
    wanted = which(new_x, None)
share = lambda net: (net(new_x).argmax(1) == wanted).double().mean().item()
control = {name: [share(trained(make, seed, target=which)) for seed in range(5)]
           for name, make in compared.items()}

# %%
by_mean, by_attention = control["mean"], control["attention"]
apart = min(by_attention) > max(by_mean) or max(by_attention) < min(by_mean)
print("commonest symbol: one of the two is better by our rule:", apart)
assert not apart and min(by_mean + by_attention) > 0.88

# %% [markdown]
# By our rule **no difference found**: both reach more than 88% with every seed. Attention can make its weights equal, and then it is
# the mean.

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### An average cannot leave its values
#
# Softmax weights are positive and sum to one. So no feature of a context can be larger than the largest value or smaller than
# the smallest:
#
# $$\min_j v_j \;\le\; c \;\le\; \max_j v_j \tag{1.20}$$
#
# Carbon dioxide rises. **Predict:** what will kernel regression answer for the year 2000, if it knows the years up to 1991 only?

# %%
past = co2.time < 1992
future = co2.time[~past]
forecast = regress(future, co2.time[past], co2.value[past], 0.04)
assert forecast.min() >= co2.value[past].min() and forecast.max() <= co2.value[past].max()  # (1.20)
assert torch.allclose(forecast[-100:], co2.value[past][-1].expand(100))
print(f"error over ten years: {rms(forecast - co2.value[~past]):.0f} ppm")

# %% [markdown]
# It repeats the last measurement for ever. A look-up, soft or not, interpolates; it does not see trends. Networks get around this by
# layers before and after the average.
#
# ### Weights that do not sum to one
#
# What follows if the normaliser is a sigmoid? Three things, each measured below.
#
# **A query that fits nothing gets nothing.** With all scores far below zero, all sigmoid weights are near 0, and so is the context. A
# softmax has no way to say "none of these": it sees differences only and deals out a total of one in any case.

# %%
poor = torch.full((1, 5), -8.0)
some_values = torch.tensor([[9.0], [7.0], [8.0], [6.0], [10.0]])
print(f"nothing fits: softmax {(poor.softmax(1) @ some_values).item():.1f},"
      f" sigmoid {(poor.sigmoid() @ some_values).item():.2f}")
assert torch.allclose(poor.softmax(1) @ some_values, some_values.mean()[None, None])
assert (poor.sigmoid() @ some_values).item() < 0.05

# %% [markdown]
# **The scale grows with the number of keys.** Give every key a twin with the same value. A softmax halves each weight, and nothing
# has changed. Under a sigmoid everything counts twice:
#
# $$c_{\text{softmax}}(k, k; v, v) = c_{\text{softmax}}(k; v), \qquad
# c_{\text{sigmoid}}(k, k; v, v) = 2\, c_{\text{sigmoid}}(k; v) \tag{1.21}$$
#
# **Masked keys are simply gone.** Take one key away: under a softmax the others share out what it had; under a sigmoid they do not
# notice.

# %%
some_scores, twice = torch.randn(2, 5), lambda x, axis: torch.cat([x, x], dim=axis)
for normalise, factor in ((masked_softmax, 1), (masked_sigmoid, 2)):
    once = normalise(some_scores) @ some_values
    doubled = normalise(twice(some_scores, 1)) @ twice(some_values, 0)
    assert torch.allclose(doubled, factor * once)  # (1.21)
seen = torch.tensor([True, True, True, True, False])
assert torch.equal(masked_sigmoid(some_scores, seen)[:, :4], masked_sigmoid(some_scores)[:, :4])
assert (masked_softmax(some_scores, seen)[:, :4] > masked_softmax(some_scores)[:, :4]).all()

# %% [markdown]
# So neither is better as such. A softmax suits a question that has its answer among the keys; a sigmoid suits questions of the kind
# "which of these apply?", with none and several among the answers. Part II uses it for gates all the time.
#
# ### Exercise 01.4 · bug gallery · *Depth* · 10 minutes
#
# Sequences of a batch differ in length and are filled up with zeros; a mask says which places count. This is attention pooling (without
# the bias) with a mistake that stood in a published implementation (the repository
# [good-features](https://github.com/georg-wolflein/good-features/pull/1), mended in its first pull request). Find it, and change as little as
# you can. `x` is (b, n, d), `mask` is (b, n), True where a place counts, `W` is (h, d), `u` is (h,).
#
# ```python
# def pooled(x, mask, W, u):
#     scores = torch.tanh(x @ W.T) @ u
#     weights = (scores * mask).softmax(1)
#     return (weights[:, :, None] * x).sum(1)
# ```
#
# <details><summary>Hint 1</summary>
#
# Print the weights for one sequence of three places of which one counts. What should they be?
#
# </details>
# <details><summary>Hint 2</summary>
#
# The mask turns the scores of padding into 0. What does a softmax make of a score of 0?
#
# </details>
# <details><summary>Hint 3</summary>
#
# It takes a score of minus infinity to get the weight 0: `scores.masked_fill(~mask, -torch.inf)`.
#
# </details>

# %% tags=["exercise"]
def pooled(x, mask, W, u):
    """x (b, n, d), mask (b, n), True = counts, W (h, d), u (h,) -> one vector for each, (b, d)."""
    raise NotImplementedError

pooled = check("01.4", pooled)

# %% tags=["solution"]
def pooled(x, mask, W, u):
    scores = torch.tanh(x @ W.T) @ u
    weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
    return (weights[:, :, None] * x).sum(1)

# %% [markdown]
# Since $e^0 = 1$, a score of 0 is no small score. How bad it is depends on how much padding there is: with all true scores at 0, too,
# the padding takes exactly its share of the places. The padded *values* are zeros here, so the context shrinks by what they
# took. The test that finds this mistake is one line: **more padding must not change the answer.**

# %%
x_short, W_pool, u_pool = torch.randn(1, 3, 4), torch.randn(6, 4), torch.randn(6)
padded = F.pad(x_short, (0, 0, 0, 5))  # five places of zeros behind the three
counts_here = torch.arange(8)[None] < 3
right_answer = pooled(x_short, torch.ones(1, 3).bool(), W_pool, u_pool)
assert torch.allclose(pooled(padded, counts_here, W_pool, u_pool), right_answer, atol=1e-6)
broken = (torch.tanh(padded @ W_pool.T) @ u_pool * counts_here).softmax(1)
print("the padding takes weight in the broken form:", bool(broken[:, 3:].sum() > 0.1))
assert broken[:, 3:].sum() > 0.1

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# Articles on the web say the following about attention. Each is settled by the cell below it.
#
# **SAM-1** "SAM is self-attention: a similarity (dot, additive, bilinear), normalised (by softmax or sigmoid), then a weighted sum."
# **True**, as a description of attention: it is (1.5), and every score works with either normaliser. Two remarks. *Self*-attention
# means besides that queries, keys and values come from the same sequence ([02_self_attention](02_self_attention.ipynb)). And
# "bilinear" is the *score* $q^\top W k$, one number for a pair. *Bilinear pooling* is something else: it sums outer products into a
# matrix. (A third SAM, the *spatial* attention module, is the subject of [10_spatial_attention](10_spatial_attention.ipynb).)

# %%
# claim SAM-1: TRUE
sequence = torch.randn(6, 4).double()
for score in (dot, in_general, BilinearScore(4, 4).double()):
    for normalise in (masked_softmax, masked_sigmoid):
        w = normalise(score(sequence, sequence))  # one number for each pair
        summed = sum(w[2, j] * sequence[j] for j in range(6))
        assert w.shape == (6, 6) and torch.allclose((w @ sequence)[2], summed)
assert torch.allclose(sum(x.outer(x) for x in sequence), sequence.T @ sequence)  # bilinear pooling

# %% [markdown]
# **SAM-2** "SAM is *selective attention*: a learned weight vector selects what matters." **Misnamed.** The thing exists and works
# (parts 6 and 9), under the name *attention pooling*: the "weight vector" is the learned query $u$ of (1.16). It does not hold one
# weight for each place. If it did, it would fail when the marked element moves, and could not serve another length:

# %%
# claim SAM-2: MISNAMED
order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    moved, stayed = nets[0][0].weights(new_x[:, order]), nets[0][0].weights(new_x)[:, order]
    for_more = nets[0][0].weights(marked(3, 25, seed=0)[0])
assert torch.allclose(moved, stayed, atol=1e-6) and for_more.shape == (3, 25)
assert nets[0][0].u_w.weight.shape == (1, 8)  # as wide as a key, whatever the number of elements

# %% [markdown]
# **NAM-9** "Attention weights are a weighted average of the elements of the sequence." **False.** It mixes up two steps of (1.5). The
# *weights* come from the scores; the *context* is the average. Change the values and leave the keys: the weights stay as they
# are to the last bit, and the context follows.

# %%
# claim NAM-9: FALSE
v_one, v_other = torch.randn(5, 3).double(), torch.randn(5, 3).double()
(c_one, p_one), (c_other, p_other) = (dot_product_attention(q, k, v) for v in (v_one, v_other))
assert torch.equal(p_one, p_other) and torch.allclose(p_one, scaled_dot(q, k).softmax(1))
assert not torch.allclose(c_one, c_other) and torch.allclose(c_one, p_one @ v_one)

# %% [markdown]
# ## 12 · Exercises
#
# 01.1 and 01.2 stand in part 4, 01.3 in part 5 and 01.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 01.5 · leave one out · *Depth* · 15 minutes
#
# To choose a bandwidth we set some weeks aside. With few measurements that is a waste. **Leave-one-out** asks for every measured
# time, answered from all *other* measurements. Write it without a loop. `times` and `values` are (m,), `bandwidth` is a
# number; return the predictions, (m,).
#
# <details><summary>Hint 1</summary>
#
# The times are queries and keys at once, so the scores are (m, m). Which of them must not count?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.eye(m, dtype=torch.bool)` is True where query and key are the same measurement. Exercise 01.4 says how to mask.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `scores.masked_fill(torch.eye(len(times), dtype=torch.bool), -torch.inf).softmax(1) @ values`
#
# </details>

# %% tags=["exercise"]
def leave_one_out(times, values, bandwidth):
    """times (m,), values (m,), bandwidth a number -> predictions (m,), each from all the others."""
    raise NotImplementedError

leave_one_out = check("01.5", leave_one_out)

# %% tags=["solution"]
def leave_one_out(times, values, bandwidth):
    scores = -(times[:, None] - times).square() / (2 * bandwidth**2)
    own = torch.eye(len(times), dtype=torch.bool)
    return scores.masked_fill(own, -torch.inf).softmax(1) @ values

# %%
few_t, few_y = co2.time[known][:600], co2.value[known][:600]
left_out = [rms(leave_one_out(few_t, few_y, width) - few_y) for width in widths]
with_itself = [rms(regress(few_t, few_t, few_y, width) - few_y) for width in widths]
chosen = [widths[min(range(13), key=lambda i: e[i])] for e in (left_out, with_itself)]
print("bandwidth by leave-one-out:", chosen[0], "· if each week may see itself:", chosen[1])
assert chosen[0] in (0.02, 0.04, 0.08) and chosen[1] == 0.005 and with_itself[0] < 0.001

# %% [markdown]
# Without the mask every week answers itself: the narrowest bandwidth is always "best", with next to no error.

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | elsewhere |
# |---|---|---|---|
# | score | $s_{ij} = a(q_i, k_j)$, six of them | (1.5), (1.6) | Bahdanau: $e_{ij}$ |
# | weights | softmax or sigmoid of the scores | (1.7) | Bahdanau: $\alpha_{ij}$; Luong: $a_t(s)$ |
# | context | $c_i = \sum_j p_{ij} v_j$ | (1.5) | Luong: $c_t$; Vaswani: the rows of the output |
# | kernel regression | scores $-(q - k)^2/(2b^2)$ | (1.3) | Nadaraya and Watson, with kernels in the place of scores |
# | learned query | $p_t = \mathrm{softmax}_t(u^\top \tanh(W \mathbf{x}_t + \beta))$ | (1.16) | Yang: $u_w$ for our $u$ |
# | gradient | $\partial c/\partial s_j = p_j (v_j - c)$ | (1.11) | |
#
# - Attention is a dictionary whose keys may fit a little: scores, weights, average.
# - Kernel regression is attention with a Gaussian score, and the square of its bandwidth is a temperature.
# - The score decides what "fits" means: the dot product favours long keys, the cosine hears directions only, the Gaussian wants
#   nearness. For keys of one length all three are one, up to a temperature (the cosine's is the length of the query times theirs).
# - A softmax always deals out one; a sigmoid may deal out nothing, or much.
# - An average stays among its values.
# - A learned query finds what matters, but a map of weights is no explanation: most of our networks ignored one of the four symbols
#   they were always right about.
#
# **Sources.** Nadaraya 1964; Watson 1964; arXiv 1409.0473, appendix A.1.2 (additive score, no biases); arXiv 1508.04025, section 3.1
# (dot, general, concat); arXiv 1706.03762, section 3.2.1; arXiv 1410.5401, section 3.3.1 (cosine); N16-1174, section 2.2 (pooling); the
# documentation of Keras (`AdditiveAttention`). The weekly carbon dioxide is that of Keeling and Whorf, Scripps Institution of Oceanography.
#
# **Back:** [00_toolbox](00_toolbox.ipynb), [00_start_here](00_start_here.ipynb) · **Next:** [02_self_attention](02_self_attention.ipynb),
# where queries, keys and values are made of the same tokens.
