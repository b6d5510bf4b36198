"""Conditions on the rows of images, as text: 'compressed<0.5', 'quality>=90 and not verdict=...'.

    condition   = alternative {'or' alternative}
    alternative = term {'and' term}
    term        = 'not' term | '(' condition ')' | field operator value
    operator    = '=' | '==' | '!=' | '<' | '<=' | '>' | '>='
    value       = number | word | quoted text | 'none'

The text is read by this grammar alone and never run. Numbers are compared as numbers, words without
regard to case; a field that is empty equals 'none', and is neither less nor more than anything.
"""
import difflib
import operator
import re
from collections.abc import Callable, Sequence

from classifier.errors import InputError

Condition = Callable[[dict], bool]
_TOKEN = re.compile(r'''\s*(?:(?P<operator><=|>=|==|!=|[=<>])|(?P<bracket>[()])|'''
                    r'''(?P<quoted>"[^"]*"|'[^']*')|(?P<word>[^\s()<>=!"']+))''')
_ORDER = {'<': operator.lt, '<=': operator.le, '>': operator.gt, '>=': operator.ge}
_EQUAL = ('=', '==', '!=')
_MOST_BRACKETS = 50  # within one another, and 'not' in front of 'not'


def parse_condition(text: str, fields: Sequence[str]) -> Condition:
    """A function that says whether a row meets the condition.

    Parameters
    ----------
    text : str
    fields : sequence of str
        That a row has.

    Raises
    ------
    InputError
        The text is no condition on these fields; the message says where.
    """
    return _Parser(text, fields).whole()


class _Parser:
    """Reads a condition from left to right."""

    def __init__(self, text, fields):
        self.text, self.fields, self.tokens, self.at = text, fields, [], 0
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if not found:
                self.fail('cannot be read', len(text) - len(text[position:].lstrip()))
            self.tokens.append((found.lastgroup, found[found.lastgroup],
                                found.start(found.lastgroup)))
            position = found.end()
        self.tokens.append(('end', '', len(text)))

    def fail(self, problem, position):
        rest = self.text[position:]
        where = f'at character {position + 1}, {rest!r}' if rest.strip() else 'at its end'
        raise InputError(f'--select {self.text!r}: {where}: {problem}')

    def take(self, *values):
        """Whether the next token is one of these words or brackets, which then is done with."""
        kind, value, _ = self.tokens[self.at]
        found = kind in ('word', 'bracket') and value.lower() in values
        self.at += found
        return found

    def whole(self):
        condition = self.condition(0)
        kind, _, position = self.tokens[self.at]
        if kind != 'end':
            self.fail("'and' or 'or' is missing", position)
        return condition

    def condition(self, depth):
        parts = [self.alternative(depth)]
        while self.take('or'):
            parts.append(self.alternative(depth))
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def alternative(self, depth):
        parts = [self.term(depth)]
        while self.take('and'):
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def term(self, depth):
        position = self.tokens[self.at][2]
        if depth > _MOST_BRACKETS:
            self.fail('too many brackets', position)
        if self.take('not'):
            part = self.term(depth + 1)
            return lambda row: not part(row)
        if self.take('('):
            part = self.condition(depth + 1)
            if not self.take(')'):
                self.fail("')' is missing", self.tokens[self.at][2])
            return part
        return self.comparison()

    def comparison(self):
        kind, field, position = self.tokens[self.at]
        if kind != 'word':
            self.fail('a field is missing', position)
        if field not in self.fields:
            near = difflib.get_close_matches(field, self.fields, 1)
            self.fail(f'{field} is no field' + (f'; is it {near[0]}?' if near else
                                                f'; there are {", ".join(self.fields)}'), position)
        kind, sign, position = self.tokens[self.at + 1]
        if kind != 'operator':
            self.fail('one of = != < <= > >= is missing', position)
        kind, value, position = self.tokens[self.at + 2]
        if kind not in ('word', 'quoted'):
            self.fail('a number or a word is missing', position)
        number = None if kind == 'quoted' else _number(value)
        if sign not in _EQUAL and number is None:
            self.fail(f'{sign} needs a number', position)
        self.at += 3
        if sign in _EQUAL:
            text = value[1:-1] if kind == 'quoted' else value
            equal = _equality(field, text, number, empty=kind == 'word' and text.lower() == 'none')
            return (lambda row: not equal(row)) if sign == '!=' else equal
        compare = _ORDER[sign]

        def ordered(row):
            known = _number(row[field])
            return known is not None and compare(known, number)
        return ordered


def _number(value):
    """The value, of a row or of a condition, as a number; None if it is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _equality(field, text, number, empty):
    """The condition that the field is that text or number, or empty."""
    def equal(row):
        value = row[field]
        if value is None or value == '':
            return empty
        known = None if number is None else _number(value)
        return str(value).lower() == text.lower() if known is None else known == number
    return equal
