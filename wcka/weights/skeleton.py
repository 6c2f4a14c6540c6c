"""Linear skeleton of any network: what is left of it when every activation is the identity.

The paper's chain W1 W2 ... Wl is the Jacobian of a fully connected network without its activations.
Read so, any network has a chain: run it with a replacement for each function that is not linear,
check that what remains is affine, and take the Jacobian by vector-Jacobian products, one an output.
The network's own code runs, so nothing need be known about how its layers are wired.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from ..measures.spelling import nearest
from .layers import Gaussian, Square

# Functions by the name that they share in torch, torch.Tensor and torch.nn.functional, in place or
# not. They are replaced where their argument depends on the network's input; what is done to
# weights alone is done as it stands.
PASSED = frozenset({
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish",
    "sigmoid", "logsigmoid", "tanh", "tanhshrink", "hardtanh", "hardswish", "hardsigmoid",
    "hardshrink", "softshrink", "softplus", "softsign", "softmin", "softmax", "log_softmax",
    "threshold", "clamp", "clip", "clamp_min", "clamp_max", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"})

# Changes of precision, of which the skeleton has one throughout.
_CASTS = frozenset({"float", "double", "half", "bfloat16", "type_as"})

# Maxima over places become means over the same places; padding is no place.
POOLED: dict[str, Callable[..., Tensor]] = {
    **{f"max_pool{d}d": getattr(functional, f"avg_pool{d}d") for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": getattr(functional, f"adaptive_avg_pool{d}d") for d in (1, 2, 3)},
    "amax": torch.mean,
}

# What `freeze` may name, and the functions it makes linear: one factor in each keeps the value that
# it has, at a reference input, in the network itself, activations and all.
FROZEN: dict[str, frozenset[str]] = {
    "gate": frozenset({"sigmoid", "hardsigmoid", "glu"}),
    "norm": frozenset({"layer_norm", "group_norm", "instance_norm", "rms_norm"}),
    "attention": frozenset({"softmax", "scaled_dot_product_attention",
                            "multi_head_attention_forward"}),
}

# Which kind to freeze might help where a function is found not to be linear.
_HINTS = {**{name: kind for kind, names in FROZEN.items() for name in names},
          **dict.fromkeys(("mul", "rmul", "imul", "multiply"), "gate"),
          **dict.fromkeys(("matmul", "rmatmul", "bmm", "baddbmm", "einsum"), "attention")}


class NotLinear(TypeError):
    """A network's skeleton is not linear; the message names the function and the module."""


@torch.inference_mode(False)  # whatever the caller is in the middle of
@torch.enable_grad()
def jacobian(model: nn.Module, input_shape: Sequence[int], freeze: Sequence[str] = (),
             reference: Tensor | None = None, layer: str | None = None, chunk: int = 32,
             dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Jacobian of a network's linear skeleton, and the skeleton's output at the zero input.

    Parameters
    ----------
    model : nn.Module
        From one input tensor to one output tensor; taken in eval mode, and left untouched.
    input_shape : sequence of int
        Shape of one input, without the batch.
    freeze, reference
        As in ``chain.chain``.
    layer : str, optional
        Name of a submodule: the Jacobian of its output instead, averaged over tokens (batch,
        tokens, units) or places (batch, channels, height, width).
    chunk : int
        Outputs whose products run at once; memory grows with it.
    dtype : torch.dtype
        In which to compute.

    Returns
    -------
    J, offset : Tensor
        (inputs, outputs) and (outputs,): the skeleton maps a flat input x to x @ J + offset.

    Raises
    ------
    NotLinear
        If a function is neither linear nor replaced: it is named, and the module that called it.
    TypeError, ValueError
        For an unknown name, an input that the network does not take, or an output that is not one
        tensor.
    """
    for kind in freeze:
        nearest(kind, FROZEN, "kind to freeze")
    skeleton = _Skeleton(model, freeze, layer, dtype)
    if freeze:
        skeleton.refer(_reference(reference, input_shape))
    x = torch.zeros(1, *input_shape, dtype=dtype, device=skeleton.device, requires_grad=True)
    y = skeleton(x)
    probes, change, size = _verified(skeleton, x, y)
    outputs = torch.eye(y.shape[1], dtype=dtype, device=y.device)[:, None]
    # One graph for all outputs: nothing need be known about how a network treats a batch.
    rows = [_gradient(y, x, part, is_grads_batched=True, retain_graph=True).flatten(1)
            for part in tqdm(outputs.split(chunk), "chain", leave=False, delay=2, disable=None)]
    j = torch.cat(rows).T
    if not _close(probes.flatten(1) @ j, change, size):
        raise NotLinear(f"no chain for {skeleton.name}: its gradients are not those of the linear "
                        f"map that it computes; is something detached?")
    return j, y[0].detach()


class _Skeleton:
    """A network's skeleton as a function of one input (1, ...) to its outputs (1, outputs)."""

    def __init__(self, model: nn.Module, freeze: Sequence[str], layer: str | None,
                 dtype: torch.dtype):
        self.name = type(model).__name__
        if any(values.is_complex() for values in (*model.parameters(), *model.buffers())):
            raise TypeError(f"no chain for {self.name}: it has complex weights")
        try:
            self.model = deepcopy(model).to(dtype).eval().requires_grad_(False)
        except RuntimeError as error:
            raise TypeError(f"no chain for {self.name}: it cannot be copied ({error})") from error
        self.device = next(self.model.parameters(), torch.empty(0)).device
        self.dtype, self.freeze = dtype, frozenset(freeze)
        self.values: list[Tensor] = []
        submodules = dict(self.model.named_modules())
        self.layer = None if layer is None else submodules[nearest(layer, submodules, "layer")]
        for parent in self.model.modules():  # elementwise, but made of several functions
            for name, child in parent._modules.items():  # a module may stand in two places
                if isinstance(child, (Gaussian, Square)):
                    setattr(parent, name, nn.Identity())

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x, _Linear(self.freeze, iter(self.values)))

    def refer(self, reference: Tensor) -> None:
        """Keep the factors to be frozen, from a run of the network itself."""
        x = reference[None].to(self.device, self.dtype).requires_grad_()
        with _Recording(self.freeze, iter(())) as recording:
            self.forward(x)
        self.values = recording.kept

    def run(self, x: Tensor, mode: TorchFunctionMode) -> Tensor:
        seen: list = []
        with ExitStack() as stack:
            if self.layer is not None:
                hook = self.layer.register_forward_hook(lambda *args: seen.append(_kept(args[2])))
                stack.callback(hook.remove)
            stack.enter_context(mode)
            y = self.forward(x)
        y = seen[-1] if seen else y
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != 1:
            came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"no chain for {self.name}: for a batch of one input, wanted one "
                            f"tensor (1, outputs), got {came}")
        if not y.requires_grad:
            raise NotLinear(f"no chain for {self.name}: its output does not depend on its input")
        if seen and y.ndim > 2:
            return y.mean(1) if y.ndim == 3 else y.flatten(2).mean(2)
        return y.flatten(1)

    def forward(self, x: Tensor):
        try:
            return self.model(x)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            raise ValueError(f"{self.name} does not take inputs of shape {tuple(x.shape[1:])}: "
                             f"{error}") from error


def _kept(output):
    """A module's output as it is now: what comes next may change it in place."""
    return output.clone() if isinstance(output, Tensor) else output


def _gradient(y: Tensor, x: Tensor, weights: Tensor, **kw) -> Tensor:
    found, = torch.autograd.grad(y, x, weights, allow_unused=True, **kw)
    return x.new_zeros(*weights.shape[:-2], *x.shape) if found is None else found


def _reference(reference: Tensor | None, input_shape: Sequence[int]) -> Tensor:
    if reference is None:
        return torch.randn(*input_shape, generator=torch.Generator().manual_seed(0))
    if tuple(reference.shape) != tuple(input_shape) or not torch.isfinite(reference).all():
        raise ValueError(f"reference: wanted finite values of shape {tuple(input_shape)}, got "
                         f"shape {tuple(reference.shape)}")
    return reference


# ---------------------------------------------------------------------------- verification


def _verified(skeleton: _Skeleton, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Random inputs, how they change the output from `y`, and its size: proof of an affine map."""
    generator = torch.Generator().manual_seed(1)
    r, s = torch.randn(2, *x.shape[1:], generator=generator).to(x)
    weights = torch.randn(y.shape, generator=generator).to(y)
    slope = _gradient(y, x, weights, retain_graph=True).norm()
    # So far from zero that the linear part is not lost beside the biases; then so far that what
    # grows faster than the input cannot hide either.
    near = (4 * y.detach().norm() / slope).clamp(min=1) if slope > 0 else 1
    for reach in (near * 1e6 if slope > 0 else 1e30, near):
        probes = torch.stack([r, s, 0.5 * r - 3 * s]) * reach
        images = torch.cat([skeleton(probe[None].requires_grad_()).detach() for probe in probes])
        change, size = images - y.detach(), images.norm()
        if not _close(0.5 * change[0] - 3 * change[1], change[2], size):
            raise NotLinear(_culprit(skeleton, probes))
    return probes, change, size


def _close(expected: Tensor, found: Tensor, size: Tensor) -> bool:
    """Equal but for rounding, which is in proportion to all that was added up."""
    error = (expected - found).norm()
    return bool(error <= torch.finfo(found.dtype).eps ** 0.5 * size) and bool(size.isfinite())


def _culprit(skeleton: _Skeleton, probes: Tensor) -> str:
    """Message that names the first function that does not map these inputs affinely."""
    if not all(p.isfinite().all() for p in skeleton.model.state_dict().values()):
        return f"no chain for {skeleton.name}: its state holds NaN or infinity"
    traces = []
    for x in (torch.zeros_like(probes[0]), *probes):
        tracing = _Tracing(skeleton.freeze, iter(skeleton.values))
        with ExitStack() as stack:
            for name, module in skeleton.model.named_modules():
                for hook in tracing.hooks(name, module):
                    stack.callback(hook.remove)
            skeleton.run(x[None].clone().requires_grad_(), tracing)
        traces.append(tracing.calls)
    for calls in zip(*traces):
        name, place, zero, _ = calls[0]
        r, s, mixed = (call[2] - zero for call in calls[1:])
        if not (mixed - 0.5 * r + 3 * s).abs().max() <= 1e-6 * max(call[3] for call in calls):
            kind = _HINTS.get(name)
            option = (f"; freeze=({kind!r},) keeps one factor of it at its value for a reference "
                      f"input" if kind and kind not in skeleton.freeze else "")
            return (f"no chain for {skeleton.name}: {name} in {place} is not linear in the "
                    f"network's input and has no replacement{option}")
    return f"no chain for {skeleton.name}: it is not linear, by no function of torch alone"


# ---------------------------------------------------------------------------- replacements


class _Linear(TorchFunctionMode):
    """Replace the functions of a running network that are not linear."""

    def __init__(self, freeze: frozenset[str], values: Iterator[Tensor]):
        super().__init__()
        self.frozen = frozenset().union(*(FROZEN[kind] for kind in freeze))
        self.values = values

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, _name(func)
        if not _depends(args, kwargs):
            return func(*args, **kwargs)
        if name in self.frozen and _given(func, args, kwargs).get("use_input_stats", True):
            return self.freeze(name, func, args, kwargs)
        return self.replace(name, func, args, kwargs)

    def freeze(self, name: str, func, args, kwargs):
        value = next(self.values, None)
        if value is None:
            raise NotLinear(f"{name}: the network takes another path without its activations")
        if name in _CONSTANTS:
            return _constant(func, args, kwargs, value)
        return _frozen(name, func, args, kwargs, value)

    def replace(self, name: str, func, args: tuple, kwargs: dict):
        x, *others = *args, *kwargs.values()
        if name in _CASTS:
            return x
        if name in PASSED and not _depends(others, {}):  # else a function of two things
            # The caller may go on to change either.
            return x if _in_place(func, args, kwargs) else x.clone()
        return _mean(name, func, args, kwargs) if name in POOLED else func(*args, **kwargs)


class _Recording(_Linear):
    """Keep the factors that are to be frozen while the network itself runs."""

    def __init__(self, freeze: frozenset[str], values: Iterator[Tensor]):
        super().__init__(freeze, values)
        self.kept: list[Tensor] = []

    def freeze(self, name: str, func, args, kwargs):
        self.kept.append(_factor(name, func, args, kwargs).detach().clone())
        # What becomes a constant must be one here too: what follows it alone is not frozen again.
        return (_constant(func, args, kwargs, self.kept[-1]) if name in _CONSTANTS
                else func(*args, **kwargs))

    def replace(self, name: str, func, args, kwargs):
        return func(*args, **kwargs)


class _Tracing(_Linear):
    """Note of each function its name, where it ran, two numbers linear in its output, its size."""

    def __init__(self, freeze: frozenset[str], values: Iterator[Tensor]):
        super().__init__(freeze, values)
        self.places: list[str] = []
        self.calls: list[tuple[str, str, Tensor, float]] = []

    def hooks(self, name: str, module: nn.Module):
        place = f"module {name!r} ({type(module).__name__})" if name else type(module).__name__
        return (module.register_forward_pre_hook(lambda *args: self.places.append(place)),
                module.register_forward_hook(lambda *args: self.places.pop() and None))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = super().__torch_function__(func, types, args, kwargs)
        parts = [p.detach().flatten().double() for p in _leaves([output]) if isinstance(p, Tensor)]
        if parts and _depends(args, kwargs or {}):
            flat = torch.cat(parts)
            steps = torch.arange(1, len(flat) + 1, device=flat.device, dtype=flat.dtype)
            sums = torch.stack([(steps * turn % 1 - 0.5) @ flat for turn in (2**0.5, 3**0.5)])
            self.calls.append((_name(func), self.places[-1], sums, float(flat.norm())))
        return output


def _name(func) -> str:
    """One name for torch.relu, torch.relu_, torch.Tensor.relu and functional.relu."""
    return getattr(func, "__name__", str(func)).strip("_")


def _depends(args, kwargs) -> bool:
    """Whether a tensor among the arguments depends on the network's input."""
    return any(isinstance(leaf, Tensor) and leaf.requires_grad
               for leaf in _leaves([*args, *kwargs.values()]))


def _leaves(values) -> Iterator:
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else [value]


def _given(func, args, kwargs) -> dict:
    """Arguments by name, defaults included; empty for functions that tell no names."""
    if not inspect.isfunction(func):
        return {}
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _in_place(func, args, kwargs) -> bool:
    return func.__name__.endswith("_") or bool(_given(func, args, kwargs).get("inplace"))


def _constant(func, args, kwargs, value: Tensor) -> Tensor:
    """What a function gives if that is `value`, in place if it works so."""
    return args[0].copy_(value) if _in_place(func, args, kwargs) else value.clone()


def _mean(name: str, func, args, kwargs) -> Tensor:
    if name == "amax":
        return torch.mean(*args, **kwargs)
    names = (("input", "output_size", "return_indices") if name.startswith("adaptive") else
             ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"))
    given = {**dict(zip(names, args)), **kwargs}
    given.pop("return_indices", None)
    if torch.tensor(given.pop("dilation", 1)).ne(1).any():  # means over such places: no function
        return func(*args, **kwargs)
    if "kernel_size" in given:
        given["count_include_pad"] = False
    return POOLED[name](**given)


_CONSTANTS = frozenset({"sigmoid", "hardsigmoid", "softmax"})
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _factor(name: str, func, args, kwargs) -> Tensor:
    """The factor of a function that is to be frozen."""
    if name in _CONSTANTS:
        return func(*args, **kwargs)
    if name == "scaled_dot_product_attention":
        given = {**dict(zip(_ATTENTION, args)), **kwargs}
        key, value = given["key"], given["value"]
        # Of unit vectors as values attention makes its own pattern.
        units = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device)
        return func(**{**given, "dropout_p": 0.0, "value": units.expand(*value.shape[:-2], -1, -1)})
    given = _given(func, args, kwargs)
    if name == "multi_head_attention_forward":
        given.update(need_weights=True, average_attn_weights=False, training=False)
        return func(**given)[1]
    if name == "glu":
        return given["input"].chunk(2, given["dim"])[1].sigmoid()
    centred, eps = _centred(name, given)
    return (centred.square().mean(-1, keepdim=True) + eps).rsqrt()


def _frozen(name: str, func, args, kwargs, factor: Tensor):
    """What a function gives with that factor as a constant."""
    if name == "scaled_dot_product_attention":
        return factor @ {**dict(zip(_ATTENTION, args)), **kwargs}["value"]
    given = _given(func, args, kwargs)
    if name == "multi_head_attention_forward":
        return _attended(given, factor)
    if name == "glu":
        return given["input"].chunk(2, given["dim"])[0] * factor
    centred, _ = _centred(name, given)
    x = (centred * factor).reshape(given["input"].shape)
    weight, bias = given["weight"], given.get("bias")
    if name in ("group_norm", "instance_norm"):  # gains are by channels, the second axis
        weight, bias = (p if p is None else p.view(-1, *[1] * (x.ndim - 2)) for p in (weight, bias))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _centred(name: str, given: dict) -> tuple[Tensor, float]:
    """Input of a normalisation, what is normalised together as the last axis, and its epsilon."""
    x, eps = given["input"], given["eps"]
    if name in ("layer_norm", "rms_norm"):
        x = x.flatten(-len(given["normalized_shape"]))
    else:
        x = x.reshape(len(x), given.get("num_groups", x.shape[1]), -1)
    if name == "rms_norm":
        return x, torch.finfo(x.dtype).eps if eps is None else eps
    return x - x.mean(-1, keepdim=True), eps


def _attended(given: dict, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-head attention (L, N, E) with a fixed pattern (N, heads, L, S)."""
    if given["bias_k"] is not None or given["add_zero_attn"]:
        raise NotLinear("multi_head_attention_forward: no rule for bias_k and add_zero_attn")
    weight = given["v_proj_weight"]
    if not given["use_separate_proj_weight"]:
        weight = given["in_proj_weight"].chunk(3)[2]
    bias = given["in_proj_bias"]
    value = functional.linear(given["value"], weight, bias if bias is None else bias.chunk(3)[2])
    value = value.unflatten(-1, (given["num_heads"], -1))
    mixed = torch.einsum("nhls,snhd->lnhd", pattern, value).flatten(2)
    out = functional.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
    return out, pattern.mean(1)
