"""What a competition asks for: its classes, its metric, and the content of a submission."""

from collections.abc import Sequence
from dataclasses import replace

from cellline.config import MetricName, Output, Reading
from cellline.data.ids import parse_number
from cellline.data.layout import Layout
from cellline.data.problems import NAMED, Problems, brief
from cellline.data.tables import quote
from cellline.errors import Caution

# Labels that mean yes.
_POSITIVE = ("1", "true", "yes")
# The metric where none is named: what is most often asked of such a submission.
_USUAL: dict[Output, MetricName] = {
    "label": "balanced_accuracy",
    "probability": "roc_auc",
    "probabilities": "log_loss",
    "top5": "map5",
}
RANKED = 5  # labels of a submission of ranked ones


def sort_classes(layout: Layout, problems: Problems) -> tuple[str, ...]:
    """Return the classes: sorted as text, or by value for a metric of ordered classes."""
    classes = sorted(set(layout.train.labels.values()))
    if layout.reading.metric != "quadratic_kappa":
        return tuple(classes)
    numbers = [parse_number(name) for name in classes]
    if None in numbers:
        shown = ", ".join(map(quote, classes[:NAMED]))
        problems.note(
            layout.train.name,
            f"labels are not whole numbers: {shown}",
            "Quadratic kappa needs an order of the classes: number them.",
        )
        return tuple(classes)
    return tuple(sorted(classes, key=lambda name: parse_number(name) or 0))


def find_asked(layout: Layout, classes: Sequence[str], problems: Problems) -> Reading:
    """Return the settings, with the metric, the output and its positive class."""
    reading = layout.reading
    outputs = [name for name in layout.template_columns if name != layout.template_ids]
    output = reading.output or guess_output(layout, outputs, classes)
    metric = reading.metric or _USUAL[output]
    reading = replace(reading, output=output, metric=metric)
    name = reading.template or "template"
    lacking = [of for of in classes if of not in outputs]
    if len(outputs) > 1 and (output != "probabilities" or len(lacking) == len(classes)):
        shown = brief(", ".join(outputs))
        problems.note(
            name,
            f"neither one column to fill in nor one for each class: {shown}",
            "If another table is the template, name it with --template.",
        )
    elif output == "probabilities" and lacking and layout.test is not None:
        shown = ", ".join(map(quote, lacking[:NAMED])) + ", ..." * (len(lacking) > NAMED)
        problems.note(name, f"without a column for {len(lacking)} of the classes: {shown}")
    if output == "label" and layout.test is not None and metric in ("roc_auc", "log_loss", "map5"):
        problems.note(
            name,
            f"--metric {metric} can't be scored by a single label a sample",
            "Say what the template asks for with --output.",
        )
    if output == "probability" and reading.positive is None:
        positive = [of for of in classes if of.lower() in _POSITIVE]
        if len(classes) == 2 and len(positive) == 1:
            return replace(reading, positive=positive[0])
        shown = " or ".join(map(quote, classes[:NAMED]))
        problems.note(
            name, f"asks for the probability of one class: {shown}", "Say which with --positive."
        )
    elif reading.positive is not None and reading.positive not in classes:
        problems.note(layout.train.name, f"has no class {quote(reading.positive)} (--positive)")
    return reading


def guess_output(layout: Layout, outputs: Sequence[str], classes: Sequence[str]) -> Output:
    """Return what the template seems to ask for."""
    metric = layout.reading.metric
    if len(outputs) > 1:
        return "probabilities"
    placeholders = set(layout.test.labels.values()) if layout.test is not None else set()
    words = [set(text.split()) for text in placeholders if " " in text]
    if metric == "map5" or any(of <= set(classes) for of in words):
        return "top5"
    shares = placeholders and not placeholders & set(classes) and all(map(is_share, placeholders))
    wants_probability = metric in ("roc_auc", "log_loss") and len(classes) == 2
    return "probability" if wants_probability or shares else "label"


def is_share(text: str) -> bool:
    """Tell if a text is a number from 0 to 1, written with decimals."""
    try:
        return "." in text and 0 <= float(text) <= 1
    except ValueError:
        return False


def describe_unknown(layout: Layout, reading: Reading, classes: Sequence[str]) -> list[Caution]:
    """A Caution if the template has columns for classes that training lacks."""
    if reading.output != "probabilities":
        return []
    known = {layout.template_ids, *classes}
    unknown = [name for name in layout.template_columns if name not in known]
    if not unknown:
        return []
    shown = ", ".join(map(quote, unknown[:NAMED])) + ", ..." * (len(unknown) > NAMED)
    return [
        Caution(
            f"{reading.template} has columns that no training sample is of ({len(unknown)}): "
            f"{shown}; they get the probability 0"
        )
    ]
