"""The steps of each method, the training loop, checkpoints, progress. May import dataset, models, runtime and core."""
