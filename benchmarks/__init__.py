"""How fast recolor is on this machine, beside the usual way of doing the same: `make bench`, or `python -m benchmarks --help`.

The usual way is textbook.py. Each side runs in its own process and they take turns, so that a machine that slows down slows
both. Rows are printed when they are measured, as medians of as many rounds as --seconds allows. Nothing is downloaded: the
photos are made up.
"""
