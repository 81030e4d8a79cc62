"""Simulated ECGs show what their class means, measured on the signal itself, and their truth is true."""

import itertools
import pickle

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt

from hf_evl_ecg.signals.ecg import STANDARD_LEADS, einthoven_error_mv
from hf_evl_ecg.signals.heart_vector import DOWER, Wave, add_plateau, fit_to_span, leads_from_vcg, span
from hf_evl_ecg.signals.simulation import LABELS, SimulationConfig, simulate

QUIET = SimulationConfig(wander_mv=0, mains_mv=0, muscle_mv=0)
SEEDS = range(6)
INDEPENDENT = [STANDARD_LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


def quiet(label, seed, **kwargs):
    return simulate(label, seed=seed, config=QUIET, **kwargs)


def conducted_onsets(ecg, kind="N", before_s=0.4, after_s=0.7):
    """QRS onsets of one kind of beat that lie well inside the record (s)."""
    return [time for time, k in ecg.metadata["beats"] if k == kind and before_s < time < ecg.duration_s - after_s]


def median_beat(ecg, onsets, before_s, after_s):
    """Median over beats of a quiet record. Shape: (samples, 12), mV; time 0 at index before_s · fs."""
    begin, end = round(-before_s * ecg.fs_hz), round(after_s * ecg.fs_hz)
    cut = [ecg.signal_mv[round(t * ecg.fs_hz) + begin : round(t * ecg.fs_hz) + end] for t in onsets]
    return np.median(np.stack(cut), axis=0)


def energy(signal, fs_hz):
    """Length of the slope over the eight independent leads (mV/s)."""
    return np.linalg.norm(np.gradient(signal[:, INDEPENDENT], 1 / fs_hz, axis=0), axis=1)


def measured_qrs_ms(ecg, kind="N"):
    """From the first to the last time in a beat's first 240 ms at which the slope exceeds 15 % of its maximum: a Gaussian's slope has
    fallen to a fifth of its maximum where the Gaussian itself has fallen to 5 %."""
    widths = []
    for onset in conducted_onsets(ecg, kind):
        begin = round((onset - 0.03) * ecg.fs_hz)
        slope = energy(ecg.signal_mv[begin : begin + round(0.25 * ecg.fs_hz)], ecg.fs_hz)
        above = np.flatnonzero(slope > 0.15 * slope.max())
        widths.append((above[-1] - above[0]) * 1000 / ecg.fs_hz)
    return float(np.median(widths))


def r_times_s(ecg):
    """QRS complexes by peaks of the power between 10 and 25 Hz, without the truth (s)."""
    band = butter(2, (10, 25), "bandpass", fs=ecg.fs_hz, output="sos")
    length = np.linalg.norm(sosfiltfilt(band, ecg.signal_mv[:, INDEPENDENT].astype(float), axis=0), axis=1)
    smooth = np.convolve(length, np.ones(round(0.1 * ecg.fs_hz)), "same")
    peaks, _ = find_peaks(smooth, height=0.2 * np.percentile(smooth, 98), distance=round(0.28 * ecg.fs_hz))
    return peaks / ecg.fs_hz


def lead(name):
    return STANDARD_LEADS.index(name)


@pytest.mark.parametrize("label", LABELS)
def test_limb_leads_hold_exactly(label):
    ecg = simulate(label, seed=5)
    np.testing.assert_array_equal(ecg.lead("III"), ecg.lead("II") - ecg.lead("I"))
    np.testing.assert_array_equal(ecg.lead("aVR"), -(ecg.lead("I") + ecg.lead("II")) / 2)
    assert einthoven_error_mv(ecg) < 1e-6


@pytest.mark.parametrize("label", LABELS)
def test_same_seed_same_record_and_other_seed_another(label):
    a, b, c = simulate(label, seed=1), simulate(label, seed=1), simulate(label, seed=2)
    np.testing.assert_array_equal(a.signal_mv, b.signal_mv)
    assert dict(a.metadata) == dict(b.metadata)
    assert np.abs(a.signal_mv - c.signal_mv).max() > 0.2


@pytest.mark.parametrize("label", LABELS)
def test_record_says_that_it_is_simulated_and_of_what(label):
    ecg = simulate(label, seed=3, fs_hz=250.0, duration_s=7.0)
    assert ecg.metadata["simulated"] is True
    assert ecg.diagnoses == (label,)
    assert "simulated" in ecg.record_name
    assert "not a patient" in ecg.comments[0]
    assert ecg.signal_mv.shape == (1750, 12)
    assert ecg.fs_hz == 250.0
    assert np.abs(ecg.signal_mv).max() < 5
    assert pickle.loads(pickle.dumps(ecg)).metadata["beats"] == ecg.metadata["beats"]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_rate_is_what_a_peak_detector_counts(label, seed):
    ecg = quiet(label, seed)
    found = r_times_s(ecg)
    counted = 60 * (len(found) - 1) / (found[-1] - found[0])
    assert counted == pytest.approx(ecg.metadata["heart_rate_bpm"], rel=0.06)
    low, high = (50, 155) if label == "AF" else (45, 108)
    assert low < ecg.metadata["heart_rate_bpm"] < high


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_qrs_is_as_wide_as_stated(label, seed):
    ecg = quiet(label, seed)
    assert measured_qrs_ms(ecg) == pytest.approx(ecg.metadata["qrs_ms"], abs=14)
    assert (ecg.metadata["qrs_ms"] >= 120) == (label in ("LBBB", "RBBB"))


@pytest.mark.parametrize("label", [label for label in LABELS if label != "AF"])
@pytest.mark.parametrize("seed", SEEDS)
def test_pr_interval_is_as_long_as_stated(label, seed):
    """P onset: where the slope before QRS first exceeds 8 % of the P wave's largest, after the flat TP segment."""
    ecg = quiet(label, seed)
    stated = ecg.metadata["pr_ms"]
    assert (stated > 200) == (label == "I-AVB")
    reach = stated / 1000 + 0.015
    slope = energy(median_beat(ecg, conducted_onsets(ecg, before_s=0.5), reach, 0.0), ecg.fs_hz)[:-10]
    onset = np.flatnonzero(slope > 0.08 * slope.max())[0] / ecg.fs_hz
    assert 1000 * (reach - onset) == pytest.approx(stated, abs=16)


@pytest.mark.parametrize("label", ["NORM", "I-AVB", "LBBB", "RBBB"])
@pytest.mark.parametrize("seed", SEEDS)
def test_t_wave_ends_with_qt(label, seed):
    ecg = quiet(label, seed)
    qt = ecg.metadata["qt_ms"] / 1000
    beat = median_beat(ecg, conducted_onsets(ecg), 0.01, qt + 0.1)
    vector = beat[:, INDEPENDENT] @ np.linalg.pinv(DOWER).T
    length = np.linalg.norm(vector[round((qt - 0.12) * 500) + 5 :], axis=1)
    end = np.flatnonzero(length > 0.05 * length.max())[-1] / 500 + qt - 0.12
    room = 60 / ecg.metadata["heart_rate_bpm"] - ecg.metadata["pr_ms"] / 1000
    if room > qt + 0.1:  # else the next P wave lies in the window
        assert 1000 * end == pytest.approx(1000 * qt, abs=15)
    assert 0.3 < qt / (60 / ecg.metadata["heart_rate_bpm"]) ** (1 / 3) < 0.55


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_axis_follows_from_leads_i_and_avf(label, seed):
    ecg = quiet(label, seed)
    qrs = round(ecg.metadata["qrs_ms"] / 1000 * 500)
    area = median_beat(ecg, conducted_onsets(ecg), 0.01, 0.3)[5 : 5 + qrs].sum(axis=0)
    measured = np.degrees(np.arctan2(area[lead("aVF")] * 2 / np.sqrt(3), area[lead("I")]))
    difference = (measured - ecg.metadata["axis_deg"] + 180) % 360 - 180
    assert abs(difference) < (20 if label in ("AF", "STE", "STD") else 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_atrial_fibrillation_is_irregular_without_p_and_fibrillates(seed):
    af, normal = quiet("AF", seed), quiet("NORM", seed)
    spread = {
        ecg.metadata["label"]: np.std(rr) / np.mean(rr) for ecg in (af, normal) for rr in [np.diff(r_times_s(ecg))]
    }
    assert spread["AF"] > 0.1
    assert spread["NORM"] < 0.05
    assert af.metadata["pr_ms"] is None
    rests = [
        (s + af.metadata["qt_ms"] / 1000 + 0.02, t - 0.02)
        for (s, _), (t, _) in itertools.pairwise(af.metadata["beats"])
    ]
    parts = [af.lead("V1")[round(s * 500) : round(t * 500)] for s, t in rests if t - s > 0.08]
    assert np.mean([np.ptp(part) for part in parts]) > 0.05, "no fibrillatory waves between T and QRS"
    frequency = np.fft.rfftfreq(5000, 1 / 500)
    power = np.abs(np.fft.rfft(_without_beats(af))) ** 2
    assert 3.5 < frequency[1:][power[1:].argmax()] < 10


def _without_beats(ecg):
    """V1 with everything from QRS onset to the end of T set to zero."""
    signal = ecg.lead("V1").astype(float).copy()
    for time, _ in ecg.metadata["beats"]:
        signal[max(0, round((time - 0.02) * 500)) : round((time + ecg.metadata["qt_ms"] / 1000 + 0.03) * 500)] = 0
    return signal


@pytest.mark.parametrize("seed", SEEDS)
def test_left_bundle_branch_block(seed):
    """Wide; V1 negative without a terminal r; V6 and I upright without q, V6 notched; T opposite to QRS."""
    ecg = quiet("LBBB", seed)
    qrs = round(ecg.metadata["qrs_ms"] / 2) + 5
    beat = median_beat(ecg, conducted_onsets(ecg), 0.01, 0.45)
    v1, v6, first = beat[:qrs, lead("V1")], beat[:qrs, lead("V6")], beat[:qrs, lead("I")]
    assert v1.min() < -0.5
    assert v1.max() < 0.1 * -v1.min()
    assert v6.max() > 0.4
    assert v6.min() > -0.1 * v6.max()
    assert first.sum() > 0
    notches = find_peaks(-v6[(v6 > 0.4 * v6.max()).argmax() :], prominence=0.02)[0]
    bent = find_peaks(-np.abs(np.diff(v6)), prominence=0.002)[0]
    assert len(notches) or len(bent) > 1, "V6 is neither notched nor slurred"
    t_peak = beat[round(0.16 * 500) + 5 :]
    assert t_peak[:, lead("V1")].max() > 0.1
    assert t_peak[:, lead("V6")].min() < -0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_right_bundle_branch_block(seed):
    """Wide; V1 r, s, R′ in this order with T negative; V6 and I end in an S of at least 40 ms."""
    ecg = quiet("RBBB", seed)
    qrs = round(ecg.metadata["qrs_ms"] / 2) + 5
    beat = median_beat(ecg, conducted_onsets(ecg), 0.01, 0.45)
    v1 = beat[:qrs, lead("V1")]
    deep = int(v1.argmin())
    assert v1[:deep].max() > 0.05
    assert v1[deep] < -0.1
    assert v1[deep:].max() > 0.3
    for name in ("I", "V6"):
        trace = beat[:qrs, lead(name)]
        terminal = trace[int(trace.argmax()) :]
        assert terminal.min() < -0.1, name
        assert (terminal < 0.2 * terminal.min()).sum() * 2 >= 40, name
    assert beat[round(0.25 * 500) :, lead("V1")].min() < -0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_first_degree_block_conducts_every_p_late(seed):
    ecg = quiet("I-AVB", seed)
    pr = ecg.metadata["pr_ms"] / 1000
    beat = median_beat(ecg, conducted_onsets(ecg, before_s=0.5), pr, 0.0)[:, lead("II")]
    p_peak = beat[: round(0.13 * 500)].argmax() / 500
    assert 0.02 < p_peak < 0.1
    assert np.ptp(beat[round(0.14 * 500) :]) < 0.03, "the PR segment should be flat"


def _around_premature(ecg, kind):
    """Coupling and pause around each premature beat, and the sinus interval before it (s)."""
    beats = ecg.metadata["beats"]
    for (t0, k0), (t1, k1), (t2, k2), (t3, k3) in zip(beats, beats[1:], beats[2:], beats[3:], strict=False):
        if (k0, k1, k2, k3) == ("N", "N", kind, "N"):
            yield t2 - t1, t3 - t2, t1 - t0


@pytest.mark.parametrize("seed", SEEDS)
def test_atrial_premature_beats(seed):
    ecg = quiet("PAC", seed)
    around = list(_around_premature(ecg, "A"))
    assert around
    for coupling, pause, sinus in around:
        assert coupling < 0.87 * sinus
        assert coupling + pause < 1.97 * sinus, "the pause is compensatory"
    narrow = measured_qrs_ms(ecg, "A")
    assert narrow == pytest.approx(measured_qrs_ms(ecg), abs=8)
    onsets = conducted_onsets(ecg, "A")
    p = median_beat(ecg, onsets, 0.115, 0.0)[:, [lead("II"), lead("V1"), lead("aVF")]]
    assert np.ptp(p, axis=0).max() > 0.04, "no P wave before the premature beat"


@pytest.mark.parametrize("seed", SEEDS)
def test_ventricular_premature_beats(seed):
    ecg = quiet("PVC", seed)
    around = list(_around_premature(ecg, "V"))
    assert around
    for coupling, pause, sinus in around:
        assert coupling < 0.87 * sinus
        assert coupling + pause == pytest.approx(2 * sinus, rel=0.09)
    assert measured_qrs_ms(ecg, "V") > 120
    assert measured_qrs_ms(ecg, "V") == pytest.approx(ecg.metadata["ectopic_qrs_ms"], abs=20)
    beat = median_beat(ecg, conducted_onsets(ecg, "V"), 0.05, 0.45)[:, INDEPENDENT]
    width = round(ecg.metadata["ectopic_qrs_ms"] / 2) + 25
    main = beat[:width][np.linalg.norm(beat[:width], axis=1).argmax()]
    t_wave = beat[width + 40 :][np.linalg.norm(beat[width + 40 :], axis=1).argmax()]
    assert main @ t_wave < -0.7 * np.linalg.norm(main) * np.linalg.norm(t_wave), "T should oppose QRS"


def st_level(ecg):
    """Level 60 ms after QRS relative to the end of the PR segment, by lead (mV)."""
    at = ecg.metadata["qrs_ms"] / 1000 + 0.06
    beat = median_beat(ecg, conducted_onsets(ecg), 0.02, at + 0.02)
    return dict(zip(STANDARD_LEADS, beat[round((0.02 + at) * 500) - 1], strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_st_elevation_by_territory_with_reciprocal_depression(seed):
    ecg = quiet("STE", seed)
    level = st_level(ecg)
    groups = {"inferior": ("II", "III", "aVF"), "anterior": ("V2", "V3"), "lateral": ("I", "aVL", "V5", "V6")}
    group = groups[ecg.metadata["territory"]]
    assert min(level[name] for name in group) > 0.1
    if ecg.metadata["territory"] == "inferior":
        assert level["aVL"] < -0.05
    if ecg.metadata["territory"] == "lateral":
        assert level["III"] < -0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_st_depression_with_elevation_in_avr(seed):
    level = st_level(quiet("STD", seed))
    assert sum(level[name] < -0.1 for name in ("V4", "V5", "V6", "I", "II")) >= 2
    assert level["V5"] < -0.1
    assert level["aVR"] > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_st_is_flat_and_r_grows_over_the_chest(seed):
    ecg = quiet("NORM", seed)
    assert max(map(abs, st_level(ecg).values())) < 0.09
    beat = median_beat(ecg, conducted_onsets(ecg), 0.01, 0.12)
    assert beat[:, lead("V1")].sum() < 0 < beat[:, lead("V6")].sum()
    assert beat[:, lead("V4")].max() > beat[:, lead("V1")].max()
    assert beat[:, lead("aVR")].sum() < 0


def test_all_territories_and_origins_occur():
    seen = {
        (label, simulate(label, seed=seed).metadata["territory"])
        for label in ("STE", "STD", "PVC")
        for seed in range(30)
    }
    assert len(seen) == 3 + 2 + 4


def test_noise_changes_no_heart_and_has_the_stated_size():
    for seed in range(3):
        noisy, still = simulate("RBBB", seed=seed), quiet("RBBB", seed)
        assert {k: noisy.metadata[k] for k in ("beats", "qrs_ms", "axis_deg")} == {
            k: still.metadata[k] for k in ("beats", "qrs_ms", "axis_deg")
        }
        noise = (noisy.signal_mv - still.signal_mv).astype(float)
        drawn, spectrum = noisy.metadata["noise"], np.abs(np.fft.rfft(noise, axis=0)) / 2500
        frequency = np.fft.rfftfreq(5000, 1 / 500)
        slow = np.sqrt((spectrum[frequency < 1.5] ** 2).sum(axis=0) / 2)
        assert 0.3 * drawn["wander_mv"] < slow.mean() < 2.5 * drawn["wander_mv"]
        fast = np.sqrt((spectrum[(frequency > 55) & (frequency < 150)] ** 2).sum(axis=0) / 2)
        assert fast[lead("V3")] == pytest.approx(drawn["muscle_mv"] * np.sqrt(95 / 130 * 4 / 3), rel=0.15)
        for name, limit in (("wander_mv", 0.06), ("mains_mv", 0.008), ("muscle_mv", 0.012)):
            assert 0.2 * limit <= drawn[name] <= limit


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_mains_hum_at_its_frequency(mains_hz):
    loud = SimulationConfig(wander_mv=0, muscle_mv=0, mains_mv=0.05, mains_hz=mains_hz)
    noise = simulate("NORM", seed=0, config=loud).signal_mv - quiet("NORM", 0).signal_mv
    peak = np.abs(np.fft.rfft(noise[:, lead("V2")])).argmax()
    assert np.fft.rfftfreq(5000, 1 / 500)[peak] == pytest.approx(mains_hz)


def test_configured_rate_axis_and_size_take_effect():
    fast = simulate("NORM", seed=0, config=SimulationConfig(heart_rate_bpm=(119, 121)))
    assert fast.metadata["heart_rate_bpm"] == pytest.approx(120, rel=0.05)
    axes = {
        spread: np.std(
            [
                simulate("NORM", seed=s, config=SimulationConfig(axis_spread_deg=spread)).metadata["axis_deg"]
                for s in range(12)
            ]
        )
        for spread in (0.0, 60.0)
    }
    assert axes[60.0] > 2 * axes[0.0]
    sizes = {
        spread: np.std(
            [
                np.abs(simulate("NORM", seed=s, config=SimulationConfig(size_spread=spread)).signal_mv).max()
                for s in range(12)
            ]
        )
        for spread in (0.0, 0.8)
    }
    assert sizes[0.8] > 1.5 * sizes[0.0]


def test_sampling_rate_does_not_change_the_heart():
    np.testing.assert_allclose(quiet("STE", 1, fs_hz=1000.0).signal_mv[::2], quiet("STE", 1).signal_mv, atol=1e-5)


def test_dower_and_einthoven():
    leads = leads_from_vcg(np.eye(3))
    np.testing.assert_allclose(leads[:, [lead("V2")]].T, [[0.044, 0.164, -1.387]], atol=1e-6)
    np.testing.assert_allclose(leads[:, lead("aVF")], DOWER[1] - DOWER[0] / 2, atol=1e-6)
    electrodes = np.zeros((1, 9))
    electrodes[0, 0] = 0.3  # right arm
    moved = leads_from_vcg(np.zeros((1, 3)), electrodes)[0]
    np.testing.assert_allclose(moved[:6], [-0.3, -0.3, 0, 0.3, -0.15, -0.15], atol=1e-6)
    np.testing.assert_allclose(moved[6:], -0.1, atol=1e-6)


def test_waves_fit_their_span():
    waves = (Wave(0.3, 0.05, 0.1, (1.0, 0, 0)), Wave(0.7, 0.1, 0.08, (0, 0.5, -0.5)))
    np.testing.assert_allclose(span(fit_to_span(waves, 0.1, 0.25)), (0.1, 0.25), atol=1e-4)
    with pytest.raises(ValueError, match="beyond"):
        span((Wave(0.5, 5.0, 5.0, (1.0, 0, 0)),))


def test_plateau_is_level_between_its_edges():
    vcg = np.zeros((500, 3))
    add_plateau(vcg, 500.0, 0.3, 0.7, (0.2, 0.0, -0.1))
    np.testing.assert_allclose(vcg[180:280], [[0.2, 0.0, -0.1]] * 100, atol=1e-3)
    np.testing.assert_allclose(vcg[150], [0.1, 0.0, -0.05], atol=1e-6)
    assert not vcg[:100].any()


def features(ecg):
    """What a reader looks at, from the noisy signal alone: rhythm, P, QRS and ST."""
    times = r_times_s(ecg)
    rr = np.diff(times)
    smooth = np.apply_along_axis(np.convolve, 0, ecg.signal_mv.astype(float), np.ones(9) / 9, "same")
    cuts = [smooth[round((t - 0.4) * 500) : round((t + 0.5) * 500)] for t in times if 0.4 < t < ecg.duration_s - 0.5]
    beat = np.median(np.stack(cuts), axis=0)
    beat = beat - np.median(beat[150:165], axis=0)
    slope = energy(beat, 500)[150:290]
    wide = (slope > 0.15 * slope.max()).sum()
    p = energy(beat, 500)[20:150]
    odd = max(np.linalg.norm(cut - beat, axis=1)[160:260].max() for cut in cuts)
    return np.array([
        rr.std() / rr.mean(), rr.min() / np.median(rr), wide, p.argmax(), p.max(), odd,
        *beat[255, [0, 2, 4, 6, 7, 10]], *beat[205:240].mean(axis=0)[[0, 6, 10, 11]],
    ])  # fmt: skip


def test_classes_are_told_apart_by_nearest_neighbours():
    """Leave-one-out, five neighbours, 24 noisy records per class: at least 75 % right where chance is 11 %."""
    truth = np.repeat(np.arange(len(LABELS)), 24)
    table = np.stack([features(simulate(label, seed=seed)) for label in LABELS for seed in range(100, 124)])
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    distance = np.linalg.norm(table[:, None] - table[None], axis=2) + np.diag(np.full(len(table), np.inf))
    nearest = truth[np.argsort(distance, axis=1)[:, :5]]
    voted = np.array([np.bincount(row, minlength=len(LABELS)).argmax() for row in nearest])
    assert (voted == truth).mean() > 0.75


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"label": "VF"}, "label='VF': allowed are 'NORM', 'AF'"),
        ({"seed": -1}, "seed=-1"),
        ({"fs_hz": 50.0}, "fs_hz=50.0"),
        ({"duration_s": 1.0}, "duration_s=1.0"),
        ({"duration_s": float("nan")}, "duration_s=nan"),
    ],
)
def test_bad_request_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"label": "NORM", "seed": 0, **kwargs})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"heart_rate_bpm": (90, 60)},
        {"heart_rate_bpm": (10, 60)},
        {"mains_hz": 55.0},
        {"wander_mv": -0.1},
        {"size_spread": 1.0},
        {"muscle_mv": float("nan")},
    ],
)
def test_bad_configuration_is_refused(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        SimulationConfig(**kwargs)
