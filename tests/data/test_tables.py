"""CSV files as spreadsheets, strangers and accidents write them."""

import gzip
import io
import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_input import Input, refusal

from cellline.data.competition import load_competition
from cellline.data.tables import parse_table

pytestmark = pytest.mark.usefixtures("bounded")

HEADER = "file_id,cell_line\n"
UTF8 = "Save it as CSV in the encoding UTF-8."


def refused(given: Input, cache_dir: Path, y_train: bytes | str) -> list[str]:
    given.y_train = y_train.encode() if isinstance(y_train, str) else y_train
    return refusal(given.write(), cache_dir)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings(given: Input, cache_dir: Path, encoding: str) -> None:
    y_train = given.y_train.decode().replace("HeLa", "HeLaü").encode(encoding)
    assert refused(given, cache_dir, y_train) == ["  y_train.csv: not UTF-8 text", UTF8]


def test_a_table_that_is_an_archive_is_named(given: Input, cache_dir: Path) -> None:
    table, packed = given.y_train, io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("y_train.csv", table)
    what = "a zip archive by its content"
    rename = "Rename it to y_train.csv.zip."
    assert refused(given, cache_dir, packed.getvalue()) == [f"  y_train.csv: {what}", rename]
    told = ["  y_train.csv: packed by gzip", "Unpack it."]
    assert refused(given, cache_dir, gzip.compress(table)) == told
    # A primary key is no archive.
    assert parse_table(b"PK,label\n1,a\n", "y_train.csv").columns == ("PK", "label")


@pytest.mark.parametrize("separator", [b";", b"\t"])
def test_other_separators(given: Input, cache_dir: Path, separator: bytes) -> None:
    given.y_train = given.y_train.replace(b",", separator)
    assert load_competition(given.write(), cache_dir).classes == ("A549", "HeLa", "RT4")


def test_labels_that_stand_for_a_missing_one(given: Input, cache_dir: Path) -> None:
    y_train = HEADER + "1,nan\n2,\n17,NaN\n30,<NA>\n"
    assert refused(given, cache_dir, y_train) == [
        "  y_train.csv: 4 ids without a label (empty or nan): 1, 2, 17, 30",
        "Give every sample a label, or remove it together with its images.",
    ]


def test_words_that_may_be_a_class_or_a_missing_label(given: Input, cache_dir: Path) -> None:
    given.y_train = (HEADER + "1,NA\n2,none\n17,NA\n30,RT4\n").encode()
    loaded = load_competition(given.write(), cache_dir)
    assert loaded.classes == ("NA", "RT4", "none")
    advice = "; if that stands for a missing label, remove these samples together with their images"
    assert loaded.warnings == (
        f"y_train.csv: 2 x the class 'NA'{advice}",
        f"y_train.csv: 1 x the class 'none'{advice}",
    )


@pytest.mark.parametrize("char", ["\x1b[31m", "\x85", "\u2028", "\u202e", "\u200b", "\ufeff"])
def test_control_and_invisible_characters_are_no_labels(
    given: Input, cache_dir: Path, char: str
) -> None:
    assert refused(given, cache_dir, given.y_train.decode().replace("HeLa", f"He{char}La")) == [
        "  y_train.csv: 1 id with control or invisible characters in the label: 2"
    ]


def test_what_is_no_file(given: Input, cache_dir: Path) -> None:
    path = given.write() / "y_train.csv"
    makers = {
        os.mkfifo: "can't be read: Not a regular file",
        partial(os.symlink, "/dev/zero"): "can't be read: Not a regular file",
        partial(os.symlink, "nowhere"): "missing",
        os.mkdir: "can't be read: Not a regular file",
    }
    for make, expected in makers.items():
        path.unlink()
        make(path)
        assert refusal(given.folder, cache_dir) == [f"  y_train.csv: {expected}"]


@pytest.mark.parametrize(
    ("y_train", "expected"),
    [
        (HEADER, "no rows below the header"),
        ("a," * 5_999 + "a\n1", "wrong header: found 'a,a,a,"),
        ("a," * 1_000_000, "not a table: its first line has more than 262,144 characters"),
        (HEADER + '1,"' + "x\n" * 100_000, "not a table: EOF inside string"),
        (HEADER + "2,HeLa\n1,RT4,\n", "not a table: Expected 2 fields in line 3, saw 3"),
        (HEADER + "1,He\0La\n", "1 id with control or invisible characters in the label"),
    ],
    ids=range(6),
)
def test_absurd_tables(given: Input, cache_dir: Path, y_train: str, expected: str) -> None:
    lines = [one for one in refused(given, cache_dir, y_train) if one.startswith("  y_train")]
    assert any(line.startswith(f"  y_train.csv: {expected}") for line in lines), lines
    assert all(len(line) < 800 for line in lines)


def test_gigabytes_are_not_read(given: Input, cache_dir: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cellline.data.tables.MAX_ENTRIES", 3)
    line = "  y_train.csv: not a table: it has more than 3 rows"
    assert refusal(given.write(), cache_dir) == [line]
    monkeypatch.setattr("cellline.data.tables.MAX_BYTES", 10 << 20)
    os.truncate(given.folder / "y_train.csv", 5 << 30)
    assert refusal(given.folder, cache_dir) == [
        "  y_train.csv: not a table: it has more than 10 MiB"
    ]
