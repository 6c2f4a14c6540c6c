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
# # Where it fails
#
# ```{admonition} In one paragraph
# :class: tip
# {term}`wCKA` sees one product of matrices and nothing else: no biases, no activations, no data. {glue:text}`take-same-function`
# {glue:text}`take-chosen-chain` {glue:text}`take-shapes-alike` Some failures are mended by another weighting of the {term}`chain`;
# [chapter 10](10-gates) asks which repair follows behaviour.
# ```
#
# A measure is known by what breaks it. There must be networks that do the same and have a low similarity, and networks that do
# different things and have a similarity of one. Here they are, built by hand and found by gradients.
#
# After this chapter you can
#
# - name what moves wCKA without moving a prediction, and the reverse;
# - say which of these failures a change of the chain mends;
# - say what to conclude from a high, a middling and a low value.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
    rules,
    say,
    within,
)
from wcka.book.rules import lost_part, part
from wcka.experiments import (
    benchmark,
    crossed,
    equal_accuracy,
    jobs,
    trained,
    training_rows,
)
from wcka.experiments.gated_chains import outputs_centred
from wcka.measures import MEASURE_LABELS, compare
from wcka.networks import (
    counterexamples,
    image_sets,
    initialise,
    labelled_images,
)

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 06 -p dataset fashion`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
# the classes that the networks tell apart
classes: list[int] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
# networks with one hidden layer of each width
widths: list[int] = [8, 32, 128, 256]
depths: list[int] = [2, 4, 8]  # networks with so many hidden layers
# of these layers, and of the networks that are taken apart (one of the widths)
width: int = 32
seeds: int = 5  # initialisations of each
# training images of these classes (more than there are: all)
train_images: int = 6000
epochs: int = 8  # passes through them
batch_size: int = 64  # images in one step of training
# mean accuracy of the seeds at which the training of a shape ends, where shapes
# are compared
accuracy: float = 0.88
most_epochs: int = 40  # passes through the images for that, at most
held_out: int = 5000  # other training images, that this accuracy is counted on
# what one logit is multiplied by
factors: list[float] = [0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]
clean_images: int = 500  # clean test images that CKA and Procrustes see
attacked: int = 3  # networks that are moved by gradients
steps: int = 400  # of gradient descent
keep: float = 0.3  # weight of the change of the logits there
# training images on which the logits should not change
kept_images: int = 2000
seed: int = 0  # of the first network and of all draws
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
jobs.check_scheduler(scheduler)
distinct(
    classes=(classes, 2),
    widths=(widths, 1),
    depths=(depths, 1),
    factors=(factors, 2),
)
within(
    seeds=(seeds, 3, 1000),
    train_images=(train_images, 100, 60000),
    batch_size=(batch_size, 1, 60000),
    attacked=(attacked, 2, seeds),
    steps=(steps, 1, 100000),
    keep=(keep, 0, 1e6),
    kept_images=(kept_images, 10, train_images),
    factors=(factors, 1e-9, 1e9),
    clean_images=(clean_images, 10, 10000),
    widths=(widths, 1, 10000),
    depths=(depths, 1, 1000),
    epochs=(epochs, 1, 10000),
    most_epochs=(most_epochs, 1, 10000),
    held_out=(held_out, 10, 10000),
    accuracy=(accuracy, 0.01, 1),
    seed=(seed, 0, 2**31),
)
if width not in widths:
    raise ValueError(f"width: wanted one of the widths {widths}, got {width}")

# %% [markdown]
# ## Networks to break, and ways to look at a chain
#
# All are fully connected ReLU networks, trained on some images of {glue:text}`n-classes` classes. Those that are taken apart have one
# hidden layer, and classify {glue:text}`accuracy-low` to {glue:text}`accuracy-high` % of the test images correctly.

# %%
def architecture_of(shape):
    """Describe a fully connected network by the widths of its layers."""
    return {
        "factory": "mlp",
        "widths": [784, *shape, len(classes)],
        "activation": "relu",
    }


shapes = [[hidden_width] for hidden_width in widths]
shapes += [[width] * depth for depth in depths]

test_images, test_labels = image_sets.load(dataset, "test", classes)
test_inputs = image_sets.as_inputs(test_images)
training_images, _ = labelled_images(dataset, tuple(classes), "train")
learned_rows, _ = training_rows(len(training_images), train_images, seed)
train_inputs = image_sets.as_inputs(training_images[learned_rows])

population = trained(
    architecture=architecture_of([width]), strategy="standard",
    seeds=list(range(seed, seed + seeds)), dataset=dataset, classes=classes,
    images=train_images, epochs=epochs, checkpoints=[epochs],
    batch_size=batch_size, seed=seed)
networks = [population.member(i) for i in range(seeds)]

# %% tags=["remove-cell"]
accuracies = 100 * population.accuracy(test_inputs, test_labels)
say("accuracy-low", accuracies.min(), ".1f")
say("accuracy-high", accuracies.max(), ".1f")

# %% [markdown]
# **Remedies.** A chain is a matrix, and wCKA the {term}`CKA` of two of them. Before they are compared one can
#
# - weight the inputs by their **spread**: row $i$ times the standard deviation of pixel $i$;
# - weight them by their **covariance** $\Sigma$, $\Sigma^{1/2} W$. That is CKA of what the two {term}`linear skeletons <linear skeleton>`
#   *put out* for the data: $\lVert W_b^\top \Sigma W_a\rVert$ is the cross-covariance of $X W_a$ and $X W_b$;
# - carry the **biases** along, as one more row (`chain(model, bias=True)`);
# - take from each row its mean over the outputs (**outputs centred**): what is added to every logit changes no
#   probability.
#
# The first two need images, but no labels. Centring over the inputs is part of wCKA already.

# %%
spread = train_inputs.std(0)[:, None].double()  # (784, 1)
centred_inputs = (train_inputs - train_inputs.mean(0)).double()

# What is compared instead of the chain of a network
REMEDIES = {
    "wCKA": wcka.chain,
    "spread": lambda network: spread * wcka.chain(network),
    # (images, outputs): the covariance itself is not needed.
    "covariance": lambda network: centred_inputs @ wcka.chain(network),
    "biases": lambda network: wcka.chain(network, bias=True),
    "outputs centred": lambda network: outputs_centred(wcka.chain(network)),
    "covariance, outputs centred": lambda network: (
        centred_inputs @ outputs_centred(wcka.chain(network))),
}


def compare_networks(a, b):
    """Compare two networks by agreement, wCKA with each remedy, and CKA.

    Agreement is counted on clean test images. CKA is that of the last hidden
    layer.
    """
    hidden_layers = []
    logits = []
    for network in (a, b):
        # Some constructions are in double precision.
        inputs = test_inputs.to(network[1].weight.dtype)
        with torch.no_grad():
            hidden_layers.append(network[:-1](inputs)[:clean_images])
            logits.append(network(inputs))
    row = {"agreement": wcka.agreement(*logits)}
    for name, remedied_chain in REMEDIES.items():
        remedied_chains = [remedied_chain(a), remedied_chain(b)]
        row[name] = compare("wcka", remedied_chains)[0, 1]
    row["CKA"] = compare("cka", hidden_layers)[0, 1]
    return row

# %% [markdown]
# ## Built by hand
#
# **The function stays.** Predictions on test images do not change:
#
# - *border redrawn*: pixels that are black in all test images get new initial weights. Those that are black in the training images, too, were
#   never touched by training;
# - {term}`dead units <dead unit>`: units that are never active for inputs in $[0, 1]$, with weights like any other;
# - *all logits lifted*: one linear function is added to every logit;
# - *a random chain*: three units that do nothing, relu($z$) − relu($-z$) − relu($z + c$) with a large $c$, which is $-c$ for any bounded $z$.
#   Times $t$, their chain is that of $t z$, and a bias takes the constant away. Three such units for each output give *any network on
#   bounded inputs any chain*. Here: that of an untrained network;
# - *wider*, *deeper*: each unit twice with half a weight; an identity layer.
#
# **The chain stays**, and the function goes:
#
# - *biases drowned*: random biases in the hidden layer;
# - *signs flipped*: half of the hidden units change the sign of their weights on both sides;
# - *impersonated*: an untrained network that was given the chain of the trained one, in the same way.
#
# For scale: the same network from *another* {term}`seed`, and from *another seed, untrained*. (CKA is that of the last hidden layer, so it cannot
# see what is done to logits.)

# %%
def untrained_network(i):
    """Return the i-th untrained network, of another seed."""
    return initialise(architecture_of([width]), [seed + 1000 + i]).member(0)


def construct(i):
    """Compare the i-th network with all that is made from it, one row each."""
    network = networks[i]
    other_seed = networks[(i + 1) % len(networks)]
    constructions = counterexamples.constructions(
        network, other_seed, untrained_network(i), test_inputs, seed + i)
    rows = {}
    for name, construction in constructions.items():
        rows[name] = compare_networks(network, construction)
    return pd.DataFrame(rows).T


tables_by_seed = {i: construct(i) for i in range(seeds)}
constructed = pd.concat(tables_by_seed)
constructed_medians = constructed.groupby(level=[1, 2], sort=False).median()

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-constructed", "caption": "Networks built so that the function stays (top; a good measure says 1) or the chain stays while the function goes (middle; a good measure is low where the agreement in the first column is), and two comparisons for scale. Columns: agreement on clean test images, wCKA, wCKA with each remedy, and CKA of the last hidden layer. Medians over seeds."}, "image": {"alt": "Heat map with numbers: a row for each construction, columns for agreement, wCKA, five remedies and CKA."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.4))
heat_table = constructed_medians.rename(
    columns={"covariance, outputs centred": "covariance,\noutputs centred"})
heat_table.index = heat_table.index.get_level_values(1)
heat_table.index.name = None
figures.heat_map(axes, heat_table, cmap="cividis", vmin=0, vmax=1, cbar=False)
axes.xaxis.tick_top()
axes.tick_params(axis="x", rotation=40)
for label in axes.get_xticklabels():
    label.set(ha="left", rotation_mode="anchor")
# White lines between the groups of rows, and after the agreement
groups = constructed_medians.index.get_level_values(0)
for row in np.flatnonzero(groups[1:] != groups[:-1]) + 1:
    axes.axhline(row, color="white", lw=7)
axes.axvline(1, color="white", lw=7)
plt.show()

# %% tags=["remove-cell"]
construction_table = constructed_medians.droplevel(0)
glued_cells = {
    "border": ("border redrawn", "wCKA"),
    "border-spread": ("border redrawn", "spread"),
    "dead": ("dead units", "wCKA"),
    "dead-covariance": ("dead units", "covariance"),
    "dead-biases": ("dead units", "biases"),
    "flipped-biases": ("signs flipped", "biases"),
    "lifted": ("all logits lifted", "wCKA"),
    "lifted-centred": ("all logits lifted", "outputs centred"),
    "random": ("a random chain", "wCKA"),
    "impersonated": ("impersonated", "wCKA"),
    "impersonated-agreement": ("impersonated", "agreement"),
    "flipped-agreement": ("signs flipped", "agreement"),
    "flipped": ("signs flipped", "wCKA"),
    "drowned": ("biases drowned", "wCKA"),
    "drowned-agreement": ("biases drowned", "agreement"),
    "drowned-biases": ("biases drowned", "biases"),
    "seed": ("another seed", "wCKA"),
    "seed-covariance": ("another seed", "covariance"),
    "untrained-covariance": ("another seed, untrained", "covariance"),
    "untrained": ("another seed, untrained", "wCKA"),
}
for name, (row, column) in glued_cells.items():
    say(f"broken-{name}", construction_table.loc[row, column], ".2f")

is_silent = ~train_inputs.any(0)
say("n-classes", len(classes), "d")
say("silent-share", 100 * is_silent.double().mean(), ".0f")
squares = torch.stack([wcka.chain(network) for network in networks])**2
# Sums over pixels and outputs: (networks,)
silent_shares = squares[:, is_silent].sum((1, 2)) / squares.sum((1, 2))
say("silent-norm", 100 * silent_shares.median(), ".0f")

# %% [markdown]
# What {numref}`fig-constructed` says:
#
# - **Inputs that never vary.** {glue:text}`silent-share` % of the pixels are black in all images that these networks learned from. Their rows make
#   {glue:text}`silent-norm` % of the chain's squared norm, and redrawing those that are black in the test images too takes wCKA to
#   {glue:text}`broken-border`. Weighted by spread, where a pixel that does not vary has no weight, it is {glue:text}`broken-border-spread`.
# - **Dead units** take wCKA to {glue:text}`broken-dead`. The skeleton has no dead units: all are at work in it. With the covariance it is
#   {glue:text}`broken-dead-covariance`; with the biases, which
#   such units have large, {glue:text}`broken-dead-biases`. Prune what is dead before you compare.
# - **What is added to all logits** takes it to {glue:text}`broken-lifted`; with outputs centred it is
#   {glue:text}`broken-lifted-centred`.
# - **Any chain fits any function.** The same function with the chain of an untrained network scores {glue:text}`broken-random` with itself. An
#   untrained network with the chain of a trained one has a wCKA of {glue:text}`broken-impersonated` with it, and an agreement of
#   {glue:text}`broken-impersonated-agreement`. Nobody trains such a network by accident. But somebody who wants a high
#   wCKA can have it, and where the chains are equal no remedy can help.
# - **Signs and biases.** With flipped signs wCKA is {glue:text}`broken-flipped` and agreement {glue:text}`broken-flipped-agreement`; with
#   drowned biases {glue:text}`broken-drowned` and {glue:text}`broken-drowned-agreement`. If the chain carries the biases, wCKA is
#   {glue:text}`broken-drowned-biases` where they are drowned, and still {glue:text}`broken-flipped-biases` where signs are flipped, since no chain holds signs.
#
# What the covariance does to the {term}`floor`: two seeds score {glue:text}`broken-seed-covariance` instead of {glue:text}`broken-seed`,
# and an untrained network with a trained one {glue:text}`broken-untrained-covariance` instead of {glue:text}`broken-untrained`. Pixels vary together, so any two skeletons
# share something in what they put out, as activations do ([chapter 2](02-calibration)).
#
# ## The scale of one logit

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-logit", "caption": "One logit multiplied by a factor: wCKA with the network as it was (orange), and agreement with it on clean test images (black). Lines: medians over seeds; bands: lowest to highest."}, "image": {"alt": "Two lines against the factor on a logarithmic axis: wCKA and agreement."}}
scaled_rows = []
for factor in sorted(factors):
    for network in networks:
        scaled_network = counterexamples.scale_logit(network, factor)
        scaled_rows.append(
            {"factor": factor, **compare_networks(network, scaled_network)})
scaled = pd.DataFrame(scaled_rows)

fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 2.8))
colors = {
    "wCKA": figures.MEASURE_COLORS["wcka"],
    "agreement": figures.PROBE_COLORS["clean"],
}
for column, color in colors.items():
    by_factor = scaled.groupby("factor")[column]
    lowest = by_factor.min()
    medians = by_factor.median()
    axes.fill_between(lowest.index, lowest, by_factor.max(), color=color,
                      alpha=0.15, lw=0)
    axes.plot(medians, "o-", color=color, ms=4)
    axes.annotate(column, (max(factors), medians.iloc[-1]), (8, 0),
                  textcoords="offset points", va="center", color=color)
axes.set(xscale="log", xlabel="factor of one logit", ylabel="similarity",
         ylim=(0, 1.03))
plt.show()

# %% tags=["remove-cell"]
for name, factor in (("smallest", min(factors)), ("largest", max(factors))):
    row = scaled[scaled.factor == factor].median()
    say(f"logit-{name}", factor, "g")
    say(f"logit-{name}-wcka", row.wCKA, ".2f")
    say(f"logit-{name}-agreement", row.agreement, ".2f")

# %% [markdown]
# At a factor of {glue:text}`logit-smallest` wCKA is {glue:text}`logit-smallest-wcka` and agreement {glue:text}`logit-smallest-agreement`; at {glue:text}`logit-largest`,
# {glue:text}`logit-largest-wcka` and {glue:text}`logit-largest-agreement`. As a logit grows, its column of the chain is soon all that counts; as it
# vanishes, one column of several is gone. wCKA is invariant to rotations of the outputs and to their common
# scale, not to the scale of one.
#
# ## Width and depth
#
# The same task, learned by wider and by deeper networks. Does the measure stay where it was? Networks that are trained for equally long have
# learned more or less, by their shape. Here each shape is trained until the mean accuracy of its seeds on training images that are held out
# reaches `accuracy`, and kept at the epoch that is nearest to it.

# %%
def settings_of_equals(shape):
    """Arguments of `trained_until` for networks of one shape."""
    return {
        "architecture": architecture_of(shape),
        "seeds": list(range(seed, seed + seeds)),
        "dataset": dataset,
        "classes": classes,
        "accuracy": accuracy,
        "most_epochs": most_epochs,
        "images": min(train_images, len(training_images) - held_out),
        "held_out": held_out,
        "batch_size": batch_size,
        "seed": seed,
    }


equals = equal_accuracy.all_trained_until(
    [settings_of_equals(shape) for shape in shapes], scheduler=scheduler)


def between_seeds(population):
    """Compare all pairs of seeds of one shape, one row per pair."""
    rows = []
    for i, j in zip(*np.triu_indices(len(population), 1)):
        similarities = compare_networks(
            population.member(i), population.member(j))
        rows.append({"a": i, "b": j, **similarities})
    return pd.DataFrame(rows)


def untrained_floor(shape):
    """Mean wCKA of pairs of untrained networks of one shape."""
    untrained = initialise(architecture_of(shape),
                           range(seed + 1000, seed + 1000 + seeds))
    chains = [wcka.chain(untrained.member(i)) for i in range(seeds)]
    return compare("wcka", chains)[np.triu_indices(seeds, 1)].mean()


COMPARED = ["agreement", "CKA", "wCKA", "covariance"]
shape_estimates = {}  # means over pairs, with errors over seeds
shape_rows = {}
for shape, population in zip(shapes, equals):
    name = benchmark.architecture_name({"widths": [784, *shape, 0]})
    pair_table = between_seeds(population)
    shape_estimates[name] = crossed.means(
        crossed.Design(pair_table.a, pair_table.b), pair_table[COMPARED])
    shape_rows[name] = {
        "epoch": population.members.epoch[0],
        "accuracy": population.members.accuracy.mean(),
        **pair_table[COMPARED].mean(),
        "lowest": pair_table.wCKA.min(),
        "highest": pair_table.wCKA.max(),
        "untrained": untrained_floor(shape),
    }
by_shape = pd.DataFrame(shape_rows).T

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of shapes"}
shown_shapes = by_shape[["epoch", "accuracy", *COMPARED]]
shown_shapes.style.format("{:.3f}").format("{:.0f}", subset=["epoch"])

# %%
# The networks with one hidden layer, and those with layers of one width, of
# which the first has one layer, too.
by_width = by_shape.iloc[:len(widths)]
by_depth = pd.concat([by_width.iloc[[widths.index(width)]],
                      by_shape.iloc[len(widths):]])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-shape", "caption": "Networks of different seed and of equal accuracy, by the width of one hidden layer (left) and by the number of hidden layers (right): agreement on clean test images (black), CKA of the last hidden layer (blue), wCKA (orange, filled), wCKA weighted by the covariance (orange, hollow), and wCKA of untrained networks (grey)."}, "image": {"alt": "Two panels of lines: similarity against width and against depth, for agreement, CKA, wCKA, wCKA weighted by the covariance, and wCKA of untrained networks."}}
wcka_color = figures.MEASURE_COLORS["wcka"]
line_styles = {
    "agreement": (figures.PROBE_COLORS["clean"], "o"),
    "CKA": (figures.MEASURE_COLORS["cka"], "o"),
    "wCKA": (wcka_color, "o"),
    "covariance": (wcka_color, "o"),
    "untrained": (figures.QUIET, "s"),
}


def draw_shapes(axes, sizes, rows, label):
    """Draw what seeds share against the sizes of their networks."""
    order = np.argsort(sizes)
    for column, (color, mark) in line_styles.items():
        fill = "white" if column == "covariance" else color
        axes.plot(np.array(sizes)[order], rows[column].to_numpy()[order],
                  f"{mark}-", color=color, ms=5, mfc=fill, label=column)
    axes.set(xscale="log", xlabel=label, ylim=(-0.02, 1.03), xticks=sizes)
    axes.set_xticks([], minor=True)
    axes.set_xticklabels(sizes)


fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.2), sharey=True)
draw_shapes(panels[0], widths, by_width, "width of one hidden layer")
draw_shapes(panels[1], [1, *depths], by_depth, f"hidden layers of {width}")
panels[0].set_ylabel("between seeds")
handles, _ = panels[0].get_legend_handles_labels()
texts = ["agreement", "CKA", "wCKA", "wCKA, covariance", "wCKA, untrained"]
fig.legend(handles, texts, loc="outside upper center", ncols=5,
           columnspacing=1, handletextpad=0.4)
plt.show()

# %% tags=["remove-cell"]
rows_of = {
    "wide": by_width.iloc[np.argsort(widths)],
    "deep": by_depth.iloc[[0, *1 + np.argsort(depths)]],
}
for name, rows in rows_of.items():
    for end, row in (("first", rows.iloc[0]), ("last", rows.iloc[-1])):
        say(f"{name}-{end}", row["wCKA"], ".2f")
        say(f"{name}-agreement-{end}", row["agreement"], ".2f")
deepest = rows_of["deep"].iloc[-1]
say("depth-last-covariance", deepest["covariance"], ".2f")
say("depth-last-cka", deepest["CKA"], ".2f")
say("equal-low", 100 * by_shape.accuracy.min(), ".1f")
say("equal-high", 100 * by_shape.accuracy.max(), ".1f")


def difference_of_shapes(name, reference):
    """Mean wCKA between one shape's seeds minus that between another's.

    The seeds of two shapes have nothing in common, so that variances add up;
    degrees of freedom are those of Welch.
    """
    first = shape_estimates[name]["wCKA"]
    second = shape_estimates[reference]["wCKA"]
    variances = np.array([first.error, second.error]) ** 2
    total = variances.sum()
    spread = (variances**2 / [first.df, second.df]).sum()
    df = total**2 / spread if spread else min(first.df, second.df)
    return crossed.Estimate(
        first.value - second.value, float(np.sqrt(total)), float(df))


reference_shape = benchmark.architecture_name({"widths": [784, width, 0]})
shape_differences = {}
for name in by_shape.index:
    if name != reference_shape:
        shape_differences[name] = difference_of_shapes(name, reference_shape)

# %% [markdown]
# Mean accuracies of the shapes are between {glue:text}`equal-low` and {glue:text}`equal-high` %. With width, wCKA between seeds goes from
# {glue:text}`wide-first` to {glue:text}`wide-last` (agreement: {glue:text}`wide-agreement-first` to
# {glue:text}`wide-agreement-last`); with depth, from {glue:text}`deep-first` to {glue:text}`deep-last` (agreement: {glue:text}`deep-agreement-first` to
# {glue:text}`deep-agreement-last`). For the deepest networks it is {glue:text}`depth-last-covariance` weighted by the covariance, and
# CKA is {glue:text}`depth-last-cka`.
#
# ## By gradients
#
# An adversary need not construct. Descend the gradient of the measure, and punish any change of the logits
# on training images: does the measure move while the predictions stay? Davari et al. {cite}`davari2023` move CKA by
# moving a few activations. We move weights, for wCKA and for CKA: away from where the network was, or towards an untrained
# network.

# %%
def attack(i, measure, target):
    """Move the i-th network by gradients; compare before and after.

    The target is the network to become similar to, or None to move away.
    """
    network = networks[i]
    changed_network = counterexamples.move(
        network, train_inputs[:kept_images], measure, target, steps,
        keep=keep)
    reference = network if target is None else target
    before = compare_networks(network, reference)
    after = compare_networks(changed_network, reference)
    itself = compare_networks(changed_network, network)
    row = {"agreement": itself["agreement"], "with itself": itself["wCKA"]}
    for name in ("wCKA", "covariance", "CKA"):
        row[f"{name}, before"] = before[name]
    for name in ("wCKA", "covariance", "CKA"):
        row[f"{name}, after"] = after[name]
    return row


TOWARDS = "towards an untrained network"
attack_rows = []
for i in range(attacked):
    for measure in ("wcka", "cka"):
        for way in ("away", TOWARDS):
            target = untrained_network(i) if way == TOWARDS else None
            attack_name = f"{MEASURE_LABELS[measure]} {way}"
            attack_rows.append(
                {"what moves": attack_name, **attack(i, measure, target)})
attack_table = pd.DataFrame(attack_rows)
attacks = attack_table.groupby("what moves", sort=False).median()
attacks.rename_axis(None).style.format("{:.3f}")

# %% tags=["remove-cell"]
for measure in ("wCKA", "CKA"):
    for way, short_name in (("away", "away"), (TOWARDS, "towards")):
        row = attacks.loc[f"{measure} {way}"]
        name = f"{measure.lower()}-{short_name}"
        say(f"{name}-before", row[f"{measure}, before"], ".2f")
        say(f"{name}-after", row[f"{measure}, after"], ".2f")
        say(f"{name}-agreement", 100 * row.agreement, ".1f")
say("moved-covariance", attacks.loc["wCKA away", "covariance, after"], ".2f")
seed_agreement = construction_table.loc["another seed", "agreement"]
say("seeds-agreement", 100 * seed_agreement, ".1f")

# %% [markdown]
# wCKA goes from {glue:text}`wcka-away-before` to {glue:text}`wcka-away-after` while {glue:text}`wcka-away-agreement` % of the predictions on test images
# stay (two seeds share {glue:text}`seeds-agreement` %), and towards an untrained network from {glue:text}`wcka-towards-before` to {glue:text}`wcka-towards-after` ({glue:text}`wcka-towards-agreement` %). CKA goes from
# {glue:text}`cka-away-before` to {glue:text}`cka-away-after` ({glue:text}`cka-away-agreement` %), and from {glue:text}`cka-towards-before` to
# {glue:text}`cka-towards-after` ({glue:text}`cka-towards-agreement` %). Weighted by the covariance, wCKA ends at
# {glue:text}`moved-covariance` under the first attack, which did not aim at it. Whether these changes cost more predictions than
# another seed does can be read off the agreements. No score of this kind should be a security check on its own.
#
# ## What to conclude from a value
#
# The ranges come from this chapter's networks, so from one task; take those of your own. Untrained networks of the
# shape cost nothing (`python -m wcka compare` has them), seeds cost a training each.

# %% tags=["hide-input"]
shown_columns = [
    "accuracy", "untrained", "lowest", "wCKA", "highest", "agreement"]
ranges = by_shape[shown_columns].rename(columns={
    "untrained": "untrained, mean",
    "lowest": "seeds, lowest",
    "wCKA": "seeds, mean",
    "highest": "seeds, highest",
})
ranges.style.format("{:.2f}")

# %% [markdown]
# | wCKA | suggests | does not show | rather use |
# | :--- | :--- | :--- | :--- |
# | **high**, above the range of independent seeds of the same shape | a common origin: one training run, a copy, a fine-tuned copy; or somebody wants you to think so | that they behave in the same way: biases, signs and activations are not in it | agreement on images, to know behaviour |
# | **middling**, within the range of seeds of the same shape | the same task, learned with the same inputs | which of two such pairs is more similar, if widths or depths differ | CKA or agreement, if you have images |
# | **low**, below that range, or as untrained networks | nothing yet: see whether the border, dead units, global pooling or depth hide what they share | that they behave differently | wCKA weighted by spread or covariance; CKA; agreement |
#
# Prefer another measure when you have inputs and want to know about behaviour (agreement is the thing itself), when
# networks end in a mean over places ([chapter 5](05-architectures)), and when someone gains by the answer.
#
# ## What is judged in this chapter
#
# All three go beyond the paper. What has to be so, in numbers:
#
# - *One function, one value*: what each construction that keeps the function takes from wCKA is small.
# - *Not to be moved*: what a random chain, or gradients, take from it is small, over networks that keep at least as many predictions as two
#   seeds share.
# - *Shapes*: the mean wCKA between seeds of each shape is similar to that of the shape with one hidden layer that is taken apart above.
#
# Errors are over networks.

# %% tags=["hide-input"]
wcka_of_construction = constructed.wCKA.droplevel(1).unstack()
function_parts = []
for construction in ("wider", "deeper", "border redrawn", "dead units",
                     "all logits lifted"):
    function_parts.append(
        lost_part(construction, wcka_of_construction[construction]))

# Moved networks count that agree with what they were as two seeds do.
rows_by_move = {
    "a random chain": constructed.xs("a random chain", level=2)}
for way in ("away", TOWARDS):
    rows = attack_table[attack_table["what moves"] == f"wCKA {way}"]
    rows_by_move[f"by gradients, {way}"] = rows.assign(
        wCKA=rows["with itself"])
chain_parts = []
dropped_texts = []
for label, rows in rows_by_move.items():
    kept_rows = rows[rows.agreement >= seed_agreement]
    dropped = len(rows) - len(kept_rows)
    if dropped:
        dropped_texts.append(f"{dropped} of {len(rows)} {label}")
    if len(kept_rows) > 1:
        chain_parts.append(lost_part(label, kept_rows.wCKA))
chain_text = f"two seeds agree on {seed_agreement:.3f}"
if dropped_texts:
    chain_text += ", of the moved fewer: " + "; ".join(dropped_texts)

shape_parts = []
for name, difference in shape_differences.items():
    shape_parts.append(part(name, difference))
reference_row = by_shape.loc[reference_shape]
shape_text = (
    f"{reference_shape}: wCKA {reference_row.wCKA:.2f}; accuracies "
    f"{by_shape.accuracy.min():.3f} to {by_shape.accuracy.max():.3f}")

chapter_claims = rules.judge("06", {
    "same-function": rules.Finding(function_parts),
    "chosen-chain": rules.Finding(chain_parts, chain_text),
    "shapes-alike": rules.Finding(shape_parts, shape_text),
})
claims.show(chapter_claims)

# %% tags=["remove-cell"]
SENTENCES = {
    "same-function": {
        "holds": "None of the constructions that keep a function moves wCKA.",
        "partly": "Some of the constructions that keep a function leave wCKA "
                  "where it was, others move it.",
        "fails": "Each of the constructions that keep a function moves wCKA.",
        "cannot be told": "Whether constructions that keep a function leave "
                          "wCKA where it was is open.",
    },
    "chosen-chain": {
        "holds": "Neither a chosen chain nor gradients moved wCKA.",
        "partly": "Some ways of moving wCKA on purpose worked while the "
                  "predictions stayed, others did not.",
        "fails": "Whoever wants to move wCKA can, by construction without "
                 "changing a prediction.",
        "cannot be told": "Whether wCKA stays where it was under a chosen "
                          "chain and under gradients is open.",
    },
    "shapes-alike": {
        "holds": "Seeds of equal accuracy have similar values in all shapes.",
        "partly": "Seeds of equal accuracy have similar values in some shapes "
                  "and other values in others.",
        "fails": "Seeds of equal accuracy have other values in each shape.",
        "cannot be told": "Whether seeds of equal accuracy have similar values "
                          "in different shapes is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)

# %% [markdown]
# ## Exercises
#
# 1. How many dead units does it take to bring wCKA below one half? The whole chapter with wider networks:
#    `python -m wcka run 06 -p width 128`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
units, similarity = 0, 1.0
while similarity >= 0.5:
    units += 1
    with_dead_units = counterexamples.deaden(networks[0], units, 0.2, seed)
    similarity = wcka.wcka(networks[0].double(), with_dead_units)
print(f"dead units: {units}, wCKA: {similarity:.2f}")

# %% [markdown]
# 2. Inputs that never vary are a property of the images. How many pixels are black in all training images of the other set, and would redrawing the border
#    move wCKA there? On these images: `python -m wcka run 06 -p dataset fashion`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
for name in ("mnist", "fashion"):
    images, _ = image_sets.load(name, "train", classes)
    is_black = ~image_sets.as_inputs(images).any(0)
    print(f"{name}: {is_black.double().mean():.1%} of the pixels, in all "
          f"{len(images):,} training images of these classes")

# %% [markdown]
# ## To take away
#
# - One function on bounded inputs can have any chain, and one chain belongs to any function. {glue:text}`take-same-function`
# - An adversary can have any chain with any function, which no remedy that looks at the chain can notice. {glue:text}`take-chosen-chain`
# - {glue:text}`take-shapes-alike` A value is read beside the floor and the seeds of the same shape.
# - Whether a change of the chain mends a construction and whether it follows behaviour are two questions; [chapter 10](10-gates)
#   asks the second.
