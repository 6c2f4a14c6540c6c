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
# A measure is known by what breaks it. wCKA sees one product of matrices and nothing else: no biases,
# no activations, no data. So there must be networks that do the same and score low, and networks that do
# different things and score one. Here they are, built by hand and found by gradients, each with its number. Then come the remedies:
# does it help to weigh the inputs by what the data do, to carry the biases along, to centre the outputs?
#
# After this chapter you can
#
# - name what moves wCKA without moving a prediction, and the reverse;
# - say which of these failures a remedy mends, and at what price;
# - say what to conclude from a high, a middling and a low value.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue

import wcka
from wcka.book import claims, distinct, figures, interval, say, verdicts, within
from wcka.experiments import benchmark, jobs, statistics, summaries, trained
from wcka.measures import MEASURE_LABELS, compare
from wcka.networks import counterexamples, expand_probes, image_sets, initialise, labelled_images
from wcka.weights import symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 06 -p dataset fashion`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
classes: list[int] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # the classes that the networks tell apart
widths: list[int] = [8, 32, 128, 512]  # networks with one hidden layer of each width
depths: list[int] = [2, 4, 8]  # networks with so many hidden layers
width: int = 32  # of these layers, and of the networks that are taken apart (one of the widths)
seeds: int = 5  # initialisations of each
train_images: int = 6000  # training images of these classes (more than there are: all)
epochs: int = 8  # passes through them
checkpoints: list[int] = [2, 8]  # epochs at whose end networks are compared
batch_size: int = 64  # images in one step of training
probes: list[str] = ["clean", "fog", "glass_blur", "impulse_noise", "rotate", "stripe", "zigzag"]  # images that agreement is counted on
factors: list[float] = [0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]  # what one logit is multiplied by
clean_images: int = 500  # clean test images that CKA and Procrustes see
attacked: int = 2  # networks that are moved by gradients
steps: int = 400  # of gradient descent
keep: float = 0.3  # weight of the change of the logits there
kept_images: int = 2000  # training images on which the logits should not change
seed: int = 0  # of the first network and of all draws
scheduler: str = ""  # address of a Dask scheduler whose workers do the work, like "tcp://10.0.0.1:8786"; empty for this machine

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, classes)
jobs.check_scheduler(scheduler)
probe_names = expand_probes(probes)
distinct(classes=(classes, 2), widths=(widths, 1), depths=(depths, 1),
         checkpoints=(checkpoints, 1), factors=(factors, 2))
benchmark.check_grid(["standard"], "last hidden", checkpoints, epochs)
within(train_images=(train_images, 100, 60000), batch_size=(batch_size, 1, 60000), attacked=(attacked, 1, seeds),
       steps=(steps, 1, 100000), keep=(keep, 0, 1e6), kept_images=(kept_images, 10, train_images), factors=(factors, 1e-9, 1e9),
       clean_images=(clean_images, 10, 10000), widths=(widths, 1, 10000), depths=(depths, 1, 1000), seeds=(seeds, 3, 1000),
       epochs=(epochs, 1, 10000), seed=(seed, 0, 2**31))
if width not in widths:
    raise ValueError(f"width: wanted one of the widths {widths}, got {width}")
if set(probe_names) & {"fgsm", "ffgsm", "pgd", "trades"}:
    raise ValueError("probes: attacks by gradients are the subject of chapter 3")

# %% [markdown]
# ## Networks to break, and ways to look at a chain
#
# All are fully connected ReLU networks, trained on some images of {glue:text}`n-classes` classes. Those that are taken apart have one
# hidden layer.

# %%
shapes = [[w] for w in widths] + [[width] * d for d in depths]
models = [{"architecture": {"factory": "mlp", "widths": [784, *hidden, len(classes)], "activation": "relu"},
           "strategy": "standard", "seeds": list(range(seed, seed + seeds)), "dataset": dataset,
           "classes": classes, "images": train_images, "epochs": epochs, "checkpoints": sorted(checkpoints),
           "batch_size": batch_size, "seed": seed} for hidden in shapes]
probing = {"dataset": dataset, "classes": classes, "seed": seed, "eps": 0.1, "steps": 1, "noise": 0.1,
           "images": clean_images, "attacked": None}
members, table = benchmark.grid(models, probe_names, "last hidden", 100, probing, scheduler=scheduler)
table = table[~table.collapsed]

test, labels = image_sets.load(dataset, "test", classes)
x = image_sets.as_inputs(test)
train = image_sets.as_inputs(labelled_images(dataset, tuple(classes), "train")[0])[:train_images]


def last_epoch(hidden):
    population = trained(**models[shapes.index(hidden)])
    return population[(population.members.epoch == epochs).to_numpy()]


networks = [last_epoch([width]).member(i) for i in range(seeds)]
summaries.overview(members).style.format(precision=3)

# %% [markdown]
# **Remedies.** A chain is a matrix, and wCKA the CKA of two of them. Before they are compared one can
#
# - weigh the inputs by their **spread**: row $i$ times the standard deviation of pixel $i$;
# - weigh them by their **covariance** $\Sigma$, $\Sigma^{1/2} W$. That is CKA of what the two linear skeletons
#   *put out* for the data: $\lVert W_b^\top \Sigma W_a\rVert$ is the cross-covariance of $X W_a$ and $X W_b$;
# - carry the **biases** along, as one more row (`chain(model, bias=True)`);
# - take from each row its mean over the outputs (**outputs centred**): what is added to all logits alike changes no
#   probability.
#
# The first two need images, if no labels. Centring over the inputs is part of wCKA already.

# %%
spread = train.std(0)[:, None].double()
centred_images = (train - train.mean(0)).double()


def centred(chain):
    return chain - chain.mean(1, keepdim=True)


REMEDIES = {
    "wCKA": wcka.chain,
    "spread": lambda m: spread * wcka.chain(m),
    "covariance": lambda m: centred_images @ wcka.chain(m),
    "biases": lambda m: wcka.chain(m, bias=True),
    "outputs centred": lambda m: centred(wcka.chain(m)),
    "covariance, outputs centred": lambda m: centred_images @ centred(wcka.chain(m)),
}


def compared(a, b):
    """Agreement of two networks on clean test images; wCKA, with each remedy; CKA of the last hidden layer."""
    with torch.no_grad():
        hidden, outputs = zip(*((m[:-1](seen), m(seen)) for m in (a, b)
                                for seen in [x.to(m[1].weight.dtype)]))
    found = {name: compare("wcka", [of(a), of(b)])[0, 1] for name, of in REMEDIES.items()}
    return {"agreement": wcka.agreement(*outputs), **found,
            "CKA": compare("cka", [h[:clean_images] for h in hidden])[0, 1]}


# %% [markdown]
# ## Built by hand
#
# **The function stays.** None of these changes a prediction on a test image:
#
# - *border redrawn*: pixels that are black in all test images get new initial weights. Training never touched the old ones either: they
#   are what the initialisation left;
# - *dead units*: units that are never active for inputs in $[0, 1]$, with weights like any other;
# - *all logits lifted*: one linear function is added to every logit;
# - *a random chain*: as $z + c = \mathrm{relu}(z + c)$ where $c$ is large and $z = \mathrm{relu}(z) - \mathrm{relu}(-z)$, the
#   three units of $t\,[\mathrm{relu}(z) - \mathrm{relu}(-z) - \mathrm{relu}(z+c) + c] = 0$ do nothing, but their chain is
#   that of $t z$. Three such units for each output give *any network on bounded inputs any chain*. Here: that of an untrained
#   network;
# - *wider*, *deeper*: each unit twice with half a weight; an identity layer. These should not matter, and do not.
#
# **The chain stays**, and the function goes:
#
# - *biases drowned*: random biases in the hidden layer;
# - *signs flipped*: half of the hidden units change the sign of their weights on both sides;
# - *impersonated*: an untrained network that was given the chain of the trained one, in the same way.
#
# For scale: the same network from *another seed*, and from *another seed, untrained*. (CKA is that of the last hidden layer, so it cannot
# see what is done to logits.)

# %%
def by_hand(i):
    """All constructions with the i-th network, each compared with what it was made from."""
    model, stranger = networks[i], networks[(i + 1) % len(networks)]
    raw = initialise(models[shapes.index([width])]["architecture"], [seed + 1000 + i]).member(0)
    pairs = {
        ("function stays", "border redrawn"): symmetry.redraw_silent_weights(model, x, seed + i),
        ("function stays", "dead units"): counterexamples.deaden(model, width // 4 + 1, 0.2, seed + i),
        ("function stays", "all logits lifted"): counterexamples.lift(model, 3.0, seed + i),
        ("function stays", "a random chain"): counterexamples.impersonate(model, wcka.chain(raw)),
        ("function stays", "wider"): counterexamples.widen(model),
        ("function stays", "deeper"): counterexamples.deepen(model),
        ("chain stays", "biases drowned"): counterexamples.drown(model, 2.0, seed + i),
        ("chain stays", "signs flipped"): counterexamples.flip(model, seed + i),
        ("chain stays", "impersonated"): counterexamples.impersonate(raw, wcka.chain(model)),
        ("for scale", "another seed"): stranger, ("for scale", "another seed, untrained"): raw}
    return {name: compared(model, other) for name, other in pairs.items()}


every = pd.concat({i: pd.DataFrame(by_hand(i)).T for i in range(seeds)})
constructed = every.groupby(level=[1, 2], sort=False).median()

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-constructed", "caption": "Networks built so that the function stays (top; a good measure says 1) or the chain stays while the function goes (middle; a good measure is low where the agreement in the first column is), and two comparisons for scale. Columns: agreement on clean test images, wCKA, wCKA with each remedy, and CKA of the last hidden layer. Medians over seeds."}, "image": {"alt": "Heat map with numbers: a row for each construction, columns for agreement, wCKA, five remedies and CKA."}}
fig, axes = plt.subplots(figsize=(figures.WIDTH, 5.4))
shown = constructed.rename(columns={"covariance, outputs centred": "covariance,\noutputs centred"})
shown.index = [name for _, name in shown.index]
figures.heat_map(axes, shown, cmap="cividis", vmin=0, vmax=1, cbar=False)
axes.xaxis.tick_top()
axes.tick_params(axis="x", rotation=40)
for label in axes.get_xticklabels():
    label.set(ha="left", rotation_mode="anchor")
groups = constructed.index.get_level_values(0)
for row in np.flatnonzero(groups[1:] != groups[:-1]) + 1:
    axes.axhline(row, color="white", lw=7)
axes.axvline(1, color="white", lw=7)
plt.show()

# %% tags=["remove-cell"]
value = constructed.droplevel(0)
for name, row, column in (
        ("border", "border redrawn", "wCKA"), ("border-spread", "border redrawn", "spread"),
        ("dead", "dead units", "wCKA"), ("dead-covariance", "dead units", "covariance"), ("dead-biases", "dead units", "biases"),
        ("flipped-biases", "signs flipped", "biases"),
        ("lifted", "all logits lifted", "wCKA"), ("lifted-centred", "all logits lifted", "outputs centred"),
        ("random", "a random chain", "wCKA"), ("impersonated", "impersonated", "wCKA"),
        ("impersonated-agreement", "impersonated", "agreement"), ("flipped-agreement", "signs flipped", "agreement"),
        ("flipped", "signs flipped", "wCKA"),
        ("drowned", "biases drowned", "wCKA"), ("drowned-agreement", "biases drowned", "agreement"),
        ("drowned-biases", "biases drowned", "biases"), ("seed", "another seed", "wCKA"),
        ("seed-covariance", "another seed", "covariance"), ("untrained-covariance", "another seed, untrained", "covariance"),
        ("untrained", "another seed, untrained", "wCKA")):
    say(f"broken-{name}", value.loc[row, column], ".2f")
silent = (~train.any(0)).double().mean()
say("n-classes", len(classes), "d")
say("silent-share", 100 * silent, ".0f")
chains_of = torch.stack([wcka.chain(m) for m in networks])
in_border = (chains_of[:, ~train.any(0)] ** 2).sum((1, 2)) / (chains_of**2).sum((1, 2))
say("silent-norm", 100 * in_border.median(), ".0f")

# %% [markdown]
# What {numref}`fig-constructed` says:
#
# - **Inputs that never vary.** {glue:text}`silent-share` % of the pixels are black in all training images. Their rows make
#   {glue:text}`silent-norm` % of the chain's squared norm here (more, the shorter the training), and redrawing those that are black in the test images too takes wCKA to {glue:text}`broken-border`. Weighing by spread mends that
#   ({glue:text}`broken-border-spread`): a pixel that does not vary has no weight.
# - **Dead units** take wCKA to {glue:text}`broken-dead`. The skeleton has no dead units: all are at work in it. With the covariance it is
#   {glue:text}`broken-dead-covariance`, as random weights average out over pixels that vary together; with the biases, which
#   such units have large, {glue:text}`broken-dead-biases`. Prune what is dead before you compare.
# - **What is added to all logits** takes it to {glue:text}`broken-lifted`; centring the outputs mends it
#   ({glue:text}`broken-lifted-centred`).
# - **Any chain fits any function.** The same function with the chain of an untrained network scores {glue:text}`broken-random` with itself. An
#   untrained network with the chain of a trained one scores {glue:text}`broken-impersonated`, and agrees with it on
#   {glue:text}`broken-impersonated-agreement` of the images. Nobody trains such a network by accident. But somebody who wants a high
#   wCKA can have it, and where the chains are equal no remedy can help.
# - **Signs and biases.** With flipped signs wCKA says {glue:text}`broken-flipped` and agreement {glue:text}`broken-flipped-agreement`; with
#   drowned biases {glue:text}`broken-drowned` and {glue:text}`broken-drowned-agreement`. Biases carried along, it is {glue:text}`broken-drowned-biases` for the
#   biases, and still {glue:text}`broken-flipped-biases` for the signs, which are equal in all that a chain can hold.
#
# The price of the covariance: the floor rises. Two seeds score {glue:text}`broken-seed-covariance` instead of {glue:text}`broken-seed`,
# and an untrained network with a trained one {glue:text}`broken-untrained-covariance` instead of {glue:text}`broken-untrained`. Pixels vary together, so any two skeletons
# share something in what they put out; it is the floor of CKA come back (chapter [2](02-calibration)).
#
# ## The scale of one logit

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-logit", "caption": "One logit multiplied by a factor: wCKA with the network as it was (orange), and agreement with it on clean test images (black). Lines: medians over seeds; bands: lowest to highest."}, "image": {"alt": "Two lines against the factor on a logarithmic axis: wCKA and agreement, both highest at one."}}
scaled = pd.DataFrame([
    {"factor": factor, "seed": i, **compared(model, counterexamples.scale_logit(model, factor))}
    for factor in sorted(factors) for i, model in enumerate(networks)])
fig, axes = plt.subplots(figsize=(figures.WIDTH * 0.75, 2.8))
for column, color in (("wCKA", figures.MEASURE_COLORS["wcka"]), ("agreement", figures.PROBE_COLORS["clean"])):
    by_factor = scaled.groupby("factor")[column]
    axes.fill_between(by_factor.min().index, by_factor.min(), by_factor.max(), color=color, alpha=0.15, lw=0)
    axes.plot(by_factor.median(), "o-", color=color, ms=4)
    axes.annotate(column, (max(factors), by_factor.median().iloc[-1]), (8, 0), textcoords="offset points",
                  va="center", color=color)
axes.set(xscale="log", xlabel="factor of one logit", ylabel="similarity", ylim=(0, 1.03))
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
# The same task, learned by wider and by deeper networks. Does the measure stay where it was while they go on to agree?

# %%
def between_seeds(hidden):
    """Mean over pairs of seeds of agreement, wCKA with and without the covariance, CKA; and wCKA untrained."""
    population = last_epoch(hidden)
    nets = [population.member(i) for i in range(len(population))]
    raw = initialise(population.architecture, range(seed + 1000, seed + 1000 + seeds))
    pairs = list(zip(*np.triu_indices(seeds, 1)))
    each = pd.DataFrame([compared(nets[i], nets[j]) for i, j in pairs])
    trained_pairs = {**each.mean(), "lowest": each.wCKA.min(), "highest": each.wCKA.max()}
    floor = compare("wcka", [wcka.chain(raw.member(i)) for i in range(seeds)])[np.triu_indices(seeds, 1)].mean()
    return {**trained_pairs, "untrained": floor}


by_shape = pd.DataFrame({benchmark.architecture_name({"widths": [784, *h, 0]}): between_seeds(h) for h in shapes}).T

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-shape", "caption": "Networks of different seed at the last epoch, by the width of one hidden layer (left) and by the number of hidden layers (right): agreement on clean test images (black), CKA of the last hidden layer (blue), wCKA (orange, filled), wCKA weighted by the covariance (orange, hollow), and wCKA of untrained networks (grey)."}, "image": {"alt": "Two panels of lines: similarity against width and against depth, for agreement, CKA, wCKA, wCKA weighted by the covariance, and wCKA of untrained networks."}}
styles = {"agreement": (figures.PROBE_COLORS["clean"], "o"), "CKA": (figures.MEASURE_COLORS["cka"], "o"),
          "wCKA": (figures.MEASURE_COLORS["wcka"], "o"), "covariance": (figures.MEASURE_COLORS["wcka"], "o"),
          "untrained": (figures.QUIET, "s")}
fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.2), sharey=True)
for axes, numbers, rows, label in (
        (panels[0], widths, by_shape.iloc[:len(widths)], "width of one hidden layer"),
        (panels[1], [1, *depths], by_shape.iloc[[widths.index(width), *range(len(widths), len(shapes))]],
         f"hidden layers of {width}")):
    order = np.argsort(numbers)
    for column, (color, mark) in styles.items():
        axes.plot(np.array(numbers)[order], rows[column].to_numpy()[order], f"{mark}-", color=color, ms=5,
                  mfc="white" if column == "covariance" else color, label=column)
    axes.set(xscale="log", xlabel=label, ylim=(-0.02, 1.03), xticks=numbers)
    axes.set_xticks([], minor=True)
    axes.set_xticklabels(numbers)
panels[0].set_ylabel("between seeds")
handles, names = panels[0].get_legend_handles_labels()
fig.legend(handles, ["agreement", "CKA", "wCKA", "wCKA, covariance", "wCKA, untrained"],
           loc="outside upper center", ncols=5, columnspacing=1, handletextpad=0.4)
plt.show()

# %% tags=["remove-cell"]
wide, deep = by_shape.iloc[:len(widths)], by_shape.iloc[[widths.index(width), *range(len(widths), len(shapes))]]
for name, rows in (("wide", wide), ("deep", deep)):
    say(f"{name}-agreement-low", rows.agreement.min(), ".2f")
    say(f"{name}-agreement-high", rows.agreement.max(), ".2f")
say("width-first", wide.wCKA.iloc[np.argmin(widths)], ".2f")
say("width-last", wide.wCKA.iloc[np.argmax(widths)], ".2f")
say("depth-first", deep.wCKA.iloc[0], ".2f")
deepest = deep.iloc[int(np.argmax(depths)) + 1]
for name, column in (("", "wCKA"), ("-covariance", "covariance"), ("-cka", "CKA")):
    say(f"depth-last{name}", deepest[column], ".2f")

# %% [markdown]
# With width, wCKA between seeds goes from {glue:text}`width-first` to {glue:text}`width-last` (agreement: {glue:text}`wide-agreement-low` to
# {glue:text}`wide-agreement-high`); with depth, from {glue:text}`depth-first` to {glue:text}`depth-last` (agreement: {glue:text}`deep-agreement-low` to
# {glue:text}`deep-agreement-high`): it falls faster than agreement does, though the deepest have also learned less. Weighted by the
# covariance it is {glue:text}`depth-last-covariance` instead of {glue:text}`depth-last` there, CKA {glue:text}`depth-last-cka`. So a value means something
# only beside others of the same shape. A likely reason: the deeper a network, the more of what it does is done by its activations, and the less
# is in the product of its weights.
#
# ## By gradients
#
# An adversary need not construct. Descend the gradient of the measure, and punish any change of the logits
# on training images: does the measure move while the predictions stay? Davari et al. {cite}`davari2023` move CKA by
# moving a few activations. We move weights, wCKA and CKA alike: away from where the network was, or towards an untrained
# network.

# %%
rows = []
for i, model in enumerate(networks[:attacked]):
    raw = initialise(models[shapes.index([width])]["architecture"], [seed + 1000 + i]).member(0)
    for measure in ("wcka", "cka"):
        for way, target in (("away", None), ("towards an untrained network", raw)):
            moved = counterexamples.move(model, train[:kept_images], measure, target, steps, keep=keep)
            rows.append({"what moves": f"{MEASURE_LABELS[measure]} {way}",
                         "agreement": compared(moved, model)["agreement"],
                         **{f"{m}, {when}": compared(a, target or model)[m] for when, a in (
                             ("before", model), ("after", moved)) for m in ("wCKA", "covariance", "CKA")}})
moves = pd.DataFrame(rows).groupby("what moves", sort=False).median()
moves.rename_axis(None).style.format("{:.3f}")

# %% tags=["remove-cell"]
for measure in ("wCKA", "CKA"):
    for way, short in (("away", "away"), ("towards an untrained network", "towards")):
        row = moves.loc[f"{measure} {way}"]
        for column in ("before", "after"):
            say(f"{measure.lower()}-{short}-{column}", row[f"{measure}, {column}"], ".2f")
        say(f"{measure.lower()}-{short}-agreement", 100 * row.agreement, ".1f")
say("moved-covariance", moves.loc["wCKA away", "covariance, after"], ".2f")
say("seeds-agreement", 100 * value.loc["another seed", "agreement"], ".1f")

# %% [markdown]
# wCKA goes from {glue:text}`wcka-away-before` to {glue:text}`wcka-away-after` while {glue:text}`wcka-away-agreement` % of the predictions on test images
# stay (two seeds share {glue:text}`seeds-agreement` %), and towards an untrained network from {glue:text}`wcka-towards-before` to {glue:text}`wcka-towards-after` ({glue:text}`wcka-towards-agreement` %). CKA goes from
# {glue:text}`cka-away-before` to {glue:text}`cka-away-after` ({glue:text}`cka-away-agreement` %), and from {glue:text}`cka-towards-before` to
# {glue:text}`cka-towards-after` ({glue:text}`cka-towards-agreement` %). Weighted by the covariance, wCKA ends at
# {glue:text}`moved-covariance` under the first attack, which did not aim at it. Whether these changes cost more predictions than
# another seed does can be read off the agreements. Neither measure is proof against somebody who knows
# it, and no score of this kind should be a security check on its own.
#
# ## Do the remedies follow behaviour better?
#
# That a remedy mends a construction does not make it a better measure. So to the test of [chapter 3](03-functional): all networks of
# {numref}`fig-shape`, at two epochs, paired where they differ in epoch, seed or architecture; Pearson's r of each
# similarity with agreement on clean and corrupted images, and by how much each is behind plain wCKA or ahead of it.

# %%
populations, _ = benchmark.grid_networks(models)
nets = [p.member(i) for p in populations for i in range(len(p))]
position = {name: i for i, name in enumerate(members.model)}
pairs = tuple(table[side].astype(str).map(position).to_numpy() for side in ("a", "b"))
found = pd.DataFrame({name: compare("wcka", [of(m) for m in nets], pairs) for name, of in REMEDIES.items()
                      }, table.index).rename(columns={"wCKA": "wcka"}).join(table[["cka", "procrustes"]])
remedied = pd.concat({factor: statistics.compare_measures(part["start a"], part["start b"], part.agreement, found.loc[part.index])
                      for factor, part in table.groupby("differs", sort=False)}, names=["differs"])

# %% tags=["hide-input"]
named = {**MEASURE_LABELS, **{name: f"wCKA, {name}" for name in REMEDIES if name != "wCKA"}}
text = {factor: [f"{row.r:.2f}" + (f" ({figures.mark(row['p model'], -row.difference)})" if measure != "wcka" else "")
                 for measure, row in part.droplevel(0).iterrows()] for factor, part in remedied.groupby("differs", sort=False)}
pd.DataFrame(text, [named[m] for m in remedied.index.unique(1)])

# %% tags=["remove-cell"]
others = remedied.drop("wcka", level=1)
better = others[(others.difference < 0) & (others["p model"] < 0.05)]
worse = others[(others.difference > 0) & (others["p model"] < 0.05)]
for name, rows in (("better", better), ("worse", worse)):
    glue(f"remedies-{name}", "; ".join(f"{named[m]} ({factor})" for factor, m in rows.index) or "none", display=False)

# %% [markdown]
# Marks: + where it is ahead of plain wCKA, − where it is behind, * significant at the 5 % level over starts, n.s. otherwise. Surely ahead:
# {glue:text}`remedies-better`. Surely behind: {glue:text}`remedies-worse`.
#
# ## What to conclude from a value
#
# The ranges come from this chapter's networks, so from one task; take those of your own. Untrained networks of the
# shape cost nothing (`python -m wcka compare` has them), seeds cost a training each.

# %% tags=["hide-input"]
ranges = by_shape[["untrained", "lowest", "wCKA", "highest", "agreement"]].rename(columns={
    "untrained": "untrained, mean", "lowest": "seeds, lowest", "wCKA": "seeds, mean", "highest": "seeds, highest"})
ranges.style.format("{:.2f}")

# %% [markdown]
# | wCKA | suggests | does not show | rather use |
# | :--- | :--- | :--- | :--- |
# | **high**, above the highest of independent seeds of the same shape | a common origin: one training run, a copy, a fine-tuned copy; or somebody wants you to think so | that they behave alike: biases, signs and activations are not in it | agreement on images, to know behaviour |
# | **middling**, within the range of seeds of the same shape | the same task, learned with the same inputs | which of two such pairs is more alike, if widths or depths differ | CKA or agreement, if you have images |
# | **low**, below that range, or as untrained networks | nothing yet: see whether the border, dead units, global pooling or depth hide what they share | that they behave differently | wCKA weighted by spread or covariance; CKA; agreement |
#
# Prefer another measure when you have inputs and want to know about behaviour (agreement is the thing itself), when
# networks are deep, or end in a mean over places ([chapter 5](05-architectures)), and when someone gains by the answer.
#
# ## The paper's claims in this chapter

# %% tags=["hide-input"]
def spans(row, column="wCKA"):
    """Median and range over seeds."""
    values = every.xs(row, level=2)[column]
    return interval(values.median(), values.min(), values.max())


alike = by_shape[by_shape.agreement > by_shape.agreement.max() - 0.1]
claims.show([
    claims.Claim("4", "wCKA's setpoints match: one value means the same likeness, whatever the architecture",
                 f"between seeds, over {len(alike)} shapes whose agreement is within 0.1 of the highest: wCKA "
                 f"{alike.wCKA.min():.2f} to {alike.wCKA.max():.2f}, CKA {alike.CKA.min():.2f} to {alike.CKA.max():.2f}",
                 verdicts.verdict(np.ptp(alike.wCKA) <= 0.1)),
    claims.Claim("1", "wCKA is invariant to permutations and intertwiners: what leaves a ReLU network's function alone",
                 f"wider {spans('wider')}, deeper {spans('deeper')}; but border redrawn {spans('border redrawn')}, "
                 f"dead units {spans('dead units')}, logits lifted {spans('all logits lifted')}",
                 verdicts.verdict(*(value.wCKA[name] > 0.99 for name in
                                  ("wider", "deeper", "border redrawn", "dead units", "all logits lifted")))),
    claims.Claim("1", "Other metrics can be manipulated; wCKA cannot, as it does without probes",
                 f"with a random chain and the same function: wCKA {spans('a random chain')}, agreement "
                 f"{spans('a random chain', 'agreement')}; by gradients: wCKA {moves.loc['wCKA away', 'wCKA, after']:.2f}, agreement "
                 f"{moves.loc['wCKA away', 'agreement']:.3f} (two seeds: {value.loc['another seed', 'wCKA']:.2f}, "
                 f"{value.loc['another seed', 'agreement']:.3f})",
                 verdicts.verdict(not (value.wCKA["a random chain"] < 0.5 and value.agreement["a random chain"] > 0.99))),
    claims.Claim("4", "wCKA can ensure similarity to a trusted model",
                 f"an untrained network with the trusted one's chain: wCKA {spans('impersonated')}, agreement "
                 f"{spans('impersonated', 'agreement')}; signs flipped: {spans('signs flipped')}, "
                 f"{spans('signs flipped', 'agreement')}",
                 verdicts.verdict(value.wCKA["impersonated"] < 0.99, value.wCKA["signs flipped"] < 0.99)),
])

# %% [markdown]
# ## To take away
#
# - One function on bounded inputs can have any chain, and one chain belongs to any function.
# - What happens by itself: inputs that never vary keep their initial weights (weigh by spread), units die (prune them, or weigh by the
#   covariance), and depth takes wCKA down faster than agreement (the covariance mends some of it).
# - What an adversary can do: impersonation defeats every remedy here, and gradients move wCKA and CKA alike.
# - A value is read beside the floor and the seeds of the same shape, or not at all.
