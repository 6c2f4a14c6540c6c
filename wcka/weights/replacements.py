"""Which functions the linear skeleton of a network replaces, and by what.

A network's own code runs, and a torch function mode sees every function of torch that
it calls. Functions that are linear in the network's input run as they are. Of the
others,

- activations, dropout and softmax become the identity (``PASSED``);
- maxima over places become means over the same places (``POOLED``);
- products of two factors that both depend on the input, such as gates, keep one factor
  at the value that it has for a reference input, if the caller asks for it
  (``FROZEN``).

A function in none of these tables runs as it is: if it is not linear, ``skeleton``
finds out and names it.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

# A function of torch, and what it is called with: any number of tensors and options.
Function = Callable[..., Any]
Arguments = tuple[Any, ...]
NamedArguments = dict[str, Any]

# ------------------------------------------------------------------------- the tables
#
# All tables list functions by the name that torch, torch.Tensor and torch.nn.functional
# share, without the underscore of those that work in place.

# These become the identity. The paper's chain W1 W2 ... Wl (equation 5) multiplies the
# weights as if no activation stood between them, so every activation is passed over:
# those that act on single units, and softmax, which turns outputs into probabilities
# without any weights. Clamps are here because ReLU6 and its kin are often written with
# them. Dropout is here for networks that call it with training=True at all times.
PASSED = frozenset({
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu",
    "silu", "mish", "sigmoid", "logsigmoid", "tanh", "tanhshrink", "hardtanh",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink", "softplus", "softsign",
    "softmin", "softmax", "log_softmax", "threshold", "clamp", "clip", "clamp_min",
    "clamp_max", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout", "feature_dropout"})

# Changes of precision are passed over too. The skeleton has one precision throughout,
# because rounding to half precision is not linear.
_CASTS = frozenset({"float", "double", "half", "bfloat16", "type_as"})

# A maximum over places cannot become the identity, because it changes the number of
# places. A mean over the same places keeps that shape, is linear, and prefers no place.
POOLED: dict[str, Callable[..., Tensor]] = {
    "max_pool1d": functional.avg_pool1d,
    "max_pool2d": functional.avg_pool2d,
    "max_pool3d": functional.avg_pool3d,
    "adaptive_max_pool1d": functional.adaptive_avg_pool1d,
    "adaptive_max_pool2d": functional.adaptive_avg_pool2d,
    "adaptive_max_pool3d": functional.adaptive_avg_pool3d,
    "amax": torch.mean,
}

# What `freeze` may name, and the functions that it makes linear. In these the input
# multiplies itself, so no replacement of an activation makes them linear; a constant in
# place of one factor does. The gate, the scale of a normalisation and the pattern of an
# attention are the factors that are frozen: they say how much of the signal passes, and
# the factor that is kept carries the signal. The constants come from a run of the
# network itself, activations and all. So an intertwiner, which changes the weights but
# not the function, at most permutes the constants, and the chain stays as it is.
FROZEN: dict[str, frozenset[str]] = {
    "gate": frozenset({"sigmoid", "hardsigmoid", "glu"}),
    "norm": frozenset({"layer_norm", "group_norm", "instance_norm", "rms_norm"}),
    "attention": frozenset({"softmax", "scaled_dot_product_attention",
                            "multi_head_attention_forward"}),
}

# Frozen functions that give nothing but the factor: their output becomes a constant,
# and the product with the signal is a function that the network calls later.
_CONSTANTS = frozenset({"sigmoid", "hardsigmoid", "softmax"})


def _freeze_hints() -> dict[str, str]:
    """Return by function the kind to freeze that may help if it is not linear."""
    hints: dict[str, str] = {}
    for kind, functions in FROZEN.items():
        for function in functions:
            hints[function] = kind
    # A gate that is passed over leaves a product of two signals, and so does the
    # softmax of an attention that is written out.
    for function in ("mul", "rmul", "imul", "multiply"):
        hints[function] = "gate"
    for function in ("matmul", "rmatmul", "bmm", "baddbmm", "einsum"):
        hints[function] = "attention"
    return hints


FREEZE_HINTS = _freeze_hints()


class NotLinear(TypeError):
    """A network's skeleton is not linear; the message names function and module.

    Examples
    --------
    >>> import wcka
    >>> wcka.chain(nn.LayerNorm(3), input_shape=(3,))
    Traceback (most recent call last):
    NotLinear: no chain for LayerNorm: layer_norm in LayerNorm is not linear ...
    >>> wcka.chain(nn.LayerNorm(3), input_shape=(3,), freeze=["norm"]).shape
    torch.Size([3, 3])
    """


# ------------------------------------------------------------------------- the modes


class LinearMode(TorchFunctionMode):
    """Run a network with a replacement for each function that is not linear.

    Only functions of tensors that depend on the network's input are replaced. What a
    network does to its weights alone (their softmax, say) makes weights, and stays.

    Parameters
    ----------
    freeze : frozenset of str
        Kinds of functions to freeze: keys of ``FROZEN``.
    factors : iterator of Tensor
        Constants for the frozen functions, in the order in which the network calls
        them; from a run under ``RecordingMode``.

    Examples
    --------
    >>> x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    >>> with LinearMode(frozenset(), iter(())):
    ...     x.relu().tolist(), functional.max_pool1d(x, 2).tolist()
    ([[-1.0, 2.0]], [[0.5]])
    """

    def __init__(self, freeze: frozenset[str], factors: Iterator[Tensor]):
        super().__init__()
        self.frozen: frozenset[str] = frozenset()
        for kind in freeze:
            self.frozen |= FROZEN[kind]
        self.factors = factors

    def __torch_function__(
        self, func: Function, types: Sequence[type], args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = _shared_name(func)
        # A trunk that is frozen by torch.no_grad() computes what it computes.
        if name == "set_grad_enabled":
            return None
        if not _depends_on_input(args, kwargs):
            return func(*args, **kwargs)
        # Instance normalisation by running statistics is linear: there is nothing to
        # freeze.
        if name in self.frozen:
            arguments = _arguments_by_name(func, args, kwargs)
            if arguments.get("use_input_stats", True):
                return self.freeze(name, func, args, kwargs)
        return self.replace(name, func, args, kwargs)

    def freeze(
        self, name: str, func: Function, args: Arguments, kwargs: NamedArguments,
    ) -> Any:
        """Call a function with its recorded factor as a constant."""
        factor = next(self.factors, None)
        if factor is None:
            raise NotLinear(
                f"{name}: the network takes another path without its activations")
        if name in _CONSTANTS:
            return _constant(func, args, kwargs, factor)
        return _with_factor(name, func, args, kwargs, factor)

    def replace(
        self, name: str, func: Function, args: Arguments, kwargs: NamedArguments,
    ) -> Any:
        """Call a function, or what stands in its place in the skeleton."""
        x, *options = *args, *kwargs.values()
        if name in _CASTS:
            return x
        if name in ("to", "type"):
            return _moved(x, func(*args, **kwargs))
        # A clamp whose bounds depend on the input too is a function of two signals:
        # there is no reason to pass the first on rather than the second.
        if name in PASSED and not _depends_on_input(options, {}):
            # A copy, because the network may go on to change input or output in place;
            # a function that works in place returns its input itself.
            return x if _works_in_place(func, args, kwargs) else x.clone()
        if name in POOLED:
            return _mean_over_places(name, func, args, kwargs)
        if name in ("conv1d", "conv2d"):
            return _convolved(name, func, args, kwargs)
        return func(*args, **kwargs)


class RecordingMode(LinearMode):
    """Keep the factors that are to be frozen while the network itself runs.

    Examples
    --------
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> with RecordingMode(frozenset({"gate"}), iter(())) as recording:
    ...     y = x * x.sigmoid()
    >>> recording.recorded
    [tensor([[0.5000, 0.5000]])]
    """

    def __init__(self, freeze: frozenset[str], factors: Iterator[Tensor]):
        super().__init__(freeze, factors)
        self.recorded: list[Tensor] = []

    def freeze(
        self, name: str, func: Function, args: Arguments, kwargs: NamedArguments,
    ) -> Any:
        """Record a function's factor, and call the function."""
        factor = _frozen_factor(name, func, args, kwargs).detach().clone()
        self.recorded.append(factor)
        # What becomes a constant in the skeleton must be one here too. Otherwise a
        # function of it alone would be recorded, but not met again when the skeleton
        # runs.
        if name in _CONSTANTS:
            return _constant(func, args, kwargs, factor)
        return func(*args, **kwargs)

    def replace(
        self, name: str, func: Function, args: Arguments, kwargs: NamedArguments,
    ) -> Any:
        """Call the function: the network runs with its activations here."""
        return func(*args, **kwargs)


class Call(NamedTuple):
    """One call of a function while a network ran under ``TracingMode``.

    Attributes
    ----------
    function : str
        The name that it has in the tables.
    place : str
        The module in which it was called.
    sums : Tensor
        (2,), two weighted sums over the function's output.
    size : float
        Norm of the output.
    signals : int
        How many of the arguments depend on the network's input.

    Examples
    --------
    >>> Call("abs", "module 'head' (Head)", torch.zeros(2), 1.0).function
    'abs'
    """

    function: str
    place: str
    sums: Tensor
    size: float
    signals: int = 1


class TracingMode(LinearMode):
    """Note all calls of functions whose arguments depend on the network's input.

    Examples
    --------
    >>> network = nn.Linear(2, 1)
    >>> with TracingMode(frozenset(), iter(())) as tracing:
    ...     hooks = tracing.hooks("", network)
    ...     y = network(torch.ones(1, 2, requires_grad=True))
    >>> [(call.function, call.place) for call in tracing.calls]
    [('linear', 'Linear')]
    """

    def __init__(self, freeze: frozenset[str], factors: Iterator[Tensor]):
        super().__init__(freeze, factors)
        self.places: list[str] = []  # modules that are running, from the outside in
        self.calls: list[Call] = []

    def hooks(self, name: str, module: nn.Module) -> tuple[
            RemovableHandle, RemovableHandle]:
        """Note when a module begins and ends to run, until the hooks are removed."""
        kind = type(module).__name__
        place = f"module {name!r} ({kind})" if name else kind

        def begin(module: nn.Module, inputs: object) -> None:
            self.places.append(place)

        def end(module: nn.Module, inputs: object, output: object) -> None:
            self.places.pop()

        return (module.register_forward_pre_hook(begin),
                module.register_forward_hook(end))

    def __torch_function__(
        self, func: Function, types: Sequence[type], args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> Any:
        output = super().__torch_function__(func, types, args, kwargs)
        parts = []
        for value in _with_entries([output]):
            if isinstance(value, Tensor):
                parts.append(value.detach().flatten().double())
        if parts and _depends_on_input(args, kwargs or {}):
            flat = torch.cat(parts)
            signals = 0
            for value in _with_entries([*args, *(kwargs or {}).values()]):
                signals += isinstance(value, Tensor) and value.requires_grad
            self.calls.append(Call(
                _shared_name(func), self.places[-1], _weighted_sums(flat),
                float(flat.norm()), signals))
        return output


def _weighted_sums(flat: Tensor) -> Tensor:
    """Return two sums over a function's output that differ for most outputs.

    The weights are multiples of an irrational number modulo 1: they look random, repeat
    nowhere, and need no random state. A second sum is there in case the first is zero.
    """
    steps = torch.arange(1, len(flat) + 1, device=flat.device, dtype=flat.dtype)
    sums = []
    for irrational in (2**0.5, 3**0.5):
        sums.append((steps * irrational % 1 - 0.5) @ flat)
    return torch.stack(sums)  # (2,)


# ------------------------------------------------------------------------- arguments


def _shared_name(func: Function) -> str:
    """Return one name for torch.relu, torch.relu_, Tensor.relu and functional.relu."""
    return getattr(func, "__name__", str(func)).strip("_")


def _depends_on_input(args: Iterable[Any], kwargs: NamedArguments) -> bool:
    """Tell whether a tensor among the arguments depends on the network's input.

    Only the input requires a gradient: the skeleton's parameters do not.
    """
    return any(isinstance(value, Tensor) and value.requires_grad
               for value in _with_entries([*args, *kwargs.values()]))


def _with_entries(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the values, and the entries of a list or tuple in its place."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _arguments_by_name(
    func: Function, args: Arguments, kwargs: NamedArguments,
) -> NamedArguments:
    """Return arguments by name with defaults; none for functions written in C++."""
    if not inspect.isfunction(func):
        return {}
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _works_in_place(func: Function, args: Arguments, kwargs: NamedArguments) -> bool:
    if func.__name__.endswith("_"):
        return True
    return bool(_arguments_by_name(func, args, kwargs).get("inplace"))


# ------------------------------------------------------------------------- the rules


def _moved(x: Tensor, converted: Any) -> Any:
    """Return a tensor on the device of its converted copy, but in its own precision."""
    converts = isinstance(converted, Tensor) and converted.is_floating_point()
    if converts and x.is_floating_point():
        return x if converted.device == x.device else x.to(converted.device)
    return converted


def _mean_over_places(
    name: str, func: Function, args: Arguments, kwargs: NamedArguments,
) -> Tensor:
    """Call the mean over the places over which a function takes the maximum."""
    if name == "amax":
        return torch.mean(*args, **kwargs)
    # The functions behind torch.max_pool2d and the like tell no names of arguments.
    if name.startswith("adaptive"):
        names = ["input", "output_size", "return_indices"]
    else:
        names = ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"]
    arguments = {**dict(zip(names, args)), **kwargs}
    arguments.pop("return_indices", None)
    dilation = torch.tensor(arguments.pop("dilation", 1))
    if dilation.ne(1).any():
        # PyTorch has no mean over places that lie apart.
        maxima: Tensor = func(*args, **kwargs)
        return maxima
    if "kernel_size" in arguments:
        # Maxima ignore the padding, which is -inf, so means must not count it as zeros.
        arguments["count_include_pad"] = False
    return POOLED[name](**arguments)


# Convolutions of at most so many input channels are computed in another way.
_FEW_CHANNELS = 4


def _convolved(
    name: str, func: Function, args: Arguments, kwargs: NamedArguments,
) -> Tensor:
    """Call a convolution; one of few channels as a product of patches and kernels.

    The result is the same. The kernels that a CPU uses for a batch of gradients fill up
    the channels to many, which took sixty times as long for sound (one channel).
    """
    names = ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    arguments = {**defaults, **dict(zip(names, args)), **kwargs}
    x = arguments["input"]
    weight = arguments["weight"]
    on_cpu = x.ndim == weight.ndim and x.device.type == "cpu"
    plain = arguments["groups"] == 1 and not isinstance(arguments["padding"], str)
    if not (on_cpu and plain) or weight.shape[1] > _FEW_CHANNELS:
        result: Tensor = func(*args, **kwargs)
        return result
    options = []
    for option, neutral in (("dilation", 1), ("padding", 0), ("stride", 1)):
        options.append(_pair(arguments[option], neutral, name))
    if name == "conv1d":  # a convolution of images that are one pixel high
        x = x[:, :, None]
        weight = weight[:, :, None]
    units = _product_of_patches(x, weight, arguments["bias"], *options)
    return units.squeeze(2) if name == "conv1d" else units


def _product_of_patches(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilations: tuple[int, int],
    paddings: tuple[int, int], strides: tuple[int, int],
) -> Tensor:
    """Return a convolution (batch, channels, height, width) by one matrix product."""
    kernel = weight.shape[2:]
    places = []
    for size, length, dilation, padding, stride in zip(
            x.shape[2:], kernel, dilations, paddings, strides):
        places.append((size + 2 * padding - dilation * (length - 1) - 1) // stride + 1)
    patches = functional.unfold(x, kernel, dilations, paddings, strides)
    units = functional.linear(patches.mT, weight.flatten(1), bias)
    return torch.unflatten(units.mT, 2, places)


def _pair(value: Any, neutral: int, name: str) -> tuple[int, int]:
    """Return an option of a convolution for height and width."""
    numbers = [value] if isinstance(value, int) else list(value)
    if name == "conv1d":
        return neutral, numbers[0]
    return numbers[0], numbers[-1]


def _constant(
    func: Function, args: Arguments, kwargs: NamedArguments, value: Tensor,
) -> Tensor:
    """Return `value` as a function's output, in place if the function does so."""
    if _works_in_place(func, args, kwargs):
        x: Tensor = args[0]
        return x.copy_(value)
    return value.clone()


def _frozen_factor(
    name: str, func: Function, args: Arguments, kwargs: NamedArguments,
) -> Tensor:
    """Return the value of the factor of a function that is to be frozen."""
    if name in _CONSTANTS:
        constant: Tensor = func(*args, **kwargs)
        return constant
    if name == "scaled_dot_product_attention":
        return _attention_pattern(func, args, kwargs)
    arguments = _arguments_by_name(func, args, kwargs)
    if name == "multi_head_attention_forward":
        # One pattern per head, and no dropout, whatever the network asks for.
        arguments.update(need_weights=True, average_attn_weights=False, training=False)
        pattern: Tensor = func(**arguments)[1]  # (N, heads, L, S)
        return pattern
    if name == "glu":
        gate: Tensor = arguments["input"].chunk(2, arguments["dim"])[1]
        return gate.sigmoid()
    centred, eps = _centred(name, arguments)
    return (centred.square().mean(-1, keepdim=True) + eps).rsqrt()


def _with_factor(
    name: str, func: Function, args: Arguments, kwargs: NamedArguments, factor: Tensor,
) -> Any:
    """Return a function's output with its factor as a constant."""
    if name == "scaled_dot_product_attention":
        return factor @ _attention_arguments(args, kwargs)["value"]
    arguments = _arguments_by_name(func, args, kwargs)
    if name == "multi_head_attention_forward":
        return _attended(arguments, factor)
    if name == "glu":
        return arguments["input"].chunk(2, arguments["dim"])[0] * factor
    return _normalised(name, arguments, factor)


def _normalised(name: str, arguments: NamedArguments, scale: Tensor) -> Tensor:
    """Return the output of a normalisation whose scale is a constant.

    The centring stays, because it is linear; gain and shift stay, because they are
    weights.
    """
    centred, _ = _centred(name, arguments)
    x = (centred * scale).reshape(arguments["input"].shape)
    gain = arguments["weight"]
    shift = arguments.get("bias")
    if name in ("group_norm", "instance_norm"):
        gain = _by_channels(gain, x.ndim)
        shift = _by_channels(shift, x.ndim)
    if gain is not None:
        x = x * gain
    if shift is not None:
        x = x + shift
    return x


def _by_channels(values: Tensor | None, ndim: int) -> Tensor | None:
    """Shape (channels,) values to multiply a batch whose second axis are channels."""
    if values is None:
        return None
    return values.view(-1, *[1] * (ndim - 2))  # (channels, 1, ..., 1)


def _centred(name: str, arguments: NamedArguments) -> tuple[Tensor, float]:
    """Return a normalisation's centred input, and its epsilon.

    The last axis of the result holds what is normalised together.
    """
    x = arguments["input"]
    eps = arguments["eps"]
    if name in ("layer_norm", "rms_norm"):
        x = x.flatten(-len(arguments["normalized_shape"]))  # (..., units)
    else:
        # A group per channel is instance normalisation.
        groups = arguments.get("num_groups", x.shape[1])
        x = x.reshape(len(x), groups, -1)  # (batch, groups, channels and places)
    if name == "rms_norm":  # does not centre
        return x, torch.finfo(x.dtype).eps if eps is None else eps
    return x - x.mean(-1, keepdim=True), eps


# ------------------------------------------------------------------------- attention


def _attention_arguments(args: Arguments, kwargs: NamedArguments) -> NamedArguments:
    """Return the arguments of scaled dot product attention, which tells no names."""
    names = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal"]
    return {**dict(zip(names, args)), **kwargs}


def _attention_pattern(
    func: Function, args: Arguments, kwargs: NamedArguments,
) -> Tensor:
    """Return the weights (..., queries, keys) of scaled dot product attention."""
    arguments = _attention_arguments(args, kwargs)
    key = arguments["key"]
    value = arguments["value"]
    # The function does not return its pattern. With unit vectors as values it does.
    units = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device)
    arguments["value"] = units.expand(*value.shape[:-2], -1, -1)  # (..., keys, keys)
    arguments["dropout_p"] = 0.0
    pattern: Tensor = func(**arguments)
    return pattern


def _attended(arguments: NamedArguments, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """Return multi-head attention (L, N, E) with a fixed pattern (N, heads, L, S)."""
    if arguments["bias_k"] is not None or arguments["add_zero_attn"]:
        raise NotLinear(
            "multi_head_attention_forward: no rule for bias_k and add_zero_attn")
    # Queries and keys made the pattern: of the three projections only values are left.
    weight = arguments["v_proj_weight"]
    if not arguments["use_separate_proj_weight"]:
        weight = arguments["in_proj_weight"].chunk(3)[2]
    bias = arguments["in_proj_bias"]
    if bias is not None:
        bias = bias.chunk(3)[2]
    value = functional.linear(arguments["value"], weight, bias)  # (S, N, E)
    heads = arguments["num_heads"]
    value = torch.unflatten(value, -1, (heads, -1))  # (S, N, heads, E / heads)
    mixed = torch.einsum("nhls,snhd->lnhd", pattern, value).flatten(2)  # (L, N, E)
    output = functional.linear(
        mixed, arguments["out_proj_weight"], arguments["out_proj_bias"])
    return output, pattern.mean(1)  # (L, N, E) and (N, L, S)
