"""Limb leads whose size was lost in z-scores get it back."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from hf_evl_ecg.data.zscored import restore_millivolts
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.signals.simulation import simulate


def test_limb_ratios_come_back_from_z_scores():
    for seed, label in enumerate(CPSC_CLASSES):
        signal = simulate(label, seed=seed, fs_hz=100).signal_mv.astype(np.float64)
        signal = sosfiltfilt(butter(3, [0.5, 40], "bandpass", fs=100, output="sos"), signal, axis=0)
        restored, solved = restore_millivolts(signal / signal.std(0))
        assert solved, label
        ratio = restored.std(0)[:6] / signal.std(0)[:6]
        assert ratio.max() / ratio.min() < 1.01
    noise = np.random.default_rng(0).normal(size=(1000, 12))
    assert not restore_millivolts(noise)[1]
    with pytest.raises(ValueError, match="shape"):
        restore_millivolts(noise[:, :8])
