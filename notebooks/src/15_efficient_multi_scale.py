# %% [markdown]
# # 15 · Efficient Multi-scale Attention
#
# **The question.** A gate over channels sees no place, and a gate over places sees all channels as one. Can a group of
# channels get a map of its own, made from what is near *and* what is far, for next to no weights?
#
# **The answer in one sentence.** Treat each group of channels as a small image of its own; let one branch look along
# whole rows and columns and another at 3 x 3 windows; weigh each by what the other found on average, add them to one
# map, and take its sigmoid as the gate; that costs $10 d^2 + 4 d$ weights for groups of $d$ channels, and **one of
# its two softmaxes never sees the image**, which makes most of its arithmetic unnecessary.
#
# **Paper.** Daliang Ouyang, Su He, Guozhong Zhang, Mingzhu Luo, Huaiyong Guo, Jian Zhan, Zhijie Huang: *Efficient
# Multi-Scale Attention Module with Cross-Spatial Learning*, ICASSP 2023, [arXiv
# 2305.13563](https://arxiv.org/abs/2305.13563).
#
# **Time.** Core 85 minutes (parts 1-4, 6, 9 and exercises 15.1 and 15.2) · Depth 110 minutes (the rest).
#
# **Prerequisites.** The toolbox pages on [softmax and its Jacobian](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian),
# [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs) and [batch
# normalisation](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass). Notebook
# [08](08_squeeze_and_excitation.ipynb) has the cards, the small network and the backward pass of a gate;
# [07](07_attention_on_feature_maps.ipynb) introduces the signatures. The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# The paper calls the module EMA. So are called three other things in this course (part 11 tells the four apart), so we
# say *multi-scale attention*.
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $G, d$ | | number of groups, and channels in each: $d = C/G$ |
# | $x, y$ | $B \times C \times H \times W$ | the feature map that comes in, and the one that goes out |
# | $X$ | $d \times H \times W$ | one group of one image; $X_c(i,j)$ is its channel $c$ at row $i$, column $j$ |
# | $r, q$ | $d \times H$, $d \times W$ | the two **strips**: means of the rows and means of the columns of $X$ |
# | $W_1, b_1$ | $d \times d$, $d$ | the 1 x 1 convolution; $u$ and $v$ are what it makes of $r$ and $q$ |
# | $t$ | $d \times H \times W$ | $X$ times two sigmoids |
# | $\gamma, \beta$ | $d$ | scale and shift of the norm |
# | $W_3, b_3$ | $d \times d \times 3 \times 3$, $d$ | the 3 x 3 convolution |
# | $X_1, X_2$ | $d \times H \times W$ | the far branch (behind the norm) and the near branch (behind the 3 x 3 convolution) |
# | $m_1, m_2$ | $d$ | their means over all places |
# | $a_1, a_2$ | $d$ | the softmaxes of these means |
# | $A, S$ | $H \times W$ | the gate before and after its sigmoid, one map for the whole group |
#
# $\sigma(z) = 1/(1+e^{-z})$ is the logistic sigmoid. In 08, $a$ is a hidden layer, $r$ a reduction and $u, v$ are
# layers of the gate.

# %%
from math import exp, sqrt

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
# **15.a** The numbers 2, 4, 9 are shifted and stretched so that their mean is 0 and their variance 1. Then each is
# multiplied by 3, and 5 is added. What is the mean of the three numbers that come out?
# (a) 5 · (b) 0 · (c) 20 · (d) 15 · (e) it depends on the three numbers
#
# **15.b** A softmax over a list of one single number gives
# (a) 0 · (b) 1 · (c) the number itself · (d) its sigmoid · (e) nothing: it is not defined
#
# **15.c** A 3 x 3 convolution without bias leads from 8 channels to 8. How many multiply-accumulates does it take for
# one pixel?
# (a) 9 · (b) 72 · (c) 576 · (d) 64 · (e) 648

# %% tags=["exercise"]
check("15.a", ...)
check("15.b", ...)
check("15.c", ...)

# %% tags=["solution"]
check("15.a", "a")
check("15.b", "b")
check("15.c", "c")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# SE ([08](08_squeeze_and_excitation.ipynb)) gives each channel one number and no place. The spatial gate of
# [10](10_spatial_attention.ipynb) gives each place one number, the same for all channels, and sees only a window. A
# gate that says *this channel, at this place, because of what stands far away* needs to look along the whole map, and
# that is dear: the non-local block of [14](14_non_local.ipynb) compares all pairs of places.
#
# There is a cheap way to look far: average every row to one number, and every column to one number. For $H \times W$
# places that leaves $H + W$ numbers, two **strips**. A gate for the place in row $i$ and column $j$ can then be a
# product of something made from the row's mean and something made from the column's.
#
# What is lost? The picture on the left has two spots, and so has the one in the middle. The right one shows the
# product of a row's mean and a column's mean, for each place. **Predict before you run it:** where will it be bright
# for the left picture, and where for the middle one?

# %%
spots = torch.zeros(2, 8, 8)
spots[0, 1:3, 1:3] = spots[0, 5:7, 5:7] = 1
spots[1] = spots[0].flip(1)
rows, columns = spots.mean(2), spots.mean(1)
crossed = rows[:, :, None] * columns[:, None]
assert torch.equal(crossed[0], crossed[1]) and not torch.equal(spots[0], spots[1])
print("bright places:", [int((product > 0).sum()) for product in crossed])

# %%
from attnlib.lab.plots import heatmap, pictures

drawn = torch.cat([spots, crossed[:1] / crossed.max()])
axes = pictures(drawn, ["one picture", "another", "row x column"])
show(axes[0].figure, alt="Left: two white squares on the falling diagonal. Middle: two on the "
     "rising diagonal. Right: the product of the strips, four squares, the same for both pictures.")

# %% [markdown]
# **What to see.** The two pictures have the same strips, so *whatever* is computed from strips alone is the same for
# both: four bright squares, of which two are ghosts. Two rows and two columns cross in more places than there are
# things.
#
# A 3 x 3 window has the opposite gift. It knows exactly what stands at its place and nothing of the rest of the map.
# So multi-scale attention takes both: a branch of strips that looks far, and a branch of windows that looks near, and
# lets each decide how the other is read. And it does this separately for each of $G$ groups of channels:
#
# | gate | numbers for one image | sees |
# |---|---|---|
# | SE | $C$ | all channels, no places |
# | spatial gate of CBAM | $H W$ | a window of all channels |
# | multi-scale attention | $G H W$ | all places of its own group, no other group |

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. The course's example map has four channels of 2 x 2 pixels. With $G = 2$ groups, channels 0 and 1 are
# the first group and channels 2 and 3 the second, so $d = 2$.

# %%
from attnlib.lab.data import example_feature_map

x = example_feature_map()
X = x[0, :2]  # the first group
for c in range(2):
    print(f"channel {c}:", X[c].int().tolist())

# %% [markdown]
# ### The far branch
#
# **Two strips.** For each channel of the group, the mean of every row and the mean of every column:
#
# $$r_c(i) = \frac1W \sum_{j=1}^{W} X_c(i,j), \qquad q_c(j) = \frac1H \sum_{i=1}^{H} X_c(i,j) \tag{15.1}$$
#
# Channel 0 has the rows $(1, 2)$ and $(3, 2)$: so $r_0 = (\frac32, \frac52)$. Its columns are $(1, 3)$ and $(2, 2)$:
# $q_0 = (2, 2)$. Do channel 1 before you run the cell.

# %%
r, q = X.mean(2), X.mean(1)
assert r.tolist() == [[1.5, 2.5], [0.5, 1.5]] and q.tolist() == [[2, 2], [0.5, 1.5]]  # (15.1)

# %% [markdown]
# **One convolution for both.** The strips are laid end to end, to one strip of length $H + W$, and a 1 x 1 convolution
# mixes the $d$ channels at each of its places. The two ends are then cut apart again into $u$ and $v$, which become two
# sigmoids. Both multiply $X$, one along the rows and one along the columns:
#
# $$u_c(i) = \sum_k W_{1,ck}\, r_k(i) + b_{1,c}, \qquad v_c(j) = \sum_k W_{1,ck}\, q_k(j) + b_{1,c},$$
#
# $$t_c(i,j) = X_c(i,j)\; \sigma\big(u_c(i)\big)\; \sigma\big(v_c(j)\big) \tag{15.2}$$
#
# Our weights are chosen so that all sigmoids of the first group are fractions; note $\sigma(\ln 3) = \frac34$ and
# $\ln 9 = 2 \ln 3$:
#
# $$W_1 = \begin{pmatrix} -\ln 9 & 0 \\ 0 & 0 \end{pmatrix}, \qquad b_1 = \begin{pmatrix} 2 \ln 9 \\ 0 \end{pmatrix}$$
#
# For channel 0, $u_0(i) = \ln 9 \cdot (2 - r_0(i)) = (\ln 3, -\ln 3)$ and $v_0 = (0, 0)$. The sigmoids are
# $(\frac34, \frac14)$ for the rows and $(\frac12, \frac12)$ for the columns: the upper row of channel 0 is multiplied
# by $\frac38$, the lower one by $\frac18$. For channel 1 all four sigmoids are $\frac12$. So
#
# $$t_0 = \frac18 \begin{pmatrix} 3 & 6 \\ 3 & 2 \end{pmatrix}, \qquad t_1 = \frac14 \begin{pmatrix} 0 & 1 \\ 1 & 2 \end{pmatrix}.$$

# %%
ln9 = torch.tensor(9.0).double().log()
W_1, b_1 = torch.tensor([[-1, 0], [0, 0]]) * ln9, torch.tensor([2, 0]) * ln9
u, v = W_1 @ r + b_1[:, None], W_1 @ q + b_1[:, None]
t = X * u.sigmoid()[:, :, None] * v.sigmoid()[:, None, :]
by_hand = torch.tensor([[[3, 6], [3, 2]], [[0, 2], [2, 4]]]) / 8
assert torch.allclose(t, by_hand.double())  # (15.2)

# %% [markdown]
# **A norm for each channel alone.** Batch norm takes its mean and variance over all images. *Instance norm* takes them
# over the places of one channel of one image, in training and in eval alike:
#
# $$X_{1c}(i,j) = \gamma_c\, \hat t_c(i,j) + \beta_c, \qquad \hat t_c = \frac{t_c - \mu_c}{\sqrt{s_c^2 + \epsilon}} \tag{15.3}$$
#
# where $\mu_c$ and $s_c^2$ are mean and variance of the $HW$ numbers of $t_c$. With a pencil, $\epsilon = 0$, $\gamma =
# (3, \sqrt 2)$ and $\beta = (1, -1)$: $8 t_0 = (3, 6, 3, 2)$ has the mean $\frac72$, the distances $-\frac12, \frac52,
# -\frac12, -\frac32$ and the variance $\frac94$. So $\hat t_0 = (-\frac13, \frac53, -\frac13, -1)$, and
#
# $$X_{1,0} = \begin{pmatrix} 0 & 6 \\ 0 & -2 \end{pmatrix}, \qquad X_{1,1} = \begin{pmatrix} -3 & -1 \\ -1 & 1 \end{pmatrix}.$$
#
# (The factor 8 does not matter: a norm takes it away again.) Keep an eye on the *means* of these two: they are 1 and
# $-1$.

# %%
gamma, beta = torch.tensor([3, 2**0.5]).double(), torch.tensor([1, -1]).double()
center = t - t.mean((1, 2), keepdim=True)
t_hat = center / center.square().mean((1, 2), keepdim=True).sqrt()
x_1 = gamma[:, None, None] * t_hat + beta[:, None, None]
by_hand = torch.tensor([[[0, 6], [0, -2]], [[-3, -1], [-1, 1]]]).double()
assert torch.allclose(x_1, by_hand)  # (15.3)

# %% [markdown]
# ### The near branch
#
# Beside all this, and from $X$ itself, a 3 x 3 convolution with a border of zeros:
#
# $$X_{2c}(i,j) = \sum_{k} \sum_{a=-1}^{1} \sum_{b=-1}^{1} W_{3,ck}(a, b)\, X_k(i + a,\, j + b) + b_{3,c} \tag{15.4}$$
#
# Our kernel is nearly empty. Output 0 adds to each pixel of channel 1 its right neighbour; output 1 copies channel 0
# from the pixel above. There is no bias. So
#
# $$X_{2,0} = \begin{pmatrix} 1 & 1 \\ 3 & 2 \end{pmatrix}, \qquad X_{2,1} = \begin{pmatrix} 0 & 0 \\ 1 & 2 \end{pmatrix}.$$

# %%
W_3, b_3 = torch.zeros(2, 2, 3, 3).double(), torch.zeros(2).double()
W_3[0, 1, 1, 1] = W_3[0, 1, 1, 2] = 1  # the middle, and one to the right (index 1 is offset 0)
W_3[1, 0, 0, 1] = 1  # one above
x_2 = F.conv2d(X[None], W_3, b_3, padding=1)[0]
assert x_2.tolist() == [[[1, 1], [3, 2]], [[0, 0], [1, 2]]]  # (15.4)

# %% [markdown]
# ### Each is read by the means of the other
#
# Both branches are averaged over all places, to $m_1$ and $m_2$, and a softmax over the $d$ channels makes shares of
# the means. The paper calls what follows *cross-spatial learning*. The shares of one branch weigh the channels of the
# other, which gives two maps; they are added:
#
# $$a_n = \mathrm{softmax}(m_n), \qquad m_{nc} = \frac{1}{HW} \sum_{i,j} X_{nc}(i,j) \qquad (n = 1, 2) \tag{15.5}$$
#
# $$A(i,j) = \sum_c a_{1c}\, X_{2c}(i,j) + \sum_c a_{2c}\, X_{1c}(i,j), \qquad y_c(i,j) = \sigma\big(A(i,j)\big)\, X_c(i,j) \tag{15.6}$$
#
# Here $m_1 = (1, -1)$, and $m_2 = (\frac74, \frac34)$. The softmax of two numbers is a sigmoid of their difference, so
# $a_1 = (\sigma(2), \sigma(-2)) = (0.881, 0.119)$ and $a_2 = (\sigma(1), \sigma(-1)) = (0.731, 0.269)$. In the top left
# corner,
#
# $$A(1,1) = 0.881 \cdot 1 + 0.119 \cdot 0 + 0.731 \cdot 0 - 0.269 \cdot 3 = 0.074,$$
#
# and the gate there is $\sigma(0.074) = 0.518$. At the top right it is 0.993: there the far branch has its peak of 6.

# %%
a_1, a_2 = (branch.mean((1, 2)).softmax(0) for branch in (x_1, x_2))
assert a_1.round(decimals=3).tolist() == [0.881, 0.119]  # (15.5)
assert a_2.round(decimals=3).tolist() == [0.731, 0.269]
A = sum(a_1[c] * x_2[c] + a_2[c] * x_1[c] for c in range(2))
S = A.sigmoid()
assert S.round(decimals=3).tolist() == [[0.518, 0.993], [0.924, 0.691]]  # (15.6)
map_titles = [f"{name}, channel {c}" for name in ("$X$", "far", "near") for c in range(2)]

# %%
fig, axes = plt.subplots(1, 7, figsize=(11, 1.9), width_ratios=[1] * 6 + [1.25])
drawn_maps = torch.cat([X, x_1.round(decimals=9) + 0, x_2])
for ax, values, title in zip(axes[:6], drawn_maps, map_titles, strict=True):
    heatmap(values, ax=ax, limits=(-6, 6), signed=True, numbers=True, colorbar=False)
    ax.set(xticks=[], yticks=[], title=title)
heatmap(S, ax=axes[6], numbers=True, label="gate").set(xticks=[], yticks=[], title="$S$")
show(fig, alt="Seven maps of 2 x 2 pixels: two channels each of the group, the far and the near "
     "branch, and the one gate, highest at the top right.")

# %% [markdown]
# **What to see.** Two channels come in and *one* gate comes out. Both channels of the group are multiplied by it, so
# inside a group no channel can be turned down against the other; only places can. What the module can do to channels,
# it does by groups.
#
# The second group, channels 2 and 3, goes through the same steps with **the same weights**. There is one $W_1$, one
# $W_3$, one norm for all groups.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# First the equations as loops, with nothing but Python's own arithmetic: one cell for each of the four steps, for one
# group of one image.

# %%
def gated_by_loops(X, W_1, b_1):  # (15.1) and (15.2): t
    d, H, W = X.shape
    r = [[sum(X[k, i, j] for j in range(W)) / W for i in range(H)] for k in range(d)]
    q = [[sum(X[k, i, j] for i in range(H)) / H for j in range(W)] for k in range(d)]
    mixed = lambda s, c, p: b_1[c] + sum(W_1[c, k] * s[k][p] for k in range(d))
    gate = lambda s, c, p: 1 / (1 + exp(-mixed(s, c, p)))
    return [[[X[c, i, j] * gate(r, c, i) * gate(q, c, j) for j in range(W)] for i in range(H)]
            for c in range(d)]

# %%
def normed_by_loops(t, gamma, beta, eps=1e-5):  # (15.3): X_1
    result = []
    for c, channel in enumerate(t):
        numbers = [number for row in channel for number in row]
        mean = sum(numbers) / len(numbers)
        rho = sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers) + eps)
        result.append([[gamma[c] * (n - mean) / rho + beta[c] for n in row] for row in channel])
    return result

# %%
def near_by_loops(X, W_3, b_3):  # (15.4): X_2
    d, H, W = X.shape
    pixel = lambda k, i, j: X[k, i, j] if 0 <= i < H and 0 <= j < W else 0.0
    window = [(k, a, b) for k in range(d) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    at = lambda c, i, j: sum(W_3[c, k, a + 1, b + 1] * pixel(k, i + a, j + b) for k, a, b in window)
    return [[[at(c, i, j) + b_3[c] for j in range(W)] for i in range(H)] for c in range(d)]

# %%
def crossed_by_loops(x_1, x_2):  # (15.5) and (15.6): S
    d, H, W = len(x_1), len(x_1[0]), len(x_1[0][0])
    grown = lambda branch: [exp(sum(map(sum, channel)) / (H * W)) for channel in branch]
    e_1, e_2 = grown(x_1), grown(x_2)
    A = lambda i, j: sum(e_1[c] / sum(e_1) * x_2[c][i][j] + e_2[c] / sum(e_2) * x_1[c][i][j]
                         for c in range(d))
    return [[1 / (1 + exp(-A(i, j))) for j in range(W)] for i in range(H)]

# %%
loops = crossed_by_loops(normed_by_loops(gated_by_loops(X, W_1, b_1), gamma, beta, eps=0),
                         near_by_loops(X, W_3, b_3))
assert torch.allclose(torch.tensor(loops).double(), S)

# %% [markdown]
# ### Groups go into the batch
#
# All groups share their weights, and no group looks at another. So a batch of $B$ images of $G$ groups may as well be
# a batch of $BG$ images of $d$ channels. One reshape does it, and one brings the groups back. Everything in between
# is written for images of $d$ channels and does not know that there are groups.
#
# ### Exercise 15.1 · groups and strips · *Core* · 10 minutes
#
# `x` is (b, c, h, w). Fold its groups into the batch and return the joined strips of (15.1), of shape (b groups, d,
# h + w): for each group the $h$ row means first, then the $w$ column means.
#
# <details><summary>Hint 1</summary>
#
# Two steps: reshape to (b groups, d, h, w), with $d = c/\text{groups}$; then two means and a `torch.cat`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The channels of a group are neighbours, so a plain `reshape` puts them where they belong. The mean of a *row* runs
# over the columns, the last axis.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `X = x.reshape(b * groups, c // groups, h, w)`, then `torch.cat([X.mean(3), X.mean(2)], dim=2)`.
#
# </details>

# %% tags=["exercise"]
def strips(x, groups):
    """x (b, c, h, w) -> row means and column means of each group, (b groups, c / groups, h + w)."""
    raise NotImplementedError

strips = check("15.1", strips)

# %% tags=["solution"]
def strips(x, groups):
    b, c, h, w = x.shape
    X = x.reshape(b * groups, c // groups, h, w)
    return torch.cat([X.mean(3), X.mean(2)], dim=2)

# %% [markdown]
# For a batch of groups, the sums over channels of (15.6) are two products of matrices. Write $X_1$ and $X_2$ as
# $d \times HW$ tables, one column for each place; then each group has
#
# $$A = a_1^\top X_2 + a_2^\top X_1, \qquad a_n = \mathrm{softmax}\big(\tfrac{1}{HW}\, X_n \mathbf{1}\big) \tag{15.7}$$
#
# where $\mathbf{1}$ is a column of $HW$ ones: a row of $d$ numbers times a table, twice. The library's class is
# `EfficientMultiScaleAttention`. It holds three layers, `conv_1x1`, `conv_3x3` and `norm`, and we write the rest
# around them, in two functions, because we shall want to change one of the softmaxes later.

# %%
from attnlib import EfficientMultiScaleAttention

def far(module, x):
    X = x.unflatten(1, (module.groups, -1)).flatten(0, 1)  # bG d h w
    both = module.conv_1x1(strips(x, module.groups)[..., None]).sigmoid()  # bG d h+w 1
    u, v = both.split(list(X.shape[2:]), 2)
    t = X * u * v.mT
    return X, t, module.norm(t)  # the group, and (15.2) and (15.3)

# %%
wide = lambda a: a[:, :, None, None]

def output(module, x, first):
    X, t, x_1 = far(module, x)
    x_2 = module.conv_3x3(X)
    a_1, a_2 = first(module, t, x_1), x_2.mean((2, 3)).softmax(1)  # bG d
    A = a_1[:, None] @ x_2.flatten(2) + a_2[:, None] @ x_1.flatten(2)  # bG 1 hw
    return (X * A.sigmoid().unflatten(2, X.shape[2:])).reshape(x.shape)

pooled = lambda module, t, x_1: x_1.mean((2, 3)).softmax(1)  # as in (15.5)

# %%
example_module = EfficientMultiScaleAttention(4, groups=2).double()
example_module.norm.eps = 0.0  # as by hand
names = ("conv_1x1.weight", "conv_1x1.bias", "conv_3x3.weight", "conv_3x3.bias")
layers = dict(zip(names, (W_1[:, :, None, None], b_1, W_3, b_3), strict=True))
example_module.load_state_dict(layers | {"norm.weight": gamma, "norm.bias": beta})
assert torch.allclose(example_module.weights(x)[0, :2], S.expand(2, 2, 2))
assert torch.allclose(example_module(x), output(example_module, x, pooled))  # (15.7)

# %% [markdown]
# That was the example. Now loops, matrices and library on random weights and a map whose sizes are all different:

# %%
def randomised(channels, groups):  # every weight, also those that start at 0 or 1
    module = EfficientMultiScaleAttention(channels, groups=groups).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module

torch.manual_seed(1)
module, maps = randomised(6, 2), torch.randn(2, 6, 4, 5).double()

# %%
M_1, c_1, M_3, c_3, g_n, b_n = [p.detach() for p in module.parameters()]
group = maps[1, 3:]  # the second group of the second image
by_loops = normed_by_loops(gated_by_loops(group, M_1[:, :, 0, 0], c_1), g_n, b_n)
gate = torch.tensor(crossed_by_loops(by_loops, near_by_loops(group, M_3, c_3))).double()
assert torch.allclose(module.weights(maps)[1, 3:], gate.expand(3, 4, 5))
assert torch.allclose(module(maps), output(module, maps, pooled))

# %% [markdown]
# Since the groups share their weights, permuting whole groups permutes the output and does nothing else. Permuting
# channels *inside* a group does more, because $W_1$ and $W_3$ tell them apart.

# %%
assert torch.allclose(module(maps[:, [3, 4, 5, 0, 1, 2]]), module(maps)[:, [3, 4, 5, 0, 1, 2]])
assert not torch.allclose(module(maps[:, [1, 0, 2, 3, 4, 5]]), module(maps)[:, [1, 0, 2, 3, 4, 5]])

# %% [markdown]
# ### What group norm with d groups is
#
# The module's norm is `nn.GroupNorm(d, d)`. Group norm takes mean and variance over the places *and* the channels of
# a group of its own; with as many groups as channels, each group is one channel, and it is the instance norm of
# (15.3).

# %%
some = torch.randn(4, 3, 4, 5).double()
by_group, by_instance = F.group_norm(some, 3, g_n, b_n), F.instance_norm(some)
affine = lambda z: g_n[:, None, None] * z + b_n[:, None, None]
assert torch.allclose(by_group, affine(by_instance))
assert not torch.allclose(F.group_norm(some, 1, g_n, b_n), by_group)

# %% [markdown]
# ### One of the two softmaxes never sees the image
#
# Look again at the two means of part 3: $m_1 = (1, -1)$, and $\beta = (1, -1)$. **Predict** what $m_1$ will be for
# quite another map, with the same weights. Then do the exercise.
#
# ### Exercise 15.2 · the first softmax · *Core* · 5 minutes
#
# Write $a_1$ of (15.5) as a function that is not given the map at all, only $\gamma$ and $\beta$ of the norm. Return
# its $d$ numbers.
#
# <details><summary>Hint 1</summary>
#
# $a_1$ is the softmax of the means of $X_1$, and $X_1$ is what leaves the norm. What is the mean of $\hat t_c$ over
# all places?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Recall 15.a. The distances from a mean sum to zero, whatever they are divided by and multiplied with.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The mean of $\gamma_c \hat t_c + \beta_c$ is $\gamma_c \cdot 0 + \beta_c$. One line: `return beta.softmax(0)`.
#
# </details>

# %% tags=["exercise"]
def first_softmax(gamma, beta):
    """gamma and beta of the norm, (d,) each -> a_1 of every group of every image, (d,)."""
    raise NotImplementedError

first_softmax = check("15.2", first_softmax)

# %% tags=["solution"]
def first_softmax(gamma, beta):
    return beta.softmax(0)

# %% [markdown]
# **The proof** is three lines. By (15.3), $\hat t_c$ is $t_c$ minus its mean, divided by a number that is the same
# for all places of the channel. The distances from a mean sum to zero. So, with $\epsilon$ or without it,
#
# $$m_{1c} = \gamma_c \cdot \underbrace{\frac{1}{HW} \sum_{i,j} \hat t_c(i,j)}_{0} + \beta_c = \beta_c
# \qquad\Longrightarrow\qquad a_1 = \mathrm{softmax}(\beta), \quad \frac{\partial a_1}{\partial x} = 0 \tag{15.8}$$
#
# $a_1$ is the same for every group, every image and every input. A new module has $\beta = 0$, so its $a_1$ is
# $(\frac1d, \dots, \frac1d)$. It is no attention: it is a learnt constant, written in a roundabout way.

# %%
shares = lambda branch: branch.mean((2, 3)).softmax(1)
a_1_of = lambda x: shares(far(module, x)[2])
a_2_of = lambda x: shares(module.conv_3x3(far(module, x)[0]))

# %%
from attnlib.lab.gradients import jacobian

for some_input in (maps, 1000 * maps, torch.rand(1, 6, 9, 2).double()):
    expected = first_softmax(g_n, b_n).expand(2 * len(some_input), 3)
    assert torch.allclose(a_1_of(some_input), expected)  # (15.8)
assert jacobian(a_1_of, maps).abs().max() < 1e-12
assert jacobian(a_2_of, maps).abs().max() > 1e-3  # the other one does see it

# %%
fresh, features = EfficientMultiScaleAttention(64, groups=8), torch.randn(1, 64, 7, 7)
assert torch.allclose(shares(far(fresh, features)[2]), torch.full((8, 8), 1 / 8))
single = EfficientMultiScaleAttention(64, groups=64)
X_single, _, normed = far(single, features)
assert (shares(normed) == 1).all() and (shares(single.conv_3x3(X_single)) == 1).all()

# %% [markdown]
# The last line is the extreme case: with one channel in each group ($d = 1$), a softmax over one number is 1 (recall
# 15.b), so *neither* softmax sees anything. The default of the authors' program, 32 groups, gives just that on a map
# of 32 channels.
#
# ### Take it out
#
# If (15.8) is true, then the mean over $X_1$ and its softmax can be replaced by $\mathrm{softmax}(\beta)$, and
# nothing may change: neither the output, nor any gradient, nor a training. **Predict** the largest difference.

# %%
constant = lambda module, t, x_1: module.norm.bias.softmax(0).expand(len(t), -1)
inputs = [maps.clone().requires_grad_(), *module.parameters()]
upstream = torch.randn_like(maps)
results = []
for first in (pooled, constant):
    y = output(module, inputs[0], first)
    results.append([y, *torch.autograd.grad(y, inputs, upstream)])
assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*results, strict=True))

# %%
def losses(first):
    torch.manual_seed(0)
    module = EfficientMultiScaleAttention(6, groups=2).double()
    target, optimizer = torch.randn_like(maps), torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(40):
        loss = (output(module, maps, first) - target).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        yield loss.item()

# %%
with_pool, with_constant = torch.tensor([list(losses(first)) for first in (pooled, constant)])
assert with_pool[-1] < 0.98 * with_pool[0]  # it does learn something
assert torch.allclose(with_pool, with_constant, rtol=1e-6)
print("the two trainings agree at each of", len(with_pool), "steps")

# %% [markdown]
# Not a step apart. Mind what this does *not* say: $\beta$ is learnt, so $a_1$ moves in the course of a training. It
# is the *image* that it does not see. Part 5 shows the same from behind, part 8 what can be saved, and parts 10 and
# 12 what happens if the softmax is given something to look at.

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Let $g = \partial L/\partial y$ be what arrives from above. As in 08, $X$ counts twice, directly and through the
# gate; here the gate is reached on two branches. Folding the groups into the batch is a reshape, and its way back is
# the reshape back, so one group of one image is all we need. A bar over a letter is the gradient for it:
# $\bar A = \partial L/\partial A$.
#
# **Gate.** One map serves all $d$ channels, so their gradients add up, and then comes the slope of the sigmoid (08
# has the same for a gate over channels, with the sum over places, (8.6) and (8.7)):
#
# $$\bar A(i,j) = S(1 - S) \sum_c g_c(i,j)\, X_c(i,j), \qquad \text{and directly } \;\; S\, g_c(i,j) \;\text{ for } X_c \tag{15.9}$$
#
# **Cross product.** Each term of (15.6) is a product of a share and a map. The share serves all places, so it
# collects a sum; then the softmax goes backwards ((1.4) of the toolbox), and the mean hands out equal parts. A map is
# reached twice, by the product and by its own mean:
#
# $$\bar a_{1c} = \sum_{i,j} \bar A\, X_{2c}, \qquad \bar a_{2c} = \sum_{i,j} \bar A\, X_{1c}, \qquad \bar m_n = a_n \odot (\bar a_n - a_n^\top \bar a_n),$$
#
# $$\bar X_{1c}(i,j) = a_{2c}\, \bar A(i,j) + \frac{\bar m_{1c}}{HW}, \qquad \bar X_{2c}(i,j) = a_{1c}\, \bar A(i,j) + \frac{\bar m_{2c}}{HW} \tag{15.10}$$
#
# We let autograd keep its own gradients of the steps in between, to hold ours against them.

# %%
def steps(X, W_1, b_1, W_3, b_3, gamma, beta):
    r, q = X.mean(3), X.mean(2)
    su, sv = ((W_1 @ strip + b_1[:, None]).sigmoid() for strip in (r, q))
    t = X * su[..., None] * sv[:, :, None]
    x_1, x_2 = F.group_norm(t, len(gamma), gamma, beta), F.conv2d(X, W_3, b_3, padding=1)
    a_1, a_2 = (branch.mean((2, 3)).softmax(1) for branch in (x_1, x_2))
    S = (wide(a_1) * x_2 + wide(a_2) * x_1).sum(1, keepdim=True).sigmoid()
    return r, q, su, sv, t, x_1, x_2, a_1, a_2, S

# %%
torch.manual_seed(2)
sizes = [(2, 3, 4, 5), (3, 3), (3,), (3, 3, 3, 3), (3,), (3,), (3,)]  # X, W_1, b_1, W_3, b_3, ...
leaves = [torch.randn(size).double().requires_grad_() for size in sizes]
*_, gated, far_r, near_r, share_1, share_2, S_r = steps(*leaves)
g = torch.randn(2, 3, 4, 5).double()
between = (S_r, share_1, share_2, far_r, near_r, gated)
dS, da_1, da_2, dfar, dnear, dt = torch.autograd.grad(leaves[0] * S_r, between, g)

# %%
def through_product(g, X, x_1, x_2, a_1, a_2, S):
    dA = S * (1 - S) * (g * X).sum(1, keepdim=True)
    pairs = (a_1, (dA * x_2).sum((2, 3))), (a_2, (dA * x_1).sum((2, 3)))
    dm_1, dm_2 = (a * (da - (a * da).sum(1, keepdim=True)) for a, da in pairs)
    places = dA[0].numel()
    return dA, wide(a_2) * dA + wide(dm_1) / places, wide(a_1) * dA + wide(dm_2) / places

# %%
with torch.no_grad():
    dA, far_hand, near_hand = through_product(g, leaves[0], far_r, near_r, share_1, share_2, S_r)
    assert torch.allclose(dA, dS * S_r * (1 - S_r))  # (15.9)
    assert torch.allclose(da_1, (dA * near_r).sum((2, 3)))
    assert torch.allclose(da_2, (dA * far_r).sum((2, 3)))
    assert torch.allclose(dfar, far_hand) and torch.allclose(dnear, near_hand)  # (15.10)

# %% [markdown]
# **Norm.** (5.5) of the toolbox is the way back through batch norm, for the $n$ numbers that share a mean. Here they
# are the $HW$ numbers of one channel of one image. With $\mathrm{mean}$ for the average over these places and
# $\rho_c = \sqrt{s_c^2 + \epsilon}$, for one group
#
# $$\bar t_c = \frac{\gamma_c}{\rho_c} \Big( \bar X_{1c} - \mathrm{mean}(\bar X_{1c}) - \hat t_c\, \mathrm{mean}(\bar X_{1c}\, \hat t_c) \Big), \quad
# \bar\gamma_c = \sum_{i,j} \bar X_{1c}\, \hat t_c, \quad \bar\beta_c = \sum_{i,j} \bar X_{1c} \tag{15.11}$$
#
# Now put (15.10) into it. The message of the first softmax is $\bar m_{1c}/HW$, *the same number at every place*. In
# the bracket its mean is subtracted from it, which leaves 0; and its product with $\hat t_c$ has the mean 0, because
# $\hat t_c$ has. **So nothing of the first softmax passes the norm**, neither to $W_1$ nor to the image. In
# $\bar\beta_c$ it arrives whole, as $\bar m_{1c}$. That is (15.8) seen from behind.

# %%
def through_norm(dx_1, t, gamma):
    mean = lambda z: z.mean((2, 3), keepdim=True)
    rho = (mean((t - mean(t)).square()) + 1e-5).sqrt()
    t_hat = (t - mean(t)) / rho
    dt = gamma[:, None, None] / rho * (dx_1 - mean(dx_1) - t_hat * mean(dx_1 * t_hat))
    return dt, (dx_1 * t_hat).sum((0, 2, 3)), dx_1.sum((0, 2, 3))

# %%
with torch.no_grad():
    dt_hand, dgamma, dbeta = through_norm(far_hand, gated, leaves[5])
    assert torch.allclose(dt, dt_hand)  # (15.11)
    message = wide(torch.randn(2, 3).double())  # any other gradient for m_1
    dt_other, dgamma_other, dbeta_other = through_norm(far_hand + message, gated, leaves[5])
    assert torch.allclose(dt_other, dt) and torch.allclose(dgamma_other, dgamma)
    assert torch.allclose(dbeta_other - dbeta, message.sum((0, 2, 3)) * 20)  # 4 x 5 places

# %% [markdown]
# **Strips.** In $t_c(i,j) = X_c(i,j)\, \sigma(u_c(i))\, \sigma(v_c(j))$ the sigmoid of row $i$ serves the whole row,
# and that of column $j$ the whole column. So they collect sums along rows and columns:
#
# $$\bar u_c(i) = \sigma'(u_c(i)) \sum_j \bar t_c\, X_c\, \sigma(v_c(j)), \qquad \bar v_c(j) = \sigma'(v_c(j)) \sum_i \bar t_c\, X_c\, \sigma(u_c(i))$$
#
# with $\sigma' = \sigma(1 - \sigma)$. Both strips went through the same $W_1$, so it hears from both; and the way
# back to $X$ is $W_1^\top$ and then a share of $1/W$ or $1/H$ for each place that was averaged:
#
# $$\bar W_1 = \bar u\, r^\top + \bar v\, q^\top, \qquad \bar X(i,j) \;\mathrel{+}=\; \sigma(u(i))\, \sigma(v(j))\, \bar t(i,j) + \tfrac1W\, W_1^\top \bar u(i)
# + \tfrac1H\, W_1^\top \bar v(j) \tag{15.12}$$
#
# **Near branch.** A convolution backwards is the toolbox's: each output hands its gradient to the window it looked at.

# %%
def through_strips(dt, X, r, q, su, sv, W_1):
    du = (dt * X * sv[:, :, None]).sum(3) * su * (1 - su)
    dv = (dt * X * su[..., None]).sum(2) * sv * (1 - sv)
    direct = dt * su[..., None] * sv[:, :, None]
    along_rows, along_columns = (W_1.T @ du)[..., None], (W_1.T @ dv)[:, :, None]
    dX = direct + along_rows / X.shape[3] + along_columns / X.shape[2]
    return dX, (du @ r.mT + dv @ q.mT).sum(0), (du.sum(2) + dv.sum(2)).sum(0)

# %%
def backward(g, X, W_1, b_1, W_3, b_3, gamma, beta):
    r, q, su, sv, t, *rest = steps(X, W_1, b_1, W_3, b_3, gamma, beta)
    _, dx_1, dx_2 = through_product(g, X, *rest)
    dt, dgamma, dbeta = through_norm(dx_1, t, gamma)
    dX, dW_1, db_1 = through_strips(dt, X, r, q, su, sv, W_1)
    dX = dX + rest[-1] * g + F.conv_transpose2d(dx_2, W_3, padding=1)
    dW_3 = (dx_2.flatten(2) @ F.unfold(X, 3, padding=1).mT).sum(0).view_as(W_3)
    return dX, dW_1, db_1, dW_3, dx_2.sum((0, 2, 3)), dgamma, dbeta

# %%
from attnlib.lab.gradients import compare_gradients

letters = ("X", "W_1", "b_1", "W_3", "b_3", "gamma", "beta")
whole = lambda X, **weights: X * steps(X, **weights)[-1]
by_name = lambda g, **inputs: dict(zip(letters, backward(g, **inputs), strict=True))
table = compare_gradients(whole, by_name, dict(zip(letters, leaves, strict=True)))
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (15.12)
table

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# The **signature** of a gate (introduced in [07](07_attention_on_feature_maps.ipynb#Signatures)) shows which channels
# and which places it listens to: row $c$, column $k$ of the upper matrix says how strongly the gate of channel $c$
# reacts to channel $k$; row $p$, column $p'$ of the lower one, how strongly the gate at place $p$ reacts to place
# $p'$. We draw it for the two products of (15.6) alone and for the whole gate, with 6 channels in 2 groups on a map
# of 4 x 4 places.
#
# **Predict** before you run it: which blocks of the upper matrix are dark? In the lower one, which product gives a
# narrow pattern and which a wide one?

# %%
from attnlib.lab.signatures import draw_signature, signature

torch.manual_seed(4)
small, drawn_module = torch.randn(1, 6, 4, 4).double(), randomised(6, 2)

def part(x, n):
    X, _, x_1 = far(drawn_module, x)
    x_2 = drawn_module.conv_3x3(X)
    A = (wide(shares(x_1)) * x_2 if n == 1 else wide(shares(x_2)) * x_1).sum(1, keepdim=True)
    return A.expand_as(X).reshape(x.shape)

# %%
parts = {"$a_1 \\cdot X_2$": lambda x: part(x, 1), "$a_2 \\cdot X_1$": lambda x: part(x, 2),
         "whole gate": drawn_module.weights}
signatures = {name: signature(f, small) for name, f in parts.items()}
fig, axes = plt.subplots(2, 3, figsize=(7, 4.6))
for column, (name, found) in zip(axes.T, signatures.items(), strict=True):
    draw_signature(found, axes=column, title=name)
show(fig, alt="Three signatures. Upper row: two blocks of 3 x 3 on the diagonal, the rest black. "
     "Lower row: a band of windows; a full, faint matrix with a bright diagonal; their mixture.")

# %% [markdown]
# **What to see.** *Upper row:* two blocks and darkness. **No group hears another**, and inside a block all rows are
# equal, because a group has one gate. *Lower row, left:* the near product is a band: each place hears its 3 x 3
# window and nothing else. If $a_1$ saw the image, it would bring the whole map into this picture, since it is made of
# means over all places; it does not. *Middle:* the far product hears every place, its own place most: the strips, the
# norm's mean and deviation and the shares $a_2$ are all made of many places. *Right:* both together.

# %%
near_s, far_s, whole_s = signatures.values()
across = torch.ones(6, 6).bool() ^ torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).bool()
assert all((s.channels[across] == 0).all() for s in signatures.values())
assert torch.allclose(whole_s.channels[:3, :3], whole_s.channels[:1, :3].expand(3, 3))
row_of, column_of = torch.arange(16) // 4, torch.arange(16) % 4
apart_by = torch.maximum(*((at[:, None] - at).abs() for at in (row_of, column_of)))
assert (near_s.places[apart_by > 1] < 1e-9).all() and (near_s.places[apart_by <= 1] > 0.01).all()
assert (far_s.places > 1e-6).all() and (far_s.places.argmax(1) == torch.arange(16)).all()

# %% [markdown]
# ### On the cards
#
# Now the game of 08. A card has two sides, in two channels; each bears a digit in its lower half, and one of the two
# has a bright square in its top left corner: read the digit on that side. 08 shows in (8.1) why the plain small
# network cannot: it is linear behind windows of 5 x 5 pixels, and no window sees both the square and a digit; so it
# is right on 3/4 of all cards at most.
#
# We give the network's 16 channels multi-scale attention with $G = 2$. The convolutions before it are grouped too:
# channels 0-7 look at side 0 and channels 8-15 at side 1. So each group sees one side, with its own square if it has
# one, and *both groups use the same weights*.
#
# **Predict** where on its side a group's mean gate will be open when its own side bears the square, and where when
# the other side does.

# %%
from attnlib.lab.data import cued_digits
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

cards, new_cards = cued_digits(2000, split="train", seed=0), cued_digits(500, split="test", seed=1)
make = lambda: EfficientMultiScaleAttention(16, groups=2)
card_nets = [learn(cards, make, seed=seed, groups=2) for seed in (0, 3)]
card_accuracy = [accuracy(net, new_cards) for net in card_nets]
print("right on more than three quarters of the new cards:", min(card_accuracy) > 0.75)

# %%
def mean_gates(net):  # of a group whose own side is marked, and of one whose other side is
    with torch.no_grad():
        gates = net.attention.weights(net.features(new_cards.images))[:, [0, 8]]
    on_side_0 = new_cards.images[:, 0, 0, 0] == 1
    own = torch.cat([gates[on_side_0, 0], gates[~on_side_0, 1]])
    other = torch.cat([gates[on_side_0, 1], gates[~on_side_0, 0]])
    return own.mean(0), other.mean(0)

# %%
(own, other), (own_3, other_3) = (mean_gates(net) for net in card_nets)
fig, axes = plt.subplots(1, 4, figsize=(7.4, 3.2))
for n, (ax, values) in enumerate(zip(axes, (own, other, own_3, other_3), strict=True)):
    heatmap(values, ax=ax, colorbar=n == 3, label="mean gate").set(xticks=[], yticks=[0, 8, 15])
    ax.set(title=f"seed {n // 2 * 3}: {('own', 'other')[n % 2]} side\nmarked", aspect="equal")
show(fig, alt="Mean gate of a group over the 16 x 8 places, two networks. Own side marked: "
     "open at the digit, in the first network also at the square. Other side marked: mostly shut.")

# %% [markdown]
# **What to see.** Where a group's own side bears the square, its gate at the digit, far from the square, is more open
# than where the other side bears it. So the news "there is a square in my corner" has gone all over the group's map; it
# can travel by the norm's statistics, by $a_2$ and by the strips. No group needed to hear of the other. The rest of the
# picture is one network's own: the first keeps the gate open at the square as well and wide open at the digit, the
# second does neither, and reads most cards all the same.

# %%
at_digit = [gate[9:15, 2:6].mean() for gate in (own, other, own_3, other_3)]
print("more open at the digit:", bool(at_digit[0] > at_digit[1]), bool(at_digit[2] > at_digit[3]))
assert at_digit[0] > at_digit[1] + 0.4 and at_digit[2] > at_digit[3] + 0.05
assert own[:4, :4].mean() > 0.5 > 0.3 > own_3[:4, :4].mean()
assert at_digit[0] > 0.6 > 0.5 > at_digit[2] and min(card_accuracy) > 0.75

# %% [markdown]
# ### Turn a knob
#
# In the example of part 3, multiply channel 0 of the first group by $k$. **Predict:** which of the four shares move?

# %%
def shares_for(k):
    X_k = X * torch.tensor([k, 1.0])[:, None, None]
    row_k, column_k = ((W_1 @ X_k.mean(axis) + b_1[:, None]).sigmoid() for axis in (2, 1))
    t_k = X_k * row_k[:, :, None] * column_k[:, None]
    normed = F.group_norm(t_k[None], 2, gamma, beta)
    return shares(normed)[0], shares(F.conv2d(X_k[None], W_3, b_3, padding=1))[0]

# %%
def explore(k=1.0):
    ax, pair = plt.subplots(figsize=(4.6, 2.3))[1], shares_for(k)
    for n, color in enumerate(("grey", "C0")):
        ax.bar(torch.arange(2) + 0.4 * n - 0.2, pair[n], 0.38, label=f"$a_{n + 1}$", color=color)
    ax.set(ylim=(0, 1), xticks=range(2), xlabel="channel", ylabel="share", title=f"k = {k:.1f}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    show(ax.figure, alt=f"Bars: both shares of two channels, channel 0 times {k:.1f}.")

explore(4.0)

# %% [markdown]
# **What to see.** At $k = 1$ part 3 found $a_1 = (0.881, 0.119)$ and $a_2 = (0.731, 0.269)$. The grey bars are still
# there, whatever $k$ is. The blue ones have turned over: output 1 of the near branch copies channel 0, so the share
# of output 1 grows with $k$. Try it (the slider needs a running kernel):

# %%
for k in (0.5, 1.0, 4.0):
    assert torch.allclose(shares_for(k)[0], a_1)
assert shares_for(1.0)[1][0] > 0.7 and shares_for(4.0)[1][1] > 0.7

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, k=(0.5, 6.0, 0.5));

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# We read the authors' released module, about ten copies of it, and of the paper only the abstract. The copies are
# nearly all that code, to the letter, and so is the library's module: biases in both convolutions; nothing but the
# sigmoids behind the 1 x 1 convolution (coordinate attention, which has the same strips, has a norm and an activation
# there); the sigmoids first, then `GroupNorm(d, d)`, then pooling and softmax; 32 groups by default (8 in some copies).
#
# We depart in one thing, the check of the sizes. The released code asserts $\lfloor C/G \rfloor > 0$, and so do the
# copies; needed is that $G$ divides $C$. With $C = 48$ and $G = 32$ the assertion passes, since
# $\lfloor 48/32 \rfloor = 1$. So the layers are built, for groups of one channel, and it is the reshape in the
# forward pass that fails, with a message about shapes. The library says what to do:

# %%
C, G = 48, 32
assert C // G > 0  # the published check passes
try:
    torch.zeros(2, C, 4, 4).reshape(2 * G, -1, 4, 4)
except RuntimeError as error:
    print(error)

# %%
try:
    EfficientMultiScaleAttention(48)
except ValueError as error:
    print(error)
    assert str(error).endswith("use 24 or 16")
assert all(width % 32 for width in (18, 36, 72, 144)) and EfficientMultiScaleAttention(32)

# %% [markdown]
# On the branches of HRNet-W18 (notebook [16_hrnet](16_hrnet.ipynb)), which have 18, 36, 72 and 144 channels, 32
# groups are impossible. And a map of 32 channels passes every check and gets $d = 1$, where by part 4 both softmaxes
# are the constant 1.

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# Three layers with $d$ channels in and out: $d^2$ weights and $d$ biases, $9d^2$ and $d$, and $2d$ for the norm. They
# are used in each of $G$ groups: the 1 x 1 convolution at $H + W$ places, the 3 x 3 convolution at $HW$. (We count
# the convolutions. The two products of (15.7) would add $2\, G\, d\, HW$, and the folded form below saves one of them
# as well.)
#
# $$P = 10\,d^2 + 4\,d, \qquad \mathrm{MACs} = G\, d^2\, \big(H + W + 9 HW\big) \tag{15.13}$$
#
# $P$ does not contain $G$. **Predict** the parameters for $C = 64$ and for $C = 2048$, with 32 groups; and which of
# two modules is the more expensive to run: the one with 8 groups of 8 channels, or the one with 64 groups of 8.

# %%
from attnlib.lab.cost import closed_form, count_macs, count_parameters

counted = [count_parameters(EfficientMultiScaleAttention(64 * 2**i)) for i in range(6)]
print("C = 64, 128, ..., 2048:", counted)
assert counted == [48, 176, 672, 2624, 10368, 41216]
for C, G in [(64, 8), (512, 64), (96, 4)]:
    d, block = C // G, EfficientMultiScaleAttention(C, groups=G)
    assert count_parameters(block) == 10 * d**2 + 4 * d  # (15.13)
    assert count_macs(block, torch.zeros(1, C, 7, 5)) == G * d**2 * (7 + 5 + 9 * 7 * 5)

# %% [markdown]
# 48 parameters for 64 channels, 41,216 for 2048; SE with $r = 16$ has 580 and 526,464 (biases counted). Few
# parameters are not little arithmetic, though: sharing the weights saves storage, and every group still has to be
# computed. On the first stage of a ResNet-50, multi-scale attention does 7,000 times the multiplications of SE:

# %%
from attnlib import SqueezeExcitation

se_parameters = [count_parameters(SqueezeExcitation(C)) for C in (64, 2048)]
assert se_parameters == [580, 526_464]
se_macs, own_macs = (closed_form(name, 256, 56, 56).macs for name in ("se", "ema"))
print("MACs, as a multiple of SE's:", round(own_macs / se_macs / 100) * 100)
assert 7000 < own_macs / se_macs < 7200

# %% [markdown]
# ### The published 23.85 million
#
# A ResNet-50 has such a module behind each of its 16 blocks. The authors' table for CIFAR-100 has 23.71 million
# parameters without and 23.85 million with it, "+0.14". Let us count.

# %%
from attnlib.lab.networks import network_cost

outputs = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
added = sum(10 * (C // 32) ** 2 + 4 * (C // 32) for C in outputs)
cifar = lambda a: network_cost("resnet50", attention=a, image=32, classes=100).parameters
plain_size, size = cifar(None), cifar("ema")
large = network_cost("resnet50", attention="ema")
print(f"added: {added:,}; CIFAR-100: {plain_size:,} and {size:,}; ImageNet: {large.parameters:,}")
assert (added, size - plain_size, large.parameters) == (198_368, added, 25_755_400)

# %% [markdown]
# The module adds 198,368 parameters, 0.20 million, and the network has 23,903,620, which rounds to 23.90, not to
# 23.85. What did they count? Leave out the scales and shifts of *every norm*. A block of inner width $c$ has three
# batch norms of $c$, $c$ and $4c$ channels, each stage a projection with one of $4c$, the stem one of 64; and each
# module has $2d$:

# %%
widths = {64: 3, 128: 4, 256: 6, 512: 3}  # inner width and number of blocks
batch_norms = 2 * (64 + sum(n * 6 * c + 4 * c for c, n in widths.items()))
instance_norms = sum(2 * (C // 32) for C in outputs)
without = size - batch_norms - instance_norms
print(f"{size:,} - {batch_norms:,} - {instance_norms:,} = {without:,}")
assert (plain_size, size, batch_norms, without) == (23_705_252, 23_903_620, 53_120, 23_849_556)
assert f"{plain_size / 1e6:.2f}, {without / 1e6:.2f}" == "23.71, 23.85"

# %% [markdown]
# That gives 23.85. The plain network's 23.71 has its norms in. So the printed "+0.14" subtracts a number with norms
# from one without. It is a deduction, from two printed numbers that come out to the last digit; the true difference
# is 0.20 million.
#
# ### The convolution that need not be done
#
# Back to (15.8). The near branch enters the gate only as $\sum_c a_{1c} X_{2c}$ and through the mean $m_2$. Both the
# convolution and this sum are linear, so the channels can be summed *before* the convolution is carried out; and
# since $a_1$ is the same for all groups and images, once for all of them:
#
# $$\sum_c a_{1c}\, X_{2c} = \sum_k \kappa_k * X_k + a_1^\top b_3, \qquad \kappa_k(a, b) = \sum_c a_{1c}\, W_{3,ck}(a, b) \tag{15.14}$$
#
# where $*$ is the 3 x 3 window sum of (15.4). A convolution from $d$ channels to $d$, of which a weighted sum is
# taken, is a convolution from $d$ channels to **one**.
#
# ### Exercise 15.3 · one output channel · *Depth* · 10 minutes
#
# Write the kernel and the bias of (15.14). `W_3` is (d, d, 3, 3), with the output channel first; `b_3` and `a` are
# (d,). Return the pair (kernel, bias), ready for `F.conv2d`: of shapes (1, d, 3, 3) and (1,).
#
# <details><summary>Hint 1</summary>
#
# Which axis of `W_3` does the sum in (15.14) run over? It is the one that $a_1$ belongs to: what the convolution
# puts *out*.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `a[:, None, None, None] * W_3` weighs the output channels. Sum over axis 0 and keep the axis.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `kernel = (a[:, None, None, None] * W_3).sum(0, keepdim=True)` and `bias = (a * b_3).sum(0, keepdim=True)`.
#
# </details>

# %% tags=["exercise"]
def one_kernel(W_3, b_3, a):
    """W_3 (d, d, 3, 3), b_3 and a (d,) -> a kernel (1, d, 3, 3) and a bias (1,)."""
    raise NotImplementedError

one_kernel = check("15.3", one_kernel)

# %% tags=["solution"]
def one_kernel(W_3, b_3, a):
    kernel = (a[:, None, None, None] * W_3).sum(0, keepdim=True)
    return kernel, (a * b_3).sum(0, keepdim=True)

# %%
fixed, X_maps = first_softmax(g_n, b_n), far(module, maps)[0].detach()
from_many = torch.einsum("d,ndhw->nhw", fixed, F.conv2d(X_maps, M_3, c_3, padding=1))
from_one = F.conv2d(X_maps, *one_kernel(M_3, c_3, fixed), padding=1)[:, 0]
assert torch.allclose(from_many, from_one, rtol=0, atol=1e-12)  # (15.14)

# %% [markdown]
# That leaves $m_2$, the mean of $X_2$ over all places, which looks as if it needed all of $X_2$. It does not. A mean
# is linear, so sum (15.4) over the places first and over the window afterwards:
#
# $$m_{2c} = b_{3,c} + \frac{1}{HW} \sum_k \sum_{a,b} W_{3,ck}(a, b)\, T_k(a, b), \qquad T_k(a, b) = \sum_{i,j} X_k(i + a,\, j + b) \tag{15.15}$$
#
# $T_k(a,b)$ is the sum of channel $k$, seen through a window that is moved by $(a, b)$, with zeros outside. For
# $a = b = 0$ it is the total. For $a = -1$ the window looks one row up: it never reaches the last row, which is left
# out of the sum, and what it gets instead is the row of zeros above the map. For $a = +1$ the *first* row is left
# out; and likewise for columns. Where both a row and a column are left out, total minus row minus column has taken
# the corner pixel away twice, and it must be given back once. Nine numbers a channel, from a total, two rows, two
# columns and four corners.
#
# With a pencil, for channel 0 of the example, $\begin{pmatrix} 1 & 2 \\ 3 & 2 \end{pmatrix}$: the total is 8, the
# last row 5, the last column 4, their corner 2. So $T(-1, -1) = 8 - 5 - 4 + 2 = 1$: of the four pixels the window
# moved up and left sees only the first.
#
# ### Exercise 15.4 · nine window sums · *Depth* · 15 minutes
#
# `X` is (n, d, h, w). Return $T$ as (n, d, 3, 3), where index 0, 1, 2 stands for the offsets $-1, 0, 1$: first the
# rows' offset $a$, then the columns' offset $b$. (Nine slices are the shortest way, subtraction the quickest: it
# reads the map once. Both are right.)
#
# <details><summary>Hint 1</summary>
#
# $T(a, b)$ is the sum of a piece of the map: all rows but the last, all rows, or all rows but the first; and the
# same for columns.
#
# </details>
# <details><summary>Hint 2</summary>
#
# By slices: `slice(None, -1)`, `slice(None)` and `slice(1, None)` do for both axes, and the sum of a piece is
# `X[:, :, rows, columns].sum((2, 3))`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Collect the nine sums with `rows` in the outer and `columns` in the inner loop, `torch.stack(sums, 2)`, and
# `.unflatten(2, (3, 3))`. The solution below goes by subtraction: what is left out for $a$ is the last row, nothing,
# or the first row.
#
# </details>

# %% tags=["exercise"]
def window_sums(X):
    """X (n, d, h, w) -> the nine sums of each channel, (n, d, 3, 3)."""
    raise NotImplementedError

window_sums = check("15.4", window_sums)

# %% tags=["solution"]
def window_sums(X):
    left_out = torch.tensor([1, 0, 1], dtype=X.dtype)  # nothing for the middle offset
    rows = torch.stack([X[:, :, -1], X[:, :, 0], X[:, :, 0]], 2) * left_out[:, None]  # n d 3 w
    columns = torch.stack([X[..., -1], X[..., 0], X[..., 0]], 3) * left_out  # n d h 3
    corners = rows[..., [-1, 0, 0]] * left_out  # taken away twice
    total = X.sum((2, 3))[..., None, None]
    return total - rows.sum(3)[..., None] - columns.sum(2)[:, :, None] + corners

# %%
assert window_sums(X[None])[0, 0].tolist() == [[1, 3, 2], [4, 8, 4], [3, 5, 2]]
m_2_of = c_3 + torch.einsum("ckab,nkab->nc", M_3, window_sums(X_maps)) / (4 * 5)
by_convolution = F.conv2d(X_maps, M_3, c_3, padding=1).mean((2, 3))
assert torch.allclose(m_2_of, by_convolution, rtol=0, atol=1e-12)  # (15.15)

# %% [markdown]
# Together: the whole module without a convolution from $d$ to $d$ channels. It has the same layers, and so the same
# parameters; only the order of the sums is another.

# %%
class Folded(EfficientMultiScaleAttention):
    def forward(self, x):
        X, _, x_1 = far(self, x)
        W_3, b_3 = self.conv_3x3.weight, self.conv_3x3.bias
        near = F.conv2d(X, *one_kernel(W_3, b_3, self.norm.bias.softmax(0)), padding=1)
        m_2 = b_3 + torch.einsum("ckab,nkab->nc", W_3, window_sums(X)) / X[0, 0].numel()
        A = near + (wide(m_2.softmax(1)) * x_1).sum(1, keepdim=True)
        return (X * A.sigmoid()).reshape(x.shape)

# %% [markdown]
# It must be the same function of the image *and* of every weight, so we compare the output and all gradients with the
# library's module. Both are in float64; they may differ by rounding.

# %%
folded = Folded(6, groups=2).double()
folded.load_state_dict(module.state_dict())
compared, image = [], maps.clone().requires_grad_()
for net in (module, folded):
    y_net = net(image)
    compared.append([y_net, *torch.autograd.grad(y_net, [image, *net.parameters()], upstream)])
gaps = [(a - b).abs().max() / b.abs().max() for a, b in zip(*compared, strict=True)]
assert len(gaps) == 8 and max(gaps) < 1e-12

# %% [markdown]
# For each group of an image that takes $9d$ multiplications a place for the one kernel in the place of $9d^2$, and
# $9d^2$ for the nine sums. (The kernel itself, $9d^2$, is made once for the whole batch and all groups; we leave it
# out.)
#
# $$\mathrm{MACs} = G\, \big( d^2 (H + W) + 9\, d\, HW + 9\, d^2 \big) \tag{15.16}$$
#
# **Predict** what is left of the 938,377,216 multiplications that the sixteen modules of a ResNet-50 spend on an
# image of 224 x 224.

# %%
for C, G, H, W in [(64, 8, 7, 5), (96, 4, 6, 9)]:
    d = C // G
    macs = count_macs(Folded(C, groups=G), torch.zeros(1, C, H, W))
    formula = G * (d**2 * (H + W) + 9 * d * H * W + 9 * d**2)
    assert formula <= macs <= formula + 9 * d**2 + d  # (15.16), and making the kernel

# %%
stages = {256: (56, 3), 512: (28, 4), 1024: (14, 6), 2048: (7, 3)}  # side and number of blocks
library = folded_total = 0
for C, (side, n) in stages.items():
    d, places = C // 32, side * side
    library += n * 32 * d**2 * (2 * side + 9 * places)
    folded_total += n * 32 * (d**2 * 2 * side + 9 * d * places + 9 * d**2)
print(f"{library:,} -> {folded_total:,} ({library / folded_total:.0f} times less)")
assert library == large.formula.macs == 938_377_216

# %% [markdown]
# And in time? As in 08 we hold both against the cost floor, `x * x.mean((2, 3), keepdim=True)`: read the map, read
# it again, write it.

# %%
from attnlib.lab.cost import saved_bytes, time_against_floor

stage_maps = {C: torch.randn(1, C, side, side) for C, (side, _) in stages.items()}
times = {name: [time_against_floor(kind(C), stage_maps[C], repeats=7) for C in stages]
         for name, kind in {"as published": EfficientMultiScaleAttention, "folded": Folded}.items()}

# %%
ax = plt.subplots(figsize=(5.4, 2.6))[1]
for n, (name, color) in enumerate({"as published": "grey", "folded": "C0"}.items()):
    ax.bar(torch.arange(4) + 0.4 * n - 0.2, times[name], 0.38, label=name, color=color)
ax.set_xticks(range(4), [f"{C} x {side}²" for C, (side, _) in stages.items()])
ax.axhline(1, color="black", ls="--"), ax.legend()
ax.set(xlabel="channels x pixels", ylabel="time / cost floor")
show(ax.figure, alt="Bars of the forward time over the cost floor on four stages of a ResNet-50, "
     "as published and folded: both many times the floor.")

# %%
map_bytes = 4 * stage_maps[256].numel()
kept = [saved_bytes(kind(256), stage_maps[256]) / map_bytes
        for kind in (EfficientMultiScaleAttention, Folded)]
print("kept for the backward pass, in maps of the input's size:", [f"{k:.1f}" for k in kept])
assert 5 < kept[0] < 5.5 and 3 < kept[1] < 3.5
quicker = [slow / quick for slow, quick in zip(*times.values(), strict=True)]
print("on most stages less than half of the factor 14 is seen:", sorted(quicker)[2] < 7)

# %% [markdown]
# **What to see** (the heights are those of one machine, and change from run to run). Both forms are far above the
# floor, and little of the factor 14 is to be seen: in our runs the folded form was sometimes no quicker at all, and
# never more than three times. The 3 x 3 convolution takes only a part of the time; much goes into passing over the map
# for the product with the sigmoids, the norm, the products with shares and the gate, each of which reads and writes a
# whole map. And timed alone, on the largest of the four maps, a convolution to one channel with the nine sums took as
# long as the one to eight. What the folded form does save is memory in training: 3.2 maps of the input's size are kept
# in the place of 5.2, since $X_2$ is never made.
#
# Fewer multiplications are not always less time; 08 said so of SE. So the library keeps the published form, which can
# be read next to the paper, and whose multiplications are those that published networks spend. Trained weights do not
# decide it: `Folded` has the same parameters under the same names, so it loads them as they are.

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# Groups share weights but not news. That is the one thing about this module that a proof can get hold of, so we build
# a task around it. Cut every card into four **sheets** of 16 x 8 pixels: the digits of side 0, the digits of side 1,
# the upper half of side 0 and the upper half of side 1. The square is now on one of the last two sheets, the *marks*.
# The network gets the four sheets as four channels, its convolutions are grouped so that four channels of the 16 look
# at each, and multi-scale attention has $G = 2$ groups of eight. The only thing we vary is the **order of the
# sheets**:
#
# | order | first group | second group |
# |---|---|---|
# | together | digits 0, mark 0 | digits 1, mark 1 |
# | apart | digits 0, digits 1 | mark 0, mark 1 |

# %%
from attnlib.lab.images import Images

ORDERS = {"together": [0, 2, 1, 3], "apart": [0, 1, 2, 3]}

def sheets(cards, order):
    images = torch.zeros(len(cards), 4, 16, 8)
    images[:, :2, 8:], images[:, 2:, :8] = cards.images[:, :, 8:], cards.images[:, :, :8]
    return Images(images[:, ORDERS[order]], cards.labels, cards.classes)

# %%
one_card = [sheets(cards, order).images[0] for order in ORDERS]
fig, axes = plt.subplots(1, 9, figsize=(8.4, 2.1), width_ratios=[1] * 4 + [0.4] + [1] * 4)
axes[4].axis("off")
titles = ["digits 0", "mark 0", "digits 1", "mark 1", "digits 0", "digits 1", "mark 0", "mark 1"]
pictures(torch.cat(one_card), titles, axes=[*axes[:4], *axes[5:]])
show(fig, alt="One card as four sheets in two orders: digits and mark of a side side by side, and "
     "both sheets of digits before both marks.")

# %% [markdown]
# **What a network can do that keeps groups sealed.** Let $X^{(1)}, \dots, X^{(G)}$ be the groups behind the
# convolutions; in our network, each comes from its own sheets alone. The module makes $h(X^{(n)})$ of each group, with
# the same $h$ but without a look at the others, and after it there are only weighted sums (block means and one linear
# layer). So, once training has ended, the ten logits $\ell$ are a sum of what each group has to say:
#
# $$\ell = \ell_0 + \sum_{n=1}^{G} \ell_n\big(X^{(n)}\big) \tag{15.17}$$
#
# With the order *apart*, the digits speak in $\ell_1$ and the marks in $\ell_2$. Then moving the square adds the same
# ten numbers to the logits of every card. 08 showed what follows from that (below its (8.1)): no network of this kind
# is right on more than 3/4 of all cards, whatever the training. With the order *together* the bound does not hold,
# since a group sees its own mark.
#
# **Predict** the accuracy on new cards for both orders: the plain network, SE, multi-scale attention with $G = 2$
# and with $G = 1$ (one group of all 16 channels).

# %%
def sums_agree(net, order):
    images = sheets(new_cards, order).images[:50]
    first, second = images.clone(), images.clone()
    first[:, 2:], second[:, :2] = 0, 0  # what one group gets alone
    with torch.no_grad():
        return torch.allclose(net(images) + net(0 * images), net(first) + net(second), atol=1e-3)

# %%
two_groups = learn(sheets(cards, "together"), make, seed=0, groups=4)
assert sums_agree(two_groups, "together") and sums_agree(two_groups, "apart")  # (15.17)
make_single = lambda: EfficientMultiScaleAttention(16, groups=1)
one_group = learn(sheets(cards, "apart"), make_single, seed=0, groups=4, epochs=1)
assert not sums_agree(one_group, "apart")

# %% [markdown]
# The equation holds for any weights and both orders; what differs is what stands in the groups. Ten seeds of each
# were trained beforehand (`notebooks/runs/15_efficient_multi_scale.py` made the tables and makes them again);
# `two_groups` is one of them. The rule, stated before we look: **we speak of a difference only if every seed of the
# one lies above every seed of the other.**

# %%
from attnlib.lab.data import load_results

sheet_rows = load_results("15_sheets")
seeds = {order: {name: list(rows["accuracy"]) for name, rows in part.groupby("variant", sort=False)}
         for order, part in sheet_rows.groupby("order", sort=False)}
live = accuracy(two_groups, sheets(new_cards, "together"))
near_stored = abs(live - seeds["together"]["G = 2"][0]) < 0.08
print("the live run is near its stored row:", near_stored)

# %%
from attnlib.lab.plots import by_seed

fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for ax, order in zip(axes, ORDERS, strict=True):
    by_seed(seeds[order], ax=ax, highlight="G = 2", limit=0.75, label="")
    ax.set(ylim=(0, 1), title=f"sheets {order}")
axes[0].set_ylabel("accuracy on the test set")
show(fig, alt="Accuracy by seed. Together: plain below 1/2, SE and G = 2 near 0.9, G = 1 less. "
     "Apart: the same, but G = 2 has fallen to the plain network's level.")

# %%
percent = lambda table: {name: round(10 * sum(values)) for name, values in table.items()}
means = {order: percent(table) for order, table in seeds.items()}
print(means)
assert means == {"apart": {"plain": 42, "SE": 87, "G = 1": 76, "G = 2": 39},
                 "together": {"plain": 42, "SE": 87, "G = 1": 77, "G = 2": 88}}

# %%
together, apart = seeds["together"], seeds["apart"]
differ = lambda a, b: min(a) > max(b) or min(b) > max(a)
assert differ(together["G = 2"], apart["G = 2"]) and min(together["G = 2"]) > 0.75
assert not differ(together["G = 2"], together["SE"]) and not differ(apart["G = 2"], apart["plain"])

# %% [markdown]
# **What to see.** The same module, the same data, the same number of weights: with the sheets *together* it reads 88%
# of the new cards, with the sheets *apart* 39%. By the rule that is a difference, and (15.17) says why. By the same
# rule the first cannot be told from SE, nor the second from the network without attention. SE does not care about
# the order, because its two layers mix all channels. With one group of all channels ($G = 1$) the bound does not apply
# either, and the mean lies in between, at 76 and 77%: it hears everything, but it has one map for both digits, and
# they lie at the same place. (That this is the reason is plausible; we did not test it.)
#
# In a deep network a group is not sealed for ever: the next convolution mixes all channels. What the picture says is
# narrower. *Within one block*, multi-scale attention can use only what stands in the same group, and which channels
# share a group is decided by their numbers.

# %% [markdown]
# ### A control: plain digits
#
# Where nothing is to be chosen, does it help? Fifteen seeds, eight epochs, the network of 08 with and without the
# module; the rule is that of 08: **a difference only beyond 2.14 standard errors** of the mean difference seed by
# seed.

# %%
digit_rows = load_results("15_digits").pivot(index="seed", columns="variant", values="accuracy")
gain = 100 * (digit_rows["G = 2"] - digit_rows["plain"])
print(f"{gain.mean():+.1f} points, standard error {gain.sem():.1f}")
assert abs(gain.mean() / gain.sem()) < 2.14
assert (round(gain.mean(), 1), round(gain.sem(), 1)) == (0.3, 0.5)

# %% [markdown]
# $+0.3$ points with a standard error of 0.5: **no difference found.** Real images, and the comparison with all other
# mechanisms, belong to notebook [17_face_off](17_face_off.ipynb).

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Take away one ingredient, or mend one
#
# Back to the cards with their sides in two channels, and to $G = 2$. The table `15_cards` holds ten seeds of each of
# these:
#
# - *published*: the library's module;
# - *same, written short*: $a_1 = \mathrm{softmax}(\beta)$, which by (15.8) is the same function;
# - *$a_1 = 1/d$*: equal shares that cannot even be learnt;
# - *$a_1$ live*: the first softmax looks at the means of $t$, *before* the norm, so that it sees the image (exercise
#   15.5 asks you to write it);
# - *$a_2 = 1/d$*: equal shares in the place of the other softmax, the one that does see the image;
# - *strips only*: $A$ is the mean of the channels of $X_1$; and *3 x 3 only*: $A = a_1^\top X_2$.
#
# All start from the same weights at the same seed, and see the same batches. The rule, stated before we look: five of
# them are compared with *published*, seed by seed, and **we speak of a difference beyond 3.25 standard errors**
# (Student's $t$ for ten seeds, 99% each, so 95% for the five together).
#
# **Predict** the order. And: how far apart will the first two be, seed by seed?

# %%
card_rows = load_results("15_cards").pivot(index="seed", columns="variant", values="accuracy")
NAMES = {"plain": "plain", "G = 2": "published", "a_1 = softmax(beta)": "same,\nwritten short",
         "a_1 = 1/d": "$a_1$ = 1/d", "a_1 live": "$a_1$ live", "a_2 = 1/d": "$a_2$ = 1/d",
         "strips only": "strips\nonly", "3 x 3 only": "3 x 3\nonly"}
near_first = abs(card_accuracy[0] - card_rows.loc[0, "G = 2"]) < 0.12
print("the live run of part 6 is near its stored row:", bool(near_first))

# %%
ax = by_seed({name: list(card_rows[key]) for key, name in NAMES.items()},
             ax=plt.subplots(figsize=(8.6, 3))[1], highlight="published", limit=0.75)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on the cards by seed for eight variants: the published one and the "
     "three others with a changed first softmax near 0.9, equal shares for the second and strips "
     "only near 0.8, 3 x 3 only just above the plain network.")

# %%
against = 100 * card_rows[[*NAMES][2:]].sub(card_rows["G = 2"], axis=0)
errors = against.mean() / against.sem()
for key in against:
    print(f"{key:20} {against[key].mean():+6.1f} points, {errors[key]:+6.1f} standard errors")
assert (errors[["a_1 = 1/d", "a_1 live"]].abs() < 3.25).all()
assert (errors[["a_2 = 1/d", "strips only", "3 x 3 only"]] < -3.25).all()

# %% [markdown]
# **What to see.** First the two that are one function. They differ by 0.2 points on average, which is nothing, but
# seed by seed by up to 4.8 points: the same numbers in another order of summation round differently, and eight epochs
# of training in single precision blow that up. (In double precision, over 40 steps, part 4 saw none.) **So this is
# the noise in which everything else has to be seen: not even the same function gives the same accuracy.**
#
# Measured against that, the *first* softmax: fixed at $1/d$ it costs 1.6 points, given something to see 0.2. **No
# difference found**, where the rule would have needed 6.2 points for the one and 3.8 for the other; smaller effects ten
# seeds cannot show. On the digits of part 9, over 15 seeds, the live softmax is ahead by 0.5 points with a standard
# error of 0.4: the same finding. The *second* softmax does matter: equal shares in its place cost 9.7 points. Strips
# alone lose 12.7 points, and the near branch alone 36.8: without strips, norm and $a_2$ no gate hears anything beyond
# its 3 x 3 window.

# %%
assert against["a_1 = softmax(beta)"].abs().max().round(1) == 4.8
assert against.mean().round(1).to_dict() == {
    "a_1 = softmax(beta)": -0.2, "a_1 = 1/d": -1.6, "a_1 live": -0.2,
    "a_2 = 1/d": -9.7, "strips only": -12.7, "3 x 3 only": -36.8}
assert (3.25 * against.sem()[["a_1 = 1/d", "a_1 live"]]).round(1).tolist() == [6.2, 3.8]
on_digits = 100 * (digit_rows["a_1 live"] - digit_rows["G = 2"])
assert (round(on_digits.mean(), 1), round(on_digits.sem(), 1)) == (0.5, 0.4)

# %% [markdown]
# ### How many groups?
#
# The same table holds $G = 1, 2, 4, 8$ and $16$ for 16 channels; that is $d = 16, 8, 4, 2$ and 1. Each group sees one
# side of the card, except with $G = 1$, where one group holds both. The number of parameters falls from 2,624 to 14.
#
# **Predict:** does finer grouping help, since each group gets a map of its own?

# %%
by_groups = {f"G = {G}": list(card_rows[f"G = {G}"]) for G in (1, 2, 4, 8, 16)}
ax = by_seed(by_groups, ax=plt.subplots(figsize=(6, 2.8))[1], highlight="G = 2", limit=0.75)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on the cards by seed for 1 to 16 groups: highest and most even at 2,"
     " then falling and spreading out to 16.")

# %%
passing = [sum(value > 0.75 for value in values) for values in by_groups.values()]
sizes = [count_parameters(EfficientMultiScaleAttention(16, groups=G)) for G in (1, 2, 4, 8, 16)]
assert passing == [10, 10, 8, 6, 2] and (sizes[0], sizes[-1]) == (2624, 14)
assert max(by_groups, key=lambda name: sum(by_groups[name])) == "G = 2"

# %% [markdown]
# **What to see.** The mean is highest for $G = 2$, whose groups are the two sides. From there on the number of seeds
# that pass the 3/4 falls: 10, 8, 6, 2 of ten. With $d = 1$ both softmaxes are 1, and the one channel of a group has
# to be the evidence for the square and the thing that is gated; narrow groups are cheap, but they leave little to
# weigh. Whether that is the reason we did not test. Finer is not better, at any rate.

# %% [markdown]
# ## 11 · Four things called EMA · *Depth*
#
# This notebook owns no row of the course's list of claims. But three letters stand for four things in this field,
# they meet in the same networks, and articles mix them up (notebooks [06_moving_averages](06_moving_averages.ipynb)
# and [16_hrnet](16_hrnet.ipynb) put such claims on trial). One cell for each, with the property that tells it from
# the others.
#
# | what | averages or weighs | its weights depend on | memory between calls | in the course |
# |---|---|---|---|---|
# | exponential moving average | past values of a series | age alone | the running average | [06_moving_averages](06_moving_averages.ipynb) |
# | weight average | a network's own past weights | age alone | the averaged copy | [16_hrnet](16_hrnet.ipynb) |
# | efficient multi-scale attention | the places of each group | the present image | none | here |
# | expectation-maximisation attention | $K$ bases, for each place | the present image | the bases, moved by a moving average | [14](14_non_local.ipynb) |
#
# **1. The moving average** $m_t = \alpha z_t + (1 - \alpha) m_{t-1}$ of a series $z$ gives the value of age $k$ the
# weight $\alpha(1 - \alpha)^k$, whatever the values are:

# %%
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

average = get_ema_multi_avg_fn(0.9)  # for the second meaning
alpha, series, running = 0.3, torch.randn(50).double(), 0.0
for value in series:
    running = alpha * value + (1 - alpha) * running
age = torch.arange(50).flip(0)
assert torch.allclose(running, (alpha * (1 - alpha) ** age * series).sum())

# %% [markdown]
# **2. The weight average** watches a training and takes no part in it. With it or without it, the trained weights
# are the same to the last bit; the average is a second network beside them:

# %%
def trained(watched):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    copy, descent = AveragedModel(net, multi_avg_fn=average), torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(20):
        net.zero_grad(), net(torch.randn(8, 4)).square().mean().backward()
        descent.step(), watched and copy.update_parameters(net)
    return net.weight, copy.module.weight

# %%
(unwatched, _), (watched, averaged) = trained(False), trained(True)
assert torch.equal(unwatched, watched) and not torch.allclose(averaged, watched)

# %% [markdown]
# **3. Multi-scale attention** keeps nothing. Its second call on an image gives what the first gave, whatever came
# between, and its gate is another one for another image:

# %%
before = module.weights(maps)
module(torch.randn(3, 6, 2, 2).double())
assert torch.equal(module.weights(maps), before)
assert not torch.allclose(module.weights(maps.flip(0)), before)

# %% [markdown]
# **4. Expectation-maximisation attention** shares every place out among $K$ bases and rebuilds the map from them, so
# the rebuilt map has the rank $K$ at most. Its bases are moved by meaning number 1:
# $\mu \leftarrow 0.9\,\mu + 0.1\,\mu_{\text{batch}}$. So one EMA works inside another:

# %%
from attnlib import ExpectationMaximizationAttention

unit = ExpectationMaximizationAttention(6, bases=2).double()
shares_of, found = unit.expectation_maximization(maps)
assert torch.allclose(shares_of.sum(2), torch.ones(2, 20).double())
assert torch.linalg.matrix_rank(shares_of @ found).max() <= 2
old_bases = unit.mu.clone()
unit.update_bases(maps)
assert torch.allclose(unit.mu, 0.9 * old_bases + 0.1 * found.mean(0))

# %% [markdown]
# ## 12 · Exercises
#
# 15.1 and 15.2 stand in part 4, 15.3 and 15.4 in part 8. Here is one that asks for something new.
#
# ### Exercise 15.5 · bug gallery · *Depth* · 15 minutes
#
# This is the end of the published forward pass: `t` is what goes into the norm and `x_2` the near branch, both of
# shape (n, d, h, w) with the groups folded into `n`. It runs, it trains, and one of its two softmaxes never sees the
# image. **Mend it with the smallest change**: let the first softmax look at the means of what goes *into* the norm.
# Return the gate, of shape (n, h, w).
#
# ```python
# def gate(t, x_2, gamma, beta):
#     x_1 = F.group_norm(t, t.shape[1], gamma, beta)
#     a_1 = x_1.mean((2, 3)).softmax(1)
#     a_2 = x_2.mean((2, 3)).softmax(1)
#     A = torch.einsum("nd,ndhw->nhw", a_1, x_2) + torch.einsum("nd,ndhw->nhw", a_2, x_1)
#     return A.sigmoid()
# ```
#
# <details><summary>Hint 1</summary>
#
# By (15.8) the second line of the body gives $\mathrm{softmax}(\beta)$. Which tensor with the same channels has
# means that the norm has not taken away yet?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Only what is pooled changes. The norm stays, and so does the far branch `x_1` in the second product.
#
# </details>
# <details><summary>Hint 3</summary>
#
# One word of the second line: `t.mean((2, 3)).softmax(1)` in the place of `x_1.mean((2, 3)).softmax(1)`.
#
# </details>

# %% tags=["exercise"]
def seeing_gate(t, x_2, gamma, beta):
    """t and x_2 (n, d, h, w), gamma and beta (d,) -> the gate (n, h, w)."""
    raise NotImplementedError

seeing_gate = check("15.5", seeing_gate)

# %% tags=["solution"]
def seeing_gate(t, x_2, gamma, beta):
    x_1 = F.group_norm(t, t.shape[1], gamma, beta)
    a_1, a_2 = t.mean((2, 3)).softmax(1), x_2.mean((2, 3)).softmax(1)
    A = torch.einsum("nd,ndhw->nhw", a_1, x_2) + torch.einsum("nd,ndhw->nhw", a_2, x_1)
    return A.sigmoid()

# %% [markdown]
# The price of the mend: $a_1$ now differs from image to image, so the kernel of (15.14) has to be made for each
# group of each image, which costs $9d^2$ each. It can still be done, since the sum over channels may still be taken
# before the convolution; part 8 did not need a *constant* $a_1$, only one that is known beforehand.

# %%
X_g, t_g, _ = far(module, maps)
seen = shares(t_g)
each = torch.stack([F.conv2d(X_n, *one_kernel(M_3, c_3, a), padding=1)[0]
                    for X_n, a in zip(X_g, seen, strict=True)])
x_2_g = module.conv_3x3(X_g)
assert torch.allclose(each, (wide(seen) * x_2_g).sum(1))
mended = seeing_gate(t_g, x_2_g, g_n, b_n)
assert not torch.allclose(mended, module.weights(maps).view(4, 3, 4, 5)[:, 0])

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here |
# |---|---|---|
# | strips | row means $r_c(i)$, column means $q_c(j)$ | (15.1) |
# | far branch | $t = X\, \sigma(u)\, \sigma(v)$, then $X_1 = \gamma\, \hat t + \beta$ | (15.2), (15.3) |
# | near branch | $X_2 = $ 3 x 3 convolution of $X$ | (15.4) |
# | cross product | $A = a_1^\top X_2 + a_2^\top X_1$, $\;y = \sigma(A)\, X$ | (15.6), (15.7) |
# | the first softmax | $a_1 = \mathrm{softmax}(\beta)$ | (15.8) |
# | price | $10 d^2 + 4d$; $\;G d^2 (H + W + 9HW)$ | (15.13) |
# | the same, folded | one output channel, nine window sums | (15.14), (15.15) |
# | sealed groups | $\ell = \ell_0 + \sum_n \ell_n(X^{(n)})$ | (15.17) |
#
# Of the paper we read the abstract; the equations follow the released code, and their letters and numbers are ours.
#
# - Multi-scale attention gives each group of channels one map of gates. It sees the whole map of its own group,
#   nothing of any other, and cannot turn the channels of a group against each other.
# - Instance norm takes the mean away, so the softmax of that mean is a learnt constant. Replacing it by
#   $\mathrm{softmax}(\beta)$ changes neither outputs nor gradients nor training.
# - Therefore the 3 x 3 convolution needs one output channel and nine window sums: $9d$ multiplications a place in the
#   place of $9d^2$, and 14 times fewer in a ResNet-50. We saw memory saved, but much less time than multiplications.
# - On cards whose sheets lie in the right groups we could not tell it from SE; with the same sheets in other groups, not
#   from no attention, and (15.17) says why.
# - A first softmax that sees the image made no difference that we could find, on two tasks. The second one does
#   matter. And the same function, written in another way, differs by up to 4.8 points a seed.
# - Its 198,368 parameters in a ResNet-50 were printed as 0.14 million, because one of two numbers left out the norms.
# - On plain digits we found no difference, over 15 seeds.
#
# **Sources.** Ouyang et al., arXiv 2305.13563, and the authors' repository YOLOonMe/EMA-attention-module (the module,
# its default of 32 groups, its check of the sizes, the table with 23.71 M and 23.85 M); Hou, Zhou, Feng, *Coordinate
# Attention for Efficient Mobile Network Design*, arXiv 2103.02907 (the strips); Ulyanov, Vedaldi, Lempitsky,
# *Instance Normalization*, arXiv 1607.08022; Wu and He, *Group Normalization*, arXiv 1803.08494; Li et al., arXiv
# 1907.13426 (EM attention).
#
# **Back:** [14_non_local](14_non_local.ipynb) · **Next:** [16_hrnet](16_hrnet.ipynb), where this module, and the
# average of weights that shares its three letters, meet in one network. The map of the course is in
# [00_start_here](00_start_here.ipynb).
