"""Sets of images of several sizes, depths and kinds, each stored in one form."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_input import Input, make_input, png

from cellline.config import Reading, Resize
from cellline.data import cache, images
from cellline.data.competition import Competition, load_competition
from cellline.data.decoding import MAX_PIXELS
from cellline.errors import UserError

RNG = np.random.default_rng(0)


def encode(pixels: np.ndarray, file_format: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, file_format)
    return data.getvalue()


def one_file_each(folder: Path, train: Sequence[bytes], test: Sequence[bytes]) -> Input:
    """An input whose samples are one file each; a file's ending says nothing of its format."""
    labels = {i: "ab"[i % 2] for i in range(len(train))}
    made = make_input(folder, ("",), labels, [100 + i for i in range(len(test))])
    made.images = {
        "train": {f"{i:05d}.png": data for i, data in enumerate(train)},
        "test": {f"{100 + i:05d}.png": data for i, data in enumerate(test)},
    }
    return made


def load(
    folder: Path, cache_dir: Path, size: int | None = None, resize: Resize = "squash"
) -> Competition:
    return load_competition(folder, cache_dir, Reading(channels=("",), resize=resize), size)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def test_images_of_several_sizes(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One training image of another size, and all are resized."""
    pictures = [np.full((8, 6), 10 * i, np.uint8) for i in range(1, 6)]
    pictures[1] = np.full((9, 20), 77, np.uint8)
    data = [encode(each) for each in pictures]
    given = one_file_each(tmp_path / "input", data[:3], data[3:])
    loaded = load(given.write(), cache_dir, 4)
    assert loaded.channels == ("gray",)
    stored = [*loaded.train_images, *loaded.test_images]
    for picture, original in zip(stored, pictures, strict=True):
        np.testing.assert_array_equal(picture, np.full((1, 4, 4), original[0, 0]))
    assert capsys.readouterr().out == (
        "images of 6 x 8 to 20 x 9 pixels are resized to 4 x 4 (--resize squash)\n"
    )
    load(given.folder, cache_dir, 4)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"not \d+ x \d+ pixels like the first(.|\n)*--image-size"):
        load(given.folder, cache_dir)


def test_images_of_one_size_are_kept_up_to_twice_the_side(tmp_path: Path, cache_dir: Path) -> None:
    pictures = [noise(8, 6) for _ in range(4)]
    data = [encode(each) for each in pictures]
    given = one_file_each(tmp_path / "input", data[:2], data[2:])
    for size in (None, 4, 100):
        np.testing.assert_array_equal(
            np.asarray(load(given.write(), cache_dir, size).train_images)[:, 0], pictures[:2]
        )
    assert load(given.write(), cache_dir, 3).train_images.shape == (2, 1, 3, 3)


@pytest.mark.parametrize("gray", [0, 1, 2])
def test_gray_and_coloured_images_in_one_set(tmp_path: Path, cache_dir: Path, gray: int) -> None:
    pictures = [noise(8, 6, 3) for _ in range(3)]
    pictures[gray] = noise(8, 6)
    data = [encode(each) for each in pictures]
    loaded = load(one_file_each(tmp_path / "input", data[:2], data[2:]).write(), cache_dir)
    assert loaded.channels == ("red", "green", "blue")
    for found, original in zip([*loaded.train_images, *loaded.test_images], pictures, strict=True):
        expected = np.moveaxis(original, 2, 0) if original.ndim == 3 else [original] * 3
        np.testing.assert_array_equal(found, expected)


def test_other_pages_than_the_first(tmp_path: Path, cache_dir: Path) -> None:
    page = Image.fromarray(noise(8, 6))
    pages = io.BytesIO()
    page.save(pages, "TIFF", save_all=True, append_images=[page])
    data = [pages.getvalue(), pages.getvalue(), encode(noise(8, 6))]
    given = one_file_each(tmp_path / "input", data[:2], data[2:])
    told = "1 image with a different number of pages or channels than the first .2.: 00100"
    with pytest.raises(UserError, match=told):
        load(given.write(), cache_dir)
    given.images["test"]["00100.png"] = pages.getvalue()
    loaded = load(given.write(), cache_dir)
    assert loaded.channels == ("page1", "page2")
    np.testing.assert_array_equal(loaded.test_images, [[np.asarray(page)] * 2])


def test_16_bits_are_scaled_by_the_training_images(tmp_path: Path, cache_dir: Path) -> None:
    """From the smallest value to the 99.99th percentile; test images are clipped to that."""
    train = RNG.integers(1000, 2001, (4, 100, 100)).astype(np.uint16)
    train[0, :2, 0] = 1000, 2000
    train[1, 0, :3] = 60_000  # hot pixels: three of 40,000
    test = RNG.integers(0, 1 << 16, (2, 100, 100)).astype(np.uint16)
    data = [encode(each) for each in train], [encode(each) for each in test]
    given = one_file_each(tmp_path / "input", *data)
    loaded = load(given.write(), cache_dir)
    for found, values in ((loaded.train_images, train), (loaded.test_images, test)):
        expected = np.rint((values.clip(1000, 2000) - 1000.0) * 255 / 1000)
        np.testing.assert_array_equal(np.asarray(found)[:, 0], expected)
    assert load(given.folder, cache_dir).digest == loaded.digest  # from the cache
    for name in given.images["test"]:
        given.images["test"][name] = encode(test[0] // 2)
    changed = load(given.write(), cache_dir)
    assert changed.digest == loaded.digest
    assert changed.test_digest != loaded.test_digest
    assert load(given.write(), cache_dir, 20).train_images.shape == (4, 1, 20, 20)


def test_each_channel_has_its_own_scale(given: Input, cache_dir: Path) -> None:
    """Of two channels with 16 bits and one with 8, two are scaled."""
    deep = {"red": 1000, "yellow": 50_000}
    for named in given.images.values():
        for name in named:
            channel = name.removesuffix(".png").split("_")[1]
            if channel in deep:
                values = np.arange(48, dtype=np.uint16).reshape(8, 6) * 10 + deep[channel]
                named[name] = encode(values)
    loaded = load_competition(given.write(), cache_dir)
    expected = np.rint(np.arange(48).reshape(8, 6) * 10 * 255 / 470)
    for channel in (1, 2):
        np.testing.assert_array_equal(loaded.train_images[0][channel], expected)
    np.testing.assert_array_equal(loaded.train_images[0][0], given.pixels[1][0])


@pytest.mark.parametrize(
    ("split", "first", "phrase"),
    [
        ("train", 8, "images_train: 1 image with 8 bits where training images have 16: 00001"),
        ("train", 16, "images_train: 1 image with 8 bits where training images have 16: 00001"),
        ("test", 8, "images_test: 1 image with 16 bits where training images have 8: 00100"),
        ("test", 16, "images_test: 1 image with 8 bits where training images have 16: 00100"),
    ],
)
def test_8_and_16_bits_in_one_channel(
    tmp_path: Path, cache_dir: Path, split: str, first: int, phrase: str
) -> None:
    kinds = {8: encode(noise(8, 6)), 16: encode(noise(8, 6).astype(np.uint16) + 300)}
    other = kinds[24 - first]
    data = [kinds[first]] * 2, [kinds[first]]
    if split == "train":
        data[0][1] = kinds[8]
        data[0][0] = data[1][0] = kinds[16]
    else:
        data[1][0] = other
    with pytest.raises(UserError, match=phrase):
        load(one_file_each(tmp_path / "input", *data).write(), cache_dir)


def test_settings_have_entries_of_their_own(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [encode(noise(8, 6)) for _ in range(3)]
    given = one_file_each(tmp_path / "input", [*data, encode(noise(20, 20, 3))], data)
    settings: list[tuple[int, Resize]] = [(4, "squash"), (5, "squash"), (4, "crop"), (4, "pad")]
    first = [load(given.write(), cache_dir, *settings[0])]
    first += [load(given.folder, cache_dir, *each) for each in settings[1:]]
    assert len({each.digest for each in first}) == len(settings)
    monkeypatch.setattr(cache, "_decode", None)  # no image is read again
    again = [load(given.folder, cache_dir, *each) for each in settings]
    for one, other in zip(first, again, strict=True):
        assert one.channels == other.channels == ("red", "green", "blue")
        assert (one.digest, one.test_digest) == (other.digest, other.test_digest)


def test_long_decoding_is_announced(
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(images, "SAY_AFTER", 0)
    monkeypatch.setattr(images, "LONG_SECONDS", 0)
    given = one_file_each(tmp_path / "input", [encode(noise(8, 6))] * 2, [encode(noise(8, 6))])
    load(given.write(), cache_dir)
    lines = capsys.readouterr().out.splitlines()
    told = "images_train: decoding 2 images once, to 1 x 8 x 6 a sample: 0 MB in "
    assert lines[0] == f"{told}{cache_dir}, about 0 s"


@pytest.mark.parametrize("bounded", [170 << 20], indirect=True)
@pytest.mark.usefixtures("bounded")
def test_memory_does_not_grow_with_the_number_of_large_images(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 16 MiB, and a few kilobytes of file."""
    monkeypatch.setattr("cellline.host.processors.count_processors", lambda: 2)
    data = png(np.full((4096, 4096), 7, np.uint8))
    given = one_file_each(tmp_path / "input", [data] * 15 + [data[:-9]], [data])
    with pytest.raises(UserError, match="1 image damaged"):  # or else 256 MiB would be mapped
        load(given.write(), cache_dir)


def test_images_beyond_the_limit_are_refused(tmp_path: Path, cache_dir: Path) -> None:
    large = png(np.zeros((MAX_PIXELS // 8192 + 1, 8192), np.uint8))
    small = png(noise(8, 6))
    given = one_file_each(tmp_path / "input", [small, large], [small])
    with pytest.raises(UserError, match="1 image larger than 64 megapixels"):
        load(given.write(), cache_dir, 100)
