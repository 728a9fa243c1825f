"""The client of a scoring service, on this machine or in Azure."""

import http.client
import io
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from .. import images as pixels
from ..checks import is_number, is_whole
from ..text import redacted, secret

MAX_BYTES = 20 * 2**20  # of an image fetched from the web: the service takes no more
TYPE = "application/octet-stream"
ImageInput = str | Path | bytes | Image.Image | np.ndarray


class ServiceError(RuntimeError):
    """The service refused, failed or is not there; `status` is its HTTP status, None if no answer came."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class ServiceClient:
    """Send images to a scoring service, on this machine or in Azure.

    An image is a path, an http(s) address (fetched here, at most 20 MiB: the service fetches nothing), the bytes
    of a file, a Pillow image, or a uint8 array of shape (height, width, 3). Lost connections and the statuses 429
    and 503 are tried again: to score twice does no harm.

    Parameters
    ----------
    url
        The scoring URI, such as ``http://127.0.0.1:5001/score``.
    key
        The service's key or token: read it from the environment, it has no place in a notebook.
    timeout
        Seconds to wait for the next bytes of an answer, and for the whole of an image on the web.
    image_size
        The network's, in pixels (model.json has it, and the `interpolation`): images are then cut and resized here,
        exactly as the service would, and sent as that square if it is fewer bytes. The scores stay the same; an
        image of 12 megapixels is sent as some 100 kB. What the service refuses, it then refuses by the square.
    interpolation : "bilinear" or "bicubic"
        Of that resizing.
    class_map
        Other names for the service's labels in the answers, ``{"malignant": "refer"}``; those not in it stay.
        ValueError if two labels would get one name.
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
        self.scoring_uri = url
        self.image_size = image_size
        self.interpolation = interpolation
        self.class_map = dict(class_map or {})
        # no attribute shows the key
        key = secret(key, "the service's key")
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(
                f"{redacted(url)} is no address of a service, such as http://127.0.0.1:5001/score"
            )
        if not is_number(timeout, 0.001):
            raise ValueError(f"timeout is a number of seconds above 0, not {timeout!r}")
        if image_size is not None and not is_whole(image_size, 1):
            raise ValueError(f"image_size is a whole number of pixels from 1, not {image_size!r}")
        self._authorization = lambda: {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._session = requests.Session()
        retry = Retry(
            3, status_forcelist=(429, 503), allowed_methods=None, backoff_factor=0.3, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=32))
        if key:  # as `auth`, because the user's .netrc would replace a mere header
            self._session.auth = lambda request: request.headers.update(self._authorization()) or request

    def score(self, image: ImageInput) -> dict:
        """Score one image: ``{"label": "malignant", "scores": {"benign": 0.1, "malignant": 0.9}}``.

        Raises ServiceError if the service cannot read the image (its status is 422 then), refuses the
        request or is not there; OSError if `image` is a path or an address that cannot be read.
        """
        prediction = self._ask(self._prepare(image))
        if "error" in prediction:
            name = redacted(image) if isinstance(image, (str, Path)) else "the image"
            raise ServiceError(prediction["error"].replace("the image", name, 1), status=422)
        return self._rename(prediction)

    def _prepare(self, image):
        """Return the bytes to send."""
        if isinstance(image, str) and re.match(r"[a-zA-Z][\w+.-]*://", image):
            image = _fetch(image, self._timeout)
        data = _to_bytes(image)
        return _smaller(data, self.image_size, self.interpolation) if self.image_size else data

    def _rename(self, prediction):
        if not self.class_map:
            return prediction
        names = {label: self.class_map.get(label, label) for label in prediction["scores"]}
        if strange := self.class_map.keys() - names.keys():
            raise ValueError(f"class_map names {min(strange)!r}; the service's labels are {', '.join(names)}")
        if len(set(names.values())) < len(names):
            raise ValueError(f"class_map gives two of the labels {', '.join(names)} one name")
        scores = {names[label]: score for label, score in prediction["scores"].items()}
        return prediction | {"label": names[prediction["label"]], "scores": scores}

    def score_many(self, images: Iterable[ImageInput], connections: int = 4) -> list[dict]:
        """Score a sequence of images, `connections` at a time; return a list of dict in their order.

        Each is as of `score`, or ``{"error": reason}`` for an image that cannot be read. Raises ServiceError
        if the service itself fails or is not there.
        """

        def ask(image):
            try:
                return self.score(image)
            except (ServiceError, OSError) as error:
                if isinstance(error, ServiceError) and error.status != 422:
                    raise
                return {"error": str(error)}

        if not is_whole(connections, 1):
            raise ValueError(f"connections must be a whole number from 1, not {connections!r}")
        images = list(images)
        pool = ThreadPoolExecutor(connections)
        try:
            answers = pool.map(ask, images)
            return list(tqdm(answers, total=len(images), desc="scoring", unit="image", leave=False))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be tried

    def timing(self, image: ImageInput) -> dict[str, float | None]:
        """Send one image over a new connection and say where the time goes.

        Returns
        -------
        dict of str to float
            Milliseconds to ``prepare`` the bytes, ``connect`` (name look-up and TLS included), ``send`` the
            request, ``wait`` for the first of the answer, ``read`` the rest, and their ``total``. ``service`` is
            the part of ``wait`` that the service itself says it took, None if it does not say. An answer of any
            status counts. No proxy is used.

        Raises
        ------
        ServiceError
            If no answer comes.
        """
        marks = [time.perf_counter()]
        body = self._prepare(image)
        marks.append(time.perf_counter())
        address = urlsplit(self.scoring_uri)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(address.netloc, timeout=self._timeout)
        headers = {"Content-Type": TYPE} | self._authorization()
        path = address.path + (f"?{address.query}" if address.query else "")
        try:
            connection.connect()
            marks.append(time.perf_counter())
            connection.request("POST", path, body, headers)
            marks.append(time.perf_counter())
            response = connection.getresponse()
            marks.append(time.perf_counter())
            response.read()
            marks.append(time.perf_counter())
        except (OSError, http.client.HTTPException) as error:
            raise self._unanswered(error) from self._told(error)
        finally:
            connection.close()
        parts = ("prepare", "connect", "send", "wait", "read")
        times = {name: 1000 * (marks[index + 1] - marks[index]) for index, name in enumerate(parts)}
        service = response.headers.get("x-ms-run-fn-exec-ms")
        return times | {"total": sum(times.values()), "service": float(service) if service else None}

    def _unanswered(self, error):
        return ServiceError(
            f"no answer from {redacted(self.scoring_uri)} ({type(error).__name__}). Is that the scoring URI of a "
            "running service? `deploy_local(bundle)` starts one on this machine."
        )

    def _told(self, error):
        """Return the cause that a traceback may show: none if the address holds a secret, which the cause repeats."""
        return error if redacted(self.scoring_uri) == self.scoring_uri else None

    def _post(self, body, attempts=3):
        try:
            return self._session.post(
                self.scoring_uri,
                data=body,
                headers={"Content-Type": TYPE},
                timeout=self._timeout,
                allow_redirects=False,  # key and image go to this address and to no other
            )
        except requests.exceptions.ChunkedEncodingError:  # an answer cut short, which Retry does not see
            if attempts == 1:
                raise
            return self._post(body, attempts - 1)

    def _ask(self, body):
        """Post one image and return the service's answer to it, which may be {"error": reason}."""
        try:
            response = self._post(body)
        except requests.RequestException as error:
            raise self._unanswered(error) from self._told(error)
        # Azure's managed endpoints answer 424 for any error of the service, whose own status is here
        status = int(response.headers.get("ms-azureml-model-error-statuscode", response.status_code))
        try:
            answer = response.json()
            if status in (200, 422):
                return answer["predictions"][0]
            message = answer["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            message = response.text[:300].strip() or response.reason
        raise ServiceError(f"{redacted(self.scoring_uri)} answered {status}: {message}", status)


def _to_bytes(image):
    """Return an image as the bytes of a file; pixels are written as PNG, which loses nothing."""
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if isinstance(image, (str, Path)):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an array of uint8 (height, width, 3) is sent, not {image.dtype} {image.shape}")
        image = Image.fromarray(image)
    image = pixels.upright(image)  # PNG would lose which side is up
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # not in PNG
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _fetch(url, seconds):
    """Return what lies at an http(s) address: at most MAX_BYTES, in so many seconds; OSError if that fails."""
    name = redacted(url)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{name}: images are fetched over http and https only")
    body, deadline = bytearray(), time.monotonic() + seconds
    try:
        # a connection of its own: the service's key is for the service
        with requests.get(url, stream=True, timeout=seconds) as response:
            response.raise_for_status()
            # read1 returns what has come: a host that sends a byte a second is noticed
            while block := response.raw.read1(2**16, decode_content=True):
                body += block
                if len(body) > MAX_BYTES:
                    raise OSError(f"{name} is larger than {MAX_BYTES // 2**20} MiB: save a smaller copy")
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{name} was not there within {seconds} s: raise timeout, or save a copy"
                    )
    except (requests.RequestException, HTTPError) as error:
        reason = redacted(f"{name} cannot be fetched: {error}")
        raise OSError(reason) from (error if name == url else None)  # which would repeat the address
    return bytes(body)


def _smaller(data, size, interpolation):
    """Return the file of an image as the square that the network sees, if that is fewer bytes."""
    try:
        square = pixels.decode(data, size, interpolation)
    except pixels.ImageError:  # the service has the words for it
        return data
    return min(data, _to_bytes(square), key=len)
