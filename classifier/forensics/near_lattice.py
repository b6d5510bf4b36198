"""Which blocks lie so near the lattice of which tables that these may have made them.

    table, block, levels = near_lattice(coefficients, tables, limit)

Of many tables and blocks, few pairs fit, and most others show it at low frequencies, so that only
the rest is looked at whole. By Parseval's theorem the squared distances of the coefficients from
their multiples sum up to those of the pixels.
"""
import numpy as np

LOW = np.array([8 * u + v for u in range(8) for v in range(8) if u + v < 5])  # frequencies


def near_lattice(coefficients: np.ndarray, tables: np.ndarray, limit: float,
                 always: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a table and a block that is near its lattice, in the order of the tables.

    Parameters
    ----------
    coefficients : float32 array, shape (n, 64)
    tables : array, shape (t, 64)
        Steps.
    limit : float
        Squared gray levels, summed up over a block, that it may be off.
    always : bool array, shape (n,), optional
        Blocks that are near every lattice.

    Returns
    -------
    table, block : int arrays, shape (m,)
    levels : float32 array, shape (m, 64)
        The block's coefficients divided by the table's steps and rounded.
    """
    steps = np.asarray(tables, np.float32)
    low = np.ascontiguousarray(coefficients[:, LOW])
    near = _distance(low, steps[:, None, LOW])[1] <= limit
    if always is not None:
        near |= always
    table, block = np.nonzero(near)
    levels, distance = _distance(coefficients[block], steps[table])
    near = distance <= limit
    if always is not None:
        near |= always[block]
    if near.all():
        return table, block, levels
    return table[near], block[near], levels[near]


def _distance(coefficients, steps):
    """Coefficients divided by steps and rounded; their squared distance from that, summed up."""
    levels = np.rint(coefficients / steps)
    rest = levels * steps
    rest -= coefficients
    return levels, np.einsum('...f,...f->...', rest, rest)
