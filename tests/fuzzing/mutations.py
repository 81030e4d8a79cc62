"""Changes of a valid file, each decided by a random number generator alone: of its bytes, or of what it says."""

import gzip
import json
import lzma
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = [b"0", b"-1", b"1", b"65535", b"2147483648", b"99999999999", b"1e308", b"nan", b"-0.0", b""]
WORDS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\1\0\0\0",
    b"\0\0\0\x80",
    b"<!--",
    b"]]>",
    b"&x;",
    b"\xfe\xff",
]


class Written(str):
    """A value of a json text that is put there as it is, whatever a parser makes of it."""


class Pairs(list[tuple[str, Any]]):
    """A json object as its pairs, in which a name may stand twice."""


WRONG: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 10**30, -(10**400), float("nan"), float("-inf")),
    *("", "x", "true", "1", "é\u0000", "\ud800", "x" * 5000, [], {}, [[]], [None], {"": None}, [{}], {"x": [1]}),
    *(Written("[" * 3000 + "]" * 3000), Written('{"a":' * 3000 + "0" + "}" * 3000), Written("9" * 5000)),
    *(Written("1e999"), Written("'x'"), Written("")),
]
YAML_WRONG: list[Any] = [
    *map(Written, ("2001-99-99", "2001-01-01", "0x", "0b2", "1:2:3", "1_0", "~", "!!python/object:os.system x", "!x 1")),
    *map(Written, ("&a [*a]", "*a", "<<: 1", "? [1]: 2", "{[1]: 2}", "!!int x", "!!float x", "!!set {1}", "!!binary x")),
    # Each level names the one before nine times: parsed in no time, and without end when it is printed.
    Written("[&a [1,1,1,1,1,1,1,1,1]" + "".join(f", &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)) + "]"),
]  # fmt: skip


def bytes_mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes, numbers of text, numbers of binary fields, pieces left out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Headers are small and samples many: half of the changes are made near the beginning.
        at = rng.randrange(min(len(changed), 2048) if rng.random() < 0.5 else len(changed))
        how = rng.randrange(7)
        if how == 0:
            changed[at] = rng.randrange(256)
        elif how == 1:
            word = rng.choice(WORDS)
            changed[at : at + len(word)] = word
        elif how == 2:
            end = at
            while end < len(changed) and chr(changed[end]) in "0123456789.-":
                end += 1
            changed[at:end] = rng.choice(NUMBERS)
        elif how == 3:
            del changed[at : at + rng.randint(1, 64)]
        elif how == 4:
            piece = changed[at : at + rng.randint(1, 512)]
            changed[at:at] = piece
        elif how == 5:
            del changed[max(at, 16) :]
        else:
            other = rng.randrange(len(changed))
            changed[at : at + 4] = changed[other : other + 4]
        if not changed:
            return bytes(changed)
    return bytes(changed)


def either(*mutations: Mutation) -> Mutation:
    """One of several kinds of changes, the next time perhaps another."""
    return lambda data, rng: rng.choice(mutations)(data, rng)


def json_mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three values of a json text become wrong ones, are left out, doubled, renamed or put elsewhere."""
    return _structure_mutated(data, rng, WRONG)


def yaml_mutated(data: bytes, rng: random.Random) -> bytes:
    """As `json_mutated`, of json, which is YAML too: with tags, anchors, dates and aliases that grow when they are printed."""
    return _structure_mutated(data, rng, [*WRONG, *YAML_WRONG])


def jsonl_mutated(data: bytes, rng: random.Random) -> bytes:
    """One line of several is changed as json or bytes, left out, doubled or put elsewhere."""
    lines = data.splitlines(keepends=True)
    at, how = rng.randrange(len(lines)), rng.random()
    if how < 0.7:
        lines[at] = json_mutated(lines[at], rng) + b"\n"
    elif how < 0.8:
        lines[at] = bytes_mutated(lines[at], rng)
    elif how < 0.9:
        del lines[at]
    else:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    return b"".join(lines)


def safetensors_mutated(data: bytes, rng: random.Random) -> bytes:
    """The header is changed as json, texts that hold json in it too, and its length said rightly or not; or the numbers behind it."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.1:
        return data[: 8 + size] + bytes_mutated(data[8 + size :] or b"\0", rng)
    dtypes = ["F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I8", "U8", "BOOL", "X"]
    header = _structure_mutated(data[8 : 8 + size], rng, [*WRONG, *dtypes])
    stated = (
        len(header)
        if rng.random() < 0.9
        else rng.choice([0, 1, max(0, len(header) - 1), len(header) + 1, 2**31, 2**63])
    )
    return stated.to_bytes(8, "little") + header + data[8 + size :]


def compressed(packed: str, mutation: Mutation) -> Mutation:
    """Changes of what is inside of an ``xz`` or ``gz`` file; every third time of the file itself."""
    # As fast as it goes: the stronger presets of xz hold a hundred megabytes, which would hide what a reader holds.
    module, how = {"xz": (lzma, {"preset": 0}), "gz": (gzip, {"compresslevel": 1})}[packed]
    compress: Any = module.compress

    def mutated(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.33:
            return bytes_mutated(data, rng)
        return compress(mutation(module.decompress(data), rng), **how)

    return mutated


def _structure_mutated(data: bytes, rng: random.Random, wrong: Sequence[Any]) -> bytes:
    tree = json.loads(data, object_pairs_hook=Pairs)
    for _ in range(rng.randint(1, 3)):
        tree = _changed(tree, rng, wrong)
    return _text(tree).encode("utf-8", "surrogatepass")


def _changed(tree: Any, rng: random.Random, wrong: Sequence[Any]) -> Any:
    """The tree with one change, at a place that is drawn from the top downwards: what lies deep is many, and matters less."""
    if (
        type(tree) is str and tree.startswith("{") and rng.random() < 0.9
    ):  # json within json, as headers of tensors hold it
        with suppress(ValueError, RecursionError):
            return _structure_mutated(tree.encode(), rng, wrong).decode("utf-8", "surrogatepass")
        return rng.choice(wrong)  # it was changed before, and is no json any more
    if not isinstance(tree, list) or not tree or rng.random() < 0.1:
        return rng.choice(wrong)
    at, how = rng.randrange(len(tree)), rng.random()
    tree = type(tree)(tree)
    if how < 0.75:
        inside = tree[at]
        tree[at] = (
            (inside[0], _changed(inside[1], rng, wrong)) if isinstance(tree, Pairs) else _changed(inside, rng, wrong)
        )
    elif how < 0.85:
        del tree[at]
    elif how < 0.95 or not isinstance(tree, Pairs):
        again = (tree[at][0], rng.choice(wrong)) if isinstance(tree, Pairs) and rng.random() < 0.5 else tree[at]
        tree.insert(rng.randrange(len(tree) + 1), again)
    else:
        tree[at] = (rng.choice(["", "x", tree[at][0].upper(), "__class__"]), tree[at][1])
    return tree


def _text(value: Any) -> str:
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(item)}" for name, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**300 else f"{'-' * (value < 0)}1{'0' * 400}"
    return json.dumps(value)


STRUCTURE = either(json_mutated, bytes_mutated)
YAML = either(yaml_mutated, bytes_mutated)
LINES = either(jsonl_mutated, bytes_mutated)
TENSORS = either(safetensors_mutated, safetensors_mutated, bytes_mutated)
