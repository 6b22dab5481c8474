"""Findings of the audit, and their part of folds.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from cellline.audit.groups import Counts, Own, Trust
from cellline.audit.reference import Reference
from cellline.audit.shift import Shift
from cellline.data.ids import Id


@dataclass(frozen=True)
class Findings:
    """Numbers of the audit."""

    counts: Counts
    reference: Reference
    shift: Shift | None
    """None if a part is too small to compare, or if there is no test set."""
    trust: Trust
    own: Own | None = None
    """None without groups of the user's own."""
    torn: tuple[Id, ...] = ()
    """Training samples with others of their group in another fold.

    Only folds that the user dealt, or that were dealt for an earlier test set, have any.
    """

    def record(self) -> dict[str, Any]:
        """Content of "audit" in folds.json: the counts, and beside them the rest."""
        record = asdict(self)
        return {**record.pop("counts"), **record}


def read_findings(record: Mapping[str, Any]) -> Findings:
    """Findings from the content of folds.json."""
    findings: Findings = restore(Findings, {**record["audit"], "counts": record["audit"]})
    return findings


def restore(kind: Any, value: Any) -> Any:
    """Value of type `kind` from its form in JSON: the inverse of `asdict`."""
    if isinstance(value, list):
        return tuple(restore(get_args(kind)[0], each) for each in value)
    if not isinstance(value, dict):
        return value
    if get_origin(kind) is dict:
        return {name: restore(get_args(kind)[1], each) for name, each in value.items()}
    if not is_dataclass(kind):  # a dataclass or None
        kind = get_args(kind)[0]
    hints = get_type_hints(kind)
    return kind(**{name: restore(hint, value[name]) for name, hint in hints.items()})
