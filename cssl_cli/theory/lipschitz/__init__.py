"""Bounds on the Lipschitz constant of the encoder. (docs/theory.md, 9.)"""
