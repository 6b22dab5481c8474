from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

from cellline.config import Config, Folders, MetricName, Reading, Training
from cellline.data.competition import load_competition
from cellline.errors import Caution, UserError
from cellline.host.files import write_json
from cellline.report.comparing import compare_runs
from cellline.runs.folds import NO_PAIRS, Dealt, open_folds, write_folds
from cellline.runs.predictions import OutOfFold, write_out_of_fold
from cellline.runs.run import new_run

Finish = Callable[..., None]

# The folds of samples that are sorted by class.
STRATIFIED = np.arange(90) % 3


@pytest.fixture
def config(drawn: Path, training: Training) -> Config:
    """The drawn competition, ten samples a class, dealt into three folds."""
    return deal(Folders(drawn, cache_dir=drawn.parent / "cache"), training)


def deal(
    folders: Folders,
    training: Training,
    metric: MetricName | None = None,
    in_order: np.ndarray = STRATIFIED,
) -> Config:
    """Deal the samples into folds; `in_order` are those of samples sorted by class."""
    reading = Reading(channels=("blue", "red", "yellow"), metric=metric)
    competition = load_competition(folders.input_dir, folders.cache_dir, reading)
    fold = np.empty(90, dtype=np.int64)
    fold[np.argsort(competition.labels, kind="stable")] = in_order
    record = {
        "n_folds": 3,
        "image_size": None,
        "input_digest": competition.digest,
    }
    dealt = Dealt(fold, competition.train_ids, NO_PAIRS)
    write_folds(folders.oof_dir, competition, dealt, record)
    return Config(folders, training)


@pytest.fixture
def finish(config: Config) -> Finish:
    """Leave a run whose finished folds predict a share of samples right, others as HeLa."""
    folds = open_folds(config.folders)
    classes = folds.competition.classes

    def write(
        name: str,
        right: float | Mapping[str, float],
        of: Sequence[int] = (0, 1, 2),
        training: Training = config.training,
    ) -> None:
        run = new_run(replace(config, run=name, training=training), folds)
        run.begin()
        shares = right if isinstance(right, Mapping) else dict.fromkeys(classes, right)
        by_class = np.array([shares.get(label, 0.5) for label in classes])
        for fold in of:
            rows = folds.held_out_rows(fold)
            labels = folds.competition.labels[rows]
            is_right = (rows * 7 % 90) / 90 < by_class[labels]
            wrong = np.where(labels == 3, 4, 3)
            prob = np.eye(9, dtype=np.float32)[np.where(is_right, labels, wrong)]
            own = OutOfFold(folds, rows, prob, prob)
            write_out_of_fold(run.oof_path(fold), own, run.provenance(fold))

    return write


def compare(config: Config, *runs: str, seeds: int = 1) -> list[str]:
    return compare_runs(config, runs, seeds).describe()


def verdict(lines: list[str]) -> str:
    [line] = [line for line in lines if "points of BAC" in line]
    return line


def test_a_better_run_is_told_and_so_is_the_change(config: Config, finish: Finish) -> None:
    before = config.training
    longer = replace(before, epochs=9, augmentation=replace(before.augmentation, gain=0.1))
    finish("plain", 0.5)
    finish("longer", 0.9, training=longer)
    lines = compare(config, "plain", "longer")
    assert lines[:2] == [
        "plain   BAC 49.7 % [39.5, 59.9] (95 % interval)",
        "longer  BAC 90.2 % [82.2, 98.1] (95 % interval)",
    ]
    better = "longer is better than plain with these seeds: +40.4 [29.6, 51.5] points of BAC on 90 "
    assert verdict(lines).startswith(better)
    # One seed is no reason to switch.
    assert verdict(lines).endswith(" of all 3 folds")
    assert any("compare several seeds of both (--seeds 3)" in line for line in lines)
    assert verdict(compare(config, "longer", "plain")).startswith("plain is worse than longer with")
    assert "longer  public 90.2 % [50.0, 100.0], private 90.2 % [68.1, 100.0]" in lines
    [ahead] = [line for line in lines if line.startswith("longer is ahead of plain on public in ")]
    assert ahead.split(" in ", 1)[1].startswith("88 % and on private in 99 % of simulations")
    assert "CACO-2      53.3 %    93.3 %  +40.0 [15.4, 66.7] *" in lines
    assert "settings: epochs 3 -> 9, gain 0.2 -> 0.1" in lines
    assert not any(isinstance(line, Caution) for line in lines)


def test_only_folds_that_both_have_finished_are_compared(config: Config, finish: Finish) -> None:
    finish("a", 0.55, of=(0, 1))
    # If fold 2 were compared too, b would be worse.
    finish("b", 0.58, of=(1,))
    finish("b", 0.0, of=(2,))
    lines = compare(config, "a", "b")
    assert "fold 0 is left out: not finished by b" in lines
    assert "fold 2 is left out: not finished by a" in lines
    assert verdict(lines).startswith("a and b can't be told apart: +")
    assert " samples of fold 1; " in verdict(lines)
    assert "takes about 7 times as many groups of pictures: keep the cheaper" in verdict(lines)
    assert any(line.startswith("settings: the same") for line in lines)
    finish("twin", 0.55)
    same = compare(config, "a", "twin")
    assert "a and twin score the same on all samples of folds 0 and 1: keep the cheaper" in same


def test_folds_that_a_run_was_tuned_on_do_not_judge_it(config: Config, finish: Finish) -> None:
    finish("a", 0.5, of=(0, 1))
    finish("b", 0.9, of=(0, 1))
    write_json(Path("oof/b/tuned.json"), {"fold": 0, "trials": 7})
    lines = compare(config, "a", "b")
    assert "fold 0 is left out: 7 trials of a tuning on it chose b's settings" in lines
    assert " samples of fold 1" in verdict(lines)
    finish("c", 0.5, of=(0,))
    [caution] = [line for line in compare(config, "c", "b") if isinstance(line, Caution)]
    assert caution.startswith("7 trials of a tuning chose b's settings on fold 0")
    assert "favours b" in caution


def test_the_class_that_differs_is_marked(config: Config, finish: Finish) -> None:
    finish("a", {"RT4": 0.0})
    finish("b", {"RT4": 1.0})
    lines = compare(config, "a", "b")
    assert [line.split()[0] for line in lines if line.endswith("] *")] == ["RT4"]
    [row] = [line for line in lines if line.startswith("RT4 ")]
    assert " ".join(row.split()) == "RT4 0.0 % 100.0 % +100.0 [100.0, 100.0] *"
    assert lines[-1] == "* differs, after correction for 9 classes"
    finish("c", {"RT4": 0.0})
    assert compare(config, "a", "c")[-1].startswith("no class differs")


def test_several_seeds_decide(config: Config, finish: Finish) -> None:
    for name, shares in (("a", (0.5, 0.52, 0.51)), ("b", (0.79, 0.8, 0.82))):
        for seed, right in enumerate(shares):
            training = replace(config.training, seed=seed)
            finish(f"{name}-seed{seed}" if seed else name, right, training=training)
    lines = compare(config, "a", "b", seeds=3)
    assert verdict(lines).startswith("b is better than a: +")
    assert verdict(lines).endswith(" on 90 samples of all 3 folds, 3 seeds each: use b")
    assert any("the mean of 3 seeds (standard deviation 1" in line for line in lines)
    assert "the interval covers other pictures and other seeds, from 3 a side" in lines
    assert not any("--seeds" in line for line in lines)


def test_a_difference_within_the_spread_of_seeds_decides_nothing(
    config: Config, finish: Finish
) -> None:
    for name, shares in (("a", (0.3, 0.6, 0.9)), ("b", (0.9, 0.65, 0.35))):
        for seed, right in enumerate(shares):
            training = replace(config.training, seed=seed)
            finish(f"{name}-seed{seed}" if seed else name, right, training=training)
    assert " is better than " in verdict(compare(config, "a", "b"))
    assert "can't be told apart" in verdict(compare(config, "a", "b", seeds=3))


def test_missing_seeds_are_named_with_the_commands_that_train_them(
    config: Config, finish: Finish
) -> None:
    tuned = replace(config.training, lr=0.02, batch_size=8)
    finish("a", 0.5, training=tuned)
    finish("b", 0.5, of=(0, 2))
    finish("b-seed1", 0.5, of=(0,), training=replace(config.training, seed=1))
    with pytest.raises(UserError, match="--seeds 3: some runs are missing") as raised:
        compare(config, "a", "b", seeds=3)
    commands = str(raised.value).split("\n")[1:]
    runs = ["a-seed1", "a-seed2", "b-seed2 FOLD=0", "b-seed2 FOLD=2"]
    assert [
        run for run, command in zip(runs, commands, strict=True) if f"RUN={run} " in command
    ] == runs
    # A new run would take another learning rate.
    assert "--lr 0.02" in commands[0] and "--batch-size 8" in commands[0]
    assert "--seed 2" in commands[1]


def test_a_side_differs_in_its_seed_only(config: Config, finish: Finish) -> None:
    finish("a", 0.5)
    finish("b", 0.5)
    finish("a-seed1", 0.5, training=replace(config.training, seed=1, epochs=7))
    finish("b-seed1", 0.5, training=replace(config.training, seed=1))
    with pytest.raises(UserError, match=r"a-seed1 must differ from .*a by the seed only.*epochs 7"):
        compare(config, "a", "b", seeds=2)


@pytest.mark.parametrize(
    ("metric", "n_classes", "title", "score"),
    [
        ("log_loss", 3, "log loss", log_loss),
        ("roc_auc", 2, "ROC AUC", lambda labels, prob: 100 * roc_auc_score(labels, prob[:, 1])),
        (
            "quadratic_kappa",
            5,
            "quadratic kappa",
            lambda labels, prob: cohen_kappa_score(labels, prob.argmax(1), weights="quadratic"),
        ),
        ("accuracy", 31, "accuracy", lambda labels, prob: 100 * np.mean(labels == prob.argmax(1))),
    ],
)
def test_runs_are_compared_by_the_competitions_metric(
    drawn: Path,
    training: Training,
    metric: MetricName,
    n_classes: int,
    title: str,
    score: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    number_classes(drawn, Path("input"), n_classes, columns=metric == "log_loss")
    config = deal(Folders(Path("input"), cache_dir=Path("cache")), training, metric)
    folds = open_folds(config.folders)
    labels, scores = folds.competition.labels, {}
    for seed, (name, sure) in enumerate((("weak", 0.05), ("strong", 0.7))):
        noise = np.random.default_rng(seed).dirichlet(np.ones(n_classes), 90)
        prob = ((noise + sure * np.eye(n_classes)[labels]) / (1 + sure)).astype(np.float32)
        run = new_run(replace(config, run=name), folds)
        run.begin()
        for fold in range(3):
            rows = folds.held_out_rows(fold)
            own = OutOfFold(folds, rows, prob[rows], prob[rows])
            write_out_of_fold(run.oof_path(fold), own, run.provenance(fold))
        scores[name] = score(labels, prob)

    lines = compare(config, "weak", "strong")
    shares = metric in ("roc_auc", "accuracy")
    for line, (name, value) in zip(lines, scores.items(), strict=False):
        shown = f"{value:.1f} %" if shares else f"{value:.3f}"
        assert line.startswith(f"{name:<6}  {title} {shown} [")
    gain = abs(scores["strong"] - scores["weak"])
    size = f"+{gain:.1f}" if shares else f"+{gain:.3f}"
    [told] = [line for line in lines if line.startswith("strong is better than weak with these")]
    before = "a gain of " * (metric == "log_loss")
    assert f"these seeds: {before}{size} [" in told
    assert f" {title} on 90 samples of all 3 folds" in told
    assert any(line.startswith("weak is worse than") for line in compare(config, "strong", "weak"))
    [board] = [line for line in lines if line.startswith("strong is ahead of weak on public")]
    assert int(board.split(" %")[0].split()[-1]) > 60
    assert not any("BAC" in line for line in lines)
    by_class = lines[[line.split()[0:1] for line in lines].index(["recall"]) + 1 :]
    assert sum(" % " in line for line in by_class) == min(n_classes, 20)
    assert ("shown are the 20 classes that differ most" in by_class) == (n_classes > 20)


def number_classes(drawn: Path, folder: Path, n_classes: int, *, columns: bool = False) -> None:
    """Make `folder` the input of a drawn competition whose classes are numbered in turn.

    With `columns`, the template has one for each class.
    """
    folder.mkdir()
    for path in drawn.glob("*.tar"):
        (folder / path.name).symlink_to(path)
    for name in ("y_train.csv", "sample_submission.csv"):
        header, *rows = (drawn / name).read_text().splitlines()
        labelled = [f"{row.split(',')[0]},{k % n_classes}" for k, row in enumerate(rows)]
        if columns and name == "sample_submission.csv":
            header = f"file_id,{','.join(map(str, range(n_classes)))}"
            labelled = [row.split(",")[0] + ",0.5" * n_classes for row in rows]
        (folder / name).write_text("\n".join([header, *labelled]) + "\n")


def test_folds_of_one_class_give_no_roc_auc(drawn: Path, training: Training) -> None:
    number_classes(drawn, Path("input"), 2)
    folders = Folders(Path("input"), cache_dir=Path("cache"))
    config = deal(folders, training, "roc_auc", np.arange(90) // 30)
    folds = open_folds(config.folders)
    for name in "ab":
        run = new_run(replace(config, run=name), folds)
        run.begin()
        rows = folds.held_out_rows(0)
        prob = np.full((len(rows), 2), 0.5, np.float32)
        own = OutOfFold(folds, rows, prob, prob)
        write_out_of_fold(run.oof_path(0), own, run.provenance(0))
    with pytest.raises(UserError, match=r"fold 0 .* no ROC AUC, .* of one class: train another"):
        compare(config, "a", "b")


@pytest.mark.parametrize("runs", [(), ("a", "a"), ("a", "b", "c")])
def test_two_runs_are_asked_for(config: Config, runs: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"--runs .*: name two different runs to .* none"):
        compare(config, *runs)


def test_runs_without_a_common_fold_say_what_to_train(config: Config, finish: Finish) -> None:
    finish("a", 0.5, of=(1, 2))
    finish("b", 0.5, of=(0,))
    for run in "cd":
        finish(run, 0.5, of=())
    for runs, told in (
        ("ab", r"no finished fold in common; train one:\n  make train .*RUN=a FOLD=0"),
        ("ca", r"train one:\n  make train .*RUN=c FOLD=1"),
        ("cd", r"RUN=c FOLD=0.*\n  make train .*RUN=d FOLD=0"),
    ):
        with pytest.raises(UserError, match=told):
            compare(config, *runs)
