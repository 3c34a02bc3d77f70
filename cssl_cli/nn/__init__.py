"""Encoders, and the modules and operators that encoders and losses are built from."""
