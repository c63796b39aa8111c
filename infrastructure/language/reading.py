"""Reading a question without a language model: its parts and its key terms, by signs in the text alone."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_uppercase

import msgspec

READ = 20_000
"""Characters that are read; what comes after is left out, and the page says so."""

NUMBER = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"
UNIT = r"%|percent\b|[\u3040-\u9fff]|(?:km/h|m/s|mph|km|cm|mm|m|kg|g|ml|l|h|min|s)\b|°[CF]?|[a-z]{2,}s\b"
QUANTITY = re.compile(rf"[$€£¥]\s?{NUMBER}|{NUMBER}(?:\s?(?:{UNIT}))?", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\b[DM]r\.)(?<!\bMrs\.)\s+|(?<=[。！？؟])\s*|\n+")
QUESTION_MARK = re.compile(r"[?？؟\u037e]\s*$")
ASKING = re.compile(
    r"^(?:what|how|which|who|whom|whose|when|where|why|find|calculate|compute|determine|evaluate|solve|simplify|"
    r"explain|describe|define|compare|discuss|prove|show|write|implement|design|list|name|state|give)\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(r",\s+(?=(?:what|how|which|who|when|where|why|find|calculate)\b)", re.IGNORECASE)
OPTION = re.compile(r"(?:^|(?<=\n))[ \t]*\(?([A-Ha-h])[).:][ \t]+|(?<=[\s?])\(?([A-Ha-h])\)[ \t]+")
LABEL = re.compile(r"\s*(?:[-*]\s+)?\(?([A-Za-z]|[0-9]{1,2})[).:]\s+")
ANSWER = re.compile(r"^[ \t]*(?:correct[ \t]+)?answer[ \t]*[:=][ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
HAN_PARTICLES = re.compile(r"[ぁ-ん的了是在和与及或把被对从到就都而之有个吗呢吧么什怎哪几多少]+")
STOP_WORDS_WRITTEN = """
    a about above after again all also always an and another any are as at be became because been before being
    below between both but by can cannot could did do does doing done down during each either else every few find for
    from further gave get gets give given gives go goes got had has have having he her here hers him his how however
    i if in into is it its itself just know last least less let like made make makes many may me might more most much
    must my need needs neither never no nor not now of off often on once one only or other our out over own per please
    put same say see she should show since so some still such take takes than that the their them then there these
    they this those though through thus to together too under until up upon us use used uses using very was we were
    what when where whether which while who whom whose why will with within without would yes yet you your
    answer answers question questions following calculate compute determine evaluate explain describe define compare
    discuss write name state correct true false choose select option options percent two three four five
    does happen happens called mean means many much different first second work works becomes become costs takes
"""
STOP_WORDS = frozenset(STOP_WORDS_WRITTEN.split())


class Option(msgspec.Struct, frozen=True):
    """One of the choices of a multiple-choice question, under its letter."""

    label: str
    text: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A question in parts: the sentences that tell, the one that asks, the options and the answer it names.

    `terms` are its key terms and `quantities` its numbers with their units, each as the question writes it, most
    important first. Fenced code is no part of them, it is `code`; `unread` counts the characters beyond `READ`.
    """

    sentences: list[str]
    given: list[str]
    asked: str
    options: list[Option]
    answer: str
    quantities: list[str]
    terms: list[str]
    code: str
    unread: int

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def read(question: str, options: Sequence[str] = (), answer: str | None = None) -> Reading:
    """The parts of a question; `options` and `answer` are those given beside its text."""
    text = "\n".join(question[:READ].splitlines())
    named = ANSWER.search(text)
    stem, found = _without_options(CODE_BLOCK.sub("", ANSWER.sub("", text)))
    given, asked = _given_and_asked(_sentences(stem))
    sentences = [*given, *([asked] if asked else [])]
    return Reading(
        sentences=sentences,
        given=given,
        asked=asked,
        options=_labelled(options) if options else found,
        answer=answer.strip() if answer else named[1].strip() if named else "",
        quantities=_quantities(stem),
        terms=_terms(sentences),
        code="\n".join(CODE_BLOCK.findall(text)),
        unread=max(len(question) - READ, 0),
    )


def _without_options(text: str) -> tuple[str, list[Option]]:
    """The text before the options, and the options: letters that follow each other from A on."""
    marks: list[re.Match[str]] = []
    for mark in OPTION.finditer(text):
        if (mark[1] or mark[2]).upper() == "ABCDEFGH"[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if len(marks) < 2:
        return text.strip(), []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    last, _, after = texts[-1].partition("\n")
    options = [
        Option((mark[1] or mark[2]).upper(), " ".join(choice.split()))
        for mark, choice in zip(marks, [*texts[:-1], last], strict=True)
    ]
    return f"{text[: marks[0].start()]}\n{after}".strip(), options


def _labelled(options: Sequence[str]) -> list[Option]:
    """Each option under its own label, where all have one, else under a letter."""
    labels = [LABEL.match(option) for option in options]
    if all(labels):
        marks = [(label, option) for label, option in zip(labels, options, strict=True) if label]
        return [Option(label[1].upper(), " ".join(option[label.end() :].split())) for label, option in marks]
    lettered = zip(ascii_uppercase, options, strict=False)
    return [Option(letter, " ".join(option.split())) for letter, option in lettered]


def _sentences(stem: str) -> list[str]:
    return [sentence.strip() for sentence in SENTENCE_END.split(stem) if sentence and sentence.strip()]


def _given_and_asked(sentences: list[str]) -> tuple[list[str], str]:
    """What is asked is the last sentence that asks (else the last one); a clause before its asking word is given."""
    asking = [at for at, sentence in enumerate(sentences) if _asks(sentence)]
    at = asking[-1] if asking else len(sentences) - 1
    if at < 0:
        return [], ""
    *clause, asked = CLAUSE.split(sentences[at], maxsplit=1)
    return [*sentences[:at], *clause, *sentences[at + 1 :]], asked


def _asks(sentence: str) -> bool:
    return bool(QUESTION_MARK.search(sentence) or ASKING.match(sentence))


def _quantities(stem: str) -> list[str]:
    found = (_with_true_unit(match[0]) for match in QUANTITY.finditer(stem))
    return list(dict.fromkeys(found))


def _with_true_unit(quantity: str) -> str:
    """`5 of` and `3 and` name no unit; `240 students` does."""
    number, _, unit = quantity.partition(" ")
    return number if unit.lower() in STOP_WORDS - {"percent"} else quantity.strip()


def _without_quantities(sentence: str) -> str:
    for part in (QUANTITY, HAN_PARTICLES):
        sentence = part.sub(lambda match: " " * len(match[0]), sentence)
    return sentence


def _terms(sentences: list[str]) -> list[str]:
    """Content words and pairs of them, by how often they come and then by where they come first."""
    runs = [run for sentence in sentences for run in _runs(sentence)]
    words = Counter(word.lower() for run in runs for word in run)
    pairs = Counter(f"{a} {b}".lower() for run in runs for a, b in pairwise(run))
    written = {word.lower(): word for run in reversed(runs) for word in reversed(run)}
    repeated = [pair for pair, count in pairs.items() if count > 1]
    inside = {word for pair in repeated for word in pair.split() if words[word] == pairs[pair]}
    ranked = [*repeated, *(word for word in words if word not in inside)]
    ranked.sort(key=lambda term: -(pairs[term] or words[term]))
    return [" ".join(written[word] for word in term.split()) for term in ranked]


def _runs(sentence: str) -> list[list[str]]:
    """Content words that stand side by side; blanks and hyphens join them, stop words and marks part them."""
    runs: list[list[str]] = [[]]
    end = 0
    for match in WORD.finditer(_without_quantities(sentence)):
        if sentence[end : match.start()].strip() or match[0].lower() in STOP_WORDS:
            runs.append([])
        if match[0].lower() not in STOP_WORDS and len(match[0]) > (2 if match[0].isascii() else 1):
            runs[-1].append(match[0])
        end = match.end()
    return [run for run in runs if run]
