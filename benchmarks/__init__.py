"""How fast recolor is on this machine, beside the usual way of doing the same: `make bench`, or `python -m benchmarks --help`.

The usual way is textbook.py. Training steps take turns, each side in a process of its own, so that a machine that slows down
meanwhile slows both; what is a median, and of how many rounds, docs/performance.md says. Nothing is downloaded: the photos are
made up. The full run holds six copies of the training state at a time and takes some ten minutes on two cores.
"""
