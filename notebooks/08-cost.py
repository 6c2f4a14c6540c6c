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
# # What it costs
#
# ```{admonition} In one paragraph
# :class: tip
# {glue:text}`measures` measures are compared by what they do not notice and by what they cost. {glue:text}`take-advantages`
# An {term}`intertwiner` also leaves {glue:text}`other-symmetric` as they are, which the paper does not test. For the paper's
# networks and {glue:text}`images` images the multiply-adds of one comparison, as multiples of those of {term}`wCKA`, are:
# {glue:text}`count-ratios`. For two networks with {glue:text}`most-parameters` million parameters each, wCKA takes
# {glue:text}`most-operations` million multiply-adds, and the forward passes that give the {term}`activations <activation>`
# {glue:text}`most-forward` times as many.
# ```
#
# The paper calls wCKA "computationally efficient" and names its other advantages over competing metrics: it is computed from
# weights, reflects the symmetries of weight space, and does not depend on {term}`probes <probe>`. This chapter tests all
# measures of the module for these properties: which
# changes of a network move each of them, and what one comparison takes, counted in multiply-adds and timed.
#
# After this chapter you can
#
# - choose a measure by what it is invariant to, and know what it costs;
# - estimate what a comparison of your networks will take.

# %% tags=["hide-input"]
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue

import wcka
from wcka.book import claims, distinct, figures, rules, say, sentences, within
from wcka.experiments import operations, other_libraries, timing, trained
from wcka.measures import (
    ACTIVATION_MEASURES,
    INVARIANCES,
    MEASURE_LABELS,
    MEASURES,
    PAPER_MEASURES,
)
from wcka.networks import chains, image_sets, initialise
from wcka.weights import symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 08 -p probes 500 -p widths "[32, 64, 128]"`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
hidden: list[int] = [32, 32, 32, 32]  # widths of the hidden layers
epochs: int = 2  # of training of the two networks that are compared
# images that they see, four times as many as the last hidden layer has units
# or more
probes: int = 500
# widths of four hidden layers, for the cost by number of parameters
widths: list[int] = [32, 64, 128, 256, 512, 1024]
# the largest of these widths at which measures of activations are timed, too
timed_width: int = 256
networks: int = 10  # untrained networks whose pairs are compared at once
repeats: int = 7  # interleaved rounds, of which the shortest time counts
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
distinct(
    widths=(widths, 3),
    classes=(classes, 2),
)
within(
    hidden=(hidden, 2, 10000),
    epochs=(epochs, 1, 1000),
    widths=(widths, 1, 10000),
    networks=(networks, 3, 1000),
    repeats=(repeats, 1, 1000),
    seed=(seed, 0, 2**31),
)
within(
    probes=(probes, 4 * hidden[-1], 3000),
    timed_width=(timed_width, sorted(widths)[1], 10000),
)

# %% [markdown]
# ## The family
#
# There are {glue:text}`measures` measures with one interface: `wcka.NAME(x, y)` for a pair, `wcka.pairwise("NAME", features)`
# for all pairs. They differ first in what they do *not* notice, which each declares in `wcka.INVARIANCES`. Here it is
# measured: one of two trained networks is changed, and the figure shows how far their similarity moves.

# %%
ROUNDING = 1e-6  # a similarity that moves by less has not moved


def mlp(*hidden_widths):
    """Describe a fully connected network for images of the classes."""
    return {
        "factory": "mlp",
        "widths": [784, *hidden_widths, len(classes)],
        "activation": "relu",
    }


images, labels = image_sets.load(dataset, "test", classes)
population = trained(mlp(*hidden), [seed, seed + 1], dataset, classes, epochs)
first_network = population.member(0).double()
second_network = population.member(1).double()
n_probes = probes - probes % 4  # four whole batches for minibatch CKA
clean_images = images[:n_probes]
clean_inputs = image_sets.as_inputs(clean_images).double()
foggy_images = wcka.corrupt(clean_images, "fog", seed)
foggy_inputs = image_sets.as_inputs(foggy_images).double()


def both_ways(measure, a, b, inputs):
    """Similarity of two networks to each other, in both orders.

    Compares their last hidden layers, or their chains for wCKA.
    """
    if measure == "wcka":
        return np.array([wcka.wcka(a, b), wcka.wcka(b, a)])
    options = {}
    if measure == "dcka":
        options["inputs"] = inputs
    with torch.no_grad():
        layers = [a[:-1](inputs), b[:-1](inputs)]
        matrix = wcka.pairwise(measure, layers, **options)  # (2, 2)
    return matrix[[0, 1], [1, 0]]


transformed_networks = {}
for change, transform in symmetry.TRANSFORMATIONS.items():
    if change != "silent weights":
        transformed_networks[change] = transform(
            second_network, clean_inputs, seed + 1)

shift_rows = {}
for measure in INVARIANCES:
    before = both_ways(measure, first_network, second_network, clean_inputs)
    shifts = {}
    for change, network in transformed_networks.items():
        after = both_ways(measure, first_network, network, clean_inputs)
        shifts[change] = np.abs(after - before).max()
    after = both_ways(measure, first_network, second_network, foggy_inputs)
    shifts["probes"] = np.abs(after - before).max()
    shift_rows[measure] = shifts
shift_table = pd.DataFrame(shift_rows).T  # (measures, changes)
glue("measures", str(len(shift_table)), display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-family", "caption": "How far each measure moves when one of two trained networks is changed. Zero: invariant up to rounding (below 1e-6), exactly where INVARIANCES lists it. Activations are those of the last hidden layer; the first six changes act on it and are undone by the next layer. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with a row for each measure and nine columns, one per change. Most measures of activations are zero for permutation, rotation, scale and translation; mean CCA also for invertible maps; the ReLU variants for unit rescaling and intertwiners but not for rotations. Output maps are zero for every measure of activations and move wCKA, which alone is zero for probes."}}
def shift_text(shift):
    """Write how far a measure moves, with as many digits as it needs."""
    if shift < ROUNDING:
        return "0"
    if shift < 0.001:
        return "<.001"
    return f"{shift:.3f}" if shift < 0.01 else f"{shift:.2f}"


for measure, shifts in shift_table.iterrows():
    unmoved_by = set(shifts.index[shifts < ROUNDING])
    assert unmoved_by == INVARIANCES[measure] - {"silent weights"}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.2))
figures.heat_map(axes, shift_table, shift_table.map(shift_text), cmap="OrRd",
                 vmin=0, vmax=0.6, cbar=False)
axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
axes.axvline(6, color="black", lw=1)
plt.show()

# %% tags=["remove-cell"]
# Measures that the paper does not benchmark, and that an intertwiner leaves
# as they are
other_symmetric = []
for measure, invariances in INVARIANCES.items():
    if "intertwiner" in invariances and measure not in PAPER_MEASURES:
        other_symmetric.append(MEASURES[measure].label)
other_symmetric_text = ", ".join(other_symmetric)
glue("other-symmetric", other_symmetric_text, display=False)

untrained = initialise(mlp(*hidden), range(seed, seed + networks))
layers = untrained.activations(clean_inputs.float(), len(hidden)).double()
layers = list(layers)  # of (probes, units)
upper = np.triu_indices(networks, 1)
biased_cka = wcka.pairwise("cka", layers)[upper]
unbiased_cka = wcka.pairwise("unbiased_cka", layers)[upper]
minibatch_cka = wcka.pairwise(
    "minibatch_cka", layers, batch_size=n_probes // 4)[upper]
glue("networks", str(networks), display=False)
say("probes", n_probes, ",")
say("biased-unbiased", np.abs(biased_cka - unbiased_cka).max())
say("minibatch-unbiased", np.abs(minibatch_cka - unbiased_cka).max())
say("minibatch-biased", np.abs(minibatch_cka - biased_cka).max())

# %% [markdown]
# {numref}`fig-family` has four groups. {term}`CKA` in its variants, {term}`Procrustes`, {term}`dCKA` and SVCCA do not notice
# rotations. Mean CCA notices no invertible map at all; PWCCA, which
# weights by the units of its first argument, notices nearly all. The two measures of {cite:t}`godfrey2022` do not notice what
# ReLU lets through: the order and
# the positive scale of units. Only wCKA has no probes. It is not alone in reflecting the symmetries of weights: an
# intertwiner also leaves {glue:text}`other-symmetric` as they are, which the paper does not benchmark.
#
# Minibatch CKA adds up the unbiased criterion ({term}`HSIC`) over batches. Over all pairs of {glue:text}`networks` untrained networks, with {glue:text}`probes` probes
# in four batches, it is within {glue:text}`minibatch-unbiased` of unbiased CKA and within {glue:text}`minibatch-biased` of CKA, which itself is within
# {glue:text}`biased-unbiased` of its unbiased form.
#
# ## Do the values agree with other libraries?
#
# Activations of the two trained networks on {glue:text}`probes` images, without {term}`dead units <dead unit>`. Where a library
# wants networks and loaders, its
# arithmetic is called directly. Not installed and left out: {glue:text}`missing`.

# %% tags=["hide-input"]
peers, missing = other_libraries.available()
live_activations = []
trained_activations = population.activations(
    clean_inputs.float(), len(hidden))  # (2, probes, units)
for activations in trained_activations:
    is_live = activations.amax(0) > 0
    live_activations.append(activations[:, is_live].double())
peer_options = {
    "dcka": {"inputs": clean_inputs},
    "minibatch_cka": {"batch_size": n_probes // 4},
}


def reason_of(peer, difference):
    """Why a library's value differs from ours; empty where it does not.

    A function that computes the same is as close as its tolerance says; one
    that computes something else gives our value where it does so to nine
    digits.
    """
    if difference <= (1e-9 if peer.why else peer.tolerance):
        return ""
    return peer.why or "no reason is known"


agreement_rows = []
for peer in peers:
    options = peer_options.get(peer.measure, {})
    peer_value = peer.of_pair(*peer.given(live_activations), **options)
    value = getattr(wcka, peer.measure)(*live_activations, **options)
    difference = abs(peer_value - value)
    reason = reason_of(peer, difference)
    agreement_rows.append((
        peer.package, peer.version, peer.measure, peer_value, value,
        difference, reason, peer.single))
agreement = pd.DataFrame(agreement_rows, columns=[
    "library", "version", "measure", "its value", "ours", "difference",
    "why they differ", "single"])
number_formats = {"its value": "{:.6f}", "ours": "{:.6f}",
                  "difference": "{:.0e}"}
agreement.style.format(number_formats).hide().hide(["single"], axis=1)

# %% tags=["remove-cell"]
glue("missing", ", ".join(missing) or "nothing", display=False)
equal_rows = agreement[agreement["why they differ"] == ""]
single_rows = agreement[agreement.single.astype(bool)]
agreement_text = sentences.equal_values_sentence(
    list(equal_rows.difference), len(agreement))
if len(single_rows):
    agreement_text += (
        " Those that compute in float32 are off by up to "
        f"{sentences.bound(single_rows.difference.max(), '.0e')}.")
glue("agreement", agreement_text, display=False)

# %% [markdown]
# {glue:text}`agreement` Where a function computes something else under the same name, the last column says what.
#
# ## What one comparison takes
#
# A time depends on the machine and the moment, a number of multiply-adds only on the algorithm. The table counts what one pair
# takes with
# {glue:text}`images` test images: for wCKA both {term}`chains <chain>`, multiplied from the outputs to the inputs, and their
# alignment; for the others the work on
# activations that are already there. A decomposition of a $k \times k$ matrix counts as $k^3$. Behind the {term}`trunk` the
# inputs of dCKA are the trunk's
# features. The forward passes that give the activations are counted apart.

# %% tags=["hide-input"]
def pair_operations(widths):
    """Multiply-adds of one pair, by measure and for the forward passes.

    Measures of activations compare the last hidden layer.
    """
    last_hidden = len(widths) - 2
    weights = sum(before * after for before, after in zip(widths, widths[1:]))
    return {
        **operations.pair_operations(len(images), widths, last_hidden),
        "forward passes": 2 * len(images) * weights,
    }


# The networks of the paper: sections 3.1 and 3.2, and 3.3 behind its trunk
PAPER_WIDTHS = {
    "1 x 8": [784, 8, 3],
    "1 x 32": [784, 32, 3],
    "2 x 16": [784, 16, 16, 3],
    "4 x 8": [784, *[8] * 4, 3],
    "4 x 32": [784, *[32] * 4, 3],
    "1 x 32, behind the trunk": [512, 32, 3],
    "1 x 1024, behind the trunk": [512, 1024, 3],
    "10 x 32, behind the trunk": [512, *[32] * 10, 3],
}
count_rows = {}
for shape, shape_widths in PAPER_WIDTHS.items():
    count_rows[shape] = pair_operations(shape_widths)
counts = pd.DataFrame(count_rows).T
# How many times as many as wCKA
count_ratios = counts.drop(columns="wcka").div(counts.wcka, axis=0)
millions = (counts / 1e6).rename(columns=MEASURE_LABELS)
millions.style.format("{:,.2f}").set_caption(
    f"Millions of multiply-adds for one pair, {len(images):,} images")

# %% tags=["remove-cell"]
glue("images", f"{len(images):,}", display=False)
ratio_texts = []
for measure in ACTIVATION_MEASURES:
    ratios = count_ratios[measure]
    low_form = ",.1f" if ratios.min() < 100 else ",.0f"
    ratio_texts.append(f"{MEASURE_LABELS[measure]} {ratios.min():{low_form}} "
                       f"to {ratios.max():,.0f}")
glue("count-ratios", ", ".join(ratio_texts), display=False)
forward_least = count_ratios["forward passes"].min()
glue("forward-least", sentences.bound(forward_least, ",.0f", lower=True),
     display=False)

# %% [markdown]
# Over the shapes of the paper's networks the multiply-adds of the others are these multiples of wCKA's:
# {glue:text}`count-ratios`; those of the forward passes are at least {glue:text}`forward-least` times wCKA's.
#
# The next figure has wider networks: counts and, beside them, times of the same pairs, the shortest of
# {glue:text}`repeats` interleaved rounds. A time is *not measurable in this run* where the middle half of the rounds differ by
# more than 30 %.

# %% tags=["hide-input", "timing"]
every_input = image_sets.as_inputs(images)
width_rows = []
time_rows = []
for units in sorted(widths):
    network_widths = mlp(*[units] * 4)["widths"]
    pair = initialise(mlp(*[units] * 4), [seed, seed + 1])
    members = [pair.member(0), pair.member(1)]
    calls = {"wcka": partial(wcka.wcka, *members)}
    if units <= timed_width:
        x, y = pair.activations(every_input, 4).double()
        for measure in ACTIVATION_MEASURES:
            options = {"inputs": every_input} if measure == "dcka" else {}
            calls[measure] = partial(getattr(wcka, measure), x, y, **options)
    parameters = sum(p.numel() for p in members[0].parameters())
    counted = pair_operations(network_widths)
    width_rows.append({"parameters": parameters, **counted})
    for measure, row in timing.interleaved(calls, repeats).iterrows():
        time_rows.append({
            "parameters": parameters, "measure": measure, **row,
            "operations": counted[measure]})
by_width = pd.DataFrame(width_rows).set_index("parameters")
width_times = pd.DataFrame(time_rows)

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-cost", "caption": "One pair of networks with four hidden layers against the parameters of each, on logarithmic axes. Left: multiply-adds; the forward passes give the activations that all but wCKA compare. Right: measured times of the same pairs, activations computed beforehand; hollow: not measurable in this run."}, "image": {"alt": "Two panels on logarithmic axes against the number of parameters: on the left multiply-adds of four measures and of the forward passes, on the right milliseconds of the four measures, one coloured line each."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.6))
for measure in PAPER_MEASURES:
    color = figures.MEASURE_COLORS[measure]
    left.plot(by_width.index, by_width[measure], "-o", color=color, ms=4,
              label=MEASURE_LABELS[measure])
    times = width_times[width_times.measure == measure]
    milliseconds = 1e3 * times.seconds
    is_stable = times.spread <= timing.MOST_SPREAD
    right.plot(times.parameters, milliseconds, color=color)
    right.scatter(times.parameters, milliseconds, s=18, zorder=3,
                  edgecolors=color,
                  c=np.where(is_stable, color, "white"))
left.plot(by_width.index, by_width["forward passes"], "--",
          color=figures.QUIET, label="forward passes")
left.set(title="multiply-adds")
right.set(title="milliseconds")
for axes in (left, right):
    axes.set(xscale="log", yscale="log", xlabel="parameters of each network")
fig.legend(*left.get_legend_handles_labels(), loc="outside upper center",
           ncols=5)
plt.show()

# %% tags=["remove-cell", "timing"]
growths = {}
for measure in PAPER_MEASURES:
    # The two largest; small networks are all overhead.
    largest = width_times[width_times.measure == measure].iloc[-2:]
    expected = operations.growth_exponent(
        largest.parameters, largest.operations)
    growths[MEASURE_LABELS[measure]] = timing.growth(
        largest.parameters.tolist(), largest.seconds.tolist(),
        largest.spread.tolist(), expected)
glue("growth", timing.growth_sentence(growths, "the number of parameters"),
     display=False)
glue("repeats", str(repeats), display=False)
widest = width_times[width_times.measure == "wcka"].iloc[-1]
say("most-parameters", widest.parameters / 1e6, ".2g")
say("most-operations", widest.operations / 1e6, ".2g")
glue("most-time", timing.duration_text(widest.seconds, widest.spread),
     display=False)
forward_ratios = by_width["forward passes"] / by_width.wcka
say("most-forward", forward_ratios.iloc[-1], ",.0f")

# %% [markdown]
# The chain costs its weights times the number of outputs, and nothing for images: at {glue:text}`most-parameters` million parameters a pair takes
# {glue:text}`most-operations` million multiply-adds, and the forward passes of {glue:text}`images` images {glue:text}`most-forward` times as many.
# Measured time of that pair by wCKA: {glue:text}`most-time`. {glue:text}`growth` Powers are those between the two largest
# networks that were timed; where a power differs from that of the counts by more than a half, overhead or the machine was
# timed, and not the algorithm.

# %% tags=["hide-input", "timing"]
networks_compared = {}
for measure in INVARIANCES:
    networks_compared[measure] = layers
networks_compared["wcka"] = list(chains(untrained).double())
measure_options = {
    "dcka": {"inputs": clean_inputs},
    "minibatch_cka": {"batch_size": n_probes // 4},
}
pair_calls = {}
batch_calls = {}
for measure, features in networks_compared.items():
    options = measure_options.get(measure, {})
    label = MEASURES[measure].label
    pair_calls[label] = partial(
        wcka.pairwise, measure, features[:2], **options)
    batch_calls[label] = partial(
        wcka.pairwise, measure, features, **options)
pair_times = timing.interleaved(pair_calls, repeats)
batch_times = timing.interleaved(batch_calls, repeats)
batch_times["seconds"] /= len(biased_cka)


def time_texts(times):
    """Write each time, or that it is not measurable."""
    texts = []
    for _, row in times.iterrows():
        texts.append(timing.duration_text(row.seconds, row.spread))
    return texts


pd.DataFrame({
    "one pair": time_texts(pair_times),
    f"each of all pairs of {networks}": time_texts(batch_times),
}, index=pair_times.index.rename(None))

# %% tags=["remove-cell", "timing"]
glue("pair-range", timing.range_text(pair_times), display=False)
glue("batch-range", timing.range_text(batch_times), display=False)
glue("units", str(hidden[-1]), display=False)

# %% [markdown]
# The table has all measures on {glue:text}`units` units and {glue:text}`probes` probes, for one pair alone and for many at once.
# One pair takes {glue:text}`pair-range`;
# each of all pairs of {glue:text}`networks` networks {glue:text}`batch-range`. Among many networks each is read, centred and, for
# dCKA, deconfounded once instead of once per pair. For linear CKA, Procrustes and wCKA features may stay on disk
# (`numpy.load(..., mmap_mode="r")`); the other
# measures take a copy of all features, and some hold matrices of probes by probes.
#
# ## What is judged in this chapter

# %% tags=["hide-input"]
shift_parts = []
for change, verb in (("intertwiner", "an intertwiner moves"),
                     ("probes", "probes move")):
    for measure in ACTIVATION_MEASURES:
        is_moved = shift_table.loc[measure, change] >= ROUNDING
        shift_parts.append(rules.Part(
            f"{verb} {MEASURE_LABELS[measure]}", float(is_moved)))
    is_unmoved = shift_table.loc["wcka", change] < ROUNDING
    shift_parts.append(rules.Part(
        f"{verb} wCKA by rounding only", float(is_unmoved)))
count_parts = []
for measure in ACTIVATION_MEASURES:
    is_cheaper = count_ratios[measure].min() > 1
    count_parts.append(rules.Part(
        f"wCKA takes fewer multiply-adds than {MEASURE_LABELS[measure]}",
        float(is_cheaper)))
shift_texts = []
for measure in ACTIVATION_MEASURES:
    intertwiner_shift, probe_shift = shift_table.loc[
        measure, ["intertwiner", "probes"]]
    shift_texts.append(f"{MEASURE_LABELS[measure]} {intertwiner_shift:.3f} "
                       f"and {probe_shift:.3f}")
finding = rules.Finding(
    [*shift_parts, *count_parts],
    "moved by an intertwiner and by fog: " + ", ".join(shift_texts)
    + f"; for the paper's shapes and {len(images):,} images the others take "
    "so many times the multiply-adds of wCKA, forward passes not counted: "
    + ", ".join(ratio_texts)
    + "; an intertwiner moves by rounding only, beside wCKA: "
    + other_symmetric_text)
chapter_claims = rules.judge("08", {"advantages": finding})
claims.show(chapter_claims)

# %% tags=["remove-cell"]
claims.say_verdicts(chapter_claims, {"advantages": {
    "holds": "wCKA has the advantages that the paper claims over the measures "
             "that it tests: an intertwiner and other probes move those and "
             "not wCKA, which takes fewer multiply-adds.",
    "partly": "wCKA has some of the advantages that the paper claims over the "
              "measures that it tests, but not all.",
    "fails": "wCKA has none of the advantages that the paper claims over the "
             "measures that it tests.",
    "cannot be told": "Whether wCKA has the advantages that the paper claims "
                      "over the measures that it tests is open.",
}})

# %% [markdown]
# Competing metrics are those that the paper benchmarks. The counts decide what is efficient: no verdict rests on times.
#
# ## Exercises
#
# **1.** How do the multiply-adds of wCKA grow with the number of outputs, and at how many outputs does wCKA take more of them
# than CKA? With all ten classes: `python -m wcka run 08 -p classes "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
output_counts = {}
for outputs in (3, 10, 100, 1000):
    output_widths = [784, *hidden, outputs]
    output_counts[outputs] = operations.pair_operations(
        len(images), output_widths, len(hidden))
output_table = pd.DataFrame(output_counts).T[["cka", "wcka"]] / 1e6
output_table.rename(columns=MEASURE_LABELS).rename_axis(
    "outputs").style.format("{:,.2f}").set_caption("Millions of multiply-adds")

# %% [markdown]
# **2.** With few images CKA takes fewer multiply-adds than wCKA. Up to how many images, for each of the paper's networks?
# For wider ones, with times: `python -m wcka run 08 -p widths "[32, 64, 128, 256, 512, 1024, 2048]"`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
break_even = {}
for shape, shape_widths in PAPER_WIDTHS.items():
    last_hidden = len(shape_widths) - 2
    for n_images in range(1, len(images) + 1):
        counted = operations.pair_operations(
            n_images, shape_widths, last_hidden)
        if counted["cka"] >= counted["wcka"]:
            break
    break_even[shape] = n_images - 1
pd.Series(break_even, name="images").to_frame()

# %% [markdown]
# ## To take away
#
# - **Choose by invariance first**, then by cost.
# - **Compare many networks at once**: `wcka.pairwise` does what they share once.
# - **wCKA needs neither images nor activations**: its cost is that of multiplying the weights.
# - **More machines:** the chapters' units of work run on a cluster as they are: [how](../book/cluster).
