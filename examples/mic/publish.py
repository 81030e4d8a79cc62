"""Publish a trained encoder on the Hugging Face Hub, and check what the Hub returns.

One process on the CPU, whatever the encoder was trained on; a GPU or `accelerate launch` would change nothing:

    hf auth login
    python examples/mic/publish.py outputs/mic --repo_id your-name/mic --license apache-2.0 --tag v1.0

Nothing is public unless --no_private is given, so that a smoke run needs nothing but a name of its own; the same again makes no commit.
The same as `hf-mic publish`, see its --help.
"""

import sys

from hf_mic.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
