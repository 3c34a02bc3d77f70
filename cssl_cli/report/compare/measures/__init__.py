"""How measures of generalization are judged over a grid of settings: ψ, conditional information, the worst environment.

`grid` has the rows and their pairs; `granulated` the coefficient ψ of each axis (Jiang et al. 2019); `information` what
a term's order says about that of the accuracy once the settings are known (the same paper); `environments` the errors
of sign between two settings of one axis (Dziugaite et al. 2020); `orders` the orders of the rows that keep what rows
share. Shapes: N rows, A axes, M terms, P pairs of rows, R orders. Only numpy is needed.
"""
