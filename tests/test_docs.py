"""README.md and docs/ say what is there: links, pictures, commands, options, columns, names."""
import argparse
import ast
import contextlib
import importlib
import re
import shlex
from functools import lru_cache

import pytest

from conftest import REPOSITORY

README, COMMANDS = REPOSITORY / 'README.md', REPOSITORY / 'docs' / 'commands.md'
PAGES = [README, *sorted((REPOSITORY / 'docs').glob('*.md')),
         REPOSITORY / 'sample_image' / 'README.md']
MODULES = {f'{name}.py': f'classifier.{name}' for name in
           ('predict_cls', 'app', 'evaluate_cls', 'gen_data', 'train', 'to_tflite')}
MODULES['mobilenet'] = 'classifier.studies.mobilenet'
OWN_SCRIPTS = [REPOSITORY / 'tests' / name for name in ('benchmark.py', 'fuzz_images.py')]
BATCH = (REPOSITORY / 'batch_train_jpeg_paper.sh').read_text()
TESTS = ''.join(path.read_text() for path in (REPOSITORY / 'tests').glob('test_*.py'))
OPTION = re.compile(r'--[a-z][a-z0-9_]+')


class Caught(Exception):
    """Carries what a script parses out of it, before any work."""


@lru_cache(maxsize=None)
def parts(page):
    """A page's prose, line by line, and its code blocks, (language, text) each."""
    prose, blocks, fence = [], [], None
    for line in page.read_text(encoding='utf-8').splitlines():
        if line.startswith('```'):
            fence = None if fence is not None else line[3:]
            if fence is not None:
                blocks.append((fence, ''))
        elif fence is not None:
            blocks[-1] = fence, f'{blocks[-1][1]}{line}\n'
        elif line.startswith('    '):
            blocks.append(('', line.strip()))
        else:
            prose.append(line)
    return prose, blocks


def anchors(page):
    """What GitHub calls the headings of a page."""
    found = set()
    for line in parts(page)[0]:
        if re.match('#+ ', line):
            text = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', line.lstrip('# ').lower())
            slug = re.sub(r'[^\w\- ]', '', text).replace(' ', '-')
            found.add(slug if slug not in found else f'{slug}-1')
    return found


def inline_code():
    """Yields (page, text) for each piece of code within the prose."""
    for page in PAGES:
        for text in re.findall('`([^`]+)`', ' '.join(parts(page)[0])):
            yield page, text


def commands():
    """Yields (page, words) for each command, also of those within the prose."""
    found = [(page, line) for page in PAGES for language, text in parts(page)[1]
             for line in text.replace('\\\n', ' ').splitlines() if language in ('', 'bash', 'sh')]
    for page, line in [*found, *inline_code()]:
        if re.match(r'[\w./=\-]*( \S+)* ?(python3|\./batch\w+\.sh) ?', line):
            for command in re.split(r' && | \| ', line):
                words = shlex.split(command, comments=True)
                if words != ['python3'] and any(word == 'python3' or word.startswith('./batch_')
                                                for word in words):
                    yield page, words


def parse(module, options):
    """Parse a script's options as it does, and do nothing else; SystemExit if it refuses them."""
    script, parser_parse = importlib.import_module(module), argparse.ArgumentParser.parse_args

    def catch(parser, argv=None):
        raise Caught(parser_parse(parser, argv))

    if hasattr(script, 'parse_args'):
        script.parse_args(options)
        return
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Caught):
        patch.setattr(argparse.ArgumentParser, 'parse_args', catch)
        script.main(options)


@lru_cache(maxsize=None)
def parser_of(module):
    """The argument parser of a script."""
    def catch(parser, argv=None):
        raise Caught(parser)

    script = importlib.import_module(module)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Caught) as caught:
        patch.setattr(argparse.ArgumentParser, 'parse_args', catch)
        getattr(script, 'parse_args', script.main)([])
    return caught.value.args[0]


def options_of(module):
    """Its options, but for --help and --version: {'--in_path': action, ...}."""
    return {action.option_strings[-1]: action for action in parser_of(module)._actions
            if action.option_strings and action.dest not in ('help', 'version')}


def section(title):
    """The lines of docs/commands.md from that heading to the next of its kind."""
    return re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', COMMANDS.read_text(),
                     re.DOTALL | re.MULTILINE)[1]


def test_links_and_pictures_are_there():
    linked = set()
    for page in PAGES:
        for target in re.findall(r'\]\(([^)\s]+)\)', '\n'.join(parts(page)[0])):
            if not re.match('https?:', target):
                name, _, anchor = target.partition('#')
                path = (page.parent / name).resolve() if name else page
                assert path.is_file(), f'{page.name}: {target}'
                assert not anchor or anchor in anchors(path), f'{page.name}: {target}'
                linked.add((page, path))
    missing = set(PAGES) - {path for page, path in linked if page == README} - {README}
    assert not missing, 'README.md links to all other pages'
    pictures = [path for path in (REPOSITORY / 'docs').glob('*.png') if path.stem != 'pasted']
    assert set(pictures) <= {path for _, path in linked}


def test_readme_is_short_and_has_the_two_set_up_lines():
    lines = README.read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 220
    assert [line for line in lines if re.match(r'    \. \./env\.sh && python3 ', line)] == [
        '    . ./env.sh && python3 classifier/predict_cls.py sample_image/coffee_jpeg_q20.png',
        '    . ./env.sh && python3 -m pytest']


def test_commands_are_accepted(capsys):
    checked = set()
    for page, words in commands():
        where = f'{page.name}: {shlex.join(words)}'
        variables = [w.partition('=')[0] for w in words if re.match('[A-Z_]+=', w)]
        words = [w for w in words if not re.match('[A-Z_]+=', w)]
        if words[0].startswith('./batch_'):
            assert (REPOSITORY / words[0]).is_file(), where
            assert all(f'${{{name}:' in BATCH for name in variables), where
        elif words[1].startswith('tests/'):
            assert set(OPTION.findall(' '.join(words))) <= set(
                OPTION.findall((REPOSITORY / words[1]).read_text())), where
        elif words[1:3] == ['-m', 'pytest']:
            assert all((REPOSITORY / w).is_file() for w in words if w.startswith('tests/')), where
            names = [*variables, *(name for k, name in zip(words, words[1:]) if k == '-k')]
            assert all(name in TESTS for name in names), where
        elif words[1] == '-c':
            check_names(words[2], where)
        elif words[1:3] not in (['-m', 'pip'], ['-m', 'playwright']):
            is_module = words[1] == '-m'
            module = words[2] if is_module else words[1].removesuffix('.py').replace('/', '.')
            assert module in MODULES.values(), where
            options = words[3 if is_module else 2:]
            if options:
                try:
                    parse(module, options)
                except SystemExit:
                    pytest.fail(f'{where}\n{capsys.readouterr().err}')
            checked.add(module)
    assert checked == set(MODULES.values())


def check_names(code, where):
    """Whether Python code is valid, and what it imports of this package is there."""
    tree, modules = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith('classifier'):
            for name in (alias.name for alias in node.names):
                try:
                    modules[name] = importlib.import_module(f'{node.module}.{name}')
                except ImportError:
                    assert hasattr(importlib.import_module(node.module), name), (where, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), (where, node.attr)


def test_python_in_the_pages_imports_what_is_there():
    blocks = [(page, text) for page in PAGES for language, text in parts(page)[1]
              if language == 'python']
    assert len(blocks) >= 3
    for page, text in blocks:
        check_names(text, page.name)


def test_every_option_is_in_the_reference():
    for name, module in MODULES.items():
        text, options = section(name), options_of(module)
        assert set(OPTION.findall(text)) == set(options), name
        text += section('predict_cls.py')  # whose options others refer to
        for option, action in options.items():
            assert all(str(choice) in text for choice in action.choices or ()), (name, option)


def test_pages_name_no_option_that_is_not_there():
    known = {'--help', '--version'}.union(*map(options_of, MODULES.values()))
    known.update(*(OPTION.findall(path.read_text()) for path in OWN_SCRIPTS))
    for page, text in inline_code():
        assert set(OPTION.findall(text)) <= known, f'{page.name}: {text}'


def test_every_column_is_in_the_reference():
    predict_cls = importlib.import_module('classifier.predict_cls')
    rows = re.findall(r'^\| (`.*?) \|', section('predict_cls.py'), re.MULTILINE)
    named = {name for row in rows for name in re.findall('`(\\w+)`', row)}
    assert {*predict_cls.FIELDS, *predict_cls.REFINED_FIELDS,
            *predict_cls.RECOVERED_FIELDS} <= named


def test_every_variable_of_the_training_script_is_in_the_reference():
    assert set(re.findall(r'\$\{([A-Z_]+)', BATCH)) == set(
        re.findall('`([A-Z_]+)`', section('batch_train_jpeg_paper.sh')))
