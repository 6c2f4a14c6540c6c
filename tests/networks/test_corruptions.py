"""Each corruption against a second, plain definition; then what all 15 share."""

import cmath
import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, gaussian_filter

from wcka.networks import corruptions
from wcka.networks.corruptions import _TABLE, CORRUPTIONS, corrupt

DRAWLESS = {"scale", "brightness", "stripe", "canny_edges"}
SIZE = range(28)


def strokes(n, seed=0):
    """Digit-like images: a thick grey ring, open on one side, and a bar, on black."""
    rng = np.random.default_rng(seed)
    row, col = np.indices((28, 28))
    images = np.zeros((n, 28, 28))
    for image in images:
        y, x, radius = [*rng.uniform(11, 16, 2).tolist(), rng.uniform(4, 8)]
        ring = np.abs(np.hypot(row - y, col - x) - radius)
        ring[np.cos(np.arctan2(row - y, col - x) - rng.uniform(0, 6.3)) > 0.7] = 9
        bar = np.abs((row - y) * math.cos(x) + (col - x) * math.sin(x)) + 9 * (
            ring > radius
        )
        image[:] = np.clip(2.5 - np.minimum(ring, bar), 0, 1)
    return (images * rng.uniform(200, 256, images.shape)).astype(np.uint8)


def grey(seed, n=2):
    return np.random.default_rng(seed).integers(256, size=(n, 28, 28), dtype=np.uint8)


any_images = st.integers(0, 2**32 - 1).map(grey)
few_examples = settings(max_examples=15, deadline=None)


def apply(name, images, seed=3):
    """Corrupt images by streams that a test can replay; `replay` gives copies."""
    return _TABLE[name](images, *replay(seed))


def replay(seed=3):
    return np.random.default_rng(seed), np.random.default_rng(seed + 1)


def assert_floored(out, u):
    """Assert that `out` is u in [0, 1] floored to 8 bits; a whole number may be lower.
    """
    exact = 255 * np.clip(u, 0, 1)
    assert (np.floor(exact - 1e-9) <= out).all()
    assert (out <= np.floor(exact + 1e-9)).all()


def assert_share(hits, probability):
    """Assert that a share of events is within five standard errors of a probability."""
    error = math.sqrt(probability * (1 - probability) / hits.size)
    assert abs(hits.mean() - probability) < 5 * error


# Each corruption


def test_names_are_the_released_ones_in_order():
    assert CORRUPTIONS == (
        "shot_noise",
        "impulse_noise",
        "glass_blur",
        "motion_blur",
        "shear",
        "scale",
        "rotate",
        "brightness",
        "translate",
        "stripe",
        "fog",
        "spatter",
        "dotted_line",
        "zigzag",
        "canny_edges",
    )


@pytest.mark.parametrize("level", [20, 128, 255])
def test_shot_noise_is_poisson_in_thirds(level):
    out = corrupt(np.full((300, 28, 28), level, np.uint8), "shot_noise")
    rate = 3 * level / 255
    assert set(np.unique(out)) <= {0, 85, 170, 255}
    remaining = 1.0
    for count in range(3):
        probability = math.exp(-rate) * rate**count / math.factorial(count)
        assert_share(out == 85 * count, probability)
        remaining -= probability
    assert_share(out == 255, remaining)


def test_shot_noise_leaves_black_black():
    assert not corrupt(np.zeros((50, 28, 28), np.uint8), "shot_noise").any()


def test_impulse_noise_hits_17_percent_half_of_them_white():
    out = corrupt(np.full((300, 28, 28), 100, np.uint8), "impulse_noise")
    hit = out != 100
    assert set(np.unique(out)) == {0, 100, 255}
    assert_share(hit, 0.17)
    assert_share(out[hit] == 255, 0.5)


def test_glass_blur_is_blur_two_passes_of_swaps_blur():
    images = strokes(3)
    coins, shifts = replay()
    heads = coins.integers(2, size=(3, 2 * 26 * 26))
    moves = shifts.integers(-1, 1, size=(3, 2 * 26 * 26, 2))
    for k, out in enumerate(apply("glass_blur", images)):
        x = np.floor(255 * gaussian_filter(images[k] / 255, (0.7, 0), mode="nearest"))
        one_pass = list(product(range(27, 1, -1), range(27, 1, -1)))
        for (h, w), head, (dx, dy) in zip([*one_pass, *one_pass], heads[k], moves[k]):
            if head:
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
        expected = np.floor(255 * gaussian_filter(x / 255, (0.7, 0), mode="nearest"))
        np.testing.assert_array_equal(out, expected)


def test_glass_blur_does_not_mix_columns_without_swaps():
    class Tails:
        def integers(self, *bounds, size):
            return np.zeros(size, int)

    image = np.zeros((1, 28, 28), np.uint8)
    image[:, :, 14] = 200
    out = _TABLE["glass_blur"](image, Tails(), replay()[1])
    assert np.flatnonzero(out.any(axis=(0, 1))).tolist() == [14]


def test_motion_blur_is_the_one_sided_kernel_along_the_angle():
    images = strokes(3)
    weights = np.exp(-np.arange(21) ** 2 / 18)
    weights = (weights / weights.sum()).tolist()
    for x, degrees, out in zip(images, replay()[0].uniform(-45, 45, 3),
                               apply("motion_blur", images)):
        angle = math.radians(degrees)
        for r in SIZE:
            for c in SIZE:
                total = 0.0
                for i, weight in enumerate(weights):
                    right = math.ceil(i * math.cos(angle) - 0.5)
                    down = math.ceil(i * math.sin(angle) - 0.5)
                    near = x[min(max(r + down, 0), 27), min(max(c + right, 0), 27)]
                    total += weight * float(near)
                assert out[r, c] == round(total)


@few_examples
@given(st.integers(0, 255), st.integers(0, 2**32))
def test_blurs_keep_a_constant_image(level, seed):
    images = np.full((2, 28, 28), level, np.uint8)
    assert (corrupt(images, "motion_blur", seed) == level).all()
    # Two floors: each may take one off a whole number that came out a rounding error
    # lower.
    assert np.isin(
        corrupt(images, "glass_blur", seed), (level, level - 1, level - 2)
    ).all()


def about_centre(matrix):
    """Return the map from output to input about the middle, as scipy takes it."""
    matrix = np.array(matrix)
    return matrix, 13.5 - matrix @ (13.5, 13.5)


def shear_by(angle):
    return about_centre([[math.cos(angle), 0], [-math.sin(angle), 1]])


def rotation_by(angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return about_centre([[cos, sin], [-sin, cos]])


def translation_by(dy, dx):
    return np.eye(2), np.array([dy, dx])


WARPS = {
    "shear": [shear_by(-0.4), shear_by(0.4)],
    "scale": [about_centre([[1 / 0.7, 0], [0, 1 / 0.7]])],
    "rotate": [rotation_by(-0.4), rotation_by(0.4)],
    "translate": [translation_by(-3, -3), translation_by(-3, 3), translation_by(3, -3),
                  translation_by(3, 3)],
}


@pytest.mark.parametrize(
    "make", [strokes, lambda n: grey(5, n)], ids=["strokes", "to the border"])
@pytest.mark.parametrize("name", WARPS)
def test_warps_are_affine_and_every_variant_is_drawn(name, make):
    images = make(40)
    variants = set()
    for x, out in zip(images, corrupt(images, name)):
        warped = []
        for warp in WARPS[name]:
            warped.append(
                affine_transform(x / 255, *warp, order=1, mode="grid-constant"))
        differences = np.abs(out - 255 * np.array(warped)).max(axis=(1, 2))
        nearest = int(differences.argmin())
        assert_floored(out, warped[nearest])
        variants.add(nearest)
    assert variants == set(range(len(WARPS[name])))


@given(st.integers(0, 2**32))
@few_examples
def test_translate_moves_whole_pixels(seed):
    images = grey(seed, 1)
    out = corrupt(images, "translate", seed)[0]
    padded = np.pad(images[0], 3)
    shifted = []
    for r, c in product((0, 6), (0, 6)):
        shifted.append(padded[r:r + 28, c:c + 28])
    assert (out == np.array(shifted)).all(axis=(1, 2)).any()


@few_examples
@given(any_images)
def test_brightness_adds_half(images):
    expected = []
    for value in images.ravel().tolist():
        expected.append(math.floor(255 * min(value / 255 + 0.5, 1)))
    assert corrupt(images, "brightness").ravel().tolist() == expected


@few_examples
@given(any_images)
def test_stripe_inverts_the_outer_columns(images):
    out = corrupt(images, "stripe")
    for c in SIZE:
        expected = 255 - images[:, :, c] if c < 7 or c > 20 else images[:, :, c]
        np.testing.assert_array_equal(out[:, :, c], expected)
    np.testing.assert_array_equal(corrupt(out, "stripe"), images)


def plasma(draws, side=256):
    """Return a diamond-square map, cell by cell, from uniform draws in [0, 1)."""
    a = np.zeros((side, side))
    step = side
    wobble = 100.0
    draws = iter(draws.tolist())
    while step >= 2:
        half = step // 2
        for down, right, around in (
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(0, -half), (0, half), (-half, 0), (half, 0)]),
            (half, 0, [(0, -half), (0, half), (-half, 0), (half, 0)]),
        ):
            for r in range(down, side, step):
                for c in range(right, side, step):
                    total = 0.0
                    for y, x in around:
                        total += a[(r + y) % side, (c + x) % side]
                    a[r, c] = total / 4 + wobble * (2 * wobble * next(draws) - wobble)
        step = half
        wobble = wobble / 1.4
    assert next(draws, None) is None
    return (a - a.min()) / (a.max() - a.min())


def test_fog_is_diamond_square_in_the_corner():
    images = strokes(2)
    images[1] //= 2  # the strength of the fog follows the brightest pixel
    draws = replay()[0].random((2, 256 * 256 - 1))
    for x, drawn, out in zip(images, draws, apply("fog", images)):
        brightest = x.max() / 255
        fog = 3 * plasma(drawn)[:28, :28]
        assert_floored(out, (x / 255 + fog) * brightest / (brightest + 3))


def test_fog_on_black_is_black():
    assert not corrupt(np.zeros((1, 28, 28), np.uint8), "fog").any()


def blurring(sigma):
    """Return the Gaussian blur of one axis, edge pixels repeated, as a matrix."""
    matrix = np.zeros((28, 28))
    reach = int(4 * sigma + 0.5)  # four sigmas on each side
    for i in SIZE:
        for k in range(-reach, reach + 1):
            matrix[i, min(max(i + k, 0), 27)] += math.exp(-k * k / (2 * sigma**2))
    return matrix / matrix.sum(axis=1, keepdims=True)


def test_spatter_is_mud_where_the_liquid_is_thick():
    images = strokes(6)
    wide, wider = blurring(1), blurring(1.5)
    muddy = 0
    for x, liquid, out in zip(images, replay()[0].normal(0.65, 0.3, images.shape),
                              apply("spatter", images)):
        mask = wider @ (wide @ liquid @ wide.T > 0.65) @ wider.T
        mask[mask < 0.8] = 0
        assert_floored(out, x / 255 * (1 - mask) + 63 / 255 * mask)
        muddy += (mask > 0).sum()
    assert muddy > 50


def profile(r, c, start, end):
    """Return the ink of a line at one pixel; its ends are complex, column + i row."""
    if not math.floor(start.real) <= c < math.ceil(end.real):
        return 0.0
    slope = (end.imag - start.imag) / (end.real - start.real)
    distance = abs(r - start.imag - slope * (c - start.real))
    return max(0.0, math.log(1 - distance / 2.3) + 1) if distance < 2.3 else 0.0


def line_of(start, end, columns=SIZE):
    """Return the ink of a line at all pixels of these columns, 0 elsewhere."""
    ink = np.zeros((28, 28))
    for r, c in product(SIZE, columns):
        ink[r, c] = profile(r, c, start, end)
    return ink


def test_dotted_line_adds_dashes_of_a_soft_line():
    images = strokes(5)
    inked = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]
    ends = replay()[0].integers(27, size=(5, 2)).tolist()
    for x, (r0, r1), out in zip(images, ends, apply("dotted_line", images)):
        line = line_of(complex(0, r0), complex(27, r1), inked)
        assert_floored(out, x / 255 + line)
        assert not (out != x)[:, sorted(set(SIZE) - set(inked))].any()
        assert (out != x).any()


def test_zigzag_adds_seven_soft_segments():
    images = strokes(12)
    start_stream, rise_stream = replay()
    starts = start_stream.integers(27, size=12).tolist()
    rises = rise_stream.integers(-5, 5, size=12).tolist()
    assert min(rises) < 0 < max(rises)
    for x, r0, rise, out in zip(images, starts, rises, apply("zigzag", images)):
        axis = complex(23, rise)
        length = abs(axis)
        corners = [0]  # along the axis, and aside from it
        for i in range(int((length - 2) // 4) + 1):
            corners.append(complex(4 * i + 2, 2 * (-1) ** i))
        corners.append(complex(length, -1 / (length - 20)))
        direction = cmath.exp(1j * cmath.phase(axis))
        points = []
        for corner in corners:
            points.append(complex(2, r0) + corner * direction)
        u = x / 255
        for start, end in pairwise(points):
            # Ends on column 25, where a column more hangs on a rounding error
            if rise == 0:
                end = complex(min(end.real, 25), end.imag)
            u = np.clip(u + line_of(start, end), 0, 1)
        assert_floored(out, u)


def test_canny_edges_are_those_of_scikit_image():
    canny = pytest.importorskip("skimage.feature").canny
    # Its edge fades out, and shows the low threshold
    wedge = np.zeros((1, 28, 28), np.uint8)
    wedge[0, 14:] = np.linspace(0, 40, 28)
    # These show the high one
    faded = (strokes(4) * np.linspace(0, 1, 28)).astype(np.uint8)
    images = np.concatenate([strokes(4), wedge, faded])
    expected = np.array([canny(x / 255, sigma=1) for x in images])
    assert expected.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(
        corrupt(images, "canny_edges"), np.where(expected, 255, 0)
    )


# All of them


@pytest.fixture(scope="module")
def images():
    images = strokes(7, seed=1)
    images.flags.writeable = False
    return images


@pytest.mark.parametrize("name", CORRUPTIONS)
class TestEvery:
    def test_returns_new_uint8_images_that_differ(self, images, name):
        before = images.copy()
        out = corrupt(images, name)
        np.testing.assert_array_equal(images, before)
        assert out.dtype == np.uint8 and out.shape == images.shape
        assert not np.shares_memory(out, images)
        assert (out != images).any(axis=(1, 2)).all()

    def test_the_seed_and_nothing_else_decides(self, images, name):
        state = repr(np.random.get_state())
        first = corrupt(images, name, seed=5)
        assert repr(np.random.get_state()) == state
        np.testing.assert_array_equal(corrupt(images, name, seed=5), first)
        # Seven images: shear and rotate have 2^7 outcomes, so two seeds may agree, six
        # cannot.
        is_same = []
        for seed in range(5):
            is_same.append((corrupt(images, name, seed) == first).all())
        assert all(is_same) == (name in DRAWLESS)

    def test_images_do_not_depend_on_those_beside_them(self, images, name):
        out = corrupt(images, name)
        np.testing.assert_array_equal(corrupt(images[:4], name), out[:4])
        changed = images.copy()
        changed[:3] = 255 - changed[:3]
        np.testing.assert_array_equal(corrupt(changed, name)[3:], out[3:])

    def test_the_size_of_a_batch_changes_nothing(self, images, name, monkeypatch):
        out = corrupt(images, name)
        monkeypatch.setattr(corruptions, "_BATCH", 3)
        monkeypatch.setattr(corruptions, "_FOG_BATCH", 2)
        np.testing.assert_array_equal(corrupt(images, name), out)

    def test_bad_input_is_refused(self, images, name):
        for bad, error, message in [
            (images[:0], ValueError, r"at least one image.*\(0, 28, 28\)"),
            (images[0], ValueError, r"\(n, 28, 28\), got \(28, 28\)"),
            (images[:, None], ValueError, r"got \(7, 1, 28, 28\)"),
            (images[:, :27], ValueError, r"got \(7, 27, 28\)"),
            (images / 255, TypeError, "uint8.*got float64"),
            (images.astype(int), TypeError, "uint8.*got int64"),
            (images > 0, TypeError, "uint8.*got bool"),
        ]:
            with pytest.raises(error, match=message):
                corrupt(bad, name)


def test_every_draw_of_every_corruption_has_a_stream_of_its_own(images, monkeypatch):
    first_draws = []

    def spy(x, a, b):
        first_draws.extend([a.random(), b.random()])
        return x

    for name in CORRUPTIONS:
        monkeypatch.setitem(_TABLE, name, spy)
        corrupt(images, name)
    assert len(set(first_draws)) == 2 * len(CORRUPTIONS)


def test_a_prefix_across_a_whole_batch_is_the_same():
    images = strokes(300, seed=2)
    for name in ("shot_noise", "motion_blur", "translate", "zigzag"):
        out = corrupt(images, name)
        np.testing.assert_array_equal(corrupt(images[:260], name), out[:260])


def test_torch_images_are_accepted(images):
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(corrupt(torch.tensor(images), "rotate"),
                                  corrupt(images, "rotate"))


@pytest.mark.parametrize("wrong, meant", [
    ("motionblur", "motion_blur"), ("Shear", "shear"), ("cany_edges", "canny_edges")])
def test_an_unknown_name_gives_the_nearest_and_the_list(images, wrong, meant):
    with pytest.raises(
        ValueError, match=f"'{wrong}'.*'{meant}'.*shot_noise, impulse_noise"
    ):
        corrupt(images, wrong)


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_name_like_none_of_them_is_refused_too(images, name):
    with pytest.raises(ValueError, match="unknown corruption"):
        corrupt(images, name)


@pytest.mark.parametrize("seed, error", [
    (-1, ValueError), (0.0, TypeError), ("0", TypeError), (None, TypeError),
    (True, TypeError), (np.True_, TypeError)])
def test_a_bad_seed_is_refused(images, seed, error):
    with pytest.raises(error, match="seed must"):
        corrupt(images, "stripe", seed)


def test_any_integer_type_makes_the_same_seed(images):
    np.testing.assert_array_equal(corrupt(images, "impulse_noise", np.int64(2**40)),
                                  corrupt(images, "impulse_noise", 2**40))
