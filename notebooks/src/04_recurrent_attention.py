# %% [markdown]
# # 04 · Attention in a recurrent translator
#
# **The question.** A recurrent network reads a sentence to its end, and a second one writes the translation from what
# the first remembers. Why does this fail for long sentences, and what mends it?
#
# **The answer in one sentence.** Let the writer look back at every step: a small network scores each place of the
# source against the writer's state, a softmax turns the scores into weights, and the weighted sum of what was read at
# all places helps to write the next token.
#
# **Papers.** Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio: *Neural Machine Translation by Jointly Learning to Align
# and Translate*, ICLR 2015, [arXiv 1409.0473](https://arxiv.org/abs/1409.0473). Minh-Thang Luong, Hieu Pham,
# Christopher Manning: *Effective Approaches to Attention-based Neural Machine Translation*, EMNLP 2015, [arXiv
# 1508.04025](https://arxiv.org/abs/1508.04025).
#
# **Time.** Core 90 minutes (parts 1-4, 6, 9 and exercise 04.1) · Depth 110 minutes (the rest).
#
# **Prerequisites.** [02_self_attention](02_self_attention.ipynb), parts 3 and 4; the toolbox pages on [softmax and
# its Jacobian](00_toolbox.ipynb#1.-Softmax-and-its-Jacobian) and on [one GRU step](00_toolbox.ipynb#7.-One-GRU-step).
# The course's map is in [00_start_here](00_start_here.ipynb).

# %% [markdown]
# ## 1 · Symbols and recall
#
# | symbol | size | meaning |
# |---|---|---|
# | $m$, $t$ | | number of tokens in the source, in the target |
# | $x_j$, $y_i$ | | source token at place $j$, target token at place $i$; $y_0$ is a token that says "begin" |
# | $E x_j$, $E y_i$ | $\epsilon$ | their embeddings: one learnt row of $\epsilon$ numbers for each token |
# | $n$, $n'$ | | features of the encoder in each direction, features of the decoder |
# | $h_j$ | $2n$ | annotation of place $j$: what the encoder knows there; $H$ has them as rows, $m \times 2n$ |
# | $s_i$ | $n'$ | state of the decoder behind step $i$; $S$ has them as rows |
# | $W_s$, $b$ | $n' \times n$, $n'$ | make the decoder's first state of the backward encoder's last one |
# | $e_{ij}$ | | score of place $j$ at step $i$ |
# | $a_{ij}$ | | weight of place $j$ at step $i$ (Bahdanau's $\alpha_{ij}$) |
# | $c_i$ | $2n$ | context of step $i$ |
# | $W_a, U_a, v_a$ | $n' \times n'$, $n' \times 2n$, $n'$ | the additive score's matrices and vector |
# | $r_i$ | $n'$ | readout of step $i$ (Luong's $\tilde h_t$), made by $W_c$, $n' \times (2n + n')$ |
# | $W_y$ | vocabulary $\times\, n'$ | makes a logit for each possible token of a readout |
# | $p_i$, $D$, $\sigma$ | | centre, half width and spread of Luong's window, part 7 |
#
# Bahdanau counts places from 1 to $T_x$ and $T_y$, our $m$ and $t$. Two letters mean something else in other
# notebooks: $s$ is a gate in `08`, and $h$ is a height in Part II.

# %%
import random

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
# **04.a** What is $\tanh(\tfrac12 \ln 3)$? ($\tanh u = (e^{2u} - 1)/(e^{2u} + 1)$) (a) 1/3 · (b) 1/2 · (c) $\ln 3$ ·
# (d) 1 · (e) 3/4
#
# **04.b** In PyTorch's GRU, what does an update gate $z = 1$ do to the state? (a) it is set to zero · (b) it is
# replaced by the candidate · (c) it stays as it is · (d) it doubles · (e) it becomes the mean of old state and
# candidate
#
# **04.c** All scores of a row grow by 5. What does their softmax do? (a) it stays the same · (b) all weights grow ·
# (c) the largest weight grows · (d) all weights are divided by $e^5$ · (e) the weights become more equal

# %% tags=["exercise"]
check("04.a", ...)
check("04.b", ...)
check("04.c", ...)

# %% tags=["solution"]
check("04.a", "b")
check("04.b", "c")
check("04.c", "a")

# %% [markdown]
# ## 2 · The problem · *Core*
#
# A recurrent network reads one token after the other and keeps a state; the
# [toolbox](00_toolbox.ipynb#7.-One-GRU-step) derives one step of it, the gated recurrent unit (GRU). We let one such
# network, the **encoder**, read the source from left to right, and another one from right to left. What the two hold
# at place $j$, side by side, is the **annotation** of that place:
#
# $$\overrightarrow{h}_j = \mathrm{GRU}(E x_j,\, \overrightarrow{h}_{j-1}), \qquad
# \overleftarrow{h}_j = \mathrm{GRU}'(E x_j,\, \overleftarrow{h}_{j+1}), \qquad
# h_j = \begin{pmatrix} \overrightarrow{h}_j \\ \overleftarrow{h}_j \end{pmatrix} \tag{4.1}$$
#
# The marks at GRU and $\mathrm{GRU}'$ say that each has weights of its own. Both begin with a state of zeros, one at
# the left end, one at the right. So $h_j$ knows the whole source, but best of all what stands near place $j$. The
# library's `RecurrentTranslator` has such an encoder. We repeat it with two cells, step by step:

# %%
from attnlib.sequence.recurrent import RecurrentTranslator

sizes = {"target_vocabulary": 9, "embedding": 3, "width": 4, "decoder_width": 6}
small = RecurrentTranslator(11, **sizes).double()
sentence = torch.tensor([[5, 3, 7, 7, 10]])
with torch.no_grad():
    annotations, ends = small.encode(sentence, torch.tensor([5]))

# %%
def one_way(embedded, suffix):
    cell, state, states = nn.GRUCell(3, 4).double(), torch.zeros(1, 4).double(), []
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: getattr(small.encoder, f"{name}_l0{suffix}") for name in names})
    for token in embedded:
        state = cell(token[None], state)
        states.append(state[0])
    return torch.stack(states)

# %%
with torch.no_grad():
    embedded = small.source(sentence[0])
    to_the_right = one_way(embedded, "")
    to_the_left = one_way(embedded.flip(0), "_reverse").flip(0)
assert torch.allclose(torch.cat([to_the_right, to_the_left], 1), annotations[0])  # (4.1)

# %% [markdown]
# A second GRU, the **decoder**, writes. Its first state is made of what the backward encoder holds when it has read
# all of the source. At each step it is told the token written last. **Without attention** all that it ever sees of
# the source are the two ends of the encoder's work, the last state of each direction. We hand it this one vector $c$
# at every step, so that it need not remember it. A layer with a tanh joins $c$ and the new state to a **readout**
# $r_i$, and a linear layer makes logits of that, one for each token of the vocabulary:
#
# $$\begin{gathered}
# c = \begin{pmatrix} \overrightarrow{h}_m \\ \overleftarrow{h}_1 \end{pmatrix}, \qquad
# s_0 = \tanh(W_s \overleftarrow{h}_1 + b), \qquad
# s_i = \mathrm{GRU}''\left(\begin{pmatrix} E y_{i-1} \\ c \end{pmatrix}, s_{i-1}\right), \\
# r_i = \tanh\Big(W_c \begin{pmatrix} c \\ s_i \end{pmatrix}\Big), \qquad \mathrm{logits}_i = W_y r_i
# \end{gathered} \tag{4.2}$$

# %%
fixed = RecurrentTranslator(11, attention=None, **sizes).double()
begun = torch.tensor([[1, 4, 8]])
with torch.no_grad():
    states_read, (c,) = fixed.encode(sentence, torch.tensor([5]))
    s, by_hand = torch.tanh(fixed.W_s(states_read[:, 0, 4:])), []
    for y in fixed.target(begun[0]):
        s = fixed.decoder(torch.cat([y, c])[None, None], s[None])[1][0]
        by_hand.append(fixed.W_y(torch.tanh(fixed.W_c(torch.cat([c, s[0]])))))

# %%
assert torch.equal(c, torch.cat([states_read[0, -1, :4], states_read[0, 0, 4:]]))
logits = fixed(sentence, torch.tensor([5]), begun)
assert torch.allclose(torch.stack(by_hand), logits[0])  # (4.2)

# %% [markdown]
# **The bottleneck.** Whether the source has five tokens or fifty, $c$ has $2n$ numbers. The simplest game that shows
# what this means is **copying**: the source is a string of random digits, and the target is the same string. Nothing
# need be understood; all must be remembered. There are $10^m$ strings of $m$ digits, so each digit more makes ten
# times as many cases to be told apart by the same $2n$ numbers.
#
# In training the decoder is told the right token of the step before (that is called *teacher forcing*), and the loss
# is the cross-entropy of the next token. `Vocabulary`, of the course's laboratory, turns characters into numbers: 0
# for padding, 1 for "begin", 2 for "end", then the characters.

# %%
def loss_of(model, pairs, words, signs):
    sources, targets = zip(*pairs, strict=True)
    (x, lengths), (y, _) = words.encode(sources), signs.encode(targets, ends=True)
    real = y[:, 1:] != signs.PAD
    return F.cross_entropy(model(x, lengths, y[:, :-1])[real], y[:, 1:][real])

# %%
def fit(model, pairs, words, signs):
    adam = torch.optim.Adam(model.parameters())
    for i in range(0, len(pairs), 64):
        adam.param_groups[0]["lr"] = 0.01 * (1 - i / len(pairs))
        loss = loss_of(model, pairs[i : i + 64], words, signs)
        adam.zero_grad(), loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0), adam.step()
    return model

# %% [markdown]
# On new strings the decoder is on its own: it goes on with the token that *it* has written, until it writes the end.
# We give it 400 steps of 64 strings with one to twenty digits.

# %%
from attnlib.lab.grammar import Vocabulary, date_pairs

def strings(n, lengths, seed):
    draw = random.Random(seed)
    texts = ["".join(draw.choice("0123456789") for _ in range(draw.choice(lengths)))
             for _ in range(n)]
    return [(text, text) for text in texts]

# %%
def build(words, signs, attention, seed=0):
    torch.manual_seed(seed)
    options = {"embedding": 16, "width": 24, "attention": attention}
    return RecurrentTranslator(len(words), target_vocabulary=len(signs), **options)

def writes(model, sources, words, signs):
    x, lengths = words.encode(sources)
    return signs.decode(model.translate(x, lengths, begin=1, end=2, limit=29))

# %%
digits = Vocabulary(["0123456789"])
without = fit(build(digits, digits, None), strings(64 * 400, range(1, 21), 0), digits, digits)

def share_copied(model, length):
    texts = [text for text, _ in strings(200, [length], 1000 + length)]
    written = writes(model, texts, digits, digits)
    return sum(a == b for a, b in zip(written, texts, strict=True)) / 200

# %% [markdown]
# **Predict:** of strings with 1, 2, 4, 8, 12, 16 and 20 digits, what share does it copy without any mistake?

# %%
asked = [1, 2, 4, 6, 8, 10, 12, 16, 20]
copied = [share_copied(without, length) for length in asked]
ax = plt.subplots(figsize=(6, 2.6))[1]
ax.plot(asked, copied, "o-", color="grey")
ax.set(xlabel="digits in the string", ylabel="copied whole", ylim=(-0.03, 1.05), xticks=asked)
show(ax.figure, alt="The share of strings copied without mistake by a decoder with one vector: "
     "all of them up to four digits, half at eight, none from sixteen on.")

# %%
print("up to four digits, more than nine of ten:", min(copied[:3]) > 0.9)
print("sixteen digits and more, less than one of fifty:", max(copied[7:]) < 0.02)
assert min(copied[:3]) > 0.9 and max(copied[7:]) < 0.02 and 0.1 < copied[4] < 0.9

# %% [markdown]
# **What to see.** Short strings go through the one vector. Long ones do not: from 16 digits on not one string in
# fifty comes out whole, although in training half of the strings were longer than ten. This network has $2n = 48$
# numbers to hold a string. Part 9 asks whether more numbers or more patience would do; but first the remedy. The
# annotations of all places have been computed anyway. Why not let the decoder see them?

# %% [markdown]
# ## 3 · By hand · *Core*
#
# At step $i$ the decoder's state is $s_{i-1}$, and there are annotations $h_1, \dots, h_m$. Which of them does it
# need now? In notebook 02 a query and a key were compared by their dot product. Bahdanau's **additive score** is a
# small network with one hidden layer, which hears both:
#
# $$e_{ij} = v_a^\top \tanh(W_a s_{i-1} + U_a h_j) \tag{4.3}$$
#
# Take a pencil. Two hidden units, two features everywhere, and three places:
#
# $$h_1 = (1, 0), \quad h_2 = (0, 1), \quad h_3 = (0, 0), \qquad
# W_a = U_a = \tfrac12 \ln 3 \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}, \qquad v_a = 10 \ln 2 \begin{pmatrix} 1 \\ 1 \end{pmatrix}$$
#
# The factor $\frac12 \ln 3$ makes the hyperbolic tangents plain: $\tanh 0 = 0$, $\tanh(\frac12 \ln 3) = \frac12$ and
# $\tanh(\ln 3) = \frac45$. And since $e^{u \ln 2} = 2^u$, the exponentials will be powers of 2.
#
# Let the state be $s = (0, 1)$. Unit 1 hears nothing from it, unit 2 hears $\frac12 \ln 3$.
#
# | place | unit 1 | unit 2 | score $/ \ln 2$ | $e^{\text{score}}$ |
# |---|---|---|---|---|
# | $h_1 = (1, 0)$ | $\tanh(\frac12 \ln 3) = 0.5$ | $\tanh(\frac12 \ln 3) = 0.5$ | 10 | 1024 |
# | $h_2 = (0, 1)$ | $\tanh(0) = 0$ | $\tanh(\ln 3) = 0.8$ | 8 | 256 |
# | $h_3 = (0, 0)$ | $\tanh(0) = 0$ | $\tanh(\frac12 \ln 3) = 0.5$ | 5 | 32 |
#
# Do the same for the state $(1, 0)$ before you run the cell.

# %%
from math import log

h = torch.tensor([[1, 0], [0, 1], [0, 0]]).double()
s_two = torch.tensor([[0, 1], [1, 0]]).double()  # two states, one a row
W_a = U_a = log(3) / 2 * torch.eye(2).double()
v_a = 10 * log(2) * torch.ones(2).double()
e = torch.stack([torch.tanh(W_a @ s + U_a @ h_j) @ v_a for s in s_two for h_j in h]).view(2, 3)
assert torch.allclose(e / log(2), torch.tensor([[10, 8, 5], [8, 10, 5]]).double())  # (4.3)

# %% [markdown]
# The rest is as in notebook 02. A softmax makes weights of a row of scores, and the context is the weighted sum of
# the annotations, which are keys and values in one:
#
# $$a_{ij} = \frac{e^{e_{ij}}}{\sum_{k=1}^m e^{e_{ik}}}, \qquad c_i = \sum_{j=1}^m a_{ij}\, h_j \tag{4.4}$$
#
# For $s = (0, 1)$: 1024, 256 and 32 are 32, 8 and 1 shares of 41. The context is $\frac{32}{41} (1, 0) + \frac{8}{41}
# (0, 1) + \frac1{41} (0, 0) = (\frac{32}{41}, \frac8{41})$. For $s = (1, 0)$ the first two places change roles:
# **another state looks elsewhere.**

# %%
a = e.softmax(1)
contexts = a @ h
assert torch.allclose(a, torch.tensor([[32, 8, 1], [8, 32, 1]]).double() / 41)  # (4.4)
assert torch.allclose(contexts, torch.tensor([[32, 8], [8, 32]]).double() / 41)

# %% [markdown]
# How did the state do that? It only *adds* something. Look at unit 1 as it goes along its curve: an annotation with a
# 1 in the first feature moves it $\frac12 \ln 3$ to the right. The state says where that walk begins.

# %%
colors, walk = {"s = (0, 1)": "C0", "s = (1, 0)": "C1"}, torch.linspace(0, log(3) / 2, 50)
line = torch.linspace(-1.2, 2.2, 100)

def draw_walks(ax):
    ax.plot(line, line.tanh(), color="grey")
    for begin, (name, color) in zip((0, log(3) / 2), colors.items(), strict=True):
        ax.plot(begin + walk, (begin + walk).tanh(), color=color, lw=5, alpha=0.8, label=name)
    ax.set(xlabel="what unit 1 hears", ylabel="tanh"), ax.legend(loc="lower right")

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.5), width_ratios=[1.2, 1])
draw_walks(axes[0])
for shift, color, row in zip((-0.2, 0.2), colors.values(), a, strict=True):
    axes[1].bar([j + shift for j in range(3)], row, 0.4, color=color)
axes[1].set(xticks=range(3), xticklabels=["h₁", "h₂", "h₃"], ylabel="weight")
show(fig, alt="Left, the curve of tanh with two walks of the same width: the blue one at the steep "
     "middle rises by 0.5, the orange one by 0.3. Right, the weights of both states.")

# %% [markdown]
# **What to see.** The blue walk starts in the steep middle and rises by 0.5. The orange one starts further out, where
# the curve is flatter, and rises by only 0.3. So the state turns units *up and down*: it moves a unit to where the
# curve is flat, and the unit hardly hears the annotations any more. All of the state's influence comes from the bend.
# **Predict:** what would be left of it if the tanh were dropped?
#
# Without the tanh the score falls into two parts,
#
# $$e_{ij} = v_a^\top (W_a s_{i-1} + U_a h_j) = \underbrace{v_a^\top W_a s_{i-1}}_{\text{the same for all } j} + v_a^\top U_a h_j
# \quad\Rightarrow\quad a_{ij} \text{ does not depend on } s_{i-1} \tag{4.5}$$
#
# because a softmax does not see what all scores of its row share (question 04.c). The state would have no say at all,
# and to bend the two parts each for itself would not help: they would still be a sum. The tanh of the *sum* is no
# decoration, it is what makes the score a comparison.

# %%
from_states, from_places = (torch.randn(4, 2).double() @ W_a.T)[:, None], h @ U_a.T
straight = ((from_states + from_places) @ v_a).softmax(1)
assert torch.allclose(straight, straight[:1].expand(4, 3))  # (4.5)
each_bent = ((from_states.tanh() + from_places.tanh()) @ v_a).softmax(1)
assert torch.allclose(each_bent, each_bent[:1].expand(4, 3))
with_bend = (torch.tanh(from_states + from_places) @ v_a).softmax(1)
assert not torch.allclose(with_bend, with_bend[:1].expand(4, 3), atol=0.01)

# %% [markdown]
# ## 4 · As matrices, and as a module · *Core*
#
# For all steps and places at once: $S W_a^\top$ is $t \times n'$, $H U_a^\top$ is $m \times n'$. A step is paired
# with a place by giving each an axis of its own, $(t, 1, n') + (1, m, n')$, and the tanh of the sum has the shape
# $(t, m, n')$.
#
# Sentences in a batch differ in length and are filled up with padding. The decoder must not look there: a **mask**
# says which places are real, and the others get no weight.
#
# ### Exercise 04.1 · additive attention · *Core* · 10 minutes
#
# Write (4.3) and the weights of (4.4), with a mask. `s` is (t, n'), one state a row; `h` is (m, 2n); `W` is (n', n'),
# `U` is (n', 2n), `v` is (n'); `mask` is (m), True for real places. Return the weights, (t, m).
#
# <details><summary>Hint 1</summary>
#
# `s @ W.T` and `h @ U.T` first. Then give each of them the axis that it lacks.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `(s @ W.T)[:, None] + h @ U.T` is (t, m, n'). After the tanh, `@ v` takes away the last axis.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `e.masked_fill(~mask, -torch.inf).softmax(-1)`: the mask (m) fits the last axis of the scores (t, m).
#
# </details>

# %% tags=["exercise"]
def additive_weights(s, h, W, U, v, mask):
    """s (t, n'), h (m, 2n), W (n', n'), U (n', 2n), v (n'), mask (m) -> weights (t, m)."""
    raise NotImplementedError

additive_weights = check("04.1", additive_weights)

# %% tags=["solution"]
def additive_weights(s, h, W, U, v, mask):
    e = torch.tanh((s @ W.T)[:, None] + h @ U.T) @ v
    return e.masked_fill(~mask, -torch.inf).softmax(-1)

# %% [markdown]
# Ours, held against the numbers of part 3 and against the library's `AdditiveScore`, which keeps $W_a$, $U_a$ and
# $v_a$ as linear layers without biases:

# %%
from attnlib import AdditiveScore
from attnlib.sequence import masked_softmax

assert torch.allclose(additive_weights(s_two, h, W_a, U_a, v_a, torch.ones(3).bool()), a)
score = AdditiveScore(6, 8, 6).double()
S4, H5 = torch.randn(4, 6).double(), torch.randn(5, 8).double()
W, U, v = score.W.weight, score.U.weight, score.v.weight[0]
real = torch.tensor([1, 1, 1, 1, 0]).bool()
assert torch.allclose(additive_weights(S4, H5, W, U, v, real), masked_softmax(score(S4, H5), real))

# %% [markdown]
# ### The step, in Bahdanau's order
#
# The state of the step before looks, and the context enters the step:
#
# $$\begin{gathered}
# c_i = \sum_j a_{ij}\, h_j \;\text{ with the weights of } s_{i-1}, \qquad
# s_i = \mathrm{GRU}''\left(\begin{pmatrix} E y_{i-1} \\ c_i \end{pmatrix}, s_{i-1}\right), \\
# r_i = \tanh\Big(W_c \begin{pmatrix} c_i \\ s_i \end{pmatrix}\Big), \qquad \mathrm{logits}_i = W_y r_i
# \end{gathered} \tag{4.6}$$
#
# This is (4.2) with $c_i$ in the place of $c$: nothing else has changed.

# %%
W, U, v = small.score.W.weight, small.score.U.weight, small.score.v.weight[0]
with torch.no_grad():
    s, bahdanau = torch.tanh(small.W_s(annotations[:, 0, 4:])), []
    for y in small.target(begun[0]):
        c_i = additive_weights(s, annotations[0], W, U, v, torch.ones(5).bool())[0] @ annotations[0]
        s = small.decoder(torch.cat([y, c_i])[None, None], s[None])[1][0]
        bahdanau.append(small.W_y(torch.tanh(small.W_c(torch.cat([c_i, s[0]])))))

# %%
logits = small(sentence, torch.tensor([5]), begun)
assert torch.allclose(torch.stack(bahdanau), logits[0])  # (4.6)

# %% [markdown]
# ### The step, in Luong's order
#
# Luong and others turn it round. The GRU steps first, without any context; then its *present* state looks, and the
# context only joins for the readout:
#
# $$s_i = \mathrm{GRU}''(E y_{i-1},\, s_{i-1}), \qquad c_i = \sum_j a_{ij}\, h_j \;\text{ with the weights of } s_i, \qquad
# r_i \text{ and } \mathrm{logits}_i \text{ as above} \tag{4.7}$$
#
# They compare three scores: **dot** $s_i^\top h_j$, which needs $n' = 2n$; **general** $s_i^\top W_a h_j$; and
# **concat** $v_a^\top \tanh(W_a [s_i; h_j])$, where $[s_i; h_j]$ is one vector on top of the other. (Their $W_a$ is
# $n' \times 2n$ in general and $n' \times (n' + 2n)$ in concat.) The last one is no new score. A matrix times two
# vectors on top of each other is the sum of its left part times the first and its right part times the second:
#
# $$\big(W \,|\, U\big) \begin{pmatrix} s_i \\ h_j \end{pmatrix} = W s_i + U h_j, \qquad\text{so concat is the additive score} \tag{4.8}$$

# %%
joined = torch.cat([score.W.weight, score.U.weight], 1)  # Luong's W_a, cut in two by (4.8)
concat = [score.v.weight[0] @ torch.tanh(joined @ torch.cat([s, h_j])) for s in S4 for h_j in H5]
assert torch.allclose(torch.stack(concat).view(4, 5), score(S4, H5))  # (4.8)

# %%
for kind in ("dot", "general", "concat"):
    luong = RecurrentTranslator(11, attention=kind, **{**sizes, "decoder_width": 8}).double()
    memory, ends = luong.encode(sentence, torch.tensor([5]))
    states = luong.decoder(luong.target(begun), torch.tanh(luong.W_s(ends[:, 4:]))[None])[0]
    e_all = states @ memory.mT if kind == "dot" else luong.score(states, memory)
    r = torch.tanh(luong.W_c(torch.cat([e_all.softmax(-1) @ memory, states], -1)))
    assert torch.allclose(luong.W_y(r), luong(sentence, torch.tensor([5]), begun))  # (4.7)

# %% [markdown]
# Notice that the cell has no loop over steps; the one of (4.6) had. In Luong's order no state depends on a context,
# so in training one call of the GRU makes all states, and then all of them look at once. In Bahdanau's order step $i$
# must wait for $c_i$, which waits for $s_{i-1}$. (A GRU is itself a loop over the steps; what can be done at once is
# the attention.)

# %% [markdown]
# ## 5 · The backward pass by hand · *Depth*
#
# The softmax and the weighted sum were gone through in [02_self_attention](02_self_attention.ipynb); new is the
# score. Let $z_{ij} = W_a s_i + U_a h_j$ be what the hidden layer hears, $T_{ij} = \tanh z_{ij}$, both with $n'$
# entries, and let $G_{ij} = \partial L/\partial e_{ij}$ arrive. (We write $s_i$ for the state that looks, whichever
# it is.)
#
# **The last layer.** $e_{ij} = v_a \cdot T_{ij}$, for every pair with the same $v_a$. So the gradients of all pairs
# add up in $v_a$; and $T_{ij}$ gets $G_{ij}\, v_a$. The slope of tanh is $1 - \tanh^2$, entry by entry ($\circ$
# multiplies so):
#
# $$\frac{\partial L}{\partial v_a} = \sum_{ij} G_{ij}\, T_{ij}, \qquad
# \frac{\partial L}{\partial z_{ij}} = G_{ij}\; v_a \circ (1 - T_{ij} \circ T_{ij}) \tag{4.9}$$
#
# ### Exercise 04.2 · back through the hidden layer · *Depth* · 10 minutes
#
# Write the second half of (4.9) for all pairs at once. `G` is (t, m), `T` is (t, m, n'), the *output* of the tanh,
# and `v` is (n').
#
# <details><summary>Hint 1</summary>
#
# `G` lacks the last axis; `v` has only the last axis.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `G[..., None]` is (t, m, 1) and multiplies `v`, (n'), to (t, m, n').
#
# </details>
# <details><summary>Hint 3</summary>
#
# `G[..., None] * v * (1 - T**2)`: `T` is already the tanh, so it is not taken again.
#
# </details>

# %% tags=["exercise"]
def hidden_backward(G, T, v):
    """G = dL/de (t, m), T = tanh(z) (t, m, n'), v (n') -> dL/dz, (t, m, n')."""
    raise NotImplementedError

hidden_backward = check("04.2", hidden_backward)

# %% tags=["solution"]
def hidden_backward(G, T, v):
    return G[..., None] * v * (1 - T**2)

# %% [markdown]
# **The sum.** $W_a s_i$ is used at every place $j$, and $U_a h_j$ at every step $i$. So a state collects over the
# places, and an annotation over the steps. What they have collected arrives at two linear layers, $S W_a^\top$ and $H
# U_a^\top$, and goes through each as in (2.5) of the [toolbox](00_toolbox.ipynb#2.-Vector-Jacobian-products):
#
# $$A_i = \sum_j \frac{\partial L}{\partial z_{ij}}, \quad B_j = \sum_i \frac{\partial L}{\partial z_{ij}}, \qquad
# \frac{\partial L}{\partial S} = A\, W_a, \quad \frac{\partial L}{\partial H} = B\, U_a, \quad
# \frac{\partial L}{\partial W_a} = A^\top S, \quad \frac{\partial L}{\partial U_a} = B^\top H \tag{4.10}$$
#
# with $A_i$ and $B_j$ as rows of $A$ and $B$. All of it against autograd, and against central differences, which know
# nothing of any derivative:

# %%
def forward(S, H, W, U, v):
    return torch.tanh((S @ W.T)[:, None] + H @ U.T) @ v

def backward(G, S, H, W, U, v):
    T = torch.tanh((S @ W.T)[:, None] + H @ U.T)
    dz = hidden_backward(G, T, v)
    A, B = dz.sum(1), dz.sum(0)
    d_v = (G[..., None] * T).sum((0, 1))
    return {"S": A @ W, "H": B @ U, "W": A.T @ S, "U": B.T @ H, "v": d_v}

# %%
from attnlib.lab.gradients import compare_gradients

shapes = {"S": (3, 4), "H": (5, 6), "W": (4, 4), "U": (4, 6), "v": (4,)}
drawn = {name: torch.randn(shape).double() for name, shape in shapes.items()}
table = compare_gradients(forward, backward, drawn)
agree = table["hand = autograd"] & table["hand = differences"]
assert agree["v"]  # (4.9)
assert agree[["S", "H", "W", "U"]].all()  # (4.10)
table

# %% [markdown]
# ### A start of zeros
#
# What if training starts with $v_a = 0$? All scores are 0, so all places have the same weight, and (4.9) says what
# learns:
#
# $$v_a = 0 \quad\Rightarrow\quad a_{ij} = \frac1m, \qquad \frac{\partial L}{\partial W_a} = \frac{\partial L}{\partial U_a} = 0,
# \qquad \frac{\partial L}{\partial v_a} = \sum_{ij} G_{ij} T_{ij} \ne 0 \text{ in general} \tag{4.11}$$
#
# The translator begins as one whose context is the plain mean of the annotations. In the first step only $v_a$ moves;
# from the second on everything does. (That is a good start if $W_a$ and $U_a$ are *not* zero. With those at zero as
# well, $T$ would be zero, and nothing would ever move.)

# %%
zeroed = build(digits, digits, "additive")
zeroed.score.v.weight.data.zero_()
x, lengths = digits.encode(["314159", "27"])
y, _ = digits.encode(["314159", "27"], ends=True)
rows = zeroed.weights(x, lengths, y[:, :-1])
assert torch.allclose(rows[0], torch.full((7, 6), 1 / 6))  # (4.11)
assert torch.allclose(rows[1, :, :2], torch.tensor(1 / 2)) and (rows[1, :, 2:] == 0).all()

# %%
loss_of(zeroed, strings(64, range(1, 21), 0), digits, digits).backward()
slopes = {name: p.grad.abs().max().item() for name, p in zeroed.score.named_parameters()}
print({name: "moves" if slope > 0 else "stays" for name, slope in slopes.items()})
assert slopes["W.weight"] == slopes["U.weight"] == 0 < slopes["v.weight"]

# %% [markdown]
# ## 6 · What it attends to · *Core*
#
# A real translation, in which the order changes: dates, as people write them in English and in Chinese, into the form
# year-month-day with digits. A grammar in the course's laboratory writes both sides, so every pair is right. No date
# of the test is ever trained on, in whatever words.

# %%
pairs, new = date_pairs(64 * 300, seed=0), date_pairs(500, seed=1000, split="test")
for source, target in new[:6]:
    print(f"{target}  {source}")
words, signs = Vocabulary([p for p, _ in pairs]), Vocabulary([t for _, t in pairs])
assert not {t for _, t in pairs} & {t for _, t in new}
assert (len(words), len(signs)) == (56 + 3, 11 + 3)  # three are for padding, begin and end

# %% [markdown]
# A translator with the additive score, 300 steps of 64 dates. Its tokens are characters, so it has to spell its way
# through "September" as well as through 九月.

# %%
translator = fit(build(words, signs, "additive"), pairs, words, signs)
sources, targets = zip(*new, strict=True)
translated = writes(translator, sources, words, signs)
exact = sum(a == b for a, b in zip(translated, targets, strict=True)) / 500
print("more than 97% of 500 new dates without any mistake:", exact > 0.97)
assert exact > 0.97

# %% [markdown]
# Now its weights. For one date, row $i$ of the picture is the step that writes the $i$-th character of the answer,
# and each column is a character of the source. The Chinese characters are written as what they mean, so that
# everybody can read them (and no font is missing): 二〇四一年十二月二十一日 is "2 0 4 1 year 10 2 month 2 10 1 day".
#
# **Predict** the pattern for "the 26th of May 1979". Which rows will be sharp, which blurred? And what will the two
# hyphens look at?

# %%
meaning = dict(zip("〇零一二三四五六七八九十年月日 ", [*"00123456789", "10", "year", "month", "day", "␣"],
                   strict=True))

def look_at(source):
    answer = writes(translator, [source], words, signs)
    (x, length), (y, _) = words.encode([source]), signs.encode(answer, ends=True)
    return answer[0], translator.weights(x, length, y[:, :-1])[0].detach()

# %%
from attnlib.lab.plots import heatmap

def alignment(source, ax):
    answer, weights = look_at(source)
    heatmap(weights, ax=ax, colorbar=False)
    ax.set_xticks(range(len(source)), [meaning.get(c, c) for c in source])
    ax.set_yticks(range(len(answer) + 1), [*answer, "end"])
    ax.tick_params(axis="x", rotation=90 if "年" in source else 0, labelsize="small")

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), width_ratios=[1.4, 1])
alignment("the 26th of May 1979", axes[0])
alignment("二〇四一年十二月二十一日", axes[1])
axes[0].set(xlabel="looks at", ylabel="writes")
show(fig, alt="Two maps of weights. Left, an English date: the first four rows are bright at the "
     "year on the far right, the last at the day on the left. Right, in Chinese, a diagonal.")

# %% [markdown]
# **What to see.** In English the order flips: the rows of the year are bright at the far right, that of the month's
# second digit in the middle on "May", those of the day back at "26". In Chinese, which writes the year first as the
# answer does, the bright cells go down a diagonal that jumps over the character for the year. Nobody told the network
# which characters belong to which; it found **alignments** because they help to write the next character.
#
# How sharp a row is goes with what has to be read. The year's last two digits are sharp. Its first two are 19 or 20
# in all of these dates, so that each tells the other, and their rows share two characters. Blurred are the month's
# first digit, which only says whether the month is one of the last three, and the hyphens, for which nothing has to
# be read. The last digit in Chinese looks behind its 1 too, at the character for day: the annotation there has just
# read the 1.

# %%
(_, of_english), (_, of_chinese) = map(look_at, ("the 26th of May 1979", "二〇四一年十二月二十一日"))
assert of_english[6, 12:15].sum() > 0.4  # the month's second digit on "May"
assert of_english[[8, 9], [4, 5]].min() > 0.4  # the day's on 2 and 6
assert of_english[[4, 5, 7]].max() < 0.6 < of_english[[2, 3]].amax(1).min()  # blurred, sharp
assert of_chinese[9, 10:].sum() > 0.6  # the last digit on 1 and "day"
assert of_chinese[[3, 5], 4].max() < 0.2  # before and behind the jump over "year"
assert {t[:2] for _, t in pairs + new} == {"19", "20"}

# %% [markdown]
# Is that a lucky example? We ask 300 new English dates, in four styles, and sort the characters of each source into
# year, month, day and the rest.

# %%
from attnlib.lab.grammar import MONTHS

def places(source, target):
    names = {"year": target[:4], "month": MONTHS[int(target[5:7]) - 1], "day": str(int(target[8:]))}
    mask = torch.zeros(4, len(source))
    for row, name in enumerate(names.values()):
        mask[row, source.index(name) : source.index(name) + len(name)] = 1
    mask[3] = 1 - mask[:3].sum(0)
    return mask

# %%
english = date_pairs(300, seed=1001, split="test", languages=["english"])
(x, lengths), (y, _) = words.encode([s for s, _ in english]), signs.encode([t for _, t in english])
begin_and = torch.cat([torch.ones(300, 1).long(), y], 1)
with torch.no_grad():
    seen = translator.weights(x, lengths, begin_and)  # (300, 11, m)
masks = [places(s, t) for s, t in english]
to_part = torch.stack([w[:, : m.shape[1]] @ m.T for w, m in zip(seen, masks, strict=True)])

# %%
ax = plt.subplots(figsize=(4.2, 3.3))[1]
heatmap(to_part.mean(0), ax=ax, numbers=True, label="weight, mean of 300 dates")
ax.set_xticks(range(4), ["year", "month", "day", "the rest"])
ax.set_yticks(range(11), [*"YYYY-MM-DD", "end"])
ax.set(xlabel="looks at", ylabel="writes")
show(ax.figure, alt="Mean weights of eleven steps on four parts of a source. The year's digits "
     "look at the year, the month's at its name, the day's at the day; hyphens and end are mixed.")

# %%
first = torch.tensor([s.index(t[:4]) for s, t in english])[:, None]
top = seen[:, :4].argmax(-1)
on_year = ((top >= first) & (top < first + 4)).double().mean().item()
print("largest weight on the year, of the steps that write it: more than 97%:", on_year > 0.97)
same_digit = (top == first + torch.arange(4)).double().mean().item()
parts, largest = to_part.mean(0), seen.amax(-1).mean(0)
assert on_year > 0.97 > 0.95 > same_digit and parts[:4, 0].min() > 0.8
assert largest[2:4].min() > 0.75 > 0.5 > largest[[4, 7]].max()  # the year's last digits, hyphens

# %% [markdown]
# **What to see.** The four steps of the year give it nearly all of their weight, and in more than 97% of the cases
# the largest weight lies on one of its four characters. In fewer than 95% it lies on the very digit that is written:
# 1 and 9 tell each other, as said, and by (4.1) an annotation holds its neighbours too, so the place beside a digit
# can know it as well. That is a warning for reading such pictures: a weight says where the annotation stood, not
# which character was used. (Part 9 has a network for which one in seven of these weights falls beside the year, and
# which makes no mistake.)
#
# Other dates, if the kernel runs:

# %%
def explore(source):
    ax = plt.subplots(figsize=(6, 3))[1]
    alignment(source, ax)
    show(ax.figure, alt=f"The weights of all steps that translate {source}.")

explore("Sunday, 22 March 1987")

# %% tags=["nbval-ignore-output"]
from ipywidgets import interact

more = ["November 22, 2041", "the 4th of July 1987", "1987年11月13日", "一九八七年十月十七日"]
interact(explore, source=["Sunday, 22 March 1987", *more]);

# %% [markdown]
# ## 7 · Where sources differ · *Depth*
#
# | what | Bahdanau | Luong | other sources | here |
# |---|---|---|---|---|
# | who looks | the previous state, $s_{i-1}$ | the present state, $s_i$ | "Luong" with the previous state: a hybrid | by `attention=` |
# | the context | enters the step | joins behind it | both | as in the two papers |
# | encoder | both directions | forward | | both directions |
# | biases of the score | none | none | `nn.Linear` has one unless told otherwise | none |
# | readout | a maxout layer that sees $y_{i-1}$ too | (4.7) | | (4.7) for all |
# | input feeding | – | $r_{i-1}$ enters the next step | | left out; exercise 04.5 |
# | the name "additive" | (4.3) | | `keras` leaves $W_a$ and $U_a$ out | (4.3) |
#
# **The previous state or the present one.** The two differ in whether the token written last has been heard by the
# state that looks. In code it is the order of two lines:
#
# ```python
# c = context(s, H); s = gru(cat(y, c), s)  # Bahdanau: look, then step
# s = gru(y, s);     c = context(s, H)      # Luong: step, then look
# c = context(s, H); s = gru(y, s)          # a hybrid
# ```
#
# "Luong" code that attends with the previous state is a hybrid: Luong's step with Bahdanau's look. In it the context
# is one token behind, and the readout joins it to a newer state. **Predict:** we change the *second* token that the
# decoder is told, `y[1]`. In which row do the weights change first, in each order?

# %%
def first_row_that_moves(kind):
    model = build(words, signs, kind).double()
    x, length = words.encode(["3 May 1979"])
    told = torch.tensor([[1, 4, 7, 9, 5]])
    other = torch.tensor([[1, 6, 7, 9, 5]])  # the second token, in row 1, is another one
    moves = model.weights(x, length, told) - model.weights(x, length, other)
    return (moves[0].abs().amax(1) > 0).nonzero()[0].item()

# %%
print({kind: f"row {first_row_that_moves(kind)}" for kind in ("additive", "concat")})
assert first_row_that_moves("additive") == 2  # Bahdanau: the state before has not heard it
assert first_row_that_moves("concat") == 1  # Luong: the same score, the present state

# %% [markdown]
# **Biases.** A bias beside $W_a$ changes the score; one behind $v_a$ is added to all scores alike, and the softmax
# does not see it (question 04.c). With $n = n' = 1000$ a tutorial's score with annotations of the width 1000 and
# biases everywhere has 2,003,001 parameters, Bahdanau's has 3,001,000:

# %%
from attnlib.lab.cost import count_parameters

k = 1000
with torch.device("meta"):  # counts without storing a number
    in_the_paper = count_parameters(AdditiveScore(k, 2 * k, k))
    in_tutorials = sum(map(count_parameters, (nn.Linear(k, k), nn.Linear(k, k), nn.Linear(k, 1))))
assert in_the_paper == k * k + 2 * k * k + k == 3_001_000
assert in_tutorials == 2 * (k * k + k) + k + 1 == 2_003_001

# %% [markdown]
# **A library that says additive.** `keras.layers.AdditiveAttention` computes $\sum_f g_f \tanh(q_f + k_f)$, with one
# learnt factor $g_f$ a feature and no matrix. That is (4.3) with $W_a$ and $U_a$ set to the identity: queries and
# keys must come with the same width, and whoever wants Bahdanau's score puts a linear layer in front of each.

# %%
plain = AdditiveScore(6, 6, 6).double()
plain.W.weight.data, plain.U.weight.data = torch.eye(6).double(), torch.eye(6).double()
queries, keys = torch.randn(3, 6).double(), torch.randn(5, 6).double()
g = plain.v.weight[0]
without_matrices = (g * torch.tanh(queries[:, None] + keys)).sum(-1)
assert torch.allclose(plain(queries, keys), without_matrices)
assert count_parameters(plain) - g.numel() == 2 * 36  # the two matrices that keras leaves out

# %% [markdown]
# ### A window in the place of the whole source
#
# For long sources Luong and others look only at a window. They predict its centre, a real number $p_i$ between 0 and
# $m$, from the state: $p_i = m \cdot \mathrm{sigmoid}(v_p^\top \tanh(W_p s_i))$, with $W_p$ of the size $n' \times
# n'$ and $v_p$ of $n'$ numbers. Places further away than $D$ get nothing. The softmax runs over the window, and
# *then* a Gaussian around $p_i$ multiplies it:
#
# $$a_{ij} = \mathrm{softmax}_{|k - p_i| \le D}\,(e_{ik})_j \;\cdot\; \exp\Big(-\frac{(j - p_i)^2}{2 \sigma^2}\Big),
# \qquad \sigma = \frac D2 \tag{4.12}$$
#
# They do not divide by the sum again, so the weights of a row sum to *less than one* (only a window that holds one
# place, with $p_i$ exactly on it, reaches one).
#
# ### Exercise 04.3 · the local window · *Depth* · 10 minutes
#
# Write (4.12) for one step. `scores` is (m), places count from 0, `p` is a real number, `D` a whole one. Return the
# weights, (m), with zeros outside the window.
#
# <details><summary>Hint 1</summary>
#
# `torch.arange(len(scores)) - p` is the signed distance of every place.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Outside the window the scores become $-\infty$ before the softmax, as with any mask.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `a = scores.masked_fill(distance.abs() > D, -torch.inf).softmax(0)`, then times `torch.exp(-distance**2 / (2 * (D /
# 2) ** 2))`.
#
# </details>

# %% tags=["exercise"]
def local_weights(scores, p, D):
    """scores (m), a real place p, half the window D -> weights (m)."""
    raise NotImplementedError

local_weights = check("04.3", local_weights)

# %% tags=["solution"]
def local_weights(scores, p, D):
    distance = torch.arange(len(scores)) - p
    a = scores.masked_fill(distance.abs() > D, -torch.inf).softmax(0)
    return a * torch.exp(-(distance**2) / (2 * (D / 2) ** 2))

# %%
from attnlib.sequence.recurrent import local_window

scores, centres = torch.randn(6, 12).double(), torch.tensor([0.3, 2, 4.5, 6, 8.9, 11]).double()
by_library = local_window(scores, centres, 3)
ours = torch.stack([local_weights(row, p, 3) for row, p in zip(scores, centres, strict=True)])
assert torch.allclose(ours, by_library)  # (4.12)
assert by_library.sum(1).max() < 1

# %% [markdown]
# How does $p$ learn? A place is in the window or not, and that does not change with a small step of $p$: **the
# window's border has no slope**. All of the gradient comes through the Gaussian. Its logarithm is $-(j -
# p)^2/(2\sigma^2)$, with the slope $(j - p)/\sigma^2$, so with $g_j = \partial L/\partial a_j$
#
# $$\frac{\partial L}{\partial p} = \sum_j g_j\, a_j\, \frac{j - p}{\sigma^2} \tag{4.13}$$
#
# Places that should have more weight pull $p$ towards themselves. But only those in the window: a place outside has
# $a_j = 0$ and cannot call.

# %%
p = torch.tensor([4.3]).double().requires_grad_()
a_local, g = local_window(scores[:1], p, 3)[0], torch.randn(12).double()
(slope,) = torch.autograd.grad(a_local, p, g)
j, sigma = torch.arange(12), 3 / 2
assert torch.allclose(slope, (g * a_local * (j - p) / sigma**2).sum())  # (4.13)

# %%
ax = plt.subplots(figsize=(5.5, 2.4))[1]
for centre, color in ((3.0, "C0"), (5.5, "C1"), (11.0, "C2")):
    flat = local_window(torch.zeros(1, 12), torch.tensor([centre]), 3)[0]
    ax.plot(flat, "o-", color=color, label=f"p = {centre}: sum {flat.sum():.2f}")
    ax.axvline(centre, color=color, lw=1, ls=":")
ax.set(xlabel="place", ylabel="weight", ylim=(0, 0.3)), ax.legend(fontsize="small")
show(ax.figure, alt="Weights of three windows over equal scores: bells around 3, 5.5 and 11, the "
     "last one cut off by the end of the source and higher.")

# %% [markdown]
# **What to see.** With equal scores the weights are the bell itself, divided by the number of places in the window:
# seven around $p = 3$, six around 5.5, and four at the end, so that each of these has more. The sums in the legend
# lie far below one. A readout that is used to contexts of a certain size therefore gets smaller ones.

# %%
three = local_window(torch.zeros(3, 12), torch.tensor([3.0, 5.5, 11.0]), 3)
assert (three > 0).sum(1).tolist() == [7, 6, 4] and three.amax(1).argmax() == 2
assert 0.5 < three.sum(1).min() < three.sum(1).max() < 0.65

# %% [markdown]
# ## 8 · What it costs · *Depth*
#
# **Parameters.** The additive score has $W_a$, $U_a$ and $v_a$; general has one matrix, dot has nothing. The whole
# translator, with $V_x$ and $V_y$ tokens in the vocabularies and embeddings of $\epsilon$ numbers, has (a GRU with
# $d$ inputs and $k$ features has $3k(d + k + 2)$, (7.2) of the toolbox)
#
# $$\begin{aligned} P ={} & \underbrace{n'(n' + 2n + 1)}_{\text{score}} + \underbrace{(V_x + V_y)\,\epsilon}_{\text{embeddings}} +
# \underbrace{2 \cdot 3n(\epsilon + n + 2)}_{\text{encoder}} + \underbrace{(n + 1)n'}_{W_s \text{ and } b} \\
# & + \underbrace{3n'(\epsilon + 2n + n' + 2)}_{\text{decoder}} + \underbrace{(2n + n')n'}_{W_c} + \underbrace{n' V_y}_{W_y}
# \end{aligned} \tag{4.14}$$

# %%
V_x, V_y, eps, n, n_dec = len(words), len(signs), 16, 24, 48
of_score = n_dec * (n_dec + 2 * n + 1)
of_grus = 6 * n * (eps + n + 2) + 3 * n_dec * (eps + 2 * n + n_dec + 2)
of_rest = (V_x + V_y) * eps + (n + 1) * n_dec + (2 * n + n_dec) * n_dec + n_dec * V_y
assert count_parameters(translator) == of_score + of_grus + of_rest  # (4.14)
assert count_parameters(translator.score) == of_score == 4656

# %% [markdown]
# **Work.** $U_a h_j$ does not depend on the step. Computed once, it costs $2n\, n'$ multiply-accumulates for each
# place; computed at every step, $t$ times as many. With it the attention costs
#
# $$\mathrm{MACs} = \underbrace{m \cdot 2n\, n'}_{U_a H, \text{ once}} + t\,\big(\underbrace{n'^2}_{W_a s} +
# \underbrace{m\, n'}_{v_a \cdot} + \underbrace{m \cdot 2n}_{\text{context}}\big) \tag{4.15}$$
#
# and $t\,m\,n'$ hyperbolic tangents. Dot needs $t\,m\,(n' + 2n)$ and no tanh: for every pair the additive score holds
# $n'$ numbers where dot holds one. We count the difference between a translator with attention and the one without,
# whose products are otherwise the same:

# %%
from attnlib.lab.cost import count_macs

def macs(kind, m, t):
    model = build(words, signs, kind)
    x, y = torch.zeros(1, m, dtype=torch.long), torch.zeros(1, t, dtype=torch.long)
    return count_macs(model, x, torch.tensor([m]), y)

# %%
for m, t in ((20, 11), (9, 30)):
    attention = macs("additive", m, t) - macs(None, m, t)
    assert attention == m * 2 * n * n_dec + t * (n_dec**2 + m * n_dec + m * 2 * n)  # (4.15)
    wider_step = t * 3 * n_dec * 2 * n  # without a context the GRU has fewer inputs
    assert macs("dot", m, t) - macs(None, m, t) + wider_step == t * m * (n_dec + 2 * n)

# %% [markdown]
# **Against self-attention.** Per pair of places the work is of the same kind: (2.15) of notebook 02 has $n m (d +
# d_v)$ for $n$ queries and $m$ keys. The difference is *who must wait*. Self-attention computes all its tokens at
# once. A decoder in Bahdanau's order makes $t$ steps one behind the other, each with a few small products, even in
# training, where all tokens are known beforehand. We count how often the decoder is called:

# %%
def calls(kind, t):
    model, count = build(words, signs, kind), []
    model.decoder.register_forward_hook(lambda *_: count.append(1))
    x, length = words.encode(["3 May 1979"])
    model(x, length, torch.zeros(1, t, dtype=torch.long))
    return len(count)

assert [calls("additive", t) for t in (1, 10, 100)] == [1, 10, 100]
assert [calls("dot", t) for t in (1, 10, 100)] == [1, 1, 1]  # and a loop of t steps inside the GRU

# %% [markdown]
# So in Luong's order one call is enough, as said in part 4, but the GRU itself still goes through its $t$ steps. To
# be rid of *that* loop is the point of [05_transformer](05_transformer.ipynb), which measures the times.

# %% [markdown]
# ## 9 · Does it help? · *Core*
#
# **Where it should win by construction:** copying, where one vector must run full. **The control:** short strings,
# which went through the one vector already. Three seeds each were trained beforehand by
# `notebooks/runs/04_recurrent_attention.py`, with the recipe of part 2, on strings of 1 to 20 digits.
#
# A rule, before we look: **attention helps at a length if the worst seed with it copies more strings whole than the
# best seed without it.** All lengths are tested with 200 strings drawn anew, also some that are longer than any in
# training. (Of one or two digits there are so few that training has seen them; a long one is new.)
#
# **Predict** the curves: without attention, with the additive score, with dot. Does it go on beyond 20 digits?

# %%
from attnlib.lab.data import load_results
from attnlib.lab.plots import curves

copying = load_results("04_copying")
usual = copying[(copying["width"] == 24) & (copying["steps"] == 400)]

def by_length(rows):
    table = rows.pivot(index="seed", columns="length", values="whole")
    return list(table.columns), torch.tensor(table.to_numpy())

# %%
names = {"additive": "additive", "dot": "dot", "none": "one vector"}
lengths_tested, _ = by_length(usual[usual["attention"] == "none"])
lines = {name: by_length(usual[usual["attention"] == kind])[1] for kind, name in names.items()}
ax = curves(lines, x=lengths_tested, ax=plt.subplots(figsize=(5.5, 2.6))[1])
ax.axvline(20, color="black", ls=":", lw=1)
ax.set(xlabel="digits in the string", ylabel="copied without mistake", ylim=(-0.03, 1.05))
show(ax.figure, alt="Share of strings copied over their length, with bands over three seeds. One "
     "vector falls from 1 to 0 between 4 and 14 digits; with attention it stays high up to 20.")

# %%
best_without, helps = lines["one vector"].amax(0), {}
for kind in ("additive", "dot"):
    above = lines[kind].amin(0) > best_without
    helps[kind] = [m for m, yes in zip(lengths_tested, above, strict=True) if yes]
    print(f"{kind} helps at {helps[kind]} digits")
assert helps["additive"] == [6, 8, 10, 12, 14, 16, 18, 20, 24]
assert helps["dot"] == [*helps["additive"], 28]

# %%
by_additive, by_dot = lines["additive"], lines["dot"]
assert by_additive[:, :11].min() >= 0.99 and by_additive[:, 11].min() > 0.97  # 18 digits, and 20
assert best_without[8:].max() < 0.02  # 14 digits and more
assert 0.65 < by_dot[:, 11].min() < by_dot[:, 11].max() < 0.8  # 20 digits
assert max(by_additive[:, 12].max(), by_dot[:, 12].max()) < 0.5  # 24 digits
assert by_additive[:, 13].max() < 0.009 < by_dot[:, 13].min() < by_dot[:, 13].max() < 0.15  # 28

# %% [markdown]
# **What to see.** Up to four digits there is nothing to win: the control. From six digits on both scores help by our
# rule. One vector (green) has fallen to nothing at 14. The additive score (blue) copies nearly everything up to 20
# digits, with every seed; dot (orange) loses a quarter of those with 20. Beyond the dotted line, at lengths that
# never occurred in training, both fall. At 24 digits no seed of either copies half of the strings; at 28 the additive
# score copies next to none, and dot, which differs most from seed to seed, between one and fifteen in a hundred
# (enough for our rule, since one vector copies none). So attention opens the bottleneck up to the lengths of
# training, and does not teach the decoder to count further.

# %% [markdown]
# **More numbers, or more patience?** Perhaps one vector was only too small, or its network trained too briefly. Both
# were tried: twice the width ($2n = 96$), and four times as many steps. **Predict** how far the curve moves.

# %%
one_vector = copying[copying["attention"] == "none"]
trials = {f"{2 * w} numbers, {steps} steps": by_length(rows)[1]
          for (w, steps), rows in one_vector.groupby(["width", "steps"])}
ax = curves(trials, x=lengths_tested, ax=plt.subplots(figsize=(5.5, 2.6))[1])
ax.set(xlabel="digits in the string", ylabel="copied without mistake", ylim=(-0.03, 1.05))
show(ax.figure, alt="Three falling curves for decoders with one vector. Twice the width and four "
     "times the steps shift the fall to longer strings; all end at zero.")

# %%
def shares_at(length):
    return {name: line[:, lengths_tested.index(length)].mean() for name, line in trials.items()}

twelve = shares_at(12)
print({name: f"{share:.2f}" for name, share in twelve.items()})
assert twelve["48 numbers, 400 steps"] < 0.05 < 0.25 < twelve["96 numbers, 400 steps"] < 0.45
assert 0.45 < twelve["48 numbers, 1600 steps"] < 0.65
assert max(shares_at(20).values()) < 0.01

# %% [markdown]
# Both help: of strings with twelve digits, a few in a hundred become a third with twice the width and a half with
# four times as many steps. So the vector was not *full* at eight digits; it is also hard to learn how to use it. But
# at 20 digits all three are at zero, where the additive score gets nearly all with the same width and 400 steps. It
# keeps 48 numbers *a place*, so what it holds grows with the source. One vector can be made wider, and the source can
# always be made longer.

# %% [markdown]
# **Dates.** Here sources have 9 to 28 characters, and only ten signs have to be written. The same rule, for the whole
# answer, on 500 dates of the test:

# %%
from attnlib.lab.plots import by_seed

dates = load_results("04_dates")
order = ["additive", "dot", "general", "concat", "location", "none"]
shares = {kind: list(dates[dates["attention"] == kind]["whole"]) for kind in order}
ax = by_seed(shares, highlight="additive", ax=plt.subplots(figsize=(6.5, 2.8))[1])
ax.set(ylim=(0, 1.05), ylabel="dates without mistake")
show(ax.figure, alt="Shares of right dates, three seeds each: near one for additive, dot, general "
     "and concat, about 0.85 for location, a third for no attention.")

# %%
assert {len(t) for _, t in pairs} == {10} and {len(s) for s, _ in pairs} <= {*range(9, 29)}
least, most = ({kind: f(share) for kind, share in shares.items()} for f in (min, max))
assert min(least[kind] for kind in order[:4]) > 0.96
assert min(least[kind] for kind in order[:4]) > most["location"]
assert least["location"] > most["none"] and 0.75 < least["location"] < most["location"] < 0.9
assert 0.25 < least["none"] < most["none"] < 0.4

# %% [markdown]
# **What to see.** The four scores that compare a state with annotations get nearly every date right, and by our rule
# each of them helps; among the four this shows no difference worth a rule. Without attention it is about one date in
# three. In between lies *location*, which Luong and others tried too: its weights come from the state alone,
# $\mathrm{softmax}(W_a s_i)$, and never see an annotation. Part 10 comes back to it.
#
# And the warning of part 6: the column `on_year` of the table says how often the largest weight lies on the year
# while the year is written. Of all networks one seed of dot has the lowest share, and it gets all dates right.

# %%
aside = dates.sort_values("on_year").iloc[0]
assert aside["attention"] == "dot" and aside["whole"] == 1
assert round(1 / (1 - aside["on_year"])) == 7  # one in seven beside the year

# %% [markdown]
# The two networks that were trained above, in parts 2 and 6, have seed 0 and the recipe of the stored runs. So they
# must be near their rows:

# %%
row = dates[(dates["attention"] == "additive") & (dates["seed"] == 0)].iloc[0]
of_seed_0 = usual[(usual["attention"] == "none") & (usual["seed"] == 0)]
in_store = of_seed_0.set_index("length")["whole"]
apart = max(abs(share_copied(without, m) - in_store[m]) for m in (2, 8, 16))
near = apart < 0.15 and abs(exact - row["whole"]) < 0.03 and abs(on_year - row["on_year"]) < 0.05
print("both live runs are near their stored rows:", near)
assert near

# %% [markdown]
# ## 10 · Where it breaks · *Depth*
#
# **Take the weights away.** In our trained translator $v_a = 0$ makes all weights equal, by (4.11): the context is
# then the same plain mean at every step. Everything else stays. **Predict** how many dates survive.

# %%
from copy import deepcopy

flattened = deepcopy(translator)
flattened.score.v.weight.data.zero_()
by_mean = writes(flattened, sources, words, signs)
survive = sum(a == b for a, b in zip(by_mean, targets, strict=True))
print("dates right with equal weights, of 500: fewer than 25:", survive < 25)
assert survive < 25

# %% [markdown]
# **Forget the lengths.** Say that every source is as long as the longest of its batch. The backward encoder then
# begins in the padding, and the padding gets weight like any other place. Nothing raises an error. **Predict:** how
# many of 500 dates come out right, with the padding that the batch has anyway, and with 40 places more of it?

# %%
x, lengths = words.encode(sources)
right_dates = []
for extra in (0, 40):
    wider = torch.cat([x, torch.zeros(500, extra).long()], 1)
    for said in (lengths, torch.full((500,), wider.shape[1])):
        answers = signs.decode(translator.translate(wider, said, begin=1, end=2, limit=29))
        right_dates.append(sum(a == b for a, b in zip(answers, targets, strict=True)) / 500)

# %%
told, forgotten, told_wider, forgotten_wider = right_dates
print("with the lengths the same for any padding:", told == told_wider)
print("without them fewer, and fewer still with more padding:", forgotten_wider < forgotten < told)
assert told == told_wider > 0.97 and forgotten_wider < forgotten < told - 0.05

# %% [markdown]
# With the lengths told, padding changes nothing. Without them dates are lost. How many differs widely from one
# trained network to the next (try `build(..., seed=1)` in part 6); what they share is that the same date gets another
# answer in another company. It depends on the longest source that happens to be in its batch.
#
# ### Exercise 04.4 · bug gallery · *Depth* · 15 minutes
#
# For years a much-read tutorial on translation with attention computed its weights as below (it has been asked about,
# for instance in [pytorch/tutorials 87](https://github.com/pytorch/tutorials/issues/87) and
# [1098](https://github.com/pytorch/tutorials/issues/1098); today's version is another). `y` is the embedding of the
# last token, ($\epsilon$); `s` the state, ($n'$); `H` the annotations, ($m$, $2n$); and `A` has ten rows, for sources
# of ten tokens at most.
#
# ```python
# def context(y, s, H, A):
#     a = (A @ torch.cat([y, s])).softmax(0)
#     return a[: len(H)] @ H
# ```
#
# It cites Bahdanau, but no annotation has a say in its own weight: with the same $y$ and $s$ any other annotations
# would get the same weights. And a shorter source gets weights that do not sum to one. Mend it. Keep what asks, `y`
# and `s` on top of each other, and let every annotation answer by the additive score: `W` is ($n'$, $\epsilon + n'$),
# `U` is ($n'$, $2n$), `v` is ($n'$). Return the context, ($2n$).
#
# <details><summary>Hint 1</summary>
#
# It is (4.3) with $[y; s]$ in the place of $s_{i-1}$.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `W @ torch.cat([y, s])` is one vector ($n'$); `H @ U.T` has a row for each place. Their sum is ($m$, $n'$).
#
# </details>
# <details><summary>Hint 3</summary>
#
# `e = torch.tanh(W @ torch.cat([y, s]) + H @ U.T) @ v`, then a softmax over the places, then `@ H`.
#
# </details>

# %% tags=["exercise"]
def mended(y, s, H, W, U, v):
    """y (eps), s (n'), H (m, 2n), W (n', eps + n'), U (n', 2n), v (n') -> context (2n)."""
    raise NotImplementedError

mended = check("04.4", mended)

# %% tags=["solution"]
def mended(y, s, H, W, U, v):
    e = torch.tanh(W @ torch.cat([y, s]) + H @ U.T) @ v
    return e.softmax(0) @ H

# %% [markdown]
# What it does can be told from outside. Weights that look at the annotations go with them: the same annotations in
# another order give the same context, since each takes its weight along. Weights of *places* stay where they are.

# %%
y, s, H, A = (torch.randn(k).double() for k in [3, 4, (6, 8), (10, 7)])
W, U, v = (torch.randn(k).double() for k in [(4, 7), (4, 8), 4])
blind = lambda H: (A @ torch.cat([y, s])).softmax(0)[: len(H)] @ H
turned = H[[5, 3, 0, 1, 4, 2]]
assert torch.allclose(mended(y, s, turned, W, U, v), mended(y, s, H, W, U, v))
assert not torch.allclose(blind(turned), blind(H), atol=1e-3)

# %% [markdown]
# A blind decoder is not lost altogether. It is a relative of the *location* score of part 9: $s_0$ comes from the
# encoder and can know in which style a date is written, and so at which place the year begins. On dates it got most
# answers right, fewer than any score that looks. On strings to be copied it has only to count:

# %%
_, by_location = by_length(usual[usual["attention"] == "location"])
at_length = dict(zip(lengths_tested, by_location.T, strict=True))
print("location copies all strings of 20 digits:", at_length[20].min().item() == 1)
print("and not one of 24:", at_length[24].max().item() == 0)
assert by_location[:, :12].min() == 1 and lengths_tested[11] == 20 and at_length[24].max() == 0

# %% [markdown]
# Better than dot, up to the last length that it was trained on, and nothing at all beyond: for it place 21 is a row
# of a matrix that never learnt. **A game that is won *with* attention need not need attention that looks.** Copying
# shows the bottleneck; it cannot show that a decoder compares anything. The dates can, because their order changes.

# %% [markdown]
# ## 11 · Claims · *Depth*
#
# **NAM-1** "NAM is a neural attention mechanism: a recurrent network that weighs all steps of its input at every
# step." **Misnamed.** What is described is Bahdanau's additive attention: built in part 4, trained and drawn in part
# 6. NAM is the normalisation-based attention of Liu and others
# ([12_normalization_attention](12_normalization_attention.ipynb)): a gate on the channels of a picture's feature map.
# It has neither a recurrent network nor steps.

# %%
# claim NAM-1: MISNAMED
from attnlib import NormalizationAttention

recurrent = lambda module: any(isinstance(part, nn.RNNBase) for part in module.modules())
nam = NormalizationAttention(8)
assert recurrent(translator) and not recurrent(nam)
assert (seen[0, :, : len(english[0][0])] > 0).all()  # every step weighs all of the source
assert nam.weights(torch.randn(2, 8, 5, 5)).shape[:2] == (2, 8)  # NAM: channels

# %% [markdown]
# **NAM-8** "A plain recurrent network looks only at its present input." **False.** That is what the state is for. Its
# slope with respect to an input $k$ steps ago, $\partial h_T/\partial x_{T-k}$, is by the chain rule a product of $k
# + 1$ matrices: $k$ slopes of a state by the state before it, and one of a state by its input. It is not zero. What
# is true is that it *fades*. **Predict** for a plain network (`nn.RNN`, tanh) and a GRU, fresh and with 16 features:
# by what factor is the slope smaller 20 steps ago?

# %%
def slopes_by_age(kind, seed):
    torch.manual_seed(seed)
    net = kind(4, 16, batch_first=True).double()
    x = torch.randn(1, 31, 4).double().requires_grad_()
    rows = [torch.autograd.grad(f, x, retain_graph=True)[0][0] for f in net(x)[1][0, 0]]
    return torch.stack(rows).norm(dim=(0, 2)).flip(0)  # (31): the size for each age

# %%
fading = {kind.__name__: torch.stack([slopes_by_age(kind, seed) for seed in range(3)])
          for kind in (nn.RNN, nn.GRU)}
ax = curves(fading, ax=plt.subplots(figsize=(5.5, 2.5))[1])
ax.set(yscale="log", xlabel="steps ago", ylabel="size of the slope")
show(ax.figure, alt="The size of the slope of the last state with respect to earlier inputs, on a "
     "logarithmic axis: two straight falling lines over six to eight powers of ten.")

# %%
# claim NAM-8: FALSE
for sizes_by_age in fading.values():
    assert sizes_by_age.min() > 0  # every earlier input has an influence
    assert (sizes_by_age[:, 20] < 1e-3 * sizes_by_age[:, 0]).all()  # and it fades
    per_step = (sizes_by_age[:, [10, 20, 30]] / sizes_by_age[:, [0, 10, 20]]) ** 0.1
    assert 0.4 < per_step.min() < per_step.max() < 0.7
print("the slope is nowhere zero, and below a thousandth after 20 steps")

# %% [markdown]
# **What to see.** Nearly straight lines on a logarithmic axis: on the average of ten steps each multiplies the slope
# by a factor between 0.4 and 0.7, early and late. None is zero. But after 20 steps less than a thousandth is left in
# a fresh network, and training has to find a way to keep what is needed (the toolbox's page on the GRU shows how its
# gate can). Attention has a path of *one* step to every annotation.

# %% [markdown]
# ## 12 · Exercises
#
# 04.1 stands in part 4, 04.2 in part 5, 04.3 in part 7 and 04.4 in part 10. Here is one that asks for something new.
#
# ### Exercise 04.5 · input feeding · *Depth* · 15 minutes
#
# In (4.7) the decoder forgets what it has looked at: no context enters a state. Luong and others therefore feed the
# readout of the step before into the next one: $E y_{i-1}$ and $r_{i-1}$ on top of each other are the step's input.
# Write one such step, with a plain tanh network in the place of the GRU and with dot scores ($n' = 2n$):
#
# $$s_i = \tanh\Big(W_x \begin{pmatrix} E y_{i-1} \\ r_{i-1} \end{pmatrix} + W_h s_{i-1}\Big), \qquad
# c_i = \sum_j \mathrm{softmax}(H s_i)_j\, h_j, \qquad r_i = \tanh\Big(W_c \begin{pmatrix} c_i \\ s_i \end{pmatrix}\Big)$$
#
# Return the pair $(s_i, r_i)$.
#
# <details><summary>Hint 1</summary>
#
# Three lines, in the order of the formulas. The *new* state looks.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.cat([y, r])` puts two vectors on top of each other. `H @ s` has one score for each place.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `c = (H @ s).softmax(0) @ H`, and in the readout the context comes first.
#
# </details>

# %% tags=["exercise"]
def fed_step(y, r, s, H, W_x, W_h, W_c):
    """y (eps), r (n'), s (n'), H (m, n'), W_x (n', eps + n'), W_h (n', n'), W_c (n', 2n')."""
    raise NotImplementedError

fed_step = check("04.5", fed_step)

# %% tags=["solution"]
def fed_step(y, r, s, H, W_x, W_h, W_c):
    s = torch.tanh(W_x @ torch.cat([y, r]) + W_h @ s)
    c = (H @ s).softmax(0) @ H
    return s, torch.tanh(W_c @ torch.cat([c, s]))

# %% [markdown]
# With it, what was looked at reaches the next state, and the attention of all steps can no longer be computed at
# once: Luong's order has given up its advantage for a memory of where it has been.

# %%
H = torch.randn(5, 4).double().requires_grad_()
y, s, r = torch.randn(3).double(), torch.randn(4).double(), torch.zeros(4).double()
W_x, W_h, W_c = (torch.randn(k).double() for k in [(4, 7), (4, 4), (4, 8)])
s_1, r_1 = fed_step(y, r, s, H, W_x, W_h, W_c)
s_2, _ = fed_step(y, r_1, s_1, H, W_x, W_h, W_c)
assert not s_1.requires_grad  # the first state has not seen the source's annotations
assert torch.autograd.grad(s_2.sum(), H)[0].abs().min() > 0  # the second has, through r_1

# %% [markdown]
# ## 13 · Summary
#
# | step | equation | here | in the papers |
# |---|---|---|---|
# | annotate | $h_j = [\overrightarrow h_j; \overleftarrow h_j]$ | (4.1) | Bahdanau, section 3.2 |
# | score | $e_{ij} = v_a^\top \tanh(W_a s_{i-1} + U_a h_j)$ | (4.3) | Bahdanau, appendix A.1.2 |
# | weigh, average | $a_i = \mathrm{softmax}(e_i)$, $c_i = \sum_j a_{ij} h_j$ | (4.4) | Bahdanau's $\alpha_{ij}$ |
# | look, then step | $s_i = \mathrm{GRU}([E y_{i-1}; c_i], s_{i-1})$ | (4.6) | Bahdanau |
# | step, then look | $s_i = \mathrm{GRU}(E y_{i-1}, s_{i-1})$, weights of $s_i$ | (4.7) | Luong's $h_t$, section 3 |
# | concat is additive | $(W \mid U)[s; h] = Ws + Uh$ | (4.8) | – |
# | backward | $\partial L/\partial z = G\, v_a \circ (1 - T \circ T)$ | (4.9), (4.10) | – |
# | window | softmax in the window, times a Gaussian | (4.12), (4.13) | Luong, section 3.2, places from 0 here |
# | price | $m \cdot 2n\,n' + t\,(n'^2 + m\,n' + m \cdot 2n)$ | (4.15) | – |
#
# - One vector for a whole source is a bottleneck. Made wider, or trained longer, it lets more through, and never
#   enough for any length. Attention keeps all annotations and chooses anew at every step.
# - What is learnt stops at the lengths that were trained on, with attention too.
# - The additive score compares by the bend of its tanh. Without it the state has no say.
# - The weights form alignments that nobody taught, also where the order flips. They say where the network looked,
#   which need not be exactly where the information stands.
# - Bahdanau looks with the previous state and feeds the context into the step; Luong steps first. In his order no
#   state waits for a context, so all steps can look at once.
# - Luong's local weights sum to less than one, and their centre learns through the Gaussian alone.
# - "Attention" whose weights never see the annotations was published and copied; it can only learn places.
#
# **Sources.** Bahdanau, Cho, Bengio, arXiv 1409.0473; Luong, Pham, Manning, arXiv 1508.04025; Cho and others, arXiv
# 1406.1078 (GRU; one vector for the source); issues 87 and 1098 of pytorch/tutorials; the source of
# `keras.layers.AdditiveAttention`.
#
# **Back:** [03_multi_head_and_positions](03_multi_head_and_positions.ipynb) · **Next:**
# [05_transformer](05_transformer.ipynb), which drops the recurrent network and keeps the attention. The map of the
# course is in [00_start_here](00_start_here.ipynb).
