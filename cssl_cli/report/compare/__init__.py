"""The rows of a sweep, or several runs, side by side: tables, rank correlations, claims."""
