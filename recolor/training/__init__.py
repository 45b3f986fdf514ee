"""The steps of each method, the training loop, checkpoints, history. May import dataset, models, runtime, images and core."""
