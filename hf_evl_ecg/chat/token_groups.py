"""Which answer tokens of two tokenizers belong together, by the bytes of the text they spell."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hf_evl_ecg.tokens import AnswerGroups

__all__ = ["align_tokens", "align_turns", "collate_groups"]


def align_tokens(teacher: Sequence[bytes], student: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Group the answer tokens of two tokenizers between the offsets at which both cut the text.

    Leading white space is ignored, as one tokenizer may put a space before the first word. Where the texts differ,
    grouping ends at the last common cut before the difference. One special token after the text on each side (the end of
    the answer) forms a last group.

    Args:
        teacher: Bytes of each teacher token, from `hf_evl_ecg.chat.spelling.token_bytes`.
        student: Bytes of each student token.

    Returns:
        Group of each teacher token and of each student token, -1 for a token without counterpart.

    Example:
        >>> align_tokens([b" sinus", b" rhythm", b""], [b"si", b"nus", b" rhythm", b""])
        ([0, 1, 2], [0, 0, 1, 2])
    """
    (t_text, t_ends), (s_text, s_ends) = _text_and_ends(teacher), _text_and_ends(student)
    common = _common_prefix_length(t_text, s_text)
    cuts = [cut for cut in sorted(set(t_ends) & set(s_ends)) if 0 < cut <= common]
    groups = [_groups_of(pieces, ends, cuts) for pieces, ends in ((teacher, t_ends), (student, s_ends))]
    if t_text.rstrip() == s_text.rstrip():
        t_stop, s_stop = _index_of_end_token(teacher), _index_of_end_token(student)
        if t_stop is not None and s_stop is not None:
            groups[0][t_stop] = groups[1][s_stop] = len(cuts)
    return groups[0], groups[1]


def align_turns(teacher: Sequence[Sequence[bytes]], student: Sequence[Sequence[bytes]]) -> tuple[list[int], list[int]]:
    """`align_tokens` of each answer of a conversation, with groups numbered through.

    Args:
        teacher: Bytes of the teacher's tokens, answer by answer.
        student: The same for the student. Answers that only one side has get no group.

    Returns:
        Group of each teacher token and of each student token over all answers, -1 for a token without counterpart.

    Example:
        >>> align_turns([[b"yes", b""], [b" no", b""]], [[b"yes", b""], [b"n", b"o", b""]])
        ([0, 1, 2, 3], [0, 1, 2, 2, 3])
    """
    groups: tuple[list[int], list[int]] = ([], [])
    for number in range(max(len(teacher), len(student))):
        turn = [list(side[number]) if number < len(side) else [] for side in (teacher, student)]
        offset = 1 + max(groups[0], default=-1)
        for total, own in zip(groups, align_tokens(*turn), strict=True):
            total += [group + offset if group >= 0 else -1 for group in own]
    return groups


def collate_groups(groups: Sequence[tuple[Sequence[int], Sequence[int]]]) -> AnswerGroups:
    """Pad the groups of `align_tokens` of several samples on the right with -1, to at least one column.

    Args:
        groups: One (teacher groups, student groups) per sample.

    Returns:
        The batch.

    Example:
        >>> collate_groups([([0, 1], [0, 0, 1]), ([0], [0])]).student
        tensor([[ 0,  0,  1],
                [ 0, -1, -1]])
    """
    return AnswerGroups(*(_pad([sample[side] for sample in groups]) for side in (0, 1)))


def _text_and_ends(pieces: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """The text without leading white space, and the offset in it at which each token ends (at most 0 before it)."""
    text = b"".join(pieces)
    stripped = text.lstrip()
    ends = list(accumulate((len(piece) for piece in pieces), initial=len(stripped) - len(text)))[1:]
    return stripped, ends


def _common_prefix_length(x: bytes, y: bytes) -> int:
    return next((i for i, (left, right) in enumerate(zip(x, y, strict=False)) if left != right), min(len(x), len(y)))


def _groups_of(pieces: Sequence[bytes], ends: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """The number of the first common cut at or after each token's end."""
    groups = []
    for piece, end in zip(pieces, ends, strict=True):
        group = bisect_left(cuts, end)
        groups.append(group if piece and end > 0 and group < len(cuts) else -1)
    return groups


def _index_of_end_token(pieces: Sequence[bytes]) -> int | None:
    """Index of the first token without text after the last one with visible text."""
    with_text = [i for i, piece in enumerate(pieces) if piece.strip()]
    start = with_text[-1] + 1 if with_text else 0
    return next((i for i in range(start, len(pieces)) if not pieces[i]), None)


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *(len(row) for row in rows)) if rows else 1  # as features have where no sample has an answer
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], dtype=torch.int64).reshape(-1, width)
