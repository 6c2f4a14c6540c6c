"""What chapters compute by functions of their own, against small cases by hand."""

import pandas as pd
import pytest
from chapter_code import chapter_function

from wcka.book import checkout
from wcka.experiments import benchmark, summaries

# ------------------------------------------------------------------- 3, of one network


@pytest.mark.parametrize(("starts", "expected"), [("AB", False), ("ABC", True)])
def test_starts_of_either_side_of_a_pair_count(starts, expected):
    """Three starts make three pairs, whose first sides are two starts only."""
    first_sides, second_sides = [], []
    for i, start in enumerate(starts):
        for other in starts[i + 1:]:
            first_sides.append(start)
            second_sides.append(other)
    of_factor = pd.DataFrame({"start a": first_sides, "start b": second_sides})
    rows = pd.concat([of_factor.assign(differs=f) for f in benchmark.FACTORS])
    are_enough = chapter_function(
        "03", "are_enough", summaries=summaries, benchmark=benchmark,
        rows_of=lambda models: rows,
        last_members=pd.DataFrame({"model": list("ABC")}),
        kind_of_network=pd.Series("standard", index=range(3)))
    assert are_enough(list("ABC")) == expected


# -------------------------------------------- 6 and 7, of images that were learned from


@pytest.mark.parametrize("chapter", ["06", "07"])
def test_chapters_ask_training_rows_which_images_were_learned_from(chapter):
    """The first images of the file are others."""
    path, = checkout.NOTEBOOKS.glob(f"{chapter}-*.py")
    code = path.read_text("utf-8")
    assert "training_rows(" in code
    assert "[:train_images]" not in code and 'b"images"' not in code
