"""Rank correlation over the rows of a table: `coefficients` and their p-values, and `screening` of many terms at once.

The rest is what these are made of: signs of differences, orders, the bootstrap, and rows that are no sample because
they share sets or parts. Only numpy is needed.
"""
