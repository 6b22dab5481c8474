import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from odd_labels import LABELS

from cellline.config import Output, Reading
from cellline.data.competition import Competition
from cellline.data.ids import parse_number, parse_text
from cellline.errors import UserError
from cellline.scoring.decisions import Decided
from cellline.submitting.submission import (
    TOP,
    read_submissions,
    render_submission,
    validate_submission,
    write_recorded,
    write_submission,
)

# Of all characters but those that are refused in a label.
LABEL = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])


def of_test(ids: np.ndarray, template: Sequence[str], classes: Sequence[str]) -> Competition:
    """A competition with these test samples."""
    return Competition(
        reading=Reading(id_column="well", label_column="state"),
        metric="balanced_accuracy",
        output="label",
        template_columns=("well", "state"),
        classes=tuple(classes),
        channels=("gray",),
        train_ids=np.array(["x"]),
        labels=np.arange(1),
        test_ids=ids,
        template=tuple(template),
        train_images=np.zeros((1, 1, 8, 8), np.uint8),
        test_images=np.zeros((len(ids), 1, 8, 8), np.uint8),
        digest="",
        test_digest="",
        warnings=(),
    )


def decide(predicted: np.ndarray, n_classes: int = 3) -> Decided:
    """Predictions that are sure of these classes."""
    return Decided(np.eye(n_classes, dtype=np.float32)[predicted], predicted)


def asking(competition: Competition, output: Output, *columns: str) -> Competition:
    """The competition with a template of other columns, of which HeLa may be the positive class."""
    reading = replace(competition.reading, template_id_column="file_id", positive="HeLa")
    return replace(competition, output=output, template_columns=columns, reading=reading)


def draw_decided(competition: Competition) -> Decided:
    """Random probabilities, float32, whose sums are off by rounding."""
    draws = np.random.default_rng(0).dirichlet(np.full(len(competition.classes), 0.2), 9)
    return Decided(draws.astype(np.float32), draws.argmax(axis=1))


def read_rows(data: bytes) -> list[dict[str, str]]:
    """The rows of a CSV by column."""
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_ids_order_and_header_are_the_templates(competition: Competition) -> None:
    predicted = np.arange(9) % 3
    data = render_submission(
        replace(competition, template_columns=("file_id", "line")), decide(predicted)
    )
    rows = data.decode().splitlines()
    assert rows[0] == "file_id,line"
    assert [row.split(",")[0] for row in rows[1:]] == list(competition.template)
    # The template counts down, the predictions up.
    assert [row.split(",")[1] for row in rows[1:]] == [
        competition.classes[k] for k in predicted[::-1]
    ]


@given(
    st.lists(st.text(LABEL, min_size=1).map(parse_text), min_size=2, max_size=9, unique=True),
    st.randoms(use_true_random=False),
)
def test_text_ids_are_written_as_the_template_has_them(
    ids: list[str | None], random: Random
) -> None:
    known = sorted({text for text in ids if text is not None})
    assume(len(known) > 1 and any(parse_number(text) is None for text in known))
    # In any order, and letters taken apart or not.
    template = [unicodedata.normalize(random.choice(("NFC", "NFD")), text) for text in known]
    random.shuffle(template)
    predicted = np.array([random.randrange(2) for _ in known])
    competition = of_test(np.array(known), template, ("a", 'b, "c"'))
    data = render_submission(competition, decide(predicted, 2))
    validate_submission(data, competition)
    [header, *rows] = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == ["well", "state"]
    assert [row[0] for row in rows] == template
    expected = dict(zip(known, predicted.tolist(), strict=True))
    for written, label in rows:
        assert label == ("a", 'b, "c"')[expected[unicodedata.normalize("NFC", written)]]


@given(st.lists(st.text(LABEL, min_size=1), min_size=9, max_size=9, unique=True))
@example(list(LABELS))
@example(["'", '"', "-", "+1", "@x", "=1", "#", "1e5", "TRUE"])
def test_any_label_is_byte_for_byte_what_a_csv_reader_reads(names: list[str]) -> None:
    competition = of_test(np.arange(20, 29), list(map(str, range(20, 29))), names)
    data = render_submission(competition, decide(np.arange(9), 9))
    validate_submission(data, competition)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    assert [row[1].encode() for row in rows] == [name.encode() for name in names]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"file_id", b"id", "header"),
        (b"00204", b"204", "ids"),
        (b"00204", b"00205", "ids"),
        (b"RT4", b"RT5", "unknown labels"),
    ],
)
def test_what_the_template_does_not_ask_for_is_noticed(
    competition: Competition, old: bytes, new: bytes, message: str
) -> None:
    data = render_submission(competition, decide(np.full(9, 2)))
    validate_submission(data, competition)
    with pytest.raises(ValueError, match=message):
        validate_submission(data.replace(old, new), competition)


def test_the_probability_of_the_positive_class(competition: Competition) -> None:
    competition = asking(competition, "probability", "is_hela", "file_id")
    decided = draw_decided(competition)
    data = render_submission(competition, decided)
    validate_submission(data, competition)
    rows = read_rows(data)
    # The template counts down, the predictions up.
    assert [row["file_id"] for row in rows] == list(competition.template)
    written = np.array([row["is_hela"] for row in rows], np.float64)
    np.testing.assert_allclose(written, decided.prob[::-1, 1], rtol=1e-6)
    assert len(set(written)) == 9


def test_the_probability_of_each_class_is_in_the_column_of_its_name(
    competition: Competition,
) -> None:
    competition = asking(competition, "probabilities", "RT4", "U2OS", "file_id", "A549", "HeLa")
    decided = draw_decided(competition)
    data = render_submission(competition, decided)
    validate_submission(data, competition)
    rows = read_rows(data)
    assert list(rows[0]) == list(competition.template_columns)
    assert [row["file_id"] for row in rows] == list(competition.template)
    written = np.array([[row[name] for name in competition.classes] for row in rows], np.float64)
    np.testing.assert_allclose(written, decided.prob[::-1], rtol=1e-6)
    np.testing.assert_allclose(written.sum(axis=1), 1, rtol=0, atol=1e-8)
    # Training has no such class.
    assert {row["U2OS"] for row in rows} == {"0"}


@pytest.mark.parametrize("n_classes", [3, 8])
def test_the_likeliest_labels_come_first(competition: Competition, n_classes: int) -> None:
    classes = tuple("abcdefgh"[:n_classes])
    competition = replace(asking(competition, "top5", "file_id", "breeds"), classes=classes)
    decided = draw_decided(competition)
    data = render_submission(competition, decided)
    validate_submission(data, competition)
    n_given = min(TOP, n_classes)
    for row, prob in zip(read_rows(data), decided.prob[::-1], strict=True):
        labels = row["breeds"].split(" ")
        given = [float(prob[classes.index(label)]) for label in labels]
        assert given == sorted(prob.tolist(), reverse=True)[:n_given]
        assert len(set(labels)) == n_given


@pytest.mark.parametrize(
    ("output", "row", "message"),
    [
        ("probability", ["1.1"], "not in 0 to 1"),
        ("probability", ["-0.1"], "not in 0 to 1"),
        ("probability", ["nan"], "not in 0 to 1"),
        ("probability", ["inf"], "not in 0 to 1"),
        ("probability", ["HeLa"], "HeLa"),
        ("probabilities", ["0.5", "0.5", "1e-5"], "sum to 1"),
        ("probabilities", ["0.5", "0.6", "-0.1"], "not in 0 to 1"),
        ("top5", ["A549 HeLa"], "without 3 different labels"),
        ("top5", ["A549 HeLa HeLa"], "without 3 different labels"),
        ("top5", ["A549 HeLa RT4 RT4"], "without 3 different labels"),
        ("top5", ["A549 HeLa RT4 U2OS"], "without 3 different labels"),
        ("top5", ["A549 HeLa U2OS"], "unknown labels"),
    ],
)
def test_values_that_are_none_are_noticed(
    competition: Competition, output: Output, row: list[str], message: str
) -> None:
    columns = competition.classes if output == "probabilities" else ("asked",)
    competition = asking(competition, output, "file_id", *columns)
    data = render_submission(competition, draw_decided(competition))
    validate_submission(data, competition)
    [*rows, _] = data.decode().splitlines()
    changed = "\n".join([*rows, ",".join([competition.template[-1], *row]), ""])
    with pytest.raises(ValueError, match=message):
        validate_submission(changed.encode(), competition)


def test_other_predictions_never_overwrite_a_submission(
    competition: Competition, tmp_path: Path
) -> None:
    paths = [
        write_submission(
            tmp_path, "a", render_submission(competition, decide(np.full(9, k))), {"k": k}
        )
        for k in (0, 1, 0)
    ]
    assert paths[0] == paths[2] != paths[1]
    assert {path.suffix for path in tmp_path.glob("a-*")} == {".csv", ".json"}
    # Nor what a person has made of one.
    edited = paths[0].read_bytes().replace(b"HeLa", b"RT4").replace(b"A549", b"HeLa")
    paths[0].write_bytes(edited)
    with pytest.raises(UserError, match="has changed since it was written: rename or move it"):
        write_submission(
            tmp_path, "a", render_submission(competition, decide(np.full(9, 0))), {"k": 0}
        )
    assert paths[0].read_bytes() == edited
    record = json.loads(paths[1].with_suffix(".json").read_text())
    assert record["k"] == 1
    assert "torch" in record["versions"]


def test_records_are_read_with_their_csvs(competition: Competition, tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    assert list(read_submissions(folder)) == []
    record = {"runs": [{"run": "a"}], "interval": (0.1, 1 / 3), "oof": None}
    path = write_submission(
        folder, "a", render_submission(competition, decide(np.full(9, 1))), record
    )
    # Someone else's, and a record that was written before its process was killed.
    for name in ("other.csv", "other.json", "c-12345678.csv"):
        (folder / name).write_text("x")
    (folder / "b-12345678.json").write_bytes(path.with_suffix(".json").read_bytes())
    [(csv_path, read)] = read_submissions(folder)
    assert csv_path == path
    assert not isinstance(read, UserError)
    assert read["interval"] == [0.1, 1 / 3]


def test_no_byte_of_a_record_changes_unnoticed(competition: Competition, tmp_path: Path) -> None:
    record = {"runs": ["a"], "oof": {"bac": 0.75}}
    path = write_submission(
        tmp_path, "a", render_submission(competition, decide(np.full(9, 1))), record
    ).with_suffix(".json")
    whole = path.read_bytes()
    damaged = [b"", b"[]", b"{}", b"null", bytes(50), b"\xff", whole[:-20], b"\x1b[2J"]
    damaged += [whole.replace(old, new) for old, new in ((b"0.75", b"0.95"), (b'"a"', b'"b"'))]
    for data in damaged:
        path.write_bytes(data)
        [(_, error)] = read_submissions(tmp_path)
        assert isinstance(error, UserError)
        assert str(error).startswith(f"{path} is damaged")
        assert "\x1b" not in str(error)


def test_files_of_one_name_are_kept_together(tmp_path: Path) -> None:
    made = [
        write_recorded(tmp_path / "a.b", {".onnx": b"1", ".pt2": second}, {})
        for second in (b"2", b"3", b"2")
    ]
    assert made[0] == made[2] != made[1]
    record = json.loads(made[1].read_text())
    assert record["pt2_digest"] == hashlib.sha256(b"3").hexdigest()
    assert made[1].with_suffix(".pt2").read_bytes() == b"3"
    made[0].with_suffix(".pt2").write_bytes(b"4")
    with pytest.raises(UserError, match=r"\.pt2 has changed since it was written"):
        write_recorded(tmp_path / "a.b", {".onnx": b"1", ".pt2": b"2"}, {})
