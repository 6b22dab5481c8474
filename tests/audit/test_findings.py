import json

import pytest

from cellline.audit.findings import Findings, read_findings
from cellline.audit.groups import Counts
from cellline.audit.reference import Leak, Reference
from cellline.audit.shift import Shift
from cellline.scoring.metrics import Estimate

SCORE = Estimate(0.5, 0.4, 0.6, 0.05)


@pytest.mark.parametrize("leak", [None, Leak(SCORE, SCORE, 3, 4)])
@pytest.mark.parametrize("shift", [None, Shift(SCORE, {"red mean": SCORE})])
def test_findings_are_read_as_they_were_written(leak: Leak | None, shift: Shift | None) -> None:
    counts = Counts(1, 2, 3, 4, 5, 6, 7, ((1, 2), ("a", "b")))
    findings = Findings(counts, Reference(SCORE, SCORE, SCORE, leak, leak, 0.25), shift)
    assert read_findings(json.loads(json.dumps({"audit": findings.record()}))) == findings
