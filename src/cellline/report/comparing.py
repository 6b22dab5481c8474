"""A comparison of two runs on the samples that both have predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

from cellline.config import Config, list_differences
from cellline.errors import Caution, UserError
from cellline.host.names import align, printable
from cellline.report.words import name_folds
from cellline.runs.folds import open_folds
from cellline.runs.run import Run, Tuning, open_runs
from cellline.scoring.comparison import Comparison, compare_predictions
from cellline.scoring.metrics import Scores, percent, points, score, with_interval


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Two runs, scored on the same held-out samples."""

    runs: Sequence[Run]
    compared: Sequence[int]
    """The folds that both have finished; if possible, without those of `tuned`."""
    tuned: dict[str, Tuning]
    """Run's name -> the tuning that chose its settings on a fold that both have finished."""
    n_samples: int
    scores: Sequence[Scores]
    comparison: Comparison

    def describe(self) -> list[str]:
        """The verdict, the scores, and a table by class, one line each."""
        first, second = self.runs
        lines: list[str] = []
        for run, other in ((first, second), (second, first)):
            only = sorted(set(run.finished) - set(other.finished))
            lines += [f"fold {fold} is left out: only {run.name} has finished it" for fold in only]
        lines += [self._describe_tuning(name, tuning) for name, tuning in self.tuned.items()]
        differences = list_differences(first.settings, second.settings)
        changes = [f"{name} {old} -> {new}" for name, old, new in differences]
        same = "the same; the machine or this program's version may differ"
        width = max(len(run.name) for run in self.runs)
        for run, own in zip(self.runs, self.scores, strict=True):
            lines.append(f"{run.name:<{width}}  BAC {with_interval(own.bac)} (95 % interval)")
        return [
            *lines,
            "",
            self._verdict(first.name, second.name),
            "",
            "the interval covers other pictures, not other seeds: each run is one draw; to see how "
            "much seeds matter, train both again with another --seed under other names",
            # The values may come from a stranger's config.json.
            f"settings: {printable(', '.join(changes)) or same}",
            "",
            *self._describe_recalls(),
        ]

    def _verdict(self, a: str, b: str) -> str:
        """One line to act on."""
        n_folds, found = self.runs[0].folds.n_folds, self.comparison
        where = f"all {n_folds} folds"
        if len(self.compared) < n_folds:
            where = name_folds(self.compared)
        if found.bac.value == found.bac.error == 0:
            return f"{a} and {b} are right on the same samples of {where}: keep the cheaper"
        gain = f"{points(found.bac)} points of BAC on {self.n_samples:,} samples of {where}"
        if found.is_clear:
            how, use = ("better", b) if found.bac.value > 0 else ("worse", a)
            return f"{b} is {how} than {a}: {gain}: use {use}"
        needed = f"about {found.needed:,.0f}" if found.needed < 1000 else "more than 1,000"
        return (
            f"{a} and {b} can't be told apart: {gain}; to show so small a difference takes "
            f"{needed} times as many groups of pictures: keep the cheaper"
        )

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
        """A table of recalls by class and run, with their difference, one line each."""
        names = self.runs[0].class_names
        head, *margin = align(["recall", *names])
        column = max(8, *(len(run.name) for run in self.runs))
        lines = [head + "".join(f"  {run.name:>{column}}" for run in self.runs) + "  difference"]
        recalls = zip(*(own.recalls for own in self.scores), strict=True)
        for name, own, difference, is_marked in zip(
            margin, recalls, self.comparison.recalls, self.comparison.marked, strict=True
        ):
            shown = "".join(f"  {percent(recall.value):>{column}}" for recall in own)
            lines.append(f"{name}{shown}  {points(difference)}{' *' if is_marked else ''}")
        lines.append(
            f"* differs, after correction for {len(names)} classes"
            if any(self.comparison.marked)
            else f"no class differs by more than chance explains among {len(names)}"
        )
        return lines


def compare_runs(config: Config, names: Sequence[str]) -> RunComparison:
    """Compare the second of two runs with the first, overall and by class.

    Raises UserError unless both are runs of the present input and folds with a finished fold in
    common.
    """
    if len(names) != 2 or names[0] == names[1]:
        raise UserError(f"--runs {' '.join(names)}: name two different runs to compare")
    runs = open_runs(config, names, open_folds(config.folders))
    common = common_folds(runs)
    tuned = {run.name: tuning for run in runs if (tuning := run.tuning) and tuning.fold in common}
    compared = sorted(set(common) - {tuning.fold for tuning in tuned.values()}) or common
    a, b = (run.out_of_fold(compared) for run in runs)
    return RunComparison(
        runs,
        compared,
        tuned,
        len(a.labels),
        [score(own.labels, own.prob, a.bootstrap) for own in (a, b)],
        compare_predictions(a.labels, a.prob, b.prob, a.bootstrap),
    )


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
