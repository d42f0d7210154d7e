r"""A parser of answers in mathematics: LaTeX and plain text -> a tree.

It takes `notation.canonical` text. A tree is a `Node`: numbers, symbols, functions, sums, products, powers; around them
relations (``x > 2``), brackets (tuples and intervals), sets, unions, matrices, ratios; outermost a list (``a, b and c``).
What it doesn't know is an error, never a guess.
"""

from __future__ import annotations

from sftkey.evaluation.rules.expression_names import base, inside, letters
from sftkey.evaluation.rules.expression_tokens import FUNCTIONS, Node, Tokens, number

MAX_DEPTH = 60
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">=",
    r"\geqslant": ">=", "<=": "<=", ">=": ">=", r"\ne": "!=", r"\neq": "!=", "!=": "!=", r"\in": "in", r"\approx": "=",
    r"\lt": "<", r"\gt": ">", r"\equiv": "=",
}  # fmt: skip
_SEPARATORS = frozenset((",", ";", "and", "or", r"\lor", r"\land", r"\vee", r"\wedge", r"\text"))
_SET_OPERATORS = {r"\cup": "union", r"\cap": "intersection", r"\setminus": "minus", r"\backslash": "minus"}
_OPENING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", r"\langle": r"\rangle"}


class Parser(Tokens):
    """From the outside in: a list, a relation, an operation on sets, a sum, a product, a power, an atom."""

    def listing(self, closing: tuple[str, ...] = ()) -> list[Node]:
        items = []
        while True:
            items.append(self.relation())
            separated = False
            while self.token in _SEPARATORS and self.kind != "end":
                self.at += 1
                separated = True
            if self.kind == "end" or self.token in closing:
                return items
            if not separated:
                self.fail()

    def relation(self) -> Node:
        start = self.at
        parts, operators = [self.ratio()], []
        while self.token in _RELATIONS and self.kind != "end":
            operators.append(_RELATIONS[self.token])
            self.at += 1
            parts.append(self.ratio())
        return parts[0] if not operators else self.node("relation", start, *parts, tuple(operators))

    def ratio(self) -> Node:
        start = self.at
        parts = [self.sets()]
        while self.take(":"):
            parts.append(self.sets())
        found = parts[0] if len(parts) == 1 else self.node("ratio", start, *parts)
        if self.take(r"\pmod"):
            return self.node("modulo", start, found, self.atom())
        return found

    def sets(self) -> Node:
        start = self.at
        found = self.sum()
        while self.token in _SET_OPERATORS and self.kind != "end":
            operator = _SET_OPERATORS[self.token]
            self.at += 1
            found = self.node(operator, start, found, self.sum())
        return found

    def sum(self) -> Node:
        start = self.at
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail()
        terms = []
        if self.take(r"\pm", r"\mp"):
            terms.append(self.node("plusminus", start, self.product()))
        elif self.take("-"):
            terms.append(self.node("negative", start, self.product()))
        else:
            self.take("+")
            terms.append(self.product())
        while self.token in ("+", "-", r"\pm", r"\mp") and self.kind != "end":
            operator_at, operator = self.at, self.token
            self.at += 1
            term = self.product()
            if operator != "+":
                term = self.node("negative" if operator == "-" else "plusminus", operator_at, term)
            terms.append(term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else self.node("sum", start, *terms)

    def product(self) -> Node:
        start = self.at
        found = self.power()
        implicit_under = False
        while True:
            if self.take("*", r"\times", r"\cdot", r"\ast"):
                found = self.node("product", start, found, self.signed_power())
            elif self.take("/", r"\div"):
                under = self.signed_power()
                implicit_under = self.starts_atom() and under.kind == "number"
                found = self.node("quotient", start, found, under)
            elif self.starts_atom():
                at = self.at
                follower = self.power()
                if follower.kind == "number" and self.tokens[at - 1][0] == "number":
                    self.fail()
                mixed = found.kind == "number" and follower.kind == "quotient" and self.tokens[at][1] == r"\frac"
                kind = "mixed" if mixed and found.args[0].denominator == 1 else "product"  # type: ignore[attr-defined]
                found = self.node("ambiguous" if implicit_under else kind, start, found, follower)
            else:
                return found

    def signed_power(self) -> Node:
        start = self.at
        if self.take("-"):
            return self.node("negative", start, self.power())
        return self.power()

    def starts_atom(self) -> bool:
        if self.kind == "number":
            return True
        if self.kind == "word":
            return self.token not in ("and", "or", "if", "where", "when", "for")
        if self.kind == "command":
            return (
                self.token not in _RELATIONS
                and self.token not in _SEPARATORS
                and self.token not in _SET_OPERATORS
                and (
                    self.token
                    not in (
                        r"\}",
                        r"\rangle",
                        r"\rfloor",
                        r"\rceil",
                        r"\pm",
                        r"\mp",
                        r"\times",
                        r"\cdot",
                        r"\div",
                        r"\mid",
                        r"\ast",
                        r"\pmod",
                        r"\end",
                        r"\|",
                        r"\%",
                        r"\circ",
                    )
                )
            )
        return self.token in ("(", "{", "[")

    def power(self) -> Node:
        start = self.at
        found = self.postfix(self.atom(), start)
        if self.take("^"):
            if self.take(r"\circ") or self.degree_in_braces():
                return self.postfix(self.node("degree", start, found), start)
            found = self.node("power", start, found, self.exponent())
        return self.postfix(found, start)

    def exponent(self) -> Node:
        if self.kind == "sign" and self.token == "-":
            return self.signed_power()
        if self.kind == "word" and len(self.token) > 1:
            return self.first_letter()
        return self.atom()

    def first_letter(self) -> Node:
        kind, word, start, end = self.tokens[self.at]
        self.tokens[self.at : self.at + 1] = [(kind, word[0], start, start + 1), (kind, word[1:], start + 1, end)]
        return self.atom()

    def degree_in_braces(self) -> bool:
        if [token[1] for token in self.tokens[self.at : self.at + 3]] == ["{", r"\circ", "}"]:
            self.at += 3
            return True
        return False

    def postfix(self, found: Node, start: int) -> Node:
        while self.kind != "end":
            if self.take("!"):
                found = self.node("factorial", start, found)
            elif self.take("%", r"\%"):
                found = self.node("percent", start, found)
            elif self.take("'"):
                self.fail()
            else:
                break
        return found

    def atom(self) -> Node:
        kind, token, *_ = self.tokens[self.at]
        start = self.at
        if kind == "number":
            self.at += 1
            value, decimals = number(token)
            if self.take("_"):
                return self.node("based", start, token, base(self))
            return self.node("number", start, value, decimals)
        if kind == "word":
            return letters(self)
        if kind == "command":
            return self.command()
        if token == "|":
            self.at += 1
            inner = self.sum()
            self.need("|")
            return self.node("absolute", start, inner)
        if token in _OPENING:
            return self.bracket()
        self.fail()

    def command(self) -> Node:
        from sftkey.evaluation.rules.expression_commands import parse_command

        return parse_command(self)

    def function(self, name: str) -> Node:
        start = self.at
        self.at += 1
        of = power = None
        while self.token in ("_", "^") and self.kind == "sign":
            if self.take("_"):
                of = self.atom()
            else:
                self.at += 1
                power = self.exponent()
        if self.token == "(":
            self.at += 1
            arguments = self.listing((")",))
            self.need(")")
        else:
            arguments = [self.argument()]
        power = inside(power)
        if power is not None and power.kind == "negative" and name in ("sin", "cos", "tan"):
            if power.nodes()[0].args[:1] != (1,):
                self.fail()
            name, power = f"arc{name}", None
        found = self.node("function", start, name, of, *arguments)
        return found if power is None else self.node("power", start, found, power)

    def argument(self) -> Node:
        """What a function without brackets takes: 2x in sin 2x cos x."""
        start = self.at
        found = self.signed_power()
        while self.starts_atom() and not self.ends_argument():
            found = self.node("product", start, found, self.power())
        return found

    def ends_argument(self) -> bool:
        return self.token.lstrip("\\") in FUNCTIONS or self.token in ("(", "[", r"\frac", r"\sqrt")

    def bracket(self) -> Node:
        start = self.at
        opening = self.token
        self.at += 1
        closings = (")", "]") if opening in "([" else (_OPENING[opening],)
        if self.token in closings and self.kind != "end":
            closing = self.token
            self.at += 1
            return self.node("bracket", start, opening, closing)
        items = self.listing((*closings, "|", r"\mid"))
        if opening in ("{", r"\{") and self.take("|", r"\mid"):
            condition = self.listing(closings)
            self.need(_OPENING[opening])
            return self.node("builder", start, *items, *condition)
        if self.token not in closings:
            self.fail()
        closing = self.token
        self.at += 1
        if len(items) == 1 and opening in "([{" and _OPENING[opening] == closing:
            return self.node("group", start, items[0])
        return self.node("bracket", start, opening, closing, *items)


def parse(text: str) -> list[Node]:
    """Parse an answer: the items of a list, one for a single value.

    Raises:
        Unreadable: It is no formula.
    """
    parser = Parser(text)
    items = parser.listing()
    if parser.kind != "end":
        parser.fail()
    return items
