"""report.html: what stands in it, and, in a headless Chromium where there is one, what it does."""

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from msgspec import convert, to_builtins
from msgspec.structs import replace

from tests.eval.report.browser import NO_BROWSER, open_browser
from tests.eval.report.study_example import (
    HOSTILE,
    MEASURED,
    OTHER,
    example_results,
    example_study,
    html_of,
    model_info,
    study_of,
)
from tidy_stlms.configs.printable import UNPRINTABLE, printable
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report import page as study_page_module
from tidy_stlms.eval.report.page import TEMPLATES
from tidy_stlms.eval.report.palette import COLOURS, PROBE_COLOURS
from tidy_stlms.eval.report.study_content import content_of
from tidy_stlms.eval.report.study_report import study_markdown
from tidy_stlms.eval.study.study import Study

VOID = {"meta", "link", "wbr"}


class Page(HTMLParser):
    """Elements with their attributes and their texts, in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "path": [one["tag"] for one in self.open], **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def results():
    return example_results()


@pytest.fixture(scope="module")
def study():
    return example_study()


@pytest.fixture(scope="module")
def html(study, results):
    return html_of(study, results)


@pytest.fixture(scope="module")
def page(html):
    page = Page(html)
    assert not page.open  # every element is closed
    return page


def test_texts_of_models_and_banks_are_text(html, page):
    known = {
        "html",
        "head",
        "body",
        "header",
        "main",
        "section",
        "article",
        "nav",
        "noscript",
        "title",
        "style",
    }
    known |= {
        "meta",
        "link",
        "script",
        "h1",
        "h2",
        "h3",
        "p",
        "a",
        "b",
        "i",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
    }
    known |= {
        "div",
        "span",
        "bdi",
        "figure",
        "figcaption",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    known |= {"svg", "g", "path", "rect", "circle", "text", "details", "summary", "wbr"}
    assert {element["tag"] for element in page.elements} <= known
    assert all("<b>employer</b>" not in element for element in [html])
    assert any(element["text"] == "<b>employer</b>" for element in page.all("bdi"))
    assert any("</script><script>" in element["text"] for element in page.all("bdi"))


def test_characters_that_control_the_page_are_shown(study, results):
    """In cells, attributes, figures, script data, prompts and Markdown; other texts stay."""
    bad, kept = "\x1b]0;t\x07 \u202eab\x9b\u2066 ", "\N{MAN}\u200d\N{WOMAN} \u05d0\u05d1 e\u0301"
    study, results = (
        convert(rename(to_builtins(each), bad + kept + "a"), to)
        for each, to in ((study, Study), (results, list[ProbeResult]))
    )
    html, markdown = html_of(study, results), study_markdown(content_of(study))
    for text in (html, markdown):
        assert not UNPRINTABLE.search(text)
        assert kept in text
    assert html.count("\\u202e") > 100
    assert markdown.count("\\\\u202e") > 20
    data = json.loads(next(one["text"] for one in Page(html).all("script") if one.get("id") == "data"))
    assert any(text.startswith(f"Ad{printable(bad)}{kept}a Quill") for text in data["texts"])


def rename(value, new):
    """The texts from models and banks with another text in place of each a; other values and keys stay."""
    if isinstance(value, list | tuple):
        return [rename(each, new) for each in value]
    if isinstance(value, dict):
        fixed = ("role", "type", "metric", "joint", "created")
        return {
            (rename(key, new) if key in MEASURED else key): item if key in fixed else rename(item, new)
            for key, item in value.items()
        }
    return value.replace("a", new) if isinstance(value, str) else value


def test_nothing_is_fetched_and_nothing_runs_but_the_page_itself(page):
    for element in page.elements:
        assert not [name for name in element if name.startswith("on") or name in ("src", "style", "action")]
        assert element.get("href", "#").startswith("#") or element["href"] == "data:,"
    script_data, script = page.all("script")
    assert script_data["type"] == "application/json"
    (style,) = page.all("style")
    (policy,) = (one["content"] for one in page.all("meta") if one.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for rule, element in (("style-src", style), ("script-src", script)):
        digest = hashlib.sha256(element["text"].encode()).digest()
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_the_script_writes_no_html():
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", script
    )


def test_the_structure_that_readers_of_the_page_by_ear_need(page):
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(element["tag"][1]) for element in page.all("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 15
    assert all(element.get("scope") in ("col", "row") for element in page.all("th"))
    pictures = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert pictures
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in pictures)
    ids = [element["id"] for element in page.elements if "id" in element]
    assert len(ids) == len(set(ids))
    links = {element["href"][1:] for element in page.all("a")}
    assert links == {element["id"] for element in page.all("section")}


def test_figures_have_a_mark_for_every_mean(page):
    titles = [element["text"] for element in page.all("title") if "g" in element["path"]]
    bars = 2 * (3 * 3 * 2 + 3 * 3)  # metrics x (types x models x (injected, control) + types x models)
    # steps: types x (injected, control) x checkpoints; doses: metrics x models x types x (doses, control)
    assert len(titles) == bars + 3 * 2 * 3 + 2 * 3 * 3 * (3 + 1)
    assert all(re.fullmatch(r".+: −?\d+\.\d\d \[−?\d+\.\d\d, −?\d+\.\d\d\]", title) for title in titles)


def test_the_page_says_what_it_was_made_from(page, html):
    text = page.all("body")[0]["text"]
    for said in (
        "9f2c" * 16,
        "Scorer version",
        "0123456789abcdef",
        "31 January 2026",
        "Guessing scores 0.10.",
        "Guessing scores 0.05 (memorization, semantic), 0.12 (inferential).",
    ):
        assert said in text
    assert "outputs/broken failed and is left out: out of memory <b>at</b> layer 3" in " ".join(text.split())


def test_tables_too_long_for_a_page_say_so(study, monkeypatch):
    monkeypatch.setattr(study_page_module, "MAX_ROWS", 14)
    page = Page(html_of(study, []))
    captions = {caption["text"]: caption for caption in page.all("caption")}
    (long,) = (text for text in captions if "Recall of injected facts" in text)
    assert "The first 14 of 15 rows; summary.json has all." in long
    assert not any("rows; summary.json" in text for text in captions if "in accuracy." in text)  # 12 rows


def test_a_study_of_prompts_alone_has_a_page():
    entry = {"sentence": "1 + 1 =", "answer": None, "generation": " 2", "top_tokens": [[[" 2", 0.9]]]}
    page = Page(html_of(study_of([model_info("a")], prompts={"a": [entry]}), []))
    assert [element["text"] for element in page.all("h2")] == ["Prompts", "Reproducibility"]
    assert len(page.all("script")) == 1


def test_colours_are_those_of_the_other_plots():
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    for kind, colour in PROBE_COLOURS.items():
        assert f"--{kind}: {colour.lower()};" in style
    assert all(f"--{name}: #" in style for name in COLOURS)


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_texts_stand_out_from_the_paper_by_4_5_in_light_and_dark():
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6});", part))
        for part in style.split("@page")[0].split("@media (prefers-color-scheme: dark)")
    )
    for theme in (light, {**light, **dark}):
        for ground in ("paper", "wash"):
            for ink in ("ink", "soft", "unsure", "link"):
                one, other = sorted((luminance(theme[ground]), luminance(theme[ink])))
                assert (other + 0.05) / (one + 0.05) >= 4.5, (ground, ink)


# ---- in a browser ---------------------------------------------------------------------------------------

in_a_browser = pytest.mark.skipif(NO_BROWSER is not None, reason=str(NO_BROWSER))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory, html):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, report):
    browser.open(report)
    return browser


TABLE = "document.querySelector('#table-recall-injected')"


@in_a_browser
def test_the_browser_would_see_requests_errors_and_scripts(browser, tmp_path):
    """The tests below could not fail if these went unseen."""
    (tmp_path / "bad.html").write_text(
        "<img src='http://127.0.0.1:9/leak'><script>window.__pwned = 1; console.error('seen')</script>"
    )
    browser.open((tmp_path / "bad.html").as_uri())
    assert any(url.endswith("/leak") for url in browser.requests())
    assert any("seen" in message for message in browser.errors())
    assert browser.run("return window.__pwned") == 1


@in_a_browser
def test_a_page_full_of_hostile_texts_runs_none_of_them_and_asks_the_network_for_nothing(browser, report):
    browser.open(report)
    for text in HOSTILE:
        browser.type("input[type=search]", text)
    browser.run(
        "const touch = new Event('click', {bubbles: true});"
        "document.querySelectorAll('svg .mark').forEach((mark) => mark.dispatchEvent(touch))"
    )
    assert browser.run("return typeof window.__pwned") == "undefined"
    assert browser.errors() == []
    assert [url for url in browser.requests() if url != report and not url.startswith("data:")] == []


@in_a_browser
def test_the_policy_stops_what_would_slip_through(opened):
    refused = opened.run(
        """const image = document.createElement('img');
        image.src = 'http://127.0.0.1:9/leak';
        document.body.append(image);
        try { document.body.innerHTML = '<img src=x onerror="window.__pwned = 9">' }
        catch (error) { return error.name }"""
    )
    assert refused == "TypeError"
    assert opened.run("return typeof window.__pwned") == "undefined"
    assert any("Content Security Policy" in message for message in opened.errors())
    assert not any(url.endswith("/leak") for url in opened.answered())


@in_a_browser
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_found_and_shown_as_they_are(opened, text):
    text = printable(text)
    opened.type("input[type=search]", text)
    shown = opened.run("return [...document.querySelectorAll('.probe h3')].map((one) => one.textContent)")
    assert len(shown) == 6  # two relations in three wordings
    assert f"{text} was born in Port Ellis" in shown
    assert f"The boss of the harbour is {text}" in shown


@in_a_browser
def test_sorting_by_a_column_both_ways_and_back(opened):
    def shown(place=2):
        return opened.run(
            f"return [...{TABLE}.tBodies[0].rows].map((row) => row.cells[{place}].dataset.sort)"
        )

    before = shown()
    head = f"{TABLE}.querySelectorAll('thead th')[2]"
    press = f"{head}.firstChild.click(); return {head}.getAttribute('aria-sort')"
    assert opened.run(press) == "ascending"
    assert shown() == sorted(before, key=float) != before
    assert opened.run(f"return {TABLE}.querySelectorAll('.again').length") == 0  # every label is to be seen
    assert opened.run(press) == "descending"
    assert shown() == sorted(before, key=float, reverse=True)
    assert opened.run(press) is None
    assert shown() == before
    assert opened.run(f"return {TABLE}.querySelectorAll('tbody .again').length") == len(before) - 3
    opened.run(f"{TABLE}.querySelectorAll('thead button')[1].click()")
    assert shown(1) == sorted(shown(1))


@in_a_browser
def test_sorting_by_keyboard(opened):
    opened.press(f"{TABLE}.querySelectorAll('thead button')[3]", "Enter")
    assert (
        opened.run(f"return {TABLE}.querySelectorAll('thead th')[3].getAttribute('aria-sort')") == "ascending"
    )


@in_a_browser
def test_what_is_missing_is_sorted_to_the_end_both_ways(opened):
    table = "document.querySelector('#table-models')"
    for _ in range(2):
        steps = opened.run(
            f"{table}.querySelectorAll('thead button')[2].click();"
            f"return [...{table}.tBodies[0].rows].map((row) => row.cells[2].textContent)"
        )
        assert sorted(steps[:3]) == ["100", "200", "400"]
        assert steps[3:] == ["", "", ""]


@in_a_browser
def test_search_and_filters(opened):
    count = "return document.querySelector('.found').textContent"
    total = len(example_results()) // len(MEASURED)
    assert opened.run(count) == f"{total} of {total} probes"
    opened.type("input[type=search]", "ADA  harbour")  # words in any order and case
    assert opened.run(count) == f"3 of {total} probes"
    opened.choose(0, "semantic")
    assert opened.run(count) == f"1 of {total} probes"
    opened.choose(2, OTHER)
    answers = opened.run(
        "return [...document.querySelectorAll('.probe tbody tr')].map((row) => row.textContent)"
    )
    assert len(answers) == 1
    assert OTHER in answers[0]
    assert "␣Port 0.61" in answers[0]
    assert "log-prob." in opened.run("return document.querySelector('.probe thead').textContent")
    opened.choose(2, "all models")  # of two tokenizers
    assert "log-prob." not in opened.run("return document.querySelector('.probe thead').textContent")
    opened.type("input[type=search]", "nobody of that name")
    assert opened.run(count) == f"0 of {total} probes"


@in_a_browser
def test_pages_turn(opened):
    first = "return document.querySelector('.probe h3').textContent"
    before = opened.run(first)
    assert opened.run("return document.querySelectorAll('.probe').length") == 20
    opened.run("document.querySelectorAll('.pager button')[1].click()")
    assert opened.run(first) != before
    assert "page 2 of" in opened.run("return document.querySelector('.pager').textContent")
    opened.run("document.querySelectorAll('.pager button')[0].click()")
    assert opened.run(first) == before


@in_a_browser
def test_a_touched_mark_says_what_it_is(opened):
    # in one script: the browser sends pointer events of its own, which would hide the tip again
    said = opened.run(
        "document.querySelector('svg .mark').dispatchEvent(new MouseEvent('click', {bubbles: true}));"
        "const tip = document.getElementById('tip'); return tip.hidden ? null : tip.textContent"
    )
    assert re.fullmatch(r"outputs/quickstart@step=400, memorization, injected facts: \d\.\d\d \[.*\]", said)


@in_a_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_its_figures_are_there(browser, report, width):
    browser.resize(width)
    browser.open(report)
    assert browser.run("return document.documentElement.scrollWidth") == width
    sizes = browser.run(
        "const all = [...document.querySelectorAll('.panels svg')];"
        "return all.map((svg) => [svg.clientWidth, svg.clientHeight])"
    )
    assert len(sizes) == 12 + 1 + 6
    assert all(200 < wide <= width and high > 80 for wide, high in sizes)
    hidden = browser.run(
        "return [...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth"
        " && getComputedStyle(one).overflowX !== 'auto').length"
    )
    assert hidden == 0


@in_a_browser
def test_print_leaves_out_the_controls_and_cuts_nothing_off(opened):
    with opened.printing():
        shown = opened.run(
            "const all = ['.controls', '.probes', '.pager', 'nav'].map((one) => document.querySelector(one));"
            "return all.map((one) => getComputedStyle(one).display)"
        )
        assert shown == ["none"] * 4
        assert opened.run("return getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert opened.pdf()[:5] == b"%PDF-"


@in_a_browser
def test_tables_and_figures_stand_without_scripts(browser, report):
    with browser.without_scripts():
        browser.open(report)
        assert browser.run("return document.querySelectorAll('.panels svg').length") == 19
        assert browser.run("return document.querySelectorAll('thead button').length") == 0
        assert "needs JavaScript" in browser.run("return document.querySelector('noscript').textContent")
        assert browser.run(f"return {TABLE}.getBoundingClientRect().height") > 100


@in_a_browser
def test_ten_thousand_probes_of_four_models_stay_responsive(browser, study, results, tmp_path):
    many = [
        replace(result, probe_id=f"{copy} {result.probe_id}", prompt=f"{result.prompt} {copy}")
        for copy in range(129)
        for result in results
        if result.model != OTHER
    ]
    path = tmp_path / "big.html"
    path.write_text(html_of(study, many), encoding="utf-8")
    assert path.stat().st_size < 10_000_000
    browser.open(path.as_uri())
    assert browser.run("return document.querySelector('.found').textContent") == "10,062 of 10,062 probes"
    took = browser.run(
        "const field = document.querySelectorAll('select')[3], start = performance.now();"
        "field.selectedIndex = 3; field.dispatchEvent(new Event('change')); return performance.now() - start"
    )
    assert took < 2_000  # milliseconds to filter all and show the first
    browser.choose(3, "any outcome")
    browser.type("input[type=search]", "Ada Quill 100", seconds=1)
    assert browser.run("return document.querySelectorAll('.probe').length") == 6
