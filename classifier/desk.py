"""What the page of app.py asks for: reports, maps and files, of one picture at a time.

    desk = Desk(Predictor(), max_pixels, folder)
    picture = desk.look('/tmp/1', 'photo.png')
    files = files_made_of(picture, desk.draw_map(picture, print))
"""
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from classifier.files import save_figure
from classifier.images import FORMATS, read_image
from classifier.page import Picture
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.report import look_at


class Stopped(Exception):
    """A map was given up, for something else was asked for."""


class Desk:
    """One predictor for all who ask; it works for one of them at a time.

    Parameters
    ----------
    predictor : Predictor
        Automatic.
    max_pixels : int
        Larger images are refused.
    folder : Path
        Where files to download are put.
    """

    def __init__(self, predictor: Predictor, max_pixels: int, folder: Path):
        self.predictor, self.max_pixels, self.folder = predictor, max_pixels, folder
        self.lock, self.requests = threading.Lock(), 0

    def new_request(self) -> int:
        """The number of a request; a map that an earlier one asked for is given up."""
        self.requests += 1
        return self.requests

    def look(self, path: str, name: str) -> Picture:
        """The `Picture` of a file, with all that is found out about it."""
        with self.lock:
            found = look_at(path, None, True, self.max_pixels, self.predictor)
        return Picture(name, Path(path), found)

    def draw_map(self, picture: Picture, progress: Callable[[float], Any]) -> Path:
        """A PNG file with the quality map of a picture that has pixels.

        Parameters
        ----------
        picture : Picture
        progress : callable
            Gets the share that is done, 0..1.

        Raises
        ------
        Stopped
            Something else was asked for meanwhile.
        InputError
            The picture is too small.
        """
        number, path = self.new_request(), self.new_file(f'{Path(picture.name).stem}_map.png')
        with self.lock:
            image = read_image(picture.path, self.max_pixels)
            found = quality_map(_Watched(self, number, len(image), progress), image)
            save_figure(map_figure(image, found, self.predictor.threshold), path)
        return path

    def new_file(self, name: str) -> Path:
        """A path for a file of that name, in a folder of its own."""
        return Path(tempfile.mkdtemp(dir=self.folder), name)


class _Watched:
    """A desk's predictor that says how far a map is, and gives up when it is not wanted."""

    def __init__(self, desk, number, height, progress):
        self.desk, self.number, self.progress, self.done = desk, number, progress, 0
        self.type = desk.predictor.type
        self.rows = height // self.type.block

    def run_network(self, patches):
        if self.desk.requests != self.number:
            raise Stopped
        self.done += 1
        if self.done % 8 == 0:
            self.progress(self.done / self.rows)
        return self.desk.predictor.run_network(patches)


def files_made_of(picture: Picture, map_path: Path | None = None) -> list[str]:
    """The files to download that belong to a picture that has pixels: its map, once it is drawn."""
    return [str(map_path)] if map_path else []


def pixels_of(path: Path) -> int:
    """How many pixels an image file has that can be read."""
    with Image.open(path, formats=FORMATS) as image:
        return image.width * image.height
