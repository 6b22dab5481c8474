import numpy as np
from made import make_run

from cellline.report.auditing import GROUPS, audit_section, choose_groups
from cellline.report.content import Grid, Text


def test_groups_of_different_classes_are_shown_with_copies_side_by_side() -> None:
    run = make_run()
    # A larger group of HeLa, of two pairs of copies that are not next to each other.
    run.folds.group[[2, 3, 8, 9]] = 3
    run.competition.train_images[[2, 8]] = run.competition.train_images[[2]]
    run.competition.train_images[[3, 9]] = run.competition.train_images[[4]]
    # And another of HeLa: a class is not shown twice while others wait.
    run.folds.group[[14, 15, 20, 21]] = 15
    chosen = choose_groups(run)
    assert {frozenset(chosen[0][:2]), frozenset(chosen[0][2:])} == {
        frozenset({2, 8}),
        frozenset({3, 9}),
    }
    assert len({run.competition.labels[rows[0]] for rows in chosen}) == GROUPS


def test_unrelated_samples_are_no_group() -> None:
    run = make_run()
    run.folds.group[:] = np.arange(len(run.folds.group))
    assert choose_groups(run) == []
    blocks = audit_section(run).blocks
    assert not [block for block in blocks if isinstance(block, Grid)]
    assert "No two training pictures" in blocks[-1].text


def test_a_run_on_leaky_folds_says_what_it_gained() -> None:
    def said(ignore_groups: bool) -> str:
        run = make_run(ignore_groups=ignore_groups)
        # These groups are in one fold even so: what the others' scores are compared with.
        run.folds.fold[:24] = 0
        blocks = audit_section(run).blocks
        return " ".join(block.text for block in blocks if isinstance(block, Text))

    assert "of this run, 36 samples with a copy or overlap in another fold score" in said(True)
    assert "of this run" not in said(False)
