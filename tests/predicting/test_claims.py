"""Claimed labels: what is marked, how often wrongly, and tables that can't be used."""

from pathlib import Path

import numpy as np
import pytest
from test_sets import draw

from cellline.errors import UserError
from cellline.predicting.claims import Claims, judge_cultures, rank_claims, read_claims
from cellline.predicting.sets import ERROR, Held, fit_sets

CLASSES = ("A549", "HeLa", "RT4")


def judge(
    claimed: int, true: int, seed: int, n_pictures: int, n_groups: int = 60
) -> tuple[np.ndarray, bool]:
    """P-values of a culture's samples, and whether its claim is refused."""
    held = Held(*draw((n_groups,) * 3, seed))
    prob, labels, picture = draw((n_pictures,) * 3, 1000 + seed)
    own = labels == true
    claims = Claims(np.full(own.sum(), claimed), np.full(own.sum(), "flask 1"))
    ranks = rank_claims(claims, prob[own], held)
    [culture] = judge_cultures(claims, prob[own], ranks, picture[own], held)
    assert culture.claimed == claimed
    assert culture.n_samples == own.sum()
    assert culture.n_pictures == n_pictures
    assert culture.n_doubtful == np.sum(ranks <= ERROR)
    return ranks, culture.refused


@pytest.mark.parametrize(("n_pictures", "n_groups"), [(1, 60), (12, 60), (20, 10)])
def test_few_right_claims_are_refused(n_pictures: int, n_groups: int) -> None:
    judged = [
        judge(true, true, seed, n_pictures, n_groups) for seed in range(80) for true in range(3)
    ]
    # Samples of a picture are alike, and so are cultures that meet the same held-out samples.
    assert np.mean([np.mean(ranks <= ERROR) for ranks, _ in judged]) < 0.06
    assert np.mean([refused for _, refused in judged]) < 0.08


def test_wrong_claims_are_refused() -> None:
    judged = [judge(0, true, seed, 12) for seed in range(20) for true in (1, 2)]
    assert np.mean([refused for _, refused in judged]) > 0.95


def test_a_claim_outside_the_set_has_a_low_rank() -> None:
    held = Held(*draw((60, 60, 60), 0))
    prob, labels, _ = draw((40, 40, 40), 1)
    ranks = rank_claims(Claims(labels, labels.astype(str)), prob, held)
    sets = fit_sets(held.prob, held.labels, held.group)
    inside = prob[np.arange(len(labels)), labels] >= np.array(sets.thresholds)[labels]
    assert np.array_equal(ranks > ERROR, inside)


def test_a_table_of_claims_is_read_by_its_ids(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    path.write_text("sample,line,flask\nb.png,HeLa,2\na,RT4,1\nc,HeLa,2\n")
    claims = read_claims(path, ["a", "b", "c"], CLASSES)
    assert claims.labels.tolist() == [2, 1, 1]
    assert claims.culture.tolist() == ["1", "2", "2"]
    path.write_text("sample,line\nb,HeLa\na,RT4\nc,HeLa\n")
    assert read_claims(path, ["a", "b", "c"], CLASSES).culture.tolist() == ["RT4", "HeLa", "HeLa"]


def test_all_problems_of_a_table_are_said(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    path.write_text("sample,line,flask\na,HeLa,1\na,HeLa,1\nb,Vero,1\nz,RT4,2\nd,,3\n")
    with pytest.raises(UserError) as error:
        read_claims(path, ["a", "b", "c"], CLASSES)
    for problem in (
        "1 id in several rows: a",
        "1 sample without a row: c",
        "2 ids without images: d, z",
        "1 id with an empty field: d",
        "1 label unknown to the run: Vero",
        "1 culture of several labels: 1",
        "It knows A549, HeLa, RT4.",
    ):
        assert problem in str(error.value)
    for text in ("sample\na\n", "sample,line,flask,note\na,HeLa,1,fine\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="id, claimed label, culture"):
            read_claims(path, ["a"], CLASSES)
