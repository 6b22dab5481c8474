"""How often claims are refused: held-out samples of each class of a run, claimed as each class.

`PYTHONPATH=src python -m benchmarks.claims --run mobilenet_v2`: three minutes for the challenge's
nine classes. Cultures of 40 samples, drawn by groups from one fold, are compared with the samples
of the other folds.
"""

import sys
from collections.abc import Iterator

import numpy as np

from cellline.cli import parse_arguments
from cellline.config import Config
from cellline.predicting.claims import Claims, judge_cultures, rank_claims
from cellline.predicting.predict import calibrate
from cellline.predicting.sets import ERROR, Held
from cellline.runs.folds import open_folds
from cellline.runs.run import open_run

SIZE = 40
DRAWS = 4  # from each fold


def main(config: Config) -> None:
    """Print the share of cultures refused, and of their samples doubtful, by class and claim."""
    folds = open_folds(config.folders, config.reading, for_training=True)
    oof = open_run(config, folds).oof
    prob = calibrate(oof.prob, oof.labels, folds.metric).apply(oof.prob).prob
    classes = range(prob.shape[1])
    picture = folds.picture[oof.rows]
    generator = np.random.default_rng(0)
    # Refused, doubtful: [class, claim, culture or its samples].
    refused = np.zeros((2, len(classes), len(classes)))
    for fold in np.unique(oof.fold):
        others = oof.fold != fold
        held = Held(prob[others], oof.labels[others], oof.group[others])
        for label in classes:
            own = np.flatnonzero((oof.fold == fold) & (oof.labels == label))
            for rows in draw_cultures(own, oof.group, generator):
                for claim in classes:
                    claims = Claims(np.full(len(rows), claim), np.full(len(rows), "culture"))
                    ranks = rank_claims(claims, prob[rows], held)
                    [culture] = judge_cultures(claims, prob[rows], ranks, picture[rows], held)
                    refused[0, label, claim] += culture.refused
                    refused[1, label, claim] += np.mean(ranks <= ERROR)
    n_draws = DRAWS * len(np.unique(oof.fold))
    for what, counts in zip(("cultures refused", "samples doubtful"), refused, strict=True):
        print(f"{what} in {n_draws} draws of {SIZE} samples; rows are the truth, columns the claim")
        for name, row in zip(folds.competition.classes, counts / n_draws, strict=True):
            print(f"{name:12}" + "".join(f"{share:8.1%}" for share in row))
        right, wrong = np.eye(len(classes), dtype=bool), ~np.eye(len(classes), dtype=bool)
        print(f"right claims {counts[right].mean() / n_draws:.1%}", end=", ")
        print(f"wrong ones {counts[wrong].mean() / n_draws:.1%}\n")


def draw_cultures(
    rows: np.ndarray, group: np.ndarray, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield rows of cultures: whole groups in random order, the last one cut."""
    for _ in range(DRAWS):
        order = generator.permutation(np.unique(group[rows]))
        place = dict(zip(order.tolist(), range(len(order)), strict=True))
        turn = [place[one] for one in group[rows].tolist()]
        yield rows[np.argsort(turn, kind="stable")][:SIZE]


if __name__ == "__main__":
    main(parse_arguments(main, Config, sys.argv[1:]))
