# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the measures are
#
# ```{admonition} In one paragraph
# :class: tip
# Two networks of different {term}`seed` were trained on the same task: {term}`CKA` of their {term}`activations <activation>`
# is {glue:text}`cka-xy`, {term}`dCKA` {glue:text}`dcka-psd`, and {term}`wCKA`, which looks at weights, {glue:text}`wcka-ab`.
# wCKA is the CKA of the two networks without their nonlinearities on white noise; with nonlinearities their CKA there is
# {glue:text}`noise-real`. Rescaling hidden units changes no prediction; it takes CKA of a network with itself to
# {glue:text}`rescaled-cka`, and wCKA to {glue:text}`rescaled-wcka`. One added {term}`dead unit` changes no prediction
# either; with outgoing weights ten times as large as the others it takes wCKA of a network with itself to
# {glue:text}`dead-ten`. {glue:text}`take-claims`
# ```
#
# Two networks were trained on the same task. How similar are they? This chapter defines the four
# measures that the paper compares (its sections 1 and 2.1 to 2.3): {term}`Procrustes`, CKA and dCKA compare
# activations, wCKA compares weights. Every definition is computed twice, by
# two independent formulas, on networks trained on real digits.
#
# After this chapter you can
#
# - write down each measure, and say which of its conventions matter;
# - say which changes of a network a measure does not notice, and check it;
# - say what wCKA is: the CKA of the same network without its nonlinearities, probed with noise;
# - name the changes that leave a network's function alone and still move wCKA.

# %% tags=["hide-input"]
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.linalg
import torch
from myst_nb import glue
from torch import nn

import wcka
from wcka.book import claims, distinct, figures, rules, say, sentences, within
from wcka.book.rules import fact
from wcka.experiments import trained
from wcka.measures import (
    INVARIANCES,
    MEASURE_LABELS,
    PAPER_MEASURES,
    definitions,
)
from wcka.networks import architectures, counterexamples, image_sets
from wcka.weights import linear_layers, symmetry

figures.style()


# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 01 -p epochs 20`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
hidden: list[int] = [32, 32, 32, 32]  # widths of the hidden layers
epochs: int = 5  # passes through the training images
batch_size: int = 128  # images in one step of training
probes: int = 500  # test images that the activations are taken on
seed: int = 0  # of the first network; the second has the next one

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
distinct(classes=(classes, 2))
within(
    hidden=(hidden, 1, 10000),
    epochs=(epochs, 1, 1000),
    batch_size=(batch_size, 1, 60000),
    probes=(probes, 10, 10000),
    seed=(seed, 0, 2**31),
)

# %% [markdown]
# ## Two networks
#
# Everything below is shown on two fully connected ReLU networks that differ in the seed of their
# initialisation only. Layers act on row vectors, $x \mapsto xW + b$, so a weight matrix is
# inputs by outputs, as in the paper.

# %%
architecture = {
    "factory": "mlp",
    "widths": [784, *hidden, len(classes)],
    "activation": "relu",
}
population = trained(architecture, [seed, seed + 1], dataset, classes, epochs,
                     batch_size=batch_size)
images, labels = image_sets.load(dataset, "test", classes)
accuracy = population.accuracy(image_sets.as_inputs(images), labels)

a = population.member(0).double()
b = population.member(1).double()
inputs = image_sets.as_inputs(images[:probes]).double()
with torch.no_grad():
    x = a[:-1](inputs).numpy()  # last hidden layer: (probes, units)
    y = b[:-1](inputs).numpy()
p = inputs.numpy()  # (probes, pixels)

# %% tags=["remove-cell"]
accuracy_low = sentences.bound(100 * accuracy.min(), ".1f", lower=True)
glue("accuracy-low", accuracy_low, display=False)
glue("shape-x", f"{x.shape[0]} × {x.shape[1]}", display=False)
assert x.shape == (min(probes, len(images)), hidden[-1])

# %% [markdown]
# Both get at least {glue:text}`accuracy-low` % of the test images right. `x` and `y` are their
# activations in the last hidden layer, {glue:text}`shape-x`: **rows are shared** (the same images, the
# {term}`probes <probe>`), columns need not correspond. The measures below need nothing else.
#
# ## CKA
#
# Centred kernel alignment {cite}`kornblith2019` is the cosine between two Gram matrices, the
# {term}`kernels <kernel>` $K = XX^\top$ and $L = YY^\top$, after {term}`centring`. With the Hilbert-Schmidt independence
# criterion ({term}`HSIC`) {cite}`gretton2005` $S$ and $H = I - \tfrac1n \mathbf 1\mathbf 1^\top$,
#
# $$
# C(K, L) = \frac{S(K, L)}{\sqrt{S(K, K)\, S(L, L)}}, \qquad
# S(K, L) = \frac{1}{(n-1)^2} \tr(KHLH),
# $$ (eq-cka)
#
# and for linear kernels of centred features the same number is
#
# $$
# C(X, Y) = \frac{\norm{Y^\top X}_F^2}{\norm{X^\top X}_F\, \norm{Y^\top Y}_F}.
# $$ (eq-linear-cka)
#
# `definitions.cka` is {eq}`eq-cka` in three lines of NumPy, with kernels; `wcka.cka` computes
# {eq}`eq-linear-cka`. Tests compare each measure of the module with such a definition: see
# {doc}`../book/api/measures`.

# %%
print(f"by kernels {definitions.cka(x, y):.12f}, "
      f"by features {wcka.cka(x, y):.12f}")
assert np.isclose(definitions.cka(x, y), wcka.cka(x, y), rtol=0, atol=1e-12)

# %% [markdown]
# The two agree to twelve digits. The criterion in {eq}`eq-cka` is the **biased** estimator: its value for two
# independent {term}`representations <representation>` is above zero, and grows as the number of probes falls. With 20
# probes and 32 units, independent Gaussian features score {glue:text}`bias-20`; with 3,000 probes,
# {glue:text}`bias-3000`. We keep the paper's biased form everywhere.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the CKA of unrelated features by the number of probes"}
rng = np.random.default_rng(seed)
bias = {}
for n in (20, 100, 500, 3000):
    similarities = []
    for _ in range(20):
        u = rng.standard_normal((n, 32))
        v = rng.standard_normal((n, 32))
        similarities.append(wcka.cka(u, v))
    bias[n] = np.mean(similarities)
bias_table = pd.Series(bias, name="CKA of unrelated features").to_frame()
bias_table.rename_axis("probes").style.format("{:.3f}")

# %% tags=["remove-cell"]
say("bias-20", bias[20], ".2f")
say("bias-3000", bias[3000])

# %% [markdown]
# ## Procrustes
#
# Centre both matrices, divide them by their Frobenius norms, and rotate one onto the other as closely as possible. What
# remains is the paper's distance,
#
# $$
# d(X, Y) = \norm{X}_F^2 + \norm{Y}_F^2 - 2\norm{X^\top Y}_* = 2 - 2s, \qquad
# s = \norm{X^\top Y}_* ,
# $$ (eq-procrustes)
#
# with the nuclear norm $\norm{\cdot}_*$, the sum of singular values. The paper writes $d$ without
# saying that features are centred and scaled first; without that step it depends on their scale, so we
# assume it. All measures in this book are similarities, so `procrustes` is
# $s$, from 0 to 1. The second formula is SciPy's search for the optimal rotation:

# %%
def prepared(z):
    """Centred features of unit Frobenius norm."""
    z = z - z.mean(0)
    return z / np.linalg.norm(z)


rotation, s = scipy.linalg.orthogonal_procrustes(prepared(x), prepared(y))
residual = np.linalg.norm(prepared(x) @ rotation - prepared(y)) ** 2
print(f"similarity {wcka.procrustes(x, y):.12f}, by SciPy {s:.12f}, "
      f"and 1 - d/2 = {1 - residual / 2:.12f}")
assert np.isclose(wcka.procrustes(x, y), s, rtol=0, atol=1e-12)
assert np.isclose(1 - residual / 2, s, rtol=0, atol=1e-12)

# %% [markdown]
# Public code reports at least six different numbers under the name Procrustes. For our two networks:

# %%
u = x / np.linalg.norm(x)  # not centred
v = y / np.linalg.norm(y)
s_uncentred = np.linalg.norm(u.T @ v, "nuc")
pd.DataFrame([
    ("similarity, as here", "s", s),
    ("squared distance, as in the paper", "2 − 2s", 2 - 2 * s),
    ("distance", "√(2 − 2s)", np.sqrt(2 - 2 * s)),
    ("angular distance", "arccos s", np.arccos(s)),
    ("one minus similarity", "1 − s", 1 - s),
    ("similarity without centring", "‖X′Y‖∗", s_uncentred),
], columns=["called", "formula", "value"]).style.format(
    {"value": "{:.4f}"}).hide()

# %% [markdown]
# The first five can be converted into each other. The last one cannot, since it depends on the mean of the
# activations.
#
# ## dCKA
#
# Networks that see the same images are similar partly because the images are. Deconfounded CKA
# {cite}`cui2022` subtracts from each Gram matrix the part that the inputs' own Gram matrix $K_0$
# explains by linear regression, drops the negative eigenvalues of what remains ($[\cdot]_+$, the {term}`PSD step`), and
# then applies CKA:
#
# $$
# C\big([K - \hat\alpha K_0]_+,\ [L - \hat\beta K_0]_+\big), \qquad
# \hat\alpha = \frac{\langle K_0, K\rangle}{\langle K_0, K_0\rangle}.
# $$ (eq-dcka)
#
# One convention is ours: features and inputs are **centred before the regression**. The paper
# regresses the Gram matrices as they are, without an intercept, and centres only in the final CKA.
# Both numbers are below; `definitions.dcka` is {eq}`eq-dcka` with matrices of probes by probes.

# %%
def regressed(k, k0):
    """What a Gram matrix's regression on that of the inputs leaves."""
    return k - np.vdot(k0, k) / np.vdot(k0, k0) * k0


def uncentred_features(x, p):
    """Factor of [K - alpha K0]_+ when the regression is not centred: (n, n)."""
    values, vectors = np.linalg.eigh(regressed(x @ x.T, p @ p.T))
    return vectors * np.sqrt(values.clip(0))


# By the definition, with and without the positive part.
with_psd = definitions.dcka(x, y, p)
without_psd = definitions.dcka(x, y, p, psd=False)
# The partial correlation of x and y given the inputs i.
xy = wcka.cka(x, y)
xi = wcka.cka(x, p)
yi = wcka.cka(y, p)
partial = (xy - xi * yi) / np.sqrt((1 - xi**2) * (1 - yi**2))
uncentred = definitions.cka(uncentred_features(x, p), uncentred_features(y, p))

dcka = wcka.dcka(x, y, p)
print(f"with the positive part    {with_psd:.12f} = {dcka:.12f}")
print(f"without it                {without_psd:.12f} = {partial:.12f}, "
      f"a partial correlation")
print(f"regression not centred    {uncentred:.12f}")
assert np.isclose(with_psd, dcka, rtol=0, atol=1e-12)
assert np.isclose(without_psd, partial, rtol=0, atol=1e-12)

# %% tags=["remove-cell"]
say("dcka-psd", with_psd)
say("dcka-partial", without_psd)
say("dcka-uncentred", uncentred)
say("cka-xy", xy)

# %% [markdown]
# The conventions are part of the measure. For this pair CKA is {glue:text}`cka-xy`; dCKA is
# {glue:text}`dcka-psd` as defined here, {glue:text}`dcka-partial` if negative eigenvalues are kept, and
# {glue:text}`dcka-uncentred` if the regression is not centred. Two positive semidefinite matrices never have a
# negative cosine, so **with the PSD step dCKA is never below zero**, and a mean of zero would need every pair to be
# exactly orthogonal. Without it dCKA is the partial correlation of CKAs given the inputs, and may
# be negative. We follow the paper's text and keep the step, with `psd=False` as an option; the
# [next chapter](02-calibration) has both.
#
# ## wCKA
#
# The product of a network's weight matrices is its {term}`chain` $\mathbf W = W_1 W_2 \cdots W_\ell$, inputs by
# outputs. Its kernel $\mathbf W \mathbf W^\top$ is the chain normalisation of
# {cite:t}`wang2022`, and wCKA is CKA on it:
#
# $$
# C_w(\mathbf W_a, \mathbf W_b) =
# \frac{\norm{\mathbf W_b^\top \mathbf W_a}_F^2}
# {\norm{\mathbf W_a^\top \mathbf W_a}_F\, \norm{\mathbf W_b^\top \mathbf W_b}_F},
# \qquad \mathbf W = W_1 W_2 \cdots W_\ell ,
# $$ (eq-wcka)
#
# with the chains' columns centred, as equation {eq}`eq-cka` demands. The shared rows are now
# **input coordinates** (pixels), and no image is needed. Biases and activation functions do
# not enter. (`wcka.chain(network, bias=True)` adds the biases as one more row.)

# %%
def chain_of(network):
    """Product of a network's weight matrices: (inputs, outputs)."""
    weights = []
    for layer in network:
        if isinstance(layer, nn.Linear):
            # PyTorch keeps (outputs, inputs).
            weights.append(layer.weight.detach().numpy().T)
    return np.linalg.multi_dot(weights)


chain_a = chain_of(a)
chain_b = chain_of(b)
by_definition = definitions.cka(chain_a, chain_b)
print(f"by kernels {by_definition:.12f}, by wcka {wcka.wcka(a, b):.12f}")
assert np.isclose(by_definition, wcka.wcka(a, b), rtol=0, atol=1e-12)

# %% [markdown]
# ### What it is: the same network without its nonlinearities, probed with noise
#
# Without its activation functions and biases a network is the linear map $x \mapsto x \mathbf W$, its
# {term}`linear skeleton`. Probe two such maps with white noise and compare their outputs by CKA: the noise's covariance is
# the identity, so only $\mathbf W_a^\top \mathbf W_b$ remains. The chain is centred over *pixels*, so the
# noise must have mean zero over pixels, too:
# wCKA does not see what a network does with overall brightness.

# %% mystnb={"figure": {"name": "fig-noise", "caption": "Networks probed with white noise. Without their nonlinearities their CKA settles on wCKA (dashed) as the probes grow; as they are, it settles at a level of its own. Bands span five draws of the noise."}, "image": {"alt": "Two lines of CKA against the number of noise probes on a logarithmic axis. The line for the linearised networks narrows onto the dashed level of wCKA; the line for the real networks settles at a level of its own."}}
def on_noise(n, draw, linear, centred=True):
    """CKA of the two networks' outputs on `n` noise images.

    The networks are as they are, or without nonlinearities (`linear`); each
    image has mean zero (`centred`), or is as drawn.
    """
    rng = np.random.default_rng([seed, draw])
    noise = rng.standard_normal((n, p.shape[1]))  # (images, pixels)
    if centred:
        noise -= noise.mean(1, keepdims=True)
    if linear:
        return wcka.cka(noise @ chain_a, noise @ chain_b)
    noise = torch.from_numpy(noise)
    with torch.no_grad():
        return wcka.cka(a(noise), b(noise))


sizes = np.geomspace(10, 10_000, 7).astype(int)
n_draws = 5
wcka_ab = wcka.wcka(a, b)
wcka_color = figures.MEASURE_COLORS["wcka"]
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.2))
settled = {}  # mean CKA on the most images
for kind, linear, color in (("without nonlinearities", True, wcka_color),
                            ("as they are", False, figures.QUIET)):
    values = np.zeros((len(sizes), n_draws))
    for i, n in enumerate(sizes):
        for draw in range(n_draws):
            values[i, draw] = on_noise(n, draw, linear)
    axes.fill_between(sizes, values.min(1), values.max(1), color=color,
                      alpha=0.2, lw=0)
    axes.plot(sizes, values.mean(1), color=color)
    settled[kind] = values[-1].mean()
    axes.text(sizes[-1], settled[kind] - 0.03, kind, color=color, ha="right",
              va="top")
axes.axhline(wcka_ab, color="black", ls="--", lw=1)
axes.text(sizes[-1], wcka_ab + 0.02, "wCKA", ha="right", va="bottom")
axes.set(xscale="log", xlabel="noise probes", ylabel="CKA of the outputs",
         ylim=(0, 1.02))
plt.show()

# %% tags=["remove-cell"]
# Equation 5 as printed, without centring.
not_centred = (np.linalg.norm(chain_b.T @ chain_a) ** 2
               / np.linalg.norm(chain_a.T @ chain_a)
               / np.linalg.norm(chain_b.T @ chain_b))
as_drawn = on_noise(sizes[-1], 0, linear=True, centred=False)
say("wcka-ab", wcka_ab)
say("noise-end", settled["without nonlinearities"])
say("noise-real", settled["as they are"])
say("noise-as-drawn", as_drawn)
say("not-centred", not_centred)
assert abs(settled["without nonlinearities"] - wcka_ab) < 0.02

# %% [markdown]
# wCKA of the two networks is {glue:text}`wcka-ab`; at 10,000 probes CKA of their skeletons is
# {glue:text}`noise-end`. (Noise with its mean over pixels gives
# {glue:text}`noise-as-drawn`: that is {eq}`eq-wcka` without centring, {glue:text}`not-centred`, which is
# how the paper prints its equation 5.)
# The networks as they are, with nonlinearities and biases, have a CKA of {glue:text}`noise-real` on the same noise:
# wCKA describes their skeletons, not the networks themselves.
# Whether the skeleton says enough about the network is the question of the later chapters.
#
# ## What may change without a measure noticing
#
# ### Shuffled and rescaled units
#
# Shuffle the units of every hidden layer, or multiply each ReLU unit by a positive number and divide
# the next layer's weights by that number. The weights change; the function and the chain do not.

# %% mystnb={"figure": {"name": "fig-weights", "caption": "One network, three ways to write it. Shuffling the hidden units or rescaling them makes other weight matrices (left two columns: the second and third layer) and the same chain (right: its columns as pictures, one per class). Each picture has its own scale; red is positive, blue negative."}, "image": {"alt": "A grid of pictures. Rows: the network as trained, its units permuted, its units rescaled. The two weight matrices look different in every row; the three chain pictures, blurred templates of the digits, are the same in all rows."}}
versions = {
    "as trained": a,
    "permuted": symmetry.permute(a, seed),
    "rescaled": symmetry.rescale(a, seed),
}
titles = ["layer 2", "layer 3"]
for label in classes:
    titles.append(f"chain, class {label}")
fig, panels = plt.subplots(3, len(titles), figsize=(figures.WIDTH, 4.6),
                           layout="constrained")
for row, (version, network) in zip(panels, versions.items()):
    (_, _), (second, _), (third, _), *_ = linear_layers(network)
    templates = wcka.chain(network).T.reshape(-1, 28, 28)  # one per class
    pictures = [second.weight.detach().T, third.weight.detach().T, *templates]
    for axes, picture in zip(row, pictures):
        limit = abs(picture).max()
        axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    row[0].set_ylabel(version)
for axes, title in zip(panels[0], titles):
    axes.set_title(title)
plt.show()

# %% [markdown]
# In {numref}`fig-weights` the pictures of the two layers differ between the rows, those of the chain do not: permuted units
# move it by {glue:text}`hidden-chain` of its size. And the measures? A network is compared with itself, rewritten; 1 means
# that the measure does not notice. Permutations move the
# four measures by at most {glue:text}`permuted-moved`. Rescaled units take CKA to {glue:text}`rescaled-cka` and Procrustes
# to {glue:text}`rescaled-procrustes`; wCKA is {glue:text}`rescaled-wcka`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the four measures of a network and its rewritten selves"}
def compare(network, changed_network, inputs=inputs):
    """The four measures of two networks, in their last hidden layer."""
    with torch.no_grad():
        x = network[:-1](inputs)
        y = changed_network[:-1](inputs)
    return {
        "procrustes": wcka.procrustes(x, y),
        "cka": wcka.cka(x, y),
        "dcka": wcka.dcka(x, y, inputs),
        "wcka": wcka.wcka(network, changed_network),
    }


def largest_change(network, changed_network):
    """Largest change of a logit over the probes, per largest logit."""
    with torch.no_grad():
        before = network(inputs)
        after = changed_network(inputs)
    return float((before - after).abs().max() / before.abs().max())


rewritten_rows = {}
for version in ("permuted", "rescaled"):
    network = versions[version]
    rewritten_rows[version] = {
        "logits move by": largest_change(a, network),
        **compare(a, network),
    }
rewritten_table = pd.DataFrame(rewritten_rows).T.rename(columns=MEASURE_LABELS)
rewritten_table.style.format("{:.6f}").format(
    "{:.0e}", subset="logits move by")

# %% tags=["remove-cell"]
permuted_row = rewritten_rows["permuted"]
rescaled_row = rewritten_rows["rescaled"]
permuted_movements = [abs(1 - permuted_row[m]) for m in PAPER_MEASURES]
permuted_moved = sentences.bound(max(permuted_movements), ".0e")
glue("permuted-moved", permuted_moved, display=False)
say("rescaled-cka", rescaled_row["cka"], ".2f")
say("rescaled-procrustes", rescaled_row["procrustes"], ".2f")
say("rescaled-wcka", rescaled_row["wcka"], ".6f")

# %% [markdown]
# Why is wCKA invariant to permutation? The paper's section 2.3 names two properties: the chain's
# invariance to permutation, and CKA's invariance to orthogonal transformations, of which permutations are some. But
# permuted hidden units cancel inside the product of the weights, so CKA sees the same matrix as before, and its
# invariance is not needed. That invariance concerns permuted *outputs*: they move the
# chain by {glue:text}`outputs-chain` of its size, and wCKA with itself is {glue:text}`outputs-wcka`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show what permuted hidden units and permuted outputs move"}
def relative_change(chain, changed_chain):
    """Norm of the difference of two chains, relative to the first."""
    difference = np.linalg.norm(changed_chain - chain)
    return difference / np.linalg.norm(chain)


hidden_moves_chain = relative_change(chain_a, chain_of(versions["permuted"]))
reversed_outputs = chain_a[:, ::-1]
outputs_move_chain = relative_change(chain_a, reversed_outputs)
wcka_of_reversed = wcka.wcka(chain_a, reversed_outputs)
pd.DataFrame({
    "hidden units": [hidden_moves_chain, wcka.wcka(a, versions["permuted"])],
    "outputs": [outputs_move_chain, wcka_of_reversed],
}, index=["chain moves by", "wCKA with itself"]).style.format("{:.2g}")

# %% tags=["remove-cell"]
say("hidden-chain", hidden_moves_chain, ".0e")
say("outputs-chain", outputs_move_chain, ".2f")
say("outputs-wcka", wcka_of_reversed, ".6f")

# %% [markdown]
# ### Activations that the outputs do not see
#
# CKA can also be moved without touching a weight {cite}`davari2023`. The logits read the last hidden
# layer in as many directions as there are classes. Move the activations of one class along a
# direction that the logits do not read, and every logit stays as it is. After a move by ten times the typical length of
# an activation, CKA of the activations with those before the move is {glue:text}`moved-ten`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the CKA by the distance of the move"}
last_weight = a[-1].weight.detach().numpy()  # (classes, units)
_, _, directions = np.linalg.svd(last_weight)  # (units, units)
unread = directions[-1]
if hidden[-1] <= len(classes):  # the logits read all directions
    unread = np.zeros(hidden[-1])
is_moved = labels[:probes] == classes[0]  # (probes,)
typical_length = np.linalg.norm(x - x.mean(0), axis=1).mean()
cka_by_distance = {}
for distance in (0, 1, 3, 10, 30):
    moved_x = x.copy()
    moved_x[is_moved] += distance * typical_length * unread
    change_of_logits = abs((moved_x - x) @ last_weight.T).max()
    assert change_of_logits < 1e-9 * abs(x @ last_weight.T).max()
    cka_by_distance[distance] = wcka.cka(x, moved_x)
moved_table = pd.Series(cka_by_distance, name="CKA with those before")
moved_table.rename_axis("distance").to_frame().style.format("{:.3f}")

# %% tags=["remove-cell"]
say("moved-ten", cka_by_distance[10], ".2f")

# %% [markdown]
# ### Intertwiners, activation by activation
#
# Which changes of weights pass through an activation function? {cite:t}`godfrey2022` call $A$ an
# {term}`intertwiner` of $\sigma$ when $\sigma(xA) = \sigma(x)\,\phi(A)$ for a matrix $\phi(A)$. Then
#
# $$
# W_i \to W_i A_i, \quad b_i \to b_i A_i, \quad W_{i+1} \to \phi(A_i)^{-1} W_{i+1}
# $$ (eq-intertwiner)
#
# does not change the function, and **the chain stays the same, for all weights, if and only if
# $\phi(A) = A$**. The paper proves it for identity, sigmoid, ReLU and LeakyReLU. The next cell applies
# a random element of each activation's group to every hidden layer of an untrained network, and
# compares the network with its rewritten self.

# %%
groups = {
    "identity": "any invertible matrix",
    "relu": "permutation × positive scale",
    "leaky_relu": "permutation × positive scale",
    "sigmoid": "permutation",
    "gelu": "permutation",
    "tanh": "permutation × sign",
    "gaussian": "permutation × sign, φ(A) = |A|",
    "square": "permutation × scale, φ(A) = A∘A",
}
intertwined_rows = {}
for activation, group in groups.items():
    torch.manual_seed(seed)
    network = architectures.mlp(architecture["widths"], activation).double()
    rewritten = symmetry.intertwine(network, seed)
    chain = wcka.chain(network)
    change = torch.linalg.norm(wcka.chain(rewritten) - chain)
    intertwined_rows[activation] = {
        "group": group,
        "logits move by": largest_change(network, rewritten),
        "chain moves by": float(change / torch.linalg.norm(chain)),
        **compare(network, rewritten),
    }
intertwined = pd.DataFrame(intertwined_rows).T
intertwined.rename(columns=MEASURE_LABELS).style.format(
    "{:.0e}", subset=["logits move by", "chain moves by"],
).format(
    "{:.3f}", subset=list(MEASURE_LABELS.values()),
)

# %% tags=["remove-cell"]
proven = ["identity", "sigmoid", "relu", "leaky_relu"]
assert (intertwined["logits move by"].astype(float) < 1e-6).all()
chain_movements = intertwined["chain moves by"].astype(float)
of_measures = intertwined[list(PAPER_MEASURES)].astype(float)
lowest_similarities = of_measures.min(axis=1)
survives = {
    "chain-survives": chain_movements < 1e-6,
    "all-survive": lowest_similarities > 1 - 1e-6,
}
for name, is_kept in survives.items():
    names = [activation.replace("_", " ") for activation in groups
             if is_kept[activation]]
    glue(name, ", ".join(names) or "no activation", display=False)
say("gaussian", intertwined.loc["gaussian", "wcka"], ".2f")
say("square", intertwined.loc["square", "wcka"], ".2f")

# %% [markdown]
# The functions are the same up to rounding in every row. The chain moves by less than a millionth for
# {glue:text}`chain-survives`; all four measures stay at 1, to a millionth, for
# {glue:text}`all-survive`. For Gaussian (radial basis) and polynomial
# activations $\phi(A) \ne A$, and wCKA of the same function written
# twice is {glue:text}`gaussian` and {glue:text}`square`. The paper does not claim invariance for these.
#
# ### All measures, all changes
#
# Each measure declares what it is invariant to (`wcka.measures.INVARIANCES`). The figure tests it: one of two networks
# is changed, and the largest movement of their similarity over five draws of the change is shown.

# %% mystnb={"figure": {"name": "fig-invariances", "caption": "How far each measure moves when the second of two trained networks is changed. Zero is invariant to rounding (below 1e-6). The first six are changes of basis of the last hidden layer, undone by the next; together with intertwiners and (on these images) silent weights they leave every prediction as it was. An output map changes the function. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with four rows, one per measure, and ten columns, one per change. wCKA is zero in all columns but output map and silent weights. The three activation measures are zero for permutation, rotation, scale, translation, output map and silent weights, and move under unit rescaling, invertible maps, intertwiners and other probes."}}
foggy_images = wcka.corrupt(images[:probes], "fog", seed)
foggy = image_sets.as_inputs(foggy_images).double()
all_inputs = image_sets.as_inputs(images).double()
n_draws = 5
before = pd.Series(compare(a, b))
movements = pd.DataFrame(
    0.0, index=before.index, columns=[*symmetry.TRANSFORMATIONS, "probes"])
for change, transform in symmetry.TRANSFORMATIONS.items():
    for draw in range(n_draws):
        changed_network = transform(b, all_inputs, seed + draw)
        after = pd.Series(compare(a, changed_network))
        movement = (after - before).abs()
        movements[change] = np.maximum(movements[change], movement)
foggy_similarities = pd.Series(compare(a, b, foggy))
movements["probes"] = (foggy_similarities - before).abs()

# Share of the pixels that are black in all images.
is_silent = ~all_inputs.any(0)  # (pixels,)
silent_share = float(is_silent.double().mean())
if not silent_share:  # there is nothing to redraw
    movements = movements.drop(columns="silent weights")

for measure in movements.index:
    for change in movements:
        is_invariant = movements.loc[measure, change] < 1e-6
        assert is_invariant == (change in INVARIANCES[measure])


def movement_text(movement):
    """Two digits, three where they are few; 0 for rounding alone."""
    if movement < 1e-6:
        return "0"
    if movement < 0.01:
        return f"{movement:.3f}"
    return f"{movement:.2f}"


text = movements.map(movement_text)
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.0))
figures.heat_map(axes, movements.rename(MEASURE_LABELS),
                 text.rename(MEASURE_LABELS), cmap="OrRd", vmin=0, vmax=0.6,
                 cbar=False)
axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
axes.axvline(6, color="black", lw=1)  # after the changes of basis
plt.show()

# %% tags=["remove-cell"]
silent_movement = 0.0
if silent_share:
    silent_movement = movements.loc["wcka", "silent weights"]
say("silent-share", 100 * silent_share, ".0f")
say("silent-moved", silent_movement)
say("output-moved", movements.loc["wcka", "output map"], ".2f")

# %% [markdown]
# wCKA's invariance concerns the *inside* of the network: any invertible linear map between two weight
# matrices that the second undoes cancels. The two ends are different: an
# invertible map of the outputs moves wCKA by {glue:text}`output-moved`, and no measure of a hidden
# layer. And {glue:text}`silent-share` % of the pixels are black in every test
# image. On these images their weights never affect a prediction; drawing them anew moves wCKA by
# {glue:text}`silent-moved`, and no measure of activations.
#
# ## Where the paper's claim needs care
#
# **Same function, other chain.** A network has more symmetries than intertwiners. Add one
# hidden unit with a bias so low that it never fires for pixels between 0 and 1, a {term}`dead unit`. Whatever its outgoing
# weights are, the function is the same for *every* image; the chain is not, because it
# contains neither biases nor ReLU.

# %% mystnb={"figure": {"name": "fig-dead-unit", "caption": "wCKA of a network with itself after one unit that never fires was added to its first hidden layer, against the size of that unit's outgoing weights; 1 is the size of the layer's other weights. The function is the same everywhere on the curve."}, "image": {"alt": "A curve of wCKA of a network with itself. It stays near one while the dead unit's outgoing weights are of ordinary size and falls towards zero as they grow by factors of ten."}}
def with_dead_unit(network, size, seed):
    """The same function, with one more unit in the first hidden layer.

    The unit never fires; `size` is that of its outgoing weights, 1 for those
    of the layer's other units.
    """
    rng = torch.Generator().manual_seed(seed)
    (first, _), (second, _), *_ = linear_layers(network)
    incoming = torch.randn(
        first.in_features, 1, generator=rng, dtype=torch.float64)
    outgoing = torch.randn(
        1, second.out_features, generator=rng, dtype=torch.float64)
    return counterexamples.add_dead_units(
        network, incoming * first.weight.std(),
        size * outgoing * second.weight.std())


sizes = np.geomspace(0.1, 1000, 41)  # the eleventh is 1, the twenty-first 10
dead_unit = pd.Series(0.0, index=sizes.round(6))
for i, size in enumerate(sizes):
    widened = with_dead_unit(a, size, seed)
    assert largest_change(a, widened) < 1e-9
    dead_unit.iloc[i] = wcka.wcka(a, widened)
fig, axes = plt.subplots(figsize=(figures.WIDTH, 2.8))
axes.plot(dead_unit, color=figures.MEASURE_COLORS["wcka"])
axes.set(xscale="log", xlabel="size of the dead unit's outgoing weights",
         ylabel="wCKA with itself", ylim=(0, 1.05))
plt.show()

# %% tags=["remove-cell"]
say("dead-ordinary", dead_unit[1.0])
say("dead-ten", dead_unit[10.0], ".2f")
say("dead-hundred", dead_unit[100.0], ".2f")

# %% [markdown]
# With outgoing weights of ordinary size one dead unit leaves wCKA of the network with itself at
# {glue:text}`dead-ordinary`; with weights ten times as large, at {glue:text}`dead-ten`; a hundred times,
# {glue:text}`dead-hundred`. "Invariant to
# permutation and intertwiner transformations" is right; "functionally equal networks have equal chains"
# would be wrong.
#
# **Wang's normalisation.** {cite:t}`wang2022` also divide each row of a layer's weights by its norm
# before multiplying. (The paper keeps the word "normalisation" for the product alone, which
# normalises nothing.) That variant is not invariant to rescaled units: a rescaled network, which computes the same
# function, scores {glue:text}`wang-rows` against itself.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the similarity to the rescaled network, by normalisation"}
def normalised_chain(network, dim):
    """Chain of weights whose rows (dim 1) or columns (dim 0) have norm 1."""
    weights = []
    for layer, _ in linear_layers(network):
        weight = layer.weight.detach().T  # (inputs, outputs)
        weights.append(weight / weight.norm(dim=dim, keepdim=True))
    return wcka.chain(weights)


def normalised_similarity(network, changed_network, dim):
    """wCKA by chains of normalised weights."""
    return wcka.wcka(normalised_chain(network, dim),
                     normalised_chain(changed_network, dim))


rescaled = versions["rescaled"]
wang = {
    "plain product (wCKA)": wcka.wcka(a, rescaled),
    "columns normalised": normalised_similarity(a, rescaled, dim=0),
    "rows normalised": normalised_similarity(a, rescaled, dim=1),
}
wang_table = pd.Series(wang, name="similarity to its rescaled self").to_frame()
wang_table.style.format("{:.3f}")

# %% tags=["remove-cell"]
say("wang-rows", wang["rows normalised"], ".2f")

# %% [markdown]
# ## What is judged in this chapter

# %% tags=["hide-input"]
manipulation_parts = []
if unread.any():
    manipulation_parts.append(rules.Part(
        "fall of CKA when activations of one class move by ten typical "
        "lengths where no logit reads them",
        1 - cka_by_distance[10]))

# By activation; identity up to rounding.
intertwiner_parts = []
for activation in proven:
    similarity = intertwined.loc[activation, "wcka"]
    is_unmoved = intertwined.loc[activation, "chain moves by"] < 1e-6
    intertwiner_parts.append(fact(
        activation.replace("_", " "), is_unmoved and similarity > 1 - 1e-6))

probe_texts = []
for measure in ("procrustes", "cka", "dcka"):
    movement = movements.loc[measure, "probes"]
    probe_texts.append(f"{MEASURE_LABELS[measure]} by {movement:.2f}")
findings = {
    "easily-manipulated": rules.Finding(
        manipulation_parts,
        "rescaled ReLU units take CKA of a network with itself to "
        f"{rescaled_row['cka']:.2f}"),
    "independent-of-probes": rules.Finding(
        [fact("foggy instead of clean probes leave wCKA alone",
              movements.loc["wcka", "probes"] == 0)],
        f"they move {', '.join(probe_texts)}"),
    "equation-5": rules.Finding(
        [fact("with centred chains", np.isclose(by_definition, wcka_ab)),
         fact("as printed, without centring",
              np.isclose(not_centred, by_definition))],
        f"equation 1 gives {by_definition:.4f}, equation 5 with centred "
        f"chains {wcka_ab:.4f}, as printed {not_centred:.4f}"),
    "permutation": rules.Finding(
        [fact("permuted hidden units leave wCKA alone",
              permuted_row["wcka"] > 1 - 1e-9),
         fact("because CKA is invariant to rotation",
              hidden_moves_chain > 1e-9)],
        f"hidden permutations move the chain by {hidden_moves_chain:.0e} of "
        "its size, before CKA sees it; permuted outputs by "
        f"{outputs_move_chain:.2f}"),
    "intertwiners": rules.Finding(
        intertwiner_parts,
        "the chain and wCKA, before and after a random element of the group"),
}
chapter_claims = rules.judge("01", findings)
claims.show(chapter_claims)

# %% tags=["remove-cell"]
count_sentence = sentences.count_sentence(
    [claim.verdict for claim in chapter_claims],
    "sentence of the paper", "sentences of the paper that are judged here")
glue("take-claims", count_sentence, display=False)

# %% [markdown]
# ## Exercises
#
# **1.** Two unrelated {term}`representations <representation>` of 32 units are compared on 64 probes, by the biased and by
# the unbiased estimator. How far from zero is each? With real networks, on as few images:
# `python -m wcka run 01 -p probes 64`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
rng = np.random.default_rng(seed)
estimates = {"biased": [], "unbiased": []}
for _ in range(200):
    u = rng.standard_normal((64, 32))
    v = rng.standard_normal((64, 32))
    estimates["biased"].append(wcka.cka(u, v))
    estimates["unbiased"].append(wcka.unbiased_cka(u, v))
pd.DataFrame(estimates).agg(["mean", "std"]).style.format("{:.3f}")

# %% [markdown]
# **2.** Add the same number to all weights of the first layer. Why does wCKA not notice, and what do the predictions do?
# With more hidden layers: `python -m wcka run 01 -p hidden "[32, 32, 32, 32, 32, 32, 32, 32]"`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
# Each column of the chain moves by one number, which centring subtracts.
shifted = deepcopy(a)
(first_layer, _), *_ = linear_layers(shifted)
with torch.no_grad():
    first_layer.weight += 0.1
    kept_share = wcka.agreement(a(inputs), shifted(inputs))
print(f"wCKA with itself {wcka.wcka(a, shifted):.6f}, "
      f"{100 * kept_share:.0f} % of the predictions stay")

# %% [markdown]
# **3.** By how much can a network differ from itself after one more epoch, by each measure, and does the order of the
# measures stay the same in a longer training? For the longer one: `python -m wcka run 01 -p epochs 20`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
further = trained(architecture, [seed], dataset, classes, epochs + 1,
                  batch_size=batch_size)
similarities = compare(a, further.member(0).double())
similarity_table = pd.Series(similarities, name="one more epoch").to_frame()
similarity_table.rename(MEASURE_LABELS).style.format("{:.4f}")

# %% [markdown]
# ## To take away
#
# - Every measure is *features with shared rows, then one alignment*. For wCKA the rows are pixels.
# - wCKA compares the networks' linear skeletons, on inputs whose mean brightness is subtracted.
# - It does not see permuted, rotated or rescaled hidden units, and it has no probes.
# - It does see weights that never matter: those of dead units and of silent pixels.
