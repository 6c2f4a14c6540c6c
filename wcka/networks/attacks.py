"""Adversarial attacks on one network, or on a whole population in one batched pass.

Images are floats in [0, 1]; all attacks but Gaussian noise keep within `eps` of the
clean image in the maximum norm, and all within [0, 1]. A population is attacked member
by member: each has its own adversarial images, and they are those that attacking the
member alone would give, from the same random start.

A network is attacked in eval mode, and left as it was.
"""

from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ..weights.caller import copied, untouched


class Stacked:
    """Many networks as one: what an attack needs to know of a population.

    Examples
    --------
    >>> import torch
    >>> class Two(Stacked):
    ...     def __len__(self):
    ...         return 2
    ...     def forward(self, x, *, per_model=False):
    ...         return x if per_model else x.expand(2, *x.shape)
    >>> Two().forward(torch.zeros(5, 3)).shape
    torch.Size([2, 5, 3])
    """

    def __len__(self) -> int:
        """Return the number of networks."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, per_model: bool = False) -> Tensor:
        """Return the logits (N, n, classes) of every network.

        `x` are images (n, ...) that all networks share or, with `per_model`, those of
        each (N, n, ...).
        """
        raise NotImplementedError

    def input_gradient(self, x: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the gradient of every network's loss by its own images.

        Parameters
        ----------
        x : Tensor
            (N, n, ...).
        slope : function
            Maps logits (N, n, classes) to the gradient of the loss by them.

        Returns
        -------
        Tensor
            As `x`.
        """
        return _gradient(lambda images: self.forward(images, per_model=True), x, slope)


def _leaves_network_as_it_was(attack: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run an attack's network in eval mode and put back what that changes.

    Gradients are taken even where the caller has switched them off, and random starts
    are drawn on the CPU whatever the default device is.
    """

    @wraps(attack)
    def attacked(model: Any, *args: Any, **kwargs: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            if isinstance(model, nn.Module) and _of_inference(model):
                model = copied(model)  # gradients cannot pass through its own weights
            with untouched(model):
                return attack(model, *args, **kwargs)

    return attacked


def _of_inference(model: nn.Module) -> bool:
    """Tell whether a network was made in inference mode."""
    return any(values.is_inference() for values in model.parameters())


@_leaves_network_as_it_was
def fgsm(model, x: Tensor, y, eps: float) -> Tensor:
    """Fast gradient sign method: one step of `eps` up the loss.

    The source is Goodfellow et al. (2014).

    Parameters
    ----------
    model : callable, Population or Transfer
        Images (n, ...) to logits (n, classes), or to the logit (n, 1) of class 1; or a
        population of N networks, or of heads behind a trunk (``Transfer``), each
        attacked for itself. A callable to logits (N, n, classes) gets images (n, ...)
        that raise the sum of the losses of N networks.
    x : Tensor
        Clean images (n, ...), float, in [0, 1].
    y : array-like of int
        Labels (n,).
    eps : float
        Largest change of a pixel, not negative.

    Returns
    -------
    Tensor
        As `x`; (N, n, ...) for a population.

    Raises
    ------
    ValueError
        For images that are not floats in [0, 1], labels of another length or of no
        class, an `eps` that is negative or above 1.
    TypeError
        For a model that does not return logits.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(4, 3)
    >>> x, labels = torch.full((2, 4), 0.5), torch.tensor([0, 2])
    >>> change = fgsm(network, x, labels, eps=0.1) - x
    >>> round(float(change.abs().max()), 6)
    0.1
    """
    x = _prepared(x, eps=eps)
    return _walk(model, x, x, _error(_labels(y, x)), eps, eps, 1)


def ffgsm(model, x: Tensor, y, eps: float, alpha: float, seed: int = 0) -> Tensor:
    """Fast FGSM: a random start in the eps-ball, then one step of `alpha`.

    The source is Wong et al. (2020).

    Parameters, return value and errors as in ``fgsm``; `alpha` is the step (the authors
    take 1.25 `eps`), `seed` that of the start.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(4, 3)
    >>> x, labels = torch.full((2, 4), 0.5), torch.tensor([0, 2])
    >>> change = ffgsm(network, x, labels, eps=0.1, alpha=0.125) - x
    >>> bool(change.abs().max() <= 0.1 + 1e-6)
    True
    """
    return pgd(model, x, y, eps, alpha, 1, seed)


def gaussian_noise(x: Tensor, std: float, seed: int = 0) -> Tensor:
    """Gaussian noise of standard deviation `std`, clipped to [0, 1].

    Parameters, return value and errors as in ``fgsm``, without a model.

    Examples
    --------
    >>> import torch
    >>> x = torch.full((2, 4), 0.5)
    >>> bool(torch.equal(gaussian_noise(x, 0.1), gaussian_noise(x, 0.1, seed=0)))
    True
    >>> bool(torch.equal(gaussian_noise(x, 0.0), x))
    True
    """
    x = _prepared(x, std=std)
    return (x + std * _draw(torch.randn, x.shape, seed).to(x)).clamp(0, 1)


@_leaves_network_as_it_was
def pgd(
    model, x: Tensor, y, eps: float, alpha: float, steps: int, seed: int = 0
) -> Tensor:
    """Projected gradient descent: a random start, then `steps` steps of `alpha`.

    The source is Madry et al. (2019).

    Parameters, return value and errors as in ``ffgsm``; `steps` is at least 1.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(4, 3)
    >>> x, labels = torch.full((2, 4), 0.5), torch.tensor([0, 2])
    >>> change = pgd(network, x, labels, eps=0.1, alpha=0.05, steps=3) - x
    >>> bool(change.abs().max() <= 0.1 + 1e-6)
    True
    """
    x = _prepared(x, eps=eps, alpha=alpha, steps=steps)
    start = x + eps * (2 * _draw(torch.rand, x.shape, seed) - 1).to(x)
    return _walk(model, x, start, _error(_labels(y, x)), eps, alpha, steps)


@_leaves_network_as_it_was
def trades(
    model, x: Tensor, eps: float, alpha: float, steps: int, seed: int = 0
) -> Tensor:
    """Attack of TRADES: away from the clean prediction in relative entropy.

    The source is Zhang et al. (2019).

    Starts at a small Gaussian step and needs no labels. Parameters, return value and
    errors as in ``pgd``.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(4, 3)
    >>> x = torch.full((2, 4), 0.5)
    >>> change = trades(network, x, eps=0.1, alpha=0.05, steps=3) - x
    >>> bool(change.abs().max() <= 0.1 + 1e-6)
    True
    """
    x = _prepared(x, eps=eps, alpha=alpha, steps=steps)
    with torch.no_grad():
        clean = _logits(model(x)) if callable(model) else model.forward(x)
    clean = clean.softmax(-1)  # (n, classes); of a population, (networks, n, classes)
    start = x + 0.001 * _draw(torch.randn, x.shape, seed).to(x)

    def divergence(logits: Tensor) -> Tensor:
        return logits.softmax(-1) - clean

    return _walk(model, x, start, divergence, eps, alpha, steps)


# Each attack of one network by its name and strength: (model, images, labels, eps,
# steps, seed). Steps are of 2.5 eps / steps, so that any point of the ball can be
# reached (Madry et al. 2019); Fast FGSM's one step is of 1.25 eps (Wong et al. 2020).
BY_GRADIENT: dict[str, Callable[..., Tensor]] = {
    "fgsm": lambda model, x, y, eps, steps, seed: fgsm(model, x, y, eps),
    "ffgsm": lambda model, x, y, eps, steps, seed: ffgsm(
        model, x, y, eps, 1.25 * eps, seed
    ),
    "pgd": lambda model, x, y, eps, steps, seed: pgd(
        model, x, y, eps, 2.5 * eps / steps, steps, seed
    ),
    "trades": lambda model, x, y, eps, steps, seed: trades(
        model, x, eps, 2.5 * eps / steps, steps, seed
    ),
}


def _walk(
    model,
    x: Tensor,
    start: Tensor,
    slope: Callable[[Tensor], Tensor],
    eps: float,
    alpha: float,
    steps: int,
) -> Tensor:
    """Take steps of `alpha` along the sign of the gradient.

    Each step is followed by projection into the ball and into [0, 1]. `slope` is the
    gradient of the loss by the logits. Losses are sums, so each image and each member
    of a population climbs alone.
    """
    # Both bounds at once, and in place: elementwise passes over all members' images are
    # what attacks of small networks spend their time on.
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    adversarial = start.clamp(low, high)
    if isinstance(model, Stacked):
        # All members begin with the same images, and walk apart.
        adversarial = adversarial.expand(len(model), *x.shape)  # (networks, n, ...)
    for _ in range(steps):
        if isinstance(model, Stacked):
            gradient = model.input_gradient(adversarial, slope)
        else:
            gradient = _gradient(lambda images: _logits(model(images)), adversarial,
                                 slope)
        step = gradient.sign_()
        # In the storage of the gradient, which nobody needs any more
        adversarial = torch.add(adversarial, step, alpha=alpha, out=step)
        adversarial.clamp_(low, high)
    return adversarial


def _gradient(forward: Callable, x: Tensor, slope: Callable) -> Tensor:
    """Return the gradient by `x` of a loss, given its slope by the logits."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = forward(x)
        return torch.autograd.grad(logits, x, slope(logits.detach()))[0]


def _error(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the slope, by logits (..., n, classes), of their summed cross-entropy."""

    def slope(logits: Tensor) -> Tensor:
        if labels.min() < 0 or labels.max() >= logits.shape[-1]:
            raise ValueError(
                f"y: wanted classes from 0 to {logits.shape[-1] - 1}, got "
                f"{int(labels.min())} to {int(labels.max())}")
        probabilities = logits.softmax(-1)
        positions = torch.arange(len(labels), device=labels.device)
        probabilities[..., positions, labels] -= 1
        return probabilities

    return slope


def _prepared(x: Tensor, **amounts) -> Tensor:
    """Check everything; return the images, without what inference mode did to them."""
    for name, value in amounts.items():
        kind, least = (Integral, 1) if name == "steps" else (Real, 0)
        if (
            not isinstance(value, kind)
            or isinstance(value, bool)
            or not float(value) >= least
        ):
            whole = "whole " if kind is Integral else ""
            raise ValueError(
                f"{name}: wanted a {whole}number from {least} up, got {value!r}")
        if name in ("eps", "std") and float(value) > 1:
            raise ValueError(
                f"{name}: images are in [0, 1], so wanted a number from 0 to 1, got "
                f"{value!r}; if it is one of 255 levels, divide it by 255")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(
            f"x: wanted a tensor of floats in [0, 1], got {type(x).__name__} of "
            f"{getattr(x, 'dtype', 'no dtype')}"
        )
    if x.ndim < 2 or not x.numel() or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x: wanted images (n, ...) with values in [0, 1], got shape "
                         f"{tuple(x.shape)}" + (f", values {x.min():g} to {x.max():g}"
                                                if x.numel() else ""))
    # A tensor made in inference mode takes part in no gradient; a copy of it does.
    return x.clone() if x.is_inference() else x.detach()


def _logits(output: Any) -> Tensor:
    """Return a network's logits; of a network with one logit z those of two, 0 and z.

    A sigmoid of z is the softmax of these two: the attacks need no case of their own.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"model: wanted a tensor of logits, got {type(output).__name__}; wrap the "
            f"network in a function that returns its logits")
    if output.ndim < 2:
        raise ValueError(
            f"model: wanted logits (n, classes), got shape {tuple(output.shape)}")
    if output.shape[-1] == 1:
        return torch.cat([torch.zeros_like(output), output], -1)
    return output


def _labels(y, x: Tensor) -> Tensor:
    labels = torch.as_tensor(y, device=x.device)
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(x):
        raise ValueError(f"y: wanted one int per image, got {labels.dtype} of shape "
                         f"{tuple(labels.shape)} for images {tuple(x.shape)}")
    return labels.long()


def _draw(draw: Callable[..., Tensor], shape: torch.Size, seed: int) -> Tensor:
    """Draw on the CPU in single precision, whatever torch's defaults are."""
    generator = torch.Generator().manual_seed(seed)
    return draw(shape, generator=generator, device="cpu", dtype=torch.float32)
