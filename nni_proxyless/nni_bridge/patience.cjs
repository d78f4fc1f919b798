// Preloaded into NNI's manager, by loopback.cjs. The manager gives a tuner 10 seconds to connect, and then the experiment
// fails. On a busy machine, or from a slow disk, importing NNI alone takes longer. With this file it waits for as long as
// the tuner's process runs, up to 3 minutes.
'use strict';
const childProcess = require('child_process');

const EVERY_MS = 500;
const LONGEST_MS = 180000;
let tuner = null;

const spawn = childProcess.spawn;
childProcess.spawn = function (command, words, ...rest) {
  const child = spawn.call(this, command, words, ...rest);
  if (Array.isArray(words) && words.includes('--exp_params')) {
    tuner = child;
  }
  return child;
};

const setTimer = globalThis.setTimeout;
globalThis.setTimeout = Object.assign(function (callback, delay, ...rest) {
  if (!String(callback).includes('Tuner did not connect')) {
    return setTimer(callback, delay, ...rest);
  }
  const end = Date.now() + LONGEST_MS;
  const look = () => {
    const runs = tuner !== null && tuner.exitCode === null && tuner.signalCode === null;
    if (runs && Date.now() < end) {
      setTimer(look, EVERY_MS);
    } else {
      callback(...rest);
    }
  };
  return setTimer(look, delay);
}, setTimer);
