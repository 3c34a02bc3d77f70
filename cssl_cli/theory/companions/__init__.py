"""Measures of features by other authors, for comparison with the theory's terms. (docs/theory.md, 13.)"""
