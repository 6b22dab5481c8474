import base64
import io

import numpy as np
import pytest
from made import make_run
from PIL import Image

from cellline.report.tiles import SIDE, describe_colours, encode, false_colour, show_errors

HEAD = "data:image/png;base64,"


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (["blue", "red", "yellow"], "channel red in red, yellow in green and blue in blue"),
        (["gray"], "in grey"),
    ],
)
def test_colours_are_told(channels: list[str], said: str) -> None:
    assert said in describe_colours(channels)


def decode(source: str) -> np.ndarray:
    assert source.startswith(HEAD)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix(HEAD)))))


def test_three_channels_are_microtubules_reticulum_and_nuclei() -> None:
    blue, red, yellow = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
    shown = decode(encode(false_colour(np.stack([blue, red, yellow]))))
    assert np.array_equal(shown, np.stack([red, yellow, blue], axis=-1))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_grey(channels: int) -> None:
    image = np.full((channels, 5, 9), 10, dtype=np.uint8)
    image[0] += 4
    assert np.array_equal(
        decode(encode(false_colour(image))), np.full((5, 9), round(10 + 4 / channels))
    )


def test_large_images_are_shrunk_and_keep_their_shape() -> None:
    shown = decode(encode(np.zeros((300, 600), dtype=np.uint8)))
    assert shown.shape == (SIDE // 2, SIDE)


def test_a_caption_says_what_a_sample_is_and_was_taken_for() -> None:
    run = make_run(finished=[1])
    [tile] = show_errors(run, [4])
    label, taken_for = run.classes[run.oof.labels[4]], run.classes[run.oof.prob[4].argmax()]
    sure = f"{100 * run.oof.prob[4].max():.0f}\u00a0%"
    assert tile.caption == (str(run.oof.ids[4]), label, f"taken for {taken_for},", sure)
    picture = run.competition.train_images[run.competition.train_ids == run.oof.ids[4]][0]
    assert np.array_equal(decode(tile.source), false_colour(picture))
