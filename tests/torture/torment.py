"""Chains of kills: a verb is killed, started again, killed again, and at last compared."""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import Ended, Kill, half_written, snapshot
from launcher import BEGUN, DECODING, JOURNAL, REMOVING, RENAMING, SYNCING, WRITING
from scenes import Scene

# Moments of a save that are hit as they come, and such that begin a write, which is hit within so
# many seconds.
MOMENTS = (RENAMING, SYNCING, REMOVING)
WRITES = (WRITING, JOURNAL, DECODING)
SECONDS = (2e-5, 8e-3)

# So many kills before what is left is compared.
CHAIN = 5

HEADER = "verb     kills  inside a save  SIGTERM  chains  identical   where the kills struck"


@dataclass
class Toll:
    """What kills have struck, and how what was killed ended."""

    struck: Counter[str] = field(default_factory=Counter)
    """Kills by what they hit."""
    inside: int = 0
    """Kills within a save: of which a half-written file, or another trace, gives proof."""
    asked: int = 0
    """How many lives SIGTERM ended between the kills."""
    chains: int = 0
    identical: int = 0
    lost: list[str] = field(default_factory=list)
    """Chains that ended otherwise than undisturbed, and how."""

    @property
    def kills(self) -> int:
        return sum(self.struck.values())

    def row(self, verb: str) -> str:
        """A line of the table under HEADER."""
        struck = "  ".join(f"{kind} {count}" for kind, count in sorted(self.struck.items()))
        return (
            f"{verb:<8}{self.kills:>6}{self.inside:>15}{self.asked:>9}{self.chains:>8}"
            f"{self.identical:>11}   {struck}"
        )

    def judge(self, scene: Scene, place: Path, ended: Ended) -> None:
        """Compare what a verb left that came to its end with what it leaves undisturbed."""
        self.chains += 1
        found = snapshot(place)
        if ended.status == 0 and found == scene.expected:
            self.identical += 1
            shutil.rmtree(place)
            return
        differ = [
            name
            for name in sorted(found.keys() | scene.expected.keys())
            if found.get(name) != scene.expected.get(name)
        ]
        self.lost.append(f"{place}: status {ended.status}, differs in {differ}\n{ended.printed}")

    def add(self, other: "Toll") -> None:
        self.struck += other.struck
        self.inside += other.inside
        self.asked += other.asked
        self.chains += other.chains
        self.identical += other.identical
        self.lost += other.lost


def take_aims(generator: random.Random, scene: Scene) -> Iterator[Kill]:
    """What to do to a verb, life after life, without end.

    In turn a kill at any time after its start-up; one in a save, that is, while a file is written,
    before it is renamed, or before the folder is flushed; and SIGTERM, after which it saves: of a
    training within an epoch.
    """
    there = [kind for kind in (*WRITES, *MOMENTS) if kind in (*scene.moments, REMOVING)]
    while True:
        yield Kill(BEGUN, 1, generator.uniform(0.0005, scene.seconds))
        kind = generator.choice(there)
        # A verb that goes on where another was killed comes through less of them.
        last = round(scene.moments.get(kind, 1) * generator.random())
        after = generator.uniform(*SECONDS) if kind in WRITES else 0.0
        yield Kill(kind, generator.randint(1, max(1, last)), after)
        yield Kill(BEGUN, 1, generator.uniform(0.0005, scene.seconds), by=signal.SIGTERM)


def chain(scene: Scene, folder: Path, generator: random.Random, kills: int) -> Toll:
    """Kill a verb so many times, starting it again with the same command each time.

    Each time that it comes to its end, be it before the last kill, what it left is compared, and it
    starts anew.
    """
    toll, aims = Toll(), take_aims(generator, scene)
    place = scene.set_up(folder / "0")
    for life in range(1, 20 * kills):
        kill = next(aims) if toll.kills < kills else None
        left = half_written(place)
        ended = scene.run(place, kill=kill)
        if kill and ended.killed:
            toll.struck[kill.at] += 1
            toll.inside += kill.at in (RENAMING, SYNCING) or bool(half_written(place) - left)
        if ended.killed or ended.asked:
            toll.asked += ended.asked
            continue
        toll.judge(scene, place, ended)
        if toll.kills == kills:
            return toll
        place = scene.set_up(folder / str(life))
    raise AssertionError(f"no more than {toll.kills} of {kills} kills struck")


def torment(scene: Scene, folder: Path, *, kills: int, seed: int) -> Toll:
    """Kill a verb so many times, in chains of which two run at once."""
    lengths = [min(CHAIN, kills - first) for first in range(0, kills, CHAIN)]

    def run(number: int) -> Toll:
        generator = random.Random(f"{scene.verb} {seed} {number}")
        return chain(scene, folder / str(number), generator, lengths[number])

    total = Toll()
    with ThreadPoolExecutor(2) as pool:
        for toll in pool.map(run, range(len(lengths))):
            total.add(toll)
    return total
