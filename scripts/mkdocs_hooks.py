"""What the site changes in the text of docstrings: a role such as ``:class:`~a.b.C``` is shown as ``C``."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?([^<]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Replace the roles in a page that has been rendered."""
    return _ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2]}</code>", html)
