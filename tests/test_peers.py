"""The measures against other libraries, on the same arrays; those not installed are skipped."""

import pytest

import wcka


@pytest.fixture(scope="module")
def real(trained, digits):
    """Last hidden activations, without dead units, of two trained networks on 256 real digits."""
    activations = trained[[3, 4]].activations(digits[0][:256], 4).double()
    return [a[:, a.amax(0) > 0] for a in activations]


def test_ckatorch(real):
    core = pytest.importorskip("ckatorch.core")
    x, y = real
    for method in ("fro_norm", "hsic"):
        assert wcka.cka(x, y) == pytest.approx(float(core.cka_base(x, y, method=method)), abs=1e-12)
    assert wcka.unbiased_cka(x, y) == pytest.approx(
        float(core.cka_base(x, y, unbiased=True)), abs=1e-12)
    batches = [z.reshape(4, 64, -1) for z in (x, y)]
    assert wcka.minibatch_cka(x, y, 64) == pytest.approx(float(core.cka_batch(*batches)), abs=1e-12)
    # It takes the median over all entries of the squared distances, the diagonal's zeros too.
    assert wcka.rbf_cka(x, y) == pytest.approx(float(core.cka_base(x, y, "rbf")), abs=1e-3)


def test_pytorch_cka(real):
    peer = pytest.importorskip("cka")
    x, y = real
    assert wcka.unbiased_cka(x, y) == pytest.approx(float(peer.cka_from_features(x, y)), abs=1e-12)


def test_torch_cka(real):
    peer = pytest.importorskip("torch_cka").CKA
    hsic = peer._HSIC
    x, y = (z.float() for z in real)
    kernels = [(z @ z.T).fill_diagonal_(0) for z in (x, y)]
    own = type("Peer", (), {"device": "cpu"})
    xy, xx, yy = (hsic(own, *each) for each in (kernels, kernels[:1] * 2, kernels[1:] * 2))
    assert wcka.unbiased_cka(x, y) == pytest.approx(xy / (xx * yy)**0.5, abs=1e-5)


def test_rsatoolbox(real):
    """Its whitened unbiased cosine of squared distances is linear CKA."""
    rsa = pytest.importorskip("rsatoolbox")
    rdms = [rsa.rdm.calc_rdm(rsa.data.Dataset(z.numpy()), method="euclidean") for z in real]
    found = rsa.rdm.compare(*rdms, method="cosine_cov")
    assert wcka.cka(*real) == pytest.approx(float(found.item()), abs=1e-9)


def test_simtorch(real, digits):
    similarity = pytest.importorskip("simtorch.similarity")
    x, y = (z.float() for z in real)
    inputs = digits[0][:256]

    def peer(kind, **kw):
        own = kind.__new__(kind)  # its constructor wants networks
        own.device = "cpu"
        vars(own).update(kw)
        return own, [(u := own._normalize(z)) @ u.T for z in (x, y)]

    own, kernels = peer(similarity.CKA)
    assert wcka.cka(x, y) == pytest.approx(float(own.linear_CKA(*kernels)), abs=1e-5)
    for psd in (False, True):
        own, kernels = peer(similarity.DeltaCKA, remove_negative_eig=psd)
        found = float(own.linear_CKA(*kernels, inputs)[0])
        assert wcka.dcka(x, y, inputs, psd=psd) == pytest.approx(found, abs=2e-3)


def test_repsim(real):
    peer = pytest.importorskip("repsim")
    x, y = (z.numpy() for z in real)
    assert wcka.cka(x, y) == pytest.approx(peer.cka([x, y], "linear", "gretton")[0, 1], abs=1e-12)
    both = (wcka.pwcca(x, y) + wcka.pwcca(y, x)) / 2
    assert both == pytest.approx(peer.pwcca([x, y])[0, 1], abs=1e-9)
    # It takes a basis of the uncentred columns first: a third representation, centred, agrees.
    x, y = x - x.mean(0), y - y.mean(0)
    assert wcka.mean_cca(x, y) == pytest.approx(peer.cca([x, y], "pillai")[0, 1], abs=1e-9)
