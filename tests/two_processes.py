"""Run a script as one process of several, and leave without Python's teardown.

    python -m torch.distributed.run --nproc_per_node 2 tests/two_processes.py SCRIPT ARGUMENTS

What fails raises before the end. A thread of gloo that frees its last tensor while Python is finishing asks for the GIL, is made to
exit inside a destructor, and takes the process down (SIGABRT, torch 2.13), though all is written.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
