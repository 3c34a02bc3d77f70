"""`cssl doctor`: what this machine has for our commands, and what is wrong with any of it."""
