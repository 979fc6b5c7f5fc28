// The page of `summarymix serve`: a microphone or a file goes to the server's WebSocket; text comes back.

const $ = (id) => document.getElementById(id);
const KEPT = 500; // packets, of 40 ms, whose times are kept to measure the latency
const secure = window.isSecureContext; // elsewhere browsers give no microphone, audio worklet and clipboard
let server = null; // the last /status
let session = null; // the stream that runs

// ---- what the page shows ------------------------------------------------------------------------------------------

function show(id, text) {
  $(id).textContent = text;
}

function complain(text) {
  show("problem", text);
  $("problem").hidden = !text;
}

function fill(select, values) {
  const before = select.value; // "" at first
  select.replaceChildren(...values.map((ms) => new Option(ms ? `${ms} ms` : "none", ms)));
  if (values.map(String).includes(before)) select.value = before;
}

function offerLookaheads() {
  const chunk = Number($("chunk").value);
  fill($("lookahead"), server.settings.filter((one) => one.chunk_ms === chunk).map((one) => one.lookahead_ms));
}

function update() {
  const running = session !== null;
  show("microphone", running ? "Stop" : "Start microphone");
  const usable = secure && server;
  $("microphone").disabled = !usable || (running && session.stopping);
  for (const id of ["play", "chunk", "lookahead"]) $(id).disabled = !usable || running;
  const empty = !$("final").childElementCount && !$("partial").textContent;
  $("hint").hidden = !secure || !empty || running;
  $("copy").disabled = !navigator.clipboard || empty;
  $("clear").disabled = empty;
}

function wordsOf({ words, text }) {
  const parts = [];
  for (const { word, confidence, spaced } of words) {
    if (spaced && parts.length) parts.push(" ");
    const span = document.createElement("span");
    span.className = confidence < 0.5 ? "word doubtful" : confidence < 0.8 ? "word unsure" : "word";
    span.title = `${Math.round(100 * confidence)} %`;
    span.textContent = word;
    parts.push(span);
  }
  return parts.length ? parts : [text];
}

function showText(message) {
  const box = $("transcript");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  if (message.is_final) {
    const segment = document.createElement("p");
    const time = document.createElement("time");
    const seconds = Math.floor(message.words.length ? message.words[0].start : message.start);
    time.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    segment.append(time, ...wordsOf(message));
    $("final").append(segment);
    $("partial").replaceChildren();
  } else {
    $("partial").replaceChildren(...wordsOf(message));
  }
  if (follows) box.scrollTop = box.scrollHeight;
  update();
}

// ---- a stream -----------------------------------------------------------------------------------------------------

class Session {
  constructor(context, setting) {
    this.context = context;
    this.setting = setting;
    this.stopping = false;
    this.finished = false;
    this.sent = []; // [seconds of audio, time] of packets whose text has not come yet
    this.seconds = 0;
  }

  connect() {
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`);
    this.socket.onmessage = ({ data }) => this.receive(data);
    return new Promise((resolve, reject) => {
      this.socket.onclose = () => reject(new Error("The server does not answer."));
      this.socket.onopen = () => {
        this.socket.onclose = () => this.close(this.finished ? "" : "The connection was lost.");
        resolve();
      };
    });
  }

  async start(source, heard) {
    await this.context.audioWorklet.addModule("worklet.js");
    if (session !== this) throw new Error("The stream has been stopped.");
    await this.connect();
    this.socket.send(JSON.stringify({ sample_rate: this.context.sampleRate, ...this.setting }));
    this.recorder = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    this.recorder.port.onmessage = ({ data }) => this.send(data);
    source.connect(this.recorder);
    if (heard) source.connect(this.context.destination);
    await this.context.resume();
  }

  send(samples) { // null: the end
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(samples ?? "Done");
    if (!samples) {
      this.release(); // the microphone, or the file
      return;
    }
    this.seconds += samples.length / this.context.sampleRate;
    this.sent.push([this.seconds, performance.now()]);
    if (this.sent.length > KEPT) this.sent.shift(); // silence: no text comes
    $("level").value = Math.sqrt(samples.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0));
  }

  receive(data) {
    const message = data === "Done!" ? {} : JSON.parse(data);
    if (data === "Done!" || message.error) {
      this.finished = true;
      this.close(message.error ? `The server ended the stream: ${message.error}.` : "");
      return;
    }
    showText(message);
    while (this.sent.length && this.sent[0][0] < message.seconds - 1e-3) this.sent.shift();
    if (this.sent.length && !this.stopping) {
      const { chunk_ms: chunk, lookahead_ms: lookahead } = this.setting;
      const computing = Math.round(performance.now() - this.sent[0][1]);
      show("latency", `${chunk + lookahead + computing} ms`);
      show("parts", `chunk ${chunk} + look-ahead ${lookahead} + computing ${computing}`);
    }
  }

  stop() {
    if (this.stopping) return;
    if (!this.recorder) {
      this.close("");
      return;
    }
    this.stopping = true;
    show("state", "Waiting for the last words …");
    this.recorder.port.postMessage("end");
    update();
  }

  close(problem) {
    if (session !== this) return;
    session = null;
    if (problem) complain(problem);
    this.release?.();
    this.socket?.close();
    this.context.close();
    $("level").value = 0;
    show("state", "Ready.");
    update();
  }
}

async function run(context, open, heard, state) {
  complain("");
  const setting = { chunk_ms: Number($("chunk").value), lookahead_ms: Number($("lookahead").value) };
  const mine = (session = new Session(context, setting));
  update();
  try {
    const source = await open(mine);
    await mine.start(source, heard);
    source.start?.();
    show("state", state);
  } catch (error) {
    mine.close(error.message);
  }
}

const REFUSALS = {
  NotAllowedError: "The microphone is blocked: allow it for this page, in the browser's address bar.",
  NotFoundError: "There is no microphone: connect one, or play a file.",
};

function useMicrophone() {
  const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const open = async (mine) => {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
      mine.release = () => stream.getTracks().forEach((track) => track.stop());
      if (session !== mine) mine.release();
      return mine.context.createMediaStreamSource(stream);
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `The microphone cannot be used: ${error.message}`);
    }
  };
  // At the device's own rate: the server resamples, as it did for training.
  run(new AudioContext(), open, false, "Listening: speak.");
}

function playFile(file) {
  const open = async (mine) => {
    const source = mine.context.createBufferSource();
    try {
      source.buffer = await mine.context.decodeAudioData(await file.arrayBuffer());
    } catch {
      throw new Error(`The browser cannot play ${file.name}: convert it, for instance to WAV.`);
    }
    source.onended = () => mine.stop();
    mine.release = () => source.disconnect();
    return source;
  };
  run(new AudioContext({ sampleRate: server.sample_rate }), open, true, `Playing ${file.name}.`);
}

// ---- the server's load --------------------------------------------------------------------------------------------

async function poll() {
  try {
    const before = server;
    const response = await fetch("status");
    if (!response.ok) throw new Error(response.statusText);
    server = await response.json();
    show("clients", `${server.clients} of ${server.max_clients}`);
    if (before) {
      const [busy, audio, time] = ["busy", "audio", "uptime"].map((n) => server[`${n}_seconds`] - before[`${n}_seconds`]);
      show("load", `${Math.round((100 * busy) / time)} %`);
      show("rtf", audio > 0 ? (busy / audio).toFixed(3) : "–");
    } else {
      show("model", server.name);
      fill($("chunk"), [...new Set(server.settings.map((one) => one.chunk_ms))]);
      offerLookaheads();
      show("state", "Ready.");
    }
  } catch {
    server = null;
    if (!session) show("state", "The server does not answer; trying again …");
  }
  if (!session || !server) update();
  setTimeout(poll, 2000);
}

// ---- buttons ------------------------------------------------------------------------------------------------------

$("microphone").onclick = () => (session ? session.stop() : useMicrophone());
$("play").onclick = () => $("file").click();
$("file").onchange = ({ target }) => {
  if (target.files.length) playFile(target.files[0]);
  target.value = "";
};
$("chunk").onchange = offerLookaheads;
$("clear").onclick = () => {
  $("final").replaceChildren();
  $("partial").replaceChildren();
  update();
};
$("copy").onclick = async () => {
  const lines = [...$("final").children].map((segment) => segment.textContent.slice(segment.firstChild.textContent.length));
  await navigator.clipboard.writeText([...lines, $("partial").textContent].filter(Boolean).join("\n"));
  show("state", "Copied.");
};
$("controls").onsubmit = (event) => event.preventDefault();
if (!secure) complain("This page works only on localhost or over HTTPS, where browsers allow audio: open it there.");
poll();
