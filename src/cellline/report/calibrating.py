"""Calibration of the run's probabilities, and the decision rule."""

from dataclasses import replace
from functools import partial

from cellline.errors import UserError
from cellline.host.files import digest_file
from cellline.report.content import Block, Columns, Figure, Section
from cellline.report.figures import draw_reliability
from cellline.runs.run import Run
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.calibration import binned, calibration_error, error_by_chance
from cellline.scoring.metrics import METRICS, Metric
from cellline.scoring.words import percent, with_interval
from cellline.submitting.decision import Part, Rule, cross_fit, fit_parts, fit_rule, hold_out
from cellline.submitting.submission import read_submissions
from cellline.submitting.words import explain, name_part

LOOK = (
    "Dots on the diagonal keep their word: of all samples given 80 %, 80 % are right. Below it the "
    "network is too sure of itself. A dot's area is its share of the samples. The expected "
    "calibration error is their mean distance from the diagonal. Scatter adds to it, most where "
    "groups are few."
)


def calibration_section(run: Run) -> Section:
    """Reliability before and after the correction, the decision rule, and submissions."""
    samples = hold_out([run.oof])
    stages = {"as the network says": (LOOK, run.oof.prob)}
    gains: list[Block] = []
    if len(run.finished) > 1:
        # Fitted even if the rule omits it: calibrated probabilities have other uses.
        by_log_loss = replace(samples, metric=METRICS["log_loss"])
        fitted = cross_fit(partial(fit_parts, frozenset({Part.CORRECTION})), by_log_loss)
        stages["calibrated"] = ("Each fold by a fit on the others.", fitted.prob)
        both = run.oof.decided, fitted
        gain = by_log_loss.metric.gain(run.oof.labels, both, run.oof.bootstrap)
        gains = [
            f"Calibration changes log loss by {-gain.value:+.3f} [{-gain.high:.3f}, "
            f"{-gain.low:.3f}] (less is better)."
        ]
    figures = []
    for name, (note, prob) in stages.items():
        drawing = draw_reliability(name.replace(" ", "-"), binned(run.oof.labels, prob).sum(axis=0))
        error = with_interval(calibration_error(run.oof.labels, prob, run.oof.bootstrap))
        chance = percent(error_by_chance(run.oof.labels, prob, run.oof.group))
        title = f"{name.capitalize()}: calibration error {error} ({chance} expected if perfect)"
        figures.append(Figure(title, note, drawing))
    blocks: list[Block] = [
        Columns(figures),
        *gains,
        *describe_rule(fit_rule(samples), samples.metric),
    ]
    submitted, cautions = show_submissions(run)
    return Section("calibration", "Calibration and decision", [*blocks, *submitted], cautions)


def describe_rule(rule: Rule, metric: Metric) -> list[Block]:
    """One sentence on the rule that a submission of the run would use; none without parts."""
    parts = "; ".join(
        f"{name_part(trial.part, metric)} is {explain(trial, metric)}" for trial in rule.trials
    )
    return [f"In a submission of this run alone, {parts}."] if parts else []


def show_submissions(run: Run) -> tuple[list[Block], list[str]]:
    """Submissions that include the run, with score, weights and reasons; and cautions."""
    blocks: list[Block] = []
    cautions = []
    for path, record in read_submissions(run.config.folders.submissions_dir):
        if isinstance(record, UserError):
            cautions.append(f"{record}. This page leaves it out.")
            continue
        if "rule" not in record:  # of `predict` or `export`, told to write here
            continue
        names = [made["run"] for made in record["runs"]]
        digests = record["input_digest"], record["folds_digest"]
        if run.name not in names or digests != (run.competition.digest, run.folds.digest):
            continue
        oof, rule = record["oof"], record["rule"]
        scored = "not scored"
        if oof:  # None if a run had no finished fold
            metric, score = METRICS[oof["metric"]], Estimate(**oof["scores"]["like_test"])
            scored = f"OOF {metric.title} {metric.show(score)}"
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in rule["weights"].items())
        blocks.append(f"{path.name}, {scored}, weights: {weights}.")
        if digest_file(path) != record["csv_digest"]:
            cautions.append(
                f"{path.name} has changed since it was written, and this page describes the "
                "original. To restore that, move the file away and submit again."
            )
    return (["Submissions that include this run:", *blocks] if blocks else []), cautions
