"""Expected scores on a leaderboard, simulated from out-of-fold predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cellline.scoring.bootstrap import Estimate, estimate
from cellline.scoring.decisions import Decided
from cellline.scoring.metrics import Metric

# A common share; a competition's leaderboard page states its own.
PUBLIC_SHARE = 0.3
DRAWS = 500
# Draws worked on at once: with 8,000 samples their weights take 6 MB.
BLOCK = 100


@dataclass(frozen=True)
class Leaderboard:
    """Expected scores of submissions on both parts of a test set."""

    public: tuple[Estimate, ...]
    """One for each run."""
    private: tuple[Estimate, ...]
    ahead_public: float
    """Chance that the last run is better than the first on the public part."""
    ahead_private: float
    swap: float
    """Chance that one of them is ahead on the public part and the other on the private part."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws with times [draw, n] that each has each sample."""

    times: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n, ...] over each draw's samples, [draw, ...]."""
        # Sums of flags are exact in float32, which is twice as fast.
        precision = np.result_type(values, np.float32)
        flat = values.reshape(len(values), -1).astype(precision)
        sums: np.ndarray = self.times.astype(precision) @ flat
        return sums.reshape(-1, *values.shape[1:])

    def blocks(self) -> Iterator[np.ndarray]:
        """The times, in one block."""
        yield self.times


@dataclass(frozen=True, eq=False)
class SimulatedTests:
    """Test sets that are drawn by groups from out-of-fold samples.

    A test set has as many groups, thinned at random to the rates, and its samples are split at
    random. What the out-of-fold score itself doesn't know is included: each test set is drawn from
    a bootstrap draw of the groups.
    """

    group: np.ndarray
    """[n], numbers or text"""
    rate: np.ndarray
    """float64 [n]: expected count of each sample in a test set"""
    public_share: float = PUBLIC_SHARE

    def draw(self) -> Iterator[tuple[Weighted, Weighted]]:
        """Public and private parts, a few draws at a time."""
        _, number = np.unique(self.group, return_inverse=True)
        n_groups = int(number.max()) + 1
        even = np.full(n_groups, 1 / n_groups)
        copies = int(np.ceil(self.rate.max()))
        generator = np.random.default_rng(0)
        for _ in range(0, DRAWS, BLOCK):
            truth = generator.multinomial(n_groups, even, size=BLOCK) / n_groups
            counts = generator.multinomial(n_groups, truth)[:, number]
            tested = generator.binomial(counts * copies, self.rate / copies)
            shown = generator.binomial(tested, self.public_share)
            yield Weighted(shown), Weighted(tested - shown)


def simulate_leaderboard(
    metric: Metric, labels: np.ndarray, runs: Sequence[Decided], test_sets: SimulatedTests
) -> Leaderboard:
    """Score the decisions of runs for labels [n] on both parts of drawn test sets."""
    blocks = [
        [[metric.measure(labels, decided, None, part) for decided in runs] for part in parts]
        for parts in test_sets.draw()
    ]
    draws = np.concatenate(blocks, axis=2, dtype=float)  # [part, run, draw]
    values = [metric.score(labels, decided, test_sets.rate) for decided in runs]
    public, private = (
        tuple(estimate(value, of) for value, of in zip(values, part, strict=True)) for part in draws
    )
    # Nobody is ahead where a part has no score, such as the ROC AUC of a single class.
    ahead = np.sign(draws[:, -1] - draws[:, 0]) * metric.sign
    on_public, on_private = np.mean(ahead > 0, axis=1).tolist()
    swap = float(np.mean(ahead.prod(axis=0) < 0))
    return Leaderboard(public, private, on_public, on_private, swap)
