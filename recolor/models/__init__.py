"""Generators and critics, and their folders on disk. May import core and images."""
