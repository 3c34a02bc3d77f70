"""`cssl watch`: runs and sweeps as their files say they are now. Nothing here writes a file or takes a lock.

`progress` follows a run, `members` a sweep's runs; `plots` draws in characters, `screen` puts both into a terminal.
"""
