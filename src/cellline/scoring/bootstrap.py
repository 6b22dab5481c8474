"""Estimates with intervals, and the bootstrap over groups that gives most of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

BOOTSTRAP_DRAWS = 2000
# Draws worked on at once: with 8,000 groups their 64-bit counts take 6 MB.
BLOCK = 100
BLOCKS = [slice(start, start + BLOCK) for start in range(0, BOOTSTRAP_DRAWS, BLOCK)]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    error: float
    """Standard error."""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


def estimate(value: float | np.ndarray, draws: np.ndarray) -> Estimate:
    """A scalar with the percentile interval and standard error of its bootstrap draws [draw].

    NaN draws, such as the recall of a class that was not drawn, are omitted. If all are, so is the
    interval.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Estimate(float(value), np.nan, np.nan, np.nan)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), float(np.std(draws)))


class Draws(Protocol):
    """Samples, drawn some number of times."""

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n, ...] over each draw's samples, float64 [draw, ...]."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Times that each draw has each sample, [draw, n]; a few draws at a time."""


@dataclass(frozen=True)
class Whole:
    """A single draw that has each of `n` samples once."""

    n: int

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of values [n, ...], [1, ...]."""
        total: np.ndarray = values.sum(axis=0, keepdims=True)
        return total

    def blocks(self) -> Iterator[np.ndarray]:
        """Ones, [1, n]."""
        yield np.ones((1, self.n))


class Bootstrap:
    """Samples drawn with replacement, by whole groups.

    Copies of one picture are one observation, so groups are drawn, not samples (the cluster
    bootstrap, Field and Welsh 2007). One object gives every statistic the same draws, which makes
    differences paired.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        """Draw from `groups` [n], numbers or text: samples with equal entries stay together."""
        _, self.group = np.unique(groups, return_inverse=True)
        self.n_groups = int(self.group.max()) + 1
        self.seed = seed

    @cached_property
    def counts(self) -> np.ndarray:
        """Times that each draw has each group, uint8 [draw, group]; 256 is all but impossible."""
        generator = np.random.default_rng(self.seed)
        chances = np.full(self.n_groups, 1 / self.n_groups)
        counts = np.empty((BOOTSTRAP_DRAWS, self.n_groups), np.uint8)
        for block in BLOCKS:
            counts[block] = generator.multinomial(self.n_groups, chances, size=BLOCK)
        return counts

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n, ...] over each draw's samples, float64 [draw, ...]."""
        flat = values.reshape(len(values), -1)
        by_group = np.zeros((self.n_groups, flat.shape[1]))
        np.add.at(by_group, self.group, flat)
        sums = np.concatenate([self.counts[block].astype(float) @ by_group for block in BLOCKS])
        return sums.reshape(-1, *values.shape[1:])

    def blocks(self) -> Iterator[np.ndarray]:
        """Times that each draw has each sample, uint8 [draw, n], in blocks of draws."""
        for block in BLOCKS:
            yield self.counts[block][:, self.group]

    def estimate(
        self, statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray
    ) -> Estimate:
        """A statistic of sums of values [n, ...]; it maps sums [draw, ...] to figures [draw]."""
        value = statistic(values.sum(axis=0, keepdims=True))[0]
        return estimate(value, statistic(self.sums(values)))
