"""The losses of SimCLR and Barlow Twins, and what they say of the class centres. (docs/theory.md, 11 and 12.)"""
