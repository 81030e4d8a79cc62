from .archive import unzipped
from .arrays import ArrayDescription
from .content import READ, recognise
from .pages import open_page
from .reading import read_clinical
from .recording import Recording

__all__ = ["READ", "ArrayDescription", "Recording", "open_page", "read_clinical", "recognise", "unzipped"]
