"""Prints the table."""

import argparse
import dataclasses
import sys

from benchmarks import growth, measuring, pipeline, startup, step
from benchmarks.measuring import QUICK, Row, Sizes

PARTS = {"step": step.rows, "pipeline": pipeline.rows, "startup": startup.rows}
ON_REQUEST = {"growth": growth.rows}  # takes a quarter of an hour


def main(arguments: list[str] | None = None, sizes: Sizes | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"{', '.join(PARTS)} (all three, where none is named), {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--quick", action="store_true", help="batches of 4, few repeats, nothing compiled")
    parser.add_argument("--json", action="store_true", help="for machines; otherwise a table in markdown")
    parser.add_argument("--repeats", type=int, help="rounds behind each median")
    chosen = parser.parse_args(arguments)
    known = PARTS | ON_REQUEST
    if unknown := set(chosen.parts) - set(known):
        parser.error(f"no such part: {', '.join(unknown)}")
    sizes = sizes or (QUICK if chosen.quick else Sizes())
    if chosen.repeats:
        sizes = dataclasses.replace(sizes, repeats=chosen.repeats)
    rows: list[Row] = []
    for part in chosen.parts or PARTS:
        print(f"measuring: {part}", file=sys.stderr)
        rows += known[part](sizes)
    print(measuring.as_json(rows) if chosen.json else measuring.markdown(rows))


if __name__ == "__main__":
    main()
