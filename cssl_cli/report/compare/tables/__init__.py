"""Comparisons of rows for a terminal: each file prints what its namesake one folder up computes."""
