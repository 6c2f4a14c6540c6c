"""Adversarial attacks on one network, or on a whole population in one batched pass.

Images are floats in [0, 1]; all attacks but Gaussian noise keep within `eps` of the
clean image in the maximum norm, and all within [0, 1]. A population is attacked member
by member: each has its own adversarial images, and they are those that attacking the
member alone would give, from the same random start. """

from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div


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
        each (N, n, ...). """
        raise NotImplementedError


def fgsm(model, x: Tensor, y, eps: float) -> Tensor:
    """Fast gradient sign method: one step of `eps` up the loss (Goodfellow et al.
    2014).

    Parameters
    ----------
    model : callable, Population or Transfer
        Images (n, ...) to logits (n, classes); or a population of N networks, or of
        heads behind a trunk (``Transfer``), each attacked for itself. A callable to
        logits (N, n, classes) gets images (n, ...) that raise the sum of the losses of
        N networks.
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
        For images that are not floats in [0, 1], labels of another length, a negative
        `eps`.

    Examples
    --------
    >>> import torch
    >>> network = torch.nn.Linear(4, 3)
    >>> x, labels = torch.full((2, 4), 0.5), torch.tensor([0, 2])
    >>> change = fgsm(network, x, labels, eps=0.1) - x
    >>> round(float(change.abs().max()), 6)
    0.1
    """
    forward, x = _prepared(model, x, eps=eps)
    return _walk(forward, x, x, _error(_labels(y, x)), eps, eps, 1)


def ffgsm(model, x: Tensor, y, eps: float, alpha: float, seed: int = 0) -> Tensor:
    """Fast FGSM: a random start in the eps-ball, then one step of `alpha` (Wong et al.
    2020).

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
    _, x = _prepared(None, x, std=std)
    return (x + std * torch.randn(x.shape, generator=_generator(seed)).to(x)).clamp(
        0, 1
    )


def pgd(
    model, x: Tensor, y, eps: float, alpha: float, steps: int, seed: int = 0
) -> Tensor:
    """Projected gradient descent: random start, `steps` steps of `alpha` (Madry et al.
    2019).

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
    forward, x = _prepared(model, x, eps=eps, alpha=alpha, steps=steps)
    clean = _one(model, x)  # members share the start, so it is drawn once
    start = (2 * torch.rand(clean.shape, generator=_generator(seed)) - 1).to(x)
    return _walk(
        forward, x, clean + eps * start, _error(_labels(y, x)), eps, alpha, steps
    )


def trades(
    model, x: Tensor, eps: float, alpha: float, steps: int, seed: int = 0
) -> Tensor:
    """Attack of TRADES: away from the clean prediction in relative entropy (Zhang et
    al. 2019).

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
    forward, x = _prepared(model, x, eps=eps, alpha=alpha, steps=steps)
    with torch.no_grad():
        clean = forward(x).softmax(-1)
    start = _one(model, x)
    start = start + 0.001 * torch.randn(start.shape, generator=_generator(seed)).to(x)

    def divergence(logits: Tensor) -> Tensor:
        return kl_div(logits.log_softmax(-1), clean, reduction="sum")

    return _walk(forward, x, start, divergence, eps, alpha, steps)


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
    forward: Callable,
    x: Tensor,
    start: Tensor,
    loss: Callable,
    eps: float,
    alpha: float,
    steps: int,
) -> Tensor:
    """Steps of `alpha` along the sign of the gradient, back into the ball and [0, 1]
    each time.
    """
    # Both bounds at once, and in place: elementwise passes over all members' images are
    # what attacks of small networks spend their time on.
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    adversarial = start.clamp(low, high)
    for _ in range(steps):
        step = _ascent(forward, adversarial, loss).mul_(alpha)
        adversarial = step.add_(adversarial).clamp_(low, high)
    return adversarial


def _ascent(forward: Callable, x: Tensor, loss: Callable) -> Tensor:
    """Sign of the loss's gradient. Losses are sums, so each image and member climbs
    alone.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(forward(x)), x)[0].sign_()


def _error(labels: Tensor) -> Callable:
    return lambda logits: cross_entropy(
        logits.flatten(0, -2),
        labels.expand(logits.shape[:-1]).flatten(),
        reduction="sum",
    )


def _one(model, x: Tensor) -> Tensor:
    """The part of the images that a random start is drawn for: members share it."""
    return x[0] if isinstance(model, Stacked) else x


def _prepared(model, x: Tensor, **amounts) -> tuple[Callable, Tensor]:
    """Check everything; return the model as a function, and each member's images."""
    for name, value in amounts.items():
        kind, least = (Integral, 1) if name == "steps" else (Real, 0)
        if (
            not isinstance(value, kind)
            or isinstance(value, bool)
            or not float(value) >= least
        ):
            raise ValueError(f"{name}: wanted a number from {least} up, got {value!r}")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(
            f"x: wanted a tensor of floats in [0, 1], got {type(x).__name__} of "
            f"{getattr(x, 'dtype', 'no dtype')}"
        )
    if x.ndim < 2 or not x.numel() or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x: wanted images (n, ...) with values in [0, 1], got shape "
                         f"{tuple(x.shape)}" + (f", values {x.min():g} to {x.max():g}"
                                                if x.numel() else ""))
    if isinstance(model, Stacked):
        # Each member is attacked for itself, and begins with the same images.
        copies = x.detach().expand(len(model), *x.shape)  # (networks, n, ...)
        return lambda images: model.forward(images, per_model=True), copies
    return model, x.detach()


def _labels(y, x: Tensor) -> Tensor:
    labels = torch.as_tensor(y, device=x.device)
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) not in x.shape[:2]:
        raise ValueError(f"y: wanted one int per image, got {labels.dtype} of shape "
                         f"{tuple(labels.shape)} for images {tuple(x.shape)}")
    return labels


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
