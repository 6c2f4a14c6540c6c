"""Lists and ranges of a chapter's parameters, refused before any work starts."""

import pytest

from wcka.book.ranges import distinct, within


def test_lists():
    distinct(seeds=(range(3), 3), heads=([[8], [8, 8]], 2))
    message = r"heads: wanted at least 1, all different; got \[\[8\], "
    with pytest.raises(ValueError, match=message):
        distinct(heads=([[8], [8]], 1))
    with pytest.raises(ValueError, match="seeds: wanted at least 3"):
        distinct(classes=([0, 1], 2), seeds=(range(2), 3))


def test_ranges():
    within(eps=(0, 0, 1), steps=(3, 1, 1000))
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="eps: wanted 0 to 1, got"):
            within(eps=(value, 0, 1))
