"""Damage to the checkpoints and logs of a run: found, named, and passed over if others are whole."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

from tests.trainers.test_exactness import Killed, assert_bit_equal, logs, weights
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, write_json
from tidy_stlms.eval.checkpoint_mark import MARK, read_mark, sizes_and_hashes, write_mark
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.eval.report.push import push_model
from tidy_stlms.eval.run_folder import checkpoints_of
from tidy_stlms.trainers.checkpoints import (
    check_checkpoint,
    checkpoint_to_resume,
    mark_whole,
    remove_old_checkpoints,
)
from tidy_stlms.trainers.resume import check_logs, load_stream_state, prepare_resume, read_run_id
from tidy_stlms.trainers.stream import Geometry

SHORT = ("training.max_steps=8", "injection.exposures=2", "training.eval_steps=4")
RESUME = "training.resume_from_checkpoint=true"


@pytest.fixture
def finished(run_tiny):
    return run_tiny("run", *SHORT)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def garble(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def from_step_4(path):
    shutil.copy(path.parent.with_name("checkpoint-4") / path.name, path)


def with_unknown_key(path):
    write_json(path, {**read_json(path), "colour": "blue"})


def without_a_key(path):
    write_json(path, {key: value for key, value in read_json(path).items() if key != "processes"})


FILES = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "config.json",
    "tokenizer.json",
    MARK,
)
DAMAGE = [(change, file) for change in (cut, garble, empty, remove) for file in FILES]
DAMAGE += [(from_step_4, file) for file in FILES if file not in ("config.json", "tokenizer.json")]
DAMAGE += [(with_unknown_key, "trainer_state.json"), (with_unknown_key, MARK), (without_a_key, MARK)]


def test_every_kind_of_damage_is_found_and_named(finished, caplog):
    """And the checkpoint before is taken, until that is damaged too."""
    identity = read_run_id(finished)
    last = finished / "checkpoint-8"
    kept = finished.parent / "kept"
    shutil.copytree(finished, kept)
    assert checkpoint_to_resume(finished, identity) == last
    for change, file in DAMAGE:
        change(last / file)
        with pytest.raises(UserError, match=rf"checkpoint-8/{file}: "):
            check_checkpoint(last, identity)
        caplog.clear()
        assert checkpoint_to_resume(finished, identity) == finished / "checkpoint-4"
        assert f"checkpoint-8/{file}: " in caplog.text
        assert "it is passed over" in caplog.text
        shutil.copy(kept / "checkpoint-8" / file, last / file)
        check_checkpoint(last, identity)
    for checkpoint in ("checkpoint-8", "checkpoint-4"):
        garble(finished / checkpoint / "optimizer.pt")
    with pytest.raises(
        UserError,
        match=r"optimizer.pt: is damaged.*checkpoint-4/optimizer.pt: is damaged.*no checkpoint is whole",
    ):
        checkpoint_to_resume(finished, identity)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run_tiny, finished, caplog):
    before, lines = weights(finished), logs(finished)
    garble(finished / "checkpoint-8/model.safetensors")
    run_tiny("run", *SHORT, RESUME)
    assert "checkpoint-8/model.safetensors: is damaged" in caplog.text
    assert f"going on from {finished / 'checkpoint-4'} (step 4 of 8)" in caplog.text
    assert_bit_equal(weights(finished), before)
    assert logs(finished) == lines
    assert checkpoint_to_resume(finished, read_run_id(finished)) == finished / "checkpoint-8"


def test_where_every_checkpoint_is_damaged_nothing_is_touched(run_tiny, finished):
    for checkpoint in ("checkpoint-4", "checkpoint-8"):
        empty(finished / checkpoint / "rng_state.pth")
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"rng_state.pth: is damaged, .* of [\d,]+; "):
        run_tiny("run", *SHORT, RESUME)
    wanted = f"training.resume_from_checkpoint={finished / 'checkpoint-4'}"
    with pytest.raises(UserError, match=r"checkpoint-4/rng_state.pth: is damaged, it has 0 bytes"):
        run_tiny("run", *SHORT, wanted)
    with pytest.raises(UserError, match="is not a checkpoint of"):
        run_tiny("run", *SHORT, "training.resume_from_checkpoint=elsewhere/checkpoint-4")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_kill_before_the_oldest_checkpoint_is_removed_leaves_none_too_many(run_tiny, monkeypatch):
    def killed(folder, limit):
        if len(checkpoints_of(folder)) > limit:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("tidy_stlms.trainers.trainer.remove_old_checkpoints", killed)
        with pytest.raises(Killed):
            run_tiny("run")
    folder = run_tiny("run", RESUME)  # has nothing more to save
    assert [path.name for path in checkpoints_of(folder)] == ["checkpoint-8", "checkpoint-12"]


def test_a_checkpoint_of_another_run_is_not_taken(run_tiny, finished, caplog):
    """Same stream, same shapes, other weights: nothing but the run's id tells them apart."""
    other = run_tiny("other", *SHORT, "training.learning_rate=5.0e-3")
    assert not torch.equal(*(next(iter(weights(folder).values())) for folder in (finished, other)))
    shutil.rmtree(finished / "checkpoint-8")
    shutil.copytree(other / "checkpoint-8", finished / "checkpoint-8")
    with pytest.raises(UserError, match="checkpoint-8: was saved by another run"):
        check_checkpoint(finished / "checkpoint-8", read_run_id(finished))
    (finished / "checkpoint-4").rename(finished / "checkpoint-6")
    with pytest.raises(UserError, match=r"checkpoint-6/checkpoint.json: belongs to step 4"):
        check_checkpoint(finished / "checkpoint-6", read_run_id(finished))


def test_a_finished_run_without_checkpoints_is_not_trained_again(run_tiny):
    folder = run_tiny("run", *SHORT, "training.save_strategy='no'")
    before = weights(folder)
    with pytest.raises(UserError, match=r"is finished and has no checkpoint.* --overwrite"):
        run_tiny("run", *SHORT, "training.save_strategy='no'", RESUME)
    assert_bit_equal(weights(folder), before)


GEOMETRY = Geometry(4, 64, 42, 100, "corpus", None, "model", "apart")


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of step 2 whose log has two lines, and a third one after it."""
    lines = [json.dumps({"step": step, "generation": "a\u2028b"}, ensure_ascii=False) for step in (1, 2, 3)]
    log = tmp_path / "generations.jsonl"
    log.write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "rng_state_1.pth").write_bytes(b"1")
    (folder / "trainer_state.json").write_text("{}")
    mark_whole(
        folder,
        tmp_path,
        run_id="me",
        step=2,
        processes=2,
        geometry=GEOMETRY,
        loss_sum=1.5,
        last_logged=3,
    )
    log.write_text("\n".join(lines) + '\n{"step": 3, "ge', encoding="utf-8")  # torn by a kill
    return folder


def test_a_mark_holds_what_a_resume_needs(checkpoint):
    check_checkpoint(checkpoint, "me")
    assert read_mark(checkpoint).processes == 2
    assert read_mark(checkpoint).logs["generations.jsonl"][0] == 2
    assert load_stream_state(checkpoint, GEOMETRY) == (1.5, 3)
    (checkpoint / "rng_state_1.pth").unlink()
    with pytest.raises(UserError, match=r"rng_state_1.pth: is missing"):
        check_checkpoint(checkpoint, "me")


def test_logs_are_cut_after_the_checkpoint_only(checkpoint):
    log = checkpoint.parent / "generations.jsonl"
    kept = log.read_bytes().splitlines(keepends=True)
    prepare_resume(checkpoint.parent, checkpoint)
    assert [json.loads(line)["step"] for line in log.read_text().split("\n") if line] == [1, 2]
    # what an editor adds does no harm
    log.write_bytes(b"\xef\xbb\xbf" + b"".join(kept).replace(b"\n", b"\r\n\r\n"))
    check_checkpoint(checkpoint, "me")
    prepare_resume(checkpoint.parent, checkpoint)
    assert [json.loads(line)["step"] for line in log.read_text("utf-8-sig").split("\n") if line.strip()] == [
        1,
        2,
    ]
    prepare_resume(checkpoint.parent, None)
    assert log.read_bytes() == b""
    assert not checkpoint.exists()


def test_damage_to_a_log_before_the_checkpoint_is_refused_by_its_line(checkpoint):
    log = checkpoint.parent / "generations.jsonl"
    first, second, third, _ = log.read_text(encoding="utf-8").split("\n")
    for content, reason in (
        (f"{first[:-3]}\n{second}\n", r"line 1: is damaged"),
        (f"{first}\n{second[1:]}\n{third}\n", r"line 2: is damaged"),
        (f"{first}\n\n[2]\n", r"line 3: is damaged"),
        (f"{first}\n\x00\xff\n", r"line 2: is damaged"),
        (f"{first}\n{third}\n", r"line 2: belongs to step 3, not to one up to 2"),
        (f"{first}\n{'[' * 100_000}\n", r"line 2: is damaged"),
        (f"{first}\n", r"lines are missing, it has 1 of the 2 up to step 2"),
        (f"{first}\n{second.replace('2,', '1,')}\n", r"its lines up to step 2 have changed since they were"),
        (None, "is missing"),
    ):
        log.unlink() if content is None else log.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=rf"generations.jsonl(, |: ){reason}.*; restore the file"):
            check_logs(checkpoint)
        check_checkpoint(checkpoint, "me")  # which itself is whole


def test_a_damaged_log_is_refused_and_nothing_is_removed(run_tiny, finished):
    """Going on from the checkpoint before it is possible, on request."""
    log = finished / "metrics.jsonl"
    before, model = logs(finished), weights(finished)
    lines = log.read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if json.loads(line)["step"] == 8)
    log.write_text("".join([*lines[:number], "{\n", *lines[number + 1 :]]))
    damaged = log.read_bytes()
    where = f"metrics.jsonl, line {number + 1}"
    with pytest.raises(UserError, match=rf"{where}: is damaged: .*; restore the file"):
        run_tiny("run", *SHORT, RESUME)
    assert log.read_bytes() == damaged
    check_checkpoint(finished / "checkpoint-8", read_run_id(finished))
    run_tiny("run", *SHORT, "training.resume_from_checkpoint=checkpoint-4")
    assert logs(finished) == before
    assert_bit_equal(weights(finished), model)


def test_what_is_no_folder_is_no_checkpoint_and_a_link_is_removed_as_a_link(run_tiny, tmp_path):
    """People move checkpoints to a larger disk."""
    folder = run_tiny("run", "training.max_steps=8", "injection.exposures=2", "training.eval_steps=4")
    (folder / "checkpoint-99").write_text("notes")
    (folder / "checkpoint-8").rename(tmp_path / "moved")
    (folder / "checkpoint-8").symlink_to(tmp_path / "moved")
    remove_old_checkpoints(folder, 2)
    check_checkpoint(folder / "checkpoint-8", read_run_id(folder))
    (folder / "checkpoint-12").mkdir()
    remove_old_checkpoints(folder, 1)
    assert [path.name for path in checkpoints_of(folder)] == ["checkpoint-12"]
    assert (tmp_path / "moved/model.safetensors").exists()
    assert (folder / "checkpoint-99").read_text() == "notes"


def test_damaged_weights_of_a_run_are_not_measured_nor_pushed(finished):
    garble(finished / "checkpoint-8/model.safetensors")
    with pytest.raises(UserError, match=r"checkpoint-8/model.safetensors: is damaged"):
        load_model(finished / "checkpoint-8")
    with pytest.raises(UserError, match=r"checkpoint-8/model.safetensors: is damaged"):
        push_model(finished / "checkpoint-8", "me/it", run_folder=finished)
    load_model(finished / "checkpoint-4")
    cut(finished / "model.safetensors")
    with pytest.raises(UserError, match=r"run/model.safetensors: is damaged: .*, so nothing is pushed"):
        push_model(finished, "me/it")


def test_a_named_checkpoint_of_another_folder_is_refused(run_tiny, finished, tmp_path):
    with pytest.raises(UserError, match=r"checkpoint-8: is not a checkpoint of .*new"):
        run_tiny("new", *SHORT, f"training.resume_from_checkpoint={finished / 'checkpoint-8'}")
    assert not (tmp_path / "new").exists()


def test_a_damaged_config_or_environment_of_a_run_is_named(run_tiny, finished):
    for file, content in (
        ("config.yaml", "training: ["),
        ("config.yaml", "[1]"),
        ("environment.json", "{"),
        ("environment.json", "{}"),
        ("environment.json", None),
    ):
        path = finished / file
        before = path.read_text()
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(UserError, match=file):
            run_tiny("run", *SHORT, RESUME)
        path.write_text(before)
    run_tiny("run", *SHORT, RESUME)


class Payload:
    """Pickled as a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("is_payload", [True, False])
def test_a_state_that_somebody_has_forged_does_not_run(run_tiny, finished, tmp_path, file, is_payload):
    """With a mark that fits it, so that only the reading of the file is left to notice."""
    checkpoint = checkpoints_of(finished)[0]  # with steps left to train
    torch.save(Payload(tmp_path / "ran") if is_payload else [1, 2], checkpoint / file)
    mark = read_mark(checkpoint)
    (checkpoint / MARK).unlink()
    write_mark(checkpoint, replace(mark, files=sizes_and_hashes(checkpoint)))
    with pytest.raises(UserError, match=f"{checkpoint}: its .* state cannot be loaded: ") as error:
        run_tiny("run", *SHORT, f"training.resume_from_checkpoint={checkpoint}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
