"""What is tormented: a small competition, its folds, and what undisturbed verbs make of them."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import Ended, Kill, Running, Verbs, snapshot
from launcher import SYNCING

from cellline.demo.drawing import Drawing, draw_competition

TINY = ("--network", "densenet_tiny", "--weights", "none", "--batch-size", "16", "--device", "cpu")


@dataclass(frozen=True)
class Scene:
    """A verb that is about to run in a folder, and what it leaves when nothing disturbs it."""

    verbs: Verbs
    verb: str
    arguments: tuple[str, ...]
    before: Path
    """The folder as it is before."""
    after: Path
    seconds: float
    """From the verb's first lock to its end."""
    moments: dict[str, int]
    """How many there are of each kind; see launcher."""

    @cached_property
    def expected(self) -> dict[str, Any]:
        """What is left when nothing disturbs it."""
        return snapshot(self.after)

    def set_up(self, folder: Path) -> Path:
        """A copy of what is there before."""
        return copy(self.before, folder)

    @contextmanager
    def pause(
        self,
        folder: Path,
        *more: str,
        at: tuple[str, int] = (SYNCING, 6),
        ignored: tuple[int, ...] = (),
    ) -> Iterator[Running]:
        """Start the verb in a folder and wait until it stops itself; a signal lets it go on.

        By default that is when the sixth file is written: a training's second epoch is saved.
        """
        stop = Kill(*at, by=signal.SIGSTOP)
        arguments = (*self.arguments, *more)
        running = self.verbs.start(folder, self.verb, *arguments, kill=stop, ignored=ignored)
        try:
            running.await_stop()
            yield running
        finally:
            running.kill()

    def start(self, folder: Path) -> Running:
        """Start the verb in a folder."""
        return self.verbs.start(folder, self.verb, *self.arguments)

    def run(self, folder: Path, *more: str, kill: Kill | None = None) -> Ended:
        """Run the verb in a folder to its end."""
        return self.verbs.run(folder, self.verb, *self.arguments, *more, kill=kill)


class Scenes:
    """The scenes, each made when it is first asked for."""

    def __init__(self, folder: Path, *, forked: bool) -> None:
        self.folder = folder
        self.verbs = Verbs(folder, forked=forked)
        # Where all copies read it: the cache knows an input by its place. As many images as are
        # decoded by several threads.
        draw_competition(folder / "input", Drawing(90, 18, size=16))

    def play(self, name: str, before: Path, verb: str, *arguments: str) -> Scene:
        """Run a verb undisturbed in the folder `name`, a copy of `before`."""
        arguments = ("--input-dir", str(self.folder / "input"), *arguments)
        after = copy(before, self.folder / name)
        ended = self.verbs.run(after, verb, *arguments)
        assert ended.status == 0, ended.printed
        return Scene(self.verbs, verb, arguments, before, after, **ended.life)

    @cached_property
    def start(self) -> Scene:
        """From the input alone to its decoded images and its folds."""
        before = self.folder / "nothing"
        before.mkdir()
        return self.play("start", before, "folds", "--folds", "3")

    @cached_property
    def folds(self) -> Scene:
        """The folds, of images that are decoded."""
        before = copy(self.start.after, self.folder / "decoded")
        shutil.rmtree(before / "oof")
        return self.play("folds", before, "folds", "--folds", "3")

    @cached_property
    def cache(self) -> Scene:
        """The decoded images, where there are folds."""
        before = copy(self.start.after, self.folder / "dealt")
        shutil.rmtree(before / ".cache")
        return self.play("cache", before, "folds", "--folds", "3")

    @cached_property
    def train(self) -> Scene:
        """One fold."""
        settings = ("--fold", "0", "--epochs", "8", *TINY)
        return self.play("train", self.start.after, "train", *settings)

    @cached_property
    def tune(self) -> Scene:
        """A study."""
        settings = ("--trials", "4", "--tune-epochs", "2", *TINY)
        return self.play("tune", self.start.after, "tune", *settings)

    @cached_property
    def submit(self) -> Scene:
        """A submission of three folds."""
        trained = self.play("trained", self.start.after, "train", "--epochs", "2", *TINY)
        return self.play("submit", trained.after, "submit", *TINY)


def copy(folder: Path, to: Path) -> Path:
    """Copy a folder; the copy's path."""
    return Path(shutil.copytree(folder, to))
