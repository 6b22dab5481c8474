import os
import signal
import time

import pytest

from cellline.host import stopping
from cellline.host.stopping import Stop, Stopped


def test_without_a_signal_or_a_limit_it_goes_on() -> None:
    stop = Stop()
    for _ in range(3):
        stop.check()


def test_the_first_signal_waits_for_the_next_safe_point() -> None:
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with stop.on_signals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            stop.check()
    assert (stopped.value.status, stopped.value.why) == (143, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_can_not_be_answered_still_counts() -> None:
    kept = os.dup(2)
    os.close(2)  # as a terminal that was closed
    try:
        stop = Stop()
        with stop.on_signals():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Stopped):
                stop.check()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_a_signal_that_make_passes_on_once_more_is_one() -> None:
    stop = Stop()
    with stop.on_signals():
        for _ in range(3):  # a second Ctrl-C would end this process
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            stop.check()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        stop = Stop()
        with stop.on_signals():
            signal.raise_signal(signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_stops_before_the_time_is_up_by_what_a_step_takes() -> None:
    elapsed = (time.monotonic() - stopping.STARTED) / 60
    stop = Stop(elapsed + 10)
    stop.check()
    stop.check()
    # A step of four minutes: another one and the saving might not fit into what is left.
    assert stop.checked is not None
    stop.checked -= 4 * 60
    stop.check()
    stop.checked -= 6 * 60
    with pytest.raises(Stopped) as stopped:
        stop.check()
    assert (stopped.value.status, stopped.value.why) == (0, "the time is up")
