"""Percentages of amounts worked out step by step, only where the question is beyond doubt."""

import re
from collections.abc import Iterator
from fractions import Fraction

from infrastructure.language.amounts import Bar, Doubt, Money, Step, Working, number, shown
from infrastructure.language.expressions import ASKS_FOR
from infrastructure.language.reading import NUMBER, STOP_WORDS, WORD, Reading

MONEY = rf"([$€£¥]?)\s?({NUMBER})(?:\s?(dollars|euros?|pounds|cents))?"
PERCENT = re.compile(rf"({NUMBER})\s?(?:%|percent\b|per cent\b)", re.IGNORECASE)
PERCENT_OF = re.compile(rf"{ASKS_FOR} {PERCENT.pattern} of {MONEY}\s*[?.]?", re.IGNORECASE)
WHAT_PERCENT = re.compile(
    rf"what percent(?:age)? of ({NUMBER}) is ({NUMBER})\s*\??|({NUMBER}) is what percent(?:age)? of ({NUMBER})\s*\??",
    re.IGNORECASE,
)
PART_OF_WHOLE = re.compile(rf"({NUMBER}) (?:out )?of (?:the |its |his |her |their )?({NUMBER})", re.IGNORECASE)
FROM_TO = re.compile(rf"\bfrom {MONEY}[^.0-9]{{0,40}}? to {MONEY}", re.IGNORECASE)

DOUBTFUL = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|"
    r"nine)ty|hundred|thousand|million|dozen|half|halves|thirds?|quarters?|once|twice|double[ds]?|triple[ds]?|each|"
    r"per(?! ?cent)|every|both|pairs?|couple|annual(?:ly)?|yearly|monthly|compound(?:ed)?|interest|remaining|rest|"
    r"others?|not|except|neither|points?)\b|n't\b|[0-9],[0-9]{1,2}(?![0-9])|[0-9]\s?[-/]\s?[0-9]",
    re.IGNORECASE,
)
"""What can make a number mean something else than it seems to: then nothing is worked out."""

LOWERS = re.compile(
    r"\b(?!(?:reduced|discounted) price)(?:reduc\w+|discount\w*|off|decreas\w+|cheaper|drop\w*|fell|falls?|lower\w*|"
    r"less|los(?:es?|t)|shrinks?|cuts?)\b",
    re.IGNORECASE,
)
RAISES = re.compile(
    r"\b(?:increas\w+|rais\w+|add(?:s|ed)?|tax|tip|vat|grows?|grew|more|rises?|rose|gain\w*|markup)\b", re.IGNORECASE
)
AFTERWARDS = re.compile(r"\b(?:after|now|final|new|sale price|on sale for|paid|to [$€£¥]?[0-9])", re.IGNORECASE)
BEFORE = re.compile(r"\b(?:original(?:ly)?|before|at first|initial(?:ly)?)\b", re.IGNORECASE)
WANTS_PART = re.compile(
    r"\b(?:saved?|savings?|how (?:big|large|much) (?:is|was) the (?:discount|tip|tax|increase|decrease|raise)|"
    r"amount of the (?:discount|tip|tax))\b",
    re.IGNORECASE,
)
WANTS_WHOLE = re.compile(
    r"\b(?:(?:final|new|sale|total|reduced|discounted) (?:price|cost|salary|amount|value|bill|population|rent)|"
    r"(?:how much|what) (?:do|does|did|will|would|must) .*\b(?:pay|cost|earn)|"
    r"(?:price|cost|salary|bill|rent|population) (?:now|after))\b",
    re.IGNORECASE,
)
CLAUSE_END = re.compile(r"[.;:?!,]\s|\b(?:and|then|but)\b", re.IGNORECASE)


def percent_of(_: Reading, text: str) -> Working:
    if not (match := PERCENT_OF.fullmatch(text)):
        raise Doubt
    percent, sign, whole, unit = match.groups()
    part, base = number(percent), number(whole)
    value = base * part / 100
    money = Money(sign, unit)
    steps = [
        Step(f"{percent} % means {percent} of every hundred", f"{shown(part)} ÷ 100 = {shown(part / 100)}"),
        Step(f"Take that part of {money(base)}", f"{shown(part / 100)} × {money(base)} = {money(value)}"),
    ]
    return Working(
        steps, value, money(value), bars=_bars([("the whole", money, base), (f"{percent} % of it", money, value)])
    )


def what_percent(_: Reading, text: str) -> Working:
    if not (match := WHAT_PERCENT.fullmatch(text)):
        raise Doubt
    whole, part = (match[1], match[2]) if match[1] else (match[4], match[3])
    return _share(number(part), number(whole))


def part_of_whole(reading: Reading, text: str) -> Working:
    """`18 of 24 students passed. What percentage passed?`, where what is asked is named in what is given."""
    match = PART_OF_WHOLE.search(text)
    told = " ".join(reading.given).lower()
    asked = {word.lower() for word in WORD.findall(reading.asked)} - STOP_WORDS - {"percentage"}
    if not match or len(re.findall(NUMBER, text)) != 2 or not _asks_percent(reading) or DOUBTFUL.search(text):
        raise Doubt
    if not asked or any(word not in told for word in asked):
        raise Doubt
    return _share(number(match[1]), number(match[2]))


def _share(part: Fraction, whole: Fraction) -> Working:
    value = part / whole * 100
    steps = [
        Step(
            f"Which part of {shown(whole)} is {shown(part)}?", f"{shown(part)} ÷ {shown(whole)} = {shown(part / whole)}"
        ),
        Step("As so many of every hundred", f"{shown(part)} ÷ {shown(whole)} × 100 = {shown(value)} %"),
    ]
    plain = Money("", None)
    return Working(
        steps, value, f"{shown(value)} %", bars=_bars([("the whole", plain, whole), ("the part", plain, part)])
    )


def from_to(reading: Reading, text: str) -> Working:
    match = FROM_TO.search(text)
    if not match or len(re.findall(NUMBER, text)) != 2 or not _asks_percent(reading) or DOUBTFUL.search(text):
        raise Doubt
    money = Money(match[1], match[3])
    first, last = number(match[2]), number(match[5])
    change, value = last - first, (last - first) / first * 100
    steps = [
        Step("How far does it move?", f"{money(last)} − {money(first)} = {money(change)}"),
        Step("Compare that with where it began", f"{money(change)} ÷ {money(first)} × 100 = {shown(value)} %"),
    ]
    result = f"{shown(abs(value))} % {'more' if change >= 0 else 'less'}"
    return Working(steps, abs(value), result, bars=_bars([("before", money, first), ("after", money, last)]))


def _asks_percent(reading: Reading) -> bool:
    return bool(re.search(r"percent|per cent|%", reading.asked, re.IGNORECASE))


def changes(reading: Reading, text: str) -> Working:
    """One amount, and percentages that lower or raise it one after the other."""
    factors = list(_factors(text))
    money, amount, sentence = _only_amount(reading)
    if not 1 <= len(factors) <= 4 or DOUBTFUL.search(text) or _asks_percent_without_number(reading):
        raise Doubt
    if len(factors) > 1 and BEFORE.search(text):
        raise Doubt
    if AFTERWARDS.search(sentence):
        return _backwards(reading, money, amount, factors)
    if BEFORE.search(reading.asked):
        raise Doubt
    return _forwards(reading, money, amount, factors)


def _factors(text: str) -> Iterator[Fraction]:
    """The signed percentages, each from a clause that says plainly whether it lowers or raises."""
    for clause in CLAUSE_END.split(text):
        percents = PERCENT.findall(clause)
        if not percents:
            continue
        lowers, raises = bool(LOWERS.search(clause)), bool(RAISES.search(clause))
        if len(percents) > 1 or lowers == raises:
            raise Doubt
        yield -number(percents[0]) if lowers else number(percents[0])


def _only_amount(reading: Reading) -> tuple[Money, Fraction, str]:
    amounts = [
        (Money(match[1], match[3]), number(match[2]), sentence)
        for sentence in reading.sentences
        for match in re.finditer(MONEY, PERCENT.sub("", sentence), re.IGNORECASE)
    ]
    if len(amounts) != 1:
        raise Doubt
    return amounts[0]


def _asks_percent_without_number(reading: Reading) -> bool:
    return _asks_percent(reading) and not PERCENT.search(reading.asked)


def _forwards(reading: Reading, money: Money, amount: Fraction, factors: list[Fraction]) -> Working:
    wants_whole = bool(WANTS_WHOLE.search(reading.asked))
    if not wants_whole and (not WANTS_PART.search(reading.asked) or len(factors) > 1):
        raise Doubt
    steps, now, stops = [], amount, [("at the start", money, amount)]
    for percent in factors:
        change = now * abs(percent) / 100
        then = now + now * percent / 100
        verb, sign = ("Take off", "−") if percent < 0 else ("Add", "+")
        rate = f"{shown(abs(percent))} %"
        steps.append(
            Step(f"Find {rate} of {money(now)}", f"{money(now)} × {shown(abs(percent) / 100)} = {money(change)}")
        )
        if wants_whole:
            steps.append(Step(verb + " that part", f"{money(now)} {sign} {money(change)} = {money(then)}"))
        now = then
        stops.append((f"after {sign}{rate}", money, now))
    value = now if wants_whole else abs(now - amount)
    return Working(steps, value, money(value), _assumed(money, amount, factors, "start from"), _bars(stops))


def _backwards(reading: Reading, money: Money, amount: Fraction, factors: list[Fraction]) -> Working:
    if len(factors) != 1 or not BEFORE.search(reading.asked) or BEFORE.search(" ".join(reading.given)):
        raise Doubt
    left = 100 + factors[0]
    value = amount * 100 / left
    steps = [
        Step(
            "What is left of every hundred?",
            f"100 {'−' if factors[0] < 0 else '+'} {shown(abs(factors[0]))} = {shown(left)}",
        ),
        Step(f"{money(amount)} is {shown(left)} % of it", f"{money(amount)} ÷ {shown(left / 100)} = {money(value)}"),
    ]
    stops = [("before", money, value), ("after", money, amount)]
    return Working(steps, value, money(value), _assumed(money, amount, factors, "end at"), _bars(stops))


def _assumed(money: Money, amount: Fraction, factors: list[Fraction], place: str) -> str:
    changes = ", then ".join(f"{shown(abs(percent))} % {'less' if percent < 0 else 'more'}" for percent in factors)
    return f"This takes the words to {place} {money(amount)} and to mean: {changes}, each of what is there at the time."


def _bars(amounts: list[tuple[str, Money, Fraction]]) -> list[Bar]:
    longest = max(abs(value) for _, _, value in amounts)
    return [Bar(f"{label}: {money(value)}", round(float(abs(value) / longest), 4)) for label, money, value in amounts]
