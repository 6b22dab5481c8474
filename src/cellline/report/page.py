"""The page: its sections in order, laid out by the template."""

from pathlib import Path

from cellline.config import Config
from cellline.host.files import write_bytes
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.report.auditing import audit_section
from cellline.report.calibrating import calibration_section
from cellline.report.headline import write_headline
from cellline.report.honesty import honesty_section, tuning_section
from cellline.report.learning import learning_section
from cellline.report.likeness import likeness_section
from cellline.report.provenance import settings_section
from cellline.report.run import open_finished
from cellline.report.samples import samples_section
from cellline.report.scores import classes_section, score_run, scores_section
from cellline.report.trials import TuningHistory, read_study
from cellline.report.words import name_folds
from cellline.runs.folds import IGNORING_GROUPS
from cellline.runs.run import Run
from cellline.scoring.metrics import Scores, with_interval

TEMPLATE = "template.html"


def write_report(config: Config, storage: str | None = None) -> Path:
    """Write `report.html` into the folder of the run that `config` names; its path.

    The study is read from `storage`, as `make tune` was told. The same files give the same bytes.
    Raises UserError, see `open_run` and `read_study`.
    """
    run = open_finished(config)
    scores = score_run(run)
    path = run.folder / "report.html"
    page = compose(run, scores, read_study(config.folders.oof_dir, run.folds.digest, storage))
    with one_writer(run.folder, "writing the report", wait=10):
        write_bytes(path, page.encode())
    if run.folds.ignore_groups:
        say(IGNORING_GROUPS)
    say(
        f"OOF BAC of {run.name} on {name_folds(run.finished)} of {run.folds.n_folds}: "
        f"{with_interval(scores.bac)} (95 % interval)"
    )
    say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return path


def compose(run: Run, scores: Scores, study: TuningHistory | None) -> str:
    """The page of a run, of its scores, and of what was tuned beside it."""
    sections = [
        scores_section(run, scores),
        classes_section(run, scores),
        learning_section(run),
        samples_section(run),
        calibration_section(run),
        audit_section(run),
        likeness_section(run),
        tuning_section(study),
        honesty_section(run, study),
        settings_section(run),
    ]
    return render(headline=write_headline(run, scores), sections=sections)


def render(**content: object) -> str:
    """The template filled in; all text is escaped, class names may hold anything."""
    # Imported where it is used: the other verbs have no use for it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(**content)
