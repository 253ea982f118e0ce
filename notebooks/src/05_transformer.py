# %% [markdown]
# # 05 · The Transformer
#
# **The question.** A recurrent translator reads and writes token after token, and each step waits for the one before. Can
# a network translate without any recurrence, so that in training all places are computed at once?
#
# **The answer in one sentence.** Stack two kinds of layer, attention (which moves information between places) and a small
# network applied at every place (which works on it), let each of them only *add* to what runs through, keep the numbers in
# size by layer normalisation, and hide the future from the part that writes by a mask.
#
# **Paper.** Ashish Vaswani and others: *Attention Is All You Need*, NeurIPS 2017,
# [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.
#
# **Time.** Core 90 minutes (parts 1-4, 6, 9 and exercise 05.1) · Depth 120 minutes (the rest).
#
# **Prerequisites.** [Self-attention and masks](02_self_attention.ipynb);
# [several heads and positions](03_multi_head_and_positions.ipynb); the toolbox pages on
# [the residual block](00_toolbox.ipynb#6.-The-residual-block) and on
# [BatchNorm and its backward pass](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass). The recurrent
# translator to compare with is that of [04_recurrent_attention](04_recurrent_attention.ipynb). The map is in
# [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | in code | meaning |
# |---|---|---|
# | $d$ | `width` | features of a token, the paper's $d_{\text{model}}$ |
# | $h$ | `heads` | number of heads, each of width $d/h$ |
# | $d_{ff}$ | `hidden` | hidden units of the network applied at every place |
# | $N$ | `layers` | layers of the encoder, and of the decoder |
# | $n$, $t$ | | tokens of the source (what is read), of the target (what is written) |
# | $V$ | | size of the vocabulary |
# | $x$ | | a token's vector, $d$ numbers; $X$ is $n \times d$ |
# | $F$ | | a *sub-layer*: attention or the network; it returns what is to be added (in code, `F` is `torch.nn.functional`) |
# | $\mu, \sigma^2$ | | mean and variance of the $d$ numbers of one token |
# | $\hat x$ | | the token with mean 0 and variance 1 |
# | $\gamma, \beta, \epsilon$ | | scale and shift of a norm, $d$ numbers each; a small constant |
# | $\rho$ | | $\sqrt{\sigma^2 + \epsilon}$ |
# | $g$ | | the gradient that arrives from above in a backward pass |
#
# Two letters mean something else elsewhere: in Part II, $h$ is the height of a feature map; and in `09`, $\gamma$ belongs to a
# rule for kernel sizes. $V$ was the matrix of values in [02_self_attention](02_self_attention.ipynb); here the values never
# need a letter.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import causal_mask, padding_mask
from attnlib.exercises import check
from attnlib.lab.notebook import show, start

start(seed=0)

# %% [markdown]
# Three questions before we begin. Put the letter of your answer, in quotes, in the place of the three dots.
#
# **05.a** A sequence of 10 tokens goes through self-attention without a mask. How many attentions lie between the last token and
# the first output?
# (a) none, it cannot get there · (b) one · (c) nine · (d) ten · (e) one hundred
#
# **05.b** $y = x + F(x)$, and $g$ is the gradient at $y$. What arrives at $x$ if $F$ is constant?
# (a) 0 · (b) $g$ · (c) $2g$ · (d) $g/2$ · (e) that depends on the constant
#
# **05.c** The numbers 1 and 3 are normalised to mean 0 and variance 1 (dividing by $n = 2$). What comes out?
# (a) 0 and 1 · (b) $-\tfrac12$ and $\tfrac12$ · (c) $-1$ and $1$ · (d) $\tfrac14$ and $\tfrac34$ · (e) 1 and 3

# %% tags=["exercise"]
check("05.a", ...)
check("05.b", ...)
check("05.c", ...)

# %% tags=["solution"]
check("05.a", "b")
check("05.b", "b")
check("05.c", "c")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# The job is the one of [04_recurrent_attention](04_recurrent_attention.ipynb): read a date as people write it, in English or
# Chinese, character by character, and write it in digits. A grammar makes the pairs, so both sides are right. No date of the
# test set occurs in the training set, in whatever words.

# %%
from attnlib.lab.grammar import Vocabulary, date_pairs

pairs, new = date_pairs(20_000, seed=1), date_pairs(500, seed=2, split="test")
print("\n".join(f"{target}  <-  {source}" for source, target in new[:6]))

# %% [markdown]
# Each side has its own alphabet. `Vocabulary` numbers the characters; 0 fills a row up, 1 begins a target, 2 ends it.

# %%
words, digits = (Vocabulary(list(side)) for side in zip(*pairs, strict=True))
source, lengths = words.encode([text for text, _ in pairs])
target, _ = digits.encode([text for _, text in pairs], ends=True)
print("sources", tuple(source.shape), "targets", tuple(target.shape))
assert target.shape == (20_000, 12) and set(target[:, 0].tolist()) == {1}
assert not {text for _, text in pairs} & {text for _, text in new}

# %% [markdown]
# ### Waiting
#
# A recurrent network computes its state at place $i$ from its state at place $i - 1$. However many processors there are,
# place 20 has to wait for places 1 to 19. The waiting can be measured. Call **chain** of a computation the longest sequence of
# operations in which each needs the result of the one before. That is a property of the computation and of no machine: if
# every operation, on whatever number of numbers, took one unit of time, then with unlimited processors the time would be the
# length of the chain. (In truth a sum of $n$ numbers takes longer for a larger $n$, if only like $\log n$.) Autograd's graph
# knows it, since every operation remembers which operations made its inputs:

# %%
def chain(output):
    depth, waiting = {None: 0}, [output.grad_fn]
    while waiting:
        below = [f for f, _ in waiting[-1].next_functions]
        if not (unknown := [f for f in below if f not in depth]):
            depth[waiting.pop()] = 1 + max((depth[f] for f in below), default=0)
        waiting += unknown
    return depth[output.grad_fn]

# %%
a = torch.ones(3, requires_grad=True)
assert chain(a * 2) == 2  # the leaf, and one operation
assert chain((a * 2 + a.exp()).sum()) == 4  # leaf, product (or exponential), sum of two, sum of all

# %% [markdown]
# Both kinds of translator come from the library: `RecurrentTranslator` with additive attention, and the `Transformer` that
# this notebook takes apart. In training the whole target is known, so both may be given all of it. **Predict:** source and
# target grow from 4 to 32 tokens. How do the two chains grow?

# %%
from attnlib.sequence.recurrent import RecurrentTranslator
from attnlib.sequence.transformer import Transformer

sizes = [4, 8, 16, 32]
transformer = Transformer(9, width=16, heads=2, hidden=32, layers=2)
recurrent = RecurrentTranslator(9, target_vocabulary=9, embedding=16, width=8)
both = {n: torch.randint(9, (1, n)) for n in sizes}
chains = {"recurrent": [chain(recurrent(s, torch.tensor([n]), s).sum()) for n, s in both.items()]}
chains["Transformer"] = [chain(transformer(s, s).sum()) for s in both.values()]

# %%
ax = plt.subplots(figsize=(5, 2.8))[1]
for (name, line), color in zip(chains.items(), ("grey", "C0"), strict=True):
    ax.plot(sizes, line, "o-", color=color, label=name)
ax.set(xlabel="tokens in source and target", ylabel="operations in the chain", xticks=sizes, ylim=0)
ax.legend()
show(ax.figure, alt="Length of the chain over the number of tokens: a rising straight line for the "
     "recurrent translator, a flat line for the Transformer.")

# %% [markdown]
# **What to see.** For the recurrent translator a straight line through nearly zero; for the Transformer a flat one:
#
# $$\text{chain}_{\text{recurrent}}(n) = a + b\,n, \qquad \text{chain}_{\text{Transformer}}(n) = c \tag{5.1}$$
#
# The work still grows with $n$ (part 8), but it lies side by side. That is what the paper means by training in parallel.
# *Writing* is another matter: to write token 5 one must know token 4, so there both are sequential.

# %%
growth = [b - a for a, b in zip(chains["recurrent"], chains["recurrent"][1:], strict=False)]
assert growth[1] == 2 * growth[0] and growth[2] == 4 * growth[0] > 0  # (5.1)
assert len(set(chains["Transformer"])) == 1

# %% [markdown]
# ## 3 · By hand · *Core*
#
# Attention is known from the notebooks before. Three pieces are new, and each can be done with a pencil, on one token.
#
# ### Layer normalisation
#
# Take the $d$ numbers of *one token*, subtract their mean and divide by their standard deviation; then let two learnt vectors
# choose scale and shift, feature by feature:
#
# $$\mu = \frac1d \sum_i x_i, \qquad \sigma^2 = \frac1d \sum_i (x_i - \mu)^2, \qquad
# \mathrm{LN}(x)_i = \gamma_i\, \hat x_i + \beta_i, \quad \hat x_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}} \tag{5.2}$$
#
# These are the formulas of [BatchNorm](00_toolbox.ipynb#5.-BatchNorm-in-train-and-eval,-and-its-backward-pass) with one
# change: the average runs over the features of one token, and no longer over all tokens for one feature. So a token does not
# depend on who else is in the batch, and there is no difference between training and testing. For $x = (1, 3, 3, 9)$: the
# mean is 4, the distances are $-3, -1, -1, 5$, their squares sum to 36, so $\sigma = 3$ and
# $\hat x = (-1, -\tfrac13, -\tfrac13, \tfrac53)$.

# %%
def layer_norm(x, gamma, beta, eps=1e-5):
    distance = x - x.mean(-1, keepdim=True)
    variance = distance.square().mean(-1, keepdim=True)
    return gamma * distance / (variance + eps).sqrt() + beta

x, one, zero = torch.tensor([1, 3, 3, 9]).double(), torch.ones(4).double(), torch.zeros(4).double()
x_hat = layer_norm(x, one, zero, eps=0)
assert torch.allclose(x_hat, torch.tensor([-3, -1, -1, 5]).double() / 3)  # (5.2)

# %% [markdown]
# Whatever is multiplied by a positive number, or shifted as a whole, comes out the same: $\mathrm{LN}(10x + 7) =
# \mathrm{LN}(x)$, but for $\epsilon$. And PyTorch's `F.layer_norm` does just this:

# %%
gamma, beta = torch.randn(4).double(), torch.randn(4).double()
assert torch.allclose(layer_norm(10 * x + 7, gamma, beta, eps=0), layer_norm(x, gamma, beta, eps=0))
assert torch.allclose(layer_norm(x, gamma, beta), F.layer_norm(x, (4,), gamma, beta))

# %% [markdown]
# ### The network at every place
#
# Attention moves vectors about and averages them. What makes something new of them is a network with one hidden layer, the
# same for every token and blind for all others:
#
# $$\mathrm{FFN}(x) = \max(0,\, x W_1 + b_1)\, W_2 + b_2, \qquad W_1: d \times d_{ff}, \quad W_2: d_{ff} \times d \tag{5.3}$$
#
# A small one with a single hidden unit: $W_1 = (-1, 0, 0, 1)^\top$, $W_2 = (0, 0, 0, -1)$, no biases. The hidden unit of
# $x = (1, 3, 3, 9)$ is $\max(0, -1 + 9) = 8$, and $\mathrm{FFN}(x) = (0, 0, 0, -8)$. The unit of $\hat x$ is $1 + \tfrac53 =
# \tfrac83$, which gives $(0, 0, 0, -\tfrac83)$.

# %%
W_1, W_2 = torch.tensor([[-1, 0, 0, 1]]).double().T, torch.tensor([[0, 0, 0, -1]]).double()
ffn = lambda x: (x @ W_1).clamp(min=0) @ W_2
assert ffn(x).tolist() == [0, 0, 0, -8]  # (5.3)
assert torch.allclose(ffn(x_hat), torch.tensor([0, 0, 0, -8 / 3]).double())

# %% [markdown]
# ### Adding, and where the norm stands
#
# A sub-layer $F$, be it attention or the FFN, does not replace its input. What it returns is *added* to it. The norm can
# stand behind the sum, as in the paper (**post**), or in front of the sub-layer (**pre**), as many later networks have it:
#
# $$\text{post:}\quad x \leftarrow \mathrm{LN}\big(x + F(x)\big) \tag{5.4}$$
#
# $$\text{pre:}\quad x \leftarrow x + F\big(\mathrm{LN}(x)\big) \tag{5.5}$$
#
# With our numbers. Post: $x + F(x) = (1, 3, 3, 1)$, with mean 2 and distances of 1, so the result is $(-1, 1, 1, -1)$. Pre:
# $x + F(\hat x) = (1, 3, 3, 9 - \tfrac83)$; what runs through has not been normalised at all.

# %%
by_post = layer_norm(x + ffn(x), one, zero, eps=0)
by_pre = x + ffn(layer_norm(x, one, zero, eps=0))
assert by_post.tolist() == [-1, 1, 1, -1]  # (5.4)
assert torch.allclose(by_pre, torch.tensor([1, 3, 3, 19 / 3]).double())  # (5.5)

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# ### Exercise 05.1 · one sub-layer · *Core* · 10 minutes
#
# Write the sub-layer with the FFN, for all tokens `x` (n, d) at once: (5.4) if `norm_first` is False, (5.5) if it is True.
# `W_1` is (d, d_ff), `W_2` (d_ff, d), `gamma` and `beta` are (d,); $\epsilon = 10^{-5}$; `F.layer_norm` is allowed.
#
# <details><summary>Hint 1</summary>
#
# Two lines behind an `if`. Write the FFN of (5.3) as a small function first, you need it for either order.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `F.layer_norm(x, (d,), gamma, beta)` normalises the last axis; $d$ is `x.shape[-1]`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Pre: `x + ffn(norm(x))`, with the plain `x` in front. Post: `norm(x + ffn(x))`.
#
# </details>

# %% tags=["exercise"]
def sublayer(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
    """x (n, d) -> (n, d), by (5.4) or, with norm_first, by (5.5)."""
    raise NotImplementedError

sublayer = check("05.1", sublayer)

# %% tags=["solution"]
def sublayer(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
    ffn = lambda x: (x @ W_1 + b_1).clamp(min=0) @ W_2 + b_2
    norm = lambda x: F.layer_norm(x, (x.shape[-1],), gamma, beta)
    return x + ffn(norm(x)) if norm_first else norm(x + ffn(x))

# %% [markdown]
# An **encoder layer** is two such sub-layers: self-attention among the source's tokens, then the FFN. A **decoder layer** has
# three. Its self-attention is masked, so that place $i$ sees the target's places up to $i$ only; then comes attention with queries
# from the target and with keys and values from the **memory**, which is what the encoder returns; then the FFN. With $x$ for the
# source and $y$ for the target, and the paper's order:
#
# $$\begin{aligned}
# x &\leftarrow \mathrm{LN}(x + \mathrm{Att}(x, x)), & x &\leftarrow \mathrm{LN}(x + \mathrm{FFN}(x)) && \text{encoder layer}\\
# y &\leftarrow \mathrm{LN}(y + \mathrm{Att}_{\text{masked}}(y, y)), & y &\leftarrow \mathrm{LN}(y + \mathrm{Att}(y, x)), \quad
# y \leftarrow \mathrm{LN}(y + \mathrm{FFN}(y)) && \text{decoder layer}
# \end{aligned} \tag{5.6}$$
#
# $\mathrm{Att}(y, x)$ is multi-head attention with queries from $y$. Each line has its job. The encoder's attention lets a
# character find out what it belongs to: whether a 3 is part of a day or of a year. The decoder's masked attention tells a place
# what has been written so far, and therefore what comes next. Its second attention fetches that from the source. The FFN,
# which never looks at another place, can turn what was fetched into what is needed, such as *August* into 08. No sub-layer
# knows the order of its keys, but for the mask; what is known about order comes in with the tokens, (5.7) below.
#
# In code, with the parts of the library's layers (names
# `norm_1`, `norm_2`, `norm_3` from first to last) and our own `sublayer`:

# %%
def our_ffn(x, layer, norm, norm_first):
    W_1, W_2 = layer.feed_forward.W_1, layer.feed_forward.W_2
    weights = W_1.weight.T, W_1.bias, W_2.weight.T, W_2.bias
    return sublayer(x, *weights, norm.weight, norm.bias, norm_first)

def our_attention(x, attend, norm, norm_first):
    return x + attend(norm(x)) if norm_first else norm(x + attend(x))

# %%
def our_encoder_layer(x, layer, pre):
    x = our_attention(x, layer.attention, layer.norm_1, pre)
    return our_ffn(x, layer, layer.norm_2, pre)

def our_decoder_layer(y, x, layer, pre):
    masked = lambda y: layer.attention(y, mask=causal_mask(y.shape[1]))
    y = our_attention(y, masked, layer.norm_1, pre)
    y = our_attention(y, lambda y: layer.cross_attention(y, x), layer.norm_2, pre)
    return our_ffn(y, layer, layer.norm_3, pre)

# %% [markdown]
# **Tokens and logits.** Character number $c$ becomes row $E_c$ of a learnt table $E$ ($V \times d$). The same table, transposed,
# makes the logits of what the decoder returns. Its entries start with variance $1/d$, so that a logit, a sum of $d$ products of
# them with normalised numbers, has about the variance 1. As an input such a row would be small beside the sinusoids, which
# have a mean square of $\tfrac12$; so it is multiplied by $\sqrt d$:
#
# $$x_p = \sqrt d\; E_{c_p} + \mathrm{PE}(p), \qquad \text{logits} = y\, E^\top \tag{5.7}$$
#
# with $c_p$ the character at place $p$, and $\mathrm{PE}$ the sines and cosines of
# [03_multi_head_and_positions](03_multi_head_and_positions.ipynb). With these the whole network can be written down, and
# compared with the library's:

# %%
from attnlib.sequence.positions import sinusoids

def embedded(table, tokens):
    places = sinusoids(torch.arange(tokens.shape[1]).double(), table.embedding_dim)
    return table.weight[tokens] * table.embedding_dim**0.5 + places

# %%
def our_transformer(model, source, target, pre):
    x, y = embedded(model.source, source), embedded(model.target, target)
    for layer in model.encoder.layers:
        x = our_encoder_layer(x, layer, pre)
    x = model.encoder.norm(x)  # nothing, in the paper's order
    for layer in model.decoder.layers:
        y = our_decoder_layer(y, x, layer, pre)
    return model.decoder.norm(y) @ model.target.weight.T

# %%
few, wanted = torch.randint(9, (2, 7)), torch.randint(8, (2, 5))
for pre in (False, True):
    options = {"width": 32, "heads": 4, "hidden": 48, "layers": 2, "dropout": 0, "norm_first": pre}
    small = Transformer(9, target_vocabulary=8, **options).double()
    assert torch.allclose(embedded(small.source, few), small.embed("source", few))  # (5.7)
    assert torch.allclose(our_transformer(small, few, wanted, pre), small(few, wanted))  # (5.6)

# %%
table = Transformer(5000, width=64, heads=2, hidden=8, layers=1).source.weight
assert abs(64 * table.var() - 1) < 0.02  # so sqrt(d) E has the variance 1
assert abs(sinusoids(torch.arange(100), 64).square().mean() - 0.5) < 1e-6

# %% [markdown]
# ### Equal to PyTorch's, layer by layer
#
# PyTorch has the same network without tokens: `nn.Transformer`. It puts one more norm behind each stack, whatever the order;
# the library does so if told `final_norm=True`. `from_torch` renames its weights. Hooks collect what each layer returns. For
# the gradients we need some loss: the outputs times random numbers, added up. (Not the sum of their squares: what comes out of
# a norm has the same sum of squares whatever went in, and all gradients would be zero.)

# %%
import warnings

from attnlib.sequence.transformer import from_torch

warnings.filterwarnings("ignore", message="enable_nested_tensor")  # a notice about speed
def pair_of_models(pre):
    theirs = nn.Transformer(32, 4, 2, 2, 48, dropout=0.0, batch_first=True, norm_first=pre).double()
    ours = Transformer(9, **options | {"norm_first": pre}, final_norm=True).double()
    ours.load_state_dict(from_torch(theirs.state_dict()), strict=False)  # all but the tokens
    return ours, theirs

# %%
def watched(model, run):
    kept, stacks = [], (model.encoder, model.decoder)
    parts = [part for stack in stacks for part in (*stack.layers, stack.norm)]
    hooks = [p.register_forward_hook(lambda p, i, out: kept.append(out)) for p in parts]
    (run(model) * pull).sum().backward()
    [hook.remove() for hook in hooks]
    return kept, {name: p.grad for name, p in model.named_parameters()}

# %%
X, Y, pull = (torch.randn(2, n, 32).double() for n in (7, 5, 5))
past = causal_mask(5)
through_ours = lambda model: model.decoder(Y, model.encoder(X), mask=past)
through_theirs = lambda model: model(X, Y, tgt_mask=~past)

# %%
for pre in (False, True):
    ours, theirs = pair_of_models(pre)
    (a, of_a), (b, of_b) = watched(ours, through_ours), watched(theirs, through_theirs)
    assert len(a) == 6 and all(torch.allclose(one, two) for one, two in zip(a, b, strict=True))
    of_b = from_torch(of_b)
    assert all(torch.allclose(of_a[name], of_b[name]) for name in of_b)
    tiny = {name for name in of_b if of_b[name].abs().max() < 1e-3}
    assert len(of_b) == 88 and len(tiny) == 6 and all("W_K.bias" in name for name in tiny)

# %% [markdown]
# Two encoder layers and a norm, two decoder layers and a norm: six outputs, the same, and the same gradients for all 88
# parameters, in both orders. Six gradients are zero but for rounding, and ought to be: a bias of the keys raises all scores of
# a query by the same number, which no softmax sees. (The `~` is there because `nn.Transformer`'s True means *may not*.)
#
# ### What training asks
#
# The parts that follow train this network on the dates. In training the target goes in without its last character, and what is
# wanted at each place is the next one; the loss is the mean of $-\log p$ of the wanted characters:

# %%
SIZE = {"width": 64, "heads": 4, "hidden": 128, "layers": 2, "dropout": 0.0}

def fresh(seed, **changes):
    torch.manual_seed(seed)
    return Transformer(len(words), target_vocabulary=len(digits), **SIZE | changes)

# %%
def loss_of(model, rows):
    mask = padding_mask(lengths[rows], source.shape[1])
    logits = model(source[rows], target[rows, :-1], mask=mask)
    return F.cross_entropy(logits.flatten(0, 1), target[rows, 1:].flatten())

untrained = [loss_of(fresh(seed), torch.arange(256)).item() for seed in range(3)]
assert len(digits) == 14 and all(2 < loss < 4 for loss in untrained)  # a blind guess: log 14 = 2.6

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# Attention's backward pass was derived in [02](02_self_attention.ipynb), that of linear layers and of the residual block in the
# [toolbox](00_toolbox.ipynb#6.-The-residual-block). New is the norm, and what it does to the sum that it stands in.
#
# ### Layer normalisation
#
# Within one token, (5.2) is the batch normalisation of the toolbox, with the $d$ features in the place of the $n$ members of a
# batch. So the derivation there holds word for word: $\partial\mu/\partial x_j = \frac1d$ and
# $\partial\rho/\partial x_j = \frac1d \hat x_j$, and the quotient rule gives
#
# $$\frac{\partial \hat x_i}{\partial x_j} = \frac1\rho \Big(\delta_{ij} - \frac1d - \frac1d\, \hat x_i \hat x_j\Big)
# \tag{5.8}$$
#
# One thing differs. A channel of a batch norm has one $\gamma$ for all the numbers that are averaged; here every feature has its
# own, so it cannot be pulled out. What arrives at $\hat x$ is $\hat g = \gamma \circ g$, entry by entry. By the chain rule and
# (5.8), with $L$ for the loss,
#
# $$\frac{\partial L}{\partial x_j} = \sum_i \hat g_i \frac{\partial \hat x_i}{\partial x_j}
# = \frac1\rho \Big( \hat g_j - \frac1d \sum_i \hat g_i - \hat x_j\, \frac1d \sum_i \hat g_i \hat x_i \Big)$$
#
# The two sums are means over the token's $d$ features. We write them with a bar. And since all tokens share $\gamma$ and
# $\beta$, the gradients of these are sums over the tokens:
#
# $$\frac{\partial L}{\partial x} = \frac1\rho \big( \hat g - \overline{\hat g} - \hat x\; \overline{\hat g\, \hat x} \big), \qquad
# \frac{\partial L}{\partial \gamma} = \sum_{\text{tokens}} g \circ \hat x, \qquad
# \frac{\partial L}{\partial \beta} = \sum_{\text{tokens}} g \tag{5.9}$$
#
# ### Exercise 05.2 · layer norm backward · *Depth* · 15 minutes
#
# Write (5.9) for `g` and `x` (n, d) and `gamma` (d,), with $\epsilon = 10^{-5}$. Return the three gradients in this order.
#
# <details><summary>Hint 1</summary>
#
# First `x_hat` and `rho` again, for each token: means over the last axis, with `keepdim=True`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `gamma` multiplies `g` *before* the means are taken.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `(g_hat - g_hat.mean(-1, keepdim=True) - x_hat * (g_hat * x_hat).mean(-1, keepdim=True)) / rho`; the other two are sums
# over axis 0.
#
# </details>

# %% tags=["exercise"]
def layer_norm_backward(g, x, gamma):
    """g and x (n, d), gamma (d,) -> the gradients of x (n, d), gamma (d,) and beta (d,)."""
    raise NotImplementedError

layer_norm_backward = check("05.2", layer_norm_backward)

# %% tags=["solution"]
def layer_norm_backward(g, x, gamma):
    mean = lambda a: a.mean(-1, keepdim=True)
    rho = (mean((x - mean(x)) ** 2) + 1e-5).sqrt()
    x_hat, g_hat = (x - mean(x)) / rho, gamma * g
    dx = (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho
    return dx, (g * x_hat).sum(0), g.sum(0)

# %%
from attnlib.lab.gradients import compare_gradients, jacobian

inputs = {"x": torch.randn(5, 4).double(), "gamma": gamma, "beta": beta}
by_hand = lambda g, x, gamma, beta: dict(zip(inputs, layer_norm_backward(g, x, gamma), strict=True))
report = compare_gradients(layer_norm, by_hand, inputs)
assert report["hand = autograd"].all() and report["hand = differences"].all()  # (5.9)
report

# %% [markdown]
# ### How much of a gradient comes through
#
# Write (5.8) as a matrix, $\frac1\rho P$ with $P = I - \frac1d \mathbf 1 \mathbf 1^\top - \frac1d \hat x \hat x^\top$. The vectors
# $\mathbf 1$ and $\hat x$ are at right angles, since $\hat x$ sums to 0, and both have the squared length $d$. So (with
# $\epsilon = 0$) $P$ takes out these two directions and leaves all others alone: it is a projection. Its eigenvalues are
# 0, 0 and $d - 2$ ones, and
#
# $$\frac{\partial \hat x}{\partial x} = \frac1\rho P, \qquad P^2 = P \tag{5.10}$$
#
# **A layer norm divides the gradient by $\rho$, the standard deviation of what comes in** (with $\gamma = 1$, as at the start).
# If that is larger than 1, gradients become smaller on their way through it.

# %%
six = torch.randn(6).double()
six_hat, rho = (six - six.mean()) / six.std(correction=0), six.std(correction=0)
P = torch.eye(6) - torch.ones(6, 6).double() / 6 - torch.outer(six_hat, six_hat) / 6
J = jacobian(lambda x: layer_norm(x, 1, 0, eps=0), six)
assert torch.allclose(J, P / rho)  # (5.8)
assert torch.allclose(P @ P, P)  # (5.10)
eigenvalues = torch.linalg.eigvalsh(P)
assert eigenvalues[:2].abs().max() < 1e-9 and (eigenvalues[2:] - 1).abs().max() < 1e-9

# %% [markdown]
# ### The residual stream
#
# In the *pre* order (5.5), what runs through a stack is only ever added to. After $K$ sub-layers
#
# $$x_K = x_0 + \sum_{k=1}^{K} F_k\big(\mathrm{LN}(x_{k-1})\big) \tag{5.11}$$
#
# People call it the **residual stream**: a store of $d$ numbers a token, from which every sub-layer reads and to which it adds.
# By the toolbox's page on residual blocks, the gradient at the end reaches every sub-layer undiminished along the identity.
# In the *post* order (5.4) there is no such way: after each sum stands a norm, and between the loss and layer 1 of 12 stand all
# the norms of the layers above. If $x$ has variance 1 and $F(x)$ adds to it, each divides by a $\rho > 1$. Against that works
# the branch: in $x + F(x)$ it sends its own share back, beside that of the identity. Which of the two wins must be measured.

# %%
three = Transformer(9, **options | {"norm_first": True, "layers": 3}).double()
added, layers = [], three.decoder.layers
for layer in layers:
    for part in (layer.attention.W_O, layer.cross_attention.W_O, layer.feed_forward):
        part.register_forward_hook(lambda part, i, out: added.append(out))
layers[-1].register_forward_hook(lambda layer, i, out: added.append(-out))
stream = three.decoder(Y, X, mask=past)  # X in the place of a memory

# %%
assert len(added) == 3 * 3 + 1  # nine sub-layers, and minus what comes out
assert (Y + sum(added)).abs().max() < 1e-12  # (5.11)

# %% [markdown]
# **Predict:** a fresh translator with 12 layers in each stack, of width 64, gets 32 pairs, and we look at the gradient of one
# matrix ($W_2$ of the FFN) in each layer of the decoder. How does its size change from layer 1, at the bottom, to layer 12,
# next to the loss? In the post order, in the pre order? Three seeds each.

# %%
def at_the_start(pre, seed, layers=12):
    model, sizes = fresh(seed, layers=layers, norm_first=pre), []
    keep = lambda norm, x: sizes.append(x[0].std(-1, correction=0).mean().item())
    for part in model.decoder.layers:
        [norm.register_forward_pre_hook(keep) for norm in (part.norm_1, part.norm_2, part.norm_3)]
    loss_of(model, torch.arange(32)).backward()
    gradients = [part.feed_forward.W_2.weight.grad.norm().item() for part in model.decoder.layers]
    return gradients, sizes

# %%
measured = {name: [at_the_start(pre, seed) for seed in range(3)]
            for name, pre in {"post": False, "pre": True}.items()}
gradients = {name: torch.tensor([g for g, _ in runs]) for name, runs in measured.items()}
spread = {name: torch.tensor([s for _, s in runs]) for name, runs in measured.items()}
assert spread["post"].shape == (3, 36)  # seeds, and three norms a layer

# %%
from attnlib.lab.plots import curves

fig, axes = plt.subplots(1, 2, figsize=(8, 2.9))
curves(gradients, x=range(1, 13), ax=axes[0]).set(yscale="log", ylabel="gradient of $W_2$, size")
of_ffn = {name: s[:, 2::3] for name, s in spread.items()}
curves(of_ffn, x=range(1, 13), ax=axes[1]).set(ylim=0, ylabel="ρ at the norm of the FFN")
plt.setp(axes, xlabel="layer of the decoder", xticks=[1, 4, 8, 12])
show(fig, alt="Left, gradients by layer: post rises steeply from 1 to 12, pre falls to half. "
     "Right, the standard deviation before a norm: post stays level above 1, pre grows.")

# %% [markdown]
# **What to see.** Left, on a logarithmic axis: in the post order (5.4) the gradient next to the loss is more than twenty times
# that of layer 1, for every seed; in the pre order it goes the other way, and falls to about half. Right, the size of what comes
# into a norm. In the post order every $\rho$ is above 1. Between the two matrices stand 33 norms, and their $\rho$ multiply to
# several thousand. So by (5.10) alone the ratio would be that large; the branches bring much of it back, but not all. In the
# pre order nothing on the stream divides. The gradient at a place is what arrives from above *plus* what the branches in
# between send back, so it grows on its way down; not by much, since each branch reads the stream through a norm, and $\rho$ grows
# with the stream. (The encoder is not drawn. All layers of the decoder look at its output, so that it hears the loss along many
# ways.)

# %%
ratio = {name: g[:, -1] / g[:, 0] for name, g in gradients.items()}
assert ratio["post"].min() > 20 and 0.3 < ratio["pre"].min() < ratio["pre"].max() < 0.8
assert spread["post"].min() > 1 and (spread["pre"][:, -1] > 1.5 * spread["pre"][:, 0]).all()
between = spread["post"][:, 2:35].prod(1)  # from the last norm of layer 1 to the second of layer 12
assert (between > 3000).all() and (between > 20 * ratio["post"]).all()
print("post: the gradient next to the loss is more than 20 times that of layer 1, for each seed")

# %% [markdown]
# So at the start of training the layers of a deep post-norm decoder hear the loss with very different loudness. Xiong and others
# ([arXiv 2002.04745](https://arxiv.org/abs/2002.04745)) argue that this is why it needs a **warm-up**: with a large step size
# right away, the large gradients next to the loss make the training unstable. It is an indication and no proof (Adam divides by
# the size of the gradients, so loudness alone should not matter to it). And it is a matter of depth. The translator that we
# train in part 6 has two layers, and there the same ratio is below 3:

# %%
two = [g for g, _ in (at_the_start(False, seed, layers=2) for seed in range(3))]
print("two layers, post: the ratio is below 3 for each seed:", all(g[1] / g[0] < 3 for g in two))
assert all(g[1] / g[0] < 3 for g in two)

# %% [markdown]
# Part 9 measures whether warm-up matters for us. If it does, we need another reason than this.
#
# ### The schedule
#
# The paper raises the learning rate in a line for $w = 4000$ steps and then lets it fall with the root of the step:
#
# $$\eta(s) = d^{-1/2} \min\big(s^{-1/2},\; s\, w^{-3/2}\big), \qquad s = 1, 2, \dots \tag{5.12}$$
#
# The two are equal where $s^{-1/2} = s\, w^{-3/2}$, so $s^{3/2} = w^{3/2}$ and $s = w$. There the peak is
#
# $$\eta(w) = \frac{1}{\sqrt{d\, w}} \tag{5.13}$$
#
# ### Exercise 05.3 · the learning rate · *Depth* · 5 minutes
#
# Write (5.12) for a whole number `step` of at least 1.
#
# <details><summary>Hint 1</summary>
#
# One line with Python's `min`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# $s^{-1/2}$ is `step ** -0.5`. Mind the bracket: $d^{-1/2}$ multiplies the smaller of the two.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `width**-0.5 * min(step**-0.5, step * warmup**-1.5)`.
#
# </details>

# %% tags=["exercise"]
def learning_rate(step, width, warmup):
    """(5.12): one number for step 1, 2, ..."""
    raise NotImplementedError

learning_rate = check("05.3", learning_rate)

# %% tags=["solution"]
def learning_rate(step, width, warmup):
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)

# %%
peak = max(range(1, 20_000), key=lambda step: learning_rate(step, 512, 4000))
assert peak == 4000
assert abs(learning_rate(peak, 512, 4000) - (512 * 4000) ** -0.5) < 1e-12  # (5.13)
rates = [learning_rate(step, d, 4000) for step, d in ((4000, 512), (4000, 1024), (1, 512))]
assert [f"{rate:.5e}" for rate in rates] == ["6.98771e-04", "4.94106e-04", "1.74693e-07"]  # (5.12)
print(*(f"{rate:.5e}" for rate in rates))

# %% [markdown]
# The base model ($d = 512$) peaks at $6.98771 \cdot 10^{-4}$ in step 4000; with $d = 1024$ the peak is $4.94106 \cdot 10^{-4}$;
# step 1 has $1.74693 \cdot 10^{-7}$.
#
# ## 6 · What it attends to · *Core*
#
# In training the decoder is given the right characters so far, whatever it would have written itself. That is called *teacher
# forcing*, and it is what lets all places be computed at once: place 7 need not wait until the model has made up its mind about
# place 6. The mask makes it fair. When it writes, later, the model goes on from its own characters, and so from its own
# mistakes if it makes any.
#
# Now we train one: two layers in each stack, width 64, four heads, the paper's order of norms, 600 steps of 64 dates. A run as
# short as that would end with the root schedule still at full swing, so ours rises for 100 steps to 0.004 and then falls in a
# line to 0. The optimiser is the paper's, Adam with $\beta_2 = 0.98$ and $\epsilon = 10^{-9}$. Dropout and label smoothing are
# left out: they are there against learning by heart, and in 600 steps each of the 20,000 pairs is seen only about twice.

# %%
def rate(step, warmup=100, steps=600):
    up = (step + 1) / max(warmup, 1)
    return 4e-3 * min(up, (steps - step) / (steps - warmup))

# %%
def learn(model, seed, loss_of=loss_of, steps=600):
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    draw, history = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step)
        history.append(loss_of(model, torch.randint(len(source), (64,), generator=draw)))
        optimizer.zero_grad(), history[-1].backward(), optimizer.step()
    return [loss.item() for loss in history]

# %%
model = fresh(seed=0)
history = learn(model, seed=0)
assert 1.9 < 600 * 64 / len(pairs) < 2

# %% [markdown]
# To write a date, the model is asked for the first character, then, with its own answer as input, for the second, and so on.
# `greedy` takes the most probable character each time (more of that below). A date counts as right if all ten characters are.

# %%
from attnlib.sequence.decoding import beam_search, greedy

asked, long = words.encode([text for text, _ in new])
ASK = {"begin": digits.BEGIN, "end": digits.END, "limit": 12}
ASK["mask"] = padding_mask(long, asked.shape[1])

def exact(found):
    answers = zip(digits.decode(found.tokens), [text for _, text in new], strict=True)
    return sum(a == b for a, b in answers) / len(new)

# %%
written = greedy(model, asked, **ASK)
print("more than 95% of new dates written without a mistake:", exact(written) > 0.95)
assert exact(written) > 0.95

# %% [markdown]
# ### Where it looks
#
# The decoder's second attention looks into the source. For a date in the English order the parts change places: the year,
# which is written first, stands last. **Predict** the map: a row for each character that is written, a column for each that is
# read.

# %%
from datetime import date

from attnlib.lab.grammar import date_forms
from attnlib.lab.plots import heatmap

def look(text, answer):
    read, given = words.encode([text])[0], digits.encode([answer], ends=True)[0]
    with torch.no_grad():
        return [layer[0].mean(0) for layer in model.weights(read, given[:, :-1])]  # mean of heads

# %%
def explore(form=0, day=27):
    when = date(1963, 8, day)
    text, answer = date_forms(when, "english")[form], when.isoformat()
    axes = plt.subplots(1, 2, figsize=(8.8, 3.6), sharey=True)[1]
    for ax, weights, name in zip(axes, look(text, answer), ("layer 1", "layer 2"), strict=True):
        heatmap(weights, ax=ax, limits=(0, 1), colorbar="2" in name, label="weight")
        ax.set_xticks(range(len(text)), text), ax.set(title=f"{name}, mean of heads", xlabel="read")
    finish(axes[0], answer, text)

# %%
def finish(ax, answer, text):
    ax.set_yticks(range(11), [*answer, "end"]), ax.set(ylabel="written")
    show(ax.figure, alt=f"Two maps of what is looked at while {answer} is written for {text}. In "
         "layer 2 each part of the answer looks at its own part of the source.")

explore(form=0)

# %% [markdown]
# **What to see.** In layer 2 the map is the translation: the four rows of the year look at the end of the source, month at
# the name of the month, day at its beginning. Nobody told the network which characters belong together. Layer 1 is less
# clear: its queries know the characters written so far, and no more. Do not read too much into a map. When this page was
# built, the 8 of *August* looked almost at the *A* alone, and *April* begins with one too. But what stands at that place is
# the memory, and the encoder has let this A see its neighbours. A map says where a place looked; what it found there, it does
# not say.

# %%
layer_2 = look("27 August 1963", "1963-08-27")[1]
parts = {"year": (slice(0, 4), slice(10, 14)), "month": (slice(5, 7), slice(3, 9)),
         "day": (slice(8, 10), slice(0, 2))}
for name, (rows, columns) in parts.items():
    share = layer_2[rows, columns].sum(1).mean().item()
    print(f"{name}: more than half of the weight lies on its own characters:", share > 0.5)
    assert share > 0.5

# %% [markdown]
# Other ways to write a date, and other days (the sliders need a running kernel). In form 1 the month comes first, in form 2
# the sentence has words that say nothing, and in form 3 a weekday, which says nothing either. Does any row look at it? (When this
# page was built one did, that of the month's first digit. A wrong weekday changes nothing all the same: looking at something
# is not yet needing it.)

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

interact(explore, form=(0, 3), day=(1, 31));

# %%
two_days = words.encode(["Tuesday, 27 August 1963", "Sunday, 27 August 1963"])
ANY = ASK | {"mask": padding_mask(two_days[1], two_days[0].shape[1])}
assert digits.decode(greedy(model, two_days[0], **ANY).tokens) == ["1963-08-27"] * 2

# %% [markdown]
# ### Writing · greedy, with a beam, with a cache
#
# The logits at place $t$ are for the next character, given those before it. By the chain rule of probability a whole target
# has
#
# $$\log p(y \mid x) = \sum_t \log p(y_t \mid y_1, \dots, y_{t-1}, x) \tag{5.14}$$
#
# One pass with the whole target gives all the terms, since the mask keeps each place from seeing what it is to predict. The
# scores that `greedy` returns, summed character by character, are the same:

# %%
begin = torch.full((len(new), 1), digits.BEGIN)
with torch.no_grad():
    given = torch.cat([begin, written.tokens[:, :-1]], 1)
    log_p = model(asked, given, mask=ASK["mask"]).log_softmax(-1)
terms = log_p.gather(2, written.tokens[..., None])[..., 0]
before_the_end = torch.arange(terms.shape[1]) < written.lengths[:, None]
assert torch.allclose((terms * before_the_end).sum(1), written.scores, atol=1e-4)  # (5.14)

# %% [markdown]
# The most probable character at each step need not lead to the most probable target: a good first character may have no good
# second one, and greedy search cannot take its choice back. To try all targets is out of the question, for there are $V^t$ of
# them. **Beam search** keeps several prefixes:
# it continues each of them with every character, and of all these it keeps the best few. A prefix that has ended steps out and
# becomes a candidate. With a beam of 1 that is greedy search. The library keeps the greedy target as a candidate too, so
# that its result never scores below it.
#
# **The cache.** In step $t$ only one token is new. The keys and values of the earlier ones are what they were (the mask again:
# they never see the new one), and so are those of the memory. `greedy` and `beam_search` keep them in a *key/value cache*;
# `cached=False` computes everything again in each step. The cache costs memory that grows with every token written, which for
# long texts and large models becomes a worry of its own; part 8 counts the work it saves. **Predict:** do the five ways to
# write in the next cell give different dates?

# %%
some, FEW = asked[:100], ASK | {"mask": ASK["mask"][:100]}
ways = {
    "greedy": greedy(model, some, **FEW),
    "greedy, no cache": greedy(model, some, cached=False, **FEW),
    "beam of 1": beam_search(model, some, beam=1, **FEW),
    "beam of 4": beam_search(model, some, beam=4, **FEW),
    "beam of 4, no cache": beam_search(model, some, beam=4, cached=False, **FEW),
}

# %%
same = lambda a, b: torch.equal(ways[a].tokens, ways[b].tokens)
print("the cache changes no character:", same("greedy", "greedy, no cache"))
print("nor with a beam:", same("beam of 4", "beam of 4, no cache"))
print("a beam of 1 is greedy:", same("greedy", "beam of 1"))
assert same("greedy", "greedy, no cache") and same("beam of 4", "beam of 4, no cache")
assert same("greedy", "beam of 1")
assert (ways["beam of 4"].scores >= ways["greedy"].scores - 1e-5).all()

# %%
differ = digits.decode(ways["greedy"].tokens), digits.decode(ways["beam of 4"].tokens)
changed = sum(a != b for a, b in zip(*differ, strict=True))
print("the beam of 4 changes fewer than 5 of 100 dates:", changed < 5)
assert changed < 5

# %% [markdown]
# **What to see.** The same dates, but for a few at most. A date has one right answer, the model is nearly certain of each
# character, and there is nothing for a beam to find. Where a source has many good translations there is more to choose from.
#
# ## 7 · Where sources differ · *Depth*
#
# | what | paper | other sources | here |
# |---|---|---|---|
# | order of the norms | post, (5.4) | tensor2tensor's later settings: pre, (5.5) | `norm_first=` |
# | a norm behind each stack | none | `nn.Transformer`: always; pre-norm stacks need one | `final_norm=` |
# | biases of the attention | none in the released code | `nn.Transformer` has them | `attention_bias=` |
# | dropout | on what a sub-layer adds, and on the tokens | `nn.Transformer`: on weights and hidden units too | as in the paper |
# | layer norm | (5.2) | Annotated Transformer: $d - 1$, and $\epsilon$ outside the root; see part 10 | (5.2) |
# | sinusoids | sine and cosine in turn | tensor2tensor: all sines first, other wavelengths; see `03` | in turn |
# | label smoothing | 0.1 | two definitions, below | the notebook's loss has none |
#
# **The norm behind a stack** has a job in the pre order, where what comes out was never normalised. In the post order the
# last layer ends with a norm already, and `nn.Transformer`'s second one follows directly. At the start, with $\gamma = 1$ and
# $\beta = 0$, it changes nothing but in the digits where $\epsilon$ counts:

# %%
ours, theirs = pair_of_models(pre=False)
one_norm = ours.encoder.layers[1](ours.encoder.layers[0](X))
two_norms = ours.encoder(X)
assert torch.allclose(two_norms, one_norm, atol=1e-4) and not torch.equal(two_norms, one_norm)
assert isinstance(Transformer(9, **options | {"norm_first": False}).encoder.norm, nn.Identity)
assert isinstance(Transformer(9, **options | {"norm_first": True}).encoder.norm, nn.LayerNorm)

# %% [markdown]
# **Label smoothing.** A network that is to put all probability on one character drives its logits apart for ever. Label
# smoothing asks for a little less than certainty. With $q$ for the distribution that is asked for, the loss is
#
# $$L = -\sum_{c=1}^{V} q_c \log p_c \tag{5.15}$$
#
# and there are two customs. PyTorch takes a share $\varepsilon_{ls}$ and spreads it over *all* $V$ characters, the right one
# among them. tensor2tensor spreads it over the $V - 1$ *others*:
#
# $$q_{\text{right}} = 1 - \varepsilon_{ls} + \frac{\varepsilon_{ls}}{V}, \; q_{\text{other}} = \frac{\varepsilon_{ls}}{V}
# \quad \text{(PyTorch)} \qquad
# q_{\text{right}} = 1 - \varepsilon_{ls}, \; q_{\text{other}} = \frac{\varepsilon_{ls}}{V - 1} \quad \text{(tensor2tensor)} \tag{5.16}$$
#
# For $\varepsilon_{ls} = 0.1$ and $V = 5$: 0.92 and 0.02 against 0.9 and 0.025. One becomes the other by taking
# $\varepsilon_{ls}\, V/(V-1)$ for PyTorch's $\varepsilon_{ls}$. The loss cannot fall to 0 any more: its least value is the
# entropy of $q$, at $p = q$, and tensor2tensor subtracts that.

# %%
def smoothed(V, right, others):
    q = torch.full((V,), others, dtype=torch.float64)
    q[2] = right
    return q

logits, label = torch.randn(5).double(), torch.tensor(2)
pytorch, t2t = smoothed(5, 0.92, 0.02), smoothed(5, 0.9, 0.025)
assert abs(pytorch.sum() - 1) < 1e-12 and abs(t2t.sum() - 1) < 1e-12

# %%
smooth = lambda eps: F.cross_entropy(logits, label, label_smoothing=eps)
wished = lambda q, logits=logits: -(q * logits.log_softmax(0)).sum()
assert torch.allclose(smooth(0.1), wished(pytorch))  # (5.15)
assert torch.allclose(smooth(0.1 * 5 / 4), wished(t2t))  # (5.16)
floor = wished(t2t, t2t.log())
assert floor > 0.4 and all(wished(t2t, torch.randn(5).double()) >= floor for _ in range(100))

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# **Parameters.** An attention has four matrices $d \times d$; the FFN $2 d\, d_{ff}$ weights and $d_{ff} + d$ biases; a norm $2d$. An
# encoder layer has one attention, one FFN and two norms, a decoder layer two, one and three. Without biases in the attention,
#
# $$\mathrm{parameters} = N \big( 12 d^2 + 2\,(2 d\, d_{ff} + d_{ff} + d) + 5 \cdot 2d \big) \tag{5.17}$$
#
# For the paper's base model ($N = 6$, $d = 512$, $d_{ff} = 2048$) that is **44,101,632**. PyTorch's default, of the same size,
# has 44,140,544: biases for 18 attentions, $18 \cdot 4 \cdot 512 = 36{,}864$, and two last norms, $2 \cdot 2 \cdot 512 = 2{,}048$.

# %%
def body(d, d_ff, N):
    return N * (12 * d**2 + 2 * (2 * d * d_ff + d_ff + d) + 10 * d)

def counted(model):
    return sum(p.numel() for part in (model.encoder, model.decoder) for p in part.parameters())

# %%
with torch.device("meta"):  # shapes without memory
    base, default = Transformer(1, attention_bias=False), nn.Transformer(batch_first=True)
assert counted(base) == body(512, 2048, 6) == 44_101_632  # (5.17)
assert counted(default) == 44_140_544 == 44_101_632 + 36_864 + 2_048
assert counted(fresh(0)) - body(64, 128, 2) == 2 * 3 * 4 * 64  # ours has biases in its 6 attentions
print(f"{counted(base):,} and {counted(default):,}")

# %% [markdown]
# ### Table 3, recounted
#
# The table of tokens comes on top, $V d$ numbers, since it serves source, target and logits at once. The paper speaks of about
# 37,000 tokens for its English and German data. With these the base model would have 63.0 million parameters. The column of
# the paper's Table 3 says 65, **as we recall it: we could not look the column up again, so treat the figures in this cell as
# recalled and not verified.** What can be computed is which $V$ would make them right, all ten at once, rounded to millions. (In
# two rows only queries and keys are narrower, $d_k$ features a head, so that each attention has
# $2 d \cdot 8\, d_k + 2 d^2$ weights.)

# %%
table_3 = {(512, 2048, 6): 65, (512, 2048, 2): 36, (512, 2048, 4): 50, (512, 2048, 8): 80,
           (256, 2048, 6): 28, (1024, 2048, 6): 168, (512, 1024, 6): 53, (512, 4096, 6): 90}
listed = [(body(*shape), shape[0], recalled) for shape, recalled in table_3.items()]  # d, d_ff, N
for d_k, recalled in ((16, 58), (32, 60)):
    fewer = 18 * 2 * 512 * 8 * (64 - d_k)
    listed.append((body(512, 2048, 6) - fewer, 512, recalled))

# %%
fits = lambda V, rows: all(round((size + V * d) / 1e6) == millions for size, d, millions in rows)
sizes_that_fit = [V for V in range(30_000, 50_000) if fits(V, listed)]
print(f"all ten rows fit for V from {min(sizes_that_fit):,} to {max(sizes_that_fit):,}")
assert (min(sizes_that_fit), max(sizes_that_fit)) == (41_004, 41_208)
big = [V for V in range(30_000, 50_000) if fits(V, [(body(1024, 4096, 6), 1024, 213)])]
assert (min(big), max(big)) == (35_368, 36_344) and not fits(37_000, listed[:1])
assert body(512, 2048, 6) + 37_000 * 512 == 63_045_632

# %% [markdown]
# Ten rows agree on one narrow interval, 41,004 to 41,208, which is not "about 37,000"; the *big* model's row (213 million)
# would need 35,368 to 36,344. So, if our memory of the column is right, no number of tokens explains all of it. We print our
# own count, 63.0 million at 37,000.
#
# ### Work
#
# For $n$ tokens, an encoder layer does $4 n d^2$ multiply-accumulates in the four matrices, $n^2 d$ for the scores and
# $n^2 d$ for the averages, and $2 n d\, d_{ff}$ in the FFN:
#
# $$\mathrm{MACs} = 4 n d^2 + 2 n^2 d + 2 n d\, d_{ff} \tag{5.18}$$
#
# The square is the price of seeing all places at once. A recurrent layer has no such term: it does about the same work for
# every token, however many there are. With $d_{ff} = 4d$ the linear part is $12 n d^2$, so the two are equal at $n = 6d$, which
# is 3072 tokens in the base model; beyond that the square is the larger part.

# %%
from attnlib.lab.cost import count_macs

d, d_ff, n = 64, 128, 26
layer = fresh(0).encoder.layers[0]
macs = count_macs(layer, torch.randn(1, n, d))
assert macs == 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * d_ff  # (5.18)
square, line = lambda n, d: 2 * n**2 * d, lambda n, d: 12 * n * d**2
assert square(3072, 512) == line(3072, 512) and square(3073, 512) > line(3073, 512)

# %% [markdown]
# **Writing.** With a cache, step $t$ computes one token: $4d^2$ in the masked attention and $2td$ to look at $t$ tokens; $2d^2$
# and $2nd$ for the memory, whose keys and values are there already; the FFN; and the logits of $V$ characters. Without it, the
# same for $t$ tokens, and the memory's keys and values ($2nd^2$) again in every step:
#
# $$c_t = N \big(6 d^2 + 2td + 2nd + 2 d\, d_{ff}\big) + V d \;\;\text{with the cache}, \qquad t\,c_t + 2 N n d^2
# \;\;\text{without} \tag{5.19}$$
#
# The cache is not free of them either: it computes these $2Nnd^2$ once, before step 1. (The encoder runs once in both.)

# %%
from attnlib.sequence.decoding import Cached, Recomputed

class Run(nn.Module):  # count_macs wants a module
    def __init__(self, run):
        super().__init__()
        self.run = run
    def forward(self, tokens):
        return self.run(tokens)

# %%
def step_costs(kind, steps=10):
    character, costs = torch.tensor([digits.BEGIN]), []
    with torch.no_grad():
        state = kind(model, asked[:1])
        for _ in range(steps):
            costs.append(count_macs(Run(state.step), character))  # works on a copy
            state.step(character)
    return costs

# %%
N, V, n = 2, len(digits), asked.shape[1]
c = [N * (6 * d**2 + 2 * t * d + 2 * n * d + 2 * d * d_ff) + V * d for t in range(1, 11)]
with_cache, without = step_costs(Cached), step_costs(Recomputed)
expected = [t * c[t - 1] + 2 * N * n * d**2 for t in range(1, 11)]
assert with_cache == c and without == expected  # (5.19)

# %%
reading = {kind: count_macs(Run(lambda tokens, kind=kind: kind(model, tokens)), asked[:1])
           for kind in (Cached, Recomputed)}
once = reading[Cached] - reading[Recomputed]
assert once == 2 * N * n * d**2
times = sum(without) / (once + sum(with_cache))
print(f"ten characters: {times:.1f} times the work without a cache")

# %% [markdown]
# ### Time
#
# Part 2 counted what has to wait. What does a clock say, on one thread of a processor that cannot do much at once?
# **Predict:** one training step (forward and backward, 16 sequences) of our Transformer and of two recurrent translators with
# annotations of the same width, for 8 to 128 tokens on both sides. Which is quicker, and how does that change with the
# length? *Additive* attention needs a loop over the target in Python; *dot* attention lets one library routine run through
# all steps.

# %%
from time import perf_counter

def best_time(model, *inputs):
    runs = []
    for _ in range(3):
        begin = perf_counter()
        model(*inputs).sum().backward()
        runs.append(perf_counter() - begin)
    return min(runs)

# %%
def rnn(attention):
    torch.manual_seed(0)
    options = {"embedding": 64, "width": 32, "attention": attention}
    return RecurrentTranslator(40, target_vocabulary=40, **options)

rnns, mine = {name: rnn(name) for name in ("additive", "dot")}, Transformer(40, **SIZE)
tokens = [8, 16, 32, 64, 128]
batches = {n: torch.randint(40, (16, n)) for n in tokens}

# %%
slower = {name: [] for name in rnns}
for n, batch in batches.items():
    unit, whole = best_time(mine, batch, batch), torch.full((16,), n)
    for name, other in rnns.items():
        slower[name].append(best_time(other, batch, whole, batch) / unit)

# %%
ax = plt.subplots(figsize=(5.5, 3))[1]
for (name, line), color in zip(slower.items(), ("grey", "C1"), strict=True):
    ax.plot(tokens, line, "o-", color=color, label=f"recurrent, {name}")
ax.axhline(1, color="C0", label="Transformer (= 1)"), ax.legend()
ax.set(xscale="log", xlabel="tokens in source and target", ylabel="time, Transformer = 1")
ax.set(xticks=tokens, xticklabels=tokens, ylim=0), ax.minorticks_off()
show(ax.figure, alt="Time of a training step of two recurrent translators over the length, as a "
     "multiple of the Transformer's, which is a line at 1.")

# %% [markdown]
# **What to see.** The figure was measured on the machine that built this page; yours will differ, and nothing is asserted
# about it. On one thread the chain of part 2 does not decide: the multiplications do, and the overhead of each small
# operation. Here the additive translator, whose loop runs in Python, falls behind as the sequences get
# longer; the one with a single routine for all steps stays roughly even with the Transformer. So what the Transformer wins by
# (5.1) is not less work. It is work that *can* be spread over many processors, and one thread does not show it.
#
# ## 9 · Does it help? · *Core*
#
# The translator of part 6 gets nearly every new date right. Is that luck with one seed, what of the recipe does it need, and is
# it better than the recurrent translator of [04_recurrent_attention](04_recurrent_attention.ipynb)?
# Fifteen networks were trained beforehand by `notebooks/runs/05_transformer.py`, three seeds for each of five recipes: both
# orders of norms, each with 100 steps of warm-up and without; and the paper's order once more with the root schedule (5.12)
# behind the warm-up instead of a line down to 0.
# All have the same peak rate, 0.004.
#
# A rule, before we look. **We say that something matters if the worst of its three seeds is better than the best of the three
# without it.** **Predict:** does warm-up matter for post? For pre? Does the line down to 0? And does the Transformer, against
# three recurrent translators from the stored runs of 04?

# %%
from attnlib.lab.plots import by_seed
from attnlib.lab.stored import load_results

runs = load_results("05_dates")
NAMES = {("post", 100, "line"): "post\nwarm-up", ("post", 0, "line"): "post\nnone",
         ("pre", 100, "line"): "pre\nwarm-up", ("pre", 0, "line"): "pre\nnone",
         ("post", 100, "root"): "post\nwarm-up, root"}
exacts = {NAMES[key]: list(part["exact"])
          for key, part in runs.groupby(["norm", "warmup", "fall"], sort=False)}

# %%
ax = plt.subplots(figsize=(7, 3))[1]
by_seed(exacts, ax=ax, highlight="post\nwarm-up", label="new dates written exactly", limit=0.99)
ax.set(ylim=(0.8, 1.01))
show(ax.figure, alt="Share of exact dates for five recipes, three seeds each, and a dashed line at "
     "99%. Post with warm-up lies above it with all seeds.")

# %%
def matters(a, b):
    return min(exacts[NAMES[a]]) > max(exacts[NAMES[b]])

verdicts = {"warm-up, post": matters(("post", 100, "line"), ("post", 0, "line")),
            "warm-up, pre": matters(("pre", 100, "line"), ("pre", 0, "line")),
            "post instead of pre": matters(("post", 100, "line"), ("pre", 100, "line")),
            "line instead of root": matters(("post", 100, "line"), ("post", 100, "root"))}
print(verdicts)

# %%
assert list(verdicts.values()) == [True, False, False, True]
assert not matters(("pre", 100, "line"), ("post", 100, "line"))
assert len(runs) == 15 and min(exacts[NAMES["post", 100, "line"]]) > 0.99
assert 0.9 < min(exacts[NAMES["post", 0, "line"]]) < max(exacts[NAMES["post", 0, "line"]]) <= 0.99

# %%
old = load_results("04_dates").query("attention == 'additive'")
assert len(old) == 3 and set(old["steps"]) == {300} and old["whole"].min() > 0.99
worst = min(exacts[NAMES["post", 100, "line"]])
print("the worst Transformer beats the best recurrent one:", worst > old["whole"].max())
assert worst <= old["whole"].max() and old["whole"].min() <= max(exacts[NAMES["post", 100, "line"]])

# %% [markdown]
# **What to see.** The recipe of part 6 writes more than 99% of the new dates exactly with all three seeds. Without warm-up the
# *post* network is worse, between 90% and 99%: by our rule warm-up matters for it, though the best seed without comes close. For
# the *pre* network we find no difference. That is the pattern which part 5 was about, but its reason hardly fits: with two
# layers the ratio is below 3 there. Between the two orders, both with warm-up, we find no difference either.
# And the line down to 0 matters: with the root schedule the rate is still at 40% of its peak when the run stops, and one seed in
# three is below 85%. (In the paper's 100,000 steps it falls to 20% of its peak.) All this holds at one peak rate and for two
# small layers; at another rate, or with twelve layers, we have not trained.
#
# **And against the recurrent translator?** No difference: with additive attention it writes more than 99% of the dates of its
# test too, for each of three seeds, after 300 steps. A date is short, and asks for nothing that is new here. What the
# Transformer has to offer is (5.1), and one thread is no place to collect it.

# %%
of_peak = lambda step, warmup: (warmup / step) ** 0.5  # (5.12) over (5.13), behind the warm-up
assert 0.4 < of_peak(600, 100) < 0.42 and abs(of_peak(100_000, 4000) - 0.2) < 1e-9
assert min(exacts[NAMES["post", 100, "root"]]) < 0.85

# %% [markdown]
# One live run stands for the stored ones. That of part 6 had the recipe of the first column and its seed 0:

# %%
row = runs[(runs["norm"] == "post") & (runs["warmup"] == 100) & (runs["fall"] == "line")]
stored = row.set_index("seed")["exact"][0]
print("the live run is near its stored row:", abs(exact(written) - stored) < 0.03)
assert abs(exact(written) - stored) < 0.03

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# ### Exercise 05.4 · bug gallery · *Depth* · 10 minutes
#
# This layer norm was published in a well-known tutorial and copied into many projects. For the row $(1, 0, 0, 0)$ it returns
# 1.5 in the first place; `nn.LayerNorm` returns 1.732. Find both departures from (5.2) and mend them. `x` is (..., d).
#
# ```python
# def layer_norm(x, gamma, beta, eps):
#     mean = x.mean(-1, keepdim=True)
#     std = x.std(-1, keepdim=True)
#     return gamma * (x - mean) / (std + eps) + beta
# ```
#
# <details><summary>Hint 1</summary>
#
# What does `std` divide by, if nobody tells it? And where does $\epsilon$ stand in (5.2)?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x.var(-1, keepdim=True, correction=0)` divides by $d$.
#
# </details>
# <details><summary>Hint 3</summary>
#
# The denominator is `(x.var(-1, keepdim=True, correction=0) + eps).sqrt()`.
#
# </details>

# %% tags=["exercise"]
def mended_norm(x, gamma, beta, eps):
    """x (..., d), gamma and beta (d,) -> (5.2), of x's shape."""
    raise NotImplementedError

mended_norm = check("05.4", mended_norm)

# %% tags=["solution"]
def mended_norm(x, gamma, beta, eps):
    variance = x.var(-1, keepdim=True, correction=0)
    return gamma * (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt() + beta

# %%
row_1 = torch.tensor([1, 0, 0, 0]).double()
published = (row_1 - row_1.mean()) / (row_1.std() + 1e-6)
assert abs(published[0] - 1.5) < 1e-4 and abs(mended_norm(row_1, 1, 0, 1e-6)[0] - 3**0.5) < 1e-4
factor = published[0] / mended_norm(row_1, 1, 0, 1e-6)[0]
assert abs(factor - (3 / 4) ** 0.5) < 1e-4
faint = row_1 / 1000
published = (faint - faint.mean()) / (faint.std() + 1e-6)
assert published[0] > 1.49 and mended_norm(faint, 1, 0, 1e-6)[0] < 0.8

# %% [markdown]
# For a token as large as this one the first departure is all that counts, and it is smaller than it looks: a factor
# $\sqrt{(d-1)/d}$, the same for every token, which $\gamma$ can learn. It shows when weights move from one code to another. The
# second shows for a faint token: $(0.001, 0, 0, 0)$ is blown up to 1.5 as before, while with $\epsilon$ under the root it stays
# below 0.8.
#
# ### Take away one ingredient: the mask
#
# What if the decoder's mask is forgotten in training? Each place then sees the whole target, and what it is asked to write
# stands one place to its right. **Predict** two numbers after 125 steps: the training loss compared with that of the masked
# decoder of part 6 at the same time (the mean over the last 25 steps), and the share of dates that are written rightly.

# %%
def loss_without_mask(model, rows):
    mask = padding_mask(lengths[rows], source.shape[1])
    memory, given = model.encode(source[rows], mask=mask), model.embed("target", target[rows, :-1])
    logits = model.logits(model.decoder(given, memory, memory_mask=mask))  # no mask for the target
    return F.cross_entropy(logits.flatten(0, 1), target[rows, 1:].flatten())

# %%
cheat = fresh(seed=0)
losses = learn(cheat, seed=0, loss_of=loss_without_mask, steps=125)
fraction = sum(losses[100:125]) / sum(history[100:125])
right = exact(greedy(cheat, asked, **ASK))
print("without the mask the training loss is less than a quarter:", fraction < 1 / 4)
print("without the mask, fewer than 1 new date in 100 is right:", right < 0.01)
assert fraction < 1 / 4 and right < 0.01

# %% [markdown]
# The loss looks splendid, and nothing was learnt but to copy from the right. When the model writes, there is nothing on the
# right. The mistake is easy to make: it needs no wrong formula, only a forgotten argument, and no error is raised. Shifting the
# target by no place at all, so that the decoder is given the very character it is to predict, does the same, mask or no mask.
# **A training loss that falls suspiciously fast is a leak until proven otherwise**; the Jacobian of the next part is the
# proof.
#
# ## 11 · Claims · *Depth*
#
# **TR-1** "Encoder and decoder, self-attention, residual connections, layer normalisation; trains in parallel where an RNN
# cannot." **True.** The parts are (5.2) to (5.7), equal to PyTorch's layer by layer. Parallel: the chain of operations in a
# training step does not grow with the length, and that of the recurrent translator does. Two limits: the claim is about
# *training* (writing goes step by step in both), and it is about what *can* be done at once; on one thread the clock need not
# agree (part 8).

# %%
# claim TR-1: TRUE
for n in (5, 10, 20):
    batch = torch.randint(9, (1, n))
    waits = chain(recurrent(batch, torch.tensor([n]), batch).sum())
    assert waits == chains["recurrent"][0] + (n - 4) * growth[0] // 4
    assert chain(transformer(batch, batch).sum()) == chains["Transformer"][0]

# %% [markdown]
# **TR-2** "Self-attention sees all positions at once." **True of the encoder, not of a masked decoder.** Differentiate: output
# $i$ depends on input $j$ if the Jacobian's block $(i, j)$ is not zero. **Predict** the two pictures, for our trained model.
#
# $$\frac{\partial\, \text{memory}_i}{\partial x_j} \ne 0 \;\text{ for all } i, j; \qquad
# \frac{\partial\, \text{output}_i}{\partial y_j} = 0 \;\text{ exactly, for } j > i \tag{5.20}$$

# %%
def influence(f, x):
    blocks = jacobian(f, x)[0, :, :, 0]  # output i, its feature; input j, its feature
    return blocks.norm(dim=(1, 3))

with torch.no_grad():
    read = words.encode(["27 August 1963"])[0]
    given = digits.encode(["1963-08-27"], ends=True)[0][:, :-1]
    read_in, given_in = model.embed("source", read), model.embed("target", given)
    memory = model.encode(read)

# %%
of_encoder = influence(model.encoder, read_in)
of_decoder = influence(lambda y: model.decoder(y, memory, mask=causal_mask(11)), given_in)
without_mask = influence(lambda y: model.decoder(y, memory), given_in)
# claim TR-2: TRUE of the encoder, not of a masked decoder
assert (of_encoder > 0).all() and (of_decoder.triu(1) == 0).all()  # (5.20)
assert (of_decoder.tril() > 0).sum() == 11 * 12 / 2 and (without_mask > 0).all()

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3))
shown = {"encoder": of_encoder, "decoder": of_decoder, "decoder, no mask": without_mask}
for ax, (name, blocks) in zip(axes, shown.items(), strict=True):
    last = ax is axes[2]
    heatmap((blocks + 1e-9).log10(), ax=ax, limits=(-3, 1), colorbar=last, label="log10 of size")
    ax.set(title=name, xlabel="input place", ylabel="output place")
show(fig, alt="Three maps of influence. Encoder: every cell is filled. Masked decoder: a triangle, "
     "nothing above the diagonal. Without the mask: every cell is filled.")

# %% [markdown]
# **What to see.** In the encoder every output depends on every input. In the decoder nothing lies above the diagonal: not
# small numbers, but exactly zero. The price of seeing everything at once is the square in (5.18).
#
# ## 12 · Exercises
#
# 05.1 stands in part 4, 05.2 and 05.3 in part 5, 05.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 05.5 · one step of a beam · *Depth* · 15 minutes
#
# A beam holds $k$ prefixes. `live` (k,) are their log-probabilities, and `log_p` (k, V) the log-probabilities of every
# character behind each of them. Of all $k \cdot V$ continuations find the $k$ best. Return three tensors of length $k$, best
# first: their log-probabilities, the prefix that each continues (its *parent*), and the character that is added. (Leave out the
# end of a target; the library takes care of that.)
#
# <details><summary>Hint 1</summary>
#
# By (5.14) the log-probability of a continuation is a sum. All of them stand in a table (k, V).
#
# </details>
# <details><summary>Hint 2</summary>
#
# Flatten the table; `topk(k)` gives the best values and their places in the flat table.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Place number $m$ of the flat table is row `m // V` and column `m % V`.
#
# </details>

# %% tags=["exercise"]
def beam_step(live, log_p):
    """live (k,), log_p (k, V) -> scores (k,), parents (k,), tokens (k,), best first."""
    raise NotImplementedError

beam_step = check("05.5", beam_step)

# %% tags=["solution"]
def beam_step(live, log_p):
    scores, place = (live[:, None] + log_p).flatten().topk(len(live))
    return scores, place // log_p.shape[1], place % log_p.shape[1]

# %% [markdown]
# With your step, three prefixes for a date that has no day. The model has never seen such a thing. It makes a day up, and the
# other two prefixes are its second and third choice. What they are, and how sure it is, stands in `texts` and `live.exp()`;
# look at them (which days come out depends on the last digits of the training, and so on your machine):

# %%
state = Cached(model, words.encode(["August 1963"])[0].expand(3, -1))
live, texts, last = torch.tensor([0, -torch.inf, -torch.inf]), [""] * 3, torch.full((3,), 1)
with torch.no_grad():
    for _ in range(10):
        live, parents, last = beam_step(live, state.step(last))
        texts = [texts[p] + digits.decode(last[i : i + 1, None])[0] for i, p in enumerate(parents)]
        state.select(parents)
assert len(set(texts)) == 3 and texts[0].startswith("1963-08-")

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the paper |
# |---|---|---|---|
# | layer norm | $\gamma \circ \hat x + \beta$, over one token's features | (5.2) | a citation |
# | network at every place | $\max(0, xW_1 + b_1)W_2 + b_2$ | (5.3) | (2) |
# | post, pre | $\mathrm{LN}(x + F(x))$, $x + F(\mathrm{LN}(x))$ | (5.4), (5.5) | section 3.1; not there |
# | layers | two sub-layers, three sub-layers | (5.6) | section 3.1 |
# | tokens and logits | $\sqrt d\, E_c + \mathrm{PE}(p)$, $yE^\top$ | (5.7) | sections 3.4, 3.5 |
# | norm backward | $\frac1\rho(\hat g - \overline{\hat g} - \hat x\, \overline{\hat g \hat x})$ | (5.9) | – |
# | learning rate | $d^{-1/2}\min(s^{-1/2}, s\,w^{-3/2})$ | (5.12) | (3) |
# | parameters | $N(12d^2 + \dots)$: 44,101,632 | (5.17) | table 3, with tokens |
# | work | $4nd^2 + 2n^2d + 2nd\,d_{ff}$ | (5.18) | table 1 |
#
# - A Transformer layer reads the residual stream through attention and through a small network, and adds to it.
# - In training no place waits for another: the chain of operations does not grow with the length. Writing goes step by step;
#   a cache of keys and values makes a step cheap.
# - Twelve post-norm layers hear the loss very unevenly at the start, two much less so. Yet our two did better with a warm-up; with
#   pre-norm we found no difference.
# - On dates we found no difference to the recurrent translator.
# - The decoder's mask is what makes training on whole targets honest. Without it the loss falls, and nothing is learnt.
# - 44,101,632 parameters without tokens; libraries differ in biases and in a last norm, and label smoothing has two
#   definitions.
#
# **Sources.** Vaswani and others, arXiv 1706.03762; tensor2tensor; Ba, Kiros, Hinton: *Layer Normalization*, arXiv
# 1607.06450; Xiong and others, arXiv 2002.04745 (pre and post); Wu and others, arXiv 1609.08144 (length penalty of the
# library's beam); harvardnlp/annotated-transformer issues 119 and 122 and codertimo/BERT-pytorch issue 30 (the layer norm of
# part 10); pytorch/pytorch issue 55270 (the last norm).
#
# **Back:** [04_recurrent_attention](04_recurrent_attention.ipynb) · **Next:** [06_moving_averages](06_moving_averages.ipynb),
# in which the weights of attention are fixed in advance. The map of the course is in [00_start_here](00_start_here.ipynb).
