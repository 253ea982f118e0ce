# %% [markdown]
# # 00 · Start here
#
# **The question.** What is this course, and how do you work through it?
#
# **The answer in one sentence.** Twenty-one notebooks derive every attention mechanism from the dot product to
# HRNet, each equation with a cell that checks it, each claim with a cell that settles it; you read, predict, run, and
# write the important functions yourself.
#
# **Time.** 20 minutes.
#
# **Prerequisites.** Python, a little PyTorch, first-year calculus. What else is needed stands on the skippable pages
# of [00_toolbox](00_toolbox.ipynb).

# %% [markdown]
# ## 1 · Attention in three lines
#
# Here is a handwritten digit, eight rows of eight pixels. Let every row compare itself with every row, by a dot
# product, and turn its eight scores into eight weights that sum to one. That is attention; the rest of the course
# asks what to compare, with what, and at what price.
#
# Run the cell with **Shift+Enter**. (The first cell of a notebook takes a few seconds: it loads PyTorch.)

# %%
from attnlib.lab.data import load_digits
from attnlib.lab.notebook import show, start
from attnlib.lab.plots import heatmap, pictures

start(seed=0)
digit = load_digits("test").images[0, 0]
show(pictures(digit[None], ["a digit"])[0].figure, alt="A handwritten zero, eight by eight pixels.")

# %%
scores = digit @ digit.T / 8**0.5
weights = scores.softmax(dim=1)
show(heatmap(weights, label="weight", limits=(0, 0.5)).figure,
     alt="Attention weights of the eight rows (from top to bottom) over the eight rows looked at.")

# %% [markdown]
# **What to see.** Row $i$ of the picture says where row $i$ of the digit looks: bright where it found something like
# itself. Rows that cross the digit's two sides look at each other.
#
# Each row of weights sums to one. In the course such a result is displayed with a number, and the number comes back
# in a cell that checks it:
#
# $$\sum_j w_{ij} = 1 \quad \text{for every row } i \tag{0.1}$$

# %%
import torch

assert torch.allclose(weights.sum(dim=1), torch.ones(8))  # (0.1)

# %% [markdown]
# No output is good news: an `assert` that holds says nothing. Change the `1` in `dim=1` above to a `0`, run both
# cells again, and see one that fails. (Then put it back.)

# %% [markdown]
# ## 2 · How a notebook works
#
# - **Core and Depth.** The headings of a lesson are marked. Core takes about an hour and stands on its own. Depth
#   is for a second reading: whole backward passes, published mistakes, costs.
# - **Predict** comes before a key figure. Say your guess aloud, or write it down. Being wrong is the point.
# - **What to see** comes after it.
# - **Exercises** have a stub, three folded hints, a folded solution, and a checker. The checker knows the
#   usual mistakes and says which one you made. Whatever you write, the cells below go on with a version that works.
# - **Sources that differ.** Papers, official code and popular copies often disagree. Each lesson says which one it
#   follows, and shows the difference with a cell.
# - **Your copy.** `make lab` opened a copy in the folder `work/`. It is yours: nothing overwrites it.
#
# Try a checker. Run the cell as it is; then write one wrong answer (say, `weights.T @ values`) and a right one.
#
# ### Exercise 00.1 · a weighted average · 5 minutes
#
# Output $i$ is the average of all values with the weights of row $i$. `weights` is (n, m), `values` is (m, d).
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
# ## 3 · Is everything in place?
#
# Each line should say `True`. If one does not, close JupyterLab and run `make lab` again, which repairs the
# installation; a damaged data file is named together with the command that restores it.

# %%
import sys

from attnlib.lab.data import data_file

print("Python 3.11 or newer:", sys.version_info >= (3, 11))
print("torch 2.13:", torch.__version__.startswith("2.13."))
print("data files intact:", all(data_file(name).exists() for name in ("digits.npy", "terms.csv")))

# %% [markdown]
# ## 4 · The map
#
# Hours are for Core, then for everything. A notebook without a link is not built yet.
#
# | notebook | derives | read first | hours |
# |---|---|---|---|
# | 00_start_here | how the course works | – | ⅓ |
# | [00_toolbox](00_toolbox.ipynb) | softmax, gradients, variance, convolution, BatchNorm, residuals, GRU | – | up to 2 |
# | **Part I, sequences** | | | |
# | 01_what_is_attention (not built yet) | soft look-up; scores and normalisers | 00_toolbox | 1 / 2½ |
# | 02_self_attention (not built yet) | queries, keys, values; why $1/\sqrt d$; the backward pass | 01 | 1 / 2½ |
# | 03_multi_head_and_positions (not built yet) | heads; sinusoids; relative positions | 02 | 1 / 2 |
# | 04_recurrent_attention (not built yet) | encoder-decoder; additive attention; Luong's scores | 01 | 1 / 2½ |
# | 05_transformer (not built yet) | encoder, decoder, decoding with a cache | 03 | 1 / 3 |
# | 06_moving_averages (not built yet) | moving averages as attention; cosine windows | 01 | 1 / 2 |
# | **Part II, feature maps** | | | |
# | 07_attention_on_feature_maps (not built yet) | descriptor, score, gate, rescale; auditing a module | 02 | 1 / 2 |
# | [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb) | a gate for each channel; reduction | 07 or 00_toolbox | 1 / 2¼ |
# | 09_efficient_channel_attention (not built yet) | the kernel-size formula | 08 | 1 / 2 |
# | 10_spatial_attention (not built yet) | a gate for each place; Darknet's layers | 07 | 1 / 2 |
# | 11_cbam (not built yet) | channel and spatial gates in turn; BAM | 08, 10 | 1 / 2 |
# | 12_normalization_attention (not built yet) | BatchNorm's scale as importance | 08 | 1 / 2 |
# | 13_global_attention (not built yet) | GAM and its true price | 11 | 1 / 2 |
# | 14_non_local (not built yet) | pairs of pixels; expectation-maximisation attention | 02, 07 | 1 / 2½ |
# | 15_efficient_multi_scale (not built yet) | groups, two branches, a softmax that never sees the input | 10 | 1 / 2 |
# | 16_hrnet (not built yet) | parallel resolutions; weight averages | 15 | 1 / 2½ |
# | **Part III, judgement** | | | |
# | 17_face_off (not built yet) | the measured comparison | 08 to 16 | 1 / 2 |
# | 18_claims_on_trial (not built yet) | every claim settled; which mechanism for which job | all | 1 / 2 |
# | 19_capstone (not built yet) | design one of your own | 07, 17 | 2 / 4 |
#
# **Two ways through.** *All of it*: in the order of the table. *Vision first*: 00, 02, 07, 08, then 09 to 16, 17
# and 18; come back to 01 and 03 to 06 when a sequence turns up in your work.

# %% [markdown]
# ## 5 · Terms in English and Chinese
#
# The words of the field, as they are used here. The table shows those of the notebooks that are open to you first;
# drop the filter to see all of them.

# %%
from attnlib.lab.data import load_terms

terms = load_terms()
first = terms[terms["notebook"].isin(["00_toolbox", "08_squeeze_and_excitation"])]
first[["english", "chinese", "symbol", "meaning"]].reset_index(drop=True)

# %% [markdown]
# ## 6 · Your progress
#
# What a checker passes is remembered on your own disk, and nowhere else. Run this cell again whenever you like.

# %%
from attnlib.exercises import all_exercises, progress

passed = progress.passed()
counts = {
    notebook: (sum(name in passed for name in names), len(names))
    for notebook, names in all_exercises().items()
}

# %%
import matplotlib.pyplot as plt

done, total = zip(*counts.values(), strict=True)
ax = plt.subplots(figsize=(6, 0.5 + 0.4 * len(counts)))[1]
ax.barh(list(counts), total, color="lightgrey", label="to do")
ax.barh(list(counts), done, label="passed")
ax.set(xlabel="exercises and recall questions", ylabel="notebook", xlim=(0, max(total) + 3))
ax.legend(loc="lower right")
show(ax.figure, alt="Bars by notebook: exercises passed, and those still to do.")

# %% [markdown]
# ## 7 · Summary
#
# You know how to run a cell, how an equation and its check belong together, how a checker answers, and where your
# progress is kept.
#
# **Next:** the [toolbox](00_toolbox.ipynb), of which you may skip every page whose self-test is easy, or straight to
# [08_squeeze_and_excitation](08_squeeze_and_excitation.ipynb).
