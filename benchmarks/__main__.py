"""Measures, and prints each row of the table when it is measured."""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator

import torch

from benchmarks import colorize, films, gpu, growth, pipeline, startup, step, table
from benchmarks.measuring import QUICK, Sizes
from benchmarks.table import Row

PARTS: dict[str, Callable[[Sizes, float], Iterator[Row]]] = {
    "step": step.rows,
    "pipeline": pipeline.rows,
    "colorize": colorize.rows,
    "startup": startup.rows,
}
ON_REQUEST = {"films": films.rows, "gpu": gpu.rows, "growth": growth.rows}
SECONDS = 100 if torch.cuda.is_available() else 300  # for each part


def main(arguments: list[str] | None = None, sizes: Sizes | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"{', '.join(PARTS)} (all of these by default), {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--quick", action="store_true", help="batches of 4, few repeats, nothing compiled")
    parser.add_argument("--json", action="store_true", help="JSON at the end, and the table on standard error")
    parser.add_argument("--repeats", type=int, help="rounds behind each median, if --seconds allows")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each part; default here: {SECONDS}")
    chosen = parser.parse_args(arguments)
    known = PARTS | ON_REQUEST
    if unknown := set(chosen.parts) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    sizes = sizes or (QUICK if chosen.quick else Sizes())
    if chosen.repeats:
        sizes = dataclasses.replace(sizes, repeats=chosen.repeats)

    rows: list[Row] = []
    printed_to = sys.stderr if chosen.json else sys.stdout
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(table.machine(), table.HEADER, sep="\n\n", file=printed_to, flush=True)
        for part in chosen.parts or PARTS:
            for row in known[part](sizes, chosen.seconds):
                rows.append(row)
                print(row, file=printed_to, flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(rows)} rows", file=sys.stderr)
        return 130
    finally:
        if chosen.json:
            print(table.as_json(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
