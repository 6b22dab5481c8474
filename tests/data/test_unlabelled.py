"""Images without labels: their ids, and what is said of those that don't suit the training's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cellline.data.competition import Competition, load_competition
from cellline.data.unlabelled import list_samples, open_unlabelled
from cellline.errors import UserError

CHANNELS = ("blue", "red", "yellow")


@pytest.fixture(scope="module")
def known(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Competition:
    """The competition whose training images set the form: three channels of 16 x 16 pixels."""
    return load_competition(drawn, tmp_path_factory.mktemp("cache"))


def write(folder: Path, sample: str, shape: tuple[int, int] = (16, 16), gray: int = 7) -> None:
    """Write the three files of a sample."""
    (folder / sample).parent.mkdir(parents=True, exist_ok=True)
    for channel in CHANNELS:
        Image.fromarray(np.full(shape, gray, np.uint8)).save(folder / f"{sample}_{channel}.png")


def test_they_are_the_pixels_of_the_files(known: Competition, drawn: Path) -> None:
    images = open_unlabelled(drawn / "images_test.tar", known, Path(".cache"))
    assert np.array_equal(images.pixels[:], known.test_images[:])
    assert images.ids.tolist() == [f"{one:05d}" for one in known.test_ids.tolist()]


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (("b", "a", "00a"), ["00a", "a", "b"]),
        (("day1/a", "day2/b"), ["a", "b"]),
        (("day1/a", "day2/a"), ["day1/a", "day2/a"]),
    ],
)
def test_ids_are_names_or_paths_where_names_are_repeated(
    known: Competition, written: tuple[str, ...], ids: list[str]
) -> None:
    for at, sample in enumerate(written):
        write(Path("new"), sample, gray=at + 1)
    assert list_samples(Path("new"), CHANNELS) == ids
    images = open_unlabelled(Path("new"), known, Path(".cache"))
    order = sorted(range(len(written)), key=lambda at: written[at])
    assert images.ids.tolist() == ids
    assert images.pixels[:][:, 0, 0, 0].tolist() == [at + 1 for at in order]


def test_other_sizes_are_resized_with_a_warning(
    known: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("new"), "a", (40, 24))
    assert open_unlabelled(Path("new"), known, Path(".cache")).pixels.shape == (1, 3, 16, 16)
    assert "other sizes than the training images' 16 x 16 pixels" in capsys.readouterr().out


def test_what_does_not_suit_is_named(known: Competition) -> None:
    def refused(place: str) -> str:
        with pytest.raises(UserError) as error:
            open_unlabelled(Path(place), known, Path(".cache"))
        assert not list(Path(".cache").glob("*.npy"))
        return str(error.value)

    assert "there is no folder or archive" in refused("nowhere")
    Path("new").mkdir()
    assert "expected files named <id>_<channel>.png" in refused("new")
    write(Path("new"), "a")
    Path("new/a_red.png").unlink()
    assert "1 sample without channel red: a" in refused("new")
    write(Path("new"), "a")
    deep = np.full((16, 16), 300, np.uint16)
    Image.fromarray(deep).save("new/a_red.png")
    assert "with 16 bits where training images have 8" in refused("new")
    Path("new/a_red.png").write_bytes(b"no image")
    assert "damaged, truncated or not PNG" in refused("new")
    shutil.copy("new/a_blue.png", "new/a_green.png")
    assert "1 file not named <id>_<channel>.png" in refused("new")
