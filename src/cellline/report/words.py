"""Words for numbers, and lines as sentences."""

from collections.abc import Mapping, Sequence

from cellline.config import MetricName
from cellline.errors import Caution

MEANINGS: Mapping[MetricName, str] = {
    "balanced_accuracy": "Balanced accuracy (BAC): the mean over the classes of recall, the share "
    "of a class that is recognized.",
    "accuracy": "Accuracy: the share of all samples that are right.",
    "macro_f1": "Macro F1: the mean over the classes of the F1 score, which counts what is missed "
    "of a class and what is wrongly taken for it.",
    "log_loss": "Log loss: the mean of minus the logarithm of the probability given to the true "
    "class. Less is better; 0 is perfect.",
    "roc_auc": "ROC AUC: the chance that a sample of a class is ranked above one of another, the "
    "area under the receiver operating characteristic. With more than two classes, the mean over "
    "each of them against the rest.",
    "quadratic_kappa": "Quadratic weighted kappa: agreement with the labels. A mistake costs the "
    "square of its distance in ordered classes; 1 is perfect, 0 is chance.",
    "map5": "Mean average precision at 5 (MAP@5): the mean of 1 / rank of the true class among the "
    "likeliest five, and 0 beyond.",
}


def count(number: int, what: str) -> str:
    """Format a number of things, such as '1 trial' or '12 trials'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def name_folds(folds: Sequence[int]) -> str:
    """Name folds, such as 'fold 0' or 'folds 0, 1 and 4'."""
    *others, last = map(str, folds)
    return f"folds {', '.join(others)} and {last}" if others else f"fold {last}"


def sentence(line: str) -> str:
    """A line as a sentence: with a capital and a full stop."""
    return f"{line[0].upper()}{line[1:]}."


def split_cautions(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sentences of the plain lines, and those of the cautions among them."""
    plain = [sentence(line) for line in lines if not isinstance(line, Caution)]
    return plain, [sentence(line) for line in lines if isinstance(line, Caution)]
