"""Rank correlation over the rows of a table: `coefficients` and their p-values, and `screening` of many terms at once.

The other modules are their components: signs of differences, orders, the bootstrap, and rows that are not independent
because they share sets or parts. Only numpy is needed.
"""
