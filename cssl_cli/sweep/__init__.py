"""Sweeps: their files, their members, and how the members are run."""
