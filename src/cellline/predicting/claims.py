"""Claimed labels: samples, and whole cultures, that don't look like what they are claimed to be.

A sample's p-value is the share of its claimed class's held-out groups that got as low a probability
of that class. A culture's mean of them is compared with draws from the held-out groups and its own
pictures together, which are alike if the claim is right. A draw takes as many groups as the culture
has pictures: crops of one picture say little more than one of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.ids import parse_id
from cellline.data.problems import Fault, Problems
from cellline.data.tables import MISSING, TableError, read_table
from cellline.errors import UserError
from cellline.host.files import digest_file
from cellline.predicting.sets import ERROR, Held, rank

# Draws of a culture; the lowest p-value is 1 in 2000.
DRAWS = 1999
UNMATCHED = "Ids must be written as in the files' names; spreadsheets drop leading zeros."


@dataclass(frozen=True, eq=False)
class Claims:
    """Claimed label and culture of each sample."""

    labels: np.ndarray
    """int64 [n]"""
    culture: np.ndarray
    """text [n]: what was grown or taken together, such as a flask or a patient"""
    digest: str = ""
    """SHA-256 of the table."""


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
    n_doubtful: int
    """Number of samples that don't look like the claimed class."""
    p_value: float
    """Share of draws that look as little like the claimed class."""

    @property
    def refused(self) -> bool:
        """True if the culture as a whole doesn't look like the claimed class."""
        return self.p_value <= ERROR

    def describe(self, classes: Sequence[str]) -> dict[str, Any]:
        """The fields, with classes by name, for a record."""
        named = {"claimed": classes[self.claimed], "likeliest": classes[self.likeliest]}
        return {**asdict(self), **named, "refused": self.refused}


def read_claims(path: Path, ids: Sequence[str], classes: Sequence[str]) -> Claims:
    """Read a table of the samples `ids` [n], with columns in this order: id, label, culture.

    Without the third, the samples of one label are one culture. Raises UserError with every problem
    found.
    """
    try:
        table = read_table(path, path.name)
    except TableError as error:
        raise UserError(f"{path}: {error}. {error.advice}".rstrip()) from error
    if not 2 <= len(table.columns) <= 3:
        raise UserError(f"{path}: expected two columns or three: id, claimed label, culture")
    number = {name: label for label, name in enumerate(classes)}
    written = [(str(parse_id(row[0], numeric=False) or row[0]), row) for row in table.rows]
    rows = dict(written)
    empty = [one for one, row in written if any(field.lower() in MISSING for field in row)]
    labels = {row[1] for row in table.rows if row[1].lower() not in MISSING}
    cultures = Counter(name for name, _ in {(row[-1], row[1]) for row in table.rows})
    problems = Problems(path.resolve().parent)
    for fault, which in (
        (Fault("id", "in several rows"), [one for one, row in written if rows[one] is not row]),
        (Fault("id", "with an empty field"), empty),
        (Fault("sample", "without a row", UNMATCHED), [one for one in ids if one not in rows]),
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
    return Claims(
        np.array([number[row[1]] for row in own]),
        np.array([row[-1] for row in own]),
        digest_file(path),
    )


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
        _, number = np.unique(group, return_inverse=True)
        both = np.concatenate([rank(values, group, values), ranks[own]])
        drawn = draw_means(both, np.concatenate([number, -1 - picture[own]]), picture[own])
        mean = ranks[own].mean()
        yield Culture(
            str(name),
            label,
            likeliest=int(prob[own].mean(axis=0).argmax()),
            n_samples=int(own.sum()),
            n_pictures=len(np.unique(picture[own])),
            n_doubtful=int(np.sum(ranks[own] <= ERROR)),
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
