"""`python stopped.py STAGE EVENT WHAT SIGNAL`: a stage of the dataset `mine` that sends itself SIGNAL, a number, at one moment.

The moment is when Python first audits EVENT (import, open, os.mkdir) with WHAT in its first argument.
"""

import importlib
import os
import sys

from stages import run


def main() -> None:
    stage, moment, what, number = sys.argv[1:]
    came = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not came and event == moment and what in str(arguments[0]):
            came.append(event)
            os.kill(os.getpid(), int(number))

    sys.addaudithook(hook)
    sys.argv = [stage, "mine"]
    run(importlib.import_module(f"stages.{stage}").main)


if __name__ == "__main__":
    main()
