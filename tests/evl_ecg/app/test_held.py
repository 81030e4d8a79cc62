"""What visitors have loaded is bounded in bytes and time."""

import numpy as np
from PIL import Image

from hf_evl_ecg.app.held import HeldECGs, Loaded
from hf_evl_ecg.app.uploads import GivenECG
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS


def picture(side: int) -> Loaded:
    return Loaded(GivenECG("scan.png", Image.new("RGB", (side, side))), "")


def test_bytes_are_those_of_pixels_samples_and_page():
    assert picture(100).n_bytes() == 30_000
    signal = np.zeros((500, 12), np.float32)
    given = GivenECG("r", ECG(signal, 100.0, STANDARD_LEADS))
    assert Loaded(given, "four", ["and", "six"], "more").n_bytes() == signal.nbytes + 14


def test_the_longest_unused_go_first():
    held = HeldECGs(max_bytes=3 * 30_000)
    keys = [held.keep(picture(100)) for _ in range(3)]
    assert held.get(keys[0]) is not None  # so the second is now unused for longest
    last = held.keep(picture(100))
    assert [held.get(key) is not None for key in (*keys, last)] == [True, False, True, True]
    assert held.total_bytes() == 3 * 30_000


def test_a_large_one_is_held_alone():
    held = HeldECGs(max_bytes=1)
    first = held.keep(picture(100))
    second = held.keep(picture(200))
    assert held.get(first) is None
    assert held.get(second) is not None


def test_each_goes_after_its_time():
    now = [0.0]
    held = HeldECGs(10**6, max_age_s=60, clock=lambda: now[0])
    key = held.keep(picture(100))
    now[0] = 60
    assert held.get(key) is not None
    now[0] = 61
    assert held.get(key) is None
    assert held.total_bytes() == 0


def test_keys_are_of_no_use_to_others():
    held = HeldECGs(10**6)
    keys = {held.keep(picture(10)) for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 22
    held.drop(None)
    held.drop("unknown")
    assert held.get(None) is None
    assert held.get("unknown") is None
    one = keys.pop()
    held.drop(one)
    assert held.get(one) is None
    assert held.total_bytes() == 99 * 300
