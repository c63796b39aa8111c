"""Expressions worked out operation by operation."""

import re
from fractions import Fraction

from infrastructure.language.amounts import Doubt, Operation, Step, Working, fraction, number
from infrastructure.language.reading import NUMBER, Reading

ASKS_FOR = r"(?:what(?:'s| is| are)|how much is|compute|calculate|evaluate|simplify|solve|find|work out)"
EXPRESSION = re.compile(rf"(?:{ASKS_FOR}\s)?(?:the (?:value|result) of )?([-+*/^().\s0-9,]+?)(?:=\s*)?[?.\s]*", re.I)
SIGNS = [
    (r"\bplus\b", "+"),
    (r"\bminus\b|−", "-"),
    (r"\btimes\b|\bmultiplied by\b|×|·", "*"),
    (r"\bdivided by\b|÷", "/"),
]


def expression(_: Reading, text: str) -> Working:
    for words, sign in SIGNS:
        text = re.sub(words, sign, text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[0-9])\s*x\s*(?=[0-9])", "*", text)
    match = EXPRESSION.fullmatch(text.strip())
    if not match or not re.search(r"[0-9)]\s*[-+*/^]", match[1]):
        raise Doubt
    calculation = _Calculation(match[1])
    value = calculation.value()
    return Working(calculation.steps, value, fraction(value), operations=calculation.operations)


_Term = tuple[Fraction, int]


class _Calculation:
    """Evaluates by precedence, noting each operation. `^` binds tightest; a sign may stand before a number.

    A term is its value and its place: numbers are placed as they are read, results behind all that came before.
    """

    def __init__(self, expression: str) -> None:
        self._tokens = re.findall(rf"{NUMBER}|[^\s]", expression)
        self._places = 0
        self.steps: list[Step] = []
        self.operations: list[Operation] = []
        if len(self._tokens) > 60:
            raise Doubt

    def value(self) -> Fraction:
        value, _ = self._sum()
        if self._tokens:
            raise Doubt
        return value

    def _sum(self) -> _Term:
        term = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            term = self._note(term, sign, other, term[0] + other[0] if sign == "+" else term[0] - other[0])
        return term

    def _product(self) -> _Term:
        term = self._power()
        while sign := self._take("*", "/"):
            other = self._power()
            term = self._note(term, sign, other, term[0] * other[0] if sign == "*" else term[0] / other[0])
        return term

    def _power(self) -> _Term:
        if self._take("-"):
            value, place = self._power()
            return -value, place
        base = self._atom()
        if not self._take("^"):
            return base
        exponent = self._power()
        if exponent[0].denominator != 1 or not 0 <= exponent[0] <= 12:
            raise Doubt
        return self._note(base, "^", exponent, base[0] ** int(exponent[0]))

    def _atom(self) -> _Term:
        if self._take("("):
            term = self._sum()
            if not self._take(")"):
                raise Doubt
            return term
        if not self._tokens or not self._tokens[0][0].isdigit():
            raise Doubt
        return self._placed(number(self._tokens.pop(0)))

    def _take(self, *signs: str) -> str:
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in signs else ""

    def _placed(self, value: Fraction) -> _Term:
        self._places += 1
        return value, self._places - 1

    def _note(self, left: _Term, sign: str, right: _Term, value: Fraction) -> _Term:
        name, drawn = {
            "+": ("Add", "+"),
            "-": ("Subtract", "−"),
            "*": ("Multiply", "×"),
            "/": ("Divide", "÷"),
            "^": ("Raise to the power", "^"),
        }[sign]
        if len(str(value)) > 60:
            raise Doubt
        self.steps.append(Step(name, f"{_operand(left[0])} {drawn} {_operand(right[0])} = {fraction(value)}"))
        result = self._placed(value)
        written = fraction(left[0]).split(" ")[0], fraction(right[0]).split(" ")[0]
        self.operations.append(Operation(left[1], drawn, right[1], result[1], *written, fraction(value).split(" ")[0]))
        return result


def _operand(value: Fraction) -> str:
    written = fraction(value).split(" ")[0]
    return f"({written})" if value < 0 or "/" in written else written
