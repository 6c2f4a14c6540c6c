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
# ```{admonition} In one paragraph
# :class: tip
# {term}`Calibration <calibration>` means here that networks that share nothing score near 0 (the {term}`floor`), networks
# that are nearly the same near 1 (the {term}`ceiling`), with no overlap, and whatever the {term}`probes <probe>`. Of these
# four conditions {term}`wCKA` meets {glue:text}`met-wcka`, {term}`dCKA` {glue:text}`met-dcka`, {term}`CKA`
# {glue:text}`met-cka` and {term}`Procrustes` {glue:text}`met-procrustes`. The floor of CKA among untrained networks is
# {glue:text}`clean-cka` on clean images and {glue:text}`fog-cka` on foggy ones, that of wCKA {glue:text}`floor-wcka` on any.
# But wCKA's floor follows from the sizes of the networks alone: with 784 inputs it is {glue:text}`floor-784`, with 8 inputs
# {glue:text}`floor-8`. Trained networks should be compared with trained networks of other tasks, which score
# {glue:text}`wcka-other` by wCKA and {glue:text}`cka-other` by CKA, where those of one task score {glue:text}`wcka-same`
# and {glue:text}`cka-same`.
# ```
#
# A thermometer is calibrated at two points whose temperature is known. The paper (section 3.1,
# figures 1 and 5) does the same with measures of similarity: networks that were never trained should
# score near 0, one network at two adjacent epochs near 1. It finds that wCKA does so, and that
# Procrustes, CKA and dCKA do not. This chapter repeats the experiment and asks what it proves.
#
# After this chapter you can
#
# - say what "calibrated" means, in a form that can be tested;
# - read the floor and the ceiling of each measure, and how both depend on the probes;
# - say which floor wCKA *must* have among untrained networks, from their sizes alone.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from myst_nb import glue

import wcka
from wcka.book import (
    checkout,
    claims,
    distinct,
    figures,
    rules,
    say,
    sentences,
    within,
)
from wcka.book.rules import fact, part
from wcka.experiments import (
    crossed,
    ensemble_similarities,
    inflation,
    jobs,
    operations,
    spreads,
    timing,
    trained,
    trajectories,
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
networks: int = 60  # untrained networks
followed: int = 3  # networks that are followed through training
epochs_before: int = 95  # epochs before the first checkpoint is kept
epochs_after: int = 100  # further epochs, each of them kept
batch_size: int = 256  # images in one step of training
learning_rate: float = 0.001  # of Adam
# consecutive epochs at the start of training that are compared as well
early_epochs: int = 20
# clean, names of corruptions (fog, impulse_noise, ...), or "corruptions" for
# all 15
probe_sets: list[str] = ["clean", "corruptions"]
# numbers of probes, figure 1b; 1,000, a tenth of the test images and all of
# them are added, since claims need them
sample_sizes: list[int] = [10, 30, 100]
sample_draws: int = 4  # random draws of that many probes
# numbers of probes, figure 1c
timing_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]
# as many, of networks that share the images but not the task
other_classes: list[int] = [3, 4, 5]
task_networks: int = 10  # networks trained on each of the two tasks
task_epochs: int = 10  # epochs of their training
timing_runs: int = 21  # interleaved runs of each measure and size
# widths of the hidden layers of untrained networks whose similarity is
# calibrated
scale_widths: list[int] = [8, 32, 128, 512]
scale_depths: list[int] = [1, 2, 4, 8]  # and numbers of their hidden layers
scale_networks: int = 16  # untrained networks of each width and depth
scale_probes: int = 200  # images that each of them sees
seed: int = 0  # of the first network
probe_seed: int = 0  # of the corruptions and of the draws of probes
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
    scale_widths=(scale_widths, 2),
    scale_depths=(scale_depths, 2),
)
within(
    hidden=(hidden, 1, 10000),
    layer=(layer, 1, len(hidden) + 1),
    networks=(networks, 3, 1000),
    followed=(followed, 3, 100),
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
    timing_runs=(timing_runs, 7, 100000),
    scale_widths=(scale_widths, 4, 10000),
    scale_depths=(scale_depths, 1, 100),
    scale_networks=(scale_networks, 4, 1000),
    scale_probes=(scale_probes, 4, 10000),
    seed=(seed, 0, 2**31),
    probe_seed=(probe_seed, 0, 2**31),
)
if len(other_classes) != len(classes):
    raise ValueError(f"other_classes: wanted {len(classes)}, as many as "
                     f"classes; got {other_classes}")

# %% [markdown]
# ## What calibration means
#
# The paper does not define the word. We take four conditions, with the {term}`margin` of the book's
# [rules](../book/rules), and test each:
#
# 1. **Floor.** Pairs of networks that share nothing score at most the margin, on average.
# 2. **Ceiling.** Pairs that are nearly the same network all score within the margin of 1.
# 3. **Separation.** On no set of probes does a pair of the first kind score as high as any of the second.
# 4. **Fixed points.** Floor and ceiling move by at most the margin when the probes change: their
#    number, and the {term}`corruption` they are seen through.
#
# Pairs that share nothing are networks with independent random
# weights. Pairs that are nearly the same are one network at consecutive epochs, after training has converged.
#
# ## The two ensembles
#
# As in the paper: fully connected networks with four hidden layers of 32 ReLU units, on the digits 0,
# 1 and 2. One ensemble is untrained, with independent initialisations; the other is a single network
# whose weights are kept at consecutive epochs. Here {glue:text}`followed` networks are followed, so that
# the ceiling has an error; figures show the first. The paper states neither optimiser, learning rate and
# batch size, where we take Adam with the parameters above, nor the layer whose {term}`activations <activation>`
# are compared, where we take the last hidden one (`layer`).

# %% tags=["hide-output"] mystnb={"code_prompt_show": "Show the accuracies of the networks that are followed"}
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
training = {
    "architecture": architecture,
    "seeds": list(range(seed, seed + followed)),
    "dataset": dataset,
    "classes": classes,
    "epochs": last_epoch,
    "checkpoints": sorted({*early, *converged}),
    "learning_rate": learning_rate,
    "batch_size": batch_size,
    "device": device,
}
population = trained(**training)

images, labels = image_sets.load(dataset, "test", classes)
inputs = image_sets.as_inputs(images)
members = population.members.assign(
    accuracy=population.accuracy(inputs, labels))
accuracies = members.pivot(index="seed", columns="epoch", values="accuracy")
example_epochs = [0, early[-1], converged[0], converged[-1]]
accuracies[example_epochs].style.format("{:.4f}").set_caption(
    "Test accuracy of the networks (rows) at some epochs (columns)")

# %% tags=["remove-cell"]
glue("followed", str(followed), display=False)

# %% [markdown]
# ## Floor and ceiling (figure 1a)
#
# All pairs of untrained networks, and all pairs of consecutive epochs, by all four measures. The
# measures of activations are probed with all test images of the three classes, clean and under each of
# the 15 corruptions of MNIST-C {cite}`mu2019`. (The paper's text says 3,147 test images, which is the
# count of these digits; the caption of its figure 1 says 3,417.)

# %%
activation_measures = list(PAPER_MEASURES[:3])
all_measures = [*PAPER_MEASURES, NO_PSD]
common = {
    "layer": layer, "dataset": dataset, "classes": classes, "seed": probe_seed}
untrained_jobs = []
trained_jobs = []
for name in probe_names:
    probes = {"probe_name": name, "samples": None, "draw": 0}
    untrained_jobs.append({
        "ensembles": {"random": untrained},
        "measures": all_measures,
        **probes,
        **common,
    })
    # All networks that are followed on clean probes, the first on all.
    runs = training["seeds"] if name == "clean" else [seed]
    trained_jobs.append({
        "trajectories": training,
        "followed": runs,
        "epochs": converged,
        "measures": all_measures,
        **probes,
        **common,
    })
random = jobs.run_jobs(
    ensemble_similarities, untrained_jobs, description="untrained",
    scheduler=scheduler)
consecutive = jobs.run_jobs(
    trajectories.consecutive_similarities, trained_jobs,
    description="consecutive epochs", scheduler=scheduler)
adjacent = consecutive[consecutive.run == seed].assign(ensemble="adjacent")
n_dead = random.similarity.isna().sum() + consecutive.similarity.isna().sum()
n_all = len(random) + len(consecutive)
random = random.dropna(subset="similarity")
adjacent = adjacent.dropna(subset="similarity")
consecutive = consecutive.dropna(subset="similarity")
glue("n-images", f"{len(images):,}", display=False)
glue("n-dead", f"{n_dead:,} of {n_all:,}", display=False)

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
of_ensembles = pd.concat([random, adjacent], ignore_index=True)
draw_ensembles(left, of_ensembles[of_ensembles["probe"] == "clean"])
draw_ensembles(right, of_ensembles[of_ensembles["probe"] != "clean"])
left.set(title="clean probes", ylabel="similarity")
right.set(title="corrupted probes", ylabel="")
right.text(3.5, 0.91, "consecutive epochs", color=ADJACENT_COLOR, ha="right")
right.text(3.5, 0.08, "untrained", color=RANDOM_COLOR, ha="right")
plt.show()

# %% [markdown]
# With {glue:text}`n-images` clean probes the floors are {glue:text}`floor-procrustes` for Procrustes,
# {glue:text}`floor-cka` for CKA, {glue:text}`floor-dcka` for dCKA and {glue:text}`floor-wcka` for wCKA,
# whose highest pair of untrained networks scores {glue:text}`wcka-highest`. {term}`Representations <representation>` without
# any variance, which have no similarity, were left out: {glue:text}`n-dead` values. The folded table has intervals that
# leave out whole networks, since pairs that share a network are not independent observations.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show floors, spreads and ceilings with their intervals"}
def estimate_text(estimate, lowest=0.0, form=".3f"):
    """Write a similarity with its interval, which stays within [0, 1]."""
    ends = np.clip([estimate.low, estimate.high], lowest, 1)
    return claims.interval(estimate.value, *ends, form)


def untrained_rows(measure, probe):
    """Similarities of untrained pairs, and their design."""
    is_chosen = (random.measure == measure) & (random["probe"] == probe)
    rows = random[is_chosen]
    return rows, crossed.Design(rows.a, rows.b)


def consecutive_rows(measure, probe):
    """Similarities of one measure and probe at consecutive epochs."""
    is_chosen = consecutive.measure == measure
    return consecutive[is_chosen & (consecutive["probe"] == probe)]


measure_names = {**MEASURE_LABELS, NO_PSD: "dCKA, no PSD step"}
floors = {}  # with clean probes
deviations = {}
ceilings = {}
highest_clean = {}
summary_rows = {}
for measure in all_measures:
    rows, design = untrained_rows(measure, "clean")
    floors[measure] = crossed.means(design, rows[["similarity"]])["similarity"]
    deviations[measure] = spreads.standard_deviation(design, rows.similarity)
    highest_clean[measure] = rows.similarity.max()
    of_runs = consecutive_rows(measure, "clean")
    by_run = crossed.Design(of_runs.run, of_runs.run)
    ceilings[measure] = crossed.means(
        by_run, of_runs[["similarity"]])["similarity"]
    lowest = -1.0 if measure == NO_PSD else 0.0
    summary_rows[measure_names[measure]] = {
        "floor": estimate_text(floors[measure], lowest),
        "spread": estimate_text(deviations[measure]),
        "highest untrained": f"{highest_clean[measure]:.3f}",
        "ceiling": estimate_text(ceilings[measure], form=".5f"),
    }
summary_table = pd.DataFrame.from_dict(summary_rows, orient="index")
summary_table.rename_axis("clean probes")

# %% tags=["remove-cell"]
by_probe = random.groupby(["measure", "probe"]).similarity
floor_by_probe = by_probe.mean().unstack()  # (measures, probes)
highest_by_probe = by_probe.max().unstack()
of_first = adjacent.groupby(["measure", "probe"]).similarity
ceiling_by_probe = of_first.mean().unstack()
lowest_by_probe = of_first.min().unstack()
for measure in PAPER_MEASURES:
    say(f"floor-{measure}", floors[measure].value)
say("wcka-highest", highest_clean["wcka"])
lowest_adjacent = lowest_by_probe.loc[list(PAPER_MEASURES)].min().min()
glue("lowest-adjacent", sentences.bound(lowest_adjacent, ".4f", lower=True),
     display=False)
conventions = {"dcka": "with", NO_PSD: "without"}
for measure, name in (("dcka", "psd"), (NO_PSD, "no-psd")):
    say(f"{name}-low", floor_by_probe.loc[measure].min())
    say(f"{name}-high", floor_by_probe.loc[measure].max())
farthest = floor_by_probe.loc[list(conventions)].abs().max(axis=1)
glue("closer-to-zero", conventions[farthest.idxmin()], display=False)

# %% [markdown]
# **dCKA's floor depends on its conventions.** With the {term}`PSD step` dCKA is never negative
# ([chapter 1](01-theory)), so the mean over untrained pairs is
# zero only if every pair is exactly orthogonal. Depending on the probes it lies between
# {glue:text}`psd-low` and {glue:text}`psd-high`; without the step, between {glue:text}`no-psd-low` and
# {glue:text}`no-psd-high`. The caption of the paper's figure 5 says that dCKA's "mean similarity value
# centers around zero". Its means are closer to zero *{glue:text}`closer-to-zero`* the step; the paper's section 2.1.3
# describes dCKA with it.
#
# **The ceiling says how fast the network changes.** Every measure scores at least
# {glue:text}`lowest-adjacent` on every consecutive pair and probe. The paper reports dCKA below 0.8; perhaps
# its network was still changing. When ours was, from the first epoch to epoch {glue:text}`early-epochs`, the lowest
# consecutive pair scored {glue:text}`early-procrustes` (Procrustes), {glue:text}`early-cka` (CKA),
# {glue:text}`early-dcka` (dCKA) and {glue:text}`early-wcka` (wCKA). A ceiling near 1
# says that training has converged; a good measure reports a change where there is one.

# %% tags=["hide-input"]
moving = trajectories.consecutive_similarities(
    training, [seed], training["checkpoints"], "clean", None, 0,
    measures=list(PAPER_MEASURES), **common)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the change from epoch to epoch", "figure": {"name": "fig-moving", "caption": "How far one network is from its previous epoch, by four measures with clean probes, from the first epoch on. Both axes are logarithmic; epochs of the gap were not kept."}, "image": {"alt": "Curves of one minus similarity of consecutive epochs against epoch, on logarithmic axes, one per measure: the first epochs at the left, the epochs after convergence at the right."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
for measure in PAPER_MEASURES:
    line = moving[moving.measure == measure].set_index("epoch").similarity
    line = line.reindex(range(1, last_epoch + 1))  # NaN breaks the line
    width = 2 if measure == "wcka" else 1.2
    axes.plot(1 - line, lw=width, label=MEASURE_LABELS[measure],
              color=figures.MEASURE_COLORS[measure])
axes.set(xscale="log", yscale="log", xlabel="epoch",
         ylabel="1 − similarity to the epoch before")
axes.legend()
plt.show()

# %% tags=["remove-cell"]
first = moving[moving.epoch == 1].set_index("measure").similarity
last = moving[moving.epoch == last_epoch].set_index("measure").similarity
is_early = (moving.epoch > 1) & (moving.epoch <= early[-1])
early_lowest = moving[is_early].groupby("measure").similarity.min()
for measure in PAPER_MEASURES:
    say(f"first-{measure}", first[measure], ".2f")
    say(f"early-{measure}", early_lowest[measure], ".2f")
    say(f"last-{measure}", 1 - last[measure], ".0e")
glue("early-epochs", f"{early[-1]}", display=False)

# %% [markdown]
# ## What the probes contribute (figure 5)
#
# The same untrained networks, seen through each corruption.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-corruptions", "caption": "Similarity of untrained networks by kind of probe; the paper's figure 5, with an example of each corruption. If a measure depended on the networks only, all its rows would be the same, as those of wCKA, which has no probes."}, "image": {"alt": "One row for each kind of probe, with an example image, and four columns of horizontal enhanced box plots of the similarity of untrained networks, one per measure. The column of wCKA is the same in every row."}}
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
# The first test image of the last class, through each corruption; it looks the
# same with and without the images behind it.
example = int(np.flatnonzero(labels == labels.max())[0])
first_images = images[:example + 1]
for i, name in enumerate(probe_names):
    pictures = first_images
    if name != "clean":
        pictures = wcka.corrupt(first_images, name, probe_seed)
    figures.thumbnail(panels[0], pictures[-1], i)
with figures.many_marks():
    plt.show()

# %% tags=["remove-cell"]
spread_by_probe = by_probe.std(ddof=0).unstack()  # (measures, probes)


def first_direction(name):
    """Share of the probes' variance along their first principal direction."""
    pictures = probe_images(dataset, tuple(classes), name, probe_seed)
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
# {glue:text}`impulse-procrustes`; clean {glue:text}`clean-cka` and {glue:text}`clean-procrustes`). Fog
# covers each image with a haze of its own strength: {glue:text}`direction-fog` % of the variance of foggy images
# lies along their first principal direction, against {glue:text}`direction-clean` % for
# clean images and {glue:text}`direction-impulse` % under impulse noise. Networks with random weights pass such a
# direction on. The standard deviation of dCKA is
# {glue:text}`fog-spread` in fog and {glue:text}`impulse-spread` in impulse noise.
#
# So CKA answers "do these networks see these images in a similar way?", not "are these networks similar?".
#
# ## How many probes are enough (figure 1b)

# %%
tenth = len(images) // 10
wanted_sizes = {*sample_sizes, tenth, 1000, len(images)}
sizes = sorted({min(n, len(images)) for n in wanted_sizes})
untrained_jobs = []
trained_jobs = []
for n in sizes[:-1]:  # all images are the clean probes above
    for draw in range(sample_draws):
        probes = {"probe_name": "clean", "samples": n, "draw": draw}
        untrained_jobs.append({
            "ensembles": {"random": untrained},
            "measures": activation_measures,
            **probes,
            **common,
        })
        trained_jobs.append({
            "trajectories": training,
            "followed": [seed],
            "epochs": converged,
            "measures": activation_measures,
            **probes,
            **common,
        })
few = jobs.run_jobs(
    ensemble_similarities, untrained_jobs, description="numbers of probes",
    scheduler=scheduler)
few_adjacent = jobs.run_jobs(
    trajectories.consecutive_similarities, trained_jobs,
    description="numbers of probes, consecutive epochs", scheduler=scheduler)
columns = ["measure", "samples", "draw", "a", "b", "similarity"]
is_clean = (random["probe"] == "clean") & random.measure.isin(
    activation_measures)
few = pd.concat(
    [few[columns], random.loc[is_clean, columns]], ignore_index=True)
few = few.dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Similarity of untrained networks against the number of clean probes; the paper's figure 1b. wCKA uses no probes: its level is dashed."}, "image": {"alt": "Three panels of enhanced box plots of similarity over numbers of probes, one each for Procrustes, CKA and dCKA, and a dashed line at the level of wCKA."}}
wcka_floor = floors["wcka"].value
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
floor_by_size = by_size.mean().unstack()  # (measures, numbers of probes)
ceiling_by_size = few_adjacent.groupby(
    ["measure", "samples"]).similarity.mean().unstack()
# Lowest consecutive minus highest untrained pair, of each set of probes
gaps_by_probe = lowest_by_probe - highest_by_probe  # (measures, probes)
by_draw = ["measure", "samples", "draw"]
gaps_by_draw = (few_adjacent.groupby(by_draw).similarity.min()
                - few.groupby(by_draw).similarity.max()).dropna()
for measure in activation_measures:
    say(f"few-{measure}", floor_by_size.loc[measure, sizes[0]], ".2f")
    say(f"tenth-{measure}", floor_by_size.loc[measure, tenth], ".2f")
    say(f"most-{measure}", floor_by_size.loc[measure, sizes[-1]], ".2f")
glue("fewest", f"{sizes[0]:,}", display=False)
glue("tenth", f"{tenth:,}", display=False)
glue("most", f"{sizes[-1]:,}", display=False)

# %% [markdown]
# With {glue:text}`fewest` probes untrained networks score {glue:text}`few-procrustes` (Procrustes),
# {glue:text}`few-cka` (CKA) and {glue:text}`few-dcka` (dCKA); with {glue:text}`tenth`, a tenth of the
# test images, {glue:text}`tenth-procrustes`, {glue:text}`tenth-cka` and {glue:text}`tenth-dcka`; with
# all {glue:text}`most`, {glue:text}`most-procrustes`, {glue:text}`most-cka` and {glue:text}`most-dcka`.
# More probes remove the bias of a small sample ([chapter 1](01-theory)), not what the images have in
# common.
#
# ## Which measures are calibrated?
#
# The four conditions of the beginning, for each measure, over all probes of this chapter. They are met where there is a
# mark ✓; the number beside it decides.

# %% tags=["hide-input"]
def calibrated(measure):
    """Test the four conditions of a measure.

    Of each: the number that decides, and whether it is within the margin.
    """
    floor = floors[measure].value
    lowest = lowest_by_probe.loc[measure].min()
    gaps = [*gaps_by_probe.loc[measure]]
    all_floors = [*floor_by_probe.loc[measure]]
    all_ceilings = [*ceiling_by_probe.loc[measure]]
    if measure in activation_measures:  # wCKA sees no probes
        gaps.extend(gaps_by_draw[measure])
        all_floors.extend(floor_by_size.loc[measure])
        all_ceilings.extend(ceiling_by_size.loc[measure])
    gap = min(gaps)
    drift = max(np.ptp(all_floors), np.ptp(all_ceilings))
    return {
        "floor (clean)": (floor, floor <= rules.MARGIN),
        "lowest consecutive": (lowest, lowest >= 1 - rules.MARGIN),
        "smallest gap on any probes": (gap, gap > 0),
        "fixed points move by": (drift, drift <= rules.MARGIN),
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
# ## What it costs (figure 1c)
#
# Counted are the multiply-adds of one comparison, with activations computed beforehand and {term}`chains <chain>` multiplied anew; the
# folded figure has times beside them, the shortest of {glue:text}`timing-runs` interleaved runs. [Chapter 8](08-cost) has
# more measures and wider networks.

# %% tags=["hide-input", "timing"]
timed_sizes = sorted({min(n, len(images)) for n in timing_sizes})
count_rows = {}
for n in timed_sizes:
    count_rows[n] = operations.pair_operations(
        n, architecture["widths"], layer)
counts = pd.DataFrame(count_rows).loc[list(PAPER_MEASURES)]  # (measures, sizes)

timed_pair = initialise(architecture, [seed, seed + 1])
timed_networks = [timed_pair.member(0), timed_pair.member(1)]
time_tables = {}
for n in timed_sizes:
    x, y = timed_pair.activations(inputs[:n], layer)
    calls = {
        "procrustes": lambda x=x, y=y: wcka.procrustes(x, y),
        "cka": lambda x=x, y=y: wcka.cka(x, y),
        "dcka": lambda x=x, y=y, n=n: wcka.dcka(x, y, inputs[:n]),
        "wcka": lambda: wcka.wcka(*timed_networks),
    }
    time_tables[n] = timing.interleaved(calls, timing_runs)
times = pd.concat(time_tables, names=["samples", "measure"])

# The largest sizes; with fewer probes times are all overhead.
largest_sizes = timed_sizes[-3:]
exponents = {}
growths = {}
for measure in PAPER_MEASURES:
    exponents[measure] = operations.growth_exponent(
        largest_sizes, counts.loc[measure, largest_sizes])
    of_measure = times.xs(measure, level="measure").loc[largest_sizes]
    growths[MEASURE_LABELS[measure]] = timing.growth(
        largest_sizes, of_measure.seconds.tolist(),
        of_measure.spread.tolist(), exponents[measure])

# %% tags=["hide-cell", "timing"] mystnb={"code_prompt_show": "Show counts and times against the number of probes", "figure": {"name": "fig-time", "caption": "One comparison against the number of probes, on logarithmic axes; the right panel is the paper's figure 1c. Left: multiply-adds. Right: measured times, the shortest of several interleaved runs; hollow: not measurable in this run. wCKA does not see the probes."}, "image": {"alt": "Two panels on logarithmic axes against the number of probes, with one coloured line for each of four measures: on the left multiply-adds, on the right milliseconds."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.6))
for measure in PAPER_MEASURES:
    color = figures.MEASURE_COLORS[measure]
    left.plot(counts.loc[measure], "-o", color=color, ms=4,
              label=MEASURE_LABELS[measure])
    of_measure = times.xs(measure, level="measure")
    is_stable = of_measure.spread <= timing.MOST_SPREAD
    right.plot(1e3 * of_measure.seconds, color=color)
    right.scatter(of_measure.index, 1e3 * of_measure.seconds, s=18, zorder=3,
                  edgecolors=color, c=np.where(is_stable, color, "white"))
left.set(title="multiply-adds")
right.set(title="milliseconds")
for axes in (left, right):
    axes.set(xscale="log", yscale="log", xlabel="probes")
fig.legend(*left.get_legend_handles_labels(), loc="outside upper center",
           ncols=4)
plt.show()

# %% tags=["remove-cell", "timing"]
glue("timing-runs", str(timing_runs), display=False)
glue("timed-most", f"{timed_sizes[-1]:,}", display=False)
count_ratios = counts.loc[activation_measures] / counts.loc["wcka"]
cheaper_up_to = {}  # the largest number of probes, by measure
for measure in activation_measures:
    row = count_ratios.loc[measure]
    ratio_form = ".1f" if row.iloc[-1] < 100 else ",.0f"
    say(f"ratio-{measure}", row.iloc[-1], ratio_form)
    say(f"exponent-{measure}", exponents[measure], ".1f")
    if (row < 1).any():
        size = row.index[row < 1].max()
        cheaper_up_to[MEASURE_LABELS[measure]] = size
glue("cheaper", sentences.cheaper_sentence(cheaper_up_to), display=False)
glue("growth", timing.growth_sentence(growths, "the number of probes"),
     display=False)

# %% [markdown]
# At {glue:text}`timed-most` probes a comparison takes {glue:text}`ratio-cka` (CKA),
# {glue:text}`ratio-procrustes` (Procrustes) and {glue:text}`ratio-dcka` (dCKA) times as many
# multiply-adds as by wCKA. Between the largest sizes the counts grow like the number of probes to the
# power {glue:text}`exponent-cka`, {glue:text}`exponent-procrustes` and {glue:text}`exponent-dcka`; that
# of wCKA is constant. {glue:text}`cheaper` {glue:text}`growth`
#
# ## Is a floor at zero a virtue?
#
# What would CKA be if the rows of one of the models stood in a random order? Over all $p!$ orders of $p$ rows CKA has a
# mean and a variance that are known
# exactly, since it is the RV coefficient of statistics {cite}`kaziaoual1995,josse2008`:
#
# $$
# \begin{aligned}
# \mathbb E\, C &= \frac{\sqrt{r_a r_b}}{p - 1}, \qquad
# r = \frac{(\operatorname{tr} \mathbf K)^2}{\norm{\mathbf K}_F^2}, \\
# \operatorname{Var} C &= \frac{2\,(p-1-r_a)(p-1-r_b)}{(p+1)(p-1)^2(p-2)}
# \Big(1 + \frac{p-3}{2p(p-1)}\, \tau_a \tau_b\Big)
# \end{aligned}
# $$ (eq-floor)
#
# for centred {term}`kernels <kernel>` $\mathbf K$. The effective rank $r$ counts the directions that a model uses, and
# $\tau$ is zero where rows are about as long as Gaussian ones. `wcka.null` computes this {term}`null` for any pair of
# models, with the probability that chance reaches their value. For chains $r$ lies between 1 and the
# number of outputs $c$. With 784 pixels and three classes the mean
# *must* lie below $3/783$, whatever the layers do. For a product of Gaussian
# matrices with hidden widths $n_i$ the effective rank itself follows from the sizes,
# $1/r \approx 1/c + 1/(p-1) + \sum_i 1/n_i$.

# %%
def floors_of_sizes(n_inputs, n_outputs, count):
    """Measured floor of wCKA among untrained networks, and their null."""
    sized = {
        "factory": "mlp",
        "widths": [n_inputs, *hidden, n_outputs],
        "activation": "relu",
    }
    population = initialise(sized, range(seed, seed + count))
    a, b = np.triu_indices(count, 1)
    null = wcka.pairwise_null("wcka", list(chains(population)), (a, b))
    design = crossed.Design(a, b)
    measured = crossed.means(
        design, pd.DataFrame({"wcka": null.value}))["wcka"]
    spread = spreads.standard_deviation(design, null.value)
    inverse_rank = (1 / n_outputs + 1 / (n_inputs - 1)
                    + sum(1 / width for width in hidden))
    return {
        "inputs": n_inputs,
        "outputs": n_outputs,
        "mean": measured.value,
        "mean low": max(measured.low, 0),
        "mean high": min(measured.high, 1),
        "spread": spread.value,
        "spread low": max(spread.low, 0),
        "spread high": spread.high,
        "null mean": null.mean.mean(),
        # Of all pairs together: within pairs, and between their means.
        "null spread": np.sqrt((null.sd**2).mean() + null.mean.var()),
        "by size": 1 / inverse_rank / (n_inputs - 1),
    }


size_rows = []
for n_outputs in (1, 3, 10, 100):
    for n_inputs in (8, 28, 100, 784):
        size_rows.append(
            floors_of_sizes(n_inputs, n_outputs, min(networks, 50)))
sized_floors = pd.DataFrame(size_rows)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-floor", "caption": "wCKA among untrained networks with the same hidden layers and other numbers of inputs and outputs: measured (points, with intervals over networks), by the null in closed form (lines), and from the sizes alone (dashes). Left: the mean over pairs. Right: the standard deviation. The paper's network is the right end of the lines for 3 outputs."}, "image": {"alt": "Two panels with falling lines on logarithmic axes, one line for each number of outputs: the mean and the standard deviation of wCKA among untrained networks against the number of inputs, with measured points close to the lines."}}
fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4))
numbers_of_outputs = sorted(sized_floors.outputs.unique())
shades = dict(zip(
    numbers_of_outputs, ["#F0A26B", "#D55E00", "#8F3F00", "#4A2000"]))
for axes, column in zip(panels, ("mean", "spread")):
    for n_outputs, line in sized_floors.groupby("outputs"):
        shade = shades[n_outputs]
        axes.plot(line.inputs, line[f"null {column}"], color=shade, lw=1)
        errors = [line[column] - line[f"{column} low"],
                  line[f"{column} high"] - line[column]]
        axes.errorbar(line.inputs, line[column], errors, fmt="o", ms=4,
                      color=shade)
        if column == "mean":
            axes.plot(line.inputs, line["by size"], color=shade, lw=1,
                      ls=(0, (3, 3)))
            label = "1 output" if n_outputs == 1 else f"{n_outputs} outputs"
            axes.text(line.inputs.iloc[-1] * 1.15, line["null mean"].iloc[-1],
                      label, color=shade, va="center", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="inputs", xlim=(6.5, 4500))
    axes.set_xticks([8, 28, 100, 784], ["8", "28", "100", "784"])
    axes.minorticks_off()
panels[0].set(title="mean of wCKA")
panels[1].set(title="standard deviation")
plt.show()

# %% tags=["remove-cell"]
three_outputs = sized_floors[sized_floors.outputs == 3].set_index("inputs")
say("floor-8", three_outputs["mean"][8], ".2f")
say("floor-784", three_outputs["mean"][784], ".4f")
say("expected-784", three_outputs["null mean"][784], ".4f")
compared_columns = {
    "rank": ("mean", "null mean"), "spread": ("spread", "null spread"),
    "size": ("mean", "by size")}
for name, (column, expected) in compared_columns.items():
    measured_over_expected = sized_floors[column] / sized_floors[expected]
    say(f"{name}-low", measured_over_expected.min(), ".2f")
    say(f"{name}-high", measured_over_expected.max(), ".2f")

# %% [markdown]
# Measured over expected, the means lie between {glue:text}`rank-low` and {glue:text}`rank-high`, and the standard
# deviations between {glue:text}`spread-low` and {glue:text}`spread-high`; from the sizes alone the means lie between
# {glue:text}`size-low` and {glue:text}`size-high`.
# With 784 inputs and three outputs the floor is {glue:text}`floor-784` (expected
# {glue:text}`expected-784`); with 8 inputs the same kind of network has its floor
# at {glue:text}`floor-8`. So **the floor of wCKA is what any product of
# random matrices gives in this number of dimensions**, whatever the networks. It is the bias of
# the biased criterion of [chapter 1](01-theory), with pixels instead of probes.
#
# Activations have such a null, too, but untrained networks see the same images. If one of two networks saw them in a random
# order, CKA would be {glue:text}`null-cka` on average; {glue:text}`beyond-cka` % of the pairs of untrained networks are
# significantly above it (p < 0.05), {glue:text}`beyond-dcka` % by dCKA, and {glue:text}`beyond-wcka` % by wCKA.
# So wCKA's floor is *known beforehand*, from the two networks
# alone; that of activations must be measured for every set of probes. `wcka.null(a, b).score()` rescales a value to be 0 up
# to what chance reaches, and 1 at 1. Is p right? Of {glue:text}`sizes-count` random re-pairings,
# {glue:text}`sizes-similar` % are significant at the 5 % level where rows are of similar length, elsewhere
# {glue:text}`sizes-other` % (folded).

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show untrained networks beside the null"}
null_rows = {}
untrained_networks = initialise(
    architecture, range(seed, seed + min(networks, 30)))
null_pairs = np.triu_indices(len(untrained_networks.members), 1)
for measure in ("cka", "dcka", "wcka"):
    if measure == "wcka":
        features = list(chains(untrained_networks))
    else:
        features = list(untrained_networks.activations(inputs, layer))
    options = {"inputs": inputs} if measure == "dcka" else {}
    null = wcka.pairwise_null(measure, features, null_pairs, **options)
    has_value = np.isfinite(null.z)
    null_rows[measure] = {
        "mean of untrained networks": null.value[has_value].mean(),
        "mean of the null": null.mean[has_value].mean(),
        "spread of the null": null.sd[has_value].mean(),
        "p below 0.05, %": 100 * (null.p[has_value] < 0.05).mean(),
    }
null_table = pd.DataFrame(null_rows).T
null_table.rename(MEASURE_LABELS).style.format("{:.4f}").format(
    "{:.0f}", subset=["p below 0.05, %"])

# %% tags=["remove-cell"]
for measure in ("cka", "dcka", "wcka"):
    row = null_table.loc[measure]
    say(f"null-{measure}", row["mean of the null"], ".4f")
    say(f"beyond-{measure}", row["p below 0.05, %"], ".0f")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show how often p is below a level where rows are re-paired at random"}
# A record: `wcka.experiments.null_sizes` counts, `CONTRIBUTING.md` says how.
p_shares = pd.read_json(
    checkout.ROOT / "book/results/null-sizes.json", lines=True)
p_shares[["share", "error"]] *= 100
p_shares["p"] = p_shares.level.map("below {:g}".format)
share_table = p_shares.groupby(["p", "kind"], sort=False).agg(
    lowest=("share", "min"), highest=("share", "max"), error=("error", "max"))
row_counts = ", ".join(f"{n:,}" for n in p_shares.n.unique())
column_counts = ", ".join(str(d) for d in p_shares.d.unique())
share_table.style.format("{:.3f}").set_caption(
    f"Share of p-values, %: the lowest and the highest of {row_counts} rows "
    f"and {column_counts} columns, and the largest standard error")

# %% tags=["remove-cell"]
SIMILAR_ROWS = ("normal", "dependent", "decaying", "rectified")
at_5_percent = p_shares[p_shares.level == 0.05]
is_similar = at_5_percent.kind.isin(SIMILAR_ROWS)
say("sizes-count", at_5_percent.p_values.sum(), ",")
for name, rows in (("similar", at_5_percent[is_similar]),
                   ("other", at_5_percent[~is_similar])):
    share_range = f"{rows.share.min():.1f} to {rows.share.max():.1f}"
    glue(f"sizes-{name}", share_range, display=False)

# %% [markdown]
# ### Does calibration remove the inflation by width and depth?
#
# {cite:t}`groger2026`, who introduced this score, report that similarities of unrelated models are inflated by wide
# layers, and by a search for the most similar of many pairs of layers, and that
# the score removes both. Here is the same question for untrained networks, with
# the null in closed form. Each network sees {glue:text}`scale-probes` images of its own, so that rows are unrelated; or all
# networks see the same images; or they see none, by wCKA. In the upper row of the figure the hidden
# layers become wider, and the last is compared. In the lower row there are more of them, and the most similar of all
# pairs of hidden layers is taken; for $k$ pairs the
# level of 5 % is divided by $k$ (Bonferroni).

# %%
def architecture_of(width, depth):
    """Our architecture with another width and number of hidden layers."""
    return {**architecture, "widths": [784, *[width] * depth, len(classes)]}


scaled = {
    "seeds": list(range(seed, seed + scale_networks)),
    "samples": scale_probes,
    "dataset": dataset,
    "classes": classes,
    "seed": probe_seed,
}
width_jobs = []
depth_jobs = []
for features in inflation.FEATURES:
    for width in sorted(scale_widths):
        width_jobs.append({
            "architecture": architecture_of(width, len(hidden)),
            "layers": [len(hidden)],
            "features": features,
            **scaled,
        })
    for depth in sorted(scale_depths):
        depth_jobs.append({
            "architecture": architecture_of(hidden[-1], depth),
            "layers": list(range(1, depth + 1)),
            "features": features,
            **scaled,
        })
matches = {
    "width": jobs.run_jobs(
        inflation.best_matches, width_jobs, description="widths",
        scheduler=scheduler),
    "depth": jobs.run_jobs(
        inflation.best_matches, depth_jobs, description="depths",
        scheduler=scheduler),
}
scale_columns = ["similarity", "null", "score", "share alone", "share"]
scale_rows = []
for grows, table in matches.items():
    table = table.dropna()  # a layer without variance has no similarity
    table["share alone"] = (table.p_alone < inflation.LEVEL).astype(float)
    table["share"] = (table.p < inflation.LEVEL).astype(float)
    matches[grows] = table
    for (features, size), rows in table.groupby(["features", grows]):
        means = crossed.means(
            crossed.Design(rows.a, rows.b), rows[scale_columns])
        for column, mean in means.items():
            scale_rows.append({
                "grows": grows,
                "features": features,
                "column": column,
                "size": size,
                "mean": mean.value,
                "low": max(mean.low, 0),
                "high": min(mean.high, 1),
            })
scale_means = pd.DataFrame(scale_rows).set_index(
    ["grows", "features", "column"]).sort_index(kind="stable")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-inflation", "caption": "Similarity of untrained networks, means over pairs with intervals over networks, before calibration (filled) and after (hollow, dashed); dotted is the mean of the null. Top: against the width of the hidden layers, of which the last is compared. Bottom: against their number, the most similar of all pairs of layers. Left: CKA where each network sees other images, and wCKA. Middle: CKA where all see the same images. Right: pairs of networks that are beyond chance at the 5 % level (grey line), before and after the correction for the number of pairs of layers, the same images with squares."}, "image": {"alt": "Six panels in two rows, against the width and against the number of hidden layers: CKA on different images and wCKA before and after calibration, CKA on the same images before and after calibration, and the percentage of pairs of networks that are beyond chance."}}
FEATURE_COLORS = {
    inflation.DIFFERENT: figures.MEASURE_COLORS["cka"],
    inflation.SAME: figures.MEASURE_COLORS["cka"],
    inflation.WEIGHTS: wcka_color,
}
BEFORE = "solid"
AFTER = "dashed"
AXIS_LABELS = {
    "width": "width of hidden layers",
    "depth": "hidden layers",
}


def draw_growth(axes, grows, features, column, style, factor=1):
    """Draw the means of a column against width or depth, with intervals."""
    line = scale_means.loc[[(grows, features, column)]]
    values = factor * line[["mean", "low", "high"]]
    color = FEATURE_COLORS[features]
    if column == "null":
        axes.plot(line["size"], values["mean"], ls="dotted", color=color)
        return
    errors = [values["mean"] - values.low, values.high - values["mean"]]
    axes.errorbar(
        line["size"], values["mean"], errors, color=color, ls=style, lw=1.2,
        marker="s" if features == inflation.SAME else "o", ms=4,
        mfc="white" if style == AFTER else color)


fig, panels = plt.subplots(
    2, 3, figsize=(figures.WIDTH, 4.8), sharex="row", sharey="col")
for row, grows in zip(panels, matches):
    left, middle, right = row
    for features in inflation.FEATURES:
        axes = middle if features == inflation.SAME else left
        draw_growth(axes, grows, features, "null", BEFORE)
        draw_growth(axes, grows, features, "similarity", BEFORE)
        draw_growth(axes, grows, features, "score", AFTER)
        draw_growth(right, grows, features, "share alone", BEFORE, 100)
        draw_growth(right, grows, features, "share", AFTER, 100)
    right.axhline(100 * inflation.LEVEL, color=figures.QUIET, lw=0.8, zorder=0)
    ticks = sorted(matches[grows][grows].unique())
    for axes in row:
        axes.set(xscale="log", xlabel=AXIS_LABELS[grows])
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
panels[0, 0].set(title="no images in common")
panels[0, 1].set(title="the same images")
panels[0, 2].set(title="beyond chance, %", ylim=(-3, 103))
panels[0, 1].set(ylim=(-0.03, 1.03))
panels[0, 0].set(ylabel="last hidden layer")
panels[1, 0].set(ylabel="best pair of layers")
handles = []
for style in (BEFORE, "dotted", AFTER):
    handles.append(plt.Line2D([], [], ls=style, color=figures.QUIET))
for features in (inflation.DIFFERENT, inflation.WEIGHTS):
    handles.append(plt.Line2D([], [], color=FEATURE_COLORS[features], lw=4))
fig.legend(
    handles,
    ["before calibration", "mean of the null", "after", "CKA", "wCKA"],
    loc="outside upper center", ncols=5, columnspacing=1)
plt.show()

# %% tags=["remove-cell"]
row_keys = {
    inflation.DIFFERENT: "other", inflation.SAME: "same",
    inflation.WEIGHTS: "weights"}
for (grows, features, column), line in scale_means.groupby(level=[0, 1, 2]):
    is_share = column.startswith("share")
    name = f"{grows}-{row_keys[features]}-{column.replace(' ', '-')}"
    for end, mean in (("first", line["mean"].iloc[0]),
                      ("last", line["mean"].iloc[-1])):
        say(f"{name}-{end}", 100 * mean if is_share else mean,
            ".0f" if is_share else ".3f")
for grows, table in matches.items():
    glue(f"{grows}-first", f"{table[grows].min():,}", display=False)
    glue(f"{grows}-last", f"{table[grows].max():,}", display=False)
glue("scale-probes", f"{scale_probes:,}", display=False)

# %% [markdown]
# As the hidden layers grow from {glue:text}`width-first` to {glue:text}`width-last` units, CKA on different images goes from
# {glue:text}`width-other-similarity-first` to {glue:text}`width-other-similarity-last` and wCKA from
# {glue:text}`width-weights-similarity-first` to {glue:text}`width-weights-similarity-last`; after calibration, from
# {glue:text}`width-other-score-first` to {glue:text}`width-other-score-last` and from {glue:text}`width-weights-score-first` to
# {glue:text}`width-weights-score-last`. (Here chains end at the last hidden layer.) In a search over all layers of networks
# with {glue:text}`depth-last` hidden layers, at least one pair is beyond chance in
# {glue:text}`depth-other-share-alone-last` % of the pairs of networks (wCKA
# {glue:text}`depth-weights-share-alone-last` %) if each pair of layers is tested by itself, and after the correction in
# {glue:text}`depth-other-share-last` % ({glue:text}`depth-weights-share-last` %).
#
# On the *same* images CKA goes with the width from {glue:text}`width-same-similarity-first` to
# {glue:text}`width-same-similarity-last`, and its calibrated score from {glue:text}`width-same-score-first` to
# {glue:text}`width-same-score-last`. At infinite width all these networks would have the same kernel {cite}`lee2018`: the
# score removes what chance gives, not what the images give.
#
# ### What do unrelated trained networks score?
#
# The paper does not say. Here are networks trained on the classes
# of this chapter, and others trained on {glue:text}`other-classes`: no class is shared, only the
# kind of image. Networks trained on different tasks have a mean wCKA of {glue:text}`wcka-other`, those trained on the
# same task {glue:text}`wcka-same` (CKA, on this chapter's images: {glue:text}`cka-other` and
# {glue:text}`cka-same`). The first number, not the floor of untrained networks, is the zero to
# compare trained networks with; it has to be measured on networks of the kind at hand.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the means of untrained networks, different tasks and one task"}
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
    design = crossed.Design(a[is_kept], b[is_kept])
    kept_values = pd.DataFrame({"similarity": values[is_kept]})
    return crossed.means(design, kept_values)["similarity"]


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
task_texts = {}
for measure, means in task_means.items():
    texts = {pairs: estimate_text(mean) for pairs, mean in means.items()}
    task_texts[MEASURE_LABELS[measure]] = texts
pd.DataFrame(task_texts).T.rename_axis(index="measure", columns="pairs")

# %% tags=["remove-cell"]
glue("other-classes", ", ".join(map(str, other_classes)), display=False)
for pairs, short in (("different tasks", "other"), ("same task", "same")):
    say(f"wcka-{short}", task_means["wcka"][pairs].value)
    say(f"cka-{short}", task_means["cka"][pairs].value)

# %% [markdown]
# ## What is judged in this chapter

# %% tags=["hide-input"]
def mean_of(design, values):
    """Estimate of a mean over the rows of a design."""
    values = pd.DataFrame({"value": np.asarray(values)})
    return crossed.means(design, values)["value"]


def untrained_by_probe(measure):
    """Similarities of untrained pairs, one column per probe; their design."""
    rows = random[random.measure == measure]
    wide = rows.pivot(index=["a", "b"], columns="probe", values="similarity")
    wide = wide.dropna()
    pairs = wide.index.to_frame()
    return wide, crossed.Design(pairs.a, pairs.b)


def untrained_by_size(measure, n, m):
    """Similarities x on n and y on m clean probes, by pair and draw."""
    rows = few[few.measure == measure]
    at_n = rows[rows.samples == n].rename(columns={"similarity": "x"})
    at_m = rows[rows.samples == m].rename(columns={"similarity": "y"})
    keys = ["a", "b", "draw"]
    if m == len(images):  # these can be drawn in one way only
        keys = ["a", "b"]
        at_m = at_m.drop(columns="draw")
    paired = at_n.merge(at_m, on=keys)
    return paired, crossed.Design(paired.a, paired.b, paired.draw)


def label_of(measure, what):
    """Label of a part, such as "CKA, floor"."""
    return f"{measure_names[measure]}, {what}"


biased_measures = ["procrustes", "cka"]
highest = highest_by_probe.max(axis=1)
lowest = lowest_by_probe.min(axis=1)

# Converged: accuracy at the last stored epoch minus at the first.
gains = accuracies[converged[-1]] - accuracies[converged[0]]
gain = mean_of(crossed.Design(gains.index, gains.index), gains)

# Figure 1a.
spurious_parts = [
    part(label_of(measure, "floor"), floors[measure])
    for measure in biased_measures]
uncertain_parts = [
    part("mean of untrained pairs", floors["dcka"], "similar"),
    fact("some untrained pair above 0.3", highest["dcka"] > 0.3),
    fact("some consecutive pair below 0.8", lowest["dcka"] < 0.8),
]
wcka_floor_part = part("wCKA's floor", floors["wcka"], "small")
wcka_ceiling_part = part(
    "1 minus its ceiling",
    ceilings["wcka"]._replace(value=1 - ceilings["wcka"].value), "small")
calibrated_parts = [
    wcka_floor_part,
    rules.Part("highest untrained pair", highest["wcka"]),
    wcka_ceiling_part,
    rules.Part("1 minus the lowest consecutive pair", 1 - lowest["wcka"]),
]
ensembles_meet = (highest >= lowest)[activation_measures]
extreme_texts = []
for measure in activation_measures:
    extreme_texts.append(f"{measure_names[measure]} {highest[measure]:.3f} and "
                         f"{lowest[measure]:.4f}")

# Differentiation: by number of probes and draw, and by corruption.
smallest_gap = gaps_by_probe.loc["wcka"].min()
gap_texts = [f"wCKA {smallest_gap:.3f}"]
differentiation_parts = [fact("wCKA separates", smallest_gap > 0)]
for measure in activation_measures:
    overlaps = {}  # of each draw, 1 where the ensembles overlap
    for name, gap in gaps_by_probe.loc[measure].items():
        overlaps[name] = [float(gap <= 0)]
    for n, of_size in gaps_by_draw[measure].groupby("samples"):
        overlaps[f"{n:,} probes"] = (of_size <= 0).astype(float).tolist()
    worst = max(overlaps, key=lambda name: np.mean(overlaps[name]))
    share = np.mean(overlaps[worst])
    draws = len(overlaps[worst])
    error = 0.0
    if draws > 1:
        error = np.std(overlaps[worst], ddof=1) / np.sqrt(draws)
    label = f"{measure_names[measure]} fails to separate"
    if share > 0:
        label += f" ({worst.replace('_', ' ')})"
    differentiation_parts.append(
        rules.Part(label, share, error, max(draws - 1, 1)))
    gap = min(gaps_by_probe.loc[measure].min(), gaps_by_draw[measure].min())
    gap_texts.append(f"{measure_names[measure]} {gap:.3f}")

# Numbers of probes.
slow_parts = []
for measure in biased_measures:
    paired, design = untrained_by_size(measure, tenth, sizes[-1])
    slow_parts.append(part(
        label_of(measure, f"floor with {tenth:,} images minus with all"),
        mean_of(design, paired.x - paired.y)))
    slow_parts.append(
        part(label_of(measure, "floor with all images"), floors[measure]))
paired, design = untrained_by_size("dcka", tenth, sizes[-1])
spread_change = spreads.deviation_difference(design, paired.x, paired.y)
saturation_parts = []
if sizes[0] < 1000 < sizes[-1]:
    for measure in activation_measures:
        paired, design = untrained_by_size(measure, sizes[0], 1000)
        saturation_parts.append(part(
            label_of(measure, f"fall from {sizes[0]:,} to 1,000"),
            mean_of(design, paired.x - paired.y)))
        paired, design = untrained_by_size(measure, 1000, sizes[-1])
        saturation_parts.append(part(
            label_of(measure, "fall after"),
            mean_of(design, paired.x - paired.y), "small"))

# Cost, by the counts of multiply-adds.
cost_parts = []
for measure in activation_measures:
    cost_parts.append(fact(
        f"{measure_names[measure]} grows", exponents[measure] > 0))
is_lowest = (counts[timed_sizes[-1]].drop("wcka")
             > counts.loc["wcka", timed_sizes[-1]])
cost_parts.append(
    fact("wCKA is constant", counts.loc["wcka"].nunique() == 1))
cost_parts.append(fact(
    f"wCKA takes the fewest operations at {timed_sizes[-1]:,} probes",
    is_lowest.all()))
cheaper_texts = []
for name, size in cheaper_up_to.items():
    cheaper_texts.append(f"{name} up to {size:,} probes")
cheaper_text = ", ".join(cheaper_texts) or "none of them"
exponent_texts = []
for measure in PAPER_MEASURES:
    exponent = abs(exponents[measure])  # no minus zero
    exponent_texts.append(f"{measure_names[measure]} {exponent:.1f}")

# Corruptions.
similarity_parts = []
confounded_parts = []
for measure in biased_measures:
    wide, design = untrained_by_probe(measure)
    similarity_parts.append(part(
        label_of(measure, "fog minus impulse noise"),
        mean_of(design, wide.fog - wide.impulse_noise)))
    confounded_parts.append(part(
        label_of(measure, "floor, clean images"), floors[measure]))
    confounded_parts.append(part(
        label_of(measure, "highest minus lowest floor over the corruptions"),
        spreads.range_of_means(design, wide)))
wide, design = untrained_by_probe("dcka")
farthest_probe = wide.mean().abs().idxmax()
variance_parts = [
    part(f"mean farthest from zero ({farthest_probe.replace('_', ' ')})",
         mean_of(design, wide[farthest_probe]), "similar"),
    part("standard deviation, fog minus impulse noise",
         spreads.deviation_difference(design, wide.fog, wide.impulse_noise)),
]

# Setpoints: distances from 0 and from 1, those of others minus wCKA's.
setpoint_parts = []
for measure in activation_measures:
    random_rows, _ = untrained_rows(measure, "clean")
    paired = random_rows.merge(
        untrained_rows("wcka", "clean")[0], on=["a", "b"])
    design = crossed.Design(paired.a, paired.b)
    setpoint_parts.append(part(
        label_of(measure, "floor"),
        mean_of(design, paired.similarity_x - paired.similarity_y)))
    paired = consecutive_rows(measure, "clean").merge(
        consecutive_rows("wcka", "clean"), on=["run", "epoch"])
    design = crossed.Design(paired.run, paired.run)
    setpoint_parts.append(part(
        label_of(measure, "distance of the ceiling from 1"),
        mean_of(design, paired.similarity_y - paired.similarity_x)))
setpoint_parts += [wcka_floor_part, wcka_ceiling_part]

# Inflation: the largest width or depth minus the smallest.
def growth(grows, features, column):
    """Change of a mean from the smallest to the largest networks."""
    table = matches[grows]
    sizes = [table[grows].min(), table[grows].max()]
    is_chosen = (table.features == features) & table[grows].isin(sizes)
    by_size = table[is_chosen].pivot(
        index=["a", "b"], columns=grows, values=column).dropna()
    pairs = by_size.index.to_frame()
    change = by_size[sizes[1]] - by_size[sizes[0]]
    return mean_of(crossed.Design(pairs.a, pairs.b), change)


row_names = {
    inflation.DIFFERENT: "CKA, different images",
    inflation.SAME: "CKA, the same images",
    inflation.WEIGHTS: "wCKA",
}
width_parts = []
for features, row_name in row_names.items():
    width_parts.append(part(
        f"{row_name}, before", growth("width", features, "similarity"),
        "higher"))
    width_parts.append(part(
        f"{row_name}, after", growth("width", features, "score")))
depth_parts = []
for features in (inflation.DIFFERENT, inflation.WEIGHTS):
    row_name = row_names[features]
    depth_parts.append(part(
        f"{row_name}, best pair", growth("depth", features, "similarity"),
        "higher"))
    depth_parts.append(part(
        f"{row_name}, share beyond chance",
        growth("depth", features, "share alone"), "higher"))
    depth_parts.append(part(
        f"{row_name}, share after correction",
        growth("depth", features, "share")))

findings = {
    "confounded": rules.Finding(
        confounded_parts, "untrained networks share nothing but images"),
    "robust-differentiation": rules.Finding(
        differentiation_parts,
        "smallest gap between the two ensembles over all numbers of probes "
        f"and corruptions: {', '.join(gap_texts)}"),
    "converged": rules.Finding([
        part(f"accuracy after {converged[-1]} epochs minus after "
             f"{converged[0]}", gain)]),
    "spurious": rules.Finding(spurious_parts),
    "dcka-uncertain": rules.Finding(
        uncertain_parts,
        f"highest {highest['dcka']:.2f}, lowest {lowest['dcka']:.4f} on any "
        "probe; without the step that drops negative eigenvalues the mean is "
        f"{floors[NO_PSD].value:.3f}"),
    "wcka-calibrated": rules.Finding(calibrated_parts),
    "converge-slowly": rules.Finding(slow_parts),
    "dcka-slowly": rules.Finding([
        part(f"standard deviation with {tenth:,} images minus with all",
             spread_change)]),
    "overlapping": rules.Finding(
        [fact("at least two overlap", ensembles_meet.sum() >= 2)],
        "highest untrained and lowest consecutive pair, all probes together: "
        + ", ".join(extreme_texts)),
    "saturates": rules.Finding(saturation_parts),
    "cost-scales": rules.Finding(
        cost_parts,
        "multiply-adds grow like the number of probes to the power "
        f"{', '.join(exponent_texts)}; fewer than wCKA's: {cheaper_text}"),
    "fog-similarity": rules.Finding(similarity_parts),
    "fog-variance": rules.Finding(
        variance_parts,
        "without the step that drops negative eigenvalues the standard "
        f"deviations are {spread_by_probe.loc[NO_PSD, 'fog']:.3f} and "
        f"{spread_by_probe.loc[NO_PSD, 'impulse_noise']:.3f}"),
    "setpoints": rules.Finding(setpoint_parts),
    "inflation-by-width": rules.Finding(
        width_parts,
        f"from {min(scale_widths):,} to {max(scale_widths):,} units"),
    "inflation-by-depth": rules.Finding(
        depth_parts,
        f"from {min(scale_depths):,} to {max(scale_depths):,} hidden layers"),
}
claims.show(rules.judge("02", findings))

# %% [markdown]
# ## Exercises
#
# **1.** Colour images of 32 by 32 pixels have 3,072 inputs. Which floor has wCKA among untrained networks with the hidden
# layers of this chapter and ten outputs, and does it follow from the sizes? On this chapter's images, with five classes:
# `python -m wcka run 02 -p classes "[0, 1, 2, 3, 4]" -p other_classes "[5, 6, 7, 8, 9]"`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
colour_floor = floors_of_sizes(3072, 10, min(networks, 20))
pd.Series(colour_floor)[["mean", "null mean", "by size"]].to_frame(
    "floor of wCKA").style.format("{:.5f}")

# %% [markdown]
# **2.** How does the floor of CKA depend on the layer whose activations are compared? The whole chapter, in another layer:
# `python -m wcka run 02 -p layer 2`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
layer_floors = {}
for number in range(1, len(hidden) + 2):
    activations = list(untrained_networks.activations(inputs, number))
    similarities = wcka.pairwise("cka", activations)[null_pairs]
    layer_floors[number] = np.nanmean(similarities)
layer_table = pd.Series(layer_floors, name="floor of CKA").to_frame()
layer_table.rename_axis("layer").style.format("{:.3f}")

# %% [markdown]
# **3.** Take half of the mean wCKA of networks of one task as a threshold. How many pairs of each kind are above it?
# With more networks: `python -m wcka run 02 -p task_networks 30`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
threshold = task_means["wcka"]["same task"].value / 2
is_above = pair_similarities("wcka", trained_populations) > threshold
print(f"above {threshold:.3f}: {is_above[~is_across].sum()} of "
      f"{(~is_across).sum()} pairs of one task, {is_above[is_across].sum()} of "
      f"{is_across.sum()} pairs of different tasks")

# %% [markdown]
# ## To take away
#
# - wCKA has no probes, so nothing about them can move its floor or its ceiling.
# - The floor of wCKA among untrained networks follows from their sizes, and can be computed beforehand.
# - Between trained networks the zero is what unrelated trained networks score: measure it.
# - Floors of measures of activations belong to the images they were measured with: from clean images to
#   foggy ones that of CKA goes from {glue:text}`clean-cka` to {glue:text}`fog-cka`.
# - dCKA is two measures under one name: with and without the PSD step.
# - A ceiling at one says that training has converged.
