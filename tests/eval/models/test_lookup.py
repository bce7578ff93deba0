"""Whether there is a model under a Hub id, asked of a Hub on this machine; folders are in test_load.py."""

import http.server
import json
import threading

import huggingface_hub
import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.eval.models.lookup import check_model_path


class Hub(http.server.BaseHTTPRequestHandler):
    """The one question that is asked of the Hub before a model is loaded."""

    repositories = {
        "lab/model": ["config.json", "model.safetensors"],
        "lab/adapter": ["adapter_config.json"],
        "lab/data": [],
    }

    def do_GET(self):
        name, _, revision = self.path.removeprefix("/api/models/").partition("/revision/")
        if name not in self.repositories:
            return self.answer(404, "RepoNotFound")
        if revision == "v9":
            return self.answer(404, "RevisionNotFound")
        siblings = [{"rfilename": file} for file in self.repositories[name]]
        return self.answer(200, body={"id": name, "siblings": siblings})

    def answer(self, status, code="", body=None):
        content = json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_asked_for_once(hub):
    check_model_path("lab/model")
    check_model_path("lab/adapter", revision="main")
    with pytest.raises(
        UserError, match=r"^lab/none: not a model \(no such folder, and no such model on the Hub"
    ):
        check_model_path("lab/none")
    with pytest.raises(UserError, match=r"^lab/model: the model on the Hub has no revision 'v9'"):
        check_model_path("lab/model", revision="v9")
    with pytest.raises(UserError, match=r"^lab/data: not a model \(the Hub's repository has no config.json"):
        check_model_path("lab/data")


def test_a_hub_that_cannot_be_asked(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    message = r"^lab/model: not a model \(no such folder, and the Hub cannot be asked"
    with pytest.raises(UserError, match=message):
        check_model_path("lab/model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for refuse in (check_model_path, load_model):
        with pytest.raises(UserError, match=message) as caught:
            refuse("lab/model")
        assert "\n" not in str(caught.value)
