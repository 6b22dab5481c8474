"""Trainings that end at a known moment."""

import signal

from cellline.host.stopping import Stop, Stopped


class StopAt(Stop):
    """Ends the training at a call of `check`, wherever that is."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped(signal.SIGTERM)
