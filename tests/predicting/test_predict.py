"""New images: the table for a folder or archive, and what is said of images that don't suit."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import CONFIG

from cellline.errors import UserError
from cellline.host.files import read_arrays, read_json
from cellline.predicting.predict import BETWEEN, NewImages, predict
from cellline.predicting.sets import ERROR
from cellline.scoring.decisions import Correction
from cellline.submitting.submit import submit


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table of predictions."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_test_images_get_the_probabilities_that_submit_gave_them(
    here: Path, tmp_path: Path, drawn: Path
) -> None:
    submit(CONFIG, ["tiny"])
    path = predict(CONFIG, ["tiny"], NewImages(here / "images_test"), tmp_path)
    rows, record = read(path), read_json(path.with_suffix(".json"))
    files = [read_arrays(here / f"oof/tiny/fold{k}/test.npz", "prob", "file_id") for k in range(3)]
    blended = np.mean([of["prob"] for of in files], axis=0)
    expected = Correction(**record["correction"]).apply(blended)
    assert [row["id"] for row in rows] == [f"{one:05d}" for one in files[0]["file_id"].tolist()]
    classes = [name[2:-1] for name in rows[0] if name.startswith("p(")]
    prob = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    assert prob == pytest.approx(expected.prob, abs=1e-6)
    assert [row["label"] for row in rows] == [classes[at] for at in prob.argmax(axis=1)]
    thresholds = np.array(record["sets"]["thresholds"])
    for row, of in zip(rows, prob, strict=True):
        held = [name for name, is_in in zip(classes, of >= thresholds, strict=True) if is_in]
        assert {row["label"], *held} == set(row["set"].split(BETWEEN))
    # An archive of the same images gives the same table.
    again = predict(CONFIG, ["tiny"], NewImages(drawn / "images_test.tar"), tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_samples_of_one_picture_are_decided_together_if_told_so(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    shutil.copytree(here / "images_test", new)
    for path in list(new.iterdir()):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(new / f"turned{path.name}")
    alone = {row["id"]: row for row in read(predict(CONFIG, ["tiny"], NewImages(new), tmp_path))}
    pooled = {
        row["id"]: row
        for row in read(predict(CONFIG, ["tiny"], NewImages(new, pooled=True), tmp_path))
    }
    assert "share a picture" in capsys.readouterr().out
    for sample, row in pooled.items():
        twin = pooled.get(f"turned{sample}", row)
        assert {**twin, "id": sample} == row
    assert any(alone[sample] != row for sample, row in pooled.items())


def test_a_run_that_is_not_finished_is_refused(here: Path, tmp_path: Path) -> None:
    moved = here / "oof/tiny/fold2/oof.npz"
    moved.rename(tmp_path / "oof.npz")
    try:
        with pytest.raises(UserError, match="these folds are not trained"):
            predict(CONFIG, ["tiny"], NewImages(here / "images_test"), tmp_path)
    finally:
        (tmp_path / "oof.npz").rename(moved)
    assert not list(tmp_path.glob("*.csv"))


def test_claims_and_images_unlike_the_training_images_are_marked(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = NewImages(here / "images_test", claimed=tmp_path / "claims.csv")
    rows = read(predict(CONFIG, ["tiny"], NewImages(new.place), tmp_path))
    claim = rows[0]["label"]
    with (tmp_path / "claims.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "claimed", "flask"))
        table.writerows((row["id"], claim, "7") for row in rows)
    path = predict(CONFIG, ["tiny"], new, tmp_path)
    for before, after in zip(rows, read(path), strict=True):
        assert before.items() <= after.items()
        assert after["claimed"] == claim
        assert after["unlike"] == ("yes" if float(after["likeness"]) <= ERROR else "")
        assert after["doubtful"] == ("yes" if float(after["likeness to claim"]) <= ERROR else "")
        assert claim in after["set"].split(BETWEEN) or after["doubtful"] == "yes"
    [culture] = read_json(path.with_suffix(".json"))["cultures"]
    assert (culture["name"], culture["n_samples"]) == ("7", len(rows))
    assert culture["claimed"] == claim
    assert f"7 as {claim} (samples {len(rows)}, pictures" in capsys.readouterr().out
