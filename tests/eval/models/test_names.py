"""Names of models: checkpoints of runs, revisions of the Hub, and what makes two models the same."""

import json
import shutil

import pytest
import torch

from tests.eval import tiny
from tests.hub import test_hub as running_hub
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import write_json
from tidy_stlms.eval.models.identity import model_identity
from tidy_stlms.eval.models.load import free_memory, load_model
from tidy_stlms.eval.models.lookup import resolve_commit
from tidy_stlms.eval.models.names import ModelName, expand_names
from tidy_stlms.eval.tokens import tokenizer_hash


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory, tokenizer):
    """A finished run of 400 steps: checkpoints of 100, 200 and 300, tokenizer in the run's folder alone."""
    run = tmp_path_factory.mktemp("runs") / "run"
    for step in (100, 200, 300):
        model = tiny.llama(len(tokenizer))
        torch.nn.init.constant_(model.model.norm.weight, step)
        model.save_pretrained(run / f"checkpoint-{step}")
    tiny.llama(len(tokenizer)).save_pretrained(run)
    tokenizer.save_pretrained(run)
    write_json(run / "summary.json", {"steps": 400})
    write_json(run / "environment.json", {})
    (run / "config.yaml").write_text("model: {}\n")
    return run


@pytest.fixture
def run(saved_run, tmp_path):
    """One that a test may change."""
    return shutil.copytree(saved_run, tmp_path / "run")


def expand(*names, cache="unused", **kwargs):
    return expand_names([str(name) for name in names], cache=cache, **kwargs)


def labels(*names):
    return [model.label for model in expand(*names)]


def test_a_runs_checkpoints(saved_run):
    run = str(saved_run)
    everything = expand(f"{run}@all")
    assert [model.label for model in everything] == [f"{run}@step={n}" for n in (100, 200, 300, 400)]
    assert everything[0] == ModelName(f"{run}@step=100", f"{run}/checkpoint-100", step=100, run=run)
    assert everything[-1] == ModelName(f"{run}@step=400", run, step=400, run=run)
    assert expand(f"{run}@step=200") == everything[1:2]
    assert expand(f"{run}/@last") == expand(f"{run}@step=400") == everything[-1:]
    assert expand(run) == [ModelName(run, run, step=400, run=run)]
    assert expand(f"{run}/checkpoint-100/") == [
        ModelName(f"{run}/checkpoint-100", f"{run}/checkpoint-100/", step=100, run=run)
    ]


def test_each_model_once_in_the_order_given(saved_run):
    run = str(saved_run)
    assert labels(f"{run}@step=300", f"{run}@all", run, f"{run}/") == [
        *(f"{run}@step={n}" for n in (300, 100, 200, 400)),
        run,
    ]


def test_a_final_model_that_was_saved_as_a_checkpoint_too_counts_once(run):
    shutil.copytree(run / "checkpoint-300", run / "checkpoint-400")
    assert expand(f"{run}@last")[0].path == f"{run}/checkpoint-400"
    assert len(labels(f"{run}@all")) == 4


def test_a_run_that_was_cut_off(run, caplog):
    (run / "model.safetensors").unlink()
    (run / "summary.json").unlink()
    (run / "checkpoint-300" / "model.safetensors").unlink()  # in the middle of its last save
    assert labels(f"{run}@all") == [f"{run}@step=100", f"{run}@step=200"]
    assert "checkpoint-300: holds no weights" in caplog.text
    assert labels(f"{run}@last") == [f"{run}@step=200"]
    with pytest.raises(
        UserError, match=r"run@step=300: no such checkpoint; the steps that were saved: 100, 200"
    ):
        expand(f"{run}@step=300")
    with pytest.raises(UserError, match="run: not a model"):
        expand(run)


def test_a_name_that_stands_for_nothing_is_refused_at_once(run, tmp_path):
    for name, message in (
        (f"{run}@step=250", r"no such checkpoint; the steps that were saved: 100, 200, 300, 400$"),
        (f"{run}@main", r"a run takes @step=N, @all or @last"),
        (f"{tmp_path}@all", r"holds no checkpoint-N and no model"),
        (f"{tmp_path}/gone@all", r"gone: not a model \(no such folder\)"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            expand(run, name)
        assert "\n" not in str(caught.value)


def test_a_folder_with_an_at_in_its_name_is_that_folder(run):
    odd = run.rename(run.parent / "run@step=7")
    assert labels(odd) == [str(odd)]
    assert labels(f"{odd}@step=100") == [f"{odd}@step=100"]


def test_a_checkpoint_without_tokenizer_takes_the_runs(saved_run, tokenizer):
    [name] = expand(f"{saved_run}@step=100")
    model, loaded = load_model(name.path, device="cpu")
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
    assert model.num_parameters() > 0
    free_memory()


def test_equal_models_have_equal_identities(saved_run, run):
    first, second = model_identity(expand(saved_run)[0]), model_identity(expand(run)[0])
    assert first == second
    assert json.loads(json.dumps(first)) == first
    # what a report or a later checkpoint writes beside the model changes nothing
    (run / "report.md").write_text("new")
    write_json(run / "summary.json", {"steps": 500})
    assert model_identity(expand(run)[0]) == first
    checkpoints = [model_identity(model) for model in expand(f"{run}@all")]
    assert len({json.dumps(identity) for identity in checkpoints}) == 4


@pytest.mark.parametrize("large", [False, True])
def test_whatever_figures_follow_from_changes_the_identity(run, monkeypatch, large):
    if large:  # files of which only the ends are read
        monkeypatch.setattr("tidy_stlms.eval.models.identity.READ_WHOLE", 10)
        monkeypatch.setattr("tidy_stlms.eval.models.identity.ENDS", 8)
    found = [model_identity(ModelName("run", str(run)))]
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        content = bytearray((run / file).read_bytes())
        for place in (-5, len(content) // 2):
            content[place] ^= 1
            (run / file).write_bytes(content)
            found.append(model_identity(ModelName("run", str(run))))
    (run / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(run / "checkpoint-100")})
    )
    found.append(model_identity(ModelName("run", str(run))))
    (run / "checkpoint-100" / "generation_config.json").write_text("{}")
    found.append(model_identity(ModelName("run", str(run))))
    assert len({json.dumps(identity) for identity in found}) == 9
    # a checkpoint's own tokenizer is the run's
    before = model_identity(ModelName("c", str(run / "checkpoint-200")))
    (run / "tokenizer.json").write_text("{}")
    assert model_identity(ModelName("c", str(run / "checkpoint-200"))) != before


def test_a_hub_model_is_pinned_to_its_commit(monkeypatch, tmp_path, saved_run):
    files = {path.name: path.read_bytes() for path in saved_run.iterdir() if path.is_file()}
    with running_hub() as hub:
        first = hub.add("lab/model", files)
        hub.use(monkeypatch, tmp_path)
        step_100 = (saved_run / "checkpoint-100" / "model.safetensors").read_bytes()
        second = hub.add("lab/model", {**files, "model.safetensors": step_100})
        [newest] = expand("lab/model")
        assert newest == ModelName("lab/model", "lab/model", revision=second)
        [old] = expand(f"lab/model@{first}")
        assert (old.label, old.revision) == (f"lab/model@{first}", first)
        assert model_identity(newest) != model_identity(old)
        for name, scale in ((old, 1), (newest, 100)):
            model, _ = load_model(name.path, device="cpu", revision=name.revision)
            assert (model.model.norm.weight == scale).all()
        with pytest.raises(UserError, match="has no revision 'v9'"):
            expand("lab/model@v9")
        with pytest.raises(UserError, match="lab/none: not a model"):
            expand("lab/none@main")
    # without the Hub: what was downloaded
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert expand(f"lab/model@{first}")[0].revision == first
    assert resolve_commit("lab/none", None) is None


def test_a_tidy_checkpoint_is_converted_once(tmp_path, monkeypatch):
    import modeling_stlm.tidy.convert as converting
    from tests.modeling_stlm.tidy_reference import TidyModel, tidy_config

    vocabulary = 256 + 2
    config = tidy_config(model__vocab_size=vocabulary)
    reference = TidyModel(config["model"]).eval()
    checkpoint = tmp_path / "wiki.pt"
    torch.save(
        {"model": reference.state_dict(), "optimizer": {}, "config": config, "iteration": 1}, checkpoint
    )
    tokenizer = tmp_path / f"bpe_wiki_{vocabulary}.model"
    tokenizer.write_text("")  # bytes, and no merges
    with pytest.raises(UserError, match="holds no tokenizer; give its own by --tokenizer"):
        expand(checkpoint, cache=tmp_path)

    [name] = expand(checkpoint, cache=tmp_path, tokenizer=str(tokenizer))
    assert name.label == str(checkpoint)
    model, loaded = load_model(name.path, device="cpu")
    ids = loaded("Ada", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids), atol=1e-5, rtol=1e-5)

    monkeypatch.setattr(converting, "convert_checkpoint", None)  # not called again
    assert expand(checkpoint, cache=tmp_path, tokenizer=str(tokenizer)) == [name]
    checkpoint.write_bytes(b"no checkpoint")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"wiki\.pt"):
        expand(checkpoint, cache=tmp_path, tokenizer=str(tokenizer))
