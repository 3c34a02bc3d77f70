"""The losses of SimCLR and Barlow Twins, and what they imply about the class centres. (docs/theory.md, 11 and 12.)"""
