"""Ids that are text: from the files' names to the submission, the same letters everywhere."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_competition import assert_same
from tiny_input import Input, make_input, png, refusal, table

from cellline.config import Reading
from cellline.data.competition import load_competition
from cellline.data.ids import LONGEST_ID, find_rows, number_samples, parse_text
from cellline.data.naming import ImageNames
from cellline.errors import UserError

CHANNELS = ("dna", "er_2")
# Not in their order; alike but for zeros, case, dots, underscores and what follows a prefix.
LABELS = {
    "plate3_B07": "RT4",
    "img-00012": "HeLa",
    "00017": "RT4",
    "17": "A549",
    "b.1": "HeLa",
    "B.1": "RT4",
    "plate3_B07_er_2": "A549",
    'a "b", c': "RT4",
    "Zürich_細胞": "A549",
}
TEST_IDS = ("b", "0017", "_", "plate3", "-1", "=1+1")
WHY = (
    "Not all ids are whole numbers, so they are compared as text, including case and leading zeros."
)


@pytest.fixture
def named(tmp_path: Path) -> Input:
    """A sound input of text ids, not written yet."""
    return make_input(tmp_path / "input", CHANNELS, LABELS, TEST_IDS)


def test_text_ids(named: Input, cache_dir: Path) -> None:
    loaded = load_competition(named.write(), cache_dir, Reading(channels=CHANNELS))
    assert loaded.train_ids.tolist() == sorted(LABELS)
    assert [loaded.classes[k] for k in loaded.labels] == [LABELS[i] for i in sorted(LABELS)]
    assert loaded.test_ids.tolist() == sorted(TEST_IDS)
    assert loaded.template == TEST_IDS
    for ids, images in (
        (loaded.train_ids, loaded.train_images),
        (loaded.test_ids, loaded.test_images),
    ):
        assert ids.dtype.kind == "U"
        np.testing.assert_array_equal(images, np.stack([named.pixels[i] for i in ids.tolist()]))
    # A second start reads them from the cache.
    assert_same(load_competition(named.folder, cache_dir, Reading(channels=CHANNELS)), loaded)


def test_text_in_place_of_a_number_makes_the_ids_of_its_part_text(
    given: Input, cache_dir: Path
) -> None:
    given.y_train = given.y_train.replace(b"\n1,", b"\nx,").replace(b"\n2,", b"\ny,")
    given.sample_submission = table([("00005", "RT4"), ("901", "RT4")])
    lines = refusal(given.write(), cache_dir)
    assert lines[-1] == WHY
    assert "  y_train.csv: 4 rows without images in images_train: 17, 30, x, y" in lines


def test_composed_and_decomposed_letters_are_one(named: Input, cache_dir: Path) -> None:
    images = named.images["train"]
    apart = {unicodedata.normalize("NFD", name): data for name, data in images.items()}
    assert apart.keys() != images.keys()
    named.images["train"] = apart
    loaded = load_competition(named.write(".tar"), cache_dir, Reading(channels=CHANNELS))
    assert loaded.train_ids.tolist() == sorted(LABELS)
    twice = unicodedata.normalize("NFD", "Zürich_細胞")
    named.y_train += table([(twice, "RT4")]).partition(b"\n")[2]
    with pytest.raises(UserError, match="1 id in several rows with different labels: Zürich_細胞"):
        load_competition(named.write(".tar"), cache_dir, Reading(channels=CHANNELS))


def test_files_that_belong_to_no_text_id(named: Input, cache_dir: Path) -> None:
    names = ["a _dna.png", f"{'x' * 129}_dna.png", "a\x1b_dna.png", "_rna.png"]
    named.images["test"] |= dict.fromkeys(names, png(np.zeros((8, 6), np.uint8)))
    line, _ = refusal(named.write(), cache_dir, CHANNELS)
    assert line.startswith(
        "  images_test: 4 files not named <id>_<channel>.png (channels: dna, er_2)"
    )
    assert line.isprintable()


def test_images_without_a_channel_in_their_names(tmp_path: Path, cache_dir: Path) -> None:
    given = make_input(tmp_path / "input", ("x",), LABELS, TEST_IDS)
    for split, images in given.images.items():
        given.images[split] = {name.replace("_x.png", ".png"): d for name, d in images.items()}
    loaded = load_competition(given.write(".tar"), cache_dir, Reading(channels=("",)))
    pixels = np.stack([given.pixels[i] for i in loaded.train_ids.tolist()])
    np.testing.assert_array_equal(loaded.train_images, pixels)
    with pytest.raises(UserError, match=r'set --channels \(--channels "" for files <id>\.png\)'):
        load_competition(given.folder, cache_dir, Reading(channels=("x",)))


def test_the_longest_channel_that_fits_is_meant() -> None:
    names = ImageNames(("2", "er_2", ""), numeric=False)
    parsed = [names.parse(name) for name in ("a_er_2.png", "a_2.png", "a_b.png", "er_2.png", "a")]
    assert parsed == [("a", 1), ("a", 0), ("a_b", 2), ("er", 0), None]


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=LONGEST_ID)
NAMED = TEXT.map(parse_text).filter(lambda text: text is not None)


@given(st.lists(NAMED, min_size=1, max_size=20, unique=True))
def test_rows_are_found_in_any_order(ids: list[str]) -> None:
    array = np.array(sorted(ids), np.str_)
    assert array.tolist() == sorted(ids)
    assert array[find_rows(ids, array)].tolist() == ids


def test_a_sample_has_its_number_everywhere() -> None:
    numbers = np.array([5, 17])
    np.testing.assert_array_equal(number_samples(numbers), numbers)
    # Those of any machine and version: what a run's augmentation is drawn from.
    text = number_samples(np.array(["plate3_B07", "é"]))
    assert text.tolist() == [948419161876854565, 1697006002183834981]
    wider = number_samples(np.array(["é", "x" * 100, "plate3_B07"]))
    assert wider[[2, 0]].tolist() == text.tolist()
