"""Device, precision and processes: where the networks run. May import core."""
