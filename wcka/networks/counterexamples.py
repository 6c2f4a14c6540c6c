"""Ways to set similarity of weights and similarity of functions against each other.

Each function takes a fully connected ReLU network (``architectures.mlp``) and returns a
new one. Either the function stays, for inputs in [0, 1], and the chain changes, or the
other way round, or both stay.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..measures.spelling import nearest
from ..weights.chains import chain, linear_layers
from ..weights.symmetry import redraw_silent_weights


def _copied(model: nn.Sequential) -> tuple[nn.Sequential, list[nn.Linear]]:
    copy = deepcopy(model).double().requires_grad_(False)
    pairs = linear_layers(copy)
    if any(not isinstance(activation, nn.ReLU) for _, activation in pairs[:-1]):
        raise TypeError("wanted a fully connected ReLU network")
    if len(pairs) < 2:
        raise TypeError("wanted at least one hidden layer")
    return copy, [layer for layer, _ in pairs]


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Linear layer x W + b of an (in, out) matrix and a bias."""
    # Without initial weights, whose draw would move the caller's random state
    layer = nn.utils.skip_init(
        nn.Linear, len(weight), len(bias), dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(weight.T)
    layer.bias.copy_(bias)
    return layer


def _replaced(
    model: nn.Sequential, layers: dict[nn.Module, nn.Linear]
) -> nn.Sequential:
    return nn.Sequential(*[layers.get(module, module) for module in model])


def _with_units(model: nn.Sequential, weight: Tensor, bias: Tensor, after: Tensor,
                shift: Tensor | float = 0) -> nn.Sequential:
    """Add units to the first hidden layer.

    They have weights (in, m), biases, and weights (m, next).
    """
    copy, (first, second, *_) = _copied(model)
    return _replaced(
        copy,
        {
            first: _layer(
                torch.cat([first.weight.T, weight], 1), torch.cat([first.bias, bias])
            ),
            second: _layer(torch.cat([second.weight.T, after]), second.bias + shift),
        },
    )


def impersonate(model: nn.Sequential, target: Tensor) -> nn.Sequential:
    """The same function on [0, 1], with the chain of your choice.

    For any z, z = relu(z + c) - c where z + c > 0, and z = relu(z) - relu(-z). So
    t (relu(z) - relu(-z) - relu(z + c) + c) is zero, but the three units' chains add up
    to that of t z. Three such units for each output of the first hidden layer's
    successor that is needed turn the chain into `target`.

    Parameters
    ----------
    model : nn.Sequential
        ReLU network with one hidden layer.
    target : Tensor
        Chain (inputs, outputs).

    Raises
    ------
    TypeError
        For another network.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = impersonate(network, torch.zeros(4, 3))
    >>> bool(torch.allclose(changed(x), network(x)))
    True
    >>> bool(chain(changed).abs().max() < 1e-12)
    True
    """
    _, layers = _copied(model)
    if len(layers) != 2:
        raise TypeError(f"wanted one hidden layer, got {len(layers) - 1}")
    missing = target.double() - chain(model)
    outputs = missing.shape[1]
    reach = missing.abs().sum(0) + 1  # more than |z| can be for inputs in [0, 1]
    eye, nothing = (
        torch.eye(outputs, dtype=torch.float64),
        torch.zeros(outputs).double(),
    )
    return _with_units(
        model,
        torch.cat([missing, -missing, missing], 1),
        torch.cat([nothing, nothing, reach]),
        torch.cat([eye, -eye, -eye]),
        reach,
    )


def add_dead_units(
    model: nn.Sequential, incoming: Tensor, outgoing: Tensor
) -> nn.Sequential:
    """The same function on [0, 1], with dead units of these weights.

    Parameters
    ----------
    model : nn.Sequential
        ReLU network.
    incoming : Tensor
        Weights (inputs, units) into the new units of the first hidden layer; their
        biases are so low that none is ever active.
    outgoing : Tensor
        Weights (units, next) out of them.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = add_dead_units(network, torch.ones(4, 1), torch.ones(1, 3))
    >>> bool(torch.allclose(changed(x), network(x)))
    True
    """
    incoming, outgoing = incoming.double(), outgoing.double()
    return _with_units(model, incoming, -incoming.abs().sum(0) - 1, outgoing)


def deaden(
    model: nn.Sequential, units: int = 8, size: float = 1.0, seed: int = 0
) -> nn.Sequential:
    """The same function on [0, 1], with dead units that count in the chain.

    `size`: standard deviation of their weights.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = deaden(network)
    >>> bool(torch.allclose(changed(x), network(x)))
    True
    >>> bool(torch.allclose(chain(changed), chain(network)))
    False
    """
    _, (first, second, *_) = _copied(model)
    generator = torch.Generator().manual_seed(seed)
    before = size * torch.randn(first.in_features, units, generator=generator).double()
    after = size * torch.randn(units, second.out_features, generator=generator).double()
    return add_dead_units(model, before, after)


def flip(model: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """The same chain, another function: half of the first hidden units change sign.

    Both their incoming and their outgoing weights change sign.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = flip(network)
    >>> bool(torch.allclose(changed(x), network(x)))
    False
    >>> bool(torch.allclose(chain(changed), chain(network)))
    True
    """
    copy, (first, second, *_) = _copied(model)
    order = torch.randperm(
        first.out_features, generator=torch.Generator().manual_seed(seed)
    )
    half = order[:len(order) // 2]
    first.weight[half] *= -1
    first.bias[half] *= -1
    second.weight[:, half] *= -1
    return copy


def drown(model: nn.Sequential, size: float = 1.0, seed: int = 0) -> nn.Sequential:
    """The same chain, another function: random biases in the first hidden layer.

    `size`: their standard deviation, in that of the layer's weights times the root of
    its inputs.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = drown(network)
    >>> bool(torch.allclose(changed(x), network(x)))
    False
    >>> bool(torch.allclose(chain(changed), chain(network)))
    True
    """
    copy, (first, *_) = _copied(model)
    generator = torch.Generator().manual_seed(seed)
    scale = first.weight.std() * first.in_features**0.5
    first.bias.add_(size * scale * torch.randn(len(first.bias), generator=generator))
    return copy


def lift(model: nn.Sequential, size: float = 1.0, seed: int = 0) -> nn.Sequential:
    """The same predictions and probabilities, with one function added to all logits.

    The function is linear.

    `size`: its standard deviation, in that of the last layer's weights.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = lift(network)
    >>> bool(torch.equal(changed(x).argmax(1), network(x).argmax(1)))
    True
    """
    copy, layers = _copied(model)
    last = layers[-1]
    drawn = torch.randn(last.in_features, generator=torch.Generator().manual_seed(seed))
    last.weight += size * last.weight.std() * drawn
    return copy


def scale_logit(model: nn.Sequential, factor: float, output: int = 0) -> nn.Sequential:
    """Another function: one logit is multiplied by a factor.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = scale_logit(network, 2.0, output=1)
    >>> bool(torch.allclose(changed(x)[:, 1], 2 * network(x)[:, 1]))
    True
    """
    copy, layers = _copied(model)
    layers[-1].weight[output] *= factor
    layers[-1].bias[output] *= factor
    return copy


def widen(model: nn.Sequential, copies: int = 2) -> nn.Sequential:
    """The same function and chain, with copies of each first hidden unit.

    Each copy has an equal share of the outgoing weights.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = widen(network)
    >>> bool(torch.allclose(changed(x), network(x)))
    True
    >>> bool(torch.allclose(chain(changed), chain(network)))
    True
    """
    copy, (first, second, *_) = _copied(model)
    return _replaced(copy, {
        first: _layer(first.weight.T.repeat(1, copies), first.bias.repeat(copies)),
        second: _layer(second.weight.T.repeat(copies, 1) / copies, second.bias)})


def deepen(model: nn.Sequential) -> nn.Sequential:
    """The same function and chain, with an additional identity layer.

    It stands after the first hidden layer and has a ReLU of its own.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> from wcka.weights.chains import chain
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = deepen(network)
    >>> bool(torch.allclose(changed(x), network(x)))
    True
    >>> bool(torch.allclose(chain(changed), chain(network)))
    True
    """
    copy, (first, *_) = _copied(model)
    after = list(copy).index(first) + 2
    eye = torch.eye(first.out_features, dtype=torch.float64)
    return nn.Sequential(*copy[:after], _layer(eye, torch.zeros(len(eye))), nn.ReLU(),
                         *copy[after:])


def constructions(
    model: nn.Sequential, other: nn.Sequential, untrained: nn.Sequential, x: Tensor,
    seed: int = 0,
) -> dict[tuple[str, str], nn.Module]:
    """Return a network rebuilt in each way, by what stays and by the way's name.

    Parameters
    ----------
    model : nn.Sequential
        The network.
    other, untrained : nn.Sequential
        Networks of the same architecture, for scale: of another seed, trained and not.
        The chain of the untrained one is what "a random chain" has.
    x : Tensor
        Inputs (n, p); weights of coordinates that are zero in all of them are redrawn.
    seed : int
        Of all draws.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> networks = [mlp((4, 6, 3)).double() for _ in range(3)]
    >>> built = constructions(*networks, torch.rand(5, 4))
    >>> [name for stays, name in built if stays == "chain stays"]
    ['biases drowned', 'signs flipped', 'impersonated']
    """
    dead_units = linear_layers(model)[0][0].out_features // 4 + 1
    function_stays = {
        "border redrawn": redraw_silent_weights(model, x, seed),
        "dead units": deaden(model, dead_units, 0.2, seed),
        "all logits lifted": lift(model, 3.0, seed),
        "a random chain": impersonate(model, chain(untrained)),
        "wider": widen(model),
        "deeper": deepen(model),
    }
    chain_stays = {
        "biases drowned": drown(model, 2.0, seed),
        "signs flipped": flip(model, seed),
        "impersonated": impersonate(untrained, chain(model)),
    }
    for_scale = {"another seed": other, "another seed, untrained": untrained}
    built = {}
    for stays, networks in (("function stays", function_stays),
                            ("chain stays", chain_stays), ("for scale", for_scale)):
        for name, network in networks.items():
            built[stays, name] = network
    return built


# ---------------------------------------------------------------------- by gradients


def move(
    model: nn.Sequential,
    x: Tensor,
    measure: str,
    target: nn.Sequential | None = None,
    steps: int = 300,
    learning_rate: float = 3e-3,
    keep: float = 1.0,
) -> nn.Sequential:
    """Change weights by gradients so that a measure moves while the logits stay.

    Minimises the similarity to the network itself, or with `target` one minus the
    similarity to that network, plus `keep` times the mean squared change of the logits,
    relative to their variance. After Davari et al. (2023), who move CKA by moving
    activations.

    Parameters
    ----------
    model : nn.Sequential
        Fully connected.
    x : Tensor
        Inputs (n, p) where the logits should stay, and CKA sees activations of the last
        hidden layer.
    measure : {"wcka", "cka"}
        What to move.
    target : nn.Sequential, optional
        Network to become similar to.
    steps, learning_rate
        Of Adam.
    keep : float
        Weight of the change of the logits.

    Returns
    -------
    nn.Sequential
        A new network.

    Examples
    --------
    >>> import torch
    >>> from wcka.networks.architectures import mlp
    >>> network, x = mlp((4, 6, 3)).double(), torch.rand(5, 4).double()
    >>> changed = move(network, x, "wcka", steps=2)
    >>> type(changed) is type(network) and changed is not network
    True
    """
    nearest(measure, ("wcka", "cka"), "measure")

    def features_of(network: nn.Sequential) -> Tensor:
        return _weights(network) if measure == "wcka" else network[:-1](x)

    network = deepcopy(model).requires_grad_()
    with torch.no_grad():
        logits = model(x)
        goal = features_of(target or model)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(steps):
        similarity = _cka(features_of(network), goal)
        change = mse_loss(network(x), logits) / logits.var()
        loss = (1 - similarity if target else similarity) + keep * change
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.requires_grad_(False)


def _weights(network: nn.Sequential) -> Tensor:
    return torch.linalg.multi_dot(
        [layer.weight.T for layer, _ in linear_layers(network)]
    )


def _cka(x: Tensor, y: Tensor) -> Tensor:
    """``similarity.cka``, with gradients."""
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
