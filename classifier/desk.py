"""What the page of app.py asks for: reports, maps and files, of one picture at a time.

    desk = Desk(Predictor(), max_pixels, folder)
    picture = desk.look('/tmp/1', 'photo.png')
    desk.draw_map(picture, print)
    for news in desk.rebuild(picture):
        print(news)
    files = desk.files_made_of(picture)
"""
import contextlib
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from classifier.files import save_figure
from classifier.images import FORMATS, read_image
from classifier.page import Picture
from classifier.predictor import Predictor
from classifier.quality_map import map_figure, quality_map
from classifier.rebuild import Rebuilding
from classifier.report import look_at


class Stopped(Exception):
    """A map or a JPEG file was given up, for something else was asked for."""


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
        self.lock, self.requests, self.maps, self.rebuilt = threading.Lock(), 0, 0, 0
        self.process = None  # the last one that rebuilds a JPEG file
        self.made = defaultdict(dict)  # {a picture's path: {'map' or 'JPEG': file}}

    def new_request(self) -> None:
        """Another picture is asked for: give up what is made of an earlier one."""
        self.requests += 1

    def close(self) -> None:
        """Give up what is being made."""
        self.new_request()
        if self.process:
            self.process.stop()

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
        self.maps += 1
        asked = self.requests, self.maps

        def watch(done, rows):
            if (self.requests, self.maps) != asked:
                raise Stopped
            if done % 8 == 0:
                progress(done / rows)

        path = self.new_file(f'{Path(picture.name).stem}_map.png')
        with self.lock:
            image = read_image(picture.path, self.max_pixels)
            found = quality_map(self.predictor, image, watch=watch)
            save_figure(map_figure(image, found, self.predictor.threshold), path)
        self.made[picture.path]['map'] = path
        return path

    def rebuild(self, picture: Picture) -> Iterator[str]:
        """The JPEG file of a picture that `can_be_rebuilt`, in a process of its own.

        Parameters
        ----------
        picture : Picture

        Yields
        ------
        str
            How long it has been going on, and last what came of it; `files_made_of` then has the
            file, if every pixel of it is the picture's.

        Raises
        ------
        Stopped
            Something else was asked for meanwhile.
        """
        self.rebuilt += 1
        asked = self.requests, self.rebuilt
        stem = Path(picture.name).stem
        same = Path(picture.name).suffix.lower() == '.jpg'  # by its name alone
        out = self.new_file(f'{stem}_rebuilt.jpg' if same else f'{stem}.jpg')
        self.process = Rebuilding(picture.path, out, self.max_pixels)
        with contextlib.closing(self.process) as process:
            for seconds in process:
                if (self.requests, self.rebuilt) != asked:
                    raise Stopped
                yield f'Rebuilding the JPEG; this can take a minute: {seconds:.0f} s ...'
        if (self.requests, self.rebuilt) != asked:
            raise Stopped
        if out.exists():
            self.made[picture.path]['JPEG'] = out
        yield process.result

    def files_made_of(self, picture: Picture) -> list[str]:
        """The files to download that belong to a picture: its map and its JPEG file, once made."""
        return [str(path) for path in self.made[picture.path].values() if path.exists()]

    def new_file(self, name: str) -> Path:
        """A path for a file of that name, in a folder of its own."""
        return Path(tempfile.mkdtemp(dir=self.folder), name)


def pixels_of(path: Path) -> int:
    """How many pixels an image file has that can be read."""
    with Image.open(path, formats=FORMATS) as image:
        return image.width * image.height
