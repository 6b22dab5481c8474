"""Claimed labels: samples, and whole cultures, that don't look like what they are claimed to be.

A sample's p-value is the share of its claimed class's held-out groups that got as low a probability
of that class. The mean of a culture's p-values is compared with that of draws of held-out samples
of the class, from as many groups as the culture has pictures: crops of one picture say little more
than one of them. Of the samples, and of the cultures, whose claim is right, at most 5 % are marked
if they are as like the training samples as those are like each other.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellline.data.problems import Fault, Problems
from cellline.data.tables import TableError, read_table
from cellline.errors import UserError
from cellline.predicting.sets import ERROR, Held, rank

# Draws of a culture; the lowest p-value is 1 in 2000.
DRAWS = 1999


@dataclass(frozen=True, eq=False)
class Claims:
    """What the samples are claimed to be."""

    labels: np.ndarray
    """int64 [n]"""
    culture: np.ndarray
    """text [n]: what was grown or taken together, such as a flask or a patient"""


@dataclass(frozen=True)
class Culture:
    """A culture, compared with its claim."""

    name: str
    claimed: int
    """The class that it is claimed to be."""
    likeliest: int
    """The class with the highest mean probability."""
    n_samples: int
    n_pictures: int
    n_marked: int
    """Number of samples that don't look like the claimed class."""
    p_value: float
    """Share of draws of the claimed class that look as little like it."""

    @property
    def marked(self) -> bool:
        """True if the culture as a whole doesn't look like the claimed class."""
        return self.p_value <= ERROR


def read_claims(path: Path, ids: Sequence[str], classes: Sequence[str]) -> Claims:
    """Read a table of the samples `ids` [n], with columns in this order: id, label, culture.

    Without the third, the samples of one label are one culture. Raises UserError with every problem
    found.
    """
    try:
        table = read_table(path, path.name)
    except TableError as error:
        raise UserError(f"{path}: {error}. {error.advice}".rstrip()) from error
    if len(table.columns) < 2:
        raise UserError(f"{path}: expected two columns or three: id, claimed label, culture")
    number = {name: label for label, name in enumerate(classes)}
    rows = {row[0]: row for row in table.rows}
    labels = {row[1] for row in table.rows}
    cultures = Counter(name for name, _ in {(row[-1], row[1]) for row in table.rows})
    problems = Problems(path.parent)
    for fault, which in (
        (Fault("id", "in several rows"), [row[0] for row in table.rows if rows[row[0]] is not row]),
        (Fault("sample", "without a row"), [one for one in ids if one not in rows]),
        (Fault("id", "without images"), sorted(rows.keys() - {*ids})),
        (
            Fault("label", "unknown to the run", f"It knows {', '.join(classes)}."),
            sorted(labels - number.keys()),
        ),
        (Fault("culture", "of several labels"), [of for of, n in cultures.items() if n > 1]),
    ):
        problems.count(path.name, fault, which)
    problems.check()
    own = [rows[one] for one in ids]
    return Claims(np.array([number[row[1]] for row in own]), np.array([row[-1] for row in own]))


def rank_claims(claims: Claims, prob: np.ndarray, held: Held) -> np.ndarray:
    """P-values, float64 [n], of the claimed labels of samples with probabilities [n, class].

    A label that is left out of a sample's set has a p-value of at most 5 %.
    """
    ranks = np.empty(len(prob))
    for label in np.unique(claims.labels):
        own = claims.labels == label
        ranks[own] = rank(*held.of_class(label), prob[own, label])
    return ranks


def judge_cultures(
    claims: Claims, prob: np.ndarray, ranks: np.ndarray, picture: np.ndarray, held: Held
) -> Iterator[Culture]:
    """Yield the cultures in order of name, from samples' p-values [n] and pictures [n]."""
    for name in np.unique(claims.culture):
        own = claims.culture == name
        label = int(claims.labels[own][0])
        values, group = held.of_class(label)
        drawn = draw_means(rank(values, group, values), group, picture[own])
        mean = ranks[own].mean()
        yield Culture(
            str(name),
            label,
            likeliest=int(prob[own].mean(axis=0).argmax()),
            n_samples=int(own.sum()),
            n_pictures=len(np.unique(picture[own])),
            n_marked=int(np.sum(ranks[own] <= ERROR)),
            # Means of the same numbers may differ by rounding.
            p_value=float(1 + np.sum(drawn <= mean + 1e-12)) / (1 + DRAWS),
        )


def draw_means(values: np.ndarray, group: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Means, float64 [DRAWS], of values [n] of groups [n], drawn for each of the pictures [m].

    A draw takes a group for each picture, and from it as many samples, with replacement.
    """
    order = np.argsort(group, kind="stable")
    values = values[order]
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    generator = np.random.default_rng(0)
    total = np.zeros(DRAWS)
    for n_samples in np.unique(picture, return_counts=True)[1].tolist():
        chosen = generator.integers(len(first), size=DRAWS)
        for _ in range(n_samples):
            total += values[first[chosen] + generator.integers(size[chosen])]
    return total / len(picture)
