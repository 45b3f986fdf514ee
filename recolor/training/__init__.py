"""Objectives, the training loop, its history. May import dataset, models, runtime and core."""
