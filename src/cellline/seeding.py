"""Seeds that are pure functions of what they are for."""

import numpy as np

# What a seed is for, so that no two uses share a stream.
SHUFFLE, AUGMENT, DROPOUT, TUNING, CUTMIX, PERMUTATION = range(6)


def derive_seed(*parts: int) -> int:
    """A 32-bit seed mixed from non-negative integers, e.g. (seed, purpose, epoch, sample)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
