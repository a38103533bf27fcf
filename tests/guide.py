"""The code of `docs/new_family.md`, as a reader would type it."""

import pathlib
import re
import types

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "new_family.md"


def plain_blocks(text: str) -> list[str]:
    """Blocks of Python without prompts, which a page expects to have been run."""
    return [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if not block.startswith(">>>")]


def module_of(page: pathlib.Path) -> types.ModuleType:
    """What those blocks of a page define."""
    module = types.ModuleType(page.stem)
    for block in plain_blocks(page.read_text()):
        exec(compile(block, str(page), "exec"), module.__dict__)
    return module


new_family = module_of(PAGE)
