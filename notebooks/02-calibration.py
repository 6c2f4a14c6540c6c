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
# # Calibration: what is zero, and what is one?
#
# A thermometer is calibrated at two points whose temperature is known. The paper (section 3.1,
# figures 1 and 5) does the same with measures of similarity: networks that were never trained should
# score near 0, one network at two adjacent epochs near 1. It finds that wCKA does, and that
# Procrustes, CKA and dCKA do not. This chapter recomputes the experiment and asks what it proves.
#
# After this chapter you can
#
# - say what "calibrated" means, in a form that can be tested;
# - read the floor and the ceiling of each measure, and how both hang on the probes;
# - say which floor wCKA *must* have among untrained networks, from their sizes alone.

# %% tags=["hide-input"]
import platform
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue

import wcka
from wcka.book import claims, distinct, figures, say, verdicts, within
from wcka.experiments import cached, ensemble_similarities, jobs, statistics, trained
from wcka.measures import MEASURE_LABELS, NO_PSD, PAPER_MEASURES, nearest
from wcka.networks import PROBES, chains, image_sets, initialise, probe_images, resolve_device

figures.style()


# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 02 -p networks 30 -p layer 2`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
hidden: list[int] = [32, 32, 32, 32]  # widths of the hidden layers
layer: int = 4  # layer whose activations are compared: 1 to 4 are hidden, 5 the logits
networks: int = 100  # untrained networks
epochs_before: int = 95  # epochs before the first checkpoint is kept
epochs_after: int = 100  # further epochs, each of them kept
batch_size: int = 256  # images in one step of training
learning_rate: float = 0.001  # of Adam
early_epochs: int = 20  # consecutive epochs at the start of training that are compared as well
probe_sets: list[str] = ["clean", "corruptions"]  # clean, names of corruptions (fog, impulse_noise, ...), or "corruptions" for all 15
sample_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]  # numbers of probes, figure 1b
sample_draws: int = 2  # random draws of that many probes
timing_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]  # numbers of probes, figure 1c
other_classes: list[int] = [3, 4, 5]  # as many, of networks that share the images but not the task
task_networks: int = 10  # networks trained on each of the two tasks
task_epochs: int = 10  # epochs of their training
timing_runs: int = 100  # runs of each measure and size, as in the paper
margin: float = 0.05  # how far from 0 and 1 still counts as calibrated
seed: int = 0  # of the first network, of the corruptions and of the draws of probes
scheduler: str = ""  # address of a Dask scheduler whose workers do the work, like "tcp://10.0.0.1:8786"; empty for this machine
device: str = "cpu"  # where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is one

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
image_sets.check_classes(dataset, other_classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = [name for entry in probe_sets for name in (wcka.CORRUPTIONS if entry == "corruptions" else [entry])]
for name in probe_names:
    nearest(name, PROBES, "probe in probe_sets")
if not {"clean", "fog", "impulse_noise"} <= set(probe_names):
    raise ValueError(f"probe_sets: the claims need clean, fog and impulse_noise; got {probe_sets}")
distinct(classes=(classes, 2), other_classes=(other_classes, len(classes)), sample_sizes=(sample_sizes, 1), timing_sizes=(timing_sizes, 3))
within(hidden=(hidden, 1, 10000), layer=(layer, 1, len(hidden) + 1), networks=(networks, 3, 1000), epochs_before=(epochs_before, 2, 10000),
       epochs_after=(epochs_after, 2, 10000), batch_size=(batch_size, 1, 60000), learning_rate=(learning_rate, 1e-9, 1),
       early_epochs=(early_epochs, 2, 10000), sample_sizes=(sample_sizes, 2, 10000), sample_draws=(sample_draws, 1, 1000),
       timing_sizes=(timing_sizes, 2, 10000), task_networks=(task_networks, 3, 1000), task_epochs=(task_epochs, 1, 1000),
       timing_runs=(timing_runs, 1, 100000), margin=(margin, 0, 1), seed=(seed, 0, 2**31))
if len(other_classes) != len(classes):
    raise ValueError(f"other_classes: wanted {len(classes)}, as many as classes; got {other_classes}")

# %% [markdown]
# ## What calibration means
#
# The paper does not define the word. We take four conditions, with a margin that is a parameter
# (`margin`), and test each:
#
# 1. **Floor.** Pairs of networks that share nothing score at most the margin, on average.
# 2. **Ceiling.** Pairs that are nearly the same network all score within the margin of 1.
# 3. **Separation.** With no probes does a pair of the first kind score as high as any of the second.
# 4. **Fixed points.** Floor and ceiling move by at most the margin when the probes change: their
#    number, and the corruption they are seen through.
#
# (A fifth, that scores in between are proportional to how alike two networks behave, is the subject
# of the paper's section 3.2.) Pairs that share nothing are networks with independent random
# weights. Nearly the same network is one network at consecutive epochs, after training has converged.
#
# ## The two ensembles
#
# As in the paper: fully connected networks with four hidden layers of 32 ReLU units, on the digits 0,
# 1 and 2. One ensemble is untrained, with independent initialisations; the other is a single network
# whose weights are kept at consecutive epochs. The paper does not state optimiser, learning rate or
# batch size; we take Adam with the parameters above. Nor does it state the layer whose activations
# are compared; we take the last hidden one (`layer`).

# %%
architecture = {"factory": "mlp", "widths": [784, *hidden, len(classes)], "activation": "relu"}
untrained = {"architecture": architecture, "seeds": list(range(seed, seed + networks))}
converged = list(range(epochs_before, epochs_before + epochs_after + 1))
early = list(range(min(early_epochs, epochs_before) + 1))
trajectory = {"architecture": architecture, "seeds": [seed], "dataset": dataset, "classes": classes,
              "epochs": converged[-1], "checkpoints": sorted({*early, *converged}),
              "learning_rate": learning_rate, "batch_size": batch_size, "device": device}
population = trained(**trajectory)

images, labels = image_sets.load(dataset, "test", classes)
accuracy = pd.Series(population.accuracy(image_sets.as_inputs(images), labels),
                     index=population.members.epoch)
accuracy.loc[[0, early[-1], converged[0], converged[-1]]].rename("test accuracy").to_frame(
).style.format("{:.4f}")

# %% [markdown]
# ## Floor and ceiling (figure 1a)
#
# All pairs of untrained networks, and all pairs of consecutive epochs, by all four measures. The
# activation measures are probed with all test images of the three classes, clean and under each of
# the 15 corruptions of MNIST-C {cite}`mu2019`. (The paper's text says 3,147 test images, which is the
# count of these digits; the caption of its figure 1 says 3,417, a slip.)

# %%
common = {"layer": layer, "dataset": dataset, "classes": classes, "seed": seed}
table = jobs.run_jobs(ensemble_similarities, [
    {"ensembles": {"random": untrained, "adjacent": {**trajectory, "compared": converged}},
     "probe_name": name, "samples": None, "draw": 0,
     "measures": [*PAPER_MEASURES, NO_PSD], **common}
    for name in probe_names], description="probes", scheduler=scheduler)
dead = table[table.similarity.isna()]
table = table.dropna(subset="similarity")
glue("n-images", f"{len(images):,}", display=False)
glue("n-dead", f"{len(dead):,} of {len(table) + len(dead):,}", display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles", "caption": "Similarity of pairs of untrained networks (green) and of one network at consecutive epochs (purple, a diamond at the mean), by four measures; the paper's figure 1a. Left: probed with the clean test images. Right: with all corruptions together. wCKA sees no probes and is the same in both."}, "image": {"alt": "Two panels of enhanced box plots, four measures each: similarity of untrained networks in green and of consecutive epochs of one network in purple, with clean probes on the left and corrupted probes on the right."}}
def panel(axes, rows):
    """Both ensembles by all measures."""
    figures.boxen(axes, rows, x="measure", y="similarity", hue="ensemble",
                  order=PAPER_MEASURES, hue_order=list(figures.ENSEMBLE_COLORS),
                  palette=figures.ENSEMBLE_COLORS, legend=False)
    means = rows[rows.ensemble == "adjacent"].groupby("measure").similarity.mean()
    axes.scatter(np.arange(4) + 0.2, means[list(PAPER_MEASURES)], marker="D", s=40, zorder=5,
                 color=figures.ENSEMBLE_COLORS["adjacent"], edgecolor="white")
    axes.set_xticks(range(4), [MEASURE_LABELS[m] for m in PAPER_MEASURES])
    axes.set(xlabel="", ylim=(-0.03, 1.05))


fig, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.6), sharey=True)
panel(left, table[table["probe"] == "clean"])
panel(right, table[table["probe"] != "clean"])
left.set(title="clean probes", ylabel="similarity")
right.set(title="corrupted probes", ylabel="")
right.text(3.5, 0.91, "consecutive epochs", color=figures.ENSEMBLE_COLORS["adjacent"], ha="right")
right.text(3.5, 0.08, "untrained", color=figures.ENSEMBLE_COLORS["random"], ha="right")
plt.show()

# %% [markdown]
# The numbers behind it, with clean probes. Floor and spread (the standard deviation of untrained
# pairs) have intervals that leave out whole networks, since pairs that share a network are not
# independent observations. The ceiling is one network's, and its range is that of its 95 % middle
# pairs: other networks may settle elsewhere.

# %%
def summary(rows):
    """Floor, spread, ceiling and separation of one measure."""
    random, adjacent = (rows[rows.ensemble == e] for e in ("random", "adjacent"))
    floor = statistics.mean_over_pairs(random.a, random.b, random.similarity)
    variance = statistics.mean_over_pairs(random.a, random.b, (random.similarity - floor.value) ** 2)
    spread = np.sqrt(np.maximum(variance, 0))
    middle = adjacent.similarity.quantile([0.025, 0.975])
    return pd.Series({
        "floor": floor.value, "floor low": floor.low, "floor high": floor.high,
        "spread": spread[0], "spread low": spread[1], "spread high": spread[2],
        "highest": random.similarity.max(), "ceiling": adjacent.similarity.mean(),
        "ceiling low": middle.iloc[0], "ceiling high": middle.iloc[1],
        "lowest": adjacent.similarity.min()})


def interval(row, number):
    """Write a number with its interval, with as many digits as it needs."""
    digits = 3 if abs(row[number]) > 0.01 and row[f"{number} low"] < 0.99 else 5
    return claims.interval(row[number], row[f"{number} low"], row[f"{number} high"], f".{digits}f")


by_probe = table.groupby(["measure", "probe"])[table.columns].apply(summary)
clean = by_probe.xs("clean", level="probe")
order = [*PAPER_MEASURES, NO_PSD]
named = {**MEASURE_LABELS, NO_PSD: "dCKA, no PSD step"}
pd.DataFrame({
    "floor": [interval(clean.loc[m], "floor") for m in order],
    "spread": [interval(clean.loc[m], "spread") for m in order],
    "highest untrained": [f"{clean.loc[m, 'highest']:.3f}" for m in order],
    "ceiling": [interval(clean.loc[m], "ceiling") for m in order],
}, index=pd.Index([named[m] for m in order], name="clean probes"))

# %% tags=["remove-cell"]
activation_measures = list(PAPER_MEASURES[:3])
for measure in PAPER_MEASURES:
    say(f"floor-{measure}", clean.loc[measure, "floor"])
say("floor-no-psd", clean.loc[NO_PSD, "floor"])
say("wcka-highest", clean.loc["wcka", "highest"])
say("lowest-adjacent", by_probe.lowest.min(), ".4f")
for measure, name in (("dcka", "psd"), (NO_PSD, "no-psd")):
    say(f"{name}-low", by_probe.loc[measure].floor.min())
    say(f"{name}-high", by_probe.loc[measure].floor.max())

# %% [markdown]
# With {glue:text}`n-images` clean probes the floors are {glue:text}`floor-procrustes` for Procrustes,
# {glue:text}`floor-cka` for CKA, {glue:text}`floor-dcka` for dCKA and {glue:text}`floor-wcka` for wCKA,
# whose highest pair of untrained networks scores {glue:text}`wcka-highest`. Representations without
# any variance, which have no similarity, were left out: {glue:text}`n-dead` values.
#
# Two things need a closer look.
#
# **dCKA's floor hangs on its conventions.** Cosines of positive semidefinite matrices are never
# negative, so with the step that drops negative eigenvalues the mean over untrained pairs can only be
# zero if every pair is exactly orthogonal. It is not: from {glue:text}`psd-low` to
# {glue:text}`psd-high`, depending on the probes. Without the step it lies between
# {glue:text}`no-psd-low` and {glue:text}`no-psd-high`. A dCKA whose "mean similarity value centers around
# zero", as the caption of the paper's figure 5 has it, is what one gets from centred kernels
# *without* the step that the paper's section 2.1.3 describes.
#
# **The ceiling is not a matter of the measure.** Every measure scores at least
# {glue:text}`lowest-adjacent` on every consecutive pair and probe. The paper saw dCKA below 0.8; perhaps
# its network was still moving (its optimiser is not stated). Ours moves earlier in its training:

# %%
moving = ensemble_similarities(
    {"early": {**trajectory, "compared": early}, "converged": {**trajectory, "compared": converged}},
    "clean", None, 0, layer, list(PAPER_MEASURES), dataset, classes, seed)
moving["epoch"] = moving.b.map(dict(enumerate(early))).where(
    moving.ensemble == "early", moving.b.map(dict(enumerate(converged))))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-moving", "caption": "How far one network is from its previous epoch, by four measures with clean probes, from the first epoch on. Both axes are logarithmic; the gap are epochs that were not kept."}, "image": {"alt": "Curves of one minus similarity of consecutive epochs against epoch, on logarithmic axes, one a measure: the first epochs at the left, the epochs after convergence at the right."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
for measure in PAPER_MEASURES:
    for ensemble, line in moving[moving.measure == measure].groupby("ensemble"):
        axes.plot(line.epoch, 1 - line.similarity, color=figures.MEASURE_COLORS[measure],
                  lw=2 if measure == "wcka" else 1.2,
                  label=MEASURE_LABELS[measure] if ensemble == "early" else None)
axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel="1 − similarity to the epoch before")
axes.legend()
plt.show()

# %% tags=["remove-cell"]
first = moving[moving.epoch == 1].set_index("measure").similarity
early_lowest = moving[(moving.ensemble == "early") & (moving.epoch > 1)].groupby(
    "measure").similarity.min()
for measure in PAPER_MEASURES:
    say(f"first-{measure}", first[measure], ".2f")
    say(f"early-{measure}", early_lowest[measure], ".2f")
glue("early-epochs", f"{early[-1]}", display=False)

# %% [markdown]
# The first epoch moves the network most: before and after it, dCKA is {glue:text}`first-dcka`, wCKA
# {glue:text}`first-wcka`. From then to epoch {glue:text}`early-epochs` the lowest consecutive pair scores
# {glue:text}`early-procrustes` (Procrustes), {glue:text}`early-cka` (CKA), {glue:text}`early-dcka`
# (dCKA) and {glue:text}`early-wcka` (wCKA), and as training converges every measure approaches 1 by
# orders of magnitude. A ceiling near 1 says that the weights have stopped moving; a fair measure
# reports the movement where there is one.
#
# ## The probes' share (figure 5)
#
# The same untrained networks, seen through each corruption.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-corruptions", "caption": "Similarity of untrained networks by kind of probe; the paper's figure 5, with an example of each corruption. If a measure told of networks only, its rows would be alike. wCKA has no probes: its rows are."}, "image": {"alt": "One row for each kind of probe, with an example image, and four columns of horizontal enhanced box plots of the similarity of untrained networks, one a measure. The column of wCKA is the same in every row."}}
random = table[table.ensemble == "random"]
fig, row = plt.subplots(1, 4, figsize=(figures.WIDTH, 0.36 * len(probe_names) + 0.9), sharey=True)
for axes, measure in zip(row, PAPER_MEASURES):
    figures.boxen(axes, random[random.measure == measure], y="probe", x="similarity",
                  order=probe_names, color=figures.MEASURE_COLORS[measure])
    axes.set(xlabel="similarity", ylabel="", xlim=(-0.03, 1.03), title=MEASURE_LABELS[measure])
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.4)
row[0].tick_params(axis="y", pad=30)
example = int(np.flatnonzero(labels == labels.max())[0])
for i, name in enumerate(probe_names):
    picture = probe_images(dataset, tuple(classes), name, seed)[example]
    figures.thumbnail(row[0], picture, i)
with figures.many_marks():
    plt.show()

# %% tags=["remove-cell"]
means = by_probe.floor.unstack()
spread = by_probe.spread.unstack()


def first_direction(name):
    """Share of the probes' variance along their first principal direction."""
    x = image_sets.as_inputs(probe_images(dataset, tuple(classes), name, seed)).double().numpy()
    squares = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    return squares[0] / squares.sum()


for name, short in (("clean", "clean"), ("fog", "fog"), ("impulse_noise", "impulse")):
    say(f"direction-{short}", 100 * first_direction(name), ".0f")
    for measure in ("procrustes", "cka"):
        say(f"{short}-{measure}", means.loc[measure, name], ".2f")
    say(f"{short}-spread", spread.loc["dcka", name])

# %% [markdown]
# Through fog, untrained networks reach a mean CKA of {glue:text}`fog-cka`; through impulse noise,
# {glue:text}`impulse-cka` (Procrustes {glue:text}`fog-procrustes` and
# {glue:text}`impulse-procrustes`; clean {glue:text}`clean-cka` and {glue:text}`clean-procrustes`). The
# images explain it. Fog covers each of them with a haze of its own strength, so that foggy images
# differ mostly in one direction, their overall brightness: it holds {glue:text}`direction-fog` % of
# their variance, against {glue:text}`direction-clean` % for the first direction of clean images and
# {glue:text}`direction-impulse` % under impulse noise. A direction as strong as this comes through any
# network. The standard deviation of dCKA is {glue:text}`fog-spread` in fog and
# {glue:text}`impulse-spread` in impulse noise.
#
# This is not an error of CKA. Two untrained networks *do* map foggy images to similar geometries.
# CKA answers "do these networks see these images alike?", and the answer hangs on the images. It is
# only wrong as an answer to "are these networks alike?".
#
# ## How many probes are enough (figure 1b)

# %%
sizes = sorted({min(n, len(images)) for n in sample_sizes})
few = jobs.run_jobs(ensemble_similarities, [
    {"ensembles": {"random": untrained}, "probe_name": "clean", "samples": n, "draw": draw,
     "measures": list(PAPER_MEASURES[:3]), **common}
    for n in sizes for draw in range(sample_draws if n < len(images) else 1)],
    description="numbers of probes", scheduler=scheduler)
few = few.dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Similarity of untrained networks against the number of clean probes; the paper's figure 1b. wCKA uses no probes: its level is dashed."}, "image": {"alt": "Three panels of enhanced box plots of similarity over numbers of probes, one for Procrustes, CKA and dCKA each, and a dashed line at the level of wCKA."}}
fig, row = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.2), sharey=True)
for axes, measure in zip(row, PAPER_MEASURES):
    figures.boxen(axes, few[few.measure == measure], x="samples", y="similarity", order=sizes,
                  color=figures.MEASURE_COLORS[measure])
    axes.axhline(clean.loc["wcka", "floor"], color=figures.MEASURE_COLORS["wcka"], ls="--", lw=1.2)
    axes.set(title=MEASURE_LABELS[measure], xlabel="probes", ylabel="similarity", ylim=(-0.03, 1.03))
    axes.set_xticks(range(len(sizes)), [f"{n:,}" for n in sizes], rotation=45)
row[0].text(len(sizes) - 0.6, clean.loc["wcka", "floor"] + 0.02, "wCKA",
            color=figures.MEASURE_COLORS["wcka"], ha="right", va="bottom")
plt.show()

# %% tags=["remove-cell"]
floors = few.groupby(["measure", "samples"]).similarity.mean().unstack()
widths = few.groupby(["measure", "samples"]).similarity.std().unstack()
for measure in ("procrustes", "cka", "dcka"):
    say(f"few-{measure}", floors.loc[measure].iloc[0], ".2f")
    say(f"most-{measure}", floors.loc[measure].iloc[-1], ".2f")
glue("fewest", f"{sizes[0]:,}", display=False)
glue("most", f"{sizes[-1]:,}", display=False)

# %% [markdown]
# With {glue:text}`fewest` probes untrained networks score {glue:text}`few-procrustes` (Procrustes),
# {glue:text}`few-cka` (CKA) and {glue:text}`few-dcka` (dCKA); with {glue:text}`most`,
# {glue:text}`most-procrustes`, {glue:text}`most-cka` and {glue:text}`most-dcka`. More probes remove the
# bias of a small sample ([chapter 1](01-theory)), not what the images have in common.
#
# ## What it costs (figure 1c)
#
# Time of one comparison, both networks' activations computed beforehand. Every run compares another
# pair of untrained networks; the chain of wCKA is multiplied anew each time.

# %%
@cached
def timings(untrained: dict, sizes: list, runs: int, layer: int, dataset: str, classes: list,
            seed: int, machine: str) -> pd.DataFrame:
    """Seconds of single comparisons, interleaved so that a busy moment hits all measures."""

    def seconds(function, *arguments):
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start

    population, rows = initialise(**untrained), []
    members = [population.member(i) for i in range(len(population))]
    every_input = image_sets.as_inputs(probe_images(dataset, tuple(classes), "clean", seed))
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(len(members), 2, replace=False) for _ in range(runs)]
    for n in sizes:
        inputs = every_input[:n]
        activations = population.activations(inputs, layer)
        for repeat, (i, j) in enumerate([pairs[0], *pairs]):  # the first one warms up
            x, y = activations[i], activations[j]
            calls = {"procrustes": (wcka.procrustes, x, y), "cka": (wcka.cka, x, y),
                     "dcka": (wcka.dcka, x, y, inputs), "wcka": (wcka.wcka, members[i], members[j])}
            rows += [(m, n, seconds(*call)) for m, call in calls.items() if repeat]
    return pd.DataFrame(rows, columns=["measure", "samples", "seconds"])


machine = f"{platform.platform()} {platform.processor()} torch {torch.__version__}"
times = timings(untrained, sorted({min(n, len(images)) for n in timing_sizes}), timing_runs, layer,
                dataset, classes, seed, machine)
median = times.groupby(["measure", "samples"]).seconds.median().unstack().loc[list(PAPER_MEASURES)]
upper = median.iloc[:, -3:]  # the smaller sizes are all overhead
exponents = {m: np.polyfit(np.log(upper.columns.astype(float)), np.log(upper.loc[m]), 1)[0]
             for m in PAPER_MEASURES}

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-time", "caption": "Time of one comparison against the number of probes, on logarithmic axes; the paper's figure 1c. In brackets the slopes of the medians over the last three sizes (0 is constant, 1 proportional). wCKA does not see the probes."}, "image": {"alt": "Enhanced box plots of the time of one comparison against the number of probes, for four measures, on logarithmic axes, each labelled with its growth exponent."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.8))
figures.boxen(axes, times.assign(ms=1e3 * times.seconds), x="samples", y="ms", hue="measure",
              hue_order=PAPER_MEASURES, palette=figures.MEASURE_COLORS, legend=False)
axes.set(yscale="log", xlabel="probes", ylabel="milliseconds")
axes.set_xticks(range(median.shape[1]), [f"{n:,}" for n in median.columns])
axes.set_xlim(-0.6, median.shape[1] + 0.7)
heights = np.log10(1e3 * median.iloc[:, -1].sort_values())
for i in range(1, len(heights)):  # labels of like times must not lie on each other
    heights.iloc[i] = max(heights.iloc[i], heights.iloc[i - 1] + 0.2)
for measure, height in heights.items():
    axes.text(median.shape[1] - 0.4, 10**height,
              f"{MEASURE_LABELS[measure]} ({round(exponents[measure], 1) + 0.0})",
              color=figures.MEASURE_COLORS[measure], va="center")
plt.show()

# %% tags=["remove-cell", "timing"]
glue("timed-most", f"{median.columns[-1]:,}", display=False)
ratios = median.loc[activation_measures] / median.loc["wcka"]
for measure in activation_measures:
    say(f"ratio-{measure}", ratios.loc[measure].iloc[-1], ".1f")
dearer = ratios[(ratios < 1).any(axis=1)]
cheaper_text = "; ".join(
    f"{MEASURE_LABELS[m]} up to {ratios.columns[row < 1].max():,} probes" for m, row in dearer.iterrows())
glue("cheaper", cheaper_text or "none of them", display=False)

# %% [markdown]
# At {glue:text}`timed-most` probes a comparison takes {glue:text}`ratio-cka` (CKA),
# {glue:text}`ratio-procrustes` (Procrustes) and {glue:text}`ratio-dcka` (dCKA) times as long as by
# wCKA, and wCKA does not grow with the probes: it has none. With few probes others are cheaper:
# {glue:text}`cheaper`. Two remarks in fairness. The activation measures also need the activations,
# which are not counted. And most of wCKA's time here is the overhead of small operations, not
# arithmetic; with all pairs at once (`wcka.pairwise`) every measure is far cheaper.
#
# ## Is a floor at zero a virtue?
#
# Two random chains have left singular vectors in unrelated directions of a space of $p - 1$
# dimensions ($p$ input coordinates, less one for centring). If one of them is turned by a random
# rotation of that space, then, given the singular values $s_i$ of both,
#
# $$
# \mathbb E\, C_w = \frac{\sqrt{r_a r_b}}{p - 1}, \qquad
# r = \frac{(\sum_i s_i^2)^2}{\sum_i s_i^4},
# $$ (eq-floor)
#
# because $\mathbb E \norm{\mathbf W_b^\top \mathbf W_a}_F^2 =
# \norm{\mathbf W_a}_F^2 \norm{\mathbf W_b}_F^2 / (p-1)$. The effective rank $r$ lies between 1 and the
# number of outputs $c$. With 784 pixels and three classes the floor among networks whose first layers
# are random *must* lie below $3/783$, whatever the other layers do. For a product of Gaussian
# matrices with hidden widths $n_i$ the effective rank itself follows from the sizes,
# $1/r \approx 1/c + 1/(p-1) + \sum_i 1/n_i$, and with it the floor.

# %%
def effective_rank(chain):
    """Participation ratio of the squared singular values of a centred chain."""
    squares = np.linalg.svd(chain - chain.mean(0), compute_uv=False) ** 2
    return squares.sum() ** 2 / (squares**2).sum()


def floor(inputs, outputs, count):
    """Measured and expected floor of wCKA among untrained networks of given ends."""
    ends = {"factory": "mlp", "widths": [inputs, *hidden, outputs], "activation": "relu"}
    products = chains(initialise(ends, range(seed, seed + count))).numpy()
    a, b = np.triu_indices(count, 1)
    measured = statistics.mean_over_pairs(a, b, wcka.pairwise("wcka", products)[a, b])
    roots = np.sqrt([effective_rank(w) for w in products])
    by_rank = (roots[a] * roots[b]).mean() / (inputs - 1)
    by_size = 1 / (1 / outputs + 1 / (inputs - 1) + sum(1 / n for n in hidden)) / (inputs - 1)
    return inputs, outputs, *measured, by_rank, by_size


ends = pd.DataFrame(
    [floor(p, c, min(networks, 50)) for c in (1, 3, 10, 100) for p in (8, 28, 100, 784)],
    columns=["inputs", "outputs", "measured", "low", "high", "expected", "by size"])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-floor", "caption": "The floor of wCKA among untrained networks with the same hidden layers and other numbers of inputs and outputs: measured (points, with intervals over networks), expected from the chains' effective ranks (lines), and from the sizes alone (dashes). The paper's network is the right end of the line for 3 outputs."}, "image": {"alt": "Falling lines on logarithmic axes: floor of wCKA among untrained networks against number of inputs, one line for each number of outputs, with measured points close to the lines."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
shades = dict(zip(sorted(ends.outputs.unique()), ["#F0A26B", "#D55E00", "#8F3F00", "#4A2000"]))
for outputs, line in ends.groupby("outputs"):
    axes.plot(line.inputs, line.expected, color=shades[outputs], lw=1)
    axes.plot(line.inputs, line["by size"], color=shades[outputs], lw=1, ls=(0, (3, 3)))
    axes.errorbar(line.inputs, line.measured, [line.measured - line.low, line.high - line.measured],
                  fmt="o", ms=4, color=shades[outputs])
    axes.text(line.inputs.iloc[-1] * 1.1, line.expected.iloc[-1],
              f"{outputs} output{'s' * (outputs > 1)}", color=shades[outputs], va="center")
axes.set(xscale="log", yscale="log", xlabel="inputs", ylabel="wCKA of untrained networks",
         xlim=(7, 2300))
axes.set_xticks([8, 28, 100, 784], ["8", "28", "100", "784"])
axes.minorticks_off()
plt.show()

# %% tags=["remove-cell"]
of_three = ends[ends.outputs == 3].set_index("inputs")
say("floor-8", of_three.measured[8], ".2f")
say("floor-784", of_three.measured[784], ".4f")
say("expected-784", of_three.expected[784], ".4f")
for name, column in (("rank", "expected"), ("size", "by size")):
    say(f"{name}-low", (ends.measured / ends[column]).min(), ".2f")
    say(f"{name}-high", (ends.measured / ends[column]).max(), ".2f")

# %% [markdown]
# Measured over expected lies between {glue:text}`rank-low` and {glue:text}`rank-high` with the effective
# ranks of the chains, and between {glue:text}`size-low` and {glue:text}`size-high` with the sizes alone.
# With 784 inputs and three outputs the floor is {glue:text}`floor-784` (expected
# {glue:text}`expected-784`); with 8 inputs the same measure on the same kind of network has its floor
# at {glue:text}`floor-8`. So the answer to the question is: **the floor is what any product of
# random matrices gives in many dimensions.** It takes no insight into networks to reach it, and it is
# lost where inputs are few. It is the bias of the biased criterion of [chapter 1](01-theory), with
# pixels in the place of probes, and pixels are many. What remains a virtue is that this floor is *known
# beforehand*, while we have no such formula for activations: their floor must be measured for every
# set of probes. Where it matters, take $(C - \mathbb E C)/(1 - \mathbb E C)$, which leaves 1 in place.
#
# But the formula is about untrained networks. Who compares two *trained* networks wants to know what
# unrelated trained networks score. The paper does not say. Here are networks trained on the classes
# of this chapter, and others trained on {glue:text}`other-classes`: no class is shared, only the
# kind of image.

# %%
task = {"architecture": architecture, "dataset": dataset, "epochs": task_epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "device": device}
taught = [trained(seeds=list(range(first, first + task_networks)), classes=those, **task)
          for first, those in ((1000, classes), (2000, other_classes))]
untaught = initialise(architecture, range(2 * task_networks))
seen = image_sets.as_inputs(images)
a, b = np.triu_indices(2 * task_networks, 1)
across, rows = (a < task_networks) & (b >= task_networks), []
for measure in PAPER_MEASURES:
    features = {"untrained": [untaught], "trained": taught}
    for kind, groups in features.items():
        stack = [chains(g) if measure == "wcka" else g.activations(seen, layer) for g in groups]
        kw = {"inputs": seen} if measure == "dcka" else {}
        values = wcka.pairwise(measure, [f for s in stack for f in s], **kw)[a, b]
        for which, chosen in ((("untrained", a >= 0),) if kind == "untrained" else
                              (("different tasks", across), ("same task", ~across))):
            keep = chosen & np.isfinite(values)
            rows.append((measure, which, statistics.mean_over_pairs(a[keep], b[keep], values[keep])))
tasks = pd.DataFrame(rows, columns=["measure", "pairs", "mean"]).pivot(
    index="measure", columns="pairs", values="mean")
tasks = tasks.loc[list(PAPER_MEASURES), ["untrained", "different tasks", "same task"]]
tasks.map(lambda e: claims.interval(*e, ".3f")).rename(MEASURE_LABELS)

# %% tags=["remove-cell"]
glue("other-classes", ", ".join(map(str, other_classes)), display=False)
for which, short in (("different tasks", "other"), ("same task", "same")):
    say(f"wcka-{short}", tasks.loc["wcka", which].value)
    say(f"cka-{short}", tasks.loc["cka", which].value)

# %% [markdown]
# Networks trained on different tasks have a mean wCKA of {glue:text}`wcka-other`, those trained on the
# same task {glue:text}`wcka-same` (CKA, on this chapter's images: {glue:text}`cka-other` and
# {glue:text}`cka-same`). That first number, not the floor of untrained networks, is the zero to
# compare trained networks with; it has to be measured, on networks of the kind at hand.
#
# ## Which measures are calibrated?
#
# The four conditions of the beginning, for each measure, over all probes of this chapter.

# %%
def calibrated(measure):
    """Test the four conditions: the number that decides, and whether it is within the margin."""
    rows, by_size = by_probe.loc[measure], few[few.measure == measure].groupby("samples").similarity
    floors_seen = [*rows.floor, *(by_size.mean() if len(by_size) else [])]
    moved = max(np.ptp(floors_seen), np.ptp(rows.ceiling))
    gap = rows.lowest.min() - rows.highest.max()
    return {"floor (clean)": (rows.floor["clean"], rows.floor["clean"] <= margin),
            "lowest consecutive": (rows.lowest.min(), rows.lowest.min() >= 1 - margin),
            "gap between the ensembles": (gap, gap > 0),
            "fixed points move by": (moved, moved <= margin)}


conditions = pd.DataFrame({m: calibrated(m) for m in PAPER_MEASURES}).T
conditions.map(lambda cell: f"{'✓' if cell[1] else '✗'} {cell[0]:.3f}").rename(MEASURE_LABELS)

# %% tags=["remove-cell"]
met = conditions.map(lambda cell: bool(cell[1])).sum(axis=1)
for measure in PAPER_MEASURES:
    glue(f"met-{measure}", f"{met[measure]}", display=False)

# %% [markdown]
# Of the four conditions Procrustes meets {glue:text}`met-procrustes`, CKA {glue:text}`met-cka`, dCKA
# {glue:text}`met-dcka` and wCKA {glue:text}`met-wcka`.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
pooled = table.groupby(["measure", "ensemble"]).similarity.agg(["min", "max"])
pooled_overlap = pd.Series({m: statistics.overlap(*[rows[rows.ensemble == e].similarity
                                         for e in ("random", "adjacent")])
                            for m, rows in table.groupby("measure")})


def listed(values, form=".2f"):
    """Write one number a measure."""
    return ", ".join(f"{named[m]} {values[m]:{form}}" for m in values.index)


lowest, highest = pooled.loc[(slice(None), "adjacent"), "min"], pooled.loc[(slice(None), "random"), "max"]
lowest, highest = lowest.droplevel(1), highest.droplevel(1)
centred = {m: (abs(by_probe.loc[m].floor) < 0.02).mean() for m in ("dcka", NO_PSD)}
beyond = 1000 in floors.columns and floors.columns[-1] > 1000
results = [
    claims.Claim("abstract, 4", "wCKA is well-calibrated, the other measures are poorly",
                 "of four conditions (floor, ceiling, separation, fixed points) " + ", ".join(
                     f"{MEASURE_LABELS[m]} meets {met[m]}" for m in PAPER_MEASURES)
                 + "; whether one value means one likeness, and linearity, are judged in section 4",
                 verdicts.verdict(met["wcka"] == 4, met.drop("wcka").max() < 4)),
    claims.Claim("3.1, fig. 1a", "wCKA is close to 0 for untrained networks",
                 f"mean {interval(clean.loc['wcka'], 'floor')}, highest pair {highest['wcka']:.3f}",
                 verdicts.verdict(highest["wcka"] < margin)),
    claims.Claim("3.1, fig. 1a", "wCKA is close to 1 for adjacent epochs",
                 f"lowest pair {lowest['wcka']:.4f}", verdicts.verdict(lowest["wcka"] > 1 - margin)),
    claims.Claim("3.1, fig. 1a", "Procrustes and CKA show spurious similarity of untrained networks",
                 f"means {interval(clean.loc['procrustes'], 'floor')} and "
                 f"{interval(clean.loc['cka'], 'floor')}",
                 verdicts.verdict(*(clean.loc[["procrustes", "cka"], "floor low"] > 0.1))),
    claims.Claim("3.1, fig. 1a", "dCKA is unbiased: zero on average for untrained networks",
                 f"mean {interval(clean.loc['dcka'], 'floor')} with the paper's positive part, "
                 f"{interval(clean.loc[NO_PSD], 'floor')} without",
                 verdicts.verdict(*(abs(clean.loc[["dcka", NO_PSD], "floor"]) < 0.02))),
    claims.Claim("3.1, fig. 1a", "dCKA of untrained networks is uncertain: above 0.3, up to 0.5",
                 f"standard deviation {interval(clean.loc['dcka'], 'spread')}; highest pair "
                 f"{clean.loc['dcka', 'highest']:.2f} on clean probes, {highest['dcka']:.2f} on any",
                 verdicts.verdict(highest["dcka"] > 0.3)),
    claims.Claim("3.1, fig. 1a", "dCKA of adjacent epochs falls below 0.8 at times",
                 f"lowest pair {lowest['dcka']:.4f} on any probe after {converged[0]} epochs; "
                 f"{early_lowest['dcka']:.2f} from epoch 1 to {early[-1]}",
                 verdicts.verdict(lowest["dcka"] < 0.8)),
    claims.Claim("fig. 1a", "The two ensembles overlap for two of the activation measures",
                 "highest untrained against lowest adjacent pair, all probes together: "
                 + ", ".join(f"{named[m]} {highest[m]:.3f} and {lowest[m]:.4f}"
                             for m in activation_measures),
                 verdicts.verdict((highest > lowest)[activation_measures].sum() >= 2)),
    claims.Claim("fig. 1a", "wCKA separates the two ensembles",
                 f"{highest['wcka']:.3f} at most against {lowest['wcka']:.4f} at least; chance of a "
                 f"pair in the wrong order {pooled_overlap['wcka']:.0f}",
                 verdicts.verdict(highest["wcka"] < lowest["wcka"])),
    claims.Claim("1", "Unlike the others, wCKA tells the ensembles apart for any number of probes and "
                 "any corruption",
                 f"wCKA by construction; but so do the others on every corruption here, with all test images (chance of a "
                 f"pair in the wrong order: {listed(pooled_overlap[activation_measures])})",
                 verdicts.verdict(highest["wcka"] < lowest["wcka"],
                                bool((highest > lowest)[activation_measures].any()))),
    claims.Claim("3.1, fig. 1b", "Procrustes and CKA converge to a biased estimate, not to 0, as "
                 "the probes grow",
                 f"from {sizes[0]:,} to {sizes[-1]:,} probes: Procrustes "
                 f"{floors.loc['procrustes'].iloc[0]:.2f} to {floors.loc['procrustes'].iloc[-1]:.2f}, "
                 f"CKA {floors.loc['cka'].iloc[0]:.2f} to {floors.loc['cka'].iloc[-1]:.2f}",
                 verdicts.verdict(*(floors.loc[["procrustes", "cka"]].iloc[:, -1] > 0.1))),
    claims.Claim("3.1, fig. 1b", "dCKA's uncertainty shrinks slowly as the probes grow",
                 "standard deviation " + ", ".join(f"{widths.loc['dcka', n]:.3f} at {n:,}"
                                                   for n in widths.columns),
                 verdicts.verdict(widths.loc["dcka"].iloc[0] > widths.loc["dcka"].iloc[-1])),
    claims.Claim("fig. 1b", "Calibration improves up to 1,000 probes, then saturates",
                 "; ".join(f"{named[m]} falls by {floors.loc[m].iloc[0] - floors.loc[m, 1000]:.2f} "
                           f"up to 1,000 and by {floors.loc[m, 1000] - floors.loc[m].iloc[-1]:.3f} "
                           f"after" for m in activation_measures) if beyond
                 else "too few numbers of probes in this run",
                 verdicts.verdict(*[floors.loc[m].iloc[0] - floors.loc[m, 1000] > 0.1
                                  and floors.loc[m, 1000] - floors.loc[m].iloc[-1] < 0.02
                                  for m in activation_measures]) if beyond else "cannot be told"),
    claims.Claim("fig. 1c", "Cost of activation measures grows with the probes, that of wCKA does not",
                 f"growth exponents: {listed(pd.Series(exponents))}",
                 verdicts.verdict(abs(exponents["wcka"]) < 0.1,
                                *(exponents[m] > 0.1 for m in activation_measures)), timed=True),
    claims.Claim("fig. 1c", "wCKA is consistently cheap, cheaper than the others",
                 f"time over wCKA's at {median.columns[-1]:,} probes: "
                 f"{listed(ratios.iloc[:, -1], '.1f')}; cheaper than wCKA: "
                 f"{cheaper_text or 'none of them'}",
                 verdicts.verdict(*(ratios > 1).to_numpy().ravel()), timed=True),
    claims.Claim("fig. 5", "Fog makes more spurious similarity than impulse noise (Procrustes, CKA)",
                 f"Procrustes {means.loc['procrustes', 'fog']:.2f} against "
                 f"{means.loc['procrustes', 'impulse_noise']:.2f}, CKA {means.loc['cka', 'fog']:.2f} "
                 f"against {means.loc['cka', 'impulse_noise']:.2f}",
                 verdicts.verdict(*(means.loc[m, "fog"] > means.loc[m, "impulse_noise"]
                                  for m in ("procrustes", "cka")))),
    claims.Claim("fig. 5", "For dCKA, fog makes more variance than impulse noise",
                 f"standard deviation {spread.loc['dcka', 'fog']:.3f} against "
                 f"{spread.loc['dcka', 'impulse_noise']:.3f}; without the positive part "
                 f"{spread.loc[NO_PSD, 'fog']:.3f} against "
                 f"{spread.loc[NO_PSD, 'impulse_noise']:.3f}",
                 verdicts.verdict(spread.loc["dcka", "fog"] > spread.loc["dcka", "impulse_noise"])),
    claims.Claim("fig. 5", "dCKA centres on zero under every corruption",
                 f"mean within 0.02 of zero for {100 * centred['dcka']:.0f} % of the probe sets, "
                 f"without the positive part for {100 * centred[NO_PSD]:.0f} %",
                 verdicts.verdict(centred["dcka"] == 1, centred[NO_PSD] == 1)),
]
claims.show(results)

# %% [markdown]
# ## To take away
#
# - wCKA has no probes, so nothing about them can move its fixed points.
# - Its floor at zero comes from the number of inputs, not from insight; among untrained networks it can
#   be computed beforehand.
# - Between trained networks the zero is what unrelated trained networks score: measure it.
# - The floors of activation measures are the images' doing, and move with them.
# - dCKA is two measures under one name: with and without the positive part.
# - A ceiling at one says that training has stopped. It tells measures apart only where it has not.
