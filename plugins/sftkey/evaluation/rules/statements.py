"""What a text asserts: without what it denies, concedes, explains, or takes back. Every search is linear."""

from __future__ import annotations

import re
from collections.abc import Iterator

_CLAUSE = r"(?:(?!\bbut\b)[^,;:.!?\n。，；！？]){0,200}"
_DENIED = re.compile(
    rf"""(?<!\w)(?:(?:[,;(]|[—–-]{{1,2}}\s|\b(?:and|but|so)\b)\s{{0,3}}(?:(?:and|but|certainly|definitely)\s)?)?
    (?:
        (?:and\s)?\b(?:not|never)\b(?!\s(?:only|just|until)\b){_CLAUSE}
      | \b(?:rather\sthan|instead\sof|as\sopposed\sto|in\scontrast\sto|unlike)\b{_CLAUSE}
      | \b(?:ruled?|ruling)\sout\b{_CLAUSE}
      | \b(?:eliminat|exclud|discard|reject|dismiss|disregard)(?:e|es|ed|ing|s)?\b{_CLAUSE}
      | \b(?:al)?though\b{_CLAUSE} | \b(?:even\sif|even\sthough|despite|whereas)\b{_CLAUSE}
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_REASON = re.compile(
    r"[\s,;:(—–-]{0,4}\b(?:because|since|as(?=\s(?:it|they|the|this|that|he|she|we|only|plants?)\b)|due\sto|given\sthat"
    r"|for\sthe\sreason|which|explanation|reason(?:ing)?|justification)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_WRONG = re.compile(
    r"\b(?:wrong|incorrect|false|impossible|untrue|tempting|a\sdistractor|no|nope|not|never|cannot|hardly|scarcely|unlikely"
    r"|less\slikely|doubt(?:s|ed|ful|fully)?|fail(?:s|ed)?|avoid|reject|exclude[ds]?|without|(?:is|are|was|be|ruled)\sout"
    r"|other\sthan|(?:all|any\w*|every\w*)(?:\s\w{1,12}){0,2}?\s(?:but|except))\b|n['’]t\b|[✗✘❌]",
    re.IGNORECASE,
)
LEFT_OF_A_DENIAL = re.compile(
    r"\b(?:is|was|are|were|be|does|do|can|could|has|have|would|will|should|may|might)\W*$", re.IGNORECASE
)
_CORRECTION = re.compile(
    r"""(?:^|(?<=[\s.?!,;:…(—–*]))(?:
        wait\b(?=[\s,.!?:;…—–-]{0,3}(?:$|[,.!?:;…—–-]|\n|(?:no|actually|that|this|it|i|let|a|the|so|sorry|hold)\b))
      | (?:no|nope)(?=\s?[,:.!;—–-]\s?)
      | (?:correction|corrected|scratch\sthat|strike\sthat|oops|whoops|sorry|hold\son|on\ssecond\sthoughts?|my\smistake
          |i\s(?:made|see)\sa[n]?\s(?:mistake|error)|i\smeant?|i\smisread|let\sme\s(?:correct|re\w{2,12}|double.?check|check|verify)
          |that['’]?s\s(?:wrong|not\sright|incorrect)|that\s(?:is|was)\s(?:wrong|not\sright|incorrect|a\smistake)
          |that\smisses)\b
      | (?:but\s)?actually\b(?=\s?[,:]|\s(?:it|the|that|this|no|i|\W?\w\b|[\\$]))
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_FAREWELL = re.compile(
    r"(?:^|(?<=[.!?\n]))[ \t*_]{0,5}(?:let\sme\sknow|i\shope|hope\s(?:this|that|it)|feel\sfree|please\slet|would\syou\slike"
    r"|do\syou\s(?:want|need|have)|if\syou\s(?:have|need|want|'?d)|happy\sto|is\sthere\sanything|thank(?:s|\syou)|have\sa\s"
    r"|good\sluck|note\sthat)\b[^\n]*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?。！？…](?:[*_)\"'”’]{0,3})(?=\s|$)|[。！？]|\n")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Rs|vs|etc|approx|e\.g|i\.e)$")
_SUPPOSED = re.compile(
    r"(?:\b(?:if|whether|unless|suppos(?:e|ing)|assum(?:e|ing)|why|wonder(?:ing)?|tempting|wrongly|mistakenly|incorrectly"
    r"|(?:might|may|could|some|many|people|students)\s(?:\w{1,12}\s){0,2}(?:think|say|guess|believe|assume|argue|pick|choose))"
    r"|(?:\bnot|n['’]t)\s(?:\w{1,12}\s){0,2}(?:think|believe|say|sure|certain|clear|true|mean))\b"
    r"[^.!?;\n]{0,40}$",
    re.IGNORECASE,
)
# Of "14 excluded." nothing is left to assert, unlike of "A and B excluded, C".
_SET_ASIDE = re.compile(
    r"^[^,;:.\n]{1,80}\s(?:eliminated|excluded|discarded|rejected|dismissed|ruled\sout)[\s.!*_)]{0,8}$", re.IGNORECASE
)
_LABEL = re.compile(r"(?<![\w'’])[A-Z]$")
_CONNECTOR = re.compile(
    r"^(?:[\s,;:)\]]|[—–-]+\s)*(?:(?:but|rather|instead|so|then|and|it['’]?s|it\sis)\b[\s,:]*)*", re.IGNORECASE
)


def asserted(text: str) -> str:
    """A statement without the clauses that deny or concede something: of "B, not A" and "not A, but B" it's B."""
    kept = text if _SET_ASIDE.match(text) else _DENIED.sub(" ", text)
    return text if kept == text else _CONNECTOR.sub("", kept).strip(" ,;:").rstrip(" (—–-")


def without_reason(text: str) -> str:
    """A statement without the reason given for it, if anything is left then."""
    kept = _REASON.sub("", text, count=1)
    return kept if kept.strip() else text


def denies(clause: str) -> bool:
    """Whether a clause says of what it names that it is wrong."""
    return _WRONG.search(clause) is not None or _SET_ASIDE.match(clause) is not None


def leaves_a_denial(text: str) -> bool:
    """Whether a text still denies something without its denying clauses, or answers its own question with a no."""
    kept = asserted(text)
    return denies(text if "?" in text else without_reason(kept)) or (
        kept != text and LEFT_OF_A_DENIAL.search(kept) is not None
    )


def supposed(text: str, place: int) -> bool:
    """Whether what a text says at a place is only a supposition: "if the answer is A", "some may say that it's A"."""
    return _SUPPOSED.search(text, max(0, place - 80), place) is not None


def corrections(text: str) -> list[int]:
    """Where the text takes back what it said before; the places after the words that say so."""
    return [mark.end() for mark in _CORRECTION.finditer(text) if mark.start() > 0]


def without_farewell(text: str) -> str:
    """A text without the sentences that offer more help."""
    return _FAREWELL.sub("", text).rstrip()


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """The sentences of a text, each with its place; a full stop after a title or the number of a list ends none."""
    start = 0
    for end in _SENTENCE.finditer(text):
        if end.group()[0] == ".":
            before = text[max(start, end.start() - 8) : end.start()]
            if _ABBREVIATION.search(before) or (start == end.start() - len(before) and before.strip().isdecimal()):
                continue
            if _LABEL.search(before) and text[end.end() : end.end() + 2].strip()[:1].islower():
                continue  # "A. a marsh"
        if text[start : end.end()].strip():
            yield start, text[start : end.end()].strip()
        start = end.end()
    if text[start:].strip():
        yield start, text[start:].strip()
