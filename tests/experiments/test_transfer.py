"""Heads behind a frozen trunk: the numbers of single networks of trunk and head."""

import numpy as np
import pytest
import torch
from test_benchmark import single_networks
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, max_pool2d

import wcka
from wcka.experiments import benchmark, summaries
from wcka.experiments.training_runs import (
    features,
    frozen,
    pretrained,
    trained,
    training_rows,
)
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
    "validation": 300,
    "images": 3300,
    "batch_size": 256,
}
DIGITS = {"dataset": "mnist", "classes": [0, 1, 2]}
SETTINGS = {**DIGITS, "seeds": [0, 1], "epochs": 2, "checkpoints": [1, 2],
            "images": 400, "batch_size": 50, "eps": 0.1, "attack_steps": 2,
            "trunk": TRUNK}
PROBING = {**DIGITS, "seed": 3, "eps": 0.1, "steps": 2, "noise": 0.2, "images": 300,
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
    models = [head([8], "standard"), head([5, 5], "standard")]
    table = benchmark.chain_similarities(models)
    row = table[table.differs == "architecture"].iloc[0]
    heads = single_networks(models)
    network_a = nn.Sequential(frozen(TRUNK), heads[row.a])
    network_b = nn.Sequential(frozen(TRUNK), heads[row.b])
    expected = wcka.wcka(network_a, network_b, input_shape=(784,))
    assert row["wcka, through the trunk"] == pytest.approx(expected, abs=1e-9)
    assert abs(row.wcka - expected) > 1e-3


@pytest.fixture(scope="module")
def trunk():
    return frozen(TRUNK)


# ------------------------------------------------------------------------- the network


def test_the_networks_layers_are_those_of_the_paper(digits):
    network, x = architectures.convnet(), digits[0][:5]
    shapes = []
    for parameter in network.parameters():
        if parameter.ndim > 1:
            shapes.append(tuple(parameter.shape))
    assert shapes == [(64, 1, 5, 5), (32, 64, 5, 5), (1024, 512), (10, 1024)]
    kernel_1, bias_1, kernel_2, bias_2, w_3, b_3, w_4, b_4 = network.parameters()
    y = x.reshape(5, 1, 28, 28)
    y = max_pool2d(conv2d(y, kernel_1, bias_1).relu(), 2)  # (5, 64, 12, 12)
    y = max_pool2d(conv2d(y, kernel_2, bias_2).relu(), 2)  # (5, 32, 4, 4)
    expected = (y.flatten(1) @ w_3.T + b_3).relu() @ w_4.T + b_4  # (5, 10)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)
    images = x.reshape(5, 28, 28)
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-5)


def output_and_gradients(layer, x, pull):
    """Return a layer's output, and the gradients of output times `pull`, summed up."""
    output = layer(x)
    inputs = [*layer.parameters()]
    if x.requires_grad:
        inputs.append(x)
    return [output, *torch.autograd.grad((output * pull).sum(), inputs)]


@pytest.mark.parametrize("of_images", [True, False])
def test_patch_convolution_is_the_convolution(of_images):
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 5, (3, 4))
    patch_convolution = layers.PatchConv2d(2, 5, (3, 4))
    patch_convolution.load_state_dict(convolution.state_dict())
    x = torch.rand(3, 2, 9, 8, requires_grad=of_images)
    pull = torch.rand(3, 5, 7, 5)
    results = output_and_gradients(patch_convolution, x, pull)
    expected = output_and_gradients(convolution, x, pull)
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, atol=1e-4, rtol=1e-4)


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
            logits = population.forward(x.reshape(2, 3, 784), per_model=True)[i]
            torch.testing.assert_close(logits, alone(x[3 * i:3 * i + 3]))


@CONVOLUTIONAL
def test_chains_of_a_population_of_convnets_are_its_members(architecture):
    population = initialise(architecture, [3, 4])
    for layer, stop in ((None, None), (1, -1)):
        for bias in (False, True):
            all_chains = chains(population, bias, layer)
            for i in range(2):
                alone = chain(population.member(i)[:stop], (28, 28), bias)
                torch.testing.assert_close(all_chains[i], alone)


@CONVOLUTIONAL
def test_a_convnet_learns_as_it_would_alone(architecture, tmp_path):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:96]), torch.from_numpy(labels[:96])
    start = initialise(architecture, [2])
    population = train(start, x, y, 2, seed=5)
    alone = start.member(0).train()
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-3)
    rng = np.random.default_rng([5, 0])
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
        "validation": 1000,
        "images": 2000,
        "learning_rate": 0.02,
    }
    best = pretrained(**quick)
    accuracies = best.members.attrs["validation"]
    epoch = int(best.members.epoch[0])
    assert epoch == np.argmax(accuracies) + 1
    assert len(accuracies) == min(30, epoch + patience)
    assert patience == 30 or len(accuracies) < 30
    order = np.random.default_rng([2, *b"validation"]).permutation(60000)
    held_out = torch.from_numpy(order[:1000])
    images, labels = image_sets.load("mnist", "train", None)
    x, y = image_sets.as_inputs(images), torch.from_numpy(labels)
    assert best.accuracy(x[held_out], y[held_out]) == accuracies[epoch - 1]
    # Training that stops right there gives the same network.
    stopped = pretrained(**{**quick, "epochs": epoch, "patience": 30})
    for name, values in stopped.state.items():
        torch.testing.assert_close(values, best.state[name])
    with pytest.raises(ValueError, match="epochs: wanted at least 1"):
        pretrained(**{**quick, "epochs": 0})
    with pytest.raises(ValueError, match="more than the 1000 held out, got"):
        pretrained(**{**quick, "images": 1000})


def test_images_that_do_not_exist_do_not_count_for_pretraining():
    with pytest.raises(ValueError, match="more than the 60000 held out, got 60000"):
        pretrained({"factory": "mlp", "widths": [784, 2, 10]}, 0, "mnist", 1, 1,
                   validation=60000, images=70000)


# ------------------------------------------------------------------------- heads


def test_features_are_the_trunks(trunk):
    images, _ = image_sets.load()
    network = pretrained(**TRUNK).member(0)
    x = image_sets.as_inputs(wcka.corrupt(images, "stripe", seed=3))[:70]
    with torch.no_grad():
        hidden = network[-3](network[:-3](x))  # by the network's next layer
        stripe_features = features(TRUNK, "stripe", seed=3, **DIGITS)[:70]
        torch.testing.assert_close(network[-3](stripe_features), hidden)
    assert stripe_features.shape == (70, 48)
    for parameter in trunk.parameters():
        assert not parameter.requires_grad
    assert len(features(TRUNK, "train", **DIGITS)) == 18623


def test_transfer_is_trunk_and_head_in_a_row(trunk, digits):
    heads = initialise(head([8], "standard")["architecture"], [0, 1])
    x = digits[0][:6]
    transfer = Transfer(trunk, heads)
    for i in range(2):
        alone = nn.Sequential(trunk, heads.member(i))
        torch.testing.assert_close(transfer.forward(x)[i], alone(x))
        logits = transfer.forward(x.reshape(2, 3, 784), per_model=True)[i]
        torch.testing.assert_close(logits, alone(x[3 * i:3 * i + 3]))


def test_attacks_go_through_the_trunk(trunk, digits):
    heads = initialise(head([8], "standard")["architecture"], [0, 1])
    x, y = digits[0][:9], digits[1][:9]
    adversarial = attacks.fgsm(Transfer(trunk, heads), x, y, 0.1)
    for i in range(2):
        expected = attacks.fgsm(nn.Sequential(trunk, heads.member(i)), x, y, 0.1)
        torch.testing.assert_close(adversarial[i], expected, atol=1e-6, rtol=0)


def test_one_attack_for_all_climbs_the_sum_of_their_losses(trunk, digits):
    heads = trained(**head([8], "standard"))
    x, y = digits[0][:64], digits[1][:64]
    target = Transfer(trunk, heads)

    def losses(images, per_model):
        with torch.no_grad():
            logits = target.forward(images, per_model=per_model)
        return torch.stack([cross_entropy(of_head, y) for of_head in logits])

    clean_losses = losses(x, per_model=False)
    separate = attacks.pgd(target, x, y, 0.2, 0.05, 10)
    separate_losses = losses(separate, per_model=True)
    shared = attacks.pgd(target.forward, x, y, 0.2, 0.05, 10)
    shared_losses = losses(shared, per_model=False)
    assert (clean_losses < shared_losses).all()
    assert shared_losses.sum() <= separate_losses.sum() + 1e-3


@pytest.mark.parametrize("shared", [True, False])
def test_heads_learn_from_attacked_images_as_a_whole_network_would(trunk, shared):
    images, labels = image_sets.load(split="train")
    x, y = image_sets.as_inputs(images[:64]), torch.from_numpy(labels[:64])
    # For one head alone, shared and separate attacks are the same.
    start = initialise(head([8], "standard")["architecture"], [7])
    heads = train(
        start, x, y, 1, seed=5, strategy="fgsm", trunk=trunk, shared_attack=shared
    )
    alone = start.member(0)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-3)
    rng = np.random.default_rng([5, 0])
    for batch in torch.from_numpy(rng.permutation(64)).split(32):
        network = nn.Sequential(trunk, alone)
        adversarial = attacks.fgsm(network, x[batch], y[batch], 0.1)
        optimizer.zero_grad()
        cross_entropy(alone(trunk(adversarial)), y[batch]).backward()
        optimizer.step()
    for name, values in alone.state_dict().items():
        torch.testing.assert_close(heads.state[name][0], values, atol=1e-4, rtol=1e-3)


def test_standard_heads_learn_on_features_of_a_draw_of_images(trunk):
    images, labels = image_sets.load(split="train")
    chosen = np.sort(np.random.default_rng([0, *b"images"]).permutation(18623)[:400])
    taken, others = training_rows(18623, 400)
    assert taken.tolist() == chosen.tolist()
    assert len(np.intersect1d(taken, others)) == 0 and len(others) == 18623 - 400
    population = trained(**head([8], "standard"))
    x, y = image_sets.as_inputs(images[chosen]), labels[chosen]
    start = initialise(head([8], "standard")["architecture"], [0, 1])
    expected = train(start, extract(trunk, x), y, 2, [1, 2], batch_size=50)
    through_trunk = train(start, x, y, 2, [1, 2], batch_size=50, trunk=trunk)
    for name, values in expected.state.items():
        for trained_state in (population.state, through_trunk.state):
            torch.testing.assert_close(
                trained_state[name], values, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------- the grid

MODELS = [head([8], "standard"), head([8], "fgsm"), head([6, 6], "standard"),
          head([6, 6], "fgsm")]
PROBES = ["clean", "stripe", "fgsm"]


@pytest.fixture(scope="module")
def grid():
    return benchmark.grid(MODELS, PROBES, "last hidden", 30, PROBING, jobs=1)


@pytest.mark.parametrize("factor", benchmark.FACTORS)
def test_the_table_is_that_of_whole_networks(grid, trunk, digits, factor):
    members, table = grid
    rows = table[table.differs == factor].iloc[:3].set_index("probe")
    assert list(rows.index) == PROBES
    heads = dict(zip(members.model, single_networks(MODELS)))
    head_a, head_b = heads[rows.a.iloc[0]], heads[rows.b.iloc[0]]
    a, b = nn.Sequential(trunk, head_a), nn.Sequential(trunk, head_b)
    images, labels = digits
    stripes = image_sets.as_inputs(wcka.corrupt(image_sets.load()[0], "stripe", seed=3))
    order = torch.from_numpy(np.random.default_rng(3).permutation(3147))
    x = images[order[:300]]
    with torch.no_grad():
        expected = wcka.agreement(a(stripes), b(stripes))
        assert rows.agreement["stripe"] == pytest.approx(expected)
        u, v = head_a[:-1](trunk(x)), head_b[:-1](trunk(x))
        assert rows.cka["clean"] == pytest.approx(wcka.cka(u, v), abs=1e-5)
        assert rows.dcka["clean"] == pytest.approx(wcka.dcka(u, v, x), abs=1e-5)
    assert rows.wcka["clean"] == pytest.approx(wcka.wcka(head_a, head_b), abs=1e-9)
    clean, targets = images[order[:40]], labels[order[:40]]
    against_a = attacks.fgsm(a, clean, targets, 0.1)
    against_b = attacks.fgsm(b, clean, targets, 0.1)
    agreement_a = wcka.agreement(a(against_a), b(against_a))
    agreement_b = wcka.agreement(a(against_b), b(against_b))
    # A gradient within rounding of zero may have another sign in a batched product.
    expected = (agreement_a + agreement_b) / 2
    assert rows.agreement["fgsm"] == pytest.approx(expected, abs=0.026)
    expected = wcka.agreement(a(against_a), b(against_b))
    assert rows["agreement, own attack"]["fgsm"] == pytest.approx(expected, abs=0.026)


def test_dcka_can_take_the_features_influence_away(grid):
    table = benchmark.similarity_on(
        MODELS, "clean", "last hidden", 50, ["dcka"], PROBING, deconfounded="features"
    )
    order = torch.from_numpy(np.random.default_rng(3).permutation(3147))
    x = features(TRUNK, "clean", **DIGITS)[order[:50]]
    heads = single_networks(MODELS)
    row = table.iloc[5]
    with torch.no_grad():
        u, v = heads[int(row.a)][:-1](x), heads[int(row.b)][:-1](x)
    assert row.dcka == pytest.approx(wcka.dcka(u, v, x), abs=1e-5)


def test_similarities_of_layers_with_layers(grid):
    maps = summaries.by_layer(MODELS, [6, 6], ("standard", "fgsm"), 2, PROBING)
    populations, _ = benchmark.grid_networks(MODELS)
    standard = populations[2][(populations[2].members.epoch == 2).to_numpy()]
    fgsm = populations[3][(populations[3].members.epoch == 2).to_numpy()]
    expected = []
    for pair in zip(chains(standard, layer=1), chains(fgsm, layer=3)):
        expected.append(wcka.wcka(*pair))
    np.testing.assert_allclose(maps["wcka"]["between strategies"][:, 0, 2], expected)
    expected = wcka.wcka(*chains(standard, layer=2))
    np.testing.assert_allclose(maps["wcka"]["between seeds"][:, 1, 1], expected)
    within = maps["cka"]["within a network"]
    np.testing.assert_allclose(within.diagonal(axis1=1, axis2=2), 1)


def test_a_grid_has_one_trunk():
    models = [MODELS[0], {**MODELS[1], "trunk": None}]
    with pytest.raises(ValueError, match="one trunk for all, or none"):
        benchmark.grid(models, PROBES, "logits", 30, PROBING)


def test_what_heads_have_cost_and_how_they_did(grid):
    members, table = grid
    assert set(table.attrs["seconds"]) == {"training", "probes", "attacks"}
    overview = summaries.overview(members)
    last = members[members.epoch == 2]
    cell = last[(last.architecture == "2 × 6") & (last.strategy == "fgsm")]
    row = overview.loc[("2 × 6", "fgsm")]
    assert row.accuracy == cell.accuracy.median()
    assert row.lowest == cell.accuracy.min()
    assert row["under fgsm"] == cell["under fgsm"].median()
    means = summaries.strategy_table(members, table)
    rows = table[(table.differs == "strategy") & (table.kind == "attacked")]
    assert list(means.index) == ["standard and fgsm"]
    assert means["agreement, attacked"].iloc[0] == pytest.approx(rows.agreement.mean())
