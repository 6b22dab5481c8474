"""Hostile folders and archives: each ends in a message or the right result, with little memory."""

import bz2
import gzip
import lzma
import os
import re
import resource
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import END_OF_TAR, pax_entry, tar_entry, tar_header
from tiny_input import Input, make_input, png, refusal

from cellline.config import Reading
from cellline.data import files, images
from cellline.data.competition import load_competition
from cellline.errors import UserError

pytestmark = pytest.mark.usefixtures("bounded")

GOOD = png(np.zeros((8, 6), np.uint8))
AGAIN = "Download or copy the damaged files again."
STRAYS = "not named <id>_<channel>.png (channels: blue, red, yellow)"
RENAME = 'If the channels have other names, set --channels (--channels "" for files <id>.png).'
OUTSIDE = ["../../../outside_red.png", "/tmp/outside_red.png", "a\\..\\outside_red.png"]
LINK = "not regular (a link, device or pipe)"


def sound_entries(given: Input) -> bytes:
    """The training images as a tar without its end."""
    return b"".join(tar_entry(name.encode(), data) for name, data in given.images["train"].items())


def write_tar(given: Input, data: bytes, form: str = ".tar") -> Path:
    """Write the input with these bytes as its training images."""
    folder = given.write(form)
    (folder / f"images_train{form}").write_bytes(data if form == ".tar" else gzip.compress(data, 1))
    return folder


@pytest.mark.parametrize("form", ["", ".tar", ".zip"])
def test_too_few_open_files_are_no_damage(given: Input, form: str) -> None:
    place = given.write(form) / f"images_train{form}"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            list(files.members(place))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def write_zip(given: Input, add: Callable[[zipfile.ZipFile], None]) -> Path:
    """Write the input as zips, and add to the training images."""
    folder = given.write(".zip")
    with zipfile.ZipFile(folder / "images_train.zip", "a") as archive:
        add(archive)
    return folder


@pytest.mark.parametrize("form", [".tar.gz", ".zip"])
def test_names_that_lead_out_are_strays(given: Input, cache_dir: Path, form: str) -> None:
    given.images["train"] |= dict.fromkeys(OUTSIDE, GOOD)
    folder = given.write(form, prefix=False)
    # In a zip, Windows has meant a folder.
    shown = [name.replace("\\", "/") if form == ".zip" else name for name in OUTSIDE]
    assert refusal(folder, cache_dir) == [
        f"  images_train{form}: 3 files {STRAYS}: {', '.join(shown)}",
        RENAME,
    ]
    assert {path.name for path in folder.parent.iterdir()} == {"input", "new"}


@pytest.mark.parametrize(
    ("form", "name"), [(".tar", ".tar.gz"), (".tar.gz", ".tar"), (".zip", ".tar"), (".tar", ".zip")]
)
def test_an_archive_is_read_by_its_content(
    given: Input, cache_dir: Path, form: str, name: str
) -> None:
    folder = given.write(form)
    for split in ("train", "test"):
        (folder / f"images_{split}{form}").rename(folder / f"images_{split}{name}")
    assert len(load_competition(folder, cache_dir, Reading()).train_images) == 4


@pytest.mark.parametrize(("open_packed", "kind"), [(lzma.open, "xz"), (bz2.open, "bzip2")])
def test_other_kinds_of_archives_are_to_be_unpacked(
    given: Input, cache_dir: Path, open_packed: Callable[..., Any], kind: str
) -> None:
    path = given.write(".tar") / "images_train.tar"
    data = path.read_bytes()
    with open_packed(path, "wb") as file:
        file.write(data)
    line = f"  images_train.tar: can't be read: it is packed by {kind}"
    assert refusal(path.parent, cache_dir) == [line, "Unpack it."]


def test_zips_of_windows_and_macos(given: Input, cache_dir: Path) -> None:
    """PowerShell separates by backslashes, macOS doesn't say that names are UTF-8; litter."""
    for number in (1, 2, 17, 30):
        given.y_train = given.y_train.replace(f"\n{number},".encode(), f"\né{number},".encode())
    images, given.images["train"] = given.images["train"], {}
    folder = given.write(".zip")
    path = folder / "images_train.zip"
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("Thumbs.db", "desktop.ini"):
            archive.writestr(f"images_train\\{name}", b"")
        for name, data in images.items():
            archive.writestr(f"images_train\\QQ{name.lstrip('0')}", data)
    # As long in bytes; zipfile would set the flag.
    path.write_bytes(path.read_bytes().replace(b"\\QQ", "\\é".encode()))
    ids = load_competition(folder, cache_dir, Reading()).train_ids
    assert ids.tolist() == ["é1", "é17", "é2", "é30"]


def test_links_and_devices_in_a_tar_are_refused(given: Input, cache_dir: Path) -> None:
    kinds = {b"1": "17_a.png", b"2": "17_b.png", b"3": "zero", b"4": "disk", b"6": "pipe"}
    data = b"".join(tar_header(name.encode(), kind=kind) for kind, name in kinds.items())
    folder = write_tar(given, sound_entries(given) + data + END_OF_TAR)
    line = f"  images_train.tar: 5 files {LINK}: 17_a.png, 17_b.png, disk, pipe, zero"
    assert refusal(folder, cache_dir) == [line]


def test_links_in_a_zip_are_refused(given: Input, cache_dir: Path) -> None:
    link = zipfile.ZipInfo("00017_green.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    folder = write_zip(given, lambda archive: archive.writestr(link, "/etc/passwd"))
    assert refusal(folder, cache_dir) == [f"  images_train.zip: 1 file {LINK}: 00017_green.png"]


@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_pipes_and_devices_in_place_of_an_archive(given: Input, cache_dir: Path, form: str) -> None:
    path = given.write(form) / f"images_train{form}"
    for replace in (os.mkfifo, partial(os.symlink, "/dev/zero")):
        path.unlink()
        replace(path)
        line = f"  images_train{form}: can't be read: Not a regular file"
        assert refusal(given.folder, cache_dir) == [line, AGAIN]


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_of_many_megabytes(given: Input, cache_dir: Path, kind: bytes) -> None:
    data = tar_entry(b"a", bytes(8 << 20), kind)
    folder = write_tar(given, sound_entries(given) + data, ".tar.gz")
    line = "  images_train.tar.gz: can't be read: a header in it is longer than any name"
    assert refusal(folder, cache_dir) == [line, AGAIN]


@pytest.mark.parametrize("claim", [b"\x80" + b"\xff" * 11, b"77777777777\0", b"\xff" * 12])
@pytest.mark.parametrize("form", [".tar", ".tar.gz"])
def test_absurd_sizes(given: Input, cache_dir: Path, form: str, claim: bytes) -> None:
    data = tar_header(b"00017_red.png", size_field=claim)
    lines = refusal(write_tar(given, sound_entries(given) + data, form), cache_dir)
    told = r"can't be read: (it would unpack to more than 6\d MiB|damaged or truncated)"
    assert any(re.search(told, line) for line in lines)


def test_bombs_in_a_tar_are_not_unpacked(given: Input, cache_dir: Path) -> None:
    folder = given.write(".tar.gz")
    part = gzip.compress(tar_entry(b"00017_red.png", bytes(1 << 20)))
    (folder / "images_train.tar.gz").write_bytes(part * 110)
    assert "can't be read: it would unpack to more than" in "".join(refusal(folder, cache_dir))


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The training images as a zip, one of them 200 MiB of zeros."""
    given = make_input(tmp_path_factory.mktemp("bomb") / "input")
    del given.images["train"]["00017_blue.png"]
    info = zipfile.ZipInfo("00017_blue.png")
    info.compress_type = zipfile.ZIP_DEFLATED

    def add(archive: zipfile.ZipFile) -> None:
        with archive.open(info, "w") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))

    return (write_zip(given, add) / "images_train.zip").read_bytes()


def test_bombs_in_a_zip_are_not_unpacked(given: Input, cache_dir: Path, bomb: bytes) -> None:
    (given.write(".zip") / "images_train.zip").write_bytes(bomb)
    (line, _) = refusal(given.folder, cache_dir)
    assert line.startswith("  images_train.zip: can't be read: it would unpack to more than ")


def test_bombs_that_lie_about_their_size(given: Input, cache_dir: Path, bomb: bytes) -> None:
    data = bytearray(bomb)
    at = data.rindex(b"PK\1\2") + 24  # the bomb's size in the table of contents
    assert data[at : at + 4] == struct.pack("<I", 200 << 20)
    data[at : at + 4] = struct.pack("<I", 500)
    (given.write(".zip") / "images_train.zip").write_bytes(data)
    assert refusal(given.folder, cache_dir) == [
        "  images_train.zip: 1 file that can't be read (damaged or truncated): 00017_blue.png",
        AGAIN,
    ]


def test_methods_that_inflate_without_bounds_are_refused(given: Input, cache_dir: Path) -> None:
    data = given.images["train"].pop("00017_blue.png")
    folder = write_zip(given, lambda at: at.writestr("00017_blue.png", data, zipfile.ZIP_BZIP2))
    why = "encrypted, or not packed by deflate, the usual method"
    line = f"  images_train.zip: 1 file that can't be read ({why}): 00017_blue.png"
    assert refusal(folder, cache_dir) == [line, AGAIN]


def test_entries_of_a_zip_that_share_their_bytes(given: Input, cache_dir: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr("00031_red.png", bytes(10_000))
        (original,) = [info for info in archive.infolist() if info.filename == "00031_red.png"]
        archive.filelist += [original] * 1000

    assert refusal(write_zip(given, add), cache_dir) == [
        "  images_train.zip: can't be read: files in it overlap",
        AGAIN,
    ]


@pytest.mark.parametrize("form", ["", ".tar", ".zip"])
def test_too_many_files(
    given: Input, cache_dir: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 7)
    line = f"  images_train{form}: can't be read: it holds more than 7 files"
    assert line in refusal(given.write(form), cache_dir)


def test_table_of_contents_of_a_zip_is_bounded(given: Input, cache_dir: Path) -> None:
    path = given.write(".zip") / "images_train.zip"
    size = 200 << 20
    path.write_bytes(b"")
    os.truncate(path, size)
    path.open("ab").write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0))
    line = (
        "  images_train.zip: can't be read: its table of contents has more than 100,000,000 bytes"
    )
    assert refusal(given.folder, cache_dir) == [line, AGAIN]


def test_what_makes_tarfile_loop_or_recurse(given: Input, cache_dir: Path) -> None:
    """Negative sizes (CVE-2025-8194), sparse maps without end, thousands of nested headers."""
    data = tar_entry(b"00031_red.png", b"x")
    backwards = pax_entry({b"size": b"-1536"}) + data
    header = pax_entry({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"})
    endless = header + tar_entry(b"00031_red.png", b"9" * 512)
    nested = pax_entry({b"path": b"a"}) * 3000 + data
    sparse = tar_header(b"a", kind=b"S", size_field=b"\xff" * 12)
    for attack in (backwards, endless, nested, sparse):
        lines = refusal(write_tar(given, sound_entries(given) + attack), cache_dir)
        assert "  images_train.tar: can't be read: damaged or truncated" in lines


@pytest.fixture
def anyone() -> Iterator[Path]:
    """A folder of a user who is not root, who may read everything; the test runs as that user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)  # nobody
        try:
            yield folder
        finally:
            os.seteuid(before)


def test_what_may_not_be_read(given: Input, anyone: Path) -> None:
    given.folder = anyone / "input"
    inside = given.write() / "images_train/images_train"
    (inside / "00017_red.png").chmod(0)
    (given.folder / "y_train.csv").chmod(0)
    line = "  y_train.csv: can't be read: Permission denied"
    assert refusal(given.folder, anyone / "cache") == [line]
    (given.folder / "y_train.csv").chmod(0o600)
    assert refusal(given.folder, anyone / "cache") == [
        "  images_train: 1 file that can't be read (Permission denied): 00017_red.png",
        AGAIN,
    ]
    inside.chmod(0)
    assert refusal(given.folder, anyone / "cache") == [
        "  images_train: can't be read: Permission denied",
        AGAIN,
    ]
    inside.chmod(0o700)


@pytest.mark.parametrize("form", [".tar", ".zip", ""])
def test_what_is_replaced_while_it_is_read(
    given: Input, cache_dir: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other file has the same names and sound images: only its times and inode tell."""
    folder = given.write(form)
    path = folder / (f"images_train{form}" if form else "images_train/images_train/00017_red.png")
    decode = images.SplitReader.decode

    def replace_and_decode(*args: Any) -> Any:
        copy = path.with_name("copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
        return decode(*args)

    monkeypatch.setattr(images.SplitReader, "decode", replace_and_decode)
    with pytest.raises(UserError, match="changed while it was read\nStart again when no"):
        load_competition(folder, cache_dir)
    monkeypatch.undo()
    load_competition(folder, cache_dir)


def test_a_file_that_turns_into_a_pipe_or_a_link_is_not_waited_for(given: Input) -> None:
    inside = given.write() / "images_train/images_train"
    for member in files.members(inside):
        path = inside / member.name
        path.unlink()
        if member.name.endswith("red.png"):
            os.mkfifo(path)
        else:
            path.symlink_to(given.folder / "y_train.csv")
        with pytest.raises(files.UnreadableError), files.explained():
            member.read(10)
