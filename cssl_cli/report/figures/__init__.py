"""Pictures for people to look at: the contact sheet of an augmentation, and the figures of an analysis.

One file per figure; `figures` draws them all. matplotlib is imported only when something is drawn, so importing these
modules is cheap. Figures read plain JSON types: this room knows no encoder and no run.
"""
