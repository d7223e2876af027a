// Keeps a device in one JSON file. The file holds private keys: it is readable by its owner only.

import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

import { Device } from './device.mjs';

/** The device in this file, or null when there is no such file. */
export async function loadState(path) {
  let text;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
  return Device.fromJSON(JSON.parse(text));
}

/**
 * Replaces the file. It is complete and on disk when this returns, and a crash in between leaves the old one: a session
 * that is older than a message already sent would use the same message key twice.
 */
export async function saveState(path, device) {
  const fresh = `${path}.new`;
  await write(fresh, JSON.stringify(device));
  await rename(fresh, path);
  await syncDirectory(dirname(path));
}

async function write(path, text) {
  const file = await open(path, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path) {
  const directory = await open(path);
  try {
    await directory.sync();
  } catch (error) {
    if (process.platform !== 'win32') throw error;
  } finally {
    await directory.close();
  }
}
