"""A checkpoint is read without running anything that it holds."""

import errno
import fractions
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from modeling_stlm.tidy.checkpoint import read_tidy_checkpoint
from tidy_stlms.configs.errors import UserError

WEIGHTS = {"w": torch.arange(3.0)}


class Payload:
    """Pickled as a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Unknown:
    pass


def save(path, **content):
    torch.save({"model": WEIGHTS, "config": OmegaConf.create({"model": {"a": 1}}), **content}, path)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        read_tidy_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_config_and_weights_are_read_as_plain_values(tmp_path):
    whole = OmegaConf.create({"full_configs": {"model": {"a": 1, "b": [1.5, None, {"c": "x"}], "d": True}}})
    OmegaConf.set_struct(whole, True)  # as hydra does
    read = read_tidy_checkpoint(save(tmp_path / "a.pt", config=whole.full_configs, iteration=7, epoch=1))
    assert read.config == {"model": {"a": 1, "b": [1.5, None, {"c": "x"}], "d": True}}
    assert type(read.config["model"]["b"]) is list
    assert torch.equal(read.weights["w"], WEIGHTS["w"])
    assert read.iteration == 7
    assert read_tidy_checkpoint(save(tmp_path / "b.pt", iter_num=3)).iteration == 3
    assert read_tidy_checkpoint(save(tmp_path / "c.pt", iteration="many")).iteration is None


def test_plain_dicts_with_containers_inside_are_read_too(tmp_path):
    config = {"model": OmegaConf.create({"a": [1, 2]}), "trainer": {"b": (1, 2)}}
    read = read_tidy_checkpoint(save(tmp_path / "a.pt", config=config))
    assert read.config == {"model": {"a": [1, 2]}, "trainer": {"b": [1, 2]}}


def test_real_optimizers_may_be_inside(tmp_path):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save(tmp_path / "a.pt", optimizer=optimizer.state_dict(), scaler={}, model=layer.state_dict())
    assert set(read_tidy_checkpoint(tmp_path / "a.pt").weights) == {"weight", "bias"}


@pytest.mark.parametrize("numpy_1", [False, True])
def test_the_state_of_numpys_generator_may_be_inside(tmp_path, numpy_1):
    content = {"model": WEIGHTS, "config": {"model": {"a": 1}}, "numpy_rng_state": np.random.get_state()}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not numpy_1)
    written = (tmp_path / "a.pt").read_bytes()
    if numpy_1:  # which calls the same function by another name
        assert b"numpy._core.multiarray\n_reconstruct\n" in written
        written = written.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
        (tmp_path / "a.pt").write_bytes(written)
    assert torch.equal(read_tidy_checkpoint(tmp_path / "a.pt").weights["w"], WEIGHTS["w"])


def test_arrays_are_neither_weights_nor_values_of_a_config(tmp_path):
    array = np.arange(3, dtype=np.uint32)
    assert "w: `model` is no state dict" in refusal(save(tmp_path / "a.pt", model={"w": array}))
    config = {"trainer": {"dropout_scheduler": {"dropout_type": [array]}}}
    message = refusal(save(tmp_path / "b.pt", config=config))
    assert "config.trainer.dropout_scheduler.dropout_type[0]: holds ndarray" in message
    assert "numpy" in refusal(save(tmp_path / "c.pt", extra=np.float64(1)))  # its state needs no scalars
    refusal(save(tmp_path / "d.pt", extra=np.array([1, "a"], dtype=object)))  # nor arrays of objects


def test_a_file_in_which_torch_cannot_seek_is_cut_off(tmp_path, monkeypatch):
    def cut_off(*args, **kwargs):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    path = save(tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", cut_off)
    assert "cut off" in refusal(path)


@pytest.mark.parametrize(
    "place", ["model", "config", "optimizer", "inside the config", "in a list", "as a weight"]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_payload_is_refused_by_name_and_does_not_run(tmp_path, place, legacy):
    payload = Payload(tmp_path / "ran")
    content = {"model": WEIGHTS, "config": {"model": {"a": 1}}}
    if place == "inside the config":
        config = OmegaConf.create({"model": {"a": 1}})
        config.__dict__["_content"]["b"] = payload
        content["config"] = config
    elif place == "in a list":
        content["extra"] = [[{"a": payload}]]
    elif place == "as a weight":
        content["model"] = {"w": payload}
    else:
        content[place] = payload
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert "mkdir" in refusal(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)  # the payload is a live one
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (fractions.Fraction(1, 2), "fractions.Fraction"),
        (Unknown(), "test_tidy_checkpoint.Unknown"),
        (Unknown, "test_tidy_checkpoint.Unknown"),
        (eval, "eval"),
        (OmegaConf.register_new_resolver, "getattr"),  # which the pickle would call to reach it
    ],
)
def test_classes_outside_the_list_are_refused_by_name(tmp_path, value, name):
    message = refusal(save(tmp_path / "a.pt", extra={"deep": [value]}))
    assert name in message
    assert "not run" in message


def test_a_list_of_classes_is_allowed_for_the_read_only(tmp_path):
    before = torch.serialization.get_safe_globals()
    read_tidy_checkpoint(save(tmp_path / "a.pt"))
    refusal(save(tmp_path / "b.pt", extra=Unknown()))
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=True)


@pytest.mark.parametrize(
    "value", ["${oc.env:SECRET}", "x ${model.a} y", ["${oc.env:SECRET}"], {"b": {"c": "${d}"}}]
)
@pytest.mark.parametrize("plain", [True, False])
def test_interpolations_are_refused_and_not_resolved(tmp_path, monkeypatch, value, plain):
    monkeypatch.setenv("SECRET", "hunter2")
    config = {"model": {"a": 1}, "general": value}
    message = refusal(save(tmp_path / "a.pt", config=config if plain else OmegaConf.create(config)))
    assert "config.general" in message
    assert "${" in message
    assert "hunter2" not in message


def test_an_interpolation_as_the_whole_config_or_as_a_key_is_refused(tmp_path):
    refusal(save(tmp_path / "a.pt", config=DictConfig("${oc.env:HOME}")))
    refusal(save(tmp_path / "b.pt", config={"model": DictConfig("${oc.env:HOME}")}))
    assert "${a}" in refusal(save(tmp_path / "c.pt", config={"model": {"${a}": 1}}))


def test_a_container_that_is_put_together_wrongly_is_refused(tmp_path):
    config = OmegaConf.create({"model": {"a": 1}})
    config.__dict__["_content"] = [1, 2]
    refusal(save(tmp_path / "a.pt", config=config))


def cyclic() -> dict:
    values: dict = {"a": 1}
    values["itself"] = [values]
    return values


def nested(depth: int) -> dict:
    values: dict = {}
    for _ in range(depth):
        values = {"a": values}
    return values


def shared() -> list:
    """2^40 values, if each mention of a list counts."""
    values: list = [1]
    for _ in range(40):
        values = [values, values]
    return values


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (cyclic(), "nested too deeply, or holds itself"),
        (nested(200), "nested too deeply"),
        (nested(39), None),
        (shared(), "more than 10,000 values|too deeply"),
        (dict.fromkeys(map(str, range(10**5)), 1), "more than 10,000 values"),
        ({"a": 10**30}, "a number that is too large"),
        ({"a": b"bytes"}, "holds bytes"),
        ({"\x1b[31m" * 50: {"b": 1j}}, "holds complex"),
    ],
)
def test_configs_that_no_system_writes(tmp_path, values, problem):
    path = save(tmp_path / "a.pt", config={"model": {"a": 1}, "general": values})
    if problem is None:
        read_tidy_checkpoint(path)
    else:
        assert re.search(problem, refusal(path))
        assert refusal(path).isprintable()


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.ones(2, device="meta"), "on meta"),
        (torch.ones(2, 2).to_sparse(), "sparse"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, dtype=torch.int8), "int8"),
        (torch.ones(1).expand(10**12), "larger than the file"),
        (torch.ones(1).expand(10**6, 10**6), "larger than the file"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path, tensor, problem):
    message = refusal(save(tmp_path / "a.pt", model={**WEIGHTS, "\x1b[31mx": tensor}))
    assert problem in message
    assert message.isprintable()


def test_weights_of_any_floating_point_type_are_read(tmp_path):
    for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float64):
        weights = {"w": torch.arange(3.0).to(dtype)}
        read = read_tidy_checkpoint(save(tmp_path / "a.pt", model=weights)).weights["w"]
        assert read.dtype == dtype
        assert torch.equal(read.float(), torch.arange(3.0))


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path):
    path = save(tmp_path / "a.pt", model={"w": torch.zeros(10**6)})
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "b.pt", "w") as bomb:
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "b.pt").stat().st_size < 10**5
    assert "is compressed" in refusal(tmp_path / "b.pt")


def text_of(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Every operation of the pickle format that can name or call something; PATH stands for an argument.
CALLS = {
    "REDUCE": b"\x80\x02cos\nmkdir\nPATH\x85R.",
    "STACK_GLOBAL": b"\x80\x04" + text_of("os") + text_of("mkdir") + b"\x93PATH\x85R.",
    "a dotted name": b"\x80\x04" + text_of("torch") + text_of("serialization.os.mkdir") + b"\x93PATH\x85R.",
    "INST": b"(PATHios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\nPATHo.",
    "NEWOBJ": b"\x80\x02cos\nmkdir\nPATH\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nmkdir\nPATH\x85}\x92.",
    "BUILD": b"\x80\x02cfractions\nFraction\n)\x81}b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pos.mkdir\n.",
    "BINPERSID": b"\x80\x02(" + text_of("module") + b"cos\nmkdir\nPATHtQ.",
    "getattr": b"\x80\x02c__builtin__\ngetattr\nctorch.serialization\nload\nPATH\x86R.",
    "a loader": b"\x80\x02ctorch.storage\n_load_from_bytes\nPATH\x85R.",
    "a factory": b"\x80\x02ccollections\ndefaultdict\ncos\nmkdir\n\x85R.",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_no_operation_of_a_pickle_calls_anything(tmp_path, name, legacy):
    code = CALLS[name].replace(b"PATH", text_of(str(tmp_path / "ran")))
    if legacy:
        (tmp_path / "a.pt").write_bytes(code)
    else:
        whole = save(tmp_path / "whole.pt")
        with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "a.pt", "w") as changed:
            for member in archive.namelist():
                changed.writestr(member, code if member.endswith("data.pkl") else archive.read(member))
    refusal(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path):
    whole = save(tmp_path / "whole.pt").read_bytes()
    torch.save({"model": WEIGHTS}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pt").read_bytes()
    files = {
        "half.pt": whole[: len(whole) // 2],
        "most.pt": whole[:-10],
        "empty.pt": b"",
        "text.pt": b"hello\n",
        "old_half.pt": old[: len(old) // 2],
        "old_most.pt": old[:-4],
        "pickle.pt": pickle.dumps({"model": WEIGHTS, "config": {}}),
        "pickle2.pt": pickle.dumps({"model": {}, "config": {}}, protocol=2),
        "evil.pt": pickle.dumps(Payload(tmp_path / "ran")),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        message = refusal(tmp_path / name)
        if name in ("half.pt", "most.pt", "empty.pt", "old_most.pt"):
            assert "cut off" in message, name
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "hello")
    refusal(tmp_path / "zip.pt")
    assert not (tmp_path / "ran").exists()
    assert "is a folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    "content",
    [{"model": WEIGHTS}, {"config": {}}, {"model": WEIGHTS, "config": None}, {"model": {}, "config": {}}],
)
def test_files_of_other_systems_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    refusal(tmp_path / "a.pt")
    torch.save([content], tmp_path / "a.pt")
    refusal(tmp_path / "a.pt")
