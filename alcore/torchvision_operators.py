"""The two operators torchvision registers on import, declared where its compiled library cannot load.

torchvision from the registry is built for CUDA torch. Beside a CPU-only torch its compiled operators are missing, and
`import torchvision` stops with "operator torchvision::nms does not exist". Models and transforms never call these
operators: once they are declared, the import works. Where the library loads, nothing is declared.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch.library import Library

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Library] = []  # a Library takes its operators with it when it is collected


def _compiled_library_loads() -> bool:
    spec = find_spec("torchvision")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for library in sorted(path for folder in folders for path in Path(folder).glob("_C.*")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            continue
        return True
    return False


def declare_missing_operators() -> None:
    """Declare torchvision::nms and torchvision::qnms where they are missing; call it before importing torchvision."""
    if _declared or _compiled_library_loads():
        return
    library = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
