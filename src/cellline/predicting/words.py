"""Lines printed about new images."""

from collections.abc import Iterator, Sequence

import numpy as np

from cellline.host.names import align, name_classes, shorten_name
from cellline.predicting.claims import Culture
from cellline.predicting.sets import ERROR, Judged, Sets
from cellline.scoring.decisions import Decided
from cellline.scoring.recalls import mean_recall
from cellline.scoring.words import percent, with_interval


def describe_predictions(
    named: Sequence[str], decided: Decided, in_set: np.ndarray, sets: Sets, judged: Judged
) -> Iterator[str]:
    """Yield lines: how often each class was predicted, and what the sets promise."""
    classes = name_classes(named)
    counts = np.bincount(decided.predicted, minlength=len(classes))
    for name, count in zip(align(classes), counts.tolist(), strict=True):
        yield f"{name} {count:7d} {count / max(1, len(in_set)):7.1%}"
    worst = min(range(len(classes)), key=lambda label: judged.coverage[label].value)
    fewest = min(range(len(classes)), key=sets.groups.__getitem__)
    covered = mean_recall(judged.coverage)
    yield (
        f"sets hold {in_set.sum(axis=1).mean():.2f} classes on average. On held-out samples, sets "
        f"made from the other folds hold {judged.size:.2f}, and the true one in "
        f"{percent(covered.value)} ({classes[worst]}, the lowest: "
        f"{with_interval(judged.coverage[worst])})"
    )
    few = sets.thresholds[fewest] == 0
    yield (
        f"the class of the fewest groups is {classes[fewest]}: {sets.groups[fewest]}"
        + (", too few to leave it out of any set" if few else "")
    )


def describe_likeness(likeness: np.ndarray) -> str:
    """Say how many samples [n] are marked as unlike, and how many would be by chance."""
    count = int(np.sum(likeness <= ERROR))
    return (
        f"{count} of {len(likeness)} samples ({percent(count / len(likeness))}) are unlike the "
        "training images; of samples of known classes, about 5 % are marked"
    )


def describe_cultures(named: Sequence[str], cultures: Sequence[Culture]) -> Iterator[str]:
    """Yield a line for each culture."""
    classes = name_classes(named)
    for of in cultures:
        own, claimed = shorten_name(of.name), classes[of.claimed]
        verdict = "refused" if of.refused else "kept"
        what = claimed if of.name == named[of.claimed] else f"{own} as {claimed}"
        other = "" if of.likeliest == of.claimed else f"; most like {classes[of.likeliest]}"
        yield (
            f"claim {verdict}: {what} (samples {of.n_samples}, pictures {of.n_pictures}, "
            f"doubtful {of.n_doubtful}), p = {of.p_value:.4f}{other}"
        )
