import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.data.competition import Competition
from cellline.prediction.submission import (
    render_submission,
    validate_submission,
    write_submission,
)


def test_ids_order_and_header_are_the_templates(competition: Competition) -> None:
    predicted = np.arange(9) % 3
    data = render_submission(replace(competition, label_column="line"), predicted)
    rows = data.decode().splitlines()
    assert rows[0] == "file_id,line"
    assert [row.split(",")[0] for row in rows[1:]] == list(competition.template)
    # The template counts down, the predictions up.
    assert [row.split(",")[1] for row in rows[1:]] == [
        competition.classes[k] for k in predicted[::-1]
    ]


def test_labels_that_need_quotes_survive(competition: Competition) -> None:
    odd = replace(competition, classes=('a "b", c', "=1+1", "<b>"))
    data = render_submission(odd, np.arange(9) % 3)
    validate_submission(data, odd)
    assert b'"a ""b"", c"' in data


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
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json"}
    record = json.loads(paths[1].with_suffix(".json").read_text())
    assert record["k"] == 1
    assert "torch" in record["versions"]
