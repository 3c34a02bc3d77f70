"""Bounds on the error of the nearest-centre classifier: the paper's theorems and sharper ones. (docs/theory.md, 10.)"""
