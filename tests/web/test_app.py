"""The server as browsers, and as those who mean ill, see it."""

import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from svdnet_jax.retrieval.metrics import ranked_list
from svdnet_jax.web import app as server
from svdnet_jax.web.app import FILES, MOST_ASKED, MOST_UPLOADED, create_app
from svdnet_jax.web.guard import HEADERS, allowed_hosts
from svdnet_jax.web.panel import rates_at

HERE = allowed_hosts(open_to_others=False)
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def client(page):
    # Errors of the server's own are to show here as they would to a browser, as 500.
    return TestClient(create_app(page, HERE), base_url="http://127.0.0.1:8517", raise_server_exceptions=False)


def asked(**more):
    return {"source": "good", "kind": "query", "row": 3, "k": 5, **more}


def search(client, **more):
    answer = client.post("/api/search", json=asked(**more))
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert "Traceback" not in answer.text
    return answer.json()["error"]


def test_the_page_is_there_and_its_policy_lets_nothing_in_or_out(client):
    for path, (_, kind) in FILES.items():
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    for path in ("/", "/api/about", "/nowhere", "/api/queries?start=x"):
        headers = client.get(path).headers
        assert all(headers[name.decode()] == value.decode() for name, value in HEADERS.items())
    assert client.get("/", headers={"host": "evil.example"}).headers["content-security-policy"]
    policy = HEADERS[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"unsafe|https?:|\*|data:", policy)


def test_the_page_names_no_other_place_and_holds_no_script_of_its_own(client):
    for path in FILES:
        text = client.get(path).text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "://" not in text
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\bon\w+=|style=|<script>", text
        )


def test_what_can_be_chosen_and_what_is_known_of_it(client, page):
    about = client.get("/api/about").json()
    assert [(each["id"], each["upload"]) for each in about["sources"]] == [("good", True), ("bad", False)]
    for key in ("good", "bad"):
        found, panel = client.get(f"/api/source?source={key}").json(), page.sources[key].panel()
        assert (found["queries"], found["gallery"], found["cameras"]) == (20, 132, [1, 2, 3])
        assert found["results"] == {"rank-1": panel.report.rank(1), "mAP": panel.report.mAP}
        assert len(found["levels"]) > 10
    assert page.sources["good"].panel().report.mAP > page.sources["bad"].panel().report.mAP + 0.1


def test_a_search_is_the_ranking_of_the_evaluation(client, page):
    panel = page.sources["bad"].panel()
    found = search(client, source="bad", k=30)
    rows, right, distances = ranked_list(panel.query, panel.gallery, 3, 30)
    rates = rates_at(panel.distributions, distances)
    for image, row, correct, distance, *rate in zip(found["results"], rows, right, distances, *rates, strict=True):
        assert (image["row"], image["right"]) == (row, correct)
        assert image["distance"] == pytest.approx(distance, rel=1e-9)
        assert [image[name] for name in ("false", "true", "measured")] == rate
        assert image["name"] in (panel.gallery.names[row], "<img src=x onerror=alert(1)>.jpg")
        assert image["camera"] == panel.gallery.cameras[row]
    assert 0 < sum(right) < 30
    assert found["ap"] == panel.report.ap[3]
    assert found["positives"] == 8  # four by each of the other two cameras
    assert found["shown_of"] == 122


def test_cameras_and_what_the_evaluation_leaves_out_are_up_to_the_user(client, page):
    own = int(page.sources["good"].panel().query.cameras[3])
    assert {image["camera"] for image in search(client, cameras=[2], k=200)["results"]} == {2}
    assert search(client, cameras=[])["results"] == []
    every = search(client, everything=True, k=200)["results"]
    assert len(every) == 132
    assert sum(image["pid"] == -1 for image in every) == 6
    assert any(image["right"] and image["camera"] == own for image in every)
    assert all(image["right"] is None for image in every if image["pid"] == -1)


def test_any_gallery_image_can_be_searched_with_and_does_not_find_itself(client):
    found = search(client, kind="gallery", row=40, k=200)["results"]
    assert len(found) == 131
    assert 40 not in {image["row"] for image in found}
    nobody = search(client, kind="gallery", row=0, k=9)["results"]  # pid 0: nobody in particular has no right answer
    assert {image["right"] for image in nobody} == {None}


def test_queries_are_sorted_by_average_precision_worst_first(client, page):
    ap = {key: source.panel().report.ap for key, source in page.sources.items()}

    def listed(**options):
        answer = client.get("/api/queries", params={"source": "bad", "beside": "good", **options})
        assert answer.status_code == 200, answer.text
        return answer.json()

    found = [listed(start=start, count=7) for start in (0, 7, 14)]
    entries = [entry for part in found for entry in part["entries"]]
    assert [part["total"] for part in found] == [20] * 3
    assert sorted(entry["row"] for entry in entries) == list(range(20))
    assert [entry["ap"][0] for entry in entries] == sorted(ap["bad"])
    assert [entry["ap"] for entry in entries] == [[ap["bad"][e["row"]], ap["good"][e["row"]]] for e in entries]
    by = {
        order: [entry["row"] for entry in listed(order=order)["entries"]] for order in ("best", "gain", "loss", "name")
    }
    assert [ap["bad"][row] for row in by["best"]] == sorted(ap["bad"], reverse=True)
    more = ap["bad"] - ap["good"]
    assert [more[row] for row in by["gain"]] == sorted(more)
    assert [more[row] for row in by["loss"]] == sorted(more, reverse=True)
    names = page.sources["good"].panel().query.names
    assert [names[row] for row in by["name"]] == sorted(names)
    assert [entry["pid"] for entry in listed(text="0007_C2")["entries"]] == [7]
    assert listed(text="no such name")["entries"] == []
    refused(client.get("/api/queries?source=good&order=gain"), 422)


def test_people_are_called_by_their_names(client):
    entries = client.get("/api/queries?source=good&text=ZOÉ&count=60").json()["entries"]
    assert {(entry["pid"], entry["person"]) for entry in entries} == {(4, "<b>zoé\\x1b")}
    found = search(client, row=entries[0]["row"], k=100)["results"]
    assert {image["pid"] for image in found if "person" in image} == {4}
    assert client.get("/api/map?source=good").json()["people"] == {"4": "<b>zoé\\x1b"}


def test_a_map_has_all_points_but_junk(client, page):
    found = client.get("/api/map?source=good").json()
    assert found["queries"] == 20
    assert len(found["rows"]) == len(found["x"]) == len(found["y"]) == len(found["pids"]) == 20 + 126
    assert -1 not in found["pids"]
    assert (min(found["x"]), min(found["y"]), max(found["x"] + found["y"])) == (0, 0, found["grid"])


def test_thumbnails_are_the_pictures(client, page):
    images = client.get("/api/about").json()["images"]
    for kind, row in (("query", 0), ("gallery", 131)):
        answer = client.get(f"{images}{kind}/{row}")
        assert answer.headers["content-type"] == "image/jpeg"
        shown = np.asarray(Image.open(io.BytesIO(answer.content)), float)
        assert abs(shown - np.asarray(page.pictures[kind](row), float)).mean() < 12


def uploaded(client, picture, kind="PNG"):
    content = io.BytesIO()
    picture.save(content, kind)
    return client.post("/api/embed", content=content.getvalue(), headers=BYTES)


def test_an_image_from_elsewhere_is_embedded_and_searched_for(client, page):
    """One of the gallery's own, dropped on the page, finds itself at no distance."""
    answer = uploaded(client, page.pictures["gallery"](60)).json()
    assert (answer["width"], answer["height"]) == (16, 32)
    assert list(answer["features"]) == ["good"]  # the weights of the other are not kept
    found = search(client, kind="image", features=answer["features"]["good"], k=3)
    assert found["results"][0]["row"] == 60
    assert found["results"][0]["distance"] == pytest.approx(0, abs=1e-3)
    assert (found["results"][0]["right"], found["positives"], found["ap"]) == (None, None, None)
    message = refused(client.post("/api/search", json=asked(source="bad", kind="image", features=[0.0] * 12)), 422)
    assert "weights of this embedding are not kept" in message


def test_pictures_are_decoded_as_everywhere_else(client, page):
    """Turned upright by its EXIF orientation; refused where nobody knows what is meant."""
    picture = page.pictures["gallery"](60)
    exif = Image.Exif()
    exif[0x0112] = 3
    content = io.BytesIO()
    picture.rotate(180).save(content, "PNG", exif=exif)
    turned = client.post("/api/embed", content=content.getvalue(), headers=BYTES).json()["features"]
    assert turned == uploaded(client, picture).json()["features"]
    message = refused(uploaded(client, Image.new("RGBA", (24, 48), (1, 2, 3, 4))), 422)
    assert message.startswith("your image: lets through what is behind it")


# Those who mean ill


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8517", "10.0.0.7", "localhost@evil.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/api/about", "/app.js"])
def test_another_host_gets_nothing(client, host, path):
    answer = client.get(path, headers={"host": host})
    assert "its own address only" in refused(answer, 403)


def test_other_pages_get_nothing(client):
    images = client.get("/api/about").json()["images"]
    for path in ("/api/about", f"{images}query/0", "/style.css"):
        refused(client.get(path, headers={"sec-fetch-site": "cross-site"}), 403)
    refused(client.post("/api/search", json=asked(), headers={"origin": "https://evil.example"}), 403)
    refused(client.post("/api/embed", content=b"x", headers=BYTES | {"origin": "null"}), 403)
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        refused(client.post("/api/search", content=json.dumps(asked()), headers={"content-type": kind}), 415)
        refused(client.post("/api/embed", content=b"x", headers={"content-type": kind}), 415)


@pytest.mark.parametrize(
    "path",
    [
        "/image/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fpyproject.toml",
        "//etc/passwd",
        "/page/index.html",
        "/app.js/../../app.py",
        "/app.py",
        "/index.html%00",
        "/image/{}/gallery/../../app.js",
        "/image/{}/gallery/..%2f..%2f..%2fetc%2fpasswd",
        "/image/{}/gallery/-1",
        "/image/{}/gallery/132",
        "/image/{}/gallery/99999999999999999999999999",
        "/image/{}/gallery/1e3",
        "/image/{}/train/0",
        "/image/{}/__class__/0",
        "/image/0000000000000000/gallery/0",
    ],
)
def test_paths_lead_nowhere_else(client, path):
    stamp = client.get("/api/about").json()["images"].split("/")[2]
    # As it stands: the client would tidy the path up.
    scope_path = path.format(stamp)
    answer = client.request("GET", scope_path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("DELETE", "/api/search"), ("PUT", "/api/embed"), ("GET", "/api/search")]
)
def test_other_methods_are_refused(client, method, path):
    assert client.request(method, path).status_code == 405


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "text": b'"x"',
    "deep": b"[" * 100_000,
    "bytes": b"\xff\xfe\x00",
    "long number": b'{"row": ' + b"9" * 5000 + b"}",
}
WRONG = {
    "no k": {"k": None},
    "k below": {"k": 0},
    "k above": {"k": 201},
    "k true": {"k": True},
    "k text": {"k": "5"},
    "k half": {"k": 2.5},
    "row text": {"row": "../../etc/passwd"},
    "row half": {"row": 1.5},
    "row beyond 64 bits": {"row": 2**70},
    "kind": {"kind": "train"},
    "kind list": {"kind": ["query"]},
    "cameras": {"cameras": "1"},
    "cameras of text": {"cameras": ["1"]},
    "cameras beyond 64 bits": {"cameras": [2**64]},
    "everything": {"everything": 1},
    "source": {"source": 5},
    "features": {"features": "1"},
    "features of text": {"kind": "image", "features": ["1"]},
    "features too long": {"kind": "image", "features": [0.5] * 13},
    "no features": {"kind": "image", "features": []},
    "infinite": {"kind": "image", "features": [1e308] * 12},
    "nested": {"kind": "image", "features": [[1.0] * 12]},
}
NOWHERE = {
    "source": {"source": "\ud800"},
    "row": {"row": 20},
    "below": {"row": -1},
    "gallery": {"kind": "gallery", "row": 132},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_is_no_question_is_refused(client, body):
    answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
    refused(answer, 422)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_questions_that_make_no_sense_are_refused(client, change):
    refused(client.post("/api/search", json=asked(**change)), 422)


@pytest.mark.parametrize("change", NOWHERE.values(), ids=NOWHERE)
def test_what_is_not_there_is_told(client, change):
    # Written by hand, as half a character is no UTF-8.
    body = json.dumps(asked(**change)).encode()
    refused(client.post("/api/search", content=body, headers={"content-type": "application/json"}), 404)


def test_numbers_that_json_does_not_have_are_refused(client):
    for value in ("NaN", "Infinity", "1e400"):
        body = json.dumps(asked(kind="image", features=[])).replace("[]", f"[{', '.join([value] * 12)}]")
        refused(client.post("/api/search", content=body, headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize(
    "query", ["start=-1", "start=x", "start=" + "9" * 400, "start=\u0663", "count=1.5", "order=up"]
)
def test_stretches_of_the_list_are_whole_numbers(client, query):
    refused(client.get(f"/api/queries?source=good&{query}"), 422)
    refused(client.get("/api/queries?source=nothing"), 404)


def test_long_questions_and_uploads_are_refused(client):
    for path, kind, most in (
        ("/api/search", "application/json", MOST_ASKED),
        ("/api/embed", "application/octet-stream", MOST_UPLOADED),
    ):
        # Without a word of how long it will be, and with one.
        parts = iter([b" " * most, b" "])
        assert "at most" in refused(client.post(path, content=parts, headers={"content-type": kind}), 413)
        said = client.post(path, content=b"x", headers={"content-type": kind, "content-length": str(10**12)})
        assert "at most" in refused(said, 413)


def bomb(width, height):
    """A PNG of a few hundred bytes that says it is that large."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(5000, 5000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused_by_their_headers(client, size, monkeypatch):
    from svdnet_jax.web import answers

    monkeypatch.setattr(answers, "decode", None)  # not reached
    message = refused(client.post("/api/embed", content=bomb(*size), headers=BYTES), 422)
    assert message.startswith("your image: ")


def test_what_is_no_picture_is_refused(client):
    gif = io.BytesIO()
    frames = [Image.new("L", (8, 16), shade) for shade in (0, 255)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    cut = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 3), np.uint8)
    Image.fromarray(noise).save(cut, "JPEG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) run\n"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    for content in (b"", b"GIF89a", b"\x00" * 1000, eps, svg, gif.getvalue(), cut.getvalue()[:-60], b"\xff\xd8" * 500):
        message = refused(client.post("/api/embed", content=content, headers=BYTES), 422)
        assert message.startswith("your image: ")


def test_names_reach_the_page_as_text_only(client):
    every = search(client, everything=True, k=200)["results"]
    assert "<img src=x onerror=alert(1)>.jpg" in {image["name"] for image in every}
    raw = client.post("/api/search", json=asked(everything=True, k=200))
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_a_machine_that_lacks_something_is_told_without_its_paths(client, monkeypatch):
    def full(*_):
        raise OSError(5, "Input/output error", "/home/somebody/secret")

    monkeypatch.setattr(server.answers, "search", full)
    assert "/home" not in refused(client.post("/api/search", json=asked()), 503)


def test_websockets_are_closed(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass
