from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from altered import draw_altered
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.config import Augmentation, Training
from cellline.data.competition import Competition, load_competition
from cellline.demo.drawing import Drawing, plan_samples
from cellline.host.device import Device
from cellline.host.stopping import Stop
from cellline.report.label_errors import LabelErrors, find_label_errors
from cellline.runs.folds import Folds
from cellline.training.fold import train_fold
from cellline.training.loop import FoldTrainer

N_CLASSES = 9


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Competition, np.ndarray, Folds]:
    """A drawn competition with wrong labels, its true labels, and two folds."""
    folder = tmp_path_factory.mktemp("mislabelled")
    drawing = Drawing(270, 9, size=32)
    draw_altered(folder, drawing, mislabelled=0.12)
    competition = load_competition(folder, folder / "cache", ("blue", "red", "yellow"))
    plan = plan_samples(drawing)
    samples = [plan[number] for number in competition.train_ids.tolist()]
    truth = np.array([competition.classes.index(sample.cell_line) for sample in samples])
    group = np.array([sample.field for sample in samples])
    return competition, truth, Folds(group % 2, group, 2, "3" * 64)


def learn_and_look(competition: Competition, folds: Folds, device: Device) -> LabelErrors:
    """Label errors in fold 0, by a network that learnt from fold 1."""
    training = Training(
        network="densenet_tiny",
        weights="none",
        epochs=6,
        lr=2.5e-2,
        batch_size=8,
        dropout=0,
        augmentation=Augmentation(rotate=0, scale=0, translate=0, gain=0, offset=0),
    )
    trainer = FoldTrainer(folds, 0, training, device)
    predictions = train_fold(trainer, Path("fold0"), {}, 0, Stop())
    groups = folds.group[folds.held_out_rows(0)]
    return find_label_errors(predictions.labels, predictions.prob, groups)


def test_wrong_labels_are_found_by_a_network_that_learnt_from_wrong_labels(
    mislabelled: tuple[Competition, np.ndarray, Folds], device: Device
) -> None:
    """Of 142 labels 17 are wrong; the network is right of three in four."""
    competition, truth, folds = mislabelled
    found = learn_and_look(competition, folds, device)
    truth = truth[folds.held_out_rows(0)]
    wrong = competition.labels[folds.held_out_rows(0)] != truth
    assert found.evidence
    assert found.rate.low < wrong.mean() < found.rate.high
    assert wrong[found.rows].sum() >= 12
    assert wrong[found.rows].mean() > 0.75
    assert np.mean(found.suggested == truth[found.rows]) > 0.6


def test_where_all_labels_are_right_nothing_is_found(
    mislabelled: tuple[Competition, np.ndarray, Folds], device: Device
) -> None:
    """The same pictures, a network that is no better: its errors are not the labels'."""
    competition, truth, folds = mislabelled
    found = learn_and_look(replace(competition, labels=truth), folds, device)
    assert not found.evidence
    assert len(found.rows) == 0
    assert found.rate.high < 0.05


def draw_predictions(
    generator: np.random.Generator, n: int, sure_mistakes: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, class] that are right but for some sure mistakes, and the true classes.

    The network hesitates, and is mistaken, between neighbours: of every other sample it is sure.
    """
    shown = generator.integers(0, N_CLASSES, n)
    distance = np.abs(np.arange(N_CLASSES) - shown[:, None])
    step = generator.choice([2.0, 10.0], (n, 1))
    logits = generator.normal(-step * np.minimum(distance, N_CLASSES - distance), 1.5)
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (prob.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    beside = (prob.argmax(axis=1) + generator.choice([-1, 1], n)) % N_CLASSES
    return prob, np.where(generator.random(n) < sure_mistakes, beside, truth)


def plant(
    generator: np.random.Generator, truth: np.ndarray, share: float, n_classes: int = N_CLASSES
) -> np.ndarray:
    """The labels with some of them wrong."""
    labels = truth.copy()
    rows = generator.choice(len(truth), round(share * len(truth)), replace=False)
    labels[rows] = (labels[rows] + generator.integers(1, n_classes, len(rows))) % n_classes
    return labels


def distort(prob: np.ndarray, sharpness: float) -> np.ndarray:
    """The same of a network that is too sure, or not sure enough."""
    return prob**sharpness / (prob**sharpness).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sharpness", [0.4, 2.5])
@pytest.mark.parametrize("sure_mistakes", [0.0, 0.04])
def test_a_networks_errors_are_not_taken_for_the_labels(
    sharpness: float, sure_mistakes: float
) -> None:
    """However many, and however sure it was of them."""
    generator = np.random.default_rng(0)
    prob, truth = draw_predictions(generator, 600, sure_mistakes)
    prob = distort(prob, sharpness)
    groups = np.arange(600)
    clean = find_label_errors(truth, prob, groups)
    assert not clean.evidence
    assert len(clean.rows) == 0
    assert clean.rate.low == 0
    assert clean.rate.high < 0.03

    labels = plant(generator, truth, 0.06)
    found = find_label_errors(labels, prob, groups)
    assert found.evidence
    assert found.rate.low < 0.06 < found.rate.high
    wrong = labels != truth
    assert wrong[found.rows].sum() >= 0.6 * wrong.sum()
    assert wrong[found.rows].mean() >= 0.7


def test_a_label_that_disagrees_with_those_of_its_copies_is_found_without_the_networks_help() -> (
    None
):
    """Three samples a picture; one picture's label differs from its copies'."""
    truth = np.repeat(np.arange(N_CLASSES), 12)
    groups = np.arange(len(truth)) // 3
    labels = truth.copy()
    labels[40] = (truth[40] + 1) % N_CLASSES
    knows_nothing = np.full((len(truth), N_CLASSES), 1 / N_CLASSES)
    found = find_label_errors(labels, knows_nothing, groups)
    assert found.evidence
    assert (found.rows.tolist(), found.suggested.tolist()) == ([40], [truth[40]])
    assert not find_label_errors(truth, knows_nothing, groups).evidence


def test_copies_that_agree_speak_for_their_label() -> None:
    """Some pictures the network takes for any other class: a label error, were each alone."""
    generator = np.random.default_rng(0)
    prob, truth = draw_predictions(generator, 300)
    labels = plant(generator, truth, 0.06)
    alone = find_label_errors(labels, prob, np.arange(300))
    assert alone.evidence
    thrice = [np.repeat(values, 3, axis=0) for values in (labels, prob, np.arange(300))]
    assert not find_label_errors(*thrice).evidence


def test_between_two_classes_no_error_is_blamed_on_the_labels() -> None:
    """Without copies nothing tells it from a sure mistake of the network."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 400)
    prob = np.where(np.eye(2)[truth] == 1, 0.97, 0.03)
    labels = plant(generator, truth, 0.1, n_classes=2)
    assert not find_label_errors(labels, prob, np.arange(400)).evidence


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_samples_and_the_names_of_groups_do_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    prob, truth = draw_predictions(generator, 120, 0.05)
    labels = plant(generator, truth, 0.08)
    groups = generator.integers(0, 100, 120)
    found = find_label_errors(labels, prob, groups)
    order = generator.permutation(120)
    again = find_label_errors(labels[order], prob[order], -7 * groups[order])
    assert again.evidence == found.evidence
    assert again.rate.value == pytest.approx(found.rate.value, abs=1e-4)
    np.testing.assert_allclose(again.score, found.score, atol=1e-3)
    np.testing.assert_array_equal(found.given, labels[found.rows])
    assert np.all(found.suggested != found.given)
    assert np.all(np.diff(found.score) <= 0)


def test_what_was_found_is_said_in_words() -> None:
    truth = np.repeat(np.arange(3), 20)
    groups = np.arange(60) // 4
    labels = truth.copy()
    labels[[2, 30]] = [1, 2]
    ids = np.arange(60) + 100
    unsure = np.full((60, 3), 1 / 3)
    classes = ("A549", "HeLa", "RT4")
    summary, named = find_label_errors(labels, unsure, groups).describe(ids, classes)
    assert summary.startswith("about 2 of 60 labels look wrong (3.")
    assert "102 (HeLa, looks like A549)" in named
    assert "130 (RT4, looks like HeLa)" in named
    [nothing] = find_label_errors(truth, unsure, groups).describe(ids, classes)
    assert nothing.startswith("no sign of label errors among 60 labels (up to ")
