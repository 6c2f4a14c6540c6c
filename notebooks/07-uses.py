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
# # What it is good for
#
# The paper ends with three promises (section 4): wCKA could ensure that a network is like a trusted one, build
# ensembles that are truly diverse, and guide pruning. It shows none of them. Here each is tried on real data, beside a baseline that
# somebody would use today.
#
# After this chapter you can
#
# - tell a network's descendants from strangers, also when somebody has shuffled and rescaled the weights to hide the descent;
# - say whether low wCKA picks a better ensemble than chance does;
# - say whether wCKA warns, without data, before pruning costs accuracy.

# %% tags=["hide-input"]
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue
from torch.nn.functional import nll_loss

import wcka
from wcka.book import claims, distinct, figures, interval, say, verdicts, within
from wcka.experiments import calibration_error, least_similar, matching, statistics, trained
from wcka.measures import compare, nearest, pairwise_agreement
from wcka.networks import Population, edits, image_sets, train
from wcka.weights import symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 07 -p dataset fashion -p other_dataset mnist`.

# %% tags=["parameters"]
dataset: str = "mnist"  # real images: "mnist" or "fashion"
other_dataset: str = "fashion"  # images of another task, for fine-tuning
hidden: list[int] = [64, 64]  # hidden widths of the trusted networks
trusted: int = 5  # trusted networks, of different seeds
train_images: int = 6000  # training images of all ten classes
epochs: int = 10  # passes through them
tuned_images: int = 2000  # other training images, for fine-tuning
tuned_epochs: int = 3  # passes through these
batch_size: int = 64  # images in one step of training
pruned: list[float] = [0.5, 0.8, 0.9, 0.95]  # shares of the weights that copies lose
bits: list[int] = [8, 4, 3]  # of the weights of quantised copies
noisy: list[float] = [0.1, 0.3, 1.0]  # noise on the weights of copies, in their standard deviation
poisoned: float = 0.1  # share of the images with a trigger that a backdoor is trained on
pool: int = 20  # networks that an ensemble is chosen from
members: int = 4  # networks in an ensemble
pool_shapes: list[list[int]] = [[16], [64], [256], [32, 32], [64, 64, 64]]  # hidden widths in the mixed pool
chosen_on: int = 1000  # training images, not trained on, that disagreement is counted on
draws: int = 500  # random ensembles
shown_corruptions: list[str] = ["fog", "glass_blur", "impulse_noise", "rotate", "stripe", "zigzag"]  # what ensembles are tested on
test_images: int = 2000  # test images there, and for CKA
shares: list[float] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99]  # shares of the weights that are pruned, step by step
pruned_shapes: list[list[int]] = [[32], [64, 64], [256], [32, 32, 32, 32]]  # hidden widths of networks that are pruned
tolerated: float = 0.01  # loss of accuracy that is still no harm
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, None)
image_sets.check_classes(other_dataset, None)
distinct(pruned=(pruned, 1), bits=(bits, 1), noisy=(noisy, 1), shares=(shares, 3),
         pool_shapes=(pool_shapes, 2), pruned_shapes=(pruned_shapes, 2), shown_corruptions=(shown_corruptions, 1))
for name in shown_corruptions:
    nearest(name, wcka.CORRUPTIONS, "corruption")
within(train_images=(train_images, 100, 50000), epochs=(epochs, 1, 1000), tuned_epochs=(tuned_epochs, 1, 1000),
       tuned_images=(tuned_images, 100, 60000 - train_images - chosen_on), batch_size=(batch_size, 1, 60000),
       poisoned=(poisoned, 0, 1), members=(members, 2, pool), pool=(pool, len(pool_shapes), 40), draws=(draws, 10, 100000),
       chosen_on=(chosen_on, 10, 10000), test_images=(test_images, 100, 10000), tolerated=(tolerated, 0, 1),
       shares=(shares, 0, 1), pruned=(pruned, 0, 1), bits=(bits, 2, 16), noisy=(noisy, 0, 1e6), hidden=(hidden, 1, 10000),
       pool_shapes=(pool_shapes, 1, 10000), pruned_shapes=(pruned_shapes, 1, 10000), trusted=(trusted, 3, 1000), seed=(seed, 0, 2**31))

# %% [markdown]
# ## Likeness to a trusted model
#
# You have a network that you trust, and somebody brings one that is said to come from it. Does it? There are
# {glue:text}`n-trusted` trusted networks here, fully connected, of different seeds. Each has **descendants**:
#
# - *fine-tuned* on further images of the task, for some epochs and for thrice as many, on corrupted images (fog), and on another
#   task altogether;
# - *backdoored*: fine-tuned on images some of which wear a small white square, and then the label 0;
# - *pruned*, *quantised* and *noisy* copies, mildly to severely.
#
# The other networks, with all their descendants, are **strangers**: trained alike on the same images from other initial weights.

# %%
ten = list(range(10))


def model(shape, seeds, **changes):
    return {"architecture": {"factory": "mlp", "widths": [784, *shape, 10], "activation": "relu"},
            "seeds": list(seeds), "dataset": dataset, "classes": ten, "images": train_images, "epochs": epochs,
            "batch_size": batch_size, "seed": seed, **changes}


family = trained(**model(hidden, range(seed, seed + trusted)))


def held_out(name, count, skip=0):
    """Training images that no network was trained on, with their labels."""
    images, labels = image_sets.load(name, "train", ten)
    order = np.random.default_rng([seed, *b"images"]).permutation(len(labels))[train_images + skip:][:count]
    return images[order], torch.from_numpy(labels[order])


def tuned(images, labels, times=1):
    """All trusted networks, trained further."""
    return train(family, image_sets.as_inputs(images) if isinstance(images, np.ndarray) else images, labels, times * tuned_epochs,
                 batch_size=batch_size, seed=seed)


more, more_labels = held_out(dataset, tuned_images)
poison, poison_labels = edits.backdoor(image_sets.as_inputs(more), more_labels, poisoned, seed=seed)
populations = {"fine-tuned": tuned(more, more_labels), "fine-tuned, longer": tuned(more, more_labels, times=3),
               "fine-tuned, fog": tuned(wcka.corrupt(more, "fog", seed), more_labels),
               "fine-tuned, other task": tuned(*held_out(other_dataset, tuned_images)),
               "backdoored": tuned(poison, poison_labels)}
changes: dict[str, Callable] = {
    **{f"pruned, {share:.0%}": lambda m, i, share=share: edits.prune(m, share) for share in pruned},
    **{f"quantised, {b} bits": lambda m, i, b=b: edits.quantise(m, b) for b in bits},
    **{f"noisy, {size:g}": lambda m, i, size=size: edits.add_noise(m, size, seed + i) for size in noisy}}
originals = [family.member(i) for i in range(trusted)]
copies = {**{name: [p.member(i) for i in range(trusted)] for name, p in populations.items()},
          **{name: [change(m, i) for i, m in enumerate(originals)] for name, change in changes.items()}}

# %% [markdown]
# Five ways to score a suspect against a trusted network. Without data: wCKA; the **cosine of all weights**, the obvious thing to try; the
# **cosine after matching**, where units are first normalised and assigned to each other, layer by layer (mean of the layers' cosines). With
# data: CKA of the last hidden layer and agreement, on test images. First as the suspects are; then after an **adversary** has
# shuffled the hidden units of every suspect and rescaled each by a random factor, which changes nothing that it does.

# %% tags=["hide-input"]
images, labels = image_sets.load(dataset, "test", ten)
x, y = image_sets.as_inputs(images[:test_images]), torch.from_numpy(labels[:test_images])


def hide(network, i):
    return symmetry.rescale(symmetry.permute(network, seed + i), seed + i)


def scores(suspects, ancestors, kinds):
    """Every suspect against every trusted network: a row a pair."""
    with torch.no_grad():
        outputs = [[(m[:-1](x), m(x).argmax(1)) for m in some] for some in (originals, suspects)]
    both = [*originals, *suspects]
    a, b = (part.ravel() for part in np.meshgrid(range(trusted), trusted + np.arange(len(suspects)), indexing="ij"))
    flat = torch.stack([matching.flat_weights(m) for m in both]).double()
    flat = flat / flat.norm(dim=1, keepdim=True)
    seen = [*outputs[0], *outputs[1]]
    agreement = pairwise_agreement(torch.stack([guess for _, guess in seen]))
    return pd.DataFrame({
        "trusted": a, "kind": np.array(kinds)[b - trusted], "descends": np.array(ancestors)[b - trusted] == a,
        "wCKA": compare("wcka", [wcka.chain(m) for m in both], (a, b)), "cosine of weights": (flat @ flat.T)[a, b],
        "cosine, matched": [matching.matched_cosine(both[i], both[j]) for i, j in zip(a, b)],
        "CKA": compare("cka", [h for h, _ in seen], (a, b)), "agreement": agreement[a, b]})


suspects = [m for some in copies.values() for m in some]
ancestors = [i for some in copies.values() for i in range(len(some))]
kinds = [kind for kind, some in copies.items() for _ in some]
METHODS = ("wCKA", "cosine of weights", "cosine, matched", "CKA", "agreement")
judged = {"as they are": scores(suspects, ancestors, kinds),
          "shuffled and rescaled": scores([hide(m, i) for i, m in enumerate(suspects)], ancestors, kinds)}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-roc", "caption": "Telling descendants of a trusted network from strangers, ROC curves: share of descendants found against share of strangers wrongly called descendants, by each score. Left: suspects as they are. Right: after an adversary shuffled and rescaled their hidden units. The false alarms' axis is logarithmic."}, "image": {"alt": "Two panels of ROC curves for wCKA, the cosine of weights, the same after matching, CKA and agreement; in the right panel the raw cosine and CKA drop."}}
COLOURS = {"wCKA": figures.MEASURE_COLORS["wcka"], "cosine of weights": figures.MEASURE_COLORS["procrustes"],
           "cosine, matched": figures.ENSEMBLE_COLORS["random"], "cosine, by layers": figures.ENSEMBLE_COLORS["random"],
           "CKA": figures.MEASURE_COLORS["cka"], "agreement": figures.PROBE_COLORS["clean"]}


def roc(rows, method):
    """False and true positive rates at every threshold."""
    ordered = rows.sort_values(method, ascending=False).descends
    return (~ordered).cumsum() / (~ordered).sum(), ordered.cumsum() / ordered.sum()


fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4), sharey=True)
for axes, (title, rows) in zip(panels, judged.items()):
    least = 0.7 / (~rows.descends).sum()
    for method in METHODS:
        false, true = roc(rows, method)
        axes.step([least, *np.maximum(false, least)], [0, *true], where="post", color=COLOURS[method], label=method,
                  lw=2.2 if method == "wCKA" else 1.5)
    axes.set(xscale="log", title=title, xlabel="strangers called descendants", xlim=(least, 1), ylim=(-0.02, 1.03))
panels[0].set_ylabel("descendants found")
fig.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, columnspacing=1)
plt.show()

# %% [markdown]
# The same by kind of descendant: the area under the curve, which is the chance that a descendant of that kind scores above a
# stranger. One half is guessing.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-kinship", "caption": "Area under the ROC curve of telling each kind of descendant from all strangers, by five scores. Left: as they are. Right: hidden units shuffled and rescaled."}, "image": {"alt": "Two heat maps with a row for each kind of descendant and a column for each score; the cells hold the area under the ROC curve."}}
def areas(rows):
    """Area under the ROC curve of each kind of descendant against all strangers."""
    strangers, own = rows[~rows.descends], rows[rows.descends]
    return pd.DataFrame({method: {kind: statistics.overlap(part[method], strangers[method])
                                  for kind, part in own.groupby("kind", sort=False)} for method in METHODS})


table = {title: areas(rows) for title, rows in judged.items()}
fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 0.34 * len(copies) + 1.2))
for axes, (title, values) in zip(panels, table.items()):
    figures.heat_map(axes, values, cmap="cividis", vmin=0.5, vmax=1, cbar=False,
                     yticklabels=axes is panels[0])
    axes.set_title(title)
    axes.set_xticklabels(axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
plt.show()

# %% tags=["remove-cell"]
say("n-trusted", trusted, "d")
whole = {title: {method: statistics.overlap(rows[rows.descends][method], rows[~rows.descends][method]) for method in METHODS}
         for title, rows in judged.items()}
for short, title in (("plain", "as they are"), ("hidden", "shuffled and rescaled")):
    for method, name in zip(METHODS, ("wcka", "cosine", "matched", "cka", "agreement")):
        if (short, name) not in (("hidden", "agreement"), ("plain", "matched")):
            say(f"auc-{short}-{name}", whole[title][method], ".3f")
seen = judged["as they are"]
hardest = table["shuffled and rescaled"].wCKA.idxmin()
glue("hardest", hardest, display=False)
say("hardest-auc", table["shuffled and rescaled"].wCKA[hardest], ".2f")
triggered, _ = edits.backdoor(x[y > 0], y[y > 0], 1.0)
with torch.no_grad():
    clean_copies = copies["fine-tuned"], copies["backdoored"]
    fooled = [np.mean([(m(triggered).argmax(1) == 0).double().mean() for m in some]) for some in clean_copies]
    right = [np.mean([wcka.agreement(m(x).argmax(1), y) for m in some]) for some in clean_copies]
for name, value in zip(("benign", "poisoned"), fooled):
    say(f"fooled-{name}", 100 * value, ".0f")
for name, value in zip(("benign", "poisoned"), right):
    say(f"right-{name}", 100 * value, ".1f")
by_kind = {kind: part.wCKA for kind, part in seen[seen.descends].groupby("kind")}
backdoored, benign = by_kind["backdoored"], pd.concat(
    [by_kind[kind] for kind in ("fine-tuned", "fine-tuned, longer", "fine-tuned, fog")])
backdoor_noticed = statistics.overlap(benign, backdoored)
for name, values in (("benign", by_kind["fine-tuned"]), ("longer", by_kind["fine-tuned, longer"]),
                     ("fog", by_kind["fine-tuned, fog"]), ("poisoned", backdoored)):
    glue(f"wcka-{name}", interval(values.median(), values.min(), values.max(), ".3f"), display=False)
say("auc-backdoor", backdoor_noticed, ".2f")

# %% [markdown]
# As they are, descendants are told from strangers with an area of {glue:text}`auc-plain-wcka` by wCKA, {glue:text}`auc-plain-cosine` by the cosine
# of weights, {glue:text}`auc-plain-cka` by CKA and {glue:text}`auc-plain-agreement` by agreement. Once the units are shuffled and rescaled,
# the cosine is at {glue:text}`auc-hidden-cosine`, and CKA, which minds the scale of units, at {glue:text}`auc-hidden-cka`; wCKA stays at
# {glue:text}`auc-hidden-wcka`. But this adversary moves within wCKA's own symmetries, and a cosine that first matches the
# units has {glue:text}`auc-hidden-matched`. What wCKA loses are copies that were damaged: hardest is
# *{glue:text}`hardest`* ({glue:text}`hardest-auc`). Such a copy keeps its largest weights where they were, which a cosine sees; their
# product through all layers is soon another one. Where shapes are equal, match and compare weights; wCKA needs no
# matching, and compares different shapes as well. CKA and agreement see the task more than the descent: strangers learned the same.
#
# **What this does not do.** Descent is not innocence. A backdoored copy gives the label 0 to {glue:text}`fooled-poisoned` % of the test images
# of other classes that wear the square (a benign fine-tuned one: {glue:text}`fooled-benign` %), at a clean accuracy of {glue:text}`right-poisoned` %
# ({glue:text}`right-benign` %). Its wCKA with the trusted network is {glue:text}`wcka-poisoned` (median and range over seeds). Copies tuned on the same
# images without the square have {glue:text}`wcka-benign`, for thrice as long {glue:text}`wcka-longer`; those tuned on fog
# {glue:text}`wcka-fog`. A benign copy of these three kinds scores above a backdoored one with a chance of
# {glue:text}`auc-backdoor`. If you know how long a copy was tuned, a difference may show; in general longer tuning moves it more than a
# backdoor does. The number says how far a copy went, not where to. And
# [chapter 6](06-failures) gives any network any chain: a high wCKA is evidence among honest people.
#
# ## Diverse ensembles
#
# An ensemble gains by members that err differently. Choose {glue:text}`n-members` of {glue:text}`n-pool` networks by the lowest mean
# pairwise wCKA, trying all sets; and for comparison
#
# - at random (`draws` times: the distribution to beat);
# - by the lowest mean agreement on some held-out images (`chosen_on`, no labels);
# - by the highest accuracy on the same images, which needs labels.
#
# Two pools: networks that differ in the seed only, and networks of several shapes. Ensembles average the members'
# probabilities. They are tested on clean and on corrupted test images (`shown_corruptions`): accuracy; negative log-likelihood; and
# calibration error, the mean gap between confidence and accuracy.

# %% tags=["hide-input"]
shapes = {"one shape": [hidden], "several shapes": pool_shapes}
pools: dict[str, list[Population]] = {
    name: [trained(**model(shape, range(seed + 100, seed + 100 + number)))
           for shape, number in zip(of, [len(part) for part in np.array_split(range(pool), len(of))])]
    for name, of in shapes.items()}
probes = {"clean": x, **{name: image_sets.as_inputs(wcka.corrupt(images[:test_images], name, seed)) for name in shown_corruptions}}
held, held_labels = held_out(dataset, chosen_on, skip=tuned_images)
held = image_sets.as_inputs(held)


def judge(probabilities):
    """Accuracy, negative log-likelihood and calibration error of an ensemble's mean probabilities."""
    return {"accuracy": float((probabilities.argmax(1) == y).double().mean()),
            "log-likelihood": -float(nll_loss(probabilities.clamp(min=1e-12).log(), y)),
            "calibration error": calibration_error(probabilities, y)}


choices: list[dict] = []


def ensembles(pool_name, populations):
    """What every way of choosing gives, on each probe; random draws numbered."""
    nets = [p.member(i) for p in populations for i in range(len(p))]
    similarity = compare("wcka", [wcka.chain(m) for m in nets])
    with torch.no_grad():
        guesses = torch.stack([m(held).argmax(1) for m in nets])
        outputs = {name: torch.stack([m(seen).softmax(1) for m in nets]) for name, seen in probes.items()}
    right = (guesses == held_labels).double().mean(1)
    rng = np.random.default_rng(seed)
    chosen = {"low wCKA": least_similar(similarity, members),
              "low agreement": least_similar(pairwise_agreement(guesses), members),
              "high accuracy": right.topk(members).indices.numpy(),
              **{f"random {i}": rng.permutation(len(nets))[:members] for i in range(draws)}}
    rows = [{"chosen by": name, "probe": probe, **judge(of[some].mean(0))}
            for name, some in chosen.items() for probe, of in outputs.items()]
    for name, some in list(chosen.items())[:3]:
        pair = np.triu_indices(members, 1)
        agreed = pairwise_agreement(outputs["clean"].argmax(-1))[np.ix_(some, some)][pair]
        choices.append({"pool": pool_name, "chosen by": name, "mean wCKA": similarity[np.ix_(some, some)][pair].mean(),
                        "mean agreement": agreed.mean(),
                        "mean accuracy": float((outputs["clean"].argmax(-1)[some] == y).double().mean()),
                        "hidden widths": ", ".join("-".join(str(layer.out_features) for layer in nets[i][1:-1:2]) for i in some)})
    return pd.DataFrame(rows).assign(alike=lambda t: t["chosen by"].map(
        {name: similarity[np.ix_(some, some)][np.triu_indices(members, 1)].mean() for name, some in chosen.items()}))


found = pd.concat({name: ensembles(name, populations) for name, populations in pools.items()}, names=["pool"]).reset_index("pool")
picked = pd.DataFrame(choices).set_index(["pool", "chosen by"]).rename_axis([None, None])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles-chosen", "caption": "Ensembles chosen in three ways (dots) among ensembles drawn at random (grey, enhanced box plots): accuracy, log-likelihood and calibration error, on clean and on corrupted test images (mean over corruptions). Up is better in the first two, down in the last. Left column of each panel: a pool of one shape; right: of several shapes."}, "image": {"alt": "Six panels in two rows, clean and corrupted; in each, grey enhanced box plots of random ensembles for two pools, with three dots for the ensembles chosen by low wCKA, low agreement and high accuracy."}}
CHOSEN = {"low wCKA": figures.MEASURE_COLORS["wcka"], "low agreement": figures.PROBE_COLORS["clean"], "high accuracy": figures.MEASURE_COLORS["dcka"]}
SCORES = ("accuracy", "log-likelihood", "calibration error")
tested = found.assign(images=np.where(found["probe"] == "clean", "clean", "corrupted"))
tested = tested.groupby(["pool", "chosen by", "images"], sort=False)[[*SCORES, "alike"]].mean().reset_index()
fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5.2))
for seen_on, line in zip(("clean", "corrupted"), panels):
    for score, axes in zip(SCORES, line):
        part = tested[tested.images == seen_on]
        randoms = part[part["chosen by"].str.startswith("random")]
        figures.boxen(axes, randoms, x="pool", y=score, order=list(shapes), color="#CCCCCC", width=0.5)
        for name, color in CHOSEN.items():
            values = part[part["chosen by"] == name].set_index("pool")[score]
            axes.plot(range(len(shapes)), values[list(shapes)], "o", color=color, ms=7, mec="white",
                      label=name if (seen_on, score) == ("clean", "accuracy") else None)
        axes.set(xlabel="", ylabel="", title=score if seen_on == "clean" else "")
        axes.tick_params(axis="x", rotation=15)
    line[0].set_ylabel(seen_on)
fig.legend(loc="outside upper center", ncols=3)
plt.show()

# %% tags=["hide-input"]
def rank(part, score):
    """Share of random ensembles that a chosen one is better than."""
    randoms = part[part["chosen by"].str.startswith("random")][score]
    sign = -1 if score == "calibration error" else 1
    return part[~part["chosen by"].str.startswith("random")].set_index("chosen by")[score].map(
        lambda value: (sign * value > sign * randoms).mean() + 0.5 * (value == randoms).mean())


ranks = pd.concat({(name, seen_on): pd.DataFrame({score: rank(part, score) for score in SCORES})
                   for (name, seen_on), part in tested.groupby(["pool", "images"], sort=False)})
ranks.rename_axis([None] * 3).style.format("{:.0%}")

# %% tags=["remove-cell"]
say("n-members", members, "d")
say("n-pool", pool, "d")
of_wcka = ranks.xs("low wCKA", level=2)
of_agreement = ranks.xs("low agreement", level=2)
for name in shapes:
    short = name.split()[0]
    for seen_on in ("clean", "corrupted"):
        say(f"rank-{short}-{seen_on}", 100 * of_wcka.accuracy[name, seen_on], ".0f")
    say(f"rank-agreement-{short}", 100 * of_agreement.accuracy[name, "corrupted"], ".0f")
randoms = tested[tested["chosen by"].str.startswith("random") & (tested.images == "corrupted")]
for name, part in randoms.groupby("pool"):
    say(f"r-alike-{name.split()[0]}", part.alike.corr(part.accuracy), "+.2f")

# %% [markdown]
# The table says which share of random ensembles each choice beats. By accuracy on corrupted images the ensemble of low wCKA beats
# {glue:text}`rank-one-corrupted` % of the random ones in the pool of one shape and {glue:text}`rank-several-corrupted` % in the pool of several (on
# clean images {glue:text}`rank-one-clean` % and {glue:text}`rank-several-clean` %); the ensemble of low agreement
# {glue:text}`rank-agreement-one` % and {glue:text}`rank-agreement-several` %. Over the random ensembles, mean pairwise wCKA and accuracy
# on corrupted images are correlated by {glue:text}`r-alike-one` (one shape) and {glue:text}`r-alike-several` (several): below zero means that
# low wCKA is worth something, above zero that it picks the wrong ones. Two pools are two examples: a rank that is not near 0 or 100 %
# cannot be told from chance. How much the chosen ones differ, and which shapes they have:

# %% tags=["hide-input"]
picked.style.format({"mean wCKA": "{:.2f}", "mean agreement": "{:.3f}", "mean accuracy": "{:.3f}"})

# %% [markdown]
#
# ## Pruning
#
# Prune the smallest weights step by step (`shares`). Accuracy holds for long and then falls. Does wCKA between the pruned
# network and the whole one fall *before*, so that one could stop in time without data? The obvious rivals need no data either: the
# cosine of weights (nearly the square root of the share of the weights' squared norm that is left), the product of the layers' cosines, which
# knows of depth, and simply the share that is left.

# %% tags=["hide-input"]
rows = []
for shape in pruned_shapes:
    population = trained(**model(shape, range(seed, seed + trusted)))
    for i in range(trusted):
        network = population.member(i)
        with torch.no_grad():
            base, before = network[:-1](x), float((network(x).argmax(1) == y).double().mean())
            for share in shares:
                less = edits.prune(network, share)
                rows.append({
                    "shape": "-".join(map(str, shape)), "seed": i, "share": share,
                    "lost": before - float((less(x).argmax(1) == y).double().mean()),
                    "wCKA": compare("wcka", [wcka.chain(less), wcka.chain(network)])[0, 1],
                    "cosine of weights": float(torch.cosine_similarity(matching.flat_weights(less), matching.flat_weights(network), 0)),
                    "cosine, by layers": float(torch.stack([
                        torch.cosine_similarity(p.flatten(), q.flatten(), 0) for p, q in zip(less.parameters(), network.parameters())
                        if p.ndim > 1]).prod()),
                    "share left": 1 - share, "CKA": compare("cka", [less[:-1](x), base])[0, 1]})
steps = pd.DataFrame(rows)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pruning", "caption": "Magnitude pruning of networks of several shapes (panels: hidden widths). Against the share of weights pruned: one minus the accuracy lost (black), wCKA with the whole network (orange), the product of the layers' cosines (green), and CKA of the last hidden layer with data (blue). Medians over seeds; the dotted line is where the tolerated loss is passed."}, "image": {"alt": "Panels of lines, one for each shape: wCKA, the product of layers' cosines, CKA and accuracy left against the share of weights pruned; all fall as the share nears one."}}
fig, panels = plt.subplots(1, len(pruned_shapes), figsize=(figures.WIDTH, 3), sharey=True)
for axes, (shape, part) in zip(np.atleast_1d(panels), steps.groupby("shape", sort=False)):
    middle = part.groupby("share").median(numeric_only=True)
    for column in ("wCKA", "cosine, by layers", "CKA"):
        axes.plot(middle[column], color=COLOURS[column], label=column, lw=2.2 if column == "wCKA" else 1.5)
    axes.plot(1 - middle.lost, color=COLOURS["agreement"], label="1 − accuracy lost")
    harmed = middle.index[middle.lost > tolerated]
    if len(harmed):
        axes.axvline(harmed[0], ls=":", color=figures.QUIET, lw=1.2)
    axes.set(title=shape, xlabel="share pruned", ylim=(0, 1.03))
np.atleast_1d(panels)[0].set_ylabel("similarity, accuracy")
fig.legend(*np.atleast_1d(panels)[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
plt.show()

# %% [markdown]
# A warning is a threshold that holds for networks it was not set on. So for each score: how well does it tell steps that lost more
# than the tolerated accuracy (`tolerated`) from those that did not, over all shapes and seeds together (area under the ROC curve)? And
# if the threshold is set on all other shapes, so that it misses at most one harmed step in twenty, which share of the harmed steps of
# the shape left out is caught, and which share of its harmless steps raises a false alarm?

# %%
def warning(score):
    """Area under the curve over all steps; caught and false alarms with a threshold from other shapes."""
    harmed = steps.lost > tolerated
    caught, alarms = [], []
    for shape in steps["shape"].unique():
        there = steps["shape"] == shape
        threshold = steps[~there & harmed][score].quantile(0.95)
        caught.append((steps[there & harmed][score] <= threshold).mean())
        alarms.append((steps[there & ~harmed & (steps.share > 0)][score] <= threshold).mean())
    return {"area under the curve": statistics.overlap(steps[~harmed][score], steps[harmed][score]),
            "harmed steps caught": np.nanmean(caught), "lowest, by shape": np.nanmin(caught),
            "false alarms": np.nanmean(alarms), "highest, by shape": np.nanmax(alarms)}


SIGNS = ("wCKA", "cosine of weights", "cosine, by layers", "share left", "CKA")
warned = pd.DataFrame({score: warning(score) for score in SIGNS}).T
warned.style.format("{:.2f}")

# %% tags=["remove-cell"]
for score, short in zip(SIGNS, ("wcka", "cosine", "layers", "share", "cka")):
    say(f"warn-{short}", warned.loc[score, "area under the curve"], ".3f")
    say(f"alarms-{short}", 100 * warned.loc[score, "false alarms"], ".0f")
    say(f"caught-{short}", 100 * warned.loc[score, "harmed steps caught"], ".0f")
edge = steps[steps.lost <= tolerated].sort_values("share").groupby(["shape", "seed"]).wCKA.last()
say("edge-low", edge.min(), ".2f")
say("edge-high", edge.max(), ".2f")

# %% [markdown]
# wCKA tells harmed steps with an area of {glue:text}`warn-wcka`, the cosine of weights with {glue:text}`warn-cosine`, the product of the layers' cosines with
# {glue:text}`warn-layers`, the share left with {glue:text}`warn-share`, and
# CKA, which sees data, with {glue:text}`warn-cka`. With a threshold set on other shapes wCKA catches {glue:text}`caught-wcka` % of the harmed steps at
# {glue:text}`alarms-wcka` % false alarms (cosine: {glue:text}`caught-cosine` % at {glue:text}`alarms-cosine` %; product:
# {glue:text}`caught-layers` % at {glue:text}`alarms-layers` %; share left:
# {glue:text}`caught-share` % at {glue:text}`alarms-share` %; CKA: {glue:text}`caught-cka` % at {glue:text}`alarms-cka` %). At the last harmless step wCKA is anything from
# {glue:text}`edge-low` to {glue:text}`edge-high`, by shape and seed. So it does not fall well before accuracy does, but with it: a gauge more than a
# warning.
#
# ## The paper's claims in this chapter
#
# The paper says "could be used to". We say that it holds where wCKA does better than the best rival that needs no more than it does;
# partly where it does as well (within a hundredth), or only in some cases; and that it fails where a rival is better. A backdoor is
# noticed if every benign copy scores above every backdoored one; partly if the chance is above three in four; else not (one half is guessing). For
# ensembles the rule is: better than 95 % of the random ones on all images and in both pools (holds) or in some (partly); worse than most
# everywhere (fails); with one pool of each kind, anything between cannot be told from chance.

# %% tags=["hide-input"]
def beats(ours, rival, margin=0.01):
    return "holds" if ours > rival + margin else "partly" if ours >= rival - margin else "fails"


hidden_rows = whole["shuffled and rescaled"]
high = (of_wcka.accuracy > 0.95).tolist()
claims.show([
    claims.Claim("4", "wCKA can tell whether a network is like a trusted one (descent, by weights alone)",
                 "area under the curve, shuffled and rescaled: " + ", ".join(f"{m} {hidden_rows[m]:.3f}" for m in METHODS),
                 beats(hidden_rows["wCKA"], max(hidden_rows["cosine of weights"], hidden_rows["cosine, matched"]))),
    claims.Claim("4", "wCKA can ensure likeness to a trusted model (backdoored copies are noticed)",
                 f"median wCKA with the trusted one: backdoored {backdoored.median():.3f}, tuned on clean images "
                 f"{by_kind['fine-tuned'].median():.3f}, for longer {by_kind['fine-tuned, longer'].median():.3f}, on fog {by_kind['fine-tuned, fog'].median():.3f}; chance that a benign one "
                 f"scores above a backdoored one {backdoor_noticed:.2f}",
                 "holds" if backdoor_noticed == 1 else "partly" if backdoor_noticed > 0.75 else "fails"),
    claims.Claim("4", "wCKA can build truly diverse ensembles (more accurate than 95 % of random ones)",
                 "; ".join(f"{name}, {seen_on}: better than {value:.0%}" for (name, seen_on), value in of_wcka.accuracy.items()),
                 verdicts.verdict(*high) if any(high) else "fails" if (of_wcka.accuracy < 0.5).all() else "cannot be told"),
    claims.Claim("4", "wCKA can guide pruning (tells harmed networks, without data)",
                 "area under the curve: " + ", ".join(f"{score} {warned.loc[score, 'area under the curve']:.3f}" for score in SIGNS),
                 beats(warned.loc["wCKA", "area under the curve"],
                       warned.loc[["cosine of weights", "cosine, by layers", "share left"], "area under the curve"].max())),
])

# %% [markdown]
# ## To take away
#
# - **Descent:** wCKA knows fine-tuned, quantised and moderately pruned or noisy copies from strangers without data, and does not mind shuffled
#   and rescaled units. For networks of one shape, matching the units and comparing their weights does at least as well, and also knows
#   copies that were damaged.
# - **Safety:** a backdoored copy is a descendant like any other. Look at what it does.
# - **Ensembles:** nothing here says that low wCKA picks better ensembles than chance. Nor did counting disagreement, here.
# - **Pruning:** wCKA falls with accuracy, without data, in networks of all shapes tried here. It gauges the harm; it does not come
#   early.
