"""All that is found out about one image file: its row for CSV and JSON, and lines for people."""
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from classifier.batch import opened
from classifier.conclusion import (conclusion, earlier_said, header_said, of_what, proof_said, span,
                                   structure, table_said)
from classifier.errors import InputError
from classifier.forensics.coded_data import coded_damage
from classifier.forensics.decoded_otherwise import is_explained
from classifier.forensics.header import JpegHeader, known_header
from classifier.forensics.lattice import UNKNOWN, TableEstimate, estimate_table
from classifier.images import MAX_PIXELS, read_image
from classifier.prediction import Prediction
from classifier.predictor import Predictor

FIELDS = ('path', 'quality', 'confident_patches', 'patches', 'seconds', 'uncertainty',
          'header_quality', 'header_standard', 'verdict', 'quality_low', 'quality_high', 'method',
          'compressed', 'reason', 'header_chroma_quality', 'header_subsampling', 'header_colours',
          'header_process', 'header_damage', 'encoder', 'encoder_setting', 'edited',
          'earlier_quality', 'earlier_grid_dy', 'earlier_grid_dx', 'earlier_encoder',
          'earlier_encoder_setting')
OF_AN_EARLIER = 'quality', 'grid_dy', 'grid_dx', 'encoder', 'encoder_setting'
REGION = 'region_x', 'region_y', 'region_width', 'region_height'
FROM_LATTICE = ('grid_dy', 'grid_dx', 'margin', 'evidence', 'blocks', 'subsampling',
                'chroma_quality', 'exact_blocks', 'tested_blocks', 'turned', 'repeated', 'tone',
                'decoder', *REGION)
REFINED_FIELDS = 'network_quality', 'refined', *FROM_LATTICE, 'table_quality'
RECOVERED_FIELDS = 'recovered', 'recovered_bytes'   # where the JPEG file was to be recovered
OF_A_LATTICE = ('grid_dy', 'grid_dx', 'exact_blocks', 'tested_blocks', 'turned', 'repeated', 'tone',
                'decoder', *REGION)


@dataclass
class Report:
    """What is found out about an image; none of the texts names its path.

    Parameters
    ----------
    row : dict
        By FIELDS and, where the lattice was asked, REFINED_FIELDS.
    conclusion : str
        In automatic mode a sentence.
    details : list of str
        Lines that say more.
    warnings : list of str
    error : str, optional
        Why the pixels cannot be used, so that only the header was read.
    recovered, not_recovered : str
        What became of the JPEG file that was to be recovered.
    """
    row: dict
    conclusion: str = ''
    error: str | None = None
    details: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    recovered: str = ''
    not_recovered: str = ''


def report_on(path: str | os.PathLike, predictor: Predictor, refine: bool = False,
              max_pixels: int = MAX_PIXELS) -> Report:
    """The `Report` on an image file; InputError where it cannot be read.

    Parameters
    ----------
    path : path-like
    predictor : Predictor
    refine, max_pixels
        As `Predictor.predict` and `images.read_image` take them.
    """
    found = look_at(path, None, refine, max_pixels, predictor)
    if isinstance(found, InputError):
        raise InputError(f'{path}: {found}')
    return found


def look_at(path: str | os.PathLike, network: tuple | None, refine: bool, max_pixels: int,
            predictor: Predictor | None = None, then: Callable | None = None
            ) -> Report | InputError:
    """The `Report` on an image file, or the reason why there is none.

    Without a predictor, it is this thread's own. `seconds` is without reading the file. `then`, if
    given, is called with the report, the BGR pixels and their `Lattice` or None.
    """
    predictor = predictor or opened(network)
    warnings, header = [], None
    try:
        header = known_header(path)
        image = read_image(Path(path), max_pixels, warnings.append, header and header.colours)
        if header and (damage := coded_damage(path)):
            warnings += [f'corrupt JPEG data: {what}' for what in damage]
            header = replace(header, damage='; '.join(filter(None, [header.damage, *damage])))
        began = time.perf_counter()
        prediction = predictor.predict(image, refine, header and header.luma_table)
        seconds = time.perf_counter() - began
    except InputError as error:
        reason = str(error).removeprefix(f'{path}: ')
        if not header:
            return InputError(reason)
        return _without_pixels(path, header, reason, refine or predictor.automatic)
    if predictor.fusion == 'median' and not prediction.confident_patches:
        warnings.append(f'no patch was reliable (none more than {predictor.threshold:g} sure), '
                        'so the best quality is assumed')
    prediction = predictor.with_history(image, prediction, header)
    row = _row(path, prediction, seconds)
    lattice = prediction.lattice
    unread = lattice is not None and prediction.method != 'lattice'
    table = estimate_table(image, lattice.best_grid) if unread else None
    if unread and is_explained(lattice):  # the likeliest standard table is nearer than these steps
        table = replace(table, quality=None)
    report = Report(row, warnings=[warning.removeprefix(f'{path}: ') for warning in warnings])
    if table is not None and not table.standard:
        row['table_quality'] = table.quality
        row['compressed'] = 1.0 if table.quality else row['compressed']
    if predictor.automatic:
        report.conclusion = conclusion(prediction, table)
    else:
        report.details = _details(row, prediction, table)
    if then:
        then(report, image, prediction.lattice)
    return report


def _without_pixels(path: str | os.PathLike, header: JpegHeader, reason: str,
                    refined: bool) -> Report:
    row = _row(path, Prediction(None, 0, 0, reason=reason, header=header), 0.0)
    row |= dict.fromkeys((*(REFINED_FIELDS if refined else ()), 'compressed'))
    said = f'{header_said(header)}; its pixels cannot be used'
    return Report(row, said, error=reason, details=[said])


def _row(path: str | os.PathLike, prediction: Prediction, seconds: float) -> dict:
    header, earlier = prediction.header, prediction.earlier
    found = earlier is not None and earlier.quality is not None
    row = dict(zip(FIELDS, (
        path, prediction.quality, prediction.confident_patches, prediction.patches, seconds,
        prediction.uncertainty, header and header.quality, header and header.standard,
        prediction.verdict,
        prediction.quality_low, prediction.quality_high, prediction.method, prediction.compressed,
        prediction.reason, *(header and getattr(header, name) for name in (
            'chroma_quality', 'subsampling', 'colours', 'process', 'damage', 'encoder',
            'encoder_setting')),
        prediction.edited if prediction.method == 'network' else None,
        *(getattr(earlier, name) if found else None for name in OF_AN_EARLIER))))
    if (lattice := prediction.lattice) is not None:
        row |= {'network_quality': prediction.network_quality, 'refined': lattice.quality,
                **{name: getattr(lattice, name) for name in FROM_LATTICE},
                'table_quality': None}
        if prediction.method != 'lattice':
            row |= dict.fromkeys(OF_A_LATTICE)
    return row


def _details(row: dict, prediction: Prediction, table: TableEstimate | None) -> list[str]:
    """The answer of a chosen network, and what lattice and header say."""
    header, earlier = prediction.header, prediction.earlier
    if prediction.quality is None:
        lines = [f'cannot tell: {prediction.reason}, looked at in {row["seconds"]:.3f} seconds']
    else:
        lines = [f'predicted quality {prediction.quality:.2f}, estimated in '
                 f'{row["seconds"]:.3f} seconds']
    if prediction.lattice is not None:
        lines.append(_lattice_line(row, prediction, table))
    if header:
        line = f'{header_said(header)}; '
        if row['verdict'] == 'recompressed':
            line += (f'recompressed: an earlier JPEG of {table_said(earlier, header)}, grid at '
                     f'({earlier.grid_dy}, {earlier.grid_dx})')
        elif row['verdict'] == 'contradiction':
            seen = prediction.posterior
            low, high = ((seen.low, seen.high) if prediction.confirms_header
                         else (row['quality_low'], row['quality_high']))
            line += f'contradiction: its pixels look like quality {span(low, high)}'
        else:
            line += ('no earlier compression found' if row['verdict'] == 'consistent' else
                     'not checked, for it has no luma table')
        lines.append(line)
    elif prediction.lattice is not None:
        known = f': {of_what(prediction.lattice)}' if prediction.is_refined else ''
        lines.append(f'no header{known}{earlier_said(earlier)}')
    return lines


def _lattice_line(row: dict, prediction: Prediction, table: TableEstimate | None) -> str:
    """What the quantization lattice says."""
    if prediction.nearest is not None:
        return f"the header's own table, exactly: {proof_said(prediction.lattice)}"
    if table is None:
        low, high = prediction.quality_low, prediction.quality_high
        exact = 'exact ' if low == high and prediction.lattice.decoder != UNKNOWN else ''
        return (f'{exact}quality {span(low, high)}, {structure(prediction.lattice)}, '
                f'{proof_said(prediction.lattice)}')
    if table.quality is not None and not table.standard:
        return (f'not a standard quantization table: {(table.steps > 0).sum()} of 64 luma '
                f'steps known, nearest quality {table.quality}')
    return "no quantization lattice found: the network's answer stands"
