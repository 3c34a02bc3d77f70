"""Comparing many runs: the rows of a sweep, their differences, and what predicts their accuracy.

To trace a number of the table: `catalogue` has its title and its place in a member's files, under the name of its term
in `theory/`. `rows` averages it over seeds, `tables/` prints it, `content` writes it for machines.
"""
