"""Certain bounds on the clique number of a graph: how many images can be within δ of one another. (docs/theory.md, 8.)

The largest clique is NP-hard to find, and on the graphs of augmented distances bounds are nearly as good. The lower
bound is a clique that is found: peel vertices of least degree until a clique is left, extend it, then search by adding
and swapping with a tabu list. The upper bound is the least of three: a proper colouring gives the members of a clique
different colours (DSATUR); a clique avoids one end of every missing edge, and half of a maximum matching of the
bipartite double cover of the missing edges is the linear-programming bound on how many vertices that costs; the members
of a clique of size c have degree c − 1 or more in it, so that c ≤ degeneracy + 1.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

SEARCH_STEPS = 800
FEW_VERTICES = 200  # for which a colouring costs far less than the search that it may save
TABU_STEPS = 7

Graph = NDArray[np.bool_]
Vertices = NDArray[np.intp]


class CliqueBounds(NamedTuple):
    """`low` ≤ clique number ≤ `high`, and the `members` (low,) of a clique of size `low`, ascending."""

    low: int
    high: int
    members: Vertices


def clique_bounds(adjacent: Graph, *, seed: int = 0, upper: bool = True) -> CliqueBounds:
    """Bounds of the clique number of the graph `adjacent` (n, n), boolean and symmetric; the diagonal is ignored.

    The same graph and seed give the same bounds. With `upper=False` the upper bound is computed only if that saves a
    search: `high` is the number of vertices, unless a clique was proved largest.
    """
    num = len(adjacent)
    missing: Graph = np.logical_not(adjacent)
    np.fill_diagonal(missing, False)
    degrees = missing.sum(axis=1, dtype=np.int32)
    if not degrees.any():
        return CliqueBounds(num, num, np.arange(num))
    members, high = _peel(missing, degrees)
    members = _extend(missing, degrees, members)
    if (upper or num <= FEW_VERTICES) and len(members) < high:
        high = _dsatur_colors(~missing, high)
    if len(members) < high:
        members = _search(missing, members, enough=high, seed=seed)
    # The matching bound is never below half the vertices, rounded down.
    if upper and len(members) < high and high > num // 2:
        high = min(high, num - _vertex_cover_bound(missing))
    if not upper and len(members) < high:
        high = num
    return CliqueBounds(len(members), high, np.sort(members))


def _peel(missing: Graph, degrees: NDArray[np.int32]) -> tuple[Vertices, int]:
    """The clique that is left when vertices with most missing edges go one by one; the graph's degeneracy + 1."""
    lacking = degrees.copy()
    rows = missing.view(np.int8)
    removed = np.int32(-len(missing) - 1)  # stays negative whatever is subtracted
    degeneracy = 0
    for left in range(len(missing), 0, -1):
        vertex = lacking.argmax()
        degeneracy = max(degeneracy, left - 1 - int(lacking[vertex]))
        if lacking[vertex] == 0:
            break
        lacking -= rows[vertex]
        lacking[vertex] = removed
    return np.flatnonzero(lacking == 0), degeneracy + 1


def _extend(missing: Graph, degrees: NDArray[np.int32], members: Vertices) -> Vertices:
    """The clique with more vertices as long as one is adjacent to all, those with few missing edges first."""
    free: Graph = np.logical_not(missing[members].any(axis=0))
    free[members] = False
    added = []
    while free.any():
        candidates = np.flatnonzero(free)
        vertex = candidates[degrees[candidates].argmin()]
        added.append(vertex)
        free &= ~missing[vertex]
        free[vertex] = False
    return np.concatenate([members, np.array(added, dtype=np.intp)])


def _search(missing: Graph, members: Vertices, *, enough: int, seed: int) -> Vertices:
    """A clique at least as large, after `SEARCH_STEPS` moves or when it has `enough` members.

    A move adds a vertex; or swaps one that lacks an edge to a single member for that member; or else drops a member.
    A removed vertex stays out for some steps.
    """
    num = len(missing)
    pick = random.Random(seed)
    conflicts = missing.astype(np.int32)
    # Members conflict with themselves, so that they are never candidates.
    np.fill_diagonal(conflicts, num + 1)
    inside = np.zeros(num, dtype=bool)
    inside[members] = True
    lacking = conflicts[members].sum(axis=0, dtype=np.int32)  # how many members each vertex is not adjacent to
    size, best = len(members), members
    out_until = np.zeros(num, dtype=np.int32)
    for step in range(1, SEARCH_STEPS + 1):
        candidates = np.flatnonzero((lacking <= 1) & (out_until < step))
        additions = candidates[lacking[candidates] == 0]
        if len(additions):
            leaving, entering = None, additions[pick.randrange(len(additions))]
        elif len(candidates):
            entering = candidates[pick.randrange(len(candidates))]
            leaving = np.flatnonzero(missing[entering] & inside)[0]
        elif size > 1:
            left = np.flatnonzero(inside)
            leaving, entering = left[pick.randrange(size)], None
        else:
            continue
        if leaving is not None:
            inside[leaving] = False
            lacking -= conflicts[leaving]
            out_until[leaving] = step + TABU_STEPS + pick.randrange(TABU_STEPS)
            size -= 1
        if entering is not None:
            inside[entering] = True
            lacking += conflicts[entering]
            size += 1
        if size > len(best):
            best = np.flatnonzero(inside)
            if size >= enough:
                break
    return best


def _dsatur_colors(adjacent: Graph, limit: int) -> int:
    """Colours of a proper colouring, next always the vertex that sees most colours; `limit` if it takes as many."""
    num = len(adjacent)
    adjacent = adjacent.copy()
    np.fill_diagonal(adjacent, False)
    sees = np.zeros((limit, num), dtype=bool)  # colour by vertex
    # Most colours seen first, most neighbours next; a coloured vertex never again.
    rank = adjacent.sum(axis=1, dtype=np.int64)
    colored = -((num + 2) ** 2)
    used = 0
    for _ in range(num):
        vertex = rank.argmax()
        color = int(sees[:used, vertex].argmin()) if used else 0
        if used == 0 or sees[color, vertex]:
            color = used
            used += 1
            if used >= limit:
                return limit
        np.add(rank, num, out=rank, where=adjacent[vertex] & ~sees[color])
        sees[color] |= adjacent[vertex]
        rank[vertex] = colored
    return used


def _vertex_cover_bound(missing: Graph) -> int:
    """Vertices that must go, at least, for no missing edge to be left: half a maximum matching of the double cover."""
    matched = maximum_bipartite_matching(csr_array(missing), perm_type="column")
    return -(-int((matched >= 0).sum()) // 2)
