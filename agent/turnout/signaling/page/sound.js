// What goes out and what is heard: microphone or tone, the speaker, and meters on both.

import { microphoneFailed } from "./failures.js";

export const TONE_HZ = 440;
const PULSE_SECONDS = 1;
const QUIET_DB = -60;
const HEARD_DB = -50;
const PEAK_FALL_DB = 0.5; // each time a Meter is asked

export function hasMicrophoneApi() {
  return window.isSecureContext && navigator.mediaDevices !== undefined;
}

export async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw microphoneFailed(error);
  }
}

// Half a second of tone every second: what comes back can be told from what goes out.
export function openTone(context) {
  const oscillator = new OscillatorNode(context, { frequency: TONE_HZ });
  const gain = new GainNode(context, { gain: 0 });
  const gate = new OscillatorNode(context, { frequency: 1 / PULSE_SECONDS });
  const depth = new GainNode(context, { gain: 0.1 });
  const shape = new WaveShaperNode(context, { curve: Float32Array.of(0, 0, 0, 1, 2) });
  const output = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  gate.connect(shape).connect(depth).connect(gain.gain);
  oscillator.connect(gain).connect(output);
  oscillator.start();
  gate.start();
  return output.stream;
}

// The level and the loudest frequency of a stream, now.
export class Meter {
  #analyser;
  #samples;
  #bins;
  #source;

  constructor(context, stream) {
    this.#analyser = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#bins = new Float32Array(this.#analyser.frequencyBinCount);
    this.#source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    this.#source.connect(this.#analyser);
  }

  // dB of full scale, not below -60.
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, one) => sum + one * one, 0) / this.#samples.length;
    return Math.max(QUIET_DB, 10 * Math.log10(power || 1e-12));
  }

  // Hz, between the bins by the parabola through the peak.
  loudest() {
    const bins = this.#bins;
    this.#analyser.getFloatFrequencyData(bins);
    const peak = bins.indexOf(Math.max(...bins));
    if (peak <= 0 || peak >= bins.length - 1) return 0;
    const [left, top, right] = [bins[peak - 1], bins[peak], bins[peak + 1]];
    const shift = (left - right) / (2 * (left - 2 * top + right)) || 0;
    return ((peak + shift) * this.#analyser.context.sampleRate) / this.#analyser.fftSize;
  }

  close() {
    this.#source.disconnect();
  }
}

// Judges from the levels both ways whether what was said is heard.
export class Ear {
  #sentAt = 0;
  #heardAt = 0;
  #hz = 0;
  #peak = QUIET_DB;

  // Takes levels in dB, a frequency in Hz and `now` in ms; returns the verdict as a sentence.
  listen(sent, heard, now) {
    if (sent > HEARD_DB) this.#sentAt = now;
    if (heard.level > HEARD_DB) {
      this.#heardAt = now;
    }
    // The frequency of the loudest moments: a sound that fades is mostly room and hum.
    this.#peak = Math.max(this.#peak - PEAK_FALL_DB, QUIET_DB);
    if (heard.level >= this.#peak) {
      this.#peak = heard.level;
      this.#hz = heard.hz;
    }
    if (this.#heardAt && now - this.#heardAt < 2000) {
      return `Echo heard at ${Math.round(this.#hz)} Hz`;
    }
    if (now - this.#sentAt < 2000) {
      return this.#heardAt ? "The echo has gone silent" : "Waiting for the echo";
    }
    return "Silence: say something";
  }
}
