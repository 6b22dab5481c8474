import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cellline.config import Training
from cellline.prediction.run_folder import Chosen
from cellline.training.settings import Tuned, read_tuned, settle

ASKED = Training(network="resnet18", weights="none")


def tuned(**settings: object) -> Tuned:
    return Tuned(2e-4, 16, 0.8, 1, 12, {**asdict(ASKED), **settings})


@pytest.mark.parametrize(
    ("given", "recorded", "found", "expected", "says"),
    [
        ({}, None, None, (1e-3, 64), "0.001 (default), batch size 64 (default)"),
        ({}, None, tuned(), (2e-4, 16), "(tuned; trials that looked at fold 1: 12)"),
        ({"lr": 0.1}, None, tuned(), (0.1, 16), "0.1 (given), batch size 16 (tuned"),
        ({}, None, tuned(network="vgg11"), (1e-3, 64), "what was tuned is for other settings"),
        ({}, None, tuned(image_size=128), (1e-3, 64), "what was tuned is for other settings"),
        ({}, None, tuned(epochs=99), (2e-4, 16), "(tuned"),
        ({}, {"lr": 0.5, "batch_size": 2}, tuned(), (0.5, 2), "as the run began"),
        ({"batch_size": 8}, {"lr": 0.5, "batch_size": 2}, None, (0.5, 8), "8 (given)"),
    ],
)
def test_where_settings_come_from(
    given: dict[str, float],
    recorded: dict[str, float] | None,
    found: Tuned | None,
    expected: tuple[float, int],
    says: str,
) -> None:
    settled, line, chosen = settle(
        replace(ASKED, **given),
        recorded and {"settings": recorded},
        found,  # type: ignore[arg-type]
    )
    assert (settled.lr, settled.batch_size) == expected
    assert says in line
    # Tuned for what is given besides is tuned as well: either of the two was chosen by trials.
    assert chosen == (Chosen(1, 12) if "tuned;" in says or "(tuned" in says else None)


def test_what_was_tuned_is_read_from_best_json(tmp_path: Path) -> None:
    assert read_tuned(tmp_path) is None
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning/best.json").write_text(json.dumps(asdict(tuned())))
    assert read_tuned(tmp_path) == tuned()
