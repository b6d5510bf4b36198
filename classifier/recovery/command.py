"""What `predict_cls.py --recover` does: one image to a file, or a folder to a folder."""
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import InputError
from classifier.predictor import Predictor
from classifier.recovery.recover import recover_file
from classifier.report import RECOVERED_FIELDS, Report, look_at


@dataclass(frozen=True)
class Recovery:
    """Where recovered files go.

    Parameters
    ----------
    targets : dict
        The file for each image, both as absolute paths.
    allow_difference : bool
        Write files of which some pixels differ.
    """
    targets: dict[str, str]
    allow_difference: bool


def plan(out: Path, paths: list[Path], root: Path | None, allow_difference: bool) -> Recovery:
    """Name a file for each image.

    Parameters
    ----------
    out : Path
        A file or a folder for a single image; a folder for those of a folder.
    paths : list of Path
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
        return Recovery({os.path.abspath(paths[0]): os.path.abspath(out)}, allow_difference)
    if out.exists() and not out.is_dir():
        raise InputError(f'{out}: is a file; for the images of a folder, name a folder')
    below = [path.relative_to(root) for path in paths]
    stems = [path.with_suffix('') for path in below]
    number, whole = Counter(stems), set(below)
    names = [f'{path}.jpg' if number[stem] > 1 or stem in whole else f'{stem}.jpg'  # a.png, a.tif
             for path, stem in zip(below, stems)]
    return Recovery({os.path.abspath(path): os.path.abspath(out / name)
                     for path, name in zip(paths, names)}, allow_difference)


def look_and_recover(path: str | os.PathLike, recovery: Recovery, network: tuple | None,
                     refine: bool, max_pixels: int,
                     predictor: Predictor | None = None) -> Report | InputError:
    """As `report.look_at`, and the JPEG file is recovered: in the row, `recovered` or a warning."""
    report = look_at(path, network, refine, max_pixels, predictor)
    if isinstance(report, InputError):
        return report
    report.row |= dict.fromkeys(RECOVERED_FIELDS)
    if report.error:
        return report
    try:
        outcome = recover_file(Path(path), Path(recovery.targets[os.path.abspath(path)]),
                               recovery.allow_difference, max_pixels)
    except InputError as error:
        reason = str(error).removeprefix(f'{path}: ')
        report.not_recovered = f'not recovered: {reason}'
        return report
    report.row |= outcome.row
    if outcome.failed:
        report.not_recovered = outcome.text
    else:
        report.recovered = outcome.text
    return report
