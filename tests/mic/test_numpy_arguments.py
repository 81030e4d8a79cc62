"""Numbers and arrays of numpy or torch serve as settings, and what is written of them reads again."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy_values import numpy_options
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_mic import Compressor, MICLoss, MICTrainingArguments
from hf_mic.codes import ScalarQuantizer, load_quantizer, save_quantizer
from hf_mic.evaluation import STSTask, evaluate_model
from hf_mic.frozen import AdaptConfig, PrefixMap, fit_map
from hf_mic.geometry import write_geometry_report
from hf_mic.inspection import InspectionSettings
from hf_mic.layers import mark_matryoshka, marked_dims, trained_dims
from hf_mic.results import read_results, write_results

VECTORS = np.random.default_rng(0).normal(size=(200, 32)).astype(np.float32)
DIMS = [np.array([8, 16]), [np.int64(8), np.int32(16)], torch.tensor([8, 16]), range(8, 17, 8), (8, 16)]


@pytest.mark.parametrize("kind", [AdaptConfig, InspectionSettings])
@pytest.mark.parametrize("own", [{}, {"dims": [8, 16]}])
def test_settings_of_numpy_are_those_of_python(kind, own):
    plain = kind(**own)
    options = numpy_options(plain)
    assert len(options) >= 5
    given = kind(**options)
    assert given == plain
    assert json.loads(json.dumps(asdict(given))) == asdict(plain)


def test_training_arguments_of_numpy_are_those_of_python(tmp_path):
    own = {"matryoshka_dims": [8, 16], "matryoshka_weights": [1.0, 0.5], "layers": [1, 2], "reg_dims": [8]}
    own |= {"mini_batch_size": 4, "output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}
    own |= {"max_steps": 7, "learning_rate": 0.5}
    plain = MICTrainingArguments(**own | {"layers": None, "scope": "pooled"})
    options = numpy_options(plain)
    assert {"gamma", "t", "matryoshka_dims", "matryoshka_weights", "max_steps", "learning_rate"} <= options.keys()
    given = MICTrainingArguments(**own | {"layers": None, "scope": "pooled"} | options)
    assert json.loads(given.to_json_string()) == json.loads(plain.to_json_string())
    assert MICTrainingArguments(**own | {"layers": np.array([1, 2]), "mini_batch_size": None}).layers == [1, 2]
    paired = MICTrainingArguments("out", report_to="none", layer_dims={np.int64(1): np.array([8])})
    assert paired.layer_dims == {1: [8]}


@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: type(dims).__name__)
def test_a_fitted_map_is_saved_with_any_dims(dims, tmp_path):
    config = AdaptConfig(dims=dims, batch_size=np.int64(64), pool_size=128, steps=np.int64(2), t=np.float32(2))
    fit_map(VECTORS, config, progress=False).save(tmp_path / "map.safetensors")
    assert PrefixMap.load(tmp_path / "map.safetensors").config["dims"] == [8, 16]


@pytest.mark.parametrize("dims", [4, "4", ["4"], [4.5], [4.0], np.array([8.0]), [], np.array([[4, 8]]), None])
def test_what_is_no_list_of_whole_numbers_is_refused_at_construction(dims):
    with pytest.raises(ValueError, match=r"^dims=.*: must be distinct whole numbers >= 1"):
        AdaptConfig(dims=dims)
    with pytest.raises(ValueError, match=r"^steps=2.5: must be at least 1, a whole number"):
        AdaptConfig(steps=2.5)
    with pytest.raises(ValueError, match=r"^temperature='0.05': must be > 0"):
        AdaptConfig(temperature="0.05")


@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: type(dims).__name__)
def test_a_loss_and_its_model_are_saved_with_any_dims(dims, make_model, tmp_path):
    model = make_model()
    options = {"reg_dims": np.array([8]), "layers": np.array([1]), "gamma": np.float32(0.5), "t": np.float32(2)}
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), dims, matryoshka_weights=np.array([1.0, 0.5]), **options)
    described = json.loads(json.dumps(loss.get_config_dict()))
    assert described["matryoshka_dims"] == [16, 8]
    assert (described["reg_dims"], described["gamma"], described["t"]) == ({"1": [8]}, 0.5, 2.0)
    paired = MICLoss(model, MultipleNegativesRankingLoss(model), dims, layers={np.int64(1): np.array([8])})
    assert json.loads(json.dumps(paired.get_config_dict()))["reg_dims"] == {"1": [8]}
    mark_matryoshka(model, trained_dims(loss) | {np.int64(4)})
    model.save(str(tmp_path))
    assert marked_dims(SentenceTransformer(str(tmp_path))) == [4, 8, 16, 32]


@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: type(dims).__name__)
def test_results_hold_numbers_not_texts(dims, make_model, make_sentences, tmp_path):
    texts = make_sentences(20, 0)
    task = STSTask("toy", texts[:10], texts[10:], np.arange(10.0))
    rows = evaluate_model(make_model(), [task], dims, method="mic", seed=np.int64(1), n_bootstrap=np.int64(5))
    rows[0]["value"] = np.float32(0.5)
    write_results(tmp_path / "results.json", "toy", {"dims": dims, "path": tmp_path}, rows)
    read = read_results(tmp_path / "results.json")
    assert (rows[0]["dim"], read["rows"][0]["dim"], read["rows"][0]["seed"]) == (8, 8, 1)
    assert read["rows"][0]["value"] == 0.5
    assert read["config"] == {"dims": [8, 16], "path": str(tmp_path)}


@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: type(dims).__name__)
def test_a_geometry_report_is_written_with_any_dims(dims, tmp_path):
    sizes = {"k": np.int64(3), "max_rows": np.int64(100), "max_queries": np.int64(50), "seed": np.int64(1)}
    write_geometry_report(VECTORS, dims, tmp_path, **sizes)
    report = json.loads((tmp_path / "geometry.json").read_text())
    assert [row["dim"] for row in report["rows"]] == [8, 16]
    assert report["settings"] == {"k": 3, "max_rows": 100, "max_queries": 50, "seed": 1}


def test_a_compressor_and_a_code_are_saved_with_any_numbers(tmp_path):
    Compressor.fit(VECTORS, np.int64(4), seed=np.int64(1), config=AdaptConfig(steps=2)).save(tmp_path)
    assert Compressor.load(tmp_path).bytes_per_vector == 4
    for code in (ScalarQuantizer.fit(VECTORS, np.int64(4)), ScalarQuantizer(np.int64(32), np.int64(16))):
        save_quantizer(code, tmp_path / "code.safetensors")
        assert load_quantizer(tmp_path / "code.safetensors").bits == code.bits
