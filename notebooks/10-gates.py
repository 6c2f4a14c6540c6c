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
# # A chain that knows its gates
#
# ```{admonition} In one paragraph
# :class: tip
# The chain of a network leaves out which units are active; the mean Jacobian $\mathrm E[J]$, the chain with the gates that the network has
# for its inputs, is a property of the function rather than of the weights. {glue:text}`take-gates-same-predictions`
# {glue:text}`take-gates-chosen-chain` {glue:text}`take-gates-follow-behaviour` {glue:text}`take-remedies`
# ```
#
# [Chapter 6](06-failures) takes the {term}`chain` apart: {term}`dead units <dead unit>` move it, signs and biases do not, and any function can have any
# chain. The chain is the product of the weights as if all gates were open. This chapter closes them.
#
# After this chapter you can
#
# - compute the {term}`expected Jacobian` of a network, and say when it equals the chain;
# - say which constructions of chapter 6 it mends, and which it does not;
# - say whether it follows behaviour better than the chain does, and what that costs.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import LogLocator
from myst_nb import glue

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
    keep_grid,
    rules,
    say,
    with_interval,
    within,
)
from wcka.book.rules import lost_part
from wcka.experiments import (
    benchmark,
    gated_chains,
    jobs,
    summaries,
)
from wcka.experiments.gated_chains import outputs_centred
from wcka.measures import MEASURE_LABELS, compare, nearest
from wcka.networks import (
    counterexamples,
    expand_probes,
    image_sets,
    initialise,
    resolve_device,
)

figures.style()

# %% [markdown]
# The parameters of this chapter. They describe the networks of [chapter 3](03-functional), so that these are not trained again. Change
# them here, or run `python -m wcka run 10 -p draws 5000`.

# %% tags=["parameters"]
# sets of real images: "mnist" or "fashion"; the first is that of the sections on
# single networks
datasets: list[str] = ["mnist"]
# initialisations of each architecture and strategy, for each set of images
seeds: list[int] = [4]
# clean accuracy from which a network counts as having learned, for each set;
# pairs of such networks are judged
learned: list[float] = [0.95]
# other limits, at which the verdicts are judged anew for the page of rules
other_limits: list[float] = [0.9, 0.98]
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
# widths of the hidden layers of each
architectures: list[list[int]] = [
    [8], [32], [16, 16], [8, 8, 8, 8], [32, 32, 32, 32],
]
# the architecture that is taken apart
taken_apart: list[int] = [32]
# what is trained on: clean images, or those of an attack
strategies: list[str] = ["standard", "fgsm", "pgd"]
epochs: int = 16  # passes through the training images
# epochs at whose end the networks are compared
checkpoints: list[int] = [2, 4, 8, 16]
batch_size: int = 128  # images in one step of training
# largest change of a pixel by the attacks that are trained on
train_eps: float = 0.1
train_steps: int = 5  # steps of PGD in training
# clean, names of corruptions or attacks, or "corruptions" and "attacks" for
# all
probes: list[str] = ["clean", "corruptions", "attacks"]
# largest change of a pixel by the attacks that agreement is counted under
eps: float = 0.1
attack_steps: int = 5  # steps of PGD and TRADES there
noise: float = 0.1  # standard deviation of the Gaussian noise there
# whose activations are compared: "first hidden", "last hidden" or "logits"
layer: str = "last hidden"
# images for activation measures where they are probed with more than clean
# images
probe_images: int = 500
draws: int = 1000  # Gaussian inputs that Jacobians are averaged over
# numbers of outputs that similarities are estimated from
queries: list[int] = [1000, 2000, 5000]
# variance that is added to each pixel of these queries
query_noise: float = 0.3
untrained: int = 20  # untrained networks for the floor
seed: int = 0  # of the first network and of all draws
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""
# where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is
# one
device: str = "cpu"

# %% tags=["hide-input", "checks"]
for name in datasets:
    nearest(name, image_sets.DATASETS, "dataset in datasets")
    image_sets.check_classes(name, classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = expand_probes(probes)
distinct(
    datasets=(datasets, 1),
    architectures=(architectures, 2),
    strategies=(strategies, 2),
    checkpoints=(checkpoints, 2),
    classes=(classes, 2),
    queries=(queries, 2),
)
benchmark.check_grid(strategies, layer, checkpoints, epochs)
within(
    train_eps=(train_eps, 0, 1),
    eps=(eps, 0, 1),
    noise=(noise, 0, 1),
    learned=(learned, 0, 1),
    other_limits=(other_limits, 0, 1),
    attack_steps=(attack_steps, 1, 1000),
    train_steps=(train_steps, 1, 1000),
    batch_size=(batch_size, 1, 60000),
    probe_images=(probe_images, 10, 10000),
    architectures=(architectures, 1, 10000),
    seeds=(seeds, 3, 1000),
    epochs=(epochs, 1, 10000),
    draws=(draws, 20, 100000),
    queries=(queries, 100, 1000000),
    query_noise=(query_noise, 1e-3, 100),
    untrained=(untrained, 3, 1000),
    seed=(seed, 0, 2**31),
)
for name, values in (("seeds", seeds), ("learned", learned)):
    if len(values) != len(datasets):
        raise ValueError(
            f"{name}: wanted one number for each of {datasets}, got {values}")
if "standard" not in strategies:
    raise ValueError(f"strategies: wanted \"standard\" in it, got {strategies}")
if taken_apart not in architectures or len(taken_apart) != 1:
    raise ValueError(
        f"taken_apart: wanted one of the architectures {architectures}, with "
        f"one hidden layer; got {taken_apart}")

# %% [markdown]
# ## The expected Jacobian
#
# For one input $x$ a ReLU network is linear: the gates $D_i(x)$, diagonal matrices of zeros and ones, say which units are active, and
# the Jacobian of the outputs is the chain with these gates,
#
# $$
# J(x) = \mathbf W_1 D_1(x)\, \mathbf W_2 D_2(x) \cdots \mathbf W_l , \qquad \mathrm E[J] = \text{its mean over inputs } x.
# $$ (eq-expected-jacobian)
#
# $\mathrm E[J]$ has one row per input coordinate and one column per output, as the chain has, and is compared by {term}`CKA` in the same way:
# `wcka.expected_similarity(a, b, inputs)`. (Gradients have been compared before: those of the loss by the weights {cite}`tang2020`.) For a linear network it *is* the chain. For any other network it depends on the function
# only, and no longer on the weights that compute it. By Stein's lemma it is what the outputs of the function have to do with its
# inputs {cite}`stein1981`: for Gaussian $x$, $\mathrm E[J] = \mathrm{Cov}(x)^{-1}\, \mathrm{Cov}(x, f(x))$.
#
# The inputs need not be images. Here they are Gaussian draws with the mean and the covariance of the training images, `draws` of them.

# %%
linear = torch.nn.Sequential(
    torch.nn.Linear(784, 32), torch.nn.Linear(32, 3)).double()
training_images, _ = image_sets.load(datasets[0], "train", classes)
mean, covariance = wcka.input_moments(image_sets.as_inputs(training_images))
inputs = wcka.gaussian_inputs(draws, mean, covariance, seed)  # (draws, 784)
difference = wcka.expected_jacobian(linear, inputs) - wcka.chain(linear)
print(f"largest difference from the chain: {difference.abs().max():.0e}")

# %% [markdown]
# ## What it mends
#
# The networks are those of [chapter 3](03-functional). The ones with a single hidden layer and standard training are rebuilt as in
# [chapter 6](06-failures), in six ways that keep the function (a good measure says 1), and in three that keep the chain and
# change the function (a good measure falls with the {term}`agreement`).

# %%
def models_of(dataset, n_seeds):
    """Arguments of `trained` for each architecture and strategy."""
    settings = {
        "seeds": list(range(seed, seed + n_seeds)),
        "dataset": dataset,
        "classes": classes,
        "epochs": epochs,
        "checkpoints": sorted(checkpoints),
        "batch_size": batch_size,
        "eps": train_eps,
        "attack_steps": train_steps,
        "seed": seed,
        "device": device,
    }
    models = []
    for hidden in architectures:
        architecture = {
            "factory": "mlp",
            "widths": [784, *hidden, len(classes)],
            "activation": "relu",
        }
        for strategy in strategies:
            models.append({
                "architecture": architecture, "strategy": strategy, **settings})
    return models


models_by_dataset = {}
grids = {}  # a table of networks and one of pairs, by set of images
for dataset, n_seeds in zip(datasets, seeds):
    probing = {
        "dataset": dataset,
        "classes": classes,
        "seed": seed,
        "eps": eps,
        "steps": attack_steps,
        "noise": noise,
        "images": None,  # all test images of these classes
        "attacked": None,  # all of these
    }
    models_by_dataset[dataset] = models_of(dataset, n_seeds)
    grids[dataset] = benchmark.grid(
        models_by_dataset[dataset], probe_names, layer, probe_images, probing,
        scheduler=scheduler)

# %%
populations, _ = benchmark.grid_networks(models_by_dataset[datasets[0]])
standard = populations[
    architectures.index(taken_apart) * len(strategies)
    + strategies.index("standard")]
standard = standard[(standard.members.epoch == max(checkpoints)).to_numpy()]
networks = [standard.member(i) for i in range(len(standard))]
architecture = standard.architecture
untrained_networks = initialise(
    architecture,
    range(seed + 1000, seed + 1000 + max(untrained, len(networks))))

test_images, _ = image_sets.load(datasets[0], "test", classes)
test_inputs = image_sets.as_inputs(test_images).double()
spread = covariance.diagonal().sqrt()[:, None]  # (784, 1)

# What is compared of a network
FEATURES = {
    "wCKA": wcka.chain,
    "wCKA, spread": lambda network: spread * wcka.chain(network),
    "E[J]": lambda network: wcka.expected_jacobian(network, inputs),
    "E[J], spread, centred": lambda network: spread * outputs_centred(
        wcka.expected_jacobian(network, inputs)),
}


def compare_with(network, rebuilt):
    """Compare a network and a rebuilt one, by agreement and similarities."""
    with torch.no_grad():
        logits = [x.double()(test_inputs) for x in (network, rebuilt)]
    row = {"agreement": wcka.agreement(*logits)}
    for name, features_of in FEATURES.items():
        features = [features_of(network), features_of(rebuilt)]
        row[name] = compare("cka", features)[0, 1]
    return row


rows = {}
for i, network in enumerate(networks):
    rebuilt_networks = counterexamples.constructions(
        network, networks[(i + 1) % len(networks)],
        untrained_networks.member(i), test_inputs, seed + i)
    for (stays, name), rebuilt in rebuilt_networks.items():
        rows[stays, name, i] = compare_with(network, rebuilt)
constructed = pd.DataFrame(rows).T  # one row per construction and network
medians = constructed.groupby(level=[0, 1], sort=False).median()
medians.style.format("{:.3f}").background_gradient(
    cmap="cividis", vmin=0, vmax=1, axis=None, text_color_threshold=0.18)

# %% tags=["remove-cell"]
for name in ("dead units", "a random chain", "border redrawn",
             "all logits lifted", "biases drowned", "signs flipped",
             "impersonated"):
    for column, short_name in (("agreement", "agreement"), ("wCKA", "chain"),
                               ("E[J]", "gates"),
                               ("E[J], spread, centred", "centred")):
        value = medians.xs(name, level=1)[column].item()
        say(f"{name.replace(' ', '-')}-{short_name}", value, ".2f")

# %% [markdown]
# Medians over {term}`seeds <seed>`. Dead units take wCKA to {glue:text}`dead-units-chain` and E[J] to {glue:text}`dead-units-gates`; the chain of another
# network takes wCKA to {glue:text}`a-random-chain-chain` and E[J] to {glue:text}`a-random-chain-gates`. Such networks compute the same
# function, so E[J] can differ only by inputs outside of [0, 1], which Gaussian draws contain. What is added to all logits is part
# of the function, though of no prediction: it takes E[J] to {glue:text}`all-logits-lifted-gates`. The weights of pixels that are black in all
# test images are part of the function, too: redrawn, they take E[J] to {glue:text}`border-redrawn-gates`. Both are mended as chapter 6 mends them for the
# chain: with inputs weighted by their spread and outputs centred, the two values are {glue:text}`all-logits-lifted-centred` and {glue:text}`border-redrawn-centred`.
#
# In the other direction, an untrained network with the chain of a trained one has a wCKA of {glue:text}`impersonated-chain`, an E[J] of
# {glue:text}`impersonated-gates` and an agreement of {glue:text}`impersonated-agreement`. With flipped signs the values are
# {glue:text}`signs-flipped-chain`, {glue:text}`signs-flipped-gates` and {glue:text}`signs-flipped-agreement`, with drowned biases
# {glue:text}`biases-drowned-chain`, {glue:text}`biases-drowned-gates` and {glue:text}`biases-drowned-agreement`: a mean over inputs keeps
# the slopes of a function and no offset, and what differs in its mean gates only is close in E[J].

# %% [markdown]
# ## Does it follow behaviour?
#
# This is the test of [chapter 3](03-functional), on its networks, pairs and {term}`probes <probe>`; [chapter 5](05-architectures) has
# the one on convolutional networks. What was tested was written down before the
# {term}`run of record`, whose seeds no earlier analysis had seen:
#
# - **Hypothesis.** Among networks that have learned, E[J] over Gaussian draws has a higher mean of Pearson's r with agreement over the
#   four factors than wCKA, on each set of images, by at least {glue:text}`expected-lead` as an exploration on other seeds suggested.
# - **Remedies.** The same for the chain whose inputs are weighted by their spread, or by their covariance.
# - **What would refute them.** A lead that is significantly below the {term}`margin` of [the rules](../book/rules).
#
# Leads are means over the four factors, and their errors are over {term}`starts <start>` and probes, left out of all factors at once.

# %%
COLUMNS = {
    "wcka": "wCKA",
    "expected, Gaussian": "E[J], Gaussian draws",
    "expected, spread, centred": "E[J], spread, centred",
    "expected, images": "E[J], training images",
    "expected, uniform": "E[J], uniform draws",
    "expected, half strength": "gates at half strength",
    "mean gates": "chain with mean gates",
    "wcka, spread": "wCKA, spread",
    "wcka, covariance": "wCKA, covariance",
    "softmax": "softmax of Gaussian draws",
    "agop": "AGOP",
    "procrustes": "Procrustes",
    "cka": "CKA",
    "dcka": "dCKA",
}
GATED = "expected, Gaussian"
DATASET_NAMES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
EXPECTED_LEAD = 0.04  # of the exploration
say("expected-lead", EXPECTED_LEAD, ".2f")


def gated_pairs(dataset, least_accuracy):
    """Pairs of networks that have learned, with all similarities."""
    members, pairs = grids[dataset]
    gated = gated_chains.gated_similarities(
        models_by_dataset[dataset], draws, seed)
    return summaries.with_columns_of(
        gated.drop(columns=["differs", "wcka"]), members,
        summaries.learned_pairs(members, pairs, least_accuracy))


pairs_of = {}
results = {}
for dataset, least_accuracy in zip(datasets, learned):
    pairs_of[dataset] = gated_pairs(dataset, least_accuracy)
    members, _ = grids[dataset]
    keep_grid(members, pairs_of[dataset], COLUMNS, f"-{dataset}")
    results[dataset] = summaries.mean_correlations(
        members, pairs_of[dataset], COLUMNS)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-gates", "caption": "Pearson's r of similarity with agreement, mean over the factors epoch, seed, architecture and strategy, with 95 % intervals over starts and probes: the chain (wCKA), chains with gates, chains whose inputs are weighted, rivals on the same Gaussian draws, and measures of activations on clean images. Dotted: wCKA."}, "image": {"alt": "One row per measure: a dot and an interval for the mean correlation with agreement; colours are those of groups of measures, and a dotted line marks wCKA."}}
GATE_COLOR = "#7A3300"  # a darker one of wCKA, whose chains these are


def color_of(column):
    """Colour of a measure: that of its group."""
    if column in ("wcka", "wcka, spread", "wcka, covariance"):
        return figures.MEASURE_COLORS["wcka"]
    if column in figures.MEASURE_COLORS:
        return figures.MEASURE_COLORS[column]
    if column in ("softmax", "agop"):
        return figures.QUIET
    return GATE_COLOR


fig, panels = plt.subplots(
    1, len(datasets), sharey=True, squeeze=False, figsize=(figures.WIDTH, 4.6))
for axes, dataset in zip(panels.flat, datasets):
    r, _ = results[dataset]
    axes.axvline(r["wcka"].value, ls=":", color=figures.QUIET, lw=1)
    for y, column in enumerate(COLUMNS):
        estimate = r[column]
        axes.plot([estimate.low, estimate.high], [y, y],
                  color=color_of(column), lw=2)
        axes.plot(estimate.value, y, "o", color=color_of(column), ms=6,
                  mfc="white")
    axes.set(
        title=DATASET_NAMES[dataset], xlabel="mean r with agreement")
    axes.set_yticks(range(len(COLUMNS)), list(COLUMNS.values()))
    axes.tick_params(axis="y", length=0)
panels[0, 0].invert_yaxis()
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the correlations by factor"}
factor_rows = {}
for dataset in datasets:
    r, leads = results[dataset]
    for column, label in COLUMNS.items():
        row = {}
        for factor, part in pairs_of[dataset].groupby("differs", sort=False):
            row[factor] = f"{part[column].corr(part.agreement):.2f}"
        row["mean"] = f"{r[column].value:.2f}"
        row["minus wCKA"] = ""
        if column != "wcka":
            lead = leads[column]
            row["minus wCKA"] = with_interval(lead, "+.2f")
        factor_rows[DATASET_NAMES[dataset], label] = row
pd.DataFrame(factor_rows).T

# %% tags=["remove-cell"]
first = datasets[0]
r, leads = results[first]
lead = leads[GATED]
glue("gates-lead", with_interval(lead, "+.3f"), display=False)
for column, name in (("wcka", "chain"), (GATED, "gates"),
                     ("expected, images", "images"), ("softmax", "softmax"),
                     ("expected, spread, centred", "centred"),
                     ("agop", "agop"), ("wcka, covariance", "covariance"),
                     ("wcka, spread", "spread")):
    say(f"mean-r-{name}", r[column].value, ".3f")
# Uniform draws may leave some networks without any similarity.
uniform_r = r["expected, uniform"].value
uniform_text = "and uniform draws no r for all pairs"
if np.isfinite(uniform_r):
    uniform_text = f"and uniform draws {uniform_r:.3f}"
glue("uniform-draws", uniform_text, display=False)
highest_activation = max(("procrustes", "cka", "dcka"),
                         key=lambda measure: r[measure].value)
say("mean-r-activation", r[highest_activation].value, ".3f")
glue("best-activation", MEASURE_LABELS[highest_activation], display=False)
glue("first-dataset", DATASET_NAMES[first], display=False)
say("n-pairs", len(pairs_of[first]) // len(probe_names), ",")
WORDS = {
    (True, True): "is as large as expected and significant",
    (True, False): "is as large as expected and not significant",
    (False, True): "is smaller than expected and significant",
    (False, False): "is smaller than expected and not significant",
}
is_significant = lead.value > 0 and lead.p < rules.LEVEL
glue("gates-lead-words", WORDS[lead.value >= EXPECTED_LEAD, is_significant],
     display=False)

# %% [markdown]
# On {glue:text}`first-dataset` ({glue:text}`n-pairs` pairs) the mean r is {glue:text}`mean-r-chain` for wCKA and {glue:text}`mean-r-gates` for E[J]; the
# lead, {glue:text}`gates-lead`, {glue:text}`gates-lead-words`. Real images in place of Gaussian draws give {glue:text}`mean-r-images`
# {glue:text}`uniform-draws`; E[J] with spread and centred outputs has {glue:text}`mean-r-centred`. Chains whose inputs are weighted by their spread have
# {glue:text}`mean-r-spread`, by their covariance {glue:text}`mean-r-covariance`. Of the rivals on the same draws, CKA of the softmax outputs has
# {glue:text}`mean-r-softmax`, and the average gradient outer products (AGOP {cite}`radhakrishnan2024`), which keep the gradients' second moments in place of
# their mean, {glue:text}`mean-r-agop`. The highest of the measures of activations on clean images is {glue:text}`best-activation` with
# {glue:text}`mean-r-activation`.
#
# ## From outputs alone
#
# Stein's lemma needs outputs and no weights: whoever can query two models can compare them. Images of MNIST have pixels that never vary, so
# their covariance has no inverse; the queries here have `query_noise` added to the variance of each pixel. The estimate of the similarity
# is corrected for its own noise (`wcka.weights.from_queries.similarity_from_outputs`). The figure shows its error for pairs of
# seeds, of the architecture that was taken apart and of the deepest.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-queries", "caption": "Similarity of two networks by E[J], estimated from outputs: root mean square error against the number of queries, with the correction for noise (filled) and without (hollow), on logarithmic axes."}, "image": {"alt": "Two lines that fall with the number of queries: the error of estimates with a correction and without one."}}
deepest = max(architectures, key=len)
queried_models = []
for model in models_by_dataset[datasets[0]]:
    hidden = model["architecture"]["widths"][1:-1]
    if model["strategy"] == "standard" and hidden in (taken_apart, deepest):
        queried_models.append(model)
query_table = gated_chains.query_errors(
    queried_models, max(checkpoints), queries, query_noise, seed=seed)
errors = {}
for column in ("known covariance", "known, plain"):
    squares = (query_table[column] - query_table.exact) ** 2
    errors[column] = np.sqrt(squares.groupby(query_table.queries).mean())

fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 2.8))
for column, fill, label in (("known covariance", GATE_COLOR, "corrected"),
                            ("known, plain", "white", "not corrected")):
    axes.plot(errors[column], "o-", color=GATE_COLOR, mfc=fill, label=label)
axes.set(xscale="log", yscale="log", xlabel="queries",
         ylabel="error of the similarity")
axes.set_xticks(queries, [f"{count:,}" for count in queries])
axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
axes.yaxis.set_major_formatter("{x:g}")
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()

# %% tags=["remove-cell"]
say("fewest-queries", min(queries), ",")
say("most-queries", max(queries), ",")
say("error-few", errors["known covariance"].iloc[0], ".3f")
say("error-many", errors["known covariance"].iloc[-1], ".3f")
say("error-plain", errors["known, plain"].iloc[0], ".3f")
no_noise = query_table["exact, no noise"] - query_table.exact
say("effect-of-noise", no_noise.abs().mean(), ".3f")

# %% [markdown]
# With {glue:text}`fewest-queries` queries the root mean square error is {glue:text}`error-few` ({glue:text}`error-plain` without the correction),
# with {glue:text}`most-queries` it is {glue:text}`error-many`. The added variance itself changes the similarity by {glue:text}`effect-of-noise` on
# average.
#
# ## What is lost
#
# **The floor.** The chains of untrained networks know nothing of each other, and their wCKA has the {term}`null` of
# [chapter 2](02-calibration) for its floor. Is that so for E[J]?

# %%
floor_rows = {}
population = untrained_networks[:untrained]
features_by_name = {
    "wCKA": benchmark.chains_of([population]),
    "E[J]": list(gated_chains.population_jacobians(population, inputs)),
}
positions = np.triu_indices(untrained, 1)
for name, features in features_by_name.items():
    null = wcka.pairwise_null("cka", features, positions)
    floor_rows[name] = {
        "mean of untrained networks": null.value.mean(),
        "standard deviation": null.value.std(ddof=1),
        "mean of the null": null.mean.mean(),
        "spread of the null": null.sd.mean(),
    }
floor = pd.DataFrame(floor_rows).T
floor.style.format("{:.4f}")

# %% tags=["remove-cell"]
for name, short_name in (("wCKA", "chain"), ("E[J]", "gates")):
    row = floor.loc[name]
    say(f"floor-{short_name}", row["mean of untrained networks"], ".4f")
    say(f"null-{short_name}", row["mean of the null"], ".4f")

# %% [markdown]
# The floor of E[J] is {glue:text}`floor-gates` where its null says {glue:text}`null-gates`; for the chain these are {glue:text}`floor-chain` and
# {glue:text}`null-chain`. The closed form of the null applies to both, since both are feature matrices with one row per pixel.
#
# **Weights alone.** wCKA needs two files. E[J] also needs activation functions, biases, and inputs or their first two moments. So E[J] needs
# a network that runs, and its value depends on the distribution that is chosen.
#
# **The proof.** The invariance of wCKA to permuted and rescaled units telescopes through the product of the weights (chapter 1). For
# E[J] invariance needs no proof, but it is invariance to what keeps the *function*, offsets aside: two networks that classify alike by different
# functions differ in E[J].

# %% [markdown]
# ## What is judged in this chapter
#
# All four go beyond the paper. What has to be so, in numbers:
#
# - *The same predictions, the same value*: what each construction that keeps the predictions takes from E[J] is small.
# - *Another function, another value*: what each construction that keeps the chain takes from E[J] is large.
# - *Behaviour*: the lead of E[J] over wCKA, and that of weighted chains, in the mean r over factors, is above zero on each set of images.
#
# Errors are over networks for the first two, over starts and probes for the others.

# %% tags=["hide-input"]
expected_jacobians = constructed["E[J]"]
function_parts = []
for name in ("wider", "deeper", "dead units", "a random chain",
             "all logits lifted", "border redrawn"):
    function_parts.append(
        lost_part(name, expected_jacobians.xs(name, level=1)))
chain_parts = []
for name in ("impersonated", "signs flipped", "biases drowned"):
    chain_parts.append(
        lost_part(name, expected_jacobians.xs(name, level=1)))


def behaviour_findings(leads_by_dataset):
    """Findings on what follows agreement better than wCKA does."""
    behaviour_parts = []
    remedy_parts = []
    for dataset, leads in leads_by_dataset.items():
        label = DATASET_NAMES[dataset]
        behaviour_parts.append(rules.Part(label, *leads[GATED]))
        for remedy in ("spread", "covariance"):
            remedy_parts.append(rules.Part(
                f"{remedy}, {label}", *leads[f"wcka, {remedy}"]))
    return {
        "gates-follow-behaviour": rules.Finding(behaviour_parts),
        "remedies": rules.Finding(remedy_parts),
    }


of_constructions = {
    "gates-same-predictions": rules.Finding(function_parts),
    "gates-chosen-chain": rules.Finding(chain_parts),
}
findings = {
    **of_constructions,
    **behaviour_findings(
        {dataset: leads for dataset, (_, leads) in results.items()}),
}

# The same with other limits from which networks count as having learned
findings_at = {}
for limit in other_limits:
    leads_there = {}
    for dataset in datasets:
        pairs = gated_pairs(dataset, limit)
        if min(summaries.start_counts(pairs).values()) >= 3:
            members, _ = grids[dataset]
            _, leads_there[dataset] = summaries.mean_correlations(
                members, pairs, COLUMNS)
    if len(leads_there) == len(datasets):
        findings_at[limit] = {
            **of_constructions, **behaviour_findings(leads_there)}
chapter_claims = rules.judge("10", findings)
claims.show(chapter_claims, findings_at)

# %% tags=["remove-cell"]
SENTENCES = {
    "gates-same-predictions": {
        "holds": "No construction that keeps the predictions moves E[J] "
                 "noticeably.",
        "partly": "Some constructions that keep the predictions leave E[J] "
                  "where it was, others move it.",
        "fails": "Each construction that keeps the predictions moves E[J].",
        "cannot be told": "Whether constructions that keep the predictions "
                          "leave E[J] where it was is open.",
    },
    "gates-chosen-chain": {
        "holds": "Networks with one chain and different functions have "
                 "different E[J].",
        "partly": "Of networks with one chain and different functions, E[J] "
                  "tells some apart and not others.",
        "fails": "E[J] does not tell networks with one chain and different "
                 "functions apart.",
        "cannot be told": "Whether E[J] tells networks with one chain and "
                          "different functions apart is open.",
    },
    "gates-follow-behaviour": {
        "holds": "E[J] follows agreement better than the chain does.",
        "partly": "E[J] follows agreement better than the chain does on some "
                  "images, not on others.",
        "fails": "E[J] does not follow agreement noticeably better than the "
                 "chain does.",
        "cannot be told": "Whether E[J] follows agreement better than the "
                          "chain does is open.",
    },
    "remedies": {
        "holds": "A chain whose inputs are weighted by spread or covariance "
                 "follows agreement better as well.",
        "partly": "Weighting the inputs of the chain by spread or covariance "
                  "helps in some cases, not in others.",
        "fails": "Weighting the inputs of the chain by spread or covariance "
                 "does not help noticeably.",
        "cannot be told": "Whether weighting the inputs of the chain by "
                          "spread or covariance helps is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)

# %% [markdown]
# ## Exercises
#
# 1. With few draws E[J] is a noisy estimate. How large is its Monte Carlo error for two seeds, with `draws` inputs and with a
#    tenth of them? On a larger scale: `python -m wcka run 10 -p draws 10000`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
for count in (draws // 10, draws):
    few_inputs = wcka.gaussian_inputs(count, mean, covariance, seed)
    similarity = wcka.expected_similarity(
        networks[0], networks[1], few_inputs, batches=min(20, count))
    print(f"{count} draws: {similarity.value:.3f}, "
          f"error {similarity.error:.3f}")

# %% [markdown]
# 2. At which strength of the gates does the similarity of a network with its copy that has dead units reach one? Strength 0 is the
#    chain, 1 is E[J]. On other images: `python -m wcka run 10 -p datasets '["fashion"]' -p learned '[0.9]'`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
network = networks[0].double()
with_dead_units = counterexamples.deaden(network, 9, 0.2, seed)
for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
    jacobians = []
    for model in (network, with_dead_units):
        jacobians.append(wcka.expected_jacobian(model, inputs, strength))
    print(f"strength {strength:.2f}: {wcka.cka(*jacobians):.3f}")

# %% [markdown]
# ## To take away
#
# - {glue:text}`take-gates-same-predictions` {glue:text}`take-gates-chosen-chain`
# - {glue:text}`take-gates-follow-behaviour`
# - {glue:text}`take-remedies`
# - Who has inputs, or only their mean and covariance, and can run the networks, can compute E[J]; who has two files and nothing else
#   has the chain.
