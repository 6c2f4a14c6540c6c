"""The 15 corruptions of MNIST-C, at the released severities.

The source is Mu and Gilmer (2019, arXiv:1906.02337).

The released images and their seeds are not needed: the images are generated. Each
corruption is one small function from a batch of images and its random streams to a
batch; ``corrupt`` does the rest.
"""

import math
from numbers import Integral

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates
from scipy.special import pdtr

from ..measures.spelling import nearest

_SIDE = 28
# Images worked on at once: bounds memory and keeps the work in the processor's cache
_BATCH = 256
_FOG_BATCH = 4  # the same for fog, whose map is 256 x 256 for every image
_FOG_SIDE = 256


def corrupt(images, name, seed=0):
    """Apply one MNIST-C corruption to a set of images.

    Every kind of random draw has a stream of its own, seeded from `seed`, the
    corruption and the draw, and read image after image. The result for image i
    therefore depends on nothing but `seed`, i and image i: ``corrupt(images[:k], ...)``
    equals ``corrupt(images, ...)[:k]``, bit for bit. No global random state is read or
    changed.

    Parameters
    ----------
    images : array-like of uint8, shape (n, 28, 28), n >= 1
        Grey images, 0 the background and 255 the ink (NumPy array or torch tensor). Not
        modified.
    name : str
        One of `CORRUPTIONS`.
    seed : int, default 0
        Seed of the random draws, not negative.

    Returns
    -------
    ndarray of uint8, shape (n, 28, 28)
        The corrupted images, values 0 to 255.

    Raises
    ------
    ValueError
        If `name` is unknown, `images` is empty or not (n, 28, 28), or `seed` is
        negative.
    TypeError
        If `images` is not uint8, or `seed` is not an integer.

    References
    ----------
    N. Mu and J. Gilmer (2019). MNIST-C: A robustness benchmark for computer vision.
    arXiv:1906.02337.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> corrupt(images, "brightness")[0, 0, :3]
    array([127, 127, 127], dtype=uint8)
    >>> corrupt(images, "fog").shape
    (2, 28, 28)
    """
    nearest(name, CORRUPTIONS, "corruption")
    images, seed = _checked_images(images), _checked_seed(seed)
    position = CORRUPTIONS.index(name)
    streams = []
    for draw in range(2):
        seeds = np.random.SeedSequence(seed, spawn_key=(position, draw))
        streams.append(np.random.default_rng(seeds))
    out = np.empty(images.shape, np.uint8)
    # The streams run on from batch to batch, so the size of a batch changes no result.
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        out[part] = _TABLE[name](images[part], *streams)
    return out


def _checked_images(images):
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images must be uint8 with values 0 to 255, got {images.dtype}"
        )
    if images.ndim != 3 or images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(
            f"images must have shape (n, {_SIDE}, {_SIDE}), got {images.shape}"
        )
    if not len(images):
        raise ValueError(
            f"images must hold at least one image, got shape {images.shape}"
        )
    return images


def _checked_seed(seed):
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, Integral):
        raise TypeError(
            f"seed must be an integer, got {seed!r} ({type(seed).__name__})"
        )
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return int(seed)


def _floor(u):
    """Quantise intensities to 8 bits by truncation, as in the released files."""
    return (255 * np.clip(u, 0, 1)).astype(np.uint8)


def _signs(stream, *shape):
    return 2 * stream.integers(2, size=shape) - 1


# Noise. In all that follows x is a uint8 batch (n, 28, 28); a and b are streams, b
# often unused.


def _shot_noise(x, a, b):
    # Poisson by inversion, not rng.poisson: that takes a number of draws that depends
    # on the image, and would tie each result to the images before it. Counts above 3
    # are clipped: all are white. P(count <= 0, 1, 2) by grey
    below = pdtr(np.arange(3)[:, None], 3 * np.arange(256) / 255)
    chance = a.random(x.shape)
    return 85 * sum((chance >= level[x]).astype(np.uint8) for level in below)


def _impulse_noise(x, a, b):
    hit, salt = a.random(x.shape) < 0.17, b.random(x.shape) < 0.5
    return np.where(hit, np.where(salt, np.uint8(255), np.uint8(0)), x)


# Blur.


def _glass_blur(x, a, b):
    # Vertical only: the reference took the columns for colour channels, and was
    # released that way.
    blurred = _floor(gaussian_filter1d(x / 255, 0.7, axis=1, mode="nearest"))
    pixels = blurred.reshape(len(x), -1)
    inner = np.arange(27, 1, -1)
    home = np.tile((_SIDE * inner[:, None] + inner).ravel(), 2)
    heads = a.integers(2, size=(len(x), home.size))
    dx, dy = np.moveaxis(b.integers(-1, 1, size=(len(x), home.size, 2)), -1, 0)
    partner = home + heads * (_SIDE * dy + dx)  # after tails a pixel swaps with itself
    # Each swap sees those before it, so pixels go one by one, but all images at a time.
    image = np.arange(len(x))
    for pixel, partner_pixel in zip(home, partner.T):
        swapped = pixels[image, partner_pixel]
        pixels[image, partner_pixel] = pixels[:, pixel]
        pixels[:, pixel] = swapped
    return _floor(gaussian_filter1d(blurred / 255, 0.7, axis=1, mode="nearest"))


def _motion_blur(x, a, b):
    reach = np.arange(21)
    kernel = np.exp(-reach**2 / 18)
    angle = np.radians(a.uniform(-45, 45, size=(len(x), 1)))
    right = np.ceil(reach * np.cos(angle) - 0.5).astype(int)
    down = np.ceil(reach * np.sin(angle) - 0.5).astype(int)
    padded = np.pad(x, ((0, 0), (20, 20), (20, 20)), mode="edge")
    shifted = sliding_window_view(padded, (_SIDE, _SIDE), axis=(1, 2))
    image = np.arange(len(x))
    blurred = sum(weight * shifted[image, 20 + down[:, i], 20 + right[:, i]]
                  for i, weight in enumerate(kernel / kernel.sum()))
    # The one corruption whose released file fits rounding to nearest.
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)


# Affine warps.


def _warp(x, source, draws):
    """Resample images bilinearly, with zeros outside.

    Images with the same draw share their sampling points.

    ``source(row, col, *draw)`` gives the (row, column) that an output pixel reads, all
    from the image's centre; `draws` is (n, k).
    """
    row, col = np.indices((_SIDE, _SIDE)) - 13.5
    out = np.empty_like(x)
    for draw in np.unique(draws, axis=0):
        at = np.stack(source(row, col, *draw)) + 13.5
        for i in np.flatnonzero((draws == draw).all(axis=1)):
            out[i] = _floor(
                map_coordinates(x[i] / 255, at, order=1, mode="grid-constant")
            )
    return out


def _shear(x, a, b):
    return _warp(
        x,
        lambda row, col, sign: (math.cos(0.4) * row, col - sign * math.sin(0.4) * row),
        _signs(a, len(x), 1),
    )


def _scale(x, a, b):
    return _warp(x, lambda row, col: (row / 0.7, col / 0.7), np.empty((len(x), 0)))


def _rotate(x, a, b):
    cos, sin = math.cos(0.4), math.sin(0.4)
    return _warp(
        x,
        lambda row, col, sign: (
            sign * sin * col + cos * row,
            cos * col - sign * sin * row,
        ),
        _signs(a, len(x), 1),
    )


def _translate(x, a, b):
    return _warp(
        x, lambda row, col, dx, dy: (row + 3 * dy, col + 3 * dx), _signs(a, len(x), 2)
    )


# Light and weather.


def _brightness(x, a, b):
    return _floor(x / 255 + 0.5)


def _stripe(x, a, b):
    outer = np.r_[:7, 21:28]
    out = x.copy()
    out[:, :, outer] = 255 - x[:, :, outer]
    return out


def _fog(x, a, b):
    corner = np.concatenate([
        _plasma_corner(a.random((len(part), _FOG_SIDE**2 - 1)))
        for part in np.split(x, range(_FOG_BATCH, len(x), _FOG_BATCH))])
    u = x / 255
    brightest = u.max(axis=(1, 2), keepdims=True)
    return _floor((u + 3 * corner) * brightest / (brightest + 3))


def _plasma_corner(chance):
    """Return the upper left corners (n, 28, 28) of diamond-square maps on a torus.

    The maps are (n, 256, 256), scaled to 0..1, from uniform draws in [0, 1).

    `chance` is (n, 256^2 - 1), used in order: for each level the squares, the diamonds
    on the rows of the coarser grid, the diamonds on its columns. A level doubles the
    grid of the one before. The last one is not put together: all that is needed of it
    are its corner, its lowest and its highest number.
    """
    n = len(chance)
    # Beside each grid stand its first row and column once more, for it is a torus.
    grid = np.zeros((n, 2, 2))
    used, wobble = 0, 100.0
    while True:
        side = grid.shape[1] - 1
        draws = chance[:, used:used + 3 * side**2].reshape(n, 3, side, side)
        square, in_row, in_col = _diamond_square(grid, draws, wobble)
        if 2 * side == _FOG_SIDE:
            break
        grid = _interleaved(grid[:, :-1, :-1], square, in_row, in_col)
        grid = np.pad(grid, ((0, 0), (0, 1), (0, 1)), mode="wrap")
        used, wobble = used + 3 * side**2, wobble / 1.4
    parts = (grid[:, :-1, :-1], square, in_row, in_col)
    low = np.min([part.min(axis=(1, 2)) for part in parts], axis=0)[:, None, None]
    high = np.max([part.max(axis=(1, 2)) for part in parts], axis=0)[:, None, None]
    half = _SIDE // 2
    corner = _interleaved(*(part[:, :half, :half] for part in parts))
    return (corner - low) / (high - low)


def _diamond_square(grid, draws, wobble):
    """Return the new points of one level, as three arrays (n, s, s).

    These are the centres of the grid's squares, the points to the right of its points,
    and those below them, from a grid (n, s + 1, s + 1) and draws (n, 3, s, s).
    """
    levels = 2 * draws
    levels -= 1
    levels *= wobble**2
    below = grid[:, :-1] + grid[:, 1:]
    square = below[:, :, :-1] + below[:, :, 1:]
    square /= 4
    square += levels[:, 0]
    in_row = square + np.concatenate([square[:, -1:], square[:, :-1]], axis=1)
    in_row += grid[:, :-1, :-1] + grid[:, :-1, 1:]
    in_row /= 4
    in_row += levels[:, 1]
    in_col = square + np.concatenate([square[:, :, -1:], square[:, :, :-1]], axis=2)
    in_col += below[:, :, :-1]
    in_col /= 4
    in_col += levels[:, 2]
    return square, in_row, in_col


def _interleaved(grid, square, in_row, in_col):
    """Return one grid (n, 2 s, 2 s) of four (n, s, s)."""
    n, side, _ = grid.shape
    finer = np.empty((n, 2 * side, 2 * side))
    finer[:, ::2, ::2], finer[:, 1::2, 1::2] = grid, square
    finer[:, ::2, 1::2], finer[:, 1::2, ::2] = in_row, in_col
    return finer


def _spatter(x, a, b):
    liquid = gaussian_filter(a.normal(0.65, 0.3, x.shape), (0, 1, 1), mode="nearest")
    mask = gaussian_filter((liquid > 0.65).astype(float), (0, 1.5, 1.5), mode="nearest")
    mask[mask < 0.8] = 0
    return _floor(x / 255 * (1 - mask) + 63 / 255 * mask)


# Lines.


def _line(col0, row0, col1, row1):
    """Soft lines, one an image: (n, 28, 28) intensities in 0..1 from four (n,) ends.

    A line covers the columns from floor(col0) up to, and not including, ceil(col1).
    """
    col0, row0, col1, row1 = (end[:, None, None] for end in (col0, row0, col1, row1))
    row, col = np.ogrid[:_SIDE, :_SIDE]
    distance = abs(row - ((row1 - row0) / (col1 - col0) * (col - col0) + row0))
    # The ink is gone where 1 - distance / 2.3 is 1/e: stopping there keeps the
    # logarithm finite.
    ink = np.maximum(np.log(np.maximum(1 - distance / 2.3, math.exp(-1))) + 1, 0)
    # Less a hair: an end on a whole column must not gain that column through a rounding
    # error.
    return ink * ((np.floor(col0) <= col) & (col < np.ceil(col1 - 1e-9)))


def _dotted_line(x, a, b):
    row0, row1 = a.integers(27, size=(len(x), 2)).T
    line = _line(np.zeros(len(x)), row0, np.full(len(x), 27), row1)
    return _floor(x / 255 + line * (np.arange(_SIDE) // 2 % 2))


def _zigzag(x, a, b):
    start, rise = a.integers(27, size=len(x)), b.integers(-5, 5, size=len(x))
    angle = np.arctan(rise / 23)
    length = 23 / np.cos(angle)
    # Along the tilted axis: out from the start, six turns alternately on either side of
    # the axis (the length is 23 to 23.6, so never a seventh), then back to its end: not
    # quite to the axis itself, but to where the reference generator closes.
    along, aside = np.empty((2, 8, len(x)))
    along[:-1] = np.array([0, 2, 6, 10, 14, 18, 22])[:, None]
    aside[:-1] = np.array([0, 2, -2, 2, -2, 2, -2])[:, None]
    along[-1], aside[-1] = length, -1 / (length - 20)
    col = along * np.cos(angle) - aside * np.sin(angle) + 2
    row = along * np.sin(angle) + aside * np.cos(angle) + start
    # Ink is never negative, so clipping once at the end equals clipping after each
    # segment.
    return _floor(
        sum((_line(*ends) for ends in zip(col, row, col[1:], row[1:])), start=x / 255)
    )


def _canny_edges(x, a, b):
    # Here: scikit-image is slow to import, and only this uses it
    from skimage.feature import canny

    edges = [
        canny(
            image / 255, sigma=1, low_threshold=0.1, high_threshold=0.2, mode="constant"
        )
        for image in x
    ]
    return 255 * np.array(edges, dtype=np.uint8)


_TABLE = {  # in the order of the release; the order also seeds the streams
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "shear": _shear,
    "scale": _scale,
    "rotate": _rotate,
    "brightness": _brightness,
    "translate": _translate,
    "stripe": _stripe,
    "fog": _fog,
    "spatter": _spatter,
    "dotted_line": _dotted_line,
    "zigzag": _zigzag,
    "canny_edges": _canny_edges,
}

#: Names of the 15 corruptions, in the order of the released data set.
CORRUPTIONS = tuple(_TABLE)
