"""Shares of p-values below a level: their fast sums, their errors, and the record."""

import numpy as np
import pandas as pd
import pytest
import torch

import wcka
from wcka.book import checkout
from wcka.experiments import null_sizes as study
from wcka.measures.inner_products import Representation

RECORD = checkout.ROOT / "book" / "results" / "null-sizes.json"


@pytest.mark.parametrize("n", [7, 8])  # an even number of rows has a middle diagonal
@pytest.mark.parametrize("kind", ["normal", "t2"])
def test_shifted_products_are_similarities_of_shifted_rows(kind, n):
    rng = np.random.default_rng(0)
    x, y = study.KINDS[kind](rng, n, 3), study.KINDS[kind](rng, n, 5)
    spectra = []
    for values in (x, y):
        model = Representation(torch.from_numpy(values))
        spectra.append(study.diagonal_spectra(model.rows()))
    expected = [wcka.cka(x, np.roll(y, -shift, 0)) for shift in range(n)]
    values = study.shifted_products(*spectra, n).numpy()
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_shares_are_those_of_null_distributions(kind, monkeypatch):
    """Counted again with p-values of single pairs, whose rows are shifted by hand."""
    n, d, models = 12, 3, 4
    monkeypatch.setattr(study, "LEVELS", (0.5, 0.2))
    sizes = study.level_shares.__wrapped__(kind, n, d, models, seed=3)
    rng = np.random.default_rng([3, n, d, list(study.KINDS).index(kind)])
    features = [study.KINDS[kind](rng, n, d) for _ in range(models)]
    p = []
    for i, j in zip(*np.triu_indices(models, 1)):
        for shift in range(n):
            p.append(wcka.null(features[i], np.roll(features[j], -shift, 0)).p)
    assert sizes.p_values.tolist() == [len(p)] * 2
    expected = [np.mean(np.array(p) <= level) for level in (0.5, 0.2)]
    assert sizes.share.tolist() == pytest.approx(expected)
    assert (sizes.share <= sizes.fitted).all() and (sizes.error > 0).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="did you mean 'normal'"):
        study.level_shares("normla", 20, 2, 3)


def test_a_record_has_three_lines_of_each_kind_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("WCKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "_MODELS", {10: 4, 20: 3})
    monkeypatch.setattr(study, "_WIDTHS", (2,))
    study.write_record(tmp_path / "sizes.json", jobs=1)
    table = pd.read_json(tmp_path / "sizes.json", lines=True)
    assert len(table) == 2 * len(study.KINDS) * len(study.LEVELS)
    assert set(table.p_values) == {60}


# ------------------------------------------------------------------------- the record


@pytest.fixture(scope="module")
def record():
    table = pd.read_json(RECORD, lines=True)
    return table.assign(
        ratio=table.share / table.level, relative_error=table.error / table.level)


def test_the_record_has_at_least_100000_p_values_of_each_kind_and_size(record):
    sizes = {(n, d) for n in study._MODELS for d in study._WIDTHS}
    assert set(zip(record.n, record.d)) == sizes
    assert set(record.kind) == set(study.KINDS)
    assert len(record) == len(sizes) * len(study.KINDS) * len(study.LEVELS)
    assert record.p_values.min() >= 100_000


@pytest.mark.parametrize("kind", ["normal", "dependent", "decaying", "rectified"])
def test_of_rows_of_similar_length_p_is_right_at_5_and_1_percent(kind, record):
    rows = record[(record.kind == kind) & (record.level > 0.001)]
    assert rows.ratio.between(0.9, 1.1).all()


def test_no_share_is_clearly_above_its_level(record):
    """By 5 % and three standard errors; where p is made larger, shares are smaller."""
    assert (record.ratio < 1.05 + 3 * record.relative_error).all()
    assert (record.share <= record.fitted + 1e-6).all()
