"""What was found about an image, in one sentence for people."""
from classifier.forensics.header import JpegHeader
from classifier.forensics.lattice import FAST, OTHER, UNKNOWN, Lattice, TableEstimate
from classifier.forensics.recompression import Earlier
from classifier.prediction import Prediction, contradicts

# What is said of a change of tones; a shift of all levels cannot always be told from a negative.
TONES = {'inverted': 'then inverted',
         'brighter or darker': 'then made brighter or darker, or inverted',
         'contrast': 'then its contrast was raised',
         'curve': 'then its tones were changed'}
# By which inverse DCT it was decoded, if not by libjpeg's accurate one.
DECODED = {FAST: 'decoded by the fast inverse DCT',
           OTHER: "decoded by another inverse DCT than libjpeg's"}


def span(low: int, high: int) -> str:
    """'75', or '74 to 76'."""
    return str(low) if low == high else f'{low} to {high}'


def header_said(header: JpegHeader) -> str:
    """What the header of a JPEG file says, in words."""
    said = 'header names no quality' if header.quality is None else (
        f'header says quality {header.quality}')
    if header.standard:
        chroma = header.chroma_quality
        said += f' (chroma {chroma})' if chroma not in (None, header.quality) else ''
    elif header.encoder_setting:
        said += f' ({header.encoder_setting})'
    elif header.quality is not None:
        said += ', nearest to its own tables'
    return f'{said}, {header.subsampling}' + (f'; {header.damage}' if header.damage else '')


def table_said(earlier: Earlier, header: JpegHeader | None = None) -> str:
    """The quality and the table of an earlier compression, in words."""
    said = f'about quality {earlier.quality}'
    if earlier.changed:
        return f'{said} (a rough estimate: its pixels seem to have been changed in between)'
    if earlier.encoder and earlier.encoder != 'libjpeg':
        _, turned, _ = earlier.encoder.partition(', tables turned')
        setting = earlier.encoder_setting or earlier.encoder
        said += f' ({setting}{", then turned by 90 degrees" if turned else ""})'
    elif not earlier.standard:
        said += " (with steps that are not libjpeg's)"
    if header and header.quality is not None and earlier.quality >= header.quality:
        count = f'{earlier.known_steps} or more' if earlier.known_steps else 'some'
        said += f", with {count} of 64 steps coarser than the header's"
    return said


def conclusion(prediction: Prediction, table: TableEstimate | None = None) -> str:
    """What the pixels and, of a JPEG file, the header say together.

    Parameters
    ----------
    prediction : Prediction
        Of the automatic mode, with the header and the earlier compression that belong to it.
    table : TableEstimate, optional
        What is known of the quantization table, where the lattice gave no quality.

    Returns
    -------
    str
        A sentence without the file's name, in lower case.
    """
    header, earlier = prediction.header, prediction.earlier
    if header is None:
        return _of_pixels(prediction, table) + earlier_said(earlier)
    said = f'a JPEG whose {header_said(header)}'
    if earlier_said(earlier):
        return said + earlier_said(earlier, header)
    if contradicts(prediction, header):
        if prediction.confirms_header:
            seen = prediction.posterior
            return (f'{said}, and its pixels confirm that, but they look like those of a JPEG of '
                    f'about quality {seen.quality:.0f} ({span(seen.low, seen.high)}) saved again')
        return f'{said}, but its pixels contradict that: {_of_pixels(prediction, None)}'
    if prediction.confirms_header:
        return (f'{said}, and its pixels confirm that exactly; no earlier compression found '
                f'({proof_said(prediction.lattice)})')
    if prediction.quality is None:
        return f'{said}; from its pixels: {_of_pixels(prediction, table)}'
    return f'{said}; no earlier compression found'


def earlier_said(earlier: Earlier | None, header: JpegHeader | None = None) -> str:
    """The end of a sentence on the last save, about the one before; '' where none was found."""
    if earlier is None or earlier.quality is None:
        return ''
    return (f'; saved before at {table_said(earlier, header)}, block grid at '
            f'({earlier.grid_dy}, {earlier.grid_dx})')


def proof_said(lattice: Lattice) -> str:
    """How many of the blocks are bit for bit what the table makes of them, or within rounding."""
    if lattice.decoder == UNKNOWN:
        return "its pixels are another decoder's than libjpeg's, or were changed a little since"
    how = 'exact within rounding' if lattice.decoder == OTHER else 'bit-exact'
    return f'{lattice.exact_blocks:,} of {lattice.tested_blocks:,} blocks are {how}'


def _of_pixels(prediction: Prediction, table: TableEstimate | None) -> str:
    lattice = prediction.lattice
    if prediction.is_refined:
        exactly = '' if lattice.is_tie or lattice.decoder == UNKNOWN else ', exactly'
        return f'{of_what(lattice, exactly)} ({structure(lattice)}); {proof_said(lattice)}'
    if table is not None and table.quality is not None and not table.standard:
        return ("was compressed with a quantization table that is not libjpeg's, nearest to "
                f'quality {table.quality}')
    if prediction.quality is None:
        return f'cannot tell: {prediction.reason}'
    found = prediction.posterior
    codec = prediction.codec
    if prediction.compressed < 0.5:
        return 'no sign of JPEG compression' + (f'; its pixels come from {codec}' if codec else '')
    return (f'was a JPEG of about quality {prediction.quality:.0f} ({span(found.low, found.high)})'
            + (f'; stored as {codec} afterwards' if codec else
               '; the pixels were changed afterwards' if (prediction.edited or 0) > 0.5 else
               '; no exact quantization table was found'))


def of_what(lattice: Lattice, exactly: str = '') -> str:
    """'was a JPEG of quality 75', or where in the image one is."""
    quality = span(lattice.quality_low, lattice.quality_high) + exactly
    if lattice.region_x is None:
        return f'was a JPEG of quality {quality}'
    right, bottom = (lattice.region_x + lattice.region_width,
                     lattice.region_y + lattice.region_height)
    return (f'holds a JPEG of quality {quality}, at x {lattice.region_x} to {right}, '
            f'y {lattice.region_y} to {bottom}')


def structure(lattice: Lattice) -> str:
    """How it was coded, where its blocks are, and what was done to it since."""
    parts = [lattice.subsampling] if lattice.subsampling else []
    if lattice.chroma_quality not in (None, lattice.quality):
        parts.append(f'chroma of quality {lattice.chroma_quality}')
    parts.append(f'block grid at ({lattice.grid_dy}, {lattice.grid_dx})')
    if lattice.repeated > 1:
        parts.append(f'each pixel then repeated {lattice.repeated} x {lattice.repeated}')
    if lattice.decoder in DECODED:
        parts.append(DECODED[lattice.decoder])
    if lattice.turned:
        parts.append('then turned by 90 degrees')
    if lattice.tone:
        parts.append(TONES[lattice.tone])
    return ', '.join(parts)
