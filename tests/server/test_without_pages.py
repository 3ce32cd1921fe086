"""A server without its pages for people."""

from __future__ import annotations

import pytest
from tests.server.support import http, qa, serving


@pytest.mark.parametrize(("playground", "status"), [(True, 200), (False, 404)])
def test_the_pages_can_be_switched_off_and_the_description_stays(playground: bool, status: int) -> None:
    with serving(qa(), playground=playground) as live:
        for page in ("/", "/docs", "/static/docs.css"):
            reply = http.get(live.url + page)
            assert reply.status_code == status, page
            if not playground:
                assert reply.json()["error"]["type"] == "not_found"
        assert http.get(live.url + "/openapi.json").status_code == 200
        assert http.post(live.url + "/predict", json={"question": "x"}).status_code == 200
