"""Concentration of the augmented data: σ(δ) and the augmented distance. (docs/theory.md, 8.)"""
