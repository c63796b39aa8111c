"""Expressions worked out operation by operation."""

import re
from fractions import Fraction

from infrastructure.language.amounts import Doubt, Step, Working, fraction, number
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
    return Working(calculation.steps, value, fraction(value))


class _Calculation:
    """Evaluates by precedence, noting each operation. `^` binds tightest; a sign may stand before a number."""

    def __init__(self, expression: str) -> None:
        self._tokens = re.findall(rf"{NUMBER}|[^\s]", expression)
        self.steps: list[Step] = []
        if len(self._tokens) > 60:
            raise Doubt

    def value(self) -> Fraction:
        value = self._sum()
        if self._tokens:
            raise Doubt
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = self._note(value, sign, other, value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while sign := self._take("*", "/"):
            other = self._power()
            value = self._note(value, sign, other, value * other if sign == "*" else value / other)
        return value

    def _power(self) -> Fraction:
        if self._take("-"):
            return -self._power()
        base = self._atom()
        if not self._take("^"):
            return base
        exponent = self._power()
        if exponent.denominator != 1 or not 0 <= exponent <= 12:
            raise Doubt
        return self._note(base, "^", exponent, base ** int(exponent))

    def _atom(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise Doubt
            return value
        if not self._tokens or not self._tokens[0][0].isdigit():
            raise Doubt
        return number(self._tokens.pop(0))

    def _take(self, *signs: str) -> str:
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in signs else ""

    def _note(self, left: Fraction, sign: str, right: Fraction, value: Fraction) -> Fraction:
        name, drawn = {
            "+": ("Add", "+"),
            "-": ("Subtract", "−"),
            "*": ("Multiply", "×"),
            "/": ("Divide", "÷"),
            "^": ("Raise to the power", "^"),
        }[sign]
        if len(str(value)) > 60:
            raise Doubt
        self.steps.append(Step(name, f"{_operand(left)} {drawn} {_operand(right)} = {fraction(value)}"))
        return value


def _operand(value: Fraction) -> str:
    written = fraction(value).split(" ")[0]
    return f"({written})" if value < 0 or "/" in written else written
