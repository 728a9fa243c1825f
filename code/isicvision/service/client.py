"""The client of a scoring service, on this machine or in Azure."""

import base64
import http.client
import io
import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.util import Retry

from .. import dicom, patient
from ..archive.transfer import Session, TransferError
from ..checks import is_number, is_whole
from ..errors import IsicVisionError
from ..images import MAX_PIXELS, ImageError, content, decode, upright
from ..text import redacted, secret

MAX_BYTES = 20 * 2**20  # of an image fetched from the web, and of a request: the service accepts no more
MAX_IMAGES = 64  # of one lesion: the service accepts no more in a request
ImageInput = str | Path | bytes | Image.Image | np.ndarray


class ServiceError(IsicVisionError, RuntimeError):
    """Raised if a service fails, rejects a request or does not answer; `status` is its HTTP status, or None."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class ServiceClient:
    """Send images to a scoring service, whose address, `url`, is like ``http://127.0.0.1:5001/score``.

    An image is a path, an http(s) address (which this client fetches, at most 20 MiB: the service fetches nothing),
    the bytes of a file, a Pillow image, or a uint8 array (height, width, 3). It retries lost connections, 429 and 503.

    `key` is the service's key or token; read it from the environment. `timeout` is in seconds, for the next bytes of an
    answer, and for a whole image from the web. With the `image_size` and `interpolation` in model.json, the client cuts
    and resizes images exactly as the service does, and sends the square if it has fewer bytes: the scores stay the
    same. Of a DICOM file only the image is sent. `class_map` gives the labels in the answers other names:
    ``{"malignant": "refer"}``.

    >>> ServiceClient("http://127.0.0.1:5001/score").score("lesion.jpg")  # doctest: +SKIP
    {'label': 'benign', 'scores': {'benign': 0.93, 'malignant': 0.07}}
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout: float = 30,
        image_size: int | None = None,
        interpolation: str = "bilinear",
        class_map: dict[str, str] | None = None,
    ):
        self.scoring_uri, self.image_size, self.interpolation = url, image_size, interpolation
        self.class_map, self._timeout = dict(class_map or {}), timeout
        key = secret(key, "the service's key")
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{redacted(url)} is no address such as http://127.0.0.1:5001/score")
        if not is_number(timeout, 0.001):
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        if image_size is not None and not is_whole(image_size, 1):
            raise ValueError(f"image_size must be a whole number of pixels from 1, not {image_size!r}")
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/octet-stream"
        retry = Retry(
            3, status_forcelist=(429, 503), allowed_methods=None, backoff_factor=0.3, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=32))
        if key:  # the user's .netrc would replace a mere header, and no attribute is to show the key
            headers = {"Authorization": f"Bearer {key}"}
            self._session.auth = lambda request: request.headers.update(headers) or request

    def score(
        self,
        image: ImageInput,
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
        neighbors: int = 0,
    ) -> dict:
        """Score one image: ``{"label": "malignant", "scores": {"benign": 0.1, "malignant": 0.9}}``.

        With an `age` in years, a `sex` or a `site`, ``with_patient`` is the answer that uses them. With `neighbors`,
        up to 20, so many training images are listed: ``{"image": …, "label": …, "distance": …}``. An image that cannot
        be read, or that the service refuses, gives ``{"error": "lesion.jpg: it is blurred"}``. Raises ServiceError if
        the service itself fails, does not answer or knows no neighbors, ValueError if an age is impossible.
        """
        given = patient.known({"age": age, "sex": sex, "site": site})
        try:
            body = self._prepare(image)
        except (OSError, ImageError) as error:
            return {"error": str(error)}
        if given:  # not in the address, which others log
            body = json.dumps([{"image_in_base64": base64.b64encode(body).decode(), **given}]).encode()
        answer = self._ask(body, bool(given), {"neighbors": neighbors} if neighbors else None)
        return self._named(answer["predictions"][0], image)

    def score_lesion(
        self,
        images: Iterable[ImageInput],
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
    ) -> dict:
        """Score one lesion by several images, in one request: one answer, from the mean of the images' log-odds.

        It has the lesion's ``label`` and ``scores``, the number of ``images`` used, and ``predictions``: for each image
        what `score` returns. Age, sex and site are as there. Images that the service refuses are left out; if it
        refuses all, the answer has an ``error`` and no scores. Raises OSError if an image cannot be read, ValueError if
        there are none or more than 64, or they take more than 20 MiB in base64, and ServiceError as `score` does.

        >>> ServiceClient("http://127.0.0.1:5001/score").score_lesion(["near.jpg", "far.jpg"])  # doctest: +SKIP
        {'label': 'benign', 'scores': {'benign': 0.91, 'malignant': 0.09}, 'images': 2, 'predictions': [...]}
        """
        if isinstance(images, (str, Path, bytes)) or not 0 < len(images := [*images]) <= MAX_IMAGES:
            raise ValueError(f"score_lesion takes a list of 1 to {MAX_IMAGES} images of one lesion")
        texts = [base64.b64encode(self._prepare(image)).decode() for image in images]
        given = patient.known({"age": age, "sex": sex, "site": site})
        items = [{"image_in_base64": text, **given} for text in texts]
        body = json.dumps({"images": items, "together": True}).encode()
        if len(body) > MAX_BYTES:
            raise ValueError(
                f"the {len(texts)} images take {len(body) / 2**20:.1f} MiB in base64, and the service accepts "
                f"{MAX_BYTES // 2**20}: give this client the network's image_size, or send fewer images"
            )
        answer = self._ask(body, is_json=True)
        if not {"lesion", "message"} & answer.keys():
            raise ServiceError(f"{redacted(self.scoring_uri)} is too old for this: build its bundle again")
        lesion = self._rename(answer["lesion"]) if "lesion" in answer else {"error": answer["message"]}
        return lesion | {"predictions": [*map(self._named, answer["predictions"], images)]}

    def score_many(self, images: Iterable[ImageInput], connections: int = 4) -> list[dict]:
        """Score images over several connections at a time; return what `score` returns for each, in their order."""
        if isinstance(images, (str, Path, bytes)) or not is_whole(connections, 1):
            raise ValueError(f"give a list of images, and a whole number of connections, not {connections!r}")
        images = list(images)
        pool = ThreadPoolExecutor(connections)
        try:
            answers = pool.map(self.score, images)
            return list(tqdm(answers, total=len(images), desc="scoring", unit="image", leave=False))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be tried

    def timing(self, image: ImageInput) -> dict[str, float | None]:
        """Send one image over a new connection, without a proxy; return where the milliseconds go.

        ``prepare`` the bytes, ``connect`` (name look-up and TLS included), ``send`` the request, ``wait`` for the
        first byte of the answer, whatever its status, ``read`` the rest, and their ``total``. ``service`` is the part
        of ``wait`` that the service itself reports, or None. Raises ServiceError if no answer comes.
        """
        address = urlsplit(self.scoring_uri)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(address.netloc, timeout=self._timeout)
        marks = [time.perf_counter()]
        body = self._prepare(image)
        request = self._session.prepare_request(requests.Request("POST", self.scoring_uri, data=body))
        try:
            marks.append(time.perf_counter())
            connection.connect()
            marks.append(time.perf_counter())
            connection.request("POST", request.path_url, body, dict(request.headers))
            marks.append(time.perf_counter())
            response = connection.getresponse()
            marks.append(time.perf_counter())
            response.read()
            marks.append(time.perf_counter())
        except (OSError, http.client.HTTPException) as error:
            raise self._unanswered(error) from None  # the error would repeat the address, and a secret in it
        finally:
            connection.close()
        steps = ("prepare", "connect", "send", "wait", "read")
        times = dict(zip(steps, (1000 * np.diff(marks)).tolist(), strict=True))
        service = response.headers.get("x-ms-run-fn-exec-ms")
        return times | {"total": sum(times.values()), "service": float(service) if service else None}

    def _named(self, answer, image):
        """Return the service's answer to an image with the names of labels and file that the user knows."""
        if "error" not in answer:
            return self._rename(answer)
        name = redacted(image) if isinstance(image, (str, Path)) else "the image"
        return answer | {"error": answer["error"].replace("the image", name, 1)}

    def _prepare(self, image):
        if isinstance(image, str) and re.match(r"[a-zA-Z][\w+.-]*://", image):
            image = _fetch(image, self._timeout)
        data = _to_bytes(image)
        if self.image_size:
            with suppress(ImageError):  # the service gives the reason
                square = decode(data, self.image_size, self.interpolation)
                return min(data, _to_bytes(square), key=len)
        return data

    def _ask(self, body, is_json, query=None, attempts=3):
        """Post an image, or JSON with several, and return the service's answer, with a prediction an image."""
        kind = {"Content-Type": "application/json"} if is_json else {}
        options = {"timeout": self._timeout, "allow_redirects": False}  # key and image go to no other address
        try:
            response = self._session.post(self.scoring_uri, body, headers=kind, params=query, **options)
        except requests.RequestException as error:
            # an answer cut short, which Retry does not see
            if isinstance(error, requests.exceptions.ChunkedEncodingError) and attempts > 1:
                return self._ask(body, is_json, query, attempts - 1)
            raise self._unanswered(error) from None
        # Azure's managed endpoints answer 424 for any error of the service and put its own status here
        status = int(response.headers.get("ms-azureml-model-error-statuscode", response.status_code))
        try:
            answer = response.json()
            if status in (200, 422) and answer["predictions"][0]:
                return answer
            message = answer["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            message = response.text[:300].strip() or response.reason
        raise ServiceError(f"{redacted(self.scoring_uri)} answered {status}: {message}", status)

    def _rename(self, answer):
        if not self.class_map:
            return answer
        names = {label: self.class_map.get(label, label) for label in answer["scores"]}
        if strange := self.class_map.keys() - names.keys():
            raise ValueError(f"class_map names {min(strange)!r}; the service's labels are {', '.join(names)}")
        if len(set(names.values())) < len(names):
            raise ValueError(f"class_map gives two of the labels {', '.join(names)} one name")
        renamed = {key: names[answer[key]] for key in ("label", "positive") if key in answer}
        scores = {names[label]: score for label, score in answer["scores"].items()}
        if "neighbors" in answer:
            renamed["neighbors"] = [each | {"label": names[each["label"]]} for each in answer["neighbors"]]
        if "with_patient" in answer:
            renamed["with_patient"] = self._rename(answer["with_patient"])
        return answer | renamed | {"scores": scores}

    def _unanswered(self, error):
        return ServiceError(
            f"no answer from {redacted(self.scoring_uri)} ({type(error).__name__}): check the address and that a "
            "service runs there; deploy_local(bundle) starts one on this machine"
        )


def _to_bytes(image):
    """Return an image as the bytes of a file; arrays and Pillow images become PNG, which loses nothing."""
    if isinstance(image, (str, Path, bytes, bytearray)):
        data = content(image)
        if data[128:132] != b"DICM":
            return data
        full, inner = decode(image), dicom.content(data, MAX_PIXELS)  # the header stays here
        return _to_bytes(inner if isinstance(inner, bytes) and inner.startswith(b"\xff\xd8") else full)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an array is uint8, (height, width, 3), not {image.dtype}, {image.shape}")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"an image is a path, bytes, an array or one of Pillow, not {type(image).__name__}")
    image = upright(image)  # PNG would lose the orientation
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # not in PNG
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _fetch(url, seconds):
    """Return the content of an http(s) address: at most MAX_BYTES, within `seconds`; OSError if that fails."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{redacted(url)}: images are fetched over http and https only")
    try:
        # a session of its own: the service's would send the key
        with Session(url, timeout=(seconds, seconds, seconds)) as session:
            return session.read(url, MAX_BYTES)
    except TransferError as error:  # whose cause would repeat the address
        raise OSError(f"{redacted(url)} cannot be fetched: {error}") from None
