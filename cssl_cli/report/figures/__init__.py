"""Pictures for people to look at: the contact sheet of an augmentation, and the figures of an analysis.

One file a figure; `figures` draws them all. matplotlib is imported where something is drawn, so that importing any of
this costs nothing. What a figure needs is read from plain JSON types: this room knows no encoder and no run.
"""
