# %% [markdown]
# # 13 · Global attention (GAM)
#
# **The question.** SE pools over the places before it decides, CBAM over places and then over channels, and what
# pooling has thrown away the gate behind it cannot use. Two gates so far pool nothing, point-wise SAM (10) and NAM
# (12), but they hear only their own place. What does a gate look like that pools nothing and hears its surroundings,
# what does it buy, and what does it cost?
#
# **The answer in one sentence.** GAM runs SE's two layers at every place by itself, and behind that two $7 \times 7$
# convolutions over all channels, so that each number of the map gets a gate of its own that sees all channels in a
# window of $13 \times 13$ places; that makes a ResNet-50 six times as large, and "global" it is over the channels,
# not over the map.
#
# **Paper.** Yichao Liu, Zongru Shao, Nico Hoffmann: *Global Attention Mechanism: Retain Information to Enhance
# Channel-Spatial Interactions*, 2021, [arXiv 2112.05561](https://arxiv.org/abs/2112.05561). We know of no code by its
# authors.
#
# **Time.** Core 90 minutes (parts 1-4, 6, 9 and exercises 13.1 and 13.2) · Depth 90 minutes (the rest).
#
# **Prerequisites.** [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb), whose gate and backward pass are
# used here and not derived again; [11_cbam](11_cbam.ipynb) for two gates one behind the other. Of
# [07](07_attention_on_feature_maps.ipynb#Signatures) the signature and of
# [10](10_spatial_attention.ipynb#The-same-letters,-another-gate:-YOLOv4) the point-wise SAM. Of the toolbox:
# [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs) with its
# [groups](00_toolbox.ipynb#What-it-costs) and [how far a unit sees](00_toolbox.ipynb#How-far-does-a-unit-see?). The
# course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W, r$ | | as in 08: images, channels, rows, columns, reduction |
# | $h$ | | $C/r$, the number of hidden channels of either gate |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x(p)$ is the column of $C$ numbers at place $p$ |
# | $W_1, b_1, W_2, b_2$ | $h \times C$, $h$, $C \times h$, $C$ | two layers, as in 08 |
# | $u, a, v$ | $h$, $h$, $C$ at each place | hidden layer before and after its ReLU; what the sigmoid is given |
# | $M_c$ | as $x$ | the **channel gate** |
# | $x'$ | as $x$ | what it leaves, $M_c\, x$ |
# | $K_1, K_2$ | $h \times C \times 7 \times 7$, $C \times h \times 7 \times 7$ | kernels of two convolutions |
# | $t_1, a_1, t$ | $h$, $h$, $C$ at each place | their hidden layer before and after its ReLU; what the second sigmoid is given |
# | $M_s$ | as $x$ | the **spatial gate** |
# | $y$ | as $x$ | the feature map that goes out |
# | $G$ | | number of groups of either convolution (1 unless we say otherwise) |
#
# $g = \partial L/\partial y$ is the gradient that arrives from above, $*$ a convolution with zeros around the map,
# $\delta_{pq}$ is 1 where $p = q$ and 0 elsewhere, and BN is a batch norm. The paper calls $x, x', y$ $F_1, F_2,
# F_3$. In Part I, $h$ is a hidden state and $K$ the matrix of the keys. "GAM" stands for other things too; here it is
# this one.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **13.a** A $1 \times 1$ convolution from 16 to 4 channels, without bias, works on a map of $8 \times 8$ places. How
# many weights has it, and how many multiply-accumulates (MACs) does it do? (a) 64 and 64 · (b) 4,096 and 4,096 · (c)
# 64 and 4,096 · (d) 20 and 1,280 · (e) 64 and 576
#
# **13.b** A convolution from 64 to 64 channels has 4 groups. How many input channels does one output channel see? (a)
# 64 · (b) 16 · (c) 4 · (d) 1 · (e) 60
#
# **13.c** You shuffle the places of a feature map, all channels alike. Which gate stays exactly as it was? (a) that
# of CBAM over places · (b) that of YOLOv4's point-wise SAM · (c) a $3 \times 3$ convolution's with a sigmoid · (d)
# that of SE · (e) none

# %% tags=["exercise"]
check("13.a", ...)
check("13.b", ...)
check("13.c", ...)

# %% tags=["solution"]
check("13.a", "c")
check("13.b", "b")
check("13.c", "d")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# In the game of 08 a square said which *side* of a card to read, and SE could choose a side. Now a harder game. A
# card still has two sides, drawn in two channels, but on each side there are **two** digits, one on the left and one
# on the right. The four digits are of four different classes. One of them stands between two bars: **read that one**.
# So side and place must be chosen together.

# %%
from attnlib.lab.data import Images, load_digits

def write(card, digits, picks, mark):  # card: (side, row, half, column of the half)
    for k, pick in enumerate(picks):
        card[k // 2, 6:14, k % 2, 3:11] = digits.images[pick, 0]
    card[mark // 2, [0, 1, 18, 19], mark % 2, 3:11] = 1
    return digits.labels[picks[mark]]

# %%
def marked_cards(n, split, seed):
    digits, rng = load_digits(split), np.random.default_rng(seed)
    by_class = [np.flatnonzero(digits.labels == c) for c in range(10)]
    cards, labels = torch.zeros(n, 2, 20, 2, 14), torch.zeros(n, dtype=torch.int64)
    for i, mark in enumerate(rng.permutation(n) % 4):
        picks = [rng.choice(by_class[c]) for c in rng.permutation(10)[:4]]
        labels[i] = write(cards[i], digits, picks, mark)
    return Images(cards.flatten(3), labels, digits.classes)

# %%
from attnlib.lab.plots import heatmap, pictures

marked, new_marked = marked_cards(2000, "train", 0), marked_cards(500, "test", 1)
titles = [f"card {i} (read {marked.labels[i]}), side {k}" for i in range(2) for k in (0, 1)]
axes = plt.subplots(2, 2, figsize=(4.6, 3.6))[1]
show(pictures(marked.images[:2].flatten(0, 1), titles, axes=axes.ravel())[0].figure,
     alt="Two cards, each with its two sides next to each other. A side shows two digits; one of "
     "the four digits of a card has a white bar above it and one below.")

# %% [markdown]
# **Predict before you go on.** Somebody who guesses is right on 10% of the cards, and somebody who reads all four
# digits perfectly but does not know which one is marked, on 25%. Where will the plain network of 08 be? Where will it
# be with SE behind its convolutions, which solved the cards of 08? (Part 9 has the answers.)
#
# As in 08 the network is linear behind two $3 \times 3$ convolutions, and between a bar and the digits lie four empty
# rows, so no unit sees both. Hence the plain network adds what it finds at the bars to what it finds at the digits,
# (8.1), and cannot choose. Can SE?
#
# Let the bars be on one side; call the card $(L, d)$ if they are in the left half of it and $(R, d)$ if in the right.
# Here $d$ stands for the four digits, and $d^*$ for the same digits **with left and right exchanged**. SE hears the
# mean of each channel over all places. A mean does not say where: exchange the halves of the bars or of the digits,
# and every mean stays. (Each half of a card has three empty columns at either edge, so no unit sees into both halves,
# and the card's border changes nothing.) So the four cards $(L, d), (R, d), (L, d^*), (R, d^*)$ have *one and the
# same gate* $s$. And with $s$ fixed, everything behind the features is linear: moving the bars from left to right
# changes the logits $\ell$ by an amount that has nothing to do with the digits.
#
# $$\ell(L, d) - \ell(R, d) = \ell(L, d^*) - \ell(R, d^*) \tag{13.1}$$
#
# The rest of the argument is that of 08. Let the digit on the left be an $a$ in $d$ and the one on the right a $b$.
# To be right on $(L, d)$ and $(R, d)$, the difference in (13.1) must raise $a$ over $b$; to be right on $(L, d^*)$
# and $(R, d^*)$, it must raise $b$ over $a$. So **no SE network, of any width, is right on more than 3/4 of all cards
# of this game**. It can choose the side, but not the place.
#
# The cells check (13.1) on random weights. A plain network is one whose gates are all 1, so it obeys it too.

# %%
from attnlib import SqueezeExcitation
from attnlib.lab.small_network import SmallNetwork

exchange = lambda maps: maps.unflatten(3, (2, 14)).flip(3).flatten(3)  # left half, right half
bars, digits_alone = marked.images[:20].clone(), marked.images[:20].clone()
bars[:, :, 3:17], digits_alone[:, :, [0, 1, 18, 19]] = 0, 0
four = [b + d for d in (digits_alone, exchange(digits_alone)) for b in (bars, exchange(bars))]

# %%
def breach(network):  # left side of (13.1) minus its right side, the largest on twenty cards
    with torch.no_grad():
        one, other, one_x, other_x = (network.double().eval()(cards.double()) for cards in four)
    return (one - other - one_x + other_x).abs().max()

network_with = lambda gate: SmallNetwork((2, 20, 28), 10, attention=gate, groups=2)
for gate in (SqueezeExcitation(16, reduction=1), None):
    assert breach(network_with(gate)) < 1e-13  # (13.1)

# %% [markdown]
# **Predict:** a gate over *places*, computed from the maximum and the mean over the channels, as in CBAM, sees where
# the bars are. What can it not choose? And what would a gate have to be to choose both at once?
#
# A gate over places multiplies both sides by the same number, so at no place can it prefer a side. CBAM has both
# kinds, one behind the other, and part 9 will show how far it comes. The most direct remedy is a gate that has a
# number **for each channel at each place**, and that *hears* all channels and the places around. That is GAM. Neither
# of the two obeys (13.1), even with random weights:

# %%
from attnlib import CBAM, GlobalAttention

for gate in (CBAM(16, reduction=1, zero_start=False), GlobalAttention(16, reduction=4)):
    assert breach(network_with(gate)) > 1e-9

# %% [markdown]
# ## 3 · By hand · *Core*
#
# The same feature map as in 08, and the same two matrices, so that the gates can be compared.

# %%
from attnlib.lab.data import example_feature_map

x = example_feature_map()
W_1 = torch.tensor([[1, -1, 0, 1], [0, -1, 1, 0]]).double()
W_2 = torch.tensor([[1, 0], [0, 1], [-1, 1], [0.5, -1]]).double()
for c in range(4):
    print(f"channel {c}:", x[0, c].int().tolist())

# %% [markdown]
# ### The channel gate
#
# SE takes the mean over the places and sends it through two layers. GAM leaves out the mean and sends **each place**
# through the two layers, with the same weights at every place (biases are 0 in this part):
#
# $$M_c(p) = \sigma\big(W_2\, \mathrm{relu}(W_1\, x(p) + b_1) + b_2\big) \tag{13.2}$$
#
# Take a pencil. At the top left place the column is $x(p) = (1, 0, -2, 4)$. So $u = W_1 x(p) = (1 - 0 + 4,\; -0 - 2)
# = (5, -2)$, the ReLU leaves $a = (5, 0)$, and $v = W_2 a = (5, 0, -5, 2.5)$. At the bottom right place $x(p) = (2,
# 2, -1, 0)$ and $u = (0, -3)$: nothing passes the ReLU, $v = 0$, and all four gates are $\tfrac12$. **Do the other
# two places before you run the cell.**

# %%
u = torch.einsum("kc,bchw->bkhw", W_1, x)
v = torch.einsum("ck,bkhw->bchw", W_2, F.relu(u))
assert u[0].flatten(1).T.tolist() == [[5, -2], [1, -1], [2, -2], [0, -3]]  # one row a place
assert v[0].flatten(1).T.tolist() == [[5, 0, -5, 2.5], [1, 0, -1, 0.5], [2, 0, -2, 1], [0] * 4]
assert u.mean((2, 3)).tolist() == [[2, -2]]
M_c = torch.sigmoid(v)
assert M_c[0, :, 0, 0].round(decimals=3).tolist() == [0.993, 0.5, 0.007, 0.924]  # (13.2)
print("M_c of channel 0:", M_c[0, 0].round(decimals=3).tolist())

# %% [markdown]
# In 08 the gate of channel 0 was 0.881 at all four places. Here it is 0.993, 0.731, 0.881 and 0.5. The means of the
# four $u$ are $(2, -2)$, which is 08's $u$: the layer $W_1$ is linear, so it does not matter whether one averages
# before it or behind it. The ReLU and the sigmoid are what makes the difference.
#
# ### The spatial gate
#
# What is left is $x' = M_c\, x$, number by number. On it stand two convolutions, from $C$ channels to $h$ and back,
# with a batch norm behind each, a ReLU between them and a sigmoid at the end:
#
# $$a_1 = \mathrm{relu}\big(\mathrm{BN}(K_1 * x')\big), \qquad M_s = \sigma\big(\mathrm{BN}(K_2 * a_1)\big) \tag{13.3}$$
#
# With a pencil we leave the two batch norms out, and on a map of $2 \times 2$ only the inner $3 \times 3$ of $7
# \times 7$ weights ever meet a place. Hidden channel 0 adds up channel 3 over the whole window: *is there anything of
# channel 3 around here?* Hidden channel 1 takes channel 1 at the place itself. The second convolution has weights
# only in its middle, the $4 \times 2$ matrix
#
# $$U = \begin{pmatrix} 1 & -2 \\ 0 & 0 \\ -1 & 0 \\ 0 & 1 \end{pmatrix}.$$
#
# Channel 3 is $4 \cdot 0.924 = 3.70$ at the top left and 0 elsewhere, and every window of this small map holds all
# four places. So $a_1$ has 3.70 everywhere in channel 0, and $(0, \tfrac12, \tfrac12, 1)$ in channel 1. At the bottom
# right place $t = U a_1 = (3.70 - 2,\; 0,\; -3.70,\; 1)$.

# %%
x_1 = x * M_c
K_1, U = torch.zeros(2, 4, 3, 3).double(), torch.tensor([[1, -2], [0, 0], [-1, 0], [0, 1]]).double()
K_1[0, 3], K_1[1, 1, 1, 1] = 1, 1
a_1 = F.relu(F.conv2d(x_1, K_1, padding=1))
M_s = torch.sigmoid(torch.einsum("ck,bkhw->bchw", U, a_1))
peak = 4 * M_c[0, 3, 0, 0]
assert (a_1[0, 0] == peak).all() and a_1[0, 1].flatten().tolist() == [0, 0.5, 0.5, 1]
assert torch.allclose(M_s[0, 0, 1, 1], torch.sigmoid(peak - 2)) and 3.69 < peak < 3.70  # (13.3)

# %% [markdown]
# Look at what happened at the bottom right place. Its own channel gate had nothing to say, $\tfrac12$ for all. But
# the peak of channel 3, which lies *elsewhere*, opens channel 0 there to $\sigma(1.70) = 0.85$ and shuts channel 2.
# **A spatial gate, by its name; but it has one number for each channel, and hears all channels.**
#
# ### One behind the other
#
# $$x' = M_c(x)\, x, \qquad y = M_s(x')\, x' \tag{13.4}$$
#
# As in CBAM (11.4) the second gate looks at what the first one leaves.

# %%
y = x_1 * M_s
assert torch.allclose(y, x * M_c * M_s)  # (13.4)

# %%
fig, axes = plt.subplots(2, 4, figsize=(6.4, 2.6))
titles = [f"$M_c$, channel {c}" for c in range(4)] + [f"$M_s$, channel {c}" for c in range(4)]
for ax, values, title in zip(axes.flat, torch.cat([M_c[0], M_s[0]]), titles, strict=True):
    heatmap(values, ax=ax, numbers=True, colorbar=False)
    ax.set(xticks=[], yticks=[]), ax.set_title(title, fontsize="small")
show(fig, alt="Two rows of four gates on 2 x 2 places. In both rows channels differ and, but for "
     "channel 1 and M_s of channel 2, places differ too.")

# %% [markdown]
# **What to see.** *Top:* SE would have one number for each panel; here the places differ. In channel 1 they do not,
# because its row of $W_2$ listens to a hidden unit that is shut at all four places. *Bottom:* thirty-two decisions in
# all, and none of them was made from a mean.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# The paper speaks of a "3-D permutation". It is a matter of how a linear layer is called: `nn.Linear` works on the
# *last* axis, and the channels are axis 1. So one moves them to the back, $B \times H \times W \times C$, applies the
# two layers, and moves them to the front again. Let the rows of $X$ be the columns $x(p)$ of all places of all
# images, so that it has $BHW$ rows and $C$ columns:
#
# $$M_c = \sigma\big(\mathrm{relu}(X W_1^\top + b_1)\, W_2^\top + b_2\big) \tag{13.5}$$

# ### Exercise 13.1 · the channel gate · *Core* · 10 minutes
#
# Write (13.5), without loops. `x` is (b, c, h, w), `W_1` (c/r, c), `b_1` (c/r,), `W_2` (c, c/r), `b_2` (c,); return
# the gates, (b, c, h, w). Replace the line `raise NotImplementedError` and run the cell.
#
# <details><summary>Hint 1</summary>
#
# Begin with 08.1. No mean is taken; instead the axis of the channels has to go to the back, and at the end to the
# front.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x.movedim(1, 3)` has shape (b, h, w, c), and `@ W_1.T` then works on every place. `reshape` or `view` in its place
# would only cut the same row of numbers differently and mix up channels and places.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `A = torch.relu(x.movedim(1, 3) @ W_1.T + b_1)`, then `V = A @ W_2.T + b_2`; return `torch.sigmoid(V).movedim(3,
# 1)`.
#
# </details>

# %% tags=["exercise"]
def channel_gate(x, W_1, b_1, W_2, b_2):
    """x (b, c, h, w), W_1 (c/r, c), b_1 (c/r,), W_2 (c, c/r), b_2 (c,) -> gates (b, c, h, w)."""
    raise NotImplementedError

channel_gate = check("13.1", channel_gate)

# %% tags=["solution"]
def channel_gate(x, W_1, b_1, W_2, b_2):
    A = torch.relu(x.movedim(1, 3) @ W_1.T + b_1)
    V = A @ W_2.T + b_2
    return torch.sigmoid(V).movedim(3, 1)

# %%
draw = lambda *size: torch.randn(size).double()
maps, layers = draw(3, 6, 5, 4), [draw(2, 6), draw(2), draw(6, 2), draw(6)]
R_1, e_1, R_2, e_2 = layers
gated = channel_gate(maps, *layers)
for i, j in [(0, 0), (2, 3), (4, 1)]:  # a place by itself
    column = maps[1, :, i, j]
    at_place = torch.sigmoid(R_2 @ F.relu(R_1 @ column + e_1) + e_2)
    assert torch.allclose(gated[1, :, i, j], at_place)  # (13.5)

# %% [markdown]
# Nothing here is new: a linear layer at every place is a $1 \times 1$ convolution (toolbox). So the "permutation" and
# the "multi-layer perceptron" are **two $1 \times 1$ convolutions** with a ReLU between them:

# %%
hidden = F.relu(F.conv2d(maps, R_1[:, :, None, None], e_1))
as_convolutions = torch.sigmoid(F.conv2d(hidden, R_2[:, :, None, None], e_2))
assert torch.allclose(gated, as_convolutions)
no_1, no_2 = torch.zeros(2).double(), torch.zeros(4).double()
assert torch.allclose(channel_gate(x, W_1, no_1, W_2, no_2), M_c)

# %% [markdown]
# With one layer in the place of two it would be YOLOv4's point-wise SAM, (10.7). Now the library's `GlobalAttention`.
# Its two layers are called `W_1` and `W_2`, its convolutions `f_1` and `f_2`. We rebuild its output from its own
# random weights:

# %%
def spatial_gate(x, gam):
    a_1 = F.relu(gam.norm_1(F.conv2d(x, gam.f_1.weight, gam.f_1.bias, padding=3)))
    return torch.sigmoid(gam.norm_2(F.conv2d(a_1, gam.f_2.weight, gam.f_2.bias, padding=3)))

module = GlobalAttention(6, reduction=3).double().eval()
ours = maps * channel_gate(maps, *module.W_1.parameters(), *module.W_2.parameters())
assert torch.allclose(module(maps), ours * spatial_gate(ours, module))

# %% [markdown]
# ### How far the second gate hears
#
# The toolbox's rule (4.5) for layers one behind the other: each layer of size $k$ and stride 1 widens the view by $k
# - 1$. Two layers of 7:
#
# $$R = 1 + (7 - 1) + (7 - 1) = 13 \tag{13.6}$$
#
# The norms, in eval, and the sigmoid work at each place alone and widen nothing. We measure it: the places whose
# change moves the gate in the middle of a map of $21 \times 21$.

# %%
def heard_by(gate, image, row, column):  # which places move any channel of the gate at one place
    image = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gate(image)[0, :, row, column].sum(), image)
    return (slope[0] != 0).any(0)

# %%
large = draw(1, 6, 21, 21)
module.norm_1.bias.data.fill_(3)  # opens the hidden units, so that no ReLU hides any of the window
heard = heard_by(module.spatial_gate, large, 10, 10)
assert heard[4:17, 4:17].all() and heard.sum() == 13**2  # (13.6)
assert heard_by(module.channel_gate, large, 10, 10).nonzero().tolist() == [[10, 10]]

# %% [markdown]
# The channel gate hears its own place and nothing else. And that the second gate hears $x'$ and not $x$ does not
# widen the window, because $x'$ at a place depends on $x$ at that place alone.
#
# ### Is the first gate needed?
#
# A $7 \times 7$ kernel that is zero except in its middle *is* a $1 \times 1$ convolution. So the spatial gate
# contains the channel gate: for any $W_1, b_1, W_2, b_2$ there are kernels, with the norms set to let everything
# through, for which
#
# $$M_s(x) = M_c(x) \quad \text{at every place} \tag{13.7}$$
#
# The first gate can say nothing that the second could not say; what the block gains by it is that the second one
# looks at $x'$, and the product of two gates. It is cheap beside the second one: its kernels have 1 tap where the
# others have 49.

# %%
middle = GlobalAttention(6, reduction=3).double().eval()
for conv, layer in ((middle.f_1, middle.W_1), (middle.f_2, middle.W_2)):
    conv.weight.data.zero_()[:, :, 3, 3], conv.bias.data = layer.weight.data, layer.bias.data
middle.norm_1.eps = middle.norm_2.eps = 0  # running mean 0 and variance 1: the norms do nothing
assert torch.allclose(middle.spatial_gate(maps), middle.channel_gate(maps))  # (13.7)

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# For a gate over the means, 08 found (8.6): the gradient of a gate is a *sum* over all the places that it served.
# Here each gate serves one number. Let $d = \partial L / \partial x'$ be what arrives behind the channel gate. From
# $x'_c(p) = M_c(p)\, x_c(p)$, where we write $M_c(p)$ for the number of channel $c$, and the slope of the sigmoid,
#
# $$\frac{\partial L}{\partial v_c(p)} = d_c(p)\; x_c(p)\; M_c(p)\,(1 - M_c(p)) \tag{13.8}$$
#
# with **no sum at all**. Then the two layers backwards as in (8.8) to (8.10), at each place by itself. Only the
# weights are shared, by all places of all images, so only they collect sums:
#
# $$\frac{\partial L}{\partial u(p)} = \Big(W_2^\top \frac{\partial L}{\partial v(p)}\Big)\,[u(p) > 0], \qquad
# \frac{\partial L}{\partial x(p)} = M_c(p)\, d(p) + W_1^\top \frac{\partial L}{\partial u(p)}, \qquad
# \frac{\partial L}{\partial W_2} = \sum_p \frac{\partial L}{\partial v(p)}\, a(p)^\top \tag{13.9}$$
#
# and likewise $\partial L/\partial W_1 = \sum_p \frac{\partial L}{\partial u(p)}\, x(p)^\top$; the biases get the
# sums of $\partial L/\partial v$ and $\partial L/\partial u$. Compare the gradient of $x$ with (8.11). There the
# second term was the same at all places; here it comes from the place itself and goes nowhere else.

# %%
def channel_backward(d, x, W_1, b_1, W_2, b_2):
    X, D = (maps.movedim(1, 3).flatten(0, 2) for maps in (x, d))  # rows: the places of all images
    u = X @ W_1.T + b_1
    M = torch.sigmoid(F.relu(u) @ W_2.T + b_2)
    dv = D * X * M * (1 - M)
    du = dv @ W_2 * (u > 0)
    dX = (M * D + du @ W_1).unflatten(0, (len(x), *x.shape[2:])).movedim(3, 1)
    return dX, du.T @ X, du.sum(0), dv.T @ F.relu(u), dv.sum(0)

# %%
d, v = draw(3, 6, 5, 4), draw(3, 6, 5, 4).requires_grad_()
(auto_v,) = torch.autograd.grad(maps * torch.sigmoid(v), v, d)
M = torch.sigmoid(v)
assert torch.allclose(auto_v, d * maps * M * (1 - M))  # (13.8)
leaves = [t.clone().requires_grad_() for t in (maps, *layers)]
auto = torch.autograd.grad(leaves[0] * channel_gate(*leaves), leaves, d)
assert all(map(torch.allclose, auto, channel_backward(d, maps, *layers)))  # (13.9)

# %% [markdown]
# **The spatial gate.** In eval a batch norm is a scale and a shift for each channel, which can be moved into the
# convolution in front of it; so we take two convolutions with biases $c_1, c_2$ and no norms. (In training the norm's
# own backward pass comes in between, toolbox (5.5).) The gate is given $x'$ and $g = \partial L/\partial y$. Again
# each gate serves one number, so again there is no sum; $K^\top$ stands for a convolution backwards, where each place
# hands its gradient back over its window:
#
# $$\frac{\partial L}{\partial t} = g\; x'\, M_s\,(1 - M_s), \qquad
# \frac{\partial L}{\partial t_1} = \Big(K_2^\top \frac{\partial L}{\partial t}\Big)\,[t_1 > 0], \qquad
# \frac{\partial L}{\partial x'} = M_s\, g + K_1^\top \frac{\partial L}{\partial t_1} \tag{13.10}$$
#
# This $\partial L/\partial x'$ is the $d$ of (13.8). The gradient of a kernel is, tap by tap, the sum over all places
# of what arrived times what the tap had read. `F.unfold` lays out what each window held.

# %%
def kernel_gradient(arrived, read, kernel):
    windows = F.unfold(read, kernel.shape[-1], padding=kernel.shape[-1] // 2)  # (b, taps, places)
    return torch.einsum("bon,bkn->ok", arrived.flatten(2), windows).view_as(kernel)

def spatial_layers(x, K_1, c_1, K_2, c_2):
    t_1 = F.conv2d(x, K_1, c_1, padding=1)
    return t_1, torch.sigmoid(F.conv2d(F.relu(t_1), K_2, c_2, padding=1))

# %%
def spatial_backward(g, x, K_1, c_1, K_2, c_2):
    t_1, M = spatial_layers(x, K_1, c_1, K_2, c_2)
    dt = g * x * M * (1 - M)
    dt_1 = F.conv_transpose2d(dt, K_2, padding=1) * (t_1 > 0)
    dx = M * g + F.conv_transpose2d(dt_1, K_1, padding=1)
    dK_1, dK_2 = kernel_gradient(dt_1, x, K_1), kernel_gradient(dt, F.relu(t_1), K_2)
    return dx, dK_1, dt_1.sum((0, 2, 3)), dK_2, dt.sum((0, 2, 3))

# %% [markdown]
# The whole block, held against autograd and against central differences, with $3 \times 3$ kernels to keep the
# differences quick:

# %%
names = ("W_1", "b_1", "W_2", "b_2", "K_1", "c_1", "K_2", "c_2")

def forward(x, *weights, **named):
    weights = [named[name] for name in names]
    x_1 = x * channel_gate(x, *weights[:4])
    return x_1 * spatial_layers(x_1, *weights[4:])[1]

# %%
def backward(g, x, **named):
    weights = [named[name] for name in names]
    x_1 = x * channel_gate(x, *weights[:4])
    d, *of_kernels = spatial_backward(g, x_1, *weights[4:])
    dx, *of_layers = channel_backward(d, x, *weights[:4])
    return dict(zip(("x", *names), (dx, *of_layers, *of_kernels), strict=True))

# %%
from attnlib.lab.gradients import compare_gradients, jacobian

sizes = [(2, 4, 3, 4), (2, 4), (2,), (4, 2), (4,), (2, 4, 3, 3), (2,), (4, 2, 3, 3), (4,)]
torch.manual_seed(1)
inputs = {name: draw(*size) for name, size in zip(("x", *names), sizes, strict=True)}
table = compare_gradients(forward, backward, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (13.10)
table

# %% [markdown]
# ### What one number does to the channel gate
#
# Go forward, as 08 did for (8.12), and keep the place:
#
# $$\frac{\partial M_c(p)}{\partial x_k(q)} = \delta_{pq}\, J_{ck}(p), \qquad
# J(p) = \mathrm{diag}\big(M_c(p)(1 - M_c(p))\big)\; W_2\; \mathrm{diag}[u(p) > 0]\; W_1 \tag{13.11}$$
#
# In SE there stood $\tfrac{1}{HW}$ in the place of $\delta_{pq}$: all places, each with a small share. Here it is one
# place, whole.

# %%
one = maps[:1]
J = jacobian(lambda x: channel_gate(x, *layers)[0], one)[:, :, :, 0]  # c, p, and behind them k, q
gate_at, u_at = channel_gate(one, *layers)[0, :, 2, 3], R_1 @ one[0, :, 2, 3] + e_1
by_hand = (gate_at * (1 - gate_at)).diag() @ R_2 @ (u_at > 0).double().diag() @ R_1
assert torch.allclose(J[:, 2, 3, :, 2, 3], by_hand)  # (13.11)
elsewhere = torch.ones(5, 4, dtype=torch.bool)
elsewhere[2, 3] = False
assert (J[:, 2, 3][:, :, elsewhere] == 0).all()

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# ### Its signature
#
# The signature of a gate (07) says which channels and which places it listens to: row $c$, column $k$ of the upper
# matrix is how strongly the gate of channel $c$ follows channel $k$; row $p$, column $q$ of the lower one how
# strongly the gate at place $p$ follows place $q$. Our map has 4 channels and a single row of 18 places, so that the
# end of a window of 13 can be seen.
#
# **Predict** the five pairs: GAM's channel gate, its spatial gate, both together; SE; and the gate over places of
# CBAM, whose window is 7 wide. Which matrices are full, which have a band, which only a diagonal? In which are all
# rows equal?

# %%
from attnlib import SpatialAttention
from attnlib.lab.signatures import draw_signature, signature

torch.manual_seed(4)
strip, gam = draw(1, 4, 1, 18), GlobalAttention(4, reduction=1).double().eval()
gam.norm_1.bias.data[:], gam.W_1.bias.data[:] = 3, 3  # no hidden unit is shut, as in part 4

# %%
se = SqueezeExcitation(4, reduction=1).double()
sam = SpatialAttention(4, zero_start=False).double().eval()
gates = {"GAM: $M_c$": gam.channel_gate, "GAM: $M_s$": gam.spatial_gate, "GAM": gam.weights,
         "SE": se.weights, "CBAM: places": sam.weights}
found = {name: signature(gate, strip) for name, gate in gates.items()}

# %%
fig, axes = plt.subplots(2, 5, figsize=(8.8, 3.7))
for column, (name, pattern) in zip(axes.T, found.items(), strict=True):
    draw_signature(pattern, axes=column, title=name)
show(fig, alt="Signatures of five gates. M_c: full over channels, a diagonal over places. M_s and "
     "GAM: full, and a wide band. SE: full, and flat. CBAM's: equal rows, and a narrower band.")

# %% [markdown]
# **What to see.** *$M_c$:* all channels, its own place: (13.11). *$M_s$:* all channels **and** a band of 13. That is
# more than the name says: CBAM's gate over places (right) is one and the same for all channels, so its upper matrix
# has equal rows, and it hears of the channels only what the pooling leaves. *GAM* together has the band of $M_s$ and
# on it the diagonal of $M_c$. *SE* is the counterpart: all channels and all places, but all places alike.

# %%
offset = (torch.arange(18)[:, None] - torch.arange(18)).abs()
c_gate, s_gate, whole, of_se, of_sam = found.values()
assert torch.equal(c_gate.places > 0, offset == 0)
assert torch.equal(s_gate.places > 0, offset <= 6) and torch.equal(whole.places > 0, offset <= 6)
assert torch.allclose(of_se.places, of_se.places[:1].expand(18, 18))
assert torch.equal(of_sam.places > 0, offset <= 3)
assert torch.allclose(of_sam.channels, of_sam.channels[:1].expand(4, 4))
assert all((pattern.channels > 0).all() for pattern in (c_gate, s_gate, whole, of_se))

# %% [markdown]
# ### How global is it?
#
# A window of 13 is all there is. How much of a map it covers depends on the map. In a ResNet-50, images of $224
# \times 224$ become maps of $56^2$, $28^2$, $14^2$ and $7^2$ places in the four stages; the middle place hears

# %%
covered = {side: (min(13, side) / side) ** 2 for side in (56, 28, 14, 7)}
print(", ".join(f"{share:.0%} of a map of {side} x {side}" for side, share in covered.items()))
assert [f"{share:.0%}" for share in covered.values()] == ["5%", "22%", "86%", "100%"]
for side in (14, 28):
    heard = heard_by(module.spatial_gate, draw(1, 6, side, side), side // 2, side // 2)
    assert heard.sum() == min(13, side) ** 2

# %% [markdown]
# SE hears 100% everywhere. So "global" is not meant of the map: it is all channels with all places *of a window*.
# Part 10 shows a task on which that matters.
#
# ### What pooling throws away, and GAM keeps
#
# Shuffle the places of a map, all channels alike. By recall 13.c SE's gate does not change at all. The channel gate
# of GAM goes along with its place, and the spatial gate has other neighbours. In numbers: SE's gate for one image is
# a function of $C$ numbers, GAM's of all $CHW$.

# %%
some, order = draw(2, 6, 5, 4), torch.randperm(20)
shuffle_places = lambda maps: maps.flatten(2)[:, :, order].view_as(maps)
se_6 = SqueezeExcitation(6, reduction=1).double()
mixed = shuffle_places(some)
assert torch.allclose(se_6.weights(mixed), se_6.weights(some))
assert torch.allclose(module.channel_gate(mixed), shuffle_places(module.channel_gate(some)))
moved = shuffle_places(module.spatial_gate(some))
assert not torch.allclose(module.spatial_gate(mixed), moved, atol=1e-3)

# %% [markdown]
# That is what the title of the paper means by *retain information*. But **to have information is not to have use for
# it.** Where the place decides nothing, a gate that does not know it lacks nothing, and has far fewer weights to
# learn. Which is which, only a task can say.
#
# ### On the marked cards
#
# Back to part 2. We put GAM with $r = 4$ behind the convolutions, so $h = 4$ hidden channels; channels 0-7 see side 0
# and channels 8-15 side 1. **Predict:** what will $M_c \cdot M_s$, averaged over the channels of a side, look like
# when the bars are on side 0, left? And which of the two gates will do the choosing? (What can $M_c$ know of the
# bars, at the place of a digit?)

# %%
from attnlib.lab.training import accuracy, train

torch.manual_seed(0)
gam_net = network_with(GlobalAttention(16, reduction=4))
recipe = {"epochs": 5, "batch_size": 50, "learning_rate": 0.015}
train(gam_net, marked, **recipe, seed=0, progress=False)
share = accuracy(gam_net, new_marked)
print("after five epochs right on more than half of the new cards:", share > 0.5)

# %%
with torch.no_grad():
    features = gam_net.features(new_marked.images)
    both_gates, first_gate = (gate(features).unflatten(1, (2, 8)).mean(2) for gate in
                              (gam_net.attention.weights, gam_net.attention.channel_gate))
bar = new_marked.images[:, :, 0, [3, 17]].flatten(1)  # (cards, 4): is there a bar over digit k?
by_mark = torch.stack([both_gates[bar[:, k] == 1].mean(0) for k in range(4)])
first_by_mark = torch.stack([first_gate[bar[:, k] == 1].mean(0) for k in range(4)])

# %%
def draw_mark(column, k, shift):  # side 0 above, side 1 below
    for side, ax in enumerate(column):
        heatmap(shift[k, side], ax=ax, limits=(-0.3, 0.3), signed=True, colorbar=False)
        ax.set(xticks=[], yticks=[], aspect="equal", ylabel=f"side {side}" * (k == 0))
    column[0].set_title(f"bars: side {k // 2}, {('left', 'right')[k % 2]}", fontsize="medium")

# %%
fig, axes = plt.subplots(2, 4, figsize=(8.4, 2.8))
for k, column in enumerate(axes.T):
    draw_mark(column, k, by_mark - by_mark.mean(0))  # what the mark changes
show(fig, alt="Mean gate of either side's channels for the four places of the bars, less the mean "
     "of the four. In each column part of the marked digit's area is red.")

# %% [markdown]
# **What to see.** Drawn is the mean gate of one column less the mean of all four columns, so that only what the
# *mark* changes is left; red is wider open, the darkest by 0.3 or more. In each column more than 40% of one digit's
# area is wider open by 0.1, and below 20% of any other's: the one is the marked digit. The block found side *and*
# place. And it is the second gate that does it. At the place of a digit $M_c$ hears features of that place alone, and
# these have not seen the bars; so it cannot know where they are, and its mean over the digits is the same for all
# four marks.

# %%
def over_digits(maps):  # (mark, side, row, column) -> the mean over the area of each of 4 digits
    return maps[:, :, 6:14].unflatten(3, (2, 14))[..., 3:11].mean((2, 4)).flatten(1)

wider = (by_mark - by_mark.mean(0) > 0.1).double()
opened, first = over_digits(wider), over_digits(first_by_mark)  # row: the mark, column: the digit
not_marked = opened[~torch.eye(4, dtype=torch.bool)]  # without the marked digit
assert opened.diagonal().min() > 0.4 and not_marked.max() < 0.2 and share > 0.5
print("the first gate is the same for all marks:", bool((first - first.mean(0)).abs().max() < 0.02))
assert (first - first.mean(0)).abs().max() < 0.02

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# We know of no code by the authors, so what circulates was written by readers of the paper, and differs.
#
# | what | paper | copies |
# |---|---|---|
# | end of the channel gate | a sigmoid (as we recall its figure; we could not check) | most have none: $x$ is multiplied by the bare output of the layers; some have it |
# | inside the gates | ReLU, batch norm behind each convolution | older ones leave out the ReLU or the norm |
# | $r$ | 16, as the count of part 8 shows | 4 |
# | groups | for large networks, with a channel shuffle | 4 by default |
# | where the shuffle stands | not clear to us | behind the sigmoid, on the finished spatial gate |
#
# The library has an argument for each: `reduction`, `groups`, `shuffle`, `channel_sigmoid`. It takes 16, 1, a shuffle
# *between* the two convolutions, and a sigmoid.
#
# **Without the sigmoid** the channel "gate" is a bare network output $v$. It may be negative, so it may turn the sign
# of $x$, and it has no upper end. Leave out the biases too, and it grows with its input: for any $\lambda > 0$
#
# $$v(\lambda x) = \lambda\, v(x), \qquad x'(\lambda x) = \lambda^2\, x'(x) \tag{13.12}$$
#
# because linear layers and the ReLU let a positive factor through. The product grows with the square. (That need not
# be bad: in notebook 10 a bare product, without sigmoid, was best on the cluttered digits after 24 epochs. But it is
# no gate between shut and open.)

# %%
bare = GlobalAttention(6, reduction=2, channel_sigmoid=False).double().eval()
nn.init.zeros_(bare.W_1.bias), nn.init.zeros_(bare.W_2.bias)
v, v_3 = bare.channel_gate(maps), bare.channel_gate(3 * maps)
assert torch.allclose(v_3, 3 * v) and torch.allclose(3 * maps * v_3, 9 * (maps * v))  # (13.12)
assert v.min() < 0 and bare.channel_gate(100 * maps).max() > 1
assert ((maps * v).sign() != maps.sign()).any()

# %% [markdown]
# ### Groups, and what a shuffle is for
#
# With $G$ groups a convolution is $G$ separate ones (toolbox, (4.4)). Two of them one behind the other with the same
# groups never let the groups hear of each other. The remedy is to **shuffle** the hidden channels between the two:
# write them as a table with one row a group, and read the table by columns. Channel $c$, if it is number $i$ of group
# $g$ (counted from 0; from here on $g$ is a group and no longer a gradient), goes to place
#
# $$\pi(c) = i\,G + g \tag{13.13}$$
#
# Each group of the second convolution is then given $h/G$ neighbours of the new order. Their old groups are $\pi(c)
# \bmod G$, which runs through $0, 1, \dots, G-1, 0, 1, \dots$, so it hears as many groups as fit:
#
# $$\text{groups heard} = \min(G,\; h/G) \tag{13.14}$$
#
# Mind the second number. With $C = 64$, $r = 16$ and $G = 4$ there are $h = 4$ hidden channels, one a group: the
# shuffle is then the identity, and the groups never mix.

# %%
def shuffle(x, groups):
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)

numbers = torch.arange(12)[None, :, None, None]
assert shuffle(numbers, 3).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
for i, group in [(0, 1), (3, 2), (2, 0)]:
    assert shuffle(numbers, 3)[0, i * 3 + group] == group * 4 + i  # (13.13)

# %% [markdown]
# In popular code the shuffle is applied to the *finished gate*. **Predict** what that does: the gate that was
# computed for channel $c$ multiplies channel $\pi(c)$. So what does the gate of a channel hear then, of which
# channels? And are the groups mixed?
#
# We draw which channels the gate of each channel follows, for $C = 16$ and $G = 4$: without groups; with groups and
# no shuffle; with the shuffle in the middle, once with $h = 16$ and once with $h = 4$ hidden channels; and with the
# finished gate shuffled.

# %%
def grouped(hidden, **options):
    block = GlobalAttention(16, reduction=16 // hidden, **options).double().eval()
    block.norm_1.bias.data.fill_(3)
    return block.spatial_gate

# %%
unmixed = grouped(16, groups=4, shuffle=False)
kinds = {"no groups": grouped(16), "4 groups": unmixed, "shuffled, h = 16": grouped(16, groups=4),
         "shuffled, h = 4": grouped(4, groups=4), "finished gate": lambda x: shuffle(unmixed(x), 4)}
small = draw(1, 16, 2, 3)
follows = {name: signature(gate, small).channels for name, gate in kinds.items()}

# %%
fig, axes = plt.subplots(1, 5, figsize=(9.6, 2.4))
for ax, (name, matrix) in zip(axes, follows.items(), strict=True):
    heatmap(matrix.sqrt(), ax=ax, colorbar=False)
    ax.set(xticks=[], yticks=[], aspect="equal", xlabel="channel changed")
    ax.set_title(name, fontsize="small")
axes[0].set_ylabel("channel whose gate follows")
show(fig, alt="Five 16 x 16 matrices. No groups, and shuffled with h = 16: full. 4 groups, and "
     "shuffled with h = 4: four blocks on the diagonal. Finished gate: blocks torn into stripes.")

# %%
group = torch.arange(16) // 4
same_group, striped = group[:, None] == group, torch.arange(16)[:, None] % 4 == group
assert torch.equal(follows["4 groups"] > 0, same_group)
assert torch.equal(follows["shuffled, h = 4"] > 0, same_group)  # (13.14): min(4, 1) = 1 group
assert (follows["shuffled, h = 16"] > 0).all()  # (13.14): min(4, 4) = 4 groups
assert torch.equal(follows["finished gate"] > 0, striped)
print("of 16 gates hear their own channel:", int(striped.diagonal().sum()))
assert striped.diagonal().sum() == 4

# %% [markdown]
# **What to see.** *No groups* and *shuffled, h = 16* are full: each gate hears all channels. *4 groups* is in blocks.
# With one hidden channel a group the shuffle changes nothing, as (13.14) says. And the *finished gate*: still each
# row has four bright entries, so **nothing was mixed**. The rows are merely in another order, and twelve gates of
# sixteen now do not hear the channel which they multiply. Without groups such a reordering would do no harm, because
# training could put the rows of $K_2$ in the inverse order; with groups it cannot, since $K_2$ cannot leave its
# group.
#
# The smallest example: a spatial gate that shuts channel 1 and opens all others. Which channel is gone, if the
# finished gate is shuffled?

# %%
fixed = GlobalAttention(8, reduction=1, groups=2).eval()
nn.init.zeros_(fixed.f_2.weight), nn.init.zeros_(fixed.f_2.bias)  # all that is left is a shift
fixed.norm_2.bias.data = torch.tensor([9.0, -9, 9, 9, 9, 9, 9, 9])
ones = torch.ones(1, 8, 2, 2)
shut = lambda gate: (gate < 0.5)[0, :, 0, 0].nonzero().flatten().tolist()
finished = fixed.spatial_gate(ones)
print("shut:", shut(finished), "shuffled:", shut(shuffle(finished, 2)))
assert shut(finished) == [1] and shut(shuffle(finished, 2)) == [2]

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# (If you read the Core only: do this exercise, read (13.15) below it, and go on with part 9.)
#
# ### Exercise 13.2 · the price · *Core* · 10 minutes
#
# Write the number of parameters of one GAM block: two layers with biases, two $7 \times 7$ convolutions with biases
# and `groups` groups each, and a batch norm (scale and shift) behind either convolution.
#
# <details><summary>Hint 1</summary>
#
# Draw the four layers. Each goes from $C$ to $h = C/r$ channels, or back. Which of them have groups?
#
# </details>
# <details><summary>Hint 2</summary>
#
# A $k \times k$ convolution from $n$ to $m$ channels with $G$ groups has $k^2\, n\, m / G$ weights and $m$ biases
# (toolbox, (4.4)).
#
# </details>
# <details><summary>Hint 3</summary>
#
# With `hidden = channels // reduction`: `2 * channels * hidden` weights in the layers, `2 * 49 * channels * hidden //
# groups` in the convolutions. Then count the numbers that belong to outputs: a bias each in four layers, scale and
# shift in two norms.
#
# </details>

# %% tags=["exercise"]
def gam_parameters(channels, reduction, groups):
    """The number of weights, biases, scales and shifts of one block."""
    raise NotImplementedError

gam_parameters = check("13.2", gam_parameters)

# %% tags=["solution"]
def gam_parameters(channels, reduction, groups):
    hidden = channels // reduction
    layers = 2 * channels * hidden
    convolutions = 2 * 49 * channels * hidden // groups
    biases = 2 * (hidden + channels)
    norms = 2 * (hidden + channels)
    return layers + convolutions + biases + norms

# %% [markdown]
# $$P = \frac{2C^2}{r}\Big(1 + \frac{49}{G}\Big) + 4\Big(C + \frac Cr\Big) \tag{13.15}$$
#
# Without groups that is $100\,C^2/r$, fifty times SE's $2C^2/r$: once for the two layers and 49 times for the
# windows. Unlike in SE, each weight works at every place:
#
# $$\mathrm{MACs} = \frac{2C^2}{r}\Big(1 + \frac{49}{G}\Big)\, HW \tag{13.16}$$

# %%
from attnlib.lab.cost import count_macs, count_parameters

for C, r, G in [(64, 16, 1), (96, 8, 3), (64, 4, 4)]:
    block, weights = GlobalAttention(C, reduction=r, groups=G), 2 * C**2 // r * (1 + 49 / G)
    assert count_parameters(block) == weights + 4 * (C + C // r)  # (13.15)
    assert count_parameters(block) == gam_parameters(C, r, G)
    assert count_macs(block, torch.randn(1, C, 7, 5)) == weights * 7 * 5  # (13.16)

# %% [markdown]
# ### The cost surface
#
# Now a whole network: a ResNet-50 for CIFAR-100 (images of $32 \times 32$), which has 23,705,252 parameters without
# attention (12 counts it). Its 16 blocks put out 256, 512, 1024 and 2048 channels, 3, 4, 6 and 3 of them, on maps of
# 32, 16, 8 and 4 places a side. **Predict:** which costs less, to double $r$ or to double $G$? Does it matter where
# you begin?

# %%
blocks = {256: (3, 32), 512: (4, 16), 1024: (6, 8), 2048: (3, 4)}  # channels: how many, side
rs, Gs, baseline = (4, 8, 16, 32), (1, 2, 4, 8), 23_705_252

def network(r, G):  # parameters and MACs that GAM adds
    macs = sum(n * 2 * C**2 * (G + 49) * side**2 // (r * G) for C, (n, side) in blocks.items())
    return sum(n * gam_parameters(C, r, G) for C, (n, _) in blocks.items()), macs

# %%
surfaces = {"million parameters more": lambda r, G: network(r, G)[0] / 1e6,
            "thousand million MACs more": lambda r, G: network(r, G)[1] / 1e9}
tables = [torch.tensor([[f(r, G) for G in Gs] for r in rs]) for f in surfaces.values()]

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.3))
for ax, title, values in zip(axes, surfaces, tables, strict=True):
    heatmap(values, ax=ax, limits=(0, values.max().item()), numbers=True, colorbar=False)
    ax.set(xticks=range(4), xticklabels=Gs, yticks=range(4), yticklabels=rs, xlabel="groups G")
    ax.set_title(title, fontsize="small")
axes[0].set_ylabel("reduction r")
show(fig, alt="Two tables of r from 4 to 32 by G from 1 to 8. Each falls by one half a row from "
     "top to bottom, and from left to right by nearly one half at first and then by less.")

# %% [markdown]
# **What to see.** The two pictures are nearly the same up to a factor, because (13.15) and (13.16) both have
# $\tfrac1r (1 + \tfrac{49}{G})$ in them, and so has every single block. Doubling $r$ halves all but a few biases,
# from wherever you begin. Doubling $G$ touches the windows only: from 1 to 2 it nearly halves the block too,
# $\tfrac{1 + 49/2}{50} = 0.51$, but from 4 to 8 it leaves 54%, and with ever more groups the two layers remain. For
# the whole network $C^2$ decides: three blocks of 2048 channels have more of the parameters than the other
# thirteen. Their maps are small, though, and in arithmetic the four stages lie within a factor of two.

# %%
assert all(((values[:-1] / values[1:] - 2).abs() < 0.1).all() for values in tables)
assert [round((1 + 49 / (2 * G)) / (1 + 49 / G), 2) for G in (1, 4)] == [0.51, 0.54]
assert sum(n * C**2 for C, (n, _) in blocks.items()) < 2 * (3 * 2048**2)
work = [n * C**2 * side**2 for C, (n, side) in blocks.items()]
assert max(work) == 2 * min(work)

# %% [markdown]
# ### The published 149.5 million
#
# The table that 12 used (the README of Efficient Multi-scale Attention) has a ResNet-50 for CIFAR-100 with GAM, of
# 149.5 million parameters, without saying which $r$. Add (13.15) over the blocks. For $G = 1$ that is
#
# $$\Delta P = \frac{100}{r} \sum C^2 + 4\Big(1 + \frac1r\Big) \sum C, \qquad \sum C^2 = 20{,}119{,}552, \quad \sum C = 15{,}104 \tag{13.17}$$

# %%
squares, firsts = (sum(n * C**k for C, (n, _) in blocks.items()) for k in (2, 1))
assert (squares, firsts) == (20_119_552, 15_104)
assert 2 * squares // 16 + firsts // 16 + firsts == 2_530_992  # SE: weights and biases
for r in rs:
    assert network(r, 1)[0] == 100 * squares // r + 4 * (firsts + firsts // r)  # (13.17)
totals = [baseline + network(*pair)[0] for pair in ((16, 1), (4, 4), (4, 1))]
print(f"r = 16: {totals[0]:,}; r = 4, 4 groups: {totals[1]:,}; r = 4: {totals[2]:,}")
assert totals == [149_516_644, 157_072_804, 526_769_572]

# %% [markdown]
# With $r = 16$ and no groups it is 149,516,644, which rounds to the published number. The popular default, $r = 4$
# with 4 groups, gives 157.1 million, and $r = 4$ without groups 526.8. So **the published network has $r = 16$ and no
# groups**.
#
# How strong is that? It is a deduction from one printed number. So we try others: every $r$ and $G$ among the powers
# of two, and GAM in any of the 15 choices of stages. Does another one round to 149.5?

# %%
from itertools import combinations, product

def total_of(r, G, stages):
    return baseline + sum(blocks[C][0] * gam_parameters(C, r, G) for C in stages)

powers = [2**i for i in range(9)]
choices = [stages for n in (1, 2, 3, 4) for stages in combinations(blocks, n)]

# %%
possible = [(r, G, stages) for r, G, stages in product(powers, powers, choices)
            if all((C // r) % G == 0 for C in stages)]
others = lambda r, stages: sum(blocks[C][0] * 4 * (C + C // r) for C in stages)
hits, bare_hits = ([(r, G, stages) for r, G, stages in possible if
                    f"{(total_of(r, G, stages) - n * others(r, stages)) / 1e6:.1f}" == "149.5"]
                   for n in (0, 1))  # with biases and norms, and without
print(f"of {len(possible)} cases: {hits}")
assert hits == bare_hits == [(16, 1, (256, 512, 1024, 2048))]

# %% [markdown]
# One case of all, and the same one if there are no biases and norms. (Other places in the network, and an $r$ that
# differs by stage, we did not try.) What the number cannot tell is whether the biases and norms are there: without
# the $4(C + C/r)$ numbers a block the sum is 149,452,452, which rounds to 149.5 as well. The library counts the same
# when it builds the network, and for ImageNet it gives 151,368,424:

# %%
from attnlib.lab.networks import network_cost

assert f"{(baseline + 100 * squares // 16) / 1e6:.1f}" == "149.5"
assert baseline + 100 * squares // 16 == 149_452_452
counted = network_cost("resnet50", attention="gam", image=32, classes=100)
assert counted.parameters == 149_516_644 and counted.formula.macs == network(16, 1)[1]
assert 25_557_032 + network(16, 1)[0] == 151_368_424
plain_macs = counted.macs - network(16, 1)[1]
print(f"x {counted.parameters / baseline:.1f} parameters, x {counted.macs / plain_macs:.1f} MACs")

# %% [markdown]
# So the block makes the network more than six times as large and does six times its arithmetic, where SE with $r =
# 16$ adds about a tenth, 2.5 million. Why then $r = 16$ and not more? A larger $r$ narrows both gates alike, and
# through $h = C/r$ hidden channels everything has to pass that one place tells another. And why not groups? They save
# at the windows, but they part the channels, and a shuffle rejoins them only where (13.14) allows it. Either saving
# is paid for with the very exchange that the block is for.
#
# ### With the size of the map, and in time
#
# **Predict** how the multiply-accumulates of one block grow with the number of places $HW$: for SE, for GAM, and for
# self-attention over places (the non-local block of notebook 14)? And the parameters?

# %%
from attnlib import NonLocal

kinds_of = {"SE": SqueezeExcitation(64), "GAM": GlobalAttention(64), "non-local": NonLocal(64)}
sides = (8, 16, 32, 64)
macs_over = {name: [count_macs(block, torch.zeros(1, 64, side, side)) for side in sides]
             for name, block in kinds_of.items()}
places = [side**2 for side in sides]
assert len(set(macs_over["SE"])) == 1
assert all(macs / n == 100 * 64**2 // 16 for macs, n in zip(macs_over["GAM"], places, strict=True))

# %% [markdown]
# And in time? As in 08 we hold it against the cost floor, `x * x.mean((2, 3), keepdim=True)`: read the map, read it
# again, write it. **Predict** the order of magnitude: GAM's time, in floors.

# %%
from attnlib.lab.cost import saved_bytes, time_against_floor

stage_sides = {256: 56, 512: 28, 1024: 14, 2048: 7}  # channels and height = width, on ImageNet
stage_maps = {C: torch.randn(1, C, side, side) for C, side in stage_sides.items()}
timed = {name: [time_against_floor(kind(C), stage_maps[C], repeats=3) for C in stage_sides]
         for name, kind in (("SE", SqueezeExcitation), ("GAM", GlobalAttention))}
assert all(slow > 2 * quick for quick, slow in zip(timed["SE"], timed["GAM"], strict=True))

# %%
def draw_macs(ax):
    for (name, counts), color in zip(macs_over.items(), ("grey", "C0", "C1"), strict=True):
        ax.plot(places, counts, "o-", color=color, label=name)
    ax.set(xscale="log", yscale="log", xlabel="places HW", ylabel="MACs"), ax.legend()

def draw_times(ax):
    for shift, name, color in [(-0.2, "SE", "grey"), (0.2, "GAM", "C0")]:
        ax.bar(torch.arange(4) + shift, timed[name], 0.38, color=color)

# %%
fig, (left_ax, right_ax) = plt.subplots(1, 2, figsize=(8.4, 2.6))
draw_macs(left_ax), draw_times(right_ax)
right_ax.axhline(1, color="black", ls="--")
right_ax.set_xticks(range(4), [f"{C} x {side}²" for C, side in stage_sides.items()])
right_ax.set(yscale="log", xlabel="channels x pixels", ylabel="time / cost floor")
show(fig, alt="Left: MACs over places, logarithmic: SE level, GAM in proportion, the non-local "
     "block twice as steep. Right: forward time over the floor: SE near 1, GAM far above it.")

# %%
kept = saved_bytes(GlobalAttention(256), stage_maps[256]) / (4 * stage_maps[256].numel())
print("kept for the backward pass, beside the input, are more than three maps:", kept > 3)
assert kept > 3

# %% [markdown]
# **What to see.** *Left:* SE is level: its two layers work once an image. GAM is a straight line of slope 1: **linear
# in $HW$**, like any convolution. Only the non-local block, which compares all pairs, grows with the square: on
# the smallest map it is cheaper than GAM, on the largest ten times as dear. The parameters of none of them know of
# $H$ and $W$.
#
# *Right:* GAM is far above the floor everywhere. Other gates pay for passing over the map; GAM pays for arithmetic,
# 1.3 thousand million multiply-accumulates in each of the 16 blocks. From column to column that stays and the map
# halves, so at one speed for all arithmetic the bars would double. They need not: how fast a machine convolves
# depends on the shapes, and the heights are those of one run on one machine. And for training GAM keeps several
# whole maps: both gates, $x'$, and what the norm was given.

# %%
on_imagenet = {C: count_macs(GlobalAttention(C), stage_maps[C]) for C in stage_sides}
assert {round(macs / 1e9, 1) for macs in on_imagenet.values()} == {1.3}
ratios = [a / b for a, b in zip(macs_over["non-local"], macs_over["GAM"], strict=True)]
assert ratios[0] < 1 and 10 < ratios[-1] < 11

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# **Where it should win by construction:** the marked cards of part 2. **A control:** plain digits, where there is
# nothing to choose. And because the block brings many weights, each task has a second, plain opponent: **the network
# without attention, but wide enough to have at least as many parameters** as the one with GAM (28 channels on the
# cards, 30 on the digits, in the place of 16). A dear block has to beat that one too. All train for 8 epochs; GAM has
# $r = 4$, SE and CBAM $r = 1$. CBAM's window is $7 \times 7$, and in another column $13 \times 13$, as wide as GAM's.
# In the first runs some seeds of CBAM did not leave the start; so that nobody loses by a learning rate that suits
# another, those that (13.1) does not bind were trained with a third of it as well (0.005 in the place of 0.015).
#
# The rules, before we look. *Cards*, five seeds: **we speak of a difference only if every seed of the one lies above
# every seed of the other.** If names were dealt out by chance, that would happen in 2 of the 252 ways to divide ten
# runs. *Digits*, ten seeds, three comparisons: **beyond 2.93 standard errors** of the difference seed by seed
# (Student's $t$ for ten seeds, 95% for the three together).
#
# **Predict** the pictures (accuracy by seed). Which columns cannot pass 3/4, by (13.1)? Where will the wide network
# be?
#
# `notebooks/runs/13_global_attention.py` made the tables and makes them again; the network of part 6 is one of their
# rows.

# %%
from attnlib.lab.data import load_results

marked_runs, digit_rows = load_results("13_marked"), load_results("13_digits")
by_setting = marked_runs.groupby(["epochs", "learning_rate", "variant"])
cards_at = lambda rate, name: list(by_setting.get_group((8, rate, name))["accuracy"])
first_seed = by_setting.get_group((5, 0.015, "GAM"))["accuracy"].iloc[0]
print("the live run is near its stored row:", abs(share - first_seed) < 0.2)

# %%
size_of = marked_runs.groupby("variant")["parameters"].first()
assert [size_of[name] for name in ("GAM", "wide", "plain")] == [13_450, 13_702, 6_970]
assert [size_of[name] - size_of["plain"] for name in ("GAM", "CBAM 13")] == [6_480, 884]
on_digits = digit_rows.groupby("variant")["parameters"].first()
assert [on_digits[name] for name in ("GAM", "wide")] == [9_642, 9_700]
digit_runs = digit_rows.pivot(index="seed", columns="variant", values="accuracy")

# %%
from attnlib.lab.plots import by_seed

unbound = ("CBAM", "CBAM 13", "GAM")
panels = {"cards, rate 0.015": {n: cards_at(0.015, n) for n in ("plain", "wide", "SE", *unbound)},
          "cards, rate 0.005": {n: cards_at(0.005, n) for n in unbound},
          "digits": {n: list(digit_runs[n]) for n in ("plain", "wide", "GAM")}}

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), width_ratios=[2, 1.1, 1])
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    limit = None if title == "digits" else 0.75
    by_seed(values, ax=ax, highlight="GAM", means=False, limit=limit, label="")
    ax.set(title=title, ylim=(0, 1) if limit else (0.85, 1)), ax.tick_params(axis="x", labelsize=8)
show(fig, alt="Accuracy by seed. Cards: GAM near 0.85 at both rates, SE 0.35, plain and wide 0.2, "
     "CBAM below 0.6, CBAM 13 up to 0.5 and 0.8. Digits: three clouds near 0.95.")

# %%
above = lambda one, other: min(one) > max(other)  # every seed above every seed of the other
usual, slower = (panels[f"cards, rate {rate}"] for rate in (0.015, 0.005))
assert all(above(at["GAM"], at[name]) for at in (usual, slower) for name in at if name != "GAM")
assert round(sum(usual["plain"]) / 5, 2) == 0.21 and max(usual["SE"]) < 0.37
assert above(usual["SE"], usual["wide"] + usual["plain"])
assert min(usual["GAM"] + slower["GAM"]) > 0.75
assert not above(usual["wide"], usual["plain"]) and not above(usual["plain"], usual["wide"])
assert above(slower["CBAM 13"], slower["CBAM"]) and not above(usual["GAM"], slower["CBAM 13"])

# %%
for one, other, points in (("GAM", "plain", 2), ("wide", "plain", 1), ("GAM", "wide", 1)):
    lead = 100 * (digit_runs[one] - digit_runs[other])
    errors = lead.mean() / lead.sem()
    print(f"digits, {one} - {other}: {lead.mean():+.1f} points, {errors:.1f} standard errors")
    assert round(lead.mean(), 1) == points and (errors > 2.93) == (points == 2)

# %% [markdown]
# **What to see.** *On the cards* every seed of GAM lies above 3/4 and above all others at the same rate. (13.1)
# holds for a network of any width, and here width bought nothing: no difference found between the wide and the
# plain one. SE, which can choose the side, is better than both and stays far below the 3/4 that it is allowed. And
# the plain network, at 21%, does not even get as far as somebody who reads all four digits and picks one.
#
# CBAM has both kinds of gates and is not bound by (13.1). With the first learning rate five of its ten runs never
# leave the start, below 10%; with a third of it and a window of 13, **its two pooled gates come to 58-81%**, and
# there the rule no longer separates it from GAM at the first rate. That is with 884 parameters where GAM brings
# 6,480. Side times place is a product, and a product of two pooled gates can express it. So the cards prove what
# plain networks and SE cannot do; they do not prove that it takes GAM to do it. And mind how much a learning rate
# can decide: with the first alone, we would have written that CBAM fails.
#
# *On digits* (mind the axis) GAM leads the plain network by 2.0 points, beyond our limit. Taken alone, that would
# be a success. But it leads the **wide network of the same size** by 1.0, which is 1.8 standard errors: **no
# difference found**. (Nor is the wide network told apart from the plain one. It lies between the two, and ten seeds
# do not decide to which it belongs.) So on this task we cannot say that it is the attention; any use of as many
# weights may do as well. Where a block multiplies the parameters, "better than without" is not enough.

# %%
print("CBAM 13 at the lower rate:", sorted(round(100 * value) for value in slower["CBAM 13"]), "%")
assert (round(100 * min(slower["CBAM 13"])), round(100 * max(slower["CBAM 13"]))) == (58, 81)
assert sum(value < 0.1 for value in usual["CBAM"] + usual["CBAM 13"]) == 5

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 13.3 · bug gallery · *Depth* · 10 minutes
#
# This spatial gate with groups is built as in popular code (norms left out). Find what is wrong, and change as little
# as you can. (`shuffle` is the one of part 7, and right.)
#
# ```python
# def spatial(x, K_1, K_2, groups):
#     hidden = torch.relu(F.conv2d(x, K_1, padding=3, groups=groups))
#     gate = torch.sigmoid(F.conv2d(hidden, K_2, padding=3, groups=groups))
#     return shuffle(gate, groups)
# ```
#
# <details><summary>Hint 1</summary>
#
# What is a shuffle for? Which gates hear which channels here, and which channel does each gate multiply?
#
# </details>
# <details><summary>Hint 2</summary>
#
# The last of the five matrices in part 7 belongs to this code. The third one is what it should be.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Shuffle `hidden` before the second convolution, and return `gate` as it is.
#
# </details>

# %% tags=["exercise"]
def mended(x, K_1, K_2, groups):
    """x (b, c, h, w), K_1 (c/r, c/groups, 7, 7), K_2 (c, c/r/groups, 7, 7) -> gates, as x."""
    raise NotImplementedError

mended = check("13.3", mended)

# %% tags=["solution"]
def mended(x, K_1, K_2, groups):
    hidden = shuffle(torch.relu(F.conv2d(x, K_1, padding=3, groups=groups)), groups)
    return torch.sigmoid(F.conv2d(hidden, K_2, padding=3, groups=groups))

# %% [markdown]
# ### Take away one ingredient
#
# The marked cards once more, with parts of GAM: its channel gate alone, its spatial gate alone; and the two $7 \times
# 7$ convolutions of the spatial gate **as an ordinary residual layer**, $\mathrm{relu}(x + \mathrm{BN}(K_2 * a_1))$,
# with the same parameters and the same window, where nothing is multiplied. **Predict** an order. Which of the three
# obeys (13.1)?

# %%
parts = {"plain": usual["plain"], "$M_c$ alone": cards_at(0.015, "M_c"),
         "layer": cards_at(0.015, "layer"), "layer, 0.005": cards_at(0.005, "layer"),
         "$M_s$ alone": cards_at(0.015, "M_s"), "GAM": usual["GAM"]}
ax = by_seed(parts, ax=plt.subplots(figsize=(6, 2.4))[1], highlight="GAM", means=False, limit=0.75)
ax.set(ylim=(0, 1)), ax.tick_params(axis="x", labelsize=8)
show(ax.figure, alt="Accuracy on the marked cards by seed: plain and M_c alone near 0.2, the layer "
     "between 0.55 and 0.75, M_s alone and GAM between 0.78 and 0.91.")

# %%
of_plain, of_m_c, layer, layer_slow, of_m_s, of_gam = parts.values()
assert above(of_gam, layer + layer_slow) and above(of_m_s, layer + layer_slow)
assert above(layer, of_m_c) and not above(layer, layer_slow) and not above(layer_slow, layer)
assert (min(layer + layer_slow), max(layer + layer_slow)) == (0.55, 0.75)
assert not above(of_gam, of_m_s) and not above(of_m_s, of_gam) and min(of_m_s) > 0.75
assert not above(of_m_c, of_plain) and not above(of_plain, of_m_c)
assert size_of["M_s"] == size_of["layer"]

# %%
class FirstGate(GlobalAttention):
    forward = lambda self, x: x * self.channel_gate(x)

assert breach(network_with(FirstGate(16, reduction=4))) < 1e-13  # (13.1)

# %% [markdown]
# **What to see.** *$M_c$ alone* is where the plain network is. It works at each place by itself, so the sum of part 2
# stays a sum, and (13.1) holds. *$M_s$ alone* is not told apart from GAM: on this task we found nothing that the
# first gate adds, as (13.7) lets one expect. And the *layer* shows how much is due to the wide window and the weights
# alone, and how much to the product: with the same weights it comes to 55-75%, at either learning rate, and every
# seed of the two gates lies above that. To let one thing switch another, a product is a short way and a sum behind a
# ReLU a longer one. It might get there with more epochs, which we did not try.
#
# ### How global, measured
#
# Now a limit of its own. On the cards of 08 (one digit a side, a square in the corner that says which side to read)
# SE hears the square from anywhere. GAM hears $\pm 6$ places of the features, and these see $\pm 2$ pixels: a gated
# unit knows nothing that is more than 8 rows away. Pull the square and the digits apart by 12 empty rows: the square
# ends in row 3, the digits begin in row 20. A unit that hears the square stands in row 11 at most, one that hears a
# digit in row 12 at least. **No gated unit hears both**, and the argument of (8.1) holds word for word, with the gate
# inside:
#
# $$\ell(\text{card}) + \ell(\text{empty card}) = \ell(\text{square alone}) + \ell(\text{digits alone}) \tag{13.18}$$
#
# So at most 3/4 of those cards can be read with GAM, by any weights. **Predict** the picture: SE and GAM, on the
# cards as they are and pulled apart.

# %%
from attnlib.lab.data import cued_digits

cards = cued_digits(20, seed=0).images
far = torch.cat([F.pad(cards[:, :, :8], (0, 0, 0, 12)), cards[:, :, 8:]], 2)  # 28 rows
square = far.clone()
square[:, :, 4:] = 0
torch.manual_seed(5)
tall = SmallNetwork((2, 28, 8), 10, attention=GlobalAttention(16, reduction=4), groups=2).eval()

# %%
def gap(net, cards, square):  # left side of the equation minus its right side
    net, square, cards = net.double(), square.double(), cards.double()
    return net(cards) + net(0 * cards) - net(square) - net(cards - square)

near_square = cards.clone()
near_square[:, :, 4:] = 0
near = SmallNetwork((2, 16, 8), 10, attention=tall.attention, groups=2).eval()  # as they are

# %%
with torch.no_grad():
    assert gap(tall, far, square).abs().max() < 1e-12  # (13.18)
    assert gap(near, cards, near_square).abs().max() > 1e-8  # on the cards as they are, it fails

# %%
card_runs = load_results("13_cards").groupby(["rows", "variant"])["accuracy"]
fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.6))
for ax, rows, title in zip(axes, (16, 28), ("as they are", "pulled apart by 12 rows"), strict=True):
    groups_of = {name: list(card_runs.get_group((rows, name))) for name in ("plain", "SE", "GAM")}
    by_seed(groups_of, ax=ax, highlight="GAM", limit=0.75, means=False)
    ax.set(ylim=(0, 1), title=title)
show(fig, alt="Accuracy on the cards of 08. As they are: plain near 0.45, SE and GAM above 0.8. "
     "Pulled apart: GAM has fallen to the plain network; SE near 0.9 with four seeds of five.")

# %%
at_rows = lambda rows, name: card_runs.get_group((rows, name))
assert at_rows(16, "GAM").min() > 0.8 > 0.75 > at_rows(28, "GAM").max()
assert abs(at_rows(28, "GAM").mean() - at_rows(28, "plain").mean()) < 0.01
print("SE, pulled apart: seeds of five above 3/4:", int((at_rows(28, "SE") > 0.75).sum()))
assert (at_rows(28, "SE") > 0.75).sum() == 4 and at_rows(16, "SE").min() > 0.8

# %% [markdown]
# **What to see.** On the cards as they are GAM passes 3/4 with every seed, as SE does. Twelve empty rows, and the
# "global" attention is back at the plain network, while the pooled one still solves the game with four seeds of five.
# **Pooling throws away the place and keeps the whole map; GAM keeps the place and sees a window.** Which of the two
# is the loss depends on the task.

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# Articles on the web say the following. Each is settled by the cell below it.
#
# **NAM-3** "NAM keeps channel and spatial information, reduces the information less, and lets all dimensions interact
# globally." **Misnamed.** That is what the abstract of GAM's paper sets out to do, in our words: lose less
# information on the way to the gate, and strengthen interaction across channels and places. NAM (12) lets nothing
# interact: once trained, its gate for a number depends on that number alone.

# %%
# claim NAM-3: MISNAMED
from attnlib import NormalizationAttention

strip_gates = {"NAM": NormalizationAttention(4).double().eval().weights, "GAM": gam.weights}
patterns = {name: signature(gate, strip) for name, gate in strip_gates.items()}
assert torch.equal(patterns["NAM"].channels > 0, torch.eye(4) > 0)
assert torch.equal(patterns["NAM"].places > 0, torch.eye(18) > 0)
assert (patterns["GAM"].channels > 0).all() and (patterns["GAM"].places > 0).sum() > 18

# %% [markdown]
# **GAM-1** "GAM first takes statistics of the channels, then steers the spatial selection." **Partly.** The order is
# right, (13.4). But there are no statistics: if a gate used a mean or a maximum over the map, a change far away would
# move it. (Once trained, that is: in training its batch norms take means, over the batch.)

# %%
# claim GAM-1: PARTLY
long = draw(1, 4, 3, 40)
changed = long.clone()
changed[..., 20:] += 5
moved_by = lambda gate: not torch.allclose(gate(changed)[..., 0], gate(long)[..., 0])
assert not moved_by(gam.channel_gate) and not moved_by(gam.weights) and moved_by(se.weights)
left = long * gam.channel_gate(long)
assert torch.allclose(gam(long), left * gam.spatial_gate(left))  # the order

# %% [markdown]
# **GAM-2** "GAM is global pooling, a $1 \times 1$ convolution, a ReLU, a $1 \times 1$ convolution and a sigmoid."
# **Broken**: code that goes by this name is SE, with the same weights the same function.

# %%
# claim GAM-2: BROKEN
two = nn.Conv2d(6, 6, 1).double(), nn.Conv2d(6, 6, 1).double()
so_called = nn.Sequential(nn.AdaptiveAvgPool2d(1), two[0], nn.ReLU(), two[1], nn.Sigmoid())
for convolution, layer in zip(two, (se_6.W_1, se_6.W_2), strict=True):
    convolution.weight.data, convolution.bias.data = layer.weight[:, :, None, None], layer.bias
assert torch.allclose(so_called(maps), se_6.weights(maps))

# %% [markdown]
# **GAM-3** "GAM models long range without many parameters." **False**, both halves. In a ResNet-50 it adds 125.8
# million parameters to 23.7, where SE adds 2.5; nearly all of them are the $7 \times 7$ convolutions. And the range
# is 13 places.

# %%
# claim GAM-3: FALSE
added = network(16, 1)[0]
print(f"GAM {added / 1e6:.1f} M, of which {98 * squares // 16 / 1e6:.1f} M convolutions")
assert added == 125_811_392 > 5 * baseline and 98 * squares / 16 > 0.97 * added
assert s_gate.places[0, 7] == 0  # seven places away

# %% [markdown]
# **GAM-4** "GAM's fully connected layers get costly at high resolution." **Partly.** The number of parameters does
# not depend on the resolution, and the computation grows in proportion to $HW$, no faster than that of any
# convolution (the figure of part 8). And it is not the layers that are dear: without groups they do one fiftieth of
# the work.

# %%
# claim GAM-4: PARTLY
from attnlib.lab.cost import cost_table

small_map, large_map = (cost_table(GlobalAttention(64), torch.zeros(1, 64, side, side))
                        for side in (8, 32))
assert (large_map["parameters"] == small_map["parameters"]).all()
assert (large_map["macs"] == 16 * small_map["macs"]).all()
assert large_map.loc[["W_1", "W_2"], "macs"].sum() * 50 == large_map.loc["total", "macs"]

# %% [markdown]
# ## 12 · Exercises
#
# 13.1 stands in part 4, 13.2 in part 8 and 13.3 in part 10. Here is one that asks for something new.
#
# ### Exercise 13.4 · who hears whom · *Depth* · 15 minutes
#
# Two convolutions with `groups` groups each, `hidden` channels between them, and the shuffle (13.13) on the hidden
# channels. Return a table of truth values, a boolean tensor (groups, groups): row $q$, column $g$ is true if group
# $q$ of the second convolution is given at least one hidden channel of group $g$ of the first. (`groups` divides
# `hidden`.)
#
# <details><summary>Hint 1</summary>
#
# Number the hidden channels $0, 1, 2, \dots$ Which group do they belong to before the shuffle? Which ones are given
# to group $q$ after it?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Before the shuffle, group $g$ holds `hidden // groups` channels in a row. After it, place $n$ holds a channel of the
# old group $n \bmod G$, and belongs to the new group `n // (hidden // groups)`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Begin with `table = torch.zeros(groups, groups, dtype=torch.bool)`, and set `table[n // (hidden // groups), n %
# groups] = True` for every $n$.
#
# </details>

# %% tags=["exercise"]
def hears(hidden, groups):
    """Two whole numbers -> a boolean tensor (groups, groups)."""
    raise NotImplementedError

hears = check("13.4", hears)

# %% tags=["solution"]
def hears(hidden, groups):
    table = torch.zeros(groups, groups, dtype=torch.bool)
    for n in range(hidden):
        table[n // (hidden // groups), n % groups] = True
    return table

# %% [markdown]
# Its rows agree with (13.14):

# %%
for hidden, G in [(16, 4), (8, 4), (4, 4), (12, 4), (9, 3)]:
    assert (hears(hidden, G).sum(1) == min(G, hidden // G)).all()  # (13.14)

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the paper |
# |---|---|---|---|
# | channel gate | $M_c(p) = \sigma(W_2\,\mathrm{relu}(W_1 x(p) + b_1) + b_2)$ | (13.2) | a permutation and a multi-layer perceptron |
# | spatial gate | $M_s = \sigma(\mathrm{BN}(K_2 * \mathrm{relu}(\mathrm{BN}(K_1 * x'))))$ | (13.3) | two $7 \times 7$ convolutions |
# | block | $x' = M_c(x)\,x$, $y = M_s(x')\,x'$ | (13.4) | $F_1, F_2, F_3$ for our $x, x', y$ |
# | window | 13 x 13 places, all channels | (13.6) | – |
# | gradient | no sum over places | (13.8), (13.9) | – |
# | price | $\frac{2C^2}{r}(1 + \frac{49}{G}) + 4(C + \frac Cr)$ | (13.15) | 149.5 M for a ResNet-50 |
# | MACs | $\frac{2C^2}{r}(1 + \frac{49}{G})\,HW$ | (13.16) | – |
#
# - GAM pools nothing: a gate for each channel at each place. The "3-D permutation" is two $1 \times 1$ convolutions;
#   the spatial gate sees all channels, and contains the channel gate as a special case.
# - "Global" is over channels, not over the map: a place hears $13 \times 13$ places. SE hears all of them, without
#   their order.
# - On cards where side and place must be chosen together GAM passed 3/4 with every seed, and SE cannot; CBAM with a
#   window of 13 and a seventh of GAM's weights came to 58-81%. On cards pulled apart by 12 rows SE can, and GAM
#   cannot.
# - The published ResNet-50 has $r = 16$ and no groups, six times the parameters of the plain one. The popular default
#   is another network.
# - On digits GAM led the plain network, but not one of its own size: no difference found. A dear block needs a dear
#   opponent.
# - Shuffle between the grouped convolutions, not behind them, and see that there are enough hidden channels, $h/G \ge
#   G$.
#
# **Sources.** Liu, Shao, Hoffmann, arXiv 2112.05561 (aim, structure of the two gates; we could not check every figure
# of it); the README of *Efficient Multi-Scale Attention Module with Cross-Spatial Learning*, arXiv 2305.13563 (149.5
# M); several public re-implementations of GAM (part 7); Zhang et al., *ShuffleNet*, arXiv 1707.01083 (channel
# shuffle).
#
# **Back:** [12_normalization_attention](12_normalization_attention.ipynb) · **Next:**
# [14_non_local](14_non_local.ipynb), which lets every place hear every other, at last the whole map. The map of the
# course is in [00_start_here](00_start_here.ipynb).
