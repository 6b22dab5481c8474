"""Whether one run is better than another, on the samples that both have predicted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cellline.config import Config, Folders, list_differences
from cellline.errors import UserError
from cellline.host.names import align, name_classes, printable
from cellline.runs.folds import open_folds
from cellline.runs.run_folder import (
    Chosen,
    check_run,
    finished_folds,
    groups_of,
    read_chosen,
    read_out_of_fold,
    run_folder,
    train_command,
)
from cellline.scoring.comparison import Comparison, compare_predictions
from cellline.scoring.metrics import Bootstrap, Estimate, percent, points, score, with_interval


def compare_runs(config: Config, runs: Sequence[str], report: Callable[[str], None]) -> None:
    """Report whether the second of two runs is better than the first, overall and by class.

    Raises UserError unless these are two runs of the input and folds there are, with a finished
    fold in common.
    """
    if len(runs) != 2 or runs[0] == runs[1]:
        raise UserError(
            f"--runs '{' '.join(runs)}': two different runs are compared, such as "
            'make compare RUNS="densenet161 large"'
        )
    competition, folds = open_folds(config.folders)
    folders = [run_folder(config.folders.oof_dir, run) for run in runs]
    configs = [check_run(folder, competition, folds) for folder in folders]
    finished = {folder.name: finished_folds(folder, folds.n_folds) for folder in folders}
    common, lines = leave_out_tuned(
        common_folds(config.folders, finished),
        {folder.name: chosen for folder in folders if (chosen := read_chosen(folder))},
    )
    held_out = [read_out_of_fold(folder, common) for folder in folders]
    labels, (prob_a, prob_b) = held_out[0].labels, [own.prob for own in held_out]
    bootstrap = Bootstrap(groups_of(held_out[0], competition, folds))
    scores = [score(labels, prob, bootstrap) for prob in (prob_a, prob_b)]
    comparison = compare_predictions(labels, prob_a, prob_b, bootstrap)

    if folds.ignore_groups:
        report(
            "warning: these folds ignore groups: both runs have learned from relatives of what "
            "they are compared on, and the one that remembers more seems better"
        )
    for name, other in zip(runs, reversed(runs), strict=True):
        for fold in sorted(set(finished[name]) - set(finished[other])):
            report(f"fold {fold} is left out: only {name} has finished it")
    for line in lines:
        report(line)
    width = max(map(len, runs))
    for name, own in zip(runs, scores, strict=True):
        report(f"{name:<{width}}  BAC {with_interval(own.bac)} (95 % interval)")
    report("")
    report(comparison.verdict(runs[0], runs[1], name_folds(common, folds.n_folds)))
    report("")
    if comparison.bac.error and not comparison.is_clear and len(common) < folds.n_folds:
        times = folds.n_folds / len(common)
        outlook = "probably enough" if comparison.needed <= times else "not enough either"
        report(f"all {folds.n_folds} folds of both have {times:.3g} times as many: {outlook}")
    report(
        "the interval covers other pictures, not other seeds: each run is one draw; to see how far "
        "that goes, train both again with another --seed under other names"
    )
    report(f"settings: {describe_change(*(own['settings'] for own in configs))}")
    report("")
    for line in describe_recalls(
        competition.classes, runs, [own.recalls for own in scores], comparison
    ):
        report(line)


def leave_out_tuned(
    common: Sequence[int], chosen: Mapping[str, Chosen]
) -> tuple[list[int], list[str]]:
    """The common folds without those that a run was tuned on, and lines that say so.

    All of them where no other is left: the line is a warning then.
    """
    kept = sorted(set(common) - {tuning.fold for tuning in chosen.values()})
    by_run = {name: tuning for name, tuning in chosen.items() if tuning.fold in common}
    if kept:
        return kept, [
            f"fold {tuning.fold} is left out: {tuning.trials} trials of make tune chose {name}'s "
            "settings on it"
            for name, tuning in by_run.items()
        ]
    return sorted(common), [
        f"warning: {tuning.trials} trials of make tune chose {name}'s settings on fold "
        f"{tuning.fold}, the only one to compare on: this favours {name}; train another fold of "
        "both"
        for name, tuning in by_run.items()
    ]


def common_folds(folders: Folders, finished: Mapping[str, Sequence[int]]) -> list[int]:
    """The folds that all runs have finished. Raises UserError that says what to train if none."""
    common = set.intersection(*map(set, finished.values()))
    if not common:
        # The fold that needs the least: one that a run has, else the first.
        fold = min(set().union(*finished.values()), default=0)
        commands = [
            train_command(folders, name, fold)
            for name, there in finished.items()
            if fold not in there
        ]
        raise UserError(
            f"{' and '.join(finished)} have no finished fold in common, to compare them on; train "
            "one:\n  " + "\n  ".join(commands)
        )
    return sorted(common)


def name_folds(folds: Sequence[int], n_folds: int) -> str:
    """Such as ' of fold 0', to go after a number of samples."""
    if len(folds) == n_folds:
        return f" of all {n_folds} folds"
    return f" of fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def describe_change(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Settings that differ, such as 'epochs 20 -> 30, lr 0.001 -> 0.0005'."""
    changes = [f"{key} {old} -> {new}" for key, old, new in list_differences(before, after)]
    # As the run's config.json has them: it may come from someone else.
    return printable(", ".join(changes)) or (
        "the same; the machine or this program's version may differ"
    )


def describe_recalls(
    classes: Sequence[str],
    runs: Sequence[str],
    by_run: Sequence[Sequence[Estimate]],
    comparison: Comparison,
) -> list[str]:
    """A table of recalls by class and run, with their difference, a line each."""
    head, *names = align(["recall", *name_classes(classes)])
    column = max(8, *map(len, runs))
    lines = [head + "".join(f"  {run:>{column}}" for run in runs) + "  difference"]
    for name, own, difference, is_marked in zip(
        names, zip(*by_run, strict=True), comparison.recalls, comparison.marked, strict=True
    ):
        shown = "".join(f"  {percent(recall.value):>{column}}" for recall in own)
        lines.append(f"{name}{shown}  {points(difference)}{' *' if is_marked else ''}")
    lines.append(
        f"* differs, also when one allows for {len(classes)} classes being looked at"
        if any(comparison.marked)
        else f"no class differs by more than chance among {len(classes)} explains"
    )
    return lines
