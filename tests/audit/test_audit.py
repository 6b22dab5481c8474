import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.audit.groups import Counts, audit_copies
from cellline.data.competition import Competition


@pytest.fixture
def clean(competition: Competition) -> Competition:
    """Noise, in which nothing is a copy of anything."""
    generator = np.random.default_rng(1)
    train, test = (generator.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for n in (48, 9))
    return replace(competition, train_images=train, test_images=test)


def test_nothing_is_found_where_nothing_is(clean: Competition, tmp_path: Path) -> None:
    audit = audit_copies(clean, tmp_path)
    np.testing.assert_array_equal(audit.group, clean.train_ids)
    np.testing.assert_array_equal(audit.test_group, clean.test_ids)
    assert audit.counts.record() == {
        "groups": 0,
        "grouped_samples": 0,
        "copies": 0,
        "overlapping": 0,
        "test_copies": 0,
        "test_overlapping": 0,
        "test_grouped": 0,
        "conflicts": (),
    }
    assert not any("warning" in line or "kinder" in line for line in audit.counts.describe(48, 9))


def test_copies_are_counted_and_grouped(clean: Competition, tmp_path: Path) -> None:
    images = clean.train_images
    images[7] = images[3]
    images[9] = np.rot90(images[3], 1, (1, 2))
    clean.test_images[0] = images[3]
    clean.test_images[1] = clean.test_images[2]
    audit = audit_copies(clean, tmp_path)
    assert set(audit.group[[3, 7, 9]]) == {clean.train_ids[3]}
    # A test sample is in the group of its training sample, or in one of test samples alone.
    expected = clean.test_ids.copy()
    expected[:3] = clean.train_ids[3], clean.test_ids[1], clean.test_ids[1]
    np.testing.assert_array_equal(audit.test_group, expected)
    assert (audit.counts.groups, audit.counts.grouped_samples, audit.counts.copies) == (1, 3, 3)
    assert (audit.counts.test_copies, audit.counts.test_grouped) == (1, 1)
    assert any("leaderboard is kinder" in line for line in audit.counts.describe(48, 9))
    assert audit.counts.conflicts == ()


def test_one_test_copy_of_one_sample_makes_no_training_copy(
    clean: Competition, tmp_path: Path
) -> None:
    clean.test_images[4] = clean.train_images[20]
    audit = audit_copies(clean, tmp_path)
    assert (audit.counts.copies, audit.counts.groups, audit.counts.test_copies) == (0, 0, 1)


def test_copies_with_different_labels_are_named(clean: Competition, tmp_path: Path) -> None:
    clean.train_images[40] = clean.train_images[2]
    audit = audit_copies(clean, tmp_path)
    assert audit.counts.conflicts == ((9, 123),)
    assert "warning: groups that hold different labels (1): 9, 123" in audit.counts.describe(48, 9)


def test_counts_are_read_as_they_were_written(clean: Competition, tmp_path: Path) -> None:
    clean.train_images[40] = clean.train_images[2]
    counts = audit_copies(clean, tmp_path).counts
    stored = json.loads(json.dumps({**counts.record(), "reference": {}}))
    assert Counts.from_record(stored) == counts
