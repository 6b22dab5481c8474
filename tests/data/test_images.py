"""Decoding in parallel, and finding the decoded images again."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_input import Input, make_input, png

from cellline.data import archives, cache, images
from cellline.data.competition import load_competition
from cellline.data.decoding import CHUNK_IMAGES, Encoded, decode, decode_png
from cellline.errors import UserError

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
GOOD = png(PIXELS)


def entry(cache_dir: Path) -> Path:
    """Return the only entry."""
    (folder,) = (path for path in cache_dir.iterdir() if path.is_dir())
    return folder


def no_decoding(*_: object) -> Iterator[object]:
    raise AssertionError("decoded again")
    yield


def test_decode_png() -> None:
    assert decode_png(GOOD, (8, 6)) == PIXELS.tobytes()
    assert decode_png(GOOD, (6, 8)) is None
    assert decode_png(png(PIXELS, "RGB"), (8, 6)) is None


def test_damage_of_any_byte_is_noticed() -> None:
    for at in range(len(GOOD)):
        damaged = bytearray(GOOD)
        damaged[at] ^= 0x10
        assert decode_png(bytes(damaged), (8, 6)) is None, at
    for length in range(len(GOOD)):
        assert decode_png(GOOD[:length], (8, 6)) is None, length


@pytest.mark.parametrize("workers", [1, 2])
def test_decode_keeps_the_order(workers: int) -> None:
    planes = [np.full((8, 6), i % 251, np.uint8) for i in range(5 * CHUNK_IMAGES + 3)]
    encoded = [Encoded("train", str(i), png(plane)) for i, plane in enumerate(planes)]
    encoded[300] = Encoded("train", "300", b"")
    decoded = list(decode(encoded, (8, 6), workers))
    assert [name for _, name, _ in decoded] == [str(i) for i in range(len(planes))]
    for i, (_, _, pixels) in enumerate(decoded):
        assert pixels == (None if i == 300 else planes[i].tobytes())


def test_memory_is_bounded() -> None:
    taken = 0

    def endless() -> Iterator[Encoded]:
        nonlocal taken
        while True:
            taken += 1
            yield Encoded("train", str(taken), GOOD)

    decoded = decode(endless(), (8, 6), workers=2)
    for given in range(1, 10 * CHUNK_IMAGES):
        next(decoded)
        assert taken - given <= 6 * CHUNK_IMAGES
    decoded.close()  # type: ignore[attr-defined]


def test_large_images_travel_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellline.data.decoding.CHUNK_BYTES", 100)
    taken = []

    def counted() -> Iterator[Encoded]:
        for i in range(9):
            taken.append(i)
            yield Encoded("train", str(i), GOOD)

    next(decode(counted(), (8, 6), workers=1))
    assert len(taken) <= 3


def test_second_start_decodes_nothing(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_competition(given.write(), cache_dir)
    before = (entry(cache_dir) / "train.npy").stat()
    monkeypatch.setattr("cellline.data.competition.list_images", no_decoding)
    second = load_competition(given.folder, cache_dir)
    after = (entry(cache_dir) / "train.npy").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.train_images, second.train_images)


def test_forms_share_one_entry(given: Input, tmp_path: Path, cache_dir: Path) -> None:
    load_competition(given.write(), cache_dir)
    before = (entry(cache_dir) / "train.npy").stat().st_ino
    given.folder = tmp_path / "other"
    load_competition(given.write(".tar"), cache_dir)
    assert (entry(cache_dir) / "train.npy").stat().st_ino == before
    assert sorted(path.suffix for path in cache_dir.iterdir()) == ["", ".json", ".json"]


@pytest.mark.parametrize("form", ["", ".tar"])
def test_changed_image_is_decoded_again(
    given: Input, tmp_path: Path, cache_dir: Path, form: str
) -> None:
    first = load_competition(given.write(form), cache_dir)
    path = given.folder / ("images_test.tar" if form else "images_test/images_test/00005_red.png")
    times = path.stat()
    given.images["test"]["00005_red.png"] = png(given.pixels[5][1][::-1])
    given.folder = tmp_path / "other"
    path.write_bytes((given.write(form) / path.relative_to(tmp_path / "input")).read_bytes())
    given.folder = tmp_path / "input"
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a copy that keeps the time
    second = load_competition(given.folder, cache_dir)
    assert path.stat().st_size == times.st_size
    assert second.test_digest != first.test_digest
    np.testing.assert_array_equal(second.test_images[0, 1], first.test_images[0, 1][::-1])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
@pytest.mark.parametrize("name", ["train.npy", "test.npy", "images.json"])
def test_damaged_entry_is_rebuilt(given: Input, cache_dir: Path, damage: object, name: str) -> None:
    first = load_competition(given.write(), cache_dir)
    expected = np.array(first.train_images), np.array(first.test_images)
    assert callable(damage)
    damage(entry(cache_dir) / name)
    second = load_competition(given.folder, cache_dir)
    np.testing.assert_array_equal(second.train_images, expected[0])
    np.testing.assert_array_equal(second.test_images, expected[1])
    assert second.digest == first.digest


def test_other_ids_in_the_entry_are_noticed(given: Input, cache_dir: Path) -> None:
    load_competition(given.write(), cache_dir)
    path = entry(cache_dir) / "images.json"
    record = json.loads(path.read_text())
    record["train"]["ids"].reverse()
    path.write_text(json.dumps(record))
    assert load_competition(given.folder, cache_dir).train_ids.tolist() == [1, 2, 17, 30]


def test_copied_cache_is_used(
    given: Input, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_competition(given.write(), cache_dir)
    shutil.copytree(cache_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.setattr("cellline.data.competition.list_images", no_decoding)
    load_competition(given.folder, tmp_path / "copy")


class Killed(BaseException):
    """What a cleanup can't see coming."""


def test_interrupted_decoding_leaves_nothing(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[object]:
        yield "train", "00001_red.png", b"\7" * 48
        assert len(list(cache_dir.iterdir())) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(images, "_decoded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_competition(given.write(), cache_dir)
    assert not cache_dir.parent.exists()
    load_competition(given.folder, cache_dir)


@pytest.mark.parametrize("step", ["write_json", "digest_file", "sync_folder"])
def test_killed_decoding_is_not_taken_for_whole(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(cache, step, killed)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            load_competition(given.write(), cache_dir)
    assert len(list(cache_dir.iterdir())) == 1
    loaded = load_competition(given.folder, cache_dir)
    np.testing.assert_array_equal(loaded.train_images[0], given.pixels[1])


def test_leftovers_of_killed_decoding_go(given: Input, cache_dir: Path) -> None:
    old, new = cache_dir / ".decoding-old", cache_dir / ".decoding-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "train.npy").write_bytes(b"x")
    os.utime(old, (0, 0))
    load_competition(given.write(), cache_dir)
    assert not old.exists()
    assert new.exists()  # perhaps another process is decoding into it


def test_existing_cache_folder_keeps_the_rest(given: Input, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True)
    given.images["test"]["00005_red.png"] = GOOD[:-20]
    with pytest.raises(UserError):
        load_competition(given.write(), cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_file_that_goes_while_it_is_read(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = archives.members

    def fewer(source: Path, folder: str) -> Iterator[object]:
        return (member for member in read(source, folder) if member.name != "00017_red.png")

    monkeypatch.setattr(images, "members", fewer)
    with pytest.raises(UserError, match=r"1 file changed while it was read: 00017_red\.png"):
        load_competition(given.write(), cache_dir)
    assert not cache_dir.parent.exists()


def test_full_disk(given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"can't be kept in .*cache: No space left"):
        load_competition(given.write(), cache_dir)
    assert not cache_dir.parent.exists()


def test_cache_in_place_of_a_file(given: Input, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="can't be kept in"):
        load_competition(given.write(), tmp_path / "file" / "cache")


def test_workers_change_nothing(tmp_path: Path) -> None:
    labels = {i: random.Random(i).choice("ab") for i in range(1, 121)}
    given = make_input(tmp_path / "input", labels=labels, test_ids=range(200, 300))
    one = load_competition(given.write(".tar"), tmp_path / "one", workers=1)
    two = load_competition(given.folder, tmp_path / "two", workers=2)
    assert one.digest == two.digest
    np.testing.assert_array_equal(two.test_images[7], given.pixels[207])
