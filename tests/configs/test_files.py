"""Writing whole, cleaning up after killed commands, and full disks."""

import errno
import os
import subprocess
import sys
import time

import pytest

from tidy_stlms.configs import temporary
from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.files import (
    append_jsonl,
    build_once,
    read_json,
    remove_folder,
    whole_folder,
    write_whole,
)
from tidy_stlms.configs.full_disk import full_disk_reason, writing
from tidy_stlms.configs.temporary import ABANDONED_AFTER, TEMPORARY, remove_abandoned


def killed_while(code, *arguments):
    """Run Python code in a process that ends without any cleaning up, as a killed one does."""
    subprocess.run(
        [sys.executable, "-c", f"import os; {code}; os._exit(9)", *map(str, arguments)], check=False
    )


WRITE_FOLDER = (
    "import sys; from tidy_stlms.configs.files import whole_folder; "
    "block = whole_folder(sys.argv[1]); folder = block.__enter__(); (folder / 'half').write_text('x')"
)


def test_what_a_killed_process_left_is_removed_by_the_next_one_there(tmp_path):
    killed_while(WRITE_FOLDER, tmp_path / "a")
    killed_while(f"{WRITE_FOLDER}; (folder / 'deep').mkdir()", tmp_path / "name.with.dots")
    (left,) = os.listdir(tmp_path)
    assert TEMPORARY.fullmatch(left)["name"] == "name.with.dots"
    write_whole(tmp_path / "other.txt", "text")
    assert os.listdir(tmp_path) == ["other.txt"]
    killed_while(WRITE_FOLDER, tmp_path / "a")
    build_once(tmp_path / "b", lambda folder: (folder / "file").touch())
    assert sorted(os.listdir(tmp_path)) == ["b", "other.txt"]


def test_what_a_living_process_is_writing_stays(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", f"{WRITE_FOLDER}; print('begun', flush=True); input()", str(tmp_path / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"begun\n"
    with whole_folder(tmp_path / "mine"):
        remove_abandoned(tmp_path)
        assert len(os.listdir(tmp_path)) == 2
    assert len(os.listdir(tmp_path)) == 2
    process.kill()
    process.communicate()
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == ["mine"]


def test_of_other_machines_only_what_is_old_is_removed(tmp_path):
    for name in (".a.00000000-1-0123abcd.tmp", ".b.00000000-1-0123abcd.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    long_ago = time.time() - ABANDONED_AFTER - 60
    for path in (tmp_path / ".a.00000000-1-0123abcd.tmp", tmp_path / ".a.00000000-1-0123abcd.tmp/file"):
        os.utime(path, (long_ago, long_ago))
    os.utime(tmp_path / ".b.00000000-1-0123abcd.tmp", (long_ago, long_ago))  # its file is new
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == [".b.00000000-1-0123abcd.tmp"]


def test_a_process_number_that_cannot_be_one_is_gone(tmp_path):
    name = f".a.{temporary._machine()}-{'9' * 30}-0123abcd.tmp"
    (tmp_path / name).symlink_to(tmp_path)
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == []


def test_names_that_only_look_alike_are_left_alone(tmp_path):
    names = [
        ".gitignore",
        ".a.tmp",
        "checkpoint-1",
        "a.01234567-1-0123abcd.tmp",
        ".a.0123456-1-0123abcd.tmp",
        ".saving",
    ]
    for name in names:
        (tmp_path / name).touch()
    remove_abandoned(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_folder_whose_replacement_was_killed_gets_its_name_back(tmp_path):
    path = tmp_path / "results"
    for content in ("old", "new"):
        with whole_folder(path, replace=True) as folder:
            (folder / "file").write_text(content)
            if content == "new":
                assert (path / "file").read_text() == "old"
        assert (path / "file").read_text() == content
    killed_while(
        "import sys; import tidy_stlms.configs.files as files; replace = os.replace; "
        "os.replace = lambda old, new: os._exit(9) if str(old).endswith('.tmp') else replace(old, new); "
        "folder = files.whole_folder(sys.argv[1], replace=True); (folder.__enter__() / 'file').touch(); "
        "folder.__exit__(None, None, None)",
        path,
    )
    assert not path.exists()
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == ["results"]
    assert (path / "file").read_text() == "new"


def test_a_folder_in_use_is_replaced_only_on_request_and_not_by_an_error(tmp_path):
    path = tmp_path / "results"
    with whole_folder(path) as folder:
        (folder / "file").write_text("old")
    with pytest.raises(UserError, match="results: exists already"), whole_folder(path):
        pass
    with pytest.raises(ZeroDivisionError), whole_folder(path, replace=True):
        raise ZeroDivisionError
    assert (path / "file").read_text() == "old"
    remove_folder(path)
    assert os.listdir(tmp_path) == []


def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    """After a power failure a renamed file that was not flushed may be empty."""
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        events.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def note_replace(old, new):
        events.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_whole(tmp_path / "file", "text")
    assert [os.path.basename(event)[:6] for event in events] == [".file.", "rename", tmp_path.name[:6]]
    events.clear()
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "inside").mkdir()
        (folder / "inside/file").write_text("text")
    names = [os.path.basename(event) for event in events]
    assert set(names[:3]) == {"inside", "file", folder.name}
    assert names[3:] == ["rename", tmp_path.name]


def test_a_full_disk_is_recognised_whoever_reports_it(tmp_path):
    def raised(error, cause=None):
        try:
            raise error from cause
        except Exception as caught:
            return caught

    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (
        full,
        OSError(errno.EDQUOT, "over"),
        OSError(errno.EFBIG, "File too large"),
        raised(ValueError("generation failed"), cause=full),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("basic_ios::clear: iostream error"),
        OSError("Not enough disk space. Needed: Unknown size"),
        raised(UserError("model: cannot be loaded"), cause=full),
        Exception("I/O error: No space left on device (os error 28)"),
    ):
        assert full_disk_reason(error)
        named = rf"{tmp_path}/file: .* \([\d.,]+ [GM]B free in {tmp_path}\)"
        with pytest.raises(DiskFull, match=named), writing(tmp_path / "file"):
            raise error
    for error in (
        OSError(errno.ENOENT, "No such file"),
        ValueError("unexpected position"),
        UserError("No space left on device"),
    ):
        assert full_disk_reason(error) is None
        with pytest.raises(type(error)), writing(tmp_path / "file"):
            raise error


def test_writers_name_the_file_and_leave_the_old_one_when_there_is_no_room(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from tidy_stlms.configs.files import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); folder = Path(sys.argv[1])\n"
        "def attempt(write):\n"
        "    try: write()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "def in_folder():\n"
        "    with whole_folder(folder / 'folder') as inside: (inside / 'part').write_text('x' * 2000)\n"
        "attempt(lambda: write_whole(folder / 'file', 'x' * 2000))\n"
        "attempt(in_folder)\n"
        "attempt(lambda: append_jsonl(folder / 'log.jsonl', [{'text': 'x' * 2000}]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    for line, name in zip(lines, ("file", "folder", "log.jsonl"), strict=True):
        assert line.startswith(f"DiskFull {tmp_path}/{name}: File too large (")
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "log.jsonl"]


def test_appended_lines_follow_each_other_as_valid_json(tmp_path):
    append_jsonl(tmp_path / "log.jsonl", [{"a": float("nan")}])
    append_jsonl(tmp_path / "log.jsonl", [{"a": "\u2028"}])
    assert (tmp_path / "log.jsonl").read_text() == '{"a": null}\n{"a": "\u2028"}\n'


def test_the_machine_is_told_by_more_than_its_name(monkeypatch):
    """Containers of one name may share a folder, each with processes of the same numbers."""
    here = temporary._machine()
    temporary._machine.cache_clear()
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[1]")
    assert temporary._machine() != here
    temporary._machine.cache_clear()


def test_a_json_object_with_a_key_twice_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON: an object has the key 'b' twice"):
        read_json(tmp_path / "a.json")
