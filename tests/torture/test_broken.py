"""Trainings on a disk that fails them, with files that were damaged, with a loss that explodes."""

import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import small_file_system
from harness import Kill, snapshot
from launcher import RENAMING, SYNCING
from scenes import Scene, Scenes

from cellline.training.checkpoint import DAMAGED, NEWEST, PREVIOUS, read_checkpoint

FOLD = Path("oof/densenet_tiny-scratch/fold0")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 4 MB."""
    with small_file_system(tmp_path / "disk", "4m") as folder:
        yield folder


def fill(disk: Path, room: int) -> Path:
    """Leave so many bytes free on a disk; the file that takes the others."""
    others = disk / "others"
    with others.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    with others.open("r+b") as file:
        file.truncate(others.stat().st_size - room)
    return others


def go_on(scene: Scene, folder: Path) -> str:
    """The same command ends well; what it printed."""
    ended = scene.run(folder)
    assert ended.status == 0, ended.printed
    return ended.printed


def test_a_disk_that_fills_up_while_it_trains(scenes: Scenes, small_disk: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(small_disk / "folder")
    checkpoint = (scene.after / FOLD / PREVIOUS).stat().st_size
    # Room for the newest and the one before, not for a third while it is written.
    others = fill(small_disk, 5 * checkpoint // 2)
    for _ in range(2):  # nor is there any, when it is started again
        full = scene.run(folder)
        assert full.status == 2, full.printed
        assert f"{FOLD / NEWEST}: No space left on device; make room" in full.printed
        assert "Traceback" not in full.printed
        for name in (NEWEST, PREVIOUS):
            read_checkpoint(folder / FOLD / name)
        assert not list(folder.rglob("*.tmp"))
    others.unlink()
    assert "epoch 1/" not in go_on(scene, folder)
    assert snapshot(folder) == scene.expected


def test_a_disk_that_fills_up_while_it_tunes(scenes: Scenes, small_disk: Path) -> None:
    scene = scenes.tune
    folder = scene.set_up(small_disk / "folder")
    others = fill(small_disk, 12 << 10)
    full = scene.run(folder)
    assert full.status == 2, full.printed
    told = r"oof/tuning/(journal.log|best.json): No space left on device; make room"
    assert re.search(told, full.printed), full.printed
    assert "Traceback" not in full.printed
    others.unlink()
    go_on(scene, folder)
    assert snapshot(folder) == scene.expected


def test_a_folder_that_cannot_be_written(scenes: Scenes, small_disk: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(small_disk / "folder")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = scene.run(folder)
    assert refused.status == 2
    assert ": Read-only file system; correct that, or name another folder" in refused.printed
    assert "oof" in refused.printed
    assert "Traceback" not in refused.printed
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    go_on(scene, folder)
    assert snapshot(folder) == scene.expected


def test_a_kill_between_the_two_renames_of_a_checkpoint_costs_one_epoch(
    scenes: Scenes, tmp_path: Path
) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    # Renamed are config.json, the first checkpoint, and each epoch history.csv, the checkpoint to
    # the one before, and the new one.
    assert scene.run(folder, kill=Kill(RENAMING, 8)).killed
    assert not (folder / FOLD / NEWEST).exists()
    printed = go_on(scene, folder)
    assert "epoch 1/" not in printed
    assert "epoch 2/" in printed
    assert snapshot(folder) == scene.expected


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit_of_a_weight(path: Path) -> None:
    """Where no reader but ours looks: torch's takes no notice of the checksums in the file."""
    with zipfile.ZipFile(path) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        content = archive.read(max(tensors, key=lambda entry: entry.file_size))
    data = bytearray(path.read_bytes())
    at = data.index(content) + len(content) // 2
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit_of_a_weight])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(
    scenes: Scenes, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    # In the save of the fourth epoch, when history.csv is written and the checkpoint is not.
    assert scene.run(folder, kill=Kill(SYNCING, 9)).killed
    damage(folder / FOLD / NEWEST)
    printed = go_on(scene, folder)
    assert f"warning: {FOLD / NEWEST} is damaged" in printed
    assert "resuming from the checkpoint before it" in printed
    assert "epoch 1/" not in printed
    left = snapshot(folder)
    # Kept, for who wants to know what befell it.
    del left[str(FOLD / DAMAGED)]
    assert left == scene.expected


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    scenes: Scenes, tmp_path: Path
) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    for _ in range(2):
        diverged = scene.run(folder, "--lr", "1e30", "--run", "wild")
        assert diverged.status == 2
        assert "the loss or a weight is NaN or infinite" in diverged.printed
        assert "a lower --lr than 1e+30" in diverged.printed
        assert "Traceback" not in diverged.printed
        kept = read_checkpoint(folder / "oof/wild/fold0" / NEWEST)
        assert all(value.isfinite().all() for value in kept.network.values())
        assert not (folder / "oof/wild/fold0/oof.npz").exists()
