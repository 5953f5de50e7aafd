/** Smaller copies of photos, made in the browser, for slow lines and for photos above the limit. */

const LONGEST_SIDE = 1600;
const QUALITY = 0.85;
const WORTH_IT_BYTES = 400_000;

/** Whether a copy would save much time. */
export function isWorthIt(file) {
  return file.size > WORTH_IT_BYTES;
}

/** A JPEG of at most 1,600 pixels, upright, without metadata; the file itself where that would not be smaller, or where
 * this browser cannot read its format. */
export async function smallerCopy(file) {
  if (!isWorthIt(file)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG has no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const copy = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  canvas.width = canvas.height = 0; // frees its memory at once
  return copy && copy.size < file.size ? copy : file;
}

/** Measures one upload. */
export class LineWatch {
  #started = performance.now();
  share = 0;
  uploadS = null;

  /** Seconds that are left, once that is known and worth a word; else null. */
  secondsLeft(share, bytes) {
    const elapsed = (performance.now() - this.#started) / 1000;
    this.share = share;
    if (share >= 1) this.uploadS ??= elapsed;
    if (elapsed < 3 || share >= 1 || share === 0) return null;
    const left = (elapsed / share) * (1 - share);
    return left > 5 && (1 - share) * bytes > WORTH_IT_BYTES / 2 ? left : null;
  }
}
