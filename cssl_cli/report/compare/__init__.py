"""Many runs beside one another: the rows of a sweep, how far they lie apart, and what predicts their accuracy.

`catalogue` says where each number stands in a member's files, `rows` averages it over seeds, `tables/` prints it;
`content` is the same for machines.
"""
