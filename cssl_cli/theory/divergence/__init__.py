"""Divergence: class centres, and the spread of features within and between classes. (docs/theory.md, 6 and 7.)"""
