import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cellline.errors import UserError
from cellline.host.files import (
    atomic,
    digest_text,
    read_json,
    write_arrays,
    write_bytes,
    write_csv,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_seen_before_the_write_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with atomic(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_disk_may_refuse_to_flush_a_folder_but_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        """As network shares and exFAT answer, and as a broken disk does."""
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:
        write_bytes(tmp_path / "a", b"x")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_what_is_no_record_ends_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}
    for content in (b"[" * 100_000, b'{"a": ' * 100_000, b"[]", b"\xff", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"record.json is damaged .*: put a copy back"):
            read_json(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="Not a regular file"):  # it would wait for a writer
        read_json(path)


def test_same_arrays_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_arrays(tmp_path / name, prob=np.arange(6.0).reshape(2, 3), text=np.array("x"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with np.load(tmp_path / "a", allow_pickle=False) as file:
        assert file["prob"].shape == (2, 3)
        assert file["text"] == "x"


def test_csv_quotes_what_needs_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("id", "label"), [(1, 'a "b", c')])
    assert (tmp_path / "a.csv").read_text() == 'id,label\n1,"a ""b"", c"\n'


def test_digest_of_texts_knows_where_they_end() -> None:
    assert digest_text("ab", "c") != digest_text("a", "bc")
