"""From the input folder to audited folds."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cellline.audit.groups import Audit, Counts, audit_copies
from cellline.audit.reference import Reference, measure_reference
from cellline.audit.shift import Shift, measure_shift
from cellline.audit.splitting import check_groups, deal_folds, deal_naively
from cellline.audit.statistics import measure_statistics, name_statistics
from cellline.config import Folders
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import digest_file
from cellline.host.locking import one_writer
from cellline.host.names import align, name_classes
from cellline.host.progress import say
from cellline.host.versions import code_version
from cellline.runs.folds import (
    IGNORING_GROUPS,
    Folds,
    find_dependents,
    read_folds,
    read_folds_record,
    would_change,
    write_folds,
)


@dataclass(frozen=True)
class Plan:
    """How to deal samples into folds."""

    channels: tuple[str, ...] = ("blue", "red", "yellow")
    """Channels as image files' names end, in the order that the network sees; "" for <id>.png."""
    n_folds: int = 5
    seed: int = 0
    ignore_groups: bool = False
    """Deal copies and overlaps apart, to measure what that flatters."""


def make_folds(folders: Folders, plan: Plan) -> Folds:
    """Check the input, audit it, and write its folds.

    Deals nothing if the present folds were made from the same input with the same plan. Raises
    UserError for bad input, and if folds that runs or a tuning depend on would change.
    """
    if plan.n_folds < 2:
        raise UserError(f"--folds {plan.n_folds}: at least 2 are needed")
    competition = load_competition(folders.input_dir, folders.cache_dir, plan.channels)
    with one_writer(folders.oof_dir, "dealing folds"):
        deal(folders, competition, plan)
    return read_folds(folders.oof_dir, competition)


def deal(folders: Folders, competition: Competition, plan: Plan) -> None:
    """Audit the input and write its folds, unless the present ones were made by this plan."""
    settings = {
        "n_folds": plan.n_folds,
        "seed": plan.seed,
        "ignore_groups": plan.ignore_groups,
        "classes": list(competition.classes),
        "channels": list(plan.channels),
        "input_digest": competition.digest,
    }
    path, record_path = (folders.oof_dir / name for name in ("folds.csv", "folds.json"))
    recorded = read_folds_record(folders.oof_dir) if record_path.exists() else {}
    same = settings.items() <= recorded.items()
    if same and path.exists() and digest_file(path) == recorded.get("folds_digest"):
        say(f"{path} is up to date")
        return
    dependents = find_dependents(folders.oof_dir)
    # Without a record, only dealing again shows whether the folds stay the same.
    if dependents and recorded and not same:
        raise would_change(folders.oof_dir, dependents)
    say("looking for copies and overlaps")
    audit = audit_copies(competition, folders.oof_dir)
    check_groups(competition.labels, audit.group, competition.classes, plan.n_folds)
    naive = deal_naively(competition.labels, plan.n_folds, plan.seed)
    grouped = deal_folds(competition.labels, audit.group, plan.n_folds, plan.seed)
    say("measuring what a leak would be worth, comparing training and test samples")
    findings = {**audit.counts.record(), **measure(competition, audit, naive, grouped, plan)}
    fold = naive if plan.ignore_groups else grouped
    record = {**settings, "audit": findings, "code": code_version()}
    write_folds(folders.oof_dir, competition, fold, audit.group, record)


def measure(
    competition: Competition, audit: Audit, naive: np.ndarray, grouped: np.ndarray, plan: Plan
) -> dict[str, dict[str, Any] | None]:
    """The audit's findings from image statistics alone, as folds.json records them."""
    train, test = map(measure_statistics, (competition.train_images, competition.test_images))
    test_share = audit.counts.test_grouped / len(competition.test_ids)
    reference = measure_reference(
        train, competition.labels, audit.group, naive, grouped, test_share
    )
    names = name_statistics(competition.channels)
    shift = measure_shift(
        train, test, names, audit.group, audit.test_group, plan.n_folds, plan.seed
    )
    return {"reference": reference.record(), "shift": shift.record() if shift else None}


def describe_dealt(folds: Folds) -> list[str]:
    """Lines on everything that dealing found: the input's cautions, the audit, a table of folds."""
    competition, record = folds.competition, folds.record["audit"]
    counts = Counts.from_record(record)
    return [
        *competition.warnings,
        *counts.describe(len(competition.train_ids), len(competition.test_ids)),
        *Reference.from_record(record["reference"]).describe(),
        *(
            Shift.from_record(record["shift"]).describe()
            if record["shift"]
            else ["the test set is too small to tell whether it looks like the training set"]
        ),
        *describe_folds(folds),
        *([IGNORING_GROUPS] if folds.ignore_groups else []),
    ]


def describe_folds(folds: Folds) -> list[str]:
    """A table of classes by folds, one line each; groups count copies and overlaps once."""
    competition = folds.competition
    heads = [*(f"fold {k}" for k in folds.numbers), "samples", "groups"]
    margin, *names = align(["", *name_classes(competition.classes)])
    lines = [margin + "".join(f"{head:>9}" for head in heads)]
    for index, name in enumerate(names):
        rows = competition.labels == index
        counts = np.bincount(folds.fold[rows], minlength=folds.n_folds)
        cells = [*counts, counts.sum(), len(np.unique(folds.group[rows]))]
        lines.append(name + "".join(f"{cell:9d}" for cell in cells))
    return lines
