# %% [markdown]
# # 10 · Spatial attention
#
# **The question.** Squeeze-and-Excitation turns whole *channels* up or down and cannot say *where* in the picture
# something is (notebook 08). How can a network turn *places* up or down instead, and what does that need?
#
# **The answer in one sentence.** Pool over the channels, so that a map of places is left, convolve that map, put a
# sigmoid behind it, and multiply every channel by the result: 98 weights, however many channels there are. Two other
# things bear the same three letters, SAM: a gate for every single number of the map, and a bare product.
#
# **Papers.** Sanghyun Woo, Jongchan Park, Joon-Young Lee, In So Kweon: *CBAM: Convolutional Block Attention Module*,
# ECCV 2018, [arXiv 1807.06521](https://arxiv.org/abs/1807.06521), whose second half is the gate over places. Alexey
# Bochkovskiy, Chien-Yao Wang, Hong-Yuan Mark Liao: *YOLOv4*, [arXiv 2004.10934](https://arxiv.org/abs/2004.10934),
# and their program Darknet.
#
# **Time.** Core 95 minutes (parts 1-4, 6, 9 and exercises 10.1 and 10.3) · Depth 120 minutes (the rest).
#
# **Prerequisites.** [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb): we build on its gate and its
# backward pass. Of the toolbox: [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products),
# [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs), above all [how far a unit
# sees](00_toolbox.ipynb#How-far-does-a-unit-see?), and [batch
# normalisation](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass). The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x_c(p)$ is channel $c$ at place $p$ |
# | $p, q, \delta$ | | places, each a row and a column; $\delta$ is a step from one place to another |
# | $P_1, P_2$ | $B \times H \times W$ each | the **pooled maps**: maximum and mean over the channels |
# | $k$ | | width of the window, an odd number; 7 in the paper |
# | $K_1, K_2$ | $k \times k$ each | the two halves of the kernel, one for each pooled map |
# | $v, m$ | $B \times H \times W$ | the score of a place, before its sigmoid, and behind it: the **gate** |
# | $M$ | $B \times C \times H \times W$ | the point-wise gate of YOLOv4, one for each number |
# | $y$ | $B \times C \times H \times W$ | the feature map that goes out |
#
# Three letters mean something else in other notebooks: in Part I, $m$ is a number of keys, $q$ a query and $v$ a
# value. As before, $\sigma$ is the logistic sigmoid. The paper writes $\mathbf{M_s}$ for our $m$.

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
# **10.a** A batch of 2 images has 16 channels of 8 x 8 pixels. How many numbers does a maximum over the *channels*
# leave? (a) 32 · (b) 64 · (c) 128 · (d) 2048 · (e) 1
#
# **10.b** What is the slope of $t\, \sigma(t)$? Write $s$ for $\sigma(t)$. (a) $s$ · (b) $t\, s(1-s)$ · (c) $s(1-s)$
# · (d) $t\, s^2 (1-s)$ · (e) $s + t\, s(1-s)$
#
# **10.c** A 7 x 7 convolution stands behind layers whose units see 5 x 5 pixels; all strides are 1. How many pixels
# wide is the window that one unit behind it sees? (a) 7 · (b) 11 · (c) 12 · (d) 35 · (e) 5

# %% tags=["exercise"]
check("10.a", ...)
check("10.b", ...)
check("10.c", ...)

# %% tags=["solution"]
check("10.a", "c")
check("10.b", "e")
check("10.c", "b")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# Each picture below holds one whole handwritten digit, somewhere, and seven pieces of other digits. Ink, stroke width
# and scale are the same in both. The task is to name the whole digit.

# %%
from attnlib.lab.data import cluttered_digits
from attnlib.lab.plots import pictures
from attnlib.lab.small_network import SmallNetwork

clutter, new_clutter = cluttered_digits(2000, seed=0), cluttered_digits(500, split="test", seed=1)

def frame(ax, box):  # the box as a red frame around its pixels
    x0, y0, x1, y1 = box.tolist()
    ax.add_patch(plt.Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec="red", lw=2))

# %%
axes = pictures(clutter.images[:5, 0], [f"a whole {label}" for label in clutter.labels[:5]])
for ax, box in zip(axes, clutter.boxes[:5], strict=True):
    frame(ax, box)
show(axes[0].figure, alt="Five pictures, each with one whole digit in a red frame, at a different "
     "place in each, and pieces of other digits all around it.")

# %% [markdown]
# **What to see.** The frame is for us; the network gets only the picture and the digit's name. Nothing marks the
# digit but that it hangs together over a larger area than any piece does.
#
# Our network is as simple as it can be. It halves the picture, so that a digit measures at most 8 x 8 again; two 3 x
# 3 convolutions give 16 channels of features, each of which sees 5 x 5 of the halved pixels; then it takes the **mean
# over all places** and reads the ten classes from the 16 means with one linear layer. (`SmallNetwork`, from which it
# inherits the convolutions, is the one of notebook 08.)

# %%
class Votes(SmallNetwork):
    def __init__(self, attention=None):
        super().__init__((1, 32, 32), 10, attention=attention)
        self.read = torch.nn.Linear(16, 10)
    def features(self, x):
        return super().features(F.avg_pool2d(x, 2))
    def forward(self, x):
        return self.read(self.attention(self.features(x)).mean((2, 3)))

# %% [markdown]
# **Predict before you go on:** guessing would be right on 10% of the pictures. What will the plain network reach
# after 24 epochs, on pictures that it has not seen: about 10%, about 50%, or about 90%?

# %%
from attnlib.lab.training import accuracy, train

def trained(attention=None, seed=0):
    torch.manual_seed(seed)
    network = Votes(attention() if attention else None)
    recipe = {"epochs": 24, "batch_size": 50, "learning_rate": 0.015}
    train(network, clutter, **recipe, seed=seed, progress=False)
    return network

# %%
plain = trained()
share = accuracy(plain, new_clutter)
print("better than guessing, and wrong on a third or more:", 0.15 < share < 0.67)
assert 0.15 < share < 0.67

# %% [markdown]
# (The mean of sixteen starts is 44%, as part 9 will show.) Why is it so hard? Write $f(p)$ for the 16 features at
# place $p$, and $A$ and $b$ for the weights and biases of the last layer. A linear layer of a mean is the mean of
# linear layers, so the ten logits are
#
# $$\ell = b + A\, \frac{1}{HW} \sum_p f(p) = b + \frac{1}{HW} \sum_p \underbrace{A f(p)}_{\text{the vote of } p}
# \tag{10.1}$$
#
# Each place casts a **vote**, ten numbers that depend on its own 5 x 5 pixels and on nothing else. All votes are
# added, and all **count the same**. A window inside a piece of a 4 votes as it would inside a whole 4; the network
# cannot ask whether the strokes go on outside of the window.

# %%
with torch.no_grad():
    logits, f = plain(new_clutter.images[:8]), plain.features(new_clutter.images[:8])
    votes = torch.einsum("kc,bchw->bkhw", plain.read.weight, f)
    assert torch.allclose(logits, plain.read.bias + votes.mean((2, 3)), atol=1e-4)  # (10.1)
    elsewhere = torch.rand_like(new_clutter.images[:8])
    elsewhere[:, :, 12:22, 12:22] = new_clutter.images[:8, :, 12:22, 12:22]  # 5 x 5 halved pixels
    assert torch.allclose(plain.features(elsewhere)[:, :, 8, 8], f[:, :, 8, 8])  # the same vote

# %% [markdown]
# What is missing is a **weight for each vote**: a number $m(p)$ between 0 and 1, larger where the neighbourhood of
# $p$ looks like that of a whole digit.
#
# $$\ell = b + \frac{1}{HW} \sum_p m(p)\, A f(p) \tag{10.2}$$
#
# Our idea: $m(p)$ should see further than $f(p)$ does. (Keep it in mind; parts 9 and 10 will put it to the test.) If
# a 7 x 7 convolution of features computes it, it sees $5 + 6 = 11$ pixels (question 10.c). Here are both windows,
# around a place in the digit of our first picture and around one in a piece:

# %%
axes, titles = plt.subplots(1, 2, figsize=(5, 2.7))[1], ["in the digit", "in a piece"]
pictures(F.avg_pool2d(clutter.images[:1], 2)[0].expand(2, -1, -1), titles, axes=axes)
for ax, (column, row) in zip(axes, [(5, 10), (9, 6)], strict=True):
    for size, color in ((5, "C1"), (11, "C0")):
        corner = (column - size / 2, row - size / 2)
        ax.add_patch(plt.Rectangle(corner, size, size, fill=False, ec=color, lw=3))
show(axes[0].figure, alt="The first picture, halved, twice: a small window of 5 pixels inside a "
     "large one of 11, around a place in the digit on the left and in a piece on the right.")

# %% [markdown]
# **What to see.** Of the small windows (orange) it is hard to say which one lies in the digit. The large windows
# (blue) differ: the left one holds a digit from end to end, the right one holds the ends of several pieces. So we put
# a gate behind the convolutions; which one, part 3 says. That (10.2) is then true does not depend on how the gate is
# made:

# %%
from attnlib import SpatialAttention

torch.manual_seed(1)
make_sam = lambda: SpatialAttention(16)
gated = Votes(SpatialAttention(16, zero_start=False)).eval()
with torch.no_grad():
    logits = plain.read(gated.attention(f).mean((2, 3)))
    weighed = (gated.attention.weights(f) * votes).mean((2, 3))
    assert torch.allclose(logits, plain.read.bias + weighed, atol=1e-4)  # (10.2)

# %% [markdown]
# The sum is still a sum, and a window is still a window: what lies more than 5 of the halved pixels away from a place
# has no part in its vote, nor in the weight of its vote. We ask for no more than that a vote be weighed by its
# neighbourhood.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. This is the feature map of notebook 08, four channels of 2 x 2 places.

# %%
from attnlib.lab.data import example_feature_map

x = example_feature_map()
for c in range(4):
    print(f"channel {c}:", x[0, c].int().tolist())

# %% [markdown]
# ### Pool over the channels
#
# Notebook 08 kept the channels and pooled the places away. Here it is the other way round: the places stay, and what
# stands at a place in all channels becomes two numbers, its maximum and its mean.
#
# $$P_1(p) = \max_c x_c(p), \qquad P_2(p) = \frac1C \sum_{c=1}^{C} x_c(p) \tag{10.3}$$
#
# Top left, the four channels hold $1, 0, -2, 4$: the maximum is 4 and the mean $3/4$. Do the other three places
# before you run the cell.

# %%
pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
assert pooled[0, 0].tolist() == [[4, 2], [3, 2]] and (pooled[0, 1] == 3 / 4).all()  # (10.3)
print("maximum:", pooled[0, 0].tolist(), "  mean:", pooled[0, 1].tolist())

# %% [markdown]
# To the mean, all four places look the same. Only the maximum tells them apart; that is one reason for two pooled
# maps. (The other way round happens as well: a place where one channel is high, and one where all are.)
#
# ### Convolve
#
# A kernel with two halves looks at the two maps, in a window of $k \times k$ places around each place. What lies
# beyond the edge counts as 0. The paper takes $k = 7$; for the pencil we take 3, and easy numbers:
#
# $$K_1 = \begin{pmatrix} 0 & 0 & 0 \\ 0 & 1 & 1 \\ 0 & 0 & 0 \end{pmatrix}, \qquad
# K_2 = \begin{pmatrix} 0 & 0 & 0 \\ 0 & -4 & 0 \\ 0 & 0 & 0 \end{pmatrix}$$
#
# $K_1$ adds to the maximum of a place that of its right-hand neighbour; $K_2$ takes off four times the mean. In
# general, with steps $\delta$ from the middle of the window:
#
# $$v(p) = \sum_{a=1}^{2} \sum_{\delta} K_a(\delta)\, P_a(p + \delta), \qquad m(p) = \sigma\big(v(p)\big) \tag{10.4}$$
#
# Top left: $4 + 2 - 4 \cdot \tfrac34 = 3$. Top right there is no right-hand neighbour: $2 + 0 - 3 = -1$. Below: $3 +
# 2 - 3 = 2$ and $2 + 0 - 3 = -1$. To three digits, $\sigma(3) = 0.953$, $\sigma(2) = 0.881$ and $\sigma(-1) = 0.269$.

# %%
K = torch.zeros(1, 2, 3, 3).double()
K[0, 0, 1, 1], K[0, 0, 1, 2], K[0, 1, 1, 1] = 1, 1, -4
v = F.conv2d(pooled, K, padding=1)
m = torch.sigmoid(v)
assert v.tolist() == [[[[3, -1], [2, -1]]]]
assert m.round(decimals=3).tolist() == [[[[0.953, 0.269], [0.881, 0.269]]]]  # (10.4)

# %% [markdown]
# Like every layer called a convolution in deep learning, this one does not turn its kernel: $\delta$ to the right
# looks to the right.
#
# ### Scale
#
# Every channel is multiplied by the same map of gates:
#
# $$y_c(p) = m(p)\, x_c(p) \tag{10.5}$$

# %%
from attnlib.lab.plots import heatmap

y = x * m
assert all(torch.equal(y[0, c], m[0, 0] * x[0, c]) for c in range(4))  # (10.5)

# %%
fig, axes = plt.subplots(2, 5, figsize=(8, 2.9), width_ratios=[1, 1, 1, 1, 1.3])
for n, (ax, values) in enumerate(zip(axes[:, :4].flat, torch.cat([x[0], y[0]]), strict=True)):
    heatmap(values, ax=ax, limits=(-4, 4), signed=True, numbers=True, colorbar=False)
    ax.set_title(f"{'xy'[n // 4]}, channel {n % 4}")
heatmap(m[0, 0], ax=axes[0, 4], numbers=True, label="gate").set_title("m")
axes[1, 4].axis("off"), plt.setp(axes, xticks=[], yticks=[])
show(fig, alt="Top row: the four channels of x, and the gate: 0.95 and 0.88 on the left, 0.27 "
     "on the right. Bottom row: the channels times the gate; their right columns have faded.")

# %% [markdown]
# **What to see.** The right column has faded, in every channel and by the same factor, whatever stood there. With SE
# each channel had a factor for all places; here each place has a factor for all channels. Nothing has moved, and no
# two places have been mixed: mixing happens only inside the gate.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# First (10.3) and (10.4) as loops, for a single image, with nothing but Python's own arithmetic.

# %%
from math import exp

def pool_by_loops(image):
    C, H, W = image.shape
    at = lambda i, j: [image[c, i, j].item() for c in range(C)]
    return {(i, j): (max(at(i, j)), sum(at(i, j)) / C) for i in range(H) for j in range(W)}

# %%
def gate_by_loops(pooled, K, i, j):
    r, v = K.shape[-1] // 2, 0.0
    for di in range(-r, r + 1):
        for dj in range(-r, r + 1):
            largest, mean = pooled.get((i + di, j + dj), (0.0, 0.0))  # zeros beyond the edge
            v += K[0, 0, r + di, r + dj] * largest + K[0, 1, r + di, r + dj] * mean
    return 1 / (1 + exp(-v))

# %% [markdown]
# ### Exercise 10.1 · the gate · *Core* · 10 minutes
#
# Write (10.3) and (10.4) without loops. `x` is (b, c, h, w) and `K` is (1, 2, k, k), the half for the maximum first;
# return the gates as (b, 1, h, w), so that `x * gate` works.
#
# <details><summary>Hint 1</summary>
#
# Three steps: pool over the channels in two ways, join the two maps, and a convolution with a sigmoid.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The channels are axis 1. `keepdim=True` keeps it, with length 1, so that the two maps can be joined along it.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)`, then `F.conv2d` with `padding=K.shape[-1] // 2`.
#
# </details>

# %% tags=["exercise"]
def spatial_gate(x, K):
    """x (b, c, h, w), K (1, 2, k, k) -> gates (b, 1, h, w)."""
    raise NotImplementedError

spatial_gate = check("10.1", spatial_gate)

# %% tags=["solution"]
def spatial_gate(x, K):
    pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
    return torch.sigmoid(F.conv2d(pooled, K, padding=K.shape[-1] // 2))

# %%
torch.manual_seed(2)
maps, kernel = torch.randn(2, 6, 5, 4).double(), torch.randn(1, 2, 3, 3).double()
gates = spatial_gate(maps, kernel)
for n, image in enumerate(maps):
    around = pool_by_loops(image)
    for i, j in around:
        assert abs(gate_by_loops(around, kernel, i, j) - gates[n, 0, i, j]) < 1e-9

# %% [markdown]
# ### The convolution as a matrix
#
# Number the places row by row, and write the pooled maps as rows $P_1, P_2 \in \mathbb{R}^{B \times HW}$. A
# convolution is linear, so it is a matrix; the entry in row $p$ and column $q$ says how much place $p$ takes from
# place $q$:
#
# $$m = \sigma\big(P_1 T_1^\top + P_2 T_2^\top\big), \qquad (T_a)_{pq} = K_a(q - p),\ \text{ and } 0 \text{ where } q
# \text{ lies outside of the window of } p \tag{10.6}$$
#
# Compare SE's (8.5): there $W_2$ and $W_1$ were full matrices over channels with a weight for every pair. Here the
# matrices run over *places*, nearly all entries are 0, and the others repeat the same $k^2$ numbers in every row.
# That is why 98 weights are enough, and also why the gate is blind beyond its window.

# %%
def as_matrix(K_a, H, W):
    T, r = torch.zeros(H, W, H, W).double(), K_a.shape[-1] // 2
    every = torch.cartesian_prod(*map(torch.arange, (H, W, *K_a.shape)))
    for i, j, di, dj in every.tolist():
        if 0 <= i + di - r < H and 0 <= j + dj - r < W:
            T[i, j, i + di - r, j + dj - r] = K_a[di, dj]
    return T.view(H * W, H * W)

# %%
T_1, T_2 = as_matrix(kernel[0, 0], 5, 4), as_matrix(kernel[0, 1], 5, 4)
P_1, P_2 = maps.amax(1).flatten(1), maps.mean(1).flatten(1)
assert torch.allclose(torch.sigmoid(P_1 @ T_1.T + P_2 @ T_2.T), gates.flatten(1))  # (10.6)
print("entries that are not zero:", int((T_1 != 0).sum()), "of", T_1.numel())
assert (T_1 != 0).sum() == (3 * 5 - 2) * (3 * 4 - 2)

# %% [markdown]
# The library's `SpatialAttention` is the same, with the norm that the authors' program has behind the convolution
# (part 7). Without the norm it takes our kernel and gives our gates:

# %%
module = SpatialAttention(4, kernel_size=3, norm=False).double()
module.load_state_dict({"conv.weight": K})
assert torch.equal(module.weights(x), m) and torch.equal(module(x), y)
module = SpatialAttention(6, norm=False).double()
assert torch.allclose(module.weights(maps), spatial_gate(maps, module.conv.weight))

# %% [markdown]
# ### The same letters, another gate: YOLOv4
#
# YOLOv4's authors write that they changed this "from spatial-wise attention to point-wise attention". Nothing is
# pooled and no neighbour is asked. A 1 x 1 convolution, which is one matrix $W$ used at every place, turns the $C$
# channels of a place into $C$ scores, and each number of the map gets a gate of its own:
#
# $$M_d(p) = \sigma\Big( \sum_{c=1}^{C} W_{dc}\, x_c(p) + b_d \Big), \qquad y_d(p) = M_d(p)\, x_d(p) \tag{10.7}$$
#
# (In Darknet a batch norm in eval stands in the place of $b$: it multiplies each row of $W$ by a number and adds
# another.)

# %%
from attnlib import PointwiseSpatialAttention

torch.manual_seed(3)
point = PointwiseSpatialAttention(6, norm=False).double()
W, b = point.conv.weight[:, :, 0, 0], point.conv.bias
M = torch.sigmoid(torch.einsum("dc,bchw->bdhw", W, maps) + b[:, None, None])
assert torch.allclose(point.weights(maps), M) and torch.allclose(point(maps), M * maps)  # (10.7)

# %% [markdown]
# ### And a third: Darknet's layers
#
# Darknet, the program in which YOLOv4 was written, has a layer `[sam]` and a layer `[scale_channels]`. Neither
# computes a gate. They are three kinds of product of one map $x$ with something that another layer put out:
#
# $$\underbrace{y_c(p) = o_c(p)\, x_c(p)}_{\texttt{sam}}, \qquad
# \underbrace{y_c(p) = s_c\, x_c(p)}_{\texttt{scale\_channels}}, \qquad
# \underbrace{y_c(p) = m(p)\, x_c(p)}_{\texttt{scale\_channels, scale\_wh=1}} \tag{10.8}$$
#
# YOLOv4's gate is a convolutional layer with a logistic activation, *followed* by `[sam]`; CBAM's would end in the
# third product, SE's in the second.

# %%
from attnlib.feature_map import sam_layer, scale_channels

s = torch.rand(2, 6, 1, 1).double()
assert torch.equal(sam_layer(maps, M), M * maps)  # (10.8)
assert torch.equal(scale_channels(maps, s)[:, 2], s[:, 2] * maps[:, 2])
assert torch.equal(scale_channels(maps, gates, scale_wh=True), gates * maps)

# %% [markdown]
# `audit` (notebook 08) watches the two gates without knowing what they are. The last three lines of each tell the
# story.

# %%
from attnlib.lab.audit import audit

for each in (SpatialAttention(6, norm=False), PointwiseSpatialAttention(6, norm=False)):
    print(type(each).__name__)
    for finding in audit(each).findings:
        if finding.check in ("gate shape", "gate channels", "gate positions"):
            print("  ", finding)

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Let $g = \partial L / \partial y$ be what arrives from above. As in notebook 08 the input counts twice: directly, as
# the thing that is scaled, and through the gate. What is new are the sum over channels, the convolution and the
# maximum.
#
# **Product.** In $y_c(p) = m(p)\, x_c(p)$ all channels of a place share one gate, so their gradients add up. With SE
# it was the places that shared one, and the sum (8.6) ran over them. In Darknet's `sam` nobody shares: $o_c(p)$ is
# used once, and there is no sum.
#
# $$\frac{\partial L}{\partial x_c(p)}\bigg|_{\text{direct}} = m(p)\, g_c(p), \qquad
# \frac{\partial L}{\partial m(p)} = \sum_c g_c(p)\, x_c(p), \qquad
# \frac{\partial L}{\partial o_c(p)} = g_c(p)\, x_c(p) \tag{10.9}$$
#
# **Sigmoid.** As in (8.7): $\partial L / \partial v(p) = m(p)\,(1 - m(p))\; \partial L / \partial m(p)$.

# %%
torch.manual_seed(4)
features, g = torch.randn(2, 2, 5, 4, 3).double()
features, weights = features.requires_grad_(), torch.randn(1, 2, 3, 3).double().requires_grad_()
P = torch.cat([features.amax(1, keepdim=True), features.mean(1, keepdim=True)], 1)
score = F.conv2d(P, weights, padding=1)
gate = torch.sigmoid(score)
wanted = [features, weights, P, score, gate]
d_features, d_weights, d_P, d_score, d_gate = torch.autograd.grad(features * gate, wanted, g)

# %%
with torch.no_grad():
    assert torch.allclose(d_gate, (g * features).sum(1, keepdim=True))  # (10.9)
    assert torch.allclose(d_score, d_gate * gate * (1 - gate))
other = torch.randn(2, 5, 4, 3).double().requires_grad_()
d_left, d_right = torch.autograd.grad(sam_layer(features, other), [features, other], g)
with torch.no_grad():
    assert torch.equal(d_left, g * other) and torch.equal(d_right, g * features)

# %% [markdown]
# **Convolution.** By (10.4), the weight $K_a(\delta)$ is used at every place $p$, where it multiplies $P_a(p +
# \delta)$; so it collects from all of them, and from all images. And $P_a(q)$ is used in the score of every place $p$
# whose window holds $q$: that is $p = q - \delta$, with the weight $K_a(\delta)$.
#
# $$\frac{\partial L}{\partial K_a(\delta)} = \sum_{\text{images}} \sum_p \frac{\partial L}{\partial v(p)}\, P_a(p + \delta), \qquad
# \frac{\partial L}{\partial P_a(q)} = \sum_\delta K_a(\delta)\, \frac{\partial L}{\partial v(q - \delta)} \tag{10.10}$$
#
# Two functions of PyTorch write this for us: `F.unfold` lists for each place the $2k^2$ numbers in its window, and
# `F.fold` adds numbers so listed back onto the places that they came from.

# %%
with torch.no_grad():
    windows, at_places = F.unfold(P, 3, padding=1), d_score.flatten(1)  # (b, 18, hw) and (b, hw)
    summed = torch.einsum("bp,bdp->d", at_places, windows)
    assert torch.allclose(d_weights.flatten(), summed)  # (10.10)
    spread = weights.flatten()[None, :, None] * at_places[:, None]  # (b, 18, hw)
    assert torch.allclose(d_P, F.fold(spread, (4, 3), 3, padding=1))

# %% [markdown]
# **Pooling.** The mean is easy: each channel has the share $1/C$ in it. And the maximum? Let channel $c$ be the
# largest at place $p$, with some distance to the second. Move it a little, and the maximum moves by the same amount:
# slope 1. Move any other, and the maximum stays where it is: slope 0. So **the winner takes the whole gradient of the
# maximum**, and $[\,\cdot\,]$ is again 1 where the condition holds and 0 elsewhere:
#
# $$\frac{\partial L}{\partial x_c(p)}\bigg|_{\text{gate}} = \frac{\partial L}{\partial P_1(p)}\, \big[x_c(p) = P_1(p)\big]
# + \frac1C\, \frac{\partial L}{\partial P_2(p)} \tag{10.11}$$
#
# ### Exercise 10.2 · back through the pooling · *Depth* · 10 minutes
#
# Write (10.11). `grad_pooled` is (b, 2, h, w), the maximum's gradient first; `x` is (b, c, h, w) without ties. Return
# the gradient for `x`.
#
# <details><summary>Hint 1</summary>
#
# The two ways end at the same $x$, so they are added. Write each of them in the shape of `x`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x == x.amax(1, keepdim=True)` is True for the winner of each place. A product of numbers and booleans works.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `grad_pooled[:, :1]` is the gradient of the maximum, of shape (b, 1, h, w): times the winners. `grad_pooled[:, 1:]`
# is the mean's: divided by the number of channels.
#
# </details>

# %% tags=["exercise"]
def pool_backward(grad_pooled, x):
    """grad_pooled (b, 2, h, w), x (b, c, h, w) -> the gradient for x, (b, c, h, w)."""
    raise NotImplementedError

pool_backward = check("10.2", pool_backward)

# %% tags=["solution"]
def pool_backward(grad_pooled, x):
    winner = x == x.amax(1, keepdim=True)
    return grad_pooled[:, :1] * winner + grad_pooled[:, 1:] / x.shape[1]

# %% [markdown]
# Now everything together. The whole gradient of $x$ is the direct way plus the way through the gate,
#
# $$\frac{\partial L}{\partial x_c(p)} = m(p)\, g_c(p) + \frac{\partial L}{\partial x_c(p)}\bigg|_{\text{gate}} \tag{10.12}$$
#
# and the backward pass as one function is held against autograd *and* against central differences.

# %%
with torch.no_grad():
    assert torch.allclose(d_features, gate * g + pool_backward(d_P, features))  # (10.12)
    through_gate = d_features - gate * g
    winners = features == features.amax(1, keepdim=True)
    assert torch.allclose(through_gate, d_P[:, :1] * winners + d_P[:, 1:] / 5)  # (10.11)

# %%
forward = lambda x, K: x * spatial_gate(x, K)

def backward(g, x, K):
    P, k = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1), K.shape[-1]
    m = spatial_gate(x, K)
    dv = ((g * x).sum(1, keepdim=True) * m * (1 - m)).flatten(1)
    dK = torch.einsum("bp,bdp->d", dv, F.unfold(P, k, padding=k // 2)).view_as(K)
    dP = F.fold(K.flatten()[None, :, None] * dv[:, None], x.shape[2:], k, padding=k // 2)
    return {"x": m * g + pool_backward(dP, x), "K": dK}

# %%
from attnlib.lab.gradients import compare_gradients

table = compare_gradients(forward, backward, {"x": features, "K": weights})
assert table["hand = autograd"].all() and table["hand = differences"].all()
table

# %% [markdown]
# ### When two channels tie
#
# In our pencil example, channels 0 and 1 tie bottom right: both are 2. There the maximum has a kink. Raise one of
# them, and it follows; lower one, and it stays, because the other still stands there. No single number is *the*
# slope. PyTorch picks one, and not always the same: `amax` shares the gradient evenly among those who tie, `max`
# along an axis gives it to one of them.
#
# **Predict:** what do central differences say, which go up and down by the same small step? For two that tie? For
# three?

# %%
def slopes(largest, values):
    t = torch.tensor(values).double().requires_grad_()
    return torch.autograd.grad(largest(t), t)[0].tolist()

amax, by_index = (lambda t: t.amax(0)), (lambda t: t.max(0).values)
assert slopes(amax, [2, 2, -1, 0]) == [0.5, 0.5, 0, 0]  # shared
assert sorted(slopes(by_index, [2, 2, -1, 0])) == [0, 0, 0, 1]  # given to one

# %%
from attnlib.lab.gradients import central_differences

for tied in ([2.0, 2.0, -1.0], [2.0, 2.0, 2.0]):
    at, one = {"t": torch.tensor(tied).double()}, torch.tensor(1.0).double()
    differences = central_differences(lambda t: t.amax(0), at, one)["t"]
    for name, slope_of in (("amax", slopes(amax, tied)), ("differences", differences)):
        print(f"{name:12}", [f"{s:.2f}" for s in slope_of])
    assert torch.allclose(differences, (at["t"] == 2).double() / 2)

# %% [markdown]
# **What to see.** A step up moves the maximum, a step down does not: the central difference is 1/2, however many tie,
# and with three that is not what `amax` says. All of these are choices at a point where there is no slope. Nor is it
# a point in theory only: behind a ReLU, wherever no channel is active, *all* are 0 and tie. So compare gradients by
# hand at places without ties, as the table above did.

# %% [markdown]
# ### What one number does to the gates
#
# As in (8.12) we go forward: how fast does the gate of place $p$ move when $x_c(q)$ does? $x_c(q)$ moves $P_1(q)$ if
# it is the winner there, and $P_2(q)$ by its share; each of them moves $v(p)$ by the weight that $p$ has for the step
# $q - p$; and the sigmoid has the slope $m(1-m)$.
#
# $$\frac{\partial m(p)}{\partial x_c(q)} = m(p)\,\big(1 - m(p)\big)\, \Big( K_1(q - p)\, \big[x_c(q) = P_1(q)\big] + \tfrac1C\,
# K_2(q - p) \Big) \tag{10.13}$$
#
# with $K_a(q - p) = 0$ where $q$ lies outside of the window of $p$. In (8.12) there was no place on the right-hand
# side; here it is the *difference* of two places that counts, and the kernel is free to give each difference any
# weight.

# %%
from attnlib.lab.gradients import jacobian

one_map, one_kernel = features[:1].detach(), weights.detach()
measured = jacobian(lambda x: spatial_gate(x, one_kernel).flatten(), one_map)[:, 0].flatten(2)
T = [as_matrix(half, 4, 3) for half in one_kernel[0]]  # places p x places q
wins = (one_map == one_map.amax(1, keepdim=True)).double()[0].flatten(1)  # channels x places q
by_formula = T[0][:, None] * wins + T[1][:, None] / 5
slope = gate[0].detach().flatten() * (1 - gate[0].detach().flatten())
assert torch.allclose(measured, slope[:, None, None] * by_formula)  # (10.13)

# %% [markdown]
# ### Two slips in a published backward pass
#
# Darknet writes its gradients by hand, in C and in CUDA. Two of them are worth a look; both are easy to make again.
#
# **Assigned, not added.** In Darknet each layer owns a store for the gradient of its output, and whoever uses that
# output *adds* its part. On the CPU the backward pass of `sam` *assigns* to the store of the layer called `from`; on
# the GPU it adds. Here is the smallest network in which that matters: $y = x\, o$ and a shortcut behind it, $t = y +
# x$. The gradients are made from the last layer to the first.

# %%
def in_darknets_order(g, x, o, *, assign):
    store_x, store_y = g, g  # the shortcut t = y + x adds its part to both
    part = store_y * o  # the part of the product
    store_x = part if assign else store_x + part  # [sam] on the CPU, and on the GPU
    return {"x": store_x, "o": store_y * x}

# %% [markdown]
# **Predict:** which gradient comes out wrong, that of $x$ or that of $o$? And would you notice without the shortcut?

# %%
from functools import partial

leaves = {"x": features, "o": other}
with_shortcut = lambda x, o: sam_layer(x, o) + x
for assign in (False, True):
    slip = compare_gradients(with_shortcut, partial(in_darknets_order, assign=assign), leaves)
    print("assigns" if assign else "adds   ", slip["hand = autograd"].to_dict())
    assert bool(slip.loc["x", "hand = autograd"]) is not assign and slip.loc["o", "hand = autograd"]

# %% [markdown]
# **What to see.** The part of the shortcut, which was there first, is lost. Without the shortcut nothing would be in
# the store yet, and assigning would be as good as adding: in the network files that use `[sam]` right behind its
# gate, the gate's own part is added *afterwards*. A slip of this kind sleeps until somebody uses a layer's output
# once more.
#
# **Divided by the number of places.** On the GPU, `scale_channels` with `scale_wh=1` divides the gradient of the gate
# by $HW$; on the CPU it does not, and (10.9) has no such factor. (For one gate per channel, which serves $HW$ places,
# someone may want a mean in place of the sum. For one gate per place there is nothing to average over the places.)
# The gate still learns in the right direction, only $HW$ times more slowly; with plain gradient descent, on the 56 x
# 56 map of a first stage, that is a factor of 3,136.

# %%
def backward_divided(g, x, K):
    right = backward(g, x, K)
    scale = x.shape[2] * x.shape[3]
    direct = spatial_gate(x, K) * g
    return {"x": direct + (right["x"] - direct) / scale, "K": right["K"] / scale}

slip = compare_gradients(forward, backward_divided, {"x": features, "K": weights})
print(slip["hand = autograd"].to_dict(), "and 56 * 56 =", 56 * 56)
assert not slip["hand = autograd"].any() and 56 * 56 == 3136

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# ### Its signature
#
# Which numbers of the map does a gate listen to? `signature` draws the Jacobian of a gate at one input as two
# matrices: which *channels* (rows) listen to which channels (columns), and which *places* to which places, counted
# row by row. Bright is strong, the darkest colour is nothing.
#
# **Predict before you run it,** for a 4 x 4 map of six channels: in which matrices do you expect a full square, in
# which a diagonal, and in which a band? Draw SE's, CBAM's gate with a 3 x 3 window, and YOLOv4's point-wise gate on
# paper first.

# %%
from attnlib import SqueezeExcitation
from attnlib.lab.signatures import draw_signature, signature

torch.manual_seed(5)
kinds = {"SE": SqueezeExcitation(6, reduction=1),
         "spatial, 3 x 3": SpatialAttention(6, kernel_size=3, norm=False),
         "point-wise": PointwiseSpatialAttention(6, norm=False)}
small_map = torch.randn(1, 6, 4, 4).double()
patterns = {name: signature(kind.double().weights, small_map) for name, kind in kinds.items()}

# %%
fig, axes = plt.subplots(2, 3, figsize=(6.6, 4.5))
for column, (name, pattern) in zip(axes.T, patterns.items(), strict=True):
    draw_signature(pattern, axes=column, title=name)
show(fig, alt="Signatures. SE: both matrices are full. The spatial gate: channels full, with equal "
     "rows; places in a band. The point-wise gate: channels full, places a diagonal.")

# %%
near = as_matrix(torch.ones(3, 3), 4, 4) > 0
spatial, pointwise = patterns["spatial, 3 x 3"], patterns["point-wise"]
assert torch.equal(spatial.places > 0, near)
assert torch.allclose(spatial.channels, spatial.channels[:1].expand(6, 6))
assert torch.equal(pointwise.places > 0, torch.eye(16).bool()) and (pointwise.channels > 0).all()
assert (patterns["SE"].places > 0).all() and (patterns["SE"].channels > 0).all()

# %% [markdown]
# **What to see.** All three listen to all channels. They differ in the places: SE listens to all of them alike, the
# spatial gate to a window (the bands beside the diagonal are the rows above and below), the point-wise gate to its
# own place only. And in the spatial gate all channels follow in the same way, since they share one gate: the rows of
# the upper matrix are equal.

# %% [markdown]
# ### Its maps
#
# Now we train the network of part 2 with a 7 x 7 gate behind its convolutions.
#
# **Predict before you go on:** will the gate be open on the digit, on all ink, or on the empty paper? Nobody tells
# the network where the digit is; it only learns from the digit's name.

# %%
sam_net = trained(make_sam)
with torch.no_grad():
    sam_gates = sam_net.attention.weights(sam_net.features(new_clutter.images))[:, 0]

# %%
fig, axes = plt.subplots(2, 6, figsize=(9, 3.2))
pictures(new_clutter.images[:6, 0], axes=axes[0])
for n, (above, below) in enumerate(axes.T):
    frame(above, new_clutter.boxes[n])
    heatmap(sam_gates[n], ax=below, colorbar=n == 5, label="gate")
    below.set(xticks=[], yticks=[], aspect="equal")
show(fig, alt="Six new pictures with their digits framed, and below each its map of gates: bright "
     "over most of the framed digit and over some of the densest clutter, dark elsewhere.")

# %%
from attnlib.lab.localization import inside_boxes

def large(maps):  # from the halved scale, 16 x 16, to that of the pictures and boxes, 32 x 32
    return maps.repeat_interleave(2, 1).repeat_interleave(2, 2)

inside, ink = inside_boxes(new_clutter.boxes, 32, 32), new_clutter.images[:, 0] >= 0.25
on_digit, on_pieces = (large(sam_gates)[where & ink].mean() for where in (inside, ~inside))
print("on the digit's ink more than twice as open as on other ink:", bool(on_digit > 2 * on_pieces))
assert on_digit > 2 * on_pieces

# %% [markdown]
# **What to see.** In this network the gate is open over the digit and mostly shut elsewhere, and what is open is a
# blob, larger than the strokes: each gate sees 11 pixels of the halved picture. Where pieces lie close together it is
# sometimes taken in. It looks as if the network had learnt to find the digit, from names alone. But this is one
# network (of the sixteen that we shall meet below, it has the sharpest gate), and we have not asked what the plain
# network does.
#
# ### Two scores
#
# To measure where a map points, we need no more than the boxes. The **pointing game** asks whether the largest value
# of a map lies in the box: 1 or 0 for an image. The **energy in the box** asks which share of the map's sum lies
# there. The first looks at one place, the second at all.
#
# ### Exercise 10.3 · energy in the box · *Core* · 10 minutes
#
# `maps` is (n, h, w) and nowhere negative; `boxes` is (n, 4), each row x0, y0, x1, y1, and the ends x1 and y1 are
# left out. Return for each image the share of its map's sum that lies in its box, as one tensor of shape (n,).
#
# <details><summary>Hint 1</summary>
#
# Two sums for each image, and one divided by the other.
#
# </details>
# <details><summary>Hint 2</summary>
#
# x counts columns and y counts rows, and a map's first axis is the rows: the box is `m[y0:y1, x0:x1]`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Go through `zip(maps, boxes.tolist())`, put the shares into a list, and return `torch.stack` of it.
#
# </details>

# %% tags=["exercise"]
def energy_in_box(maps, boxes):
    """maps (n, h, w), boxes (n, 4) as x0, y0, x1, y1 -> shares (n,)."""
    raise NotImplementedError

energy_in_box = check("10.3", energy_in_box)

# %% tags=["solution"]
def energy_in_box(maps, boxes):
    shares = []
    for m, (x0, y0, x1, y1) in zip(maps, boxes.tolist(), strict=True):
        shares.append(m[y0:y1, x0:x1].sum() / m.sum())
    return torch.stack(shares)

# %% [markdown]
# The library has both scores, in `attnlib.lab.localization`. (Where several places share the largest value, its
# pointing game gives the share of them that lies in the box.) Before any network, three maps that have learnt
# nothing:
#
# - **chance**: a flat map. It scores the share of the area that the boxes cover, in both scores;
# - **the best fixed place**: always point at the place that most boxes of the training pictures cover;
# - **the ink**: the picture itself as a map.

# %%
from attnlib.lab.localization import energy_in_box as library_energy
from attnlib.lab.localization import pointing_game

boxes = new_clutter.boxes
covered = inside_boxes(clutter.boxes, 32, 32).double().mean(0)  # share of boxes, for each place
fixed = (covered == covered.max()).double().expand(500, 32, 32)
chance, fixed_place = inside.double().mean(), pointing_game(fixed, boxes).mean()
ink_energy = energy_in_box(new_clutter.images[:, 0], boxes).mean()
same = energy_in_box(large(sam_gates), boxes) - library_energy(large(sam_gates), boxes)

# %%
assert same.abs().max() < 1e-5  # ours and the library's
print(f"chance {chance:.2f}; the best place lies in {covered.max():.2f} of the training boxes,")
print(f"and in {fixed_place:.2f} of the new ones; energy of the ink {ink_energy:.2f}")
found = [chance, covered.max(), fixed_place, ink_energy]
assert [round(float(share), 2) for share in found] == [0.17, 0.56, 0.51, 0.33]
assert inside[:, 15:17].any(2).any(1).all()  # every box covers one of the two middle rows

# %% [markdown]
# The best fixed place, near the middle, lies in 56% of the boxes that chose it and in 51% of the new ones, although a
# box covers only 17% of a picture: a digit is half as high as the picture, so no box misses the middle rows.
# **A map that points at the digit in half of all pictures has learnt nothing.** And a third of the ink lies in the
# boxes, so two thirds are clutter.
#
# Which maps shall we compare? For the plain network we take the simplest there is: at each place the **mean of its 16
# features**, none of which is negative (they come out of a ReLU). Since the gate averages over 7 x 7 places with its
# own weights, it would be unfair to leave the plain network's map unsmoothed; so we also take the **7 x 7 mean** of
# that map. For the network with the gate we take the **gate** and what it lets through: the **mean of the 16 gated
# features**.

# %%
def maps_of(network, images):
    f = network.features(images)
    strength = f.mean(1)
    maps = {"plain": strength, "smooth": F.avg_pool2d(strength[:, None], 7, 1, 3)[:, 0]}
    if isinstance(network.attention, SpatialAttention):
        maps = {"gate": network.attention.weights(f)[:, 0], "gated": network.attention(f).mean(1)}
    return {name: large(values) for name, values in maps.items()}

# %%
from attnlib.lab.data import load_results

with torch.no_grad():
    live_maps = maps_of(plain, new_clutter.images) | maps_of(sam_net, new_clutter.images)
runs = load_results("10_clutter")
clutter_runs = runs[runs["epochs"] == 24].set_index(["variant", "seed"]).sort_index()
stored = clutter_runs.loc[("SAM", 0), "energy gated"]
live = energy_in_box(live_maps["gated"], boxes).mean()
print("the live run's energy is near that of its stored row:", bool(abs(live - stored) < 0.2))

# %% [markdown]
# One seed is an anecdote. Sixteen of each were trained beforehand, by `notebooks/runs/10_spatial_attention.py`, with
# the recipe of the cell that trained ours. A rule, stated before we look: **we speak of a difference only if the mean
# over the 16 seeds lies more than 2.13 standard errors from zero** (Student's $t$ for 16, 95%).
#
# **Predict:** order the four maps by each of the two scores. Which of them beat the best fixed place?

# %%
from attnlib.lab.plots import by_seed

assert abs(live - stored) < 0.2
sources = {"plain": ("plain", "features"), "7 x 7\nmean": ("plain", "smooth"),
           "gate": ("SAM", "gate"), "gated": ("SAM", "gated")}
scores = {kind: {name: list(clutter_runs.loc[variant, f"{kind} {column}"])
                 for name, (variant, column) in sources.items()} for kind in ("pointing", "energy")}

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for ax, kind, limit in zip(axes, scores, (fixed_place, ink_energy), strict=True):
    by_seed(scores[kind], ax=ax, highlight="gated", label=f"{kind} score", limit=float(limit))
    ax.axhline(float(chance), color="black", ls=":", lw=1)
    ax.set(ylim=(0, 1))
show(fig, alt="Both scores of four maps by seed. Pointing: plain features near 0.7, their 7 x 7 "
     "mean and the gated features near 0.9, the gate spread. Energy: gated features highest.")

# %%
def compare(a, b):  # the mean of the differences seed by seed, and in standard errors
    d = torch.tensor(a).double() - torch.tensor(b).double()
    return d.mean().item(), (d.mean() / (d.std() / len(d) ** 0.5)).item()

for kind in ("pointing", "energy"):
    for against in ("plain", "7 x 7\nmean"):
        d, errors = compare(scores[kind]["gated"], scores[kind][against])
        name = against.replace("\n", " ")
        print(f"{kind}: gated - {name}: {d:+.2f}, {errors:.1f} standard errors")


# %% [markdown]
# **What to see.** (Dashed: on the left the best fixed place, on the right the energy of the ink itself. Dotted:
# chance.) The two scores tell different stories.
#
# *Pointing.* The gated features are right in 88% of the pictures and the plain features in 74%, a difference of 9.7
# standard errors. It looks like a clear gain. But take the 7 x 7 mean of the *plain* network's features, which has
# nothing to train: 87%. Against that map **we find no difference** (0.4 standard errors). Such a mean points at the
# largest patch of activity, and that is mostly the whole digit. (It has to be the activity of *trained* features: the
# same mean of the ink alone is right in 62%.) The *gate alone* does worst: 65%, with a wide spread; it is worse than
# both maps of the plain network. (Perhaps because a gate is nearly 1 over a wide area, so that its largest value
# means little.)
#
# *Energy.* Here smoothing does not help; it carries energy out of the box. The gated features hold 53% of their sum
# in the box, the plain features 35%, hardly more than the ink itself. That gain is large (11.6 standard errors), and
# it is the gate's doing: in front of the gate, the features of the same networks hold only 30%. The gate's own
# energy, 33%, is no better than the plain map's: its values over empty paper and clutter are small, but they are
# many.

# %%
means = {kind: [round(100 * sum(v) / 16) for v in scores[kind].values()] for kind in scores}
assert means == {"pointing": [74, 87, 65, 88], "energy": [35, 31, 33, 53]}
assert abs(compare(scores["pointing"]["gated"], scores["pointing"]["7 x 7\nmean"])[1]) < 2.13
assert compare(scores["pointing"]["gate"], scores["pointing"]["plain"])[1] < -2.13
smooth_ink = F.avg_pool2d(F.avg_pool2d(new_clutter.images, 2), 7, 1, 3)[:, 0]
assert round(float(pointing_game(large(smooth_ink), boxes).mean()), 2) == 0.62
assert abs(compare(scores["energy"]["gate"], scores["energy"]["plain"])[1]) < 2.13

# %%
in_front = list(clutter_runs.loc["SAM", "energy features"])  # of the same networks, before the gate
assert round(100 * sum(in_front) / 16) == 30
assert compare(scores["energy"]["gated"], in_front)[1] > 2.13
assert max(scores["energy"]["gate"]) == scores["energy"]["gate"][0]  # seed 0 has the sharpest gate

# %% [markdown]
# ### Look around
#
# The picture and its gate, for any of the new pictures. Where does the gate go wrong?

# %%
def explore(number=0):
    fig, axes = plt.subplots(1, 2, figsize=(5, 2.3), width_ratios=[1, 1.25])
    pictures(new_clutter.images[number], axes=axes[:1])
    frame(axes[0], new_clutter.boxes[number])
    heatmap(sam_gates[number], ax=axes[1], label="gate").set(xticks=[], yticks=[], aspect="equal")
    show(fig, alt=f"New picture number {number} with its digit framed, and its map of gates.")

explore(17)

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, number=(0, 99));

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | official code | popular copies |
# |---|---|---|---|
# | norm behind the convolution | none in equation (3) | batch norm of one channel, momentum 0.01 | timm has it, External-Attention-pytorch has not |
# | its scale at the start | – | 0: every gate is 1/2 | timm: 1 |
# | order of the maps | mean, then maximum | maximum, then mean | timm: mean, then maximum |
# | width of the window | 7 | 7 | External-Attention-pytorch: 49 unless you say otherwise |
# | bias of the convolution | – | none | External-Attention-pytorch has one |
# | YOLOv4's norm | – | Darknet's network files: batch norm, no bias | ports to PyTorch with and without |
#
# `SpatialAttention` follows the official code, and has an argument for each difference. One more fact of this kind:
# the network file `yolov4.cfg` that was released holds no `[sam]`; the variant with it has a file of its own.
#
# **The norm, and a scale of 0.** Behind the norm the score is $\gamma\, \hat v + \beta$ with $\gamma = \beta = 0$ at
# the start, so $m = \sigma(0) = \tfrac12$ everywhere, and the block is born as $y = x/2$. Then, by the chain rule,
# $\partial L/\partial K$ carries the factor $\gamma = 0$: **in the first step the kernel learns nothing**. But
# $\gamma$ does, and from the second step on the kernel follows.

# %%
torch.manual_seed(6)
block, big = SpatialAttention(6), torch.randn(4, 6, 9, 8)
assert torch.equal(block(big), big / 2)
block(big).square().sum().backward()
for_kernel, for_gamma = block.conv.weight.grad, block.norm.weight.grad
print("gradient of the kernel:", float(for_kernel.abs().max()), " of gamma: not 0")
assert (for_kernel == 0).all() and for_gamma.abs() > 0.01

# %%
torch.optim.SGD(block.parameters(), lr=0.01).step()  # the first step moves gamma, and beta
block.zero_grad()
block(big).square().sum().backward()
assert block.norm.weight.abs() > 1e-4 and (block.conv.weight.grad != 0).all()

# %% [markdown]
# What does the norm do to a *gate*? In training it takes mean and variance over all places of all images of the
# batch. So the gate of an image depends on its company, and the scores of a batch have the mean $\beta$, whatever the
# kernel. In eval it is a fixed factor and a fixed shift.

# %%
normed = SpatialAttention(6, zero_start=False)
alone, in_company = normed.weights(big[:1]), normed.weights(big)[:1]
assert (alone - in_company).abs().max() > 0.01  # in training the other images count
assert normed.weights(big).logit().mean().abs() < 1e-4  # the scores' mean is beta = 0
normed.eval()
assert torch.allclose(normed.weights(big[:1]), normed.weights(big)[:1], atol=1e-6)

# %% [markdown]
# **Order and width.** The order is a matter of naming, as long as you swap the kernel's two halves as well when you
# load weights from elsewhere. The width is a matter of sight and price: on a map of 7 x 7 places a window of 49 has
# 4,802 weights, and only the inner 13 x 13 of each half ever meet a place of the map.

# %%
ours = SpatialAttention(6, norm=False)
mean_first = torch.cat([big.mean(1, keepdim=True), big.amax(1, keepdim=True)], 1)
theirs = F.conv2d(mean_first, ours.conv.weight.flip(1), padding=3).sigmoid()
assert torch.allclose(ours.weights(big), theirs, atol=1e-6)
wide = SpatialAttention(6, kernel_size=49, norm=False)
wide.weights(torch.randn(1, 6, 7, 7)).sum().backward()
assert wide.conv.weight.numel() == 4802 and (wide.conv.weight.grad != 0).sum() == 2 * 13**2

# %% [markdown]
# **YOLOv4's norm** can be taken into the matrix once training has ended: with running mean $\mu_d$ and variance
# $\nu_d$, row $d$ of $W$ is multiplied by $\gamma_d / \sqrt{\nu_d + \varepsilon}$, and $b_d = \beta_d - \gamma_d\,
# \mu_d / \sqrt{\nu_d + \varepsilon}$. So (10.7) is all there is to it.

# %%
yolo = PointwiseSpatialAttention(6)
yolo(big)  # one step of training, so that the running statistics are no longer 0 and 1
yolo.eval()
factor = yolo.norm.weight / (yolo.norm.running_var + yolo.norm.eps).sqrt()
W_folded = yolo.conv.weight[:, :, 0, 0] * factor[:, None]
b_folded = yolo.norm.bias - factor * yolo.norm.running_mean
folded = torch.einsum("dc,bchw->bdhw", W_folded, big) + b_folded[:, None, None]
assert torch.allclose(yolo.weights(big), folded.sigmoid(), atol=1e-5)

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# CBAM's gate over places has one kernel of two halves, and two numbers in its norm. How many channels there are does
# not enter. Each weight is used once at every place:
#
# $$P = 2k^2 + 2 = 100 \ \text{ for } k = 7, \qquad \mathrm{MACs} = 2k^2\, HW = 98\, HW \tag{10.14}$$
#
# The point-wise gate has a $C \times C$ matrix and a norm of $C$ channels, and it uses the matrix at every place:
#
# $$P = C^2 + 2C, \qquad \mathrm{MACs} = C^2\, HW \tag{10.15}$$

# %%
from attnlib.lab.cost import closed_form, count_macs, count_parameters

for C, k in [(64, 7), (256, 3)]:
    sam, yolo = SpatialAttention(C, kernel_size=k), PointwiseSpatialAttention(C)
    ones = torch.ones(1, C, 9, 8)
    counts = [(count_parameters(each), count_macs(each, ones)) for each in (sam, yolo)]
    assert counts[0] == (2 * k**2 + 2, 2 * k**2 * 72)  # (10.14)
    assert counts[1] == (C**2 + 2 * C, C**2 * 72)  # (10.15)
    assert closed_form("sam", C, 9, 8, kernel_size=k).parameters == counts[0][0]

# %% [markdown]
# In numbers: at $C = 2048$ the one has 100 parameters and the other 4,198,400. Put one behind each of the 16 blocks
# of ResNet-50, whose 25,557,032 parameters notebook 08 counted: CBAM's gate makes it 25,558,632; the point-wise gate
# makes it 45,706,792, four fifths more, and does 3.3 billion multiplications besides the 4.1 that the network does
# anyway. (YOLOv4's authors place three or five of them in a network, not one in every block.)

# %%
from attnlib.lab.networks import network_cost

costs = [network_cost("resnet50", attention=name) for name in (None, "sam", "point_sam")]
print([f"{cost.parameters:,}" for cost in costs])
assert [cost.parameters for cost in costs] == [25_557_032, 25_558_632, 45_706_792]
assert costs[2].macs - costs[0].macs == 3_288_334_336 and round(costs[0].macs / 1e9, 1) == 4.1
assert count_parameters(PointwiseSpatialAttention(2048)) == 4_198_400

# %% [markdown]
# ### Time and memory
#
# As in notebook 08, the **cost floor** is the time to read the map, read it again and write it once. **Predict:**
# which of the two gates is near the floor, and which one is dearer on the late, deep maps?

# %%
from attnlib.lab.cost import saved_bytes, time_against_floor

sizes = {256: 56, 512: 28, 1024: 14, 2048: 7}  # channels and height = width
time_maps = {C: torch.randn(1, C, size, size) for C, size in sizes.items()}
times = {kind: [time_against_floor(kind(C), time_maps[C], repeats=7) for C in sizes]
         for kind in (SpatialAttention, PointwiseSpatialAttention)}

# %%
ax = plt.subplots(figsize=(5, 2.5))[1]
for shift, color, (kind, ratios) in zip((-0.2, 0.2), ("C0", "C1"), times.items(), strict=True):
    ax.bar([i + shift for i in range(4)], ratios, 0.38, label=kind.__name__, color=color)
ax.axhline(1, color="black", ls="--"), ax.legend(loc="upper left")
ax.set(yscale="log", ylim=(0.7, 1e3), ylabel="time / cost floor", xlabel="channels x pixels")
ax.set_xticks(range(4), [f"{C} x {size}²" for C, size in sizes.items()])
show(ax.figure, alt="Forward times over the cost floor, logarithmic, on the maps of four stages: "
     "the spatial gate within a small factor of it, the point-wise gate many times as long.")

# %%
kept = {kind.__name__: saved_bytes(kind(256), time_maps[256]) for kind in times}
map_bytes = 4 * time_maps[256].numel()
print({name: f"{size / map_bytes:.2f} maps" for name, size in kept.items()})
spatial_bytes, point_bytes = kept.values()
assert spatial_bytes < 0.1 * map_bytes and point_bytes >= 2 * map_bytes

# %% [markdown]
# **What to see** (the scale is logarithmic, and the heights are those of one machine). The gate over places passes
# over the map twice to pool it, convolves two thin maps and passes over it once more: a few times the floor. The
# point-wise gate multiplies by a matrix at every place, $C$ multiplications for each number of the map; so it is far
# above the floor, and furthest on the deep maps. And it keeps whole maps
# for the backward pass, where the other keeps a few thin ones.

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# **Where it should help:** the clutter of part 2. There every vote counts the same, and a gate can weigh it by a
# neighbourhood that is twice as wide (10.2). **Where it should not:** the cards of notebook 08, where not a place but
# a side has to be chosen.
#
# ### Clutter
#
# We compare four networks, sixteen seeds each: the plain one, and one with each of the three things called SAM.
# CBAM's gate, 7 x 7; YOLOv4's point-wise gate with its norm; and Darknet's `sam_layer` alone, fed with a linear 1 x 1
# convolution, $y = x \odot (Wx + b)$, with no sigmoid. The last two see no further than the plain network does, 5
# pixels. The rule is that of part 6: 2.13 standard errors.
#
# **Predict** an order of the four. If the width of the window is what matters, which three should be alike?

# %%
def by_network(names):
    return {name: list(clutter_runs.loc[name, "accuracy"]) for name in names}

three = by_network(["plain", "SAM", "point-wise", "product"])
off = abs(accuracy(sam_net, new_clutter) - three["SAM"][0])
print("the live run is near its stored row:", off < 0.25)
assert off < 0.25

# %%
ax = by_seed(three, ax=plt.subplots(figsize=(5.5, 2.7))[1], highlight="SAM", limit=0.1)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on new clutter by seed: plain from 0.1 to 0.6, SAM and the point-"
     "wise gate higher with much spread, the bare product highest, near 0.8 with all seeds.")

# %%
for name in ("SAM", "point-wise", "product"):
    d, errors = compare(three[name], three["plain"])
    print(f"{name} - plain: {100 * d:+.0f} points, {errors:.1f} standard errors")

# %% [markdown]
# **What to see.** The plain network is right on 44% of the pictures. CBAM's gate is 18 points above it, the
# point-wise gate 13; both leads pass the rule. The spread is wide: after 24 epochs some seeds have hardly begun to
# learn, with the gate and without it. Nor is the plain network only slow: four seeds of each were trained for 72
# epochs, and then the gate has 81% and the plain network 64%.
#
# And then there is the surprise. **After 24 epochs the bare product, without sigmoid and without a wider window, is
# best by far**, with every seed above 0.78. (It was not trained for 72, where the gate comes nearly as high; what
# would be left of its lead we do not know. At the least it learns much faster.) So our explanation of part 2, that
# the gate has to see further, cannot be the whole story. We said what a gate over places *can* do that the plain
# network cannot, and that is proved; that it is *why* the gate helps here was a guess. Part 10 takes it apart.

# %%
gains = [compare(three[name], three["plain"]) for name in ("SAM", "point-wise", "product")]
assert [round(100 * gain) for gain, _ in gains] == [18, 13, 39] and all(e > 2.13 for _, e in gains)
assert min(three["product"]) > 0.78 and round(100 * sum(three["plain"]) / 16) == 44
assert min(three["SAM"]) < 0.15 and min(three["plain"]) < 0.15  # hardly begun
long = runs[runs["epochs"] == 72].pivot(index="seed", columns="variant", values="accuracy")
d, errors = compare(list(long["SAM"]), list(long["plain"]))
print(f"72 epochs: {100 * d:+.0f} points, {errors:.1f} standard errors; four seeds ask for 3.18")
assert len(long) == 4 and round(100 * d) == 17 and errors > 3.18

# %%
assert [round(100 * long[name].mean()) for name in ("SAM", "plain")] == [81, 64]


# %% [markdown]
# ### The cards
#
# On a card of notebook 08, two digits lie at the same place of its two sides; a square in the top left corner of one
# side says which one to read. A gate over places multiplies both sides by the same number: for any two channels $a$
# and $c$, and at every place,
#
# $$y_a(p)\, x_c(p) = x_a(p)\, y_c(p) \tag{10.16}$$
#
# (both are $m(p)\, x_a(p)\, x_c(p)$). At no place can it prefer one side. It is tempting to stop here and say: so it
# cannot choose a side. That would be too quick. It might read side 0 at *some* places and side 1 at *others*, and
# open the ones or the others, **if the gate knew where the square is**.
#
# Does it? A gate sees 11 pixels. The square ends in row 3 and the digits begin in row 8. So a gate in rows 3 to 8
# sees both. **On the cards as they are there is a loophole**, and it leads to the features of rows 6 to 8, which see
# the top three rows of the digits. To shut it, we pull the cards apart: eight empty rows more between square and
# digits. Then no gated unit sees both, and the argument of (8.1) holds word for word, with the gate inside of $f$:
#
# $$\ell(\text{card}) + \ell(\text{empty card}) = \ell(\text{square alone}) + \ell(\text{digits alone}) \tag{10.17}$$
#
# for any weights once training has ended, and so no more than 3/4 of all cards can be read.

# %%
from attnlib.lab.data import Images, cued_digits

def stretched(cards, rows):
    top, bottom = cards.images[:, :, :8], cards.images[:, :, 8:]
    return Images(torch.cat([F.pad(top, (0, 0, 0, rows)), bottom], 2), cards.labels, cards.classes)

# %%
def both_sides(net, cards, first_row):  # the two sides of the equation, as logits
    card, square, digits = (cards.images[:20].clone() for _ in range(3))
    square[:, :, first_row:], digits[:, :, :first_row] = 0, 0
    return net(card) + net(0 * card), net(square) + net(digits)

cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)

# %%
torch.manual_seed(7)
open_gate = SpatialAttention(16, zero_start=False)
fresh = SmallNetwork((2, 24, 8), 10, attention=open_gate, groups=2).eval()
with torch.no_grad():
    left, right = both_sides(fresh, stretched(cards, 8), 16)
    assert torch.allclose(left, right, atol=1e-4)  # (10.17)
    assert torch.allclose(y[0, 0] * x[0, 3], x[0, 0] * y[0, 3])  # (10.16), the pencil example

# %% [markdown]
# **Predict:** how much does the loophole yield? Which accuracy will the spatial gate reach on the cards as they are,
# and on those pulled apart? (Plain: about 0.45. SE passed 3/4 with ease.) Five seeds each; for five, the rule asks
# for 2.78 standard errors.

# %%
from attnlib.lab.small_network import learn

card_net = learn(cards, make_sam, seed=0, groups=2)
with torch.no_grad():
    left, right = both_sides(card_net, cards, 8)
print("on the cards as they are, the equation fails:", bool((left - right).abs().max() > 0.5))
assert (left - right).abs().max() > 0.5

# %%
card_runs = load_results("10_cards").set_index(["rows", "variant", "seed"]).sort_index()["accuracy"]
names = ("plain", "SAM", "point-wise", "SE")
on_cards = {rows: {name: list(card_runs[rows, name]) for name in names} for rows in (0, 8)}
off = abs(accuracy(card_net, new_cards) - on_cards[0]["SAM"][0])
print("the live run is near its stored row:", off < 0.1)
assert off < 0.1

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.7))
for ax, rows, title in zip(axes, (0, 8), ("as they are", "pulled apart by 8 rows"), strict=True):
    by_seed(on_cards[rows], ax=ax, highlight="SAM", limit=0.75).set(ylim=(0, 1), title=title)
show(fig, alt="Accuracy on the cards. As they are: plain and point-wise near 0.45, SAM between 0.5 "
     "and 0.7, SE near 0.9. Pulled apart: SAM has fallen to the plain network, SE has not.")

# %%
for rows in (0, 8):
    d, errors = compare(on_cards[rows]["SAM"], on_cards[rows]["plain"])
    print(f"{rows} rows more: SAM - plain {100 * d:+.0f} points, {errors:.1f} standard errors")
    assert (abs(errors) > 2.78) == (rows == 0)
    assert min(on_cards[rows]["SE"]) > 0.75 > max(on_cards[rows]["SAM"])

# %% [markdown]
# **What to see.** On the cards as they are, the spatial gate gains 12 points through the loophole, and stays below
# the 3/4. Pulled apart by eight rows, it is back at the plain network: **no difference found**, and (10.17) says why.
# The point-wise gate, which sees no further than the plain network, shows no difference to it on either. SE, which
# looks at everything, does not mind the gap. So "a spatial gate cannot choose a side" is proved where it does not see
# what decides; where it does, there is something to gain.

# %%
assert round(100 * compare(on_cards[0]["SAM"], on_cards[0]["plain"])[0]) == 12
for rows in (0, 8):
    assert abs(compare(on_cards[rows]["point-wise"], on_cards[rows]["plain"])[1]) < 2.78


# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 10.4 · bug gallery · *Depth* · 10 minutes
#
# An explanation that circulates on the web says of SAM: "global max pooling and global average pooling, join,
# convolve, sigmoid, multiply". Here is a forward pass that takes the sentence at its word. It runs, it returns
# features of the right shape, and it even trains. Find what it computes in place of (10.5), and change as little as
# you can.
#
# ```python
# def forward(x, K):
#     pooled = torch.stack([x.amax((2, 3)), x.mean((2, 3))], 1)[..., None]
#     gate = torch.sigmoid(F.conv2d(pooled, K, padding=K.shape[-1] // 2))
#     return x * gate.transpose(1, 2)
# ```
#
# <details><summary>Hint 1</summary>
#
# Print the shapes of `pooled` and of `gate`. Over what does the convolution slide?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Compare with (10.3): over which axis run the maximum and the mean there?
#
# </details>
# <details><summary>Hint 3</summary>
#
# Pool over axis 1 and stack: `torch.stack([x.amax(1), x.mean(1)], 1)` is (b, 2, h, w). Then no axis has to be added
# or turned.
#
# </details>

# %% tags=["exercise"]
def mended(x, K):
    """x (b, c, h, w), K (1, 2, k, k) -> features of the same shape, as in (10.5)."""
    raise NotImplementedError

mended = check("10.4", mended)

# %% tags=["solution"]
def mended(x, K):
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    gate = torch.sigmoid(F.conv2d(pooled, K, padding=K.shape[-1] // 2))
    return x * gate

# %% [markdown]
# What did the recipe compute? Global pooling leaves two numbers for each *channel* and no place. Stacked and
# convolved, they give one gate for each channel, which looks at neighbouring channels: without knowing it, the recipe
# has built a cousin of ECA (notebook [09_efficient_channel_attention](09_efficient_channel_attention.ipynb)). All
# places get the same gate.
#
# ### Take away one ingredient
#
# Part 9 has shaken our explanation, so we test its parts. Each of these networks differs from SAM's or from the
# product's in one thing, again with sixteen seeds:
#
# - *1 x 1* and *3 x 3*: the same gate with a narrower window; it sees 5 or 7 pixels in place of 11;
# - *joined*: the same 7 x 7 gate (only that its norm starts with a scale of 1), but its map becomes a 17th channel,
#   and nothing is multiplied;
# - *layer*: no gate, but one more layer, a 1 x 1 convolution with a ReLU. It has the product's parameters, and sees
#   the same 5 pixels.
#
# About *joined* the equations say something beforehand. The last layer takes the mean over all places; the 17th mean
# is the mean gate, and it adds to the ten logits a multiple of *one fixed vector*, whatever the gate has found and
# wherever. It can say "there is much of something", but no vote gains or loses weight.
#
# **Predict** an order of the eight.

# %%
eight = ["plain", "joined", "1 x 1", "3 x 3", "SAM", "layer", "point-wise", "product"]
parts = by_network(eight)
ax = by_seed(parts, ax=plt.subplots(figsize=(8.4, 2.7))[1], highlight="SAM", limit=0.1)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on new clutter for eight networks by seed; the means rise from plain "
     "over joined, 1 x 1 and 3 x 3 to SAM; layer and point-wise are near SAM, the product highest.")

# %%
pairs = [("joined", "plain"), ("SAM", "joined"), ("1 x 1", "plain"), ("3 x 3", "1 x 1"),
         ("SAM", "3 x 3"), ("SAM", "1 x 1"), ("layer", "plain"), ("SAM", "layer"),
         ("point-wise", "layer"), ("product", "layer")]
differences = {pair: compare(parts[pair[0]], parts[pair[1]]) for pair in pairs}
for (a, b), (d, errors) in differences.items():
    print(f"{a} - {b}: {100 * d:+.0f} points, {errors:.1f} standard errors")

# %% [markdown]
# **What to see,** by the rule of 2.13 standard errors:
#
# - *The multiplication counts.* Joined as a channel, the same gate shows no gain (+2 points, no difference found);
#   multiplied, it is 17 points above joined.
# - *The window counts less than we thought, if it counts.* A gate of 1 x 1, which sees no further than the plain
#   network, already gains 9 points. From 1 x 1 to 7 x 7 there are 10 more; neither of the two steps in between shows
#   a difference by itself. And both, the 9 and the 10, pass narrowly. One seed means the same order of the pictures
#   for all networks, but not the same start; taken as two independent sets of sixteen, where 2.04 standard errors are
#   asked for, the 9 points are at 2.0 and the 10 at 1.9.
# - *Attention is not the only way.* One more layer gains 12 points over the plain network, and neither SAM (+7) nor
#   the point-wise gate (+2) differs from it by our rule. (It has 272 parameters, SAM 100.)
# - *The product is another matter:* 28 points above that layer, 8.8 standard errors.
#
# Ten comparisons at 95% each: now and then one of them will pass by chance. Trust the 8.8 more than the 2.4. And all
# of this is after 24 epochs.

# %%
points = [round(100 * d) for d, _ in differences.values()]
passed = [abs(errors) > 2.13 for _, errors in differences.values()]
assert points == [2, 17, 9, 6, 4, 10, 12, 7, 2, 28]
assert passed == [False, True, True, False, False, True, True, False, False, True]
assert count_parameters(torch.nn.Conv2d(16, 16, 1)) == 272 and count_parameters(make_sam()) == 100

# %%
def unpaired(a, b):  # the difference of two independent sets, in standard errors
    a, b = torch.tensor(a).double(), torch.tensor(b).double()
    return ((a.mean() - b.mean()) / ((a.var() + b.var()) / 16).sqrt()).item()

narrow = [unpaired(parts["1 x 1"], parts["plain"]), unpaired(parts["SAM"], parts["1 x 1"])]
assert [round(errors, 1) for errors in narrow] == [2.0, 1.9]
assert compare(parts["product"], parts["SAM"])[1] > 2.13  # for the summary

# %% [markdown]
# Why the product? Write it out behind the mean over the places:
#
# $$\frac{1}{HW} \sum_p y_d(p) = \sum_c W_{dc}\, \underbrace{\frac{1}{HW} \sum_p x_d(p)\, x_c(p)}_{G_{dc}} + b_d\,
# \underbrace{\frac{1}{HW} \sum_p x_d(p)}_{z_d} \tag{10.18}$$
#
# The plain network reads the 16 means $z_d$. The product lets it read, besides, how often *two features occur at the
# same place*, $G_{dc}$ (it reads them through $W$). "A stroke that ends here **and** bends to the left" may be a
# better vote than the two apart. A sigmoid of $Wx + b$ gives something of the kind, squeezed into a factor between 0
# and 1, whose slope is at most 1/4 (08.b). This fits what we see; we have not tested whether it is the reason. What
# the runs do show: **on this task and in 24 epochs, pointing at places was not the best use of a multiplication**.

# %%
torch.manual_seed(8)
W_p, b_p = torch.randn(6, 6).double(), torch.randn(6).double()
product = sam_layer(maps, torch.einsum("dc,bchw->bdhw", W_p, maps) + b_p[:, None, None])
G = torch.einsum("bdhw,bchw->bdc", maps, maps) / 20
assert torch.allclose(product.mean((2, 3)), (W_p * G).sum(2) + b_p * maps.mean((2, 3)))  # (10.18)


# %% [markdown]
# ## 11 · Claims · *Depth*
#
# Articles on the web say the following about spatial attention. Each is settled by the cell below it, or by one
# above.
#
# **SAM-3** "SAM: max and average pooling, join, convolve, sigmoid, multiply." **True over channels, false if "global"
# is added.** Over channels, pooling leaves a map of places, 1 x H x W; global pooling leaves C x 1 x 1, and with it a
# channel gate (exercise 10.4).

# %%
# claim SAM-3: TRUE over channels, FALSE if global
over_channels, over_places = maps.amax(1, keepdim=True), maps.amax((2, 3), keepdim=True)
print("over channels:", tuple(over_channels.shape), " global:", tuple(over_places.shape))
assert over_channels.shape == (2, 1, 5, 4) and over_places.shape == (2, 6, 1, 1)
assert torch.allclose(mended(maps, kernel), maps * gates)

# %% [markdown]
# **SAM-4** "This SAM is Darknet's `sam_layer`." **Partly.** `sam_layer` is the last step, a product of two maps of
# one shape; it refuses a gate of 1 x H x W. In YOLOv4 the other map comes from a 1 x 1 convolution with norm and
# sigmoid, with no pooling. CBAM's gate would go through `scale_channels` with `scale_wh`. Part 4 built all three.

# %%
# claim SAM-4: PARTLY
try:
    refused = sam_layer(maps, gates) is None
except ValueError as error:
    refused = "scale_channels" in str(error)
assert refused and torch.equal(sam_layer(maps, M), M * maps)
by_scale = scale_channels(maps, gates, scale_wh=True)
assert torch.equal(by_scale, sam_layer(maps, gates.expand_as(maps)))

# %% [markdown]
# **SAM-5** "SAM improves localisation by raising the score at the target's place." **It depends on what you measure,
# and against what.** On our clutter the gated features hold more of their energy in the box than the plain network's,
# and they point better than those do, *unless* you smooth the plain network's map; the gate alone points worse than
# that. And it raises nothing: a gate lies below 1, so it lowers the rest more than it lowers the target.

# %%
# claim SAM-5: DEPENDS
energy, pointing = scores["energy"], scores["pointing"]
assert min(compare(energy["gated"], energy[name])[1] for name in ("plain", "7 x 7\nmean")) > 2.13
assert compare(pointing["gated"], pointing["plain"])[1] > 2.13
assert compare(pointing["gate"], pointing["7 x 7\nmean"])[1] < -2.13
assert sam_gates.max() <= 1

# %% [markdown]
# **CS-2** "Spatial attention gives near positions more weight than far ones." **False for CBAM's and YOLOv4's gates;
# for attention with a relative bias it depends on the bias.** By (10.13) the kernel gives each step its own weight.
# Nothing makes it smaller for longer steps, up to the edge of the window; beyond, it is exactly 0. To see it, we draw
# 500 random kernels and ask for the mean absolute slope of a gate by the distance of the place that is moved (in rows
# or in columns, whichever is more).

# %%
rows_away, total = (torch.arange(15) - 7).abs(), torch.zeros(15, 15).double()
distance = torch.maximum(rows_away[:, None], rows_away[None])  # from the middle, in rows or columns
for _ in range(500):
    draw = SpatialAttention(4, norm=False).double()
    probe = torch.randn(1, 4, 15, 15).double().requires_grad_()
    (slopes_here,) = torch.autograd.grad(draw.weights(probe)[0, 0, 7, 7], probe)
    total += slopes_here[0].abs().mean(0)

# %%
# claim CS-2: FALSE for CBAM and YOLO
by_distance = torch.stack([total[distance == d].mean() / 500 for d in range(8)])
flat = by_distance[:4] / by_distance[:4].mean()
print("within the window, all within 15% of their mean:", bool(((flat - 1).abs() < 0.15).all()))
assert ((flat - 1).abs() < 0.15).all() and (by_distance[4:] == 0).all()
assert torch.equal(pointwise.places > 0, torch.eye(16).bool())  # YOLOv4's: its own place only

# %% [markdown]
# A relative bias is a number $\beta(q - p)$ that is added to the scores of self-attention before the softmax (T5 and
# Swin learn a table of them). With a $\beta$ that falls with the distance the near weigh more; with one that rises
# the far do; with 0 neither. The mechanism allows all three. Here are 21 places in a row with random scores:

# %%
steps, random_scores = (torch.arange(21) - 10).abs().double(), torch.randn(2000, 21).double()
# claim CS-2: DEPENDS for a relative bias
for sign, expected in ((-0.5, "near"), (0.0, "alike"), (0.5, "far")):
    weight = (random_scores + sign * steps).softmax(-1).mean(0)  # that the middle place gives each
    ratio = weight[9:12].mean() / weight[[0, 1, 19, 20]].mean()  # the nearest against the farthest
    heavier = "near" if ratio > 2 else "far" if ratio < 0.5 else "alike"
    print(f"bias {sign:+.1f} x distance: {heavier}")
    assert heavier == expected

# %% [markdown]
# **CS-4** "Spatial attention is a weighted sum over positions that gives a new position vector." **False.** Nothing
# is summed over positions: at each place the vector of the channels keeps its direction and changes its length, and a
# change of $x(q)$ reaches the output at another place only through the gate of that place. A weighted sum over
# positions exists elsewhere (self-attention has one for each query, the global context block one in all); it leaves a
# vector of $C$ numbers in the place of a map.

# %%
# claim CS-4: FALSE
out = maps * gates
same_direction = F.cosine_similarity(out.flatten(2), maps.flatten(2), dim=1)
assert torch.allclose(same_direction, torch.ones(2, 20).double())
shares = gates.flatten(2).softmax(-1)
weighted_sum = torch.einsum("bop,bcp->bc", shares, maps.flatten(2))  # what the sentence describes
assert out.shape == maps.shape and weighted_sum.shape == (2, 6)

# %% [markdown]
# ## 12 · Exercises
#
# 10.1 stands in part 4, 10.2 in part 5, 10.3 in part 6 and 10.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 10.5 · the point-wise gate backward · *Depth* · 20 minutes
#
# Part 5 went back through CBAM's gate. Do it for YOLOv4's, (10.7) without a norm: `x` is (b, c, h, w), `W` is (c, c)
# and `b` is (c,); `grad_y` has the shape of `x`. Return the whole gradient for `x`.
#
# <details><summary>Hint 1</summary>
#
# Two ways, as in (10.12): the direct one, and the one through the gate. For the first step of the second way see the
# right-hand equation of (10.9).
#
# </details>
# <details><summary>Hint 2</summary>
#
# The gradient of the score is `grad_y * x * M * (1 - M)`. Channel $c$ of a place goes into every score $d$ of that
# place, with the weight $W_{dc}$; so it collects from all of them.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Forward the matrix is used as `torch.einsum("dc,bchw->bdhw", W, x)`; on the way back it is transposed:
# `torch.einsum("dc,bdhw->bchw", W, ...)`.
#
# </details>

# %% tags=["exercise"]
def pointwise_backward(grad_y, x, W, b):
    """grad_y and x (b, c, h, w), W (c, c), b (c,) -> the gradient for x, (b, c, h, w)."""
    raise NotImplementedError

pointwise_backward = check("10.5", pointwise_backward)

# %% tags=["solution"]
def pointwise_backward(grad_y, x, W, b):
    M = torch.sigmoid(torch.einsum("dc,bchw->bdhw", W, x) + b[:, None, None])
    grad_score = grad_y * x * M * (1 - M)
    return grad_y * M + torch.einsum("dc,bdhw->bchw", W, grad_score)

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the papers |
# |---|---|---|---|
# | pool over channels | $P_1 = \max_c x_c$, $P_2 = \frac1C \sum_c x_c$ | (10.3) | CBAM (3), with $\mathrm{AvgPool}$ and $\mathrm{MaxPool}$ |
# | gate over places | $m = \sigma(K * [P_1; P_2])$ | (10.4) | CBAM (3), with $\mathbf{M_s}$ for $m$ and $f^{7 \times 7}$ for $K$ |
# | scale | $y_c(p) = m(p)\, x_c(p)$ | (10.5) | CBAM (1), second line |
# | point-wise gate | $M = \sigma(Wx + b)$ | (10.7) | YOLOv4, section 3.4, as a picture |
# | products | $o\,x$, $s_c\, x_c$, $m\, x_c$ | (10.8) | Darknet's `sam`, `scale_channels`, with `scale_wh=1` |
# | gradient | $m\, g_c + [\text{winner}]\, \partial L/\partial P_1 + \frac1C\, \partial L / \partial P_2$ | (10.12) | – |
# | price | $2k^2 + 2$; $C^2 + 2C$ | (10.14), (10.15) | – |
#
# - CBAM's gate over places multiplies each *place* by a number that depends on the maximum and the mean over channels
#   in a window, and on nothing outside of it. 98 weights, whatever $C$.
# - YOLOv4's point-wise gate sees no neighbour at all and costs $C^2$; Darknet's `sam_layer` is no gate, but a
#   product.
# - At a place, a gate over places treats all channels alike (10.16). To choose a channel it would have to see what
#   decides; on cards whose square lies beyond its window it cannot (10.17).
# - The maximum sends its gradient to the winner; where channels tie, there is no right answer, and programs differ.
# - On clutter, the gate raised the accuracy by 18 points over 16 seeds, and the energy in the box from 35% to 53%. In
#   the pointing game a 7 x 7 mean of the *plain* network's features did as well. One more ordinary layer showed no
#   difference to the gate, and the bare product beat both (all after 24 epochs). **Before you credit a map
#   with localisation, smooth the map that you already have, and compare.**
# - Three things are called SAM. Before you compare two numbers for "SAM", find out which of them was built.
#
# **Sources.** Woo, Park, Lee, Kweon, arXiv 1807.06521 (equations), and the authors' released code (norm, start,
# order); Bochkovskiy, Wang, Liao, arXiv 2004.10934, and the source and network files of AlexeyAB's Darknet (layers,
# their gradients, norm); Zhang, Lin, Brandt, Shen, Sclaroff, *Top-down neural attention by excitation backprop*,
# arXiv 1608.00507 (the pointing game); Wang et al., *Score-CAM*, arXiv 1910.01279 (the energy in the box).
#
# **Back:** [09_efficient_channel_attention](09_efficient_channel_attention.ipynb) · **Next:**
# [11_cbam](11_cbam.ipynb), which puts a gate over channels in front of this one. The map of the course is in
# [00_start_here](00_start_here.ipynb).
