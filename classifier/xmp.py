"""What was found about an image as an XMP sidecar beside it, which photo managers read.

The sidecar of photo.jpg is photo.jpg.xmp: so digiKam names them by default and darktable always,
and photo.jpg and photo.png do not share one. Plain tags in a namespace of this project hold what
the columns of the same names hold; keywords (dc:subject) are there to filter by.

Sources: ISO 16684-1 (XMP); digiKam's manual, "Metadata Settings", and darktable's, "sidecar files".
"""
import os
from pathlib import Path
from xml.etree import ElementTree

from classifier.cli import printable
from classifier.conclusion import span
from classifier.errors import InputError
from classifier.files import whole_file
from classifier.report import Report
from classifier.summary import kind, saved_before

NAMESPACE = 'urn:q1net:jpeg-quality:1.0#'
TOOL = 'Q1Net'  # in a sidecar's x:xmptk; every other program puts its own name there
TAGS = ('quality', 'quality_low', 'quality_high', 'method', 'compressed', 'verdict')
LARGEST = 65536  # bytes; a sidecar of this project has some thousand

XMP, RDF = 'adobe:ns:meta/', 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'
DC = 'http://purl.org/dc/elements/1.1/'
for _prefix, _uri in (('x', XMP), ('rdf', RDF), ('dc', DC), ('q1net', NAMESPACE)):
    ElementTree.register_namespace(_prefix, _uri)


def sidecar_path(image: str | os.PathLike) -> Path:
    """Where an image's sidecar is: its whole name, and .xmp."""
    return Path(f'{os.fspath(image)}.xmp')


def keywords(report: Report) -> list[str]:
    """What a photo manager can filter by.

    Parameters
    ----------
    report : Report

    Returns
    -------
    list of str
        First the quality: 'JPEG quality 75' if it is exact ('... in a part' of the image), 'JPEG
        quality near 82' of a table that is not libjpeg's, 'JPEG quality about 66' of an estimate,
        'no sign of JPEG' or 'JPEG quality unknown'; then 'recompressed' where an earlier save was
        found, and 'JPEG header contradicted'.
    """
    row = report.row
    if row['method'] == 'lattice' and row['refined'] is not None:
        part = '' if row.get('region_x') is None else ' in a part'
        about = 'about ' if kind(row) == 'estimated' else ''
        found = [f'JPEG quality {about}{span(row["quality_low"], row["quality_high"])}{part}']
    elif row['method'] == 'lattice' or row.get('table_quality') is not None:
        found = [f'JPEG quality near {row.get("table_quality") or row["quality"]:.0f}']
    elif row['method'] == 'none':
        found = ['JPEG quality unknown']
    elif kind(row) == 'never JPEG':
        found = ['no sign of JPEG']
    else:
        found = [f'JPEG quality about {row["quality"]:.0f}']
    if saved_before(row):
        found.append('recompressed')
    return found + ['JPEG header contradicted'] * (row['verdict'] == 'contradiction')


def sidecar(report: Report) -> bytes:
    """The sidecar of an image, as XML."""
    root = ElementTree.Element(f'{{{XMP}}}xmpmeta', {f'{{{XMP}}}xmptk': TOOL})
    rdf = ElementTree.SubElement(root, f'{{{RDF}}}RDF')
    description = ElementTree.SubElement(rdf, f'{{{RDF}}}Description', {f'{{{RDF}}}about': ''})
    found = {name: report.row[name] for name in TAGS} | {'conclusion': report.conclusion or None}
    for name, value in found.items():
        if value is not None:
            text = f'{value:.4g}' if isinstance(value, float) else printable(value)
            ElementTree.SubElement(description, f'{{{NAMESPACE}}}{name}').text = text
    subject = ElementTree.SubElement(description, f'{{{DC}}}subject')
    bag = ElementTree.SubElement(subject, f'{{{RDF}}}Bag')
    for keyword in keywords(report):
        ElementTree.SubElement(bag, f'{{{RDF}}}li').text = keyword
    ElementTree.indent(root)
    return ElementTree.tostring(root, 'utf-8', xml_declaration=True) + b'\n'


def is_ours(path: str | os.PathLike) -> bool:
    """Whether a file is a sidecar as this project writes it, with nothing added by others."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size > LARGEST:
        return False
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError):  # not XML, an unknown encoding
        return False
    if root.tag != f'{{{XMP}}}xmpmeta' or root.get(f'{{{XMP}}}xmptk') != TOOL:
        return False
    described = list(root.iter(f'{{{RDF}}}Description'))
    names = {name for element in described for name in element.attrib}
    names.update(child.tag for element in described for child in element)
    return all(name in (f'{{{RDF}}}about', f'{{{DC}}}subject')
               or name.startswith(f'{{{NAMESPACE}}}') for name in names)


def write_sidecar(image: str | os.PathLike, report: Report) -> InputError | None:
    """Write an image's sidecar, in the place of an older one of this project's only.

    Parameters
    ----------
    image : path-like
    report : Report

    Returns
    -------
    InputError or None
        Why it was not written: there is one of another program's, or the place is not writable.
    """
    path = sidecar_path(image)
    try:
        if os.path.lexists(path) and not is_ours(path):
            return InputError(f'{path}: not written by this program, and left as it is; move it '
                              'away or leave --xmp out')
        with whole_file(path, 'wb') as file:
            file.write(sidecar(report))
    except OSError as error:
        return InputError(f'{path}: cannot be written ({error.strerror})')
    return None
