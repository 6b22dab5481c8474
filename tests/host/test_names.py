import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_labels import LABELS

from cellline.host.names import (
    LONGEST,
    align,
    count_columns,
    name_classes,
    printable,
    shorten_name,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


@given(TEXTS)
def test_what_is_printable_stays_and_the_rest_is_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\u202eb", "\udc80", "\x9b31m"])
def test_nothing_drives_the_terminal(text: str) -> None:
    assert printable(text).isascii()
    assert printable(f"細胞 {text}").startswith("細胞 ")


@given(TEXTS)
def test_a_name_is_short_and_keeps_its_ends(name: str) -> None:
    shown = shorten_name(name)
    assert count_columns(shown) <= LONGEST
    if count_columns(name) <= LONGEST:
        assert shown == name
    else:
        head, tail = shown.split("...", 1) if "..." not in name else ("", "")
        assert name.startswith(head)
        assert name.endswith(tail)


def test_the_width_is_that_in_a_terminal() -> None:
    assert count_columns("HeLa") == 4
    assert count_columns("細胞株") == 6
    assert shorten_name("細" * 300) == "細" * 7 + "..." + "細" * 7


def test_classes_that_are_short_keep_their_names() -> None:
    assert name_classes(LABELS)[2:7] == LABELS[2:7]


def test_classes_that_look_alike_are_told_apart() -> None:
    shown = name_classes(LABELS)
    assert len(set(shown)) == len(LABELS)
    assert [name[-3:] for name in shown[-2:]] == ["(7)", "(8)"]


def test_a_column_has_one_width() -> None:
    column = align(["", *name_classes(LABELS)])
    assert {count_columns(cell) for cell in column} == {
        max(map(count_columns, name_classes(LABELS)))
    }
    assert [cell.rstrip() for cell in column] == ["", *name_classes(LABELS)]
