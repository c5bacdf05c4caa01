"""For the reference (`mkdocs.yml`): a field's type without what only pydantic reads of it.

``Annotated[str | None, BeforeValidator(…)]`` is shown as ``str | None``.
"""

from __future__ import annotations

from typing import Any

from griffe import Attribute, Expr, ExprBinOp, ExprName, ExprSubscript, ExprTuple, Extension


def plain(annotation: str | Expr | None) -> str | Expr | None:
    """The first argument of ``Annotated``, and of one in it, or in ``… | None``."""
    while isinstance(annotation, ExprSubscript):
        of, what = annotation.left, annotation.slice
        if not (isinstance(of, ExprName) and of.name == "Annotated" and isinstance(what, ExprTuple)):
            break
        annotation = what.elements[0]
    if isinstance(annotation, ExprBinOp):
        return ExprBinOp(plain(annotation.left) or "", annotation.operator, plain(annotation.right) or "")
    return annotation


class PlainAnnotations(Extension):
    """Griffe's hook for each attribute that it reads."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        attr.annotation = plain(attr.annotation)
