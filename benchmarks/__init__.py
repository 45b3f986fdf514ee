"""How fast recolor is on this machine, beside the usual way of doing the same: `make bench`, or `python -m benchmarks --help`.

The usual way is textbook.py. What is compared is run in turn, so that a machine that slows down meanwhile slows both, and
every figure is a median. Nothing is downloaded: the photos are made up. The full run keeps seven copies of the training state
in memory (7 GB) and takes some ten minutes on two cores.
"""
