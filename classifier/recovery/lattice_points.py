"""Points of a lattice near a target: a reduced basis, Babai's nearest plane, several points.

    basis = reduced(steps[:, None] * DCT2 * weights)      # rows: one coefficient, one step
    levels = nearest_plane(*basis, targets * weights)     # (n, d) -> (n, k) int
    several = nearest_points(*basis, targets * weights, 128)   # (128, n, k) int

Where all pixels of a block are known, its coefficients are those of the DCT, rounded. Where some
are unknown (beyond the edge of the picture, or clipped), they weigh little, the weighted steps are
far from orthogonal, and rounding one by one fails. A reduced basis of the same lattice is nearly
orthogonal again.

Sources: A. K. Lenstra, H. W. Lenstra and L. Lovasz, "Factoring polynomials with rational
coefficients", Math. Ann. 261, 1982; L. Babai, "On Lovasz' lattice reduction and the nearest lattice
point problem", Combinatorica 6, 1986; C. Ling, W. Mow and N. Howgrave-Graham, "Reduced and
fixed-complexity variants of the LLL algorithm for communications", IEEE Trans. Commun. 61, 2013;
D. Wuebben et al., "MMSE-based lattice-reduction for near-ML detection of MIMO systems", WSA 2004;
K. Wong, C. Tsui, R. Cheng and W. Mow, "A VLSI architecture of a K-best lattice decoding algorithm
for MIMO channels", ISCAS 2002.
"""
from functools import lru_cache

import numpy as np

LARGEST_LEVEL = 1023      # of AC, that baseline Huffman codes hold (DC differences: 2047)
DELTA = 0.9               # of the Lovasz condition
LARGEST = 100.0           # part along another row that is left
APART = 1e-5              # that each row goes in a direction of its own, too: some say the same
TINY = 1e-300             # a square that is as good as 0


def reduced(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A reduced basis of a lattice, for `nearest_plane` and `nearest_points`.

    Rows fulfil the condition of Lovasz. Of a row's parts along earlier ones, that along the one
    just before is reduced; the others, which do not change the nearest plane, only where one is
    larger than LARGEST. Sorting the rows first saves most of the work.

    Parameters
    ----------
    basis : float array, shape (k, d)
        Rows, as a rule linearly independent.

    Returns
    -------
    rows : float64 array, shape (k, d)
    made_of : int64 array, shape (k, k)
        ``rows == made_of @ basis``.
    """
    return _reduced(np.asarray(basis, np.float64).tobytes(), basis.shape)


@lru_cache(maxsize=64)
def _reduced(basis, shape):
    basis = np.frombuffer(basis).reshape(shape)
    made_of = np.eye(len(basis), dtype=np.int64)[_sorted(basis)]
    _, r = np.linalg.qr(np.concatenate([(made_of @ basis).T, APART * made_of.T]))
    mu, norms = (r / np.diag(r)[:, None]).T.copy(), np.square(np.diag(r))  # Gram-Schmidt
    k = 1
    while k < len(basis):
        if abs(mu[k, k - 1]) > 0.5:
            times = round(mu[k, k - 1])
            made_of[k] -= times * made_of[k - 1]
            mu[k, :k] -= times * mu[k - 1, :k]
        m = mu[k, k - 1]
        if norms[k] >= (DELTA - m * m) * norms[k - 1]:
            if k > 1 and np.abs(mu[k, :k - 1]).max() > LARGEST:
                for j in range(k - 2, -1, -1):
                    times = round(mu[k, j])
                    made_of[k] -= times * made_of[j]
                    mu[k, :j + 1] -= times * mu[j, :j + 1]
            k += 1
            continue
        new, pair, turned = norms[k] + m * m * norms[k - 1], [k - 1, k], [k, k - 1]
        mu[k, k - 1] = m * norms[k - 1] / new
        norms[pair] = new, norms[k - 1] * norms[k] / new
        made_of[pair] = made_of[turned]
        mu[pair, :k - 1] = mu[turned, :k - 1]
        below = mu[k + 1:, k].copy()
        mu[k + 1:, k] = mu[k + 1:, k - 1] - m * below
        mu[k + 1:, k - 1] = below + mu[k, k - 1] * mu[k + 1:, k]
        k = max(k - 1, 1)
    return made_of @ basis, made_of


def _sorted(basis):
    """The order of the rows in which each next one adds the least that is new: (k,) int."""
    new, order = basis.copy(), np.arange(len(basis))
    sizes = np.square(new).sum(axis=1)
    for k in range(len(order)):
        least = k + sizes[order[k:]].argmin()
        order[[k, least]] = order[[least, k]]
        unit, rest = new[order[k]] / np.sqrt(max(sizes[order[k]], TINY)), order[k + 1:]
        new[rest] -= (new[rest] @ unit)[:, None] * unit
        sizes[rest] = np.square(new[rest]).sum(axis=1)
    return order


def _turned(rows, made_of, targets):
    """Targets (n, d), turned so that the rows are those of a triangular matrix: (n, k), (k, k)."""
    q, r = np.linalg.qr(np.concatenate([rows.T, APART * made_of.T]))
    return targets @ q[:rows.shape[1]], r


def _levels(numbers):
    """Whole numbers, no larger than a file holds: what cannot be seen may lead anywhere."""
    return np.clip(np.rint(numbers), -LARGEST_LEVEL, LARGEST_LEVEL).astype(int)


def nearest_plane(rows: np.ndarray, made_of: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Lattice points near n targets, by the coefficients of the basis that was reduced.

    Parameters
    ----------
    rows, made_of : as `reduced` returns them
    targets : float array, shape (n, d)

    Returns
    -------
    int array, shape (n, k)
    """
    left, r = _turned(rows, made_of, targets)
    times = np.empty((len(targets), len(rows)))
    for k in range(len(rows) - 1, -1, -1):
        times[:, k] = np.rint(left[:, k] / r[k, k])
        left -= times[:, k, None] * r[:, k]
    return _levels(times @ made_of)


def nearest_points(rows: np.ndarray, made_of: np.ndarray, targets: np.ndarray,
                   count: int) -> np.ndarray:
    """Several lattice points near each of n targets, the likeliest first.

    As `nearest_plane`, but at each step down from the last plane the `count` best ways so far are
    kept, each of which goes on to its three nearest planes ("K-best" sphere decoding).

    Parameters
    ----------
    rows, made_of : as `reduced` returns them
    targets : float array, shape (n, d)
    count : int

    Returns
    -------
    int array, shape (count, n, k)
    """
    left, r = _turned(rows, made_of, targets)
    n, size = len(targets), len(rows)
    left = left[:, None]                             # (n, ways, k)
    times, cost = np.zeros((n, 1, size)), np.zeros((n, 1))
    each = np.arange(n)[:, None]
    for k in range(size - 1, -1, -1):
        at = left[..., k] / r[k, k]
        near = np.rint(at)
        side = np.where(at >= near, 1.0, -1.0)
        tried = np.stack([near, near + side, near - side], axis=2)
        costs = cost[..., None] + np.square((at[..., None] - tried) * r[k, k])
        tried, costs = tried.reshape(n, -1), costs.reshape(n, -1)
        keep = min(count, tried.shape[1])
        best = np.argpartition(costs, keep - 1, axis=1)[:, :keep]
        way, chosen, cost = best // 3, tried[each, best], costs[each, best]
        times = times[each, way]
        times[..., k] = chosen
        left = left[each, way, :k] - chosen[..., None] * r[:k, k]
    order = cost.argsort(axis=1, kind='stable')
    return _levels(times[each, order] @ made_of).transpose(1, 0, 2)


def dithered(aims: np.ndarray, count: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Targets around n aims, (count, n, d): the aims themselves, then each moved at random."""
    targets = np.repeat(aims[None], count, axis=0)
    targets[1:] += rng.uniform(-spread, spread, targets[1:].shape)
    return targets
