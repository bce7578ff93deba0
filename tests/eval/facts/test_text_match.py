"""How texts are compared: what held for Latin letters still holds, and other scripts have their own rules."""

import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tidy_stlms.eval.facts.text_match import (
    closing_punctuation,
    find_words,
    folded,
    folded_all,
    holds_answer,
    holds_terminal,
    is_answer,
    parts_of,
    shown_joint,
    usual_joint,
    words_in,
)

NFC_CAFE, NFD_CAFE = "Caf\u00e9", "Cafe\u0301"

# what a model says (and did not end), the answers, whether it is one of them, whether it holds one
LATIN = [
    (" Spring.", ["Spring"], True, True),
    (" Springfield.", ["Spring"], False, False),
    (" Spring Valley.", ["Spring"], False, True),
    (" Spring\nShe", ["Spring"], True, True),
    (" Spring_field", ["Spring"], False, False),
    (" St. Louis. He", ["St. Louis"], True, True),
    (" St. Paul. He", ["St. Louis"], False, False),
    (" J.R.. He", ["J.R."], True, True),
    (" J.R. Ewing.", ["J.R."], False, True),
    (" J.R.R. Tolkien.", ["J.R."], False, False),
    (" C++11.", ["C++"], False, False),
    (" NYC.", ["New York", "NYC"], True, True),
    (" 3.5 metres", ["3"], False, False),
    ("\u3000北京。", ["北京"], True, True),
    ("\u00a0Paris.", ["Paris"], True, True),
    (" 1,000 people", ["000"], False, False),
    (" 1, 000 people", ["1"], False, True),
    (" 3. He", ["3"], True, True),
    (" 35.", ["3"], False, False),
    ("  Paris .", ["Paris"], True, True),
    (" paris.", ["Paris"], False, False),
    ("\nParis.", ["Paris"], False, True),
    (" Paris, France.", ["Paris"], False, True),
    (" Paris", ["Paris"], False, True),
    ("", ["Paris"], False, False),
    (".", [""], False, False),
    ("Paris.", [" Paris "], True, True),
    (" Zürich.", ["Zürich"], True, True),
    (" Zürichsee.", ["Zürich"], False, False),
]
NEW = [
    (" Paris! Oh", ["Paris"], True, True),
    (" Paris? Oh", ["Paris"], True, True),
    (" Paris!Oh", ["Paris"], False, True),  # no sentence begins there
    (' Paris". He', ["Paris"], True, True),
    (" Paris». Il", ["Paris"], True, True),
    (" Paris”. He", ["Paris"], True, True),
    (" Paris“. Er", ["Paris"], True, True),  # German
    (" Paris). He", ["Paris"], True, True),
    (" Paris) and", ["Paris"], False, True),
    (' Paris".5', ["Paris"], False, True),
    (" Paris\u202f! Et", ["Paris"], True, True),  # French: a narrow space before it
    (" Paris\r\nShe", ["Paris"], True, True),
    (" Paris\u2028She", ["Paris"], True, True),
    # Chinese and Japanese: no spaces, wide punctuation, no space behind it
    ("北京。", ["北京"], True, True),
    ("北京。它是", ["北京"], True, True),
    ("北京！", ["北京"], True, True),
    ("北京？是", ["北京"], True, True),
    ("北京．", ["北京"], True, True),
    ("北京」。", ["北京"], True, True),
    ("北京》。他", ["北京"], True, True),
    ("北京，中国", ["北京"], False, True),
    ("北京", ["北京"], False, True),
    ("巴黎人。", ["巴黎"], False, True),
    ("他在北京工作", ["北京"], False, True),
    ("他在ABC工作", ["ABC"], False, True),
    ("他在ABCD工作", ["ABC"], False, False),
    ("在1949年", ["1949"], False, True),
    ("在11949年", ["1949"], False, False),
    ("３．５", ["３"], False, True),
    ("３5", ["３"], False, False),
    ("2。", ["２"], False, False),  # other digits, not merged as NFKC would
    ("東京です。", ["東京"], False, True),
    ("コーヒー。", ["コーヒー"], True, True),
    ("コーヒー。", ["コー"], False, True),
    # Thai, Khmer, Myanmar
    ("อยู่ที่กรุงเทพ", ["กรุงเทพ"], False, True),
    ("กรุงเทพ\n", ["กรุงเทพ"], True, True),
    ("ที่", ["ท"], False, False),  # a vowel sign belongs to the letter
    ("๑๒", ["๑"], False, False),
    ("ភ្នំពេញ។", ["ភ្នំពេញ"], True, True),
    ("ရန်ကုန်။", ["ရန်ကုန်"], True, True),
    # scripts with spaces
    ("दिल्ली। यह", ["दिल्ली"], True, True),
    ("दिल्लीवाला।", ["दिल्ली"], False, False),
    ("दिल्ली।", ["दिल्ल"], False, False),
    ("الرياض؟ لا", ["الرياض"], True, True),
    ("لاہور۔", ["لاہور"], True, True),
    ("서울은", ["서울"], False, False),
    ("서울.", ["서울"], True, True),
    ("Երևան։", ["Երևան"], True, True),
    # normal forms
    (f" {NFD_CAFE}.", [NFC_CAFE], True, True),
    (f" {NFC_CAFE}.", [NFD_CAFE], True, True),
    (f" {NFD_CAFE}.", ["Cafe"], False, False),
    ("한국.".replace("한국", unicodedata.normalize("NFD", "한국")), ["한국"], True, True),
    (" x\u0331.", ["x"], False, False),  # no composed character for it
    # emoji: joined ones, and flags, which are pairs
    (" 👩.", ["👩"], True, True),
    (" 👩\u200d🚀.", ["👩"], False, False),
    (" 👍🏽.", ["👍"], False, False),
    (" 🇩🇪🇫🇷.", ["🇩🇪"], False, True),
    (" 🇩🇪🇫🇷.", ["🇪🇫"], False, False),
]


@pytest.mark.parametrize(("text", "answers", "exact", "held"), LATIN + NEW)
def test_the_table(text, answers, exact, held):
    assert is_answer(text, answers, ended=False) is exact
    assert holds_answer(text, answers) is held


def test_the_end_of_the_text():
    for text, answer in ((" Paris", "Paris"), ("北京", "北京"), ("กรุงเทพ ", "กรุงเทพ"), (NFD_CAFE, NFC_CAFE)):
        assert is_answer(text, [answer], ended=True)
        assert not is_answer(text, [answer], ended=False)
    assert not is_answer("巴黎人", ["巴黎"], ended=True)
    assert not is_answer(" Paris, France", ["Paris"], ended=True)


def test_the_wordings_own_terminators():
    assert is_answer(" Paris; oh", ["Paris"], False, ";")
    assert not is_answer(" Paris;oh", ["Paris"], False, ";")
    assert is_answer(' Paris."', ["Paris"], False, '."')
    assert is_answer("北京。他", ["北京"], False, "。")
    assert is_answer("北京；他", ["北京"], False, "；")


def test_the_closing_punctuation_of_a_wording():
    wordings = {
        "{subject} was born in {object}.": ".",
        "{subject} saw {object}!? ": "!?",
        "他说「{subject}是{object}」。": "」。",
        "{subject} {object} में।": "।",  # a vowel sign is no punctuation
        "{object}": "",
        "": "",
    }
    assert {wording: closing_punctuation(wording) for wording in wordings} == wordings


# ---- the rules of before, for Latin letters ---------------------------------------------------------------
LATIN_TEXT = st.text("abAB19_ .,!?'\"-+()éÜß\n", max_size=10)


@given(LATIN_TEXT, LATIN_TEXT.filter(str.strip))
def test_containment_of_latin_answers_is_that_of_a_regular_expression(text, answer):
    # but "3.5" and "1,000" are one word each (UAX #29, WB11 and WB12)
    no_number = r"(?!(?<=\d)[.,']\d)(?!(?<=\d[.,'])\d)"
    pattern = rf"(?<!\w){no_number}{re.escape(answer.strip())}(?!\w){no_number}"
    assert holds_answer(text, [answer]) == bool(re.search(pattern, text))


@given(LATIN_TEXT, LATIN_TEXT.filter(bool))
def test_latin_words_end_between_letters_and_others(text, words):
    def whole(start):
        end = start + len(words)
        begins = start == 0 or not (text[start - 1].isalnum() and words[0].isalnum())
        return begins and (end == len(text) or not (text[end].isalnum() and words[-1].isalnum()))

    places = [start for start in range(len(text)) if text.startswith(words, start) and whole(start)]
    assert find_words(text, words) == (places[0] if places else -1)


@given(LATIN_TEXT, LATIN_TEXT.filter(str.strip), st.booleans())
def test_what_was_a_latin_exact_match_is_one(text, answer, ended):
    text, answer = text.lstrip(" "), answer.strip()
    rest = text[len(answer) :].lstrip(" ")
    was = text.startswith(answer) and (
        ended if not rest else rest[0] == "\n" or (rest[0] == "." and not rest[1:2].isalnum())
    )
    now = is_answer(text, [answer], ended)
    assert now or not was
    if now and not was:  # by a terminator that was none before
        assert regex.match(r"""[^\S\n]*[\p{Pe}'"]*[.!?]""", rest)


# ---- any script -------------------------------------------------------------------------------------------
SCRIPTS = st.text(
    "aé\u0301\u0323北京人ก\u0e34ท\u0e48हि\u094d한\u1112\u1161\u11abコー\u3099👩\u200d🇩🇪1２. 。！", max_size=12
)
FORMS = st.sampled_from(["NFC", "NFD"])


@given(SCRIPTS, SCRIPTS, FORMS, FORMS, st.booleans())
def test_the_normal_form_does_not_matter(text, answer, one, other, ended):
    again, too = unicodedata.normalize(one, text), unicodedata.normalize(other, answer)
    assert holds_answer(again, [too]) == holds_answer(text, [answer])
    assert is_answer(again, [too], ended) == is_answer(text, [answer], ended)
    assert folded(again) == folded(text)


@given(SCRIPTS, SCRIPTS)
def test_what_is_found_is_whole_characters(text, words):
    text, words = unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", words)
    for strict in (False, True):
        start = find_words(text, words, strict=strict)
        if start >= 0:
            ends = {0, *(cluster.end() for cluster in regex.finditer(r"\X", text))}
            assert text[start : start + len(words)] == words
            assert {start, start + len(words)} <= ends


@given(SCRIPTS.map(str.strip).filter(bool))
def test_a_text_answers_itself(answer):
    assert holds_answer(answer, [answer])
    assert is_answer(f"{answer}\n", [answer], ended=False)


@given(st.lists(SCRIPTS | st.text(max_size=3)))
def test_folding_all_at_once(texts):
    assert folded_all(texts) == [folded(text) for text in texts]


def test_case_folding():
    assert folded("STRASSE") == folded("Straße")
    assert folded(NFD_CAFE.upper()) == folded(NFC_CAFE)


@given(
    st.text(st.characters(max_codepoint=0x2FF) | st.characters(min_codepoint=0x2000, max_codepoint=0x2BFF))
)
def test_words_are_the_same_by_the_fast_way(text):
    """Letters that `re` knows to be such get the same words with another script beside them."""
    assigned = "".join(c for c in text if unicodedata.category(c) != "Cn" and not "\x1c" <= c <= "\x1f")
    for digits in (False, True):
        assert [*words_in(assigned, digits), "京"] == words_in(f"{assigned} 京", digits)
    assert [*parts_of(assigned), "京"] == parts_of(f"{assigned} 京")


def test_words():
    text = "Le n°1, l'été: 中国的ไทย हिन्दी e\u0301 co2 x_y ⟨1⟩"
    thai = ["中", "国", "的", "ไ", "ท", "ย"]
    assert words_in(text) == ["Le", "n", "1", "l", "été", *thai, "हिन्दी", "e\u0301", "co2", "x", "y", "1"]
    assert words_in(text, digits=False) == [
        *("Le", "n", "l", "été", *thai, "हिन्दी", "e\u0301", "co", "x", "y")
    ]
    assert parts_of("O'Hara-Roe 王小明, x") == ["O'Hara-Roe", "王", "小", "明", ",", "x"]


def test_terminals():
    assert all(map(holds_terminal, ("a.", "a!b", "北。", "क।", "؟")))
    assert not any(map(holds_terminal, ("a, b; c: d", "北京、", "…", "")))


def test_joints():
    for before in ("L'un est l'", "(", "He said “", 'He said "', "post-", "{subject}是", "首都：", "ที่", "/"):
        assert shown_joint(before) == "", before
    for before in ("is in ", "is in", "No. 3", "Q?\n", "है", ""):
        assert shown_joint(before) == " ", before
    for prompt, answer in (
        ("首都是", "北京"),
        ("首都是", "「北京」"),
        ("（", "x"),
        ("(", "x"),
        ("อยู่ที่", "ไทย"),
        ("首都：", "Rome"),
        ("La formule de l'", "eau"),
        ("Qu’", "il"),
        ("C'est dell’", "arte"),
        ("He said “", "yes"),
        ('He said "', "yes"),
        ("Il dit «", "oui"),
        ("A man who is Paris-", "based"),
        ("Its price is $", "100"),
    ):
        assert usual_joint(prompt, answer) == "", prompt
    for prompt, answer in (
        ("is", "北京"),
        ("公司是", "IBM"),
        ("the Jones'", "house"),
        ('He said "yes"', "and"),
        ("Paris -", "a city"),
        ("paid in $", "and"),
        ("수도는", "서울"),
        ("is:", "x"),
        ("", "x"),
    ):
        assert usual_joint(prompt, answer) == " ", prompt
