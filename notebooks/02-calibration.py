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
from wcka.experiments import (
    cached,
    ensemble_similarities,
    jobs,
    statistics,
    trained,
)
from wcka.measures import MEASURE_LABELS, NO_PSD, PAPER_MEASURES, nearest
from wcka.networks import (
    PROBES,
    chains,
    image_sets,
    initialise,
    probe_images,
    resolve_device,
)

figures.style()


# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 02 -p networks 30 -p layer 2`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
hidden: list[int] = [32, 32, 32, 32]  # widths of the hidden layers
# layer whose activations are compared: 1 to 4 are hidden, 5 the logits
layer: int = 4
networks: int = 100  # untrained networks
epochs_before: int = 95  # epochs before the first checkpoint is kept
epochs_after: int = 100  # further epochs, each of them kept
batch_size: int = 256  # images in one step of training
learning_rate: float = 0.001  # of Adam
# consecutive epochs at the start of training that are compared as well
early_epochs: int = 20
# clean, names of corruptions (fog, impulse_noise, ...), or "corruptions" for
# all 15
probe_sets: list[str] = ["clean", "corruptions"]
# numbers of probes, figure 1b
sample_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]
sample_draws: int = 2  # random draws of that many probes
# numbers of probes, figure 1c
timing_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]
# as many, of networks that share the images but not the task
other_classes: list[int] = [3, 4, 5]
task_networks: int = 10  # networks trained on each of the two tasks
task_epochs: int = 10  # epochs of their training
timing_runs: int = 100  # runs of each measure and size, as in the paper
margin: float = 0.05  # how far from 0 and 1 still counts as calibrated
# of the first network, of the corruptions and of the draws of probes
seed: int = 0
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""
# where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is
# one
device: str = "cpu"

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
distinct(other_classes=(other_classes, 2))
image_sets.check_classes(dataset, other_classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = []
for entry in probe_sets:
    if entry == "corruptions":
        probe_names.extend(wcka.CORRUPTIONS)
    else:
        probe_names.append(entry)
for name in probe_names:
    nearest(name, PROBES, "probe in probe_sets")
if not {"clean", "fog", "impulse_noise"} <= set(probe_names):
    raise ValueError("probe_sets: the claims need clean, fog and "
                     f"impulse_noise; got {probe_sets}")
distinct(
    classes=(classes, 2),
    other_classes=(other_classes, len(classes)),
    sample_sizes=(sample_sizes, 1),
    timing_sizes=(timing_sizes, 3),
)
within(
    hidden=(hidden, 1, 10000),
    layer=(layer, 1, len(hidden) + 1),
    networks=(networks, 3, 1000),
    epochs_before=(epochs_before, 2, 10000),
    epochs_after=(epochs_after, 2, 10000),
    batch_size=(batch_size, 1, 60000),
    learning_rate=(learning_rate, 1e-9, 1),
    early_epochs=(early_epochs, 2, 10000),
    sample_sizes=(sample_sizes, 2, 10000),
    sample_draws=(sample_draws, 1, 1000),
    timing_sizes=(timing_sizes, 2, 10000),
    task_networks=(task_networks, 3, 1000),
    task_epochs=(task_epochs, 1, 1000),
    timing_runs=(timing_runs, 1, 100000),
    margin=(margin, 0, 1),
    seed=(seed, 0, 2**31),
)
if len(other_classes) != len(classes):
    raise ValueError(f"other_classes: wanted {len(classes)}, as many as "
                     f"classes; got {other_classes}")

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
architecture = {
    "factory": "mlp",
    "widths": [784, *hidden, len(classes)],
    "activation": "relu",
}
untrained = {
    "architecture": architecture,
    "seeds": list(range(seed, seed + networks)),
}
last_epoch = epochs_before + epochs_after
converged = list(range(epochs_before, last_epoch + 1))
early = list(range(min(early_epochs, epochs_before) + 1))
trajectory = {
    "architecture": architecture,
    "seeds": [seed],
    "dataset": dataset,
    "classes": classes,
    "epochs": last_epoch,
    "checkpoints": sorted({*early, *converged}),
    "learning_rate": learning_rate,
    "batch_size": batch_size,
    "device": device,
}
population = trained(**trajectory)

images, labels = image_sets.load(dataset, "test", classes)
inputs = image_sets.as_inputs(images)
accuracy = pd.Series(population.accuracy(inputs, labels),
                     index=population.members.epoch, name="test accuracy")
example_epochs = [0, early[-1], converged[0], converged[-1]]
accuracy.loc[example_epochs].to_frame().style.format("{:.4f}")

# %% [markdown]
# ## Floor and ceiling (figure 1a)
#
# All pairs of untrained networks, and all pairs of consecutive epochs, by all four measures. The
# activation measures are probed with all test images of the three classes, clean and under each of
# the 15 corruptions of MNIST-C {cite}`mu2019`. (The paper's text says 3,147 test images, which is the
# count of these digits; the caption of its figure 1 says 3,417, a slip.)

# %%
activation_measures = list(PAPER_MEASURES[:3])
common = {"layer": layer, "dataset": dataset, "classes": classes, "seed": seed}
ensembles = {
    "random": untrained,
    "adjacent": {**trajectory, "compared": converged},
}
probe_jobs = []
for name in probe_names:
    probe_jobs.append({
        "ensembles": ensembles,
        "probe_name": name,
        "samples": None,
        "draw": 0,
        "measures": [*PAPER_MEASURES, NO_PSD],
        **common,
    })
table = jobs.run_jobs(ensemble_similarities, probe_jobs, description="probes",
                      scheduler=scheduler)
dead = table[table.similarity.isna()]
n_all = len(table)
table = table.dropna(subset="similarity")
glue("n-images", f"{len(images):,}", display=False)
glue("n-dead", f"{len(dead):,} of {n_all:,}", display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles", "caption": "Similarity of pairs of untrained networks (green) and of one network at consecutive epochs (purple, a diamond at the mean), by four measures; the paper's figure 1a. Left: probed with the clean test images. Right: with all corruptions together. wCKA sees no probes and is the same in both."}, "image": {"alt": "Two panels of enhanced box plots, four measures each: similarity of untrained networks in green and of consecutive epochs of one network in purple, with clean probes on the left and corrupted probes on the right."}}
RANDOM_COLOR = figures.ENSEMBLE_COLORS["random"]
ADJACENT_COLOR = figures.ENSEMBLE_COLORS["adjacent"]


def draw_ensembles(axes, rows):
    """Draw the similarities of both ensembles by all measures."""
    figures.boxen(axes, rows, x="measure", y="similarity", hue="ensemble",
                  order=PAPER_MEASURES,
                  hue_order=list(figures.ENSEMBLE_COLORS),
                  palette=figures.ENSEMBLE_COLORS, legend=False)
    adjacent = rows[rows.ensemble == "adjacent"]
    means = adjacent.groupby("measure").similarity.mean()
    axes.scatter(np.arange(4) + 0.2, means[list(PAPER_MEASURES)], marker="D",
                 s=40, zorder=5, color=ADJACENT_COLOR, edgecolor="white")
    axes.set_xticks(range(4), [MEASURE_LABELS[m] for m in PAPER_MEASURES])
    axes.set(xlabel="", ylim=(-0.03, 1.05))


fig, (left, right) = plt.subplots(
    1, 2, figsize=(figures.WIDTH, 3.6), sharey=True)
draw_ensembles(left, table[table["probe"] == "clean"])
draw_ensembles(right, table[table["probe"] != "clean"])
left.set(title="clean probes", ylabel="similarity")
right.set(title="corrupted probes", ylabel="")
right.text(3.5, 0.91, "consecutive epochs", color=ADJACENT_COLOR, ha="right")
right.text(3.5, 0.08, "untrained", color=RANDOM_COLOR, ha="right")
plt.show()

# %% [markdown]
# The numbers behind it, with clean probes. Floor and spread (the standard deviation of untrained
# pairs) have intervals that leave out whole networks, since pairs that share a network are not
# independent observations. The ceiling is one network's, and its range is that of its 95 % middle
# pairs: other networks may settle elsewhere.

# %%
def summary(rows):
    """Floor, spread, ceiling and separation of one measure."""
    random = rows[rows.ensemble == "random"]
    adjacent = rows[rows.ensemble == "adjacent"]
    floor = statistics.mean_over_pairs(random.a, random.b, random.similarity)
    squares = (random.similarity - floor.value) ** 2
    variance = statistics.mean_over_pairs(random.a, random.b, squares)
    # The lower end of the interval of a variance may lie below zero.
    spread, spread_low, spread_high = np.sqrt(np.maximum(variance, 0))
    middle = adjacent.similarity.quantile([0.025, 0.975])
    return pd.Series({
        "floor": floor.value,
        "floor low": floor.low,
        "floor high": floor.high,
        "spread": spread,
        "spread low": spread_low,
        "spread high": spread_high,
        "highest": random.similarity.max(),
        "ceiling": adjacent.similarity.mean(),
        "ceiling low": middle.iloc[0],
        "ceiling high": middle.iloc[1],
        "lowest": adjacent.similarity.min(),
    })


def with_interval(row, name):
    """Write a number of a summary with its interval, in enough digits."""
    value = row[name]
    low = row[f"{name} low"]
    high = row[f"{name} high"]
    digits = 3 if abs(value) > 0.01 and low < 0.99 else 5
    return claims.interval(value, low, high, f".{digits}f")


by_probe = table.groupby(["measure", "probe"])[table.columns].apply(summary)
clean = by_probe.xs("clean", level="probe")
measure_names = {**MEASURE_LABELS, NO_PSD: "dCKA, no PSD step"}
summary_rows = {}
for measure in [*PAPER_MEASURES, NO_PSD]:
    row = clean.loc[measure]
    summary_rows[measure_names[measure]] = {
        "floor": with_interval(row, "floor"),
        "spread": with_interval(row, "spread"),
        "highest untrained": f"{row['highest']:.3f}",
        "ceiling": with_interval(row, "ceiling"),
    }
summary_table = pd.DataFrame.from_dict(summary_rows, orient="index")
summary_table.rename_axis("clean probes")

# %% tags=["remove-cell"]
for measure in PAPER_MEASURES:
    say(f"floor-{measure}", clean.loc[measure, "floor"])
say("floor-no-psd", clean.loc[NO_PSD, "floor"])
say("wcka-highest", clean.loc["wcka", "highest"])
say("lowest-adjacent", by_probe.lowest.min(), ".4f")
for measure, name in (("dcka", "psd"), (NO_PSD, "no-psd")):
    floors_of_probes = by_probe.loc[measure].floor
    say(f"{name}-low", floors_of_probes.min())
    say(f"{name}-high", floors_of_probes.max())

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
moving_ensembles = {
    "early": {**trajectory, "compared": early},
    "converged": {**trajectory, "compared": converged},
}
moving = ensemble_similarities(
    moving_ensembles, "clean", None, 0, layer, list(PAPER_MEASURES),
    dataset, classes, seed)
# Column b counts the later network of each pair within its ensemble.
early_epoch = moving.b.map(dict(enumerate(early)))
converged_epoch = moving.b.map(dict(enumerate(converged)))
moving["epoch"] = early_epoch.where(
    moving.ensemble == "early", converged_epoch)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-moving", "caption": "How far one network is from its previous epoch, by four measures with clean probes, from the first epoch on. Both axes are logarithmic; the gap are epochs that were not kept."}, "image": {"alt": "Curves of one minus similarity of consecutive epochs against epoch, on logarithmic axes, one a measure: the first epochs at the left, the epochs after convergence at the right."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
for measure in PAPER_MEASURES:
    of_measure = moving[moving.measure == measure]
    width = 2 if measure == "wcka" else 1.2
    for ensemble, line in of_measure.groupby("ensemble"):
        # One entry per measure in the legend.
        label = MEASURE_LABELS[measure] if ensemble == "early" else None
        axes.plot(line.epoch, 1 - line.similarity, lw=width, label=label,
                  color=figures.MEASURE_COLORS[measure])
axes.set(xscale="log", yscale="log", xlabel="epoch",
         ylabel="1 − similarity to the epoch before")
axes.legend()
plt.show()

# %% tags=["remove-cell"]
first = moving[moving.epoch == 1].set_index("measure").similarity
after_first = moving[(moving.ensemble == "early") & (moving.epoch > 1)]
early_lowest = after_first.groupby("measure").similarity.min()
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
height = 0.36 * len(probe_names) + 0.9
fig, panels = plt.subplots(1, 4, figsize=(figures.WIDTH, height), sharey=True)
for axes, measure in zip(panels, PAPER_MEASURES):
    figures.boxen(axes, random[random.measure == measure], y="probe",
                  x="similarity", order=probe_names,
                  color=figures.MEASURE_COLORS[measure])
    axes.set(xlabel="similarity", ylabel="", xlim=(-0.03, 1.03),
             title=MEASURE_LABELS[measure])
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.4)
panels[0].tick_params(axis="y", pad=30)  # room for the pictures
# The first test image of the last class, through each corruption.
example = int(np.flatnonzero(labels == labels.max())[0])
for i, name in enumerate(probe_names):
    picture = probe_images(dataset, tuple(classes), name, seed)[example]
    figures.thumbnail(panels[0], picture, i)
with figures.many_marks():
    plt.show()

# %% tags=["remove-cell"]
floor_by_probe = by_probe.floor.unstack()  # rows: measures, columns: probes
spread_by_probe = by_probe.spread.unstack()


def first_direction(name):
    """Share of the probes' variance along their first principal direction."""
    pictures = probe_images(dataset, tuple(classes), name, seed)
    x = image_sets.as_inputs(pictures).double().numpy()
    squares = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    return squares[0] / squares.sum()


short_names = {"clean": "clean", "fog": "fog", "impulse_noise": "impulse"}
for name, short in short_names.items():
    say(f"direction-{short}", 100 * first_direction(name), ".0f")
    for measure in ("procrustes", "cka"):
        say(f"{short}-{measure}", floor_by_probe.loc[measure, name], ".2f")
    say(f"{short}-spread", spread_by_probe.loc["dcka", name])

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
sample_jobs = []
for n in sizes:
    # All images can be drawn in one way only.
    draws = sample_draws if n < len(images) else 1
    for draw in range(draws):
        sample_jobs.append({
            "ensembles": {"random": untrained},
            "probe_name": "clean",
            "samples": n,
            "draw": draw,
            "measures": activation_measures,
            **common,
        })
few = jobs.run_jobs(
    ensemble_similarities, sample_jobs, description="numbers of probes",
    scheduler=scheduler)
few = few.dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Similarity of untrained networks against the number of clean probes; the paper's figure 1b. wCKA uses no probes: its level is dashed."}, "image": {"alt": "Three panels of enhanced box plots of similarity over numbers of probes, one for Procrustes, CKA and dCKA each, and a dashed line at the level of wCKA."}}
wcka_floor = clean.loc["wcka", "floor"]
wcka_color = figures.MEASURE_COLORS["wcka"]
size_labels = [f"{n:,}" for n in sizes]
fig, panels = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.2), sharey=True)
for axes, measure in zip(panels, activation_measures):
    figures.boxen(axes, few[few.measure == measure], x="samples",
                  y="similarity", order=sizes,
                  color=figures.MEASURE_COLORS[measure])
    axes.axhline(wcka_floor, color=wcka_color, ls="--", lw=1.2)
    axes.set(title=MEASURE_LABELS[measure], xlabel="probes",
             ylabel="similarity", ylim=(-0.03, 1.03))
    axes.set_xticks(range(len(sizes)), size_labels, rotation=45)
panels[0].text(len(sizes) - 0.6, wcka_floor + 0.02, "wCKA", color=wcka_color,
               ha="right", va="bottom")
plt.show()

# %% tags=["remove-cell"]
by_size = few.groupby(["measure", "samples"]).similarity
floors = by_size.mean().unstack()  # rows: measures, columns: numbers of probes
spreads = by_size.std().unstack()
for measure in activation_measures:
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
def timings(untrained: dict, sizes: list, runs: int, layer: int, dataset: str,
            classes: list, seed: int, machine: str) -> pd.DataFrame:
    """Seconds of single comparisons.

    Measures are interleaved, so that a busy moment hits all of them.
    """
    def seconds(function, *arguments):
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start

    population = initialise(**untrained)
    n_networks = len(population)
    members = [population.member(i) for i in range(n_networks)]
    images = probe_images(dataset, tuple(classes), "clean", seed)
    all_inputs = image_sets.as_inputs(images)
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(runs):
        pairs.append(rng.choice(n_networks, 2, replace=False))
    rows = []
    for n in sizes:
        inputs = all_inputs[:n]
        activations = population.activations(inputs, layer)
        for i, j in pairs:
            x = activations[i]
            y = activations[j]
            calls = {
                "procrustes": (wcka.procrustes, x, y),
                "cka": (wcka.cka, x, y),
                "dcka": (wcka.dcka, x, y, inputs),
                "wcka": (wcka.wcka, members[i], members[j]),
            }
            for measure, call in calls.items():
                rows.append((measure, n, seconds(*call)))
    return pd.DataFrame(rows, columns=["measure", "samples", "seconds"])


machine = (f"{platform.platform()} {platform.processor()} "
           f"torch {torch.__version__}")
timed_sizes = sorted({min(n, len(images)) for n in timing_sizes})
times = timings(untrained, timed_sizes, timing_runs, layer, dataset, classes,
                seed, machine)
median = times.groupby(["measure", "samples"]).seconds.median().unstack()
median = median.loc[list(PAPER_MEASURES)]
# Slopes of the largest sizes; the smaller ones are all overhead.
largest = median.iloc[:, -3:]
log_sizes = np.log(largest.columns.astype(float))
exponents = {}
for measure in PAPER_MEASURES:
    log_seconds = np.log(largest.loc[measure])
    slope, _ = np.polyfit(log_sizes, log_seconds, 1)
    exponents[measure] = slope

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-time", "caption": "Time of one comparison against the number of probes, on logarithmic axes; the paper's figure 1c. In brackets the slopes of the medians over the last three sizes (0 is constant, 1 proportional). wCKA does not see the probes."}, "image": {"alt": "Enhanced box plots of the time of one comparison against the number of probes, for four measures, on logarithmic axes, each labelled with its growth exponent."}}
n_sizes = median.shape[1]
size_labels = [f"{n:,}" for n in median.columns]
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.8))
figures.boxen(axes, times.assign(ms=1e3 * times.seconds), x="samples", y="ms",
              hue="measure", hue_order=PAPER_MEASURES,
              palette=figures.MEASURE_COLORS, legend=False)
axes.set(yscale="log", xlabel="probes", ylabel="milliseconds")
axes.set_xticks(range(n_sizes), size_labels)
axes.set_xlim(-0.6, n_sizes + 0.7)
# Labels of similar times must not lie on each other.
heights = np.log10(1e3 * median.iloc[:, -1].sort_values())
for i in range(1, len(heights)):
    heights.iloc[i] = max(heights.iloc[i], heights.iloc[i - 1] + 0.2)
for measure, height in heights.items():
    exponent = round(exponents[measure], 1) + 0.0  # no minus zero
    axes.text(n_sizes - 0.4, 10**height,
              f"{MEASURE_LABELS[measure]} ({exponent})",
              color=figures.MEASURE_COLORS[measure], va="center")
plt.show()

# %% tags=["remove-cell", "timing"]
glue("timed-most", f"{median.columns[-1]:,}", display=False)
ratios = median.loc[activation_measures] / median.loc["wcka"]
cheaper_texts = []
for measure in activation_measures:
    row = ratios.loc[measure]
    say(f"ratio-{measure}", row.iloc[-1], ".1f")
    if (row < 1).any():
        size = ratios.columns[row < 1].max()
        cheaper_texts.append(
            f"{MEASURE_LABELS[measure]} up to {size:,} probes")
cheaper_text = "; ".join(cheaper_texts) or "none of them"
glue("cheaper", cheaper_text, display=False)

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
    centred = chain - chain.mean(0)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    return squares.sum() ** 2 / (squares**2).sum()


def floors_of_sizes(n_inputs, n_outputs, count):
    """Measured and expected floor of wCKA among untrained networks."""
    sized = {
        "factory": "mlp",
        "widths": [n_inputs, *hidden, n_outputs],
        "activation": "relu",
    }
    population = initialise(sized, range(seed, seed + count))
    products = chains(population).numpy()  # (networks, inputs, outputs)
    a, b = np.triu_indices(count, 1)
    similarities = wcka.pairwise("wcka", products)[a, b]
    measured = statistics.mean_over_pairs(a, b, similarities)
    roots = np.sqrt([effective_rank(chain) for chain in products])
    by_rank = (roots[a] * roots[b]).mean() / (n_inputs - 1)
    inverse_rank = (1 / n_outputs + 1 / (n_inputs - 1)
                    + sum(1 / width for width in hidden))
    by_size = 1 / inverse_rank / (n_inputs - 1)
    return {
        "inputs": n_inputs,
        "outputs": n_outputs,
        "measured": measured.value,
        "low": measured.low,
        "high": measured.high,
        "expected": by_rank,
        "by size": by_size,
    }


size_rows = []
for n_outputs in (1, 3, 10, 100):
    for n_inputs in (8, 28, 100, 784):
        size_rows.append(
            floors_of_sizes(n_inputs, n_outputs, min(networks, 50)))
sized_floors = pd.DataFrame(size_rows)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-floor", "caption": "The floor of wCKA among untrained networks with the same hidden layers and other numbers of inputs and outputs: measured (points, with intervals over networks), expected from the chains' effective ranks (lines), and from the sizes alone (dashes). The paper's network is the right end of the line for 3 outputs."}, "image": {"alt": "Falling lines on logarithmic axes: floor of wCKA among untrained networks against number of inputs, one line for each number of outputs, with measured points close to the lines."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
numbers_of_outputs = sorted(sized_floors.outputs.unique())
shades = dict(zip(
    numbers_of_outputs, ["#F0A26B", "#D55E00", "#8F3F00", "#4A2000"]))
for n_outputs, line in sized_floors.groupby("outputs"):
    shade = shades[n_outputs]
    axes.plot(line.inputs, line.expected, color=shade, lw=1)
    axes.plot(line.inputs, line["by size"], color=shade, lw=1, ls=(0, (3, 3)))
    errors = [line.measured - line.low, line.high - line.measured]
    axes.errorbar(line.inputs, line.measured, errors, fmt="o", ms=4,
                  color=shade)
    label = "1 output" if n_outputs == 1 else f"{n_outputs} outputs"
    axes.text(line.inputs.iloc[-1] * 1.1, line.expected.iloc[-1], label,
              color=shade, va="center")
axes.set(xscale="log", yscale="log", xlabel="inputs",
         ylabel="wCKA of untrained networks", xlim=(7, 2300))
axes.set_xticks([8, 28, 100, 784], ["8", "28", "100", "784"])
axes.minorticks_off()
plt.show()

# %% tags=["remove-cell"]
three_outputs = sized_floors[sized_floors.outputs == 3].set_index("inputs")
say("floor-8", three_outputs.measured[8], ".2f")
say("floor-784", three_outputs.measured[784], ".4f")
say("expected-784", three_outputs.expected[784], ".4f")
for name, column in (("rank", "expected"), ("size", "by size")):
    measured_over_expected = sized_floors.measured / sized_floors[column]
    say(f"{name}-low", measured_over_expected.min(), ".2f")
    say(f"{name}-high", measured_over_expected.max(), ".2f")

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
task = {
    "architecture": architecture,
    "dataset": dataset,
    "epochs": task_epochs,
    "batch_size": batch_size,
    "learning_rate": learning_rate,
    "device": device,
}
trained_populations = []
for first_seed, task_classes in ((1000, classes), (2000, other_classes)):
    task_seeds = list(range(first_seed, first_seed + task_networks))
    trained_populations.append(
        trained(seeds=task_seeds, classes=task_classes, **task))
untrained_population = initialise(architecture, range(2 * task_networks))
# All pairs of the networks of both tasks; the first half is of one task.
a, b = np.triu_indices(2 * task_networks, 1)
is_across = (a < task_networks) & (b >= task_networks)


def pair_similarities(measure, populations):
    """Similarities of all pairs of the networks of these populations."""
    features = []
    for population in populations:
        if measure == "wcka":
            features.extend(chains(population))
        else:
            features.extend(population.activations(inputs, layer))
    options = {}
    if measure == "dcka":
        options["inputs"] = inputs
    return wcka.pairwise(measure, features, **options)[a, b]


def finite_mean(values, is_chosen):
    """Mean of the chosen pairs that have a similarity, and its interval."""
    is_kept = is_chosen & np.isfinite(values)
    return statistics.mean_over_pairs(a[is_kept], b[is_kept], values[is_kept])


all_pairs = np.full(len(a), True)
task_means = {}
for measure in PAPER_MEASURES:
    untrained_values = pair_similarities(measure, [untrained_population])
    trained_values = pair_similarities(measure, trained_populations)
    task_means[measure] = {
        "untrained": finite_mean(untrained_values, all_pairs),
        "different tasks": finite_mean(trained_values, is_across),
        "same task": finite_mean(trained_values, ~is_across),
    }
tasks = pd.DataFrame(task_means).T
tasks = tasks.rename_axis(index="measure", columns="pairs")
tasks.map(lambda mean: claims.interval(*mean, ".3f")).rename(MEASURE_LABELS)

# %% tags=["remove-cell"]
glue("other-classes", ", ".join(map(str, other_classes)), display=False)
for pairs, short in (("different tasks", "other"), ("same task", "same")):
    say(f"wcka-{short}", tasks.loc["wcka", pairs].value)
    say(f"cka-{short}", tasks.loc["cka", pairs].value)

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
    """Test the four conditions of a measure.

    Of each: the number that decides, and whether it is within the margin.
    """
    rows = by_probe.loc[measure]
    floor = rows.floor["clean"]
    lowest = rows.lowest.min()
    gap = lowest - rows.highest.max()
    of_measure = few[few.measure == measure]
    floors_of_sizes = of_measure.groupby("samples").similarity.mean()
    all_floors = [*rows.floor, *floors_of_sizes]
    drift = max(np.ptp(all_floors), np.ptp(rows.ceiling))
    return {
        "floor (clean)": (floor, floor <= margin),
        "lowest consecutive": (lowest, lowest >= 1 - margin),
        "gap between the ensembles": (gap, gap > 0),
        "fixed points move by": (drift, drift <= margin),
    }


def condition_text(condition):
    """A mark of whether a condition is met, and its number."""
    number, is_met = condition
    mark = "✓" if is_met else "✗"
    return f"{mark} {number:.3f}"


conditions = pd.DataFrame({m: calibrated(m) for m in PAPER_MEASURES}).T
conditions.map(condition_text).rename(MEASURE_LABELS)

# %% tags=["remove-cell"]
n_met = conditions.map(lambda condition: bool(condition[1])).sum(axis=1)
for measure in PAPER_MEASURES:
    glue(f"met-{measure}", f"{n_met[measure]}", display=False)

# %% [markdown]
# Of the four conditions Procrustes meets {glue:text}`met-procrustes`, CKA {glue:text}`met-cka`, dCKA
# {glue:text}`met-dcka` and wCKA {glue:text}`met-wcka`.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
def listed(values, form=".2f"):
    """Write one number per measure."""
    texts = []
    for measure, value in values.items():
        texts.append(f"{measure_names[measure]} {value:{form}}")
    return ", ".join(texts)


def summary_text(measure, name):
    """A number of a measure's summary on clean probes, with its interval."""
    return with_interval(clean.loc[measure], name)


# Separation, all probes together.
pooled = table.groupby(["measure", "ensemble"]).similarity.agg(["min", "max"])
lowest = pooled["min"].xs("adjacent", level="ensemble")
highest = pooled["max"].xs("random", level="ensemble")
pooled_overlap = {}
for measure, rows in table.groupby("measure"):
    pooled_overlap[measure] = statistics.overlap(
        rows[rows.ensemble == "random"].similarity,
        rows[rows.ensemble == "adjacent"].similarity)
pooled_overlap = pd.Series(pooled_overlap)
ensembles_meet = (highest > lowest)[activation_measures]
extreme_texts = []
for measure in activation_measures:
    extreme_texts.append(f"{measure_names[measure]} {highest[measure]:.3f} and "
                         f"{lowest[measure]:.4f}")

# The four conditions.
met_texts = []
for measure in PAPER_MEASURES:
    met_texts.append(f"{MEASURE_LABELS[measure]} meets {n_met[measure]}")

# Numbers of probes; what happens beyond 1,000 needs more than 1,000 probes.
first_floors = floors.iloc[:, 0]
last_floors = floors.iloc[:, -1]
dcka_spreads = spreads.loc["dcka"]
spread_texts = [f"{value:.3f} at {n:,}" for n, value in dcka_spreads.items()]
if 1000 in floors.columns and floors.columns[-1] > 1000:
    saturation_texts = []
    saturates = []
    for measure in activation_measures:
        fall = first_floors[measure] - floors.loc[measure, 1000]
        fall_after = floors.loc[measure, 1000] - last_floors[measure]
        saturation_texts.append(
            f"{measure_names[measure]} falls by {fall:.2f} up to 1,000 and by "
            f"{fall_after:.3f} after")
        saturates.append(fall > 0.1 and fall_after < 0.02)
    saturation_text = "; ".join(saturation_texts)
    saturation_verdict = verdicts.verdict(*saturates)
else:
    saturation_text = "too few numbers of probes in this run"
    saturation_verdict = "cannot be told"

# Time.
cost_grows = [exponents[measure] > 0.1 for measure in activation_measures]
last_ratios = ratios.iloc[:, -1]

# Corruptions.
fog = floor_by_probe["fog"]
impulse = floor_by_probe["impulse_noise"]
fog_spread = spread_by_probe["fog"]
impulse_spread = spread_by_probe["impulse_noise"]
centred = {}  # share of the probe sets
for measure in ("dcka", NO_PSD):
    centred[measure] = (abs(by_probe.loc[measure].floor) < 0.02).mean()

results = [
    claims.Claim(
        "abstract, 4",
        "wCKA is well-calibrated, the other measures are poorly",
        "of four conditions (floor, ceiling, separation, fixed points) "
        + ", ".join(met_texts)
        + "; whether one value means one likeness, and linearity, are judged "
        "in section 4",
        verdicts.verdict(n_met["wcka"] == 4, n_met.drop("wcka").max() < 4)),
    claims.Claim(
        "3.1, fig. 1a",
        "wCKA is close to 0 for untrained networks",
        f"mean {summary_text('wcka', 'floor')}, highest pair "
        f"{highest['wcka']:.3f}",
        verdicts.verdict(highest["wcka"] < margin)),
    claims.Claim(
        "3.1, fig. 1a",
        "wCKA is close to 1 for adjacent epochs",
        f"lowest pair {lowest['wcka']:.4f}",
        verdicts.verdict(lowest["wcka"] > 1 - margin)),
    claims.Claim(
        "3.1, fig. 1a",
        "Procrustes and CKA show spurious similarity of untrained networks",
        f"means {summary_text('procrustes', 'floor')} and "
        f"{summary_text('cka', 'floor')}",
        verdicts.verdict(clean.loc["procrustes", "floor low"] > 0.1,
                         clean.loc["cka", "floor low"] > 0.1)),
    claims.Claim(
        "3.1, fig. 1a",
        "dCKA is unbiased: zero on average for untrained networks",
        f"mean {summary_text('dcka', 'floor')} with the paper's positive part, "
        f"{summary_text(NO_PSD, 'floor')} without",
        verdicts.verdict(abs(clean.loc["dcka", "floor"]) < 0.02,
                         abs(clean.loc[NO_PSD, "floor"]) < 0.02)),
    claims.Claim(
        "3.1, fig. 1a",
        "dCKA of untrained networks is uncertain: above 0.3, up to 0.5",
        f"standard deviation {summary_text('dcka', 'spread')}; highest pair "
        f"{clean.loc['dcka', 'highest']:.2f} on clean probes, "
        f"{highest['dcka']:.2f} on any",
        verdicts.verdict(highest["dcka"] > 0.3)),
    claims.Claim(
        "3.1, fig. 1a",
        "dCKA of adjacent epochs falls below 0.8 at times",
        f"lowest pair {lowest['dcka']:.4f} on any probe after {converged[0]} "
        f"epochs; {early_lowest['dcka']:.2f} from epoch 1 to {early[-1]}",
        verdicts.verdict(lowest["dcka"] < 0.8)),
    claims.Claim(
        "fig. 1a",
        "The two ensembles overlap for two of the activation measures",
        "highest untrained against lowest adjacent pair, all probes together: "
        + ", ".join(extreme_texts),
        verdicts.verdict(ensembles_meet.sum() >= 2)),
    claims.Claim(
        "fig. 1a",
        "wCKA separates the two ensembles",
        f"{highest['wcka']:.3f} at most against {lowest['wcka']:.4f} at least; "
        "chance of a pair in the wrong order "
        f"{pooled_overlap['wcka']:.0f}",
        verdicts.verdict(highest["wcka"] < lowest["wcka"])),
    claims.Claim(
        "1",
        "Unlike the others, wCKA tells the ensembles apart for any number of "
        "probes and any corruption",
        "wCKA by construction; but so do the others on every corruption here, "
        "with all test images (chance of a pair in the wrong order: "
        f"{listed(pooled_overlap[activation_measures])})",
        verdicts.verdict(highest["wcka"] < lowest["wcka"],
                         bool(ensembles_meet.any()))),
    claims.Claim(
        "3.1, fig. 1b",
        "Procrustes and CKA converge to a biased estimate, not to 0, as the "
        "probes grow",
        f"from {sizes[0]:,} to {sizes[-1]:,} probes: Procrustes "
        f"{first_floors['procrustes']:.2f} to {last_floors['procrustes']:.2f}, "
        f"CKA {first_floors['cka']:.2f} to {last_floors['cka']:.2f}",
        verdicts.verdict(last_floors["procrustes"] > 0.1,
                         last_floors["cka"] > 0.1)),
    claims.Claim(
        "3.1, fig. 1b",
        "dCKA's uncertainty shrinks slowly as the probes grow",
        "standard deviation " + ", ".join(spread_texts),
        verdicts.verdict(dcka_spreads.iloc[0] > dcka_spreads.iloc[-1])),
    claims.Claim(
        "fig. 1b",
        "Calibration improves up to 1,000 probes, then saturates",
        saturation_text,
        saturation_verdict),
    claims.Claim(
        "fig. 1c",
        "Cost of activation measures grows with the probes, that of wCKA does "
        "not",
        f"growth exponents: {listed(pd.Series(exponents))}",
        verdicts.verdict(abs(exponents["wcka"]) < 0.1, *cost_grows),
        timed=True),
    claims.Claim(
        "fig. 1c",
        "wCKA is consistently cheap, cheaper than the others",
        f"time over wCKA's at {median.columns[-1]:,} probes: "
        f"{listed(last_ratios, '.1f')}; cheaper than wCKA: {cheaper_text}",
        verdicts.verdict(*(ratios > 1).to_numpy().ravel()),
        timed=True),
    claims.Claim(
        "fig. 5",
        "Fog makes more spurious similarity than impulse noise (Procrustes, "
        "CKA)",
        f"Procrustes {fog['procrustes']:.2f} against "
        f"{impulse['procrustes']:.2f}, CKA {fog['cka']:.2f} against "
        f"{impulse['cka']:.2f}",
        verdicts.verdict(fog["procrustes"] > impulse["procrustes"],
                         fog["cka"] > impulse["cka"])),
    claims.Claim(
        "fig. 5",
        "For dCKA, fog makes more variance than impulse noise",
        f"standard deviation {fog_spread['dcka']:.3f} against "
        f"{impulse_spread['dcka']:.3f}; without the positive part "
        f"{fog_spread[NO_PSD]:.3f} against {impulse_spread[NO_PSD]:.3f}",
        verdicts.verdict(fog_spread["dcka"] > impulse_spread["dcka"])),
    claims.Claim(
        "fig. 5",
        "dCKA centres on zero under every corruption",
        f"mean within 0.02 of zero for {100 * centred['dcka']:.0f} % of the "
        "probe sets, without the positive part for "
        f"{100 * centred[NO_PSD]:.0f} %",
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
