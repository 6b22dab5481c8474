"""Classes, metric and submission content of a competition."""

from collections.abc import Sequence
from dataclasses import replace

from cellline.config import MetricName, Output, Reading
from cellline.data.ids import parse_number
from cellline.data.layout import Layout
from cellline.data.problems import NAMED, Problems, brief, name_first
from cellline.data.tables import quote
from cellline.errors import Caution

# Labels that mean yes.
_POSITIVE = ("1", "1.0", "true", "yes")
# The metric where none is named: what is most often asked of such a submission.
_USUAL: dict[Output, MetricName] = {
    "label": "balanced_accuracy",
    "probability": "roc_auc",
    "probabilities": "log_loss",
    "top5": "map5",
}


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
    outputs = [name for name in layout.template_columns if name != reading.template_id_column]
    output = reading.output or guess_output(layout, outputs, classes)
    reading = replace(reading, output=output, metric=reading.metric or _USUAL[output])
    if layout.test is not None:
        check_template(reading, outputs, classes, problems)
        if output == "probability" and reading.positive is None:
            reading = replace(reading, positive=find_positive(reading, classes, problems))
    if reading.positive is not None and reading.positive not in classes:
        problems.note(layout.train.name, f"has no class {quote(reading.positive)} (--positive)")
    return reading


def check_template(
    reading: Reading, outputs: Sequence[str], classes: Sequence[str], problems: Problems
) -> None:
    """Note a template that doesn't suit the classes, the output or the metric."""
    name, lacking = reading.template or "", [of for of in classes if of not in outputs]
    several = reading.output == "probabilities"
    if len(outputs) > 1 and (not several or len(lacking) == len(classes)):
        problems.note(
            name,
            f"neither one column to fill in nor one for each class: {brief(', '.join(outputs))}",
            "If another table is the template, name it with --template.",
        )
    elif several and lacking:
        shown = name_first(list(map(quote, lacking)))
        problems.note(name, f"without a column for {len(lacking)} of the classes: {shown}")
    if reading.output == "label" and reading.metric in ("roc_auc", "log_loss", "map5"):
        problems.note(
            name,
            f"--metric {reading.metric} can't be scored by a single label a sample",
            "Say what the template asks for with --output.",
        )
    spaced = [of for of in classes if len(of.split()) > 1]
    if reading.output == "top5" and spaced:
        shown = name_first(list(map(quote, spaced)))
        problems.note(name, f"separates labels by spaces, which classes have as well: {shown}")


def find_positive(reading: Reading, classes: Sequence[str], problems: Problems) -> str | None:
    """Return the class whose probability is asked for; None, and a problem, if it isn't clear."""
    positive = [name for name in classes if name.lower() in _POSITIVE]
    if len(classes) == 2 and len(positive) == 1:
        return positive[0]
    shown = " or ".join(map(quote, classes[:NAMED]))
    problems.note(
        reading.template or "",
        f"asks for one probability a sample, of class {shown}",
        "Say which with --positive.",
    )
    return None


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
    known = {reading.template_id_column, *classes}
    unknown = [name for name in layout.template_columns if name not in known]
    if not unknown:
        return []
    shown = name_first(list(map(quote, unknown)))
    return [
        Caution(
            f"{reading.template} has columns for classes that training lacks ({len(unknown)}): "
            f"{shown}; they get the probability 0"
        )
    ]
