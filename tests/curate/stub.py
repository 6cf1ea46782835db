"""A server that speaks OpenAI's protocol and answers from what the pixels of rendered scenes show; it can fail.

It knows each scene's JPEG by its digest, and what it says of a scene is checked against the pixels when it is made:
the pixels of each box show the colour that the record names. Beside chat completions it serves
``POST /v1/detect``: boxes for phrases. ``python -m tests.curate.stub --scenes 200`` runs it alone.
"""

import base64
import hashlib
import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from fgclip_fast.scenes.compose import SIDE, Scene
from fgclip_fast.scenes.grammar import ATTRIBUTES, COLOURS, phrase
from fgclip_fast.scenes.surface import TONES
from fgclip_fast.scenes.write import jpeg, record_of, scene_of

TROUBLES = ("429", "500", "slow", "cut", "broken", "empty", "refusal", "language", "loop")
"""What the server can do instead of answering; the first four are faults of transport, the others of content."""
GERMAN = (
    "Das Bild zeigt mehrere Dinge vor einem Hintergrund, darunter einen roten Becher und ein grünes Haus im Garten."
)


def no_trouble(number: int, question: str) -> str:
    """Every request is answered."""
    return ""


class Stub:
    """The server, in a thread of this process, as a context manager.

    Args:
        scenes: numbers of the training scenes that it knows.
        trouble: (number of the request, what it asks for) → one of :data:`TROUBLES`, or nothing.
        delay: seconds that each answer takes.
    """

    def __init__(
        self,
        scenes: Iterable[int] = (),
        trouble: Callable[[int, str], str] = no_trouble,
        delay: float = 0,
        port: int = 0,
    ) -> None:
        self.trouble, self.delay = trouble, delay
        self.answered: Counter[str] = Counter()
        """Questions that were answered, each by the digest of its image or by its text."""
        self.requests = 0
        self.most_at_once = self._now = self._round = 0
        self._lock = threading.Lock()
        self._scenes = {}
        self.jpegs: dict[int, bytes] = {}
        """The image file of each scene."""
        for number in scenes:
            scene = scene_of("train", number)
            self.jpegs[number] = encoded = jpeg(scene)
            check_colours(scene, encoded)
            self._scenes[digest(encoded)] = scene, record_of(scene, "train", number)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stub.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def images(self) -> list[str]:
        """The digests of the scenes' files."""
        return [*self._scenes]

    def forget(self) -> None:
        """Start anew, without trouble; a request that is still under way will not be counted."""
        with self._lock:
            self.trouble, self.delay = no_trouble, 0
            self.answered.clear()
            self.requests = self.most_at_once = 0
            self._round += 1

    def __enter__(self) -> "Stub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or fail."""
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests += 1
            number, round_ = self.requests, self._round
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(handler, asked, number, round_)
        except (BrokenPipeError, ConnectionResetError):  # the client has gone
            pass
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, asked: dict[str, Any], number: int, round_: int) -> None:
        is_chat = handler.path.endswith("/chat/completions")
        image, text = _question(asked) if is_chat else (base64.b64decode(asked["image"]), " ".join(asked["phrases"]))
        name = digest(image) if image else text
        trouble = self.trouble(number, name)
        time.sleep(self.delay + (3.0 if trouble == "slow" else 0))
        if trouble in ("429", "500"):
            _send(handler, int(trouble), {"error": {"message": "not now"}}, {"Retry-After-Ms": "20"})
            return
        if trouble == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"id": "half')
            handler.close_connection = True
            return
        content = self._caption(image, asked, trouble) if image and is_chat else self._negatives(text, trouble)
        with self._lock:
            if round_ == self._round:
                self.answered[name] += 1
        _send(handler, 200, _completion(content, trouble) if is_chat else self._boxes(image, asked["phrases"]))

    def _caption(self, image: bytes, asked: dict[str, Any], trouble: str) -> str:
        _, fields = self._scenes[digest(image)]
        names = asked["response_format"]["json_schema"]["schema"]["properties"]
        captions = {name: fields[name] for name in names}
        wrong = {"language": GERMAN, "loop": "a red mug on a table and " * 20, "refusal": "I'm sorry, I can't help."}
        return json.dumps(captions | ({"caption": wrong[trouble]} if trouble in wrong else {}))

    def _negatives(self, text: str, trouble: str) -> str:
        """The text with one word changed to another of its kind; the first negative is true, as a model's may be."""
        found = re.search(r'picture: "(.*)"', text)
        words = (found[1] if found else text).split()
        negatives = [" ".join(words)] if trouble != "loop" else []
        for i, word in enumerate(words):
            values = next((values for values in ATTRIBUTES.values() if word in values), ())
            negatives += [" ".join([*words[:i], value, *words[i + 1 :]]) for value in values if value != word]
        return json.dumps({"negatives": negatives[:12]})

    def _boxes(self, image: bytes, phrases: list[str]) -> dict[str, Any]:
        """The true box of each phrase, and boxes that must be left out: unsure, shifted a little, tiny, everything."""
        scene, _ = self._scenes[digest(image)]
        boxes = []
        for i, text in enumerate(phrases):
            words = set(text.split())
            for placed in scene.placed:
                thing = placed.thing
                colours = words & set(COLOURS)
                if thing.noun in words and (not colours or thing.colour in colours):
                    x0, y0, x1, y1 = (edge / SIDE for edge in placed.box)
                    boxes.append({"box": [x0, y0, x1, y1], "phrase": i, "score": 0.9})
                    boxes.append({"box": [x0 + 0.01, y0, x1, y1], "phrase": i, "score": 0.7})
                    boxes.append({"box": [x0, y0, x0 + 0.02, y0 + 0.02], "phrase": i, "score": 0.6})
            boxes.append({"box": [0.3, 0.3, 0.6, 0.9], "phrase": i, "score": 0.3})
            boxes.append({"box": [0, 0, 1, 1], "phrase": i, "score": 0.5})
        return {"boxes": boxes}


def digest(encoded: bytes) -> str:
    """By which an image is known."""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def check_colours(scene: Scene, encoded: bytes) -> None:
    """Check that the pixels in the box of each thing show its colour: one in twenty is near to one of its tones."""
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), float)
    for placed in scene.placed:
        x0, y0, x1, y1 = (int(edge) for edge in placed.box)
        inside = pixels[y0:y1, x0:x1].reshape(-1, 3)
        tones = np.array(TONES[placed.thing.colour], float)
        nearest = np.abs(inside[:, None] - tones).sum(2).min(1)
        assert (nearest < 90).mean() > 0.05, phrase(placed.thing)


def _question(asked: dict[str, Any]) -> tuple[bytes, str]:
    (message,) = asked["messages"]
    text = next(part["text"] for part in message["content"] if part["type"] == "text")
    image = next((part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"), "")
    return base64.b64decode(image.partition(",")[2]), text


def _completion(content: str, trouble: str) -> dict[str, Any]:
    content = {"broken": content[: len(content) // 2], "empty": ""}.get(trouble, content)
    message = {"role": "assistant", "content": content}
    return {
        "id": "stub", "object": "chat.completion", "created": 0, "model": "stub",
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if trouble == "broken" else "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
    }  # fmt: skip


def _send(handler: BaseHTTPRequestHandler, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
    body = json.dumps(answer).encode()
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def main() -> None:
    """Serve until the process is ended."""
    import argparse

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scenes", type=int, default=200)
    arguments.add_argument("--port", type=int, default=8000)
    given = arguments.parse_args()
    with Stub(range(given.scenes), port=given.port) as stub:
        print(stub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
