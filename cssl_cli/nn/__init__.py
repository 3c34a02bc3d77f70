"""Encoders and the modules and operators they and the losses are built from."""
