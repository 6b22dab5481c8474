"""CSV files as spreadsheets, strangers and accidents write them."""

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_input import Input, refusal

from cellline.data.competition import load_competition
from cellline.data.problems import Problems
from cellline.data.rows import MAX_LINE
from cellline.data.tables import read_labels

pytestmark = pytest.mark.usefixtures("bounded")

HEADER = "file_id,cell_line\n"
UTF8 = "Save y_train.csv as CSV in the encoding UTF-8."
COMMAS = "Save y_train.csv as CSV with commas between the fields."
NOT_IDS = "are not non-negative integers"


def refused(given: Input, cache_dir: Path, y_train: bytes | str) -> list[str]:
    given.y_train = y_train.encode() if isinstance(y_train, str) else y_train
    return refusal(given.write(), cache_dir)


@pytest.mark.parametrize(
    ("encoding", "more"),
    [("utf-16", ""), ("utf-16-le", ""), ("utf-16-le", "ü"), ("utf-32", ""), ("latin-1", "ü")],
)
def test_other_encodings(given: Input, cache_dir: Path, encoding: str, more: str) -> None:
    y_train = given.y_train.decode().replace("HeLa", f"HeLa{more}").encode(encoding)
    line, advice = refused(given, cache_dir, y_train)
    assert re.fullmatch(r"  y_train\.csv: (zero bytes in it: )?not UTF-8 text", line)
    assert advice == UTF8


@pytest.mark.parametrize(
    ("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_other_separators(given: Input, cache_dir: Path, separator: str, name: str) -> None:
    assert refused(given, cache_dir, given.y_train.decode().replace(",", separator)) == [
        f"  y_train.csv: its fields are separated by {name}, expected commas",
        COMMAS,
    ]


def test_lone_carriage_returns_end_lines(given: Input, cache_dir: Path) -> None:
    given.y_train = given.y_train.replace(b"\n", b"\r")
    assert load_competition(given.write(), cache_dir).labels.tolist() == [2, 1, 2, 0]


def test_ids_that_are_no_whole_numbers(given: Input, cache_dir: Path) -> None:
    wrong = ["17.0", "1e3", "-1", "+1", "0x11", "1_0", "\u0661\u0667", "nan", "1 7", "9" * 19]
    line, advice = refused(
        given, cache_dir, given.y_train.decode() + "".join(f"{i},RT4\n" for i in wrong)
    )
    assert advice == "Ids are whole numbers if all in sample_submission.csv are, else text."
    assert f"  y_train.csv: {len(wrong)} ids {NOT_IDS}: " in line


def test_ids_with_thousands_of_zeros(given: Input, cache_dir: Path) -> None:
    given.y_train = given.y_train.replace(b"\n17,", b"\n" + b"0" * 5000 + b"17,")
    assert load_competition(given.write(), cache_dir).train_ids.tolist() == [1, 2, 17, 30]


def test_labels_that_stand_for_a_missing_one(given: Input, cache_dir: Path) -> None:
    y_train = HEADER + "1,nan\n2,\n17,NaN\n30,<NA>\n"
    assert refused(given, cache_dir, y_train) == [
        "  y_train.csv: 1 id has an empty label: 2",
        "  y_train.csv: 3 ids have a label that stands for a missing one (nan): 1, 17, 30",
        "Give every sample a label, or remove it together with its images.",
    ]


def test_words_that_may_be_a_class_or_a_missing_label(given: Input, cache_dir: Path) -> None:
    given.y_train = (HEADER + "1,NA\n2,none\n17,NA\n30,RT4\n").encode()
    loaded = load_competition(given.write(), cache_dir)
    assert loaded.classes == ("NA", "RT4", "none")
    advice = "; if that stands for a missing label, remove them together with their images"
    assert loaded.warnings == (
        f"y_train.csv: 2 samples are of a class 'NA'{advice}",
        f"y_train.csv: 1 sample is of a class 'none'{advice}",
    )


LEGAL = [
    "=1+1",
    '=HYPERLINK("http://x","y")',
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "<b>&amp;",
    "{{ 7 * 7 }}",
    "a,b",
    "it's",
    "../../x",
    "Zürich \U0001f9ec",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, written with a joiner
    "全角\u3000文字",
]


def test_markup_formulas_and_all_scripts_are_labels(given: Input, cache_dir: Path) -> None:
    for first, second in zip(LEGAL[::2], [*LEGAL[1::2], "x"], strict=True):
        quoted = ['"' + label.replace('"', '""') + '"' for label in (first, second)]
        given.y_train = (
            HEADER + f"1,{quoted[0]}\n2,{quoted[1]}\n17, {quoted[0]} \n30,{quoted[1]}\n"
        ).encode()
        loaded = load_competition(given.write(), cache_dir)
        assert [loaded.classes[i] for i in loaded.labels] == [first, second, first, second]


@pytest.mark.parametrize(
    "label",
    [
        "He\x1b[31mLa",
        "He\x07La",
        "He\x85La",
        "He\u2028La",
        "He\u202eaL",
        "He\u200bLa",
        "\ufeffHeLa",
    ],
)
def test_control_and_invisible_characters_are_no_labels(
    given: Input, cache_dir: Path, label: str
) -> None:
    assert refused(given, cache_dir, given.y_train.decode().replace("HeLa", label)) == [
        "  y_train.csv: 1 id has a label with control or invisible characters: 2"
    ]


def test_control_characters_in_the_header(given: Input, cache_dir: Path) -> None:
    given.sample_submission = given.sample_submission.replace(b"cell_line", b"cell\x1b[2J")
    given.y_train = given.y_train.replace(b"cell_line", b"cell\x1b[2J")
    (line,) = refusal(given.write(), cache_dir)
    assert line.startswith(
        "  sample_submission.csv: wrong header: found 'file_id,cell\\x1b[2J', expected the names"
    )


def test_columns_with_names_of_any_length_are_cut(given: Input, cache_dir: Path) -> None:
    given.sample_submission = given.sample_submission.replace(b"cell_line", b"c" * 100_000)
    (line,) = refusal(given.write(), cache_dir)
    assert line.startswith("  y_train.csv: wrong header: found 'file_id,cell_line', expected ")
    assert len(line) < 500


@pytest.mark.parametrize(
    ("y_train", "expected"),
    [
        (HEADER, "no rows below the header"),
        (",".join(["a"] * 10_000) + "\n", "wrong header: found 'a,a,a,"),
        (HEADER + "," * 10_000 + "x\n", "1 line has not two fields: 2"),
        (HEADER + "1," + "x" * (1 << 20) + "\n", "not a CSV: line 1: more than 1,048,576 chara"),
        (HEADER + '1,"' + "x\n" * 100_000, "not a CSV: line 65538: field larger than field limit"),
        (HEADER + '1,"RT4\n2,HeLa\n', "not a CSV: line 3: a line break within a field, or a quote"),
        (HEADER + "\n" * 1_000_001, "more than 1,000,001 lines"),
    ],
)
def test_absurd_tables(given: Input, cache_dir: Path, y_train: str, expected: str) -> None:
    (line,) = (one for one in refused(given, cache_dir, y_train) if one.startswith("  y_train"))
    assert line.startswith(f"  y_train.csv: {expected}")
    assert len(line) < 400


def test_lines_up_to_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text(HEADER + "1,RT4".ljust(MAX_LINE - 1) + "\n2,HeLa\n")
    problems = Problems(tmp_path)
    table = read_labels(tmp_path / "y.csv", None, problems)
    assert table is None and problems  # a field of a megabyte is refused by csv
    (tmp_path / "y.csv").write_text(HEADER + " " * 1000 + "1,RT4" + " " * 1000 + "\n2,HeLa\n")
    table = read_labels(tmp_path / "y.csv", None, Problems(tmp_path))
    assert table is not None
    assert table.ids.tolist() == [1, 2]
    assert table.labels == ["RT4", "HeLa"]


def test_what_is_no_file(given: Input, cache_dir: Path) -> None:
    path = given.write() / "y_train.csv"
    makers = {
        os.mkfifo: "can't be read: Not a regular file",
        partial(os.symlink, "/dev/zero"): "can't be read: Not a regular file",
        partial(os.symlink, "nowhere"): "missing",
        os.mkdir: "can't be read: Is a directory",
    }
    for make, expected in makers.items():
        path.unlink()
        make(path)
        assert refusal(given.folder, cache_dir) == [f"  y_train.csv: {expected}"]


def test_gigabytes_are_not_read(given: Input, cache_dir: Path) -> None:
    os.truncate(given.write() / "y_train.csv", 5 << 30)
    assert refusal(given.folder, cache_dir) == [
        "  y_train.csv: it has 5120 MiB, more than 128, which is enough for 1,000,001 lines"
    ]


@pytest.mark.torture
@pytest.mark.parametrize("bounded", [320 << 20], indirect=True)
def test_a_million_rows(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, 1_000_000)
    with (tmp_path / "y.csv").open("w") as file:
        file.write(HEADER)
        file.writelines(f"{i:07d},class {label}\n" for i, label in enumerate(labels))
    problems = Problems(tmp_path)
    table = read_labels(tmp_path / "y.csv", None, problems)
    assert not problems
    assert table is not None
    np.testing.assert_array_equal(table.ids, np.arange(1_000_000))
    assert all(int(label[-1]) == i for label, i in zip(table.labels, labels, strict=True))
