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
# The paper calls wCKA "computationally efficient" and times one pair (its figure 1c, our [chapter 2](02-calibration)). Nobody compares one
# pair. This chapter takes the whole family of measures, sets `wcka` beside the libraries that people use for them, on the same arrays
# and in the same run, and asks four things: do the values agree, how long does it take, how much memory, and what is the floor?
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
from wcka import alignment, claims, data, figures, peers, symmetry
from wcka.chain import chains
from wcka.checks import distinct, within
from wcka.claims import say
from wcka.deconfounding import Confounder
from wcka.population import build, initialise
from wcka.similarity import INVARIANCES
from wcka.training import train, trained

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
patience: float = 20.0  # seconds that a library may take for a pair; where it would take longer it is left out
goal_models: int = 100  # number of networks in the goals
dcka_probes: list[int] = [500, 1000]  # numbers of images for dCKA beside its peer
many_probes: int = 60000  # and without it
repeats: int = 5  # runs of which each time is the median
memory_too: bool = True  # measure peak memory as well, in processes of their own
trained_networks: int = 50  # networks trained at once, beside a loop
batch_size: int = 32  # images in one step of training
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
data.check(dataset, classes)
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
# Twelve measures, one interface: `wcka.NAME(x, y)` for a pair, `wcka.pairwise("NAME", features)` for all pairs. What tells them apart is not
# their price but what they do *not* see. Each declares its invariances in one table, `wcka.similarity.INVARIANCES`; the project's tests
# assert every entry, present or absent. Here they are measured: of two networks one is changed, either of them, and the similarity moves by so much.

# %%
images, labels = data.load(dataset, "test", classes)
small = {"factory": "mlp", "widths": [784, 32, 32, len(classes)], "activation": "relu"}
one, other = (trained(small, [seed, seed + 1], dataset, classes, epochs).member(i).double() for i in range(2))
shown = data.inputs(images[:min(300, len(images))]).double()
foggy = data.inputs(wcka.corrupt(images[:len(shown)], "fog", seed)).double()


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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-family", "caption": "How far each measure moves when one of two trained networks is changed. Zero is invariant to rounding (below 1e-6), and there the table says so. Activations are those of the last hidden layer; the first six changes act on it and are undone by the next layer. Probes: the same networks, seen through foggy images."}, "image": {"alt": "Heat map with twelve rows, one a measure, and nine columns, one a change. Most measures of activations are zero for permutation, rotation, scale and translation; the CCAs also for invertible maps; the ReLU variants for unit rescaling and intertwiners but not for rotations; wCKA for all but output maps."}}
for measure in moved.index:
    assert {c for c in moved if moved.loc[measure, c] < 1e-6} == INVARIANCES[measure] - {"silent weights"}
text = moved.map(lambda d: "0" if d < 1e-6 else "<.001" if d < 0.001 else f"{d:.3f}" if d < 0.01 else f"{d:.2f}")
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.2))
figures.heat_map(axes, moved, text, cmap="OrRd", vmin=0, vmax=0.6, cbar=False)
axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
axes.axvline(6, color="black", lw=1)
plt.show()

# %% [markdown]
# Three groups. CKA in its variants, Procrustes, dCKA and SVCCA see nothing of rotations. Mean CCA is blind to *any* invertible map, and PWCCA, which
# weights by the units of its first argument, to little. The two measures of Godfrey et al. {cite}`godfrey2022` are blind to exactly what ReLU is: the order and
# the positive scale of units. Only wCKA does not see the probes.
#
# ## Do the values agree?
#
# Activations of trained networks with a layer of {glue:text}`width` units on {glue:text}`probes` real images, dead units left out.
# Where a library wants networks and loaders, its arithmetic is called directly. What is not installed is left out: {glue:text}`missing`.

# %%
found, missing = peers.available()
wide = {"factory": "mlp", "widths": [784, width, width, len(classes)], "activation": "relu"}
population = trained(wide, [seed, seed + 1], dataset, classes, epochs)
inputs = data.inputs(images[:probes]).double()
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
# Everything below is a median of repeated runs in this one run of the chapter; the machine has {glue:text}`cores` cores. Times differ from machine to machine,
# ratios less so. A peer that computes in float32 is given float32 arrays, as it would be; ours are float64 inside, unless it says "single".

# %% tags=["hide-input"]
def seconds(function, *arguments, runs=repeats, **kw):
    """Median time of some runs, after one that warms up; of fewer if these take long."""
    taken = []
    while len(taken) <= runs and sum(taken) < 2:
        start = time.perf_counter()
        function(*arguments, **kw)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:] or taken))


def features_of(count, n, units):
    """Activations of untrained networks with one hidden layer on real images."""
    shape = {"factory": "mlp", "widths": [784, units, len(classes)], "activation": "relu"}
    return list(initialise(shape, range(seed, seed + count)).activations(every_image[:n], 1).double())


every_image = data.inputs(data.load(dataset, "train", None)[0])
LINEAR = ("cka", "unbiased_cka")  # linear kernels: which of the two estimators makes no difference to the time
linear_peers = {p.package: p for p in reversed(found) if p.measure in LINEAR}

def floor(features):
    """The bare products of the cheaper way: kernels, and the kernels' products; or all features'."""
    n, d = features[0].shape
    if alignment.cheaper_by_kernels(np.full(len(features), d, dtype=float), n, None):
        stack, rows = torch.stack(features), -(-n // 8)
        for start in range(0, n, rows):
            strip = torch.bmm(stack[:, start:start + rows], stack[:, start:].mT).flatten(1)
            strip @ strip.T
    else:
        side_by_side = torch.cat(features, 1)
        for start in range(0, side_by_side.shape[1], 128):
            side_by_side[:, start:start + 128].T @ side_by_side[:, start:]


# %%
rows = []
for n, units in [(n, width) for n in pair_probes] + [(min(pair_probes), d) for d in pair_widths if d != width]:
    a, b = features_of(2, n, units)
    single = a.float(), b.float()
    rows += [(n, units, "wcka", seconds(wcka.cka, a, b)),
             (n, units, "wcka, single", seconds(wcka.pairwise, "cka", single, dtype=torch.float32)),
             (n, units, "floor", seconds(floor, [a, b]))]
    for name, peer in linear_peers.items():
        expected = [taken * (n / before)**3 for before, _, library, taken in rows if library == name]  # products of n x n matrices
        if n == min(pair_probes) or max(expected) < patience:
            rows.append((n, units, name, seconds(peer.of_pair, *peer.given([a, b]))))
pair = pd.DataFrame(rows, columns=["n", "units", "library", "seconds"])
times = pair.pivot_table(index="library", columns=["n", "units"], values="seconds", sort=False)
(1e3 * times).style.format("{:.2f}", na_rep="–").set_caption("Milliseconds for one pair, linear CKA")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pair", "caption": "Time of linear CKA of one pair against the number of probes, on logarithmic axes. The floor is the three bare matrix products. Dashed: wcka in single precision."}, "image": {"alt": "Lines on logarithmic axes: milliseconds of one pair against number of probes. Peers that form n by n matrices rise steeply; wcka rises in proportion to the probes, a little above the floor."}}
COLOURS = {"wcka": figures.MEASURES["wcka"], "wcka, single": figures.MEASURES["wcka"], "floor": "#000000", "ckatorch": "#56B4E9", "pytorch-cka": "#0072B2",
           "torch_cka": "#009E73", "simtorch": "#CC79A7", "repsim": "#E69F00", "rsatoolbox": "#999999"}


def lines(axes, table, unit, x_name):
    """A line a library, named at its end."""
    ends = []
    for name, line in table.iterrows():
        line = (unit * line).dropna()
        dash = {"wcka, single": (0, (3, 2)), "floor": (0, (1, 1))}.get(name, "-")
        axes.plot(line.index, line, color=COLOURS[name], ls=dash, marker="o", ms=3.5, lw=2.2 if name == "wcka" else 1.4)
        ends.append((float(line.iloc[-1]), line.index[-1], name))
    axes.set(xscale="log", yscale="log", xlabel=x_name)
    low, high = np.log10(axes.get_ylim())
    last = -np.inf
    for value, at, name in sorted(ends):  # labels of like times must not lie on each other
        last = max(np.log10(value), last + 0.055 * (high - low))
        axes.annotate(name, (at, value), (axes.get_xlim()[1] * 1.02, 10**last), color=COLOURS[name], va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": COLOURS[name], "lw": 0.4, "alpha": 0.5})
    axes.set_xticks(list(table.columns), [f"{c:,}" for c in table.columns])
    axes.minorticks_off()


by_n = pair[pair.units == width].pivot_table(index="library", columns="n", values="seconds", sort=False)
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 3.8))
lines(axes, by_n, 1e3, "probes")
axes.set_ylabel("milliseconds")
plt.show()

# %% tags=["remove-cell"]
rivals = times.drop(index=["wcka", "wcka, single", "floor"])
fastest_pair, single_pair = rivals.min() / times.loc["wcka"], rivals.min() / times.loc["wcka, single"]
glue("cores", str(os.cpu_count()), display=False)
say("pair-least", fastest_pair[[c for c in times.columns if c[1] <= width]].min(), ".1f")
say("pair-most", fastest_pair.max(), ".0f")
say("pair-wide", fastest_pair[times.columns[-1]], ".2f")
say("single-wide", single_pair[times.columns[-1]], ".2f")
glue("widest", f"{times.columns[-1][1]:,}", display=False)
say("pair-floor", (times.loc["wcka"] / times.loc["floor"])[(max(pair_probes), width)], ".1f")

# %% [markdown]
# The peers form the $n \times n$ kernels of both networks; `wcka` multiplies features where these are fewer numbers, kernels where *they* are. Up to
# {glue:text}`width` units it is at least {glue:text}`pair-least` times as fast as the fastest peer, up to {glue:text}`pair-most` times with many probes. With {glue:text}`widest` units,
# as many as the fewest probes or more, kernels are the cheaper way for everybody, and the fastest peer computes them in single precision: its time is
# {glue:text}`pair-wide` of ours in double precision, {glue:text}`single-wide` of ours in single. At {glue:text}`most-probes` probes it is {glue:text}`pair-floor` times the bare products.
#
# ## All pairs
#
# Libraries without a way for many at once, or with one that loops inside, take as long as one pair, times the number of pairs (marked *). The plain loop is NumPy's
# formula in features, $\norm{\mathbf Y^\top\mathbf X}_F^2 / \norm{\mathbf X^\top\mathbf X}_F \norm{\mathbf Y^\top\mathbf Y}_F$, centred for each pair, as one would write it.

# %%
def formula(u, v):
    u, v = u - u.mean(0), v - v.mean(0)
    return np.linalg.norm(v.T @ u)**2 / (np.linalg.norm(u.T @ u) * np.linalg.norm(v.T @ v))


u, v = features_of(2, probes, width)
of_pair = times[probes, width].reindex(list(linear_peers)).to_dict()
of_pair["plain loop"] = seconds(formula, u.numpy(), v.numpy())
batched, rows = {"pytorch-cka", "rsatoolbox"}, []
for n_models in models:
    some = features_of(n_models, probes, width)
    single = [f.float() for f in some]
    rows += [(n_models, "wcka", seconds(wcka.pairwise, "cka", some), False),
             (n_models, "wcka, single", seconds(wcka.pairwise, "cka", single, dtype=torch.float32), False),
             (n_models, "floor", seconds(floor, some), False)]
    for name, pair_seconds in of_pair.items():
        if name in batched:
            peer = linear_peers[name]
            if name != "rsatoolbox" or n_models <= goal_models:  # n x n weights for each pair of distances: it takes minutes
                rows.append((n_models, name, seconds(peer.of_all, peer.given(some), runs=1), False))
        else:
            rows.append((n_models, name, pair_seconds * n_models * (n_models - 1) / 2, True))
everyone = pd.DataFrame(rows, columns=["models", "library", "seconds", "loop"])
shown_times = everyone.assign(text=[f"{s:.3g}{'*' * loop}" for s, loop in zip(everyone.seconds, everyone.loop)])
shown_times.pivot(index="library", columns="models", values="text").loc[everyone.library.unique()].fillna("–").style.set_caption("Seconds for all pairs, linear CKA")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all", "caption": "Time of linear CKA of all pairs against the number of networks, on logarithmic axes. The floor is the bare matrix products of the way that is taken."}, "image": {"alt": "Lines on logarithmic axes: seconds for all pairs against number of networks, one line a library. wcka is lowest, close to the floor; the others are above it by factors from about two to thousands."}}
COLOURS["plain loop"] = "#555555"
fig, axes = plt.subplots(figsize=(figures.WIDTH - 0.4, 4.0))
lines(axes, everyone.pivot_table(index="library", columns="models", values="seconds", sort=False), 1, "networks")
axes.set_ylabel("seconds")
plt.show()

# %% tags=["remove-cell"]
total = everyone.pivot_table(index="library", columns="models", values="seconds", sort=False)[goal_models]
of_peers = total.reindex(list(linear_peers)).dropna()
nearest_peer = of_peers.idxmin() if len(of_peers) else "no peer"
ratio_peer = of_peers.min() / total["wcka"]
ratio_loops = of_peers.drop(index=["pytorch-cka"], errors="ignore").min() / total["wcka"]
ratio_loop = total["plain loop"] / total["wcka"]
ratio_floor = total["wcka"] / total["floor"]
glue("goal-models", f"{goal_models:,}", display=False)
glue("nearest-peer", nearest_peer, display=False)
glue("most-probes", f"{max(pair_probes):,}", display=False)
for name, value in (("peer", ratio_peer), ("loops", ratio_loops), ("loop", ratio_loop), ("floor", ratio_floor)):
    say(f"all-{name}", value, ".1f")
say("all-possible", of_peers.min() / total["floor"], ".1f")
say("all-single", of_peers.min() / total["wcka, single"], ".1f")

# %% [markdown]
# For {glue:text}`goal-models` networks `wcka` takes {glue:text}`all-floor` times the bare products, is {glue:text}`all-loop` times faster than the plain loop, and
# {glue:text}`all-peer` times faster than the fastest peer, {glue:text}`nearest-peer`, which multiplies all kernels at once in single precision as well; in single precision {glue:text}`all-single` times.
# Even the bare products are only {glue:text}`all-possible` times faster than that peer. All others are slower by {glue:text}`all-loops` times or more.
#
# ## Memory, and how things grow
#
# Peak memory of one call beyond its features, each in a process of its own; and exponents: doubling the number multiplies the time by $2^e$
# (between the two largest sizes above).

# %%
def peak_memory(*call):
    """GB beyond the features; NaN where memory is not to be measured."""
    return peers.peak_memory(*call) if memory_too else np.nan


largest = max(pair_probes)
asked = [("wcka", "cka", 2, largest), ("wcka", "cka", goal_models, probes)]
if "pytorch-cka" in linear_peers:
    asked += [("pytorch-cka", "unbiased_cka", 2, largest), ("pytorch-cka", "unbiased_cka", goal_models, probes)]
memory = pd.DataFrame([(p, f"one pair, {n:,} probes" if c == 2 else f"all pairs of {c:,}, {n:,} probes", peak_memory(p, m, c, n, width))
                       for p, m, c, n in asked], columns=["library", "what", "GB"])
memory.pivot_table(index="library", columns="what", values="GB", sort=False, dropna=False).style.format("{:.2f}", na_rep="–")


# %%
def exponent(line):
    """Slope between the two largest sizes, on logarithmic axes."""
    line = line.dropna().iloc[-2:]
    return np.diff(np.log(line))[0] / np.diff(np.log(line.index.to_numpy(float)))[0] if len(line) == 2 else np.nan


by_models = everyone.pivot_table(index="library", columns="models", values="seconds", sort=False)
by_units = pd.DataFrame({d: {"wcka": seconds(wcka.cka, *features_of(2, largest, d))} for d in (width // 2, width, 2 * width)})
growth = pd.DataFrame({"in networks (all pairs)": by_models.apply(exponent, axis=1), "in probes (one pair)": by_n.apply(exponent, axis=1),
                       "in units (one pair)": by_units.apply(exponent, axis=1)}).reindex(by_models.index)
growth.style.format("{:.1f}", na_rep="–")

# %% [markdown]
# wCKA needs weights only: its time is that of the chain, which grows with the number of parameters.

# %%
rows = []
for units in sorted(chain_widths):
    shape = {"factory": "mlp", "widths": [784, *4 * [units], len(classes)], "activation": "relu"}
    one, other = (initialise(shape, [seed + i]).member(0) for i in range(2))
    rows.append((sum(p.numel() for p in one.parameters()), 1e3 * seconds(wcka.wcka, one, other)))
by_parameters = pd.DataFrame(rows, columns=["parameters", "milliseconds"], index=sorted(chain_widths)).rename_axis("width of four hidden layers")
by_parameters.style.format({"parameters": "{:,.0f}", "milliseconds": "{:.1f}"})

# %% tags=["remove-cell"]
say("growth-parameters", exponent(by_parameters.set_index("parameters").milliseconds), ".1f")
say("most-parameters", by_parameters.parameters.max() / 1e6, ".1f")
say("most-parameters-time", by_parameters.milliseconds.max() / 1e3, ".2f")
for package in ("wcka", "pytorch-cka"):
    of_package = memory[memory.library == package].GB
    say(f"memory-{package}", of_package.iloc[0] if len(of_package) else np.nan, ".2f")
say("growth-probes", growth.loc["wcka", "in probes (one pair)"], ".1f")
say("growth-units", growth.loc["wcka", "in units (one pair)"], ".1f")
say("growth-models", growth.loc["wcka", "in networks (all pairs)"], ".1f")

# %% [markdown]
# With {glue:text}`most-probes` probes one pair takes {glue:text}`memory-wcka` GB here, {glue:text}`memory-pytorch-cka` GB with
# pytorch-cka, which holds $n \times n$ kernels, as all of these libraries do. Here the probes are read in pieces, so working memory does not grow with their number: features may stay on disk (`numpy.load(..., mmap_mode="r")`).
# Time grows like probes to the power {glue:text}`growth-probes`, units {glue:text}`growth-units` and networks {glue:text}`growth-models`; that of wCKA like
# parameters to the power {glue:text}`growth-parameters` between the two largest of these networks.
#
# ## dCKA
#
# The peer, simtorch, is by the authors of the measure. With the step that removes negative eigenvalues, as in the paper; and without. "Probes kept": the inputs' part,
# which all pairs share, is factorised beforehand (`Confounder`).

# %%
peer_dcka = next((p for p in found if (p.package, p.measure) == ("simtorch", "dcka")), None)
rows = []
for n in dcka_probes:
    some, seen = features_of(goal_models, n, width), every_image[:n]
    kept = Confounder(seen)
    for psd in (True, False):
        theirs = seconds(peer_dcka.of_pair, *peer_dcka.given(some[:2]), seen, psd=psd, runs=1) if peer_dcka else np.nan
        number = goal_models * (goal_models - 1) / 2
        rows.append((n, "with" if psd else "without", theirs, seconds(wcka.dcka, some[0], some[1], seen, psd=psd),
                     seconds(wcka.dcka, some[0], some[1], kept, psd=psd),
                     seconds(wcka.pairwise, "dcka", some, inputs=seen, psd=psd, runs=1) / number))
deconfounded = pd.DataFrame(rows, columns=["probes", "PSD step", "simtorch", "one pair", "one pair, probes kept", f"each of all pairs of {goal_models}"])
deconfounded.style.format("{:.4f}", subset=deconfounded.columns[2:]).hide().set_caption("Seconds for dCKA")

# %%
start = time.perf_counter()
many = every_image[:many_probes]
factorised = Confounder(many)
after = time.perf_counter()
value = wcka.dcka(*features_of(2, len(many), width), factorised)
many_seconds = after - start, time.perf_counter() - after
memory_many = peak_memory("wcka", "dcka", 2, len(many), width)
n_peer = max(dcka_probes)
memory_peer = peak_memory("simtorch", "dcka", 2, n_peer, width) if peer_dcka else np.nan

# %% tags=["remove-cell"]
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
say("many-peer", memory_peer * (len(many) / n_peer)**2, ",.0f")
glue("peer-at", f"{n_peer:,}", display=False)

# %% [markdown]
# At {glue:text}`dcka-at` probes one pair from nothing is {glue:text}`dcka-with-pair` times faster with the PSD step ({glue:text}`dcka-without-pair` without), with the probes kept
# {glue:text}`dcka-with-kept` ({glue:text}`dcka-without-kept`), and each of all pairs of {glue:text}`goal-models` networks {glue:text}`dcka-with-all` ({glue:text}`dcka-without-all`) times.
# A single pair is held back by the eigenvalue problem of all its inputs' and units' directions, of which no faster exact way was found; among many networks it is solved once a network, not once a pair.
#
# At {glue:text}`many` probes the inputs take {glue:text}`many-prepare` s once, the pair {glue:text}`many-pair` s, in {glue:text}`many-memory` GB beyond the features. The peer's memory at {glue:text}`peer-at` probes,
# extrapolated with the square of $n$, would be {glue:text}`many-peer` GB.
#
# ## The other measures
#
# One pair and all pairs of 30 networks, {glue:text}`probes` probes, {glue:text}`width` units, and the fastest library for the same measure.

# %%
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

# %% tags=["remove-cell"]
behind = family[family.ratio < 1]
glue("behind", "; ".join(f"{m} (than {r['fastest peer']}, ratio {r.ratio:.2f})" for m, r in behind.iterrows()) or "none", display=False)

# %% [markdown]
# Measures for which a peer is faster on one pair: {glue:text}`behind`. There a pair takes a millisecond or two, and checking the input for what would spoil the value (NaN,
# dead units, a mean far larger than the spread), which the peers do not, is a good part of it.
#
# ## What kept it from the floor
#
# What profiles showed, each taken back in this run: the time of the older way over that of the present one.

# %%
def with_features(features):
    """All pairs by products of features, whatever the shapes."""
    chosen, alignment.cheaper_by_kernels = alignment.cheaper_by_kernels, lambda *_: False
    try:
        return wcka.pairwise("cka", features)
    finally:
        alignment.cheaper_by_kernels = chosen


some = features_of(goal_models, len(inputs), width)
assert np.allclose(with_features(some[:30]), wcka.pairwise("cka", some[:30]), atol=1e-9)
matrices = torch.stack([some[i].T @ some[i + 1] for i in range(min(96, goal_models - 1))])
centred = (every_image[:largest] - every_image[:largest].mean(0)).double()
live = centred[:, centred.any(0)]
taken_back = pd.DataFrame({
    "all pairs of CKA by features, although kernels are fewer numbers": (
        seconds(with_features, some, runs=1), seconds(wcka.pairwise, "cka", some, runs=2)),
    "Procrustes: singular values with LAPACK's own threads, not one thread for each part": (
        seconds(torch.linalg.svdvals, matrices), seconds(alignment.in_threads, torch.linalg.svdvals, matrices.chunk(12))),
    f"dCKA, {largest:,} probes: an orthonormal basis of the inputs, not a pivoted factor of their Gram matrix": (
        seconds(torch.linalg.qr, live, runs=2), seconds(Confounder, every_image[:largest], runs=2)),
}, index=["older way, s", "present way, s"]).T
taken_back["ratio"] = taken_back["older way, s"] / taken_back["present way, s"]
taken_back.style.format({"older way, s": "{:.4f}", "present way, s": "{:.4f}", "ratio": "{:.1f}"})

# %% [markdown]
# Also removed, without a row: differences of two number types,
# which PyTorch computes at half speed; new memory for every strip of kernels; products that nobody asked for.
#
# ## Training many networks at once
#
# The benchmark needs populations. They are trained as one stacked network, in which each layer is one batched product; beside it the plain loop over networks, the same steps.

# %%
train_x, train_y = (torch.from_numpy(part) if i else data.inputs(part) for i, part in enumerate(data.load(dataset, "train", classes)))
narrow = {"factory": "mlp", "widths": [784, 32, 32, 32, 32, len(classes)], "activation": "relu"}


def alone():
    """One network, one epoch, as everyone writes it."""
    torch.manual_seed(seed)
    network = build(narrow)
    optimizer = torch.optim.Adam(network.parameters())
    for rows in torch.randperm(len(train_x)).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(train_x[rows]), train_y[rows]).backward()
        optimizer.step()


crowd = initialise(narrow, range(seed, seed + trained_networks))
together = seconds(train, crowd, train_x, train_y, 1, batch_size=batch_size, runs=1)
ratio_training = seconds(alone, runs=2) / (together / trained_networks)

# %% tags=["remove-cell"]
say("training", ratio_training, ".1f")
glue("trained-networks", str(trained_networks), display=False)

# %% [markdown]
# In a population of {glue:text}`trained-networks`, a network's epoch takes one {glue:text}`training`th of its time alone.
#
# ## The goals, and what was reached

# %% tags=["hide-input"]
narrow_pairs = fastest_pair[[c for c in times.columns if c[0] >= 1000]]
goals = pd.DataFrame([
    ("one pair of linear CKA from n = 1,000 on: as fast as the fastest peer", 1, narrow_pairs.min(),
     "slowest case: n = {:,}, {:,} units".format(*narrow_pairs.idxmin()) if narrow_pairs.notna().any() else "no peer"),
    ("the same, in single precision where the peer is", 1, single_pair.min(), "all sizes"),
    (f"all pairs of {goal_models}: times faster than the fastest peer", 30, ratio_peer, f"{nearest_peer}; the bare products: {of_peers.min() / total['floor']:.1f}"),
    (f"all pairs of {goal_models}: than the other peers", 30, ratio_loops, "the fastest of them"),
    (f"all pairs of {goal_models}: than a loop over the formula in features", 4, ratio_loop, ""),
    (f"dCKA at n = {at:,}: than simtorch, each of all pairs", 100, goal_dcka["with"].iloc[2], "with the PSD step"),
    (f"dCKA at n = {at:,}: than simtorch, one pair from nothing", 100, goal_dcka["with"].iloc[0], f"without the PSD step: {goal_dcka['without'].iloc[0]:.0f}"),
    ("dCKA reaches n", 60000, len(many), f"{sum(many_seconds):.1f} s"),
    ("training in a population, than alone", 8, ratio_training, f"{trained_networks} networks"),
], columns=["goal", "wanted", "measured", "note"])
goals["met"] = np.where(goals.measured.isna(), "not measured", np.where(goals.measured >= goals.wanted, "● met", "○ not met"))
goals.style.format({"wanted": "{:,.0f}", "measured": "{:,.1f}"}, na_rep="–").hide()

# %% [markdown]
# Where the fastest peer multiplies all kernels at once, thirty is out of reach: the bare products themselves are {glue:text}`all-possible` times faster than it is. And for a single pair
# with as many units as probes there is one way for everybody: double precision then costs what it costs.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
network_pairs = goal_models * (goal_models - 1) / 2
members = initialise(wide, range(seed, seed + goal_models))
whole = {}
for n in sorted({len(inputs), min(3000, len(every_image))}):
    seen = every_image[:n]
    of_activations = seconds(members.activations, seen, 2, runs=1)
    hidden_layers = list(members.activations(seen, 2))
    for measure, kw in (("cka", {}), ("procrustes", {}), ("dcka", {"inputs": seen})):
        if measure == "cka" or n == len(inputs):
            whole[measure, n] = of_activations + seconds(wcka.pairwise, measure, hidden_layers, runs=1, **kw)
whole["wcka", 0] = seconds(lambda: wcka.pairwise("wcka", chains(members)))
few_probes, most_seen = min(n for _, n in whole if n), max(n for _, n in whole)
ends, of_activation_measures = (min(pair_probes), max(pair_probes)), {"procrustes": {}, "cka": {}, "dcka": {"inputs": every_image}}
by_probes = {m: [seconds(wcka.pairwise, m, features_of(2, n, width), runs=2, **({"inputs": every_image[:n]} if kw else {})) for n in ends]
             for m, kw in of_activation_measures.items()}
some = features_of(min(30, goal_models), len(inputs) - len(inputs) % 4, width)
upper = np.triu_indices(len(some), 1)
apart = np.abs(wcka.pairwise("minibatch_cka", some, batch_size=len(inputs) // 4) - wcka.pairwise("unbiased_cka", some))[upper].max()
biased = np.abs(wcka.pairwise("cka", some) - wcka.pairwise("unbiased_cka", some))[upper].max()
say("biased-unbiased", biased, ".3f")
cheapest = all(whole["wcka", 0] < t for (m, n), t in whole.items() if m != "wcka")
claims.show([
    claims.Claim("abstract, 4", "wCKA is computationally efficient",
                 f"all pairs of {goal_models} networks, from weights or images on: wCKA {whole['wcka', 0]:.3f} s; with {few_probes:,} probes "
                 + ", ".join(f"{figures.NAMES[m]} {whole[m, few_probes]:.2f} s" for m in ("cka", "procrustes", "dcka")),
                 claims.verdict(cheapest)),
    claims.Claim("abstract", "measures of activations are computationally intensive with many probes",
                 f"all pairs of {goal_models} networks by CKA: {whole['cka', few_probes]:.2f} s with {few_probes:,} probes, {whole['cka', most_seen]:.2f} s with {most_seen:,} "
                 f"({1e3 * whole['cka', most_seen] / network_pairs:.2f} ms a pair); dCKA of one pair with {len(many):,}: {sum(many_seconds):.1f} s",
                 "partly" if whole["cka", most_seen] < 60 else "holds"),
    claims.Claim("fig. 1c", "the time of Procrustes, CKA and dCKA grows with the number of probes",
                 f"one pair, from {ends[0]:,} to {ends[1]:,} probes: " + ", ".join(
                     f"{figures.NAMES[m]} {after / before:.1f} times" for m, (before, after) in by_probes.items()),
                 claims.verdict(*(after > 1.5 * before for before, after in by_probes.values()))),
    claims.Claim("2.1.2", "minibatch CKA approximates CKA",
                 f"{len(some)} networks, {len(inputs):,} probes in four batches: at most {apart:.4f} from the unbiased value of all probes "
                 f"(CKA itself, biased, is up to {biased:.4f} from it)",
                 "holds" if apart < 0.01 else "partly" if apart < 0.05 else "fails"),
])

# %% [markdown]
# The second claim holds in part: the time does grow with the probes, but not to what anybody would call intensive. What made it so in the paper's figure was looping over pairs, forming
# $n \times n$ matrices, and solving dCKA's eigenvalue problem among all samples.
#
# ## To take away
#
# - **Choose by invariance, not by price.** All twelve measures take milliseconds a pair.
# - **Many pairs at once are cheap** in any measure with a batched product; loops over pairs are what costs.
# - **wCKA is the cheapest of the paper's four** for all pairs of networks, and needs neither images nor activations.
# - **Where the peers are as good:** one pair with as many units as probes, in single precision; one pair of Procrustes.
# - **More machines:** the chapters' units of work run on a cluster as they are: [how](../book/cluster).
