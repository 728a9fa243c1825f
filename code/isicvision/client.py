"""The client of a scoring service, on this machine or in Azure."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
from PIL import Image, ImageOps
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.util import Retry


class ServiceError(RuntimeError):
    """The service refused, failed or is not there; `status` is its HTTP status, None if no answer came."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class ServiceClient:
    """Send pictures to a scoring service, on this machine or in Azure.

    A picture is a path, the bytes of a file, a Pillow image, or a uint8 array of shape (height, width, 3).
    Lost connections and the statuses 429 and 503 are tried again: to score twice does no harm.

    `url` is the scoring URI (``http://127.0.0.1:5001/score``), `timeout` the seconds to wait for an answer,
    `key` the service's key or token: read it from the environment, it has no place in a notebook.
    """

    def __init__(self, url, key=None, timeout=30):
        self.scoring_uri = url
        self._timeout = timeout
        self._session = requests.Session()
        busy = (429, 503)
        retry = Retry(
            3, status_forcelist=busy, allowed_methods=None, backoff_factor=0.3, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=32))
        if key:  # as `auth`, because the user's .netrc would replace a mere header
            self._session.auth = lambda request: (
                request.headers.update(Authorization=f"Bearer {key}") or request
            )

    def score(self, picture):
        """Score one picture: ``{"label": "malignant", "scores": {"benign": 0.1, "malignant": 0.9}}``.

        Raises ServiceError if the service cannot read the picture (its status is 422 then), refuses the
        request or is not there; OSError if `picture` is a path that cannot be read.
        """
        prediction = self._ask(_to_bytes(picture))
        if "error" in prediction:
            name = str(picture) if isinstance(picture, (str, Path)) else "the picture"
            raise ServiceError(prediction["error"].replace("the picture", name, 1), status=422)
        return prediction

    def score_many(self, pictures, connections=4):
        """Score a sequence of pictures, `connections` at a time; return a list of dict in their order.

        Each is as of `score`, or ``{"error": reason}`` for a picture that cannot be read. Raises ServiceError
        if the service itself fails or is not there.
        """

        def ask(picture):
            try:
                return self.score(picture)
            except (ServiceError, OSError) as error:
                if isinstance(error, ServiceError) and error.status != 422:
                    raise
                return {"error": str(error)}

        pictures = list(pictures)
        pool = ThreadPoolExecutor(connections)
        try:
            answers = pool.map(ask, pictures)
            return list(tqdm(answers, total=len(pictures), desc="scoring", unit="picture", leave=False))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be tried

    def _ask(self, body):
        """Post one picture and return the service's answer to it, which may be {"error": reason}."""
        try:
            response = self._session.post(
                self.scoring_uri,
                data=body,
                headers={"Content-Type": "application/octet-stream"},
                timeout=self._timeout,
                allow_redirects=False,  # key and picture go to this address and to no other
            )
        except requests.RequestException as error:
            raise ServiceError(
                f"no answer from {self.scoring_uri} ({type(error).__name__}). Is that the scoring URI of a "
                "running service? `deploy_local(bundle)` starts one on this machine."
            ) from error
        # Azure's managed endpoints answer 424 for any error of the service, whose own status is here
        status = int(response.headers.get("ms-azureml-model-error-statuscode", response.status_code))
        try:
            answer = response.json()
            if status in (200, 422):
                return answer["predictions"][0]
            message = answer["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            message = response.text[:300].strip() or response.reason
        raise ServiceError(f"{self.scoring_uri} answered {status}: {message}", status)


def _to_bytes(picture):
    """Return a picture as the bytes of a file; pixels are written as PNG, which loses nothing."""
    if isinstance(picture, (bytes, bytearray)):
        return bytes(picture)
    if isinstance(picture, (str, Path)):
        return Path(picture).read_bytes()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"an array of uint8 (height, width, 3) is sent, not {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    picture = ImageOps.exif_transpose(picture)  # PNG would lose which side is up
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # not in PNG
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
