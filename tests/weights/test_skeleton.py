"""Chains of any architecture: Jacobians of networks without their nonlinearities."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import wcka
from wcka.networks import architectures
from wcka.weights import layers, skeleton
from wcka.weights.skeleton import NotLinear


class Net(nn.Module):
    """A network that does what `forward` does with some modules."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.steps = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.steps(self, x)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def explicit(linear, input_shape):
    """Return the matrix of an affine map, by the images of unit vectors."""
    units = torch.eye(int(np.prod(input_shape)), dtype=torch.float64)
    units = units.reshape(-1, *input_shape)
    with torch.no_grad():
        offset = linear(torch.zeros_like(units[:1])).flatten(1)
        return linear(units).flatten(1) - offset


def test_a_fully_connected_network_has_the_chain_of_its_product():
    torch.manual_seed(0)
    model = architectures.mlp((20, 8, 6, 3))
    # A network whose layers cannot be read off.
    wrapped = Net(lambda net, x: net.inner(x), inner=model)
    product = wcka.chain(model, bias=True)
    chain = wcka.chain(wrapped, (20,), bias=True)
    assert_close(chain, product, rtol=1e-12, atol=0)
    assert_close(wcka.chain(wrapped, (20,), layer="inner.3"), wcka.chain(model[:4]))
    assert wcka.wcka(wrapped, model, input_shape=(20,)) == pytest.approx(1)
    pair = [wrapped, product[:-1]]
    assert wcka.pairwise("wcka", pair, input_shape=(20,)).min() > 1 - 1e-12


CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3),
    "strided": nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(3, 4, 3, dilation=2),
    "grouped": nn.Conv2d(3, 6, 3, groups=3),
    "depthwise": nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 5, 1)),
    "transposed": nn.ConvTranspose2d(3, 2, 3, stride=2),
    "circular": nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "patches": layers.PatchConv2d(3, 4, 3),
    "adaptive": nn.AdaptiveAvgPool2d((3, 2)),
    "upsampled": nn.Upsample(scale_factor=2, mode="bilinear"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_every_kind_with_activations_of_every_kind(kind):
    layer = CONVOLUTIONS[kind].double()
    outputs = layer(torch.zeros(1, 3, 7, 7, dtype=torch.float64)).numel()
    last = nn.Linear(outputs, 2).double()
    linear = nn.Sequential(layer, nn.Flatten(), last)
    for activation in (nn.ReLU(inplace=True), nn.Hardswish(), nn.PReLU(),
                       nn.Sequential(nn.SELU(), nn.Dropout2d())):
        model = nn.Sequential(layer, activation, nn.Flatten(), last)
        assert_close(wcka.chain(model, (3, 7, 7)), explicit(linear, (3, 7, 7)))


@pytest.mark.parametrize("shape, convolve", [
    ((1, 20), lambda x, w: functional.conv1d(x, w, None, 3, 2, 2)),
    ((1, 20), lambda x, w: functional.conv1d(
        x, w[:, :, :2], stride=(2,), padding=(1,))),
    ((2, 9, 8), lambda x, w: functional.conv2d(x, w, None, (2, 1), (0, 2), (1, 2))),
    ((2, 9, 8), lambda x, w: functional.conv2d(
        x, dilation=2, weight=w, bias=w[:, 0, 0, 0])),
    ((2, 9, 8), lambda x, w: torch.conv2d(x, w, padding="same")),
    ((1, 9, 8), lambda x, w: functional.conv2d(x[0], w)[None])])
def test_convolutions_of_few_channels_whatever_they_are_called_with(shape, convolve):
    weight = draw(5, shape[0], *[3] * (len(shape) - 1))
    model = Net(lambda net, x: convolve(x, net.weight).relu())
    model.weight = nn.Parameter(weight)

    def of_batch(inputs):
        return torch.cat([convolve(x[None], weight) for x in inputs])

    right = explicit(of_batch, shape)
    assert_close(wcka.chain(model, shape), right, rtol=0, atol=1e-12)


class Clipped(torch.autograd.Function):
    """The identity, whose gradient is clipped by a number that Python reads."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * min(1.0, 1e9 / gradient.norm().item())


def test_gradients_that_cannot_be_batched_are_taken_one_by_one():
    layer = nn.Linear(4, 3).double()
    model = Net(lambda net, x: Clipped.apply(net.layer(x)), layer=layer)
    assert_close(wcka.chain(model, (4,)), layer.weight.detach().T)


@pytest.mark.parametrize("dim, pooled, mean", [
    (1, nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(3, 2, 1, count_include_pad=False)),
    (2, nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    (2, nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)),
    (3, nn.MaxPool3d(2), nn.AvgPool3d(2)),
    (2, nn.AdaptiveMaxPool2d(2), nn.AdaptiveAvgPool2d(2)),
    (2, Net(lambda net, x: x.amax((2, 3))), Net(lambda net, x: x.mean((2, 3)))),
    (2, Net(lambda net, x: torch.max_pool2d(x, 2)), nn.AvgPool2d(2)),
])
def test_maxima_become_means_over_the_same_places(dim, pooled, mean):
    shape = (2, *[5] * dim)
    assert_close(wcka.chain(pooled, shape), explicit(mean, shape))


def test_modules_functions_and_methods_are_one_to_the_skeleton():
    layer = nn.Linear(4, 4).double()
    ways = [lambda n, x: nn.ReLU()(n.l(x)), lambda n, x: functional.relu(n.l(x)),
            lambda n, x: torch.relu(n.l(x)), lambda n, x: n.l(x).relu(),
            lambda n, x: n.l(x).relu_(),
            lambda n, x: functional.relu(input=n.l(x), inplace=True),
            lambda n, x: torch.clamp(n.l(x), min=0), lambda n, x: n.l(x).clamp_(0)]
    for way in ways:
        chain = wcka.chain(Net(way, l=layer), (4,))
        assert_close(chain, layer.weight.T.double())


def test_what_is_changed_in_place_after_an_activation_is_changed_there_only():
    def forward(net, x):
        y = functional.relu(x)
        y += net.l(x)  # must not reach x, as relu made a copy
        return torch.cat([x, y], 1)

    layer = nn.Linear(3, 3, bias=False).double()
    eye = torch.eye(3, dtype=torch.float64)
    assert_close(wcka.chain(Net(forward, l=layer), (3,)),
                 torch.cat([eye, eye + layer.weight.detach().T], 1))


def test_what_is_done_to_weights_alone_is_done():
    model = Net(lambda net, x: functional.linear(x, net.l.weight.relu().softmax(1)),
                l=nn.Linear(4, 3).double())
    assert_close(wcka.chain(model, (4,)),
                 model.l.weight.detach().relu().softmax(1).T)


def test_batch_normalisation_is_its_affine_map_in_eval_mode():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    model(draw(64, 5))  # so that the running statistics are not those of initialisation
    norm = model[1]
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    expected = model[0].weight.detach().T * gain @ model[3].weight.detach().T
    assert_close(wcka.chain(model, (5,)), expected)
    # The network is left as it was.
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("forward, culprit", [
    (lambda net, x: net.l(x.abs()), "abs"),
    (lambda net, x: net.l(x) * net.l(x), "mul"),
    (lambda net, x: torch.where(x > 0, x, 0.1 * x), "gt"),
    (lambda net, x: x.max(1)[0][:, None], "max"),
    (lambda net, x: x / x.norm(), "norm"),
    (lambda net, x: net.l(x) ** 3 * 1e-30, "pow"),
    (lambda net, x: functional.max_pool1d(x[:, None], 2, dilation=2)[:, 0],
     "max_pool1d"),
    (lambda net, x: net.deeper(x),
     "exp in module 'deeper' .Sequential|exp in module 'deeper.1'"),
])
def test_what_is_not_linear_is_named_with_its_module(forward, culprit):
    exp = Net(lambda net, x: x.exp())
    deeper = nn.Sequential(nn.Linear(4, 4), exp, nn.Linear(4, 2))
    with pytest.raises(NotLinear, match=f"{culprit}.* is not linear"):
        wcka.chain(Net(forward, l=nn.Linear(4, 2), deeper=deeper), (4,))


@pytest.mark.parametrize("forward, words", [
    (lambda net, x: net.l(x).detach(), "does not depend"),
    (lambda net, x: net.l(x) + net.l(x.detach()), "detached"),
    (lambda net, x: {"out": net.l(x)}, "got dict"),
    (lambda net, x: net.l(x).sum(), "shape"),
])
def test_no_wrong_chain_of_a_linear_map(forward, words):
    with pytest.raises(TypeError, match=words):
        wcka.chain(Net(forward, l=nn.Linear(4, 2)), (4,))


def test_chains_where_gradients_are_switched_off():
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())
    chain = wcka.chain(model, (1, 3))
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            assert_close(wcka.chain(model, (1, 3)), chain)


def test_activations_of_two_things_are_not_passed_over():
    for forward in (lambda n, x: torch.clamp(n.l(x), min=n.m(x)),
                    lambda n, x: n.l(x) + torch.clamp(torch.zeros(2), max=n.m(x))):
        with pytest.raises(NotLinear, match="clamp"):
            wcka.chain(Net(forward, l=nn.Linear(4, 2), m=nn.Linear(4, 2)), (4,))


def test_the_chain_up_to_a_layer_is_not_changed_by_what_comes_next():
    torch.manual_seed(0)
    model = Net(lambda n, x: n.b(n.a(x).mul_(3)), a=nn.Linear(4, 3), b=nn.Linear(3, 2))
    chain = wcka.chain(model, (4,), layer="a")
    assert_close(chain, model.a.weight.T.double())
    tokens = Net(lambda n, x: n.a(x).sum((1, 2))[:, None], a=nn.Linear(4, 3))
    chain = wcka.chain(tokens, (5, 4), layer="a").reshape(5, 4, 3)  # mean over tokens
    assert_close(chain, (tokens.a.weight.T.double() / 5).expand(5, 4, 3))


def test_changes_of_precision_are_nothing():
    model = Net(lambda n, x: n.l(x.float().half()).type_as(x), l=nn.Linear(4, 2))
    assert_close(wcka.chain(model, (4,)), model.l.weight.T.double())


def test_an_activation_that_stands_in_two_places():
    act = layers.Gaussian()
    trunk = nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 3), act)
    model = Net(lambda n, x: n.b(n.net(x)), net=trunk, b=nn.Linear(3, 2))
    weights = [layer.weight.T for layer in (trunk[0], trunk[2], model.b)]
    assert_close(wcka.chain(model, (4,)), wcka.chain(weights))


def test_complex_weights_are_refused():
    model = Net(lambda n, x: n.l(x), l=nn.Linear(4, 2))
    model.phase = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    with pytest.raises(TypeError, match="complex"):
        wcka.chain(model, (4,))


@pytest.mark.parametrize("in_place, usual", [
    (lambda h: h.sigmoid_(), torch.sigmoid),
    (lambda h: h.sigmoid().mul_(2) / 2, torch.sigmoid),
    (lambda h: functional.hardsigmoid(h, inplace=True), functional.hardsigmoid)])
def test_a_gate_in_place_is_the_gate(in_place, usual):
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).double()

    def chain_with(gate):
        model = Net(lambda n, x: x * gate(n.l(x)), l=layer)
        return wcka.chain(model, (4,), freeze=["gate"])

    expected = chain_with(usual)
    assert_close(chain_with(in_place), expected)
    x = torch.randn(4, generator=torch.Generator().manual_seed(0)).double()
    assert_close(expected.diagonal(), usual(layer(x)).detach())


def test_what_a_gate_in_place_leaves_behind_is_a_constant():
    def forward(net, x):
        h = net.l(x)
        h.sigmoid_()
        return x + h

    layer = nn.Linear(4, 4).double()
    chain = wcka.chain(Net(forward, l=layer), (4,), freeze=["gate"], bias=True)
    assert_close(chain[:-1], torch.eye(4, dtype=torch.float64))


def test_running_statistics_are_not_frozen():
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True).double()
    norm.running_var.uniform_(0.5, 2)
    assert_close(wcka.chain(norm, (4, 3, 3), freeze=["norm"]),
                 wcka.chain(norm, (4, 3, 3)))


def test_clear_errors_before_any_work():
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    for arguments, error, words in (
            ({}, TypeError, "input_shape"),
            ({"input_shape": (3, 4, 4)}, ValueError, "does not take"),
            ({"input_shape": (1, 4, 4), "freeze": ["gates"]}, ValueError,
             "did you mean 'gate'"),
            ({"input_shape": (1, 4, 4), "layer": "9"}, ValueError, "unknown layer"),
            ({"input_shape": (1, 4, 4), "freeze": ["gate"],
              "reference": torch.zeros(3)}, ValueError, "reference")):
        with pytest.raises(error, match=words):
            wcka.chain(conv, **arguments)
    conv[0].weight.data[0] = torch.nan
    with pytest.raises(TypeError, match="NaN"):
        wcka.chain(conv, (1, 4, 4))


# One network of each of torchvision's families of classifiers, and what must be frozen
# in it.
FAMILIES = {
    "alexnet": (),
    "convnext_tiny": ("norm",),
    "densenet121": (),
    "efficientnet_b0": ("gate",),
    "googlenet": (),
    "inception_v3": (),
    "maxvit_t": ("gate", "norm", "attention"),
    "mnasnet0_5": (),
    "mobilenet_v2": (),
    "mobilenet_v3_small": ("gate",),
    "regnet_x_400mf": (),
    "regnet_y_400mf": ("gate",),
    "resnet18": (),
    "resnext50_32x4d": (),
    "shufflenet_v2_x0_5": (),
    "squeezenet1_0": (),
    "swin_t": ("norm", "attention"),
    "swin_v2_t": ("norm", "attention"),
    "vgg11_bn": (),
    "vit_b_32": ("norm", "attention"),
}
# Sides of images in pixels where 64 are too few, and further options of the builders.
SIDES = {"inception_v3": 96}
OPTIONS = {
    "googlenet": {"init_weights": True},
    "inception_v3": {"init_weights": True},
    "vit_b_32": {"image_size": 64},
}


def test_no_family_of_torchvision_is_forgotten():
    def modules_of(names):
        return {torchvision.models.get_model_builder(name).__module__ for name in names}

    all_names = torchvision.models.list_models(torchvision.models)
    assert modules_of(all_names) == modules_of(FAMILIES)


# Families whose smallest network takes less than a second or so; the others take up to
# half a minute.
QUICK = ("alexnet", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_0")
NAMES = [*QUICK]
for family in sorted(set(FAMILIES) - set(QUICK)):
    NAMES.append(pytest.param(family, marks=pytest.mark.slow))


def network_of(name):
    """Return torchvision's network of a name, with three outputs.

    For maxvit_t this is a small MaxVit of the same modules.
    """
    if name == "maxvit_t":  # its own, for 224 x 224 pixels, takes a minute to trace
        return torchvision.models.maxvit.MaxVit(
            input_size=(64, 64), stem_channels=8, partition_size=2,
            block_channels=[8, 16], block_layers=[1, 2], head_dim=8,
            stochastic_depth_prob=0.2, num_classes=3)
    return torchvision.models.get_model(name, num_classes=3, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_every_family_of_torchvision_has_a_chain_or_a_named_error(name):
    torch.manual_seed(0)
    model = network_of(name)
    if name == "vit_b_32":  # its last layer begins as zero
        nn.init.normal_(model.heads.head.weight)
    side = SIDES.get(name, 64)
    shape = (3, side, side)
    if FAMILIES[name]:
        kinds = "|".join(FAMILIES[name])
        with pytest.raises(NotLinear, match=rf"module '.*freeze=\('{kinds}'"):
            wcka.chain(model, shape)
    chain = wcka.chain(model, shape, freeze=FAMILIES[name], dtype=torch.float64)
    assert chain.shape == (np.prod(shape), 3) and (chain.norm(dim=0) > 0).all()


def test_single_precision_is_close():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    double = wcka.chain(model, (3, 32, 32), dtype=torch.float64, chunk=10)
    single = wcka.chain(model, (3, 32, 32), dtype=torch.float32, chunk=3)
    assert (single - double).norm() < 1e-4 * double.norm()


# A frozen function keeps the value of a factor in the network itself. So the chain
# still survives the changes of weights that preserve the network's function; but it now
# depends on biases and on the reference input.


class Gated(nn.Module):
    """Squeeze and excitation, written as most do."""

    def __init__(self):
        super().__init__()
        self.before = nn.Conv2d(2, 6, 3)
        self.after = nn.Linear(6, 3)
        self.squeeze = nn.Linear(6, 4)
        self.excite = nn.Linear(4, 6)

    def forward(self, x):
        x = self.before(x).relu()
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.after((x * gate[:, :, None, None].expand_as(x)).mean((2, 3)))


def move_gated(model, order, scale):
    """Permute and rescale the channels and the gate's hidden units."""
    scale, hidden = scale[:6], scale[:4]
    model.before.weight.data = model.before.weight[order] * scale[:, None, None, None]
    model.before.bias.data = model.before.bias[order] * scale
    model.after.weight.data = model.after.weight[:, order] / scale
    model.squeeze.weight.data = model.squeeze.weight[:, order] / scale * hidden[:, None]
    model.squeeze.bias.data = model.squeeze.bias * hidden
    model.excite.weight.data = (model.excite.weight / hidden)[order]
    model.excite.bias.data = model.excite.bias[order]


class Normed(nn.Module):
    """Layer normalisation, or another, between two layers."""

    def __init__(self, norm):
        super().__init__()
        self.before = nn.Linear(5, 6)
        self.norm = norm
        self.after = nn.Linear(6, 3)
        nn.init.normal_(norm.weight)
        if norm.bias is not None:
            nn.init.normal_(norm.bias)

    def forward(self, x):
        return self.after(self.norm(self.before(x)).relu())


class Attentive(nn.Module):
    """Attention over five tokens of four coordinates.

    It is PyTorch's module, or written out by scaled dot product attention.
    """

    def __init__(self, written_out):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.after = nn.Linear(4, 3)
        self.written_out = written_out

    def forward(self, x):
        if not self.written_out:
            return self.after(self.attend(x, x, x, need_weights=False)[0].mean(1))
        projected = functional.linear(
            x, self.attend.in_proj_weight, self.attend.in_proj_bias)
        heads = projected.unflatten(2, (3, 2, 2))  # (batch, tokens, 3, heads, units)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).flatten(2)  # (batch, tokens, heads and units)
        return self.after(self.attend.out_proj(mixed).mean(1))


def move_attentive(model, a):
    """Change the basis of queries and keys, and of values, within each head."""
    q, k, v = model.attend.in_proj_weight.data.chunk(3)
    bq, bk, bv = model.attend.in_proj_bias.data.chunk(3)
    out = model.attend.out_proj.weight
    for head in (slice(0, 2), slice(2, 4)):
        inverse = torch.linalg.inv(a)
        q[head], bq[head] = a @ q[head], a @ bq[head]
        k[head], bk[head] = inverse.T @ k[head], inverse.T @ bk[head]
        v[head], bv[head] = a @ v[head], a @ bv[head]
        out.data[:, head] = out[:, head] @ inverse


def same_function_and_chain(model, move, shape, freeze, bias_of, tolerance=1e-9):
    """Test that the chain survives `move`, but not another bias or reference."""
    model = model.double()
    x = draw(7, *shape)
    y = model(x)
    chain = wcka.chain(model, shape, freeze=[freeze])
    move(model)
    assert_close(model(x), y, rtol=tolerance, atol=tolerance)
    assert_close(wcka.chain(model, shape, freeze=[freeze]), chain, rtol=tolerance,
                 atol=tolerance)
    reference = draw(*shape, seed=5)
    changed = wcka.chain(model, shape, freeze=[freeze], reference=reference)
    assert (changed - chain).norm() > 1e-3 * chain.norm()
    with torch.no_grad():
        bias_of(model).copy_(draw(*bias_of(model).shape, seed=6))
    changed = wcka.chain(model, shape, freeze=[freeze])
    assert (changed - chain).norm() > 1e-3 * chain.norm()
    with pytest.raises(NotLinear, match=f"freeze=.'{freeze}'"):
        wcka.chain(model, shape)


def test_a_frozen_gate_keeps_permutations_and_rescaling():
    torch.manual_seed(0)
    scale = draw(6).exp()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    same_function_and_chain(
        Gated(), lambda m: move_gated(m, order, scale), (2, 5, 5), "gate",
        lambda m: m.excite.bias)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6, eps=0), nn.GroupNorm(2, 6, eps=0),
                                  nn.RMSNorm(6, eps=0)], ids=lambda n: type(n).__name__)
def test_a_frozen_norm_keeps_its_own_invariances(norm):
    torch.manual_seed(0)
    if isinstance(norm, nn.RMSNorm):
        norm.bias = None
    centred = not isinstance(norm, nn.RMSNorm)

    def move(model):  # the scale of all units, and what is added to all of them
        model.before.weight.data = 3 * model.before.weight + centred * draw(5)
        model.before.bias.data = 3 * model.before.bias + centred * 2
    same_function_and_chain(Normed(norm), move, (5,), "norm", lambda m: m.before.bias)


@pytest.mark.parametrize(
    "written_out", [False, True], ids=["module", "scaled dot product"])
def test_a_frozen_attention_keeps_changes_of_basis_within_heads(written_out):
    torch.manual_seed(0)
    same_function_and_chain(
        Attentive(written_out), lambda m: move_attentive(m, draw(2, 2)), (5, 4),
        "attention", lambda m: m.attend.in_proj_bias)


def glu():
    return nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2))


def instance_norm():
    return nn.Sequential(
        nn.Conv1d(2, 4, 1), nn.InstanceNorm1d(4, affine=True), nn.Flatten())


@pytest.mark.parametrize("build, freeze, shape", [
    (Gated, "gate", (2, 5, 5)),
    (lambda: Normed(nn.LayerNorm(6)), "norm", (5,)),
    (lambda: Attentive(False), "attention", (5, 4)),
    (glu, "gate", (4,)),
    (instance_norm, "norm", (2, 6)),
])
def test_at_the_reference_the_frozen_skeleton_is_the_network(build, freeze, shape):
    """Test it without the ReLUs, which the skeleton passes over and does not freeze."""
    torch.manual_seed(0)
    model = build().double()
    x = draw(*shape, seed=4)
    relu = torch.Tensor.relu
    torch.Tensor.relu = lambda self: self
    try:
        chain = wcka.chain(model, shape, bias=True, freeze=[freeze], reference=x)
        with torch.no_grad():
            y = model(x[None]).flatten()
    finally:
        torch.Tensor.relu = relu
    assert_close(x.flatten() @ chain[:-1] + chain[-1], y)


def test_every_replacement_is_a_function_of_torch():
    known = {*dir(torch), *dir(torch.Tensor), *dir(functional)}
    assert skeleton.PASSED.union(skeleton.POOLED, *skeleton.FROZEN.values()) <= known


# ------------------------------------------------------------ reasons and range


def fully_connected():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))


def frozen_trunk(net, x):
    with torch.no_grad():
        hidden = net.net[:2](x)
    return net.net[2](hidden)


@pytest.mark.parametrize("forward", [
    lambda net, x: checkpoint(net.net, x, use_reentrant=True),
    lambda net, x: checkpoint(net.net, x, use_reentrant=False),
    lambda net, x: checkpoint_sequential(net.net, 2, x, use_reentrant=False),
    frozen_trunk,
    lambda net, x: torch.no_grad()(net.net)(x),
    lambda net, x: net.net(x.to(torch.float32)),
    lambda net, x: net.net(x.type(torch.float64).to(x)),
    lambda net, x: net.net(x.to("cpu", torch.float16)),
    lambda net, x: net.net(x.to(torch.float8_e4m3fn)),
    lambda net, x: net.net(x + torch.zeros(20, dtype=torch.float32)),
    lambda net, x: net.net(x @ torch.eye(20)),  # float32 alone fits here
])
def test_what_changes_no_function_changes_no_chain(forward):
    inner = fully_connected()
    chain = wcka.chain(Net(forward, net=inner), (20,))
    torch.testing.assert_close(chain, wcka.chain(inner), atol=1e-6, rtol=1e-5)


def dynamically_quantised():
    return torch.ao.quantization.quantize_dynamic(fully_connected(), {nn.Linear})


def with_sparse_weight():
    model = fully_connected()
    model[0].weight = nn.Parameter(model[0].weight.detach().to_sparse())
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("build, words", [
    (lambda: torch.jit.script(fully_connected()), "TorchScript .* give the nn.Module"),
    (lambda: torch.jit.trace(fully_connected(), torch.zeros(1, 20)), "TorchScript"),
    (lambda: nn.Sequential(torch.jit.script(fully_connected())), "module '0' .*Script"),
    (lambda: nn.Sequential(nn.LazyLinear(3)), "0.weight is not initialised; run it"),
    (lambda: fully_connected().to("meta"), "meta device: its weights are not there"),
    (with_sparse_weight, "0.weight is sparse"),
    (dynamically_quantised, "quantised"),
    (lambda: nn.Sequential(
        nn.Linear(20, 12), nn.BatchNorm1d(12, track_running_stats=False)),
     "no running statistics, and normalises by those of the batch"),
    (lambda: Net(lambda net, x: {"out": net.l(x)}, l=nn.Linear(20, 3)), "got dict"),
    (lambda: Net(lambda net, x: (net.l(x), x), l=nn.Linear(20, 3)), "got tuple"),
    (lambda: Net(lambda net, x: net.l(x.long().to(x)), l=nn.Linear(20, 3)), "integers"),
])
def test_the_reason_given_is_the_reason(build, words):
    with pytest.raises(TypeError, match=words):
        wcka.chain(build(), (20,))


def plain_convolutions(seed, depth=200):
    torch.manual_seed(seed)
    modules = []
    for i in range(depth):
        modules += [nn.Conv2d(4 if i else 1, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(4 * 36, 3))


def test_two_hundred_convolutions_in_both_precisions():
    networks = [plain_convolutions(0), plain_convolutions(1)]
    values = []
    for dtype in (torch.float32, torch.float64):
        values.append(wcka.wcka(*networks, input_shape=(1, 6, 6), dtype=dtype))
    assert values[0] == pytest.approx(values[1], abs=1e-6) and 0 < values[0] < 1
    assert wcka.wcka(networks[0], networks[0], input_shape=(1, 6, 6)) == (
        pytest.approx(1))


@pytest.mark.parametrize("scale", [1e-6, 1e7])
def test_sixty_convolutions_of_an_extreme_scale(scale):
    networks = [plain_convolutions(seed, 60) for seed in (0, 1)]
    expected = wcka.wcka(*networks, input_shape=(1, 6, 6))
    with torch.no_grad():
        for network in networks:
            for module in network:
                if isinstance(module, nn.Conv2d):
                    module.weight.mul_(scale)
    value = wcka.wcka(*networks, input_shape=(1, 6, 6))
    assert value == pytest.approx(expected, abs=1e-6)


def test_an_overflow_is_called_an_overflow():
    def forward(net, x):
        for _ in range(200):
            x = x + 1e4 * net.l(x)
        return x

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="overflow"):
        wcka.chain(Net(forward, l=nn.Linear(4, 4)), (4,))
