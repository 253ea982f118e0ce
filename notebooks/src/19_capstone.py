# %% [markdown]
# # 19 · Design one of your own
#
# **The question.** You have an idea for an attention mechanism. How do you find out what it is, what it costs and
# whether it does anything, before you believe in it?
#
# **The answer in one sentence.** Say in advance what the gate looks at, over which axes it varies, what it starts as and
# what it costs; let each of these be checked by something that does not know your hopes; then race it against networks
# that differ from yours in exactly one thing, one of which merely halves its features.
#
# **Papers.** The worked example is our own exercise and stands in no paper in this form. It resembles *SRM: A Style-based
# Recalibration Module for Convolutional Neural Networks* by HyunJae Lee, Hyo-Eun Kim and Hyeonseob Nam,
# [arXiv 1903.10829](https://arxiv.org/abs/1903.10829), which describes each channel by its mean and its deviation. We
# quote no figures from there.
#
# **Time.** Core 60 minutes (parts 1-3, 7, 9 and 10) · Depth 60 minutes (the rest), and for your own mechanism as long as
# you like.
#
# **Prerequisites.** [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb) (the pattern of descriptor, score,
# gate and rescaling; signatures; `audit`), [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb), and
# [17_face_off](17_face_off.ipynb) for the statistics. The course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $B, C, H, W$ | | number of images, channels, rows and columns |
# | $N$ | | number of pixels, $N = HW$ |
# | $x$ | $B \times C \times H \times W$ | the feature map that comes in; $x_c(p)$ is channel $c$ at the pixel $p$ |
# | $\mu$ | $B \times C$ | mean of each channel over its pixels |
# | $d$ | as $x$ | distance from the mean, $d_c(p) = x_c(p) - \mu_c$ |
# | $z$ | $B \times C$ | the descriptor; here the standard **deviation** of each channel over its pixels |
# | $w, b$ | $C$ and $C$ | a weight and a bias for each channel |
# | $v, s$ | $B \times C$ | score and gate, $s = \sigma(v)$ with the logistic sigmoid $\sigma(t) = 1/(1 + e^{-t})$ |
# | $y$ | as $x$ | the feature map that goes out |
# | $g$ | as $y$ | the gradient $\partial L/\partial y$ that arrives from above |
# | $\varepsilon$ | | $10^{-5}$, a small number below a root |
#
# $W$ is a number of columns here and never a matrix. In part 7 a *point* is one hundredth of accuracy.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **19.a** In two images a channel has the same mean; in one it is a flat plain, in the other a single peak. Which
# descriptor of that channel cannot tell them apart? (a) the maximum · (b) the deviation · (c) the mean · (d) the largest
# output of a $3 \times 3$ convolution · (e) each of these can
#
# **19.b** What is the standard deviation of the two numbers 1 and 3, if the squared distances from their mean are
# averaged over both?
# (a) $\sqrt 2$ · (b) 1 · (c) 2 · (d) 4 · (e) 0
#
# **19.c** A gate is $\sigma(w z + b)$, and training starts with $w = 0$ and $b = 0$. What does the block do to its features
# at that moment? (a) it leaves them alone · (b) it sets them to zero · (c) something that depends on the image · (d) it
# halves them · (e) something random

# %% tags=["exercise"]
check("19.a", ...)
check("19.b", ...)
check("19.c", ...)

# %% tags=["solution"]
check("19.a", "c")
check("19.b", "b")
check("19.c", "d")

# %% [markdown]
# ## 2 · Four questions before the first line of code · *Core*
#
# Most of what can be known about a mechanism follows from four answers, and they can be written down before anything is
# trained. Each mechanism of Part II has its own:
#
# | question | one that makes it vivid | where |
# |---|---|---|
# | **What does the gate look at?** | SE hears the means of all channels, ECA those of a few neighbours: the same descriptor, another score | [08](08_squeeze_and_excitation.ipynb), [09](09_efficient_channel_attention.ipynb) |
# | **Which axes does it vary over?** | CBAM's spatial gate has one number for each pixel, YOLOv4's of nearly the same name one for each channel *and* pixel | [10](10_spatial_attention.ipynb) |
# | **What does it start as?** | a non-local block starts as the identity, since a batch norm behind it has $\gamma = 0$; CBAM's spatial gate starts at exactly one half, for the same reason | [14](14_non_local.ipynb), [11](11_cbam.ipynb) |
# | **What does it cost?** | GAM mixes all channels at every pixel and convolves twice, so its price grows with $C^2$ times the map; SE's does not know how large the map is | [13](13_global_attention.ipynb), [08](08_squeeze_and_excitation.ipynb) |
#
# Two of the answers are easily mixed up. What a gate *looks at* and what it *varies over* are different things: SE's gate
# depends on every pixel and is the same at every pixel. The course's `audit` finds both by changing the input and
# watching. **Predict** the three answers for SE, for CBAM's spatial gate and for coordinate attention before you run
# the cell.

# %%
from attnlib import build_attention
from attnlib.lab.audit import audit

ASKED = ("gate shape", "gate channels", "gate positions")
for name in ("se", "sam", "coordinate"):
    report = audit(build_attention(name, 32))
    print(name, *(f for f in report.findings if f.check in ASKED), sep="\n   ")

# %% [markdown]
# What a mechanism starts as is quickest to find out: make one and send something through.

# %%
fresh = torch.randn(2, 32, 9, 8)
assert torch.equal(build_attention("nonlocal", 32)(fresh), fresh)  # the identity
assert torch.equal(build_attention("sam", 32)(fresh), fresh / 2)  # CBAM's spatial gate: one half

# %% [markdown]
# Now our own, in four answers. Notebook 08 ended its squeeze with a complaint: two channels with the same mean look alike
# to it, although one is spread out and the other is a single peak. So:
#
# - **What does the gate look at?** How strongly its own channel varies over the image: the standard deviation over the
#   pixels, in the place of the mean. Call it the **contrast gate**.
# - **Which axes does it vary over?** Channels. One number for each image and channel.
# - **What does it start as?** Weight 0 and bias 0, so every gate is one half on every image.
# - **What does it cost?** A weight and a bias for each channel.
#
# The rest of this notebook holds each of these four sentences against something that could prove it wrong.

# %% [markdown]
# ## 3 · The contrast gate by hand, and as a module · *Core*
#
# The descriptor is the standard deviation, with the mean of the squares over all $N$ pixels, and a small $\varepsilon$
# below the root. (Part 8 shows what the $\varepsilon$ is for.)
#
# $$\mu_c = \frac1N \sum_p x_c(p), \qquad d_c(p) = x_c(p) - \mu_c, \qquad
# z_c = \sqrt{\frac1N \sum_p d_c(p)^2 + \varepsilon} \tag{19.1}$$
#
# Take a pencil, and the four channels of 2 x 2 pixels that all notebooks of Part II share. The means are $2, 1, -1, 1$.
# In channel 0 the distances from the mean are $-1, 0, 1, 0$, so the mean of their squares is $\tfrac12$. Do channels 1 to 3
# before you run the cell. **Predict:** which channels look alike to the deviation, and which looked alike to the mean?

# %%
from attnlib.lab.data import example_feature_map

def deviation(x):  # (b, c, h, w) -> (b, c, 1, 1)
    return (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

x = example_feature_map()
z = deviation(x)
expected = torch.tensor([0.5, 0.5, 0.5, 3]).double().add(1e-5).sqrt()
assert torch.allclose(z.flatten(), expected)  # (19.1)
print("z =", [round(value, 3) for value in z.flatten().tolist()])

# %% [markdown]
# Channels 1 and 3, which have the same mean, are far apart now: 0.707 and 1.732. In exchange, channels 0, 1 and 2 have
# become the same, although their means are 2, 1 and $-1$. **No descriptor is better than another; each is blind to
# something.** (`correction=0` asks for the division by $N$. Without it PyTorch divides by $N - 1$, and a map of one
# pixel gives no number at all.)
#
# Score, gate and rescaling are the simplest there are, those of notebook 07's channel gate:
#
# $$v_c = w_c z_c + b_c, \qquad s_c = \sigma(v_c), \qquad y_c(p) = s_c\, x_c(p) \tag{19.2}$$
#
# With $w_c = 1$ and $b_c = -1$ the scores are $-0.293$ three times and $0.732$, and the gates $0.427$ and $0.675$: the
# single peak is let through, the others are turned down.

# %%
assert x.mean((2, 3)).tolist() == [[2, 1, -1, 1]]  # what the mean sees
assert (z - 1).flatten().round(decimals=3).tolist() == [-0.293, -0.293, -0.293, 0.732]
s = torch.sigmoid(z - 1)
assert s.flatten().round(decimals=3).tolist() == [0.427, 0.427, 0.427, 0.675]  # (19.2)

# %% [markdown]
# As a module. A $1 \times 1$ convolution with as many groups as channels is a weight and a bias for each channel. The
# descriptor is an argument, for a reason that part 7 needs: a gate that differs from ours **in the descriptor and in
# nothing else** should be one word away.

# %%
def own_score(channels):
    score = nn.Conv2d(channels, channels, 1, groups=channels)
    nn.init.zeros_(score.weight), nn.init.zeros_(score.bias)
    return score

def mean(x):
    return x.mean((2, 3), keepdim=True)

# %%
class OwnGate(nn.Module):
    def __init__(self, channels, describe):
        super().__init__()
        self.describe, self.score = describe, own_score(channels)
    def weights(self, x):
        return torch.sigmoid(self.score(self.describe(x)))
    def forward(self, x):
        return x * self.weights(x)

# %%
contrast = OwnGate(4, deviation).double()
assert torch.equal(contrast(x), x / 2)  # what it starts as: half of the features
with torch.no_grad():
    contrast.score.weight.fill_(1), contrast.score.bias.fill_(-1)
assert torch.allclose(contrast.weights(x), s) and torch.allclose(contrast(x), s * x)

# %% [markdown]
# The first assertion settles the third answer: **at the start this mechanism is a division by 2**, for every image. Keep
# that sentence for the race.

# %% [markdown]
# ## 4 · The backward pass by hand · *Depth*
#
# Autograd would do this for us. Deriving it shows what the gate can learn from. As always in Part II, $x$ counts twice in
# $y = s\,x$: once as what is scaled, and once through its gate. For one channel of one image, with $g = \partial L/\partial
# y$, the first two steps back are those of notebook 08:
#
# $$\frac{\partial L}{\partial s} = \sum_p g(p)\, x(p), \qquad
# \frac{\partial L}{\partial v} = \frac{\partial L}{\partial s}\; s(1 - s)$$
#
# New is the slope of the deviation. Write $q = \frac1N \sum_r d(r)^2$ for the variance, so that $z = \sqrt{q + \varepsilon}$.
# Moving the pixel $x(p)$ moves $d(p)$ directly and, through the mean, *every* $d(r)$ by $-\frac1N$. So
#
# $$\frac{\partial q}{\partial x(p)} = \frac1N \sum_r 2\, d(r) \Big( [r = p] - \frac1N \Big)
# = \frac2N\, d(p) - \frac{2}{N} \cdot \frac1N \sum_r d(r) = \frac2N\, d(p),$$
#
# because the distances from a mean sum to zero: that the mean moves too makes no difference. The root has the slope
# $\frac{1}{2z}$, and the two 2s cancel:
#
# $$\frac{\partial z_c}{\partial x_c(p)} = \frac{d_c(p)}{N z_c} \tag{19.3}$$

# %%
from attnlib.lab.gradients import jacobian

slopes = jacobian(lambda x: deviation(x).flatten(), x)[:, 0]  # (4, 4, 2, 2)
d = x - mean(x)
by_formula = (d / (4 * deviation(x)))[0]
assert by_formula.abs().max() <= 1 / 2  # 1 over the root of N; see part 8
assert torch.allclose(slopes[range(4), range(4)], by_formula)  # (19.3)
assert slopes[0, 1:].count_nonzero() == 0  # and no other channel has a part in it

# %% [markdown]
# ### Exercise 19.1 · the whole way back · *Depth* · 15 minutes
#
# Put the pieces together. Given `grad_y` ($g$) and `x`, both (b, c, h, w), and `w` and `b`, both (c,), return $\partial
# L/\partial x$. Use $\varepsilon = 10^{-5}$.
#
# <details><summary>Hint 1</summary>
#
# Two terms: the direct one, $s\,g$, and the one through the gate. The second is a chain of four factors: what arrives at
# $s$, the slope of the sigmoid, the weight, and (19.3).
#
# </details>
# <details><summary>Hint 2</summary>
#
# Keep the last two axes with `keepdim=True`, and write `w[:, None, None]`; then everything broadcasts. Start with
# `d = x - x.mean((2, 3), keepdim=True)` and `z = (d.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `dv = (grad_y * x).sum((2, 3), keepdim=True) * s * (1 - s)`; the second term is `dv * w[:, None, None] * d / (N * z)` with
# `N = x.shape[2] * x.shape[3]`.
#
# </details>

# %% tags=["exercise"]
def contrast_backward(grad_y, x, w, b):
    """grad_y and x (b, c, h, w), w and b (c,) -> the gradient for x, (b, c, h, w)."""
    raise NotImplementedError

contrast_backward = check("19.1", contrast_backward)

# %% tags=["solution"]
def contrast_backward(grad_y, x, w, b):
    w, b, N = w[:, None, None], b[:, None, None], x.shape[2] * x.shape[3]
    d = x - x.mean((2, 3), keepdim=True)
    z = (d.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    s = torch.sigmoid(w * z + b)
    dv = (grad_y * x).sum((2, 3), keepdim=True) * s * (1 - s)
    return s * grad_y + dv * w * d / (N * z)

# %% [markdown]
# In one line, and with the gradients of the weight and the bias, whose slopes in $v = wz + b$ are $z$ and 1 (the images of a
# batch share them, so their parts add up):
#
# $$\frac{\partial L}{\partial x_c(p)} = s_c\, g_c(p) + \frac{\partial L}{\partial v_c}\, w_c\, \frac{d_c(p)}{N z_c}, \qquad
# \frac{\partial L}{\partial w_c} = \sum_{\text{images}} \frac{\partial L}{\partial v_c}\, z_c, \qquad
# \frac{\partial L}{\partial b_c} = \sum_{\text{images}} \frac{\partial L}{\partial v_c} \tag{19.4}$$
#
# By hand, by autograd, and by central differences, which know of no derivative:

# %%
def gate_of(x, w, b):
    return torch.sigmoid(w[:, None, None] * deviation(x) + b[:, None, None])

def backward(g, x, w, b):
    s = gate_of(x, w, b)
    dv = (g * x).sum((2, 3), keepdim=True) * s * (1 - s)
    dw, db = (dv * deviation(x)).sum((0, 2, 3)), dv.sum((0, 2, 3))
    return {"x": contrast_backward(g, x, w, b), "w": dw, "b": db}

# %%
from attnlib.lab.gradients import compare_gradients

forward = lambda x, w, b: x * gate_of(x, w, b)
inputs = {"x": torch.randn(2, 3, 4, 5), "w": torch.randn(3), "b": torch.randn(3)}
inputs = {name: value.double() for name, value in inputs.items()}
table = compare_gradients(forward, backward, inputs)
assert table["hand = autograd"].all() and table["hand = differences"].all()  # (19.4)
table

# %% [markdown]
# What can this gate ask its features for? In SE the second term is the same for every pixel: *more of this channel, or
# less*. Here it is proportional to $d_c(p)$: pixels above the mean are pushed one way and those below it the other,
# and a pixel at the mean is not pushed at all. It asks for *more contrast, or less*, and it never asks for another mean:
# over a channel's pixels the second term sums to zero.

# %%
g = torch.randn(2, 3, 4, 5).double()
through_the_gate = contrast_backward(g, **inputs) - gate_of(**inputs) * g
assert through_the_gate.abs().max() > 1e-3 and through_the_gate.sum((2, 3)).abs().max() < 1e-12

# %% [markdown]
# ## 5 · What it listens to · *Depth*
#
# A mechanism is known by what it does *not* notice. From (19.1), three things follow with hardly any algebra. Adding a
# number $t$ to a whole channel moves the mean by $t$ and no distance from it. Changing the sign of a channel changes the
# sign of each distance, and the squares do not care. And a sum does not know the order of its terms, so the pixels may be
# shuffled by any permutation $\pi$:
#
# $$s(x + t) = s(x), \qquad s(-x) = s(x), \qquad s(x \circ \pi) = s(x) \tag{19.5}$$
#
# State such sentences for your own mechanism: each is a test that costs three lines and can fail. (Add a fourth that is
# *false*, to see that the test can tell: doubling a channel does move the gate.)

# %%
listening = OwnGate(6, deviation).double()
nn.init.normal_(listening.score.weight), nn.init.normal_(listening.score.bias)
maps = torch.randn(2, 6, 4, 4).double()
shuffled = maps.flatten(2)[:, :, torch.randperm(16)].view_as(maps)
for other in (maps + torch.randn(1, 6, 1, 1), -maps, shuffled):
    assert torch.allclose(listening.weights(other), listening.weights(maps))  # (19.5)
assert not torch.allclose(listening.weights(2 * maps), listening.weights(maps))

# %% [markdown]
# The first of the three has a price. Behind a convolution with a bias, the contrast gate cannot hear that a whole channel
# is bright; it hears edges and spots. The second makes it treat a white digit on black and a black one on white alike.
# Whether that is a strength depends on the task.
#
# Notebook 07 drew for each gate a **signature**: how strongly the gate of one channel moves with another channel (left), and
# how strongly the gate at one place moves with the pixel at another (right). We draw three: the gate of the mean, our gate,
# and SE. **Predict** all six panels. A hint for the right one of ours: put a pixel that happens to lie at the mean into
# (19.3).

# %%
from attnlib.lab.checks import redrawn  # a copy whose parameters are drawn anew, in eval mode
from attnlib.lab.signatures import draw_signature, signature

one = torch.randn(1, 6, 3, 3).double()
blocks = {"mean": OwnGate(6, mean), "contrast": OwnGate(6, deviation),
          "SE": build_attention("se", 6, reduction=1)}
patterns = {name: signature(redrawn(block).double().weights, one)
            for name, block in blocks.items()}

# %%
fig, axes = plt.subplots(1, 6, figsize=(11, 2.1))
for column, (name, pattern) in enumerate(patterns.items()):
    draw_signature(pattern, axes=axes[2 * column : 2 * column + 2], title=name)
show(fig, alt="Three pairs of matrices. Channels: a diagonal for mean and contrast, full rows for "
     "SE. Places: one flat colour for mean and SE, vertical stripes for contrast.")

# %% [markdown]
# **What to see.** On the left of each pair, SE is the only one whose channels hear each other. On the right, the gates of
# mean and SE are one flat colour: every pixel has the same part in them. Ours has vertical stripes. All places follow
# alike (one number gates them all), but not every pixel is heard as well as the next: the darker a column, the nearer lies
# that pixel to the means of its channels. Which columns are dark depends on the image, and that is new: neither the mean nor
# SE *looks* anywhere in particular.

# %%
contrasts, means = patterns["contrast"], patterns["mean"]
assert torch.equal(contrasts.channels.diag().diag(), contrasts.channels)  # its own channel only
assert torch.allclose(means.places, torch.ones(9, 9).double())  # flat
assert torch.allclose(contrasts.places, contrasts.places[:1].expand(9, 9))  # all follow alike
assert contrasts.places.max() > 1.2 * contrasts.places.min()  # not all are heard alike

# %% [markdown]
# `audit` finds the same without any derivative. Its three lines on the gate are the first two of our four answers; no
# other line complains.

# %%
report = audit(OwnGate(6, deviation), channels=6)
assert report.holds
print(*(f for f in report.findings if f.check in ASKED), sep="\n")

# %% [markdown]
# ## 6 · What it costs · *Depth*
#
# The fourth answer, as a closed form. Each channel has a weight and a bias, and its score takes one multiply-accumulate
# (MAC), however large the map is:
#
# $$P = 2C, \qquad \mathrm{MACs} = C \tag{19.6}$$
#
# `against_formula` counts what the module really has and does, and holds your formula against it. Try more than one size,
# with $C$, $H$ and $W$ all different: a formula with $H$ in the place of $W$ is right on every square map.

# %%
from attnlib.lab.cost import against_formula

for C, H, W in [(6, 9, 8), (40, 5, 14)]:
    one_map = torch.randn(1, C, H, W)
    price = against_formula(OwnGate(C, deviation), one_map, parameters=2 * C, macs=C)
    assert price.holds  # (19.6)
print(price)

# %% [markdown]
# What is it good for? Suppose we had taken SE for two matrices of $C^2/r$ weights, as its paper counts them, and forgotten
# that the released networks have biases:

# %%
C, r = 64, 16
print(against_formula(build_attention("se", C), torch.randn(1, C, 8, 8),
                      parameters=2 * C**2 // r, macs=2 * C**2 // r))
assert C // r + C == 68

# %% [markdown]
# The MACs agree and the parameters do not: 68 more, $C/r + C$ of them, spread over both layers. If your own formula
# departs, the printed line names the sub-module that has exactly the missing number, if there is one.
#
# By the custom of the field neither pooling nor the product with the gate is a MAC. That custom flatters small gates. The
# deviation reads the map (some implementations read it twice, for the mean and for the squares), and the product reads
# it again: the cost floor of notebook 07.
#
# ### Exercise 19.2 · several statistics · *Depth* · 5 minutes
#
# A gate in the manner of SRM describes each channel by $k$ numbers of its own, for instance mean *and* deviation. The score
# of a channel is a weighted sum of its own $k$ numbers, with a bias for each score if `bias` is True. Return the number of
# parameters and the MACs for one image, in this order.
#
# <details><summary>Hint 1</summary>
#
# One channel first: $k$ numbers come in, one score goes out.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A weighted sum of $k$ numbers has $k$ weights and takes $k$ MACs. Adding a bias is no MAC.
#
# </details>
# <details><summary>Hint 3</summary>
#
# All channels together: $Ck$ weights, $C$ biases or none, $Ck$ MACs. Return a pair.
#
# </details>

# %% tags=["exercise"]
def own_gate_cost(channels, statistics, bias):
    """-> (parameters, MACs for one image)."""
    raise NotImplementedError

own_gate_cost = check("19.2", own_gate_cost)

# %% tags=["solution"]
def own_gate_cost(channels, statistics, bias):
    weights = channels * statistics
    return weights + (channels if bias else 0), weights

# %%
both = lambda x: torch.stack([mean(x), deviation(x)], 2).flatten(1, 2)  # mean, deviation, mean, ...
for C, bias in [(6, True), (20, False)]:
    two_eared = OwnGate(C, both)
    two_eared.score = nn.Conv2d(2 * C, C, 1, groups=C, bias=bias)
    parameters, macs = own_gate_cost(C, 2, bias)
    price = against_formula(two_eared, torch.randn(1, C, 5, 7), parameters=parameters, macs=macs)
    assert price.holds

# %% [markdown]
# ## 7 · The race · *Core*
#
# Does it do anything? A comparison is worth as much as its controls. Ours has five runners:
#
# | runner | what stands at the gate's place | what a lead of the contrast gate over it would say |
# |---|---|---|
# | *none* | nothing | the block as a whole helps |
# | *half* | a division by 2, nothing learnt | it is more than the factor with which it starts |
# | *mean* | our module with the mean as its descriptor | it is the deviation that helps |
# | *se* | squeeze-and-excitation with $r = 1$ | it is worth its place beside a mechanism that exists |
# | *contrast* | our gate | |
#
# The control *half* is the one that is usually missing. A gate that starts at one half divides its features by 2, which
# changes the size of every step that the layers around it take. That has an effect of its own, in one direction or the
# other, and without the control it is booked as attention.
#
# **Two tasks.** Plain digits, where nothing needs to be chosen; and the cards of notebooks 07 and 08, where one of two
# channels has to be opened and SE wins by construction. Ten seeds of each runner were trained beforehand
# (`notebooks/runs/19_capstone.py`). On digits `race` gives all runners of a seed the same batches *and* the same start of
# everything that they share. The cards follow the recipe of 08: the same batches, other starts.
#
# **The rule, before we look.** We compare *contrast* with each of the four others, seed by seed, by a paired $t$-test. Four
# comparisons are four chances for a false alarm, so the four $p$-values of each task are corrected by Holm's method. **We
# speak of a difference only where the corrected value is below 0.05.** Anything else is called "no difference found".
#
# **Predict** for both tasks the order of the five, and which differences will be found.

# %%
from attnlib.lab.compare import paired
from attnlib.lab.data import load_results

def leads_of(name, rows):  # in points, with the reach of the 95% interval
    table = paired(rows, name, by="candidate")
    table["lead"], table["reach"] = -100 * table["difference"], 100 * table["reach"]
    return table.assign(found=table["p_holm"] < 0.05)[["lead", "reach", "found"]]

tasks = {task: load_results(f"19_{task}") for task in ("digits", "cards")}

# %%
from attnlib.lab.plots import by_seed

def draw_race(name, rows, axes, title=""):
    groups = rows.groupby("candidate", sort=False)["accuracy"]
    by_seed({runner: list(values) for runner, values in groups}, ax=axes[0], highlight=name)
    table = leads_of(name, rows)
    axes[1].errorbar(table["lead"], range(len(table)), xerr=table["reach"], fmt="o", capsize=4)
    axes[1].axvline(0, color="black", ls="--", lw=1), axes[0].set_title(title)
    axes[1].set(yticks=range(len(table)), yticklabels=table.index, ylim=(len(table) - 0.5, -0.5))

# %%
fig, axes = plt.subplots(2, 2, figsize=(8.5, 5), width_ratios=[1.3, 1])
for row, (task, rows) in zip(axes, tasks.items(), strict=True):
    draw_race("contrast", rows, row, title=task)
    row[1].set(xlabel="lead of contrast, points", title="95% intervals")
show(fig, alt="Left, accuracy by seed. Digits: half lies lowest, none highest, the gates between. "
     "Cards: none and half near 0.45, contrast near 0.6, mean a little higher, se near 0.9. "
     "Right: the leads of contrast over the others with intervals.")

# %%
for task, rows in tasks.items():
    for runner, line in leads_of("contrast", rows).iterrows():
        verdict = "a difference" if line["found"] else "no difference found"
        lead = f"{line['lead']:+.1f} ± {line['reach']:.1f} points"
        print(f"{task:6} contrast against {runner:4} {lead:19} {verdict}")

# %% [markdown]
# **What to see** (mind the axes: the two on the left have different scales). *On the cards* our gate works: it leads both
# controls by about 15 points, so it is a gate and not a factor. But the same module with the plain mean is ahead of it by
# 6.5 points, and SE by 31. The deviation was our whole idea, and on this task it is the worse descriptor.
#
# *On digits* the two controls tell two different stories. Against *half* our gate wins, by 1.0 point. Against *none* it
# loses, by 0.8. Whoever had run only the first comparison would have published a gain, and whoever had run only the
# second would have buried the idea. Together they say: under this recipe a division by 2 costs 1.8 points (the sum of the
# two leads; *none* against *half* was not among the comparisons that we announced), and a learnt gate wins about half of
# that back. Between deviation and mean, and between contrast and SE, **no difference found**.
#
# (In another network or with another step size, halving may help instead of harm. That is why the control is run in
# each study and never assumed.)

# %%
cards, digits = (leads_of("contrast", tasks[task]) for task in ("cards", "digits"))
assert list(cards["found"]) == 4 * [True] and list(digits["found"]) == [True, True, False, False]
assert list(cards["lead"].round(1)) == [14.6, 15.0, -30.8, -6.5]
assert list(digits["lead"].round(1)) == [-0.8, 1.0, -0.4, -0.0]
halving = leads_of("none", tasks["digits"]).loc["half"]
assert round(halving["lead"], 1) == 1.8 and 0.4 < digits.loc["half", "lead"] / halving["lead"] < 0.6

# %% [markdown]
# One seed live, to show that the tables come from this recipe. `race` takes a mapping from names to mechanisms: a function
# from the number of channels to a module (a class will do), a name in the registry, or None.

# %%
from attnlib.lab.race import race

runners = {"none": None, "half": "half", "contrast": lambda channels: OwnGate(channels, deviation)}
live = race(runners, seeds=[0], source="digits", epochs=8, progress=False)
first = tasks["digits"].query("seed == 0").set_index("candidate")["accuracy"]
near = (live.set_index("candidate")["accuracy"] - first[list(runners)]).abs() < 0.03
print("the live runs are near their stored rows:", bool(near.all()))
assert near.all() and list(live["parameters"] - live["parameters"][0]) == [0, 0, 2 * 16]

# %% [markdown]
# ## 8 · Two mistakes, one of which the audit sees · *Depth*
#
# ### An image that hears its neighbours
#
# Here is the contrast gate as it is easily written in a hurry. The shapes fit, and it trains.

# %%
def hasty(x):
    z = (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    return z.expand(len(x), -1, -1, -1)

def complaints(module):
    return [str(f) for f in audit(module, channels=6).findings if f.holds is False]

trained = redrawn(OwnGate(6, hasty))  # as after some training: its weights are no longer 0
print(*complaints(trained), sep="\n")
assert [line.split(":")[0] for line in complaints(trained)] == ["✗ independent"]

# %% [markdown]
# Axis 0 is the batch. The deviation runs over all images at once, so the gate of one image depends on which others happen to
# be there; a deployed network that sees one image at a time computes something that was never trained.
#
# We audited a copy with **redrawn weights**, and that matters. At its start this gate is one half for every image,
# whatever the descriptor does. There is nothing to leak yet, and this line of the audit, which takes the module as it
# stands, finds nothing to complain of:

# %%
at_the_start, crowd = OwnGate(6, hasty), torch.randn(3, 6, 4, 4)
assert complaints(at_the_start) == []  # not a word
assert torch.equal(at_the_start(crowd)[:1], at_the_start(crowd[:1]))  # no leak, for now
assert not torch.allclose(trained(crowd)[:1], trained(crowd[:1]))

# %% [markdown]
# **Check a mechanism away from its start**: a zero at the start hides whatever stands behind it.
#
# ### Exercise 19.3 · bug gallery · *Depth* · 10 minutes
#
# Write the forward pass as it should be: `x` is (b, c, h, w), `w` and `b` are (c,). Change as little as you can.
#
# ```python
# def forward(x, w, b):
#     z = (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
#     return x * torch.sigmoid(w[:, None, None] * z + b[:, None, None])
# ```
#
# <details><summary>Hint 1</summary>
#
# What shape has `z`? Which shape should a descriptor have that describes each channel of each image?
#
# </details>
# <details><summary>Hint 2</summary>
#
# The descriptor of (19.1) runs over the pixels, and over nothing else.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `x.var((2, 3), ...)`, and leave everything else, the $10^{-5}$ too.
#
# </details>

# %% tags=["exercise"]
def mended(x, w, b):
    """x (b, c, h, w), w and b (c,) -> features of the same shape, as in (19.2)."""
    raise NotImplementedError

mended = check("19.3", mended)

# %% tags=["solution"]
def mended(x, w, b):
    z = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    return x * torch.sigmoid(w[:, None, None] * z + b[:, None, None])

# %%
some_w, some_b = torch.randn(2, 6)
assert torch.allclose(mended(crowd, some_w, some_b)[:1], mended(crowd[:1], some_w, some_b))

# %% [markdown]
# ### A root without its epsilon
#
# Now leave out the $\varepsilon$ of (19.1). The audit finds nothing. But look at (19.3): on a channel that is constant,
# $d = 0$ and $z = 0$, and the slope is $0/0$. Such a channel is nothing rare: a unit behind a ReLU that is shut on the whole
# image makes one, and a batch norm whose $\gamma$ starts at 0 makes nothing else. **Predict:** what will the gradient be
# there, with and without $\varepsilon$?

# %%
without = lambda x: x.var((2, 3), correction=0, keepdim=True).sqrt()
assert complaints(redrawn(OwnGate(6, without))) == []  # not a word

shut = torch.randn(1, 6, 4, 4)
shut[:, 2] = 0  # one channel is off
for name, describe in {"with epsilon": deviation, "without": without}.items():
    leaf = shut.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(redrawn(OwnGate(6, describe))(leaf).sum(), leaf)
    print(f"{name}: finite gradients for all channels: {bool(gradient.isfinite().all())}")

# %% [markdown]
# How far does this "not a number" spread? That depends on what stands before the gate. **Predict** both cases: a batch norm
# with $\gamma = 0$, so that every channel is constant, directly before the gate, and the same with a ReLU between them.

# %%
for name, between in {"batch norm": nn.Identity(), "batch norm, ReLU": nn.ReLU()}.items():
    norm = nn.BatchNorm2d(6)
    nn.init.zeros_(norm.weight)
    nn.Sequential(norm, between, redrawn(OwnGate(6, without)))(crowd).sum().backward()
    finite = bool(norm.weight.grad.isfinite().all())
    print(f"{name}: finite gradients for the batch norm: {finite}")

# %% [markdown]
# PyTorch's ReLU passes a zero back wherever it is shut, whatever arrives from above, and that stops the "not a number" too.
# So in the small network of part 7, whose gate stands behind a ReLU, this mistake *sleeps*: the training goes through.
# Somebody moves the gate behind such a batch norm, and after the first step the network's weights are no numbers any more.
# When a training run of `race` fails like this, its row says so in the column `note`:

# %%
def moved(channels):
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(norm, OwnGate(channels, without))

entered = {"asleep": lambda channels: OwnGate(channels, without), "moved": moved}
broken = race(entered, seeds=[0], source="digits", epochs=1, progress=False)
print(dict(zip(broken["candidate"], broken["note"], strict=True)))
assert list(broken["note"] != "") == [False, True]

# %% [markdown]
# With $\varepsilon$ the slope is 0 on a constant channel, and it never exceeds $1/\sqrt N$ in size anywhere: no single square
# is larger than the sum of all of them, so $|d_c(p)| \le z_c \sqrt N$ in (19.3).
#
# So an audit is a sieve and no proof. What it cannot think of, your own tests must: constant channels, one pixel, one
# image, very large numbers.

# %%
for hard in (torch.zeros(2, 6, 4, 4), torch.randn(2, 6, 1, 1), 1e6 * torch.randn(1, 6, 4, 4)):
    leaf = hard.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(redrawn(OwnGate(6, deviation))(leaf).sum(), leaf)
    assert gradient.isfinite().all()

# %% [markdown]
# ## 9 · Your turn · *Core*
#
# The cell below is a mechanism. As it stands it does nothing: it is a gate that is 1 everywhere. **Replace its inside by
# your own**, run the cells behind it, and read what they say; nothing else needs to change. Three suggestions, if you want a
# start:
#
# - the gate of part 6 that hears mean *and* deviation of its own channel;
# - a *cross gate*: the maximum over the columns describes each row, the maximum over the rows each column, and the two
#   gates are multiplied;
# - the contrast gate with a dense score as in SE, so that channels can compare each other's contrast. (On the cards, what
#   separates *mean* from *se* is that, the hidden layer, and a start drawn at random.)
#
# Before you run it, write your four answers down. What does it look at? Over which axes does it vary? What does it start
# as? What does it cost? The last one goes into `my_cost`: parameters, and MACs for one image of $C$ channels, $H$ rows and
# $W$ columns.

# %% tags=["template"]
class Mine(nn.Module):
    def __init__(self, channels):
        super().__init__()  # make your layers here

    def forward(self, x):  # (b, c, h, w) -> the same shape
        return x  # multiply x by your gate here

def my_cost(C, H, W):  # its closed form, for one image
    return 0, 0  # parameters, MACs

# %% [markdown]
# **Your first two answers.** The audit, of a copy with its weights drawn anew, since a zero at the start hides whatever
# stands behind it (part 8). For the template as it stands two lines fail, and rightly so: a gate that depends on nothing is
# a constant.

# %%
from attnlib.lab.checks import redrawn
from attnlib.lab.cost import against_formula
from attnlib.lab.signatures import draw_signature, signature

audit(redrawn(Mine(16)), channels=16)

# %% [markdown]
# **Your third answer.** What it multiplies its features by, before any training. A factor far from 1 is what the control
# *half* is for; if yours starts at another constant, race it against a division by *that*.

# %%
away_from_zero = torch.randn(4, 16, 8, 8).sign() * (torch.rand(4, 16, 8, 8) + 0.5)
with torch.no_grad():
    factor = Mine(16).eval()(away_from_zero) / away_from_zero
print(f"at the start it multiplies its features by {factor.min():.2f} to {factor.max():.2f}")

# %% [markdown]
# **Your fourth answer**, on two sizes:

# %%
for C, H, W in [(16, 8, 8), (24, 5, 7)]:
    parameters, macs = my_cost(C, H, W)
    print(f"{C} channels, {H} x {W}")
    print(against_formula(Mine(C), torch.randn(1, C, H, W), parameters=parameters, macs=macs))

# %% [markdown]
# **Its signature** (part 5). This time of the whole output, because not every mechanism has a gate to ask: which channels and which
# places of the input does the output follow? The strong diagonal is the direct way, $x$ itself. What lies beside it came
# through your gate. (The identity has nothing but diagonals.)

# %%
fig, axes = plt.subplots(1, 2, figsize=(4.4, 2.3))
mine = redrawn(Mine(16)).double()
draw_signature(signature(mine, torch.randn(1, 16, 4, 4).double()), axes=axes, title="Mine")
show(fig, alt="Signature of the mechanism in the template, over channels on the left and over "
     "places on the right; the diagonal is the direct way from input to output.")

# %% [markdown]
# **A small race**, three seeds on digits, against *none* and *half*. Three seeds are for finding mistakes, not for finding
# differences: the interval from three seeds reaches 4.3 standard errors to each side. Add *mean* or your own variant
# with one ingredient changed, take ten seeds, and let it run while you have tea.

# %%
entries = {"none": None, "half": "half", "mine": Mine}
result = race(entries, seeds=range(3), source="digits", epochs=4, progress=False)
print("training went through for all runners:", bool((result["note"] == "").all()))
result = result.fillna({"accuracy": 0})  # a training that failed counts as no answer right

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=[1.3, 1])
draw_race("mine", result, axes, title="digits, 3 seeds")
found = leads_of("mine", result)["found"]
verdicts = [f"over {runner}: {'a' if f else 'no'} difference found" for runner, f in found.items()]
axes[1].set(xlabel="lead of mine, points"), axes[1].set_title("\n".join(verdicts), fontsize="small")
show(fig, alt="Left: accuracy of none, half and mine for three seeds. Right: the leads of mine "
     "over the two others with their intervals, and the verdict on each in the title.")

# %% [markdown]
# **What to see**, for the template as it stands: *mine* is *none*, seed for seed, and its lead over it is exactly 0 without
# any interval. That is what "the same start and the same batches" means. It is also a test of the harness that you should
# repeat whenever you change it: **race the identity first**. If it wins, the harness is wrong.
#
# Look at *half*, too. After these four epochs it lies much further behind *none* than after the eight of part 7 (three seeds
# here, ten there). That fits a network that learns more slowly; we did not train longer to see whether the gap closes. Either
# way, **how long a race lasts is one of its settings**, and belongs beside its result.

# %%
from attnlib.lab.compare import interval

assert round(interval([0, 1, 2])[1] * 3**0.5, 1) == 4.3  # their standard error is 1 / sqrt(3)
identity = lambda channels: nn.Identity()
twins = race({"none": None, "identity": identity}, seeds=[0], epochs=1, progress=False)
assert twins["loss"].nunique() == twins["curve"].nunique() == 1  # the same to the last digit
assert leads_of("none", result).loc["half", "lead"] > 1.5 * halving["lead"]

# %% [markdown]
# ## 10 · A rubric for oneself · *Core*
#
# Ten questions, and what counts as evidence for each. "I think so" does not.
#
# | | question | evidence | here |
# |---|---|---|---|
# | 1 | Can I say in one sentence what the gate looks at? | the sentence, and an input that it cannot tell from another | part 2, (19.5) |
# | 2 | Do I know over which axes it varies? | the audit's line "gate shape" | part 5 |
# | 3 | What is it before training? | an assertion on the fresh module | part 3 |
# | 4 | Have I computed one case with a pencil? | numbers asserted against the module | (19.1), (19.2) |
# | 5 | Do I know its gradient? | hand = autograd = central differences | (19.4) |
# | 6 | Does it treat each image on its own, away from its start? | an audit with redrawn weights | part 8 |
# | 7 | Does it survive a constant channel, a single pixel, a single image? | gradients that are finite there | part 8 |
# | 8 | Does my formula give its cost? | `against_formula` on two sizes | (19.6) |
# | 9 | Against what have I compared it? | *none*, *half*, one ingredient changed, one that exists | part 7 |
# | 10 | Was the rule there before the figure? | the rule, written above the cell | part 7 |
#
# **If you write about it**, these belong into the text, because nobody can judge the result without them:
#
# - **How many seeds**, and the spread: every seed as a dot, or an interval, and which kind of interval. Never the best
#   seed, and never one number alone.
# - **What was equal**: the batches, the start of what is shared, the number of steps, and above all the search for a
#   learning rate. If yours was tuned and the others' was taken from elsewhere, say so.
# - **The controls**, *half* among them, and a variant that lacks your one idea and has everything else.
# - **How many comparisons** were made, with those that were tried and left out, and the correction.
# - **The cost, and how it was counted**: parameters with or without biases, MACs or operations, and time measured beside the
#   plain network on a named machine. Notebook 08 has two published sizes of one network that differ by convention alone.
# - **What was not found.** "No difference found, with an interval of 0.3 points to either side" is a result: it says how
#   large an effect could have hidden. "Comparable" is not.
# - **Where it fails**, with a picture, and the code that runs.
#
# By this rubric the contrast gate is a sound module and a disappointing idea: it works (part 7, cards), it is cheap, it
# listens to what we said, and **on neither task did it do better than the plain mean**. It took one more runner in the race
# to see that, and it is a common end of an honest study.

# %% [markdown]
# ## 11 · Exercises and summary
#
# Exercise 19.1 stands in part 4, 19.2 in part 6 and 19.3 in part 8. The one that asks for something new is part 9, and only
# the rubric can mark it.
#
# | what | equation | here |
# |---|---|---|
# | descriptor | $z_c = \sqrt{\frac1N \sum_p d_c(p)^2 + \varepsilon}$, with $d = x - \mu$ | (19.1) |
# | score, gate, rescaling | $y_c(p) = \sigma(w_c z_c + b_c)\, x_c(p)$ | (19.2) |
# | slope of the descriptor | $d_c(p) / (N z_c)$ | (19.3) |
# | gradient | $s_c\, g_c(p) + \frac{\partial L}{\partial v_c}\, w_c\, \frac{d_c(p)}{N z_c}$ | (19.4) |
# | what it does not notice | a shift, a change of sign, a shuffle of the pixels | (19.5) |
# | price | $2C$ parameters, $C$ MACs | (19.6) |
#
# - Four questions come before the code: what it looks at, over which axes it varies, what it starts as, what it costs.
# - A check must be able to fail, and it must look away from the start, where a zero hides everything.
# - Compare with a network that differs in one ingredient, and with one that merely halves its features. On digits our
#   gate was better than *half* and worse than *none*.
# - "No difference found", with its interval, is a finding.
#
# **Sources.** Lee, Kim, Nam, arXiv 1903.10829 (channels described by statistics of their own); Hu, Shen, Sun, arXiv 1709.01507 (SE); Holm, *A Simple Sequentially Rejective Multiple
# Test Procedure*, 1979 (the correction). Contrast gate, race and rubric are this course's own.
#
# **Where to go from here.** This is the last notebook. Every mechanism of the course is a class of `attnlib` with the
# paper's equations beside its lines: put one into your own model with `build_attention("eca", channels)`, put *yours* into a
# backbone with `attnlib.backbone.ResNet(50, attention=Mine)`, and race it on your own pictures with `race(..., source="your/folder")`. Then
# open the papers that the notebooks name, and read them with a pencil: you know what to ask of them.
#
# **Back:** [18_claims_on_trial](18_claims_on_trial.ipynb), [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb) ·
# **Next:** none. The map of the course is in [00_start_here](00_start_here.ipynb).
