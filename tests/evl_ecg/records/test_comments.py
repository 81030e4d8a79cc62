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
