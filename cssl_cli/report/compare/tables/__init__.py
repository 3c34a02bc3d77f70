"""The comparisons of rows as a terminal shows them: each file prints what its namesake one folder up computes."""
