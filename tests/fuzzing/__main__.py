"""Damage files for every reader and say what the readers answer; run as ``make fuzz``, or ``python -m fuzzing`` with tests/ on the path.

Each reader gets ``--count`` damaged files. Its line says how many were refused and read, the longest time of the processor (s), the
most memory that one file took and what remained after all (MB). ``results.json`` holds the same; a file that got an answer which is
not allowed is kept beside it, under its reader's name and number, and can be made again from these and the seed. Interrupted, what was
found so far is written. The exit status is 1 if there was any such answer.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main(words: list[str] | None = None) -> int:
    """Run the readers that are asked for; returns the exit status."""
    from fuzzing import readers
    from fuzzing.harness import Failure, Found, Reader, run, summary
    from fuzzing.readers import available

    table = readers.readers()
    parser = argparse.ArgumentParser(
        prog="fuzzing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=20_000, metavar="N", help="damaged files for each reader (default: 20000)"
    )
    parser.add_argument(
        "--reader", nargs="+", default=list(table), metavar="NAME", help="readers by name (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="another seed, other damage (default: 1; the suite has 0)"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/fuzz"), help="results and kept files (default: outputs/fuzz)"
    )
    args = parser.parse_args(words)
    if unknown := [name for name in args.reader if name not in table]:
        parser.error(f"--reader {', '.join(unknown)}: no such reader; there are {', '.join(table)}")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # of files that are passed over, thousands of times

    results: dict[str, Any] = {}

    def one(reader: Reader) -> None:
        found = Found()
        bar = tqdm(total=args.count, desc=reader.name, unit=" files", mininterval=1.0, file=sys.stderr)

        def after(now: Found) -> None:
            nonlocal found
            found = now
            bar.set_postfix(failed=len(now.failures), refresh=False)
            bar.update()

        try:
            with bar, tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
                found = run(reader, Path(folder), args.count, args.seed, after)
        except Exception as error:  # of the harness itself, or a reader that refuses a valid file
            found.failures.append(Failure(-1, f"before any damage: {type(error).__name__}: {error}", b""))
        finally:
            results[reader.name] = {"count": bar.n, "seed": args.seed, **summary(found)}
            _keep(args.output_dir, reader.name, args.seed, found.failures)
            (args.output_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        numbers = f"longest {found.longest_s:.2f} s, at most {found.grown_mb:.0f} MB, {found.kept_mb:.0f} MB kept"
        print(
            f"{reader.name}: {found.refused} refused, {found.read} read, {len(found.failures)} failed; {numbers}",
            flush=True,
        )

    try:
        for name in args.reader:
            if missing := [package for package in table[name].packages if not available(package)]:
                print(f"{name}: left out, {', '.join(missing)} not installed", flush=True)
                continue
            one(table[name])
    except KeyboardInterrupt:
        print(f"interrupted; {args.output_dir / 'results.json'} holds what was done", file=sys.stderr)
        return 130
    finally:
        logging.disable(logging.NOTSET)  # whoever calls this, such as a test, hears the log again
    failed = {
        name: [failure["number"] for failure in found["failures"]]
        for name, found in results.items()
        if found["failures"]
    }
    for name, numbers in failed.items():
        print(f"FAILED {name}, seed {args.seed}: {numbers[:20]}", file=sys.stderr)
    return 1 if failed else 0


def _keep(folder: Path, reader: str, seed: int, failures: list[Any]) -> None:
    for failure in failures[:100]:  # of more, most are the same
        stem = folder / f"{reader.replace(' ', '_').replace(',', '')}-{seed}-{failure.number}"
        stem.with_name(f"{stem.name}.bin").write_bytes(failure.content)
        stem.with_name(f"{stem.name}.txt").write_text(failure.why, encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
