from .collator import EVLECGCollator
from .conversations import ChatTemplateError, ExampleError, Turn, chat_messages
from .examples import UnreadableImageError
from .token_groups import align_tokens, align_turns

__all__ = [
    "ChatTemplateError",
    "EVLECGCollator",
    "ExampleError",
    "Turn",
    "UnreadableImageError",
    "align_tokens",
    "align_turns",
    "chat_messages",
]
