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
# - compute the floor that wCKA *must* have, from the sizes of the network alone.

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from myst_nb import glue

import wcka
from wcka import benchmark, claims, data, figures
from wcka.cache import cached
from wcka.chain import chains
from wcka.population import initialise
from wcka.statistics import mean_over_pairs, overlap
from wcka.training import trained

figures.style()


def say(name: str, value: float, form: str = ".3f") -> None:
    """Keep a number for the text."""
    glue(name, f"{value:{form}}", display=False)


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
probe_sets: list[str] = ["clean", "corruptions"]  # names of probe sets, or all the corruptions
sample_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]  # numbers of probes, figure 1b
sample_draws: int = 2  # random draws of that many probes
timing_sizes: list[int] = [10, 30, 100, 300, 1000, 3147]  # numbers of probes, figure 1c
timing_runs: int = 100  # runs of each measure and size
seed: int = 0  # of the first network, of the corruptions and of the draws of probes

# %% [markdown]
# ## What calibration means
#
# The paper does not define the word. We take four conditions, and test each:
#
# 1. **Floor.** Pairs of networks that share nothing score near 0.
# 2. **Ceiling.** Pairs that are nearly the same network score near 1.
# 3. **Separation.** No pair of the first kind scores as high as a pair of the second.
# 4. **Fixed points.** Floor and ceiling stay where they are when the probes change: their number,
#    and the corruption they are seen through.
#
# (A fifth, that scores in between are proportional to how alike two networks behave, is the subject
# of the next chapter's benchmark.) Pairs that share nothing are networks with independent random
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
corruptions = list(wcka.CORRUPTIONS)
probe_names = [name for entry in probe_sets
               for name in (corruptions if entry == "corruptions" else [entry])]
if not {"clean", "fog", "impulse_noise"} <= set(probe_names):
    raise ValueError(f"probe_sets: the claims need clean, fog and impulse_noise; got {probe_sets}")
if not set(probe_names) <= set(benchmark.PROBES):
    raise ValueError(f"probe_sets: known are {', '.join(benchmark.PROBES)}; got {probe_sets}")

architecture = {"factory": "mlp", "widths": [784, *hidden, len(classes)], "activation": "relu"}
untrained = {"architecture": architecture, "seeds": list(range(seed, seed + networks))}
converged = list(range(epochs_before, epochs_before + epochs_after + 1))
early = list(range(min(early_epochs, epochs_before) + 1))
trajectory = {"architecture": architecture, "seeds": [seed], "dataset": dataset, "classes": classes,
              "epochs": converged[-1], "checkpoints": sorted({*early, *converged}),
              "learning_rate": learning_rate, "batch_size": batch_size}
population = trained(**trajectory)

images, labels = data.load(dataset, "test", classes)
accuracy = pd.Series(population.accuracy(data.inputs(images), labels),
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
also_without_psd = ["clean", "fog", "impulse_noise"]  # where the text needs this variant of dCKA
table = benchmark.run(benchmark.calibration, [
    {"ensembles": {"random": untrained, "adjacent": {**trajectory, "compared": converged}},
     "probe_name": name, "samples": None, "draw": 0,
     "measures": [*benchmark.MEASURES, *[benchmark.NO_PSD] * (name in also_without_psd)], **common}
    for name in probe_names], description="probes")
dead = table[table.similarity.isna()]
table = table.dropna(subset="similarity")
glue("n-images", f"{len(images):,}", display=False)
glue("n-dead", f"{len(dead):,} of {len(table) + len(dead):,}", display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles", "caption": "Similarity of pairs of untrained networks (blue) and of one network at consecutive epochs (orange), by four measures; the paper's figure 1a. Left: probed with the clean test images. Right: with all corruptions together. wCKA sees no probes and is the same in both."}, "image": {"alt": "Two panels of enhanced box plots, four measures each. For consecutive epochs all measures lie at one. For untrained networks Procrustes and CKA spread over a wide range well above zero, dCKA over a smaller one, and wCKA lies at zero."}}
def panel(axes, rows):
    figures.boxen(axes, rows, x="measure", y="similarity", hue="ensemble",
                  order=benchmark.MEASURES, palette=figures.ENSEMBLES, legend=False)
    axes.set_xticks(range(4), [figures.NAMES[m] for m in benchmark.MEASURES])
    axes.set(xlabel="", ylim=(-0.03, 1.03))


fig, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.6), sharey=True)
panel(left, table[table["probe"] == probe_names[0]])
panel(right, table[table["probe"] != probe_names[0]])
left.set(title=f"{probe_names[0]} probes", ylabel="similarity")
right.set(title="corrupted probes", ylabel="")
for ensemble, y, text in (("random", 0.55, "untrained"), ("adjacent", 0.93, "consecutive epochs")):
    left.text(3.45, y, text, color=figures.ENSEMBLES[ensemble], ha="right")
plt.show()

# %% [markdown]
# The numbers behind it. Floors are means over pairs, with intervals that leave out whole networks,
# since pairs that share a network are not independent observations. Spread is the range of the middle
# 95 % of pairs.

# %%
def summary(rows):
    """Floor, ceiling and separation of one measure."""
    random, adjacent = (rows[rows.ensemble == e] for e in ("random", "adjacent"))
    floor = mean_over_pairs(random.a, random.b, random.similarity)
    return pd.Series({
        "floor": floor.value, "floor low": floor.low, "floor high": floor.high,
        "random 2.5 %": random.similarity.quantile(0.025),
        "random 97.5 %": random.similarity.quantile(0.975),
        "random highest": random.similarity.max(), "ceiling": adjacent.similarity.mean(),
        "adjacent lowest": adjacent.similarity.min(),
        "overlap": overlap(random.similarity, adjacent.similarity)})


by_probe = table.groupby(["measure", "probe"])[table.columns].apply(summary)
clean = by_probe.xs(probe_names[0], level="probe")
order = [*benchmark.MEASURES, benchmark.NO_PSD]
named = {**figures.NAMES, benchmark.NO_PSD: "dCKA, no PSD step"}
shown = clean.loc[order].rename(named)


def interval(row):
    """Write a floor with its interval, with as many digits as it needs."""
    digits = 3 if abs(row["floor"]) > 0.01 else 4
    floor, low, high = (f"{row[k]:.{digits}f}" for k in ("floor", "floor low", "floor high"))
    return f"{floor} ({low} to {high})"


pd.DataFrame({
    "floor": [interval(r) for _, r in shown.iterrows()],
    "middle 95 % of untrained pairs": [f"{r['random 2.5 %']:.3f} to {r['random 97.5 %']:.3f}"
                                       for _, r in shown.iterrows()],
    "highest untrained": [f"{v:.3f}" for v in shown["random highest"]],
    "lowest consecutive": [f"{v:.4f}" for v in shown["adjacent lowest"]],
}, index=shown.index).rename_axis(f"{probe_names[0]} probes")

# %% tags=["remove-cell"]
for measure in benchmark.MEASURES:
    say(f"floor-{measure}", clean.loc[measure, "floor"])
    say(f"highest-{measure}", by_probe.loc[measure, "random highest"].max(), ".2f")
say("floor-no-psd", clean.loc[benchmark.NO_PSD, "floor"])
say("wcka-highest", clean.loc["wcka", "random highest"])
say("lowest-adjacent", table[table.ensemble == "adjacent"].similarity.min(), ".4f")

# %% [markdown]
# With {glue:text}`n-images` clean probes the floors are {glue:text}`floor-procrustes` for Procrustes,
# {glue:text}`floor-cka` for CKA, {glue:text}`floor-dcka` for dCKA and {glue:text}`floor-wcka` for wCKA,
# whose highest pair of untrained networks scores {glue:text}`wcka-highest`. Representations without
# any variance, which have no similarity, were left out: {glue:text}`n-dead` values.
#
# Two things differ from the paper's figure.
#
# **dCKA's floor is not zero.** It cannot be, with the step that drops negative eigenvalues: cosines of
# positive semidefinite matrices are never negative, so only their spread could bring the average to
# zero. Without the step the floor is {glue:text}`floor-no-psd`. A dCKA whose "mean centers around
# zero", as the paper's figure 5 says, must have left the step out, whatever the text says.
#
# **The ceiling is not a matter of the measure.** Every measure scores at least
# {glue:text}`lowest-adjacent` on every consecutive pair and probe. Where the paper saw dCKA below 0.8,
# its network must still have been moving. Ours moves too, earlier in its training:

# %%
moving = benchmark.calibration(
    {"early": {**trajectory, "compared": early}, "converged": {**trajectory, "compared": converged}},
    "clean", None, 0, layer, list(benchmark.MEASURES), dataset, classes, seed)
moving["epoch"] = moving.b.map(dict(enumerate(early))).where(
    moving.ensemble == "early", moving.b.map(dict(enumerate(converged))))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-moving", "caption": "How far one network is from its previous epoch, by four measures with clean probes, from the first epoch on. Both axes are logarithmic; the gap are epochs that were not kept."}, "image": {"alt": "Falling curves of one minus similarity of consecutive epochs against epoch, on logarithmic axes. All four measures start between a hundredth and one and fall by several orders of magnitude as training converges."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
for measure in benchmark.MEASURES:
    for ensemble, line in moving[moving.measure == measure].groupby("ensemble"):
        axes.plot(line.epoch, 1 - line.similarity, color=figures.MEASURES[measure],
                  lw=2 if measure == "wcka" else 1.2,
                  label=figures.NAMES[measure] if ensemble == "early" else None)
axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel="1 − similarity to the epoch before")
axes.legend()
plt.show()

# %% tags=["remove-cell"]
first = moving[moving.epoch == 1].set_index("measure").similarity
early_lowest = moving[(moving.ensemble == "early") & (moving.epoch > 1)].groupby(
    "measure").similarity.min()
for measure in benchmark.MEASURES:
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
# The same untrained networks, seen through each corruption. If a measure told us about networks
# only, the rows would be alike.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-corruptions", "caption": "Similarity of untrained networks by kind of probe; the paper's figure 5, with an example of each corruption. Fog makes untrained networks look alike by Procrustes and CKA and widens dCKA; impulse noise does the opposite. wCKA has no probes: its row is the same everywhere."}, "image": {"alt": "Sixteen rows, one a kind of probe, each with an example digit, and four columns of horizontal enhanced box plots. Procrustes, CKA and dCKA shift with the probe and are highest for fog; wCKA is at zero in every row."}}
figures.style(many_marks=True)
random = table[table.ensemble == "random"]
fig, row = plt.subplots(1, 4, figsize=(figures.WIDTH, 0.36 * len(probe_names) + 0.9), sharey=True)
for axes, measure in zip(row, benchmark.MEASURES):
    figures.boxen(axes, random[random.measure == measure], y="probe", x="similarity",
                  order=probe_names, color=figures.MEASURES[measure])
    axes.set(xlabel="similarity", ylabel="", xlim=(-0.03, 1.03), title=figures.NAMES[measure])
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.4)
row[0].tick_params(axis="y", pad=30)
example = int(np.flatnonzero(labels == labels.max())[0])
for i, name in enumerate(probe_names):
    picture = benchmark.probe(dataset, tuple(classes), name, seed)[example]
    figures.thumbnail(row[0], picture, i)
plt.show()
figures.style()

# %% tags=["remove-cell"]
means = random.groupby(["measure", "probe"]).similarity.mean().unstack()
spread = random.groupby(["measure", "probe"]).similarity.std().unstack()
for measure in ("procrustes", "cka", "dcka"):
    say(f"fog-{measure}", means.loc[measure, "fog"], ".2f")
    say(f"impulse-{measure}", means.loc[measure, "impulse_noise"], ".2f")
say("fog-spread", spread.loc["dcka", "fog"], ".3f")
say("impulse-spread", spread.loc["dcka", "impulse_noise"], ".3f")

# %% [markdown]
# Through fog, untrained networks reach a mean CKA of {glue:text}`fog-cka`; through impulse noise,
# {glue:text}`impulse-cka` (Procrustes {glue:text}`fog-procrustes` and
# {glue:text}`impulse-procrustes`). Fog lays one smooth pattern of large variance over all images, and any network
# passes it on; impulse noise gives each image its own. The standard deviation of dCKA is
# {glue:text}`fog-spread` in fog and {glue:text}`impulse-spread` in impulse noise.
#
# This is not an error of CKA. Two untrained networks *do* map foggy images to similar geometries,
# because the images differ along one direction. CKA answers "do these networks see these images
# alike?", and the answer hangs on the images. It is only wrong as an answer to "are these networks
# alike?".
#
# ## How many probes are enough (figure 1b)

# %%
sizes = sorted({min(n, len(images)) for n in sample_sizes})
few = benchmark.run(benchmark.calibration, [
    {"ensembles": {"random": untrained}, "probe_name": probe_names[0], "samples": n, "draw": draw,
     "measures": list(benchmark.MEASURES[:3]), **common}
    for n in sizes for draw in range(sample_draws if n < len(images) else 1)],
    description="numbers of probes")
few = few.dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Similarity of untrained networks against the number of clean probes; the paper's figure 1b. Procrustes and CKA fall towards a level that is not zero; dCKA's spread shrinks. wCKA uses no probes: its level is dashed."}, "image": {"alt": "Three panels of enhanced box plots over numbers of probes. All three measures start high with ten probes and fall; none reaches the dashed line of wCKA near zero."}}
fig, row = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.2), sharey=True)
for axes, measure in zip(row, benchmark.MEASURES):
    figures.boxen(axes, few[few.measure == measure], x="samples", y="similarity", order=sizes,
                  color=figures.MEASURES[measure])
    axes.axhline(clean.loc["wcka", "floor"], color=figures.MEASURES["wcka"], ls="--", lw=1.2)
    axes.set(title=figures.NAMES[measure], xlabel="probes", ylabel="similarity", ylim=(-0.03, 1.03))
    axes.set_xticks(range(len(sizes)), [f"{n:,}" for n in sizes], rotation=45)
row[-1].text(len(sizes) - 0.6, clean.loc["wcka", "floor"] + 0.02, "wCKA",
             color=figures.MEASURES["wcka"], ha="right", va="bottom")
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
            seed: int) -> pd.DataFrame:
    """Seconds of single comparisons, interleaved so that a busy moment hits all measures."""

    def seconds(function, *arguments):
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start

    population, rows = initialise(**untrained), []
    members = [population.member(i) for i in range(len(population))]
    every_input = data.inputs(benchmark.probe(dataset, tuple(classes), "clean", seed))
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(len(members), 2, replace=False) for _ in range(runs)]
    for n in sizes:
        inputs = every_input[:n]
        activations = population.activations(inputs, layer)
        for run, (i, j) in enumerate([pairs[0], *pairs]):  # the first one warms up
            x, y = activations[i], activations[j]
            calls = {"procrustes": (wcka.procrustes, x, y), "cka": (wcka.cka, x, y),
                     "dcka": (wcka.dcka, x, y, inputs), "wcka": (wcka.wcka, members[i], members[j])}
            rows += [(m, n, seconds(*call)) for m, call in calls.items() if run]
    return pd.DataFrame(rows, columns=["measure", "samples", "seconds"])


times = timings(untrained, sorted({min(n, len(images)) for n in timing_sizes}), timing_runs, layer,
                dataset, classes, seed)
median = times.groupby(["measure", "samples"]).seconds.median().unstack().loc[list(benchmark.MEASURES)]
upper = median.loc[:, median.columns >= min(100, median.columns[-2])]
exponents = {m: np.polyfit(np.log(upper.columns.astype(float)), np.log(upper.loc[m]), 1)[0]
             for m in benchmark.MEASURES}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-time", "caption": "Time of one comparison against the number of probes, on logarithmic axes; the paper's figure 1c. The exponents are slopes of the medians from 100 probes up (0 is constant, 1 proportional). wCKA does not depend on the probes."}, "image": {"alt": "Enhanced box plots of time against number of probes for four measures on logarithmic axes. wCKA is flat; CKA and Procrustes rise slowly; dCKA rises steeply and is the most expensive from a hundred probes on."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.8))
figures.boxen(axes, times.assign(ms=1e3 * times.seconds), x="samples", y="ms", hue="measure",
              hue_order=benchmark.MEASURES, palette=figures.MEASURES, legend=False)
axes.set(yscale="log", xlabel="probes", ylabel="milliseconds")
axes.set_xticks(range(median.shape[1]), [f"{n:,}" for n in median.columns])
axes.set_xlim(-0.6, median.shape[1] + 0.7)
ends = np.log10(1e3 * median.iloc[:, -1].sort_values())
for i in range(1, len(ends)):  # labels of like times must not lie on each other
    ends.iloc[i] = max(ends.iloc[i], ends.iloc[i - 1] + 0.2)
for measure, height in ends.items():
    axes.text(median.shape[1] - 0.4, 10**height,
              f"{figures.NAMES[measure]} ({abs(round(exponents[measure], 1))})",
              color=figures.MEASURES[measure], va="center")
plt.show()

# %% tags=["remove-cell"]
for measure in ("procrustes", "cka", "dcka"):
    say(f"ratio-{measure}", median.loc[measure].iloc[-1] / median.loc["wcka"].iloc[-1], ".1f")

# %% [markdown]
# At {glue:text}`most` probes a comparison takes {glue:text}`ratio-cka` (CKA),
# {glue:text}`ratio-procrustes` (Procrustes) and {glue:text}`ratio-dcka` (dCKA) times as long as by
# wCKA, and wCKA does not grow with the probes: it has none. Two remarks in fairness. The activation
# measures also need the activations, which are not counted. And most of wCKA's time here is the
# overhead of small operations, not arithmetic; with all pairs at once
# (`wcka.pairwise`) every measure is far cheaper than one pair at a time.
#
# ## Is a floor at zero a virtue?
#
# The floor of wCKA can be computed without any network. Two random chains have left singular vectors
# in unrelated directions of a space of $p - 1$ dimensions ($p$ input coordinates, less one for
# centring). If one of them is turned by a random rotation, then, given the singular values
# of both,
#
# $$
# \mathbb E\, C_w = \frac{\sqrt{r_a r_b}}{p - 1}, \qquad
# r = \frac{(\sum_i s_i^2)^2}{\sum_i s_i^4},
# $$ (eq-floor)
#
# because $\mathbb E \norm{\mathbf W_b^\top \mathbf W_a}_F^2 =
# \norm{\mathbf W_a}_F^2 \norm{\mathbf W_b}_F^2 / (p-1)$. The effective rank $r$ lies between 1 and the
# number of outputs. With 784 pixels and three classes the floor *must* lie below 3/783, whatever the
# networks do inside.

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
    measured = mean_over_pairs(a, b, wcka.pairwise("wcka", products)[a, b])
    roots = np.sqrt([effective_rank(w) for w in products])
    return inputs, outputs, *measured, (roots[a] * roots[b]).mean() / (inputs - 1)


ends = pd.DataFrame(
    [floor(p, c, min(networks, 50)) for c in (1, 3, 10, 100) for p in (8, 28, 100, 784)],
    columns=["inputs", "outputs", "measured", "low", "high", "expected"])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-floor", "caption": "The floor of wCKA among untrained networks with the same hidden layers and other numbers of inputs and outputs: measured (points, with intervals over networks) and expected from the effective rank alone (lines). The paper's network is the right end of the line for 3 outputs."}, "image": {"alt": "Falling lines on logarithmic axes: floor of wCKA against number of inputs, one line for each number of outputs, with measured points on the lines. With 8 inputs the floor is between a tenth and a half; with 784 it is below one percent."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.4))
shades = dict(zip(sorted(ends.outputs.unique()), ["#F0A26B", "#D55E00", "#8F3F00", "#4A2000"]))
for outputs, line in ends.groupby("outputs"):
    axes.plot(line.inputs, line.expected, color=shades[outputs], lw=1)
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
inside = ((ends.low <= ends.expected) & (ends.expected <= ends.high)).mean()
say("inside", 100 * inside, ".0f")
agreement = (ends.measured / ends.expected).agg(["min", "max"])
say("agreement-low", agreement["min"], ".2f")
say("agreement-high", agreement["max"], ".2f")

# %% [markdown]
# Measured over expected lies between {glue:text}`agreement-low` and {glue:text}`agreement-high`. With
# 784 inputs and three outputs the floor is {glue:text}`floor-784` (expected
# {glue:text}`expected-784`); with 8 inputs the same measure on the same kind of network has its floor
# at {glue:text}`floor-8`. So the answer to the question is: **the floor is what any product of
# random matrices gives in many dimensions.** It takes no insight into networks to reach it, and it is
# lost where inputs are few. What remains a virtue is that the floor is *known beforehand*, from the
# sizes alone, while the floor of an activation measure must be measured anew for every set
# of probes. Where it matters, subtract {eq}`eq-floor`.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
activation_measures = ["procrustes", "cka", "dcka"]
pooled = table.groupby(["measure", "ensemble"]).similarity.agg(["min", "max"])
worst_overlap = by_probe.overlap.groupby("measure").max()


def listed(values, form=".2f"):
    """Write one number a measure."""
    return ", ".join(f"{named[m]} {values[m]:{form}}" for m in values.index)


lowest_dcka = pooled.loc[("dcka", "adjacent"), "min"]
lowest_wcka = pooled.loc[("wcka", "adjacent"), "min"]
beyond = len(sizes) > 1 and floors.columns[-1] > 1000 and 1000 in floors.columns
results = [
    claims.Claim("3.1, fig. 1a", "wCKA is close to 0 for untrained networks",
                 f"mean {interval(clean.loc['wcka'])}, highest pair {clean.loc['wcka', 'random highest']:.3f}",
                 claims.verdict(clean.loc["wcka", "random highest"] < 0.05)),
    claims.Claim("3.1, fig. 1a", "wCKA is close to 1 for adjacent epochs",
                 f"lowest pair {lowest_wcka:.4f}", claims.verdict(lowest_wcka > 0.95)),
    claims.Claim("3.1, fig. 1a", "Procrustes and CKA show spurious similarity of untrained networks",
                 f"means {interval(clean.loc['procrustes'])} and {interval(clean.loc['cka'])}",
                 claims.verdict(*(clean.loc[["procrustes", "cka"], "floor low"] > 0.1))),
    claims.Claim("3.1, fig. 1a", "dCKA is unbiased: it centres on zero for untrained networks",
                 f"mean {interval(clean.loc['dcka'])} with the paper's positive part, "
                 f"{interval(clean.loc[benchmark.NO_PSD])} without",
                 claims.verdict(*(abs(clean.loc[["dcka", benchmark.NO_PSD], "floor"]) < 0.02))),
    claims.Claim("3.1, fig. 1a", "dCKA of untrained networks spreads widely, beyond 0.3 and up to 0.5",
                 f"highest pair {clean.loc['dcka', 'random highest']:.2f} on "
                 f"{probe_names[0]} probes, {pooled.loc[('dcka', 'random'), 'max']:.2f} on any",
                 claims.verdict(pooled.loc[("dcka", "random"), "max"] > 0.3)),
    claims.Claim("3.1, fig. 1a", "dCKA of adjacent epochs falls below 0.8 at times",
                 f"lowest pair {lowest_dcka:.4f} on any probe after {converged[0]} epochs; "
                 f"{early_lowest['dcka']:.2f} from epoch 1 to {early[-1]}",
                 claims.verdict(lowest_dcka < 0.8)),
    claims.Claim("Fig. 1a", "The two ensembles overlap for two of the activation measures",
                 f"chance that an untrained pair scores above an adjacent one, worst probe: "
                 f"{listed(worst_overlap[activation_measures])}",
                 claims.verdict((worst_overlap[activation_measures] > 0.001).sum() >= 2)),
    claims.Claim("Fig. 1a", "wCKA separates the two ensembles",
                 f"overlap {worst_overlap['wcka']:.2f}; {pooled.loc[('wcka', 'random'), 'max']:.3f} "
                 f"at most against {lowest_wcka:.3f} at least",
                 claims.verdict(worst_overlap["wcka"] == 0)),
    claims.Claim("3.1, fig. 1b", "Procrustes and CKA converge to a biased estimate, not to 0, as "
                 "the probes grow",
                 f"from {sizes[0]:,} to {sizes[-1]:,} probes: Procrustes "
                 f"{floors.loc['procrustes'].iloc[0]:.2f} to {floors.loc['procrustes'].iloc[-1]:.2f}, "
                 f"CKA {floors.loc['cka'].iloc[0]:.2f} to {floors.loc['cka'].iloc[-1]:.2f}",
                 claims.verdict(*(floors.loc[["procrustes", "cka"]].iloc[:, -1] > 0.1))),
    claims.Claim("Fig. 1b", "Calibration improves up to 1,000 probes, then saturates",
                 "; ".join(f"{named[m]} falls by {floors.loc[m].iloc[0] - floors.loc[m, 1000]:.2f} "
                           f"up to 1,000 and by {floors.loc[m, 1000] - floors.loc[m].iloc[-1]:.3f} "
                           f"after" for m in activation_measures) if beyond
                 else "too few numbers of probes in this run",
                 claims.verdict(*[floors.loc[m, 1000] - floors.loc[m].iloc[-1] < 0.02
                                  for m in activation_measures]) if beyond else "cannot be told"),
    claims.Claim("Fig. 1c", "Cost of activation measures grows with the probes, that of wCKA does not",
                 f"growth exponents: {listed(pd.Series(exponents))}",
                 claims.verdict(abs(exponents["wcka"]) < 0.1,
                                *(exponents[m] > 0.1 for m in activation_measures))),
    claims.Claim("Fig. 1c", "wCKA is the cheapest of the four",
                 f"time over wCKA's at {median.columns[-1]:,} probes: "
                 f"{listed(median.iloc[:3, -1] / median.loc['wcka'].iloc[-1], '.1f')}",
                 claims.verdict(*(median.iloc[:3, -1] > median.loc["wcka"].iloc[-1]))),
    claims.Claim("Fig. 5", "Fog makes more spurious similarity than impulse noise (Procrustes, CKA)",
                 f"Procrustes {means.loc['procrustes', 'fog']:.2f} against "
                 f"{means.loc['procrustes', 'impulse_noise']:.2f}, CKA {means.loc['cka', 'fog']:.2f} "
                 f"against {means.loc['cka', 'impulse_noise']:.2f}",
                 claims.verdict(*(means.loc[m, "fog"] > means.loc[m, "impulse_noise"]
                                  for m in ("procrustes", "cka")))),
    claims.Claim("Fig. 5", "For dCKA, fog makes more variance than impulse noise",
                 f"standard deviation {spread.loc['dcka', 'fog']:.3f} against "
                 f"{spread.loc['dcka', 'impulse_noise']:.3f}; without the positive part "
                 f"{spread.loc[benchmark.NO_PSD, 'fog']:.3f} against "
                 f"{spread.loc[benchmark.NO_PSD, 'impulse_noise']:.3f}",
                 claims.verdict(spread.loc["dcka", "fog"] > spread.loc["dcka", "impulse_noise"])),
]
claims.show(results)

# %% [markdown]
# ## To take away
#
# - wCKA has the fixed points that the paper reports: 0 for untrained networks, 1 for adjacent epochs,
#   whatever the probes, since it has none.
# - Its floor at zero comes from the number of inputs, not from insight; it can be computed beforehand.
# - The floors of activation measures are the images' doing, and move with them.
# - A ceiling at one says that training has stopped. It tells measures apart only where it has not.
