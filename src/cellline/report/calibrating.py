"""Calibration of the run's probabilities, and the decision rule."""

from functools import partial

from cellline.host.files import digest_file
from cellline.report.content import Block, Columns, Figure, Section, Table
from cellline.report.figures import draw_reliability
from cellline.report.words import sentence
from cellline.runs.run import Run
from cellline.scoring.metrics import percent, with_interval
from cellline.submitting.calibration import calibration_error, reliability
from cellline.submitting.decision import Part, cross_fit, fit_parts, fit_rule, hold_out
from cellline.submitting.submission import read_submissions

LOOK = (
    "Dots on the diagonal keep their word: of all samples given 80 %, 80 % are right. Below it the "
    "network is too sure of itself. A dot's area is its share of the samples."
)


def calibration_section(run: Run) -> Section:
    """Reliability and calibration error before and after, the decision rule, and submissions."""
    samples = hold_out([run.oof])
    stages = {"as the network says": (LOOK, run.oof.prob)}
    if len(run.finished) > 1:
        # Fitted even if the rule omits it: calibrated probabilities have other uses.
        fitted = cross_fit(partial(fit_parts, frozenset({Part.CORRECTION})), samples)
        stages["calibrated"] = ("Each fold by a fit on the others.", fitted.prob)
    figures, rows = [], []
    for name, (note, prob) in stages.items():
        drawing = draw_reliability(name.replace(" ", "-"), reliability(run.oof.labels, prob))
        figures.append(Figure(name.capitalize(), note, drawing))
        error = calibration_error(run.oof.labels, prob, run.oof.bootstrap)
        rows.append((name, with_interval(error)))
    table = Table(
        "Expected calibration error: the mean distance between confidence and accuracy. 0 is "
        "perfect; with few samples, scatter alone gives several points.",
        ("", "error"),
        rows,
    )
    rule = [sentence(f"{trial.part}: {trial.why}") for trial in fit_rule(samples).trials]
    blocks: list[Block] = [
        Columns(figures),
        table,
        "The decision rule, as it would be for a submission of this run alone:",
        rule,
    ]
    submitted, cautions = show_submissions(run)
    return Section("calibration", "Calibration and decision", [*blocks, *submitted], cautions)


def show_submissions(run: Run) -> tuple[list[Block], list[str]]:
    """Submissions that include the run, with score, weights and reasons; and cautions."""
    blocks: list[Block] = []
    cautions = []
    for path, record in read_submissions(run.config.folders.submissions_dir):
        names = [made["run"] for made in record["runs"]]
        if run.name not in names or record["folds_digest"] != run.folds.digest:
            continue
        oof, rule = record["oof"], record["rule"]
        # None if a run had no finished fold.
        scored = f"OOF BAC {percent(oof['bac'], oof['interval'])}" if oof else "not scored"
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in rule["weights"].items())
        blocks.append(f"{path.name}, {scored}, weights: {weights}.")
        blocks.append([sentence(f"{one['part']}: {one['why']}") for one in rule["trials"]])
        if digest_file(path) != record["csv_digest"]:
            cautions.append(
                f"{path.name} has changed since it was written, and this page describes the "
                "original. Submit again to restore it."
            )
    return (["Submissions that include this run:", *blocks] if blocks else []), cautions
