r"""Code more vectors than one machine holds: parquet files in, parquet files out, by every worker of a Ray cluster.

    pip install 'hf-mic-evl-ecg[mic,ray]'
    hf-mic adapt sample.npy --bytes 8 --output_dir outputs/index8
    python examples/mic/code_with_ray.py s3://bucket/vectors outputs/index8 s3://bucket/codes

The files need a column `embedding`; all others, such as an id, are handed on, because rows come out in any order. Without a running
cluster (RAY_ADDRESS) one is started on this machine.
"""

import argparse

from hf_mic import Compressor


def main(vectors: str, compressor: str, output: str) -> None:
    """Write the codes of all vectors."""
    import ray  # --help answers without it

    coder = Compressor.load(compressor)
    ray.init(ignore_reinit_error=True)
    # float32 rows of width 384 are 1.5 KB: 4096 of them are held at once by a worker.
    ray.data.read_parquet(vectors).map_batches(coder.transform_batch, batch_size=4096).write_parquet(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", help="Folder or file of parquet with a column `embedding`.")
    parser.add_argument("compressor", help="Folder that `hf-mic adapt --bytes` or Compressor.save wrote.")
    parser.add_argument("output", help="Folder for the codes, readable by every worker.")
    main(**vars(parser.parse_args()))
