"""Share of simulated data sets whose 95 % intervals hold the truth.

`PYTHONPATH=src python -m benchmarks.coverage`: a quarter of an hour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from scipy.special import expit, logit

from cellline.demo.drawing import Drawing, plan_samples
from cellline.demo.run import SAMPLES_TEST, SAMPLES_TRAIN
from cellline.scoring.bootstrap import Bootstrap, Estimate, estimate
from cellline.scoring.recalls import bac_of, mean_recall, recalls, score_recalls, tally

REPEATS, REPEATS_BOOTSTRAP = 1000, 40
N_CLASSES = 9
# Of the classes in turn; reversed in every other data set.
RECALLS = np.linspace(0.6, 0.97, N_CLASSES)
# Points and weights of the mean over a standard normal variable.
POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


# BAC and recalls of labels, predictions and groups [n].
Method = Callable[[np.ndarray, np.ndarray, np.ndarray], list[Estimate]]


@dataclass(frozen=True)
class Effect:
    """The way in which samples of a group are right or wrong together."""

    correlation: float
    """Of two samples in a group, in the log odds if those are normal; 1: all are alike."""
    is_normal: bool = False
    """False if the groups' probabilities have a beta distribution, true if a logit-normal one."""
    slope: float = 0.0
    """Gain in log odds for each factor e in a group's size, of groups drawn with replacement."""


EFFECTS = [
    *(Effect(correlation) for correlation in (0.05, 0.3, 0.7, 1)),
    *(Effect(correlation, is_normal=True) for correlation in (0.3, 0.6)),
    Effect(0.3, is_normal=True, slope=0.5),
]


def structures() -> dict[str, pandas.DataFrame]:
    """Class and size of each group, by the name of the structure."""
    table = pandas.read_csv(Path(__file__).with_name("challenge_groups.csv"))
    planned = plan_samples(Drawing(SAMPLES_TRAIN, SAMPLES_TEST))
    drawn = pandas.DataFrame(list(planned.values())[:SAMPLES_TRAIN])
    fields = drawn.groupby(["cell_line", "field"], as_index=False).size()
    even = {n: np.repeat(np.arange(N_CLASSES), n) for n in (12, 24)}
    draw = np.random.default_rng(1).integers
    return {
        "the challenge": table.loc[table.index.repeat(table["groups"])],
        "one fold of it": table.loc[table.index.repeat(table["of_fold_0"])],
        "the demo": fields.assign(**{"class": pandas.factorize(fields["cell_line"])[0]}),
        **{
            f"{n} groups a class": pandas.DataFrame({"class": own, "size": draw(1, 21, len(own))})
            for n, own in even.items()
        },
    }


def simulate(
    structure: pandas.DataFrame, recall: np.ndarray, effect: Effect, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and groups [n] of a data set; and the true recalls [class].

    These are `recall`, or near it where log odds are normal.
    """
    label, size = structure["class"].to_numpy(), structure["size"].to_numpy()
    truth, correlation = recall, effect.correlation
    if effect.is_normal:
        deviation = np.sqrt(correlation / (1 - correlation)) * np.pi / np.sqrt(3)
        middle = logit(recall)[label] + effect.slope * (np.log(size) - 1)
        expected = expit(middle[:, None] + deviation * POINTS) @ WEIGHTS / WEIGHTS.sum()
        truth = np.bincount(label, size * expected) / np.bincount(label, size)
    if effect.slope:
        drawn = [
            generator.choice(own, len(own)) for own in structure.groupby("class").indices.values()
        ]
        label, size, middle = (of[np.concatenate(drawn)] for of in (label, size, middle))
    if effect.is_normal:
        chance = expit(middle + deviation * generator.normal(size=len(size)))
    elif correlation < 1:
        both = (1 - correlation) / correlation
        chance = generator.beta(recall[label] * both, (1 - recall[label]) * both)
    else:
        chance = (generator.random(len(size)) < recall[label]).astype(float)
    group = np.repeat(np.arange(len(size)), size)
    labels = label[group]
    right = generator.random(len(group)) < chance[group]
    return labels, np.where(right, labels, (labels + 1) % N_CLASSES), group, truth


def by_bootstrap(labels: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> list[Estimate]:
    """Percentile intervals of a bootstrap over groups."""
    cells = tally(labels, predicted, N_CLASSES)
    whole, draws = cells.sum(axis=0), Bootstrap(group).sums(cells)
    return [
        estimate(bac_of(whole), bac_of(draws)),
        *map(estimate, recalls(whole), recalls(draws).T),
    ]


def by_formula(labels: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> list[Estimate]:
    """The intervals that this program prints."""
    found = score_recalls(labels, predicted, group, N_CLASSES)
    return [mean_recall(found), *found]


def measure(
    structure: pandas.DataFrame, effect: Effect, method: Method, repeats: int
) -> np.ndarray:
    """Share of data sets whose interval holds the truth, of BAC and each recall [1 + class]."""
    generator = np.random.default_rng(0)
    held = np.zeros(1 + N_CLASSES)
    for repeat in range(repeats):
        recall = RECALLS[:: 1 if repeat % 2 else -1]
        *data, truth = simulate(structure, recall, effect, generator)
        both = zip(method(*data), (truth.mean(), *truth), strict=True)
        held += [found.low <= true <= found.high for found, true in both]
    return held / repeats


if __name__ == "__main__":
    print("| structure | correlation | BAC | recalls (the worst) | bootstrap: BAC | recalls |")
    print("|---|---|---|---|---|---|")
    for name, structure in structures().items():
        for effect in EFFECTS:
            cells = []
            for method, repeats in ((by_formula, REPEATS), (by_bootstrap, REPEATS_BOOTSTRAP)):
                bac, *own = 100 * measure(structure, effect, method, repeats)
                cells += [f"{bac:.1f}", f"{np.mean(own):.1f} ({min(own):.1f})"]
            kind = f"{effect.correlation:g}, {'normal' if effect.is_normal else 'beta'}"
            print(f"| {name} | {kind}{', size' if effect.slope else ''} | {' | '.join(cells)} |")
