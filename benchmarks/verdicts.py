"""Share of comparisons of a recipe with itself, by other seeds, that call a difference clear.

`PYTHONPATH=src python -m benchmarks.verdicts`: ten minutes.
"""

import numpy as np
import pandas
from scipy.special import ndtri

from benchmarks.coverage import N_CLASSES, RECALLS, structures
from cellline.scoring.bootstrap import Bootstrap
from cellline.scoring.comparison import compare_predictions
from cellline.scoring.metrics import METRICS

REPEATS = 200
# Standard deviations of the parts of a sample's score, which is right if above 0: what is hard for
# all networks, of groups and samples; and the same for each network.
GROUP, SAMPLE, OWN_GROUP, OWN_SAMPLE = np.sqrt([0.3, 0.4, 0.1, 0.2])
# That of a network's bent for a class. With these, seeds differ by 1.0, 1.3, 2.0 and 3.5 points of
# BAC (standard deviation) on one fold of the challenge.
BENTS = (0.0, 0.1, 0.2, 0.4)


def false_verdicts(
    structure: pandas.DataFrame, n_folds: int, bent: float, n_seeds: int, repeats: int
) -> float:
    """Share of clear differences between two sides of `n_seeds` networks of one recipe.

    Groups are dealt into folds at random, and each seed trains a network for each fold.
    """
    generator = np.random.default_rng(0)
    size = structure["size"].to_numpy()
    group = np.repeat(np.arange(len(size)), size)
    labels = structure["class"].to_numpy()[group]
    fold = generator.integers(n_folds, size=len(size))[group]
    bootstrap = Bootstrap(group)

    def noise(of_group: float, of_sample: float) -> np.ndarray:
        by_group = of_group * generator.normal(size=len(size))
        return by_group[group] + of_sample * generator.normal(size=len(group))

    clear = 0
    for _ in range(repeats):
        common = ndtri(RECALLS)[labels] + noise(GROUP, SAMPLE)
        probs = []
        for _ in range(2 * n_seeds):
            bents = bent * generator.normal(size=(n_folds, N_CLASSES))
            right = common + noise(OWN_GROUP, OWN_SAMPLE) + bents[fold, labels] > 0
            probs.append(np.eye(N_CLASSES)[np.where(right, labels, (labels + 1) % N_CLASSES)])
        clear += compare_predictions(
            METRICS["balanced_accuracy"], labels, probs[::2], probs[1::2], bootstrap
        ).is_clear
    return clear / repeats


def cases() -> dict[str, tuple[pandas.DataFrame, int]]:
    """Groups that are compared and the number of folds that they are in, by name."""
    found = structures()
    challenge = found["the challenge"]
    return {
        "one fold of the challenge": (found["one fold of it"], 1),
        "two folds": (challenge.sample(frac=0.4, random_state=0), 2),
        "five folds": (challenge, 5),
        "the demo, three folds": (found["the demo"], 3),
    }


if __name__ == "__main__":
    print("| compared | bent | one seed a side | three seeds a side |\n|---|---|---|---|")
    for name, (structure, n_folds) in cases().items():
        for bent in BENTS:
            shares = [false_verdicts(structure, n_folds, bent, n, REPEATS) for n in (1, 3)]
            print(f"| {name} | {bent:g} |", " | ".join(f"{100 * x:.1f} %" for x in shares), "|")
