"""What is known of one image: the answer of its pixels, and what its file's header is worth."""
from dataclasses import dataclass

from classifier.forensics.header import JpegHeader
from classifier.forensics.lattice import Lattice
from classifier.forensics.recompression import Earlier
from classifier.posterior import Posterior

# Levels by which the whole interval of the pixels' quality must lie below the header's to
# contradict it; of tables that are not libjpeg's, whose quality is only the nearest, more.
CONTRADICTION, CONTRADICTION_NEAREST = 10, 25


@dataclass(frozen=True)
class Prediction:
    """What the pixels of one image say.

    Parameters
    ----------
    network_quality : float or None
        The network's answer, 1..100; None where it was not asked or cannot tell.
    confident_patches, patches : int
        Patches above the threshold, and patches looked at. By the paper's median, an image
        without a confident one has quality 100, the best: no patch was reliable.
    posterior : posterior.Posterior or None
        What the network's answer is taken from; None for a median, and where it was not asked or
        nothing in the image says anything.
    lattice : forensics.lattice.Lattice or None
        What the quantization lattice says; None where it was not asked.
    reason : str or None
        Why there is no answer.
    edited : float or None
        Probability that the pixels were changed after they were decoded, where the posterior
        tells, 0..1.
    nearest : int or None
        Where the pixels prove a header's table that is not libjpeg's: the nearest quality, 1..100.
    codec : str or None
        'WebP' or 'AVIF', where its decoder is proved to have made the pixels; looked for only
        where the network answers.
    header : forensics.header.JpegHeader or None
        Of the JPEG file that the pixels come from, where that is known.
    earlier : forensics.recompression.Earlier or None
        The compression before the last one; None where it was not looked for.
    """
    network_quality: float | None
    confident_patches: int
    patches: int
    posterior: Posterior | None = None
    lattice: Lattice | None = None
    reason: str | None = None
    edited: float | None = None
    nearest: int | None = None
    codec: str | None = None
    header: JpegHeader | None = None
    earlier: Earlier | None = None

    @property
    def is_refined(self) -> bool:
        """Whether the lattice gave the answer."""
        return self.lattice is not None and self.lattice.quality is not None

    @property
    def confirms_header(self) -> bool:
        """Whether the pixels prove the table of the header that came with them."""
        return self.lattice is not None and self.lattice.from_header

    @property
    def method(self) -> str:
        """What gave the answer: 'lattice', 'network', or 'none' where there is no answer."""
        if self.is_refined or self.nearest is not None:
            return 'lattice'
        return 'none' if self.network_quality is None else 'network'

    @property
    def quality(self) -> float | None:
        """The answer, 1..100: the lattice's integer, else the network's; None for no answer."""
        if self.is_refined:
            return float(self.lattice.quality)
        return self.network_quality if self.nearest is None else float(self.nearest)

    @property
    def uncertainty(self) -> float | None:
        """Standard deviation of the network's answer, in levels; None without a posterior."""
        return self.posterior and self.posterior.uncertainty

    @property
    def quality_low(self) -> int | None:
        """Lower end of the interval: of the lattice's qualities, or the credible interval's."""
        if self.is_refined:
            return self.lattice.quality_low
        return self.nearest or (self.posterior and self.posterior.low)

    @property
    def quality_high(self) -> int | None:
        """Upper end of that interval."""
        if self.is_refined:
            return self.lattice.quality_high
        return self.nearest or (self.posterior and self.posterior.high)

    @property
    def compressed(self) -> float | None:
        """Probability that the pixels were JPEG compressed, 0..1; None where it is not known.

        Those of a JPEG file were, whatever the network thinks of them.
        """
        if self.header is not None or self.method == 'lattice':
            return 1.0
        return self.posterior and self.posterior.compressed

    @property
    def verdict(self) -> str:
        """What the header is worth: 'consistent', 'recompressed', 'contradiction', 'not checked',
        or 'no header'."""
        if self.header is None:
            return 'no header'
        if self.earlier is None:
            return 'not checked'
        if self.earlier.quality is not None:
            return 'recompressed'
        return 'contradiction' if contradicts(self, self.header) else 'consistent'


def contradicts(prediction: Prediction, header: JpegHeader) -> bool:
    """Whether the pixels show another quality than the file's header, or a far lower one."""
    if header.quality is None or prediction.quality is None or prediction.quality_high is None:
        return False
    if prediction.confirms_header:  # else by an earlier compression
        seen = prediction.posterior if prediction.network_quality is not None else None
        return bool(seen) and seen.compressed > 0.5 and seen.high < header.quality - CONTRADICTION
    if prediction.is_refined and header.standard:
        return header.quality not in prediction.lattice.qualities
    allowed = CONTRADICTION if header.standard else CONTRADICTION_NEAREST
    return prediction.quality_high < header.quality - allowed
