"""`python stopped.py EVENT WHAT SIGNAL STAGE ARGUMENT...`: a stage that sends itself SIGNAL, a number, at one moment.

The moment is when Python first audits EVENT (import, open, os.mkdir) with WHAT in its first argument.
"""

import importlib
import os
import sys

from stages import run


def main() -> None:
    moment, what, number, stage, *arguments = sys.argv[1:]
    came = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not came and event == moment and what in str(arguments[0]):
            came.append(event)
            os.kill(os.getpid(), int(number))

    sys.addaudithook(hook)
    sys.argv = [stage, *arguments]
    run(importlib.import_module(f"stages.{stage}").main)


if __name__ == "__main__":
    main()
