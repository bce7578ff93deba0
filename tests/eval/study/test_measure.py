"""One model measured: what is kept is not measured again, and what fails does not take the rest along."""

import dataclasses
import shutil

import msgspec
import pytest
from msgspec.structs import replace

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.models.prefix import record_prefix
from tidy_stlms.eval.recall import harness
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.recall.results import DocumentScore
from tidy_stlms.eval.study import lazy_model, measure
from tidy_stlms.eval.study.benchmarks import Score
from tidy_stlms.eval.study.cache import Part, append_part, missing, read_parts
from tidy_stlms.eval.study.measure import measure_model
from tidy_stlms.eval.study.prompts import Prompt
from tidy_stlms.eval.study.request import StudyRequest
from tidy_stlms.eval.study.study import build_study

TEXTS = ["Ada Lopez was born in Paris.", "By day Bo Chen is a baker!", "Rome"]
PROMPTS = [Prompt(f"{person} was born in", "Oslo") for person in tiny.PEOPLE[:3]]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    tiny.llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bank():
    whole = tiny.bank()
    return replace(whole, probes=whole.probes[:20])


@pytest.fixture
def asked(bank, tmp_path):
    return StudyRequest(bank=bank, generate=False, device="cpu", dtype="float32", cache=tmp_path / "cache")


@pytest.fixture
def scored(monkeypatch):
    """The ids of all probes that are scored from now on, in small parts; `scored.loads` counts models."""

    class Scored(list):
        loads = 0
        stop_after = None

    ids = Scored()
    load = lazy_model.load_model

    def counting(model, tokenizer, bank, **kwargs):
        if ids.stop_after is not None and len(ids) >= ids.stop_after:
            raise KeyboardInterrupt
        ids.extend(probe.id for probe in bank.probes)
        return evaluate_recall(model, tokenizer, bank, **kwargs)

    def loading(*args, **kwargs):
        ids.loads += 1
        return load(*args, **kwargs)

    monkeypatch.setattr(harness, "evaluate_recall", counting)
    monkeypatch.setattr(lazy_model, "load_model", loading)
    monkeypatch.setattr(measure, "PROBES_PER_PART", (5, 5))
    return ids


def named(folder):
    return ModelName("model", str(folder))


def test_the_rows_are_those_of_the_harness(folder, tokenizer, bank, asked):
    expected = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank, top_k=measure.TOP_K)
    measured = measure_model(named(folder), dataclasses.replace(asked, generate=True))
    assert measured.results == expected
    assert not measured.failed
    info = measured.info
    assert (info.model, info.path, info.error) == ("model", str(folder), None)
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert info.parameters == tiny.llama(len(tokenizer)).num_parameters()
    assert info.probes_per_second == pytest.approx(len(bank.probes) / info.seconds)


def test_nothing_is_measured_twice(folder, asked, scored, bank):
    asked = dataclasses.replace(asked, documents=TEXTS, prompts=PROMPTS)
    told = []
    first = measure_model(named(folder), asked, on_described=lambda info, loaded: told.append(loaded))
    assert len(scored) == len(bank.probes)
    again = measure_model(named(folder), asked, on_described=lambda info, loaded: told.append(loaded))
    assert (len(scored), scored.loads) == (len(bank.probes), 1)
    assert told == [True, False]
    assert (again.results, again.documents, again.prompts) == (first.results, first.documents, first.prompts)
    assert again.info == first.info
    assert len(first.documents) == len(TEXTS)
    assert [row.sentence for row in first.prompts] == [prompt.sentence for prompt in PROMPTS]


def test_the_cache_separates_styles(folder, asked):
    asked = dataclasses.replace(asked, documents=[" ".join(TEXTS * 20)], prefix="bos")
    first = measure_model(named(folder), asked)
    other = dataclasses.replace(asked, style="bear", heldout_style="rolling")
    again = measure_model(named(folder), other)
    assert {result.style for result in first.results} == {"suite"}
    assert {result.style for result in again.results} == {"bear"}
    assert first.documents != again.documents
    assert build_study([again], other).heldout["model"].style == "rolling"
    # a prefix that contradicts the style is no reason to leave out the other sections
    wrong = measure_model(named(folder), dataclasses.replace(other, prefix="eos"))
    assert "--style bear" in wrong.errors["recall"]
    assert wrong.documents


@pytest.mark.parametrize("kept", ["", "[]", '{"parameters": "many"}', "[" * 3000])
def test_a_damaged_description_is_made_anew(folder, asked, scored, kept):
    first = measure_model(named(folder), asked).info
    [file] = asked.cache.rglob("model.json")
    file.write_text(kept)
    again = measure_model(named(folder), asked)
    assert (again.info.error, again.info.parameters) == (None, first.parameters)


def test_what_was_cut_off_goes_on_where_it_stopped(folder, asked, scored, bank):
    scored.stop_after = 10
    with pytest.raises(KeyboardInterrupt):
        measure_model(named(folder), asked)
    done = list(scored)
    assert len(done) == 10
    scored.stop_after = None
    measured = measure_model(named(folder), asked)
    assert scored == [probe.id for probe in bank.probes]  # each once
    assert [row.probe_id for row in measured.results] == [probe.id for probe in bank.probes]


def test_a_part_that_is_torn_or_lost_is_measured_again(folder, asked, scored, bank):
    first = measure_model(named(folder), asked)
    [kept] = asked.cache.rglob("*.jsonl")
    nothing, one, torn, _lost, last = kept.read_bytes().split(b"\n")
    kept.write_bytes(b"\n".join([nothing, one, torn[:-10], last]))
    scored.clear()
    assert measure_model(named(folder), asked).results == first.results
    assert scored == [probe.id for probe in bank.probes[5:15]]
    # what is kept after a torn last line can be read again
    kept.write_bytes(kept.read_bytes()[:-10])
    scored.clear()
    for _ in range(2):
        assert measure_model(named(folder), asked).results == first.results
    assert scored == [probe.id for probe in bank.probes[10:15]]


@pytest.mark.parametrize(
    "change", ["dtype", "generate", "prefix", "answers", "flags", "order", "weights", "scorer"]
)
def test_whatever_changes_numbers_is_measured_anew(folder, asked, scored, tmp_path, monkeypatch, change):
    monkeypatch.setattr(measure, "PROBES_PER_PART", (32, 32))
    copy = shutil.copytree(folder, tmp_path / "copy")
    measure_model(named(copy), asked)
    probes = asked.bank.probes
    if change == "dtype":
        asked = dataclasses.replace(asked, dtype="bfloat16")
    elif change == "generate":
        asked = dataclasses.replace(asked, generate=True)
    elif change == "prefix":
        asked = dataclasses.replace(asked, prefix="none")
    elif change == "weights":
        tiny.llama(400, attention_bias=True).save_pretrained(copy)
    elif change == "scorer":
        monkeypatch.setattr(lazy_model, "SCORER_VERSION", "0")
    else:
        first = {
            "answers": replace(probes[0], answers=("Bern",)),
            "flags": replace(probes[0], flags=("case_differs",)),
            "order": probes[-1],
        }[change]
        rest = probes[1:-1] if change == "order" else probes[1:]
        last = probes[:1] if change == "order" else []
        asked = dataclasses.replace(asked, bank=replace(asked.bank, probes=[first, *rest, *last]))
    scored.clear()
    measured = measure_model(named(copy), asked)
    assert len(scored) == len(probes)
    assert [row.probe_id for row in measured.results] == [probe.id for probe in asked.bank.probes]


def test_how_a_model_was_asked_is_recorded(folder, tokenizer, asked, tmp_path, caplog):
    asked = dataclasses.replace(asked, prompts=PROMPTS)
    measured = measure_model(named(folder), asked)
    info = measured.info
    assert (info.prefix, info.prefix_as_trained, info.attention) == ("bos", None, "sdpa")
    assert max(msgspec.to_builtins(info.self_check).values()) < 1e-5
    assert {row.prefix for row in (*measured.results, *measured.prompts)} == {"bos"}
    model = tiny.llama(len(tokenizer))
    record_prefix(model)
    model.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    for prefix, name, as_trained in (
        (None, "eos", True),
        ("eos", "eos", True),
        ("none", "none", False),
    ):
        for _ in ("measured", "kept"):
            caplog.clear()
            measured = measure_model(named(tmp_path / "run"), dataclasses.replace(asked, prefix=prefix))
            assert (measured.info.prefix, measured.info.prefix_as_trained) == (name, as_trained)
            assert {row.prefix for row in (*measured.results, *measured.prompts)} == {name}
            assert ("is asked with prefix" in caplog.text) is not as_trained


def test_equal_models_share_what_is_kept_and_the_label_is_the_callers(folder, asked, scored, tmp_path):
    measure_model(named(folder), asked)
    copy = shutil.copytree(folder, tmp_path / "copy")
    scored.clear()
    measured = measure_model(ModelName("other", str(copy), step=7), asked)
    assert scored == []
    assert (measured.info.model, measured.info.path, measured.info.step) == ("other", str(copy), 7)


def test_without_a_cache_nothing_is_kept(folder, asked, scored, bank, tmp_path):
    asked = dataclasses.replace(asked, cache=None)
    rows = measure_model(named(folder), asked).results
    assert measure_model(named(folder), asked).results == rows
    assert len(scored) == 2 * len(bank.probes)
    assert not (tmp_path / "cache").exists()


def test_a_model_that_cannot_be_loaded_is_noted(folder, asked, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"torn")
    measured = measure_model(named(broken), dataclasses.replace(asked, documents=TEXTS))
    assert measured.failed
    assert measured.errors.keys() == {"model"}
    assert "cannot be loaded" in measured.info.error
    assert measured.results == measured.documents == []
    with pytest.raises(UserError, match="dtype 'int8'"):  # the user's mistake, not this model's
        measure_model(named(folder), dataclasses.replace(asked, dtype="int8"))


def test_a_section_that_fails_leaves_the_others(folder, asked, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("tidy_stlms.eval.study.heldout.score_documents", fail)
    measured = measure_model(named(folder), dataclasses.replace(asked, documents=TEXTS, prompts=PROMPTS[:1]))
    assert measured.errors == {"heldout": "RuntimeError: two lines"}
    assert measured.failed
    assert measured.info.error is None
    assert measured.results
    assert measured.prompts


def test_benchmarks_run_once_each_and_failures_are_tried_again(folder, asked, monkeypatch):
    ran = []

    def run(model, tokenizer, tasks, *, limit, seed, num_fewshot, data_dir, batch_size, prefix, progress):
        ran.extend(tasks)
        assert (limit, seed, num_fewshot, data_dir, prefix) == (3, 1, 2, None, None)
        return {
            task: {"error": "no network"} if task == "blimp" else {"acc": Score(0.5, None), "n": 3}
            for task in tasks
        }

    def probe(model, tokenizer, tasks, *, limit, seed, data_dir, batch_tokens, prefix, progress):
        ran.extend(tasks)
        return {f"probe:{task}": {"matthews": Score(0.1, 0.1), "n": limit} for task in tasks}

    monkeypatch.setattr("tidy_stlms.eval.study.benchmarks.run_benchmarks", run)
    monkeypatch.setattr("tidy_stlms.eval.study.linear_probes.run_linear_probes", probe)
    options = {"bank": None, "limit": 3, "seed": 1, "num_fewshot": 2, "linear_probes": ("cola",)}
    asked = dataclasses.replace(asked, benchmarks=("blimp", "arc_easy"), **options)
    first = measure_model(named(folder), asked)
    assert ran == ["blimp", "arc_easy", "cola"]
    assert list(first.benchmarks) == ["blimp", "arc_easy", "probe:cola"]
    assert first.failed
    more = dataclasses.replace(asked, benchmarks=("arc_easy", "blimp", "piqa"))
    again = measure_model(named(folder), more)
    assert ran[3:] == ["blimp", "piqa"]
    assert again.benchmarks["arc_easy"] == first.benchmarks["arc_easy"]


def test_of_several_processes_the_first_alone_writes_and_only_probes_are_shared(folder, asked, monkeypatch):
    told = []

    def from_first(value):
        told.append(len(value))
        return value

    monkeypatch.setattr(lazy_model, "from_first_process", from_first)
    asked = dataclasses.replace(asked, documents=TEXTS, prompts=PROMPTS)
    with monkeypatch.context() as second:
        second.setattr(lazy_model, "process_rank", lambda: 1)
        measured = measure_model(named(folder), asked)
        assert len(measured.results) == len(asked.bank.probes)
        assert measured.documents == measured.prompts == []
        assert list(asked.cache.rglob("*")) == []
    measured = measure_model(named(folder), asked)
    assert measured.documents
    assert measured.prompts
    assert told == [0, 0]  # once a process: what one says, all must hear


def test_a_full_disk_costs_nothing_that_was_measured(folder, asked, bank, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lazy_model, "append_part", full)
    monkeypatch.setattr(lazy_model, "write_json", full)
    assert len(measure_model(named(folder), asked).results) == len(bank.probes)
    assert "No space left on device; going on without keeping what is measured" in caplog.text
    assert caplog.text.count("without keeping") == 2  # the model's description, and once for all parts


def test_parts_that_overlap_or_do_not_fit_are_left_out(tmp_path):
    def part(start, stop):
        scores = [DocumentScore(nats=float(n), n_bytes=2, n_tokens=1) for n in range(start, stop)]
        return Part(start, 1.0, tuple(scores))

    path = tmp_path / "folder" / "parts.jsonl"
    for each in (part(6, 8), part(0, 4), part(3, 6), part(8, 12), part(8, 8)):
        append_part(path, each)
    with path.open("ab") as file:
        file.write(
            b'\n{"start": 8, "seconds": 1, "rows": [{"nats": 1}]}\nnone of ours\n\xff\n{"start": 9, "sec'
        )
    kept = read_parts(path, DocumentScore, 10)
    assert kept == [part(0, 4), part(6, 8)]
    assert list(missing(kept, 10, 1)) == [(4, 5), (5, 6), (8, 9), (9, 10)]
    assert list(missing([], 5, 3)) == [(0, 3), (3, 5)]
    assert list(missing([part(0, 5)], 5, 3)) == []
    assert read_parts(tmp_path / "none", DocumentScore, 10) == read_parts(None, DocumentScore, 10) == []
    # a part that follows a torn one
    append_part(path, part(8, 10))
    assert read_parts(path, DocumentScore, 10)[-1] == part(8, 10)
