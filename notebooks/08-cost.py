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
# The paper calls wCKA "computationally efficient" and times one pair (its figure 1c, our [chapter 2](02-calibration)). In use one compares
# many. This chapter takes the whole family of measures, sets `wcka` beside the libraries that people use for them, on the same arrays
# and in the same run, and asks four things: do the values agree, how long does it take, how much memory, and how far is that from the bare matrix products?
#
# After this chapter you can
#
# - choose a measure by what it is invariant to, and know what it costs;
# - say where this project is faster than its peers, by how much and why, and where it is not;
# - estimate what a comparison of your networks will take.

# %% tags=["hide-input"]
import os
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue
from torch import nn

import wcka
from wcka.book import claims, distinct, figures, say, verdicts, within
from wcka.experiments import other_libraries, trained
from wcka.measures import (
    INVARIANCES,
    MEASURE_LABELS,
    Confounder,
    inner_products,
)
from wcka.networks import build, chains, image_sets, initialise, train
from wcka.weights import symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 08 -p width 200 -p models "[10, 100]"`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
width: int = 100  # units of the layer that is compared
# of training of the networks whose activations are compared
epochs: int = 2
probes: int = 1000  # images that they see, for all pairs
# numbers of images for one pair
pair_probes: list[int] = [1000, 3000, 10000]
pair_widths: list[int] = [32, 100, 1000]  # and numbers of units
models: list[int] = [10, 100, 300]  # numbers of networks, for all pairs
# widths of four hidden layers, for wCKA against the number of parameters
chain_widths: list[int] = [32, 128, 512, 2048]
# seconds that a library may take for a pair; where it would take longer it is
# left out
patience: float = 5.0
goal_models: int = 100  # number of networks in the goals
# numbers of images for dCKA beside its peer
dcka_probes: list[int] = [500, 1000]
many_probes: int = 60000  # and without it
repeats: int = 5  # runs of which each time is the median
# measure peak memory as well, in processes of their own
memory_too: bool = True
trained_networks: int = 50  # networks trained at once, beside a loop
batch_size: int = 32  # images in one step of training
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
distinct(
    pair_probes=(pair_probes, 3),
    pair_widths=(pair_widths, 1),
    models=(models, 3),
    chain_widths=(chain_widths, 2),
    dcka_probes=(dcka_probes, 2),
    classes=(classes, 2),
)
within(
    width=(width, 2, 10000),
    epochs=(epochs, 1, 1000),
    probes=(probes, 10, 3000),
    repeats=(repeats, 1, 1000),
    pair_probes=(pair_probes, 10, 60000),
    dcka_probes=(dcka_probes, 10, 60000),
    many_probes=(many_probes, 10, 60000),
    pair_widths=(pair_widths, 2, 10000),
    chain_widths=(chain_widths, 1, 10000),
    patience=(patience, 0, 1e6),
    trained_networks=(trained_networks, 2, 1000),
    batch_size=(batch_size, 1, 10000),
    models=(models, 2, 10000),
    seed=(seed, 0, 2**31),
)
choices = {
    "goal_models": (goal_models, models),
    "width": (width, pair_widths),
    "probes": (probes, pair_probes),
}
for name, (value, options) in choices.items():
    if value not in options:
        raise ValueError(f"{name}: wanted one of {options}, got {value}")

# %% [markdown]
# ## The family
#
# {glue:text}`measures` measures, one interface: `wcka.NAME(x, y)` for a pair, `wcka.pairwise("NAME", features)` for all pairs. What tells them apart first is
# what they do *not* see. Each declares its invariances in one table, `wcka.INVARIANCES`; the project's tests
# assert every entry, present or absent. Here they are measured: of two networks one is changed, either of them, and the similarity moves by so much.

# %%
def mlp(*hidden_widths):
    """Describe a fully connected network for images of the classes."""
    return {
        "factory": "mlp",
        "widths": [784, *hidden_widths, len(classes)],
        "activation": "relu",
    }


images, labels = image_sets.load(dataset, "test", classes)
population = trained(mlp(32, 32), [seed, seed + 1], dataset, classes, epochs)
first_network = population.member(0).double()
second_network = population.member(1).double()
clean_images = images[:300]
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
shift_table = pd.DataFrame(shift_rows).T
glue("measures", str(len(shift_table)), display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-family", "caption": "How far each measure moves when one of two trained networks is changed. Zero: invariant up to rounding (below 1e-6), exactly where INVARIANCES lists it. Activations are those of the last hidden layer; the first six changes act on it and are undone by the next layer. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with a row for each measure and nine columns, one a change. Most measures of activations are zero for permutation, rotation, scale and translation; mean CCA also for invertible maps; the ReLU variants for unit rescaling and intertwiners but not for rotations. Output maps are zero for every measure of activations and move wCKA, which alone is zero for probes."}}
def shift_text(shift):
    """Write how far a measure moves, with as many digits as it needs."""
    if shift < 1e-6:
        return "0"
    if shift < 0.001:
        return "<.001"
    return f"{shift:.3f}" if shift < 0.01 else f"{shift:.2f}"


for measure, shifts in shift_table.iterrows():
    unmoved_by = set(shifts.index[shifts < 1e-6])
    assert unmoved_by == INVARIANCES[measure] - {"silent weights"}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.2))
figures.heat_map(axes, shift_table, shift_table.map(shift_text), cmap="OrRd",
                 vmin=0, vmax=0.6, cbar=False)
axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
axes.axvline(6, color="black", lw=1)
plt.show()

# %% [markdown]
# Four groups. CKA in its variants, Procrustes, dCKA and SVCCA see nothing of rotations. Mean CCA is blind to *any* invertible map, and PWCCA, which
# weights by the units of its first argument, to little. The two measures of Godfrey et al. {cite}`godfrey2022` are blind to what ReLU lets through: the order and
# the positive scale of units. Only wCKA does not see the probes.
#
# ## Do the values agree?
#
# Activations of trained networks with a layer of {glue:text}`width` units on {glue:text}`probes` real images, dead units left out.
# Where a library wants networks and loaders, its arithmetic is called directly. What is not installed is left out: {glue:text}`missing`.

# %%
peers, missing = other_libraries.available()
wide_network = mlp(width, width)
population = trained(wide_network, [seed, seed + 1], dataset, classes, epochs)
inputs = image_sets.as_inputs(images[:probes]).double()
live_activations = []
for activations in population.activations(inputs.float(), 2):
    is_live = activations.amax(0) > 0
    live_activations.append(activations[:, is_live].double())
x, y = live_activations
peer_options = {
    "dcka": {"inputs": inputs},
    "minibatch_cka": {"batch_size": probes // 4},
}

agreement_rows = []
for peer in peers:
    options = peer_options.get(peer.measure, {})
    # Minibatch CKA wants whole batches.
    n = len(x) - len(x) % options.get("batch_size", 1)
    pair = [x[:n], y[:n]]
    peer_value = peer.of_pair(*peer.given(pair), **options)
    wcka_value = getattr(wcka, peer.measure)(*pair, **options)
    difference = abs(peer_value - wcka_value)
    reason = peer.why if difference > 1e-9 else ""
    agreement_rows.append((
        peer.package, peer.version, peer.measure, peer_value, wcka_value,
        difference, reason, peer.single))
agreement = pd.DataFrame(agreement_rows, columns=[
    "library", "version", "measure", "its value", "ours", "difference",
    "why they differ", "single"])
number_formats = {"its value": "{:.6f}", "ours": "{:.6f}",
                  "difference": "{:.0e}"}
agreement.style.format(number_formats).hide().hide(["single"], axis=1)

# %% tags=["remove-cell"]
glue("missing", ", ".join(missing) or "nothing", display=False)
glue("width", f"{width:,}", display=False)
glue("probes", f"{len(inputs):,}", display=False)
equal_rows = agreement[agreement["why they differ"] == ""]
single_rows = agreement[agreement.single.astype(bool)]
glue("agree-exactly", f"{len(equal_rows)} of {len(agreement)}",
     display=False)
say("agree-largest", equal_rows.difference.max(), ".0e")
say("single-largest", single_rows.difference.max(), ".0e")

# %% [markdown]
# {glue:text}`agree-exactly` functions give our value to {glue:text}`agree-largest` or better. Those that compute in float32 are off by up to
# {glue:text}`single-largest`. The others compute something else under the same name; the table says what.
#
# ## One pair
#
# Times below are medians of up to {glue:text}`repeats` runs after one that warms up, all within this run of the chapter; of fewer where these take more than a
# second, and of the one run where it alone does. The machine has {glue:text}`cores` cores; on others times will differ. Arrays are in double
# precision, and so is what `wcka` computes; "single" is float32 given to both. simtorch's and torch_cka's CKA make float32 of whatever they get, and count as single.

# %% tags=["hide-input"]
def seconds(function, *arguments, runs=repeats, **options):
    """Median time of some runs after one that warms up.

    There are fewer runs where they take more than a second together.
    """
    durations = []
    while len(durations) <= runs and sum(durations) < 1:
        start = time.perf_counter()
        function(*arguments, **options)
        durations.append(time.perf_counter() - start)
    if len(durations) > 1:
        durations = durations[1:]
    return float(np.median(durations))


def features_of(count, n, units):
    """Activations of untrained networks with one hidden layer on real images.

    Returns a list of `count` matrices (n, units).
    """
    networks = initialise(mlp(units), range(seed, seed + count))
    return list(networks.activations(every_image[:n], 1).double())


def in_single(features):
    """Return features in single precision."""
    return [matrix.float() for matrix in features]


images_of_all_classes, _ = image_sets.load(dataset, "train", None)
every_image = image_sets.as_inputs(images_of_all_classes)

# Linear CKA: which of the two estimators makes no difference to the time. Of
# a library that has both, the first one in its list is timed.
linear_peers = {}
for peer in reversed(peers):
    if peer.measure in ("cka", "unbiased_cka"):
        linear_peers[peer.package] = peer


def bare_products(features):
    """Compute nothing but the matrix products of linear CKA.

    These are the kernels and the products of kernels, or the products of all
    features, whichever takes fewer operations.
    """
    n, d = features[0].shape
    columns = np.full(len(features), d, dtype=float)
    if inner_products.cheaper_by_kernels(columns, n, None):
        stack = torch.stack(features)  # (networks, n, d)
        strip_rows = -(-n // 8)  # an eighth, rounded up
        for start in range(0, n, strip_rows):
            rows = stack[:, start:start + strip_rows]
            kernels = torch.bmm(rows, stack[:, start:].mT)
            strip = kernels.flatten(1)  # (networks, elements of the strip)
            strip @ strip.T
    else:
        side_by_side = torch.cat(features, 1)  # (n, networks * d)
        for start in range(0, side_by_side.shape[1], 128):
            columns = side_by_side[:, start:start + 128]
            columns.T @ side_by_side[:, start:]

# %% tags=["hide-input", "timing"]
def extrapolate(earlier_times, size, power):
    """Estimate a time from those at smaller sizes; 0 without any.

    Parameters: pairs (size, seconds); the size; the power that time grows
    with if there is one earlier time only.
    """
    if not earlier_times:
        return 0
    last_size, last_time = earlier_times[-1]
    if len(earlier_times) > 1:
        size_before, time_before = earlier_times[-2]
        power = np.log(last_time / time_before)
        power = power / np.log(last_size / size_before)
    return last_time * (size / last_size)**power


def wcka_in_single(x, y):
    """CKA of a pair by wcka in single precision."""
    return wcka.pairwise("cka", [x, y], dtype=torch.float32)


def bare_products_of_pair(x, y):
    """Compute the bare products of two networks."""
    return bare_products([x, y])


# Functions of a pair by name, and whether they compute in single precision
pair_functions = {
    "wcka": wcka.cka,
    "wcka, single": wcka_in_single,
    "bare products": bare_products_of_pair,
    "bare products, single": bare_products_of_pair,
}
is_single = {
    "wcka": False,
    "wcka, single": True,
    "bare products": False,
    "bare products, single": True,
}
not_peers = list(pair_functions)
for name, peer in linear_peers.items():
    pair_functions[name] = peer.of_pair
    is_single[name] = peer.single
    # PyTorch all through: these compute in the precision of their inputs.
    if name in ("ckatorch", "pytorch-cka"):
        pair_functions[f"{name}, single"] = peer.of_pair
        is_single[f"{name}, single"] = True


def singles_among(libraries):
    """Return those of the libraries that compute in single precision."""
    return [name for name in libraries if is_single[name]]


pair_sizes = [(n, width) for n in sorted(pair_probes)]
for units in sorted(pair_widths):
    if units != width:
        pair_sizes.append((min(pair_probes), units))
pair_rows = []
for n, units in pair_sizes:
    double_features = features_of(2, n, units)
    for name, function in pair_functions.items():
        earlier_times = []
        for row in pair_rows:
            if row["library"] == name and row["units"] == width:
                earlier_times.append((row["n"], row["seconds"]))
        expected_time = extrapolate(earlier_times, n, power=2)
        if n > min(pair_probes) and expected_time >= patience:
            continue
        features = double_features
        if is_single[name]:
            features = in_single(double_features)
        pair_rows.append({"n": n, "units": units, "library": name,
                          "seconds": seconds(function, *features)})
pair_table = pd.DataFrame(pair_rows)
pair_times = pair_table.pivot_table(
    index="library", columns=["n", "units"], values="seconds", sort=False)
milliseconds = (1e3 * pair_times).style.format("{:.2f}", na_rep="–")
milliseconds.set_caption("Milliseconds for one pair, linear CKA; "
                         "–: would take longer than `patience`")

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-pair", "caption": "Time of linear CKA of one pair against the number of probes, on logarithmic axes. Dashed: in single precision; dotted: the bare matrix products."}, "image": {"alt": "Lines on logarithmic axes: milliseconds of one pair against number of probes, one line a library; wcka in red, its single precision dashed, the bare products dotted."}}
COLOURS = {
    "wcka": figures.MEASURE_COLORS["wcka"],
    "bare products": "#000000",
    "ckatorch": "#56B4E9",
    "pytorch-cka": "#0072B2",
    "torch_cka": "#009E73",
    "simtorch": "#CC79A7",
    "repsim": "#E69F00",
    "rsatoolbox": "#999999",
    "plain loop": "#555555",
    "careful loop": "#AAAAAA",
}


def colour_of(library):
    """Colour of a library, the same in both precisions."""
    return COLOURS[library.removesuffix(", single")]


def dash_of(library):
    """Line style of a library: dotted, dashed or drawn through."""
    if library == "bare products":
        return (0, (1, 1))
    return (0, (3, 2)) if library.endswith(", single") else "-"


def draw_lines(axes, table, unit, x_name):
    """Draw one line per library, with its name at its end."""
    ends = []
    for library, times in table.iterrows():
        times = (unit * times).dropna()
        axes.plot(times.index, times, color=colour_of(library),
                  ls=dash_of(library), marker="o", ms=3.5,
                  lw=2.2 if library == "wcka" else 1.4)
        last_size = times.index[-1]
        label = library
        if last_size != table.columns[-1]:
            label = f"{library}, to {last_size:,}"
        ends.append((float(times.iloc[-1]), last_size, library, label))
    axes.set(xscale="log", yscale="log", xlabel=x_name)

    # Labels of similar times are moved up, so that they do not overlap.
    low, high = np.log10(axes.get_ylim())
    line_height = 0.055 * (high - low)
    label_height = -np.inf
    for value, last_size, library, label in sorted(ends):
        label_height = max(np.log10(value), label_height + line_height)
        label_place = (axes.get_xlim()[1] * 1.02, 10**label_height)
        color = colour_of(library)
        axes.annotate(
            label, (last_size, value), label_place, color=color, va="center",
            annotation_clip=False, arrowprops={
                "arrowstyle": "-", "color": color, "lw": 0.4, "alpha": 0.5})
    sizes = list(table.columns)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()


times_by_probes = pair_table[pair_table.units == width].pivot_table(
    index="library", columns="n", values="seconds", sort=False)
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 3.8))
draw_lines(axes, times_by_probes.drop(index=["bare products, single"]), 1e3,
           "probes")
axes.set_ylabel("milliseconds")
plt.show()

# %% tags=["remove-cell", "timing"]
peer_pair_times = pair_times.drop(index=not_peers)
singles = singles_among(peer_pair_times.index)
# The fastest peer's time over ours, by numbers of probes and units
wcka_pair_times = pair_times.loc["wcka"]
double_ratios = peer_pair_times.drop(index=singles).min() / wcka_pair_times
single_ratios = (
    peer_pair_times.loc[singles].min() / pair_times.loc["wcka, single"])
any_ratios = peer_pair_times.min() / wcka_pair_times
ratios_by_precision = {
    "double": double_ratios,
    "single": single_ratios,
    "any": any_ratios,
}

glue("cores", str(os.cpu_count()), display=False)
glue("repeats", str(repeats), display=False)
widest = (min(pair_probes), max(pair_widths))
narrow_sizes = [size for size in pair_times.columns if size[1] <= width]
for precision, ratios in ratios_by_precision.items():
    say(f"pair-{precision}-least", ratios[narrow_sizes].min(), ".1f")
    say(f"pair-{precision}-most", ratios[narrow_sizes].max(), ".0f")
    say(f"pair-{precision}-wide", ratios.get(widest, np.nan), ".2f")
glue("widest", f"{max(pair_widths):,}", display=False)
largest_times = pair_times[max(pair_probes), width]
bare_ratio = largest_times["wcka"] / largest_times["bare products"]
say("pair-bare", bare_ratio, ".1f")

# %% [markdown]
# The peers form the $n \times n$ kernels of both networks. `wcka` takes the way of fewer operations: for all pairs of $N$ networks about $N^2 n d^2$ by features, $N^2n^2 + Nn^2d$ by
# kernels. The time of the fastest peer, divided by ours (below 1: the peer is faster):
#
# | | up to {glue:text}`width` units | {glue:text}`widest` units |
# | :--- | :--- | :--- |
# | both in double precision | {glue:text}`pair-double-least` to {glue:text}`pair-double-most` | {glue:text}`pair-double-wide` |
# | both in single precision | {glue:text}`pair-single-least` to {glue:text}`pair-single-most` | {glue:text}`pair-single-wide` |
# | ours in double, the peer in either | {glue:text}`pair-any-least` to {glue:text}`pair-any-most` | {glue:text}`pair-any-wide` |
#
# At {glue:text}`most-probes` probes `wcka` takes {glue:text}`pair-bare` times the bare products.
#
# ## All pairs
#
# What is marked * is computed, not measured. Libraries without a way for many at once take as long as one pair, times the number of pairs (repsim, which keeps kernels, as long as its
# criteria for that many). Those that have one but would take longer than `patience`, or several GB, are continued by their own growth. The plain
# loop is NumPy's formula in features, $\norm{\mathbf Y^\top\mathbf X}_F^2 / \norm{\mathbf X^\top\mathbf X}_F \norm{\mathbf Y^\top\mathbf Y}_F$, centred for each pair, as one would write it; the careful
# loop centres and takes the denominator once a network.

# %% tags=["timing"]
def plain_cka(u, v):
    """Linear CKA by the formula in features, as one would write it."""
    u = u - u.mean(0)
    v = v - v.mean(0)
    numerator = np.linalg.norm(v.T @ u)**2
    return numerator / (np.linalg.norm(u.T @ u) * np.linalg.norm(v.T @ v))


def careful_numerator(u, v):
    """The part of the formula that a careful loop computes for each pair."""
    return np.linalg.norm(v.T @ u)**2


def wcka_of_all(features):
    """CKA of all pairs by wcka in double precision."""
    return wcka.pairwise("cka", features)


def wcka_of_all_in_single(features):
    """CKA of all pairs by wcka in single precision."""
    return wcka.pairwise("cka", features, dtype=torch.float32)


u, v = features_of(2, probes, width)
u = u.numpy()
v = v.numpy()
time_of_pair = pair_times[probes, width].drop(index=not_peers).to_dict()
time_of_pair["plain loop"] = seconds(plain_cka, u, v)
time_of_pair["careful loop"] = seconds(careful_numerator, u, v)

# What has a way for many networks at once is timed with many.
batched_functions = {
    "wcka": wcka_of_all,
    "wcka, single": wcka_of_all_in_single,
    "bare products": bare_products,
    "bare products, single": bare_products,
}
for name in ("pytorch-cka", "pytorch-cka, single", "rsatoolbox"):
    if name in time_of_pair:
        peer = linear_peers[name.removesuffix(", single")]
        batched_functions[name] = peer.of_all
        del time_of_pair[name]

all_rows = []
for n_models in sorted(models):
    double_features = features_of(n_models, probes, width)
    for name, function in batched_functions.items():
        earlier_times = []
        for row in all_rows:
            if row["library"] == name:
                earlier_times.append((row["models"], row["seconds"]))
        duration = extrapolate(earlier_times, n_models, power=1)
        # 5 GB at 300 networks
        is_too_large = name == "pytorch-cka" and n_models > goal_models
        is_computed = bool(duration > patience or is_too_large)
        if not is_computed:
            features = double_features
            if is_single[name]:
                features = in_single(double_features)
            duration = seconds(function, features)
        all_rows.append({"models": n_models, "library": name,
                         "seconds": duration, "computed": is_computed})
    for name, pair_time in time_of_pair.items():
        times_of_pair = n_models * (n_models - 1) / 2
        if name.startswith("repsim"):
            # It needs five criteria for a pair.
            times_of_pair = (times_of_pair + 2 * n_models) / 5
        all_rows.append({"models": n_models, "library": name,
                         "seconds": pair_time * times_of_pair,
                         "computed": True})
all_table = pd.DataFrame(all_rows)

time_texts = []
for row in all_rows:
    star = "*" if row["computed"] else ""
    time_texts.append(f"{row['seconds']:.3g}{star}")
all_texts = all_table.assign(text=time_texts).pivot(
    index="library", columns="models", values="text")
all_texts = all_texts.loc[all_table.library.unique()].fillna("–")
all_texts.style.set_caption("Seconds for all pairs, linear CKA")

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-all", "caption": "Time of linear CKA of all pairs against the number of networks, on logarithmic axes. Dashed: in single precision; dotted: the bare matrix products of the way that is taken. Libraries marked * in the table are computed from the time of a pair."}, "image": {"alt": "Lines on logarithmic axes: seconds for all pairs against number of networks, one line a library; wcka in red, single precision dashed, the bare products dotted."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 4.0))
times_by_models = all_table.pivot_table(
    index="library", columns="models", values="seconds", sort=False)
shown_times = times_by_models.drop(
    index=["ckatorch, single", "bare products, single"], errors="ignore")
draw_lines(axes, shown_times, 1, "networks")
axes.set_ylabel("seconds")
plt.show()

# %% tags=["remove-cell", "timing"]
def package_of(library):
    """Name of a library without the precision."""
    return library.split(",")[0]


goal_times = times_by_models[goal_models]
wcka_time = goal_times["wcka"]
loops = ["plain loop", "careful loop"]
peer_goal_times = goal_times.drop(index=[*not_peers, *loops]).dropna()
singles = singles_among(peer_goal_times.index)
single_goal_times = peer_goal_times.loc[singles]
double_goal_times = peer_goal_times.drop(index=singles)
nearest_peer = "no peer"
if len(peer_goal_times):
    nearest_peer = peer_goal_times.idxmin()
next_peers = []
for name in peer_goal_times.index:
    if package_of(name) != package_of(nearest_peer):
        next_peers.append(name)

all_ratios = {
    "peer": peer_goal_times.min() / wcka_time,
    "double": double_goal_times.min() / wcka_time,
    "single": single_goal_times.min() / goal_times["wcka, single"],
    "loops": peer_goal_times.loc[next_peers].min() / wcka_time,
    "loop": goal_times["plain loop"] / wcka_time,
    "careful": goal_times["careful loop"] / wcka_time,
    "bare": wcka_time / goal_times["bare products"],
    "possible": (
        peer_goal_times.min() / goal_times["bare products, single"]),
}
glue("goal-models", f"{goal_models:,}", display=False)
glue("nearest-peer", nearest_peer, display=False)
glue("most-probes", f"{max(pair_probes):,}", display=False)
for name, ratio in all_ratios.items():
    say(f"all-{name}", ratio, ".1f")
if all_ratios["possible"] < 30:
    reach = "out of this algorithm's reach"
else:
    reach = "within this algorithm's reach"
glue("all-reach", reach, display=False)

# %% [markdown]
# For {glue:text}`goal-models` networks `wcka` takes {glue:text}`all-bare` times the bare products (two measurements of one thing differ, on a busy machine by much). The plain loop takes {glue:text}`all-loop` times as long, the careful loop {glue:text}`all-careful` times.
# The fastest peer is {glue:text}`nearest-peer`: its time is {glue:text}`all-peer` times ours in double precision. Both in double precision it is {glue:text}`all-double`, both in single
# {glue:text}`all-single` times. The bare products in single precision are {glue:text}`all-possible` times faster than that peer, so thirty times is {glue:text}`all-reach`. The
# next library takes {glue:text}`all-loops` times as long as `wcka`.
#
# ## Memory, and how things grow
#
# Peak memory of one call beyond its features, each in a process of its own; and exponents: doubling the number multiplies the time by $2^e$
# (between the two largest sizes above).

# %% tags=["timing"]
def peak_memory(package, measure, count, n):
    """GB beyond the features; NaN where memory is not to be measured."""
    if not memory_too:
        return np.nan
    return other_libraries.peak_memory(package, measure, count, n, width)


largest = max(pair_probes)
memory_calls = [
    ("wcka", "cka", 2, largest),
    ("wcka", "cka", goal_models, probes),
    ("wcka", "cka", 2, many_probes),
]
if "pytorch-cka" in linear_peers:
    memory_calls += [
        ("pytorch-cka", "unbiased_cka", 2, largest),
        ("pytorch-cka", "unbiased_cka", goal_models, probes),
    ]
memory_rows = []
for package, measure, count, n in memory_calls:
    if count == 2:
        task = f"one pair, {n:,} probes"
    else:
        task = f"all pairs of {count:,}, {n:,} probes"
    memory_rows.append({"library": package, "what": task,
                        "GB": peak_memory(package, measure, count, n)})
memory = pd.DataFrame(memory_rows)
memory_by_task = memory.pivot_table(
    index="library", columns="what", values="GB", sort=False, dropna=False)
memory_by_task.style.format("{:.2f}", na_rep="–")

# %% tags=["timing"]
def exponent(times):
    """Slope between the two largest sizes, on logarithmic axes."""
    times = times.dropna().iloc[-2:]
    if len(times) < 2:
        return np.nan
    sizes = times.index.to_numpy(float)
    return np.diff(np.log(times))[0] / np.diff(np.log(sizes))[0]


times_by_units = {}
for units in (width // 2, width, 2 * width):
    features = features_of(2, largest, units)
    times_by_units[units] = {"wcka": seconds(wcka.cka, *features)}
times_by_units = pd.DataFrame(times_by_units)
growth = pd.DataFrame({
    "in networks (all pairs)": times_by_models.apply(exponent, axis=1),
    "in probes (one pair)": times_by_probes.apply(exponent, axis=1),
    "in units (one pair)": times_by_units.apply(exponent, axis=1),
})
growth = growth.reindex(times_by_models.index)
growth.style.format("{:.1f}", na_rep="–")

# %% [markdown]
# wCKA needs weights only: its time is that of the chain, which grows with the number of parameters.

# %% tags=["timing"]
chain_rows = []
for units in sorted(chain_widths):
    architecture = mlp(units, units, units, units)
    first_network = initialise(architecture, [seed]).member(0)
    second_network = initialise(architecture, [seed + 1]).member(0)
    duration = seconds(wcka.wcka, first_network, second_network)
    chain_rows.append({
        "parameters": sum(p.numel() for p in first_network.parameters()),
        "milliseconds": 1e3 * duration,
    })
by_parameters = pd.DataFrame(chain_rows, index=sorted(chain_widths))
by_parameters = by_parameters.rename_axis("width of four hidden layers")
by_parameters.style.format({"parameters": "{:,.0f}",
                            "milliseconds": "{:.1f}"})

# %% tags=["remove-cell", "timing"]
chain_times = by_parameters.set_index("parameters").milliseconds
say("growth-parameters", exponent(chain_times), ".1f")
say("most-parameters", by_parameters.parameters.max() / 1e6, ".1f")
say("most-parameters-time", by_parameters.milliseconds.iloc[-1] / 1e3, ".2f")
for package in ("wcka", "pytorch-cka"):
    package_memory = memory[memory.library == package].GB
    pair_memory = package_memory.iloc[0] if len(package_memory) else np.nan
    say(f"memory-{package}", pair_memory, ".2f")
say("memory-many", memory[memory.library == "wcka"].GB.iloc[-1], ".2f")
say("memory-kept", inner_products.KEPT / 1e9, ".1f")
say("growth-probes", growth.loc["wcka", "in probes (one pair)"], ".1f")
say("growth-units", growth.loc["wcka", "in units (one pair)"], ".1f")
say("growth-models", growth.loc["wcka", "in networks (all pairs)"], ".1f")

# %% [markdown]
# With {glue:text}`most-probes` probes one pair takes {glue:text}`memory-wcka` GB here, {glue:text}`memory-pytorch-cka` GB with
# pytorch-cka, which holds $n \times n$ kernels, as all of these libraries do; with {glue:text}`many-probes` probes it is {glue:text}`memory-many` GB. For linear CKA, Procrustes and wCKA the probes are read in pieces, and converted
# features are kept only while all of them fit in {glue:text}`memory-kept` GB: features may stay on disk (`numpy.load(..., mmap_mode="r")`). The other measures take a copy of all features, and some hold $n \times n$ matrices.
# Between the two largest sizes above time grows like probes to the power {glue:text}`growth-probes`, units {glue:text}`growth-units` and networks {glue:text}`growth-models`; counting operations, the powers for large sizes are 1, 2
# and 2. That of wCKA grows like parameters to the power {glue:text}`growth-parameters` between the two largest of these networks.
#
# ## dCKA
#
# The peer, simtorch, is by one of the authors of the measure. With the step that removes negative eigenvalues, as in the paper; and without. "Probes kept": the inputs' part,
# which all pairs share, is factorised beforehand (`Confounder`).

# %% tags=["timing"]
dcka_peer = None
for peer in peers:
    if (peer.package, peer.measure) == ("simtorch", "dcka"):
        dcka_peer = peer

dcka_rows = []
n_pairs = goal_models * (goal_models - 1) / 2
for n in dcka_probes:
    features = features_of(goal_models, n, width)
    pair = features[:2]
    probe_inputs = every_image[:n]
    confounder = Confounder(probe_inputs)
    for psd in (True, False):
        peer_time = np.nan
        if dcka_peer:
            peer_time = seconds(dcka_peer.of_pair, *dcka_peer.given(pair),
                                probe_inputs, psd=psd)
        pair_time = seconds(wcka.dcka, *pair, probe_inputs, psd=psd)
        kept_time = seconds(wcka.dcka, *pair, confounder, psd=psd)
        all_time = seconds(wcka.pairwise, "dcka", features,
                           inputs=probe_inputs, psd=psd)
        dcka_rows.append({
            "probes": n,
            "PSD step": "with" if psd else "without",
            "simtorch": peer_time,
            "one pair": pair_time,
            "one pair, probes kept": kept_time,
            f"each of all pairs of {goal_models}": all_time / n_pairs,
        })
dcka_times = pd.DataFrame(dcka_rows)
dcka_style = dcka_times.style.format("{:.4f}", subset=dcka_times.columns[2:])
dcka_style.hide().set_caption("Seconds for dCKA")

# %% tags=["timing"]
many_inputs = every_image[:many_probes]
start = time.perf_counter()
many_confounder = Confounder(many_inputs)
prepare_seconds = time.perf_counter() - start
start = time.perf_counter()
wcka.dcka(*features_of(2, len(many_inputs), width), many_confounder)
many_pair_seconds = time.perf_counter() - start
many_memory = peak_memory("wcka", "dcka", 2, len(many_inputs))

peer_probes_low = min(dcka_probes)
peer_probes_high = max(dcka_probes)
peer_memory_low = np.nan
peer_memory_high = np.nan
if dcka_peer:
    peer_memory_low = peak_memory("simtorch", "dcka", 2, peer_probes_low)
    peer_memory_high = peak_memory("simtorch", "dcka", 2, peer_probes_high)

# %% tags=["remove-cell", "timing"]
goal_probes = 1000 if 1000 in dcka_probes else dcka_probes[-1]
dcka_by_step = dcka_times[dcka_times.probes == goal_probes]
dcka_by_step = dcka_by_step.set_index("PSD step").drop(columns="probes")
dcka_ratios = {}
for step in ("with", "without"):
    step_times = dcka_by_step.loc[step]
    ratios = step_times["simtorch"] / step_times.drop("simtorch")
    dcka_ratios[step] = dict(zip(("pair", "kept", "all"), ratios))
    for name, ratio in dcka_ratios[step].items():
        say(f"dcka-{step}-{name}", ratio, ".0f")
glue("dcka-at", f"{goal_probes:,}", display=False)
glue("many", f"{len(many_inputs):,}", display=False)
say("many-prepare", prepare_seconds, ".1f")
say("many-pair", many_pair_seconds, ".1f")
say("many-memory", many_memory, ".1f")
glue("many-probes", f"{many_probes:,}", display=False)
# Memory grows with the square of n.
memory_per_square = peer_memory_high - peer_memory_low
memory_per_square /= peer_probes_high**2 - peer_probes_low**2
say("many-peer", memory_per_square * len(many_inputs)**2, ",.0f")
glue("peer-at", f"{peer_probes_low:,} and {peer_probes_high:,}",
     display=False)

# %% [markdown]
# At {glue:text}`dcka-at` probes one pair from nothing is {glue:text}`dcka-with-pair` times faster with the PSD step ({glue:text}`dcka-without-pair` without), with the probes kept
# {glue:text}`dcka-with-kept` ({glue:text}`dcka-without-kept`), and each of all pairs of {glue:text}`goal-models` networks {glue:text}`dcka-with-all` ({glue:text}`dcka-without-all`) times.
# A single pair is held back by the factor of its inputs and, with the PSD step, by the eigenvalue problem of all its inputs' and units' directions, of which no faster exact way was found; among many networks the first
# is done once, the second once a network and not once a pair. (simtorch solves six such problems a pair where two would do: a factor of three of its time with the PSD step is that alone.)
#
# At {glue:text}`many` probes the inputs take {glue:text}`many-prepare` s once, the pair {glue:text}`many-pair` s, in {glue:text}`many-memory` GB beyond the features. The peer's memory, extrapolated with the square of $n$ from {glue:text}`peer-at` probes,
# would be about {glue:text}`many-peer` GB.
#
# ## The other measures
#
# One pair and all pairs of 30 networks, {glue:text}`probes` probes, {glue:text}`width` units, and the fastest library for the same measure.

# %% tags=["timing"]
batch_probes = len(inputs) // 4
whole_batches = len(inputs) - len(inputs) % batch_probes
features = []
for matrix in features_of(30, len(inputs), width):
    features.append(matrix[:whole_batches])
chain_population = initialise(mlp(width), range(30))
options_by_measure = {
    "dcka": {"inputs": every_image[:whole_batches]},
    "minibatch_cka": {"batch_size": batch_probes},
}

family_rows = []
for measure in INVARIANCES:
    options = options_by_measure.get(measure, {})
    compared = features
    if measure == "wcka":
        compared = chains(chain_population).double()
    peer_times = {}
    for peer in peers:
        if peer.measure == measure:
            peer_times[peer.package] = seconds(
                peer.of_pair, *peer.given(features[:2]), **options)
    pair_time = seconds(wcka.pairwise, measure, compared[:2], **options)
    all_time = seconds(wcka.pairwise, measure, compared, runs=1, **options)
    fastest_time = min(peer_times.values(), default=np.nan)
    family_rows.append({
        "measure": measure,
        "one pair, ms": 1e3 * pair_time,
        "all pairs of 30, s": all_time,
        "fastest peer": min(peer_times, key=peer_times.get, default="–"),
        "its pair, ms": 1e3 * fastest_time,
        "ratio": fastest_time / pair_time,
    })
family = pd.DataFrame(family_rows).set_index("measure")
number_formats = {
    "one pair, ms": "{:.2f}",
    "all pairs of 30, s": "{:.3f}",
    "its pair, ms": "{:.2f}",
    "ratio": "{:.1f}",
}
family.rename_axis(None).style.format(number_formats, na_rep="–")

# %% tags=["remove-cell", "timing"]
say("cheapest-ms", family["one pair, ms"].min(), ".1f")
say("dearest-ms", family["one pair, ms"].max(), ".0f")
slower = []
for measure, row in family[family.ratio < 1].iterrows():
    slower.append(
        f"{measure} (than {row['fastest peer']}, ratio {row.ratio:.2f})")
if any_ratios.min() < 1:
    worst_n, worst_units = any_ratios.idxmin()
    fastest_peer = peer_pair_times[worst_n, worst_units].idxmin()
    slower.append(
        f"linear CKA in double precision (than {fastest_peer} at "
        f"n = {worst_n:,} and {worst_units:,} units, "
        f"ratio {any_ratios.min():.2f})")
glue("behind", "; ".join(slower) or "none", display=False)

# %% [markdown]
# Measures for which a peer is faster on one pair: {glue:text}`behind`. (`wcka` looks at every input for what would spoil the value, NaN, dead units, a mean far larger than the
# spread; the peers do not. repsim's `svcca` and `pwcca` compute something else, see above.)
#
# ## What kept it from the floor
#
# What profiles showed, each taken back in this run: the time of the older way over that of the present one.

# %% tags=["timing"]
def by_features(features):
    """All pairs of CKA by products of features, whatever the shapes."""
    rule = inner_products.cheaper_by_kernels
    inner_products.cheaper_by_kernels = lambda *_: False
    try:
        return wcka.pairwise("cka", features)
    finally:
        inner_products.cheaper_by_kernels = rule


def in_parts(matrices):
    """Singular values with one thread for each part of the matrices."""
    return inner_products.in_threads(torch.linalg.svdvals, matrices.chunk(12))


features = features_of(goal_models, len(inputs), width)
thirty = features[:30]
assert np.allclose(by_features(thirty), wcka.pairwise("cka", thirty),
                   atol=1e-9)
cross_products = []
for i in range(min(96, goal_models - 1)):
    cross_products.append(features[i].T @ features[i + 1])
cross_products = torch.stack(cross_products)  # (pairs, width, width)
probe_inputs = every_image[:largest]
centred_inputs = (probe_inputs - probe_inputs.mean(0)).double()
live_inputs = centred_inputs[:, centred_inputs.any(0)]

# By the older way: its time, and that of the present way
profile = {
    "all pairs of CKA by features, although kernels take fewer operations": (
        seconds(by_features, features),
        seconds(wcka.pairwise, "cka", features),
    ),
    "Procrustes: singular values with LAPACK's own threads, not one thread "
    "for each part": (
        seconds(torch.linalg.svdvals, cross_products),
        seconds(in_parts, cross_products),
    ),
    f"dCKA, {largest:,} probes: an orthonormal basis of the inputs, not a "
    "pivoted factor of their Gram matrix": (
        seconds(torch.linalg.qr, live_inputs),
        seconds(Confounder, probe_inputs),
    ),
}
ways = ["older way, s", "present way, s"]
profile = pd.DataFrame(profile, index=ways).T
profile["ratio"] = profile["older way, s"] / profile["present way, s"]
profile.style.format({"older way, s": "{:.4f}", "present way, s": "{:.4f}",
                      "ratio": "{:.1f}"})

# %% [markdown]
# Also removed, without a row: differences of two number types,
# which PyTorch computes at half speed; new memory for every strip of kernels; products that nobody asked for.
#
# ## Training many networks at once
#
# The benchmark needs populations. They are trained as one stacked network, in which each layer is one batched product; beside it the plain loop over networks: the same steps,
# the same fused optimiser, on one thread, as these matrices are too small for more. (A loop on each core would be faster by the number of cores at the most.)

# %% tags=["timing"]
train_images, train_labels = image_sets.load(dataset, "train", classes)
train_inputs = image_sets.as_inputs(train_images)
train_labels = torch.from_numpy(train_labels)
narrow_network = mlp(32, 32, 32, 32)


def train_alone():
    """Train one network for one epoch, as everyone writes it."""
    torch.manual_seed(seed)
    network = build(narrow_network)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for rows in torch.randperm(len(train_inputs)).split(batch_size):
        optimizer.zero_grad()
        logits = network(train_inputs[rows])
        nn.functional.cross_entropy(logits, train_labels[rows]).backward()
        optimizer.step()


population = initialise(narrow_network, range(seed, seed + trained_networks))
together_seconds = seconds(train, population, train_inputs, train_labels, 1,
                           batch_size=batch_size, runs=1)
threads = torch.get_num_threads()
torch.set_num_threads(1)
alone_seconds = seconds(train_alone)
torch.set_num_threads(threads)
training_ratio = alone_seconds / (together_seconds / trained_networks)

# %% tags=["remove-cell", "timing"]
say("training", training_ratio, ".1f")
glue("trained-networks", str(trained_networks), display=False)

# %% [markdown]
# Alone, a network's epoch takes {glue:text}`training` times as long as its share in a population of {glue:text}`trained-networks`.
#
# ## The goals, and what was reached

# %% tags=["hide-input", "timing"]
large_sizes = [size for size in pair_times.columns if size[0] >= 1000]
large_double = double_ratios[large_sizes]
large_single = single_ratios[large_sizes]
large_any = any_ratios[large_sizes]


def slowest(ratios):
    """Name the case with the lowest ratio."""
    if ratios.isna().all():
        return "no peer"
    n, units = ratios.idxmin()
    return f"slowest case: n = {n:,}, {units:,} units"


def without_psd(name, form):
    """Name the ratio for dCKA without the PSD step."""
    return f"without the PSD step: {dcka_ratios['without'][name]:{form}}"


def measured_text(ratio):
    """Write a ratio, rounded down: no goal is met by rounding."""
    if ratio < 100:
        return f"{np.floor(100 * ratio) / 100:,.2f}"
    return f"{ratio:,.0f}"


many_seconds = prepare_seconds + many_pair_seconds
goals = pd.DataFrame([
    ("one pair of linear CKA from n = 1,000 on, than the fastest peer: both "
     "double", 1, large_double.min(), slowest(large_double)),
    ("both single", 1, large_single.min(), slowest(large_single)),
    ("ours double, the peer in either", 1, large_any.min(),
     slowest(large_any)),
    (f"all pairs of {goal_models} by linear CKA, than the fastest peer", 30,
     all_ratios["peer"], f"{nearest_peer}; the bare products in single: "
                         f"{all_ratios['possible']:.1f}"),
    ("than the next library", np.nan, all_ratios["loops"], "no goal"),
    ("than a loop over the formula in features", 4, all_ratios["loop"],
     f"careful loop: {all_ratios['careful']:.1f}"),
    (f"dCKA at n = {goal_probes:,}, than simtorch: one pair", 100,
     dcka_ratios["with"]["pair"], without_psd("pair", ".1f")),
    ("each of all pairs", 100, dcka_ratios["with"]["all"],
     without_psd("all", ".0f")),
    ("dCKA reaches n", 60000, len(many_inputs), f"{many_seconds:.1f} s"),
    ("training in a population, than alone", np.nan, training_ratio,
     f"{trained_networks} networks; no goal"),
], columns=["times faster", "wanted", "measured", "note"])
results = []
for goal, ratio in zip(goals.wanted, goals.measured):
    if np.isnan(goal):
        results.append("")
    elif np.isnan(ratio):
        results.append("not measured")
    else:
        results.append("● met" if ratio >= goal else "○ not met")
goals["met"] = results
number_formats = {"wanted": "{:,.0f}", "measured": measured_text}
goals.style.format(number_formats, na_rep="–").hide()

# %% [markdown]
# ## The paper's claims in this chapter

# %% tags=["hide-input", "timing"]
networks = initialise(wide_network, range(seed, seed + goal_models))
fewest_probes = len(inputs)
most_probes = max(fewest_probes, min(3000, len(every_image)))


def seconds_of_all(measure, n):
    """Time of all pairs, given the activations on the first n images."""
    options = {}
    if measure == "dcka":
        options["inputs"] = every_image[:n]
    layers = list(networks.activations(every_image[:n], 2))
    return seconds(wcka.pairwise, measure, layers, runs=1, **options)


def seconds_of_pair(measure, n):
    """Time of one pair with n probes."""
    options = {}
    if measure == "dcka":
        options["inputs"] = every_image[:n]
    features = features_of(2, n, width)
    return seconds(wcka.pairwise, measure, features, runs=2, **options)


# The forward pass by number of probes
forward_seconds = {}
for n in (fewest_probes, most_probes):
    forward_seconds[n] = seconds(networks.activations, every_image[:n], 2)

# All pairs, from images or weights on
total_seconds = {}
pass_multiples = {}
for measure in ("cka", "procrustes", "dcka"):
    forward_time = forward_seconds[fewest_probes]
    total_time = forward_time + seconds_of_all(measure, fewest_probes)
    total_seconds[measure] = total_time
    pass_multiples[measure] = total_time / forward_time - 1
most_cka_seconds = forward_seconds[most_probes]
most_cka_seconds += seconds_of_all("cka", most_probes)
most_cka_multiple = most_cka_seconds / forward_seconds[most_probes] - 1
wcka_seconds = seconds(lambda: wcka.pairwise("wcka", chains(networks)))
wcka_lead = min(*total_seconds.values(), most_cka_seconds) / wcka_seconds

# One pair, from the smallest to the largest number of probes
end_probes = (min(pair_probes), max(pair_probes))
probe_growth = {}
probe_powers = {}
for measure in ("procrustes", "cka", "dcka"):
    time_before = seconds_of_pair(measure, end_probes[0])
    time_after = seconds_of_pair(measure, end_probes[1])
    probe_growth[measure] = time_after / time_before
    probe_powers[measure] = np.log(time_after / time_before) / np.log(
        end_probes[1] / end_probes[0])

intensive_texts = []
for measure, multiple in pass_multiples.items():
    intensive_texts.append(f"{multiple:.1f} ({MEASURE_LABELS[measure]})")
glue("intensive", ", ".join(intensive_texts), display=False)

# %% tags=["hide-input"]
features = features_of(min(30, goal_models), len(inputs) - len(inputs) % 4,
                       width)
upper = np.triu_indices(len(features), 1)
biased_cka = wcka.pairwise("cka", features)[upper]
unbiased_cka = wcka.pairwise("unbiased_cka", features)[upper]
minibatch_cka = wcka.pairwise(
    "minibatch_cka", features, batch_size=len(inputs) // 4)[upper]
minibatch_error = np.abs(minibatch_cka - biased_cka)
unbiased_error = np.abs(minibatch_cka - unbiased_cka)
bias = np.abs(biased_cka - unbiased_cka)
say("biased-unbiased", bias.max(), ".3f")

total_texts = []
for measure, duration in total_seconds.items():
    total_texts.append(f"{MEASURE_LABELS[measure]} {duration:.2f} s")
multiple_texts = []
for measure, multiple in pass_multiples.items():
    multiple_texts.append(
        f"{MEASURE_LABELS[measure]} {multiple:.1f} times as long")
is_intensive = [multiple > 1 for multiple in pass_multiples.values()]
growth_texts = []
for measure, factor in probe_growth.items():
    growth_texts.append(f"{MEASURE_LABELS[measure]} {factor:.1f} times "
                        f"(power {probe_powers[measure]:.1f})")
is_growing = [power > 0.2 for power in probe_powers.values()]
relu_measures = ["relu_procrustes", "relu_cka"]
intertwiner_shifts = shift_table["intertwiner"]
intertwiner_texts = []
for measure in relu_measures:
    intertwiner_texts.append(f"{intertwiner_shifts[measure]:.0e} ({measure})")

claims.show([
    claims.Claim(
        "abstract, 4",
        "wCKA is computationally efficient",
        f"all pairs of {goal_models} networks, from weights or images on: "
        f"wCKA {wcka_seconds:.3f} s; with {fewest_probes:,} probes "
        + ", ".join(total_texts),
        verdicts.verdict(wcka_lead > 2, wcka_lead > 1),
        timed=True,
    ),
    claims.Claim(
        "abstract",
        "measures of activations are computationally intensive with many "
        "probes",
        f"all pairs of {goal_models} networks with {fewest_probes:,} probes, "
        "beside the forward pass that gives the activations "
        f"({forward_seconds[fewest_probes]:.2f} s): "
        + ", ".join(multiple_texts)
        + f"; CKA with {most_probes:,} probes {most_cka_multiple:.1f} times",
        verdicts.verdict(*is_intensive),
        timed=True,
    ),
    claims.Claim(
        "fig. 1c",
        "the time of Procrustes, CKA and dCKA grows with the number of "
        "probes",
        f"one pair, from {end_probes[0]:,} to {end_probes[1]:,} probes: "
        + ", ".join(growth_texts),
        verdicts.verdict(*is_growing),
        timed=True,
    ),
    claims.Claim(
        "2.1.2",
        "variants of Procrustes and CKA are invariant to the intertwiners of "
        "ReLU",
        "an intertwiner moves them by " + ", ".join(intertwiner_texts)
        + "; Procrustes itself by "
        f"{intertwiner_shifts['procrustes']:.2f}",
        verdicts.verdict(*(intertwiner_shifts[relu_measures] < 1e-6)),
    ),
    claims.Claim(
        "2.1.2",
        "minibatch CKA approximates CKA",
        f"{len(features)} networks, {len(inputs):,} probes in four batches: "
        f"off the CKA of all probes by {np.median(minibatch_error):.4f} "
        f"(median) to {minibatch_error.max():.4f} (most), off its unbiased "
        f"form by {unbiased_error.max():.4f} at the most (CKA itself, "
        f"biased, is up to {bias.max():.4f} from that)",
        verdicts.verdict(minibatch_error.max() < 0.05,
                         minibatch_error.max() < 0.01),
    ),
])

# %% [markdown]
# What counts as intensive is a matter of taste; here it is more than the forward pass that gave the activations, which no measure of activations does without. All pairs took {glue:text}`intensive`
# times that. The peers above owe their times to loops over pairs, $n \times n$ matrices, and eigenvalue problems among all samples; how the paper's figure was computed is not said.
#
# ## To take away
#
# - **Choose by invariance first.** One pair takes {glue:text}`cheapest-ms` to {glue:text}`dearest-ms` ms, by measure.
# - **Many pairs at once are cheap** in any measure with a batched product; loops over pairs are what costs.
# - **wCKA needs neither images nor activations**: its cost is that of multiplying the weights.
# - **Where a peer is faster** on a single pair, the tables say so: {glue:text}`behind`.
# - **More machines:** the chapters' units of work run on a cluster as they are: [how](../book/cluster).
