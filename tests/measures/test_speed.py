"""Ratios of speed that the project aims at; `make benchmark` prints them.

None of them fails a test run: a time decides nothing. Ratios are those of the shortest
times of interleaved rounds; where the rounds spread too much, no ratio is printed.
"""

import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from memory_of_calls import peak_memory
from small_networks import ARCHITECTURE
from torch import nn

import wcka
from wcka.experiments import other_libraries, timing
from wcka.measures import INVARIANCES, Confounder, definitions, inner_products
from wcka.networks import architectures, attacks, image_sets
from wcka.networks.populations import build, chains, initialise
from wcka.networks.training import train

pytestmark = pytest.mark.benchmark


def report(name, slower, faster, goal, share=1.0, repeats=3):
    """Print how many times as long one function takes as another one.

    The ratio is multiplied by `share`, where the functions do different amounts of the
    same work.
    """
    functions = {"slower": slower, "faster": faster}
    times = timing.interleaved(functions, repeats)
    ratio = share * times.seconds["slower"] / times.seconds["faster"]
    print(f"\n{name}: {ratio_text(ratio, goal, times.spread.max())}")


def ratio_text(ratio, goal, spread=0.0):
    """Return a ratio and whether it meets its goal, as far as it can be measured."""
    if spread > timing.MOST_SPREAD:
        return f"{timing.NOT_MEASURABLE} (spread of {100 * spread:.0f} %; goal {goal})"
    verdict = "met" if ratio >= goal else "not met"
    return f"{ratio:.1f} times (goal {goal}: {verdict})"


@pytest.fixture(scope="module")
def images():
    return image_sets.as_inputs(image_sets.load()[0])


def training_set(count=None):
    """Inputs and labels of the first training images, by default of all."""
    images, labels = image_sets.load(split="train")
    return image_sets.as_inputs(images[:count]), torch.from_numpy(labels[:count])


def test_pgd_training_of_a_population_against_a_loop_over_networks():
    x, y = training_set(4000)
    population = initialise(ARCHITECTURE, range(25))

    def learn(models):
        return train(models, x, y, 1, batch_size=64, strategy="pgd", attack_steps=10)

    report("PGD training, each network of 25", lambda: learn(population[[0]]),
           lambda: learn(population), 3, share=25)


@pytest.fixture(scope="module")
def trunk():
    trunk = architectures.convnet()[:9].requires_grad_(False)
    return trunk.to(memory_format=torch.channels_last)


@pytest.fixture
def one_thread():
    """A job runs on one thread: the other cores have jobs of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_attack_through_the_trunk_against_the_usual_convolution(
        images, trunk, one_thread):
    usual = architectures.convnet()[:9].requires_grad_(False)
    usual[2] = nn.Conv2d(1, 64, 5).requires_grad_(False)
    usual.load_state_dict(trunk.state_dict())
    usual = usual.to(memory_format=torch.channels_last)
    x, y = images[:64], torch.zeros(64, dtype=torch.int64)

    def attack(model):
        return attacks.pgd(model, x, y, 0.1, 0.05, 5)

    report("PGD through the trunk", lambda: attack(usual), lambda: attack(trunk), 1.3,
           repeats=25)


def test_pgd_training_of_heads_by_one_attack_against_a_loop_over_heads(
        trunk, one_thread):
    x, y = training_set(512)
    heads = initialise({"factory": "mlp", "widths": [512, 32, 3]}, range(5))

    def learn(models):
        return train(models, x, y, 1, strategy="pgd", attack_steps=3, trunk=trunk,
                     shared_attack=True)

    report("PGD training, each head of 5", lambda: learn(heads[[0]]),
           lambda: learn(heads), 3, share=5)


def test_dcka_against_the_definition(images):
    """3,147 probes, 784 inputs, 32 units; the definition decomposes n x n matrices."""
    population = initialise(ARCHITECTURE, range(10))
    features = list(population.activations(images, 4))
    x, y = features[0].double().numpy(), features[1].double().numpy()
    start = time.perf_counter()
    value = definitions.dcka(x, y, images.double().numpy())
    definition = time.perf_counter() - start

    fast = wcka.dcka(features[0], features[1], images)
    print(f"\ndifference from the definition: {abs(value - fast):.1e}")
    assert value == pytest.approx(fast, abs=1e-8)
    # The definition takes long and is measured once.
    times = timing.interleaved({
        "one pair": partial(wcka.dcka, features[0], features[1], images),
        "all pairs": partial(wcka.pairwise, "dcka", features, inputs=images)})
    pair, all_pairs = times.seconds
    spread = times.spread.max()
    print("dCKA, one pair:", ratio_text(definition / pair, 20, spread))
    each = all_pairs / 45
    print("dCKA, each pair of 10:", ratio_text(definition / each, 100, spread))


def cka_of_pair(x, y):
    """CKA as a plain function of two feature matrices."""
    x, y = definitions.centre(x), definitions.centre(y)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(y.T @ x) ** 2 / norms


@pytest.mark.parametrize("measure, goal", [("wcka", 30), ("cka", 6)])
def test_all_pairs_of_300_against_a_loop(measure, goal, images):
    population = initialise(ARCHITECTURE, range(300))
    if measure == "wcka":
        features = chains(population)
    else:
        features = population.activations(images, 4)
    arrays = [feature.double().numpy() for feature in features]
    a, b = np.tril_indices(300, -1)
    sample = np.random.default_rng(0).choice(len(a), 2000, replace=False)

    def loop(positions):
        return [cka_of_pair(arrays[a[i]], arrays[b[i]]) for i in positions]

    table = wcka.pairwise(measure, features)
    first = sample[:50]
    np.testing.assert_allclose(
        table[a[first], b[first]], loop(first), rtol=0, atol=1e-9)
    report(f"{measure}, all pairs of 300", lambda: loop(sample),
           lambda: wcka.pairwise(measure, features), goal, share=len(a) / len(sample))


@pytest.mark.parametrize("measure, goal", [("cka", 3), ("dcka", 20)])
def test_listed_pairs_against_a_loop(measure, goal, images):
    """The pairs of a grid: 60 networks, each with 14 partners."""
    activations = initialise(ARCHITECTURE, range(60)).activations(images, 4)
    a = np.repeat(np.arange(60), 14)
    b = (np.arange(840) + a + 1) % 60
    options = {"inputs": images} if measure == "dcka" else {}
    function = getattr(wcka, measure)

    def loop():
        values = []
        for i, j in zip(a[:10], b[:10]):
            values.append(function(activations[i], activations[j], **options))
        return values

    def listed():
        return wcka.pairwise(measure, activations, (a, b), **options)

    np.testing.assert_allclose(listed()[:10], loop(), rtol=0, atol=1e-9)
    report(f"{measure}, 840 listed pairs of 60", loop, listed, goal, share=84)


def train_alone(x, y, batch_size):
    """One network, trained in a plain loop for one epoch."""
    torch.manual_seed(0)
    model = build(ARCHITECTURE)
    optimizer = torch.optim.Adam(model.parameters())
    for batch in torch.randperm(len(x)).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("size", [32, 64, 128])
def test_training_a_population_against_a_loop(size):
    x, y = training_set()
    test_images, test_labels = image_sets.load()
    test_inputs = image_sets.as_inputs(test_images)
    population = initialise(ARCHITECTURE, range(50))

    def train_together():
        return train(population, x, y, 1, batch_size=size)

    accuracy = train_together().accuracy(test_inputs, test_labels).mean()
    model = train_alone(x, y, size)
    with torch.no_grad():
        predictions = model(test_inputs).argmax(1).numpy()
    accuracy_alone = (predictions == test_labels).mean()
    print(f"\naccuracy: {accuracy:.4f} together, {accuracy_alone:.4f} alone")
    assert accuracy > accuracy_alone - 0.02
    report(f"training, each network of 50, batches of {size}",
           lambda: train_alone(x, y, size), train_together, 8, share=50)


# --------------------------------------------------------------- other libraries


PEERS = other_libraries.available()[0]
PATIENCE = 5.0  # seconds; what would take longer is left out
NO_PEER = "no installed library has it"


@pytest.fixture(scope="module")
def every_input():
    """All training images of MNIST: (60000, 784)."""
    return image_sets.as_inputs(image_sets.load(split="train", classes=None)[0])


def features_of(inputs, count, units):
    """Activations (n, units) of untrained networks with one hidden layer."""
    architecture = {
        "factory": "mlp", "widths": [784, units, 10], "activation": "relu"}
    networks = initialise(architecture, range(count))
    return list(networks.activations(inputs, 1).double())


def bare_products(features):
    """Compute nothing but the matrix products of linear CKA, in the cheaper way.

    These are the kernels and the products of kernels, or the products of all features.
    """
    n, d = features[0].shape
    columns = np.full(len(features), d, dtype=float)
    if inner_products.cheaper_by_kernels(columns, n, None):
        stack = torch.stack(features)  # (networks, n, d)
        strip_rows = -(-n // 8)  # an eighth, rounded up
        for start in range(0, n, strip_rows):
            rows = stack[:, start:start + strip_rows]
            kernels = torch.bmm(rows, stack[:, start:].mT)
            strip = kernels.flatten(1)  # (networks, numbers of the strip)
            strip @ strip.T
    else:
        side_by_side = torch.cat(features, 1)  # (n, networks * d)
        for start in range(0, side_by_side.shape[1], 128):
            block = side_by_side[:, start:start + 128]
            block.T @ side_by_side[:, start:]


def in_single(features):
    return [matrix.float() for matrix in features]


def linear_peers():
    """One function of linear CKA of each library, the first in its list.

    Which of the two estimators makes no difference to the time.
    """
    by_package = {}
    for peer in PEERS:
        if peer.measure in ("cka", "unbiased_cka"):
            by_package.setdefault(peer.package, peer)
    return by_package


def is_quick(peer, features, rows=1000):
    """Tell whether a peer's time, which grows with n^2, stays within patience."""
    peer.of_pair(*[matrix[:100] for matrix in features])  # warms up
    start = time.perf_counter()
    peer.of_pair(*[matrix[:rows] for matrix in features])
    growth = max(1, len(features[0]) / rows) ** 2
    return (time.perf_counter() - start) * growth < PATIENCE


def print_times(title, times, count=1):
    """Print times in milliseconds with their spread, and those beside wcka's."""
    table = pd.DataFrame({
        "ms": 1e3 * times.seconds / count, "spread, %": 100 * times.spread,
        "times wcka": times.seconds / times.seconds["wcka"]})
    print(f"\n{title}\n{table.to_string(float_format='{:.2f}'.format)}")


def print_goal(name, times, goal, peers, ours="wcka"):
    """Print the time of the fastest of some peers over ours."""
    fastest = times.loc[[name for name in peers if name in times.index]]
    if fastest.empty:
        print(f"{name}: {NO_PEER}")
        return
    peer = fastest.seconds.idxmin()
    ratio = fastest.seconds[peer] / times.seconds[ours]
    spread = max(times.spread[peer], times.spread[ours])
    print(f"{name}, than {peer}: {ratio_text(ratio, goal, spread)}")


@pytest.mark.parametrize("n, units", [
    (1000, 100), (3000, 100), (10000, 100), (1000, 32), (1000, 1000)])
def test_linear_cka_of_one_pair_beside_other_libraries(n, units, every_input):
    features = features_of(every_input[:n], 2, units)
    single = in_single(features)
    functions = {
        "wcka": partial(wcka.cka, *features),
        "wcka, single": partial(wcka.pairwise, "cka", single, dtype=torch.float32),
        "bare products": partial(bare_products, features),
        "bare products, single": partial(bare_products, single)}
    in_double, in_float32 = [], []
    for package, peer in linear_peers().items():
        if not is_quick(peer, peer.given(features)):
            print(f"\n{package} would take too long")
            continue
        functions[package] = partial(peer.of_pair, *peer.given(features))
        (in_float32 if peer.single else in_double).append(package)
        # These compute in the precision of their inputs.
        if package in ("ckatorch", "pytorch-cka"):
            functions[f"{package}, single"] = partial(peer.of_pair, *single)
            in_float32.append(f"{package}, single")
    times = timing.interleaved(functions)
    print_times(f"linear CKA, one pair, n = {n:,}, {units:,} units", times)
    print_goal("both in double precision", times, 1, in_double)
    print_goal("both in single", times, 1, in_float32, "wcka, single")
    print_goal("ours in double, the other in either", times, 1, in_double + in_float32)


def plain_cka(u, v):
    """Linear CKA by the formula in features, as one would write it."""
    u = u - u.mean(0)
    v = v - v.mean(0)
    numerator = np.linalg.norm(v.T @ u) ** 2
    return numerator / (np.linalg.norm(u.T @ u) * np.linalg.norm(v.T @ v))


def test_linear_cka_of_all_pairs_of_100_beside_other_libraries(every_input):
    """Libraries without a way for many take a pair's time for each pair."""
    features = features_of(every_input[:1000], 100, 100)
    single = in_single(features)
    arrays = [matrix.numpy() for matrix in features[:2]]
    functions = {
        "wcka": partial(wcka.pairwise, "cka", features),
        "wcka, single": partial(wcka.pairwise, "cka", single, dtype=torch.float32),
        "bare products": partial(bare_products, features),
        "bare products, single": partial(bare_products, single)}
    of_pair = {"plain loop": partial(plain_cka, *arrays)}
    for package, peer in linear_peers().items():
        if package == "pytorch-cka":
            functions[package] = partial(peer.of_all, features)
        else:
            of_pair[package] = partial(peer.of_pair, *peer.given(features[:2]))
    times = timing.interleaved(functions)
    pair_times = timing.interleaved(of_pair)
    pair_times["seconds"] *= 100 * 99 / 2
    if "repsim" in pair_times.index:
        # It keeps kernels, and needs five criteria for a pair alone.
        pair_times.loc["repsim", "seconds"] *= (4950 + 200) / 4950 / 5
    times = pd.concat([times, pair_times])
    print_times("linear CKA, all pairs of 100, n = 1,000, 100 units", times)
    print_goal("all pairs of 100", times, 30, list(linear_peers()))
    print_goal("than a loop over the formula", times, 4, ["plain loop"])


@pytest.mark.parametrize("n", [500, 1000])
@pytest.mark.parametrize("psd", [True, False], ids=["with PSD", "without PSD"])
def test_dcka_beside_simtorch(n, psd, every_input):
    peer = {(peer.package, peer.measure): peer for peer in PEERS}.get(
        ("simtorch", "dcka"))
    if peer is None:
        pytest.skip("simtorch is not installed")
    inputs = every_input[:n]
    features = features_of(inputs, 100, 100)
    pair = features[:2]
    confounder = Confounder(inputs)
    times = timing.interleaved({
        "wcka": partial(wcka.dcka, *pair, inputs, psd=psd),
        "wcka, probes kept": partial(wcka.dcka, *pair, confounder, psd=psd),
        "wcka, each of all pairs of 100": partial(
            wcka.pairwise, "dcka", features, inputs=inputs, psd=psd),
        "simtorch": partial(peer.of_pair, *peer.given(pair), inputs, psd=psd)},
        repeats=3)
    times.loc["wcka, each of all pairs of 100", "seconds"] /= 100 * 99 / 2
    print_times(f"dCKA, n = {n:,}, 100 units, PSD step: {psd}", times)
    for ours in times.index[:3]:
        print_goal(ours, times, 100, ["simtorch"], ours)


def test_dcka_of_60000_probes(every_input):
    start = time.perf_counter()
    confounder = Confounder(every_input)
    prepared = time.perf_counter()
    wcka.dcka(*features_of(every_input, 2, 100), confounder)
    print(f"\ndCKA, {len(every_input):,} probes: {prepared - start:.1f} s for the "
          f"inputs, once, and {time.perf_counter() - prepared:.1f} s for a pair")


def test_memory_beside_other_libraries():
    calls = [
        ("wcka", "cka", 2, 10000), ("wcka", "cka", 100, 1000),
        ("wcka", "cka", 2, 60000), ("wcka", "dcka", 2, 60000)]
    if "pytorch-cka" in linear_peers():
        calls += [("pytorch-cka", "unbiased_cka", 2, 10000),
                  ("pytorch-cka", "unbiased_cka", 100, 1000)]
    print("\nGB of one call beyond its features, 100 units")
    for package, measure, count, n in calls:
        memory = peak_memory(package, measure, count, n, 100)
        print(f"{package} {measure}, {count} networks, {n:,} probes: {memory:.2f}")


@pytest.mark.parametrize("measure", [name for name in INVARIANCES if name != "wcka"])
def test_each_measure_beside_the_fastest_library(measure, every_input):
    inputs = every_input[:1000]
    features = features_of(inputs, 2, 100)
    options = {}
    if measure == "dcka":
        options["inputs"] = inputs
    if measure == "minibatch_cka":
        options["batch_size"] = 250
    functions = {"wcka": partial(wcka.pairwise, measure, features, **options)}
    for peer in PEERS:
        if peer.measure == measure:
            functions[peer.package] = partial(
                peer.of_pair, *peer.given(features), **options)
    times = timing.interleaved(functions, repeats=3)
    print_times(f"{measure}, one pair, n = 1,000, 100 units", times)
    print_goal(measure, times, 1, [*functions][1:])


@pytest.mark.parametrize("models", [2, 15, 142])
def test_nulls_beside_calibrated_similarity(models, every_input):
    """1, 105 and 10,011 pairs; the other library draws 200 orders for each of them."""
    reference = pytest.importorskip("calibrated_similarity")
    features = features_of(every_input[:1000], models, 100)
    x, y = features[0], features[1][torch.randperm(1000)]  # a pair of unrelated rows

    def cka_of_tensors(u, v):
        u, v = u - u.mean(0), v - v.mean(0)
        norms = torch.linalg.norm(u.T @ u) * torch.linalg.norm(v.T @ v)
        return torch.linalg.norm(v.T @ u) ** 2 / norms

    def drawn():
        return reference.calibrate(x, y, cka_of_tensors, K=200)

    _, drawn_p, drawn_threshold = drawn()
    null = wcka.null(x, y)
    print(f"\np {null.p:.3f}, drawn {float(drawn_p):.3f}; threshold "
          f"{null.threshold():.4f}, drawn {float(drawn_threshold):.4f}")
    pairs = models * (models - 1) // 2
    report(f"nulls of {pairs:,} pairs, than calibrated-similarity", drawn,
           partial(wcka.pairwise_null, "cka", features), 100, share=pairs)


@pytest.mark.parametrize("shape, goal", [((300, 784, 3), 1.5), ((300, 3147, 32), 0.75)])
def test_all_pairs_beside_the_full_product(shape, goal):
    """The half of the product of all features is needed; the goal is a share of it."""
    features = torch.randn(shape, dtype=torch.float64)
    stacked = features.transpose(0, 1).flatten(1)  # (n, models x d)
    report(f"{shape}: the full product, than all values", lambda: stacked.T @ stacked,
           partial(wcka.pairwise, "cka", features), round(1 / goal, 2))


@pytest.mark.parametrize("n, d", [(784, 3), (1000, 100), (1000, 1000)])
def test_one_pair_beside_its_three_products(n, d):
    x, y = np.random.default_rng(0).standard_normal((2, n, d))

    def three_products():
        x.T @ y, x.T @ x, y.T @ y

    report(f"n = {n:,}, d = {d:,}: three products by NumPy, than one pair",
           three_products, partial(wcka.cka, x, y), round(1 / 1.2, 2), repeats=25)


@pytest.mark.parametrize("shape", [(300, 784, 3), (100, 3147, 32), (300, 3147, 32)])
def test_nulls_beside_the_values_alone(shape):
    features = torch.randn(shape, dtype=torch.float64)
    times = timing.interleaved({
        "values": partial(wcka.pairwise, "cka", features),
        "nulls": partial(wcka.pairwise_null, "cka", features)}, 3)
    values, nulls = times.seconds
    spread = times.spread.max()
    text = ratio_text(values / nulls, round(1 / 1.2, 2), spread)
    print(f"\n{shape}: values {1e3 * values:.0f} ms, with nulls {1e3 * nulls:.0f} ms; "
          f"values alone are {text}")


def test_nulls_of_a_million_pairs():
    """1,415 chains of the shape of the paper's: z and p of each pair, in 60 s."""
    features = torch.randn(1415, 784, 3, dtype=torch.float64)
    start = time.perf_counter()
    null = wcka.pairwise_null("wcka", features)
    seconds = time.perf_counter() - start
    assert np.isfinite(null.p).all()
    print(f"\na million pairs of chains in {seconds:.1f} s: a minute is "
          f"{ratio_text(60 / seconds, 1)}")
