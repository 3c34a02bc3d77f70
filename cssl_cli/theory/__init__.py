"""The terms: features in, named numbers out. A folder for each section of `cssl analyze`, a file for each term."""
