# %% [markdown]
# # 08 · Squeeze-and-Excitation
#
# **The question.** A convolution treats every image alike: its weights are fixed when training ends. How can a
# network turn a whole channel up or down *for this image*, and what does that cost?
#
# **The answer in one sentence.** Average each channel to one number, let a small two-layer network look at all
# the averages together, and multiply each channel by the sigmoid that comes out. For $C$ channels and a hidden
# layer $r$ times narrower that is $2C^2/r$ weights and hardly any arithmetic, but a second pass over the map.
#
# **Paper.** Jie Hu, Li Shen, Gang Sun: *Squeeze-and-Excitation Networks*, CVPR 2018,
# [arXiv 1709.01507](https://arxiv.org/abs/1709.01507).
#
# **Time.** Core 80 minutes (parts 1-4, 6, 9 and exercises 08.1 and 08.2) · Depth 100 minutes (the rest).
#
# **Prerequisites.** The toolbox pages on
# [softmax and its Jacobian](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian),
# [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products),
# [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs) and
# [batch normalisation](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass).
# The course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x_c(i,j)$ is channel $c$ at row $i$, column $j$ |
# | $z$ | $B \times C$ | the **squeeze**: one mean for each channel |
# | $W_1, b_1$ | $C/r \times C$ and $C/r$ | the first layer and its biases |
# | $W_2, b_2$ | $C \times C/r$ and $C$ | the second layer and its biases |
# | $u, a$ | $B \times C/r$ | the hidden layer before and after its ReLU |
# | $v, s$ | $B \times C$ | the **excitation** before and after its sigmoid; $s$ is the gate |
# | $y$ | $B \times C \times H \times W$ | the feature map that goes out |
# | $r$ | | the reduction: the hidden layer has $C/r$ units |
#
# Two letters mean something else in other notebooks: in Part I, $s$ is the state of a decoder and $v$ (as a
# vector of its own) is a *value*. Throughout, $\sigma(t) = 1/(1+e^{-t})$ is the logistic sigmoid and $\delta$ of
# the paper is written $\mathrm{relu}$.

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
# **08.a** A batch of 2 images has 16 channels of 8 x 8 pixels. How many numbers does global average pooling leave?
# (a) 16 · (b) 32 · (c) 128 · (d) 2 · (e) 2048
#
# **08.b** Let $s = \sigma(v)$. What is the slope $ds/dv$, written with $s$?
# (a) $s$ · (b) $1 - s$ · (c) $s(1-s)$ · (d) $1 - s^2$ · (e) always $1/4$
#
# **08.c** Two 3 x 3 convolutions stand one behind the other. How many pixels wide is the window that one unit
# behind the second one sees?
# (a) 3 · (b) 4 · (c) 6 · (d) 5 · (e) 9

# %% tags=["exercise"]
check("08.a", ...)
check("08.b", ...)
check("08.c", ...)

# %% tags=["solution"]
check("08.a", "b")
check("08.b", "c")
check("08.c", "d")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# Here is a game that a person learns in a minute. A card has two sides, drawn in two channels. Each side shows a
# handwritten digit at the bottom. One of the two sides has a bright square in its top left corner: **read the
# digit on that side**, and ignore the other one.

# %%
from attnlib.lab.data import cued_digits
from attnlib.lab.plots import pictures

cards, new_cards = cued_digits(2000, split="train", seed=0), cued_digits(500, split="test", seed=1)
pairs = torch.cat([cards.images[:4, 0], torch.full((4, 16, 1), 0.5), cards.images[:4, 1]], dim=2)
titles = [f"card {i}: read {cards.labels[i]}" for i in range(4)]
show(pictures(pairs, titles)[0].figure, alt="Four cards, each with its two sides next to each "
     "other. Both show a digit at the bottom, and one has a white square in its top left corner.")

# %% [markdown]
# **What to see.** The two digits of a card lie at the same place, so no part of the picture is worth more than
# another. What the card decides is which *channel* counts. And the square that says so is far from both digits.
#
# We give the cards to a small convolutional network, `SmallNetwork` of the course's laboratory: two 3 x 3
# convolutions to 16 channels (the first half of them sees side 0, the other half side 1) with a ReLU behind the first,
# batch normalisation and a ReLU behind the second; then the means of 4 x 4 blocks, and one linear layer that reads off
# the ten classes. `learn` trains it for eight epochs with Adam.
#
# **Predict before you go on:** guessing would be right on 10% of the cards. What will this network reach on cards
# that it has not seen: about 10%, about 50%, or about 90%?

# %%
from attnlib.lab.small_network import SmallNetwork, learn
from attnlib.lab.training import accuracy

plain = learn(cards, seed=0, groups=2)
share = accuracy(plain, new_cards)
print(f"right on new cards, of ten: {10 * share:.0f}")
assert 0.3 < share < 0.6

# %% [markdown]
# It reads digits well enough to be far above 10%. But it does not tell *which* of the two to report. Here is the reason.
#
# A unit behind two 3 x 3 convolutions sees 5 x 5 pixels. The square ends in row 3 and the digits begin in row 8, so
# **no unit sees both**. For each unit, then, either the square or the digits might as well be missing: it answers to the
# card as it does to one of the two parts alone, and to the other part as it does to an empty card. Write $f$ for what a
# unit puts out behind the last ReLU; in either case
#
# $$f(\text{card}) + f(\text{empty card}) = f(\text{square alone}) + f(\text{digits alone}).$$
#
# Behind the last ReLU there are only weighted sums over units, and a weighted sum of such equations is an equation of
# the same kind. So the ten logits $\ell$ obey it too:
#
# $$\ell(\text{card}) + \ell(\text{empty card}) = \ell(\text{square alone}) + \ell(\text{digits alone})
# \tag{8.1}$$
#
# This holds for *any* weights, once training has ended (in training, batch normalisation lets the images of a batch
# influence each other).

# %%
fresh, card = SmallNetwork((2, 16, 8), 10, groups=2).eval(), cards.images[:1]
square, both_digits = card.clone(), card.clone()
square[:, :, 8:], both_digits[:, :, :8] = 0, 0
for net in (plain, fresh):
    card_and_empty = net(card) + net(0 * card)
    assert torch.allclose(card_and_empty, net(square) + net(both_digits), atol=1e-4)  # (8.1)

# %% [markdown]
# What follows? By (8.1), moving the square from one side to the other adds the same ten numbers $t_0, \dots, t_9$ to the
# logits of every card. Take a card with a 3 on side 0 and a 7 on side 1. To be right for both places of the square, the
# network needs $t_7 > t_3$. Take a card whose digits have changed sides: there it needs $t_3 > t_7$. So of these four
# cards at least one is read wrongly: **no weights are right on more than 3/4 of all the cards of the game**, whatever the
# training. (Ours stays near one half.) The cell tries ten thousand networks that obey (8.1), with random logits.

# %%
one_way, other_way, t = torch.randn(3, 10_000, 10)  # logits of both cards, and what the square adds
right = torch.stack([one_way.argmax(1) == 3, (one_way + t).argmax(1) == 7,
                     other_way.argmax(1) == 7, (other_way + t).argmax(1) == 3])
assert right.sum(0).max() == 3

# %% [markdown]
# What is missing is a step that is *not* a sum and that sees both places. A hidden layer behind the blocks would be one.
# The most direct is a **gate**: a number computed from the whole picture that multiplies a channel everywhere.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. The feature map below has four channels of 2 x 2 pixels; all notebooks of Part II use this one,
# so that you can compare their gates.

# %%
from attnlib.lab.data import example_feature_map

x = example_feature_map()
for c in range(4):
    print(f"channel {c}:", x[0, c].int().tolist())

# %% [markdown]
# ### Squeeze
#
# The first step throws away *where* something is and keeps *how much* of it there is: the mean over the pixels of
# each channel (equation (2) of the paper).
#
# $$z_c = \frac{1}{HW} \sum_{i=1}^{H} \sum_{j=1}^{W} x_c(i, j) \tag{8.2}$$
#
# For channel 0: $(1 + 2 + 3 + 2)/4 = 2$. Do the other three before you run the cell.

# %%
z = x.mean((2, 3))
assert z.tolist() == [[2, 1, -1, 1]]  # (8.2)
print("z =", z[0].tolist())

# %% [markdown]
# Channels 1 and 3 now look the same, although one is spread out and the other is a single peak. The squeeze cannot
# tell them apart. Keep that in mind for part 7.
#
# ### Excitation
#
# Two layers look at all of $z$ at once. The first is narrow: $C/r$ units, here with $r = 2$ two of them. Our
# weights are simple numbers, so that the arithmetic stays easy:
#
# $$W_1 = \begin{pmatrix} 1 & -1 & 0 & 1 \\ 0 & -1 & 1 & 0 \end{pmatrix}, \qquad
# W_2 = \begin{pmatrix} 1 & 0 \\ 0 & 1 \\ -1 & 1 \\ \tfrac12 & -1 \end{pmatrix}$$
#
# The first layer gives $u = W_1 z = (2 - 1 + 1,\; -1 - 1) = (2, -2)$. The ReLU shuts the second unit:
# $a = (2, 0)$. The second layer widens to four channels again: $v = W_2 a = (2, 0, -2, 1)$.

# %%
W_1 = torch.tensor([[1, -1, 0, 1], [0, -1, 1, 0]]).double()
W_2 = torch.tensor([[1, 0], [0, 1], [-1, 1], [0.5, -1]]).double()
u = z @ W_1.T
v = F.relu(u) @ W_2.T
assert u.tolist() == [[2, -2]] and v.tolist() == [[2, 0, -2, 1]]

# %% [markdown]
# A sigmoid turns each of the four numbers into a gate between 0 and 1. The whole step is equation (3) of the paper:
#
# $$s = \sigma\big(W_2\, \mathrm{relu}(W_1 z)\big) \tag{8.3}$$
#
# To three digits, $\sigma(2) = 0.881$, $\sigma(0) = 0.5$, $\sigma(-2) = 0.119$ and $\sigma(1) = 0.731$. The gates
# do not sum to one, and nothing asks them to: every channel may be open at the same time.

# %%
s = torch.sigmoid(F.relu(z @ W_1.T) @ W_2.T)
assert s.round(decimals=3).tolist() == [[0.881, 0.5, 0.119, 0.731]]  # (8.3)
assert s.sum() > 2
print("s =", [round(gate, 3) for gate in s[0].tolist()])

# %% [markdown]
# ### Scale
#
# Each channel is multiplied by its own gate, the same number at every pixel (equation (4) of the paper):
#
# $$y_c(i, j) = s_c\, x_c(i, j) \tag{8.4}$$

# %%
y = x * s[:, :, None, None]
assert torch.equal(y[0, 1], x[0, 1] / 2)  # (8.4): the gate of channel 1 is exactly 1/2
assert torch.equal(y[0, 0], x[0, 0] * s[0, 0])

# %%
from attnlib.lab.plots import heatmap

fig, axes = plt.subplots(2, 4, figsize=(8, 3.6))
titles = [f"x, channel {c}" for c in range(4)] + [f"y: times {gate:.2f}" for gate in s[0]]
for ax, values, title in zip(axes.flat, torch.cat([x[0], y[0]]), titles, strict=True):
    heatmap(values, ax=ax, limits=(-4, 4), signed=True, numbers=True, colorbar=ax in axes[:, 3])
    ax.set(xticks=[], yticks=[], title=title)
show(fig, alt="Top row: the four channels of x. Bottom row: the same channels times their gates "
     "0.88, 0.50, 0.12 and 0.73; channel 2 has almost faded to zero.")

# %% [markdown]
# **What to see.** The pattern inside each channel is the same above and below; only its strength has changed.
# Channel 2 is almost gone. Nothing has moved, and no two channels have been mixed: mixing happens only inside
# the gate.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# Equations (8.2) and (8.3) written as loops are slow but leave no doubt about what is meant. Here they are for a
# single image, with nothing but Python's own arithmetic.

# %%
from math import exp

def gate_by_loops(image, W_1, W_2):
    (C, H, W), hidden = image.shape, len(W_1)
    z = [sum(image[c, i, j] for i in range(H) for j in range(W)) / (H * W) for c in range(C)]
    a = [max(0.0, sum(W_1[k, c] * z[c] for c in range(C))) for k in range(hidden)]
    return [1 / (1 + exp(-sum(W_2[c, k] * a[k] for k in range(hidden)))) for c in range(C)]

# %% [markdown]
# So far $z$ was a column. For a batch, let the squeezed images be the *rows* of $Z \in \mathbb{R}^{B \times C}$. The two
# sums over channels become two matrix products, with the matrices transposed, and the batch comes for free:
#
# $$S = \sigma\big(\mathrm{relu}(Z W_1^\top)\, W_2^\top\big) \tag{8.5}$$

# ### Exercise 08.1 · the gate · *Core* · 10 minutes
#
# Write (8.5), without loops and without biases. `x` is (b, c, h, w), `W_1` is (c/r, c), `W_2` is (c, c/r); return the
# gates as (b, c). Replace the line `raise NotImplementedError` and run the cell.
#
# <details><summary>Hint 1</summary>
#
# Three steps: average over the last two axes, a linear layer with ReLU, a linear layer with a sigmoid.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `Z` has a row for each image. To multiply every row by $W_1$ write `Z @ W_1.T`; its shape is (b, c/r).
#
# </details>
# <details><summary>Hint 3</summary>
#
# `Z = x.mean((2, 3))`, then `torch.relu(Z @ W_1.T)`; the second layer goes the same way.
#
# </details>

# %% tags=["exercise"]
def gate_by_matrices(x, W_1, W_2):
    """x (b, c, h, w), W_1 (c/r, c), W_2 (c, c/r) -> gates (b, c)."""
    raise NotImplementedError

gate_by_matrices = check("08.1", gate_by_matrices)

# %% tags=["solution"]
def gate_by_matrices(x, W_1, W_2):
    Z = x.mean((2, 3))
    A = torch.relu(Z @ W_1.T)
    return torch.sigmoid(A @ W_2.T)

# %%
maps, M_1, M_2 = torch.randn(3, 6, 5, 4), torch.randn(2, 6), torch.randn(6, 2)
loops = torch.tensor([gate_by_loops(image, M_1, M_2) for image in maps])
assert torch.allclose(gate_by_matrices(maps, M_1, M_2), loops, atol=1e-6)  # (8.5)

# %% [markdown]
# The library's `SqueezeExcitation` is the same with two `nn.Linear` layers, which also bring biases. We hand it
# our weights and get our gates; then we hand ours *its* random weights and biases.

# %%
from attnlib import SqueezeExcitation

module = SqueezeExcitation(4, reduction=2, bias=False).double()
module.load_state_dict({"W_1.weight": W_1, "W_2.weight": W_2})
assert torch.equal(module.weights(x)[:, :, 0, 0], s)
assert torch.equal(module(x), y)

# %%
module = SqueezeExcitation(6, reduction=2)
(M_1, c_1), (M_2, c_2) = module.W_1.parameters(), module.W_2.parameters()
ours = torch.sigmoid(F.relu(maps.mean((2, 3)) @ M_1.T + c_1) @ M_2.T + c_2)
assert torch.allclose(module.weights(maps)[:, :, 0, 0], ours)
assert torch.allclose(module(maps), maps * ours[:, :, None, None])

# %% [markdown]
# The course's `audit` says in sentences what any module does: ✓ for a property that holds, ✗ for one that does not, · for
# plain information. It knows nothing about SE; it changes the input and watches what follows. Two of the lines below
# make SE a *channel* attention: one number for each channel, which depends on all positions. That it also depends on
# all *channels* comes from the dense layers; notebook 09 narrows it to neighbours.

# %%
from attnlib.lab.audit import audit

for finding in audit(module).findings:
    if finding.check.startswith("gate"):
        print(finding)

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Let $L$ be any loss and $g = \partial L / \partial y$ what arrives from above, of the shape of $y$. The gate
# makes $x$ count twice: once directly, as the thing that is scaled, and once through the mean that sets the scale.
# We go back through the product, the sigmoid, the two layers and the mean, one image at a time.
#
# **Product.** In $y_c(i,j) = s_c\, x_c(i,j)$ the same $s_c$ serves all pixels, so their gradients add up:
#
# $$\frac{\partial L}{\partial s_c} = \sum_{i,j} g_c(i,j)\, x_c(i,j) \tag{8.6}$$
#
# **Sigmoid.** Its slope is $s(1-s)$, for each channel on its own:
#
# $$\frac{\partial L}{\partial v_c} = \frac{\partial L}{\partial s_c}\, s_c (1 - s_c) \tag{8.7}$$
#
# We let autograd keep its own gradients of the steps in between, to hold ours against them.

# %%
torch.manual_seed(1)
sizes = [(2, 6, 3, 4), (3, 6), (3,), (6, 3), (6,)]
leaves = [torch.randn(size).double().requires_grad_() for size in sizes]
x, W_1, b_1, W_2, b_2 = leaves
g = torch.randn(2, 6, 3, 4).double()
z = x.mean((2, 3))
u = z @ W_1.T + b_1

# %%
a = F.relu(u)
v = a @ W_2.T + b_2
s = torch.sigmoid(v)
y = x * s[:, :, None, None]
dx, dW_1, db_1, dW_2, db_2, dz, du, da, dv, ds = torch.autograd.grad(y, [*leaves, z, u, a, v, s], g)
with torch.no_grad():
    assert torch.allclose(ds, (g * x).sum((2, 3)))  # (8.6)
    assert torch.allclose(dv, ds * s * (1 - s))  # (8.7)

# %% [markdown]
# **Second layer.** Entry by entry, $v_c = \sum_k (W_2)_{ck}\, a_k + (b_2)_c$. The weight $(W_2)_{ck}$ is used in $v_c$ alone,
# with the slope $a_k$, so it gets $\frac{\partial L}{\partial v_c} a_k$; all weights together get an outer product. The
# bias has the slope 1. And $a_k$ goes into every $v_c$, with the slope $(W_2)_{ck}$, so it collects
# $\sum_c (W_2)_{ck} \frac{\partial L}{\partial v_c}$. The images of a batch share the weights, so their parts add up:
#
# $$\frac{\partial L}{\partial W_2} = \sum_{\text{images}} \frac{\partial L}{\partial v}\, a^\top, \qquad
# \frac{\partial L}{\partial b_2} = \sum_{\text{images}} \frac{\partial L}{\partial v}, \qquad
# \frac{\partial L}{\partial a} = W_2^\top \frac{\partial L}{\partial v} \tag{8.8}$$
#
# **ReLU.** A unit that was shut passes nothing on; $[\,\cdot\,]$ is 1 where the condition holds and 0 elsewhere:
#
# $$\frac{\partial L}{\partial u_k} = \frac{\partial L}{\partial a_k}\, [u_k > 0] \tag{8.9}$$

# %%
with torch.no_grad():
    assert torch.allclose(dW_2, dv.T @ a) and torch.allclose(db_2, dv.sum(0))  # (8.8)
    assert torch.allclose(da, dv @ W_2)
    assert torch.allclose(du, da * (u > 0))  # (8.9)

# %% [markdown]
# **First layer.** The same once more:
#
# $$\frac{\partial L}{\partial W_1} = \sum_{\text{images}} \frac{\partial L}{\partial u}\, z^\top, \qquad
# \frac{\partial L}{\partial b_1} = \sum_{\text{images}} \frac{\partial L}{\partial u}, \qquad
# \frac{\partial L}{\partial z} = W_1^\top \frac{\partial L}{\partial u} \tag{8.10}$$
#
# **Mean, and both ways together.** Each pixel of channel $c$ has the share $1/HW$ in $z_c$. Add the direct way:
#
# $$\frac{\partial L}{\partial x_c(i,j)} = \underbrace{s_c\, g_c(i,j)}_{\text{direct}} +
# \underbrace{\frac{1}{HW} \frac{\partial L}{\partial z_c}}_{\text{through the gate}} \tag{8.11}$$

# %%
with torch.no_grad():
    assert torch.allclose(dW_1, du.T @ z) and torch.allclose(db_1, du.sum(0))  # (8.10)
    assert torch.allclose(dz, du @ W_1)
    through_the_gate = dz[:, :, None, None] / (3 * 4)
    assert torch.allclose(dx, s[:, :, None, None] * g + through_the_gate)  # (8.11)

# %% [markdown]
# The second term of (8.11) is the same for every pixel of a channel: the gate hears only the mean, so it can only
# ask for more or less of a channel as a whole. Now the backward pass as one function, and the whole of it held
# against autograd *and* against central differences, which know nothing of any derivative.

# %%
def forward(x, W_1, b_1, W_2, b_2):
    a = F.relu(x.mean((2, 3)) @ W_1.T + b_1)
    return x * torch.sigmoid(a @ W_2.T + b_2)[:, :, None, None]

def through_layers(dv, z, u, W_1, W_2):
    du = dv @ W_2 * (u > 0)
    layers = {"W_1": du.T @ z, "b_1": du.sum(0), "W_2": dv.T @ F.relu(u), "b_2": dv.sum(0)}
    return layers, du @ W_1

# %%
def backward(g, x, W_1, b_1, W_2, b_2):
    z = x.mean((2, 3))
    u = z @ W_1.T + b_1
    s = torch.sigmoid(F.relu(u) @ W_2.T + b_2)
    dv = (g * x).sum((2, 3)) * s * (1 - s)
    layers, dz = through_layers(dv, z, u, W_1, W_2)
    pixels = x.shape[2] * x.shape[3]
    return {"x": s[:, :, None, None] * g + dz[:, :, None, None] / pixels, **layers}

# %%
from attnlib.lab.gradients import compare_gradients

inputs = {"x": x, "W_1": W_1, "b_1": b_1, "W_2": W_2, "b_2": b_2}
table = compare_gradients(forward, backward, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()
table

# %% [markdown]
# ### What one pixel does to the gates
#
# How fast does the gate of channel $c$ move when pixel $(i,j)$ of channel $k$ does? Go *forward* this time, step by step:
# $dz_k = dx_k(i,j)/HW$, then $du = W_1\, dz$, $\;da = \mathrm{diag}[u > 0]\, du$, $\;dv = W_2\, da$ and
# $ds = \mathrm{diag}(s(1-s))\, dv$. Chained, they are the **Jacobian of the gate**:
#
# $$\frac{\partial s_c}{\partial x_k(i,j)} = \frac{J_{ck}}{HW}, \qquad
# J = \mathrm{diag}\big(s(1-s)\big)\; W_2\; \mathrm{diag}[u > 0]\; W_1 \tag{8.12}$$
#
# There is no $i$ and no $j$ on the right-hand side. Whatever SE does, **it does the same for a pixel in the corner
# and a pixel in the middle**.

# %%
from attnlib.lab.gradients import jacobian

one, (W_1, b_1, W_2, b_2) = x[:1].detach(), [t.detach() for t in leaves[1:]]
gate = lambda x: torch.sigmoid(F.relu(x.mean((2, 3)) @ W_1.T + b_1) @ W_2.T + b_2)[0]
slope, u = gate(one) * (1 - gate(one)), one.mean((2, 3))[0] @ W_1.T + b_1
J = slope.diag() @ W_2 @ (u > 0).double().diag() @ W_1
measured = jacobian(gate, one)[:, 0]
assert torch.allclose(measured, J[:, :, None, None].expand_as(measured) / 12)  # (8.12)

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# Back to the cards. We put an SE block behind the convolutions: 16 channels, and for now $r = 1$, so 16 hidden
# units (part 10 looks at narrower ones). The first eight channels look at side 0, the other eight at side 1, because
# the convolutions were grouped.
#
# **Predict before you go on:** after training, which gates will be high when the square is on side 0? Will the
# gates take values in between, or be nearly open and nearly shut?

# %%
make_se = lambda: SqueezeExcitation(16, reduction=1)
se_net = learn(cards, make_se, seed=0, groups=2)
share = accuracy(se_net, new_cards)
print("right on more than three quarters of the new cards:", share > 0.75)

# %%
with torch.no_grad():
    gates = se_net.attention.weights(se_net.features(new_cards.images))[:, :, 0, 0]
on_side_0 = new_cards.images[:, 0, 0, 0] == 1
by_side = torch.stack([gates[on_side_0].mean(0), gates[~on_side_0].mean(0)])

# %%
ax = heatmap(by_side, ax=plt.subplots(figsize=(8, 2))[1], label="mean gate")
ax.set(yticks=[0, 1], yticklabels=["square on side 0", "square on side 1"], xlabel="channel")
ax.axvline(7.5, color="white", lw=3)
show(ax.figure, alt="Mean gate of 16 channels in two rows, one for each place of the square. The "
     "left half is open in the upper row and shut in the lower one, the right half the other way.")

# %% [markdown]
# **What to see.** Compare the two rows. Left of the line are the channels that look at side 0: open where the square
# is on side 0, shut where it is not. Right of the line it is the other way round. The gates have become switches, and
# nobody told the block about sides: it found in the means which side bears the square. (Other seeds differ in detail;
# with some, a few channels stay open for both sides.)

# %%
left, right = by_side[:, :8].mean(1), by_side[:, 8:].mean(1)
follows = left[0] - left[1] > 0.3 and right[1] - right[0] > 0.3
print("each half opens when its side is marked:", bool(follows))
assert follows and share > 0.75

# %% [markdown]
# ### Gates by class
#
# Now plain handwritten digits: one channel, ten classes, no square. **Predict:** will the block open other channels for
# a 3 than for a 7?

# %%
from attnlib.lab.data import load_digits

digits, new_digits = load_digits("train"), load_digits("test")
digit_net = learn(digits, make_se, seed=0)
with torch.no_grad():
    gates = digit_net.attention.weights(digit_net.features(new_digits.images))[:, :, 0, 0]
by_class = torch.stack([gates[new_digits.labels == k].mean(0) for k in range(10)])

# %%
ax = heatmap(by_class, ax=plt.subplots(figsize=(6, 2.6))[1], label="mean gate")
ax.set(xlabel="channel", ylabel="class", yticks=range(10))
show(ax.figure, alt="Mean gate by class and channel for ten digit classes and 16 channels: the "
     "whole picture is one bright colour, all gates are open.")
print("every gate is above 0.99 on every image:", bool(gates.min() > 0.99))
assert gates.min() > 0.99

# %% [markdown]
# **What to see.** Nothing, and that is the finding: the block has opened every gate for every class, and a gate of 1
# leaves its channel alone. It has learnt to stand aside. Why? Perhaps because no class needs a channel shut; perhaps
# because open gates are the quickest way to larger logits; we did not test which. And recall 08.b: the slope of a
# sigmoid is $s(1-s)$. At $s = 0.99$ that is a hundredth, so a gate that is nearly open hardly learns any more. Keep
# this picture for part 9, where we ask whether the block helps.

# %% [markdown]
# ### Turn a knob
#
# With the weights of part 3, add the same amount to all pixels of channel 0, so that its mean $z_0$ moves, and
# watch all four gates.

# %%
HAND_1 = torch.tensor([[1, -1, 0, 1], [0, -1, 1, 0]]).double()
HAND_2 = torch.tensor([[1, 0], [0, 1], [-1, 1], [0.5, -1]]).double()

def gates_for(z_0):
    z = torch.tensor([[z_0, 1.0, -1.0, 1.0]]).double()
    return torch.sigmoid(F.relu(z @ HAND_1.T) @ HAND_2.T)[0]

# %%
def explore(z_0=2.0):
    ax = plt.subplots(figsize=(5, 2.4))[1]
    ax.bar(range(4), gates_for(z_0))
    ax.set(ylim=(0, 1), xticks=range(4), xlabel="channel", ylabel="gate")
    ax.set_title(f"$z_0$ = {z_0:.1f}")
    show(ax.figure, alt=f"Bars: the four gates when the mean of channel 0 is {z_0:.1f}.")

explore(1.0)
explore(4.0)

# %% [markdown]
# **What to see.** One mean moves all gates but one: channel 0 opens itself and channel 3, and shuts channel 2. Below
# $z_0 = 0$ the first hidden unit is shut and nothing moves any more. Try it (the slider needs a running kernel):

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, z_0=(-2.0, 6.0, 0.5));

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | official code | popular copies |
# |---|---|---|---|
# | biases | none in (3), none in its count $2C^2/r$ | biases in both layers | timm has them, External-Attention-pytorch has none |
# | layers | fully connected | fully connected | 1 x 1 convolutions on the $1 \times 1$ map |
# | hidden width | $C/r$ | $C/r$ | rounded to a multiple of 8, at least 8 (timm) |
# | squeeze | mean; the maximum is ablated | mean | mean, or half the sum of mean and maximum |
# | gate | sigmoid | sigmoid | MobileNetV3: $\mathrm{relu6}(v+3)/6$ |
#
# Where the paper and its released networks disagree, we follow the networks (biases on by default), and there is one
# argument for each difference that matters. First the biases:

# %%
from attnlib.lab.cost import count_parameters

weights = count_parameters(SqueezeExcitation(256, bias=False))
biases = count_parameters(SqueezeExcitation(256)) - weights
print("C = 256, r = 16:", weights, "weights,", biases, "biases")
assert weights == 2 * 256**2 // 16 and biases == 16 + 256

# %% [markdown]
# A 1 x 1 convolution on a map of one pixel is a fully connected layer under another name:

# %%
maps, layer = torch.randn(2, 6, 1, 1), torch.nn.Linear(6, 3)
convolution = torch.nn.Conv2d(6, 3, 1)
convolution.weight.data, convolution.bias.data = layer.weight[:, :, None, None], layer.bias
assert torch.allclose(convolution(maps)[:, :, 0, 0], layer(maps[:, :, 0, 0]), atol=1e-6)

# %% [markdown]
# timm rounds $C/16$ to the nearest multiple of 8 and takes at least 8. At $C = 64$ that doubles the block:

# %%
rounded = lambda c: max(8, int(c / 16 + 4) // 8 * 8)
print({c: (c // 16, rounded(c)) for c in (64, 128, 256, 512)})
assert [rounded(c) for c in (64, 128, 256, 512)] == [8, 8, 16, 32]
wider = SqueezeExcitation(64, reduction=64 // rounded(64))
assert 1.8 < count_parameters(wider) / count_parameters(SqueezeExcitation(64)) < 2.2

# %% [markdown]
# The mean and the maximum see different things. Channels 1 and 3 of our example have the same mean and different
# maxima, so only the maximum can tell the peak from the plateau. A gate with a straight line instead of a curve
# agrees with the sigmoid at 0 and reaches 0 and 1 exactly, at $v = \mp 3$:

# %%
x = example_feature_map()
assert x.mean((2, 3))[0, [1, 3]].tolist() == [1, 1] and x.amax((2, 3))[0, [1, 3]].tolist() == [2, 4]
v = torch.tensor([-3.0, 0.0, 1.0, 3.0])
print("sigmoid:", [f"{g:.4f}" for g in v.sigmoid()])
print("hard:   ", [f"{g:.4f}" for g in F.hardsigmoid(v)])
assert torch.allclose(F.hardsigmoid(v), torch.tensor([0, 1 / 2, 2 / 3, 1]))

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# Two matrices of $C \cdot C/r$ numbers each, and biases if there are any. Count them before you read on:
#
# ### Exercise 08.2 · the price · *Core* · 5 minutes
#
# Write the number of parameters of one SE block, with or without biases.
#
# <details><summary>Hint 1</summary>
#
# Draw the two layers: $C$ numbers go in, $C/r$ come out; then $C/r$ go in and $C$ come out.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A linear layer from $n$ to $m$ has $nm$ weights, and $m$ biases if it has any.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The weights are $2 C \cdot (C/r)$. The biases belong to the outputs of the two layers.
#
# </details>

# %% tags=["exercise"]
def se_parameters(channels, reduction, bias):
    """The number of weights, and biases if bias is True."""
    raise NotImplementedError

se_parameters = check("08.2", se_parameters)

# %% tags=["solution"]
def se_parameters(channels, reduction, bias):
    hidden = channels // reduction
    weights = 2 * channels * hidden
    return weights + (hidden + channels if bias else 0)

# %% [markdown]
# $$P = \frac{2C^2}{r}, \qquad P_{\text{bias}} = \frac{2C^2}{r} + \frac{C}{r} + C \tag{8.13}$$
#
# Each weight is used once for an image, so there are as many multiply-accumulates (MACs) as weights, however large
# the map is:
#
# $$\mathrm{MACs} = \frac{2C^2}{r} \tag{8.14}$$
#
# The means and the product with the gate are not in that count, by the custom of the field. They cost $2\,CHW$
# additions and multiplications, and we shall see that they take the time.

# %%
from attnlib.lab.cost import count_macs

for C, r in [(64, 16), (96, 8), (256, 4)]:
    block = SqueezeExcitation(C, reduction=r)
    assert count_parameters(block) == 2 * C**2 // r + C // r + C  # (8.13)
    assert count_parameters(block) == se_parameters(C, r, bias=True)
    assert count_macs(block, torch.randn(1, C, 7, 5)) == 2 * C**2 // r  # (8.14)

# %% [markdown]
# ### Two numbers for the same network
#
# SE-ResNet-50 is in the literature with 28.09 million parameters, and also with 26.77 million. Both are right. Its
# 16 blocks put out 256, 512, 1024 and 2048 channels (3, 4, 6 and 3 times), and each has an SE block with $r = 16$.
# First the plain network, counted layer by layer:

# %%
def stage(n, c_in, c):  # n blocks: 1x1, 3x3 and 1x1 convolutions, each with a norm
    def block(c_in):
        return c_in * c + 9 * c * c + 4 * c * c + 2 * (c + c + 4 * c)
    return block(c_in) + (n - 1) * block(4 * c) + 4 * c_in * c + 2 * 4 * c  # and a projection

stages = stage(3, 64, 64) + stage(4, 256, 128) + stage(6, 512, 256) + stage(3, 1024, 512)
stem, classifier = 49 * 3 * 64 + 2 * 64, 2048 * 1000 + 1000  # a 7x7 convolution; 1,000 classes
plain_resnet = stem + stages + classifier
print(f"ResNet-50: {plain_resnet:,}")

# %%
outputs = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
weights = sum(2 * C**2 // 16 for C in outputs)
biases = sum(C // 16 + C for C in outputs)
print(f"+ {weights:,} weights = {plain_resnet + weights:,}; + {biases:,} biases more")
assert (plain_resnet, weights, biases) == (25_557_032, 2_514_944, 16_048)
assert f"{(plain_resnet + weights + biases) / 1e6:.2f}" == "28.09"
assert f"{(plain_resnet + weights) / 2**20:.2f}" == "26.77"

# %% [markdown]
# The library counts whole networks, with any mechanism in its place; `attnlib cost resnet50 --attention se` prints the same
# on the command line:

# %%
from attnlib.lab.networks import network_cost

by_bias = {bias: network_cost("resnet50", attention="se", options={"bias": bias}).parameters
           for bias in (True, False)}
assert network_cost("resnet50").parameters == plain_resnet
assert by_bias == {True: plain_resnet + weights + biases, False: plain_resnet + weights}

# %% [markdown]
# So 28.09 M counts the biases and divides by $10^6$; 26.77 M, in the table of the ECA paper, leaves them out and
# divides by $2^{20}$. They look 1.3 million apart, and the two networks differ by 16,048 parameters. **Never compare two
# published sizes before you know how each was counted.**

# %% [markdown]
# ### Time and memory
#
# Any gate that looks at the whole map before it scales it must read the map, read it again, and write it once. The
# course calls this the **cost floor**: `x * x.mean((2, 3), keepdim=True)`. How far above it is SE on the maps of
# ResNet-50's four stages? We time both in turn, pair by pair, and draw the median ratio; on your machine it will look a
# little different. **Predict:** in which stage is SE dearest, compared with the floor?

# %%
from attnlib.lab.cost import saved_bytes, time_against_floor

stages = {256: 56, 512: 28, 1024: 14, 2048: 7}  # channels and height = width
maps = {C: torch.randn(4, C, size, size) for C, size in stages.items()}
ratios = [time_against_floor(SqueezeExcitation(C), maps[C]) for C in maps]

# %%
ax = plt.subplots(figsize=(5, 2.6))[1]
ax.bar([f"{C} x {size}²" for C, size in stages.items()], ratios)
ax.axhline(1, color="black", ls="--")
ax.set(xlabel="channels x pixels", ylabel="time / cost floor")
show(ax.figure, alt="Bars of SE's forward time over the cost floor on the maps of four stages: "
     "near 1 for the first, largest maps, highest for the last, smallest ones.")

# %%
extra, size_of_map = saved_bytes(SqueezeExcitation(256), maps[256]), 4 * maps[256].numel()
print("kept for the backward pass, beside the map: under 1% of it:", extra < size_of_map / 100)
assert extra < size_of_map / 100

# %% [markdown]
# **What to see.** Where the map is large, SE is at the floor: its matrices are tiny, and the time goes into passing over the
# map twice. (A bar below 1 is noise of the timing.) In the last stage the map is small and the matrices are not, and SE
# takes clearly longer. For training it keeps next to nothing beyond the map, since the product needs the map and a
# handful of gates. On paper SE is almost free; in time it costs at least what any global gate costs, reading everything
# again.

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# **Where it should win by construction:** the cards. (8.1) says that this plain network, linear behind its
# convolutions, cannot choose a side; a channel gate can. **Where it need not win:** plain digits, where part 6 found
# every gate open. The same network, with and without the block, over several seeds. On digits we look twice, after 8
# epochs and after 12.
#
# A rule, stated before we look: **we speak of a difference only if the mean over the seeds lies more than 2.14 standard
# errors from zero** (Student's $t$ for 15 seeds, 95%).
#
# **Predict** the pictures before you run the cells: how large is the gap on each task, and how large the spread?

# %%
def accuracies(attention):
    return [accuracy(learn(cards, attention, seed=i, groups=2), new_cards) for i in range(3)]

on_cards = {"plain": accuracies(None), "SE": accuracies(make_se)}

# %% [markdown]
# On the cards three seeds will do, as the figure will show. On digits the effect is small, if there is one, and three
# seeds decide nothing. Fifteen for each were trained beforehand; `notebooks/runs/08_squeeze_and_excitation.py` made
# the table and makes it again. The network of part 6 is one of its rows, which shows that the table comes from this
# recipe.

# %%
from attnlib.lab.data import load_results

rows = load_results("08_digits")
table = rows.pivot(index=["epochs", "seed"], columns="variant", values="accuracy")
table = table.rename(columns={"r = 1": "SE"})
live = accuracy(digit_net, new_digits)
print("the live run is near its stored row:", abs(live - table.loc[(8, 0), "SE"]) < 0.05)

# %%
from attnlib.lab.plots import by_seed

fig, axes = plt.subplots(1, 3, figsize=(8, 3))
by_seed(on_cards, ax=axes[0], highlight="SE", limit=0.75).set(ylim=(0, 1), title="cards, 8 epochs")
for ax, epochs in zip(axes[1:], (8, 12), strict=True):
    by_seed(dict(table.loc[epochs]), ax=ax, highlight="SE", label="")
    ax.set(ylim=(0.85, 1), title=f"digits, {epochs} epochs")
show(fig, alt="Test accuracy by seed, plain and with SE. On the cards SE lies above 3/4 and the "
     "plain network far below; on digits the two clouds overlap, after 8 epochs and after 12.")

# %% [markdown]
# **What to see** (mind the axes: the two on the right begin at 0.85). On the cards the groups do not come near each
# other, and SE passes the 3/4 (dashed) that (8.1) sets as a limit. On digits the clouds overlap. A figure cannot
# decide that; so we take the difference seed by seed, its mean over the 15 seeds, and the standard error of that
# mean.

# %%
assert sum(value > 0.75 for value in on_cards["SE"]) >= 2 and max(on_cards["plain"]) < 0.6
difference = 100 * (table["SE"] - table["plain"])
for epochs in (8, 12):
    d = difference.loc[epochs]
    print(f"{epochs} epochs: {d.mean():+.1f} points, standard error {d.sem():.1f}")

# %% [markdown]
# After 8 epochs SE leads by 1.1 points, which is 2.0 standard errors; after 12 it is behind by 0.4, which is 1.0. By our
# rule: **no difference found**, at either length. That does not prove that there is none. And mind how easy it is to find
# one: the first five seeds alone show a lead of 2.4 points after 8 epochs, the last five show $-0.2$. Had we stopped at
# five, we would have claimed twice the lead that fifteen show.

# %%
early, late = difference.loc[8], difference.loc[12]
errors = [d.mean() / d.sem() for d in (early, late)]
assert all(abs(e) < 2.14 for e in errors) and [round(abs(e), 1) for e in errors] == [2.0, 1.0]
assert [round(d.mean(), 1) for d in (early, late)] == [1.1, -0.4]
assert [round(d.mean(), 1) for d in (early[:5], early[10:])] == [2.4, -0.2]

# %% [markdown]
# Two small tasks say what the mechanism *can* do. They do not say that it helps on photographs; that is measured in
# notebook 17, [17_face_off](17_face_off.ipynb), on real images and against all the others.

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 08.3 · bug gallery · *Depth* · 10 minutes
#
# This forward pass was published as SE. It runs, it trains a little, and it is wrong. Find what is wrong, and change as little
# as you can.
#
# ```python
# def forward(x, W_1, W_2):
#     w = torch.sigmoid(torch.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T)
#     w = torch.softmax(w, dim=1)
#     return x * w[:, :, None, None]
# ```
#
# <details><summary>Hint 1</summary>
#
# Print `w.sum(1)`. Should the gates of an image sum to anything in particular?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Compare with (8.3) and (8.4), symbol by symbol. One step is not in the equations.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The sigmoid is right. Take away the line below it.
#
# </details>

# %% tags=["exercise"]
def mended(x, W_1, W_2):
    """x (b, c, h, w) -> features of the same shape, as in (8.4)."""
    raise NotImplementedError

mended = check("08.3", mended)

# %% tags=["solution"]
def mended(x, W_1, W_2):
    w = torch.sigmoid(torch.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T)
    return x * w[:, :, None, None]

# %% [markdown]
# ### Softmax after the sigmoid
#
# The mistake is the second normalisation: it multiplies $x$ not by $s$ but by a softmax of $s$ over the channels.
#
# $$w_c = \frac{e^{s_c}}{\sum_k e^{s_k}}, \qquad \frac1C \sum_c w_c = \frac1C, \qquad
# \frac{1}{1 + (C-1)e} < w_c < \frac{e}{e + C - 1} \tag{8.15}$$
#
# The weights of an image sum to 1, so their mean is $1/C$ whatever was learnt. And since every $s_k$ lies between 0
# and 1, the largest weight is at most $e = 2.718...$ times the smallest: **no channel can be shut, and all of them
# shrink**.
#
# **Predict:** with 64 channels, by what factor do the activations shrink in one block? In three blocks, one behind
# the other?

# %%
x, se = torch.randn(2, 64, 6, 6).double(), SqueezeExcitation(64).double()
with torch.no_grad():
    se.W_2.weight.mul_(20)  # gates near 0 and near 1
    w = se.weights(x).softmax(1)
e, C = torch.e, 64
assert torch.allclose(w.mean(1), torch.tensor(1 / 64).double())  # (8.15)
assert w.min() > 1 / (1 + (C - 1) * e) and w.max() < e / (e + C - 1) and w.max() / w.min() < e

# %% [markdown]
# Three blocks in a row, with and without the mistake. With random weights a proper gate is near 1/2, so three of
# them shrink the map to roughly an eighth: a gate is never entirely free. The double normalisation takes it to about
# $64^{-3}$, and the gradient that comes back is nearly the same product.

# %%
chain = [SqueezeExcitation(64).double() for _ in range(3)]

def size_and_gradient(wrap):
    start_map = torch.randn(2, 64, 6, 6).double().requires_grad_()
    end = start_map
    for se in chain:
        end = end * wrap(se.weights(end))
    (gradient,) = torch.autograd.grad(end.sum(), start_map)
    return (end.std() / start_map.std()).item(), gradient.abs().mean().item()

# %%
proper, broken = size_and_gradient(lambda s: s), size_and_gradient(lambda s: s.softmax(1))
print(f"three proper gates: to about 1/{1 / proper[0]:.0f}; with the mistake: to about 64^-3")
assert 1 / 12 < proper[0] < 1 / 6 and 0.9 < broken[0] * 64**3 < 1.1
assert 1 / 12 < proper[1] < 1 / 6 and 0.9 < broken[1] * 64**3 < 1.1

# %% [markdown]
# ### Take away one ingredient
#
# Back to the cards, with one change at a time and ten seeds each (these runs are stored too):
#
# - *static*: gates that are learnt but do not look at the image, $s = \sigma(b)$;
# - *double*: the softmax after the sigmoid;
# - *double x 16*: the same, multiplied by the number of channels, so that it does not shrink.
#
# **Predict** an order before you run it. A hint for *static*: what does (8.1) say about it?

# %%
runs = load_results("08_cards")
short = runs[runs["epochs"] == 8].groupby("variant", sort=False)
by_variant = {name: list(group["accuracy"]) for name, group in short}
by_variant["SE"] = by_variant["r = 1"]
changed = {name: by_variant[name] for name in ("plain", "static", "double", "double x 16", "SE")}
near = [abs(a - b) < 0.15 for a, b in zip(on_cards["SE"], by_variant["SE"][:3], strict=True)]
print("the live runs of part 9 are near their stored rows:", sum(near) >= 2)

# %%
ax = by_seed(changed, ax=plt.subplots(figsize=(6.5, 3))[1], highlight="SE", limit=0.75)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on the cards by seed: plain and static stay below one half; double, "
     "double times 16 and SE lie higher, in this order.")
mean = {name: sum(values) / 10 for name, values in changed.items()}
print({name: f"{value:.2f}" for name, value in mean.items()})
assert [round(value, 2) for value in mean.values()] == [0.45, 0.44, 0.80, 0.85, 0.90]

# %% [markdown]
# **What to see.** *Static* is as blind as the plain network. (8.1) says why: it holds for every gate that is the same for
# all cards, at any width, because such a gate is only another fixed weight. What counts is that a gate looks at the
# image. *Double* reaches 0.80, since its weights may differ by a factor of up to $e$: it can lean to one side, but not
# shut the other. Scaled back up by 16 it reaches 0.85, and SE itself 0.90: roughly half of the gap is the shrinking.
#
# ### How narrow may the hidden layer be?
#
# The same table holds $r$ from 1 to 16: from 16 hidden units down to a single one.
#
# **Predict:** a single hidden unit *can* switch the two sides. Will training find it? Will accuracy fall little by
# little as the layer narrows, or otherwise?

# %%
by_reduction = {name: values for name, values in by_variant.items() if name.startswith("r =")}
ax = by_seed(by_reduction, ax=plt.subplots(figsize=(6.5, 3))[1], means=False, limit=0.75)
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy on the cards for r = 1, 2, 4, 8, 16, ten seeds each. Every run lies "
     "near 0.9 or near 0.45, and the wider the hidden layer, the more runs lie near 0.9.")

# %%
solved = [sum(value > 0.75 for value in values) for values in by_reduction.values()]
between = [0.5 < value < 0.8 for values in by_reduction.values() for value in values]
print("seeds out of ten that pass the limit of 3/4:", dict(zip(by_reduction, solved, strict=True)))
assert solved == [10, 9, 7, 3, 2] and not any(between)
long = runs[runs["epochs"] == 32]["accuracy"] > 0.75  # r = 16 again, four times as long
assert list(long) == [value > 0.75 for value in by_variant["r = 16"]]

# %% [markdown]
# **What to see.** There is nothing in between: a run either solves the game or stays where the plain network is. With
# 16 hidden units 10 of 10 seeds solve it, then 9, 7, 3, and with a single unit 2. One unit is *enough* (two
# seeds prove it), but training seldom finds it, and patience does not help: after 32 epochs the same two seeds have solved
# it. So on this task a narrow layer does not make the solution worse; it makes finding it a matter of the seed. In a large
# network $r = 16$ leaves more room: the
# narrowest block of ResNet-50 still has $256/16 = 16$ hidden units.

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# Articles on the web say the following about SE. Each is settled by the cell below it, or by one above.
#
# **SE-1** "Squeeze by global average or max pooling; excite by a linear layer, ReLU, a linear layer and a sigmoid."
# **True.** It is (8.2) and (8.3); the paper uses the mean and ablates the maximum. The library has both:

# %%
# claim SE-1: TRUE
x, module = example_feature_map(), SqueezeExcitation(4, reduction=2, pool="max").double()
by_hand = torch.sigmoid(module.W_2(F.relu(module.W_1(x.amax((2, 3))))))
assert torch.equal(module.weights(x)[:, :, 0, 0], by_hand)

# %% [markdown]
# **SE-2** "The output is $x$ times a softmax of the sigmoid's weights." **Broken.** Part 10: the weights sum to 1,
# the activations shrink to $1/C$ on average, and their gradients with them.

# %%
# claim SE-2: BROKEN
x = torch.randn(2, 64, 6, 6, requires_grad=True)
gate = SqueezeExcitation(64).weights(x)
assert torch.allclose(gate.softmax(1).sum(1), torch.ones(2, 1, 1))
print(f"mean weight: {gate.mean():.1f} properly, {gate.softmax(1).mean():.4f} with the mistake")
slopes = [torch.autograd.grad((x * g).sum(), x, retain_graph=True)[0].abs().mean()
          for g in (gate, gate.softmax(1))]
assert slopes[1] < 2 / 64 < 0.4 < slopes[0]  # forward and backward: a thirtieth is left

# %% [markdown]
# **SE-3** "SE strengthens spatial perception." **False.** The gate of a channel is one number for all its pixels, and
# by (8.12) all pixels have the same part in it. Where something is, SE neither sees nor says. The picture shows
# $\partial s_0 / \partial x_k(i,j)$ for six channels $k$ of the random example of part 5: flat, every one.

# %%
# claim SE-3: FALSE
flat = measured[0]
assert torch.allclose(flat, flat[:, :1, :1].expand_as(flat))
fig, axes = plt.subplots(1, 6, figsize=(9, 1.8))
for k, ax in enumerate(axes):
    heatmap(flat[k], ax=ax, limits=(-0.02, 0.02), signed=True, colorbar=k == 5, label="slope")
    ax.set(xticks=[], yticks=[], title=f"k = {k}")
show(fig, alt="Six maps of the gate's Jacobian, one for each channel; each is one flat colour.")

# %% [markdown]
# **SE-4** "SE is a self-attention module." **It depends on the sense.** In the wide sense (features weighted by
# something computed from themselves) it is one, and SE's authors use the word so. In the narrow sense (every
# position compares itself with every other) it is not: nothing pairwise is computed. The dependence shows it. Move pixel
# $q$ of channel 1 and watch all pixels $p$ of channel 0: through SE they follow in a pattern that is the same for every
# $q$, a matrix of rank 1. In self-attention each $q$ has a pattern of its own.

# %%
# claim SE-4: DEPENDS
pixels, module = torch.randn(1, 4, 3, 3).double(), SqueezeExcitation(4, reduction=1).double()
as_rows = lambda x: x.flatten(2)[0].T  # (pixels, channels)
attend = lambda x: (as_rows(x) @ as_rows(x).T).softmax(1) @ as_rows(x)
through_se = jacobian(lambda x: module(x)[0, 0].flatten(), pixels)[:, 0, 1].flatten(1)
through_attention = jacobian(lambda x: attend(x)[:, 0], pixels)[:, 0, 1].flatten(1)
assert torch.linalg.matrix_rank(through_se, rtol=1e-9) == 1
assert torch.linalg.matrix_rank(through_attention, rtol=1e-9) > 1

# %% [markdown]
# **SE-5** "Pooling turns spatial information into channel information." **False.** It throws spatial information away:
# shuffle the pixels of the feature map, and $z$ and the gate stay as they were. (Shuffle the *image*, and the convolutions
# before the block see something else.)

# %%
# claim SE-5: FALSE
order = torch.randperm(64)
features = torch.randn(2, 16, 8, 8).double()
shuffled = features.flatten(2)[:, :, order].view_as(features)
module = SqueezeExcitation(16).double()
assert not torch.equal(features, shuffled)
assert torch.allclose(module.weights(features), module.weights(shuffled))

# %% [markdown]
# ## 12 · Exercises
#
# 08.1 stands in part 4, 08.2 in part 8 and 08.3 in part 10. Here is one that asks for something new.
#
# ### Exercise 08.4 · another gate backward · *Depth* · 20 minutes
#
# MobileNetV3 replaces the sigmoid by $s = \mathrm{relu6}(v+3)/6$: 0 up to $v = -3$, 1 from $v = 3$ on, a straight
# line between. Given $g = \partial L/\partial y$ (called `grad_y`), $x$ and $v$, write $\partial L/\partial v$ of
# shape (b, c).
#
# <details><summary>Hint 1</summary>
#
# Two steps of part 5 are enough: (8.6) stays as it is; (8.7) changes, because the slope of the gate does.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The line climbs from 0 to 1 while $v$ goes from $-3$ to 3. Outside, the gate does not move at all.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `(grad_y * x).sum((2, 3))` is $\partial L/\partial s$. Multiply by 1/6 where `v.abs() < 3`, and by 0 elsewhere.
#
# </details>

# %% tags=["exercise"]
def hard_gate_backward(grad_y, x, v):
    """grad_y and x (b, c, h, w), v (b, c) -> the gradient for v, (b, c)."""
    raise NotImplementedError

hard_gate_backward = check("08.4", hard_gate_backward)

# %% tags=["solution"]
def hard_gate_backward(grad_y, x, v):
    grad_s = (grad_y * x).sum((2, 3))
    return grad_s * (v.abs() < 3) / 6

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the paper |
# |---|---|---|---|
# | squeeze | $z_c = \frac{1}{HW}\sum_{ij} x_c(i,j)$ | (8.2) | (2), with $u_c$ for our $x_c$ |
# | excitation | $s = \sigma(W_2\,\mathrm{relu}(W_1 z))$ | (8.3) | (3), with $\delta$ for the ReLU |
# | scale | $y_c = s_c\, x_c$ | (8.4) | (4), with $\tilde x_c$ for our $y_c$ |
# | gradient | $s_c\, g_c + \frac{1}{HW}\, \partial L/\partial z_c$ | (8.11) | – |
# | price | $2C^2/r$, with biases $+\,C/r + C$ | (8.13) | counted without biases |
#
# - SE multiplies each channel by a number that depends on the means of **all** channels. It sees no place and marks
#   no place.
# - It can do what a network that is linear behind its windows cannot: let a cue in one corner switch a channel
#   everywhere (8.1).
# - It costs $2C^2/r$ weights. Two published sizes of one network may differ by convention alone.
# - The sigmoid lets every channel be open at once. A softmax behind it breaks that.
# - On plain digits we found no difference, over 15 seeds. Whether it pays on your task, measure.
#
# **Sources.** Hu, Shen, Sun, arXiv 1709.01507 (equations, reduction 16, ablation of the squeeze); the authors' released
# network definitions (biases); Howard et al., *Searching for MobileNetV3*, arXiv 1905.02244 (hard sigmoid); Wang et
# al., *ECA-Net*, arXiv 1910.03151 (the table with 26.77 M).
#
# **Back:** [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb), [00_toolbox](00_toolbox.ipynb) ·
# **Next:** [09_efficient_channel_attention](09_efficient_channel_attention.ipynb), which asks whether the two layers
# are needed at all. The map of the course is in [00_start_here](00_start_here.ipynb).
