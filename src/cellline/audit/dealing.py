"""Dealing folds: from the input folder to audited folds on disk."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellline.audit.findings import Findings
from cellline.audit.groups import Audit, OverlapMode, audit_copies
from cellline.audit.pictures import write_pictures
from cellline.audit.reference import choose_classes, measure_reference
from cellline.audit.shift import measure_shift
from cellline.audit.splitting import check_training, deal_folds, find_straddling, limit_folds
from cellline.audit.statistics import Part, measure_statistics, name_statistics
from cellline.audit.words import describe_input
from cellline.config import Folders, Reading, describe_differences
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import digest_text, write_json
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.versions import code_version
from cellline.runs.folds import (
    FOLDS,
    PAIRS,
    RECORD,
    Dealt,
    Folds,
    find_dependents,
    folds_in_use,
    is_as_written,
    read_deal,
    read_folds,
    read_folds_record,
    record_input,
    would_change,
    write_folds,
)
from cellline.settings_file import read_own


@dataclass(frozen=True)
class Plan:
    """Settings that, with the input, determine the folds."""

    reading: Reading = field(default_factory=Reading)
    n_folds: int = 5
    """Fewer are dealt if there are fewer groups. Folds that the user has dealt decide their number,
    and need no seed."""
    seed: int = 0
    overlaps: OverlapMode = "auto"
    """auto: overlaps make groups as well, unless labels refute them; off: only exact copies do."""
    image_size: int | None = None
    """Side in pixels that training will see, see `Training.image_size`."""


def make_folds(folders: Folders, plan: Plan) -> Folds:
    """Check the input, audit it, write its folds, and return them.

    Raises UserError for bad input, and if folds that runs or a tuning depend on would change. A new
    test set leaves such folds as they are, and only renews the audit.
    """
    reading = keep_metric(folders.oof_dir, plan.reading)
    competition = load_competition(folders.input_dir, folders.cache_dir, reading, plan.image_size)
    for line in describe_input(competition):
        say(line)
    with one_writer(folders.oof_dir, "dealing folds"):
        deal(folders, competition, plan)
    return read_folds(folders.oof_dir, competition)


def keep_metric(oof_dir: Path, reading: Reading) -> Reading:
    """The settings, with the recorded metric if none is given and runs were scored by it."""
    recorded = read_folds_record(oof_dir) if (oof_dir / RECORD).exists() else {}
    if reading.metric is None and find_dependents(oof_dir) and "metric" in recorded:
        return replace(reading, metric=recorded["metric"])
    return reading


def deal(folders: Folders, competition: Competition, plan: Plan) -> None:
    """Audit the input and write its folds; keep existing ones of the same input and plan."""
    if competition.own_fold is not None:
        plan = replace(plan, n_folds=int(competition.own_fold.max()) + 1, seed=0)
        if plan.n_folds < 2:
            column = competition.reading.folds_column
            raise UserError(f"--folds-column {column}: it has a single value, 2 folds are needed")
    settings, of_test = determine(competition, plan)
    own = read_own(folders.input_dir).of_reading
    given = {"image_size": plan.image_size, "settings_file": own}
    path, record_path = folders.oof_dir / FOLDS, folders.oof_dir / RECORD
    recorded = read_folds_record(folders.oof_dir) if record_path.exists() else {}
    same = settings.items() <= recorded.items()
    written = is_as_written(path, recorded)
    audited = of_test.items() <= recorded.items()
    if same and audited and written and is_as_written(folders.oof_dir / PAIRS, recorded):
        if recorded != (record := {**recorded, **record_input(competition), **given}):
            write_json(record_path, record)
        say(f"{path} is up to date")
        return
    used = folds_in_use(folders.oof_dir)
    dependents = [name for name, digest in used.items() if digest == recorded.get("folds_digest")]
    # What depends on other folds than the recorded ones is for `write_folds`: only dealing again
    # shows whether these are its own.
    if dependents and not same:
        then = {name: recorded.get(name) for name in settings}
        changes = f" ({describe_differences(then, settings)})"
        raise would_change(folders.oof_dir, dependents, changes)
    say("looking for copies" + " and overlaps" * (plan.overlaps == "auto"))
    audit = audit_copies(competition, folders.oof_dir, plan.n_folds, plan.overlaps)
    if used and same and written:
        fold, group = read_deal(path, competition)
    elif competition.own_fold is not None:
        fold, group = competition.own_fold, audit.first
    else:
        group, n_folds = audit.first, limit_folds(audit.first, plan.n_folds)
        fold = deal_folds(competition.labels, group, n_folds, plan.seed)
    plan = replace(plan, n_folds=int(fold.max()) + 1)
    check_training(competition.labels, fold, competition.classes)
    compared = ", comparing training and test samples" * bool(len(competition.test_ids))
    say(f"measuring how much a leak would inflate the score{compared}")
    findings = measure(competition, audit, fold, plan)
    record = {
        **settings,
        **of_test,
        "n_folds": plan.n_folds,
        **given,
        "audit": findings.record(),
        "code": code_version(),
    }
    write_folds(folders.oof_dir, competition, Dealt(fold, group, audit.pairs), record)
    write_pictures(folders.oof_dir, competition, audit.counts.shown)


def determine(competition: Competition, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of folds.json that the folds follow from, and content that only the audit needs."""
    own, own_fold = competition.own_group, competition.own_fold
    of_training = competition.own_train_group
    settings = {
        "folds": plan.n_folds,
        "seed": plan.seed,
        "classes": list(competition.classes),
        "channels": list(competition.channels),
        "input_digest": competition.digest,
        "own_groups": None if of_training is None else digest_parts(of_training),
        "own_folds": None if own_fold is None else digest_parts(own_fold),
        "overlaps": plan.overlaps,
    }
    of_test = {
        "test_digest": competition.test_digest,
        "test_groups": None if own is None else digest_parts(own),
    }
    return settings, of_test


def measure(competition: Competition, audit: Audit, fold: np.ndarray, plan: Plan) -> Findings:
    """Measure what a leak would add to the score on these folds, and the shift of the test set."""
    labels, shift = competition.labels, None
    group, test_group = np.split(audit.group, [len(labels)])
    train = Part(measure_statistics(competition.train_images), group)
    if len(competition.test_ids):
        test = Part(measure_statistics(competition.test_images), test_group)
        columns = name_statistics(competition.channels)
        shift = measure_shift(train, test, columns, plan.n_folds, plan.seed)
    naive = deal_folds(labels, None, plan.n_folds, plan.seed)
    test_share = float(np.isin(test_group, group).sum() / max(len(test_group), 1))
    few = choose_classes(labels)
    names, number = np.unique(labels[few], return_inverse=True)
    if not few.all():
        say(f"of {len(competition.classes)} classes {len(names)} are enough for that")
    seen = Part(train.statistics[few], group[few])
    reference = measure_reference(seen, number, naive[few], fold[few], test_share)
    torn = competition.train_ids[find_straddling(group, fold)]
    return Findings(audit.counts, reference, shift, audit.trust, audit.own, tuple(torn.tolist()))


def digest_parts(part: np.ndarray) -> str:
    """Digest of how samples [n] are parted; other numbers in the same order change nothing."""
    _, number = np.unique(part, return_inverse=True)
    return digest_text(json.dumps(number.tolist()))
