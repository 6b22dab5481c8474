"""Thousands of damaged and hostile inputs: each ends in a competition that is sound, or a message.

A valid tiny input is mutated: any bytes of archives, images and tables, and, since checksums would
give most of that away, also fields and parts behind right checksums.
"""

import signal
import struct
import tempfile
import unicodedata
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import END_OF_TAR, SIGNATURE, pax_entry, png_chunk, tar_entry, tar_header
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tiny_input import Input, listing, make_input

from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError

SECONDS = 120  # which no input may take

quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
thousands = settings(quick, max_examples=7500, derandomize=False)

Mutation = Callable[[bytes], bytes]

# Mutations of bytes. Places are drawn from 0 to 1, so that they shrink whatever the length is.

PLACES = st.floats(0, 1, exclude_max=True)
PIECES = [
    b"\0",
    b"\xff" * 8,
    struct.pack("<I", 0x7FFFFFFF),
    struct.pack(">I", 0x80000000),
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6" + bytes(18),
    b"\x1f\x8b\x08\x00",
    SIGNATURE,
    tar_header(b"00017_red.png", size_field=b"\x80" + b"\xff" * 11),
    tar_header(b"a", 1 << 30, b"L"),
    tar_header(b"a", kind=b"S"),
    tar_header(b"00017_red.png", kind=b"2"),
    tar_entry(b"a", b"../../00017_red.png", b"L"),
    pax_entry({b"path": b"\x1b[31m\n"}),
    pax_entry({b"size": b"-1536"}),
    END_OF_TAR,
]


def at(data: bytes, place: float) -> int:
    return int(place * (len(data) + 1))


def flip(place: float, bit: int) -> Mutation:
    def mutate(data: bytes) -> bytes:
        changed = bytearray(data or b"\0")
        changed[min(at(data, place), len(changed) - 1)] ^= 1 << bit
        return bytes(changed)

    return mutate


def put(place: float, piece: bytes, replace: bool) -> Mutation:
    def mutate(data: bytes) -> bytes:
        here = at(data, place)
        return data[:here] + piece + data[here + replace * len(piece) :]

    return mutate


def copy(begin: float, end: float, to: float | None) -> Mutation:
    """Copy a part to another place, or cut it out."""

    def mutate(data: bytes) -> bytes:
        first, last = sorted((at(data, begin), at(data, end)))
        if to is None:
            return data[:first] + data[last:]
        return data[: at(data, to)] + data[first:last] + data[at(data, to) :]

    return mutate


def one_of(pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    """Draw a piece; as sampled_from() does, whose repr would hold all of them."""
    return st.integers(0, len(pieces) - 1).map(pieces.__getitem__)


def any_bytes(pieces: list[bytes]) -> st.SearchStrategy[Mutation]:
    return st.one_of(
        st.builds(flip, PLACES, st.integers(0, 7)),
        st.builds(put, PLACES, one_of(pieces) | st.binary(max_size=8), st.booleans()),
        st.builds(copy, PLACES, PLACES, PLACES | st.none()),
        st.builds(copy, PLACES, st.just(1), st.none()),
    )


# Mutations behind right checksums.


def tar_headers(block: float, mutate: Mutation) -> Mutation:
    """Mutate one block as if it were a header, and repair its checksum."""

    def mutate_header(data: bytes) -> bytes:
        here = at(data[::512], block) * 512
        header = bytearray(mutate(data[here : here + 512])[:512].ljust(512, b"\0"))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return data[:here] + bytes(header) + data[here + 512 :]

    return mutate_header


def png_parts(index: int, kind: bytes, mutate: Mutation, packed: bool) -> Mutation:
    """Mutate the content, packed or not, of one chunk, maybe its kind, and repair its checksum."""

    def mutate_chunk(data: bytes) -> bytes:
        parts, here = [], len(SIGNATURE)
        while here + 12 <= len(data):
            length = int.from_bytes(data[here : here + 4], "big")
            parts.append((data[here + 4 : here + 8], data[here + 8 : here + 8 + length]))
            here += 12 + length
        if not parts:
            return data
        before, content = parts[index % len(parts)]
        if packed and before == b"IDAT":
            with suppress(zlib.error):  # mutated before
                content = zlib.compress(mutate(zlib.decompress(content)), 1)
        else:
            content = mutate(content)
        parts[index % len(parts)] = kind or before, content
        return SIGNATURE + b"".join(png_chunk(*part) for part in parts)

    return mutate_chunk


RAW = any_bytes(PIECES)
MUTATIONS = {
    ".tar": RAW | st.builds(tar_headers, PLACES, RAW),
    ".tar.gz": RAW,
    ".zip": RAW,
}
KINDS = [b"", b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"zTXt", b"acTL", b"ABCD"]
PNG_PIECES = [SIGNATURE, *(png_chunk(kind, bytes(4)) for kind in KINDS if kind), *PIECES[:3]]
PNG_MUTATIONS = any_bytes(PNG_PIECES) | st.builds(
    png_parts, st.integers(0, 5), st.sampled_from(KINDS), any_bytes(PIECES[:3]), st.booleans()
)

# fmt: off
TEXTS = [
    ",", ";", '"', "'", "\n", "\r", "\0", "\x1b[2J", "\u202e", "\ufeff", "nan", "NA", "17", "017",
    "17.0", "-1", "\u0661", "=1+1", "file_id", "file_id,cell_line\n", "\n,\n", "\n5,RT4",
    "\n17,RT4", ",,,,", '""', '"a\nb"', "  ", "\n\n",
]
# fmt: on
TABLE_PIECES = [*(text.encode() for text in TEXTS), b"\xff\xfe", b"\xff"]


# What each of them must end in.


def assert_sound(loaded: Competition, drawn: Input, known_pixels: bool) -> None:
    """Check a competition against itself, and its pictures against those that were drawn."""
    assert loaded.classes == tuple(sorted(set(loaded.classes)))
    assert all(name and name.strip() == name and "\x1b" not in name for name in loaded.classes)
    assert set(loaded.labels.tolist()) == set(range(len(loaded.classes))) > {0}
    numeric = loaded.test_ids.dtype == np.int64
    names = [int(i) if numeric else unicodedata.normalize("NFC", i) for i in loaded.template]
    assert sorted(names) == loaded.test_ids.tolist()
    assert all(line.isprintable() for line in loaded.warnings)
    known = {plane.tobytes() for planes in drawn.pixels.values() for plane in planes}
    for ids, images in (
        (loaded.train_ids, loaded.train_images),
        (loaded.test_ids, loaded.test_images),
    ):
        assert ids.dtype.kind == ("i" if numeric else "U")
        assert sorted(set(ids.tolist())) == ids.tolist()
        assert images.shape == (len(ids), 3, *images.shape[2:])
        planes = {plane.tobytes() for picture in images for plane in picture}
        assert not known_pixels or planes <= known
    assert len(loaded.labels) == len(loaded.train_ids)
    assert not set(loaded.train_ids.tolist()) & set(loaded.test_ids.tolist())


def check(form: str, numeric: bool, mutations: list[tuple[str, Mutation]]) -> None:
    """Write an input, mutate these of its files, load it, and check what comes of it."""
    with tempfile.TemporaryDirectory() as name:
        folder, cache_dir = Path(name) / "input", Path(name) / "cache"
        drawn = make_input(folder, **({} if numeric else NAMED))
        drawn.write(form)
        for file, mutation in mutations:
            path = folder / file
            path.write_bytes(mutation(path.read_bytes()))
        before = listing(folder)
        signal.alarm(SECONDS)  # of `bounded`
        try:
            known_pixels = not any(file.endswith(".png") for file, _ in mutations)
            assert_sound(load_competition(folder, cache_dir), drawn, known_pixels)
            event("a competition")
        except UserError as error:
            event("a message")
            assert all(line.isprintable() for line in str(error).split("\n")), repr(str(error))
            assert len(str(error)) < 5000
            assert {path.name for path in cache_dir.glob("*")} <= {".lock"}
        assert listing(folder) == before
        assert {path.name for path in folder.parent.iterdir()} <= {"input", "cache"}


# A competition of text ids.
NAMED: dict[str, Any] = {
    "labels": {"p_1": "RT4", "p_2": "HeLa", "017": "RT4", "é.x": "A549"},
    "test_ids": ("p_3", "17"),
}


def some(files: list[str], mutations: st.SearchStrategy[Mutation]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(st.sampled_from(files), mutations), min_size=1, max_size=4)


IMAGES = ["images_train/images_train/00017_red.png", "images_test/images_test/00005_blue.png"]
CASES = st.one_of(
    *(
        st.tuples(
            st.just(form),
            st.just(True),
            some([f"images_train{form}", f"images_test{form}"], mutations),
        )
        for form, mutations in MUTATIONS.items()
    ),
    st.tuples(st.just(""), st.just(True), some(IMAGES, PNG_MUTATIONS)),
    st.tuples(
        st.just(""),
        st.booleans(),
        some(["y_train.csv", "sample_submission.csv"], any_bytes(TABLE_PIECES)),
    ),
)


@pytest.mark.usefixtures("bounded")
@quick
@given(CASES)
def test_mutated_inputs(case: tuple[str, bool, list[tuple[str, Mutation]]]) -> None:
    check(*case)


@pytest.mark.torture
@pytest.mark.usefixtures("bounded")
@thousands
@given(CASES)
def test_thousands_of_inputs(case: tuple[str, bool, list[tuple[str, Mutation]]]) -> None:
    check(*case)
