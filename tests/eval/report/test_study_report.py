"""report.md of a study, its figures, and the probes that the page carries."""

import ast
import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from tests.eval.report.study_example import (
    CHECKPOINTS,
    EXPOSURES,
    HOSTILE,
    MEASURED,
    OTHER,
    RUN,
    STEPS,
    TWIN,
    example_results,
    example_study,
    html_of,
    model_info,
    study_of,
)
from tests.test_imports import MODULES, imports_of
from tidy_stlms.configs.printable import printable
from tidy_stlms.configs.records import read_records
from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.draw import draw_figure
from tidy_stlms.eval.report.page_probes import probes_as_json, script_json
from tidy_stlms.eval.report.page_svg import View, panel_svgs
from tidy_stlms.eval.report.palette import COLOURS, MARKERS, PROBE_COLOURS
from tidy_stlms.eval.report.panels import Axis, Bar, BarPanel, Mark, StudyFigure, short_name
from tidy_stlms.eval.report.study_content import content_of, prompts_of
from tidy_stlms.eval.report.study_figures import bar_figures, dose_figures, figures_of, step_figures
from tidy_stlms.eval.report.study_report import study_markdown, write_study_report
from tidy_stlms.eval.study.study import read_study, write_study

ONLY_PROMPTS = study_of(
    [model_info("a")],
    prompts={"a": [{"sentence": "1 *2*", "answer": None, "generation": " 3", "top_tokens": []}]},
)


@pytest.fixture(scope="module")
def results():
    return example_results()


@pytest.fixture(scope="module")
def study():
    return example_study()


def test_the_report_and_every_figure_that_it_names(study, results, tmp_path):
    write_study_report(tmp_path, study, results)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\((figures/[\w-]+\.png)\)", report))
    written = {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()}
    assert named == written == {f"figures/{figure.key}.png" for figure in figures_of(study)}
    assert len(written) == 5
    for name in written:
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for section in (
        "Recall",
        "Differences between models",
        "Against exposures",
        "Prompts",
        "Reproducibility",
    ):
        assert f"\n## {section}\n" in report
    assert study.bank.sha256 in report
    assert "revision 0123456789abcdef" in report
    assert not re.search(r"(?<!\\)<(script|img|b>|i>)", report)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_report_can_be_written_again_from_the_files_of_a_study(study, results, tmp_path):
    def report(folder):
        write_study_report(folder, study, results)

    out, again = tmp_path / "study", tmp_path / "again"
    write_study(out, study, results, report=report)
    write_study_report(again, read_study(out), read_records(out / "results.jsonl", ProbeResult))
    written = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert len(written) > 2
    for path in written:
        assert (again / path).read_bytes() == (out / path).read_bytes()


def test_a_study_of_prompts_alone_has_a_report(tmp_path):
    write_study_report(tmp_path, ONLY_PROMPTS, [])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    report = study_markdown(content_of(ONLY_PROMPTS))
    assert "1 \\*2\\*" in report
    assert "- a:  3" in report
    assert "## Recall" not in report


def test_bars_show_every_model_once_and_of_a_run_its_last_checkpoint(study):
    accuracy, exact = bar_figures(study)
    assert [panel.probe_type for panel in accuracy.panels] == ["memorization", "semantic", "reversal"] * 2
    assert [panel.role for panel in accuracy.panels] == ["injected"] * 3 + ["neighbour"] * 3
    assert (accuracy.chance, exact.chance) == (0.1, None)
    for panel in accuracy.panels:
        assert [bar.model for bar in panel.bars] == [CHECKPOINTS[-1], TWIN, OTHER]
        for bar in panel.bars:
            model, mark, control = bar.model, bar.mark, bar.control
            estimate = study.recall[model][panel.role][panel.probe_type]["accuracy"]
            assert (mark.mean, mark.low, mark.high) == (estimate.mean, estimate.low, estimate.high)
            if panel.role == "injected":
                assert control.mean == study.recall[model]["control"][panel.probe_type]["accuracy"].mean
            else:
                assert control is None


def test_control_facts_without_injected_ones_have_bars_of_their_own(study):
    control = {TWIN: {"control": study.recall[TWIN]["control"]}}
    (figure, _) = bar_figures(replace(study, recall=control))
    assert [panel.role for panel in figure.panels] == ["control"] * 3


def test_steps_follow_the_checkpoints_of_a_run(study):
    (figure,) = step_figures(study)
    (panel,) = figure.panels
    assert panel.title == RUN
    assert {(line.role, line.probe_type) for line in panel.lines} == {
        (role, kind) for role in ("injected", "control") for kind in ("memorization", "semantic", "reversal")
    }
    for line in panel.lines:
        assert [mark.x for mark in line.marks] == list(STEPS)
        means = [study.recall[name][line.role][line.probe_type]["accuracy"].mean for name in CHECKPOINTS]
        assert [mark.mean for mark in line.marks] == means
    assert [tick for tick, _ in figure.x.ticks] == [0, 100, 200, 300, 400]


def test_one_checkpoint_makes_no_curve(study):
    models = tuple(info for info in study.models if info.model not in CHECKPOINTS[:2])
    assert step_figures(replace(study, models=models)) == []


def test_exposures_stand_on_a_logarithmic_axis_with_zero_to_the_left():
    doses = [
        {
            "model": "a",
            "type": "semantic",
            "role": role,
            "exposures": n,
            "metric": "accuracy",
            "mean": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n": 8,
        }
        for n, role in ((16, "often"), (0, "control"), (0, "never"), (4, "few"), (1, "once"))
    ]
    (figure,) = dose_figures(study_of([model_info("a")], dose_response=doses))
    (panel,) = figure.panels
    control, injected = panel.lines
    assert (control.role, control.joined, injected.role, injected.joined) == (
        "control",
        False,
        "injected",
        True,
    )
    zero, one, four, sixteen = (mark.x for mark in injected.marks)
    assert four - one == sixteen - four == 2
    assert zero < one
    # control people are nobody's arm
    (mark,) = control.marks
    assert mark.x < zero
    assert "control facts, semantic, n = 8" in mark.title
    assert [text for _, text in figure.x.ticks] == ["control", "0", "1", "4", "16"]
    assert figure.x.low < mark.x < sixteen < figure.x.high


def test_arms_of_as_many_exposures_are_no_curve(study):
    doses = [
        replace(point, exposures=min(point.exposures, 8), role=f"arm {point.exposures}")
        for point in study.dose_response
        if point.role != "control"
    ]
    figure, _ = dose_figures(replace(study, dose_response=tuple(doses)))
    for line in (line for panel in figure.panels for line in panel.lines):
        assert not line.joined
        assert len(line.marks) == 3


@pytest.fixture(scope="module")
def by_arm():
    return example_study(by_arm=True)


ARMS = ["once (1 exposure)", "few (8 exposures)", "many (64 exposures)"]


def test_every_arm_has_its_bars_beside_those_of_control_facts(by_arm):
    accuracy, _ = bar_figures(by_arm)
    kinds = ["memorization", "semantic", "reversal"]
    assert [(panel.role, panel.probe_type) for panel in accuracy.panels] == [
        (group, kind) for group in (*ARMS, "neighbour") for kind in kinds
    ]
    assert accuracy.panels[0].title == "memorization, once (1 exposure)"
    for panel in accuracy.panels[:-3]:
        assert all(bar.control is not None for bar in panel.bars)


def test_every_arm_of_a_run_has_its_steps(by_arm):
    (figure,) = step_figures(by_arm)
    assert [panel.title for panel in figure.panels] == ARMS
    for panel, arm in zip(figure.panels, ARMS, strict=True):
        assert {line.role for line in panel.lines} == {arm, "control"}
        for line in panel.lines:
            means = [by_arm.recall[name][line.role][line.probe_type]["accuracy"].mean for name in CHECKPOINTS]
            assert [mark.mean for mark in line.marks] == means
    # of several runs their names too
    steps = {TWIN: 100, OTHER: 200}
    models = tuple(
        replace(info, run="outputs/twin", step=steps[info.model]) if info.model in steps else info
        for info in by_arm.models
    )
    (figure,) = step_figures(replace(by_arm, models=models))
    assert [panel.title for panel in figure.panels][2:4] == [
        *("outpu…ckstart: many (64 exposures)", "outputs/twin: once (1 exposure)"),
    ]


def test_the_report_of_arms_is_whole(by_arm, tmp_path):
    write_study_report(tmp_path, by_arm, example_results(by_arm=True))
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for arm in ARMS:
        assert f"Recall of facts of arm {arm}" in report
    assert "Recall of injected facts**" not in report
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[\w-]+", one) for one in ids)


def test_log_probabilities_have_an_axis_around_all_of_them(study):
    _, figure = dose_figures(study)
    marks = [mark for panel in figure.panels for line in panel.lines for mark in line.marks]
    assert figure.y.low <= min(mark.low for mark in marks)
    assert figure.y.high >= max(mark.high for mark in marks)
    assert len(marks) == 3 * 3 * (len(EXPOSURES) + 1)  # and control facts
    assert all(math.isclose(place, float(text.replace("−", "-"))) for place, text in figure.y.ticks)


def drawing_of(svg):
    """Of a panel: texts with their positions, and paths as (fill, stroke, corners)."""
    root = ElementTree.fromstring(svg)
    texts = [(text.text, float(text.get("x")), float(text.get("y"))) for text in root.iter("text")]
    paths = []
    for path in root.iter("path"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d"))]
        moved = [float(number) for number in re.findall(r"-?[\d.]+", path.get("transform", "0 0"))]
        corners = [(x + moved[0], y + moved[1]) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
        paths.append((path.get("fill"), path.get("stroke"), corners))
    return texts, paths


def scale(ticks):
    """From a position in the drawing to a value, by the first and the last tick: (value, position) each."""
    (value, position), *_, (last_value, last_position) = ticks
    return lambda at: value + (at - position) / (last_position - position) * (last_value - value)


def test_bars_are_as_long_as_what_they_mean(study):
    figure = bar_figures(study)[0]
    for panel, svg in zip(figure.panels, draw_figure(figure).panels, strict=True):
        texts, paths = drawing_of(svg)
        value_of = scale(
            [(value, next(x for text, x, _ in texts if text == tick)) for value, tick in figure.x.ticks]
        )
        bars = [c for fill, _, c in paths if fill in (f"var(--{panel.probe_type})", "var(--control)")]
        means = [mark.mean for bar in panel.bars for mark in (bar.mark, bar.control) if mark]
        assert [value_of(min(x for x, _ in bar)) for bar in bars] == pytest.approx([0] * len(means), abs=1e-3)
        assert [value_of(max(x for x, _ in bar)) for bar in bars] == pytest.approx(means, abs=1e-3)
        whiskers = [c for fill, stroke, c in paths if (fill, stroke, len(c)) == ("none", "var(--ink)", 6)]
        assert len(whiskers) == len(means)
        assert {(round(value_of(c[0][0]), 2), round(value_of(c[-1][0]), 2)) for c in whiskers} == {
            (round(mark.low, 2), round(mark.high, 2))
            for bar in panel.bars
            for mark in (bar.mark, bar.control)
            if mark
        }
        # each row says the model and its figure
        shown = [text for text, *_ in texts]
        for bar in panel.bars:
            assert {bar.model, f"{bar.mark.mean:.2f}"} <= set(shown)


def test_points_are_where_what_they_mean_is(study):
    (figure,) = step_figures(study)
    (svg,) = draw_figure(figure).panels
    texts, paths = drawing_of(svg)
    x_of = scale([(value, next(x for text, x, _ in texts if text == tick)) for value, tick in figure.x.ticks])
    lines = [c[0][1] for _, stroke, c in paths if stroke == "var(--rule)"]  # from the lowest tick up
    y_of = scale([(value, y) for (value, _), y in zip(figure.y.ticks, lines, strict=True)])
    for line in figure.panels[0].lines:
        wanted = [(mark.x, mark.mean) for mark in line.marks]
        curves = [
            c for _, stroke, c in paths if stroke == f"var(--{line.probe_type})" and len(c) == len(wanted)
        ]
        drawn = [[(x_of(x), y_of(y)) for x, y in curve] for curve in curves]
        assert any(
            all(point == pytest.approx(mark, abs=0.02) for point, mark in zip(curve, wanted, strict=True))
            for curve in drawn
        )


def test_a_panel_fits_a_page_of_any_theme_and_policy(study, by_arm):
    for figure in (*figures_of(study), *figures_of(by_arm)):
        for svg in draw_figure(figure).panels:
            root = ElementTree.fromstring(svg)
            assert not [
                name for element in root.iter() for name in {"id", "style", "href"} & {*element.keys()}
            ]
            colours = {element.get(name) for element in root.iter() for name in ("fill", "stroke")}
            assert colours <= {None, "none", *(f"var(--{name})" for name in COLOURS)}
            assert "url(" not in svg
            left, top, width, height = map(float, root.get("viewBox").split())
            assert 180 < width < 260
            for text in root.iter("text"):  # of a size that is legible where a panel is as wide as a phone
                assert float(text.get("font-size").removesuffix("px")) / width >= 10 / 360
                assert left <= float(text.get("x")) <= left + width
                assert top < float(text.get("y")) < top + height


def test_a_figure_is_drawn_alike_each_time_whatever_style_someone_has_set(study):
    for figure in (bar_figures(study)[0], step_figures(study)[0]):
        drawing = draw_figure(figure)
        with matplotlib.rc_context({"text.color": "red", "axes.facecolor": "pink", "font.size": 20}):
            assert draw_figure(figure) == drawing


def test_drawing_leaves_the_backend_as_it_is():
    """Someone's notebook may import the report, and go on showing figures of its own."""
    script = (
        "import matplotlib; matplotlib.use('svg')\n"
        "from tidy_stlms.eval.report import draw, run_figures\n"
        "draw.legend_svg('semantic')\n"
        "assert matplotlib.get_backend() == 'svg'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_colour_that_is_not_of_the_palette_is_refused():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg"><g id="panel-0"><path d="M 0 0" style="fill: {}"/></g></svg>'
    )
    (panel,) = panel_svgs(svg.format("#0072b2"), [View(0, 0, 1, 1)], ["name"])
    assert 'fill="var(--memorization)"' in panel
    with pytest.raises(KeyError, match="#123456"):
        panel_svgs(svg.format("#123456"), [View(0, 0, 1, 1)], ["name"])


@pytest.mark.parametrize(
    "name", [*HOSTILE, "$x^2$ \\frac", "bell \x07 surrogate \ud800 end", "a\n b", "no \uffff"]
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_name_is_drawn_as_it_is(name):
    mark = Mark(0.5, 0.4, 0.6, f"{name}: 0.50")
    axis = Axis("Accuracy", 0, 1, ((0, "0"), (1, "1")))
    panel = BarPanel("semantic", f"arm {name}", [Bar(name, mark, None)])
    (svg,) = draw_figure(StudyFigure("bars", "recall", "", axis, None, [panel], None)).panels
    root = ElementTree.fromstring(svg)
    legible = printable(" ".join(name.split())).replace("\uffff", "�")
    assert short_name(legible, 44) in [text.text for text in root.iter("text")]
    (title,) = root.iter("title")
    assert " ".join(title.text.split()) == " ".join(printable(f"{name}: 0.50").split()).replace("\uffff", "�")
    assert {element.tag for element in root.iter()} == {"svg", "g", "path", "text", "title"}


def test_matplotlib_is_imported_for_drawing_only():
    """It takes half a second, which neither `stlm --help` nor the start of a run has to wait for."""
    drawing = {"tidy_stlms.eval.report.draw", "tidy_stlms.eval.report.run_figures"}
    for module, file in MODULES.items():
        if module not in drawing:
            names = imports_of(file, module)
            assert not any(name.partition(".")[0] == "matplotlib" for name in names), file
            body = ast.parse(file.read_text(encoding="utf-8")).body
            at_once = {node.module for node in body if isinstance(node, ast.ImportFrom)}
            assert not at_once & drawing, f"{file}: imports matplotlib when it is imported"


def test_every_probe_type_has_its_colour_and_sign():
    assert set(PROBE_COLOURS) == set(MARKERS) == set(PROBE_TYPES)
    assert len({colour.lower() for colour in COLOURS.values()}) == len(COLOURS)  # none for two meanings


def test_names_are_shortened_in_their_middle():
    assert short_name("outputs/run@step=400", 20) == "outputs/run@step=400"
    assert short_name("outputs/quickstart@step=400", 20) == "outputs/…rt@step=400"
    assert len(short_name("x" * 99, 20)) == 20


def test_the_page_carries_every_result(study, results):
    data = json.loads(probes_as_json(study, results))
    texts, probes = data["texts"], data["probes"]
    assert data["models"] == MEASURED
    assert data["tokenizers"] == [0, 0, 0, 0, 1]
    assert data["total"] == len(probes["probe_id"]) == study.bank.n_probes
    assert len(texts) == len(set(texts))
    by_key = {(result.model, printable(result.probe_id)): result for result in results}
    for model, columns in zip(data["models"], data["results"], strict=True):
        for row, probe in enumerate(probes["probe_id"]):
            result = by_key[model, texts[probe]]
            assert texts[probes["prompt"][row]] == printable(result.prompt)
            assert texts[probes["answer"][row]] == printable(result.answer)
            assert texts[columns["generation"][row]] == printable(result.generation)
            assert columns["candidate_rank"][row] == result.candidate_rank
            assert columns["exact_match"][row] == result.exact_match
            assert abs(columns["logprob"][row] - result.logprob) <= 0.005
            flat = columns["top_tokens"][row]
            assert [texts[text] for text in flat[::2]] == [text for text, _ in result.top_tokens]
            assert all(abs(p - q) <= 5e-4 for p, (_, q) in zip(flat[1::2], result.top_tokens, strict=True))


def test_prompt_and_answer_are_shown_as_they_are_joined(study, results):
    """Results of before have no joints, as those of the example: a space was everywhere."""
    joined = [replace(result, joint="" if row % 2 else " ") for row, result in enumerate(results)]
    data = json.loads(probes_as_json(study, joined))
    by_id = {printable(result.probe_id): result.joint for result in joined}
    ids = [data["texts"][text] for text in data["probes"]["probe_id"]]
    assert [data["texts"][text] for text in data["probes"]["joint"]] == [by_id[probe_id] for probe_id in ids]
    data = json.loads(probes_as_json(study, results))
    assert {data["texts"][text] for text in data["probes"]["joint"]} == {" "}

    said = {"answer": "eau", "generation": "x", "top_tokens": []}
    prompts = [{**said, "sentence": "de l'", "joint": ""}, {**said, "sentence": "du"}]
    page = study_of([model_info("a")], prompts={"a": prompts})
    assert [(prompt.sentence, prompt.joint, len(prompt.results)) for prompt in prompts_of(page)] == [
        ("de l'", "", 1),
        ("du", " ", 1),
    ]
    html = html_of(page, [])
    assert 'de l&#39;</bdi><bdi class="answer">eau</bdi>' in html
    assert 'du</bdi> <bdi class="answer">eau</bdi>' in html


def test_too_many_probes_are_thinned_evenly_and_counted(study, results):
    whole = len(probes_as_json(study, results).encode())
    page = probes_as_json(study, results, max_bytes=whole // 3)
    assert len(page.encode()) <= whole // 3
    data = json.loads(page)
    ids = list(dict.fromkeys(printable(result.probe_id) for result in results))
    kept = [data["texts"][place] for place in data["probes"]["probe_id"]]
    every = ids.index(kept[1])
    assert every in (3, 4)
    assert kept == ids[::every]
    assert data["total"] == len(ids)


def test_what_a_model_lacks_is_null(study, results):
    few = [
        replace(result, top_tokens=UNSET)
        for result in results
        if result.model == TWIN or (result.model == OTHER and result.type == "semantic")
    ]
    data = json.loads(probes_as_json(study, few))
    assert data["models"] == [TWIN, OTHER]
    kinds = [data["texts"][place] for place in data["probes"]["type"]]
    there = [value is not None for value in data["results"][1]["logprob"]]
    assert there == [kind == "semantic" for kind in kinds]
    assert all("top_tokens" not in result for result in data["results"])


@pytest.mark.parametrize("text", HOSTILE)
def test_script_json_is_json_that_cannot_end_its_element(text):
    encoded = script_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded) == {text: [text]}


def test_script_json_holds_null_where_there_is_no_number():
    assert script_json([float("nan"), float("-inf"), 1.5]) == "[null,null,1.5]"
