"""The only wiring: recipes and run directories in, finished run directories out."""
