import csv
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

from cellline.config import Reading
from cellline.data.competition import Competition
from cellline.data.ids import parse_number, parse_text
from cellline.errors import UserError
from cellline.submitting.submission import (
    read_submissions,
    render_submission,
    validate_submission,
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


def test_ids_order_and_header_are_the_templates(competition: Competition) -> None:
    predicted = np.arange(9) % 3
    data = render_submission(replace(competition, template_columns=("file_id", "line")), predicted)
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
    data = render_submission(competition, predicted)
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
    data = render_submission(competition, np.arange(9))
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
    data = render_submission(competition, np.full(9, 2))
    validate_submission(data, competition)
    with pytest.raises(ValueError, match=message):
        validate_submission(data.replace(old, new), competition)


def test_other_predictions_never_overwrite_a_submission(
    competition: Competition, tmp_path: Path
) -> None:
    paths = [
        write_submission(tmp_path, "a", render_submission(competition, np.full(9, k)), {"k": k})
        for k in (0, 1, 0)
    ]
    assert paths[0] == paths[2] != paths[1]
    assert {path.suffix for path in tmp_path.glob("a-*")} == {".csv", ".json"}
    record = json.loads(paths[1].with_suffix(".json").read_text())
    assert record["k"] == 1
    assert "torch" in record["versions"]


def test_records_are_read_with_their_csvs(competition: Competition, tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    assert list(read_submissions(folder)) == []
    record = {"runs": [{"run": "a"}], "interval": (0.1, 1 / 3), "oof": None}
    path = write_submission(folder, "a", render_submission(competition, np.full(9, 1)), record)
    # Someone else's, and a record that was written before its process was killed.
    (folder / "other.csv").write_text("x")
    (folder / "b-12345678.json").write_bytes(path.with_suffix(".json").read_bytes())
    [(csv_path, read)] = read_submissions(folder)
    assert csv_path == path
    assert read["interval"] == [0.1, 1 / 3]


def test_no_byte_of_a_record_changes_unnoticed(competition: Competition, tmp_path: Path) -> None:
    record = {"runs": ["a"], "oof": {"bac": 0.75}}
    path = write_submission(
        tmp_path, "a", render_submission(competition, np.full(9, 1)), record
    ).with_suffix(".json")
    whole = path.read_bytes()
    damaged = [b"", b"[]", b"{}", b"null", bytes(50), b"\xff", whole[:-20], b"\x1b[2J"]
    damaged += [whole.replace(old, new) for old, new in ((b"0.75", b"0.95"), (b'"a"', b'"b"'))]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"\.json is damaged") as refused:
            list(read_submissions(tmp_path))
        assert str(path) in str(refused.value)
        assert "\x1b" not in str(refused.value)
