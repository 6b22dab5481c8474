from dataclasses import replace

import numpy as np
from made import make_run

from cellline.report.content import Grid, Text
from cellline.report.run import Run
from cellline.report.samples import CONFIDENT_ERRORS, samples_section
from cellline.runs.run_folder import OutOfFold

LABEL_ERRORS = "Likely label errors"


def grids_of(run: Run) -> dict[str, Grid]:
    return {block.title: block for block in samples_section(run).blocks if isinstance(block, Grid)}


def predicted(run: Run, labels: np.ndarray, prob: np.ndarray) -> Run:
    """The run with other labels and predictions."""
    return replace(run, oof=OutOfFold(run.oof.ids, labels, prob.astype(np.float32), prob))


def sure_of(classes: np.ndarray, n_classes: int, sure: float) -> np.ndarray:
    prob = np.full((len(classes), n_classes), (1 - sure) / (n_classes - 1))
    prob[np.arange(len(classes)), classes] = sure
    return prob


def test_planted_label_errors_are_found_and_none_where_none_are() -> None:
    run = make_run(["a", "b", "c", "d"], samples=400)
    truth = run.oof.labels
    prob = sure_of(truth, 4, 0.97)
    clean = samples_section(predicted(run, truth, prob))
    assert not clean.warnings
    assert LABEL_ERRORS not in grids_of(predicted(run, truth, prob))

    labels = truth.copy()
    # Of every tenth pair of copies one.
    planted = np.arange(0, 400, 20)
    labels[planted] = (labels[planted] + 1 + planted // 20 % 3) % 4
    run = predicted(run, labels, prob)
    section = samples_section(run)
    [warning] = section.warnings
    assert "of 400 labels look wrong" in warning
    shown = {int(tile.caption[0]) for tile in grids_of(run)[LABEL_ERRORS].tiles}
    assert shown <= set(run.oof.ids[planted].tolist())
    assert len(shown) >= 15
    first = grids_of(run)[LABEL_ERRORS].tiles[0]
    at = int(np.flatnonzero(run.oof.ids == int(first.caption[0]))[0])
    assert first.caption[1] == f"labelled {run.classes[labels[at]]}"
    assert first.caption[2] == f"looks like {run.classes[truth[at]]},"


def test_errors_are_shown_surest_first_and_each_group_once() -> None:
    run = make_run(samples=120, right=0.3)
    tiles = grids_of(run)["Most confident errors"].tiles
    assert len(tiles) == CONFIDENT_ERRORS
    ids = np.array([int(tile.caption[0]) for tile in tiles])
    at = np.searchsorted(run.oof.ids, ids)
    sure = run.oof.prob[at].max(axis=1)
    assert np.all(np.diff(sure) <= 0)
    assert np.all(run.predicted[at] != run.oof.labels[at])
    assert len(np.unique(run.groups[at])) == len(at)


def test_the_hardest_pair_is_named_with_what_it_costs() -> None:
    run = make_run(["a", "b", "c"], samples=60)
    labels = run.oof.labels
    guess = labels.copy()
    # 8 of 20 of class b, in four groups, and 2 of 20 of class c.
    guess[np.flatnonzero(labels == 1)[:8]] = 2
    guess[np.flatnonzero(labels == 2)[:2]] = 0
    pairs = list(grids_of(predicted(run, labels, sure_of(guess, 3, 0.8))).items())[1:]
    assert pairs[0][0] == "b taken for c: 8 samples, 40.0 % of the class"
    assert len(pairs[0][1].tiles) == 4
    assert pairs[1][0] == "c taken for a: 2 samples, 10.0 % of the class"
    assert all(tile.caption[1] == "80\u00a0%" for tile in pairs[0][1].tiles)


def test_a_run_without_errors_says_so() -> None:
    run = make_run()
    blocks = samples_section(predicted(run, run.oof.labels, sure_of(run.oof.labels, 3, 0.9))).blocks
    texts = [block.text for block in blocks if isinstance(block, Text)]
    assert "No held-out sample is predicted wrongly." in texts
    assert not [block for block in blocks if isinstance(block, Grid)]
