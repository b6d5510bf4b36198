"""What decoders make of a recovered file, compared with the image pixel by pixel."""
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from classifier.forensics.blocks import BLOCK
from classifier.images import from_pillow
from classifier.recovery.decoders import Decoder
from classifier.recovery.picture import Picture


@dataclass(frozen=True)
class Difference:
    """How much of an image a file does not give back."""
    pixels: int              # that differ
    blocks: int              # of 8x8 pixels of the file with such a pixel
    of_blocks: int           # all that show the image
    levels: int              # the largest difference of a channel

    @property
    def is_none(self) -> bool:
        """Whether every pixel is identical."""
        return not self.pixels

    def __str__(self):
        several, plural = self.pixels != 1, 's' * (self.levels != 1)
        return (f'{self.pixels:,} pixel{"s" * several} in {self.blocks:,} of {self.of_blocks:,} '
                f'blocks differ{"s" * (not several)}, by at most {self.levels} level{plural}')


def decoded(data: bytes) -> list[np.ndarray]:
    """The BGR pixels of a JPEG file by Pillow and by OpenCV, an EXIF rotation not applied."""
    with Image.open(io.BytesIO(data)) as image:
        by_pillow = from_pillow(image)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return [by_pillow, cv2.imdecode(np.frombuffer(data, np.uint8), flags)]


def compare(data: bytes, picture: Picture, image: np.ndarray,
            decoder: Decoder) -> Difference:
    """How a file's pixels differ from the image's, (h, w, 3) BGR.

    libjpeg-turbo with its defaults stands for Pillow and OpenCV, and the larger difference counts.
    """
    found, height, width = [], *image.shape[:2]
    for pixels in decoded(data) if decoder.is_default else [decoder.pixels(data)]:
        part = pixels[picture.top:picture.top + height, picture.left:picture.left + width]
        if part.shape != image.shape:
            raise ValueError('the file is smaller than the image')
        off = np.abs(part.astype(np.int16) - image).max(axis=2)
        edges = ((picture.top % BLOCK, -(picture.top + height) % BLOCK),
                 (picture.left % BLOCK, -(picture.left + width) % BLOCK))
        blocks = np.pad(off > 0, edges)
        blocks = blocks.reshape(len(blocks) // BLOCK, BLOCK, -1, BLOCK).any(axis=(1, 3))
        found.append(Difference(int((off > 0).sum()), int(blocks.sum()), blocks.size,
                                int(off.max())))
    return max(found, key=lambda difference: difference.pixels)
