# %% [markdown]
# # 00 · Toolbox
#
# **The question.** Which pieces of mathematics and of network building does the rest of the course use without
# stopping to explain them?
#
# **The answer in one sentence.** Seven: the softmax, gradients passed backwards as products of a vector with a
# Jacobian, the variance of sums and products, convolution, batch normalisation, the residual block, and one step of
# a gated recurrent unit.
#
# **How to use it.** Every page stands on its own and opens with a self-test. Write the function, run its cell,
# and if it says "right", **skip the page**. If it does not, read the page and come back. You need not read any of
# this now: each notebook names the pages that it needs.
#
# **Time.** About 2¾ hours for everything; 3 minutes for a self-test that you pass at once (5 and 7: about 8 minutes).
#
# | page | minutes | first used in |
# |---|---|---|
# | [1. Softmax and its Jacobian](#1.-Softmax-and-its-Jacobian) | 20 | [01_what_is_attention](01_what_is_attention.ipynb) |
# | [2. Vector-Jacobian products](#2.-Vector-Jacobian-products) | 20 | [02_self_attention](02_self_attention.ipynb) |
# | [3. Variance rules](#3.-Variance-rules) | 20 | [02_self_attention](02_self_attention.ipynb) |
# | [4. Convolution and counting its MACs](#4.-Convolution-and-counting-its-MACs) | 25 | [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb) |
# | [5. BatchNorm](#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass) | 35 | [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb) |
# | [6. The residual block](#6.-The-residual-block) | 20 | [05_transformer](05_transformer.ipynb) |
# | [7. One GRU step](#7.-One-GRU-step) | 25 | [04_recurrent_attention](04_recurrent_attention.ipynb) |
#
# **Prerequisites.** Partial derivatives and matrix products; tensors in PyTorch. Where this notebook stands in the
# course, and how exercises work, is in [00_start_here](00_start_here.ipynb).
#
# | symbol | meaning |
# |---|---|
# | $L$ | a loss: one number at the very end of a computation |
# | $g$ | the gradient $\partial L / \partial y$ that arrives at the output $y$ of a step; always of $y$'s shape |
# | $J$ | a Jacobian: row $i$, column $j$ holds $\partial y_i / \partial x_j$ |
# | $p \odot q$ | the product entry by entry |
# | $\mathrm{diag}(p)$ | the matrix with $p$ on its diagonal and zeros elsewhere |
# | $\delta_{ij}$ | 1 where $i = j$, otherwise 0 |
#
# Some letters change their meaning from page to page, as they do in the literature. $\sigma(t)$, with an argument, is
# the logistic sigmoid $1/(1+e^{-t})$; $\sigma$ alone is a standard deviation and $\sigma^2$ a variance. $s$ is a
# score on page 1, a stride on page 4 and a gate on page 6 and in Part II; in Part I it is also a decoder's state. $r$
# and $z$ are gates on page 7; in [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb), $r$ is a reduction and
# $z$ a mean. $p$ is a probability on page 1 and a padding on page 4; $G$ stacks gradients on page 2 and counts groups
# on page 4; $F$ is a branch on page 6, and `F` in the code PyTorch's functions. $n$ and $m$ mostly count; but $m$ is
# also a largest weight (page 1) and a momentum (page 5), and $n$ a candidate (page 7). $a$ is whatever its page says.

# %%
import torch
from torch.nn import functional as F

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# The next cell holds what several pages use. Run these two cells first; after them you can go to any page, in any order.

# %%
import matplotlib.pyplot as plt

from attnlib.lab.cost import count_macs, count_parameters
from attnlib.lab.data import batches, load_digits
from attnlib.lab.gradients import compare_gradients, jacobian
from attnlib.lab.plots import heatmap, pictures

# %% [markdown]
# ## 1. Softmax and its Jacobian
#
# **What it is for.** Attention turns scores into weights with a softmax. How a change of one score moves all the
# weights decides what attention can learn, and why [02_self_attention](02_self_attention.ipynb) divides its scores by
# a square root. About 20 minutes.
#
# ### Self-test 1
#
# The rows of `p` are results of a softmax over the last axis; `g` holds $\partial L/\partial p$. Return the gradient
# for the scores. **If this is easy, skip the page.** The test does not cover saturation, (1.5).
#
# <details><summary>Hint 1</summary>
#
# If a score rises, its own probability rises and all the others fall. What is the derivative of $p_i$ by $s_j$?
#
# </details>
# <details><summary>Hint 2</summary>
#
# $\partial p_i/\partial s_j = p_i(\delta_{ij} - p_j)$. Multiply by $g_i$ and sum over $i$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The sum over $i$ is $p_j g_j - p_j \sum_i p_i g_i$. The second sum runs along a row: keep its axis for broadcasting.
#
# </details>

# %% tags=["exercise"]
def softmax_vjp(p, g):
    """p and g (b, n) -> the gradient for the scores, (b, n)."""
    raise NotImplementedError

softmax_vjp = check("toolbox.1", softmax_vjp)

# %% tags=["solution"]
def softmax_vjp(p, g):
    return p * (g - (p * g).sum(-1, keepdim=True))

# %% [markdown]
# ### From scores to shares
#
# We have $n$ scores and want $n$ shares: positive numbers that sum to one, larger where the score is larger. Take the
# exponential of each score, which makes it positive, and divide by the total:
#
# $$p_i = \frac{e^{s_i}}{\sum_k e^{s_k}} \tag{1.1}$$
#
# With a pencil: let $s = (0, \ln 2, \ln 5)$. The exponentials are 1, 2 and 5, their sum is 8, and so
# $p = (\tfrac18, \tfrac28, \tfrac58)$.

# %%
s = torch.tensor([1, 2, 5]).double().log()
p = s.exp() / s.exp().sum()
assert torch.allclose(8 * p, torch.tensor([1, 2, 5]).double())  # (1.1)
assert torch.allclose(p, s.softmax(0))

# %% [markdown]
# Add the same number $c$ to every score. Each exponential is multiplied by $e^c$, above and below the fraction bar,
# and the factor cancels. The softmax sees only **differences** of scores:
#
# $$\mathrm{softmax}(s + c) = \mathrm{softmax}(s) \tag{1.2}$$
#
# This is also how it is computed: one subtracts the largest score first, so that no exponential overflows. And it
# means that a constant added to all scores of a row, such as the last bias of a scoring network, can never be learnt.

# %%
assert torch.allclose((s + 100).softmax(0), p)  # (1.2)
large, small = torch.tensor([1000.0, 1001.0]), torch.tensor([0.0, 1.0])
assert large.exp().isinf().all() and torch.allclose(large.softmax(0), small.softmax(0))

# %% [markdown]
# ### The Jacobian
#
# Write $Z = \sum_k e^{s_k}$, so that $p_i = e^{s_i}/Z$ and $\partial Z / \partial s_j = e^{s_j}$. The quotient rule gives
#
# $$\frac{\partial p_i}{\partial s_j} = \frac{\delta_{ij}\, e^{s_i}}{Z} - \frac{e^{s_i}\, e^{s_j}}{Z^2},$$
#
# and both fractions are made of probabilities again:
#
# $$\frac{\partial p_i}{\partial s_j} = p_i\,(\delta_{ij} - p_j), \qquad
# J = \mathrm{diag}(p) - p\,p^\top \tag{1.3}$$
#
# For our three scores, on the diagonal: $\frac18(1 - \frac18) = \frac{7}{64}$, $\frac28 \cdot \frac68 = \frac{12}{64}$,
# $\frac58 \cdot \frac38 = \frac{15}{64}$. Beside it: $-\frac18 \cdot \frac28 = -\frac{2}{64}$, and so on.
#
# $$J = \frac{1}{64} \begin{pmatrix} 7 & -2 & -5 \\ -2 & 12 & -10 \\ -5 & -10 & 15 \end{pmatrix}$$
#
# Every row sums to zero. It has to: by (1.2), moving all scores together changes nothing.

# %%
J = p.diag() - torch.outer(p, p)
by_hand = torch.tensor([[7, -2, -5], [-2, 12, -10], [-5, -10, 15]]).double() / 64
assert torch.allclose(J, by_hand) and torch.allclose(J.sum(1), torch.zeros(3).double())
assert torch.allclose(J, jacobian(lambda s: s.softmax(0), s))  # (1.3)

# %% [markdown]
# ### Backwards without the matrix
#
# A gradient $g = \partial L/\partial p$ arrives, and we want $\partial L/\partial s_j = \sum_i g_i\, \partial p_i/\partial
# s_j$. Put in (1.3): the $\delta_{ij}$ leaves $p_j g_j$, and the rest is $p_j$ times a sum that is the same for all $j$.
#
# $$\frac{\partial L}{\partial s} = J^\top g = p \odot \big(g - p^\top g\big) \tag{1.4}$$
#
# Here $p^\top g$ is one number (in a batch, one for each row): the mean of $g$, weighted by $p$. So the gradient of a score
# is positive where its $g$ lies above that mean: gradient descent lowers this score, and raises those whose $g$ lies
# below. There is no $n \times n$ matrix left; in a Transformer, where every query has such a row, this matters.

# %%
scores = torch.randn(4, 6).double().requires_grad_()
p, g = scores.softmax(-1), torch.randn(4, 6).double()
(found,) = torch.autograd.grad(p, scores, g)
assert torch.allclose(softmax_vjp(p.detach(), g), found)  # (1.4)

# %% [markdown]
# ### A saturated softmax does not learn
#
# How large is $J$? For any vector $a$, formula (1.3) gives $a^\top J a = \sum_i p_i a_i^2 - (\sum_i p_i a_i)^2$. That is
# the variance of $a$ when entry $i$ is drawn with probability $p_i$, so no eigenvalue of $J$ is negative. The largest
# one, for which we write $\lVert J \rVert$, is then at most their sum, the trace of $J$:
#
# $$\lVert J \rVert \;\le\; \mathrm{tr}\, J = 1 - \sum_i p_i^2 \;\le\; 2\,(1 - \max_i p_i) \tag{1.5}$$
#
# The last step uses $\sum_i p_i^2 \ge m^2$ for the largest weight $m$, and $1 - m^2 = (1 - m)(1 + m) \le 2(1 - m)$.
# If one weight is near 1, every entry of $J$ is near 0, and by (1.4) so is every gradient that passes through.

# %%
for scale in (0.5, 2.0, 8.0):
    p = (scale * torch.randn(20, 5).double()).softmax(-1)
    J = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    size, bound = torch.linalg.eigvalsh(J)[:, -1], 1 - (p**2).sum(1)
    assert (size <= bound + 1e-12).all() and (bound <= 2 * (1 - p.amax(1)) + 1e-12).all()  # (1.5)

# %% [markdown]
# **Predict before you go on:** five scores, $-2, -1, 0, 1, 2$, are multiplied by 0.5, by 2 and by 8. Which of the three
# Jacobians has the largest entries, and what does the last one look like?

# %%
scores = torch.linspace(-2, 2, 5).double()
shares = {scale: (scale * scores).softmax(0) for scale in (0.5, 2, 8)}
jacobians = {scale: p.diag() - torch.outer(p, p) for scale, p in shares.items()}
largest = [J.max() for J in jacobians.values()]
assert largest[0] > 0.2 > largest[1] > 0.1 and largest[2] < 0.001

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, (scale, J) in zip(axes, jacobians.items(), strict=True):
    J = J.round(decimals=2) + 0.0  # + 0.0 makes 0.00 of -0.00
    heatmap(J, ax=ax, limits=(-0.25, 0.25), signed=True, numbers=True, colorbar=scale == 8)
    ax.set(title=f"scores x {scale:g}, largest p = {shares[scale].max():.2f}", xlabel="score j")
axes[0].set(ylabel="weight i")
show(fig, alt="Three softmax Jacobians for scores multiplied by 0.5, 2 and 8. The first two have "
     "entries of 0.1 and more, the third is zero everywhere to two digits.")

# %% [markdown]
# **What to see.** Red on the diagonal, blue beside it: a score lifts its own weight and lowers the others. With the
# factor 2, only the two leaders still compete. With the factor 8 the whole matrix is zero to two digits: the softmax has
# decided, and the gradient can no longer change its mind.
#
# **In one line.** $J = \mathrm{diag}(p) - pp^\top$; back through it goes $p \odot (g - p^\top g)$; and it vanishes when one
# weight takes everything.

# %% [markdown]
# ## 2. Vector-Jacobian products
#
# **What it is for.** Every backward pass in this course ([02_self_attention](02_self_attention.ipynb),
# [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb), and a piece in each notebook after them) is made of
# the few rules on this page. About 20 minutes.
#
# ### Self-test 2
#
# A linear layer computes $y = x W^\top + b$ for a batch: `x` is (n, d_in), `W` is (d_out, d_in), `g` $= \partial
# L/\partial y$ is (n, d_out). Return the gradients for `x`, `W` and `b`, in this order. **If this is easy, skip the page.**
# The test does not cover the table of rules (products, means, copies, a maximum).
#
# <details><summary>Hint 1</summary>
#
# A gradient has the shape of the thing it belongs to. Only one product of `g` and `W` has the shape of `x`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `W` and `b` are used by every example of the batch, so the contributions of the examples add up.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `g @ W` for `x`; a product of `g.T` and `x` for `W`; for `b`, add up the rows of `g`.
#
# </details>

# %% tags=["exercise"]
def linear_backward(g, x, W):
    """g (n, d_out), x (n, d_in), W (d_out, d_in) -> the gradients for x, W and b."""
    raise NotImplementedError

linear_backward = check("toolbox.2", linear_backward)

# %% tags=["solution"]
def linear_backward(g, x, W):
    return g @ W, g.T @ x, g.sum(0)

# %% [markdown]
# ### One step
#
# A step takes $x$ (with $n$ entries) to $y$ (with $m$ entries), and somewhere behind it stands the loss. Suppose that we
# know $g_i = \partial L/\partial y_i$. By the chain rule, $x_j$ moves the loss through every $y_i$:
#
# $$\frac{\partial L}{\partial x_j} = \sum_{i=1}^m g_i\, \frac{\partial y_i}{\partial x_j}, \qquad\text{that is}\qquad
# \frac{\partial L}{\partial x} = J^\top g \tag{2.1}$$
#
# This is called a **vector-Jacobian product** (VJP), because it may also be written as the row vector $g^\top J$.
#
# With a pencil: let $y = (x_1 x_2,\; x_1 + x_2,\; x_2^2)$ at $x = (3, 2)$. The rows of the Jacobian are the derivatives
# of the three outputs, and let $g = (1, -1, 2)$ arrive:
#
# $$J = \begin{pmatrix} x_2 & x_1 \\ 1 & 1 \\ 0 & 2x_2 \end{pmatrix} =
# \begin{pmatrix} 2 & 3 \\ 1 & 1 \\ 0 & 4 \end{pmatrix}, \qquad
# J^\top g = \begin{pmatrix} 2 - 1 + 0 \\ 3 - 1 + 8 \end{pmatrix} = \begin{pmatrix} 1 \\ 10 \end{pmatrix}$$

# %%
x = torch.tensor([3.0, 2.0], requires_grad=True)
y = torch.stack([x[0] * x[1], x[0] + x[1], x[1] ** 2])
J, g = torch.tensor([[2.0, 3.0], [1.0, 1.0], [0.0, 4.0]]), torch.tensor([1.0, -1.0, 2.0])
(found,) = torch.autograd.grad(y, x, g)
assert (J.T @ g).tolist() == found.tolist() == [1, 10]  # (2.1)

# %% [markdown]
# ### Many steps, from the right end
#
# Let three steps stand one behind the other, with Jacobians $J_1$, $J_2$, $J_3$. The Jacobian of the whole is the product
# $J_3 J_2 J_1$, and its VJP can be bracketed as we like:
#
# $$\frac{\partial L}{\partial x} = (J_3 J_2 J_1)^\top g = J_1^\top\big(J_2^\top\big(J_3^\top g\big)\big) \tag{2.2}$$
#
# The brackets on the right start at the loss and never multiply two matrices. With square Jacobians of size $n$ they
# cost $3n^2$ multiplications; building the product first costs $2n^3 + n^2$. For $n = 100$ that is 30,000 against more
# than two million. This is all that "backpropagation" means: **go from the loss backwards, and carry a vector**.

# %%
J_1, J_2, J_3 = torch.randn(3, 100, 100).double() / 10
g = torch.randn(100).double()
assert torch.allclose((J_3 @ J_2 @ J_1).T @ g, J_1.T @ (J_2.T @ (J_3.T @ g)))  # (2.2)
assert 3 * 100**2 == 30_000 and 2 * 100**3 + 100**2 == 2_010_000

# %% [markdown]
# ### The rules that come back again and again
#
# We never write the matrices down, since most of them are nearly empty. If $y_i = f(x_i)$ entry by entry, the Jacobian
# is diagonal, and the VJP is a product entry by entry:
#
# $$y = f(x) \;\Rightarrow\; \frac{\partial L}{\partial x} = f'(x) \odot g \tag{2.3}$$
#
# If one number $x$ is used in several places, each use sends a gradient back, and (2.1) says that **they add up**:
#
# $$y_i = f_i(x) \text{ for } i = 1 \dots m \;\Rightarrow\; \frac{\partial L}{\partial x} = \sum_i g_i\, f_i'(x) \tag{2.4}$$
#
# Most other rules follow from these two:
#
# | forward | backward |
# |---|---|
# | $y = x_1 + x_2$ | both get $g$ |
# | $y = x_1 x_2$ | $x_1$ gets $g\,x_2$, and $x_2$ gets $g\,x_1$ |
# | a sum over entries | every entry gets $g$ |
# | a mean over $N$ entries | every entry gets $g/N$ |
# | one number copied to many places | the sum of all their $g$ |
# | a maximum | the winner gets $g$, all others get 0 |
#
# Note the symmetry: a sum turns into copies, and copies turn into a sum.

# %%
x, g = torch.randn(7).double().requires_grad_(), torch.randn(7).double()
(found,) = torch.autograd.grad(x.tanh(), x, g)
assert torch.allclose(found, (1 - x.tanh() ** 2) * g)  # (2.3)

gate, features = torch.tensor(0.3).double().requires_grad_(), torch.randn(7).double()
(found,) = torch.autograd.grad(gate * features, gate, g)  # one gate, copied to seven places
assert torch.allclose(found, (g * features).sum())  # (2.4)

# %% [markdown]
# ### A linear layer
#
# For one example, $y = W x + b$, or $y_o = \sum_i W_{oi}\, x_i + b_o$. The Jacobian by $x$ is $W$, so $x$ gets $W^\top g$.
# The weight $W_{oi}$ is used in $y_o$ only, with the slope $x_i$, and gets $g_o x_i$. The bias $b_o$ has the slope 1 and
# gets $g_o$. Now stack the examples as rows of $X$, $Y$ and $G$. Every example has an $x$ of its own: as a row, $W^\top g$
# becomes $g^\top W$. But they share $W$ and $b$, so there (2.4) adds up, and $\sum g\,x^\top$ over the examples is $G^\top X$:
#
# $$Y = X W^\top + b: \qquad \frac{\partial L}{\partial X} = G\,W, \qquad \frac{\partial L}{\partial W} = G^\top X, \qquad
# \frac{\partial L}{\partial b} = \sum_{\text{examples}} G \tag{2.5}$$
#
# Shapes alone nearly decide it: with $G$ of shape $n \times d_{out}$, only one product gives the shape of $X$ and only
# one that of $W$. Below, the layer is held against autograd and against central differences
# $(L(x+\epsilon) - L(x-\epsilon))/2\epsilon$, which know nothing of derivatives.

# %%
inputs = {"x": torch.randn(5, 3), "W": torch.randn(2, 3), "b": torch.randn(2)}
inputs = {name: value.double() for name, value in inputs.items()}
backward = lambda g, x, W, b: dict(zip("xWb", linear_backward(g, x, W), strict=True))
table = compare_gradients(lambda x, W, b: x @ W.T + b, backward, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (2.5)
table

# %% [markdown]
# **In one line.** Carry $g$ from the loss backwards: at each step $g \leftarrow J^\top g$, entry by entry where the step is,
# and add up wherever a number was used more than once.

# %% [markdown]
# ## 3. Variance rules
#
# **What it is for.** How large will the numbers be, before anything is trained? The answer gives the $1/\sqrt{d}$ of
# [02_self_attention](02_self_attention.ipynb), the first weights of every layer, the growth along a residual stream,
# and the error bars of [17_face_off](17_face_off.ipynb). About 20 minutes.
#
# ### Self-test 3
#
# The $d$ entries of `q` have mean `mean_q` and variance `var_q`; those of `k` have mean 0 and variance `var_k`; all are
# independent. Return the variance of $\text{scale} \cdot \sum_i q_i k_i$. **If this is easy, skip the page.** The test
# does not cover squares of a Gaussian, (3.5), and the error of a mean, (3.6).
#
# <details><summary>Hint 1</summary>
#
# Begin with one product $q_i k_i$. Its mean is 0, so its variance is the mean of $q_i^2 k_i^2$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Independence lets you take the means apart: the mean of $q_i^2$ times the mean of $k_i^2$. A mean square is the
# variance plus the square of the mean.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The $d$ products have equal variances, which add up. A factor in front enters squared.
#
# </details>

# %% tags=["exercise"]
def score_variance(d, mean_q, var_q, var_k, scale):
    """The variance of scale * (q_1 k_1 + ... + q_d k_d)."""
    raise NotImplementedError

score_variance = check("toolbox.3", score_variance)

# %% tags=["solution"]
def score_variance(d, mean_q, var_q, var_k, scale):
    mean_square_q = var_q + mean_q**2
    return scale**2 * d * mean_square_q * var_k

# %% [markdown]
# ### Sums
#
# Write $\mathbb{E}[X]$ for the mean of a random number and $\mathrm{Var}(X) = \mathbb{E}[(X - \mathbb{E}X)^2] =
# \mathbb{E}[X^2] - (\mathbb{E}X)^2$ for its variance. A factor comes out squared: $\mathrm{Var}(aX) = a^2\,\mathrm{Var}(X)$.
# In $\big(a(X - \mathbb{E}X) + b(Y - \mathbb{E}Y)\big)^2$ the mixed term has the mean
# $2ab\,\mathbb{E}[X - \mathbb{E}X]\,\mathbb{E}[Y - \mathbb{E}Y] = 0$ if $X$ and $Y$ are independent, so
#
# $$\mathrm{Var}(aX + bY) = a^2\,\mathrm{Var}(X) + b^2\,\mathrm{Var}(Y) \tag{3.1}$$
#
# ### Products
#
# For independent $X$ and $Y$ the mean of a product is the product of the means, also for $X^2$ and $Y^2$. Therefore
#
# $$\mathrm{Var}(XY) = \mathbb{E}[X^2]\,\mathbb{E}[Y^2] - (\mathbb{E}X)^2 (\mathbb{E}Y)^2, \qquad
# \text{with } \mathbb{E}X = 0: \quad \mathrm{Var}(XY) = \mathrm{Var}(X)\; \mathbb{E}[Y^2] \tag{3.2}$$
#
# With a pencil: $X$ is $-1$ or $1$ (mean 0, variance 1) and $Y$ is 1 or 3 (mean 2, variance 1, mean square 5). The four
# equally likely sums are 0, 2, 2, 4: variance 2, as (3.1) says. The four products are $-1, -3, 1, 3$: mean 0, variance
# $(1 + 9 + 1 + 9)/4 = 5$. The variance of $Y$ alone would have given 1; **a mean that is not zero counts too**.

# %%
X, Y = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 3.0])).T  # all four cases
variance = lambda values: ((values - values.mean()) ** 2).mean().item()
assert variance(X + Y) == 2 == variance(X) + variance(Y)  # (3.1)
assert variance(2 * X - 3 * Y) == 4 * variance(X) + 9 * variance(Y) == 13
assert variance(X * Y) == 5 == variance(X) * (Y**2).mean()  # (3.2)

# %% [markdown]
# ### A score, and a linear layer
#
# A dot product adds $d$ independent products. If all entries of $q$ and $k$ have mean 0 and variance 1, each product has
# the variance 1 by (3.2), and (3.1) adds them up. A scale enters squared:
#
# $$\mathrm{Var}(q \cdot k) = d, \qquad \mathrm{Var}\Big(\frac{q \cdot k}{\sqrt d}\Big) = 1 \tag{3.3}$$
#
# A typical score has therefore the size $\sqrt d$, and page 1 has shown what large scores do to a softmax.
#
# The same rule tells how to draw the first weights of a layer $y = \sum_{i=1}^d w_i x_i$. The inputs need not have the
# mean 0, only the weights:
#
# $$\mathrm{Var}(y) = d\; \mathrm{Var}(w)\; \mathbb{E}[x^2] \tag{3.4}$$
#
# To keep the size of the signal, choose $\mathrm{Var}(w) = 1/d$. Behind a ReLU, half of a symmetric signal is zero,
# $\mathbb{E}[x^2]$ is halved, and one takes $2/d$ (He's rule).

# %%
for d in (4, 64, 256):
    q, k = torch.randn(2, 20_000, d)
    assert abs((q * k).sum(1).var() / d - 1) < 0.1  # (3.3)
    x, w = F.relu(q), k * (2 / d) ** 0.5
    assert abs((w * x).sum(1).var() - 1) < 0.1  # (3.4), with He's rule
    assert abs(score_variance(d, 0, 1, 1, d**-0.5) - 1) < 1e-12

# %% [markdown]
# **Predict before you go on:** in the left picture the scores $q \cdot k$ for $d = 4$, 64 and 256 share one axis. By what
# factor is the widest curve wider than the narrowest?

# %%
draws = {d: (torch.randn(20_000, d) * torch.randn(20_000, d)).sum(1) for d in (4, 64, 256)}
for d, scores in draws.items():
    print(f"d = {d}: standard deviation {scores.std():.0f}")
    assert abs(scores.std() / d**0.5 - 1) < 0.05

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
options = {"bins": 60, "density": True, "histtype": "step", "lw": 2}
for d, scores in draws.items():
    left.hist(scores, range=(-45, 45), label=f"d = {d}", **options)
    right.hist(scores / d**0.5, range=(-4, 4), label=f"d = {d}", **options)
left.set(xlabel="q·k", ylabel="density"), right.set(xlabel="q·k/√d"), left.legend(), right.legend()
show(fig, alt="Histograms of dot products for d = 4, 64 and 256. Unscaled, they get wider with d; "
     "divided by the square root of d, all three have nearly the same width.")

# %% [markdown]
# **What to see.** The standard deviations are 2, 8 and 16: the widest is eight times the narrowest. Divided by $\sqrt d$,
# the three have the same width. (The curve for $d = 4$ is still more peaked than the others: a sum of few products is not
# yet a normal distribution. The variance
# rules do not need it to be.)
#
# ### Squares of a Gaussian, and means of many
#
# Let $z$ be standard normal. Its mean square is its variance, 1. Its density $\varphi$ has the slope $\varphi' = -z\varphi$, so
# integrating by parts gives $\mathbb{E}[z^4] = \int z^3 \cdot z\varphi\, dz = \int 3z^2\, \varphi\, dz = 3$, and
#
# $$\mathbb{E}[z^2] = 1, \qquad \mathrm{Var}(z^2) = \mathbb{E}[z^4] - 1 = 2 \tag{3.5}$$
#
# The squared length of a vector of $d$ such entries has therefore the mean $d$ and the standard deviation $\sqrt{2d}$:
# for large $d$, nearly all such vectors are about $\sqrt d$ long. The length varies by about 0.7, whatever $d$ is.

# %%
z = torch.linspace(-12, 12, 24_001).double()
density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5
moment = lambda power: torch.trapezoid(z**power * density, z).item()
assert abs(moment(2) - 1) < 1e-9 and abs(moment(4) - moment(2) ** 2 - 2) < 1e-9  # (3.5)
for d in (16, 256):
    lengths = torch.randn(20_000, d).norm(dim=1)
    assert abs(lengths.mean() / d**0.5 - 1) < 0.03 and abs(lengths.std() - 0.7) < 0.03

# %% [markdown]
# Last, the mean $\bar X$ of $n$ independent numbers of variance $\sigma^2$: use (3.1) with all factors $1/n$. An accuracy is
# such a mean, of numbers that are 1 with probability $a$ and else 0. They have the mean $a$, the mean square $a$, and so the
# variance $a - a^2$.
#
# $$\mathrm{Var}(\bar X) = \frac{\sigma^2}{n}, \qquad \text{for a share } a \text{ of } n \text{ right answers: }
# \frac{a(1-a)}{n} \tag{3.6}$$
#
# An accuracy of 95% on 510 test images therefore has a standard error of $\sqrt{0.95 \cdot 0.05/510} \approx 1$
# percentage point. The difference of two such accuracies has $\sqrt 2$ times that, about 1.4 points, and to call one
# network better one asks for about twice the standard error of the difference. (On the same test images a paired test
# sees more.)

# %%
assert round((0.95 * 0.05 / 510) ** 0.5, 3) == 0.010
assert round((2 * 0.95 * 0.05 / 510) ** 0.5, 3) == 0.014
means = (torch.rand(4000, 510) < 0.95).double().mean(1)
assert abs(means.var() / (0.95 * 0.05 / 510) - 1) < 0.1  # (3.6)

# %% [markdown]
# **In one line.** Variances of independent terms add, factors enter squared, and a product with a mean-zero factor takes the
# other's mean square; so a dot product of $d$ unit entries has the variance $d$.

# %% [markdown]
# ## 4. Convolution and counting its MACs
#
# **What it is for.** All of Part II lives on feature maps that convolutions make, and the gates of
# [10_spatial_attention](10_spatial_attention.ipynb) and [13_global_attention](13_global_attention.ipynb) are
# convolutions themselves. What a mechanism costs is counted here. About 25 minutes.
#
# ### Self-test 4
#
# Return the multiply-accumulates (MACs) of one convolution on one image of `height` x `width`: a square kernel, the same
# stride and padding in both directions, no bias. **If this is easy, skip the page.** The test does not cover the receptive
# field, (4.5).
#
# <details><summary>Hint 1</summary>
#
# How many pixels does the output have? How many products go into one number of the output?
#
# </details>
# <details><summary>Hint 2</summary>
#
# The output has $\lfloor (H + 2p - k)/s \rfloor + 1$ rows. With $G$ groups, an output channel sees $C_{in}/G$ channels.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Multiply: output rows, output columns, output channels, input channels seen, kernel squared.
#
# </details>

# %% tags=["exercise"]
def conv_macs(c_in, c_out, kernel, height, width, stride, padding, groups):
    """Multiply-accumulates for one image (c_in, height, width)."""
    raise NotImplementedError

conv_macs = check("toolbox.4", conv_macs)

# %% tags=["solution"]
def conv_macs(c_in, c_out, kernel, height, width, stride, padding, groups):
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    return rows * columns * c_out * (c_in // groups) * kernel**2

# %% [markdown]
# ### One window, everywhere
#
# A convolution lays a small window of weights on the map, multiplies, adds up, writes one number, and moves on by the
# stride $s$. For output channel $o$ at row $i$ and column $j$ (both count from 0), with $a$ and $b$ running over the
# $k \times k$ window:
#
# $$y_o(i, j) = \sum_{c=1}^{C_{in}} \sum_{a=0}^{k-1} \sum_{b=0}^{k-1} w_{oc}(a, b)\; x_c(s\,i + a,\; s\,j + b) \tag{4.1}$$
#
# In mathematics, a convolution flips the window first, and (4.1) is called a cross-correlation. A network learns its
# windows, so nobody flips them.
#
# With a pencil: one channel, stride 1, a window that subtracts the pixel to the lower right.
#
# $$x = \begin{pmatrix} 1 & 2 & 0 \\ 3 & 4 & 1 \\ 0 & 5 & 2 \end{pmatrix}, \quad
# w = \begin{pmatrix} 1 & 0 \\ 0 & -1 \end{pmatrix}, \quad
# y = \begin{pmatrix} 1 - 4 & 2 - 1 \\ 3 - 5 & 4 - 2 \end{pmatrix} = \begin{pmatrix} -3 & 1 \\ -2 & 2 \end{pmatrix}$$

# %%
x, w = torch.tensor([[1, 2, 0], [3, 4, 1], [0, 5, 2]]), torch.tensor([[1, 0], [0, -1]])
assert F.conv2d(x[None, None], w[None, None])[0, 0].tolist() == [[-3, 1], [-2, 2]]  # (4.1)

def conv_by_loops(x, w, s):
    k, size = w.shape[-1], (x.shape[-1] - w.shape[-1]) // s + 1
    window = lambda i, j: x[:, s * i : s * i + k, s * j : s * j + k]
    rows = [[[(w_o * window(i, j)).sum() for j in range(size)] for i in range(size)] for w_o in w]
    return torch.tensor(rows)

# %%
x, w = torch.randint(-9, 10, (3, 7, 7)), torch.randint(-9, 10, (4, 3, 3, 3))
for s in (1, 2):
    assert torch.equal(conv_by_loops(x, w, s), F.conv2d(x[None], w, stride=s)[0])  # (4.1)

# %% [markdown]
# ### How large is the output?
#
# Padding with $p$ zeros on each side makes the map $H + 2p$ high. The window's first row may stand at $0, s, 2s, \dots$
# as long as its last row is still inside, so the start is at most $H + 2p - k$:
#
# $$H' = \Big\lfloor \frac{H + 2p - k}{s} \Big\rfloor + 1 \tag{4.2}$$
#
# With stride 1, an odd $k$ and $p = (k-1)/2$ the map keeps its size.

# %%
for H, k, s, p in [(8, 3, 1, 1), (7, 3, 2, 1), (8, 3, 2, 1), (9, 5, 3, 0), (6, 1, 2, 0)]:
    y = F.conv2d(torch.zeros(1, 1, H, H), torch.zeros(1, 1, k, k), stride=s, padding=p)
    assert y.shape[-1] == (H + 2 * p - k) // s + 1  # (4.2)

# %% [markdown]
# What does a window respond to? Here are two that a person wrote: the Sobel filters, which subtract what is below from
# what is above, and what is right from what is left.
#
# **Predict before you go on:** in a handwritten 0, which strokes will each of the two filters light up, and with which
# sign?

# %%
digit = load_digits("train").images[:1]  # a 0
sobel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
edges = F.conv2d(digit, torch.stack([sobel, sobel.T])[:, None], padding=1)[0]
maps = {"above - below": edges[0], "left - right": edges[1]}

# %%
fig, axes = plt.subplots(1, 3, figsize=(8, 2.5))
pictures(digit[0], axes=axes[:1])
axes[0].set(title="digit")
for ax, (title, values) in zip(axes[1:], maps.items(), strict=True):
    heatmap(values, ax=ax, limits=(-4, 4), signed=True, colorbar=ax is axes[2], label="output")
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
show(fig, alt="A handwritten zero and two filtered copies. The first filter marks upper and lower "
     "edges, the second left and right ones, each stroke with one red side and one blue side.")

# %% [markdown]
# **What to see.** The first filter finds the top and the bottom of the 0, the second its two flanks: the first answers most to
# horizontal edges, the second to vertical ones, and both to slanted ones. Every stroke has two sides, blue where ink begins
# (downwards, or to the right) and red where it ends. A network learns its windows; a stack of $C_{in}$ of them makes one
# output channel.
#
# ### What it costs
#
# One number of the output needs $C_{in}\,k^2$ products, and there are $C_{out}\,H'W'$ such numbers. A product together with
# its addition is one **multiply-accumulate** (MAC); some papers count the two apart and call them FLOPs, which doubles
# every number; others say FLOPs and mean MACs. Products with the zeros of a padding are counted too. The $P$ weights, in
# contrast, are shared by all places:
#
# $$P = C_{in}\, C_{out}\, k^2, \qquad \mathrm{MACs} = C_{in}\, C_{out}\, k^2\, H' W' \tag{4.3}$$
#
# With $G$ **groups**, the channels are dealt out into $G$ separate convolutions, and an output channel sees only its own
# group's inputs. With as many groups as channels the convolution is called **depthwise**: every channel has one window.
#
# $$P = \frac{C_{in}}{G}\, C_{out}\, k^2, \qquad \mathrm{MACs} = \frac{C_{in}}{G}\, C_{out}\, k^2\, H' W' \tag{4.4}$$

# %%
kinds = {"3 x 3": (3, 1), "3 x 3, 4 groups": (3, 4), "3 x 3, depthwise": (3, 64), "1 x 1": (1, 1)}
for name, (k, G) in kinds.items():
    layer = torch.nn.Conv2d(64, 64, k, padding=k // 2, groups=G, bias=False)
    weights, macs = count_parameters(layer), count_macs(layer, torch.zeros(1, 64, 28, 28))
    assert weights == 64 * 64 * k**2 // G  # (4.3) where G = 1
    assert macs == weights * 28**2 == conv_macs(64, 64, k, 28, 28, 1, k // 2, G)  # (4.4)
    print(f"{name:18}{weights:8,} weights {macs:12,} MACs")

# %% [markdown]
# On 64 channels, a depthwise 3 x 3 costs a 64th of a full one; it mixes places but no channels. A 1 x 1 convolution does the
# opposite: it mixes channels but no places. It **is** a linear layer, applied at every pixel by itself:

# %%
x, layer = torch.randn(2, 5, 3, 4), torch.nn.Conv2d(5, 7, 1)
linear = F.linear(x.permute(0, 2, 3, 1), layer.weight[:, :, 0, 0], layer.bias)
assert torch.allclose(layer(x), linear.permute(0, 3, 1, 2), atol=1e-5)

# %% [markdown]
# ### How far does a unit see?
#
# One layer of size $k$ sees $k$ pixels in a row. A second layer looks at windows that overlap: each further layer widens the
# view by its $k - 1$ steps, and one step is as long as all strides before it, multiplied. So the **receptive field** is
#
# $$R = 1 + \sum_{l} (k_l - 1) \prod_{m < l} s_m \tag{4.5}$$
#
# For layers (3, stride 1), (3, stride 2), (5, stride 1): $1 + 2 \cdot 1 + 2 \cdot 1 + 4 \cdot 2 = 13$ pixels. We can
# measure it: take one output in the middle and count the pixels that its gradient reaches.

# %%
layers = [(3, 1), (3, 2), (5, 1)]
R, step = 1, 1
for k, s in layers:
    R, step = R + (k - 1) * step, step * s
net = torch.nn.Sequential(*[torch.nn.Conv2d(1, 1, k, s) for k, s in layers])
x = torch.randn(1, 1, 33, 33, requires_grad=True)
(reached,) = torch.autograd.grad(net(x)[0, 0, 5, 5], x)
assert R == 13 and (reached != 0).any(2).sum() == (reached != 0).any(3).sum() == R  # (4.5)

# %% [markdown]
# **In one line.** A convolution costs $C_{in} C_{out} k^2 / G$ weights, each used once at every pixel of the output; and a unit
# sees as far as (4.5) says, and not one pixel further.

# %% [markdown]
# ## 5. BatchNorm in train and eval, and its backward pass
#
# **What it is for.** Batch normalisation stands behind nearly every convolution of Part II.
# [12_normalization_attention](12_normalization_attention.ipynb) makes an attention of its $\gamma$;
# [10_spatial_attention](10_spatial_attention.ipynb) and [11_cbam](11_cbam.ipynb) put it into their gates; and a
# network that is tested in the wrong mode gives wrong answers without any error. About 35 minutes.
#
# ### Self-test 5
#
# Write batch normalisation for `x` of shape (b, c, h, w), as PyTorch does it: $\epsilon = 10^{-5}$ and momentum 0.1. `mean`
# and `var` are the running statistics, of shape (c,). Return the output and the new running statistics, and change no
# argument in place. **If this is easy, skip the page.** The test does not cover the backward pass, (5.5).
#
# <details><summary>Hint 1</summary>
#
# In training, the statistics of this batch are used: one mean and one variance for each channel. In eval, the running
# ones are, and they stay as they are.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Two variances: the output uses the one that divides by $n$, `x.var((0, 2, 3), correction=0)`; the running one is fed
# with the one that divides by $n - 1$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# New running value: 0.9 times the old one plus 0.1 times that of the batch. For broadcasting, write
# `mean[:, None, None]`; $\epsilon$ is added to the variance, under the root.
#
# </details>

# %% tags=["exercise"]
def batchnorm(x, gamma, beta, mean, var, training):
    """x (b, c, h, w), all others (c,) -> the output, the new mean, the new variance."""
    raise NotImplementedError

batchnorm = check("toolbox.5", batchnorm)

# %% tags=["solution"]
def batchnorm(x, gamma, beta, mean, var, training):
    axes, used_mean, used_var = (0, 2, 3), mean, var
    if training:
        used_mean, used_var = x.mean(axes), x.var(axes, correction=0)
        mean = 0.9 * mean + 0.1 * used_mean
        var = 0.9 * var + 0.1 * x.var(axes, correction=1)
    x_hat = (x - used_mean[:, None, None]) / torch.sqrt(used_var[:, None, None] + 1e-5)
    return gamma[:, None, None] * x_hat + beta[:, None, None], mean, var

# %% [markdown]
# ### In training: the batch's own statistics
#
# Each channel is treated by itself. Gather its $n = B \cdot H \cdot W$ numbers $x_1, \dots, x_n$ from all images and all
# pixels, subtract their mean, and divide by their standard deviation. Then let two learnt numbers choose the scale and the
# place:
#
# $$\mu = \frac1n \sum_i x_i, \qquad \sigma^2 = \frac1n \sum_i (x_i - \mu)^2, \qquad
# \hat x_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y_i = \gamma\, \hat x_i + \beta \tag{5.1}$$
#
# The small $\epsilon$ is there for a channel that never changes: its variance is 0.
#
# With a pencil (and $\epsilon = 0$): the numbers 1, 3, 3, 9 have the mean 4. Their distances are $-3, -1, -1, 5$, with squares
# that sum to 36, so $\sigma^2 = 9$, $\sigma = 3$ and $\hat x = (-1, -\tfrac13, -\tfrac13, \tfrac53)$. With $\gamma = 6$ and
# $\beta = 10$ they come out as 4, 8, 8, 20.

# %%
x = torch.tensor([1, 3, 3, 9]).double()
mu = x.mean()
variance_n = ((x - mu) ** 2).mean()
assert mu == 4 and variance_n == 9
y = 6 * (x - mu) / variance_n.sqrt() + 10
assert torch.allclose(y, torch.tensor([4, 8, 8, 20]).double())  # (5.1) with eps = 0

# %%
x, gamma, beta = torch.randn(5, 3, 4, 2).double(), torch.randn(3).double(), torch.randn(3).double()
column = lambda v: v[:, None, None]
mu, variance_n = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
x_hat = (x - column(mu)) / torch.sqrt(column(variance_n) + 1e-5)
y = column(gamma) * x_hat + column(beta)
assert torch.allclose(y, F.batch_norm(x, None, None, gamma, beta, training=True))  # (5.1)

# %% [markdown]
# Since $\hat x$ has the mean 0 and (but for $\epsilon$) the variance 1, in training the output of a channel has
#
# $$\text{mean } \beta \qquad\text{and standard deviation } |\gamma|\, \frac{\sigma}{\sqrt{\sigma^2 + \epsilon}} \approx |\gamma|
# \tag{5.2}$$
#
# whatever the convolution before it did. So $|\gamma|$ says how much a channel varies, which is why one may take it
# for a measure of how much the channel matters. Two more consequences, in training: multiplying the convolution's
# weights by 10 changes nothing behind the BatchNorm, but for $\epsilon$; and neither does a bias before it, since
# $\mu$ takes it away again.

# %%
assert torch.allclose(y.mean((0, 2, 3)), beta)
assert torch.allclose(y.std((0, 2, 3), correction=0), gamma.abs(), rtol=1e-4)  # (5.2)
again = F.batch_norm(10 * x + 3, None, None, gamma, beta, training=True)
assert torch.allclose(y, again, atol=1e-4)

# %% [markdown]
# ### For eval: the running statistics
#
# In training, the output for one image depends on which other images are in the batch. At test time that would be absurd,
# so the layer keeps a moving average of what it saw, with the momentum $m$ (0.1 unless you say otherwise):
#
# $$\bar\mu \leftarrow (1 - m)\,\bar\mu + m\,\mu, \qquad
# \bar\sigma^2 \leftarrow (1 - m)\,\bar\sigma^2 + m\,\frac{n}{n-1}\,\sigma^2 \tag{5.3}$$
#
# Two conventions to remember. PyTorch's momentum is the weight of the **new** value; other libraries mean the weight of
# the old one and write 0.9. And the running variance is the unbiased one, divided by $n - 1$, although the layer itself
# normalises with the one divided by $n$. The averages start at 0 and 1. After our batch 1, 3, 3, 9 they are $0.1 \cdot 4 =
# 0.4$ and $0.9 \cdot 1 + 0.1 \cdot 36/3 = 2.1$.

# %%
norm = torch.nn.BatchNorm2d(1).double()
norm(torch.tensor([1, 3, 3, 9]).double().view(4, 1, 1, 1))
kept = norm.running_mean.item(), norm.running_var.item()
assert abs(kept[0] - 0.4) < 1e-12 and abs(kept[1] - 2.1) < 1e-12  # (5.3)

# %% [markdown]
# In eval all four numbers of a channel are constants, and the layer is nothing but a straight line. It can be merged into
# the convolution before it; what happens to one image no longer depends on any other, but a factor or a bias before it now
# does change the output:
#
# $$y = a\,x + b \qquad\text{with}\qquad a = \frac{\gamma}{\sqrt{\bar\sigma^2 + \epsilon}}, \qquad b = \beta - a\,\bar\mu
# \tag{5.4}$$

# %%
norm = torch.nn.BatchNorm2d(3).double()
norm.weight.data, norm.bias.data = gamma, beta
norm(x), norm.eval()
a = gamma / torch.sqrt(norm.running_var + norm.eps)
assert torch.allclose(norm(x), column(a) * x + column(beta - a * norm.running_mean))  # (5.4)
assert not torch.allclose(norm(10 * x), norm(x)) and not torch.allclose(norm(x + 3), norm(x))
assert torch.allclose(norm(x)[:1], norm(x[:1]))  # one image alone gets the same in eval
assert not torch.allclose(norm.train()(x)[:1], norm.train()(x[:1]))  # but not in training

# %% [markdown]
# **Predict before you go on:** we show a BatchNorm batches of 32 handwritten digits. Its running mean starts at 0; the mean
# ink of a pixel is about 0.3. After how many batches will it be within a tenth of the right value: 3, 20 or 200?

# %%
digits = load_digits("train")
norm, seen, running = torch.nn.BatchNorm2d(1), [], []
for batch in batches(digits, 32, seed=0):
    norm(batch.images)
    seen.append(batch.images.mean().item())
    running.append(norm.running_mean.item())

# %%
ax, t = plt.subplots(figsize=(6, 2.8))[1], range(1, len(seen) + 1)
ax.plot(t, seen, "o", alpha=0.6, label="mean of the batch")
ax.plot(t, running, lw=2, label="running mean")
ax.axhline(digits.images.mean(), color="black", ls="--", label="mean of all digits")
ax.set(xlabel="batches seen", ylabel="ink, 0 to 1", ylim=(0, 0.4)), ax.legend()
show(ax.figure, alt="The means of 41 batches scatter around 0.3; the running mean climbs from 0.03 "
     "towards 0.3 and comes close after about 20 batches.")

# %%
error = [abs(value / digits.images.mean().item() - 1) for value in running]
assert error[2] > 0.6 and min(error[:21]) > 0.1 > max(error[21:])  # error[21]: after 22 batches
assert [round(0.9**t, 3) for t in (3, 20, 40)] == [0.729, 0.122, 0.015]

# %% [markdown]
# **What to see.** After $t$ batches the start still has the weight $0.9^t$: 73% after 3 batches, 12% after 20, 1.5% after
# 40. The error falls below a tenth after 22 batches, so of the three answers 20 is the nearest. A network that is evaluated after a
# handful of batches is evaluated with wrong statistics. The dots scatter: in training, an image's output also depends
# on its batch.
#
# ### Backwards
#
# In eval, (5.4) is a straight line and $\partial L/\partial x = a\, g$. Training is harder, because every $x_i$ also
# moves $\mu$ and $\sigma$, and through them all outputs. Work with one channel, and write $\rho = \sqrt{\sigma^2 +
# \epsilon}$.
#
# Of $y_i = \gamma \hat x_i + \beta$: both parameters are used $n$ times, so by (2.4)
# $\partial L/\partial\gamma = \sum_i g_i \hat x_i$ and $\partial L/\partial\beta = \sum_i g_i$, and
# $\hat x_i$ gets $\gamma g_i$. Now go on to $x_j$:
#
# - $\partial \mu/\partial x_j = \frac1n$;
# - $\partial \sigma^2/\partial x_j = \frac2n (x_j - \mu)$ (the part through $\mu$ is zero, since the distances sum to zero), so
#   $\partial \rho/\partial x_j = \frac{1}{2\rho} \cdot \frac2n (x_j - \mu) = \frac1n \hat x_j$;
# - $\hat x_i = (x_i - \mu)/\rho$, so by the quotient rule
#
# $$\frac{\partial \hat x_i}{\partial x_j} = \frac1\rho \Big(\delta_{ij} - \frac1n - \frac1n\, \hat x_i\, \hat x_j\Big).$$
#
# Multiply by $\gamma g_i$ and sum over $i$. The three terms turn into $g_j$, the mean of $g$, and $\hat x_j$ times the
# mean of $g \hat x$:
#
# $$\frac{\partial L}{\partial x} = \frac{\gamma}{\rho} \Big( g - \overline{g} - \hat x\, \overline{g \hat x} \Big), \qquad
# \frac{\partial L}{\partial \gamma} = \sum_i g_i \hat x_i, \qquad \frac{\partial L}{\partial \beta} = \sum_i g_i \tag{5.5}$$
#
# where a bar is the mean over the channel's $n$ numbers. Read it so: of what $g$ asks for, the wish to shift everything and the
# wish to stretch everything are **taken out**, since the layer would undo both anyway.

# %%
def batchnorm_backward(g, x, gamma, beta):
    axes = (0, 2, 3)
    rho = torch.sqrt(x.var(axes, keepdim=True, correction=0) + 1e-5)
    x_hat = (x - x.mean(axes, keepdim=True)) / rho
    means = g.mean(axes, keepdim=True) + x_hat * (g * x_hat).mean(axes, keepdim=True)
    dx = column(gamma) / rho * (g - means)
    return {"x": dx, "gamma": (g * x_hat).sum(axes), "beta": g.sum(axes)}

# %%
forward = lambda x, gamma, beta: F.batch_norm(x, None, None, gamma, beta, training=True)
table = compare_gradients(forward, batchnorm_backward, {"x": x, "gamma": gamma, "beta": beta})
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (5.5)
dx = batchnorm_backward(torch.randn_like(x), x, gamma, beta)["x"]
assert torch.allclose(dx.sum((0, 2, 3)), torch.zeros(3).double())  # a bias before it never learns
table

# %% [markdown]
# **In one line.** Train: this batch's mean and biased variance, and everything in the batch hangs together; eval: running
# statistics, a straight line. In training, a channel behind it has the mean $\beta$ and the standard deviation $|\gamma|$.

# %% [markdown]
# ## 6. The residual block
#
# **What it is for.** Transformer layers and the ResNets of Part II are made of residual blocks. Where a gate is put (on the
# branch or on the sum) makes the difference between a gradient that reaches the first block and one that does not.
# About 20 minutes.
#
# ### Self-test 6
#
# A block computes $y = x + \mathrm{relu}(x W_1^\top)\, W_2^\top$ for rows of `x`. Given `g` $= \partial L/\partial
# y$, return the gradient for `x`. **If this is easy, skip the page.** The test does not cover where to put a gate,
# (6.4).
#
# <details><summary>Hint 1</summary>
#
# There are two ways from `x` to `y`, and their gradients add up.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Along the identity, `g` comes back as it is. Along the branch, go back through $W_2$, the ReLU, and $W_1$, as on page 2.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `g @ W_2` arrives behind the ReLU. Multiply by 1 where `x @ W_1.T > 0`, else by 0, then by `W_1`.
#
# </details>

# %% tags=["exercise"]
def residual_backward(g, x, W_1, W_2):
    """g and x (n, d), W_1 (hidden, d), W_2 (d, hidden) -> the gradient for x, (n, d)."""
    raise NotImplementedError

residual_backward = check("toolbox.6", residual_backward)

# %% tags=["solution"]
def residual_backward(g, x, W_1, W_2):
    through_the_branch = (g @ W_2 * (x @ W_1.T > 0)) @ W_1
    return g + through_the_branch

# %% [markdown]
# ### An identity, and a correction
#
# A layer that must learn the whole of $y$ from $x$ loses what it does not pass on. A residual block learns only what to
# **add**:
#
# $$y = x + F(x) \tag{6.1}$$
#
# $F$, the *branch*, may be two convolutions, an attention, or anything that keeps the shape. If $F$ is zero, the block is the
# identity; that is why some networks start with the last $\gamma$ of every branch at 0.
#
# The Jacobian of a sum is the sum of the Jacobians, so with $J_F$ for that of the branch, page 2 gives
#
# $$\frac{\partial y}{\partial x} = I + J_F, \qquad \frac{\partial L}{\partial x} = g + J_F^\top g \tag{6.2}$$
#
# The gradient that arrives goes on unchanged, and the branch adds to it.

# %%
x, g = torch.randn(4, 3).double(), torch.randn(4, 3).double()
W_1, W_2 = torch.randn(6, 3).double(), torch.randn(3, 6).double()
block = lambda x: x + F.relu(x @ W_1.T) @ W_2.T
assert torch.equal(x + F.relu(x @ W_1.T) @ (0 * W_2).T, x)  # (6.1) with a branch that is zero
(found,) = torch.autograd.grad(block(x.requires_grad_()), x, g)
assert torch.allclose(residual_backward(g, x.detach(), W_1, W_2), found)  # (6.2)

# %% [markdown]
# ### Many blocks
#
# With a pencil: let every branch be one small number, $F(x) = 0.1\,x$, and stack ten of them. Without the identity the
# gradient is multiplied by 0.1 ten times: $10^{-10}$, nothing. With it, by 1.1 ten times: $1.1^{10} \approx 2.59$. In general,
# for $D$ blocks,
#
# $$\frac{\partial x_D}{\partial x_0} = (I + J_D) \cdots (I + J_2)(I + J_1) = I + \sum_l J_l + \sum_{l > m} J_l J_m + \dots
# \tag{6.3}$$
#
# Multiplying out gives one term for each way to choose, at every block, the identity or the branch. The first term is the
# identity all the way: **however deep the network is, the first block hears the loss directly.**

# %%
assert 0.1**10 < 1.01e-10 and round(1.1**10, 2) == 2.59
J_1, J_2, J_3 = torch.randn(3, 4, 4).double()
whole = torch.eye(4).double()
for J in (J_1, J_2, J_3):
    whole = (torch.eye(4).double() + J) @ whole
paths = J_1 + J_2 + J_3 + J_2 @ J_1 + J_3 @ J_1 + J_3 @ J_2 + J_3 @ J_2 @ J_1
assert torch.allclose(whole, torch.eye(4).double() + paths)  # (6.3)

# %% [markdown]
# ### Where to put a gate
#
# A gate multiplies by a number $s$ between 0 and 1; a fresh one gives about $\tfrac12$. It can stand on the branch,
# or on the sum. The Jacobians of the two are
#
# $$x + s\,F(x): \;\; I + s\,J_F \qquad\text{but}\qquad s\,\big(x + F(x)\big): \;\; s\,(I + J_F) \tag{6.4}$$
#
# On the branch, a gate of $\tfrac12$ halves the correction and leaves the identity alone. On the sum it halves the identity
# too, and after $D$ blocks the direct path carries $2^{-D}$: a thousandth after ten blocks. SE and CBAM stand on the
# branch. (We treat $s$ as fixed here; what it learns goes a way of its own.)
#
# How large do the numbers get? A branch whose output is uncorrelated with $x$ adds its variance, by (3.1): the stream
# **grows** with every block. Transformers therefore normalise it.

# %%
x, s = torch.randn(3).double(), 0.5
W = torch.randn(3, 3).double()
branch, identity = lambda x: torch.tanh(W @ x), torch.eye(3).double()
J_F = jacobian(branch, x)
assert torch.allclose(jacobian(lambda x: x + s * branch(x), x), identity + s * J_F)
assert torch.allclose(jacobian(lambda x: s * (x + branch(x)), x), s * (identity + J_F))  # (6.4)

# %% [markdown]
# **Predict before you go on:** twenty blocks whose branches each halve the size of what passes through them. A
# gradient of size 1 arrives at the end. How large is it at the start: without the identity; with it; with a gate of
# $\tfrac12$ on each branch; with a gate of $\tfrac12$ on each sum? (What comes back through a random branch is nearly
# uncorrelated with what came in.)

# %%
layers = [(torch.randn(64, 32) / 4, torch.randn(32, 64) / 16) for _ in range(20)]
x, g = torch.randn(2, 1000, 32)
before = x.norm()
for W_1, W_2 in layers:
    back = (g @ W_2 * (x @ W_1.T > 0)) @ W_1  # through the branch: half the size, uncorrelated
    assert 0.4 < back.norm() / g.norm() < 0.6 and (back * g).sum().abs() < 0.1 * g.norm() ** 2
    x = x + F.relu(x @ W_1.T) @ W_2.T
assert 4 < x.norm() / before < 25  # the stream on its way forward

# %%
def gradient_sizes(step):
    states, g = [torch.randn(16, 32).requires_grad_()], torch.randn(16, 32)
    for W_1, W_2 in layers:
        x = states[-1]
        states.append(step(x, F.relu(x @ W_1.T) @ W_2.T))
    return [(d.norm() / g.norm()).item() for d in torch.autograd.grad(states[-1], states, g)]

# %%
kinds = {"no identity: F(x)": lambda x, f: f, "residual: x + F(x)": lambda x, f: x + f,
         "gate on the branch: x + F(x)/2": lambda x, f: x + f / 2,
         "gate on the sum: (x + F(x))/2": lambda x, f: (x + f) / 2}
sizes = {name: gradient_sizes(step) for name, step in kinds.items()}
rule = [2**-20, 1.25**10, (1 + 1 / 16) ** 10, 1.25**10 * 2**-20]
ratio = [values[0] / r for values, r in zip(sizes.values(), rule, strict=True)]
assert 0.2 < ratio[0] < 3 and all(0.6 < r < 1.6 for r in ratio[1:])
assert [f"{r:.2g}" for r in (*rule, 1.5**20)] == ["9.5e-07", "9.3", "1.8", "8.9e-06", "3.3e+03"]

# %%
ax = plt.subplots(figsize=(7, 3))[1]
for (name, values), dashes in zip(sizes.items(), ["-", "-", "--", ":"], strict=True):
    ax.plot(values, dashes, lw=2, label=name)
ax.set(yscale="log", xlabel="block (20 is next to the loss)", ylabel="size of the gradient")
ax.set(xticks=range(0, 21, 5)), ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(ax.figure, alt="Gradient over twenty blocks, logarithmic. The residual's grows nearly "
     "tenfold, the gated branch's twofold; without identity or with a gated sum it vanishes.")

# %% [markdown]
# **What to see.** Read from right to left, the way the gradient goes. With a free identity it grows to about ten at
# most, but not to $1.5^{20} \approx 3300$. What comes back through a branch is nearly uncorrelated with $g$, so the
# squares of their sizes add, as variances do in (3.1): each block multiplies by $\sqrt{1 + \tfrac14}$, all twenty by
# $1.25^{10} \approx 9.3$. (So does the stream, roughly, on its way forward.) With the gate on the branch it is $(1 +
# \tfrac1{16})^{10} \approx 1.8$.
#
# The two other curves fall by a factor of about two for each block, to $9.3 \cdot 2^{-20} \approx 9 \cdot 10^{-6}$
# and $2^{-20} \approx 10^{-6}$. A gate on the sum is nearly as bad as having no identity at all: what saved the
# gradient was not the addition, but a path on which **nothing** multiplies.
#
# **In one line.** $y = x + F(x)$ has the Jacobian $I + J_F$: the gradient always has a free way back, as long as no gate stands
# on it.

# %% [markdown]
# ## 7. One GRU step
#
# **What it is for.** The encoder and decoder of [04_recurrent_attention](04_recurrent_attention.ipynb) are gated
# recurrent units. Their update gate is also the first learnt gate of this course, and the bridge to the moving
# averages of [06_moving_averages](06_moving_averages.ipynb). About 25 minutes.
#
# ### Self-test 7
#
# Write one step of PyTorch's `GRUCell`. `W` (3m, d) and `U` (3m, m) hold the weights of the three parts, in the order r, z, n,
# one below the other, and `b` and `c` (3m each) their biases. **If this is easy, skip the page.** The test does not cover
# what the gates do to the memory, (7.3) and (7.4).
#
# <details><summary>Hint 1</summary>
#
# Two sigmoid gates and a tanh candidate; then the new state is a mixture of candidate and old state.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `(x @ W.T + b).chunk(3, -1)` gives what the three parts hear of `x`; do the same for `h`, `U` and `c`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `r` multiplies what the candidate hears of `h`, after its linear layer and bias. `z` is the share of the **old** state.
#
# </details>

# %% tags=["exercise"]
def gru_step(x, h, W, U, b, c):
    """x (n, d), h (n, m), W (3m, d), U (3m, m), b and c (3m,) -> the new state, (n, m)."""
    raise NotImplementedError

gru_step = check("toolbox.7", gru_step)

# %% tags=["solution"]
def gru_step(x, h, W, U, b, c):
    x_r, x_z, x_n = (x @ W.T + b).chunk(3, -1)
    h_r, h_z, h_n = (h @ U.T + c).chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h

# %% [markdown]
# ### The equations
#
# A recurrent network reads one input $x$ after the other and keeps a state $h$ of $m$ numbers. A **gated recurrent
# unit** decides for each of them how much of the old value to keep:
#
# $$\begin{aligned}
# r &= \sigma(W_r x + b_r + U_r h + c_r) &&\text{reset gate} \\
# z &= \sigma(W_z x + b_z + U_z h + c_z) &&\text{update gate} \\
# n &= \tanh\big(W_n x + b_n + r \odot (U_n h + c_n)\big) &&\text{candidate} \\
# h' &= (1 - z) \odot n + z \odot h &&\text{new state}
# \end{aligned} \tag{7.1}$$
#
# With $z = 1$ the state stays as it is; with $z = 0$ it is replaced. With $r = 0$ the candidate forgets the old state.
#
# With a pencil, one number each: $x = 1$, $h = 2$, and all weights and biases 0 except $b_z = \ln 3$, $W_n = 1$,
# $b_n = \tfrac12 \ln 3$, $U_n = -1$. Then $r = \sigma(0) = \tfrac12$ and $z = \sigma(\ln 3) = \tfrac34$. In the candidate,
# $1 + \tfrac12 \ln 3 + \tfrac12 \cdot (-2) = \tfrac12 \ln 3$, and $\tanh(\tfrac12 \ln 3) = \frac{3-1}{3+1} = \tfrac12$. So
# $h' = \tfrac14 \cdot \tfrac12 + \tfrac34 \cdot 2 = 1.625$.

# %%
ln3 = torch.tensor(3.0).double().log()
x, h = torch.ones(1, 1).double(), 2 * torch.ones(1, 1).double()
W, U = torch.tensor([[0], [0], [1]]).double(), torch.tensor([[0], [0], [-1]]).double()
b, c = torch.stack([0 * ln3, ln3, ln3 / 2]), torch.zeros(3).double()
assert abs(gru_step(x, h, W, U, b, c).item() - 1.625) < 1e-12  # (7.1)

# %%
cell = torch.nn.GRUCell(5, 4).double()
W, U, b, c = (parameter.detach() for parameter in cell.parameters())
x, h = torch.randn(3, 5).double(), torch.randn(3, 4).double()
assert torch.allclose(gru_step(x, h, W, U, b, c), cell(x, h))  # (7.1)

# %% [markdown]
# ### Three things on which sources differ
#
# - **What $z$ means.** In the first paper on GRUs (Cho et al., 2014, arXiv 1406.1078) and in PyTorch, $z$ is the
#   share of the old state. Other papers, among them the one that compared GRU and LSTM (Chung et al., 2014, arXiv
#   1412.3555), let $z$ be the share of the candidate. Replace $z$ by $1 - z$ and the two agree.
# - **Where $r$ stands.** The paper resets the state *before* its linear layer, $U_n (r \odot h)$. PyTorch multiplies
#   *behind* it, so that all three products with $h$ can be made at once. These are different functions.
# - **How many biases.** PyTorch has two for each part, $b$ and $c$. In $r$ and $z$ one would do.
#
# For $d$ inputs and $m$ states, the number $P$ of weights and biases in PyTorch's cell is therefore
#
# $$P = 3\,(m d + m^2 + 2m) \tag{7.2}$$

# %%
assert count_parameters(torch.nn.GRUCell(5, 4)) == 3 * (4 * 5 + 4**2 + 2 * 4)  # (7.2)
r, U_n = torch.sigmoid(torch.randn(4)).double(), U[8:]
assert not torch.allclose(U_n @ (r * h[0]), r * (U_n @ h[0]))  # before or behind: not the same

# %% [markdown]
# ### Why gates remember
#
# How does the new state depend on the old one? Write $a = U_n h + c_n$ and go through (7.1) line by line, with the slopes
# $\sigma' = \sigma(1 - \sigma)$ and $\tanh' = 1 - \tanh^2$:
#
# $$\frac{\partial r}{\partial h} = \mathrm{diag}\big(r(1-r)\big)\, U_r, \qquad
# \frac{\partial z}{\partial h} = \mathrm{diag}\big(z(1-z)\big)\, U_z, \qquad
# \frac{\partial n}{\partial h} = \mathrm{diag}(1-n^2) \Big[\mathrm{diag}(r)\, U_n + \mathrm{diag}(a)\, \frac{\partial r}{\partial h}\Big].$$
#
# The product rule on the last line, $h' = n + z \odot (h - n)$, puts them together:
#
# $$\frac{\partial h'}{\partial h} = \mathrm{diag}(z) + \mathrm{diag}\big((1-z)(1-n^2)\big)
# \Big[\mathrm{diag}(r)\, U_n + \mathrm{diag}\big(a\, r(1-r)\big)\, U_r\Big] + \mathrm{diag}\big((h - n)\, z(1-z)\big)\, U_z
# \tag{7.3}$$
#
# The first term is an identity path, as in (6.2), with a gate on it. The gate is learnt: where a state must be
# remembered, $z$ goes to 1 and the path is open.

# %%
x_r, x_z, x_n = (x[0] @ W.T + b).chunk(3)
h_r, h_z, a = (h[0] @ U.T + c).chunk(3)
r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
n, (U_r, U_z, U_n) = torch.tanh(x_n + r * a), U.chunk(3)
through_n = ((1 - z) * (1 - n**2)).diag() @ (r.diag() @ U_n + (a * r * (1 - r)).diag() @ U_r)
J = z.diag() + through_n + ((h[0] - n) * z * (1 - z)).diag() @ U_z
one_row = lambda h: gru_step(x[:1], h[None], W, U, b, c)[0]
assert torch.allclose(J, jacobian(one_row, h[0]))  # (7.3)

# %% [markdown]
# Let us isolate the path: no input, no weights on $h$, and a constant $z$ from its bias. Then $n = 0$, and the state
# only fades:
#
# $$h_t = z^t\, h_0, \qquad \text{half of it is left after } \frac{\ln 2}{-\ln z} \text{ steps} \tag{7.4}$$
#
# With a constant $z$, the last line of (7.1) is an exponential moving average of the candidates, with the decay $z$; a GRU
# chooses the decay anew at every step.
#
# **Predict before you go on:** after how many steps is half left if $z = 0.9$, and if $z = 0.99$?

# %%
def fade(z, steps=100):
    states, zeros = [torch.ones(1, 1).double()], torch.zeros(3, 1).double()
    b = torch.tensor([0, z / (1 - z), 0]).double()
    b[1] = b[1].log()
    for _ in range(steps):
        states.append(gru_step(0 * states[0], states[-1], zeros, zeros, b, 0 * b))
    return torch.cat(states)[:, 0].detach()

# %%
ax = plt.subplots(figsize=(6, 2.8))[1]
for z, dashes in zip((0.5, 0.9, 0.99), (":", "--", "-"), strict=True):
    assert torch.allclose(fade(z), z ** torch.arange(101).double())  # (7.4)
    ax.plot(fade(z), dashes, lw=2, label=f"z = {z}")
ax.axhline(0.5, color="black", lw=0.8)
ax.set(xlabel="step", ylabel="state", ylim=(0, 1.05)), ax.legend()
show(ax.figure, alt="A state that starts at 1 and fades: for z = 0.5 it is gone after a few steps, "
     "for 0.9 half is left after 7 steps, for 0.99 after 69.")

# %%
half = {z: torch.tensor(0.5).log() / torch.tensor(z).log() for z in (0.5, 0.9, 0.99)}
print({z: f"{steps.item():.1f} steps" for z, steps in half.items()})
assert fade(0.9)[6] > 0.5 > fade(0.9)[7] and fade(0.99)[68] > 0.5 > fade(0.99)[69]
assert round(0.99**100, 2) == 0.37 and 0.9**100 < 1e-4

# %% [markdown]
# **What to see.** From $z = 0.9$ to $z = 0.99$ the memory becomes ten times as long. The gradient from step 100 back
# to step 0 is the same number $z^{100}$: 0.37 for $z = 0.99$, and next to nothing for 0.9. So even a gated network
# needs $z$ very close to 1 to carry something over a long sentence. Attention, in
# [04_recurrent_attention](04_recurrent_attention.ipynb), does not carry: it looks back.
#
# **In one line.** $h' = (1 - z)\, n + z\, h$: a learnt moving average, with $z$ for the share of the old state and,
# in PyTorch, $r$ behind the linear layer.

# %% [markdown]
# ## Summary
#
# | page | result | equation |
# |---|---|---|
# | 1 | back through a softmax: $p \odot (g - p^\top g)$ | (1.4) |
# | 2 | linear layer: $G W$, $G^\top X$, sum of $G$ | (2.5) |
# | 3 | $\mathrm{Var}(q \cdot k) = d$ | (3.3) |
# | 4 | MACs $= C_{in}\, C_{out}\, k^2\, H'W' / G$ | (4.4) |
# | 5 | back through BatchNorm: $\frac{\gamma}{\rho}(g - \overline{g} - \hat x\, \overline{g \hat x})$ | (5.5) |
# | 6 | residual block: $g + J_F^\top g$ | (6.2) |
# | 7 | GRU: $h' = (1 - z) \odot n + z \odot h$ | (7.1) |
#
# **Sources.** He, Zhang, Ren, Sun: *Delving Deep into Rectifiers*, arXiv 1502.01852 (the $2/d$ of page 3), and *Deep
# Residual Learning*, arXiv 1512.03385 (page 6). Ioffe, Szegedy: *Batch Normalization*, arXiv 1502.03167 (page 5). Cho
# et al., arXiv 1406.1078, and Chung et al., arXiv 1412.3555 (page 7). PyTorch's documentation of `BatchNorm2d` and
# `GRUCell` for its conventions.
#
# **Back to** [00_start_here](00_start_here.ipynb), or to the notebook that sent you here.
