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
# # Do alike networks behave alike?
#
# A similarity of networks is worth something if networks that it calls alike behave alike. The paper
# (section 3.2, figures 2 and 3) tests this: it trains a grid of networks, takes all pairs that differ
# in one factor (epoch, seed, architecture or training strategy), and correlates the pair's
# similarity with the share of images on which both predict the same class: clean, corrupted and
# attacked images. It finds that wCKA correlates best. This chapter rebuilds the
# benchmark and asks how sure one can be.
#
# After this chapter you can
#
# - say how each measure follows agreement, factor by factor, and where wCKA is ahead;
# - say why a p-value from the number of pairs is far too small, and read one that is not;
# - say which choices, of layer, probe, normalisation or networks, move the result.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from myst_nb import glue
from scipy.optimize import isotonic_regression

import wcka
from wcka import attacks, benchmark, claims, figures
from wcka.chain import chains
from wcka.claims import say
from wcka.statistics import compare_measures, correlation, mantel_test, over_models

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 03 -p dataset fashion -p seeds 3`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
architectures: list[list[int]] = [[8], [32], [16, 16], [8, 8, 8, 8], [32, 32, 32, 32]]  # widths of the hidden layers of each
strategies: list[str] = ["standard", "fgsm", "pgd"]  # what is trained on: clean images, or those of an attack
seeds: int = 5  # initialisations of each architecture and strategy
epochs: int = 16  # passes through the training images
checkpoints: list[int] = [1, 2, 4, 8, 16]  # epochs at whose end the networks are compared
batch_size: int = 128  # images in one step of training
train_eps: float = 0.1  # largest change of a pixel by the attacks that are trained on
train_steps: int = 5  # steps of PGD in training
probes: list[str] = ["clean", "corruptions", "attacks"]  # clean, names of corruptions or attacks, or "corruptions" and "attacks" for all
eps: float = 0.1  # largest change of a pixel by the attacks that agreement is counted under
attack_steps: int = 10  # steps of PGD and TRADES there
noise: float = 0.1  # standard deviation of the Gaussian noise there
layer: str = "last hidden"  # whose activations are compared: "first hidden", "last hidden" or "logits"
probe_images: int = 500  # images for activation measures where they are probed with more than clean images
seed: int = 0  # of the first network, of the corruptions and of the attacks' random starts

# %% tags=["hide-input"]
every = {"corruptions": list(wcka.CORRUPTIONS), "attacks": list(benchmark.ATTACKS)}
probe_names = [name for entry in probes for name in every.get(entry, [entry])]
known = {*benchmark.PROBES, *benchmark.ATTACKS}
if not {"clean"} < set(probe_names) <= known:
    raise ValueError(f"probes: wanted clean and some of {', '.join(sorted(known))}; got {probes}")
for name, values, least in (("architectures", architectures, 2), ("strategies", strategies, 2),
                            ("seeds", range(seeds), 2), ("checkpoints", checkpoints, 2),
                            ("classes", classes, 2)):
    if len(set(map(str, values))) < max(least, len(values)):
        raise ValueError(f"{name}: wanted at least {least}, all different; got {list(values)}")
if not set(strategies) <= {"standard", *attacks.ATTACKS}:
    raise ValueError(f"strategies: known are standard, {', '.join(attacks.ATTACKS)}; got {strategies}")
if layer not in benchmark.LAYERS:
    raise ValueError(f"layer: wanted one of {', '.join(benchmark.LAYERS)}; got {layer!r}")
if not 1 <= min(checkpoints) <= max(checkpoints) <= epochs:
    raise ValueError(f"checkpoints: wanted epochs from 1 to {epochs}, got {checkpoints}")
for name, value, low, high in (("train_eps", train_eps, 0, 1), ("eps", eps, 0, 1), ("noise", noise, 0, 1),
                               ("attack_steps", attack_steps, 1, 1000), ("batch_size", batch_size, 1, 60000),
                               ("train_steps", train_steps, 1, 1000), ("probe_images", probe_images, 10, 10000),
                               ("narrowest layer", min(min(a, default=0) for a in architectures), 1, 10000)):
    if not low <= value <= high:
        raise ValueError(f"{name}: wanted {low} to {high}, got {value}")

# %% [markdown]
# ## The experiment (figure 2)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pipeline", "caption": "The benchmark; the paper's figure 2. Networks of the grid are paired where they differ in one factor. Each pair gets a similarity, from activations or from weights, and on each probe an agreement; the two are correlated over pairs and probes."}, "image": {"alt": "Diagram in four columns joined by arrows. A grid of networks, with its four factors; pairs that differ in one factor; above, the similarity of a pair by four measures, below, the agreement of its predictions on clean, corrupted and attacked images; last, their correlation."}}
def box(axes, x, y, width, height, title, lines, color=figures.QUIET):
    """A rounded box with a title and some lines; x, y is its left lower corner."""
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.5",
                                  fc="white", ec=color, lw=1.6))
    axes.text(x + width / 2, y + height - 4.5, title, ha="center", va="center", weight="bold")
    axes.text(x + width / 2, y + height - 8.5, "\n".join(lines), ha="center", va="top",
              fontsize=9.5, linespacing=1.45)


def arrow(axes, start, end):
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, lw=1.4,
                                   color=figures.QUIET, shrinkA=2, shrinkB=2))


kinds = pd.Series([benchmark.kind(name) for name in probe_names]).value_counts()
shapes = [benchmark.name({"widths": [784, *hidden, 0]}) for hidden in architectures]
fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.9))
axes.set(xlim=(-1, 101), ylim=(0, 56))
axes.axis("off")
box(axes, 0, 4, 24, 48, "Networks", [
    f"{len(architectures)} architectures", *shapes[:6], "", f"{len(strategies)} strategies",
    ", ".join(strategies[:3]), "", f"{seeds} seeds × {len(checkpoints)} epochs"])
box(axes, 32, 14, 17, 29, "Pairs", ["differ in", "one factor:", *benchmark.FACTORS])
box(axes, 57, 30, 24, 22, "Similarity", ["of activations:", "Procrustes, CKA, dCKA", "of weights: wCKA"],
    figures.MEASURES["wcka"])
box(axes, 57, 4, 24, 22, "Agreement", [f"on {len(probe_names)} probes:", *(
    f"{kinds[kind]} {kind}" for kind in figures.PROBES if kind in kinds)], figures.PROBES["attacked"])
box(axes, 89, 19, 11, 18, "r and ρ", ["over", "pairs and", "probes"])
for start, end in (((24, 28), (32, 28)), ((49, 31), (57, 40)), ((49, 25), (57, 16)),
                   ((81, 40), (89, 32)), ((81, 16), (89, 24))):
    arrow(axes, start, end)
plt.show()

# %% [markdown]
# **Architectures.** The paper says "five" and then lists, in garbled text, one hidden layer of 8 and
# four of 8 and of 32, some of them twice. We take one and four hidden layers of 8 and of 32, and add
# two of 16 (`architectures`).
#
# **Strategies.** Standard training, and training on images that an attack on the network as it stands
# makes of each minibatch: FGSM {cite}`goodfellow2014` and PGD {cite}`madry2019`. The paper does not say
# how strong; at the usual strength for MNIST most of the narrow networks learn nothing, so
# we train at `train_eps`.
#
# **Seeds** set the initialisation only: all networks see the same images in the same order, whatever
# their strategy. So a pair that differs in one factor differs in that factor alone.

# %%
settings = {"seeds": list(range(seed, seed + seeds)), "dataset": dataset, "classes": classes,
            "epochs": epochs, "checkpoints": sorted(checkpoints), "batch_size": batch_size,
            "eps": train_eps, "attack_steps": train_steps, "seed": seed}
models = [{"architecture": {"factory": "mlp", "widths": [784, *hidden, len(classes)],
                            "activation": "relu"}, "strategy": strategy, **settings}
          for hidden in architectures for strategy in strategies]
probing = {"dataset": dataset, "classes": classes, "seed": seed, "eps": eps,
           "steps": attack_steps, "noise": noise}
members, table = benchmark.grid(models, probe_names, layer, probe_images, probing)

last = members[members.epoch == max(checkpoints)]
robust = [column for column in members if column in ("under fgsm", "under pgd")]
by_cell = last.groupby(["architecture", "strategy"], sort=False)
by_cell[["accuracy", *robust]].median().assign(
    lowest=by_cell.accuracy.min(), collapsed=by_cell.collapsed.sum()).style.format(
    "{:.3f}", subset=["accuracy", "lowest", *robust])

# %% tags=["remove-cell"]
seconds = table.attrs["seconds"]
about = members.set_index("model")
run_of = about.architecture + ", " + about.strategy + ", " + about.seed.astype(str)
whole = table
with_collapsed = sum(table[side].map(about.collapsed).astype(bool) for side in ("a", "b")) > 0
table = table[~with_collapsed].assign(kind=lambda rows: rows["probe"].map(benchmark.kind))
for name, number in (("n-networks", len(members)), ("n-runs", run_of[~about.collapsed].nunique()),
                     ("n-pairs", len(whole) // len(probe_names)), ("n-rows", len(whole)),
                     ("n-collapsed", about.collapsed.sum()), ("n-left-out", with_collapsed.sum()),
                     ("n-probes", len(probe_names)), ("n-last-collapsed", last.collapsed.sum())):
    say(name, number, ",")

# %% [markdown]
# That makes {glue:text}`n-networks` networks. Some **collapsed**: they predict one class for at least
# 95 % of the clean images ({glue:text}`n-collapsed` networks; {glue:text}`n-last-collapsed` of them at the last
# epoch, counted in the table). A collapsed network agrees with another one as often as that other
# one happens to predict its class, and has few features left to compare. Such networks are far from all others in
# everything, so a handful of them can make any correlation. They are left out below
# ({glue:text}`n-left-out` of {glue:text}`n-rows` rows), and put back in the table of variants.
#
# ## Agreement
#
# The functional similarity of a pair is the share of images on which both predict the same class
# (paper, section 2.4), on {glue:text}`n-probes` probes: the clean test images, 15 corruptions of MNIST-C
# {cite}`mu2019`, and five attacks at `eps`: FGSM, Fast FGSM {cite}`wong2020`, Gaussian noise, PGD and
# TRADES {cite}`zhang2019`.
#
# **Whose attack?** An attack needs the gradients of a network, but a pair has two, and the paper
# does not say which it takes. We attack both: all images are moved once by the gradients of the one
# network and once by those of the other; both networks see both sets, and the agreement is the mean
# of the two shares. So both answer for the same images, neither is favoured, and the order of the two
# does not matter. (The other reading, each network on the images made against itself, asks
# whether two networks are fooled alike, not whether they agree about an image. It is in the table
# of variants.) Gaussian noise needs no network: all see the same.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-agreement", "caption": "Mean agreement of pairs of networks, by what they differ in and the probe they see."}, "image": {"alt": "Heat map with a row for each probe and a column for each factor; the cells hold the mean agreement of the pairs."}}
agreement = table.pivot_table(index="probe", columns="differs", values="agreement")
agreement = agreement.loc[probe_names, list(benchmark.FACTORS)]
fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 0.3 * len(probe_names) + 0.6))
figures.heat_map(axes, agreement, cmap="cividis", vmin=agreement.min().min(), vmax=1, cbar=False)
axes.set_yticklabels([name.replace("_", " ") for name in probe_names])
axes.xaxis.tick_top()
plt.show()

# %% [markdown]
# ## Similarity against agreement (figure 3)
#
# Each pair has four similarities. The activation measures are probed with all clean test images, on
# the layer named by `layer`; wCKA takes the chains of weights. (Probing them with the images that
# the agreement is counted on is the paper's other possible reading; see the variants.) So a pair has
# one similarity by each measure, and as many agreements as there are probes.

# %%
results = {method: pd.concat({
    factor: compare_measures(rows.a.map(run_of), rows.b.map(run_of), rows.agreement,
                             rows[list(benchmark.MEASURES)], method=method)
    for factor, rows in table.groupby("differs")}, names=["differs"])
    for method in ("pearson", "spearman")}


def ceiling(rows):
    """Highest r with agreement of anything that has one value a pair, the same on all probes."""
    mean = rows.groupby(["a", "b"], observed=True).agreement.transform("mean")
    return np.sqrt(mean.var() / rows.agreement.var())


ceilings = pd.Series({factor: ceiling(table[table.differs == factor])
                      for factor in benchmark.FACTORS})

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-benchmark", "caption": "The paper's figure 3; columns are what the two networks differ in. Top: similarity by wCKA against agreement, a dot a pair and probe: clean (black), corrupted (orange), attacked (green). Middle and bottom: correlation of each measure with agreement (white dot), with the paper's 95 % interval, which takes all rows for independent (broad bar), and one that leaves out whole training runs (thin line). Marks compare each measure with wCKA, by the paper's test (upper line) and over runs (lower line): + where wCKA is ahead, − where it is behind, * p < 0.05, ** p < 0.01, *** p < 0.001, n.s. otherwise. Dotted: the highest r that a similarity can have that knows nothing of the probe."}, "image": {"alt": "Three rows of four panels, one column each for epoch, seed, architecture and strategy. Top: scatter of agreement against wCKA. Middle: Pearson's r of four measures with narrow and wide intervals and marks of significance. Bottom: Spearman's rho in the same way."}}
figures.style(many_marks=True)
figures.benchmark(table, results, ceilings)
plt.show()
figures.style()

# %% [markdown]
# The same numbers: each measure's r and ρ, and by how much wCKA's is higher; intervals are those over
# runs.

# %% tags=["hide-input"]
def interval(value, low, high, sign=""):
    """A number with its interval, as text."""
    return f"{value:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def written(rows):
    """Correlation and wCKA's lead as text, a row a factor and measure."""
    return pd.DataFrame({
        "correlation": [interval(r.r, r["model low"], r["model high"]) for _, r in rows.iterrows()],
        "wCKA's lead": ["" if name[1] == "wcka" else interval(
            r.difference, r["model difference low"], r["model difference high"], "+")
            for name, r in rows.iterrows()]}, index=rows.index)


numbers = pd.concat({"Pearson's r": written(results["pearson"]),
                     "Spearman's ρ": written(results["spearman"])}, axis=1)
numbers.loc[list(benchmark.FACTORS)].rename(figures.NAMES, level="measure").rename_axis(
    [None, None]).style

# %% tags=["remove-cell"]
others = list(benchmark.ACTIVATION_MEASURES)
pearson, spearman = results["pearson"], results["spearman"]
later = benchmark.FACTORS[1:]
both = pd.concat(results)
comparisons = both.loc[(slice(None), slice(None), others), :]
say("n-comparisons", len(comparisons), "d")
say("paper-significant", (comparisons["p Fisher"] < 0.05).sum(), "d")
say("steiger-significant", (comparisons["p Steiger"] < 0.05).sum(), "d")
say("meng-significant", (comparisons["p Meng"] < 0.05).sum(), "d")
say("zou-significant", ((comparisons["Zou low"] > 0) | (comparisons["Zou high"] < 0)).sum(), "d")
say("model-significant", (comparisons["p model"] < 0.05).sum(), "d")
surest = comparisons[comparisons["p model"] < 0.05]
glue("where-significant", ", ".join(dict.fromkeys(
    factor for _, factor, _ in surest.index)) or "no factor", display=False)
for factor in benchmark.FACTORS:
    say(f"ceiling-{factor}", ceilings[factor], ".2f")
say("wider", ((both["model high"] - both["model low"]) / (both["high"] - both["low"])).median(), ".0f")

# %% [markdown]
# ## How sure is that?
#
# The paper takes Fisher's $z = \operatorname{atanh} r$ with standard error $1/\sqrt{n-3}$, where $n$ is the
# number of rows. That would be right for independent rows. Ours are not: {glue:text}`n-rows` rows come
# from {glue:text}`n-pairs` pairs, and these from {glue:text}`n-runs` training runs, whose checkpoints are
# one network at different ages. One odd run is in hundreds of rows. So next to the paper's intervals stand
# ones that leave out a whole training run at a time, with all its rows, and see how far the number moves (a
# jackknife over models {cite}`snijders1999`). They are wider: by a factor of {glue:text}`wider` in the
# median. They speak for other runs of these architectures and strategies, on these probes; not for others.
#
# With the paper's test, {glue:text}`paper-significant` of {glue:text}`n-comparisons` differences between
# wCKA and another measure are significant at 0.05. That test also takes the two correlations for
# independent, though both are with the same agreement. Tests that know better but still count rows
# find as many or more: Steiger's {cite}`steiger1980` {glue:text}`steiger-significant`, that of Meng,
# Rosenthal and Rubin {cite}`meng1992` {glue:text}`meng-significant`, Zou's interval {cite}`zou2007`
# {glue:text}`zou-significant`. Over runs {glue:text}`model-significant` are left
# ({glue:text}`where-significant`).
#
# Is the interval over runs too wide, then? Here is a simulation in which the truth is known. Pairs are
# those of our grid that differ in the seed; each run has a hidden effect on similarity and one on agreement, which
# correlate; each pair adds noise of its own. How often does a 95 % interval hold the truth?

# %%
def simulate(draws, rho=0.5, spread=0.3):
    """Share of draws in which each 95 % interval of r holds the truth; networks as in our grid."""
    rows = table[(table.differs == "seed") & (table["probe"] == "clean")]
    a, b = (rows[side].map(run_of).to_numpy() for side in ("a", "b"))
    names, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    i, j = np.split(numbers, 2)
    rng, held = np.random.default_rng(seed), []
    truth = np.arctanh(2 * rho / (2 + spread**2))
    for _ in range(draws):
        effects = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], len(names))
        x, y = (effects[i] + effects[j] + spread * rng.standard_normal((len(rows), 2))).T
        naive = correlation(x, y)
        models = over_models(lambda x, y: np.arctanh(np.corrcoef(x, y)[0, 1]), a, b, x, y)
        held.append([naive.low <= np.tanh(truth) <= naive.high, models.low <= truth <= models.high])
    return pd.Series(np.mean(held, axis=0), ["rows (the paper's)", "runs"], name="holds the truth")


coverage = simulate(200)
coverage.to_frame().style.format("{:.1%}")

# %% tags=["remove-cell"]
say("naive-coverage", 100 * coverage.iloc[0], ".0f")
say("model-coverage", 100 * coverage.iloc[1], ".0f")

# %% [markdown]
# Of intervals that promise 95 %, the one that counts rows keeps {glue:text}`naive-coverage` %, the one over
# runs {glue:text}`model-coverage` %.
#
# **What can be reached at all.** A similarity that knows nothing of the probe has one value where
# agreement has {glue:text}`n-probes`. It cannot explain what the probes do, so its r is at most
# {glue:text}`ceiling-epoch` (epoch), {glue:text}`ceiling-seed` (seed), {glue:text}`ceiling-architecture`
# (architecture), {glue:text}`ceiling-strategy` (strategy): the dotted lines. It also follows
# that r depends on which probes one mixes.
#
# ## Which probes?
#
# So we look at each kind of probe by itself.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-kinds", "caption": "Pearson's r of similarity with agreement, on clean, corrupted and attacked images apart; the similarity is the same in all three."}, "image": {"alt": "Three heat maps side by side, for clean, corrupted and attacked probes: a row for each measure, a column for each factor, the cells hold Pearson's r."}}
by_kind = {kind: pd.DataFrame({
    factor: rows[list(benchmark.MEASURES)].corrwith(rows.agreement)
    for factor, rows in of_kind.groupby("differs")})[list(benchmark.FACTORS)].rename(figures.NAMES)
    for kind, of_kind in table.groupby("kind")}
shown = [kind for kind in figures.PROBES if kind in by_kind]
fig, panels = plt.subplots(1, len(shown), figsize=(figures.WIDTH, 2.6), squeeze=False)
for axes, kind in zip(panels[0], shown):
    figures.heat_map(axes, by_kind[kind], cmap="cividis", vmin=0, vmax=1, cbar=False,
                     yticklabels=kind == shown[0])
    axes.set_title(kind)
    axes.tick_params(axis="x", rotation=35)
plt.show()

# %% [markdown]
# Pairs of different strategy are of several kinds, and so are their numbers:

# %% tags=["hide-input"]
by_strategies = table[table.differs == "strategy"].assign(
    which=lambda rows: rows.a.map(about.strategy).astype(str) + " and "
    + rows.b.map(about.strategy).astype(str))
means = by_strategies.groupby("which", sort=False)[list(benchmark.MEASURES)].mean().rename(
    columns=figures.NAMES)
agreements = by_strategies.pivot_table(index="which", columns="kind", values="agreement")[shown]
means.join(agreements.add_prefix("agreement, ")).rename_axis(None).style.format("{:.2f}")

# %% tags=["remove-cell"]
for kind in shown:
    for measure in ("wcka", "cka"):
        say(f"kind-{kind}-{measure}", by_kind[kind].loc[figures.NAMES[measure], "strategy"], ".2f")

# %% [markdown]
# wCKA tells networks that were trained on attacked images from those that were not, and on attacked
# images these two sorts disagree: there its r for strategy is {glue:text}`kind-attacked-wcka` (CKA
# {glue:text}`kind-attacked-cka`). On clean images the two sorts agree, whatever the weights say:
# {glue:text}`kind-clean-wcka` (CKA {glue:text}`kind-clean-cka`).
#
# ## The other reading, and two baselines
#
# Three comparisons that the paper does not make.
#
# **The same images.** wCKA takes no images, so it cannot be shown others. Activation measures can be
# probed with the very images that the agreement is counted on (under an attack, each network with
# those made against it). That is the paper's other possible reading, and the fairer match for
# activation measures. `probe_images` images stand in for all of a probe.
#
# **Accuracy.** Two networks that are right equally often may agree more. So one baseline looks neither
# into the networks nor at the probe: minus the gap between their accuracies on clean images.
#
# **Agreement itself.** The other baseline needs no labels either: the pair's agreement on clean
# images. To be fair, all are compared on the other probes only.

# %%
accuracy = about.accuracy
table["accuracy gap"] = -np.abs(table.a.map(accuracy).to_numpy(float) - table.b.map(accuracy).to_numpy(float))
on_clean = table[table.kind == "clean"].set_index(["a", "b"]).agreement
table["clean agreement"] = pd.MultiIndex.from_frame(table[["a", "b"]]).map(on_clean)
on_probe = [f"{m}, on the probe" for m in others]
readings = pd.concat({
    factor: compare_measures(rows.a.map(run_of), rows.b.map(run_of), rows.agreement,
                             rows[[*on_probe, "accuracy gap", "clean agreement", "wcka"]])
    for factor, rows in table[table.kind != "clean"].dropna(subset=on_probe).groupby("differs")},
    names=["differs"])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-readings", "caption": "Pearson's r with agreement on all probes but the clean one, drawn as in the middle row of the figure before: activation measures probed with the images that the agreement is counted on; two baselines, minus the gap in clean accuracy and the agreement on clean images; and wCKA."}, "image": {"alt": "Four panels, one a factor: correlations of Procrustes, CKA and dCKA on the probe itself, of the gap in accuracy, of the agreement on clean images and of wCKA, with intervals and marks."}}
fig, panels = plt.subplots(2, 2, figsize=(figures.WIDTH, 6.2), sharex=True, sharey=True)
for factor, axes in zip(benchmark.FACTORS, panels.flat):
    figures.correlations(axes, readings.loc[factor])
    axes.text(0.5, 1.22, factor, ha="center", transform=axes.transAxes)
for axes in panels[:, 0]:
    axes.set_ylabel("Pearson's r")
    figures.name_marks(axes)
plt.show()

# %% tags=["remove-cell"]
for factor in ("seed", "strategy"):
    for measure, name in ((on_probe[0], "procrustes"), (on_probe[1], "cka"), ("accuracy gap", "gap"),
                          ("clean agreement", "clean"), ("wcka", "wcka")):
        say(f"reading-{factor}-{name}", readings.loc[(factor, measure), "r"], ".2f")


def beaten(rival, sure):
    """Factors where a rival has a higher r than wCKA, over runs significantly so if `sure`."""
    rows = readings.xs(rival, level="measure").loc[list(benchmark.FACTORS)]
    which = rows.index[(rows.difference < 0) & ((rows["p model"] < 0.05) | (not sure))]
    return ", ".join(which) or "no factor"


for rival, name in (("accuracy gap", "gap"), ("clean agreement", "clean")):
    glue(f"{name}-ahead", beaten(rival, sure=False), display=False)
    glue(f"{name}-surely-ahead", beaten(rival, sure=True), display=False)

# %% [markdown]
# For strategy, Procrustes on the probe itself reaches {glue:text}`reading-strategy-procrustes` and CKA
# {glue:text}`reading-strategy-cka`, against {glue:text}`reading-strategy-wcka` for wCKA, which does not
# see the probe; for seed it is {glue:text}`reading-seed-procrustes`, {glue:text}`reading-seed-cka` and
# {glue:text}`reading-seed-wcka`.
#
# The gap in accuracy has a higher r than wCKA for {glue:text}`gap-ahead` (over runs significantly:
# {glue:text}`gap-surely-ahead`), agreement on clean images for {glue:text}`clean-ahead`
# (significantly: {glue:text}`clean-surely-ahead`). A similarity should beat these two before anyone
# uses it to foretell how alike networks behave on other images. Neither is a rival where there are no
# images at all: there wCKA is alone.

# %% [markdown]
# ## All measures, pair by pair

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-scatter", "caption": "Similarity against agreement for each measure (rows) and factor (columns), a dot a pair and probe: clean (black), corrupted (orange), attacked (green)."}, "image": {"alt": "Sixteen scatter plots of agreement against similarity: rows are Procrustes, CKA, dCKA and wCKA, columns epoch, seed, architecture and strategy; dots coloured by kind of probe."}}
figures.style(many_marks=True)
fig, grid = plt.subplots(4, 4, figsize=(figures.WIDTH, 8), sharex=True, sharey=True)
for measure, row in zip(benchmark.MEASURES, grid):
    row[0].set_ylabel(f"agreement\n({figures.NAMES[measure]})")
    for factor, axes in zip(benchmark.FACTORS, row):
        figures.scatter(axes, table[table.differs == factor], measure)
for factor, top, bottom in zip(benchmark.FACTORS, grid[0], grid[-1]):
    top.set_title(factor)
    bottom.set_xlabel("similarity")
plt.show()
figures.style()

# %% [markdown]
# ## Which choices matter?
#
# Pearson's r again, with one choice changed at a time. The first four rows are those of
# {numref}`fig-benchmark`.

# %% tags=["hide-input"]
layers = [layer, *(name for name in benchmark.LAYERS if name != layer)]
asked = {name: [*others, *([benchmark.NO_PSD, *benchmark.UNCENTRED[:2]] if name == layer else [])]
         for name in layers}
clean = benchmark.run(benchmark.on_probe, [
    {"models": models, "probe_name": "clean", "layer": name, "samples": probe_images,
     "measures": measures, "probing": probing} for name, measures in asked.items()],
    description="variants")
by_weights = benchmark.weights(models)
variants = by_weights.drop(columns=["differs", "wcka"]).assign(**{
    f"{column} @ {name}": part[column].to_numpy()
    for i, name in enumerate(layers) for part in [clean[i * len(by_weights):][:len(by_weights)]]
    for column in asked[name]})
for side in ("a", "b"):
    variants[side] = members.model.to_numpy()[variants[side]]
wide = table.astype({"a": str, "b": str}).merge(variants, on=["a", "b"])

kind_of_network = about.architecture + about.strategy + about.epoch.astype(str)
kind_of_pair = wide.a.map(kind_of_network) + wide.b.map(kind_of_network)
at_the_end = wide[np.minimum(wide.a.map(about.epoch), wide.b.map(about.epoch)) == max(checkpoints)]


def demeaned(by):
    """Similarities and agreement less their means over the rows that are alike in `by`."""
    columns = [*benchmark.MEASURES, "agreement"]
    return wide.assign(**wide[columns] - wide.groupby(by)[columns].transform("mean"))


def variant(rows, columns, target="agreement"):
    """Pearson's r of each measure's column with agreement, by what differs."""
    return pd.DataFrame({factor: {figures.NAMES[m]: part[c].corr(part[target])
                                  for m, c in columns.items()}
                         for factor, part in rows.groupby("differs")})


measures = {m: m for m in benchmark.MEASURES}
few = f"{probe_images} images"
sensitivity = pd.concat({
    "as above": variant(wide, measures),
    "collapsed networks too": variant(whole, measures),
    "last epoch only": variant(at_the_end, measures),
    "each probe's mean taken away": variant(demeaned(["differs", "probe"]), measures),
    "each kind of pair's mean taken away": variant(
        demeaned(["differs", "probe", kind_of_pair.rename("of pair")]), measures),
    "each under its own attack": variant(wide, measures, "agreement, own attack"),
    f"on the probe itself, {few}": variant(wide, {m: f"{m}, on the probe" for m in others}),
    f"clean, {few}": variant(wide, {m: f"{m} @ {layer}" for m in others}),
    **{f"{name}, {few}": variant(wide, {m: f"{m} @ {name}" for m in others})
       for name in layers[1:]},
    "no PSD step": variant(wide, {"dcka": f"{benchmark.NO_PSD} @ {layer}"}),
    "uncentred": variant(wide, {"procrustes": f"procrustes, uncentred @ {layer}",
                                "cka": f"cka, uncentred @ {layer}", "wcka": "wcka, uncentred"}),
    **{name: variant(wide, {"wcka": f"wcka, {name}"})
       for name in ("with biases", "rows normalised", "mean of layers")},
})[list(benchmark.FACTORS)]
sensitivity.style.format("{:.2f}", na_rep="–").background_gradient(
    cmap="cividis", vmin=0, vmax=1, axis=None).highlight_null(
    props="background-color: transparent; color: inherit")

# %% tags=["remove-cell"]
for name, row in (("collapsed", "collapsed networks too"),
                  ("kinds", "each kind of pair's mean taken away")):
    for measure in ("procrustes", "wcka"):
        say(f"{name}-{measure}", sensitivity.loc[(row, figures.NAMES[measure]), "seed"], ".2f")
say("wang-seed", sensitivity.loc[("rows normalised", "wCKA"), "seed"], ".2f")
few_move = (sensitivity.loc[f"clean, {few}"] - sensitivity.loc["as above"].drop("wCKA")).abs()
say("few-move", few_move.max().max(), ".2f")

# %% [markdown]
# What the table says:
#
# - **Collapsed networks** change everything: with them Procrustes' r for seeds is
#   {glue:text}`collapsed-procrustes` and wCKA's {glue:text}`collapsed-wcka`. That is one observation
#   (this network has failed), counted many times. Were they in the paper's grid? It does not say.
# - **Each kind of pair's mean taken away.** Pairs of the same architectures, strategies and epochs on
#   the same probe are one kind. What is left is whether a measure knows *which seeds* behave alike:
#   for pairs that differ in the seed Procrustes {glue:text}`kinds-procrustes`, wCKA
#   {glue:text}`kinds-wcka`.
# - **The number of images** hardly matters: with `probe_images` clean ones no r moves by more than
#   {glue:text}`few-move`. So what changes "on the probe itself" is the probe.
# - **Normalised rows**, as in {cite:t}`wang2022`, have their own r for wCKA ({glue:text}`wang-seed` for seeds;
#   chapter 1 says what is wrong with them). Centring, biases and the mean over the chains up
#   to each layer (of networks of equal depth only) are in the last rows.

# %% [markdown]
# ## All pairs
#
# So far pairs differed in one factor. Here are all pairs of the networks at the last epoch, whatever
# they differ in.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-pairs", "caption": "All pairs of networks at the last epoch, ordered by architecture, then strategy, then seed: agreement (mean over the clean, corrupted and noisy images, which all networks share), and similarity by each measure. Lines part the architectures. White bands: collapsed networks."}, "image": {"alt": "Five square heat maps with a row and a column for each network: agreement, Procrustes, CKA, dCKA and wCKA, with lines between the architectures."}}
square = benchmark.all_pairs(models, max(checkpoints), probe_names, layer, probing)
rows = last.index.to_numpy()
position = pd.Series(np.arange(len(rows)), index=rows)
alive = last.index[~last.collapsed]
columns = ["agreement", *benchmark.MEASURES]


def matrix(column):
    """Square table of one column of all pairs; collapsed networks are NaN."""
    values = np.full((len(rows), len(rows)), np.nan)
    i, j = position[square.a], position[square.b]
    values[i, j] = values[j, i] = square[column]
    np.fill_diagonal(values, 1)
    gone = last.collapsed.to_numpy()
    values[gone] = values[:, gone] = np.nan
    return values


figures.style(many_marks=True)
fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5.4))
block = len(strategies) * seeds
bars = {}
for axes, column in zip(panels.flat, columns):
    low = 0 if column in figures.NAMES else square.agreement[square.a.isin(alive) & square.b.isin(alive)].min()
    image = axes.imshow(matrix(column), cmap="cividis", vmin=low, vmax=1, interpolation="nearest")
    bars["similarity" if column in figures.NAMES else "mean agreement"] = image
    axes.set_title(figures.NAMES.get(column, column))
    for edge in range(block, len(rows), block):
        axes.axhline(edge - 0.5, color="white", lw=0.8)
        axes.axvline(edge - 0.5, color="white", lw=0.8)
    axes.set(xticks=[], yticks=np.arange(len(architectures)) * block + block / 2 - 0.5)
    axes.set_yticklabels(shapes if axes in panels[:, 0] else [], fontsize=9)
    axes.tick_params(length=0)
panels[1, 2].axis("off")
for i, (label, image) in enumerate(bars.items()):
    scale = panels[1, 2].inset_axes([0.05, 0.75 - 0.5 * i, 0.9, 0.08])
    fig.colorbar(image, cax=scale, orientation="horizontal", label=label)
plt.show()
figures.style()

# %% [markdown]
# For such a table Mantel's test {cite}`mantel1967` gives one honest p-value: permute the networks of
# one table, and see how often chance alone gives as high an r. It is taken twice: among all networks,
# and among networks of the same architecture and strategy only. What is left then is whether a
# measure tells *which seeds* behave alike. The intervals leave out one network at a time.

# %%
number = pd.Series(np.arange(len(alive)), index=alive)
live = square[square.a.isin(alive) & square.b.isin(alive)].dropna()
kind_of = (last.architecture + last.strategy)[alive].to_numpy()
like = live[kind_of[number[live.a]] == kind_of[number[live.b]]]


def association(rows, strata=None):
    """Pearson's r with agreement, its interval over networks, and Mantel's p; a row a measure."""
    a, b = number[rows.a].to_numpy(), number[rows.b].to_numpy()
    r = compare_measures(a, b, rows.agreement, rows[list(benchmark.MEASURES)])
    r["p"] = [mantel_test(a, b, rows.agreement, rows[m], strata, seed=seed) for m in r.index]
    return r.rename(figures.NAMES)


tests = {"all pairs": association(live), "pairs of one architecture and strategy":
         association(like, kind_of)}
pd.DataFrame({(title, column): text for title, r in tests.items() for column, text in {
    "r": [f"{x.r:.2f} ({x['model low']:.2f} to {x['model high']:.2f})" for _, x in r.iterrows()],
    "Mantel's p": [f"{p:.3f}" for p in r.p]}.items()}, index=tests["all pairs"].index)

# %% tags=["remove-cell"]
for measure in ("procrustes", "cka", "wcka"):
    say(f"all-{measure}", tests["all pairs"].r[figures.NAMES[measure]], ".2f")
    say(f"like-{measure}", tests["pairs of one architecture and strategy"].r[figures.NAMES[measure]], ".2f")

# %% [markdown]
# Over all pairs wCKA's r is {glue:text}`all-wcka`, that of Procrustes {glue:text}`all-procrustes` and of CKA
# {glue:text}`all-cka`. The picture shows why: networks trained on attacked images and networks trained on clean ones
# behave apart on corrupted images, whatever their architecture, and wCKA alone parts the two sorts.
# Among networks of one sort and architecture it is {glue:text}`like-wcka`, against {glue:text}`like-procrustes` and
# {glue:text}`like-cka`.

# %% [markdown]
# ## Layer by layer
#
# Every layer of one network against every layer of another: activations by CKA, and the chains of weights up
# to each layer by wCKA. The networks are those of the deepest architecture at the last epoch; numbers are means over seeds, or
# over pairs of seeds.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-layers", "caption": "Similarity of each layer (rows) with each layer (columns): within one network, between two networks of different seed, and between networks of different strategy. Top: CKA of activations on clean test images. Bottom: wCKA of the chains up to that layer. The last layer is the logits."}, "image": {"alt": "Six heat maps in two rows, CKA of activations above and wCKA of chains below: layers within a network, between seeds, and between strategies."}}
deepest = max(range(len(architectures)), key=lambda i: (len(architectures[i]), sum(architectures[i])))
pools, where = benchmark.networks(models)
chosen = {s: next(i for i, m in enumerate(models) if m["strategy"] == s
                  and m["architecture"]["widths"][1:-1] == architectures[deepest])
          for s in (strategies[0], strategies[-1])}
chosen = {s: pools[i][(pools[i].members.epoch == max(checkpoints)).to_numpy()] for s, i in chosen.items()}
inputs = benchmark._images("clean", probing)[0]
depth = len(architectures[deepest]) + 1


def by_layer(measure):
    """Similarities of layers of all chosen networks: (strategy, seed, layer) twice."""
    features = [f[n] for pool in chosen.values() for n in range(seeds) for f in (
        [chains(pool, layer=k + 1) if measure == "wcka" else pool.activations(inputs, k + 1)
         for k in range(depth)])]
    shape = (len(chosen), seeds, depth)
    return wcka.pairwise(measure, features).reshape(*shape, *shape)


fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5))
off, maps = ~np.eye(seeds, dtype=bool), {}
for measure, row in zip(("cka", "wcka"), panels):
    s = by_layer(measure)
    maps[measure] = {"within a network": s[0, :, :, 0].diagonal(axis1=0, axis2=2).mean(-1),
            "between seeds": s[0, :, :, 0].swapaxes(1, 2)[off].mean(0),
            f"{strategies[0]} and {strategies[-1]}": s[0, :, :, -1].diagonal(axis1=0, axis2=2).mean(-1)}
    for axes, (title, values) in zip(row, maps[measure].items()):
        numbers = range(1, depth + 1)
        figures.heat_map(axes, pd.DataFrame(values, numbers, numbers), cmap="cividis", vmin=0, vmax=1,
                         cbar=False, xticklabels=measure == "wcka", yticklabels=axes is row[0])
        if measure == "cka":
            axes.set_title(title)
    row[0].set_ylabel(f"layer ({figures.NAMES[measure]})")
for axes in panels[-1]:
    axes.set_xlabel("layer")
plt.show()

# %% tags=["remove-cell"]
for measure in ("cka", "wcka"):
    for title, name in (("between seeds", "seeds"), (f"{strategies[0]} and {strategies[-1]}", "strategies")):
        diagonal = maps[measure][title].diagonal()
        say(f"layers-{measure}-{name}-low", diagonal.min(), ".2f")
        say(f"layers-{measure}-{name}-high", diagonal.max(), ".2f")

# %% [markdown]
# Between seeds, corresponding layers score {glue:text}`layers-cka-seeds-low` to
# {glue:text}`layers-cka-seeds-high` by CKA and {glue:text}`layers-wcka-seeds-low` to
# {glue:text}`layers-wcka-seeds-high` by wCKA. Between strategies it is
# {glue:text}`layers-cka-strategies-low` to {glue:text}`layers-cka-strategies-high` and
# {glue:text}`layers-wcka-strategies-low` to {glue:text}`layers-wcka-strategies-high`: what the first layer
# weighs differently, no later layer of the chain can bring back.
#
# ## Where the time goes
#
# Most of it goes into three things: training on attacked images, the eigenvalues of dCKA, and making
# the attacked images. All pairs, once the features are there, take next to nothing; wCKA of all pairs, and its
# four variants, are in none of these rows because they take seconds.

# %% tags=["hide-input"]
pd.Series({"training": seconds["training"], "activations on probes, and dCKA": seconds["probes"],
           "attacks, and predictions on them": seconds["attacks"]},
          name="seconds, added over processes").to_frame().style.format("{:.0f}")

# %% [markdown]
# ## The paper's claims in this chapter
#
# "Strongest" holds if wCKA's correlation is the highest of the four and the differences from all three others
# are significant over runs; partly, if it is the highest but not surely so; otherwise it fails.

# %% tags=["hide-input"]
def strongest(rows):
    """Verdict of: wCKA has the highest correlation, from its comparisons with the others."""
    rows = rows.drop("wcka")
    if (rows.difference <= 0).any():
        return "fails"
    return "holds" if (rows["p model"] < 0.05).all() else "partly"


def found(rows):
    """Correlations of all measures, with intervals over runs."""
    return ", ".join(f"{figures.NAMES[m]} {row.r:.2f} ({row['model low']:.2f} to "
                     f"{row['model high']:.2f})" for m, row in rows.iterrows())


def straightness(rows, measure):
    """R squared of a line over that of the best monotone curve, agreement averaged over probes."""
    pairs = rows.groupby(["a", "b"], observed=True)[[measure, "agreement"]].mean().sort_values(measure)
    curve = isotonic_regression(pairs.agreement.to_numpy()).x
    line = pairs[measure].corr(pairs.agreement)
    return line**2 / np.corrcoef(curve, pairs.agreement)[0, 1] ** 2


straight = pd.DataFrame({factor: {m: straightness(rows, m) for m in benchmark.MEASURES}
                         for factor, rows in table.groupby("differs")})[list(benchmark.FACTORS)]
alike = [rows.loc["epoch"].drop("wcka") for rows in (pearson, spearman)]
stars = both.loc[(slice(None), list(later), others), :]
blind = pearson.loc["strategy"].drop("wcka")
results_of_claims = [
    claims.Claim("3.2, fig. 3", "All measures do similarly well for two epochs of one network",
                 f"Pearson: {found(pearson.loc['epoch'])}. Spearman: {found(spearman.loc['epoch'])}",
                 claims.verdict(*((rows["p model"] >= 0.05).all() for rows in alike))),
    *(claims.Claim("3.2, fig. 3", f"wCKA has the strongest {which} correlation: {factor}",
                   found(rows.loc[factor]), strongest(rows.loc[factor]))
      for which, rows in (("Pearson", pearson), ("Spearman", spearman)) for factor in later),
    claims.Claim("Fig. 3", "The differences between wCKA and the others are significant at 0.001",
                 f"seed, architecture and strategy, Pearson and Spearman: "
                 f"{(stars['p Fisher'] < 0.001).sum()} of {len(stars)} by the paper's test, "
                 f"{(stars['p model'] < 0.001).sum()} over runs "
                 f"({(stars['p model'] < 0.05).sum()} at 0.05)",
                 claims.verdict((stars["p model"] < 0.001).all(), (stars["p model"] < 0.001).any())),
    claims.Claim("3.2", "For different strategies wCKA finds some similarity, the others fail to",
                 f"Pearson: {found(pearson.loc['strategy'])}; probed with the same images as the "
                 f"agreement Procrustes {readings.loc[('strategy', on_probe[0]), 'r']:.2f}, CKA "
                 f"{readings.loc[('strategy', on_probe[1]), 'r']:.2f}",
                 claims.verdict(pearson.loc[("strategy", "wcka"), "model low"] > 0,
                                (blind["model low"] <= 0).all())),
    claims.Claim("3.2, 4", "wCKA is better calibrated: linear in functional similarity",
                 "of what the best monotone curve explains, a line explains: " + "; ".join(
                     f"{factor}: " + ", ".join(f"{figures.NAMES[m]} {share:.0%}"
                                               for m, share in shares.items())
                     for factor, shares in straight.items()),
                 claims.verdict(*(straight.idxmax() == "wcka"))),
]
claims.show(results_of_claims)

# %% [markdown]
# ## To take away
#
# - Alike networks do behave alike, by every measure here. How well a measure follows agreement depends on
#   the factor, on the probes and on a few odd networks as much as on the measure.
# - Rows are not observations. Count training runs, and most stars go out.
# - Activation measures, shown the images that the agreement is counted on, know what wCKA cannot: what those images
#   do to the networks. wCKA knows what no image need show: how the network was trained.
# - Before trusting a similarity to foretell agreement, compare it with the gap in accuracy and with the
#   agreement on clean images.
