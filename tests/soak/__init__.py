"""A campaign of faults against the whole product: `python -m tests.soak` (or `make soak`), no part of the test suite.

Each part breaks one thing (recipes, images, processes, files, disks, streams) in many seeded ways and holds what comes
of it against what is promised in docs/reliability.md. Every case has a number and draws from a generator of its own, so
that one case can be run alone: `python -m tests.soak --seed 7 --only kills --case 123`.
"""
