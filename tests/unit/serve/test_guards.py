"""Checks of every request: names of the server, other sites, the key, and the form of a body."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from convo_cli.errors import UsageError
from convo_cli.serve.api_keys import VARIABLE, require_long, take_api_key
from tests.served import HELLO, LOCAL, PATH, ScriptedEngine, make_api

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture(scope="module")
def client(encoder):
    return TestClient(make_api(encoder, hosts=["chat.example"]), base_url=LOCAL)


@pytest.fixture(scope="module")
def with_key(encoder):
    return TestClient(make_api(encoder, api_key=KEY), base_url=LOCAL)


def assert_refused(response, status, code):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "LocalHost:1",
        "127.0.0.1:65535",
        "[::1]:80",
        "Chat.Example",
    ],
)
def test_the_server_answers_under_its_own_names_with_any_port(client, host):
    assert client.get("/health", headers={"Host": host}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
        "localhost@evil.example", "127.0.0.2", "10.0.0.1", "[::2]", "", " ", "localhost:", ":8000",
        "localhost:x", "localhost, evil.example", "localhost/evil", "2130706433", "0x7f.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nope"])
def test_a_rebound_name_gets_421_on_every_path(client, host, path):
    assert_refused(client.get(path, headers={"Host": host}), 421, "unknown_host")


def test_the_address_to_which_a_connection_came_is_a_name(encoder):
    client = TestClient(make_api(encoder), base_url="http://192.0.2.7:8000")
    assert client.get("/health").status_code == 200
    assert client.get("/health", headers={"Host": "192.0.2.8"}).status_code == 421


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1:8000",
        "http://127.0.0.1", "http://127.0.0.1:80000", "http://127.0.0.1:8000.evil.example",
        "file://", "", "http://localhost:8000", "http://127.0.0.1:8000, http://evil.example",
    ],
)  # fmt: skip
def test_a_foreign_origin_gets_403_and_no_header_that_lets_it_read(client, origin):
    for method, path in (("GET", "/v1/models"), ("POST", PATH), ("OPTIONS", PATH), ("GET", "/")):
        response = client.request(method, path, headers={"Origin": origin}, json=HELLO)
        assert_refused(response, 403, "foreign_origin")
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_page_of_the_server_is_no_foreign_origin(client):
    own = {"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"}
    assert client.post(PATH, headers=own, json=HELLO).status_code == 200
    behind_proxy = {"Host": "chat.example", "Origin": "https://chat.example"}
    assert client.post(PATH, headers=behind_proxy, json=HELLO).status_code == 200
    other = {"Host": "chat.example", "Origin": "http://127.0.0.1:8000"}
    assert_refused(client.post(PATH, headers=other, json=HELLO), 403, "foreign_origin")


def test_another_site_may_link_to_the_page_and_load_nothing_else(client):
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/", headers=foreign).status_code == 200
    for path in ("/v1/models", "/health"):
        assert_refused(client.get(path, headers=foreign), 403, "foreign_origin")


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x", "", "application/jsonp", "text/json",
        "application/json; charset=utf-16", "*/*", "application/json, text/plain",
    ],
)  # fmt: skip
def test_a_body_of_another_type_gets_415_so_that_a_browser_must_ask_first(client, kind):
    engine = ScriptedEngine()
    response = client.post(PATH, headers={"Content-Type": kind}, content=b'{"messages":[]}')
    assert_refused(response, 415, "unsupported_media_type")
    assert engine.jobs == []


def test_json_with_its_charset_is_accepted_and_compression_is_not(client):
    body = b'{"messages":[{"role":"user","content":"x"}]}'
    for kind in ("application/json", "Application/JSON ; charset=UTF-8"):
        assert client.post(PATH, headers={"Content-Type": kind}, content=body).status_code == 200
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = client.post(PATH, headers=headers, content=body)
    assert_refused(response, 415, "unsupported_media_type")


def test_every_response_has_headers_that_keep_a_browser_safe(client):
    for method, path in (("GET", "/"), ("GET", "/health"), ("GET", "/nope"), ("PUT", PATH)):
        headers = client.request(method, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_long_headers_and_paths_are_refused(client):
    ranges = "bytes=" + ",".join(["0-"] * 100_000)
    assert_refused(client.get("/", headers={"Range": ranges}), 431, "headers_too_large")
    assert_refused(client.get("/" + "x" * 3000), 414, "path_too_long")
    assert_refused(client.get("/?" + "x" * 3000), 414, "path_too_long")


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/%2e%2e/etc/passwd", "/../../etc/passwd", "/v1/models/../../x",
     "/static/x", "/v1/models/", "/page.html", "/v1", "/health/", "/v1/chat/completions/"],
)  # fmt: skip
def test_no_path_reaches_a_file_or_redirects(client, path):
    response = client.get(path, follow_redirects=False)
    assert response.status_code == 404
    assert "root:" not in response.text


def test_a_range_of_the_page_is_the_whole_page(client):
    response = client.get("/", headers={"Range": "bytes=0-1"})
    assert response.status_code == 200
    assert len(response.content) > 1000


def test_other_methods_get_an_object_and_the_allowed_ones(client):
    for method, path, allowed in (("DELETE", "/v1/models", "GET"), ("GET", PATH, "POST")):
        response = client.request(method, path)
        assert_refused(response, 405, "method_not_allowed")
        assert allowed in response.headers["allow"]


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}", "Bearer ключ".encode(), f"Bearer {KEY} {KEY}",
    ],
)  # fmt: skip
def test_a_wrong_key_gets_401_on_every_path_but_the_page_and_health(with_key, header):
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/v1/models"), ("POST", PATH), ("GET", "/nope"), ("GET", "/docs")):
        response = with_key.request(method, path, headers=headers, content=b"{")
        assert_refused(response, 401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    assert with_key.get("/health", headers=headers).json() == {"status": "ok"}
    assert with_key.get("/", headers=headers).headers["content-type"].startswith("text/html")


def test_the_right_key_opens_the_api(with_key, encoder):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert with_key.post(PATH, headers=headers, json=HELLO).status_code == 200
    other = TestClient(make_api(encoder, api_key="schlüssel-aus-ü"), base_url=LOCAL)
    headers_in_utf8 = {b"Authorization": "bearer schlüssel-aus-ü".encode()}
    assert other.get("/v1/models", headers=headers_in_utf8).status_code == 200


def test_repeated_key_or_host_headers_count_as_missing(with_key):
    twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]
    assert_refused(with_key.get("/v1/models", headers=twice), 401, "invalid_api_key")
    hosts = [("Host", "localhost"), ("Host", "evil.example")]
    assert_refused(with_key.get("/health", headers=hosts), 421, "unknown_host")


def test_the_key_comes_from_the_option_the_file_or_the_environment_which_loses_it(tmp_path):
    file = tmp_path / "key"
    file.write_text("from-file\r\n", encoding="utf-8")
    environ = {VARIABLE: "from-environment"}
    assert take_api_key(None, None, environ) == "from-environment"
    assert environ == {}
    environ = {VARIABLE: "from-environment"}
    assert take_api_key("given", None, environ) == "given"
    assert environ == {}
    assert take_api_key(None, file, environ) == "from-file"
    assert take_api_key(None, None, environ) is None
    with pytest.raises(UsageError, match="give only one of them"):
        take_api_key("given", file, environ)


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "a\nb", "a\x00b", "x" * 1025, "\udcff"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(UsageError, match="--api-key: the key"):
        take_api_key(key, None, {})


def test_a_key_file_is_a_small_regular_file(tmp_path, never_waits):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xff")
    (tmp_path / "long").write_bytes(b"x" * 10**6)
    for name in ("pipe", "latin", "long", "none", "."):
        with pytest.raises(UsageError, match="--api-key-file"):
            take_api_key(None, tmp_path / name, {})


def test_an_open_address_needs_a_long_key():
    for key in (None, "x" * 15):
        with pytest.raises(UsageError, match="other machines can reach this address"):
            require_long(key, "0.0.0.0")
    require_long("x" * 16, "0.0.0.0")
