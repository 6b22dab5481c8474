"""The figures as a table, and as JSON with the machine that they are of."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Figure
from cellline.host.device import Device
from cellline.host.processors import count_processors
from cellline.host.versions import code_version, package_versions


@dataclass(frozen=True)
class Section:
    """Rows that were measured together."""

    title: str
    figures: list[Figure]


def describe_machine(device: Device) -> dict[str, Any]:
    """What the figures are of, and how busy others keep it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": count_processors(),
        "threads": torch.get_num_threads(),
        "device": device.name,
        "precision": device.precision,
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": package_versions(),
        "code": code_version(),
    }


def processor_name() -> str:
    """The processor's name; Linux alone tells more than its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def render_machine(machine: dict[str, Any]) -> str:
    """A line that says what the figures are of."""
    versions = machine["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['device']}, "
        f"{machine['precision']}; torch {versions['torch']}, Python {versions['python']}; "
        f"{machine['date']}; load before: {machine['load_before']}"
    )


def as_json(machine: dict[str, Any], sections: Sequence[Section]) -> dict[str, Any]:
    """All that is known, the values of every round included."""
    return {
        "machine": machine,
        "sections": [
            {
                "title": section.title,
                "figures": [
                    {**asdict(figure), "median": figure.median} for figure in section.figures
                ],
            }
            for section in sections
        ],
    }


def render_table(sections: Sequence[Section]) -> str:
    """One table in Markdown, and below it the notes on its rows."""
    rows = [["what", "median", "lowest to highest", "of the ceiling"]]
    for section in sections:
        rows.append([f"**{section.title}**", "", "", ""])
        rows += [render_row(figure) for figure in section.figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rows.insert(1, ["-" * width for width in widths])
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    notes = [
        f"- {figure.name}: {figure.note}"
        for section in sections
        for figure in section.figures
        if figure.note
    ]
    # A row that several cases have is explained once.
    return "\n".join([*lines, "", *dict.fromkeys(notes)])


def render_row(figure: Figure) -> list[str]:
    """Name, median with its unit, spread, and share of the ceiling."""
    low, high = map(digits, figure.spread)
    return [
        figure.name,
        f"{digits(figure.median)} {figure.unit}",
        f"{low} to {high}" if len(figure.values) > 1 else "",
        f"{100 * statistics.median(figure.share):.0f} %" if figure.share else "",
    ]


def digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
