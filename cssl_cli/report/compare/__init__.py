"""Many runs beside one another: the rows of a sweep, how far they lie apart, and what predicts their accuracy.

Where a number of the table comes from: `catalogue` has its title and its place in a member's files, where it bears the
name of its term in `theory/`. `rows` averages it over seeds, `tables/` prints it, `content` is the same for machines.
"""
