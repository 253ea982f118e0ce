# %% [markdown]
# # 00 · Start here
#
# **The question.** What is this course, and how do you work through it?
#
# **The answer in one sentence.** Planned are twenty-one notebooks, from the dot product to HRNet, and the map in part 6
# links those that are open today; each derives its equations, checks each of them with a cell, and lets you write the
# important functions yourself.
#
# **Time.** 15 minutes.
#
# **Prerequisites.** Python, a little PyTorch, first-year calculus. Anything else is explained in
# [00_toolbox](00_toolbox.ipynb), page by page, when you need it.

# %% [markdown]
# ## 1 · Attention in a few lines
#
# Here is a handwritten digit: eight rows of eight pixels, bright where there is ink. We compare every row with every
# row, by a dot product: multiply them pixel by pixel and add up. Ink at the same places gives a large number.
#
# Click into the cell below and press **Shift+Enter**. The first cell of a notebook takes a few seconds, since it loads
# PyTorch. (If it ends in red, go to part 3.)

# %%
import matplotlib.pyplot as plt
import torch

from attnlib.lab.data import load_digits
from attnlib.lab.notebook import show, start
from attnlib.lab.plots import heatmap, pictures

start(seed=0)

# %%
digit = load_digits("test").images[0, 0]
scores = digit @ digit.T / 8**0.5
weights = scores.softmax(dim=1)

# %% [markdown]
# The last two lines are the first half of attention. `scores` holds the 8 x 8 dot products, divided by $\sqrt 8$ so that
# they stay small (notebook 02 says why this number). The *softmax* turns each row of scores into positive weights that sum
# to one: its share of attention. Write $w_{ij}$ for the weight that row $i$ gives to row $j$.
#
# **Predict.** Without any preference every weight would be $1/8 = 0.125$. Which row will row 0, the top of the zero, look
# at most?

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=[1, 1.3])
left.imshow(digit.numpy(), cmap="gray"), left.set(title="a digit", ylabel="row", xticks=[])
heatmap(weights, ax=right, limits=(0.05, 0.2), label="weight")
right.set(xlabel="row looked at", ylabel="row")
show(fig, alt="Left, a handwritten zero. Right, the weights of its eight rows over its eight rows: "
     "brighter blocks where two rows have ink at the same places.")

# %% [markdown]
# **What to see.** Rows 3, 4 and 5 cross the left and the right side of the zero, so they give each other more weight, and
# the top and the bottom less. Row 0 looks at row 7, the bottom, a little more than at itself: a dot product rewards much
# ink as well as likeness. What to compare instead, and with what, is what the course is about.
#
# Each row of weights sums to one. In the course such a result is displayed with a number, and the number comes back
# in a cell that checks it:
#
# $$\sum_j w_{ij} = 1 \quad \text{for every row } i \tag{0.1}$$

# %%
assert torch.allclose(weights.sum(dim=1), torch.ones(8))  # (0.1)
assert weights[0].argmax() == 7 and weights[0, 7] > weights[0, 0] > 1 / 8
assert weights[3:6, 3:6].min() > 0.135 and weights[3:6, [0, 7]].max() < 1 / 8

# %% [markdown]
# No output is good news: an `assert` that holds says nothing. To see one that fails, change `softmax(dim=1)` into
# `softmax(dim=0)` above, run that cell and then the one with the asserts. A red block appears whose last line says
# `AssertionError`. Nothing is broken: put the 1 back and run both cells again.

# %% [markdown]
# ## 2 · How a notebook works
#
# - **Core and Depth.** The headings of a lesson are marked. Core takes an hour or a little more and stands on its own. Depth
#   is for a second reading: whole backward passes, published mistakes, costs.
# - **Predict** comes before a key figure. Say your guess aloud, or write it down; a wrong guess costs nothing. The
#   outputs that you find at first are from our run. To predict without seeing the answer, begin a lesson with *Edit →
#   Clear Outputs of All Cells*.
# - **What to see** comes after the figure.
# - **Recall questions** open a lesson; you answer with a letter.
# - **Exercises** have a stub, three folded hints, a folded solution, and a checker. The checker prints ✓ for a right
#   answer, ○ for one not yet written, and ✗ for a wrong one, with what went wrong: it knows the usual mistakes.
#   Whatever you write, the cells below go on with a version that works.
# - **Sources that differ.** Papers, official code and popular copies often disagree. Each lesson says which one it
#   follows, and shows the difference with a cell.
#
# **Nothing can go wrong.** The notebooks you see are your own copies, in the folder `work/`; nothing overwrites them.
# If cells get into a tangle, choose *Kernel → Restart Kernel and Run All Cells*. For a fresh copy of a notebook, rename
# yours and run `make lab` again. To stop for today, press Ctrl-C in the terminal; `make lab` brings you back.
#
# ### Exercise 00.1 · a weighted average · 5 minutes
#
# The second half of attention: output $i$ is the average of all values, with the weights of row $i$. `weights` is (n, m),
# `values` is (m, d). In the cell below, replace the line `raise NotImplementedError` by your own, and press Shift+Enter.
# Try a wrong answer first, say `return weights * values`, to see what a checker is like.
#
# <details><summary>Hint 1</summary>
#
# Entry $(i, k)$ of the result is $\sum_j w_{ij} v_{jk}$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A sum over the index in the middle is a matrix product.
#
# </details>
# <details><summary>Hint 3</summary>
#
# In Python a matrix product is written `@`.
#
# </details>

# %% tags=["exercise"]
from attnlib.exercises import check

def weighted_average(weights, values):
    """weights (n, m), whose rows sum to 1, and values (m, d) -> (n, d)."""
    raise NotImplementedError

weighted_average = check("00.1", weighted_average)

# %% tags=["solution"]
from attnlib.exercises import check

def weighted_average(weights, values):
    return weights @ values

# %% [markdown]
# **Predict.** Every row of the zero is now replaced by an average of all rows, with the weights from above. What will be
# left of it?

# %%
mixed = weighted_average(weights, digit)
axes = pictures(torch.stack([digit, mixed]), ["before", "after"])
show(axes[0].figure, alt="The zero before and after: afterwards all rows are alike, two bright "
     "vertical bars with a grey band between them.")

# %% [markdown]
# **What to see.** The rows have become nearly the same: two bars, with a grey band between them. The weights were all near
# $1/8$, so each output is close to the plain mean of the rows. Attention that hardly prefers anything blurs; sharper weights
# need scores that differ more. You have seen the whole of attention once: **scores, weights, average**.

# %%
assert mixed.std(dim=0).max() < digit.std(dim=0).max() / 5

# %% [markdown]
# ## 3 · Is everything in place?
#
# Each line should say `True`. If one does not, or if a cell with an `import` ended in red, close JupyterLab and run
# `make clean` and `make lab` in the terminal: that installs everything afresh, and your notebooks and your progress stay.

# %%
import sys

from attnlib.lab.data import data_file

print("Python 3.11 or newer:", sys.version_info >= (3, 11))
print("torch 2.13:", torch.__version__.startswith("2.13."))
for name in ("digits.npy", "terms.csv"):  # the error for a damaged file says how to restore it
    print(f"{name} is as it should be:", data_file(name).exists())

# %% [markdown]
# ## 4 · Terms in English and Chinese
#
# The words of the toolbox and of 08. For the whole course, put `terms` in the place of `open_now` in the last line.

# %%
import pandas as pd

from attnlib.lab.data import load_terms

pd.set_option("display.max_colwidth", None, "display.max_rows", None)
terms = load_terms().drop(columns="symbol").set_index("english")
open_now = terms[terms["notebook"].isin(["00_toolbox", "08_squeeze_and_excitation"])]
open_now

# %% [markdown]
# ## 5 · Your progress
#
# What a checker passes is remembered on your own disk, and nowhere else; `progress.folder()` of `attnlib.exercises` names
# the place. Run this cell again whenever you like. To start over, delete that folder.

# %%
from attnlib.exercises.overview import draw_progress

show(draw_progress().figure, alt="Bars by notebook: exercises passed, and those still to do.")

# %% [markdown]
# ## 6 · The map
#
# Hours are for Core, and for Core and Depth together.
#
# | notebook | derives | read first | hours |
# |---|---|---|---|
# | [00_toolbox](00_toolbox.ipynb) | softmax, gradients, variance, convolution, BatchNorm, residuals, GRU | – | as needed, up to 2¾ |
# | **Part I, sequences** | | | |
# | [01_what_is_attention](01_what_is_attention.ipynb) | soft look-up; scores and normalisers | 00_toolbox | 1 / 2½ |
# | [02_self_attention](02_self_attention.ipynb) | queries, keys, values; why $1/\sqrt d$; the backward pass | 00_toolbox (01, once it is open) | 1½ / 3½ |
# | [03_multi_head_and_positions](03_multi_head_and_positions.ipynb) | heads; sinusoids; relative positions | 02 | 1½ / 3¼ |
# | [04_recurrent_attention](04_recurrent_attention.ipynb) | encoder-decoder; additive attention; Luong's scores | 01 | 1½ / 3⅓ |
# | [05_transformer](05_transformer.ipynb) | encoder, decoder, decoding with a cache | 03 | 1½ / 3½ |
# | [06_moving_averages](06_moving_averages.ipynb) | moving averages as attention; cosine windows | 01 | 1⅓ / 2¾ |
# | **Part II, feature maps** | | | |
# | [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb) | descriptor, score, gate, rescale; auditing a module | 02 | 1¼ / 2¾ |
# | [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb) | a gate for each channel; reduction | 00_toolbox (07 helps) | 1⅓ / 3 |
# | [09_efficient_channel_attention](09_efficient_channel_attention.ipynb) | the kernel-size formula | 08 | 2 / 3½ |
# | [10_spatial_attention](10_spatial_attention.ipynb) | a gate for each place; Darknet's layers | 07 | 1½ / 3½ |
# | [11_cbam](11_cbam.ipynb) | channel and spatial gates in turn; BAM | 08, 10 | 2⅓ / 4¾ |
# | [12_normalization_attention](12_normalization_attention.ipynb) | BatchNorm's scale as importance | 08 | 1½ / 4 |
# | [13_global_attention](13_global_attention.ipynb) | GAM and its true price | 11 | 1½ / 3 |
# | [14_non_local](14_non_local.ipynb) | pairs of pixels; expectation-maximisation attention | 02, 07 | 1⅓ / 3⅓ |
# | [15_efficient_multi_scale](15_efficient_multi_scale.ipynb) | groups, two branches, a softmax that never sees the input | 10 | 1½ / 3⅓ |
# | [16_hrnet](16_hrnet.ipynb) | parallel resolutions; weight averages | 15 | 1¼ / 2¾ |
# | **Part III, judgement** | | | |
# | [17_face_off](17_face_off.ipynb) | the measured comparison | 08 to 16 | 1 / 2 |
# | [18_claims_on_trial](18_claims_on_trial.ipynb) | every claim settled; which mechanism for which job | all | 1 / 2 |
# | [19_capstone](19_capstone.ipynb) | design one of your own | 07, 17 | 2 / 4 |
#
# **Ways through.** The whole table in order, or vision first: 00, 02, 07, 08, then 09 to 16, 17 and 18, and 01 and 03 to
# 06 when a sequence turns up in your work. Leave out what has no link yet. With one evening, take 02 or 08, whichever is
# nearer to what you do, and the toolbox pages that it names.
#
# ## 7 · Summary
#
# You know how to run a cell, how an equation and its check belong together, how a checker answers, where your progress is
# kept, and what attention is made of: scores, weights, average.
#
# **Next:** [02_self_attention](02_self_attention.ipynb), or [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb) if
# you come for images. Each names the pages of the [toolbox](00_toolbox.ipynb) that it needs: take their self-tests first (a
# few minutes each) and skip what is easy.
