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
# # New heads on an old trunk
#
# ```{admonition} In one paragraph
# :class: tip
# The paper trains new heads behind one frozen trunk and explains by the trunk what it sees. Here the grid of heads stands behind
# {glue:text}`n-trunks` trunks, beside a control that has none. {glue:text}`take-consistently-higher`
# {glue:text}`take-trunk-imposes` {glue:text}`take-less-affected`
# ```
#
# Most networks in use were not trained from scratch. Someone took a trained network, kept its first layers
# as they were (the {term}`trunk`), and trained new last layers (the {term}`head`) for a task of their own. The paper
# (section 3.3, figure 4) asks whether {term}`wCKA`, computed from the heads alone, still tells which
# networks behave similarly. It finds that training strategy now upsets no measure as much as it did
# before, explains this by the frozen trunk, and again sees wCKA ahead.
#
# The benchmark, its intervals and its tests are those of the [chapter before](03-functional). Two things are
# new. The paper has one trunk, so what it finds may be true of that trunk alone: here there are
# several. And its explanation is tested, by a control without any trunk.
#
# After this chapter you can
#
# - say what wCKA compares when networks share a frozen trunk, and what it does not see;
# - say how much of a result belongs to one trunk, and what limits all measures;
# - say what a frozen trunk does to similarity and agreement, and what it does not explain.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
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
    cached,
    crossed,
    frozen,
    gated_chains,
    jobs,
    pretrained,
    several_trunks,
    statistics,
    summaries,
    variants,
)
from wcka.measures import (
    ACTIVATION_MEASURES,
    MEASURE_LABELS,
    PAPER_MEASURES,
    compare,
)
from wcka.measures.spelling import listed
from wcka.networks import (
    BY_GRADIENT,
    Transfer,
    expand_probes,
    extract,
    image_sets,
    resolve_device,
)

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 04 -p dataset fashion -p trunks 3`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
# convolutional networks whose first layers become trunks, each with a grid of
# heads
trunks: int = 2
# passes of each of them through its training images, at most
trunk_epochs: int = 3
# it stops after so many epochs without a better validation accuracy
patience: int = 3
trunk_images: int = 24000  # training images of a trunk
# those among them that are held out to judge it by
validation_images: int = 4000
classes: list[int] = [0, 1, 2]  # the classes that the heads tell apart
# widths of the hidden layers of each head
heads: list[list[int]] = [
    [32], [1024], [32, 32, 32, 32, 32, 32, 32, 32, 32, 32],
]
# those heads that are also trained on pixels, without a trunk
control: list[list[int]] = [
    [32], [32, 32, 32, 32, 32, 32, 32, 32, 32, 32],
]
# what heads are trained on: clean images, or those of an attack
strategies: list[str] = ["standard", "pgd"]
# training images of these classes that heads are trained on (more than there
# are: all)
head_images: int = 2000
# initialisations of each head and strategy, behind each trunk
seeds: int = 3
epochs: int = 6  # passes of the heads through these images
# epochs at whose end the heads are compared
checkpoints: list[int] = [3, 6]
batch_size: int = 32  # images in one step of training
# largest change of a pixel by the attack that is trained on
train_eps: float = 0.1
train_steps: int = 2  # steps of PGD in training
# train on images made against all seeds of a head together, or (slow) against
# each for itself
shared_attack: bool = True
# clean, names of corruptions or attacks, or "corruptions" and "attacks" for
# all
probes: list[str] = [
    "clean", "rotate", "translate", "stripe", "fog", "zigzag", "canny_edges",
    "attacks"]
# largest change of a pixel by the attacks that agreement is counted under
eps: float = 0.2
attack_steps: int = 4  # steps of PGD and TRADES there
noise: float = 0.1  # standard deviation of the Gaussian noise there
attacked_images: int = 64  # test images that are attacked
# clean test images that the activation measures see
clean_images: int = 500
# images for activation measures where they are probed with more than clean
# images
probe_images: int = 64
# Gaussian features over which expected Jacobians of heads are means
draws: int = 1000
# whose activations are compared: "first hidden", "last hidden" or "logits"
layer: str = "last hidden"
# clean accuracy from which a head counts as having learned; pairs of such heads
# are judged
learned: float = 0.95
# other limits, at which the verdicts are judged anew for the page of rules
other_limits: list[float] = [0.9, 0.98]
# of the first trunk, of the first head, of the draws of images, the
# corruptions and the attacks
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
    heads=(heads, 2),
    strategies=(strategies, 2),
    classes=(classes, 2),
    checkpoints=(checkpoints, 2),
    control=(control, 1),
)
benchmark.check_grid(strategies, layer, checkpoints, epochs)
for head in control:
    if head not in heads:
        raise ValueError(f"control: wanted some of the heads, got {control}")
within(
    trunks=(trunks, 1, 100),
    trunk_epochs=(trunk_epochs, 1, 1000),
    patience=(patience, 1, 1000),
    trunk_images=(trunk_images, 200, 60000),
    validation_images=(validation_images, 100, trunk_images - 100),
    train_eps=(train_eps, 0, 1),
    head_images=(head_images, 10, 60000),
    batch_size=(batch_size, 1, 60000),
    eps=(eps, 0, 1),
    train_steps=(train_steps, 1, 1000),
    attack_steps=(attack_steps, 1, 1000),
    noise=(noise, 0, 1),
    attacked_images=(attacked_images, 10, 10000),
    clean_images=(clean_images, 10, 10000),
    probe_images=(probe_images, 10, attacked_images),
    draws=(draws, 10, 1000000),
    learned=(learned, 0, 1),
    other_limits=(other_limits, 0, 1),
    heads=(heads, 1, 10000),
    seeds=(seeds, 3, 1000),
    epochs=(epochs, 1, 10000),
    seed=(seed, 0, 2**31),
)

# %% [markdown]
# ## The trunks
#
# Two convolutional layers of 64 and 32 kernels of 5 × 5 and one hidden layer of 1,024, trained on
# all ten classes. The paper states neither pooling nor what it validates on. We take the usual 2 × 2 max pooling after each
# convolution, which leaves 512 **features**, and hold out some training images, drawn at random (`validation_images`). Each
# network is kept as it was at its best epoch. The trunks (`trunks`) differ in their initial weights, in which images are held out,
# and in the order of the others. {glue:text}`take-best-epoch`

# %%
trunk_of = {}  # arguments of `pretrained`, by the name of the trunk
for i in range(trunks):
    trunk_of[f"trunk {i + 1}"] = {
        "architecture": {
            "factory": "convnet",
            "channels": [64, 32],
            "kernel": 5,
            "hidden": [1024],
            "classes": 10,
        },
        "seed": seed + i,
        "dataset": dataset,
        "epochs": trunk_epochs,
        "patience": patience,
        "validation": validation_images,
        "images": trunk_images,
        "device": device,
    }
trunk_training = several_trunks.pretrain(
    list(trunk_of.values()), scheduler=scheduler)
courses = {}  # validation accuracy after each epoch
for name, trunk in trunk_of.items():
    course = pd.Series(pretrained(**trunk).members.attrs["validation"])
    course.index += 1  # epochs count from 1
    courses[name] = course
best_epochs = pd.Series(trunk_training.epoch.to_numpy(), index=trunk_of)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure of validation accuracy", "figure": {"name": "fig-trunk", "caption": "Validation accuracy of each convolutional network after each epoch; rings mark the epochs that are kept."}, "image": {"alt": "Lines of validation accuracy against epochs, one for each trunk, with a ring at the highest point of each."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 2.6))
for name, course in courses.items():
    best_epoch = best_epochs[name]
    axes.plot(course, "o-", color=figures.QUIET, ms=3, lw=1, alpha=0.7)
    axes.plot(best_epoch, course[best_epoch], "o", ms=12, mfc="none",
              mec=figures.MEASURE_COLORS["wcka"], mew=2)
axes.set(xlabel="epoch", ylabel="validation accuracy")
axes.xaxis.get_major_locator().set_params(integer=True)
plt.show()

# %% tags=["remove-cell"]
images, labels = image_sets.load(dataset, "test", None)
_, training_labels = image_sets.load(dataset, "train", classes)
best_texts = []
validation_accuracies = []
test_accuracies = []
for name, trunk in trunk_of.items():
    best_texts.append(f"{best_epochs[name]} of {len(courses[name])}")
    validation_accuracies.append(courses[name].max())
    test_accuracies.append(
        pretrained(**trunk).accuracy(image_sets.as_inputs(images), labels)[0])
glue("best-epochs", ", ".join(best_texts), display=False)
say("n-trunks", trunks, "d")
say("validation-low", 100 * min(validation_accuracies), ".2f")
say("validation-high", 100 * max(validation_accuracies), ".2f")
say("test-low", 100 * min(test_accuracies), ".2f")
say("test-high", 100 * max(test_accuracies), ".2f")
say("training-images", min(head_images, len(training_labels)), ",")

# %% [markdown]
# The best epochs are {glue:text}`best-epochs` (the paper's: the 24th). There {glue:text}`validation-low` to
# {glue:text}`validation-high` % of the validation images are right, and {glue:text}`test-low` to
# {glue:text}`test-high` % of the test images. `python -m wcka run 04 --profile large` trains beyond the paper's epoch.
#
# ## The heads
#
# Now the linear layers are thrown away and the convolutions frozen. On the 512 features new heads learn
# to tell a few classes apart (`classes`): one hidden layer of 32, one of 1,024, ten of 32, as in the paper.
#
# **Strategies.** Standard training, and training on images attacked by PGD {cite}`madry2019`. The {term}`attack`
# moves *pixels*: its gradient goes through the head and through the trunk, which takes nearly all of the time. So by default we save
# twice. Heads learn from {glue:text}`training-images` images (`head_images`), drawn once for both strategies: people fine-tune
# because they have few. And one attack serves all {term}`seeds <seed>` of an architecture: it climbs the *sum* of their losses
# (`shared_attack`). A folded table says how much weaker such images are: behind the first trunk accuracy is higher by at most
# {glue:text}`weaker` percentage points than where each head is attacked for itself. *Probing* always attacks each network for itself.
#
# **Behind each of the {glue:text}`n-trunks` trunks** stands the whole grid, with seeds of its own: no two heads of different trunks begin with equal
# weights, or learn from the same draw of images. Pairs are of two heads on one trunk.

# %%
def head_grid(inputs, architectures, first_seed, draw_seed, **behind):
    """Models of heads: all architectures and strategies.

    `inputs` is the number of a head's inputs, `draw_seed` that of the images
    and their order; `behind` is empty, or names the trunk.
    """
    settings = {
        "seeds": list(range(first_seed, first_seed + seeds)),
        "dataset": dataset,
        "classes": classes,
        "images": head_images,
        "epochs": epochs,
        "checkpoints": sorted(checkpoints),
        "batch_size": batch_size,
        "eps": train_eps,
        "attack_steps": train_steps,
        "seed": draw_seed,
        "shared_attack": shared_attack,
        "device": device,
    }
    models = []
    for hidden in architectures:
        architecture = {
            "factory": "mlp",
            "widths": [inputs, *hidden, len(classes)],
            "activation": "relu",
        }
        for strategy in strategies:
            models.append({
                "architecture": architecture, "strategy": strategy,
                **settings, **behind})
    return models


probing = {
    "dataset": dataset,
    "classes": classes,
    "seed": seed,
    "eps": eps,
    "steps": attack_steps,
    "noise": noise,
    "images": clean_images,
    "attacked": attacked_images,
}
models_of = {}  # by the name of the trunk
for i, (name, trunk) in enumerate(trunk_of.items()):
    black_image = torch.zeros(1, 28 * 28)
    n_features = extract(frozen(trunk), black_image).shape[1]
    models_of[name] = head_grid(
        n_features, heads, seed + i * seeds, seed + i, trunk=trunk)
members, all_rows = several_trunks.grid_of_trunks(
    models_of, probe_names, layer, probe_images, probing, scheduler=scheduler)
keep_grid(members, all_rows, PAPER_MEASURES)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of heads at the last epoch"}
summaries.overview(members).style.format(precision=3)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of accuracy under shared attacks and under attacks on each head"}
@cached
def strength(models, epoch, probing):
    """Accuracy of heads on images that PGD makes against them.

    The images are made against all seeds together, and against each by itself.
    """
    x, labels = benchmark.attacked_images(probing)
    pgd = BY_GRADIENT["pgd"]
    rows = []
    populations, _ = benchmark.grid_networks(models)
    for model, population in zip(models, populations):
        at_epoch = (population.members.epoch == epoch).to_numpy()
        target = Transfer(frozen(model["trunk"]), population[at_epoch])
        attacked_functions = {
            "all seeds together": target.forward,
            "each for itself": target,
        }
        for name, function in attacked_functions.items():
            batches = []
            for i, (batch, batch_labels) in enumerate(
                    zip(x.split(16), labels.split(16))):
                batches.append(pgd(
                    function, batch, batch_labels, model["eps"],
                    model["attack_steps"], i))
            # (images, pixels), or (seeds, images, pixels) for each by itself
            adversarial = torch.cat(batches, dim=-2)
            per_model = adversarial.ndim > x.ndim
            logits = target.forward(adversarial, per_model=per_model)
            is_right = logits.argmax(-1) == labels  # (seeds, images)
            rows.append({
                "architecture": benchmark.architecture_name(
                    model["architecture"]),
                "strategy": model["strategy"],
                "attacked": name,
                "accuracy": float(is_right.double().mean()),
            })
    return pd.DataFrame(rows)


first_trunk = next(iter(models_of))
strengths = strength(models_of[first_trunk], max(checkpoints), probing)
strengths = strengths.pivot(
    index=["architecture", "strategy"], columns="attacked", values="accuracy")
strengths.rename_axis(
    columns="accuracy under PGD, attacked:").style.format("{:.3f}")

# %% tags=["hide-input"]
def check_pairs(rows, factors, where):
    """Refuse rows that say nothing about a factor."""
    starts = summaries.start_counts(rows)
    for factor in factors:
        if starts[factor] < 3:
            raise ValueError(
                f"{where}, pairs of heads with an accuracy of {learned} that "
                f"differ in {factor} come from {starts[factor]} runs, wanted "
                f"3: train longer, or lower `learned`")


learned_rows = summaries.learned_pairs(members, all_rows, learned)
check_pairs(learned_rows, benchmark.FACTORS, "behind the trunks")

# %% tags=["remove-cell"]
weaker = strengths["all seeds together"] - strengths["each for itself"]
is_weak = (members.accuracy < learned) & ~members.collapsed
accuracies = members.groupby("epoch").accuracy.median()
say("n-networks", len(members), ",")
say("n-starts", members.start.nunique(), "d")
say("n-heads", len(members) // len(checkpoints), "d")
say("n-checkpoints", len(checkpoints), "d")
left_out = sentences.left_out_sentence(
    members.collapsed.sum(), is_weak.sum(), learned)
glue("left-out", left_out, display=False)
say("n-rows", len(learned_rows), ",")
say("n-all-rows", len(all_rows), ",")
say("n-attacked", len(benchmark.attacked_images(probing)[0]), "d")
say("weaker", 100 * weaker.max(), ".1f")
say("last-accuracy", 100 * accuracies.iloc[-1], ".2f")
say("last-gain", 100 * (accuracies.iloc[-1] - accuracies.iloc[-2]), "+.2f")
runs_are_trunks = trunks >= several_trunks.LEAST_TRUNKS
if runs_are_trunks:
    glue("runs", "trunks", display=False)
else:
    glue("runs", "starts (a trunk, an architecture and a seed)", display=False)

# %% [markdown]
# {glue:text}`n-heads` heads come from {glue:text}`n-starts` {term}`starts <start>` (a trunk, an architecture and a seed). Each is kept at
# {glue:text}`n-checkpoints` epochs, which makes {glue:text}`n-networks` networks. Their median accuracy is
# {glue:text}`last-accuracy` %, {glue:text}`last-gain` percentage points from the checkpoint before. A pair counts if **both heads have
# learned**, as in the chapter before. {glue:text}`left-out` Without these, {glue:text}`n-rows` of
# {glue:text}`n-all-rows` rows are left.
#
# ## Does agreement vary?
#
# A {term}`probe` on which all heads {term}`agree <agreement>` equally often says nothing about any measure. So a probe **counts** below
# if agreement varies on it: if two standard deviations to either side of the mean span at least the {term}`margin` of
# [the rules](../book/rules), below which a difference matters to nobody. That rule never looks at a similarity.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of how much agreement varies"}
spread = several_trunks.spread_of_agreement(learned_rows)
counts = 4 * spread["all factors"] >= rules.MARGIN
if counts.sum() < 2:  # nothing could be said about other probes
    counts[:] = True
counted_probes = list(spread.index[counts])
table = learned_rows[learned_rows["probe"].isin(counted_probes)]
shown_spread = spread.rename(index=lambda name: name.replace("_", " "))
shown_spread.assign(counts=np.where(counts, "yes", "no")).style.format(
    "{:.3f}", subset=list(spread.columns))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-transfer-agreement", "caption": "Mean agreement of pairs of heads that have learned, by what they differ in and the probe they see."}, "image": {"alt": "Heat map with a row for each probe and a column for each factor; the cells hold the mean agreement of the pairs."}}
figures.agreement(learned_rows)
plt.show()

# %% tags=["remove-cell"]
def names_text(names):
    """Names of probes as text."""
    return ", ".join(name.replace("_", " ") for name in names) or "none"


def without_trunks(rows, columns):
    """The rows with each trunk's mean taken away, by what differs."""
    return statistics.demeaned(rows, columns, ["differs", "trunk"])


compared_columns = ["agreement", *PAPER_MEASURES]
centred = without_trunks(table, compared_columns)
highest = statistics.ceilings(centred)
not_run = [
    name for name in expand_probes(["clean", "corruptions", "attacks"])
    if name not in probe_names]
glue("probes-counted", names_text(counted_probes), display=False)
glue("probes-out", names_text(spread.index[~counts]), display=False)
glue("probes-not-run", names_text(not_run), display=False)
for factor in benchmark.FACTORS:
    say(f"transfer-ceiling-{factor}", highest[factor], ".2f")
    say(f"transfer-spread-{factor}", centred.agreement[
        centred.differs == factor].std(), ".3f")
say("transfer-mean-agreement", table.agreement.mean(), ".3f")

# %% [markdown]
# Counted are {glue:text}`probes-counted`; left out by the rule: {glue:text}`probes-out`. Not among the `probes` of this run:
# {glue:text}`probes-not-run`. (The defaults leave out what agreement hardly varied on in a first look, at one
# trunk and at agreement alone. For the same reason `eps` is twice the strength that is trained on.)
#
# On the probes that count the mean agreement is {glue:text}`transfer-mean-agreement`, with a standard deviation of
# {glue:text}`transfer-spread-epoch` (epoch), {glue:text}`transfer-spread-seed` (seed),
# {glue:text}`transfer-spread-architecture` (architecture) and {glue:text}`transfer-spread-strategy` (strategy). A part of
# that comes from the probes, so no similarity that knows nothing of the probe can reach an r above the ceilings of
# {glue:text}`transfer-ceiling-epoch`, {glue:text}`transfer-ceiling-seed`, {glue:text}`transfer-ceiling-architecture` and
# {glue:text}`transfer-ceiling-strategy`.
#
# ## Similarity against agreement (figure 4)
#
# wCKA compares the **{term}`chains <chain>` of the heads**: features × outputs. It does not see the trunk or an image. The
# measures of {term}`activations <activation>` see the heads' own layers on clean test images, which went through the trunk. Correlations are within
# trunks: each trunk's mean is taken away from similarity and agreement. Intervals speak for other {glue:text}`runs` and for other
# probes.
#
# {glue:text}`transfer-leads-r` {glue:text}`transfer-leads-rho`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of correlations and of the leads of wCKA"}
def compare_within(rows, columns=PAPER_MEASURES, target="agreement"):
    """Correlations within trunks, by Pearson and Spearman."""
    rows = without_trunks(rows, [target, *columns])
    comparisons = {}
    for method in ("pearson", "spearman"):
        comparisons[method] = statistics.compare_by_factor(
            rows, columns, target, method)
    return comparisons


results = compare_within(table)
leads.table(results).style

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-transfer", "caption": "The paper's figure 4, laid out as {numref}`fig-benchmark`. Top: similarity by wCKA against agreement, one dot per pair and probe: clean (black), corrupted (orange), attacked (green). Middle and bottom: correlation of each measure with agreement within trunks (white dot), with the paper's 95 % interval (broad bar) and one for other runs, which are trunks or starts, and other probes (thin line). Marks compare each measure with wCKA, by the paper's test (upper line) and over runs and probes (lower line): + where wCKA is ahead, − where it is behind, * p < 0.05, ** p < 0.01, *** p < 0.001, n.s. otherwise. Dotted: the highest r that a similarity can have that knows nothing of the probe."}, "image": {"alt": "Three rows of four panels, one column each for epoch, seed, architecture and strategy. Top: scatter of agreement against wCKA. Middle: Pearson's r of four measures with narrow and wide intervals and marks of significance. Bottom: Spearman's rho in the same way."}}
figures.benchmark(table, results, highest)
with figures.many_marks():
    plt.show()

# %% tags=["remove-cell"]
SYMBOLS = {"pearson": ("r", "Pearson's r"), "spearman": ("rho", "Spearman's ρ")}
for method, (name, symbol) in SYMBOLS.items():
    sentence = leads.lead_sentence(results[method], f"{symbol} of wCKA")
    glue(f"transfer-leads-{name}", sentence, display=False)

# %% [markdown]
# The marks in the figure are of single tests; the sentences above it are corrected for the number of tests, at the 5 % level. What
# heads on one trunk disagree on depends on the strength of the attacks, which the paper does not give. Try
# `-p eps 0.3 -p train_eps 0.2`.
#
# ## Trunk by trunk
#
# The paper's numbers come from one trunk. How different could they have been behind another?

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-trunks", "caption": "Pearson's r of each measure with agreement, one dot per trunk; a line joins the dots of one trunk."}, "image": {"alt": "Four panels, one for each factor, with the four measures on the horizontal axis and Pearson's r on the vertical one; a line of dots for each trunk."}}
measure_columns = dict(zip(PAPER_MEASURES, PAPER_MEASURES))
r_by_trunk = {}  # by trunk: measures × factors
for name, rows in table.groupby("trunk", sort=False):
    r_by_trunk[name] = statistics.r_by_factor(rows, measure_columns)
r_of_trunks = pd.concat(r_by_trunk, names=["trunk", "measure"])
fig, panels = plt.subplots(
    1, len(benchmark.FACTORS), figsize=(figures.WIDTH, 2.7), sharey=True)
positions = range(len(PAPER_MEASURES))
dot_colors = [figures.MEASURE_COLORS[measure] for measure in PAPER_MEASURES]
for axes, factor in zip(panels, benchmark.FACTORS):
    for r_of_measures in r_by_trunk.values():
        axes.plot(positions, r_of_measures[factor], color=figures.QUIET,
                  lw=0.8, alpha=0.6)
        axes.scatter(positions, r_of_measures[factor], c=dot_colors, s=22,
                     zorder=3)
    axes.set(title=factor, xlim=(-0.5, len(PAPER_MEASURES) - 0.5))
    axes.set_xticks(
        positions, [MEASURE_LABELS[measure] for measure in PAPER_MEASURES],
        rotation=45, ha="right", rotation_mode="anchor")
panels[0].set_ylabel("Pearson's r")
plt.show()

# %% tags=["remove-cell"]
first_places = []
for factor in benchmark.FACTORS:
    strongest = r_of_trunks[factor].unstack("measure").idxmax(axis=1)
    first_places.append(f"{(strongest == 'wcka').sum()} ({factor})")
    r_of_wcka = r_of_trunks[factor].xs("wcka", level="measure")
    say(f"trunk-low-{factor}", r_of_wcka.min(), ".2f")
    say(f"trunk-high-{factor}", r_of_wcka.max(), ".2f")
glue("first-places", listed(first_places), display=False)

# %% [markdown]
# wCKA's r lies between {glue:text}`trunk-low-epoch` and {glue:text}`trunk-high-epoch` (epoch),
# {glue:text}`trunk-low-seed` and {glue:text}`trunk-high-seed` (seed), {glue:text}`trunk-low-architecture` and
# {glue:text}`trunk-high-architecture` (architecture), {glue:text}`trunk-low-strategy` and {glue:text}`trunk-high-strategy`
# (strategy), by trunk. Of {glue:text}`n-trunks` trunks wCKA has the highest r of the four behind {glue:text}`first-places`.

# %% [markdown]
# ## What else was tried
#
# As in the [chapter before](03-functional): kinds of probes apart; activation measures probed with images of the kind that the
# agreement is counted on; two baselines, the gap in clean accuracy and the agreement on clean images; and one choice of the
# analysis changed at a time. {glue:text}`transfer-rivals`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure of kinds of probes", "figure": {"name": "fig-transfer-kinds", "caption": "Pearson's r of similarity with agreement within trunks, on the kinds of probes apart; the similarity is the same in all."}, "image": {"alt": "Heat maps side by side, one for each kind of probe: a row for each measure, a column for each factor, the cells hold Pearson's r."}}
by_kind = {}
for kind, rows in table.groupby("kind"):
    by_kind[kind] = statistics.r_by_factor(
        without_trunks(rows, compared_columns), measure_columns)
figures.by_kind(by_kind)
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure of measures on the probe and of two baselines", "figure": {"name": "fig-transfer-readings", "caption": "Pearson's r with agreement within trunks, on all probes that count but the clean one: activation measures probed with images of the kind that the agreement is counted on; two baselines, minus the gap in clean accuracy and the agreement on clean images; and wCKA. Under an attack each network sees the images made against itself. Marks as in {numref}`fig-transfer`."}, "image": {"alt": "Four panels, one for each factor: correlations of Procrustes, CKA and dCKA on the probe itself, of the gap in accuracy, of the agreement on clean images and of wCKA, with intervals and marks."}}
on_probe = [f"{measure}, on the probe" for measure in ACTIVATION_MEASURES]
not_clean = table[table.kind != "clean"].dropna(subset=on_probe)
readings = compare_within(
    not_clean, [*on_probe, "accuracy gap", "clean agreement", "wcka"],
    "agreement, own attack")["pearson"]
figures.readings(readings)
plt.show()

# %% tags=["remove-cell"]
RIVALS = {f"{measure}, on the probe": MEASURE_LABELS[measure] + " on the probe"
          for measure in ACTIVATION_MEASURES}
RIVALS["accuracy gap"] = "the gap in accuracy"
RIVALS["clean agreement"] = "the agreement on clean images"
rival_sentence = leads.better_rivals_sentence(readings, RIVALS)
glue("transfer-rivals", rival_sentence, display=False)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of choices: r with one choice changed at a time, averaged over trunks"}
# Clean rows carry what activation measures make of a few clean images. If the
# clean probe does not count, its agreement is left out.
rows_of_variants = all_rows[
    all_rows["probe"].isin([*counted_probes, "clean"])].copy()
if "clean" not in counted_probes:
    rows_of_variants.loc[
        rows_of_variants["probe"] == "clean",
        ["agreement", "agreement, own attack"]] = np.nan
sensitivity_of_trunks = {}
for name, models in models_of.items():
    sensitivity_of_trunks[name], _ = variants(
        models, members[members.trunk == name],
        rows_of_variants[rows_of_variants.trunk == name],
        layer, probe_images, probing, learned)
by_choice = pd.concat(sensitivity_of_trunks).groupby(level=[1, 2], sort=False)
sensitivity = by_choice.mean().reindex(columns=benchmark.FACTORS)
figures.choice_table(sensitivity)

# %% tags=["remove-cell"]
few = f"{probe_images} images"
as_above = sensitivity.loc["as above"]
other_layers = []
for name in benchmark.LAYERS:
    if name != layer:
        other_layers.append(f"{name}, {few}")
# Rows of the table and measures whose changes a sentence gives together.
choices = {
    "alive": (["all that have not collapsed"], PAPER_MEASURES),
    "seen": ([f"on the probe, {few}"], ACTIVATION_MEASURES),
    "few": ([f"clean, {few}"], ACTIVATION_MEASURES),
    "layers": (other_layers, ACTIVATION_MEASURES),
    "weights": (["uncentred", "with biases"], ["wcka"]),
    "wang": (["rows normalised", "mean of layers"], ["wcka"]),
}
for name, (variant_names, measures) in choices.items():
    variant_changes = []
    for variant in variant_names:
        variant_changes.append(sensitivity.loc[variant] - as_above)
    all_changes = pd.concat(variant_changes).loc[list(measures)]
    say(f"choice-{name}-low", all_changes.min().min(), "+.2f")
    say(f"choice-{name}-high", all_changes.max().max(), "+.2f")

# %% [markdown]
# With one choice changed, r moves by {glue:text}`choice-seen-low` to {glue:text}`choice-seen-high` where the activation measures see
# the probe itself, by {glue:text}`choice-few-low` to {glue:text}`choice-few-high` where they see fewer images, by
# {glue:text}`choice-layers-low` to {glue:text}`choice-layers-high` on another layer, and by {glue:text}`choice-alive-low` to
# {glue:text}`choice-alive-high` if all heads count that have not collapsed. wCKA's own choices move its r by
# {glue:text}`choice-weights-low` to {glue:text}`choice-weights-high` (without centring; with biases) and
# {glue:text}`choice-wang-low` to {glue:text}`choice-wang-high` (rows normalised; mean over the chains up to each layer). The ranges
# are over measures and factors.

# %% [markdown]
# ## Does the frozen trunk explain it?
#
# The paper's explanation of its figure 4: the frozen layers *impose* a similarity, even where heads are
# trained on attacked images. So we take the trunk away. The **control** is heads of the same architectures
# (`control`), number of images, strategies and attacks, but their inputs are the pixels. If the explanation is
# right, then behind a trunk heads of different strategy (1) are more similar, (2) agree more, (3) have a similarity that
# follows agreement more closely, and (4) have a similarity that is high next to the trunk and falls from layer to layer. What was
# imposed by the trunk should also show in pairs that differ in the seed, so these stand beside.

# %%
control_models = head_grid(
    28 * 28, control, seed + trunks * seeds, seed + trunks)
control_members, control_rows = benchmark.grid(
    control_models, probe_names, layer, probe_images, probing,
    scheduler=scheduler)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of heads on pixels at the last epoch"}
summaries.overview(control_members).style.format(precision=3)

# %% [markdown]
# To compare like with like, only pairs of heads of these architectures that have learned are compared, on the probes that count
# behind the trunks. For r the mean of each probe is taken away, as probes may differ more from each other without
# the trunk, which alone would reduce r. The two places share no head, so their estimates are independent, and the error
# of a difference is the root of the sum of both squares. Without a trunk the intervals speak for other starts.

# %%
PLACES = ("behind the trunk", "on pixels")
control_names = control_members.architecture.unique()
control_heads = members.model[members.architecture.isin(control_names)]


def counted_pairs(some_members, rows, limit):
    """Rows of pairs that have learned by a limit, on the probes that count."""
    pairs = summaries.learned_pairs(some_members, rows, limit)
    return pairs[pairs["probe"].isin(counted_probes)]


def rows_of_places(limit):
    """Rows of heads of the control's architectures, by place."""
    behind = counted_pairs(members, all_rows, limit)
    on_pixels = counted_pairs(control_members, control_rows, limit)
    return {
        "behind the trunk": behind[
            behind.a.isin(control_heads) & behind.b.isin(control_heads)],
        "on pixels": on_pixels.assign(trunk="none"),
    }


rows_at = rows_of_places(learned)
for place, rows in rows_at.items():
    check_pairs(rows, ["seed", "strategy"], place)


def mean_similarities(rows):
    """Mean similarity by each measure, with errors over runs."""
    pairs = rows.drop_duplicates(["a", "b"])  # it is the same on all probes
    design = crossed.Design(pairs["start a"], pairs["start b"])
    return crossed.means(design, pairs[list(PAPER_MEASURES)])


def mean_agreements(rows):
    """Mean agreement by kind of probe, with errors over runs and probes."""
    means = {}
    for kind in figures.PROBE_COLORS:
        part = rows[rows.kind == kind]
        if len(part):
            design = crossed.Design(
                part["start a"], part["start b"], part["probe"])
            means[kind] = crossed.means(
                design, part[["agreement"]])["agreement"]
    return means


def fisher_z(rows, by=("trunk", "probe")):
    """Fisher's z of each measure's r with agreement, over runs and probes.

    The means of the groups `by` are taken away.
    """
    rows = statistics.demeaned(rows, compared_columns, list(by))
    design = crossed.Design(rows["start a"], rows["start b"], rows["probe"])
    z, _ = crossed.correlations(
        design, rows.agreement, rows[list(PAPER_MEASURES)], None)
    return z


def r_interval(z):
    """Interval of a correlation, from that of its z."""
    return np.tanh(z.low), np.tanh(z.high)


def at_places(
        estimates_of, factor, to_value, to_interval, rows_by_place=rows_at):
    """Estimates at both places, and their independent differences.

    `estimates_of` is a function of rows; `to_value` and `to_interval` carry an
    estimate back from the scale that it was estimated on.
    """
    values = {}
    estimates_at = {}
    for place, rows in rows_by_place.items():
        estimates = estimates_of(rows[rows.differs == factor])
        estimates_at[place] = {}
        for name, estimate in estimates.items():
            low, high = to_interval(estimate)
            on_scale = to_value(estimate)
            estimates_at[place][name] = on_scale
            values[name, place] = {
                "value": on_scale.value, "low": low, "high": high}
    first, second = (estimates_at[place] for place in PLACES)
    differences = {}
    for name in first:
        if name in second:
            differences[name] = several_trunks.independent_difference(
                first[name], second[name])
    return pd.DataFrame(values).T, differences


def as_it_is(estimate):
    """An estimate that needs no other scale."""
    return estimate


share_interval = several_trunks.share_interval
r_of_z = several_trunks.r_of_z
similarity_strategy, similarity_changes = at_places(
    mean_similarities, "strategy", as_it_is, share_interval)
similarity_seed, seed_changes = at_places(
    mean_similarities, "seed", as_it_is, share_interval)
agreement_strategy, agreement_changes = at_places(
    mean_agreements, "strategy", as_it_is, share_interval)
r_strategy, r_changes = at_places(fisher_z, "strategy", r_of_z, r_interval)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-control", "caption": "Behind the trunks (filled) and on pixels (hollow), with 95 % intervals. Top: mean similarity of pairs of different strategy and of different seed. Bottom: mean agreement of pairs of different strategy, and Pearson's r of their similarity with agreement, each probe's mean taken away."}, "image": {"alt": "Four panels of points with intervals, two for each entry, behind the trunks and on pixels: mean similarity of four measures for pairs of different strategy and of different seed, mean agreement by kind of probe, and Pearson's r of four measures."}}
fig, panels = plt.subplots(2, 2, figsize=(figures.WIDTH, 5.6))
panels[0, 1].sharey(panels[0, 0])
colors = {**figures.MEASURE_COLORS, **figures.PROBE_COLORS}
panel_estimates = {
    "similarity: strategy differs": similarity_strategy,
    "similarity: seed differs": similarity_seed,
    "agreement: strategy differs": agreement_strategy,
    "Pearson's r: strategy differs": r_strategy,
}
shifts = (-0.14, 0.14)  # of the marks behind the trunk and on pixels
for axes, (title, estimates) in zip(panels.flat, panel_estimates.items()):
    names = estimates.index.unique(0)
    for i, name in enumerate(names):
        color = colors[name]
        for place, shift, fill in zip(PLACES, shifts, (color, "white")):
            if (name, place) not in estimates.index:
                continue
            row = estimates.loc[(name, place)]
            x = i + shift
            axes.plot([x, x], [row.low, row.high], color=color, lw=1.6)
            axes.plot(x, row.value, "o", mfc=fill, mec=color, ms=6)
    axes.set(title=title, xticks=range(len(names)),
             xlim=(-0.6, len(names) - 0.4))
    axes.set_xticklabels([MEASURE_LABELS.get(name, name) for name in names])
legend_marks = []
for fill in (figures.QUIET, "white"):
    legend_marks.append(plt.Line2D(
        [], [], marker="o", ls="", color=figures.QUIET, mfc=fill))
fig.legend(legend_marks, PLACES, loc="outside upper center", ncols=2)
plt.show()

# %% tags=["remove-cell"]
def significant_changes(differences, sign):
    """Names of what is significantly higher behind the trunks.

    With sign -1, of what is significantly lower.
    """
    names = []
    for name, difference in differences.items():
        if difference.p < rules.LEVEL and sign * difference.value > 0:
            names.append(MEASURE_LABELS.get(name, f"{name} images"))
    return names


PREDICTIONS = {
    "similar": (
        similarity_changes, "Behind the trunks heads of different strategy are",
        "more similar by", "less similar by",
        "not significantly more or less similar than on pixels by any measure"),
    "seeds": (
        seed_changes, "Behind the trunks heads of different seed are",
        "more similar by", "less similar by",
        "not significantly more or less similar than on pixels by any measure"),
    "agree": (
        agreement_changes,
        "Behind the trunks heads of different strategy agree",
        "more often on", "less often on",
        "neither significantly more nor less often than on pixels"),
    "follow": (
        r_changes, "Behind the trunks r is", "higher for", "lower for",
        "not significantly different for any measure"),
}
for name, (differences, subject, *words) in PREDICTIONS.items():
    sentence = sentences.higher_and_lower(
        subject, significant_changes(differences, 1),
        significant_changes(differences, -1), *words)
    glue(f"prediction-{name}", sentence, display=False)
for place, short in zip(PLACES, ("trunk", "pixels")):
    for measure in ("cka", "wcka"):
        similarity = similarity_strategy.value[measure, place]
        say(f"{short}-{measure}", similarity, ".2f")
        say(f"{short}-r-{measure}", r_strategy.value[measure, place], ".2f")
    say(f"{short}-seeds-wcka", similarity_seed.value["wcka", place], ".2f")
    for kind in ("corrupted", "attacked"):
        agreement = agreement_strategy.value.get((kind, place), np.nan)
        say(f"{short}-{kind}", agreement, ".2f")

# %% [markdown]
# What came of the predictions (significant: at the 5 % level):
#
# 1. {glue:text}`prediction-similar` Mean wCKA of two strategies is {glue:text}`trunk-wcka` behind the trunks and
#    {glue:text}`pixels-wcka` on pixels; mean {term}`CKA` {glue:text}`trunk-cka` and {glue:text}`pixels-cka`.
#    {glue:text}`prediction-seeds` Their mean wCKA is {glue:text}`trunk-seeds-wcka` and {glue:text}`pixels-seeds-wcka`.
# 2. {glue:text}`prediction-agree` On attacked images the mean agreement is {glue:text}`trunk-attacked` behind the trunks and
#    {glue:text}`pixels-attacked` on pixels, on corrupted ones {glue:text}`trunk-corrupted` and {glue:text}`pixels-corrupted`.
# 3. {glue:text}`prediction-follow` CKA's is {glue:text}`trunk-r-cka` behind the trunks and {glue:text}`pixels-r-cka`
#    on pixels, wCKA's {glue:text}`trunk-r-wcka` and {glue:text}`pixels-r-wcka`.
# 4. The next figure has the similarity by layer. CKA compares the layers' own activations, wCKA the chains from
#    the first layer up to each.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-transfer-layers", "caption": "Similarity of corresponding layers of the deepest head, trained by the first and by the last strategy from the same initial weights; means over seeds and trunks. Layer by layer from the head's first to the logits, behind the trunks (filled) and on pixels (hollow)."}, "image": {"alt": "Lines of similarity against layer, one for each of CKA and wCKA, behind the trunks and on pixels."}}
def depth_and_units(hidden):
    """Number of hidden layers, and of units in all of them."""
    return len(hidden), sum(hidden)


deepest = max(control, key=depth_and_units)
compared_strategies = (strategies[0], strategies[-1])


def layer_similarities(models):
    """Similarity of corresponding layers, by measure: (seeds, layers)."""
    maps = summaries.by_layer(
        models, deepest, compared_strategies, max(checkpoints), probing)
    diagonals = {}
    for measure, layer_maps in maps.items():
        between = layer_maps["between strategies"]  # (seeds, layers, layers)
        diagonals[measure] = between.diagonal(axis1=1, axis2=2)
    return diagonals


diagonals_of_trunks = [
    layer_similarities(models) for models in models_of.values()]
diagonals = {}  # by measure and place: (heads, layers)
for measure, on_pixel_layers in layer_similarities(control_models).items():
    of_trunks = [by_measure[measure] for by_measure in diagonals_of_trunks]
    diagonals[measure, "behind the trunk"] = np.concatenate(of_trunks)
    diagonals[measure, "on pixels"] = on_pixel_layers

fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 3))
for (measure, place), similarities in diagonals.items():
    color = figures.MEASURE_COLORS[measure]
    is_behind_trunk = place == PLACES[0]
    n_layers = similarities.shape[1]
    axes.plot(range(1, n_layers + 1), similarities.mean(0), "o-", color=color,
              ms=6, mfc=color if is_behind_trunk else "white")
    if is_behind_trunk:
        last_point = (n_layers, similarities[:, -1].mean())
        axes.annotate(MEASURE_LABELS[measure], last_point, (8, 0),
                      textcoords="offset points", va="center", color=color)
axes.text(0.03, 0.06, "● behind the trunks   ○ on pixels", fontsize=9,
          transform=axes.transAxes)
axes.set(xlabel="layer", ylabel="similarity", ylim=(0, 1.02),
         xticks=range(1, len(deepest) + 2))
plt.show()

# %% tags=["remove-cell"]
def mean_change(similarities, runs):
    """Mean change from the first layer to the last, with its error."""
    changes = pd.DataFrame({"change": similarities[:, -1] - similarities[:, 0]})
    return crossed.means(crossed.Design(runs, runs), changes)["change"]


if runs_are_trunks:
    runs_behind = np.repeat(list(models_of), seeds)
else:
    runs_behind = np.arange(trunks * seeds)
for measure in ("cka", "wcka"):
    behind = mean_change(diagonals[measure, PLACES[0]], runs_behind)
    on_images = mean_change(diagonals[measure, PLACES[1]], np.arange(seeds))
    more = several_trunks.independent_difference(behind, on_images)
    changes = {"trunk": behind, "pixels": on_images, "more": more}
    for name, change in changes.items():
        text = with_interval(change, "+.2f")
        glue(f"{name}-change-{measure}", text, display=False)

# %% [markdown]
# From the first layer to the logits CKA changes by {glue:text}`trunk-change-cka` behind the trunks and by
# {glue:text}`pixels-change-cka` on pixels, a difference of {glue:text}`more-change-cka`; wCKA by
# {glue:text}`trunk-change-wcka` and {glue:text}`pixels-change-wcka`, a difference of {glue:text}`more-change-wcka` (means,
# with 95 % intervals).
#
# **What the control cannot tell.** A trunk does more than be frozen: it was trained on all classes, and through
# it an attack of the same size may do less harm. Heads that are hardly attacked would learn much the same as heads that
# are not attacked at all, as both began with the same weights. If the trunk imposed similarity as such, heads of different
# seeds should be more similar too; that is what prediction 1 sets beside.

# %% [markdown]
# ## The chain through the trunk
#
# So far wCKA compared heads alone: features × outputs. For heads on different trunks that number means nothing, as
# feature 7 of one trunk is not feature 7 of another. The chain *through* the trunk, inputs × outputs, has no such trouble: it is the
# chain of the trunk's {term}`linear skeleton` ([chapter 5](05-architectures)) times that of the head. Both heads of a pair have
# one trunk, so the two chains differ only in how they weight features: heads alone weight all equally, the chain through the trunk by what
# the trunk lets through of the image, and a dead feature not at all. {glue:text}`take-agnostic`

# %%
through_column = "wcka, through the trunk"
chain_similarities = several_trunks.pairs_on_trunks(
    benchmark.chain_similarities, models_of, members, scheduler=scheduler)


def with_column(rows, pairs, column):
    """The rows with a column of another table of pairs."""
    return rows.merge(
        pairs[["a", "b", column]], on=["a", "b"], validate="m:1")


def alone_and_through(rows):
    """Correlations of heads alone and of chains through the trunk."""
    comparison = compare_within(rows, ["wcka", through_column])["pearson"]
    return (comparison.xs("wcka", level="measure"),
            comparison.xs(through_column, level="measure"))


through = with_column(table, chain_similarities, through_column)
heads_alone, through_trunk = alone_and_through(through)
by_factor = through.groupby("differs", sort=False)
mean_alone = by_factor["wcka"].mean()
mean_through = by_factor[through_column].mean()


def r_texts(rows):
    """Correlations with their intervals over runs and probes, as text."""
    texts = []
    for _, row in rows.iterrows():
        texts.append(interval(row.r, row["model low"], row["model high"]))
    return texts


difference_texts = []
for _, row in through_trunk.iterrows():
    difference_texts.append(interval(
        row.difference, row["model difference low"],
        row["model difference high"], "+.2f"))
pd.DataFrame({
    "heads alone": r_texts(heads_alone),
    "through the trunk": r_texts(through_trunk),
    "difference: heads alone minus through the trunk": difference_texts,
    "mean wCKA, heads alone": mean_alone.map("{:.2f}".format).to_list(),
    "mean wCKA, through the trunk": mean_through.map("{:.2f}".format).to_list(),
}, index=through_trunk.index.rename(None))

# %% tags=["remove-cell"]
significant = through_trunk[through_trunk["p model"] < 0.05]
better = significant[significant.difference < 0]
worse = significant[significant.difference > 0]
sentence = sentences.higher_and_lower(
    "Through the trunk Pearson's r with agreement is", list(better.index),
    list(worse.index), "higher for", "lower for",
    "not significantly different for any factor")
glue("through-sentence", sentence, display=False)

# %% [markdown]
# {glue:text}`through-sentence` [Chapter 5](05-architectures) compares networks whose trunks differ, where heads alone are no use.
#
# ## Heads with their gates
#
# The {term}`expected Jacobian`, E[J], knows which units are active; the chain does not ([chapter 10](10-gates)). For a
# head it is a mean over Gaussian features, with the mean and covariance of the trunk's. The mean of
# Pearson's r over the factors is {glue:text}`gates-chains` for chains and {glue:text}`gates-expected` for E[J]; the difference
# is {glue:text}`gates-lead`. {glue:text}`take-heads-gates`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the mean correlations of chains and of expected Jacobians"}
gated_column = "expected, Gaussian"
jacobian_similarities = several_trunks.pairs_on_trunks(
    gated_chains.expected_similarities, models_of, members,
    scheduler=scheduler, draws=draws, seed=seed)


def mean_correlations(rows):
    """Mean r over the factors within trunks, and the lead of E[J]."""
    rows = with_column(rows, jacobian_similarities, gated_column)
    columns = ["wcka", gated_column]
    rows = without_trunks(rows, ["agreement", *columns])
    r, leads_of_gates = summaries.mean_correlations(None, rows, columns)
    return r, leads_of_gates[gated_column]


mean_r, gate_lead = mean_correlations(table)
mean_texts = {
    "wCKA": with_interval(mean_r["wcka"]),
    "E[J]": with_interval(mean_r[gated_column]),
    "lead of E[J]": with_interval(gate_lead, "+.2f"),
}
pd.DataFrame(mean_texts, index=["mean r over the factors"]).style

# %% tags=["remove-cell"]
glue("gates-chains", mean_texts["wCKA"], display=False)
glue("gates-expected", mean_texts["E[J]"], display=False)
glue("gates-lead", mean_texts["lead of E[J]"], display=False)

# %% [markdown]
# ## What is judged in this chapter
#
# Each sentence is judged by its rule ([the rules](../book/rules)) from the numbers that stand beside it. "Consistently" is
# every factor, every other measure, and both kinds of correlation. What a trunk does is the difference to the control, and
# "agnostic" compares heads alone with the chain through the trunk. The epoch is judged by trunks that were trained
# beyond it. Beyond the paper, and stated before the {term}`run of record`: the lead of E[J] is above zero.

# %% tags=["hide-input"]
PAPERS_EPOCH = 24


def change_parts(differences):
    """Parts of a finding: by how much more behind the trunks, by measure."""
    parts = []
    for measure, difference in differences.items():
        parts.append(rules.Part(MEASURE_LABELS[measure], *difference))
    return parts


epoch_parts = []
for name, course in courses.items():
    best_epoch = best_epochs[name]
    if len(course) > PAPERS_EPOCH:
        epoch_parts.append(rules.Part(
            f"{name}: epoch {best_epoch} of {len(course)}",
            float(best_epoch == PAPERS_EPOCH)))
if epoch_parts:
    epoch_text = ""
else:
    epoch_text = f"no trunk was trained for more than {PAPERS_EPOCH} epochs"

_, raw_r_changes = at_places(
    lambda rows: fisher_z(rows, by=["trunk"]), "strategy", r_of_z, r_interval)
raw_texts = []
for measure, difference in raw_r_changes.items():
    raw_texts.append(f"{MEASURE_LABELS[measure]} {difference.value:+.2f}")
seed_texts = []
for measure, difference in seed_changes.items():
    seed_texts.append(f"{MEASURE_LABELS[measure]} {difference.value:+.2f}")


def findings_with(r_differences, similarity_differences, comparisons, through,
                  lead_of_gates):
    """Findings on all statements; texts are those of all that have learned."""
    agnostic_parts = []
    for factor, row in through.iterrows():
        agnostic_parts.append(rules.Part(
            factor, row.difference, row["model error"], row["model df"]))
    return {
        "best-epoch": rules.Finding(epoch_parts, epoch_text),
        "less-affected": rules.Finding(
            change_parts(r_differences),
            f"with the probes' means left in: {', '.join(raw_texts)}"),
        "trunk-imposes": rules.Finding(
            change_parts(similarity_differences),
            f"where the seed differs: {', '.join(seed_texts)}"),
        "consistently-higher": rules.Finding(leads.parts(comparisons)),
        "agnostic": rules.Finding(agnostic_parts),
        "heads-gates": rules.Finding([
            rules.part("mean over the factors", lead_of_gates)]),
    }


findings = findings_with(
    r_changes, similarity_changes, results, through_trunk, gate_lead)


def findings_at_limit(limit):
    """The same with another limit of having learned; None with too few."""
    pairs = counted_pairs(members, all_rows, limit)
    places = rows_of_places(limit)
    counts_of_starts = [summaries.start_counts(pairs)[factor]
                        for factor in benchmark.FACTORS]
    for rows in places.values():
        counts_of_starts.append(summaries.start_counts(rows)["strategy"])
    if min(counts_of_starts) < 3:
        return None
    _, r_differences = at_places(
        fisher_z, "strategy", r_of_z, r_interval, places)
    _, similarity_differences = at_places(
        mean_similarities, "strategy", as_it_is, share_interval, places)
    _, through_there = alone_and_through(
        with_column(pairs, chain_similarities, through_column))
    _, lead_there = mean_correlations(pairs)
    return findings_with(r_differences, similarity_differences,
                         compare_within(pairs), through_there, lead_there)


findings_at = {}
for limit in other_limits:
    findings_there = findings_at_limit(limit)
    if findings_there:
        findings_at[limit] = findings_there
chapter_claims = rules.judge("04", findings)
claims.show(chapter_claims, findings_at)

# %% tags=["remove-cell"]
SENTENCES = {
    "best-epoch": {
        "holds": "Each trunk was best at the paper's epoch.",
        "partly": "Some trunks were best at the paper's epoch, others at "
                  "another.",
        "fails": "No trunk was best at the paper's epoch.",
        "cannot be told": "Whether trunks are best at the paper's epoch is "
                          "open, as they were not trained beyond it.",
    },
    "less-affected": {
        "holds": "Across strategies every measure follows agreement better "
                 "behind a trunk than on pixels.",
        "partly": "Across strategies some measures follow agreement better "
                  "behind a trunk than on pixels, others do not.",
        "fails": "Across strategies no measure follows agreement better behind "
                 "a trunk than on pixels.",
        "cannot be told": "Whether measures follow agreement better across "
                          "strategies behind a trunk than on pixels is open.",
    },
    "trunk-imposes": {
        "holds": "Heads of different strategies are more similar behind a "
                 "trunk than on pixels, by every measure.",
        "partly": "Heads of different strategies are more similar behind a "
                  "trunk than on pixels by some measures, not by others.",
        "fails": "Heads of different strategies are more similar behind a "
                 "trunk than on pixels by no measure.",
        "cannot be told": "Whether heads of different strategies are more "
                          "similar behind a trunk than on pixels is open.",
    },
    "consistently-higher": {
        "holds": "wCKA follows agreement better than every other measure, for "
                 "every factor.",
        "partly": "wCKA follows agreement better than some other measure for "
                  "some factor, but not than every measure for every factor.",
        "fails": "For no factor does wCKA follow agreement noticeably better "
                 "than another measure.",
        "cannot be told": "Whether wCKA follows agreement better than the "
                          "other measures is open.",
    },
    "agnostic": {
        "holds": "Heads alone follow agreement as the chain through the trunk "
                 "does, for every factor.",
        "partly": "Heads alone follow agreement as the chain through the trunk "
                  "does for some factors, not for others.",
        "fails": "For no factor do heads alone follow agreement as the chain "
                 "through the trunk does.",
        "cannot be told": "Whether heads alone follow agreement as the chain "
                          "through the trunk does is open.",
    },
    "heads-gates": {
        "holds": "E[J] of heads follows agreement better than their chains do.",
        "partly": "E[J] of heads follows agreement better than their chains do "
                  "in some comparisons, and not in others.",
        "fails": "E[J] of heads does not follow agreement noticeably better "
                 "than their chains do.",
        "cannot be told": "Whether E[J] of heads follows agreement better than "
                          "their chains do is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)

# %% [markdown]
# ## Exercises
#
# **1.** How sure is wCKA's lead if the trunk could have been another? On a larger scale:
# `python -m wcka run 04 -p trunks 5`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
lead_of_trunks = {}  # wCKA's r minus the highest of the other measures
for name, r_of_measures in r_by_trunk.items():
    lead_of_trunks[name] = (
        r_of_measures.loc["wcka"] - r_of_measures.drop("wcka").max())
pd.DataFrame(lead_of_trunks).T.style.format("{:+.2f}")

# %% [markdown]
# **2.** In which architecture are heads of different strategies most similar? With two architectures only, on more seeds:
# `python -m wcka run 04 -p heads "[[32], [1024]]" -p control "[[32]]" -p seeds 6`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
architecture_of = members.set_index("model").architecture
strategy_pairs = learned_rows[learned_rows.differs == "strategy"]
strategy_pairs = strategy_pairs.drop_duplicates(["a", "b"])
strategy_pairs.groupby(strategy_pairs.a.map(architecture_of), sort=False)[
    list(PAPER_MEASURES)].mean().rename(columns=MEASURE_LABELS).rename_axis(
    None).style.format("{:.2f}")

# %% [markdown]
# **3.** What does wCKA of heads alone say of two heads that do the same on *different* trunks? With more of both:
# `python -m wcka run 04 -p trunks 3 -p seeds 5`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
alone_chains = []
through_chains = []
trunk_names = []
for name, models in models_of.items():
    trunk_chain = wcka.chain(frozen(trunk_of[name]), (28, 28))
    (population, *_), _ = benchmark.grid_networks(models[:1])
    last_epoch = population.members.epoch == max(checkpoints)
    for i in np.flatnonzero(last_epoch):
        head_chain = wcka.chain(population.member(int(i)))
        alone_chains.append(head_chain)
        through_chains.append(trunk_chain @ head_chain)
        trunk_names.append(name)
a, b = np.triu_indices(len(trunk_names), 1)
on_one_trunk = np.array(trunk_names)[a] == np.array(trunk_names)[b]
pd.DataFrame({
    "heads on": np.where(on_one_trunk, "one trunk", "different trunks"),
    "heads alone": compare("wcka", alone_chains, (a, b)),
    "through the trunk": compare("wcka", through_chains, (a, b)),
}).groupby("heads on", sort=False).mean().rename_axis(None).style.format(
    "{:.2f}")

# %% [markdown]
# ## To take away
#
# - wCKA of fine-tuned heads compares features × outputs. It does without the trunk and without images, and it is
#   silent about both. Compare heads of one trunk only. {glue:text}`take-agnostic` {glue:text}`take-heads-gates`
# - Look at how much agreement varies before asking what follows it: where all heads predict the same, no similarity can
#   follow what they do. {glue:text}`take-consistently-higher`
# - What is found behind one trunk speaks for that trunk. Train several, and leave whole trunks out to see
#   how sure a number is.
# - A comparison of frozen with trained from scratch needs a control that differs in nothing else. This one lacks the trunk's
#   training on other classes. {glue:text}`take-trunk-imposes` {glue:text}`take-less-affected`
