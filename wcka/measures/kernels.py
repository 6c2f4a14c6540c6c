"""Kernels other than the linear one, centred, in strips of rows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import products
from .products import Representation, pieces, strip_products

_ROWS = 256  # of one kernel at a time
# Of the sum of a kernel's squares: what centring leaves of a constant one, by rounding.
_NOTHING = 1e-26
_SAME = 1e-14  # of the sum of two squared lengths: a squared distance that is rounding


class Kernel:
    """A kernel whose rows and columns are centred, as are then the features behind it.

    Parameters
    ----------
    model : Representation
        Features.
    uncentred : function
        Rows of the kernel from the diagonal on, by a slice of rows.
    unbiased : bool
        Centre for the unbiased criterion (Szekely and Rizzo 2014): the diagonal does not count.
    keep : bool
        Hold the whole kernel, (n, n); otherwise its rows are computed a second time when needed.
    """

    def __init__(self, model: Representation, uncentred: Callable[[slice], Tensor], unbiased: bool,
                 keep: bool):
        self.model, self.uncentred, self.unbiased, n = model, uncentred, unbiased, model.n
        self.kept: Tensor | None = None
        one = model.rows(slice(0, 1))
        sums, self.squares = one.new_zeros(n), 0.0
        whole = one.new_zeros((n, n)) if keep else None
        for part in pieces(n, _ROWS):
            strip, below = self._strip(part), part.stop - part.start
            sums[part] += strip.sum(1)
            sums[part.stop:] += strip[:, below:].sum(0)
            self.squares += 2 * float(strip.square().sum())
            if whole is not None:
                whole[part, part.start:] = strip
                whole[part.stop:, part] = strip[:, below:].T
        least = n - 2 if unbiased else n
        self.means = sums / least - sums.sum() / (2 * least * (n - 1 if unbiased else n))
        self.kept = whole

    def _strip(self, part: slice) -> Tensor:
        strip = self.uncentred(part) if self.kept is None else self.kept[part, part.start:].clone()
        if self.unbiased:
            strip.diagonal().zero_()
        return strip

    def rows(self, part: slice) -> Tensor:
        """Rows of the kernel, without what lies left of the first one's diagonal."""
        strip = self._strip(part).sub_(self.means[part, None]).sub_(self.means[part.start:])
        if self.unbiased:
            strip.diagonal().zero_()
        return strip


def kernel_products(kernels: Sequence[Kernel]) -> tuple[np.ndarray, np.ndarray]:
    """<K, L> of all pairs of N kernels (N, N), and of each with itself: 0 if that is rounding."""

    def fill(part: slice, out: Tensor) -> None:
        for kernel, rows in zip(kernels, out):
            rows.copy_(kernel.rows(part))

    result = strip_products(fill, len(kernels), kernels[0].model)
    selves, squares = np.diag(result), np.array([k.squares for k in kernels])
    return result, np.where(selves <= _NOTHING * squares, 0, selves)


def gaussian(models: Sequence[Representation], sigma: float) -> list[Kernel]:
    """``exp(-|x - y|^2 / (2 (sigma m)^2))``, m the median distance of two different samples."""

    keep = _fits(models)

    def kernel(model: Representation) -> Kernel:
        above, known = [], {}

        def squares(part: slice) -> Tensor:
            x, below = model.rows(slice(part.start, None)), part.stop - part.start
            norms = x.square().sum(1)
            both = norms[:below, None] + norms
            result = both.clone().addmm_(x[:below], x.T, alpha=-2)
            return torch.where(result > _SAME * both, result, 0)  # equal samples, but for rounding

        for part in pieces(model.n, _ROWS):
            strip = squares(part)
            known.update({part.start: strip} if keep else {})
            upper = np.triu_indices(len(strip), 1, strip.shape[1])
            above.append(strip.cpu().numpy()[upper])
        width = 2 * sigma**2 * float(np.median(np.concatenate(above)))

        def rows(part: slice) -> Tensor:
            strip = known.pop(part.start) if keep else squares(part)
            # Where most samples are the same there is no bandwidth, and no kernel.
            return strip.div_(-width).exp_() if width else strip.zero_()

        return Kernel(model, rows, False, keep)

    return [kernel(m) for m in models]


def maximum(models: Sequence[Representation]) -> list[Kernel]:
    """max_c x_c y_c of features of unit columns (Godfrey et al. 2022), for the unbiased criterion.

    Permuting the units does not change it, nor does rescaling each.
    """

    keep = _fits(models)

    def kernel(model: Representation) -> Kernel:
        def largest(part: slice) -> Tensor:
            x = model.rows(slice(part.start, None)).T.contiguous()  # a unit's values side by side
            result = x.new_full((part.stop - part.start, x.shape[1]), -np.inf if model.d else 0)
            for unit in x:
                torch.maximum(result, torch.outer(unit[:len(result)], unit), out=result)
            return result

        return Kernel(model, largest, True, keep)

    return [kernel(m) for m in models]


def _fits(models: Sequence[Representation]) -> bool:
    return len(models) * models[0].n**2 * 8 <= products.KEPT
