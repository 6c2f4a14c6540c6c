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
# Two networks were trained on the same task. How alike are they? This chapter defines the four
# answers that the paper compares (its sections 1 and 2.1 to 2.3): Procrustes, CKA and dCKA, which
# look at *activations*, and wCKA, which looks at *weights*. Every definition is computed twice, by
# two independent formulas, on networks trained on real digits.
#
# After this chapter you can
#
# - write down each measure, and say which of its conventions matter;
# - say what may be done to a network without a measure noticing, and check it;
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
from wcka.book import claims, distinct, figures, say, verdicts, within
from wcka.experiments import trained
from wcka.measures import INVARIANCES, MEASURE_LABELS
from wcka.networks import architectures, image_sets
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
within(hidden=(hidden, 1, 10000), epochs=(epochs, 1, 1000), batch_size=(batch_size, 1, 60000), probes=(probes, 10, 10000), seed=(seed, 0, 2**31))

# %% [markdown]
# ## Two networks
#
# Everything below is shown on two fully connected ReLU networks that differ in the seed of their
# initialisation only. Layers act on row vectors, $x \mapsto xW + b$, so a weight matrix is
# inputs by outputs, as in the paper.

# %%
architecture = {"factory": "mlp", "widths": [784, *hidden, len(classes)], "activation": "relu"}
population = trained(architecture, [seed, seed + 1], dataset, classes, epochs,
                     batch_size=batch_size)
images, labels = image_sets.load(dataset, "test", classes)
accuracy = population.accuracy(image_sets.as_inputs(images), labels)

a, b = (population.member(i).double() for i in range(2))
inputs = image_sets.as_inputs(images[:probes]).double()
with torch.no_grad():
    x, y = (network[:-1](inputs).numpy() for network in (a, b))  # last hidden layer
p = inputs.numpy()

# %% tags=["remove-cell"]
say("accuracy-low", 100 * accuracy.min(), ".1f")
glue("shape-x", f"{x.shape[0]} × {x.shape[1]}", display=False)
assert x.shape == (min(probes, len(images)), hidden[-1])

# %% [markdown]
# Both get at least {glue:text}`accuracy-low` % of the test images right. `x` and `y` are their
# activations in the last hidden layer, {glue:text}`shape-x`: **rows are shared** (the same probe
# images), columns need not correspond. That is all that the measures below ask for.
#
# ## CKA
#
# Centred kernel alignment {cite}`kornblith2019` is the cosine between the two Gram matrices
# $K = XX^\top$ and $L = YY^\top$ after centring. With the Hilbert-Schmidt independence criterion
# {cite}`gretton2005` $S$ and $H = I - \tfrac1n \mathbf 1\mathbf 1^\top$,
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

# %%
def hsic(k, m):
    """Biased Hilbert-Schmidt independence criterion (paper, equation 2)."""
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ m @ h) / (n - 1) ** 2


def by_kernels(x, y):
    """CKA by its definition (paper, equation 1)."""
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


print(f"by kernels {by_kernels(x, y):.12f}, by features {wcka.cka(x, y):.12f}")
assert np.isclose(by_kernels(x, y), wcka.cka(x, y), atol=1e-12)

# %% [markdown]
# The two agree to twelve digits. The criterion in {eq}`eq-cka` is the **biased** estimator: of two
# representations that have nothing to do with each other it makes more than zero, and the more so
# the fewer probes there are. For independent Gaussian features the next cell shows how much.

# %%
rng = np.random.default_rng(seed)
bias = {n: np.mean([wcka.cka(rng.standard_normal((n, 32)), rng.standard_normal((n, 32)))
                    for _ in range(20)]) for n in (20, 100, 500, 3000)}
pd.Series(bias, name="CKA of unrelated features").rename_axis("probes").to_frame().style.format(
    "{:.3f}")

# %% tags=["remove-cell"]
say("bias-20", bias[20], ".2f")
say("bias-3000", bias[3000])

# %% [markdown]
# With 20 probes and 32 units, unrelated features score {glue:text}`bias-20`; with 3,000,
# {glue:text}`bias-3000`. We keep the paper's biased form everywhere, and mind the number of rows.
#
# ## Procrustes
#
# Centre both, divide by the Frobenius norm, and rotate one onto the other as well as possible. What
# is left is the paper's distance,
#
# $$
# d(X, Y) = \norm{X}_F^2 + \norm{Y}_F^2 - 2\norm{X^\top Y}_* = 2 - 2s, \qquad
# s = \norm{X^\top Y}_* ,
# $$ (eq-procrustes)
#
# with the nuclear norm $\norm{\cdot}_*$, the sum of singular values. The paper writes $d$ without
# saying that features are centred and scaled first; without that step it is not a similarity of
# directions at all, so we take it as meant. Here everything is a similarity, so `procrustes` is
# $s$, from 0 to 1. The second formula is SciPy's search for the best rotation:

# %%
def prepared(z):
    z = z - z.mean(0)
    return z / np.linalg.norm(z)


rotation, s = scipy.linalg.orthogonal_procrustes(prepared(x), prepared(y))
left_over = np.linalg.norm(prepared(x) @ rotation - prepared(y)) ** 2
print(f"similarity {wcka.procrustes(x, y):.12f}, by SciPy {s:.12f}, and 1 - d/2 = "
      f"{1 - left_over / 2:.12f}")
assert np.isclose(wcka.procrustes(x, y), s) and np.isclose(1 - left_over / 2, s)

# %% [markdown]
# Public code reports at least six different numbers under this one name. Of the same two networks:

# %%
u, v = x / np.linalg.norm(x), y / np.linalg.norm(y)  # not centred
pd.DataFrame([
    ("similarity, as here", "s", s),
    ("squared distance, as in the paper", "2 − 2s", 2 - 2 * s),
    ("distance", "√(2 − 2s)", np.sqrt(2 - 2 * s)),
    ("angular distance", "arccos s", np.arccos(s)),
    ("one minus similarity", "1 − s", 1 - s),
    ("similarity without centring", "‖X′Y‖∗", np.linalg.norm(u.T @ v, "nuc")),
], columns=["called", "formula", "value"]).style.format({"value": "{:.4f}"}).hide()

# %% [markdown]
# The first five can be converted into each other. The last one cannot: the mean of the activations
# enters, and can move the number either way.
#
# ## dCKA
#
# Networks that look at the same images are alike partly because the images are. Deconfounded CKA
# {cite}`cui2022` takes away from each Gram matrix the part that the inputs' own Gram matrix $K_0$
# explains by linear regression, drops the negative eigenvalues of what remains ($[\cdot]_+$), and
# then applies CKA:
#
# $$
# C\big([K - \hat\alpha K_0]_+,\ [L - \hat\beta K_0]_+\big), \qquad
# \hat\alpha = \frac{\langle K_0, K\rangle}{\langle K_0, K_0\rangle}.
# $$ (eq-dcka)
#
# By its definition this needs eigenvalues of $n \times n$ matrices. It need not: $K$ has at most as
# many positive eigenvalues as there are units, and subtracting a positive semidefinite matrix makes
# no new ones. So $[K - \hat\alpha K_0]_+ = FF^\top$ with a narrow $F$, found exactly from a matrix
# no larger than inputs plus units. That is what `dcka` does.
#
# One convention is ours: features and inputs are **centred before the regression**. The paper
# regresses the Gram matrices as they are, without an intercept, and centres only in the final CKA.
# After centring, an intercept would change nothing; without it, the regression also fits the means,
# and what it does not fit of them stays in. Both numbers are below.

# %%
def deconfounded(x, p, psd=True):
    """K - alpha K0 by its definition, with n x n matrices (paper, section 2.1.3)."""
    h = np.eye(len(x)) - 1 / len(x)
    k, k0 = h @ x @ x.T @ h, h @ p @ p.T @ h
    k = k - np.vdot(k0, k) / np.vdot(k0, k0) * k0
    if psd:
        values, vectors = np.linalg.eigh(k)
        k = vectors * values.clip(min=0) @ vectors.T
    return k


def cosine(k, m):
    return np.vdot(k, m) / np.linalg.norm(k) / np.linalg.norm(m)


by_definition = {psd: cosine(deconfounded(x, p, psd), deconfounded(y, p, psd))
                 for psd in (True, False)}
xy, xi, yi = wcka.cka(x, y), wcka.cka(x, p), wcka.cka(y, p)
partial = (xy - xi * yi) / np.sqrt((1 - xi**2) * (1 - yi**2))
k, m = (z @ z.T - np.vdot(p @ p.T, z @ z.T) / np.vdot(p @ p.T, p @ p.T) * (p @ p.T) for z in (x, y))
(u, q), (v, w) = np.linalg.eigh(k), np.linalg.eigh(m)
uncentred = by_kernels(q * np.sqrt(u.clip(0)), w * np.sqrt(v.clip(0)))
print(f"with the positive part    {by_definition[True]:.12f} = {wcka.dcka(x, y, p):.12f}")
print(f"without it                {by_definition[False]:.12f} = {partial:.12f}, "
      f"a partial correlation")
print(f"regression not centred    {uncentred:.12f}")
assert np.isclose(by_definition[True], wcka.dcka(x, y, p), atol=1e-9)
assert np.isclose(by_definition[False], partial, atol=1e-9)

# %% tags=["remove-cell"]
say("dcka-psd", by_definition[True])
say("dcka-partial", by_definition[False])
say("dcka-uncentred", uncentred)
say("cka-xy", xy)

# %% [markdown]
# The conventions are no details. For this pair CKA is {glue:text}`cka-xy`; dCKA is
# {glue:text}`dcka-psd` as defined here, {glue:text}`dcka-partial` if negative eigenvalues are kept, and
# {glue:text}`dcka-uncentred` if the regression is not centred. The positive part also decides what
# dCKA can say at all: two positive semidefinite matrices never have a negative cosine, so **with
# that step dCKA is never below zero**, and a mean of zero would need every pair to be exactly
# orthogonal. Without it dCKA is exactly the partial correlation of CKAs given the inputs, and may
# be negative. We follow the paper's text and keep the step, with `psd=False` as an option; the
# [next chapter](02-calibration) shows that it matters for one of the paper's claims.
#
# ## wCKA
#
# Multiply a network's weight matrices: the **chain** $\mathbf W = W_1 W_2 \cdots W_\ell$, inputs by
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
# not enter.

# %%
chain_a, chain_b = (np.linalg.multi_dot([layer.weight.detach().numpy().T for layer in network
                                         if isinstance(layer, nn.Linear)]) for network in (a, b))
print(f"by kernels {by_kernels(chain_a, chain_b):.12f}, by wcka {wcka.wcka(a, b):.12f}")
assert np.isclose(by_kernels(chain_a, chain_b), wcka.wcka(a, b), atol=1e-12)

# %% [markdown]
# ### What it is: the same network without its nonlinearities, probed with noise
#
# Take the activations out of a network. What is left is the linear map $x \mapsto x \mathbf W$. Probe
# two such maps with white noise and compare their outputs by CKA: the noise's covariance is the
# identity, so $\mathbf W_a^\top \mathbf W_b$ is all that remains. One subtlety follows from
# centring: the chain is centred over *pixels*, so the noise must have no mean over pixels either.
# wCKA is blind to what a network does with overall brightness.

# %% mystnb={"figure": {"name": "fig-noise", "caption": "Networks probed with white noise. Without their nonlinearities their CKA settles on wCKA (dashed) as the probes grow; as they are, it settles at a level of its own. Bands span five draws of the noise."}, "image": {"alt": "Two lines of CKA against the number of noise probes on a logarithmic axis. The line for the linearised networks narrows onto the dashed level of wCKA; the line for the real networks settles at a level of its own."}}
def on_noise(n, draw, linear, centred=True):
    """CKA of the two networks' outputs on `n` noise images, with or without nonlinearities."""
    noise = np.random.default_rng([seed, draw]).standard_normal((n, p.shape[1]))
    noise -= centred * noise.mean(1, keepdims=True)
    if linear:
        return wcka.cka(noise @ chain_a, noise @ chain_b)
    with torch.no_grad():
        return wcka.cka(*[network(torch.from_numpy(noise)) for network in (a, b)])


sizes, draws = np.geomspace(10, 10_000, 7).astype(int), 5
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.2))
settled = {}
for kind, linear, colour in (("without nonlinearities", True, figures.MEASURE_COLORS["wcka"]),
                             ("as they are", False, figures.QUIET)):
    values = np.array([[on_noise(n, d, linear) for d in range(draws)] for n in sizes])
    axes.fill_between(sizes, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
    axes.plot(sizes, values.mean(1), color=colour)
    axes.text(sizes[-1], values[-1].mean() - 0.03, kind, color=colour, ha="right", va="top")
    settled[kind] = values[-1].mean()
axes.axhline(wcka.wcka(a, b), color="black", ls="--", lw=1)
axes.text(sizes[-1], wcka.wcka(a, b) + 0.02, "wCKA", ha="right", va="bottom")
axes.set(xscale="log", xlabel="noise probes", ylabel="CKA of the outputs", ylim=(0, 1.02))
plt.show()

# %% tags=["remove-cell"]
not_centred = (np.linalg.norm(chain_b.T @ chain_a) ** 2
               / np.linalg.norm(chain_a.T @ chain_a) / np.linalg.norm(chain_b.T @ chain_b))
say("wcka-ab", wcka.wcka(a, b))
say("noise-end", settled["without nonlinearities"])
say("noise-real", settled["as they are"])
say("noise-as-drawn", on_noise(sizes[-1], 0, linear=True, centred=False))
say("not-centred", not_centred)
assert abs(settled["without nonlinearities"] - wcka.wcka(a, b)) < 0.02

# %% [markdown]
# wCKA of the two networks is {glue:text}`wcka-ab`; at 10,000 probes the linearised networks' CKA is
# {glue:text}`noise-end`. (Noise as drawn, its mean over pixels left in, gives
# {glue:text}`noise-as-drawn`: that is {eq}`eq-wcka` without centring, {glue:text}`not-centred`, which is
# how the paper prints its equation 5.)
# The networks as they are, nonlinearities and biases included, agree on the same noise by
# {glue:text}`noise-real`: wCKA describes their linear skeletons, not the networks themselves.
# Whether the skeleton says enough about the network is an empirical question, and the business of
# the later chapters.
#
# ## What may change without a measure noticing
#
# ### Shuffled and rescaled units
#
# Shuffle the units of every hidden layer, or multiply each ReLU unit by a positive number and divide
# it out in the next layer. The function does not change. The weights do; the chain does not.

# %% mystnb={"figure": {"name": "fig-weights", "caption": "One network, three ways to write it. Shuffling the hidden units or rescaling them makes other weight matrices (left two columns: the second and third layer) and the same chain (right: its columns as pictures, one a class). Each picture has its own scale; red is positive, blue negative."}, "image": {"alt": "A grid of pictures. Rows: the network as trained, its units permuted, its units rescaled. The two weight matrices look different in every row; the three chain pictures, blurred templates of the digits, are the same in all rows."}}
versions = {"as trained": a, "permuted": symmetry.permute(a, seed),
            "rescaled": symmetry.rescale(a, seed)}
fig, axes = plt.subplots(3, 2 + len(classes), figsize=(figures.WIDTH, 4.6), layout="constrained")
for row, (version, network) in zip(axes, versions.items()):
    second, third = (layer.weight.detach().T for layer, _ in linear_layers(network)[1:3])
    templates = wcka.chain(network).T.reshape(-1, 28, 28)
    for one, picture in zip(row, [second, third, *templates]):
        limit = abs(picture).max()
        one.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
        one.set(xticks=[], yticks=[])
        one.spines[:].set_visible(False)
    row[0].set_ylabel(version)
for one, title in zip(axes[0], ["layer 2", "layer 3", *[f"chain, class {c}" for c in classes]]):
    one.set_title(title)
plt.show()

# %%
def compare(network, other, inputs=inputs):
    """The four measures of two networks; activations in their last hidden layer."""
    with torch.no_grad():
        x, y = network[:-1](inputs), other[:-1](inputs)
    return {"procrustes": wcka.procrustes(x, y), "cka": wcka.cka(x, y),
            "dcka": wcka.dcka(x, y, inputs), "wcka": wcka.wcka(network, other)}


def largest_change(network, other):
    """Largest change of a logit over the probes, in units of the largest logit."""
    with torch.no_grad():
        before, after = network(inputs), other(inputs)
    return float((before - after).abs().max() / before.abs().max())


rows = {version: {"logits move by": largest_change(a, network), **compare(a, network)}
        for version, network in versions.items() if network is not a}
pd.DataFrame(rows).T.rename(columns=MEASURE_LABELS).style.format("{:.6f}").format(
    "{:.0e}", subset="logits move by")

# %% tags=["remove-cell"]
rescaled = rows["rescaled"]
say("rescaled-cka", rescaled["cka"], ".2f")
say("rescaled-procrustes", rescaled["procrustes"], ".2f")

# %% [markdown]
# A network against itself, rewritten. Permutations move none of the measures. Rescaled units move
# every activation measure (CKA of the network with itself falls to {glue:text}`rescaled-cka`,
# Procrustes to {glue:text}`rescaled-procrustes`) though not one prediction changes; wCKA stays at 1.
#
# ### Intertwiners, activation by activation
#
# Which changes of weights pass through an activation? {cite:t}`godfrey2022` call $A$ an
# *intertwiner* of $\sigma$ when $\sigma(xA) = \sigma(x)\,\phi(A)$ for a matrix $\phi(A)$. Then
#
# $$
# W_i \to W_i A_i, \quad b_i \to b_i A_i, \quad W_{i+1} \to \phi(A_i)^{-1} W_{i+1}
# $$ (eq-intertwiner)
#
# leaves the function alone, and **the chain telescopes, for all weights, if and only if
# $\phi(A) = A$**. The paper proves it for identity, sigmoid, ReLU and LeakyReLU. The next cell draws
# a random element of each activation's group, in every hidden layer of an untrained network, and
# compares the network with its rewritten self, by all four measures.

# %%
groups = {"identity": "any invertible matrix", "relu": "permutation × positive scale",
          "leaky_relu": "permutation × positive scale", "sigmoid": "permutation",
          "gelu": "permutation", "tanh": "permutation × sign",
          "gaussian": "permutation × sign, φ(A) = |A|",
          "square": "permutation × scale, φ(A) = A∘A"}
rows = {}
for activation, group in groups.items():
    torch.manual_seed(seed)
    network = architectures.mlp(architecture["widths"], activation).double()
    moved = symmetry.intertwine(network, seed)
    rows[activation] = {
        "group": group, "logits move by": largest_change(network, moved),
        "chain moves by": float(torch.linalg.norm(wcka.chain(moved) - wcka.chain(network))
                                / torch.linalg.norm(wcka.chain(network))),
        **compare(network, moved)}
intertwined = pd.DataFrame(rows).T
intertwined.rename(columns=MEASURE_LABELS).style.format(
    "{:.0e}", subset=["logits move by", "chain moves by"]).format(
    "{:.3f}", subset=list(MEASURE_LABELS.values()))

# %% tags=["remove-cell"]
proven = ["identity", "sigmoid", "relu", "leaky_relu"]
assert (intertwined["logits move by"].astype(float) < 1e-6).all()
say("gaussian", intertwined.loc["gaussian", "wcka"], ".2f")
say("square", intertwined.loc["square", "wcka"], ".2f")

# %% [markdown]
# The functions are the same to rounding in every row. The chain survives for the four activations of
# the paper's proof, and for GELU and tanh as well. The activation measures survive where the group
# holds permutations and signs only. For Gaussian (radial basis) and polynomial
# activations $\phi(A) \ne A$, the chain does not telescope, and wCKA of the same function written
# twice is {glue:text}`gaussian` and {glue:text}`square`. The paper does not claim these; anyone
# using wCKA on such networks should know.
#
# ### All measures, all changes
#
# Each measure declares what it is invariant to (`wcka.INVARIANCES`); the project's tests
# assert the invariances *and* the variances from that table. The figure measures them: two networks,
# one of them changed, how far does the similarity move (at most, over five draws of the change)?

# %% mystnb={"figure": {"name": "fig-invariances", "caption": "How far each measure moves when the second of two trained networks is changed. Zero is invariant to rounding (below 1e-6). The first six are changes of basis of the last hidden layer, undone by the next; together with intertwiners and (on these images) silent weights they leave every prediction as it was. An output map changes the function. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with four rows, one a measure, and ten columns, one a change. wCKA is zero in all columns but output map and silent weights. The three activation measures are zero for permutation, rotation, scale, translation, output map and silent weights, and move under unit rescaling, invertible maps, intertwiners and other probes."}}
foggy = image_sets.as_inputs(wcka.corrupt(images[:probes], "fog", seed)).double()
every_image = image_sets.as_inputs(images).double()
before, draws = compare(a, b), 5
moved_by = pd.DataFrame(0.0, index=list(before), columns=[*symmetry.TRANSFORMATIONS, "probes"])
for change, transform in symmetry.TRANSFORMATIONS.items():
    for draw in range(draws):
        after = compare(a, transform(b, every_image, seed + draw))
        moved = pd.Series(after) - pd.Series(before)
        moved_by[change] = np.maximum(moved_by[change], moved.abs())
moved_by["probes"] = (pd.Series(compare(a, b, foggy)) - pd.Series(before)).abs()
silent = float((~every_image.any(0)).double().mean())
if not silent:  # every pixel is lit in some image: there is nothing to redraw
    moved_by = moved_by.drop(columns="silent weights")
for measure in moved_by.index:
    for change in moved_by:
        assert (moved_by.loc[measure, change] < 1e-6) == (change in INVARIANCES[measure])

text = moved_by.map(lambda d: "0" if d < 1e-6 else f"{d:.3f}" if d < 0.01 else f"{d:.2f}")
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.0))
figures.heat_map(axes, moved_by.rename(MEASURE_LABELS), text.rename(MEASURE_LABELS), cmap="OrRd",
                 vmin=0, vmax=0.6, cbar=False)
axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
axes.axvline(6, color="black", lw=1)
plt.show()

# %% tags=["remove-cell"]
say("silent-share", 100 * silent, ".0f")
say("silent-moved", moved_by.get("silent weights", pd.Series(0.0, moved_by.index))["wcka"])
say("output-moved", moved_by.loc["wcka", "output map"], ".2f")

# %% [markdown]
# wCKA's invariance concerns the *inside* of the network. Any linear map applied between two weight
# matrices and undone by the second cancels, not only rotations. Its two ends are not free: an
# invertible map of the outputs moves it by {glue:text}`output-moved`, where activations of a hidden
# layer know nothing of it. And {glue:text}`silent-share` % of the pixels are black in every test
# image. On these images their weights never touch a prediction; drawing them anew moves wCKA by
# {glue:text}`silent-moved` and no activation measure at all.
#
# ## Where the paper's claim needs care
#
# **Same function, other chain.** Intertwiners are not all the symmetries that a network has. Add one
# hidden unit with a bias so low that it never fires for pixels between 0 and 1. Its outgoing weights
# are then free. The function is the same for *every* image; the chain is not, because the chain
# knows no biases and no ReLU.

# %% mystnb={"figure": {"name": "fig-dead-unit", "caption": "wCKA of a network with itself after one unit that never fires was added to its first hidden layer, against the size of that unit's outgoing weights; 1 is the size of the layer's other weights. The function is the same everywhere on the curve."}, "image": {"alt": "A curve of wCKA of a network with itself. It stays near one while the dead unit's outgoing weights are of ordinary size and falls towards zero as they grow by factors of ten."}}
def with_dead_unit(network, size, seed):
    """The same function, with one more unit in the first hidden layer that never fires."""
    rng = torch.Generator().manual_seed(seed)
    widened = deepcopy(network)
    (first, _), (second, _), *_ = linear_layers(widened)
    incoming = torch.randn(1, first.in_features, generator=rng, dtype=torch.float64)
    outgoing = torch.randn(second.out_features, 1, generator=rng, dtype=torch.float64)
    incoming, outgoing = incoming * first.weight.std(), size * outgoing * second.weight.std()
    bias = -incoming.clamp(min=0).sum() - 1  # below zero for every input in [0, 1]
    first.weight = nn.Parameter(torch.cat([first.weight, incoming]))
    first.bias = nn.Parameter(torch.cat([first.bias, bias[None]]))
    second.weight = nn.Parameter(torch.cat([second.weight, outgoing], dim=1))
    return widened


sizes = np.geomspace(0.1, 1000, 41)  # the eleventh is 1, the twenty-first 10
changed = [with_dead_unit(a, size, seed) for size in sizes]
assert max(largest_change(a, network) for network in changed) < 1e-9
dead_unit = pd.Series([wcka.wcka(a, network) for network in changed], sizes.round(6))
fig, axes = plt.subplots(figsize=(figures.WIDTH, 2.8))
axes.plot(dead_unit, color=figures.MEASURE_COLORS["wcka"])
axes.set(xscale="log", xlabel="size of the dead unit's outgoing weights", ylabel="wCKA with itself",
         ylim=(0, 1.05))
plt.show()

# %% tags=["remove-cell"]
say("dead-ordinary", dead_unit[1.0])
say("dead-ten", dead_unit[10.0], ".2f")
say("dead-hundred", dead_unit[100.0], ".2f")

# %% [markdown]
# With outgoing weights of ordinary size one dead unit leaves wCKA of the network with itself at
# {glue:text}`dead-ordinary`; ten times larger, at {glue:text}`dead-ten`; a hundred times,
# {glue:text}`dead-hundred`. Trained networks do have dead units, and nothing holds their outgoing
# weights in place. "Invariant to permutation and intertwiner transformations" is right; "functionally
# equal networks have equal chains" would be wrong.
#
# **Wang's normalisation.** {cite:t}`wang2022` also divide each row of a layer's weights by its norm
# before multiplying. (The paper keeps the word "normalisation" for the product alone, which
# normalises nothing.) That variant is not invariant to rescaled units, nor is its twin with columns:

# %%
def normalised_chain(network, dim):
    """Chain of weights of unit norm in every layer: rows (dim 1) or columns (dim 0)."""
    weights = [layer.weight.detach().T for layer, _ in linear_layers(network)]
    return wcka.chain([w / w.norm(dim=dim, keepdim=True) for w in weights])


rescaled = symmetry.rescale(a, seed)
wang = {"plain product (wCKA)": wcka.wcka(a, rescaled), **{
    f"{kind} normalised": wcka.wcka(*(normalised_chain(n, dim) for n in (a, rescaled)))
    for kind, dim in (("columns", 0), ("rows", 1))}}
pd.Series(wang, name="similarity to its rescaled self").to_frame().style.format("{:.3f}")

# %% tags=["remove-cell"]
say("wang-rows", wang["rows normalised"], ".2f")

# %% [markdown]
# The rescaled network computes the same function; with rows normalised it scores
# {glue:text}`wang-rows` against itself. The paper's plain product is the right choice.
#
# **Biases.** The chain ignores them. `wcka.chain(network, bias=True)` carries them along in
# homogeneous coordinates, as one more row: what the linear skeleton gives for the black image.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
def one(value):
    """Write a similarity that should be 1."""
    return f"1 to within {max(abs(1 - value), 1e-15):.0e}"


chain_kept, itself = intertwined["wcka"].astype(float), compare(a, rescaled)
probes_moved = ", ".join(f"{MEASURE_LABELS[m]} {moved_by.loc[m, 'probes']:.2f}"
                         for m in ("procrustes", "cka", "dcka"))
results = [
    claims.Claim(
        "2.3", "wCKA is invariant to permutations of hidden units",
        f"wCKA of a trained network and its permuted self: {one(wcka.wcka(a, versions['permuted']))}",
        verdicts.verdict(wcka.wcka(a, versions["permuted"]) > 1 - 1e-9)),
    claims.Claim(
        "2.3", "wCKA is invariant to intertwiners of identity, sigmoid, ReLU and LeakyReLU",
        f"smallest wCKA of a network and its transformed self over the four: "
        f"{one(chain_kept[proven].min())}",
        verdicts.verdict(*(chain_kept[proven] > 1 - 1e-6))),
    claims.Claim(
        "2.1.2", "CKA is invariant to rotation and isotropic scaling",
        f"it moves by at most {moved_by.loc['cka', ['rotation', 'isotropic scale']].max():.0e}",
        verdicts.verdict(*(moved_by.loc["cka", ["rotation", "isotropic scale"]] < 1e-6))),
    claims.Claim(
        "2.2", "Equation 5 is CKA (equation 1) of the chains' kernels",
        f"with centred chains {wcka.wcka(a, b):.4f} by both; as printed, without centring, "
        f"{not_centred:.4f}", verdicts.verdict(True, bool(np.isclose(not_centred, wcka.wcka(a, b))))),
    claims.Claim(
        "abstract, 1", "CKA can be moved by changes of a network that do not change its function",
        f"rescaled ReLU units take CKA of a network with itself to {itself['cka']:.2f}",
        verdicts.verdict(itself["cka"] < 0.99)),
    claims.Claim(
        "abstract, 1", "wCKA does not depend on probing inputs",
        f"by construction; foggy instead of clean probes move the others: {probes_moved}",
        verdicts.verdict(moved_by.loc["wcka", "probes"] == 0)),
    claims.Claim(
        "abstract, 4", "wCKA reflects the symmetries of weight space",
        f"intertwiners with φ(A) = A, yes; one unit that never fires, with outgoing weights ten times "
        f"the others', takes wCKA of the same function to {dead_unit[10.0]:.2f}; Gaussian and square "
        f"activations: {chain_kept['gaussian']:.2f} and {chain_kept['square']:.2f}",
        verdicts.verdict(bool((chain_kept[proven] > 1 - 1e-6).all()), dead_unit[10.0] > 0.99,
                       bool((chain_kept[["gaussian", "square"]] > 0.99).all()))),
]
claims.show(results)

# %% [markdown]
# ## To take away
#
# - Every measure is *features with shared rows, then one alignment*. For wCKA the rows are pixels.
# - wCKA compares the networks' linear skeletons, on inputs whose brightness is taken out.
# - It does not see permuted, rotated or rescaled hidden units, nor the probes.
# - It does see weights that never matter: of dead units and of silent pixels.
