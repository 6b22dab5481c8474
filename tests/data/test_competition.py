"""The input folder: what is read from it, and everything that can be wrong with it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_input import CHANNELS, Input, make_input, png, refusal

from cellline.config import Reading
from cellline.data.competition import Competition, load_competition
from cellline.data.labels import EXPECTED
from cellline.errors import UserError

SMALL = Path(__file__).resolve().parents[2].parent / "shared/data/cell-lines-small"

Change = Callable[[Input], None]


def assert_same(one: Competition, other: Competition) -> None:
    assert one.digest == other.digest
    assert one.test_digest == other.test_digest
    for name in ("train_ids", "labels", "test_ids", "train_images", "test_images"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_reads_all_parts(given: Input, cache_dir: Path) -> None:
    given.y_train = b"file_id,cell_line\n30,A549\n1,RT4\n17,RT4\n2,HeLa\n"
    given.sample_submission = b"file_id,cell_line\n00901,RT4\n5,RT4\n"
    loaded = load_competition(given.write(), cache_dir)
    assert (loaded.id_column, loaded.label_column) == ("file_id", "cell_line")
    assert loaded.classes == ("A549", "HeLa", "RT4")
    assert loaded.channels == CHANNELS
    assert loaded.template == ("00901", "5")
    assert loaded.warnings == ()
    assert loaded.train_ids.dtype == loaded.test_ids.dtype == loaded.labels.dtype == np.int64
    assert loaded.train_ids.tolist() == [1, 2, 17, 30]
    assert loaded.labels.tolist() == [2, 1, 2, 0]
    assert loaded.test_ids.tolist() == [5, 901]
    for ids, images in (
        (loaded.train_ids, loaded.train_images),
        (loaded.test_ids, loaded.test_images),
    ):
        assert images[0].dtype == np.uint8
        np.testing.assert_array_equal(images, np.stack([given.pixels[i] for i in ids.tolist()]))


@pytest.mark.parametrize("form", [".tar", ".tar.gz", ".tgz", ".zip"])
def test_all_forms_are_the_same(given: Input, tmp_path: Path, cache_dir: Path, form: str) -> None:
    folder = load_competition(given.write(), cache_dir)
    given.folder = tmp_path / "other"
    other = load_competition(given.write(form, reverse=True), tmp_path / "cache")
    assert_same(folder, other)


def test_zero_padding_means_nothing(given: Input, tmp_path: Path, cache_dir: Path) -> None:
    padded = load_competition(given.write(), cache_dir)
    for split, images in given.images.items():
        given.images[split] = {name.lstrip("0"): data for name, data in images.items()}
    given.y_train = re.sub(rb"\n(\d)", rb"\n000\1", given.y_train)
    given.folder = tmp_path / "bare"
    bare = load_competition(given.write(), tmp_path / "cache")
    assert_same(padded, bare)


def test_other_channels(tmp_path: Path, cache_dir: Path) -> None:
    given = make_input(tmp_path / "input", ("er", "nucleus_2"))
    loaded = load_competition(given.write(), cache_dir, Reading(channels=("er", "nucleus_2")))
    assert loaded.channels == ("er", "nucleus_2")
    np.testing.assert_array_equal(loaded.test_images[0], given.pixels[5])


def test_channel_order_is_the_arrays(given: Input, cache_dir: Path) -> None:
    one = load_competition(given.write(), cache_dir)
    two = load_competition(given.folder, cache_dir, Reading(channels=("yellow", "red", "blue")))
    np.testing.assert_array_equal(np.asarray(one.train_images)[:, ::-1], two.train_images)
    assert one.digest != two.digest


def test_litter_is_skipped(given: Input, cache_dir: Path) -> None:
    for name in (".DS_Store", "._00001_red.png", "__MACOSX/00001_red.png", ".cache/x.png"):
        given.images["train"][name] = b"x"
    assert load_competition(given.write(), cache_dir).train_ids.tolist() == [1, 2, 17, 30]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbffile_id,cell_line\n1,NA\n2,HEK 293\n17,NA\n30,NA\n",
        b"file_id,cell_line\r\n1,NA\r\n2,HEK 293\r\n17,NA\r\n30,NA",
        b'"file_id","cell_line"\n1,NA\n"2","HEK 293"\n17, "NA"\n"30" ,NA\n',
        b" file_id , cell_line\n\n 1 , NA\n2,HEK 293\t\n17,NA\n30,NA\n , \n",
        b"cell_line,file_id\nNA,1\nHEK 293,2\nNA,17\nNA,30\n",
    ],
)
def test_csv_dialects(given: Input, cache_dir: Path, text: bytes) -> None:
    given.y_train = text
    loaded = load_competition(given.write(), cache_dir)
    assert loaded.classes == ("HEK 293", "NA")
    assert loaded.labels.tolist() == [1, 0, 1, 1]


def test_digests_cover_what_they_say(given: Input, cache_dir: Path) -> None:
    before = load_competition(given.write(), cache_dir)
    (given.folder / "y_train.csv").write_bytes(given.y_train.replace(b"17,RT4", b"17,HeLa"))
    relabelled = load_competition(given.folder, cache_dir)
    assert relabelled.digest != before.digest
    assert relabelled.test_digest == before.test_digest
    given.images["train"]["00017_red.png"] = png(given.pixels[1][0])
    repainted = load_competition(given.write(), cache_dir)
    assert repainted.digest != before.digest
    assert repainted.test_digest == before.test_digest


def test_blank_images_are_a_warning(given: Input, cache_dir: Path) -> None:
    blank = png(np.zeros((8, 6), np.uint8))
    given.images["train"] |= {"00017_blue.png": blank, "00002_blue.png": blank}
    given.images["test"]["00901_red.png"] = blank
    expected = (
        "images_train: 2 blue images all zero: 2, 17",
        "images_test: 1 red image all zero: 901",
    )
    assert load_competition(given.write(), cache_dir).warnings == expected
    assert load_competition(given.folder, cache_dir).warnings == expected


# Below: what is wrong.


def in_images(split: str, **changes: bytes | None) -> Change:
    """Replace or add (`_00017_red=...`) or remove (None) images."""

    def change(given: Input) -> None:
        for name, data in changes.items():
            name = f"{name.removeprefix('_')}.png"
            if data is None:
                del given.images[split][name]
            else:
                given.images[split][name] = data

    return change


def in_csv(name: str, old: bytes, new: bytes) -> Change:
    def change(given: Input) -> None:
        assert old in getattr(given, name)
        setattr(given, name, getattr(given, name).replace(old, new))

    return change


def rename(split: str, old: str, new: str) -> Change:
    def change(given: Input) -> None:
        images = given.images[split]
        given.images[split] = {name.replace(old, new): data for name, data in images.items()}

    return change


GOOD = png(np.full((8, 6), 9, np.uint8))
FLIPPED = bytearray(GOOD)
FLIPPED[-6] ^= 1  # in the checksum of the last chunk

DAMAGED = "damaged, truncated or not PNG, JPEG, TIFF, BMP or WebP"
AGAIN = "Download or copy the damaged files again."
NAMES = "not named <id>_<channel>.png (channels: blue, red, yellow)"
UNKNOWN = 'If the channels have other names, set --channels (--channels "" for files <id>.png).'
OMIT = "To leave images without a row out, give --extra-images omit."
LABEL_THEM = "Give every sample a label, or remove it together with its images."

FAULTS: dict[str, Change] = {
    "images_train: 2 samples without channel red: 1, 17": in_images(
        "train", _00017_red=None, _00001_red=None
    ),
    f"images_train: 3 images {DAMAGED}: 00001_blue.png, 00001_red.png, 00017_red.png": in_images(
        "train", _00017_red=GOOD[:-20], _00001_blue=b"GIF89a", _00001_red=bytes(FLIPPED)
    ),
    "images_test: 1 image not 6 x 8 pixels like the first: 00901_red.png": in_images(
        "test", _00901_red=png(np.zeros((6, 8), np.uint8))
    ),
    f"images_train: 3 files {NAMES}: {'9' * 20}_red.png, notes.png, x_red.png": (
        in_images("train", notes=b"", _x_red=GOOD, **{"9" * 20 + "_red": GOOD})
    ),
    "images_train: 1 sample without a row in y_train.csv: 7": in_images("train", _7_red=GOOD),
    f"images_test: 2 files {NAMES}: 00005_green.png, 00901_green.png": rename(
        "test", "_red", "_green"
    ),
    "images_train: 1 image stored twice: 17_red.png": in_images("train", _17_red=GOOD),
    "y_train.csv: 1 row without images in images_train: 17": rename("train", "00017", "00018"),
    "y_train.csv: 2 ids in several rows with different labels: 17, 30": in_csv(
        "y_train", b"17,RT4", b"17,RT4\n00017,nan\n30,RT4"
    ),
    "y_train.csv: 4 ids not whole and non-negative: '', '-3', '1.0', '²'": in_csv(
        "y_train", b"\n17,RT4", b"\n17,RT4\n-3,RT4\n1.0,RT4\n,RT4\n\xc2\xb2,RT4"
    ),
    "y_train.csv: not a table: Expected 2 fields in line 4, saw 3": in_csv(
        "y_train", b"\n17,RT4", b"\n17,RT4,RT4"
    ),
    "y_train.csv: fewer than two classes: found 'RT4'": lambda given: setattr(
        given, "y_train", re.sub(rb",(HeLa|A549)", b",RT4", given.y_train)
    ),
    "sample_submission.csv: wrong header: found '5,RT4', expected a different name for each "
    "column": in_csv("sample_submission", b"file_id,cell_line\n", b""),
    "y_train.csv: not a table: empty, expected a header and rows": (
        lambda given: setattr(given, "y_train", b"\n")
    ),
}


@pytest.mark.parametrize(("expected", "change"), FAULTS.items(), ids=range(len(FAULTS)))
def test_every_fault_is_named(given: Input, cache_dir: Path, expected: str, change: Change) -> None:
    change(given)
    assert f"  {expected}" in refusal(given.write(), cache_dir)


def test_all_faults_are_reported_at_once(given: Input, cache_dir: Path) -> None:
    given.images["train"] |= {f"x{number}.png": b"x" for number in range(7)}
    in_images("train", _00017_red=None, _00030_red=bytes(FLIPPED))(given)
    in_csv("y_train", b"HeLa", b"")(given)
    in_csv("sample_submission", b"901", b"902")(given)
    assert refusal(given.write(".tar"), cache_dir) == [
        "  images_test.tar: 1 sample without a row in sample_submission.csv: 901",
        f"  images_train.tar: 1 image {DAMAGED}: 00030_red.png",
        "  images_train.tar: 1 sample without channel red: 17",
        f"  images_train.tar: 7 files {NAMES}: x0.png, x1.png, x2.png, x3.png, x4.png and 2 more",
        "  sample_submission.csv: 1 row without images in images_test.tar: 902",
        "  y_train.csv: 1 id without a label (empty or nan): 2",
        LABEL_THEM,
        UNKNOWN,
        AGAIN,
        OMIT,
    ]


def test_missing_folder(tmp_path: Path, cache_dir: Path) -> None:
    with pytest.raises(UserError, match=r"absent can't be read: No such file or directory\.\nExp"):
        load_competition(tmp_path / "absent", cache_dir)


def test_missing_files(given: Input, cache_dir: Path) -> None:
    given.folder.mkdir()
    assert refusal(given.folder, cache_dir) == ["  labels: not found", EXPECTED]


def test_an_archive_that_lies_beside_its_content_is_left_alone(
    given: Input, cache_dir: Path
) -> None:
    given.write()
    given.write(".zip")
    assert load_competition(given.folder, cache_dir).reading.train_images == "images_train"


@pytest.mark.parametrize("part", [0.0, 0.47])
@pytest.mark.parametrize("form", [".tar", ".tar.gz", ".zip"])
def test_truncated_archive(given: Input, cache_dir: Path, form: str, part: float) -> None:
    archive = given.write(form) / f"images_train{form}"
    os.truncate(archive, int(archive.stat().st_size * part))
    lines = refusal(given.folder, cache_dir)
    assert f"  images_train{form}: can't be read: damaged or truncated" in lines
    # The member in which a tar breaks off may be named, but not all that the archive lacks.
    assert not any("without" in line for line in lines)


def test_links_are_not_followed(given: Input, cache_dir: Path) -> None:
    image = given.write() / "images_train/images_train/00017_red.png"
    image.rename(given.folder.parent / "elsewhere.png")
    image.symlink_to(given.folder.parent / "elsewhere.png")
    (image.parent / "more").symlink_to(given.folder.parent)
    assert refusal(given.folder, cache_dir) == [
        "  images_train: 1 sample without channel red: 17",
        "  images_train: 2 files not regular (a link, device or pipe): 00017_red.png, more",
    ]


@pytest.mark.parametrize("channels", [("red", "red")])
def test_channels_must_differ(given: Input, cache_dir: Path, channels: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--channels"):
        load_competition(given.write(), cache_dir, Reading(channels=channels))
