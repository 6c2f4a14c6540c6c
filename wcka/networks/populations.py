"""Many models of one architecture as one stacked state: forward, activations, save,
load.
"""

import json
import os
from collections.abc import Sequence
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
    """Return the named device; "auto" picks CUDA where there is one.

    Raises
    ------
    ValueError
        For a name that PyTorch does not know, or CUDA where there is none.

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
        Name of a factory in ``networks.architectures`` under "factory", and its
        arguments.
    state : dict of str to Tensor
        Parameters and buffers by their name in the module, each stacked to (N, ...).
    members : DataFrame
        N rows: what is known of each model (seed, epoch, ...).

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
        """Sub-population by a slice, a boolean mask or a sequence of positions."""
        keep = np.atleast_1d(np.arange(len(self))[rows])
        state = {
            name: values[torch.from_numpy(keep)] for name, values in self.state.items()
        }
        return Population(
            self.architecture, state, self.members.iloc[keep].reset_index(drop=True)
        )

    @cached_property
    def network(self) -> nn.Sequential:
        """The architecture as a module without storage (meta device), in eval mode."""
        with torch.device("meta"):
            return build(self.architecture).eval()

    @property
    def depth(self) -> int:
        """Number of linear layers; layer `depth` is the logits."""
        return sum(isinstance(module, nn.Linear) for module in self.network)

    def member(self, i: int) -> nn.Sequential:
        """Model `i` as a module of its own, its weights copied."""
        network = build(self.architecture).eval()
        network.load_state_dict(self._state_of(i))
        return network

    def _state_of(self, i: int) -> dict[str, Tensor]:
        return {name: values[i] for name, values in self.state.items()}

    def to(self, device: str) -> "Population":
        """The same population on another device."""
        target = resolve_device(device)
        state = {name: values.to(target) for name, values in self.state.items()}
        return Population(self.architecture, state, self.members)

    def forward(
        self, x: Tensor, layer: int | None = None, per_model: bool = False
    ) -> Tensor:
        """Logits of every model, or the activations of one layer.

        Parameters
        ----------
        x : Tensor
            Inputs shared by all models (n, ...), or with `per_model` each model's own
            (N, n, ...); float32, on the population's device.
        layer : int, optional
            1 to ``depth``: the output of that linear layer after its activation.
            ``depth``, the default, is the logits.
        per_model : bool
            Whether each model has its own inputs.

        Returns
        -------
        Tensor
            (N, n, units).

        Raises
        ------
        ValueError
            For a layer outside 1 to ``depth``.
        """
        stop = self.position(layer)
        modules = list(self.network._modules.items())[:stop]
        if not all(_is_stacked(module) for _, module in modules):
            # Convolutions gain nothing from it, and others may not mean the last axis.
            outputs = []
            for i in range(len(self)):
                outputs.append(self._alone(i, stop, x[i] if per_model else x))
            return torch.stack(outputs)  # (networks, n, units)
        for name, module in modules:
            if isinstance(module, nn.Linear):
                weight = self.state[f"{name}.weight"]
                bias = self.state.get(f"{name}.bias")
                x = _linear(x, per_model, weight, bias)  # (networks, n, units)
                per_model = True
            elif isinstance(module, nn.Flatten):
                x = x.flatten(2 if per_model else 1)
            else:  # acts on each number alone
                x = module(x)
        return x

    def position(self, layer: int | None) -> int:
        """Number of modules up to a linear layer and its activation; all for None."""
        layer = self.depth if layer is None else layer
        if not 1 <= layer <= self.depth:
            raise ValueError(f"layer: wanted 1 to {self.depth}, got {layer}")
        ends = []  # where the next linear layer begins, layer by layer
        for i, module in enumerate(self.network):
            if isinstance(module, nn.Linear):
                ends.append(i)
        return [*ends, len(self.network)][layer]

    def _alone(self, i: int, stop: int, x: Tensor) -> Tensor:
        """Output of the first `stop` modules of one model."""
        modules = self.network[:stop]
        state = {}
        for name in modules.state_dict():
            state[name] = _channels_last(self.state[name][i])
        return functional_call(modules, state, (x,))

    @torch.no_grad()
    def activations(self, x: Tensor, layer: int, batch: int = 1024) -> Tensor:
        """``forward`` without gradients, in batches of inputs: (N, n, units) in
        float32.
        """
        return torch.cat([self.forward(part, layer) for part in x.split(batch)], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        """Predicted class of every input by every model, (N, n)."""
        return self.activations(x, self.depth).argmax(-1).cpu()

    def accuracy(self, x: Tensor, labels) -> np.ndarray:
        """Fraction of right predictions of every model, (N,)."""
        return (self.predict(x) == torch.as_tensor(labels)).double().mean(1).numpy()

    def save(self, path: str | Path) -> None:
        """Write the population to one safetensors file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"architecture": json.dumps(self.architecture),
                    "members": self.members.to_json(orient="table", index=False),
                    "attrs": json.dumps(self.members.attrs)}
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            tensors = {name: values.contiguous() for name, values in self.state.items()}
            save_file(tensors, partial, metadata)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "Population":
        """Read a population that ``save`` wrote."""
        with safe_open(path, "pt", device=str(resolve_device(device))) as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}
        members = pd.DataFrame(json.loads(metadata["members"])["data"])
        members.attrs = json.loads(metadata["attrs"])
        return cls(json.loads(metadata["architecture"]), state, members)


@dataclass(frozen=True, eq=False)
class Transfer(Stacked):
    """Heads behind one frozen trunk that they share, as attacks on images see them.

    Attributes
    ----------
    trunk : nn.Module
        Images (n, ...) to features (n, units).
    heads : Population
        Its inputs are those features.

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
        """The trunk's outputs: (n, units), or (N, n, units) for each model's own
        images.
        """
        return (
            self.trunk(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            if per_model
            else self.trunk(x)
        )

    def forward(self, x: Tensor, per_model: bool = False) -> Tensor:
        """Logits of every model (N, n, classes), as ``Population.forward``."""
        return self.heads.forward(self.features(x, per_model), per_model=per_model)


def _is_stacked(module: nn.Module) -> bool:
    """Whether a layer of all models can be one batched operation."""
    if type(module) is nn.Flatten:
        return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in (nn.Linear, *ACTIVATIONS.values())


@torch.no_grad()
def extract(trunk: nn.Module, x: Tensor, batch: int = 64) -> Tensor:
    """Features (n, units) of images by a trunk, in batches that fit the processor's
    caches.

    Examples
    --------
    >>> extract(nn.Linear(4, 8), torch.zeros(100, 4)).shape
    torch.Size([100, 8])
    """
    return torch.cat([trunk(part) for part in x.split(batch)])


def build(architecture: dict) -> nn.Sequential:
    """Build one module from an architecture, ``{"factory": "mlp", "widths": [...],
    ...}``.

    Examples
    --------
    >>> len(build({"factory": "mlp", "widths": [4, 8, 3]}))
    4
    """
    arguments = dict(architecture)
    return getattr(architectures, arguments.pop("factory"))(**arguments)


def initialise(
    architecture: dict, seeds: Sequence[int], device: str = "cpu"
) -> Population:
    """Initialise a population exactly as PyTorch would initialise N separate modules.

    Parameters
    ----------
    architecture : dict
        As in ``Population``.
    seeds : sequence of int
        One seed a model: model i is what ``torch.manual_seed(seeds[i])`` and the
        factory give.
    device : str
        Where to put the stacked state.

    Returns
    -------
    Population
        Its members have a column "seed".

    Raises
    ------
    ValueError
        For no seeds.

    Examples
    --------
    >>> population = initialise({"factory": "mlp", "widths": [4, 3]}, seeds=[7])
    >>> population.members.seed.tolist()
    [7]
    """
    if not len(seeds):
        raise ValueError("seeds: wanted at least one")
    modules = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            modules.append(build(architecture))
    parameters, buffers = stack_module_state(modules)
    state = {
        name: values.detach() for name, values in {**parameters, **buffers}.items()
    }
    return Population(architecture, state, pd.DataFrame({"seed": list(seeds)})).to(
        device
    )


def chains(population: Population, bias=False, layer: int | None = None,
           input_shape: Sequence[int] = (28, 28)) -> Tensor:
    """Chains of all members of a population at once: (N, inputs, outputs), as
    ``chain``.

    With `layer`, from 1 to the population's depth, the chains of the networks cut short
    after that linear layer. `input_shape` matters to networks that are not fully
    connected.

    Examples
    --------
    >>> population = initialise({"factory": "mlp", "widths": [4, 8, 3]}, seeds=[0, 1])
    >>> chains(population).shape
    torch.Size([2, 4, 3])
    """
    nested = any([*module.children()] for module in population.network)
    if nested or unreadable_modules(population.network):
        stop = population.position(layer)
        separate = []
        for i in range(len(population)):
            separate.append(chain(population.member(i)[:stop], input_shape, bias))
        return torch.stack(separate)  # (networks, inputs, outputs)
    matrices, biases = [], []
    for name, module in population.network._modules.items():
        if isinstance(module, nn.Linear):
            # (networks, in, out)
            matrices.append(population.state[f"{name}.weight"].mT)
            biases.append(population.state.get(f"{name}.bias"))
    return product(matrices[:layer], biases[:layer] if bias else None)


def _channels_last(weight: Tensor) -> Tensor:
    """Kernels in the order in memory that makes convolutions on a CPU a third faster.
    """
    # Not contiguous(): kernels of one channel are in both orders at once, and only a
    # copy's strides tell which one is meant.
    return (
        weight.clone(memory_format=torch.channels_last) if weight.ndim == 4 else weight
    )


def _linear(x: Tensor, per_model: bool, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every model's linear layer: (n, in) shared or (N, n, in) -> (N, n, out)."""
    if per_model:
        return (
            x @ weight.mT
            if bias is None
            else torch.baddbmm(bias[:, None], x, weight.mT)
        )
    # Shared inputs: all models' weights side by side make one matrix product.
    flat = nn.functional.linear(
        x, weight.flatten(0, 1), None if bias is None else bias.flatten()
    )
    return flat.unflatten(1, weight.shape[:2]).transpose(0, 1)
