"""Images that networks are probed with, by name."""

import pytest
import torch

import wcka
from wcka.networks import attacks, image_sets
from wcka.networks.probes import (
    ATTACKS,
    PROBES,
    expand_probes,
    kind_of_probe,
    probe_inputs,
)


def test_names_stand_for_lists_of_probes():
    assert expand_probes(["clean", "corruptions", "attacks"]) == [*PROBES, *ATTACKS]
    assert expand_probes(["pgd", "clean"]) == ["pgd", "clean"]


@pytest.mark.parametrize("wrong_probes", [
    ["clean"], ["fog"], ["clean", "fogg"], ["clean", "fog", "corruptions"], []])
def test_lists_without_clean_or_with_repetitions_are_refused(wrong_probes):
    with pytest.raises(ValueError, match="wanted clean and some others, each once"):
        expand_probes(wrong_probes)


def test_every_probe_is_clean_corrupted_or_attacked():
    assert kind_of_probe("clean") == "clean"
    for name in wcka.CORRUPTIONS:
        assert kind_of_probe(name) == "corrupted"
    for name in ATTACKS:
        assert kind_of_probe(name) == "attacked"


@pytest.fixture(scope="module")
def zeros():
    """Test images of the digit 0, as uint8."""
    images, _ = image_sets.load(classes=(0,))
    return images


def test_corrupted_inputs_are_corrupted_images_of_that_seed(zeros):
    inputs = probe_inputs("shot_noise", "mnist", [0], seed=3)
    expected = image_sets.as_inputs(wcka.corrupt(zeros, "shot_noise", seed=3))
    assert torch.equal(inputs, expected)
    assert not torch.equal(inputs, probe_inputs("shot_noise", "mnist", [0], seed=4))


def test_noisy_inputs_are_clean_images_with_noise_of_that_size_and_seed(zeros):
    inputs = probe_inputs("gaussian_noise", "mnist", [0], seed=3, noise=0.2)
    clean = image_sets.as_inputs(zeros)
    assert torch.equal(inputs, attacks.gaussian_noise(clean, 0.2, seed=3))


@pytest.mark.parametrize("name", ["clean", "fgsm", "pgd"])
def test_attacks_begin_with_the_clean_images(zeros, name):
    assert torch.equal(probe_inputs(name, "mnist", [0]), image_sets.as_inputs(zeros))


def test_training_images_are_a_probe_too():
    images, _ = image_sets.load(split="train", classes=(0,))
    inputs = probe_inputs("train", "mnist", [0])
    assert torch.equal(inputs, image_sets.as_inputs(images))
