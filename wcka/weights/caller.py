"""Leave the caller's network as it is: its mode, buffers, hooks and random state.

Chains and attacks run a network that is not theirs. What a run may change is taken down
before and put back after: whether modules are in training mode, buffers such as running
statistics, what forward hooks have stored, and torch's random state.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)

# The random state, the stance of torch.compile and the function that checkpoints call
# belong to the whole process: threads run networks one after another.
_RUNNING = RLock()
# How deep in nested containers a hook's memory is followed.
_DEPTH = 4
# Tensors that a hook may add to in place; larger ones would cost too much to keep.
_LARGEST = 2**22


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Run a network in eval mode, and put back all that the run changes.

    Parameters
    ----------
    model : object
        An ``nn.Module``; of anything else only the random state is kept.

    Examples
    --------
    >>> network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    >>> with untouched(network):
    ...     network.training, bool((network(torch.ones(2, 3)) == 0).any())
    (False, False)
    >>> network.training, int(network[0].num_batches_tracked)
    (True, 0)
    """
    with _RUNNING, _put_back(model):
        yield


@contextmanager
def _put_back(model: Any) -> Iterator[None]:
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    buffers = []
    for module in modules:
        for buffer in module._buffers.values():
            if buffer is not None and not buffer.is_meta:
                buffers.append((buffer, buffer.detach().clone()))
    memory = _Memory()
    for module in modules:
        for hook in _hooks(module):
            memory.keep(hook)
    with torch.random.fork_rng(devices=[]):
        # A network that draws at all times, as dropout with training=True, draws alike
        # in every run.
        torch.default_generator.manual_seed(0)
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes):
                module.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
            memory.put_back()


def copied(model: _Network) -> _Network:
    """Return a copy of a network, whatever tensors it holds as attributes.

    Pruning and normalisation of weights leave tensors in modules that are results of a
    computation, and so do networks that store activations. ``deepcopy`` refuses these;
    the copy gets their values.

    Raises
    ------
    TypeError
        For a network that cannot be copied.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> layer.last = layer(torch.ones(1, 2))
    >>> copied(layer).last.requires_grad
    False
    """
    memo: dict[int, Any] = {}
    inner = set(map(id, model.modules()))
    for module in model.modules():
        # Hooks of the caller's are shared: what they store belongs to no network.
        for hook in _hooks(module):
            if id(getattr(hook, "__self__", None)) not in inner:
                memo[id(hook)] = hook
        for values in _tensors_in(vars(module), 3):
            if not values.is_leaf:
                memo[id(values)] = values.detach().clone()
    try:
        return deepcopy(model, memo)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise TypeError(
            f"no chain for {type(model).__name__}: it cannot be copied ({error})"
        ) from error


def _tensors_in(value: Any, depth: int) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for entry in list(value.values()):
            yield from _tensors_in(entry, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors_in(entry, depth - 1)


def _hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """List the functions that run before and after a module."""
    every = torch.nn.modules.module
    return [
        *module._forward_hooks.values(), *module._forward_pre_hooks.values(),
        *every._global_forward_hooks.values(),
        *every._global_forward_pre_hooks.values()]


class _Memory:
    """What functions can write to, and what it held when it was taken down."""

    def __init__(self) -> None:
        self.visited: set[int] = set()
        self.actions: list[Callable[[], None]] = []

    def keep(self, value: Any, depth: int = _DEPTH) -> None:
        """Take down the contents of all that can be reached from a value."""
        if id(value) in self.visited or depth < 0 or isinstance(value, _LEFT_ALONE):
            return
        self.visited.add(id(value))
        if isinstance(value, types.FunctionType):
            self.keep_function(value, depth)
        elif isinstance(value, types.MethodType):
            self.keep(value.__func__, depth)
            self.keep(value.__self__, depth)
        elif isinstance(value, functools.partial):
            for entry in (value.func, *value.args, *value.keywords.values()):
                self.keep(entry, depth)
        elif isinstance(value, Tensor):
            self.keep_tensor(value)
        elif isinstance(value, dict):
            self.keep_dict(value, depth)
        elif isinstance(value, list):
            self.actions.append(functools.partial(_refill_list, value, list(value)))
            for entry in list(value):
                self.keep(entry, depth - 1)
        elif isinstance(value, set):
            self.actions.append(functools.partial(_refill_set, value, set(value)))
        elif isinstance(getattr(value, "__dict__", None), dict):
            self.keep_dict(vars(value), depth)

    def keep_function(self, function: types.FunctionType, depth: int) -> None:
        """Take down what a function's closure and the globals that it names hold."""
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            self.actions.append(functools.partial(_refill_cell, cell, content))
            self.keep(content, depth - 1)
        for default in function.__defaults__ or ():
            self.keep(default, depth - 1)
        space = function.__globals__
        for name in _global_names(function.__code__):
            if name in space:
                content = space[name]
                self.actions.append(
                    functools.partial(space.__setitem__, name, content))
                self.keep(content, depth - 1)
            else:
                self.actions.append(functools.partial(_forget, space, name))

    def keep_tensor(self, values: Tensor) -> None:
        """Take down a tensor's numbers, since a hook may add to them in place."""
        if values.numel() <= _LARGEST and not values.is_meta:
            before = values.detach().clone()
            version = values._version if not values.is_inference() else -1
            self.actions.append(
                functools.partial(_refill_tensor, values, before, version))

    def keep_dict(self, entries: dict[Any, Any], depth: int) -> None:
        self.actions.append(functools.partial(_refill_dict, entries, dict(entries)))
        for entry in list(entries.values()):
            self.keep(entry, depth - 1)

    def put_back(self) -> None:
        """Put back everything that was taken down."""
        for action in self.actions:
            action()


# Nothing that a hook stores is kept in these.
_LEFT_ALONE = (types.ModuleType, type, types.BuiltinFunctionType, str, bytes, int,
               float, nn.Parameter)


def _global_names(code: types.CodeType) -> set[str]:
    """Return the names that a function, and functions within it, may look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _refill_dict(entries: dict[Any, Any], before: dict[Any, Any]) -> None:
    same = len(entries) == len(before) and all(
        key in entries and entries[key] is value for key, value in before.items())
    if not same:
        entries.clear()
        entries.update(before)


def _refill_list(entries: list[Any], before: list[Any]) -> None:
    entries[:] = before


def _refill_set(entries: set[Any], before: set[Any]) -> None:
    entries.clear()
    entries.update(before)


def _refill_cell(cell: types.CellType, before: Any) -> None:
    cell.cell_contents = before


def _refill_tensor(values: Tensor, before: Tensor, version: int) -> None:
    if values.is_inference() or values._version != version:
        with torch.no_grad():
            values.copy_(before)


def _forget(space: dict[str, Any], name: str) -> None:
    space.pop(name, None)
