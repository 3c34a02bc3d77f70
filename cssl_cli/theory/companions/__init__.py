"""What others measure of features, beside the theory's terms. (docs/theory.md, 13.)"""
