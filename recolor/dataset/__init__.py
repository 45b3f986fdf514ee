"""The cache on disk, and the batches that training reads from it. May import images and core."""
