"""Checking a server: one that is right, those with known mistakes, and those that are none; over HTTP on this machine."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from hf_mic.__main__ import main
from hf_mic.frozen import PrefixMap, append_to_model
from hf_mic.hub.embedding_server import EmbeddingServer, ServerError
from hf_mic.hub.serve_check import check_server

VLLM_SAYS = 'Model "m" does not support matryoshka representation'


@pytest.fixture(scope="module")
def folder(tiny_bert_path, tmp_path_factory):
    """An encoder with a rotation on top, which promises prefixes of 4 and 8."""
    from tiny_encoders import build_encoder

    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    prefix_map = PrefixMap("orthogonal", rotation, config={"dims": [4, 8]})
    path = tmp_path_factory.mktemp("served") / "encoder"
    append_to_model(build_encoder(tiny_bert_path), prefix_map).save_pretrained(str(path), create_model_card=False)
    return path


@contextlib.contextmanager
def serving(answer):
    """A server that answers with ``answer(path, body or None, headers)``: a status and an object, or bytes."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            asked.append((self.path, body))
            status, value = answer(self.path, body, self.headers)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = reply

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def embedding_server(model, *, renormalise=True, dimensions="cut", half=False):
    """As vLLM and text-embeddings-inference answer: transformer, pooling, maps, prefix, unit length."""

    def answer(path, body, headers):
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny"}]}
        wanted = body.get("dimensions")
        if wanted is not None and dimensions == "refuse":
            return 400, {"error": {"message": VLLM_SAYS}}
        vectors = model.encode(body["inputs"] if path == "/embed" else body["input"])
        if wanted is not None and dimensions == "cut":
            vectors = vectors[:, :wanted]
        if renormalise:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = (vectors.astype(np.float16) if half else vectors).tolist()
        if path == "/embed":
            return 200, rows
        assert path == "/v1/embeddings"
        assert body["model"] == "tiny"
        items = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
        return 200, {"data": items[::-1]}  # the order is that of the index

    return answer


@pytest.fixture(scope="module")
def right(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def without_map(right):
    return SentenceTransformer(modules=[module for module in right if not isinstance(module, Dense)], device="cpu")


def verdicts(report):
    return {check.dim: check.verdict for check in report.checks}


@pytest.mark.parametrize("api", ["openai", "tei"])
@pytest.mark.parametrize("half", [False, True])
def test_the_right_server(folder, right, api, half):
    with serving(embedding_server(right, half=half)) as (url, asked):
        report = check_server(EmbeddingServer(f"{url}/v1/", api), folder)
    assert report.same
    assert verdicts(report) == {32: "same", 8: "same", 4: "same"}
    assert all(check.unit and check.distance < 1e-5 for check in report.checks)
    bodies = [body for path, body in asked if body]
    assert [body.get("dimensions") for body in bodies] == [None, 8, 4]
    assert {path for path, body in asked if body} == {"/embed" if api == "tei" else "/v1/embeddings"}


@pytest.mark.parametrize("api", ["openai", "tei"])
def test_a_server_that_skips_the_map(folder, without_map, api):
    with serving(embedding_server(without_map)) as (url, _):
        report = check_server(EmbeddingServer(url, api), folder)
    assert set(verdicts(report).values()) == {"map left out"}
    assert report.checks[0].distance > 0.1
    assert "--legacy_modules" in "\n".join(report.lines())


def test_a_server_that_refuses_dimensions(folder, right):
    with serving(embedding_server(right, dimensions="refuse")) as (url, _):
        report = check_server(EmbeddingServer(url), folder, dims=[8])
    assert verdicts(report) == {32: "same", 8: "dimensions refused"}
    assert not report.same
    text = "\n".join(report.lines())
    assert f"refuses dimensions=8: {VLLM_SAYS})" in text
    assert "--hf-overrides" in text


def test_a_server_that_ignores_dimensions_or_does_not_renormalise(folder, right):
    with serving(embedding_server(right, dimensions="ignore")) as (url, _):
        report = check_server(EmbeddingServer(url, "tei"), folder)
    assert verdicts(report) == {32: "same", 8: "dimensions ignored", 4: "dimensions ignored"}
    with serving(embedding_server(right, renormalise=False)) as (url, _):
        report = check_server(EmbeddingServer(url), folder)
    assert report.same, "cosines are those of the folder"
    assert [check.unit for check in report.checks] == [True, False, False]
    assert "compared by cosine" in "\n".join(report.lines())


def test_a_server_of_another_model_and_one_without_the_prompt(folder, right, make_model, tmp_path):
    other = make_model(normalize=True)
    with torch.no_grad():
        other[0].model.embeddings.word_embeddings.weight.mul_(-3)
    with serving(embedding_server(other)) as (url, _):
        assert set(verdicts(check_server(EmbeddingServer(url), folder)).values()) == {"other"}
    prompted = SentenceTransformer(
        modules=list(right), device="cpu", prompts={"q": "left right "}, default_prompt_name="q"
    )
    prompted.save_pretrained(str(tmp_path), create_model_card=False)
    with serving(embedding_server(right)) as (url, _):
        report = check_server(EmbeddingServer(url), tmp_path, texts=["wide complex", "no axis"], tolerance=1e-6)
    assert set(verdicts(report).values()) == {"prompt left out"}


def test_a_key_is_sent_and_a_name_is_taken(folder, right):
    plain = embedding_server(right)

    def answer(path, body, headers):
        if headers.get("Authorization") != "Bearer secret":
            return 401, {"error": "no key"}
        return (404, {}) if path == "/v1/models" else plain(path, body | {"model": "tiny"}, headers)

    with serving(answer) as (url, asked):
        with pytest.raises(ServerError, match="/v1/embeddings answers 401: no key"):
            EmbeddingServer(url).embed(["a"])
        assert EmbeddingServer(url, token="secret").embed(["a"]).shape == (1, 32)
        assert EmbeddingServer(url, token="secret", model="own").embed(["a"], 8).shape == (1, 8)
    assert [body["model"] for _, body in asked if body] == ["default", "default", "own"]


@pytest.mark.parametrize(
    ("status", "value", "message"),
    [
        (200, b"<html>", r"does not answer in JSON but with b'<html>'"),
        (200, [[1.0, 2.0]], r"answers 2 texts with vectors of shape \(1, 2\)"),
        (200, [[1.0, 2.0], [1.0]], "answers without embeddings"),
        (200, {"error": "x"}, "answers without embeddings"),
        (200, [], r"vectors of shape \(0,\)"),
        (200, [[1.0], [float("nan")]], "not finite"),
        (500, {"error": "out of memory"}, "answers 500: out of memory"),
        (404, b"no such page", "answers 404: no such page"),
    ],
)
def test_what_is_no_answer_is_a_typed_error(status, value, message):
    with serving(lambda *_: (status, value)) as (url, _), pytest.raises(ServerError, match=message):
        EmbeddingServer(url, "tei").embed(["a", "b"])


def test_an_error_of_the_server_is_no_refusal(folder, right):
    plain = embedding_server(right)
    with (
        serving(lambda path, body, h: (503, {}) if body and "dimensions" in body else plain(path, body, h)) as (url, _),
        pytest.raises(ServerError, match="answers 503"),
    ):
        check_server(EmbeddingServer(url), folder)


def test_no_server(folder):
    with serving(lambda *_: (200, [])) as (url, _):
        pass
    with pytest.raises(ServerError, match=r"cannot be reached: .* \(is the server up, and the address right\?\)"):
        EmbeddingServer(url, "tei").embed(["a"])
    for wrong in ({"url": "host:80"}, {"url": "http://host", "api": "grpc"}):
        with pytest.raises(ValueError, match=r"(url|api)='\S+': must"):
            EmbeddingServer(**wrong)
    for options in ({"dims": [64]}, {"dims": [8, 8]}, {"tolerance": 0}):
        with pytest.raises(ValueError, match=r"(dims|tolerance)="):
            check_server(EmbeddingServer(url), folder, **options)


def test_the_verb(folder, right, without_map, capsys, monkeypatch):
    with serving(embedding_server(right)) as (url, _):
        assert main(["serve-check", url, str(folder)]) == 0
        assert f"{url} answers with the embeddings of {folder}." in capsys.readouterr().out
        assert main(["serve-check", url, str(folder), "--token_variable", "NO_SUCH_KEY"]) == 2
        assert "token_variable=NO_SUCH_KEY: there is no such" in capsys.readouterr().err
    with serving(embedding_server(without_map)) as (url, _):
        assert main(["serve-check", url, str(folder), "--api", "tei", "--dims", "16"]) == 2
        printed = capsys.readouterr()
        assert printed.out.count("map left out\n") == 2
        assert f"error: {url} does not answer with the embeddings of {folder}" in printed.err
