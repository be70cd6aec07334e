// The camera and the microphone, recorded in short pieces that the server reads while they come, and its words as captions.
//
// server.begin({from, who}) gives {token, seconds}, server.push({token, piece, last}) {words, partial, left_out, over, error},
// server.choose({token, point}) {error}. One piece is under way at a time; what is recorded meanwhile goes together.

const EVERY = 200; // milliseconds of a piece
const PAUSE = 1; // seconds between two words, after which a new line of captions begins
const LONGEST = 48; // letters of a caption
const NOTICE = 3000; // milliseconds for which an answer to a tap stays
const KINDS = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
const SOUND_KINDS = ["audio/webm;codecs=opus", "audio/webm", "audio/mp4"];
const VIDEO = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 } };
const AUDIO = { echoCancellation: false, noiseSuppression: false };

const find = (name) => element.querySelector(`.live-${name}`);
const [video, status, said] = [find("video"), find("status"), find("said")];
let run = null; // what is recorded and sent now

function say(text, wrong = false) {
  status.textContent = text;
  status.toggleAttribute("data-wrong", wrong);
}

function settle() {
  const stream = run?.stream;
  video.toggleAttribute("data-runs", Boolean(stream?.getVideoTracks().length));
  find("empty").hidden = video.hasAttribute("data-runs");
  find("start").disabled = Boolean(run);
  find("stop").disabled = !run;
  find("from").disabled = find("who").disabled = Boolean(run);
}

async function open(from) {
  if (!navigator.mediaDevices || !window.MediaRecorder) throw new Error("This browser gives no camera to pages.");
  const wanted = { audio: from !== "visual" && AUDIO, video: from !== "audio" && VIDEO };
  try {
    return await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    if (error.name === "NotAllowedError") throw new Error("The browser was not allowed to use camera and microphone.");
    if (from !== "auto") throw new Error(from === "audio" ? "There is no microphone." : "There is no camera.");
  }
  for (const half of [{ audio: AUDIO }, { video: VIDEO }]) {
    const stream = await navigator.mediaDevices.getUserMedia(half).catch(() => null);
    if (stream) return stream;
  }
  throw new Error("There is neither a camera nor a microphone.");
}

function encoded(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(blob);
  });
}

async function start() {
  const [from, who] = [find("from").value, find("who").value];
  run = { pieces: [], words: [], delays: [], ended: false };
  const mine = run;
  say("Opening camera and microphone\u2026");
  settle();
  try {
    mine.stream = await open(from);
    video.srcObject = mine.stream;
    video.play().catch(() => {});
    const begun = await server.begin({ from, who });
    if (!begun) throw new Error("The server does not answer.");
    if (begun.error) throw new Error(begun.error);
    Object.assign(mine, begun);
    if (mine.ended) throw new Error("Stopped.");
    const kinds = mine.stream.getVideoTracks().length ? KINDS : SOUND_KINDS;
    const mimeType = kinds.find((kind) => MediaRecorder.isTypeSupported(kind));
    mine.recorder = new MediaRecorder(mine.stream, { mimeType, videoBitsPerSecond: 1.5e6, audioBitsPerSecond: 96e3 });
    mine.recorder.onstart = () => (mine.began = performance.now());
    mine.recorder.ondataavailable = (event) => {
      mine.pieces.push(event.data);
      send(mine);
    };
    mine.recorder.onstop = () => {
      mine.ended = true;
      send(mine);
    };
    mine.recorder.start(EVERY);
    said.textContent = "";
    caption(mine, "");
    say("Talk, and look at the camera.");
    settle();
  } catch (error) {
    finish(mine, error.message, true);
  }
}

function stop() {
  if (!run) return;
  if (run.recorder?.state === "recording") {
    say("Reading the rest\u2026");
    run.recorder.stop();
  } else {
    run.ended = true;
  }
}

function finish(mine, text, wrong = false) {
  mine.over = true;
  if (mine.recorder?.state === "recording") mine.recorder.stop();
  for (const track of mine.stream?.getTracks() ?? []) track.stop();
  if (run === mine) {
    run = null;
    video.srcObject = null;
    find("caption").hidden = true;
    say(text, wrong);
    settle();
  }
}

async function send(mine) {
  if (mine.sends || mine.over) return;
  mine.sends = true;
  while (!mine.over && (mine.pieces.length || mine.ended)) {
    const last = mine.ended;
    const piece = await encoded(new Blob(mine.pieces.splice(0)));
    const answer = await server.push({ token: mine.token, piece, last });
    if (!answer) finish(mine, "The server does not answer any more.", true);
    else show(mine, answer);
    if (mine.ended && !mine.over) await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
  mine.sends = false;
}

function show(mine, { words = [], partial = "", left_out = 0, over, error }) {
  const now = (performance.now() - mine.began) / 1000;
  for (const word of words) {
    mine.words.push(word);
    if (!mine.ended) mine.delays.push(now - word.end);
  }
  if (words.length) said.textContent = mine.words.map((word) => word.text).join(" ");
  caption(mine, partial);
  const delays = [...mine.delays].sort((a, b) => a - b);
  const late = delays.length ? `Words come ${delays[Math.floor(delays.length / 2)].toFixed(1)} s after they were said` : "";
  const slow = left_out ? `${late ? "; " : ""}${left_out} pictures were left out, as they came too fast` : "";
  if (error || over) {
    const end = now >= mine.seconds ? `Ended after ${mine.seconds} seconds, the limit here. ` : "";
    finish(mine, error || `${end}${late}${slow}` || "Nothing was read.", Boolean(error));
  } else if ((late || slow) && !(performance.now() < mine.noticed)) say(`${late}${slow}.`);
}

function caption(mine, partial) {
  const line = [];
  for (const word of [...mine.words].reverse()) {
    if (line.length && (line[0].start - word.end > PAUSE || line.map((one) => one.text).join(" ").length > LONGEST)) break;
    line.unshift(word);
  }
  find("certain").textContent = line.map((word) => word.text).join(" ");
  find("partial").textContent = partial;
  find("caption").hidden = !line.length && !partial;
}

async function choose(event) {
  if (!run?.token || !video.videoWidth) return;
  const frame = video.getBoundingClientRect();
  const scale = Math.min(frame.width / video.videoWidth, frame.height / video.videoHeight);
  // It is shown as in a mirror, with bars where its shape is another than the frame's.
  const x = video.videoWidth / 2 - (event.clientX - frame.left - frame.width / 2) / scale;
  const y = video.videoHeight / 2 + (event.clientY - frame.top - frame.height / 2) / scale;
  const mine = run;
  const answer = await server.choose({ token: mine.token, point: [x, y] });
  mine.noticed = performance.now() + NOTICE;
  if (answer?.error) say(answer.error, true);
  else say("Whoever you tapped is read from here on.");
}

find("start").addEventListener("click", start);
find("stop").addEventListener("click", stop);
video.addEventListener("click", choose);
settle();
