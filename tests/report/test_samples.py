import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from made import guess, make_folds, make_run, sure_of
from PIL import Image

from cellline.report.content import Grid
from cellline.report.samples import CONFIDENT_ERRORS, samples_section
from cellline.report.tiles import SIDE, colour, describe_colours, encode
from cellline.runs.folds import NO_PAIRS
from cellline.runs.run import Run

LABEL_ERRORS = "Likely label errors"


def grids_of(run: Run) -> dict[str, Grid]:
    return {block.title: block for block in samples_section(run).blocks if isinstance(block, Grid)}


def decode(source: str) -> np.ndarray:
    head, data = source.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_planted_label_errors_are_shown_and_none_where_none_are() -> None:
    folds = make_folds(["a", "b", "c", "d"], samples=400)
    labels = folds.competition.labels
    # The network takes a class only for the one before, in some pairs of copies.
    truth, prob = labels.copy(), sure_of(labels, 4, 0.9997)
    prob[np.arange(400), (labels + 1) % 4] = 0.03
    prob /= prob.sum(axis=1, keepdims=True)
    mistaken = np.arange(12, 400, 66)
    labels[[mistaken, mistaken + 1]] = (truth[[mistaken, mistaken + 1]] + 1) % 4
    clean = samples_section(make_run(folds, prob))
    assert not clean.cautions
    assert "No sign of label errors among 400 labels" in str(clean.blocks[1])

    planted = np.arange(0, 400, 20)
    labels[planted] = (truth[planted] + 2) % 4
    # Every tenth pair of copies now has two labels; which is wrong, or if it is a pair, is open.
    mixed = samples_section(make_run(folds, prob))
    assert not mixed.cautions
    assert "40 samples in groups whose labels differ are left out" in str(mixed.blocks[1])

    run = make_run(replace(folds, pairs=NO_PAIRS), prob)
    assert "of 400 labels may be wrong" in samples_section(run).cautions[0]
    tiles = grids_of(run)[LABEL_ERRORS].tiles
    shown = {int(tile.caption[0]) - 1 for tile in tiles}
    assert len(shown & set(planted.tolist())) >= 15
    row = int(tiles[0].caption[0]) - 1
    assert tiles[0].caption[1] == f"labelled {'abcd'[labels[row]]}"
    assert tiles[0].caption[2] == f"looks like {'abcd'[truth[row]]},"


def test_errors_are_shown_surest_first_and_each_group_once() -> None:
    folds = make_folds(samples=120)
    run = make_run(folds, guess(folds.competition.labels, 3, 0.3), finished=[0, 2])
    tiles = grids_of(run)["Most confident errors"].tiles
    assert len(tiles) == CONFIDENT_ERRORS
    at = np.searchsorted(run.oof.ids, [int(tile.caption[0]) for tile in tiles])
    sure = run.oof.prob[at].max(axis=1)
    assert np.all(np.diff(sure) <= 0)
    assert np.all(run.oof.predicted[at] != run.oof.labels[at])
    assert len(np.unique(run.oof.group[at])) == len(at)
    label, taken_for = (run.class_names[of[at[0]]] for of in (run.oof.labels, run.oof.predicted))
    expected = (label, f"taken for {taken_for},", f"{100 * sure[0]:.0f}\u00a0%")
    assert tiles[0].caption[1:] == expected
    picture = run.competition.train_images[run.oof.rows[at[0]]]
    np.testing.assert_array_equal(decode(tiles[0].source), picture[[1, 2, 0]].transpose(1, 2, 0))


def test_the_hardest_pair_is_named_with_its_cost() -> None:
    folds = make_folds(["a", "b", "c"])
    labels = folds.competition.labels
    predicted = labels.copy()
    # 8 of 20 of class b, in four groups, and 2 of 20 of class c.
    predicted[np.flatnonzero(labels == 1)[:8]] = 2
    predicted[np.flatnonzero(labels == 2)[:2]] = 0
    pairs = list(grids_of(make_run(folds, sure_of(predicted, 3, 0.8))).items())[1:]
    assert pairs[0][0] == "b taken for c: 8 samples, 40.0 % of the class"
    assert len(pairs[0][1].tiles) == 4
    assert pairs[1][0] == "c taken for a: 2 samples, 10.0 % of the class"


def test_a_run_without_errors_shows_no_pictures() -> None:
    folds = make_folds()
    blocks = samples_section(make_run(folds, sure_of(folds.competition.labels, 3, 0.9))).blocks
    assert not [block for block in blocks if isinstance(block, Grid)]


def test_a_photograph_has_its_own_colours_and_other_channels_are_named() -> None:
    image = np.arange(3, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(5, axis=2)
    for channels, shown, words in (
        (("red", "green", "blue"), [0, 1, 2], "Pictures show their own colours."),
        (("nuclei", "tubes", "er"), [1, 2, 0], "channel tubes in red, er in green and nuclei in"),
    ):
        assert decode(encode(colour(image, channels)))[0, 0].tolist() == shown
        assert words in describe_colours(channels)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_grey_and_large_images_shrunk(channels: int) -> None:
    image = np.full((channels, 300, 600), 10, dtype=np.uint8)
    image[0] += 4
    shown = decode(encode(colour(image, ["blue"] * channels)))
    expected = np.full((SIDE // 2, SIDE), round(10 + 4 / channels))
    np.testing.assert_array_equal(shown, expected)
