# %% [markdown]
# # 18 · Claims on trial
#
# **The question.** Forty-nine things are said about attention mechanisms in articles on the web. Which of them are true?
#
# **The answer in one sentence.** Six are true as they stand; thirteen have a wrong name or come with code that computes
# something else, and several of the rest mix what a gate listens to with what it varies over.
#
# **Time.** Core 45 minutes (parts 1-4 and 6) · Depth 45 minutes (the rest).
#
# **Prerequisites.** None for reading the verdicts; each links to the notebook that derives it. The signatures of part
# 4 come from [07_attention_on_feature_maps](07_attention_on_feature_maps.ipynb). The course's map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · What a verdict means
#
# A claim is settled by a cell that runs and that would fail if the verdict were another one. Each id below links to
# that cell. There are six verdicts:
#
# | verdict | meaning |
# |---|---|
# | TRUE | so it is; the cell asserts it |
# | FALSE | it is not so; the cell asserts the opposite, or a case against it |
# | PARTLY | right in one part and wrong in another; the cell has both |
# | MISNAMED | the mechanism exists, under another name |
# | DEPENDS | on the sense of a word, or on a measurement; the cell says on what |
# | BROKEN | the code or formula raises, or it computes something else than it says |
#
# The claims are worded in the course's own words, with a Chinese gloss, because most of them circulate in Chinese.
# They are read from `data/claims.csv`, and a test of the project checks that each has exactly one owner, with the
# verdict written over an assertion there.
#
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **18.a** An article says "NAM". Which mechanism does it mean? (a) the normalisation-based module, always · (b) all
# three of that name at once · (c) the acronym cannot tell; look at the formula · (d) the one with a similarity score
# · (e) what it means in the first paper that a search finds
#
# **18.b** What is BROKEN? (a) what raises, or computes something else than it says · (b) what raises · (c) what
# exists under another name · (d) what has to be measured · (e) what is right in one part only
#
# **18.c** Over what does SE's gate vary? (a) places · (b) channels · (c) both · (d) neither · (e) only from image to image

# %%
import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from attnlib import build_attention
from attnlib.exercises import check
from attnlib.lab.data import load_claims, load_results
from attnlib.lab.notebook import show, start

start(seed=0)

# %% tags=["exercise"]
check("18.a", ...)
check("18.b", ...)
check("18.c", ...)

# %% tags=["solution"]
check("18.a", "c")
check("18.b", "a")
check("18.c", "b")

# %% [markdown]
# ## 2 · The verdicts at a glance · *Core*
#
# **Predict.** Which of the six words occurs most often? How many claims have TRUE as their whole verdict?

# %%
claims = load_claims()
words = ["TRUE", "FALSE", "PARTLY", "MISNAMED", "DEPENDS", "BROKEN"]
verdicts = {word: claims["verdict"].str.contains(word) for word in words}
simply_true = (claims["verdict"] == "TRUE").sum()
counts = {word: int(held.sum()) for word, held in verdicts.items()}
print(len(claims), "claims:", counts)
print("true without a limit:", simply_true)
assert len(claims) == 49 and simply_true == 6 and list(counts.values()) == [9, 16, 7, 6, 10, 9]

# %%
elsewhere = verdicts["MISNAMED"] | verdicts["BROKEN"]
print("a wrong name, or code for something else:", elsewhere.sum())
assert elsewhere.sum() == 13

# %%
fig, ax = plt.subplots(figsize=(7, 2.6))
ax.barh(words[::-1], [counts[word] for word in words[::-1]],
        color=["C0" if word == "TRUE" else "C1" for word in words[::-1]])
ax.set(xlabel="claims with this word in the verdict")
show(fig, alt="Bars: FALSE stands in 16 verdicts, DEPENDS in 10, TRUE and BROKEN in 9 each, "
     "PARTLY in 7, MISNAMED in 6.")

# %% [markdown]
# **What to see.** Six claims of 49 are true without any limit, and three more in one sense. FALSE is the word that
# occurs most often. But the lesson is in the others: a claim that is MISNAMED, or that DEPENDS on the sense of a
# word, is no nonsense; somebody understood something and wrote down a neighbour of it.
#
# ## 3 · Every claim, and the cell that settles it · *Core*
#
# Choose three claims that you believe, and three that you doubt. **Predict** their verdicts before you read on.

# %%
def trial(*families):
    """The claims of some families as a table; an id leads to the cell that settles it."""
    lines = ["| claim | says | verdict | because |", "|---|---|---|---|"]
    for row in claims[claims["id"].str.split("-").str[0].isin(families)].itertuples():
        cell = f"{row.notebook}.ipynb#cell-id=claim-{row.id.lower()}"
        says = f"{row.claim} ({row.chinese})"
        lines.append(f"| [{row.id}]({cell}) | {says} | **{row.verdict}** | {row.reason} |")
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ### SE and ECA: channels

# %%
trial("SE", "ECA")

# %% [markdown]
# ### SAM, and what channel and spatial attention are

# %%
trial("SAM", "CS")

# %% [markdown]
# ### CBAM and GAM: both

# %%
trial("CBAM", "GAM")

# %% [markdown]
# ### NAM, three mechanisms of one name

# %%
trial("NAM")

# %% [markdown]
# ### EMA, four of one name

# %%
trial("EMA")

# %% [markdown]
# ### Sequences

# %%
trial("ATT", "TR")

# %% [markdown]
# ## 4 · The atlas of signatures · *Core*
#
# Claims such as SE-3, ECA-4, CS-2 and GAM-3 go wrong over *what a gate listens to*. That can be seen without any training: change one channel
# or one place of the map, and see which gates follow. The **signature** of a mechanism is that table, over channels
# (top) and over places (bottom); each mechanism notebook drew its own. Here are twelve side by side, on one map of 8
# channels and 5 x 5 places, with all weights drawn at random.
#
# In figures: how strongly gate $c$ follows channel $k$ is the root mean square of its slopes over all pairs of places
# $p$, $q$, drawn as a share of the strongest; for places it is the mean over all pairs of channels.
#
# $$S_{ck} = \sqrt{\frac{1}{(HW)^2} \sum_{p, q} \Big(\frac{\partial s_{c,p}}{\partial x_{k,q}}\Big)^2} \tag{18.1}$$
#
# **Predict** before you look: which of them have a diagonal (a gate that listens to itself alone), which a band, and
# which are full?

# %%
from attnlib.lab.checks import redrawn
from attnlib.lab.signatures import draw_signature, signature

options = {"se": {"reduction": 2}, "cbam": {"reduction": 2}, "gam": {"reduction": 2},
           "gc": {"reduction": 2}, "sam": {"kernel_size": 3}, "ema": {"groups": 2}}
names = ["se", "eca", "nam", "sam", "point_sam", "cbam",
         "gam", "ema", "coordinate", "simam", "gc", "nonlocal"]

# %%
image = torch.randn(1, 8, 5, 5, dtype=torch.float64)
modules = {name: redrawn(build_attention(name, 8, **options.get(name, {})).double())
           for name in names}
of_output = ("cbam", "nonlocal")  # these two have no single gate: their outputs are looked at
atlas = {name: signature(module if name in of_output else module.weights, image)
         for name, module in modules.items()}

# %%
from attnlib.lab.gradients import jacobian

slopes = jacobian(lambda x: modules["eca"].weights(x).expand_as(x), image).view(8, 25, 8, 25)
strength = slopes.square().mean((1, 3)).sqrt()
assert torch.allclose(atlas["eca"].channels, strength / strength.max())  # (18.1)

# %%
def draw_atlas(chosen):
    fig, axes = plt.subplots(2, len(chosen), figsize=(10, 3.6))
    for name, column in zip(chosen, axes.T, strict=True):
        draw_signature(atlas[name], axes=column, title=name)
    for ax in axes[:, 1:].flat:
        ax.set(xlabel="", ylabel="")
    return fig

# %%
show(draw_atlas(names[:6]), alt="Six signatures, channels above and places below: se full "
     "and full, eca a band and full, nam two diagonals, sam full and a window, point_sam full "
     "and a diagonal, cbam full and full.")

# %%
show(draw_atlas(names[6:]), alt="Six signatures: gam full and full, ema two blocks and full, "
     "coordinate full and crosses, simam a diagonal and full, gc and nonlocal full and full.")

# %% [markdown]
# **What to see.** Bright is strong; square roots are drawn, so that weak can be told from nothing. In the upper row: a
# diagonal for `nam` and `simam` (each channel for itself), a band for `eca`, two blocks for `ema` (its groups), and
# full squares for the rest. In the lower row: a diagonal for `nam` and `point_sam`, the window of the kernel for
# `sam`, crosses of a row and a column for `coordinate`. The other eight are full, though `nonlocal` is so weak in
# places that the eye takes it for nothing. Seven of them average over the whole map, or weigh it with a softmax. `gam`
# does neither: its window of 13 x 13 merely covers our 5 x 5 places. On a longer map it is a band.

# %%
full = ("se", "eca", "cbam", "ema", "simam", "gc", "nonlocal", "gam")
assert all((atlas[name].places > 0).all() for name in full)
assert 0 < atlas["nonlocal"].places.min() < 1e-3
strip = signature(modules["gam"].weights, torch.randn(1, 8, 1, 16, dtype=torch.float64))
print("gam, a strip of 16 places: the first hears", int((strip.places[0] > 0).sum()), "of them")
assert (strip.places[0, :7] > 0).all() and (strip.places[0, 7:] == 0).all()

# %% [markdown]
# ### Exercise 18.1 · what a gate varies over · *Core* · 10 minutes
#
# Listening is one thing, varying is another: SE's gate listens to every place and has the same value at all of them.
# Write the function that says over what a gate of shape (b, c, h, w) varies within an image: `"channels"`,
# `"places"`, `"both"` or `"neither"`.
#
# <details><summary>Hint 1</summary>
#
# A gate that does not vary over channels equals its own first channel everywhere.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `gate[:, :1]` keeps the axis, so that it can be compared with `gate` by broadcasting.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.allclose(gate, gate[:, :1])` for channels, and `gate[:, :, :1, :1]` for places.
#
# </details>

# %% tags=["exercise"]
def varies_over(gate):
    """gate: (b, c, h, w) -> "channels", "places", "both" or "neither"."""
    raise NotImplementedError

varies_over = check("18.1", varies_over)

# %% tags=["solution"]
def varies_over(gate):
    channels = not torch.allclose(gate, gate[:, :1])
    places = not torch.allclose(gate, gate[:, :, :1, :1])
    if channels and places:
        return "both"
    return "channels" if channels else "places" if places else "neither"

# %%
kinds = {name: varies_over(modules[name].weights(image).expand_as(image))
         for name in names if name not in of_output}
for kind in ("channels", "places", "both"):
    print(f"{kind:>8}:", ", ".join(name for name in kinds if kinds[name] == kind))
assert [kinds[name] for name in ("se", "eca", "sam")] == ["channels", "channels", "places"]
others = ("nam", "point_sam", "gam", "ema", "coordinate", "simam")
assert {kinds[name] for name in others} == {"both"} and kinds["gc"] == "places"

# %% [markdown]
# `gc` is listed under "places" with reason: its `weights` are those of a softmax over places, which make one vector
# that is added everywhere; no gate is multiplied ([14_non_local](14_non_local.ipynb)). And NAM, known as a channel
# gate, varies over places too, because its gate is a function of each single number of the map.
#
# ### Exercise 18.2 · how far a gate listens · *Depth* · 10 minutes
#
# Entry $(i, j)$ of a table of slopes says how strongly gate $i$ follows channel $j$. Write the function that returns
# the **reach**: the largest $|i - j|$ of a slope that is not zero.
#
# <details><summary>Hint 1</summary>
#
# `slopes.nonzero()` lists the pairs (i, j) of the entries that are not zero.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Negative slopes count, and so do entries on both sides of the diagonal.
#
# </details>
# <details><summary>Hint 3</summary>
#
# If there is none, the reach is 0: `max(..., default=0)`.
#
# </details>

# %% tags=["exercise"]
def reach(slopes):
    """slopes: (n, n), how gate i follows channel j -> the largest |i - j| that counts."""
    raise NotImplementedError

reach = check("18.2", reach)

# %% tags=["solution"]
def reach(slopes):
    return max((abs(i - j) for i, j in slopes.nonzero().tolist()), default=0)

# %%
reaches = {name: reach(atlas[name].channels) for name in names}
print(reaches)
assert reaches["nam"] == reaches["simam"] == 0 and reaches["eca"] == 1  # kernel 3
dense = ("se", "sam", "cbam", "gam", "gc", "nonlocal")
assert reaches["ema"] == 3 and all(reaches[name] == 7 for name in dense)

# %% [markdown]
# Over places the number of slopes that are not zero tells more than their reach:

# %%
heard = {name: (atlas[name].places > 0).sum(1).tolist() for name in names}
for name in ("nam", "point_sam", "sam", "coordinate", "se"):
    print(f"{name:>10}: a place hears", sorted(set(heard[name])), "of 25")
assert set(heard["nam"]) == set(heard["point_sam"]) == {1} and max(heard["sam"]) == 9
assert set(heard["coordinate"]) == {9} and set(heard["se"]) == {25}  # its row and its column

# %% [markdown]
# ## 5 · Acronyms that collide · *Depth*
#
# | acronym | means | where |
# |---|---|---|
# | NAM | normalisation-based attention module | [12_normalization_attention](12_normalization_attention.ipynb) |
# | NAM | "neural attention mechanism": Bahdanau's additive attention | [04_recurrent_attention](04_recurrent_attention.ipynb) |
# | NAM | "non-local attention mechanism": a non-local block | [14_non_local](14_non_local.ipynb) |
# | SAM | spatial attention module | [10_spatial_attention](10_spatial_attention.ipynb) |
# | SAM | self-attention mechanism | [02_self_attention](02_self_attention.ipynb) |
# | SAM | "selective attention": pooling with a learned query | [01_what_is_attention](01_what_is_attention.ipynb) |
# | SAM | Segment Anything Model, a network | not in this course |
# | SAM | sharpness-aware minimisation, a way to train | not in this course |
# | EMA | exponential moving average of a sequence | [06_moving_averages](06_moving_averages.ipynb) |
# | EMA | exponential moving average of a network's weights | [16_hrnet](16_hrnet.ipynb) |
# | EMA | efficient multi-scale attention | [15_efficient_multi_scale](15_efficient_multi_scale.ipynb) |
# | EMA | expectation-maximisation attention | [14_non_local](14_non_local.ipynb) |
# | GAM | global attention mechanism | [13_global_attention](13_global_attention.ipynb) |
# | GAM | code of that name that computes SE | [13_global_attention](13_global_attention.ipynb) |
# | FCN | fully connected network | toolbox |
# | FCN | fully convolutional network | [16_hrnet](16_hrnet.ipynb) is one |
#
# Four things are called EMA. The first two are one recursion, $m \leftarrow d\, m + (1 - d)\, x$: once $x$ is the next
# value of a series, once the weights after the next step of training. We let a weight take the values of a series:

# %%
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attnlib.sequence import exponential_moving_average

series, model = torch.randn(1, 6, 1), torch.nn.Linear(1, 1, bias=False)
model.weight.data.zero_()
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # without it: equal shares
average.update_parameters(model)  # the first call copies; here it copies the 0

# %%
of_weights = []
for value in series[0]:
    model.weight.data = value[None].clone()
    average.update_parameters(model)
    of_weights.append(average.module.weight.item())
of_series = exponential_moving_average(series, 0.9, bias_correction=False)[0, :, 0]
assert torch.allclose(torch.tensor(of_weights), of_series, atol=1e-6)

# %% [markdown]
# The other two are mechanisms on a feature map:

# %%
map_8 = torch.randn(1, 8, 5, 5)
for name, keywords in (("ema", {"groups": 2}), ("emau", {"bases": 4})):
    attention = build_attention(name, 8, **keywords).eval()
    print(f"{type(attention).__name__}:", tuple(attention(map_8).shape), "a feature map")
    assert attention(map_8).shape == map_8.shape

# %% [markdown]
# ## 6 · Which mechanism for which job · *Core*
#
# The rows below are the course's own measurements, each asserted by the cells after the table. They hold for small
# networks and small pictures; on your task, run `attnlib study`.
#
# | what the task needs, or what is scarce | take | because | measured in |
# |---|---|---|---|
# | a channel decides, anywhere in the map | SE, without its bottleneck | on the cued cards 45 points more than without SE with $r = 1$, 10 with $r = 16$ | [08](08_squeeze_and_excitation.ipynb) |
# | the same, and hardly any parameters to spend | ECA, before the ReLU or with a wide kernel | 45 points with $k = 3$ before the ReLU; behind it 19, and 46 with $k = 31$ | [09](09_efficient_channel_attention.ipynb) |
# | clutter around the thing that counts | first a bare product of two maps | 39 points more on the cluttered digits, after 24 epochs; SAM 18, one more ordinary layer 12 | [10](10_spatial_attention.ipynb) |
# | a channel *at a place* decides | GAM | 65 points more on the marked cards, where SE gains 14; its spatial gate alone 63 | [13](13_global_attention.ipynb) |
# | fetch from a sequence by content | scaled dot-product attention | at width 256, right always with the scale, in half of the cases without | [02](02_self_attention.ipynb) |
# | the order of a sequence | attention *with positions* | 39 points more than without on turned and upright digits | [03](03_multi_head_and_positions.ipynb) |
# | a smooth level under noise | a moving average | a fifth less error than the last value; on a random walk no less | [06](06_moving_averages.ipynb) |
# | small photographs, ten epochs | first divide the residual branches by two | 4 points more than the plain network; no gate is ahead of that | [17](17_face_off.ipynb) |
# | a gate in every block, and hardly any time or memory to spend | SE or ECA | a tenth more time, a quarter more memory in training; GAM and EMA more than twice of each | [17](17_face_off.ipynb) |
# | hardly any parameters to spend | SimAM, ECA or NAM | 0, 27 and 672 more in a ResNet-20 | [17](17_face_off.ipynb) |

# %%
def points(file, variant, setting="epochs == 8", over="plain"):
    """Mean accuracy of a variant, in points above that of another one, over the stored seeds."""
    means = load_results(file).query(setting).groupby("variant")["accuracy"].mean()
    return round(100 * (means[variant] - means[over]))

# %%
assert (points("08_cards", "r = 1"), points("08_cards", "r = 16")) == (45, 10)
plain_cards = load_results("08_cards").query("variant == 'plain'")["accuracy"].mean()
eca = load_results("09_cards").groupby("variant")["accuracy"].mean() - plain_cards
assert [round(100 * eca[name]) for name in ("k = 3, before", "k = 3", "k = 31")] == [45, 19, 46]
clutter = [points("10_clutter", name, "epochs == 24") for name in ("product", "SAM", "layer")]
assert clutter == [39, 18, 12]

# %%
setting = "epochs == 8 and learning_rate == 0.015"
assert [points("13_marked", name, setting) for name in ("GAM", "SE", "M_s")] == [65, 14, 63]
wide = load_results("02_lookups").query("d == 256").groupby("scaled")["accuracy"].mean()
assert wide[True] == 1 and 0.5 < wide[False] < 0.55
order = load_results("03_order").query("task == 'upright'").groupby("positions")["accuracy"].mean()
assert round(100 * (order["sinusoids"] - order["none"])) == 39

# %%
error = load_results("06_forecasts").groupby(["series", "forecaster"])["error"].mean()
ratio = {name: error[name, "EMA, best d"] / error[name, "last value"]
         for name in ("noisy walk", "random walk")}
print({name: round(float(value), 2) for name, value in ratio.items()})
assert 0.75 < ratio["noisy walk"] < 0.85 and ratio["random walk"] > 0.99

# %%
photographs = load_results("17_cifar10").groupby("mechanism")["accuracy"].mean()
costs = load_results("17_costs").set_index("mechanism")
more = costs["parameters"] - costs["parameters"]["none"]
assert 4 <= 100 * (photographs["half"] - photographs["none"]) < 5
assert photographs.drop("half").max() < photographs["half"]
assert (more["simam"], more["eca"], more["nam"]) == (0, 27, 672)

# %%
times, memory = costs["time"] / costs["time"]["none"], costs["memory"]
assert (times[["se", "eca"]] < 1.15).all() and (memory[["se", "eca"]] < 1.25).all()
assert (times[["gam", "ema"]] > 2).all() and (memory[["gam", "ema"]] > 2).all()

# %% [markdown]
# **Not measured here**, and so not in the table: large pictures, long training, pre-trained networks, detection and
# segmentation. The papers report gains there; a table of theirs is worth as much as its controls (part 10 of
# [17_face_off](17_face_off.ipynb)).

# %% [markdown]
# ## 7 · Exercises · *Depth*
#
# 18.1 and 18.2 stand in part 4. One more, which nobody checks: take a sentence about attention from an article that
# you read lately. Write it down in your own words, decide which of the six verdicts would fit, and write the smallest
# cell whose assertion would fail if you were wrong.
#
# ## 8 · Summary
#
# - An acronym is no definition: NAM, SAM, EMA and GAM each stand for several things.
# - Ask of a gate what it *listens to* and what it *varies over*. The two answers settle many of the claims about gates.
# - Channel and spatial gates rescale; only self-attention and its relatives (non-local, attention pooling) make weighted sums.
# - Code from an article is a claim too. Run `audit` on it before you train with it.
#
# **Sources.** The claims circulate in articles on the web and are worded here anew; the sources of each verdict stand
# in its notebook.
#
# **Back:** [17_face_off](17_face_off.ipynb) · **Next:** [19_capstone](19_capstone.ipynb), where you design one of your
# own. The map of the course is in [00_start_here](00_start_here.ipynb).
