# %% [markdown]
# # 12 · Normalization-based attention (NAM)
#
# **The question.** Notebook 08 paid $2C^2/r$ weights to learn how much each channel counts. A network with batch
# normalisation already holds one number for each channel that says how much the channel varies: the scale $\gamma$.
# Can attention be had from that number alone?
#
# **The answer in one sentence.** NAM passes the map through a batch norm of its own, weighs each channel by its share
# of $|\gamma|$, takes a sigmoid at every pixel and multiplies by it; that costs $2C$ parameters, but once training
# has ended no pixel's gate sees anything except that pixel, so the block is an activation function with a learnt
# slope, not an exchange between places or channels.
#
# **Paper.** Yichao Liu, Zongru Shao, Yueyang Teng, Nico Hoffmann: *NAM: Normalization-based Attention Module*,
# NeurIPS 2021 workshop, [arXiv 2111.12419](https://arxiv.org/abs/2111.12419).
#
# **Time.** Core 95 minutes (parts 1-4, 6, 9 and exercises 12.1 and 12.2) · Depth 140 minutes (the rest).
#
# **Prerequisites.** The toolbox page on [batch
# normalisation](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass) above all; also
# [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products). Notebook
# [08](08_squeeze_and_excitation.ipynb) has the cards, the small network and the gate that we compare with. The
# course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x_c(i,j)$ is channel $c$ at row $i$, column $j$ |
# | $\mu_c, v_c$ | $C$ | mean and variance that the batch norm uses: in training those of the batch, in eval the running ones |
# | $\rho_c$ | $C$ | $\sqrt{v_c + \epsilon}$ with $\epsilon = 10^{-5}$ |
# | $\hat x$ | as $x$ | $(x_c - \mu_c)/\rho_c$, the normalised map |
# | $\gamma, \beta$ | $C$ | scale and shift of the batch norm, learnt |
# | $w$ | $C$ | the **weights**: each channel's share of $\lvert\gamma\rvert$ |
# | $\ell, s$ | as $x$ | the gate before and after its sigmoid, $s = \sigma(\ell)$ |
# | $y$ | as $x$ | the feature map that goes out |
# | $a, b$ | $C$ | slope and offset of the gate in eval, part 4 |
# | $\lambda, \tau$ | $HW$ | scales and shifts of the pixel branch, one of each for each place, part 4 |
# | $p$ | | strength of a penalty on scales, parts 2 and 10 |
#
# $\sigma(t) = 1/(1+e^{-t})$ is the logistic sigmoid, as in 08; so the variance, $\sigma^2$ in the toolbox, is called
# $v$ here. In 08, $a$ and $b$ are a hidden layer and biases, and $v$ is a logit.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **12.a** In training, a channel leaves its batch norm with $\gamma = -3$ and $\beta = 1$. What is the standard
# deviation of the numbers that come out? (a) $-3$ · (b) 3 · (c) 9 · (d) 1 · (e) it depends on the numbers that come
# in
#
# **12.b** In eval, what does one number that a batch norm puts out depend on? (a) all images of the batch · (b) all
# pixels of its channel · (c) the one number that came in at its place · (d) all channels at its pixel · (e) nothing,
# it is a constant
#
# **12.c** The sigmoid has the slope $1/4$ at 0. How large, roughly, is $\sigma(0.02)$? (a) 0.02 · (b) 0.505 · (c)
# 0.52 · (d) 0.25 · (e) 1.02

# %% tags=["exercise"]
check("12.a", ...)
check("12.b", ...)
check("12.c", ...)

# %% tags=["solution"]
check("12.a", "b")
check("12.b", "c")
check("12.c", "b")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# Which of a network's channels matter? SE lets two layers of weights find out, image by image. There is an older,
# cheaper idea from the art of making networks smaller. In training, a batch norm gives every channel the same footing
# and then stretches it by $\gamma_c$. Here is what that says, to the letter. The normalised $\hat x_c$ has the mean
# 0. Its variance is the mean of $(x_c - \mu_c)^2/(v_c + \epsilon)$ over the batch and the pixels, and the mean of
# $(x_c - \mu_c)^2$ is $v_c$ itself. So the variance of $\hat x_c$ is $v_c/(v_c + \epsilon)$, and what leaves the
# norm, $\gamma_c \hat x_c + \beta_c$, has
#
# $$\text{the standard deviation} \quad |\gamma_c| \sqrt{\frac{v_c}{v_c + \epsilon}} \tag{12.1}$$
#
# The root is 1 but for $\epsilon$. So in training **$|\gamma_c|$ is the standard deviation of the channel behind the
# norm**, whatever the convolution before it does. A channel with a tiny $|\gamma_c|$ hardly varies and can tell the
# next layer hardly anything.

# %%
column = lambda v: v[:, None, None]
some, (gamma, beta) = torch.randn(5, 3, 4, 2).double(), torch.randn(2, 3).double()
some[:, 0] /= 1000  # a channel so faint that eps counts
variance = some.var((0, 2, 3), correction=0)
deviation = F.batch_norm(some, None, None, gamma, beta, training=True).std((0, 2, 3), correction=0)
assert torch.allclose(deviation, gamma.abs() * (variance / (variance + 1e-5)).sqrt())  # (12.1)
assert deviation[0] < 0.5 * gamma[0].abs()

# %% [markdown]
# *Network Slimming* (Liu et al. 2017, [arXiv 1708.06519](https://arxiv.org/abs/1708.06519)) turns this into a tool:
# add a penalty $p \sum_c |\gamma_c|$ to the loss, so that the network keeps a scale large only where that pays, and
# afterwards remove the channels whose scale has gone to nothing. We do it with the course's small network on
# handwritten digits (two convolutions to 16 channels, the second followed by a batch norm and a ReLU, then block
# means and one linear layer; 08 describes it).

# %%
from attnlib.lab.data import load_digits
from attnlib.lab.small_network import SmallNetwork
from attnlib.lab.training import accuracy, classification_loss, train

digits, new_digits = load_digits("train"), load_digits("test")

# %%
def learn_with(penalty, make=lambda: None, seed=0):
    torch.manual_seed(seed)
    net = SmallNetwork((1, 8, 8), 10, attention=make())
    loss = lambda model, batch: classification_loss(model, batch) + penalty(model)
    recipe = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}
    train(net, digits, **recipe, seed=seed, loss=loss, progress=False)
    return net

# %% [markdown]
# **Predict before you go on:** the scales start at 1. After training without a penalty, will they differ a lot
# between the channels, or little? And with $p = 0.03$? With the penalty, how much accuracy will be left if the six
# channels with the *largest* scales are removed (set to zero behind the ReLU)? And without the six with the
# *smallest*?

# %%
free = learn_with(lambda net: 0)
slim = learn_with(lambda net: 0.03 * net.norm.weight.abs().sum())

@torch.no_grad()
def share_without(net, channels):
    out = net.attention(net.features(new_digits.images))
    out[:, channels] = 0
    logits = net.read(F.avg_pool2d(out, 4).flatten(1))
    return (logits.argmax(1) == new_digits.labels).double().mean().item()

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True)
for ax, net, title in zip(axes, (free, slim), ("no penalty", "penalty, p = 0.03"), strict=True):
    ax.bar(range(16), net.norm.weight.detach().abs(), color="grey")
    ax.set(xlabel="channel", title=title, xticks=range(0, 16, 3))
axes[0].set(ylabel="|gamma|")
show(fig, alt="Bars of the absolute scales of 16 channels. Without a penalty all lie near 2; with "
     "it they run from nearly 0 to nearly 1.")

# %%
ranked = slim.norm.weight.detach().abs().argsort().tolist()
without_small, without_large = (share_without(slim, six) for six in (ranked[:6], ranked[-6:]))
print(f"right of ten without the six smallest: {10 * without_small:.0f}")
print(f"right of ten without the six largest:  {10 * without_large:.0f}")
spread = [net.norm.weight.abs().max() / net.norm.weight.abs().min() for net in (free, slim)]
assert spread[0] < 1.5 and spread[1] > 10
assert without_small > 0.8 > 0.3 > without_large

# %% [markdown]
# **What to see.** Left, all scales are near 2; if their order says anything, it is not much. Right, the penalty has
# spread them out, and the number means a good deal: without the six channels of the smallest scales the network still
# reads most digits, without the six of the largest it is lost. (Part 10 measures both, the left network too, over
# fifteen seeds.)
#
# Network Slimming *removes*. NAM takes the same number to **weigh**: give every channel a gate whose strength is its
# share of $|\gamma|$. Keep the two panels in mind. Whether the idea can work depends on what spreads the scales out,
# and on what a small share does to a channel.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil, and the feature map of four channels that all notebooks of Part II use. Suppose that training has
# left the batch norm with these numbers (and put $\epsilon = 0$ while you work by hand):
#
# | channel | $\mu$ | $v$ | $\gamma$ | $\beta$ |
# |---|---|---|---|---|
# | 0 | 2 | 1 | 4 | 0 |
# | 1 | 1 | 1 | 2 | 2 |
# | 2 | $-1$ | 1 | $-1$ | 0 |
# | 3 | 1 | 9 | 1 | 0 |

# %%
from attnlib.lab.data import example_feature_map
from attnlib.lab.plots import heatmap

x = example_feature_map()
mu, v = torch.tensor([2, 1, -1, 1]).double(), torch.tensor([1, 1, 1, 9]).double()
GAMMA, BETA = torch.tensor([4, 2, -1, 1]).double(), torch.tensor([0, 2, 0, 0]).double()
for c in range(4):
    print(f"channel {c}:", x[0, c].int().tolist())

# %% [markdown]
# ### Normalise
#
# The first step is the batch norm in eval, with the running statistics:
#
# $$\mathrm{BN}(x)_c = \gamma_c\, \frac{x_c - \mu_c}{\sqrt{v_c + \epsilon}} + \beta_c \tag{12.2}$$
#
# Channel 0 is $4(x - 2)$: its pixels 1, 2, 3, 2 become $-4, 0, 4, 0$. Channel 1 is $2(x-1) + 2 = 2x$; channel 2 is
# $-(x+1)$; channel 3 is $(x - 1)/3$.

# %%
normed = column(GAMMA) * (x - column(mu)) / column(v).sqrt() + column(BETA)
assert normed[0, 0].flatten().tolist() == [-4, 0, 4, 0]  # (12.2) with eps = 0
assert torch.equal(normed[0, 1], 2 * x[0, 1]) and torch.equal(normed[0, 2], -(x[0, 2] + 1))

# %% [markdown]
# ### Weigh
#
# The weight of a channel is its share of the scales' absolute values:
#
# $$w_c = \frac{|\gamma_c|}{\sum_j |\gamma_j|} \tag{12.3}$$
#
# The sum is $4 + 2 + 1 + 1 = 8$, so $w = (\tfrac12, \tfrac14, \tfrac18, \tfrac18)$. Shares sum to one, and the same
# shares come out if all scales are doubled.

# %%
shares_of = lambda gamma: gamma.abs() / gamma.abs().sum()
w = shares_of(GAMMA)
assert w.tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 8]  # (12.3)
assert w.sum() == 1 and torch.equal(w, shares_of(2 * GAMMA))

# %% [markdown]
# ### Gate and scale
#
# The weighted map goes through a sigmoid, at every pixel by itself, and the input is multiplied by the result:
#
# $$\ell_c = w_c\, \mathrm{BN}(x)_c, \qquad s = \sigma(\ell), \qquad y = s\, x \tag{12.4}$$
#
# Channel 0: $\ell = (-2, 0, 2, 0)$, so $s = (0.119, 0.5, 0.881, 0.5)$. Channel 1: $\ell = x/2$. Channel 2: $\ell =
# -(x+1)/8$. Channel 3: $\ell = (x - 1)/24$. Work out the gates of channel 3 before you run the cell.

# %%
s = torch.sigmoid(column(w) * normed)
y = s * x
assert y[0, 0, 0, 1] == 1  # half of the 2
rounded = [channel.flatten().round(decimals=3).tolist() for channel in s[0]]
assert rounded[0] == [0.119, 0.5, 0.881, 0.5] and rounded[1] == [0.5, 0.622, 0.622, 0.731]  # (12.4)
assert rounded[2] == [0.531, 0.469, 0.5, 0.5] and rounded[3] == [0.531, 0.49, 0.49, 0.49]
print("gates of channel 3:", rounded[3])

# %%
fig, axes = plt.subplots(2, 4, figsize=(8, 3.4))
for row, (name, four) in enumerate({"x": x, "gate": s}.items()):
    for c, ax in enumerate(axes[row]):
        look = {"limits": (0, 1)} if name == "gate" else {"limits": (-4, 4), "signed": True}
        heatmap(four[0, c], ax=ax, numbers=True, colorbar=c == 3, **look)
        ax.set(xticks=[], yticks=[], title=f"{name}, channel {c}")
show(fig, alt="Two rows of four small maps: x and the gates. The gates of channel 0 run from 0.12 "
     "to 0.88 within the channel; those of channels 2 and 3 are all near one half.")

# %% [markdown]
# **What to see.** Three things, and each of them is unlike SE, whose gates for this map in 08 were 0.881, 0.5, 0.119
# and 0.731.
#
# 1. A gate is **not one number for a channel**. Within channel 0 it runs from 0.12 to 0.88. Where a value lies above
# the channel's mean (and $\gamma > 0$, $\beta = 0$) the gate is above 1/2, below the mean it is below.
# 2. A small weight does not shut a channel. Channels 2 and 3 have the smallest weights, and their gates are all
# **near one half**. The weight says how far the gate may move from 1/2, not how far the channel is opened.
# 3. No pixel was asked about any other. Each number in the lower row came from the number above it and four
# constants.

# %% [markdown]
# ## 4 · As code, and as a module · *Core*
#
# ### Exercise 12.1 · the gate · *Core* · 10 minutes
#
# Write the gate (12.4) as it is in eval, now with $\epsilon = 10^{-5}$. `x` is (b, c, h, w), all the others are (c,).
#
# <details><summary>Hint 1</summary>
#
# Three lines: the batch norm (12.2) with the given `mean` and `var`, the shares (12.3), the sigmoid of their product.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A vector (c,) meets a map (b, c, h, w) in the right axis as `v[:, None, None]`, or `column(v)`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `w = gamma.abs() / gamma.abs().sum()`; and `F.batch_norm(x, mean, var, gamma, beta)` is (12.2) in one call.
#
# </details>

# %% tags=["exercise"]
def nam_gate(x, gamma, beta, mean, var):
    """x (b, c, h, w), all others (c,) -> the gate in eval, (b, c, h, w)."""
    raise NotImplementedError

nam_gate = check("12.1", nam_gate)

# %% tags=["solution"]
def nam_gate(x, gamma, beta, mean, var):
    w = gamma.abs() / gamma.abs().sum()
    y = column(gamma) * (x - column(mean)) / torch.sqrt(column(var) + 1e-5) + column(beta)
    return torch.sigmoid(column(w) * y)

# %% [markdown]
# The library's `NormalizationAttention` holds a batch norm and nothing else. We give it the numbers of part 3 and get
# the gates of part 3; then we let a second one, with random numbers, run once in training, so that it has running
# statistics of its own, and hold your function against it.

# %%
from attnlib import NormalizationAttention

module = NormalizationAttention(4).double().eval()
module.channel_norm.eps = 0.0
numbers = {"weight": GAMMA, "bias": BETA, "running_mean": mu, "running_var": v}
module.channel_norm.load_state_dict(numbers, strict=False)
assert torch.allclose(module.weights(x), s) and torch.allclose(module(x), y)

# %%
maps, module = torch.randn(3, 6, 5, 4).double() + 1, NormalizationAttention(6).double()
norm = module.channel_norm
norm.weight.data, norm.bias.data = torch.randn(6).double(), torch.randn(6).double()
module(maps), module.eval()
state = norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var
assert torch.allclose(module.weights(maps), nam_gate(maps, *state))
assert torch.allclose(module(maps), maps * nam_gate(maps, *state))

# %% [markdown]
# Now `audit`, which changes the input and watches what follows. **Predict** what it will say to the question on which
# channels and on which positions a gate depends.

# %%
from attnlib.lab.audit import audit

about_gate = [f for f in audit(module, maps).findings if f.check.startswith("gate")]
assert len(about_gate) > 3
print(*about_gate, sep="\n")

# %% [markdown]
# SE's gate heard the whole map, all places and all channels. Here, in eval, a gate hears its own pixel and nothing
# else.
#
# ### A straight line and a sigmoid
#
# How can an attention see nothing? In eval $\mu_c, v_c, \gamma_c, \beta_c$ and $w_c$ are all constants, so $\ell_c$
# is a straight line in $x_c(i,j)$: there are two numbers for each channel, a slope $a_c$ and an offset $b_c$, with
# $\ell_c = a_c x_c + b_c$.
#
# ### Exercise 12.2 · two numbers for each channel · *Core* · 10 minutes
#
# Write $a$ and $b$, as a pair of tensors (c,), from the four vectors of the batch norm.
#
# <details><summary>Hint 1</summary>
#
# Put (12.2) into $\ell_c = w_c\, \mathrm{BN}(x)_c$ and collect what multiplies $x_c$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With $\rho = \sqrt{v + \epsilon}$: $\;w\,(\gamma (x - \mu)/\rho + \beta) = (w\gamma/\rho)\, x + \dots$ What remains
# is $b$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# $a = w\gamma/\rho$ and $b = w\,(\beta - \gamma\mu/\rho)$, with $w$ of (12.3). Return `a, b`.
#
# </details>

# %% tags=["exercise"]
def swish_form(gamma, beta, mean, var):
    """All (c,) -> the slope a and the offset b of the gate's logit, both (c,)."""
    raise NotImplementedError

swish_form = check("12.2", swish_form)

# %% tags=["solution"]
def swish_form(gamma, beta, mean, var):
    rho = torch.sqrt(var + 1e-5)
    w = gamma.abs() / gamma.abs().sum()
    return w * gamma / rho, w * (beta - gamma * mean / rho)

# %% [markdown]
# So the whole block, once trained, is
#
# $$y = x\, \sigma(a_c\, x + b_c), \qquad a_c = \frac{w_c \gamma_c}{\rho_c}, \qquad
# b_c = w_c \Big(\beta_c - \frac{\gamma_c \mu_c}{\rho_c}\Big) \tag{12.5}$$
#
# at every pixel. The function $x\,\sigma(ax)$ has a name: it is **Swish** (Ramachandran, Zoph, Le 2017, [arXiv
# 1710.05941](https://arxiv.org/abs/1710.05941)), with $a = 1$ also called SiLU, an activation function that one puts
# in the place of a ReLU. NAM in eval is a Swish with a slope and an offset of its own for each channel.

# %%
a, b = swish_form(*state)
assert torch.allclose(module(maps), maps * torch.sigmoid(column(a) * maps + column(b)))  # (12.5)
assert torch.allclose(F.silu(maps), maps * torch.sigmoid(1 * maps + 0))

# %% [markdown]
# The derivative says it once more. Move one pixel $x_{c'}(i',j')$ and watch the output $y_c(i,j)$. With the product
# rule,
#
# $$\frac{\partial y_c(i,j)}{\partial x_{c'}(i',j')} = \begin{cases} s + x\, s (1-s)\, a_c & \text{if } c = c' \text{ and }
# (i,j) = (i',j') \\ 0 & \text{otherwise} \end{cases} \tag{12.6}$$
#
# where $s$ and $x$ are those of the place itself. The Jacobian of the whole block is a diagonal matrix.

# %%
from attnlib.lab.gradients import jacobian

corner = maps[:1, :, :3, :2]
J = jacobian(lambda x: module(x).flatten(), corner).flatten(1)
gate = module.weights(corner).detach()
diagonal = gate + corner * gate * (1 - gate) * column(a)
assert torch.allclose(J, diagonal.flatten().diag())  # (12.6)

# %% [markdown]
# **And in training?** There $\mu_c$ and $v_c$ are those of the batch, so a pixel does reach all other pixels of its
# channel, in all images, through two numbers. It reaches no other channel: $w$ is made of parameters, not of $x$. In
# the picture one pixel of channel 0 moves (the one in the middle of image 0), and the colour is how fast the gates at
# all places follow, without the pixel's own (which follows more than ten times as fast as any of them). **Predict:**
# which of the eight maps will be empty?

# %%
pair, module = torch.randn(2, 2, 5, 5).double(), NormalizationAttention(2).double()
moved = lambda mode: jacobian(module.train(mode).weights, pair)[..., 0, 0, 2, 2]
follow = {"train": moved(True), "eval": moved(False)}
own = follow["eval"][0, 0, 2, 2].item()
assert own > 0.05 and follow["eval"].count_nonzero() == 1
for moves in follow.values():
    moves[0, 0, 2, 2] = 0  # its own gate, which follows in both modes

# %%
assert (follow["train"].flatten(2) != 0).sum(2).tolist() == [[24, 0], [25, 0]]
assert own > 10 * follow["train"].abs().max()

# %%
fig, axes = plt.subplots(2, 4, figsize=(8, 3.6))
for row, mode in zip(axes, follow, strict=True):
    for k, ax in enumerate(row):
        slope, title = follow[mode][k // 2, k % 2], f"image {k // 2}, channel {k % 2}"
        heatmap(slope, ax=ax, limits=(-0.01, 0.01), signed=True, colorbar=k == 3)
        ax.set(xticks=[], yticks=[], ylabel="" if k else mode, title=title)
show(fig, alt="Eight maps of how the gates follow one pixel. In training channel 0 of both images "
     "is coloured and channel 1 is empty; in eval all four maps are empty.")

# %% [markdown]
# **What to see.** Bottom row: empty, as (12.6) says. Top row: in training the pixel changes the gates of its channel
# in *its own and the other image*. That is not attention to the image; it is the side effect of batch statistics that
# the toolbox describes, and it is switched off when the network is used.
#
# ### The pixel branch · *Depth*
#
# The paper also has a spatial half, "pixel normalisation". It is the same with the roles of channels and places
# exchanged. In this section $i$ is no longer a row but counts all $HW$ places: place $i$ has a scale $\lambda_i$ and a
# shift $\tau_i$, and the statistics are taken over the batch **and the channels**. With $\mu'_i$ and $v'_i$ the mean
# and variance of place $i$ over images and channels,
#
# $$s_c(i) = \sigma\bigg(\frac{|\lambda_i|}{\sum_{i'} |\lambda_{i'}|} \Big(\lambda_i \frac{x_c(i) - \mu'_i}{\sqrt{v'_i + \epsilon}} +
# \tau_i\Big)\bigg) \tag{12.7}$$

# %%
module = NormalizationAttention(6, branch="pixel", size=(5, 4)).double()
lam, tau = torch.randn(20).double(), torch.randn(20).double()
module.pixel_norm.weight.data, module.pixel_norm.bias.data = lam, tau
mean_there, var_there = maps.mean((0, 1)), maps.var((0, 1), correction=0)
by_place = ((maps - mean_there) / torch.sqrt(var_there + 1e-5)).flatten(2)
logit = (lam.abs() / lam.abs().sum() * (lam * by_place + tau)).view_as(maps)
assert torch.allclose(module.weights(maps), torch.sigmoid(logit))  # (12.7)

# %% [markdown]
# One scale for each place means that the map's size is fixed for good when the module is built. A network with it
# takes images of one size and no other, and `branch="both"`, which applies the pixel gate behind the channel gate,
# inherits that. In eval, (12.7) is a straight line and a sigmoid again, so both halves together still see nothing but
# the pixel itself.

# %%
both = NormalizationAttention(6, branch="both", size=(5, 4)).double().eval()
try:
    both(torch.randn(2, 6, 6, 4).double())
except ValueError as error:
    print(error)
J = jacobian(lambda x: both(x).flatten(), maps[:1]).flatten(1)
assert torch.equal(J, J.diag().diag())

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# In training three roads lead from the loss back to $\gamma$ and $x$: the product $s\,x$, the batch norm, and the
# weights. The released code closes the third one: it reads $\gamma$ out of the graph (`.data`), so that $w$ counts as
# a constant. The formulas of the paper do not say so. We derive both. Let $g = \partial L/\partial y$ be what
# arrives.
#
# **Product, sigmoid, weight.** From $y = s\,x$ the gate gets $g\,x$; its slope is $s(1-s)$; and $\ell_c = w_c
# \mathrm{BN}(x)_c$ passes $w_c$ times that on to the batch norm:
#
# $$\frac{\partial L}{\partial \ell} = g\, x\, s (1-s), \qquad h_c := \frac{\partial L}{\partial\, \mathrm{BN}(x)_c} =
# w_c \frac{\partial L}{\partial \ell_c} \tag{12.8}$$
#
# **Batch norm.** (5.5) of the toolbox takes $h$ back through the norm, with the batch's own $\mu$ and $v$. A bar is
# the mean over all $B\,H\,W$ numbers of the channel. With the direct road of $x$ added:
#
# $$\frac{\partial L}{\partial \gamma_c}\bigg|_{\mathrm{BN}} = \sum h_c\, \hat x_c, \qquad
# \frac{\partial L}{\partial \beta_c} = \sum h_c, \qquad
# \frac{\partial L}{\partial x_c} = s_c\, g_c + \frac{\gamma_c}{\rho_c} \Big(h_c - \overline{h_c} - \hat x_c\, \overline{h_c \hat x_c}\Big)
# \tag{12.9}$$

# %%
pixels = (0, 2, 3)  # of all images: every axis but that of the channels
normalise = lambda x: F.batch_norm(x, None, None, training=True)  # x_hat

def gate_of(x, gamma, beta, w):
    return torch.sigmoid(column(w) * (column(gamma) * normalise(x) + column(beta)))

# %%
torch.manual_seed(3)
inputs = {"x": torch.randn(3, 4, 2, 3), "gamma": torch.tensor([2, -1, 0.5, 1.5])}
inputs["beta"] = torch.randn(4)
inputs = {name: value.double() for name, value in inputs.items()}
g, frozen = torch.randn(3, 4, 2, 3).double(), shares_of(inputs["gamma"])

# %%
from_norm = column(inputs["gamma"]) * normalise(inputs["x"]) + column(inputs["beta"])
line = column(frozen) * from_norm.requires_grad_()
gate = torch.sigmoid(line)
dl, h = torch.autograd.grad(inputs["x"] * gate, [line, from_norm], g)
assert torch.allclose(dl, g * inputs["x"] * gate * (1 - gate))  # (12.8)
assert torch.allclose(h, column(frozen) * dl)

# %%
def norm_backward(h, x, gamma):
    rho, hat = torch.sqrt(x.var(pixels, keepdim=True, correction=0) + 1e-5), normalise(x)
    kept = h - h.mean(pixels, keepdim=True) - hat * (h * hat).mean(pixels, keepdim=True)
    return column(gamma) / rho * kept, (h * hat).sum(pixels), h.sum(pixels)

# %%
def backward_detached(g, x, gamma, beta):
    w = shares_of(gamma)
    s = gate_of(x, gamma, beta, w)
    dx, dgamma, dbeta = norm_backward(column(w) * g * x * s * (1 - s), x, gamma)
    return {"x": s * g + dx, "gamma": dgamma, "beta": dbeta}

# %% [markdown]
# Of which function is that the gradient? Of one whose weights stay where they are while $\gamma$ moves. Central
# differences show it: with the weights frozen at the present $\gamma$, hand, autograd and differences agree.

# %%
from attnlib.lab.gradients import compare_gradients

table = compare_gradients(lambda x, gamma, beta: x * gate_of(x, gamma, beta, frozen),
                          backward_detached, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (12.9)
table

# %% [markdown]
# **The weights.** Now the third road. Write $S = \sum_j |\gamma_j|$. The loss feels the weight $w_j$ through all of
# channel $j$:
#
# $$q_j := \frac{\partial L}{\partial w_j} = \sum \frac{\partial L}{\partial \ell_j}\, \mathrm{BN}(x)_j \tag{12.10}$$

# %%
w_leaf = frozen.clone().requires_grad_()
y_of_w = inputs["x"] * torch.sigmoid(column(w_leaf) * from_norm.detach())
q = (dl * from_norm.detach()).sum(pixels)
assert torch.allclose(torch.autograd.grad(y_of_w, w_leaf, g)[0], q)  # (12.10)

# %% [markdown]
# And how does $w_j = |\gamma_j|/S$ move with $\gamma_c$? The slope of $|\gamma_c|$ is $\mathrm{sign}(\gamma_c)$, and
# $S$ has the same slope. For $j = c$ both the numerator and $S$ move, for $j \ne c$ only $S$ does. The quotient rule
# gives, with $\delta_{jc} = 1$ for $j = c$ and 0 otherwise,
#
# $$\frac{\partial w_j}{\partial \gamma_c} = \frac{\delta_{jc}\, \mathrm{sign}(\gamma_c)\, S - |\gamma_j|\, \mathrm{sign}(\gamma_c)}{S^2}
# = \frac{\mathrm{sign}(\gamma_c)}{S}\, (\delta_{jc} - w_j).$$

# ### Exercise 12.3 · the path through the weights · *Depth* · 15 minutes
#
# Chain the two: given $q$ and $\gamma$, both (c,), write $\sum_j q_j\, \partial w_j/\partial \gamma_c$ for every $c$,
# without building the matrix.
#
# <details><summary>Hint 1</summary>
#
# The factor in front depends on $c$ only; inside the bracket stands $\sum_j q_j (\delta_{jc} - w_j)$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# $\sum_j q_j \delta_{jc} = q_c$, and $\sum_j q_j w_j$ is one number, the same for all $c$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `gamma.sign() / total * (q - (w * q).sum())` with `total = gamma.abs().sum()` and `w = gamma.abs() / total`.
#
# </details>

# %% tags=["exercise"]
def path_through_weights(q, gamma):
    """q = dL/dw (c,), gamma (c,) -> the part of dL/dgamma that goes through the weights, (c,)."""
    raise NotImplementedError

path_through_weights = check("12.3", path_through_weights)

# %% tags=["solution"]
def path_through_weights(q, gamma):
    total = gamma.abs().sum()
    w = gamma.abs() / total
    return gamma.sign() / total * (q - (w * q).sum())

# %% [markdown]
# So the formulas' gradient has one more term:
#
# $$\frac{\partial L}{\partial \gamma_c} = \sum h_c\, \hat x_c + \underbrace{\frac{\mathrm{sign}(\gamma_c)}{S} \Big(q_c - \sum_j w_j\, q_j\Big)}_{e_c}
# \tag{12.11}$$
#
# Only differences count in $e$: a share can grow only at the cost of the others. The two cells below hold the full
# gradient against autograd and central differences, and both gradients against the library: `detach=True` is the
# released code and the default.

# %%
def backward_through(g, x, gamma, beta):
    known = backward_detached(g, x, gamma, beta)
    s = gate_of(x, gamma, beta, shares_of(gamma))
    normed = column(gamma) * normalise(x) + column(beta)
    q = (g * x * s * (1 - s) * normed).sum(pixels)
    return known | {"gamma": known["gamma"] + path_through_weights(q, gamma)}

# %%
forward = lambda x, gamma, beta: x * gate_of(x, gamma, beta, shares_of(gamma))
table = compare_gradients(forward, backward_through, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (12.11)
detached, through = backward_detached(g, **inputs), backward_through(g, **inputs)
e = through["gamma"] - detached["gamma"]
wrong = compare_gradients(forward, backward_detached, inputs)["hand = differences"]
assert not wrong["gamma"] and wrong["x"] and wrong["beta"]  # they differ in gamma alone

# %%
for detach, by_hand in {True: detached, False: through}.items():
    module = NormalizationAttention(4, detach=detach).double()
    module.channel_norm.weight.data = inputs["gamma"].clone()
    module.channel_norm.bias.data = inputs["beta"].clone()
    module(inputs["x"]).backward(g)
    assert torch.allclose(module.channel_norm.weight.grad, by_hand["gamma"])

# %% [markdown]
# ### How the two gradients differ
#
# Multiply $e_c$ by $\gamma_c$ and add up. Since $\gamma_c\, \mathrm{sign}(\gamma_c)/S = w_c$ and the shares sum to
# one,
#
# $$\sum_c \gamma_c\, e_c = \sum_c w_c q_c - \Big(\sum_c w_c\Big) \sum_j w_j q_j = 0 \tag{12.12}$$
#
# That had to come out so: the weights do not change when all scales are multiplied by one number, so along that
# direction the road through them must have the slope 0. The road can shift weight between channels; it cannot raise
# or lower all scales by one factor.
#
# At the **start** of training the two gradients are related in the simplest way. With $\gamma = 1$ and $\beta = 0$
# everywhere, $w = 1/C$ and $S = C$, so $\mathrm{BN}(x) = \hat x$ and $h = \frac1C\, \partial L/\partial \ell$. Write
# $d_c = \sum h_c \hat x_c$ for the detached gradient. Then $q_c = C\, d_c$, and
#
# $$e_c = \frac1C \Big(C\, d_c - \frac1C \sum_j C\, d_j\Big) = d_c - \overline{d} \tag{12.13}$$
#
# with $\overline d$ the mean over the channels. So at the start the full gradient $d + e$ **doubles every difference
# between channels** and leaves their mean alone, whatever the number of channels: by plain gradient descent, the
# released code begins to tell the channels apart at half that speed. Later on, $d$ and $d + e$ may even have opposite
# signs; in our example (seed 3) they do, for one of four scales. Whether that matters for what is learnt, part 9
# asks.

# %%
assert abs((inputs["gamma"] * e).sum()) < 1e-12 < 1e-3 < e.abs().max()  # (12.12)
fresh = {"x": inputs["x"], "gamma": torch.ones(4).double(), "beta": torch.zeros(4).double()}
d = backward_detached(g, **fresh)["gamma"]
full = backward_through(g, **fresh)["gamma"]
assert torch.allclose(full - d, d - d.mean())  # (12.13)
assert torch.allclose(full - full.mean(), 2 * (d - d.mean()))
opposite = (detached["gamma"].sign() != through["gamma"].sign()).sum()
assert opposite == 1, "another seed may have more of them, or none"

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# ### At the start: to nothing
#
# A fresh batch norm has $\gamma = 1$, $\beta = 0$. Then $w_c = 1/C$. If $|\mathrm{BN}(x)| \le m$, then $|\ell| \le
# m/C$, and since the sigmoid has slope at most $1/4$ and starts from $\sigma(0) = 1/2$,
#
# $$\Big|s - \frac12\Big| \le \frac{m}{4C} \tag{12.14}$$
#
# **Predict:** 256 channels, and normalised values up to 5 (they seldom go further). Between which two numbers do all
# gates lie?

# %%
wide = torch.linspace(-5, 5, 1001)
start_gate = torch.sigmoid(wide / 256)
assert (start_gate - 0.5).abs().max() <= 5 / (4 * 256)  # (12.14)
print(f"C = 256: all gates between {start_gate.min():.3f} and {start_gate.max():.3f}")
assert (start_gate.min() * 1000).round() == 495 and (start_gate.max() * 1000).round() == 505

# %% [markdown]
# A NAM block starts as a multiplication by one half. (In a residual block that halves the branch, not the sum; the
# toolbox says [where to put a gate](00_toolbox.ipynb#Where-to-put-a-gate).)
#
# ### What opens the gate
#
# Two things can. First, **all scales grow together**. The shares stay; but BN's output has a $\gamma_c$ of its own.
# With $t\gamma$ in the place of $\gamma$,
#
# $$\ell_c = w_c\, (t\, \gamma_c\, \hat x_c + \beta_c) \tag{12.15}$$
#
# so the part of the logit that depends on the input grows with $t$: not with $t^2$, as one might guess from two
# factors $\gamma$, since the weight is a share.
#
# Second, **one scale outgrows the others**. Let $\gamma_0 = t$ and all others be 1. Then $w_0 = t/(t + C - 1)$, and
# the slope of $\ell_0$ with respect to $\hat x_0$ is
#
# $$w_0\, \gamma_0 = \frac{t^2}{t + C - 1} \tag{12.16}$$
#
# For a slope of 1, $t^2 = t + C - 1$, so $t$ must be about $\sqrt C$. With 256 channels one scale must be 16 times
# the others before its gate spans what an ordinary sigmoid spans; the others' slope is then $1/(t + C - 1)$, and
# their gates are nailed to 1/2.

# %%
hat_values = torch.randn(2, 6, 5, 4).double()
gammas, betas = torch.randn(6).double(), torch.randn(6).double()
logits = lambda t: column(shares_of(t * gammas)) * (column(t * gammas) * hat_values + column(betas))
constant = column(shares_of(gammas) * betas)
assert torch.allclose(logits(3) - constant, 3 * (logits(1) - constant))  # (12.15)

# %%
def slopes(t, C=256):
    """The slope of the logit in x_hat for the channel with scale t, and for one with scale 1."""
    scale = torch.ones(C)
    scale[0] = t
    return (shares_of(scale) * scale)[:2]

assert torch.allclose(slopes(16.0)[0], torch.tensor(16**2 / (16 + 255)))  # (12.16)
assert slopes(1.0)[0] < 0.004 and 0.9 < slopes(16.0)[0] < 1.1 and slopes(16.0)[1] < 0.004
assert slopes(4.0)[0] < 0.07 and slopes(32.0)[0] > 3.5  # flat still; nearly a step

# %%
def explore(t=16.0):
    ax, at = plt.subplots(figsize=(5, 2.4))[1], torch.linspace(-4, 4, 81)
    ax.plot(at, torch.sigmoid(slopes(t)[0] * at), color="C0", label=f"scale {t:.0f}")
    ax.plot(at, torch.sigmoid(slopes(t)[1] * at), color="grey", label="scale 1")
    ax.set(ylim=(0, 1), xlabel="normalised value of the pixel", ylabel="gate"), ax.legend()
    show(ax.figure, alt=f"Gates over a pixel's value: scale {t:.0f} climbs, scale 1 is flat.")

explore(16.0)

# %% [markdown]
# **What to see.** With one scale 16 times the others, the blue curve is an ordinary sigmoid. The grey curve, the
# other 255 channels, stays at 1/2 throughout: **a channel that loses its weight is not shut, it is halved.** Try 4,
# where the blue curve is almost as flat as the grey one, and 32, where it is nearly a step (the slider needs a running
# kernel):

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, t=(1.0, 64.0, 1.0));

# %% [markdown]
# ### What it cannot see
#
# Does a gate know that a channel is *strong*? In training it does not: the norm divides by the channel's own standard
# deviation. Multiply each channel by any positive number $\kappa_c$, and
#
# $$\mathrm{BN}(\kappa_c\, x_c) = \mathrm{BN}(x_c) \qquad\text{but for } \epsilon, \tag{12.17}$$
#
# so all gates stay. Where NAM stands directly behind a batch norm of the network, as in its authors' ResNets, that
# norm's scales are such numbers (their signs apart), and its shifts drop out too. So NAM does **not** read the
# importance off the scales that the network already has: its own norm wipes them out, and has new ones.

# %%
strengths = torch.tensor([0.1, 1, 2, 5, 10, 50]).double()
module = NormalizationAttention(6).double()
scaled = module.weights(column(strengths) * maps)
assert torch.allclose(scaled, module.weights(maps), atol=1e-3)  # (12.17)
before = torch.nn.BatchNorm2d(6).double()
first = module.weights(before(maps))
before.weight.data, before.bias.data = strengths, strengths - 3
assert torch.allclose(module.weights(before(maps)), first, atol=1e-3)

# %% [markdown]
# ### What it learns on digits
#
# We train the small network with NAM behind its ReLU. **Predict:** will the 16 weights, which start at $1/16$ each,
# end up far apart? Will the gates come near 0 or 1?

# %%
nam_net = learn_with(lambda net: 0, lambda: NormalizationAttention(16))
block = nam_net.attention
with torch.no_grad():
    gates = block.weights(nam_net.features(new_digits.images))
weight = shares_of(block.channel_norm.weight.detach())

# %%
print(f"the gates run from {gates.min():.1f} to {gates.max():.1f}")
print("every weight lies within 25% of 1/16:", bool((16 * weight - 1).abs().max() < 0.25))
features = nam_net.features(new_digits.images)
assert 15 < features.max() < 21 and gates[features > 0.85 * features.max()].min() > 0.72
assert gates.min() > 0.45 and gates.max() < 0.87

# %%
ax, at = plt.subplots(figsize=(5.5, 3))[1], torch.linspace(0, 18, 61)
norm = block.channel_norm
a, b = swish_form(norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var)
ax.plot(at, at[:, None] * torch.sigmoid(a * at[:, None] + b), color="C0", alpha=0.5)
ax.plot(at, at, "k--", at, at / 2, "k:")
ax.set(xlabel="value that comes in", ylabel="value that goes out", title="one curve a channel")
show(ax.figure, alt="Sixteen rising curves, nearly on top of each other, between the dotted line "
     "y = x/2, on which they begin, and the dashed line y = x, to which they bend.")

# %% [markdown]
# **What to see.** This is all the trained block does: sixteen curves, nearly the same. They leave 0 along $y = x/2$
# (dotted) and bend towards $y = x$ (dashed). Small values are halved, and the largest that occur, about 18, lose a
# fifth or so; nothing is shut. That is this seed. Fifteen seeds were trained beforehand
# (`notebooks/runs/12_normalization_attention.py` makes the tables of this notebook): in all of them every weight lies
# within 25% of $1/16$, and no gate is below 0.45. **On these digits, left to itself, training gives NAM's weights
# nothing to choose.**

# %%
from attnlib.lab.data import load_results

runs = load_results("12_penalty")
scale_names = [f"gamma_{c}" for c in range(16)]
unforced = runs[(runs["penalised"] == "NAM") & (runs["p"] == 0)]
scale = torch.tensor(unforced[scale_names].values)
relative = 16 * scale.abs() / scale.abs().sum(1, keepdim=True)
assert len(unforced) == 15 and relative.min() > 0.75 and relative.max() < 1.25
assert unforced["gate_low"].min() > 0.45 and unforced["gate_high"].max() < 0.9

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | released code | copies |
# |---|---|---|---|
# | weights | $\gamma_c / \sum \gamma_j$ | $\lvert\gamma_c\rvert / \sum \lvert\gamma_j\rvert$ | some drop the absolute value again |
# | gradient through the weights | not excluded | cut (`.data`) | cut |
# | what comes out | the gate $s$ | $x\,s$ | $x\,s$ |
# | pixel branch | yes | in the history of the code for a few days, then deleted | left out |
# | statistics | batch norm | batch norm: running ones in eval | some take an instance norm |
# | penalty on the scales | in the loss | written, but never reached: part 10 | left out |
#
# Where the paper and its code disagree we follow the code, but for the penalty, and there is one argument for each
# difference: `absolute`, `detach`, `branch`. The gradient was part 5's affair, the pixel branch part 4's. Now the
# others.
#
# **Absolute values.** Scales may become negative; a convolution can always make up for it. Without absolute values
# the sum may then be nearly nothing, and the "shares" enormous:

# %%
from attnlib.feature_map.normalization import shares

mixed = torch.tensor([1.0, -0.8, 0.5, -0.69])
print("with absolute values:", [round(share, 2) for share in shares(mixed).tolist()])
print("without:             ", [round(share) for share in shares(mixed, absolute=False).tolist()])
assert shares(mixed).sum() > 0.999 and shares(mixed, absolute=False).abs().max() > 90
unsigned = shares(mixed.abs(), absolute=False)
assert torch.allclose(unsigned, shares(mixed))  # while all scales are positive, the two agree

# %% [markdown]
# **The gate or the product.** The gate alone lies between 0 and 1, so it has lost the sign and the size of the
# features. The factor $x$ that the formula leaves out is not a detail.
#
# **Instance norm.** It normalises every channel of every image by that image's own mean and variance, in eval too.
# **Predict** what the audit will say now.

# %%
module = NormalizationAttention(6)
between = module.weights(maps.float())
assert between.min() > 0 and between.max() < 1 and maps.min() < 0 and maps.max() > 2
module.channel_norm = torch.nn.InstanceNorm2d(6, affine=True)
for finding in audit(module, torch.randn(2, 6, 5, 4)).findings:
    if finding.check in ("gate channels", "gate positions"):
        print(finding)

# %% [markdown]
# With that one replacement a gate depends on all positions of its channel. Such a copy may be good or bad, but it is
# another mechanism: it compares each pixel with the rest of the same image, which NAM as released never does.
#
# ## 8 · What it costs · *Depth*
#
# A batch norm has a scale and a shift for each channel; the pixel branch has a scale and a shift for each place:
#
# $$P_{\text{channel}} = 2C, \qquad P_{\text{both}} = 2C + 2HW, \qquad \mathrm{MACs} = 0 \tag{12.18}$$
#
# The zero is the custom of the field, which counts convolutions and matrix products only. The block does do
# arithmetic, about five operations at each of the $CHW$ numbers of the map (normalise, weigh, sigmoid, multiply), and
# the clock counts them, as we shall see.

# %%
from attnlib.lab.cost import closed_form, count_macs, count_parameters

for C, H, W in [(64, 7, 5), (96, 4, 4)]:
    options = {"branch": "both", "size": (H, W)}
    one, two = NormalizationAttention(C), NormalizationAttention(C, **options)
    counts = count_parameters(one), count_parameters(two), count_macs(two, torch.randn(1, C, H, W))
    assert counts == (2 * C, 2 * C + 2 * H * W, 0)  # (12.18)
    assert closed_form("nam", C, H, W, **options).parameters == counts[1]

# %% [markdown]
# ### The published 23.71 million
#
# ResNet-50 for CIFAR-100 is reported with 23.71 million parameters, and with NAM in all of its 16 blocks with 23.71
# million as well (the table as the README of Efficient Multi-scale Attention relays it). We recount. 08 counted the
# ResNet-50 for ImageNet layer by layer, 25,557,032. The one for CIFAR-100 has another first layer (3 x 3 in the place
# of 7 x 7) and 100 classes in the place of 1,000:

# %%
from attnlib.lab.networks import network_cost

first_7, first_3 = 49 * 3 * 64, 9 * 3 * 64
plain = 25_557_032 - first_7 + first_3 - (2048 * 1000 + 1000) + (2048 * 100 + 100)
assert plain == network_cost("resnet50", image=32, classes=100).parameters

# %%
blocks = {256: (3, 32), 512: (4, 16), 1024: (6, 8), 2048: (3, 4)}  # channels: how many, their size
channel = sum(n * closed_form("nam", C, size, size).parameters for C, (n, size) in blocks.items())
pixel = sum(n * 2 * size**2 for n, size in blocks.values())
totals = {"plain": plain, "NAM": plain + channel, "both branches": plain + channel + pixel}
print({name: f"{count:,} = {count / 1e6:.2f} M" for name, count in totals.items()})
assert [*totals.values()] == [23_705_252, 23_735_460, 23_744_516] and channel == 2 * 15_104

# %% [markdown]
# 23,705,252 rounds to 23.71 million. With NAM it is 23,735,460, which rounds to **23.74**, with both branches too. So
# the printed 23.71 for NAM is the number of the network *without* it. The difference is small; but it is the very
# quantity that the column is there to compare.
#
# ### Against ECA, and the clock
#
# ECA ([09_efficient_channel_attention](09_efficient_channel_attention.ipynb)) needs one kernel of $k$ weights for
# each block; its released ResNet-50 has $k = 3, 5, 5, 7$ in the four stages. That is $3 \cdot 3 + 4 \cdot 5 + 6 \cdot
# 5 + 3 \cdot 7 = 80$ parameters, against NAM's 30,208. ECA does multiply-accumulates, NAM by custom none.
#
# **Predict:** which of the two is quicker? And how far above the cost floor of 08 (`x * x.mean(...)`: read, read
# again, write) is each?

# %%
from attnlib import EfficientChannelAttention
from attnlib.lab.cost import saved_bytes, time_against_floor

kernels, sizes = {256: 3, 512: 5, 1024: 5, 2048: 7}, {256: 56, 512: 28, 1024: 14, 2048: 7}
eca = {C: EfficientChannelAttention(C, kernel_size=k) for C, k in kernels.items()}
assert sum(blocks[C][0] * count_parameters(eca[C]) for C in eca) == 80 and channel == 30_208
stage_maps = {C: torch.randn(4, C, size, size) for C, size in sizes.items()}

# %%
makers = {"NAM": NormalizationAttention, "ECA": eca.get, "SiLU": lambda C: torch.nn.SiLU()}
timed = {name: [time_against_floor(make(C), stage_maps[C], repeats=15) for C in stage_maps]
         for name, make in makers.items()}
assert sum(timed["NAM"]) > max(sum(timed["ECA"]), sum(timed["SiLU"]))

# %%
ax = plt.subplots(figsize=(6, 2.8))[1]
for aside, name, color in ((-0.27, "NAM", "C0"), (0, "ECA", "C1"), (0.27, "SiLU", "grey")):
    ax.bar(torch.arange(4) + aside, timed[name], 0.25, color=color, label=name)
ax.axhline(1, color="black", ls="--"), ax.legend()
ax.set_xticks(range(4), [f"{C} x {size}²" for C, size in sizes.items()])
ax.set(xlabel="channels x pixels", ylabel="time / cost floor")
show(ax.figure, alt="Bars of forward time over the cost floor in four stages: NAM is far above the "
     "floor everywhere, ECA near it but for the last stage, SiLU at or below it.")

# %% [markdown]
# **What to see.** As a PyTorch module on a CPU, NAM takes clearly longer than ECA, most of all on the largest maps:
# it writes the normalised map, reads it, weighs it, writes it, takes a sigmoid of each of its numbers, and so on,
# where ECA takes its few sigmoids of means. But mind the grey bars. SiLU is, by (12.5), a NAM with fixed numbers,
# computed in one go, and it needs much less time than NAM, in the stored picture no more than the floor: a gate that
# need not know the whole map before it scales the first pixel can do with a single pass. (A processor that computes
# fewer exponentials at a time puts the grey bars above ECA's. And all this is eval; in training the batch norm needs
# the whole map first.) So the time is a matter of how it is written and on what it runs; on another device, measure
# again.
#
# **Memory for training.** The gate is as large as the map, and the backward pass needs it: NAM keeps one map more,
# and a second one if the gradient goes through the weights. ECA keeps a handful of gates.

# %%
nam_modules = [NormalizationAttention(256), NormalizationAttention(256, detach=False)]
kept_bytes = [saved_bytes(m, stage_maps[256]) for m in (*nam_modules, eca[256])]
extra = [count / (4 * stage_maps[256].numel()) for count in kept_bytes]
print("kept beside x, in maps: NAM {:.0f}, through w {:.0f}, ECA {:.0f}".format(*extra))
assert 1 <= extra[0] < 1.01 and 2 <= extra[1] < 2.01 and extra[2] < 0.01

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# What can a Swish with a learnt slope do that a network cannot do anyway? Split the sigmoid into its value at 0 and
# the rest, $\sigma(t) = \frac12 + \frac12 \tanh\frac t2$. Then, for $b = 0$,
#
# $$x\, \sigma(a x) = \frac x2 + \frac x2 \tanh\frac{a x}{2} \tag{12.19}$$
#
# The second part is the same for $x$ and for $-x$: it measures how far a pixel is from 0, whatever the sign. So
# behind NAM, the *mean* of a channel tells something about its **spread**. No gate of SE's kind can do that if the
# means themselves are zero.

# %%
axis = torch.linspace(-6, 6, 121).double()
even = axis / 2 * torch.tanh(1.5 * axis / 2)
assert torch.allclose(axis * torch.sigmoid(1.5 * axis), axis / 2 + even)  # (12.19)
assert torch.allclose(even, even.flip(0)) and even.min() >= 0

# %% [markdown]
# **A task that it wins by construction.** Maps of noise with four channels; the mean of every channel is exactly
# zero. Half of them are weak, the other half twice as strong. Tell them apart with a linear layer that reads only the
# four means. Without an activation the means are all zero, and so is whatever SE makes its gate of; and the gate
# multiplies a zero.
#
# **Predict** the accuracy with nothing, with SE, with NAM, and with a tanh or a ReLU in the block's place.

# %%
from attnlib import SqueezeExcitation
from attnlib.lab.data import Images, cued_digits

def contrast_maps(n, seed):
    draw = torch.Generator().manual_seed(seed)
    noise, strong = torch.randn(n, 4, 6, 6, generator=draw), torch.randint(2, (n,), generator=draw)
    noise = noise - noise.mean((2, 3), keepdim=True)
    return Images(noise * (1 + strong)[:, None, None, None], strong, ("weak", "strong"))

# %%
def on_contrast(make, seed):
    torch.manual_seed(seed)
    means = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    net = torch.nn.Sequential(make(), *means, torch.nn.Linear(4, 2))
    quick = {"epochs": 10, "batch_size": 50, "learning_rate": 0.05}
    train(net, contrast_maps(500, seed), **quick, seed=seed, progress=False)
    return accuracy(net, contrast_maps(500, seed=100 + seed))

# %%
makers = {"plain": torch.nn.Identity, "SE": lambda: SqueezeExcitation(4, reduction=1),
          "tanh": torch.nn.Tanh, "NAM": lambda: NormalizationAttention(4), "ReLU": torch.nn.ReLU}
on_contrasts = {name: [on_contrast(make, i) for i in range(3)] for name, make in makers.items()}
assert min(on_contrasts["NAM"] + on_contrasts["ReLU"]) > 0.95
assert max(on_contrasts["plain"] + on_contrasts["SE"] + on_contrasts["tanh"]) < 0.65
print("right on new maps, of ten:", {name: round(10 * min(a)) for name, a in on_contrasts.items()})

# %% [markdown]
# NAM wins, and so does the ReLU, which is $\mathrm{relu}(x) = \frac x2 + \frac{|x|}2$: the same trick with a corner.
# The tanh, which is odd, has no even part and loses. What NAM wins by construction is what any activation function
# *with an even part* wins.
#
# **A task that it cannot win.** The cards of 08: read the digit on that side of the card that bears a square. (8.1)
# said that a network whose units see either the square or the digits, and that only adds behind them, stays at or
# below 3/4. Put a Swish behind each unit. A unit that answers to the card as it does to one of the two parts still
# does so after any function of its own value. So the four logits still obey (8.1), and the bound of 3/4 holds **for
# this network with NAM in it, whatever the scales**, once training has ended. SE reached 0.90 there, on average over
# ten seeds.

# %%
from attnlib.lab.small_network import learn

cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
card_net = learn(cards, lambda: NormalizationAttention(16), seed=0, groups=2)
card = new_cards.images[:50]
square, both_digits = card.clone(), card.clone()
square[:, :, 8:], both_digits[:, :, :8] = 0, 0
card_and_empty = card_net(card) + card_net(0 * card)
assert torch.allclose(card_and_empty, card_net(square) + card_net(both_digits), atol=1e-3)  # (8.1)

# %%
stored_cards = load_results("12_cards").groupby("variant", sort=False)["accuracy"].apply(list)
live_card = accuracy(card_net, new_cards)
print("the live run is near its stored row:", abs(live_card - stored_cards["NAM"][0]) < 0.05)
both_stored = stored_cards["NAM"] + stored_cards["plain"]
assert len(both_stored) == 10 and min(both_stored) > 0.4 and max(both_stored) < 0.5
assert abs(live_card - stored_cards["NAM"][0]) < 0.05
of_se = load_results("08_cards").query("variant == 'r = 1' and epochs == 8")["accuracy"]
assert len(of_se) == 10 and round(of_se.mean(), 2) == 0.90

# %% [markdown]
# Five seeds of each: all between 0.4 and 0.5, with and without NAM.
#
# **The control: plain digits.** Fifteen seeds, the network of part 6 with and without the block, after 8 epochs and
# after 12. The rule is that of 08, stated before we look: **we speak of a difference only if the mean over the seeds
# lies more than 2.14 standard errors from zero** (Student's $t$ for 15 seeds, 95%). We know by (12.14) that the block
# starts near $y = x/2$, so three more blocks stand in the table:
#
# - *half*: a block that does nothing but divide by 2, with nothing to learn;
# - *swish*: $x\,\sigma(a_c x + b_c)$ with $a_c$ and $b_c$ as parameters of their own, 32 like NAM's, starting near
#   it, at $a = 1/16$ and $b = 0$;
# - *NAM, through w*: NAM whose $\gamma$ also learns through the weights $w$; the released code, and NAM above, take
#   $w$ for a constant (part 5).
#
# **Predict:** will NAM beat plain? Will it beat *half*?

# %%
from attnlib.lab.plots import by_seed

rows = load_results("12_digits")
table = rows.pivot(index=["epochs", "seed"], columns="variant", values="accuracy")
near = [abs(accuracy(net, new_digits) - table.loc[(8, 0), name]) < 0.05
        for name, net in {"plain": free, "NAM": nam_net}.items()]
print("the live runs of parts 2 and 6 are near their stored rows:", all(near))
assert all(near)

# %%
fig, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for ax, epochs in zip(panels, (8, 12), strict=True):
    shown = dict(table.loc[epochs, ["plain", "half", "swish", "NAM"]])
    by_seed(shown, ax=ax, highlight="NAM", label="")
    ax.set(ylim=(0.9, 1), title=f"digits, {epochs} epochs")
panels[0].set(ylabel="accuracy on the test set")
show(fig, alt="Test accuracy by seed for plain, half, swish and NAM, after 8 and after 12 epochs. "
     "The four clouds overlap in both; after 8 epochs half and NAM lie a little higher.")

# %%
def against(name, base, epochs):
    difference = 100 * (table.loc[epochs, name] - table.loc[epochs, base])
    return round(difference.mean(), 1), round(difference.mean() / difference.sem(), 1)

pairs = [("NAM", "plain"), ("half", "plain"), ("swish", "plain"), ("NAM", "half"),
         ("NAM", "swish"), ("NAM, through w", "NAM")]
found = {pair: [against(*pair, epochs) for epochs in (8, 12)] for pair in pairs}
for (name, base), ((d_8, t_8), (d_12, t_12)) in found.items():
    print(f"{name} - {base}: {d_8:+} points ({t_8:+} errors), then {d_12:+} ({t_12:+})")

# %% [markdown]
# **What to see** (mind the axis: it begins at 0.9). After 8 epochs NAM leads plain by 1.1 points, which is 2.4
# standard errors: by our rule, a difference. Would you have published it? *Half* leads by 1.2 points, 2.8 standard
# errors, and it has nothing to learn. Between NAM and *half* there is no difference. And after 12 epochs there is
# none between any of the three. Now *half* can compute nothing that plain cannot: halve the last layer's weights
# instead of its input. So its lead comes from the way training goes, and it is gone four epochs later. **On digits,
# no difference found that is due to NAM's attention.** Without the column *half* we would have found one.
#
# *Swish* starts near $y = x/2$ as well and has no lead; after 12 epochs it is even behind plain. So we have not
# explained the lead of *half* and NAM. We have only shown that it needs no attention. With or without the gradient
# through the weights, no difference found. Against *swish* NAM leads by a point, over our line after 8 epochs and
# under it after 12; exercise 12.5 will show that in eval the two can compute the same functions, so the difference
# lies in the road that training takes. And mind the number of looks: of twelve comparisons at 95%, 0.6 are expected
# to pass the line by luck alone. Four do, and they share runs; so read none of them alone.

# %%
over = [(pair, epochs) for pair, both in found.items()
        for epochs, (_, errors) in zip((8, 12), both, strict=True) if abs(errors) > 2.14]
assert over == [(("NAM", "plain"), 8), (("half", "plain"), 8), (("swish", "plain"), 12),
                (("NAM", "swish"), 8)]
assert found["swish", "plain"] == [(0.1, 0.1), (-1.2, -2.3)]
assert found["NAM", "plain"][0] == (1.1, 2.4) and found["half", "plain"][0] == (1.2, 2.8)
assert found["NAM", "swish"][0][0] == 1.0 and abs(found["NAM", "half"][0][1]) < 1

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 12.4 · bug gallery · *Depth* · 10 minutes
#
# This is how several copies write the gate in eval, and how the paper's formula reads. It runs, and while all scales
# are positive it is even right. Find what is wrong, and change as little as you can.
#
# ```python
# def forward(x, gamma, beta, mean, var):
#     y = F.batch_norm(x, mean, var, gamma, beta)
#     w = gamma / gamma.sum()
#     return x * torch.sigmoid(w[:, None, None] * y)
# ```
#
# <details><summary>Hint 1</summary>
#
# Print `w` for gamma = (-2, 1.5, -1, 1.4). Is that a share of anything?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Compare with (12.3), symbol by symbol. By (12.1), what measures how much a channel varies?
#
# </details>
# <details><summary>Hint 3</summary>
#
# `gamma.abs()`, above the fraction bar and below it. The batch norm keeps gamma as it is.
#
# </details>

# %% tags=["exercise"]
def mended(x, gamma, beta, mean, var):
    """x (b, c, h, w), all others (c,) -> features of x's shape, as in (12.4)."""
    raise NotImplementedError

mended = check("12.4", mended)

# %% tags=["solution"]
def mended(x, gamma, beta, mean, var):
    y = F.batch_norm(x, mean, var, gamma, beta)
    w = gamma.abs() / gamma.abs().sum()
    return x * torch.sigmoid(w[:, None, None] * y)

# %% [markdown]
# ### The penalty that never arrives
#
# Part 2 showed that scales rank channels once a penalty has spread them out. NAM's loss has one:
#
# $$\text{loss} + p \sum_c |\gamma_c|, \qquad \frac{\partial}{\partial \gamma_c}\; p \sum_j |\gamma_j| = p\; \mathrm{sign}(\gamma_c) \tag{12.20}$$
#
# (at $\gamma_c = 0$, where $|\gamma_c|$ has a corner, 0 is the usual choice). The released code does it by hand,
# after `backward`: it goes through the network's children, looks for those called `layer1`, `layer2` and so on, and
# adds $p\,\mathrm{sign}(\gamma)$ to the gradients of the norms in them, with $p = 10^{-4}$. But before that the
# network has been put into a wrapper that spreads the batch over several devices, and a wrapper has one child only,
# called `module`. Here is the smallest form of that mistake, in our own words. **Predict** how many gradients change.

# %%
def add_penalty_to_gradients(network, p):
    for name, child in network.named_children():
        if name.startswith("layer"):
            for module in child.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.grad += p * module.weight.sign()

# %%
layers = {f"layer{i}": NormalizationAttention(6) for i in (1, 2)}
network = torch.nn.ModuleDict(layers)
wrapped = torch.nn.ModuleDict({"module": network})
for layer in layers.values():
    layer.channel_norm.weight.data = torch.tensor([1, -1, 2, -0.5, 0.3, -3])
    layer(maps.float()).square().sum().backward()
of_scales = lambda: [layer.channel_norm.weight.grad.clone() for layer in layers.values()]

# %%
def changed_by_the_loop_over(what):
    before = of_scales()
    add_penalty_to_gradients(what, 1e-4)
    return sum(not torch.equal(b, now) for b, now in zip(before, of_scales(), strict=True))

through, directly = changed_by_the_loop_over(wrapped), changed_by_the_loop_over(network)
print(f"gradients changed through the wrapper: {through} of 2; without it: {directly} of 2")
assert (through, directly) == (0, 2)

# %% [markdown]
# No error, no warning, no penalty: whoever trains with that script and reports what the sparsity did reports on
# noise. Two habits protect: put a penalty into the *loss*, where a wrapper cannot hide it, and let code that finds
# nothing to do **say so**. `scale_penalty` does both.

# %%
from attnlib import scale_penalty

# %%
network.zero_grad()
(1e-4 * scale_penalty(wrapped)).backward()
signs = torch.tensor([1.0, -1, 1, -1, 1, -1]).repeat(2)
assert torch.equal(torch.cat(of_scales()), 1e-4 * signs)  # (12.20)
try:
    scale_penalty(torch.nn.Linear(2, 2))
except ValueError as error:
    print(error)

# %% [markdown]
# ### What a closed scale does
#
# Now apply it. If the penalty drives $\gamma_c$ to 0, then $w_c = 0$, so the logit is 0 whatever $x$ and $\beta$ are:
#
# $$\gamma_c = 0 \quad\Longrightarrow\quad s_c = \tfrac12 \text{ everywhere}, \qquad y_c = \tfrac12 x_c \tag{12.21}$$
#
# In Network Slimming a scale of 0 silences the channel. **In NAM it halves the channel.** To silence it, the logit
# would have to be strongly negative, and for that the weight, and so the scale, must be *large*.
#
# And if **all** scales shrink together? By (12.15) the shares stay as they are, and $\ell_c \to w_c \beta_c$:
# constants, since the penalty spares $\beta$. The block ends as a fixed factor for each channel.

# %%
closed, seen = NormalizationAttention(16).eval(), nam_net.features(new_digits.images)
closed.load_state_dict(block.state_dict())
closed.channel_norm.weight.data[0] = 0
assert (closed.weights(seen)[:, 0] == 0.5).all()  # (12.21)
closed.channel_norm.weight.data = 1e-6 * block.channel_norm.weight.data
factors = closed.weights(seen)
fixed = torch.sigmoid(shares_of(block.channel_norm.weight) * block.channel_norm.bias)
assert torch.allclose(factors, column(fixed).expand_as(factors), atol=1e-4)

# %% [markdown]
# Fifteen seeds for each strength stand in the table; a scale counts as closed below 0.05. **Predict:** if all 16
# scales are closed, how much accuracy is lost?

# %%
sparse = learn_with(lambda net: 1e-3 * scale_penalty(net), lambda: NormalizationAttention(16))
runs["closed"] = (runs[scale_names].abs() < 0.05).sum(axis=1)
of_nam = runs[runs["penalised"] == "NAM"]
row = of_nam[(of_nam["p"] == 1e-3) & (of_nam["seed"] == 0)].iloc[0]
live_closed = (sparse.attention.channel_norm.weight.abs() < 0.05).sum().item()
live = accuracy(sparse, new_digits)
print("the live run is near its stored row:", abs(live - row["accuracy"]) < 0.05)
assert 1 <= live_closed <= 10

# %%
how = {"closed": ("closed", "mean"), "lowest_gate": ("gate_low", "min"),
       "highest_gate": ("gate_high", "max"), "accuracy": ("accuracy", "mean")}
by_strength = of_nam.groupby("p").agg(**how)
assert by_strength["closed"].round(1).tolist() == [0, 0, 5.5, 16]
assert 0.5 <= by_strength.loc[1e-2, "lowest_gate"] < by_strength.loc[1e-2, "highest_gate"] < 0.6
some_closed = of_nam[of_nam["p"] == 1e-3]["closed"]
by_strength.round(2)

# %%
by_p = of_nam.pivot(index="seed", columns="p", values="accuracy")
lost = 100 * by_p.sub(by_p[0], axis=0)[[1e-4, 1e-3, 1e-2]]
assert (lost.mean() / lost.sem()).abs().max() < 2.14 and lost.mean().abs().max() < 0.5
assert (some_closed.min(), some_closed.max()) == (3, 8)
assert round(by_strength.loc[1e-3, "highest_gate"], 2) == 0.97

# %% [markdown]
# **What to see.** The strength of the released code, $10^{-4}$, closes nothing here. $10^{-3}$ closes 3 to 8 of 16,
# 5.5 on average; those left open share the weight, so their gates reach 0.97. $10^{-2}$ closes all of them, every
# gate stands between 0.5 and 0.6, and the accuracy is what it was: no difference found from any strength (all within
# 0.5 points and 2.14 standard errors). When the whole mechanism can be switched off and nothing is lost, it was not
# doing much.
#
# ### Does the order of the scales say which channels matter?
#
# Remove channels behind the block, one after the other, by setting them to zero: first those with the smallest
# $|\gamma|$; or in random order (ten orders for each seed, averaged); or first those with the largest. Do so for
# NAM's norm with $p = 0$, $10^{-4}$, $10^{-3}$ and $10^{-2}$, and, to compare, for the two networks of part 2: no
# NAM, the network's own norm, without a penalty and with $p = 0.03$.
#
# The rule, before the figure: let the *score* of an order be its mean accuracy over 1, 2, ..., 15 removed channels.
# **We say that the scales tell which channels matter if the mean over 15 seeds of score(smallest first) -
# score(random) lies more than 2.14 standard errors above zero.**
#
# **Predict** for each of the six: do they?

# %%
pruning = load_results("12_pruning")
steps = [f"removed_{k}" for k in range(17)]
cases = [("NAM", 0), ("NAM", 1e-4), ("NAM", 1e-3), ("NAM", 1e-2), ("network", 0), ("network", 3e-2)]

def curves_of(whose, p):
    of_case = pruning[(pruning["penalised"] == whose) & (pruning["p"] == p)]
    return {order: torch.tensor(group[steps].values)
            for order, group in of_case.groupby("order", sort=False)}

# %%
from attnlib.lab.plots import curves

fig, panels = plt.subplots(1, 3, figsize=(7.6, 2.5), sharey=True)
for ax, (whose, p) in zip(panels, (cases[2], cases[4], cases[5]), strict=True):
    curves(curves_of(whose, p), ax=ax).get_legend().set_visible(ax is panels[0])
    ax.set(ylim=(0, 1), xlabel="channels removed", title=f"{whose}, p = {p:g}")
panels[0].set(ylabel="accuracy on the test set")
show(fig, alt="Accuracy while channels are removed, in three orders. For NAM and for the network "
     "without a penalty the curves lie close together; with the penalty they are far apart.")

# %%
def lead(whose, p):
    score = {order: 100 * values[:, 1:16].mean(1) for order, values in curves_of(whose, p).items()}
    difference = score["smallest first"] - score["random"]
    return difference.mean().item(), (difference.mean() / difference.std()).item() * 15**0.5

leads = {case: lead(*case) for case in cases}
for (whose, p), (points, errors) in leads.items():
    print(f"{whose:7} p = {p:<6g} {points:+5.1f} points, {errors:+5.1f} standard errors")

# %% [markdown]
# **What to see** (bands run from the lowest seed to the highest; three of the six cases are not drawn). Without a
# penalty the order by NAM's scales is no better than chance: no difference found. With $p = 10^{-3}$ it is: 6.5
# points, 6.2 standard errors. With $10^{-2}$, where all scales are closed, it is chance again. So in this network the
# scales tell something in a window of strengths, and the strength that was meant to be used, $10^{-4}$, lies outside
# it: 2.0 points, 1.1 standard errors. The network's own scales are another matter. They tell something even without a
# penalty (3.4 points, 2.9 errors), and far more with it: 22.6 points, 15 errors, and to lose the two channels with
# the largest scales costs 30 points of accuracy. There a small scale *makes* the channel weak. In NAM it leaves the
# channel at half its strength.

# %%
tells = [case for case, (_, errors) in leads.items() if errors > 2.14]
assert tells == [("NAM", 1e-3), ("network", 0), ("network", 3e-2)]
assert [round(points, 1) for points, _ in leads.values()] == [-1.5, 2.0, 6.5, -0.2, 3.4, 22.6]
assert [round(errors, 1) for _, errors in leads.values()] == [-1.0, 1.1, 6.2, -0.1, 2.9, 15.0]
wrong_end = curves_of("network", 3e-2)["largest first"].mean(0)
assert 0.29 < wrong_end[0] - wrong_end[2] < 0.31

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# Articles on the web say the following about NAM. Each is settled by the cell below it, or by one above.
#
# **NAM-4** "NAM reads the importance of channels off BatchNorm's scale, and thereby suppresses weak features
# effectively." **True that it reads it, and it depends whether it suppresses.** The weights are shares of $|\gamma|$,
# the standard deviation of *its own* norm's output (12.1). But a channel with a small share is not suppressed, it is
# halved (12.21); what is turned down are the values below the mean in the channels with the *largest* shares. And on
# our digits, without a working penalty, the shares stay almost equal (part 6).

# %%
# claim NAM-4: TRUE (reads it), DEPENDS (suppresses)
module = NormalizationAttention(4).double()
module.channel_norm.weight.data = GAMMA.clone()
stretch = module.channel_norm(torch.randn(8, 4, 5, 5).double()).std((0, 2, 3), correction=0)
assert torch.allclose(stretch / stretch.sum(), w, atol=1e-4)
assert (s[0, 3] - 0.5).abs().max() < 0.04 and s[0, 0].min() < 0.12  # part 3: weights 1/8 and 1/2

# %% [markdown]
# **NAM-5** "NAM's core is features times their batch-normalised selves." **Broken.** In $x \cdot \mathrm{BN}(x)$
# there is neither a weight nor a sigmoid. With $\beta = 0$ and running mean 0 it is $\gamma x^2/\rho$: even, so that
# $x$ and $-x$ cannot be told apart, and without a bound: ten times the input gives a hundred times the output. NAM's
# output is nowhere larger than its input in absolute value.

# %%
# claim NAM-5: BROKEN
norm = torch.nn.BatchNorm2d(6).double().eval()
product = lambda x: x * norm(x)
assert torch.allclose(product(-maps), product(maps))
assert torch.allclose(product(10 * maps), 100 * product(maps))
assert ((nam_gate(maps, *state) * maps).abs() <= maps.abs()).all()

# %% [markdown]
# **NAM-6** "NAM costs almost nothing, because it reuses BN parameters that are there already." **Partly.** It is
# small: $2C$ parameters for each block. But it reuses nothing: it owns another batch norm, and by (12.17) it could
# not see the scales of the network's norm if it wanted to. And it passes over the map again, several times as
# written, and keeps a map for the backward pass: part 8 counted and timed it.

# %%
# claim NAM-6: PARTLY
assert count_parameters(nam_net) - count_parameters(free) == 2 * 16
assert nam_net.attention.channel_norm is not nam_net.norm
assert sum(timed["NAM"]) > 4 and extra[0] >= 1  # four stages: slower than the floor; one map more

# %% [markdown]
# **NAM-10** "ECA is dearer than NAM because it still needs a convolution." **False on parameters; on time it
# depends.** In ResNet-50 ECA adds 80 parameters and NAM 30,208. ECA's convolution runs over the $C$ means, not over
# the map: 86,272 multiply-accumulates in all, against 4 billion of the network. On a CPU, as PyTorch modules, NAM was
# the slower of the two in part 8; computed in one go, as SiLU is, it could in eval be the quicker one on some
# processors.

# %%
# claim NAM-10: FALSE on parameters, DEPENDS on time
eca_cost = {C: closed_form("eca", C, 1, 1, kernel_size=k) for C, k in kernels.items()}
parameters = sum(blocks[C][0] * cost.parameters for C, cost in eca_cost.items())
assert (parameters, channel) == (80, 30_208)
assert sum(blocks[C][0] * cost.macs for C, cost in eca_cost.items()) == 86_272
assert sum(timed["NAM"]) > max(sum(timed["ECA"]), sum(timed["SiLU"]))

# %% [markdown]
# ## 12 · Exercises
#
# 12.1 and 12.2 stand in part 4, 12.3 in part 5 and 12.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 12.5 · the other way round · *Depth* · 25 minutes
#
# The weights of NAM sum to one, which looks like a competition: if one slope grows, must another shrink? You will
# show that it is none. Given **any** slopes $a$ (none of them 0) and offsets $b$, and the norm's running mean and
# variance, find $\gamma$ and $\beta$ with which (12.5) has exactly these. Return them as a pair (gamma, beta).
#
# <details><summary>Hint 1</summary>
#
# Let $u_c = a_c \rho_c$. By (12.5), $u_c = w_c \gamma_c = \mathrm{sign}(\gamma_c)\, \gamma_c^2 / S$ with $S = \sum_j
# |\gamma_j|$. So $\gamma_c$ has the sign of $u_c$, and $|\gamma_c| = \sqrt{|u_c|\, S}$. What is still unknown is $S$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Add the last equation up over $c$: $S = \sqrt S\, \sum_c \sqrt{|u_c|}$, so $\sqrt S = \sum_c \sqrt{|u_c|}$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# With `root = u.abs().sqrt()`: $\gamma$ is `u.sign() * root * root.sum()`, and $w$ is `root / root.sum()`. Then solve
# $b = w\,(\beta - \gamma\mu/\rho)$ for $\beta$.
#
# </details>

# %% tags=["exercise"]
def scales_for(a, b, mean, var):
    """All (c,) -> gamma and beta, both (c,), with swish_form(gamma, beta, mean, var) = (a, b)."""
    raise NotImplementedError

scales_for = check("12.5", scales_for)

# %% tags=["solution"]
def scales_for(a, b, mean, var):
    rho = torch.sqrt(var + 1e-5)
    root = (a * rho).abs().sqrt()
    gamma = a.sign() * root * root.sum()
    w = root / root.sum()
    return gamma, b / w + gamma * mean / rho

# %%
wanted = torch.tensor([5.0, -1, 0.01]).double(), torch.tensor([0.0, 3, -2]).double()
found_scales = scales_for(*wanted, mu[:3], v[:3])
again = swish_form(*found_scales, mu[:3], v[:3])
assert torch.allclose(again[0], wanted[0]) and torch.allclose(again[1], wanted[1])

# %% [markdown]
# So in eval the NAM blocks are **exactly** the channel-wise Swishes $x\,\sigma(a_c x + b_c)$, with any offsets and
# any slopes but 0. The sum to one restricts nothing that the trained block computes. It is a way of writing the
# slopes down, and it matters only for the road that training takes.

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the paper |
# |---|---|---|---|
# | normalise | $\gamma_c (x_c - \mu_c)/\sqrt{v_c + \epsilon} + \beta_c$ | (12.2) | (1), with $\sigma_B^2$ for our $v$ |
# | weights | $w_c = \lvert\gamma_c\rvert / \sum_j \lvert\gamma_j\rvert$ | (12.3) | without absolute values |
# | gate, output | $s = \sigma(w\,\mathrm{BN}(x))$, $y = s\,x$ | (12.4) | (2), the gate $M_c$ alone |
# | in eval | $y = x\,\sigma(a_c x + b_c)$ | (12.5) | – |
# | pixel branch | the same for each place | (12.7) | (3), $M_s$ |
# | extra gradient | $e_c = \mathrm{sign}(\gamma_c)(q_c - \sum w_j q_j)/S$ | (12.11) | – |
# | price | $2C$, with the pixel branch $+\,2HW$ | (12.18) | – |
# | loss | $+\,p\sum\lvert\gamma_c\rvert$ | (12.20) | (4), also over $\lambda$ |
#
# - $|\gamma_c|$ is the standard deviation of a channel behind its batch norm, in training. NAM's norm is its own; the
#   network's scales are wiped out before it sees them.
# - Once trained, NAM is a Swish with a slope and an offset for each channel. Nothing passes between places or
#   channels, so it cannot supply the exchange that a task such as the cards needs.
# - The gate starts at 1/2, and a closed scale leaves it there: NAM halves what it deems unimportant. On digits the
#   weights stayed almost equal.
# - On digits NAM led plain, and a block that only divides by 2 led as much: no difference found that is due to the
#   attention. Choose the control before the seeds.
# - The released penalty reaches nothing; the published 23.71 M is the baseline's number.
#
# **Sources.** Liu, Shao, Teng, Hoffmann, arXiv 2111.12419 (formulas, penalty) and the released code with its history
# (absolute values, detached weights, pixel branch, loop of the penalty); Liu et al., *Learning Efficient
# Convolutional Networks through Network Slimming*, arXiv 1708.06519; Ramachandran, Zoph, Le, *Searching for
# Activation Functions*, arXiv 1710.05941; Wang et al., *ECA-Net*, arXiv 1910.03151; the README of *Efficient
# Multi-Scale Attention Module with Cross-Spatial Learning*, arXiv 2305.13563 (the table with 23.71 M).
#
# **Back:** [11_cbam](11_cbam.ipynb), [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb) · **Next:**
# [13_global_attention](13_global_attention.ipynb), which goes the other way: every channel and every place talk to
# each other, at a price. The map of the course is in [00_start_here](00_start_here.ipynb).
