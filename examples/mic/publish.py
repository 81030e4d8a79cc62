"""Publish a trained encoder on the Hugging Face Hub, and check what the Hub returns.

    hf auth login
    python examples/mic/publish.py outputs/mic --repo_id your-name/mic --license apache-2.0 --tag v1.0

The encoder is run on the CPU, whatever it was trained on. Nothing is public unless --no_private is given; the same again makes no
commit. The same as `hf-mic publish`, whose --help says the rest.
"""

import sys

from hf_mic.commands.publish import main, parse

if __name__ == "__main__":
    main(*parse(sys.argv[1:]))
