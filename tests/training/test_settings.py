from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from cellline.config import Config, MetricName, Training
from cellline.errors import UserError
from cellline.host.files import write_json
from cellline.runs.folds import Folds
from cellline.runs.run import Tuning
from cellline.training.settings import Tuned, describe_resizing, read_tuned, settle

ASKED = Training(network="resnet18", weights="none")
OOF = Path("oof")
BEST = OOF / "tuning" / "best.json"
BEGUN = {"class_weights": "balanced"}
DIGESTS = {"input_digest": "1" * 64, "folds_digest": "3" * 64}


def tuned(**settings: object) -> Tuned:
    settings = {**asdict(ASKED), **settings}
    return Tuned(2e-4, 16, 0.8, "balanced_accuracy", 1, 12, settings, **DIGESTS, code="4" * 40)


@pytest.mark.parametrize(
    ("given", "recorded", "found", "expected", "says"),
    [
        ({}, None, None, (1e-3, 64), "0.001 (default), batch size 64 (default)"),
        ({}, None, tuned(), (2e-4, 16), "(tuned by 12 trials on fold 1)"),
        ({"lr": 0.1}, None, tuned(), (0.1, 16), "0.1 (given), batch size 16 (tuned"),
        ({}, None, tuned(network="vgg11"), (1e-3, 64), "default; the tuning had other settings"),
        ({}, None, tuned(image_size=128), (1e-3, 64), "default; the tuning had other settings"),
        ({}, None, tuned(optimizer="adamw"), (1e-3, 64), "default; the tuning had other settings"),
        ({}, None, replace(tuned(), metric="accuracy"), (1e-3, 64), "or another metric"),
        ({}, None, tuned(epochs=99), (2e-4, 16), "(tuned"),
        ({}, {"lr": 0.5, "batch_size": 2}, tuned(), (0.5, 2), "as the run began"),
        ({"batch_size": 8}, {"lr": 0.5, "batch_size": 2}, None, (0.5, 8), "8 (given)"),
    ],
)
def test_sources_of_settings(
    folds: Folds,
    given: dict[str, Any],
    recorded: dict[str, float] | None,
    found: Tuned | None,
    expected: tuple[float, int],
    says: str,
) -> None:
    if found is not None:
        write_json(BEST, asdict(found))
        assert read_tuned(OOF) == found
    record = None if recorded is None else {"settings": {**BEGUN, **recorded}}
    settled = settle(Config(training=replace(ASKED, **given)), record, folds)
    assert (settled.training.lr, settled.training.batch_size) == expected
    assert says in settled.line
    # One tuned value is enough: it was chosen by trials.
    assert settled.tuning == (Tuning(1, 12) if "(tuned" in says else None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("input", r"tuned on other input \(111111111111\).* present input \(999999999999\)"),
        ("folds", r"tuned on other folds \(333333333333\).* present folds \(999999999999\)"),
    ],
)
def test_a_tuning_on_other_data_is_refused_only_if_it_would_be_used(
    folds: Folds, changed: str, told: str
) -> None:
    write_json(BEST, asdict(tuned()))
    if changed == "input":
        other = replace(folds, competition=replace(folds.competition, digest="9" * 64))
    else:
        other = replace(folds, digest="9" * 64)
    for training in (ASKED, replace(ASKED, lr=0.1)):
        with pytest.raises(UserError, match=told):
            settle(Config(training=training), None, other)
    given = replace(ASKED, lr=0.1, batch_size=8, class_weights="none")
    assert settle(Config(training=given), None, other).training == given
    begun = {"settings": {**BEGUN, "lr": 0.5, "batch_size": 2}}
    assert settle(Config(training=ASKED), begun, other).training.lr == 0.5
    another = Config(training=replace(ASKED, network="vgg11"))
    assert settle(another, None, other).training.lr == 1e-3


def test_a_tuning_suits_the_same_weights_wherever_they_are(folds: Folds) -> None:
    write_json(BEST, asdict(replace(tuned(weights="here.pth"), weights_digest="7" * 64)))
    for weights, digest, lr in (
        ("there.pth", "7" * 64, 2e-4),
        ("here.pth", "8" * 64, 1e-3),
        ("none", None, 1e-3),
    ):
        asked = Config(training=replace(ASKED, weights=weights))
        assert settle(asked, None, folds, digest).training.lr == lr


def test_a_best_json_that_was_changed_is_reported(folds: Folds) -> None:
    write_json(BEST, asdict(tuned()))
    written = BEST.read_text()
    for changed in (written.replace('"batch_size": ', '"batch_size": 1'), written[:50], "{}", ""):
        BEST.write_text(changed)
        with pytest.raises(UserError, match=r"best.json is damaged"):
            settle(Config(training=ASKED), None, folds)


@pytest.mark.parametrize(
    ("metric", "given", "recorded", "expected"),
    [
        ("balanced_accuracy", "auto", None, "balanced"),
        ("log_loss", "auto", None, "none"),
        ("log_loss", "balanced", None, "balanced"),
        ("log_loss", "auto", "balanced", "balanced"),
        ("balanced_accuracy", "none", "balanced", "none"),
    ],
)
def test_class_weights_follow_the_metric_unless_given_or_recorded(
    folds: Folds,
    metric: MetricName,
    given: Literal["auto", "balanced", "none"],
    recorded: str | None,
    expected: str,
) -> None:
    scored = replace(folds, competition=replace(folds.competition, metric=metric))
    settings = {"lr": 0.5, "batch_size": 2, "class_weights": recorded}
    record = {"settings": settings} if recorded else None
    settled = settle(Config(training=replace(ASKED, class_weights=given)), record, scored)
    assert settled.training.class_weights == expected
    assert f"class weights {expected}" in settled.line


@pytest.mark.parametrize(
    ("image_size", "start_size", "shape", "says"),
    [
        (None, None, (64, 64), ""),
        (64, 64, (64, 64), ""),
        (96, 64, (64, 64), ", images of 64x64 pixels resized to 64x64, then 96x96"),
        (32, None, (64, 64), ", images of 64x64 pixels resized to 32x32"),
        (None, 64, (96, 96), ", images of 96x96 pixels resized to 64x64, then 96x96"),
        (64, None, (48, 64), ", images of 64x48 pixels resized to 64x64"),
    ],
)
def test_a_training_says_when_it_resizes_images(
    image_size: int | None, start_size: int | None, shape: tuple[int, int], says: str
) -> None:
    training = replace(ASKED, image_size=image_size, start_size=start_size)
    assert describe_resizing(training, shape) == says
