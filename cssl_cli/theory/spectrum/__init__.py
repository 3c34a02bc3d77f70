"""What two views of an image share, and how much of it is about the class."""
