"""Tar archives: what other programs write is read, what none would write does no harm."""

import gzip
import io
import tarfile

import pytest
from hostile import END_OF_TAR, pax_entry, tar_entry, tar_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellline.data.tars import Entry, TarError, entries, read_exactly

pytestmark = pytest.mark.usefixtures("bounded")

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
LONG_NAMES = st.builds(lambda name, times: "/".join([name] * times), NAMES, st.integers(1, 60))
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def read(data: bytes, limit: int = 1 << 30) -> list[Entry]:
    return list(entries(io.BytesIO(data), limit))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(LONG_NAMES, st.binary(max_size=1500)), max_size=5), st.sampled_from(FORMATS)
)
def test_what_tarfile_writes_is_read(files: list[tuple[str, bytes]], form: int) -> None:
    packed = io.BytesIO()
    written = []
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name.rstrip("/") or "a")
            info.size, info.mtime = len(data), 0.5  # which pax alone can tell
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # too long for the format
                continue
            written.append((info.name, data))
    found = read(packed.getvalue())
    assert [(one.name, read_exactly(packed, one.at, one.size)) for one in found] == written
    assert all(one.regular for one in found)


def test_links_and_devices_are_not_regular_and_have_no_data() -> None:
    kinds = {b"1": "hard link", b"2": "link", b"3": "device", b"4": "disk", b"6": "pipe"}
    data = b"".join(tar_header(name.encode(), 512, kind) for kind, name in kinds.items())
    folder = tar_header(b"folder", kind=b"5") + tar_header(b"old folder/", kind=b"\0")
    found = read(folder + data + tar_entry(b"file", b"x") + END_OF_TAR)
    assert [(one.name, one.regular) for one in found] == [
        *((name, False) for name in kinds.values()),
        ("file", True),
    ]


def test_unknown_kinds_are_skipped_with_their_data() -> None:
    found = read(tar_entry(b"dump", b"x" * 700, b"D") + tar_entry(b"file", b"x") + END_OF_TAR)
    assert [(one.name, one.regular) for one in found] == [("dump", False), ("file", True)]


def test_large_sizes_are_read() -> None:
    nine_gigabytes = b"\x80" + (9 << 30).to_bytes(11, "big")
    data = tar_header(b"a", size_field=nine_gigabytes)
    with pytest.raises(TarError, match="would unpack to more than 1024 MiB"):
        read(data)
    with pytest.raises(TarError, match="would unpack to more than 1024 MiB"):
        read(pax_entry(b"size", b"%d" % (9 << 30)) + tar_header(b"a"))


AFTER = tar_header(b"a") + END_OF_TAR


@pytest.mark.parametrize(
    "data",
    [
        tar_header(b"a", size_field=b"\xff" * 11 + b"\0") + END_OF_TAR,  # -256
        tar_header(b"a", size_field=b"-0000001000\0") + END_OF_TAR,
        pax_entry(b"size", b"-1536") + AFTER,
        pax_entry(b"size", b"1" * 30) + AFTER,
        pax_entry(b"size", "²".encode()) + AFTER,
        tar_entry(b"pax", b"1" * 65000, b"x") + AFTER,
        tar_entry(b"pax", b"1" * 5000 + b" a=b\n", b"x") + AFTER,
        tar_entry(b"pax", b"0 a=b\n", b"x") + AFTER,
        tar_entry(b"pax", b"99 a=b\n", b"x") + AFTER,
        tar_entry(b"pax", b"5 ab\n", b"x") + AFTER,
        tar_header(b"a")[:-1] + b"x" + END_OF_TAR,  # its checksum is wrong
        tar_entry(b"a" * 100, b"a" * 300, b"L")[:700],
        tar_entry(b"a", b"x")[:600],
        tar_entry(b"a", b"x"),  # without an end
        b"",
    ],
)
def test_damage_is_noticed(data: bytes) -> None:
    with pytest.raises(TarError, match="damaged or truncated"):
        read(data)


def test_what_extends_a_header_is_read_only_within_bounds() -> None:
    for kind in (b"L", b"x"):
        with pytest.raises(TarError, match="a header in it is longer than any name"):
            read(tar_header(b"a", 1 << 29, kind) + AFTER)
    found = read(tar_entry(b"a", b"name", b"L") * 3000 + AFTER)
    assert [one.name for one in found] == ["name"]


def test_sparse_files_are_refused() -> None:
    with pytest.raises(TarError, match="pack it without --sparse"):
        read(tar_header(b"a", kind=b"S"))


def test_nothing_is_read_backwards() -> None:
    """Going back in a .tar.gz means to start anew."""

    class Forward(gzip.GzipFile):
        def seek(self, offset: int, whence: int = 0) -> int:
            assert whence == 1 or offset >= self.tell()  # which is seek(0, 1)
            return super().seek(offset, whence)

    data = b"".join(tar_entry(b"%d" % i, bytes(i)) for i in range(0, 3000, 100)) + END_OF_TAR
    with Forward(fileobj=io.BytesIO(gzip.compress(data))) as file:
        for entry in entries(file, 1 << 30):
            assert read_exactly(file, entry.at, min(entry.size, 100)) == bytes(min(entry.size, 100))
