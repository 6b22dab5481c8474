"""Whether the run's probabilities can be taken at their word, and what the decision rule made."""

from functools import partial

from cellline.host.files import digest_file
from cellline.report.content import Block, Bullets, Columns, Figure, Section, Table, Text
from cellline.report.figures import draw_reliability
from cellline.report.words import sentence
from cellline.runs.run import Run
from cellline.scoring.metrics import Estimate, percent
from cellline.submitting.calibration import calibration_error, reliability
from cellline.submitting.decision import Part, cross_fit, fit_parts, fit_rule, hold_out
from cellline.submitting.submission import read_submissions

LOOK = (
    "Dots on the diagonal keep their word: of all samples given 80 %, 80 % are right. Below it "
    "the network is too sure of itself. A dot's area is its share of the samples."
)


def calibration_section(run: Run) -> Section:
    """Reliability and calibration error before and after, and the parts of the decision rule."""
    labels = run.oof.labels
    samples = hold_out([run.oof])
    before = reliability(labels, run.oof.prob)
    error = calibration_error(labels, run.oof.prob, run.oof.bootstrap)
    pictures = [Figure("As the network says", LOOK, draw_reliability("before", before))]
    rows = [("as the network says", show(error))]
    if len(run.finished) > 1:
        # Fitted whether or not the rule uses it: calibration is of use beside the decision.
        fitted = cross_fit(partial(fit_parts, frozenset({Part.CORRECTION})), samples)
        after = calibration_error(labels, fitted.prob, run.oof.bootstrap)
        pictures.append(
            Figure(
                "Calibrated",
                "Each fold by what was fitted on the others.",
                draw_reliability("after", reliability(labels, fitted.prob)),
            )
        )
        rows.append(("calibrated on the other folds", show(after)))
    blocks: list[Block] = [
        Columns(pictures),
        Table(
            "Expected calibration error: how far confidence and accuracy are apart, in points, "
            "on average. 0 is perfect; of few samples, scatter alone gives several points.",
            ("", "points"),
            rows,
        ),
    ]
    blocks.append(Text("The decision rule, as make submit would make it of this run alone:"))
    blocks.append(
        Bullets([sentence(f"{trial.part}: {trial.why}") for trial in fit_rule(samples).trials])
    )
    submitted, warnings = show_submissions(run)
    return Section("calibration", "Calibration and decision", [*blocks, *submitted], warnings)


def show_submissions(run: Run) -> tuple[list[Block], list[str]]:
    """What has been submitted with this run in it, how the runs were weighed, why; warnings."""
    blocks: list[Block] = []
    warnings = []
    for path, record in read_submissions(run.config.folders.submissions_dir):
        names = [made["run"] for made in record["runs"]]
        if run.name not in names or record["folds_digest"] != run.folds.digest:
            continue
        oof, rule = record["oof"], record["rule"]
        # Of folds that were not finished there is none.
        scored = f"OOF BAC {percent(oof['bac'], oof['interval'])}" if oof else "not scored"
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in rule["weights"].items())
        blocks.append(Text(f"{path.name}, {scored}, weights: {weights}."))
        blocks.append(Bullets([f"{trial['part']}: {trial['why']}." for trial in rule["trials"]]))
        if digest_file(path) != record["csv_digest"]:
            warnings.append(
                f"{path.name} is not the file that was written: what is told of it here is of "
                "that one. make submit writes it again."
            )
    if blocks:
        blocks.insert(0, Text("What was submitted with this run in it:"))
    return blocks, warnings


def show(error: Estimate) -> str:
    """In points, with the interval."""
    return f"{100 * error.value:.1f} [{100 * error.low:.1f}, {100 * error.high:.1f}]"
