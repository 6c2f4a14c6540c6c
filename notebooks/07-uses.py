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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue
from torch.nn.functional import nll_loss

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
    interval,
    say,
    verdicts,
    within,
)
from wcka.experiments import (
    calibration_error,
    least_similar,
    matching,
    statistics,
    trained,
)
from wcka.measures import compare, nearest, pairwise_agreement
from wcka.networks import edits, image_sets, train
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
# shares of the weights that copies lose
pruned: list[float] = [0.5, 0.8, 0.9, 0.95]
bits: list[int] = [8, 4, 3]  # of the weights of quantised copies
# noise on the weights of copies, in their standard deviation
noisy: list[float] = [0.1, 0.3, 1.0]
# share of the images with a trigger that a backdoor is trained on
poisoned: float = 0.1
pool: int = 20  # networks that an ensemble is chosen from
members: int = 4  # networks in an ensemble
# hidden widths in the mixed pool
pool_shapes: list[list[int]] = [[16], [64], [256], [32, 32], [64, 64, 64]]
# training images, not trained on, that disagreement is counted on
chosen_on: int = 1000
draws: int = 500  # random ensembles
# what ensembles are tested on
shown_corruptions: list[str] = [
    "fog", "glass_blur", "impulse_noise", "rotate", "stripe", "zigzag"]
test_images: int = 2000  # test images there, and for CKA
# shares of the weights that are pruned, step by step
shares: list[float] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97,
    0.98, 0.99]
# hidden widths of networks that are pruned
pruned_shapes: list[list[int]] = [[32], [64, 64], [256], [32, 32, 32, 32]]
tolerated: float = 0.01  # loss of accuracy that is still no harm
seed: int = 0  # of the first network and of all draws

# %% tags=["hide-input", "checks"]
image_sets.check_classes(dataset, None)
nearest(other_dataset, image_sets.DATASETS, "other_dataset")
distinct(
    pruned=(pruned, 1),
    bits=(bits, 1),
    noisy=(noisy, 1),
    shares=(shares, 3),
    pool_shapes=(pool_shapes, 2),
    pruned_shapes=(pruned_shapes, 2),
    shown_corruptions=(shown_corruptions, 1),
)
for name in shown_corruptions:
    nearest(name, wcka.CORRUPTIONS, "corruption in shown_corruptions")
within(
    train_images=(train_images, 100, 50000),
    chosen_on=(chosen_on, 10, 10000),
    epochs=(epochs, 1, 1000),
    tuned_epochs=(tuned_epochs, 1, 1000),
    tuned_images=(tuned_images, 100, 60000 - train_images - chosen_on),
    batch_size=(batch_size, 1, 60000),
    poisoned=(poisoned, 0, 1),
    pool=(pool, len(pool_shapes), 40),
    members=(members, 2, pool),
    draws=(draws, 10, 100000),
    test_images=(test_images, 100, 10000),
    tolerated=(tolerated, 0, 1),
    shares=(shares, 0, 1),
    pruned=(pruned, 0, 1),
    bits=(bits, 2, 16),
    noisy=(noisy, 0, 1e6),
    hidden=(hidden, 1, 10000),
    pool_shapes=(pool_shapes, 1, 10000),
    pruned_shapes=(pruned_shapes, 1, 10000),
    trusted=(trusted, 3, 1000),
    seed=(seed, 0, 2**31),
)

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
all_classes = list(range(10))


def train_networks(shape, seeds):
    """Train fully connected networks that differ in their seeds only."""
    architecture = {
        "factory": "mlp",
        "widths": [784, *shape, 10],
        "activation": "relu",
    }
    return trained(
        architecture=architecture, seeds=list(seeds), dataset=dataset,
        classes=all_classes, images=train_images, epochs=epochs,
        batch_size=batch_size, seed=seed)


def held_out(name, count, skip=0):
    """Return training images that no network was trained on, and labels."""
    images, labels = image_sets.load(name, "train", all_classes)
    # `trained` takes the first `train_images` of the same random order.
    rng = np.random.default_rng([seed, *b"images"])
    order = rng.permutation(len(labels))
    first = train_images + skip
    rows = order[first:first + count]
    return images[rows], torch.from_numpy(labels[rows])


def fine_tune(inputs, labels, epochs=tuned_epochs):
    """Return copies of all trusted networks that are trained further."""
    return train(trusted_networks, inputs, labels, epochs,
                 batch_size=batch_size, seed=seed)


def networks_of(population):
    """Return the networks of a population as a list of modules."""
    return [population.member(i) for i in range(len(population))]


trusted_networks = train_networks(hidden, range(seed, seed + trusted))
originals = networks_of(trusted_networks)

tuning_images, tuning_labels = held_out(dataset, tuned_images)
tuning_inputs = image_sets.as_inputs(tuning_images)
foggy_images = wcka.corrupt(tuning_images, "fog", seed)
foggy_inputs = image_sets.as_inputs(foggy_images)
other_images, other_labels = held_out(other_dataset, tuned_images)
other_inputs = image_sets.as_inputs(other_images)
backdoor_inputs, backdoor_labels = edits.backdoor(
    tuning_inputs, tuning_labels, poisoned, seed=seed)

tuned_populations = {
    "fine-tuned": fine_tune(tuning_inputs, tuning_labels),
    "fine-tuned, longer": fine_tune(
        tuning_inputs, tuning_labels, epochs=3 * tuned_epochs),
    "fine-tuned, fog": fine_tune(foggy_inputs, tuning_labels),
    "fine-tuned, other task": fine_tune(other_inputs, other_labels),
    "backdoored": fine_tune(backdoor_inputs, backdoor_labels),
}

# Descendants by their kind: one per trusted network, in the same order.
descendants = {}
for kind, population in tuned_populations.items():
    descendants[kind] = networks_of(population)
for share in pruned:
    descendants[f"pruned, {share:.0%}"] = [
        edits.prune(network, share) for network in originals]
for bit_count in bits:
    descendants[f"quantised, {bit_count} bits"] = [
        edits.quantise(network, bit_count) for network in originals]
for noise_size in noisy:
    descendants[f"noisy, {noise_size:g}"] = [
        edits.add_noise(network, noise_size, seed + i)
        for i, network in enumerate(originals)]

# %% [markdown]
# Five ways to score a suspect against a trusted network. Without data: wCKA; the **cosine of all weights**, the obvious thing to try; the
# **cosine after matching**, where units are first normalised and assigned to each other, layer by layer (mean of the layers' cosines). With
# data: CKA of the last hidden layer and agreement, on test images. First as the suspects are; then after an **adversary** has
# shuffled the hidden units of every suspect and rescaled each by a random factor, which changes nothing that it does.

# %% tags=["hide-input"]
AS_THEY_ARE = "as they are"
DISGUISED = "shuffled and rescaled"
SCORES = ("wCKA", "cosine of weights", "cosine, matched", "CKA", "agreement")

images, labels = image_sets.load(dataset, "test", all_classes)
images = images[:test_images]
test_inputs = image_sets.as_inputs(images)
test_labels = torch.from_numpy(labels[:test_images])


def disguise(network, disguise_seed):
    """Shuffle and rescale hidden units; the outputs stay the same."""
    shuffled = symmetry.permute(network, disguise_seed)
    return symmetry.rescale(shuffled, disguise_seed)


def score_pairs(suspects, ancestors, kinds):
    """Score every suspect against every trusted network, one row per pair."""
    networks = [*originals, *suspects]
    activations = []
    predictions = []
    with torch.no_grad():
        for network in networks:
            activations.append(network[:-1](test_inputs))
            predictions.append(network(test_inputs).argmax(1))
    agreement = pairwise_agreement(torch.stack(predictions))

    # Positions among the networks: a is the trusted one of a pair, b the
    # suspect.
    suspect_positions = trusted + np.arange(len(suspects))
    a, b = np.meshgrid(range(trusted), suspect_positions, indexing="ij")
    a = a.ravel()  # (pairs,)
    b = b.ravel()  # (pairs,)

    weights = torch.stack(
        [matching.flat_weights(network) for network in networks])
    weights = weights.double()  # (networks, weights)
    weights = weights / weights.norm(dim=1, keepdim=True)
    cosines = weights @ weights.T  # (networks, networks)
    matched_cosines = []
    for i, j in zip(a, b):
        cosine = matching.matched_cosine(networks[i], networks[j])
        matched_cosines.append(cosine)
    chains = [wcka.chain(network) for network in networks]
    return pd.DataFrame({
        "trusted": a,
        "kind": np.array(kinds)[b - trusted],
        "descends": np.array(ancestors)[b - trusted] == a,
        "wCKA": compare("wcka", chains, (a, b)),
        "cosine of weights": cosines[a, b],
        "cosine, matched": matched_cosines,
        "CKA": compare("cka", activations, (a, b)),
        "agreement": agreement[a, b],
    })


suspects = []
ancestors = []  # position of the trusted network that a suspect comes from
kinds = []
for kind, networks in descendants.items():
    for ancestor, network in enumerate(networks):
        suspects.append(network)
        ancestors.append(ancestor)
        kinds.append(kind)
disguised_suspects = []
for i, network in enumerate(suspects):
    disguised_suspects.append(disguise(network, seed + i))

pair_scores = {
    AS_THEY_ARE: score_pairs(suspects, ancestors, kinds),
    DISGUISED: score_pairs(disguised_suspects, ancestors, kinds),
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-roc", "caption": "Telling descendants of a trusted network from strangers, ROC curves: share of descendants found against share of strangers wrongly called descendants, by each score. Left: suspects as they are. Right: after an adversary shuffled and rescaled their hidden units. The false alarms' axis is logarithmic."}, "image": {"alt": "Two panels of ROC curves for wCKA, the cosine of weights, the same after matching, CKA and agreement; in the right panel the raw cosine and CKA drop."}}
COLOURS = {
    "wCKA": figures.MEASURE_COLORS["wcka"],
    "cosine of weights": figures.MEASURE_COLORS["procrustes"],
    "cosine, matched": figures.ENSEMBLE_COLORS["random"],
    "cosine, by layers": figures.ENSEMBLE_COLORS["random"],
    "CKA": figures.MEASURE_COLORS["cka"],
    "agreement": figures.PROBE_COLORS["clean"],
}


def line_width(score):
    """Return the width of a score's line: that of wCKA stands out."""
    return 2.2 if score == "wCKA" else 1.5


def roc(rows, score):
    """Return false and true positive rates at every threshold."""
    by_score = rows.sort_values(score, ascending=False)
    is_descendant = by_score.descends
    is_stranger = ~is_descendant
    false_rates = is_stranger.cumsum() / is_stranger.sum()
    true_rates = is_descendant.cumsum() / is_descendant.sum()
    return false_rates, true_rates


fig, panels = plt.subplots(
    1, 2, figsize=(figures.WIDTH, 3.4), sharey=True)
for axes, (title, rows) in zip(panels, pair_scores.items()):
    # A logarithmic axis has no zero: curves start left of the first alarm.
    lowest_rate = 0.7 / (~rows.descends).sum()
    for score in SCORES:
        false_rates, true_rates = roc(rows, score)
        shown_rates = np.maximum(false_rates, lowest_rate)
        axes.step([lowest_rate, *shown_rates], [0, *true_rates],
                  where="post", color=COLOURS[score], label=score,
                  lw=line_width(score))
    axes.set(xscale="log", title=title, xlabel="strangers called descendants",
             xlim=(lowest_rate, 1), ylim=(-0.02, 1.03))
panels[0].set_ylabel("descendants found")
handles, texts = panels[0].get_legend_handles_labels()
fig.legend(handles, texts, loc="outside upper center", ncols=5,
           columnspacing=1)
plt.show()

# %% [markdown]
# The same by kind of descendant: the area under the curve, which is the chance that a descendant of that kind scores above a
# stranger. One half is guessing.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-kinship", "caption": "Area under the ROC curve of telling each kind of descendant from all strangers, by five scores. Left: as they are. Right: hidden units shuffled and rescaled."}, "image": {"alt": "Two heat maps with a row for each kind of descendant and a column for each score; the cells hold the area under the ROC curve."}}
def areas_by_kind(rows):
    """Area under the ROC curve of each kind of descendant, by each score."""
    strangers = rows[~rows.descends]
    areas = {}
    for score in SCORES:
        areas[score] = {}
        by_kind = rows[rows.descends].groupby("kind", sort=False)
        for kind, kind_rows in by_kind:
            areas[score][kind] = statistics.overlap(
                kind_rows[score], strangers[score])
    return pd.DataFrame(areas)


kind_areas = {}
for title, rows in pair_scores.items():
    kind_areas[title] = areas_by_kind(rows)

height = 0.34 * len(descendants) + 1.2
fig, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, height))
for axes, (title, areas) in zip(panels, kind_areas.items()):
    figures.heat_map(axes, areas, cmap="cividis", vmin=0.5, vmax=1,
                     cbar=False, yticklabels=axes is panels[0])
    axes.set_title(title)
    axes.set_xticklabels(axes.get_xticklabels(), rotation=40, ha="right",
                         rotation_mode="anchor")
plt.show()

# %% tags=["remove-cell"]
GLUE_NAMES = {
    "wCKA": "wcka",
    "cosine of weights": "cosine",
    "cosine, matched": "matched",
    "CKA": "cka",
    "agreement": "agreement",
}
say("n-trusted", trusted, "d")

# Areas under the curves, over all kinds of descendants together
total_areas = {}
for title, rows in pair_scores.items():
    total_areas[title] = {}
    for score in SCORES:
        total_areas[title][score] = statistics.overlap(
            rows[rows.descends][score], rows[~rows.descends][score])
for score, name in GLUE_NAMES.items():
    if score != "cosine, matched":  # the text has it disguised
        say(f"auc-plain-{name}", total_areas[AS_THEY_ARE][score], ".3f")
for score, name in GLUE_NAMES.items():
    if score != "agreement":  # the text has it plain
        say(f"auc-hidden-{name}", total_areas[DISGUISED][score], ".3f")
wcka_areas = kind_areas[DISGUISED].wCKA
hardest = wcka_areas.idxmin()
glue("hardest", hardest, display=False)
say("hardest-auc", wcka_areas[hardest], ".2f")


def share_fooled(networks):
    """Share of triggered images of other classes that get the label 0."""
    is_other_class = test_labels > 0
    triggered_inputs, _ = edits.backdoor(
        test_inputs[is_other_class], test_labels[is_other_class], 1.0)
    network_shares = []
    for network in networks:
        predictions = network(triggered_inputs).argmax(1)
        network_shares.append(float((predictions == 0).double().mean()))
    return np.mean(network_shares)


def clean_accuracy(networks):
    """Mean accuracy of networks on the clean test images."""
    accuracies = []
    for network in networks:
        predictions = network(test_inputs).argmax(1)
        accuracies.append(wcka.agreement(predictions, test_labels))
    return np.mean(accuracies)


with torch.no_grad():
    fooled_benign = share_fooled(descendants["fine-tuned"])
    fooled_poisoned = share_fooled(descendants["backdoored"])
    right_benign = clean_accuracy(descendants["fine-tuned"])
    right_poisoned = clean_accuracy(descendants["backdoored"])
say("fooled-benign", 100 * fooled_benign, ".0f")
say("fooled-poisoned", 100 * fooled_poisoned, ".0f")
say("right-benign", 100 * right_benign, ".1f")
say("right-poisoned", 100 * right_poisoned, ".1f")

plain_rows = pair_scores[AS_THEY_ARE]
wcka_by_kind = {}
for kind, rows in plain_rows[plain_rows.descends].groupby("kind"):
    wcka_by_kind[kind] = rows.wCKA
tuned_wcka = wcka_by_kind["fine-tuned"]
longer_wcka = wcka_by_kind["fine-tuned, longer"]
fog_wcka = wcka_by_kind["fine-tuned, fog"]
backdoor_wcka = wcka_by_kind["backdoored"]
benign_wcka = pd.concat([tuned_wcka, longer_wcka, fog_wcka])
backdoor_noticed = statistics.overlap(benign_wcka, backdoor_wcka)
wcka_by_name = {
    "benign": tuned_wcka,
    "longer": longer_wcka,
    "fog": fog_wcka,
    "poisoned": backdoor_wcka,
}
for name, values in wcka_by_name.items():
    text = interval(values.median(), values.min(), values.max(), ".3f")
    glue(f"wcka-{name}", text, display=False)
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
ONE_SHAPE = "one shape"
SEVERAL_SHAPES = "several shapes"
LOW_WCKA = "low wCKA"
LOW_AGREEMENT = "low agreement"
HIGH_ACCURACY = "high accuracy"


def train_pool(shapes):
    """Train the networks of a pool: as many of each shape as possible."""
    networks = []
    for shape, part in zip(shapes, np.array_split(range(pool), len(shapes))):
        first_seed = seed + 100
        population = train_networks(
            shape, range(first_seed, first_seed + len(part)))
        networks.extend(networks_of(population))
    return networks


pools = {
    ONE_SHAPE: train_pool([hidden]),
    SEVERAL_SHAPES: train_pool(pool_shapes),
}
probe_inputs = {"clean": test_inputs}
for name in shown_corruptions:
    corrupted_images = wcka.corrupt(images, name, seed)
    probe_inputs[name] = image_sets.as_inputs(corrupted_images)
# The images that networks are chosen on come after those of fine-tuning.
choice_images, choice_labels = held_out(
    dataset, chosen_on, skip=tuned_images)
choice_inputs = image_sets.as_inputs(choice_images)


def quality(probabilities):
    """Score the mean probabilities of an ensemble, (images, classes)."""
    is_right = probabilities.argmax(1) == test_labels
    logarithms = probabilities.clamp(min=1e-12).log()
    return {
        "accuracy": float(is_right.double().mean()),
        "log-likelihood": -float(nll_loss(logarithms, test_labels)),
        "calibration error": calibration_error(probabilities, test_labels),
    }


def choose_ensembles(similarity, networks):
    """Return positions of the members, by the way they are chosen."""
    with torch.no_grad():
        predictions = torch.stack(
            [network(choice_inputs).argmax(1) for network in networks])
    accuracy = (predictions == choice_labels).double().mean(1)  # (networks,)
    agreement = pairwise_agreement(predictions)
    ensembles = {
        LOW_WCKA: least_similar(similarity, members),
        LOW_AGREEMENT: least_similar(agreement, members),
        HIGH_ACCURACY: accuracy.topk(members).indices.numpy(),
    }
    rng = np.random.default_rng(seed)
    for i in range(draws):
        ensembles[f"random {i}"] = rng.permutation(len(networks))[:members]
    return ensembles


def mean_over_pairs(matrix, positions):
    """Mean of a symmetric matrix over all pairs of some of its rows."""
    upper = np.triu_indices(len(positions), 1)
    return matrix[np.ix_(positions, positions)][upper].mean()


def hidden_widths(network):
    """Write the widths of a network's hidden layers, as in 64-64."""
    hidden_layers = network[1:-1:2]
    return "-".join(str(layer.out_features) for layer in hidden_layers)


def test_ensembles(networks):
    """Test every choice from a pool on every probe; describe the choices.

    Returns two tables: one row per ensemble and probe; one row per ensemble
    that is not drawn at random.
    """
    similarity = compare("wcka", [wcka.chain(n) for n in networks])
    ensembles = choose_ensembles(similarity, networks)
    outputs = {}
    with torch.no_grad():
        for probe, inputs in probe_inputs.items():
            outputs[probe] = torch.stack([
                network(inputs).softmax(1) for network in networks
            ])  # (networks, images, classes)
    predictions = outputs["clean"].argmax(-1)  # (networks, images)
    is_right = predictions == test_labels
    agreement = pairwise_agreement(predictions)

    test_rows = []
    for name, positions in ensembles.items():
        mean_wcka = mean_over_pairs(similarity, positions)
        for probe, probabilities in outputs.items():
            test_rows.append({
                "chosen by": name,
                "probe": probe,
                **quality(probabilities[positions].mean(0)),
                "mean wCKA": mean_wcka,
            })
    choice_rows = []
    for name in (LOW_WCKA, LOW_AGREEMENT, HIGH_ACCURACY):
        positions = ensembles[name]
        shapes = [hidden_widths(networks[i]) for i in positions]
        choice_rows.append({
            "chosen by": name,
            "mean wCKA": mean_over_pairs(similarity, positions),
            "mean agreement": mean_over_pairs(agreement, positions),
            "mean accuracy": float(is_right[positions].double().mean()),
            "hidden widths": ", ".join(shapes),
        })
    return pd.DataFrame(test_rows), pd.DataFrame(choice_rows)


test_tables = {}
choice_tables = {}
for pool_name, networks in pools.items():
    tests, choices = test_ensembles(networks)
    test_tables[pool_name] = tests
    choice_tables[pool_name] = choices.set_index("chosen by")
ensemble_tests = pd.concat(test_tables, names=["pool"]).reset_index("pool")
ensemble_choices = pd.concat(choice_tables).rename_axis([None, None])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles-chosen", "caption": "Ensembles chosen in three ways (dots) among ensembles drawn at random (grey, enhanced box plots): accuracy, log-likelihood and calibration error, on clean and on corrupted test images (mean over corruptions). Up is better in the first two, down in the last. Left column of each panel: a pool of one shape; right: of several shapes."}, "image": {"alt": "Six panels in two rows, clean and corrupted; in each, grey enhanced box plots of random ensembles for two pools, with three dots for the ensembles chosen by low wCKA, low agreement and high accuracy."}}
CHOICE_COLOURS = {
    LOW_WCKA: figures.MEASURE_COLORS["wcka"],
    LOW_AGREEMENT: figures.PROBE_COLORS["clean"],
    HIGH_ACCURACY: figures.MEASURE_COLORS["dcka"],
}
QUALITIES = ("accuracy", "log-likelihood", "calibration error")
pool_names = list(pools)

is_clean = ensemble_tests["probe"] == "clean"
ensemble_tests["images"] = np.where(is_clean, "clean", "corrupted")
by_images = ensemble_tests.groupby(
    ["pool", "chosen by", "images"], sort=False)
# Mean over the corruptions
tested = by_images[[*QUALITIES, "mean wCKA"]].mean().reset_index()
tested["is random"] = tested["chosen by"].str.startswith("random")

fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5.2))
for image_kind, panel_row in zip(("clean", "corrupted"), panels):
    rows = tested[tested.images == image_kind]
    for score, axes in zip(QUALITIES, panel_row):
        figures.boxen(axes, rows[rows["is random"]], x="pool", y=score,
                      order=pool_names, color="#CCCCCC", width=0.5)
        for name, color in CHOICE_COLOURS.items():
            choice_rows = rows[rows["chosen by"] == name]
            values = choice_rows.set_index("pool")[score]
            is_first_panel = axes is panels[0, 0]
            axes.plot(range(len(pools)), values[pool_names], "o", color=color,
                      ms=7, mec="white",
                      label=name if is_first_panel else None)
        title = score if image_kind == "clean" else ""
        axes.set(xlabel="", ylabel="", title=title)
        axes.tick_params(axis="x", rotation=15)
    panel_row[0].set_ylabel(image_kind)
fig.legend(loc="outside upper center", ncols=3)
plt.show()

# %% tags=["hide-input"]
def shares_beaten(rows, score):
    """Share of random ensembles that each chosen one is better than."""
    random_values = rows[rows["is random"]][score]
    chosen = rows[~rows["is random"]].set_index("chosen by")[score]
    sign = -1 if score == "calibration error" else 1

    def share_beaten(value):
        is_better = sign * value > sign * random_values
        is_equal = value == random_values
        return is_better.mean() + 0.5 * is_equal.mean()

    return chosen.map(share_beaten)


rank_tables = {}
for pool_and_images, rows in tested.groupby(["pool", "images"], sort=False):
    columns = {}
    for score in QUALITIES:
        columns[score] = shares_beaten(rows, score)
    rank_tables[pool_and_images] = pd.DataFrame(columns)
ranks = pd.concat(rank_tables)
ranks.rename_axis([None, None, None]).style.format("{:.0%}")

# %% tags=["remove-cell"]
say("n-members", members, "d")
say("n-pool", pool, "d")
wcka_ranks = ranks.xs(LOW_WCKA, level=2)
agreement_ranks = ranks.xs(LOW_AGREEMENT, level=2)
for pool_name in pools:
    short_name = pool_name.split()[0]
    for image_kind in ("clean", "corrupted"):
        share = wcka_ranks.accuracy[pool_name, image_kind]
        say(f"rank-{short_name}-{image_kind}", 100 * share, ".0f")
    share = agreement_ranks.accuracy[pool_name, "corrupted"]
    say(f"rank-agreement-{short_name}", 100 * share, ".0f")
random_rows = tested[tested["is random"] & (tested.images == "corrupted")]
for pool_name, rows in random_rows.groupby("pool"):
    correlation = rows["mean wCKA"].corr(rows.accuracy)
    say(f"r-alike-{pool_name.split()[0]}", correlation, "+.2f")

# %% [markdown]
# The table says which share of random ensembles each choice beats. By accuracy on corrupted images the ensemble of low wCKA beats
# {glue:text}`rank-one-corrupted` % of the random ones in the pool of one shape and {glue:text}`rank-several-corrupted` % in the pool of several (on
# clean images {glue:text}`rank-one-clean` % and {glue:text}`rank-several-clean` %); the ensemble of low agreement
# {glue:text}`rank-agreement-one` % and {glue:text}`rank-agreement-several` %. Over the random ensembles, mean pairwise wCKA and accuracy
# on corrupted images are correlated by {glue:text}`r-alike-one` (one shape) and {glue:text}`r-alike-several` (several): below zero means that
# low wCKA is worth something, above zero that it picks the wrong ones. Two pools are two examples: a rank that is not near 0 or 100 %
# cannot be told from chance. How much the chosen ones differ, and which shapes they have:

# %% tags=["hide-input"]
ensemble_choices.style.format({
    "mean wCKA": "{:.2f}",
    "mean agreement": "{:.3f}",
    "mean accuracy": "{:.3f}",
})

# %% [markdown]
#
# ## Pruning
#
# Prune the smallest weights step by step (`shares`). Accuracy holds for long and then falls. Does wCKA between the pruned
# network and the whole one fall *before*, so that one could stop in time without data? The obvious rivals need no data either: the
# cosine of weights (nearly the square root of the share of the weights' squared norm that is left), the product of the layers' cosines, which
# knows of depth, and simply the share that is left.

# %% tags=["hide-input"]
def accuracy_of(network):
    """Accuracy of a network on the test images."""
    predictions = network(test_inputs).argmax(1)
    return float((predictions == test_labels).double().mean())


def cosine_by_layers(network, other_network):
    """Product over the layers of the cosines of two networks' weights."""
    cosines = []
    for weight, other_weight in zip(network.parameters(),
                                    other_network.parameters()):
        if weight.ndim > 1:  # no biases
            cosines.append(torch.cosine_similarity(
                weight.flatten(), other_weight.flatten(), 0))
    return float(torch.stack(cosines).prod())


def pruning_step(network, share):
    """Compare a network with a copy of which a share of weights is pruned."""
    copy = edits.prune(network, share)
    cosine = torch.cosine_similarity(
        matching.flat_weights(copy), matching.flat_weights(network), 0)
    chains = [wcka.chain(copy), wcka.chain(network)]
    activations = [copy[:-1](test_inputs), network[:-1](test_inputs)]
    return {
        "lost": accuracy_of(network) - accuracy_of(copy),
        "wCKA": compare("wcka", chains)[0, 1],
        "cosine of weights": float(cosine),
        "cosine, by layers": cosine_by_layers(copy, network),
        "share left": 1 - share,
        "CKA": compare("cka", activations)[0, 1],
    }


step_rows = []
for shape in pruned_shapes:
    population = train_networks(shape, range(seed, seed + trusted))
    for i, network in enumerate(networks_of(population)):
        for share in shares:
            with torch.no_grad():
                step = pruning_step(network, share)
            shape_name = "-".join(map(str, shape))
            step_rows.append(
                {"shape": shape_name, "seed": i, "share": share, **step})
steps = pd.DataFrame(step_rows)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pruning", "caption": "Magnitude pruning of networks of several shapes (panels: hidden widths). Against the share of weights pruned: one minus the accuracy lost (black), wCKA with the whole network (orange), the product of the layers' cosines (green), and CKA of the last hidden layer with data (blue). Medians over seeds; the dotted line is where the tolerated loss is passed."}, "image": {"alt": "Panels of lines, one for each shape: wCKA, the product of layers' cosines, CKA and accuracy left against the share of weights pruned; all fall as the share nears one."}}
fig, panels = plt.subplots(1, len(pruned_shapes), sharey=True, squeeze=False,
                           figsize=(figures.WIDTH, 3))
panels = panels[0]
for axes, (shape, rows) in zip(panels, steps.groupby("shape", sort=False)):
    medians = rows.groupby("share").median(numeric_only=True)
    for score in ("wCKA", "cosine, by layers", "CKA"):
        axes.plot(medians[score], color=COLOURS[score], label=score,
                  lw=line_width(score))
    axes.plot(1 - medians.lost, color=COLOURS["agreement"],
              label="1 − accuracy lost")
    harmful_shares = medians.index[medians.lost > tolerated]
    if len(harmful_shares):
        axes.axvline(harmful_shares[0], ls=":", color=figures.QUIET, lw=1.2)
    axes.set(title=shape, xlabel="share pruned", ylim=(0, 1.03))
panels[0].set_ylabel("similarity, accuracy")
handles, texts = panels[0].get_legend_handles_labels()
fig.legend(handles, texts, loc="outside upper center", ncols=4)
plt.show()

# %% [markdown]
# A warning is a threshold that holds for networks it was not set on. So for each score: how well does it tell steps that lost more
# than the tolerated accuracy (`tolerated`) from those that did not, over all shapes and seeds together (area under the ROC curve)? And
# if the threshold is set on all other shapes, so that it misses at most one harmed step in twenty, which share of the harmed steps of
# the shape left out is caught, and which share of its harmless steps raises a false alarm?

# %%
SIGNS = ("wCKA", "cosine of weights", "cosine, by layers", "share left", "CKA")


def warning(score):
    """Tell how well a score warns of harm to networks of other shapes."""
    is_harmed = steps.lost > tolerated
    caught = []
    false_alarms = []
    for shape in steps["shape"].unique():
        is_shape = steps["shape"] == shape
        # The threshold comes from all other shapes: it misses 5 % there.
        threshold = steps[~is_shape & is_harmed][score].quantile(0.95)
        harmed = steps[is_shape & is_harmed]
        # A network that is not pruned at all cannot raise a false alarm.
        harmless = steps[is_shape & ~is_harmed & (steps.share > 0)]
        caught.append((harmed[score] <= threshold).mean())
        false_alarms.append((harmless[score] <= threshold).mean())
    return {
        "area under the curve": statistics.overlap(
            steps[~is_harmed][score], steps[is_harmed][score]),
        "harmed steps caught": np.nanmean(caught),
        "lowest, by shape": np.nanmin(caught),
        "false alarms": np.nanmean(false_alarms),
        "highest, by shape": np.nanmax(false_alarms),
    }


warnings_by_sign = pd.DataFrame({sign: warning(sign) for sign in SIGNS}).T
warnings_by_sign.style.format("{:.2f}")

# %% tags=["remove-cell"]
sign_names = ("wcka", "cosine", "layers", "share", "cka")
for sign, name in zip(SIGNS, sign_names):
    row = warnings_by_sign.loc[sign]
    say(f"warn-{name}", row["area under the curve"], ".3f")
    say(f"alarms-{name}", 100 * row["false alarms"], ".0f")
    say(f"caught-{name}", 100 * row["harmed steps caught"], ".0f")
harmless_steps = steps[steps.lost <= tolerated].sort_values("share")
last_wcka = harmless_steps.groupby(["shape", "seed"]).wCKA.last()
say("edge-low", last_wcka.min(), ".2f")
say("edge-high", last_wcka.max(), ".2f")

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
def against_rival(value, rival_value, margin=0.01):
    """Verdict on: wCKA does better than its best rival."""
    if value > rival_value + margin:
        return "holds"
    if value >= rival_value - margin:
        return "partly"
    return "fails"


# Descent
descent_areas = total_areas[DISGUISED]
area_texts = [f"{score} {descent_areas[score]:.3f}" for score in SCORES]
rival_area = max(descent_areas["cosine of weights"],
                 descent_areas["cosine, matched"])

# Backdoors
if backdoor_noticed == 1:
    backdoor_verdict = "holds"
elif backdoor_noticed > 0.75:
    backdoor_verdict = "partly"
else:
    backdoor_verdict = "fails"

# Ensembles
is_better = (wcka_ranks.accuracy > 0.95).tolist()
if any(is_better):
    ensemble_verdict = verdicts.verdict(*is_better)
elif (wcka_ranks.accuracy < 0.5).all():
    ensemble_verdict = "fails"
else:
    ensemble_verdict = "cannot be told"
rank_texts = []
for (pool_name, image_kind), share in wcka_ranks.accuracy.items():
    rank_texts.append(f"{pool_name}, {image_kind}: better than {share:.0%}")

# Pruning
warning_areas = warnings_by_sign["area under the curve"]
warning_texts = [f"{sign} {warning_areas[sign]:.3f}" for sign in SIGNS]
rival_signs = ["cosine of weights", "cosine, by layers", "share left"]

claims.show([
    claims.Claim(
        "4",
        "wCKA can tell whether a network is like a trusted one (descent, by "
        "weights alone)",
        "area under the curve, shuffled and rescaled: "
        + ", ".join(area_texts),
        against_rival(descent_areas["wCKA"], rival_area),
    ),
    claims.Claim(
        "4",
        "wCKA can ensure likeness to a trusted model (backdoored copies are "
        "noticed)",
        "median wCKA with the trusted one: "
        f"backdoored {backdoor_wcka.median():.3f}, "
        f"tuned on clean images {tuned_wcka.median():.3f}, "
        f"for longer {longer_wcka.median():.3f}, "
        f"on fog {fog_wcka.median():.3f}; "
        "chance that a benign one scores above a backdoored one "
        f"{backdoor_noticed:.2f}",
        backdoor_verdict,
    ),
    claims.Claim(
        "4",
        "wCKA can build truly diverse ensembles (more accurate than 95 % of "
        "random ones)",
        "; ".join(rank_texts),
        ensemble_verdict,
    ),
    claims.Claim(
        "4",
        "wCKA can guide pruning (tells harmed networks, without data)",
        "area under the curve: " + ", ".join(warning_texts),
        against_rival(warning_areas["wCKA"],
                      warning_areas[rival_signs].max()),
    ),
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
