"""Entry script of the web service: images come in over HTTP, scores go out.

Azure ML calls `init` once in every worker process and `run` for every request. The script is part of the service's
bundle, beside images.py and dicom.py, the preprocessing of the training, nearest.py and patient.py. It needs only
numpy, Pillow, ONNX Runtime and Azure's inference server. It takes four kinds of body:

    curl SCORING_URI -H "Content-Type: image/jpeg" --data-binary @lesion.jpg
    curl SCORING_URI -F file=@lesion.jpg -F file=@another.jpg
    curl SCORING_URI -H "Content-Type: application/json" -d '[{"image_in_base64": "..."}]'
    curl SCORING_URI -H "Content-Type: application/json" -d '{"images": ["...", "..."]}'

With "together": true beside "images", the images show one lesion, and the answer has its scores too.
SCORING_URI?neighbors=3 names the three training images most like each image, if the bundle was built with them.
SCORING_URI?saliency=1 also returns the image with the regions marked that speak for its label. An object of the list
may have "age", "sex" and "site"; SCORING_URI?age=55&sex=male&site=back are those of all images of the request.
"""

import base64
import ctypes
import hashlib
import io
import json
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by the import; otherwise ONNX Runtime reports to its maker
import onnxruntime
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the server looks for modules only in its working folder
import images as preprocessing  # noqa: E402
import nearest  # noqa: E402
import patient  # noqa: E402
import requestlog  # noqa: E402

MAX_IMAGES = 64
LIMIT = 1.0001  # largest distance: 1, that of one of the held-out images, and room for rounding
MAX_BYTES = 20 * 2**20  # per request
MAX_DRAIN = 5 * MAX_BYTES
CHUNK = 4  # images decoded and scored at a time: limits the memory that a large request takes
MIN_SIDE = 24  # pixels
preprocessing.MAX_PIXELS = 50_000_000  # fewer than in training: several workers share the memory
warnings.filterwarnings("ignore", module="PIL")  # Python would keep each of them in memory for good
BLANK, BLURRED = 4.0, 1.1  # gray levels, see _problem
GRID = 8  # patches along a side, for the saliency
USAGE = (
    'POST JSON, [{"image_in_base64": "..."}, ...] or {"images": ["...", ...]}, '
    "one image as it is with -H 'Content-Type: image/jpeg', or a form with files."
)

# set by init
metadata = None  # the content of model.json
session = None  # the network
outputs = None  # the names of its outputs: "scores" and perhaps "distance" and "embedding"
gallery = None  # the training images to be found by their embeddings, if the bundle has them


class RefusedError(Exception):
    """Raised for a request that cannot be answered, with the HTTP status and a sentence for the client."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def init():
    """Load the model, or stop the service at once with the reason in its log."""
    global metadata, session, outputs, gallery
    _return_memory()
    folder = _find_model()
    metadata = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    modules = preprocessing, preprocessing.dicom, nearest, patient
    imported = {os.path.basename(module.__file__): module.__file__ for module in modules}
    for name, expected in metadata["sha256"].items():
        path = Path(imported.get(name, folder / name))
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise RuntimeError(
                f"{name} is not the file that the bundle was built with: build the bundle again"
            )

    options = onnxruntime.SessionOptions()  # the workers share the cores
    options.intra_op_num_threads = max(1, os.cpu_count() // int(os.environ.get("WORKER_COUNT", 1)))
    # so that idle threads leave their core to others
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
    given = {output.name for output in session.get_outputs()}
    outputs = [name for name in ("scores", "distance", "embedding") if name in given]
    gallery = nearest.Gallery.load(folder / "neighbors.npz") if "embedding" in given else None
    black = np.zeros((1, metadata["image_size"], metadata["image_size"], 3), np.uint8)
    shape = session.run(outputs, {"images": black})[0].shape  # also the warm-up
    if shape != (1, len(metadata["labels"])):
        raise RuntimeError(f"model.onnx answers {shape} for one image and {len(metadata['labels'])} labels")


def _return_memory():
    """Make glibc return free blocks of 4 MiB and more: otherwise every thread keeps its largest request."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**22)  # M_MMAP_THRESHOLD, which otherwise grows to 32 MiB
        libc.mallopt(-1, 2**24)  # M_TRIM_THRESHOLD; otherwise each request allocates its memory anew
    except (AttributeError, OSError, TypeError):
        pass  # another C library


def _find_model():
    """Return the folder of model.onnx: in AZUREML_MODEL_DIR (Azure's registered model) if that is set, else here."""
    mounted = os.environ.get("AZUREML_MODEL_DIR")
    if not mounted:
        return HERE
    found, seen = [], set()
    for folder, below, files in os.walk(mounted, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:  # a link to a folder already searched
            below.clear()
        elif "model.onnx" in files:
            found.append(Path(folder))
        seen.add(real)
    if len(found) > 1:
        raise RuntimeError(
            f"AZUREML_MODEL_DIR holds several models, in {', '.join(map(str, found))}: keep one"
        )
    if not found:
        there = "which holds no model.onnx" if os.path.isdir(mounted) else "which is not a folder"
        raise RuntimeError(
            f"AZUREML_MODEL_DIR is {mounted}, {there}: register the bundle's folder as the model, or unset the "
            "variable to serve the model beside score.py"
        )
    return found[0]


@rawhttp
@requestlog.logged
def run(request):
    """Answer one request; status 500 means a fault of the service itself."""
    if any(name in request.args for name in patient.NAMES):
        request.query_string = b"..."  # the server logs it
    if request.method == "OPTIONS":  # a browser's question before it posts from another site
        return AMLResponse("", 200)
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        return _page()
    if request.method != "POST":
        return AMLResponse({"message": USAGE}, 405, {"Allow": "POST"}, json_str=True)
    try:
        images, people, together = _read_images(request)
        explain = request.args.get("saliency") == "1"
        if explain and len(images) > 1:
            raise RefusedError(400, f"Saliency takes one image at a time, not {len(images)}.")
        neighbors = _neighbors(request.args.get("neighbors", "0"))
    except RefusedError as refusal:
        return AMLResponse({"message": str(refusal)}, refusal.status, json_str=True)

    predictions = []
    for start in range(0, len(images), CHUNK):
        predictions += predict(images[start : start + CHUNK], explain, neighbors)
    for prediction, person in zip(predictions, people, strict=True):
        if person and "scores" in prediction:
            prediction["with_patient"] = _with_patient(prediction, person)
    answer = {
        "predictions": predictions,
        "model": {"id": metadata["id"], "version": metadata["version"]},
        "caveat": metadata["caveat"],
    }
    scored = [prediction["scores"] for prediction in predictions if "scores" in prediction]
    if together and scored:
        answer["lesion"] = _averaged(scored)
        if people[0]:
            answer["lesion"]["with_patient"] = _with_patient(answer["lesion"], people[0])
    if all("error" in prediction for prediction in predictions):
        message = f"No image could be scored: {predictions[0]['error'].removeprefix('the image: ')}"
        return AMLResponse({"message": message, **answer}, 422, json_str=True)
    return AMLResponse(answer, 200, json_str=True)


def _page():
    """Answer a browser with page.html, in which only its own script may run and talk only to this service."""
    html = (HERE / "page.html").read_text(encoding="utf-8")
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    policy += "; connect-src 'self'; img-src blob: data:"
    for tag in ("script", "style"):
        inline = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        policy += f"; {tag}-src 'sha256-{digest}'"
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return AMLResponse(html, 200, headers)


def _read_images(request):
    """Return the images of a request, as bytes or base64, what is given of each patient, and if they are one lesion."""
    body, given, together = _read_body(request), _given(request.args), False
    if not body:
        raise RefusedError(400, f"The body is empty. {USAGE}")
    kind = request.mimetype
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/dicom"):
        return [body], [given], False
    if request.mimetype == "multipart/form-data":
        images = _read_form(body, request.mimetype_params)
        people = [given] * len(images)
    else:  # whatever the Content-Type: `curl -d` says application/x-www-form-urlencoded
        images, people, together = _read_json(body, given)
    if len(images) > MAX_IMAGES:
        raise RefusedError(413, f"{len(images)} images in one request: at most {MAX_IMAGES} are scored.")
    return images, people, together


def _given(source):
    """Return the age, sex and site in a query or an object, once they are known to be possible."""
    given = {name: source[name] for name in patient.NAMES if name in source}
    try:
        patient.known(given)
    except ValueError as error:
        raise RefusedError(400, f"{error}. Leave out what is not known.") from error
    return given


def _neighbors(text):
    """Return how many training images are asked for with each image."""
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > nearest.MOST:
        raise RefusedError(400, f"neighbors is a whole number from 0 to {nearest.MOST}, not {text[:50]!r}.")
    if int(text) and gallery is None:
        how = "build its bundle with build_bundle(model, folder, neighbors=Neighbors(model, training))"
        raise RefusedError(400, f"This service knows no training images: {how}.")
    return int(text)


def _read_body(request):
    """Keep at most MAX_BYTES and drain the rest: many clients read no answer while they send."""
    body, seen = bytearray(), 0
    too_large = (request.content_length or 0) > MAX_BYTES
    try:
        while seen < MAX_DRAIN and (block := request.stream.read(2**16)):
            seen += len(block)
            too_large = too_large or seen > MAX_BYTES
            if not too_large:
                body += block
    except Exception as error:  # the client hung up or sent broken chunks: each server has its own exceptions
        raise RefusedError(400, "The body ended too early.") from error
    if too_large:
        raise RefusedError(
            413, f"The body is larger than {MAX_BYTES // 2**20} MiB: send fewer or smaller images."
        )
    return bytes(body)


def _read_form(body, options):
    parser = FormDataParser(
        lambda *_, **__: io.BytesIO(),  # otherwise large files are written to the disk
        max_form_memory_size=MAX_BYTES,
        max_form_parts=10 * MAX_IMAGES,
        silent=False,
    )
    try:
        _, _, files = parser.parse(io.BytesIO(body), "multipart/form-data", len(body), options)
    except (ValueError, HTTPException) as error:  # without boundary or end, or with too many parts
        raise RefusedError(400, f"The form cannot be read. {USAGE}") from error
    if not files:
        raise RefusedError(400, f"The form has no file. {USAGE}")
    return [file.read() for _, file in files.items(multi=True)]


def _read_json(body, given):
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested a thousand deep
        raise RefusedError(400, f"The body is not valid JSON. {USAGE}") from error
    document = document if isinstance(document, dict) else {"images": document}
    items, together = document.get("images"), document.get("together", False)
    if not isinstance(items, list) or not items:
        raise RefusedError(400, f"The JSON has no list of images. {USAGE}")
    texts = [item.get("image_in_base64") if isinstance(item, dict) else item for item in items]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RefusedError(400, f"Item {index} of the list is not an image as base64 text. {USAGE}")
    if not isinstance(together, bool):
        raise RefusedError(400, f"together is true or false, not {json.dumps(together)[:50]}. {USAGE}")
    people = [given | _given(item) if isinstance(item, dict) else given for item in items]
    if together:
        people = [patient.known(each) for each in people]
        person = {name: value for each in people for name, value in each.items()}
        if any(person | each != person for each in people):
            raise RefusedError(400, "The images of one lesion have one age, one sex and one site.")
        people = [person] * len(people)
    return texts, people, together


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def predict(images, explain=False, neighbors=0):
    """Score a few images; a refused one gets {"error": reason} in its place."""
    decoded = preprocessing.map_threads(_decode, images)
    readable = [array for array in decoded if isinstance(array, np.ndarray)]
    results = session.run(outputs, {"images": np.stack(readable)}) if readable else ()
    results = (dict(zip(outputs, each, strict=True)) for each in zip(*results, strict=True))
    predictions = [
        {"error": f"the image: {each}"}
        if isinstance(each, str)
        else _prediction(**next(results), neighbors=neighbors)
        for each in decoded
    ]
    if explain and "label" in predictions[0]:
        predictions[0]["saliency"] = _saliency(decoded[0], metadata["labels"].index(predictions[0]["label"]))
    return predictions


def _saliency(array, label):
    """Return the image, red where hiding a part lowers the score of the label most: a JPEG in a data: address.

    Occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014) with a patch of the
    image's mean color, two cells of the grid wide, at every place. It is coarse but needs no gradients.
    """
    size = len(array)
    edges = np.linspace(0, size, GRID + 1).round().astype(int)
    places = [(row, column) for row in range(GRID - 1) for column in range(GRID - 1)]
    variants = np.stack([array] * (len(places) + 1))
    for variant, (row, column) in zip(variants[1:], places, strict=True):
        patch = variant[edges[row] : edges[row + 2], edges[column] : edges[column + 2]]
        patch[:] = array.mean(axis=(0, 1)).round()
    scores = [
        session.run(["scores"], {"images": variants[start : start + CHUNK]})[0][:, label]
        for start in range(0, len(variants), CHUNK)
    ]
    scores = np.clip(np.concatenate(scores).astype(float), 1e-6, 1 - 1e-6)
    evidence = np.log(scores / (1 - scores))  # unlike a score near 1, its logarithm moves
    drops, counts = np.zeros((GRID, GRID), np.float32), np.zeros((GRID, GRID), np.float32)
    for (row, column), after in zip(places, evidence[1:], strict=True):
        drops[row : row + 2, column : column + 2] += evidence[0] - after
        counts[row : row + 2, column : column + 2] += 1
    heat = np.asarray(Image.fromarray(drops / counts).resize((size, size), Image.BICUBIC))[..., None]
    weight = 0.6 * np.clip(heat / max(heat.max(), 1e-9), 0, 1)
    shown = Image.fromarray((array * (1 - weight) + np.array([255, 0, 0]) * weight).astype(np.uint8))
    return preprocessing.data_url(shown)


def _prediction(scores, distance=None, embedding=None, neighbors=0):
    known = {} if distance is None else {"distance": float(distance)}
    if distance is not None and distance > LIMIT:
        reason = f"it is too unlike the training images (distance {distance:.2f}, limit 1.00)"
        return {"error": f"the image: {reason}", **known}
    if neighbors:
        known["neighbors"] = gallery.search(embedding[None], neighbors)[0]
    return _decided(scores) | known


def _decided(scores):
    """Return the label of some scores, the scores by label and, if the model has one, the threshold."""
    by_label = dict(zip(metadata["labels"], map(float, scores), strict=True))
    decision = metadata.get("decision")
    if decision is None:
        return {"label": max(by_label, key=by_label.get), "scores": by_label}
    positive, threshold = decision["positive"], decision["threshold"]
    other = next(label for label in by_label if label != positive)
    label = positive if by_label[positive] >= threshold else other
    return {"label": label, "scores": by_label, "threshold": threshold, "positive": positive}


def _averaged(scored):
    """Return the answer for one lesion from the scores of its images, averaged as log-odds."""
    scores = np.array([[*each.values()] for each in scored])
    if len(scored) > 1:
        mean = np.exp(np.log(np.clip(scores, patient.SURE, 1)).mean(axis=0))
        scores = mean[None] / mean.sum()
    return _decided(scores[0]) | {"images": len(scored)}


def _with_patient(prediction, given):
    """Return the label and score of an image with what is given of the patient, and what of it was used."""
    numbers, known = metadata.get("patient"), patient.known(given)
    used = patient.added(numbers, known) if numbers else ()
    answer = {name: prediction[name] for name in ("label", "scores", "threshold") if name in prediction}
    if used:
        positive, decision = numbers["positive"], numbers["decision"]
        other = next(label for label in metadata["labels"] if label != positive)
        pair = prediction["scores"][positive], prediction["scores"][other]
        score = patient.score(numbers, *pair, known)
        scores = {label: score if label == positive else 1 - score for label in metadata["labels"]}
        threshold = {} if decision is None else {"threshold": decision["threshold"]}
        is_positive = score >= threshold.get("threshold", 0.5)
        answer = {"label": positive if is_positive else other, "scores": scores, **threshold}
    left = {name: _unused(numbers, known, name) for name in given if name not in used}
    return {**answer, "used": [name for name in patient.NAMES if name in used], "not_used": left}


def _unused(numbers, known, name):
    """Say why a value was not used; its own words stay out of the answer, which servers may log."""
    learned = [value for each, value, _ in numbers["added"] if each == name] if numbers else []
    if not learned:
        return "this model takes none"
    return f"it is none of {', '.join(learned)}" if name in known else "it is not known"


def _decode(image):
    """Return one image as an array, or the reason why it is refused."""
    try:
        if isinstance(image, str):
            encoded = image.partition(",")[2] if image.startswith("data:") else image
            image = base64.b64decode("".join(encoded.split()), validate=True)
        interpolation = metadata.get("interpolation", "bilinear")
        array = preprocessing.decode(image, metadata["image_size"], interpolation, MIN_SIDE)
        return _problem(array) or array
    except preprocessing.ImageError as error:
        return str(error).removeprefix("the image: ")
    except ValueError:
        return "it is not valid base64"


def _problem(array):
    """Say what is wrong with an image that shows nothing; None if it shows something.

    None of 7,006 dermoscopic images of HAM10000, at 160 and 224 pixels, has less contrast or sharpness.
    """
    # ten times as fast as array.mean(axis=2)
    gray = sum(array[..., channel].astype(np.float32) for channel in range(3)) / 3
    if gray.std() < BLANK:
        return "it is blank: nothing stands out from the background"
    # the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000)
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    if (around - 4 * gray[1:-1, 1:-1]).std() < BLURRED:
        return "it is blurred: it shows no detail"
    return None
