"""studies/configs/mic_minilm.yaml: the plan of the reported study is sound, and is that of the reported results."""

import json

from hf_mic.commands.study import read_plan


def test_the_reported_plan_is_that_of_the_reported_results(repo_root):
    plan = read_plan(repo_root / "studies" / "configs" / "mic_minilm.yaml")
    results = json.loads((repo_root / "model_cards" / "results" / "mic_minilm.json").read_text(encoding="utf-8"))
    reported = results["config"]
    for name in ("data", "training", "dims", "short_dims", "max_seq_length", "head", "head_learning_rate"):
        assert plan[name] == reported[name], name
    before = {method["name"]: method for method in reported["methods"]}
    for method in plan["methods"]:
        assert {**method, **before[method["name"]]} == method, "only defaults were added"
    assert all(method["data"] == before[method["name"]].get("data", "unsupervised") for method in plan["methods"])
    scored = {row["task"] for row in results["rows"]} - {"geometry"}
    assert set(plan["tasks"]) == scored
