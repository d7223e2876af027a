// The server must not learn from a ciphertext's length how long the text was, so texts are padded to a multiple of
// BLOCK: the text, one byte 0x80, then zeros.

const BLOCK = 160;

/** @param {string} text */
export function pad(text) {
  const bytes = Buffer.from(text, 'utf8');
  const padded = new Uint8Array(Math.ceil((bytes.length + 1) / BLOCK) * BLOCK);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  return padded;
}

/** @param {Uint8Array} padded */
export function unpad(padded) {
  const end = padded.lastIndexOf(0x80);
  if (end < 0 || padded.subarray(end + 1).some((byte) => byte !== 0)) {
    throw new Error('the padding is not ours: the sender is another program');
  }
  return Buffer.from(padded.subarray(0, end)).toString('utf8');
}
