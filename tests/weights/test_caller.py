"""The caller's network, and torch's global state, are as they were before."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils import checkpoint

import wcka
from wcka import attacks
from wcka.weights import caller, symmetry

STORE = {}  # a hook's memory, as a script or notebook has it
LAST = None


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(12, 3))


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(50, 20, generator=generator), torch.arange(50) % 3


USES = {
    "chain": lambda model: wcka.chain(model, (20,)),
    "fgsm": lambda model: attacks.fgsm(model, *images(), 0.1),
    "ffgsm": lambda model: attacks.ffgsm(model, *images(), 0.1, 0.125),
    "pgd": lambda model: attacks.pgd(model, *images(), 0.1, 0.02, 3),
    "trades": lambda model: attacks.trades(model, images()[0], 0.1, 0.02, 3),
}


@pytest.mark.parametrize("use", USES)
def test_mode_buffers_gradients_and_random_state_stay(use):
    model = network()
    model[1].eval()  # modes may differ from module to module
    before = deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    model(images()[0]).sum().backward()
    gradients = [values.grad.clone() for values in model.parameters()]
    state = torch.get_rng_state()
    outcome = USES[use](model)
    assert torch.equal(USES[use](model), outcome)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name]), name
    for values, gradient in zip(model.parameters(), gradients):
        assert torch.equal(values.grad, gradient)
    in_eval_mode = deepcopy(model).eval()
    assert torch.equal(USES[use](in_eval_mode), outcome)


class Recorder:
    """Hooks of the kinds that people write, and what they have stored."""

    def __init__(self):
        self.outputs = {"old": torch.ones(2)}
        self.shapes = [(2, 12)]
        self.total = torch.zeros(12)
        self.names = set()
        self.count = 0
        self.nested = {"a": []}

    def store(self, module, inputs, output):
        self.outputs["last"] = output
        self.shapes.append(tuple(output.shape))
        self.total += output.detach().float().sum(0)
        self.names.add(type(module).__name__)
        self.count += 1
        self.nested["a"].append(output)

    def contents(self):
        return (list(self.outputs), list(map(id, self.outputs.values())),
                list(self.shapes), self.total.tolist(), set(self.names), self.count,
                list(self.nested["a"]))


def store_globally(module, inputs, output):
    global LAST
    LAST = output
    STORE["last"] = output


@pytest.mark.parametrize("use", USES)
def test_what_hooks_have_stored_stays(use):
    recorder = Recorder()
    model = network()
    closure = []
    STORE.clear()
    model[0].register_forward_hook(recorder.store)
    model[0].register_forward_hook(store_globally)
    model[0].register_forward_hook(
        lambda module, inputs, output: closure.append(output))
    model[4].register_forward_hook(
        partial(lambda memory, module, inputs, output: memory.append(1), closure))
    model[2].register_forward_pre_hook(
        lambda module, inputs: STORE.setdefault("inputs", []).append(inputs))
    model(images()[0])
    before = recorder.contents()
    last, stored, kept = LAST, dict(STORE), list(closure)
    USES[use](model)
    assert recorder.contents() == before
    assert LAST is last
    assert STORE.keys() == stored.keys() and STORE["last"] is stored["last"]
    assert len(STORE["inputs"]) == 1
    assert len(closure) == len(kept) == 2
    model(images()[0])  # they still work
    assert recorder.count == 2 and len(closure) == 4


def test_hooks_that_change_an_output_take_part():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    expected = 2 * model[0].weight.detach().T.double()
    torch.testing.assert_close(wcka.chain(model), expected)
    model[0].register_full_backward_hook(
        lambda module, given, gradient: (given[0] * 0,))
    torch.testing.assert_close(wcka.chain(model), expected)


def test_threads_leave_the_random_state_and_checkpoints():
    networks = [network() for _ in range(40)]
    expected = USES["chain"](networks[0])
    state = torch.get_rng_state()
    checkpointed = checkpoint._checkpoint_impl
    with ThreadPoolExecutor(4) as pool:
        chains = list(pool.map(USES["chain"], networks))
    assert all(torch.equal(chain, expected) for chain in chains)
    assert torch.equal(torch.get_rng_state(), state)
    assert checkpoint._checkpoint_impl is checkpointed


def test_threads_that_build_layers_leave_the_random_state():
    """While one changes a basis, which makes new layers, another runs a network."""
    model = nn.Sequential(nn.Linear(40, 200), nn.ReLU(), nn.Linear(200, 3))
    networks = [network() for _ in range(160)]

    def use(i):
        if i % 2:
            return symmetry.rebase(model, "rotation", i)
        return USES["chain"](networks[i])

    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(160)))
    assert torch.equal(torch.get_rng_state(), state)


def test_spectral_norm_in_training_mode_does_not_go_on():
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(20, 12)), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():  # as a step of an optimiser
        model[0].parametrizations.weight.original.mul_(1.5).add_(0.1)
    model.train()
    before = deepcopy(model.state_dict())
    chains = [wcka.chain(model), wcka.chain(model, (20,)), wcka.chain(model)]
    assert torch.equal(chains[0], chains[2])
    torch.testing.assert_close(chains[0], chains[1], atol=1e-6, rtol=1e-6)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name]), name


@pytest.mark.parametrize("context", [
    torch.inference_mode, torch.no_grad, partial(torch.device, "meta")])
def test_everything_works_inside(context):
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(36, 3))
    x, y = images()
    x = x[:, None]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 5))

    def results():
        return [
            wcka.chain(model, (1, 20)).tolist(), wcka.wcka([a], [b]),
            wcka.cka(a, b), wcka.procrustes(a, b), wcka.dcka(a, b, a * b),
            wcka.agreement([0, 1], [1, 1]),
            attacks.pgd(model, x, y, 0.1, 0.02, 2).tolist(),
            attacks.trades(model, x, 0.1, 0.02, 2).tolist(),
            attacks.gaussian_noise(x, 0.1).tolist()]

    expected = results()
    with context():
        assert results() == expected


def test_the_precision_that_is_set_globally_plays_no_part():
    x, y = images()
    model = network()
    expected = attacks.pgd(model, x, y, 0.1, 0.02, 2)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(attacks.pgd(model, x, y, 0.1, 0.02, 2), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_networks_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(20, 3))
        x = torch.rand(4, 20)
        attacked = attacks.fgsm(model, x, [0, 1, 2, 0], 0.1)
        assert wcka.wcka(model, model) == pytest.approx(1)
    assert float((attacked - x).abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_a_network_that_always_draws_is_attacked_alike_each_time():
    class Noisy(nn.Linear):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    torch.manual_seed(0)
    model = Noisy(20, 3)
    calls = [attacks.pgd(model, *images(), 0.1, 0.02, 3) for _ in range(2)]
    assert torch.equal(*calls)


def test_what_is_raised_inside_leaves_nothing_behind():
    model = network()
    with pytest.raises(KeyError), caller.untouched(model):
        model(images()[0])
        model[1].running_mean.fill_(7)
        raise KeyError
    assert model.training and float(model[1].running_mean.abs().max()) == 0


# ------------------------------------------------------------ logits


def test_one_logit_is_the_second_of_two():
    torch.manual_seed(0)
    one = nn.Linear(20, 1).double()
    two = nn.Linear(20, 2).double()
    with torch.no_grad():
        two.weight.copy_(torch.cat([0 * one.weight, one.weight]))
        two.bias.copy_(torch.cat([0 * one.bias, one.bias]))
    x = images()[0].double()
    y = torch.arange(50) % 2
    for attack in (lambda m: attacks.fgsm(m, x, y, 0.1),
                   lambda m: attacks.trades(m, x, 0.1, 0.02, 3)):
        assert torch.equal(attack(one), attack(two))
        assert not torch.equal(attack(one), x)


@pytest.mark.parametrize("call, error, words", [
    (lambda m, x, y: attacks.fgsm(m, x, y, 8), ValueError, "divide it by 255"),
    (lambda m, x, y: attacks.gaussian_noise(x, 25), ValueError, "divide it by 255"),
    (lambda m, x, y: attacks.fgsm(m, x, y + 1, 0.1), ValueError, "from 0 to 2"),
    (lambda m, x, y: attacks.fgsm(m, x, y - 1, 0.1), ValueError, "from 0 to 2"),
    (lambda m, x, y: attacks.fgsm(m, x, y[:, None], 0.1), ValueError, "one int per"),
    (lambda m, x, y: attacks.fgsm(lambda x: {"out": m(x)}, x, y, 0.1), TypeError,
     "got dict"),
    (lambda m, x, y: attacks.fgsm(lambda x: (m(x),), x, y, 0.1), TypeError,
     "got tuple"),
    (lambda m, x, y: attacks.fgsm(lambda x: m(x)[:, 0], x, y, 0.1), ValueError,
     "wanted logits"),
])
def test_attacks_refuse_what_has_no_answer(call, error, words):
    with pytest.raises(error, match=words):
        call(network(), *images())


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8])
def test_labels_of_any_integers(dtype):
    x, y = images()
    model = network()
    expected = attacks.fgsm(model, x, y, 0.1)
    assert torch.equal(attacks.fgsm(model, x, y.to(dtype), 0.1), expected)


def test_agreement_of_one_logit_and_of_columns_of_labels():
    logits = torch.tensor([[3.0], [-2.0], [1.0], [-1.0]])
    assert wcka.agreement(logits, -logits) == 0
    assert wcka.agreement(logits, logits * 5) == 1
    assert wcka.agreement(logits, [1, 0, 1, 1]) == 0.75
    labels = torch.tensor([[0], [1], [2]])
    assert wcka.agreement(labels, labels.roll(1, 0)) == 0
    assert wcka.agreement(labels, [0, 1, 1]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="probabilities"):
        wcka.agreement(logits.sigmoid(), logits.sigmoid())
