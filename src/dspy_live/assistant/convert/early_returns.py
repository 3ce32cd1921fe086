"""Early returns of a function that becomes a generator: what they return is yielded, and the generator ends."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst


def yielded(statements: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """Return the statements with ``return x`` as ``yield x`` and ``return``; inner functions keep theirs."""
    block = cst.IndentedBlock(body=statements).visit(_Yields())
    return [cst.ensure_type(each, cst.BaseStatement) for each in cst.ensure_type(block, cst.IndentedBlock).body]  # type: ignore[type-abstract]


class _Yields(cst.CSTTransformer):
    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        return False

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        value = _returned(updated_node.body)
        if value is None:
            return updated_node
        first = updated_node.with_changes(body=[*updated_node.body[:-1], cst.Expr(cst.Yield(value))])
        return cst.FlattenSentinel([first, cst.SimpleStatementLine([cst.Return()])])

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.BaseSuite:
        """``if x: return y`` on one line gets a block."""
        value = _returned(updated_node.body)
        if value is None:
            return updated_node
        first = cst.SimpleStatementLine([*updated_node.body[:-1], cst.Expr(cst.Yield(value))])
        return cst.IndentedBlock([first, cst.SimpleStatementLine([cst.Return()])])


def _returned(body: Sequence[cst.BaseSmallStatement]) -> cst.BaseExpression | None:
    last = body[-1]
    return last.value if isinstance(last, cst.Return) else None
