// Attachments as apps encrypt them: AES-256-CBC, then HMAC-SHA256 over all of it. The server sees only this.

import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

const IV_BYTES = 16;
const MAC_BYTES = 32;

/** @returns {{ key: Buffer, sealed: Buffer }} */
export function sealAttachment(plain) {
  const key = randomBytes(64);
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-cbc', key.subarray(0, 32), iv);
  const sealed = Buffer.concat([iv, cipher.update(plain), cipher.final()]);
  return { key, sealed: Buffer.concat([sealed, mac(key, sealed)]) };
}

export function openAttachment(key, bytes) {
  const sealed = bytes.subarray(0, -MAC_BYTES);
  if (!timingSafeEqual(mac(key, sealed), bytes.subarray(-MAC_BYTES))) throw new Error('the attachment was changed');
  const decipher = createDecipheriv('aes-256-cbc', key.subarray(0, 32), sealed.subarray(0, IV_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(IV_BYTES)), decipher.final()]);
}

function mac(key, bytes) {
  return createHmac('sha256', key.subarray(32)).update(bytes).digest();
}
