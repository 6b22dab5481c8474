"""The page: its sections in order, laid out by the template."""

import os
from pathlib import Path

import numpy as np

from cellline.config import Config
from cellline.data.problems import name_first
from cellline.errors import UserError
from cellline.host.files import write_bytes
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.report.auditing import audit_section, likeness_section
from cellline.report.calibrating import calibration_section
from cellline.report.explanations import explanations_section
from cellline.report.learning import learning_section, tuning_section
from cellline.report.provenance import settings_section
from cellline.report.samples import samples_section
from cellline.report.scores import classes_section, scores_section
from cellline.report.trials import TuningHistory, read_study
from cellline.report.words import MEANINGS, count, name_folds, sentence
from cellline.runs.folds import describe_choice, open_folds
from cellline.runs.run import Run, open_run
from cellline.scoring.leaderboard import PUBLIC_SHARE
from cellline.submitting.decision import Expected, expect, hold_out
from cellline.submitting.words import describe_expected


def write_report(
    config: Config, storage: str | None = None, public_share: float = PUBLIC_SHARE
) -> Path:
    """Write `report.html` into the folder of the run that `config` names; return its path.

    The study is read from `storage`, or from the OOF folder. `public_share` of the test samples are
    on the public leaderboard. The same files give the same bytes.
    Raises UserError, see `open_finished` and `read_study`.
    """
    # Whatever it was: matplotlib does not start with one that it lacks, and the page needs none.
    os.environ["MPLBACKEND"] = "svg"
    run = open_finished(config)
    samples = hold_out([run.oof])
    expected = expect(samples)
    path = run.folder / "report.html"
    study = read_study(config.folders.oof_dir, run.folds.digest, storage)
    page = compose(run, expected, study, public_share)
    with one_writer(run.folder, "writing the report", wait=10):
        write_bytes(path, page.encode())
    for line in describe_expected(expected, samples, len(run.folds.fold)):
        say(line)
    say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return path


def open_finished(config: Config) -> Run:
    """The run that `config` names, with at least one fold finished.

    Raises UserError as `open_folds` and `open_run` do, if no fold is finished, and if no finished
    fold holds some class.
    """
    run = open_run(config, open_folds(config.folders, config.reading))
    if not run.finished:
        raise UserError(
            f"no fold of {run.folder} is finished, so there is nothing to report; train the first:"
            f"\n  {run.command(0)}"
        )
    absent = np.setdiff1d(np.arange(len(run.competition.classes)), run.oof.labels)
    if len(absent):
        names = name_first([run.class_names[index] for index in absent])
        raise UserError(
            f"the finished folds of {run.folder} hold no sample of {names}, so there is no "
            f"score of all classes yet; train the next:\n  {run.command(run.missing[0])}"
        )
    return run


def compose(
    run: Run, expected: Expected, study: TuningHistory | None, public_share: float = PUBLIC_SHARE
) -> str:
    """The page of a run, with its expected scores and the tuning; all text is escaped."""
    # Imported here because no other verb needs it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (count, name_folds, sentence)
    environment.filters.update({function.__name__: function for function in filters})
    sections = [
        scores_section(run, expected, public_share),
        classes_section(run),
        learning_section(run),
        explanations_section(run),
        samples_section(run),
        calibration_section(run),
        audit_section(run),
        likeness_section(run),
        tuning_section(run, study),
        settings_section(run),
    ]
    sections = [section for section in sections if section.blocks]
    template = environment.get_template("template.html")
    choice = describe_choice(run.config.folders.oof_dir, run.folds)
    return template.render(
        run=run,
        metric=run.folds.metric,
        meaning=MEANINGS[run.folds.metric.name],
        expected=expected,
        choice=choice,
        sections=sections,
    )
