"""Classes that a person reads as one, and placeholders that no class has as its name."""

# ruff: noqa: RUF001 (the subject is letters that look alike)

from pathlib import Path

import pytest
from tiny_input import LABELS, make_input, table

from cellline.data.competition import load_competition
from cellline.data.lookalikes import find_alike

ALIKE = [
    ("HeLa", "hela"),
    ("Straße", "STRASSE"),
    ("Зуб", "зуб"),
    ("U-2 OS", "U-2  OS"),
    ("U-2 OS", "U-2\u00a0OS"),
    ("U-2 OS", "U-2OS"),
    ("HEK 293", "HEK_293"),
    ("A549", "A\u200d549"),
    ("A549", "\u0410549"),
    ("HeLa", "\u0397eLa"),
    ("MCF-7", "MCF\u20117"),
    ("10 \u00b5M", "10 \u03bcM"),
    ("10 uM", "10 \u03bcM"),
    ("Z\u00fcrich", "Zu\u0308rich"),
    ("ＨｅＬａ", "HeLa"),
    ("U2OS", "U20S"),
    ("Al", "AI"),
    ("1", "1.0"),
    ("0.5", "0.50"),
    ("1000", "1e3"),
    ("class 1", "class 01"),
    ("10 mM", "10.0 mM"),
]
DISTINCT = (
    *("A549", "A594", "class 1", "class 10", "class 11", "class 1 1", "1", "10", "-1", "Β", "да"),
    *("CD4", "CD4+", "CD4-", "1.1", "1.10.2", "1.1.2", "1.1.10", "1.1.1", "fail", "fall", "нет"),
)


@pytest.mark.parametrize("names", ALIKE, ids=ascii)
def test_names_that_a_person_reads_as_one_are_found(names: tuple[str, str]) -> None:
    assert find_alike([*names, "other"]) == [list(names)]


def test_distinct_names_are_left_alone() -> None:
    assert find_alike(DISTINCT) == []


def test_the_warning_names_both_so_that_they_differ(tmp_path: Path, cache_dir: Path) -> None:
    made = make_input(tmp_path / "input", labels={1: "A549", 2: "\u0410549", 3: "RT4", 4: "RT4"})
    [warning] = load_competition(made.write(), cache_dir).warnings
    assert warning == (
        "y_train.csv: 2 classes read alike, which differ in cyrillic capital letter a: 'A549' "
        "(1 x) and '\\u0410549' (1 x); if they are one class, write it in one way"
    )


@pytest.mark.parametrize(
    ("placeholder", "warned"), [("RT4", False), ("", False), ("0", True), ("rt4", True)]
)
def test_a_placeholder_is_empty_or_a_class(
    tmp_path: Path, cache_dir: Path, placeholder: str, warned: bool
) -> None:
    made = make_input(tmp_path / "input", labels=LABELS)
    made.sample_submission = table((i, placeholder) for i in (5, 901))
    warnings = load_competition(made.write(), cache_dir).warnings
    assert len(warnings) == warned
    for warning in warnings:
        assert f"that are not classes: {placeholder!r}; the classes are 'A549', " in warning
