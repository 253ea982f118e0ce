# %% [markdown]
# # 14 · Non-local networks
#
# **The question.** A convolution looks at a small window. How can one place of a feature map learn, in a single step,
# what stands at any other place, and what does it cost to let every place ask every other?
#
# **The answer in one sentence.** Compare each place with each other place, turn the similarities into weights,
# average a projection of all places with these weights, and add the result to what the place had; this is
# self-attention with pixels for words, it costs $2C^2$ weights, and its price in arithmetic and memory grows with the
# *square* of the number of pixels, unless the sums are done in another order or the pixels are replaced by a few
# bases.
#
# **Papers.** Xiaolong Wang, Ross Girshick, Abhinav Gupta, Kaiming He: *Non-local Neural Networks*, CVPR 2018, [arXiv
# 1711.07971](https://arxiv.org/abs/1711.07971); for part 8 Xia Li, Zhisheng Zhong, Jianlong Wu, Yibo Yang, Zhouchen
# Lin, Hong Liu: *Expectation-Maximization Attention Networks*, ICCV 2019, [arXiv
# 1907.13426](https://arxiv.org/abs/1907.13426).
#
# **Time.** Core 85 minutes (parts 1-4, 6, 9 and exercises 14.1 and 14.2) · Depth 120 minutes (the rest).
#
# **Prerequisites.** The toolbox pages on [softmax and its Jacobian](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian),
# [convolution and its cost](00_toolbox.ipynb#4.-Convolution-and-counting-its-MACs) and [batch
# normalisation](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass). Notebook
# [02_self_attention](02_self_attention.ipynb) derives dot-product attention, and we build on it. The cards and the
# small network are those of [08](08_squeeze_and_excitation.ipynb). The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $N$ | | the number of places, $N = HW$; $i$ and $j$ count them row by row |
# | $X$ | $N \times C$ | the feature map of one image as a table: row $x_i$ holds the $C$ channels of place $i$ |
# | $\theta, \phi, g$ | | three linear maps from $C$ to $d$ numbers, $1 \times 1$ convolutions; usually $d = C/2$ |
# | $Q, K, V$ | $N \times d$ | queries $q_i = \theta(x_i)$, keys $k_j = \phi(x_j)$, values $v_j = g(x_j)$ |
# | $f(x_i, x_j)$ | | the similarity of place $j$ to place $i$, a number |
# | $P$ | $N \times N$ | the weights: row $i$ says how much place $i$ takes from each place $j$ |
# | $y_i$ | $d$ | what place $i$ gathers; $Y$ is the table of all, one row a place |
# | $W_z$ | $C \times d$ | the linear map back to $C$ channels |
# | $z_i$ | $C$ | place $i$ of the map that goes out; $Z$ is the table of all |
# | $S$ | $N \times N$ | the scores, before a softmax makes weights of them |
# | $R, \mu$ | $N \times K$, $K \times C$ | responsibilities and bases of EM attention, part 8 |
#
# A bar stands for a gradient: $\bar y$ is $\partial L/\partial y$. (08 calls the gradient that arrives from above
# $g$; here $g$ is the paper's name for the map to the values. In 08, $z$ is the squeeze; here it is what goes out.)
# The paper writes $\mathcal{C}(x)$ for the number by which the similarities are divided; it has nothing to do with
# the number of channels $C$. Two letters change their meaning in part 8, as in its paper: there $K$ is the number of
# bases and $T$ the number of rounds; before, $K$ is the table of keys and $T$ a small matrix.

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
# **14.a** Five scores go through a softmax. Somebody adds 5 to each of the five scores. What happens to the shares?
# (a) each grows by the factor $e^5$ · (b) they sum to $e^5$ · (c) all shrink · (d) nothing · (e) the largest gains
#
# **14.b** $A$ is $100 \times 2$, $B$ is $2 \times 100$ and $C$ is $100 \times 2$. How many multiplications does
# $(AB)\,C$ take? (a) 20,000 · (b) 40,000 · (c) 600 · (d) 800 · (e) 400,000,000
#
# **14.c** A $50 \times 3$ matrix times a $3 \times 16$ matrix. What is the highest rank that the product can have?
# (a) 1 · (b) 50 · (c) 3 · (d) 16 · (e) 6

# %% tags=["exercise"]
check("14.a", ...)
check("14.b", ...)
check("14.c", ...)

# %% tags=["solution"]
check("14.a", "d")
check("14.b", "b")
check("14.c", "c")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# A $3 \times 3$ convolution lets a place hear its eight neighbours. A second one behind it lets the place hear what
# *they* heard: one pixel more in each direction. After $n$ such layers it hears $(2n+1) \times (2n+1)$ places (the
# toolbox derives it). Across a map of 15 x 15 places, from the middle to the border, that takes seven layers; from
# one corner of a $224 \times 224$ image to the opposite one, 223.
#
# The cell asks a module which places its middle output listens to. For each input place it takes the derivatives of
# the four output channels by the four input channels, and of these the root of the mean square.

# %%
from attnlib import NonLocal
from attnlib.lab.gradients import jacobian

def reach(module):
    image = torch.randn(1, 4, 15, 15)
    slopes = jacobian(lambda x: module(x)[0, :, 7, 7], image)[:, 0]
    return slopes.square().mean((0, 1)).sqrt()

# %% [markdown]
# **Predict before you go on:** three pictures of 15 x 15 places: one convolution, three of them, and one non-local
# block. How many places are bright in each?

# %%
convolutions = lambda n: nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(n)])
modules = {"one 3 x 3": convolutions(1), "three 3 x 3": convolutions(3),
           "one non-local block": NonLocal(4, norm=False)}
reached = {name: reach(module) for name, module in modules.items()}
heard = [int((places > 0).sum()) for places in reached.values()]
print("places that the middle one hears:", heard)
assert heard == [9, 49, 225]

# %%
from attnlib.lab.plots import heatmap

fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.6))
for ax, (name, places) in zip(axes, reached.items(), strict=True):
    drawn = (places / places.max()) ** 0.25
    heatmap(drawn, ax=ax, colorbar=ax is axes[2], label="slope^(1/4)")
    ax.set(xticks=[], yticks=[], title=name, aspect="equal")
show(fig, alt="Which places the middle one listens to: a 3 x 3 square, a 7 x 7 square that fades "
     "outwards, and for the non-local block the whole picture with a bright middle.")

# %% [markdown]
# **What to see.** The two squares end sharply: beyond them everything is exactly zero, whatever the weights. The
# larger square fades towards its rim, because few paths lead there. The non-local block hears all 225 places. (We
# drew the fourth root, so that weak dependence shows at all: a fresh block listens to all far places about alike, and
# to the middle itself, through the residual, much more.)
#
# A task in which this matters is the game of cards of notebook 08: two digits in two channels, and a square in a far
# corner that says which digit to read. 08 shows in its result (8.1) that no network which is linear behind windows of
# 5 x 5 pixels reads more than three quarters of all cards, for **no unit sees both** the square and a digit. There a
# channel gate was the cure. In part 9 we give the same cards to a non-local block.

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. The course's example has four channels of 2 x 2 places. In this notebook it is a table: one row for
# each *place*, with its four channels.

# %%
from attnlib.lab.data import example_feature_map

example = example_feature_map()
X = example[0].flatten(1).T
for i in range(4):
    print(f"place {i}:", X[i].int().tolist())

# %% [markdown]
# ### Queries, keys, values
#
# Each place makes three short vectors of its four numbers: a **query** (what it looks for), a **key** (what it can be
# found by) and a **value** (what it hands out). The three maps are the same at every place. Ours are
#
# $$W_\theta = \begin{pmatrix} 0 & 1 & 0 & 0 \\ 0 & 0 & 0 & \tfrac14 \end{pmatrix}, \quad
# W_\phi = \begin{pmatrix} 0 & 0 & -1 & 0 \\ 1 & -1 & 0 & 0 \end{pmatrix}, \quad
# W_g = \begin{pmatrix} 0 & 0 & 0 & 1 \\ 0 & 1 & 0 & 0 \end{pmatrix}.$$
#
# For place 0, which holds $(1, 0, -2, 4)$: the query is $(0, \frac14 \cdot 4) = (0, 1)$, the key $(2, 1 - 0) = (2,
# 1)$ and the value $(4, 0)$. Do the other three places before you run the cell.

# %%
W_theta = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0.25]]).double()
W_phi = torch.tensor([[0, 0, -1, 0], [1, -1, 0, 0]]).double()
W_g = torch.tensor([[0, 0, 0, 1], [0, 1, 0, 0]]).double()
Q, K, V = X @ W_theta.T, X @ W_phi.T, X @ W_g.T
for name, vectors in {"queries": Q, "keys": K, "values": V}.items():
    print(f"{name}:", vectors.int().tolist())

# %% [markdown]
# ### Gather
#
# The **non-local operation** is a weighted sum over *all* places $j$, wherever they lie (equation (1) of the paper):
#
# $$y_i = \frac{1}{\mathcal{C}(x)} \sum_{j} f(x_i, x_j)\, v_j, \qquad v_j = g(x_j) \tag{14.1}$$
#
# The simplest similarity is the dot product of query and key, $f(x_i, x_j) = q_i \cdot k_j$, divided by the number of
# places, $\mathcal{C}(x) = N = 4$. Place 1 has the query $(1, 0)$. Its similarities to the four places are $2, 0, 1,
# 1$, so
#
# $$y_1 = \tfrac14 \big( 2 \cdot (4, 0) + 0 \cdot (0, 1) + 1 \cdot (0, 1) + 1 \cdot (0, 2) \big) = (2, \tfrac34).$$
#
# Place 3 has the query $(2, 0)$, twice as long. All its similarities are twice as large, and so is $y_3 = (4,
# \frac32)$.

# %%
similarities = torch.tensor([[q @ k for k in K] for q in Q])
Y = torch.stack([sum(similarities[i, j] * V[j] for j in range(4)) / 4 for i in range(4)])
assert Y.tolist() == [[1, 0.75], [2, 0.75], [2, 0.75], [4, 1.5]]  # (14.1)
print("similarities of place 1:", similarities[1].int().tolist(), "and y_1 =", Y[1].tolist())

# %% [markdown]
# ### Add
#
# A last map $W_z$ leads back to four channels, and the result is *added* to what the place had (equation (6) of the
# paper):
#
# $$z_i = W_z\, y_i + x_i, \qquad \text{here with} \quad
# W_z = \begin{pmatrix} 1 & 0 \\ 0 & 4 \\ 0 & 0 \\ -1 & 0 \end{pmatrix} \tag{14.2}$$
#
# Place 1 had $(2, 1, 0, 0)$ and gathers $W_z\,(2, \frac34) = (2, 3, 0, -2)$. It leaves with $(4, 4, 0, -2)$. The
# gates of the notebooks before this one *multiply* $x$; a non-local block **adds**. It can bring to a place something
# that was not there at all: channel 3 of place 1 was 0, and no gate could have changed that.

# %%
W_z = torch.tensor([[1, 0], [0, 4], [0, 0], [-1, 0]]).double()
Z = X + Y @ W_z.T
assert Z.tolist() == [[2, 3, -2, 3], [4, 4, 0, -2], [5, 4, -1, -2], [6, 8, -1, -4]]  # (14.2)

# %% [markdown]
# ### Shares instead of products
#
# The paper's usual choice is the **embedded Gaussian**, $f(x_i, x_j) = e^{q_i \cdot k_j}$ with $\mathcal{C}(x) =
# \sum_j f(x_i, x_j)$. The exponential makes every weight positive and the division makes each row sum to 1: together
# they are a softmax over $j$. For place 1 the scores $2, 0, 1, 1$ become the shares 0.534, 0.072, 0.197 and 0.197.
#
# **Predict:** place 3 asks twice as loudly, with the scores $4, 0, 2, 2$. Will its shares be twice those of place 1?

# %%
P = similarities.softmax(1)
assert P[1].round(decimals=3).tolist() == [0.534, 0.072, 0.197, 0.197]
assert P[3].round(decimals=3).tolist() == [0.776, 0.014, 0.105, 0.105]

# %%
fig, axes = plt.subplots(1, 2, figsize=(5.6, 2.3))
for ax, name, weights in zip(axes, ("dot / N", "softmax"), (similarities / 4, P), strict=True):
    heatmap(weights, ax=ax, numbers=True, colorbar=False)
    ax.set(title=name, xlabel="place j", ylabel="place i", xticks=range(4), yticks=range(4))
show(fig, alt="Two 4 x 4 tables of weights. Left, dot products over 4: row 3 is twice row 1. "
     "Right, softmax: every row sums to 1, and row 3 is the choice of row 1, but more decided.")

# %% [markdown]
# **What to see.** They cannot be twice as large, since they sum to 1 as before. A longer query does not take *more*,
# it chooses more *sharply*: 0.776 against 0.534 for place 0. With dot products, row 3 is exactly twice row 1, and
# nothing keeps a row's sum at 1 or its entries positive.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# With one row for each place the sums of (14.1) are two matrix products, and the whole block is
#
# $$P = \mathrm{softmax}\big(Q K^\top\big) \;\text{(each row)}, \qquad Z = X + P\, V\, W_z^\top \tag{14.3}$$
#
# $$\text{with} \quad Q = X W_\theta^\top, \quad K = X W_\phi^\top, \quad V = X W_g^\top.$$
#
# ### Exercise 14.1 · the block · *Core* · 15 minutes
#
# Write (14.3) for a batch of feature maps. `x` is (b, c, h, w), `W_theta`, `W_phi` and `W_g` are (inner, c), `W_z` is
# (c, inner); return (b, c, h, w). No loops, no biases, no scale.
#
# <details><summary>Hint 1</summary>
#
# Three stages: bring the map to one row a place, (b, hw, c); compute (14.3); bring the rows back to (b, c, h, w).
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x.flatten(2)` is (b, c, hw), and `.mT` exchanges the last two axes. The way back is `.mT` again and then
# `.reshape(x.shape)`; a reshape without the transpose would scramble channels and places.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `X = x.flatten(2).mT`, `P = (X @ W_theta.T @ (X @ W_phi.T).mT).softmax(-1)`, then `P @ (X @ W_g.T) @ W_z.T`.
#
# </details>

# %% tags=["exercise"]
def non_local(x, W_theta, W_phi, W_g, W_z):
    """x (b, c, h, w), W_theta, W_phi, W_g (inner, c), W_z (c, inner) -> (b, c, h, w)."""
    raise NotImplementedError

non_local = check("14.1", non_local)

# %% tags=["solution"]
def non_local(x, W_theta, W_phi, W_g, W_z):
    X = x.flatten(2).mT
    Q, K, V = X @ W_theta.T, X @ W_phi.T, X @ W_g.T
    Y = (Q @ K.mT).softmax(-1) @ V
    return x + (Y @ W_z.T).mT.reshape(x.shape)

# %% [markdown]
# Notebook 02 has this formula under another name. Take its `dot_product_attention` with the places as a sequence of
# $N$ words and with the scale 1 (its own default is $1/\sqrt d$), and both the weights and the output are the same. A
# non-local block *is* self-attention over pixels, with a map back and a residual.

# %%
from attnlib.sequence.dot_product import dot_product_attention

output, weights = dot_product_attention(Q, K, V, scale=1.0)
assert torch.allclose(weights, P)  # (14.3): the same weights, rows and columns are places
attended = X + output @ W_z.T
assert torch.allclose(non_local(example, W_theta, W_phi, W_g, W_z)[0].flatten(1).T, attended)

# %% [markdown]
# The library's `NonLocal` has the four maps as $1 \times 1$ convolutions, whose weights are our matrices with two
# more axes of size 1. It also has biases and a batch norm behind $W_z$, of which parts 5 and 7 speak; without them it
# is our function.

# %%
block = NonLocal(4, inner=2, bias=False, norm=False).double()
matrices = {"theta": W_theta, "phi": W_phi, "g": W_g, "W_z": W_z}
block.load_state_dict({f"{k}.weight": W[:, :, None, None] for k, W in matrices.items()})
assert torch.allclose(block.weights(example)[0], P)
assert torch.allclose(block(example), non_local(example, W_theta, W_phi, W_g, W_z))

# %% [markdown]
# One property follows at once. Nothing in (14.3) knows *where* a place lies: shuffle the places, and the outputs are
# shuffled along. A convolution knows left from right; a non-local block does not, unless the features tell it.

# %%
order = torch.randperm(35)
features = torch.randn(2, 4, 5, 7).double()
shuffle = lambda x: x.flatten(2)[:, :, order].view_as(x)
assert torch.allclose(block(shuffle(features)), shuffle(block(features)))

# %% [markdown]
# ### Five similarities
#
# The paper offers four similarities, and a fifth is told on the web (part 11). Each has its own $\mathcal{C}(x)$:
#
# | name | $f(x_i, x_j)$ | $\mathcal{C}(x)$ | in the paper |
# |---|---|---|---|
# | Gaussian | $e^{x_i \cdot x_j}$, without $\theta$ and $\phi$ | $\sum_j f(x_i, x_j)$ | (2) |
# | embedded Gaussian | $e^{q_i \cdot k_j}$ | $\sum_j f(x_i, x_j)$ | (3) |
# | dot product | $q_i \cdot k_j$ | $N$ | (4) |
# | concatenation | $\mathrm{relu}(w_f \cdot [q_i, k_j])$ | $N$ | (5) |
# | Euclidean | $e^{-\lvert q_i - k_j \rvert^2 / 2}$ | $\sum_j f(x_i, x_j)$ | – |
#
# The library has all five. **Predict:** for which of them are the weights shares (positive, rows that sum to 1)?
# Which can be negative, which exactly zero?

# %%
import pandas as pd

properties = {}
for name in ("gaussian", "embedded", "dot", "concatenation", "euclidean"):
    with torch.no_grad():
        w = NonLocal(4, similarity=name).double().weights(features)
    sums_to_1 = torch.allclose(w.sum(2), torch.ones(2, 35).double())
    properties[name] = [sums_to_1, bool((w < 0).any()), bool((w == 0).any())]

# %%
table = pd.DataFrame(properties, index=["rows sum to 1", "negative", "zero"]).T
assert list(table.index[table["rows sum to 1"]]) == ["gaussian", "embedded", "euclidean"]
assert list(table.index[table["negative"]]) == ["dot"]
assert list(table.index[table["zero"]]) == ["concatenation"]
table

# %% [markdown]
# ### The Euclidean form, and when it equals the dot product
#
# A distance seems a more natural similarity than a dot product. How do the two differ? Multiply out the square:
#
# $$-\tfrac12 \lvert q_i - k_j \rvert^2 = q_i \cdot k_j - \tfrac12 \lvert k_j \rvert^2 - \tfrac12 \lvert q_i \rvert^2.$$
#
# The last term is the same for all $j$, and a softmax does not see what is added to all its scores (question 14.a).
# It drops out; the term with $k_j$ does not:
#
# $$\frac{e^{-\lvert q_i - k_j \rvert^2/2}}{\sum_l e^{-\lvert q_i - k_l \rvert^2/2}} =
# \mathrm{softmax}_j \big( q_i \cdot k_j - \tfrac12 \lvert k_j \rvert^2 \big) \tag{14.4}$$
#
# Dot products favour long keys; the distance takes that advantage away. If all keys have **one length**, then the
# second term is the same for all $j$ too, and
#
# $$\lvert k_1 \rvert = \dots = \lvert k_N \rvert \;\Rightarrow\; \text{the Euclidean form} =
# \mathrm{softmax}_j (q_i \cdot k_j) \tag{14.5}$$

# %%
def euclidean(q, k):
    f = torch.exp(-(q[:, None] - k).square().sum(2) / 2)
    return f / f.sum(1, keepdim=True)

queries, keys = torch.randn(2, 6, 3).double()
of_one_length = 2 * F.normalize(keys, dim=1)
scores = queries @ keys.T - keys.square().sum(1) / 2
assert torch.allclose(euclidean(queries, keys), scores.softmax(1))  # (14.4)

# %%
by_dots = (queries @ of_one_length.T).softmax(1)
assert torch.allclose(euclidean(queries, of_one_length), by_dots)  # (14.5)
difference = euclidean(queries, keys) - (queries @ keys.T).softmax(1)
print("keys of several lengths: weights differ by over 0.1:", bool(difference.abs().max() > 0.1))
assert difference.abs().max() > 0.1

# %% [markdown]
# ### The dot form can be had without the weights
#
# The dot form divides by a constant, so it has no step that is not a product of matrices. And products may be
# bracketed as one likes:
#
# $$\Big( \tfrac1N\, Q K^\top \Big) V = Q\, T, \qquad T = \tfrac1N\, K^\top V \tag{14.6}$$
#
# On the left an $N \times N$ matrix arises; on the right a $d \times d$ matrix $T$, the same for all places. The left
# takes $2 N^2 d$ multiplications, the right $2 N d^2$. With $d = C/2$: $N^2 C$ against $N C^2/2$. So the right side
# is cheaper wherever there are more than $C/2$ places, as in the early layers of most networks, and it never holds
# $N^2$ numbers. With a softmax between the two products this is not possible.

# %%
from attnlib.lab.cost import count_macs, count_parameters

class ByPairs(nn.Module):
    def forward(self, q, k, v):
        return (q @ k.mT / len(k)) @ v

class ByChannels(nn.Module):
    def forward(self, q, k, v):
        return q @ (k.mT @ v / len(k))

# %%
q, k, v = torch.randn(3, 784, 16).double()
assert torch.allclose(ByPairs()(q, k, v), ByChannels()(q, k, v))  # (14.6)
pairs, channels = count_macs(ByPairs(), q, k, v), count_macs(ByChannels(), q, k, v)
print(f"28 x 28 places, d = 16: {pairs:,} MACs by pairs, {channels:,} by channels")
assert pairs == 2 * 784**2 * 16 and channels == 2 * 784 * 16**2

# %% [markdown]
# The same bracket explains what the dot form does: $T$ is a $d \times d$ mixing of channels that depends on the whole
# picture, and every place applies it to its own query. That is close to a channel gate. The price is that nothing
# bounds it. Without biases, an input that is $t$ times as large makes queries, keys and values $t$ times as large, so
#
# $$y(t\,x) = t^3\, y(x) \quad \text{(dot form)} \tag{14.7}$$
#
# whereas a softmax only ever averages values: there $y_i$ stays within the range of the $v_j$.

# %%
dot_block = NonLocal(4, similarity="dot", bias=False, norm=False).double()
gathered = lambda x: dot_block(x) - x
assert torch.allclose(gathered(3 * features), 27 * gathered(features))  # (14.7)
averages = (q @ k.T).softmax(1) @ v
assert (averages <= v.amax(0) + 1e-9).all() and (averages >= v.amin(0) - 1e-9).all()

# %% [markdown]
# ### Concatenation adds
#
# In the concatenation form a vector $w_f$ of $2d$ numbers multiplies query and key laid end to end. Split it into its
# two halves $w_q$ and $w_k$: the product is a *sum* of a number for the query and a number for the key. All $N^2$
# scores come from $2N$ numbers:
#
# $$w_f \cdot [q_i, k_j] = a_i + b_j, \qquad a_i = w_q \cdot q_i, \quad b_j = w_k \cdot k_j \tag{14.8}$$
#
# Only the ReLU makes the pair matter: it opens for those $j$ whose $b_j$ exceeds $-a_i$. In a softmax, without the
# ReLU, $a_i$ would drop out (question 14.a again), and all places would get the same weights.

# %%
concatenation = NonLocal(4, similarity="concatenation").double()
q, k, _ = concatenation.queries_keys_values(features)
w_q, w_k = concatenation.w_f.weight[0].chunk(2)
sums = (q @ w_q)[:, :, None] + (k @ w_k)[:, None]
assert torch.allclose(concatenation.weights(features), sums.relu() / 35)  # (14.8)
in_a_softmax = sums.softmax(2)
assert torch.allclose(in_a_softmax, in_a_softmax[:, :1].expand_as(in_a_softmax))

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Notebook 02 derives the backward pass of dot-product attention. New here are the Euclidean scores, the dot form in
# its cheap order, and a block that starts as the identity. A bar is the gradient of the loss $L$ with respect to what
# it stands over.
#
# **What is known.** From $Y = P V$: $\;\bar V = P^\top \bar Y$ and $\bar P = \bar Y V^\top$. From the softmax of row
# $i$ (toolbox, page 1), with $S$ for the scores:
#
# $$\bar S_{ij} = P_{ij}\Big( \bar P_{ij} - \sum_l P_{il} \bar P_{il} \Big).$$
#
# Sum this over $j$. The shares of a row sum to 1, so the two parts cancel, and **each row of $\bar S$ sums to zero**:
#
# $$\sum_j \bar S_{ij} = \sum_j P_{ij} \bar P_{ij} - \sum_l P_{il} \bar P_{il} = 0 \tag{14.9}$$
#
# That is question 14.a seen from behind: adding a number to a whole row changes nothing, so it has no gradient.

# %%
def scores_backward(dY, P, V):
    dP = dY @ V.T
    return P * (dP - (P * dP).sum(1, keepdim=True))

dY = torch.randn(4, 2).double()
dS = scores_backward(dY, P, V)
assert torch.allclose(dS.sum(1), torch.zeros(4).double())  # (14.9)

# %% [markdown]
# **Euclidean scores.** $S_{ij} = -\frac12 \lvert q_i - k_j \rvert^2$ has the slope $k_j - q_i$ in $q_i$ and $q_i -
# k_j$ in $k_j$: each is pulled towards the other. Collect over the pairs in which a vector takes part:
#
# $$\bar q_i = \sum_j \bar S_{ij} (k_j - q_i) = \sum_j \bar S_{ij}\, k_j, \qquad
# \bar k_j = \sum_i \bar S_{ij} (q_i - k_j) \tag{14.10}$$
#
# In the first, $q_i$ stands before a sum that is zero by (14.9): the query's gradient is that of the dot product,
# as it should be, since $\lvert q_i \rvert^2$ drops out of the softmax. In the second it stays: $\bar K = \bar
# S^\top Q - \mathrm{diag}(\bar S^\top 1) K$.

# %%
def euclidean_attention(q, k, v):
    return euclidean(q, k) @ v

def euclidean_backward(dY, q, k, v):
    P = euclidean(q, k)
    dS = scores_backward(dY, P, v)
    return dS @ k, dS.T @ q - dS.sum(0)[:, None] * k, P.T @ dY

# %%
leaves = [t.clone().requires_grad_() for t in (Q, K, V)]
found = torch.autograd.grad(euclidean_attention(*leaves), leaves, dY)
by_hand = euclidean_backward(dY, Q, K, V)
assert all(torch.allclose(a, b) for a, b in zip(by_hand, found, strict=True))  # (14.10)

# %% [markdown]
# **The dot form.** $Y = Q\,T$ and $T = K^\top V / N$ are two matrix products, and the rule for a product is that of
# the toolbox:
#
# $$\bar Q = \bar Y T^\top, \quad \bar T = Q^\top \bar Y, \quad \bar K = \tfrac1N V \bar T^\top, \quad
# \bar V = \tfrac1N K \bar T \tag{14.11}$$
#
# Nothing here is $N \times N$: the way back is as cheap as the way forth.

# %%
def dot_attention(q, k, v):
    return q @ (k.T @ v) / len(k)

def dot_backward(dY, q, k, v):
    T, dT = k.T @ v / len(k), q.T @ dY
    return dY @ T.T, v @ dT.T / len(k), k @ dT / len(k)

found = torch.autograd.grad(dot_attention(*leaves), leaves, dY)
by_hand = dot_backward(dY, Q, K, V)
assert all(torch.allclose(a, b) for a, b in zip(by_hand, found, strict=True))  # (14.11)

# %% [markdown]
# **The block around it.** In $Z = X + Y W_z^\top$ the gradient that arrives goes three ways: straight on to $X$ (the
# residual), to $W_z$, and to $Y$. Behind $Y$, the rows of $X$ have been used three times, as queries, keys and
# values, and the parts add up.

# %%
def block_by_hand(attend, X, W_theta, W_phi, W_g, W_z):
    return X + attend(X @ W_theta.T, X @ W_phi.T, X @ W_g.T) @ W_z.T

def block_backward(attend, attend_backward, dZ, X, W_theta, W_phi, W_g, W_z):
    q, k, v = X @ W_theta.T, X @ W_phi.T, X @ W_g.T
    dq, dk, dv = attend_backward(dZ @ W_z, q, k, v)
    of_maps = {"W_theta": dq.T @ X, "W_phi": dk.T @ X, "W_g": dv.T @ X}
    dX = dZ + dq @ W_theta + dk @ W_phi + dv @ W_g
    return {"X": dX, **of_maps, "W_z": dZ.T @ attend(q, k, v)}

# %% [markdown]
# We hold the whole of it against autograd and against central differences, which know nothing of any derivative: five
# places with four channels, three inside, random numbers, once for each form.

# %%
from functools import partial
from attnlib.lab.gradients import compare_gradients

torch.manual_seed(1)
sizes = {"X": (5, 4), "W_theta": (3, 4), "W_phi": (3, 4), "W_g": (3, 4), "W_z": (4, 3)}
inputs = {name: torch.randn(size).double() for name, size in sizes.items()}

# %%
compared = {}
for name, form in {"Euclidean": (euclidean_attention, euclidean_backward),
                   "dot": (dot_attention, dot_backward)}.items():
    forth, back = partial(block_by_hand, form[0]), partial(block_backward, *form)
    compared[name] = compare_gradients(forth, back, inputs)
compared = pd.concat(compared)
assert compared["hand = autograd"].all() and compared["hand = differences"].all()
compared

# %% [markdown]
# ### A block that starts as the identity
#
# A non-local block is often put into a network that has been trained already. So that it does no harm at first, the
# paper puts a batch norm behind $W_z$ and starts its scale at $\gamma = 0$ (and its shift at $\beta = 0$). Then $z =
# x$ exactly, and the gradient passes through as if the block were not there. But the batch norm multiplies whatever
# comes back through it by $\gamma$:
#
# $$\gamma = \beta = 0 \;\Rightarrow\; z = x, \quad \bar x = \bar z, \quad
# \overline{W}_{\!z} = \overline{W}_{\!\theta} = \overline{W}_{\!\phi} = \overline{W}_{\!g} = 0 \tag{14.12}$$
#
# **Predict:** if all four matrices get no gradient, how can the block ever learn anything?

# %%
fresh, moment = NonLocal(4).double().train(), torch.randn(2, 4, 3, 3).double().requires_grad_()
upstream = torch.randn(2, 4, 3, 3).double()
(fresh(moment) * upstream).sum().backward()
moves = lambda: [name for name, p in fresh.named_parameters() if p.grad.abs().max() > 1e-9]
assert torch.equal(fresh(moment), moment) and torch.equal(moment.grad, upstream)  # (14.12)
print("the first step moves:", moves())
assert moves() == ["norm.weight", "norm.bias"]

# %%
torch.optim.SGD(fresh.parameters(), lr=0.1).step()
fresh.zero_grad()
(fresh(moment) * upstream).sum().backward()
print("the second step moves:", moves())
assert {"theta.weight", "phi.weight", "g.weight", "W_z.weight", "theta.bias"} < set(moves())

# %% [markdown]
# **What to see.** The first step moves $\gamma$ and $\beta$ only, for their gradients do not contain $\gamma$. From
# the second step on the matrices learn: the block wakes up one step late. And look at the second list: of the four
# biases only that of $\theta$ is in it. Part 7 says why.

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# We put a block with the embedded Gaussian behind the convolutions of 08's small network and train it on the cards,
# as 08 trained its gate. A card is 16 x 8 pixels, so there are $N = 128$ places, and each has a map of its own.

# %%
from attnlib.lab.data import cued_digits
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

cards, new_cards = cued_digits(2000, split="train", seed=0), cued_digits(500, split="test", seed=1)
net = learn(cards, lambda: NonLocal(16), seed=0, groups=2)
share = accuracy(net, new_cards)
print("right on more than six in ten of the new cards:", share > 0.6)

# %% [markdown]
# The four chosen places of the first new card are: in the square, in an empty corner, and two in the digits' half.
# **Predict:** where does each look? Remember what the network has to find out: on which side the square is. (Bright
# yellow is a tenth of the weight or more.)

# %%
with torch.no_grad():
    card_maps = net.attention.weights(net.features(new_cards.images))  # (cards, 128, 128)

def draw_map(card, row, column, ax):
    values = card_maps[card, 8 * row + column].view(16, 8)
    heatmap(values, ax=ax, limits=(0, 0.1), colorbar=False)
    ax.plot(column, row, "s", color="red", fillstyle="none", ms=9, mew=2)
    ax.set(xticks=[], yticks=[], title=f"from ({row}, {column})", aspect="equal")

# %%
from attnlib.lab.plots import pictures

fig, axes = plt.subplots(1, 6, figsize=(9, 3.2))
pictures(new_cards.images[0], ["side 0", "side 1"], axes=axes[:2])
for ax, place in zip(axes[2:], [(1, 1), (1, 6), (10, 3), (13, 4)], strict=True):
    draw_map(0, *place, ax)
show(fig, alt="A card's two sides, and the attention maps of four of its places, each marked by a "
     "red square.")

# %% [markdown]
# **What to see.** Each place has a map of its own, and the maps differ. The place in the square and the last one look
# at a few spots of the digits. The other two, in the empty corner and in the digits' half, look at the square's
# corner, among others.

# %%
corner, lower_half = torch.zeros(2, 16, 8, dtype=torch.bool)
corner[:5, :5], lower_half[8:] = True, True
of_square, of_empty, of_digits, of_stroke = (card_maps[0, 8 * row + column].view(16, 8)
                                             for row, column in [(1, 1), (1, 6), (10, 3), (13, 4)])
assert min(of_square[lower_half].sum(), of_stroke[lower_half].sum()) > 0.6
at_corner = [seen[corner].sum() for seen in (of_empty, of_digits, of_square, of_stroke)]
assert min(at_corner[:2]) > 3 * max(at_corner[2:])

# %% [markdown]
# But a single card is an anecdote, and a bright pixel in a map says that something was *read* there, not that it was
# *used*. So we intervene. We forbid the places of the lower half, where the digits are, to look at the 5 x 5 places of
# the square's corner; their other weights are scaled up to sum to 1 again. Then the other way round: the corner may
# not look at the lower half. Nothing is trained again.
#
# **Predict:** which of the two cuts hurts? What accuracy will be left?

# %%
@torch.no_grad()
def read_with(weights, norm=None, of=net):
    block, x = of.attention, of.features(new_cards.images)
    _, _, v = block.queries_keys_values(x)
    z = x + (norm or block.norm)(block.W_z((weights @ v).mT.unflatten(2, (16, 8))))
    logits = of.read(F.avg_pool2d(z, 4).flatten(1))
    return (logits.argmax(1) == new_cards.labels).double().mean().item()

# %%
def cut(queries, keys, maps=card_maps):
    left = maps.masked_fill(queries.flatten()[:, None] & keys.flatten(), 0)
    return left / left.sum(2, keepdim=True)

digits_blind, corner_blind = cut(lower_half, corner), cut(corner, lower_half)
live = [read_with(maps) for maps in (card_maps, digits_blind, corner_blind)]

# %% [markdown]
# This is one network. `notebooks/runs/14_non_local.py` has trained ten, with this recipe and the seeds 0 to 9, and
# stored what we measure here for each of them; ours should be near the first row.

# %%
from attnlib.lab.data import load_results

stored = load_results("14_cards")
embedded = stored[stored["variant"] == "embedded"].set_index("seed")
first = embedded.loc[0, ["accuracy", "digits_blind", "square_blind"]]
gaps = [abs(a - b) for a, b in zip(live, first, strict=True)]
print("the live run is near its stored row:", max(gaps) < 0.15)

# %%
from attnlib.lab.plots import by_seed

columns = {"as trained": "accuracy", "digits do not\nsee the corner": "digits_blind",
           "corner does not\nsee the digits": "square_blind", "one map\nfor all": "with_one_map"}
values = {name: list(embedded[column]) for name, column in columns.items()}
ax = by_seed(values, ax=plt.subplots(figsize=(6.4, 2.4))[1], limit=0.75, label="accuracy")
ax.set(ylim=(0, 1))
show(ax.figure, alt="Accuracy of ten networks: as trained near 0.84; digits blind to the corner "
     "mostly near 0.45; corner blind to the digits near 0.78; with one map near 0.33.")

# %% [markdown]
# **What to see.** It is the digits that read the square. When they may not look at the corner, the accuracy falls
# from 0.84 to 0.50 on average, and with six of the ten seeds to where a network without any far reach stays (0.48 and
# below). When the corner may not look at the digits, 0.78 is left. In every one of the ten networks the first cut
# hurts more than the second. In two of them, seeds 6 and 7 (0.73 and 0.65), a good part survives the first cut.

# %%
mean = embedded[list(columns.values())].mean()
print({name.replace("\n", " "): f"{mean[column]:.2f}" for name, column in columns.items()})
assert list(mean.round(2)) == [0.84, 0.50, 0.78, 0.33]
assert (embedded["digits_blind"] < embedded["square_blind"]).all()
assert (embedded["digits_blind"] < 0.48).sum() == 6
assert list(embedded.index[embedded["digits_blind"] > 0.6]) == [6, 7]

# %% [markdown]
# How do the digits of these two still learn where the square is? Our cut was too small. The square fills 4 x 4 pixels,
# and a unit sees two pixels further than itself: the places of row 5 and of column 5 see its edge too, and a block may
# look at that rim instead. We train the network of seed 6 once more, and hide from its digits first 5 x 5 places, as
# above, and then all 6 x 6.

# %%
seed_6, wide_corner = learn(cards, lambda: NonLocal(16), seed=6, groups=2), torch.zeros_like(corner)
wide_corner[:6, :6] = True
with torch.no_grad():
    maps_6 = seed_6.attention.weights(seed_6.features(new_cards.images))
hidden = [read_with(cut(lower_half, keys, maps_6), of=seed_6) for keys in (corner, wide_corner)]
print("right on more than half: 5 x 5 hidden", hidden[0] > 0.5, "· 6 x 6 hidden", hidden[1] > 0.5)
assert hidden[0] > 0.5 > hidden[1]

# %% [markdown]
# With the rim hidden as well, this network fails like the others: an intervention must cut *every* way that it speaks
# of. (The stored column has the smaller cut for all ten, so its 0.50 is probably too kind.)

# %% [markdown]
# One doubt remains. The batch norm behind $W_z$ subtracts means that it gathered with the old maps; does the network
# fail only because they no longer fit? With statistics taken anew from the cards in front of it, our network still
# fails when the digits are blind, and still reads when nothing is cut.

# %%
norm = net.attention.norm
anew = lambda u: F.batch_norm(u, None, None, norm.weight, norm.bias, training=True)
with_new_statistics = [read_with(card_maps, anew), read_with(digits_blind, anew)]
print("new statistics: whole above 3/4, digits blind below 0.6:",
      with_new_statistics[0] > 0.75, with_new_statistics[1] < 0.6)
assert with_new_statistics[0] > 0.75 > 0.6 > with_new_statistics[1]

# %% [markdown]
# ### Does the map depend on the query at all?
#
# The authors of GCNet ([arXiv 1904.11492](https://arxiv.org/abs/1904.11492)) drew the maps of trained non-local
# networks on photographs and found that different queries had nearly the same map. If that is so, $N$ maps are a
# waste, and one would do. We measure it in two ways.
#
# *How far apart are two maps?* Both are shares, so take half the sum of their absolute differences: 0 if they are
# equal, 1 if no place has a share in both. The mean over all pairs of queries is
#
# $$\text{apart} = \frac{1}{N(N-1)} \sum_{i \ne k} \frac12 \sum_j \lvert P_{ij} - P_{kj} \rvert .$$
#
# *Does it matter?* Give all places the mean of their maps, without training again, and look at the accuracy: the last
# column of the figure.

# %%
def apart(P):
    n = P.shape[1]
    return torch.stack([torch.cdist(p, p, p=1).sum() / (2 * n * (n - 1)) for p in P]).mean().item()

same, different = torch.full((1, 5, 5), 1 / 5), torch.eye(5)[None]
assert apart(same) == 0 and abs(apart(different) - 1) < 1e-6
print("our network's maps are apart by more than 0.3:", apart(card_maps[:50]) > 0.3)

# %%
digit_runs = load_results("14_digits")
block_runs = digit_runs[digit_runs["variant"] == "embedded"]
for name, group in {"cards": embedded, "digits": block_runs}.items():
    start_, end, one = (group[column] for column in ("apart_at_start", "apart", "with_one_map"))
    print(f"{name}: apart {start_.mean():.3f} before training, {end.mean():.2f} after it "
          f"({end.min():.2f} to {end.max():.2f});",
          f"one map for all costs {100 * (group['accuracy'] - one).mean():.0f} points")

# %%
losses = 100 * (block_runs["accuracy"] - block_runs["with_one_map"])
assert [round(losses.min(), 1), round(losses.max(), 1)] == [0.2, 8.8]
assert embedded["with_one_map"].max() < stored.query("variant == 'plain'")["accuracy"].mean()

# %% [markdown]
# **What to see.** A fresh block has the same map for every query: all scores are near 0, so everybody asks everybody
# alike. Training drives the maps apart, on the cards (0.59) and on the digits (0.64) alike: on these small tasks we
# do **not** find that the maps hardly depend on the query. But that they differ does not mean that the difference is
# needed. On the cards it is: with one map for all the network falls to 0.33, below one that never had a block. On the
# digits one map does nearly as well as 64, for 2 points on average (with one seed 0.2, with another 8.8). So a
# picture of different maps proves little either way. Whether their difference *matters* shows when one takes it away.
# Part 10 trains a network that has one map from the start.

# %% [markdown]
# ### The signature
#
# Notebook [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb) draws for each mechanism which
# *channels* and which *places* an output listens to: root mean squares of the Jacobian, bright for strong.
# **Predict** the two pictures of a non-local block, before you look; and those of a bare weighted average, without
# $g$ and $W_z$, whose weights are held still.

# %%
from attnlib.lab.signatures import draw_signature, signature

as_rows = lambda x: x.flatten(2).mT
gaussian = lambda x: (-torch.cdist(as_rows(x), as_rows(x)).square() / 2).softmax(2)
still = lambda x: (gaussian(x).detach() @ as_rows(x)).mT.reshape(x.shape)
moving = lambda x: (gaussian(x) @ as_rows(x)).mT.reshape(x.shape)
small, a_block = torch.randn(1, 4, 3, 3).double(), NonLocal(4, norm=False).double()
signatures = {"block": a_block, "average, weights still": still, "average": moving}

# %%
fig, axes = plt.subplots(2, 3, figsize=(6.6, 4.2))
signatures = {name: signature(f, small) for name, f in signatures.items()}
for column, (name, found) in zip(axes.T, signatures.items(), strict=True):
    draw_signature(found, axes=column, title=name)
show(fig, alt="Signatures, channels above and places below. The block: everything listens to "
     "everything. The average with still weights: channels a pure diagonal, places full.")

# %%
of_block = signatures["block"]
assert (of_block.channels > 0).all() and (of_block.places > 0).all()
held = signatures["average, weights still"]
assert torch.equal(held.channels > 0, torch.eye(4) > 0) and (held.places > 0).all()
assert (signatures["average"].channels > 0).all()

# %% [markdown]
# **What to see.** In the block everything listens to everything, with a bright diagonal of places: the residual. The
# average with its weights held still has a diagonal of channels: each channel is averaged for itself. When the
# weights move too, other channels do have a say, but only in *how much* each place counts. Part 11 comes back to
# that.
#
# ### Choose the query yourself
#
# Another card, and the map of one of its places. First one place by hand; then, with a running kernel, move the
# sliders.

# %%
def explore(row=1, column=1):
    fig, axes = plt.subplots(1, 3, figsize=(4.6, 3))
    pictures(new_cards.images[1], ["side 0", "side 1"], axes=axes[:2])
    draw_map(1, row, column, axes[2])
    show(fig, alt=f"The two sides of a card and the attention map of the place ({row}, {column}).")

explore(11, 3)

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, row=(0, 15), column=(0, 7));

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | official code | popular copies |
# |---|---|---|---|
# | scale of the scores | none in (2) to (4) | $1/\sqrt d$, with $d = C/2$ | AlexHex7: none; timm: $1/\sqrt C$, with $d = C/8$ |
# | sub-sampling | $2 \times 2$ max pooling of what $\phi$ and $g$ are given | the same | AlexHex7 pools behind $\phi$ and $g$; timm does not pool |
# | biases | none in the formulas | in all four convolutions | – |
# | batch norm | behind $W_z$, $\gamma = 0$ | the same | the same |
# | Euclidean form | not there | not there | told on the web, part 11 |
#
# **The scale.** The library has an argument for it. With $1/\sqrt d$ the weights are those of 02's
# `dot_product_attention` with its own default. With timm's choice the scores are smaller by another factor of
# $\sqrt{C/d} = \sqrt 8$.

# %%
scaled = NonLocal(16, inner=8, scale=8**-0.5).double()
wide = torch.randn(2, 16, 3, 4).double()
by_default = dot_product_attention(*scaled.queries_keys_values(wide))[1]
assert torch.allclose(scaled.weights(wide), by_default)
assert abs((64 // 8) ** -0.5 / 64**-0.5 - 8**0.5) < 1e-12

# %% [markdown]
# **Pooling.** Keys and values from a map pooled to $H/2 \times W/2$ leave a quarter of the pairs. The order of the
# two steps matters: the largest of four sums is not the sum of the largest, so a maximum and a linear map do not
# commute, unless the map does nothing but scale by a positive number. Weights that were trained with one order do not
# fit the other.

# %%
phi = nn.Conv2d(16, 8, 1).double()
before, after = phi(F.max_pool2d(wide[:, :, :2], 2)), F.max_pool2d(phi(wide[:, :, :2]), 2)
assert before.shape == after.shape and not torch.allclose(before, after, atol=0.1)
assert torch.allclose(F.max_pool2d(2 * wide, 2), 2 * F.max_pool2d(wide, 2))
assert NonLocal(16, pool=True).double().weights(wide[:, :, :2]).shape == (2, 8, 2)

# %% [markdown]
# **Biases.** The official code gives all four convolutions a bias. Add $b$ to all keys: its gradient is the sum of all
# keys' gradients. With the scores $q_i \cdot k_j$ these are $\bar k_j = \sum_i \bar S_{ij}\, q_i$, and by (14.9)
#
# $$\bar b = \sum_j \bar k_j = \sum_j \sum_i \bar S_{ij}\, q_i = \sum_i \Big( \sum_j \bar S_{ij} \Big) q_i = 0 \tag{14.13}$$
#
# **The bias of $\phi$ never learns**: it adds $q_i \cdot b$ to a whole row of scores. The bias of $g$ adds the same
# vector to every $y_i$, since the shares sum to 1, and that of $W_z$ adds the same number to a channel everywhere; in
# training the batch norm behind them subtracts both again. Of the $3C/2 + C$ biases only the $C/2$ of $\theta$ can
# matter. In the Euclidean form the bias of $\phi$ does learn, and always by the opposite of what that of $\theta$
# does, because only the difference of the two enters.

# %%
def bias_gradients(similarity):
    torch.manual_seed(2)
    block = NonLocal(4, similarity=similarity, zero_start=False).double().train()
    (block(moment.detach()) * upstream).sum().backward()
    return {name: getattr(block, name).bias.grad for name in ("theta", "phi", "g", "W_z")}

found = bias_gradients("embedded")
assert found["phi"].abs().max() < 1e-9 < 1e-3 < found["theta"].abs().max()  # (14.13)
assert max(found["g"].abs().max(), found["W_z"].abs().max()) < 1e-9

# %%
found = bias_gradients("euclidean")
print("Euclidean: phi's bias gets the opposite of theta's gradient:",
      torch.allclose(found["phi"], -found["theta"]))
assert torch.allclose(found["phi"], -found["theta"]) and found["phi"].abs().max() > 1e-3

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# Four $1 \times 1$ convolutions between $C$ and $C/2$ channels, with biases, and a batch norm; then the pairs. Count
# them before you read on.
#
# ### Exercise 14.2 · the price · *Core* · 10 minutes
#
# Return two numbers: the parameters of a non-local block (embedded Gaussian, $d = C/2$, biases in all four
# convolutions, batch norm behind $W_z$), and its multiply-accumulates (MACs) for one image of `height` x `width`
# places. With `pool`, keys and values come from the map that was max-pooled 2 x 2 before $\phi$ and $g$. Biases,
# norm, pooling and softmax do not count as MACs. All sizes are even.
#
# <details><summary>Hint 1</summary>
#
# Parameters: weights of four convolutions, a bias for each output of each, and two numbers a channel for the norm.
#
# </details>
# <details><summary>Hint 2</summary>
#
# MACs: each weight of a convolution is used at every place it runs on. The scores take $N M d$ for $N$ queries and
# $M$ keys, and the averages as many again.
#
# </details>
# <details><summary>Hint 3</summary>
#
# With pooling $M = HW/4$; $\theta$ and $W_z$ run on $N$ places, $\phi$ and $g$ on $M$. In all: $(N + M)\,C^2 + N M
# C$.
#
# </details>

# %% tags=["exercise"]
def non_local_price(channels, height, width, pool):
    """-> parameters, MACs of one image."""
    raise NotImplementedError

non_local_price = check("14.2", non_local_price)

# %% tags=["solution"]
def non_local_price(channels, height, width, pool):
    C, d, N = channels, channels // 2, height * width
    M = N // 4 if pool else N
    parameters = 4 * C * d + 3 * d + C + 2 * C
    return parameters, 2 * (N + M) * C * d + 2 * N * M * d

# %% [markdown]
# Without pooling, and written out with $d = C/2$:
#
# $$\text{parameters} = 2C^2 + \tfrac32 C + C + 2C, \qquad \text{MACs} = 2\,C^2\, HW + (HW)^2\, C \tag{14.14}$$
#
# Of the MACs the first term is like that of any convolution, the second is the price of asking everybody. They are
# equal where $HW = 2C$. On the maps of ResNet-50 with 512 channels of 28 x 28 places the pairs cost about three
# quarters of what the convolutions cost; on those with 1024 channels of 14 x 14, a tenth. The paper's network with
# five blocks has two of the former and three of the latter.

# %%
for C, size in [(64, 8), (96, 5)]:
    counted = NonLocal(C), torch.randn(1, C, size, size)
    assert count_parameters(counted[0]) == 2 * C**2 + 3 * C // 2 + C + 2 * C  # (14.14)
    assert count_macs(*counted) == 2 * C**2 * size**2 + size**4 * C
pooled = count_macs(NonLocal(64, pool=True), torch.randn(1, 64, 8, 8))
assert pooled == non_local_price(64, 8, 8, True)[1]

# %%
(p_512, macs_512), (p_1024, macs_1024) = [non_local_price(*sizes, False)
                                          for sizes in [(512, 28, 28), (1024, 14, 14)]]
of_convolutions = 2 * 512**2 * 28**2  # and 2 * 1024**2 * 14**2 is the same number
print(f"five blocks: {2 * p_512 + 3 * p_1024:,} parameters")
assert 2 * p_512 + 3 * p_1024 == 7_358_464
assert round((macs_512 - of_convolutions) / of_convolutions, 2) == 0.77
assert round((macs_1024 - of_convolutions) / of_convolutions, 2) == 0.1

# %% [markdown]
# ### Memory
#
# For training, the plain form keeps the $N \times N$ weights until the backward pass. Notebook 02 has a remedy: walk
# over the keys in chunks with an online softmax, and compute the weights again on the way back. PyTorch's fused
# operator `scaled_dot_product_attention` does the same. And the dot form in its cheap order never has them. The cell
# counts the bytes that autograd keeps, for one image with $d = 8$.
#
# **Predict:** the map's side doubles. By what factor does the memory of each of the four forms grow?

# %%
from attnlib.lab.cost import saved_bytes
from attnlib.sequence.dot_product import chunked_attention

plain_form = lambda q, k, v: dot_product_attention(q, k, v, scale=1.0)[0]
chunked = lambda q, k, v: chunked_attention(q, k, v, scale=1.0)
fused = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0)
ways = {"plain": plain_form, "fused": fused, "in chunks": chunked, "dot, cheap order": ByChannels()}

# %%
sides, kept = [8, 16, 32, 64], {name: [] for name in ways}
for side in sides:
    q, k, v = torch.randn(3, 1, 1, side**2, 8)  # an axis for the batch, and one for the heads
    for name, way in ways.items():
        inputs = (q, k, v) if name != "dot, cheap order" else (q[0, 0], k[0, 0], v[0, 0])
        kept[name].append(saved_bytes(way, *inputs))

# %%
ax = plt.subplots(figsize=(6.4, 2.4))[1]
for (name, sizes), style in zip(kept.items(), ("o-", "s-", "^--", "v-"), strict=True):
    ax.loglog([side**2 for side in sides], sizes, style, label=name)
ax.set(xlabel="places HW", ylabel="bytes kept")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(ax.figure, alt="Bytes kept for the backward pass over the number of places, both axes "
     "logarithmic: the plain form is twice as steep as the others and highest, the dot form flat.")

# %%
growth = {name: kept[name][-1] / kept[name][-2] for name in ways}
print("four times the places:", {name: f"x {round(g)}" for name, g in growth.items()})
assert growth["plain"] > 15 and growth["fused"] < 5 and growth["in chunks"] < 5
assert kept["plain"][-1] > 100 * max(kept["fused"][-1], kept["in chunks"][-1])
assert round(kept["plain"][-1] / 1e6) == 67 and kept["dot, cheap order"][-1] < 1000
three_axes, wider = (q[0], k[0], v[0]), (q, k, torch.cat([v, v], -1))
assert min(saved_bytes(fused, *given) for given in (three_axes, wider)) > 0.9 * kept["plain"][-1]

# %% [markdown]
# **What to see.** The plain form grows with the square of the places: at 64 x 64 it keeps 67 MB for a single image
# and a single head, more than a hundred times what the other softmax forms keep. Those grow in proportion to the
# places. The dot form keeps next to nothing beyond its inputs, whatever the map's size. (The *time* of the fused and
# the chunked form still grows with the square: they save memory, not arithmetic. And in the version that the
# course pins, PyTorch takes the fused way on a CPU only for inputs with four axes: batch, heads, places, features. With
# three it falls back to the plain form, and so it does for keys and values of different widths. The library's block
# brings its tensors into that form first.)
#
# ### Fewer pairs: expectation-maximisation attention
#
# A feature map of thousands of places seldom shows thousands of different things. So let the places ask not each
# other but $K$ **bases**, $K \ll N$: put $\mu$, a table of $K$ rows with $C$ channels, in the place of both keys and
# values. The weights of (14.3), now $N \times K$, get a name of their own, the *responsibilities*:
#
# $$R = \mathrm{softmax}\big(X \mu^\top\big) \;\text{(each row)}, \qquad \hat X = R\, \mu \tag{14.15}$$
#
# Where do the bases come from? From the map itself: let each basis be the mean of the places that belong to it, each
# counted by how much it does, and then give it length 1:
#
# $$m_k = \frac{\sum_n R_{nk}\, x_n}{\sum_n R_{nk}}, \qquad \mu_k = \frac{m_k}{\lvert m_k \rvert} \tag{14.16}$$
#
# But $R$ depends on $\mu$, and $\mu$ on $R$. So take turns: (14.15), the *E step*, and (14.16), the *M step*, are
# repeated $T = 3$ times, and $\hat X$ is built at the end from the last of both. This is **soft k-means with dot products**: assign the places to centres, move the centres,
# repeat. (And since all bases have one length, (14.5) tells us that distances would give the same responsibilities.)
#
# ### Exercise 14.3 · one round · *Depth* · 10 minutes
#
# Write one E step and one M step. `x` is (n, c), one row a place; `mu` is (K, c). Return the responsibilities (n, K)
# and the new bases (K, c).
#
# <details><summary>Hint 1</summary>
#
# The softmax of the E step runs over the bases: each place shares itself out.
#
# </details>
# <details><summary>Hint 2</summary>
#
# All sums over $n$ at once are `R.T @ x`, of shape (K, c). The sums of the responsibilities are `R.sum(0)`, one for
# each basis.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `m = R.T @ x / R.sum(0)[:, None]`, and then `m / m.norm(dim=1, keepdim=True)`.
#
# </details>

# %% tags=["exercise"]
def one_round(x, mu):
    """x (n, c), mu (K, c) -> responsibilities (n, K) and new bases (K, c)."""
    raise NotImplementedError

one_round = check("14.3", one_round)

# %% tags=["solution"]
def one_round(x, mu):
    R = (x @ mu.T).softmax(1)
    m = R.T @ x / R.sum(0)[:, None]
    return R, m / m.norm(dim=1, keepdim=True)

# %% [markdown]
# The library's module has a $1 \times 1$ convolution in front, a ReLU and another convolution with a batch norm
# behind, then the residual and a last ReLU. Between the two convolutions are our rounds.

# %%
from attnlib import ExpectationMaximizationAttention

emau = ExpectationMaximizationAttention(8, bases=3, iterations=3).double()
with torch.no_grad():
    eight = torch.randn(1, 8, 6, 5).double()
    mu, x_in = emau.mu, emau.conv_in(eight)[0].flatten(1).T
    for _ in range(3):
        R, mu = one_round(x_in, mu)
    theirs = emau.expectation_maximization(eight)

# %%
shares, bases, start_bases = theirs[0][0], theirs[1][0], emau.mu
assert torch.allclose(shares, R) and torch.allclose(bases, mu)
R_1, mu_1 = one_round(x_in, start_bases)
assert torch.allclose(R_1, (x_in @ start_bases.T).softmax(1))  # (14.15)
m_1 = torch.stack([(R_1[:, k, None] * x_in).sum(0) / R_1[:, k].sum() for k in range(3)])
assert torch.allclose(mu_1, m_1 / m_1.norm(dim=1)[:, None])  # (14.16)

# %% [markdown]
# ### What K bases can hold, and what they do hold
#
# Two bounds follow from the form of $\hat X = R\mu$. It is a product with a waist of $K$ (question 14.c); and each of
# its rows is an average of vectors of length 1, which is at most as long as the longest of them:
#
# $$\mathrm{rank}(\hat X) \le K, \qquad \lvert \hat x_n \rvert \le 1 \tag{14.17}$$

# %%
rebuilt = R @ mu
rank = lambda table: int(torch.linalg.matrix_rank(table, rtol=1e-9))
assert rank(rebuilt) <= 3 and rebuilt.norm(dim=1).max() <= 1  # (14.17)
print("rank of X:", rank(x_in), "and of R mu:", rank(rebuilt))

# %% [markdown]
# How good is the rebuilt map? There is a limit that no product with a waist of $K$ can pass. Write $X$ by its
# singular values $s_1 \ge s_2 \ge \dots$; the theorem of Eckart and Young says that the best approximation of rank
# $K$ keeps the first $K$ of them, and (the cell checks the right-hand side; that nothing of rank $K$ is better is the
# theorem)
#
# $$\min_{\mathrm{rank}(\hat X) \le K} \sum_{n,c} (X_{nc} - \hat X_{nc})^2 = s_{K+1}^2 + s_{K+2}^2 + \dots \tag{14.18}$$
#
# We take the feature maps of 20 digits, behind the convolutions of a small network that was trained on digits (64
# places, 16 channels), and compare the relative error $\lvert X - \hat X \rvert / \lvert X \rvert$, where the bars
# stand for the root of the sum of squares, for
#
# 1. the best of rank $K$, by (14.18);
# 2. the best that could be made of the *bases* that EM finds: least squares, any weights;
# 3. $R\mu$ times the one number that suits it best;
# 4. $R\mu$ as it is.
#
# **Predict** the order, and which gap is the largest.

# %%
from attnlib.lab.data import load_digits

digits, new_digits = load_digits("train"), load_digits("test")
digit_net = learn(digits, seed=0)
with torch.no_grad():
    tables = digit_net.features(new_digits.images[:20]).flatten(2).mT.double()

def error(x, rebuilt):
    return ((x - rebuilt).norm() / x.norm()).item()

# %%
def candidates(x, K):
    mu, (U, s, Vt) = F.normalize(torch.randn(K, 16).double(), dim=1), torch.linalg.svd(x, False)
    for _ in range(3):
        R, mu = one_round(x, mu)
    best, from_bases = U[:, :K] * s[:K] @ Vt[:K], x @ torch.linalg.pinv(mu) @ mu
    assert abs((x - best).square().sum() - s[K:].square().sum()) < 1e-6  # (14.18)
    factor = (x * (R @ mu)).sum() / (R @ mu).square().sum()
    return best, from_bases, factor * R @ mu, R @ mu

# %%
torch.manual_seed(0)
counts = [1, 2, 4, 8, 12, 16]
errors = torch.tensor([[[error(x, found) for found in candidates(x, K)] for x in tables]
                       for K in counts])
means = errors.mean(1).T  # (candidates, counts), over the 20 digits

# %%
ax = plt.subplots(figsize=(6.4, 2.4))[1]
names = ["1 best of rank K", "2 best from the bases", "3 R mu, scaled", "4 R mu"]
for values, name in zip(means, names, strict=True):
    ax.plot(counts, values, "o-", label=name)
ax.set(xlabel="bases K", ylabel="relative error", ylim=(0, 1), xticks=counts)
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(ax.figure, alt="Relative error over K. The best of rank K falls from 0.7 to 0; the best from "
     "the bases lies just above it; R mu scaled falls only to 0.7, and R mu stays at 0.9.")

# %% [markdown]
# **What to see.** The bases themselves are good: what they span is nearly as good as the best possible (curve 2 close
# above curve 1). What loses is the *reading*: shares that are positive and sum to 1 can only average the bases, and
# most of the detail is in differences. The topmost curve adds the wrong length of (14.17): rows of features here are
# several units long, $R\mu$ at most one. The convolution and the norm behind it can repair the length, and a part of
# the averaging: the best single linear map with a bias, fitted to these 20 digits, brings the error at $K = 8$ from
# 0.7 to 0.6, where the bases would allow 0.3. So EM attention does not compress a map as a singular value
# decomposition does; it paints each place in the colour of the group that it belongs to.

# %%
best, from_bases, scaled_by_one, as_it_is = means
print("errors at K = 8:", [f"{e:.1f}" for e in means[:, 3]])
assert (from_bases - best).min() > -1e-9 and (from_bases - best).max() < 0.1
assert (scaled_by_one - from_bases)[3] > 0.3 and (as_it_is - scaled_by_one).min() > 0.1
assert tables.norm(dim=2).mean() > 3 and as_it_is.min() > 0.85

# %%
painted = torch.stack([candidates(x, 8)[3] for x in tables])  # R mu of each digit
known = torch.cat([painted, torch.ones(20, 64, 1).double()], 2).flatten(0, 1)
fitted = known @ torch.linalg.pinv(known, rtol=1e-9) @ tables.flatten(0, 1)
pairs_of = zip(tables, fitted.view_as(tables), strict=True)
repaired = sum(error(x, painted_again) for x, painted_again in pairs_of) / 20
print(f"error behind the best linear map: {repaired:.1f}")
assert from_bases[3] + 0.2 < repaired < scaled_by_one[3] - 0.04

# %% [markdown]
# ### Its price, and two traps
#
# Each of the $T$ rounds has two products of $N K C$, and the rebuilding has one:
#
# $$\text{MACs without the convolutions} = (2T + 1)\, N K C \quad\text{against}\quad N^2 C \tag{14.19}$$
#
# With $T = 3$ and $K = 64$ that is $448\,NC$, linear in the places: cheaper as soon as there are more than 448 of
# them. The two convolutions and the norm have $2C^2 + 3C$ parameters.

# %%
C, side, how_many = 32, 24, 8
unit = ExpectationMaximizationAttention(C, bases=how_many)
whole_cost = count_macs(unit, torch.randn(1, C, side, side))
assert whole_cost - 2 * C**2 * side**2 == (2 * 3 + 1) * side**2 * how_many * C  # (14.19)
assert count_parameters(ExpectationMaximizationAttention(512)) == 525_824
assert (2 * 3 + 1) * 64 == 448 and 525_824 == 2 * 512**2 + 3 * 512

# %% [markdown]
# **Trap 1: gradients that stop.** The released code runs the E and M steps without gradients and rebuilds the map
# from their results alone. Then the first convolution is only ever used where nothing is recorded, and **it learns
# nothing**: it stays as it was drawn. (Asked about it, an author answered that this is no bug and works better in
# their experience.) The library differentiates through the steps; `detach=True` gives the released behaviour.
#
# **Trap 2: bases that nobody moves.** $\mu$ starts from a stored table, and that table is no parameter. It changes
# only when `update_bases` is called, once after each training step: a moving average, $\mu \leftarrow 0.9\,\mu +
# 0.1\,\mu_T$, where $\mu_T$ is the mean over the batch of what the rounds ended with.

# %%
def gradient_of_first_layer(detach):
    unit = ExpectationMaximizationAttention(8, bases=3, detach=detach).double().train()
    unit(torch.randn(2, 8, 4, 4).double()).sum().backward()
    return unit.conv_in.weight.grad

assert gradient_of_first_layer(detach=True) is None
assert gradient_of_first_layer(detach=False).abs().max() > 0

# %%
stored_bases, batch = emau.mu.clone(), torch.randn(4, 8, 6, 5).double()
emau.train()(batch)
assert torch.equal(emau.mu, stored_bases)  # a forward pass, even in training, leaves them alone
_, ended = emau.expectation_maximization(batch)
emau.update_bases(batch)
assert torch.allclose(emau.mu, 0.9 * stored_bases + 0.1 * ended.mean(0))

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# **Where it should win by construction:** the cards, where a far place must be read. **Where it need not win:** plain
# digits of 8 x 8 pixels, for which small windows will do. Ten seeds on the cards, fifteen on the digits, from the
# stored table.
#
# But a non-local block brings 584 parameters with it. Perhaps any further layer would do? So there is a third
# condition, *own place*: the same block with the same projections, in which each place keeps its own value and
# nothing is averaged, $z_i = W_z\, g(x_i) + x_i$.
#
# A rule, stated before we look: on the cards a condition counts as having **solved the game with a seed if it passes
# 3/4** (dashed), which by (8.1) of notebook 08 no network that is linear behind small windows can do. On the digits we speak of a
# difference only if the mean over the seeds lies more than **2.14 standard errors** from zero (Student's $t$ for 15
# seeds, 95%).
#
# **Predict** both pictures. Will *own place* be nearer to the plain network or to the block?

# %%
groups = stored.groupby("variant", sort=False)
by_variant = {name: list(group["accuracy"]) for name, group in groups}
on_digits = load_results("14_digits").pivot(index="seed", columns="variant", values="accuracy")
on_cards = {name: by_variant[name] for name in ("plain", "own place", "embedded")}

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.5))
ax = by_seed(on_cards, ax=axes[0], highlight="embedded", limit=0.75, label="accuracy")
ax.set(ylim=(0, 1), title="cards")
three = {name: on_digits[name] for name in ("plain", "embedded", "dot")}
by_seed(three, ax=axes[1], highlight="embedded", label="").set(ylim=(0.75, 1), title="digits")
show(fig, alt="Left, the cards: plain and own place lie near 0.45, the embedded block near 0.84. "
     "Right, digits: plain, embedded and dot overlap near 0.94; one dot run lies at 0.76.")

# %%
solved = {name: sum(value > 0.75 for value in values) for name, values in on_cards.items()}
print("seeds out of ten that pass 3/4:", solved)
assert solved == {"plain": 0, "own place": 0, "embedded": 9} and max(by_variant["own place"]) < 0.5
assert round(min(by_variant["embedded"]), 2) == 0.74

# %%
settled = load_results("14_digits").pivot(index="seed", columns="variant", values="settled")
lead = {}
for name in ("embedded", "dot"):
    for how, accuracies in {"as trained": on_digits, "settled": settled}.items():
        d = 100 * (accuracies[name] - accuracies["plain"])
        lead[name, how] = round(d.mean(), 1), round(abs(d.mean() / d.sem()), 1)
        print(f"{name}, {how}: {d.mean():+.1f} points, standard error {d.sem():.1f}")

# %%
assert list(lead.values()) == [(-1.0, 1.6), (-0.3, 1.0), (-0.5, 0.4), (0.1, 0.1)]
assert round(on_digits["dot"].min(), 2) == 0.76 and on_digits["dot"].idxmin() == 10
assert round(settled["dot"][10], 2) == 0.93

# %% [markdown]
# **What to see.** On the cards the block passes 3/4 with nine of ten seeds (the tenth stops at 0.74). *Own place* has
# all its parameters and stays where the plain network is (by (8.1) it could not have passed 3/4): what helps is not
# the further layer but the look at other places. On the digits the block is behind by 1.0 points, which is 1.6
# standard errors, and the dot form by 0.5, which is 0.4. By our rule: **no difference found**. One of the fifteen dot
# runs ended at 76%, far below all others. Its weights are not to blame. The batch norms' running statistics (toolbox,
# page 5) follow the training with a lag, and here they lagged far behind. We passed the training data through it
# twice more, in training mode and with all weights held, and the same weights read 93%. With all networks *settled*
# like that the differences are $-0.3$ and $+0.1$ points: no difference again, and a warning how much of a spread
# between seeds may come from an average that lags.
#
# For comparison: the channel gate of notebook 08 reaches 0.90 on the same cards with the same recipe, with nearly as
# many parameters (544 against 584) and a 640th of the arithmetic. The game can be won without asking who stands
# where. Real images are the subject of notebook 17, [17_face_off](17_face_off.ipynb).

# %%
from attnlib import SqueezeExcitation

gate, far, card_map = SqueezeExcitation(16, reduction=1), NonLocal(16), torch.randn(1, 16, 16, 8)
assert (count_parameters(gate), count_parameters(far)) == (544, 584)
assert count_macs(far, card_map) / count_macs(gate, card_map) == 640
rows_of_08 = load_results("08_cards").query("variant == 'r = 1' and epochs == 8")
assert round(rows_of_08["accuracy"].mean(), 2) == 0.90

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 14.4 · bug gallery · *Depth* · 10 minutes
#
# On the web one finds a "non-local attention" that weighs all pixels by their Euclidean distance. Below is our
# smallest form of it. It runs, and it is wrong in two ways. Find them, and change as little as you can: keep the
# distance, and let the result be a proper non-local operation in the sense of (14.4) and (14.2), without projections.
#
# ```python
# def forward(x):
#     X = x.flatten(2).mT
#     distance = torch.cdist(X, X)                      # (b, n, n): |x_i - x_j|
#     weights = distance / distance.sum(2, keepdim=True)
#     return (weights @ X).mT.reshape(x.shape)
# ```
#
# <details><summary>Hint 1</summary>
#
# Print the weights of one pixel. Which pixel gets the largest? What does the pixel give itself?
#
# </details>
# <details><summary>Hint 2</summary>
#
# A similarity must *fall* with the distance: (14.4) has $e^{-\lvert q_i - k_j \rvert^2/2}$, divided by its sum. And
# compare the last line with (14.2).
#
# </details>
# <details><summary>Hint 3</summary>
#
# The weights become `(-distance.square() / 2).softmax(2)`, and the last line starts with `return x + `.
#
# </details>

# %% tags=["exercise"]
def mended(x):
    """x (b, c, h, w) -> x plus its averages, weighted by the Gaussian of the distances."""
    raise NotImplementedError

mended = check("14.4", mended)

# %% tags=["solution"]
def mended(x):
    X = x.flatten(2).mT
    weights = (-torch.cdist(X, X).square() / 2).softmax(2)
    return x + (weights @ X).mT.reshape(x.shape)

# %% [markdown]
# ### The farthest pixel wins
#
# Used raw, the distance turns the idea round. Each pixel gives itself nothing, and most to whatever is least like it:
#
# $$w_{ij} = \frac{\lvert x_i - x_j \rvert}{\sum_l \lvert x_i - x_l \rvert} \;\Rightarrow\; w_{ii} = 0, \qquad
# \arg\max_j w_{ij} = \arg\max_j \lvert x_i - x_j \rvert \tag{14.20}$$
#
# The picture shows a digit, and for one pixel of its stroke both weightings, over the 16 features that the network of
# part 8 makes of it.

# %%
with torch.no_grad():
    digit_rows = as_rows(digit_net.features(new_digits.images[:1]).double())[0]
exactly = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
distances = exactly(digit_rows, digit_rows)
raw = distances / distances.sum(1, keepdim=True)
assert (raw.diagonal() == 0).all() and torch.equal(raw.argmax(1), distances.argmax(1))  # (14.20)
by_gaussian = (-distances.square() / 2).softmax(1)
assert torch.equal(by_gaussian.argmax(1), torch.arange(64)) and by_gaussian[26, 26] > 0.99

# %%
def of_one_pixel(w, name, ax, pixel=26):
    heatmap((w[pixel] / w[pixel].max()).view(8, 8), ax=ax, label="weight / largest")
    ax.plot(pixel % 8, pixel // 8, "s", color="red", fillstyle="none", ms=15, mew=2)
    ax.set(xticks=[], yticks=[], title=name, aspect="equal")

# %%
fig, axes = plt.subplots(1, 3, figsize=(8, 2.3))
pictures(new_digits.images[0], ["the digit"], axes=axes[:1])
of_one_pixel(raw, "raw distance", axes[1])
of_one_pixel(by_gaussian, "Gaussian of the distance", axes[2])
show(fig, alt="A digit, and the weights of one pixel of its stroke, marked red. By raw distance "
     "the pixel itself is darkest; by the Gaussian of the distance it alone is bright.")

# %% [markdown]
# **What to see.** By raw distance the picture is turned inside out: dark is the pixel itself, less dark what
# resembles it, and brightest is some pixel elsewhere. The Gaussian is the right way round, and shows another trouble:
# the features are several units long, so the distances are too, and $e^{-\lvert x_i - x_j \rvert^2/2}$ leaves next to
# nothing for anybody but the pixel itself. A Gaussian without learnt $\theta$ and $\phi$ has no way to choose how
# near is near; that is what the projections (or a scale) are for.

# %% [markdown]
# ### Take away one ingredient
#
# Back to the cards, ten seeds each, one change at a time, and all of them settled, as in part 9:
#
# - *embedded, scaled*: with the scores times $1/\sqrt d$; *gaussian*, *euclidean*, *dot*, *concatenation*: the other
#   similarities of part 4;
# - *one map*: all places use the average of their weights, **in training too**;
# - *averages*: pixels weighted by the Gaussian of their distances, with no $\theta, \phi, g, W_z$ and no residual;
#   *distances*: the same with raw distances;
# - *EM*: expectation-maximisation attention with 8 bases, moved at each step; once settled, once as training left it.
#
# **Predict:** which of these stay where the plain network is?

# %%
after = {name: list(group["settled"]) for name, group in groups}
after["EM as\ntrained"] = by_variant["EM"]
forms = ["plain", "gaussian", "embedded", "embedded, scaled", "euclidean", "dot", "concatenation"]
others = ["plain", "one map", "averages", "distances", "EM as\ntrained", "EM"]

# %%
fig, axes = plt.subplots(2, 1, figsize=(7.6, 3.8))
for ax, names in zip(axes, (forms, others), strict=True):
    values = {name.replace(", ", "\n"): after[name] for name in names}
    by_seed(values, ax=ax, highlight="embedded", limit=0.75, label="accuracy").set(ylim=(0, 1))
show(fig, alt="Accuracy on the cards, ten seeds. Above: all five similarities lie near 0.87, one "
     "concatenation run near 0.4. Below: one map near 0.77, averages and distances near 0.45, "
     "EM as trained between 0.2 and 0.65, and settled near 0.85.")

# %%
passed = {name: sum(value > 0.75 for value in after[name]) for name in forms + others}
print("seeds out of ten that pass 3/4:", {k.replace("\n", " "): n for k, n in passed.items()})
assert list(passed.values()) == [0, 10, 10, 10, 10, 10, 9, 6, 0, 0, 0, 10]
assert [round(sum(after[name]) / 10, 2) for name in others] == [0.46, 0.77, 0.46, 0.40, 0.42, 0.84]
assert all(a < b for a, b in zip(after["distances"], after["plain"], strict=True))
assert stored["norm_variance"].max() < 0.01

# %% [markdown]
# **What to see.** *The similarity hardly matters*: all five pass with nine or ten of ten seeds, with the scale or
# without it. Which of them is a little higher we do not judge; no rule was stated for it. (One concatenation run
# never took off.)
#
# *One map for all, trained that way, gets most of it*: 0.77 on average, and six of ten seeds pass. So the authors of
# GCNet have a point on this task too: one summary of the picture, brought to every place, does much of what is
# needed. A map for each place brings the rest, and a network that was trained with many maps cannot do with one (part
# 6).
#
# *Averages alone* stay where the plain network is: perhaps because with the bare Gaussian each pixel sees itself
# alone, as in the picture above. With *distances* (0.40) each of the ten seeds ends below its plain network: every
# pixel is replaced by a mixture of what it is not.
#
# *EM attention* looks hopeless as training leaves it, between 0.16 and 0.65, and settled it passes with every seed.
# The rows of $R\mu$ are averages of the same few vectors and nearly alike: the largest running variance that its
# batch norm keeps is below 0.01. To be divided by so small a number makes a small lag of the running mean a large
# error. Had we stopped at the first number, we would have told you that EM attention fails on the cards, and it would
# have been false.

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# **NAM-2** "NAM is a non-local attention mechanism: it takes the similarity of all pixels by their Euclidean
# distance, and the weighted sum becomes the new feature map." **Misnamed, and broken as told.** NAM is the
# normalisation-based module of [12_normalization_attention](12_normalization_attention.ipynb), which compares no two
# pixels at all. What is described is a non-local block without its four maps and its residual.
#
# *First*, the distance itself is no similarity: (14.20), a pixel gives itself 0 and favours the farthest. *Second*,
# the Gaussian of it is sound, and where all keys have one length it is the dot-product softmax: (14.4) and (14.5).

# %%
# claim NAM-2: MISNAMED, and BROKEN as told
nine = torch.randn(9, 4).double()
apart_by = exactly(nine, nine)
told = apart_by / apart_by.sum(1, keepdim=True)
assert told.trace() == 0 and torch.equal(told.argmax(1), torch.cdist(nine, nine).argmax(1))
unit_vectors = F.normalize(nine, dim=1)
of_dots = (unit_vectors @ unit_vectors.T).softmax(1)
assert torch.allclose(euclidean(unit_vectors, unit_vectors), of_dots)

# %% [markdown]
# *Third*, weighing pixels mixes no channels. Without $g$ and $W_z$ each output channel is an average of its own
# channel, and stays between that channel's smallest and largest value; with the weights held still, its signature in
# part 6 is a diagonal. *Fourth*, there is no residual: if all pixels weigh alike, every place gets the same average,
# and the picture is gone. With the residual it is still there.

# %%
# claim NAM-2: BROKEN as told, without the maps and the residual
told_block = lambda x: mended(x) - x  # the Gaussian form, without the residual
low, high = features.amin((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
assert (told_block(features) >= low - 1e-9).all() and (told_block(features) <= high + 1e-9).all()
faint = features / 1000  # all distances are small, so all weights are nearly equal
assert told_block(faint).std((2, 3)).max() < 1e-3 * faint.std((2, 3)).min()
assert torch.allclose(mended(faint).std((2, 3)), faint.std((2, 3)), rtol=1e-2)

# %% [markdown]
# ## 12 · Exercises
#
# 14.1 stands in part 4, 14.2 and 14.3 in part 8 and 14.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 14.5 · alike and near · *Depth* · 20 minutes
#
# A non-local block does not know where a place lies. Older image filters do: the *bilateral filter* averages pixels
# that are alike **and** near. Write it as a non-local operation whose score is
#
# $$S_{ij} = -\tfrac12 \lvert x_i - x_j \rvert^2 - \frac{(\text{row}_i - \text{row}_j)^2 + (\text{column}_i - \text{column}_j)^2}{2 \sigma^2},$$
#
# with a softmax over $j$, the values $x_j$ themselves, and no residual. Rows and columns count from 0 in steps of 1.
#
# <details><summary>Hint 1</summary>
#
# Make a table of the places, (h w, 2), in the order of `flatten(2)`: row by row. Squared distances between the rows
# of a table are `torch.cdist(t, t).square()`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")` gives two (h, w) tables with the row and the
# column of each place; flatten and stack them, in the dtype of `x`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Or think of (14.4): two more channels, row$/\sigma$ and column$/\sigma$, joined to the features before the distances
# are taken. The values stay as they are.
#
# </details>

# %% tags=["exercise"]
def bilateral(x, sigma):
    """x (b, c, h, w), sigma in pixels -> the averages, (b, c, h, w)."""
    raise NotImplementedError

bilateral = check("14.5", bilateral)

# %% tags=["solution"]
def bilateral(x, sigma):
    h, w = x.shape[2:]
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], 1).to(x.dtype)
    X = x.flatten(2).mT
    S = -torch.cdist(X, X).square() / 2 - torch.cdist(places, places).square() / (2 * sigma**2)
    return (S.softmax(2) @ X).mT.reshape(x.shape)

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the paper |
# |---|---|---|---|
# | gather | $y_i = \frac{1}{\mathcal{C}(x)} \sum_j f(x_i, x_j)\, g(x_j)$ | (14.1) | (1) |
# | add | $z_i = W_z\, y_i + x_i$ | (14.2) | (6) |
# | embedded Gaussian | $P = \mathrm{softmax}(Q K^\top)$ | (14.3) | (3), with $\theta, \phi$ for queries and keys |
# | Euclidean | $\mathrm{softmax}_j(q_i \cdot k_j - \frac12 \lvert k_j \rvert^2)$ | (14.4) | – |
# | dot, cheap order | $\frac1N Q\, (K^\top V)$ | (14.6) | (4) |
# | Euclidean, backward | $\bar Q = \bar S K$, $\;\bar K = \bar S^\top Q - \mathrm{diag}(\bar S^\top 1) K$ | (14.10) | – |
# | price | $2C^2 + \frac32 C + C + 2C$; $\;2 C^2 HW + (HW)^2 C$ | (14.14) | – |
# | EM attention | $R = \mathrm{softmax}(X\mu^\top)$, $\;\hat X = R\mu$ | (14.15) | EMANet, with $Z$ for our $R$ |
#
# - A non-local block is self-attention over pixels, plus a map back and a residual. It adds; it is no gate.
# - One block reaches every place. On the cards that solved what no network that is linear behind small windows can
#   (8.1), and cutting the digits' view of the square takes most of it away again, if the cut leaves no rim.
# - Training drives the maps of different places apart. On the cards a trained block needs them apart, on digits
#   hardly; one map for all, trained so, gets most of the way.
# - EM attention asks $K$ bases instead of $N$ places: rank $K$ at most, and an average of the bases, never longer
#   than 1. Settle its batch norm before you judge it.
# - Of the biases only that of $\theta$ can learn, under a softmax and in front of a batch norm.
# - On the cards distances are as good as dot products once they are squared in an exponent with a minus sign; as
#   weights themselves they are wrong.
# - The plain form costs memory with the square of the places. Chunks remove the memory, the order of the dot form or
#   a few bases remove the square.
# - On plain digits we found no difference, over 15 seeds, as trained or settled.
#
# **Sources.** Wang, Girshick, Gupta, He, arXiv 1711.07971 (equations, similarities, sub-sampling, zero start), and
# the authors' released code (scale, biases); two popular re-implementations (AlexHex7/Non-local_pytorch, timm); Cao
# et al., *GCNet*, arXiv 1904.11492 (maps that hardly depend on the query); Li et al., arXiv 1907.13426, its released
# code and issue 14 of XiaLiPKU/EMANet (EM attention, the stopped gradient); Eckart and Young, *The approximation of
# one matrix by another of lower rank*, Psychometrika 1936; Tomasi and Manduchi, *Bilateral filtering for gray and
# color images*, ICCV 1998.
#
# **Back:** [13_global_attention](13_global_attention.ipynb) · **Next:**
# [15_efficient_multi_scale](15_efficient_multi_scale.ipynb), which multiplies places with channels in small groups.
# The map of the course is in [00_start_here](00_start_here.ipynb).
