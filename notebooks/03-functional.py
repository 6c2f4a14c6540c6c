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
# # Do similar networks behave similarly?
#
# ```{admonition} In one paragraph
# :class: tip
# {glue:text}`n-learned` networks that have learned the task are compared in pairs that differ in one factor, and the similarity of a pair is
# correlated with the share of images on which both predict the same class. {glue:text}`take-stronger-pearson`
# {glue:text}`take-more-accurate` {glue:text}`take-linear` {glue:text}`take-fisher`
# ```
#
# A similarity of networks is worth something if networks that it calls similar behave similarly. The paper
# (section 3.2, figures 2 and 3) tests this: it trains a grid of networks, takes all pairs that differ
# in one factor (epoch, {term}`seed`, architecture or training strategy), and correlates the pair's
# similarity with its {term}`agreement` on clean, corrupted and attacked images. It finds that {term}`wCKA` correlates best. This chapter rebuilds the
# benchmark and asks how certain that is. Its rules were written down before the {term}`run of record` ([the rules](../book/rules)).
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
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from myst_nb import glue

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
    interval,
    keep_grid,
    leads,
    rules,
    say,
    sentences,
    with_interval,
    within,
)
from wcka.experiments import (
    benchmark,
    coverage,
    crossed,
    jobs,
    open_choices,
    other_trainings,
    statistics,
    summaries,
    variants,
)
from wcka.measures import ACTIVATION_MEASURES, MEASURE_LABELS, PAPER_MEASURES
from wcka.measures.spelling import listed
from wcka.networks import (
    expand_probes,
    image_sets,
    kind_of_probe,
    populations,
    resolve_device,
)

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 03 -p dataset fashion -p seeds 3`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
# widths of the hidden layers of each
architectures: list[list[int]] = [
    [8], [32], [16, 16], [8, 8, 8, 8], [32, 32, 32, 32],
]
# what is trained on: clean images, or those of an attack
strategies: list[str] = ["standard", "fgsm", "pgd"]
seeds: int = 4  # initialisations of each architecture and strategy
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
# clean accuracy from which a network counts as having learned; pairs of such
# networks are judged
learned: float = 0.95
# other limits, at which the verdicts are judged anew for the page of rules
other_limits: list[float] = [0.9, 0.98]
# whether some networks are trained otherwise, to see whether that matters; it
# adds a fifth to the time
vary_training: bool = False
# of the first network, of the corruptions and of the attacks' random starts
seed: int = 0
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""
# where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is
# one
device: str = "cpu"

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = expand_probes(probes)
distinct(
    architectures=(architectures, 2),
    strategies=(strategies, 2),
    checkpoints=(checkpoints, 2),
    classes=(classes, 2),
    other_limits=(other_limits, 1),
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
    seed=(seed, 0, 2**31),
)

# %% [markdown]
# ## The experiment (figure 2)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pipeline", "caption": "The benchmark; the paper's figure 2. Networks of the grid are paired where they differ in one factor. Each pair gets a similarity, from activations or from weights, and on each probe an agreement; the two are correlated over pairs and probes."}, "image": {"alt": "Diagram in four columns joined by arrows. A grid of networks, with its four factors; pairs that differ in one factor; above, the similarity of a pair by four measures, below, the agreement of its predictions on clean, corrupted and attacked images; last, their correlation."}}
def draw_box(axes, corner, size, title, lines, color=figures.QUIET):
    """Draw a rounded box with a title above lines of text.

    `corner` is (x, y) of the lower left corner, `size` is (width, height).
    """
    x, y = corner
    width, height = size
    axes.add_patch(FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0,rounding_size=1.5",
        fc="white", ec=color, lw=1.6))
    center = x + width / 2
    top = y + height
    axes.text(center, top - 4.5, title, ha="center", va="center", weight="bold")
    axes.text(center, top - 8.5, "\n".join(lines), ha="center", va="top",
              fontsize=9.5, linespacing=1.45)


def draw_arrow(axes, start, end):
    """Draw an arrow between two points."""
    axes.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=13, lw=1.4,
        color=figures.QUIET, shrinkA=2, shrinkB=2))


architecture_names = []
for hidden in architectures:
    widths = [784, *hidden, 0]
    architecture_names.append(benchmark.architecture_name({"widths": widths}))
network_lines = [
    f"{len(architectures)} architectures",
    *architecture_names[:6],
    "",
    f"{len(strategies)} strategies",
    ", ".join(strategies[:3]),
    "",
    f"{seeds} seeds × {len(checkpoints)} epochs",
]
similarity_lines = [
    "of activations:", "Procrustes, CKA, dCKA", "of weights: wCKA",
]
probe_counts = pd.Series(probe_names).map(kind_of_probe).value_counts()
agreement_lines = [f"on {len(probe_names)} probes:"]
for kind in figures.PROBE_COLORS:
    if kind in probe_counts:
        agreement_lines.append(f"{probe_counts[kind]} {kind}")

fig, axes = plt.subplots(figsize=(figures.WIDTH, 3.9))
axes.set(xlim=(-1, 101), ylim=(0, 56))
axes.axis("off")
draw_box(axes, (0, 4), (24, 48), "Networks", network_lines)
draw_box(axes, (32, 14), (17, 29), "Pairs",
         ["differ in", "one factor:", *benchmark.FACTORS])
draw_box(axes, (57, 30), (24, 22), "Similarity", similarity_lines,
         figures.MEASURE_COLORS["wcka"])
draw_box(axes, (57, 4), (24, 22), "Agreement", agreement_lines,
         figures.PROBE_COLORS["attacked"])
draw_box(axes, (89, 19), (11, 18), "r and ρ", ["over", "pairs and", "probes"])
draw_arrow(axes, (24, 28), (32, 28))
draw_arrow(axes, (49, 31), (57, 40))
draw_arrow(axes, (49, 25), (57, 16))
draw_arrow(axes, (81, 40), (89, 32))
draw_arrow(axes, (81, 16), (89, 24))
plt.show()

# %% [markdown]
# **Architectures.** The paper says "five" and lists, in garbled text, one hidden layer of 8 and
# four of 8 and of 32, some of them twice. We take one and four hidden layers of 8 and of 32, and two of 16.
#
# **Strategies.** Standard training, and training on images that an {term}`attack` makes of each minibatch: FGSM
# {cite}`goodfellow2014` and PGD {cite}`madry2019`. The paper does not say how strong; at the usual strength for MNIST
# narrow networks hardly learn, so we train at `train_eps`.
#
# **Seeds** set the initial weights only: all networks see the same images in the same order.
# Networks of one architecture and seed are one {term}`start`: they have the same weights before
# training, whatever their strategy. Starts of different architectures are drawn independently. (PyTorch draws the same numbers for
# one seed, so untrained networks with one and with four hidden layers of 32 would have a wCKA of {glue:text}`same-draw` instead of
# {glue:text}`own-draw`.)

# %% tags=["remove-cell"]
def untrained_similarity(draw_alike):
    """Mean wCKA of untrained networks with 1 and with 4 hidden layers of 32."""
    similarities = []
    for network_seed in range(20):
        networks = []
        for hidden in ([32], [32, 32, 32, 32]):
            architecture = {"factory": "mlp", "widths": [784, *hidden, 3]}
            torch_seed = network_seed
            if not draw_alike:
                torch_seed = populations.seed_of(architecture, network_seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch_seed)
                networks.append(populations.build(architecture))
        similarities.append(wcka.wcka(*networks))
    return np.mean(similarities)


say("same-draw", untrained_similarity(draw_alike=True))
say("own-draw", untrained_similarity(draw_alike=False))

# %%
settings = {
    "seeds": list(range(seed, seed + seeds)),
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
members, all_rows = benchmark.grid(
    models, probe_names, layer, probe_images, probing, scheduler=scheduler)
keep_grid(members, all_rows, PAPER_MEASURES)


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the networks and their accuracy"}
summaries.overview(members).style.format(precision=3)

# %% tags=["remove-cell"]
seconds = all_rows.attrs["seconds"]
last_members = members[members.epoch == max(checkpoints)]
has_learned = (members.accuracy >= learned) & ~members.collapsed
learned_models = members.model[has_learned]
# Architectures are chosen, and not drawn: errors are over starts of each.
architecture_of_start = dict(zip(members.start, members.architecture))


def rows_of(models_in):
    """Rows of the pairs of which both networks are among these models."""
    return all_rows[all_rows.a.isin(models_in) & all_rows.b.isin(models_in)]


table = rows_of(learned_models)  # what is judged
without_pairs = set(benchmark.FACTORS) - set(table.differs)
if without_pairs:
    raise ValueError(
        f"no pair of networks with an accuracy of {learned} differs in "
        f"{', '.join(sorted(without_pairs))}: train longer, or lower `learned`")
alive_rows = all_rows[~all_rows.collapsed]
say("n-networks", len(members), ",")
say("n-starts", members.start[has_learned].nunique(), ",")
say("n-pairs", len(table) // len(probe_names), ",")
say("n-rows", len(table), ",")
say("n-learned", has_learned.sum(), ",")
say("n-weak", (~has_learned & ~members.collapsed).sum(), ",")
say("n-collapsed", members.collapsed.sum(), ",")
say("n-probes", len(probe_names), ",")
say("n-last-collapsed", last_members.collapsed.sum(), ",")
say("learned-percent", 100 * learned, ".0f")


def share_of_weak(rows):
    """Share of the rows with a network that has not learned, and their share of
    the covariance of wCKA with agreement."""
    is_weak = ~(rows.a.isin(learned_models) & rows.b.isin(learned_models))
    products = rows.wcka - rows.wcka.mean()
    products = products * (rows.agreement - rows.agreement.mean())
    return {
        "of the rows": is_weak.mean(),
        "of the covariance": products[is_weak].sum() / products.sum(),
    }


weak_shares = {}
for factor, rows in alive_rows.groupby("differs", sort=False):
    weak_shares[factor] = share_of_weak(rows)
say("weak-rows-seed", 100 * weak_shares["seed"]["of the rows"], ".0f")
say("weak-covariance-seed",
    100 * weak_shares["seed"]["of the covariance"], ".0f")

# %% [markdown]
# That makes {glue:text}`n-networks` networks. Some **collapsed**: they predict one class for at least
# 95 % of the clean images ({glue:text}`n-collapsed` networks; {glue:text}`n-last-collapsed` of them at the last
# epoch). Others, mostly narrow and early, have not learned the task yet
# ({glue:text}`n-weak` networks with a clean accuracy below {glue:text}`learned-percent` %). The paper speaks of
# trained networks, and so do the {term}`verdicts <verdict>` of this chapter: a pair counts if **both networks have learned**
# ({glue:text}`n-learned` networks, {glue:text}`n-pairs` pairs).
#
# That choice matters. Pairs of networks that differ in the seed and of which one has not learned are
# {glue:text}`weak-rows-seed` % of those without a collapsed network, and carry {glue:text}`weak-covariance-seed` % of the covariance of wCKA with
# agreement, the numerator of Pearson's r.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show these shares for all factors"}
pd.DataFrame(weak_shares).style.format("{:.0%}")

# %% [markdown]
# ## Agreement
#
# The functional similarity of a pair is the share of images on which both predict the same class
# (paper, section 2.4), on {glue:text}`n-probes` {term}`probes <probe>`: the clean test images, 15 {term}`corruptions <corruption>` of MNIST-C
# {cite}`mu2019`, and five attacks: FGSM, Fast FGSM {cite}`wong2020`, PGD and TRADES {cite}`zhang2019`, which
# move a pixel by at most `eps`, and Gaussian noise of standard deviation `noise`.
#
# **Whose attack?** An attack needs the gradients of a network, a pair has two, and the paper
# does not say which it takes. We attack both: all images are moved once by the gradients of each
# network; both networks see both sets, and the agreement is the mean
# of the two shares. (The other reading, each network on the images made against itself, asks
# whether two networks are fooled in the same way. It is in the table of variants.)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the mean agreement by factor and probe", "figure": {"name": "fig-agreement", "caption": "Mean agreement of pairs of networks, by what they differ in and the probe they see."}, "image": {"alt": "Heat map with a row for each probe and a column for each factor; the cells hold the mean agreement of the pairs."}}
figures.agreement(table)
plt.show()

# %% [markdown]
# ## Similarity against agreement (figure 3)
#
# Each pair has four similarities. The measures of {term}`activations <activation>` ({term}`Procrustes`, {term}`CKA`, {term}`dCKA`) are
# probed with all clean test images, on the layer named by `layer`; wCKA takes the {term}`chains <chain>` of weights. (Probing them with the images that
# the agreement is counted on is the paper's other possible reading; see the variants.) So a pair has
# one similarity by each measure, and as many agreements as there are probes.

# %%
def compared(rows):
    """Correlations and leads by factor, of both kinds."""
    by_method = {}
    for method in ("pearson", "spearman"):
        by_method[method] = statistics.compare_by_factor(
            rows, PAPER_MEASURES, method=method, strata=architecture_of_start)
    return by_method


results = compared(table)
highest = statistics.ceilings(table)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-benchmark", "caption": "The paper's figure 3; columns are what the two networks differ in. Top: similarity by wCKA against agreement, one dot per pair and probe: clean (black), corrupted (orange), attacked (green). Middle and bottom: correlation of each measure with agreement (white dot), with the paper's 95 % interval, which takes all rows for independent (broad bar), and one for other starts and other probes (thin line). Marks compare each measure with wCKA, by the paper's test (upper line) and over starts and probes (lower line): + where wCKA is ahead, − where it is behind, * p < 0.05, ** p < 0.01, *** p < 0.001, n.s. otherwise. Dotted: the highest r that a similarity can have that knows nothing of the probe."}, "image": {"alt": "Three rows of four panels, one column each for epoch, seed, architecture and strategy. Top: scatter of agreement against wCKA. Middle: Pearson's r of four measures with narrow and wide intervals and marks of significance. Bottom: Spearman's rho in the same way."}}
figures.benchmark(table, results, highest)
with figures.many_marks():
    plt.show()

# %% [markdown]
# {glue:text}`leads-r` {glue:text}`leads-rho` These are {glue:text}`n-comparisons` tests at the 5 % level, over starts and
# probes, corrected for their number by Holm's method, separately for r and ρ.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show all correlations and leads with their intervals"}
leads.table(results).style

# %% tags=["remove-cell"]
pearson = results["pearson"]
spearman = results["spearman"]
activation_measures = list(ACTIVATION_MEASURES)
later_factors = benchmark.FACTORS[1:]  # all but the epoch
correlations = pd.concat(results)
comparisons = correlations.loc[
    (slice(None), slice(None), activation_measures), :]
# Zou's test is an interval of the difference; it is significant without zero.
zou_significant = (comparisons["Zou low"] > 0) | (comparisons["Zou high"] < 0)
say("n-comparisons", len(comparisons), "d")
say("paper-significant", (comparisons["p Fisher"] < 0.05).sum(), "d")
say("steiger-significant", (comparisons["p Steiger"] < 0.05).sum(), "d")
say("meng-significant", (comparisons["p Meng"] < 0.05).sum(), "d")
say("zou-significant", zou_significant.sum(), "d")
say("model-significant", (comparisons["p model"] < 0.05).sum(), "d")
glue("leads-r", leads.lead_sentence(pearson, "Pearson's r of wCKA"),
     display=False)
glue("leads-rho", leads.lead_sentence(spearman, "Spearman's ρ of wCKA"),
     display=False)
for factor in benchmark.FACTORS:
    say(f"ceiling-{factor}", highest[factor], ".2f")
widths_over_starts = correlations["model high"] - correlations["model low"]
widths_over_rows = correlations["high"] - correlations["low"]
say("wider", (widths_over_starts / widths_over_rows).median(), ".0f")
# With all rows on one probe, errors are over starts alone.
of_starts = statistics.compare_by_factor(
    table.assign(probe="any"), PAPER_MEASURES, strata=architecture_of_start)
variance_shares = of_starts["model error"]**2 / pearson["model error"]**2
say("starts-percent", 100 * variance_shares.median(), ".0f")

# %% [markdown]
# ## How certain is that?
#
# The paper takes Fisher's $z = \operatorname{atanh} r$ with standard error $1/\sqrt{n-3}$, where $n$ is
# "the sample size", presumably the number of rows (for ρ we take the error of {cite:t}`bonett2000`). That would be right for
# independent rows. Ours are not: {glue:text}`n-rows` rows come from {glue:text}`n-pairs` pairs, and these from {glue:text}`n-starts`
# starts. One odd start is in thousands of rows, and so is one odd probe. So next to the
# paper's intervals stand ones that speak for other starts *and* other probes: a {term}`jackknife` leaves out a whole
# start at a time, another one a whole probe, and the two variances are added, minus that of
# their interaction {cite}`schuett2023`. Architectures are chosen, and not drawn: when a
# start is left out, the others of its architecture count for it {cite}`jones1974`. The intervals are wider than the
# paper's, by a factor of {glue:text}`wider` in the median. Starts alone make {glue:text}`starts-percent` % of the variance of a lead in
# r, in the median; the rest is of the {glue:text}`n-probes` probes, and no number of seeds would take it away.
#
# With the paper's test, {glue:text}`paper-significant` of the {glue:text}`n-comparisons` differences are
# significant. That test also takes the two correlations for independent, though both are with
# the same agreement. Tests that allow for this, but still count rows, find {glue:text}`steiger-significant`
# {cite}`steiger1980`, {glue:text}`meng-significant` {cite}`meng1992` and {glue:text}`zou-significant` {cite}`zou2007`. Over starts and
# probes {glue:text}`model-significant` are left. These counts, like the marks of the figure, are of single tests: Holm's method comes on top.
#
# A simulation in which the truth is known tests the intervals. It draws grids of
# the same design, with variances of starts, networks, probes, pairs and noise that are estimated from the table
# itself, and counts how often a 95 % interval of wCKA's r holds the truth.

# %% tags=["hide-output"] mystnb={"code_prompt_show": "Show the table of coverage"}
simulated = coverage.simulate(table, members, draws=200, seed=seed)
simulated.style.format("{:.1%}")

# %% tags=["remove-cell"]
say("naive-coverage", 100 * simulated.coverage.iloc[0], ".0f")
say("model-coverage", 100 * simulated.coverage.iloc[1], ".0f")

# %% [markdown]
# Of intervals that promise 95 %, those that count rows keep {glue:text}`naive-coverage` %, those over
# starts and probes {glue:text}`model-coverage` %. They speak for other starts of these architectures and
# strategies and for other probes like these, not for other architectures or data.
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
measure_columns = dict(zip(PAPER_MEASURES, PAPER_MEASURES))
by_kind = {}
for kind, rows in table.groupby("kind"):
    by_kind[kind] = statistics.r_by_factor(rows, measure_columns)
figures.by_kind(by_kind)
plt.show()

# %% [markdown]
# wCKA tells networks that were trained on attacked images from those that were not, and on attacked
# images these two sorts disagree: there its r for strategy is {glue:text}`kind-attacked-wcka` (CKA
# {glue:text}`kind-attacked-cka`). On clean images the two sorts agree, whatever the weights say:
# {glue:text}`kind-clean-wcka` (CKA {glue:text}`kind-clean-cka`).

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show pairs of different strategy by their two strategies"}
strategy_table = summaries.strategy_table(members, table)
strategy_table.rename(columns=MEASURE_LABELS).style.format("{:.2f}")

# %% tags=["remove-cell"]
for kind in ("clean", "attacked"):
    for measure in ("wcka", "cka"):
        r = np.nan
        if kind in by_kind:
            r = by_kind[kind].loc[measure, "strategy"]
        say(f"kind-{kind}-{measure}", r, ".2f")

# %% [markdown]
# ## The other reading, and two baselines
#
# **The same images.** Activation measures can be probed with images of the kind that the agreement is counted on: the paper's other
# possible reading, and the fairer match for them. Under an attack each network sees the images made against it, and here the agreement
# is counted on these too.
#
# **Accuracy.** One baseline is minus the gap between the two accuracies on clean images.
#
# **Agreement itself.** The other baseline is the pair's agreement on clean images. So that this is no tautology, all are compared on
# the other probes only.

# %%
on_probe = [f"{measure}, on the probe" for measure in activation_measures]
not_clean = table[table.kind != "clean"].dropna(subset=on_probe)
readings = statistics.compare_by_factor(
    not_clean, [*on_probe, "accuracy gap", "clean agreement", "wcka"],
    "agreement, own attack", strata=architecture_of_start)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-readings", "caption": "Pearson's r with agreement on all probes but the clean one, drawn as in the middle row of figure 3 above: activation measures probed with images of the kind that the agreement is counted on; two baselines, minus the gap in clean accuracy and the agreement on clean images; and wCKA."}, "image": {"alt": "Four panels, one a factor: correlations of Procrustes, CKA and dCKA on the probe itself, of the gap in accuracy, of the agreement on clean images and of wCKA, with intervals and marks."}}
figures.readings(readings)
plt.show()

# %% tags=["remove-cell"]
procrustes_on_probe = "procrustes, on the probe"
reading_columns = {
    "procrustes": procrustes_on_probe,
    "cka": "cka, on the probe",
    "wcka": "wcka",
}
for factor in ("seed", "strategy"):
    for name, column in reading_columns.items():
        r = readings.loc[(factor, column), "r"]
        say(f"reading-{factor}-{name}", r, ".2f")
rivals = {
    "procrustes": (procrustes_on_probe, "Procrustes on the probe"),
    "gap": ("accuracy gap", "The gap in accuracy"),
    "clean": ("clean agreement", "Agreement on clean images"),
}
for name, (rival, label) in rivals.items():
    sentence = leads.rival_sentence(readings, rival, label)
    glue(f"rival-{name}", sentence, display=False)

# %% [markdown]
# For strategy, Procrustes on the probe itself reaches {glue:text}`reading-strategy-procrustes` and CKA
# {glue:text}`reading-strategy-cka`, against {glue:text}`reading-strategy-wcka` for wCKA, which does not
# see the probe; for seed it is {glue:text}`reading-seed-procrustes`, {glue:text}`reading-seed-cka` and
# {glue:text}`reading-seed-wcka`. {glue:text}`rival-procrustes`
#
# {glue:text}`rival-gap` {glue:text}`rival-clean` Before anyone uses a similarity to predict agreement on other
# images, it should be compared with these two baselines. Neither is a rival where there are no images at all.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show all measures, pair by pair", "figure": {"name": "fig-scatter", "caption": "Similarity against agreement for each measure (rows) and factor (columns), one dot per pair and probe: clean (black), corrupted (orange), attacked (green)."}, "image": {"alt": "Sixteen scatter plots of agreement against similarity: rows are Procrustes, CKA, dCKA and wCKA, columns epoch, seed, architecture and strategy; dots coloured by kind of probe."}}
figures.scatters(table, PAPER_MEASURES)
with figures.many_marks():
    plt.show()

# %% [markdown]
# ## Which choices matter?
#
# Pearson's r again, with one choice changed at a time. The first four rows are those of
# {numref}`fig-benchmark`.

# %% tags=["hide-input"]
sensitivity, sensitivity_leads = variants(
    models, members, all_rows, layer, probe_images, probing, learned,
    architecture_of_start)
figures.choice_table(sensitivity)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show wCKA's lead over the strongest of the other three, with intervals"}
lead_texts = {}
for (choice, factor), lead in sensitivity_leads.iterrows():
    text = with_interval(lead, "+.2f")
    lead_texts.setdefault(factor, {})[choice] = (
        f"{text}, {MEASURE_LABELS[lead.rival]}")
pd.DataFrame(lead_texts).reindex(
    sensitivity_leads.index.unique(0)).fillna("–").rename_axis(None)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show r with other architectures, corruptions, attacks and scales"}
few_attacked = {**probing, "attacked": probe_images // 2}
# The default of the library torchattacks, and what is usual for MNIST
strengths = [8 / 255, 0.3]
open_r, open_leads = open_choices(
    models, members, table, layer, probe_images, few_attacked, strengths,
    architecture_of_start)
figures.choice_table(open_r)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show r of some networks that are trained otherwise, if vary_training is set"}
TRAININGS = {
    "batches of four times the size": {"batch_size": 4 * batch_size},
    "three times the learning rate": {"learning_rate": 3e-3},
    "trained on attacks of twice the strength": {"eps": 2 * train_eps},
}


def trained_otherwise():
    """r and leads of few networks that train fast, on each fourth probe."""
    some_models = []
    for model in models:
        hidden = model["architecture"]["widths"][1:-1]
        if hidden in architectures[1:3] and model["strategy"] in strategies[:2]:
            some_models.append(model)
    return other_trainings(
        some_models, TRAININGS, probe_names[::4], layer, probe_images,
        {**few_attacked, "images": probe_images}, learned,
        architecture_of_start)


training_table = "not in this run: set vary_training"
if vary_training:
    training_r, training_leads = trained_otherwise()
    training_table = figures.choice_table(training_r)
training_table

# %% tags=["remove-cell"]
few = f"{probe_images} images"
variant_rows = {
    "collapsed": "collapsed networks too",
    "alive": "all that have not collapsed",
    "learned": "as above",
    "kinds": "each kind of pair's mean taken away",
}
for name, variant in variant_rows.items():
    for measure in ("procrustes", "wcka"):
        r = sensitivity.loc[(variant, measure), "seed"]
        say(f"{name}-{measure}", r, ".2f")
    best = sensitivity.loc[variant].dropna(axis=1).idxmax().map(MEASURE_LABELS)
    best_texts = []
    for measure, factors in best.groupby(best, sort=False).groups.items():
        best_texts.append(f"{measure} (for {listed(factors)})")
    best_text = listed(best_texts) or "no measure (there are no pairs)"
    glue(f"{name}-best", best_text, display=False)
as_above = sensitivity.loc["as above"]
few_changes = sensitivity.loc[f"clean, {few}"] - as_above.drop("wcka")
few_move = sentences.bound(few_changes.abs().max().max(), ".2f")
glue("few-move", few_move, display=False)


def mean_lead(leads_of_choices):
    """Mean over factors of wCKA's lead, by choice."""
    return leads_of_choices.value.astype(float).groupby(level=0).mean()


def say_changes(name, r, leads_of_choices, choices):
    """Keep how far choices move r and the mean over factors of wCKA's lead.

    Changes of r are over choices, measures and factors; the lead is that over
    the strongest of the other measures.
    """
    if not choices:
        return
    changes = pd.concat(
        [r.loc[choice] - r.loc["as above"] for choice in choices])
    mean_leads = mean_lead(leads_of_choices).reindex(choices)
    say(f"{name}-low", changes.min().min(), "+z.2f")
    say(f"{name}-high", changes.max().max(), "+z.2f")
    say(f"{name}-lead-low", mean_leads.min(), "+z.2f")
    say(f"{name}-lead-high", mean_leads.max(), "+z.2f")


other_layers = []
for name in benchmark.LAYERS:
    if name != layer:
        other_layers.append(f"{name}, {few}")
changed_choices = {
    "wang": ["rows normalised"],
    "bias": ["with biases"],
    "uncentred": ["uncentred"],
    "psd": [f"no PSD step, {few}"],
    "own": ["each under its own attack"],
    "last": ["last epoch only"],
    "choice-layers": other_layers,
}
for name, choices in changed_choices.items():
    say_changes(name, sensitivity, sensitivity_leads, choices)

attacked_anew = []
left_out = []
for choice in open_r.index.unique(0):
    if choice.startswith("attacks"):
        attacked_anew.append(choice)
    if choice.startswith("without"):
        left_out.append(choice)
open_names = {
    "architectures": left_out,
    "anew": ["corruptions and noise drawn anew"],
    "not-scaled": ["Procrustes, not scaled"],
    "printed": ["Procrustes, as printed"],
}
for name, choices in open_names.items():
    say_changes(name, open_r, open_leads, choices)
eps_names = ("eps-weak", "eps-strong")
for name, choice in zip(eps_names, attacked_anew):
    say_changes(name, open_r, open_leads, [choice])
for name, strength in zip(eps_names, strengths):
    say(name, strength, ".2g")
of_all = mean_lead(sensitivity_leads).get("as above", np.nan)
say("lead", of_all, "+.2f")
if vary_training:
    of_some = mean_lead(training_leads).get("as above", np.nan)
    say("few-trained-lead", of_some, "+.2f")
    for name, choice in zip(("batch", "rate", "train-eps"), TRAININGS):
        say_changes(name, training_r, training_leads, [choice])

# %% [markdown]
# - **Networks that failed** decide much. With collapsed networks, r for seed is
#   {glue:text}`collapsed-procrustes` by Procrustes and {glue:text}`collapsed-wcka` by wCKA; among all that have not
#   collapsed {glue:text}`alive-procrustes` and {glue:text}`alive-wcka`; among those that have learned
#   {glue:text}`learned-procrustes` and {glue:text}`learned-wcka`. The highest r is, with collapsed
#   networks, that of {glue:text}`collapsed-best`; among all that have not collapsed, that of {glue:text}`alive-best`; among those that
#   have learned, that of {glue:text}`learned-best`. The paper does not say which networks were in its grid.
# - **Each kind of pair's mean taken away.** Pairs of the same architectures, strategies and epochs on
#   one probe are one kind. What is left is whether a measure knows *which seeds* behave similarly:
#   for pairs that differ in the seed Procrustes {glue:text}`kinds-procrustes`, wCKA
#   {glue:text}`kinds-wcka`. The highest r is that of {glue:text}`kinds-best`.
# - **The number of images**: with `probe_images` clean images no r moves by more than {glue:text}`few-move`. What changes r "on the
#   probe" is therefore the probe.
# - **dCKA without the** {term}`PSD step`: r changes by {glue:text}`psd-low` to {glue:text}`psd-high`. **Rows normalised**, as in {cite:t}`wang2022`: wCKA's r
#   changes by {glue:text}`wang-low` to {glue:text}`wang-high`. **With biases**: {glue:text}`bias-low` to {glue:text}`bias-high`.
# - **Further choices that the paper leaves open** are in the two folded tables above, and beside each other in the
#   {doc}`reproduction report <../book/report>`.

# %% [markdown]
# ## All pairs
#
# So far pairs differed in one factor. Here are all pairs of the networks at the last epoch that have learned,
# whatever they differ in.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-pairs", "caption": "All pairs of networks at the last epoch, ordered by architecture, then strategy, then seed: agreement (mean over the clean, corrupted and noisy images, which all networks share), and similarity by each measure. Lines part the architectures. White bands: networks that have not learned."}, "image": {"alt": "Five square heat maps with a row and a column for each network: agreement, Procrustes, CKA, dCKA and wCKA, with lines between the architectures."}}
square = benchmark.all_pairs(
    models, max(checkpoints), probe_names, layer, probing)
networks = last_members.index.to_numpy()
position = pd.Series(np.arange(len(networks)), index=networks)
columns = ["agreement", *PAPER_MEASURES]


def pairs_at_last_epoch(models_in):
    """Networks of these models at the last epoch, and all of their pairs."""
    among = last_members.index[last_members.model.isin(models_in)]
    pairs = square[square.a.isin(among) & square.b.isin(among)]
    return among, pairs.dropna()


alive, live_pairs = pairs_at_last_epoch(learned_models)


def matrix(column):
    """Square table of one column of all pairs; NaN for networks not learned."""
    values = np.full((len(networks), len(networks)), np.nan)
    i = position[square.a]
    j = position[square.b]
    values[i, j] = square[column]
    values[j, i] = square[column]
    np.fill_diagonal(values, 1)
    left_out = ~has_learned[last_members.index].to_numpy()
    values[left_out] = np.nan
    values[:, left_out] = np.nan
    return values


fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5.4))
block = len(strategies) * seeds  # networks of one architecture
block_edges = np.arange(block, len(networks), block) - 0.5
block_centers = np.arange(len(architectures)) * block + block / 2 - 0.5
line_style = {"color": figures.MEASURE_COLORS["wcka"], "lw": 0.8}
color_scales = {}  # two: agreement has its own
for axes, column in zip(panels.flat, columns):
    if column == "agreement":
        title = column
        scale_label = "mean agreement"
        lowest = live_pairs.agreement.min()
    else:
        title = MEASURE_LABELS[column]
        scale_label = "similarity"
        lowest = 0
    image = axes.imshow(matrix(column), cmap="cividis", vmin=lowest, vmax=1,
                        interpolation="nearest")
    color_scales[scale_label] = image
    axes.set_title(title)
    for edge in block_edges:
        axes.axhline(edge, **line_style)
        axes.axvline(edge, **line_style)
    axes.set(xticks=[], yticks=block_centers)
    tick_labels = architecture_names if axes in panels[:, 0] else []
    axes.set_yticklabels(tick_labels, fontsize=9)
    axes.tick_params(length=0)
# The sixth panel holds the two colour scales.
panels[1, 2].axis("off")
for i, (label, image) in enumerate(color_scales.items()):
    bar = panels[1, 2].inset_axes([0.05, 0.75 - 0.5 * i, 0.9, 0.08])
    fig.colorbar(image, cax=bar, orientation="horizontal", label=label)
with figures.many_marks():
    plt.show()

# %% [markdown]
# Over all pairs wCKA's r is {glue:text}`all-wcka`; that of Procrustes is {glue:text}`all-procrustes`, of CKA
# {glue:text}`all-cka` and of dCKA {glue:text}`all-dcka`. The picture shows why: where networks trained on attacked
# images behave apart from those trained on clean ones, whatever their architecture, wCKA separates the two
# kinds more clearly than the other measures. Without the one network that moves wCKA's r most ({glue:text}`all-odd`) the four are
# {glue:text}`all-wcka-without`, {glue:text}`all-procrustes-without`, {glue:text}`all-cka-without` and {glue:text}`all-dcka-without`.
#
# Among pairs of one architecture and strategy, each kind's mean taken away, they are {glue:text}`like-wcka`,
# {glue:text}`like-procrustes`, {glue:text}`like-cka` and {glue:text}`like-dcka`: that asks whether a measure tells *which seeds* behave
# similarly. For such tables Mantel's test {cite}`mantel1967` gives p-values: permute the networks of one table, and see how often chance alone
# gives as high an r.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show r over all pairs, with intervals and Mantel's test"}
number = pd.Series(np.arange(len(alive)), index=alive)
kind_of_network = last_members.architecture + ", " + last_members.strategy


def among_one_kind(pairs):
    """Pairs of one architecture and strategy, each kind's mean taken away."""
    kind_a = pairs.a.map(kind_of_network)
    kind_b = pairs.b.map(kind_of_network)
    within = pairs[kind_a == kind_b]
    return statistics.demeaned(
        within, columns, within.a.map(kind_of_network))


pairs_of_one_kind = among_one_kind(live_pairs)


def leave_one_out(rows):
    """r with agreement without one network: one row per measure."""
    correlations = {}
    for network in alive:
        remaining = rows[(rows.a != network) & (rows.b != network)]
        r = remaining[columns].corr().agreement
        correlations[network] = r[1:]  # that of agreement with itself is 1
    return pd.DataFrame(correlations)  # (measures, networks)


def association(rows, without, strata=None):
    """r with agreement, its interval, Mantel's p and r without one network.

    One row per measure, as text; `without` is that of ``leave_one_out``.
    """
    by_measure = statistics.compare_measures(
        members.start[rows.a], members.start[rows.b], rows.agreement,
        rows[list(PAPER_MEASURES)], strata=architecture_of_start)
    cells = []
    for measure, result in by_measure.iterrows():
        p = statistics.mantel_test(
            rows.a.map(number), rows.b.map(number), rows.agreement,
            rows[measure], strata, seed=seed)
        lowest_r = without.loc[measure].min()
        highest_r = without.loc[measure].max()
        cells.append({
            "r": interval(result.r, result["model low"], result["model high"]),
            "Mantel's p": f"{p:.3f}",
            "without one": f"{lowest_r:.2f} to {highest_r:.2f}",
        })
    return pd.DataFrame(cells, index=by_measure.index).rename(MEASURE_LABELS)


without_all = leave_one_out(live_pairs)
without_like = leave_one_out(pairs_of_one_kind)
among_all = association(live_pairs, without_all)
among_like = association(
    pairs_of_one_kind, without_like, kind_of_network[alive].to_numpy())
pd.concat({"all pairs": among_all, "pairs of one kind": among_like},
          axis=1).rename_axis(None).style

# %% tags=["remove-cell"]
for name, rows, without in (("all", live_pairs, without_all),
                            ("like", pairs_of_one_kind, without_like)):
    r = rows[columns].corr().agreement
    # The network whose absence moves wCKA's r most.
    odd = (without.loc["wcka"] - r["wcka"]).abs().idxmax()
    glue(f"{name}-odd", members.model[odd], display=False)
    for measure in PAPER_MEASURES:
        say(f"{name}-{measure}", r[measure], ".2f")
        say(f"{name}-{measure}-without", without.loc[measure, odd], ".2f")

# %% [markdown]
# ## Layer by layer
#
# The chains up to each layer are representations of that layer. For the deepest architecture at the last epoch, corresponding layers of two seeds score
# {glue:text}`layers-cka-seeds-low` to {glue:text}`layers-cka-seeds-high` by CKA of activations and {glue:text}`layers-wcka-seeds-low` to
# {glue:text}`layers-wcka-seeds-high` by wCKA; between strategies {glue:text}`layers-cka-strategies-low` to
# {glue:text}`layers-cka-strategies-high` and {glue:text}`layers-wcka-strategies-low` to {glue:text}`layers-wcka-strategies-high`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show every layer against every layer", "figure": {"name": "fig-layers", "caption": "Similarity of each layer (rows) with each layer (columns): within one network, between two networks of different seed, and between the first and the last strategy. Top: CKA of activations on clean test images. Bottom: wCKA of the chains up to that layer. The last layer is the logits."}, "image": {"alt": "Six heat maps in two rows, CKA of activations above and wCKA of chains below: layers within a network, between seeds, and between strategies."}}
def depth_and_units(hidden):
    """Number of hidden layers, and of units in all of them."""
    return len(hidden), sum(hidden)


deepest = max(architectures, key=depth_and_units)
maps = summaries.by_layer(models, deepest, (strategies[0], strategies[-1]),
                          max(checkpoints), probing)
figures.layers(maps)
plt.show()

# %% tags=["remove-cell"]
for measure in ("cka", "wcka"):
    for name in ("seeds", "strategies"):
        diagonal = maps[measure][f"between {name}"].mean(0).diagonal()
        say(f"layers-{measure}-{name}-low", diagonal.min(), ".2f")
        say(f"layers-{measure}-{name}-high", diagonal.max(), ".2f")

# %% tags=["hide-cell", "timing"] mystnb={"code_prompt_show": "Show where the time goes"}
chain_seconds = benchmark.chain_similarities(models).attrs["seconds"]
pd.Series({
    "training": seconds["training"],
    "activations on probes, and dCKA": seconds["probes"],
    "attacks, and predictions on them": seconds["attacks"],
    "wCKA and its variants": chain_seconds,
}, name="seconds, added over processes").to_frame().style.format("{:.1f}")

# %% [markdown]
# ## What is judged in this chapter
#
# Each sentence is judged by its rule ([the rules](../book/rules)) from the numbers that stand beside it: leads of
# wCKA's correlation over the others', with 95 % intervals over starts and probes. Linearity compares how much of the
# variance of a pair's mean agreement a line explains, fitted to the pairs of all other starts.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the shares of the variance that a line explains, and a rising curve"}
def design_of(rows):
    """Starts and probes of rows, and the architectures of the starts."""
    return crossed.Design(rows["start a"], rows["start b"], rows["probe"],
                          architecture_of_start)


def lines_by_factor(rows):
    """By factor, the shares that lines explain, and wCKA's leads in them."""
    of_factors = {}
    for factor, of_factor in rows.groupby("differs", sort=False):
        of_factors[factor] = crossed.line_shares(
            design_of(of_factor), of_factor.agreement,
            of_factor[list(PAPER_MEASURES)], "wcka")
    return of_factors


line_rows = {}
lines_of_table = lines_by_factor(table)
for factor, rows in table.groupby("differs", sort=False):
    lines, _ = lines_of_table[factor]
    curves = crossed.curve_shares(
        design_of(rows), rows.agreement, rows[list(PAPER_MEASURES)])
    for measure in PAPER_MEASURES:
        label = MEASURE_LABELS[measure]
        line_rows.setdefault(("line", label), {})[factor] = lines[measure].value
        line_rows.setdefault(("curve", label), {})[factor] = curves[measure]
line_table = pd.DataFrame(line_rows).T.loc[["line", "curve"]]
line_table.style.format("{:.0%}")

# %% tags=["hide-input"]
def lead_parts(rows, factor=""):
    """Parts of a finding: wCKA's leads over the other measures."""
    parts = []
    for measure, row in rows.drop("wcka").iterrows():
        label = MEASURE_LABELS[measure]
        if factor:
            label = f"{label} ({factor})"
        parts.append(rules.Part(
            label, row.difference, row["model error"], row["model df"]))
    return parts


def parts_of(leads, name):
    """Parts of a finding: leads by measure, as crossed gives them."""
    parts = []
    for measure, lead in leads.items():
        parts.append(rules.Part(f"{MEASURE_LABELS[measure]} ({name})", *lead))
    return parts


def strategies_found(rows):
    """Parts of a finding: which measures find a similarity of strategies."""
    design = design_of(rows)
    parts = []
    for measure in PAPER_MEASURES:
        z = crossed.correlations(
            design, rows.agreement, rows[[measure]], None)[0][measure]
        rule = "higher" if measure == "wcka" else "small"
        parts.append(rules.Part(MEASURE_LABELS[measure], *z, rule))
    return parts


def findings_among(models_in, by_method, of_lines, simulated,
                   on_probe_text=""):
    """Findings on all statements, from the pairs of these models.

    `by_method` and `of_lines` are what ``compared`` and ``lines_by_factor``
    give for their rows.
    """
    rows = rows_of(models_in)
    epoch_parts = []
    factor_parts = {}
    for method, by_factor in by_method.items():
        epoch_parts += lead_parts(by_factor.loc["epoch"], method)
        factor_parts[method] = []
        for factor in later_factors:
            factor_parts[method] += lead_parts(by_factor.loc[factor], factor)
    _, pairs = pairs_at_last_epoch(models_in)
    all_pair_parts = []
    for name, rows_of_name in (("all pairs", pairs),
                               ("pairs of one kind", among_one_kind(pairs))):
        design = crossed.Design(
            members.start[rows_of_name.a], members.start[rows_of_name.b],
            strata=architecture_of_start)
        _, leads_of_name = crossed.correlations(
            design, rows_of_name.agreement,
            rows_of_name[list(PAPER_MEASURES)], "wcka")
        all_pair_parts += parts_of(leads_of_name, name)
    linear_parts = []
    for factor, (_, leads_of_lines) in of_lines.items():
        linear_parts += parts_of(leads_of_lines, factor)
    return {
        "fisher": rules.Finding(
            [rules.Part("coverage short of 95 % by",
                        0.95 - simulated.coverage.iloc[0],
                        simulated.error.iloc[0])],
            "over starts and probes they hold the truth in "
            f"{sentences.percent(simulated.coverage.iloc[1], 0)} of simulated "
            "grids"),
        "more-accurate": rules.Finding(all_pair_parts),
        "epochs-alike": rules.Finding(epoch_parts),
        "stronger-pearson": rules.Finding(factor_parts["pearson"]),
        "higher-spearman": rules.Finding(factor_parts["spearman"]),
        "strategies": rules.Finding(
            strategies_found(rows[rows.differs == "strategy"]), on_probe_text),
        "linear": rules.Finding(linear_parts),
    }


on_probe_row = f"on the probe, {few}"
on_probe_texts = []
for measure, r in sensitivity.loc[on_probe_row, "strategy"].items():
    on_probe_texts.append(f"{MEASURE_LABELS[measure]} {r:.2f}")
findings = findings_among(
    learned_models, results, lines_of_table, simulated,
    "measured on the probe itself the others find: "
    + ", ".join(on_probe_texts))


def are_enough(models_in):
    """Whether each factor has three starts, and some kind three networks."""
    starts = summaries.start_counts(rows_of(models_in))
    at_last = last_members[last_members.model.isin(models_in)]
    largest_kind = kind_of_network[at_last.index].value_counts().max()
    return min(starts.values()) >= 3 and largest_kind >= 3


# The same with other limits from which networks count as having learned
findings_at = {}
for limit in other_limits:
    at_limit = members.model[(members.accuracy >= limit) & ~members.collapsed]
    if are_enough(at_limit):
        rows = rows_of(at_limit)
        simulated_there = coverage.simulate(rows, members, draws=50, seed=seed)
        findings_at[limit] = findings_among(
            at_limit, compared(rows), lines_by_factor(rows), simulated_there)
chapter_claims = rules.judge("03", findings)
claims.show(chapter_claims, findings_at)

# %% tags=["remove-cell"]
SENTENCES = {
    "fisher": {
        "holds": "Intervals from the number of pairs hold the truth as often "
                 "as they promise.",
        "partly": "Intervals from the number of pairs hold the truth less "
                  "often than they promise in some cases.",
        "fails": "Intervals from the number of pairs hold the truth far less "
                 "often than they promise, since pairs share networks.",
        "cannot be told": "Whether intervals from the number of pairs hold "
                          "the truth often enough is open.",
    },
    "more-accurate": {
        "holds": "Over all pairs of the last epoch, and over those of one "
                 "kind, it has the highest correlation.",
        "partly": "Over all pairs of the last epoch it is ahead of some "
                  "measures and not of others.",
        "fails": "Over all pairs of the last epoch it is not noticeably "
                 "ahead.",
        "cannot be told": "Whether it is ahead over all pairs of the last "
                          "epoch, and over those of one kind, is open.",
    },
    "stronger-pearson": {
        "holds": "wCKA follows agreement more closely than each other "
                 "measure, whether pairs differ in seed, architecture or "
                 "strategy.",
        "partly": "wCKA follows agreement more closely than the other "
                  "measures for some factors and not for others.",
        "fails": "wCKA does not follow agreement noticeably more closely than "
                 "the other measures.",
        "cannot be told": "Whether wCKA follows agreement more closely than "
                          "the other measures is open.",
    },
    "linear": {
        "holds": "A line in wCKA explains more of agreement than a line in "
                 "any other measure.",
        "partly": "A line in wCKA explains more of agreement than lines in "
                  "other measures for some factors only.",
        "fails": "A line in wCKA does not explain noticeably more of "
                 "agreement than lines in the others.",
        "cannot be told": "Whether a line in wCKA explains more of agreement "
                          "than lines in the others is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)

# %% [markdown]
# ## Exercises
#
# 1. The limit from which a network counts as having learned is a choice. How many networks, and which r of wCKA by factor, are left with a limit of
#    98 %? The whole chapter with that limit: `python -m wcka run 03 -p learned 0.98`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
strict = members.model[(members.accuracy >= 0.98) & ~members.collapsed]
strict_rows = rows_of(strict)
print(f"{len(strict)} networks")
for factor, rows in strict_rows.groupby("differs", sort=False):
    print(f"{factor}: {rows.wcka.corr(rows.agreement):.2f}")

# %% [markdown]
# 2. Agreement has a part that belongs to the two accuracies: networks that are right on nearly all images must agree. Does wCKA's r survive if the gap in
#    accuracy is held fixed, by a partial correlation? On other images: `python -m wcka run 03 -p dataset fashion -p learned 0.9`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
for factor, rows in table.groupby("differs", sort=False):
    r = rows[["wcka", "agreement", "accuracy gap"]].corr()
    with_gap = r.loc[["wcka", "agreement"], "accuracy gap"]
    partial = r.loc["wcka", "agreement"] - with_gap.prod()
    partial /= np.sqrt((1 - with_gap**2).prod())
    plain = r.loc["wcka", "agreement"]
    print(f"{factor}: r {plain:.2f}, partial {partial:.2f}")

# %% [markdown]
# ## To take away
#
# - {glue:text}`take-stronger-pearson` {glue:text}`take-linear`
# - {glue:text}`take-fisher` Count the networks that were started, and leave those out in turn.
# - Say which networks were in: a few that failed to learn can decide a correlation.
# - Before trusting a similarity to predict agreement, compare it with the gap in accuracy and with the
#   agreement on clean images.
