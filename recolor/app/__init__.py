"""The command line and the demo. May import everything."""
