"""Alignment: how far apart the encoder puts two views of one image. (docs/theory.md, 4 and 5.)"""
