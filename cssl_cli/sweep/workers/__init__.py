"""Running the members of a sweep: in this process (`stages`), or several at a time in worker processes.

`pool` and `process` hand out members, without torch; `worker` is the process that runs them; `messages` defines what
the two send each other.
"""
