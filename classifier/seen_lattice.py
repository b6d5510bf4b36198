"""The answer where the lattice of a standard table is seen in an image, but not proved.

A slight change of the pixels (a gamma of 1.03, a channel raised by 2 levels, a way through YUV
4:2:0, another program's conversion of colours) leaves no block exact, but coefficients near the
multiples of the table's steps. Where a single standard table explains most of what any steps would
explain, and the network's credible interval holds it, the two confirm each other, though they look
at different things, and the interval is narrowed to NEIGHBOURS.

A loss of contrast scales the steps: they are then near those of a finer table. So a table is seen
only if it explains EXPLAINED of the evidence of the best steps, one by one. Of 14 photos and
drawings to train on, at 30 to 90 and changed a little in 35 ways, 243 of 1,225 showed a table and
no exact one. 234 times it was the one that they were coded with, 7 times a neighbour of that; of
two, of which contrast was reduced by 7 and 10 %, it was 4 and 3 levels higher. None of 220 pictures
that were never compressed showed one, nor any of 340 coded with another encoder's table, and then
changed.
"""
from dataclasses import replace

from classifier.forensics.decoded_otherwise import is_explained
from classifier.forensics.exact_blocks import FINE_FROM
from classifier.forensics.lattice import Lattice
from classifier.forensics.scores import FEW_LUMA
from classifier.posterior import Posterior
from classifier.prediction import Prediction

LEAST_EVIDENCE = 200.0    # nats
NEIGHBOURS = 2            # levels around the table that is seen
DEVIATION = 1.0           # standard deviation of these, in levels


def seen_quality(lattice: Lattice) -> int | None:
    """The quality of the table whose lattice is seen, 1..100; None where that is not clear."""
    if (is_explained(lattice) and lattice.evidence >= LEAST_EVIDENCE
            and lattice.blocks > FEW_LUMA and lattice.likeliest < FINE_FROM):
        return lattice.likeliest
    return None


def narrowed(found: Prediction) -> Prediction:
    """The network's prediction, with the quality of the table that is seen if they agree.

    Parameters
    ----------
    found : Prediction
        Of the network, with the lattice, which has no quality.
    """
    quality, network = seen_quality(found.lattice), found.posterior
    if quality is None or network is None or not network.low <= quality <= network.high:
        return found
    posterior = Posterior(float(quality), DEVIATION, max(1, quality - NEIGHBOURS),
                          quality + NEIGHBOURS, 1.0)
    return replace(found, network_quality=posterior.quality, posterior=posterior, reason=None)
