"""Functions of chapters, to be called without running the chapter."""

import ast

from wcka.book import checkout


def chapter_function(chapter, name, **names):
    """Return a function of a chapter, with `names` for what it takes from there.

    Parameters
    ----------
    chapter : str
        Its number, such as "03".
    """
    path, = checkout.NOTEBOOKS.glob(f"{chapter}-*.py")
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            module = ast.Module([statement], type_ignores=[])
            exec(compile(module, path, "exec"), names)
            return names[name]
    raise LookupError(f"{path.name} has no function {name}")
