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
# # The chain of any network
#
# ```{admonition} In one paragraph
# :class: tip
# A network has a {term}`chain` if it is linear except for its activation functions and poolings: of {glue:text}`n-families`
# architectures of torchvision {glue:text}`n-plain` have one as they are, the others once gates, normalisation or attention
# are frozen. {glue:text}`take-convolutional-separation` Its {term}`floor` among untrained networks is at most
# {glue:text}`conv-floor-wcka`, that of {term}`CKA` {glue:text}`conv-floor-cka`; between {term}`seeds <seed>` wCKA ranges
# from {glue:text}`conv-seeds-low` to {glue:text}`conv-seeds-high`, and where it is lowest (*{glue:text}`conv-lowest-kind`*)
# {term}`agreement` is {glue:text}`conv-lowest-agreement`. {glue:text}`take-strength` {glue:text}`take-convolutional-gates`
# ```
#
# Few networks are fully connected. The paper has no chain for convolutions, residual connections and
# batch normalisation, and leaves them to future work (section 4). This chapter gives them one. Then it asks of
# convolutional, batch-normalised and residual networks what chapters [2](02-calibration) and
# [3](03-functional) asked of fully connected ones: where zero and one lie, and whether {term}`wCKA` follows
# what networks do.
#
# After this chapter you can
#
# - say what the chain of any network is, and get it in one call;
# - say which networks have no chain, and what freezing a part of them changes;
# - say how well wCKA does among convolutional networks, beside CKA, {term}`Procrustes` and {term}`dCKA`.

# %% tags=["hide-input"]
import time
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from myst_nb import glue
from torch import nn

import wcka
from wcka.book import (
    claims,
    distinct,
    figures,
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
    ensemble_similarities,
    gated_chains,
    jobs,
    matching,
    statistics,
    summaries,
    trained,
)
from wcka.measures import MEASURE_LABELS, PAPER_MEASURES, compare, nearest
from wcka.measures.spelling import listed
from wcka.networks import (
    chains,
    expand_probes,
    image_sets,
    initialise,
    mlp,
    resolve_device,
)
from wcka.weights import NotLinear, symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 05 -p seeds 3 -p datasets "['fashion']"`.

# %% tags=["parameters"]
# networks of torchvision
families: list[str] = [
    "alexnet", "densenet121", "resnet18", "regnet_x_400mf",
    "mobilenet_v3_small", "efficientnet_b0", "swin_t"]
side: int = 64  # pixels along a side of their images
# real images: "mnist", "fashion" or both
datasets: list[str] = ["mnist", "fashion"]
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
# convolutional networks, at least two of these
kinds: list[str] = ["plain", "batch norm", "residual"]
# of their convolutions (of a residual network: of its stages)
channels: list[int] = [8, 16]
hidden: int = 32  # width of the linear layer behind them
# what is trained on: clean images, or those of an attack
strategies: list[str] = ["standard", "fgsm"]
seeds: int = 3  # initialisations of each kind and strategy
# training images of these classes (more than there are: all)
train_images: int = 3000
epochs: int = 4  # passes through them
# epochs at whose end the networks are compared
checkpoints: list[int] = [2, 4]
batch_size: int = 64  # images in one step of training
# largest change of a pixel by the attack that is trained on
train_eps: float = 0.1
# networks of each kind with random weights, for the floor
untrained: int = 12
# first and last epoch of a longer training, for the ceiling
long_run: list[int] = [8, 12]
# clean, names of corruptions or attacks, or "corruptions" and "attacks" for
# all
probes: list[str] = [
    "clean", "fog", "glass_blur", "impulse_noise", "rotate", "stripe",
    "zigzag", "gaussian_noise", "fgsm", "pgd"]
# largest change of a pixel by the attacks that agreement is counted under
eps: float = 0.1
attack_steps: int = 5  # steps of PGD there
noise: float = 0.1  # standard deviation of the Gaussian noise there
attacked_images: int = 128  # test images that are attacked
# clean test images that the activation measures see
clean_images: int = 500
# whose activations are compared: "last hidden" or "logits"
layer: str = "last hidden"
# Gaussian inputs over which expected Jacobians are means
draws: int = 500
# clean accuracy from which a network counts as having learned; pairs of such
# networks are judged
learned: float = 0.9
# other limits, at which the verdicts are judged anew for the page of rules
other_limits: list[float] = [0.8, 0.95]
# of the first network, the draws of images, the corruptions and the attacks
seed: int = 0
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""
# where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is
# one
device: str = "cpu"

# %% tags=["hide-input", "checks"]
for name in datasets:
    nearest(name, image_sets.DATASETS, "dataset in datasets")
    image_sets.check_classes(name, classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = expand_probes(probes)
distinct(
    families=(families, 1),
    datasets=(datasets, 1),
    classes=(classes, 2),
    kinds=(kinds, 2),
    strategies=(strategies, 2),
    checkpoints=(checkpoints, 2),
    long_run=(long_run, 2),
)
benchmark.check_grid(strategies, layer, checkpoints, epochs)
sizes = {"channels": channels, "hidden": [hidden], "classes": len(classes)}
architectures = {
    "plain": {"factory": "convnet", "kernel": 5, **sizes},
    "batch norm": {
        "factory": "convnet", "kernel": 5, "batch_norm": True, **sizes},
    "residual": {"factory": "resnet", **sizes},
}
for kind in kinds:
    nearest(kind, architectures, "kind of network")
known_families = torchvision.models.list_models(torchvision.models)
for name in families:
    nearest(name, known_families, "network in families")
within(
    side=(side, 32, 512),
    train_images=(train_images, 10, 60000),
    batch_size=(batch_size, 2, 60000),
    untrained=(untrained, 3, 1000),
    long_run=(long_run[0], 1, long_run[-1] - 1),
    eps=(eps, 0, 1),
    train_eps=(train_eps, 0, 1),
    noise=(noise, 0, 1),
    attack_steps=(attack_steps, 1, 1000),
    attacked_images=(attacked_images, 10, 10000),
    clean_images=(clean_images, attacked_images, 10000),
    draws=(draws, 10, 100000),
    learned=(learned, 0, 1),
    other_limits=(other_limits, 0, 1),
    channels=(channels, 1, 10000),
    hidden=(hidden, 1, 10000),
    seeds=(seeds, 3, 1000),
    epochs=(epochs, 1, 10000),
    seed=(seed, 0, 2**31),
)

# %% [markdown]
# ## The linear skeleton
#
# The paper's chain $W_1 W_2 \cdots W_l$ has a second meaning. Without its activation functions a fully connected
# network is an affine map, and the chain is its Jacobian. A Jacobian needs no
# weight matrices. So take the nonlinearities out of *any* network, call the rest its {term}`linear skeleton`, and let
# its chain be the Jacobian, inputs × outputs:
#
# - every elementwise activation becomes the identity;
# - max pooling becomes the mean over the same places;
# - dropout does nothing, and batch normalisation is the affine map that it is once training is over;
# - everything linear stays: convolutions of all kinds, sums of residual connections, concatenations, mean pooling.
#
# The network's own code runs with these replacements, and one
# vector-Jacobian product per output gives the chain. For a fully connected network it is the product of the
# weights; relative to its largest entry, the two differ by:

# %%
class Wrapped(nn.Module):
    """A network whose layers cannot be read off: only its code has them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


torch.manual_seed(seed)
network = mlp((28 * 28, 32, 32, 32, 32, len(classes)))
product = wcka.chain(network)
jacobian = wcka.chain(Wrapped(network), (28, 28))
float((product - jacobian).abs().max() / product.abs().max())

# %% [markdown]
# **Every chain is verified.** On every call the skeleton is run at random inputs and
# compared with the affine map of the chain. If they differ, the chain is refused, and the first function that is not linear
# is named, with the module that called it. This happens with gates (products of two factors that both depend on the input),
# layer normalisation and attention:

# %%
try:
    wcka.chain(torchvision.models.mobilenet_v3_small(), (3, side, side))
except NotLinear as error:
    print(error)

# %% [markdown]
# Such networks get a chain on demand: `freeze` keeps a factor at the value that it has in the network
# itself for one reference input. A gate keeps its opening, a normalisation its
# scale, attention its pattern. Permuting and rescaling units still
# leave the chain alone, but the chain then depends on the biases and on the reference, by default one draw
# of Gaussian noise.

# %% tags=["hide-input", "timing"]
# The function is kept in one piece: results on disk are computed anew if its
# code changes, but not if that of another function of this notebook does.
@cached
def survey_families(families, side, seed):
    """Compare two networks of random weights of each family of torchvision.

    Returns one row per family, with what must be frozen for a chain, what the
    chain takes, and wCKA.
    """
    input_shape = (3, side, side)
    rows = []
    for name in families:
        networks = []
        for i in range(2):
            torch.manual_seed(seed + i)
            networks.append(
                torchvision.models.get_model(name, num_classes=10))
        first_network = networks[0]

        # Freeze only where a chain is refused, and note the reason.
        refusal = ""
        freeze = ()
        try:
            wcka.chain(first_network, input_shape)
        except NotLinear as error:
            reason = str(error).split(":")[1]
            refusal = reason.split(" is not")[0].strip()
            freeze = ("gate", "norm", "attention")

        start = time.perf_counter()
        network_chains = []
        for network in networks:
            network_chains.append(
                wcka.chain(network, input_shape, freeze=freeze))
        chain_seconds = (time.perf_counter() - start) / 2
        forward_seconds = []
        for _ in range(3):
            start = time.perf_counter()
            with torch.no_grad():
                first_network.eval()(torch.zeros(1, *input_shape))
            forward_seconds.append(time.perf_counter() - start)

        weights = sum(p.numel() for p in first_network.parameters())
        rows.append({
            "network": name,
            "million weights": weights / 1e6,
            "refused unless frozen": refusal,
            "seconds": chain_seconds,
            "forward passes": chain_seconds / np.median(forward_seconds),
            "wCKA, random weights": wcka.wcka(*network_chains),
        })
    return pd.DataFrame(rows)


survey = survey_families(families, side, seed)
survey.set_index("network").style.format({
    "million weights": "{:.1f}",
    "seconds": "{:.2f}",
    "forward passes": "{:.0f}",
    "wCKA, random weights": "{:.4f}",
})

# %% tags=["remove-cell"]
is_plain = survey["refused unless frozen"] == ""
say("n-families", len(survey), "d")
say("n-plain", is_plain.sum(), "d")
highest_random = survey["wCKA, random weights"].max()
glue("highest-random", sentences.bound(highest_random, ".3f"), display=False)

# %% tags=["remove-cell", "timing"]
glue("slowest", sentences.bound(survey.seconds.max(), ".1f"), display=False)

# %% [markdown]
# {glue:text}`n-plain` of {glue:text}`n-families` networks have a chain as they are, the others once frozen. Each took
# at most {glue:text}`slowest` s for a chain to ten outputs, in double precision ("forward passes": how
# many passes of one image in single precision take as long). The wCKA of two networks of random weights is at most
# {glue:text}`highest-random`.
#
# ## Channels are units
#
# The channels of a convolutional network can be permuted and rescaled like the hidden units of a fully connected one; a
# residual connection ties the channels of its two ends together (`symmetry.hidden_units`). The function stays, and so does
# the chain: for ResNet-18 with permuted and rescaled channels the logits change by at most
# {glue:text}`symmetry-logits` of the largest, and wCKA with the original is at least {glue:text}`symmetry-wcka`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show permuted and rescaled channels of a ResNet-18"}
torch.manual_seed(seed)
resnet = torchvision.models.resnet18(num_classes=10).eval()
generator = torch.Generator().manual_seed(seed)
noise_images = torch.randn(16, 3, side, side, generator=generator)
permuted = symmetry.permute(resnet, seed)
transformed_networks = {
    "permuted": permuted,
    "rescaled": symmetry.rescale(resnet, seed),
    "both": symmetry.rescale(permuted, seed),
}

symmetry_rows = {}
for name, network in transformed_networks.items():
    with torch.no_grad():
        logits = resnet(noise_images)
        change = (network(noise_images) - logits).abs().max()
        cosine = torch.cosine_similarity(
            matching.flat_weights(network), matching.flat_weights(resnet), 0)
        similarity = wcka.wcka(network, resnet, input_shape=(3, side, side))
    symmetry_rows[name] = {
        "largest change of a logit": float(change / logits.abs().max()),
        "cosine of weights": float(cosine),
        "wCKA": similarity,
    }
symmetries = pd.DataFrame(symmetry_rows).T
symmetries.style.format({
    "largest change of a logit": "{:.0e}",
    "cosine of weights": "{:.3f}",
    "wCKA": "{:.6f}",
})

# %% tags=["remove-cell"]
largest_change = symmetries["largest change of a logit"].max()
glue("symmetry-logits", sentences.bound(largest_change, ".0e"), display=False)
glue("symmetry-wcka", sentences.bound(symmetries.wCKA.min(), ".6f", lower=True),
     display=False)

# %% [markdown]
# ## Small networks, trained from scratch
#
# Three kinds of small network are compared (`kinds`): **plain** (two convolutions with max pooling, one hidden
# linear layer), the same with **batch normalisation**, and **residual** (strided convolutions, each followed by
# a residual block, batch normalisation throughout, a mean over places at the end). Each is trained on
# some of the images of three classes (`train_images`), as they are and under the {term}`attack` FGSM.
#
# ### What the skeleton cannot see
#
# The skeleton of a network with max pooling is that of one with mean pooling, and a ReLU's that of no
# activation at all. So each network in this table has the chain of the trained network it was made from. On how many clean
# test images do the two agree?

# %%
def training_settings(dataset, kind, strategy="standard"):
    """Arguments of `trained` for networks of one kind, with all seeds."""
    return {
        "architecture": architectures[kind],
        "strategy": strategy,
        "dataset": dataset,
        "classes": classes,
        "images": train_images,
        "batch_size": batch_size,
        "seeds": list(range(seed, seed + seeds)),
        "epochs": epochs,
        "checkpoints": sorted(checkpoints),
        "eps": train_eps,
        "attack_steps": 1,
        "seed": seed,
        "device": device,
    }


def trained_seeds(dataset, kind):
    """Networks of one kind at the last epoch, one per seed."""
    population = trained(**training_settings(dataset, kind))
    is_last = population.members.epoch == epochs
    return population[is_last.to_numpy()]


def replaced(network, old_class, make_module):
    """Return a network in which all modules of one class are replaced.

    `make_module` makes a new module from the old one.
    """
    modules = []
    for module in network:
        if isinstance(module, old_class):
            module = make_module(module)
        modules.append(module)
    return nn.Sequential(*modules)


def without_biases(network):
    """Return a copy of a network with all biases at zero."""
    copy = deepcopy(network)
    with torch.no_grad():
        for name, values in copy.named_parameters():
            if name.endswith("bias"):
                values.zero_()
    return copy


network = trained_seeds(datasets[0], "plain").member(0)
variants = {
    "mean pooling for max pooling": replaced(
        network, nn.MaxPool2d, lambda m: nn.AvgPool2d(m.kernel_size)),
    "leaky ReLU for ReLU": replaced(
        network, nn.ReLU, lambda _: nn.LeakyReLU(0.2)),
    "tanh for ReLU": replaced(network, nn.ReLU, lambda _: nn.Tanh()),
    "no activation": replaced(network, nn.ReLU, lambda _: nn.Identity()),
    "no biases": without_biases(network),
}
images, labels = image_sets.load(datasets[0], "test", classes)
inputs = image_sets.as_inputs(images)
variant_rows = {}
for name, variant in variants.items():
    with torch.no_grad():
        logits = variant(inputs)
        network_logits = network(inputs)
        similarity = wcka.wcka(variant, network, input_shape=(28, 28))
    predictions = logits.argmax(1)
    variant_rows[name] = {
        "wCKA": similarity,
        "agreement": wcka.agreement(logits, network_logits),
        "accuracy": wcka.agreement(predictions, torch.from_numpy(labels)),
    }
variant_table = pd.DataFrame(variant_rows).T
variant_table.style.format(
    {"wCKA": "{:.6f}", "agreement": "{:.3f}", "accuracy": "{:.3f}"})

# %% tags=["remove-cell"]
say("blind-low", variant_table.agreement.min(), ".3f")
glue("blind-wcka", sentences.bound(variant_table.wCKA.min(), ".6f", lower=True),
     display=False)

# %% [markdown]
# wCKA is at least {glue:text}`blind-wcka` in every row, while agreement goes down to {glue:text}`blind-low`. Compare
# networks with the same nonlinearities in the same places.
#
# ### The grid
#
# As in [chapter 3](03-functional), all networks of a data set are paired where they differ in epoch, seed,
# architecture (the kind) or strategy alone. There are {glue:text}`n-networks` networks, and pairs count if both have learned.
# {glue:text}`left-out`

# %% tags=["hide-output"] mystnb={"code_prompt_show": "Show the networks: medians over seeds, at the last epoch"}
probing = {
    "classes": classes,
    "seed": seed,
    "eps": eps,
    "steps": attack_steps,
    "noise": noise,
    "images": clean_images,
    "attacked": attacked_images,
}

# Networks, and pairs of networks, by data set
models_of = {}
members_of = {}
all_pairs_of = {}
for dataset in datasets:
    models = []
    for kind in kinds:
        for strategy in strategies:
            models.append(training_settings(dataset, kind, strategy))
    members, pairs = benchmark.grid(
        models, probe_names, layer, attacked_images,
        {**probing, "dataset": dataset}, scheduler=scheduler)
    models_of[dataset] = models
    members_of[dataset] = members
    all_pairs_of[dataset] = pairs
    keep_grid(members, pairs, PAPER_MEASURES, f"-{dataset}")


pairs_of = {}  # what is judged
overviews = {}
for dataset in datasets:
    pairs_of[dataset] = summaries.learned_pairs(
        members_of[dataset], all_pairs_of[dataset], learned)
    starts = summaries.start_counts(pairs_of[dataset])
    for factor, n_starts in starts.items():
        if n_starts < 3:
            raise ValueError(
                f"{dataset}: pairs of networks with an accuracy of {learned} "
                f"that differ in {factor} come from {n_starts} starts, wanted "
                f"3: train longer, or lower `learned`")
    overviews[dataset] = summaries.overview(members_of[dataset])
overview = pd.concat(overviews).rename_axis([None, None, None])
overview.style.format(precision=3)

# %% tags=["remove-cell"]
all_members = pd.concat(members_of.values())
say("n-networks", len(all_members), ",")
is_weak = (all_members.accuracy < learned) & ~all_members.collapsed
left_out = sentences.left_out_sentence(
    all_members.collapsed.sum(), is_weak.sum(), learned)
glue("left-out", left_out, display=False)

# %% [markdown]
# ### Calibration
#
# There are three ensembles of each kind: networks with random weights (`untrained`), networks trained in the same way from
# different seeds, and one network at consecutive epochs of a longer training (`long_run`). Measures of
# {term}`activations <activation>` see clean test images.

# %%
def ensembles(dataset, kind):
    """Describe the three ensembles of a kind of network."""
    settings = training_settings(dataset, kind)
    long_epochs = list(range(long_run[0], long_run[1] + 1))
    return {
        "untrained": {
            "architecture": architectures[kind],
            "seeds": list(range(seed, seed + untrained)),
        },
        "seeds": {**settings, "compared": [epochs]},
        "consecutive epochs": {
            **settings,
            "seeds": [seed],
            "epochs": long_run[1],
            "checkpoints": long_epochs,
            "compared": long_epochs,
        },
    }


layer_numbers = {"last hidden": 1, "logits": 2}
ensemble_jobs = []
job_datasets = []
job_kinds = []
for dataset in datasets:
    for kind in kinds:
        job_datasets.append(dataset)
        job_kinds.append(kind)
        ensemble_jobs.append({
            "ensembles": ensembles(dataset, kind),
            "probe_name": "clean",
            "samples": clean_images,
            "draw": 0,
            "layer": layer_numbers[layer],
            "measures": list(PAPER_MEASURES),
            "dataset": dataset,
            "classes": classes,
            "seed": seed,
        })
calibrated = jobs.run_jobs(ensemble_similarities, ensemble_jobs,
                           description="ensembles", scheduler=scheduler)
# Every job gives as many rows, in the order of the jobs.
rows_per_job = len(calibrated) // len(ensemble_jobs)
calibrated["dataset"] = np.repeat(job_datasets, rows_per_job)
calibrated["kind"] = np.repeat(job_kinds, rows_per_job)
calibrated = calibrated.dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-conv-calibration", "caption": "Similarity of untrained convolutional networks (green), of networks of different seed (grey) and of one network at consecutive epochs (purple), by four measures. One column per kind of network, one row per data set."}, "image": {"alt": "Panels of enhanced box plots, one for each kind of network and data set: four measures, and for each three boxes, for untrained networks, for different seeds and for consecutive epochs."}}
palette = {
    "untrained": figures.ENSEMBLE_COLORS["random"],
    "seeds": "#BBBBBB",
    "consecutive epochs": figures.ENSEMBLE_COLORS["adjacent"],
}
measure_labels = [MEASURE_LABELS[measure] for measure in PAPER_MEASURES]
fig, panels = plt.subplots(
    len(datasets), len(kinds), sharex=True, sharey=True, squeeze=False,
    figsize=(figures.WIDTH, 0.9 + 2.1 * len(datasets)))
for dataset, panel_row in zip(datasets, panels):
    for kind, axes in zip(kinds, panel_row):
        is_dataset = calibrated.dataset == dataset
        rows = calibrated[is_dataset & (calibrated.kind == kind)]
        figures.boxen(axes, rows, x="measure", y="similarity", hue="ensemble",
                      order=PAPER_MEASURES, hue_order=list(palette),
                      palette=palette, legend=False)
        axes.set_xticks(range(4), measure_labels, rotation=45)
        axes.set(xlabel="", ylabel=f"similarity\n({dataset})",
                 ylim=(-0.03, 1.05),
                 title=kind if dataset == datasets[0] else "")
handles = []
for color in palette.values():
    handles.append(plt.Line2D([], [], marker="s", ls="", color=color))
fig.legend(handles, list(palette), loc="outside upper center", ncols=3)
plt.show()

# %% [markdown]
# Mean wCKA of untrained networks is at most {glue:text}`conv-floor-wcka` (Procrustes:
# {glue:text}`conv-floor-procrustes`, CKA {glue:text}`conv-floor-cka`, dCKA {glue:text}`conv-floor-dcka`). Between seeds
# it is {glue:text}`conv-seeds-low` to {glue:text}`conv-seeds-high`, and consecutive epochs never score below
# {glue:text}`conv-lowest`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the means and the lowest pair of consecutive epochs"}
def separation(rows):
    """Floor, seeds and ceiling of a measure.

    The overlap is the chance that an untrained pair scores above a pair of
    consecutive epochs.
    """
    floor = rows[rows.ensemble == "untrained"].similarity
    between_seeds = rows[rows.ensemble == "seeds"].similarity
    ceiling = rows[rows.ensemble == "consecutive epochs"].similarity
    return pd.Series({
        "untrained": floor.mean(),
        "highest untrained": floor.max(),
        "seeds": between_seeds.mean(),
        "lowest consecutive": ceiling.min(),
        "overlap": statistics.overlap(floor, ceiling),
    })


groups = calibrated.groupby(["dataset", "kind", "measure"], sort=False)
floors = groups[calibrated.columns].apply(separation)
shown_columns = ["untrained", "seeds", "lowest consecutive"]
shown_floors = floors.rename(MEASURE_LABELS, level="measure")
shown_floors.unstack("measure")[shown_columns].style.format("{:.2f}")

# %% tags=["remove-cell"]
highest_floors = floors.groupby("measure").untrained.max()
for measure in PAPER_MEASURES:
    say(f"conv-floor-{measure}", highest_floors[measure], ".2f")
wcka_floors = floors.xs("wcka", level="measure")
say("conv-seeds-low", wcka_floors.seeds.min(), ".2f")
say("conv-seeds-high", wcka_floors.seeds.max(), ".2f")
say("conv-lowest", wcka_floors["lowest consecutive"].min(), ".2f")

# %% [markdown]
# ### What a chain looks like
#
# A chain is inputs × outputs, so each of its columns is an image. Here
# is the first column of some, after {term}`centring`.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-chains", "caption": "First column of the chain of an untrained network, and of two networks trained from different seeds, for each kind of network on the first data set. Orange: a brighter pixel raises the first class; purple: it lowers it."}, "image": {"alt": "Small images in rows, one for each kind of network, and three columns. Untrained plain and normalised networks show noise, trained ones the shapes of classes. Residual networks show a regular grid."}}
fig, panels = plt.subplots(
    len(kinds), 3, figsize=(figures.WIDTH * 0.7, 2 * len(kinds)))
for kind, panel_row in zip(kinds, panels):
    population = trained_seeds(datasets[0], kind)
    networks = {
        "untrained": initialise(architectures[kind], [seed]).member(0),
        "trained": population.member(0),
        "trained, other seed": population.member(1),
    }
    for (title, network), axes in zip(networks.items(), panel_row):
        chain = wcka.chain(network, (28, 28))  # (784, classes)
        image = chain[:, 0].reshape(28, 28)
        image = image - image.mean()
        largest = image.abs().max()
        axes.imshow(-image, cmap="PuOr", vmin=-largest, vmax=largest)
        axes.set(xticks=[], yticks=[],
                 title=title if kind == kinds[0] else "")
    panel_row[0].set_ylabel(kind)
plt.show()

# %% [markdown]
# Between seeds wCKA is lowest for the kind *{glue:text}`conv-lowest-kind`*: {glue:text}`conv-seeds-low`, beside
# {glue:text}`conv-lowest-untrained` for untrained networks; the agreement of its seeds on clean test images is
# {glue:text}`conv-lowest-agreement`. A network that ends in a mean over places, as residual networks
# do, hardly depends on place without its activation functions: wherever
# a shape stands, the mean of its linear response is the same. Its chain keeps the steps of the strides and the border; what
# the network knows about shapes passed through its activation functions. **Do not read a low wCKA between networks with
# global pooling as a
# difference.** A flattened map before the linear layers (plain, batch norm) keeps the places apart.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show wCKA and agreement between seeds, by kind"}
def agreement_between_seeds(dataset):
    """Mean agreement on clean images between seeds, by kind of network.

    Of standard training, at the last epoch.
    """
    member_table = members_of[dataset].set_index("model")
    pairs = all_pairs_of[dataset]
    is_clean = pairs["probe"] == "clean"
    pairs = pairs[(pairs.differs == "seed") & is_clean]
    # Both networks of such a pair are of one architecture, strategy, epoch.
    first_names = pairs.a.astype(str)
    architecture = first_names.map(member_table["architecture"])
    strategy = first_names.map(member_table["strategy"])
    epoch = first_names.map(member_table["epoch"])
    pairs = pairs[(strategy == "standard") & (epoch == epochs)]
    means = pairs.groupby(architecture).agreement.mean()
    agreements = {}
    for kind in kinds:
        name = benchmark.architecture_name(architectures[kind])
        agreements[kind] = means[name]
    return agreements


seed_agreements = {}
for dataset in datasets:
    for kind, agreement in agreement_between_seeds(dataset).items():
        seed_agreements[dataset, kind] = agreement
seed_table = wcka_floors[["untrained", "seeds"]].add_prefix("wCKA, ")
seed_table["agreement, seeds"] = pd.Series(seed_agreements)
seed_table.style.format("{:.3f}")

# %% tags=["remove-cell"]
lowest_seeds = wcka_floors.seeds.idxmin()  # (data set, kind)
glue("conv-lowest-kind", lowest_seeds[1], display=False)
say("conv-lowest-untrained", wcka_floors.untrained[lowest_seeds], ".2f")
say("conv-lowest-agreement", seed_agreements[lowest_seeds], ".3f")

# %% [markdown]
# ### Similarity against agreement

# %%
def compare_both(pairs):
    """Correlations of the measures with agreement, by Pearson and Spearman."""
    comparisons = {}
    for method in ("pearson", "spearman"):
        comparisons[method] = statistics.compare_by_factor(
            pairs, PAPER_MEASURES, method=method)
    return comparisons


results = {}
results_of_alive = {}  # of all pairs without a collapsed network
for dataset in datasets:
    results[dataset] = compare_both(pairs_of[dataset])
    all_pairs = all_pairs_of[dataset]
    results_of_alive[dataset] = compare_both(all_pairs[~all_pairs.collapsed])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-conv-benchmark", "caption": "The functional benchmark of {numref}`fig-benchmark`, for convolutional networks on the first data set. Top: similarity by wCKA against agreement, one dot per pair and probe: clean (black), corrupted (orange), attacked (green). Middle and bottom: correlation of each measure with agreement (white dot), with the paper's interval (broad bar) and over starts and probes (thin line). Marks compare with wCKA, by the paper's test (upper line) and over starts and probes (lower line): + where wCKA is ahead, − where it is behind."}, "image": {"alt": "Three rows of four panels, one column each for epoch, seed, architecture and strategy. Top: scatter of agreement against wCKA. Middle: Pearson's r of four measures with intervals and marks of significance. Bottom: Spearman's rho."}}
first_dataset = datasets[0]
figures.benchmark(pairs_of[first_dataset], results[first_dataset],
                  statistics.ceilings(pairs_of[first_dataset]))
with figures.many_marks():
    plt.show()

# %% [markdown]
# {glue:text}`conv-summary` (At the 5 % level over {term}`starts <start>` and {term}`probes <probe>`, corrected for the number
# of tests; a start is a kind of network and a seed.) The folded tables have r, ρ and wCKA's lead with 95 % intervals, the
# second one for all networks that have not collapsed, whether they have learned or not.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the correlations of all measures on all data sets"}
def lead_tables(results_of_datasets):
    """Correlations and leads of all data sets, as text."""
    tables = {}
    for dataset, comparisons in results_of_datasets.items():
        tables[dataset] = leads.table(comparisons)
    return pd.concat(tables)


lead_tables(results).style

# %% tags=["remove-cell"]
DATASET_NAMES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}

summary_sentences = []
for dataset in datasets:
    summary_sentences.append(leads.lead_sentence(
        results[dataset]["pearson"],
        f"On {DATASET_NAMES[dataset]} wCKA's r"))
glue("conv-summary", " ".join(summary_sentences), display=False)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the same for all networks that have not collapsed"}
lead_tables(results_of_alive).style

# %% [markdown]
# Where architecture differs, a correlation over all pairs may only say which pairs have a residual network, whose chain
# has lost the places. Pearson's r for pairs of different architecture, with and without residual networks:

# %% tags=["hide-input"]
def by_residual(dataset):
    """Pearson's r of pairs of different architecture.

    Returns one row for all pairs, and one each for those without and with a
    residual network, where there are such.
    """
    pairs = pairs_of[dataset]
    pairs = pairs[pairs.differs == "architecture"]
    is_residual = (pairs.a.astype(str).str.startswith("ResNet")
                   | pairs.b.astype(str).str.startswith("ResNet"))
    groups = {
        "all": pairs,
        "without residual": pairs[~is_residual],
        "with residual": pairs[is_residual],
    }
    table_rows = {}
    for name, group in groups.items():
        if not len(group):
            continue
        row = {}
        for measure in PAPER_MEASURES:
            label = MEASURE_LABELS[measure]
            row[label] = group[measure].corr(group.agreement)
        row["mean agreement"] = group.agreement.mean()
        row["mean wCKA"] = group.wcka.mean()
        row["rows"] = len(group)
        table_rows[name] = row
    return pd.DataFrame(table_rows).T


residual_tables = {}
for dataset in datasets:
    residual_tables[dataset] = by_residual(dataset)
residual_table = pd.concat(residual_tables)
residual_table.style.format("{:.2f}").format("{:.0f}", subset=["rows"])

# %% tags=["remove-cell"]
residual_texts = []
for dataset in datasets:
    row_names = residual_table.loc[dataset].index
    if "without residual" in row_names and len(row_names) > 1:
        of_dataset = residual_table.loc[dataset]["wCKA"]
        residual_texts.append(
            f"On {DATASET_NAMES[dataset]} wCKA's r is "
            f"{of_dataset['all']:.2f} over all these pairs, and "
            f"{of_dataset['without residual']:.2f} over those without a "
            "residual network.")
residual_text = " ".join(residual_texts)
if not residual_texts:
    residual_text = "This run has no pairs to compare in this way."
glue("conv-residual", residual_text, display=False)

# %% [markdown]
# {glue:text}`conv-residual`
#
# ### With the gates
#
# The {term}`chain` leaves the activation functions out. The {term}`expected Jacobian`, E[J], a mean over Gaussian inputs, keeps
# them; [chapter 10](10-gates) compares the two among fully connected networks. Here E[J] is {glue:text}`gates-words`, in the mean of
# Pearson's r over the factors.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the mean correlations of chains and of expected Jacobians"}
expected = jobs.run_jobs(
    gated_chains.expected_similarities,
    [{"models": models_of[dataset], "draws": draws, "seed": seed}
     for dataset in datasets],
    description="expected Jacobians", scheduler=scheduler)


def mean_correlations(dataset, pairs):
    """Mean r over the factors of wCKA and E[J], and the lead of E[J]."""
    members = members_of[dataset]
    of_dataset = expected[expected.dataset == dataset]
    pairs = summaries.with_columns_of(
        of_dataset.drop(columns=["dataset", "differs"]), members, pairs)
    r, gate_lead = summaries.mean_correlations(
        members, pairs, ["wcka", "expected, Gaussian"])
    return r, gate_lead["expected, Gaussian"]


gate_rows = {}
gate_leads = {}
for dataset in datasets:
    r, lead = mean_correlations(dataset, pairs_of[dataset])
    gate_leads[dataset] = lead
    gate_rows[DATASET_NAMES[dataset]] = {
        "wCKA": with_interval(r["wcka"]),
        "E[J]": with_interval(r["expected, Gaussian"]),
        "lead of E[J]": with_interval(lead, "+.2f"),
    }
pd.DataFrame(gate_rows).T.style

# %% tags=["remove-cell"]
gate_words = []
for dataset, lead in gate_leads.items():
    side = "ahead of" if lead.value > 0 else "behind"
    gate_words.append(
        f"{abs(lead.value):.2f} {side} wCKA on {DATASET_NAMES[dataset]}")
glue("gates-words", " and ".join(gate_words), display=False)

# %% [markdown]
# ### Heads of different trunks
#
# [Chapter 4](04-transfer) compares {term}`heads <head>` alone, features × outputs, on one {term}`trunk`. Here every
# network has convolutions of its own, and feature 7 of one is not feature 7 of the other, so only the chain
# *through* the convolutions can compare them. Alone, the linear layers of networks of different seed have a wCKA of at most
# {glue:text}`heads-highest`; the whole
# networks {glue:text}`wholes-lowest` to {glue:text}`wholes-highest`. In {glue:text}`n-gained` of {glue:text}`n-rows-through`
# rows of the folded table whole networks are
# more than twice as similar as both their linear layers and untrained networks.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show wCKA of linear layers alone and of whole networks"}
def heads_and_networks(dataset, kind):
    """Mean wCKA over pairs of seeds: of the linear layers, of the networks."""
    population = trained_seeds(dataset, kind)
    networks = [population.member(i) for i in range(len(population))]
    # The linear layers begin with the last Flatten.
    for i, module in enumerate(networks[0]):
        if isinstance(module, nn.Flatten):
            start = i
    heads = [wcka.chain(network[start:]) for network in networks]
    upper = np.triu_indices(len(networks), 1)
    return {
        "linear layers alone": compare("wcka", heads)[upper].mean(),
        "whole networks": compare("wcka", chains(population))[upper].mean(),
    }


head_rows = {}
for dataset in datasets:
    for kind in kinds:
        head_rows[dataset, kind] = heads_and_networks(dataset, kind)
head_table = pd.DataFrame(head_rows).T
head_table["whole networks, untrained"] = wcka_floors.untrained
head_table.style.format("{:.3f}")

# %% tags=["remove-cell"]
network_wcka = head_table["whole networks"]
rivals = head_table[["linear layers alone", "whole networks, untrained"]]
is_gain = network_wcka > 2 * rivals.max(axis=1)
say("heads-highest", head_table["linear layers alone"].max(), ".2f")
say("n-gained", is_gain.sum(), "d")
say("n-rows-through", len(is_gain), "d")
say("wholes-lowest", network_wcka.min(), ".2f")
say("wholes-highest", network_wcka.max(), ".2f")

# %% [markdown]
# ## What is judged in this chapter
#
# The paper only says of these networks that a formulation will "bear significant
# fruit". We judge its sentences about fully connected networks here again, by the same [rules](../book/rules).
# Calibration: is it so in each kind of network and data set that no untrained pair scores as high as any pair of
# consecutive epochs, and are the other measures' floors higher than wCKA's? Strength: one row per data set, with every
# factor and every other measure. Gates: is the lead of E[J] over wCKA above zero on each data set?
# This was asked before the {term}`run of record`. For architecture, read the rows on strength with the table of residual pairs above.

# %% tags=["hide-input"]
def separation_parts():
    """Parts of a finding: whether no untrained pair reaches the ceiling."""
    parts = []
    for (dataset, kind, measure), overlap in floors.overlap.items():
        if measure == "wcka":
            parts.append(rules.Part(
                f"{kind}, {DATASET_NAMES[dataset]}", float(overlap == 0)))
    return parts


def separation_text():
    """How many kinds and data sets each of the other measures tells apart."""
    is_separated = floors.overlap.unstack("measure") == 0
    counts = []
    for measure in PAPER_MEASURES:
        if measure != "wcka":
            counts.append(
                f"{MEASURE_LABELS[measure]} {is_separated[measure].sum()}")
    return (f"of {len(is_separated)} the others tell apart: "
            f"{', '.join(counts)}")


def floor_parts():
    """Parts of a finding: floors of the other measures minus wCKA's.

    The untrained networks are the same for all data sets, so a pair of them
    has the mean over data sets.
    """
    parts = []
    untrained_pairs = calibrated[calibrated.ensemble == "untrained"]
    for kind in kinds:
        by_pair = untrained_pairs[untrained_pairs.kind == kind].pivot_table(
            index=["a", "b"], columns="measure", values="similarity").dropna()
        a, b = by_pair.index.to_frame().to_numpy().T
        rivals = by_pair[[name for name in PAPER_MEASURES if name != "wcka"]]
        differences = rivals.sub(by_pair["wcka"], axis=0)
        means = crossed.means(crossed.Design(a, b), differences)
        for measure, mean in means.items():
            parts.append(rules.Part(
                f"{MEASURE_LABELS[measure]}, {kind}", *mean))
    return parts


def residual_text_of(dataset):
    """Pearson's r for architecture where no network is residual."""
    if (dataset, "without residual") not in residual_table.index:
        return ""
    row = residual_table.loc[(dataset, "without residual")]
    texts = []
    for measure in PAPER_MEASURES:
        label = MEASURE_LABELS[measure]
        texts.append(f"{label} {row[label]:.2f}")
    return ("Pearson's r for architecture, without residual networks: "
            + ", ".join(texts))


findings = {
    "convolutional-separation": rules.Finding(
        separation_parts(), separation_text()),
    "convolutional-floor": rules.Finding(floor_parts()),
}


def gate_finding(leads_of_gates):
    """The finding on the lead of E[J], by data set."""
    return rules.Finding([
        rules.Part(DATASET_NAMES[dataset], *lead)
        for dataset, lead in leads_of_gates.items()])


findings["convolutional-gates"] = gate_finding(gate_leads)
for dataset in DATASET_NAMES:
    key = f"convolutional-{dataset}"
    if dataset in datasets:
        findings[key] = rules.Finding(
            leads.parts(results[dataset]), residual_text_of(dataset))
    else:
        findings[key] = rules.Finding(
            [], "this run does not have this data set")

# The same with other limits from which networks count as having learned
findings_at = {}
for limit in other_limits:
    findings_there = {}
    leads_there = {}
    for dataset in datasets:
        pairs = summaries.learned_pairs(
            members_of[dataset], all_pairs_of[dataset], limit)
        if min(summaries.start_counts(pairs).values()) >= 3:
            findings_there[f"convolutional-{dataset}"] = rules.Finding(
                leads.parts(compare_both(pairs)))
            _, leads_there[dataset] = mean_correlations(dataset, pairs)
    if len(findings_there) == len(datasets):
        findings_at[limit] = {
            **findings, **findings_there,
            "convolutional-gates": gate_finding(leads_there)}
chapter_claims = rules.judge("05", findings)
claims.show(chapter_claims, findings_at)

# %% tags=["remove-cell"]
SEPARATION_SENTENCES = {
    "holds": "In each kind of convolutional network wCKA separates untrained "
             "networks from one network at consecutive epochs.",
    "partly": "In some kinds of convolutional network wCKA separates untrained "
              "networks from one network at consecutive epochs, in others not.",
    "fails": "In no kind of convolutional network does wCKA separate untrained "
             "networks from one network at consecutive epochs.",
    "cannot be told": "Whether wCKA separates untrained networks from one "
                      "network at consecutive epochs is open.",
}
STRENGTH_CLAUSES = {
    "holds": "wCKA follows agreement better than every other measure",
    "partly": "wCKA follows agreement better than other measures in some "
              "comparisons, and in others not",
    "fails": "wCKA follows agreement better than no other measure",
    "cannot be told": "it is open whether wCKA follows agreement better than "
                      "the other measures",
}
GATE_SENTENCES = {
    "holds": "With its gates (E[J]) a convolutional network's chain follows "
             "agreement better on each data set.",
    "partly": "With its gates (E[J]) a convolutional network's chain follows "
              "agreement better on some data sets, and not on others.",
    "fails": "With its gates (E[J]) a convolutional network's chain follows "
             "agreement not noticeably better on any data set.",
    "cannot be told": "Whether a convolutional network's chain follows "
                      "agreement better with its gates (E[J]) is open.",
}
claims.say_verdicts(chapter_claims, {
    "convolutional-gates": GATE_SENTENCES,
    "convolutional-separation": SEPARATION_SENTENCES,
})
claim_of = {claim.key: claim for claim in chapter_claims}
places_by_clause = {}  # data sets with one outcome share a sentence
for dataset in datasets:
    claim = claim_of[f"convolutional-{dataset}"]
    clause = STRENGTH_CLAUSES[claim.verdict]
    if claim.known:
        clause += f"; {claims.told_clause(claim.known)}"
    places = places_by_clause.setdefault(clause, [])
    places.append(f"on {DATASET_NAMES[dataset]}")
strength_sentences = [
    sentences.capitalised(f"{listed(places)} {clause}.")
    for clause, places in places_by_clause.items()]
glue("take-strength", " ".join(strength_sentences), display=False)

# %% [markdown]
# ## Exercises
#
# **1.** Shift all images by one pixel, and the chain moves by one pixel, too. How similar is a trained network to
# itself behind the shift, for each kind? After a longer training:
# `python -m wcka run 05 -p epochs 10 -p checkpoints "[5, 10]"`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
shifted_similarities = {}
for kind in kinds:
    chain = wcka.chain(trained_seeds(datasets[0], kind).member(0), (28, 28))
    pictures = chain.reshape(28, 28, -1)  # (rows, columns, classes)
    shifted = pictures.roll(1, dims=1).reshape(chain.shape)
    shifted_similarities[kind] = wcka.wcka(chain, shifted)
pd.Series(shifted_similarities, name="wCKA with itself, shifted").to_frame(
    ).style.format("{:.3f}")

# %% [markdown]
# **2.** Does training under attack make the chains of two seeds more similar? With more seeds:
# `python -m wcka run 05 -p seeds 6`

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
between_seeds = {}
for strategy in strategies:
    for kind in kinds:
        population = trained(**training_settings(datasets[0], kind, strategy))
        is_last = (population.members.epoch == epochs).to_numpy()
        similarities = compare("wcka", chains(population[is_last]))
        upper = np.triu_indices(len(similarities), 1)
        between_seeds[kind, strategy] = similarities[upper].mean()
pd.Series(between_seeds).unstack().style.format("{:.3f}")

# %% [markdown]
# ## To take away
#
# - Every network that is linear except for its activation functions and poolings has a chain: `wcka.chain(network, input_shape)`.
#   It is verified each time. Gates, layer normalisation and attention are refused, or frozen at a reference input if you ask.
# - Permuting and rescaling channels does not change it, through batch normalisation and residual connections.
# - Compare with untrained networks of the same shape: they show where zero is.
# - {glue:text}`take-convolutional-gates`
# - A network that ends in a mean over places has lost the places in its chain, so a low wCKA between two of them
#   does not show a difference.
# - The skeleton does not see which activation functions, pooling and biases a network has.
