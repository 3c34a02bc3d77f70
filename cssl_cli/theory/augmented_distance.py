"""The augmented distance d_A(x, y) = min ‖v − w‖ over the stored views v of x and w of y. (docs/theory.md, 8.)

Squared distances are taken from a Gram matrix, ‖a‖² − 2 a·b + ‖b‖² with the vectors centred on one of them. In float64,
with unit roundoff u = 2⁻⁵³, its error is at most γ (‖a‖ + ‖b‖)², γ = (D + 8) u for vectors of D components: the dot
products contribute D u, the centring and the sums the rest.

Products in float32 take half the time, but err by about √D 2⁻²⁴ ‖a‖ ‖b‖ (Higham and Mary, SIAM J. Sci. Comput. 2019),
too much for long vectors at a small distance. Wide vectors are therefore split, a = Q c + r: c, the components
along a few orthonormal directions Q in which the views are long, in float64, and the rest r, orthogonal to Q, in
float32. Views of photographs keep a few per cent of their squared length in r, and the error falls with it: to at most
about ½ √D 2⁻²⁴ (‖r_a‖ + ‖r_b‖)² for the products, a dozen times what is observed on images of 32×32 pixels, and
4 · 2⁻²⁴ d (‖r_a‖ + ‖r_b‖) for rounding r, which is no more than 2⁻²⁴ (8 d² + ‖r_a‖² + ‖r_b‖²).

As (x + y)² ≤ 2 x² + 2 y², these errors split into one for each view, except for the multiple of d². So the least true
squared distance of the V · V′ pairs of views lies, up to that multiple, between the least lower bound and the least
upper bound of the pairs; the middle is used. If its root may be wrong by more than a relative `TOLERANCE` for many
pairs of images of a block, the block is computed again in float64; the remaining pairs are computed from differences,
which are right to D u. Images that share a view, as most do if an augmentation erases them, are at distance 0. No Gram
matrix shows that, and differences of all their views would take minutes, so shared views are found first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances

TOLERANCE = 1e-6
UNIT_ROUNDOFF = 2.0**-53
UNIT_ROUNDOFF_32 = 2.0**-24
WIDE = 1024  # from this many components on, views are split
LEADING = 128  # directions whose components stay in float64
SKETCH_VIEWS = 1024  # at most this many views choose them
MAX_ROWS = 1024  # views on a side of one Gram block: 8 MiB of squared distances
BLOCK_NUMBERS = 2**23  # at most this many numbers (64 MiB of float64) in an operand
MANY_CLOSE = 0.003  # of the pairs in a block: this share costs as much from differences as the whole block in float64
PATIENCE = 4  # failed blocks in a row before float32 is given up


def augmented_distances(views: Tensor, others: Tensor | None = None) -> Tensor:
    """d_A (N, N′), float64, on the views' device, between images with views (N, V, D) and `others` (N′, V′, D).

    Without `others`, between the images themselves: (N, N), symmetric, zeros on the diagonal. Any floating-point type;
    takes about as much memory again as the views do in float64, or in float32 where D is at least `WIDE`. Right to a
    relative 1e-6 (module's docstring).
    """
    symmetric = others is None
    columns = views if others is None else others
    result = torch.zeros(len(views), len(columns), dtype=torch.float64, device=views.device)
    if result.numel() == 0:
        return result
    gram, shared = _Gram(views, others), _Shared(views, others)
    for rows in _blocks(views):
        for cols in _blocks(columns):
            if symmetric and cols.start < rows.start:
                continue
            block, close = gram.distances(rows, cols)
            if symmetric and cols == rows:
                block = torch.minimum(block, block.T)  # rounding differs above and below the diagonal
                close = (close | close.T).fill_diagonal_(False).triu()
            if num_close := int(close.sum()):  # on a GPU this waits for the block
                if num_close / close.numel() > MANY_CLOSE:
                    close, at_zero = shared.apart_from(close, rows, cols)
                    block.masked_fill_(at_zero | at_zero.T if symmetric and cols == rows else at_zero, 0)
                first, second = close.nonzero(as_tuple=True)
                exact = _from_differences(views[rows], columns[cols], first, second)
                block[first, second] = exact
                if symmetric and cols == rows:
                    block[second, first] = exact
            result[rows, cols] = block
            if symmetric:
                result[cols, rows] = block.T
    return result.fill_diagonal_(0) if symmetric else result


class _Gram:
    """Blocks of distances between the images of `views` and `others`, or among `views`, from Gram matrices."""

    def __init__(self, views: Tensor, others: Tensor | None) -> None:
        self.views, self.columns = views, views if others is None else others
        self.among = others is None
        # An actual view, not the mean: images that all coincide then become exact zeros.
        self.origin = views[0, 0].clone()
        self.failed = 0  # blocks in a row
        self.left = self.right = None
        if views.shape[2] >= WIDE:
            basis = _leading_directions(views, self.origin)
            self.left = _Operand.taken_apart(views, self.origin, basis)
            self.right = self.left if others is None else _Operand.taken_apart(others, self.origin, basis)

    def distances(self, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """Distances (A, B) of the images at `rows` and `cols`, and which may be off by more than `TOLERANCE`."""
        same = self.among and rows == cols
        if self.left is not None and self.right is not None and self.failed < PATIENCE:
            found, close = _block(self.left.images(rows), self.right.images(cols))
            if same:
                close.fill_diagonal_(False)  # images and themselves
            if float(close.double().mean()) <= MANY_CLOSE:
                self.failed = 0
                return found, close
            self.failed += 1
        left = _Operand.whole(self.views[rows], self.origin)
        return _block(left, left if same else _Operand.whole(self.columns[cols], self.origin))


class _Shared:
    """Which images of `views` and `others`, or among `views`, have a view in common, to the last bit."""

    def __init__(self, views: Tensor, others: Tensor | None) -> None:
        self.views, self.others = views, others

    @cached_property
    def codes(self) -> tuple[Tensor, Tensor]:
        """A whole number for each view (N, V) and (N′, V′): the same where, and only where, the views are."""
        every = self.views.flatten(0, 1)
        if self.others is not None:
            every = torch.cat([every, self.others.flatten(0, 1)])
        codes = torch.unique(every, dim=0, return_inverse=True)[1]
        of_views = codes[: self.views.shape[:2].numel()].unflatten(0, self.views.shape[:2])
        if self.others is None:
            return of_views, of_views
        return of_views, codes[of_views.numel() :].unflatten(0, self.others.shape[:2])

    def apart_from(self, close: Tensor, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """The pairs of `close` (A, B) without those that share a view, and these."""
        left, right = self.codes[0][rows], self.codes[1][cols]
        share = torch.zeros_like(close)
        for own in left.unbind(dim=1):
            for other in right.unbind(dim=1):
                share |= own.unsqueeze(1) == other
        return close & ~share, close & share


@dataclass(frozen=True)
class _Operand:
    """Centred views of N images: `leading` (N, V, R) float64 and, if taken apart, `rest` (N, V, D) float32.

    `squares` (N, V) are their squared lengths, `errors` (N, V) their share in the error of a squared distance.
    """

    leading: Tensor
    rest: Tensor | None
    squares: Tensor
    errors: Tensor

    @classmethod
    def whole(cls, views: Tensor, origin: Tensor) -> _Operand:
        leading = views.double() - origin.double()
        squares = leading.square().sum(dim=2)
        return cls(leading, None, squares, _error_in_float64(squares, leading.shape[2]))

    @classmethod
    def taken_apart(cls, views: Tensor, origin: Tensor, basis: Tensor) -> _Operand:
        leading = torch.empty(*views.shape[:2], basis.shape[1], dtype=torch.float64, device=views.device)
        rest = torch.empty(views.shape, dtype=torch.float32, device=views.device)
        rest_squares = torch.empty(views.shape[:2], dtype=torch.float64, device=views.device)
        for rows in _blocks(views):
            centred = views[rows].double() - origin.double()
            leading[rows] = centred @ basis
            rest[rows] = centred.sub_(leading[rows] @ basis.T).float()
            rest_squares[rows] = torch.linalg.vector_norm(rest[rows], dim=2, dtype=torch.float64).square()
        squares = leading.square().sum(dim=2) + rest_squares
        errors = _error_in_float64(squares, basis.shape[1])
        errors += (math.sqrt(views.shape[2]) + 1) * UNIT_ROUNDOFF_32 * rest_squares
        return cls(leading, rest, squares, errors)

    def images(self, rows: slice) -> _Operand:
        rest = None if self.rest is None else self.rest[rows]
        return _Operand(self.leading[rows], rest, self.squares[rows], self.errors[rows])


def _error_in_float64(squares: Tensor, width: int) -> Tensor:
    return 2 * (width + 8) * UNIT_ROUNDOFF * squares


def _leading_directions(views: Tensor, origin: Tensor) -> Tensor:
    """Orthonormal columns (D, `LEADING`), float64, close to the directions in which the centred views are longest.

    A randomized range finder with one power iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.3) on
    at most `SKETCH_VIEWS` of them. The directions decide how many pairs are computed again, not the result.
    """
    flat = views.flatten(0, 1)
    sample = (flat[:: -(-len(flat) // SKETCH_VIEWS)] - origin).double()
    sample = (sample / sample.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)).float()
    probes = torch.randn(flat.shape[1], LEADING, generator=torch.Generator().manual_seed(0)).to(sample.device)
    return torch.linalg.qr((sample.T @ (sample @ probes)).double())[0]


def _blocks(views: Tensor) -> list[slice]:
    """Runs of images whose views make one operand of a Gram matrix."""
    num_images, num_views, width = views.shape
    rows = max(1, min(MAX_ROWS, BLOCK_NUMBERS // width))
    step = max(1, rows // num_views)
    return [slice(start, min(start + step, num_images)) for start in range(0, num_images, step)]


def _block(left: _Operand, right: _Operand) -> tuple[Tensor, Tensor]:
    """Distances (A, B) of A and B images, and which of them may be off by more than `TOLERANCE`."""
    squares, error = _least_squares(left, right)
    if left.rest is not None:
        error = error + 8 * UNIT_ROUNDOFF_32 * (squares + error)
    # Written so that what overflowed counts as close.
    close = ~(error <= 2 * TOLERANCE * (squares - error))
    return squares.clamp(min=0).sqrt(), close


def _least_squares(left: _Operand, right: _Operand) -> tuple[Tensor, Tensor]:
    """The least squared distance (A, B) over the views, and its error but for the multiple of itself."""
    left_rows, right_rows = left.leading.flatten(0, 1), right.leading.flatten(0, 1)
    if left.rest is None or right.rest is None:
        # The errors are small: those of an image's longest view do, and equal distances stay equal.
        products = torch.addmm(right.squares.reshape(1, -1), left_rows, right_rows.T, alpha=-2)
        error = left.errors.amax(dim=1).unsqueeze(1) + right.errors.amax(dim=1)
        return _least_over_views(products, left.squares, right), error
    products = torch.addmm((right.squares - right.errors).reshape(1, -1), left_rows, right_rows.T, alpha=-2)
    products.add_(left.rest.flatten(0, 1) @ right.rest.flatten(0, 1).T, alpha=-2)
    low = _least_over_views(products, left.squares - left.errors, right)
    products.add_(2 * right.errors.reshape(1, -1))
    high = _least_over_views(products, left.squares + left.errors, right)
    return (low + high) / 2, (high - low) / 2


def _least_over_views(products: Tensor, of_rows: Tensor, right: _Operand) -> Tensor:
    """The least (A, B) over the views of products (A·V, B·V′) with `of_rows` (A, V) added to their rows."""
    nearest = products.view(len(products), *right.squares.shape).amin(dim=2) + of_rows.reshape(-1, 1)
    return nearest.view(*of_rows.shape, len(right.squares)).amin(dim=1)


def _from_differences(views: Tensor, others: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """d_A (Q,) of the images at `first` (Q,) of views and `second` (Q,) of others, without cancellation."""
    numbers = max(views.shape[1], others.shape[1]) * views.shape[2]
    step = max(1, BLOCK_NUMBERS // (4 * numbers))
    pieces = zip(first.split(step), second.split(step), strict=True)
    return torch.cat([distances(views[i].double(), others[j].double()).amin(dim=(1, 2)) for i, j in pieces])
