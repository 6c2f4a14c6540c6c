"""Linear skeleton of a network: the identity in place of every activation.

The paper's chain W1 W2 ... Wl is the Jacobian of a fully connected network without its
activations. Read so, any network has a chain: run it with a replacement for each
function that is not linear (see ``replacements``), check that what remains is affine,
and take the Jacobian by vector-Jacobian products, one per output. The network's own
code runs, so nothing need be known about how its layers are wired.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from ..measures.spelling import nearest
from ..measures.validation import WITHOUT_FLOAT64, special_kind
from .caller import copied, untouched
from .layers import Gaussian, Square
from .messages import chosen
from .replacements import FREEZE_HINTS, Call, LinearMode, RecordingMode, TracingMode
from .replacements import FROZEN as FROZEN
from .replacements import PASSED as PASSED
from .replacements import POOLED as POOLED
from .replacements import NotLinear as NotLinear


class OutOfRange(ValueError):
    """A chain's numbers are too large or too small for floats.

    Examples
    --------
    >>> isinstance(OutOfRange("too large"), ValueError)
    True
    """


def jacobian(
    model: nn.Module, input_shape: Sequence[int], freeze: Sequence[str] = (),
    reference: Tensor | None = None, layer: str | None = None, chunk: int = 32,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return the Jacobian of a network's linear skeleton, and its output at zero.

    Parameters
    ----------
    model : nn.Module
        A network from one input tensor to one output tensor; taken in eval mode, and
        left untouched.
    input_shape : sequence of int
        Shape of one input, without the batch.
    freeze, reference
        See ``wcka.chain``.
    layer : str, optional
        Name of a submodule: the Jacobian of its output instead, averaged over tokens
        (batch, tokens, units) or places (batch, channels, height, width).
    chunk : int
        Number of outputs whose products run at once; memory grows with it.
    dtype : torch.dtype
        Precision of the computation. Where numbers leave the range of float32, or the
        network's own code the precision, the other one is taken.

    Returns
    -------
    J, offset : Tensor
        (inputs, outputs) and (outputs,): the skeleton maps a flat input x to
        x @ J + offset.

    Raises
    ------
    NotLinear
        If a function is neither linear nor replaced; the message names it and the
        module that called it.
    TypeError, ValueError
        For an unknown name, an input that the network does not take, or an output that
        is not one tensor; for numbers out of the range of float64 (`OutOfRange`).

    Examples
    --------
    >>> layer = nn.Linear(3, 2)
    >>> j, offset = jacobian(nn.Sequential(layer, nn.ReLU()), (3,))
    >>> torch.allclose(j, layer.weight.T.double())
    True
    >>> torch.allclose(offset, layer.bias.double())
    True
    """
    for kind in freeze:
        nearest(kind, FROZEN, "kind to freeze")
    refuse_unreadable(model)
    precisions = [dtype]
    for precision in (torch.float64, torch.float32):
        if precision != dtype:
            precisions.append(precision)
    for precision in precisions:
        last = precision == precisions[-1]
        # The caller may have switched gradients off, or have a default device that is
        # not the network's.
        with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
            skeleton = _Skeleton(model, freeze, layer, precision)
            with torch.device(skeleton.device), untouched(skeleton.model):
                try:
                    j, offset = _jacobian(skeleton, input_shape, reference, chunk)
                except OutOfRange:
                    if last or precision == torch.float64:
                        raise
                    continue
                except _MixedPrecision as error:
                    if last:
                        raise ValueError(str(error)) from error
                    continue
        # Numbers that are zero in single precision may just be small.
        small = j.abs().max() < torch.finfo(torch.float32).tiny ** 0.5
        if precision == torch.float64 or last or not small:
            break
    return j, offset


def _jacobian(
    skeleton: "_Skeleton", input_shape: Sequence[int], reference: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Return a skeleton's Jacobian and its output at zero, in its precision."""
    dtype = skeleton.dtype
    if skeleton.freeze:
        skeleton.record_factors(_reference(reference, input_shape))
    x = torch.zeros(
        1, *input_shape, dtype=dtype, device=skeleton.device, requires_grad=True)
    y = skeleton(x)  # (1, outputs)
    probes, change, size = _verified_probes(skeleton, x, y)
    outputs = torch.eye(y.shape[1], dtype=dtype, device=y.device)[:, None]
    rows = []
    parts = torch.split(outputs, chunk)
    for part in tqdm(parts, "chain", leave=False, delay=2, disable=None):
        rows.append(_gradients(y, x, part).flatten(1))  # (at most chunk, inputs)
    j = torch.cat(rows).T  # (inputs, outputs)
    if not torch.isfinite(j).all():
        raise OutOfRange(f"no chain for {skeleton.name}: {_OVERFLOW}")
    if not _close(probes.flatten(1) @ j, change, size):
        raise NotLinear(
            f"no chain for {skeleton.name}: its gradients are not those of the linear "
            f"map that it computes; is something detached?")
    return j, y[0].detach()


_OVERFLOW = (
    "its numbers overflow: layer by layer they grow beyond what floats can hold")


class InputRefused(ValueError):
    """A network does not take inputs of the shape that it was given.

    Examples
    --------
    >>> jacobian(nn.Linear(3, 2), (4,))
    Traceback (most recent call last):
    InputRefused: Linear does not take inputs of shape (4,): ...
    """


class _MixedPrecision(ValueError):
    """The network's own code asks for a precision, as torch.zeros(..., dtype) does."""


def refuse_unreadable(model: nn.Module) -> None:
    """Refuse a network whose weights or functions cannot be seen, with the reason.

    Raises
    ------
    TypeError
        For TorchScript, weights that are not there yet (lazy modules), on the meta
        device, quantised, sparse, complex, or cut into pieces.

    Examples
    --------
    >>> refuse_unreadable(nn.LazyLinear(3))
    Traceback (most recent call last):
    TypeError: no chain for LazyLinear: ... run it once on an input first
    """
    start = f"no chain for {type(model).__name__}:"
    for name, module in model.named_modules():
        place = f"module {name!r} ({type(module).__name__})" if name else "it"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{start} {place} is a TorchScript module, which hides its functions; "
                f"give the nn.Module that it was made from")
        kind = type(module).__module__
        if "quantized" in kind.split(".") or "quantizable" in kind.split("."):
            raise TypeError(
                f"{start} {place} is quantised; give the network before it was "
                f"quantised")
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        reason = _unreadable(values)
        if reason:
            raise TypeError(f"{start} {name} {reason}")


def _unreadable(values: Tensor) -> str:
    """Return why a tensor's numbers cannot be taken; "" if they can."""
    if nn.parameter.is_lazy(values):
        return "is not initialised; run it once on an input first"
    return _UNREADABLE[special_kind(values)]


_UNREADABLE = {
    "": "",
    "nested": "is nested",
    "sparse": "is sparse; call to_dense() on it",
    "meta": "is on the meta device: its weights are not there",
    "quantised": "is quantised; give the network before it was quantised",
    "complex": "belongs to complex weights",
}


class _Skeleton:
    """A network's skeleton: it maps one input (1, ...) to outputs (1, outputs)."""

    def __init__(
        self, model: nn.Module, freeze: Sequence[str], layer: str | None,
        dtype: torch.dtype,
    ):
        self.name = type(model).__name__
        self.model = copied(model)
        self.device = next(self.model.parameters(), torch.empty(0)).device
        if self.device.type in WITHOUT_FLOAT64:
            self.device = torch.device("cpu")
        self.model.to(self.device, dtype).eval().requires_grad_(False)
        for module in self.model.modules():
            _convert_attributes(module, self.device, dtype)
            # Gradients are a device here: what hooks do to them is not the network's.
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
        self.dtype = dtype
        self.freeze = frozenset(freeze)
        self.factors: list[Tensor] = []
        submodules = dict(self.model.named_modules())
        self.layer: nn.Module | None = None
        if layer is not None:
            self.layer = submodules[chosen(layer, submodules, "layer")]
        _pass_over_composed_activations(self.model)

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x, LinearMode(self.freeze, iter(self.factors)))

    def record_factors(self, reference: Tensor) -> None:
        """Keep the factors to be frozen, from a run of the network itself."""
        x = reference[None].to(self.device, self.dtype).requires_grad_()
        with RecordingMode(self.freeze, iter(())) as recording:
            self.forward(x)
        self.factors = recording.recorded

    def run(self, x: Tensor, mode: TorchFunctionMode) -> Tensor:
        """Return the outputs (1, outputs) under a mode; the layer's if it is named."""
        layer_outputs: list[Any] = []

        def keep(module: nn.Module, inputs: object, output: Any) -> None:
            if isinstance(output, Tensor):
                output = output.clone()  # what comes next may change it in place
            layer_outputs.append(output)

        with ExitStack() as stack:
            if self.layer is not None:
                hook = self.layer.register_forward_hook(keep)
                stack.callback(hook.remove)
            if any(map(_is_compiled, self.model.modules())):
                # Compiled code would run without the replacements.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_checkpoints_passed_through())
            stack.enter_context(mode)
            output = self.forward(x)
        if layer_outputs:
            output = layer_outputs[-1]
        y = self.checked(output)
        if layer_outputs and y.ndim == 3:
            return y.mean(1)  # over tokens: (1, units)
        if layer_outputs and y.ndim > 3:
            return y.flatten(2).mean(2)  # over places: (1, channels)
        return y.flatten(1)  # (1, outputs)

    def checked(self, y: object) -> Tensor:
        """Return an output; refuse what is not one tensor that depends on the input."""
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != 1:
            kind = type(y).__name__
            if isinstance(y, Tensor):
                kind = f"shape {tuple(y.shape)}"
            raise TypeError(
                f"no chain for {self.name}: for a batch of one input, wanted one "
                f"tensor (1, outputs), got {kind}; name the layer whose output is "
                f"meant, or wrap the network in a module that returns it")
        if not y.requires_grad:
            raise NotLinear(
                f"no chain for {self.name}: its output does not depend on its input, "
                f"or is cut off from it by detach(), inference_mode() or integers")
        return y

    def forward(self, x: Tensor) -> Any:
        try:
            return self.model(x)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            for name, module in self.model.named_modules():
                if _needs_batch(module):
                    raise NotLinear(
                        f"no chain for {self.name}: module {name!r} "
                        f"({type(module).__name__}) has no running statistics, and "
                        f"normalises by those of the batch") from error
            if re.search(r"dtype|scalar type", str(error)):
                raise _MixedPrecision(
                    f"{self.name} mixes precisions: {error}") from error
            shape = tuple(x.shape[1:])
            raise InputRefused(
                f"{self.name} does not take inputs of shape {shape}: {error}"
            ) from error


def _is_compiled(module: nn.Module) -> bool:
    """Tell whether a module runs by ``torch.compile``."""
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def _needs_batch(module: nn.Module) -> bool:
    """Tell whether a batch normalisation has nothing but the batch to go by."""
    return (
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is None)


def _convert_attributes(
    module: nn.Module, device: torch.device, dtype: torch.dtype,
) -> None:
    """Convert tensors that a module holds as plain attributes, as its weights are."""
    for name, values in vars(module).items():
        if isinstance(values, Tensor) and values.is_floating_point():
            vars(module)[name] = values.detach().to(device, dtype)


@contextmanager
def _checkpoints_passed_through() -> Iterator[None]:
    """Call checkpointed functions as they are: nothing is to be recomputed.

    The recomputation would run without the replacements. All of torch's ways to
    checkpoint end in one function.
    """
    module = torch.utils.checkpoint
    name = "_checkpoint_impl"
    original = getattr(module, name, None)
    if original is None:  # older versions of torch: refused by the check of gradients
        yield
        return

    def direct(
        function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
        **options: Any,
    ) -> Any:
        return function(*args, **kwargs)

    setattr(module, name, direct)
    try:
        yield
    finally:
        setattr(module, name, original)


def _pass_over_composed_activations(model: nn.Module) -> None:
    """Replace the activations that are made of several functions of torch.

    The table of replacements knows activations as single functions; exp and a power
    alone are not activations, and must be refused elsewhere.
    """
    for parent in model.modules():
        # Not named_children(): it lists a module that stands in two places only once.
        for name, child in parent._modules.items():
            if isinstance(child, (Gaussian, Square)):
                setattr(parent, name, nn.Identity())


def _gradient(y: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Return a vector-Jacobian product, zero where `y` does not depend on `x`."""
    gradient, = torch.autograd.grad(
        y, x, weights, allow_unused=True, retain_graph=True)
    return torch.zeros_like(x) if gradient is None else gradient


def _gradients(y: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Return vector-Jacobian products (n, ...) for weights (n, 1, outputs).

    A batch of gradients through one graph, not a batch of inputs: nothing need be known
    about how a network treats a batch. The batching of ``is_grads_batched`` would go
    through convolutions one gradient at a time.
    """

    def gradient(row: Tensor) -> Tensor:
        return _gradient(y, x, row)

    try:
        gradients: Tensor = torch.func.vmap(gradient)(weights)
    except RuntimeError:  # the backward of a user's own function may not be batched
        gradients = torch.stack([gradient(row) for row in weights])
    return gradients


def _reference(reference: Tensor | None, input_shape: Sequence[int]) -> Tensor:
    """Return the reference input: the caller's, or a draw that is always the same."""
    if reference is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(*input_shape, generator=generator, device="cpu")
    shape = tuple(reference.shape)
    if shape != tuple(input_shape) or not torch.isfinite(reference).all():
        raise ValueError(
            f"reference: wanted finite values of shape {tuple(input_shape)}, got shape "
            f"{shape}")
    return reference


# ------------------------------------------------------------------------- verification


def _verified_probes(
    skeleton: _Skeleton, x: Tensor, y: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Check at random inputs that a skeleton is affine.

    Three inputs r, s and 0.5 r - 3 s prove it: the third output must be that
    combination of the first two, once the output at zero is subtracted.

    Returns
    -------
    probes, change, size : Tensor
        The inputs (3, ...), their outputs minus `y` (3, outputs), and the outputs'
        norm.
    """
    generator = torch.Generator().manual_seed(1)
    r, s = torch.randn(2, *x.shape[1:], generator=generator, device="cpu").to(x)
    weights = torch.randn(y.shape, generator=generator, device="cpu").to(y)
    slope = _norm(_gradient(y, x, weights)).to(y)
    # `near` is so far from zero that the linear part is not lost beside the biases. At
    # `far`, what grows faster than the input cannot hide behind rounding either.
    near: Tensor | float = 1
    far: Tensor | float = 1e30
    if slope > 0:
        near = (4 * _norm(y.detach()).to(y) / slope).clamp(min=1)
        far = near * 1e6
    for reach in (far, near):
        probes = torch.stack([r, s, 0.5 * r - 3 * s]) * reach  # (3, ...)
        images = []
        for probe in probes:
            images.append(skeleton(probe[None].requires_grad_()).detach())
        outputs = torch.cat(images)  # (3, outputs)
        change = outputs - y.detach()
        size = _norm(outputs)
        if not _close(0.5 * change[0] - 3 * change[1], change[2], size):
            raise _culprit(skeleton, probes)
    return probes, change, size


def _norm(values: Tensor) -> Tensor:
    """Return a norm in double precision: squares of large numbers leave the single."""
    norm: Tensor = values.double().norm()
    return norm


def _is_finite(model: nn.Module) -> bool:
    return all(values.isfinite().all() for values in model.state_dict().values())


def _close(expected: Tensor, actual: Tensor, size: Tensor) -> bool:
    """Tell whether two results differ by rounding only.

    Rounding errors are in proportion to the numbers that were added up, which may be
    far larger than their sum: hence `size`, and not the size of the results.
    """
    error = _norm(expected - actual)
    tolerance = torch.finfo(actual.dtype).eps ** 0.5 * size
    return bool(error <= tolerance) and bool(size.isfinite())


def _culprit(skeleton: _Skeleton, probes: Tensor) -> NotLinear | OutOfRange:
    """Return an error that names the first function that is not affine."""
    start = f"no chain for {skeleton.name}:"
    if not _is_finite(skeleton.model):
        return NotLinear(f"{start} its state holds NaN or infinity")
    traces = []
    for x in (torch.zeros_like(probes[0]), *probes):
        traces.append(_traced_calls(skeleton, x))
    # The same test as of the whole skeleton, function by function: the first that fails
    # it had arguments that were still affine in the input.
    for at_zero, at_r, at_s, at_mixture in zip(*traces):
        r = at_r.sums - at_zero.sums
        s = at_s.sums - at_zero.sums
        mixture = at_mixture.sums - at_zero.sums
        size = max(at_zero.size, at_r.size, at_s.size, at_mixture.size)
        affine = (mixture - 0.5 * r + 3 * s).abs().max() <= 1e-6 * size
        if affine:  # it is not if the difference is NaN
            continue
        linear = at_zero.function in _LINEAR or (
            at_zero.function in _BILINEAR and at_zero.signals == 1)
        if linear and not math.isfinite(size):
            return OutOfRange(f"{start} {_OVERFLOW} (in {at_zero.place})")
        return NotLinear(
            f"{start} {at_zero.function} in {at_zero.place} is not linear in the "
            f"network's input and has no replacement"
            f"{_freeze_advice(skeleton, at_zero.function)}")
    return NotLinear(f"{start} it is not linear, by no function of torch alone")


# Functions that are linear in the input whatever its size: where they give infinity,
# numbers have overflown.
_LINEAR = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "matmul", "mm", "bmm", "addmm", "add", "iadd", "sub",
    "batch_norm", "mean", "sum", "cat", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"})
# These are if one factor alone depends on the input.
_BILINEAR = frozenset({"mul", "rmul", "imul", "multiply", "div", "truediv", "einsum"})


def _traced_calls(skeleton: _Skeleton, x: Tensor) -> list[Call]:
    """Run a skeleton at one input, and return the calls of functions in order."""
    tracing = TracingMode(skeleton.freeze, iter(skeleton.factors))
    with ExitStack() as stack:
        for name, module in skeleton.model.named_modules():
            for hook in tracing.hooks(name, module):
                stack.callback(hook.remove)
        skeleton.run(x[None].clone().requires_grad_(), tracing)
    return tracing.calls


def _freeze_advice(skeleton: _Skeleton, function: str) -> str:
    """Return the end of a message: what to freeze, where that might help."""
    kind = FREEZE_HINTS.get(function)
    if kind is None or kind in skeleton.freeze:
        return ""
    return (f"; freeze=({kind!r},) keeps one factor of it at its value for a reference "
            f"input")
