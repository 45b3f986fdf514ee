"""Tables, figures and pages from measured rows. May import core, images, dataset and models."""
