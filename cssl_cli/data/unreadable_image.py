"""The error of one image file, to be told with its name."""


class UnreadableImage(ValueError):
    """Why an image is not read, in words for the user."""
