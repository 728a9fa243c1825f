"use strict";
// The pixels that `decode` of code/isicvision/images.py returns, in a browser; an Error's message is the reason, in the
// words of the service, for which an image is refused.

const MAX_PIXELS = 50_000_000;  // these two as in code/03_deployment/score.py
const MIN_SIDE = 24;
const OTHERS = "Use the web service for it, or save it as JPEG or PNG with 8 bits";
const DAMAGED = "it is damaged or cut short";
const FILTERS = {  // of Pillow: how far they reach, and their values
  bilinear: [1, x => Math.max(0, 1 - x)],
  bicubic: [2, x => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0)],
};
const ONE = 2 ** 22;  // Pillow's weights are integers, too
const INTEGERS = { 3: "Uint16", 4: "Uint32", 6: "Int8", 8: "Int16", 9: "Int32", 13: "Uint32" };  // of EXIF, by type

const text = (bytes, start, end) => String.fromCharCode(...bytes.subarray(start, end));

function unsupported(what) {
  throw new Error(`it is ${what}, which this page cannot read. ${OTHERS}`);
}

/** Decode a file to RGB, upright, its center square resized to `size`: Uint8Array of size * size * 3. */
async function decode(file, size, interpolation = "bilinear") {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { width, height, orientation, isJpeg } = await inspect(bytes);
  if (width * height > MAX_PIXELS)
    throw new Error(`it has ${width}x${height} pixels, more than ${MAX_PIXELS.toLocaleString("en")} pixels`);
  if (Math.min(width, height) < MIN_SIDE)
    throw new Error(`it has ${width}x${height} pixels, each side needs ${MIN_SIDE} or more`);
  // JPEGs are decoded at a reduced scale, as Pillow's `draft` has it
  const largest = isJpeg ? Math.floor(Math.min(width, height) / (2 * size)) : 1;
  const scale = [8, 4, 2].find(each => largest >= each) ?? 1;
  const reduced = scale > 1 && await reducedPixels(bytes, Math.ceil(width / scale), Math.ceil(height / scale));
  return resize(upright(reduced || reduce(await pixels(bytes), scale), orientation), size, FILTERS[interpolation]);
}

/** Find out what a file is; refuse what the service refuses, and what this page cannot read.
 *
 * Erases the file's EXIF and XMP: browsers differ in which files they turn.
 */
async function inspect(bytes) {
  const view = new DataView(bytes.buffer);
  if (text(bytes, 128, 132) === "DICM") unsupported("a DICOM file");
  if (["II*\0", "MM\0*"].includes(text(bytes, 0, 4))) unsupported("a TIFF");
  try {
    if (text(bytes, 0, 3) === "\xff\xd8\xff") return { isJpeg: true, ...jpeg(bytes, view) };
    if (text(bytes, 0, 4) === "\x89PNG") return await png(bytes, view);
    if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP") return webp(bytes, view);
    if (text(bytes, 0, 2) === "BM") return { ...bmp(view), orientation: 1 };
  } catch (error) {
    throw error instanceof RangeError ? new Error(DAMAGED) : error;
  }
  if (text(bytes, 0, 4) === "GIF8") throw new Error("it is a GIF, which cannot be read: save it as JPEG or PNG");
  throw new Error("it is not an image (JPEG, PNG, BMP, WebP can be read)");
}

function jpeg(bytes, view) {
  const found = {}, exif = [];
  let xmp;
  for (let place = 2; ; ) {
    const marker = view.getUint16(place) - 0xff00;
    if (marker < 1 || marker === 0xff) { place += 1; continue; }  // like libjpeg, skip other bytes
    if (marker === 0xda) return { ...found, orientation: orientationOf(Uint8Array.from(exif), xmp) };  // pixels begin
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (bytes[place + 9] === 4) unsupported("a JPEG in CMYK");
      Object.assign(found, { height: view.getUint16(place + 5), width: view.getUint16(place + 7) });
    }
    const start = place + 4;
    place += 2 + view.getUint16(place + 2);
    if (marker !== 0xe1) continue;
    if (text(bytes, start, start + 6) === "Exif\0\0") exif.push(...moveOut(bytes, start, place).subarray(6));
    else if (text(bytes, start, start + 29) === "http://ns.adobe.com/xap/1.0/\0") xmp = moveOut(bytes, start, place);
  }
}

async function png(bytes, view) {
  if (bytes[24] === 16) unsupported("a PNG with 16 bits");
  let exif, profile, xmp;
  for (let place = 8; place + 12 <= bytes.length; ) {
    const kind = text(bytes, place + 4, place + 8), start = place + 8;
    place += 12 + view.getUint32(place);
    if (kind === "acTL") refuseFrames(view.getUint32(start));
    if (kind === "eXIf") exif = moveOut(bytes, start, place - 4);
    if (!["tEXt", "zTXt", "iTXt"].includes(kind)) continue;
    const note = text(bytes, start, start + 22);
    if (note === "Raw profile type exif\0") profile = await pngText(kind, moveOut(bytes, start, place - 4));
    if (note.startsWith("XML:com.adobe.xmp\0")) xmp = await pngText(kind, moveOut(bytes, start, place - 4));
  }
  if (!exif && profile) {  // three lines of heading, then the bytes in hexadecimal digits
    const pairs = new TextDecoder().decode(profile).split("\n").slice(3).join("").match(/\w\w/g) ?? [];
    exif = Uint8Array.from(pairs, pair => parseInt(pair, 16));
  }
  return { width: view.getUint32(16), height: view.getUint32(20), orientation: orientationOf(exif, xmp) };
}

/** Return the text of a PNG's chunk, as bytes: none where it is damaged. */
async function pngText(kind, chunk) {
  let start = chunk.indexOf(0) + 1;
  const compressed = kind === "zTXt" || (kind === "iTXt" && chunk[start] === 1);
  if (kind === "zTXt") start += 1;  // the method
  if (kind === "iTXt") start = chunk.indexOf(0, chunk.indexOf(0, start + 2) + 1) + 1;  // language, translated keyword
  if (!compressed) return chunk.subarray(start);
  const stream = new Blob([chunk.subarray(start)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer().then(content => new Uint8Array(content), () => new Uint8Array());
}

function webp(bytes, view) {
  const found = {}, has = text(bytes, 12, 16) === "VP8X" ? bytes[20] : 0;  // 8: EXIF, 4: XMP
  let frames = 0, exif, xmp;
  for (let place = 12; place + 8 <= bytes.length; ) {
    const kind = text(bytes, place, place + 4), size = view.getUint32(place + 4, true);
    if (kind === "VP8 ") [found.width, found.height] = [14, 16].map(at => view.getUint16(place + at, true) & 0x3fff);
    if (kind === "VP8L") {
      const both = view.getUint32(place + 9, true);
      [found.width, found.height] = [both, both >> 14].map(each => (each & 0x3fff) + 1);
    }
    if (kind === "ANMF") frames += 1;
    if (kind === "EXIF" && has & 8) exif ??= moveOut(bytes, place + 8, place + 8 + size);
    if (kind === "XMP " && has & 4) xmp ??= moveOut(bytes, place + 8, place + 8 + size);
    place += 8 + size + (size % 2);
  }
  refuseFrames(frames);
  return { ...found, orientation: orientationOf(exif, xmp) };
}

function bmp(view) {
  const isOld = view.getUint32(14, true) === 12;  // of OS/2
  const [width, height] = isOld ? [18, 20].map(at => view.getUint16(at, true))
    : [18, 22].map(at => view.getInt32(at, true));
  return { width, height: Math.abs(height) };
}

function refuseFrames(count) {
  if (count > 1) throw new Error(`it is an animation or a stack of ${count} images: save the one you mean`);
}

/** Return a copy of some bytes, and leave zeros in their place. */
function moveOut(bytes, start, end) {
  const taken = bytes.slice(start, end);
  bytes.fill(0, start, end);
  return taken;
}

/** Return the orientation, 1 to 8, that Pillow's `getexif` finds: in EXIF, or else in XMP. */
function orientationOf(exif, xmp) {
  const found = (exif && exifOrientation(exif))
    ?? Number(/tiff:Orientation(?:="|>)([0-9])/.exec(xmp && new TextDecoder().decode(xmp))?.[1]);
  return found >= 1 && found <= 8 ? found : 1;
}

/** Return the orientation that EXIF holds, 1 if EXIF is no such thing, undefined if there is none in it. */
function exifOrientation(exif) {
  const bytes = exif.subarray([12, 6, 0].find(each => "Exif\0\0Exif\0\0".startsWith(text(exif, 0, each))));
  if (!bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset), little = bytes[0] === 0x49;
  if (!["II*\0", "II\0*", "MM\0*", "MM*\0"].includes(text(bytes, 0, 4)) || bytes.length < 8) return 1;
  try {
    const directory = view.getUint32(4, little);
    for (let entry = directory + 2, left = view.getUint16(directory, little); left; left -= 1, entry += 12) {
      const [tag, type] = [0, 2].map(at => view.getUint16(entry + at, little)), kind = INTEGERS[type];
      if (tag !== 0x112) continue;
      if ([5, 10, 11, 12, 16].includes(type)) unsupported("turned by EXIF with a fraction");
      if ([1, 2, 7].includes(type)) return 1;  // not a number
      const count = view.getUint32(entry + 4, little), size = kind && count * Number(kind.match(/\d+/)) / 8;
      if (size) return view[`get${kind}`](size > 4 ? view.getUint32(entry + 8, little) : entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // EXIF that is cut short has no more entries
  }
  return undefined;
}

/** Return the pixels of a JPEG decoded at a reduced scale; null where a browser cannot do that. */
async function reducedPixels(bytes, width, height) {
  const type = "image/jpeg", desired = { desiredWidth: width, desiredHeight: height, colorSpaceConversion: "none" };
  try {
    const { image } = await new ImageDecoder({ data: bytes, type, ...desired }).decode();
    const data = new Uint8ClampedArray(4 * width * height);
    const fits = image.codedWidth === width && image.codedHeight === height;
    if (fits) await image.copyTo(data, { format: "RGBA" });
    image.close();
    return fits ? { width, height, data } : null;
  } catch {
    return null;  // a damaged file, too: `pixels` says so
  }
}

/** Return a file's pixels on white, as they lie in it: an ImageData. */
async function pixels(bytes) {
  let bitmap;
  try {
    const asStored = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    bitmap = await createImageBitmap(new Blob([bytes]), asStored);
  } catch {
    throw new Error(DAMAGED);
  }
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** Average squares of `scale` pixels: nearly what a decoder at a reduced scale does. */
function reduce({ width, height, data }, scale) {
  if (scale === 1) return { width, height, data };
  const small = { width: Math.ceil(width / scale), height: Math.ceil(height / scale) };
  small.data = new Uint8ClampedArray(4 * small.width * small.height);
  for (let y = 0; y < small.height; y += 1)
    for (let x = 0; x < small.width; x += 1) {
      const right = Math.min(width, (x + 1) * scale), bottom = Math.min(height, (y + 1) * scale);
      let red = 0, green = 0, blue = 0;
      for (let v = y * scale; v < bottom; v += 1)
        for (let at = 4 * (v * width + x * scale), end = 4 * (v * width + right); at < end; at += 4) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
      const count = (right - x * scale) * (bottom - y * scale);
      small.data.set([red / count, green / count, blue / count], 4 * (y * small.width + x));
    }
  return small;
}

function upright({ width, height, data }, orientation) {
  if (orientation === 1) return { width, height, data };
  const swap = orientation > 4;
  const mirrorX = [2, 3, 7, 8].includes(orientation), mirrorY = [3, 4, 6, 7].includes(orientation);
  const turned = { width: swap ? height : width, height: swap ? width : height };
  const from = new Uint32Array(data.buffer), to = new Uint32Array(from.length);
  for (let y = 0; y < turned.height; y += 1)
    for (let x = 0; x < turned.width; x += 1) {
      const [column, row] = swap ? [y, x] : [x, y];
      to[y * turned.width + x] =
        from[(mirrorY ? height - 1 - row : row) * width + (mirrorX ? width - 1 - column : column)];
    }
  return { ...turned, data: new Uint8ClampedArray(to.buffer) };
}

/** Resize the center square to RGB of `size` * `size`, bit for bit as Pillow does: in two passes, rounded after each. */
function resize(image, size, filter) {
  const { width, height } = image, left = Math.max(0, (width - height) / 2), top = Math.max(0, (height - width) / 2);
  const columns = weights(left, width - left, width, size, filter);
  const rows = weights(top, height - top, height, size, filter);
  const isDownFirst = height - size > 2 * Math.max(0, width - size);  // as Pillow 13 chooses
  const { data } = isDownFirst ? pass(pass(image, rows, true), columns, false)
    : pass(pass(image, columns, false), rows, true);
  return Uint8Array.from({ length: 3 * size * size }, (_, at) => data[4 * Math.floor(at / 3) + (at % 3)]);
}

/** Resize the width of an image, or with `isDown` its height, to as many pixels as there are weights. */
function pass({ width, height, data }, all, isDown) {
  const size = isDown ? { width, height: all.length } : { width: all.length, height };
  const target = new Uint8ClampedArray(4 * size.width * size.height), step = isDown ? 4 * width : 4;
  for (let y = 0, place = 0; y < size.height; y += 1)
    for (let x = 0; x < size.width; x += 1, place += 4) {
      const { first, values } = all[isDown ? y : x];
      const start = 4 * (isDown ? first * width + x : y * width + first);
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = ONE / 2;
        for (let index = 0, at = start + channel; index < values.length; index += 1, at += step)
          sum += data[at] * values[index];
        target[place + channel] = Math.floor(sum / ONE);
      }
    }
  return { ...size, data: target };
}

/** Return for each pixel of the result the first pixel that counts, and the weights from there on. */
function weights(start, end, length, size, [support, value]) {
  const scale = (end - start) / size, stretch = Math.max(1, scale);
  return Array.from({ length: size }, (_, index) => {
    const center = start + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * stretch + 0.5));
    const last = Math.min(length, Math.trunc(center + support * stretch + 0.5));
    const raw = Array.from({ length: last - first }, (_, at) =>
      value(Math.abs((first + at - center + 0.5) / stretch)));
    const sum = raw.reduce((total, each) => total + each, 0);
    return { first, values: raw.map(each => Math.trunc((each / sum) * ONE + Math.sign(each) / 2)) };
  });
}
