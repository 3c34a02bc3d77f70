"""One file for each section of `cssl analyze`."""
