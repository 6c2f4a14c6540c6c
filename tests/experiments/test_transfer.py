"""Heads behind a frozen trunk: the same numbers as single networks of trunk and head
together.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, max_pool2d

import wcka
from wcka.experiments import benchmark, summaries
from wcka.experiments.training_runs import features, frozen, pretrained, trained
from wcka.networks import architectures, attacks, image_sets
from wcka.networks.populations import Population, Transfer, chains, extract, initialise
from wcka.networks.training import train
from wcka.weights import layers
from wcka.weights.chains import chain

SMALL = {
    "factory": "convnet",
    "channels": [4, 3],
    "kernel": 5,
    "hidden": [12],
    "classes": 10,
}
TRUNK = {
    "architecture": SMALL,
    "seed": 1,
    "dataset": "mnist",
    "epochs": 1,
    "patience": 1,
    "validation": 57000,
    "batch_size": 256,
}
ABOUT = {"dataset": "mnist", "classes": [0, 1, 2]}
SETTINGS = {**ABOUT, "seeds": [0, 1], "epochs": 2, "checkpoints": [1, 2], "images": 400,
            "batch_size": 50, "eps": 0.1, "attack_steps": 2, "trunk": TRUNK}
PROBING = {**ABOUT, "seed": 3, "eps": 0.1, "steps": 2, "noise": 0.2, "images": 300,
           "attacked": 40}


def head(hidden, strategy, **changes):
    return {
        "architecture": {
            "factory": "mlp",
            "widths": [48, *hidden, 3],
            "activation": "relu",
        },
        "strategy": strategy,
        **SETTINGS,
        **changes,
    }


def test_the_chain_through_the_trunk():
    models = [head(hidden, "standard") for hidden in ([8], [5, 5])]
    table = benchmark.chain_similarities(models)
    populations, members = benchmark.grid_networks(models)
    row = table[table.differs == "architecture"].iloc[0]
    whole = [nn.Sequential(frozen(TRUNK), populations[members.group[i]].member(
        i - members.group.searchsorted(members.group[i]))) for i in (row.a, row.b)]
    found = wcka.wcka(*whole, input_shape=(784,))
    assert row["wcka, through the trunk"] == pytest.approx(found, abs=1e-9)
    assert abs(row.wcka - found) > 1e-3


@pytest.fixture(scope="module")
def trunk():
    return frozen(TRUNK)


# ------------------------------------------------------------------------- the network


def test_the_networks_layers_are_those_of_the_paper(digits):
    network, x = architectures.convnet(), digits[0][:5]
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(64, 1, 5, 5), (32, 64, 5, 5), (1024, 512), (10, 1024)]
    weights = list(network.parameters())
    y = x.reshape(5, 1, 28, 28)
    for w, b in (weights[:2], weights[2:4]):
        y = max_pool2d(conv2d(y, w, b).relu(), 2)
    expected = (y.flatten(1) @ weights[4].T + weights[5]).relu() @ weights[
        6
    ].T + weights[7]
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        network(x.reshape(5, 28, 28)), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("of_images", [True, False])
def test_patch_convolution_is_the_convolution(of_images):
    torch.manual_seed(0)
    usual = nn.Conv2d(2, 5, (3, 4))
    ours = layers.PatchConv2d(2, 5, (3, 4))
    ours.load_state_dict(usual.state_dict())
    x = torch.rand(3, 2, 9, 8, requires_grad=of_images)
    pull = torch.rand(3, 5, 7, 5)
    found, expected = (
        [y, *torch.autograd.grad((y * pull).sum(), [*m.parameters(), *[x] * of_images])]
        for m in (ours, usual) for y in [m(x)])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [
    {"channels": ()}, {"channels": (4, 0)}, {"kernel": 2.5}, {"side": 12},
    {"hidden": (0,)}, {"classes": True}])
def test_convnet_refuses(changes):
    with pytest.raises(ValueError, match=r"wanted|nothing is left"):
        architectures.convnet(**changes)


NORMED = {**SMALL, "batch_norm": True}
RESIDUAL = {"factory": "resnet", "channels": [4, 3], "hidden": [12], "classes": 10}
CONVOLUTIONAL = pytest.mark.parametrize("architecture", [SMALL, NORMED, RESIDUAL],
                                        ids=["plain", "batch norm", "residual"])


@CONVOLUTIONAL
def test_a_population_of_convnets_is_its_members(digits, architecture):
    population, x = initialise(architecture, [3, 4]), digits[0][:6]
    with torch.no_grad():
        for i in range(2):
            alone = population.member(i)
            torch.testing.assert_close(population.forward(x)[i], alone(x))
            torch.testing.assert_close(population.forward(x, 1)[i], alone[:-1](x))
            own = population.forward(x.reshape(2, 3, 784), per_model=True)[i]
            torch.testing.assert_close(own, alone(x[3 * i:3 * i + 3]))


@CONVOLUTIONAL
def test_chains_of_a_population_of_convnets_are_its_members(architecture):
    population = initialise(architecture, [3, 4])
    for layer, stop in ((None, None), (1, -1)):
        for bias in (False, True):
            ours = chains(population, bias, layer)
            for i in range(2):
                alone = chain(population.member(i)[:stop], (28, 28), bias)
                torch.testing.assert_close(ours[i], alone)


@CONVOLUTIONAL
def test_a_convnet_learns_as_it_would_alone(architecture, tmp_path):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:96]), torch.from_numpy(labels[:96])
    start = initialise(architecture, [2])
    population, alone = train(start, x, y, 2, seed=5), start.member(0).train()
    optimizer, rng = (
        torch.optim.Adam(alone.parameters(), lr=1e-3),
        np.random.default_rng([5, 0]),
    )
    for _ in range(2):
        for batch in torch.from_numpy(rng.permutation(96)).split(32):
            optimizer.zero_grad()
            cross_entropy(alone(x[batch]), y[batch]).backward()
            optimizer.step()
    population.save(tmp_path / "trained.safetensors")
    population = Population.load(tmp_path / "trained.safetensors")
    # Adam's steps have the size of the learning rate whatever the gradient's, so that
    # rounding decides the sign of those that are next to nothing.
    for name, values in alone.state_dict().items():
        change = (population.state[name][0] - values).abs().double()
        assert change.max() <= 6e-3 and (change > 1e-3).double().mean() < 0.05, name
    with torch.no_grad():  # with the running statistics that it has learned
        torch.testing.assert_close(
            population.forward(x)[0], alone.eval()(x), atol=1e-4, rtol=1e-3
        )


# ------------------------------------------------------------------------- pretraining


@pytest.mark.parametrize("patience", [1, 30])
@pytest.mark.slow
def test_pretraining_keeps_the_best_epoch_and_stops_when_patience_ends(patience):
    quick = {
        "architecture": {"factory": "mlp", "widths": [784, 10]},
        "seed": 2,
        "dataset": "mnist",
        "epochs": 30,
        "patience": patience,
        "validation": 59000,
        "learning_rate": 0.02,
    }
    best = pretrained(**quick)
    course, epoch = best.members.attrs["validation"], int(best.members.epoch[0])
    assert epoch == np.argmax(course) + 1
    assert len(course) == min(30, epoch + patience) and (
        patience == 30 or len(course) < 30
    )
    order = np.random.default_rng([2, *b"validation"]).permutation(60000)
    held = torch.from_numpy(order[:59000])
    images, labels = image_sets.load("mnist", "train", None)
    found = best.accuracy(
        image_sets.as_inputs(images)[held], torch.from_numpy(labels)[held]
    )
    assert found == course[epoch - 1]
    # Stopped right there
    whole = pretrained(**{**quick, "epochs": epoch, "patience": 30})
    for name, values in whole.state.items():
        torch.testing.assert_close(values, best.state[name])
    with pytest.raises(ValueError, match="epochs: wanted at least 1"):
        pretrained(**{**quick, "epochs": 0})


# ------------------------------------------------------------------------- heads


def test_features_are_the_trunks(trunk):
    images, _ = image_sets.load()
    network = pretrained(**TRUNK).member(0)
    x = image_sets.as_inputs(wcka.corrupt(images, "stripe", seed=3))[:70]
    with torch.no_grad():
        hidden = network[-3](network[:-3](x))  # by the network's own next layer
        seen = features(TRUNK, "stripe", seed=3, **ABOUT)[:70]
        torch.testing.assert_close(network[-3](seen), hidden)
    assert seen.shape == (70, 48) and not any(
        p.requires_grad for p in trunk.parameters()
    )
    assert len(features(TRUNK, "train", **ABOUT)) == 18623


def test_transfer_is_trunk_and_head_in_a_row(trunk, digits):
    heads, x = initialise(head([8], "standard")["architecture"], [0, 1]), digits[0][:6]
    both = Transfer(trunk, heads)
    for i in range(2):
        alone = nn.Sequential(trunk, heads.member(i))
        torch.testing.assert_close(both.forward(x)[i], alone(x))
        own = both.forward(x.reshape(2, 3, 784), per_model=True)[i]
        torch.testing.assert_close(own, alone(x[3 * i:3 * i + 3]))


def test_attacks_go_through_the_trunk(trunk, digits):
    heads = initialise(head([8], "standard")["architecture"], [0, 1])
    x, y = (part[:9] for part in digits)
    for i, moved in enumerate(attacks.fgsm(Transfer(trunk, heads), x, y, 0.1)):
        expected = attacks.fgsm(nn.Sequential(trunk, heads.member(i)), x, y, 0.1)
        torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_one_attack_for_all_climbs_the_sum_of_their_losses(trunk, digits):
    heads = trained(**head([8], "standard"))
    x, y = (part[:64] for part in digits)
    target = Transfer(trunk, heads)

    def losses(images, own):
        with torch.no_grad():
            logits = target.forward(images, per_model=own)
        return torch.stack([cross_entropy(each, y) for each in logits])

    own, shared = (losses(attacks.pgd(on, x, y, 0.2, 0.05, 10), on is target)
                   for on in (target, target.forward))
    assert (losses(x, False) < shared).all() and shared.sum() <= own.sum() + 1e-3


@pytest.mark.parametrize("shared", [True, False])
def test_heads_learn_from_attacked_images_as_a_whole_network_would(trunk, shared):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:64]), torch.from_numpy(labels[:64])
    # Of one, both attacks are one
    start = initialise(head([8], "standard")["architecture"], [7])
    heads = train(
        start, x, y, 1, seed=5, strategy="fgsm", trunk=trunk, shared_attack=shared
    )
    alone = start.member(0)
    optimizer, rng = (
        torch.optim.Adam(alone.parameters(), lr=1e-3),
        np.random.default_rng([5, 0]),
    )
    for batch in torch.from_numpy(rng.permutation(64)).split(32):
        moved = attacks.fgsm(nn.Sequential(trunk, alone), x[batch], y[batch], 0.1)
        optimizer.zero_grad()
        cross_entropy(alone(trunk(moved)), y[batch]).backward()
        optimizer.step()
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(heads.state[name][0], values, atol=1e-4, rtol=1e-3)


def test_standard_heads_learn_on_features_of_some_images(trunk):
    images, labels = image_sets.load(split="train")
    chosen = np.sort(np.random.default_rng([0, *b"images"]).permutation(18623)[:400])
    found = trained(**head([8], "standard"))
    seen = extract(trunk, image_sets.as_inputs(images[chosen]))
    start = initialise(head([8], "standard")["architecture"], [0, 1])
    expected = train(start, seen, labels[chosen], 2, [1, 2], batch_size=50)
    through = train(
        start,
        image_sets.as_inputs(images[chosen]),
        labels[chosen],
        2,
        [1, 2],
        batch_size=50,
        trunk=trunk,
    )
    for name, values in expected.state.items():
        torch.testing.assert_close(found.state[name], values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(through.state[name], values, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------- the grid

MODELS = [
    head(hidden, strategy)
    for hidden in ([8], [6, 6])
    for strategy in ("standard", "fgsm")
]
PROBES = ["clean", "stripe", "fgsm"]


@pytest.fixture(scope="module")
def grid():
    return benchmark.grid(MODELS, PROBES, "last hidden", 30, PROBING, jobs=1)


@pytest.mark.parametrize("factor", benchmark.FACTORS)
def test_the_table_is_that_of_whole_networks(grid, trunk, digits, factor):
    members, table = grid
    populations, _ = benchmark.grid_networks(MODELS)
    singles = [
        nn.Sequential(trunk, p.member(i)) for p in populations for i in range(len(p))
    ]
    networks = dict(zip(members.model, singles))
    rows = table[table.differs == factor].iloc[:3].set_index("probe")
    assert list(rows.index) == PROBES
    a, b = (networks[rows.iloc[0][side]] for side in ("a", "b"))
    images, labels = digits
    stripes = image_sets.as_inputs(wcka.corrupt(image_sets.load()[0], "stripe", seed=3))
    order = torch.from_numpy(np.random.default_rng(3).permutation(3147))
    x, some = images[order[:300]], images[order[:40]]
    with torch.no_grad():
        assert rows.agreement["stripe"] == pytest.approx(
            wcka.agreement(a(stripes), b(stripes))
        )
        u, v = (n[1][:-1](trunk(x)) for n in (a, b))
        assert rows.cka["clean"] == pytest.approx(wcka.cka(u, v), abs=1e-5)
        assert rows.dcka["clean"] == pytest.approx(wcka.dcka(u, v, x), abs=1e-5)
    assert rows.wcka["clean"] == pytest.approx(wcka.wcka(a[1], b[1]), abs=1e-9)
    moved = [attacks.fgsm(n, some, labels[order[:40]], 0.1) for n in (a, b)]
    halves = [wcka.agreement(a(m), b(m)) for m in moved]
    # A gradient within rounding of zero may have another sign in a batched product.
    assert rows.agreement["fgsm"] == pytest.approx(np.mean(halves), abs=0.026)
    own = wcka.agreement(a(moved[0]), b(moved[1]))
    assert rows["agreement, own attack"]["fgsm"] == pytest.approx(own, abs=0.026)


def test_dcka_can_take_the_features_influence_away(grid):
    table = benchmark.similarity_on(
        MODELS, "clean", "last hidden", 50, ["dcka"], PROBING, deconfounded="features"
    )
    seen = features(TRUNK, "clean", **ABOUT)
    x = seen[torch.from_numpy(np.random.default_rng(3).permutation(3147)[:50])]
    populations, members = benchmark.grid_networks(MODELS)
    found = table.iloc[5]
    u, v = (
        populations[members.group[i]].activations(
            x, populations[members.group[i]].depth - 1
        )[i - members.group.searchsorted(members.group[i])]
        for i in (int(found.a), int(found.b))
    )
    assert found.dcka == pytest.approx(wcka.dcka(u, v, x), abs=1e-5)


def test_similarities_of_layers_with_layers(grid):
    maps = summaries.by_layer(MODELS, [6, 6], ("standard", "fgsm"), 2, PROBING)
    populations, _ = benchmark.grid_networks(MODELS)
    first, second = (
        p[(p.members.epoch == 2).to_numpy()] for p in (populations[2], populations[3])
    )
    one, other = (chains(p, layer=k) for p, k in ((first, 1), (second, 3)))
    expected = [wcka.wcka(*pair) for pair in zip(one, other)]
    np.testing.assert_allclose(maps["wcka"]["between strategies"][:, 0, 2], expected)
    expected = wcka.wcka(chains(first, layer=2)[0], chains(first, layer=2)[1])
    np.testing.assert_allclose(maps["wcka"]["between seeds"][:, 1, 1], expected)
    np.testing.assert_allclose(
        maps["cka"]["within a network"].diagonal(axis1=1, axis2=2), 1
    )


def test_a_grid_has_one_trunk():
    with pytest.raises(ValueError, match="one trunk for all, or none"):
        benchmark.grid(
            [MODELS[0], {**MODELS[1], "trunk": None}], PROBES, "logits", 30, PROBING
        )


def test_what_heads_have_cost_and_how_they_did(grid):
    members, table = grid
    assert set(table.attrs["seconds"]) == {"training", "probes", "attacks"}
    shown = summaries.overview(members)
    last = members[members.epoch == 2]
    cell = last[(last.architecture == "2 × 6") & (last.strategy == "fgsm")]
    found = shown.loc[("2 × 6", "fgsm")]
    assert (
        found.accuracy == cell.accuracy.median() and found.lowest == cell.accuracy.min()
    )
    assert found["under fgsm"] == cell["under fgsm"].median()
    means = summaries.strategy_table(members, table)
    rows = table[(table.differs == "strategy") & (table.kind == "attacked")]
    assert list(means.index) == ["standard and fgsm"]
    assert means["agreement, attacked"].iloc[0] == pytest.approx(rows.agreement.mean())
