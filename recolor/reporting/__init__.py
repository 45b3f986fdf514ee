"""Tables, figures and pages from measured rows. May import evaluation, dataset, models and core."""
