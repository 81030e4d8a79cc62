"""Sizes are checked before room is taken; XML expands nothing and fetches nothing."""

import base64
import struct
import tracemalloc

import clinical_files as files
import numpy as np
import pytest

from hf_evl_ecg.clinical import kit
from hf_evl_ecg.clinical.xml_limits import check_sierra
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record

pytestmark = files.NEEDS
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
PARAMETER = '<!DOCTYPE x [<!ENTITY % more SYSTEM "http://localhost:9/x.dtd"> %more;]>'


def refused(path, field):
    """Reading is refused for this field without a hundred megabytes on the way."""
    tracemalloc.start()
    with pytest.raises(ECGRecordError) as caught:
        read_record(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.field == field
    assert peak < 100e6
    return caught.value


@pytest.mark.parametrize("prolog", [LAUGHS, OUTSIDE, PARAMETER], ids=["expansion", "file", "network"])
@pytest.mark.parametrize("write", [files.write_aecg, files.write_muse], ids=["aECG", "MUSE"])
def test_entities_are_refused(write, prolog, tmp_path):
    name = "more" if write is files.write_aecg else "prolog"
    assert refused(write(tmp_path / "a", **{name: prolog}), "XML").value == "a declaration of entities"


def test_entities_of_sierra_are_refused(tmp_path):
    path = files.write_sierra(tmp_path / "a")
    path.write_text(path.read_text().replace("?>", f"?>{LAUGHS}", 1))
    refused(path, "XML")


def test_deep_and_wide_trees_are_refused(tmp_path):
    path = files.write_aecg(tmp_path / "a", more="")
    text = path.read_text()
    path.write_text(text.replace("</AnnotatedECG>", "<a>" * 100 + "</a>" * 100 + "</AnnotatedECG>"))
    assert "at most" in refused(path, "XML").allowed


@pytest.mark.parametrize(
    ("write", "kind"), [(files.write_muse, "GE MUSE XML"), (files.write_scp, "SCP-ECG"), (files.write_edf, "EDF")]
)
def test_large_files_are_refused_before_they_are_read(write, kind, tmp_path, monkeypatch):
    path = write(tmp_path / "a")
    small = {name: form._replace(largest=10_000) for name, form in kit._FORMATS.items()}
    monkeypatch.setattr(kit, "_FORMATS", small)
    error = refused(path, "file size")
    assert error.value == path.stat().st_size
    assert error.allowed == f"at most 10000 bytes for {kind}; export a shorter part, or convert it to WFDB"


def test_scp_states_more_samples_than_it_has_bits(tmp_path):
    path = files.write_scp(tmp_path / "a", huffman=True, ends=[2**32 - 1] * 12)
    assert refused(path, "samples of a lead").value == 2**32 - 1


def test_sierra_that_unpacks_to_gigabytes_is_refused_before(tmp_path):
    """A hundred kilobytes of one code that stands for 767 bytes."""
    words = [0, *range(256, 1022), *[1021] * 700_000, 1023]
    bits = np.unpackbits(np.array(words, ">u2").view(np.uint8)).reshape(-1, 16)[:, 6:].ravel()
    body = np.packbits(bits).tobytes()
    packed = base64.b64encode(struct.pack("<ihh", len(body), 0, 0) + body)
    data = b'<parsedwaveforms compression="XLI" dataencoding="Base64">' + packed + b"</parsedwaveforms>"
    with pytest.raises(ECGRecordError) as caught:
        check_sierra(tmp_path / "a", "Philips Sierra XML", data)
    assert caught.value.value == (sum(range(1, 768)) + 700_000 * 767) // 2
    assert caught.value.allowed == "at most 4000000 of all compressed leads"


def test_edf_states_numbers_that_no_recorder_writes(tmp_path):
    path = files.write_edf(tmp_path / "a")
    whole = path.read_bytes()
    for at, text, field in (
        (252, b"9999", "number of signals"),
        (236, b"-7      ", "number of data records"),
        (236, b"x       ", None),
    ):
        path.write_bytes(whole[:at] + text + whole[at + len(text) :])
        assert refused(path, field or "number of data records").value == text.decode().strip()


@pytest.mark.parametrize(
    "text", ["99999999999", "<![CDATA[99999999999]]>", "9999999<!-- -->9999", "&#57;9999999999", "1e11"], ids=repr
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "unknown"])
def test_sierra_states_more_leads_than_any_device_has(text, encoding, tmp_path):
    """Of 12 channels 99,999,999,999 were named before, in 12 GB."""
    path = files.write_sierra(tmp_path / "a", encoding="utf-16" if encoding == "utf-16" else "utf-8")
    kept = "utf-16" if encoding == "utf-16" else "utf-8"
    changed = path.read_text(encoding=kept).replace(
        ">12</numberchannelsallocated>", f">{text}</numberchannelsallocated>"
    )
    path.write_text(changed.replace('"UTF-8"', '"x-unknown"') if encoding == "unknown" else changed, encoding=kept)
    assert refused(path, "numberchannelsallocated").allowed == "at most 1024 leads"


def test_sierra_with_a_label_a_byte_is_refused(tmp_path):
    path = files.write_sierra(tmp_path / "a")
    path.write_text(path.read_text().replace("<parsedwaveforms ", f'<parsedwaveforms leadlabels="{"I " * 2000}" '))
    assert refused(path, "leadlabels").value == "2000"


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-8", "latin-1"])
def test_text_in_another_encoding_is_looked_through_as_it_is_read(encoding, tmp_path):
    """Names with umlauts in files that state the wrong encoding are read; entities in them are refused all the same."""
    path = files.write_aecg(tmp_path / "a")
    named = path.read_text().replace('encoding="UTF-8"', f'encoding="{encoding}"').replace("<name>", "<name>Müller ")
    path.write_bytes(named.encode("latin-1"))
    assert len(read_record(path)) == 2000
    path.write_bytes(named.replace("?>", f"?>{LAUGHS}", 1).encode("latin-1"))
    refused(path, "XML")
