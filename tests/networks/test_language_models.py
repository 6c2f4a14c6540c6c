"""Small language models: beside the library transformers, their texts and disguises."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import wcka
from wcka.networks import disguises, texts
from wcka.networks.language_models import LanguageModel, mean_loss, train
from wcka.networks.training import copied

SIZES = {"tokens": 40, "width": 16, "depth": 2, "heads": 2, "units": 12}


def model_of(seed, **sizes):
    """A model in float64 whose weights and gains are all random and large."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LanguageModel(**{**SIZES, **sizes}).double()
        for values in model.parameters():
            values.data = 0.6 * torch.randn_like(values)
    return model


def tokens(seed=0, count=12):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SIZES["tokens"], (3, count), generator=generator)


@torch.no_grad()
def logits(state, inputs=None):
    model = LanguageModel(**SIZES).double()
    model.load_state_dict(state)
    return model(tokens() if inputs is None else inputs)


# ------------------------------------------------------------------------- the models


def test_a_model_is_a_llama_of_the_library():
    transformers = pytest.importorskip("transformers")
    model = model_of(0).float()
    config = transformers.LlamaConfig(**model.config)
    library = transformers.LlamaForCausalLM(config)
    library.load_state_dict(model.state_dict())  # strictly: the same names
    library.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(tokens()), library(tokens()).logits, rtol=1e-3, atol=1e-3)


def test_no_token_sees_a_later_one():
    model = model_of(1)
    inputs = tokens()
    changed = inputs.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % SIZES["tokens"]
    before, after = model(inputs), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7])


def test_training_learns_what_can_be_learned():
    """Of a text that repeats itself the next token is certain."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(**SIZES)
    numbers = torch.arange(40).repeat(30)
    before = mean_loss(model, numbers)
    copies = train(model, numbers, 100, seed=0, batch_size=8, length=16,
                   checkpoints=[30, 100])
    assert before == pytest.approx(3.7, abs=0.2)  # log 40
    assert mean_loss(model, numbers) < 0.5 * before
    for name, values in model.state_dict().items():
        assert torch.equal(copies[100][name], values)
    assert not torch.equal(copies[30]["lm_head.weight"], model.lm_head.weight)


def test_a_text_too_short_for_a_loss_is_refused():
    model = model_of(0)
    assert mean_loss(model, torch.arange(65) % 40) > 0
    with pytest.raises(ValueError, match="numbers: wanted at least 65 tokens, got 64"):
        mean_loss(model, torch.arange(64) % 40)


def test_training_is_the_same_for_one_seed_and_another_for_another():
    states = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LanguageModel(**SIZES)
        train(model, torch.arange(40).repeat(30), 3, seed=seed, batch_size=4)
        states.append(model.lm_head.weight.detach())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_only_the_chosen_parameters_are_trained():
    model = LanguageModel(**SIZES)
    before = copied(model.state_dict())
    train(model, torch.arange(40).repeat(30), 2, seed=0, batch_size=4,
          parameters=[model.lm_head.weight])
    changed = [name for name, values in model.state_dict().items()
               if not torch.equal(values, before[name])]
    assert changed == ["lm_head.weight"]


# ----------------------------------------------------------------------- the disguises


@pytest.mark.parametrize("change", [
    disguises.folded, lambda state, config: disguises.disguised(state, config, 3)])
def test_a_disguise_changes_weights_and_no_logit(change):
    model = model_of(2)
    state = model.state_dict()
    before = {name: values.clone() for name, values in state.items()}
    hidden = change(state, model.config)
    assert list(hidden) == list(state)
    torch.testing.assert_close(logits(hidden), logits(state), rtol=1e-9, atol=1e-9)
    for name, values in before.items():
        assert torch.equal(state[name], values)  # the caller's stays as it is
    assert not torch.allclose(hidden["lm_head.weight"], state["lm_head.weight"])


@given(st.integers(0, 1000))
def test_circuits_do_not_see_a_disguise(seed):
    model = model_of(seed)
    state = model.state_dict()
    hidden = disguises.disguised(state, model.config, seed)
    other = wcka.circuits(model_of(seed + 1).state_dict(), model.config)
    of_state, of_hidden = (
        wcka.compare_circuits([wcka.circuits(weights, model.config), other])
        for weights in (state, hidden))
    for circuit, table in of_state.items():
        change = abs(table[:, 0, 1] - of_hidden[circuit][:, 0, 1]).max()
        assert change < 1e-10


def test_a_loud_token_changes_no_logit_of_texts_without_it():
    model = model_of(3)
    state = model.state_dict()
    loud = disguises.with_loud_token(state, token=39)
    inputs = tokens() % 39
    torch.testing.assert_close(logits(loud, inputs), logits(state, inputs))
    tables = wcka.compare_circuits([
        wcka.circuits(weights, model.config) for weights in (state, loud)])
    assert tables["direct"][0, 0, 1] < 0.5


# --------------------------------------------------------------------------- the texts


@pytest.mark.parametrize("name", texts.TEXTS)
def test_texts_are_read_back_from_their_tokens(name):
    content = texts.text(name)
    vocabulary = texts.vocabulary(600)
    numbers = vocabulary.encode(content)
    assert "".join(vocabulary.tokens[number] for number in numbers.tolist()) == content
    assert len(numbers) > 100_000
    assert len(numbers) < 0.75 * len(content)  # tokens are longer than characters


def test_unknown_characters_have_a_token_of_their_own():
    vocabulary = texts.Vocabulary(["abc abc"], 6)
    assert vocabulary.encode("a☃").tolist() == [
        vocabulary.tokens.index("a"), len(vocabulary) - 1]


def test_a_vocabulary_without_room_for_all_characters_is_refused():
    with pytest.raises(ValueError, match="wanted more than 3, the number of char"):
        texts.Vocabulary(["abc"], 3)


def test_unknown_texts_are_refused():
    with pytest.raises(ValueError, match="text"):
        texts.text("novel")
