"""From the input folder to audited folds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cellline.audit.groups import Audit, Counts, audit_copies
from cellline.audit.reference import Reference, measure_reference
from cellline.audit.shift import Shift, measure_shift
from cellline.audit.statistics import measure_statistics, name_statistics
from cellline.config import Folders
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import digest_file
from cellline.host.locking import one_writer
from cellline.host.versions import code_version
from cellline.runs.folds import (
    IGNORING_GROUPS,
    check_groups,
    deal_folds,
    deal_naively,
    describe_folds,
    find_dependents,
    read_folds,
    read_record,
    would_change,
    write_folds,
)


def make_folds(
    folders: Folders,
    channels: tuple[str, ...],
    n_folds: int,
    seed: int,
    *,
    ignore_groups: bool = False,
) -> Iterator[str]:
    """Check the input, audit it and write its folds; yields lines to show.

    Deals nothing when the folds there were made from the same input with the same settings.
    `ignore_groups` deals copies apart, to measure what that does to a score. Raises UserError for
    bad input, and when folds that runs or tuning depend on would change.
    """
    if n_folds < 2:
        raise UserError(f"--folds {n_folds}: at least 2 are needed")
    competition = load_competition(folders.input_dir, folders.cache_dir, channels)
    yield from (f"warning: {line}" for line in competition.warnings)
    settings = {
        "n_folds": n_folds,
        "seed": seed,
        "ignore_groups": ignore_groups,
        "classes": list(competition.classes),
        "channels": list(channels),
        "input_digest": competition.digest,
    }
    with one_writer(folders.oof_dir, "dealing folds"):
        yield from deal(folders, competition, settings)
    folds = read_folds(folders.oof_dir, competition)
    yield from describe_audit(read_record(folders.oof_dir)["audit"], competition)
    yield from describe_folds(competition, folds)
    if folds.ignore_groups:
        yield IGNORING_GROUPS


def deal(folders: Folders, competition: Competition, settings: dict[str, Any]) -> Iterator[str]:
    """Audit the input and write its folds, unless those there have these settings."""
    path, record_path = (folders.oof_dir / name for name in ("folds.csv", "folds.json"))
    recorded = read_record(folders.oof_dir) if record_path.exists() else {}
    same = settings.items() <= recorded.items()
    whole = path.exists() and digest_file(path) == recorded.get("folds_digest")
    if same and whole:
        yield f"{path} is up to date"
        return
    dependents = find_dependents(folders.oof_dir)
    # Without its record, what is dealt now tells whether it is the same.
    if dependents and recorded and not same:
        raise would_change(folders.oof_dir, dependents)
    yield "looking for copies and overlaps"
    audit = audit_copies(competition, folders.oof_dir)
    n_folds, seed = settings["n_folds"], settings["seed"]
    check_groups(competition.labels, audit.group, competition.classes, n_folds)
    naive = deal_naively(competition.labels, n_folds, seed)
    grouped = deal_folds(competition.labels, audit.group, n_folds, seed)
    yield "measuring what a leak would be worth, comparing training and test samples"
    findings = audit.counts.record() | measure(competition, audit, naive, grouped, n_folds, seed)
    fold = naive if settings["ignore_groups"] else grouped
    record = {**settings, "audit": findings, "code": code_version()}
    write_folds(folders.oof_dir, competition, fold, audit.group, record)


def measure(
    competition: Competition,
    audit: Audit,
    naive: np.ndarray,
    grouped: np.ndarray,
    n_folds: int,
    seed: int,
) -> dict[str, dict[str, Any] | None]:
    """What folds.json holds of the audit beside the counts, found with image statistics alone."""
    train, test = map(measure_statistics, (competition.train_images, competition.test_images))
    test_share = audit.counts.test_grouped / len(competition.test_ids)
    reference = measure_reference(
        train, competition.labels, audit.group, naive, grouped, test_share
    )
    names = name_statistics(competition.channels)
    shift = measure_shift(train, test, names, audit.group, audit.test_group, n_folds, seed)
    return {"reference": reference.record(), "shift": shift.record() if shift else None}


def describe_audit(record: dict[str, Any], competition: Competition) -> list[str]:
    """All that the audit found, as folds.json holds it, a line each."""
    counts = Counts.from_record(record)
    return [
        *counts.describe(len(competition.train_ids), len(competition.test_ids)),
        *Reference.from_record(record["reference"]).describe(),
        *(
            Shift.from_record(record["shift"]).describe()
            if record["shift"]
            else ["the test set is too small to tell whether it looks like the training set"]
        ),
    ]
