"""Chains, and the transformations that leave a network's function as it was."""

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

import wcka
from wcka.networks import architectures
from wcka.weights import layers, symmetry
from wcka.weights.chains import linear_layers

TELESCOPING = ("identity", "relu", "leaky_relu", "sigmoid", "gelu", "tanh")


def network(activation="relu", seed=0, bias=True):
    torch.manual_seed(seed)
    return architectures.mlp((20, 8, 6, 3), activation, bias).double()


def inputs(n=50):
    return torch.randn(n, 20, generator=torch.manual_seed(1), dtype=torch.float64)


def test_chain_is_the_product_of_the_weights():
    model = network()
    weights = [m.weight.detach().numpy().T for m in model if isinstance(m, nn.Linear)]
    product = np.linalg.multi_dot(weights)
    chain = wcka.chain(model)
    assert_allclose(chain, product, rtol=0, atol=1e-15)
    assert_allclose(wcka.chain(weights), product, rtol=0, atol=1e-15)
    assert chain.dtype == torch.float64 and not chain.requires_grad
    assert_allclose(wcka.chain(model[:4]), weights[0] @ weights[1], rtol=0, atol=1e-15)
    assert_allclose(wcka.chain(model[1]), weights[0])  # a single nn.Linear


def test_chain_is_the_network_without_its_nonlinearities():
    model, x = network("identity"), inputs()
    augmented = wcka.chain(model, bias=True)
    assert augmented.shape == (21, 3)
    with torch.no_grad():
        assert_close(x @ augmented[:-1] + augmented[-1], model(x))
    assert_close(augmented[:-1], wcka.chain(model))
    assert_close(wcka.chain(network(bias=False), bias=True)[-1],
                 torch.zeros(3, dtype=torch.float64))


def test_chain_passes_over_dropout_flatten_and_nesting():
    torch.manual_seed(0)
    a, b = nn.Linear(12, 5), nn.Linear(5, 2)
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(a, nn.Dropout(), nn.ReLU()), b)
    assert_close(wcka.chain(nested, input_shape=(3, 4)),
                 (b.weight @ a.weight).T.double())
    with pytest.raises(ValueError, match="10 coordinates, the first layer takes 12"):
        wcka.chain(nested, input_shape=(2, 5))


@pytest.mark.parametrize("bad, error, words", [
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), TypeError,
     "'0' .Conv2d"),
    (nn.Sequential(nn.Embedding(3, 3), nn.Linear(3, 3)), TypeError, "Embedding"),
    (nn.Sequential(nn.ReLU()), TypeError, "no linear layer"),
    (nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)), ValueError, "takes 3 inputs"),
    ([np.ones((3, 4)), np.ones((3, 4))], ValueError, "do not fit together"),
    ([np.ones(3)], ValueError, r"wanted \(in, out\)"),
    ([np.full((2, 2), np.nan)], ValueError, "NaN"),
    ([], TypeError, "non-empty"),
    ([np.ones((2, 2)) * 1j], TypeError, "real numbers"),
    ("weights", TypeError, "got str"),
])
def test_chain_refuses(bad, error, words):
    with pytest.raises(error, match=words):
        wcka.chain(bad)


class Residual(nn.Sequential):
    """A sequential that does not only run through its modules."""

    def forward(self, x):
        return super().forward(x) + x


def test_a_sequential_with_another_forward_is_run():
    layer = nn.Linear(4, 4).double()
    expected = torch.eye(4) + layer.weight.detach().T
    for model in (Residual(layer), nn.Sequential(Residual(layer))):
        assert_close(wcka.chain(model), expected)


def test_a_linear_layer_with_another_forward_is_run():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(4, 3), nn.ReLU())
    expected = 2 * model[0].weight.detach().T.double()
    assert_close(wcka.chain(model), expected)
    assert_close(wcka.chain(model, (4,)), expected)


class Reversed(nn.Identity):
    """An activation by name only."""

    def forward(self, x):
        return x.flip(-1)


def doubled():
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


@pytest.mark.parametrize("build", [
    Reversed, doubled, lambda: torch.nn.utils.weight_norm(nn.Linear(4, 4)),
    lambda: prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)])
def test_what_a_class_does_not_tell_is_run_not_read(build):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), build(), nn.ReLU(), nn.Linear(4, 2))
    for transform in (symmetry.permute, symmetry.intertwine):
        with pytest.raises(TypeError):
            transform(model)
    linear = model.double()[:2].append(model[3])
    eye = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        expected = linear(eye) - linear(0 * eye[:1])
    for chain in (wcka.chain(model), wcka.chain(model, (3,))):
        assert_close(chain, expected)


def test_elementwise_activations_are_passed_over():
    torch.manual_seed(0)
    a, b = nn.Linear(5, 4), nn.Linear(4, 2)
    model = nn.Sequential(a, nn.SiLU(), b, nn.LogSoftmax(dim=1))
    assert_close(wcka.chain(model), (b.weight @ a.weight).T.double())


def test_layers_whose_order_is_not_known_are_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

    with pytest.raises(TypeError, match="Net"):  # the order of its layers is not known
        wcka.chain(Net())


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_permutations_and_intertwiners_preserve_the_function(activation):
    model, x = network(activation), inputs()
    for transform in (symmetry.permute, symmetry.intertwine):
        transformed = transform(model, seed=3)
        with torch.no_grad():
            assert_close(transformed(x), model(x), atol=1e-9, rtol=1e-9)
        assert not torch.equal(transformed[1].weight, model[1].weight)


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_the_chain_survives_intertwiners_exactly_where_phi_is_the_identity(activation):
    model = network(activation)
    transformed = symmetry.intertwine(model, seed=3)
    same = torch.allclose(
        wcka.chain(transformed), wcka.chain(model), rtol=0, atol=1e-12)
    assert same == (activation in TELESCOPING)


def test_rescaling_preserves_relu_networks_and_is_refused_for_others():
    model, x = network("leaky_relu"), inputs()
    with torch.no_grad():
        assert_close(symmetry.rescale(model)(x), model(x))
    assert_close(wcka.chain(symmetry.rescale(model)), wcka.chain(model))
    with pytest.raises(TypeError, match="Sigmoid"):
        symmetry.rescale(network("sigmoid"))
    class Cubic(layers.Square):
        """An activation that no table knows."""

    with pytest.raises(TypeError, match="Cubic not known"):
        symmetry.intertwine(nn.Sequential(nn.Linear(2, 2), Cubic(), nn.Linear(2, 2)))


@pytest.mark.parametrize("name", symmetry.CHANGES)
def test_a_change_of_basis_preserves_function_and_chain(name):
    model, x = network("gelu"), inputs()
    a, c = symmetry.change_of_basis(name, 6, seed=2)
    transformed = symmetry.rebase(model, name, seed=2)
    with torch.no_grad():
        assert_close(transformed(x), model(x))
        assert_close(transformed[:-1](x), model[:-1](x) @ a + c)
    assert_close(wcka.chain(transformed), wcka.chain(model))
    assert not torch.equal(transformed[:-1](x), model[:-1](x))


def test_silent_weights_are_only_those_of_zero_inputs():
    model, x = network(), inputs()
    x[:, [2, 5]] = 0
    transformed = symmetry.redraw_silent_weights(model, x)
    with torch.no_grad():
        assert torch.equal(transformed(x), model(x))
    changed = (transformed[1].weight != model[1].weight).all(0)
    assert changed.nonzero().flatten().tolist() == [2, 5]


def test_output_map_changes_the_function_by_one_matrix():
    model, x = network(), inputs()
    with torch.no_grad():
        old, new = model(x), symmetry.map_outputs(model)(x)
    a = torch.linalg.lstsq(old, new).solution
    assert_close(old @ a, new)
    assert not torch.allclose(old, new)
    with pytest.raises(TypeError, match=r"ends in nn\.Linear, got ReLU"):
        symmetry.map_outputs(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))


def test_transformations_are_seeded_and_leave_the_model_untouched():
    model = network()
    before = model[1].weight.clone()
    first = symmetry.intertwine(model, seed=0)[1].weight
    assert torch.equal(first, symmetry.intertwine(model, seed=0)[1].weight)
    assert not torch.equal(first, symmetry.intertwine(model, seed=1)[1].weight)
    assert torch.equal(model[1].weight, before)
    with pytest.raises(ValueError, match="did you mean 'rotation'"):
        symmetry.change_of_basis("rotatoin", 3)


def test_modules_that_stand_in_two_places():
    torch.manual_seed(0)
    act = nn.ReLU()
    inner = nn.Linear(4, 4)
    model = nn.Sequential(
        nn.Linear(3, 4), act, inner, act, inner, act, nn.Linear(4, 2)).double()
    assert [type(a) for _, a in linear_layers(model)] == [nn.ReLU] * 3 + [type(None)]
    w = [model[i].weight.detach().T for i in (0, 2, 2, 6)]
    assert_close(wcka.chain(model), w[0] @ w[1] @ w[2] @ w[3])
    for transform in (symmetry.permute, symmetry.intertwine):
        with pytest.raises(TypeError, match="stands in two places"):
            transform(model)
    shared = nn.Sequential(
        nn.Linear(3, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2)).double()
    x = torch.randn(9, 3, dtype=torch.float64)
    with torch.no_grad():
        assert_close(symmetry.intertwine(shared)(x), shared(x))


def test_layers_come_with_their_activations():
    layers = linear_layers(network("tanh"))
    assert [type(a) for _, a in layers] == [nn.Tanh, nn.Tanh, type(None)]


@pytest.mark.parametrize("widths", [(3,), (), (3, 0, 2), (3, 2.5)])
def test_mlp_refuses_bad_widths(widths):
    with pytest.raises(ValueError, match="widths"):
        architectures.mlp(widths)
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        architectures.mlp((2, 2), "rellu")


def convolutional(name):
    torch.manual_seed(0)
    shape = (144,)
    if name == "plain":
        model = architectures.convnet((4, 3), 3, (5,), 3, 12)
    elif name == "batch norm":
        model = architectures.convnet((4, 3), 3, (5,), 3, 12, batch_norm=True)
    elif name == "residual":
        model = architectures.resnet((4, 6), (5,), 3, 12)
    else:
        shape = (3, 32, 32)
        model = torchvision.models.get_model(name, num_classes=3)
    model = model.double()
    with torch.no_grad():  # nothing is at its neutral value
        for key, values in model.state_dict().items():
            if "running" in key or (values.ndim == 1 and "num" not in key):
                values.copy_(0.5 + torch.rand_like(values))
    return model.eval(), shape


@pytest.mark.parametrize("transform", [symmetry.permute, symmetry.rescale])
@pytest.mark.parametrize(
    "name", ["plain", "batch norm", "residual", "resnet18", "resnet50"])
def test_channels_move_through_convolutions_normalisation_and_residual_groups(
        name, transform):
    model, shape = convolutional(name)
    transformed = transform(model, seed=3)
    x = torch.randn(4, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert_close(transformed(x), model(x), rtol=1e-8, atol=1e-8)
    assert_close(
        wcka.chain(transformed, shape), wcka.chain(model, shape), rtol=1e-7, atol=1e-12)
    state = transformed.state_dict()
    before = model.state_dict()
    writers = [rows[0][0] for rows in symmetry.hidden_units(model).values()]
    gains = [key for key in before if key.endswith("weight") and before[key].ndim == 1]
    # Where there is normalisation, a scale stands in its gains alone.
    changed = gains if transform is symmetry.rescale and gains else writers
    for key in changed:
        assert not torch.allclose(state[key], before[key]), key


def test_the_table_of_units_of_resnet18():
    model, _ = convolutional("resnet18")
    table = symmetry.hidden_units(model)
    # The stem and every stage have one stream; each of the eight blocks has one inside.
    assert len(table) == 4 + 8
    assert ("fc.weight", 1, -1) in table["layer4.0.downsample.0"]
    assert ("layer1.1.bn2.bias", 0, 1) in table["conv1"]
    assert ("layer2.0.downsample.0.weight", 1, -1) in table["conv1"]
    hidden = {key for key, values in model.state_dict().items() if values.ndim}
    listed = set()
    for rows in table.values():
        listed |= {name for name, _, _ in rows}
    assert listed == hidden - {"fc.bias"}


class Backwards(torchvision.models.ResNet):
    """A ResNet by name only."""

    def forward(self, x):
        return super().forward(x.flip(-1)) * x.mean()


def weighted(layer):
    return torch.nn.utils.parametrizations.weight_norm(layer)


NORM = nn.BatchNorm1d(4, affine=False)
BRANCH = layers.Residual(nn.BatchNorm1d(4), nn.Linear(4, 4))  # begins with a norm


@pytest.mark.parametrize("modules, words", [
    ([nn.Linear(3, 4), BRANCH, nn.Linear(4, 2)], "BatchNorm1d"),
    ([nn.Linear(3, 4), NORM, nn.Linear(4, 2)], "BatchNorm1d"),
    ([nn.Linear(3, 4), NORM, nn.Linear(4, 4), NORM], "two places"),
    ([weighted(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)], "Linear"),
    ([Backwards(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])], "Backwards"),
    ([nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Linear(4, 2)], "Linear"),
    ([nn.Conv2d(1, 4, 1), nn.Flatten(2), nn.Linear(4, 2)], "Flatten"),
    ([nn.Linear(9, 9), nn.AvgPool2d(3, 1, 1), nn.Linear(9, 2)], "AvgPool2d"),
    ([nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 1)], "Unflatten"),
    ([nn.Conv2d(4, 4, 1, groups=2)], "Conv2d"),
    ([nn.Linear(2, 2), nn.PReLU(2)], "PReLU"),
])
def test_units_that_are_not_known_are_refused(modules, words):
    with pytest.raises(TypeError, match=words):
        symmetry.permute(nn.Sequential(*modules))


def test_a_residual_connection_to_the_input_keeps_its_units_in_place():
    torch.manual_seed(0)
    residual = layers.Residual(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    model = nn.Sequential(residual, nn.ReLU(), nn.Linear(4, 2)).double()
    transformed = symmetry.permute(model, seed=1)
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        assert_close(transformed(x), model(x))
    assert list(symmetry.hidden_units(model)) == ["0.0"]


@pytest.mark.parametrize(
    "inner", [[nn.ReLU()], [layers.Residual(nn.Linear(5, 5), nn.ReLU())]],
    ids=["no weights", "nested"])
def test_a_residual_connection_whose_branch_writes_no_units(inner):
    torch.manual_seed(0)
    residual = layers.Residual(*inner)
    model = nn.Sequential(nn.Linear(4, 5), residual, nn.Linear(5, 3)).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    for transform in (symmetry.permute, symmetry.rescale):
        transformed = transform(model, seed=1)
        assert not torch.allclose(transformed[0].weight, model[0].weight)
        with torch.no_grad():
            assert_close(transformed(x), model(x))
    assert list(symmetry.hidden_units(model)) == ["0"]
