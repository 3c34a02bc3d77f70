"""The error of one image file, reported with its name."""


class UnreadableImage(ValueError):
    """Why an image cannot be read, in words for the user."""
