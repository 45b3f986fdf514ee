"""Documents, and the scripts that make their figures."""
