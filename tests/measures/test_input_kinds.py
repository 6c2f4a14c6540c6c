"""Kinds of input: what is read, and the errors that say how to convert the rest."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import wcka
from wcka.measures import validation
from wcka.measures.predictions import agreement, collapsed, pairwise_agreement

X = np.random.default_rng(0).standard_normal((6, 3))
CUBES = torch.from_numpy(X**3)


def quantised(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


def sparse_rows(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor.to_sparse_csr()


def nested(tensor):
    return torch.nested.nested_tensor([tensor, tensor[:2]], layout=torch.jagged)


@pytest.mark.parametrize("kind, error, words", [
    (lambda: np.ma.masked_less(X, 0), TypeError, "masked array; fill it first"),
    (lambda: pd.DataFrame(X).astype("Float64"), TypeError, r"\.to_numpy\(float\)"),
    (lambda: X.astype(object), TypeError, r"\.to_numpy\(float\)"),
    (lambda: scipy.sparse.csr_matrix(X), TypeError, r"csr_matrix.*\.toarray\(\)"),
    (lambda: CUBES.to(torch.float8_e4m3fn), TypeError, r"float8_e4m3fn.*\.float\(\)"),
    (lambda: CUBES.to_sparse(), TypeError, r"sparse.*\.to_dense\(\)"),
    (lambda: sparse_rows(CUBES), TypeError, r"sparse.*\.to_dense\(\)"),
    (lambda: CUBES.to("meta"), TypeError, "meta, which holds none"),
    (lambda: quantised(CUBES), TypeError, r"qint8.*\.dequantize\(\)"),
    (lambda: nested(CUBES), TypeError, "nested tensor; give each"),
    (lambda: [[1.0, 2.0], [3.0], [4.0, 5.0]], ValueError, "all of one length"),
    (lambda: [torch.ones(3, requires_grad=True)] * 6, TypeError, "detach"),
    (lambda: None, TypeError, "real numbers, got dtype object of type NoneType"),
])
def test_a_kind_that_cannot_be_read_is_named_with_its_conversion(kind, error, words):
    values = kind()
    calls = [
        lambda: wcka.cka(X, values),
        lambda: wcka.pairwise("procrustes", [values, X]),
        lambda: wcka.dcka(X, X**2, values),
    ]
    for call in calls:
        with pytest.raises(error, match=words):
            call()


def test_pyarrow_columns_are_named_with_their_conversion():
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X).astype("double[pyarrow]")
    with pytest.raises(TypeError, match=r"\.to_numpy\(float\)"):
        wcka.cka(X, table)
    assert wcka.cka(X**2, table.to_numpy(float)) == wcka.cka(X**2, X)


def test_masked_arrays_without_a_mask_are_read():
    unmasked = np.ma.masked_array(X, np.zeros(X.shape, dtype=bool))
    assert wcka.cka(X**2, unmasked) == wcka.cka(X**2, X)
    assert wcka.dcka(X**2, X**3, unmasked[:, :1]) == wcka.dcka(X**2, X**3, X[:, :1])


@pytest.mark.parametrize("name, option, values", [
    ("rbf_cka", "sigma", ["a", None, 1e300, 1e-300, float("inf"), 1j]),
    ("minibatch_cka", "batch_size", ["a", None, float("nan"), float("inf"), "8"]),
    ("svcca", "variance", ["a", None, float("nan"), [0.9]]),
])
def test_an_option_that_is_no_number_is_a_value_error(name, option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option}: wanted a .*, got "):
            getattr(wcka, name)(X, X, **{option: value})


def test_options_may_be_numbers_of_numpy_and_torch():
    expected = wcka.rbf_cka(X, X**2, 2.0)
    for sigma in (2, np.float32(2), np.array(2), torch.tensor(2.0)):
        assert wcka.rbf_cka(X, X**2, sigma) == expected


class WithoutFloat64(torch.Tensor):
    """Stand-in for a tensor on Apple's MPS, which has no float64."""

    @property
    def device(self):
        return torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("MPS has no float64")


def on_mps(values):
    return torch.as_tensor(values).as_subclass(WithoutFloat64)


def test_data_on_a_device_without_float64_is_moved_to_the_cpu():
    x = torch.from_numpy(X).float()
    inputs = x[:, :1]
    assert type(validation.with_float64(on_mps(x))) is torch.Tensor
    assert validation.with_float64(x) is x
    assert wcka.cka(on_mps(x), on_mps(x**2)) == wcka.cka(x, x**2)
    assert wcka.cka(on_mps(x.int()), x) == wcka.cka(x.int(), x)
    on_device = wcka.dcka(on_mps(x**2), on_mps(x**3), on_mps(inputs))
    assert on_device == wcka.dcka(x**2, x**3, inputs)


def test_agreement_of_labels_on_a_device_without_float64(monkeypatch):
    monkeypatch.setattr(validation, "WITHOUT_FLOAT64", ("cpu",))
    moves = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: moves.append(tensor.dtype) or cpu(tensor))
    labels = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 0]])
    assert agreement(*labels) == 0.5 and moves
    moves.clear()
    assert pairwise_agreement(labels)[0, 1] == 0.5 and torch.float32 in moves
    moves.clear()
    assert collapsed(labels, 0.75).tolist() == [False, False] and torch.bool in moves
