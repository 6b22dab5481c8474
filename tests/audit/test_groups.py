from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.audit.groups import Audit, Counts, audit_copies
from cellline.audit.words import describe_counts
from cellline.data.competition import Competition
from cellline.errors import Caution


@pytest.fixture
def clean(competition: Competition) -> Competition:
    """Noise, in which nothing is a copy of anything."""
    generator = np.random.default_rng(1)
    train, test = (generator.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for n in (48, 9))
    return replace(competition, train_images=train, test_images=test)


def describe(audit: Audit) -> list[str]:
    return describe_counts(audit.counts, 48, 9)


def test_nothing_is_found_where_nothing_is(clean: Competition) -> None:
    audit = audit_copies(clean, Path(), n_folds=3)
    np.testing.assert_array_equal(audit.first, clean.train_ids)
    assert len(np.unique(audit.group)) == 57
    assert audit.counts == Counts(0, 0, 0, 0, 0, 0, 0, ())
    assert not any(isinstance(line, Caution) or "kinder" in line for line in describe(audit))


def test_copies_are_counted_and_grouped(clean: Competition) -> None:
    images = clean.train_images
    images[7] = images[3]
    images[9] = np.rot90(images[3], 1, (1, 2))
    clean.test_images[0] = images[3]
    clean.test_images[1] = clean.test_images[2]
    clean.test_images[4] = images[20]
    audit = audit_copies(clean, Path(), n_folds=3)
    assert set(audit.first[[3, 7, 9]]) == {clean.train_ids[3]}
    # Ids ascend, those of test samples after those of training: each group has its first row.
    expected = np.arange(57)
    expected[[7, 9, 48 + 0]] = 3
    expected[48 + 2] = 48 + 1
    expected[48 + 4] = 20
    np.testing.assert_array_equal(audit.group, expected)
    same_ids = replace(clean, test_ids=clean.train_ids[:9])
    again = audit_copies(same_ids, Path(), n_folds=3)
    together = expected[:, None] == expected
    np.testing.assert_array_equal(again.group[:, None] == again.group, together)
    assert audit.counts == Counts(1, 3, 3, 0, 2, 0, 2, ())
    assert any("leaderboard is kinder" in line for line in describe(audit))


def test_copies_with_different_labels_are_named(clean: Competition) -> None:
    clean.train_images[40] = clean.train_images[2]
    audit = audit_copies(clean, Path(), n_folds=3)
    assert audit.counts.conflicts == ((9, 123),)
    [told] = [line for line in describe(audit) if isinstance(line, Caution)]
    assert told.startswith("groups with different labels (1): 9, 123")
