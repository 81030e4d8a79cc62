"""Encoders that do not load are one typed error."""

import pytest

from hf_mic.evaluation.loading import EncoderLoadError, load_encoder


def test_models_that_do_not_load(tmp_path):
    for name in (str(tmp_path), str(tmp_path / "none" / "such" / "folder"), "no_such_organisation/no_such_model"):
        with pytest.raises(EncoderLoadError, match="No sentence-transformers model"):
            load_encoder(name, device="cpu")
