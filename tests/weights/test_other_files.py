"""Files that look like a network of another kind, or hold more than one."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import wcka
from wcka.cli import main
from wcka.weights import (
    chance,
    checkpoints,
    comparison,
    formats,
    kinship,
    wiring,
)


def named(seed, *layers):
    """A network of layers (name, inputs, outputs), and its state dict."""
    torch.manual_seed(seed)
    module = nn.Module()
    for name, inputs, outputs in layers:
        module.add_module(name, nn.Linear(inputs, outputs))
    return module


def chain_of(module):
    """The product of a network's matrices (in, out), by NumPy."""
    product = np.eye(next(module.children()).in_features)
    for layer in module.children():
        product = product @ layer.weight.detach().double().numpy().T
    return product


def cka(x, y):
    x = x - x.mean(0)
    y = y - y.mean(0)
    norm = np.linalg.norm
    return norm(x.T @ y)**2 / norm(x.T @ x) / norm(y.T @ y)


def mlp(seed, widths=(8, 6, 3)):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(widths[0], widths[1]), nn.ReLU(), nn.Linear(widths[1], widths[2]))


def saved(path, content):
    torch.save(content, path)
    return str(path)


def value(*paths, **options):
    result = comparison.compare_files(list(map(str, paths)), **options)
    return result["all"]["wcka"][0][1]


# ------------------------------------------------------------ layers by their names


@pytest.mark.parametrize("name", ["f1", "acc", "recall", "metric", "perplexity"])
def test_a_layer_may_be_called_like_a_metric(tmp_path, name):
    layers = ((name, 8, 16), ("f2", 16, 16), ("f3", 16, 3))
    networks = [named(seed, *layers) for seed in range(2)]
    paths = [saved(tmp_path / f"{i}.pt", network.state_dict())
             for i, network in enumerate(networks)]
    expected = cka(*map(chain_of, networks))
    assert value(*paths) == pytest.approx(expected, abs=1e-10)
    assert value(*paths, order=[name, "f2", "f3"]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", ["metric", "metrics.fid", "val_f1", "loss_fn.net"])
def test_a_network_within_a_metric_or_a_loss_is_none_of_the_chain(tmp_path, name):
    networks = [mlp(seed, (8, 6, 8)) for seed in range(2)]
    paths = []
    for i, network in enumerate(networks):
        state = {f"model.{key}": values for key, values in network.state_dict().items()}
        for key, values in mlp(9 + i, (8, 5, 8)).state_dict().items():
            state[f"{name}.{key}"] = values
        paths.append(saved(tmp_path / f"{i}.pt", {"state_dict": state}))
    assert value(*paths) == pytest.approx(wcka.wcka(*networks))


@pytest.mark.parametrize("parts", [
    {"stem": (8, 6, 6), "body": (6, 6, 6), "tail": (6, 6, 6), "out": (6, 4, 3)},
    {"encoder": (8, 6, 6), "projector": (6, 9, 6), "predictor": (6, 9, 6)}])
def test_parts_of_one_width_are_a_chain(tmp_path, parts):
    paths, chains = [], []
    for seed in range(2):
        modules = {name: mlp(10 * seed + i, widths)
                   for i, (name, widths) in enumerate(parts.items())}
        paths.append(saved(
            tmp_path / f"{seed}.pt", nn.ModuleDict(modules).state_dict()))
        chains.append(wcka.chain(nn.Sequential(*modules.values())).numpy())
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


def test_what_belongs_to_a_loss_is_left_out_and_said(tmp_path):
    network = mlp(0)
    state = {**network.state_dict(), "criterion.weight": torch.rand(9, 3),
             "val_accuracy.confmat": torch.rand(3, 3)}
    paths = [saved(tmp_path / "a.pt", state),
             saved(tmp_path / "b.pt", mlp(1).state_dict())]
    result = comparison.compare_files(paths)
    assert result["all"]["wcka"][0][1] == pytest.approx(wcka.wcka(network, mlp(1)))
    text = " ".join(result["assumed"])
    assert "criterion.weight, val_accuracy.confmat take no part" in text


@pytest.mark.parametrize("prefixes", [
    ("model.", "ema."), ("online_model.", "ema_model."), ("actor.", "actor_target."),
    ("encoder_q.", "encoder_k."), ("net.", "swa."), ("agent.net.", "agent.net_target."),
    ("model.", "ema.module."), ("diffusion.model.", "diffusion.model_ema.")])
def test_two_networks_alike_are_no_chain(tmp_path, prefixes):
    state = {}
    for prefix in prefixes:
        for name, values in mlp(0, (8, 5, 8)).state_dict().items():
            state[prefix + name] = values
    path = saved(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match="side by side"):
        value(path, path)


def test_an_encoder_and_its_decoder_are_a_chain(tmp_path):
    states = []
    for seed in range(2):
        parts = {"encoder": mlp(seed, (8, 6, 3)), "decoder": mlp(seed, (3, 6, 8))}
        states.append(nn.ModuleDict(parts).state_dict())
    paths = [saved(tmp_path / f"{i}.pt", state) for i, state in enumerate(states)]
    result = comparison.compare_files(paths)
    assert len(result["chains"][paths[0]]) == 4


@pytest.mark.parametrize("layers", [
    [("i2h", 20, 16), ("h2h", 16, 16), ("h2o", 16, 5)],
    [("hidden_to_hidden", 16, 16), ("out", 16, 5)],
    [("W_z", 8, 8), ("U_z", 8, 8), ("W_h", 8, 8), ("U_h", 8, 8), ("fc", 8, 3)],
    [("Wr", 8, 8), ("Ur", 8, 8), ("fc", 8, 3)]])
def test_recurrent_layers_written_by_hand_are_refused(tmp_path, layers):
    path = saved(tmp_path / "a.pt", named(0, *layers).state_dict())
    with pytest.raises(ValueError, match="recurrent"):
        value(path, path)


def test_a_layer_from_inputs_to_hidden_units_is_no_recurrent_one(tmp_path):
    networks = [named(seed, ("i2h", 20, 16), ("h2o", 16, 5)) for seed in range(2)]
    paths = [saved(tmp_path / f"{i}.pt", network.state_dict())
             for i, network in enumerate(networks)]
    assert value(*paths) == pytest.approx(cka(*map(chain_of, networks)), abs=1e-10)


def test_numbers_that_are_widths_are_no_order(tmp_path):
    layers = (("fc_64", 8, 64), ("fc_32", 64, 32), ("fc_3", 32, 3))
    networks = [named(seed, *layers) for seed in range(2)]
    expected = cka(*map(chain_of, networks))
    paths = [saved(tmp_path / f"{i}.pt", network.state_dict())
             for i, network in enumerate(networks)]
    assert value(*paths) == pytest.approx(expected, abs=1e-10)
    for i, network in enumerate(networks):
        save_file(network.state_dict(), tmp_path / f"{i}.safetensors")
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    assert value(*paths) == pytest.approx(expected, abs=1e-10)


# ------------------------------------------------------------ how matrices are stored


def test_matrices_of_numpy_that_fit_both_ways_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    for name in "ab":
        matrices = {
            "hidden_W": rng.normal(size=(20, 8)), "out_W": rng.normal(size=(8, 3))}
        paths.append(tmp_path / f"{name}.npz")
        np.savez(paths[-1], **matrices)
        chains.append(matrices["hidden_W"] @ matrices["out_W"])
    readings = r"out_W 3x8 -> hidden_W 8x20.*hidden_W 20x8 -> out_W 8x3; say --stored"
    with pytest.raises(ValueError, match=readings):
        value(*paths)
    assert value(*paths, stored="in-out") == pytest.approx(cka(*chains), abs=1e-10)


def test_a_single_matrix_of_numpy_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, W=np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(ValueError, match="nothing tells how its matrices are stored"):
        value(path, path)


@pytest.mark.parametrize("names", [("W1", "W2", "W3"), ("arr_0", "arr_1", "arr_2")])
def test_numbered_matrices_of_numpy_are_stored_as_they_fit(tmp_path, names):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    for file in "ab":
        matrices = [rng.normal(size=shape) for shape in ((20, 8), (8, 6), (6, 3))]
        paths.append(tmp_path / f"{file}.npz")
        np.savez(paths[-1], **dict(zip(names, matrices)))
        chains.append(matrices[0] @ matrices[1] @ matrices[2])
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)
    chain = wiring.chain_in(checkpoints.read(paths[0]))
    assert chain.layers[0].layout == "in-out" and chain.layout_known


# ------------------------------------------------------------ integers


def test_matrices_of_integers_are_refused_whatever_their_name(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    np.savez(path, **{
        "l1/kernel": rng.integers(-9, 9, (8, 8)).astype("int8"),
        "l2/kernel": rng.normal(size=(8, 3)), "l2/bias": rng.normal(size=3)})
    with pytest.raises(ValueError, match="l1/kernel of shape"):
        value(path, path)


@pytest.mark.parametrize("beside", [
    {"confusion_matrix": torch.ones(3, 3, dtype=torch.int64)},
    {"edge_index": torch.ones(2, 7, dtype=torch.int64)},
    {"feature_index": torch.ones(1, 12, dtype=torch.int64)},
    {"input_mask": torch.ones(8, dtype=torch.bool)}])
def test_other_integers_take_no_part_and_are_named(tmp_path, beside):
    networks = [mlp(seed) for seed in range(2)]
    paths = [saved(tmp_path / f"{i}.pt", {**network.state_dict(), **beside})
             for i, network in enumerate(networks)]
    result = comparison.compare_files(paths)
    assert result["all"]["wcka"][0][1] == pytest.approx(wcka.wcka(*networks))
    assert f"{next(iter(beside))} takes no part" in result["assumed"][0]


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.uint8])
def test_masks_that_multiply_weights_are_refused(tmp_path, kind):
    state = {**mlp(0).state_dict(), "0.mask": torch.ones(6, 8).to(kind)}
    path = saved(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match=r"0\.mask of shape \(6, 8\) holds integers"):
        value(path, path)


# ------------------------------------------------------------ what is beside a network


@pytest.mark.parametrize("beside", [
    {"rng_state": torch.get_rng_state()}, {"train_losses": torch.rand(50)},
    {"class_weights": torch.ones(3)}, {"mean": torch.zeros(8), "std": torch.ones(8)},
    {"obs_rms": {"mean": torch.zeros(8)}, "rng": {"torch": torch.get_rng_state()}}])
@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict"])
def test_tensors_beside_a_state_dict_do_not_hide_it(tmp_path, beside, key):
    networks = [mlp(seed) for seed in range(2)]
    paths = [saved(tmp_path / f"{i}.pt", {key: network.state_dict(), **beside})
             for i, network in enumerate(networks)]
    assert value(*paths) == pytest.approx(wcka.wcka(*networks))
    assert value(*paths, key=key) == pytest.approx(wcka.wcka(*networks))


@pytest.mark.parametrize("key", ["encoder", "net", "model_state_dict"])
def test_a_matrix_beside_a_state_dict_must_be_told_apart(tmp_path, key):
    networks = [mlp(seed) for seed in range(2)]
    heads = [nn.Linear(8, 3) for _ in range(2)]
    paths = []
    for i, (network, head) in enumerate(zip(networks, heads)):
        content = {key: network.state_dict(), **head.state_dict()}
        paths.append(saved(tmp_path / f"{i}.pt", content))
    with pytest.raises(ValueError, match=rf"{key}, and tensors at the top level"):
        value(*paths)
    assert value(*paths, key=key) == pytest.approx(wcka.wcka(*networks))
    assert value(*paths, key="") == pytest.approx(wcka.wcka(*heads))


@pytest.mark.parametrize("beside", [
    {"norm": {"mean": torch.zeros(8), "std": torch.ones(8)}},
    {"history": {"loss": torch.rand(20)}}, {"scaler": {"mean": torch.zeros(8)}}])
def test_dicts_of_vectors_are_no_networks(tmp_path, beside):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    for file in "ab":
        w1 = torch.from_numpy(rng.normal(size=(6, 8)))
        w2 = torch.from_numpy(rng.normal(size=(3, 6)))
        content = {"W1": w1, "b1": torch.zeros(6), "W2": w2, "b2": torch.zeros(3)}
        paths.append(saved(tmp_path / f"{file}.pt", {**content, **beside}))
        chains.append((w2 @ w1).T.numpy())
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


class InOut(nn.Module):
    """A layer stored (in, out), as Conv1D of the library transformers."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))


def test_layers_of_gpt2_beside_those_of_torch_are_refused(tmp_path):
    fc, proj = InOut(20, 20), InOut(20, 12)
    mixed = nn.ModuleDict({"c_fc": fc, "c_proj": proj, "head": nn.Linear(12, 12)})
    path = saved(tmp_path / "a.pt", mixed.state_dict())
    with pytest.raises(ValueError, match=r"nothing tells whether head.weight"):
        value(path, path)
    mixed = nn.ModuleDict({"c_fc": fc, "c_proj": proj, "head": nn.Linear(12, 3)})
    path = saved(tmp_path / "b.pt", mixed.state_dict())
    with pytest.raises(ValueError, match=r"head.weight is stored \(out, in\) and c_pr"):
        value(path, path)
    plain = nn.ModuleDict({"c_fc": fc, "c_proj": proj})
    other = nn.ModuleDict({"c_fc": InOut(20, 20), "c_proj": InOut(20, 12)})
    paths = [saved(tmp_path / f"{i}.pt", network.state_dict())
             for i, network in enumerate((plain, other))]
    chains = [(net["c_fc"].weight @ net["c_proj"].weight).detach().double().numpy()
              for net in (plain, other)]
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-6)


# ------------------------------------------------------------ order


@pytest.mark.parametrize("kind", ["pt", "npz"])
def test_a_dict_in_alphabetical_order_tells_no_order(tmp_path, kind):
    module = named(0, ("inp", 8, 8), ("hid", 8, 8), ("out", 8, 3))
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    path = tmp_path / f"b.{kind}"
    if kind == "pt":
        torch.save(state, path)
    else:
        np.savez(path, **{name: values.numpy() for name, values in state.items()})
    with pytest.raises(ValueError, match="alphabetical order"):
        value(path, path)
    # The state dict of a module says versions, and stands as the module was defined.
    torch.save(module.state_dict(), path)
    assert value(path, path) == pytest.approx(1)


def test_other_tensors_do_not_say_in_what_order_matrices_stand(tmp_path):
    module = named(0, ("inp", 8, 8), ("hid", 8, 8), ("out", 8, 3))
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    for beside in ({"criterion.weight": torch.ones(3)}, {"epoch": torch.tensor(3)}):
        path = saved(tmp_path / "b.pt", {**state, **beside})
        with pytest.raises(ValueError, match="alphabetical order"):
            value(path, path)


@pytest.mark.parametrize("names", [
    ("fc1", "fc2", "out"), ("fc1", "fc2", "fc3", "out"),
    ("hidden.0", "hidden.2", "output"), ("embed", "fc1", "fc2")])
@pytest.mark.parametrize("sorted_file", [True, False])
def test_numbers_and_shapes_tell_an_order_together(tmp_path, names, sorted_file):
    paths, chains = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        widths = [8] * len(names) + [3]
        if names[0] == "embed":
            widths[0] = 5
        state, product = {}, np.eye(widths[0])
        for name, inputs, outputs in zip(names, widths, widths[1:]):
            weight = torch.randn(outputs, inputs, dtype=torch.float64)
            state[f"{name}.weight"] = weight
            product = product @ weight.numpy().T
        path = tmp_path / f"{seed}.pt"
        torch.save({name: state[name] for name in sorted(state)}, path)
        if sorted_file:
            path = tmp_path / f"{seed}.safetensors"
            save_file(state, path)
        paths.append(path)
        chains.append(product)
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


def both_formats(tmp_path, *layers):
    """Two networks of such layers in .pt and in .safetensors, and their chains' CKA."""
    networks = [named(seed, *layers) for seed in range(2)]
    saved_in_order, sorted_by_name = [], []
    for i, network in enumerate(networks):
        saved_in_order.append(saved(tmp_path / f"{i}.pt", network.state_dict()))
        sorted_by_name.append(tmp_path / f"{i}.safetensors")
        save_file(network.state_dict(), sorted_by_name[-1])
    return saved_in_order, sorted_by_name, cka(*map(chain_of, networks))


@pytest.mark.parametrize("layers", [
    (("fc1", 16, 16), ("fc2", 16, 16), ("fc", 16, 3)),
    (("linear", 20, 16), ("linear1", 16, 16), ("linear2", 16, 16)),
    (("dec3", 8, 8), ("dec2", 8, 8), ("dec1", 8, 8), ("dec0", 8, 3)),
    (("up3", 3, 6), ("up2", 6, 12), ("up1", 12, 20)),
    (("fc_20", 20, 16), ("fc_16", 16, 8), ("fc_8", 8, 3)),
    (("l1a", 16, 16), ("l1b", 16, 9), ("l2a", 9, 16), ("l2b", 16, 16), ("out", 16, 3))])
def test_names_and_shapes_tell_the_order_in_both_formats(tmp_path, layers):
    in_order, by_name, expected = both_formats(tmp_path, *layers)
    assert value(*in_order) == pytest.approx(expected, abs=1e-10)
    assert value(*by_name) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("layers", [
    (("fc1", 16, 16), ("fc2", 16, 16), ("fc", 16, 16)),
    (("dec3", 8, 8), ("dec2", 8, 8), ("dec1", 8, 8)),
    (("dec3", 8, 8), ("dec2", 8, 8), ("dec1", 8, 8), ("out", 8, 3)),
    (("l1b", 8, 8), ("l1a", 8, 8), ("l2b", 8, 8), ("l2a", 8, 8), ("out", 8, 3))])
def test_an_order_that_only_a_state_dict_tells(tmp_path, layers):
    in_order, by_name, expected = both_formats(tmp_path, *layers)
    assert value(*in_order, stored="out-in") == pytest.approx(expected, abs=1e-10)
    with pytest.raises(ValueError, match="the order of its layers is not known"):
        value(*by_name, stored="out-in")


def test_layers_within_numbered_stages_stay_in_their_stage(tmp_path):
    modules = [nn.ModuleDict({
        "stage1": named(seed, ("first", 20, 16), ("second", 16, 16)),
        "stage2": named(9 + seed, ("first", 16, 16), ("second", 16, 3))})
        for seed in range(2)]
    paths, chains = [], []
    for i, module in enumerate(modules):
        paths.append(tmp_path / f"{i}.safetensors")
        save_file(module.state_dict(), paths[-1])
        chains.append(chain_of(module["stage1"]) @ chain_of(module["stage2"]))
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


def test_layers_of_keras_are_numbered_from_the_second_on(tmp_path):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    for file in "ab":
        matrices = [rng.normal(size=(8, 8)) for _ in range(3)]
        names = ("dense/kernel", "dense_1/kernel", "dense_2/kernel")
        paths.append(tmp_path / f"{file}.npz")
        np.savez(paths[-1], **dict(zip(names, matrices)))
        chains.append(matrices[0] @ matrices[1] @ matrices[2])
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


@pytest.mark.parametrize("form", [
    "mlp/~/linear_{}/w mlp/~/linear_{}/b", "layer{}/W layer{}/b",
    "coefs_{} intercepts_{}", "layer{}/weights layer{}/biases",
    "['params']['Dense_{0}']['kernel'] ['params']['Dense_{0}']['bias']"])
def test_names_of_other_libraries_are_known(tmp_path, form):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    matrix_form, bias_form = form.split()
    for file in "ab":
        state, product = {}, np.eye(8)
        for i, shape in enumerate(((8, 5), (5, 3))):
            matrix = rng.normal(size=shape)
            state[matrix_form.format(i)] = torch.from_numpy(matrix)
            state[bias_form.format(i)] = torch.zeros(shape[1])
            product = product @ matrix
        paths.append(saved(tmp_path / f"{file}.pt", state))
        chains.append(product)
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


@pytest.mark.parametrize("name", ["fold-{}-of-5", "step-{}-of-9", "seed-{}-of-12"])
def test_folds_and_steps_are_no_parts_of_a_network(tmp_path, name):
    paths = [saved(tmp_path / f"{name.format(i)}.pt", mlp(i).state_dict())
             for i in range(1, 4)]
    assert value(*paths[:2]) == pytest.approx(wcka.wcka(mlp(1), mlp(2)))
    assert len(comparison.compare_files([str(tmp_path)])["files"]) == 3


def test_a_network_in_parts_is_one_in_its_folder(tmp_path):
    state = mlp(0).state_dict()
    files = {}
    for i, part in enumerate((list(state)[:2], list(state)[2:]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, tmp_path / file)
        files.update(dict.fromkeys(part, file))
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": files}))
    with pytest.raises(ValueError, match="one network, and no other beside it"):
        comparison.compare_files([str(tmp_path)])
    (tmp_path / "checkpoint-500").mkdir()
    save_file(mlp(1).state_dict(), tmp_path / "checkpoint-500" / "model.safetensors")
    result = comparison.compare_files([str(tmp_path)])
    assert len(result["files"]) == 2
    assert result["all"]["wcka"][0][1] == pytest.approx(wcka.wcka(mlp(0), mlp(1)))


def test_one_of_several_parts_of_a_network_is_refused(tmp_path):
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file(mlp(0).state_dict(), path)
    with pytest.raises(ValueError, match="one of several parts of a network"):
        value(path, path)
    whole = tmp_path / "model-00001-of-00001.safetensors"
    path.rename(whole)
    assert value(whole, whole) == pytest.approx(1)


# ------------------------------------------------------------ few inputs


@pytest.mark.parametrize("inputs", [1, 2])
def test_networks_of_few_inputs_are_undecided(tmp_path, inputs, capsys):
    paths = [saved(tmp_path / f"{seed}.pt", mlp(seed, (inputs, 16, 3)).state_dict())
             for seed in range(5)]
    with pytest.warns(UserWarning, match="input"):
        assert np.isnan(value(*paths[:2]))
    assert main(["compare", *paths[:2]]) == 2
    assert "the networks take" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot be told apart by their first layers"):
        kinship.find_families(paths)


def test_two_inputs_are_warned_of(tmp_path):
    networks = [mlp(seed, (2, 16, 3)) for seed in range(3)]
    with pytest.warns(RuntimeWarning, match="two inputs is 1"):
        assert wcka.wcka(*networks[:2]) == pytest.approx(1)
    with pytest.warns(RuntimeWarning, match="two inputs is 1"):
        wcka.pairwise("wcka", networks)


# ------------------------------------------------------------ folders


def test_a_folder_of_checkpoints_may_hold_one_of_a_usual_name(tmp_path):
    for seed, name in enumerate(("model", "last", "best")):
        torch.save(mlp(seed).state_dict(), tmp_path / f"{name}.pt")
    result = comparison.compare_files([str(tmp_path)])
    assert len(result["files"]) == 3 and not result["left out"]


def test_a_folder_of_one_network_is_said_to_be_one(tmp_path):
    torch.save(mlp(0).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="one network, and no other beside it"):
        comparison.compare_files([str(tmp_path)])


def test_metadata_that_names_a_tensor_is_no_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(mlp(0).state_dict(), path, metadata={"last_layer": "2.weight"})
    assert value(path, path) == pytest.approx(1)
    flat = {"w1": torch.rand(5, 8), "b1": torch.ones(5), "w2": torch.rand(3, 5)}
    save_file(flat, path, metadata={"last_layer": "w2"})
    assert value(path, path) == pytest.approx(1)


# ------------------------------------------------------------ modules


def test_places_that_are_joined_go_through_the_skeleton():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Flatten(), nn.Linear(30, 3))
    first, last = (layer.weight.detach().double() for layer in (model[0], model[2]))
    expected = torch.cat([first.T @ part for part in last.T.split(6)])
    torch.testing.assert_close(
        wcka.chain(model, (5, 8)), expected, rtol=1e-12, atol=1e-12)


def test_the_scale_of_a_chain_with_biases_is_not_seen():
    """The last layer's bias is far below the offset that comes in with the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    other = mlp(0, (4, 6, 3)).double()
    with torch.no_grad():
        model[1].bias.zero_()
        model[2].bias.zero_()
    expected = wcka.wcka(model, other, bias=True)
    with torch.no_grad():
        model[1].weight.mul_(2.0**600)
        model[2].weight.mul_(2.0**600)
    assert wcka.wcka(model, other, bias=True) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="infinity"):
        wcka.chain(model, bias=True)


def test_the_callers_random_numbers_go_on_as_before(tmp_path):
    path = saved(tmp_path / "a.pt", nn.Linear(4, 3).state_dict())
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    wcka.weights.symmetry.rebase(model, "rotation")
    assert torch.equal(torch.get_rng_state(), state)
    (tmp_path / "five_outputs.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential("
        "torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5))\n")
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    path = saved(tmp_path / "b.pt", network.state_dict())
    state = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        comparison.compare_files(
            [path, path], "five_outputs:build", (4,), networks=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_untrained_networks_without_a_value_do_not_count():
    """Four live and four dead ones say as much as the four live ones alone."""
    rng = np.random.default_rng(0)
    trained = [torch.from_numpy(rng.normal(size=(20, 3))) for _ in range(2)]
    alive = [torch.from_numpy(rng.normal(size=(20, 3))) for _ in range(4)]
    dead = [torch.zeros(20, 3, dtype=torch.float64)] * 4
    of_all = chance.beside_untrained(trained, [*alive, *dead])
    of_alive = chance.beside_untrained(trained, alive)
    assert of_all["p"][0][1] == pytest.approx(of_alive["p"][0][1], rel=1e-12)


def test_names_of_keras_may_be_numbered(tmp_path):
    rng = np.random.default_rng(0)
    paths, chains = [], []
    for file in "ab":
        state = {"dense/kernel:0": rng.normal(size=(8, 5)), "dense/bias:0": np.ones(5),
                 "out/kernel:0": rng.normal(size=(5, 3)), "out/bias:0": np.ones(3)}
        paths.append(tmp_path / f"{file}.npz")
        np.savez(paths[-1], **state)
        chains.append(state["dense/kernel:0"] @ state["out/kernel:0"])
    assert value(*paths) == pytest.approx(cka(*chains), abs=1e-10)


def test_a_network_that_torch_has_quantised_is_said_to_be(tmp_path):
    content = {"0.scale": torch.tensor(1.0), "0.zero_point": torch.tensor(0),
               "0._packed_params.dtype": torch.qint8}
    path = saved(tmp_path / "a.pt", content)
    with pytest.raises(ValueError, match="is quantised"):
        value(path, path)


def test_a_file_without_permission_is_left_out_of_a_folder(tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        torch.save(mlp(seed).state_dict(), tmp_path / f"{name}.pt")
    opened = formats._opened_file

    def locked(path):
        if path.name == "b.pt":
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(formats, "_opened_file", locked)
    result = comparison.compare_files([str(tmp_path)])
    assert list(result["left out"].values()) == ["no permission to read it"]
