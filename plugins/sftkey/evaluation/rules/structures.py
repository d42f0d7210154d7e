"""Compare what two answers are: values, lists, tuples, sets, regions, equations. Only in the bounded process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from mpmath import mp, mpf

from sftkey.evaluation.rules import intervals, scalars
from sftkey.evaluation.rules.exact import Setting, Undetermined, number_of, value_of
from sftkey.evaluation.rules.expression_tokens import Node
from sftkey.evaluation.rules.meanings import Meaning
from sftkey.evaluation.rules.scalars import Text, symbols_of

Verdict = bool | None
_MAX_ITEMS = 20
_CLOCK = re.compile(r"\d{1,2}\s?:\s?[0-5]\d")


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """True where all are, False where one is, else None."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


class Comparer:
    """Compares two meanings, each with the text that it comes from."""

    def __init__(self, found: str, wanted: str, ordered: bool) -> None:
        self.found, self.wanted, self.ordered = found, wanted, ordered

    def same(self, found: Meaning, wanted: Meaning) -> Verdict:
        """Whether two answers are the same; ``None`` where that can't be told."""
        for one, other, swapped in ((found, wanted, False), (wanted, found, True)):
            compare = getattr(self, f"_{one.kind}_{other.kind}", None)
            if compare is not None:
                verdict: Verdict = (
                    Comparer(self.wanted, self.found, self.ordered)._call(one, other)
                    if swapped
                    else compare(one, other)
                )
                return verdict
        return None

    def _call(self, one: Meaning, other: Meaning) -> Verdict:
        verdict: Verdict = getattr(self, f"_{one.kind}_{other.kind}")(one, other)
        return verdict

    def _equal(self, found: Node | None, wanted: Node | None) -> Verdict:
        if found is None or wanted is None:
            return None
        return scalars.equal(Text(found, self.found), Text(wanted, self.wanted))

    def _value_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        verdict = self._equal(found.node, wanted.node)
        if verdict and found.names and wanted.names and not _alike(found.names[0], wanted.names[0]):
            return None
        return verdict

    def _based_based(self, found: Meaning, wanted: Meaning) -> Verdict:
        assert found.node is not None
        assert wanted.node is not None
        if found.node.args[1] == wanted.node.args[1]:
            return found.node.args[0] == wanted.node.args[0]
        return None if value_of(found.node, Setting()) == value_of(wanted.node, Setting()) else False

    def _value_based(self, found: Meaning, wanted: Meaning) -> Verdict:
        """Digits without a base against digits with one: the same digits may lack it, the same value may be meant."""
        assert found.node is not None
        assert wanted.node is not None
        if found.node.kind != "number":
            return None
        digits = int(str(wanted.node.args[0]))
        if found.node.args[0] == digits:
            return None
        return None if found.node.args[0] == value_of(wanted.node, Setting()) else False

    def _list_list(self, found: Meaning, wanted: Meaning) -> Verdict:
        if found.names and wanted.names and not _alike(found.names[0], wanted.names[0]):
            return None
        return self._matched(found.parts, wanted.parts, ordered=self.ordered)

    def _set_set(self, found: Meaning, wanted: Meaning) -> Verdict:
        return self._matched(found.parts, wanted.parts, ordered=False)

    def _set_list(self, found: Meaning, wanted: Meaning) -> Verdict:
        return self._matched(found.parts, wanted.parts, ordered=False)

    def _matched(self, found: Sequence[Meaning], wanted: Sequence[Meaning], *, ordered: bool) -> Verdict:
        if max(len(found), len(wanted)) > _MAX_ITEMS:
            return None
        table = [[self.same(one, other) for other in wanted] for one in found]
        in_one = [True in row for row in table]
        in_other = [any(row[number] is True for row in table) for number in range(len(wanted))]
        if all(in_one) and all(in_other):
            if len(found) != len(wanted):
                return None
            in_order = all(table[number][number] for number in range(len(found)))
            return True if in_order or not ordered else None
        lonely = any(all(cell is False for cell in row) for row in table)
        other_lonely = any(all(row[number] is False for row in table) for number in range(len(wanted)))
        return False if lonely or other_lonely else None

    def _in_order(self, found: Sequence[Meaning], wanted: Sequence[Meaning]) -> Verdict:
        if len(found) != len(wanted):
            return False
        return all_of([self.same(one, other) for one, other in zip(found, wanted, strict=True)])

    def _sequence_sequence(self, found: Meaning, wanted: Meaning) -> Verdict:
        if len(found.parts) != len(wanted.parts):
            return None
        return self._in_order(found.parts, wanted.parts)

    def _dots_dots(self, found: Meaning, wanted: Meaning) -> Verdict:
        return True

    def _list_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        """Several values against one: different, unless all of them are that one."""
        verdicts = [self.same(part, wanted) for part in found.parts]
        return False if False in verdicts else None

    _set_value = _list_value

    def _tuple_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        return False

    def _tuple_tuple(self, found: Meaning, wanted: Meaning) -> Verdict:
        parts = self._in_order(found.parts, wanted.parts)
        if found.brackets == wanted.brackets or parts is False:
            return parts
        return False if parts and len(found.parts) == 2 and _intervals(found, wanted) else None

    def _tuple_list(self, found: Meaning, wanted: Meaning) -> Verdict:
        if found.brackets == "()":
            return self._in_order(found.parts, wanted.parts)
        if found.brackets != "[]":
            return False
        return False if self._matched(found.parts, wanted.parts, ordered=False) is False else None

    def _tuple_set(self, found: Meaning, wanted: Meaning) -> Verdict:
        if found.brackets == "[]" and len(found.parts) != 2:
            return None
        return False if len(found.parts) > 1 else None

    def _assignments_assignments(self, found: Meaning, wanted: Meaning) -> Verdict:
        if set(found.names) != set(wanted.names):
            return None
        by_name = dict(zip(wanted.names, wanted.parts, strict=True))
        return all_of(
            [self._equal(part.node, by_name[name].node) for name, part in zip(found.names, found.parts, strict=True)]
        )

    def _assignments_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        return False

    def _assignments_tuple(self, found: Meaning, wanted: Meaning) -> Verdict:
        if wanted.brackets != "()" or len(found.parts) != len(wanted.parts):
            return None
        by_name = [
            part for _, part in sorted(zip(found.names, found.parts, strict=True), key=lambda pair: str(pair[0]))
        ]
        return all_of([self._equal(one.node, other.node) for one, other in zip(by_name, wanted.parts, strict=True)])

    def _assignments_list(self, found: Meaning, wanted: Meaning) -> Verdict:
        plain = Meaning("tuple", wanted.parts, brackets="()")
        return True if self._assignments_tuple(found, plain) else None

    def _matrix_matrix(self, found: Meaning, wanted: Meaning) -> Verdict:
        if [len(row.parts) for row in found.parts] != [len(row.parts) for row in wanted.parts]:
            return False
        return all_of(
            [self._in_order(one.parts, other.parts) for one, other in zip(found.parts, wanted.parts, strict=True)]
        )

    def _ratio_ratio(self, found: Meaning, wanted: Meaning) -> Verdict:
        if len(found.parts) != len(wanted.parts):
            return None
        exact = self._in_order(found.parts, wanted.parts)
        if exact is not False or any(part.kind == "dots" for part in (*found.parts, *wanted.parts)):
            return exact
        if _CLOCK.fullmatch(self.found) and _CLOCK.fullmatch(self.wanted):
            return False
        try:
            one, other = (
                [value_of(part.node, Setting()) for part in side.parts if part.node] for side in (found, wanted)
            )
        except Undetermined:
            return None
        if not all(isinstance(value, Fraction) for value in (*one, *other)):
            return None
        return all(one[0] * right == other[0] * left for left, right in zip(one[1:], other[1:], strict=True)) or False

    def _ratio_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        nodes = [part.node for part in found.parts]
        if len(nodes) != 2 or wanted.node is None or None in nodes:
            return None
        return True if self._ratio_ratio(found, _over_one(wanted)) else None

    def _modulo_modulo(self, found: Meaning, wanted: Meaning) -> Verdict:
        return all_of([self.same(one, other) for one, other in zip(found.parts, wanted.parts, strict=True)]) or None

    def _modulo_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        return self.same(found.parts[0], wanted) or None

    def _empty_empty(self, found: Meaning, wanted: Meaning) -> Verdict:
        return True

    def _empty_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        return False

    _empty_list = _empty_tuple = _empty_set = _empty_value

    def _region_region(self, found: Meaning, wanted: Meaning) -> Verdict:
        return self._as_regions(found, wanted)

    _region_tuple = _region_empty = _region_region

    def _region_value(self, found: Meaning, wanted: Meaning) -> Verdict:
        """An inequality is no value, and neither is an interval."""
        return False

    _region_list = _region_set = _region_value

    def _as_regions(self, found: Meaning, wanted: Meaning) -> Verdict:
        one, other = intervals.region(found, self.found), intervals.region(wanted, self.wanted)
        return None if one is None or other is None else intervals.same(one, other)

    def _equation_equation(self, found: Meaning, wanted: Meaning) -> Verdict:
        if found.node is None or wanted.node is None:
            return None
        return intervals.same_equation(found.node, wanted.node)

    def _value_equation(self, found: Meaning, wanted: Meaning) -> Verdict:
        if found.node is None or wanted.node is None or not found.names or not found.names[0]:
            return None
        name = Node("symbol", (found.names[0],))
        if found.names[0] not in symbols_of(wanted.node):
            return None
        return intervals.same_equation(Node("relation", (name, found.node, ("=",))), wanted.node)


def _alike(name: str | None, other: str | None) -> bool:
    """Whether two names may be of one thing: ``f(x)`` and ``y``, ``x`` and ``x_1``, a name and none."""
    if name is None or other is None or name.partition("_")[0] == other.partition("_")[0]:
        return True
    return all(part == "y" or part.endswith("()") for part in (name, other))


def _intervals(found: Meaning, wanted: Meaning) -> bool:
    """Whether brackets say which ends belong to it: not both are square or both round by habit."""
    return {found.brackets, wanted.brackets} <= {"()", "[]", "(]", "[)"}


def _over_one(value: Meaning) -> Meaning:
    node = value.node
    if node is not None and node.kind == "quotient":
        return Meaning("ratio", tuple(Meaning("value", node=part) for part in node.nodes()))
    one = Meaning("value", node=Node("number", (Fraction(1), 0)))
    return Meaning("ratio", (value, one))


def irrational_ratio(found: Meaning, wanted: Meaning) -> bool:
    """Whether the ratio of two values is no fraction of a size that a conversion of units has."""
    if found.node is None or wanted.node is None or found.kind != "value" or wanted.kind != "value":
        return False
    try:
        one, other = (number_of(value_of(side.node, Setting())) for side in (found, wanted) if side.node)
    except Undetermined:
        return False
    if not one or not other:
        return False
    ratio = mp.re(one / other)
    near = Fraction(str(mp.nstr(ratio, 60))).limit_denominator(10**9)
    return bool(abs(ratio - mpf(near.numerator) / near.denominator) > abs(ratio) * mpf(10) ** -30)
