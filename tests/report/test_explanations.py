import numpy as np
from made import make_folds, make_run, sure_of

from cellline.report.content import Figure, Grid, Table
from cellline.report.explanations import explanations_section, share_channels, smooth
from cellline.report.page import compose
from cellline.report.samples import list_shown, samples_section
from cellline.runs.explained import read_attributed, write_attributed, write_permuted
from cellline.runs.predictions import write_out_of_fold
from cellline.runs.run import Run
from cellline.submitting.decision import expect, hold_out


def explained_run() -> Run:
    """A run whose fold 1 goes by channel 0, and looks at a corner of channels 0 and 2."""
    folds = make_folds()
    labels = folds.competition.labels
    # Always right, but for one picture of each fold.
    predicted = labels.copy()
    predicted[::20] = predicted[1::20] = (labels[::20] + 1) % 3
    run = make_run(folds, sure_of(predicted, 3, 0.8))
    rows = folds.held_out_rows(1)
    whole, guessed = run.oof.prob[rows], sure_of(np.zeros(len(rows), int), 3, 0.8)
    write_permuted(run, 1, np.stack([guessed, whole, whole]).astype(np.float32))
    attribution = np.zeros((3, 12, 12), np.float32)
    attribution[0, :4, :4], attribution[2, :4, :4] = 3, -1
    rows = list_shown(run)
    for fold in np.unique(folds.fold[rows]).tolist():
        shown = rows[folds.fold[rows] == fold].tolist()
        write_attributed(run, fold, dict.fromkeys(shown, attribution))
    return run


def make_stale(run: Run) -> None:
    """As if all folds had been trained again."""
    for fold in run.finished:
        provenance = {**run.provenance(fold), "model_digest": "9" * 64}
        provenance["history"] = run.histories[fold]
        write_out_of_fold(run.oof_path(fold), run.out_of_fold([fold]), provenance)


def test_the_importance_of_each_channel_is_shown_until_the_model_is_another() -> None:
    run = explained_run()
    figure, table = explanations_section(run).blocks
    assert isinstance(figure, Figure) and isinstance(table, Table)
    assert "each held-out sample of fold 1 gets it" in figure.note
    for number in (1, 2):
        assert f"channel {number} +0.0 [0.0, 0.0] points" in figure.alternative
    assert table.head == ["", "channel 0", "channel 1", "channel 2"]
    # Guessing the first class loses what the others' recalls were.
    metric, _, *others = table.rows
    fold = run.oof.at(run.oof.fold == 1)
    recalls = [one.value for one in fold.score_recalls()]
    fall = 100 * (np.mean(recalls) - 1 / 3)
    assert metric[1].startswith(f"{fall:+.1f} [")
    for name, recall, row in zip(run.class_names[1:], recalls[1:], others, strict=True):
        assert row[0] == name
        assert row[1].startswith(f"{100 * recall:+.1f} [")
        assert row[2].startswith("+0.0 [")
    page = compose(run, expect(hold_out([run.oof])), None)
    assert "Importance of each channel" in page
    assert "Where the network looked at sample " in page
    assert "make explain" not in page

    make_stale(run)
    [text] = explanations_section(run).blocks
    assert str(text).endswith(": make explain RUN=made")


def test_attributions_are_beside_their_samples_until_the_model_is_another() -> None:
    def tiles(run: Run) -> list[tuple[str, str]]:
        blocks = samples_section(run).blocks
        grids = [block for block in blocks if isinstance(block, Grid)]
        return [(tile.beside, tile.caption[-1]) for grid in grids for tile in grid.tiles]

    run = explained_run()
    shown = tiles(run)
    assert shown
    for beside, shares in shown:
        assert beside.startswith("data:image/png")
        assert shares == "channel 0 75\u00a0%, channel 1 0\u00a0%, channel 2 25\u00a0%"
    make_stale(run)
    assert read_attributed(run, run.finished) == {}
    assert {beside for beside, _ in tiles(run)} == {""}


def test_a_single_channel_is_compared_with_none() -> None:
    run = make_run(make_folds(shape=(1, 12, 12)))
    assert "make explain" in str(explanations_section(run).blocks)
    write_attributed(run, 0, {0: np.ones((1, 12, 12), np.float32)})
    assert not explanations_section(run).blocks


def test_attributions_of_nothing_are_dark() -> None:
    nothing = np.zeros((2, 8, 8), np.float32)
    assert not share_channels(nothing).any()
    assert not smooth(nothing).any()
