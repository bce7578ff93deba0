"""Checkpoints of Tidy-STLMs that are damaged, or that are other pickles: nothing in them ever runs."""

import functools
import io
import os
import pickle
import pickletools
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.damaged.damage import cases, damaged_bytes, damaged_value
from tests.modeling_stlm.tidy_reference import TidyModel, tidy_config


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def replaced(content: bytes, damaged: bytes) -> bytes:
    """The zip file of `torch.save` with another pickle in it."""
    old, file = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, damaged if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def pickle_in(content: bytes) -> bytes:
    archive = zipfile.ZipFile(io.BytesIO(content))
    return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@pytest.fixture(scope="module")
def config():
    return tidy_config()


@pytest.fixture(scope="module")
def checkpoint(config):
    weights = TidyModel(config["model"]).state_dict()
    return {"model": weights, "config": OmegaConf.create(config), "iteration": 3}


def convert(case, content: bytes):
    (case.folder / "checkpoint.pt").write_bytes(content)
    case.run("convert", "tidy", case.folder / "checkpoint.pt", case.out)


@cases(15, 800)
@given(data=st.data())
def test_any_value_of_the_config(new_case, checkpoint, config, data):
    damaged = data.draw(damaged_value(config))
    as_config = isinstance(damaged, dict) and data.draw(st.booleans())
    try:
        value = OmegaConf.create(damaged) if as_config else damaged
    except Exception:
        value = damaged
    convert(new_case(), saved(checkpoint | {"config": value}))


# What a tensor of a checkpoint can be, beside what it should be.
TENSORS = {
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "meta": lambda t: t.to("meta"),
    "int": lambda t: t.int(),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "float64": lambda t: t.double(),
    "sparse": lambda t: t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "expanded": lambda t: t.new_zeros(1).expand(10**6),
    "10^12 elements": lambda t: t.new_zeros(1).as_strided((10**12,), (0,)),
    "nan": lambda t: t * torch.nan,
    "empty": lambda t: t[..., :0],
    "flat": lambda t: t.flatten(),
    "parameter": lambda t: torch.nn.Parameter(t),
    "list": lambda t: t.tolist(),
}


@cases(15, 300)
@given(data=st.data(), change=st.sampled_from(list(TENSORS)))
def test_any_tensor(new_case, checkpoint, data, change):
    name = data.draw(st.sampled_from(list(checkpoint["model"])))
    weights = checkpoint["model"] | {name: TENSORS[change](checkpoint["model"][name])}
    convert(new_case(), saved(checkpoint | {"model": weights}))


@cases(20, 1000)
@given(data=st.data())
def test_any_bytes(new_case, checkpoint, data):
    content = saved(checkpoint)
    if data.draw(st.booleans()):
        content = replaced(content, data.draw(damaged_bytes(pickle_in(content))))
    else:
        content = data.draw(damaged_bytes(content))
    convert(new_case(), content)


OPCODES = [code for code in pickletools.opcodes if code.name not in ("PROTO", "FRAME")]
NAMES = [
    ("os", "system"), ("os", "mkdir"), ("builtins", "eval"), ("torch", "load"),
    ("collections", "OrderedDict"), ("x", "y"),
]  # fmt: skip


@st.composite
def programs(draw):
    """Pickles of any operations in any order."""
    parts = [b"\x80\x02"]
    for code in draw(st.lists(st.sampled_from(OPCODES), max_size=25)):
        argument = b""
        if code.name in ("GLOBAL", "INST"):
            argument = "{}\n{}\n".format(*draw(st.sampled_from(NAMES))).encode()
        elif code.arg is not None:
            words = st.sampled_from([b"0\n", b"1\n", b"7\n", b"os\nmkdir\n", b"made\n"])
            by_line = code.arg.n == pickletools.UP_TO_NEWLINE
            argument = draw(words if by_line else st.binary(min_size=1, max_size=9))
        parts.append(code.code.encode("latin-1") + argument)
    return b"".join(parts) + b"."


@cases(20, 1500)
@given(program=programs(), bare=st.booleans())
def test_any_program(new_case, checkpoint, program, bare):
    convert(new_case(), program if bare else replaced(saved(checkpoint), program))


@pytest.mark.parametrize("place", ["whole", "config", "weights", "iteration", "key"])
@pytest.mark.parametrize("function", ["os.mkdir", "os.system", "eval", "exec", "getattr", "partial"])
def test_calls_never_happen(new_case, checkpoint, place, function):
    case = new_case()
    code = f"__import__('os').mkdir({str(case.canary)!r})"
    call = {
        "os.mkdir": Call(os.mkdir, str(case.canary)),
        "os.system": Call(os.system, f"mkdir {case.canary}"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "getattr": Call(getattr, dict, "fromkeys"),
        "partial": Call(functools.partial, os.mkdir, str(case.canary)),
    }[function]
    places = {
        "config": checkpoint | {"config": {"model": call}},
        "weights": checkpoint | {"model": {"w": call}},
        "iteration": checkpoint | {"iteration": call},
        "key": checkpoint | {"other": [call]},
    }
    content = saved(places[place]) if place != "whole" else pickle.dumps(call)
    (case.folder / "checkpoint.pt").write_bytes(content)
    outcome = case.run("convert", "tidy", case.folder / "checkpoint.pt", case.out)
    assert outcome.code == 2
