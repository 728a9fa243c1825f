"""The service against ten thousand malformed requests, drawn from a seed; it must stay up, lean and in service.

Damaged images and such as claim to be huge, JSON, base64 and forms that are none, HTTP that is none, bodies of
200 MB, clients that are slow or hang up; a tenth of them asks for the saliency, too. One request in a hundred is good
and must be answered. Of the large bodies the service reads 100 MiB and may then close: "reset" is no fault there, and
"hung up" are the clients that want no answer. HTTP's own 501 and 505 (an unknown Transfer-Encoding or version) are
right answers; any other 5xx, an answer that takes a minute, a worker that ended, or 150 MB more at the end than
after the warm-up is a fault, and this script then exits with 1.
"""

import argparse
import base64
import io
import json
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from isicvision import ImageClassifier, build_bundle, deploy_local

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
GROWTH = 150  # MB
slow = threading.Semaphore(6)  # fewer than the 16 threads of the service


def encoded(size, kind="JPEG", seed=0, cells=8):
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8)).resize(size)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


SOUND = {kind: encoded((120, 90), kind) for kind in KINDS}
GOOD = SOUND["JPEG"]


def choice(random, values):
    return values[random.integers(len(values))]


def damaged(random, data):
    """Cut it short, flip bits, put in noise, or repeat a part."""
    data, kind = bytearray(data), random.integers(4)
    place = int(random.integers(len(data)))
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        for _ in range(random.integers(1, 30)):
            data[random.integers(len(data))] ^= 1 << random.integers(8)
    elif kind == 2:
        data[place : place + 16] = random.bytes(16)
    else:
        data[place:place] = data[place : place + int(random.integers(1, 2000))]
    return bytes(data)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(random):
    """Return a file whose header claims up to 10 gigapixels, or whose little data unpack to 100 MB."""
    side = int(10 ** random.uniform(4, 5))
    kind = random.integers(6)
    header = struct.pack(">IIBBBBB", side, side, int(choice(random, [1, 8, 16])), 0, 0, 0, 0)
    zeros = ZEROS[: random.integers(50, len(ZEROS))] if random.random() < 0.5 else ZEROS
    if kind == 0:
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zeros)
        return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")
    if kind == 1:  # a small image with a large text, or profile
        name = choice(random, [b"zTXt", b"iCCP", b"iTXt"])
        extra = b"a\0\1\0\0\0" + zeros if name == b"iTXt" else b"a\0\0" + zeros
        return SOUND["PNG"][:33] + chunk(name, extra) + SOUND["PNG"][33:]
    if kind == 2:  # JPEG: the frame's height and width, at most 65,535
        place = GOOD.index(b"\xff\xc0") + 5
        return GOOD[:place] + struct.pack(">HH", min(side, 65535), min(side, 65535)) + GOOD[place + 4 :]
    if kind == 3:
        return SOUND["GIF"][:6] + struct.pack("<HH", min(side, 65535), 65535) + SOUND["GIF"][10:]
    if kind == 4:
        return SOUND["BMP"][:18] + struct.pack("<ii", side, side) + SOUND["BMP"][26:]
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


ZEROS = zlib.compress(bytes(100_000_000), 9)
ODD_JSON = [
    *(
        "NaN",
        "[NaN]",
        '{"images": Infinity}',
        "-Infinity",
        "[" * 100_000,
        '{"images":' * 5000,
        "null",
        "[]",
        "{}",
    ),
    *(
        '{"images": {}}',
        "[[]]",
        "[null]",
        "[1e999]",
        "[" + "9" * 10_000 + "]",
        '["\\ud800"]',
        '"',
        "\ufeff[]",
    ),
    *(
        '{"images": ["' + "A" * 5_000_001 + '"]}',
        "[" + '"",' * 5000 + '""]',
        '[{"image_in_base64": 1}]',
        "[true]",
    ),
    *(
        '["data:image/jpeg;base64"]',
        '["data:,"]',
        '["http://127.0.0.1/a.jpg"]',
        '["file:///etc/passwd"]',
        "\0",
        "",
    ),
]
TYPES = [
    *("image/jpeg", "image/png", "image/", "application/json", "application/octet-stream", "text/plain", ""),
    *(
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "application/json; charset=utf-16",
        "a" * 5000,
    ),
    *("multipart/form-data; boundary=" + "b" * 3000, "image/jpeg; q=\xff", "*/*", ";;;=", "image/svg+xml"),
]


def request(body, kind="application/octet-stream", query="", headers="", method="POST"):
    head = f"{method} /score{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{headers}\r\n".encode("latin-1") + body


def in_json(*images):
    return json.dumps({"images": [base64.b64encode(each).decode() for each in images]}).encode()


def form(random):
    part = b"--x\r\nContent-Disposition: form-data; name=a; filename=a.jpg\r\n\r\n" + GOOD + b"\r\n"
    return damaged(random, part * int(random.integers(1, 70)) + b"--x--\r\n")


def strange_head(random, query):
    """Return HTTP that is odd or wrong in its first lines."""
    name = "".join(chr(random.integers(1, 256)) for _ in range(8))
    heads = [
        {"headers": f"x-request-id: {name}\r\n"},
        {"headers": "x-ms-request-id: " + "é" * 200 + "\r\nx-ms-client-request-id: \t\r\n"},
        {"headers": f"{name}: 1\r\n"},
        {"headers": "".join(f"A{n}: {n}\r\n" for n in range(random.integers(1, 300)))},
        {"headers": f"Cookie: {'a' * int(random.integers(1, 20_000))}\r\n"},
        {"headers": "Expect: 100-continue\r\n"},
        {"headers": "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"},
        {"headers": "Content-Encoding: gzip\r\n"},
        {"headers": "Transfer-Encoding: gzip\r\n"},
        {
            "method": choice(
                random, ["GET", "HEAD", "PUT", "DELETE", "TRACE", "PATCH", "OPTIONS", "post", "É"]
            )
        },
        {"query": "?" + name.replace(" ", "")},
        {
            "query": choice(
                random, ["/../../etc/passwd", "//", "?saliency=1&saliency=2", "?" + "a" * 9000, "#", "%00"]
            )
        },
        {"kind": choice(random, TYPES), "headers": f"Content-Type: {choice(random, TYPES)}\r\n"},
    ]
    head = {"query": query} | choice(random, heads)
    data = request(GOOD, **{"kind": "image/jpeg"} | head)
    return data.replace(
        b"HTTP/1.1", choice(random, [b"HTTP/1.1"] * 8 + [b"HTTP/9.9", b"HTTP", b"HTTP/1.0"]), 1
    )


def wrong_length(random, query):
    length = choice(random, ["-1", "1e3", "", "0x10", "0", "9" * 30, str(len(GOOD) + 1), "10", "+5", "5, 6"])
    data = request(GOOD, "image/jpeg", query)
    if random.random() < 0.4:  # chunks, garbled or not
        sizes = choice(random, [b"%x" % len(GOOD), b"zz", b"-1", b"", b"f" * 20, b"5;a=b", b"0"])
        head = data.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n"
        both = b"Content-Length: 5\r\n" if random.random() < 0.3 else b""
        return head + both + b"\r\n" + sizes + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"
    return data.replace(b"Content-Length: %d" % len(GOOD), b"Content-Length: " + length.encode(), 1)


def answer(connection):
    """Return the status of what the service answers."""
    head = connection.recv(2**16)
    while head and connection.recv(2**16):
        pass
    return head.split(b" ")[1].decode("latin-1") if head.startswith(b"HTTP/") else "no answer"


def send(address, parts, pause=0, hang_up=False, timeout=60):
    """Send bytes over a connection of their own; return the status, or what came instead."""
    with socket.create_connection(address, timeout) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if hang_up:  # by a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return "hung up"
            connection.shutdown(socket.SHUT_WR)
            return answer(connection)
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                return "timeout"
            try:  # it may have answered before
                return answer(connection)
            except OSError:
                return "reset"


def large(random, query):
    """Yield 200 MB, half of them in chunks."""
    head = request(
        b"", choice(random, ["image/jpeg", "application/json", "multipart/form-data; boundary=x"]), query
    )
    block = bytes(2**20)
    if random.random() < 0.5:
        yield head.replace(b"Content-Length: 0", b"Content-Length: %d" % (200 * len(block)), 1)
        yield from [block] * 200
    else:
        yield head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked", 1)
        yield from [b"%x\r\n%s\r\n" % (len(block), block)] * 200
        yield b"0\r\n\r\n"


def fuzz(address, kind, random):
    """Send one request of a kind; return what came of it."""
    query = "?saliency=1" if random.random() < 0.1 else ""
    image = damaged(random, SOUND[choice(random, KINDS)])
    if kind == "good":
        return send(address, [request(GOOD, "image/jpeg")])
    if kind == "damaged image":
        return send(address, [request(image, "image/jpeg", query)])
    if kind == "bomb":
        return send(address, [request(bomb(random), "image/png", query)])
    if kind == "noise":
        return send(address, [request(random.bytes(random.integers(5000)), choice(random, TYPES), query)])
    if kind == "JSON":
        body = choice(random, ODD_JSON).encode("utf-8", "surrogatepass")
        body = damaged(random, in_json(GOOD)) if random.random() < 0.3 else body
        return send(address, [request(body, "application/json", query)])
    if kind == "base64":
        bodies = [image, bomb(random), b""]
        return send(
            address, [request(in_json(*bodies[: random.integers(1, 4)]), choice(random, TYPES[3:6]), query)]
        )
    if kind == "form":
        return send(address, [request(form(random), "multipart/form-data; boundary=x", query)])
    if kind == "head":
        return send(address, [strange_head(random, query)])
    if kind == "length":
        return send(address, [wrong_length(random, query)])
    if kind == "no HTTP":
        return send(
            address, [damaged(random, request(GOOD, "image/jpeg", query)[: random.integers(20, 400)])]
        )
    data = request(GOOD, "image/jpeg", query)
    if kind == "200 MB":
        return send(address, large(random, query))
    places = np.sort(random.integers(0, len(data), 5))
    if kind == "slow":
        with slow:
            parts = np.split(np.frombuffer(data, np.uint8), places)
            return send(address, [part.tobytes() for part in parts], 0.2, random.random() < 0.2)
    return send(address, [data[: places[2]]], hang_up=True)  # "aborted"


SHARES = {
    "damaged image": 0.25,
    **{"bomb": 0.1, "noise": 0.1, "JSON": 0.12, "base64": 0.1, "form": 0.06, "head": 0.1, "length": 0.08},
    **{"no HTTP": 0.03, "slow": 0.02, "aborted": 0.04},
}


def memory(processes):
    return sum(process.memory_info().rss for process in processes) / 1e6


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    kinds = random.choice([*SHARES], options.requests, p=np.array([*SHARES.values()]) / sum(SHARES.values()))
    kinds = kinds.astype(object)
    kinds[random.choice(options.requests, min(6, options.requests), replace=False)] = "200 MB"
    kinds[50::100] = "good"
    generators = [np.random.default_rng([options.seed, index]) for index in range(options.requests)]

    with tempfile.TemporaryDirectory() as folder:
        model = ImageClassifier("resnet18", ["benign", "malignant"], weights=None, image_size=96)
        bundle = build_bundle(model, Path(folder, "bundle"))
        with deploy_local(bundle, workers=2) as service, ThreadPoolExecutor(12) as pool:
            url = urlsplit(service.scoring_uri)
            address = (url.hostname, url.port)
            sizes = [
                ("JPEG", (8000, 6000)),
                ("PNG", (7000, 7000)),
                ("WEBP", (5000, 4000)),
                ("TIFF", (2500, 2500)),
            ]
            sizes = [request(encoded(size, kind), "image/jpeg", "?saliency=1") for kind, size in sizes]
            warm = [[each] for each in [*sizes, request(in_json(*[GOOD] * 64), "application/json")] * 10]
            print("warm-up:", dict(Counter(pool.map(lambda parts: send(address, parts), warm))), flush=True)
            processes = [psutil.Process(service._process.pid)]
            processes += processes[0].children(recursive=True)
            started = time.monotonic()
            outcomes, course = {}, [memory(processes)]
            for kind, outcome in zip(
                kinds, pool.map(fuzz, [address] * len(kinds), kinds, generators), strict=True
            ):
                outcomes.setdefault(kind, Counter())[outcome] += 1
                if sum(map(Counter.total, outcomes.values())) % max(1, len(kinds) // 5) == 0:
                    course.append(memory(processes))
            seconds = time.monotonic() - started
            now = [processes[0], *processes[0].children(recursive=True)]
            same = set(now) == set(processes)
            text = service.log.read_text(errors="replace")

    print(f"{'kind':<18}{'requests':>8}  statuses")
    for kind in ["good", *SHARES, "200 MB"]:
        found = outcomes.get(kind, Counter())
        print(f"{kind:<18}{found.total():>8}  {', '.join(f'{a}: {b}' for a, b in sorted(found.items()))}")
    total = sum(outcomes.values(), Counter())
    faults = {
        "5xx": sum(n for status, n in total.items() if status[0] == "5" and status not in ("501", "505")),
        "timeouts": total["timeout"],
        "good requests without their 200": outcomes["good"].total() - outcomes["good"]["200"],
        "restarted": not same,
        f"growth over {GROWTH} MB": course[-1] - course[0] > GROWTH,
    }
    print(
        f"{seconds:.0f} s; {len(processes)} processes, memory in MB from the warm-up on:",
        *np.round(course).astype(int),
    )
    print(f"processes {'the same' if same else 'others'}; tracebacks in the log: {text.count('Traceback')}")
    for name, value in faults.items():
        print(f"FAULT {name}: {value}") if value else None
    if text.count("Traceback"):
        print(text[text.index("Traceback") :][:3000])
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
