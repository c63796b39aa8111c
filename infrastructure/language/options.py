"""How the options of a multiple-choice question compare with a result."""

import re
from fractions import Fraction

from infrastructure.language.animation import Animation
from infrastructure.language.reading import NUMBER, Option, Reading

PART = re.compile(r"\s*([0-9]{1,9})\s*/\s*([1-9][0-9]{0,8})\s*")
SIGNED = re.compile(rf"[-−]?\s?{NUMBER}")
WORD = re.compile(r"[^\W_]+(?:\.[0-9]+)?")


def verdict(reading: Reading, animation: Animation) -> str:
    """Which option says the result, and what the question names as its answer; empty where there is neither."""
    if not animation.result:
        return named_answer(reading)
    equal = [option for option in reading.options if _says(option, animation)]
    said = []
    if len(equal) == 1:
        said.append(f"That is option {equal[0].label}: {equal[0].text.rstrip('.')}.")
    elif not equal and reading.options and all(_comparable(option, animation) for option in reading.options):
        said.append("None of the options says exactly that.")
    if reading.answer:
        said.append(named_answer(reading))
    return " ".join(said)


def named_answer(reading: Reading) -> str:
    if not reading.answer:
        return ""
    chosen = [option.text for option in reading.options if option.label == reading.answer.strip("().").upper()]
    answer = f"{reading.answer} ({chosen[0]})" if chosen else reading.answer
    return f"The question itself names its answer: {answer[:300].rstrip('.')}."


def _says(option: Option, animation: Animation) -> bool:
    if animation.value is None:
        return _words(option.text) == _words(animation.result)
    return _comparable(option, animation) and _equal(option.text, animation)


def _comparable(option: Option, animation: Animation) -> bool:
    """Whether an option is one amount with the unit of the result or without any, or as many words as the result."""
    if animation.value is None:
        return len(_words(option.text)) == len(_words(animation.result))
    return bool(PART.fullmatch(option.text)) or (
        len(SIGNED.findall(option.text)) == 1 and _unit(option.text) in ("", _unit(animation.result))
    )


def _equal(text: str, animation: Animation) -> bool:
    """Equal, or equal as far as the option's decimals go."""
    value = animation.value or Fraction(0)
    if part := PART.fullmatch(text):
        return Fraction(int(part[1]), int(part[2])) == value
    written = SIGNED.findall(text)[0].replace(",", "").replace("−", "-").replace(" ", "")
    percent = animation.subject == "probability" and "%" in text
    amount = Fraction(written) / (100 if percent else 1)
    places = len(written.partition(".")[2])
    unit = Fraction(1, 10**places) / (100 if percent else 1)
    return amount == value or (places > 0 and abs(amount - value) * 2 <= unit)


def _unit(text: str) -> str:
    """What is left of an amount without its number: `km/h`, `$`."""
    text = re.sub(r"\([^()]*\)|\babout\b|\bapproximately\b", " ", text)
    if PART.match(text):
        return ""
    return "".join(SIGNED.sub(" ", text, count=1).split()).rstrip(".").lower()


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]
