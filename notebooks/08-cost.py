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
from wcka.measures import INVARIANCES, MEASURE_LABELS, Confounder, products
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
epochs: int = 2  # of training of the networks whose activations are compared
probes: int = 1000  # images that they see, for all pairs
pair_probes: list[int] = [1000, 3000, 10000]  # numbers of images for one pair
pair_widths: list[int] = [32, 100, 1000]  # and numbers of units
models: list[int] = [10, 100, 300]  # numbers of networks, for all pairs
chain_widths: list[int] = [32, 128, 512, 2048]  # widths of four hidden layers, for wCKA against the number of parameters
patience: float = 5.0  # seconds that a library may take for a pair; where it would take longer it is left out
goal_models: int = 100  # number of networks in the goals
dcka_probes: list[int] = [500, 1000]  # numbers of images for dCKA beside its peer
many_probes: int = 60000  # and without it
repeats: int = 5  # runs of which each time is the median
memory_too: bool = True  # measure peak memory as well, in processes of their own
trained_networks: int = 50  # networks trained at once, beside a loop
batch_size: int = 32  # images in one step of training
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
distinct(pair_probes=(pair_probes, 3), pair_widths=(pair_widths, 1), models=(models, 3), chain_widths=(chain_widths, 2), dcka_probes=(dcka_probes, 2), classes=(classes, 2))
within(width=(width, 2, 10000), epochs=(epochs, 1, 1000), probes=(probes, 10, 3000), repeats=(repeats, 1, 1000), pair_probes=(pair_probes, 10, 60000),
       dcka_probes=(dcka_probes, 10, 60000), many_probes=(many_probes, 10, 60000), pair_widths=(pair_widths, 2, 10000), chain_widths=(chain_widths, 1, 10000), patience=(patience, 0, 1e6),
       trained_networks=(trained_networks, 2, 1000), batch_size=(batch_size, 1, 10000), models=(models, 2, 10000), seed=(seed, 0, 2**31))
for name, wanted, listed in (("goal_models", goal_models, models), ("width", width, pair_widths), ("probes", probes, pair_probes)):
    if wanted not in listed:
        raise ValueError(f"{name}: wanted one of {listed}, got {wanted}")

# %% [markdown]
# ## The family
#
# {glue:text}`measures` measures, one interface: `wcka.NAME(x, y)` for a pair, `wcka.pairwise("NAME", features)` for all pairs. What tells them apart first is
# what they do *not* see. Each declares its invariances in one table, `wcka.INVARIANCES`; the project's tests
# assert every entry, present or absent. Here they are measured: of two networks one is changed, either of them, and the similarity moves by so much.

# %%
images, labels = image_sets.load(dataset, "test", classes)
small = {"factory": "mlp", "widths": [784, 32, 32, len(classes)], "activation": "relu"}
one, other = (trained(small, [seed, seed + 1], dataset, classes, epochs).member(i).double() for i in range(2))
shown = image_sets.as_inputs(images[:min(300, len(images))]).double()
foggy = image_sets.as_inputs(wcka.corrupt(images[:len(shown)], "fog", seed)).double()


def both_ways(measure, a, b, seen):
    """Similarity of the last hidden layers of two networks, or of their chains."""
    if measure == "wcka":
        return np.array([wcka.wcka(a, b), wcka.wcka(b, a)])
    kw = {"inputs": seen} if measure == "dcka" else {}
    with torch.no_grad():
        return wcka.pairwise(measure, [a[:-1](seen), b[:-1](seen)], **kw)[[0, 1], [1, 0]]


changes = [c for c in symmetry.TRANSFORMATIONS if c != "silent weights"]
moved = {}
for measure in INVARIANCES:
    before = both_ways(measure, one, other, shown)
    after = {change: both_ways(measure, one, symmetry.TRANSFORMATIONS[change](other, shown, seed + 1), shown) for change in changes}
    after["probes"] = both_ways(measure, one, other, foggy)
    moved[measure] = {change: np.abs(values - before).max() for change, values in after.items()}
moved = pd.DataFrame(moved).T
glue("measures", str(len(moved)), display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-family", "caption": "How far each measure moves when one of two trained networks is changed. Zero: invariant up to rounding (below 1e-6), exactly where INVARIANCES lists it. Activations are those of the last hidden layer; the first six changes act on it and are undone by the next layer. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with a row for each measure and nine columns, one a change. Most measures of activations are zero for permutation, rotation, scale and translation; mean CCA also for invertible maps; the ReLU variants for unit rescaling and intertwiners but not for rotations. Output maps are zero for every measure of activations and move wCKA, which alone is zero for probes."}}
for measure in moved.index:
    assert {c for c in moved if moved.loc[measure, c] < 1e-6} == INVARIANCES[measure] - {"silent weights"}
text = moved.map(lambda d: "0" if d < 1e-6 else "<.001" if d < 0.001 else f"{d:.3f}" if d < 0.01 else f"{d:.2f}")
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.2))
figures.heat_map(axes, moved, text, cmap="OrRd", vmin=0, vmax=0.6, cbar=False)
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
found, missing = other_libraries.available()
wide = {"factory": "mlp", "widths": [784, width, width, len(classes)], "activation": "relu"}
population = trained(wide, [seed, seed + 1], dataset, classes, epochs)
inputs = image_sets.as_inputs(images[:probes]).double()
activations = [a[:, a.amax(0) > 0].double() for a in population.activations(inputs.float(), 2)]
x, y = activations[:2]
options = {"dcka": {"inputs": inputs}, "minibatch_cka": {"batch_size": probes // 4}}

rows = []
for peer in found:
    kw = options.get(peer.measure, {})
    n = len(x) - len(x) % kw.get("batch_size", 1)
    theirs, ours = peer.of_pair(*peer.given([x[:n], y[:n]]), **kw), getattr(wcka, peer.measure)(x[:n], y[:n], **kw)
    rows.append((peer.package, peer.version, peer.measure, theirs, ours, abs(theirs - ours), peer.why if abs(theirs - ours) > 1e-9 else "", peer.single))
agreed = pd.DataFrame(rows, columns=["library", "version", "measure", "its value", "ours", "difference", "why they differ", "single"])
agreed.style.format({"its value": "{:.6f}", "ours": "{:.6f}", "difference": "{:.0e}"}).hide().hide(["single"], axis=1)

# %% tags=["remove-cell"]
glue("missing", ", ".join(missing) or "nothing", display=False)
glue("width", f"{width:,}", display=False)
glue("probes", f"{len(inputs):,}", display=False)
of_double = agreed[agreed["why they differ"] == ""]
glue("agree-exactly", f"{len(of_double)} of {len(agreed)}", display=False)
say("agree-largest", of_double.difference.max(), ".0e")
say("single-largest", agreed[agreed.single.astype(bool)].difference.max(), ".0e")

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
def seconds(function, *arguments, runs=repeats, **kw):
    """Median time of some runs, after one that warms up; of fewer if these take long."""
    taken = []
    while len(taken) <= runs and sum(taken) < 1:
        start = time.perf_counter()
        function(*arguments, **kw)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:] or taken))


def features_of(count, n, units):
    """Activations of untrained networks with one hidden layer on real images."""
    shape = {"factory": "mlp", "widths": [784, units, len(classes)], "activation": "relu"}
    return list(initialise(shape, range(seed, seed + count)).activations(every_image[:n], 1).double())


every_image = image_sets.as_inputs(image_sets.load(dataset, "train", None)[0])
LINEAR = ("cka", "unbiased_cka")  # linear kernels: which of the two estimators makes no difference to the time
linear_peers = {p.package: p for p in reversed(found) if p.measure in LINEAR}

def bare_products(features):
    """Nothing but the matrix products of the cheaper way: kernels, and the kernels'; or all features'."""
    n, d = features[0].shape
    if products.cheaper_by_kernels(np.full(len(features), d, dtype=float), n, None):
        stack, rows = torch.stack(features), -(-n // 8)
        for start in range(0, n, rows):
            strip = torch.bmm(stack[:, start:start + rows], stack[:, start:].mT).flatten(1)
            strip @ strip.T
    else:
        side_by_side = torch.cat(features, 1)
        for start in range(0, side_by_side.shape[1], 128):
            side_by_side[:, start:start + 128].T @ side_by_side[:, start:]


# %% tags=["hide-input", "timing"]
def expected(line, n, power):
    """Time at n probes or networks from those before: by the slope of the last two, or to a power."""
    slope = np.log(line[-1][1] / line[-2][1]) / np.log(line[-1][0] / line[-2][0]) if len(line) > 1 else power
    return line[-1][1] * (n / line[-1][0])**slope if line else 0


# By name: the functions, and whether they compute in single precision.
libraries = {"wcka": (wcka.cka, False), "wcka, single": (lambda *z: wcka.pairwise("cka", z, dtype=torch.float32), True),
             "bare products": (lambda *z: bare_products(z), False), "bare products, single": (lambda *z: bare_products(z), True)}
for name, peer in linear_peers.items():
    libraries[name] = peer.of_pair, peer.single
    if name in ("ckatorch", "pytorch-cka"):  # PyTorch all through: they compute in what they are given
        libraries[f"{name}, single"] = peer.of_pair, True
is_single = pd.Series({name: single for name, (_, single) in libraries.items()})
ours = is_single.index[:4]
rows = []
for n, units in [(n, width) for n in sorted(pair_probes)] + [(min(pair_probes), d) for d in sorted(pair_widths) if d != width]:
    double = features_of(2, n, units)
    for name, (of_pair, single) in libraries.items():
        before = [(m, taken) for m, u, library, taken in rows if library == name and u == width]
        if n == min(pair_probes) or expected(before, n, 2) < patience:
            rows.append((n, units, name, seconds(of_pair, *([f.float() for f in double] if single else double))))
pair = pd.DataFrame(rows, columns=["n", "units", "library", "seconds"])
times = pair.pivot_table(index="library", columns=["n", "units"], values="seconds", sort=False)
(1e3 * times).style.format("{:.2f}", na_rep="–").set_caption("Milliseconds for one pair, linear CKA; –: would take longer than `patience`")

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-pair", "caption": "Time of linear CKA of one pair against the number of probes, on logarithmic axes. Dashed: in single precision; dotted: the bare matrix products."}, "image": {"alt": "Lines on logarithmic axes: milliseconds of one pair against number of probes, one line a library; wcka in red, its single precision dashed, the bare products dotted."}}
COLOURS = {"wcka": figures.MEASURE_COLORS["wcka"], "bare products": "#000000", "ckatorch": "#56B4E9", "pytorch-cka": "#0072B2",
           "torch_cka": "#009E73", "simtorch": "#CC79A7", "repsim": "#E69F00", "rsatoolbox": "#999999"}


def lines(axes, table, unit, x_name):
    """A line a library, named at its end."""
    ends = []
    for name, line in table.iterrows():
        line = (unit * line).dropna()
        dash = (0, (1, 1)) if name == "bare products" else (0, (3, 2)) if name.endswith(", single") else "-"
        axes.plot(line.index, line, color=COLOURS[name.removesuffix(", single")], ls=dash, marker="o", ms=3.5, lw=2.2 if name == "wcka" else 1.4)
        ends.append((float(line.iloc[-1]), line.index[-1], name, name if line.index[-1] == table.columns[-1] else f"{name}, to {line.index[-1]:,}"))
    axes.set(xscale="log", yscale="log", xlabel=x_name)
    low, high = np.log10(axes.get_ylim())
    last = -np.inf
    for value, at, name, label in sorted(ends):  # labels of like times must not lie on each other
        last = max(np.log10(value), last + 0.055 * (high - low))
        color = COLOURS[name.removesuffix(", single")]
        axes.annotate(label, (at, value), (axes.get_xlim()[1] * 1.02, 10**last), color=color, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": color, "lw": 0.4, "alpha": 0.5})
    axes.set_xticks(list(table.columns), [f"{c:,}" for c in table.columns])
    axes.minorticks_off()


by_n = pair[pair.units == width].pivot_table(index="library", columns="n", values="seconds", sort=False)
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 3.8))
lines(axes, by_n.drop(index=["bare products, single"]), 1e3, "probes")
axes.set_ylabel("milliseconds")
plt.show()

# %% tags=["remove-cell", "timing"]
rivals = times.drop(index=ours)
single_rivals = rivals[is_single.reindex(rivals.index).astype(bool)]
double_rivals = rivals.drop(index=single_rivals.index)
double_pair, single_pair = double_rivals.min() / times.loc["wcka"], single_rivals.min() / times.loc["wcka, single"]
any_pair = rivals.min() / times.loc["wcka"]
glue("cores", str(os.cpu_count()), display=False)
glue("repeats", str(repeats), display=False)
widest = (min(pair_probes), max(pair_widths))
narrower = [c for c in times.columns if c[1] <= width]
for name, ratios in (("double", double_pair), ("single", single_pair), ("any", any_pair)):
    say(f"pair-{name}-least", ratios[narrower].min(), ".1f")
    say(f"pair-{name}-most", ratios[narrower].max(), ".0f")
    say(f"pair-{name}-wide", ratios.get(widest, np.nan), ".2f")
glue("widest", f"{widest[1]:,}", display=False)
say("pair-bare", (times.loc["wcka"] / times.loc["bare products"])[(max(pair_probes), width)], ".1f")

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
def formula(u, v):
    u, v = u - u.mean(0), v - v.mean(0)
    return np.linalg.norm(v.T @ u)**2 / (np.linalg.norm(u.T @ u) * np.linalg.norm(v.T @ v))


u, v = (z.numpy() for z in features_of(2, probes, width))
of_pair = times[probes, width].drop(index=ours).to_dict() | {
    "plain loop": seconds(formula, u, v), "careful loop": seconds(lambda: np.linalg.norm(v.T @ u)**2)}
batched = {"wcka": lambda z: wcka.pairwise("cka", z), "wcka, single": lambda z: wcka.pairwise("cka", z, dtype=torch.float32),
           "bare products": bare_products, "bare products, single": bare_products}
for name in ("pytorch-cka", "pytorch-cka, single", "rsatoolbox"):
    if name in of_pair:
        batched[name] = linear_peers[name.removesuffix(", single")].of_all
        del of_pair[name]
rows = []
for n_models in sorted(models):
    some = features_of(n_models, probes, width)
    for name, of_all in batched.items():
        before = [(m, taken) for m, library, taken, _ in rows if library == name]
        guess = expected(before, n_models, 1)
        too_much = guess > patience or (name == "pytorch-cka" and n_models > goal_models)  # 5 GB at 300
        taken = guess if too_much else seconds(of_all, [f.float() for f in some] if is_single[name] else some)
        rows.append((n_models, name, taken, too_much))
    for name, pair_seconds in of_pair.items():
        pairs = n_models * (n_models - 1) / 2
        often = (pairs + 2 * n_models) / 5 if name.startswith("repsim") else pairs  # it needs five criteria for a pair
        rows.append((n_models, name, pair_seconds * often, True))
everyone = pd.DataFrame(rows, columns=["models", "library", "seconds", "loop"])
shown_times = everyone.assign(text=[f"{s:.3g}{'*' * loop}" for s, loop in zip(everyone.seconds, everyone.loop)])
shown_times.pivot(index="library", columns="models", values="text").loc[everyone.library.unique()].fillna("–").style.set_caption("Seconds for all pairs, linear CKA")

# %% tags=["hide-input", "timing"] mystnb={"figure": {"name": "fig-all", "caption": "Time of linear CKA of all pairs against the number of networks, on logarithmic axes. Dashed: in single precision; dotted: the bare matrix products of the way that is taken. Libraries marked * in the table are computed from the time of a pair."}, "image": {"alt": "Lines on logarithmic axes: seconds for all pairs against number of networks, one line a library; wcka in red, single precision dashed, the bare products dotted."}}
COLOURS |= {"plain loop": "#555555", "careful loop": "#AAAAAA"}
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 4.0))
by_models = everyone.pivot_table(index="library", columns="models", values="seconds", sort=False)
lines(axes, by_models.drop(index=["ckatorch, single", "bare products, single"], errors="ignore"), 1, "networks")
axes.set_ylabel("seconds")
plt.show()

# %% tags=["remove-cell", "timing"]
total = by_models[goal_models]
of_peers = total.drop(index=[*ours, "plain loop", "careful loop"]).dropna()
nearest_peer = of_peers.idxmin() if len(of_peers) else "no peer"
of_singles = of_peers[is_single.reindex(of_peers.index).astype(bool)]
ratio_peer, ratio_double = of_peers.min() / total["wcka"], of_peers.drop(index=of_singles.index).min() / total["wcka"]
ratio_single = of_singles.min() / total["wcka, single"]
ratio_loops = of_peers[[name for name in of_peers.index if name.split(",")[0] != nearest_peer.split(",")[0]]].min() / total["wcka"]
ratio_loop, ratio_careful = total["plain loop"] / total["wcka"], total["careful loop"] / total["wcka"]
possible = of_peers.min() / total["bare products, single"]
glue("goal-models", f"{goal_models:,}", display=False)
glue("nearest-peer", nearest_peer, display=False)
glue("most-probes", f"{max(pair_probes):,}", display=False)
for name, value in (("peer", ratio_peer), ("double", ratio_double), ("single", ratio_single), ("loops", ratio_loops), ("loop", ratio_loop),
                    ("careful", ratio_careful), ("bare", total["wcka"] / total["bare products"]), ("possible", possible)):
    say(f"all-{name}", value, ".1f")
glue("all-reach", "out of this algorithm's reach" if possible < 30 else "within this algorithm's reach", display=False)

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
def peak_memory(*call):
    """GB beyond the features; NaN where memory is not to be measured."""
    return other_libraries.peak_memory(*call) if memory_too else np.nan


largest = max(pair_probes)
asked = [("wcka", "cka", 2, largest), ("wcka", "cka", goal_models, probes), ("wcka", "cka", 2, many_probes)]
if "pytorch-cka" in linear_peers:
    asked += [("pytorch-cka", "unbiased_cka", 2, largest), ("pytorch-cka", "unbiased_cka", goal_models, probes)]
memory = pd.DataFrame([(p, f"one pair, {n:,} probes" if c == 2 else f"all pairs of {c:,}, {n:,} probes", peak_memory(p, m, c, n, width))
                       for p, m, c, n in asked], columns=["library", "what", "GB"])
memory.pivot_table(index="library", columns="what", values="GB", sort=False, dropna=False).style.format("{:.2f}", na_rep="–")


# %% tags=["timing"]
def exponent(line):
    """Slope between the two largest sizes, on logarithmic axes."""
    line = line.dropna().iloc[-2:]
    return np.diff(np.log(line))[0] / np.diff(np.log(line.index.to_numpy(float)))[0] if len(line) == 2 else np.nan


by_units = pd.DataFrame({d: {"wcka": seconds(wcka.cka, *features_of(2, largest, d))} for d in (width // 2, width, 2 * width)})
growth = pd.DataFrame({"in networks (all pairs)": by_models.apply(exponent, axis=1), "in probes (one pair)": by_n.apply(exponent, axis=1),
                       "in units (one pair)": by_units.apply(exponent, axis=1)}).reindex(by_models.index)
growth.style.format("{:.1f}", na_rep="–")

# %% [markdown]
# wCKA needs weights only: its time is that of the chain, which grows with the number of parameters.

# %% tags=["timing"]
rows = []
for units in sorted(chain_widths):
    shape = {"factory": "mlp", "widths": [784, *4 * [units], len(classes)], "activation": "relu"}
    one, other = (initialise(shape, [seed + i]).member(0) for i in range(2))
    rows.append((sum(p.numel() for p in one.parameters()), 1e3 * seconds(wcka.wcka, one, other)))
by_parameters = pd.DataFrame(rows, columns=["parameters", "milliseconds"], index=sorted(chain_widths)).rename_axis("width of four hidden layers")
by_parameters.style.format({"parameters": "{:,.0f}", "milliseconds": "{:.1f}"})

# %% tags=["remove-cell", "timing"]
say("growth-parameters", exponent(by_parameters.set_index("parameters").milliseconds), ".1f")
say("most-parameters", by_parameters.parameters.max() / 1e6, ".1f")
say("most-parameters-time", by_parameters.milliseconds.iloc[-1] / 1e3, ".2f")
for package in ("wcka", "pytorch-cka"):
    of_package = memory[memory.library == package].GB
    say(f"memory-{package}", of_package.iloc[0] if len(of_package) else np.nan, ".2f")
say("memory-many", memory[memory.library == "wcka"].GB.iloc[-1], ".2f")
say("memory-kept", products.KEPT / 1e9, ".1f")
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
peer_dcka = next((p for p in found if (p.package, p.measure) == ("simtorch", "dcka")), None)
rows = []
for n in dcka_probes:
    some, seen = features_of(goal_models, n, width), every_image[:n]
    kept = Confounder(seen)
    for psd in (True, False):
        theirs = seconds(peer_dcka.of_pair, *peer_dcka.given(some[:2]), seen, psd=psd) if peer_dcka else np.nan
        number = goal_models * (goal_models - 1) / 2
        rows.append((n, "with" if psd else "without", theirs, seconds(wcka.dcka, some[0], some[1], seen, psd=psd),
                     seconds(wcka.dcka, some[0], some[1], kept, psd=psd),
                     seconds(wcka.pairwise, "dcka", some, inputs=seen, psd=psd) / number))
deconfounded = pd.DataFrame(rows, columns=["probes", "PSD step", "simtorch", "one pair", "one pair, probes kept", f"each of all pairs of {goal_models}"])
deconfounded.style.format("{:.4f}", subset=deconfounded.columns[2:]).hide().set_caption("Seconds for dCKA")

# %% tags=["timing"]
start = time.perf_counter()
many = every_image[:many_probes]
factorised = Confounder(many)
after = time.perf_counter()
value = wcka.dcka(*features_of(2, len(many), width), factorised)
many_seconds = after - start, time.perf_counter() - after
memory_many = peak_memory("wcka", "dcka", 2, len(many), width)
ends_peer = min(dcka_probes), max(dcka_probes)
memory_peer = [peak_memory("simtorch", "dcka", 2, n, width) if peer_dcka else np.nan for n in ends_peer]

# %% tags=["remove-cell", "timing"]
per_pair = deconfounded.set_index(["probes", "PSD step"]).loc[[(n, s) for n in dcka_probes for s in ("with", "without")]]
at = 1000 if 1000 in dcka_probes else dcka_probes[-1]
goal_dcka = {step: per_pair.simtorch[at, step] / per_pair.loc[(at, step)].iloc[1:] for step in ("with", "without")}
for step, ratios in goal_dcka.items():
    for name, ratio in zip(("pair", "kept", "all"), ratios):
        say(f"dcka-{step}-{name}", ratio, ".0f")
glue("dcka-at", f"{at:,}", display=False)
glue("many", f"{len(many):,}", display=False)
say("many-prepare", many_seconds[0], ".1f")
say("many-pair", many_seconds[1], ".1f")
say("many-memory", memory_many, ".1f")
glue("many-probes", f"{many_probes:,}", display=False)
say("many-peer", np.diff(memory_peer)[0] / (ends_peer[1]**2 - ends_peer[0]**2) * len(many)**2, ",.0f")
glue("peer-at", " and ".join(f"{n:,}" for n in ends_peer), display=False)

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
some = features_of(30, len(inputs), width)
batch = {"batch_size": len(inputs) // 4}
some, rows = [f[:len(inputs) - len(inputs) % batch["batch_size"]] for f in some], []
for measure in INVARIANCES:
    kw = {"inputs": every_image[:len(some[0])]} if measure == "dcka" else batch if measure == "minibatch_cka" else {}
    those = chains(initialise({**wide, "widths": [784, width, len(classes)]}, range(30))).double() if measure == "wcka" else some
    theirs = {}
    for peer in found:
        if peer.measure == measure:
            theirs[peer.package] = seconds(peer.of_pair, *peer.given(some[:2]), **kw)
    rows.append((measure, seconds(wcka.pairwise, measure, those[:2], **kw), seconds(wcka.pairwise, measure, those, runs=1, **kw),
                 min(theirs, key=theirs.get, default="–"), min(theirs.values(), default=np.nan)))
family = pd.DataFrame(rows, columns=["measure", "one pair, ms", "all pairs of 30, s", "fastest peer", "its pair, ms"]).set_index("measure")
family[["one pair, ms", "its pair, ms"]] *= 1e3
family["ratio"] = family["its pair, ms"] / family["one pair, ms"]
family.rename_axis(None).style.format({"one pair, ms": "{:.2f}", "all pairs of 30, s": "{:.3f}", "its pair, ms": "{:.2f}", "ratio": "{:.1f}"}, na_rep="–")

# %% tags=["remove-cell", "timing"]
behind = family[family.ratio < 1]
say("cheapest-ms", family["one pair, ms"].min(), ".1f")
say("dearest-ms", family["one pair, ms"].max(), ".0f")
slower = [f"{m} (than {r['fastest peer']}, ratio {r.ratio:.2f})" for m, r in behind.iterrows()]
if any_pair.min() < 1:
    at_worst = any_pair.idxmin()
    slower.append(f"linear CKA in double precision (than {rivals[at_worst].idxmin()} at n = {at_worst[0]:,} and {at_worst[1]:,} units, ratio {any_pair.min():.2f})")
glue("behind", "; ".join(slower) or "none", display=False)

# %% [markdown]
# Measures for which a peer is faster on one pair: {glue:text}`behind`. (`wcka` looks at every input for what would spoil the value, NaN, dead units, a mean far larger than the
# spread; the peers do not. repsim's `svcca` and `pwcca` compute something else, see above.)
#
# ## What kept it from the floor
#
# What profiles showed, each taken back in this run: the time of the older way over that of the present one.

# %% tags=["timing"]
def with_features(features):
    """All pairs by products of features, whatever the shapes."""
    chosen, products.cheaper_by_kernels = products.cheaper_by_kernels, lambda *_: False
    try:
        return wcka.pairwise("cka", features)
    finally:
        products.cheaper_by_kernels = chosen


some = features_of(goal_models, len(inputs), width)
assert np.allclose(with_features(some[:30]), wcka.pairwise("cka", some[:30]), atol=1e-9)
matrices = torch.stack([some[i].T @ some[i + 1] for i in range(min(96, goal_models - 1))])
centred = (every_image[:largest] - every_image[:largest].mean(0)).double()
live = centred[:, centred.any(0)]
taken_back = pd.DataFrame({
    "all pairs of CKA by features, although kernels take fewer operations": (
        seconds(with_features, some), seconds(wcka.pairwise, "cka", some)),
    "Procrustes: singular values with LAPACK's own threads, not one thread for each part": (
        seconds(torch.linalg.svdvals, matrices), seconds(products.in_threads, torch.linalg.svdvals, matrices.chunk(12))),
    f"dCKA, {largest:,} probes: an orthonormal basis of the inputs, not a pivoted factor of their Gram matrix": (
        seconds(torch.linalg.qr, live), seconds(Confounder, every_image[:largest])),
}, index=["older way, s", "present way, s"]).T
taken_back["ratio"] = taken_back["older way, s"] / taken_back["present way, s"]
taken_back.style.format({"older way, s": "{:.4f}", "present way, s": "{:.4f}", "ratio": "{:.1f}"})

# %% [markdown]
# Also removed, without a row: differences of two number types,
# which PyTorch computes at half speed; new memory for every strip of kernels; products that nobody asked for.
#
# ## Training many networks at once
#
# The benchmark needs populations. They are trained as one stacked network, in which each layer is one batched product; beside it the plain loop over networks: the same steps,
# the same fused optimiser, on one thread, as these matrices are too small for more. (A loop on each core would be faster by the number of cores at the most.)

# %% tags=["timing"]
train_x, train_y = (torch.from_numpy(part) if i else image_sets.as_inputs(part) for i, part in enumerate(image_sets.load(dataset, "train", classes)))
narrow = {"factory": "mlp", "widths": [784, 32, 32, 32, 32, len(classes)], "activation": "relu"}


def alone():
    """One network, one epoch, as everyone writes it."""
    torch.manual_seed(seed)
    network = build(narrow)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for rows in torch.randperm(len(train_x)).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(train_x[rows]), train_y[rows]).backward()
        optimizer.step()


crowd = initialise(narrow, range(seed, seed + trained_networks))
together = seconds(train, crowd, train_x, train_y, 1, batch_size=batch_size, runs=1)
threads = torch.get_num_threads()
torch.set_num_threads(1)
ratio_training = seconds(alone) / (together / trained_networks)
torch.set_num_threads(threads)

# %% tags=["remove-cell", "timing"]
say("training", ratio_training, ".1f")
glue("trained-networks", str(trained_networks), display=False)

# %% [markdown]
# Alone, a network's epoch takes {glue:text}`training` times as long as its share in a population of {glue:text}`trained-networks`.
#
# ## The goals, and what was reached

# %% tags=["hide-input", "timing"]
big = [c for c in times.columns if c[0] >= 1000]


def slowest(ratios):
    """The case with the lowest ratio, as text."""
    return "slowest case: n = {:,}, {:,} units".format(*ratios.idxmin()) if ratios.notna().any() else "no peer"


goals = pd.DataFrame([
    ("one pair of linear CKA from n = 1,000 on, than the fastest peer: both double", 1, double_pair[big].min(), slowest(double_pair[big])),
    ("both single", 1, single_pair[big].min(), slowest(single_pair[big])),
    ("ours double, the peer in either", 1, any_pair[big].min(), slowest(any_pair[big])),
    (f"all pairs of {goal_models} by linear CKA, than the fastest peer", 30, ratio_peer, f"{nearest_peer}; the bare products in single: {possible:.1f}"),
    ("than the next library", np.nan, ratio_loops, "no goal"),
    ("than a loop over the formula in features", 4, ratio_loop, f"careful loop: {ratio_careful:.1f}"),
    (f"dCKA at n = {at:,}, than simtorch: one pair", 100, goal_dcka["with"].iloc[0], f"without the PSD step: {goal_dcka['without'].iloc[0]:.1f}"),
    ("each of all pairs", 100, goal_dcka["with"].iloc[2], f"without the PSD step: {goal_dcka['without'].iloc[2]:.0f}"),
    ("dCKA reaches n", 60000, len(many), f"{sum(many_seconds):.1f} s"),
    ("training in a population, than alone", np.nan, ratio_training, f"{trained_networks} networks; no goal"),
], columns=["times faster", "wanted", "measured", "note"])
goals["met"] = np.where(goals.wanted.isna(), "", np.where(goals.measured.isna(), "not measured", np.where(
    goals.measured >= goals.wanted, "● met", "○ not met")))
goals.style.format({"wanted": "{:,.0f}", "measured": lambda x: f"{np.floor(100 * x) / 100:,.2f}" if x < 100 else f"{x:,.0f}"}, na_rep="–").hide()

# %% [markdown]
# ## The paper's claims in this chapter

# %% tags=["hide-input", "timing"]
members = initialise(wide, range(seed, seed + goal_models))
whole, forwards = {}, {}
for n in sorted({len(inputs), min(3000, len(every_image))}):
    seen = every_image[:n]
    forwards[n] = of_activations = seconds(members.activations, seen, 2)
    hidden_layers = list(members.activations(seen, 2))
    for measure, kw in (("cka", {}), ("procrustes", {}), ("dcka", {"inputs": seen})):
        if measure == "cka" or n == len(inputs):
            whole[measure, n] = of_activations + seconds(wcka.pairwise, measure, hidden_layers, runs=1, **kw)
whole["wcka", 0] = seconds(lambda: wcka.pairwise("wcka", chains(members)))
few_probes, most_seen = min(n for _, n in whole if n), max(n for _, n in whole)
ends, of_activation_measures = (min(pair_probes), max(pair_probes)), {"procrustes": {}, "cka": {}, "dcka": {"inputs": every_image}}
by_probes = {m: [seconds(wcka.pairwise, m, features_of(2, n, width), runs=2, **({"inputs": every_image[:n]} if kw else {})) for n in ends]
             for m, kw in of_activation_measures.items()}
rivals_of_wcka = [taken for (m, n), taken in whole.items() if m != "wcka"]
cheapest = min(rivals_of_wcka) / whole["wcka", 0]
forward = {n: forwards[n] for n in (few_probes, most_seen)}
beyond = {m: whole[m, few_probes] / forward[few_probes] - 1 for m in ("cka", "procrustes", "dcka")}
slopes = {m: np.log(after / before) / np.log(ends[1] / ends[0]) for m, (before, after) in by_probes.items()}
glue("intensive", ", ".join(f"{ratio:.1f} ({MEASURE_LABELS[m]})" for m, ratio in beyond.items()), display=False)

# %% tags=["hide-input"]
some = features_of(min(30, goal_models), len(inputs) - len(inputs) % 4, width)
upper = np.triu_indices(len(some), 1)
of_batches, of_all, unbiased = (wcka.pairwise(m, some, **kw)[upper] for m, kw in (
    ("minibatch_cka", {"batch_size": len(inputs) // 4}), ("cka", {}), ("unbiased_cka", {})))
original, apart, biased = (np.abs(a - b) for a, b in ((of_batches, of_all), (of_batches, unbiased), (of_all, unbiased)))
say("biased-unbiased", biased.max(), ".3f")
claims.show([
    claims.Claim("abstract, 4", "wCKA is computationally efficient",
                 f"all pairs of {goal_models} networks, from weights or images on: wCKA {whole['wcka', 0]:.3f} s; with {few_probes:,} probes "
                 + ", ".join(f"{MEASURE_LABELS[m]} {whole[m, few_probes]:.2f} s" for m in ("cka", "procrustes", "dcka")),
                 verdicts.verdict(cheapest > 2, cheapest > 1), timed=True),
    claims.Claim("abstract", "measures of activations are computationally intensive with many probes",
                 f"all pairs of {goal_models} networks with {few_probes:,} probes, beside the forward pass that gives the activations ({forward[few_probes]:.2f} s): "
                 + ", ".join(f"{MEASURE_LABELS[m]} {ratio:.1f} times as long" for m, ratio in beyond.items())
                 + f"; CKA with {most_seen:,} probes {whole['cka', most_seen] / forward[most_seen] - 1:.1f} times",
                 verdicts.verdict(*(ratio > 1 for ratio in beyond.values())), timed=True),
    claims.Claim("fig. 1c", "the time of Procrustes, CKA and dCKA grows with the number of probes",
                 f"one pair, from {ends[0]:,} to {ends[1]:,} probes: " + ", ".join(
                     f"{MEASURE_LABELS[m]} {after / before:.1f} times (power {slopes[m]:.1f})" for m, (before, after) in by_probes.items()),
                 verdicts.verdict(*(slope > 0.2 for slope in slopes.values())), timed=True),
    claims.Claim("2.1.2", "variants of Procrustes and CKA are invariant to the intertwiners of ReLU",
                 "an intertwiner moves them by " + ", ".join(f"{moved.loc[m, 'intertwiner']:.0e} ({m})" for m in ("relu_procrustes", "relu_cka"))
                 + f"; Procrustes itself by {moved.loc['procrustes', 'intertwiner']:.2f}",
                 verdicts.verdict(*(moved.loc[["relu_procrustes", "relu_cka"], "intertwiner"] < 1e-6))),
    claims.Claim("2.1.2", "minibatch CKA approximates CKA",
                 f"{len(some)} networks, {len(inputs):,} probes in four batches: off the CKA of all probes by {np.median(original):.4f} (median) to {original.max():.4f} (most), "
                 f"off its unbiased form by {apart.max():.4f} at the most (CKA itself, biased, is up to {biased.max():.4f} from that)",
                 verdicts.verdict(original.max() < 0.05, original.max() < 0.01)),
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
