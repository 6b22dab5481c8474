from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cellline.runs.run_folder import Chosen

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.files import write_json
from cellline.runs.folds import Folds
from cellline.training.settings import Tuned, describe_resizing, read_tuned, settle

ASKED = Training(network="resnet18", weights="none")
OOF = Path("oof")
BEST = OOF / "tuning" / "best.json"
DIGESTS = {"input_digest": "1" * 64, "folds_digest": "3" * 64}


def tuned(**settings: object) -> Tuned:
    settings = {**asdict(ASKED), **settings}
    return Tuned(2e-4, 16, 0.8, 1, 12, settings, **DIGESTS, code="4" * 40)


@pytest.mark.parametrize(
    ("given", "recorded", "found", "expected", "says"),
    [
        ({}, None, None, (1e-3, 64), "0.001 (default), batch size 64 (default)"),
        ({}, None, tuned(), (2e-4, 16), "(tuned; trials that looked at fold 1: 12)"),
        ({"lr": 0.1}, None, tuned(), (0.1, 16), "0.1 (given), batch size 16 (tuned"),
        ({}, None, tuned(network="vgg11"), (1e-3, 64), "what was tuned is for other settings"),
        ({}, None, tuned(image_size=128), (1e-3, 64), "what was tuned is for other settings"),
        ({}, None, tuned(optimizer="adamw"), (1e-3, 64), "what was tuned is for other settings"),
        ({}, None, tuned(epochs=99), (2e-4, 16), "(tuned"),
        ({}, {"lr": 0.5, "batch_size": 2}, tuned(), (0.5, 2), "as the run began"),
        ({"batch_size": 8}, {"lr": 0.5, "batch_size": 2}, None, (0.5, 8), "8 (given)"),
    ],
)
def test_where_settings_come_from(
    competition: Competition,
    folds: Folds,
    given: dict[str, Any],
    recorded: dict[str, float] | None,
    found: Tuned | None,
    expected: tuple[float, int],
    says: str,
) -> None:
    if found is not None:
        write_json(BEST, asdict(found))
    config = None if recorded is None else {"settings": recorded}
    settled, line, chosen = settle(replace(ASKED, **given), config, OOF, competition, folds)
    assert (settled.lr, settled.batch_size) == expected
    assert says in line
    # Tuned for what is given besides is tuned as well: either of the two was chosen by trials.
    assert chosen == (Chosen(1, 12) if "(tuned" in says else None)


def test_what_was_tuned_is_read_from_best_json() -> None:
    assert read_tuned(OOF) is None
    write_json(BEST, asdict(tuned()))
    assert read_tuned(OOF) == tuned()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"digest": "9" * 64}, r"tuned on other input \(111111111111\).* now \(999999999999\)"),
        ({}, r"tuned on other folds \(333333333333\).* now \(999999999999\)"),
    ],
)
def test_what_was_tuned_on_other_data_is_refused_where_it_would_be_used(
    competition: Competition, folds: Folds, changed: dict[str, str], told: str
) -> None:
    write_json(BEST, asdict(tuned()))
    other = replace(competition, **changed)  # type: ignore[arg-type]
    other_folds = folds if changed else replace(folds, digest="9" * 64)
    with pytest.raises(UserError, match=told):
        settle(ASKED, None, OOF, other, other_folds)
    with pytest.raises(UserError, match=told):
        settle(replace(ASKED, lr=0.1), None, OOF, other, other_folds)
    # Where nothing of it would be taken, it is nobody's mistake.
    given = replace(ASKED, lr=0.1, batch_size=8)
    assert settle(given, None, OOF, other, other_folds)[0] == given
    begun = {"settings": {"lr": 0.5, "batch_size": 2}}
    assert settle(ASKED, begun, OOF, other, other_folds)[0].lr == 0.5
    assert settle(replace(ASKED, network="vgg11"), None, OOF, other, other_folds)[0].lr == 1e-3


def test_a_best_json_that_was_changed_is_reported(competition: Competition, folds: Folds) -> None:
    write_json(BEST, asdict(tuned()))
    written = BEST.read_text()
    for changed in (written.replace('"batch_size": ', '"batch_size": 1'), written[:50], "{}", ""):
        BEST.write_text(changed)
        with pytest.raises(UserError, match=r"best.json is damaged"):
            settle(ASKED, None, OOF, competition, folds)


@pytest.mark.parametrize(
    ("image_size", "start_size", "says"),
    [
        (None, None, ""),
        (64, None, ""),
        (64, 64, ""),
        (96, 64, ", images of 64x64 pixels resized to 64x64, then 96x96"),
        (32, None, ", images of 64x64 pixels resized to 32x32"),
    ],
)
def test_a_training_says_when_it_resizes_images(
    image_size: int | None, start_size: int | None, says: str
) -> None:
    training = replace(ASKED, image_size=image_size, start_size=start_size)
    assert describe_resizing(training, (64, 64)) == says


def test_images_that_are_stretched_are_said_to_be() -> None:
    told = describe_resizing(replace(ASKED, image_size=64), (48, 64))
    assert told == ", images of 64x48 pixels resized to 64x64"
