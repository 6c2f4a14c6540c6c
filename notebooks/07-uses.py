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
# ```{admonition} In one paragraph
# :class: tip
# The paper names three uses that {term}`wCKA` could have, and tries none. Here each is tried on real data, beside simpler numbers that
# somebody would use today. {glue:text}`take-pruning` {glue:text}`take-ensembles` {glue:text}`take-trusted`
# ```
#
# The paper ends with three uses (section 4): to guide the pruning of models, to build ensembles that are truly diverse, and to
# ensure that a model is similar to a trusted one.
#
# After this chapter you can
#
# - say which copies of a network wCKA still calls similar, and what it does not notice;
# - say whether low wCKA picks ensembles that are more diverse than random ones, and more accurate;
# - say whether wCKA orders pruned networks by the harm better than simpler numbers do, without data.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Patch
from myst_nb import glue
from torch.nn.functional import nll_loss

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
    interval,
    rules,
    say,
    sentences,
    within,
)
from wcka.book.rules import part
from wcka.experiments import (
    calibration_error,
    ensembles,
    matching,
    separation,
    statistics,
    trained,
    training_rows,
)
from wcka.measures import compare, nearest, pairwise_agreement
from wcka.measures.nulls import holm
from wcka.networks import edits, image_sets, train

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
# networks of one shape, and as many of several, for ensembles
candidates: int = 30
pool: int = 10  # of these, drawn at random, that an ensemble is chosen from
members: int = 4  # networks in an ensemble
# hidden widths where there are several
pool_shapes: list[list[int]] = [[16], [64], [256], [32, 32], [64, 64, 64]]
# training images, not trained on, that disagreement is counted on
chosen_on: int = 1000
draws: int = 300  # pools, and random ensembles
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
pruned_networks: int = 5  # of each of these shapes
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
    pool=(pool, 2, 40),
    candidates=(candidates, max(len(pool_shapes), pool + 1), 10000),
    members=(members, 2, pool),
    draws=(draws, 10, 100000),
    pruned_networks=(pruned_networks, 3, 1000),
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
# ## Similarity to a trusted model
#
# You trust a network, and somebody brings one that is said to do the same. Whether it *comes* from the trusted one is asked in
# [chapter 9](09-related), also where an adversary has disguised it. Here the question is whether it is still similar. There are
# {glue:text}`n-trusted` trusted networks, fully connected, of different {term}`seeds <seed>`. Each has **copies**:
#
# - *fine-tuned* on further images of the task, for some epochs and for three times as many, on corrupted images (fog), and on another
#   task altogether;
# - *backdoored*: fine-tuned on images some of which wear a small white square, and then the label 0;
# - *pruned*, *quantised* and *noisy* copies, mildly to severely.
#
# The other networks, with all their copies, are **strangers**: trained in the same way, from other initial weights and on other draws of the
# images. Each trusted network has its own draws: of its images and their order, of the images of its copies, and of those with the square.

# %%
all_classes = list(range(10))


def train_networks(shape, seeds, draw=seed):
    """Train fully connected networks that differ in their seeds only.

    All see one draw of the training images, in one order.
    """
    architecture = {
        "factory": "mlp",
        "widths": [784, *shape, 10],
        "activation": "relu",
    }
    return trained(
        architecture=architecture, seeds=list(seeds), dataset=dataset,
        classes=all_classes, images=train_images, epochs=epochs,
        batch_size=batch_size, seed=draw)


def held_out(name, count, skip=0, draw=seed):
    """Return training images that no network of this draw saw, and labels."""
    images, labels = image_sets.load(name, "train", all_classes)
    _, left = training_rows(len(labels), train_images, draw)
    rows = left[skip:skip + count]
    return images[rows], torch.from_numpy(labels[rows])


def fine_tune(population, inputs, labels, draw, epochs=tuned_epochs):
    """Return a copy of a population's one network that is trained further."""
    return train(population, inputs, labels, epochs,
                 batch_size=batch_size, seed=draw).member(0)


def networks_of(population):
    """Return the networks of a population as a list of modules."""
    return [population.member(i) for i in range(len(population))]


def backdoored_copy(population, draw, share):
    """Return a copy of one network that is tuned on images with the square."""
    tuning_images, labels = held_out(dataset, tuned_images, draw=draw)
    inputs, targets = edits.backdoor(
        image_sets.as_inputs(tuning_images), labels, share, seed=draw)
    return fine_tune(population, inputs, targets, draw)


def tuned_copies(population, draw):
    """Return copies of one network that are trained further, by their kind."""
    tuning_images, labels = held_out(dataset, tuned_images, draw=draw)
    inputs = image_sets.as_inputs(tuning_images)
    foggy_images = wcka.corrupt(tuning_images, "fog", draw)
    foggy_inputs = image_sets.as_inputs(foggy_images)
    other_images, other_labels = held_out(
        other_dataset, tuned_images, draw=draw)
    other_inputs = image_sets.as_inputs(other_images)
    return {
        "fine-tuned": fine_tune(population, inputs, labels, draw),
        "fine-tuned, longer": fine_tune(
            population, inputs, labels, draw, epochs=3 * tuned_epochs),
        "fine-tuned, fog": fine_tune(population, foggy_inputs, labels, draw),
        "fine-tuned, other task": fine_tune(
            population, other_inputs, other_labels, draw),
        "backdoored": backdoored_copy(population, draw, poisoned),
    }


# Each trusted network has its own draws of all images, of their order and of
# the poison, so that errors over trusted networks speak for other draws too.
trusted_draws = range(seed, seed + trusted)
trusted_populations = [
    train_networks(hidden, [draw], draw) for draw in trusted_draws]
originals = [population.member(0) for population in trusted_populations]

# Copies by their kind: one per trusted network, in the same order.
copies_by_kind = {}
for population, draw in zip(trusted_populations, trusted_draws):
    for kind, network in tuned_copies(population, draw).items():
        copies_by_kind.setdefault(kind, []).append(network)
for share in pruned:
    copies_by_kind[f"pruned, {share:.0%}"] = [
        edits.prune(network, share) for network in originals]
for bit_count in bits:
    copies_by_kind[f"quantised, {bit_count} bits"] = [
        edits.quantise(network, bit_count) for network in originals]
for noise_size in noisy:
    copies_by_kind[f"noisy, {noise_size:g}"] = [
        edits.add_noise(network, noise_size, seed + i)
        for i, network in enumerate(originals)]

# %% [markdown]
# Let a copy be *faithful* if it {term}`agrees <agreement>` with the trusted network on more test images than the other trusted
# networks do, and *changed* otherwise. A number that ensures similarity puts faithful copies above strangers, and above changed
# copies. Three need no data: wCKA; the **cosine of all weights**, the obvious thing to try; the **cosine after matching**, where units
# are first normalised and assigned to each other, layer by layer (mean of the layers' cosines). Two need test images:
# {term}`CKA` of the last hidden layer, and agreement. Backdoored copies have a test of their own below.

# %% tags=["hide-input"]
SCORES = ("wCKA", "cosine of weights", "cosine, matched", "CKA", "agreement")

images, labels = image_sets.load(dataset, "test", all_classes)
images = images[:test_images]
test_inputs = image_sets.as_inputs(images)
test_labels = torch.from_numpy(labels[:test_images])


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
        "ancestor": np.array(ancestors)[b - trusted],
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
for kind, networks in copies_by_kind.items():
    for ancestor, network in enumerate(networks):
        suspects.append(network)
        ancestors.append(ancestor)
        kinds.append(kind)
pair_scores = score_pairs(suspects, ancestors, kinds)

# %% tags=["hide-input"]
with torch.no_grad():
    original_predictions = torch.stack(
        [network(test_inputs).argmax(1) for network in originals])
# (trusted, trusted)
original_agreement = pairwise_agreement(original_predictions)
# Mean agreement of each trusted network with the others: (trusted,)
stranger_agreement = (original_agreement.sum(1) - 1) / (trusted - 1)

strangers = pair_scores[~pair_scores.descends]
copies = pair_scores[pair_scores.descends].copy()
copies["faithful"] = copies.agreement > stranger_agreement[copies.trusted]
judged_copies = copies[copies.kind != "backdoored"]
copy_table = copies.groupby("kind", sort=False)[
    ["agreement", "faithful", "wCKA", "cosine, matched"]].mean()
copy_table.rename_axis(None).style.format({
    "agreement": "{:.1%}",
    "faithful": "{:.0%}",
    "wCKA": "{:.3f}",
    "cosine, matched": "{:.3f}",
})

# %% tags=["remove-cell"]
say("n-trusted", trusted, "d")
say("stranger-agreement", 100 * stranger_agreement.mean(), ".1f")
say("n-copies", len(judged_copies), "d")
say("n-changed", (~judged_copies.faithful).sum(), "d")

# %% [markdown]
# Trusted networks agree with each other on {glue:text}`stranger-agreement` % of the images. Of {glue:text}`n-copies` copies that are not
# backdoored {glue:text}`n-changed` agree with their trusted network on fewer. The next table has the share of pairs that each
# score puts in the wrong order: of a faithful copy and a stranger, and of a faithful copy and a changed one.

# %% tags=["hide-input"]
faithful_copies = judged_copies[judged_copies.faithful]
changed_copies = judged_copies[~judged_copies.faithful]


def misordered_strangers(score):
    """Share of pairs of a stranger and a faithful copy in the wrong order."""
    return separation.misordered(
        strangers[score], faithful_copies[score],
        strangers[["trusted", "ancestor"]], faithful_copies.trusted)


def misordered_changed(score):
    """Share of pairs of a changed and a faithful copy in the wrong order."""
    return separation.misordered(
        changed_copies[score], faithful_copies[score],
        changed_copies.trusted, faithful_copies.trusted)


# Errors are over trusted networks, so that two must have such copies.
has_both = (faithful_copies.trusted.nunique() > 1
            and changed_copies.trusted.nunique() > 1)
order_rows = {}
if has_both:
    for score in SCORES:
        order_rows[score] = {
            "strangers": misordered_strangers(score).value,
            "changed copies": misordered_changed(score).value,
        }
order_table = pd.DataFrame(order_rows).T
order_table.style.format("{:.1%}")

# %% tags=["remove-cell"]
wrong_shares = {}
if has_both:
    for score, label in (("wCKA", "wCKA"),
                         ("cosine, matched", "the cosine after matching")):
        row = order_table.loc[score]
        wrong_shares[label] = (row["strangers"], row["changed copies"])
glue("order-sentence", sentences.wrong_order_sentence(wrong_shares),
     display=False)


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
    fooled_benign = share_fooled(copies_by_kind["fine-tuned"])
    fooled_poisoned = share_fooled(copies_by_kind["backdoored"])
    right_benign = clean_accuracy(copies_by_kind["fine-tuned"])
    right_poisoned = clean_accuracy(copies_by_kind["backdoored"])
say("fooled-benign", 100 * fooled_benign, ".0f")
say("fooled-poisoned", 100 * fooled_poisoned, ".0f")
say("right-benign", 100 * right_benign, ".1f")
say("right-poisoned", 100 * right_poisoned, ".1f")

kinds_by_name = {
    "benign": "fine-tuned",
    "longer": "fine-tuned, longer",
    "fog": "fine-tuned, fog",
    "poisoned": "backdoored",
}
for name, kind in kinds_by_name.items():
    values = copies.wCKA[copies.kind == kind]
    text = interval(values.median(), values.min(), values.max(), ".3f")
    glue(f"wcka-{name}", text, display=False)

# %% [markdown]
# {glue:text}`order-sentence`
#
# **Backdoors.** A backdoored copy gives the label 0 to {glue:text}`fooled-poisoned` % of the test images
# of other classes that wear the square (a benign fine-tuned one: {glue:text}`fooled-benign` %), at a clean accuracy of {glue:text}`right-poisoned` %
# ({glue:text}`right-benign` %). Its wCKA with the trusted network is {glue:text}`wcka-poisoned` (median and range over seeds). Copies tuned on the same
# images without the square have {glue:text}`wcka-benign`, for three times as long {glue:text}`wcka-longer`; those tuned on fog
# {glue:text}`wcka-fog`. To be noticed, a backdoored copy would have to score below the benign copies of each kind. The shares of
# pairs in which it does not: {glue:text}`unnoticed`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of backdoored and benign copies"}
backdoored_copies = copies[copies.kind == "backdoored"]


def unnoticed(kind):
    """Share of pairs of a backdoored and a benign copy in the wrong order."""
    benign = copies[copies.kind == kind]
    return separation.misordered(
        backdoored_copies.wCKA, benign.wCKA,
        backdoored_copies.trusted, benign.trusted)


TUNED_KINDS = ("fine-tuned", "fine-tuned, longer", "fine-tuned, fog")
unnoticed_backdoors = {kind: unnoticed(kind) for kind in TUNED_KINDS}
backdoor_rows = pd.DataFrame(unnoticed_backdoors).T
backdoor_rows.columns = ["wrong order", "error", "degrees of freedom"]
backdoor_rows[["wrong order", "error"]].style.format("{:.1%}")

# %% tags=["remove-cell"]
unnoticed_texts = []
for kind, estimate in unnoticed_backdoors.items():
    unnoticed_texts.append(f"{100 * estimate.value:.0f} % ({kind})")
glue("unnoticed", ", ".join(unnoticed_texts), display=False)

# %% [markdown]
# The number says how far a copy went, not where to. And [chapter 6](06-failures) gives any network any {term}`chain`: a high
# wCKA is evidence among honest people.
#
# ## Diverse ensembles
#
# An ensemble gains by members that err differently. There are {glue:text}`n-candidates` networks that differ in the seed only, and as many of several
# shapes. From a **pool** of {glue:text}`n-pool` of them, drawn at random, choose {glue:text}`n-members` by the lowest mean
# pairwise wCKA, trying all sets; and for comparison
#
# - by low mean agreement on some held-out images (`chosen_on`, no labels);
# - by high accuracy on the same images, which needs labels.
#
# One pool would be one example, so this is done for `draws` pools. The distribution to beat is that of as many ensembles of
# {glue:text}`n-members` networks drawn at random. Ensembles average the members' probabilities. They are tested on clean and on corrupted test
# images (`shown_corruptions`): disagreement, the share of images on which two members predict different classes; accuracy; log-likelihood; and
# calibration error, the mean gap between confidence and accuracy.
#
# Here is how the choices compare with random ensembles, over clean and corrupted images (50 % would be chance).
# {glue:text}`beaten-wcka` {glue:text}`beaten-agreement` {glue:text}`beaten-accuracy`

# %% tags=["hide-input"]
ONE_SHAPE = "one shape"
SEVERAL_SHAPES = "several shapes"
RANDOM = "random"
LOW_WCKA = "low wCKA"
LOW_AGREEMENT = "low agreement"
HIGH_ACCURACY = "high accuracy"
QUALITIES = (
    "disagreement", "accuracy", "log-likelihood", "calibration error")


def train_candidates(shapes):
    """Train networks of some shapes, as many of each as possible."""
    networks = []
    parts = np.array_split(range(candidates), len(shapes))
    for shape, seeds_of_shape in zip(shapes, parts):
        first_seed = seed + 100
        population = train_networks(
            shape, range(first_seed, first_seed + len(seeds_of_shape)))
        networks.extend(networks_of(population))
    return networks


candidate_networks = {
    ONE_SHAPE: train_candidates([hidden]),
    SEVERAL_SHAPES: train_candidates(pool_shapes),
}
probe_inputs = {"clean": test_inputs}
for name in shown_corruptions:
    corrupted_images = wcka.corrupt(images, name, seed)
    probe_inputs[name] = image_sets.as_inputs(corrupted_images)
# The images that networks are chosen on come after those of fine-tuning.
choice_images, choice_labels = held_out(
    dataset, chosen_on, skip=tuned_images)
choice_inputs = image_sets.as_inputs(choice_images)


def choose_ensembles(similarity, networks):
    """Draw pools, and choose the members of an ensemble from each.

    Returns the pools, (draws, pool), and by the way of choosing the members,
    (draws, members), as positions among the networks.
    """
    with torch.no_grad():
        predictions = torch.stack(
            [network(choice_inputs).argmax(1) for network in networks])
    accuracy = (predictions == choice_labels).double().mean(1).numpy()
    agreement = pairwise_agreement(predictions)
    pools = ensembles.drawn_sets(len(networks), pool, draws, seed)
    best_first = np.argsort(-accuracy[pools], axis=1, kind="stable")
    return pools, {
        RANDOM: ensembles.drawn_sets(
            len(networks), members, draws, seed + 1),
        LOW_WCKA: ensembles.least_similar_of_pools(
            similarity, pools, members),
        LOW_AGREEMENT: ensembles.least_similar_of_pools(
            agreement, pools, members),
        HIGH_ACCURACY: np.take_along_axis(
            pools, best_first[:, :members], axis=1),
    }


def quality(probabilities):
    """Score the mean probabilities of an ensemble, (images, classes)."""
    is_right = probabilities.argmax(1) == test_labels
    logarithms = probabilities.clamp(min=1e-12).log()
    return {
        "accuracy": float(is_right.double().mean()),
        "log-likelihood": -float(nll_loss(logarithms, test_labels)),
        "calibration error": calibration_error(probabilities, test_labels),
    }


def mean_over_pairs(matrix, positions):
    """Mean of a symmetric matrix over all pairs of some of its rows."""
    upper = np.triu_indices(len(positions), 1)
    return matrix[np.ix_(positions, positions)][upper].mean()


def test_ensembles(sets, networks):
    """Score ensembles on every probe: arrays (ensembles, probes) by score."""
    # Many pools have the same best ensemble, which is tested once.
    different_sets, position = np.unique(
        np.sort(sets, axis=1), axis=0, return_inverse=True)
    shape = (len(different_sets), len(probe_inputs))
    scores = {name: np.zeros(shape) for name in QUALITIES}
    for column, inputs in enumerate(probe_inputs.values()):
        with torch.no_grad():
            probabilities = torch.stack([
                network(inputs).softmax(1) for network in networks
            ])  # (networks, images, classes)
        disagreement = 1 - pairwise_agreement(probabilities.argmax(-1))
        for row, positions in enumerate(different_sets):
            values = quality(probabilities[positions].mean(0))
            values["disagreement"] = mean_over_pairs(disagreement, positions)
            for name, value in values.items():
                scores[name][row, column] = value
    position = position.ravel()
    return {name: values[position] for name, values in scores.items()}


def hidden_widths(network):
    """Write the widths of a network's hidden layers, as in 64-64."""
    hidden_layers = network[1:-1:2]
    return "-".join(str(layer.out_features) for layer in hidden_layers)


def describe_ensembles(sets, similarity, shapes):
    """Mean wCKA between members, and mean number of different shapes."""
    means = [mean_over_pairs(similarity, positions) for positions in sets]
    shape_counts = [len(np.unique(shapes[positions])) for positions in sets]
    return {"mean wCKA": np.mean(means), "shapes": np.mean(shape_counts)}


score_tables = []
leads = {}
descriptions = {}
for pool_name, networks in candidate_networks.items():
    similarity = compare("wcka", [wcka.chain(n) for n in networks])
    shapes = np.array([hidden_widths(network) for network in networks])
    pools, sets_by_choice = choose_ensembles(similarity, networks)
    # All at once, as choices share ensembles
    scores = test_ensembles(
        np.concatenate(list(sets_by_choice.values())), networks)
    for i, (choice, sets) in enumerate(sets_by_choice.items()):
        rows = slice(i * draws, (i + 1) * draws)
        columns = {}
        for name, values in scores.items():
            columns[name, "clean"] = values[rows, 0]
            columns[name, "corrupted"] = values[rows, 1:].mean(1)
        table = pd.DataFrame(columns).stack(future_stack=True)
        table = table.rename_axis(["ensemble", "images"]).reset_index()
        score_tables.append(
            table.assign(**{"from": pool_name, "chosen by": choice}))
        descriptions[pool_name, choice] = describe_ensembles(
            sets, similarity, shapes)
        if choice == RANDOM:
            continue
        for name, values in scores.items():
            sign = -1 if name == "calibration error" else 1
            leads[pool_name, choice, name] = ensembles.lead_over_chance(
                sign * values[rows], sign * values[:draws], pools,
                sets_by_choice[RANDOM])
tested = pd.concat(score_tables, ignore_index=True)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ensembles-chosen", "caption": "Ensembles drawn at random (grey) and chosen from random pools in three ways (colours), as enhanced box plots: disagreement of the members, accuracy and log-likelihood, on clean and on corrupted test images (mean over corruptions). Left half of each panel: networks of one shape; right half: of several shapes."}, "image": {"alt": "Six panels in two rows, clean and corrupted; in each, enhanced box plots of random ensembles and of those chosen by low wCKA, low agreement and high accuracy, for networks of one shape and of several."}}
CHOICE_COLOURS = {
    RANDOM: "#CCCCCC",
    LOW_WCKA: figures.MEASURE_COLORS["wcka"],
    LOW_AGREEMENT: figures.QUIET,
    HIGH_ACCURACY: figures.MEASURE_COLORS["dcka"],
}
fig, panels = plt.subplots(2, 3, figsize=(figures.WIDTH, 5.2))
for image_kind, panel_row in zip(("clean", "corrupted"), panels):
    rows = tested[tested.images == image_kind]
    # All but the calibration error, which the table below has
    for name, axes in zip(QUALITIES[:3], panel_row, strict=True):
        figures.boxen(axes, rows, x="from", y=name, hue="chosen by",
                      palette=CHOICE_COLOURS, legend=False)
        title = name if image_kind == "clean" else ""
        axes.set(xlabel="", ylabel="", title=title)
        axes.tick_params(axis="x", rotation=15)
    panel_row[0].set_ylabel(image_kind)
handles = []
for name, color in CHOICE_COLOURS.items():
    handles.append(Patch(color=color, label=name))
fig.legend(handles=handles, loc="outside upper center", ncols=4)
plt.show()

# %% tags=["remove-cell"]
RESPECTS = ("disagreement", "accuracy")
BEGINNINGS = {
    LOW_WCKA: "Ensembles chosen by low wCKA",
    LOW_AGREEMENT: "Those chosen by low agreement",
    HIGH_ACCURACY: "Those chosen by high accuracy",
}
GLUE_NAMES = {
    LOW_WCKA: "wcka",
    LOW_AGREEMENT: "agreement",
    HIGH_ACCURACY: "accuracy",
}


def shares_beaten(choice):
    """Shares of random ensembles that those of one choice beat."""
    shares = {}
    for pool_name in candidate_networks:
        shares[pool_name] = {
            name: leads[pool_name, choice, name].value + 0.5
            for name in RESPECTS}
    return shares


def beats_chance(choice):
    """Whether a choice is significantly better than chance, by respect."""
    names = []
    p_values = []
    for pool_name in candidate_networks:
        for name in RESPECTS:
            lead = leads[pool_name, choice, name]
            names.append(f"{name} ({pool_name})")
            # Where nothing varies there is no error to judge a lead by.
            is_better = lead.value > 0 and lead.error > 0
            p_values.append(lead.p if is_better else 1.0)
    return dict(zip(names, holm(p_values) < rules.LEVEL))


for choice, name in GLUE_NAMES.items():
    beaten_sentence = sentences.beaten_sentence(
        BEGINNINGS[choice], shares_beaten(choice))
    chance_sentence = sentences.chance_sentence(choice, beats_chance(choice))
    glue(f"beaten-{name}", beaten_sentence, display=False)
    glue(f"chance-{name}", chance_sentence, display=False)

# %% [markdown]
# How much of that is significant? {glue:text}`chance-wcka` {glue:text}`chance-agreement` {glue:text}`chance-accuracy` The folded
# table has the shares with intervals over networks and probes, and what was chosen: the mean wCKA between members, and of how many
# different shapes they are.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of ensembles that are beaten, and of what was chosen"}
beaten_texts = {}
for (pool_name, choice, name), lead in leads.items():
    low, high = 100 * (np.clip([lead.low, lead.high], -0.5, 0.5) + 0.5)
    text = interval(100 * (lead.value + 0.5), low, high, ".0f")
    beaten_texts.setdefault((pool_name, choice), {})[f"{name}, %"] = text
description_table = pd.DataFrame(descriptions).T
description_table["mean wCKA"] = description_table["mean wCKA"].map(
    "{:.2f}".format)
description_table["shapes"] = description_table["shapes"].map("{:.1f}".format)
description_table.join(pd.DataFrame(beaten_texts).T).fillna("").rename_axis(
    [None, None])

# %% tags=["remove-cell"]
say("n-members", members, "d")
say("n-pool", pool, "d")
say("n-candidates", candidates, "d")

# %% [markdown]
#
# ## Pruning
#
# Prune the smallest weights step by step (`shares`). Does wCKA between the pruned network and the whole one say, without data, when pruning
# begins to do harm? The obvious rivals need no data either: the
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
    population = train_networks(
        shape, range(seed, seed + pruned_networks))
    for i, network in enumerate(networks_of(population)):
        for share in shares:
            with torch.no_grad():
                step = pruning_step(network, share)
            shape_name = "-".join(map(str, shape))
            step_rows.append({
                "shape": shape_name,
                "network": f"{shape_name}, seed {i}",
                "share": share,
                **step,
            })
steps = pd.DataFrame(step_rows)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-pruning", "caption": "Magnitude pruning of networks of several shapes (panels: hidden widths). Against the share of weights pruned: one minus the accuracy lost (black), wCKA with the whole network (orange), the product of the layers' cosines (green), and CKA of the last hidden layer with data (blue). Medians over seeds; the dotted line is where the tolerated loss is passed."}, "image": {"alt": "Panels of lines, one for each shape: wCKA, the product of layers' cosines, CKA and accuracy left against the share of weights pruned."}}
SIGN_COLOURS = {
    "wCKA": figures.MEASURE_COLORS["wcka"],
    "cosine, by layers": figures.ENSEMBLE_COLORS["random"],
    "CKA": figures.MEASURE_COLORS["cka"],
}
fig, panels = plt.subplots(1, len(pruned_shapes), sharey=True, squeeze=False,
                           figsize=(figures.WIDTH, 3))
panels = panels[0]
for axes, (shape, rows) in zip(panels, steps.groupby("shape", sort=False)):
    medians = rows.groupby("share").median(numeric_only=True)
    for sign, color in SIGN_COLOURS.items():
        axes.plot(medians[sign], color=color, label=sign,
                  lw=2.2 if sign == "wCKA" else 1.5)
    axes.plot(1 - medians.lost, color="black", label="1 − accuracy lost")
    harmful_shares = medians.index[medians.lost > tolerated]
    if len(harmful_shares):
        axes.axvline(harmful_shares[0], ls=":", color=figures.QUIET, lw=1.2)
    axes.set(title=shape, xlabel="share pruned", ylim=(0, 1.03))
panels[0].set_ylabel("similarity, accuracy")
handles, texts = panels[0].get_legend_handles_labels()
fig.legend(handles, texts, loc="outside upper center", ncols=4)
plt.show()

# %% tags=["remove-cell"]
is_harmed = steps.lost > tolerated
harmless_steps = steps[~is_harmed].sort_values("share")
last_wcka = harmless_steps.groupby("network").wCKA.last()
say("edge-low", last_wcka.min(), ".2f")
say("edge-high", last_wcka.max(), ".2f")

# %% [markdown]
# At the last harmless step wCKA is between {glue:text}`edge-low` and {glue:text}`edge-high`, by network: the closer these two are, the
# better one threshold serves all.
#
# A useful number puts the steps that lost more than the tolerated accuracy (`tolerated`) below those that did not, over all shapes and
# seeds together: then one threshold serves them all. The area under the ROC curve is the share of such pairs in the right
# order. Where areas are close to one, what tells scores apart is who puts fewer pairs in the wrong order. So wCKA's **lead** over a rival
# is the rival's wrong pairs minus wCKA's, divided by the sum of both. It is between minus one and one.
#
# In practice somebody sets a threshold on the networks that they have. Let it be set on all other shapes, so that it misses at most one harmed
# step in twenty. Which share of the harmed steps of the shape left out is caught, and which share of its harmless steps raises a false alarm?

# %%
SIGNS = ("wCKA", "cosine of weights", "cosine, by layers", "share left", "CKA")
WITHOUT_DATA = list(SIGNS[:-1])


def warning(score):
    """Tell how well a score warns of harm to networks of other shapes."""
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
pruning_leads = separation.leads_in_order(
    steps[WITHOUT_DATA], is_harmed, steps.network, "wCKA")
pruning_texts = {}
for rival, lead in pruning_leads.items():
    low, high = np.clip([lead.low, lead.high], -1, 1)
    pruning_texts[rival] = interval(lead.value, low, high, "+.2f")
shown_warnings = warnings_by_sign.assign(
    **{"wCKA's lead": pd.Series(pruning_texts)})
shown_warnings.style.format("{:.3f}", subset=["area under the curve"]).format(
    "{:.0%}", subset=list(warnings_by_sign)[1:]).format(
    na_rep="", subset=["wCKA's lead"])

# %% tags=["remove-cell"]
for sign, name in zip(SIGNS, ("wcka", "cosine", "layers", "share", "cka")):
    row = warnings_by_sign.loc[sign]
    say(f"warn-{name}", row["area under the curve"], ".3f")
    say(f"alarms-{name}", 100 * row["false alarms"], ".0f")
    say(f"caught-{name}", 100 * row["harmed steps caught"], ".0f")

# %% [markdown]
# By the area under the curve, wCKA has {glue:text}`warn-wcka`, the product of the layers' cosines {glue:text}`warn-layers`, the
# share left {glue:text}`warn-share`, and CKA, which sees data, {glue:text}`warn-cka`. With a threshold set on other shapes wCKA catches
# {glue:text}`caught-wcka` % of the harmed steps at {glue:text}`alarms-wcka` % false alarms, the product
# {glue:text}`caught-layers` % at {glue:text}`alarms-layers` %, and CKA {glue:text}`caught-cka` % at {glue:text}`alarms-cka` %.
#
# ## What is judged in this chapter
#
# The paper says "could be used". What has to be so for that, in numbers:
#
# - *Pruning*: wCKA's lead over each rival that needs no data is above zero.
# - *Ensembles*: ensembles chosen by low wCKA score above random ones more often than not, in disagreement and in accuracy, for networks of one
#   shape and of several. Its numbers are shares of random ensembles minus one half.
# - *A trusted model*: few pairs of a faithful copy and a stranger, or a changed copy, are in the wrong order.
# - *Backdoors*: few pairs of a benign and a backdoored copy are.
#
# Errors are over networks, those of ensembles over networks and probes. Trusted networks have draws of images of their own; networks that are
# pruned, and those of ensembles, share theirs.

# %% tags=["hide-input"]
pruning_parts = []
for rival, lead in pruning_leads.items():
    pruning_parts.append(part(f"lead over {rival}", lead))
area_texts = []
for sign, area in warnings_by_sign["area under the curve"].items():
    area_texts.append(f"{sign} {area:.3f}")

ensemble_parts = []
rival_texts = []
for pool_name in candidate_networks:
    for name in ("disagreement", "accuracy"):
        lead = leads[pool_name, LOW_WCKA, name]
        ensemble_parts.append(part(f"{name}, {pool_name}", lead))
        other_lead = leads[pool_name, LOW_AGREEMENT, name]
        rival_texts.append(f"{other_lead.value:+.2f}")

trusted_parts = []
trusted_text = "copies are all faithful, or all changed"
if has_both:
    trusted_parts = [
        part("faithful copies and strangers", misordered_strangers("wCKA")),
        part("faithful and changed copies", misordered_changed("wCKA")),
    ]
    matched_shares = order_table.loc["cosine, matched"]
    matched_text = ", ".join(f"{share:.3f}" for share in matched_shares)
    trusted_text = ("shares of pairs in the wrong order; "
                    f"matched cosine: {matched_text}")

backdoor_parts = []
for kind, share in unnoticed_backdoors.items():
    backdoor_parts.append(part(f"backdoored and {kind}", share))

chapter_claims = rules.judge("07", {
    "pruning": rules.Finding(
        pruning_parts, "areas under the curve: " + ", ".join(area_texts)),
    "ensembles": rules.Finding(
        ensemble_parts,
        "the same for low agreement: " + ", ".join(rival_texts)),
    "trusted": rules.Finding(trusted_parts, trusted_text),
    "backdoors": rules.Finding(
        backdoor_parts, "shares of pairs in the wrong order"),
})
claims.show(chapter_claims)

# %% tags=["remove-cell"]
SENTENCES = {
    "pruning": {
        "holds": "wCKA orders pruned networks by harm better than each of the "
                 "simpler numbers that need no data either.",
        "partly": "wCKA orders pruned networks by harm better than some of the "
                  "simpler numbers that need no data either, not all.",
        "fails": "wCKA does not order pruned networks by harm better than "
                 "simpler numbers that need no data either.",
        "cannot be told": "Whether wCKA orders pruned networks by harm better "
                          "than simpler numbers is open.",
    },
    "ensembles": {
        "holds": "Low wCKA picks ensembles that are more diverse and more "
                 "accurate than random ones.",
        "partly": "Low wCKA picks better ensembles than chance in some "
                  "respects (diversity or accuracy, one shape or several), "
                  "not in all.",
        "fails": "Low wCKA picks ensembles that are neither more diverse nor "
                 "more accurate than random ones.",
        "cannot be told": "Whether low wCKA picks better ensembles than chance "
                          "is open.",
    },
    "trusted": {
        "holds": "wCKA ensures similarity to a trusted model among honest "
                 "people: it puts copies that still do the same above "
                 "strangers and above copies that do not.",
        "partly": "wCKA tells copies that still do the same from strangers or "
                  "from changed copies, not from both.",
        "fails": "wCKA does not tell copies that still do the same from "
                 "strangers or from changed copies.",
        "cannot be told": "Whether wCKA tells copies that still do the same "
                          "from strangers and from changed copies is open.",
    },
    "backdoors": {
        "holds": "Backdoored copies score below all kinds of benign ones.",
        "partly": "Backdoored copies score below some kinds of benign ones, "
                  "not below others.",
        "fails": "wCKA does not notice a backdoor.",
        "cannot be told": "Whether backdoored copies score below benign ones "
                          "is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)

# %% [markdown]
# ## Exercises
#
# **1.** Is the lead of wCKA among pruned networks owed to the loss that is tolerated? On a larger scale:
# `python -m wcka run 07 -p tolerated 0.05 -p pruned_networks 10`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
areas_at = {}
for loss in (0.005, 0.01, 0.02, 0.05, 0.1):
    has_lost = steps.lost > loss
    areas_at[f"tolerated {loss:.1%}"] = {
        sign: statistics.overlap(steps[~has_lost][sign], steps[has_lost][sign])
        for sign in SIGNS}
pd.DataFrame(areas_at).style.format("{:.3f}")

# %% [markdown]
# **2.** Does low wCKA choose more diverse ensembles if it has more networks to choose from? On a larger scale:
# `python -m wcka run 07 -p candidates 60 -p pool 20`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
size_rows = []
for pool_name, networks in candidate_networks.items():
    similarity = compare("wcka", [wcka.chain(n) for n in networks])
    with torch.no_grad():
        predictions = torch.stack([n(test_inputs).argmax(1) for n in networks])
    disagreement = 1 - pairwise_agreement(predictions)
    for size in sorted({members, (members + pool) // 2, pool}):
        pools = ensembles.drawn_sets(len(networks), size, draws, seed)
        sets = ensembles.least_similar_of_pools(similarity, pools, members)
        size_rows.append({
            "from": pool_name,
            "networks to choose from": size,
            "mean wCKA": np.mean(
                [mean_over_pairs(similarity, chosen) for chosen in sets]),
            "disagreement": np.mean(
                [mean_over_pairs(disagreement, chosen) for chosen in sets]),
        })
size_table = pd.DataFrame(size_rows).set_index(
    ["from", "networks to choose from"])
size_table.style.format({"mean wCKA": "{:.3f}", "disagreement": "{:.1%}"})

# %% [markdown]
# **3.** Does a backdoor that is taught by more images leave a deeper trace in wCKA? On a larger scale:
# `python -m wcka run 07 -p poisoned 0.3 -p trusted 10`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
poison_rows = {}
for share in (0.02, 0.1, 0.5):
    poisoned_networks = []
    for population, draw in zip(trusted_populations, trusted_draws):
        poisoned_networks.append(backdoored_copy(population, draw, share))
    chains = [wcka.chain(n) for n in [*originals, *poisoned_networks]]
    positions = np.arange(trusted)
    values = compare("wcka", chains, (positions, trusted + positions))
    with torch.no_grad():
        poison_rows[f"{share:.0%} of the images"] = {
            "labelled 0 by the square": share_fooled(poisoned_networks),
            "wCKA with the trusted network": np.mean(values),
        }
pd.DataFrame(poison_rows).T.style.format({
    "labelled 0 by the square": "{:.0%}",
    "wCKA with the trusted network": "{:.3f}",
})

# %% [markdown]
# ## To take away
#
# - **Pruning:** {glue:text}`take-pruning`
# - **Ensembles:** {glue:text}`take-ensembles` {glue:text}`chance-agreement`
# - **Similarity to a trusted model:** {glue:text}`take-trusted`
# - **Safety:** {glue:text}`take-backdoors` A copy can be dangerous: look at what it does.
