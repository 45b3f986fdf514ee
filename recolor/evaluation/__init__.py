"""Metrics of one picture and of sets of pictures. May import dataset, models, runtime and core."""
