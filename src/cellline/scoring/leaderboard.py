"""Expected scores on a leaderboard, simulated from out-of-fold predictions."""

from dataclasses import dataclass

import numpy as np

from cellline.errors import UserError
from cellline.scoring.bootstrap import Estimate, estimate
from cellline.scoring.recalls import mean_of_classes

# A common share; a competition's leaderboard page states its own.
PUBLIC_SHARE = 0.3
DRAWS = 500
# Draws worked on at once: with 8,000 samples their weights take 6 MB.
BLOCK = 100


@dataclass(frozen=True)
class Leaderboard:
    """Expected balanced accuracy of submissions on both parts of a test set."""

    public: tuple[Estimate, ...]
    """One for each run."""
    private: tuple[Estimate, ...]
    ahead_public: float
    """Chance that the last run scores higher than the first on the public part."""
    ahead_private: float
    swap: float
    """Chance that one of them is ahead on the public part and the other on the private part."""


def simulate_leaderboard(
    labels: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    rate: np.ndarray,
    public_share: float = PUBLIC_SHARE,
) -> Leaderboard:
    """Score runs on test sets that are drawn by groups from out-of-fold samples.

    `labels` and `group` are [n], `predicted` [run, n]; `rate` [n] is how often a sample is in a
    test set on average. A test set has as many groups, thinned at random to these rates, and its
    samples are split at random. What the out-of-fold score itself doesn't know is included: each
    test set is drawn from a bootstrap draw of the groups. Raises
    UserError unless `public_share` is between 0 and 1.
    """
    if not 0 < public_share < 1:
        raise UserError(f"--public-share {public_share:g}: must be more than 0 and less than 1")
    n_classes = int(max(labels.max(), predicted.max())) + 1
    is_class = np.eye(n_classes)[labels]
    # Columns: right by run and class, then all by class.
    right = [is_class * (own == labels)[:, None] for own in predicted]
    columns = np.concatenate([*right, is_class], axis=1).astype(np.float32)
    _, number = np.unique(group, return_inverse=True)
    n_groups = int(number.max()) + 1
    generator = np.random.default_rng(0)
    copies = int(np.ceil(rate.max()))
    kept = rate / copies
    draws = np.empty((DRAWS, 2, len(predicted)))
    for start in range(0, DRAWS, BLOCK):
        even = np.full(n_groups, 1 / n_groups)
        truth = generator.multinomial(n_groups, even, size=BLOCK) / n_groups
        counts = generator.multinomial(n_groups, truth)[:, number]
        tested = generator.binomial(counts * copies, kept)
        shown = generator.binomial(tested, public_share)
        for part, weights in enumerate((shown, tested - shown)):
            sums = (weights.astype(np.float32) @ columns).reshape(BLOCK, -1, n_classes)
            with np.errstate(invalid="ignore"):  # a class may not be drawn
                recalls = sums[:, :-1] / sums[:, -1:]
            draws[start : start + BLOCK, part] = mean_of_classes(recalls)
    public, private = (
        tuple(
            estimate(mean_of_classes(rate @ of_run / (rate @ is_class)), of)
            for of_run, of in zip(right, part.T, strict=True)
        )
        for part in np.moveaxis(draws, 1, 0)
    )
    ahead = np.sign(draws[..., -1] - draws[..., 0])
    on_public, on_private = np.mean(ahead > 0, axis=0).tolist()
    swap = float(np.mean(ahead.prod(axis=1) < 0))
    return Leaderboard(public, private, on_public, on_private, swap)
