"""A comparison of two runs on the samples that both have predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellline.config import SEED, Config, list_differences
from cellline.data.problems import name_first
from cellline.errors import Caution, UserError
from cellline.host.names import align, printable
from cellline.report.scores import MATRIX_CLASSES, WORST
from cellline.report.words import name_folds
from cellline.runs.folds import describe_choice, open_folds
from cellline.runs.run import Run, Tuning, list_runs, new_run, open_run, open_runs, read_record
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.comparison import Comparison, compare_predictions
from cellline.scoring.leaderboard import (
    PUBLIC_SHARE,
    Leaderboard,
    SimulatedTests,
    simulate_leaderboard,
)
from cellline.scoring.metrics import Metric
from cellline.scoring.recalls import Recall
from cellline.scoring.words import percent, points
from cellline.submitting.decision import hold_out


@dataclass(frozen=True, eq=False)
class Side:
    """A recipe: runs that differ in their seed only, scored on the compared samples."""

    runs: Sequence[Run]
    scores: Sequence[Estimate]
    """[run]"""
    recalls: Sequence[Sequence[Recall]]
    """[run][class]"""

    @property
    def name(self) -> str:
        """The name of the first run."""
        return self.runs[0].name

    def describe(self, metric: Metric, width: int) -> str:
        """One line with the score."""
        head = f"{self.name:<{width}}  {metric.title}"
        if len(self.scores) == 1:
            return f"{head} {metric.show(self.scores[0])} (95 % interval)"
        values = [score.value for score in self.scores]
        return (
            f"{head} {metric.show(float(np.mean(values)))}, the mean of {len(values)} seeds "
            f"(standard deviation {metric.show_spread(float(np.std(values, ddof=1)))})"
        )


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Two recipes, scored on the same held-out samples."""

    sides: Sequence[Side]
    compared: Sequence[int]
    """The folds that all runs have finished; if possible, without those of `tuned`."""
    tuned: dict[str, Tuning]
    """Run's name -> the tuning that chose its settings on a fold that all have finished."""
    n_samples: int
    comparison: Comparison
    leaderboard: Leaderboard | None
    """Expected scores of the first run of each side; None without a test set."""

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return self.sides[0].runs[0].folds.metric

    def describe(self) -> list[str]:
        """The verdict, the scores, and a table by class, one line each."""
        first, second = (side.runs[0] for side in self.sides)
        lines = self._describe_left_out()
        lines += [self._describe_tuning(name, tuning) for name, tuning in self.tuned.items()]
        differences = list_differences(first.settings, second.settings)
        changes = [f"{name} {old} -> {new}" for name, old, new in differences]
        same = "the same; the machine or this program's version may differ"
        width = max(len(side.name) for side in self.sides)
        n_runs = sum(len(side.runs) for side in self.sides)
        return [
            *lines,
            *(side.describe(self.metric, width) for side in self.sides),
            *describe_choice(first.config.folders.oof_dir, first.folds, n_runs),
            "",
            self._verdict(first.name, second.name),
            "",
            self._describe_interval(first.name),
            # The values may come from a stranger's config.json.
            f"settings: {printable(', '.join(changes)) or same}",
            "",
            *self._describe_leaderboard(first.name, second.name),
            *self._describe_recalls(),
        ]

    def _describe_left_out(self) -> list[str]:
        """Folds that some runs have finished, but not all: one line each."""
        runs = [run for side in self.sides for run in side.runs]
        lines = []
        for fold in sorted(set().union(*(run.finished for run in runs))):
            lacking = [run.name for run in runs if fold not in run.finished]
            if lacking:
                lines.append(f"fold {fold} is left out: not finished by {' and '.join(lacking)}")
        return lines

    def _verdict(self, a: str, b: str) -> str:
        """One line to act on."""
        run, found = self.sides[0].runs[0], self.comparison
        n_seeds = len(self.sides[0].runs)
        where = f"all {run.folds.n_folds} folds"
        if len(self.compared) < run.folds.n_folds:
            where = name_folds(self.compared)
        if found.gain.value == found.gain.error == 0:
            return f"{a} and {b} score the same on all samples of {where}: keep the cheaper"
        shown, title = self.metric.show_gain(found.gain), self.metric.title
        gain = f"{shown} of" if self.metric.higher_is_better else f"a gain of {shown} in"
        gain += f" {title} on {self.n_samples:,} samples of {where}"
        how, use = ("better", b) if found.gain.value > 0 else ("worse", a)
        if n_seeds > 1:
            gain += f", {n_seeds} seeds each"
            if found.is_clear:
                return f"{b} is {how} than {a}: {gain}: use {use}"
            return (
                f"{a} and {b} can't be told apart: {gain}; more seeds or more pictures would show "
                "a smaller difference: keep the cheaper"
            )
        if found.is_clear:
            return f"{b} is {how} than {a} with these seeds: {gain}"
        needed = f"about {found.needed:,.0f}" if found.needed < 1000 else "more than 1,000"
        return (
            f"{a} and {b} can't be told apart: {gain}; to show so small a difference takes "
            f"{needed} times as many groups of pictures: keep the cheaper"
        )

    def _describe_interval(self, a: str) -> str:
        """Sources of chance that the interval covers: pictures, and seeds if there are several."""
        n_seeds = len(self.sides[0].runs)
        if n_seeds > 1:
            return f"the interval covers other pictures and other seeds, from {n_seeds} a side"
        return (
            f"the interval covers other pictures, not other seeds: {a} trained again with another "
            "seed may score differently by as much, so this alone is no reason to switch; to "
            "decide, compare several seeds of both (--seeds 3)"
        )

    def _describe_leaderboard(self, a: str, b: str) -> list[str]:
        """Expected scores on the leaderboard, and which submission would be ahead."""
        board, show = self.leaderboard, self.metric.show
        if board is None:
            return []
        width = max(len(a), len(b))
        seed = ", of the first seed" if len(self.sides[0].runs) > 1 else ""
        lines = [f"expected on the leaderboard, each sample by itself, uncorrected{seed}:"]
        lines += [
            f"{name:<{width}}  public {show(public)}, private {show(private)}"
            for name, public, private in zip((a, b), board.public, board.private, strict=True)
        ]
        public, private = (
            f"{100 * share:.0f} %" for share in (board.ahead_public, board.ahead_private)
        )
        return [
            *lines,
            f"{b} is ahead of {a} on public in {public} and on private in {private} of "
            f"simulations; they change places between them in {100 * board.swap:.0f} %",
            "",
        ]

    def _describe_tuning(self, name: str, tuning: Tuning) -> str:
        if tuning.fold not in self.compared:
            return (
                f"fold {tuning.fold} is left out: {tuning.trials} trials of a tuning on it chose "
                f"{name}'s settings"
            )
        return Caution(
            f"{tuning.trials} trials of a tuning chose {name}'s settings on fold {tuning.fold}, "
            f"and no other fold can be compared, which favours {name}; train another fold of both"
        )

    def _describe_recalls(self) -> list[str]:
        """A table of recalls by class and side, with their difference, one line each."""
        names, found = self.sides[0].runs[0].class_names, self.comparison
        differences = np.array([difference.value for difference in found.recalls])
        shown = np.flatnonzero(np.isfinite(differences))  # folds may have no sample of a class
        if many := len(shown) > MATRIX_CLASSES:
            shown = np.sort(shown[np.argsort(-np.abs(differences[shown]), kind="stable")[:WORST]])
        head, *margin = align(["recall", *(names[index] for index in shown)])
        column = max(8, *(len(side.name) for side in self.sides))
        lines = [head + "".join(f"  {side.name:>{column}}" for side in self.sides) + "  difference"]
        for index, name in zip(shown.tolist(), margin, strict=True):
            means = (np.mean([own[index].value for own in side.recalls]) for side in self.sides)
            cells = "".join(f"  {percent(float(mean)):>{column}}" for mean in means)
            mark = " *" * found.marked[index]
            lines.append(f"{name}{cells}  {points(found.recalls[index])}{mark}")
        if many:
            lines.append(f"shown are the {WORST} classes that differ most")
        lines.append(
            f"* differs, after correction for {len(names)} classes"
            if any(found.marked)
            else f"no class differs by more than chance explains among {len(names)}"
        )
        return lines


def compare_runs(
    config: Config, names: Sequence[str], seeds: int = 1, public_share: float = PUBLIC_SHARE
) -> RunComparison:
    """Compare the second of two runs with the first, overall and by class.

    With several seeds, each is compared by the mean of that many runs; see `open_seeds`. Raises
    UserError unless all are runs of the present input and folds with a finished fold in common, and
    if these folds give no score.
    """
    if len(names) != 2 or names[0] == names[1]:
        there = name_first(list_runs(config.folders.oof_dir)) or "none"
        raise UserError(
            f"--runs {' '.join(names)}: name two different runs to compare; there are {there}"
        )
    sides = open_seeds(open_runs(config, names, open_folds(config.folders, config.reading)), seeds)
    runs = [run for side in sides for run in side]
    common = common_folds(runs)
    tuned = {run.name: tuning for run in runs if (tuning := run.tuning) and tuning.fold in common}
    compared = sorted(set(common) - {tuning.fold for tuning in tuned.values()}) or common
    oofs = [[run.out_of_fold(compared) for run in side] for side in sides]
    first = oofs[0][0]
    metric, labels = first.folds.metric, first.labels
    if np.isnan(metric.score(labels, first.decided)):
        raise UserError(
            f"{name_folds(compared)} alone give no {metric.title}, because their samples are of "
            "one class: train another fold of each run"
        )
    probs_a, probs_b = ([own.prob for own in side] for side in oofs)
    leaderboard = None
    if len(first.folds.competition.test_ids):
        tests = SimulatedTests(first.group, hold_out([first]).rate, public_share)
        leaderboard = simulate_leaderboard(metric, labels, [of[0].decided for of in oofs], tests)
    return RunComparison(
        [
            Side(side, [own.score() for own in of], [own.score_recalls() for own in of])
            for side, of in zip(sides, oofs, strict=True)
        ],
        compared,
        tuned,
        len(labels),
        compare_predictions(metric, labels, probs_a, probs_b, first.bootstrap),
        leaderboard,
    )


def open_seeds(firsts: Sequence[Run], seeds: int) -> list[list[Run]]:
    """Each run with others of its recipe: `seeds` in all, with ascending seeds.

    Those of run `a`, whose seed is 0, are `a-seed1`, `a-seed2` and so on; of `a-seed3`
    `a-seed4` and so on. Raises UserError with the commands that train those that are missing, and
    if other settings than the seed differ.
    """
    sides: list[list[Run]] = []
    commands: list[str] = []
    for first in firsts:
        side, own = [first], first.config.training.seed
        for seed in range(own + 1, own + seeds):
            training = replace(first.config.training, seed=seed)
            name = f"{first.name.removesuffix(f'{SEED}{own}')}{SEED}{seed}"
            config = replace(first.config, run=name, training=training)
            wanted = new_run(config, first.folds, first.settings["weights_digest"])
            if read_record(wanted.folder) is None:
                folds = first.finished if first.missing else [None]
                commands += [wanted.command(fold, begun=False) for fold in folds]
                continue
            other = open_run(config, first.folds)
            if differences := list_differences(wanted.settings, other.settings):
                named = "; ".join(f"{name} {new}, not {old}" for name, old, new in differences)
                raise UserError(
                    f"{other.folder} must differ from {first.folder} by the seed only, which is "
                    f"{seed}, but has {named}; train it again under that name, or compare fewer "
                    "seeds (--seeds)"
                )
            side.append(other)
        if shared := {run.name for run in side} & {run.name for other in sides for run in other}:
            raise UserError(f"{', '.join(sorted(shared))} is on both sides: compare other runs")
        sides.append(side)
    if commands:
        raise UserError(
            f"--seeds {seeds}: some runs are missing; train them:\n  " + "\n  ".join(commands)
        )
    return sides


def common_folds(runs: Sequence[Run]) -> list[int]:
    """The folds that all runs have finished. Raises UserError that says what to train if none."""
    finished = [set(run.finished) for run in runs]
    common = set.intersection(*finished)
    if not common:
        # The cheapest fold to complete: one that a run has, else the first.
        fold = min(set().union(*finished), default=0)
        commands = [run.command(fold) for run in runs if fold not in run.finished]
        raise UserError(
            f"{' and '.join(run.name for run in runs)} have no finished fold in common; train "
            "one:\n  " + "\n  ".join(commands)
        )
    return sorted(common)
