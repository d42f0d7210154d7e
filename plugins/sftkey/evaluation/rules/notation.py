r"""Formulas as people and models write them, in one spelling of LaTeX: 2√2, x², ½, 5·4, 12÷4, 10 000, **x**, \dfrac12."""

from __future__ import annotations

import re
import unicodedata

from sftkey.evaluation.rules.question import Asked

_UNICODE = {
    "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\ufe63": "-", "\uff0d": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ø": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "°": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "∨": r"\lor ", "∧": r"\land ", "→": r"\to ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ", "μ": r"\mu ", "σ": r"\sigma ", "Δ": r"\Delta ", "δ": r"\delta ",
    "…": r"\ldots ",
    "∶": ":", "′": "'", "，": ",", "。": ".", "；": ";", "：": ":", "（": "(", "）": ")", "∖": r"\setminus ",
}  # fmt: skip
_SUPERSCRIPTS = re.compile(r"[⁺⁻]?[⁰¹²³⁴-⁹ⁿ]+")
_SUBSCRIPTS = re.compile(r"[₀-₉]+")
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")
_ROOT = re.compile(r"([√∛∜])\s?(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_ORNAMENTS = re.compile(r"[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f300-\U0001faff`]")
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*([^*]+)\*\*(?![\w(*])")
_SPACING = re.compile(
    r"\\(?:[;:!]|quad\b|qquad\b|displaystyle\b|textstyle\b|limits\b|left\b|right\b|big\w?\b|Big\w?\b)|\\\\(?=\s?$)|&(?=\s?=)"
)
_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|mbox|hbox|operatorname|underline|mathcal|emph)\*?"
    r"\s?\{([^{}]*)\}"
)
_OLD_STYLE = re.compile(r"\\(?:rm|bf|it|cal)\b")
_COLOR = re.compile(r"\\(?:color|textcolor)\s?\{[^{}]*\}")
_BOX = re.compile(r"\\(?:boxed|fbox)\b\s?")
_FRAC = re.compile(r"\\[dtc]frac\b")
_SHORT_FRAC = re.compile(r"\\frac\s?(?:(\d)\s?(\d)|(\d)\s?(\{)|([a-z])\s?(\d|[a-z]))")
_FRAC_THEN_DIGIT = re.compile(r"(\\frac\s?\{[^{}]*\})\s?(\d|[a-z])(?!\w)")
_SHORT_ROOT = re.compile(r"\\sqrt\s?(\d)")
_PAREN_ROOT = re.compile(r"\\sqrt\s?\(([^()]*)\)")
_GROUPS = re.compile(r"(?<![\d.,_^{])\d{1,3}(?:(?:\\,|\\ |~|\{,\}|\s)\d{3})+(?!\d|\.\d|\{,)")
_SPACE = re.compile(r"(?<!\\)\\[, ]|(?<!\\)\\$")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]|\.\d{3})")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])\d+,\d+(?![\d,.])")
_DECIMALS = re.compile(r"\d\.\d")
_LARGE = re.compile(r"\d{4}|\d,\d{3}(?![\d,])")
_NOT_DIGIT = re.compile(r"\D")
_DELIMITERS = re.compile(r"\\[()\[\]]|\$")
_MATH_WORDS = re.compile(
    r"(?<![\\A-Za-z])(pi|infty|infinity|sqrt|sin|cos|tan|cot|sec|csc|ln|log|lg|exp|theta|alpha|beta)(?![a-z])"
)


def canonical(text: str) -> str:
    """A formula in one spelling; delimiters, decoration and spacing are gone. Linear in its length."""
    text = "".join(character if character.isprintable() else " " for character in text)
    text = _VULGAR.sub(_fraction, text)
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match.group())}}}", text)
    text = _SUBSCRIPTS.sub(lambda match: f"_{{{unicodedata.normalize('NFKC', match.group())}}}", text)
    text = _ROOT.sub(lambda match: rf"\sqrt{_ROOTS[match[1]]}{{{match[2] or match[3]}}}", text)
    text = "".join(_UNICODE.get(character, character) for character in text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_UNICODE.get(character, character) for character in text)
    text = _BOLD.sub(r"\1", _ORNAMENTS.sub(" ", text))
    text = " ".join(text.split())
    text = _SPACING.sub(" ", text)
    text = _COLOR.sub("", _BOX.sub("", text))
    for _ in range(2):
        text = _STYLE.sub(r" \1 ", text)
    text = _OLD_STYLE.sub(" ", text)
    text = _DELIMITERS.sub(" ", text.replace(r"\$", " "))
    text = " ".join(text.split())
    text = _GROUPS.sub(lambda match: _NOT_DIGIT.sub("", match.group()), text)
    text = _SPACE.sub(" ", text).replace("~", " ").replace("**", "^")
    text = _SHORT_FRAC.sub(_braced, _FRAC.sub(r"\\frac", text))
    text = _FRAC_THEN_DIGIT.sub(r"\1{\2}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _PAREN_ROOT.sub(r"\\sqrt{\1}", text))
    text = _MATH_WORDS.sub(lambda match: "\\" + {"infinity": "infty"}.get(match[1], match[1]), text)
    text = _PAREN_ROOT.sub(r"\\sqrt{\1}", text)
    return " ".join(text.split()).rstrip(".;,?: ").strip()


def _fraction(sign: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", sign.group()).partition("\u2044")
    return rf" \frac{{{numerator}}}{{{denominator}}}"


def _braced(match: re.Match[str]) -> str:
    if match[4]:
        return rf"\frac{{{match[3]}}}{{"
    return rf"\frac{{{match[1] or match[5]}}}{{{match[2] or match[6]}}}"


def comma_readings(text: str, other: str, asked: Asked) -> list[str]:
    """A text with each meaning that its commas may have beside the other text.

    A comma separates thousands (``10,000``), decimals (``12,5``, only where the other text has a decimal point), or items.
    """
    if any(bracket in text for bracket in "([{") or not re.search(r"\d,\d", text):
        return [text]
    found = []
    groups = _COMMA_GROUPS.search(text)
    if groups is not None:
        parts = groups.group().split(",")
        joined = _COMMA_GROUPS.sub(lambda match: match.group().replace(",", ""), text)
        if any(part.startswith("0") for part in parts[1:]):
            return [joined]
        if len(parts) < 4 and not asked.listed and (asked.given or _LARGE.search(other)):
            found.append(joined)
            if asked.given:
                return found
    if _DECIMAL_COMMA.search(text) and _DECIMALS.search(other) and not asked.listed:
        found.append(_DECIMAL_COMMA.sub(lambda match: match.group().replace(",", "."), text))
    return [*found, text]
