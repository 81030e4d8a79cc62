"""What a header's comments say of the patient."""

from written_records import write

from hf_evl_ecg.records.comments import read_comments
from hf_evl_ecg.records.reader import read_record


def test_comments_diagnoses_and_person(tmp_path):
    record = write(tmp_path, comments=["Age: 74", "Sex: Female", "Dx: 164889003,59118001", "Rx: Unknown"])
    ecg = read_record(record)
    assert ecg.diagnoses == ("164889003", "59118001")
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == (74.0, "female")
    assert ecg.comments[0] == "Age: 74"
    assert ecg.record_name == "r"
    assert read_comments(["Age: NaN", "Sex: Unknown"]) == (None, None, ())
    assert read_comments(["<age>: 5", "<diagnoses>:", "Rhythm: Sinus rhythm.", "LVH."]) == (
        5.0,
        None,
        ("Rhythm: Sinus rhythm.", "LVH."),
    )


def test_an_age_over_89_is_no_300_years(tmp_path):
    """PTB-XL writes 300 for "over 89", and the Challenge copies it; 999 and -1 are other ways to say unknown."""
    ecg = read_record(write(tmp_path, comments=["Age: 300"]))
    assert (ecg.metadata["age"], ecg.metadata["age_note"]) == (90.0, "over 89, or 90")
    stated = {"89": 89.0, "90": 90.0, "300": 90.0, "300.0": 90.0, "299": None, "999": None, "122": 122.0, "123": None}
    assert {text: read_comments([f"Age: {text}"]).age for text in stated} == stated
    assert "age_note" not in read_record(write(tmp_path, comments=["Age: 89"])).metadata
