# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-mic-evl-ecg[ecg,vlm]"]
# ///
r"""Distil on a GPU of the Hub with one command, nothing installed here; the same as `hf-evl-ecg job`.

    hf jobs uv run --flavor a100-large --timeout 24h --secrets HF_TOKEN examples/evl_ecg/job.py study.yaml \
        --records your-name/ecg-records --convert PULSE-ECG/PULSE-7B --student evl_ecg_0 \
        --repo_id your-name/ecg-student --card card.yaml

study.yaml and card.yaml lie in the data set repository beside the waveforms, as a job starts without files. The comment above names what uv
installs first; until the package is on PyPI, put the address of a wheel or a git repository there ("hf-mic-evl-ecg[ecg,vlm] @ git+https://…").
On a machine of one's own: python examples/evl_ecg/job.py with the same options, or --data_dir instead of --records. Try --smoke --dry_run
first: it runs every stage on a few simulated records and sends nothing.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["job", *sys.argv[1:]]))
