# %% [markdown]
# # 07 · Attention on feature maps
#
# **The question.** A convolutional network turns a picture into a feature map: channels, each with a number at every place.
# What does it mean that it "attends" to a part of such a map, and what have the sixteen mechanisms of Part II in common?
#
# **The answer in one sentence.** Nearly all of them summarise the map in a *descriptor*, turn that into *scores*,
# squash these into a *gate* between 0 and 1, and *rescale* the map by it, so that all that tells them apart is what
# they summarise and along which axes they say yes or no; one family does something else, at a higher price: it compares
# every place with every other and averages what it finds.
#
# **Papers.** This notebook is about the pattern and not about one paper. The rows of its table come from [arXiv
# 1709.01507](https://arxiv.org/abs/1709.01507) (Squeeze-and-Excitation), [arXiv
# 1807.06521](https://arxiv.org/abs/1807.06521) (CBAM), [arXiv 2004.10934](https://arxiv.org/abs/2004.10934) (YOLOv4)
# and [arXiv 1711.07971](https://arxiv.org/abs/1711.07971) (non-local networks); the notebooks that follow derive them.
#
# **Time.** Core 75 minutes (parts 1-4, 6, 9 and exercises 07.1 and 07.3) · Depth 90 minutes (the rest).
#
# **Prerequisites.** The toolbox pages on [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs),
# [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products) and
# [the residual block](00_toolbox.ipynb#6.-The-residual-block); for the second family, parts 1 to 4 of
# [02_self_attention](02_self_attention.ipynb). The course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $N$ | | number of places, $N = HW$ |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x_c(p)$ is channel $c$ at the place $p$ |
# | $z$ | it depends | the **descriptor**: what is left of $x$ for the gate to look at |
# | $v$ | it depends | the **score**, any number |
# | $s$ | broadcasts to $x$ | the **gate**, $s = \sigma(v)$, between 0 and 1 |
# | $y$ | as $x$ | the feature map that goes out |
# | $w, K, W$ | $C$; $3 \times 3$; $C \times C$ | weights of the score of our three gates |
# | $P$ | $B \times N \times N$ | weights of self-attention over places |
# | $g$ | as $y$ | the gradient $\partial L/\partial y$ that arrives from above |
#
# $\sigma(t) = 1/(1 + e^{-t})$ is the logistic sigmoid and $s \odot x$ the product entry by entry. A *place* $p$ is a
# pair of a row and a column; where places are counted, it is row by row. $W$ is the number of columns in a size and a
# matrix in an equation; the toolbox uses $p$ for a probability. In Part I, $s$ is a score or a decoder's state; here
# and in all of Part II it is the gate.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)
plt.rcParams["image.interpolation"] = "nearest"

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **07.a** `x` has the shape (2, 16, 8, 8): images, channels, rows, columns. Which shape has `x.mean(1, keepdim=True)`?
# (a) (1, 16, 8, 8) · (b) (2, 16, 1, 1) · (c) (2, 8, 8) · (d) (2, 1, 8, 8) · (e) (2, 16, 8, 1)
#
# **07.b** A gate of the shape (2, 1, 8, 8) is multiplied with that `x`. Which entries of `x` share one factor? (a)
# none, it raises an error · (b) all of an image · (c) the 16 channels at one place of an image · (d) the two images at
# one place · (e) no two of them
#
# **07.c** Let $f(t) = t\,\sigma(t)$, a number that gates itself. What is its slope at $t = 0$?
# (a) 1/4 · (b) 1/2 · (c) 0 · (d) 1 · (e) 3/4

# %% tags=["exercise"]
check("07.a", ...)
check("07.b", ...)
check("07.c", ...)

# %% tags=["solution"]
check("07.a", "d")
check("07.b", "c")
check("07.c", "b")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# Here is a photograph, and a feature map made of it: four channels that we chose ourselves, so that it is known what
# they say. They are "more red than green", "more green than red and blue", and the strength of horizontal and of
# vertical edges.

# %%
from attnlib.lab.data import load_photograph
from attnlib.lab.plots import heatmap

photo = F.avg_pool2d(load_photograph().double(), 2)  # (3, 26, 40): red, green, blue

EDGE = torch.tensor([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]).double() / 2
names = ["red", "green", "horizontal edges", "vertical edges"]

# %%
def look_at(rgb):  # (3, h, w) -> a feature map (1, 4, h, w)
    red, green, blue = rgb
    colours = [4 * F.relu(red - green), 4 * F.relu(green - (red + blue) / 2)]
    grey = F.pad(rgb.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    edges = F.conv2d(grey, torch.stack([EDGE, EDGE.T])[:, None]).abs()[0]
    return torch.stack([*colours, *edges])[None]

features = look_at(photo)

# %%
fig, axes = plt.subplots(1, 5, figsize=(10, 1.9))
axes[0].imshow(photo.movedim(0, 2).numpy())
axes[0].set(xticks=[], yticks=[]), axes[0].set_title("photograph", fontsize="small")
for ax, channel, title in zip(axes[1:], features[0], names, strict=True):
    heatmap(channel, ax=ax, colorbar=False)
    ax.set(xticks=[], yticks=[]), ax.set_title(title, fontsize="small")
show(fig, alt="A temple with red walls by a lake, and four channels: the red walls, the green "
     "trees, and the temple's horizontal and vertical edges.")

# %% [markdown]
# (Photograph by danielbuechele, [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), from scikit-learn's copy,
# scaled down.)
#
# Now a wish: **keep the brightness of the picture where there is red, and put zero everywhere else.** Every number that
# this needs is there, at the place where it is needed. Can a layer do it?
#
# A linear layer, a $1 \times 1$ convolution for example, computes a weighted sum at each place. Let $a$ be the
# brightness, with its mean taken away, and let $m$ be a marker, 1 where there is red and 0 elsewhere. Wanted is $m\,a$.
# The layer can offer $\alpha\, a + \beta\, m + \gamma$, with three numbers that are the same everywhere. **Predict:**
# how well does the best choice do?

# %%
a = photo.mean(0) - photo.mean()
m = (features[0, 0] > 0.5).double()
offers = torch.stack([a, m, torch.ones_like(a)], -1).flatten(0, 1)
best = torch.linalg.lstsq(offers, (m * a).flatten()[:, None]).solution
linear = (offers @ best)[:, 0].view_as(a)
gated = a * torch.sigmoid(20 * (m - 1 / 2))

# %%
fig, axes = plt.subplots(1, 5, figsize=(10, 1.9), width_ratios=[1, 1, 1, 1, 1.2])
shown = {"brightness a": a, "marker m, 0 or 1": m * 0.6, "wanted: m a": m * a,
         "best weighted sum": linear, "a times a gate": gated}
for ax, (title, values) in zip(axes, shown.items(), strict=True):
    heatmap(values, ax=ax, limits=(-0.6, 0.6), signed=True, colorbar=ax is axes[-1])
    ax.set(xticks=[], yticks=[]), ax.set_title(title, fontsize="small")
show(fig, alt="Five maps: brightness, marker, the brightness where the marker is on, the best "
     "weighted sum, one flat shade where the marker is on, and the gated map, as wanted.")

# %% [markdown]
# **What to see.** The weighted sum has found the places, and paints them in one flat shade, their mean brightness. To
# show the pattern it would need the brightness $a$, and with $a$ come the sky, the trees and the lake, since $\alpha$
# is the same everywhere. So it hardly uses $a$ at all, and misses a good third of what we wanted. The last panel
# multiplies $a$ by $\sigma(20(m - \tfrac12))$, a number near 1 where the marker is on and near 0 where it is off. It
# gives what we wanted.

# %%
missed = (m * a - linear).square().sum() / (m * a).square().sum()
assert 0.33 < missed < 0.42 and best[0].abs() < 0.1
assert (m * a - gated).abs().max() < 1e-4

# %% [markdown]
# How good *can* a weighted sum be? Take the fair case: $a$ has mean 0 and variance 1, the marker is on in half of all
# places, and neither knows of the other. Since $m$ is 0 or 1, $m^2 = m$, and the wanted signal has the variance
# $\mathbb{E}[m a^2] = \tfrac12$. The best $\beta$ and $\gamma$ are 0, since $m\,a$ has the mean 0 whether the marker is
# on or not. The best $\alpha$ is $\mathbb{E}[m a \cdot a] = \tfrac12$. What is left is
#
# $$\mathbb{E}\big[(m a - \tfrac12 a)^2\big] = \mathbb{E}\big[(m - \tfrac12)^2\big]\, \mathbb{E}[a^2] = \tfrac14, \quad
# \text{half of the wanted variance} \tag{7.1}$$

# %%
content, marker = torch.randn(200_000).double(), torch.randint(2, (200_000,)).double()
offered = torch.stack([content, marker, torch.ones_like(content)], 1)
solution = torch.linalg.lstsq(offered, (marker * content)[:, None]).solution[:, 0]
left_over = marker * content - offered @ solution
assert (solution - torch.tensor([0.5, 0, 0]).double()).abs().max() < 0.02
assert abs(left_over.var() - 1 / 4) < 0.01 and abs((marker * content).var() - 1 / 2) < 0.01  # (7.1)

# %% [markdown]
# In the fair case one weighted sum loses at least half, whatever its weights. What is missing is a **product of two things that
# are measured in the same map**. Two layers with a ReLU between them can imitate one, as long as no $|a|$ is larger
# than some $M$: $m\,a = \mathrm{relu}(a + M m - M) - \mathrm{relu}(-a + M m - M)$. (Try both values of $m$.) But that
# takes two hidden units for each number and a bound on $a$. A gate is the direct way: one multiplication. On a feature
# map it leaves one thing to choose. **How many decisions are there?** One for each channel, one for each place, or one
# for every single number.

# %%
M = content.abs().max()
imitation = F.relu(content + M * marker - M) - F.relu(-content + M * marker - M)
assert torch.allclose(imitation, marker * content)

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. The feature map below has four channels of 2 x 2 places; all notebooks of Part II use it, so that you can
# compare their gates.

# %%
from attnlib.lab.data import example_feature_map

x = example_feature_map()
for c in range(4):
    print(f"channel {c}:", x[0, c].int().tolist())

# %% [markdown]
# ### One number for each channel
#
# The simplest **channel gate**. Descriptor: the mean of each channel over all places. Score: that mean times a weight
# of the channel's own. Gate: the sigmoid of the score.
#
# $$z_c = \frac1N \sum_p x_c(p), \qquad v_c = w_c\, z_c, \qquad s_c = \sigma(v_c) \tag{7.2}$$
#
# The means are $z = (2, 1, -1, 1)$. With $w = (1, 0, 2, 1)$ the scores are $v = (2, 0, -2, 1)$, and the gates
# $\sigma(2) = 0.881$, $\sigma(0) = 0.5$, $\sigma(-2) = 0.119$ and $\sigma(1) = 0.731$. Each channel is multiplied by
# its own, at all four places alike.

# %%
w = torch.tensor([1, 0, 2, 1]).double()
z = x.mean((2, 3), keepdim=True)  # (1, 4, 1, 1)
v = w[:, None, None] * z
by_channel = torch.sigmoid(v)
assert z.flatten().tolist() == [2, 1, -1, 1] and v.flatten().tolist() == [2, 0, -2, 1]
assert by_channel.flatten().round(decimals=3).tolist() == [0.881, 0.5, 0.119, 0.731]  # (7.2)

# %% [markdown]
# ### One number for each place
#
# The simplest **spatial gate** pools the other way round. Descriptor: at each place, the mean over the channels. Score:
# a $3 \times 3$ convolution of that map, with zeros around it; $K(d)$ is the weight of the place that lies $d$ away.
# Gate: the sigmoid.
#
# $$z(p) = \frac1C \sum_c x_c(p), \qquad v(p) = \sum_{d} K(d)\, z(p + d), \qquad s(p) = \sigma(v(p)) \tag{7.3}$$
#
# Let $K$ be 1 in the middle and $-\tfrac12$ around it: *how far does this place stand out?* **Predict:** which of the
# four places gets the largest gate? Compute the four means before you run the cell.

# %%
K = torch.full((1, 1, 3, 3), -0.5).double()
K[0, 0, 1, 1] = 1
mean_map = x.mean(1, keepdim=True)  # (1, 1, 2, 2)
by_place = torch.sigmoid(F.conv2d(mean_map, K, padding=1))
assert (mean_map == 3 / 4).all()
assert torch.allclose(by_place, torch.sigmoid(torch.tensor(-3 / 8).double()))  # (7.3)
print("s =", by_place[0, 0].round(decimals=3).tolist())

# %% [markdown]
# None does. All four means are $\tfrac34$, so each place has the score $\tfrac34 - \tfrac12 \cdot 3 \cdot \tfrac34 =
# -\tfrac38$. The 4 in the top left corner of channel 3 is plain to see, and the $-2$ of channel 2 has cancelled half of
# it. **What the descriptor has averaged away, no score brings back.** Take the maximum over the channels for a
# descriptor, and leave everything else as it is: it is $\begin{pmatrix} 4 & 2 \\ 3 & 2 \end{pmatrix}$. The top left
# place has the score $4 - \tfrac12(2 + 3 + 2) = \tfrac12$, the others have $-2.5$, $-1$ and $-2.5$.

# %%
max_map = x.amax(1, keepdim=True)
by_place_max = torch.sigmoid(F.conv2d(max_map, K, padding=1))
assert F.conv2d(max_map, K, padding=1).flatten().tolist() == [0.5, -2.5, -1, -2.5]
print("s =", by_place_max[0, 0].round(decimals=3).tolist())

# %% [markdown]
# ### One number for each channel and place
#
# The **joint gate** pools nothing. Its descriptor is the map itself, its score a weighted sum over the channels at each
# place (a $1 \times 1$ convolution):
#
# $$z = x, \qquad v_c(p) = \sum_k W_{ck}\, x_k(p), \qquad s_c(p) = \sigma(v_c(p)), \qquad
# W = \begin{pmatrix} 0 & 0 & 0 & 1 \\ 0 & 0 & 0 & -1 \\ 1 & 0 & 0 & 0 \\ 0 & 1 & 0 & -1 \end{pmatrix} \tag{7.4}$$
#
# With this $W$, channel 0 opens where channel 3 is on, and channel 1 shuts there. At the top left place $x = (1, 0, -2,
# 4)$, so $v = (4, -4, 1, -4)$; at the bottom right one $x = (2, 2, -1, 0)$ and $v = (0, 0, 2, 2)$.

# %%
W = torch.tensor([[0, 0, 0, 1], [0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, -1]]).double()
scores = torch.einsum("ck,bkhw->bchw", W, x)
by_both = torch.sigmoid(scores)
assert scores[0, :, 0, 0].tolist() == [4, -4, 1, -4] and scores[0, :, 1, 1].tolist() == [0, 0, 2, 2]
assert by_both[0, :, 1, 1].round(decimals=3).tolist() == [0.5, 0.5, 0.881, 0.881]  # (7.4)

# %%
gates = {"channel": by_channel, "place": by_place_max, "joint": by_both}
fig, axes = plt.subplots(3, 4, figsize=(5.2, 3))
for row, (name, s) in zip(axes, gates.items(), strict=True):
    for c, (ax, values) in enumerate(zip(row, s.expand_as(x)[0], strict=True)):
        heatmap(values, ax=ax, colorbar=c == 3)
        ax.set(xticks=[], yticks=[], ylabel=name * (c == 0), title=f"{c}" * (name == "channel"))
show(fig, alt="Gates of three kinds on four channels of 2 x 2 places. Channel: each panel has "
     "one colour. Place: all panels are equal. Joint: panels and places differ.")

# %% [markdown]
# **What to see.** *Top:* each panel has a single number, and the panels differ. *Middle:* the panels are all the same,
# and the places differ. *Bottom:* sixteen decisions. Only what is drawn here multiplies $x$; everything else in Part II
# is about how these numbers are found.

# %% [markdown]
# ## 4 · One table that runs · *Core*
#
# The three gates differ in three functions and in nothing else:
#
# $$z = \text{descriptor}(x), \qquad v = \text{score}(z), \qquad s = \text{gate}(v), \qquad y = s \odot x \tag{7.5}$$
#
# First the last row of the table, as an exercise.
#
# ### Exercise 07.1 · the joint gate · *Core* · 10 minutes
#
# Write (7.4) for a batch, without loops. `x` is (b, c, h, w), `W` is (c, c); return the gates, (b, c, h, w). Replace
# the line `raise NotImplementedError` and run the cell.
#
# <details><summary>Hint 1</summary>
#
# At each place the channels form a vector. It is multiplied by $W$, and then comes the sigmoid.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.einsum` writes the sum of (7.4) as it stands: c and k are the axes of `W`, and k is the one that is summed.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.einsum("ck,bkhw->bchw", W, x)` are the scores. A convolution with the kernel `W[:, :, None, None]` gives the same.
#
# </details>

# %% tags=["exercise"]
def joint_gate(x, W):
    """x (b, c, h, w), W (c, c) -> gates (b, c, h, w)."""
    raise NotImplementedError

joint_gate = check("07.1", joint_gate)

# %% tags=["solution"]
def joint_gate(x, W):
    scores = torch.einsum("ck,bkhw->bchw", W, x)
    return torch.sigmoid(scores)

# %% [markdown]
# Now the table. Each row holds a descriptor, a score and a gate, and the *same three lines* run every row.
# `keepdim=True` keeps an axis of size one where something was pooled; broadcasting repeats it, and so one product
# serves for all shapes.

# %%
channel_means = lambda x: x.mean((2, 3), keepdim=True)  # b c 1 1
place_means = lambda x: x.mean(1, keepdim=True)         # b 1 h w
everything = lambda x: x                                # b c h w

by_weight = lambda w: lambda z: w[:, None, None] * z    # the scores, for given weights
by_window = lambda K: lambda z: F.conv2d(z, K, padding=1)
by_matrix = lambda W: lambda z: F.conv2d(z, W[:, :, None, None])

# %%
TABLE = {"channel": (channel_means, by_weight(w), torch.sigmoid),
         "place": (place_means, by_window(K), torch.sigmoid),
         "joint": (everything, by_matrix(W), torch.sigmoid)}

def gate_of(x, descriptor, score, gate):
    z = descriptor(x)
    v = score(z)
    return gate(v)

# %%
for name, row in TABLE.items():
    s = gate_of(x, *row)
    y = s * x
    print(f"{name:8} gate {tuple(s.shape)}, {s[0].numel():2} decisions for {x[0].numel()} numbers")
    assert y.shape == x.shape  # (7.5)
assert torch.equal(gate_of(x, *TABLE["channel"]), by_channel)
assert torch.allclose(gate_of(x, *TABLE["joint"]), joint_gate(x, W))

# %% [markdown]
# ### Published mechanisms are rows
#
# Three mechanisms of the following notebooks, with the layers of the course's library for their scores.
# Squeeze-and-Excitation (08) scores the channels' means by two layers, ECA (09) by a convolution along the channels;
# CBAM's spatial gate (10) has the maximum and the mean over the channels for a descriptor.

# %%
from attnlib import EfficientChannelAttention, SpatialAttention, SqueezeExcitation

se, eca = SqueezeExcitation(8, reduction=2), EfficientChannelAttention(8)
sam = SpatialAttention(8, norm=False)
two_layers = lambda z: se.W_2(F.relu(se.W_1(z.flatten(1))))[:, :, None, None]
along_channels = lambda z: eca.conv(z.flatten(2).mT).mT[..., None]
max_and_mean = lambda x: torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)

# %%
PUBLISHED = {"SE": (channel_means, two_layers, torch.sigmoid),
             "ECA": (channel_means, along_channels, torch.sigmoid),
             "CBAM, spatial": (max_and_mean, sam.conv, torch.sigmoid)}
maps = torch.randn(2, 8, 9, 7)
for row, module in zip(PUBLISHED.values(), (se, eca, sam), strict=True):
    assert torch.allclose(gate_of(maps, *row), module.weights(maps), atol=1e-6)
    assert torch.allclose(maps * gate_of(maps, *row), module(maps), atol=1e-6)

# %% [markdown]
# The whole of each mechanism is one row of (7.5). That is the plan of Part II: each notebook asks for one row **why
# this descriptor, why this score**, and what it buys.
#
# ### What a gate cannot do
#
# A sigmoid lies strictly between 0 and 1. So whatever the row, for every single number
#
# $$x_c(p) = 0 \;\Rightarrow\; y_c(p) = 0, \qquad \mathrm{sign}\, y_c(p) = \mathrm{sign}\, x_c(p), \qquad |y_c(p)| \le |x_c(p)| \tag{7.6}$$
#
# A gate fades. It moves nothing from place to place, mixes no channel into another, and fills no hole. (The mixing
# happens inside the score, on the way to the gate.) And who knows the gate can undo it: $x = y / s$.

# %%
for row in TABLE.values():
    y = x * gate_of(x, *row)
    assert (y[x == 0] == 0).all() and torch.equal(y.sign(), x.sign())  # (7.6)
    assert (y.abs() <= x.abs()).all()
    assert torch.allclose(y / gate_of(x, *row), x)

# %% [markdown]
# ### The other family
#
# Self-attention (notebook [02](02_self_attention.ipynb)) on a feature map takes the $N$ places for tokens: the vector
# $x(p)$ of the $C$ channels at a place is one token. In its barest form, without matrices for queries, keys and values
# and without a scale, there is a score for every *pair* of places, their dot product; a softmax makes weights of each
# row of scores; and what goes out is a weighted average over all places:
#
# $$P_{pq} = \frac{e^{x(p) \cdot x(q)}}{\sum_{q'} e^{x(p) \cdot x(q')}}, \qquad y(p) = \sum_q P_{pq}\, x(q) \tag{7.7}$$
#
# **Predict:** which of the three statements of (7.6) does it obey?

# %%
from attnlib.sequence import dot_product_attention

def pair_weights(x):  # (b, c, h, w) -> (b, n, n)
    tokens = x.flatten(2).mT  # b n c
    return (tokens @ tokens.mT).softmax(-1)

def pairs(x):
    return (pair_weights(x) @ x.flatten(2).mT).mT.view_as(x)

# %%
tokens = maps.flatten(2).mT
output, P = dot_product_attention(tokens, tokens, tokens, scale=1.0)
assert torch.allclose(pairs(maps), output.mT.view_as(maps), atol=1e-5)  # (7.7)
assert torch.allclose(pair_weights(maps), P, atol=1e-6) and P.shape == (2, 63, 63)
holes = pairs(x)[x == 0]
print("holes filled:", int((holes != 0).sum()), "of", len(holes))
assert (holes != 0).all() and not torch.equal(pairs(x).sign(), x.sign())
assert (pairs(x).abs() > x.abs()).any()  # (7.6): none of the three

# %% [markdown]
# None of them. It is not a row of the table: its weights form an $N \times N$ matrix for each image, no product with
# $x$ entry by entry can use them, and the output *mixes* places. Keep the two families apart: **a gate says how much of
# it; an average over pairs says from where.**

# %% [markdown]
# ## 5 · The gradient through a gate · *Depth*
#
# In $y = s(x) \odot x$ the map appears twice: as what is scaled, and inside the gate. Number all entries of the map by
# $i$ and write the gate out to the map's shape. By the product rule, $y_i = s_i x_i$ moves with the entry $x_j$ at the
# speed
#
# $$\frac{\partial y_i}{\partial x_j} = s_i\, \delta_{ij} + x_i\, \frac{\partial s_i}{\partial x_j}, \qquad\text{in one line}\quad
# J_y = \underbrace{\mathrm{diag}(s)}_{\text{direct}} + \underbrace{\mathrm{diag}(x)\, J_s}_{\text{through the gate}} \tag{7.8}$$
#
# ($\delta_{ij}$ is 1 for $i = j$, else 0; $J_s$ is the Jacobian of the gate.) This holds for every row of the table,
# whatever is in it:

# %%
from attnlib.lab.gradients import jacobian

def product_rule_holds(row, x):
    s = gate_of(x, *row).expand_as(x).flatten()
    J_s = jacobian(lambda x: gate_of(x, *row).expand_as(x).flatten(), x).flatten(1)
    J_y = jacobian(lambda x: (gate_of(x, *row) * x).flatten(), x).flatten(1)
    return torch.allclose(J_y, s.diag() + x.flatten().diag() @ J_s)

# %%
small = torch.randn(1, 4, 4, 3).double()
assert all(product_rule_holds(row, small) for row in TABLE.values())  # (7.8)

# %% [markdown]
# Backwards, the transposed Jacobian is multiplied by what arrives from above (toolbox,
# [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products)):
#
# $$\frac{\partial L}{\partial x} = s \odot g + J_s^\top (x \odot g) \tag{7.9}$$
#
# Read the second term from right to left. $x \odot g$ is the gradient of the gate (where one gate serves several
# entries, they add up); $J_s^\top$ takes it back through sigmoid, score and descriptor. If the gate did not depend on
# $x$, the second term would be zero: a gate that is a mere parameter scales the gradient and that is all.

# %%
def both_parts(row, x, g):  # J_s^T is autograd's
    leaf = x.clone().requires_grad_()
    s = gate_of(leaf, *row).expand_as(x)
    through = torch.autograd.grad(s, leaf, x * g)[0]
    whole = torch.autograd.grad(leaf * gate_of(leaf, *row), leaf, g)[0]
    return s.detach() * g, through, whole

# %%
for row in TABLE.values():
    direct, through, whole = both_parts(row, small, torch.randn_like(small))
    assert torch.allclose(direct + through, whole)  # (7.9)
    assert not torch.allclose(direct, whole, rtol=0.01)  # the second part is not small change

# %% [markdown]
# ### Exercise 07.2 · the simplest gate backward · *Depth* · 15 minutes
#
# For the channel gate (7.2), $s_c = \sigma(w_c z_c)$, write $\partial L/\partial x$. `g` and `x` are (b, c, h, w), `w`
# is (c,); return (b, c, h, w).
#
# <details><summary>Hint 1</summary>
#
# All places of a channel share $s_c$, so the gradient of $s_c$ is $\sum_p g_c(p)\, x_c(p)$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# From $s$ to $v$: the slope of the sigmoid, $s(1-s)$. From $v$ to $z$: $w_c$. From $z$ to each place: its share in the
# mean, $1/N$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `s * g + dz / n`, where `dz = (g * x).sum((2, 3), keepdim=True) * s * (1 - s) * w[:, None, None]`.
#
# </details>

# %% tags=["exercise"]
def gate_backward(g, x, w):
    """g and x (b, c, h, w), w (c,) -> the gradient for x, (b, c, h, w)."""
    raise NotImplementedError

gate_backward = check("07.2", gate_backward)

# %% tags=["solution"]
def gate_backward(g, x, w):
    s = torch.sigmoid(w[:, None, None] * x.mean((2, 3), keepdim=True))
    ds = (g * x).sum((2, 3), keepdim=True)
    dz = ds * s * (1 - s) * w[:, None, None]
    return s * g + dz / (x.shape[2] * x.shape[3])

# %% [markdown]
# The result, for your notes:
#
# $$\frac{\partial L}{\partial x_c(p)} = s_c\, g_c(p) + \frac{w_c}{N}\, s_c (1 - s_c) \sum_{q} g_c(q)\, x_c(q) \tag{7.10}$$
#
# Held against autograd and against central differences, which know nothing of any derivative:

# %%
from attnlib.lab.gradients import compare_gradients

def forward(x, w):
    return x * gate_of(x, channel_means, by_weight(w), torch.sigmoid)

def backward(g, x, w):
    s = gate_of(x, channel_means, by_weight(w), torch.sigmoid)
    dv = (g * x).sum((2, 3), keepdim=True) * s * (1 - s)
    return {"x": gate_backward(g, x, w), "w": (dv * channel_means(x)).sum((0, 2, 3))}

# %%
table = compare_gradients(forward, backward, {"x": torch.randn(2, 4, 3, 2).double(), "w": w})
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (7.10)
table

# %% [markdown]
# ### What a gate of one half does at the start
#
# Before training, scores are small, and $\sigma(0) = \tfrac12$. Suppose that all weights of the score are zero. Then $s
# = \tfrac12$ and $J_s = 0$, so a block halves its output, and by (7.9) it halves the gradient too. $T$ of them, one
# behind the other, leave
#
# $$y = 2^{-T}\, x, \qquad \frac{\partial L}{\partial x} = 2^{-T}\, g \tag{7.11}$$
#
# A class for a row of the table, whose score may be a layer with weights to train:

# %%
class Gate(nn.Module):
    def __init__(self, descriptor, score, gate=torch.sigmoid):
        super().__init__()
        self.descriptor, self.score, self.gate = descriptor, score, gate
    def weights(self, x):
        return self.gate(self.score(self.descriptor(x)))
    def forward(self, x):
        return x * self.weights(x)

# %%
zero = Gate(channel_means, nn.Conv2d(16, 16, 1)).double()
for parameter in zero.parameters():
    nn.init.zeros_(parameter)
batch, above = torch.randn(2, 8, 16, 6, 6).double()
ten = nn.Sequential(*[zero] * 10)
assert torch.equal(ten(batch), batch / 2**10)  # (7.11)
leaf = batch.clone().requires_grad_()
assert torch.allclose(torch.autograd.grad(ten(leaf), leaf, above)[0], above / 2**10)  # (7.11)

# %% [markdown]
# Two things can stand around a gate that change this. The first is a **batch normalisation behind it**. That divides
# each channel by its standard deviation, so a factor $k > 0$ on a whole channel cancels (up to its small $\epsilon$):
#
# $$\mathrm{BN}(k\,x) = \mathrm{BN}(x) \tag{7.12}$$
#
# Both sides being the same function of $x$, their gradients are the same too: forward and backward, the half is gone.
# By the same token a gate of (7.5) that is one number for a channel, the same *for all images*, does nothing in front
# of a batch norm. It is the differences between images and places that get through.

# %%
norm = lambda x: F.batch_norm(x, None, None, training=True)
factor = torch.tensor([0.5, 0.1, 3.0] + 13 * [1.0]).double()[:, None, None]
assert torch.allclose(norm(factor * batch), norm(batch), atol=5e-3)  # (7.12)
of = lambda f: torch.autograd.grad(norm(f * leaf), leaf, above)[0]
assert torch.allclose(of(factor), of(1), atol=5e-3)  # (7.12), backward
for descriptor in (channel_means, everything):  # gates that differ between images, or places
    gate = Gate(descriptor, nn.Conv2d(16, 16, 1)).double()
    assert (norm(gate(batch)) - norm(batch)).abs().max() > 0.05

# %% [markdown]
# The second is a **residual block**: $x + s\, F(x)$ halves only what the branch adds, and the identity stays whole. The
# toolbox derives it ([where to put a gate](00_toolbox.ipynb#Where-to-put-a-gate)) and follows the gradient through
# twenty blocks. Here are the three together, ten deep, with fresh channel gates of random weights; the branch $F$ is a
# $1 \times 1$ convolution with random weights that keeps sizes on average.
#
# **Predict** three curves for the size of the map after 0, 1, ..., 10 blocks. (The gradient on its way back is measured
# too, in the cell below the figure.)

# %%
fresh = [Gate(channel_means, nn.Conv2d(16, 16, 1)).double() for _ in range(10)]
branches = torch.randn(10, 16, 16, 1, 1).double() / 4  # 1/4 for the square root of 16 channels
with torch.no_grad():
    starts = torch.stack([gate.weights(batch).mean() for gate in fresh])
assert starts.min() > 0.4 and starts.max() < 0.6  # the mean gate of each fresh block
steps = {"gates alone": lambda x, gate, F_l: gate(x),
         "a batch norm behind each": lambda x, gate, F_l: norm(gate(x)),
         "gate on a residual branch": lambda x, gate, F_l: x + gate(F.conv2d(x, F_l))}

# %%
def sizes(step):
    states = [batch.clone().requires_grad_()]
    for gate, F_l in zip(fresh, branches, strict=True):
        states.append(step(states[-1], gate, F_l))
    gradients = torch.autograd.grad(states[-1], states, above)
    return [[(t.norm() / first.norm()).item() for t in ts]
            for ts, first in ((states, batch), (gradients, above))]

measured = {name: sizes(step) for name, step in steps.items()}

# %%
ax = plt.subplots(figsize=(4.6, 2.4))[1]
for (name, (map_sizes, _)), line in zip(measured.items(), ["-", "--", ":"], strict=True):
    ax.plot(map_sizes, line, lw=2, label=name)
ax.set(yscale="log", ylabel="size / size at the start", xlabel="blocks passed", ylim=(5e-4, 10))
ax.legend(fontsize=8)
show(ax.figure, alt="Size of the map over ten blocks, logarithmic: with gates alone it falls to a "
     "thousandth; with batch norms it stays, on residual branches it grows to three.")

# %%
alone, normed, residual = measured.values()
assert all(1 / 4 < size * 2**10 < 4 for size in (alone[0][-1], alone[1][0]))
assert all(0.4 < size < 2.5 for size in (normed[0][-1], normed[1][0]))
assert all(2 < size < 4.5 for size in (residual[0][-1], residual[1][0]))

# %% [markdown]
# **What to see.** Alone, ten gates leave about a thousandth of the map, and a thousandth of the gradient arrives at the
# first one: $2^{-10}$, as (7.11) says. (These gates have random weights, and still it is near enough.) Behind batch
# norms, and on residual branches, nothing of the kind happens; the residual stream even grows, by a factor of about
# $\sqrt{1 + \tfrac14}$ a block, which makes three in ten. So a gate that starts at one half makes neither map nor
# gradient vanish on a residual branch or in front of a batch norm. It does where nothing of the kind stands around it.

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# Back to the photograph. The same table, now with weights set by hand for its four channels: the channel gate turns up
# red and horizontal edges and turns down the other two; the spatial gate opens where the mean over the channels and
# over $3 \times 3$ places passes a threshold; the joint gate lets red and green compete, and likewise the two kinds of
# edges.

# %%
SIGNS = torch.tensor([20, -20, 20, -20]).double()
RIVALS = 8 * torch.tensor([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]]).double()
much = lambda z: 30 * F.avg_pool2d(z, 3, stride=1, padding=1) - 4
HAND = {"channel": (channel_means, by_weight(SIGNS), torch.sigmoid),
        "place": (place_means, much, torch.sigmoid),
        "joint": (everything, by_matrix(RIVALS), torch.sigmoid)}

# %%
fig, axes = plt.subplots(3, 4, figsize=(7.4, 4))
for row, (name, settings) in zip(axes, HAND.items(), strict=True):
    gate = gate_of(features, *settings).expand_as(features)[0]
    for ax, channel, title in zip(row, gate, names, strict=True):
        heatmap(channel, ax=ax, colorbar=ax is row[3])
        ax.set(xticks=[], yticks=[], ylabel=name * (ax is row[0])), ax.set_title(title, fontsize=8)
show(fig, alt="Three gates on the photograph's four channels. Channel: flat panels, two bright, "
     "two dark. Place: four equal maps, bright on the outlines. Joint: four different maps.")

# %% [markdown]
# **What to see.** *Channel:* four flat panels; this gate knows that there is much red, and not where. *Place:* four
# times the same panel; this gate has found the outlines of temple and hills, and cannot say "their edges, but not their
# colour". *Joint:* 4,160 decisions. Where neither rival is on, as red and green in the sky, the score is near 0 and the
# gate near one half.

# %%
decided = gate_of(features, *HAND["joint"])
assert decided.numel() == 4160 and (decided[0, :2, :6, 26:] - 1 / 2).abs().max() < 0.05  # the sky

# %% [markdown]
# And the other family? It has no panel for a channel but one *for each place that asks*: row $p$ of $P$ in (7.7). For
# the tokens we take what is left of red, green and blue when their mean at the place, its grey, is taken away; scaled
# to length one, times $\sqrt{20}$, so that the score is 20 times the cosine.

# %%
without_grey = (photo - photo.mean(0)).flatten(1).T  # (1040, 3)
colours = F.normalize(without_grey, dim=1) * 20**0.5

def weights_from(row, column):
    weights = (colours @ colours[40 * row + column]).softmax(0).view(26, 40)
    return weights / weights.max()

# %%
def explore(row=13, column=10):
    fig, axes = plt.subplots(1, 2, figsize=(4.6, 1.6))
    axes[0].imshow(photo.movedim(0, 2).numpy())
    heatmap(weights_from(row, column), ax=axes[1], label="weight / largest")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.plot(column, row, "s", color="red", fillstyle="none", markersize=9, markeredgewidth=2)
    show(fig, alt=f"The photograph and the weights of all places for row {row}, column {column}.")

# %%
explore(13, 10)
explore(15, 38)
assert weights_from(13, 10)[14:, 32:].max() < 0.1 and weights_from(15, 38)[13, 10] < 0.01
assert weights_from(13, 10)[19, 12] > 0.9 and weights_from(15, 38)[23, :4].min() > 0.4
assert weights_from(15, 38)[[11, 15], [12, 8]].min() > 0.8  # two places in the eaves

# %% [markdown]
# **What to see.** The place in the red wall (marked by a square) looks at the walls of all storeys, and hardly at a tree; the
# place in the tree looks at trees on both sides of the picture, and at the temple's green eaves. The distance does not
# count here, only whether the contents agree. Try other places (the sliders need a running kernel):

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, row=(0, 25), column=(0, 39));

# %% [markdown]
# ### Signatures
#
# A picture of a gate shows what it *says*. What does it *listen to*? That is the Jacobian of the gate: $J_{c p k q} =
# \partial s_c(p) / \partial x_k(q)$ says how fast the gate of channel $c$ at place $p$ moves with channel $k$ at place
# $q$. It has four axes, too many to draw. So we ask for channels and for places separately, and take the root of the
# mean square over what is left out:
#
# $$A_{ck} = \sqrt{\frac{1}{N^2} \sum_{p, q} J_{cpkq}^2}, \qquad D_{pq} = \sqrt{\frac{1}{C^2} \sum_{c, k} J_{cpkq}^2} \tag{7.13}$$
#
# Each matrix is then divided by its largest entry. The pair is the **signature** of the mechanism: row $c$ of $A$ shows
# which channels a channel listens to, row $p$ of $D$ which places a place listens to. For self-attention, which has no
# gate, we take the output in place of $s$.
#
# ### Exercise 07.3 · the signature · *Core* · 10 minutes
#
# `J` is (c, n, c, n), as above. Return the pair ($A$, $D$), of the shapes (c, c) and (n, n), each divided by its
# largest entry.
#
# <details><summary>Hint 1</summary>
#
# For $A$ the axes of places are averaged away, for $D$ the axes of channels. Which numbers have they in `J`?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Square first, then the mean, then the root: `J.square().mean(axes).sqrt()`. Without the square, slopes of opposite
# sign cancel.
#
# </details>
# <details><summary>Hint 3</summary>
#
# For $A$: `J.square().mean((1, 3)).sqrt()`; for $D$ the axes are `(0, 2)`. Then divide each by its own `.max()`.
#
# </details>

# %% tags=["exercise"]
def signature_of(J):
    """J (c, n, c, n) -> A (c, c) and D (n, n), each with the largest entry 1."""
    raise NotImplementedError

signature_of = check("07.3", signature_of)

# %% tags=["solution"]
def signature_of(J):
    A = J.square().mean((1, 3)).sqrt()
    D = J.square().mean((0, 2)).sqrt()
    return A / A.max(), D / D.max()

# %% [markdown]
# The laboratory's `signature` takes the Jacobian itself and does the rest as you did:

# %%
from attnlib.lab.signatures import draw_signature, signature

places = 0.4 * torch.randn(1, 4, 4, 4).double()
w_r, K_r, W_r = (torch.randn(size).double() for size in [(4,), (1, 1, 3, 3), (4, 4)])
random_rows = {"channel": (channel_means, by_weight(w_r), torch.sigmoid),
               "place": (place_means, by_window(K_r), torch.sigmoid),
               "joint": (everything, by_matrix(W_r), torch.sigmoid)}
listens = {name: lambda x, row=row: gate_of(x, *row) for name, row in random_rows.items()}
listens["self-attention"] = pairs

# %%
found = {name: signature(f, places) for name, f in listens.items()}
for name, f in listens.items():
    J = jacobian(lambda x, f=f: f(x).expand_as(x), places).view(4, 16, 4, 16)
    ours, theirs = signature_of(J), (found[name].channels, found[name].places)
    assert all(torch.allclose(*both) for both in zip(ours, theirs, strict=True))  # (7.13)

# %% [markdown]
# **Predict first.** Five pairs of patterns, on 4 channels and 4 x 4 places. Which belongs to which mechanism?
#
# | | matrix $A$ over channels | matrix $D$ over places |
# |---|---|---|
# | (a) | only the diagonal | all alike |
# | (b) | all alike | a band along the diagonal, with gaps, dark beyond it |
# | (c) | uneven, and nothing dark | only the diagonal |
# | (d) | uneven, and nothing dark | uneven, and nothing dark |
# | (e) | uneven, and nothing dark | all alike |
#
# **07.d** the channel gate (7.2) · **07.e** the spatial gate (7.3) · **07.f** the joint gate (7.4) · **07.g**
# self-attention over places (7.7)

# %% tags=["exercise"]
check("07.d", ...)
check("07.e", ...)
check("07.f", ...)
check("07.g", ...)

# %% tags=["solution"]
check("07.d", "a")
check("07.e", "b")
check("07.f", "c")
check("07.g", "d")

# %%
fig, axes = plt.subplots(2, 4, figsize=(9.4, 5))
for column, (name, pattern) in zip(axes.T, found.items(), strict=True):
    draw_signature(pattern, axes=column, title=name)
show(fig, alt="Signatures of four mechanisms. Channel gate: diagonal, flat. Spatial gate: flat, "
     "a band. Joint gate: full, diagonal. Self-attention: everything is lit, unevenly.")

# %% [markdown]
# **What to see.** (A square root is drawn, so that weak can be told from none.) Each pattern can be read off the
# equations. Differentiate (7.2), (7.3) and (7.4):
#
# $$\underbrace{\delta_{ck}\, \frac{w_c\, s_c(1 - s_c)}{N}}_{\text{channel}}, \qquad
# \underbrace{\frac{K(q - p)}{C}\, s(p)(1 - s(p))}_{\text{place}}, \qquad
# \underbrace{\delta_{pq}\, W_{ck}\, s_c(p)(1 - s_c(p))}_{\text{joint}} \tag{7.14}$$
#
# The channel gate has no $p$ and no $q$: whatever it does, **it does the same for a place in the corner and a place in
# the middle**. The spatial gate has no $c$ and no $k$, and $K$ ends at its window. The joint gate has $\delta_{pq}$: no
# place hears another. (The diagonal of the spatial gate's $D$ need not be its brightest part: the weight in the middle
# of $K$ is a weight like the others.) Only self-attention lights everything, unevenly, and its pattern depends on the
# map: make the map's numbers three times as large, and the softmax leaves parts of $D$ as good as dark. (e), the one
# that is left over, is SE: notebook 08.

# %%
def differentiated(row, expected):
    J = jacobian(lambda x: gate_of(x, *row).expand_as(x), places).view(4, 16, 4, 16)
    s = gate_of(places, *row).expand_as(places).flatten(2)[0]
    slope = (s * (1 - s))[:, :, None, None]
    return torch.allclose(J, slope * expected)

one_channel, one_place = torch.eye(4)[:, None, :, None], torch.eye(16)[None, :, None, :]

# %%
window = lambda z: F.conv2d(z, K_r, padding=1)
K_pq = jacobian(window, torch.ones(1, 1, 4, 4).double()).view(1, 16, 1, 16)  # K(q - p) as a matrix
assert differentiated(random_rows["channel"], one_channel * w_r[:, None, None, None] / 16)  # (7.14)
assert differentiated(random_rows["place"], K_pq / 4)
assert differentiated(random_rows["joint"], one_place * W_r[:, None, :, None])
lit = found["self-attention"]
assert lit.channels.min() > 0.02 and lit.places.min() > 0.02  # (d)
assert signature(pairs, 3 * places).places.min() < 1e-3

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# The word "attention" is used for many things. Under one name, and often with the same drawing, authors differ in four
# choices:
#
# | choice | usual | others |
# |---|---|---|
# | descriptor | mean over places, or over channels | maximum beside it (CBAM), mean along rows and along columns (coordinate attention), none at all (GAM, YOLOv4) |
# | score | one or two layers | a batch norm's own scale (NAM), an energy without a parameter (SimAM), a product of branches (EMA) |
# | gate | sigmoid, 0 to 1 | $1 + \sigma(v)$, 1 to 2 (BAM); $\mathrm{relu6}(v + 3)/6$ (MobileNetV3) |
# | what it does | rescales | adds a context to every place (GC), mixes several convolutions (SK), averages over pairs (non-local) |
#
# We need not take anybody's word for it. The course's library has all sixteen, and four of its checks (part 10) find
# out by changing the input what a module's gate looks like and what it depends on. The fifth is (7.6): put zeros into
# the map and look whether they stay. A module that fills them is no gate. (The reverse is not certain: a ReLU on the
# map keeps zeros as well. But ours that keep them multiply the map by what `weights` returns: the second cell below
# the table.)
#
# **Predict:** in how many of the sixteen do zeros stay?

# %%
import re

from attnlib import build_attention
from attnlib.feature_map import REGISTRY
from attnlib.lab.checks import (check_gate_channels, check_gate_positions, check_gate_range,
                                check_gate_shape, redrawn)

probe = torch.randn(2, 8, 9, 8).double()
options = {name: {"reduction": 2} for name in ("se", "cbam", "bam", "gam", "gc", "coordinate")}
options |= {"ema": {"groups": 4}, "sk": {"groups": 4}}

# %%
def sentences(name):
    module = build_attention(name, 8, **options.get(name, {})).double().eval()
    checks = [check_gate_shape, check_gate_channels, check_gate_positions, check_gate_range]
    with_holes = torch.where(probe.abs() < 0.5, 0.0, probe)
    zeros_stay = bool((redrawn(module)(with_holes)[with_holes == 0] == 0).all())
    found = [check(module, probe).sentence.partition(", constant")[0] for check in checks]
    return [*(re.sub("a gate depends on |one number for each |the gate (stays|goes) ", "", sentence)
              for sentence in found), zeros_stay]

# %%
import pandas as pd

columns = ["one gate for each", "depends on channels", "depends on places", "range", "zeros stay"]
atlas = pd.DataFrame([sentences(name) for name in REGISTRY], index=list(REGISTRY), columns=columns)
atlas

# %%
gated = list(atlas.index[atlas["zeros stay"]])
assert len(REGISTRY) == 16 and len(gated) == 12
assert sorted(set(REGISTRY) - set(gated)) == ["emau", "gc", "nonlocal", "sk"]
assert list(atlas.index[atlas["one gate for each"] == "channel"]) == ["se", "eca"]
assert list(atlas.index[atlas["one gate for each"] == "position"]) == ["sam"]
assert atlas.loc[gated, "range"].str.contains("above 1").sum() == 1  # BAM
assert atlas.loc["point_sam", "depends on places"] == "its own position only"
assert all(atlas.loc["nam", columns[1:3]] == ["its own channel only", "its own position only"])

# %%
for name in gated:  # those that keep zeros multiply the map by a gate, CBAM by two
    module = build_attention(name, 8, **options.get(name, {})).double().eval()
    gates_of = module.weights(probe)
    product = gates_of[0] * gates_of[1] if name == "cbam" else gates_of
    assert torch.allclose(module(probe), probe * product)

# %% [markdown]
# **What to see.** Twelve are gates. The four that are not, fill holes: non-local blocks and expectation-maximisation
# attention (`emau`) average over places, `gc` adds the same context to every place, `sk` mixes two convolutions of the
# map. (For them, the first four columns speak of the output divided by the input, which is how the checks see a module
# without a gate.) Among the gates, only SE and ECA have one number for a channel, only CBAM's spatial half (`sam`) has
# one for a place. All others decide on every number, but they do not all *hear* everything: `point_sam` hears one
# place, `nam` one number. A window that is wider than the map of 9 x 8 is a box around what the gate hears, with gaps or
# without reaching the far corners (`triplet` hears a cross). The numbers of channels and groups are those of this small example.

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# ### The floor
#
# A gate that looks at the whole map cannot write its first number before it has read the last one. So it reads the map
# once for the descriptor, reads it again for the product (a large map has left the fast memory by then), and writes the
# result. With four bytes a number and one addition and one multiplication for each, that is
#
# $$3 \cdot 4\, CN \text{ bytes}, \qquad 2\, CN \text{ operations}, \qquad \frac{2}{12} = \frac16 \text{ operation for each byte} \tag{7.15}$$
#
# Compare a $3 \times 3$ convolution from $C$ to $C$ channels. It reads the map and writes one, 8 bytes a number, and
# does $9C$ multiply-accumulates, $18C$ operations, for each number: $18C/8$ for each byte, 144 at $C = 64$. The processors of our day
# compute far faster than they fetch. So the convolution's time goes into arithmetic, and the gate's time into **moving
# the map**. That is why a mechanism whose arithmetic is a thousandth of the network's may still cost a noticeable part
# of its time: counting multiplications does not see it.
#
# The course calls `x * x.mean((2, 3), keepdim=True)` the **cost floor** of a global gate.

# %%
from attnlib.lab.cost import count_macs, floor, time_against_floor

C, N = 64, 32 * 32
conv, large = nn.Conv2d(C, C, 3, padding=1, bias=False), torch.randn(1, C, 32, 32)
bytes_of_gate, bytes_of_conv = 3 * 4 * C * N, 2 * 4 * C * N
assert 2 * C * N / bytes_of_gate == 1 / 6  # (7.15)
macs_of_conv = count_macs(conv, large)
assert macs_of_conv == 9 * C * C * N and 2 * macs_of_conv / bytes_of_conv == 144
assert torch.equal(floor(large), large * large.mean((2, 3), keepdim=True))

# %% [markdown]
# **Predict** the time of each of these, as a multiple of the floor, for maps of 16 channels from 8 x 8 to 48 x 48
# places: half the map (`x * 0.5`: one reading, one writing), the three gates, a $3 \times 3$ convolution, and
# self-attention over places. Which lines are flat?
#
# We time each in turn with the floor, pair by pair, and draw the median ratio. On your machine it will look somewhat
# different.

# %%
class Half(nn.Module):
    def forward(self, x):
        return x * 0.5

class Pairs(nn.Module):
    def forward(self, x):
        return pairs(x)

# %%
timed = {"half the map": Half(), "channel gate": Gate(channel_means, nn.Conv2d(16, 16, 1)),
         "spatial gate": Gate(place_means, nn.Conv2d(1, 1, 3, padding=1)),
         "joint gate": Gate(everything, nn.Conv2d(16, 16, 1)),
         "3 x 3 convolution": nn.Conv2d(16, 16, 3, padding=1), "self-attention": Pairs()}
sides = [8, 16, 32, 48]
ratios = {name: [time_against_floor(module, torch.randn(1, 16, side, side), repeats=9)
                 for side in sides] for name, module in timed.items()}
assert ratios["self-attention"][-1] > max(ratios[name][-1] for name in list(timed)[1:4])

# %%
ax = plt.subplots(figsize=(5.6, 2.5))[1]
for (name, values), dot in zip(ratios.items(), "osv^DX", strict=True):
    ax.plot([side**2 for side in sides], values, marker=dot, label=name)
ax.axhline(1, color="black", ls="--", lw=1)
ax.set(xscale="log", yscale="log", xlabel="places N", ylabel="time / cost floor")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
show(ax.figure, alt="Time over the cost floor against the number of places, both logarithmic: "
     "self-attention climbs steeply to hundreds, all others stay below some tens.")

# %% [markdown]
# **What to see.** Half the map takes clearly less than the floor: two passes instead of three. The gates lie a few
# times above it: on such small maps each call of a function costs about as much as a pass over the map, and our gates
# call several. The channel gate comes nearer to the floor as the map grows, because what it does beside the floor does
# not grow with it. Self-attention leaves the picture: its weights alone are $N$ numbers for each place.
#
# ### Arithmetic
#
# Count the multiply-accumulates (MACs) of the scores for one image. For SE with reduction $r$, for a spatial gate with
# a $k \times k$ window over two maps, for the joint gate, and for self-attention as in (7.7), scores and average:
#
# $$\underbrace{2C^2/r}_{\text{SE}}, \qquad \underbrace{2k^2 N}_{\text{spatial}}, \qquad \underbrace{C^2 N}_{\text{joint}}, \qquad
# \underbrace{2\, C N^2}_{\text{pairs}} \tag{7.16}$$

# %%
blocks = {"SE": SqueezeExcitation(64), "spatial": SpatialAttention(64, norm=False),
          "joint": Gate(everything, nn.Conv2d(64, 64, 1, bias=False)), "pairs": Pairs()}
formulas = {"SE": lambda N: 2 * 64**2 // 16, "spatial": lambda N: 2 * 49 * N,
            "joint": lambda N: 64**2 * N, "pairs": lambda N: 2 * 64 * N**2}
for side in (8, 20):
    like = torch.randn(1, 64, side, side)
    counts = {name: count_macs(block, like) for name, block in blocks.items()}
    assert counts == {name: formula(side**2) for name, formula in formulas.items()}  # (7.16)

# %% [markdown]
# What is not in these counts, by the custom of the field, is the product with the gate and the pooling: $CN$ operations
# each. They are linear in $N$ too. Part 11 draws such counts for the library's modules.

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# When does it matter *along which axis* the gate decides? Here is a game in which the axis is known. A card has two
# sides, drawn in two channels, each with a handwritten digit in its lower half. One side has a bright square in its top
# left corner: **read the digit on that side.** Notebook 08 takes this game apart. Here we need three facts about the
# network that plays it: it has 16 channels behind two $3 \times 3$ convolutions, eight for each side; its last layer
# only adds up what it finds at the places; and the square lies so far from the digits that no unit behind the
# convolutions sees both.

# %%
from attnlib.lab.data import cued_digits
from attnlib.lab.plots import pictures

cards, new_cards = cued_digits(2000, split="train", seed=0), cued_digits(500, split="test", seed=1)
between = torch.full((4, 16, 1), 0.5)
shown = torch.cat([cards.images[:4, 0], between, cards.images[:4, 1]], 2)
show(pictures(shown, [f"card {i}: read {cards.labels[i]}" for i in range(4)])[0].figure,
     alt="Four cards with their two sides next to each other, each with a digit below; one side "
     "of each has a white square in its corner.")

# %% [markdown]
# Five networks: *plain*, without a gate; *own channel*, the gate (7.2) with a weight and a bias for each channel; *all
# channels*, where the score is a weighted sum of all 16 means; *places*, the gate (7.3); *joint*, the gate (7.4).
# **Predict for each:** can it tell which digit to report? What does each gate hear, and can it turn one digit down
# without turning down the other, which lies at the same place in the other channels?
#
# As a control, plain digits, where nothing needs to be chosen. Ten seeds on the cards and fifteen on the digits were
# trained beforehand; `notebooks/runs/07_attention_on_feature_maps.py` makes both tables again. One of the runs is made
# live, to show that the table comes from this recipe.
#
# **The rule.** We compare each of four gates with *plain*, seed by seed. Four comparisons give chance four
# opportunities; so that all four together are wrong at most once in twenty times, each must do with a quarter of the
# error. **We speak of a difference only if the mean lies more than 3.1 standard errors from zero on the cards
# (Student's $t$ for 10 seeds, two-sided, at $0.05/4$), and 2.9 on the digits (15 seeds).**

# %%
from attnlib.lab.data import load_results
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

on = {name: load_results(f"07_{name}").pivot(index="seed", columns="variant", values="accuracy")
      for name in ("cards", "digits")}
kinds = ["plain", "own channel", "all channels", "places", "joint"]

# %%
live = learn(cards, lambda: Gate(channel_means, nn.Conv2d(16, 16, 1)), seed=0, groups=2)
near = abs(accuracy(live, new_cards) - on["cards"].loc[0, "all channels"]) < 0.1
print("the live run is near its stored row:", near)

# %%
from attnlib.lab.plots import by_seed

fig, axes = plt.subplots(1, 2, figsize=(9.2, 2.4))
for ax, (name, table), low in zip(axes, on.items(), (0, 0.7), strict=True):
    by_seed({kind.replace(" ", "\n"): list(table[kind]) for kind in kinds}, ax=ax,
            highlight="all\nchannels", label="accuracy")
    ax.set(ylim=(low, 1), title=name), ax.tick_params(axis="x", labelsize=9)
show(fig, alt="Accuracy by seed of five networks. Cards: plain, places and joint near 0.45, own "
     "channel near 0.72, all channels near 0.91. Digits: five clouds that overlap.")

# %%
for name, table in on.items():
    lead = 100 * table[kinds[1:]].sub(table["plain"], axis=0)
    errors = lead.mean() / lead.sem()
    summary = pd.DataFrame({"lead": lead.mean(), "in standard errors": errors})
    print(name), print(summary.rename_axis(None).round(1).to_string())
    passed = list(errors.index[errors.abs() > {"cards": 3.1, "digits": 2.9}[name]])
    assert passed == {"cards": ["own channel", "all channels"], "digits": []}[name]

# %% [markdown]
# **What to see.** On the cards (mind the axes: the right one begins at 0.7) the two channel gates win by a wide margin.
# For the other two we find **no difference** from the plain network. The reasons could be read off the signatures of
# part 6. The joint gate hears one place, and the digits' places know nothing of the square. The spatial gate hears a
# window, and it could only turn down both digits together. The channel gate hears the whole card. If it hears its *own*
# channel only, it must tell from one mean, in which the square is mixed with the ink of a digit, whether its side is
# marked; it reaches 0.72. If it hears all 16, it can compare, and reaches 0.91. (That the mixing is what holds the
# first one back is our reading; we did not test it.)
#
# On the digits: **no difference found**, for none of the four. Look at *places*: 2.2 standard errors. For a single
# comparison the limit is 2.1, and we would have claimed it. But we made four comparisons, and where there is no
# difference at all, one in twenty passes that limit by chance. The own-channel gate has one seed at 0.76; spread is
# part of the result.
#
# This game was made for channels. Notebook [10_spatial_attention](10_spatial_attention.ipynb) has the one that is
# made for places. **Which axis pays depends on the task, and no row of the table is best.** On real images all of
# them are measured against each other in [17_face_off](17_face_off.ipynb).

# %%
mean = {name: table[kinds].mean().round(2).tolist() for name, table in on.items()}
assert mean["cards"] == [0.45, 0.72, 0.91, 0.45, 0.46]
places_lead = on["digits"]["places"] - on["digits"]["plain"]
assert 2.1448 < places_lead.mean() / places_lead.sem() < 2.25  # above the limit for one comparison
assert round(on["digits"]["own channel"].min(), 2) == 0.76

# %% [markdown]
# ## 10 · Where it breaks: the audit · *Depth*
#
# Code for such modules is copied from page to page, and a good part of what one finds runs, trains a little, and is
# wrong. The course's `audit` takes *any* module that maps (b, c, h, w) to (b, c, h, w), also one pasted from the web.
# It knows no mechanism; it feeds inputs, changes them, and says in sentences what follows: ✓ holds, ✗ does not hold, ·
# plain information. First a healthy module:

# %%
from attnlib.lab.audit import audit

report = audit(Gate(channel_means, nn.Conv2d(4, 4, 1, groups=4)), channels=4)
assert report.holds
report

# %% [markdown]
# What each line asks, once:
#
# | line | the question behind it | what typically fails it |
# |---|---|---|
# | shape | is the output as large as the input? | a padding that does not fit the kernel |
# | dtype | do float32, float64 and bfloat16 stay what they are? | a tensor made inside without the input's dtype |
# | input | is the input left alone? | `x *= gate` |
# | finite | no infinity, also on a map of zeros? | a division by a sum or a norm that can be 0 |
# | features | does it return features? | returning the gate and forgetting the product |
# | registered | are all layers known to PyTorch? | layers in a plain list: never trained, never saved |
# | weights | can the gate be had from `weights(x)`? | information only: otherwise the gate is output by input |
# | gate range | within 0 and 1? | information: a missing sigmoid, or a mechanism that is no gate |
# | gate sum | does the gate sum to 1 over channels or places? | a softmax where a sigmoid belongs: it shrinks the features |
# | gate shape | along which axes does the gate vary? | information: here you see which kind it is |
# | gate channels, gate positions | which inputs move it? | a gate that hears nothing is a constant |
# | repeatable | same input, same output, in eval? | dropout left on; state |
# | independent | is each image treated on its own? | a softmax or a mean over axis 0 |
# | batch size | may it change? | a `view(2, ...)`; state of the old size |
# | state | is anything left behind? | a tensor stored in `self` from call to call |
# | second backward | can one train two steps? | stored tensors that still hang on the first step's graph |
# | gradients | does every parameter learn? | layers that are never used; a gradient cut off |
# | sizes | odd maps, single pixels, single images? | a bare `squeeze()` |
# | state dict | does a saved copy load and give the same? | weights made in `forward` |
# | cost | parameters and MACs | information |
#
# Now a module of the kind that circulates, in our own smallest form. Its author took the sigmoid's output and
# "normalised" it:

# %%
class Normalised(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels, self.w = channels, nn.Parameter(torch.ones(channels))
    def forward(self, x):
        s = torch.sigmoid(self.w[:, None, None] * x.mean((2, 3), keepdim=True))
        return x * s.softmax(0)

# %%
findings = audit(Normalised(4)).findings
wrong = [finding for finding in findings if finding.holds is False]
print(*wrong, sep="\n")
assert [finding.check for finding in wrong] == ["independent"] and len(findings) == 21

# %% [markdown]
# ### Exercise 07.4 · bug gallery · *Depth* · 10 minutes
#
# One sentence of complaint, and twenty lines without one. Which axis is 0? **Predict** what the module does to a batch
# of a single image. Then write its forward pass as it should be: the simplest channel gate. `x` is (b, c, h, w), `w` is
# (c,).
#
# <details><summary>Hint 1</summary>
#
# The sentence says that an image's output depends on the other images. Which step brings images together?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `softmax(0)` makes numbers sum to 1 along axis 0. That is the batch. Would another axis be better? Compare with (7.2).
#
# </details>
# <details><summary>Hint 3</summary>
#
# The sigmoid already is the gate. Take the softmax away and leave everything else.
#
# </details>

# %% tags=["exercise"]
def mended(x, w):
    """x (b, c, h, w), w (c,) -> features of the same shape, rescaled as in (7.2)."""
    raise NotImplementedError

mended = check("07.4", mended)

# %% tags=["solution"]
def mended(x, w):
    s = torch.sigmoid(w[:, None, None] * x.mean((2, 3), keepdim=True))
    return x * s

# %%
bad = Normalised(4)
assert torch.equal(bad(x.float()), x.float())  # a batch of one: every weight is 1, the gate is gone
crowd = torch.randn(50, 4, 6, 6)
factor = (bad(crowd) / crowd).mean()
print(f"with 50 images the mean factor is {factor:.2f}")
assert abs(factor - 1 / 50) < 1e-4
assert torch.allclose(mended(crowd, torch.ones(4))[:1], mended(crowd[:1], torch.ones(4)))

# %% [markdown]
# So the strength of the features depends on the batch size: all of it with one image, on average a fiftieth with fifty. Training
# runs on, because a batch norm behind it hides the factor (7.12); and the deployed network, which sees one image at a
# time, gets features about fifty times larger than in training.
#
# An audit shows symptoms. **It does not prove that a module is the mechanism that its name says**: an ECA under the name
# of SE passes every line. For that you need the equations. Nor is every ✗ a fault: GAM, built as its paper says, has
# biases in front of a batch norm, where they can change nothing, and the line `gradients` says so.

# %%
assert audit(build_attention("eca", 8)).holds
gam = audit(build_attention("gam", 8, reduction=2)).findings
assert [finding.check for finding in gam if finding.holds is False] == ["gradients"]

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# **CS-1** "Channel and spatial attention are refinements of self-attention." **It depends on the sense.**
#
# *In the wide sense*, features weighted by something computed from themselves, all of them are attention, and the
# authors of SE use the word so. *In the narrow sense*, every place compares itself with every other, SE, ECA, CBAM, SAM
# and NAM are none, for two reasons that can be measured.
#
# First, what is compared. A similarity is a *product of two features*: double the map and it is four times as large.
# The scores of the five gates are weighted sums (with a ReLU or a maximum in some, which keeps a factor of two): double
# the map and they double. (Of CBAM we take each of the two gates by itself.) The score can be had back from a gate,
# because $v = \ln \frac{s}{1 - s}$; `torch.logit` computes that. We leave biases out, and subtract what a batch norm
# adds to a map of zeros.

# %%
from attnlib import NonLocal, NormalizationAttention
from attnlib.feature_map import ChannelAttention

no_biases = {"SE": SqueezeExcitation(8, reduction=2, bias=False),
             "ECA": EfficientChannelAttention(8),
             "CBAM channels": ChannelAttention(8, reduction=2, bias=False),
             "SAM (and CBAM)": SpatialAttention(8, norm=False), "NAM": NormalizationAttention(8)}
similar = NonLocal(8, similarity="dot", bias=False).double()
assert torch.allclose(similar.weights(2 * probe), 4 * similar.weights(probe))  # four times

# %%
# claim CS-1: DEPENDS (what is compared)
for module in no_biases.values():
    module.double().eval()
    at_zero = torch.logit(module.weights(0 * probe))
    score = torch.logit(module.weights(probe)) - at_zero
    assert torch.allclose(torch.logit(module.weights(2 * probe)) - at_zero, 2 * score)
print("scores that double with the map:", ", ".join(no_biases))

# %% [markdown]
# Second, how many weights there are and what they cost. A gate has at most one for each number of the map, $CN$; a
# pairwise mechanism has one for each pair of places, $N^2$. So over the size of the map, the arithmetic of the gates
# grows like $N$ at most, and that of the non-local block like $N^2$ in the end. (For NAM the count is 0, and for SE and ECA
# it does not depend on $N$; all three still pool or normalise $CN$ numbers, which is linear.)

# %%
from attnlib.lab.cost import closed_form

map_sides, acronyms = [4, 8, 16, 32, 64, 128], ["se", "eca", "cbam", "sam", "nam", "nonlocal"]
macs = {name: [closed_form(name, 64, side, side).macs for side in map_sides] for name in acronyms}
for name in acronyms:  # the formulas against the count, on the two smallest maps
    module = build_attention(name, 64)
    for side, formula in zip((4, 8), macs[name], strict=False):
        assert count_macs(module, torch.randn(1, 64, side, side)) == formula

# %%
# claim CS-1: DEPENDS (what it costs)
from math import log2

slope = {name: log2(m[-1] / m[-2]) / 2 for name, m in macs.items() if m[-1]}  # places grow fourfold
print({name: round(value, 2) for name, value in slope.items()}, "nam:", macs["nam"])
assert slope["se"] == slope["eca"] == 0 and not any(macs["nam"])
assert 0.9 < slope["cbam"] <= slope["sam"] == 1 and 1.95 < slope["nonlocal"] < 2
assert pair_weights(torch.randn(1, 64, 32, 32)).numel() == 1024**2 > 64 * 1024  # N^2 against C N

# %%
ax = plt.subplots(figsize=(5, 2.4))[1]
for (name, counted), dot in zip(macs.items(), "os^DvX", strict=True):
    if counted[-1]:
        ax.plot([side**2 for side in map_sides], counted, marker=dot, label=name)
ax.set(xscale="log", yscale="log", xlabel="places N", ylabel="MACs, C = 64")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(ax.figure, alt="Multiply-accumulates over the number of places, both logarithmic: SE and ECA "
     "are flat, CBAM and SAM rise with slope one, the non-local block with a slope near two.")

# %% [markdown]
# **What to see.** In a figure with two logarithmic axes a power is a straight line and its exponent is the slope: 0 for
# SE and ECA, 1 for the spatial gates, and for the non-local block near 2 on the right. Non-local networks are pairwise
# (so is DANet, which the course does not build), and for them the sentence is right. What remains of the claim for the
# others is the word.
#
# **CS-3** "Channel attention is a weighted sum over channels that gives a new channel vector." **False.** It rescales.
# After the gate there are as many channels as before, each can be had back by dividing, and nothing has been summed
# away. A weighted sum over the channels leaves a single map, and many different feature maps have the same one.

# %%
# claim CS-3: FALSE
s = by_channel
assert (s * x).shape == x.shape and torch.allclose(s * x / s, x)  # nothing is lost
weighted_sum = (s * x).sum(1, keepdim=True)  # (1, 1, 2, 2)
other = x.clone()  # another map: what is added to channel 0 is taken from channel 1
other[:, 0], other[:, 1] = x[:, 0] + 1 / s[:, 0], x[:, 1] - 1 / s[:, 1]
assert torch.allclose((s * other).sum(1, keepdim=True), weighted_sum)  # the sum does not notice
assert not torch.allclose(s * other, s * x)

# %% [markdown]
# (The channels *are* summed in one place: inside the score of SE or of the joint gate, for the gate. And the layer
# behind the block may sum them. Neither is the output of the block.)

# %% [markdown]
# ## 12 · Exercises
#
# 07.1 stands in part 4, 07.2 in part 5, 07.3 in part 6 and 07.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 07.5 · a row of your own · *Depth* · 15 minutes
#
# A gate with one number for each channel and each *row* of the map: where along the height, but not where along the
# width. Descriptor: the mean over the columns. Score: a weighted sum over the channels, with a matrix `W` (c, c) as in
# (7.4). Gate: the sigmoid. Return the rescaled features. (Coordinate attention has two such gates, one for rows and one
# for columns.)
#
# <details><summary>Hint 1</summary>
#
# The axes are (b, c, h, w). Rows are axis 2, columns axis 3; a mean over the columns leaves one number for each row.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Keep the axis: `x.mean(3, keepdim=True)` is (b, c, h, 1) and broadcasts over the columns.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The score of the joint gate takes a map of any size, also one that is a single column wide. Its result is multiplied
# with `x`.
#
# </details>

# %% tags=["exercise"]
def row_gate(x, W):
    """x (b, c, h, w), W (c, c) -> features of the same shape, gated by channel and row."""
    raise NotImplementedError

row_gate = check("07.5", row_gate)

# %% tags=["solution"]
def row_gate(x, W):
    z = x.mean(3, keepdim=True)
    return x * torch.sigmoid(torch.einsum("ck,bkhw->bchw", W, z))

# %% [markdown]
# As a row of the table it is one line. **Predict** its signature before you look: which places does a place listen to?

# %%
row_means = lambda x: x.mean(3, keepdim=True)
TABLE["row"] = (row_means, by_matrix(W), torch.sigmoid)
assert torch.allclose(x * gate_of(x, *TABLE["row"]), row_gate(x, W))
pattern = signature(lambda x: gate_of(x, *TABLE["row"]), places)
in_a_row = torch.arange(16)[:, None] // 4 == torch.arange(16) // 4
assert (pattern.places[in_a_row] > 0).all() and (pattern.places[~in_a_row] == 0).all()

# %% [markdown]
# Its own row and no other: four blocks along the diagonal of $D$.

# %% [markdown]
# ## 13 · Summary
#
# | what | equation | here |
# |---|---|---|
# | the pattern | $y = \text{gate}(\text{score}(\text{descriptor}(x))) \odot x$ | (7.5) |
# | channel gate | $s_c = \sigma(w_c z_c)$, $z_c$ the mean over places; $B \times C \times 1 \times 1$ | (7.2) |
# | spatial gate | $s(p) = \sigma\big(\sum_d K(d)\, z(p+d)\big)$, $z$ the mean over channels; $B \times 1 \times H \times W$ | (7.3) |
# | joint gate | $s_c(p) = \sigma\big(\sum_k W_{ck} x_k(p)\big)$; $B \times C \times H \times W$ | (7.4) |
# | the other family | $y(p) = \sum_q P_{pq}\, x(q)$; $B \times N \times N$ | (7.7) |
# | gradient | $s \odot g + J_s^\top (x \odot g)$ | (7.9) |
# | at the start | $2^{-T}$ for $T$ gates of one half; a batch norm behind or a residual block around undoes it | (7.11), (7.12) |
# | price | three passes over the map, one sixth of an operation for each byte | (7.15) |
#
# - A gate says how much, an average over pairs says from where. A gate keeps zeros and signs, and can be undone by a
#   division (7.6).
# - What the descriptor has averaged away, no score brings back.
# - A signature shows what a mechanism listens to, whatever its weights. Later notebooks add theirs.
# - On cards that ask for a choice between channels, only the channel gates helped; on plain digits we found no
#   difference, with a rule that counts the comparisons.
# - `audit` shows symptoms. What a module *is*, its equations say.
#
# **Notation.** $z$, $v$ and $s$ are those of notebook 08. The papers write the gate as $s$ (SE), $M_c$ and $M_s$
# (CBAM), and non-local networks write $f(x_i, x_j)/\mathcal{C}(x)$ for our $P_{pq}$.
#
# **Sources.** Hu, Shen, Sun, arXiv 1709.01507 (channel gate; attention in the wide sense); Woo, Park, Lee, Kweon, arXiv
# 1807.06521 (spatial gate by convolution); Bochkovskiy, Wang, Liao, arXiv 2004.10934 (a gate at each place without
# pooling); Wang, Girshick, Gupta, He, arXiv 1711.07971 (pairs of places); Hou, Zhou, Feng, arXiv 2103.02907 (gates for
# rows and columns). The table, the signature and the audit are this course's own way to put them side by side.
#
# **Back:** [06_moving_averages](06_moving_averages.ipynb), [02_self_attention](02_self_attention.ipynb) · **Next:**
# [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb), which gives the channel gate a score that hears all
# channels. The map of the course is in [00_start_here](00_start_here.ipynb).
