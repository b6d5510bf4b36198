"""What `predict_cls.py --recover` does: one image to a file, or a folder to a folder."""
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import InputError
from classifier.predictor import Predictor
from classifier.recovery.recover import recover_file
from classifier.report import RECOVERED_FIELDS, Report, look_at


def plan(out: Path, paths: Sequence[Path], root: Path | None) -> list[str]:
    """The absolute path of a file for each image.

    Parameters
    ----------
    out : Path
        A file or a folder for a single image; a folder for those of a folder.
    paths : sequence of Path
    root : Path, optional
        The folder of the images, whose subfolders are kept below `out`; None for a single image.

    Raises
    ------
    InputError
        `out` is a file and should be a folder, or the other way round.
    """
    if root is None:
        if out.is_dir():
            out = out / f'{paths[0].stem}.jpg'
        elif out.suffix.lower() not in ('.jpg', '.jpeg'):
            raise InputError(f'{out}: name a file that ends in .jpg, or a folder that is there')
        return [os.path.abspath(out)]
    if out.exists() and not out.is_dir():
        raise InputError(f'{out}: is a file; for the images of a folder, name a folder')
    below = [path.relative_to(root) for path in paths]
    stems = [path.with_suffix('') for path in below]
    number, whole = Counter(stems), set(below)
    return [os.path.abspath(out / (
        f'{path}.jpg' if number[stem] > 1 or stem in whole else f'{stem}.jpg'))  # a.png, a.tif
        for path, stem in zip(below, stems)]


def look_and_recover(item: tuple[str, str], allow_difference: bool, network: tuple | None,
                     refine: bool, max_pixels: int,
                     predictor: Predictor | None = None) -> Report | InputError:
    """As `report.look_at`, and the JPEG file is recovered: in the row, `recovered` or a warning.

    Parameters
    ----------
    item : (str, str)
        Absolute paths of the image and of its file.
    allow_difference : bool
        Write files of which some pixels differ.
    """
    path, out = item

    def recovered(report, image, found):
        try:
            outcome = recover_file(Path(path), Path(out), allow_difference, max_pixels, image,
                                   found)
        except InputError as error:
            reason = str(error).removeprefix(f'{path}: ')
            report.not_recovered = f'not recovered: {reason}'
            return
        report.row |= outcome.row
        if outcome.failed:
            report.not_recovered = outcome.text
        else:
            report.recovered = outcome.text

    report = look_at(path, network, refine, max_pixels, predictor, recovered)
    if isinstance(report, Report):
        report.row |= {name: report.row.get(name) for name in RECOVERED_FIELDS}
    return report
