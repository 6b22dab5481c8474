"""Runs a verb and kills its process with SIGKILL at a planned moment.

    python launcher.py ORDER SCRIPT ARGUMENT...

Moments are counted in what Python tells of itself (`sys.addaudithook`), so that a kill can be aimed
inside a save: each of these is told before it is done.
"""

import atexit
import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

# The moments of a save, in their order; see `cellline.files.atomic`.
WRITING, RENAMING, SYNCING = "writing", "renaming", "syncing"
# The verb's first lock, Optuna's journal being added to, images being decoded into a file.
BEGUN, JOURNAL, DECODING = "begun", "journal", "decoding"
# What a killed process left is removed.
REMOVING = "removing"


def moment(event: str, args: tuple[Any, ...]) -> str | None:
    """Which moment an audit event tells, if any."""
    if event not in ("open", "os.rename", "os.remove") or isinstance(args[0], int | type(None)):
        return None
    name = os.fsdecode(args[0])
    if event == "os.rename":
        return RENAMING
    if event == "os.remove":
        return REMOVING if name.endswith(".tmp") else None
    if name.endswith(".tmp"):
        return WRITING
    if name.endswith(".lock"):
        return BEGUN
    if name.endswith("journal.log") and args[1] == "a":
        return JOURNAL
    if name.endswith(".npy") and args[1] == "r+":
        return DECODING
    return SYNCING if args[1] is None and Path(name).is_dir() else None


def launch(order: dict[str, Any], script: str, arguments: list[str]) -> None:
    """Run `script` as its own process would.

    `at` is a moment, `number` which of its kind (from 1), `after` the seconds from then until the
    signal `by`; without them nothing happens. `ignored` signals are so from the start. The file
    `life` tells what an undisturbed verb went through: its moments, and the seconds from its first
    lock to its end.
    """
    for number in order["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    own, begun = os.getpid(), 0.0
    moments: Counter[str] = Counter()
    killer = hire_killer(own, order["by"])

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal begun
        here = moment(event, args)
        if here is None or os.getpid() != own:  # not in a loader's process
            return
        if here == BEGUN and not moments[BEGUN]:
            begun = time.monotonic()
        moments[here] += 1
        if (here, moments[here]) == (order["at"], order["number"]):
            if order["after"]:
                os.write(killer, str(order["after"]).encode())
            else:  # now: not one more instruction of the verb
                os.kill(own, order["by"])

    sys.addaudithook(watch)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        life = {"seconds": time.monotonic() - begun, "moments": moments}
        Path(order["life"]).write_text(json.dumps(life))


def hire_killer(victim: int, by: int) -> int:
    """A process that sends a signal so many seconds after they were written to the result."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        after = os.read(read, 100)  # nothing, once the victim has ended by itself
        if after:
            time.sleep(float(after))
            with suppress(ProcessLookupError):
                os.kill(victim, by)
        os._exit(0)
    os.close(read)
    return write


def become(
    folder: Path, output: Path, order: dict[str, Any], script: str, arguments: list[str]
) -> None:
    """Be what `python launcher.py` in `folder` would be, in a process that was forked."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # the default, not how this one was started
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = None
    try:
        launch(order, script, arguments)
    except SystemExit as ended:
        status = ended.code
    atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.exit(status)


if __name__ == "__main__":
    launch(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
