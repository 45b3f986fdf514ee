"""`python stopped.py EVENT WHAT SIGNAL STAGE ARGUMENT...`: a stage that sends itself SIGNAL, a number, at one moment."""

import os
import signal
import sys

from forks import run_stage


def stop_at(moment: str, what: str, number: signal.Signals) -> None:
    """Sends this process the signal when Python first audits `moment` (import, open, os.mkdir) with `what` in its argument."""
    came = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not came and event == moment and what in str(arguments[0]):
            came.append(event)
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


if __name__ == "__main__":
    event, what, number, *stage = sys.argv[1:]
    stop_at(event, what, signal.Signals(int(number)))
    run_stage(" ".join(stage))
