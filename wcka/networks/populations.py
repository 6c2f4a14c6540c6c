"""Populations: many models of one architecture, stacked into one state.

A population computes logits and activations of all its models in batched products, and
is saved to one file and loaded from it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from ..weights.chains import chain, product, unreadable_modules
from ..weights.layers import ACTIVATIONS
from . import architectures
from .attacks import Stacked


def resolve_device(device: str) -> torch.device:
    """Return the named device; "auto" is CUDA if available, otherwise the CPU.

    Raises
    ------
    ValueError
        For a name that PyTorch does not know, or for CUDA where there is none.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: wanted cpu, cuda or auto, got {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: there is no CUDA here, got {device!r}")
    return resolved


@dataclass(frozen=True, eq=False)
class Population(Stacked):
    """N models of one architecture.

    Attributes
    ----------
    architecture : dict
        The name of a factory in ``networks.architectures`` under "factory", and the
        arguments of that factory.
    state : dict of str to Tensor
        Parameters and buffers under their names in the module, each stacked to
        (N, ...).
    members : DataFrame
        One row per model with what is known of it (seed, epoch, ...).

    Examples
    --------
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> len(population), population.depth, population.state["1.weight"].shape
    (2, 2, torch.Size([2, 8, 4]))
    """

    architecture: dict
    state: dict[str, Tensor]
    members: pd.DataFrame

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, rows) -> "Population":
        """Return the sub-population of a slice, a boolean mask or a list of positions.

        Examples
        --------
        >>> architecture = {"factory": "mlp", "widths": [4, 3]}
        >>> population = initialise(architecture, seeds=[5, 6, 7])
        >>> population[[2, 0]].members.seed.tolist()
        [7, 5]
        """
        positions = np.atleast_1d(np.arange(len(self))[rows])
        index = torch.from_numpy(positions)
        state = {}
        for name, values in self.state.items():
            state[name] = values[index]
        members = self.members.iloc[positions].reset_index(drop=True)
        return Population(self.architecture, state, members)

    @cached_property
    def network(self) -> nn.Sequential:
        """The architecture as a module without storage (meta device), in eval mode."""
        with torch.device("meta"):
            return build(self.architecture).eval()

    @property
    def depth(self) -> int:
        """Number of linear layers; the output of layer ``depth`` is the logits."""
        return sum(isinstance(module, nn.Linear) for module in self.network)

    def member(self, i: int) -> nn.Sequential:
        """Return model `i` as a separate module with a copy of its weights."""
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays
            network = build(self.architecture).eval()
        network.load_state_dict(self._state_of(i))
        return network

    def _state_of(self, i: int) -> dict[str, Tensor]:
        """Return the parameters and buffers of model `i`."""
        state = {}
        for name, values in self.state.items():
            state[name] = values[i]
        return state

    def to(self, device: str) -> "Population":
        """Return the same population on another device."""
        target = resolve_device(device)
        state = {}
        for name, values in self.state.items():
            state[name] = values.to(target)
        return Population(self.architecture, state, self.members)

    def forward(
        self, x: Tensor, layer: int | None = None, per_model: bool = False
    ) -> Tensor:
        """Return the logits of every model, or the activations of one layer.

        Parameters
        ----------
        x : Tensor
            Float32, on the population's device. Inputs (n, ...) that all models share
            or, with `per_model`, separate inputs (N, n, ...) for each model.
        layer : int, optional
            A number from 1 to ``depth``: return the output of that linear layer after
            its activation. The default is ``depth``, the logits.
        per_model : bool
            Whether each model has separate inputs.

        Returns
        -------
        Tensor
            (N, n, units).

        Raises
        ------
        ValueError
            For a layer outside 1 to ``depth``.

        Examples
        --------
        >>> architecture = {"factory": "mlp", "widths": [4, 8, 3]}
        >>> population = initialise(architecture, seeds=[0, 1])
        >>> population.forward(torch.zeros(5, 4), layer=1).shape
        torch.Size([2, 5, 8])
        """
        stop = self.position(layer)
        modules = list(self.network._modules.items())[:stop]
        if not all(_is_stacked(module) for _, module in modules):
            # Convolutions are no faster in a batch of models, and a module of unknown
            # kind may not act on the last axis. Models run one after another.
            outputs = []
            for i in range(len(self)):
                outputs.append(self._forward_of(i, stop, x[i] if per_model else x))
            return torch.stack(outputs)  # (networks, n, units)
        for name, module in modules:
            if isinstance(module, nn.Linear):
                weight = self.state[f"{name}.weight"]
                bias = self.state.get(f"{name}.bias")
                x = _linear(x, per_model, weight, bias)  # (networks, n, units)
                per_model = True
            elif isinstance(module, nn.Flatten):
                x = x.flatten(2 if per_model else 1)
            else:  # an activation: it acts on each number separately
                x = module(x)
        return x

    def input_gradient(self, x: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the gradient of every network's loss by its own images (N, n, ...).

        See ``Stacked.input_gradient``.
        """
        if not self.is_rectified:
            return super().input_gradient(x, slope)
        logits, records = self._recorded(x, per_model=True)
        gradient = slope(logits)  # (networks, n, classes)
        for name, values in reversed(records):
            if name:
                gradient = gradient @ self.state[f"{name}.weight"]  # (networks, n, in)
            else:
                gradient = gradient.mul_(values.sign())
        return gradient.view(x.shape)

    def weight_gradients(self, x: Tensor, slope: Callable[[Tensor], Tensor],
                         per_model: bool, out: dict[str, Tensor]) -> None:
        """Write the gradients of every network's loss by its own weights.

        Only for a population that ``is_rectified``.

        Parameters
        ----------
        x, per_model
            As in ``forward``.
        slope : function
            See ``input_gradient``.
        out : dict of str to Tensor
            Where to write: contiguous tensors (N, ...), one for each of the state's.

        Examples
        --------
        >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[0, 1])
        >>> out = {name: values.clone() for name, values in population.state.items()}
        >>> ones = torch.ones(5, 4)
        >>> population.weight_gradients(ones, torch.ones_like, False, out)
        >>> out["1.weight"].unique(), out["1.bias"].unique()
        (tensor([5.]), tensor([5.]))
        """
        logits, records = self._recorded(x, per_model)
        gradient = slope(logits)  # (networks, n, classes)
        for i, (name, values) in reversed(list(enumerate(records))):
            if not name:
                gradient = gradient.mul_(values.sign())
                continue
            _outer(gradient, values, out[f"{name}.weight"])
            if f"{name}.bias" in out:
                torch.sum(gradient, 1, out=out[f"{name}.bias"])
            if i:
                gradient = gradient @ self.state[f"{name}.weight"]  # (networks, n, in)

    @cached_property
    def is_rectified(self) -> bool:
        """Whether all layers are linear, ReLUs or flatten images.

        Such networks are differentiated by hand, without a graph.
        """
        return all(map(_is_rectified, self.network))

    def _recorded(self, x: Tensor,
                  per_model: bool) -> tuple[Tensor, list[tuple[str, Tensor]]]:
        """Return logits (N, n, classes), and what the way back needs of each layer.

        That is the name and the inputs of a linear layer, and the outputs of a ReLU
        under no name.
        """
        records = []
        for name, module in self.network._modules.items():
            if isinstance(module, nn.Linear):
                records.append((name, x))
                weight = self.state[f"{name}.weight"]
                bias = self.state.get(f"{name}.bias")
                x = _linear(x, per_model, weight, bias)  # (networks, n, out)
                per_model = True
            elif isinstance(module, nn.ReLU):
                x = x.relu()
                records.append(("", x))
            else:
                x = x.flatten(2 if per_model else 1)
        return x, records

    def position(self, layer: int | None) -> int:
        """Return the number of modules up to a linear layer and its activation.

        With None, the number of all modules.
        """
        layer = self.depth if layer is None else layer
        if not 1 <= layer <= self.depth:
            raise ValueError(f"layer: wanted 1 to {self.depth}, got {layer}")
        linear_positions = []
        for i, module in enumerate(self.network):
            if isinstance(module, nn.Linear):
                linear_positions.append(i)
        # A layer ends where the next linear layer begins. The first linear layer has
        # position 0 in this list, so the entry at `layer` is that of its successor.
        return [*linear_positions, len(self.network)][layer]

    def _forward_of(self, i: int, stop: int, x: Tensor) -> Tensor:
        """Return the output of the first `stop` modules of model `i`."""
        modules = self.network[:stop]
        state = {}
        for name in modules.state_dict():
            state[name] = _channels_last(self.state[name][i])
        return functional_call(modules, state, (x,))

    @torch.no_grad()
    def activations(self, x: Tensor, layer: int, batch: int = 1024) -> Tensor:
        """Return the activations of one layer, without gradients, batch by batch.

        Parameters
        ----------
        x : Tensor
            Inputs (n, ...) that all models share.
        layer : int
            See ``forward``.
        batch : int
            Number of inputs in a batch.

        Returns
        -------
        Tensor
            (N, n, units), float32.
        """
        parts = []
        for inputs in x.split(batch):
            parts.append(self.forward(inputs, layer))  # (networks, batch, units)
        return torch.cat(parts, dim=1)  # (networks, n, units)

    def predict(self, x: Tensor) -> Tensor:
        """Return every model's predicted class of every input, (N, n)."""
        return self.activations(x, self.depth).argmax(-1).cpu()

    def accuracy(self, x: Tensor, labels) -> np.ndarray:
        """Return every model's share of correct predictions, (N,)."""
        return (self.predict(x) == torch.as_tensor(labels)).double().mean(1).numpy()

    def save(self, path: str | Path, key: str = "") -> None:
        """Write the population to one safetensors file, atomically.

        Parameters
        ----------
        path : str or Path
        key : str
            What the population was computed from; see ``load``.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "architecture": json.dumps(self.architecture),
            # Not by to_json, which rounds numbers to 15 digits or fewer.
            "members": json.dumps(self.members.to_dict("list")),
            "attrs": json.dumps(self.members.attrs),
            "key": key,
        }
        tensors = {}
        for name, values in self.state.items():
            tensors[name] = values.contiguous()
        # A process that is killed while it writes leaves no half-written population.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            write_tensors(partial, tensors, metadata)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(
        cls, path: str | Path, device: str = "cpu", key: str = ""
    ) -> "Population":
        """Read a population that ``save`` wrote, and check that it is intact.

        Parameters
        ----------
        path : str or Path
        device : str
            See ``resolve_device``.
        key : str
            The key that the population was saved with.

        Raises
        ------
        ValueError
            If the file was changed since, or was saved with another key.
        """
        state, metadata = read_tensors(path, key, device)
        members = pd.DataFrame(json.loads(metadata["members"]))
        members.attrs = json.loads(metadata["attrs"])
        return cls(json.loads(metadata["architecture"]), state, members)


def write_tensors(
    path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file for ``read_tensors``, with a digest in its metadata.

    Parameters
    ----------
    path : str or Path
    tensors : dict of str to Tensor
        Contiguous.
    metadata : dict of str to str
        With a "key", which readers must know.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.safetensors"
    ...     write_tensors(path, {"values": torch.arange(3)}, {"key": "squares"})
    ...     tensors, _ = read_tensors(path, "squares")
    >>> tensors["values"].tolist()
    [0, 1, 2]
    """
    save_file(tensors, path, {**metadata, "digest": digest_of(tensors, metadata)})


def read_tensors(
    path: str | Path, key: str, device: str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file whose metadata hold a key and a digest, and check both.

    Parameters
    ----------
    path : str or Path
    key : str
        The expected value of "key" in the metadata.
    device : str
        See ``resolve_device``.

    Returns
    -------
    tensors : dict of str to Tensor
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If the file has another key or another digest than its content, or none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.safetensors"
    ...     write_tensors(path, {"values": torch.arange(3)}, {"key": "squares"})
    ...     read_tensors(path, "cubes")
    Traceback (most recent call last):
    ValueError: it holds another result
    """
    tensors = {}
    with safe_open(path, "pt", device=str(resolve_device(device))) as file:
        metadata = file.metadata() or {}
        for name in file.keys():
            tensors[name] = file.get_tensor(name)
    if metadata.get("digest") != digest_of(tensors, metadata):
        raise ValueError("its content and its digest differ")
    if metadata.get("key") != key:
        raise ValueError("it holds another result")
    return tensors, metadata


def digest_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Return a digest of tensors and of their metadata, but for "digest" itself.

    Examples
    --------
    >>> tensors = {"values": torch.arange(3)}
    >>> digest_of(tensors, {}) == digest_of(tensors, {"key": "squares"})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(metadata.keys() - {"digest"}):
        digest.update(json.dumps([name, metadata[name]]).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        description = [name, str(values.dtype), list(values.shape)]
        digest.update(json.dumps(description).encode())
        # As bytes, since NumPy does not have all dtypes of PyTorch.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Transfer(Stacked):
    """N heads behind one frozen trunk, attacked on the images that the trunk sees.

    Attributes
    ----------
    trunk : nn.Module
        A map from images (n, ...) to features (n, units).
    heads : Population
        Networks whose inputs are those features.

    Examples
    --------
    >>> heads = initialise({"factory": "mlp", "widths": [8, 3]}, seeds=[0, 1])
    >>> transfer = Transfer(nn.Linear(4, 8), heads)
    >>> transfer.forward(torch.zeros(5, 4)).shape
    torch.Size([2, 5, 3])
    """

    trunk: nn.Module
    heads: Population

    def __len__(self) -> int:
        return len(self.heads)

    def features(self, x: Tensor, per_model: bool = False) -> Tensor:
        """Return the trunk's outputs.

        They have the shape (n, units) for images (n, ...) that all heads share and,
        with `per_model`, (N, n, units) for separate images (N, n, ...) for each head.
        """
        if not per_model:
            return self.trunk(x)
        # All heads have the same trunk, so their images can pass it in one batch.
        features = self.trunk(x.flatten(0, 1))  # (networks * n, units)
        return features.unflatten(0, x.shape[:2])  # (networks, n, units)

    def forward(self, x: Tensor, per_model: bool = False) -> Tensor:
        """Return the logits (N, n, classes) of every head.

        See ``Population.forward``.
        """
        return self.heads.forward(self.features(x, per_model), per_model=per_model)


@torch.no_grad()
def extract(trunk: nn.Module, x: Tensor, batch: int = 64) -> Tensor:
    """Return a trunk's features (n, units) of images.

    The images are processed in batches that fit the processor's caches.

    Examples
    --------
    >>> extract(nn.Linear(4, 8), torch.zeros(100, 4)).shape
    torch.Size([100, 8])
    """
    parts = []
    for images in x.split(batch):
        parts.append(trunk(images))  # (batch, units)
    return torch.cat(parts)  # (n, units)


def build(architecture: dict) -> nn.Sequential:
    """Build one module from an architecture; see ``Population`` for its keys.

    Examples
    --------
    >>> len(build({"factory": "mlp", "widths": [4, 8, 3]}))
    4
    """
    arguments = dict(architecture)
    factory = getattr(architectures, arguments.pop("factory"))
    return factory(**arguments)


def seed_of(architecture: dict, seed: int) -> int:
    """Return the seed of PyTorch for one network, from its architecture and its seed.

    Examples
    --------
    >>> narrow = {"factory": "mlp", "widths": [4, 3]}
    >>> wide = {"factory": "mlp", "widths": [8, 3]}
    >>> seed_of(narrow, 0) == seed_of(dict(narrow), 0) != seed_of(wide, 0)
    True
    """
    text = json.dumps([architecture, int(seed)], sort_keys=True, default=list)
    # PyTorch takes seeds of up to 64 bits, one of which is the sign.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def initialise(
    architecture: dict, seeds: Sequence[int], device: str = "cpu"
) -> Population:
    """Initialise a population as PyTorch initialises N separate modules.

    Networks of one seed and different architectures have independent weights. (PyTorch
    draws the same numbers for one seed, so that layers of the same shape, such as the
    first layers of networks of equal width, would have equal weights.)

    Parameters
    ----------
    architecture : dict
        See ``Population``.
    seeds : sequence of int
        One seed per model. Model i is the module that the factory returns after
        ``torch.manual_seed(seed_of(architecture, seeds[i]))``.
    device : str
        Device of the stacked state.

    Returns
    -------
    Population
        Its members have one column, "seed".

    Raises
    ------
    ValueError
        If there are no seeds.

    Examples
    --------
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[7])
    >>> population.members.seed.tolist()
    [7]
    """
    if not len(seeds):
        raise ValueError("seeds: wanted at least one")
    modules = []
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays
        for seed in seeds:
            torch.manual_seed(seed_of(architecture, seed))
            modules.append(build(architecture))
    parameters, buffers = stack_module_state(modules)
    state = {}
    for name, values in {**parameters, **buffers}.items():
        state[name] = values.detach()  # (networks, ...)
    members = pd.DataFrame({"seed": list(seeds)})
    return Population(architecture, state, members).to(device)


def chains(population: Population, bias=False, layer: int | None = None,
           input_shape: Sequence[int] = (28, 28)) -> Tensor:
    """Return the chains of all members of a population.

    Parameters
    ----------
    population : Population
        N models.
    bias : bool
        Whether the chain contains the biases; see ``wcka.chain``.
    layer : int, optional
        A number from 1 to the population's depth: the chains end with that linear
        layer. By default they end with the logits.
    input_shape : sequence of int
        Shape of one input; used only for networks that are not fully connected.

    Returns
    -------
    Tensor
        (N, inputs, outputs).

    Examples
    --------
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> chains(population).shape
    torch.Size([2, 4, 3])
    """
    nested = any([*module.children()] for module in population.network)
    if nested or unreadable_modules(population.network):
        # The chain of such a network is not a product of its linear layers' weights.
        stop = population.position(layer)
        separate_chains = []
        for i in range(len(population)):
            network = population.member(i)[:stop]
            separate_chains.append(chain(network, input_shape, bias))
        return torch.stack(separate_chains)  # (networks, inputs, outputs)
    matrices = []
    biases = []
    for name, module in population.network._modules.items():
        if isinstance(module, nn.Linear):
            weight = population.state[f"{name}.weight"]  # (networks, out, in)
            matrices.append(weight.mT)  # (networks, in, out)
            biases.append(population.state.get(f"{name}.bias"))
    return product(matrices[:layer], biases[:layer] if bias else None)


def _is_stacked(module: nn.Module) -> bool:
    """Tell whether a layer of all models can be one batched operation."""
    if type(module) is nn.Flatten:
        return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in (nn.Linear, *ACTIVATIONS.values())


def _is_rectified(module: nn.Module) -> bool:
    """Tell whether a layer is linear, a ReLU or a flattening of images."""
    return _is_stacked(module) and isinstance(module, (nn.Linear, nn.ReLU, nn.Flatten))


def _channels_last(weight: Tensor) -> Tensor:
    """Store kernels with their channels last; other weights are returned unchanged.

    Convolutions on a CPU are a third faster with this order in memory.
    """
    if weight.ndim != 4:
        return weight
    # contiguous() would not do: kernels of one channel are in both orders at once, and
    # only a copy's strides tell which order is meant.
    return weight.clone(memory_format=torch.channels_last)


def _linear(x: Tensor, per_model: bool, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply every model's linear layer to shared or separate inputs.

    Shared inputs are (n, in), separate inputs (N, n, in); outputs are (N, n, out).
    """
    if per_model:
        if bias is None:
            return x @ weight.mT  # (networks, n, out)
        return torch.baddbmm(bias[:, None], x, weight.mT)  # (networks, n, out)
    # Shared inputs: all models' weights side by side make one matrix product.
    rows = weight.flatten(0, 1)  # (networks * out, in)
    row_biases = None if bias is None else bias.flatten()  # (networks * out,)
    outputs = nn.functional.linear(x, rows, row_biases)  # (n, networks * out)
    return outputs.unflatten(1, weight.shape[:2]).transpose(0, 1)  # (networks, n, out)


def _outer(gradient: Tensor, x: Tensor, out: Tensor) -> None:
    """Write the gradients (N, out, in) of linear layers' weights.

    `gradient` is that of the outputs (N, n, out); inputs are (n, in) where all models
    share them, else (N, n, in).
    """
    if x.ndim == 3:
        torch.bmm(gradient.mT, x, out=out)
    else:
        rows = gradient.mT.flatten(0, 1)  # (networks * out, n)
        torch.mm(rows, x, out=out.flatten(0, 1))
