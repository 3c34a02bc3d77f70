"""The members of a sweep carried out: in this process (`workshop`), or several at a time in processes of their own.

`pool` and `process` are the side that hands out members, without torch; `worker` is the process that does them;
`messages` is what the two say to each other.
"""
