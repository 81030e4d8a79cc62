"""Clinical files that the tests write, each with a patient whose name and number must not come out of it.

Stored numbers are whole, so that what is read can be compared exactly.
"""

import base64
import binascii
import datetime
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from written_records import beats

from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS

NEEDS = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("ecgdatakit", "pydicom", "pyedflib")),
    reason="needs the extras clinical and dev (ecgdatakit, pydicom, pyedflib)",
)
NAME, GIVEN, NUMBER, BORN = "Wunderlich", "Rosalinde", "PAT-4711-XQ", "1950-03-02"
IDENTITY = (NAME, GIVEN, NUMBER, "4711", BORN, "19500302", "1950", NAME.upper(), f"{NAME}^{GIVEN}")
FS = 500
STEP_UV = 2.5


def counts(seconds: float = 4.0, fs_hz: float = FS, leads=STANDARD_LEADS, step_uv: float = STEP_UV) -> np.ndarray:
    """Whole numbers of steps of `step_uv`, shape (T, leads); III, aVR, aVL and aVF follow from I and II within rounding."""
    signal = beats(round(seconds * fs_hz), fs_hz)[:, [STANDARD_LEADS.index(lead) for lead in leads]]
    return np.rint(signal * 1000 / step_uv).astype(np.int64)


# ---- DICOM ----------------------------------------------------------------------------------------------------------

_CODES = {"I": 1, "II": 2, **{f"V{i}": 2 + i for i in range(1, 7)}, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}


def dicom_group(numbers, fs_hz=FS, leads=STANDARD_LEADS, *, unit="uV", sensitivity=STEP_UV, correction=1.0, baseline=0.0,
                label="RHYTHM", originality="ORIGINAL", named=False):  # fmt: skip
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    group = Dataset()
    group.WaveformOriginality, group.MultiplexGroupLabel = originality, label
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = len(leads), len(numbers)
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = fs_hz, 16, "SS"
    group.ChannelDefinitionSequence = Sequence()
    for lead in leads:
        source, units, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator = (f"2:{_CODES[lead]}", "MDC") if not named else ("x", "99")
        source.CodeMeaning = f"Lead {lead} (Einthoven)"
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", "microvolt"
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = Sequence([source]), Sequence([units])
        channel.ChannelSensitivity, channel.ChannelBaseline = sensitivity, baseline
        channel.ChannelSensitivityCorrectionFactor, channel.WaveformBitsStored = correction, 16
        group.ChannelDefinitionSequence.append(channel)
    group.WaveformData = np.asarray(numbers).astype("<i2").tobytes()
    group["WaveformData"].VR = "OW"
    return group


def write_dicom(path: Path, *groups, **facts) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = TwelveLeadECGWaveformStorage, generate_uid()
    meta.TransferSyntaxUID = facts.pop("syntax", ExplicitVRLittleEndian)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{NAME}^{GIVEN}", NUMBER, BORN.replace("-", "")
    dataset.PatientSex, dataset.AcquisitionDateTime = "F", "20200301101112"
    for name, value in facts.items():
        setattr(dataset, name, value)
    dataset.WaveformSequence = Sequence(groups or [dicom_group(counts())])
    dataset.save_as(path, enforce_file_format=True)
    return path


# ---- XML ------------------------------------------------------------------------------------------------------------


def write_aecg(
    path: Path, numbers=None, leads=STANDARD_LEADS, *, increment="0.002", unit="uV", origin="0", more=""
) -> Path:
    numbers = counts() if numbers is None else numbers
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead}" codeSystem="2.16.840.1.113883.6.24"/><value xsi:type="SLIST_PQ">'
        f'<origin value="{origin}" unit="{unit}"/><scale value="{STEP_UV}" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, numbers[:, i].tolist()))}</digits></value></sequence></component>"
        for i, lead in enumerate(leads)
    )
    path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>{more}
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id root="1.2.3"/>
<effectiveTime><low value="20200301101112"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><id extension="{NUMBER}"/>
<subjectDemographicPerson><name>{GIVEN} {NAME}</name><administrativeGenderCode code="F"/><birthTime value="{BORN.replace("-", "")}"/>
</subjectDemographicPerson></trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series><code code="RHYTHM"/><effectiveTime><low value="20200301101112"/></effectiveTime>
<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">
<head value="20200301101112"/><increment value="{increment}" unit="s"/></value></sequence></component>{sequences}
</sequenceSet></component></series></component></AnnotatedECG>""")
    return path


def write_muse(
    path: Path, numbers=None, leads=INDEPENDENT_LEADS, *, fs_hz=FS, unit="MICROVOLTS", age="70", prolog=""
) -> Path:
    numbers = counts(leads=leads) if numbers is None else numbers
    data = ""
    for i, lead in enumerate(leads):
        raw = numbers[:, i].astype("<i2").tobytes()
        data += (
            f"<LeadData><LeadByteCountTotal>{len(raw)}</LeadByteCountTotal><LeadSampleCountTotal>{len(numbers)}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{STEP_UV}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>"
            f"<LeadSampleSize>2</LeadSampleSize><LeadID>{lead}</LeadID><LeadDataCRC32>{binascii.crc32(raw)}</LeadDataCRC32>"
            f"<WaveFormData>{base64.encodebytes(raw).decode()}</WaveFormData></LeadData>"
        )
    median = base64.b64encode(np.full(600, 1234, "<i2").tobytes()).decode()
    medians = "".join(
        f"<LeadData><LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
        f"<LeadSampleSize>2</LeadSampleSize><LeadID>{lead}</LeadID><WaveFormData>{median}</WaveFormData></LeadData>"
        for lead in leads
    )
    path.write_text(f"""<?xml version="1.0" encoding="ISO-8859-1"?>{prolog or '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">'}
<RestingECG><MuseInfo><MuseVersion>8.0</MuseVersion></MuseInfo><PatientDemographics><PatientID>{NUMBER}</PatientID>
<PatientAge>{age}</PatientAge><AgeUnits>YEARS</AgeUnits><DateofBirth>03-02-1950</DateofBirth><Gender>FEMALE</Gender>
<PatientLastName>{NAME.upper()}</PatientLastName><PatientFirstName>{GIVEN}</PatientFirstName></PatientDemographics>
<TestDemographics><AcquisitionDate>03-01-2020</AcquisitionDate><AcquisitionTime>10:11:12</AcquisitionTime></TestDemographics>
<Diagnosis><DiagnosisStatement><StmtText>Sinus rhythm in {GIVEN} {NAME}</StmtText></DiagnosisStatement></Diagnosis>
<Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{medians}</Waveform>
<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{fs_hz}</SampleBase><SampleExponent>0</SampleExponent>{data}</Waveform>
</RestingECG>""")
    return path


def sierra_counts() -> np.ndarray:
    """11 s, of which 10.7 to 10.9 s hold a pulse of 1 mV in every lead."""
    numbers = counts(11.0, step_uv=5.0)
    numbers[round(10.7 * FS) : round(10.9 * FS)] += 200
    return numbers


def write_sierra(path: Path, numbers=None, *, compressed=False, encoding="utf-8", age="70") -> Path:
    numbers = sierra_counts() if numbers is None else numbers
    raw = b"".join(map(_xli_chunk, _residuals(numbers).T)) if compressed else numbers.T.astype("<i2").tobytes()
    how = 'compression="XLI"' if compressed else 'compressflag="False"'
    path.write_text(
        f"""<?xml version="1.0" encoding="{encoding.upper()}"?>
<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>SierraECG</documenttype>
<documentversion>1.03</documentversion></documentinfo><patient><generalpatientdata><patientid>{NUMBER}</patientid><name>
<lastname>{NAME}</lastname><firstname>{GIVEN}</firstname></name><age><dateofbirth>{BORN}</dateofbirth><years>{age}</years></age>
<sex>Female</sex></generalpatientdata></patient><dataacquisition date="2020-03-01" time="10:11:12"><signalcharacteristics>
<samplingrate>{FS}</samplingrate><signalresolution>5</signalresolution><signaloffset>0</signaloffset>
<signalsigned>True</signalsigned><numberchannelsallocated>12</numberchannelsallocated>
<numberchannelsvalid>12</numberchannelsvalid><acquisitiontype>STD-12</acquisitiontype></signalcharacteristics></dataacquisition>
<waveforms><parsedwaveforms dataencoding="Base64" {how} durationperchannel="{len(numbers) * 1000 // FS}">
{base64.encodebytes(raw).decode()}</parsedwaveforms></waveforms></restingecgdata>""",
        encoding=encoding,
    )
    return path


def _residuals(numbers: np.ndarray) -> np.ndarray:
    """III, aVR, aVL and aVF as what I and II do not say of them."""
    i, ii, iii, avr, avl, avf = (numbers[:, k] for k in range(6))
    left = [ii - i - iii, -avr - (i + ii) // 2, (i - iii) // 2 - avl, (ii + iii) // 2 - avf]
    return np.column_stack([i, ii, *left, numbers[:, 6:]])


def _xli_chunk(values: np.ndarray) -> bytes:
    """One lead: second differences, high bytes before low ones, as LZW codes of 10 bits that all are single bytes.

    The decoder's value is 2 v(n-1) - v(n-2) - d(n-1) with d = code - 64, and d of the first such value in the chunk's head.
    """
    wanted = 2 * values[1:-1] - values[:-2] - values[2:]
    codes = np.concatenate([values[:2], wanted[1:] + 64, [64]]).astype(np.int16).view(np.uint16)
    packed = bytes((codes >> 8).astype(np.uint8)) + bytes((codes & 0xFF).astype(np.uint8))
    bits = "".join(f"{byte:010b}" for byte in packed) + f"{1023:010b}"
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<ihh", len(body), 0, int(wanted[0])) + body


# ---- SCP-ECG and EDF ------------------------------------------------------------------------------------------------


def write_scp(path: Path, numbers=None, leads=STANDARD_LEADS, *, huffman=False, ends=None) -> Path:
    numbers = counts() if numbers is None else numbers
    ends = [len(numbers)] * len(leads) if ends is None else ends
    born = struct.pack("<HBB", 1950, 3, 2)
    tags = [
        (0, NAME.encode() + b"\0"),
        (1, GIVEN.encode() + b"\0"),
        (2, NUMBER.encode() + b"\0"),
        (4, struct.pack("<HB", 70, 1)),
    ]
    tags += [(5, born), (8, b"\x02"), (25, struct.pack("<HBB", 2020, 3, 1)), (26, bytes((10, 11, 12)))]
    demographics = b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags) + b"\xff\0\0"
    layout = bytes((len(leads), 0x04 | len(leads) << 3 & 0xFF))
    layout += b"".join(struct.pack("<IIB", 1, end, _CODES[lead]) for lead, end in zip(leads, ends, strict=True))
    coded = [(_huffman(column) if huffman else column.astype("<i2").tobytes()) for column in numbers.T]
    rhythm = struct.pack("<HHBB", round(STEP_UV * 1000), 1_000_000 // FS, 0, 0)
    rhythm += b"".join(struct.pack("<H", len(part)) for part in coded) + b"".join(coded)
    bodies = {1: demographics, **({2: struct.pack("<H", 19999)} if huffman else {}), 3: layout, 6: rhythm}
    pointers, at, sections = b"", 7 + 16 + 10 * 12, b""
    places = {}
    for number, body in bodies.items():
        section = _section(number, body + b"\0" * (len(body) % 2))
        places[number], at, sections = (len(section), at), at + len(section), sections + section
    for number in range(12):
        length, index = (16 + 120, 7) if number == 0 else places.get(number, (0, 0))
        pointers += struct.pack("<HII", number, length, index)
    whole = _section(0, pointers) + sections
    record = struct.pack("<I", len(whole) + 6) + whole
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(record, 0xFFFF)) + record)
    return path


def _section(number: int, body: bytes) -> bytes:
    content = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, b"SCPECG" if number == 0 else b"\0" * 6) + body
    return struct.pack("<H", binascii.crc_hqx(content, 0xFFFF)) + content


def _huffman(values: np.ndarray) -> bytes:
    """The default table: 0, or 9 ones, a 1 and 16 bits."""
    bits = "".join("0" if value == 0 else "1111111111" + f"{value & 0xFFFF:016b}" for value in values.tolist())
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def write_edf(
    path: Path, millivolts=None, leads=STANDARD_LEADS, *, fs_hz=FS, rates=None, plus=True, unit="uV", duration=None
) -> Path:
    """With steps of exactly 1 uV."""
    import pyedflib  # of the development's extra: only EDF is written with it

    millivolts = counts(leads=leads, step_uv=1.0).T if millivolts is None else millivolts
    rates = [fs_hz] * len(leads) if rates is None else rates
    kind = pyedflib.FILETYPE_EDFPLUS if plus else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), len(leads), file_type=kind) as writer:
        writer.setPatientName(f"{GIVEN}_{NAME}")
        writer.setPatientCode(NUMBER)
        writer.setSex("Female")
        writer.setBirthdate(datetime.date(1950, 3, 2))
        writer.setStartdatetime(datetime.datetime(2020, 3, 1, 10, 11, 12))
        if duration is not None:
            writer.setDatarecordDuration(duration)
        for index, (lead, rate) in enumerate(zip(leads, rates, strict=True)):
            limits = {"physical_min": -32768, "physical_max": 32767, "digital_min": -32768, "digital_max": 32767}
            writer.setSignalHeader(index, {"label": f"ECG {lead}", "dimension": unit, "sample_frequency": rate, "transducer": "",
                                           "prefilter": "", **limits})  # fmt: skip
        writer.writeSamples([np.ascontiguousarray(column, dtype=np.int32) for column in millivolts], digital=True)
    return path


WRITERS = {
    "DICOM": write_dicom,
    "HL7 aECG": write_aecg,
    "GE MUSE XML": write_muse,
    "Philips Sierra XML": write_sierra,
    "SCP-ECG": write_scp,
    "EDF": write_edf,
}
