"""A Hub over HTTP for tests: what `huggingface_hub` needs to push, read back and be refused, in memory.

    with test_hub() as hub:
        subprocess.run(..., env={**os.environ, **hub.environment(tmp_path)})  # or hub.use(...) in process
        hub.files("owner/model")["config.json"]  # bytes

Models and datasets, branches, tags, private repositories. Tokens stand for users, who may write under
their own name: "hf_owner" is "owner", "hf_other" is "other", any other token is wrong, none is a visitor.
Every file is a plain one (no LFS, no Xet).
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USERS = {"hf_owner": "owner", "hf_other": "other"}
KINDS = {"models": "model", "datasets": "dataset"}
ACTIONS = "revision|tree|paths-info|preupload|commit|branch|tag|refs"
API = re.compile(rf"/api/(models|datasets)/([^/]+(?:/[^/]+)??)(?:/({ACTIONS})(?:/(.*))?)?")
RESOLVE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")
FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)

Files = dict[str, bytes]  # by path


@dataclass
class Repository:
    owner: str
    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str, message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.branches[branch] = files, message, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit stands for."""
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        return revision if revision in self.commits else None


class Refused(Exception):
    """An answer other than success: a status, the Hub's error code, and a message."""

    def __init__(self, status: int, code: str, message: str = "", body: dict | None = None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.body = {"error": message or code} if body is None else body


class Hub:
    """The repositories, and how a process finds them."""

    def __init__(self, url: str):
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []  # "GET /api/models/owner/model", in order, queries left out

    def files(self, repo_id: str, revision: str = "main", repo_type: str | None = None) -> Files:
        """What a repository holds at a revision; KeyError without one."""
        kinds = [repo_type] if repo_type else [*KINDS.values()]
        found = next(self.repositories[k, repo_id] for k in kinds if (k, repo_id) in self.repositories)
        return found.commits[found.resolve(revision) or revision]

    def add(self, repo_id: str, files: Files, repo_type: str = "model", private: bool = False) -> str:
        """Put a repository there, or a further commit into it, without a client; returns the commit."""
        owner = repo_id.partition("/")[0]
        repository = self.repositories.setdefault((repo_type, repo_id), Repository(owner, private))
        return repository.commit(dict(files), "main", "added by hand")

    def environment(self, home: Path, token: str | None = "hf_owner") -> dict[str, str]:
        """Variables for a subprocess whose only Hub is this one; an empty token is none."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
        }

    def use(self, monkeypatch, home: Path, token: str | None = "hf_owner") -> None:
        """Make this the Hub of the test's own process, where huggingface_hub is imported long since."""
        import huggingface_hub.constants as constants
        import transformers.utils.hub as transformers_hub

        # its client, which it makes once, may have been made for another test's Hub
        monkeypatch.setattr(transformers_hub, "_hf_api", None)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.delenv("HF_TOKEN", raising=False)

    # what clients ask for; `user` is None for a visitor

    def create(self, user: str | None, payload: dict) -> dict:
        owner = payload.get("organization") or user
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        if owner != user:
            text = f'You don\'t have the rights to create a model under the namespace "{owner}"'
            raise Refused(403, "", text)
        kind, repo_id = payload.get("type") or "model", f"{owner}/{payload['name']}"
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if (kind, repo_id) in self.repositories:
            raise Refused(409, "", "You already created this repo", {"error": "exists", "url": url})
        repository = Repository(owner, payload.get("visibility") == "private" or bool(payload.get("private")))
        repository.commit({".gitattributes": b""}, "main", "initial commit")
        self.repositories[kind, repo_id] = repository
        return {"url": url, "name": repo_id}

    def find(self, user: str | None, kind: str, repo_id: str, write: bool = False) -> Repository:
        repository = self.repositories.get((kind, repo_id))
        if repository is None or (repository.private and user != repository.owner):
            # the real one says 401 to visitors, lest they learn what exists
            raise Refused(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if write and user is None:
            raise Refused(401, "", "Invalid username or password.")
        if write and user != repository.owner:
            raise Refused(403, "", "You don't have write access to this repository")
        return repository

    def info(self, repository: Repository, repo_id: str, revision: str) -> dict:
        sha = _commit_of(repository, revision)
        return {
            "id": repo_id,
            "modelId": repo_id,
            "sha": sha,
            "private": repository.private,
            "siblings": [{"rfilename": path} for path in sorted(repository.commits[sha])],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def tree(self, repository: Repository, revision: str, folder: str, recursive: bool) -> list[dict]:
        files = repository.commits[_commit_of(repository, revision)]
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, "EntryNotFound", "No such folder")
        entries = {}
        for path, data in sorted(inside.items()):
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                name = prefix + "/".join(parts[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": _oid(name.encode())}
            entries[path] = _entry(path, data)
        return [e for e in entries.values() if recursive or "/" not in e["path"][len(prefix) :]]

    def paths_info(self, repository: Repository, revision: str, paths: list[str]) -> list[dict]:
        files = repository.commits[_commit_of(repository, revision)]
        folders = {"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)}
        found = [_entry(path, files[path]) for path in paths if path in files]
        return found + [
            {"type": "directory", "path": p, "oid": _oid(p.encode())} for p in paths if p in folders
        ]

    def preupload(self, repository: Repository, revision: str, payload: dict) -> dict:
        files = repository.commits[_commit_of(repository, revision)]
        return {
            "files": [
                {
                    "path": item["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                    "oid": _oid(files[item["path"]]) if item["path"] in files else None,
                }
                for item in payload["files"]
            ]
        }

    def commit(self, repository: Repository, where: str, revision: str, lines: bytes) -> dict:
        parent = _commit_of(repository, revision)
        files, message = dict(repository.commits[parent]), ""
        for line in lines.splitlines():
            key, value = (json.loads(line)[name] for name in ("key", "value"))
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", parent) != parent:
                    raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
            elif key == "deletedFolder":
                prefix = value["path"].rstrip("/") + "/"
                files = {path: data for path, data in files.items() if not path.startswith(prefix)}
            else:
                raise Refused(400, "", f"this Hub takes no {key}")
        sha = repository.commit(files, revision, message)
        return {"commitOid": sha, "commitUrl": f"{self.url}/{where}/commit/{sha}", "hookOutput": ""}


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, handle) -> None:
        body = self._read_body()
        self.hub.requests.append(f"{self.command} {urlsplit(self.path).path}")
        try:
            handle(unquote(urlsplit(self.path).path), self._user(), body)
        except Refused as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            headers = {name: text for name, text in headers.items() if text}
            self._send(refusal.status, json.dumps(refusal.body).encode(), headers)

    def _user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if token and token not in USERS:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return USERS.get(token)

    def _get(self, path: str, user: str | None, body: bytes) -> None:
        if path == "/api/whoami-v2":
            if user is None:
                raise Refused(401, "", "Invalid username or password.")
            return self._json({"type": "user", "name": user, "fullname": user, "orgs": []})
        if found := RESOLVE.fullmatch(path):
            dataset, repo_id, revision, file = found.groups()
            repository = self.hub.find(user, "dataset" if dataset else "model", repo_id)
            return self._file(repository, unquote(revision), file)
        kind, repo_id, action, rest = self._api(path)
        repository = self.hub.find(user, kind, repo_id)
        if action in (None, "revision"):
            return self._json(self.hub.info(repository, repo_id, rest or "main"))
        if action == "tree":
            revision, _, folder = rest.partition("/")
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            return self._json(self.hub.tree(repository, unquote(revision), folder, recursive))
        if action == "refs":
            refs = {
                name: [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in kind.items()]
                for name, kind in (("branches", repository.branches), ("tags", repository.tags))
            }
            return self._json({**refs, "converts": [], "pullRequests": []})
        raise Refused(404, "", f"no GET {action} here")

    def _post(self, path: str, user: str | None, body: bytes) -> None:
        if path == "/api/repos/create":
            return self._json(self.hub.create(user, json.loads(body)))
        if path == "/api/validate-yaml":
            return self._json(_check_card(json.loads(body)["content"]))
        kind, repo_id, action, rest = self._api(path)
        if action == "paths-info":
            fields = parse_qs(body.decode())
            repository = self.hub.find(user, kind, repo_id)
            return self._json(self.hub.paths_info(repository, unquote(rest), fields.get("paths", [])))
        repository = self.hub.find(user, kind, repo_id, write=True)
        if action == "preupload":
            return self._json(self.hub.preupload(repository, unquote(rest), json.loads(body)))
        if action == "commit":
            where = f"{'datasets/' if kind == 'dataset' else ''}{repo_id}"
            return self._json(self.hub.commit(repository, where, unquote(rest), body))
        payload = json.loads(body or b"{}")
        if action == "branch":
            repository.branches[rest] = _commit_of(repository, payload.get("startingPoint", "main"))
            return self._json({})
        if action == "tag":
            repository.tags[payload["tag"]] = _commit_of(repository, unquote(rest))
            return self._json({})
        raise Refused(404, "", f"no POST {action} here")

    def _api(self, path: str) -> tuple[str, str, str | None, str]:
        found = API.fullmatch(path)
        if not found:
            raise Refused(404, "", f"{path}: not a path of this Hub")
        kind, repo_id, action, rest = found.groups()
        return KINDS[kind], repo_id, action, rest or ""

    def _file(self, repository: Repository, revision: str, path: str) -> None:
        sha = _commit_of(repository, revision)
        data = repository.commits[sha].get(path)
        if data is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return self._send(200, data, headers, "application/octet-stream")
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, data[first : last + 1], headers, "application/octet-stream")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, data: bytes, headers=None, kind: str = "application/json") -> None:
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args) -> None:
        """Say nothing."""


@contextlib.contextmanager
def test_hub() -> Iterator[Hub]:
    """An empty Hub on a free port of this machine, gone at the end of the block."""
    handler = type("BoundHandler", (Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


test_hub.__test__ = False  # by its name alone pytest would run it wherever it is imported


def _commit_of(repository: Repository, revision: str) -> str:
    sha = repository.resolve(unquote(revision))
    if sha is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return sha


def _oid(data: bytes) -> str:
    """Git's name of a file's content, by which clients see that it has not changed."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict:
    return {"type": "file", "path": path, "oid": _oid(data), "size": len(data)}


def _check_card(content: str) -> dict:
    found = FRONT_MATTER.match(content)
    if not found:
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        text = str(error)
        raise Refused(400, "", text, {"errors": [{"message": text}], "warnings": []}) from None
    wrong = [] if isinstance(metadata, dict) else [{"message": "metadata must be a mapping"}]
    if wrong:
        raise Refused(400, "", "Invalid metadata", {"errors": wrong, "warnings": []})
    return {"errors": [], "warnings": []}
