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
# Few networks are fully connected. The paper has no chain for convolutions, residual connections and
# batch normalisation, and leaves them to future work (section 4). This chapter gives them one. Then it asks of
# convolutional, batch-normalised and residual networks what chapters [2](02-calibration) and
# [3](03-functional) asked of fully connected ones: where zero and one lie, and whether the measure follows
# what networks do.
#
# After this chapter you can
#
# - say what the chain of any network is, and get it in one call;
# - say what is refused, and what it costs to have it all the same;
# - say how well wCKA does among convolutional networks, beside CKA, Procrustes and dCKA.

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from myst_nb import glue
from torch import nn

import wcka
from wcka.book import claims, distinct, figures, say, verdicts, within
from wcka.experiments import (
    benchmark,
    cached,
    ensemble_similarities,
    jobs,
    matching,
    statistics,
    summaries,
    trained,
)
from wcka.measures import MEASURE_LABELS, PAPER_MEASURES, compare, nearest
from wcka.networks import chains, expand_probes, image_sets, initialise, mlp, resolve_device
from wcka.weights import NotLinear, symmetry

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 05 -p seeds 3 -p datasets "['fashion']"`.

# %% tags=["parameters"]
families: list[str] = ["alexnet", "densenet121", "resnet18", "regnet_x_400mf", "mobilenet_v3_small", "efficientnet_b0", "swin_t"]  # networks of torchvision
side: int = 64  # pixels along a side of their images
datasets: list[str] = ["mnist", "fashion"]  # real images: "mnist", "fashion" or both
classes: list[int] = [0, 1, 2]  # the classes that the networks tell apart
kinds: list[str] = ["plain", "batch norm", "residual"]  # convolutional networks, at least two of these
channels: list[int] = [8, 16]  # of their convolutions (of a residual network: of its stages)
hidden: int = 32  # width of the linear layer behind them
strategies: list[str] = ["standard", "fgsm"]  # what is trained on: clean images, or those of an attack
seeds: int = 4  # initialisations of each kind and strategy
train_images: int = 3000  # training images of these classes (more than there are: all)
epochs: int = 4  # passes through them
checkpoints: list[int] = [2, 4]  # epochs at whose end the networks are compared
batch_size: int = 64  # images in one step of training
train_eps: float = 0.1  # largest change of a pixel by the attack that is trained on
untrained: int = 12  # networks of each kind with random weights, for the floor
long_run: list[int] = [8, 12]  # first and last epoch of a longer training, for the ceiling
probes: list[str] = ["clean", "fog", "glass_blur", "impulse_noise", "rotate", "stripe", "zigzag", "gaussian_noise", "fgsm", "pgd"]  # clean, names of corruptions or attacks, or "corruptions" and "attacks" for all
eps: float = 0.1  # largest change of a pixel by the attacks that agreement is counted under
attack_steps: int = 5  # steps of PGD there
noise: float = 0.1  # standard deviation of the Gaussian noise there
attacked_images: int = 128  # test images that are attacked
clean_images: int = 500  # clean test images that the activation measures see
layer: str = "last hidden"  # whose activations are compared: "last hidden" or "logits"
learned: float = 0.9  # clean accuracy from which a network counts as having learned
seed: int = 0  # of the first network, the draws of images, the corruptions and the attacks
scheduler: str = ""  # address of a Dask scheduler whose workers do the work, like "tcp://10.0.0.1:8786"; empty for this machine
device: str = "cpu"  # where networks are trained: "cpu", "cuda", or "auto" for CUDA where there is one

# %% tags=["hide-input", "checks"]
for name in datasets:
    image_sets.check_classes(name, classes)
resolve_device(device)
jobs.check_scheduler(scheduler)
probe_names = expand_probes(probes)
distinct(families=(families, 1), datasets=(datasets, 1), classes=(classes, 2), kinds=(kinds, 2),
         strategies=(strategies, 2), checkpoints=(checkpoints, 2), long_run=(long_run, 2))
benchmark.check_grid(strategies, layer, checkpoints, epochs)
sizes = {"channels": channels, "hidden": [hidden], "classes": len(classes)}
architectures = {"plain": {"factory": "convnet", "kernel": 5, **sizes},
                 "batch norm": {"factory": "convnet", "kernel": 5, "batch_norm": True, **sizes},
                 "residual": {"factory": "resnet", **sizes}}
for kind in kinds:
    nearest(kind, architectures, "kind of network")
for name in families:
    nearest(name, torchvision.models.list_models(torchvision.models), "network of torchvision")
within(side=(side, 32, 512), train_images=(train_images, 10, 60000), batch_size=(batch_size, 2, 60000),
       untrained=(untrained, 3, 1000), long_run=(long_run[0], 1, long_run[-1] - 1), eps=(eps, 0, 1),
       train_eps=(train_eps, 0, 1), noise=(noise, 0, 1), attack_steps=(attack_steps, 1, 1000),
       attacked_images=(attacked_images, 10, 10000), clean_images=(clean_images, attacked_images, 10000),
       learned=(learned, 0, 1), channels=(channels, 1, 10000), hidden=(hidden, 1, 10000), seeds=(seeds, 3, 1000),
       epochs=(epochs, 1, 10000), seed=(seed, 0, 2**31))

# %% [markdown]
# ## The linear skeleton
#
# The paper's chain $W_1 W_2 \cdots W_l$ has a second reading. Take the activations out of a fully connected
# network: what is left is an affine map, and the chain is its Jacobian. That reading needs no
# matrices. So take the nonlinearities out of *any* network, call what is left its **linear skeleton**, and let
# its chain be the Jacobian, inputs × outputs:
#
# - every elementwise activation becomes the identity;
# - max pooling becomes the mean over the same places;
# - dropout does nothing, and batch normalisation is the affine map that it is once training is over;
# - everything linear stays: convolutions of all kinds, sums of residual connections, concatenations, mean pooling.
#
# The network's own code runs with these replacements, so nothing need be known about how it is wired. One
# vector-Jacobian product an output gives the chain. For a fully connected network it is the product of the
# weights:

# %%
class Wrapped(nn.Module):
    """A network whose layers cannot be read off: only its code knows their order."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


torch.manual_seed(seed)
network = mlp((28 * 28, 32, 32, 32, 32, len(classes)))
product, jacobian = wcka.chain(network), wcka.chain(Wrapped(network), (28, 28))
float((product - jacobian).abs().max() / product.abs().max())

# %% [markdown]
# **Every chain is verified.** On every call the skeleton is run at random inputs, near and far, and
# compared with the affine map that the chain says it is. If it is not that map, no chain is returned: the first function that breaks it is named, with
# the module that called it. (What a network does only where its input is larger than any of these, a check at random inputs cannot see.)
# So it is with gates (a product of two things that both depend on the input), layer
# normalisation and attention:

# %%
try:
    wcka.chain(torchvision.models.mobilenet_v3_small(), (3, side, side))
except NotLinear as error:
    print(error)

# %% [markdown]
# These can be had on demand, by one rule for all: `freeze` a factor at the value that it has in the network
# itself, activations and all, for one reference input. A gate keeps its opening, a normalisation its
# scale (centring and gain stay), attention its pattern. Permuting and rescaling units still
# leave the chain alone. What is lost: the chain then depends on the biases and on the reference, by default one draw
# of Gaussian noise. So it is no longer a matter of the weights' products alone.

# %% tags=["hide-input", "timing"]
KINDS_TO_FREEZE = ("gate", "norm", "attention")


@cached
def of_families(families, side, seed):
    """For each network of torchvision, two of random weights: what must be frozen, and wCKA."""
    rows = []
    for name in families:
        pair = []
        for i in range(2):
            torch.manual_seed(seed + i)
            pair.append(torchvision.models.get_model(name, num_classes=10))
        refused, freeze = "", ()
        try:
            wcka.chain(pair[0], (3, side, side))
        except NotLinear as error:
            refused, freeze = str(error).split(":")[1].split(" is not")[0].strip(), KINDS_TO_FREEZE
        start = time.perf_counter()
        found = [wcka.chain(model, (3, side, side), freeze=freeze) for model in pair]
        seconds = (time.perf_counter() - start) / 2
        forwards = []
        for _ in range(3):
            start = time.perf_counter()
            with torch.no_grad():
                pair[0].eval()(torch.zeros(1, 3, side, side))
            forwards.append(time.perf_counter() - start)
        rows.append((name, sum(p.numel() for p in pair[0].parameters()) / 1e6, refused, seconds,
                     seconds / np.median(forwards), wcka.wcka(*found)))
    return pd.DataFrame(rows, columns=["network", "million weights", "refused unless frozen", "seconds",
                                       "forward passes", "wCKA, random weights"])


found = of_families(families, side, seed)
found.set_index("network").style.format({"million weights": "{:.1f}", "seconds": "{:.2f}", "forward passes": "{:.0f}",
                                         "wCKA, random weights": "{:.4f}"})

# %% tags=["remove-cell"]
say("n-families", len(found), "d")
say("n-plain", (found["refused unless frozen"] == "").sum(), "d")
say("highest-random", found["wCKA, random weights"].max(), ".3f")

# %% tags=["remove-cell", "timing"]
say("slowest", found.seconds.max(), ".1f")

# %% [markdown]
# {glue:text}`n-plain` of {glue:text}`n-families` networks have a chain as they are, the others once frozen. Each took
# {glue:text}`slowest` s at the most for a chain to ten outputs, verified, in double precision ("forward passes": how
# many passes of one image in single precision take as long). Two networks of random weights are at most
# {glue:text}`highest-random` alike. Before you compare trained ones: most of these networks end in a mean over places, and what
# that does to a chain is shown below.
#
# ## Channels are units
#
# What permuting and rescaling hidden units is to a fully connected network, permuting and rescaling *channels* is to a
# convolutional one. One table says which axes of which tensors run over the same channels; a residual
# connection ties its two ends together, and batch normalisation is scaled behind its own scale
# (`symmetry.hidden_units`). The function stays, and so does the chain:

# %%
torch.manual_seed(seed)
resnet = torchvision.models.resnet18(num_classes=10).eval()
x = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(seed))
moved = {"permuted": symmetry.permute(resnet, seed), "rescaled": symmetry.rescale(resnet, seed),
         "both": symmetry.rescale(symmetry.permute(resnet, seed), seed)}


with torch.no_grad():
    rows = {name: {
        "largest change of a logit": float((model(x) - resnet(x)).abs().max() / resnet(x).abs().max()),
        "cosine of weights": float(torch.cosine_similarity(matching.flat_weights(model), matching.flat_weights(resnet), 0)),
        "wCKA": wcka.wcka(model, resnet, input_shape=(3, side, side))} for name, model in moved.items()}
symmetries = pd.DataFrame(rows).T
symmetries.style.format({"largest change of a logit": "{:.0e}", "cosine of weights": "{:.3f}", "wCKA": "{:.6f}"})

# %% [markdown]
# ## Small networks, trained from scratch
#
# Now the measure's use. Three kinds of small network (`kinds`): **plain** (two convolutions with max pooling, one hidden
# linear layer), the same with **batch normalisation**, and **residual** (strided convolutions, each followed by
# a residual block, batch normalisation throughout, a mean over places at the end). Each is trained on
# some of the images of three classes (`train_images`), as it is and on images that FGSM makes.
#
# ### What the skeleton cannot see
#
# The skeleton of a network with max pooling is that of one with mean pooling, and a ReLU's that of no
# activation at all. So the networks in a row of this table have *equal* chains, and wCKA calls them the same. How often do
# they agree with the trained network they were made from, on clean test images?

# %%
def settings(dataset):
    return {"dataset": dataset, "classes": classes, "images": train_images, "batch_size": batch_size,
            "seeds": list(range(seed, seed + seeds)), "epochs": epochs, "checkpoints": sorted(checkpoints),
            "eps": train_eps, "attack_steps": 1, "seed": seed, "device": device}


def replaced(network, old, new):
    """A copy of a network with modules of one class replaced."""
    return nn.Sequential(*[new(module) if isinstance(module, old) else module for module in network])


def without_biases(network):
    copy = trained_network(network_settings)
    with torch.no_grad():
        for name, values in copy.named_parameters():
            values.mul_(not name.endswith("bias"))
    return copy


def trained_network(model):
    population = trained(**model)
    return population.member(int(np.flatnonzero(population.members.epoch == epochs)[0]))


network_settings = {"architecture": architectures["plain"], "strategy": "standard", **settings(datasets[0])}
network = trained_network(network_settings)
variants = {
    "mean pooling for max pooling": replaced(network, nn.MaxPool2d, lambda m: nn.AvgPool2d(m.kernel_size)),
    "leaky ReLU for ReLU": replaced(network, nn.ReLU, lambda m: nn.LeakyReLU(0.2)),
    "tanh for ReLU": replaced(network, nn.ReLU, lambda m: nn.Tanh()),
    "no activation": replaced(network, nn.ReLU, lambda m: nn.Identity()),
    "no biases": without_biases(network)}
images, labels = image_sets.load(datasets[0], "test", classes)
x = image_sets.as_inputs(images)
with torch.no_grad():
    blind = pd.DataFrame({name: {
        "wCKA": wcka.wcka(model, network, input_shape=(28, 28)),
        "agreement": wcka.agreement(model(x), network(x)),
        "accuracy": wcka.agreement(model(x).argmax(1), torch.from_numpy(labels))} for name, model in variants.items()}).T
blind.style.format({"wCKA": "{:.6f}", "agreement": "{:.3f}", "accuracy": "{:.3f}"})

# %% tags=["remove-cell"]
say("blind-low", blind.agreement.min(), ".3f")
say("blind-wcka", blind.wCKA.min(), ".6f")

# %% [markdown]
# wCKA is at least {glue:text}`blind-wcka` in every row, while agreement goes down to {glue:text}`blind-low`. Compare networks with
# the same nonlinearities in the same places, or know that you do not.
#
# ### The grid
#
# As in [chapter 3](03-functional): all networks of a data set are paired where they differ in epoch, seed,
# architecture (the three kinds) or strategy alone.

# %%
probing = {"classes": classes, "seed": seed, "eps": eps, "steps": attack_steps, "noise": noise,
           "images": clean_images, "attacked": attacked_images}
models = {d: [{"architecture": architectures[kind], "strategy": strategy, **settings(d)}
              for kind in kinds for strategy in strategies] for d in datasets}
grids = {d: benchmark.grid(models[d], probe_names, layer, attacked_images, {**probing, "dataset": d}, scheduler=scheduler)
         for d in datasets}
tables = {d: table[~table.collapsed] for d, (_, table) in grids.items()}
pd.concat({d: summaries.overview(members) for d, (members, _) in grids.items()}).rename_axis(
    [None] * 3).style.format(precision=3)

# %% tags=["remove-cell"]
every = pd.concat([members for members, _ in grids.values()])
for name, value in (("n-networks", len(every)), ("n-collapsed", every.collapsed.sum()),
                    ("n-weak", (every.accuracy < learned).sum())):
    say(name, value, ",")

# %% [markdown]
# {glue:text}`n-networks` networks, of which {glue:text}`n-collapsed` predict one class for nearly all images and are left out;
# {glue:text}`n-weak` have a clean accuracy below `learned`. Medians over seeds, at the last epoch.
#
# ### Calibration
#
# Three ensembles of each kind: networks with random weights (`untrained`), networks trained alike from different
# seeds, and one network at consecutive epochs of a longer training (`long_run`). Activation measures see clean test images.

# %%
def ensembles(dataset, kind):
    given = {"architecture": architectures[kind], "strategy": "standard", **settings(dataset)}
    longer = {**given, "seeds": [seed], "epochs": long_run[1],
              "checkpoints": list(range(long_run[0], long_run[1] + 1))}
    return {"untrained": {"architecture": architectures[kind], "seeds": list(range(seed, seed + untrained))},
            "seeds": {**given, "compared": [epochs]}, "consecutive epochs": {**longer, "compared": longer["checkpoints"]}}


cells = [(d, kind) for d in datasets for kind in kinds]
found = jobs.run_jobs(ensemble_similarities, [
    {"ensembles": ensembles(d, kind), "probe_name": "clean", "samples": clean_images, "draw": 0,
     "layer": {"last hidden": 1, "logits": 2}[layer], "measures": list(PAPER_MEASURES), "dataset": d,
     "classes": classes, "seed": seed} for d, kind in cells], description="ensembles", scheduler=scheduler)
rows = len(found) // len(cells)
calibrated = found.assign(dataset=np.repeat([d for d, _ in cells], rows),
                          kind=np.repeat([kind for _, kind in cells], rows)).dropna(subset="similarity")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-conv-calibration", "caption": "Similarity of untrained convolutional networks (green), of networks of different seed (grey) and of one network at consecutive epochs (purple), by four measures. A column a kind of network, a row a data set."}, "image": {"alt": "Panels of enhanced box plots, one for each kind of network and data set: four measures, and for each three boxes, for untrained networks, for different seeds and for consecutive epochs."}}
palette = {"untrained": figures.ENSEMBLE_COLORS["random"], "seeds": "#BBBBBB",
           "consecutive epochs": figures.ENSEMBLE_COLORS["adjacent"]}
fig, panels = plt.subplots(len(datasets), len(kinds), figsize=(figures.WIDTH, 0.9 + 2.1 * len(datasets)),
                           sharex=True, sharey=True, squeeze=False)
for d, line in zip(datasets, panels):
    for kind, axes in zip(kinds, line):
        part = calibrated[(calibrated.dataset == d) & (calibrated.kind == kind)]
        figures.boxen(axes, part, x="measure", y="similarity", hue="ensemble", order=PAPER_MEASURES,
                      hue_order=list(palette), palette=palette, legend=False)
        axes.set_xticks(range(4), [MEASURE_LABELS[m] for m in PAPER_MEASURES], rotation=45)
        axes.set(xlabel="", ylabel=f"similarity\n({d})", ylim=(-0.03, 1.05), title=kind if d == datasets[0] else "")
fig.legend([plt.Line2D([], [], marker="s", ls="", color=c) for c in palette.values()], palette,
           loc="outside upper center", ncols=3)
plt.show()

# %% tags=["hide-input"]
def apart(rows):
    """Floor, seeds and ceiling of a measure; chance that an untrained pair scores above an adjacent one."""
    of = {name: rows[rows.ensemble == name].similarity for name in palette}
    return pd.Series({"untrained": of["untrained"].mean(), "highest untrained": of["untrained"].max(),
                      "seeds": of["seeds"].mean(), "lowest consecutive": of["consecutive epochs"].min(),
                      "overlap": statistics.overlap(of["untrained"], of["consecutive epochs"])})


floors = calibrated.groupby(["dataset", "kind", "measure"], sort=False)[calibrated.columns].apply(apart)
floors.rename(MEASURE_LABELS, level="measure").unstack("measure")[["untrained", "seeds", "lowest consecutive"]].style.format(
    "{:.2f}")

# %% tags=["remove-cell"]
by_measure = floors.groupby("measure")
for measure in PAPER_MEASURES:
    say(f"conv-floor-{measure}", by_measure.untrained.max()[measure], ".2f")
say("conv-seeds-low", floors.xs("wcka", level="measure").seeds.min(), ".2f")
say("conv-seeds-high", floors.xs("wcka", level="measure").seeds.max(), ".2f")
say("conv-lowest", floors.xs("wcka", level="measure")["lowest consecutive"].min(), ".2f")

# %% [markdown]
# Mean wCKA of untrained networks is {glue:text}`conv-floor-wcka` at the most (Procrustes: {glue:text}`conv-floor-procrustes`,
# CKA {glue:text}`conv-floor-cka`, dCKA {glue:text}`conv-floor-dcka`). Between seeds it is {glue:text}`conv-seeds-low`
# to {glue:text}`conv-seeds-high`, and consecutive epochs never score below {glue:text}`conv-lowest`.
#
# ### What a chain looks like
#
# The low end of "between seeds" deserves a look. A chain is inputs × outputs, so each of its columns is an image. Here
# is the first column of some, centred as CKA centres it.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-chains", "caption": "First column of the chain of an untrained network, and of two networks trained from different seeds, for each kind of network on the first data set. Orange: a brighter pixel raises the first class; purple: it lowers it."}, "image": {"alt": "Small images in rows, one for each kind of network, and three columns. Untrained plain and normalised networks show noise, trained ones the shapes of classes. Residual networks show a regular grid."}}
fig, panels = plt.subplots(len(kinds), 3, figsize=(figures.WIDTH * 0.7, 2 * len(kinds)))
for kind, line in zip(kinds, panels):
    model = {"architecture": architectures[kind], "strategy": "standard", **settings(datasets[0])}
    population = trained(**model)
    population = population[(population.members.epoch == epochs).to_numpy()]
    some = {"untrained": initialise(architectures[kind], [seed]).member(0),
            "trained": population.member(0), "trained, other seed": population.member(1)}
    for (title, network), axes in zip(some.items(), line):
        image = wcka.chain(network, (28, 28))[:, 0].reshape(28, 28)
        image = image - image.mean()
        axes.imshow(-image, cmap="PuOr", vmin=-image.abs().max(), vmax=image.abs().max())
        axes.set(xticks=[], yticks=[], title=title if kind == kinds[0] else "")
    line[0].set_ylabel(kind)
plt.show()

# %% tags=["hide-input"]
def between_seeds(dataset):
    """Mean agreement on clean images between seeds, standard training, last epoch, by kind."""
    members, table = grids[dataset]
    names = members.set_index("model")
    rows = table[(table.differs == "seed") & (table["probe"] == "clean")]
    of = {key: rows.a.astype(str).map(names[key]) for key in ("architecture", "strategy", "epoch")}
    rows = rows[(of["strategy"] == "standard") & (of["epoch"] == epochs)]
    means = rows.groupby(of["architecture"]).agreement.mean()
    return [means[benchmark.architecture_name(architectures[kind])] for kind in kinds]


seen = floors.xs("wcka", level="measure")[["untrained", "seeds"]].add_prefix("wCKA, ")
seen["agreement, seeds"] = pd.Series(
    {(d, kind): value for d in datasets for kind, value in zip(kinds, between_seeds(d))})
seen.style.format("{:.3f}")

# %% [markdown]
# A network that ends in a mean over places, as residual networks do, is without its activations all but blind to place: wherever
# a shape stands, the mean of its linear response is the same. What remains in the chain are the steps of the strides,
# and the border. Nearly all that such a network knows about shapes went through its activations, and the
# skeleton has none. So wCKA of residual networks that agree on nearly every image can be nearly as low as that of untrained
# ones: see their rows in the table. (That they also differ in depth, strides and normalisation may add to it.) **Do not read a low wCKA between networks with global pooling as a
# difference.** A flattened map before the linear layers (plain, batch norm) keeps the places apart, and there the chains are
# shapes.
#
# ### Similarity against agreement

# %%
results = {d: {method: statistics.compare_by_factor(table, PAPER_MEASURES, method=method) for method in ("pearson", "spearman")}
           for d, table in tables.items()}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-conv-benchmark", "caption": "The functional benchmark of {numref}`fig-benchmark`, for convolutional networks on the first data set. Top: similarity by wCKA against agreement, a dot a pair and probe: clean (black), corrupted (orange), attacked (green). Middle and bottom: correlation of each measure with agreement (white dot), with the paper's interval (broad bar) and over starts (thin line). Marks compare with wCKA, by the paper's test (upper line) and over starts (lower line): + where wCKA is ahead, − where it is behind."}, "image": {"alt": "Three rows of four panels, one column each for epoch, seed, architecture and strategy. Top: scatter of agreement against wCKA. Middle: Pearson's r of four measures with intervals and marks of significance. Bottom: Spearman's rho."}}
figures.benchmark(tables[datasets[0]], results[datasets[0]], statistics.ceilings(tables[datasets[0]]))
with figures.many_marks():
    plt.show()

# %% [markdown]
# Each measure's r and ρ on all data sets, and wCKA's lead, with 95 % intervals over starts:

# %% tags=["hide-input"]
pd.concat({d: verdicts.leads(r) for d, r in results.items()}).style

# %% tags=["remove-cell"]
glue("conv-summary", "; ".join(
    f"on {d} r is surely higher for {verdicts.surely(results[d]['pearson'], 1)}, lower for "
    f"{verdicts.surely(results[d]['pearson'], -1)}" for d in datasets), display=False)

# %% [markdown]
# Against the other measures wCKA's {glue:text}`conv-summary`. (Sure: significant at the 5 % level over starts, of which
# there are few: a kind of network and a seed is one.)
#
# Where architecture differs, there is a catch. With a residual network in the pair, wCKA is near zero whatever the two do; so a
# correlation over all pairs may only say which pairs have one. Pearson's r for pairs of different architecture, with
# and without residual networks:

# %% tags=["hide-input"]
def by_pair(dataset):
    """Pearson's r of pairs of different architecture, by whether a residual network is among them."""
    part = tables[dataset][tables[dataset].differs == "architecture"]
    residual = part.a.astype(str).str.startswith("ResNet") | part.b.astype(str).str.startswith("ResNet")
    groups = {"all": part, "without residual": part[~residual], "with residual": part[residual]}
    return pd.DataFrame({name: {**{MEASURE_LABELS[m]: rows[m].corr(rows.agreement) for m in PAPER_MEASURES},
                                "mean agreement": rows.agreement.mean(), "mean wCKA": rows.wcka.mean(), "rows": len(rows)}
                         for name, rows in groups.items() if len(rows)}).T


pairs_of = pd.concat({d: by_pair(d) for d in datasets})
pairs_of.style.format("{:.2f}").format("{:.0f}", subset=["rows"])

# %% [markdown]
#
# ### Heads of different trunks
#
# [Chapter 4](04-transfer) compared heads alone, features × outputs, and could: all of them stood on one trunk. Here every
# network has convolutions of its own, and feature 7 of one is not feature 7 of the other. The chain
# *through* the convolutions does not mind. Networks that differ in the seed, trained alike:

# %%
def heads_and_wholes(model):
    """Mean wCKA over pairs of seeds at the last epoch: linear layers alone, and whole networks."""
    population = trained(**model)
    population = population[(population.members.epoch == epochs).to_numpy()]
    members = [population.member(i) for i in range(len(population))]
    # The linear layers begin with the last Flatten.
    start = max(i for i, module in enumerate(members[0]) if isinstance(module, nn.Flatten))
    pair = np.triu_indices(len(members), 1)
    return {"linear layers alone": compare("wcka", [wcka.chain(m[start:]) for m in members])[pair].mean(),
            "whole networks": compare("wcka", chains(population))[pair].mean()}


through = pd.DataFrame({(d, kind): heads_and_wholes(
    {"architecture": architectures[kind], "strategy": "standard", **settings(d)}) for d in datasets for kind in kinds}).T
through["whole networks, untrained"] = floors.xs("wcka", level="measure").untrained
through.style.format("{:.3f}")

# %% tags=["remove-cell"]
say("heads-highest", through["linear layers alone"].max(), ".2f")
gained = through["whole networks"] > 2 * through[["linear layers alone", "whole networks, untrained"]].max(axis=1)
say("n-gained", gained.sum(), "d")
say("n-rows-through", len(gained), "d")
say("wholes-lowest", through["whole networks"].min(), ".2f")
say("wholes-highest", through["whole networks"].max(), ".2f")

# %% [markdown]
# Alone, the linear layers of networks that do the same are {glue:text}`heads-highest` alike at the most; the whole
# networks {glue:text}`wholes-lowest` to {glue:text}`wholes-highest`. In {glue:text}`n-gained` of {glue:text}`n-rows-through` rows whole networks are
# more than twice as alike as either their linear layers or untrained networks; what global pooling takes away, this cannot give back. For
# heads on *one* trunk, chapter 4 has both.
#
# ## The paper's claims in this chapter
#
# The paper makes none about these networks, but that there will be a formulation, and that it will "bear significant
# fruit". We judge its claims about fully connected networks here again: good calibration holds for a kind of
# network and a data set if no untrained pair scores as high as any pair of consecutive epochs; "strongest" is
# judged as in [chapter 3](03-functional), over all pairs. For architecture, read it with the table of residual pairs above.

# %% tags=["hide-input"]
def among_learned(dataset):
    members, table = grids[dataset]
    weak = members.model[members.accuracy < learned]
    rows = table[~table.collapsed & ~table.a.isin(weak) & ~table.b.isin(weak)]
    return statistics.r_by_factor(rows, {m: m for m in PAPER_MEASURES}).reindex(columns=benchmark.FACTORS)


separated = floors.overlap.unstack("measure") == 0
lowest = floors.untrained.unstack("measure").idxmin(axis=1) == "wcka"


def readings(dataset):
    """Pearson's r with another choice: networks that have learned; without residual networks."""
    found = {"only networks that have learned": among_learned(dataset)}
    if (dataset, "without residual") in pairs_of.index:
        r = pairs_of.loc[(dataset, "without residual")]
        found["without residual networks"] = pd.DataFrame({"architecture": {m: r[MEASURE_LABELS[m]] for m in PAPER_MEASURES}})
    return found


strong = [verdicts.strongest_by_factor(f"beyond, as 3.2 on {d}", results[d], benchmark.FACTORS, readings(d)) for d in datasets]
claims.show([
    claims.Claim("beyond, as 3.1", "Untrained networks and consecutive epochs are told apart, here: convolutional networks",
                 "no overlap in " + ", ".join(f"{separated[m].sum()} of {len(separated)} ({MEASURE_LABELS[m]})"
                                             for m in PAPER_MEASURES), verdicts.verdict(*separated["wcka"])),
    claims.Claim("beyond, as 3.1", "wCKA has the lowest floor, here: convolutional networks",
                 f"in {lowest.sum()} of {len(lowest)} kinds and data sets; mean over untrained pairs " + ", ".join(
                     f"{MEASURE_LABELS[m]} {by_measure.untrained.mean()[m]:.2f}" for m in PAPER_MEASURES),
                 verdicts.verdict(*lowest)),
    *[claim for part in strong for claim in part],
    *[verdicts.significant(f"beyond, as 3.2 on {d}", results[d], benchmark.FACTORS) for d in datasets],
])

# %% [markdown]
# ## To take away
#
# - Every network that is linear but for its activations and poolings has a chain: `wcka.chain(network, input_shape)`. It is
#   verified each time. Gates, layer normalisation and attention are refused, or frozen at a reference input if you ask.
# - Permuting and rescaling channels leaves it alone, through batch normalisation and residual connections.
# - Between convolutional networks zero is not quite zero. Compare with untrained networks of the same shape.
# - Networks that end in a mean over places keep little in their chain. A low wCKA between two of them may
#   mean nothing.
# - The skeleton does not see which activation and which pooling a network has, nor its biases.
