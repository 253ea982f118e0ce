# %% [markdown]
# # 03 · Several heads, and a sense of order
#
# **The question.** One attention gives every token *one* average of the others, and it cannot tell in which order they stand.
# What if a token needs two different things from two different places, and what if order matters?
#
# **The answer in one sentence.** Cut the features into $h$ parts and let each part attend with weights of its own (a *head*),
# for no more weights and no more multiplications; and add to every token, or to every score, something that says where it stands.
#
# **Paper.** Ashish Vaswani and others: *Attention Is All You Need*, NeurIPS 2017,
# [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), sections 3.2.2 and 3.5.
#
# **Time.** Core 90 minutes (parts 1-4, 6, 9 and exercises 03.1 and 03.2) · Depth 100 minutes (the rest).
#
# **Prerequisites.** [02_self_attention](02_self_attention.ipynb), of which this notebook uses the equations and the
# library; the toolbox page on [vector-Jacobian products](00_toolbox.ipynb#2.-Vector-Jacobian-products). The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $n, d$ | | number of tokens; features of a token (the paper's $d_\text{model}$) |
# | $h$ | | number of heads; $t = 1, \dots, h$ counts them |
# | $d_h$ | | features of a query, key and value in one head, $d/h$ (the paper's $d_k$ and $d_v$) |
# | $X$ | $n \times d$ | the tokens, one a row |
# | $W_Q, W_K, W_V$ | $d \times d$ | the projections of all heads side by side |
# | $W_Q^{(t)}, W_K^{(t)}, W_V^{(t)}$ | $d \times d_h$ | the columns that belong to head $t$ |
# | $W_O$, $W_O^{(t)}$ | $d \times d$, $d_h \times d$ | the output matrix, and its rows that belong to head $t$ |
# | $P^{(t)}$, $O^{(t)}$ | $n \times n$, $n \times d_h$ | weights and output of head $t$ |
# | $C$, $Y$ | $n \times d$ | the heads' outputs side by side; what goes out |
# | $B^{(t)}$ | $d \times d$ | the bilinear form by which head $t$ compares two tokens |
# | $\mathrm{PE}(p)$ | $d$ | what is added to the token at position $p = 0, 1, \dots$ |
# | $\omega_f$ | | the angle by which pair $f$ of its features turns from one position to the next |
# | $r^{(t)}_\delta$ | | what head $t$ adds to the score of a key at distance $\delta$ |
# | $G$ | $n \times d$ | $\partial L/\partial Y$, what arrives from above in the backward pass |
#
# In code, `heads` is a number of heads, and an axis of heads stands between batch and tokens: (b, heads, n, d_h).

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start
from attnlib.lab.plots import by_seed, curves, heatmap, pictures

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **03.a** Self-attention without a mask is given the same tokens in another order. What comes out?
# (a) the same, in the old order · (b) the same outputs, in the new order · (c) something else altogether · (d) an error ·
# (e) the same output for every token
#
# **03.b** $A$ is $8 \times 2$ and $B$ is $2 \times 8$. What is the largest rank that $AB$ can have?
# (a) 2 · (b) 4 · (c) 8 · (d) 16 · (e) 0
#
# **03.c** What is $\sin(u + v)$?
# (a) $\sin u + \sin v$ · (b) $\sin u \sin v + \cos u \cos v$ · (c) $\sin u \cos v + \cos u \sin v$ ·
# (d) $\cos u \cos v - \sin u \sin v$ · (e) $\sin u \sin v$

# %% tags=["exercise"]
check("03.a", ...)
check("03.b", ...)
check("03.c", ...)

# %% tags=["solution"]
check("03.a", "b")
check("03.b", "a")
check("03.c", "c")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# ### One row of weights is one average
#
# A game. Eight tokens carry eight random numbers each: four are called $a$ and four are called $b$, all independent, with mean
# 0 and variance 1. One token wears a first mark, another one a second mark. **The first token is to be told the $a$ of the
# token with the first mark, and the $b$ of the token with the second mark.**

# %%
def marked(count, seed):
    g = torch.Generator().manual_seed(seed)
    numbers, order = torch.randn(count, 8, 8, generator=g), torch.rand(count, 8, generator=g)
    marks = F.one_hot(order.argsort(1)[:, :2], 8).mT.float()  # count, token, mark
    first, second = ((marks[:, :, [m]] * numbers).sum(1) for m in (0, 1))
    wanted = torch.cat([first[:, :4], second[:, 4:]], 1)
    return torch.cat([numbers, marks], 2), wanted

# %%
card = marked(1, seed=4)[0][0]
ax = plt.subplots(figsize=(5.5, 2.6))[1]
heatmap(card, ax=ax, limits=(-3, 3), signed=True, label="value")
for mark, left in ((0, -0.5), (1, 3.5)):
    row = card[:, 8 + mark].argmax().item()
    ax.add_patch(plt.Rectangle((left, row - 0.5), 4, 1, fill=False, ec="black", lw=2))
ax.set(ylabel="token"), ax.set_xticks([1.5, 5.5, 8.5], ["numbers a", "numbers b", "marks"])
show(ax.figure, alt="Eight tokens of ten features; two boxes around what the first token wants.")

# %% [markdown]
# **What to see.** The two boxes are what the first token wants: the left half of one row and the right half of another. Which
# rows these are changes from card to card, and the two last columns say it.
#
# Now let one attention do it. Its output is a linear image of **one** average $\sum_j p_j x_j$ of the tokens, whatever $W_V$ is.
# Say the first mark is at place $u$, the second at place $w$, and the weights $p_j$ do not look at the numbers, only at the
# marks. How near can the output come to one of the four numbers, $a_u$? It knows $s = \sum_j p_j a_j$ and can multiply it by a
# constant $c$. Write $E$ for the mean over all cards with these places. The $a_j$ are independent, with mean 0 and variance 1, so
# $E[a_j^2] = 1$ and $E[a_i a_j] = 0$ for $i \ne j$. Hence $E[s^2] = \sum_j p_j^2$ and $E[s\, a_u] = p_u$, and
#
# $$E\big[(c\,s - a_u)^2\big] = c^2 \sum_j p_j^2 - 2 c\, p_u + 1 .$$
#
# The slope in $c$ is zero at $c = p_u / \sum_j p_j^2$. Put in, what is left is $1 - p_u^2 / \sum_j p_j^2$. (To add a multiple
# of another feature's average only adds error, since that is independent of $a_u$.) For $b$ the same holds with $w$ in the
# place of $u$. Since $p_u^2 + p_w^2$ is at most the sum over all places, the two errors together are
#
# $$e_a + e_b = \Big(1 - \frac{p_u^2}{\sum_j p_j^2}\Big) + \Big(1 - \frac{p_w^2}{\sum_j p_j^2}\Big) \;\ge\; 1 \tag{3.1}$$
#
# for *any* weights. Guessing 0 has the error $1 + 1$. So one average can never do better than half of the way, wherever it
# puts its weight. We try a thousand random rows of weights, and hold the formula against a simulation for one of them:

# %%
def errors(p, u, w):
    squares = p.square().sum(-1)
    return 1 - p[..., u] ** 2 / squares, 1 - p[..., w] ** 2 / squares

rows = torch.rand(1000, 8).double() ** 6
e_a, e_b = errors(rows / rows.sum(1, keepdim=True), 2, 5)
assert (e_a + e_b >= 1 - 1e-12).all()  # (3.1)

# %%
one_row = torch.tensor([1, 0, 6, 0, 0, 3, 0, 0]).double() / 10
numbers = torch.randn(200_000, 8).double()
s, a_u = numbers @ one_row, numbers[:, 2]
best = (s * a_u).mean() / s.square().mean()
simulated, (formula, _) = (best * s - a_u).square().mean(), errors(one_row, 2, 5)
assert abs(simulated - formula) < 0.01 and abs(formula - (1 - 0.36 / 0.46)) < 1e-12
share = torch.linspace(0, 1, 101).double()
both = errors(torch.stack([share, 1 - share], 1), 0, 1)

# %% [markdown]
# **Predict the next picture:** all weight on the two marked places, $p$ on the first and $1 - p$ on the second. How do the two
# errors, and their sum, change with $p$?

# %%
fig, ax = plt.subplots(figsize=(4, 2.3))
lines = {"of a": both[0], "of b": both[1], "sum": sum(both)}
for (name, line), color in zip(lines.items(), ("C0", "C1", "grey"), strict=True):
    ax.plot(share, line, color=color, label=name)
ax.set(xlabel="weight p on the first mark", ylabel="error", ylim=(-0.05, 1.1)), ax.legend()
show(fig, alt="Two errors over the weight on the first mark. That of a falls from 1 to 0, "
     "that of b rises from 0 to 1, and their sum is 1 everywhere.")
assert torch.allclose(sum(both), torch.ones(101).double())

# %% [markdown]
# **What to see.** What one half gains the other half loses, and the sum is 1 for every $p$. Two rows of weights would end this:
# one with $p_u = 1$ that only fetches $a$, and one with $p_w = 1$ that only fetches $b$. That is what heads are.
#
# ### Twelve or twenty-one
#
# The second problem. Two tokens, each of them the picture of a digit, in two orders. Notebook 02 proved, in (2.7), that
# self-attention of reordered tokens gives reordered outputs. If the outputs are then averaged, as one does to classify a
# sequence, nothing is left of the order: **12 and 21 are the same thing to it**.

# %%
from attnlib import dot_product_attention
from attnlib.lab.data import load_digits

digits = load_digits("train")
one, two = (digits.images[digits.labels == label][0, 0] for label in (1, 2))
both_ways = torch.stack([torch.stack([one, two]), torch.stack([two, one])])  # order, token, 8, 8
axes = plt.subplots(1, 2, figsize=(3.2, 1.1))[1]
pictures(torch.cat([both_ways[:, 0], both_ways[:, 1]], 2), ["12", "21"], axes=axes)
show(axes[0].figure, alt="A scanned one and a scanned two, and the same two in the other order.")

# %%
words = both_ways.flatten(2).double()  # 2 sequences of 2 tokens of 64 pixels
twelve, twenty_one = dot_product_attention(words, words, words)[0].mean(1)
assert torch.allclose(twelve, twenty_one) and not torch.equal(words[0], words[1])

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Take a pencil. Three tokens with two features, and two heads of one feature each, so $d = 2$, $h = 2$, $d_h = 1$:
#
# $$X = \begin{pmatrix} 1 & 0 \\ 0 & 1 \\ 1 & 1 \end{pmatrix}, \quad
# W_Q = \ln 2 \begin{pmatrix} 2 & 0 \\ 0 & 1 \end{pmatrix}, \quad
# W_K = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}, \quad
# W_V = \begin{pmatrix} 9 & 0 \\ 0 & 15 \end{pmatrix}, \quad
# W_O = \begin{pmatrix} 1 & 1 \\ 1 & -1 \end{pmatrix}$$
#
# (As in 02, $e^{z \ln 2} = 2^z$ gets rid of exponentials.) Head 1 takes the first column of $XW_Q$, $XW_K$ and $XW_V$, head 2
# the second, and each does what notebook 02 did:
#
# $$O^{(t)} = \mathrm{softmax}\!\Big(\frac{X W_Q^{(t)} \big(X W_K^{(t)}\big)^{\!\top}}{\sqrt{d_h}}\Big)\, X W_V^{(t)} \tag{3.2}$$
#
# **Head 1.** Queries $\ln 2\,(2, 0, 2)$, keys $(1, 0, 1)$, and $\sqrt{d_h} = 1$. Row 0 of the scores is $\ln 2\,(2, 0, 2)$, so
# the weights are $4, 1, 4$ out of 9; row 1 is zero, so its weights are equal; row 2 is like row 0. The values are $(9, 0, 9)$,
# and the outputs $8, 6, 8$.
#
# **Head 2.** Queries $\ln 2\,(0, 1, 1)$, keys $(0, 1, 1)$, values $(0, 15, 15)$. Do it before you run the cells.
#
# **Joining.** The outputs are put side by side and multiplied by one more matrix, so that what the heads have found can be
# mixed:
#
# $$C = \big[\,O^{(1)} \; \cdots \; O^{(h)}\,\big], \qquad Y = C\, W_O \tag{3.3}$$
#
# Here $W_O$ takes the sum and the difference of the two numbers in each row of $C$. The cells have the results.

# %%
from math import log

X = torch.tensor([[1, 0], [0, 1], [1, 1]]).double()
W_Q, W_K = log(2) * torch.tensor([[2, 0], [0, 1]]).double(), torch.eye(2).double()
W_V, W_O = torch.diag(torch.tensor([9, 15])).double(), torch.tensor([[1, 1], [1, -1]]).double()
Q, K, V = X @ W_Q, X @ W_K, X @ W_V

# %%
P1, P2 = ((Q[:, [t]] @ K[:, [t]].T).softmax(1) for t in (0, 1))
C = torch.cat([P1 @ V[:, [0]], P2 @ V[:, [1]]], 1)
assert torch.allclose(C, torch.tensor([[8, 10], [6, 12], [8, 12]]).double())  # (3.2)
Y = C @ W_O
assert torch.allclose(Y, torch.tensor([[18, -2], [18, -6], [20, -4]]).double())  # (3.3)

# %%
together = (Q @ K.T / 2**0.5).softmax(1)
shown = {"head 1": P1, "head 2": P2, "one of width 2": together}
fig, axes = plt.subplots(1, 3, figsize=(5.6, 1.8), sharey=True)
for ax, (title, matrix) in zip(axes, shown.items(), strict=True):
    heatmap(matrix, ax=ax, numbers=True, colorbar=False)
    ax.set(title=title, xlabel="key", xticks=range(3), yticks=range(3))
axes[0].set(ylabel="query")
show(fig, alt="Weights of head 1, of head 2, and of one head of width 2 that mixes both patterns.")

# %% [markdown]
# **What to see.** Query 0 has only the first feature: head 1 sends it to tokens 0 and 2, and head 2 lets it look everywhere.
# Query 1 is the other way round. On the right, the same matrices as *one* head of width 2: there the two scores are added
# *before* the softmax, so there is one compromise. Two heads add up *after* it.

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# ### All heads at once
#
# The heads need no loop. $XW_Q$ has the queries of all heads side by side: columns $0$ to $d_h - 1$ are head 1, the next $d_h$
# are head 2. With a batch in front its shape is (b, n, d). Cut the last axis into (heads, $d_h$), then bring the heads to the
# front: (b, n, heads, $d_h$) becomes (b, heads, n, $d_h$). Attention treats whatever stands in front as a batch, so one call does
# all heads. Behind it, the same two steps backwards.
#
# ### Exercise 03.1 · multi-head attention · *Core* · 15 minutes
#
# Write (3.2) and (3.3). `x` is (b, n, d), the four matrices are (d, d), and `heads` divides d. Return (b, n, d).
#
# <details><summary>Hint 1</summary>
#
# `unflatten(-1, (heads, -1))` cuts the last axis into two, and `transpose(1, 2)` exchanges tokens and heads.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Do that to `x @ W_Q`, `x @ W_K` and `x @ W_V`. Then scores, softmax and average as in 02. The scale takes the width of one
# head.
#
# </details>
# <details><summary>Hint 3</summary>
#
# With `o` of shape (b, heads, n, d_h) the last line is `o.transpose(1, 2).flatten(2) @ W_O`. Without the transpose, places and
# features would be mixed up.
#
# </details>

# %% tags=["exercise"]
def multi_head(x, W_Q, W_K, W_V, W_O, heads):
    """x (b, n, d), matrices (d, d) -> (b, n, d)."""
    raise NotImplementedError

multi_head = check("03.1", multi_head)

# %% tags=["solution"]
def multi_head(x, W_Q, W_K, W_V, W_O, heads):
    q, k, v = ((x @ W).unflatten(-1, (heads, -1)).transpose(1, 2) for W in (W_Q, W_K, W_V))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2) @ W_O

# %% [markdown]
# The library's `MultiHeadAttention` holds four linear layers with these names (`nn.Linear` keeps the transpose of our matrices)
# and a bias for each, 0 at the start. PyTorch has the same thing as `nn.MultiheadAttention`, under other names; `to_torch`
# renames. All three agree, and so do the gradients:

# %%
from attnlib.sequence.multi_head import MultiHeadAttention, to_torch

layer = MultiHeadAttention(12, heads=3).double()
x = torch.randn(2, 5, 12).double().requires_grad_()
matrices = [part.weight.T for part in (layer.W_Q, layer.W_K, layer.W_V, layer.W_O)]
assert torch.allclose(multi_head(x, *matrices, heads=3), layer(x))
assert torch.allclose(multi_head(X[None], W_Q, W_K, W_V, W_O, heads=2)[0], Y)  # as by hand

# %%
theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
theirs.load_state_dict(to_torch(layer.state_dict()))
outputs = multi_head(x, *matrices, heads=3), layer(x), theirs(x, x, x)[0]
upstream = torch.randn(2, 5, 12).double()
gradients = [torch.autograd.grad(out, x, upstream)[0] for out in outputs]
assert all(torch.allclose(out, outputs[0]) for out in outputs)
assert all(torch.allclose(gradient, gradients[0]) for gradient in gradients)

# %% [markdown]
# ### A head is a bilinear form of low rank
#
# What does a head compare? The score of tokens $i$ and $j$ is $x_i\, W_Q^{(t)} W_K^{(t)\top} x_j^\top / \sqrt{d_h}$ (the
# biases being 0). Only the product of the two matrices counts, and that is a $d \times d$ matrix whose rank is at most $d_h$,
# the width in between:
#
# $$B^{(t)} = W_Q^{(t)} W_K^{(t)\top}, \qquad \mathrm{rank}\, B^{(t)} \le d_h, \qquad
# \sum_{t=1}^h B^{(t)} = W_Q W_K^\top \tag{3.4}$$
#
# The last part is block arithmetic: a product of matrices is a sum over the inner index, and the heads cut that index into
# blocks. A single head of width $d$ would compare tokens by the *whole* sum $W_Q W_K^\top$, in one softmax. With $h$ heads, the
# same numbers give $h$ comparisons of lower rank, each in a softmax of its own.

# %%
in_heads = lambda matrix: matrix.unflatten(1, (3, 4)).transpose(0, 1)  # heads, d, d_h
A_Q, A_K, A_V = (in_heads(matrix.detach()) for matrix in matrices[:3])
forms = A_Q @ A_K.mT
assert (torch.linalg.matrix_rank(forms) <= 4).all()  # (3.4)
assert torch.allclose(forms.sum(0), (matrices[0] @ matrices[1].T))
scores = torch.einsum("bif,tfg,bjg->btij", x, forms, x) / 4**0.5
assert torch.allclose(scores.softmax(-1), layer.weights(x))

# %% [markdown]
# ### Joining is adding
#
# The same block arithmetic at the way out: in $Y = C W_O$ the columns of $C$ that belong to head $t$ meet the rows $W_O^{(t)}$ of
# the output matrix. So putting side by side and multiplying is nothing but a sum over the heads,
#
# $$Y = \sum_{t=1}^h O^{(t)} W_O^{(t)} = \sum_{t=1}^h P^{(t)}\, X\, W_V^{(t)} W_O^{(t)} \tag{3.5}$$
#
# Each head answers two questions apart from each other: *where* to look, by $B^{(t)}$, and *what* to bring from there, by
# $W_V^{(t)} W_O^{(t)}$, again a matrix of rank $d_h$ at most. Only these two products can be seen from outside.

# %%
A_O = matrices[3].detach().unflatten(0, (3, 4))  # heads, d_h, d
parts = layer.weights(x) @ (x[:, None] @ A_V @ A_O)  # b, heads, n, d
assert torch.allclose(parts.sum(1), layer(x))  # (3.5)
turn = torch.linalg.qr(torch.randn(4, 4).double())[0]  # another basis inside each head
assert torch.allclose((A_Q @ turn) @ (A_K @ turn).mT, forms)
assert torch.allclose((A_V @ turn) @ (turn.mT @ A_O), A_V @ A_O)  # neither product sees it

# %% [markdown]
# ### Saying where a token stands
#
# Heads do not mend the second problem: each of them satisfies (2.7), and so does their sum. The tokens themselves must say where
# they stand. The paper adds to the token at position $p$ a vector $\mathrm{PE}(p)$ that depends on nothing else. Its features
# come in pairs, and pair $f = 0, 1, \dots, d/2 - 1$ is a sine and a cosine:
#
# $$\mathrm{PE}(p)_{2f} = \sin(\omega_f\, p), \qquad \mathrm{PE}(p)_{2f+1} = \cos(\omega_f\, p), \qquad
# \omega_f = 10000^{-2f/d} \tag{3.6}$$
#
# Each pair is the hand of a clock. The first turns by 1 radian a position, once round in $2\pi \approx 6.3$ positions; the next
# ones turn ever more slowly, by a constant factor each, like the hands for seconds, minutes and hours. The last pair of $d = 512$
# features takes $2\pi \cdot 10000^{510/512} \approx 60{,}611$ positions for one round.
#
# ### Exercise 03.2 · sinusoids · *Core* · 10 minutes
#
# Write (3.6) for the positions $0, \dots, n - 1$: return (n, d), d even, in float64.
#
# <details><summary>Hint 1</summary>
#
# First the angles: `torch.arange(n).double()[:, None] * omega`, of shape (n, d/2).
#
# </details>
# <details><summary>Hint 2</summary>
#
# `omega = 10000.0 ** (-2 * f / d)` with `f = torch.arange(d // 2).double()`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Sines belong in the columns 0, 2, 4, ..., cosines in 1, 3, 5, ...: `torch.stack([sin, cos], -1).flatten(1)`, or assign to
# `table[:, 0::2]` and `table[:, 1::2]`.
#
# </details>

# %% tags=["exercise"]
def sinusoids(n, d):
    """The positions 0 ... n - 1 as in (3.6), (n, d), float64."""
    raise NotImplementedError

sinusoids = check("03.2", sinusoids)

# %% tags=["solution"]
def sinusoids(n, d):
    omega = 10000.0 ** (-2 * torch.arange(d // 2).double() / d)
    angles = torch.arange(n).double()[:, None] * omega
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)

# %%
from attnlib.sequence import positions

table = sinusoids(64, 32)
omega = positions.frequencies(32)
for f in range(16):
    assert torch.allclose(table[:, 2 * f], torch.sin(omega[f] * torch.arange(64)))  # (3.6)
assert torch.allclose(table, positions.sinusoids(torch.arange(64.0).double(), 32))
assert round(2 * torch.pi / positions.frequencies(512)[-1].item()) == 60_611
assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.5  # no two rows are alike

# %%
ax = plt.subplots(figsize=(5.5, 2.6))[1]
heatmap(table, ax=ax, limits=(-1, 1), signed=True, label="PE(p)")
ax.set(xlabel="feature (sine, cosine, sine, ...)", ylabel="position p")
show(ax.figure, alt="64 positions by 32 features. The left columns change sign every few "
     "positions, those further right ever more slowly, and the last hardly at all.")

# %% [markdown]
# **What to see.** Read a column from top to bottom: it is a wave, fast at the left and slower towards the right. Read a row: it
# is the face of sixteen clocks. No two rows are alike, and every number stays between -1 and 1 however long the sequence.
#
# ### A step is a rotation
#
# Why sines and cosines *in pairs*? Take one pair and go $k$ positions on. The addition theorems say
#
# $$\sin(\omega p + \omega k) = \cos(\omega k) \sin(\omega p) + \sin(\omega k) \cos(\omega p), \qquad
# \cos(\omega p + \omega k) = -\sin(\omega k) \sin(\omega p) + \cos(\omega k) \cos(\omega p).$$
#
# The new pair is the old one times a $2 \times 2$ matrix in which $p$ does not occur. All pairs together:
#
# $$\mathrm{PE}(p + k) = R_k\, \mathrm{PE}(p), \qquad R_k = \begin{pmatrix} \cos \omega_0 k & \sin \omega_0 k & & \\
# -\sin \omega_0 k & \cos \omega_0 k & & \\ & & \cos \omega_1 k & \\ & & & \ddots \end{pmatrix} \tag{3.7}$$
#
# **The same matrix $R_k$ moves every position by $k$.** A linear layer, such as $W_Q$, can hold such a matrix, and so can ask for
# "the token three places before me" wherever it stands.

# %%
def rotation(k, d):
    angles = k * 10000.0 ** (-2 * torch.arange(d // 2).double() / d)
    blocks = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], 1)
    return torch.block_diag(*blocks.unflatten(1, (2, 2)))

for k in (1, 7, -3):
    from_p = table[10:50]  # rows are positions, so R_k PE(p) is a row times its transpose
    assert torch.allclose(from_p @ rotation(k, 32).T, table[10 + k : 50 + k])  # (3.7)

# %% [markdown]
# A second gift: in the dot product of two positions each pair gives $\sin u \sin v + \cos u \cos v = \cos(u - v)$ with
# $u = \omega_f p$ and $v = \omega_f (p + k)$, so
#
# $$\mathrm{PE}(p) \cdot \mathrm{PE}(p + k) = \sum_{f} \cos(\omega_f\, k) \tag{3.8}$$
#
# It depends on the distance $k$ alone, not on where the two stand. **Predict** how it looks as a function of $k$: where is it
# largest? Does it fall smoothly?

# %%
products = table @ table.T
for k in (0, 1, 5, 20):
    expected = torch.cos(k * omega).sum()
    assert torch.allclose(products.diagonal(k), expected.expand(64 - k))  # (3.8)

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 2.4), width_ratios=[1, 1.2])
heatmap(products[:20, :20], ax=axes[0], limits=(-16, 16), signed=True, label="dot product")
axes[0].set(xlabel="position p'", ylabel="position p")
steps = torch.arange(-40, 41)
axes[1].plot(steps, torch.cos(steps[:, None] * omega).sum(1), color="C0")
axes[1].set(xlabel="distance k", ylabel="PE(p) · PE(p + k)", ylim=(0, 17))
show(fig, alt="Left, the dot products of all pairs of positions: equal along each diagonal. Right, "
     "the same over the distance: a peak of 16 at 0, then a wavy fall on both sides.")

# %% [markdown]
# **What to see.** Along each diagonal the left picture has one colour. The peak at distance 0 is $d/2 = 16$, every cosine being
# 1 there; the neighbours already have less, and further out it falls, in waves, because the fast clocks come round again.
#
# **A head that looks back.** Put (3.7) and (3.8) together. Let the query be $\beta R_{-k}\, \mathrm{PE}(i)$ and the key
# $\mathrm{PE}(j)$. The score is $\beta\, \mathrm{PE}(i - k) \cdot \mathrm{PE}(j)$, which is largest at $j = i - k$, for *every*
# $i$. So one head with fixed matrices fetches the token $k$ places back:

# %%
def looks_back(k=3, sharpness=8.0, n=20, d=32):
    pe = positions.sinusoids(torch.arange(n).double(), d)
    weights = (sharpness * pe @ rotation(-k, d).T @ pe.T).softmax(1)
    ax = heatmap(weights, ax=plt.subplots(figsize=(3.6, 2.8))[1], label="weight")
    ax.set(xlabel="position looked at", ylabel="position", title=f"{k} back, β = {sharpness:.1f}")
    show(ax.figure, alt=f"The weights of {n} positions: each looks at the one {k} places before.")
    return weights

# %%
hand_made = looks_back()
assert (hand_made[3:].argmax(1) == torch.arange(17)).all() and hand_made.diagonal(-3).min() > 0.9
assert hand_made[:3, 0].min() > 0.9

# %% [markdown]
# **What to see.** One bright line, three places below the diagonal, from the first row that has something three places before
# it to the last. (Rows 0 to 2 take the nearest there is, place 0.) Try other distances and other $\beta$; the sliders need a
# running kernel:

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

def explore(k, sharpness):
    looks_back(k, sharpness)  # returns nothing, so that only the picture is shown

interact(explore, k=(-5, 5), sharpness=(0.0, 10.0, 0.5));

# %% [markdown]
# ### Learned positions, and relative ones
#
# **Learned.** Instead of (3.6), a table with one free vector for each position, learned like any weight: `LearnedPositions`. It
# is one matrix of `length` times $d$ numbers, and it ends where the table ends.
#
# **What adding does to a score.** With $x_i + p_i$ in the place of $x_i$ (we write $p_i$ for $\mathrm{PE}(i)$), the score of a
# head falls into four parts:
#
# $$(x_i + p_i)\, B\, (x_j + p_j)^\top = x_i B x_j^\top + x_i B p_j^\top + p_i B x_j^\top + p_i B p_j^\top \tag{3.9}$$
#
# what is there with what is there; what is there with a place; a place with what is there; a place with a place.
#
# **Relative.** Only the *distance* matters in many tasks. So leave the tokens alone: keep the first of the four parts, and in
# the place of the other three add one learned number for each head and each distance. Distances beyond a reach $\rho$ share
# the number at the edge:
#
# $$S^{(t)}_{ij} = \frac{q^{(t)}_i \cdot k^{(t)}_j}{\sqrt{d_h}} + r^{(t)}_\delta, \qquad
# \delta = \min(\max(j - i, -\rho), \rho) \tag{3.10}$$
#
# That is `RelativeBias`. The idea is that of Shaw and others ([arXiv 1803.02155](https://arxiv.org/abs/1803.02155)), who add
# vectors to keys and values; the form with one number is T5's (Raffel and others,
# [arXiv 1910.10683](https://arxiv.org/abs/1910.10683)), which groups far distances instead of cutting them off.

# %%
B = forms[0]
token_i, token_j, p_i, p_j = (torch.randn(12).double() for _ in range(4))
four = [u @ B @ v for u in (token_i, p_i) for v in (token_j, p_j)]
assert torch.allclose((token_i + p_i) @ B @ (token_j + p_j), sum(four))  # (3.9)

# %%
relative = positions.RelativeBias(3, reach=2).double()
relative.table.data = torch.randn(3, 5).double()
added = relative(5)  # heads, 5, 5
for i in range(5):
    for j in range(5):
        assert torch.equal(added[:, i, j], relative.table[:, min(max(j - i, -2), 2) + 2])
with_bias = (scores + added).softmax(-1)
assert torch.allclose(with_bias, layer.weights(x, score_bias=added))  # (3.10)

# %% [markdown]
# With any of the three, (2.7) is broken, as it should be: "12" and "21" now differ. What each one can and cannot see, the parts
# 9 and 10 measure. First the test that order is seen at all:

# %%
spoken = MultiHeadAttention(64, heads=4).double()
tables = positions.SinusoidalPositions(64), positions.LearnedPositions(2, 64).double()
distances = positions.RelativeBias(4, reach=1).double()
distances.table.data = torch.randn(4, 3).double()
answers = [spoken(words), *(spoken(add(words)) for add in tables)]
answers.append(spoken(words, score_bias=distances(2)))
gaps = [(y[0].mean(0) - y[1].mean(0)).abs().max().item() for y in answers]
assert gaps[0] < 1e-12 and min(gaps[1:]) > 1e-4

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Notebook 02 went back through the inside of a head: (2.10) for the average, (2.11) for the softmax, (2.13) for the dot product.
# New are the output matrix, the cutting and joining, and the numbers of a relative bias.
#
# **Output matrix.** $Y = C W_O$ is a linear layer. By (3.5), head $t$ meets only its own rows of $W_O$:
#
# $$\frac{\partial L}{\partial W_O} = C^\top G, \qquad \frac{\partial L}{\partial O^{(t)}} = G\, W_O^{(t)\top} \tag{3.11}$$
#
# **Cutting and joining** only move numbers to other places, so going back moves them home: the gradient of `split` is `join`.
# With $\partial L/\partial Q = [\,\partial L/\partial Q^{(1)} \cdots \partial L/\partial Q^{(h)}]$ joined again, and the same
# for $K$ and $V$, the projections are linear layers as in (2.14):
#
# $$\frac{\partial L}{\partial W_Q} = X^\top \frac{\partial L}{\partial Q} \text{ (and so on)}, \qquad
# \frac{\partial L}{\partial X} = \frac{\partial L}{\partial Q} W_Q^\top + \frac{\partial L}{\partial K} W_K^\top +
# \frac{\partial L}{\partial V} W_V^\top \tag{3.12}$$

# %%
from attnlib.lab.gradients import compare_gradients

split = lambda x, heads=2: x.unflatten(-1, (heads, -1)).transpose(1, 2)
join = lambda x: x.transpose(1, 2).flatten(2)

def through_heads(g, q, k, v):
    p = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    dp = g @ v.mT
    ds = p * (dp - (p * dp).sum(-1, keepdim=True)) / q.shape[-1] ** 0.5
    return ds @ k, ds.mT @ q, p.mT @ g

# %%
def backward(g, x, w_q, w_k, w_v, w_o):
    q, k, v = (split(x @ w) for w in (w_q, w_k, w_v))
    c = join(dot_product_attention(q, k, v)[0])
    d_q, d_k, d_v = (join(d) for d in through_heads(split(g @ w_o.mT), q, k, v))
    of = lambda x, d: (x.mT @ d).sum(0)  # over the batch
    by_matrix = {"w_q": of(x, d_q), "w_k": of(x, d_k), "w_v": of(x, d_v), "w_o": of(c, g)}
    return by_matrix | {"x": d_q @ w_q.mT + d_k @ w_k.mT + d_v @ w_v.mT}

# %%
names = ["w_q", "w_k", "w_v", "w_o"]
leaves = {"x": torch.randn(2, 3, 4).double()} | {name: torch.randn(4, 4).double() for name in names}
forward = lambda x, w_q, w_k, w_v, w_o: multi_head(x, w_q, w_k, w_v, w_o, heads=2)
table_of_gradients = compare_gradients(forward, backward, leaves)
assert table_of_gradients.loc["w_o"][1:].all()  # (3.11)
assert table_of_gradients[["hand = autograd", "hand = differences"]].all(axis=None)  # (3.12)
table_of_gradients

# %% [markdown]
# **Positions.** $\mathrm{PE}(p)$ was added to the token at $p$ of every sequence in the batch, so a learned vector collects the
# sum of $\partial L/\partial X$ at that place over the batch. A number $r_\delta$ of a relative bias was added to every score at
# its distance, so it collects along a diagonal, and the two at the edges collect all that lies beyond:
#
# $$\frac{\partial L}{\partial r^{(t)}_\delta} = \sum_{(i, j) \text{ at } \delta} \frac{\partial L}{\partial S^{(t)}_{ij}},
# \qquad (i, j) \text{ at } \delta \text{ if } \min(\max(j - i, -\rho), \rho) = \delta \tag{3.13}$$
#
# ### Exercise 03.3 · the gradient of a relative bias · *Depth* · 15 minutes
#
# For one head: `grad_S` is $\partial L/\partial S$, (n, n), and `reach` is $\rho$. Return $2\rho + 1$ numbers, for $\delta =
# -\rho, \dots, \rho$.
#
# <details><summary>Hint 1</summary>
#
# The distances of all pairs: `j - i` with `j = torch.arange(n)` and `i = torch.arange(n)[:, None]`, then `clamp(-reach, reach)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# For each $\delta$, add up the entries of `grad_S` where the clamped distance equals it: `grad_S[distance == delta].sum()`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.stack([grad_S[distance == delta].sum() for delta in range(-reach, reach + 1)])`.
#
# </details>

# %% tags=["exercise"]
def bias_gradient(grad_S, reach):
    """grad_S = dL/dS (n, n) -> dL/dr for the distances -reach ... reach, (2 reach + 1,)."""
    raise NotImplementedError

bias_gradient = check("03.3", bias_gradient)

# %% tags=["solution"]
def bias_gradient(grad_S, reach):
    places = torch.arange(len(grad_S))
    distance = (places - places[:, None]).clamp(-reach, reach)
    return torch.stack([grad_S[distance == delta].sum() for delta in range(-reach, reach + 1)])

# %%
arriving = torch.randn(3, 5, 5).double()
(by_autograd,) = torch.autograd.grad(relative(5), relative.table, arriving)
by_hand = torch.stack([bias_gradient(g, 2) for g in arriving])
assert torch.allclose(by_hand, by_autograd)  # (3.13)
learned = positions.LearnedPositions(5, 12).double()
(of_table,) = torch.autograd.grad(learned(x), learned.table, upstream)
assert torch.allclose(of_table, upstream.sum(0))

# %% [markdown]
# ## 6 · What heads attend to · *Core*
#
# Back to the game of part 2. The network is a linear layer, one multi-head attention in which the first token asks, and a linear
# layer that reads off the eight numbers. One head or two, it has the same number of weights. Three hundred steps with Adam, on 64
# new cards each. **Predict** what each of two heads will look at, and what a single head will do, which cannot be in two places.

# %%
class Fetcher(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.embed = nn.Linear(10, 16)
        self.attention = MultiHeadAttention(16, heads=heads, bias=False)
        self.read = nn.Linear(16, 8)
    def forward(self, x):
        return self.read(self.attention(self.embed(x)[:, :1], self.embed(x)))[:, 0]

# %%
def fit_fetcher(heads, seed):
    torch.manual_seed(seed)
    model, (cards, wanted) = Fetcher(heads), marked(300 * 64, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for batch, target in zip(cards.split(64), wanted.split(64), strict=True):
        loss = F.mse_loss(model(batch), target)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return model

# %%
new_cards, new_wanted = marked(4000, seed=1000)
fetchers = {heads: fit_fetcher(heads, seed=0) for heads in (1, 2)}

@torch.no_grad()
def weights_of(model):  # cards, heads, tokens
    embedded = model.embed(new_cards)
    return model.attention.weights(embedded[:, :1], embedded)[:, :, 0]

looks = {heads: weights_of(model) for heads, model in fetchers.items()}

# %%
fig, axes = plt.subplots(1, 4, figsize=(8.5, 2.5), sharey=True)
marks = new_cards[:12, :, 8] - new_cards[:12, :, 9]
heatmap(marks, ax=axes[0], limits=(-1, 1), signed=True, colorbar=False)
shown = {"one head": looks[1][:, 0], "one of two": looks[2][:, 0], "the other": looks[2][:, 1]}
for ax, (name, weight) in zip(axes[1:], shown.items(), strict=True):
    heatmap(weight[:12], ax=ax, colorbar=ax is axes[3], label="weight").set(title=name)
axes[0].set(title="marks 1 (red), 2 (blue)", ylabel="card", xlabel="token", yticks=[0, 11])
show(fig, alt="Marks of twelve cards, and the weights of one head and of each of two heads.")

# %%
on_mark = {heads: (looks[heads] @ new_cards[..., 8:]).mean(0) for heads in looks}  # heads, marks
more = [(weights_of(fit_fetcher(2, seed)) @ new_cards[..., 8:]).mean(0) for seed in (1, 2)]
each = torch.stack([on_mark[2], *more])  # seeds, heads, marks
chosen = each.argmax(2).tolist()
print("each of two heads has over 0.95 of its weight on one mark:", bool(each.amax(2).min() > 0.95))
print("and they have chosen different marks:", all(sorted(marks) == [0, 1] for marks in chosen))
assert each.amax(2).min() > 0.95 and all(sorted(marks) == [0, 1] for marks in chosen)
assert chosen[0] != chosen[2] and on_mark[1].sum() > 0.85 and on_mark[1].amin() > 0.05

# %% [markdown]
# **What to see.** Nobody told the two heads how to share the work. Each has taken one mark, and looks at hardly anything
# else, with each of three seeds; which takes which differs from seed to seed. The single head is pulled two ways: it favours
# one mark and keeps some weight for the other. Part 9 says what that costs.
#
# ### Looking back, learned
#
# The second network of this part is given letters, eight kinds of them in random order, and must say at each place **which
# letter stood one place before**. What the letters are does not help: only places count. Sinusoids are added; two heads, 600
# steps on sequences of length 16.

# %%
class Before(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Embedding(8, 32), MultiHeadAttention(32, heads=2)
        self.place, self.read = positions.SinusoidalPositions(32), nn.Linear(32, 8)
    def forward(self, letters):
        e = self.place(self.embed(letters))
        return self.read(self.attention(e))

# %%
def fit_before(seed):
    torch.manual_seed(seed)
    model, g = Before(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for letters in torch.randint(8, (600, 64, 16), generator=g):
        loss = F.cross_entropy(model(letters)[:, 1:].flatten(0, 1), letters[:, :-1].flatten())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return model

# %%
def right_by_place(model, length):
    letters = torch.randint(8, (500, length), generator=torch.Generator().manual_seed(1000))
    with torch.no_grad():
        return (model(letters)[:, 1:].argmax(2) == letters[:, :-1]).double().mean(0)

before = fit_before(seed=0)
right_on_16 = right_by_place(before, 16).mean()
print("right on new sequences of length 16 above 0.99:", bool(right_on_16 > 0.99))
assert right_on_16 > 0.99

# %%
with torch.no_grad():
    placed = before.place(before.embed(torch.randint(8, (300, 16))))
    mean_looks = before.attention.weights(placed).mean(0)
fig, axes = plt.subplots(1, 2, figsize=(6, 2.6), sharey=True, width_ratios=[1, 1.2])
for ax, weight in zip(axes, mean_looks, strict=True):
    heatmap(weight, ax=ax, colorbar=ax is axes[1], label="mean weight").set(xlabel="looks at place")
axes[0].set(title="one head", ylabel="place"), axes[1].set(title="the other")
show(fig, alt="Mean weights of two heads; the bright line below the diagonal is the place before.")

# %%
one_before = mean_looks.diagonal(-1, 1, 2)  # heads, 15
worse, better = one_before.mean(1).sort().values
print("the better head's mean weight on the place before above 0.4:", bool(better > 0.4))
assert 0.4 < better < 0.6 and better - worse > 0.05

# %% [markdown]
# **What to see.** The line just below the main diagonal is the pattern of the hand-made head of part 4, with one place back, found
# by training: row $i$ looks at $i - 1$, in one head more than in the other. It is less sharp, with about half of the weight on the
# line in the better head; for a right answer that is enough. (Row 0 has nothing before it, and was not asked.)

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | other sources | here |
# |---|---|---|---|
# | order of the sinusoids | sine and cosine side by side | tensor2tensor: all sines, then all cosines, exponent $f/(d/2 - 1)$ | both: `concatenated=` |
# | biases of the four projections | none | `nn.MultiheadAttention` has them | `bias=` |
# | width of a head | $d/h$ | rows (B) of the paper's table 3 keep $h$ and make $d_k$ smaller | `head_width=` |
# | the weights one gets | – | `nn.MultiheadAttention` returns their *mean over the heads* unless told otherwise | of each head |
# | relative positions | – | vectors added to keys and values (Shaw), a number added to scores (T5) | a number, clipped |
# | the size of the tokens | embeddings times $\sqrt d$ before the sinusoids are added | no part of `nn.MultiheadAttention` | the caller's |
#
# **Two kinds of sinusoids.** Position 50 of 512 features begins differently in the two, and the longest wavelengths differ. Both
# have the rotation property, each with its own frequencies, and so the dot product of two positions depends on their distance
# alone in both. But weights that were trained with one are of little use with the other: the network of part 6, right nearly
# always, falls below one third (a guess among eight letters: 1/8).

# %%
place_50, long = torch.tensor([50.0]).double(), {}
expected = {False: [-0.262375, 0.964966, -0.895339, -0.445386],
            True: [-0.262375, -0.892287, 0.571568, 0.772688]}
for concatenated, values in expected.items():
    found = positions.sinusoids(place_50, 512, concatenated=concatenated)[0, :4]
    assert torch.allclose(found, torch.tensor(values).double(), atol=1e-6)
    long[concatenated] = 2 * torch.pi / positions.frequencies(512, concatenated=concatenated)[-1]
assert [round(value.item()) for value in long.values()] == [60_611, 62_832]

# %%
from copy import deepcopy

other_table = positions.sinusoids(torch.arange(40.0).double(), 32, concatenated=True)
of_three = (other_table @ other_table.T).diagonal(3)
misplaced = deepcopy(before)
misplaced.place = positions.SinusoidalPositions(32, concatenated=True)
assert torch.allclose(of_three, of_three[0].expand(37))
assert right_by_place(misplaced, 16).mean() < 1 / 3

# %% [markdown]
# **The mean over the heads** hides what heads are for. In the network of part 6, each head looks at one mark, and the mean says
# "half here, half there":

# %%
packed = nn.MultiheadAttention(16, 2, bias=False, batch_first=True)
packed.load_state_dict(to_torch(fetchers[2].attention.state_dict()))
with torch.no_grad():
    e = fetchers[2].embed(new_cards[:50])
    averaged, apart = (packed(e[:, :1], e, e, average_attn_weights=m)[1] for m in (True, False))
assert torch.allclose(apart[:, :, 0], looks[2][:50], atol=1e-5)
assert torch.allclose(averaged, apart.mean(1)) and averaged.shape == (50, 1, 8)
assert averaged.amax(2).median() < 0.6 and apart.amax(3).median() > 0.95

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# Four matrices of $d \times d$, however many heads they are cut into. Each of the $n$ tokens goes through all four; the scores
# cost $n^2 d_h$ in each head and the averages the same, and $h\, d_h = d$:
#
# $$\text{parameters} = 4 d^2 \;(+\, 4 d \text{ with biases}), \qquad \text{MACs} = 4 n d^2 + 2 n^2 d \tag{3.14}$$
#
# No $h$ in either. For the base model of the paper, $d = 512$ and $h = 8$, that makes 1,048,576 parameters, and 1,050,624 with
# biases, the number of `nn.MultiheadAttention`:

# %%
from attnlib.lab.cost import count_macs, count_parameters, saved_bytes

for bias, expected_count in ((False, 1_048_576), (True, 1_050_624)):
    base = MultiHeadAttention(512, heads=8, bias=bias), nn.MultiheadAttention(512, 8, bias=bias)
    assert [count_parameters(one) for one in base] == [expected_count, expected_count]
for heads in (1, 2, 4, 8):
    priced = MultiHeadAttention(8, heads=heads, bias=False)
    assert count_parameters(priced) == 4 * 8**2  # (3.14)
    assert count_macs(priced, torch.randn(1, 5, 8)) == 4 * 5 * 8**2 + 2 * 5**2 * 8

# %% [markdown]
# What does grow with $h$ is the number of weights: $h\, n^2$ exponentials instead of $n^2$ (no MACs, so not in this count),
# and as many numbers in memory if one keeps them. The fused kernel does not (02, part 8), and a sequence twice as long then
# keeps twice as much, not four times.
#
# **Positions.** Sinusoids have no parameters, a learned table has `length` times $d$, a relative bias $h\,(2\rho + 1)$. For
# $d = 512$, 8 heads, length 512 and a reach of 128: 0, 262,144 and 2,056.

# %%
def kept(heads, n, whole):
    layer = MultiHeadAttention(16, heads=heads)
    return saved_bytes(layer.weights if whole else layer, torch.randn(1, n, 16))

assert kept(8, 256, True) - kept(1, 256, True) >= 7 * 256**2 * 4
assert kept(8, 512, False) < 2.1 * kept(8, 256, False)
prices = [positions.SinusoidalPositions(512), positions.LearnedPositions(512, 512),
          positions.RelativeBias(8, reach=128)]
assert [count_parameters(one) for one in prices] == [0, 262_144, 2_056]

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# All runs of this part were made beforehand by `notebooks/runs/03_multi_head_and_positions.py`, with five seeds for each
# condition.
#
# ### Two heads against one
#
# **Where it should win by construction:** the game of part 2, with the network of part 6. Its error is a mean over eight numbers,
# so (3.1) says: **at least 1/2 with one head, as long as the weights do not look at the numbers.** To test the bound itself, a
# third network has *blind* keys and queries that see the marks only. **The control:** both $a$ and $b$ are asked from the
# *same* token; then one head is enough.
#
# The rule, before we look: more heads help if the *worst* seed with them has a lower error than the *best* seed with one.
# **Predict** the errors of one head, blind and seeing, and of two and four.

# %%
from attnlib.lab.data import load_results

runs = load_results("03_marks")
runs["name"] = runs["heads"].astype(str) + runs["blind"].map({True: ",\nblind", False: ""})
runs["task"] = runs["same_place"].map({False: "from two places", True: "from one place"})
titles = runs["task"].unique()

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 2.5), sharey=True)
for ax, title in zip(axes, titles, strict=True):
    groups = runs[runs["task"] == title].groupby("name", sort=False)["error"]
    by_name = {name: list(part) for name, part in groups}
    by_seed(by_name, ax=ax, highlight="2", limit=0.5, label="").set(title=title)
axes[0].set(ylabel="error on new cards", ylim=(-0.03, 0.6)), plt.setp(axes, xlabel="heads")
show(fig, alt="Errors by seed. Two places: one blind head at one half, one head a little below it, "
     "two and four heads at zero. One place: all at zero.")

# %%
cells = runs.groupby(["same_place", "heads", "blind"])["error"]
worst, lowest = cells.max(), cells.min()
assert 0.48 < lowest[False, 1, True] < worst[False, 1, True] < 0.52
assert 0.38 < lowest[False, 1, False] < worst[False, 1, False] < 0.48
assert max(worst[False, 2, False], worst[False, 4, False]) < 0.01 and worst[True].max() < 0.01

# %% [markdown]
# **What to see.** By our rule two heads help: their error is below 0.01 with every seed, and that of one head above 0.38. Four
# heads bring nothing more: there are only two places to look at. In the control, one head is as good.
#
# **And the bound?** The blind head sits right on the dashed line, where (3.1) puts it. (Some seeds are a little below 0.50:
# all are tested on the same 4,000 cards, whose numbers happen to have a variance of 0.99 instead of 1.) The seeing head gets
# *below* it, to about 0.43. That is no contradiction: (3.1) was derived for weights that do not look at the numbers, and this
# head's weights do. Its output holds the average of the *marks* too, which is nothing but its two weights on them, so these
# weights can carry a message. In the second cell below a straight line guesses the eight numbers from the two weights alone,
# fitted on one half of the cards and tested on the other. Of one number of the mark that the head neglects, it explains more
# than half of the variance. It is a narrow channel, and two heads make it superfluous. The live runs are those of part 6:

# %%
rows = runs[~runs["same_place"] & ~runs["blind"] & (runs["seed"] == 0)]
stored = rows.set_index("heads")["error"]
with torch.no_grad():
    mean_error = {m: F.mse_loss(fetchers[m](new_cards), new_wanted).item() for m in (1, 2)}
near = all(abs(mean_error[heads] - stored[heads]) < 0.05 for heads in (1, 2))
print("both live runs are near their stored rows:", near)
assert near and mean_error[2] < 0.01 < 0.36 < mean_error[1]
assert round(new_wanted.square().mean().item(), 2) == 0.99

# %%
message = F.pad((looks[1] @ new_cards[..., 8:])[:, 0], (0, 1), value=1.0)  # two weights, and 1
line = torch.linalg.lstsq(message[:2000], new_wanted[:2000]).solution
missed = (message[2000:] @ line - new_wanted[2000:]).square().mean(0)
explained = (1 - missed / new_wanted[2000:].var(0)).view(2, 4).amax(1)  # of a, of b: the best
neglected = on_mark[1][0].argmin().item()
assert explained[neglected] > 0.5 and explained[1 - neglected] < 0.1

# %% [markdown]
# ### Order
#
# Real data: the eight rows of a scanned digit are eight tokens of eight pixels. One block (attention with four heads, then a
# small network for each token, both added to what came in), then the mean over the tokens and a linear layer. Without positions,
# this network is given a *bag* of rows. Three tasks:
#
# - **upright**: is the digit upright, or upside down (its rows in the opposite order)? Without positions, both have the same
#   bag, so the network says the same of both, and is right on exactly one of the two: **1/2, whatever it learns**;
# - **digit**: which digit is it? A bag of rows says a lot about that, but not all;
# - **shuffled**, the control: which digit, when the rows of every image come in a random order? Then places say nothing.
#
# The same rule as above: a kind of positions helps if its worst seed is better than the best seed without. **Predict** for each
# task whether it does. (The dashed lines of the picture are blind guesses.)

# %%
orders = load_results("03_order")
kinds, tasks = ["none", "sinusoids", "learned", "relative"], ["upright", "digit", "shuffled"]

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, task in zip(axes, tasks, strict=True):
    rows = orders[orders["task"] == task].groupby("positions")["accuracy"]
    by_kind = {kind: list(rows.get_group(kind)) for kind in kinds}
    by_seed(by_kind, ax=ax, limit=0.5 if task == "upright" else 0.1, label="").set(title=task)
    ax.tick_params(axis="x", labelsize=8)
axes[0].set(ylabel="right on the test set", ylim=(0, 1.02))
show(fig, alt="Accuracy by seed in three tasks, for no positions, sinusoids, learned, relative.")

# %%
spread = orders.groupby(["task", "positions"])["accuracy"].agg(["min", "max", "mean"])
best_without = {task: spread.loc[(task, "none"), "max"] for task in tasks}
helps = {task: [kind for kind in kinds if spread.loc[(task, kind), "min"] > best_without[task]]
         for task in tasks}
for task, which in helps.items():
    print(f"{task}: by our rule these help: {', '.join(which) or 'none'}")
assert helps == {"upright": kinds[1:], "digit": kinds[1:3], "shuffled": []}

# %% [markdown]
# **What to see.** *Upright*: without positions all seeds are near 1/2 (each test image was shown one way only, so that the share
# is not exactly 1/2), with any kind they are above 0.8. *Digit*: sinusoids and learned positions help, from a mean of 0.80 to 0.91
# and 0.88. For the relative bias **we find no difference** here, though it helped in *upright*. A likely reason, which we did not
# test: it tells a head which of two rows is the lower one and how far away, but no number of it says "this is the top row".
# *Shuffled*: nothing helps, as it should be. (The sinusoids' seeds even lie at the lower end: places that mean nothing are noise.)
#
# One thing more. Without positions the tasks *digit* and *shuffled* are the same task, image by image, in training and in
# testing. Seed by seed the results should agree but for rounding:

# %%
bag = orders[orders["positions"] == "none"].pivot(index="seed", columns="task", values="accuracy")
print("digit and shuffled agree within 0.01 for each seed:",
      bool((bag["digit"] - bag["shuffled"]).abs().max() < 0.01))
assert (bag["digit"] - bag["shuffled"]).abs().max() < 0.01
assert (bag["upright"] - 0.5).abs().max() < 0.03
assert all(spread.loc[("upright", kind), "min"] > 0.8 for kind in kinds[1:])
assert [round(spread.loc[("digit", kind), "mean"], 2) for kind in kinds[:3]] == [0.80, 0.91, 0.88]

# %% [markdown]
# Now live. A network without positions says exactly the same of a digit and of its upside-down image, trained or not. And one
# run with sinusoids (thirty epochs, new turns in each) must come out near the five stored ones:

# %%
def read_rows(model, x):
    e = model.place(model.embed(x))
    e = e + model.attention(e)
    return model.read((e + model.hidden(e)).mean(1))

def turned(images, seed):
    turn = torch.rand(len(images), generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.where(turn[:, None, None], images.flip(1), images), turn.long()

# %%
class Rows(nn.Module):
    def __init__(self, place):
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 32), MultiHeadAttention(32, heads=4)
        self.place = place
        self.hidden = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.read = nn.Linear(32, 2)
    forward = read_rows

# %%
def fit_rows(model, seed):
    optimizer, images = torch.optim.Adam(model.parameters(), lr=0.003), digits.images[:, 0]
    for epoch in range(30):
        x, y = turned(images, 100 * seed + epoch)
        for part in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad(), loss.backward(), optimizer.step()
    return model

# %%
torch.manual_seed(0)
placed_rows, unplaced = Rows(positions.SinusoidalPositions(32)), Rows(nn.Identity())
fit_rows(placed_rows, seed=0)
shown_rows, upside = turned(load_digits("test").images[:, 0], 1000)
with torch.no_grad():  # without positions, upright or not is the same
    assert torch.allclose(unplaced(shown_rows), unplaced(shown_rows.flip(1)), atol=1e-5)
    live = (placed_rows(shown_rows).argmax(1) == upside).double().mean()
assert (spread.loc[("upright", "sinusoids"), ["min", "max"]] - live.item()).abs().max() < 0.1

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Longer than trained
#
# The task of part 6 again: which letter stood one place before? Trained on length 16 only, tested on up to 64. What do the three
# kinds of positions promise? *Learned*: nothing, rows 16 to 63 of the table were never trained. *Sinusoids*: every position has
# its vector, and by (3.7) one matrix serves them all. *Relative*: the distance 1 is the same distance everywhere.
#
# **Predict** the accuracy over the place, in a sequence of 64, for the three.

# %%
by_place, by_length = {}, {}
for kind, rows in load_results("03_longer").groupby("positions"):
    of_64 = rows[rows["length"] == 64].pivot(index="seed", columns="places_from", values="accuracy")
    lengths = rows.pivot_table(index="seed", columns="length", values="accuracy")
    by_place[kind], by_length[kind] = torch.tensor(of_64.values), torch.tensor(lengths.values)

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 2.5), sharey=True)
curves(by_place, x=range(4, 64, 8), ax=axes[0]).axvline(16, color="grey", ls=":")
curves(by_length, x=[16, 32, 48, 64], ax=axes[1]).axhline(1 / 8, color="black", ls="--", lw=1)
axes[0].set(xlabel="place, in a sequence of 64", ylabel="right", ylim=(0, 1.05))
axes[1].set(xlabel="length of the sequence", xticks=[16, 32, 48, 64])
axes[0].get_legend().remove(), axes[1].legend(loc="lower left", fontsize=8)
show(fig, alt="Left, accuracy over place: learned falls at 16, sinusoids too but less, relative is "
     "level near 0.88. Right: all fall with length, relative least.")

# %%
assert all(kind[:, 0].min() > 0.999 for kind in by_length.values())  # at the trained length
assert by_place["learned"][:, :2].min() > 0.99 and by_place["learned"][:, 2:].max() < 0.2
assert by_place["sinusoids"][:, 2:].mean(1).max() < 0.5 and by_place["sinusoids"][:, 1].max() < 0.96
assert by_place["sinusoids"][:, 2:].min() > 1 / 8
relative_line = by_place["relative"]
assert (relative_line.amax(1) - relative_line.amin(1)).max() < 0.05
assert by_length["relative"][:, 3].min() > 0.85 and by_length["relative"][:, 3].max() < 0.9

# %% [markdown]
# **What to see.** *Learned* positions are perfect up to place 15 and then fall nearly to chance (1/8, dashed on the right).
# *Sinusoids* are better than chance from place 16 on, but less than half of their answers there are right, with every seed: a
# matrix that serves all positions *exists*, but training on 16 of them did not find it. Some places *inside* the trained
# range suffer too: their queries meet keys they have never seen, and some of those score well. *Relative* does not care for
# the place: its line is level. But it lies lower the longer the sequence. Why?
#
# Say the wanted key scores $s$ higher than each of the $m - 1$ others. Then its weight is
#
# $$\frac{e^{s}}{e^{s} + (m - 1)} = \frac{1}{1 + (m - 1)\, e^{-s}} \tag{3.15}$$
#
# The others take a little each, and with $m$ there are more of them. With $s = 5$ it is 0.91 among 16 keys and 0.70 among 64. To
# hold a weight, $s$ must grow with $\ln m$. So positions are only one half of the matter of length: the softmax itself thins out.

# %%
from math import exp

for m, rounded in ((16, 0.91), (64, 0.70)):
    of_wanted = F.pad(torch.tensor([5.0]).double(), (0, m - 1)).softmax(0)[0]
    assert abs(of_wanted - 1 / (1 + (m - 1) * exp(-5))) < 1e-12  # (3.15)
    assert round(of_wanted.item(), 2) == rounded
live_before = right_by_place(before, 64)
print("the live network of part 6 falls too:", bool(live_before[16:].mean() < 0.7))
assert live_before[16:].mean() < 0.7

# %% [markdown]
# ### How narrow may a head be?
#
# More heads are free, by (3.14), but each is narrower. Take it to the end: $d_h = 1$. Queries and keys are then plain numbers, and
# $S_{ij} = q_i k_j$ is a straight line in $k_j$, so it is largest at one of the two ends:
#
# $$\arg\max_j S_{ij} \;\in\; \big\{ \arg\max_j k_j,\; \arg\min_j k_j \big\} \qquad \text{for every query } i \tag{3.16}$$
#
# Whoever asks, only *two* tokens can ever be a favourite. In a plane ($d_h = 2$) that is over: put the keys on a circle, and
# every one of them is the favourite of the query that points its way.

# %%
q, k = torch.randn(2, 500, 1)
assert set((q @ k.T).argmax(1).tolist()) == {k.argmax().item(), k.argmin().item()}  # (3.16)
angles = torch.arange(50) * 2 * torch.pi / 50
circle = torch.stack([angles.cos(), angles.sin()], 1)
assert ((circle @ circle.T).argmax(1) == torch.arange(50)).all()

# %% [markdown]
# In the look-up game of notebook 02 every question must find the answer with its own key, one of eight, and name the value
# that stands there, one of four (dashed: a blind guess). **Predict** who solves it: one head of width 1, 2, 4 or 16; four heads of
# width 1; sixteen heads of width 1 (as many numbers as one head of 16)?

# %%
narrow = load_results("03_narrow")
narrow["name"] = narrow["heads"].astype(str) + " × " + narrow["head_width"].astype(str)
by_name = {name: list(part["accuracy"]) for name, part in narrow.groupby("name", sort=False)}
ax = by_seed(by_name, ax=plt.subplots(figsize=(6, 2.8))[1], limit=0.25, label="")
ax.set(xlabel="heads × width of a head", ylabel="right on new questions", ylim=(0, 1.05))
show(ax.figure, alt="Accuracy by seed: one head of width 1 at one half, four of them at three "
     "quarters, sixteen of them and all wider heads at 1.")

# %%
accuracy = {name: torch.tensor(values) for name, values in by_name.items()}
assert all(accuracy[name].min() > 0.99 for name in ("1 × 2", "1 × 4", "1 × 16", "16 × 1"))
assert round(2 / 8 + 6 / 8 / 4, 2) == 0.44 < accuracy["1 × 1"].min()
assert accuracy["1 × 1"].min() > 0.48 and accuracy["1 × 1"].max() < 0.55
assert accuracy["4 × 1"].min() > 0.75 and accuracy["4 × 1"].max() < 0.80

# %% [markdown]
# **What to see.** One head of width 1 is right about half of the time. (3.16) leaves it two favourites for eight keys: two
# sure answers and a guess for the other six would make $2/8 + 6/8 \cdot 1/4 \approx 0.44$. It does a little better; a likely
# reason, which we did not test, is that its averages say which values are frequent in this sequence. Width 2 is enough, with
# every seed. Four heads of width 1 reach three quarters, and sixteen of them solve the game: none of them can find a key on
# its own, but their sum can. So for this game the narrowness that (3.16) proves for *one* head did no harm to sixteen of
# them.
#
# ### Exercise 03.4 · bug gallery · *Depth* · 15 minutes
#
# Three mistakes stand in these lines. `x` is (b, n, d), the matrices are (d, d), `mask` is (b, n, n), True where a query may
# attend. The shapes of the result are right, and where b is 1 or happens to equal `heads`, it runs. Find all three.
#
# ```python
# def forward(x, W_Q, W_K, W_V, W_O, heads, mask):
#     b, n, d = x.shape
#     q, k, v = ((x @ W).view(b, heads, n, d // heads) for W in (W_Q, W_K, W_V))
#     scores = q @ k.mT / d ** 0.5
#     weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
#     return (weights @ v).transpose(1, 2).flatten(2) @ W_O
# ```
#
# <details><summary>Hint 1</summary>
#
# Which numbers does the first head get? Try `torch.arange(12).view(1, 3, 4)` with two heads. And which width belongs into the
# scale?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `view(b, n, heads, d // heads)` cuts the features; then exchange axes 1 and 2. The scale takes the width of one head.
#
# </details>
# <details><summary>Hint 3</summary>
#
# A mask (b, n, n) beside scores (b, heads, n, n): from the right, its batch meets the heads. `mask[:, None]` puts it right.
#
# </details>

# %% tags=["exercise"]
def mended(x, W_Q, W_K, W_V, W_O, heads, mask):
    """x (b, n, d), matrices (d, d), mask (b, n, n), True = may attend -> (b, n, d)."""
    raise NotImplementedError

mended = check("03.4", mended)

# %% tags=["solution"]
def mended(x, W_Q, W_K, W_V, W_O, heads, mask):
    b, n, d = x.shape
    q, k, v = ((x @ W).view(b, n, heads, d // heads).transpose(1, 2) for W in (W_Q, W_K, W_V))
    scores = q @ k.mT / (d // heads) ** 0.5
    weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2) @ W_O

# %% [markdown]
# The first and the third were found in public code. A split without a transpose stood in a library of recommender models
# ([FuxiCTR, issue 30](https://github.com/reczoo/FuxiCTR/issues/30)), its sister, a join without one, in a teaching repository
# whose training test passed all the same ([transformer-from-scratch, pull request
# 6](https://github.com/jsbaan/transformer-from-scratch/pull/6)), and a mask whose batch was taken for the heads in
# [graph-transformer-pytorch, pull request 2](https://github.com/lucidrains/graph-transformer-pytorch/pull/2).
#
# The wrong split is the nastiest. It cuts the *sequence* into as many pieces as there are heads, so the first "place" of the
# second head is a token from the middle. Behind a causal mask, the first output then depends on what comes later:

# %%
from attnlib import causal_mask

def wrong_split(x, heads=2):
    q = x.view(len(x), heads, -1, x.shape[2] // heads)
    heads_out = dot_product_attention(q, q, q, mask=causal_mask(x.shape[1]))[0]
    return heads_out.transpose(1, 2).flatten(2)

# %%
tokens = torch.arange(12).view(1, 3, 4)  # three tokens of four features
assert tokens.view(1, 2, 3, 2)[0, 1].tolist() == [[6, 7], [8, 9], [10, 11]]  # of tokens 1 and 2
six = torch.randn(1, 6, 4).double().requires_grad_()
(leak,) = torch.autograd.grad(wrong_split(six)[0, 0].sum(), six)
print("tokens that the first output depends on:", leak[0].abs().sum(1).nonzero()[:, 0].tolist())
right_one = mended(six, *torch.randn(4, 4, 4).double(), heads=2, mask=causal_mask(6)[None])
(clean,) = torch.autograd.grad(right_one[0, 0].sum(), six)
assert leak[0, 3].abs().max() > 1e-3 and (clean[0, 1:] == 0).all()

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# This notebook owns no row of the course's list of claims. The one about scores is settled in
# [02_self_attention](02_self_attention.ipynb). What a layer's output listens to once a relative bias is in it belongs to
# [10_spatial_attention](10_spatial_attention.ipynb), which asks it for feature maps: here (3.10) says that the *weights* then
# depend on distances too.
#
# ## 12 · Exercises
#
# 03.1 and 03.2 stand in part 4, 03.3 in part 5 and 03.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 03.5 · silence a head · *Depth* · 10 minutes
#
# What does one head contribute? Take it out and see what is missing. By (3.5) that needs a change of one matrix only: return a
# new $W_O$ with which head `t` (counted from 0) adds nothing, and all other heads what they did. `W_O` is (d, d) as in (3.3), and
# must stay as it is.
#
# <details><summary>Hint 1</summary>
#
# In $C W_O$, the columns of $C$ that belong to head $t$ meet certain *rows* of $W_O$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# With $d_h = d / h$ and heads counted from 0, they are the rows $t\, d_h$ to $(t + 1)\, d_h - 1$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `result = W_O.clone()`, then `result[t * d_h : (t + 1) * d_h] = 0`.
#
# </details>

# %% tags=["exercise"]
def silence(W_O, heads, t):
    """W_O (d, d) -> the same without what head t adds, (d, d)."""
    raise NotImplementedError

silence = check("03.5", silence)

# %% tags=["solution"]
def silence(W_O, heads, t):
    d_h, result = len(W_O) // heads, W_O.clone()
    result[t * d_h : (t + 1) * d_h] = 0
    return result

# %% [markdown]
# On the two heads of part 6 it shows who does what. **Predict** the errors of $a$ and of $b$ when the head that looks at the first
# mark is silenced.

# %%
def error_without(t):
    mute = deepcopy(fetchers[2])
    mute.attention.W_O.weight.data = silence(mute.attention.W_O.weight.data.T, 2, t).T
    with torch.no_grad():
        squares = (mute(new_cards) - new_wanted).square()
    return squares[:, :4].mean().item(), squares[:, 4:].mean().item()

# %%
looks_at_first = on_mark[2][:, 0].argmax().item()
a_alone, b_alone = error_without(looks_at_first)
print(f"without the head on the first mark: error of a {a_alone:.1f}, of b {b_alone:.1f}")
assert abs(a_alone - 1) < 0.05 and b_alone < 0.02
assert error_without(1 - looks_at_first)[0] < 0.02

# %% [markdown]
# The error of $a$ rises to 1, as if nobody had answered; that of $b$ does not notice. Do not expect such clean work
# elsewhere: this game has just two things to do, and two heads.
#
# ## 13 · Summary
#
# | what | equation | here | in the paper |
# |---|---|---|---|
# | one average for two wishes | $e_a + e_b \ge 1$ | (3.1) | – |
# | a head | attention with $W_Q^{(t)}, W_K^{(t)}, W_V^{(t)}$ | (3.2) | section 3.2.2 |
# | joining | $Y = [O^{(1)} \cdots O^{(h)}]\, W_O = \sum_t P^{(t)} X W_V^{(t)} W_O^{(t)}$ | (3.3), (3.5) | section 3.2.2 |
# | what a head compares | $B^{(t)} = W_Q^{(t)} W_K^{(t)\top}$, rank $\le d_h$ | (3.4) | – |
# | sinusoids | $\sin \omega_f p,\; \cos \omega_f p$ | (3.6) | section 3.5 |
# | a step is a rotation | $\mathrm{PE}(p + k) = R_k \mathrm{PE}(p)$ | (3.7), (3.8) | named in words |
# | relative bias | $S_{ij} + r_\delta$ | (3.10) | – |
# | backward | $\partial L / \partial O^{(t)} = G W_O^{(t)\top}$ | (3.11) to (3.13) | – |
# | price | $4 d^2$ parameters, $4 n d^2 + 2 n^2 d$ MACs, for any $h$ | (3.14) | table 1 |
#
# Notation: our $d$ and $d_h$ are the paper's $d_\text{model}$ and $d_k = d_v$; the paper counts the pairs of (3.6) by $i$.
#
# - A head is one average. Two wishes from two places need two, and two cost no more than one: the features are cut up.
# - Putting heads side by side and multiplying by $W_O$ is adding them up.
# - Without positions a sequence is a bag. Sinusoids and learned tables say where a token stands, a relative bias how far away;
#   in our digit tasks the two things were not worth the same.
# - Beyond the trained length learned positions fail at once, sinusoids mostly, and a relative bias only as far as the softmax
#   thins out.
# - A head of width 1 knows two favourites only, one of width 2 any number of them. Many narrow heads together make up for it,
#   in our game at least.
#
# **Sources.** Vaswani and others, arXiv 1706.03762; Shaw, Uszkoreit, Vaswani, arXiv 1803.02155; Raffel and others, arXiv
# 1910.10683; Gehring and others, arXiv 1705.03122 (learned positions); tensor2tensor's `get_timing_signal_1d` in its ports.
#
# **Back:** [02_self_attention](02_self_attention.ipynb) · **Next:** [04_recurrent_attention](04_recurrent_attention.ipynb),
# where attention began: inside a translator that reads and writes one word after the other. The map of the course is in
# [00_start_here](00_start_here.ipynb).
