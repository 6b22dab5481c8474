"""Dealing folds: from the input folder to audited folds on disk."""

from dataclasses import dataclass, field

from cellline.audit.findings import Findings
from cellline.audit.groups import OverlapMode, audit_copies
from cellline.audit.pictures import write_pictures
from cellline.audit.reference import measure_reference
from cellline.audit.shift import measure_shift
from cellline.audit.splitting import check_groups, deal_folds
from cellline.audit.statistics import Part, measure_statistics, name_statistics
from cellline.audit.words import describe_input
from cellline.config import Folders, Reading
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.versions import code_version
from cellline.runs.folds import (
    FOLDS,
    RECORD,
    Dealt,
    Folds,
    are_as_written,
    find_dependents,
    read_folds,
    read_folds_record,
    record_reading,
    would_change,
    write_folds,
)


@dataclass(frozen=True)
class Plan:
    """Settings that, with the input, determine the folds."""

    reading: Reading = field(default_factory=Reading)
    n_folds: int = 5
    seed: int = 0
    overlaps: OverlapMode = "auto"
    """auto: overlaps make groups as well, unless labels refute them; off: only exact copies do."""
    image_size: int | None = None
    """Side in pixels that training will see, see `Training.image_size`."""


def make_folds(folders: Folders, plan: Plan) -> Folds:
    """Check the input, audit it, write its folds, and return them.

    Raises UserError for bad input, and if folds that runs or a tuning depend on would change.
    """
    if plan.n_folds < 2:
        raise UserError(f"--folds {plan.n_folds}: at least 2 are needed")
    competition = load_competition(
        folders.input_dir, folders.cache_dir, plan.reading, plan.image_size
    )
    say(describe_input(competition))
    with one_writer(folders.oof_dir, "dealing folds"):
        deal(folders, competition, plan)
    return read_folds(folders.oof_dir, competition)


def deal(folders: Folders, competition: Competition, plan: Plan) -> None:
    """Audit the input and write its folds; keep existing ones of the same input and plan."""
    settings = {
        "n_folds": plan.n_folds,
        "seed": plan.seed,
        "classes": list(competition.classes),
        "channels": list(competition.channels),
        "reading": record_reading(competition.reading),
        "image_size": plan.image_size,
        "input_digest": competition.digest,
        "overlaps": plan.overlaps,
    }
    recorded = read_folds_record(folders.oof_dir) if (folders.oof_dir / RECORD).exists() else {}
    # Earlier versions recorded no mode.
    same = settings.items() <= {"overlaps": "auto", **recorded}.items()
    if same and are_as_written(folders.oof_dir, recorded):
        say(f"{folders.oof_dir / FOLDS} is up to date")
        return
    dependents = find_dependents(folders.oof_dir)
    # Without a record, only dealing again shows whether the folds stay the same.
    if dependents and recorded and not same:
        raise would_change(folders.oof_dir, dependents)
    say("looking for copies" + " and overlaps" * (plan.overlaps == "auto"))
    audit = audit_copies(competition, folders.oof_dir, plan.n_folds, plan.overlaps)
    check_groups(competition.labels, audit.group, competition.classes, plan.n_folds)
    naive = deal_folds(competition.labels, None, plan.n_folds, plan.seed)
    grouped = deal_folds(competition.labels, audit.group, plan.n_folds, plan.seed)
    say("measuring how much a leak would inflate the score, comparing training and test samples")
    train = Part(measure_statistics(competition.train_images), audit.group)
    test = Part(measure_statistics(competition.test_images), audit.test_group)
    names = name_statistics(competition.channels)
    test_share = audit.counts.test_grouped / len(competition.test_ids)
    findings = Findings(
        audit.counts,
        measure_reference(train, competition.labels, naive, grouped, test_share),
        measure_shift(train, test, names, plan.n_folds, plan.seed),
        audit.trust,
    )
    record = {**settings, "audit": findings.record(), "code": code_version()}
    write_folds(folders.oof_dir, competition, Dealt(grouped, audit.group, audit.pairs), record)
    write_pictures(folders.oof_dir, competition, audit.counts.shown)
