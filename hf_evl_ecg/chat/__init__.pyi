from .collator import EVLECGCollator, UnreadableImageError
from .conversations import ChatTemplateError, ExampleError, Turn, chat_messages
from .token_groups import align_tokens, align_turns, group_answer_tokens

__all__ = [
    "ChatTemplateError",
    "EVLECGCollator",
    "ExampleError",
    "Turn",
    "UnreadableImageError",
    "align_tokens",
    "align_turns",
    "chat_messages",
    "group_answer_tokens",
]
